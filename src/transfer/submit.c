/* Borrows lanes for a plan, and issues its copies on them. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/submit.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/error.h"
#include "transfer/rows/submit.h"

#define ENGINE_LANES  4  /* over which a list for the copy engines is spread: they then fill the link from 1 MiB on, */
#define ENGINE_COPIES 8  /* if each has so many copies: with fewer, issuing to one more takes longer than it gains */
#define ENGINE_SLICE  64 /* copies that a lane gets at a time */
#define PORTIONS_MAX  16 /* launches of a list that is planned meanwhile, beside those that its length takes */

/* Whether a group goes into the caller's stream itself: see lanes.h. */
static bool goes_into_stream(const struct nvlxi_terms *terms, const struct nvlxi_group *group) {
    return terms->stream && terms->stream->gpu == group->gpu;
}

/* Copies of rows by engines: each takes the room of two fragments. */
static uint64_t engine_rows(const struct nvlxi_group *group) {
    return group->lists[NVLXI_ROWS_BY_ENGINES].count / 2;
}

static uint32_t engine_lanes(const struct nvlxi_terms *terms, const struct nvlxi_group *group) {
    const uint64_t count = group->lists[NVLXI_BY_ENGINES].count + engine_rows(group),
                   most = goes_into_stream(terms, group) ? 1 : ENGINE_LANES;
    return count ? (uint32_t)nvlxi_min(nvlxi_max(count / ENGINE_COPIES, 1), most) : 0;
}

static uint32_t kernel_lanes(const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_KERNEL].first || group->lists[NVLXI_ROWS_BY_KERNEL].first ? 1 : 0;
}

/* Copies that the fullest of its lanes gets. Slices are dealt out within each chunk, so a little more than its share.
 */
static uint64_t engine_copies(const struct nvlxi_terms *terms, const struct nvlxi_group *group) {
    const uint64_t lanes = engine_lanes(terms, group), rows = engine_rows(group);
    uint64_t copies = lanes ? nvlxi_rows_share(rows, lanes) : 0;
    if (group->lists[NVLXI_BY_ENGINES].count + rows <= ENGINE_COPIES)
        return group->lists[NVLXI_BY_ENGINES].count + rows;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_ENGINES].first; chunk; chunk = chunk->next) {
        const uint64_t slice = nvlxi_min(nvlxi_ceil_div(chunk->count, lanes), ENGINE_SLICE);
        copies += nvlxi_min(nvlxi_ceil_div(nvlxi_ceil_div(chunk->count, slice), lanes) * slice, chunk->count);
    }
    return copies;
}

/* Places in a queue that marks take, and copies in slabs. */
static uint64_t mark_places(const struct nvlxi_terms *terms, const struct nvlxi_group *group) {
    return terms->marks ? 2 * (group->lists[NVLXI_BY_ENGINES].bytes / terms->marks->slab + 1) : 0;
}

/* The length of what is on the kernel's list by now, on average. */
static uint64_t average_length(const struct nvlxi_group *group) {
    uint64_t count = 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_KERNEL].first; chunk; chunk = chunk->next)
        count += chunk->count;
    return count ? (group->bytes - group->lists[NVLXI_BY_ENGINES].bytes) / count : 0;
}

/* Fragments of a kernel, so that a mark comes behind about a slab; 0: there are no marks. */
static uint32_t marked_kernel(const struct nvlxi_terms *terms, const struct nvlxi_group *group) {
    const uint64_t slab = terms->marks ? terms->marks->slab / nvlxi_max(average_length(group), 1) : 0;
    return terms->marks ? (uint32_t)nvlxi_max(nvlxi_min(slab, UINT32_MAX), 1) : 0;
}

struct room { /* in chunks for a kernel's list, those included that a plan has in reserve */
    uint64_t chunks, fragments;
};

static struct room room_of(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    const struct nvlxi_chunk *const lists[] = {group->lists[NVLXI_BY_KERNEL].first, plan->spare};
    struct room room = {0};
    for (size_t i = 0; i < NVLXI_COUNT(lists); i++)
        for (const struct nvlxi_chunk *chunk = lists[i]; chunk; chunk = chunk->next) {
            room.chunks++;
            room.fragments += chunk->capacity;
        }
    return room;
}

/* Places in a queue that its kernels take, at most, and the marks behind them: each is of so many fragments. */
static uint64_t kernels(const struct nvlxi_plan *plan, const struct nvlxi_group *group, uint32_t marked) {
    const struct room room = room_of(plan, group);
    const uint64_t count =
        nvlxi_ceil_div(room.chunks, NVLXI_PARTS_MAX) + nvlxi_rows_kernels(group) + (plan->sealed ? 0 : PORTIONS_MAX);
    return marked ? 2 * (count + nvlxi_ceil_div(room.fragments, marked)) : count;
}

static uint64_t queued_on(const struct nvlxi_terms *terms, int gpu) {
    uint64_t queued = 0;
    for (const struct nvlxi_group *group = terms->plan->groups; group; group = group->following)
        if (group->gpu == gpu)
            queued += (engine_copies(terms, group) + terms->calls) * engine_lanes(terms, group) +
                      (kernel_lanes(group) ? kernels(terms->plan, group, 0) + terms->calls : 0);
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
        lanes += engine_lanes(&free_terms, group) + kernel_lanes(group);
    return lanes > 1;
}

/* Kernels copy byte by byte where both sides are not aligned alike: what is longer stays with the engines. */
static bool suits_kernels(const struct nvlxi_group *group) {
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_ENGINES].first; chunk; chunk = chunk->next)
        for (uint32_t i = 0; i < chunk->count; i++)
            if ((chunk->fragment[i].destination ^ chunk->fragment[i].source) % NVLXI_ALIGNMENT &&
                chunk->fragment[i].length > NVLXI_UNALIGNED_MAX)
                return false;
    return nvlxi_rows_suit_kernels(group);
}

bool nvlxi_submit_can_kernels(const struct nvlxi_plan *plan) {
    bool can = plan->mechanism == NVLX_MECHANISM_AUTO;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        can = can && group->kernels;
    return can;
}

bool nvlxi_submit_suits_kernels(const struct nvlxi_plan *plan) {
    bool suits = nvlxi_submit_can_kernels(plan);
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        suits = suits && suits_kernels(group);
    return suits;
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
        count += other->gpu == group->gpu && kernel_lanes(other);
    }
    share.slots = (uint32_t)nvlxi_max(nvlxi_min(count, budget), 1);
    share.sms = budget / share.slots + (share.number % share.slots < budget % share.slots);
    return share;
}

static uint32_t sms_on(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan, int gpu) {
    uint32_t sms = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        sms += group->gpu == gpu && kernel_lanes(group) ? group->sms : 0;
    return budget_of(pool, gpu, sms);
}

/* At most, at the same time on one GPU. */
static uint32_t sms_of(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan, uint32_t max_sms) {
    uint32_t most = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        if (kernel_lanes(group))
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

void nvlxi_submit_return(struct nvlxi_lane_pool *pool, struct nvlxi_legs *legs) {
    for (uint32_t i = 0; i < legs->count; i++)
        nvlxi_lanes_return(pool, legs->leg[i].lane, legs->leg[i].queued, legs->leg[i].event);
    if (legs->leg != &legs->one)
        free(legs->leg);
    legs->count = 0;
}

static int borrow_leg(struct nvlxi_lane_pool *pool, const struct nvlxi_lane_key *key, uint64_t queued,
                      struct nvlxi_legs *legs) {
    struct nvlxi_leg *leg = &legs->leg[legs->count];
    *leg = (struct nvlxi_leg){.queued = (uint32_t)nvlxi_min(queued, UINT32_MAX / 2)};
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
    const uint64_t queued = kernels(terms->plan, group, marked) + terms->calls;
    if (share.number >= share.slots)
        before = leg_before(legs, group->gpu, share.number - share.slots);
    int code;
    if (before) {
        *leg = (struct nvlxi_leg){.lane = before->lane, .queued = (uint32_t)queued};
        code = nvlxi_lanes_borrow_again(pool, leg->lane, leg->queued, &leg->event);
        legs->count += code == 0;
    } else {
        code = borrow_leg(pool, key, queued, legs);
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
    return (struct nvlxi_lane_key){.gpu = group->gpu,
                                   .priority = priority_on(pool, group->gpu, terms->priority),
                                   .ordered = terms->stream != NULL,
                                   .stream = terms->stream ? *terms->stream : (struct nvlxi_stream){0},
                                   .device = group->device,
                                   .opcode = group->opcode};
}

int nvlxi_submit_borrow(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs) {
    const struct nvlxi_group *group;
    uint32_t needed = 0;
    int code = 0;
    for (group = terms->plan->groups; group; group = group->following)
        needed += engine_lanes(terms, group) + kernel_lanes(group);
    *legs = (struct nvlxi_legs){.leg = &legs->one};
    if (needed > 1 && !(legs->leg = calloc(needed, sizeof *legs->leg)))
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a transfer over %" PRIu32 " lanes", needed);
    for (group = terms->plan->groups; group && !code; group = group->following) {
        const struct nvlxi_lane_key key = key_of(pool, terms, group);
        for (uint32_t lanes = engine_lanes(terms, group); lanes && !code; lanes--)
            code = borrow_leg(pool, &key, engine_copies(terms, group) + mark_places(terms, group) + terms->calls, legs);
        if (kernel_lanes(group) && !code)
            code = borrow_kernel_leg(pool, terms, group, &key, legs);
        legs->busy_gpu = group->gpu;
    }
    if (code)
        nvlxi_submit_return(pool, legs);
    return code;
}

static bool is_in_stream(const struct nvlxi_leg *leg) {
    return nvlxi_lane_kind(&leg->lane->key) == NVLXI_CALLERS;
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
    const bool read = group->opcode == NVLX_OP_READ;
    const int to = read ? group->gpu : group->remote_gpu, from = read ? group->remote_gpu : group->gpu;
    return count == 1 ? copy_one(pool, lane, list, to, from)
                      : pool->context->ops->copy_list(lane, list, count, to, from);
}

/* Gives the lanes slices in turn, so that all are busy from the start. */
static int submit_engines(const struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                          const struct nvlxi_group *group, const struct nvlxi_leg *legs) {
    const uint64_t lanes = engine_lanes(terms, group);
    if (!lanes)
        return 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_ENGINES].first; chunk; chunk = chunk->next) {
        const uint64_t slice = nvlxi_min(nvlxi_ceil_div(chunk->count, lanes), ENGINE_SLICE);
        uint64_t lane = 0;
        for (uint64_t first = 0; first < chunk->count; first += slice, lane = (lane + 1) % lanes) {
            int code = submit_slice(pool, group, legs[lane].lane->lane, chunk->fragment + first,
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

static int submit_engines_marked(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks,
                                 const struct nvlxi_group *group, const struct nvlxi_leg *legs, uint64_t lanes) {
    struct nvlxi_marked_lane to[ENGINE_LANES] = {0};
    int code = 0;
    for (uint64_t i = 0; i < lanes; i++)
        to[i].lane = legs[i].lane;
    for (const struct nvlxi_chunk *chunk = lanes ? group->lists[NVLXI_BY_ENGINES].first : NULL; chunk;
         chunk = chunk->next) {
        const uint64_t slice = nvlxi_min(nvlxi_ceil_div(chunk->count, lanes), ENGINE_SLICE);
        uint64_t lane = 0;
        for (uint64_t first = 0, count; first < chunk->count && !code; first += count, lane = (lane + 1) % lanes) {
            const struct nvlxi_fragment *list = chunk->fragment + first;
            count = marked_slice(list, nvlxi_min(slice, chunk->count - first), marks->slab);
            code = submit_marked(pool, marks, group, &to[lane], list, count);
        }
    }
    return code;
}

/* ---- Kernels ------------------------------------------------------------------------------------------ */

bool nvlxi_submit_take_part(struct nvlxi_place *place, uint64_t most, struct nvlxi_part *part) {
    while (place->chunk && place->fragment == place->chunk->count && place->chunk->next)
        *place = (struct nvlxi_place){place->chunk->next, 0};
    if (!place->chunk || place->fragment == place->chunk->count)
        return false;
    const uint32_t count = (uint32_t)nvlxi_min(place->chunk->count - place->fragment, most);
    *part = (struct nvlxi_part){place->chunk->fragment + place->fragment, count};
    place->fragment += count;
    return true;
}

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

/* Issues the kernel's list from `place` on. Gives one kernel as many chunks as it takes, or a slab. Where the caller
 * sets no budget of SMs (0), and no mark comes between, the next one may begin while it ends. */
static int submit_kernels(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms,
                          const struct nvlxi_group *group, struct nvlxi_leg *leg, struct nvlxi_place *place) {
    struct nvlxi_part parts[NVLXI_PARTS_MAX];
    const uint32_t sms = share_of(pool, terms, group).sms;
    struct nvlxi_kernel kernel = {.parts = parts, .sms = sms ? sms : group->sms, .average = average_length(group)};
    for (;;) {
        uint64_t room = leg->marked ? leg->marked : UINT64_MAX;
        for (kernel.part_count = 0; kernel.part_count < NVLXI_PARTS_MAX && room; kernel.part_count++) {
            if (!nvlxi_submit_take_part(place, room, &parts[kernel.part_count]))
                break;
            room -= parts[kernel.part_count].count;
        }
        if (!kernel.part_count)
            return 0;
        kernel.overlaps = leg->issued > 0 && !sms && !terms->marks;
        int code = pool->context->ops->copy_kernel(leg->lane->lane, &kernel);
        leg->issued += code == 0;
        if (!code && terms->marks)
            code = mark_kernel(pool, terms->marks, leg, &kernel);
        if (code)
            return code;
    }
}

int nvlxi_submit_copies(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs) {
    struct nvlxi_leg *leg = legs->leg;
    int code = 0;
    for (const struct nvlxi_group *group = terms->plan->groups; group && !code; group = group->following) {
        const uint32_t engines = engine_lanes(terms, group);
        code = terms->marks ? submit_engines_marked(pool, terms->marks, group, leg, engines)
                            : submit_engines(pool, terms, group, leg);
        if (!code)
            code = nvlxi_rows_submit_engines(pool, group, leg, engines);
        leg += engines;
        legs->place = (struct nvlxi_place){group->lists[NVLXI_BY_KERNEL].first, 0};
        if (!code && kernel_lanes(group))
            code = submit_kernels(pool, terms, group, leg, &legs->place);
        if (!code && kernel_lanes(group))
            code = nvlxi_rows_submit_kernels(pool, group, leg, share_of(pool, terms, group).sms);
        leg += kernel_lanes(group);
    }
    return code;
}

int nvlxi_submit_more(struct nvlxi_lane_pool *pool, const struct nvlxi_terms *terms, struct nvlxi_legs *legs) {
    return submit_kernels(pool, terms, terms->plan->groups, legs->leg, &legs->place);
}

/* It is known now how many kernels a list that was planned meanwhile has taken. */
static void recount(struct nvlxi_lane_pool *pool, struct nvlxi_leg *leg, bool calls) {
    const uint32_t issued = leg->issued + calls;
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
        recount(pool, leg, call != NULL);
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
