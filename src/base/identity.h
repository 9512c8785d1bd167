/* Who this process is, as other processes of the machine can tell.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_IDENTITY_H
#define NVLXI_BASE_IDENTITY_H

#include <stdbool.h>

#include "base/records.h"

/* Fills all but the generation, which becomes 0. Reads /proc. Returns 0, NVLX_ENOTSUP or NVLX_ENOMEM. */
int nvlxi_identity_make(struct nvlxi_identity *identity);

/* What /proc/<pid>/stat tells: the state, 'Z' or 'X' of a process that has ended, and when it was started, in clock
 * ticks after boot. False: it does not. */
bool nvlxi_identity_parse_stat(const char *text, char *state, uint64_t *start_time);

/* Whether both are the same process (of whichever engines). */
bool nvlxi_identity_same_process(const struct nvlxi_identity *a, const struct nvlxi_identity *b);

#endif
