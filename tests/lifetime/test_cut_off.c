/* Connections that end before their peers have let go: the owner waits for these processes all the same.
 * SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "rendezvous/protocol.h"
#include "rendezvous_support.h"
#include "support.h"

#define SIZE     (64 * KIB)
#define PATH     108 /* bytes of an address */
#define SHORT_NS (20 * INT64_C(1000000))

/* ---- The reader: another process -------------------------------------------------------------------------- */

enum order { HOLD, LET_GO, IS_LOST, FOLLOWS, MAPPINGS, FORGET };

static int64_t await_loss(struct nvlx_peer *peer) {
    for (const double since = now_ms(); nvlx_peer_test(peer) == 0; usleep(1000))
        EXPECT(now_ms() - since < 10000);
    return 0;
}

/* Connected; the block is mapped. */
static void reader_role(int socket) {
    struct nvlx_engine *engine;
    struct nvlx_request *request = NULL;
    struct nvlx_config config;
    char address[PATH];
    enum order order;
    fill_config(&config);
    OK(nvlxi_engine_create(&config, &faulty_device, &engine));
    char *local = allocate(engine, second_gpu(), SIZE, 9);
    register_range(engine, local, SIZE, NULL, NVLX_ACCESS_NONE);
    get(socket, address, sizeof address);
    struct nvlx_peer *peer = connect_to(engine, address);
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, local, find(peer, "block"), SIZE);
    OK(nvlx_peer_map(peer, second_gpu(), op.remote, SIZE));
    put(socket, "c", 1);
    while (get_or_end(socket, &order, sizeof order)) {
        int64_t answer = 0;
        if (order == HOLD)
            atomic_store(&faults.hold, true);
        if (order == HOLD)
            answer = nvlx_transfer(engine, &op, 1, NULL, &request);
        else if (order == LET_GO)
            atomic_store(&faults.hold, false);
        else if (order == IS_LOST)
            answer = await_loss(peer);
        else if (order == FOLLOWS)
            answer = nvlx_peer_test(peer);
        else if (order == MAPPINGS)
            answer = (int64_t)engine_info(engine).mappings;
        else
            answer = nvlx_peer_close(peer);
        put(socket, &answer, sizeof answer);
    }
}

static int64_t tell(struct child *reader, enum order order) {
    int64_t answer;
    put(reader->socket, &order, sizeof order);
    get(reader->socket, &answer, sizeof answer);
    return answer;
}

static void start_reader(struct child *reader, const char *address) {
    char bytes[PATH] = "";
    snprintf(bytes, sizeof bytes, "%s", address);
    child_start(reader, "reader");
    put(reader->socket, bytes, sizeof bytes);
}

/* ---- The owner -------------------------------------------------------------------------------------------- */

static struct nvlx_engine *owner;
static char *memory, *others, address[PATH];
static struct nvlx_region *block;

static void begin(void) {
    owner = make_engine(0);
    memory = allocate(owner, 0, SIZE, 4);
    others = allocate(owner, 0, 64, 5);
    block = register_range(owner, memory, SIZE, "block", NVLX_ACCESS_READ);
    snprintf(address, sizeof address, "%s", own_path());
    OK(nvlx_serve(owner, address, NULL));
    atomic_store(&owner->rendezvous.times.stall_ns, SECOND_NS / 2);
}

/* So many changes that what tells them fills a socket. */
static void change_much(void) {
    char name[256];
    for (int i = 0; i < 6000; i++) {
        snprintf(name, sizeof name, "%0200d", i);
        register_range(owner, others, 64, name, NVLX_ACCESS_READ);
    }
}

/* A reader that stands still is cut off. It counts until it goes on, sees that, and closes what it maps; or dies. */
static void stalled_readers_are_awaited(void) {
    for (int dies = 0; dies < 2; dies++) {
        struct child reader;
        char words[64];
        begin();
        const struct possessions idle = possessions_of(getpid());
        start_reader(&reader, address);
        await_child(&reader);
        child_stop(&reader);
        change_much();
        for (int i = 0; i < 2; i++)
            usleep(600000);
        snprintf(words, sizeof words, "process %d, whose connection was ended", (int)reader.pid);
        REFUSED(nvlx_unregister(block, SHORT_NS), NVLX_ETIMEDOUT, words);
        if (dies)
            child_kill(&reader);
        else
            EQUAL(0, kill(reader.pid, SIGCONT));
        OK(nvlx_unregister(block, PATIENCE));
        if (!dies) {
            EQUAL(0, tell(&reader, MAPPINGS));
            EQUAL(0, tell(&reader, IS_LOST));
            child_end(&reader);
        }
        await_possessions(getpid(), idle);
        OK(nvlx_engine_destroy(owner));
    }
}

/* While its socket takes what is sent to it, one that is stopped misses nothing, however long: it goes on, and is still
 * told. */
static void the_stopped_may_go_on(void) {
    struct child reader;
    begin();
    start_reader(&reader, address);
    await_child(&reader);
    child_stop(&reader);
    for (int i = 0; i < 20; i++) { /* four times as long as is allowed, with changes */
        register_range(owner, others, 64, NULL, NVLX_ACCESS_READ);
        usleep(100000);
    }
    REFUSED(nvlx_unregister(block, 0), NVLX_ETIMEDOUT, "process");
    EXPECT(!strstr(nvlx_last_error(), "whose connection was ended"));
    EQUAL(0, kill(reader.pid, SIGCONT));
    OK(nvlx_unregister(block, PATIENCE));
    EQUAL(0, tell(&reader, MAPPINGS));
    EQUAL(0, tell(&reader, FOLLOWS));
    child_end(&reader);
    OK(nvlx_engine_destroy(owner));
}

/* ---- A server that is none ------------------------------------------------------------------------------- */

static bool has_ended(int socket) {
    char ignored[256];
    ssize_t count;
    do
        count = recv(socket, ignored, sizeof ignored, MSG_DONTWAIT);
    while (count > 0);
    return count == 0;
}

/* Greets a reader, and tells it of the owner's memory. */
static int serve_one(int listener) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    char *text;
    size_t length;
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    EQUAL(1, poll(&ready, 1, 10000));
    int socket = accept(listener, NULL, NULL);
    EXPECT(socket >= 0);
    OK(nvlx_export(owner, &text, &length));
    put(socket, bytes, nvlxi_protocol_put_welcome(bytes, owner->context.identity.engine));
    put(socket, bytes, nvlxi_protocol_put_text(bytes, length));
    put(socket, text, length);
    nvlx_text_free(text);
    return socket;
}

/* What it tells cannot be read, or it is gone. */
static void send_end(int socket, int way) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX] = {0};
    if (way == 0) {
        put(socket, bytes, nvlxi_protocol_put_changes(bytes, 5));
        put(socket, "[1,2]", 5);
    } else if (way == 1) {
        memset(bytes, 0xff, NVLXI_PROTOCOL_HEADER);
        put(socket, bytes, NVLXI_PROTOCOL_HEADER);
    } else {
        EQUAL(0, shutdown(socket, SHUT_WR));
    }
}

/* The reader ends the connection when nothing is in flight, and nothing mapped, any more: not before. */
static void who_ends_lets_go_first(void) {
    for (int way = 0; way < 3; way++)
        for (int forgets = 0; forgets < 2; forgets++) {
            struct child reader;
            owner = make_engine(0);
            memory = allocate(owner, 0, SIZE, 4);
            register_range(owner, memory, SIZE, "block", NVLX_ACCESS_READ);
            const int listener = raw_listen(own_name());
            start_reader(&reader, own_name());
            const int socket = serve_one(listener);
            await_child(&reader);
            EQUAL(0, tell(&reader, HOLD));
            send_end(socket, way);
            EQUAL(0, tell(&reader, IS_LOST));
            usleep(100000);
            EXPECT(!has_ended(socket));
            EQUAL(1, tell(&reader, MAPPINGS));
            EQUAL(0, tell(&reader, LET_GO));
            if (forgets)
                EQUAL(0, tell(&reader, FORGET));
            EXPECT(closes(socket, 10000));
            EQUAL(0, tell(&reader, MAPPINGS));
            child_end(&reader);
            close(socket);
            close(listener);
            OK(nvlx_engine_destroy(owner));
        }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"stalled_readers_are_awaited", stalled_readers_are_awaited},
                                        {"the_stopped_may_go_on", the_stopped_may_go_on},
                                        {"who_ends_lets_go_first", who_ends_lets_go_first},
                                        {NULL, NULL}};
    static const struct role roles[] = {{"reader", reader_role}, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
