/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base.h"
#include "error.h"
#include "fork_files.h"
#include "log.h"

#define CONNECTIONS_DEFAULT 64
#define CONNECTIONS_MAX     65536

void nvlxi_rendezvous_init(struct nvlxi_rendezvous *rendezvous, struct nvlxi_registration *registration,
                           struct nvlxi_relocation *relocation, struct nvlxi_transfers *transfers,
                           const struct nvlxi_identity *identity) {
    nvlxi_publisher_init(&rendezvous->publisher, registration, identity);
    nvlxi_clients_init(&rendezvous->clients, relocation, transfers);
    nvlxi_fetcher_init(&rendezvous->fetcher);
    relocation->file_server = &rendezvous->fetcher.server;
    rendezvous->sockets = 1; /* the eventfd */
    pthread_mutex_init(&rendezvous->mutex, NULL);
}

static void wake(const struct nvlxi_rendezvous *r) {
    if (eventfd_write(r->wake, 1) && errno != EAGAIN)
        nvlxi_log(NVLX_LOG_ERROR, "the service thread cannot be woken up: %s", strerror(errno));
}

/* ---- The thread ---------------------------------------------------------------------------------------- */

/* False when it is to end. */
static bool begin_turn(struct nvlxi_rendezvous *r, struct nvlxi_server **server, size_t *capacity) {
    pthread_mutex_lock(&r->mutex);
    if (r->spare) {
        free(r->polls);
        r->polls = r->spare;
        r->spare = NULL;
    }
    *server = r->server;
    *capacity = r->capacity;
    bool stop = r->stop;
    pthread_mutex_unlock(&r->mutex);
    return !stop;
}

static void sleep_until(struct pollfd *polls, size_t count, uint64_t deadline) {
    uint64_t now = nvlxi_now_ns(), span = deadline > now ? deadline - now : 0;
    const struct timespec timeout = {.tv_sec = (time_t)(span / 1000000000), .tv_nsec = (long)(span % 1000000000)};
    if (ppoll(polls, count, deadline == UINT64_MAX ? NULL : &timeout, NULL) < 0)
        for (size_t i = 0; i < count; i++)
            polls[i].revents = 0;
}

static void *run(void *argument) {
    struct nvlxi_rendezvous *r = argument;
    struct nvlxi_server *server;
    size_t capacity;
    prctl(PR_SET_NAME, "nvlx-service");
    while (begin_turn(r, &server, &capacity)) {
        uint64_t deadline = UINT64_MAX;
        eventfd_t ignored;
        struct pollfd *polls = r->polls;
        polls[0] = (struct pollfd){.fd = r->wake, .events = POLLIN};
        size_t count = 1 + (server ? nvlxi_server_poll(server, polls + 1, &deadline) : 0);
        count += nvlxi_clients_poll(&r->clients, polls, count, capacity);
        sleep_until(polls, count, deadline);
        if (polls[0].revents)
            eventfd_read(r->wake, &ignored);
        if (server)
            nvlxi_server_turn(server, polls + 1);
        nvlxi_clients_turn(&r->clients, polls);
    }
    return NULL;
}

/* Room for so many sockets more. Under the mutex. */
static int reserve(struct nvlxi_rendezvous *r, size_t more) {
    size_t capacity = nvlxi_max(2 * r->capacity, r->sockets + more);
    if (r->sockets + more > r->capacity) {
        struct pollfd *polls = malloc(capacity * sizeof *polls);
        if (!polls)
            return nvlxi_fail(NVLX_ENOMEM, "no memory to poll %zu sockets", capacity);
        free(r->spare);
        r->spare = polls;
        r->capacity = capacity;
    }
    r->sockets += more;
    return 0;
}

/* All signals are for the program's own threads. */
static int start_thread(struct nvlxi_rendezvous *r) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? nvlxi_fail(NVLX_ENOMEM, "cannot start the service thread: %s", strerror(failed)) : 0;
}

/* Under the mutex; there are polls for the eventfd. */
static int start(struct nvlxi_rendezvous *r) {
    if (r->started)
        return 0;
    r->wake = nvlxi_fork_files_eventfd();
    if (r->wake < 0)
        return nvlxi_fail(NVLX_ENOMEM, "no eventfd for the service thread: %s", strerror(errno));
    int code = start_thread(r);
    if (code)
        nvlxi_fork_files_close(r->wake);
    r->started = !code;
    return code;
}

/* Makes room for sockets, and starts the thread if it does not run yet. */
static int prepare(struct nvlxi_rendezvous *r, size_t sockets) {
    pthread_mutex_lock(&r->mutex);
    int code = reserve(r, sockets);
    if (!code && (code = start(r)))
        r->sockets -= sockets;
    pthread_mutex_unlock(&r->mutex);
    return code;
}

static void unprepare(struct nvlxi_rendezvous *r, size_t sockets) {
    pthread_mutex_lock(&r->mutex);
    r->sockets -= sockets;
    pthread_mutex_unlock(&r->mutex);
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

int nvlxi_rendezvous_serve(struct nvlxi_rendezvous *rendezvous, const char *address,
                           const struct nvlx_serve_options *options) {
    struct nvlxi_rendezvous *r = rendezvous;
    struct nvlx_serve_options filled = *options;
    struct nvlxi_server *server;
    int code = nvlxi_address_check(address);
    if (code || (code = check_serve_options(options)) || (code = claim_serving(r, address)))
        return code;
    if (!filled.max_connections)
        filled.max_connections = CONNECTIONS_DEFAULT;
    if (!filled.mode)
        filled.mode = filled.user_count || filled.group_count ? 0666 : 0600;
    code = nvlxi_server_open(&r->publisher, address, &filled, &server);
    if (!code && (code = prepare(r, nvlxi_server_capacity(server))))
        nvlxi_server_close(server);
    if (code) {
        set_server(r, NULL);
        return code;
    }
    nvlxi_publisher_set_address(&r->publisher, address);
    set_server(r, server);
    nvlxi_registration_listen(r->publisher.registration, on_change, r);
    nvlxi_server_changed(server);
    wake(r);
    return 0;
}

/* ---- Following ----------------------------------------------------------------------------------------- */

int nvlxi_rendezvous_connect(struct nvlxi_rendezvous *rendezvous, const char *address, int64_t timeout_ns,
                             struct nvlx_peer **peer) {
    struct nvlxi_rendezvous *r = rendezvous;
    int code = nvlxi_address_check(address);
    if (code || (code = prepare(r, 1)))
        return code;
    code = nvlxi_clients_connect(&r->clients, address, timeout_ns, peer);
    if (code) {
        unprepare(r, 1);
        return code;
    }
    nvlxi_clients_follow(&r->clients, *peer);
    wake(r);
    return 0;
}

void nvlxi_rendezvous_leave(struct nvlxi_rendezvous *rendezvous, struct nvlx_peer *peer) {
    if (!peer->subscription)
        return;
    nvlxi_clients_leave(&rendezvous->clients, peer);
    unprepare(rendezvous, 1);
}

/* ---- The end ------------------------------------------------------------------------------------------- */

void nvlxi_rendezvous_free(struct nvlxi_rendezvous *rendezvous) {
    struct nvlxi_rendezvous *r = rendezvous;
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
    free(r->polls);
    free(r->spare);
    nvlxi_clients_free(&r->clients);
    nvlxi_publisher_free(&r->publisher);
    pthread_mutex_destroy(&r->mutex);
}
