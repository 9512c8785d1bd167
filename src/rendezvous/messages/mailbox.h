/* The receiving side of messages: what one connection to the server brings.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *     UNKNOWN   nobody has sent anything: its id comes first
 *     BETWEEN   the last message is whole, and in the queue of events
 *     WITHIN    some chunks of a message have come
 *
 * A message is TAKEN when it is in the queue of events: from then on only the end of this engine can lose it. The end
 * of the connection does not: who has sent it may be gone when it is read. */
#ifndef NVLXI_RENDEZVOUS_MESSAGES_MAILBOX_H
#define NVLXI_RENDEZVOUS_MESSAGES_MAILBOX_H

#include "rendezvous/messages/events.h"

struct nvlxi_mailbox { /* starts zeroed */
    struct nvlxi_sender *sender;
    struct nvlxi_arrival *coming; /* WITHIN */
    uint32_t have;                /* bytes of it */
    uint64_t last;                /* number of the last one that was begun */
};

/* A chunk has come from process `pid`. NVLX_EFORMAT, NVLX_ENOMEM. */
int nvlxi_mailbox_receive(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox, pid_t pid, const uint8_t *body,
                          size_t length);
/* Whether there is something to tell the sender, which counts as told then. */
bool nvlxi_mailbox_tell(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox, struct nvlxi_protocol_taken *taken);
/* The connection ends. */
void nvlxi_mailbox_close(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox);

/* A message that is in no queue; NULL: nothing. Under the mutex of the events. */
void nvlxi_arrival_free(struct nvlxi_arrival *arrival);

#endif
