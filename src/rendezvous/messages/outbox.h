/* The sending side of messages: what is on its way to one peer that is followed.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Messages are in a list, in the order of the calls. The states of a letter, which is one of them:
 *
 *     WAITING  its transfer is in flight; what is behind it waits too
 *     READY    to be sent as soon as the one before is, the receiver has room for it, and the socket too
 *     SENT     whole
 *     (gone)   TAKEN: the receiver has it in its queue of events; its request is DONE
 *     (gone)   cancelled: its transfer failed, or was not started
 *     (gone)   the connection has ended before it was TAKEN: its request fails with NVLX_ESTALE; a letter of nvlx_send
 *              is counted (`lost`). One that is WAITING stays, without a place in the list, until its transfer delivers
 *              it, and is told then
 *
 * So each letter of a transfer has one outcome, which its request tells, and what was TAKEN is always the first so many
 * of all that were sent: no message overtakes another, none is there twice.
 *
 * Whoever makes it possible sends: who calls nvlx_send, who sees a transfer complete, the service thread when the
 * socket is writable again (`blocked`) or when it reads TAKEN. `mutex` guards all of it. Order: polling, this mutex,
 * the channel's. Requests are concluded without it. */
#ifndef NVLXI_RENDEZVOUS_MESSAGES_OUTBOX_H
#define NVLXI_RENDEZVOUS_MESSAGES_OUTBOX_H

#include <stdatomic.h>

#include "rendezvous/files/channel.h"
#include "transfer/transfer.h"

#define NVLXI_OUTBOX_MAX (4u << 20) /* bytes of letters with their costs; nvlxfer.h tells it */

struct nvlxi_outbox;

struct nvlxi_letter {
    struct nvlxi_outbox *outbox;
    struct nvlx_request *request; /* that is COPIED; NULL: of nvlx_send, or WAITING */
    bool waiting, listed;
    uint32_t length;
    struct nvlxi_letter *prev, *next;
    uint8_t bytes[];
};

struct nvlxi_outbox {
    struct nvlxi_channel *channel;
    const char *engine; /* the id of ours */
    pthread_mutex_t mutex;
    pthread_cond_t news;          /* something was taken, or cancelled; or the end has come */
    struct nvlxi_letter *letters; /* list; those that are SENT come first */
    struct nvlxi_letter *unsent;  /* the first that is not SENT */
    uint32_t offset;              /* what of it is sent */
    bool introduced;              /* the id is sent */
    size_t bytes;                 /* in the list, with costs */
    uint64_t sent;                /* messages, */
    uint64_t sent_bytes;          /* and what they take of the receiver's window */
    struct nvlxi_protocol_taken taken;
    atomic_bool blocked; /* goes on when the socket is writable */
    void (*wake)(void *context);
    void *context; /* of the service thread, which then waits for that */
    bool ended;
    uint64_t lost;
    char reason[256]; /* why it has ended */
};

void nvlxi_outbox_init(struct nvlxi_outbox *outbox, struct nvlxi_channel *channel, const char *engine);
/* It has ended, or nothing was ever sent. */
void nvlxi_outbox_free(struct nvlxi_outbox *outbox);

/* Queues a message. NVLX_EBUSY: there is no room; NVLX_ESTALE; NVLX_ENOTSUP: the peer's library is too old. */
int nvlxi_outbox_send(struct nvlxi_outbox *outbox, const void *bytes, size_t length);
/* The same for a transfer that is about to be submitted: WAITING. */
int nvlxi_outbox_reserve(struct nvlxi_outbox *outbox, const void *bytes, size_t length, struct nvlxi_letter **letter);
/* As struct nvlxi_teller has it. */
int nvlxi_letter_deliver(struct nvlxi_letter *letter, struct nvlx_request *request);
void nvlxi_letter_cancel(struct nvlxi_letter *letter);

/* By the service thread: the socket is writable; a TAKEN has come (NVLX_EFORMAT). */
void nvlxi_outbox_go_on(struct nvlxi_outbox *outbox);
int nvlxi_outbox_taken(struct nvlxi_outbox *outbox, const struct nvlxi_inbox *in);

/* Waits until all is taken. False: it is not in time, or the end comes first. After the end, which was told: true. */
bool nvlxi_outbox_drain(struct nvlxi_outbox *outbox, uint64_t deadline);
/* Nothing is sent any more, for the reason of the last error. Again: nothing. Returns how many of nvlx_send were lost.
 */
uint64_t nvlxi_outbox_end(struct nvlxi_outbox *outbox);

#endif
