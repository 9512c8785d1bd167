/* A transfer's fragments, grouped, on their way from the caller's ops to the lanes. Pure: no device calls, no locks.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A group is what one lane carries: the same local GPU, the same remote GPU, the same direction. Fragments are added in
 * the order of the ops; one that continues the last of its group on both sides makes it longer instead. They lie in
 * chunks, whose memory comes from the caller of nvlxi_plan_init, so that a list of any length needs no large block. */
#ifndef NVLXI_PLAN_H
#define NVLXI_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base.h"
#include "records.h"

struct nvlxi_chunk {
    struct nvlxi_chunk *next;
    uint32_t capacity, count; /* fragments; the count is set by nvlxi_plan_seal */
    struct nvlxi_fragment *fragment;
};

/* Gives a chunk with room for at least one fragment, or NULL. */
typedef struct nvlxi_chunk *(*nvlxi_chunk_function)(void *context);

struct nvlxi_group {
    int gpu;                      /* local GPU: the lane's */
    int remote_gpu;               /* ordinal under which copies name the other side */
    uint16_t device;              /* index of the GPU on the other side */
    uint16_t opcode;              /* NVLX_OP_... */
    struct nvlxi_fragment *last;  /* to be made longer; an empty one at first */
    struct nvlxi_fragment *next;  /* where the next one goes */
    struct nvlxi_fragment *limit; /* end of the chunk */
    struct nvlxi_chunk *first_chunk, *last_chunk;
    struct nvlxi_group *following;
};

#define NVLXI_PLAN_INLINE 4 /* fragments of the first group that need no chunk from elsewhere */

struct nvlxi_plan {
    struct nvlxi_group *groups; /* list */
    uint32_t group_count;
    uint64_t bytes;     /* of all ops */
    uint64_t fragments; /* set by nvlxi_plan_seal */
    nvlxi_chunk_function take_chunk;
    void *context;
    struct nvlxi_group first_group;
    struct nvlxi_chunk first_chunk;
    struct nvlxi_fragment first_fragments[NVLXI_PLAN_INLINE];
};

void nvlxi_plan_init(struct nvlxi_plan *plan, nvlxi_chunk_function take_chunk, void *context);

/* Empties the plan. Calls `give_back`, unless it is NULL, with each chunk that came from take_chunk. */
void nvlxi_plan_reset(struct nvlxi_plan *plan, void (*give_back)(void *context, struct nvlxi_chunk *chunk));

/* The group of these properties, made if there is none; NULL without memory. */
struct nvlxi_group *nvlxi_plan_group(struct nvlxi_plan *plan, int gpu, int remote_gpu, uint16_t device,
                                     uint16_t opcode);

/* Makes room for one more fragment in a group whose chunk is full. NVLX_ENOMEM (not logged). */
int nvlxi_plan_grow(struct nvlxi_plan *plan, struct nvlxi_group *group);

/* Adds a fragment to a group that has room (next < limit). */
static inline void nvlxi_plan_add(struct nvlxi_group *group, uint64_t destination, uint64_t source, uint64_t length) {
    struct nvlxi_fragment *last = group->last;
    if (last->destination + last->length == destination && last->source + last->length == source) {
        last->length += length;
        return;
    }
    last = group->last = group->next++;
    last->destination = destination;
    last->source = source;
    last->length = length;
}

/* Counts what was added, after the last of it. */
void nvlxi_plan_seal(struct nvlxi_plan *plan);

#endif
