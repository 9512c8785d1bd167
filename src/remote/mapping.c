/* Opens what peers share, once, and closes it when nothing uses it. SPDX-License-Identifier: Apache-2.0 */
#include "remote/mapping.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/trace.h"
#include "remote/link.h"
#include "remote/tell.h"

#define MAP_TRIES       32 /* to map what changes meanwhile, at least ... */
#define MAP_PATIENCE_NS INT64_C(10000000000)

/* ---- READY -> RETIRED -> closed ------------------------------------------------------------------------- */

bool nvlxi_mapping_publish(const struct nvlxi_peer_table *table, struct nvlxi_mapping *mapping) {
    const struct nvlxi_run *run = nvlxi_runs_find(&table->runs, mapping->key.base, mapping->key.serial);
    if (!run || run->size != mapping->size || run->read_only != mapping->read_only)
        return false;
    const struct nvlxi_view *view = &table->views[mapping->key.gpu];
    const size_t index = (size_t)(run - table->runs.run);
    view->mapping[index] = mapping; /* NOLINT(clang-analyzer-core.NullDereference): the GPU is one of the views' */
    atomic_store_explicit(&view->offset[index], mapping->address - run->base, memory_order_release);
    return true;
}

void nvlxi_mapping_retire(struct nvlx_peer *peer, struct nvlxi_mapping *mapping) {
    HASH_DEL(peer->mappings, mapping);
    atomic_store(&mapping->retired, true);
    LL_PREPEND(peer->retired, mapping);
}

void nvlxi_mapping_revoke(struct nvlx_peer *peer, struct nvlxi_mapping *mapping) {
    nvlxi_count_alone(&peer->cell->revoked, 1);
    nvlxi_mapping_retire(peer, mapping);
}

void nvlxi_mapping_keep(struct nvlxi_mapping *mapping) {
    atomic_fetch_add(&mapping->users, 1);
}

void nvlxi_mapping_drop(struct nvlxi_mapping *mapping) {
    if (atomic_fetch_sub(&mapping->users, 1) > 1)
        return;
    free(mapping->own);
    free(mapping);
}

static int close_mapping(struct nvlx_peer *peer, struct nvlxi_mapping *mapping) {
    struct nvlxi_remote *r = peer->remote;
    const bool traced = nvlxi_trace_begin(NVLXI_TRACE_CLOSE, mapping->size);
    int code =
        mapping->foreign ? r->context->ops->unmap(r->context->device, (int)mapping->key.gpu, mapping->address) : 0;
    nvlxi_trace_end(traced);
    nvlxi_tell_closed(peer, mapping, code);
    atomic_fetch_sub(&r->mappings, 1);
    nvlxi_count_alone(&peer->cell->closed[mapping->kind], 1);
    nvlxi_mapping_drop(mapping);
    return code;
}

static bool is_of(const struct nvlxi_mapping *mapping, enum nvlxi_closing kinds) {
    return kinds & (mapping->waits ? NVLXI_CLOSE_WAITING : NVLXI_CLOSE_AT_ONCE);
}

/* Those that can be closed now, as a list. */
static struct nvlxi_mapping *take_closable(struct nvlx_peer *peer, enum nvlxi_closing kinds) {
    struct nvlxi_mapping *mapping, *next, *left = NULL, *closable = NULL;
    pthread_mutex_lock(&peer->remote->mutex);
    LL_FOREACH_SAFE(peer->retired, mapping, next) {
        if (atomic_load(&mapping->pins) || !is_of(mapping, kinds)) {
            LL_PREPEND(left, mapping);
        } else {
            LL_PREPEND(closable, mapping);
            peer->closing[mapping->waits]++;
        }
    }
    peer->retired = left;
    pthread_mutex_unlock(&peer->remote->mutex);
    return closable;
}

int nvlxi_mappings_close(struct nvlx_peer *peer, enum nvlxi_closing kinds) {
    struct nvlxi_mapping *mapping, *next, *closable = take_closable(peer, kinds);
    int code = 0;
    LL_FOREACH_SAFE(closable, mapping, next) {
        const bool waits = mapping->waits;
        int failed = close_mapping(peer, mapping);
        code = code ? code : failed;
        pthread_mutex_lock(&peer->remote->mutex);
        peer->closing[waits]--;
        pthread_mutex_unlock(&peer->remote->mutex);
    }
    if (atomic_load(&peer->gone) && !nvlxi_mappings_left(peer, NVLXI_CLOSE_ALL))
        nvlxi_peer_unlink(peer);
    return code;
}

/* Whether a mapping that is being opened will be retired at once. Under the mutex. */
static bool is_late(const struct nvlx_peer *peer, const struct nvlxi_mapping *mapping) {
    return !mapping->ready &&
           (atomic_load(&peer->gone) || !nvlxi_runs_find(&peer->table->runs, mapping->key.base, mapping->key.serial));
}

uint32_t nvlxi_mappings_left(struct nvlx_peer *peer, enum nvlxi_closing kinds) {
    const struct nvlxi_mapping *mapping;
    uint32_t left = 0;
    pthread_mutex_lock(&peer->remote->mutex);
    left += kinds & NVLXI_CLOSE_AT_ONCE ? peer->closing[0] : 0;
    left += kinds & NVLXI_CLOSE_WAITING ? peer->closing[1] : 0;
    LL_FOREACH(peer->retired, mapping) {
        left += is_of(mapping, kinds);
    }
    for (mapping = peer->mappings; mapping; mapping = mapping->hh.next)
        left += is_late(peer, mapping) && is_of(mapping, kinds);
    pthread_mutex_unlock(&peer->remote->mutex);
    return left;
}

/* ---- Opening: PENDING -> READY ------------------------------------------------------------------------- */

/* What a mapping is opened from: a copy, since the table may be replaced meanwhile. */
struct opening {
    struct nvlxi_descriptor owner; /* identity and address, no segments or regions */
    struct nvlxi_segment_record *segments;
    size_t count;
    uint64_t size; /* of all */
    bool read_only;
    struct nvlxi_files *files; /* while they are being taken; NULL: none, or they were not asked for yet */
    const struct nvlxi_opening_watch *watch; /* or NULL */
};

static int fail_freed(uint64_t base) {
    return nvlxi_fail(NVLX_ESTALE, "segment 0x%" PRIx64 " of this process was freed", base);
}

static int check_alive(const struct nvlxi_context *context, const struct nvlxi_allocation *own) {
    int code = context->ops->alive(context->device, own);
    return code == NVLX_ESTALE ? fail_freed(own->base) : code;
}

int nvlxi_mapping_check(const struct nvlxi_context *context, const struct nvlxi_mapping *mapping) {
    int code = 0;
    for (size_t i = 0; i < mapping->own_count && !code; i++)
        code = check_alive(context, &mapping->own[i]);
    return code;
}

/* Finds the allocation that a segment of this process is. Whether it is still there is asked first: of what has been
 * freed, the driver says no more than that it does not know it. */
static int find_own(const struct nvlxi_context *context, const struct nvlxi_segment_record *segment,
                    struct nvlxi_allocation *own) {
    const struct nvlxi_allocation told = {.kind = segment->kind, .base = segment->base, .serial = segment->serial};
    int code = check_alive(context, &told);
    if (code || (code = context->ops->resolve(context->device, segment->base, own)))
        return code;
    return own->serial == segment->serial && own->base == segment->base && own->size == segment->size
               ? 0
               : fail_freed(segment->base);
}

/* The same, for the copy engines of a GPU. */
static int take_own(const struct nvlxi_context *context, const struct nvlxi_segment_record *segment, int gpu,
                    struct nvlxi_allocation *own) {
    int code = find_own(context, segment, own);
    return code || own->gpu == gpu ? code : context->ops->let_use(context->device, own, gpu);
}

static int open_own(struct nvlx_peer *peer, const struct opening *opening, struct nvlxi_mapping *mapping) {
    int code = 0;
    mapping->own = calloc(opening->count, sizeof *mapping->own);
    if (!mapping->own)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to map %zu segments", opening->count);
    for (; mapping->own_count < opening->count && !code; mapping->own_count++)
        code = take_own(peer->remote->context, &opening->segments[mapping->own_count], (int)mapping->key.gpu,
                        &mapping->own[mapping->own_count]);
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

static int ask_for_files(const struct nvlx_peer *peer, struct opening *opening) {
    struct nvlxi_file_server *server = peer->remote->file_server;
    return server->open(server, peer, &opening->owner, opening->segments, opening->count, &opening->files);
}

static void close_files(const struct nvlx_peer *peer, struct opening *opening) {
    struct nvlxi_file_server *server = peer->remote->file_server;
    if (opening->files)
        server->close(server, opening->files);
    opening->files = NULL;
}

struct watched { /* a mapping that is being opened */
    const struct nvlxi_opening_watch *watch;
    struct nvlx_peer *peer;
    struct nvlxi_mapping *mapping;
};

static void tell_grown(void *context, uint64_t address, uint64_t length) {
    const struct watched *watched = context;
    watched->mapping->address = address;
    watched->watch->grown(watched->watch->context, watched->peer, watched->mapping, length);
}

static void tell_failed(void *context) {
    const struct watched *watched = context;
    watched->watch->failed(watched->watch->context);
}

/* The files, if there are any, stay open. */
static int open_mapping(struct nvlx_peer *peer, struct opening *opening, struct nvlxi_mapping *mapping) {
    const struct nvlxi_context *context = peer->remote->context;
    struct nvlxi_map map = {.gpu = (int)mapping->key.gpu,
                            .owner = &opening->owner.identity,
                            .segments = opening->segments,
                            .count = opening->count,
                            .read_only = opening->read_only};
    struct watched watched = {opening->watch, peer, mapping};
    const struct nvlxi_map_watch watch = {tell_grown, tell_failed, &watched};
    int code = nvlxi_peer_check(peer);
    if (code)
        return code;
    if (peer->same_process)
        return open_own(peer, opening, mapping);
    mapping->foreign = true;
    mapping->memory_gpu = map.gpu;
    if (!opening->files && needs_files(opening) && (code = ask_for_files(peer, opening)))
        return code;
    map.files = opening->files;
    map.watch = opening->watch ? &watch : NULL;
    return context->ops->map(context->device, &map, &mapping->address);
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
    nvlxi_count_alone(&peer->cell->opened[mapping->kind], 1);
    if (!atomic_load(&peer->gone) && nvlxi_mapping_publish(peer->table, mapping))
        return 0;
    nvlxi_mapping_retire(peer, mapping);
    return NVLX_EAGAIN;
}

/* Adds a PENDING mapping. Under the mutex. */
static int enter_mapping(struct nvlx_peer *peer, const struct nvlxi_mapping_key *key, const struct opening *opening,
                         struct nvlxi_opening_try *opening_try, struct nvlxi_mapping **entered) {
    struct nvlxi_mapping *mapping = calloc(1, sizeof *mapping);
    bool hash_full = mapping == NULL;
    if (mapping) {
        atomic_init(&mapping->users, 1);
        mapping->key = *key;
        mapping->kind = opening->segments->kind;
        mapping->waits = !peer->same_process && (opening->segments->kind == NVLXI_KIND_CUDA_MALLOC ||
                                                 opening->segments->kind == NVLXI_KIND_POOL);
        mapping->opening = opening_try;
        mapping->size = opening->size;
        mapping->read_only = opening->read_only;
        HASH_ADD(hh, peer->mappings, key, sizeof mapping->key, mapping);
    }
    if (hash_full) {
        free(mapping);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to map segment 0x%" PRIx64, key->base);
    }
    *entered = mapping;
    return 0;
}

/* Removes one that is not opened. Under the mutex. */
static void remove_mapping(struct nvlx_peer *peer, struct nvlxi_mapping *mapping, int code) {
    struct nvlxi_opening_try *opening_try = mapping->opening;
    if (code != NVLX_EAGAIN) {
        nvlxi_count_alone(&peer->cell->map_failures, 1);
        nvlxi_count_code(peer->remote->context->metrics->map_failed, code);
    }
    HASH_DEL(peer->mappings, mapping);
    free(mapping->own);
    free(mapping);
    end_opening(peer->remote, opening_try, code);
}

static void note_mapped(struct nvlx_peer *peer, const struct nvlxi_mapping *mapping,
                        const struct nvlxi_segment_record *first, uint64_t ns) {
    nvlxi_histogram_count_alone(&peer->remote->context->metrics->map, ns);
    nvlxi_tell_mapped(peer, mapping, first, ns);
}

/* Opens a PENDING mapping without the lock, and makes it READY or removes it. Under the mutex. */
static int make_ready(struct nvlx_peer *peer, struct opening *opening, struct nvlxi_mapping *mapping) {
    struct nvlxi_opening_try *opening_try = mapping->opening;
    const uint64_t since = nvlxi_now_ns();
    pthread_mutex_unlock(&peer->remote->mutex);
    const bool traced = nvlxi_trace_begin(NVLXI_TRACE_MAP, opening->size);
    int code = open_mapping(peer, opening, mapping);
    nvlxi_trace_end(traced);
    if (!code)
        note_mapped(peer, mapping, opening->segments, nvlxi_now_ns() - since);
    close_files(peer, opening);
    if (!code && mapping->foreign)
        nvlxi_peer_link(peer, (int)mapping->key.gpu, opening->segments->device);
    pthread_mutex_lock(&peer->remote->mutex);
    if (code) {
        remove_mapping(peer, mapping, code);
        return code;
    }
    code = finish_mapping(peer, mapping);
    end_opening(peer->remote, opening_try, code);
    return code;
}

/* Under the mutex. */
static int create_mapping(struct nvlx_peer *peer, const struct nvlxi_mapping_key *key, struct opening *opening) {
    struct nvlxi_opening_try opening_try = {.over = false};
    struct nvlxi_mapping *mapping;
    int code = enter_mapping(peer, key, opening, &opening_try, &mapping);
    return code ? code : make_ready(peer, opening, mapping);
}

/* Copies what is needed to open a run; its segments are to be freed. NVLX_EAGAIN (not logged): there is no such run
 * (any more). Under the mutex. */
static int prepare_opening(const struct nvlx_peer *peer, uint64_t base, uint64_t serial, struct opening *opening) {
    const struct nvlxi_descriptor *d = peer->table->descriptor;
    const struct nvlxi_run *run = nvlxi_runs_find(&peer->table->runs, base, serial);
    if (!run)
        return NVLX_EAGAIN;
    const struct nvlxi_segment_record *first = &d->segments[run->first];
    if (first->kind == NVLXI_KIND_UNKNOWN)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "the peer's segment 0x%" PRIx64 " is of kind \"%s\", which this version cannot open",
                          first->base, first->kind_name);
    *opening = (struct opening){
        .owner.identity = d->identity, .count = run->count, .size = run->size, .read_only = run->read_only};
    memcpy(opening->owner.address, d->address, sizeof d->address);
    opening->segments = malloc(run->count * sizeof *opening->segments);
    if (!opening->segments)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to map %" PRIu32 " segments", run->count);
    memcpy(opening->segments, first, run->count * sizeof *opening->segments);
    return 0;
}

int nvlxi_mapping_open(struct nvlx_peer *peer, int gpu, uint64_t base, uint64_t serial) {
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
        code = nvlxi_mapping_check(r->context, mapping);
    } else if (!code && !(code = prepare_opening(peer, base, serial, &opening))) {
        code = create_mapping(peer, &key, &opening);
        free(opening.segments);
    }
    pthread_mutex_unlock(&r->mutex);
    return code;
}

/* ---- Several ------------------------------------------------------------------------------------------- */

#define AHEAD_RUNS  9 /* that are begun: one is being opened, files of the others are on their way ... */
#define AHEAD_FILES 8 /* ... until so many are */

struct begun {
    struct nvlx_peer *peer;
    struct nvlxi_mapping *mapping; /* PENDING; NULL: there was nothing to begin */
    struct nvlxi_opening_try opening_try;
    struct opening opening;
};

/* Those in [first, end) of the missing ones are begun. Others may wait for them, so who has some waits for nobody
 * else's mapping: two threads might wait for each other. */
struct begun_queue {
    const struct nvlxi_missing *missing;
    const struct nvlxi_opening_watch *watch;
    size_t count, first, end;
    struct begun ring[AHEAD_RUNS];
};

static struct begun *place_in(struct begun_queue *queue, size_t i) {
    return &queue->ring[i % AHEAD_RUNS];
}

/* Whether it takes files of a peer that is followed, and nobody opens or has opened it. Under the mutex. */
static bool may_begin(const struct nvlx_peer *peer, const struct nvlxi_mapping_key *key) {
    const struct nvlxi_run *run = nvlxi_runs_find(&peer->table->runs, key->base, key->serial);
    const struct nvlxi_mapping *mapping;
    if (!run || peer->same_process || !peer->channel)
        return false;
    const struct nvlxi_segment_record *first = &peer->table->descriptor->segments[run->first];
    HASH_FIND(hh, peer->mappings, key, sizeof *key, mapping);
    return !mapping && first->file && first->kind != NVLXI_KIND_UNKNOWN;
}

static int enter_begun(struct begun *begun, const struct nvlxi_mapping_key *key) {
    struct nvlx_peer *peer = begun->peer;
    int code = 0;
    pthread_mutex_lock(&peer->remote->mutex);
    if (may_begin(peer, key) && !(code = prepare_opening(peer, key->base, key->serial, &begun->opening)))
        code = enter_mapping(peer, key, &begun->opening, &begun->opening_try, &begun->mapping);
    pthread_mutex_unlock(&peer->remote->mutex);
    if (code)
        free(begun->opening.segments);
    return code;
}

static void give_up(struct begun *begun, int code) {
    if (!begun->mapping)
        return;
    close_files(begun->peer, &begun->opening);
    pthread_mutex_lock(&begun->peer->remote->mutex);
    remove_mapping(begun->peer, begun->mapping, code);
    pthread_mutex_unlock(&begun->peer->remote->mutex);
    free(begun->opening.segments);
}

static int begin(struct begun *begun, const struct nvlxi_missing *missing) {
    const struct nvlxi_mapping_key key = {missing->base, missing->serial, (uint64_t)missing->gpu};
    *begun = (struct begun){.peer = missing->peer};
    int code = enter_begun(begun, &key);
    if (!code && begun->mapping && (code = ask_for_files(begun->peer, &begun->opening)))
        give_up(begun, code);
    return code;
}

static int finish(struct begun *begun) {
    if (!begun->mapping)
        return 0;
    pthread_mutex_lock(&begun->peer->remote->mutex);
    int code = make_ready(begun->peer, &begun->opening, begun->mapping);
    pthread_mutex_unlock(&begun->peer->remote->mutex);
    free(begun->opening.segments);
    return code;
}

/* Begins more, as long as they are few. */
static int begin_more(struct begun_queue *queue) {
    size_t files = 0;
    int code = 0;
    for (size_t i = queue->first + 1; i < queue->end; i++)
        files += place_in(queue, i)->opening.count;
    while (!code && queue->end < queue->count && queue->end - queue->first < AHEAD_RUNS && files < AHEAD_FILES) {
        struct begun *begun = place_in(queue, queue->end);
        code = begin(begun, &queue->missing[queue->end]);
        begun->opening.watch = queue->watch;
        files += queue->end > queue->first ? begun->opening.count : 0;
        queue->end += !code;
    }
    return code;
}

/* Opens all that can be begun. */
static int open_ahead(const struct nvlxi_missing *missing, size_t count, struct nvlxi_patience *patience,
                      const struct nvlxi_opening_watch *watch) {
    struct begun_queue queue = {.missing = missing, .watch = watch, .count = count};
    int code = 0;
    while (queue.first < count && !(code = begin_more(&queue))) {
        code = finish(place_in(&queue, queue.first++));
        if (code == NVLX_EAGAIN)
            code = nvlxi_mapping_try_again(patience);
        if (code)
            break;
    }
    for (; queue.first < queue.end; queue.first++)
        give_up(place_in(&queue, queue.first), NVLX_EAGAIN);
    return code;
}

int nvlxi_mappings_open(const struct nvlxi_missing *missing, size_t count, struct nvlxi_patience *patience,
                        const struct nvlxi_opening_watch *watch) {
    int code = open_ahead(missing, count, patience, watch);
    for (size_t i = 0; i < count && !code; i++) {
        code = nvlxi_mapping_open(missing[i].peer, missing[i].gpu, missing[i].base, missing[i].serial);
        if (code == NVLX_EAGAIN)
            code = nvlxi_mapping_try_again(patience);
    }
    return code;
}

int nvlxi_mapping_try_again(struct nvlxi_patience *patience) {
    if (!patience->tries++)
        patience->deadline = nvlxi_deadline(MAP_PATIENCE_NS);
    if (patience->tries < MAP_TRIES || nvlxi_now_ns() < patience->deadline)
        return 0;
    return nvlxi_fail(NVLX_ETIMEDOUT, "a peer's segments change faster than they can be mapped");
}
