/* A peer's table: made of a descriptor. SPDX-License-Identifier: Apache-2.0 */
#include "remote/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/identity.h"
#include "remote/peer.h"

#define RANGES_MAX (4 * (size_t)NVLXI_REGIONS_MAX) /* who wrote the text is not trusted */
#define SPARE      1024                            /* regions to come */

/* ---- Ranges ------------------------------------------------------------------------------------------- */

static uint16_t device_of(struct nvlxi_remote *r, const uint8_t uuid[NVLXI_UUID_BYTES]) {
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

uint16_t nvlxi_remote_place(struct nvlxi_remote *r, const struct nvlxi_segment_record *segment) {
    return nvlxi_place(device_of(r, segment->device), segment->kind);
}

/* Where a GPU stands. Its bytes are set before anybody knows its number. */
static uint64_t place_of(const uint8_t uuid[NVLXI_UUID_BYTES]) {
    uint64_t place = 0;
    for (size_t i = NVLXI_UUID_BYTES - sizeof place; i < NVLXI_UUID_BYTES; i++)
        place = place << 8 | uuid[i];
    return place;
}

uint64_t nvlxi_remote_turn(const struct nvlxi_remote *r, int gpu, uint16_t device) {
    return place_of(r->uuids[device]) - place_of(r->uuids[gpu]) - 1;
}

static int compare_starts(const void *a, const void *b) {
    const struct nvlxi_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Adds the ranges of a region: one in each run that it lies in. */
static size_t add_ranges(const struct nvlxi_peer_table *table, const struct nvlxi_region_record *region,
                         const uint16_t *places, struct nvlxi_range *ranges, size_t count) {
    const uint64_t end = region->address + region->length;
    uint64_t at = region->address;
    for (uint32_t segment = region->segment; at < end; segment++) {
        const uint32_t owner = table->runs.of_segment[segment];
        const struct nvlxi_run *run = &table->runs.run[owner];
        const uint64_t stop = nvlxi_min(end, run->base + run->size);
        ranges[count++] = (struct nvlxi_range){.joined = at > run->base,
                                               .start = at,
                                               .end = stop,
                                               .owner = owner,
                                               .access = (uint8_t)region->access,
                                               .place = places[segment],
                                               .since = region->since};
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
    uint16_t *places = malloc((d->segment_count + 1) * sizeof *places);
    struct nvlxi_range *sorted = most <= RANGES_MAX ? malloc((most + 1) * sizeof *sorted) : NULL;
    if (!places || !sorted)
        goto free_both;
    for (size_t i = 0; i < d->segment_count; i++)
        places[i] = nvlxi_remote_place(r, &d->segments[i]);
    for (size_t i = 0; i < d->region_count; i++)
        if (d->regions[i].segment != NVLXI_NO_SEGMENT)
            count = add_ranges(table, &d->regions[i], places, sorted, count);
    qsort(sorted, count, sizeof *sorted, compare_starts);
    code = nvlxi_intervals_build(sorted, count, &table->ranges);
free_both:
    free(sorted);
    free(places);
    return code;
}

/* ---- Views -------------------------------------------------------------------------------------------- */

static int build_views(const struct nvlxi_remote *r, struct nvlxi_peer_table *table) {
    const size_t room = table->runs.room;
    table->views = calloc((size_t)r->gpus, sizeof *table->views);
    if (!table->views)
        return NVLX_ENOMEM;
    for (int gpu = 0; gpu < r->gpus; gpu++) {
        struct nvlxi_view *view = &table->views[gpu];
        view->offset = malloc(room * sizeof *view->offset);
        view->mapping = calloc(room, sizeof(*view->mapping));
        if (!view->offset || !view->mapping)
            return NVLX_ENOMEM;
        for (size_t i = 0; i < room; i++)
            atomic_init(&view->offset[i], NVLXI_UNMAPPED);
    }
    return 0;
}

/* ---- Regions ------------------------------------------------------------------------------------------ */

struct id {
    uint64_t since;
    uint32_t region;
};

static int compare_ids(const void *a, const void *b) {
    const struct id *x = a, *y = b;
    return (x->since > y->since) - (x->since < y->since);
}

/* Whether each region has an id of its own, of the time before the descriptor. */
static bool are_ids(const struct id *ids, size_t count, uint64_t generation) {
    for (size_t i = 0; i < count; i++)
        if (ids[i].since <= (i ? ids[i - 1].since : 0) || ids[i].since > generation)
            return false;
    return true;
}

static int order_ids(struct nvlxi_peer_table *table) {
    const struct nvlxi_descriptor *d = table->descriptor;
    const struct nvlxi_order none = {.leaves = 0};
    struct id *ids = malloc((d->region_count + 1) * sizeof *ids);
    if (!ids || nvlxi_order_copy(&none, (uint32_t)table->region_room, &table->by_id)) {
        free(ids);
        return NVLX_ENOMEM;
    }
    for (size_t i = 0; i < d->region_count; i++)
        ids[i] = (struct id){d->regions[i].since, (uint32_t)i};
    qsort(ids, d->region_count, sizeof *ids, compare_ids);
    table->has_ids = are_ids(ids, d->region_count, d->identity.generation);
    for (size_t i = 0; i < d->region_count && table->has_ids; i++)
        nvlxi_order_insert(&table->by_id, ids[i].since, ids[i].region + 1);
    free(ids);
    return 0;
}

/* Memory that is not touched until something is added. */
static int make_room(struct nvlxi_peer_table *table) {
    struct nvlxi_descriptor *d = table->descriptor;
    const size_t count = d->region_count;
    table->region_room = nvlxi_max(count, nvlxi_min(count + count / 8 + SPARE, NVLXI_REGIONS_MAX));
    struct nvlxi_region_record *regions = realloc(d->regions, (table->region_room + 1) * sizeof *regions);
    if (regions)
        d->regions = regions;
    struct nvlxi_segment_record *segments = realloc(d->segments, table->runs.segment_room * sizeof *segments);
    if (segments)
        d->segments = segments;
    table->recent.entry = malloc((table->region_room + 1) * sizeof *table->recent.entry);
    table->sleepers = malloc((table->region_room + 1) * sizeof *table->sleepers);
    table->sleeper_of = malloc((table->region_room + 1) * sizeof *table->sleeper_of);
    return regions && segments && table->recent.entry && table->sleepers && table->sleeper_of ? 0 : NVLX_ENOMEM;
}

void nvlxi_peer_table_sleep(struct nvlxi_peer_table *table, size_t place) {
    table->descriptor->regions[place].suspended = true;
    table->sleeper_of[place] = (uint32_t)table->sleeper_count;
    table->sleepers[table->sleeper_count++] = (uint32_t)place;
}

void nvlxi_peer_table_wake(struct nvlxi_peer_table *table, size_t place) {
    const uint32_t last = table->sleepers[--table->sleeper_count];
    table->sleepers[table->sleeper_of[place]] = last;
    table->sleeper_of[last] = table->sleeper_of[place];
    table->descriptor->regions[place].suspended = false;
}

bool nvlxi_peer_table_owns(const struct nvlxi_peer_table *table, const char *name) {
    const char *built = table->descriptor->names;
    return name[0] && !((uintptr_t)name >= (uintptr_t)built && (uintptr_t)name < (uintptr_t)table->names_end);
}

/* The names of the descriptor's regions, which are all that there are yet, lie in one piece of memory. */
static void find_names_end(struct nvlxi_peer_table *table) {
    const struct nvlxi_descriptor *d = table->descriptor;
    table->names_end = d->names;
    for (size_t i = 0; i < d->region_count; i++)
        if (d->regions[i].name[0] && (uintptr_t)d->regions[i].name >= (uintptr_t)table->names_end)
            table->names_end = d->regions[i].name + strlen(d->regions[i].name) + 1;
}

/* One that is found by `by_name` keeps its name, by which the others are found there. */
char *nvlxi_peer_table_leave(struct nvlxi_peer_table *table, size_t place) {
    struct nvlxi_region_record *region = &table->descriptor->regions[place];
    const bool owned = nvlxi_peer_table_owns(table, region->name), built = region->name[0] && !owned;
    uint32_t *list = built ? &table->gone_built : &table->gone;
    char *name = owned ? (char *)(uintptr_t)region->name : NULL;
    if (owned)
        nvlxi_name_index_remove(&table->recent, table->descriptor->regions, place);
    region->name = built ? region->name : "";
    region->access = NVLXI_GONE;
    region->segment = *list;
    *list = (uint32_t)place + 1;
    table->gone_count++;
    return name;
}

static size_t take_gone(struct nvlxi_peer_table *table, uint32_t *list) {
    const size_t place = *list - 1;
    *list = table->descriptor->regions[place].segment;
    table->gone_count--;
    return place;
}

/* To take a name out of `by_name` costs most, so that is the last resort. */
size_t nvlxi_peer_table_take_place(struct nvlxi_peer_table *table) {
    struct nvlxi_descriptor *d = table->descriptor;
    if (table->gone)
        return take_gone(table, &table->gone);
    if (d->region_count < table->region_room)
        return d->region_count++;
    const size_t place = take_gone(table, &table->gone_built);
    nvlxi_name_index_remove(&d->by_name, d->regions, place);
    return place;
}

static void list_sleepers(struct nvlxi_peer_table *table) {
    const struct nvlxi_descriptor *d = table->descriptor;
    for (size_t i = d->region_count - d->suspended_count; i < d->region_count; i++)
        nvlxi_peer_table_sleep(table, i);
}

const struct nvlxi_region_record *nvlxi_peer_table_find(const struct nvlxi_peer_table *table, const char *name) {
    const struct nvlxi_descriptor *d = table->descriptor;
    const struct nvlxi_region_record *region = nvlxi_name_index_find(&d->by_name, d->regions, name);
    return region && region->access != NVLXI_GONE ? region : nvlxi_name_index_find(&table->recent, d->regions, name);
}

/* ---- Tables ------------------------------------------------------------------------------------------- */

void nvlxi_peer_table_free(const struct nvlxi_remote *r, struct nvlxi_peer_table *table) {
    for (int gpu = 0; table->views && gpu < r->gpus; gpu++) {
        free(table->views[gpu].offset);
        free(table->views[gpu].mapping);
    }
    for (size_t i = 0; i < table->descriptor->region_count; i++)
        if (nvlxi_peer_table_owns(table, table->descriptor->regions[i].name))
            free((char *)(uintptr_t)table->descriptor->regions[i].name);
    free(table->views);
    nvlxi_runs_free(&table->runs);
    nvlxi_intervals_free(&table->ranges);
    nvlxi_order_free(&table->by_id);
    nvlxi_name_index_free(&table->recent);
    free(table->sleepers);
    free(table->sleeper_of);
    nvlxi_descriptor_free(table->descriptor);
    free(table);
}

int nvlxi_peer_table_make(struct nvlxi_remote *r, struct nvlxi_descriptor *descriptor, struct nvlxi_peer_table **made) {
    struct nvlxi_peer_table *table = calloc(1, sizeof *table);
    if (!table) {
        nvlxi_descriptor_free(descriptor);
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a peer");
    }
    table->descriptor = descriptor;
    find_names_end(table);
    table->own = nvlxi_identity_same_process(&descriptor->identity, &r->context->identity);
    int code = nvlxi_runs_make(descriptor, table->own, &table->runs);
    if (!code && !(code = make_room(table)) && !(code = order_ids(table)) &&
        !(code = build_ranges(r, table->own, table)))
        code = build_views(r, table);
    if (code) {
        nvlxi_fail(code, "no memory for a peer with %zu segments and %zu regions", descriptor->segment_count,
                   descriptor->region_count);
        nvlxi_peer_table_free(r, table);
        return code;
    }
    list_sleepers(table);
    *made = table;
    return 0;
}
