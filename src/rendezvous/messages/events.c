/* The queue of events: see events.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/messages/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/fork_files.h"
#include "base/log.h"
#include "remote/peer.h"
#include "rendezvous/messages/mailbox.h"
#include "transfer/transfer.h"

void nvlxi_events_init(struct nvlxi_events *events) {
    *events = (struct nvlxi_events){.fd = -1};
    pthread_mutex_init(&events->mutex, NULL);
}

void nvlxi_events_listen(struct nvlxi_events *events, void (*room)(void *context), void *context) {
    events->room = room;
    events->context = context;
}

static struct nvlxi_arrival *arrival_of(struct nvlxi_event_node *node) {
    return nvlxi_container_of(node, struct nvlxi_arrival, node);
}

/* ---- The queue, under the mutex -------------------------------------------------------------------------- */

static void append(struct nvlxi_events *events, struct nvlxi_event_node *node) {
    const bool first = !events->queue;
    DL_APPEND(events->queue, node);
    node->queued = true;
    if (first && events->fd >= 0 && eventfd_write(events->fd, 1))
        nvlxi_log(NVLX_LOG_ERROR, "an event cannot be told: %s", strerror(errno));
}

static void take_off(struct nvlxi_events *events, struct nvlxi_event_node *node) {
    eventfd_t ignored;
    DL_DELETE(events->queue, node); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    node->queued = false;
    if (!events->queue && events->fd >= 0)
        eventfd_read(events->fd, &ignored);
}

void nvlxi_events_clear(struct nvlxi_events *events) {
    pthread_mutex_lock(&events->mutex);
    while (events->queue) {
        struct nvlxi_event_node *node = events->queue;
        take_off(events, node);
        if (node->kind == NVLX_EVENT_MESSAGE)
            nvlxi_arrival_free(arrival_of(node));
    }
    nvlxi_arrival_free(events->given);
    events->given = NULL;
    pthread_mutex_unlock(&events->mutex);
}

void nvlxi_events_free(struct nvlxi_events *events) {
    if (events->fd >= 0)
        nvlxi_fork_files_close(events->fd);
    pthread_mutex_destroy(&events->mutex);
}

/* ---- What happens ---------------------------------------------------------------------------------------- */

void nvlxi_events_post(struct nvlxi_events *events, struct nvlxi_event_node *node, uint32_t kind, uint64_t number) {
    pthread_mutex_lock(&events->mutex);
    node->kind = kind;
    node->number = number;
    if (!node->queued)
        append(events, node);
    pthread_mutex_unlock(&events->mutex);
}

void nvlxi_events_drop(struct nvlxi_events *events, struct nvlxi_event_node *node) {
    pthread_mutex_lock(&events->mutex);
    if (node->queued)
        take_off(events, node);
    pthread_mutex_unlock(&events->mutex);
}

/* ---- What users read ------------------------------------------------------------------------------------- */

static int make_fd(struct nvlxi_events *events) {
    events->fd = nvlxi_fork_files_eventfd();
    if (events->fd < 0)
        return nvlxi_fail(NVLX_ENOMEM, "no file descriptor for events: %s", strerror(errno));
    if (events->queue && eventfd_write(events->fd, 1))
        nvlxi_log(NVLX_LOG_ERROR, "an event cannot be told: %s", strerror(errno));
    return 0;
}

int nvlxi_events_fd(struct nvlxi_events *events, int *fd) {
    int code = 0;
    pthread_mutex_lock(&events->mutex);
    if (events->fd < 0)
        code = make_fd(events);
    if (!code)
        *fd = events->fd;
    pthread_mutex_unlock(&events->mutex);
    return code;
}

/* Under the mutex: what the event is of stays until it is filled in. */
static void fill_peer(const struct nvlxi_event_node *node, struct nvlx_peer *peer, struct nvlx_event *event) {
    event->peer = peer;
    if (node->kind == NVLX_EVENT_PEER_CHANGED) {
        event->generation = node->number;
        return;
    }
    event->status = NVLX_ESTALE;
    event->unconfirmed = node->number;
    snprintf(event->reason, sizeof event->reason, "%s", peer->reason);
}

static void fill_request(struct nvlx_request *request, struct nvlx_event *event) {
    event->request = request;
    event->user = request->asked.user;
    event->status = atomic_load(&request->status);
    if (event->status)
        snprintf(event->reason, sizeof event->reason, "%s", request->error);
}

static void fill_message(const struct nvlxi_arrival *arrival, struct nvlx_event *event) {
    event->message = arrival->bytes;
    event->message_length = arrival->length;
    event->pid = arrival->sender->pid;
    snprintf(event->engine, sizeof event->engine, "%s", arrival->sender->engine);
}

/* True: the sender should hear of it. */
static bool note_read(const struct nvlxi_arrival *arrival) {
    struct nvlxi_sender *sender = arrival->sender;
    sender->taken.read += arrival->length + NVLXI_MESSAGE_COST;
    return nvlxi_sender_waits(sender);
}

static bool fill(struct nvlxi_events *events, struct nvlxi_event_node *node, struct nvlx_event *event) {
    event->kind = node->kind;
    switch (node->kind) {
    case NVLX_EVENT_MESSAGE:
        events->given = arrival_of(node);
        fill_message(events->given, event);
        return note_read(events->given);
    case NVLX_EVENT_PEER_LOST:
        fill_peer(node, nvlxi_container_of(node, struct nvlx_peer, lost), event);
        return false;
    case NVLX_EVENT_WAIT_FAILED:
        event->peer = nvlxi_container_of(node, struct nvlx_peer, wait_failed);
        event->wait = node->number;
        return false;
    case NVLX_EVENT_PEER_CHANGED:
        fill_peer(node, nvlxi_container_of(node, struct nvlx_peer, changed), event);
        return false;
    default:
        fill_request(nvlxi_container_of(node, struct nvlx_request, done), event);
        return false;
    }
}

int nvlxi_events_next(struct nvlxi_events *events, struct nvlx_event *event) {
    bool tell = false;
    pthread_mutex_lock(&events->mutex);
    struct nvlxi_event_node *node = events->queue;
    nvlxi_arrival_free(events->given);
    events->given = NULL;
    if (node) {
        take_off(events, node);
        tell = fill(events, node, event);
    }
    pthread_mutex_unlock(&events->mutex);
    if (tell)
        events->room(events->context);
    return node ? 0 : NVLX_EAGAIN;
}
