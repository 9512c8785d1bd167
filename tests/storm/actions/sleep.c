/* Regions of a process of a storm that sleep, with their names and places, and wake with other content, and often with
 * other memory. SPDX-License-Identifier: Apache-2.0
 *
 * SUSPENDED: nvlx_suspend has not given 0 yet; the content stays. ASLEEP: it has, and what nobody may find is there. */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "storm/worker.h"

static bool sleeps(const struct region *region) {
    return region->state == REGION_SUSPENDED || region->state == REGION_ASLEEP;
}

/* ---- Falling asleep ------------------------------------------------------------------------------------ */

static void note_suspended(struct worker *w, struct segment *segment, struct region *region) {
    struct record *record = record_of(w, region);
    region->asked_at = now_ns();
    region->state = REGION_SUSPENDED;
    if (record) {
        atomic_store(&record->suspended, region->asked_at);
        atomic_store(&record->withdrawn, region->asked_at);
    }
    if (is_inbox(segment))
        inbox_close(w, segment);
}

static void note_asleep(struct worker *w, const struct segment *segment, struct region *region) {
    struct record *record = record_of(w, region);
    if (region->state != REGION_SUSPENDED)
        return;
    if (record)
        atomic_store(&record->released, now_ns());
    region->state = REGION_ASLEEP;
    fill_own(w, segment, region->offset, region->length, nothing(w), region->offset / WORD);
    board_count(w->place, COUNT_sleepers, 1);
}

/* Most of a segment, or all. What is shared of it goes on. Returns whether it is asleep. */
static bool suspend(struct worker *w, struct segment *segment) {
    struct nvlx_region *handles[REGIONS_PER_GROUP];
    struct region *chosen[REGIONS_PER_GROUP];
    const int64_t timeout = draw_timeout(w);
    const bool all = chance(w, 60);
    unsigned count = 0;
    for (unsigned i = 0; i < segment->count; i++) {
        struct region *region = &segment->regions[i];
        if (!(sleeps(region) || (region->state == REGION_SHARED && (all || chance(w, 60)))))
            continue;
        if (region->state == REGION_SHARED)
            note_suspended(w, segment, region);
        chosen[count] = region;
        handles[count++] = region->handle;
    }
    if (!count)
        return false;
    const uint64_t since = now_ns();
    struct nvlx_peer *observer = begin_observing(w);
    const int code = nvlx_suspend(handles, count, timeout);
    board_count(w->place, COUNT_suspends, 1);
    for (unsigned i = 0; i < count && code == 0; i++)
        note_asleep(w, segment, chosen[i]);
    if (code && (code != NVLX_ETIMEDOUT || timeout == FOR_EVER || now_ns() - since > (uint64_t)HANG_NS))
        wrong_code(w, "nvlx_suspend", code);
    end_observing(w, observer, "nvlx_suspend");
    return code == 0;
}

/* ---- Other memory -------------------------------------------------------------------------------------- */

static bool can_change(const struct segment *segment) {
    for (unsigned i = 0; i < segment->count; i++)
        if (segment->regions[i].state == REGION_SHARED || segment->regions[i].state == REGION_WITHDRAWN ||
            segment->regions[i].state == REGION_SUSPENDED)
            return false;
    return true;
}

/* All that is left of a segment for which there is no memory. */
static void drop_sleepers(struct worker *w, struct segment *segment) {
    for (unsigned i = 0; i < segment->count; i++) {
        struct region *region = &segment->regions[i];
        if (region->state != REGION_ASLEEP)
            continue;
        note_withdrawn(w, segment, i);
        const int code = nvlx_unregister(region->handle, FOR_EVER);
        if (code)
            wrong_code(w, "nvlx_unregister of what sleeps", code);
        note_released(w, segment, region);
    }
    free(segment->expected);
    segment->current = false;
}

/* The memory is freed, and other memory taken: of the same length and kind, and most often at the same place. Returns
 * whether there is any. */
static bool change_memory(struct worker *w, struct segment *segment) {
    free_segment(w, segment);
    if (chance(w, 25))
        segment->gpu = w->board->gpus[draw(w, 2)];
    if (!allocate_segment(w, segment)) {
        drop_sleepers(w, segment);
        return false;
    }
    board_count(w->place, COUNT_renewals, 1);
    return true;
}

/* Regions of a segment lie where others lay, which peers know well: their order is turned round. One in the middle may
 * lie where it did. Returns whether they do. */
static bool exchange_places(struct worker *w, struct segment *segment) {
    const bool turned = segment->regions[0].offset != segment->start;
    size_t at = segment->start;
    if (is_inbox(segment) || segment->count < 2)
        return false;
    for (unsigned i = 0; i < segment->count; i++) {
        struct region *region = &segment->regions[turned ? i : segment->count - 1 - i];
        region->offset = at;
        at += region->length;
    }
    board_count(w->place, COUNT_exchanges, 1);
    return true;
}

/* ---- Waking -------------------------------------------------------------------------------------------- */

/* Whether it shall be at another address than it was. */
static bool moves(const struct segment *segment, const struct region *region) {
    return region->address != (uintptr_t)segment->base + region->offset;
}

/* The content that it wakes with: what sleeps well has none. Where it was it keeps its age. */
static void prepare_content(struct worker *w, const struct segment *segment, struct region *region) {
    const bool moved = moves(segment, region);
    struct record *old = record_of(w, region), *record;
    const uint64_t before = region->stamp;
    if (region->state == REGION_SUSPENDED) {
        if (old)
            atomic_store(&old->generation, 0);
        return;
    }
    if (old && moved)
        atomic_store(&old->gone, now_ns());
    if (moved) {
        region->registered = now_ns();
        region->born = w->told;
        board_count(w->place, COUNT_moves, 1);
    }
    enter_content(w, segment, region);
    fill_own(w, segment, region->offset, region->length, region->stamp, 0);
    record = record_of(w, region);
    atomic_store(&record->digest, DIGEST_NONE);
    if ((old = board_record(w->board, before)))
        atomic_store(&old->next, region->stamp);
}

static void note_awake(struct worker *w, const struct segment *segment, struct region *region) {
    struct record *record = record_of(w, region);
    if (region->state == REGION_SUSPENDED && record)
        atomic_store(&record->withdrawn, 0);
    region->state = REGION_SHARED;
    atomic_store(&w->place->current[name_of(segment, (unsigned)(region - segment->regions))], region->stamp);
}

/* `moved`: some shall be at another address than they were. */
static void resume(struct worker *w, struct segment *segment, bool moved) {
    struct nvlx_region *handles[REGIONS_PER_GROUP];
    struct region *chosen[REGIONS_PER_GROUP];
    void *addresses[REGIONS_PER_GROUP];
    const bool explicit = moved || chance(w, 30);
    unsigned count = 0;
    for (unsigned i = 0; i < segment->count; i++) {
        struct region *region = &segment->regions[i];
        if (!sleeps(region) || (!moved && chance(w, 20)))
            continue;
        prepare_content(w, segment, region);
        addresses[count] = explicit ? segment->base + region->offset : NULL;
        chosen[count] = region;
        handles[count++] = region->handle;
    }
    struct nvlx_peer *observer = begin_observing(w);
    const int code = nvlx_resume(handles, count, explicit ? addresses : NULL);
    if (code)
        wrong_code(w, "nvlx_resume", code);
    for (unsigned i = 0; i < count && code == 0; i++)
        note_awake(w, segment, chosen[i]);
    board_count(w->place, COUNT_resumes, count);
    tell(w, segment);
    end_observing(w, observer, "nvlx_resume");
}

/* An inbox, only when nobody can write what was there before. */
static void wake(struct worker *w, struct segment *segment) {
    bool asleep = false;
    for (unsigned i = 0; i < segment->count; i++)
        asleep = asleep || sleeps(&segment->regions[i]);
    if (!asleep || (is_inbox(segment) && (!can_change(segment) || !inbox_settled(w, segment))))
        return;
    const void *before = segment->base;
    const bool change = can_change(segment);
    if (change && chance(w, 40) && !change_memory(w, segment))
        return;
    const bool moved = change && chance(w, 25) && exchange_places(w, segment);
    resume(w, segment, moved || segment->base != before);
}

void act_resume(struct worker *w) {
    struct segment *segment = draw_current(w);
    if (segment)
        wake(w, segment);
}

/* Many sleep for a moment only. */
void act_suspend(struct worker *w) {
    struct segment *segment = draw_current(w);
    if (!segment || !suspend(w, segment) || chance(w, 40))
        return;
    usleep((useconds_t)draw(w, 1000));
    wake(w, segment);
}
