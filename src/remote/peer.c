/* Peers, and what is known of them: tables, each made of one descriptor. SPDX-License-Identifier: Apache-2.0 */
#include "remote/peer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/identity.h"
#include "base/utf8.h"
#include "remote/mapping.h"

#define RANGES_MAX (4 * (size_t)NVLXI_REGIONS_MAX) /* of a peer's table: who wrote its text is not trusted */

int nvlxi_remote_init(struct nvlxi_remote *r, const struct nvlxi_context *context) {
    r->context = context;
    int code = context->ops->count(&r->gpus);
    for (int gpu = 0; !code && gpu < r->gpus && gpu < NVLXI_DEVICES_MAX; gpu++) {
        code = context->ops->uuid(context->device, gpu, r->uuids[gpu]);
        r->uuid_count++;
    }
    if (code || (code = nvlxi_life_begin(context->identity.engine, &r->life)))
        return code;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->opened, NULL);
    return 0;
}

void nvlxi_remote_free(struct nvlxi_remote *remote) {
    nvlxi_life_end(remote->life);
    pthread_cond_destroy(&remote->opened);
    pthread_mutex_destroy(&remote->mutex);
}

/* ---- Tables -------------------------------------------------------------------------------------------- */

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
        ranges[count++] = (struct nvlxi_range){.start = at,
                                               .end = stop,
                                               .owner = owner,
                                               .access = (uint8_t)region->access,
                                               .device = devices[segment],
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

static void free_table(const struct nvlxi_remote *r, struct nvlxi_peer_table *table) {
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

static int make_table(struct nvlxi_remote *r, const char *text, size_t length, struct nvlxi_peer_table **made) {
    struct nvlxi_peer_table *table = calloc(1, sizeof *table);
    if (!table)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a peer");
    int code = nvlxi_descriptor_decode(text, length, &table->descriptor);
    if (!code)
        code = check_origin(r, table->descriptor);
    if (code)
        goto free_made;
    const bool own = nvlxi_identity_same_process(&table->descriptor->identity, &r->context->identity);
    if ((code = nvlxi_runs_make(table->descriptor, own, &table->runs)) || (code = build_ranges(r, own, table)) ||
        (code = build_views(r, table))) {
        nvlxi_fail(code, "no memory for a peer with %zu segments and %zu regions", table->descriptor->segment_count,
                   table->descriptor->region_count);
        goto free_made;
    }
    *made = table;
    return 0;
free_made:
    free_table(r, table);
    return code;
}

/* ---- Peers ------------------------------------------------------------------------------------------- */

/* An engine of this process that is not among the living is gone. */
static void find_life(struct nvlx_peer *peer) {
    const char *engine = peer->table->descriptor->identity.engine;
    if (!peer->same_process || (peer->life = nvlxi_life_find(engine)))
        return;
    snprintf(peer->reason, sizeof peer->reason, "the peer is gone: engine %s, of this process, was destroyed", engine);
    atomic_store(&peer->gone, true);
}

int nvlxi_peer_open(struct nvlxi_remote *remote, const char *text, size_t length, struct nvlx_peer **peer) {
    struct nvlx_peer *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a peer");
    int code = make_table(remote, text, length, &made->table);
    if (code) {
        free(made);
        return code;
    }
    made->remote = remote;
    made->same_process = nvlxi_identity_same_process(&made->table->descriptor->identity, &remote->context->identity);
    find_life(made);
    *peer = made;
    return 0;
}

uint64_t nvlxi_peer_generation(struct nvlx_peer *peer) {
    nvlxi_tables_read(peer->remote->context->tables);
    uint64_t generation = peer->table->descriptor->identity.generation;
    nvlxi_tables_read_end(peer->remote->context->tables);
    return generation;
}

/* How far the pieces from `start` on go that are as old as a generation. With the tables held for reading. */
static uint64_t find_younger(const struct nvlxi_intervals *ranges, uint64_t start, uint64_t end, uint32_t access,
                             uint64_t generation) {
    uint64_t at = start;
    for (uint32_t id = nvlxi_intervals_find(ranges, start); id && at < end; id = nvlxi_intervals_next(ranges, id)) {
        const struct nvlxi_range *piece = &ranges->piece[id];
        if (piece->start > at || (piece->access & access) != access ||
            nvlxi_intervals_born(ranges, id) > nvlxi_max(generation, 1))
            break;
        at = piece->end;
    }
    return at;
}

int nvlxi_peer_still_has(struct nvlx_peer *peer, uint64_t start, uint64_t end, uint32_t access, uint64_t generation) {
    nvlxi_tables_read(peer->remote->context->tables);
    const uint64_t at = find_younger(&peer->table->ranges, start, end, access, generation);
    nvlxi_tables_read_end(peer->remote->context->tables);
    return at >= end
               ? 0
               : nvlxi_fail(NVLX_ESTALE, "the peer has withdrawn its range 0x%" PRIx64 " + %" PRIu64, at, end - at);
}

static int check_generation(const struct nvlxi_identity *known, const struct nvlxi_identity *offered) {
    if (strcmp(known->engine, offered->engine))
        return nvlxi_fail(
            NVLX_ESTALE,
            "the descriptor is of engine %s, the peer is engine %s: it was restarted; open it as a new peer",
            offered->engine, known->engine);
    if (offered->generation < known->generation)
        return nvlxi_fail(NVLX_ESTALE, "the descriptor is of generation %" PRIu64 ", %" PRIu64 " is known already",
                          offered->generation, known->generation);
    return 0;
}

/* Moves the mappings over to a new table, under both locks. */
static struct nvlxi_peer_table *swap_table(struct nvlx_peer *peer, struct nvlxi_peer_table *table) {
    struct nvlxi_peer_table *old = peer->table;
    struct nvlxi_mapping *mapping, *next;
    HASH_ITER(hh, peer->mappings, mapping, next) {
        if (mapping->ready && !nvlxi_mapping_publish(table, mapping))
            nvlxi_mapping_retire(peer, mapping);
    }
    peer->table = table;
    atomic_fetch_add(&peer->changes, 1);
    return old;
}

int nvlxi_peer_update(struct nvlx_peer *peer, const char *text, size_t length) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_peer_table *table;
    int code = nvlxi_peer_check(peer);
    if (code || (code = make_table(r, text, length, &table)))
        return code;
    pthread_mutex_lock(&r->mutex);
    code = check_generation(&peer->table->descriptor->identity, &table->descriptor->identity);
    if (!code && table->descriptor->identity.generation != peer->table->descriptor->identity.generation) {
        nvlxi_tables_write(r->context->tables);
        table = swap_table(peer, table);
        nvlxi_tables_write_end(r->context->tables);
    }
    pthread_mutex_unlock(&r->mutex);
    free_table(r, table);
    return code;
}

int nvlxi_peer_find(struct nvlx_peer *peer, const char *name, uint64_t *address, uint64_t *length) {
    int code = 0;
    nvlxi_tables_read(peer->remote->context->tables);
    const struct nvlxi_descriptor *d = peer->table->descriptor;
    const struct nvlxi_region_record *region = nvlxi_name_index_find(&d->by_name, d->regions, name);
    if (region) {
        *address = region->address;
        *length = region->length;
    } else {
        code = nvlxi_fail(NVLX_ENOENT, "the peer has no region named \"%.*s\"", nvlxi_text_cut(name, NVLXI_NAME_MAX),
                          name);
    }
    nvlxi_tables_read_end(peer->remote->context->tables);
    return code;
}

/* Those that are open. Under the mutex. */
static void retire_all(struct nvlx_peer *peer) {
    struct nvlxi_mapping *mapping, *next;
    HASH_ITER(hh, peer->mappings, mapping, next) {
        if (mapping->ready)
            nvlxi_mapping_retire(peer, mapping);
    }
}

int nvlxi_peer_close(struct nvlx_peer *peer) {
    struct nvlxi_remote *r = peer->remote;
    pthread_mutex_lock(&r->mutex);
    retire_all(peer);
    pthread_mutex_unlock(&r->mutex);
    int code = nvlxi_mappings_close(peer, NVLXI_CLOSE_ALL);
    nvlxi_life_drop(peer->life);
    free_table(r, peer->table);
    free(peer);
    return code;
}

/* ---- A peer's end --------------------------------------------------------------------------------------- */

/* Lists that were checked before the peer was gone have pinned what they need once the tables are free. */
void nvlxi_peer_lose(struct nvlx_peer *peer) {
    struct nvlxi_remote *r = peer->remote;
    snprintf(peer->reason, sizeof peer->reason, "%s", nvlx_last_error());
    pthread_mutex_lock(&r->mutex);
    nvlxi_tables_write(r->context->tables);
    atomic_store(&peer->gone, true);
    nvlxi_tables_write_end(r->context->tables);
    retire_all(peer);
    pthread_mutex_unlock(&r->mutex);
}

const char *nvlxi_peer_why_gone(const struct nvlx_peer *peer) {
    if (nvlxi_unlikely(atomic_load_explicit(&peer->gone, memory_order_acquire)))
        return peer->reason;
    if (nvlxi_unlikely(peer->life && nvlxi_life_is_over(peer->life)))
        return "the peer is gone: its engine, of this process, was destroyed";
    return NULL;
}

int nvlxi_peer_check(const struct nvlx_peer *peer) {
    const char *why = nvlxi_peer_why_gone(peer);
    return why ? nvlxi_fail(NVLX_ESTALE, "%s", why) : 0;
}

int nvlxi_peer_test(const struct nvlx_peer *peer) {
    const char *why = nvlxi_peer_why_gone(peer);
    return why ? nvlxi_fail_again(NVLX_ESTALE, why) : 0;
}
