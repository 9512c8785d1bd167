/* What a peer's segments are mapped as: a run is a run of adjacent segments that regions join, or a lone segment. Own
 * memory, which is not mapped, may have borders between its segments, so that each is a run.
 * Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_REMOTE_RUN_H
#define NVLXI_REMOTE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "descriptor/descriptor.h"

struct nvlxi_run {
    uint64_t base, size;
    uint64_t serial;       /* tells it from others at this base: the segment's own if it is alone and may be written */
    uint32_t first, count; /* segments of the descriptor */
    bool read_only;        /* no region in it grants writing, and mappings of its kind enforce that */
};

struct nvlxi_runs {
    struct nvlxi_run *run;
    uint32_t *of_segment; /* [segments]: the run that it belongs to */
    const struct nvlxi_run **by_base;
    size_t count;
};

/* `own`: of this very process. NVLX_ENOMEM, not logged; *runs can be freed then too. */
int nvlxi_runs_make(const struct nvlxi_descriptor *descriptor, bool own, struct nvlxi_runs *runs);
void nvlxi_runs_free(struct nvlxi_runs *runs);

/* NULL if there is none. */
const struct nvlxi_run *nvlxi_runs_find(const struct nvlxi_runs *runs, uint64_t base, uint64_t serial);

#endif
