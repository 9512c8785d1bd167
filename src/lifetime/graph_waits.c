/* Waits of graphs: see graph_waits.h. SPDX-License-Identifier: Apache-2.0 */
#include "lifetime/graph_waits.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "lifetime/reads.h"
#include "transfer/graphs.h"
#include "transfer/op.h"

static const struct nvlxi_context *context_of(const struct nvlxi_waits *waits) {
    return waits->transfers->context;
}

static struct nvlxi_list_memory *memory_of(const struct nvlxi_waits *waits) {
    return &waits->transfers->pool.lists;
}

/* ---- Gates ---------------------------------------------------------------------------------------------- */

static uint64_t *gate_of(const struct nvlxi_graph_wait *wait) {
    return (uint64_t *)(void *)wait->chunk->fragment;
}

/* ---- The list: all under the mutex ---------------------------------------------------------------------- */

static void destroy(struct nvlxi_waits *waits, struct nvlxi_graph_wait *wait) {
    nvlxi_list_memory_return_exact(memory_of(waits), wait->chunk);
    free(wait);
}

static void take_out(struct nvlxi_waits *waits, struct nvlxi_graph_wait *wait) {
    DL_DELETE(waits->of_graphs, wait); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    atomic_fetch_sub(&wait->peer->pins, 1);
    destroy(waits, wait);
}

static void reap(struct nvlxi_waits *waits) {
    struct nvlxi_hold *hold = nvlxi_holds_take_ended(&waits->holds), *next;
    for (; hold; hold = next) {
        next = hold->next;
        take_out(waits, nvlxi_container_of(hold, struct nvlxi_graph_wait, hold));
    }
}

/* What graphs held that are gone is list memory too. */
static int make_gate(struct nvlxi_waits *waits, struct nvlxi_graph_wait *wait) {
    nvlxi_graphs_reap(waits->transfers);
    pthread_mutex_lock(&waits->mutex);
    reap(waits);
    pthread_mutex_unlock(&waits->mutex);
    int code = nvlxi_list_memory_borrow_exact(memory_of(waits), 1, &wait->chunk);
    if (code == NVLXI_FULL)
        return nvlxi_fail(NVLX_EBUSY, "no list memory is left for a wait of a graph: raise config.list_memory");
    if (code)
        return code;
    *gate_of(wait) = 0;
    wait->paced.gate = gate_of(wait);
    return 0;
}

/* The code comes last, since kernels read it. */
static void fail(struct nvlxi_waits *waits, struct nvlxi_graph_wait *wait, int code, const char *reason) {
    if (wait->failure)
        return;
    wait->failure = code;
    nvlxi_failed_note(&waits->failed, wait->number, code, reason);
    nvlxi_log(NVLX_LOG_WARNING, "a graph goes on without the signal that it waits for: %s", reason);
    __atomic_store_n(gate_of(wait), (uint64_t)(int64_t)code, __ATOMIC_RELEASE);
}

static bool uses(const struct nvlxi_graph_wait *wait, uint64_t address, uint64_t length) {
    const uint64_t words[] = {wait->paced.address, wait->paced.reached, wait->paced.mark};
    for (size_t i = 0; i < NVLXI_COUNT(words); i++)
        if (words[i] && words[i] < address + length && address < words[i] + NVLXI_COUNT_BYTES)
            return true;
    return false;
}

void nvlxi_graph_waits_end(struct nvlxi_waits *waits, uint64_t address, uint64_t length, int code, const char *reason) {
    struct nvlxi_graph_wait *wait;
    reap(waits);
    DL_FOREACH(waits->of_graphs, wait) {
        if (uses(wait, address, length))
            fail(waits, wait, code, reason);
    }
}

bool nvlxi_graph_waits_use(struct nvlxi_waits *waits, uint64_t address, uint64_t length) {
    const struct nvlxi_graph_wait *wait;
    bool used = false;
    pthread_mutex_lock(&waits->mutex);
    reap(waits);
    DL_FOREACH(waits->of_graphs, wait) {
        used = used || uses(wait, address, length);
    }
    pthread_mutex_unlock(&waits->mutex);
    return used;
}

uint32_t nvlxi_graph_waits_count(struct nvlxi_waits *waits, const struct nvlx_peer *peer) {
    const struct nvlxi_graph_wait *wait;
    uint32_t count = 0;
    pthread_mutex_lock(&waits->mutex);
    reap(waits);
    DL_FOREACH(waits->of_graphs, wait) {
        count += !peer || wait->peer == peer;
    }
    pthread_mutex_unlock(&waits->mutex);
    return count;
}

/* ---- The thread ------------------------------------------------------------------------------------------ */

/* Under the mutex. One that is to be told, or NULL. */
static struct nvlxi_graph_wait *find_untold(struct nvlxi_waits *waits) {
    const struct nvlx_peer *peer = NULL;
    const char *gone = NULL;
    struct nvlxi_graph_wait *wait, *untold = NULL;
    DL_FOREACH(waits->of_graphs, wait) {
        if (wait->peer != peer)
            gone = nvlxi_peer_why_gone(peer = wait->peer);
        if (gone)
            fail(waits, wait, NVLX_ESTALE, gone);
        if (wait->failure && !wait->told)
            untold = untold ? untold : wait;
    }
    return untold;
}

/* The peer is pinned while it is told, so that it stays. */
void nvlxi_graph_waits_look(struct nvlxi_waits *waits) {
    struct nvlxi_graph_wait *wait;
    pthread_mutex_lock(&waits->mutex);
    reap(waits);
    while ((wait = find_untold(waits))) {
        struct nvlx_peer *peer = wait->peer;
        const uint64_t number = wait->number;
        wait->told = true;
        atomic_fetch_add(&peer->pins, 1);
        pthread_mutex_unlock(&waits->mutex);
        waits->tell(waits->context, peer, number);
        pthread_mutex_lock(&waits->mutex);
        atomic_fetch_sub(&peer->pins, 1);
    }
    pthread_mutex_unlock(&waits->mutex);
}

/* ---- A new one ------------------------------------------------------------------------------------------- */

static int check_word(const struct nvlxi_waits *waits, uint64_t address, const struct nvlxi_stream *stream) {
    return address ? nvlxi_waits_check_count_on(waits->transfers, address, stream->gpu) : 0;
}

/* The peer is lost with the tables locked: whoever looks then finds this wait. */
static int enter(struct nvlxi_waits *waits, struct nvlxi_graph_wait *wait, const struct nvlxi_stream *stream) {
    struct nvlxi_tables *tables = context_of(waits)->tables;
    nvlxi_tables_read(tables);
    int code = nvlxi_peer_check(wait->peer);
    if (!code)
        code = check_word(waits, wait->paced.address, stream);
    if (!code)
        code = check_word(waits, wait->paced.reached, stream);
    if (!code)
        code = check_word(waits, wait->paced.mark, stream);
    if (!code) {
        pthread_mutex_lock(&waits->mutex);
        wait->number = ++waits->number;
        atomic_fetch_add(&wait->peer->pins, 1);
        DL_APPEND(waits->of_graphs, wait);
        pthread_cond_broadcast(&waits->news);
        pthread_mutex_unlock(&waits->mutex);
    }
    nvlxi_tables_read_end(tables);
    return code;
}

/* Once the graph holds it, it is the graph's, whatever becomes of the kernel. */
static int queue(struct nvlxi_waits *waits, struct nvlxi_graph_wait *wait, const struct nvlxi_stream *stream) {
    const struct nvlxi_context *context = context_of(waits);
    const struct nvlxi_paced paced = wait->paced; /* the wait may be gone with the graph, if the capture is broken */
    struct nvlxi_lane *lane;
    int code = context->ops->stream_lane(context->device, stream, &lane);
    if (!code && (code = nvlxi_hold_begin(context, stream, &waits->holds, &wait->hold)))
        context->ops->stream_lane_end(lane);
    if (code) {
        pthread_mutex_lock(&waits->mutex);
        take_out(waits, wait);
        pthread_mutex_unlock(&waits->mutex);
        return code;
    }
    code = context->ops->await_paced(lane, &paced);
    context->ops->stream_lane_end(lane);
    return code;
}

int nvlxi_graph_waits_add(struct nvlxi_waits *waits, const struct nvlxi_awaited *awaited,
                          const struct nvlxi_stream *stream, uint64_t *number) {
    int code = nvlxi_graphs_check_kernels(context_of(waits), stream->gpu);
    if (code || (code = nvlxi_waits_start(waits)))
        return code;
    struct nvlxi_graph_wait *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a wait of a graph");
    *made = (struct nvlxi_graph_wait){
        .peer = awaited->peer,
        .paced = {
            .address = awaited->address, .value = awaited->value, .reached = awaited->reached, .mark = awaited->mark}};
    if ((code = make_gate(waits, made))) {
        free(made);
        return code;
    }
    if ((code = enter(waits, made, stream))) {
        destroy(waits, made);
        return code;
    }
    const uint64_t entered = made->number;
    code = queue(waits, made, stream);
    if (!code && number)
        *number = entered;
    return code;
}
