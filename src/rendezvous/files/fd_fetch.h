/* Fetches the file descriptors of a peer's segments from where the peer serves, for remote/.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * They come over the connection by which the peer is followed (channel.h). For a peer that is not followed,
 * or by a server of version 1.0 of the protocol: over a connection of its own for each mapping, made and used by the
 * thread that maps. Either way that thread waits, and without progress for `patience_ns` gives up: NVLX_ETIMEDOUT. */
#ifndef NVLXI_RENDEZVOUS_FILES_FD_FETCH_H
#define NVLXI_RENDEZVOUS_FILES_FD_FETCH_H

#include "remote/peer.h"

struct nvlxi_fetcher {
    struct nvlxi_file_server server;
    int64_t patience_ns;
};

void nvlxi_fetcher_init(struct nvlxi_fetcher *fetcher);

#endif
