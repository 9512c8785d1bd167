/* Lanes and events: see lanes.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/lanes.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"

#define LOOK_NS 50000u /* for which it is looked whether an event comes that may be just about to */

void nvlxi_lanes_init(struct nvlxi_lane_pool *pool, const struct nvlxi_context *context, size_t list_limit) {
    pool->context = context;
    pool->most = NVLXI_LANES_MAX;
    pthread_mutex_init(&pool->mutex, NULL);
    nvlxi_list_memory_init(&pool->lists, context, list_limit);
}

/* ---- What waits for streams -------------------------------------------------------------------------- */

#define GPUS_COUNTED 64

/* Copies and kernels on each GPU, of all engines: the queues that they fill are the process's. */
static atomic_uint waiting[GPUS_COUNTED];

/* What the parent's engines have in queues does not wait in the child. */
void nvlxi_lanes_fork(enum nvlxi_fork_phase phase) {
    for (size_t gpu = 0; phase == NVLXI_IN_CHILD && gpu < GPUS_COUNTED; gpu++)
        atomic_store(&waiting[gpu], 0);
}

static bool count_waiting(const struct nvlxi_lane_key *key, uint32_t queued) {
    atomic_uint *on_gpu = &waiting[key->gpu % GPUS_COUNTED];
    if (queued <= NVLXI_ORDERED_DEPTH && atomic_fetch_add(on_gpu, queued) + queued <= NVLXI_ORDERED_DEPTH)
        return true;
    if (queued <= NVLXI_ORDERED_DEPTH)
        atomic_fetch_sub(on_gpu, queued);
    return false;
}

static void uncount_waiting(const struct nvlxi_lane_key *key, uint32_t queued) {
    if (key->ordered)
        atomic_fetch_sub(&waiting[key->gpu % GPUS_COUNTED], queued);
}

/* ---- Lanes: which one, under the mutex --------------------------------------------------------------- */

/* An empty lane takes a list of any length; issuing then waits for the GPU. */
static bool has_room(const struct nvlxi_pooled_lane *lane, uint32_t queued) {
    return lane->key.ordered || !lane->queued || lane->queued + queued <= NVLXI_LANE_DEPTH;
}

/* What looking for a lane found: one, or that one is to be made, or that there is no room. */
enum found { FOUND, TO_BE_MADE, NO_ROOM };

static bool same_kind(const struct nvlxi_lane_key *a, const struct nvlxi_lane_key *b) {
    return a->gpu == b->gpu && a->priority == b->priority && a->place == b->place && a->opcode == b->opcode;
}

/* An idle lane, a new one, or the emptiest: so few are in use at the same time beside what waits for streams. */
static enum found find_free(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint32_t queued,
                            struct nvlxi_pooled_lane **found) {
    const size_t beside = atomic_load(&waiting[key->gpu % GPUS_COUNTED]) ? NVLXI_LANES_BESIDE : NVLXI_LANES_MAX,
                 most = nvlxi_min(pool->most, beside);
    struct nvlxi_pooled_lane *lane, *idle = NULL, *emptiest = NULL;
    size_t count = 0, in_use = 0;
    LL_FOREACH(pool->lanes[NVLXI_FREE], lane) {
        if (!same_kind(&lane->key, key))
            continue;
        count++;
        if (!lane->borrowers) {
            idle = lane;
            continue;
        }
        in_use++;
        if (!emptiest || lane->queued < emptiest->queued ||
            (lane->queued == emptiest->queued && lane->borrowers < emptiest->borrowers))
            emptiest = lane;
    }
    *found = idle && in_use < most ? idle : emptiest;
    if (!*found || (!idle && in_use < most && count < NVLXI_LANES_MAX))
        return TO_BE_MADE;
    return has_room(*found, queued) ? FOUND : NO_ROOM;
}

/* One of the stream's that this borrower has not, an idle one, a new one, or one that the borrower has. */
static enum found find_ordered(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, const void *borrower,
                               struct nvlxi_pooled_lane **found) {
    struct nvlxi_pooled_lane *lane, *others = NULL, *idle = NULL, *already_mine = NULL;
    size_t count = 0;
    LL_FOREACH(pool->lanes[NVLXI_ORDERED], lane) {
        if (lane->key.gpu != key->gpu || lane->key.priority != key->priority)
            continue;
        count++;
        if (!lane->borrowers)
            idle = lane;
        else if (lane->key.stream.id == key->stream.id)
            *(lane->latest == borrower ? &already_mine : &others) = lane;
    }
    *found = others ? others : idle;
    if (!*found && count < NVLXI_ORDERED_LANES_MAX)
        return TO_BE_MADE;
    *found = *found ? *found : already_mine;
    return *found ? FOUND : NO_ROOM;
}

/* The stream itself. */
static enum found find_callers(const struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key,
                               struct nvlxi_pooled_lane **found) {
    struct nvlxi_pooled_lane *lane;
    LL_FOREACH(pool->lanes[NVLXI_CALLERS], lane) {
        if (lane->key.stream.id == key->stream.id)
            break;
    }
    *found = lane;
    return lane ? FOUND : TO_BE_MADE;
}

static enum found find(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint32_t queued,
                       const void *borrower, struct nvlxi_pooled_lane **found) {
    switch (nvlxi_lane_kind(key)) {
    case NVLXI_CALLERS:
        return find_callers(pool, key, found);
    case NVLXI_ORDERED:
        return find_ordered(pool, key, borrower, found);
    default:
        return find_free(pool, key, queued, found);
    }
}

/* An existing lane that is borrowed now, or what else was found. */
static enum found take_lane(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint32_t queued,
                            const void *borrower, struct nvlxi_pooled_lane **lane) {
    enum found found = find(pool, key, queued, borrower, lane);
    if (found != FOUND) {
        *lane = NULL;
        return found;
    }
    (*lane)->key.stream = key->stream;
    (*lane)->borrowers++;
    (*lane)->queued += queued;
    (*lane)->latest = borrower;
    return FOUND;
}

/* ---- Lanes ------------------------------------------------------------------------------------------- */

static int make_lane(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint32_t queued,
                     const void *borrower, struct nvlxi_pooled_lane **lane) {
    const struct nvlxi_context *context = pool->context;
    const enum nvlxi_lane_kind kind = nvlxi_lane_kind(key);
    struct nvlxi_pooled_lane *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a lane");
    *made = (struct nvlxi_pooled_lane){.key = *key, .kind = kind, .borrowers = 1, .queued = queued, .latest = borrower};
    int code = kind == NVLXI_CALLERS ? context->ops->stream_lane(context->device, &key->stream, &made->lane)
                                     : context->ops->lane_create(context->device, key->gpu, key->priority, &made->lane);
    if (code) {
        free(made);
        return code;
    }
    pthread_mutex_lock(&pool->mutex);
    LL_PREPEND(pool->lanes[kind], made);
    pthread_mutex_unlock(&pool->mutex);
    *lane = made;
    return 0;
}

int nvlxi_lanes_fail_busy(const struct nvlxi_lane_pool *pool, int gpu, bool ordered) {
    if (!ordered)
        return nvlxi_fail(
            NVLX_EBUSY,
            "as many copies are in flight on GPU %d as its queues take, in this direction (up to %zu lanes of "
            "%d): wait for some of them",
            gpu, pool->most, NVLXI_LANE_DEPTH);
    return nvlxi_fail(NVLX_EBUSY,
                      "what waits for streams on GPU %d is as much as may wait: %d copies and kernels of this process, "
                      "for %d streams",
                      gpu, NVLXI_ORDERED_DEPTH, NVLXI_ORDERED_LANES_MAX);
}

/* ---- Events ------------------------------------------------------------------------------------------ */

/* Under the mutex: an idle one, or NULL. */
static struct nvlxi_pooled_event *take_event(struct nvlxi_lane_pool *pool, int gpu) {
    struct nvlxi_pooled_event *idle;
    LL_SEARCH_SCALAR(pool->events, idle, gpu, gpu);
    if (idle)
        LL_DELETE(pool->events, idle);
    return idle;
}

static int make_event(struct nvlxi_lane_pool *pool, int gpu, struct nvlxi_pooled_event **event) {
    struct nvlxi_pooled_event *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an event");
    made->gpu = gpu;
    int code = pool->context->ops->event_create(pool->context->device, gpu, &made->event);
    if (code) {
        free(made);
        return code;
    }
    *event = made;
    return 0;
}

int nvlxi_lanes_borrow_event(struct nvlxi_lane_pool *pool, int gpu, struct nvlxi_pooled_event **event) {
    pthread_mutex_lock(&pool->mutex);
    *event = take_event(pool, gpu);
    pthread_mutex_unlock(&pool->mutex);
    return *event ? 0 : make_event(pool, gpu, event);
}

/* ---- A lane and an event at once: this is done for every transfer ------------------------------------- */

int nvlxi_lanes_borrow(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint32_t queued,
                       const void *borrower, struct nvlxi_pooled_lane **lane, struct nvlxi_pooled_event **event) {
    int code = 0;
    if (key->ordered && !count_waiting(key, queued))
        return NVLX_EBUSY;
    pthread_mutex_lock(&pool->mutex);
    const enum found found = take_lane(pool, key, queued, borrower, lane);
    *event = found == NO_ROOM ? NULL : take_event(pool, key->gpu);
    pthread_mutex_unlock(&pool->mutex);
    if (found == NO_ROOM)
        code = NVLX_EBUSY;
    else if (!*event)
        code = make_event(pool, key->gpu, event);
    if (!code && !*lane)
        code = make_lane(pool, key, queued, borrower, lane);
    if (code && !*lane)
        uncount_waiting(key, queued);
    if (code)
        nvlxi_lanes_return(pool, *lane, queued, *event);
    return code;
}

int nvlxi_lanes_borrow_again(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_lane *lane, uint32_t queued,
                             struct nvlxi_pooled_event **event) {
    if (lane->key.ordered && !count_waiting(&lane->key, queued))
        return NVLX_EBUSY;
    pthread_mutex_lock(&pool->mutex);
    lane->borrowers++;
    lane->queued += queued;
    *event = take_event(pool, lane->key.gpu);
    pthread_mutex_unlock(&pool->mutex);
    int code = *event ? 0 : make_event(pool, lane->key.gpu, event);
    if (code)
        nvlxi_lanes_return(pool, lane, queued, NULL);
    return code;
}

void nvlxi_lanes_uncount(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_lane *lane, uint32_t queued) {
    pthread_mutex_lock(&pool->mutex);
    lane->queued -= queued;
    uncount_waiting(&lane->key, queued);
    pthread_mutex_unlock(&pool->mutex);
}

/* Under the mutex. The caller's stream may be destroyed when nothing of ours is in it any more. */
static void return_lane(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_lane *lane, uint32_t queued) {
    lane->borrowers--;
    lane->queued -= queued;
    uncount_waiting(&lane->key, queued);
    if (lane->borrowers || lane->kind != NVLXI_CALLERS)
        return;
    LL_DELETE(pool->lanes[NVLXI_CALLERS], lane);
    pool->context->ops->stream_lane_end(lane->lane);
    free(lane);
}

void nvlxi_lanes_return(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_lane *lane, uint32_t queued,
                        struct nvlxi_pooled_event *event) {
    pthread_mutex_lock(&pool->mutex);
    if (lane)
        return_lane(pool, lane, queued);
    if (event)
        LL_PREPEND(pool->events, event);
    pthread_mutex_unlock(&pool->mutex);
}

/* ---- Marks: events in callers' streams that somebody asked about ---------------------------------------- */

static struct nvlxi_pooled_event *take_mark(struct nvlxi_lane_pool *pool, uint64_t stream) {
    struct nvlxi_pooled_event *mark;
    pthread_mutex_lock(&pool->mutex);
    LL_SEARCH_SCALAR(pool->marks, mark, stream, stream);
    if (mark)
        LL_DELETE(pool->marks, mark);
    pthread_mutex_unlock(&pool->mutex);
    return mark;
}

static void keep_mark(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_event *mark, uint64_t stream) {
    mark->stream = stream;
    pthread_mutex_lock(&pool->mutex);
    LL_PREPEND(pool->marks, mark);
    pthread_mutex_unlock(&pool->mutex);
}

static int look_for(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_event *mark) {
    const uint64_t deadline = nvlxi_now_ns() + LOOK_NS;
    int code;
    do
        code = pool->context->ops->event_query(mark->event);
    while (code == NVLX_EAGAIN && nvlxi_now_ns() < deadline);
    return code;
}

bool nvlxi_lanes_stream_idle(struct nvlxi_lane_pool *pool, const struct nvlxi_stream *stream) {
    struct nvlxi_lane *lane;
    if (pool->context->ops->stream_lane(pool->context->device, stream, &lane))
        return false;
    const bool idle = pool->context->ops->lane_query(lane) == 0;
    pool->context->ops->stream_lane_end(lane);
    return idle;
}

/* Puts no second mark into a stream before the first has come: who asks again and again must not fill it. */
int nvlxi_lanes_stream_done(struct nvlxi_lane_pool *pool, const struct nvlxi_stream *stream) {
    struct nvlxi_pooled_event *mark = take_mark(pool, stream->id);
    int code = mark ? pool->context->ops->event_query(mark->event) : nvlxi_lanes_borrow_event(pool, stream->gpu, &mark);
    if (!mark)
        return code;
    if (!code)
        code = pool->context->ops->stream_record(pool->context->device, stream, mark->event);
    if (!code)
        code = look_for(pool, mark);
    if (code == NVLX_EAGAIN)
        keep_mark(pool, mark, stream->id);
    else
        nvlxi_lanes_return(pool, NULL, 0, mark);
    return code;
}

static void destroy_events(struct nvlxi_lane_pool *pool, struct nvlxi_pooled_event *events) {
    struct nvlxi_pooled_event *event, *next;
    LL_FOREACH_SAFE(events, event, next) {
        pool->context->ops->event_destroy(event->event);
        free(event);
    }
}

void nvlxi_lanes_free(struct nvlxi_lane_pool *pool) {
    struct nvlxi_pooled_lane *lane, *next;
    for (int kind = NVLXI_FREE; kind <= NVLXI_ORDERED; kind++) { /* the others have been given back */
        LL_FOREACH_SAFE(pool->lanes[kind], lane, next) {
            pool->context->ops->lane_destroy(lane->lane);
            free(lane);
        }
    }
    destroy_events(pool, pool->events);
    destroy_events(pool, pool->marks);
    nvlxi_list_memory_free(&pool->lists);
    pthread_mutex_destroy(&pool->mutex);
}
