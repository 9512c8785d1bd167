/* Files asked for over the connection by which a peer is followed: any number of mapping threads, and the service
 * thread that reads what comes.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A mapping thread opens a request with a number of its own, asks for some files at a time, and takes them from its
 * stock, which the service thread fills. The states of a request:
 *
 *     OPEN      in the list; what is given under its number goes to its stock
 *     DENIED    in the list; `code` and `reason` say why the files that are left will not come
 *     (closed)  by its thread, whatever has come by then: off the list, its stock is closed, and what comes under its
 *               number later is closed as it comes
 *
 * The end of the connection wakes all up: no request is answered any more. `mutex` guards the list, the requests in it,
 * the question for counts, and the order of what is sent. Nobody waits with it: what cannot go at once is refused,
 * except for the end of what has gone in part (`rest`), which goes before anything else does. */
#ifndef NVLXI_RENDEZVOUS_FILES_CHANNEL_H
#define NVLXI_RENDEZVOUS_FILES_CHANNEL_H

#include <pthread.h>

#include "remote/peer.h"
#include "rendezvous/connection.h"

/* Where files are taken from: each kind knows how to close itself. */
struct nvlxi_source {
    struct nvlxi_files files;
    void (*close)(struct nvlxi_source *source);
};

struct nvlxi_question { /* for the server's counts: see report.h */
    bool open, answered;
    uint32_t number;
    int code; /* of the answer, with its reason or its text */
    char reason[256];
    char *text;
    size_t length;
};

struct nvlxi_channel {
    struct nvlxi_connection *connection;
    struct nvlx_peer *peer;
    pthread_mutex_t mutex;
    pthread_cond_t news;
    struct nvlxi_request_for_files *requests; /* list */
    uint32_t last;                            /* number given out last */
    bool ended;
    uint8_t rest[NVLXI_PROTOCOL_MESSAGE_MAX];
    size_t rest_length;
    struct nvlxi_question question;
};

void nvlxi_channel_init(struct nvlxi_channel *channel, struct nvlxi_connection *connection, struct nvlx_peer *peer);
/* Nobody uses it any more. */
void nvlxi_channel_free(struct nvlxi_channel *channel);

/* By a mapping thread. `generation`: of the descriptor that the segments are from. Where they were withdrawn since,
 * take gives NVLX_EAGAIN (not logged): a newer descriptor is known already. */
int nvlxi_channel_open(struct nvlxi_channel *channel, const struct nvlxi_segment_record *segments, size_t count,
                       uint64_t generation, int64_t patience_ns, struct nvlxi_source **source);

/* By the service thread. GIVEN or DENIED has come, with these files: those that stay in `files` are to be closed.
 * NVLX_EFORMAT: it is not proper, and the connection is to end. */
int nvlxi_channel_given(struct nvlxi_channel *channel, const struct nvlxi_inbox *in,
                        struct nvlxi_connection_files *files);
int nvlxi_channel_denied(struct nvlxi_channel *channel, const struct nvlxi_inbox *in);
/* From any thread: tells the server what is held. False: it cannot be sent now, to be tried again. */
bool nvlxi_channel_tell_holds(struct nvlxi_channel *channel, const struct nvlxi_protocol_holds *holds);

/* Sends a whole message of the protocol; none, where `length` is 0. False: it cannot be sent now, or the end of one
 * before it cannot: to be tried again once the socket is writable. */
bool nvlxi_channel_send(struct nvlxi_channel *channel, const uint8_t *bytes, size_t length);

/* Waits for news, or until `at` if that comes first; false when the deadline is over. Under the mutex. */
bool nvlxi_channel_await_news(struct nvlxi_channel *channel, uint64_t at, uint64_t deadline);

/* The peer is gone, and knows why; the socket may be closed after that. */
void nvlxi_channel_end(struct nvlxi_channel *channel);

#endif
