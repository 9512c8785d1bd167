/* Links that sleep: see wake.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/wake.h"

#include "remote/link.h"

#define LIST_MIN 4096u              /* ops: fewer are checked and planned sooner than a link is awake */
#define IDLE_NS  UINT64_C(40000000) /* then they sleep, or soon will */
#define WAYS_MAX ((size_t)16)

struct way { /* from a GPU of ours to those of a peer */
    struct nvlx_peer *peer;
    int gpu;
};

/* The GPU of its local bytes; -1: they are not registered. With the tables held for reading. */
static int gpu_of(const struct nvlxi_intervals *own, const struct nvlx_op *op) {
    const uint64_t address = (uintptr_t)op->local;
    const uint32_t piece = nvlxi_intervals_find(own, address);
    return piece && own->piece[piece].start <= address ? nvlxi_place_device(own->piece[piece].place) : -1;
}

static bool is_known(const struct way *ways, size_t count, const struct way *way) {
    for (size_t i = 0; i < count; i++)
        if (ways[i].peer == way->peer && ways[i].gpu == way->gpu)
            return true;
    return false;
}

/* The first ops show peers that come in turn, and some at equal distances those that come one after the other. */
static size_t find_ways(const struct nvlxi_transfers *t, const struct nvlx_op *ops, size_t count,
                        struct way ways[WAYS_MAX]) {
    size_t known = 0;
    nvlxi_tables_read(t->context->tables);
    for (size_t i = 0; i < 2 * WAYS_MAX && known < WAYS_MAX; i++) {
        const struct nvlx_op *op = &ops[i < WAYS_MAX ? i : (i - WAYS_MAX) * (count / WAYS_MAX)];
        const struct way way = {op->peer, gpu_of(&t->registration->ranges, op)};
        if (way.peer && way.peer->engine == t->engine && way.gpu >= 0 && !is_known(ways, known, &way))
            ways[known++] = way;
    }
    nvlxi_tables_read_end(t->context->tables);
    return known;
}

void nvlxi_wake_for(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count, uint64_t now_ns) {
    struct way ways[WAYS_MAX];
    if (count < LIST_MIN)
        return;
    const uint64_t used_ns = atomic_load_explicit(&transfers->used_ns, memory_order_relaxed);
    if (now_ns < used_ns || now_ns - used_ns < IDLE_NS)
        return;
    nvlxi_wake_note_use(transfers, now_ns); /* if it is refused, too */
    const size_t known = find_ways(transfers, ops, count, ways);
    for (size_t i = 0; i < known; i++)
        nvlxi_peer_wake(ways[i].peer, ways[i].gpu);
}

void nvlxi_wake_note_use(struct nvlxi_transfers *transfers, uint64_t now_ns) {
    atomic_store_explicit(&transfers->used_ns, now_ns, memory_order_relaxed);
}
