/* What peers are told of registrations: records for a descriptor. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/thread.h"
#include "local/registration.h"

/* ---- Memory that was freed --------------------------------------------------------------------------- */

#define LOOKS 256 /* segments that are looked at for changes alone, in turn */

/* Copies what is needed to ask the driver, without the lock, which segments still live: at most so many, from the one
 * over `*at` on, which becomes where the next ones begin, or 0. */
static struct nvlxi_allocation *snapshot(struct nvlxi_registration *r, uint64_t *at, size_t most, size_t *count) {
    *count = 0;
    pthread_mutex_lock(&r->mutex);
    struct nvlxi_allocation *list = malloc((nvlxi_min(r->extents.count, most) + 1) * sizeof *list);
    uint32_t id = nvlxi_intervals_search(&r->extents, *at);
    for (; list && id && *count < most; id = nvlxi_intervals_next(&r->extents, id))
        list[(*count)++] = r->by_number[id]->allocation;
    *at = id ? r->extents.piece[id].start : 0;
    pthread_mutex_unlock(&r->mutex);
    return list;
}

static void mark_freed(struct nvlxi_registration *r, const struct nvlxi_allocation *allocation,
                       struct nvlxi_retired *retired) {
    const struct nvlxi_segment_key key = {allocation->base, allocation->serial};
    struct nvlxi_segment *segment;
    pthread_mutex_lock(&r->mutex);
    HASH_FIND(hh, r->segments, &key, sizeof key, segment);
    if (segment && segment->ready && !segment->stale)
        nvlxi_segment_retire(r, segment, retired);
    pthread_mutex_unlock(&r->mutex);
}

/* Looks at so many segments, from the one over `*at` on. */
static int look(struct nvlxi_registration *registration, uint64_t *at, size_t most) {
    struct nvlxi_retired retired = {0};
    size_t count;
    int code = 0;
    struct nvlxi_allocation *list = snapshot(registration, at, most, &count);
    if (!list)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to look at all segments");
    for (size_t i = 0; i < count && !code; i++) {
        code = registration->context->ops->alive(registration->context->device, &list[i]);
        if (code == NVLX_ESTALE) {
            mark_freed(registration, &list[i], &retired);
            code = 0;
        }
    }
    free(list);
    nvlxi_retired_log(&retired, "freed");
    if (retired.segments)
        nvlxi_registration_tell(registration);
    return code;
}

int nvlxi_registration_check(struct nvlxi_registration *registration) {
    uint64_t at = 0;
    return look(registration, &at, SIZE_MAX);
}

/* ---- Records ----------------------------------------------------------------------------------------- */

static void record_segment(struct nvlxi_segment *segment, struct nvlxi_descriptor *descriptor) {
    struct nvlxi_segment_record *record = &descriptor->segments[descriptor->segment_count];
    segment->index = (uint32_t)descriptor->segment_count++;
    *record = (struct nvlxi_segment_record){.kind = segment->allocation.kind,
                                            .serial = segment->key.serial,
                                            .base = segment->key.base,
                                            .size = segment->allocation.size,
                                            .file = segment->allocation.file,
                                            .joins = segment->allocation.joins,
                                            .handle = segment->handle};
    memcpy(record->device, segment->uuid, sizeof record->device);
}

/* A name takes more in the text than in memory. */
static int allocate_records(const struct nvlxi_registration *r, struct nvlxi_descriptor *descriptor) {
    descriptor->segments = malloc((r->told.segments + 1) * sizeof *descriptor->segments);
    descriptor->regions = malloc((r->told.regions + 1) * sizeof *descriptor->regions);
    descriptor->names = malloc(r->told.text + 1);
    return descriptor->segments && descriptor->regions && descriptor->names ? 0 : NVLX_ENOMEM;
}

/* A region that is being resumed has segments already, and is still told as one that sleeps. */
static uint32_t count_segments(const struct nvlx_region *region) {
    return region->suspended ? 0 : region->segment_count;
}

static void record_region(const struct nvlx_region *region, struct nvlxi_descriptor *descriptor, char **name) {
    struct nvlxi_region_record *record = &descriptor->regions[descriptor->region_count++];
    *record = (struct nvlxi_region_record){.name = descriptor->names,
                                           .segment = count_segments(region) ? region->stakes[0].segment->index
                                                                             : NVLXI_NO_SEGMENT,
                                           .segment_count = count_segments(region),
                                           .access = region->access,
                                           .address = region->address,
                                           .length = region->length,
                                           .since = region->since,
                                           .digest = region->digest,
                                           .has_digest = region->has_digest,
                                           .suspended = region->suspended};
    descriptor->suspended_count += record->suspended;
    if (region->name) {
        record->name = *name;
        *name = stpcpy(*name, region->name->text) + 1;
    }
}

/* The segments are in order of address. */
static void fill_records(struct nvlxi_registration *r, struct nvlxi_descriptor *descriptor) {
    char *name = descriptor->names;
    *name++ = '\0'; /* the empty name */
    for (uint32_t id = nvlxi_intervals_next(&r->extents, 0); id; id = nvlxi_intervals_next(&r->extents, id))
        if (r->by_number[id]->shared)
            record_segment(r->by_number[id], descriptor);
    for (size_t i = 0; i < r->region_count; i++)
        if (r->regions[i]->access != NVLX_ACCESS_NONE && !r->regions[i]->stale)
            record_region(r->regions[i], descriptor, &name);
}

/* Those that sleep come last. */
static int compare_records(const void *a, const void *b) {
    const struct nvlxi_region_record *x = a, *y = b;
    if (x->suspended != y->suspended)
        return x->suspended ? 1 : -1;
    return (x->address > y->address) - (x->address < y->address);
}

static int fail_records(struct nvlxi_descriptor *descriptor, int code) {
    nvlxi_registration_records_free(descriptor);
    if (code == NVLX_EAGAIN)
        return code;
    return code == NVLX_EBUSY ? nvlxi_fail(code, "changes are held back: nvlx_publish tells them")
                              : nvlxi_fail(code, "no memory to export the regions");
}

int nvlxi_registration_records(struct nvlxi_registration *r, struct nvlxi_descriptor *descriptor) {
    struct nvlxi_descriptor made = *descriptor;
    int code = nvlxi_registration_check(r);
    if (code)
        return code;
    pthread_mutex_lock(&r->mutex);
    code = atomic_load(&r->held) ? NVLX_EBUSY : allocate_records(r, &made);
    if (!code)
        fill_records(r, &made);
    made.identity.generation = r->generation;
    pthread_mutex_unlock(&r->mutex);
    if (code)
        return fail_records(&made, code);
    qsort(made.regions, made.region_count, sizeof *made.regions, compare_records);
    *descriptor = made;
    return 0;
}

void nvlxi_registration_records_free(struct nvlxi_descriptor *descriptor) {
    free(descriptor->segments);
    free(descriptor->regions);
    free(descriptor->names);
    free(descriptor->removed);
}

/* ---- Changes ----------------------------------------------------------------------------------------- */

#define NOT_YET UINT32_MAX /* in place of a segment's index */

/* What changes have room for: each region's segments may be others. */
struct changed {
    struct nvlxi_segment **segments;
    size_t segment_count;
    size_t first, end; /* of the journal */
};

static bool is_gone(const struct nvlxi_change *change) {
    return change->id && !change->told;
}

static int allocate_changes(const struct nvlxi_registration *r, struct changed *changed,
                            struct nvlxi_descriptor *descriptor) {
    size_t regions = 0, removed = 0, segments = 0, names = 1;
    for (size_t i = changed->first; i < changed->end; i++) {
        const struct nvlxi_change *change = nvlxi_journal_change(&r->journal, i);
        removed += is_gone(change);
        if (!change->told)
            continue;
        regions++;
        segments += count_segments(change->told);
        names += change->told->name ? strlen(change->told->name->text) + 1 : 0;
    }
    changed->segments = malloc((segments + 1) * sizeof(*changed->segments));
    descriptor->segments = malloc((segments + 1) * sizeof *descriptor->segments);
    descriptor->regions = malloc((regions + 1) * sizeof *descriptor->regions);
    descriptor->removed = malloc((removed + 1) * sizeof *descriptor->removed);
    descriptor->names = malloc(names);
    return changed->segments && descriptor->segments && descriptor->regions && descriptor->removed && descriptor->names
               ? 0
               : NVLX_ENOMEM;
}

static int compare_segments(const void *a, const void *b) {
    const struct nvlxi_segment *const *x = a, *const *y = b;
    return ((*x)->key.base > (*y)->key.base) - ((*x)->key.base < (*y)->key.base);
}

/* Lists the segments of the regions that are told, each once, in order of address. */
static void collect_segments(const struct nvlxi_registration *r, struct changed *changed,
                             struct nvlxi_descriptor *descriptor) {
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = changed->first; i < changed->end; i++) {
            const struct nvlx_region *region = nvlxi_journal_change(&r->journal, i)->told;
            for (uint32_t j = 0; region && j < count_segments(region); j++) {
                struct nvlxi_segment *segment = region->stakes[j].segment;
                if (pass == 1 && segment->index == NOT_YET)
                    changed->segments[changed->segment_count++] = segment;
                segment->index = pass == 0 ? NOT_YET : 0;
            }
        }
    qsort(changed->segments, changed->segment_count, sizeof(*changed->segments), compare_segments);
    for (size_t i = 0; i < changed->segment_count; i++)
        record_segment(changed->segments[i], descriptor);
}

/* Those that sleep come last. */
static void fill_changes(const struct nvlxi_registration *r, struct changed *changed,
                         struct nvlxi_descriptor *descriptor) {
    char *name = descriptor->names;
    *name++ = '\0'; /* the empty name */
    collect_segments(r, changed, descriptor);
    for (int asleep = 0; asleep < 2; asleep++)
        for (size_t i = changed->first; i < changed->end; i++) {
            const struct nvlxi_change *change = nvlxi_journal_change(&r->journal, i);
            if (change->told && change->told->suspended == (asleep != 0))
                record_region(change->told, descriptor, &name);
            if (is_gone(change) && !asleep)
                descriptor->removed[descriptor->removed_count++] = change->id;
        }
}

/* Whether a region that was told before is told as another. */
static bool has_altered(const struct nvlxi_registration *r, const struct changed *changed, uint64_t since) {
    for (size_t i = changed->first; i < changed->end; i++) {
        const struct nvlxi_change *change = nvlxi_journal_change(&r->journal, i);
        if (change->told && change->id <= since)
            return true;
    }
    return false;
}

/* Under the mutex. */
static int record_changes(const struct nvlxi_registration *r, uint64_t since, bool *alters,
                          struct nvlxi_descriptor *descriptor) {
    const size_t count = nvlxi_journal_after(&r->journal, since);
    struct changed changed = {.first = r->journal.count - count, .end = r->journal.count};
    if (atomic_load(&r->held))
        return NVLX_EBUSY;
    if (count == SIZE_MAX)
        return NVLX_EAGAIN;
    const bool altered = has_altered(r, &changed, since);
    if (altered && !*alters)
        return NVLX_EAGAIN;
    *alters = altered;
    int code = allocate_changes(r, &changed, descriptor);
    if (!code)
        fill_changes(r, &changed, descriptor);
    free(changed.segments);
    descriptor->from = since;
    descriptor->identity.generation = r->generation;
    return code;
}

int nvlxi_registration_changes(struct nvlxi_registration *r, uint64_t since, bool *alters,
                               struct nvlxi_descriptor *descriptor) {
    struct nvlxi_descriptor made = *descriptor;
    int code = look(r, &r->looked, LOOKS);
    if (code)
        return code;
    pthread_mutex_lock(&r->mutex);
    code = record_changes(r, since, alters, &made);
    pthread_mutex_unlock(&r->mutex);
    if (code)
        return fail_records(&made, code);
    *descriptor = made;
    return 0;
}

int nvlxi_registration_begin_file(struct nvlxi_registration *registration, uint64_t base, uint64_t serial,
                                  struct nvlxi_allocation *allocation) {
    const struct nvlxi_segment_key key = {base, serial};
    struct nvlxi_segment *segment;
    pthread_mutex_lock(&registration->mutex);
    HASH_FIND(hh, registration->segments, &key, sizeof key, segment);
    bool found = segment && segment->ready && !segment->stale && segment->shared;
    if (found) {
        *allocation = segment->allocation;
        registration->files++;
    }
    pthread_mutex_unlock(&registration->mutex);
    return found ? 0 : nvlxi_fail(NVLX_ESTALE, "no region is shared in a segment 0x%" PRIx64 " any more", base);
}

void nvlxi_registration_end_file(struct nvlxi_registration *registration) {
    pthread_mutex_lock(&registration->mutex);
    registration->files++;
    pthread_cond_broadcast(&registration->export_done);
    pthread_mutex_unlock(&registration->mutex);
}

int nvlxi_registration_await_file(struct nvlxi_registration *registration, uint64_t deadline) {
    bool waits = true;
    pthread_mutex_lock(&registration->mutex);
    const uint64_t files = registration->files;
    while (files % 2 && registration->files == files && waits)
        waits = nvlxi_cond_wait(&registration->export_done, &registration->mutex, deadline);
    const bool ended = files % 2 == 0 || registration->files != files;
    pthread_mutex_unlock(&registration->mutex);
    return ended ? 0 : NVLX_ETIMEDOUT;
}
