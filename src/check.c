/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

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
        if (check->routes[i])
            free(check->routes[i]->mark);
        free(check->routes[i]);
    }
    free(check->routes);
    free(check->mark);
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

/* Notes that the list uses the local pieces under an op. */
static int use_local(struct list *list, uint32_t piece, uint64_t end) {
    struct nvlxi_check *check = list->check;
    struct nvlxi_needs *needs = list->needs;
    int code = grow(&check->mark, &check->mark_capacity, check->local->count, sizeof *check->mark);
    for (; !code && piece < check->local->count && check->local->piece[piece].start < end; piece++) {
        if (check->mark[piece] == check->epoch)
            continue;
        code = grow(&needs->uses, &needs->use_capacity, needs->use_count + 1, sizeof *needs->uses);
        if (code)
            break;
        check->mark[piece] = check->epoch;
        needs->uses[needs->use_count++] =
            (struct nvlxi_use){check->local->piece[piece].start, check->local->piece[piece].end};
    }
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
    int code = grow(&route->mark, &route->mark_capacity, peer->table->descriptor->segment_count, sizeof *route->mark);
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

static int note_missing(struct nvlxi_check *check, const struct nvlxi_route *route,
                        const struct nvlxi_segment_record *segment) {
    int code = grow(&check->missing, &check->missing_capacity, check->missing_count + 1, sizeof *check->missing);
    if (!code)
        check->missing[check->missing_count++] = (struct nvlxi_missing){
            .peer = route->peer, .gpu = route->gpu, .base = segment->base, .serial = segment->serial};
    return code;
}

/* Notes that the list uses a segment of the peer: pins its mapping, or lists it as missing; tells its offset. */
static int use_segment(struct list *list, struct nvlxi_route *route, uint32_t segment, uint64_t *offset) {
    struct nvlxi_needs *needs = list->needs;
    int code = 0;
    *offset = atomic_load_explicit(&route->view->offset[segment], memory_order_acquire);
    if (route->mark[segment] == list->check->epoch)
        return 0;
    if (*offset == NVLXI_UNMAPPED) {
        code = note_missing(list->check, route, &route->table->descriptor->segments[segment]);
    } else {
        code = grow(&needs->mappings, &needs->mapping_capacity, needs->mapping_count + 1, sizeof(*needs->mappings));
        if (!code)
            needs->mappings[needs->mapping_count++] = route->view->mapping[segment];
    }
    if (!code)
        route->mark[segment] = list->check->epoch;
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
    code = use_segment(list, *route, remote->owner, &offset);
    if (code || offset == NVLXI_UNMAPPED)
        return code;
    const struct nvlxi_group *group = (*route)->group[op->opcode - 1];
    if ((!group || group->device != remote->device) && (code = find_group(list, *route, remote, op->opcode)))
        return code;
    return add(list->plan, (*route)->group[op->opcode - 1], op, offset);
}

/* ---- The short path ---------------------------------------------------------------------------------- */

/* Adds the ops from `index` on that need nothing new; returns the first that does. */
static size_t check_ready(struct list *list, size_t index, size_t count, struct nvlxi_route *route) {
    const struct nvlxi_check *check = list->check;
    const struct nvlxi_ranges *local = check->local, *remote = &route->table->ranges;
    const uint32_t epoch = check->epoch, *local_mark = check->mark, *segment_mark = route->mark;
    for (; index < count; index++) {
        const struct nvlx_op *op = &list->ops[index];
        uint32_t opcode = op->opcode;
        if (op->peer != route->peer || (opcode - 1) > 1 || op->flags || op->arg || !op->length)
            break;
        uint64_t here = (uint64_t)(uintptr_t)op->local, there = op->remote, length = op->length;
        uint32_t near = nvlxi_ranges_find(local, here);
        const struct nvlxi_range *far = &remote->piece[nvlxi_ranges_find(remote, there)];
        if (!nvlxi_range_holds(&local->piece[near], here, length) || !nvlxi_range_holds(far, there, length))
            break;
        if (!(far->access & opcode) || local_mark[near] != epoch || segment_mark[far->owner] != epoch)
            break;
        struct nvlxi_group *group = route->group[opcode - 1];
        if (!group || group->device != far->device || group->gpu != local->piece[near].device)
            break;
        uint64_t offset = atomic_load_explicit(&route->view->offset[far->owner], memory_order_relaxed);
        if (offset == NVLXI_UNMAPPED)
            break;
        if (add(list->plan, group, op, offset))
            break;
    }
    return index;
}

static void begin(struct nvlxi_check *check, const struct nvlxi_registration *registration) {
    check->registration = registration;
    check->local = &registration->ranges;
    check->route_count = 0;
    check->missing_count = 0;
    if (++check->epoch == 0) { /* marks of four billion lists ago would look new */
        if (check->mark)
            memset(check->mark, 0, check->mark_capacity * sizeof *check->mark);
        for (size_t i = 0; i < check->route_capacity; i++)
            if (check->routes[i] && check->routes[i]->mark)
                memset(check->routes[i]->mark, 0, check->routes[i]->mark_capacity * sizeof(uint32_t));
        check->epoch = 1;
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
