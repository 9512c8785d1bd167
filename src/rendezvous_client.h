/* The side of the rendezvous that follows peers: connections made by nvlx_connect, read by the service thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The states of a subscription:
 *
 *     OPEN     the service thread reads it, and applies what comes to the peer; `busy` while it is at it, without the
 *              mutex
 *     ENDED    the connection is closed, the peer is marked as gone, and knows why
 *     (gone)   taken off the list by nvlx_peer_close, when it is not busy
 *
 * `mutex` guards the list and all fields but link and peer, which belong to the thread that is busy with it. */
#ifndef NVLXI_RENDEZVOUS_CLIENT_H
#define NVLXI_RENDEZVOUS_CLIENT_H

#include <poll.h>

#include "relocation.h"
#include "rendezvous_link.h"
#include "transfer.h"

struct nvlxi_subscription {
    struct nvlxi_link link;
    struct nvlx_peer *peer;
    size_t slot; /* in the array polled, or 0: it came later */
    bool busy, ended;
    struct nvlxi_subscription *prev, *next;
};

struct nvlxi_clients {
    struct nvlxi_relocation *relocation;
    struct nvlxi_transfers *transfers;
    pthread_mutex_t mutex;
    pthread_cond_t idle; /* a subscription is not busy any more */
    struct nvlxi_subscription *list;
};

void nvlxi_clients_init(struct nvlxi_clients *clients, struct nvlxi_relocation *relocation,
                        struct nvlxi_transfers *transfers);
/* The service thread has ended. The peers stay. */
void nvlxi_clients_free(struct nvlxi_clients *clients);

/* Blocks until the first descriptor is there. Nobody reads the connection before nvlxi_clients_follow. */
int nvlxi_clients_connect(struct nvlxi_clients *clients, const char *address, int64_t timeout_ns,
                          struct nvlx_peer **peer);
/* Leaves a peer to the service thread, which is to be woken up. */
void nvlxi_clients_follow(struct nvlxi_clients *clients, struct nvlx_peer *peer);
/* Takes a peer that is followed back, waits until the thread is not busy with it, and closes the connection. Nothing
 * for other peers. */
void nvlxi_clients_leave(struct nvlxi_clients *clients, struct nvlx_peer *peer);

/* As those of a server; at most `room`. */
size_t nvlxi_clients_poll(struct nvlxi_clients *clients, struct pollfd *polls, size_t first, size_t room);
void nvlxi_clients_turn(struct nvlxi_clients *clients, const struct pollfd *polls);

#endif
