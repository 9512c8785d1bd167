/* SPDX-License-Identifier: Apache-2.0 */
#include "registration.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "ground.h"
#include "log.h"
#include "name.h"

int nvlxi_registration_init(struct nvlxi_registration *registration) {
    struct nvlxi_registration *r = registration;
    int code = nvlxi_ranges_build(NULL, 0, &r->ranges);
    if (code)
        return code;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->export_done, NULL);
    return 0;
}

/* ---- Who listens for changes --------------------------------------------------------------------------- */

void nvlxi_registration_listen(struct nvlxi_registration *registration, nvlxi_change_function function, void *context) {
    pthread_mutex_lock(&registration->mutex);
    registration->generation++;
    registration->on_change_context = context;
    atomic_store(&registration->on_change, function);
    pthread_mutex_unlock(&registration->mutex);
}

/* Without the mutex. */
static void tell_change(struct nvlxi_registration *r) {
    nvlxi_change_function function = atomic_load(&r->on_change);
    if (function)
        function(r->on_change_context);
}

/* ---- Segments ---------------------------------------------------------------------------------------- */

static int export_segment(struct nvlxi_registration *r, struct nvlxi_segment *segment) {
    int code = r->ops->uuid(r->device, segment->allocation.gpu, segment->uuid);
    return code ? code : r->ops->export_handle(r->device, &segment->allocation, &segment->handle);
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
    if (code) {
        HASH_DEL(r->segments, segment); /* NOLINT(clang-analyzer-core.NullDereference): the table has this segment */
        free(segment);
    } else {
        segment->ready = true;
        r->handles_exported++;
        *created = segment;
    }
    pthread_cond_broadcast(&r->export_done);
    return code;
}

/* Finds or makes the segment and counts one region more in it. Lets go of the mutex meanwhile. */
static int acquire_segment(struct nvlxi_registration *r, const struct nvlxi_allocation *allocation,
                           struct nvlxi_segment **acquired) {
    const struct nvlxi_segment_key key = {allocation->base, allocation->serial};
    struct nvlxi_segment *segment;
    for (;;) {
        HASH_FIND(hh, r->segments, &key, sizeof key, segment);
        if (!segment || segment->ready)
            break;
        pthread_cond_wait(&r->export_done, &r->mutex);
    }
    if (!segment) {
        int code = create_segment(r, allocation, &segment);
        if (code)
            return code;
    }
    segment->regions++;
    *acquired = segment;
    return 0;
}

/* Counts the region out of its segments. */
static void release_segments(struct nvlxi_registration *r, struct nvlx_region *region) {
    for (; region->segment_count; region->segment_count--) {
        struct nvlxi_segment *segment = region->segments[region->segment_count - 1];
        if (--segment->regions)
            continue;
        HASH_DEL(r->segments, segment); /* NOLINT(clang-analyzer-core.NullDereference): the table has this segment */
        free(segment);
    }
}

/* Counts the region into the segments of its allocations, all or none. */
static int acquire_segments(struct nvlxi_registration *r, const struct nvlxi_ground *ground,
                            struct nvlx_region *region) {
    for (; region->segment_count < ground->count; region->segment_count++) {
        struct nvlxi_segment **segment = &region->segments[region->segment_count];
        int code = acquire_segment(r, &ground->list[region->segment_count], segment);
        if (code) {
            release_segments(r, region);
            return code;
        }
    }
    return 0;
}

static bool is_stale(const struct nvlx_region *region) {
    for (uint32_t i = 0; i < region->segment_count; i++)
        if (region->segments[i]->stale)
            return true;
    return false;
}

/* ---- The list of regions ----------------------------------------------------------------------------- */

static void compact(struct nvlxi_registration *r) {
    size_t kept = 0, sorted = 0;
    for (size_t i = 0; i < r->length; i++) {
        if (r->regions[i]) {
            r->regions[i]->position = kept;
            r->regions[kept++] = r->regions[i];
        }
        if (i + 1 == r->sorted)
            sorted = kept;
    }
    r->length = kept;
    r->sorted = sorted;
}

static int reserve(struct nvlxi_registration *r) {
    if (r->length == r->capacity && r->region_count <= r->length / 2)
        compact(r);
    if (r->length < r->capacity)
        return 0;
    size_t capacity = r->capacity ? 2 * r->capacity : 64;
    struct nvlx_region **regions = realloc(r->regions, capacity * sizeof(*regions));
    if (!regions)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for the list of %zu regions", capacity);
    r->regions = regions;
    r->capacity = capacity;
    return 0;
}

static int take_name(struct nvlxi_registration *r, struct nvlx_region *region) {
    struct nvlx_region *other;
    bool hash_full = false;
    if (!region->name)
        return 0;
    HASH_FIND_STR(r->names, region->name, other);
    if (other)
        return nvlxi_fail(NVLX_EEXIST, "the name \"%s\" is taken by a region at 0x%" PRIx64 " of %" PRIu64 " bytes",
                          region->name, other->address, other->length);
    HASH_ADD_KEYPTR(hh, r->names, region->name, strlen(region->name), region);
    return hash_full ? nvlxi_fail(NVLX_ENOMEM, "no memory for the name \"%s\"", region->name) : 0;
}

/* Counts a region among those that grant peers something in its segments, or not any more. */
static void count_shared(struct nvlx_region *region, int by) {
    for (uint32_t i = 0; region->access != NVLX_ACCESS_NONE && i < region->segment_count; i++)
        region->segments[i]->shared += (size_t)by;
}

/* Enters a region whose allocations are known; all or nothing. */
static int enter(struct nvlxi_registration *r, const struct nvlxi_ground *ground, struct nvlx_region *region) {
    pthread_mutex_lock(&r->mutex);
    int code = acquire_segments(r, ground, region);
    if (code)
        goto unlock;
    if ((code = reserve(r)) || (code = take_name(r, region)))
        goto release;
    region->position = r->length;
    r->regions[r->length++] = region;
    r->region_count++;
    r->generation++;
    count_shared(region, 1);
    atomic_store(&r->changed, true);
    goto unlock;
release:
    release_segments(r, region);
unlock:
    pthread_mutex_unlock(&r->mutex);
    if (!code)
        tell_change(r);
    return code;
}

/* ---- Register, unregister ---------------------------------------------------------------------------- */

static int check_name(const char *name) {
    if (!name || nvlxi_name_valid(name))
        return 0;
    return nvlxi_fail(NVLX_EINVAL,
                      "the name \"%.40s\" of %zu bytes is not UTF-8 of 1 to %d bytes without control characters", name,
                      strlen(name), NVLXI_NAME_MAX);
}

static void free_region(struct nvlx_region *region) {
    if (region->segments != &region->one)
        free(region->segments);
    free(region->name);
    free(region);
}

/* With room for `segments`. */
static int make_region(uint64_t address, uint64_t length, const struct nvlx_region_options *options, size_t segments,
                       struct nvlx_region **made) {
    struct nvlx_region *region = calloc(1, sizeof *region);
    if (!region)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a region");
    region->address = length ? address : 0;
    region->length = length;
    region->access = options->access;
    region->segments = segments > 1 ? calloc(segments, sizeof(*region->segments)) : &region->one;
    if (!region->segments || (options->name && !(region->name = strdup(options->name)))) {
        free_region(region);
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a region in %zu segments", segments);
    }
    *made = region;
    return 0;
}

int nvlxi_registration_add(struct nvlxi_registration *registration, uint64_t address, uint64_t length,
                           const struct nvlx_region_options *options, struct nvlx_region **region) {
    struct nvlxi_ground ground = {.list = &ground.one};
    struct nvlx_region *made = NULL;
    int code = check_name(options->name);
    if (!code && options->access > NVLX_ACCESS_READ_WRITE)
        code = nvlxi_fail(NVLX_EINVAL, "access %" PRIu32 " is not one of NVLX_ACCESS_...", options->access);
    if (!code && length)
        code = nvlxi_ground_survey(registration->ops, registration->device, address, length, &ground);
    if (code || (code = make_region(address, length, options, ground.count, &made)))
        goto free_ground;
    made->engine = registration->engine;
    code = enter(registration, &ground, made);
    if (code)
        free_region(made);
    else
        *region = made;
free_ground:
    nvlxi_ground_free(&ground);
    return code;
}

int nvlxi_registration_remove(struct nvlxi_registration *registration, struct nvlx_region *region,
                              nvlxi_user_function find_user, void *context, enum nvlxi_user *user) {
    struct nvlxi_registration *r = registration;
    *user = NVLXI_NOBODY;
    pthread_mutex_lock(&r->mutex);
    pthread_rwlock_wrlock(r->tables);
    if (region->length && !is_stale(region))
        *user = find_user(context, region->address, region->length);
    if (*user == NVLXI_NOBODY)
        atomic_store(&r->changed, true);
    pthread_rwlock_unlock(r->tables);
    if (*user == NVLXI_NOBODY) {
        r->regions[region->position] = NULL;
        r->region_count--;
        r->generation++;
        if (region->name)
            HASH_DEL(r->names, region);
        count_shared(region, -1);
        release_segments(r, region);
    }
    pthread_mutex_unlock(&r->mutex);
    if (*user != NVLXI_NOBODY)
        return NVLX_EBUSY;
    tell_change(r);
    free_region(region);
    return 0;
}

void nvlxi_registration_free(struct nvlxi_registration *registration) {
    struct nvlxi_registration *r = registration;
    HASH_CLEAR(hh, r->names);
    for (size_t i = 0; i < r->length; i++) {
        if (!r->regions[i])
            continue;
        release_segments(r, r->regions[i]);
        free_region(r->regions[i]);
    }
    free(r->regions);
    nvlxi_ranges_free(&r->ranges);
    pthread_cond_destroy(&r->export_done);
    pthread_mutex_destroy(&r->mutex);
}

/* ---- The lookup table -------------------------------------------------------------------------------- */

static int compare_regions(const void *a, const void *b) {
    const struct nvlx_region *const *x = a, *const *y = b;
    return ((*x)->address > (*y)->address) - ((*x)->address < (*y)->address);
}

/* Sorts the list by address: only what was added since the last time, then merges from the back. */
static int sort_regions(struct nvlxi_registration *r) {
    compact(r);
    size_t added = r->length - r->sorted, old = r->sorted;
    if (!added)
        return 0;
    struct nvlx_region **tail = malloc(added * sizeof(*tail));
    if (!tail)
        return NVLX_ENOMEM;
    memcpy(tail, r->regions + old, added * sizeof(*tail));
    qsort(tail, added, sizeof(*tail), compare_regions);
    for (size_t at = r->length; added;) {
        bool from_old = old && r->regions[old - 1]->address > tail[added - 1]->address;
        r->regions[--at] = from_old ? r->regions[--old] : tail[--added];
        r->regions[at]->position = at;
    }
    free(tail);
    r->sorted = r->length;
    return 0;
}

static int compare_segments(const void *a, const void *b) {
    const struct nvlxi_segment *const *x = a, *const *y = b;
    return ((*x)->key.base > (*y)->key.base) - ((*x)->key.base < (*y)->key.base);
}

/* What is exported changes with it. */
static void mark_stale(struct nvlxi_registration *r, struct nvlxi_segment *segment, const char *why) {
    segment->stale = true;
    r->generation++;
    nvlxi_log(NVLX_LOG_WARNING, "segment 0x%" PRIx64 " of %" PRIu64 " bytes with %zu regions is no longer used: %s",
              segment->key.base, segment->allocation.size, segment->regions, why);
}

/* Whether one copy may cross from a segment into the next: both are chunks in one reservation. */
static bool is_crossed(const struct nvlxi_allocation *segment, const struct nvlxi_allocation *next) {
    return segment->joins && next->joins && segment->reservation == next->reservation && segment->gpu == next->gpu;
}

/* Gives the same number to segments between which there is no border. They are sorted by address. */
static void number_owners(struct nvlxi_segment **sorted, size_t count) {
    uint32_t owner = 0;
    for (size_t i = 0; i < count; i++) {
        owner += i && !is_crossed(&sorted[i - 1]->allocation, &sorted[i]->allocation);
        sorted[i]->index = owner; /* NOLINT(clang-analyzer-core.NullDereference): all of them are segments */
    }
}

/* Numbers the segments by address. Where two overlap, the older one's memory was freed. The list of regions is compact.
 */
static int number_segments(struct nvlxi_registration *r) {
    size_t count = 0;
    struct nvlxi_segment *segment, *next, *last = NULL;
    struct nvlxi_segment **sorted = malloc((HASH_COUNT(r->segments) + 1) * sizeof(*sorted));
    if (!sorted)
        return NVLX_ENOMEM;
    HASH_ITER(hh, r->segments, segment, next) {
        if (segment->ready && !segment->stale)
            sorted[count++] = segment;
    }
    qsort(sorted, count, sizeof(*sorted), compare_segments);
    for (size_t i = 0; i < count; i++) {
        if (last && sorted[i]->key.base < last->key.base + last->allocation.size) {
            bool younger = sorted[i]->key.serial > last->key.serial;
            mark_stale(r, younger ? last : sorted[i], "its memory was freed and allocated anew");
            last = younger ? sorted[i] : last;
        } else {
            last = sorted[i];
        }
    }
    number_owners(sorted, count);
    free(sorted);
    return 0;
}

/* Fills in the ranges of a region: one, or one on each side of every border in it. */
static size_t fill_ranges(const struct nvlx_region *region, struct nvlxi_range *ranges) {
    size_t count = 0;
    const uint64_t end = region->address + region->length;
    for (uint32_t i = 0; i < region->segment_count; i++) {
        const struct nvlxi_segment *segment = region->segments[i];
        const uint64_t stop = nvlxi_min(segment->key.base + segment->allocation.size, end);
        if (count && ranges[count - 1].owner == segment->index)
            ranges[count - 1].end = stop;
        else
            ranges[count++] = (struct nvlxi_range){.start = nvlxi_max(segment->key.base, region->address),
                                                   .end = stop,
                                                   .owner = segment->index,
                                                   .access = (uint16_t)region->access,
                                                   .device = (uint16_t)segment->allocation.gpu};
    }
    return count;
}

static int compare_starts(const void *a, const void *b) {
    const struct nvlxi_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static int build_ranges(struct nvlxi_registration *r, struct nvlxi_ranges *ranges) {
    size_t count = 0, most = 1;
    bool sorts = false;
    for (size_t i = 0; i < r->length; i++)
        most += r->regions[i]->segment_count;
    struct nvlxi_range *sorted = malloc(most * sizeof *sorted);
    if (!sorted)
        return NVLX_ENOMEM;
    for (size_t i = 0; i < r->length; i++) {
        const struct nvlx_region *region = r->regions[i];
        const size_t added = region->length && !is_stale(region) ? fill_ranges(region, sorted + count) : 0;
        sorts = sorts || added > 1;
        count += added;
    }
    if (sorts) /* the regions are, but what lies behind a border in one may lie behind the next ones */
        qsort(sorted, count, sizeof *sorted, compare_starts);
    int code = nvlxi_ranges_build(sorted, count, ranges);
    free(sorted);
    return code;
}

int nvlxi_registration_refresh(struct nvlxi_registration *registration) {
    struct nvlxi_registration *r = registration;
    struct nvlxi_ranges built, old = {0};
    int code;
    if (!atomic_load(&r->changed))
        return 0;
    pthread_mutex_lock(&r->mutex);
    if ((code = sort_regions(r)) || (code = number_segments(r)) || (code = build_ranges(r, &built))) {
        const size_t count = r->length;
        pthread_mutex_unlock(&r->mutex);
        return nvlxi_fail(code, "no memory for the lookup table of %zu regions", count);
    }
    pthread_rwlock_wrlock(r->tables);
    old = r->ranges;
    r->ranges = built;
    atomic_store(&r->changed, false);
    pthread_rwlock_unlock(r->tables);
    pthread_mutex_unlock(&r->mutex);
    nvlxi_ranges_free(&old);
    return 0;
}

/* ---- Records for export ------------------------------------------------------------------------------ */

/* Copies what is needed to ask the driver, without the lock, which segments still live. */
static struct nvlxi_allocation *snapshot(struct nvlxi_registration *r, size_t *count) {
    struct nvlxi_segment *segment, *next;
    *count = 0;
    pthread_mutex_lock(&r->mutex);
    struct nvlxi_allocation *list = malloc((HASH_COUNT(r->segments) + 1) * sizeof *list);
    if (list) {
        HASH_ITER(hh, r->segments, segment, next) {
            if (segment->ready && !segment->stale)
                list[(*count)++] = segment->allocation;
        }
    }
    pthread_mutex_unlock(&r->mutex);
    return list;
}

static void mark_freed(struct nvlxi_registration *r, const struct nvlxi_allocation *allocation) {
    const struct nvlxi_segment_key key = {allocation->base, allocation->serial};
    struct nvlxi_segment *segment;
    pthread_mutex_lock(&r->mutex);
    HASH_FIND(hh, r->segments, &key, sizeof key, segment);
    bool found = segment && segment->ready && !segment->stale;
    if (found) {
        mark_stale(r, segment, "its memory was freed");
        atomic_store(&r->changed, true);
    }
    pthread_mutex_unlock(&r->mutex);
    if (found)
        tell_change(r);
}

static int mark_all_freed(struct nvlxi_registration *r) {
    size_t count;
    int code = 0;
    struct nvlxi_allocation *list = snapshot(r, &count);
    if (!list)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to export");
    for (size_t i = 0; i < count && !code; i++) {
        code = r->ops->alive(r->device, &list[i]);
        if (code == NVLX_ESTALE) {
            mark_freed(r, &list[i]);
            code = 0;
        }
    }
    free(list);
    return code;
}

static bool is_shared(const struct nvlx_region *region) {
    return region && region->access != NVLX_ACCESS_NONE && !is_stale(region);
}

static void record_segment(struct nvlxi_segment *segment, struct nvlxi_descriptor *descriptor) {
    struct nvlxi_segment_record *record = &descriptor->segments[descriptor->segment_count];
    segment->index = (uint32_t)descriptor->segment_count++;
    record->kind = segment->allocation.kind;
    record->serial = segment->key.serial;
    record->base = segment->key.base;
    record->size = segment->allocation.size;
    record->file = segment->allocation.file;
    record->joins = segment->allocation.joins;
    record->handle = segment->handle;
    memcpy(record->device, segment->uuid, sizeof record->device);
}

/* Room for all regions and names, and for all segments. */
static int allocate_records(struct nvlxi_registration *r, struct nvlxi_descriptor *descriptor) {
    size_t names = 1;
    for (size_t i = 0; i < r->length; i++)
        if (is_shared(r->regions[i]) && r->regions[i]->name)
            names += strlen(r->regions[i]->name) + 1;
    descriptor->segments = calloc(HASH_COUNT(r->segments) + 1, sizeof *descriptor->segments);
    descriptor->regions = calloc(r->region_count + 1, sizeof *descriptor->regions);
    descriptor->names = calloc(names, 1);
    return descriptor->segments && descriptor->regions && descriptor->names ? 0 : NVLX_ENOMEM;
}

/* The list of regions is sorted by address, and so are the segments as they are met. */
static void fill_records(struct nvlxi_registration *r, struct nvlxi_descriptor *descriptor) {
    struct nvlxi_segment *segment, *next;
    char *name = descriptor->names + 1; /* the first byte is the empty name */
    HASH_ITER(hh, r->segments, segment, next) {
        segment->index = NVLXI_NO_SEGMENT;
    }
    for (size_t i = 0; i < r->length; i++) {
        const struct nvlx_region *region = r->regions[i];
        if (!is_shared(region))
            continue;
        for (uint32_t k = 0; k < region->segment_count; k++)
            if (region->segments[k]->index == NVLXI_NO_SEGMENT)
                record_segment(region->segments[k], descriptor);
        struct nvlxi_region_record *record = &descriptor->regions[descriptor->region_count++];
        record->name = descriptor->names;
        record->segment = region->length ? region->segments[0]->index : NVLXI_NO_SEGMENT;
        record->spans = region->segment_count;
        record->access = region->access;
        record->address = region->address;
        record->length = region->length;
        if (region->name) {
            record->name = name;
            name = stpcpy(name, region->name) + 1;
        }
    }
}

int nvlxi_registration_records(struct nvlxi_registration *registration, struct nvlxi_descriptor *descriptor) {
    struct nvlxi_registration *r = registration;
    struct nvlxi_descriptor made = *descriptor;
    int code = mark_all_freed(r);
    if (code)
        return code;
    pthread_mutex_lock(&r->mutex);
    code = sort_regions(r);
    if (!code)
        code = number_segments(r); /* finds what was freed and allocated anew since: no two that are told overlap */
    if (!code)
        code = allocate_records(r, &made);
    if (!code)
        fill_records(r, &made);
    made.identity.generation = r->generation;
    pthread_mutex_unlock(&r->mutex);
    if (code) {
        nvlxi_registration_records_free(&made);
        return nvlxi_fail(code, "no memory to export the regions");
    }
    *descriptor = made;
    return 0;
}

void nvlxi_registration_records_free(struct nvlxi_descriptor *descriptor) {
    free(descriptor->segments);
    free(descriptor->regions);
    free(descriptor->names);
}

int nvlxi_registration_find(struct nvlxi_registration *registration, uint64_t base, uint64_t serial,
                            struct nvlxi_allocation *allocation) {
    const struct nvlxi_segment_key key = {base, serial};
    struct nvlxi_segment *segment;
    pthread_mutex_lock(&registration->mutex);
    HASH_FIND(hh, registration->segments, &key, sizeof key, segment);
    bool found = segment && segment->ready && !segment->stale && segment->shared;
    if (found)
        *allocation = segment->allocation;
    pthread_mutex_unlock(&registration->mutex);
    return found ? 0 : nvlxi_fail(NVLX_ESTALE, "no region is shared in a segment 0x%" PRIx64 " any more", base);
}
