/* The serving side of the rendezvous: one address, and its connections.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Only the service thread uses it, except for opening, for closing when the thread has ended, and for
 * nvlxi_server_changed. Never waits for a client. The states of a connection:
 *
 * - STRANGER: admitted. Its HELLO must be complete 5 s after it came.
 * - SUBSCRIBER: is sent the descriptor, and the newest one after each change. It asks for files, one ASK after the
 *   other: the next is not read before all files of the one before are sent, or denied (files/fd_give.h). From ASK to
 * DONE it is `mapping`: it gets no text, at most for 1 s without progress.
 * - FETCHER: sends one FETCH at a time. The next is not read before all its files are sent.
 * - CUT OFF: a follower (lifetime/revocation.h) that has its first descriptor, and sent a message that is not proper,
 * or stalled. Its half of the connection is waited for; what comes over it is dropped.
 * - (gone): closed by its end; or, of all others, by a message that is not proper, or since it stalled: 30 s without
 *   progress where something is to be sent or, from a fetcher, to be received.
 *
 * Invariants: a message is begun only when the one before is sent whole, so that a slow reader skips to the newest
 * text; a subscriber hears that something was withdrawn before it is denied for that; `text` is held once for the
 * server and once for each connection that is being sent it. */
#ifndef NVLXI_RENDEZVOUS_SERVER_H
#define NVLXI_RENDEZVOUS_SERVER_H

#include "lifetime/revocation.h"
#include "rendezvous/listen.h"
#include "rendezvous/messages/events.h"
#include "rendezvous/publisher.h"
#include "rendezvous/report.h"
#include "rendezvous/watch.h"

struct nvlxi_server;

struct nvlxi_server_times {              /* how long who connects may take */
    _Atomic uint64_t hello_ns, stall_ns; /* to say HELLO; without progress. Tests make them shorter */
};

/* Options are complete: defaults are filled in. */
int nvlxi_server_open(struct nvlxi_publisher *publisher, struct nvlxi_revocations *revocations,
                      struct nvlxi_events *events, struct nvlxi_watcher *watcher,
                      const struct nvlxi_server_times *times, const struct nvlxi_reporter *reporter,
                      const char *address, const struct nvlx_serve_options *options, struct nvlxi_server **server);
void nvlxi_server_close(struct nvlxi_server *server);

/* Says that the text is outdated; true if the service thread must be woken up to see it. From any thread. */
bool nvlxi_server_changed(struct nvlxi_server *server);

/* Says what is to be waited for, and lowers *deadline to when the next turn is due at the latest. */
void nvlxi_server_prepare(struct nvlxi_server *server, uint64_t *deadline);
/* Does what there is to do. */
void nvlxi_server_turn(struct nvlxi_server *server);

#endif
