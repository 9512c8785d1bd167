/* What is known of a peer: a table, made from one descriptor. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/identity.h"
#include "remote/peer.h"

#define RANGES_MAX (4 * (size_t)NVLXI_REGIONS_MAX) /* of a peer's table: who wrote its text is not trusted */

/* A small number for a GPU's UUID. Beyond NVLXI_DEVICES_MAX of them, GPUs share the last: they then share lanes, no
 * more. */
static uint16_t device_index(struct nvlxi_remote *r, const uint8_t uuid[NVLXI_UUID_BYTES]) {
    size_t index;
    pthread_mutex_lock(&r->mutex);
    for (index = 0; index < r->uuid_count; index++)
        if (!memcmp(r->uuids[index], uuid, NVLXI_UUID_BYTES))
            break;
    if (index == r->uuid_count && index < NVLXI_DEVICES_MAX)
        memcpy(r->uuids[r->uuid_count++], uuid, NVLXI_UUID_BYTES);
    pthread_mutex_unlock(&r->mutex);
    return (uint16_t)nvlxi_min(index, NVLXI_DEVICES_MAX - 1);
}

static int compare_starts(const void *a, const void *b) {
    const struct nvlxi_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Adds the ranges of a region: one in each run that it lies in. */
static size_t add_ranges(const struct nvlxi_peer_table *table, const struct nvlxi_region_record *region,
                         const uint16_t *devices, struct nvlxi_range *ranges, size_t count) {
    const uint64_t end = region->address + region->length;
    uint64_t at = region->address;
    for (uint32_t segment = region->segment; at < end; segment++) {
        const uint32_t owner = table->runs.of_segment[segment];
        const struct nvlxi_run *run = &table->runs.run[owner];
        const uint64_t stop = nvlxi_min(end, run->base + run->size);
        ranges[count++] = (struct nvlxi_range){
            .start = at, .end = stop, .owner = owner, .access = (uint8_t)region->access, .device = devices[segment]};
        at = stop;
    }
    return count;
}

/* How many ranges all regions have, at most. */
static size_t count_ranges(const struct nvlxi_descriptor *d, bool own) {
    size_t count = d->region_count;
    for (size_t i = 0; i < d->region_count && own; i++)
        count += d->regions[i].segment_count;
    return count;
}

static int build_ranges(struct nvlxi_remote *r, bool own, struct nvlxi_peer_table *table) {
    const struct nvlxi_descriptor *d = table->descriptor;
    const size_t most = count_ranges(d, own);
    size_t count = 0;
    int code = NVLX_ENOMEM;
    uint16_t *devices = malloc((d->segment_count + 1) * sizeof *devices);
    struct nvlxi_range *sorted = most <= RANGES_MAX ? malloc((most + 1) * sizeof *sorted) : NULL;
    if (!devices || !sorted)
        goto free_both;
    for (size_t i = 0; i < d->segment_count; i++)
        devices[i] = device_index(r, d->segments[i].device);
    for (size_t i = 0; i < d->region_count; i++)
        if (d->regions[i].segment != NVLXI_NO_SEGMENT)
            count = add_ranges(table, &d->regions[i], devices, sorted, count);
    qsort(sorted, count, sizeof *sorted, compare_starts);
    code = nvlxi_intervals_build(sorted, count, &table->ranges);
free_both:
    free(sorted);
    free(devices);
    return code;
}

static int build_views(struct nvlxi_remote *r, struct nvlxi_peer_table *table) {
    const size_t runs = table->runs.count;
    table->views = calloc((size_t)r->gpus, sizeof *table->views);
    if (!table->views)
        return NVLX_ENOMEM;
    for (int gpu = 0; gpu < r->gpus; gpu++) {
        struct nvlxi_view *view = &table->views[gpu];
        view->offset = malloc((runs + 1) * sizeof *view->offset);
        view->mapping = calloc(runs + 1, sizeof(*view->mapping));
        if (!view->offset || !view->mapping)
            return NVLX_ENOMEM;
        for (size_t i = 0; i < runs; i++)
            atomic_init(&view->offset[i], NVLXI_UNMAPPED);
    }
    return 0;
}

void nvlxi_peer_table_free(struct nvlxi_remote *r, struct nvlxi_peer_table *table) {
    for (int gpu = 0; table->views && gpu < r->gpus; gpu++) {
        free(table->views[gpu].offset);
        free(table->views[gpu].mapping);
    }
    free(table->views);
    nvlxi_runs_free(&table->runs);
    nvlxi_intervals_free(&table->ranges);
    nvlxi_descriptor_free(table->descriptor);
    free(table);
}

static int check_origin(const struct nvlxi_remote *r, const struct nvlxi_descriptor *d) {
    if (strcmp(d->backend, r->context->ops->name))
        return nvlxi_fail(NVLX_EBACKEND, "the descriptor is of backend \"%s\", this engine runs on \"%s\"", d->backend,
                          r->context->ops->name);
    if (strcmp(d->identity.boot_id, r->context->identity.boot_id))
        return nvlxi_fail(NVLX_ENOTSUP, "the descriptor comes from another machine: its boot id is %s, here it is %s",
                          d->identity.boot_id, r->context->identity.boot_id);
    return 0;
}

int nvlxi_peer_table_make(struct nvlxi_remote *r, const char *text, size_t length, struct nvlxi_peer_table **made) {
    struct nvlxi_peer_table *table = calloc(1, sizeof *table);
    if (!table)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a peer");
    int code = nvlxi_descriptor_decode(text, length, &table->descriptor);
    if (!code)
        code = check_origin(r, table->descriptor);
    if (code)
        goto free_table;
    const bool own = nvlxi_identity_same_process(&table->descriptor->identity, &r->context->identity);
    if ((code = nvlxi_runs_make(table->descriptor, own, &table->runs)) || (code = build_ranges(r, own, table)) ||
        (code = build_views(r, table))) {
        nvlxi_fail(code, "no memory for a peer with %zu segments and %zu regions", table->descriptor->segment_count,
                   table->descriptor->region_count);
        goto free_table;
    }
    *made = table;
    return 0;
free_table:
    nvlxi_peer_table_free(r, table);
    return code;
}
