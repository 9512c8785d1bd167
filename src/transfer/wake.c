/* Links that sleep: see wake.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/wake.h"

#include "remote/link.h"

#define LIST_MIN  4096u              /* ops: fewer are checked and planned sooner than a link is awake */
#define IDLE_NS   UINT64_C(40000000) /* then they sleep, or soon will */
#define PEERS_MAX ((size_t)16)

static bool is_known(struct nvlx_peer *const *peers, size_t count, const struct nvlx_peer *peer) {
    for (size_t i = 0; i < count; i++)
        if (peers[i] == peer)
            return true;
    return false;
}

/* The first ops show peers that come in turn, and some at equal distances those that come one after the other. */
static void wake_peers(const struct nvlxi_transfers *t, const struct nvlx_op *ops, size_t count) {
    struct nvlx_peer *peers[PEERS_MAX];
    size_t known = 0;
    for (size_t i = 0; i < 2 * PEERS_MAX && known < PEERS_MAX; i++) {
        struct nvlx_peer *peer = ops[i < PEERS_MAX ? i : (i - PEERS_MAX) * (count / PEERS_MAX)].peer;
        if (!peer || peer->engine != t->engine || is_known(peers, known, peer))
            continue;
        peers[known++] = peer;
        nvlxi_peer_wake(peer);
    }
}

void nvlxi_wake_for(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count, uint64_t now_ns) {
    if (count < LIST_MIN)
        return;
    const uint64_t used_ns = atomic_load_explicit(&transfers->used_ns, memory_order_relaxed);
    if (now_ns < used_ns || now_ns - used_ns < IDLE_NS)
        return;
    nvlxi_wake_note_use(transfers, now_ns); /* if it is refused, too */
    wake_peers(transfers, ops, count);
}

void nvlxi_wake_note_use(struct nvlxi_transfers *transfers, uint64_t now_ns) {
    atomic_store_explicit(&transfers->used_ns, now_ns, memory_order_relaxed);
}
