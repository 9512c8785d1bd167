/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "error.h"

void nvlxi_pool_init(struct nvlxi_pool *pool) {
    pthread_mutex_init(&pool->mutex, NULL);
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

/* ---- Chunks ------------------------------------------------------------------------------------------ */

static const uint32_t chunk_sizes[NVLXI_CHUNK_SIZES] = {256, 4096, 32768};

/* The size of the next chunk of a list: the first ones of a long list are short, the others are not. */
static int size_class(uint64_t count) {
    return count < chunk_sizes[0] ? 0 : count < chunk_sizes[1] ? 1 : 2;
}

static void destroy_chunk(struct nvlxi_pool *pool, struct nvlxi_chunk *chunk) {
    if (chunk->kernel)
        pool->ops->list_free(pool->device, chunk->fragment);
    else
        free(chunk->fragment);
    free(chunk);
}

static int create_chunk(struct nvlxi_pool *pool, bool kernel, uint32_t capacity, struct nvlxi_chunk **chunk) {
    const size_t bytes = capacity * sizeof(struct nvlxi_fragment);
    struct nvlxi_chunk *made = malloc(sizeof *made);
    void *memory = kernel ? NULL : malloc(bytes);
    if (!made || (!kernel && !memory)) {
        free(made);
        free(memory);
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %" PRIu32 " fragments", capacity);
    }
    int code = kernel ? pool->ops->list_alloc(pool->device, bytes, &memory) : 0;
    if (code) {
        free(made);
        return code;
    }
    *made = (struct nvlxi_chunk){.capacity = capacity, .kernel = kernel, .fragment = memory};
    *chunk = made;
    return 0;
}

/* Under the mutex: counts pinned bytes that are about to be allocated, if they fit. */
static bool reserve(struct nvlxi_pool *pool, size_t bytes) {
    if (bytes > pool->list_limit - pool->list_bytes)
        return false;
    pool->list_bytes += bytes;
    return true;
}

static void unreserve(struct nvlxi_pool *pool, size_t bytes) {
    pthread_mutex_lock(&pool->mutex);
    pool->list_bytes -= bytes;
    pthread_mutex_unlock(&pool->mutex);
}

static int no_room(struct nvlxi_pool *pool, size_t bytes) {
    pthread_mutex_lock(&pool->mutex);
    const size_t taken = pool->list_bytes;
    pthread_mutex_unlock(&pool->mutex);
    return nvlxi_fail(
        NVLX_EBUSY,
        "a list of fragments needs %zu bytes more of pinned memory, and of config.list_memory, %zu bytes, "
        "lists (this one, too) have taken %zu",
        bytes, pool->list_limit, taken);
}

static size_t pinned_bytes(bool kernel, uint32_t capacity) {
    return kernel ? capacity * sizeof(struct nvlxi_fragment) : 0;
}

/* Under the mutex. */
static struct nvlxi_chunk *take_idle(struct nvlxi_pool *pool, bool kernel, int class) {
    struct nvlxi_chunk *idle = pool->chunks[kernel][class];
    if (idle)
        LL_DELETE(pool->chunks[kernel][class], idle);
    return idle;
}

int nvlxi_pool_borrow_chunk(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    struct nvlxi_pool *pool = context;
    int made = size_class(count);
    pthread_mutex_lock(&pool->mutex);
    struct nvlxi_chunk *idle = take_idle(pool, kernel, made);
    bool room = !idle && reserve(pool, pinned_bytes(kernel, chunk_sizes[made]));
    for (int class = 0; !idle && !room && class < NVLXI_CHUNK_SIZES; class ++)
        idle = take_idle(pool, kernel, class);
    while (!idle && !room && made > 0)
        room = reserve(pool, pinned_bytes(kernel, chunk_sizes[--made]));
    pthread_mutex_unlock(&pool->mutex);
    if (idle) {
        *chunk = idle;
        return 0;
    }
    if (!room)
        return no_room(pool, pinned_bytes(kernel, chunk_sizes[made]));
    int code = create_chunk(pool, kernel, chunk_sizes[made], chunk);
    if (code)
        unreserve(pool, pinned_bytes(kernel, chunk_sizes[made]));
    return code;
}

void nvlxi_pool_return_chunk(void *context, struct nvlxi_chunk *chunk) {
    struct nvlxi_pool *pool = context;
    int class = 0;
    while (chunk_sizes[class] != chunk->capacity)
        class ++;
    pthread_mutex_lock(&pool->mutex);
    LL_PREPEND(pool->chunks[chunk->kernel][class], chunk);
    pthread_mutex_unlock(&pool->mutex);
}

/* Gives idle pinned memory back to the driver. */
static void free_idle(struct nvlxi_pool *pool) {
    for (int class = 0; class < NVLXI_CHUNK_SIZES; class ++) {
        for (;;) {
            pthread_mutex_lock(&pool->mutex);
            struct nvlxi_chunk *idle = take_idle(pool, true, class);
            pthread_mutex_unlock(&pool->mutex);
            if (!idle)
                break;
            destroy_chunk(pool, idle);
            unreserve(pool, pinned_bytes(true, chunk_sizes[class]));
        }
    }
}

static bool reserve_list(struct nvlxi_pool *pool, size_t bytes) {
    pthread_mutex_lock(&pool->mutex);
    bool room = reserve(pool, bytes);
    pthread_mutex_unlock(&pool->mutex);
    return room;
}

int nvlxi_pool_list_alloc(struct nvlxi_pool *pool, size_t bytes, void **memory) {
    if (!reserve_list(pool, bytes)) {
        free_idle(pool);
        if (!reserve_list(pool, bytes))
            return no_room(pool, bytes);
    }
    int code = pool->ops->list_alloc(pool->device, bytes, memory);
    if (code)
        unreserve(pool, bytes);
    return code;
}

void nvlxi_pool_list_free(struct nvlxi_pool *pool, void *memory, size_t bytes) {
    pool->ops->list_free(pool->device, memory);
    unreserve(pool, bytes);
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
    for (int class = 0; class < NVLXI_CHUNK_SIZES; class ++) {
        for (int kernel = 0; kernel < 2; kernel++) {
            LL_FOREACH_SAFE(pool->chunks[kernel][class], chunk, next_chunk) {
                destroy_chunk(pool, chunk);
            }
        }
    }
    pthread_mutex_destroy(&pool->mutex);
}
