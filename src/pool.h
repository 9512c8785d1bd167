/* What transfers borrow while they are in flight: lanes and events.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything is made when first needed, without the lock held, given back after use, and destroyed with the pool. A
 * lane serves one device pair, direction and priority; a borrower gets an idle one while fewer than NVLXI_LANES_MAX
 * exist for the pair, else the one with the fewest borrowers: so a transfer that waits for its caller's stream does not
 * hold up the others. */
#ifndef NVLXI_POOL_H
#define NVLXI_POOL_H

#include <pthread.h>

#include "device.h"
#include "list_memory.h"

#define NVLXI_LANES_MAX 8

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
    pthread_mutex_t mutex;
    struct nvlxi_pooled_lane *lanes;   /* all */
    struct nvlxi_pooled_event *events; /* idle */
    struct nvlxi_list_memory lists;
};

void nvlxi_pool_init(struct nvlxi_pool *pool, size_t list_limit);
/* Everything has been given back. */
void nvlxi_pool_free(struct nvlxi_pool *pool);

/* A lane, and an event of its GPU; none of them after a failure. */
int nvlxi_pool_borrow(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key, struct nvlxi_pooled_lane **lane,
                      struct nvlxi_pooled_event **event);
void nvlxi_pool_return(struct nvlxi_pool *pool, struct nvlxi_pooled_lane *lane, struct nvlxi_pooled_event *event);

int nvlxi_pool_borrow_event(struct nvlxi_pool *pool, int gpu, struct nvlxi_pooled_event **event);
void nvlxi_pool_return_event(struct nvlxi_pool *pool, struct nvlxi_pooled_event *event);

#endif
