/* Events: what has happened and users have not read yet, in the order in which it happened; and the descriptor that
 * tells whether there is something.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * An event is a part of what it happened to: of a peer (one of each kind: changes of a peer are merged), of a request,
 * or a message that has come. Its states:
 *
 *     (none)    nothing has happened, or it was read
 *     QUEUED    in the queue, once
 *     (dropped) the peer is closed, or the request freed, before it was read: nobody gets a pointer to what is gone
 *
 * Memory is bounded: messages are what a sender may have on its way (NVLXI_MESSAGE_WINDOW), for each connection. A
 * sender is counted by its connection, and by its messages that were not read.
 *
 * Invariant: `fd` is readable exactly while the queue is not empty; both change under `mutex`, which guards all of it.
 * What was read last (`given`) stays until the next is read: its bytes are the user's until then. */
#ifndef NVLXI_RENDEZVOUS_MESSAGES_EVENTS_H
#define NVLXI_RENDEZVOUS_MESSAGES_EVENTS_H

#include <pthread.h>
#include <stddef.h>
#include <sys/types.h>

#include "nvlxfer.h"
#include "remote/event.h"
#include "rendezvous/protocol.h"

struct nvlxi_sender { /* who sends over one connection */
    unsigned users;
    pid_t pid;
    char engine[NVLXI_PROTOCOL_ENGINE + 1];
    uint64_t begun;                   /* bytes of messages that have come, at least in part, with their costs */
    struct nvlxi_protocol_taken told; /* what it knows */
    struct nvlxi_protocol_taken taken;
};

/* Whether users have read so much that its sender should hear of it. */
static inline bool nvlxi_sender_waits(const struct nvlxi_sender *sender) {
    return sender->taken.read - sender->told.read >= NVLXI_MESSAGE_WINDOW / 4;
}

struct nvlxi_arrival { /* a message that has come */
    struct nvlxi_event_node node;
    struct nvlxi_sender *sender;
    uint32_t length;
    uint8_t bytes[];
};

struct nvlxi_events {
    pthread_mutex_t mutex;
    struct nvlxi_event_node *queue; /* list */
    int fd;                         /* an eventfd; -1 until somebody asks for it */
    struct nvlxi_arrival *given;
    void (*room)(
        void *context); /* users have read so much that its sender should hear of it; called without the mutex */
    void *context;
};

void nvlxi_events_init(struct nvlxi_events *events);
/* Nothing happens any more: forgets all that was not read, before what it is of is freed. */
void nvlxi_events_clear(struct nvlxi_events *events);
void nvlxi_events_free(struct nvlxi_events *events);
/* Before the first message comes. */
void nvlxi_events_listen(struct nvlxi_events *events, void (*room)(void *context), void *context);

int nvlxi_events_fd(struct nvlxi_events *events, int *fd);
/* Reads the first. NVLX_EAGAIN (not logged): there is none. Of a message, event->peer is not set. */
int nvlxi_events_next(struct nvlxi_events *events, struct nvlx_event *event);

/* It has happened, with this number; once more, if it is queued already: then the number is replaced. */
void nvlxi_events_post(struct nvlxi_events *events, struct nvlxi_event_node *node, uint32_t kind, uint64_t number);
/* It is not to be told any more. */
void nvlxi_events_drop(struct nvlxi_events *events, struct nvlxi_event_node *node);

#endif
