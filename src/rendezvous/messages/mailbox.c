/* Puts messages together from their chunks: see mailbox.h. SPDX-License-Identifier: Apache-2.0 */
#include "rendezvous/messages/mailbox.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/error.h"

/* Under the mutex of the events. */
static void drop_sender(struct nvlxi_sender *sender) {
    if (sender && --sender->users == 0)
        free(sender);
}

void nvlxi_arrival_free(struct nvlxi_arrival *arrival) {
    if (!arrival)
        return;
    drop_sender(arrival->sender);
    free(arrival);
}

/* Its id, whole. */
static int meet(struct nvlxi_mailbox *mailbox, pid_t pid, const uint8_t *chunk) {
    for (size_t i = 0; i < NVLXI_PROTOCOL_ENGINE; i++)
        if (!chunk[i] || !strchr("0123456789abcdef", chunk[i]))
            return nvlxi_fail(NVLX_EFORMAT, "the engine id of a sender is not 32 digits");
    struct nvlxi_sender *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for the sender of messages");
    made->users = 1;
    made->pid = pid;
    memcpy(made->engine, chunk, NVLXI_PROTOCOL_ENGINE);
    mailbox->sender = made;
    return 0;
}

/* The first chunk of a message has come: makes room for it, if the sender may have so much on its way. */
static int begin(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox,
                 const struct nvlxi_protocol_message *part) {
    struct nvlxi_sender *sender = mailbox->sender;
    pthread_mutex_lock(&events->mutex);
    sender->begun += part->length + NVLXI_MESSAGE_COST;
    const uint64_t unread = sender->begun - sender->taken.read;
    pthread_mutex_unlock(&events->mutex);
    if (unread > NVLXI_MESSAGE_WINDOW)
        return nvlxi_fail(NVLX_EFORMAT,
                          "process %d sends %" PRIu64 " bytes of messages more than were read: at most %u",
                          (int)sender->pid, unread, NVLXI_MESSAGE_WINDOW);
    struct nvlxi_arrival *made = malloc(sizeof *made + part->length);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a message of %" PRIu32 " bytes", part->length);
    *made = (struct nvlxi_arrival){.sender = sender, .length = part->length};
    mailbox->coming = made;
    mailbox->have = 0;
    mailbox->last = part->number;
    return 0;
}

static int check_turn(const struct nvlxi_mailbox *mailbox, const struct nvlxi_protocol_message *part) {
    bool right;
    if (!part->number)
        right = !mailbox->sender;
    else if (mailbox->coming)
        right =
            part->number == mailbox->last && part->offset == mailbox->have && part->length == mailbox->coming->length;
    else
        right = mailbox->sender && part->number == mailbox->last + 1 && !part->offset;
    return right ? 0
                 : nvlxi_fail(NVLX_EFORMAT, "byte %" PRIu32 " of message %" PRIu64 " out of turn", part->offset,
                              part->number);
}

/* The message is whole. */
static void deliver(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox) {
    struct nvlxi_arrival *arrival = mailbox->coming;
    mailbox->coming = NULL;
    pthread_mutex_lock(&events->mutex);
    arrival->sender->users++;
    arrival->sender->taken.messages++;
    pthread_mutex_unlock(&events->mutex);
    nvlxi_events_post(events, &arrival->node, NVLX_EVENT_MESSAGE, 0);
}

int nvlxi_mailbox_receive(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox, pid_t pid, const uint8_t *body,
                          size_t length) {
    struct nvlxi_protocol_message part;
    const uint8_t *chunk;
    size_t count;
    int code = nvlxi_protocol_get_message(body, length, &part, &chunk, &count);
    if (code || (code = check_turn(mailbox, &part)))
        return code;
    if (!part.number)
        return meet(mailbox, pid, chunk);
    if (!mailbox->coming && (code = begin(events, mailbox, &part)))
        return code;
    memcpy(mailbox->coming->bytes + mailbox->have, chunk, count);
    mailbox->have += (uint32_t)count;
    if (mailbox->have == part.length)
        deliver(events, mailbox);
    return 0;
}

bool nvlxi_mailbox_tell(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox,
                        struct nvlxi_protocol_taken *taken) {
    struct nvlxi_sender *sender = mailbox->sender;
    if (!sender)
        return false;
    pthread_mutex_lock(&events->mutex);
    const bool tell = sender->taken.messages != sender->told.messages || nvlxi_sender_waits(sender);
    if (tell)
        *taken = sender->told = sender->taken;
    pthread_mutex_unlock(&events->mutex);
    return tell;
}

void nvlxi_mailbox_close(struct nvlxi_events *events, struct nvlxi_mailbox *mailbox) {
    free(mailbox->coming); /* it holds no sender yet */
    pthread_mutex_lock(&events->mutex);
    drop_sender(mailbox->sender);
    pthread_mutex_unlock(&events->mutex);
    *mailbox = (struct nvlxi_mailbox){0};
}
