/* Validated ops -> a plan, as a whole or in portions: most by short ways, which only compare and store.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/plan/plan.h"

#define SHARED_MIN 256u /* ops of a stretch, on average, of which each portion of the list gets a share */

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
    if (!all_short && fragment.length - 1 >= NVLXI_PIECE_BYTES)
        return false;
    *to = fragment;
    end->destination = fragment.destination + fragment.length;
    end->source = fragment.source + fragment.length;
    end->length += fragment.length;
    return true;
}

/* Puts ops from valid->at on, each `step`th, into the kernel's list, up to one that joins the one before, or is more
 * than a piece, or for which there is no room; valid->at becomes that. The group's open fragment is a piece, too.
 * Chunks are written only: they are slow to read, see device.h. */
static inline __attribute__((always_inline)) void put_short(struct nvlxi_group *group, struct nvlxi_validated *valid,
                                                            size_t end, size_t step, bool read, bool all_short) {
    struct nvlxi_list *const list = &group->lists[NVLXI_BY_KERNEL];
    struct nvlxi_fragment *next = list->next;
    struct nvlxi_fragment at = {group->open.destination + group->open.length, group->open.source + group->open.length,
                                group->open.length};
    const size_t first = valid->at, room = (size_t)(list->limit - next);
    size_t index = first;
    end = room ? first + nvlxi_min(nvlxi_ceil_div(end - first, step), room - 1) * step : first;
    if (index == end)
        return;
    *next++ = group->open;
    for (; end - index >= 2 * step; index += 2 * step, next += 2) { /* two at a time: half the counting */
        if (!put_one(fragment_of(valid, index, read), all_short, next, &at))
            goto done;
        if (!put_one(fragment_of(valid, index + step, read), all_short, next + 1, &at)) {
            index += step;
            next++;
            goto done;
        }
    }
    if (index < end && put_one(fragment_of(valid, index, read), all_short, next, &at)) {
        index += step;
        next++;
    }
done:
    group->bytes += at.length - group->open.length;
    if (index > first)
        group->open = fragment_of(valid, index - step, read);
    list->next = next - 1;
    valid->at = index;
}

/* The same, compiled for each direction, with and without the test. */
static inline __attribute__((always_inline)) void put_ops(struct nvlxi_group *group, struct nvlxi_validated *valid,
                                                          size_t end, size_t step) {
    const bool read = group->opcode == NVLX_OP_READ, all_short = valid->longest < NVLXI_PIECE_BYTES;
    if (all_short && read)
        put_short(group, valid, end, step, true, true);
    else if (all_short)
        put_short(group, valid, end, step, false, true);
    else if (read)
        put_short(group, valid, end, step, true, false);
    else
        put_short(group, valid, end, step, false, false);
}

static __attribute__((noinline)) void put_all(struct nvlxi_group *group, struct nvlxi_validated *valid, size_t end) {
    put_ops(group, valid, end, 1);
}

static __attribute__((noinline)) void put_each(struct nvlxi_group *group, struct nvlxi_validated *valid, size_t end,
                                               size_t step) {
    put_ops(group, valid, end, step);
}

/* Makes the open fragment longer by the ops from valid->at on, each `step`th, that continue it. */
static void extend_open(const struct nvlxi_plan *plan, struct nvlxi_group *group, struct nvlxi_validated *valid,
                        size_t end, size_t step) {
    const struct nvlxi_border_set borders = nvlxi_borders_set(plan->borders);
    const bool read = group->opcode == NVLX_OP_READ;
    const uint64_t length = group->open.length;
    uint64_t local = (read ? group->open.destination : group->open.source) + length;
    uint64_t remote = (read ? group->open.source : group->open.destination) + length;
    const uint64_t first = local;
    size_t index = valid->at;
    for (; index < end; index += step) {
        const struct nvlx_op *op = &valid->ops[index];
        if ((uint64_t)(uintptr_t)op->local != local || valid->remote[index] != remote ||
            !nvlxi_plan_goes_on(&borders, local, remote))
            break;
        local += op->length;
        remote += op->length;
    }
    group->open.length += local - first;
    group->bytes += local - first;
    valid->at = index;
}

static int add_one(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_validated *valid,
                   size_t index) {
    const struct nvlxi_fragment fragment = fragment_of(valid, index, group->opcode == NVLX_OP_READ);
    return nvlxi_plan_add(plan, group, fragment.destination, fragment.source, fragment.length);
}

/* Plans ops of one group, each `step`th: the short way those that just go to the kernel, as the one before them does.
 */
static int plan_stretch(struct nvlxi_plan *plan, struct nvlxi_validated *valid, struct nvlxi_group *group, size_t end,
                        size_t step) {
    while (valid->at < end) {
        const bool open_is_short = group->kernels && group->open.length - 1 < NVLXI_PIECE_BYTES;
        if (open_is_short && step == 1)
            put_all(group, valid, end);
        else if (open_is_short)
            put_each(group, valid, end, step);
        if (valid->at >= end)
            break;
        int code = add_one(plan, group, valid, valid->at);
        if (code)
            return code;
        valid->at += step;
        extend_open(plan, group, valid, end, step);
    }
    return 0;
}

#define ROUNDS_BYTES                                                                                                   \
    (16u << 10) /* of ops in rounds that are planned at a time: they stay in the cache next to the CPU */

/* Plans ops of a stretch whose pairs come in rounds: some ops of each pair, then of the next. */
static int plan_in_rounds(struct nvlxi_plan *plan, struct nvlxi_validated *valid, size_t begin, size_t until,
                          uint32_t round) {
    size_t first = valid->at;
    int code = 0;
    while (first < until && !code) {
        const size_t end = nvlxi_min(until, first + ROUNDS_BYTES / sizeof *valid->ops);
        for (uint32_t i = 0; i < round && first + i < end && !code; i++) {
            const uint8_t pair = valid->pair_of[begin + (first + i - begin) % round];
            valid->at = first + i;
            code = plan_stretch(plan, valid, valid->pairs[pair].group, end, round);
        }
        valid->at = first = end;
    }
    return code;
}

#define TURNS_MAX 64 /* pairs: with more, their ops do not go the short way */

/* Where the next op of a pair goes in the kernel's list of its group, whose open fragment is in the list by now. */
struct turn {
    struct nvlxi_fragment *next, *limit; /* equal: no op goes there the short way */
    uint64_t destination, source;        /* where the op before ends */
    uint64_t bytes;                      /* of ops that went there */
    size_t last;                         /* the last of them */
    bool read;
} __attribute__((aligned(64))); /* so that one is found by a shift */

static struct turn begin_turn(const struct nvlxi_group *group) {
    const struct nvlxi_list *list = &group->lists[NVLXI_BY_KERNEL];
    const struct nvlxi_fragment *open = &group->open;
    struct turn turn = {list->next, list->next, open->destination + open->length, open->source + open->length,
                        0,          0,          group->opcode == NVLX_OP_READ};
    if (group->kernels && open->length - 1 < NVLXI_PIECE_BYTES && list->next < list->limit) {
        *turn.next++ = *open;
        turn.limit = list->limit;
    }
    return turn;
}

static void end_turn(struct nvlxi_group *group, const struct nvlxi_validated *valid, const struct turn *turn) {
    if (!turn->bytes)
        return;
    group->open = fragment_of(valid, turn->last, turn->read);
    group->bytes += turn->bytes;
    group->lists[NVLXI_BY_KERNEL].next = turn->next - 1;
}

/* Puts ops from valid->at on into the kernels' lists of their pairs, as put_short does; stops where that does. `read`:
 * all are reads. */
static inline __attribute__((always_inline)) void put_each_in_turn(struct nvlxi_validated *valid, struct turn *turns,
                                                                   size_t end, bool read) {
    size_t index = valid->at;
    for (; index < end; index++) {
        struct turn *turn = &turns[valid->pair_of[index]];
        const struct nvlxi_fragment fragment = fragment_of(valid, index, read || turn->read);
        if (nvlxi_unlikely(turn->next == turn->limit || fragment.length - 1 >= NVLXI_PIECE_BYTES) ||
            (turn->destination == fragment.destination && turn->source == fragment.source))
            break;
        *turn->next++ = fragment;
        turn->destination = fragment.destination + fragment.length;
        turn->source = fragment.source + fragment.length;
        turn->bytes += fragment.length;
        turn->last = index;
    }
    valid->at = index;
}

static void put_in_turns(struct nvlxi_validated *valid, size_t end) {
    struct turn turns[TURNS_MAX];
    bool read = true;
    if (valid->pair_count > TURNS_MAX)
        return;
    for (size_t i = 0; i < valid->pair_count; i++) {
        turns[i] = begin_turn(valid->pairs[i].group);
        read = read && turns[i].read;
    }
    if (read)
        put_each_in_turn(valid, turns, end, true);
    else
        put_each_in_turn(valid, turns, end, false);
    for (size_t i = 0; i < valid->pair_count; i++)
        end_turn(valid->pairs[i].group, valid, &turns[i]);
}

/* Plans ops of a stretch in which each has its own pair. */
static int plan_in_turns(struct nvlxi_plan *plan, struct nvlxi_validated *valid, size_t end) {
    int code = 0;
    while (valid->at < end && !code) {
        put_in_turns(valid, end);
        if (valid->at == end)
            break;
        code = add_one(plan, valid->pairs[valid->pair_of[valid->at]].group, valid, valid->at);
        valid->at++;
    }
    return code;
}

/* Plans the one op of a stretch without a pair: it is cut, or is rows. */
static int plan_cuts(struct nvlxi_plan *plan, struct nvlxi_validated *valid, size_t end) {
    int code = 0;
    for (; valid->cut < valid->cut_count && !code; valid->cut++) {
        const struct nvlxi_cut *cut = &valid->cuts[valid->cut];
        if (cut->op >= end)
            break;
        code = nvlxi_plan_add_grid(plan, valid->pairs[cut->pair].group, &cut->grid);
    }
    valid->at = end;
    return code;
}

/* Plans ops of a stretch that begins at `begin`, up to `until`. */
static int plan_part(struct nvlxi_plan *plan, struct nvlxi_validated *valid, const struct nvlxi_stretch *stretch,
                     size_t begin, size_t until) {
    switch (stretch->pair) {
    case NVLXI_NO_PAIR:
        return plan_cuts(plan, valid, stretch->end);
    case NVLXI_IN_TURNS:
        return plan_in_turns(plan, valid, until);
    case NVLXI_IN_ROUNDS:
        return plan_in_rounds(plan, valid, begin, until, stretch->round);
    default:
        return plan_stretch(plan, valid, valid->pairs[stretch->pair].group, until, 1);
    }
}

/* Whether a list is planned by the same share of each stretch at a time, so that all groups are busy all the time.
 * Where stretches are short, what comes first has all groups. */
static bool has_shares(const struct nvlxi_validated *valid) {
    return valid->stretch_count <= valid->count / SHARED_MIN;
}

/* Plans so many ops, with those that are planned by now; or a few more. */
static int plan_until(struct nvlxi_plan *plan, struct nvlxi_validated *valid, size_t ops) {
    const bool shares = has_shares(valid);
    int code = 0;
    for (size_t i = valid->stretch; i < valid->stretch_count && !code; i++) {
        struct nvlxi_stretch *stretch = &valid->stretches[i];
        const size_t begin = i ? valid->stretches[i - 1].end : 0, first = valid->at = stretch->at,
                     until = ops == valid->count ? stretch->end
                             : shares            ? begin + nvlxi_ceil_div((stretch->end - begin) * ops, valid->count)
                                                 : nvlxi_min(ops, stretch->end);
        if (begin >= ops && !shares)
            break;
        code = until > first ? plan_part(plan, valid, stretch, begin, until) : 0;
        stretch->at = valid->at;
        valid->planned += valid->at - first;
        if (i == valid->stretch && stretch->at == stretch->end)
            valid->stretch++;
    }
    return code;
}

/* Puts the groups in their order, so that not everybody begins with the same GPU. */
static void sort_groups(struct nvlxi_plan *plan) {
    struct nvlxi_group *group = plan->groups, *following, **at;
    for (plan->groups = NULL; group; group = following) {
        following = group->following;
        for (at = &plan->groups; *at && (*at)->turn <= group->turn;)
            at = &(*at)->following;
        group->following = *at;
        *at = group;
    }
}

static int take_signals(struct nvlxi_plan *plan, const struct nvlxi_validated *valid) {
    const size_t count = valid->signal_count;
    plan->signals = count == 1 ? &plan->one_signal : malloc(count * sizeof *plan->signals);
    if (!plan->signals)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu signals", count);
    memcpy(plan->signals, valid->signals, count * sizeof *plan->signals);
    plan->signal_count = count;
    return 0;
}

/* Makes the groups that the list goes to. */
static int begin(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    plan->borders = &valid->borders;
    if (nvlxi_unlikely(valid->signal_count) && take_signals(plan, valid))
        return NVLX_ENOMEM;
    for (size_t i = 0; i < valid->pair_count; i++) {
        struct nvlxi_pair *pair = &valid->pairs[i];
        pair->group = nvlxi_plan_group(plan, pair);
        if (!pair->group)
            return nvlxi_fail(NVLX_ENOMEM, "no memory for a group of copies");
        pair->group->turn = pair->turn;
        pair->group->cell = pair->cell;
    }
    if (plan->group_count > 1)
        sort_groups(plan);
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
 * costs time; later twice as much, for planning a fragment takes about half as long as copying 4 KiB. Of lists that are
 * too long for a CPU's caches it takes longer: so no portion is much longer than another then. */
#define LIST_MIN    8192u /* ops: a shorter list is planned before a second launch would be made, */
#define BYTES_MIN   (64u << 20)
#define LONG_MIN    1024u  /* unless they may have that many bytes: so many are enough then */
#define PORTION_MAX 8192u  /* ops of the first portion */
#define STEP_MAX    32768u /* ops of a later one, unless these would be more than STEPS */
#define STEPS       24u
#define SHORT       (8u << 10)

static bool is_long(const struct nvlxi_validated *valid) {
    if (valid->longest >= NVLXI_ENGINE_MIN - 1 || valid->cut_count)
        return false; /* some is, or may be, for the engines; or makes more fragments than there are ops */
    return valid->count >= LIST_MIN || (valid->count >= LONG_MIN && valid->count * valid->longest >= BYTES_MIN);
}

/* What began in the plan's own chunk shall be followed by portions. */
static int begin_portions(struct nvlxi_plan *plan) {
    return plan->group_count > 1 && nvlxi_plan_is_inline(plan, &plan->first_group)
               ? nvlxi_plan_leave_inline(plan, &plan->first_group)
               : 0;
}

/* Whether the rest of the list, too, goes to the kernel. Ops that are adjacent could make something longer, and what is
 * long be badly aligned: where the first portion has none of that, it is not looked for in the rest. */
static bool can_follow(const struct nvlxi_plan *plan) {
    bool can = plan->group_count > 1 || plan->groups->lists[NVLXI_BY_KERNEL].first;
    for (const struct nvlxi_group *group = plan->groups; group && can; group = group->following)
        can = nvlxi_plan_choose(plan, group, &group->open) == NVLXI_BY_KERNEL && !nvlxi_plan_is_inline(plan, group) &&
              !group->lists[NVLXI_BY_ENGINES].first;
    return can;
}

/* Takes the chunks for `needed` more fragments. Of several groups, each may leave a chunk that is not full. */
static int reserve(struct nvlxi_plan *plan, uint64_t needed) {
    const struct nvlxi_list *list = &plan->groups->lists[NVLXI_BY_KERNEL];
    const bool alone = plan->group_count == 1;
    struct nvlxi_chunk *chunk, **end = &plan->spare;
    const uint64_t by_now = list->count + nvlxi_list_count_last(list);
    uint64_t longest = 0;
    for (uint64_t room = alone ? (uint64_t)(list->limit - list->next) : 0;
         room < needed + (alone ? 0 : plan->group_count * longest); room += chunk->capacity) {
        int code = plan->take_chunk(plan->context, true, by_now + room, &chunk);
        if (code)
            return code;
        chunk->next = NULL;
        *end = chunk;
        end = &chunk->next;
        longest = nvlxi_max(longest, chunk->capacity);
    }
    return 0;
}

/* The pieces of what is open, at most. */
static uint64_t pieces_open(const struct nvlxi_plan *plan) {
    uint64_t pieces = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        pieces += group->open.length / NVLXI_PIECE_BYTES + 1;
    return pieces;
}

/* The pieces that are still to come, at most: joining makes them fewer, if anything. */
static uint64_t pieces_left(const struct nvlxi_plan *plan, const struct nvlxi_validated *valid) {
    const uint64_t each = valid->longest / NVLXI_PIECE_BYTES + 1;
    return (valid->count - valid->planned) * each + pieces_open(plan);
}

/* Whether, judged by the first portion, the rest needs at least half the memory that would be reserved. A few long ops
 * among many short ones are not worth it. */
static bool is_even(const struct nvlxi_plan *plan, const struct nvlxi_validated *valid) {
    uint64_t pieces = pieces_open(plan);
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        pieces += group->lists[NVLXI_BY_KERNEL].count + nvlxi_list_count_last(&group->lists[NVLXI_BY_KERNEL]);
    return pieces * 2 * (valid->count - valid->planned) >= pieces_left(plan, valid) * valid->planned;
}

/* What is planned by now is a portion. */
static void end_portion(struct nvlxi_plan *plan) {
    for (struct nvlxi_group *group = plan->groups; group; group = group->following)
        if (group->lists[NVLXI_BY_KERNEL].last)
            group->lists[NVLXI_BY_KERNEL].last->count = (uint32_t)nvlxi_list_count_last(&group->lists[NVLXI_BY_KERNEL]);
}

int nvlxi_plan_begin(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    const size_t part = valid->longest < SHORT ? 8 : 16;
    int code = begin(plan, valid);
    if (code || !is_long(valid))
        return code ? code : plan_rest(plan, valid);
    code = plan_until(plan, valid, nvlxi_min(valid->count / part, PORTION_MAX));
    if (code || (code = begin_portions(plan)))
        return code;
    if (!can_follow(plan) || !is_even(plan, valid))
        return plan_rest(plan, valid);
    code = reserve(plan, pieces_left(plan, valid));
    if (code == NVLXI_GROW && plan->group_count > 1)
        return code; /* the list as a whole needs less, and would never ask for more */
    if (code) {
        nvlxi_plan_give_spare(plan); /* there may be room for what is left when it is joined */
        return plan_rest(plan, valid);
    }
    plan->in_portions = true;
    end_portion(plan);
    return 0;
}

void nvlxi_plan_next(struct nvlxi_plan *plan, struct nvlxi_validated *valid) {
    const size_t step = valid->planned < PORTION_MAX
                            ? 3 * valid->planned
                            : nvlxi_min(valid->planned, nvlxi_max(STEP_MAX, valid->count / STEPS));
    plan_until(plan, valid, nvlxi_min(valid->count, valid->planned + step));
    if (valid->planned < valid->count) {
        end_portion(plan);
        return;
    }
    nvlxi_plan_seal(plan);
    nvlxi_plan_give_spare(plan);
}
