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

#include "base/intervals/interval_order.h"
#include "descriptor/descriptor.h"

struct nvlxi_run {
    uint64_t base, size;
    uint64_t serial;       /* tells it from others at this base: the segment's own if it is alone and may be written */
    uint32_t first, count; /* segments of the descriptor */
    bool read_only;        /* no region in it grants writing, and mappings of its kind enforce that */
    uint32_t regions, writers; /* that lie in it, and those of them that grant writing; not of own memory */
    uint32_t next;             /* of one that was removed: in the list that has it */
};

#define NVLXI_RUN_LISTS                                                                                                \
    16 /* of those that were removed: by their segments, of which the last list has so many or more */

/* There is room for some more runs and segments than there are. A run keeps its place, and those of its segments, until
 * it is removed. Then it is not found any more, and another of as many segments may take its places. */
struct nvlxi_runs {
    struct nvlxi_run *run;
    uint32_t *of_segment;       /* [segments]: the run that it belongs to */
    struct nvlxi_order by_base; /* ids are places, from 1 on */
    size_t count, room, segment_room;
    uint32_t removed[NVLXI_RUN_LISTS]; /* lists: places, from 1 on */
};

/* `own`: of this very process. NVLX_ENOMEM, not logged; *runs can be freed then too. */
int nvlxi_runs_make(const struct nvlxi_descriptor *descriptor, bool own, struct nvlxi_runs *runs);
void nvlxi_runs_free(struct nvlxi_runs *runs);

/* Takes the place of a run of so many segments that was removed: it is no other one's any more. Returns it, from 1 on;
 * 0: there is none. */
uint32_t nvlxi_runs_reuse(struct nvlxi_runs *runs, uint32_t segments);
/* Gives back what was taken and not used. */
void nvlxi_runs_unuse(struct nvlxi_runs *runs, uint32_t place);
/* Adds the run of these segments, `run->first` and `count` of the array, at a place that was taken, or at one behind
 * all others. There is room. */
void nvlxi_runs_add(struct nvlxi_runs *runs, uint32_t place, const struct nvlxi_run *run);
void nvlxi_runs_remove(struct nvlxi_runs *runs, const struct nvlxi_run *run);
/* A run's serial, by its segments, which begin at `first`. */
uint64_t nvlxi_run_serial(const struct nvlxi_run *run, const struct nvlxi_segment_record *first);

/* The last run that begins at or before an address, or NULL. */
const struct nvlxi_run *nvlxi_runs_floor(const struct nvlxi_runs *runs, uint64_t address);

/* NULL if there is none. */
const struct nvlxi_run *nvlxi_runs_find(const struct nvlxi_runs *runs, uint64_t base, uint64_t serial);

#endif
