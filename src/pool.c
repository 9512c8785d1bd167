/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <stdlib.h>
#include <utlist.h>

#include "error.h"

void nvlxi_pool_init(struct nvlxi_pool *pool) {
    pthread_mutex_init(&pool->mutex, NULL);
}

void nvlxi_pool_free(struct nvlxi_pool *pool) {
    struct nvlxi_pooled_lane *lane, *next_lane;
    struct nvlxi_pooled_event *event, *next_event;
    struct nvlxi_chunk *chunk, *next_chunk;
    LL_FOREACH_SAFE(pool->lanes, lane, next_lane) {
        pool->ops->lane_destroy(lane->lane);
        free(lane);
    }
    LL_FOREACH_SAFE(pool->events, event, next_event) {
        pool->ops->event_destroy(event->event);
        free(event);
    }
    LL_FOREACH_SAFE(pool->chunks, chunk, next_chunk) {
        free(chunk);
    }
    pthread_mutex_destroy(&pool->mutex);
}

/* ---- Lanes ------------------------------------------------------------------------------------------- */

/* The lane of this pair with the fewest borrowers, or NULL; counts them. */
static struct nvlxi_pooled_lane *least_used(struct nvlxi_pool *pool, const struct nvlxi_pooled_lane *pair,
                                            size_t *count) {
    struct nvlxi_pooled_lane *lane, *best = NULL;
    *count = 0;
    LL_FOREACH(pool->lanes, lane) {
        if (lane->gpu != pair->gpu || lane->device != pair->device || lane->opcode != pair->opcode)
            continue;
        ++*count;
        if (!best || lane->borrowers < best->borrowers)
            best = lane;
    }
    return best;
}

static int create_lane(struct nvlxi_pool *pool, const struct nvlxi_pooled_lane *pair, struct nvlxi_pooled_lane **lane) {
    struct nvlxi_pooled_lane *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a lane");
    *made = *pair;
    int code = pool->ops->lane_create(pool->device, pair->gpu, &made->lane);
    if (code) {
        free(made);
        return code;
    }
    *lane = made;
    return 0;
}

int nvlxi_pool_borrow_lane(struct nvlxi_pool *pool, int gpu, uint16_t device, uint16_t opcode,
                           struct nvlxi_pooled_lane **lane) {
    const struct nvlxi_pooled_lane pair = {.gpu = gpu, .device = device, .opcode = opcode};
    size_t count;
    pthread_mutex_lock(&pool->mutex);
    struct nvlxi_pooled_lane *best = least_used(pool, &pair, &count);
    if (!best || (best->borrowers && count < NVLXI_LANES_MAX)) {
        pthread_mutex_unlock(&pool->mutex);
        int code = create_lane(pool, &pair, &best);
        if (code)
            return code;
        pthread_mutex_lock(&pool->mutex);
        LL_PREPEND(pool->lanes, best);
    }
    best->borrowers++;
    pthread_mutex_unlock(&pool->mutex);
    *lane = best;
    return 0;
}

void nvlxi_pool_return_lane(struct nvlxi_pool *pool, struct nvlxi_pooled_lane *lane) {
    pthread_mutex_lock(&pool->mutex);
    lane->borrowers--;
    pthread_mutex_unlock(&pool->mutex);
}

/* ---- Events ------------------------------------------------------------------------------------------ */

int nvlxi_pool_borrow_event(struct nvlxi_pool *pool, int gpu, struct nvlxi_pooled_event **event) {
    struct nvlxi_pooled_event *idle;
    pthread_mutex_lock(&pool->mutex);
    LL_SEARCH_SCALAR(pool->events, idle, gpu, gpu);
    if (idle)
        LL_DELETE(pool->events, idle);
    pthread_mutex_unlock(&pool->mutex);
    if (!idle) {
        idle = malloc(sizeof *idle);
        if (!idle)
            return nvlxi_fail(NVLX_ENOMEM, "no memory for an event");
        idle->gpu = gpu;
        int code = pool->ops->event_create(pool->device, gpu, &idle->event);
        if (code) {
            free(idle);
            return code;
        }
    }
    *event = idle;
    return 0;
}

void nvlxi_pool_return_event(struct nvlxi_pool *pool, struct nvlxi_pooled_event *event) {
    pthread_mutex_lock(&pool->mutex);
    LL_PREPEND(pool->events, event);
    pthread_mutex_unlock(&pool->mutex);
}

/* ---- Chunks ------------------------------------------------------------------------------------------ */

struct nvlxi_chunk *nvlxi_pool_borrow_chunk(void *context) {
    struct nvlxi_pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    struct nvlxi_chunk *chunk = pool->chunks;
    if (chunk)
        LL_DELETE(pool->chunks, chunk);
    pthread_mutex_unlock(&pool->mutex);
    if (!chunk) {
        chunk = malloc(sizeof *chunk + NVLXI_CHUNK_FRAGMENTS * sizeof *chunk->fragment);
        if (!chunk)
            return NULL;
        chunk->capacity = NVLXI_CHUNK_FRAGMENTS;
        chunk->fragment = (struct nvlxi_fragment *)(chunk + 1);
    }
    return chunk;
}

void nvlxi_pool_return_chunk(void *context, struct nvlxi_chunk *chunk) {
    struct nvlxi_pool *pool = context;
    pthread_mutex_lock(&pool->mutex);
    LL_PREPEND(pool->chunks, chunk);
    pthread_mutex_unlock(&pool->mutex);
}
