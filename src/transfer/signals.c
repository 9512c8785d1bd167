/* Validates and queues the signals of a list: see signals.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/signals.h"

#include <inttypes.h>

#include "base/error.h"
#include "transfer/op.h"
#include "transfer/validate/validate.h"

/* ---- An op -> a validated signal ----------------------------------------------------------------------- */

/* Where own memory is registered, or the peer's GPU, if it is one of this process. */
static int any_gpu(const struct nvlxi_validation *v, int memory_gpu) {
    const uint32_t first = nvlxi_intervals_next(v->local, 0);
    return first ? nvlxi_place_device(v->local->piece[first].place) : memory_gpu >= 0 ? memory_gpu : 0;
}

/* Of this process, that has a peer's count, which is at this place; -1: another one does. */
static int memory_gpu_of(const struct nvlx_peer *peer, uint16_t place) {
    const int device = nvlxi_place_device(place);
    return device < peer->remote->gpus ? device : -1;
}

/* The GPU that signals. Within a process only the one that has the memory reaches it. Else the one that copies, or that
 * the caller's stream is on. */
static int gpu_of(const struct nvlxi_validation *v, const struct nvlx_op *op, uint16_t place) {
    const int memory_gpu = memory_gpu_of(op->peer, place);
    if (op->peer->same_process && memory_gpu >= 0)
        return memory_gpu;
    if (v->route_count)
        return v->routes[0]->gpu;
    return v->signal_gpu >= 0 ? v->signal_gpu : any_gpu(v, memory_gpu);
}

static int check_place(uint16_t place, uint64_t address, size_t index) {
    return nvlxi_place_is_host(place)
               ? nvlxi_fail(NVLX_EINVAL, "op %zu: the count at 0x%" PRIx64 " is in host memory", index, address)
               : 0;
}

/* A peer's count, and the place of it. */
static int check_remote(struct nvlxi_validation *v, const struct nvlx_op *count, size_t index, uint16_t *place) {
    const struct nvlxi_intervals *ranges = &count->peer->table->ranges;
    const int code = nvlxi_validate_remote(v, count, index);
    if (code)
        return code;
    *place = ranges->piece[nvlxi_intervals_find(ranges, count->remote)].place;
    return check_place(*place, count->remote, index);
}

/* Lists that are kept remember who is told what, and this process is not among them. */
static int validate_own_signal(struct nvlxi_validation *v, const struct nvlx_op *op, size_t index) {
    const uint64_t address = (uint64_t)(uintptr_t)op->local;
    const struct nvlx_op count = {.opcode = NVLX_OP_WRITE, .local = op->local, .length = NVLXI_COUNT_BYTES};
    if (v->needs->prepared)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: a list that is prepared signals to peers alone", index);
    int code = nvlxi_validate_local(v, &count, index);
    if (!code)
        code = nvlxi_validate_own(v, address, address + NVLXI_COUNT_BYTES);
    if (code)
        return code;
    const uint16_t place = v->local->piece[nvlxi_intervals_find(v->local, address)].place;
    if ((code = check_place(place, address, index)))
        return code;
    const struct nvlxi_list_signal signal = {
        .signal = {.address = address, .value = op->arg, .add = (op->flags & NVLX_OP_ADD) != 0},
        .gpu = nvlxi_place_device(place)};
    return nvlxi_note_signal(v, index, &signal);
}

int nvlxi_validate_signal(struct nvlxi_validation *v, size_t index) {
    const struct nvlx_op *op = &v->validated.ops[index];
    if (!op->peer)
        return validate_own_signal(v, op, index);
    const struct nvlx_op count = {
        .opcode = NVLX_OP_WRITE, .peer = op->peer, .remote = op->remote, .length = NVLXI_COUNT_BYTES};
    uint64_t offset = NVLXI_UNMAPPED;
    uint16_t place;
    int code = nvlxi_validate_alive(&count, index);
    if (!code)
        code = check_remote(v, &count, index, &place);
    if (code)
        return code;
    const int gpu = gpu_of(v, &count, place);
    if ((code = nvlxi_validate_used(v, &count, gpu, &offset, NULL)) || offset == NVLXI_UNMAPPED)
        return code;
    const struct nvlxi_list_signal signal = {
        .signal = {.address = op->remote + offset, .value = op->arg, .add = (op->flags & NVLX_OP_ADD) != 0},
        .gpu = gpu};
    return nvlxi_note_signal(v, index, &signal);
}

/* ---- A wait ---------------------------------------------------------------------------------------------- */

/* Of an op that is not checked yet. */
static bool may_move(const struct nvlx_op *op) {
    return op->length && (!nvlxi_op_names_rows(op) || nvlxi_op_rows(op)->count);
}

/* What of the list itself forbids it. */
static int check_wait(const struct nvlxi_validation *v, size_t index) {
    const struct nvlxi_validated *list = &v->validated;
    bool moves = false;
    if (v->needs->prepared)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: a list that is prepared does not wait for its peers", index);
    if (v->needs->keeps_remote_uses)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "op %zu: the stream captures a graph: a part of one does not wait for counts of peers; "
                          "nvlx_stream_wait waits for own ones",
                          index);
    if (v->signal_gpu < 0 || (index && list->ops[index - 1].opcode != NVLX_OP_WAIT_READY))
        return nvlxi_fail(NVLX_EINVAL, "op %zu: a list that waits has a stream, and its waits come first", index);
    if (index == NVLXI_LIST_WAITS)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: a list waits for %d counts at most", index, NVLXI_LIST_WAITS);
    if (index) /* the first wait looks at all */
        return 0;
    for (size_t i = 1; i < list->count; i++) {
        if (list->ops[i].opcode == NVLX_OP_SIGNAL)
            return nvlxi_fail(NVLX_EINVAL,
                              "op %zu: a list that waits does not signal: what is to come after its bytes "
                              "may come without them",
                              i);
        moves = moves || may_move(&list->ops[i]);
    }
    return moves ? 0 : nvlxi_fail(NVLX_EINVAL, "op %zu: a list that waits moves at least one byte", index);
}

int nvlxi_validate_wait(struct nvlxi_validation *v, size_t index) {
    const struct nvlx_op *op = &v->validated.ops[index];
    const struct nvlx_op count = {
        .opcode = NVLX_OP_READ, .peer = op->peer, .remote = op->remote, .length = NVLXI_COUNT_BYTES};
    uint64_t offset = NVLXI_UNMAPPED;
    struct nvlxi_mapping *mapping = NULL;
    uint16_t place;
    int code = check_wait(v, index);
    if (code || (code = nvlxi_validate_alive(&count, index)) || (code = check_remote(v, &count, index, &place)))
        return code;
    if (!op->peer->subscription)
        return nvlxi_fail(
            NVLX_ENOTSUP,
            "op %zu: a list cannot wait for a peer that was made from a text, which does not tell when it "
            "withdraws its count: use nvlx_connect",
            index);
    const int memory_gpu = memory_gpu_of(op->peer, place);
    if (op->peer->same_process && memory_gpu >= 0 && memory_gpu != v->signal_gpu)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "op %zu: within a process, a stream of GPU %d cannot wait for a count on GPU %d", index,
                          v->signal_gpu, memory_gpu);
    if ((code = nvlxi_validate_used(v, &count, v->signal_gpu, &offset, &mapping)) || offset == NVLXI_UNMAPPED)
        return code;
    const struct nvlxi_list_wait wait = {.peer = op->peer,
                                         .mapping = mapping,
                                         .remote = op->remote,
                                         .address = op->remote + offset,
                                         .value = op->arg,
                                         .generation = op->peer->table->descriptor->identity.generation};
    return nvlxi_note_wait(v, index, &wait);
}

/* ---- A plan's signals -> queued ------------------------------------------------------------------------ */

uint32_t nvlxi_signals_on(const struct nvlxi_plan *plan, int gpu) {
    uint32_t count = 0;
    for (size_t i = 0; i < plan->signal_count; i++)
        count += plan->signals[i].gpu == gpu;
    return count;
}

int nvlxi_signals_lone_gpu(const struct nvlxi_plan *plan, size_t number) {
    const int gpu = plan->signals[number].gpu;
    for (size_t i = 0; i < number; i++)
        if (plan->signals[i].gpu == gpu)
            return -1;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        if (group->gpu == gpu)
            return -1;
    return gpu;
}

static const struct nvlxi_leg *carrier_on(const struct nvlxi_legs *legs, int gpu) {
    uint32_t i = 0;
    while (legs->leg[i].lane->key.gpu != gpu)
        i++;
    return &legs->leg[i];
}

static bool is_carrier(const struct nvlxi_plan *plan, const struct nvlxi_legs *legs, const struct nvlxi_leg *leg) {
    const int gpu = leg->lane->key.gpu;
    return nvlxi_signals_on(plan, gpu) && carrier_on(legs, gpu) == leg;
}

/* Lets the carrier wait for all legs on other lanes. Those are marked already. */
static int gather(const struct nvlxi_lane_pool *pool, const struct nvlxi_legs *legs, const struct nvlxi_leg *carrier) {
    int code = 0;
    for (uint32_t i = 0; i < legs->count && !code; i++)
        if (legs->leg[i].lane != carrier->lane)
            code = pool->context->ops->lane_wait(carrier->lane->lane, legs->leg[i].event->event);
    return code;
}

int nvlxi_signals_submit(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan,
                         const struct nvlxi_legs *legs) {
    const struct nvlxi_device_ops *ops = pool->context->ops;
    int code = 0;
    for (uint32_t i = 0; i < legs->count && legs->count > 1 && !code; i++)
        code = ops->event_record(legs->leg[i].lane->lane, legs->leg[i].event->event);
    for (uint32_t i = 0; i < legs->count && !code; i++)
        if (is_carrier(plan, legs, &legs->leg[i]))
            code = gather(pool, legs, &legs->leg[i]);
    for (size_t i = 0; i < plan->signal_count && !code; i++)
        code = ops->signal(carrier_on(legs, plan->signals[i].gpu)->lane->lane, &plan->signals[i].signal);
    return code;
}

/* ---- A list's waits -> queued -------------------------------------------------------------------------- */

int nvlxi_list_await(struct nvlx_request *request, const struct nvlxi_validated *list, void *stream) {
    const struct nvlxi_waiter *waiter = &request->transfers->waiter;
    int code = 0;
    for (size_t i = 0; i < list->wait_count && !code; i++) {
        code = waiter->await(waiter->context, stream, &list->waits[i], &request->waits[i]);
        request->wait_count += code == 0;
    }
    return code;
}

void nvlxi_list_await_no_more(struct nvlx_request *request) {
    const struct nvlxi_waiter *waiter = &request->transfers->waiter;
    for (uint32_t i = 0; i < request->wait_count; i++)
        waiter->drop(waiter->context, request->waits[i]);
    request->wait_count = 0;
}

int nvlxi_list_judge(const struct nvlx_request *request) {
    const struct nvlxi_waiter *waiter = &request->transfers->waiter;
    int code = 0;
    for (uint32_t i = 0; i < request->wait_count && !code; i++)
        code = waiter->outcome(waiter->context, request->waits[i]);
    return code;
}
