/* Many at once: clients that map from one owner, with few file descriptors allowed; clients that ask and never take;
 * and an owner that goes on changing what it shares beside them. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "faulty_device.h"
#include "remote/peer.h"
#include "rendezvous/protocol.h"
#include "rendezvous_support.h"

#define NOBODY     65534
#define CHUNK      (2 * MIB)
#define CHUNKS_MAX 600

/* ---- An owner, and its clients: children of one user that is not root ------------------------------------ */

struct order { /* to each child, first */
    char address[64];
    uint32_t chunks, max_connections;
    uint32_t user; /* of the test, who may come in too */
    uint32_t
        files; /* not 0: that the owner may open when it serves; its mappers get its descriptor and do not follow */
};

/* Limits bind only who is not root. */
static void become_nobody(void) {
    const struct rlimit limit = {1024, 1024};
    EQUAL(0, setrlimit(RLIMIT_NOFILE, &limit));
    if (geteuid() == 0 && (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY)))
        FAIL("cannot become nobody: %s", strerror(errno));
    die_with_parent();         /* becoming somebody else has undone it */
    prctl(PR_SET_DUMPABLE, 1); /* and others may look at /proc no more */
}

static char *allocate_chunks(struct nvlx_engine *engine, size_t chunks) {
    struct nvlx_alloc_options options;
    void *made;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = CHUNK;
    OK(nvlx_alloc(engine, 0, chunks * CHUNK, &options, &made));
    return made;
}

/* From now on at most `count` more. */
static void limit_files(uint32_t count) {
    int lowest = dup(0);
    const struct rlimit limit = {(rlim_t)lowest + count, 1024};
    close(lowest);
    EQUAL(0, setrlimit(RLIMIT_NOFILE, &limit));
}

static void put_descriptor(int socket, struct nvlx_engine *engine) {
    char *text;
    size_t length;
    OK(nvlx_export(engine, &text, &length));
    put(socket, &length, sizeof length);
    put(socket, text, length);
    nvlx_text_free(text);
}

static struct nvlx_peer *get_peer(int socket, struct nvlx_engine *engine) {
    static char text[64 * KIB];
    struct nvlx_peer *peer;
    size_t length;
    get(socket, &length, sizeof length);
    EXPECT(length <= sizeof text);
    get(socket, text, length);
    OK(nvlx_peer_open(engine, text, length, &peer));
    return peer;
}

/* Serves chunks as "chunks", each beginning with its number, until it is told to end. */
static void owner_of_chunks_role(int socket) {
    struct order order;
    struct nvlx_serve_options options;
    get(socket, &order, sizeof order);
    become_nobody();
    struct nvlx_engine *owner = make_engine(0);
    char *chunks = allocate_chunks(owner, order.chunks);
    for (uint32_t i = 0; i < order.chunks; i++)
        OK(nvlx_memcpy(owner, chunks + i * CHUNK, &i, sizeof i));
    register_range(owner, chunks, order.chunks * CHUNK, "chunks", NVLX_ACCESS_READ);
    nvlx_serve_options_init(&options);
    options.max_connections = order.max_connections;
    options.users = &order.user;
    options.user_count = 1;
    OK(nvlx_serve(owner, order.address, &options));
    put(socket, &order, 1);
    if (order.files) {
        put_descriptor(socket, owner);
        limit_files(order.files);
        put(socket, &order, 1);
    }
    for (char may_open; get_or_end(socket, &may_open, 1);) {
        const struct rlimit limit = {may_open ? 1024 : 1, 1024}; /* with 0, poll fails */
        EQUAL(0, setrlimit(RLIMIT_NOFILE, &limit));
        put(socket, &may_open, 1);
    }
    OK(nvlx_engine_destroy(owner));
}

/* Connects, and maps all when it is told to; says so. */
static void mapper_role(int socket) {
    struct order order;
    struct nvlx_peer *peer;
    char mark;
    get(socket, &order, sizeof order);
    become_nobody();
    struct nvlx_engine *mapper = make_engine(0);
    char *mine = allocate(mapper, 0, 4 * KIB, 0);
    register_range(mapper, mine, 4 * KIB, NULL, NVLX_ACCESS_NONE);
    if (order.files)
        peer = get_peer(socket, mapper);
    else
        OK(nvlx_connect(mapper, order.address, PATIENCE, &peer));
    uint64_t chunks = find(peer, "chunks");
    put(socket, &mark, 1);
    while (get_or_end(socket, &mark, 1)) {
        uint32_t number, last = order.chunks - 1;
        move(mapper, NVLX_OP_READ, peer, mine, chunks + last * CHUNK, sizeof number);
        OK(nvlx_memcpy(mapper, &number, mine, sizeof number));
        EQUAL(last, number);
        put(socket, &mark, 1);
    }
    OK(nvlx_engine_destroy(mapper));
}

static struct order order;
static struct child owner, mappers[64];

static void start_owner(uint32_t chunks, uint32_t max_connections) {
    order = (struct order){.chunks = chunks, .max_connections = max_connections, .user = geteuid()};
    snprintf(order.address, sizeof order.address, "%s", own_name());
    child_start(&owner, "owner_of_chunks");
    put(owner.socket, &order, sizeof order);
    await_child(&owner);
}

static void start_mappers(size_t count) {
    for (size_t i = 0; i < count; i++) {
        child_start(&mappers[i], "mapper");
        put(mappers[i].socket, &order, sizeof order);
    }
    for (size_t i = 0; i < count; i++)
        await_child(&mappers[i]);
}

/* All at once. */
static void map_all(size_t count) {
    for (size_t i = 0; i < count; i++)
        put(mappers[i].socket, "m", 1);
    for (size_t i = 0; i < count; i++)
        await_child(&mappers[i]);
}

static void end_mappers(size_t count) {
    for (size_t i = 0; i < count; i++)
        child_end(&mappers[i]);
}

static void clients_map_at_the_same_time(void) {
    start_owner(CHUNKS_MAX, 0);
    start_mappers(16);
    map_all(16);
    end_mappers(16);
    child_end(&owner);
}

/* As many followers as there are places: mapping takes no place of its own. */
static void full_servers_let_map(void) {
    start_owner(40, 64);
    start_mappers(64);
    map_all(64);
    end_mappers(64);
    child_end(&owner);
}

/* An owner with few file descriptors lets in no more clients than it can give some to. */
static void owners_keep_some_to_give(void) {
    enum { MAPPERS = 16 };
    static char text[64 * KIB];
    size_t length;
    order = (struct order){.chunks = 40, .max_connections = MAPPERS, .user = geteuid(), .files = 5};
    snprintf(order.address, sizeof order.address, "%s", own_name());
    child_start(&owner, "owner_of_chunks");
    put(owner.socket, &order, sizeof order);
    await_child(&owner);
    get(owner.socket, &length, sizeof length);
    EXPECT(length <= sizeof text);
    get(owner.socket, text, length);
    await_child(&owner);
    for (size_t i = 0; i < MAPPERS; i++) {
        child_start(&mappers[i], "mapper");
        put(mappers[i].socket, &order, sizeof order);
        put(mappers[i].socket, &length, sizeof length);
        put(mappers[i].socket, text, length);
    }
    for (size_t i = 0; i < MAPPERS; i++)
        await_child(&mappers[i]);
    map_all(MAPPERS);
    end_mappers(MAPPERS);
    child_end(&owner);
}

static void let_owner_open(bool may_open) {
    char mark = may_open ? 1 : 0;
    put(owner.socket, &mark, 1);
    await_child(&owner);
}

static void who_may_open_none_waits(void) {
    start_owner(40, 0);
    start_mappers(4);
    let_owner_open(false);
    for (size_t i = 0; i < 4; i++)
        put(mappers[i].socket, "m", 1);
    sleep(1);
    let_owner_open(true);
    for (size_t i = 0; i < 4; i++)
        await_child(&mappers[i]);
    end_mappers(4);
    child_end(&owner);
}

/* ---- Clients that ask and never take --------------------------------------------------------------------- */

static void ask_and_never_take(int *sockets, size_t count, enum nvlxi_protocol_role role) {
    static struct nvlxi_protocol_file wanted[NVLXI_PROTOCOL_FILES_MAX];
    uint8_t bytes[NVLXI_PROTOCOL_ASK_MAX];
    struct nvlx_engine *engine = make_engine(0);
    struct nvlx_peer *peer = connect_to(engine, order.address);
    const struct nvlxi_peer_table *table = peer->table;
    for (size_t i = 0; i < NVLXI_PROTOCOL_FILES_MAX; i++)
        wanted[i] =
            (struct nvlxi_protocol_file){table->descriptor->segments[i].base, table->descriptor->segments[i].serial};
    for (size_t i = 0; i < count; i++) {
        sockets[i] = raw_connect(order.address);
        put(sockets[i], bytes, nvlxi_protocol_put_hello(bytes, role));
        size_t length = role == NVLXI_PROTOCOL_FETCHER
                            ? nvlxi_protocol_put_fetch(bytes, wanted, NVLXI_PROTOCOL_FILES_MAX)
                            : nvlxi_protocol_put_ask(bytes, 7, wanted, NVLXI_PROTOCOL_FILES_MAX);
        put(sockets[i], bytes, length);
        put(sockets[i], bytes, length);
    }
    OK(nvlx_engine_destroy(engine));
}

static void others_are_served_beside_the_greedy(void) {
    int greedy[32];
    start_owner(CHUNKS_MAX, 0);
    ask_and_never_take(greedy, 16, NVLXI_PROTOCOL_SUBSCRIBER);
    ask_and_never_take(greedy + 16, 16, NVLXI_PROTOCOL_FETCHER);
    start_mappers(16);
    double begin = now_ms();
    map_all(16);
    EXPECT(now_ms() - begin < 20000); /* before the greedy are dropped */
    end_mappers(16);
    for (size_t i = 0; i < COUNT(greedy); i++)
        close(greedy[i]);
    child_end(&owner);
}

/* ---- No descriptor may be under way ---------------------------------------------------------------------- */

/* Sends one descriptor; false if the user has as many under way as there may be. */
static bool send_one(int socket, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec what = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &what, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

/* Has as many descriptors under way as the user may, until it is told to end. */
static void hoarder_role(int socket) {
    int pairs[64][2];
    char mark;
    become_nobody();
    for (size_t i = 0; i < COUNT(pairs); i++) {
        EQUAL(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]));
        while (send_one(pairs[i][0], 0))
            continue;
        EXPECT(errno == ETOOMANYREFS || errno == EAGAIN);
    }
    EXPECT(errno == ETOOMANYREFS); /* how many were sent, others of the same user decide too */
    put(socket, &mark, 1);
    get_or_end(socket, &mark, 1);
}

static void who_may_send_none_waits(void) {
    struct child hoarder;
    start_owner(40, 0);
    start_mappers(4);
    child_start(&hoarder, "hoarder");
    await_child(&hoarder);
    for (size_t i = 0; i < 4; i++)
        put(mappers[i].socket, "m", 1);
    sleep(1);
    child_end(&hoarder);
    for (size_t i = 0; i < 4; i++)
        await_child(&mappers[i]);
    end_mappers(4);
    child_end(&owner);
}

/* ---- An owner that goes on changing ---------------------------------------------------------------------- */

#define NEIGHBOURS 6

/* Keeps "mine" on the second of three chunks, and registers and unregisters beside it: chunks join and part, and come
 * to grant writing, in ever other ways. */
static void neighbour_role(int socket) {
    char address[64];
    uint64_t random = 99;
    struct nvlx_region *regions[NEIGHBOURS] = {NULL};
    get(socket, address, sizeof address);
    struct nvlx_engine *neighbour = make_engine(0);
    char *chunks = allocate_chunks(neighbour, 3);
    fill(neighbour, chunks + CHUNK, CHUNK, 5);
    register_range(neighbour, chunks + CHUNK, CHUNK, "mine", NVLX_ACCESS_READ);
    OK(nvlx_serve(neighbour, address, NULL));
    put(socket, address, 1);
    for (;;) {
        struct nvlx_region **region = &regions[next_random(&random) % NEIGHBOURS];
        if (*region) {
            int code = nvlx_unregister(*region, 0);
            EXPECT(!code || code == NVLX_ETIMEDOUT); /* it is withdrawn in any case; who waits changes less often */
            *region = NULL;
        } else {
            size_t first = next_random(&random) % 3, length = (1 + next_random(&random) % (3 - first)) * CHUNK;
            *region = register_range(neighbour, chunks + first * CHUNK, length, NULL,
                                     1 + next_random(&random) % NVLX_ACCESS_READ_WRITE);
        }
        if (next_random(&random) % 64 == 0)
            usleep(next_random(&random) % 3000);
    }
}

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static atomic_bool over;
static atomic_ulong done, failed, mapped;
static atomic_int slowest_ms; /* submit */

static void note(int code) {
    if (code && !atomic_fetch_add(&failed, 1))
        printf("           the first of them: %d %s\n", code, nvlx_last_error());
}

static void *read_on(void *argument) {
    char *local = argument;
    uint64_t mine = find(peer, "mine");
    while (!atomic_load(&over)) {
        const struct nvlx_op op = make_op(NVLX_OP_READ, peer, local, mine + 100, 4 * KIB);
        struct nvlx_request *request;
        double begin = now_ms();
        int code = nvlx_transfer(engine, &op, 1, NULL, &request);
        if (now_ms() - begin > atomic_load(&slowest_ms))
            atomic_store(&slowest_ms, (int)(now_ms() - begin));
        note(code);
        if (!code)
            finish(request);
        atomic_fetch_add(&done, 1);
    }
    return NULL;
}

static void *map_on(void *argument) {
    (void)argument;
    uint64_t mine = find(peer, "mine");
    while (!atomic_load(&over)) {
        note(nvlx_peer_map(peer, second_gpu(), mine, CHUNK));
        atomic_fetch_add(&mapped, 1);
        usleep(100);
    }
    return NULL;
}

/* What is not withdrawn can be read all the time, however its neighbours come and go. */
static void read_beside_a_neighbour(void) {
    struct child neighbour;
    pthread_t threads[4];
    char *local = allocate(engine, 0, 4 * CHUNK, 1);
    register_range(engine, local, 4 * CHUNK, NULL, NVLX_ACCESS_NONE);
    child_start(&neighbour, "neighbour");
    say(&neighbour, own_name());
    await_child(&neighbour);
    peer = connect_to(engine, own_name());
    for (size_t i = 0; i < COUNT(threads); i++)
        EQUAL(0, pthread_create(&threads[i], NULL, i ? read_on : map_on, local + i * CHUNK));
    sleep(4);
    atomic_store(&over, true);
    for (size_t i = 0; i < COUNT(threads); i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    printf("           %lu transfers, the slowest submit took %d ms, and %lu calls of nvlx_peer_map; %lu failed\n",
           atomic_load(&done), atomic_load(&slowest_ms), atomic_load(&mapped), atomic_load(&failed));
    EQUAL(0, atomic_load(&failed));
    EQUAL(0, wrong(engine, local + CHUNK, 0, 5));
    OK(nvlx_peer_test(peer));
    OK(nvlx_engine_destroy(engine));
    child_kill(&neighbour);
}

static void neighbours_disturb_nobody(void) {
    engine = make_engine(0);
    read_beside_a_neighbour();
}

/* Mapping takes longer than the time to the next change. It ends even so. */
static void neighbours_starve_nobody(void) {
    engine = make_faulty_engine(0);
    atomic_store(&faults.map_delay_us, 50000);
    read_beside_a_neighbour();
    EXPECT(atomic_load(&done) > 20);
    EXPECT(atomic_load(&slowest_ms) < 8000); /* less than the library's patience */
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"clients_map_at_the_same_time", clients_map_at_the_same_time},
                                        {"full_servers_let_map", full_servers_let_map},
                                        {"others_are_served_beside_the_greedy", others_are_served_beside_the_greedy},
                                        {"owners_keep_some_to_give", owners_keep_some_to_give},
                                        {"who_may_open_none_waits", who_may_open_none_waits},
                                        {"who_may_send_none_waits", who_may_send_none_waits},
                                        {"neighbours_disturb_nobody", neighbours_disturb_nobody},
                                        {"neighbours_starve_nobody", neighbours_starve_nobody},
                                        {0}};
    static const struct role roles[] = {{"owner_of_chunks", owner_of_chunks_role},
                                        {"mapper", mapper_role},
                                        {"hoarder", hoarder_role},
                                        {"neighbour", neighbour_role},
                                        {0}};
    return run_tests(argc, argv, tests, roles, 120);
}
