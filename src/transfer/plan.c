/* Joins fragments, cuts them into pieces, and chooses who carries them. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* The rules, measured on two H200 and two H100 with NV18 between them. The kernel's warps copy pieces of 64 KiB as fast
 * as any; from 1 MiB on copy engines are as fast or faster. Reads are as fast with 32 SMs as with all, writes nearly
 * with 64. Where the distance from source to destination is no multiple of 4, the kernel copies byte by byte: engines
 * do better with what is long. Fewer fragments than fit into the plan itself are not worth a launch. Where the caller
 * wants the kernel alone, pieces of what is very long are longer, so that they take little memory. */
#define PIECE      (64u << 10)
#define PIECE_MAX  (2u << 20)
#define PIECES     32u /* of a fragment, before they get longer */
#define ENGINE_MIN (1u << 20)
#define SMS_READ   32u
#define SMS_WRITE  64u

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

static void give_spare_back(struct nvlxi_plan *plan) {
    struct nvlxi_chunk *spare;
    while ((spare = plan->spare)) {
        plan->spare = spare->next;
        plan->give_chunk(plan->context, spare);
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
    give_spare_back(plan);
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
        group->sms = opcode == NVLX_OP_READ ? SMS_READ : SMS_WRITE;
        group->kernels = kernels && plan->mechanism != NVLX_MECHANISM_COPY_ENGINE;
    }
    return group;
}

/* ---- Placing ----------------------------------------------------------------------------------------- */

static uint64_t count_last(const struct nvlxi_list *list) {
    return list->last ? (uint64_t)(list->next - list->last->fragment) : 0;
}

int nvlxi_plan_add_chunk(struct nvlxi_plan *plan, struct nvlxi_list *list, bool kernel) {
    uint64_t in_last = count_last(list);
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
    return nvlxi_min(nvlxi_max(length / PIECES / PIECE * PIECE, PIECE), PIECE_MAX);
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

static enum nvlxi_way choose(const struct nvlxi_plan *plan, const struct nvlxi_group *group,
                             const struct nvlxi_fragment *fragment) {
    if (!group->kernels)
        return NVLXI_BY_ENGINES;
    if (fragment->length <= PIECE || plan->mechanism == NVLX_MECHANISM_KERNEL || plan->in_portions)
        return NVLXI_BY_KERNEL;
    return fragment->length >= ENGINE_MIN || (fragment->destination ^ fragment->source) % 4 ? NVLXI_BY_ENGINES
                                                                                            : NVLXI_BY_KERNEL;
}

static int place(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_fragment *fragment) {
    return put(plan, group, choose(plan, group, fragment), *fragment);
}

/* What began in the plan's own chunk, where anything may lie, leaves it for the lists when there is more. */
static int leave_inline(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *list = &group->lists[NVLXI_BY_KERNEL];
    int code = 0;
    *list = (struct nvlxi_list){0};
    for (uint32_t i = 0; i < NVLXI_PLAN_INLINE && !code; i++)
        code = place(plan, group, &plan->inline_fragments[i]);
    return code;
}

static bool is_inline(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_KERNEL].last == &plan->inline_chunk;
}

/* Places the open fragment, whatever it is. Fails only as take_chunk does. */
static int place_open(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *list = &group->lists[NVLXI_BY_KERNEL];
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

/* Whether one copy may go on into the bytes at these addresses, which follow on it. */
static inline bool may_go_on(const struct nvlxi_border_set *borders, uint64_t one_side, uint64_t other_side) {
    return !nvlxi_borders_has(borders, one_side) && !nvlxi_borders_has(borders, other_side);
}

static bool joins(const struct nvlxi_plan *plan, const struct nvlxi_fragment *open, uint64_t destination,
                  uint64_t source) {
    if (open->destination + open->length != destination || open->source + open->length != source)
        return false;
    const struct nvlxi_border_set borders = nvlxi_borders_set(plan->borders);
    return may_go_on(&borders, destination, source);
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
        list->last->count = (uint32_t)count_last(list);
        list->count += list->last->count;
    }
}

/* What never left the plan's own chunk goes to the engines, if there is any. */
static void close_group(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    struct nvlxi_list *lists = group->lists;
    bool engines = is_inline(plan, group);
    for (int way = 0; way < NVLXI_WAYS; way++)
        close_list(&lists[way]);
    lists[NVLXI_BY_KERNEL].bytes = group->bytes - lists[NVLXI_BY_ENGINES].bytes;
    if (engines) {
        if (lists[NVLXI_BY_KERNEL].count)
            lists[NVLXI_BY_ENGINES] = lists[NVLXI_BY_KERNEL];
        lists[NVLXI_BY_KERNEL] = (struct nvlxi_list){0};
    }
}

int nvlxi_plan_seal(struct nvlxi_plan *plan) {
    for (struct nvlxi_group *group = plan->groups; group; group = group->following) {
        int code = place_open(plan, group);
        if (code)
            return code;
        close_group(plan, group);
        for (int way = 0; way < NVLXI_WAYS; way++) {
            plan->fragments[way] += group->lists[way].count / (way < NVLXI_ROWS_BY_KERNEL ? 1 : 2);
            plan->way_bytes[way] += group->lists[way].bytes;
            plan->bytes += group->lists[way].bytes;
        }
    }
    plan->sealed = true;
    plan->borders = NULL;
    return 0;
}

/* ---- Validated ops ----------------------------------------------------------------------------------- */

static struct nvlxi_fragment fragment_of(const struct nvlxi_validated *valid, size_t index, bool read) {
    const uint64_t local = (uint64_t)(uintptr_t)valid->ops[index].local, remote = valid->remote[index];
    return (struct nvlxi_fragment){read ? local : remote, read ? remote : local, valid->ops[index].length};
}

/* Puts an op into the kernel's list; false if it joins the one before, which ends at *end, or is more than a piece. */
static inline __attribute__((always_inline)) bool put_one(struct nvlxi_fragment fragment, bool all_short,
                                                          struct nvlxi_fragment *to, struct nvlxi_fragment *end) {
    if (fragment.destination == end->destination && fragment.source == end->source)
        return false;
    if (!all_short && fragment.length - 1 >= PIECE)
        return false;
    *to = fragment;
    end->destination = fragment.destination + fragment.length;
    end->source = fragment.source + fragment.length;
    end->length += fragment.length;
    return true;
}

/* Puts ops from `index` on into the kernel's list, up to one that joins the one before, or is more than a piece, or for
 * which there is no room; returns that. The group's open fragment is a piece, too. Chunks are written only: they are
 * slow to read, see device.h. */
static inline __attribute__((always_inline)) size_t put_short(struct nvlxi_group *group,
                                                              const struct nvlxi_validated *valid, size_t index,
                                                              size_t end, bool read, bool all_short) {
    struct nvlxi_list *const list = &group->lists[NVLXI_BY_KERNEL];
    struct nvlxi_fragment *next = list->next;
    struct nvlxi_fragment at = {group->open.destination + group->open.length, group->open.source + group->open.length,
                                group->open.length};
    const size_t first = index, room = (size_t)(list->limit - next);
    end = room ? index + nvlxi_min(end - index, room - 1) : index;
    if (index == end)
        return index;
    *next++ = group->open;
    for (; end - index >= 2; index += 2, next += 2) { /* two at a time: half the counting */
        if (!put_one(fragment_of(valid, index, read), all_short, next, &at))
            goto done;
        if (!put_one(fragment_of(valid, index + 1, read), all_short, next + 1, &at)) {
            index++;
            next++;
            goto done;
        }
    }
    if (index < end && put_one(fragment_of(valid, index, read), all_short, next, &at)) {
        index++;
        next++;
    }
done:
    group->bytes += at.length - group->open.length;
    if (index > first)
        group->open = fragment_of(valid, index - 1, read);
    list->next = next - 1;
    return index;
}

/* The same, compiled for each direction, with and without the test. */
static size_t put_ops(struct nvlxi_group *group, const struct nvlxi_validated *valid, size_t end, bool all_short) {
    const bool read = group->opcode == NVLX_OP_READ;
    if (all_short)
        return read ? put_short(group, valid, valid->planned, end, true, true)
                    : put_short(group, valid, valid->planned, end, false, true);
    return read ? put_short(group, valid, valid->planned, end, true, false)
                : put_short(group, valid, valid->planned, end, false, false);
}

/* Makes the open fragment longer by the ops from `index` on that continue it; returns the first that does not. */
static size_t extend_open(const struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_validated *valid,
                          size_t index, size_t end) {
    const struct nvlxi_border_set borders = nvlxi_borders_set(plan->borders);
    const bool read = group->opcode == NVLX_OP_READ;
    const uint64_t length = group->open.length;
    uint64_t local = (read ? group->open.destination : group->open.source) + length;
    uint64_t remote = (read ? group->open.source : group->open.destination) + length;
    const uint64_t first = local;
    for (; index < end; index++) {
        const struct nvlx_op *op = &valid->ops[index];
        if ((uint64_t)(uintptr_t)op->local != local || valid->remote[index] != remote ||
            !may_go_on(&borders, local, remote))
            break;
        local += op->length;
        remote += op->length;
    }
    group->open.length += local - first;
    group->bytes += local - first;
    return index;
}

static int add_one(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_validated *valid,
                   size_t index) {
    const struct nvlxi_fragment fragment = fragment_of(valid, index, group->opcode == NVLX_OP_READ);
    return nvlxi_plan_add(plan, group, fragment.destination, fragment.source, fragment.length);
}

/* Plans ops of one stretch: the short way those that just go to the kernel, as the one before them does. */
static int plan_stretch(struct nvlxi_plan *plan, struct nvlxi_validated *valid, struct nvlxi_group *group, size_t end) {
    const bool all_short = valid->longest < PIECE;
    while (valid->planned < end) {
        if (group->kernels && group->open.length - 1 < PIECE)
            valid->planned = put_ops(group, valid, end, all_short);
        if (valid->planned == end)
            break;
        int code = add_one(plan, group, valid, valid->planned++);
        if (code)
            return code;
        valid->planned = extend_open(plan, group, valid, valid->planned, end);
    }
    return 0;
}

/* Plans the one op of a stretch without a pair: it is cut, or is rows. */
static int plan_cuts(struct nvlxi_plan *plan, struct nvlxi_validated *valid, size_t end) {
    int code = 0;
    for (; valid->cut < valid->cut_count && !code; valid->cut++) {
        const struct nvlxi_cut *cut = &valid->cuts[valid->cut];
        if (cut->op >= end)
            break;
        code = nvlxi_plan_add_rows(plan, valid->pairs[cut->pair].group, &cut->rows);
    }
    valid->planned = end;
    return code;
}

/* Plans the ops up to `end`. */
static int plan_until(struct nvlxi_plan *plan, struct nvlxi_validated *valid, size_t end) {
    int code = 0;
    while (valid->planned < end && valid->stretch < valid->stretch_count && !code) {
        const struct nvlxi_stretch *stretch = &valid->stretches[valid->stretch];
        code = stretch->pair == NVLXI_NO_PAIR
                   ? plan_cuts(plan, valid, stretch->end)
                   : plan_stretch(plan, valid, valid->pairs[stretch->pair].group, nvlxi_min(end, stretch->end));
        if (valid->planned == stretch->end)
            valid->stretch++;
    }
    return code;
}

/* Makes the groups that the list goes to. */
static int begin(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    plan->borders = &valid->borders;
    for (size_t i = 0; i < valid->pair_count; i++) {
        struct nvlxi_pair *pair = &valid->pairs[i];
        pair->group = nvlxi_plan_group(plan, pair->gpu, pair->remote_gpu, pair->device, pair->opcode, pair->kernels);
        if (!pair->group)
            return nvlxi_fail(NVLX_ENOMEM, "no memory for a group of copies");
    }
    return 0;
}

static int plan_rest(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    int code = plan_until(plan, valid, valid->count);
    return code ? code : nvlxi_plan_seal(plan);
}

int nvlxi_plan_all(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    int code = begin(plan, valid);
    return code ? code : plan_rest(plan, valid);
}

/* ---- Portions ---------------------------------------------------------------------------------------- */

/* The first portion is an eighth of a long list, or less: as much as keeps the link busy until the next one is there;
 * of fragments that are not short, half as many. Each makes what is planned four times as much, since every launch
 * costs time; later twice as much, for planning a fragment takes about half as long as copying 4 KiB. */
#define LIST_MIN    8192u /* ops: a shorter list is planned before a second launch would be made, */
#define BYTES_MIN   (64u << 20)
#define LONG_MIN    1024u /* unless they may have that many bytes: so many are enough then */
#define PORTION_MAX 8192u /* ops of the first portion */
#define SHORT       (8u << 10)

static bool is_long(const struct nvlxi_validated *valid) {
    if (valid->longest >= ENGINE_MIN - 1 || valid->cut_count)
        return false; /* some is, or may be, for the engines; or makes more fragments than there are ops */
    return valid->count >= LIST_MIN || (valid->count >= LONG_MIN && valid->count * valid->longest >= BYTES_MIN);
}

/* Whether the rest of the list, too, goes to the kernel for one group alone. Ops that are adjacent could make something
 * longer, and what is long be badly aligned: where the first portion has none of that, it is not looked for in the
 * rest. */
static bool can_follow(const struct nvlxi_plan *plan) {
    const struct nvlxi_group *group = plan->groups;
    return plan->group_count == 1 && choose(plan, group, &group->open) == NVLXI_BY_KERNEL && !is_inline(plan, group) &&
           group->lists[NVLXI_BY_KERNEL].first && !group->lists[NVLXI_BY_ENGINES].first;
}

/* Takes the chunks for `needed` more fragments. */
static int reserve(struct nvlxi_plan *plan, const struct nvlxi_list *list, uint64_t needed) {
    struct nvlxi_chunk *chunk, **end = &plan->spare;
    const uint64_t by_now = list->count + count_last(list);
    for (uint64_t room = (uint64_t)(list->limit - list->next); room < needed; room += chunk->capacity) {
        int code = plan->take_chunk(plan->context, true, by_now + room, &chunk);
        if (code)
            return code;
        chunk->next = NULL;
        *end = chunk;
        end = &chunk->next;
    }
    return 0;
}

/* The pieces that are still to come, at most: joining makes them fewer, if anything. */
static uint64_t pieces_left(const struct nvlxi_plan *plan, const struct nvlxi_validated *valid) {
    const uint64_t each = valid->longest / PIECE + 1, open = plan->groups->open.length / PIECE + 1;
    return (valid->count - valid->planned) * each + open;
}

/* Whether, judged by the first portion, the rest needs at least half the memory that would be reserved. A few long ops
 * among many short ones are not worth it. */
static bool is_even(const struct nvlxi_plan *plan, const struct nvlxi_validated *valid) {
    const struct nvlxi_list *list = &plan->groups->lists[NVLXI_BY_KERNEL];
    const uint64_t pieces = list->count + count_last(list) + plan->groups->open.length / PIECE + 1;
    return pieces * 2 * (valid->count - valid->planned) >= pieces_left(plan, valid) * valid->planned;
}

int nvlxi_plan_begin(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    const size_t part = valid->longest < SHORT ? 8 : 16;
    int code = begin(plan, valid);
    if (code || !is_long(valid))
        return code ? code : plan_rest(plan, valid);
    if ((code = plan_until(plan, valid, nvlxi_min(valid->count / part, PORTION_MAX))))
        return code;
    if (!can_follow(plan) || !is_even(plan, valid))
        return plan_rest(plan, valid);
    struct nvlxi_list *list = &plan->groups->lists[NVLXI_BY_KERNEL];
    if (reserve(plan, list, pieces_left(plan, valid))) {
        give_spare_back(plan); /* there may be room for what is left when it is joined */
        return plan_rest(plan, valid);
    }
    plan->in_portions = true;
    list->last->count = (uint32_t)count_last(list);
    return 0;
}

void nvlxi_plan_next(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    struct nvlxi_list *list = &plan->groups->lists[NVLXI_BY_KERNEL];
    const size_t times = valid->planned < PORTION_MAX ? 4 : 2;
    plan_until(plan, valid, nvlxi_min(valid->count, times * valid->planned));
    if (valid->planned < valid->count) {
        list->last->count = (uint32_t)count_last(list);
        return;
    }
    nvlxi_plan_seal(plan);
    give_spare_back(plan);
}
