/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/validate.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "transfer/op.h"
#include "transfer/validate_batch.h"

#define IDLE_ROUTES_MAX 8

/* Makes room for `needed` elements; the array keeps its content, new bytes are 0. */
static int grow(void *array, size_t *capacity, size_t needed, size_t element) {
    void **memory = array;
    if (needed <= *capacity)
        return 0;
    size_t wanted = nvlxi_max(nvlxi_max(2 * *capacity, needed), 8);
    char *grown = realloc(*memory, wanted * element);
    if (!grown)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to check a list that touches %zu regions or segments", needed);
    memset(grown + *capacity * element, 0, (wanted - *capacity) * element);
    *memory = grown;
    *capacity = wanted;
    return 0;
}

void nvlxi_needs_free(struct nvlxi_needs *needs) {
    free(needs->uses);
    free(needs->mappings);
    free(needs->peers);
    *needs = (struct nvlxi_needs){0};
}

static void free_route(struct nvlxi_route *route) {
    free(route->mark);
    free(route->cache[0].piece);
    free(route->cache[1].piece);
    free(route);
}

void nvlxi_validation_free(struct nvlxi_validation *check) {
    for (size_t i = 0; i < check->route_total; i++)
        free_route(check->routes[i]);
    for (size_t i = 0; i < check->local_cache_capacity; i++)
        free(check->local_cache[i].piece);
    free(check->routes);
    free(check->local_cache);
    free(check->touched);
    free(check->missing);
    free(check->checked.remote);
    free(check->checked.stretches);
    free(check->checked.cuts);
    nvlxi_borders_free(&check->checked.borders);
    free(check);
}

/* ---- The long way of one op -------------------------------------------------------------------------- */

struct list { /* what is being checked */
    struct nvlxi_validation *check;
    struct nvlxi_plan *plan;
    struct nvlxi_needs *needs;
    struct nvlxi_group *group; /* of the stretch that the last op is in, or NULL */
};

static int check_fields(const struct list *list, size_t index) {
    const struct nvlx_op *op = &list->check->checked.ops[index];
    int code = nvlxi_op_check(op, index);
    if (!code && (!op->peer || op->peer->engine != list->check->registration->engine))
        code = nvlxi_op_foreign(op, index);
    return code;
}

/* Notes that an op of the list lies in a piece. */
static int touch(struct nvlxi_validation *check, struct nvlxi_range_cache *cache, const struct nvlxi_range *piece) {
    int code = grow(&check->touched, &check->touched_capacity, check->touched_count + 1, sizeof(*check->touched));
    if (code)
        return code;
    check->touched[check->touched_count++] = cache;
    cache->start = piece->start;
    cache->size = piece->end - piece->start;
    return 0;
}

/* The same of a local piece, which the list then uses. */
static int touch_local(struct list *list, struct nvlxi_range_cache *cache, const struct nvlxi_range *piece) {
    struct nvlxi_needs *needs = list->needs;
    const struct nvlxi_intervals *local = list->check->local;
    int code = grow(&needs->uses, &needs->use_capacity, needs->use_count + 1, sizeof *needs->uses);
    if (!code && nvlxi_intervals_border(local, (uint32_t)(piece - local->piece)))
        code = nvlxi_borders_note(&list->check->checked.borders, piece->start);
    if (code || (code = touch(list->check, cache, piece)))
        return code;
    needs->uses[needs->use_count++] = (struct nvlxi_use){piece->start, piece->end};
    cache->known = nvlxi_intervals_born(local, (uint32_t)(piece - local->piece));
    return 0;
}

/* Touches the local pieces under an op, from the first one on. */
static int use_local(struct list *list, uint32_t index, uint64_t end) {
    struct nvlxi_validation *check = list->check;
    const struct nvlxi_intervals *local = check->local;
    const size_t gpu = local->piece[index].device;
    int code = grow(&check->local_cache, &check->local_cache_capacity, gpu + 1, sizeof *check->local_cache);
    if (!code)
        code = grow(&check->local_cache[gpu].piece, &check->local_cache[gpu].capacity, local->room,
                    sizeof(struct nvlxi_range_cache));
    for (; !code && index && local->piece[index].start < end; index = nvlxi_intervals_next(local, index))
        if (!check->local_cache[gpu].piece[index].size)
            code = touch_local(list, &check->local_cache[gpu].piece[index], &local->piece[index]);
    return code;
}

/* A peer that is this very process: its side is local memory too, which must not go while it is in flight. */
static int use_own_remote(struct list *list, const struct nvlx_peer *peer, uint64_t end,
                          const struct nvlxi_range *piece) {
    struct nvlxi_needs *needs = list->needs;
    if (!peer->same_process)
        return 0;
    int code = grow(&needs->uses, &needs->use_capacity, needs->use_count + 1, sizeof *needs->uses);
    if (!code)
        needs->uses[needs->use_count++] = (struct nvlxi_use){piece->start, nvlxi_max(piece->end, end)};
    return code;
}

static int need_peer(struct list *list, struct nvlx_peer *peer) {
    struct nvlxi_needs *needs = list->needs;
    for (size_t i = 0; i < needs->peer_count; i++)
        if (needs->peers[i] == peer)
            return 0;
    int code = grow(&needs->peers, &needs->peer_capacity, needs->peer_count + 1, sizeof(*needs->peers));
    if (!code)
        needs->peers[needs->peer_count++] = peer;
    return code;
}

/* Turns an idle route, or a new one, into the one from `gpu` to memory of a peer. */
static int begin_route(struct list *list, struct nvlxi_route *route, struct nvlx_peer *peer, int gpu, uint16_t device) {
    const struct nvlxi_peer_table *table = peer->table;
    int code = grow(&route->mark, &route->mark_capacity, table->runs.count, sizeof *route->mark);
    for (int way = 0; way < 2 && !code; way++)
        code = grow(&route->cache[way].piece, &route->cache[way].capacity, table->ranges.room,
                    sizeof(struct nvlxi_range_cache));
    if (!code)
        code = need_peer(list, peer);
    if (code)
        return code;
    route->peer = peer;
    route->gpu = gpu;
    route->device = device;
    route->table = table;
    route->view = &table->views[gpu];
    route->version = table->ranges.version;
    route->group[0] = route->group[1] = NULL;
    return 0;
}

/* Puts a route behind those of this list: the idle one that served for the same, or a new one. */
static int next_route(struct nvlxi_validation *check, uint64_t version, int gpu, uint16_t device) {
    const size_t next = check->route_count;
    for (size_t i = next; i < check->route_total; i++) {
        struct nvlxi_route *route = check->routes[i];
        if (route->version == version && route->gpu == gpu && route->device == device) {
            check->routes[i] = check->routes[next];
            check->routes[next] = route;
            return 0;
        }
    }
    int code = grow(&check->routes, &check->route_capacity, check->route_total + 1, sizeof(*check->routes));
    struct nvlxi_route *made = code ? NULL : calloc(1, sizeof *made);
    if (!made)
        return code ? code : nvlxi_fail(NVLX_ENOMEM, "no memory for a route to a peer");
    while (check->route_total - next >= IDLE_ROUTES_MAX)
        free_route(check->routes[--check->route_total]);
    memmove(&check->routes[next + 1], &check->routes[next], (check->route_total - next) * sizeof(*check->routes));
    check->routes[next] = made;
    check->route_total++;
    return 0;
}

static int find_route(struct list *list, struct nvlx_peer *peer, int gpu, uint16_t device, struct nvlxi_route **found) {
    struct nvlxi_validation *check = list->check;
    for (size_t i = 0; i < check->route_count; i++) {
        struct nvlxi_route *route = check->routes[i];
        if (route->peer == peer && route->gpu == gpu && route->device == device) {
            *found = route;
            return 0;
        }
    }
    int code = next_route(check, peer->table->ranges.version, gpu, device);
    if (!code)
        code = begin_route(list, check->routes[check->route_count], peer, gpu, device);
    if (!code)
        *found = check->routes[check->route_count++];
    return code;
}

static int note_missing(struct nvlxi_validation *check, const struct nvlxi_route *route, const struct nvlxi_run *run) {
    int code = grow(&check->missing, &check->missing_capacity, check->missing_count + 1, sizeof *check->missing);
    if (!code)
        check->missing[check->missing_count++] =
            (struct nvlxi_missing){.peer = route->peer, .gpu = route->gpu, .base = run->base, .serial = run->serial};
    return code;
}

/* Notes that the list uses a run of the peer: pins its mapping, or lists it as missing; tells its offset. */
static int use_run(struct list *list, struct nvlxi_route *route, uint32_t run, uint64_t *offset) {
    struct nvlxi_needs *needs = list->needs;
    int code = 0;
    *offset = atomic_load_explicit(&route->view->offset[run], memory_order_acquire);
    if (route->mark[run] == list->check->number)
        return 0;
    if (*offset == NVLXI_UNMAPPED) {
        code = note_missing(list->check, route, &route->table->runs.run[run]);
    } else if (!(code = nvlxi_mapping_check(route->peer->remote->context, route->view->mapping[run]))) {
        code = grow(&needs->mappings, &needs->mapping_capacity, needs->mapping_count + 1, sizeof(*needs->mappings));
        if (!code)
            code = nvlxi_borders_note(&list->check->checked.borders, route->view->mapping[run]->address);
        if (!code)
            needs->mappings[needs->mapping_count++] = route->view->mapping[run];
    }
    if (!code)
        route->mark[run] = list->check->number;
    return code;
}

/* Whether the copy kernel can carry what goes from `gpu` to `remote_gpu`. Within a process, only copy engines reach
 * another GPU. */
static int kernels_reach(const struct nvlxi_registration *registration, int gpu, int remote_gpu, bool *reach) {
    struct nvlxi_gpu_limits limits;
    int code = registration->context->ops->limits(registration->context->device, gpu, &limits);
    if (!code)
        *reach = limits.sms && gpu == remote_gpu;
    return code;
}

static int fail_kernels(int gpu, int remote_gpu) {
    if (gpu != remote_gpu)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "within one process only copy engines reach another GPU, and GPU %d and GPU %d are this "
                          "process's: NVLX_MECHANISM_KERNEL cannot copy between them, NVLX_MECHANISM_AUTO can",
                          gpu, remote_gpu);
    return nvlxi_fail(NVLX_ENOTSUP,
                      "GPU %d has no copy kernels, since they could not be loaded there: NVLX_MECHANISM_KERNEL cannot "
                      "copy, NVLX_MECHANISM_AUTO can",
                      gpu);
}

static int find_group(struct list *list, struct nvlxi_route *route, const struct nvlxi_range *remote, uint32_t opcode) {
    int remote_gpu = route->view->mapping[remote->owner]->memory_gpu;
    bool kernels;
    int code = kernels_reach(list->check->registration, route->gpu, remote_gpu, &kernels);
    if (code)
        return code;
    if (list->plan->mechanism == NVLX_MECHANISM_KERNEL && !kernels)
        return fail_kernels(route->gpu, remote_gpu);
    struct nvlxi_group *group =
        nvlxi_plan_group(list->plan, route->gpu, remote_gpu, remote->device, (uint16_t)opcode, kernels);
    if (!group)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a group of copies");
    route->group[opcode - 1] = group;
    return 0;
}

/* Ends a stretch; with a NULL group, one of one op that is cut. */
static int add_stretch(struct list *list, size_t end, struct nvlxi_group *group) {
    struct nvlxi_validation *check = list->check;
    struct nvlxi_validated *checked = &check->checked;
    int code =
        grow(&checked->stretches, &check->stretch_capacity, checked->stretch_count + 1, sizeof *checked->stretches);
    if (!code)
        checked->stretches[checked->stretch_count++] = (struct nvlxi_stretch){end, group};
    return code;
}

/* Ends the stretch before op `index` if that goes another way. */
static int note_stretch(struct list *list, size_t index, struct nvlxi_group *group) {
    int code = list->group && group != list->group ? add_stretch(list, index, list->group) : 0;
    if (!code)
        list->group = group;
    return code;
}

/* Both sides of an op, or what of it lies between two borders. */
struct part {
    uint64_t local, remote, length;
    uint32_t local_range, remote_range; /* the pieces that they begin in */
};

/* Whether both sides of an op are registered, and grant its direction. */
static int check_sides(const struct list *list, size_t index) {
    const struct nvlx_op *op = &list->check->checked.ops[index];
    const struct nvlxi_intervals *local = list->check->local, *ranges = &op->peer->table->ranges;
    const uint64_t address = (uint64_t)(uintptr_t)op->local;
    const char *gone = nvlxi_peer_why_gone(op->peer);
    uint64_t where;
    bool registered;
    if (gone)
        return nvlxi_fail(NVLX_ESTALE, "op %zu: %s", index, gone);
    if (!nvlxi_intervals_cover(local, nvlxi_intervals_find(local, address), address, op->length, NVLX_ACCESS_NONE,
                               &where, &registered))
        return nvlxi_op_local_failure(op, index, where);
    if (!nvlxi_intervals_cover(ranges, nvlxi_intervals_find(ranges, op->remote), op->remote, op->length, op->opcode,
                               &where, &registered))
        return nvlxi_op_remote_failure(op, index, where, registered);
    return 0;
}

/* What lies of an op, whose sides are checked, from its byte `at` on up to the next border. */
static struct part part_of(const struct list *list, const struct nvlx_op *op, uint64_t at) {
    const struct nvlxi_intervals *local = list->check->local, *ranges = &op->peer->table->ranges;
    struct part part = {.local = (uint64_t)(uintptr_t)op->local + at, .remote = op->remote + at};
    part.local_range = nvlxi_intervals_find(local, part.local);
    part.remote_range = nvlxi_intervals_find(ranges, part.remote);
    const uint64_t local_length =
                       nvlxi_intervals_reach(local, part.local_range, part.local + (op->length - at)) - part.local,
                   remote_length =
                       nvlxi_intervals_reach(ranges, part.remote_range, part.remote + (op->length - at)) - part.remote;
    part.length = nvlxi_min(local_length, remote_length);
    return part;
}

/* Finds the way of a part: *route becomes its route, *offset what leads to its mapping, if there is one. */
static int check_part(struct list *list, const struct nvlx_op *op, const struct part *part, struct nvlxi_route **route,
                      uint64_t *offset) {
    const struct nvlxi_intervals *ranges = &op->peer->table->ranges;
    const struct nvlxi_range *remote = &ranges->piece[part->remote_range];
    const int gpu = list->check->local->piece[part->local_range].device;
    int code = use_local(list, part->local_range, part->local + part->length);
    if (code || (code = find_route(list, op->peer, gpu, remote->device, route)) ||
        (code = use_run(list, *route, remote->owner, offset)) || *offset == NVLXI_UNMAPPED ||
        (code = use_own_remote(list, op->peer, part->remote + part->length, remote)))
        return code;
    if (!(*route)->group[op->opcode - 1] && (code = find_group(list, *route, remote, op->opcode)))
        return code;
    struct nvlxi_range_cache *cache = &(*route)->cache[op->opcode - 1].piece[part->remote_range];
    if (cache->size || !(remote->access & op->opcode) || !nvlxi_range_holds(remote, part->remote, part->length))
        return 0;
    cache->offset = *offset;
    cache->known = op->peer->same_process ? 0 : nvlxi_intervals_born(ranges, part->remote_range);
    return touch(list->check, cache, remote);
}

/* Notes a part of an op that is cut: such an op is a stretch. */
static int note_cut(struct list *list, size_t index, const struct part *part, uint64_t mapped,
                    struct nvlxi_group *group) {
    struct nvlxi_validation *check = list->check;
    struct nvlxi_validated *checked = &check->checked;
    const bool first = !checked->cut_count || checked->cuts[checked->cut_count - 1].op != index;
    const bool read = group->opcode == NVLX_OP_READ;
    int code = grow(&checked->cuts, &check->cut_capacity, checked->cut_count + 1, sizeof *checked->cuts);
    if (!code && first && !(code = note_stretch(list, index, NULL)))
        code = add_stretch(list, index + 1, NULL);
    if (!code)
        checked->cuts[checked->cut_count++] =
            (struct nvlxi_cut){.op = index,
                               .group = group,
                               .fragment = {read ? part->local : mapped, read ? mapped : part->local, part->length}};
    return code;
}

/* Checks one op, whatever it is; *route becomes the route of its end. */
static int check_op(struct list *list, size_t index, struct nvlxi_route **route) {
    struct nvlxi_validated *checked = &list->check->checked;
    const struct nvlx_op *op = &checked->ops[index];
    struct part part;
    int code = check_fields(list, index);
    if (code)
        return code;
    checked->longest |= op->length - 1;
    checked->remote[index] = 0;
    if (op->length && !(code = check_sides(list, index)) && op->peer->same_process)
        code = nvlxi_ops_check_overlap(checked->ops, index, index + 1);
    for (uint64_t at = 0; at < op->length && !code; at += part.length) {
        uint64_t offset = NVLXI_UNMAPPED;
        part = part_of(list, op, at);
        code = check_part(list, op, &part, route, &offset);
        if (code || offset == NVLXI_UNMAPPED)
            continue;
        struct nvlxi_group *group = (*route)->group[op->opcode - 1];
        if (part.length < op->length) {
            code = note_cut(list, index, &part, part.remote + offset, group);
        } else {
            checked->remote[index] = op->remote + offset;
            code = note_stretch(list, index, group);
        }
    }
    return code;
}

/* ---- The short path ---------------------------------------------------------------------------------- */

/* One side of the short path. */
struct side {
    uint64_t shift, mask;
    const _Atomic uint32_t *slot;
    struct nvlxi_range_cache *cache;
    const struct nvlxi_intervals *ranges;
};

struct short_path { /* ops that go the way of one group */
    struct side local, remote;
    uint64_t peer; /* its address, for one test together with arg */
    struct list *list;
    struct nvlxi_route *route;
};

_Static_assert(sizeof(struct nvlxi_range_cache) == sizeof(struct nvlxi_range), "slots are scaled for both");

static struct side side_of(const struct nvlxi_intervals *ranges, struct nvlxi_range_cache *cache) {
    return (struct side){ranges->shift, ranges->mask, ranges->slot, cache, ranges};
}

/* What the short path takes to be so is so, but for the mark: the piece of a peer is pinned, a local one is used. */
static bool touch_again(const struct short_path *path, const struct side *side, struct nvlxi_range_cache *cache,
                        const struct nvlxi_range *piece) {
    uint64_t offset;
    if (cache->known != nvlxi_intervals_born(side->ranges, (uint32_t)(piece - side->ranges->piece)))
        return false;
    if (side == &path->local)
        return touch_local(path->list, cache, piece) == 0;
    return use_run(path->list, path->route, piece->owner, &offset) == 0 && touch(path->list->check, cache, piece) == 0;
}

/* Where the slot does not name a piece that was touched: the piece is another, or is touched for the first time. */
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
    uint64_t head; /* opcode and flags, as on a little-endian CPU: what CUDA stretches on */
    memcpy(&head, &op->opcode, sizeof head);
    return nvlxi_likely(head == opcode && !(((uintptr_t)op->peer ^ path->peer) | op->arg));
}

/* Checks one op; false if it needs something new. `last` is length - 1, so that an op of 0 bytes does not pass: no
 * piece is that long. */
static inline __attribute__((always_inline)) bool check_one(const struct short_path *path, const struct nvlx_op *op,
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

/* Checks the ops from `index` on that need nothing new, at most LOOK_UPS; returns the first that is left. */
static inline __attribute__((always_inline)) size_t check_some(const struct short_path *path, size_t index, size_t end,
                                                               uint32_t opcode, uint64_t *longest) {
    const struct nvlx_op *const ops = path->list->check->checked.ops;
    uint64_t *const remote = path->list->check->checked.remote;
    if (end - index >= LOOK_UPS)
        end = index + LOOK_UPS;
    for (; end - index >= 2; index += 2) { /* two at a time: half the counting */
        if (!check_one(path, &ops[index], opcode, &remote[index], longest))
            return index;
        if (!check_one(path, &ops[index + 1], opcode, &remote[index + 1], longest))
            return index + 1;
    }
    return index < end && check_one(path, &ops[index], opcode, &remote[index], longest) ? index + 1 : index;
}

/* Checks the ops from `index` on that lie in the same two pieces as the one before them, which is checked; returns the
 * first that does not, or needs something new. */
static inline __attribute__((always_inline)) size_t check_same(const struct short_path *path, size_t index, size_t end,
                                                               uint32_t opcode, uint64_t *longest) {
    const struct nvlxi_validated *checked = &path->list->check->checked;
    const struct nvlx_op *op = &checked->ops[index - 1];
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
    return index + nvlxi_validate_batch(&batch, op + 1, end - index, checked->remote + index, longest);
}

/* Checks the ops from `index` on that need nothing new; returns the first that does. */
static inline __attribute__((always_inline)) size_t check_short(const struct short_path *path, size_t index, size_t end,
                                                                uint32_t opcode) {
    uint64_t longest = path->list->check->checked.longest;
    for (;;) {
        const size_t first = index;
        index = check_some(path, index, end, opcode, &longest);
        if (index - first < LOOK_UPS)
            break;
        index = check_same(path, index, end, opcode, &longest);
    }
    path->list->check->checked.longest = longest;
    return index;
}

static __attribute__((noinline)) size_t check_reads(const struct short_path *path, size_t index, size_t end) {
    return check_short(path, index, end, NVLX_OP_READ);
}

static __attribute__((noinline)) size_t check_writes(const struct short_path *path, size_t index, size_t end) {
    return check_short(path, index, end, NVLX_OP_WRITE);
}

/* Checks the ops from `index` on that need nothing new; *index becomes the first that does. */
static int check_ready(struct list *list, size_t *index, size_t count, struct nvlxi_route *route) {
    const struct nvlxi_validation *check = list->check;
    size_t before;
    do {
        before = *index;
        for (int way = 0; way < 2 && *index < count; way++) {
            if (!route->group[way])
                continue;
            const struct short_path path = {.local = side_of(check->local, check->local_cache[route->gpu].piece),
                                            .remote = side_of(&route->table->ranges, route->cache[way].piece),
                                            .peer = (uintptr_t)route->peer,
                                            .list = list,
                                            .route = route};
            const size_t first = *index;
            *index = way == 0 ? check_reads(&path, first, count) : check_writes(&path, first, count);
            int code = *index > first ? note_stretch(list, first, route->group[way]) : 0;
            if (!code && route->peer->same_process)
                code = nvlxi_ops_check_overlap(list->check->checked.ops, first, *index);
            if (code)
                return code;
        }
    } while (*index != before);
    return 0;
}

static void begin_number(struct nvlxi_validation *check) {
    if (++check->number)
        return;
    for (size_t i = 0; i < check->route_total; i++)
        memset(check->routes[i]->mark, 0, check->routes[i]->mark_capacity * sizeof *check->routes[i]->mark);
    check->number = 1;
}

static int begin(struct nvlxi_validation *check, const struct nvlxi_registration *registration,
                 const struct nvlx_op *ops, size_t count) {
    struct nvlxi_validated *checked = &check->checked;
    check->registration = registration;
    check->local = &registration->ranges;
    check->route_count = 0;
    check->missing_count = 0;
    begin_number(check);
    while (check->touched_count)
        check->touched[--check->touched_count]->size = 0;
    checked->ops = ops;
    checked->count = count;
    checked->stretch_count = checked->stretch = checked->planned = 0;
    checked->cut_count = checked->cut = 0;
    nvlxi_borders_begin(&checked->borders);
    checked->longest = 0;
    if (count <= check->remote_capacity)
        return 0;
    free(checked->remote);
    checked->remote = count <= SIZE_MAX / sizeof *ops ? malloc(count * sizeof *checked->remote) : NULL;
    check->remote_capacity = checked->remote ? count : 0;
    return checked->remote ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory to check a list of %zu ops", count);
}

int nvlxi_validate(struct nvlxi_validation *check, const struct nvlxi_registration *registration,
                   const struct nvlx_op *ops, size_t count, struct nvlxi_plan *plan, struct nvlxi_needs *needs) {
    struct list list = {.check = check, .plan = plan, .needs = needs};
    struct nvlxi_route *route = NULL;
    size_t index = 0;
    needs->use_count = needs->mapping_count = needs->peer_count = 0;
    needs->ops = ops;
    needs->op_count = count;
    int code = begin(check, registration, ops, count);
    while (index < count && !code) {
        code = check_op(&list, index++, &route);
        if (!code && route)
            code = check_ready(&list, &index, count, route);
    }
    if (!code && check->missing_count)
        return NVLX_EAGAIN;
    return code ? code : note_stretch(&list, count, NULL);
}
