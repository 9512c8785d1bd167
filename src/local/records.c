/* What peers are told of registrations: records for a descriptor. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "local/registration.h"

/* ---- Memory that was freed --------------------------------------------------------------------------- */

/* Copies what is needed to ask the driver, without the lock, which segments still live. */
static struct nvlxi_allocation *snapshot(struct nvlxi_registration *r, size_t *count) {
    *count = 0;
    pthread_mutex_lock(&r->mutex);
    struct nvlxi_allocation *list = malloc((r->extents.count + 1) * sizeof *list);
    for (uint32_t id = nvlxi_intervals_next(&r->extents, 0); list && id; id = nvlxi_intervals_next(&r->extents, id))
        list[(*count)++] = r->by_number[id]->allocation;
    pthread_mutex_unlock(&r->mutex);
    return list;
}

static void mark_freed(struct nvlxi_registration *r, const struct nvlxi_allocation *allocation) {
    const struct nvlxi_segment_key key = {allocation->base, allocation->serial};
    struct nvlxi_segment *segment;
    pthread_mutex_lock(&r->mutex);
    HASH_FIND(hh, r->segments, &key, sizeof key, segment);
    bool found = segment && segment->ready && !segment->stale;
    if (found)
        nvlxi_segment_retire(r, segment, "its memory was freed");
    pthread_mutex_unlock(&r->mutex);
    if (found)
        nvlxi_registration_tell(r);
}

static int mark_all_freed(struct nvlxi_registration *r) {
    size_t count;
    int code = 0;
    struct nvlxi_allocation *list = snapshot(r, &count);
    if (!list)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to export");
    for (size_t i = 0; i < count && !code; i++) {
        code = r->context->ops->alive(r->context->device, &list[i]);
        if (code == NVLX_ESTALE) {
            mark_freed(r, &list[i]);
            code = 0;
        }
    }
    free(list);
    return code;
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

static void record_region(const struct nvlx_region *region, struct nvlxi_descriptor *descriptor, char **name) {
    struct nvlxi_region_record *record = &descriptor->regions[descriptor->region_count++];
    *record = (struct nvlxi_region_record){.name = descriptor->names,
                                           .segment = region->segment_count ? region->stakes[0].segment->index
                                                                            : NVLXI_NO_SEGMENT,
                                           .segment_count = region->segment_count,
                                           .access = region->access,
                                           .address = region->address,
                                           .length = region->length,
                                           .since = region->since};
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

static int compare_records(const void *a, const void *b) {
    const struct nvlxi_region_record *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

int nvlxi_registration_records(struct nvlxi_registration *r, struct nvlxi_descriptor *descriptor) {
    struct nvlxi_descriptor made = *descriptor;
    int code = mark_all_freed(r);
    if (code)
        return code;
    pthread_mutex_lock(&r->mutex);
    const bool held = atomic_load(&r->held);
    code = held ? NVLX_EBUSY : allocate_records(r, &made);
    if (!code)
        fill_records(r, &made);
    made.identity.generation = r->generation;
    pthread_mutex_unlock(&r->mutex);
    if (held)
        return nvlxi_fail(code, "changes are held back: nvlx_publish tells them");
    if (code) {
        nvlxi_registration_records_free(&made);
        return nvlxi_fail(code, "no memory to export the regions");
    }
    qsort(made.regions, made.region_count, sizeof *made.regions, compare_records);
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
