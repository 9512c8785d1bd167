/* Which engines of this process are still there: for peers that are engines of this process.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_REMOTE_LIFE_H
#define NVLXI_REMOTE_LIFE_H

#include <stdbool.h>

#include "base/fork_phase.h"
#include "base/records.h"

struct nvlxi_life; /* of one engine, counted: by the engine, and by each peer that stands for it */

/* An engine begins. NVLX_ENOMEM. */
int nvlxi_life_begin(const char engine[NVLXI_ENGINE_ID + 1], struct nvlxi_life **life);
/* It ends: from now on its life is over, and not found any more. */
void nvlxi_life_end(struct nvlxi_life *life);

/* NULL: there is no such engine in this process, or not any more. To be dropped. */
struct nvlxi_life *nvlxi_life_find(const char *engine);
/* NULL is allowed. */
void nvlxi_life_drop(struct nvlxi_life *life);
bool nvlxi_life_is_over(const struct nvlxi_life *life);

void nvlxi_life_fork(enum nvlxi_fork_phase phase);

#endif
