/* Borrows lanes for a plan, and issues its copies on them. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/submit.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/error.h"
#include "transfer/blocks/issue.h"
#include "transfer/rows/submit.h"
#include "transfer/signals.h"

#define ENGINE_LANES  4  /* over which a list for the copy engines is spread: they then fill the link from 1 MiB on, */
#define ENGINE_COPIES 8  /* if each has so many copies: with fewer, issuing to one more takes longer than it gains */
#define ENGINE_SLICE  64 /* copies that a lane gets at a time */
#define PORTIONS_MAX  32 /* launches of a list that is planned meanwhile, beside those that its length takes */

/* Whether a group goes into the caller's stream itself: see lanes.h. */
static bool goes_into_stream(const struct nvlxi_terms *terms, const struct nvlxi_group *group) {
    return terms->stream && terms->stream->gpu == group->gpu;
}

/* Copies of rows by engines. */
static uint64_t engine_rows(const struct nvlxi_group *group) {
    return group->lists[NVLXI_ROWS_BY_ENGINES].count / NVLXI_GRID_ROOM;
}

static uint64_t engine_count(const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_ENGINES].count + engine_rows(group);
}

/* Lanes for all groups that share engines with this one, the first of them; else none. Several groups share one, so
 * that a GPU copies from one peer at a time: where four H200 read from all others, pieces of 1 MiB have 1386 GB/s in
 * all, over four lanes 957. */
static uint32_t engine_lanes(const struct nvlxi_terms *terms, const struct nvlxi_group *first) {
    uint64_t count = 0, groups = 0;
    if (nvlxi_engines_of(terms->plan, first) != first || goes_into_stream(terms, first))
        return nvlxi_engines_of(terms->plan, first) == first;
    for (const struct nvlxi_group *group = first; group; group = group->following) {
        if (nvlxi_engines_of(terms->plan, group) != first)
            continue;
        count += engine_count(group);
        groups++;
    }
    if (groups > 1)
        return 1;
    return (uint32_t)nvlxi_min(nvlxi_max(count / ENGINE_COPIES, 1), ENGINE_LANES);
}

static uint32_t kernel_lanes(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    return nvlxi_kernels_of(plan, group) == group ? 1 : 0;
}

/* Copies of a group that the fullest of so many lanes gets. Slices are dealt out within each chunk, so a little more
 * than its share. */
static uint64_t fullest_lane(const struct nvlxi_group *group, uint64_t lanes) {
    uint64_t copies = nvlxi_rows_share(engine_rows(group), lanes);
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_ENGINES].first; chunk; chunk = chunk->next) {
        const uint64_t slice = nvlxi_min(nvlxi_ceil_div(chunk->count, lanes), ENGINE_SLICE);
        copies += nvlxi_min(nvlxi_ceil_div(nvlxi_ceil_div(chunk->count, slice), lanes) * slice, chunk->count);
    }
    return copies;
}

/* The same of all groups that share engines with this one, the first of them; else none. */
static uint64_t engine_copies(const struct nvlxi_terms *terms, const struct nvlxi_group *first) {
    const uint64_t lanes = engine_lanes(terms, first);
    uint64_t copies = 0;
    for (const struct nvlxi_group *group = first; group && lanes; group = group->following)
        copies += nvlxi_engines_of(terms->plan, group) == first ? fullest_lane(group, lanes) : 0;
    return copies;
}

/* Places in a queue that marks take, and copies in slabs. */
static uint64_t mark_places(const struct nvlxi_terms *terms, const struct nvlxi_group *first) {
    uint64_t bytes = 0;
    for (const struct nvlxi_group *group = first; group && terms->marks; group = group->following)
        bytes += nvlxi_engines_of(terms->plan, group) == first ? group->lists[NVLXI_BY_ENGINES].bytes : 0;
    return terms->marks ? 2 * (bytes / terms->marks->slab + 1) : 0;
}

/* Fragments of a kernel, so that a mark comes behind about a slab; 0: there are no marks. */
static uint32_t marked_kernel(const struct nvlxi_terms *terms, const struct nvlxi_group *group) {
    const uint64_t slab =
        terms->marks ? terms->marks->slab / nvlxi_max(nvlxi_kernels_average(terms->plan, group), 1) : 0;
    return terms->marks ? (uint32_t)nvlxi_max(nvlxi_min(slab, UINT32_MAX), 1) : 0;
}

/* Places in a queue that its kernels take, at most, and the marks behind them: each is of so many fragments. */
static uint64_t kernels(const struct nvlxi_plan *plan, const struct nvlxi_group *group, uint32_t marked) {
    if (group->blocks)
        return nvlxi_block_work_kernels(group);
    const struct nvlxi_kernel_room room = nvlxi_kernels_room(plan, group);
    const uint64_t portions = plan->sealed ? 0 : PORTIONS_MAX;
    uint64_t count = nvlxi_ceil_div(room.chunks + portions * plan->group_count, NVLXI_PARTS_MAX) + portions;
    for (const struct nvlxi_group *other = group; other; other = other->following)
        count += nvlxi_kernels_of(plan, other) == group ? nvlxi_rows_kernels(other) : 0;
    return marked ? 2 * (count + nvlxi_ceil_div(room.fragments, marked)) : count;
}

/* Places in a queue behind the copies of a lane. Any lane of a GPU may be to carry its signals. */
static uint32_t places_behind(const struct nvlxi_terms *terms, int gpu) {
    return terms->calls + (nvlxi_unlikely(terms->plan->signal_count) ? nvlxi_signals_on(terms->plan, gpu) : 0);
}

static uint64_t queued_on(const struct nvlxi_terms *terms, int gpu) {
    uint64_t queued = 0;
    for (const struct nvlxi_group *group = terms->plan->groups; group; group = group->following)
        if (group->gpu == gpu)
            queued +=
                (engine_copies(terms, group) + places_behind(terms, gpu)) * engine_lanes(terms, group) +
                (kernel_lanes(terms->plan, group) ? kernels(terms->plan, group, 0) + places_behind(terms, gpu) : 0);
    return queued;
}

bool nvlxi_submit_is_long(const struct nvlxi_terms *terms) {
    bool is_long = false;
    for (const struct nvlxi_group *group = terms->plan->groups; group && !is_long; group = group->following)
        is_long = queued_on(terms, group->gpu) > NVLXI_ORDERED_DEPTH;
    return is_long;
}

bool nvlxi_submit_is_wide(const struct nvlxi_plan *plan) {
    const struct nvlxi_terms free_terms = {.plan = plan};
    uint32_t lanes = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        lanes += engine_lanes(&free_terms, group) + kernel_lanes(plan, group);
    return lanes > 1;
}

/* ---- SMs ---------------------------------------------------------------------------------------------- */

/* The groups of one GPU whose kernels run at the same time share the transfer's budget. Where they are more than it has
 * SMs, some run one after the other, in one lane. */
struct share {
    uint32_t number; /* of the group among those of its GPU */
    uint32_t slots;  /* how many run at the same time */
    uint32_t sms;    /* of this one; 0: as the group says */
};

static uint32_t budget_of(const struct nvlxi_lane_pool *pool, int gpu, uint32_t max_sms) {
    struct nvlxi_gpu_limits limits;
    if (!max_sms || pool->context->ops->limits(pool->context->device, gpu, &limits))
        return max_sms;
    return (uint32_t)nvlxi_max(nvlxi_min(max_sms, limits.sms), 1);
}

static struct share share_of(const struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                             const struct nvlxi_group *group) {
    const uint32_t budget = budget_of(pool, group->gpu, terms->max_sms);
    struct share share = {0, 1, budget};
    uint32_t count = 0;
    if (!terms->max_sms || terms->plan->group_count == 1)
        return share;
    for (const struct nvlxi_group *other = terms->plan->groups; other; other = other->following) {
        if (other == group)
            share.number = count;
        count += other->gpu == group->gpu && kernel_lanes(terms->plan, other);
    }
    share.slots = (uint32_t)nvlxi_max(nvlxi_min(count, budget), 1);
    share.sms = budget / share.slots + (share.number % share.slots < budget % share.slots);
    return share;
}

static uint32_t sms_on(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan, int gpu) {
    uint32_t sms = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        sms += group->gpu == gpu && kernel_lanes(plan, group) ? group->sms : 0;
    return budget_of(pool, gpu, sms);
}

/* At most, at the same time on one GPU. */
static uint32_t sms_of(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan, uint32_t max_sms) {
    uint32_t most = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        if (nvlxi_kernels_carry(plan, group))
            most = (uint32_t)nvlxi_max(most,
                                       max_sms ? budget_of(pool, group->gpu, max_sms) : sms_on(pool, plan, group->gpu));
    return most;
}

void nvlxi_submit_describe(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan, size_t ops,
                           uint32_t max_sms, struct nvlx_request_info *info) {
    info->ops = ops;
    info->bytes = plan->bytes;
    info->engine_bytes = plan->way_bytes[NVLXI_BY_ENGINES] + plan->way_bytes[NVLXI_ROWS_BY_ENGINES];
    info->engine_fragments = nvlxi_plan_engine_copies(plan);
    info->kernel_bytes = plan->way_bytes[NVLXI_BY_KERNEL] + plan->way_bytes[NVLXI_ROWS_BY_KERNEL];
    info->kernel_fragments = plan->fragments[NVLXI_BY_KERNEL] + plan->fragments[NVLXI_ROWS_BY_KERNEL];
    info->sms = info->kernel_fragments ? sms_of(pool, plan, max_sms) : 0;
}

/* ---- Legs --------------------------------------------------------------------------------------------- */

static void drop_room(struct nvlxi_legs *legs) {
    if (legs->leg != &legs->one)
        free(legs->leg);
    if (legs->place != &legs->only_place)
        free(legs->place);
}

static int make_room(struct nvlxi_legs *legs, uint32_t lanes, uint32_t groups) {
    *legs = (struct nvlxi_legs){.leg = &legs->one, .place = &legs->only_place};
    if (lanes > 1)
        legs->leg = calloc(lanes, sizeof *legs->leg);
    if (groups > 1)
        legs->place = calloc(groups, sizeof *legs->place);
    if (legs->leg && legs->place)
        return 0;
    drop_room(legs);
    return nvlxi_fail(NVLX_ENOMEM, "no memory for a transfer over %" PRIu32 " lanes", lanes);
}

void nvlxi_submit_return(struct nvlxi_lane_pool *pool, struct nvlxi_legs *legs) {
    for (uint32_t i = 0; i < legs->count; i++)
        nvlxi_lanes_return(pool, legs->leg[i].lane, legs->leg[i].queued, legs->leg[i].event);
    drop_room(legs);
    legs->count = 0;
}

static int borrow_leg(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint64_t copies, uint32_t behind,
                      struct nvlxi_legs *legs) {
    struct nvlxi_leg *leg = &legs->leg[legs->count];
    *leg = (struct nvlxi_leg){.queued = (uint32_t)nvlxi_min(copies + behind, UINT32_MAX / 2), .behind = behind};
    int code = nvlxi_lanes_borrow(pool, key, leg->queued, legs, &leg->lane, &leg->event);
    if (!code)
        legs->count++;
    return code;
}

/* The leg whose kernel must end before this one begins: both use one lane. */
static const struct nvlxi_leg *leg_before(const struct nvlxi_legs *legs, int gpu, uint32_t number) {
    for (uint32_t i = 0; i < legs->count; i++)
        if (legs->leg[i].by_kernel && legs->leg[i].lane->key.gpu == gpu && number-- == 0)
            return &legs->leg[i];
    return NULL;
}

static int borrow_kernel_leg(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                             const struct nvlxi_group *group, const struct nvlxi_lane_key *key,
                             struct nvlxi_legs *legs) {
    const struct share share = share_of(pool, terms, group);
    const struct nvlxi_leg *before = NULL;
    struct nvlxi_leg *leg = &legs->leg[legs->count];
    const uint32_t marked = marked_kernel(terms, group);
    const uint64_t copies = kernels(terms->plan, group, marked);
    const uint32_t behind = places_behind(terms, group->gpu);
    if (share.number >= share.slots)
        before = leg_before(legs, group->gpu, share.number - share.slots);
    int code;
    if (before) {
        *leg = (struct nvlxi_leg){.lane = before->lane, .queued = (uint32_t)copies + behind, .behind = behind};
        code = nvlxi_lanes_borrow_again(pool, leg->lane, leg->queued, &leg->event);
        legs->count += code == 0;
    } else {
        code = borrow_leg(pool, key, copies, behind, legs);
    }
    leg->by_kernel = true;
    leg->marked = marked;
    return code;
}

/* Limits a priority to what the GPU has, so that others make no extra lanes. */
static int priority_on(const struct nvlxi_lane_pool *pool, int gpu, int priority) {
    struct nvlxi_gpu_limits limits;
    if (!priority || pool->context->ops->limits(pool->context->device, gpu, &limits))
        return 0;
    return priority > limits.priority_least  ? limits.priority_least
           : priority < limits.priority_most ? limits.priority_most
                                             : priority;
}

static struct nvlxi_lane_key key_of(const struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                                    const struct nvlxi_group *group) {
    return (struct nvlxi_lane_key){
        .gpu = group->gpu,
        .priority = priority_on(pool, group->gpu, terms->priority),
        .ordered = terms->stream != NULL,
        .stream = terms->stream ? *terms->stream : (struct nvlxi_stream){0},
        .place = nvlxi_place(group->device, group->hosts ? NVLXI_KIND_PINNED : NVLXI_KIND_CUDA_MALLOC),
        .opcode = group->opcode};
}

/* Legs for signals alone. */
static uint32_t lone_signals(const struct nvlxi_plan *plan) {
    uint32_t count = 0;
    for (size_t i = 0; i < plan->signal_count; i++)
        count += nvlxi_signals_lone_gpu(plan, i) >= 0;
    return count;
}

/* One on each GPU where no copies are. */
static int borrow_for_signals(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs) {
    int code = 0;
    for (size_t i = 0; i < terms->plan->signal_count && !code; i++) {
        const struct nvlxi_group alone = {.gpu = nvlxi_signals_lone_gpu(terms->plan, i), .opcode = NVLX_OP_SIGNAL};
        if (alone.gpu < 0)
            continue;
        const struct nvlxi_lane_key key = key_of(pool, terms, &alone);
        code = borrow_leg(pool, &key, 0, places_behind(terms, alone.gpu), legs);
        legs->busy_gpu = alone.gpu;
    }
    return code;
}

int nvlxi_submit_borrow(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs) {
    const struct nvlxi_group *group;
    uint32_t needed = lone_signals(terms->plan);
    for (group = terms->plan->groups; group; group = group->following)
        needed += engine_lanes(terms, group) + kernel_lanes(terms->plan, group);
    int code = make_room(legs, needed, terms->plan->group_count);
    if (code)
        return code;
    for (group = terms->plan->groups; group && !code; group = group->following) {
        const struct nvlxi_lane_key key = key_of(pool, terms, group);
        for (uint32_t lanes = engine_lanes(terms, group); lanes && !code; lanes--)
            code = borrow_leg(pool, &key, engine_copies(terms, group) + mark_places(terms, group),
                              places_behind(terms, group->gpu), legs);
        if (kernel_lanes(terms->plan, group) && !code)
            code = borrow_kernel_leg(pool, terms, group, &key, legs);
        legs->busy_gpu = group->gpu;
    }
    code = code ? code : borrow_for_signals(pool, terms, legs);
    if (code)
        nvlxi_submit_return(pool, legs);
    return code;
}

static bool is_in_stream(const struct nvlxi_leg *leg) {
    return leg->lane->kind == NVLXI_CALLERS;
}

/* The first leg that is not in the caller's stream itself, or NULL. */
static const struct nvlxi_leg *first_beside(const struct nvlxi_legs *legs) {
    for (uint32_t i = 0; i < legs->count; i++)
        if (!is_in_stream(&legs->leg[i]))
            return &legs->leg[i];
    return NULL;
}

int nvlxi_submit_follow(struct nvlxi_lane_pool *pool, const struct nvlxi_legs *legs,
                        const struct nvlxi_stream *stream) {
    struct nvlxi_pooled_event *event;
    if (!first_beside(legs))
        return 0;
    int code = nvlxi_lanes_borrow_event(pool, stream->gpu, &event);
    if (code)
        return code;
    code = pool->context->ops->stream_record(pool->context->device, stream, event->event);
    for (uint32_t i = 0; i < legs->count && !code; i++)
        if (!is_in_stream(&legs->leg[i]))
            code = pool->context->ops->lane_wait(legs->leg[i].lane->lane, event->event);
    nvlxi_lanes_return(pool, NULL, 0, event);
    return code;
}

/* ---- Copies ------------------------------------------------------------------------------------------- */

static int copy_one(const struct nvlxi_lane_pool *pool, struct nvlxi_lane *lane, const struct nvlxi_fragment *fragment,
                    int to, int from) {
    const struct nvlxi_copy copy = {.destination = fragment->destination,
                                    .source = fragment->source,
                                    .length = fragment->length,
                                    .destination_gpu = to,
                                    .source_gpu = from};
    return pool->context->ops->copy(lane, &copy);
}

static int submit_slice(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group, struct nvlxi_lane *lane,
                        const struct nvlxi_fragment *list, uint64_t count) {
    const struct nvlxi_ends ends = nvlxi_submit_ends(group);
    return count == 1 ? copy_one(pool, lane, list, ends.to, ends.from)
                      : pool->context->ops->copy_list(lane, list, count, ends.to, ends.from);
}

/* Gives the lanes slices in turn, from *lane on, which moves on: so all are busy from the start. */
static int submit_fragments(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group,
                            const struct nvlxi_leg *legs, uint64_t lanes, uint64_t *lane) {
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_ENGINES].first; chunk; chunk = chunk->next) {
        const uint64_t slice = nvlxi_min(nvlxi_ceil_div(chunk->count, lanes), ENGINE_SLICE);
        for (uint64_t first = 0; first < chunk->count; first += slice, *lane = (*lane + 1) % lanes) {
            int code = submit_slice(pool, group, legs[*lane].lane->lane, chunk->fragment + first,
                                    nvlxi_min(slice, chunk->count - first));
            if (code)
                return code;
        }
    }
    return 0;
}

/* ---- The same with marks ------------------------------------------------------------------------------ */

/* Issues some fragments, which come with the lane's next mark. */
static int submit_noted(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks, const struct nvlxi_group *group,
                        struct nvlxi_marked_lane *to, const struct nvlxi_fragment *list, uint64_t count) {
    int code = to->bytes ? 0 : nvlxi_marks_open(marks, to);
    if (!code)
        code = nvlxi_marks_note(marks, to, list, count);
    if (!code)
        code = submit_slice(pool, group, to->lane->lane, list, count);
    return !code && to->bytes >= marks->slab ? nvlxi_marks_close(pool, marks, to) : code;
}

/* Issues some fragments, or one in slabs. */
static int submit_marked(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks, const struct nvlxi_group *group,
                         struct nvlxi_marked_lane *to, const struct nvlxi_fragment *list, uint64_t count) {
    struct nvlxi_fragment rest = *list;
    int code = 0;
    if (count > 1)
        return submit_noted(pool, marks, group, to, list, count);
    while (rest.length && !code) {
        struct nvlxi_fragment slab = rest;
        slab.length = nvlxi_min(rest.length, marks->slab);
        code = submit_noted(pool, marks, group, to, &slab, 1);
        rest.destination += slab.length;
        rest.source += slab.length;
        rest.length -= slab.length;
    }
    return code;
}

/* So many fragments that they are a slice, and no longer than a slab if they are more than one. */
static uint64_t marked_slice(const struct nvlxi_fragment *list, uint64_t most, uint64_t slab) {
    uint64_t count = 1;
    for (uint64_t bytes = list->length; count < most && list[count].length <= slab - nvlxi_min(bytes, slab);)
        bytes += list[count++].length;
    return count;
}

static int submit_fragments_marked(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks,
                                   const struct nvlxi_group *group, struct nvlxi_marked_lane *to, uint64_t lanes,
                                   uint64_t *lane) {
    int code = 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_ENGINES].first; chunk; chunk = chunk->next) {
        const uint64_t slice = nvlxi_min(nvlxi_ceil_div(chunk->count, lanes), ENGINE_SLICE);
        for (uint64_t first = 0, count; first < chunk->count && !code; first += count, *lane = (*lane + 1) % lanes) {
            const struct nvlxi_fragment *list = chunk->fragment + first;
            count = marked_slice(list, nvlxi_min(slice, chunk->count - first), marks->slab);
            code = submit_marked(pool, marks, group, &to[*lane], list, count);
        }
    }
    return code;
}

/* Issues what engines carry of all groups that share lanes with this one, the first: group after group. */
static int submit_engines(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                          const struct nvlxi_group *first, const struct nvlxi_leg *legs, uint64_t lanes) {
    struct nvlxi_marked_lane to[ENGINE_LANES] = {0};
    uint64_t lane = 0;
    int code = 0;
    for (uint64_t i = 0; i < lanes; i++)
        to[i].lane = legs[i].lane;
    for (const struct nvlxi_group *group = first; group && !code && lanes; group = group->following) {
        if (nvlxi_engines_of(terms->plan, group) != first)
            continue;
        code = terms->marks ? submit_fragments_marked(pool, terms->marks, group, to, lanes, &lane)
                            : submit_fragments(pool, group, legs, lanes, &lane);
        if (!code)
            code = nvlxi_rows_submit_engines(pool, group, legs, lanes, &lane);
    }
    return code;
}

/* ---- Kernels ------------------------------------------------------------------------------------------ */

/* Behind a kernel: what it has copied. */
static int mark_kernel(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks, struct nvlxi_leg *leg,
                       const struct nvlxi_kernel *kernel) {
    struct nvlxi_marked_lane to = {.lane = leg->lane};
    int code = nvlxi_marks_open(marks, &to);
    for (uint32_t i = 0; i < kernel->part_count && !code; i++)
        code = nvlxi_marks_note(marks, &to, kernel->parts[i].list, kernel->parts[i].count);
    if (!code)
        code = nvlxi_marks_close(pool, marks, &to);
    leg->issued++;
    return code;
}

/* Issues the lists that share kernels with a group's, from their places on. Gives one kernel as many chunks as it
 * takes, or a slab. Where the caller sets no budget of SMs (0), and no mark comes between, the next one may begin while
 * it ends. */
static int submit_kernels(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                          const struct nvlxi_group *first, struct nvlxi_leg *leg, struct nvlxi_place *place) {
    struct nvlxi_part parts[NVLXI_PARTS_MAX];
    const uint32_t sms = share_of(pool, terms, first).sms;
    const uint64_t most = leg->marked ? leg->marked : UINT64_MAX;
    struct nvlxi_kernel kernel = {
        .parts = parts, .sms = sms ? sms : first->sms, .average = nvlxi_kernels_average(terms->plan, first)};
    while ((kernel.part_count = nvlxi_kernels_take(terms->plan, first, place, most, parts))) {
        kernel.overlaps = leg->issued > 0 && !sms && !terms->marks;
        int code = pool->context->ops->copy_kernel(leg->lane->lane, &kernel);
        leg->issued += code == 0;
        if (!code && terms->marks)
            code = mark_kernel(pool, terms->marks, leg, &kernel);
        if (code)
            return code;
    }
    return 0;
}

/* The rows of groups that share kernels, on the same leg. */
static int submit_rows(const struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                       const struct nvlxi_group *first, struct nvlxi_leg *leg) {
    const uint32_t sms = share_of(pool, terms, first).sms;
    int code = 0;
    for (const struct nvlxi_group *group = first; group && !code; group = group->following)
        if (nvlxi_kernels_of(terms->plan, group) == first)
            code = nvlxi_rows_submit_kernels(pool, group, leg, sms);
    return code;
}

int nvlxi_submit_copies(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs) {
    struct nvlxi_leg *leg = legs->leg;
    int code = 0;
    for (const struct nvlxi_group *group = terms->plan->groups; group && !code; group = group->following) {
        const uint32_t engines = engine_lanes(terms, group);
        code = submit_engines(pool, terms, group, leg, engines);
        leg += engines;
        if (code || !kernel_lanes(terms->plan, group))
            continue;
        if (group->blocks)
            code = nvlxi_block_work_submit(pool, group, leg, share_of(pool, terms, group).sms);
        else
            code = submit_kernels(pool, terms, group, leg, legs->place);
        if (!code && !group->blocks)
            code = submit_rows(pool, terms, group, leg);
        leg++;
    }
    return code;
}

/* Of a plan in portions: all legs are kernels'. */
int nvlxi_submit_more(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs) {
    struct nvlxi_leg *leg = legs->leg;
    int code = 0;
    for (const struct nvlxi_group *group = terms->plan->groups; group && !code; group = group->following)
        if (kernel_lanes(terms->plan, group))
            code = submit_kernels(pool, terms, group, leg++, legs->place);
    return code;
}

/* It is known now how many kernels a list that was planned meanwhile has taken. */
static void recount(struct nvlxi_lane_pool *pool, struct nvlxi_leg *leg) {
    const uint32_t issued = leg->issued + leg->behind;
    if (!leg->by_kernel || leg->queued <= issued)
        return;
    nvlxi_lanes_uncount(pool, leg->lane, leg->queued - issued);
    leg->queued = issued;
}

/* Where a lane cannot call, the request is looked at now and then (notice.h): it does not fail. */
static void queue_call(const struct nvlxi_lane_pool *pool, const struct nvlxi_leg *leg, const struct nvlxi_call *call) {
    if (call && pool->context->ops->lane_call(leg->lane->lane, call->function, call->argument))
        call->function(call->argument);
}

/* With a stream, the first lane beside it waits for the others, so that the stream gets one wait for all. */
int nvlxi_submit_end(struct nvlxi_lane_pool *pool, const struct nvlxi_legs *legs, const struct nvlxi_stream *stream,
                     const struct nvlxi_call *call) {
    const struct nvlxi_leg *first = first_beside(legs);
    int failure = 0;
    for (uint32_t i = legs->count; i-- > 0;) {
        struct nvlxi_leg *leg = &legs->leg[i];
        recount(pool, leg);
        int code = pool->context->ops->event_record(leg->lane->lane, leg->event->event);
        leg->unrecorded = code != 0;
        if (!code && stream && !is_in_stream(leg))
            code = leg == first ? pool->context->ops->stream_wait(pool->context->device, stream, leg->event->event)
                                : pool->context->ops->lane_wait(first->lane->lane, leg->event->event);
        queue_call(pool, leg, call);
        failure = failure ? failure : code;
    }
    return failure;
}

int nvlxi_submit_poll(struct nvlxi_lane_pool *pool, struct nvlxi_legs *legs) {
    while (legs->done < legs->count) {
        const struct nvlxi_leg *leg = &legs->leg[legs->done];
        int code = leg->unrecorded ? pool->context->ops->lane_query(leg->lane->lane)
                                   : pool->context->ops->event_query(leg->event->event);
        if (code == NVLX_EAGAIN)
            return code;
        legs->done++;
        if (code)
            return code;
    }
    return 0;
}
