/* Which groups share lanes: see kernels.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/plan/kernels.h"

#include "transfer/rows/submit.h"

static bool share_lanes(const struct nvlxi_group *a, const struct nvlxi_group *b) {
    return a->gpu == b->gpu && a->remote_gpu == b->remote_gpu && a->opcode == b->opcode && a->hosts == b->hosts &&
           (a->device == a->gpu) == (b->device == b->gpu);
}

const struct nvlxi_group *nvlxi_kernels_of(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    const struct nvlxi_group *first = plan->groups;
    if (!nvlxi_kernels_carry(plan, group))
        return NULL;
    while (first != group && !(share_lanes(first, group) && nvlxi_kernels_carry(plan, first)))
        first = first->following;
    return first;
}

static bool engines_carry(const struct nvlxi_group *group) {
    return group->lists[NVLXI_BY_ENGINES].count || group->lists[NVLXI_ROWS_BY_ENGINES].count;
}

const struct nvlxi_group *nvlxi_engines_of(const struct nvlxi_plan *plan, const struct nvlxi_group *group) {
    const struct nvlxi_group *first = plan->groups;
    if (!engines_carry(group))
        return NULL;
    while (first != group && !(share_lanes(first, group) && engines_carry(first)))
        first = first->following;
    return first;
}

static void add_room(struct nvlxi_kernel_room *room, const struct nvlxi_chunk *chunk) {
    for (; chunk; chunk = chunk->next) {
        room->chunks++;
        room->fragments += chunk->capacity;
    }
}

struct nvlxi_kernel_room nvlxi_kernels_room(const struct nvlxi_plan *plan, const struct nvlxi_group *first) {
    struct nvlxi_kernel_room room = {0};
    for (const struct nvlxi_group *group = first; group; group = group->following)
        if (nvlxi_kernels_of(plan, group) == first)
            add_room(&room, group->lists[NVLXI_BY_KERNEL].first);
    add_room(&room, plan->spare);
    return room;
}

uint64_t nvlxi_kernels_average(const struct nvlxi_plan *plan, const struct nvlxi_group *first) {
    uint64_t count = 0, bytes = 0;
    for (const struct nvlxi_group *group = first; group; group = group->following) {
        if (nvlxi_kernels_of(plan, group) != first)
            continue;
        for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_KERNEL].first; chunk; chunk = chunk->next)
            count += chunk->count;
        bytes += group->bytes - group->lists[NVLXI_BY_ENGINES].bytes;
    }
    return count ? bytes / count : 0;
}

bool nvlxi_kernels_take_part(struct nvlxi_place *place, uint64_t most, struct nvlxi_part *part) {
    while (place->chunk && place->fragment == place->chunk->count && place->chunk->next)
        *place = (struct nvlxi_place){place->chunk->next, 0};
    if (!place->chunk || place->fragment == place->chunk->count)
        return false;
    const uint32_t count = (uint32_t)nvlxi_min(place->chunk->count - place->fragment, most);
    *part = (struct nvlxi_part){place->chunk->fragment + place->fragment, count};
    place->fragment += count;
    return true;
}

uint32_t nvlxi_kernels_take(const struct nvlxi_plan *plan, const struct nvlxi_group *first, struct nvlxi_place *place,
                            uint64_t most, struct nvlxi_part *parts) {
    uint32_t count = 0, before;
    do {
        struct nvlxi_place *at = place;
        before = count;
        for (const struct nvlxi_group *group = plan->groups; group; group = group->following, at++) {
            if (nvlxi_kernels_of(plan, group) != first || count == NVLXI_PARTS_MAX || !most)
                continue;
            if (!at->chunk)
                at->chunk = group->lists[NVLXI_BY_KERNEL].first;
            if (nvlxi_kernels_take_part(at, most, &parts[count]))
                most -= parts[count++].count;
        }
    } while (count > before);
    return count;
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

bool nvlxi_kernels_can(const struct nvlxi_plan *plan) {
    bool can = plan->mechanism == NVLX_MECHANISM_AUTO;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        can = can && group->kernels;
    return can;
}

bool nvlxi_kernels_suit(const struct nvlxi_plan *plan) {
    bool suits = nvlxi_kernels_can(plan);
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        suits = suits && suits_kernels(group);
    return suits;
}
