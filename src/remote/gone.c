/* What is known of a peer's end. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/base.h"
#include "base/error.h"
#include "remote/peer.h"

void nvlxi_peer_lose(struct nvlx_peer *peer) {
    snprintf(peer->reason, sizeof peer->reason, "%s", nvlx_last_error());
    atomic_store(&peer->gone, true);
}

const char *nvlxi_peer_why_gone(const struct nvlx_peer *peer) {
    if (nvlxi_unlikely(atomic_load_explicit(&peer->gone, memory_order_acquire)))
        return peer->reason;
    if (nvlxi_unlikely(peer->life && nvlxi_life_is_over(peer->life)))
        return "the peer is gone: its engine, of this process, was destroyed";
    return NULL;
}

int nvlxi_peer_check(const struct nvlx_peer *peer) {
    const char *why = nvlxi_peer_why_gone(peer);
    return why ? nvlxi_fail(NVLX_ESTALE, "%s", why) : 0;
}

int nvlxi_peer_test(const struct nvlx_peer *peer) {
    const char *why = nvlxi_peer_why_gone(peer);
    return why ? nvlxi_fail_again(NVLX_ESTALE, why) : 0;
}
