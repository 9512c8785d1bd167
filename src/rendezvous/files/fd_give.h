/* File descriptors of this process's segments, given to one connection: few under way for each, and for all.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is sent and not received yet counts against the user's RLIMIT_NOFILE, in all sockets of all processes together.
 * So a connection gets a few, and more when the kernel says that they have been received: a client that takes none
 * holds no more than these, and all clients of a server together no more than half of the limit. Where others have used
 * it up (ETOOMANYREFS), or this process has no descriptor free, it is tried again a little later.
 *
 * Invariant: a file descriptor to be given out is open only within one call. */
#ifndef NVLXI_RENDEZVOUS_FILES_FD_GIVE_H
#define NVLXI_RENDEZVOUS_FILES_FD_GIVE_H

#include "local/registration.h"
#include "rendezvous/protocol.h"

struct nvlxi_giving {                                           /* starts zeroed */
    struct nvlxi_protocol_file files[NVLXI_PROTOCOL_FILES_MAX]; /* asked for, [given, count) are to be sent */
    size_t given, count;
    bool named; /* asked for by ASK `request`, else by FETCH */
    uint32_t request;
    size_t under_way; /* sent since all was received last, at most */
    bool full;        /* as many as may be */
    uint64_t due;     /* when to try again */
    uint64_t since;   /* when it was asked for, or something was given last */
    int denied;       /* why the rest is not given, or 0 */
};

/* A request has come: FETCH, or `named` ASK. */
int nvlxi_giving_begin(struct nvlxi_giving *giving, bool named, const uint8_t *body, size_t length);
bool nvlxi_giving_is_open(const struct nvlxi_giving *giving);

/* How many files may be under way to each of so many connections. */
size_t nvlxi_giving_share(size_t connections);

/* Gives some, if it is time. NVLX_ESTALE (not logged): the connection has gone. With `denied` set, the request is over,
 * and the last error says why. */
int nvlxi_giving_go_on(struct nvlxi_giving *giving, int socket, struct nvlxi_registration *registration, size_t share);

/* What to wait for, and when to go on at the latest. */
uint32_t nvlxi_giving_events(const struct nvlxi_giving *giving, uint64_t *deadline);

#endif
