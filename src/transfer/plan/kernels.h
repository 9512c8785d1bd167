/* Which groups of a plan share lanes, and what kernels carry of them. Calls no device.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Groups share lanes if they are on the same GPU, in the same direction: one kernel takes the lists of several, and
 * copy engines carry one after the other, so that each GPU reads from one peer at a time, and every GPU from another.
 * What stays on the GPU is much faster, and has its own, so as not to wait for a link. So has host memory, which is
 * slower. The lanes of such groups are those of the first of them. */
#ifndef NVLXI_TRANSFER_PLAN_KERNELS_H
#define NVLXI_TRANSFER_PLAN_KERNELS_H

#include "device/device.h"
#include "transfer/plan/plan.h"

struct nvlxi_place {                 /* in a list: what comes before it is issued */
    const struct nvlxi_chunk *chunk; /* NULL: nothing is */
    uint32_t fragment;
};

struct nvlxi_kernel_room { /* in chunks for kernels' lists, those included that a plan has in reserve */
    uint64_t chunks, fragments;
};

/* Whether kernels carry some of a group, by now or later. */
static inline bool nvlxi_kernels_carry(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_KERNEL].first || group->lists[NVLXI_ROWS_BY_KERNEL].first || plan->in_portions;
}

/* The first of the groups that share kernels with this one. NULL: kernels carry none of it. */
const struct nvlxi_group *nvlxi_kernels_of(const struct nvlxi_plan *plan, const struct nvlxi_group *group);

/* The same of copy engines, of a plan that is sealed. */
const struct nvlxi_group *nvlxi_engines_of(const struct nvlxi_plan *plan, const struct nvlxi_group *group);

/* `first`: as nvlxi_kernels_of has returned it. */
struct nvlxi_kernel_room nvlxi_kernels_room(const struct nvlxi_plan *plan, const struct nvlxi_group *first);
/* The average length of what is on their lists by now. */
uint64_t nvlxi_kernels_average(const struct nvlxi_plan *plan, const struct nvlxi_group *first);

/* The next part of a list from `place` on, which moves behind it, of `most` fragments; false at the end. */
bool nvlxi_kernels_take_part(struct nvlxi_place *place, uint64_t most, struct nvlxi_part *part);

/* The next parts of their lists, a chunk of each in turn, of `most` fragments together, except for no more than one
 * kernel; returns how many. `place` has a place for each of the plan's groups, which moves on. */
uint32_t nvlxi_kernels_take(const struct nvlxi_plan *plan, const struct nvlxi_group *first, struct nvlxi_place *place,
                            uint64_t most, struct nvlxi_part *parts);

/* Whether kernels could carry all of a plan that the caller leaves to us. They take a place in a queue each, whatever
 * they copy. */
bool nvlxi_kernels_can(const struct nvlxi_plan *plan);
/* The same, and not much slower than copy engines. */
bool nvlxi_kernels_suit(const struct nvlxi_plan *plan);

#endif
