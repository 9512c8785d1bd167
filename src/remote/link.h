/* Links: what keeps mapping a peer's memory cheap as long as the peer is there, also while nothing of it is mapped.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A peer has one for each local GPU and GPU of the peer between which a mapping was opened: made with the first, and
 * given back when the peer has let go, or is gone and its last mapping closed. */
#ifndef NVLXI_REMOTE_LINK_H
#define NVLXI_REMOTE_LINK_H

#include "remote/peer.h"

/* A mapping of memory of the GPU with this UUID is about to be READY. Without a lock. */
void nvlxi_peer_link(struct nvlx_peer *peer, int gpu, const uint8_t uuid[NVLXI_UUID_BYTES]);
/* Wakes what those from the GPU go over; -1: from all. Without a lock: it waits as launches do. */
void nvlxi_peer_wake(struct nvlx_peer *peer, int gpu);
/* Whether the peer is gone, and links to it are still held. */
bool nvlxi_peer_is_left(struct nvlx_peer *peer);
/* Gives all of them back. Without a lock; nobody opens mappings of the peer any more. */
void nvlxi_peer_unlink(struct nvlx_peer *peer);

#endif
