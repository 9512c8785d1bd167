/* Validates a list: most ops by the short path, which only compares and adds. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/validate.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/op.h"
#include "transfer/validate_batch.h"

/* ---- The short path ---------------------------------------------------------------------------------- */

/* One side of the short path. */
struct side {
    uint64_t shift, mask;
    const _Atomic uint32_t *slot;
    struct nvlxi_range_cache *cache;
    const struct nvlxi_intervals *ranges;
};

struct short_path { /* ops of one route and opcode */
    struct side local, remote;
    uint64_t peer; /* its address, for one test together with arg */
    struct nvlxi_validation *v;
    struct nvlxi_route *route;
};

_Static_assert(sizeof(struct nvlxi_range_cache) == sizeof(struct nvlxi_range), "slots are scaled for both");

static struct side side_of(const struct nvlxi_intervals *ranges, struct nvlxi_range_cache *cache) {
    return (struct side){ranges->shift, ranges->mask, ranges->slot, cache, ranges};
}

/* If the cache entry is still valid, only the mark for this list is missing: sets it, and returns true. */
static bool touch_again(const struct short_path *path, const struct side *side, struct nvlxi_range_cache *cache,
                        const struct nvlxi_range *piece) {
    if (cache->known != nvlxi_intervals_born(side->ranges, (uint32_t)(piece - side->ranges->piece)))
        return false;
    if (side == &path->local)
        return nvlxi_validate_touch_local(path->v, cache, piece) == 0;
    return cache->known <= path->v->youngest && nvlxi_validate_touch_remote(path->v, path->route, cache, piece) == 0;
}

/* The slot names no piece that holds the bytes: they lie in another piece, or are the first of this list in theirs. */
static __attribute__((noinline, cold)) const struct nvlxi_range_cache *
look_further(const struct short_path *path, const struct side *side, uint64_t address, uint64_t last) {
    const uint32_t index = nvlxi_intervals_find(side->ranges, address);
    const struct nvlxi_range *piece = &side->ranges->piece[index];
    struct nvlxi_range_cache *cache = &side->cache[index];
    if (!index || !nvlxi_holds(piece->start, piece->end - piece->start, address, last))
        return NULL;
    return cache->size || touch_again(path, side, cache, piece) ? cache : NULL;
}

/* What is known of the piece, touched in this list, that holds [address, address + last]; NULL if there is none. */
static inline const struct nvlxi_range_cache *look_up(const struct short_path *path, const struct side *side,
                                                      uint64_t address, uint64_t last) {
    const uint32_t scaled =
        atomic_load_explicit(&side->slot[(address >> side->shift) & side->mask], memory_order_relaxed);
    const struct nvlxi_range_cache *cache = (const void *)((const char *)side->cache + scaled);
    return nvlxi_holds(cache->start, cache->size, address, last) ? cache : look_further(path, side, address, last);
}

static inline bool has_fields(const struct nvlx_op *op, const struct short_path *path, uint32_t opcode) {
    uint64_t head; /* opcode and flags, as on a little-endian CPU: what CUDA runs on */
    memcpy(&head, &op->opcode, sizeof head);
    return nvlxi_likely(head == opcode && !(((uintptr_t)op->peer ^ path->peer) | op->arg));
}

/* Validates one op; false if it needs something new. `last` is length - 1, so that an op of 0 bytes does not pass: no
 * piece is that long. */
static inline __attribute__((always_inline)) bool validate_one(const struct short_path *path, const struct nvlx_op *op,
                                                               uint32_t opcode, uint64_t *remote, uint64_t *longest) {
    const uint64_t last = op->length - 1;
    __builtin_prefetch(op + NVLXI_AHEAD);
    if (!has_fields(op, path, opcode))
        return false;
    if (nvlxi_unlikely(!look_up(path, &path->local, (uint64_t)(uintptr_t)op->local, last)))
        return false;
    const struct nvlxi_range_cache *cache = look_up(path, &path->remote, op->remote, last);
    if (nvlxi_unlikely(!cache))
        return false;
    *remote = op->remote + cache->offset;
    *longest |= last;
    return true;
}

#define LOOK_UPS 64 /* ops that are looked up before the pieces of the last one are tried for those behind it; even */

/* Validates the ops from `index` on that need nothing new, at most LOOK_UPS; returns the first that is left. */
static inline __attribute__((always_inline)) size_t validate_some(const struct short_path *path, size_t index,
                                                                  size_t end, uint32_t opcode, uint64_t *longest) {
    const struct nvlx_op *const ops = path->v->validated.ops;
    uint64_t *const remote = path->v->validated.remote;
    if (end - index >= LOOK_UPS)
        end = index + LOOK_UPS;
    for (; end - index >= 2; index += 2) { /* two at a time: half the counting */
        if (!validate_one(path, &ops[index], opcode, &remote[index], longest))
            return index;
        if (!validate_one(path, &ops[index + 1], opcode, &remote[index + 1], longest))
            return index + 1;
    }
    return index < end && validate_one(path, &ops[index], opcode, &remote[index], longest) ? index + 1 : index;
}

/* Validates the ops from `index` on that lie in the same two pieces as the one before them, which is validated; returns
 * the first that does not, or needs something new. */
static inline __attribute__((always_inline)) size_t validate_same(const struct short_path *path, size_t index,
                                                                  size_t end, uint32_t opcode, uint64_t *longest) {
    const struct nvlxi_validated *validated = &path->v->validated;
    const struct nvlx_op *op = &validated->ops[index - 1];
    const struct nvlxi_range_cache local = *look_up(path, &path->local, (uint64_t)(uintptr_t)op->local, op->length - 1),
                                   remote = *look_up(path, &path->remote, op->remote, op->length - 1);
    if (index == end || !nvlxi_holds(local.start, local.size, (uint64_t)(uintptr_t)op[1].local, op[1].length - 1) ||
        !nvlxi_holds(remote.start, remote.size, op[1].remote, op[1].length - 1))
        return index; /* as in most random lists */
    const struct nvlxi_batch batch = {.opcode = opcode,
                                      .peer = op->peer,
                                      .local_start = local.start,
                                      .local_size = local.size,
                                      .remote_start = remote.start,
                                      .remote_size = remote.size,
                                      .offset = remote.offset};
    return index + nvlxi_validate_batch(&batch, op + 1, end - index, validated->remote + index, longest);
}

/* Validates the ops from `index` on that need nothing new; returns the first that does. */
static inline __attribute__((always_inline)) size_t validate_short(const struct short_path *path, size_t index,
                                                                   size_t end, uint32_t opcode) {
    uint64_t longest = path->v->validated.longest;
    for (;;) {
        const size_t first = index;
        index = validate_some(path, index, end, opcode, &longest);
        if (index - first < LOOK_UPS)
            break;
        index = validate_same(path, index, end, opcode, &longest);
    }
    path->v->validated.longest = longest;
    return index;
}

static __attribute__((noinline)) size_t validate_reads(const struct short_path *path, size_t index, size_t end) {
    return validate_short(path, index, end, NVLX_OP_READ);
}

static __attribute__((noinline)) size_t validate_writes(const struct short_path *path, size_t index, size_t end) {
    return validate_short(path, index, end, NVLX_OP_WRITE);
}

/* Validates the ops from `index` on that need nothing new; *index becomes the first that does. */
static int validate_ready(struct nvlxi_validation *v, size_t *index, size_t count, struct nvlxi_route *route) {
    size_t before;
    do {
        before = *index;
        for (int way = 0; way < 2 && *index < count; way++) {
            if (route->pair[way] == NVLXI_NO_PAIR)
                continue;
            const struct short_path path = {.local = side_of(v->local, v->local_cache[route->gpu].piece),
                                            .remote = side_of(&route->table->ranges, route->cache[way].piece),
                                            .peer = (uintptr_t)route->peer,
                                            .v = v,
                                            .route = route};
            const size_t first = *index;
            *index = way == 0 ? validate_reads(&path, first, count) : validate_writes(&path, first, count);
            int code = *index > first ? nvlxi_stretch_begin(v, first, route->pair[way]) : 0;
            if (!code && route->peer->same_process)
                code = nvlxi_ops_check_overlap(v->validated.ops, first, *index);
            if (code)
                return code;
        }
    } while (*index != before);
    return 0;
}

/* ---- A list ------------------------------------------------------------------------------------------ */

static void begin_number(struct nvlxi_validation *v) {
    if (++v->number)
        return;
    for (size_t i = 0; i < v->route_total; i++)
        memset(v->routes[i]->mark, 0, v->routes[i]->mark_capacity * sizeof *v->routes[i]->mark);
    v->number = 1;
}

/* Forgets the list before. */
static void begin(struct nvlxi_validation *v) {
    struct nvlxi_validated *validated = &v->validated;
    begin_number(v);
    v->pair = NVLXI_NO_PAIR;
    v->route_count = v->missing_count = 0;
    while (v->touched_count)
        v->touched[--v->touched_count]->size = 0;
    validated->pair_count = validated->stretch_count = validated->cut_count = 0;
    validated->planned = validated->stretch = validated->cut = 0;
    validated->longest = 0;
    nvlxi_borders_begin(&validated->borders);
}

static int reserve(struct nvlxi_validation *v, size_t count) {
    struct nvlxi_validated *validated = &v->validated;
    if (count <= v->remote_capacity)
        return 0;
    free(validated->remote);
    validated->remote = count <= SIZE_MAX / sizeof *validated->ops ? malloc(count * sizeof *validated->remote) : NULL;
    v->remote_capacity = validated->remote ? count : 0;
    return validated->remote ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory to check a list of %zu ops", count);
}

int nvlxi_validate(struct nvlxi_validation *v, const struct nvlxi_registration *registration, const struct nvlx_op *ops,
                   size_t count, uint32_t mechanism, struct nvlxi_needs *needs) {
    struct nvlxi_route *route = NULL;
    size_t index = 0;
    v->registration = registration;
    v->local = &registration->ranges;
    v->mechanism = mechanism;
    v->youngest = needs->generation ? needs->generation : UINT64_MAX;
    v->needs = needs;
    v->validated.ops = needs->ops = ops;
    v->validated.count = needs->op_count = count;
    needs->use_count = needs->mapping_count = needs->peer_count = needs->remote_use_count = 0;
    begin(v);
    int code = reserve(v, count);
    while (index < count && !code) {
        code = nvlxi_validate_op(v, index++, &route);
        if (!code && route)
            code = validate_ready(v, &index, count, route);
    }
    if (!code && v->missing_count)
        return NVLX_EAGAIN;
    return code ? code : nvlxi_stretch_begin(v, count, NVLXI_NO_PAIR);
}

void nvlxi_validation_free(struct nvlxi_validation *v) {
    for (size_t i = 0; i < v->route_total; i++)
        nvlxi_route_free(v->routes[i]);
    for (size_t i = 0; i < v->local_cache_capacity; i++)
        free(v->local_cache[i].piece);
    free(v->routes);
    free(v->local_cache);
    free(v->touched);
    free(v->missing);
    free(v->validated.remote);
    free(v->validated.pairs);
    free(v->validated.stretches);
    free(v->validated.cuts);
    nvlxi_borders_free(&v->validated.borders);
    nvlxi_digested_shelf_free(&v->digested);
    nvlxi_shape_free(&v->shape);
    free(v);
}
