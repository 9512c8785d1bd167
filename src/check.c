/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

#define EPOCH_STEP 1024u /* more than GPUs in a machine */

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

void nvlxi_check_free(struct nvlxi_check *check) {
    for (size_t i = 0; i < check->route_capacity; i++) {
        if (check->routes[i]) {
            free(check->routes[i]->mark);
            free(check->routes[i]->seen[0]);
            free(check->routes[i]->seen[1]);
        }
        free(check->routes[i]);
    }
    free(check->routes);
    free(check->seen);
    free(check->missing);
    free(check);
}

/* ---- The long way of one op -------------------------------------------------------------------------- */

struct list { /* what is being checked */
    struct nvlxi_check *check;
    const struct nvlx_op *ops;
    struct nvlxi_plan *plan;
    struct nvlxi_needs *needs;
};

static int check_fields(const struct list *list, size_t index) {
    const struct nvlx_op *op = &list->ops[index];
    if (op->opcode != NVLX_OP_READ && op->opcode != NVLX_OP_WRITE)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: opcode %" PRIu32 " is neither NVLX_OP_READ nor NVLX_OP_WRITE", index,
                          op->opcode);
    if (op->flags || op->arg)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: flags 0x%" PRIx32 " and arg 0x%" PRIx64 " must be 0", index, op->flags,
                          op->arg);
    if (!op->peer || op->peer->engine != list->check->registration->engine)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: peer %p is not one of this engine", index, (void *)op->peer);
    return 0;
}

static int local_failure(size_t index, const struct nvlx_op *op, uint64_t where) {
    return nvlxi_fail(NVLX_ERANGE,
                      "op %zu: local range 0x%" PRIx64 " + %" PRIu64
                      " is not registered in this engine (byte 0x%" PRIx64 " is missing)",
                      index, (uint64_t)(uintptr_t)op->local, op->length, where);
}

static int remote_failure(size_t index, const struct nvlx_op *op, uint64_t where, bool registered) {
    if (registered)
        return nvlxi_fail(NVLX_EACCES, "op %zu: the peer's region at 0x%" PRIx64 " does not grant %s", index, where,
                          op->opcode == NVLX_OP_READ ? "reading" : "writing");
    return nvlxi_fail(NVLX_ERANGE,
                      "op %zu: the peer's range 0x%" PRIx64 " + %" PRIu64
                      " is not in its registered regions (byte 0x%" PRIx64 " is missing)",
                      index, op->remote, op->length, where);
}

static struct nvlxi_seen seen_piece(const struct nvlxi_range *piece, uint64_t key, uint64_t offset) {
    return (struct nvlxi_seen){.start = piece->start, .last = piece->last, .key = key, .offset = offset};
}

/* Notes that the list uses the local pieces under an op. */
static int use_local(struct list *list, uint32_t index, uint64_t end) {
    struct nvlxi_check *check = list->check;
    struct nvlxi_needs *needs = list->needs;
    const struct nvlxi_range *piece = &check->local->piece[index];
    int code = grow(&check->seen, &check->seen_capacity, check->local->count + 1, sizeof *check->seen);
    for (; !code && index < check->local->count && piece->start < end; index++, piece++) {
        const uint64_t key = check->epoch + piece->device;
        if (check->seen[index].key == key)
            continue;
        code = grow(&needs->uses, &needs->use_capacity, needs->use_count + 1, sizeof *needs->uses);
        if (code)
            break;
        check->seen[index] = seen_piece(piece, key, 0);
        needs->uses[needs->use_count++] = (struct nvlxi_use){piece->start, piece->end};
    }
    return code;
}

/* A peer that is this very process: its side is local memory too, which must not go while it is in flight. */
static int use_own_remote(struct list *list, const struct nvlx_op *op, const struct nvlxi_range *piece) {
    struct nvlxi_needs *needs = list->needs;
    if (!op->peer->same_process)
        return 0;
    int code = grow(&needs->uses, &needs->use_capacity, needs->use_count + 1, sizeof *needs->uses);
    if (!code)
        needs->uses[needs->use_count++] =
            (struct nvlxi_use){piece->start, nvlxi_max(piece->end, op->remote + op->length)};
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

/* Turns an unused or new route into the one from `gpu` to `peer`. */
static int begin_route(struct list *list, struct nvlxi_route *route, struct nvlx_peer *peer, int gpu) {
    const struct nvlxi_peer_table *table = peer->table;
    int code = grow(&route->mark, &route->mark_capacity, table->spans.count, sizeof *route->mark);
    for (int way = 0; way < 2 && !code; way++)
        code = grow(&route->seen[way], &route->seen_capacity[way], table->ranges.count + 1, sizeof *route->seen[way]);
    if (!code)
        code = need_peer(list, peer);
    if (code)
        return code;
    route->peer = peer;
    route->gpu = gpu;
    route->table = peer->table;
    route->view = &peer->table->views[gpu];
    route->group[0] = route->group[1] = NULL;
    return 0;
}

static int find_route(struct list *list, struct nvlx_peer *peer, int gpu, struct nvlxi_route **found) {
    struct nvlxi_check *check = list->check;
    for (size_t i = 0; i < check->route_count; i++) {
        if (check->routes[i]->peer == peer && check->routes[i]->gpu == gpu) {
            *found = check->routes[i];
            return 0;
        }
    }
    int code = grow(&check->routes, &check->route_capacity, check->route_count + 1, sizeof(*check->routes));
    if (code)
        return code;
    struct nvlxi_route **slot = &check->routes[check->route_count];
    if (!*slot && !(*slot = calloc(1, sizeof **slot)))
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a route to a peer");
    code = begin_route(list, *slot, peer, gpu);
    if (code)
        return code;
    check->route_count++;
    *found = *slot;
    return 0;
}

static int note_missing(struct nvlxi_check *check, const struct nvlxi_route *route, const struct nvlxi_span *span) {
    int code = grow(&check->missing, &check->missing_capacity, check->missing_count + 1, sizeof *check->missing);
    if (!code)
        check->missing[check->missing_count++] =
            (struct nvlxi_missing){.peer = route->peer, .gpu = route->gpu, .base = span->base, .serial = span->serial};
    return code;
}

/* Nothing keeps the memory of a peer that is this very process: it may have been freed, and other memory be there. */
static int check_own(const struct nvlxi_route *route, const struct nvlxi_span *span) {
    int gpu;
    if (!route->peer->same_process)
        return 0;
    return nvlxi_own_memory_check(route->peer->relocation, &route->table->descriptor->segments[span->first],
                                  span->count, &gpu);
}

/* Notes that the list uses a span of the peer: pins its mapping, or lists it as missing; tells its offset. */
static int use_span(struct list *list, struct nvlxi_route *route, uint32_t span, uint64_t *offset) {
    struct nvlxi_needs *needs = list->needs;
    int code = 0;
    *offset = atomic_load_explicit(&route->view->offset[span], memory_order_acquire);
    if (route->mark[span] == list->check->epoch)
        return 0;
    if (*offset == NVLXI_UNMAPPED) {
        code = note_missing(list->check, route, &route->table->spans.span[span]);
    } else if (!(code = check_own(route, &route->table->spans.span[span]))) {
        code = grow(&needs->mappings, &needs->mapping_capacity, needs->mapping_count + 1, sizeof(*needs->mappings));
        if (!code)
            needs->mappings[needs->mapping_count++] = route->view->mapping[span];
    }
    if (!code)
        route->mark[span] = list->check->epoch;
    return code;
}

/* Whether the copy kernel can carry what goes from `gpu` to `remote_gpu`. Within a process, only copy engines reach
 * another GPU. */
static int kernels_reach(const struct nvlxi_registration *registration, int gpu, int remote_gpu, bool *reach) {
    struct nvlxi_gpu_limits limits;
    int code = registration->ops->limits(registration->device, gpu, &limits);
    if (!code)
        *reach = limits.sms && gpu == remote_gpu;
    return code;
}

static int find_group(struct list *list, struct nvlxi_route *route, const struct nvlxi_range *remote, uint32_t opcode) {
    int remote_gpu = route->view->mapping[remote->owner]->memory_gpu;
    bool kernels;
    int code = kernels_reach(list->check->registration, route->gpu, remote_gpu, &kernels);
    if (code)
        return code;
    if (list->plan->mechanism == NVLX_MECHANISM_KERNEL && !kernels)
        return nvlxi_fail(NVLX_ENOTSUP, "no kernel can copy between GPU %d and GPU %d here, only copy engines",
                          route->gpu, remote_gpu);
    struct nvlxi_group *group =
        nvlxi_plan_group(list->plan, route->gpu, remote_gpu, remote->device, (uint16_t)opcode, kernels);
    if (!group)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a group of copies");
    route->group[opcode - 1] = group;
    return 0;
}

static uint64_t key_of(const struct nvlxi_check *check, const struct nvlxi_group *group) {
    return (uint64_t)group->id << 32 | check->epoch;
}

static inline int add(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlx_op *op, uint64_t offset) {
    uint64_t local = (uint64_t)(uintptr_t)op->local, remote = op->remote + offset;
    if (op->opcode == NVLX_OP_READ)
        return nvlxi_plan_add(plan, group, local, remote, op->length);
    return nvlxi_plan_add(plan, group, remote, local, op->length);
}

static int check_local(struct list *list, size_t index, int *gpu) {
    const struct nvlx_op *op = &list->ops[index];
    const struct nvlxi_ranges *local = list->check->local;
    uint64_t address = (uint64_t)(uintptr_t)op->local, where;
    uint32_t piece = nvlxi_ranges_find(local, address);
    bool registered;
    if (!nvlxi_ranges_cover(local, piece, address, op->length, NVLX_ACCESS_NONE, &where, &registered))
        return local_failure(index, op, where);
    *gpu = local->piece[piece].device;
    return use_local(list, piece, address + op->length);
}

/* Checks and adds one op, whatever it is; *route becomes its route. */
static int check_op(struct list *list, size_t index, struct nvlxi_route **route) {
    const struct nvlx_op *op = &list->ops[index];
    uint64_t offset, where;
    bool registered;
    int gpu = 0, code = check_fields(list, index);
    if (code || !op->length)
        return code;
    if ((code = check_local(list, index, &gpu)) || (code = find_route(list, op->peer, gpu, route)))
        return code;
    const struct nvlxi_ranges *ranges = &(*route)->table->ranges;
    uint32_t piece = nvlxi_ranges_find(ranges, op->remote);
    if (!nvlxi_ranges_cover(ranges, piece, op->remote, op->length, op->opcode, &where, &registered))
        return remote_failure(index, op, where, registered);
    const struct nvlxi_range *remote = &ranges->piece[piece];
    code = use_span(list, *route, remote->owner, &offset);
    if (code || offset == NVLXI_UNMAPPED || (code = use_own_remote(list, op, remote)))
        return code;
    struct nvlxi_group *group = (*route)->group[op->opcode - 1];
    if (!group || group->device != remote->device) {
        if ((code = find_group(list, *route, remote, op->opcode)))
            return code;
        group = (*route)->group[op->opcode - 1];
    }
    if (remote->access & op->opcode && nvlxi_range_holds(remote, op->remote, op->length))
        (*route)->seen[op->opcode - 1][piece] = seen_piece(remote, key_of(list->check, group), offset);
    return add(list->plan, group, op, offset);
}

/* ---- The short path ---------------------------------------------------------------------------------- */

/* One side of the short path. */
struct side {
    uint64_t shift, mask;
    const uint32_t *slot;
    const struct nvlxi_seen *seen; /* its entry for the table's end holds nothing */
    const struct nvlxi_ranges *ranges;
};

_Static_assert(sizeof(struct nvlxi_seen) == sizeof(struct nvlxi_range), "slots are scaled for both");

static struct side side_of(const struct nvlxi_ranges *ranges, const struct nvlxi_seen *seen) {
    return (struct side){ranges->shift, ranges->mask, ranges->slot, seen, ranges};
}

static inline bool holds(const struct nvlxi_seen *seen, uint64_t address, uint64_t last) {
    uint64_t offset; /* of the last byte: far too large for an address below the piece */
    return !__builtin_add_overflow(address - seen->start, last, &offset) && offset <= seen->last;
}

/* Where the slot does not name the piece, which is rare. */
static __attribute__((noinline, cold)) const struct nvlxi_seen *look_further(const struct side *side, uint64_t address,
                                                                             uint64_t last) {
    const struct nvlxi_seen *seen = &side->seen[nvlxi_ranges_search(side->ranges, address)];
    return holds(seen, address, last) ? seen : &side->seen[side->ranges->count];
}

/* What was seen of the piece that holds [address, address + last], in this list or long ago; the table's end if there
 * is none. */
static inline const struct nvlxi_seen *look_up(const struct side *side, uint64_t address, uint64_t last) {
    const uint32_t scaled = side->slot[(address >> side->shift) & side->mask];
    const struct nvlxi_seen *seen = (const void *)((const char *)side->seen + scaled);
    return nvlxi_likely(holds(seen, address, last)) ? seen : look_further(side, address, last);
}

struct run { /* ops that go the way of one group */
    struct side local, remote;
    const struct nvlx_op *end; /* each op before it fills at most one fragment: there is room for that */
    uint64_t peer;             /* its address, for one test together with arg */
    uint64_t keys;             /* the sum of both keys: see keys_of */
    uint64_t warp_max;
};

/* One comparison tells whether both sides were seen in this list. No other two keys have this sum: the upper half is
 * the remote one's alone, and in the lower halves, which are epoch + GPU and epoch of this list or of older ones,
 * epochs differ by more than GPUs can. */
static uint64_t keys_of(uint64_t local, uint64_t remote) {
    return local + remote;
}

/* Adds the ops from `op` on that need nothing new; returns the first that does. The group has an open fragment. `last`
 * is length - 1, so that an op of 0 bytes does not pass: no piece is that long. */
static inline __attribute__((always_inline)) const struct nvlx_op *
add_ready(const struct run *run, const struct nvlx_op *op, struct nvlxi_group *group, bool read) {
    struct nvlxi_list *const list = &group->lists[NVLXI_BY_WARPS];
    struct nvlxi_fragment open = group->open,
                          *next = list->next; /* written only: lists are slow to read, see device.h */
    uint64_t bytes = 0;
    for (; op < run->end; op++) {
        uint64_t head, here = (uint64_t)(uintptr_t)op->local, there = op->remote, last = op->length - 1;
        memcpy(&head, &op->opcode, sizeof head); /* opcode and flags, as on a little-endian CPU: what CUDA runs on */
        if (nvlxi_unlikely(head != (read ? NVLX_OP_READ : NVLX_OP_WRITE) ||
                           ((uintptr_t)op->peer ^ run->peer) | op->arg))
            break;
        const struct nvlxi_seen *near = look_up(&run->local, here, last), *far = look_up(&run->remote, there, last);
        if (nvlxi_unlikely(near->key + far->key != run->keys))
            break;
        there += far->offset;
        const uint64_t destination = read ? here : there, source = read ? there : here;
        if (destination == open.destination + open.length && source == open.source + open.length) {
            open.length += last + 1;
        } else {
            if (nvlxi_unlikely(open.length > run->warp_max))
                break;
            *next++ = open;
            open = (struct nvlxi_fragment){destination, source, last + 1};
        }
        bytes += last + 1;
    }
    group->open = open;
    group->bytes += bytes;
    list->next = next;
    return op;
}

static __attribute__((noinline)) const struct nvlx_op *add_reads(const struct run *run, const struct nvlx_op *op,
                                                                 struct nvlxi_group *group) {
    return add_ready(run, op, group, true);
}

static __attribute__((noinline)) const struct nvlx_op *add_writes(const struct run *run, const struct nvlx_op *op,
                                                                  struct nvlxi_group *group) {
    return add_ready(run, op, group, false);
}

/* Adds the ops from `index` on that need nothing new; returns the first that does. */
static size_t check_ready(struct list *list, size_t index, size_t count, struct nvlxi_route *route) {
    const struct nvlxi_check *check = list->check;
    const struct nvlx_op *op = list->ops + index, *end = list->ops + count, *before;
    do {
        before = op;
        for (int way = 0; way < 2 && op < end; way++) {
            struct nvlxi_group *group = route->group[way];
            if (!group)
                continue;
            const struct nvlxi_list *to = &group->lists[NVLXI_BY_WARPS];
            const struct run run = {.local = side_of(check->local, check->seen),
                                    .remote = side_of(&route->table->ranges, route->seen[way]),
                                    .end = op + nvlxi_min((size_t)(end - op), (size_t)(to->limit - to->next)),
                                    .peer = (uintptr_t)route->peer,
                                    .keys = keys_of(check->epoch + (uint32_t)route->gpu, key_of(check, group)),
                                    .warp_max = group->warp_max};
            op = way == 0 ? add_reads(&run, op, group) : add_writes(&run, op, group);
        }
    } while (op != before);
    return (size_t)(op - list->ops);
}

static void forget(void *marks, size_t size) {
    if (marks)
        memset(marks, 0, size);
}

static void begin(struct nvlxi_check *check, const struct nvlxi_registration *registration) {
    check->registration = registration;
    check->local = &registration->ranges;
    check->route_count = 0;
    check->missing_count = 0;
    check->epoch += EPOCH_STEP;
    if (check->epoch >= UINT32_MAX / 2) { /* sums of two keys would not fit any more: see keys_of */
        forget(check->seen, check->seen_capacity * sizeof *check->seen);
        for (size_t i = 0; i < check->route_capacity && check->routes[i]; i++) {
            struct nvlxi_route *route = check->routes[i];
            forget(route->mark, route->mark_capacity * sizeof *route->mark);
            forget(route->seen[0], route->seen_capacity[0] * sizeof *route->seen[0]);
            forget(route->seen[1], route->seen_capacity[1] * sizeof *route->seen[1]);
        }
        check->epoch = EPOCH_STEP;
    }
}

int nvlxi_check_ops(struct nvlxi_check *check, const struct nvlxi_registration *registration, const struct nvlx_op *ops,
                    size_t count, struct nvlxi_plan *plan, struct nvlxi_needs *needs) {
    struct list list = {.check = check, .ops = ops, .plan = plan, .needs = needs};
    struct nvlxi_route *route = NULL;
    begin(check, registration);
    needs->use_count = needs->mapping_count = needs->peer_count = 0;
    for (size_t index = 0; index < count; index++) {
        int code = check_op(&list, index, &route);
        if (code)
            return code;
        if (route)
            index = check_ready(&list, index + 1, count, route) - 1;
    }
    if (check->missing_count)
        return NVLX_EAGAIN;
    return nvlxi_plan_seal(plan);
}
