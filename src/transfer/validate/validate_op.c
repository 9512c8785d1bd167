/* The long way of one op: whatever it is, and whatever it needs. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/op.h"
#include "transfer/validate/validate.h"

#define IDLE_ROUTES_MAX 8

/* ---- Arrays ------------------------------------------------------------------------------------------ */

/* Makes room for `needed` elements; the array keeps its content, new bytes are 0. */
static __attribute__((noinline)) int make_room(void *array, size_t *capacity, size_t needed, size_t size) {
    void **memory = array;
    size_t wanted = nvlxi_max(nvlxi_max(2 * *capacity, needed), 8);
    char *grown = realloc(*memory, wanted * size);
    if (!grown)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to check a list that touches %zu regions or segments", needed);
    memset(grown + *capacity * size, 0, (wanted - *capacity) * size);
    *memory = grown;
    *capacity = wanted;
    return 0;
}

static inline int grow(void *array, size_t *capacity, size_t needed, size_t size) {
    return nvlxi_likely(needed <= *capacity) ? 0 : make_room(array, capacity, needed, size);
}

/* Puts one more element at the end. Compiled for each size: most are a store or two. */
static inline __attribute__((always_inline)) int add(void *array, size_t *count, size_t *capacity, const void *element,
                                                     size_t size) {
    char *memory;
    int code = grow(array, capacity, *count + 1, size);
    if (code)
        return code;
    memcpy(&memory, array, sizeof memory); /* pointers of any type */
    memcpy(memory + (*count)++ * size, element, size);
    return 0;
}

/* ---- Local memory ------------------------------------------------------------------------------------ */

/* Notes that an op of the list lies in a piece. */
static inline __attribute__((always_inline)) int touch(struct nvlxi_validation *v, struct nvlxi_range_cache *cache,
                                                       const struct nvlxi_range *piece) {
    int code = add(&v->touched, &v->touched_count, &v->touched_capacity, &cache, sizeof cache);
    if (code)
        return code;
    cache->start = piece->start;
    cache->size = piece->end - piece->start;
    return 0;
}

/* Notes that the list uses memory of this process. */
static inline __attribute__((always_inline)) int use(struct nvlxi_needs *needs, uint64_t start, uint64_t end) {
    const struct nvlxi_use used = {start, end};
    return add(&needs->uses, &needs->use_count, &needs->use_capacity, &used, sizeof used);
}

int nvlxi_validate_own(struct nvlxi_validation *v, uint64_t start, uint64_t end) {
    return use(v->needs, start, end);
}

/* Notes that it uses memory of a peer, if that is wanted. */
static inline __attribute__((always_inline)) int use_remote(struct nvlxi_needs *needs, struct nvlx_peer *peer,
                                                            uint64_t start, uint64_t end, uint32_t access) {
    const struct nvlxi_remote_use used = {peer, start, end, access};
    return needs->keeps_remote_uses
               ? add(&needs->remote_uses, &needs->remote_use_count, &needs->remote_use_capacity, &used, sizeof used)
               : 0;
}

int nvlxi_validate_touch_local(struct nvlxi_validation *v, struct nvlxi_range_cache *cache,
                               const struct nvlxi_range *piece) {
    const uint32_t id = (uint32_t)(piece - v->local->piece);
    int code = use(v->needs, piece->start, piece->end);
    if (!code && nvlxi_intervals_border(v->local, id))
        code = nvlxi_borders_note(&v->validated.borders, piece->start);
    if (code || (code = touch(v, cache, piece)))
        return code;
    cache->known = nvlxi_intervals_born(v->local, id);
    return 0;
}

/* Touches the local pieces under an op, from the first one on. */
static int use_local(struct nvlxi_validation *v, uint32_t index, uint64_t end) {
    const struct nvlxi_intervals *local = v->local;
    const size_t place = local->piece[index].place;
    int code = grow(&v->local_cache, &v->local_cache_capacity, place + 1, sizeof *v->local_cache);
    if (!code)
        code = grow(&v->local_cache[place].piece, &v->local_cache[place].capacity, local->room,
                    sizeof(struct nvlxi_range_cache));
    for (; !code && index && local->piece[index].start < end; index = nvlxi_intervals_next(local, index))
        if (!v->local_cache[place].piece[index].size)
            code = nvlxi_validate_touch_local(v, &v->local_cache[place].piece[index], &local->piece[index]);
    return code;
}

/* ---- Routes ------------------------------------------------------------------------------------------ */

static int need_peer(struct nvlxi_needs *needs, struct nvlx_peer *peer) {
    for (size_t i = 0; i < needs->peer_count; i++)
        if (needs->peers[i] == peer)
            return 0;
    return add(&needs->peers, &needs->peer_count, &needs->peer_capacity, &peer, sizeof peer);
}

/* Which GPU copies between memory of this process and a peer's: the one that holds the local side. Host memory is
 * copied by the GPU at the other end, if that is of this process too, else by its own. */
static int gpu_between(const struct nvlx_peer *peer, uint16_t local, uint16_t remote) {
    const bool by_other = nvlxi_place_is_host(local) && peer->same_process;
    return nvlxi_place_device(by_other ? remote : local);
}

/* Turns an idle route, or a new one, into this one. */
static int begin_route(struct nvlxi_validation *v, struct nvlxi_route *route, struct nvlx_peer *peer, uint16_t local,
                       uint16_t remote) {
    const struct nvlxi_peer_table *table = peer->table;
    int code = grow(&route->mark, &route->mark_capacity, table->runs.count, sizeof *route->mark);
    for (int way = 0; way < 2 && !code; way++)
        code = grow(&route->cache[way].piece, &route->cache[way].capacity, table->ranges.room,
                    sizeof(struct nvlxi_range_cache));
    if (!code)
        code = need_peer(v->needs, peer);
    if (code)
        return code;
    route->peer = peer;
    route->local = local;
    route->remote = remote;
    route->gpu = gpu_between(peer, local, remote);
    route->table = table;
    route->view = &table->views[route->gpu];
    route->version = table->ranges.version;
    route->pair[0] = route->pair[1] = NVLXI_NO_PAIR;
    return 0;
}

void nvlxi_route_free(struct nvlxi_route *route) {
    free(route->mark);
    free(route->cache[0].piece);
    free(route->cache[1].piece);
    free(route);
}

/* Puts a route behind those of this list: the idle one that served for the same, or a new one. */
static int next_route(struct nvlxi_validation *v, uint64_t version, uint16_t local, uint16_t remote) {
    const size_t next = v->route_count;
    for (size_t i = next; i < v->route_total; i++) {
        struct nvlxi_route *route = v->routes[i];
        if (route->version == version && route->local == local && route->remote == remote) {
            v->routes[i] = v->routes[next];
            v->routes[next] = route;
            return 0;
        }
    }
    int code = grow(&v->routes, &v->route_capacity, v->route_total + 1, sizeof(*v->routes));
    struct nvlxi_route *made = code ? NULL : calloc(1, sizeof *made);
    if (!made)
        return code ? code : nvlxi_fail(NVLX_ENOMEM, "no memory for a route to a peer");
    while (v->route_total - next >= IDLE_ROUTES_MAX)
        nvlxi_route_free(v->routes[--v->route_total]);
    memmove(&v->routes[next + 1], &v->routes[next], (v->route_total - next) * sizeof(*v->routes));
    v->routes[next] = made;
    v->route_total++;
    return 0;
}

static int find_route(struct nvlxi_validation *v, struct nvlx_peer *peer, uint16_t local, uint16_t remote,
                      struct nvlxi_route **found) {
    for (size_t i = 0; i < v->route_count; i++) {
        struct nvlxi_route *route = v->routes[i];
        if (route->peer == peer && route->local == local && route->remote == remote) {
            *found = route;
            return 0;
        }
    }
    int code = next_route(v, peer->table->ranges.version, local, remote);
    if (!code)
        code = begin_route(v, v->routes[v->route_count], peer, local, remote);
    if (!code)
        *found = v->routes[v->route_count++];
    return code;
}

/* Whether the copy kernel can carry what goes from `gpu` to `remote_gpu`. Within a process, only copy engines reach
 * another GPU. */
static int kernels_reach(const struct nvlxi_context *context, int gpu, int remote_gpu, bool *reach) {
    struct nvlxi_gpu_limits limits;
    int code = context->ops->limits(context->device, gpu, &limits);
    if (!code)
        *reach = limits.sms && gpu == remote_gpu;
    return code;
}

static int fail_kernels(size_t index, int gpu, int remote_gpu) {
    if (gpu != remote_gpu)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "op %zu: within one process only copy engines reach another GPU, and GPU %d and GPU %d are "
                          "this process's: NVLX_MECHANISM_KERNEL cannot copy between them, NVLX_MECHANISM_AUTO can",
                          index, gpu, remote_gpu);
    return nvlxi_fail(NVLX_ENOTSUP,
                      "op %zu: GPU %d has no copy kernels, since they could not be loaded there: "
                      "NVLX_MECHANISM_KERNEL cannot copy, NVLX_MECHANISM_AUTO can",
                      index, gpu);
}

static uint8_t hosts_of(const struct nvlxi_route *route) {
    return (uint8_t)((nvlxi_place_is_host(route->local) ? NVLXI_LOCAL_HOST : 0) |
                     (nvlxi_place_is_host(route->remote) ? NVLXI_REMOTE_HOST : 0));
}

static bool are_same(const struct nvlxi_pair *a, const struct nvlxi_pair *b) {
    return a->gpu == b->gpu && a->remote_gpu == b->remote_gpu && a->device == b->device && a->opcode == b->opcode &&
           a->hosts == b->hosts;
}

/* By which this process sees a run of the peer, or NULL; and how far from where the peer does. */
static struct nvlxi_mapping *mapping_of(const struct nvlxi_validation *v, const struct nvlxi_route *route, uint32_t run,
                                        uint64_t *offset) {
    const struct nvlxi_run *wanted = &route->table->runs.run[run];
    const struct nvlxi_mapping *opening = v->opening;
    *offset = atomic_load_explicit(&route->view->offset[run], memory_order_acquire);
    if (*offset != NVLXI_UNMAPPED)
        return route->view->mapping[run];
    if (nvlxi_likely(route->peer != v->opening_peer) || opening->key.base != wanted->base ||
        opening->key.serial != wanted->serial || opening->key.gpu != (uint64_t)route->gpu)
        return NULL;
    *offset = opening->address - wanted->base;
    return v->opening;
}

/* Finds the pair that a route's ops of this opcode go between, or adds it. `index` is that of such an op. */
static int find_pair(struct nvlxi_validation *v, struct nvlxi_route *route, const struct nvlxi_range *remote,
                     uint32_t opcode, size_t index) {
    struct nvlxi_validated *validated = &v->validated;
    const uint16_t device = nvlxi_place_device(remote->place);
    uint64_t offset;
    struct nvlxi_pair pair = {.gpu = route->gpu,
                              .remote_gpu = mapping_of(v, route, remote->owner, &offset)->memory_gpu,
                              .device = device,
                              .opcode = (uint16_t)opcode,
                              .hosts = hosts_of(route),
                              .turn = nvlxi_remote_turn(route->peer->remote, route->gpu, device),
                              .cell = route->peer->cell};
    int code = kernels_reach(v->registration->context, pair.gpu, pair.remote_gpu, &pair.kernels);
    if (code)
        return code;
    if (v->mechanism == NVLX_MECHANISM_KERNEL && !pair.kernels)
        return fail_kernels(index, pair.gpu, pair.remote_gpu);
    uint32_t found = 0;
    while (found < validated->pair_count && !are_same(&validated->pairs[found], &pair))
        found++;
    if (found == validated->pair_count)
        code = add(&validated->pairs, &validated->pair_count, &v->pair_capacity, &pair, sizeof pair);
    else if (validated->pairs[found].cell != pair.cell)
        validated->pairs[found].cell = &v->registration->context->metrics->others;
    if (!code)
        route->pair[opcode - 1] = found;
    return code;
}

/* ---- A peer's memory --------------------------------------------------------------------------------- */

static int note_missing(struct nvlxi_validation *v, const struct nvlxi_route *route, const struct nvlxi_run *run) {
    const struct nvlxi_missing missing = {
        .peer = route->peer, .gpu = route->gpu, .base = run->base, .serial = run->serial};
    return add(&v->missing, &v->missing_count, &v->missing_capacity, &missing, sizeof missing);
}

/* Does not look into the mapping, which is anywhere in memory: who has several does so at once. */
static inline __attribute__((always_inline)) int
need_mapping(const struct nvlxi_validation *v, const struct nvlxi_route *route, struct nvlxi_mapping *mapping) {
    struct nvlxi_needs *needs = v->needs;
    int code = route->peer->same_process ? nvlxi_mapping_check(v->registration->context, mapping) : 0;
    return code ? code
                : add(&needs->mappings, &needs->mapping_count, &needs->mapping_capacity, &mapping, sizeof mapping);
}

int nvlxi_validate_note_mappings(struct nvlxi_validation *v) {
    const struct nvlxi_needs *needs = v->needs;
    int code = 0;
    for (size_t i = 0; i < needs->mapping_count && !code; i++)
        code = nvlxi_borders_note(&v->validated.borders, needs->mappings[i]->address);
    return code;
}

/* Notes that the list uses a run of the peer: pins its mapping, or lists it as missing; tells its offset. */
static inline __attribute__((always_inline)) int use_run(struct nvlxi_validation *v, struct nvlxi_route *route,
                                                         uint32_t run, uint64_t *offset) {
    struct nvlxi_mapping *mapping = mapping_of(v, route, run, offset);
    if (route->mark[run] == v->number)
        return 0;
    int code = mapping ? need_mapping(v, route, mapping) : note_missing(v, route, &route->table->runs.run[run]);
    if (!code)
        route->mark[run] = v->number;
    return code;
}

int nvlxi_validate_touch_remote(struct nvlxi_validation *v, struct nvlxi_route *route, struct nvlxi_range_cache *cache,
                                const struct nvlxi_range *piece) {
    const size_t id = (size_t)(piece - route->table->ranges.piece);
    const uint32_t access = cache == &route->cache[1].piece[id] ? NVLX_ACCESS_WRITE : NVLX_ACCESS_READ;
    uint64_t offset;
    int code = use_run(v, route, piece->owner, &offset);
    if (!code)
        code = use_remote(v->needs, route->peer, piece->start, piece->end, access);
    return code ? code : touch(v, cache, piece);
}

/* ---- The op ------------------------------------------------------------------------------------------ */

/* Whether the peer's bytes of an op, which is good otherwise, are as old as the list says. */
static int validate_age(const struct nvlxi_validation *v, const struct nvlx_op *op, size_t index) {
    const uint64_t end = op->remote + op->length, wanted = v->needs->generation,
                   known = op->peer->table->descriptor->identity.generation;
    if (v->needs->peer_count && v->needs->peers[0] != op->peer)
        return nvlxi_op_fail_second_peer(index, wanted);
    if (wanted > known)
        return nvlxi_op_fail_unknown(index, wanted, known);
    const uint64_t where = nvlxi_peer_old_until(op->peer, op->remote, end, op->opcode, wanted);
    const struct nvlxi_intervals *ranges = &op->peer->table->ranges;
    return where >= end ? 0
                        : nvlxi_op_fail_younger(op, index, where, wanted,
                                                nvlxi_intervals_born(ranges, nvlxi_intervals_find(ranges, where)));
}

/* A region that sleeps is told before what is missing, and what it does not grant even so. */
static int fail_remote(const struct nvlx_op *op, size_t index, uint64_t where, bool registered) {
    const struct nvlxi_region_record *sleeper = nvlxi_peer_sleeper(op->peer, where);
    if (sleeper && (sleeper->access & op->opcode))
        return nvlxi_op_fail_asleep(op, index, false, where);
    return nvlxi_op_fail_remote(op, index, where, registered || sleeper);
}

int nvlxi_validate_alive(const struct nvlx_op *op, size_t index) {
    const char *gone = nvlxi_peer_why_gone(op->peer);
    return gone ? nvlxi_fail(NVLX_ESTALE, "op %zu: %s", index, gone) : 0;
}

int nvlxi_validate_local(const struct nvlxi_validation *v, const struct nvlx_op *op, size_t index) {
    const struct nvlxi_intervals *local = v->local;
    const uint64_t address = (uint64_t)(uintptr_t)op->local;
    uint64_t where;
    bool registered;
    if (nvlxi_intervals_cover(local, nvlxi_intervals_find(local, address), address, op->length, NVLX_ACCESS_NONE,
                              &where, &registered))
        return 0;
    return nvlxi_registration_sleeps(v->registration, where) ? nvlxi_op_fail_asleep(op, index, true, where)
                                                             : nvlxi_op_fail_local(op, index, where);
}

int nvlxi_validate_remote(const struct nvlxi_validation *v, const struct nvlx_op *op, size_t index) {
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): that there is a peer was validated */
    const struct nvlxi_intervals *ranges = &op->peer->table->ranges;
    uint64_t where;
    bool registered;
    if (!nvlxi_intervals_cover(ranges, nvlxi_intervals_find(ranges, op->remote), op->remote, op->length, op->opcode,
                               &where, &registered))
        return fail_remote(op, index, where, registered);
    return v->needs->generation ? validate_age(v, op, index) : 0;
}

/* Whether both sides of an op are registered, and grant its direction. */
static int validate_sides(const struct nvlxi_validation *v, const struct nvlx_op *op, size_t index) {
    int code = nvlxi_validate_alive(op, index);
    if (!code)
        code = nvlxi_validate_local(v, op, index);
    return code ? code : nvlxi_validate_remote(v, op, index);
}

/* The part of a validated op from byte `at` to the next border. */
static struct nvlxi_op_part part_of(const struct nvlxi_validation *v, const struct nvlx_op *op, size_t index,
                                    uint64_t at) {
    const struct nvlxi_intervals *local = v->local, *ranges = &op->peer->table->ranges;
    struct nvlxi_op_part part = {
        .local = (uint64_t)(uintptr_t)op->local + at, .remote = op->remote + at, .index = index};
    part.local_range = nvlxi_intervals_find(local, part.local);
    part.remote_range = nvlxi_intervals_find(ranges, part.remote);
    const uint64_t left = op->length - at,
                   local_length = nvlxi_intervals_reach(local, part.local_range, part.local + left) - part.local,
                   remote_length = nvlxi_intervals_reach(ranges, part.remote_range, part.remote + left) - part.remote;
    part.local_length = part.remote_length = nvlxi_min(local_length, remote_length);
    return part;
}

/* Notes the peer's pieces under a part, and what the short path may know of them: they are of one run. */
static int know_remote(struct nvlxi_validation *v, const struct nvlx_op *op, const struct nvlxi_op_part *part,
                       struct nvlxi_route *route, uint64_t offset) {
    const struct nvlxi_intervals *ranges = &op->peer->table->ranges;
    const uint64_t end = part->remote + part->remote_length;
    int code = 0;
    for (uint32_t id = part->remote_range; !code && id && ranges->piece[id].start < end;
         id = nvlxi_intervals_next(ranges, id)) {
        const struct nvlxi_range *piece = &ranges->piece[id];
        struct nvlxi_range_cache *cache = &route->cache[op->opcode - 1].piece[id];
        if (cache->size || (code = use_remote(v->needs, op->peer, piece->start, piece->end, op->opcode)))
            continue;
        cache->offset = offset;
        cache->known = op->peer->same_process ? 0 : nvlxi_intervals_born(ranges, id);
        code = touch(v, cache, piece);
    }
    return code;
}

/* If the peer is this process, its side is used local memory too. */
int nvlxi_validate_part(struct nvlxi_validation *v, const struct nvlx_op *op, const struct nvlxi_op_part *part,
                        struct nvlxi_route **route, uint64_t *offset) {
    const struct nvlxi_range *remote = &op->peer->table->ranges.piece[part->remote_range];
    const uint16_t local = v->local->piece[part->local_range].place;
    if (nvlxi_place_is_host(local) && nvlxi_place_is_host(remote->place))
        return nvlxi_fail(NVLX_ENOTSUP,
                          "op %zu: the peer's bytes at 0x%" PRIx64 " are host memory, and so are those at 0x%" PRIx64
                          ": a GPU is to have one side",
                          part->index, part->remote, part->local);
    if (nvlxi_place_is_bound(local) && op->peer->same_process &&
        nvlxi_place_device(local) != nvlxi_place_device(remote->place))
        return nvlxi_fail(NVLX_ENOTSUP,
                          "op %zu: the local bytes at 0x%" PRIx64 " are a chunk of host memory for GPU %d, and GPU %d, "
                          "which has the peer's, would copy: allocate it for that one, or pin memory (cudaHostAlloc)",
                          part->index, part->local, nvlxi_place_device(local), nvlxi_place_device(remote->place));
    int code = use_local(v, part->local_range, part->local + part->local_length);
    if (code || (code = find_route(v, op->peer, local, remote->place, route)) ||
        (code = use_run(v, *route, remote->owner, offset)) || *offset == NVLXI_UNMAPPED)
        return code;
    if (op->peer->same_process)
        code = use(v->needs, remote->start, nvlxi_max(remote->end, part->remote + part->remote_length));
    if (!code && (*route)->pair[op->opcode - 1] == NVLXI_NO_PAIR)
        code = find_pair(v, *route, remote, op->opcode, part->index);
    return code ? code : know_remote(v, op, part, *route, *offset);
}

/* If the peer is this process, it is used local memory, too. */
int nvlxi_validate_used(struct nvlxi_validation *v, const struct nvlx_op *op, int gpu, uint64_t *offset,
                        struct nvlxi_mapping **mapping) {
    const struct nvlxi_intervals *ranges = &op->peer->table->ranges;
    const struct nvlxi_range *piece = &ranges->piece[nvlxi_intervals_find(ranges, op->remote)];
    const uint64_t end = op->remote + op->length;
    struct nvlxi_route *route;
    int code = find_route(v, op->peer, nvlxi_place((uint32_t)gpu, NVLXI_KIND_CUDA_MALLOC), piece->place, &route);
    if (!code)
        code = use_run(v, route, piece->owner, offset);
    if (!code)
        code = use_remote(v->needs, op->peer, op->remote, end, op->opcode);
    if (!code && mapping && *offset != NVLXI_UNMAPPED)
        *mapping = route->view->mapping[piece->owner];
    return code || !op->peer->same_process ? code : use(v->needs, op->remote, end);
}

/* ---- What planning reads ----------------------------------------------------------------------------- */

/* Ends a stretch. */
static int add_stretch(struct nvlxi_validation *v, size_t end, uint32_t pair) {
    const struct nvlxi_validated *validated = &v->validated;
    const size_t begin = validated->stretch_count ? validated->stretches[validated->stretch_count - 1].end : 0;
    const struct nvlxi_stretch stretch = {begin, end, pair, pair == NVLXI_IN_ROUNDS ? v->round : 0};
    return add(&v->validated.stretches, &v->validated.stretch_count, &v->stretch_capacity, &stretch, sizeof stretch);
}

int nvlxi_stretch_begin(struct nvlxi_validation *v, size_t index, uint32_t pair) {
    int code = v->pair != NVLXI_NO_PAIR && pair != v->pair ? add_stretch(v, index, v->pair) : 0;
    if (!code)
        v->pair = pair;
    return code;
}

/* Ends the stretch before an op, and lets it be one without a pair. */
static int stand_alone(struct nvlxi_validation *v, size_t index) {
    int code = nvlxi_stretch_begin(v, index, NVLXI_NO_PAIR);
    return code ? code : add_stretch(v, index + 1, NVLXI_NO_PAIR);
}

int nvlxi_note_nothing(struct nvlxi_validation *v, size_t index) {
    return stand_alone(v, index);
}

int nvlxi_note_cut(struct nvlxi_validation *v, size_t index, const struct nvlxi_rows *rows, uint32_t pair) {
    struct nvlxi_validated *validated = &v->validated;
    const bool first = !validated->cut_count || validated->cuts[validated->cut_count - 1].op != index;
    const struct nvlxi_cut cut = {.op = index, .pair = pair, .grid = {.rows = *rows, .times = 1}};
    int code = add(&validated->cuts, &validated->cut_count, &v->cut_capacity, &cut, sizeof cut);
    return code || !first ? code : stand_alone(v, index);
}

int nvlxi_note_signal(struct nvlxi_validation *v, size_t index, const struct nvlxi_list_signal *signal) {
    struct nvlxi_validated *validated = &v->validated;
    int code = add(&validated->signals, &validated->signal_count, &v->signal_capacity, signal, sizeof *signal);
    return code ? code : stand_alone(v, index);
}

int nvlxi_note_wait(struct nvlxi_validation *v, size_t index, const struct nvlxi_list_wait *wait) {
    struct nvlxi_validated *validated = &v->validated;
    int code = add(&validated->waits, &validated->wait_count, &v->wait_capacity, wait, sizeof *wait);
    return code ? code : stand_alone(v, index);
}

static int note_part(struct nvlxi_validation *v, size_t index, const struct nvlxi_op_part *part, uint64_t mapped,
                     uint32_t pair) {
    const bool read = v->validated.pairs[pair].opcode == NVLX_OP_READ;
    const struct nvlxi_rows one = {.destination = read ? part->local : mapped,
                                   .source = read ? mapped : part->local,
                                   .length = part->local_length,
                                   .count = 1};
    return nvlxi_note_cut(v, index, &one, pair);
}

int nvlxi_validate_parts(struct nvlxi_validation *v, const struct nvlx_op *op, size_t index, bool cut,
                         struct nvlxi_route **route) {
    struct nvlxi_op_part part;
    int code = 0;
    for (uint64_t at = 0; at < op->length && !code; at += part.local_length) {
        uint64_t offset = NVLXI_UNMAPPED;
        part = part_of(v, op, index, at);
        code = nvlxi_validate_part(v, op, &part, route, &offset);
        if (code || offset == NVLXI_UNMAPPED)
            continue;
        const uint32_t pair = (*route)->pair[op->opcode - 1];
        if (cut || part.local_length < op->length) {
            code = note_part(v, index, &part, part.remote + offset, pair);
        } else {
            v->validated.remote[index] = op->remote + offset;
            code = nvlxi_stretch_begin(v, index, pair);
        }
    }
    return code;
}

int nvlxi_validate_op(struct nvlxi_validation *v, size_t index, struct nvlxi_route **route) {
    struct nvlxi_validated *validated = &v->validated;
    const struct nvlx_op *op = &validated->ops[index];
    int code = nvlxi_op_check(op, index);
    if (!code && !(op->peer ? op->peer->engine == v->registration->engine : nvlxi_op_is_own_signal(op)))
        code = nvlxi_op_fail_foreign(op, index);
    if (code)
        return code;
    validated->longest |= op->length - 1;
    validated->remote[index] = validated->pair_of[index] = 0;
    if (op->opcode == NVLX_OP_SIGNAL)
        return nvlxi_validate_signal(v, index);
    if (op->opcode == NVLX_OP_WAIT_READY)
        return nvlxi_validate_wait(v, index);
    if (op->flags & NVLX_OP_ROWS)
        return nvlxi_validate_rows(v, index, route);
    if (op->length && !(code = validate_sides(v, op, index)) && op->peer->same_process)
        code = nvlxi_ops_check_overlap(validated->ops, index, index + 1);
    return code ? code : nvlxi_validate_parts(v, op, index, false, route);
}
