/* A plan -> copies on lanes. A leg is the part of a plan that one lane carries, and the event behind it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_ISSUE_H
#define NVLXI_ISSUE_H

#include "plan.h"
#include "pool.h"

struct nvlxi_leg {
    struct nvlxi_pooled_lane *lane;
    struct nvlxi_pooled_event *event;
    bool kernels;    /* some were issued */
    bool unrecorded; /* the device refused to record the event: the leg is complete when its lane is empty */
};

struct nvlxi_legs {
    struct nvlxi_leg *leg, one; /* `leg` points to `one`, or to memory of its own where there are more */
    uint32_t count, done;
    struct nvlxi_place { /* in a list: what comes before it is issued */
        const struct nvlxi_chunk *chunk;
        uint32_t fragment;
    } place; /* of a plan in portions */
};

/* Borrows lanes and events for a plan that is sealed, or has its first portion: all or none. */
int nvlxi_issue_borrow(struct nvlxi_pool *pool, const struct nvlxi_plan *plan, int priority, struct nvlxi_legs *legs);
/* Gives them back. */
void nvlxi_issue_return(struct nvlxi_pool *pool, struct nvlxi_legs *legs);

/* Lets all legs start after what is in the caller's stream by now. */
int nvlxi_issue_follow(struct nvlxi_pool *pool, const struct nvlxi_legs *legs, void *stream);

/* Issues the copies of what is planned by now, the first time; and of what was planned since. The first failure is
 * returned; what was issued before it is in flight. max_sms 0: as many SMs as each group says. */
int nvlxi_issue_copies(struct nvlxi_pool *pool, const struct nvlxi_plan *plan, struct nvlxi_legs *legs,
                       uint32_t max_sms);
int nvlxi_issue_more(struct nvlxi_pool *pool, const struct nvlxi_plan *plan, struct nvlxi_legs *legs, uint32_t max_sms);

/* Puts each leg's event behind its last copy, whatever failed before, and, unless it is NULL, the caller's stream
 * behind the events. Returns the first failure. */
int nvlxi_issue_end(struct nvlxi_pool *pool, const struct nvlxi_legs *legs, void *stream);

/* Looks at the events in turn. 0: all are complete; NVLX_EAGAIN (not logged): not yet; else what the device says of the
 * leg looked at, which counts as complete: ask again. */
int nvlxi_issue_poll(struct nvlxi_pool *pool, struct nvlxi_legs *legs);

#endif
