/* What transfers borrow while they are in flight: lanes, events, and chunks of memory for fragments.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything is made when first needed, without the lock held, given back after use, and destroyed with the pool. A
 * lane serves one device pair, direction and priority; a borrower gets an idle one while fewer than NVLXI_LANES_MAX
 * exist for the pair, else the one with the fewest borrowers: so a transfer that waits for its caller's stream does not
 * hold up the others. Chunks come in sizes that grow with their list, so that many short lists and a few long ones both
 * fit into the memory limit. */
#ifndef NVLXI_POOL_H
#define NVLXI_POOL_H

#include <pthread.h>

#include "device.h"
#include "plan.h"

#define NVLXI_LANES_MAX   8
#define NVLXI_CHUNK_SIZES 3

struct nvlxi_lane_key {
    int gpu;
    int priority;
    uint16_t device, opcode;
};

struct nvlxi_pooled_lane {
    struct nvlxi_lane *lane;
    struct nvlxi_lane_key key;
    uint32_t borrowers;
    struct nvlxi_pooled_lane *next;
};

struct nvlxi_pooled_event {
    struct nvlxi_event *event;
    int gpu;
    struct nvlxi_pooled_event *next;
};

struct nvlxi_pool {
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    size_t list_limit; /* bytes of pinned memory, at most */
    pthread_mutex_t mutex;
    struct nvlxi_pooled_lane *lanes;                  /* all */
    struct nvlxi_pooled_event *events;                /* idle */
    struct nvlxi_chunk *chunks[2][NVLXI_CHUNK_SIZES]; /* idle: for the host, for kernels */
    size_t list_bytes; /* pinned: of all chunks for kernels, borrowed or idle, and of prepared lists */
};

void nvlxi_pool_init(struct nvlxi_pool *pool);
/* Everything has been given back. */
void nvlxi_pool_free(struct nvlxi_pool *pool);

/* A lane, and an event of its GPU; none of them after a failure. */
int nvlxi_pool_borrow(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key, struct nvlxi_pooled_lane **lane,
                      struct nvlxi_pooled_event **event);
void nvlxi_pool_return(struct nvlxi_pool *pool, struct nvlxi_pooled_lane *lane, struct nvlxi_pooled_event *event);

int nvlxi_pool_borrow_event(struct nvlxi_pool *pool, int gpu, struct nvlxi_pooled_event **event);
void nvlxi_pool_return_event(struct nvlxi_pool *pool, struct nvlxi_pooled_event *event);

/* A plan's take_chunk and give_chunk; the context is the pool. Where list_limit would be passed, an idle chunk of any
 * size is given, or a shorter one is made; NVLX_EBUSY: not even that is possible. */
int nvlxi_pool_borrow_chunk(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk);
void nvlxi_pool_return_chunk(void *context, struct nvlxi_chunk *chunk);

/* Pinned memory for a prepared list. Where list_limit would be passed, idle chunks are freed first, for which the
 * driver may wait; NVLX_EBUSY: that was not enough. */
int nvlxi_pool_list_alloc(struct nvlxi_pool *pool, size_t bytes, void **memory);
void nvlxi_pool_list_free(struct nvlxi_pool *pool, void *memory, size_t bytes);

#endif
