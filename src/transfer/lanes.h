/* What transfers borrow while they are in flight: lanes and events.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Both are made when first needed, without the lock held, given back after use, and destroyed with the pool.
 *
 * A free lane serves transfers without a stream, of one device pair, direction and priority; of host memory apart. A
 * borrower gets an idle one while fewer than the pool's `most` are in use for these, else the emptiest. Nothing in it
 * waits for anything but copies.
 *
 * A process has a few channels on a GPU. A copy by an engine that waits in a stream blocks one, with whatever else has
 * to share it. Measured between two H200 (driver 580): beside one that waits, copies between GPUs in up to three other
 * streams at a time always went on; of those in four to twelve streams some stood still. Kernels that wait held up
 * nothing, and nothing held up kernels. So behind a stream that is busy, lists go by kernels where they can
 * (transfer.c), and what the stream's own GPU carries goes into the stream itself: lanes that wait beside it would
 * block more. What other GPUs carry goes into an ordered lane there: it serves one stream, for as long as any transfer
 * behind it is in flight, and then another.
 *
 * A GPU that has been given too much makes the next call wait (device.h), so each lane counts the copies and kernels
 * that were queued and not seen complete. What waits for callers' streams may wait for ever, and may have to share one
 * of the GPU's queues with other streams: it is counted together, for all engines of the process. */
#ifndef NVLXI_TRANSFER_LANES_H
#define NVLXI_TRANSFER_LANES_H

#include <pthread.h>

#include "transfer/list_memory.h"

#define NVLXI_QUEUE_DEPTH       1021 /* that one takes (H100, driver 580) */
#define NVLXI_LANES_MAX         4    /* of one kind, free */
#define NVLXI_LANES_BESIDE      3    /* of them, in use at the same time while something waits for a stream */
#define NVLXI_ORDERED_LANES_MAX 64   /* of one GPU and priority, behind streams of other GPUs */
#define NVLXI_LANE_DEPTH        500  /* copies and kernels in a free lane, of which one may share a queue with all */
#define NVLXI_ORDERED_DEPTH     512  /* that wait for streams, on one GPU */

_Static_assert(NVLXI_LANE_DEPTH + NVLXI_ORDERED_DEPTH + NVLXI_WAKES_MAX <= NVLXI_QUEUE_DEPTH,
               "what may stand in one queue fits into it");

struct nvlxi_lane_key {
    int gpu;
    int priority;               /* one that the device has */
    bool ordered;               /* behind `stream` */
    struct nvlxi_stream stream; /* the caller's, if ordered: itself the lane if it is of this GPU */
    uint16_t place, opcode;     /* at the other end (a host's, if either end is), and direction: they tell free lanes
                                   apart */
};

enum nvlxi_lane_kind { NVLXI_FREE, NVLXI_ORDERED, NVLXI_CALLERS, NVLXI_LANE_KINDS };

static inline enum nvlxi_lane_kind nvlxi_lane_kind(const struct nvlxi_lane_key *key) {
    return !key->ordered ? NVLXI_FREE : key->stream.gpu == key->gpu ? NVLXI_CALLERS : NVLXI_ORDERED;
}

struct nvlxi_pooled_lane {
    struct nvlxi_lane *lane;
    struct nvlxi_lane_key key;
    enum nvlxi_lane_kind kind; /* of its first key, and of all later ones */
    uint32_t borrowers;
    uint32_t queued;    /* copies and kernels of theirs */
    const void *latest; /* borrower: a transfer's legs */
    struct nvlxi_pooled_lane *next;
};

struct nvlxi_pooled_event {
    struct nvlxi_event *event;
    int gpu;
    uint64_t stream; /* of a mark */
    struct nvlxi_pooled_event *next;
};

struct nvlxi_lane_pool {
    const struct nvlxi_context *context;
    pthread_mutex_t mutex;
    size_t most; /* free lanes of one kind in use at the same time, up to NVLXI_LANES_MAX. Set before any transfer */
    struct nvlxi_pooled_lane *lanes[NVLXI_LANE_KINDS]; /* all, callers' streams as long as they are borrowed */
    struct nvlxi_pooled_event *events;                 /* idle */
    struct nvlxi_pooled_event *marks;                  /* in callers' streams, not seen complete */
    struct nvlxi_list_memory lists;
};

/* Before and after a fork. */
void nvlxi_lanes_fork(enum nvlxi_fork_phase phase);

void nvlxi_lanes_init(struct nvlxi_lane_pool *pool, const struct nvlxi_context *context, size_t list_limit);
/* Everything has been given back. */
void nvlxi_lanes_free(struct nvlxi_lane_pool *pool);

/* A lane that has room for `queued` copies and kernels, and an event of its GPU; none of them after a failure. Of one
 * `borrower`, each gets a lane of its own if there are enough. NVLX_EBUSY (not logged: see nvlxi_lanes_fail_busy):
 * there is no room. */
int nvlxi_lanes_borrow(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint32_t queued,
                       const void *borrower, struct nvlxi_pooled_lane **lane, struct nvlxi_pooled_event **event);
/* This lane, which the borrower has already, once more. */
int nvlxi_lanes_borrow_again(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_lane *lane, uint32_t queued,
                             struct nvlxi_pooled_event **event);
/* The lane or the event may be NULL. */
void nvlxi_lanes_return(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_lane *lane, uint32_t queued,
                        struct nvlxi_pooled_event *event);
/* So many copies and kernels were counted too many. */
void nvlxi_lanes_uncount(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_lane *lane, uint32_t queued);
/* Tells that there is no room. */
int nvlxi_lanes_fail_busy(const struct nvlxi_lane_pool *pool, int gpu, bool ordered);

int nvlxi_lanes_borrow_event(struct nvlxi_lane_pool *pool, int gpu, struct nvlxi_pooled_event **event);

/* Whether the stream has nothing to do. */
bool nvlxi_lanes_stream_idle(struct nvlxi_lane_pool *pool, const struct nvlxi_stream *stream);
/* Whether all that is in the stream by now is done: 0, or NVLX_EAGAIN (not logged). Looks for a moment. */
int nvlxi_lanes_stream_done(struct nvlxi_lane_pool *pool, const struct nvlxi_stream *stream);

#endif
