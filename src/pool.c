/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <stdlib.h>
#include <utlist.h>

#include "error.h"

void nvlxi_pool_init(struct nvlxi_pool *pool, size_t list_limit) {
    pthread_mutex_init(&pool->mutex, NULL);
    pool->lists.ops = pool->ops;
    pool->lists.device = pool->device;
    nvlxi_list_memory_init(&pool->lists, list_limit);
}

/* ---- Lanes ------------------------------------------------------------------------------------------- */

static bool same_key(const struct nvlxi_lane_key *a, const struct nvlxi_lane_key *b) {
    return a->gpu == b->gpu && a->priority == b->priority && a->device == b->device && a->opcode == b->opcode;
}

/* The lane of this pair with the fewest borrowers, or NULL; counts them. */
static struct nvlxi_pooled_lane *least_used(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key, size_t *count) {
    struct nvlxi_pooled_lane *lane, *best = NULL;
    *count = 0;
    LL_FOREACH(pool->lanes, lane) {
        if (!same_key(&lane->key, key))
            continue;
        ++*count;
        if (!best || lane->borrowers < best->borrowers)
            best = lane;
    }
    return best;
}

static int create_lane(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key, struct nvlxi_pooled_lane **lane) {
    struct nvlxi_pooled_lane *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a lane");
    *made = (struct nvlxi_pooled_lane){.key = *key};
    int code = pool->ops->lane_create(pool->device, key->gpu, key->priority, &made->lane);
    if (code) {
        free(made);
        return code;
    }
    *lane = made;
    return 0;
}

/* Under the mutex: an existing lane to be borrowed, or NULL where one is to be made. */
static struct nvlxi_pooled_lane *take_lane(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key) {
    size_t count;
    struct nvlxi_pooled_lane *best = least_used(pool, key, &count);
    if (!best || (best->borrowers && count < NVLXI_LANES_MAX))
        return NULL;
    best->borrowers++;
    return best;
}

static int make_lane(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key, struct nvlxi_pooled_lane **lane) {
    int code = create_lane(pool, key, lane);
    if (code)
        return code;
    (*lane)->borrowers = 1;
    pthread_mutex_lock(&pool->mutex);
    LL_PREPEND(pool->lanes, *lane);
    pthread_mutex_unlock(&pool->mutex);
    return 0;
}

/* ---- Events ------------------------------------------------------------------------------------------ */

/* Under the mutex: an idle one, or NULL. */
static struct nvlxi_pooled_event *take_event(struct nvlxi_pool *pool, int gpu) {
    struct nvlxi_pooled_event *idle;
    LL_SEARCH_SCALAR(pool->events, idle, gpu, gpu);
    if (idle)
        LL_DELETE(pool->events, idle);
    return idle;
}

static int make_event(struct nvlxi_pool *pool, int gpu, struct nvlxi_pooled_event **event) {
    struct nvlxi_pooled_event *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an event");
    made->gpu = gpu;
    int code = pool->ops->event_create(pool->device, gpu, &made->event);
    if (code) {
        free(made);
        return code;
    }
    *event = made;
    return 0;
}

int nvlxi_pool_borrow_event(struct nvlxi_pool *pool, int gpu, struct nvlxi_pooled_event **event) {
    pthread_mutex_lock(&pool->mutex);
    *event = take_event(pool, gpu);
    pthread_mutex_unlock(&pool->mutex);
    return *event ? 0 : make_event(pool, gpu, event);
}

void nvlxi_pool_return_event(struct nvlxi_pool *pool, struct nvlxi_pooled_event *event) {
    pthread_mutex_lock(&pool->mutex);
    LL_PREPEND(pool->events, event);
    pthread_mutex_unlock(&pool->mutex);
}

/* ---- A lane and an event at once: this is done for every transfer ------------------------------------- */

int nvlxi_pool_borrow(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key, struct nvlxi_pooled_lane **lane,
                      struct nvlxi_pooled_event **event) {
    int code = 0;
    pthread_mutex_lock(&pool->mutex);
    *lane = take_lane(pool, key);
    *event = take_event(pool, key->gpu);
    pthread_mutex_unlock(&pool->mutex);
    if (!*event)
        code = make_event(pool, key->gpu, event);
    if (!code && !*lane)
        code = make_lane(pool, key, lane);
    if (code)
        nvlxi_pool_return(pool, *lane, *event);
    return code;
}

void nvlxi_pool_return(struct nvlxi_pool *pool, struct nvlxi_pooled_lane *lane, struct nvlxi_pooled_event *event) {
    pthread_mutex_lock(&pool->mutex);
    if (lane)
        lane->borrowers--;
    if (event)
        LL_PREPEND(pool->events, event);
    pthread_mutex_unlock(&pool->mutex);
}

void nvlxi_pool_free(struct nvlxi_pool *pool) {
    struct nvlxi_pooled_lane *lane, *next_lane;
    struct nvlxi_pooled_event *event, *next_event;
    LL_FOREACH_SAFE(pool->lanes, lane, next_lane) {
        pool->ops->lane_destroy(lane->lane);
        free(lane);
    }
    LL_FOREACH_SAFE(pool->events, event, next_event) {
        pool->ops->event_destroy(event->event);
        free(event);
    }
    nvlxi_list_memory_free(&pool->lists);
    pthread_mutex_destroy(&pool->mutex);
}
