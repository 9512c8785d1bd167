/* Segments: from their first region to their last, and how they become stale. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "local/registration.h"

/* ---- Becoming stale ---------------------------------------------------------------------------------- */

static void leave_extents(struct nvlxi_registration *r, const struct nvlxi_segment *segment) {
    const struct nvlxi_range range = r->extents.piece[segment->number];
    nvlxi_intervals_remove(&r->extents, &range);
}

/* With the tables locked for writing. The generation has grown. */
static void detach(struct nvlxi_registration *r, struct nvlxi_segment *segment) {
    struct nvlxi_stake *stake;
    leave_extents(r, segment);
    segment->stale = true;
    DL_FOREACH(segment->stakes, stake) {
        struct nvlx_region *region = stake->region;
        if (region->entered && !region->stale) {
            nvlxi_region_unmap(r, region);
            nvlxi_region_untell(r, region);
            region->unknown = r->generation;
        }
        region->stale = true;
    }
}

void nvlxi_segment_retire(struct nvlxi_registration *registration, struct nvlxi_segment *segment,
                          struct nvlxi_retired *retired) {
    if (!retired->segments++)
        retired->first = segment->key.base;
    retired->regions += segment->regions;
    registration->generation++;
    nvlxi_tables_write(registration->context->tables);
    detach(registration, segment);
    nvlxi_tables_write_end(registration->context->tables);
}

void nvlxi_retired_log(const struct nvlxi_retired *retired, const char *why) {
    if (retired->segments)
        nvlxi_log(NVLX_LOG_WARNING,
                  "%zu segments with %zu regions are no longer used, the first at 0x%" PRIx64 ": their memory was %s",
                  retired->segments, retired->regions, retired->first, why);
}

/* The first segment that is not stale and ends after an address, if it starts before `end`; else NULL. */
static struct nvlxi_segment *first_under(const struct nvlxi_registration *r, uint64_t address, uint64_t end) {
    const uint32_t number = nvlxi_intervals_search(&r->extents, address);
    return r->extents.piece[number].start < end ? r->by_number[number] : NULL;
}

size_t nvlxi_segments_retire(struct nvlxi_registration *registration, uint64_t address, uint64_t length) {
    struct nvlxi_segment *segment;
    size_t count;
    for (count = 0; (segment = first_under(registration, address, address + length)); count++) {
        registration->generation += count == 0;
        detach(registration, segment);
    }
    return count;
}

/* ---- The first region -------------------------------------------------------------------------------- */

/* Pinned memory: all its regions are. */
static bool is_private(const struct nvlxi_segment *segment) {
    return segment->allocation.kind == NVLXI_KIND_PINNED;
}

static int export_segment(struct nvlxi_registration *r, struct nvlxi_segment *segment) {
    int code = r->context->ops->uuid(r->context->device, segment->allocation.gpu, segment->uuid);
    return code || is_private(segment)
               ? code
               : r->context->ops->export_handle(r->context->device, &segment->allocation, &segment->handle);
}

/* Makes room for one segment more in `extents`. */
static int reserve_number(struct nvlxi_registration *r, const struct nvlxi_range *range) {
    int code = nvlxi_intervals_reserve(&r->extents, range->start, range->end, 1);
    const size_t numbers = r->extents.spare.piece ? r->extents.spare.capacity : r->extents.store.capacity;
    if (code || numbers <= r->numbers)
        return code;
    struct nvlxi_segment **by_number = realloc(r->by_number, numbers * sizeof(*by_number));
    if (!by_number)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %zu segments", numbers);
    r->by_number = by_number;
    r->numbers = numbers;
    return 0;
}

/* Makes an exported segment READY, and enters it in `extents`. Where it overlaps another one, the older one's memory
 * was freed. */
static int settle(struct nvlxi_registration *r, struct nvlxi_segment *segment) {
    const struct nvlxi_range range = {.start = segment->key.base, .end = segment->key.base + segment->allocation.size};
    struct nvlxi_retired retired = {0};
    struct nvlxi_segment *other;
    while ((other = first_under(r, range.start, range.end)) && other->key.serial < segment->key.serial)
        nvlxi_segment_retire(r, other, &retired);
    nvlxi_retired_log(&retired, "freed, and its address taken by newer memory");
    segment->stale = other != NULL;
    if (!segment->stale) {
        int code = reserve_number(r, &range);
        if (code)
            return code;
        segment->number = nvlxi_intervals_insert(&r->extents, &range, true);
        r->by_number[segment->number] = segment;
    }
    segment->ready = true;
    r->handles_exported += !is_private(segment);
    return 0;
}

/* Adds a PENDING segment, exports it without the lock, and makes it READY or removes it again. */
static int create_segment(struct nvlxi_registration *r, const struct nvlxi_allocation *allocation,
                          struct nvlxi_segment **created) {
    struct nvlxi_segment *segment = calloc(1, sizeof *segment);
    bool hash_full = segment == NULL;
    if (segment) {
        segment->key = (struct nvlxi_segment_key){allocation->base, allocation->serial};
        segment->allocation = *allocation;
        HASH_ADD(hh, r->segments, key, sizeof segment->key, segment);
    }
    if (hash_full) {
        free(segment);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to register segment 0x%" PRIx64, allocation->base);
    }
    pthread_mutex_unlock(&r->mutex);
    int code = export_segment(r, segment);
    pthread_mutex_lock(&r->mutex);
    if (!code)
        code = settle(r, segment);
    if (code) {
        HASH_DEL(r->segments, segment); /* NOLINT(clang-analyzer-core.NullDereference): the table has this segment */
        free(segment);
    } else {
        *created = segment;
    }
    pthread_cond_broadcast(&r->export_done);
    return code;
}

/* Also a PENDING one; NULL: there is none. */
static struct nvlxi_segment *find_segment(struct nvlxi_registration *r, const struct nvlxi_allocation *allocation) {
    const struct nvlxi_segment_key key = {allocation->base, allocation->serial};
    struct nvlxi_segment *segment = r->recent;
    if (!segment || segment->key.base != key.base || segment->key.serial != key.serial)
        HASH_FIND(hh, r->segments, &key, sizeof key, segment);
    return segment;
}

/* Finds or makes the segment, and gives the region a stake in it. Lets go of the mutex meanwhile. */
static int acquire(struct nvlxi_registration *r, const struct nvlxi_allocation *allocation, struct nvlx_region *region,
                   struct nvlxi_stake *stake) {
    struct nvlxi_segment *segment;
    while ((segment = find_segment(r, allocation)) && !segment->ready)
        pthread_cond_wait(&r->export_done, &r->mutex);
    if (!segment) {
        int code = create_segment(r, allocation, &segment);
        if (code)
            return code;
    }
    *stake = (struct nvlxi_stake){.segment = segment, .region = region};
    DL_PREPEND(segment->stakes, stake);
    segment->regions++;
    r->recent = segment;
    region->stale = region->stale || segment->stale;
    return 0;
}

int nvlxi_segments_acquire(struct nvlxi_registration *registration, const struct nvlxi_extents *extents,
                           struct nvlx_region *region) {
    for (; region->segment_count < extents->count; region->segment_count++) {
        const uint32_t next = region->segment_count;
        int code = acquire(registration, &extents->list[next], region, &region->stakes[next]);
        if (code) {
            nvlxi_segments_release(registration, region);
            return code;
        }
    }
    return 0;
}

/* ---- The last region --------------------------------------------------------------------------------- */

static void drop_segment(struct nvlxi_registration *r, struct nvlxi_segment *segment) {
    if (!segment->stale)
        leave_extents(r, segment);
    if (r->recent == segment)
        r->recent = NULL;
    HASH_DEL(r->segments, segment); /* NOLINT(clang-analyzer-core.NullDereference): the table has this segment */
    free(segment);
}

void nvlxi_segments_release(struct nvlxi_registration *registration, struct nvlx_region *region) {
    for (; region->segment_count; region->segment_count--) {
        struct nvlxi_stake *stake = &region->stakes[region->segment_count - 1];
        struct nvlxi_segment *segment = stake->segment;
        DL_DELETE(segment->stakes, stake);
        if (!--segment->regions)
            drop_segment(registration, segment);
    }
}

/* ---- What regions take part in ----------------------------------------------------------------------- */

/* Whether one copy may cross from a segment into the next: both are chunks in one reservation. */
static bool is_crossed(const struct nvlxi_allocation *segment, const struct nvlxi_allocation *next) {
    return segment->joins && next->joins && segment->reservation == next->reservation;
}

/* The range from a region's segment `*index` on up to the next border in the region; *index moves behind it. */
static struct nvlxi_range next_range(const struct nvlx_region *region, uint32_t *index) {
    const struct nvlxi_segment *first = region->stakes[*index].segment, *last = first;
    while (++*index < region->segment_count &&
           is_crossed(&last->allocation, &region->stakes[*index].segment->allocation))
        last = region->stakes[*index].segment;
    return (struct nvlxi_range){.start = nvlxi_max(region->address, first->key.base),
                                .end =
                                    nvlxi_min(region->address + region->length, last->key.base + last->allocation.size),
                                .owner = first->number,
                                .access = (uint8_t)region->access,
                                .place = nvlxi_place((uint32_t)first->allocation.gpu, first->allocation.kind)};
}

/* Whether no copy may go on from what lies below an address into this segment. */
static bool is_border(const struct nvlxi_segment *segment, uint64_t address) {
    return address == segment->key.base && !(segment->allocation.joins && segment->allocation.reservation < address);
}

int nvlxi_region_reserve(struct nvlxi_registration *registration, const struct nvlx_region *region) {
    uint32_t index = 0, ranges = 0;
    for (; index < region->segment_count; ranges++)
        next_range(region, &index);
    return ranges ? nvlxi_intervals_reserve(&registration->ranges, region->address, region->address + region->length,
                                            ranges)
                  : 0;
}

void nvlxi_region_map(struct nvlxi_registration *registration, const struct nvlx_region *region) {
    for (uint32_t index = 0; index < region->segment_count;) {
        const struct nvlxi_segment *first = region->stakes[index].segment;
        const struct nvlxi_range range = next_range(region, &index);
        nvlxi_intervals_insert(&registration->ranges, &range, is_border(first, range.start));
    }
}

void nvlxi_region_unmap(struct nvlxi_registration *registration, const struct nvlx_region *region) {
    for (uint32_t index = 0; index < region->segment_count;) {
        const struct nvlxi_range range = next_range(region, &index);
        nvlxi_intervals_remove(&registration->ranges, &range);
    }
}

void nvlxi_region_count(const struct nvlx_region *region, struct nvlxi_told *told) {
    if (region->access == NVLX_ACCESS_NONE)
        return;
    told->regions++;
    told->text += nvlxi_descriptor_region_room(region->name ? region->name->text : NULL, region->has_digest);
    for (uint32_t i = 0; i < region->segment_count; i++) {
        const struct nvlxi_segment *segment = region->stakes[i].segment;
        if (segment->shared)
            continue;
        told->segments++;
        told->text += nvlxi_descriptor_segment_room(&segment->handle);
    }
}

void nvlxi_region_share(struct nvlxi_registration *registration, const struct nvlx_region *region) {
    nvlxi_region_count(region, &registration->told);
    for (uint32_t i = 0; region->access != NVLX_ACCESS_NONE && i < region->segment_count; i++)
        region->stakes[i].segment->shared++;
}

void nvlxi_region_tell(struct nvlxi_registration *registration, struct nvlx_region *region) {
    nvlxi_region_share(registration, region);
    if (region->access != NVLX_ACCESS_NONE)
        nvlxi_journal_tell(&registration->journal, region->since, region);
}

void nvlxi_region_unshare(struct nvlxi_registration *registration, const struct nvlx_region *region) {
    struct nvlxi_told *told = &registration->told, less = {0};
    for (uint32_t i = 0; region->access != NVLX_ACCESS_NONE && i < region->segment_count; i++)
        region->stakes[i].segment->shared--;
    nvlxi_region_count(region, &less);
    told->regions -= less.regions;
    told->segments -= less.segments;
    told->text -= less.text;
}

void nvlxi_region_untell(struct nvlxi_registration *registration, struct nvlx_region *region) {
    nvlxi_region_unshare(registration, region);
    if (region->access != NVLX_ACCESS_NONE)
        nvlxi_journal_remove(&registration->journal, registration->generation, region);
}
