/* What a process of a storm registers, withdraws, frees, and takes again. SPDX-License-Identifier: Apache-2.0
 *
 * What is registered is not changed until nvlx_unregister has given 0. Then it is filled with words that nobody may
 * find: neither a peer that reads, nor this process, which looks whether a peer has written, before it is freed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "storm/worker.h"

uint64_t nothing(const struct worker *w) {
    return make_stamp(w->number, w->incarnation, 0);
}

unsigned name_of(const struct segment *segment, unsigned index) {
    return segment->group < GROUPS ? segment->group * REGIONS_PER_GROUP + index : REGIONS + segment->group - GROUPS;
}

bool is_inbox(const struct segment *segment) {
    return segment->group >= GROUPS;
}

struct segment *find_current(struct worker *w, unsigned group) {
    for (unsigned i = 0; i < SEGMENTS; i++)
        if (w->segments[i].base && w->segments[i].current && w->segments[i].group == group)
            return &w->segments[i];
    return NULL;
}

struct segment *draw_current(struct worker *w) {
    return find_current(w, (unsigned)draw(w, GROUPS + INBOXES));
}

/* ---- Registering --------------------------------------------------------------------------------------- */

struct record *record_of(struct worker *w, const struct region *region) {
    return board_record(w->board, region->stamp);
}

void enter_content(struct worker *w, const struct segment *segment, struct region *region) {
    region->address = (uintptr_t)segment->base + region->offset;
    const struct entry entry = {region->address, region->length, region->born, region->registered, segment->digest};
    region->stamp = new_stamp(w);
    board_enter(w->board, region->stamp, &entry);
}

static void refuse_share(struct worker *w, const struct segment *segment, struct region *region, int code) {
    wrong_code(w, "nvlx_register", code);
    region->state = REGION_NONE;
    fill_own(w, segment, region->offset, region->length, nothing(w), region->offset / WORD);
}

/* The digest is right, or of other bytes, which nobody sees: changes are held back meanwhile. */
static void tell_digest(struct worker *w, const struct segment *segment, const struct region *region) {
    const int code = nvlx_region_set_digest(region->handle, NULL);
    if (code)
        wrong_code(w, "nvlx_region_set_digest", code);
    if (segment->digest == DIGEST_WRONG)
        fill_own(w, segment, region->offset, region->length, region->stamp, 0);
    board_count(w->place, COUNT_digests, 1);
}

/* Its generation is told by `tell`. */
static void share(struct worker *w, struct segment *segment, unsigned index) {
    struct region *region = &segment->regions[index];
    struct nvlx_region_options options;
    char name[16];
    nvlx_region_options_init(&options);
    region_name(name_of(segment, index), name);
    options.name = name;
    options.access = is_inbox(segment) ? NVLX_ACCESS_WRITE : NVLX_ACCESS_READ;
    region->born = w->told;
    region->registered = now_ns();
    enter_content(w, segment, region);
    if (segment->digest != DIGEST_WRONG)
        fill_own(w, segment, region->offset, region->length, region->stamp, 0);
    const int code =
        nvlx_register(w->engine, segment->base + region->offset, region->length, &options, &region->handle);
    if (code) {
        refuse_share(w, segment, region, code);
        return;
    }
    if (segment->digest)
        tell_digest(w, segment, region);
    region->state = REGION_SHARED;
    region->asked_at = 0;
    atomic_store(&w->place->current[name_of(segment, index)], region->stamp);
    board_count(w->place, COUNT_registers, 1);
}

static void hold(struct worker *w) {
    const int code = nvlx_hold(w->engine);
    if (code)
        wrong_code(w, "nvlx_hold", code);
    w->held = true;
}

void publish(struct worker *w) {
    const int code = nvlx_publish(w->engine, &w->told);
    if (code)
        wrong_code(w, "nvlx_publish", code);
    w->held = false;
    atomic_store(&w->place->published, (uint64_t)(w->incarnation & 0xffff) << 48 | w->told);
}

void tell(struct worker *w, struct segment *segment) {
    publish(w);
    for (unsigned i = 0; i < segment->count; i++) {
        struct record *record = record_of(w, &segment->regions[i]);
        if (segment->regions[i].state == REGION_SHARED && record && !atomic_load(&record->generation))
            atomic_store(&record->generation, w->told);
    }
    if (is_inbox(segment))
        inbox_open(w, segment);
}

/* ---- Segments ------------------------------------------------------------------------------------------ */

/* Small ones are most. */
static size_t draw_length(struct worker *w) {
    const size_t most = w->sizes.tensor_units >> draw(w, 5);
    return w->sizes.tensor_unit * (1 + draw(w, most ? most : 1));
}

/* As a caching allocator does: tensors back to back, somewhere in a segment that is larger. Those of chunks lie over
 * the border of two. */
static void carve(struct worker *w, struct segment *segment) {
    size_t at = 0;
    segment->count = is_inbox(segment) ? 1 : 1 + (unsigned)draw(w, REGIONS_PER_GROUP);
    for (unsigned i = 0; i < segment->count; i++) {
        const size_t length = is_inbox(segment) ? w->sizes.inbox : draw_length(w);
        segment->regions[i] = (struct region){.state = REGION_NONE, .offset = at, .length = length};
        at += length;
    }
    segment->start = 512 * draw(w, 8);
    if (segment->kind == NVLX_ALLOC_VMM && segment->regions[0].length / 2 < w->sizes.chunk)
        segment->start = w->sizes.chunk - segment->regions[0].length / 2 / 512 * 512;
    segment->end = segment->start + at;
    for (unsigned i = 0; i < segment->count; i++)
        segment->regions[i].offset += segment->start;
    segment->length = segment->end + 512 * draw(w, 3);
}

/* Returns whether there was room. */
bool allocate_segment(struct worker *w, struct segment *segment) {
    struct nvlx_alloc_options options;
    void *base;
    nvlx_alloc_options_init(&options);
    options.flags = segment->kind;
    options.chunk_length = segment->kind == NVLX_ALLOC_VMM ? w->sizes.chunk : 0;
    const int code =
        nvlx_alloc(segment->foreign ? w->stranger : w->engine, segment->gpu, segment->length, &options, &base);
    if (code) {
        if (code != NVLX_EDEVICE || !w->board->cuda) /* the GPU is full */
            wrong_code(w, "nvlx_alloc", code);
        return false;
    }
    segment->base = base;
    fill_own(w, segment, segment->start, segment->end - segment->start, nothing(w), segment->start / WORD);
    return true;
}

/* What of other engines is freed while peers have it open: CUDA does not define that for cudaMalloc memory. */
static void draw_manner(struct worker *w, struct segment *segment) {
    const uint64_t digest = draw(w, 100);
    segment->foreign = chance(w, 25) && (!w->board->cuda || segment->kind == NVLX_ALLOC_VMM);
    if (!is_inbox(segment))
        segment->digest = digest < 30 ? DIGEST_RIGHT : digest < 36 ? DIGEST_WRONG : DIGEST_NONE;
    segment->foreign = segment->foreign && !is_inbox(segment);
}

static struct segment *make_segment(struct worker *w, unsigned group) {
    static const uint32_t kinds[] = {0, 0, 0, 0, 0, 0, NVLX_ALLOC_VMM, NVLX_ALLOC_VMM, NVLX_ALLOC_VMM, NVLX_ALLOC_POOL};
    struct segment *made = NULL;
    for (unsigned i = 0; i < SEGMENTS && !made; i++)
        made = w->segments[i].base ? NULL : &w->segments[i];
    if (!made)
        return NULL;
    *made = (struct segment){.group = group, .kind = kinds[draw(w, COUNT(kinds))]};
    made->gpu = w->board->gpus[draw(w, 2)];
    draw_manner(w, made);
    carve(w, made);
    if (!allocate_segment(w, made))
        return NULL;
    made->expected = is_inbox(made) ? calloc(1, made->end - made->start) : NULL;
    made->current = true;
    return made;
}

static void hold_for_digest(struct worker *w, const struct segment *segment) {
    if (segment->digest == DIGEST_WRONG && !w->held)
        hold(w);
}

static void share_all(struct worker *w, struct segment *segment) {
    struct nvlx_peer *observer = begin_observing(w);
    hold_for_digest(w, segment);
    for (unsigned i = 0; i < segment->count; i++)
        share(w, segment, i);
    tell(w, segment);
    end_observing(w, observer, "nvlx_register");
}

void act_grow(struct worker *w) {
    const unsigned group = (unsigned)draw(w, GROUPS + INBOXES);
    struct segment *made = find_current(w, group) ? NULL : make_segment(w, group);
    if (made)
        share_all(w, made);
}

/* Other content at the same place, under the same name. */
void act_renew(struct worker *w) {
    struct segment *segment = draw_current(w);
    if (!segment || (is_inbox(segment) && !inbox_settled(w, segment)))
        return;
    for (unsigned i = 0; i < segment->count; i++) {
        if (segment->regions[i].state == REGION_RELEASED) {
            hold_for_digest(w, segment);
            share(w, segment, i);
            tell(w, segment);
            return;
        }
    }
}

/* ---- Withdrawing --------------------------------------------------------------------------------------- */

void note_withdrawn(struct worker *w, struct segment *segment, unsigned index) {
    struct region *region = &segment->regions[index];
    struct record *record = record_of(w, region);
    const uint64_t now = now_ns();
    if (record && !atomic_load(&record->withdrawn))
        atomic_store(&record->withdrawn, now);
    if (record)
        atomic_store(&record->gone, now);
    region->asked_at = now;
    atomic_store(&w->place->current[name_of(segment, index)], 0);
    if (is_inbox(segment))
        inbox_close(w, segment);
}

void note_released(struct worker *w, struct segment *segment, struct region *region) {
    struct record *record = record_of(w, region);
    const uint64_t now = now_ns(), took = now - region->asked_at;
    if (record && !atomic_load(&record->released))
        atomic_store(&record->released, now);
    region->state = REGION_RELEASED;
    region->handle = NULL;
    if (segment->base)
        fill_own(w, segment, region->offset, region->length, nothing(w), region->offset / WORD);
    board_count(w->place, COUNT_unregisters, 1);
    if (took > atomic_load(&w->place->slowest))
        atomic_store(&w->place->slowest, took);
}

/* Once more, if it was before. */
static void withdraw(struct worker *w, struct segment *segment, unsigned index, int64_t timeout) {
    struct region *region = &segment->regions[index];
    const bool asleep = region->state == REGION_ASLEEP;
    if (region->state == REGION_NONE || region->state == REGION_RELEASED)
        return;
    if (region->state != REGION_WITHDRAWN)
        note_withdrawn(w, segment, index);
    region->state = REGION_WITHDRAWN;
    const int code = nvlx_unregister(region->handle, timeout);
    if (code == 0) {
        note_released(w, segment, region);
        return;
    }
    board_count(w->place, COUNT_waits, 1);
    if (asleep)
        wrong_code(w, "nvlx_unregister of what sleeps", code);
    else if (code != NVLX_ETIMEDOUT || timeout == FOR_EVER || now_ns() - region->asked_at > (uint64_t)HANG_NS)
        wrong_code(w, "nvlx_unregister", code);
}

void act_withdraw(struct worker *w) {
    struct segment *segment = draw_current(w);
    if (segment)
        withdraw(w, segment, (unsigned)draw(w, segment->count), draw_timeout(w));
}

static void withdraw_all(struct worker *w, struct segment *segment, int64_t timeout) {
    struct nvlx_peer *observer = begin_observing(w);
    segment->current = false;
    for (unsigned i = 0; i < segment->count; i++)
        withdraw(w, segment, i, timeout);
    end_observing(w, observer, "nvlx_unregister");
}

void act_withdraw_all(struct worker *w) {
    struct segment *segment = draw_current(w);
    if (segment)
        withdraw_all(w, segment, draw_timeout(w));
}

/* ---- Freeing ------------------------------------------------------------------------------------------- */

static bool is_released(struct worker *w, const struct segment *segment) {
    for (unsigned i = 0; i < segment->count; i++)
        if (segment->regions[i].state != REGION_NONE && segment->regions[i].state != REGION_RELEASED)
            return false;
    return !is_inbox(segment) || inbox_settled(w, segment);
}

void give_memory_back(struct worker *w, struct segment *segment) {
    const int code = nvlx_free(segment->foreign ? w->stranger : w->engine, segment->base);
    if (code)
        wrong_code(w, "nvlx_free", code);
    segment->base = NULL;
}

void free_segment(struct worker *w, struct segment *segment) {
    check_own(w, segment, segment->start, segment->end - segment->start, nothing(w), segment->start / WORD,
              "released memory");
    if (!w->board->cuda && segment->kind != NVLX_ALLOC_POOL && chance(w, 25))
        check_unmapped(w, segment);
    give_memory_back(w, segment);
}

void take_again(struct worker *w, struct segment *segment, const void *before) {
    for (unsigned i = 0; i < segment->count; i++)
        segment->regions[i].state = REGION_NONE;
    segment->current = true;
    if (!allocate_segment(w, segment)) {
        free(segment->expected);
        return;
    }
    board_count(w->place, COUNT_same_places, segment->base == before);
    share_all(w, segment);
}

static void settle(struct worker *w, struct segment *segment, bool again, int64_t timeout) {
    for (unsigned i = 0; i < segment->count; i++)
        if (!segment->current || segment->regions[i].state == REGION_WITHDRAWN)
            withdraw(w, segment, i, timeout);
    if (segment->current || !is_released(w, segment))
        return;
    const void *before = segment->base;
    free_segment(w, segment);
    if (again && !find_current(w, segment->group))
        take_again(w, segment, before);
    else
        free(segment->expected);
}

void act_settle(struct worker *w) {
    const int64_t timeout = draw_timeout(w);
    const bool again = chance(w, 50);
    for (unsigned i = 0; i < SEGMENTS; i++)
        if (w->segments[i].base)
            settle(w, &w->segments[i], again, timeout);
}

void end_memory(struct worker *w) {
    for (uint64_t since = now_ns();;) {
        bool left = false;
        for (unsigned i = 0; i < SEGMENTS; i++) {
            if (!w->segments[i].base)
                continue;
            w->segments[i].current = false;
            settle(w, &w->segments[i], false, 100 * 1000000);
            left = left || w->segments[i].base;
        }
        if (!left)
            return;
        if (now_ns() - since > (uint64_t)HANG_NS) {
            wrong_code(w, "letting go of all memory", NVLX_ETIMEDOUT);
            return;
        }
    }
}

void forget_memory(struct worker *w) {
    for (unsigned i = 0; i < SEGMENTS; i++) {
        if (w->segments[i].base)
            free(w->segments[i].expected);
        w->segments[i].base = NULL;
    }
}

/* ---- Many changes as one ------------------------------------------------------------------------------- */

/* Weights are replaced: other memory under the same names, which peers see all at once. */
void act_swap(struct worker *w) {
    struct segment *old = find_current(w, (unsigned)draw(w, GROUPS)), *made;
    if (!old)
        return;
    hold(w);
    for (unsigned i = 0; i < old->count; i++)
        withdraw(w, old, i, 0);
    old->current = false;
    made = make_segment(w, old->group);
    for (unsigned i = 0; made && i < made->count; i++)
        share(w, made, i);
    if (made)
        tell(w, made);
    else
        publish(w);
    board_count(w->place, COUNT_swaps, 1);
    if (chance(w, 50))
        withdraw_all(w, old, FOR_EVER);
}
