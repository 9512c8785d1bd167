/* Joins fragments, cuts them into pieces, and chooses who carries them. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/rows/rows.h"

/* The rules, measured on two H200 and two H100 with NV18 between them. The kernel's warps copy pieces of 64 KiB as fast
 * as any; from 1 MiB on copy engines are as fast or faster. Reads are as fast with 32 SMs as with all, writes nearly
 * with 64. Where the distance from source to destination is no multiple of 4, the kernel copies byte by byte: engines
 * do better with what is long. Fewer fragments than fit into the plan itself are not worth a launch. Where the caller
 * wants the kernel alone, pieces of what is very long are longer, so that they take little memory.
 *
 * To and from host memory engines move 54.8 GB/s, which is PCIe's rate (two H100). A piece takes 1.2 us then, and its
 * place in a batch 0.45 us of the CPU: so engines carry all that is longer than a piece, and the kernel what would cost
 * the CPU more than the link. What kernels reach there is not measured. */
#define PIECE_MAX (2u << 20)
#define PIECES    32u /* of a fragment, before they get longer */
#define SMS_READ  32u
#define SMS_WRITE 64u

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

void nvlxi_plan_give_spare(struct nvlxi_plan *plan) {
    struct nvlxi_chunk *spare;
    while ((spare = plan->spare)) {
        plan->spare = spare->next;
        plan->give_chunk(plan->context, spare);
    }
}

static void drop_signals(struct nvlxi_plan *plan) {
    if (plan->signals != &plan->one_signal)
        free(plan->signals);
    plan->signals = NULL;
    plan->signal_count = 0;
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
    nvlxi_plan_give_spare(plan);
    drop_signals(plan);
    plan->groups = NULL;
    plan->group_count = 0;
    plan->sealed = plan->in_portions = false;
    plan->borders = NULL;
    plan->mechanism = mechanism;
    plan->bytes = 0;
    memset(plan->fragments, 0, sizeof plan->fragments);
    memset(plan->way_bytes, 0, sizeof plan->way_bytes);
}

/* ---- Groups ------------------------------------------------------------------------------------------ */

void nvlxi_list_append(struct nvlxi_list *list, struct nvlxi_chunk *chunk) {
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
        nvlxi_list_append(&group->lists[NVLXI_BY_KERNEL], &plan->inline_chunk);
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

static bool is_of(const struct nvlxi_group *group, const struct nvlxi_pair *pair) {
    return group->gpu == pair->gpu && group->device == pair->device && group->opcode == pair->opcode &&
           group->remote_gpu == pair->remote_gpu && group->hosts == pair->hosts;
}

struct nvlxi_group *nvlxi_plan_group(struct nvlxi_plan *plan, const struct nvlxi_pair *pair) {
    struct nvlxi_group *group;
    for (group = plan->groups; group; group = group->following)
        if (is_of(group, pair))
            return group;
    group = add_group(plan);
    if (group) {
        group->gpu = pair->gpu;
        group->remote_gpu = pair->remote_gpu;
        group->device = pair->device;
        group->opcode = pair->opcode;
        group->hosts = pair->hosts;
        group->sms = pair->opcode == NVLX_OP_READ ? SMS_READ : SMS_WRITE;
        group->kernels = pair->kernels && plan->mechanism != NVLX_MECHANISM_COPY_ENGINE;
    }
    return group;
}

/* ---- Placing ----------------------------------------------------------------------------------------- */

int nvlxi_plan_add_chunk(struct nvlxi_plan *plan, struct nvlxi_list *list, bool kernel) {
    uint64_t in_last = nvlxi_list_count_last(list);
    struct nvlxi_chunk *chunk = kernel ? plan->spare : NULL;
    int code = 0;
    if (chunk)
        plan->spare = chunk->next;
    else
        code = plan->take_chunk(plan->context, kernel, list->count + in_last, &chunk);
    if (code)
        return code;
    if (list->last)
        list->last->count = (uint32_t)in_last;
    list->count += in_last;
    nvlxi_list_append(list, chunk);
    return 0;
}

uint64_t nvlxi_plan_piece(uint64_t length) {
    return nvlxi_min(nvlxi_max(length / PIECES / NVLXI_PIECE_BYTES * NVLXI_PIECE_BYTES, NVLXI_PIECE_BYTES), PIECE_MAX);
}

/* Puts a fragment into a list; into the kernel's in pieces. */
static int put(struct nvlxi_plan *plan, struct nvlxi_group *group, enum nvlxi_way way, struct nvlxi_fragment fragment) {
    struct nvlxi_list *list = &group->lists[way];
    const uint64_t piece = way == NVLXI_BY_KERNEL ? nvlxi_plan_piece(fragment.length) : UINT64_MAX;
    while (fragment.length) {
        uint64_t length = nvlxi_min(fragment.length, piece);
        int code = list->next == list->limit ? nvlxi_plan_add_chunk(plan, list, way == NVLXI_BY_KERNEL) : 0;
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

enum nvlxi_way nvlxi_plan_choose(const struct nvlxi_plan *plan, const struct nvlxi_group *group,
                                 const struct nvlxi_fragment *fragment) {
    if (!group->kernels)
        return NVLXI_BY_ENGINES;
    if (fragment->length <= NVLXI_PIECE_BYTES || plan->mechanism == NVLX_MECHANISM_KERNEL || plan->in_portions)
        return NVLXI_BY_KERNEL;
    return fragment->length >= NVLXI_ENGINE_MIN || group->hosts || (fragment->destination ^ fragment->source) % 4
               ? NVLXI_BY_ENGINES
               : NVLXI_BY_KERNEL;
}

static int place(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_fragment *fragment) {
    return put(plan, group, nvlxi_plan_choose(plan, group, fragment), *fragment);
}

/* What began in the plan's own chunk, where anything may lie, leaves it for the lists when there is more. */
int nvlxi_plan_leave_inline(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *list = &group->lists[NVLXI_BY_KERNEL];
    const size_t count = (size_t)(list->next - plan->inline_fragments);
    int code = 0;
    *list = (struct nvlxi_list){0};
    for (size_t i = 0; i < count && !code; i++)
        code = place(plan, group, &plan->inline_fragments[i]);
    return code;
}

bool nvlxi_plan_is_inline(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_KERNEL].last == &plan->inline_chunk;
}

/* Places the open fragment, whatever it is. Fails only as take_chunk does. */
static int place_open(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *list = &group->lists[NVLXI_BY_KERNEL];
    int code = 0;
    if (!group->open.length)
        return 0;
    if (nvlxi_plan_is_inline(plan, group)) {
        if (list->next < list->limit) {
            *list->next++ = group->open;
            return 0;
        }
        code = nvlxi_plan_leave_inline(plan, group);
    }
    return code ? code : place(plan, group, &group->open);
}

static bool joins(const struct nvlxi_plan *plan, const struct nvlxi_fragment *open, uint64_t destination,
                  uint64_t source) {
    if (open->destination + open->length != destination || open->source + open->length != source)
        return false;
    const struct nvlxi_border_set borders = nvlxi_borders_set(plan->borders);
    return nvlxi_plan_goes_on(&borders, destination, source);
}

int nvlxi_plan_add(struct nvlxi_plan *plan, struct nvlxi_group *group, uint64_t destination, uint64_t source,
                   uint64_t length) {
    struct nvlxi_fragment *open = &group->open;
    group->bytes += length;
    if (joins(plan, open, destination, source)) {
        open->length += length;
        return 0;
    }
    int code = place_open(plan, group);
    *open = (struct nvlxi_fragment){destination, source, length};
    return code;
}

static void close_list(struct nvlxi_list *list) {
    if (list->last) {
        list->last->count = (uint32_t)nvlxi_list_count_last(list);
        list->count += list->last->count;
    }
}

/* What never left the plan's own chunk goes to the engines, if there is any. */
static void close_group(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *lists = group->lists;
    bool engines = nvlxi_plan_is_inline(plan, group);
    for (int way = 0; way < NVLXI_WAYS; way++)
        close_list(&lists[way]);
    lists[NVLXI_BY_KERNEL].bytes = group->bytes - lists[NVLXI_BY_ENGINES].bytes;
    if (engines) {
        if (lists[NVLXI_BY_KERNEL].count)
            lists[NVLXI_BY_ENGINES] = lists[NVLXI_BY_KERNEL];
        lists[NVLXI_BY_KERNEL] = (struct nvlxi_list){0};
    }
}

uint64_t nvlxi_group_copies(const struct nvlxi_group *group, enum nvlxi_way way) {
    static const uint64_t room[NVLXI_WAYS] = {1, 1, NVLXI_ROWS_ROOM, NVLXI_GRID_ROOM};
    return group->lists[way].count / room[way];
}

int nvlxi_plan_seal(struct nvlxi_plan *plan) {
    for (struct nvlxi_group *group = plan->groups; group; group = group->following) {
        int code = place_open(plan, group);
        if (!code && group->few_count)
            code = nvlxi_plan_place_few(plan, group);
        if (code)
            return code;
        close_group(plan, group);
        for (int way = 0; way < NVLXI_WAYS; way++) {
            plan->fragments[way] += nvlxi_group_copies(group, (enum nvlxi_way)way);
            plan->way_bytes[way] += group->lists[way].bytes;
            plan->bytes += group->lists[way].bytes;
        }
    }
    plan->sealed = true;
    plan->borders = NULL;
    return 0;
}
