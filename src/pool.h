/* What transfers borrow while they are in flight: lanes, events, and chunks of memory for fragments.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything is made when first needed, without the lock held, given back after use, and destroyed with the pool. A
 * lane serves one device pair and direction; a borrower gets an idle one while fewer than NVLXI_LANES_MAX exist for the
 * pair, else the one with the fewest borrowers: so a transfer that waits for its caller's stream does not hold up the
 * others. */
#ifndef NVLXI_POOL_H
#define NVLXI_POOL_H

#include <pthread.h>

#include "device.h"
#include "plan.h"

#define NVLXI_LANES_MAX       8
#define NVLXI_CHUNK_FRAGMENTS 4096

struct nvlxi_pooled_lane {
    struct nvlxi_lane *lane;
    int gpu;
    uint16_t device, opcode;
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
    pthread_mutex_t mutex;
    struct nvlxi_pooled_lane *lanes;   /* all */
    struct nvlxi_pooled_event *events; /* idle */
    struct nvlxi_chunk *chunks;        /* idle */
};

void nvlxi_pool_init(struct nvlxi_pool *pool);
/* Everything has been given back. */
void nvlxi_pool_free(struct nvlxi_pool *pool);

int nvlxi_pool_borrow_lane(struct nvlxi_pool *pool, int gpu, uint16_t device, uint16_t opcode,
                           struct nvlxi_pooled_lane **lane);
void nvlxi_pool_return_lane(struct nvlxi_pool *pool, struct nvlxi_pooled_lane *lane);

int nvlxi_pool_borrow_event(struct nvlxi_pool *pool, int gpu, struct nvlxi_pooled_event **event);
void nvlxi_pool_return_event(struct nvlxi_pool *pool, struct nvlxi_pooled_event *event);

/* An nvlxi_chunk_function, and its counterpart; the context is the pool. */
struct nvlxi_chunk *nvlxi_pool_borrow_chunk(void *pool);
void nvlxi_pool_return_chunk(void *pool, struct nvlxi_chunk *chunk);

#endif
