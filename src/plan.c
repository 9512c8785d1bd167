/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

/* The rules, measured on two H200 with NV18 between them. A warp carries a fragment best up to 32 KiB, a block up to 2
 * MiB; from there on copy engines are as fast or faster. Where source and destination are apart by an odd number of
 * bytes, the kernel copies byte by byte: engines do better with what is long. Fewer fragments than fit into the plan
 * itself are not worth a launch. Where the caller wants the kernel alone, what is long is cut, so that more than one
 * block gets some of it. */
#define WARP_MAX   (64u << 10)
#define ENGINE_MIN (2u << 20)

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

/* The first group begins in the plan's own chunk, unless the kernel, which cannot read it, shall carry all. */
static void begin_inline(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    plan->inline_chunk = (struct nvlxi_chunk){.capacity = NVLXI_PLAN_INLINE, .fragment = plan->inline_fragments};
    if (plan->mechanism != NVLX_MECHANISM_KERNEL)
        append(&group->lists[NVLXI_BY_WARPS], &plan->inline_chunk);
}

static struct nvlxi_group *add_group(struct nvlxi_plan *plan) {
    bool first = plan->groups == NULL;
    struct nvlxi_group *group = first ? &plan->first_group : malloc(sizeof *group);
    if (!group)
        return NULL;
    *group = (struct nvlxi_group){.id = plan->group_count, .following = plan->groups};
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
        group->warp_max = plan->mechanism == NVLX_MECHANISM_COPY_ENGINE || !kernels ? 0 : WARP_MAX;
    }
    return group;
}

/* ---- Placing ----------------------------------------------------------------------------------------- */

static int grow(struct nvlxi_plan *plan, struct nvlxi_list *list, bool kernel) {
    uint64_t in_last = list->last ? (uint64_t)(list->next - list->last->fragment) : 0;
    struct nvlxi_chunk *chunk;
    int code = plan->take_chunk(plan->context, kernel, list->count + in_last, &chunk);
    if (code)
        return code;
    if (list->last)
        list->last->count = (uint32_t)in_last;
    list->count += in_last;
    append(list, chunk);
    return 0;
}

/* Puts a fragment into a list; for the blocks in parts. */
static int put(struct nvlxi_plan *plan, struct nvlxi_group *group, enum nvlxi_way way, struct nvlxi_fragment fragment) {
    struct nvlxi_list *list = &group->lists[way];
    const uint64_t most = way == NVLXI_BY_BLOCKS ? ENGINE_MIN : UINT64_MAX;
    while (fragment.length) {
        uint64_t length = nvlxi_min(fragment.length, most);
        int code = list->next == list->limit ? grow(plan, list, way != NVLXI_BY_ENGINES) : 0;
        if (code)
            return code;
        *list->next++ = (struct nvlxi_fragment){fragment.destination, fragment.source, length};
        list->bytes += length;
        fragment.destination += length;
        fragment.source += length;
        fragment.length -= length;
    }
    return 0;
}

static enum nvlxi_way choose(const struct nvlxi_plan *plan, const struct nvlxi_group *group,
                             const struct nvlxi_fragment *fragment) {
    if (fragment->length <= group->warp_max) /* without asking, in nvlxi_plan_add and check.c */
        return NVLXI_BY_WARPS;
    if (group->warp_max == 0)
        return NVLXI_BY_ENGINES;
    if (plan->mechanism != NVLX_MECHANISM_KERNEL &&
        (fragment->length >= ENGINE_MIN || (fragment->destination ^ fragment->source) % 4))
        return NVLXI_BY_ENGINES;
    return NVLXI_BY_BLOCKS;
}

static int place(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_fragment *fragment) {
    return put(plan, group, choose(plan, group, fragment), *fragment);
}

/* What began in the plan's own chunk, where anything may lie, leaves it for the lists when there is more. */
static int leave_inline(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *list = &group->lists[NVLXI_BY_WARPS];
    int code = 0;
    *list = (struct nvlxi_list){0};
    for (uint32_t i = 0; i < NVLXI_PLAN_INLINE && !code; i++)
        code = place(plan, group, &plan->inline_fragments[i]);
    return code;
}

static bool is_inline(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_WARPS].last == &plan->inline_chunk;
}

int nvlxi_plan_place(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *list = &group->lists[NVLXI_BY_WARPS];
    int code = 0;
    if (!group->open.length)
        return 0;
    if (is_inline(plan, group)) {
        if (list->next < list->limit) {
            *list->next++ = group->open;
            return 0;
        }
        code = leave_inline(plan, group);
    }
    return code ? code : place(plan, group, &group->open);
}

static void close_list(struct nvlxi_list *list) {
    if (list->last) {
        list->last->count = (uint32_t)(list->next - list->last->fragment);
        list->count += list->last->count;
    }
}

/* What never left the plan's own chunk goes to the engines. */
static void settle(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *lists = group->lists;
    bool engines = is_inline(plan, group);
    for (int way = 0; way < NVLXI_WAYS; way++)
        close_list(&lists[way]);
    lists[NVLXI_BY_WARPS].bytes = group->bytes - lists[NVLXI_BY_BLOCKS].bytes - lists[NVLXI_BY_ENGINES].bytes;
    if (engines) {
        lists[NVLXI_BY_ENGINES] = lists[NVLXI_BY_WARPS];
        lists[NVLXI_BY_WARPS] = (struct nvlxi_list){0};
    }
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
