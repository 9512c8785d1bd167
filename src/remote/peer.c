/* SPDX-License-Identifier: Apache-2.0 */
#include "remote/peer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/identity.h"
#include "base/utf8.h"

#define MAP_TRIES       32 /* to map what changes meanwhile, at least ... */
#define MAP_PATIENCE_NS INT64_C(10000000000)

int nvlxi_remote_init(struct nvlxi_remote *remote, const struct nvlxi_context *context) {
    struct nvlxi_remote *r = remote;
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

/* ---- Mappings ---------------------------------------------------------------------------------------- */

/* Enters a READY mapping into a table. False if the table does not have the run, or calls another one by its serial:
 * who wrote the text is not trusted, and nothing beyond what was opened may be reached. Under the mutex. */
static bool publish(const struct nvlxi_peer_table *table, struct nvlxi_mapping *mapping) {
    const struct nvlxi_run *run = nvlxi_runs_find(&table->runs, mapping->key.base, mapping->key.serial);
    if (!run || run->size != mapping->size || run->read_only != mapping->read_only)
        return false;
    const struct nvlxi_view *view = &table->views[mapping->key.gpu];
    const size_t index = (size_t)(run - table->runs.run);
    view->mapping[index] = mapping; /* NOLINT(clang-analyzer-core.NullDereference): the GPU is one of the views' */
    atomic_store_explicit(&view->offset[index], mapping->address - run->base, memory_order_release);
    return true;
}

/* Takes a mapping out of use; to be closed when nothing pins it. Under the mutex. */
static void retire(struct nvlx_peer *peer, struct nvlxi_mapping *mapping) {
    HASH_DEL(peer->mappings, mapping);
    atomic_store(&mapping->retired, true);
    LL_PREPEND(peer->retired, mapping);
}

static int close_mapping(struct nvlx_peer *peer, struct nvlxi_mapping *mapping) {
    struct nvlxi_remote *r = peer->remote;
    int code =
        mapping->foreign ? r->context->ops->unmap(r->context->device, (int)mapping->key.gpu, mapping->address) : 0;
    atomic_fetch_sub(&r->mappings, 1);
    free(mapping->own);
    free(mapping);
    return code;
}

/* Closes what is retired and not pinned: nothing can pin it any more. Blocks in the driver, without a lock. */
static int close_retired(struct nvlx_peer *peer) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_mapping *mapping, *next, *pinned = NULL, *closing = NULL;
    int code = 0;
    pthread_mutex_lock(&r->mutex);
    LL_FOREACH_SAFE(peer->retired, mapping, next) {
        if (atomic_load(&mapping->pins))
            LL_PREPEND(pinned, mapping);
        else
            LL_PREPEND(closing, mapping);
    }
    peer->retired = pinned;
    pthread_mutex_unlock(&r->mutex);
    LL_FOREACH_SAFE(closing, mapping, next) {
        int failed = close_mapping(peer, mapping);
        code = code ? code : failed;
    }
    return code;
}

/* What a mapping is opened from: a copy, since the table may be replaced meanwhile. */
struct opening {
    struct nvlxi_descriptor owner; /* identity and address, no segments or regions */
    struct nvlxi_segment_record *segments;
    size_t count;
    uint64_t size; /* of all */
    bool read_only;
};

static int fail_freed(uint64_t base) {
    return nvlxi_fail(NVLX_ESTALE, "segment 0x%" PRIx64 " of this process was freed", base);
}

int nvlxi_mapping_check(const struct nvlxi_remote *remote, const struct nvlxi_mapping *mapping) {
    for (size_t i = 0; i < mapping->own_count; i++) {
        int code = remote->context->ops->alive(remote->context->device, &mapping->own[i]);
        if (code)
            return code == NVLX_ESTALE ? fail_freed(mapping->own[i].base) : code;
    }
    return 0;
}

/* Finds the allocation that a segment of this process is. Whether it is still there is asked first: of what has been
 * freed, the driver says no more than that it does not know it. */
static int find_own(const struct nvlxi_remote *r, const struct nvlxi_segment_record *segment,
                    struct nvlxi_allocation *allocation) {
    const struct nvlxi_allocation told = {.kind = segment->kind, .base = segment->base, .serial = segment->serial};
    int code = r->context->ops->alive(r->context->device, &told);
    if (code)
        return code == NVLX_ESTALE ? fail_freed(segment->base) : code;
    code = r->context->ops->resolve(r->context->device, segment->base, allocation);
    if (code)
        return code;
    return allocation->serial == segment->serial && allocation->base == segment->base &&
                   allocation->size == segment->size
               ? 0
               : fail_freed(segment->base);
}

static int open_own(struct nvlx_peer *peer, const struct opening *opening, struct nvlxi_mapping *mapping) {
    int code = 0;
    mapping->own = calloc(opening->count, sizeof *mapping->own);
    if (!mapping->own)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to map %zu segments", opening->count);
    for (; mapping->own_count < opening->count && !code; mapping->own_count++)
        code = find_own(peer->remote, &opening->segments[mapping->own_count], &mapping->own[mapping->own_count]);
    mapping->address = opening->segments->base;
    mapping->memory_gpu = mapping->own[opening->count - 1].gpu;
    return code;
}

static bool needs_files(const struct opening *opening) {
    for (size_t i = 0; i < opening->count; i++)
        if (opening->segments[i].file)
            return true;
    return false;
}

static int open_files(const struct nvlx_peer *peer, const struct opening *opening, struct nvlxi_files **files) {
    struct nvlxi_file_server *server = peer->remote->file_server;
    *files = NULL;
    return needs_files(opening) ? server->open(server, peer, &opening->owner, opening->segments, opening->count, files)
                                : 0;
}

static int open_mapping(struct nvlx_peer *peer, const struct opening *opening, struct nvlxi_mapping *mapping) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_map map = {.gpu = (int)mapping->key.gpu,
                            .owner = &opening->owner.identity,
                            .segments = opening->segments,
                            .count = opening->count,
                            .read_only = opening->read_only};
    int code = nvlxi_peer_check(peer);
    if (code)
        return code;
    if (peer->same_process)
        return open_own(peer, opening, mapping);
    mapping->foreign = true;
    mapping->memory_gpu = map.gpu;
    if ((code = open_files(peer, opening, &map.files)))
        return code;
    code = r->context->ops->map(r->context->device, &map, &mapping->address);
    if (map.files)
        r->file_server->close(r->file_server, map.files);
    return code;
}

/* One try to open a PENDING mapping, on the stack of who makes it: stays until nobody waits for it any more. */
struct nvlxi_opening_try {
    unsigned waiting;
    bool over;
    int code;
    char reason[256];
};

/* Waits for another thread's try, and fails as it does: to try again would make each thread wait as long as all before
 * it. Under the mutex. */
static int await_opening(struct nvlxi_remote *r, struct nvlxi_opening_try *opening_try) {
    opening_try->waiting++;
    while (!opening_try->over)
        pthread_cond_wait(&r->opened, &r->mutex);
    int code = opening_try->code;
    if (code && code != NVLX_EAGAIN)
        nvlxi_fail_again(code, opening_try->reason);
    if (--opening_try->waiting == 0)
        pthread_cond_broadcast(&r->opened);
    return code;
}

/* Under the mutex. */
static void end_opening(struct nvlxi_remote *r, struct nvlxi_opening_try *opening_try, int code) {
    opening_try->over = true;
    opening_try->code = code;
    if (code)
        snprintf(opening_try->reason, sizeof opening_try->reason, "%s", nvlx_last_error());
    pthread_cond_broadcast(&r->opened);
    while (opening_try->waiting)
        pthread_cond_wait(&r->opened, &r->mutex);
}

/* Makes an opened mapping READY. NVLX_EAGAIN (not logged): the peer's table was replaced meanwhile, and has no use for
 * it. Under the mutex. */
static int finish_mapping(struct nvlx_peer *peer, struct nvlxi_mapping *mapping) {
    mapping->ready = true;
    mapping->opening = NULL;
    atomic_fetch_add(&peer->remote->mappings, 1);
    if (publish(peer->table, mapping))
        return 0;
    retire(peer, mapping);
    return NVLX_EAGAIN;
}

/* Adds a PENDING mapping, opens it without the lock, and makes it READY or removes it. Under the mutex. */
static int create_mapping(struct nvlx_peer *peer, const struct nvlxi_mapping_key *key, const struct opening *opening) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_opening_try opening_try = {.over = false};
    struct nvlxi_mapping *mapping = calloc(1, sizeof *mapping);
    bool hash_full = mapping == NULL;
    if (mapping) {
        mapping->key = *key;
        mapping->opening = &opening_try;
        mapping->size = opening->size;
        mapping->read_only = opening->read_only;
        HASH_ADD(hh, peer->mappings, key, sizeof mapping->key, mapping);
    }
    if (hash_full) {
        free(mapping);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to map segment 0x%" PRIx64, key->base);
    }
    pthread_mutex_unlock(&r->mutex);
    int code = open_mapping(peer, opening, mapping);
    pthread_mutex_lock(&r->mutex);
    if (code) {
        HASH_DEL(peer->mappings, mapping);
        free(mapping->own);
        free(mapping);
    } else {
        code = finish_mapping(peer, mapping);
    }
    end_opening(r, &opening_try, code);
    return code;
}

static int check_kind(const struct nvlxi_segment_record *segment) {
    if (segment->kind == NVLXI_KIND_UNKNOWN)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "the peer's segment 0x%" PRIx64 " is of kind \"%s\", which this version cannot open",
                          segment->base, segment->kind_name);
    return 0;
}

/* Copies what is needed to open a run; its segments are to be freed. NVLX_EAGAIN (not logged): there is no such run
 * (any more). Under the mutex. */
static int prepare_opening(const struct nvlx_peer *peer, uint64_t base, uint64_t serial, struct opening *opening) {
    const struct nvlxi_descriptor *d = peer->table->descriptor;
    const struct nvlxi_run *run = nvlxi_runs_find(&peer->table->runs, base, serial);
    if (!run)
        return NVLX_EAGAIN;
    int code = check_kind(&d->segments[run->first]);
    if (code)
        return code;
    *opening = (struct opening){
        .owner.identity = d->identity, .count = run->count, .size = run->size, .read_only = run->read_only};
    memcpy(opening->owner.address, d->address, sizeof d->address);
    opening->segments = malloc(run->count * sizeof *opening->segments);
    if (!opening->segments)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to map %" PRIu32 " segments", run->count);
    memcpy(opening->segments, &d->segments[run->first], run->count * sizeof *opening->segments);
    return 0;
}

int nvlxi_peer_map_run(struct nvlx_peer *peer, int gpu, uint64_t base, uint64_t serial) {
    struct nvlxi_remote *r = peer->remote;
    const struct nvlxi_mapping_key key = {base, serial, (uint64_t)gpu};
    struct nvlxi_mapping *mapping;
    struct opening opening;
    int code = 0;
    pthread_mutex_lock(&r->mutex);
    for (;;) {
        HASH_FIND(hh, peer->mappings, &key, sizeof key, mapping);
        if (!mapping || mapping->ready || (code = await_opening(r, mapping->opening)))
            break;
    }
    if (mapping && !code) {
        code = nvlxi_mapping_check(r, mapping);
    } else if (!code && !(code = prepare_opening(peer, base, serial, &opening))) {
        code = create_mapping(peer, &key, &opening);
        free(opening.segments);
    }
    pthread_mutex_unlock(&r->mutex);
    return code;
}

/* The run that holds `address`, which is registered, and the end of what lies in it of [address, end), the rest of a
 * range from `first` on. */
static int run_at(struct nvlx_peer *peer, uint64_t first, uint64_t address, uint64_t end, struct nvlxi_mapping_key *key,
                  uint64_t *stop) {
    const struct nvlxi_intervals *ranges = &peer->table->ranges;
    uint32_t piece = nvlxi_intervals_find(ranges, address);
    uint64_t where = address;
    bool registered = false;
    if (piece && ranges->piece[piece].start <= address) {
        const struct nvlxi_run *run = &peer->table->runs.run[ranges->piece[piece].owner];
        *key = (struct nvlxi_mapping_key){.base = run->base, .serial = run->serial};
        *stop = nvlxi_min(end, run->base + run->size);
        if (nvlxi_intervals_cover(ranges, piece, address, *stop - address, NVLX_ACCESS_NONE, &where, &registered))
            return 0;
    }
    return nvlxi_fail(NVLX_ERANGE,
                      "the peer's range 0x%" PRIx64 " + %" PRIu64 " is not in its registered regions (byte 0x%" PRIx64
                      " is missing)",
                      first, end - first, where);
}

/* Maps the run that holds `address`; *address becomes where the next one begins. NVLX_EAGAIN (not logged): as
 * nvlxi_peer_map_run. */
static int map_next(struct nvlx_peer *peer, int gpu, uint64_t first, uint64_t *address, uint64_t end) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_mapping_key key = {0};
    uint64_t stop = end;
    nvlxi_tables_read(r->context->tables);
    int code = run_at(peer, first, *address, end, &key, &stop);
    nvlxi_tables_read_end(r->context->tables);
    if (!code)
        code = nvlxi_peer_map_run(peer, gpu, key.base, key.serial);
    if (!code)
        *address = stop;
    return code;
}

int nvlxi_peer_map_range(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_patience patience = {0};
    const uint64_t first = address;
    uint64_t end;
    if (gpu < 0 || gpu >= r->gpus)
        return nvlxi_fail(NVLX_EINVAL, "GPU %d is not one of the %d GPUs here", gpu, r->gpus);
    if (!nvlxi_add(address, length, &end))
        return nvlxi_fail(NVLX_EINVAL, "address 0x%" PRIx64 " + length %" PRIu64 " wraps around", address, length);
    int code = nvlxi_peer_check(peer);
    while (address < end && !code) {
        code = map_next(peer, gpu, first, &address, end);
        if (code == NVLX_EAGAIN)
            code = nvlxi_peer_map_again(&patience);
    }
    return code;
}

int nvlxi_peer_map_again(struct nvlxi_patience *patience) {
    if (!patience->tries++)
        patience->deadline = nvlxi_deadline(MAP_PATIENCE_NS);
    if (patience->tries < MAP_TRIES || nvlxi_now_ns() < patience->deadline)
        return 0;
    return nvlxi_fail(NVLX_ETIMEDOUT, "a peer's segments change faster than they can be mapped");
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
    int code = nvlxi_peer_table_make(remote, text, length, &made->table);
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
        if (mapping->ready && !publish(table, mapping))
            retire(peer, mapping);
    }
    peer->table = table;
    return old;
}

/* An update holds, whatever a driver says of closing what it replaced. */
static void close_replaced(struct nvlx_peer *peer) {
    struct nvlxi_attempt closing;
    nvlxi_attempt_begin(&closing);
    close_retired(peer);
    nvlxi_attempt_note(&closing, NVLX_LOG_WARNING, "what a peer has withdrawn could not be closed");
}

int nvlxi_peer_update(struct nvlx_peer *peer, const char *text, size_t length) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_peer_table *table;
    int code = nvlxi_peer_check(peer);
    if (code || (code = nvlxi_peer_table_make(r, text, length, &table)))
        return code;
    pthread_mutex_lock(&r->mutex);
    code = check_generation(&peer->table->descriptor->identity, &table->descriptor->identity);
    if (!code && table->descriptor->identity.generation != peer->table->descriptor->identity.generation) {
        nvlxi_tables_write(r->context->tables);
        table = swap_table(peer, table);
        nvlxi_tables_write_end(r->context->tables);
    }
    pthread_mutex_unlock(&r->mutex);
    nvlxi_peer_table_free(r, table);
    if (!code)
        close_replaced(peer);
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

int nvlxi_peer_close(struct nvlx_peer *peer) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_mapping *mapping, *next;
    pthread_mutex_lock(&r->mutex);
    HASH_ITER(hh, peer->mappings, mapping, next) {
        retire(peer, mapping);
    }
    pthread_mutex_unlock(&r->mutex);
    int code = close_retired(peer);
    nvlxi_life_drop(peer->life);
    nvlxi_peer_table_free(r, peer->table);
    free(peer);
    return code;
}
