/* Events: one descriptor for what happens to an engine's peers and requests. SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "host_stream.h"
#include "rendezvous_support.h"
#include "support.h"

#define SIZE  (256 * KIB)
#define PIECE 512

/* ---- An owner, and an engine that follows it -------------------------------------------------------------- */

static struct owner owner;
static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static char *mine;
static uint64_t there;
static int fd, poller;

static void begin_on(struct nvlx_engine *made) {
    struct epoll_event wanted = {.events = EPOLLIN};
    owner_start(&owner);
    owner_alloc(&owner, 0, 0, SIZE, 5);
    owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "block");
    OK(owner_serve(&owner, own_name(), 0));
    engine = made;
    mine = allocate(engine, 0, SIZE, 2);
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_event_fd(engine, &fd));
    poller = epoll_create1(EPOLL_CLOEXEC);
    EXPECT(poller >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted) == 0);
    peer = connect_to(engine, own_name());
    there = find(peer, "block");
}

static void begin(void) {
    begin_on(make_engine(0));
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
    close(poller);
    owner_end(&owner);
}

static bool readable(int timeout_ms) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, timeout_ms) == 1 && ready.revents == POLLIN;
}

static void await(struct nvlx_event *event) {
    struct epoll_event ready;
    EXPECT(epoll_wait(poller, &ready, 1, 30000) == 1);
    memset(event, 0x55, sizeof *event);
    event->size = sizeof *event;
    OK(nvlx_next_event(engine, event));
    EQUAL(sizeof *event, event->size);
}

static void expect_none(void) {
    struct nvlx_event event = {.size = sizeof event};
    EXPECT(!readable(0));
    GIVES(NVLX_EAGAIN, nvlx_next_event(engine, &event));
}

/* Each of a piece of its own. */
static struct nvlx_request *start_noted(void *stream, void *user) {
    static size_t started;
    const size_t at = started++ % (SIZE / PIECE) * PIECE;
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine + at, there + at, PIECE);
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_DONE_EVENT;
    options.user = user;
    options.stream = stream;
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    return request;
}

static void expect_done(struct nvlx_request *request, void *user, int status) {
    struct nvlx_event event;
    await(&event);
    EQUAL(NVLX_EVENT_REQUEST_DONE, event.kind);
    EXPECT(event.request == request && event.user == user);
    EQUAL(status, event.status);
    GIVES(status, nvlx_test(request));
}

/* ---- Peers ------------------------------------------------------------------------------------------------ */

/* Many that were not read are one. The last may be told a moment after its region is known, and so by itself. */
static void changes_are_events(void) {
    struct nvlx_event event;
    int told = 0;
    begin();
    expect_none();
    for (uint32_t i = 1; i <= 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "r%u", (unsigned)i);
        owner_register(&owner, i, 0, 0, 16, NVLX_ACCESS_READ, name);
        await_name(peer, name);
    }
    do {
        await(&event);
        EQUAL(NVLX_EVENT_PEER_CHANGED, event.kind);
        EXPECT(event.peer == peer && event.message == NULL && event.request == NULL && !event.reason[0]);
        OK(nvlx_peer_sync(peer, event.generation, 0));
        told++;
    } while (nvlx_peer_sync(peer, event.generation + 1, 0) == 0);
    EXPECT(told <= 2);
    GIVES(NVLX_ETIMEDOUT, nvlx_peer_sync(peer, event.generation + 1, 0));
    expect_none();
    const uint64_t before = event.generation;
    OK(owner_unregister(&owner, 1));
    await(&event);
    EXPECT(event.kind == NVLX_EVENT_PEER_CHANGED && event.generation > before);
    expect_none();
    end();
}

static void a_lost_peer_is_an_event(void) {
    struct nvlx_event event;
    begin();
    owner_register(&owner, 1, 0, 0, 16, NVLX_ACCESS_READ, "more");
    await_name(peer, "more");
    owner_kill(&owner);
    await(&event);
    EQUAL(NVLX_EVENT_PEER_CHANGED, event.kind);
    await(&event);
    EQUAL(NVLX_EVENT_PEER_LOST, event.kind);
    EXPECT(event.peer == peer && event.status == NVLX_ESTALE && event.unconfirmed == 0);
    EXPECT(strstr(event.reason, "the peer is gone") != NULL);
    GIVES(NVLX_ESTALE, nvlx_peer_test(peer));
    expect_none();
    OK(nvlx_engine_destroy(engine));
    close(poller);
}

/* No event names what is gone. */
static void events_of_closed_peers_are_dropped(void) {
    begin();
    owner_register(&owner, 1, 0, 0, 16, NVLX_ACCESS_READ, "more");
    EXPECT(readable(30000));
    OK(nvlx_peer_close(peer));
    expect_none();
    peer = connect_to(engine, own_name());
    owner_kill(&owner);
    EXPECT(readable(30000));
    OK(nvlx_peer_close(peer));
    expect_none();
    OK(nvlx_engine_destroy(engine));
    close(poller);
}

/* The descriptor may be asked for late: what has happened before counts. */
static void a_descriptor_knows_what_was_before(void) {
    int again;
    owner_start(&owner);
    owner_alloc(&owner, 0, 0, SIZE, 5);
    OK(owner_serve(&owner, own_name(), 0));
    engine = make_engine(0);
    peer = connect_to(engine, own_name());
    owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ, "block");
    await_name(peer, "block");
    OK(nvlx_event_fd(engine, &fd));
    OK(nvlx_event_fd(engine, &again));
    EQUAL(fd, again);
    EXPECT(readable(30000));
    struct nvlx_event event = {.size = sizeof event};
    OK(nvlx_next_event(engine, &event));
    expect_none();
    OK(nvlx_engine_destroy(engine));
    EXPECT(fcntl(fd, F_GETFD) < 0);
    owner_end(&owner);
}

/* ---- Requests --------------------------------------------------------------------------------------------- */

static void requests_tell_when_they_are_done(void) {
    begin();
    for (int i = 0; i < 200; i++) {
        int user;
        struct nvlx_request *request = start_noted(NULL, &user);
        expect_done(request, &user, 0);
        OK(nvlx_request_free(request));
        expect_none();
    }
    /* a list of nothing, and one that nobody wants to hear of */
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, there, 0);
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_DONE_EVENT;
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    expect_done(request, NULL, 0);
    OK(nvlx_request_free(request));
    move(engine, NVLX_OP_READ, peer, mine, there, SIZE);
    expect_none();
    end();
}

/* Each tells once, whoever sees it first. */
static void many_requests_at_a_time(void) {
    enum { MANY = 300 };
    static struct nvlx_request *requests[MANY];
    static bool told[MANY];
    struct nvlx_event event;
    begin();
    for (size_t i = 0; i < MANY; i++) {
        requests[i] = start_noted(NULL, &told[i]);
        if (i % 3 == 0)
            OK(nvlx_wait(requests[i], PATIENCE));
    }
    for (size_t i = 0; i < MANY; i++) {
        await(&event);
        EQUAL(NVLX_EVENT_REQUEST_DONE, event.kind);
        bool *one = event.user;
        EXPECT(!*one && requests[one - told] == event.request);
        *one = true;
        OK(nvlx_request_free(event.request));
    }
    expect_none();
    end();
}

static void a_freed_request_tells_nothing(void) {
    begin();
    struct nvlx_request *request = start_noted(NULL, NULL);
    EXPECT(readable(30000));
    OK(nvlx_request_free(request));
    expect_none();
    for (int i = 0; i < 500; i++) {
        OK(nvlx_request_free(start_noted(NULL, NULL)));
        expect_none();
    }
    end();
}

static void posts_tell_too(void) {
    struct nvlx_prepared *prepared;
    struct nvlx_op op[2];
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    begin();
    op[0] = make_op(NVLX_OP_READ, peer, mine, there, SIZE / 2);
    op[1] = make_op(NVLX_OP_WRITE, peer, mine + SIZE / 2, there + SIZE / 2, SIZE / 2); /* on two lanes */
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_DONE_EVENT;
    options.user = op;
    REFUSED(nvlx_prepare(engine, op, 2, &options, &prepared), NVLX_EINVAL, "options of nvlx_post");
    OK(nvlx_prepare(engine, op, 2, NULL, &prepared));
    for (int i = 0; i < 100; i++) {
        OK(nvlx_post(prepared, &options, &request));
        expect_done(request, op, 0);
        OK(nvlx_request_free(request));
    }
    OK(nvlx_prepared_free(prepared));
    expect_none();
    end();
}

/* The transfer ends when the stream has come so far. */
static void behind_a_stream(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    stream_stands_still(&stream);
    struct nvlx_request *request = start_noted(stream.lane, NULL);
    EXPECT(!readable(100));
    stream_goes_on(&stream);
    expect_done(request, NULL, 0);
    OK(nvlx_request_free(request));
    close_stream(&stream);
    end();
}

/* ---- Failures --------------------------------------------------------------------------------------------- */

static void a_failed_request_tells(void) {
    struct nvlx_event event;
    begin_on(make_faulty_engine(0));
    atomic_store(&faults.queries, true);
    struct nvlx_request *request = start_noted(NULL, NULL);
    await(&event);
    atomic_store(&faults.queries, false);
    EXPECT(event.kind == NVLX_EVENT_REQUEST_DONE && event.request == request && event.status == NVLX_EDEVICE);
    EXPECT(strstr(event.reason, "off the bus") != NULL);
    GIVES(NVLX_EDEVICE, nvlx_request_free(request));
    end();
}

/* A driver that has failed calls nobody: the end is seen all the same. */
static void a_device_that_does_not_call(void) {
    begin_on(make_faulty_engine(0));
    atomic_store(&faults.silent, true);
    for (int i = 0; i < 3; i++) {
        struct nvlx_request *request = start_noted(NULL, NULL);
        expect_done(request, NULL, 0);
        OK(nvlx_request_free(request));
    }
    atomic_store(&faults.silent, false);
    struct nvlx_request *request = start_noted(NULL, NULL);
    expect_done(request, NULL, 0);
    OK(nvlx_request_free(request));
    end();
}

/* The n-th call of the device fails: a lane that cannot call does not fail the transfer. */
static void no_fault_keeps_an_event(void) {
    struct nvlx_event event;
    begin_on(make_faulty_engine(0));
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, there, SIZE);
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_DONE_EVENT;
    OK(nvlx_request_free(start_noted(NULL, NULL)));
    for (long at = 1, accepted = 0; accepted < 5; at++) {
        struct nvlx_request *request = NULL;
        EXPECT(at < 100);
        atomic_store(&faults.calls, 0);
        atomic_store(&faults.fail_at, at);
        int code = nvlx_transfer(engine, &op, 1, &options, &request);
        if (!code) {
            await(&event);
            EXPECT(event.kind == NVLX_EVENT_REQUEST_DONE && event.request == request);
            accepted += event.status == 0;
            nvlx_request_free(request);
        }
        atomic_store(&faults.fail_at, 0);
        expect_none();
    }
    end();
}

/* ---- Engines ---------------------------------------------------------------------------------------------- */

static void an_engine_ends_with_events(void) {
    for (int round = 0; round < 20; round++) {
        begin();
        owner_register(&owner, 1, 0, 0, 16, NVLX_ACCESS_READ, "more");
        for (int i = 0; i < 20; i++)
            start_noted(NULL, NULL);
        end();
    }
}

/* It is closed in a child, as all sockets are. */
static void a_child_has_no_events(void) {
    begin();
    struct nvlx_request *request = start_noted(NULL, NULL);
    EXPECT(readable(30000));
    pid_t child = fork_child(30);
    if (!child) {
        struct nvlx_event event = {.size = sizeof event};
        int other;
        EXPECT(fcntl(fd, F_GETFD) < 0);
        REFUSED(nvlx_next_event(engine, &event), NVLX_EFORK, "");
        REFUSED(nvlx_event_fd(engine, &other), NVLX_EFORK, "");
        REFUSED(nvlx_send(peer, "", 0), NVLX_EFORK, "");
        _exit(0);
    }
    fork_end(child);
    expect_done(request, NULL, 0);
    OK(nvlx_request_free(request));
    end();
}

static void arguments(void) {
    struct nvlx_event event = {.size = 12};
    begin();
    REFUSED(nvlx_event_fd(engine, NULL), NVLX_EINVAL, "fd is NULL");
    REFUSED(nvlx_event_fd(NULL, &fd), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_next_event(engine, NULL), NVLX_EINVAL, "event is NULL");
    REFUSED(nvlx_next_event(engine, &event), NVLX_EINVAL, "size 12");
    struct nvlx_request *request = start_noted(NULL, NULL);
    EXPECT(readable(30000));
    REFUSED(nvlx_next_event(engine, &event), NVLX_EINVAL, "size 12"); /* and it is there still */
    expect_done(request, NULL, 0);
    const char *last = nvlx_last_error();
    expect_none();
    EXPECT(strstr(last, "size 12") != NULL);
    end();
}

/* An engine of which nobody wants to hear anything has no thread and no descriptor for it. */
static void it_costs_nothing_else(void) {
    begin();
    move(engine, NVLX_OP_READ, peer, mine, there, SIZE);
    struct holdings before = holdings();
    for (int i = 0; i < 10; i++)
        move(engine, NVLX_OP_READ, peer, mine, there, SIZE);
    expect_holdings(&before, "after transfers without events");
    OK(nvlx_request_free(start_noted(NULL, NULL)));
    EQUAL(before.threads + 1, holdings().threads);
    end();
}

static const struct test tests[] = {
    {"changes are events", changes_are_events},
    {"a lost peer is an event", a_lost_peer_is_an_event},
    {"events of closed peers are dropped", events_of_closed_peers_are_dropped},
    {"a descriptor knows what was before", a_descriptor_knows_what_was_before},
    {"requests tell when they are done", requests_tell_when_they_are_done},
    {"many requests at a time", many_requests_at_a_time},
    {"a freed request tells nothing", a_freed_request_tells_nothing},
    {"posts tell, too", posts_tell_too},
    {"behind a stream", behind_a_stream},
    {"a failed request tells", a_failed_request_tells},
    {"a device that does not call", a_device_that_does_not_call},
    {"no fault keeps an event", no_fault_keeps_an_event},
    {"an engine ends with events", an_engine_ends_with_events},
    {"a child has no events", a_child_has_no_events},
    {"arguments", arguments},
    {"it costs nothing else", it_costs_nothing_else},
    {NULL, NULL},
};
static const struct role roles[] = {OWNER_ROLE, {NULL, NULL}};

int main(int argc, char **argv) {
    return run_tests(argc, argv, tests, roles, sanitized() ? 200 : 60);
}
