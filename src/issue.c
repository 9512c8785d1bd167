/* SPDX-License-Identifier: Apache-2.0 */
#include "issue.h"

#include <inttypes.h>
#include <stdlib.h>

#include "error.h"

#define ENGINE_LANES  4  /* over which a list for the copy engines is spread: they then fill the link from 1 MiB on, */
#define ENGINE_COPIES 8  /* if each has so many copies: with fewer, issuing to one more takes longer than it gains */
#define ENGINE_SLICE  64 /* copies that a lane gets at a time */

static uint32_t engine_lanes(const struct nvlxi_group *group) {
    const uint64_t count = group->lists[NVLXI_BY_ENGINES].count;
    return count ? (uint32_t)nvlxi_min(nvlxi_max(count / ENGINE_COPIES, 1), ENGINE_LANES) : 0;
}

static uint32_t kernel_lanes(const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_KERNEL].first ? 1 : 0;
}

void nvlxi_issue_return(struct nvlxi_pool *pool, struct nvlxi_legs *legs) {
    for (uint32_t i = 0; i < legs->count; i++)
        nvlxi_pool_return(pool, legs->leg[i].lane, legs->leg[i].event);
    if (legs->leg != &legs->one)
        free(legs->leg);
    legs->count = 0;
}

static int borrow_leg(struct nvlxi_pool *pool, const struct nvlxi_lane_key *key, struct nvlxi_legs *legs) {
    struct nvlxi_leg *leg = &legs->leg[legs->count];
    *leg = (struct nvlxi_leg){0};
    int code = nvlxi_pool_borrow(pool, key, &leg->lane, &leg->event);
    if (!code)
        legs->count++;
    return code;
}

int nvlxi_issue_borrow(struct nvlxi_pool *pool, const struct nvlxi_plan *plan, int priority, struct nvlxi_legs *legs) {
    const struct nvlxi_group *group;
    uint32_t needed = 0;
    int code = 0;
    for (group = plan->groups; group; group = group->following)
        needed += engine_lanes(group) + kernel_lanes(group);
    *legs = (struct nvlxi_legs){.leg = &legs->one};
    if (needed > 1 && !(legs->leg = calloc(needed, sizeof *legs->leg)))
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a transfer over %" PRIu32 " lanes", needed);
    for (group = plan->groups; group; group = group->following) {
        const struct nvlxi_lane_key key = {
            .gpu = group->gpu, .priority = priority, .device = group->device, .opcode = group->opcode};
        for (uint32_t lanes = engine_lanes(group) + kernel_lanes(group); lanes && !code; lanes--)
            code = borrow_leg(pool, &key, legs);
    }
    if (code)
        nvlxi_issue_return(pool, legs);
    return code;
}

int nvlxi_issue_follow(struct nvlxi_pool *pool, const struct nvlxi_legs *legs, void *stream) {
    struct nvlxi_pooled_event *event;
    struct nvlxi_stream found;
    int code = pool->ops->stream_find(pool->device, stream, &found);
    if (!code)
        code = nvlxi_pool_borrow_event(pool, found.gpu, &event);
    if (code)
        return code;
    code = pool->ops->stream_record(pool->device, &found, event->event);
    for (uint32_t i = 0; i < legs->count && !code; i++)
        code = pool->ops->lane_wait(legs->leg[i].lane->lane, event->event);
    nvlxi_pool_return_event(pool, event);
    return code;
}

static int copy_one(const struct nvlxi_pool *pool, struct nvlxi_lane *lane, const struct nvlxi_fragment *fragment,
                    int to, int from) {
    const struct nvlxi_copy copy = {.destination = fragment->destination,
                                    .source = fragment->source,
                                    .length = fragment->length,
                                    .destination_gpu = to,
                                    .source_gpu = from};
    return pool->ops->copy(lane, &copy);
}

static int issue_slice(const struct nvlxi_pool *pool, const struct nvlxi_group *group, struct nvlxi_lane *lane,
                       const struct nvlxi_fragment *list, uint64_t count) {
    const bool read = group->opcode == NVLX_OP_READ;
    const int to = read ? group->gpu : group->remote_gpu, from = read ? group->remote_gpu : group->gpu;
    return count == 1 ? copy_one(pool, lane, list, to, from) : pool->ops->copy_list(lane, list, count, to, from);
}

/* Gives the lanes slices in turn, so that all are busy from the start. */
static int issue_engines(const struct nvlxi_pool *pool, const struct nvlxi_group *group, const struct nvlxi_leg *legs) {
    const uint64_t lanes = engine_lanes(group);
    if (!lanes)
        return 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_ENGINES].first; chunk; chunk = chunk->next) {
        const uint64_t slice = nvlxi_min((chunk->count + lanes - 1) / lanes, ENGINE_SLICE);
        uint64_t lane = 0;
        for (uint64_t first = 0; first < chunk->count; first += slice, lane = (lane + 1) % lanes) {
            int code = issue_slice(pool, group, legs[lane].lane->lane, chunk->fragment + first,
                                   nvlxi_min(slice, chunk->count - first));
            if (code)
                return code;
        }
    }
    return 0;
}

/* The next part of a list from `place` on, which moves behind it; false at the end. */
static bool take_part(struct nvlxi_place *place, struct nvlxi_part *part) {
    while (place->chunk && place->fragment == place->chunk->count && place->chunk->next)
        *place = (struct nvlxi_place){place->chunk->next, 0};
    if (!place->chunk || place->fragment == place->chunk->count)
        return false;
    *part = (struct nvlxi_part){place->chunk->fragment + place->fragment, place->chunk->count - place->fragment};
    place->fragment = place->chunk->count;
    return true;
}

/* The length of what is on the kernel's list by now, on average. */
static uint64_t average_length(const struct nvlxi_group *group) {
    uint64_t count = 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_KERNEL].first; chunk; chunk = chunk->next)
        count += chunk->count;
    return count ? (group->bytes - group->lists[NVLXI_BY_ENGINES].bytes) / count : 0;
}

/* Issues the kernel's list from `place` on. Gives one kernel as many chunks as it takes. Where the caller sets no
 * budget of SMs, the next one may begin while it ends. */
static int issue_kernels(const struct nvlxi_pool *pool, const struct nvlxi_group *group, struct nvlxi_leg *leg,
                         uint32_t max_sms, struct nvlxi_place *place) {
    struct nvlxi_part parts[NVLXI_PARTS_MAX];
    struct nvlxi_kernel kernel = {
        .parts = parts, .sms = max_sms ? max_sms : group->sms, .average = average_length(group)};
    for (;;) {
        kernel.part_count = 0;
        while (kernel.part_count < NVLXI_PARTS_MAX && take_part(place, &parts[kernel.part_count]))
            kernel.part_count++;
        if (!kernel.part_count)
            return 0;
        kernel.overlaps = leg->kernels && !max_sms;
        int code = pool->ops->copy_kernel(leg->lane->lane, &kernel);
        if (code)
            return code;
        leg->kernels = true;
    }
}

int nvlxi_issue_copies(struct nvlxi_pool *pool, const struct nvlxi_plan *plan, struct nvlxi_legs *legs,
                       uint32_t max_sms) {
    struct nvlxi_leg *leg = legs->leg;
    int code = 0;
    for (const struct nvlxi_group *group = plan->groups; group && !code; group = group->following) {
        code = issue_engines(pool, group, leg);
        leg += engine_lanes(group);
        legs->place = (struct nvlxi_place){group->lists[NVLXI_BY_KERNEL].first, 0};
        if (!code)
            code = issue_kernels(pool, group, leg, max_sms, &legs->place);
        leg += kernel_lanes(group);
    }
    return code;
}

int nvlxi_issue_more(struct nvlxi_pool *pool, const struct nvlxi_plan *plan, struct nvlxi_legs *legs,
                     uint32_t max_sms) {
    return issue_kernels(pool, plan->groups, legs->leg, max_sms, &legs->place);
}

int nvlxi_issue_end(struct nvlxi_pool *pool, const struct nvlxi_legs *legs, void *stream) {
    struct nvlxi_stream found;
    int failure = stream ? pool->ops->stream_find(pool->device, stream, &found) : 0;
    const bool follow = stream && !failure;
    for (uint32_t i = 0; i < legs->count; i++) {
        int code = pool->ops->event_record(legs->leg[i].lane->lane, legs->leg[i].event->event);
        legs->leg[i].unrecorded = code != 0;
        if (!code && follow)
            code = pool->ops->stream_wait(pool->device, &found, legs->leg[i].event->event);
        failure = failure ? failure : code;
    }
    return failure;
}

int nvlxi_issue_poll(struct nvlxi_pool *pool, struct nvlxi_legs *legs) {
    while (legs->done < legs->count) {
        const struct nvlxi_leg *leg = &legs->leg[legs->done];
        int code = leg->unrecorded ? pool->ops->lane_query(leg->lane->lane) : pool->ops->event_query(leg->event->event);
        if (code == NVLX_EAGAIN)
            return code;
        legs->done++;
        if (code)
            return code;
    }
    return 0;
}
