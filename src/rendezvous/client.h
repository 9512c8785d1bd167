/* The side of the rendezvous that follows peers: connections made by nvlx_connect, read by the service thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The states of a subscription:
 *
 *     OPEN     the service thread reads it, and applies what comes to the peer; `busy` while it is at it, without the
 *              mutex
 *     ENDING   the other end has closed, or said what cannot be understood or kept. The peer is marked as gone, and
 * knows why; an event tells it. Nothing is read any more. The connection is kept, so that its owner goes on waiting,
 * until nothing of the peer is in flight or mapped (`let_go`, set by the closer) ENDED    the connection is closed
 *     (gone)   taken off the list by nvlx_peer_close, when it is not busy; freed by the service thread, whose wait may
 *              still know it
 *
 * `mutex` guards the list and all fields except connection, files and peer, which belong to the thread that is busy
 * with it, and channel and outbox, which have their own rules. Order: this mutex, then that of the channel. That of the
 * outbox is never taken with this one. */
#ifndef NVLXI_RENDEZVOUS_CLIENT_H
#define NVLXI_RENDEZVOUS_CLIENT_H

#include "lifetime/closer.h"
#include "remote/peer.h"
#include "rendezvous/messages/events.h"
#include "rendezvous/messages/outbox.h"
#include "rendezvous/watch.h"
#include "transfer/transfer.h"

struct nvlxi_subscription {
    struct nvlxi_connection connection;
    struct nvlxi_connection_files files; /* that have come with the message on its way in */
    struct nvlxi_channel channel;
    struct nvlxi_outbox outbox;
    struct nvlx_peer *peer;
    struct nvlxi_watch watch;
    bool busy, ended; /* ended: ENDING or ENDED */
    atomic_bool let_go;
    struct nvlxi_subscription *prev, *next;
};

struct nvlxi_clients {
    struct nvlxi_remote *remote;
    struct nvlxi_transfers *transfers;
    struct nvlxi_closer *closer;
    struct nvlxi_events *events;
    void (*wake)(void *context); /* the service thread */
    void *context;
    pthread_mutex_t mutex;
    pthread_cond_t idle;                    /* a subscription is not busy any more */
    struct nvlxi_subscription *list, *left; /* left: to be freed */
    bool joined;                            /* there is a new one */
    struct nvlxi_watcher *watcher;          /* the service thread's */
};

void nvlxi_clients_init(struct nvlxi_clients *clients, struct nvlxi_remote *remote, struct nvlxi_closer *closer);
/* The service thread has ended. The peers stay. */
void nvlxi_clients_free(struct nvlxi_clients *clients);

/* Blocks until the first descriptor is there, and leaves the peer to the service thread, which runs. */
int nvlxi_clients_connect(struct nvlxi_clients *clients, const char *address, int64_t timeout_ns,
                          struct nvlx_peer **peer);
/* Takes a peer that is followed back, waits until the thread is not busy with it, and closes the connection. Before, it
 * waits a moment for messages that were not taken: NVLX_ETIMEDOUT, and they are given up. */
int nvlxi_clients_leave(struct nvlxi_clients *clients, struct nvlx_peer *peer);
/* The same for the messages to all peers, which stay. Nothing is in flight, and nothing is sent any more. */
int nvlxi_clients_end_messages(struct nvlxi_clients *clients);
/* The peer that is this engine, or NULL. */
struct nvlx_peer *nvlxi_clients_find(struct nvlxi_clients *clients, const char *engine);

/* Before the service thread waits, and after. */
void nvlxi_clients_prepare(struct nvlxi_clients *clients);
void nvlxi_clients_turn(struct nvlxi_clients *clients);

#endif
