/* Connects to peers, and applies what they send as long as they are followed. SPDX-License-Identifier: Apache-2.0 */
#include "rendezvous/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/log.h"
#include "rendezvous/report.h"

#define TEXT_NS  INT64_C(10000000000) /* without a byte of the first descriptor, when its server has greeted */
#define DRAIN_NS INT64_C(1000000000)  /* for messages to be taken, when the peer is closed */

void nvlxi_clients_init(struct nvlxi_clients *clients, struct nvlxi_remote *remote, struct nvlxi_closer *closer) {
    clients->remote = remote;
    clients->transfers = closer->transfers;
    clients->closer = closer;
    pthread_mutex_init(&clients->mutex, NULL);
    pthread_cond_init(&clients->idle, NULL);
}

/* Ends the connection, if it has not ended. */
static void close_subscription(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription) {
    nvlxi_unwatch(clients->watcher, &subscription->watch);
    nvlxi_connection_close(&subscription->connection);
    nvlxi_connection_files_close(&subscription->files);
}

static void free_subscription(struct nvlxi_subscription *subscription) {
    nvlxi_outbox_free(&subscription->outbox);
    nvlxi_channel_free(&subscription->channel);
    free(subscription);
}

static void free_left(struct nvlxi_clients *clients) {
    struct nvlxi_subscription *subscription, *next;
    LL_FOREACH_SAFE(clients->left, subscription, next) {
        free_subscription(subscription);
    }
    clients->left = NULL;
}

void nvlxi_clients_free(struct nvlxi_clients *clients) {
    struct nvlxi_subscription *subscription, *next;
    DL_FOREACH_SAFE(clients->list, subscription, next) {
        DL_DELETE(clients->list, subscription); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
        subscription->peer->subscription = NULL;
        subscription->peer->channel = NULL;
        close_subscription(clients, subscription);
        free_subscription(subscription);
    }
    free_left(clients);
    pthread_cond_destroy(&clients->idle);
    pthread_mutex_destroy(&clients->mutex);
}

/* ---- Called by users' threads -------------------------------------------------------------------------- */

/* The first descriptor is on its way. `closed`: the server has ended instead. */
static int open_first(struct nvlxi_clients *clients, struct nvlxi_connection *connection, uint64_t deadline,
                      struct nvlx_peer **peer, bool *closed) {
    int code = nvlxi_connection_receive(connection, NVLXI_PROTOCOL_TEXT, NULL, deadline, TEXT_NS, closed);
    if (!code)
        code = nvlxi_peer_open(clients->remote, (const char *)connection->in.body, connection->in.header.length, peer);
    if (code)
        return code;
    nvlxi_inbox_clear(&connection->in);
    const char *engine = (*peer)->table->descriptor->identity.engine;
    if (strcmp(engine, connection->engine) == 0)
        return 0;
    code = nvlxi_fail(NVLX_EFORMAT, "engine %s serves at \"%s\", but sends the descriptor of engine %s",
                      connection->engine, connection->address, engine);
    nvlxi_peer_close(*peer);
    return code;
}

/* A server that ends before its descriptor is whole is as one that is not there yet. What it has begun to answer is
 * awaited as long as it goes on: callers with short timeouts would have to begin again for ever. */
static int connect_and_open(struct nvlxi_clients *clients, struct nvlxi_subscription *made, const char *address,
                            uint64_t deadline) {
    uint64_t pause = NVLXI_PAUSE_NS;
    for (;;) {
        bool closed = false;
        int code = nvlxi_connection_open(&made->connection, address, NVLXI_PROTOCOL_SUBSCRIBER, true, deadline);
        if (!code)
            code = open_first(clients, &made->connection, deadline, &made->peer, &closed);
        if (!closed)
            return code;
        nvlxi_connection_close(&made->connection);
        if (!nvlxi_connection_pause(&pause, deadline))
            return nvlxi_fail(NVLX_ETIMEDOUT, "the server at \"%s\" ended while it was being connected to", address);
    }
}

/* Leaves a connection to the service thread. */
static int follow(struct nvlxi_clients *clients, struct nvlxi_subscription *made) {
    made->peer->engine = clients->transfers->engine; /* before an event can tell of it */
    made->peer->subscription = made;
    made->peer->channel = made->connection.minor >= 1 ? &made->channel : NULL;
    pthread_mutex_lock(&clients->mutex);
    int code = nvlxi_watch(clients->watcher, &made->watch, made->connection.socket, EPOLLIN);
    if (!code) {
        DL_APPEND(clients->list, made);
        clients->joined = true;
    }
    pthread_mutex_unlock(&clients->mutex);
    if (!code)
        clients->wake(clients->context);
    return code;
}

int nvlxi_clients_connect(struct nvlxi_clients *clients, const char *address, int64_t timeout_ns,
                          struct nvlx_peer **peer) {
    struct nvlxi_subscription *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a connection");
    int code = connect_and_open(clients, made, address, nvlxi_deadline(timeout_ns));
    if (code)
        goto free_made;
    nvlxi_channel_init(&made->channel, &made->connection, made->peer);
    nvlxi_outbox_init(&made->outbox, &made->channel, clients->remote->context->identity.engine);
    made->outbox.wake = clients->wake;
    made->outbox.context = clients->context;
    if ((code = follow(clients, made)))
        goto close_peer;
    *peer = made->peer;
    return 0;
close_peer:
    nvlxi_outbox_free(&made->outbox);
    nvlxi_channel_free(&made->channel);
    nvlxi_peer_close(made->peer);
free_made:
    nvlxi_connection_close(&made->connection);
    free(made);
    return code;
}

/* What was not taken in time is given up. */
static int end_messages(struct nvlxi_outbox *outbox, uint64_t deadline) {
    if (nvlxi_outbox_drain(outbox, deadline))
        return 0;
    int code = nvlxi_fail(NVLX_ETIMEDOUT, "the peer at \"%s\" has not taken all messages to it: the last may be lost",
                          outbox->channel->connection->address);
    nvlxi_outbox_end(outbox);
    return code;
}

int nvlxi_clients_end_messages(struct nvlxi_clients *clients) {
    const uint64_t deadline = nvlxi_deadline(DRAIN_NS);
    struct nvlxi_subscription *subscription;
    int code = 0;
    DL_FOREACH(clients->list, subscription) { /* which only callers' threads change */
        int failed = end_messages(&subscription->outbox, deadline);
        code = code ? code : failed;
    }
    return code;
}

int nvlxi_clients_leave(struct nvlxi_clients *clients, struct nvlx_peer *peer) {
    struct nvlxi_subscription *subscription = peer->subscription;
    int code = end_messages(&subscription->outbox, nvlxi_deadline(DRAIN_NS));
    pthread_mutex_lock(&clients->mutex);
    while (subscription->busy)
        pthread_cond_wait(&clients->idle, &clients->mutex);
    DL_DELETE(clients->list, subscription);
    pthread_mutex_unlock(&clients->mutex);
    nvlxi_closer_leave(clients->closer, peer); /* nobody adds it any more; it may be answering over the connection */
    nvlxi_events_drop(clients->events, &peer->changed);
    nvlxi_events_drop(clients->events, &peer->lost);
    pthread_mutex_lock(&clients->mutex);
    close_subscription(clients, subscription);
    LL_PREPEND(clients->left, subscription);
    pthread_mutex_unlock(&clients->mutex);
    peer->subscription = NULL;
    peer->channel = NULL;
    return code;
}

struct nvlx_peer *nvlxi_clients_find(struct nvlxi_clients *clients, const char *engine) {
    struct nvlxi_subscription *subscription;
    struct nvlx_peer *found = NULL;
    pthread_mutex_lock(&clients->mutex);
    DL_FOREACH(clients->list, subscription) {
        if (!subscription->ended && strcmp(subscription->connection.engine, engine) == 0)
            break;
    }
    if (subscription)
        found = subscription->peer;
    pthread_mutex_unlock(&clients->mutex);
    return found;
}

/* ---- Called by the service thread ---------------------------------------------------------------------- */

void nvlxi_clients_prepare(struct nvlxi_clients *clients) {
    struct nvlxi_subscription *subscription;
    pthread_mutex_lock(&clients->mutex);
    const bool joined = clients->joined;
    int newest = -1; /* the last of the list */
    clients->joined = false;
    free_left(clients);
    DL_FOREACH(clients->list, subscription) {
        const uint32_t out = atomic_load(&subscription->outbox.blocked) ? EPOLLOUT : 0;
        if (subscription->ended)
            continue;
        newest = subscription->connection.socket;
        nvlxi_watch(clients->watcher, &subscription->watch, newest, EPOLLIN | out);
    }
    pthread_mutex_unlock(&clients->mutex);
    if (joined) /* next, it may bring files */
        nvlxi_watcher_make_room(clients->watcher, newest);
}

/* An older text than is known is no failure: the user may have been faster, by nvlx_peer_update. */
static int apply(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription,
                 int (*update)(struct nvlx_peer *peer, const char *text, size_t length)) {
    const struct nvlxi_inbox *in = &subscription->connection.in;
    nvlxi_transfers_progress(clients->transfers);
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    int code = update(subscription->peer, (const char *)in->body, in->header.length);
    nvlxi_closer_add(clients->closer, subscription->peer);
    return nvlxi_attempt_end(&attempt, code == NVLX_ESTALE ? 0 : code);
}

static bool tell_holds(void *context, uint64_t generation, const struct nvlxi_held *held) {
    struct nvlxi_subscription *subscription = context;
    const struct nvlxi_protocol_holds holds = {generation, held->transfers, held->mappings, held->graphs, 0};
    return nvlxi_channel_tell_holds(&subscription->channel, &holds);
}

/* It comes behind the descriptor of its generation, which has been applied. */
static int await(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription) {
    uint64_t generation;
    nvlxi_protocol_get_await(subscription->connection.in.body, &generation);
    const uint64_t known = nvlxi_peer_generation(subscription->peer);
    if (generation > known)
        return nvlxi_fail(NVLX_EFORMAT,
                          "asked for generation %" PRIu64 ", of which nothing was said: known is %" PRIu64, generation,
                          known);
    nvlxi_closer_ask(clients->closer, subscription->peer, generation, tell_holds, subscription);
    return 0;
}

/* That a server has ended, as it should, is no warning; what it refuses is. */
static int end_or_refusal(const struct nvlxi_connection *connection) {
    struct nvlxi_protocol_refusal refusal;
    char text[NVLXI_ERROR_TEXT];
    int code = nvlxi_protocol_get_refusal(connection->in.body, connection->in.header.length, &refusal);
    if (code)
        return code;
    if (refusal.code != NVLX_ESTALE)
        return nvlxi_connection_refused(connection);
    snprintf(text, sizeof text, "the peer is gone: the server at \"%s\" has ended: %s", connection->address,
             refusal.text);
    nvlxi_log(NVLX_LOG_INFO, "%s", text);
    return nvlxi_fail_again(NVLX_ESTALE, text);
}

/* A whole message has come. */
static int obey(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription) {
    const struct nvlxi_inbox *in = &subscription->connection.in;
    switch ((enum nvlxi_protocol_type)in->header.type) {
    case NVLXI_PROTOCOL_TEXT:
        return apply(clients, subscription, nvlxi_peer_update);
    case NVLXI_PROTOCOL_CHANGES:
        return apply(clients, subscription, nvlxi_peer_change);
    case NVLXI_PROTOCOL_GIVEN:
        return nvlxi_channel_given(&subscription->channel, in, &subscription->files);
    case NVLXI_PROTOCOL_DENIED:
        return nvlxi_channel_denied(&subscription->channel, in);
    case NVLXI_PROTOCOL_AWAIT:
        return await(clients, subscription);
    case NVLXI_PROTOCOL_TAKEN:
        return nvlxi_outbox_taken(&subscription->outbox, in);
    case NVLXI_PROTOCOL_REPORT:
        return nvlxi_report_come(&subscription->channel, in);
    case NVLXI_PROTOCOL_REFUSAL:
        return end_or_refusal(&subscription->connection);
    default:
        return nvlxi_fail(NVLX_EFORMAT, "a message of type %u, not a descriptor", (unsigned)in->header.type);
    }
}

/* A whole message has come: what it changes is an event. */
static int obey_and_tell(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription) {
    struct nvlx_peer *peer = subscription->peer;
    const uint64_t before = nvlxi_peer_generation(peer);
    int code = obey(clients, subscription);
    const uint64_t known = nvlxi_peer_generation(peer);
    if (known != before)
        nvlxi_events_post(clients->events, &peer->changed, NVLX_EVENT_PEER_CHANGED, known);
    return code;
}

/* As far as it goes without waiting: a body comes with its header, mostly. */
static int fill_inbox(struct nvlxi_subscription *subscription) {
    struct nvlxi_inbox *in = &subscription->connection.in;
    size_t before;
    int code;
    do {
        before = in->have;
        code = nvlxi_inbox_fill(in, subscription->connection.socket, &subscription->files);
    } while (code == NVLX_EAGAIN && before != in->have);
    return code;
}

/* Busy with it, without the mutex. Returns 0 or why the connection ends. */
static int read_more(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription) {
    int code = fill_inbox(subscription);
    if (code == NVLX_EAGAIN)
        return 0;
    if (code == NVLX_ESTALE)
        return nvlxi_fail(code, "the peer is gone: the server at \"%s\" has closed the connection",
                          subscription->connection.address);
    if (!code)
        code = obey_and_tell(clients, subscription);
    nvlxi_inbox_clear(&subscription->connection.in);
    nvlxi_connection_files_close(&subscription->files);
    return code;
}

/* Busy with it, without the mutex. */
static int serve(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription, uint32_t events) {
    if (events & EPOLLOUT)
        nvlxi_outbox_go_on(&subscription->outbox);
    return events & ~(uint32_t)EPOLLOUT ? read_more(clients, subscription) : 0;
}

/* Nothing of a peer that is gone is in flight or mapped any more: its owner may know, by the connection's end. */
static bool note_let_go(void *context, uint64_t generation, const struct nvlxi_held *held) {
    struct nvlxi_subscription *subscription = context;
    (void)generation;
    if (!nvlxi_held_is_nothing(held))
        return true;
    atomic_store(&subscription->let_go, true);
    subscription->outbox.wake(subscription->outbox.context);
    return true;
}

/* Busy with it, without the mutex. */
static void end(struct nvlxi_clients *clients, struct nvlxi_subscription *subscription) {
    struct nvlx_peer *peer = subscription->peer;
    const uint64_t lost = nvlxi_outbox_end(&subscription->outbox);
    pthread_mutex_lock(&clients->mutex);
    nvlxi_peer_lose(peer);
    nvlxi_closer_add(clients->closer, peer);
    nvlxi_channel_end(&subscription->channel);
    subscription->ended = true;
    nvlxi_unwatch(clients->watcher, &subscription->watch);
    nvlxi_events_post(clients->events, &peer->lost, NVLX_EVENT_PEER_LOST, lost);
    pthread_mutex_unlock(&clients->mutex);
    nvlxi_closer_ask(clients->closer, peer, 0, note_let_go, subscription);
}

void nvlxi_clients_turn(struct nvlxi_clients *clients) {
    struct nvlxi_subscription *subscription;
    pthread_mutex_lock(&clients->mutex);
    DL_FOREACH(clients->list, subscription) {
        const uint32_t events = nvlxi_watch_take(&subscription->watch);
        if (atomic_load(&subscription->let_go))
            close_subscription(clients, subscription);
        if (!events || subscription->ended)
            continue;
        subscription->busy = true;
        pthread_mutex_unlock(&clients->mutex);
        if (serve(clients, subscription, events))
            end(clients, subscription);
        pthread_mutex_lock(&clients->mutex);
        subscription->busy = false;
        pthread_cond_broadcast(&clients->idle);
    }
    pthread_mutex_unlock(&clients->mutex);
}
