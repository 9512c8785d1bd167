/* A plan -> copies on lanes. A leg is the part of a plan that one lane carries, and the event behind it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_SUBMIT_H
#define NVLXI_TRANSFER_SUBMIT_H

#include "transfer/lanes.h"
#include "transfer/marks.h"
#include "transfer/plan/kernels.h"
#include "transfer/plan/plan.h"

struct nvlxi_leg {
    struct nvlxi_pooled_lane *lane;
    struct nvlxi_pooled_event *event;
    uint32_t queued; /* copies and kernels that it may issue: counted in the lane */
    uint32_t issued; /* kernels, and marks behind them */
    uint32_t marked; /* fragments between two marks of a kernel's list; 0: it leaves none */
    bool by_kernel;  /* it carries a kernel's list */
    uint32_t behind; /* of those queued: signals and calls behind all copies */
    bool unrecorded; /* the device refused to record the event: the leg is complete when its lane is empty */
};

struct nvlxi_legs {
    struct nvlxi_leg *leg, one;            /* `leg` points to `one`, or to memory of its own where there are more */
    struct nvlxi_place *place, only_place; /* likewise: in the kernel's list of each of the plan's groups */
    uint32_t count, done;
    int busy_gpu; /* whose queues were full */
};

/* How a plan that is sealed, or has its first portion, is to be issued. */
struct nvlxi_terms {
    const struct nvlxi_plan *plan;
    uint32_t max_sms;                  /* on each GPU; 0: as many as each group says */
    int32_t priority;                  /* as the caller has it */
    const struct nvlxi_stream *stream; /* the caller's, in whose order; NULL: none */
    struct nvlxi_marks *marks;         /* to be made, of a list of reads without a stream; or NULL */
    bool calls;                        /* each lane shall call back at its end: one place more in its queue */
};

struct nvlxi_call { /* what each lane calls when it has copied */
    void (*function)(void *argument);
    void *argument;
};

/* Borrows lanes and events: all or none. NVLX_EBUSY (not logged: see nvlxi_lanes_fail_busy): the queues are full. */
int nvlxi_submit_borrow(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs);
/* Gives them back. */
void nvlxi_submit_return(struct nvlxi_lane_pool *pool, struct nvlxi_legs *legs);

/* Whether the plan has more copies than may wait for a stream. */
bool nvlxi_submit_is_long(const struct nvlxi_terms *terms);
/* Whether the plan would be carried by several lanes at the same time if it had no stream. */
bool nvlxi_submit_is_wide(const struct nvlxi_plan *plan);

/* What a sealed plan of so many ops does, for those who ask. */
void nvlxi_submit_describe(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan, size_t ops,
                           uint32_t max_sms, struct nvlx_request_info *info);

/* Between what copies of a group go: GPUs, or NVLXI_HOST_MEMORY. */
struct nvlxi_ends {
    int to, from;
};

static inline struct nvlxi_ends nvlxi_submit_ends(const struct nvlxi_group *group) {
    const int here = group->hosts & NVLXI_LOCAL_HOST ? NVLXI_HOST_MEMORY : group->gpu,
              there = group->hosts & NVLXI_REMOTE_HOST ? NVLXI_HOST_MEMORY : group->remote_gpu;
    return group->opcode == NVLX_OP_READ ? (struct nvlxi_ends){here, there} : (struct nvlxi_ends){there, here};
}

/* Lets all legs start after what is in the caller's stream by now. */
int nvlxi_submit_follow(struct nvlxi_lane_pool *pool, const struct nvlxi_legs *legs, const struct nvlxi_stream *stream);

/* Issues the copies of what is planned by now, the first time; and of what was planned since. The first failure is
 * returned; what was issued before it is in flight. */
int nvlxi_submit_copies(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs);
int nvlxi_submit_more(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs);

/* Puts each leg's event behind all that is queued, whatever failed before, and behind that the call, unless it is NULL.
 * Unless that is NULL, the caller's stream goes on behind all of the events. Returns the first failure. The function is
 * called once for each leg, also if its lane cannot do so. */
int nvlxi_submit_end(struct nvlxi_lane_pool *pool, const struct nvlxi_legs *legs, const struct nvlxi_stream *stream,
                     const struct nvlxi_call *call);

/* Looks at the events in turn. 0: all are complete; NVLX_EAGAIN (not logged): not yet; else what the device says of the
 * leg looked at, which counts as complete: ask again. */
int nvlxi_submit_poll(struct nvlxi_lane_pool *pool, struct nvlxi_legs *legs);

#endif
