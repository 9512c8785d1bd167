/* The service thread: what starts it, wakes it up, and ends it. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/rendezvous.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "base/error.h"
#include "base/fork_files.h"
#include "base/log.h"
#include "base/thread.h"

#define CONNECTIONS_MAX 65536
#define HELLO_NS        UINT64_C(5000000000)
#define STALL_NS        UINT64_C(30000000000)

static void wake(const struct nvlxi_rendezvous *r) {
    if (eventfd_write(r->wake, 1) && errno != EAGAIN)
        nvlxi_log(NVLX_LOG_ERROR, "the service thread cannot be woken up: %s", strerror(errno));
}

static void wake_thread(void *context) {
    wake(context);
}

static void tell_done(void *context, struct nvlx_request *request) {
    nvlxi_events_post(context, &request->done, NVLX_EVENT_REQUEST_DONE, 0);
}

static void forget_request(void *context, struct nvlx_request *request) {
    nvlxi_events_drop(context, &request->done);
}

void nvlxi_rendezvous_init(struct nvlxi_rendezvous *rendezvous, struct nvlxi_registration *registration,
                           struct nvlxi_remote *remote, struct nvlxi_revocations *revocations,
                           struct nvlxi_closer *closer, struct nvlxi_events *events) {
    nvlxi_publisher_init(&rendezvous->publisher, registration);
    rendezvous->revocations = revocations;
    rendezvous->events = events;
    nvlxi_events_listen(events, wake_thread, rendezvous);
    nvlxi_clients_init(&rendezvous->clients, remote, closer);
    rendezvous->clients.events = events;
    rendezvous->clients.wake = wake_thread;
    rendezvous->clients.context = rendezvous;
    closer->transfers->teller = (struct nvlxi_teller){.deliver = nvlxi_letter_deliver,
                                                      .cancel = nvlxi_letter_cancel,
                                                      .done = tell_done,
                                                      .forget = forget_request,
                                                      .context = events};
    nvlxi_fetcher_init(&rendezvous->fetcher);
    remote->file_server = &rendezvous->fetcher.server;
    rendezvous->clients.watcher = &rendezvous->watcher;
    atomic_init(&rendezvous->times.hello_ns, HELLO_NS);
    atomic_init(&rendezvous->times.stall_ns, STALL_NS);
    pthread_mutex_init(&rendezvous->mutex, NULL);
}

/* ---- The thread ---------------------------------------------------------------------------------------- */

/* False when it is to end. */
static bool begin_turn(struct nvlxi_rendezvous *r, struct nvlxi_server **server) {
    pthread_mutex_lock(&r->mutex);
    *server = r->server;
    bool stop = r->stop;
    pthread_mutex_unlock(&r->mutex);
    return !stop;
}

static void *run(void *argument) {
    struct nvlxi_rendezvous *r = argument;
    struct nvlxi_server *server;
    eventfd_t ignored;
    prctl(PR_SET_NAME, "nvlx-service");
    nvlxi_watcher_make_room(&r->watcher, -1);
    while (begin_turn(r, &server)) {
        uint64_t deadline = UINT64_MAX;
        if (server)
            nvlxi_server_prepare(server, &deadline);
        nvlxi_clients_prepare(&r->clients);
        nvlxi_watcher_wait(&r->watcher, deadline);
        if (nvlxi_watch_take(&r->wake_watch))
            eventfd_read(r->wake, &ignored);
        if (server)
            nvlxi_server_turn(server);
        nvlxi_clients_turn(&r->clients);
    }
    return NULL;
}

static int start_thread(struct nvlxi_rendezvous *r) {
    int failed = nvlxi_thread_start(&r->thread, run, r);
    return failed ? nvlxi_fail(NVLX_ENOMEM, "cannot start the service thread: %s", strerror(failed)) : 0;
}

/* Under the mutex. */
static int start(struct nvlxi_rendezvous *r) {
    if (r->started)
        return 0;
    int code = nvlxi_watcher_open(&r->watcher);
    if (code)
        return code;
    r->wake = nvlxi_fork_files_eventfd();
    if (r->wake < 0) {
        code = nvlxi_fail(NVLX_ENOMEM, "no eventfd for the service thread: %s", strerror(errno));
        goto close_watcher;
    }
    if ((code = nvlxi_watch(&r->watcher, &r->wake_watch, r->wake, EPOLLIN)) || (code = start_thread(r)))
        goto close_wake;
    r->started = true;
    return 0;
close_wake:
    nvlxi_fork_files_close(r->wake);
    r->wake_watch = (struct nvlxi_watch){0};
close_watcher:
    nvlxi_watcher_close(&r->watcher);
    return code;
}

/* The thread runs when it returns 0. */
static int prepare(struct nvlxi_rendezvous *r) {
    pthread_mutex_lock(&r->mutex);
    int code = start(r);
    pthread_mutex_unlock(&r->mutex);
    return code;
}

/* ---- Serving ------------------------------------------------------------------------------------------- */

/* The server is set before this is called first, and nothing registers any more when it ends. */
static void on_change(void *context) {
    const struct nvlxi_rendezvous *r = context;
    if (nvlxi_server_changed(r->server))
        wake(r);
}

static int check_serve_options(const struct nvlx_serve_options *options) {
    if (options->user_count && !options->users)
        return nvlxi_fail(NVLX_EINVAL, "users is NULL and user_count is %zu", options->user_count);
    if (options->group_count && !options->groups)
        return nvlxi_fail(NVLX_EINVAL, "groups is NULL and group_count is %zu", options->group_count);
    if (options->mode & ~0777u)
        return nvlxi_fail(NVLX_EINVAL, "mode 0%o is not one of a file", options->mode);
    if (options->stats > 1 || options->reserved)
        return nvlxi_fail(NVLX_EINVAL, "stats is %u and reserved %u: they are 0 or 1, and 0", options->stats,
                          options->reserved);
    if (options->max_connections > CONNECTIONS_MAX)
        return nvlxi_fail(NVLX_EINVAL, "max_connections is %u: at most %d", options->max_connections, CONNECTIONS_MAX);
    return 0;
}

static int claim_serving(struct nvlxi_rendezvous *r, const char *address) {
    pthread_mutex_lock(&r->mutex);
    bool taken = r->serving;
    r->serving = true;
    pthread_mutex_unlock(&r->mutex);
    return taken ? nvlxi_fail(NVLX_EEXIST, "cannot serve at \"%s\": the engine serves already", address) : 0;
}

static void set_server(struct nvlxi_rendezvous *r, struct nvlxi_server *server) {
    pthread_mutex_lock(&r->mutex);
    r->server = server;
    r->serving = server != NULL;
    pthread_mutex_unlock(&r->mutex);
}

int nvlxi_rendezvous_serve(struct nvlxi_rendezvous *r, const char *address, const struct nvlx_serve_options *options) {
    struct nvlx_serve_options filled = *options;
    struct nvlxi_server *server;
    int code = nvlxi_address_check(address);
    if (code || (code = check_serve_options(options)) || (code = claim_serving(r, address)))
        return code;
    if (!filled.max_connections)
        filled.max_connections = NVLXI_CONNECTIONS_DEFAULT;
    if (!filled.mode)
        filled.mode = filled.user_count || filled.group_count ? 0666 : 0600;
    code = prepare(r);
    if (!code)
        code = nvlxi_server_open(&r->publisher, r->revocations, r->events, &r->watcher, &r->times, &r->reporter,
                                 address, &filled, &server);
    if (code) {
        set_server(r, NULL);
        return code;
    }
    nvlxi_publisher_set_address(&r->publisher, address);
    set_server(r, server);
    nvlxi_revocations_listen(r->revocations, wake_thread, r);
    nvlxi_registration_listen(r->publisher.registration, on_change, r);
    nvlxi_server_changed(server);
    wake(r);
    return 0;
}

/* ---- Following ----------------------------------------------------------------------------------------- */

int nvlxi_rendezvous_connect(struct nvlxi_rendezvous *r, const char *address, int64_t timeout_ns,
                             struct nvlx_peer **peer) {
    int code = nvlxi_address_check(address);
    if (code || (code = prepare(r)))
        return code;
    return nvlxi_clients_connect(&r->clients, address, timeout_ns, peer);
}

int nvlxi_rendezvous_leave(struct nvlxi_rendezvous *rendezvous, struct nvlx_peer *peer) {
    return peer->subscription ? nvlxi_clients_leave(&rendezvous->clients, peer) : 0;
}

int nvlxi_rendezvous_report(const struct nvlx_peer *peer, int64_t timeout_ns, char **text, size_t *length) {
    int code = nvlxi_peer_check(peer);
    if (code)
        return code;
    if (!peer->subscription)
        return nvlxi_fail(NVLX_ENOTSUP, "the peer was made from a text: peers of nvlx_connect tell their counts");
    struct nvlxi_subscription *subscription = peer->subscription;
    if (subscription->connection.minor < 5)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "the library of the peer at \"%s\" is too old to tell its counts: it speaks "
                          "version %u.%u of the protocol",
                          subscription->connection.address, NVLXI_PROTOCOL_MAJOR, subscription->connection.minor);
    return nvlxi_report_ask(&subscription->channel, timeout_ns, text, length);
}

int nvlxi_rendezvous_outbox(const struct nvlx_peer *peer, struct nvlxi_outbox **outbox) {
    int code = nvlxi_peer_check(peer);
    if (code)
        return code;
    if (!peer->subscription)
        return nvlxi_fail(NVLX_ENOTSUP, "the peer was made from a text: messages go to peers of nvlx_connect");
    *outbox = &peer->subscription->outbox;
    return 0;
}

/* ---- The end ------------------------------------------------------------------------------------------- */

void nvlxi_rendezvous_free(struct nvlxi_rendezvous *r) {
    if (r->started) {
        pthread_mutex_lock(&r->mutex);
        r->stop = true;
        pthread_mutex_unlock(&r->mutex);
        wake(r);
        pthread_join(r->thread, NULL);
        nvlxi_fork_files_close(r->wake);
    }
    if (r->server)
        nvlxi_server_close(r->server);
    nvlxi_clients_free(&r->clients);
    if (r->started)
        nvlxi_watcher_close(&r->watcher);
    nvlxi_publisher_free(&r->publisher);
    pthread_mutex_destroy(&r->mutex);
}
