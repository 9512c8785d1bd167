/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <stdlib.h>

#include "error.h"

/* What `last` points to before the first fragment: no address continues it, since none is 0. Never written. */
static struct nvlxi_fragment nothing;

void nvlxi_plan_init(struct nvlxi_plan *plan, nvlxi_chunk_function take_chunk, void *context) {
    plan->groups = NULL;
    plan->group_count = 0;
    plan->bytes = 0;
    plan->fragments = 0;
    plan->take_chunk = take_chunk;
    plan->context = context;
}

void nvlxi_plan_reset(struct nvlxi_plan *plan, void (*give_back)(void *context, struct nvlxi_chunk *chunk)) {
    struct nvlxi_group *group = plan->groups;
    while (group) {
        struct nvlxi_group *following = group->following;
        struct nvlxi_chunk *chunk = group->first_chunk;
        while (chunk) {
            struct nvlxi_chunk *next = chunk->next;
            if (chunk != &plan->first_chunk && give_back)
                give_back(plan->context, chunk);
            chunk = next;
        }
        if (group != &plan->first_group)
            free(group);
        group = following;
    }
    nvlxi_plan_init(plan, plan->take_chunk, plan->context);
}

static void append_chunk(struct nvlxi_group *group, struct nvlxi_chunk *chunk) {
    chunk->next = NULL;
    if (group->last_chunk)
        group->last_chunk->next = chunk;
    else
        group->first_chunk = chunk;
    group->last_chunk = chunk;
    group->next = chunk->fragment;
    group->limit = chunk->fragment + chunk->capacity;
}

static struct nvlxi_group *add_group(struct nvlxi_plan *plan) {
    bool first = plan->groups == NULL;
    struct nvlxi_group *group = first ? &plan->first_group : malloc(sizeof *group);
    if (!group)
        return NULL;
    *group = (struct nvlxi_group){.last = &nothing, .following = plan->groups};
    if (first) {
        plan->first_chunk = (struct nvlxi_chunk){.capacity = NVLXI_PLAN_INLINE, .fragment = plan->first_fragments};
        append_chunk(group, &plan->first_chunk);
    }
    plan->groups = group;
    plan->group_count++;
    return group;
}

struct nvlxi_group *nvlxi_plan_group(struct nvlxi_plan *plan, int gpu, int remote_gpu, uint16_t device,
                                     uint16_t opcode) {
    struct nvlxi_group *group;
    for (group = plan->groups; group; group = group->following)
        if (group->gpu == gpu && group->device == device && group->opcode == opcode && group->remote_gpu == remote_gpu)
            return group;
    group = add_group(plan);
    if (group) {
        group->gpu = gpu;
        group->remote_gpu = remote_gpu;
        group->device = device;
        group->opcode = opcode;
    }
    return group;
}

int nvlxi_plan_grow(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_chunk *chunk = plan->take_chunk(plan->context);
    if (!chunk)
        return NVLX_ENOMEM;
    if (group->last_chunk)
        group->last_chunk->count = (uint32_t)(group->next - group->last_chunk->fragment);
    append_chunk(group, chunk);
    return 0;
}

void nvlxi_plan_seal(struct nvlxi_plan *plan) {
    plan->fragments = 0;
    for (struct nvlxi_group *group = plan->groups; group; group = group->following) {
        if (group->last_chunk)
            group->last_chunk->count = (uint32_t)(group->next - group->last_chunk->fragment);
        for (const struct nvlxi_chunk *chunk = group->first_chunk; chunk; chunk = chunk->next)
            plan->fragments += chunk->count;
    }
}
