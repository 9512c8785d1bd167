/* Many chunks that are mapped by one call, each alone: their owner exports the next ones while one is mapped, nobody
 * waits for the other's answer, and whatever goes wrong in the middle leaves nothing behind.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base.h"
#include "faulty_device.h"
#include "rendezvous/protocol.h"
#include "rendezvous_support.h"

#define CHUNK   (2 * MIB)
#define CHUNKS  40
#define READERS 4

/* ---- The owner: a child ----------------------------------------------------------------------------------- */

enum order_kind { COUNT_FILES, UNREGISTER };

struct order {
    enum order_kind kind;
    uint32_t chunk;
};

struct start {
    char address[64];
    int file_delay_us;
    bool joined; /* one region over all, else one a chunk */
};

static char *make_chunks(struct nvlx_engine *engine) {
    struct nvlx_alloc_options options;
    void *made;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = CHUNK;
    OK(nvlx_alloc(engine, 0, CHUNKS * CHUNK, &options, &made));
    for (uint32_t i = 0; i < CHUNKS; i++)
        OK(nvlx_memcpy(engine, (char *)made + i * CHUNK, &i, sizeof i));
    return made;
}

static void owner_of_lone_chunks_role(int socket) {
    static struct nvlx_region *regions[CHUNKS];
    struct start how;
    struct order order;
    get(socket, &how, sizeof how);
    struct nvlx_engine *engine = make_faulty_engine(0);
    char *chunks = make_chunks(engine);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        if (how.joined && i)
            break;
        regions[i] =
            register_range(engine, chunks + i * CHUNK, how.joined ? CHUNKS * CHUNK : CHUNK, name, NVLX_ACCESS_READ);
    }
    atomic_store(&faults.file_delay_us, how.file_delay_us);
    OK(nvlx_serve(engine, how.address, NULL));
    put(socket, "s", 1);
    while (get_or_end(socket, &order, sizeof order)) {
        int64_t answer = atomic_load(&faults.files);
        if (order.kind == UNREGISTER)
            answer = nvlx_unregister(regions[order.chunk], PATIENCE);
        put(socket, &answer, sizeof answer);
    }
    OK(nvlx_engine_destroy(engine));
}

static struct child owner;

static void start_owner(int file_delay_us, bool joined) {
    struct start how = {.file_delay_us = file_delay_us, .joined = joined};
    snprintf(how.address, sizeof how.address, "%s", own_name());
    child_start(&owner, "owner_of_lone_chunks");
    put(owner.socket, &how, sizeof how);
    await_child(&owner);
}

static void order_owner(enum order_kind kind, uint32_t chunk) {
    const struct order order = {kind, chunk};
    put(owner.socket, &order, sizeof order);
}

static int64_t owner_answers(void) {
    int64_t answer;
    get(owner.socket, &answer, sizeof answer);
    return answer;
}

static int64_t files_given(void) {
    order_owner(COUNT_FILES, 0);
    return owner_answers();
}

/* ---- Readers: threads of this process --------------------------------------------------------------------- */

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static uint32_t *local; /* a word for each chunk and reader */
static struct holdings idle;

static void begin(int file_delay_us, bool joined) {
    start_owner(file_delay_us, joined);
    engine = make_faulty_engine(0);
    local = (uint32_t *)(void *)allocate(engine, 0, READERS * CHUNKS * sizeof *local, 0);
    register_range(engine, local, READERS * CHUNKS * sizeof *local, NULL, NVLX_ACCESS_NONE);
    peer = connect_to(engine, own_name());
    idle = holdings();
}

static void end(void) {
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
    child_end(&owner);
}

/* Ops that read the first word of the chunks in some order. */
static void fill_ops(struct nvlx_op *ops, uint32_t reader, uint64_t dice, bool joined) {
    const uint64_t first = joined ? find(peer, "0") : 0;
    for (uint32_t i = 0; i < CHUNKS; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        ops[i] = make_op(NVLX_OP_READ, peer, local + reader * CHUNKS + i, joined ? first + i * CHUNK : find(peer, name),
                         sizeof *local);
    }
    for (uint32_t i = CHUNKS - 1; dice && i > 0; i--) {
        const uint32_t other = next_random(&dice) % (i + 1);
        const struct nvlx_op op = ops[i];
        ops[i] = ops[other];
        ops[other] = op;
    }
}

static void expect_words(uint32_t reader) {
    for (uint32_t i = 0; i < CHUNKS; i++) {
        uint32_t word;
        OK(nvlx_memcpy(engine, &word, local + reader * CHUNKS + i, sizeof word));
        EQUAL(i, word);
    }
}

struct reader {
    uint32_t number;
    uint64_t dice;
    struct nvlx_op ops[CHUNKS];
    int code;
    atomic_bool done;
    pthread_t thread;
};

static void *read_all(void *argument) {
    struct reader *reader = argument;
    struct nvlx_request *request;
    reader->code = nvlx_transfer(engine, reader->ops, CHUNKS, NULL, &request);
    if (!reader->code) {
        reader->code = nvlx_wait(request, PATIENCE);
        GIVES(reader->code, nvlx_request_free(request));
    }
    atomic_store(&reader->done, true);
    return NULL;
}

static void reader_start(struct reader *reader) {
    EQUAL(0, pthread_create(&reader->thread, NULL, read_all, reader));
}

static int reader_end(struct reader *reader) {
    EQUAL(0, pthread_join(reader->thread, NULL));
    return reader->code;
}

static void await_maps(long count) {
    for (int i = 0; atomic_load(&faults.maps) < count; i++) {
        EXPECT(i < 30000);
        usleep(1000);
    }
}

/* What was given and not taken may be closed a moment later. */
static void expect_files_closed(void) {
    for (int i = 0; i < 1000 && holdings().fds != idle.fds; i++)
        usleep(10000);
    EQUAL(idle.fds, holdings().fds);
}

/* ---- The tests -------------------------------------------------------------------------------------------- */

/* Both sleep in each of their parts: one after the other, it would take what both have slept. */
static void expect_overlap(bool ahead) {
    enum { DELAY_MS = 25 };
    struct reader reader = {.number = 0};
    begin(DELAY_MS * 1000, false);
    atomic_store(&faults.mapped_delay_us, DELAY_MS * 1000);
    atomic_store(&faults.maps, 0);
    fill_ops(reader.ops, 0, 0, false);
    const double began = now_ms();
    if (ahead)
        OK(nvlx_peer_map(peer, 0, find(peer, "0"), CHUNKS * CHUNK));
    else
        read_all(&reader);
    const double took = now_ms() - began;
    if (ahead)
        read_all(&reader);
    OK(reader.code);
    expect_words(0);
    EQUAL(CHUNKS, atomic_load(&faults.maps));
    EQUAL(CHUNKS, files_given());
    printf("%d chunks in %.0f ms\n", CHUNKS, took);
    EXPECT(took >= CHUNKS * DELAY_MS && took < 1.75 * CHUNKS * DELAY_MS);
    atomic_store(&faults.mapped_delay_us, 0);
    expect_files_closed();
    end();
}

static void owners_export_while_others_map(void) {
    expect_overlap(false);
}

/* By nvlx_peer_map of a range of many. */
static void owners_export_while_others_map_ahead(void) {
    expect_overlap(true);
}

/* Threads in different orders share what each opens: none waits for a thread that waits for it. */
static void threads_share_what_they_open(void) {
    begin(200, false);
    for (uint32_t round = 0; round < 10; round++) {
        struct reader readers[READERS] = {0};
        const int64_t given = files_given();
        OK(nvlx_peer_close(peer));
        peer = connect_to(engine, own_name());
        for (uint32_t i = 0; i < READERS; i++) {
            readers[i].number = i;
            fill_ops(readers[i].ops, i, 1 + round * READERS + i, false);
        }
        for (uint32_t i = 0; i < READERS; i++)
            reader_start(&readers[i]);
        for (uint32_t i = 0; i < READERS; i++) {
            OK(reader_end(&readers[i]));
            expect_words(i);
        }
        EQUAL(CHUNKS, engine_info(engine).mappings);
        EQUAL(CHUNKS, files_given() - given);
    }
    end();
}

/* Each call of the device fails once: those that were begun are given up, and the next call opens them. */
static void what_fails_is_opened_by_the_next_call(void) {
    static struct reader reader, waiting;
    begin(0, false);
    for (long at = 1;; at += 3) {
        atomic_store(&faults.paused, true);
        OK(nvlx_peer_close(peer));
        peer = connect_to(engine, own_name());
        fill_ops(reader.ops, 0, 0, false);
        fill_ops(waiting.ops, 1, 0, false);
        waiting.number = 1;
        atomic_store(&faults.calls, 0);
        atomic_store(&faults.fail_at, at);
        atomic_store(&faults.paused, false);
        reader_start(&reader);
        reader_start(&waiting);
        const int first = reader_end(&reader), second = reader_end(&waiting);
        const bool failed = atomic_load(&faults.calls) >= at;
        atomic_store(&faults.fail_at, 0);
        EXPECT(!first || first == NVLX_EDEVICE);
        EXPECT(!second || second == NVLX_EDEVICE);
        expect_files_closed();
        read_all(&reader);
        OK(reader.code);
        expect_words(0);
        EQUAL(CHUNKS, engine_info(engine).mappings);
        if (!failed)
            break;
    }
    end();
}

static void owners_may_die_in_the_middle(void) {
    static struct reader reader;
    for (int chunks = 1; chunks < CHUNKS; chunks += 12) {
        begin(2000, false);
        fill_ops(reader.ops, 0, 0, false);
        atomic_store(&faults.maps, 0);
        atomic_store(&faults.mapped_delay_us, 5000);
        reader_start(&reader);
        await_maps(chunks);
        child_kill(&owner);
        EQUAL((uint64_t)NVLX_ESTALE, (uint64_t)reader_end(&reader));
        atomic_store(&faults.mapped_delay_us, 0);
        expect_mappings(engine, 0);
        OK(nvlx_peer_close(peer));
        OK(nvlx_engine_destroy(engine));
    }
}

/* What is withdrawn while it is on its way: its owner knows when it was let go. Whether the call still reads it depends
 * on who comes first. */
static void what_is_withdrawn_is_let_go(void) {
    static struct reader reader;
    for (uint32_t ahead = 0; ahead < 32; ahead = ahead < 8 ? ahead + 2 : 2 * ahead) {
        begin(0, false);
        fill_ops(reader.ops, 0, 0, false);
        atomic_store(&faults.maps, 0);
        atomic_store(&faults.mapped_delay_us, 10000);
        reader_start(&reader);
        await_maps(10);
        order_owner(UNREGISTER, nvlxi_min(9 + ahead, CHUNKS - 1));
        EQUAL(0, owner_answers());
        const int code = reader_end(&reader);
        EXPECT(!code || code == NVLX_ERANGE);
        atomic_store(&faults.mapped_delay_us, 0);
        expect_files_closed();
        EXPECT(engine_info(engine).mappings < CHUNKS);
        end();
    }
}

/* From now on at most `count` more files. Returns what it was. */
static rlim_t limit_files(rlim_t count) {
    struct rlimit known;
    EQUAL(0, getrlimit(RLIMIT_NOFILE, &known));
    const rlim_t before = known.rlim_cur;
    known.rlim_cur = count;
    EQUAL(0, setrlimit(RLIMIT_NOFILE, &known));
    return before;
}

/* Few are on their way at a time, whether each is a request or all are one. */
static void few_files_are_enough(void) {
    enum { ENOUGH = 26 };
    for (int joined = 0; joined < 2; joined++) {
        static struct reader reader;
        begin(0, joined);
        fill_ops(reader.ops, 0, 0, joined);
        const int lowest = dup(0);
        close(lowest);
        atomic_store(&faults.mapped_delay_us, 3000);
        const rlim_t before = limit_files((rlim_t)lowest + ENOUGH);
        read_all(&reader);
        limit_files(before);
        atomic_store(&faults.mapped_delay_us, 0);
        OK(reader.code);
        expect_words(0);
        expect_files_closed();
        end();
    }
}

/* ---- What is asked before anything is answered ------------------------------------------------------------ */

/* A whole message goes from one end to the other. */
static void relay(int from, int to, bool from_server) {
    uint8_t head[NVLXI_PROTOCOL_HEADER];
    struct nvlxi_protocol_header header;
    get(from, head, sizeof head);
    OK(nvlxi_protocol_get_header(head, from_server, &header));
    char *body = malloc(header.length + 1);
    EXPECT(body != NULL);
    get(from, body, header.length);
    put(to, head, sizeof head);
    put(to, body, header.length);
    free(body);
}

/* How many files one ASK wants. */
static size_t take_ask(int socket) {
    static uint8_t bytes[NVLXI_PROTOCOL_ASK_MAX];
    static struct nvlxi_protocol_file wanted[NVLXI_PROTOCOL_FILES_MAX];
    struct nvlxi_protocol_header header;
    uint32_t request;
    size_t count;
    get(socket, bytes, NVLXI_PROTOCOL_HEADER);
    OK(nvlxi_protocol_get_header(bytes, false, &header));
    EQUAL(NVLXI_PROTOCOL_ASK, header.type);
    get(socket, bytes, header.length);
    OK(nvlxi_protocol_get_ask(bytes, header.length, &request, wanted, &count));
    return count;
}

struct asked {
    int listener;
    size_t files;
};

/* Stands before the owner, lets the client greet it, and answers no ASK. */
static void *listen_only(void *argument) {
    struct asked *asked = argument;
    const int client = accept(asked->listener, NULL, NULL), server = raw_connect(own_name());
    relay(client, server, false); /* HELLO */
    relay(server, client, true);  /* WELCOME */
    relay(server, client, true);  /* TEXT */
    struct pollfd more = {.fd = client, .events = POLLIN};
    asked->files = take_ask(client);
    while (poll(&more, 1, 500) > 0)
        asked->files += take_ask(client);
    close(server);
    close(client);
    return NULL;
}

static void followers_ask_ahead(void) {
    static struct reader reader;
    for (int joined = 0; joined < 2; joined++) {
        char address[80];
        struct asked asked;
        pthread_t thread;
        begin(0, joined);
        struct nvlx_peer *direct = peer;
        snprintf(address, sizeof address, "%s-before", own_name());
        asked.listener = raw_listen(address);
        EQUAL(0, pthread_create(&thread, NULL, listen_only, &asked));
        peer = connect_to(engine, address);
        fill_ops(reader.ops, 0, 0, joined);
        read_all(&reader);
        EQUAL((uint64_t)NVLX_ESTALE, (uint64_t)reader.code);
        EQUAL(0, pthread_join(thread, NULL));
        EQUAL(joined ? 24 : 9, asked.files);
        EQUAL(0, engine_info(engine).mappings);
        close(asked.listener);
        OK(nvlx_peer_close(direct));
        end();
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"owners_export_while_others_map", owners_export_while_others_map},
        {"owners_export_while_others_map_ahead", owners_export_while_others_map_ahead},
        {"threads_share_what_they_open", threads_share_what_they_open},
        {"what_fails_is_opened_by_the_next_call", what_fails_is_opened_by_the_next_call},
        {"owners_may_die_in_the_middle", owners_may_die_in_the_middle},
        {"what_is_withdrawn_is_let_go", what_is_withdrawn_is_let_go},
        {"few_files_are_enough", few_files_are_enough},
        {"followers_ask_ahead", followers_ask_ahead},
        {0}};
    static const struct role roles[] = {{"owner_of_lone_chunks", owner_of_lone_chunks_role}, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
