/* What a server and a client of the rendezvous stand: other ends that are not of this library, are slow, or are too
 * many. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rendezvous/protocol.h"
#include "rendezvous/rendezvous.h"
#include "rendezvous_support.h"

#define SIZE   (256 * KIB)
#define ENGINE "0123456789abcdef0123456789abcdef"

static struct nvlx_engine *engine; /* serves at `address` */
static char *mine;
static char address[64];
static struct possessions idle; /* of this process, when nobody is connected */

static void begin(uint32_t max_connections) {
    struct nvlx_serve_options options;
    nvlx_serve_options_init(&options);
    options.max_connections = max_connections;
    engine = make_engine(0);
    mine = allocate(engine, 0, SIZE, 99);
    register_range(engine, mine, SIZE, "mine", NVLX_ACCESS_READ_WRITE);
    snprintf(address, sizeof address, "%s", own_path());
    OK(nvlx_serve(engine, address, &options));
    idle = possessions_of(getpid());
}

/* Makes the server's patience as much shorter as these tests are to be, and says what it was. */
static void hurry(uint64_t hello_ns, uint64_t stall_ns) {
    struct nvlx_peer *self = connect_to(engine, address);
    struct nvlxi_fetcher *fetcher = nvlxi_container_of(self->remote->file_server, struct nvlxi_fetcher, server);
    struct nvlxi_server_times *times = &nvlxi_container_of(fetcher, struct nvlxi_rendezvous, fetcher)->times;
    EQUAL(5 * SECOND_NS, atomic_load(&times->hello_ns));
    EQUAL(30 * SECOND_NS, atomic_load(&times->stall_ns));
    atomic_store(&times->hello_ns, hello_ns);
    atomic_store(&times->stall_ns, stall_ns);
    OK(nvlx_peer_close(self));
    await_possessions(getpid(), idle);
}

/* It still serves, and nothing is left of whoever came. */
static void end(void) {
    await_possessions(getpid(), idle);
    struct nvlx_peer *self = connect_to(engine, address);
    EQUAL((uintptr_t)mine, find(self, "mine"));
    OK(nvlx_engine_destroy(engine));
}

static size_t hello(uint8_t *bytes, enum nvlxi_protocol_role role) {
    return nvlxi_protocol_put_hello(bytes, role);
}

/* Reads one message; its body becomes a string. */
static uint16_t receive(int socket, char *text, size_t size) {
    uint8_t head[NVLXI_PROTOCOL_HEADER];
    struct nvlxi_protocol_header header;
    get(socket, head, sizeof head);
    OK(nvlxi_protocol_get_header(head, true, &header));
    EXPECT(header.length < size);
    get(socket, text, header.length);
    text[header.length] = '\0';
    return header.type;
}

static void expect_refusal(int socket, int code, const char *words) {
    char body[512];
    struct nvlxi_protocol_refusal refusal;
    EQUAL(NVLXI_PROTOCOL_REFUSAL, receive(socket, body, sizeof body));
    OK(nvlxi_protocol_get_refusal((uint8_t *)body, strlen(body + 8) + 8, &refusal));
    if (refusal.code != code || !strstr(refusal.text, words))
        FAIL("refused by %d: %s", refusal.code, refusal.text);
    EXPECT(closes(socket, 5000));
    close(socket);
}

/* Sends bytes as a first message, and expects to be refused. */
static void expect_refused(const uint8_t *bytes, size_t length, int code, const char *words) {
    int socket = raw_connect(address);
    put(socket, bytes, length);
    expect_refusal(socket, code, words);
}

/* ---- What a server stands ------------------------------------------------------------------------------- */

static void garbage_is_refused(void) {
    uint8_t bytes[256];
    uint64_t random = 7;
    uint32_t length;
    uint16_t version = 2;
    begin(0);
    for (int i = 0; i < 200; i++) {
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)next_random(&random);
        int socket = raw_connect(address);
        put(socket, bytes, sizeof bytes);
        EXPECT(closes(socket, 5000));
        close(socket);
    }
    size_t whole = hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER);
    length = 1000000;
    memcpy(bytes, &length, sizeof length);
    expect_refused(bytes, whole, NVLX_EFORMAT, "HELLO of 1000000");
    hello(bytes, (enum nvlxi_protocol_role)3);
    expect_refused(bytes, whole, NVLX_EFORMAT, "role is 3");
    hello(bytes, NVLXI_PROTOCOL_FETCHER);
    memcpy(bytes + NVLXI_PROTOCOL_HEADER + 8, &version, sizeof version);
    expect_refused(bytes, whole, NVLX_EVERSION, "speaks version 2.");
    hello(bytes, NVLXI_PROTOCOL_FETCHER);
    bytes[NVLXI_PROTOCOL_HEADER] ^= 1;
    expect_refused(bytes, whole, NVLX_EFORMAT, "not of this library");
    const struct nvlxi_protocol_file file = {1, 2};
    expect_refused(bytes, nvlxi_protocol_put_fetch(bytes, &file, 1), NVLX_EFORMAT, "out of turn");
    end();
}

/* A connection in a role, after the greeting; a subscriber has its descriptor. */
static int come_as(enum nvlxi_protocol_role role) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    char body[4096];
    int socket = raw_connect(address);
    put(socket, bytes, hello(bytes, role));
    EQUAL(NVLXI_PROTOCOL_WELCOME, receive(socket, body, sizeof body));
    if (role == NVLXI_PROTOCOL_SUBSCRIBER)
        EQUAL(NVLXI_PROTOCOL_TEXT, receive(socket, body, sizeof body));
    return socket;
}

static void refuse_from(enum nvlxi_protocol_role role, const uint8_t *bytes, size_t length, const char *words) {
    int socket = come_as(role);
    put(socket, bytes, length);
    expect_refusal(socket, NVLX_EFORMAT, words);
}

/* Questions of the wrong role, or not proper, end the connection. Those that cannot be granted do not. */
static void questions_are_checked(void) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    char body[4096];
    struct nvlxi_protocol_refusal refusal;
    const struct nvlxi_protocol_file unknown[2] = {{1, 2}, {3, 4}};
    uint32_t request;
    begin(0);
    size_t length = nvlxi_protocol_put_ask(bytes, 5, unknown, 2);
    expect_refused(bytes, length, NVLX_EFORMAT, "out of turn");
    refuse_from(NVLXI_PROTOCOL_FETCHER, bytes, length, "out of turn");
    bytes[NVLXI_PROTOCOL_HEADER + 4] = 1;
    refuse_from(NVLXI_PROTOCOL_SUBSCRIBER, bytes, length, "where 0 must be");
    length = nvlxi_protocol_put_done(bytes);
    expect_refused(bytes, length, NVLX_EFORMAT, "out of turn");
    refuse_from(NVLXI_PROTOCOL_FETCHER, bytes, length, "out of turn");
    refuse_from(NVLXI_PROTOCOL_SUBSCRIBER, bytes, nvlxi_protocol_put_fetch(bytes, unknown, 1), "out of turn");
    refuse_from(NVLXI_PROTOCOL_SUBSCRIBER, bytes, nvlxi_protocol_put_given(bytes, 5, 1), "type 9");
    int socket = come_as(NVLXI_PROTOCOL_SUBSCRIBER);
    for (uint32_t i = 0; i < 20; i++) {
        put(socket, bytes, nvlxi_protocol_put_done(bytes));
        put(socket, bytes, nvlxi_protocol_put_ask(bytes, i, unknown, 1 + i % 2));
        if (i % 3)
            put(socket, bytes, nvlxi_protocol_put_done(bytes));
        memset(body, 0, sizeof body);
        EQUAL(NVLXI_PROTOCOL_DENIED, receive(socket, body, sizeof body));
        OK(nvlxi_protocol_get_denied((uint8_t *)body, 8 + strlen(body + 8), &request, &refusal));
        EQUAL(i, request);
        EQUAL((uint32_t)NVLX_ESTALE, (uint32_t)refusal.code);
    }
    register_range(engine, mine, 10, "after that", NVLX_ACCESS_READ);
    EQUAL(NVLXI_PROTOCOL_CHANGES, receive(socket, body, sizeof body));
    EXPECT(strstr(body, "after that") != NULL);
    close(socket);
    end();
}

static void truncated_messages_end(void) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    begin(0);
    size_t whole = hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER);
    for (size_t length = 0; length < whole; length++) {
        int socket = raw_connect(address);
        put(socket, bytes, length);
        if (length % 2) {
            EQUAL(0, shutdown(socket, SHUT_WR));
            EXPECT(closes(socket, 5000));
        }
        close(socket);
    }
    end();
}

/* Byte by byte, but in time. */
static void pieces_are_joined(void) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    char body[4096];
    begin(0);
    size_t whole = hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER);
    int socket = raw_connect(address);
    for (size_t i = 0; i < whole; i++) {
        put(socket, bytes + i, 1);
        usleep(2000);
    }
    EQUAL(NVLXI_PROTOCOL_WELCOME, receive(socket, body, sizeof body));
    EQUAL(NVLXI_PROTOCOL_TEXT, receive(socket, body, sizeof body));
    EXPECT(strstr(body, "\"mine\"") != NULL);
    close(socket);
    end();
}

static void slow_strangers_are_dropped(void) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    begin(0);
    hurry(SECOND_NS, 30 * SECOND_NS);
    hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER);
    int socket = raw_connect(address), silent = raw_connect(address);
    double start = now_ms();
    for (size_t i = 0; i < 12; i++) {
        put(socket, bytes + i, 1);
        usleep(50000);
    }
    expect_refusal(socket, NVLX_ETIMEDOUT, "1 s");
    EXPECT(now_ms() - start >= 990);
    expect_refusal(silent, NVLX_ETIMEDOUT, "1 s");
    end();
}

static void replayed_messages_are_refused(void) {
    uint8_t bytes[2 * NVLXI_PROTOCOL_SHORT_MAX];
    char body[4096];
    begin(0);
    for (enum nvlxi_protocol_role role = NVLXI_PROTOCOL_SUBSCRIBER; role <= NVLXI_PROTOCOL_FETCHER; role++) {
        int socket = raw_connect(address);
        size_t whole = hello(bytes, role);
        put(socket, bytes, whole);
        EQUAL(NVLXI_PROTOCOL_WELCOME, receive(socket, body, sizeof body));
        if (role == NVLXI_PROTOCOL_SUBSCRIBER)
            EQUAL(NVLXI_PROTOCOL_TEXT, receive(socket, body, sizeof body));
        put(socket, bytes, whole);
        expect_refusal(socket, NVLX_EFORMAT, "out of turn");
    }
    end();
}

/* A subscriber that reads nothing: some time (30 s) after its socket is full it is dropped, and others were served all
 * the time. */
static void stalled_readers_are_dropped(void) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    char name[256];
    begin(0);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "%0200d", i);
        register_range(engine, mine, 100, name, NVLX_ACCESS_READ);
    }
    hurry(5 * SECOND_NS, 3 * SECOND_NS);
    int socket = raw_connect(address);
    put(socket, bytes, hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER));
    double start = now_ms();
    struct possessions held = {idle.fds + 2, idle.threads};
    await_possessions(getpid(), held);
    while (possessions_of(getpid()).fds >= held.fds) {
        OK(nvlx_peer_close(connect_to(engine, address)));
        usleep(200000);
        EXPECT(now_ms() - start < 20000);
    }
    EXPECT(now_ms() - start > 2900);
    close(socket);
    end();
}

static void too_many_are_refused(void) {
    struct nvlx_peer *peers[3], *more;
    begin(3);
    struct nvlx_engine *client = make_engine(0);
    for (size_t i = 0; i < COUNT(peers); i++)
        peers[i] = connect_to(client, address);
    REFUSED(nvlx_connect(client, address, PATIENCE, &more), NVLX_EBUSY, "3 connections");
    OK(nvlx_peer_close(peers[1]));
    int code;
    for (double start = now_ms(); (code = nvlx_connect(client, address, PATIENCE, &more)) && now_ms() - start < 5000;)
        usleep(1000);
    OK(code);
    OK(nvlx_peer_test(peers[0]));
    OK(nvlx_engine_destroy(client));
    end();
}

static void set_limit(rlim_t limit) {
    struct rlimit known;
    EQUAL(0, getrlimit(RLIMIT_NOFILE, &known));
    known.rlim_cur = limit;
    EQUAL(0, setrlimit(RLIMIT_NOFILE, &known));
}

/* A server without file descriptors lets nobody in until it has some, beside one to give out, and does not spin. */
static void servers_without_descriptors_wait(void) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    char body[4096];
    struct rusage before, after;
    begin(0);
    int first = raw_connect(address), second;
    put(first, bytes, hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER));
    EQUAL(NVLXI_PROTOCOL_WELCOME, receive(first, body, sizeof body));
    EQUAL(NVLXI_PROTOCOL_TEXT, receive(first, body, sizeof body));
    int spare = open("/dev/null", O_RDONLY | O_CLOEXEC), top = dup(spare);
    set_limit((rlim_t)top + 1);
    close(top);
    second = raw_connect(address);
    put(second, bytes, hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER));
    EQUAL(0, getrusage(RUSAGE_SELF, &before));
    EXPECT(!closes(second, 1000));
    EQUAL(0, getrusage(RUSAGE_SELF, &after));
    long us =
        (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec - before.ru_utime.tv_usec;
    EXPECT(us < 300000);
    close(spare);
    EXPECT(!closes(second, 300));
    set_limit((rlim_t)top + 2);
    EQUAL(NVLXI_PROTOCOL_WELCOME, receive(second, body, sizeof body));
    EQUAL(NVLXI_PROTOCOL_TEXT, receive(second, body, sizeof body));
    set_limit(1024);
    close(first), close(second);
    end();
}

static atomic_int complaints;

static void count_complaints(void *context, int level, const char *message) {
    (void)context, (void)message;
    atomic_fetch_add(&complaints, level <= NVLX_LOG_WARNING);
}

/* A child that connects when it is told to, and sends the code. */
static void latecomer_role(int socket) {
    char at[64];
    struct nvlx_peer *peer;
    struct nvlx_engine *latecomer = make_engine(0);
    get(socket, at, sizeof at);
    get(socket, at + sizeof at - 1, 1);
    at[sizeof at - 1] = '\0';
    int code = nvlx_connect(latecomer, at, PATIENCE, &peer);
    put(socket, &code, sizeof code);
    OK(nvlx_engine_destroy(latecomer));
}

/* A limit below the number of sockets that are open already: who is in is served on, who is not waits, and nothing
 * turns in circles. */
static void a_lowered_limit_stops_nobody(void) {
    struct rusage before, after;
    struct nvlx_peer *peers[30];
    begin(0);
    struct nvlx_engine *client = make_engine(0);
    for (size_t i = 0; i < COUNT(peers); i++)
        peers[i] = connect_to(client, address);
    struct child late;
    int code;
    child_start(&late, "latecomer");
    put(late.socket, address, sizeof address);
    OK(nvlx_set_log(NVLX_LOG_WARNING, count_complaints, NULL));
    set_limit(16);
    register_range(engine, mine, 10, "lowered", NVLX_ACCESS_READ);
    for (size_t i = 0; i < COUNT(peers); i++)
        await_name(peers[i], "lowered");
    put(late.socket, &late, 1); /* it comes now */
    EQUAL(0, getrusage(RUSAGE_SELF, &before));
    sleep(1);
    EQUAL(0, getrusage(RUSAGE_SELF, &after));
    long us =
        (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec - before.ru_utime.tv_usec;
    EXPECT(us < 300000);
    EXPECT(atomic_load(&complaints) <= 1);
    set_limit(1024);
    get(late.socket, &code, sizeof code);
    OK(code);
    child_end(&late);
    OK(nvlx_engine_destroy(client));
    end();
}

static void clients_without_descriptors_are_told(void) {
    struct nvlx_peer *peer = NULL;
    begin(0);
    struct nvlx_engine *client = make_engine(0);
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(next);
    for (rlim_t more = 0; more < 3; more++) { /* for the epoll, the eventfd, but not for the socket */
        set_limit((rlim_t)next + more);
        REFUSED(nvlx_connect(client, address, PATIENCE, &peer), NVLX_ENOMEM, "Too many open files");
    }
    set_limit(1024);
    EXPECT(!peer);
    OK(nvlx_peer_close(connect_to(client, address)));
    OK(nvlx_engine_destroy(client));
    end();
}

/* ---- What a client stands ------------------------------------------------------------------------------- */

/* Connects to a server that answers with these bytes, and then closes. */
static void connect_to_fake(const uint8_t *bytes, size_t length, int code, const char *words) {
    struct nvlx_peer *peer = NULL;
    char fake[80];
    snprintf(fake, sizeof fake, "%s-fake", address);
    int listener = raw_listen(fake);
    pid_t pid = fork_child(20);
    if (!pid) { /* only system calls */
        int accepted = accept(listener, NULL, NULL);
        if (send(accepted, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
            _exit(1);
        shutdown(accepted, SHUT_WR);
        closes(accepted, 5000);
        _exit(0);
    }
    close(listener);
    REFUSED(nvlx_connect(engine, fake, PATIENCE, &peer), code, words);
    EXPECT(!peer && waitpid(pid, NULL, 0) == pid);
    EQUAL(0, unlink(fake));
}

static void bad_servers_are_refused(void) {
    static const char text[] = "{\"format\":\"nvlxfer\"}";
    uint8_t bytes[4 * NVLXI_PROTOCOL_SHORT_MAX] = {0};
    uint16_t version = 9;
    uint32_t length = UINT32_MAX;
    char *exported;
    size_t exported_length;
    begin(0);
    connect_to_fake(bytes, 64, NVLX_EFORMAT, "type 0");
    size_t welcome = nvlxi_protocol_put_welcome(bytes, ENGINE);
    memcpy(bytes + NVLXI_PROTOCOL_HEADER + 8, &version, sizeof version);
    connect_to_fake(bytes, welcome, NVLX_EVERSION, "speaks version 9.");
    nvlxi_protocol_put_welcome(bytes, ENGINE);
    memcpy(bytes + welcome, bytes, welcome);
    connect_to_fake(bytes, 2 * welcome, NVLX_EFORMAT, "type 3");
    size_t whole = welcome + nvlxi_protocol_put_text(bytes + welcome, sizeof text - 1);
    memcpy(bytes + whole, text, sizeof text - 1);
    connect_to_fake(bytes, whole + sizeof text - 1, NVLX_EFORMAT, "");
    memcpy(bytes + welcome, &length, sizeof length);
    connect_to_fake(bytes, whole, NVLX_EFORMAT, "TEXT of 4294967295");
    OK(nvlx_export(engine, &exported, &exported_length));
    EXPECT(exported_length < sizeof bytes - 2 * NVLXI_PROTOCOL_SHORT_MAX);
    nvlxi_protocol_put_text(bytes + welcome, exported_length);
    memcpy(bytes + whole, exported, exported_length);
    connect_to_fake(bytes, whole + exported_length, NVLX_EFORMAT, "descriptor of engine");
    nvlx_text_free(exported);
    connect_to_fake(bytes, nvlxi_protocol_put_refusal(bytes, NVLX_EBUSY, "not today"), NVLX_EBUSY, "not today");
    connect_to_fake(bytes, nvlxi_protocol_put_refusal(bytes, -77, "not today"), NVLX_EFORMAT, "-77");
    connect_to_fake(bytes, nvlxi_protocol_put_refusal(bytes, NVLX_EAGAIN, "ask again"), NVLX_EFORMAT, "-5");
    connect_to_fake(bytes, nvlxi_protocol_put_refusal(bytes, NVLX_EFORK, "you forked"), NVLX_EFORMAT, "-4");
    OK(nvlx_engine_destroy(engine)); /* the thread that connecting has started is not what `idle` counted */
}

/* Greets whoever comes, says a part of what is to follow, and ends; then another process serves. */
static void *end_early(void *argument) {
    uint8_t bytes[2 * NVLXI_PROTOCOL_SHORT_MAX];
    const int *listener = argument;
    size_t whole = nvlxi_protocol_put_welcome(bytes, ENGINE);
    whole += nvlxi_protocol_put_text(bytes + whole, 1000);
    for (size_t said = 0; said <= whole + 4; said += 13) {
        int accepted = accept(*listener, NULL, NULL);
        put(accepted, bytes, said);
        close(accepted);
    }
    close(*listener);
    unlink(address);
    struct nvlx_serve_options options;
    nvlx_serve_options_init(&options);
    engine = make_engine(0);
    OK(nvlx_serve(engine, address, &options));
    return NULL;
}

/* A server that ends at any moment before its descriptor is whole is as one that is not there yet. */
static void servers_that_end_are_not_there_yet(void) {
    struct nvlx_peer *peer = NULL;
    pthread_t thread;
    struct nvlx_engine *client = make_engine(0);
    snprintf(address, sizeof address, "%s", own_path());
    int listener = raw_listen(address);
    EQUAL(0, pthread_create(&thread, NULL, end_early, &listener));
    OK(nvlx_connect(client, address, PATIENCE, &peer));
    EQUAL(0, pthread_join(thread, NULL));
    OK(nvlx_engine_destroy(client));
    OK(nvlx_engine_destroy(engine));
    snprintf(address, sizeof address, "%s-ends", own_path());
    client = make_engine(0);
    listener = raw_listen(address);
    EQUAL(0, pthread_create(&thread, NULL, end_early, &listener));
    int code;
    for (double start = now_ms(); (code = nvlx_connect(client, address, 1000000, &peer)) == NVLX_ETIMEDOUT;)
        EXPECT(now_ms() - start < 20000);
    OK(code);
    EQUAL(0, pthread_join(thread, NULL));
    OK(nvlx_engine_destroy(client));
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"garbage_is_refused", garbage_is_refused},
                                        {"questions_are_checked", questions_are_checked},
                                        {"truncated_messages_end", truncated_messages_end},
                                        {"pieces_are_joined", pieces_are_joined},
                                        {"slow_strangers_are_dropped", slow_strangers_are_dropped},
                                        {"replayed_messages_are_refused", replayed_messages_are_refused},
                                        {"stalled_readers_are_dropped", stalled_readers_are_dropped},
                                        {"too_many_are_refused", too_many_are_refused},
                                        {"servers_without_descriptors_wait", servers_without_descriptors_wait},
                                        {"a_lowered_limit_stops_nobody", a_lowered_limit_stops_nobody},
                                        {"clients_without_descriptors_are_told", clients_without_descriptors_are_told},
                                        {"bad_servers_are_refused", bad_servers_are_refused},
                                        {"servers_that_end_are_not_there_yet", servers_that_end_are_not_there_yet},
                                        {0}};
    static const struct role roles[] = {{"latecomer", latecomer_role}, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
