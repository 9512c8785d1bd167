/* The rendezvous of processes: serving the own descriptor and file descriptors, following those of others.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * One service thread an engine, which the first nvlx_serve or nvlx_connect starts and nvlx_engine_destroy joins. It
 * waits (watch.h) for an eventfd by which it is woken up, the server's sockets (server.h), and
 * the subscriptions to peers (client.h). `mutex` guards all fields except clients, publisher and fetcher,
 * which have their own rules, and `watcher`, which is there once `started`. */
#ifndef NVLXI_RENDEZVOUS_RENDEZVOUS_H
#define NVLXI_RENDEZVOUS_RENDEZVOUS_H

#include "rendezvous/client.h"
#include "rendezvous/files/fd_fetch.h"
#include "rendezvous/server.h"

#define NVLXI_CONNECTIONS_DEFAULT 64u /* where serve_options.max_connections is 0 */

struct nvlxi_rendezvous {
    struct nvlxi_publisher publisher;
    struct nvlxi_revocations *revocations;
    struct nvlxi_events *events;
    struct nvlxi_clients clients;
    struct nvlxi_fetcher fetcher;
    pthread_mutex_t mutex;
    bool started, stop, serving; /* serving: somebody has, or is about to set, `server` */
    int wake;                    /* eventfd */
    struct nvlxi_watch wake_watch;
    struct nvlxi_watcher watcher;
    pthread_t thread;
    struct nvlxi_server_times times;
    struct nvlxi_reporter reporter; /* set before the engine serves */
    struct nvlxi_server *server;
};

/* Makes no thread and no socket. Lets `remote` fetch files. */
void nvlxi_rendezvous_init(struct nvlxi_rendezvous *rendezvous, struct nvlxi_registration *registration,
                           struct nvlxi_remote *remote, struct nvlxi_revocations *revocations,
                           struct nvlxi_closer *closer, struct nvlxi_events *events);
/* Ends the thread, which may be waiting for running kernels, and all connections; the socket file is removed. */
void nvlxi_rendezvous_free(struct nvlxi_rendezvous *rendezvous);

/* Options as the user filled them. */
int nvlxi_rendezvous_serve(struct nvlxi_rendezvous *rendezvous, const char *address,
                           const struct nvlx_serve_options *options);
int nvlxi_rendezvous_connect(struct nvlxi_rendezvous *rendezvous, const char *address, int64_t timeout_ns,
                             struct nvlx_peer **peer);
/* For any peer that is about to be closed: takes its connection away from the thread, and closes it. NVLX_ETIMEDOUT: it
 * has not taken all messages. */
int nvlxi_rendezvous_leave(struct nvlxi_rendezvous *rendezvous, struct nvlx_peer *peer);

/* The counts of a peer, as text to be freed. NVLX_ENOTSUP, NVLX_EACCES: it does not tell them. */
int nvlxi_rendezvous_report(const struct nvlx_peer *peer, int64_t timeout_ns, char **text, size_t *length);

/* Where messages to a peer go. NVLX_ESTALE: it is gone; NVLX_ENOTSUP: it was not made by connecting. */
int nvlxi_rendezvous_outbox(const struct nvlx_peer *peer, struct nvlxi_outbox **outbox);

#endif
