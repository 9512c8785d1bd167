/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

/* The rules, measured on two H200 with NV18 between them. From 2 MiB on, copy engines carry as much as kernels, or
 * more. A piece is short at first, so that short lists keep all warps busy, and longer in long lists. Where source and
 * destination are apart by an odd number of bytes, a kernel copies byte by byte: engines do better with what is long.
 */
#define ENGINE_MIN     (2u << 20)
#define ODD_ENGINE_MIN (64u << 10)
#define PIECE          (16u << 10)
#define LONG_PIECE     (64u << 10)
#define LONG_LIST      (64u << 20)

void nvlxi_plan_init(struct nvlxi_plan *plan, nvlxi_take_chunk take_chunk, nvlxi_give_chunk give_chunk, void *context) {
    memset(plan, 0, sizeof *plan);
    plan->take_chunk = take_chunk;
    plan->give_chunk = give_chunk;
    plan->context = context;
}

static void give_back(struct nvlxi_plan *plan, struct nvlxi_list *list) {
    struct nvlxi_chunk *chunk = list->first, *next;
    for (; chunk; chunk = next) {
        next = chunk->next;
        if (chunk != &plan->inline_chunk)
            plan->give_chunk(plan->context, chunk);
    }
}

void nvlxi_plan_reset(struct nvlxi_plan *plan, uint32_t mechanism) {
    struct nvlxi_group *group = plan->groups, *following;
    for (; group; group = following) {
        following = group->following;
        for (int way = 0; way < NVLXI_WAYS; way++)
            give_back(plan, &group->lists[way]);
        if (group != &plan->first_group)
            free(group);
    }
    plan->groups = NULL;
    plan->group_count = 0;
    plan->mechanism = mechanism;
    plan->bytes = 0;
    memset(plan->fragments, 0, sizeof plan->fragments);
    memset(plan->way_bytes, 0, sizeof plan->way_bytes);
}

/* ---- Groups ------------------------------------------------------------------------------------------ */

static void append(struct nvlxi_list *list, struct nvlxi_chunk *chunk) {
    chunk->next = NULL;
    if (list->last)
        list->last->next = chunk;
    else
        list->first = chunk;
    list->last = chunk;
    list->next = chunk->fragment;
    list->limit = chunk->fragment + chunk->capacity;
}

/* The first group begins in the plan's own chunk, unless kernels, which cannot read it, shall carry all. */
static void begin_inline(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    plan->inline_chunk = (struct nvlxi_chunk){.capacity = NVLXI_PLAN_INLINE, .fragment = plan->inline_fragments};
    if (plan->mechanism == NVLX_MECHANISM_AUTO)
        append(&group->lists[NVLXI_BY_KERNEL], &plan->inline_chunk);
    else if (plan->mechanism == NVLX_MECHANISM_COPY_ENGINE)
        append(&group->lists[NVLXI_BY_ENGINE], &plan->inline_chunk);
}

static struct nvlxi_group *add_group(struct nvlxi_plan *plan) {
    bool first = plan->groups == NULL;
    struct nvlxi_group *group = first ? &plan->first_group : malloc(sizeof *group);
    if (!group)
        return NULL;
    *group = (struct nvlxi_group){.following = plan->groups};
    if (first)
        begin_inline(plan, group);
    plan->groups = group;
    plan->group_count++;
    return group;
}

struct nvlxi_group *nvlxi_plan_group(struct nvlxi_plan *plan, int gpu, int remote_gpu, uint16_t device, uint16_t opcode,
                                     bool kernels) {
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
        group->kernel_max = plan->mechanism == NVLX_MECHANISM_COPY_ENGINE || !kernels ? 0 : PIECE;
    }
    return group;
}

/* ---- Placing ----------------------------------------------------------------------------------------- */

/* Makes room in a list. What begins in the plan's own chunk moves out of it as soon as there is more. */
static int grow(struct nvlxi_plan *plan, struct nvlxi_list *list) {
    uint64_t in_last = list->last ? (uint64_t)(list->next - list->last->fragment) : 0;
    struct nvlxi_chunk *chunk;
    int code = plan->take_chunk(plan->context, list->count + in_last, &chunk);
    if (code)
        return code;
    if (list->last == &plan->inline_chunk) {
        list->first = list->last = NULL;
        append(list, chunk);
        memcpy(chunk->fragment, plan->inline_fragments, in_last * sizeof *chunk->fragment);
        list->next += in_last;
        return 0;
    }
    if (list->last)
        list->last->count = (uint32_t)in_last;
    list->count += in_last;
    append(list, chunk);
    return 0;
}

/* Puts a fragment into a list in pieces of at most `piece` bytes; the fragment becomes empty. */
static int put(struct nvlxi_plan *plan, struct nvlxi_list *list, struct nvlxi_fragment *fragment, uint64_t piece) {
    while (fragment->length) {
        uint64_t length = nvlxi_min(fragment->length, piece);
        int code = list->next == list->limit ? grow(plan, list) : 0;
        if (code)
            return code;
        *list->next++ = (struct nvlxi_fragment){fragment->destination, fragment->source, length};
        list->bytes += length;
        fragment->destination += length;
        fragment->source += length;
        fragment->length -= length;
    }
    return 0;
}

static bool suits_engine(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    const struct nvlxi_fragment *open = &group->open;
    if (group->kernel_max == 0)
        return true;
    if (plan->mechanism == NVLX_MECHANISM_KERNEL)
        return false;
    return open->length >= ENGINE_MIN || (open->length >= ODD_ENGINE_MIN && (open->destination ^ open->source) % 4);
}

int nvlxi_plan_place(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    if (suits_engine(plan, group))
        return put(plan, &group->lists[NVLXI_BY_ENGINE], &group->open, UINT64_MAX);
    return put(plan, &group->lists[NVLXI_BY_KERNEL], &group->open, group->bytes < LONG_LIST ? PIECE : LONG_PIECE);
}

static void close_list(struct nvlxi_list *list) {
    if (list->last) {
        list->last->count = (uint32_t)(list->next - list->last->fragment);
        list->count += list->last->count;
    }
}

/* A list that never left the plan's own chunk is too short for a kernel: the engines take it. */
static void settle(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *kernel = &group->lists[NVLXI_BY_KERNEL], *engine = &group->lists[NVLXI_BY_ENGINE];
    close_list(kernel);
    close_list(engine);
    kernel->bytes = group->bytes - engine->bytes;
    if (kernel->first != &plan->inline_chunk)
        return;
    plan->inline_chunk.next = engine->first;
    engine->first = &plan->inline_chunk;
    engine->count += kernel->count;
    engine->bytes += kernel->bytes;
    *kernel = (struct nvlxi_list){0};
}

int nvlxi_plan_seal(struct nvlxi_plan *plan) {
    for (struct nvlxi_group *group = plan->groups; group; group = group->following) {
        int code = nvlxi_plan_place(plan, group);
        if (code)
            return code;
        settle(plan, group);
        plan->bytes += group->bytes;
        for (int way = 0; way < NVLXI_WAYS; way++) {
            plan->fragments[way] += group->lists[way].count;
            plan->way_bytes[way] += group->lists[way].bytes;
        }
    }
    return 0;
}
