/* Validates a list: most ops by the short path, which only compares and adds. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/validate/validate.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/op.h"
#include "transfer/validate/validate_batch.h"

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
    uint32_t opcode, pair;
} __attribute__((aligned(128))); /* so that one is found by a shift */

#define PATHS_MAX  32
#define PATH_SLOTS 256

struct short_paths { /* of a list, each begun by an op that went the long way */
    struct short_path path[PATHS_MAX];
    size_t count, begun;      /* the next one takes the place of the oldest if there are too many */
    bool same_process;        /* some may be of this process */
    bool has_slots;           /* they are set */
    uint8_t slot[PATH_SLOTS]; /* by peer and opcode: the path that they had last */
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

/* The cache knows no piece that holds the bytes: they lie in another than the slot names, or are the first of this list
 * in theirs. */
static __attribute__((noinline)) const struct nvlxi_range_cache *look_further(const struct short_path *path,
                                                                              const struct side *side, uint64_t address,
                                                                              uint64_t last,
                                                                              struct nvlxi_range_cache *cache) {
    const struct nvlxi_range *piece = &side->ranges->piece[cache - side->cache];
    if (!nvlxi_holds(piece->start, piece->end - piece->start, address, last)) {
        const uint32_t index = nvlxi_intervals_find(side->ranges, address);
        piece = &side->ranges->piece[index];
        cache = &side->cache[index];
        if (!index || !nvlxi_holds(piece->start, piece->end - piece->start, address, last))
            return NULL;
    }
    return cache->size || touch_again(path, side, cache, piece) ? cache : NULL;
}

/* What is known of the piece, touched in this list, that holds [address, address + last]; NULL if there is none. */
static inline const struct nvlxi_range_cache *look_up(const struct short_path *path, const struct side *side,
                                                      uint64_t address, uint64_t last) {
    const uint32_t scaled =
        atomic_load_explicit(&side->slot[(address >> side->shift) & side->mask], memory_order_relaxed);
    struct nvlxi_range_cache *cache = (void *)((char *)side->cache + scaled);
    return nvlxi_holds(cache->start, cache->size, address, last) ? cache
                                                                 : look_further(path, side, address, last, cache);
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

/* Validates the ops from `index` on that need nothing new; returns the first that is left. */
static inline __attribute__((always_inline)) size_t validate_some(const struct short_path *path, size_t index,
                                                                  size_t end, uint32_t opcode, uint64_t *longest) {
    const struct nvlx_op *const ops = path->v->validated.ops;
    uint64_t *const remote = path->v->validated.remote;
    for (; index + 1 < end; index += 2) { /* two at a time: half the counting */
        if (!validate_one(path, &ops[index], opcode, &remote[index], longest))
            return index;
        if (!validate_one(path, &ops[index + 1], opcode, &remote[index + 1], longest))
            return index + 1;
    }
    return index < end && validate_one(path, &ops[index], opcode, &remote[index], longest) ? index + 1 : index;
}

/* The pieces that op `index` lies in, if the one that is `ahead` of it, and not validated yet, does so too. */
static inline __attribute__((always_inline)) bool have_same(const struct short_path *path, size_t index, size_t ahead,
                                                            struct nvlxi_batch *batch) {
    const struct nvlx_op *op = &path->v->validated.ops[index], *next = op + ahead;
    const struct nvlxi_range_cache local = *look_up(path, &path->local, (uint64_t)(uintptr_t)op->local, op->length - 1),
                                   remote = *look_up(path, &path->remote, op->remote, op->length - 1);
    *batch = (struct nvlxi_batch){.opcode = path->opcode,
                                  .peer = op->peer,
                                  .local_start = local.start,
                                  .local_size = local.size,
                                  .remote_start = remote.start,
                                  .remote_size = remote.size,
                                  .offset = remote.offset};
    return nvlxi_holds(local.start, local.size, (uint64_t)(uintptr_t)next->local, next->length - 1) &&
           nvlxi_holds(remote.start, remote.size, next->remote, next->length - 1);
}

/* Validates the ops from `index` on that lie in the same two pieces as the one before them, which is validated; returns
 * the first that does not, or needs something new. */
static inline __attribute__((always_inline)) size_t validate_same(const struct short_path *path, size_t index,
                                                                  size_t end, uint64_t *longest) {
    const struct nvlxi_validated *validated = &path->v->validated;
    struct nvlxi_batch batch;
    if (index == end || !have_same(path, index - 1, 1, &batch))
        return index; /* as in most random lists */
    return index +
           nvlxi_validate_batch(&batch, 1, &validated->ops[index], end - index, &validated->remote[index], longest);
}

/* Validates the ops from `index` on that need nothing new; returns the first that does. */
static inline __attribute__((always_inline)) size_t validate_short(const struct short_path *path, size_t index,
                                                                   size_t end, uint32_t opcode) {
    uint64_t longest = path->v->validated.longest;
    for (;;) {
        const size_t first = index;
        index = validate_some(path, index, nvlxi_min(end, index + LOOK_UPS), opcode, &longest);
        if (index - first < LOOK_UPS)
            break;
        index = validate_same(path, index, end, &longest);
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

/* Those of the path alone: *index becomes the first that is not, or needs something new. */
static int validate_alike(const struct short_path *path, size_t *index, size_t count) {
    const size_t first = *index;
    *index = path->opcode == NVLX_OP_READ ? validate_reads(path, first, count) : validate_writes(path, first, count);
    int code = *index > first ? nvlxi_stretch_begin(path->v, first, path->pair) : 0;
    if (!code && path->route->peer->same_process)
        code = nvlxi_ops_check_overlap(path->v->validated.ops, first, *index);
    return code;
}

/* ---- Several paths ----------------------------------------------------------------------------------- */

/* The path of an op that went the long way; NULL: it has none, as whatever copies nothing. */
static struct short_path *path_of(struct short_paths *paths, struct nvlxi_validation *v, struct nvlxi_route *route,
                                  uint32_t opcode) {
    const uint32_t pair = opcode <= NVLX_OP_WRITE ? route->pair[opcode - 1] : NVLXI_NO_PAIR;
    for (size_t i = 0; i < paths->count; i++)
        if (paths->path[i].route == route && paths->path[i].opcode == opcode)
            return &paths->path[i];
    if (pair == NVLXI_NO_PAIR)
        return NULL;
    struct short_path *path = &paths->path[paths->begun++ % PATHS_MAX];
    paths->count = nvlxi_min(paths->begun, PATHS_MAX);
    paths->same_process = paths->same_process || route->peer->same_process;
    *path = (struct short_path){.local = side_of(v->local, v->local_cache[route->local].piece),
                                .remote = side_of(&route->table->ranges, route->cache[opcode - 1].piece),
                                .peer = (uintptr_t)route->peer,
                                .v = v,
                                .route = route,
                                .opcode = opcode,
                                .pair = pair};
    return path;
}

static inline uint8_t *slot_of(struct short_paths *paths, const struct nvlx_op *op) {
    return &paths->slot[((uint64_t)(uintptr_t)op->peer + op->opcode) * UINT64_C(0x9e3779b97f4a7c15) >> 56];
}

/* The path of an op's peer and opcode, if there is one whose pair can be told in a byte. */
static __attribute__((noinline)) const struct short_path *find_path(struct short_paths *paths,
                                                                    const struct nvlx_op *op) {
    for (size_t i = 0; i < paths->count; i++) {
        const struct short_path *path = &paths->path[i];
        if (!has_fields(op, path, path->opcode))
            continue;
        *slot_of(paths, op) = (uint8_t)i;
        return path->pair <= UINT8_MAX ? path : NULL;
    }
    return NULL;
}

#define TURNS 64 /* ops that are validated in turns before it is looked whether they still are */

/* Validates the ops from `index` on that need nothing new, whatever paths they are of; returns the first that does. */
static size_t validate_some_in_turns(struct short_paths *paths, struct nvlxi_validated *validated, size_t index,
                                     size_t end) {
    uint64_t longest = validated->longest;
    for (; index < end; index++) {
        const struct nvlx_op *op = &validated->ops[index];
        const struct short_path *path = &paths->path[*slot_of(paths, op)];
        if (nvlxi_unlikely(!has_fields(op, path, path->opcode)) && !(path = find_path(paths, op)))
            break;
        if (!validate_one(path, op, path->opcode, &validated->remote[index], &longest))
            break;
        validated->pair_of[index] = (uint8_t)path->pair;
    }
    validated->longest = longest;
    return index;
}

static int check_overlaps(const struct nvlx_op *ops, size_t index, size_t end) {
    int code = 0;
    for (; index < end && !code; index++)
        code = ops[index].peer->same_process ? nvlxi_ops_check_overlap(ops, index, index + 1) : 0;
    return code;
}

/* Notes ops that are validated in turns, or in rounds, if they are some. */
static int note_turns(const struct short_paths *paths, struct nvlxi_validation *v, size_t first, size_t end,
                      uint32_t pair) {
    int code = paths->same_process ? check_overlaps(v->validated.ops, first, end) : 0;
    return code || first == end ? code : nvlxi_stretch_begin(v, first, pair);
}

static bool are_alike(const struct nvlx_op *one, const struct nvlx_op *other) {
    return one->peer == other->peer && one->opcode == other->opcode;
}

struct round {
    uint32_t length;                                /* ops */
    const struct short_path *path[NVLXI_ROUND_MAX]; /* of each, from the next op on */
};

/* Whether the last TURNS ops before `index` are rounds. */
static bool find_round(struct short_paths *paths, const struct nvlx_op *ops, size_t index, struct round *round) {
    const struct nvlx_op *last = &ops[index - 1];
    uint32_t length = 1, i;
    while (length <= NVLXI_ROUND_MAX && !are_alike(last, last - length))
        length++;
    for (i = 1; i < TURNS - length && are_alike(last - i, last - i - length);)
        i++;
    if (length == 1 || length > NVLXI_ROUND_MAX || i < TURNS - length)
        return false;
    round->length = length;
    for (i = 0; i < length; i++)
        round->path[i] = find_path(paths, last + 1 - length + i);
    return true;
}

/* Validates so many ops, each `step`th, the same way; returns how many are left. */
static inline __attribute__((always_inline)) size_t validate_steps(const struct short_path *path,
                                                                   const struct nvlx_op *op, uint64_t *remote,
                                                                   size_t count, size_t step, uint32_t opcode) {
    uint64_t *const longest = &path->v->validated.longest, lasts = *longest;
    while (count && validate_one(path, op, opcode, remote, &lasts)) {
        op += step;
        remote += step;
        count--;
    }
    *longest = lasts;
    return count;
}

/* Each `step`th op from `index` on, up to the first that needs something new; returns that, or one from `end` on.
 * Compiled for each direction. */
static __attribute__((noinline)) size_t validate_each(const struct short_path *path, size_t index, size_t end,
                                                      size_t step) {
    const struct nvlxi_validated *validated = &path->v->validated;
    const struct nvlx_op *op = &validated->ops[index];
    uint64_t *const remote = &validated->remote[index];
    const size_t count = index < end ? nvlxi_ceil_div(end - index, step) : 0;
    const size_t left = path->opcode == NVLX_OP_READ ? validate_steps(path, op, remote, count, step, NVLX_OP_READ)
                                                     : validate_steps(path, op, remote, count, step, NVLX_OP_WRITE);
    return index + (count - left) * step;
}

/* Validates the ops from `index` on, some of each path; returns the first that needs something new. */
static size_t validate_rounds(const struct round *round, size_t index, size_t end) {
    size_t first = end;
    for (uint32_t i = 0; i < round->length; i++)
        first = nvlxi_min(first, validate_each(round->path[i], index + i, end, round->length));
    return first;
}

/* Validates the rounds from `index` on whose ops lie in the same pieces as those of the round before, which is
 * validated; returns the first that does not, or needs something new. */
static size_t validate_same_rounds(const struct round *round, struct nvlxi_validated *validated, size_t index,
                                   size_t end) {
    struct nvlxi_batch batches[NVLXI_ROUND_MAX];
    if (end - index < round->length)
        return index;
    for (uint32_t i = 0; i < round->length; i++)
        if (!have_same(round->path[i], index - round->length + i, round->length, &batches[i]))
            return index;
    const size_t count = nvlxi_validate_batch(batches, round->length, &validated->ops[index], end - index,
                                              &validated->remote[index], &validated->longest);
    return index + count / round->length * round->length;
}

/* Validates ops of the same round as those before them, as long as they go on so. What comes behind the end may be
 * looked at in vain: no more than has gone on so by then. */
static int validate_in_rounds(const struct short_paths *paths, struct nvlxi_validation *v, const struct round *round,
                              size_t *index, size_t count) {
    const size_t first = *index, length = round->length;
    size_t before, some = nvlxi_ceil_div(TURNS, length) * length;
    do {
        before = *index;
        some = nvlxi_min(nvlxi_max(some, (before - first) / length * length), TURNS * length);
        *index = validate_rounds(round, before, nvlxi_min(count, before + some));
        if (*index - before == some)
            *index = validate_same_rounds(round, &v->validated, *index, count);
    } while (*index - before >= some);
    for (size_t i = 0; i < nvlxi_min(*index - first, length); i++)
        v->validated.pair_of[first + i] = (uint8_t)round->path[i]->pair;
    v->round = round->length;
    return note_turns(paths, v, first, *index, NVLXI_IN_ROUNDS);
}

static void begin_turns(struct short_paths *paths) {
    if (!paths->has_slots)
        memset(paths->slot, 0, sizeof paths->slot);
    paths->has_slots = true;
}

/* Validates ops that change between paths, as long as they do. */
static int validate_in_turns(struct short_paths *paths, struct nvlxi_validation *v, size_t *index, size_t count) {
    const struct nvlx_op *ops = v->validated.ops;
    size_t first = *index, before;
    struct round round;
    int code;
    begin_turns(paths);
    do {
        before = *index;
        *index = validate_some_in_turns(paths, &v->validated, before, nvlxi_min(count, before + TURNS));
        if (*index - before < TURNS || !find_round(paths, ops, *index, &round))
            continue;
        code = note_turns(paths, v, first, *index, NVLXI_IN_TURNS);
        if (!code)
            code = validate_in_rounds(paths, v, &round, index, count);
        if (code)
            return code;
        first = *index;
    } while (*index - before >= TURNS &&
             (!are_alike(&ops[*index - 1], &ops[*index - 2]) || !are_alike(&ops[*index - 2], &ops[*index - 3])));
    return note_turns(paths, v, first, *index, NVLXI_IN_TURNS);
}

/* Validates the ops from `index` on that need nothing new; *index becomes the first that does. */
static int validate_ready(struct short_paths *paths, const struct short_path *path, size_t *index, size_t count) {
    struct nvlxi_validation *v = path->v;
    size_t before;
    int code;
    do {
        before = *index;
        code = validate_alike(path, index, count);
        if (code || *index == count || v->validated.ops[*index].opcode > NVLX_OP_WRITE)
            return code;
        code = validate_in_turns(paths, v, index, count);
        path = *index > before ? find_path(paths, &v->validated.ops[*index - 1]) : NULL;
    } while (!code && path && *index < count);
    return code;
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
    validated->pair_count = validated->stretch_count = validated->cut_count = validated->signal_count = 0;
    validated->wait_count = 0;
    validated->planned = validated->stretch = validated->at = validated->cut = 0;
    validated->longest = 0;
    nvlxi_borders_begin(&validated->borders);
}

static int reserve(struct nvlxi_validation *v, size_t count) {
    struct nvlxi_validated *validated = &v->validated;
    if (count <= v->remote_capacity)
        return 0;
    free(validated->remote);
    const size_t each = sizeof *validated->remote + sizeof *validated->pair_of;
    validated->remote = count <= SIZE_MAX / sizeof *validated->ops ? malloc(count * each) : NULL;
    v->remote_capacity = validated->remote ? count : 0;
    validated->pair_of = validated->remote ? (uint8_t *)(validated->remote + count) : NULL;
    return validated->remote ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory to check a list of %zu ops", count);
}

int nvlxi_validate(struct nvlxi_validation *v, const struct nvlxi_registration *registration, const struct nvlx_op *ops,
                   size_t count, uint32_t mechanism, struct nvlxi_needs *needs) {
    struct nvlxi_route *route = NULL;
    struct short_paths paths;
    size_t index = 0;
    paths.count = paths.begun = 0;
    paths.same_process = paths.has_slots = false;
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
        code = nvlxi_validate_op(v, index, &route);
        struct short_path *path = !code && route ? path_of(&paths, v, route, ops[index].opcode) : NULL;
        index++;
        if (path)
            code = validate_ready(&paths, path, &index, count);
    }
    if (!code && v->missing_count)
        return NVLX_EAGAIN;
    if (!code)
        code = nvlxi_validate_note_mappings(v);
    if (!code && v->validated.cut_count > 1)
        nvlxi_validate_join(v);
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
    free(v->validated.signals);
    free(v->validated.waits);
    nvlxi_borders_free(&v->validated.borders);
    nvlxi_digested_shelf_free(&v->digested);
    nvlxi_shape_free(&v->shape);
    free(v);
}
