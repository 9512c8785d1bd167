/* Processes that find each other at an address, follow each other's changes, end, and start again.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rendezvous_support.h"

#define SIZE (256 * KIB)

static struct nvlx_engine *engine;
static char *mine; /* SIZE bytes on GPU 0, registered */
static char address[64];

static void begin(void) {
    engine = make_engine(0);
    mine = allocate(engine, 0, SIZE, 99);
    register_range(engine, mine, SIZE, "mine", NVLX_ACCESS_READ_WRITE);
    snprintf(address, sizeof address, "%s", own_path());
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
}

static void start_server(struct owner *owner, uint32_t seed) {
    owner_start(owner);
    owner_alloc(owner, 0, 0, SIZE, seed);
    owner_register(owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "w");
    OK(owner_serve(owner, address, 0));
}

static void expect_read(struct nvlx_peer *peer, uint64_t remote, size_t length, uint32_t seed) {
    fill(engine, mine, SIZE, 99);
    move(engine, NVLX_OP_READ, peer, mine, remote, length);
    EQUAL(0, wrong(engine, mine, length, seed));
}

/* ---- Serving and connecting ----------------------------------------------------------------------------- */

static void try_address(const char *at) {
    struct owner owner;
    struct stat status;
    begin();
    snprintf(address, sizeof address, "%s", at);
    start_server(&owner, 1);
    struct nvlx_peer *peer = connect_to(engine, address);
    OK(nvlx_peer_test(peer));
    expect_read(peer, find(peer, "w"), SIZE, 1);
    fill(engine, mine, SIZE, 2);
    move(engine, NVLX_OP_WRITE, peer, mine, find(peer, "w"), SIZE);
    EQUAL(0, owner_wrong(&owner, 0, 0, SIZE, 2));
    if (address[0] == '/') {
        EQUAL(0, stat(address, &status));
        EQUAL(0600, status.st_mode & 0777);
    }
    owner_end(&owner);
    EXPECT(stat(address, &status) && errno == ENOENT);
    await_end(peer);
    OK(nvlx_peer_close(peer));
    end();
}

static void paths_work(void) {
    try_address(own_path());
}

static void abstract_names_work(void) {
    try_address(own_name());
}

static void changes_are_told(void) {
    struct owner owner;
    begin();
    start_server(&owner, 1);
    struct nvlx_peer *peer = connect_to(engine, address);
    uint64_t w = find(peer, "w");
    expect_read(peer, w, 100, 1);
    owner_alloc(&owner, 1, 0, SIZE, 2);
    for (int round = 0; round < 20; round++) {
        owner_register(&owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ, "more");
        await_name(peer, "more");
        expect_read(peer, find(peer, "more"), 1000, 2);
        EQUAL(2, engine_info(engine).mappings);
        OK(owner_unregister(&owner, 1));
        await_no_name(peer, "more");
    }
    OK(owner_unregister(&owner, 0));
    await_no_name(peer, "w");
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, w, 10);
    struct nvlx_request *request;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_ERANGE, "op 0");
    for (double start = now_ms(); engine_info(engine).mappings; usleep(1000))
        EXPECT(now_ms() - start < 10000);
    end();
    owner_end(&owner);
}

/* What was registered before a client connects is known to it, however often that changes. */
static void connecting_sees_what_was_before(void) {
    struct nvlx_region *region;
    char name[32];
    begin();
    struct nvlx_engine *client = make_engine(0);
    OK(nvlx_serve(engine, address, NULL));
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "region-%d", i);
        region = register_range(engine, mine, 100, name, NVLX_ACCESS_READ);
        struct nvlx_peer *peer = connect_to(client, address);
        find(peer, name);
        OK(nvlx_peer_close(peer));
        OK(nvlx_unregister(region, PATIENCE));
    }
    OK(nvlx_engine_destroy(client));
    end();
}

static void *serve_late(void *argument) {
    usleep(300000);
    OK(owner_serve(argument, address, 0));
    return NULL;
}

static void any_order_will_do(void) {
    struct owner owner;
    pthread_t thread;
    begin();
    owner_start(&owner);
    EQUAL(0, pthread_create(&thread, NULL, serve_late, &owner));
    struct nvlx_peer *peer = connect_to(engine, address);
    OK(nvlx_peer_test(peer));
    EQUAL(0, pthread_join(thread, NULL));
    end();
    owner_end(&owner);
}

static void connecting_gives_up(void) {
    struct nvlx_peer *peer = NULL;
    begin();
    double start = now_ms();
    REFUSED(nvlx_connect(engine, address, 200000000, &peer), NVLX_ETIMEDOUT, address);
    EXPECT(now_ms() - start >= 199 && now_ms() - start < 5000);
    REFUSED(nvlx_connect(engine, address, 0, &peer), NVLX_ETIMEDOUT, "No such file");
    int silent = raw_listen(address);
    REFUSED(nvlx_connect(engine, address, 200000000, &peer), NVLX_ETIMEDOUT, "does not answer: is it stopped?");
    close(silent);
    REFUSED(nvlx_connect(engine, address, 50000000, &peer), NVLX_ETIMEDOUT, "refused");
    unlink(address);
    EXPECT(!peer);
    end();
}

/* Timeout 0 asks once: of a server that is there, that is enough. */
static void connecting_asks_once(void) {
    struct nvlx_peer *peer = NULL;
    begin();
    struct nvlx_engine *client = make_engine(0);
    REFUSED(nvlx_connect(client, address, 0, &peer), NVLX_ETIMEDOUT, "No such file");
    OK(nvlx_serve(engine, address, NULL));
    for (int i = 0; i < 50; i++) {
        OK(nvlx_connect(client, address, 0, &peer));
        EQUAL((uintptr_t)mine, find(peer, "mine"));
        OK(nvlx_peer_close(peer));
    }
    /* nor does a long descriptor make a short timeout begin again for ever */
    char name[256];
    for (int i = 0; i < 40000; i++) {
        snprintf(name, sizeof name, "%0200d", i);
        register_range(engine, mine, 100, name, NVLX_ACCESS_READ);
    }
    OK(nvlx_connect(client, address, 1, &peer));
    find(peer, name);
    OK(nvlx_engine_destroy(client));
    end();
}

/* ---- Several processes ---------------------------------------------------------------------------------- */

/* A child that follows the server at the address that it is told, and says for each name sent when it knows it. */
static void follower_role(int socket) {
    char name[64];
    struct nvlx_engine *follower = make_engine(0);
    get(socket, name, sizeof name);
    struct nvlx_peer *peer = connect_to(follower, name);
    put(socket, name, 1);
    while (get_or_end(socket, name, sizeof name)) {
        await_name(peer, name);
        put(socket, name, 1);
    }
    OK(nvlx_engine_destroy(follower));
}

/* One of two clients is stopped, long enough for the texts to fill its socket; the other sees every change; the first
 * one then skips to the newest. */
static void a_stopped_client_stops_nobody(void) {
    struct child stopped, other;
    char name[300], change[64];
    begin();
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "%0200d", i);
        register_range(engine, mine, 100, name, NVLX_ACCESS_READ);
    }
    OK(nvlx_serve(engine, address, NULL));
    child_start(&stopped, "follower");
    child_start(&other, "follower");
    say(&stopped, address), say(&other, address);
    await_child(&stopped), await_child(&other);
    child_stop(&stopped);
    for (int i = 0; i < 10; i++) {
        snprintf(change, sizeof change, "change-%d", i);
        register_range(engine, mine, 100, change, NVLX_ACCESS_READ);
        say(&other, change);
        await_child(&other);
    }
    EQUAL(0, kill(stopped.pid, SIGCONT));
    say(&stopped, change);
    await_child(&stopped);
    child_end(&stopped), child_end(&other);
    end();
}

static void refuse_read(struct nvlx_peer *peer, uint64_t remote) {
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, remote, 10);
    struct nvlx_request *request;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_ESTALE, "gone");
}

static void killed_servers_are_noticed(void) {
    struct owner owner;
    begin();
    start_server(&owner, 3);
    owner_alloc(&owner, 1, 0, SIZE, 4);
    owner_register(&owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ, "unmapped");
    struct nvlx_peer *old = connect_to(engine, address);
    expect_read(old, find(old, "w"), SIZE, 3);
    owner_kill(&owner);
    await_end(old);
    EXPECT(access(address, F_OK) == 0);
    refuse_read(old, find(old, "w"));
    REFUSED(nvlx_peer_map(old, 0, find(old, "unmapped"), 10), NVLX_ESTALE, "gone");
    start_server(&owner, 5);
    struct nvlx_peer *young = connect_to(engine, address);
    expect_read(young, find(young, "w"), SIZE, 5);
    OK(nvlx_peer_test(young));
    REFUSED(nvlx_peer_test(old), NVLX_ESTALE, address);
    refuse_read(old, find(old, "w"));
    OK(nvlx_peer_close(old));
    expect_read(young, find(young, "w"), SIZE, 5);
    end();
    owner_end(&owner);
}

/* A child that connects, maps, reads and closes until it is killed. */
static void visitor_role(int socket) {
    char name[64];
    struct nvlx_engine *visitor = make_engine(0);
    get(socket, name, sizeof name);
    put(socket, name, 1);
    for (;;) {
        struct nvlx_peer *peer = connect_to(visitor, name);
        OK(nvlx_peer_map(peer, 0, find(peer, "mine"), 10));
        OK(nvlx_peer_close(peer));
    }
}

static void killed_clients_leave_nothing(void) {
    struct child visitor;
    uint64_t random = 42;
    begin();
    OK(nvlx_serve(engine, address, NULL));
    struct possessions before = possessions_of(getpid());
    size_t maps = holdings().maps;
    for (int i = 0; i < 50; i++) {
        child_start(&visitor, "visitor");
        say(&visitor, address);
        await_child(&visitor);
        usleep(next_random(&random) % 10000);
        child_kill(&visitor);
    }
    await_possessions(getpid(), before);
    EQUAL(maps, holdings().maps);
    end();
}

static void many_rounds_leave_nothing(void) {
    struct owner owner;
    begin();
    start_server(&owner, 1);
    struct possessions theirs = {0};
    struct holdings ours = {0};
    for (int i = 0; i < 1000; i++) {
        struct nvlx_peer *peer = connect_to(engine, address);
        OK(nvlx_peer_map(peer, 0, find(peer, "w"), SIZE));
        OK(nvlx_peer_close(peer));
        if (i == 0) {
            usleep(100000);
            theirs = possessions_of(owner.child.pid);
            ours = holdings();
        }
    }
    expect_holdings(&ours, "1,000 rounds");
    await_possessions(owner.child.pid, theirs);
    end();
    owner_end(&owner);
}

/* ---- Ends ----------------------------------------------------------------------------------------------- */

static void engines_end_with_all(void) {
    struct holdings before = {0};
    for (int round = 0; round < 20; round++) {
        struct nvlx_engine *server = make_engine(0), *client = make_engine(0);
        OK(nvlx_serve(server, own_path(), NULL));
        struct nvlx_peer *peers[10];
        for (size_t i = 0; i < COUNT(peers); i++)
            peers[i] = connect_to(client, own_path());
        if (round % 2) {
            OK(nvlx_engine_destroy(client));
            OK(nvlx_engine_destroy(server));
        } else {
            OK(nvlx_engine_destroy(server));
            for (size_t i = 0; i < COUNT(peers); i++)
                await_end(peers[i]);
            OK(nvlx_engine_destroy(client));
        }
        if (!round) /* ThreadSanitizer has started a thread of its own */
            usleep(100000), before = holdings();
        expect_holdings(&before, "both engines are destroyed");
        EXPECT(access(own_path(), F_OK));
    }
}

static void *change(void *argument) {
    for (int i = 0; i < 2000; i++) {
        int code = nvlx_unregister(register_range(argument, mine, 1 + (size_t)i, NULL, NVLX_ACCESS_READ), 0);
        EXPECT(!code || code == NVLX_ETIMEDOUT); /* it is withdrawn in any case */
    }
    return NULL;
}

/* Peers are closed in the middle of updates. */
static void closing_waits_for_updates(void) {
    pthread_t thread;
    begin();
    struct nvlx_engine *client = make_engine(0);
    OK(nvlx_serve(engine, address, NULL));
    EQUAL(0, pthread_create(&thread, NULL, change, engine));
    for (int i = 0; i < 100; i++) {
        struct nvlx_peer *peers[4];
        for (size_t k = 0; k < COUNT(peers); k++)
            peers[k] = connect_to(client, address);
        for (size_t k = 0; k < COUNT(peers); k++)
            OK(nvlx_peer_close(peers[k]));
    }
    EQUAL(0, pthread_join(thread, NULL));
    OK(nvlx_engine_destroy(client));
    end();
}

/* An engine is its own peer, over its own server. */
static void engines_can_follow_themselves(void) {
    begin();
    OK(nvlx_serve(engine, address, NULL));
    struct nvlx_peer *self = connect_to(engine, address);
    EQUAL((uintptr_t)mine, find(self, "mine"));
    register_range(engine, mine, 10, "later", NVLX_ACCESS_READ);
    await_name(self, "later");
    OK(nvlx_peer_close(self));
    connect_to(engine, address); /* and ends with itself */
    end();
}

static void forked_children_are_refused(void) {
    begin();
    OK(nvlx_serve(engine, address, NULL));
    struct nvlx_peer *peer = connect_to(engine, address), *other;
    pid_t pid = fork_child(20);
    if (!pid) {
        bool refused = nvlx_serve(engine, address, NULL) == NVLX_EFORK &&
                       nvlx_connect(engine, address, 0, &other) == NVLX_EFORK && nvlx_peer_test(peer) == NVLX_EFORK &&
                       nvlx_peer_close(peer) == NVLX_EFORK && nvlx_engine_destroy(engine) == NVLX_EFORK;
        _exit(refused ? 0 : 1);
    }
    fork_end(pid);
    OK(nvlx_peer_test(peer));
    register_range(engine, mine, 10, "after the fork", NVLX_ACCESS_READ);
    await_name(peer, "after the fork");
    end();
}

static void only_connected_peers_are_watched(void) {
    struct owner owner;
    begin();
    start_server(&owner, 1);
    char *text = owner_export(&owner);
    struct nvlx_peer *peer = open_peer(engine, text);
    owner_kill(&owner);
    OK(nvlx_peer_test(peer));
    REFUSED(nvlx_peer_test(NULL), NVLX_EINVAL, "peer");
    unlink(address);
    free(text);
    end();
}

/* ---- File descriptors ----------------------------------------------------------------------------------- */

static void descriptors_name_the_address(void) {
    char *text;
    size_t length;
    begin();
    OK(nvlx_export(engine, &text, &length));
    EXPECT(!strstr(text, address));
    nvlx_text_free(text);
    OK(nvlx_serve(engine, address, NULL));
    OK(nvlx_export(engine, &text, &length));
    EXPECT(strstr(text, address) != NULL);
    nvlx_text_free(text);
    end();
}

static struct nvlx_alloc_options chunks_of(size_t length) {
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = length;
    return options;
}

#define CHUNKS_BYTES ((size_t)300 * 2 * MIB)
#define CHUNKS_STEP  ((size_t)37 * MIB + 12345) /* from one place that is read to the next */

/* Serves memory in 300 chunks, each of which takes a file descriptor. The exit code tells that there is no such memory.
 */
static void chunks_role(int socket) {
    char at[64];
    void *chunks;
    const struct nvlx_alloc_options options = chunks_of(2 * MIB);
    struct nvlx_engine *server = make_engine(0);
    get(socket, at, sizeof at);
    int code = nvlx_alloc(server, 0, CHUNKS_BYTES, &options, &chunks);
    if (!code) {
        for (size_t at = 0; at < CHUNKS_BYTES - SIZE - 5; at += CHUNKS_STEP)
            fill(server, (char *)chunks + 5 + at, SIZE, (uint32_t)(at / CHUNKS_STEP + 1));
        register_range(server, (char *)chunks + 5, CHUNKS_BYTES - 10, "chunks", NVLX_ACCESS_READ);
        OK(nvlx_serve(server, at, NULL));
    }
    put(socket, &code, sizeof code);
    get_or_end(socket, at, 1);
    OK(nvlx_engine_destroy(server));
}

static void chunks_are_fetched(void) {
    struct child server;
    int code;
    begin();
    child_start(&server, "chunks");
    say(&server, address);
    get(server.socket, &code, sizeof code);
    if (code == NVLX_ENOTSUP) {
        printf("SKIP: chunks_are_fetched: this backend has no memory that is shared by file descriptor\n");
    } else {
        EQUAL(0, code);
        struct nvlx_peer *peer = connect_to(engine, address);
        uint64_t chunks = find(peer, "chunks");
        struct holdings before = holdings();
        OK(nvlx_peer_map(peer, 0, chunks, CHUNKS_BYTES - 10));
        EQUAL(before.fds, holdings().fds);
        for (size_t at = 0; at < CHUNKS_BYTES - SIZE - 5; at += CHUNKS_STEP) {
            move(engine, NVLX_OP_READ, peer, mine, chunks + at, SIZE);
            uint8_t *bytes = malloc(SIZE);
            OK(nvlx_memcpy(engine, bytes, mine, SIZE));
            for (size_t i = 0; i < SIZE; i++)
                if (bytes[i] != seed_byte((uint32_t)(at / CHUNKS_STEP + 1), i))
                    FAIL("byte %zu is wrong", at + i);
            free(bytes);
        }
    }
    end();
    child_end(&server);
}

/* Serves 1 GiB in the middle of 4 GiB. Nothing is ever written there except the first bytes. */
static void large_role(int socket) {
    char at[64];
    void *memory;
    const struct nvlx_alloc_options options = chunks_of(32 * MIB);
    struct nvlx_engine *server = make_engine(0);
    get(socket, at, sizeof at);
    OK(nvlx_alloc(server, 0, 4096 * MIB, &options, &memory));
    char *middle = (char *)memory + 1000 * MIB;
    fill(server, middle, SIZE, 9);
    register_range(server, middle, 1024 * MIB, "middle", NVLX_ACCESS_READ);
    OK(nvlx_serve(server, at, NULL));
    put(socket, "", 1);
    get_or_end(socket, at, 1);
    OK(nvlx_engine_destroy(server));
}

static size_t address_space(void) {
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%zu", &pages) != 1)
        FAIL("/proc/self/statm cannot be read");
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A peer's allocation may be much larger than what it registered of it: only the chunks under that are mapped. */
static void only_what_is_registered_takes_addresses(void) {
    struct child server;
    char ready;
    begin();
    child_start(&server, "large");
    say(&server, address);
    get(server.socket, &ready, 1);
    struct nvlx_peer *peer = connect_to(engine, address);
    uint64_t middle = find(peer, "middle");
    const size_t before = address_space();
    OK(nvlx_peer_map(peer, 0, middle, 1024 * MIB));
    const size_t taken = address_space() - before;
    if (!strcmp(nvlx_backend_name(engine), "host") && !sanitized()) /* CUDA's reservations are not in /proc */
        EXPECT(taken >= 1024 * MIB && taken <= 1126 * MIB);
    move(engine, NVLX_OP_READ, peer, mine, middle, SIZE);
    EQUAL(0, wrong(engine, mine, SIZE, 9));
    end();
    child_end(&server);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"paths_work", paths_work},
        {"abstract_names_work", abstract_names_work},
        {"changes_are_told", changes_are_told},
        {"connecting_sees_what_was_before", connecting_sees_what_was_before},
        {"any_order_will_do", any_order_will_do},
        {"connecting_gives_up", connecting_gives_up},
        {"connecting_asks_once", connecting_asks_once},
        {"a_stopped_client_stops_nobody", a_stopped_client_stops_nobody},
        {"killed_servers_are_noticed", killed_servers_are_noticed},
        {"killed_clients_leave_nothing", killed_clients_leave_nothing},
        {"many_rounds_leave_nothing", many_rounds_leave_nothing},
        {"engines_end_with_all", engines_end_with_all},
        {"closing_waits_for_updates", closing_waits_for_updates},
        {"engines_can_follow_themselves", engines_can_follow_themselves},
        {"forked_children_are_refused", forked_children_are_refused},
        {"only_connected_peers_are_watched", only_connected_peers_are_watched},
        {"descriptors_name_the_address", descriptors_name_the_address},
        {"chunks_are_fetched", chunks_are_fetched},
        {"only_what_is_registered_takes_addresses", only_what_is_registered_takes_addresses},
        {0}};
    static const struct role roles[] = {OWNER_ROLE,
                                        {"follower", follower_role},
                                        {"visitor", visitor_role},
                                        {"chunks", chunks_role},
                                        {"large", large_role},
                                        {0}};
    return run_tests(argc, argv, tests, roles, 120);
}
