/* Rows, and flat lists that are rows, wherever lists can be used: behind streams, with messages, over several peers,
 * prepared while memory sleeps. SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host_stream.h"
#include "rendezvous_support.h"
#include "sleep/sleep_support.h"

#define WIDTH 512
#define PAIRS (SIZE / (2 * WIDTH)) /* of rows: even ones, and odd ones */
#define FORMS 2
#define PATH  108

/* A list that moves SIZE bytes: two rectangles, or the ops that they are. */
struct list {
    struct nvlx_rows rows;
    struct nvlx_op ops[2 * PAIRS];
    size_t count;
};

static struct nvlx_op rectangle(struct nvlx_op op, const struct nvlx_rows *rows) {
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)rows;
    return op;
}

static void make_list(struct list *list, int form, uint32_t opcode, struct nvlx_peer *peer, char *local,
                      uint64_t remote) {
    list->rows = (struct nvlx_rows){PAIRS, 2 * WIDTH, 2 * WIDTH};
    list->count = 0;
    for (size_t odd = 0; odd < 2; odd++) {
        const size_t start = odd * WIDTH;
        if (form == 0)
            list->ops[list->count++] =
                rectangle(make_op(opcode, peer, local + start, remote + start, WIDTH), &list->rows);
        for (size_t row = 0; row < PAIRS && form == 1; row++)
            list->ops[list->count++] =
                make_op(opcode, peer, local + start + row * 2 * WIDTH, remote + start + row * 2 * WIDTH, WIDTH);
    }
}

static struct nvlx_transfer_options options_of(uint32_t mechanism) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    return options;
}

/* ---- Behind a stream ------------------------------------------------------------------------------------- */

/* A list waits for what is in the stream, and what comes later in it sees the list's bytes. */
static void wait_in_stream(struct stream *stream, struct nvlx_engine *engine, const struct list *list, char *local,
                           char *copy, uint32_t mechanism, bool post) {
    struct nvlx_transfer_options options = options_of(mechanism);
    struct nvlx_prepared *prepared = NULL;
    struct nvlx_request *request;
    fill(engine, local, SIZE, 3);
    if (post)
        OK(nvlx_prepare(engine, list->ops, list->count, &options, &prepared));
    stream_stands_still(stream);
    options = options_of(post ? NVLX_MECHANISM_DEFAULT : mechanism);
    options.stream = stream->lane;
    if (post)
        OK(nvlx_post(prepared, &options, &request));
    else
        OK(nvlx_transfer(engine, list->ops, list->count, &options, &request));
    stream_copy(stream, copy, local, SIZE);
    GIVES(NVLX_EAGAIN, nvlx_test(request));
    EQUAL(0, wrong(engine, local, SIZE, 3));
    stream_goes_on(stream);
    finish(request);
    stream_end(stream);
    EQUAL(0, wrong(engine, copy, SIZE, 5));
    if (prepared)
        OK(nvlx_prepared_free(prepared));
}

static void rows_keep_a_streams_order(void) {
    struct owner theirs;
    struct stream stream;
    struct nvlx_engine *engine = make_engine(0);
    char *local = allocate(engine, 0, SIZE, 3), *copy = allocate(engine, 0, SIZE, 4);
    register_range(engine, local, SIZE, NULL, NVLX_ACCESS_NONE);
    owner_start(&theirs);
    const uint64_t remote = owner_alloc(&theirs, 0, 0, SIZE, 5);
    owner_register(&theirs, 0, 0, 0, SIZE, NVLX_ACCESS_READ, "w");
    char *text = owner_export(&theirs);
    struct nvlx_peer *peer = open_peer(engine, text);
    free(text);
    open_stream(&stream);
    for (int form = 0; form < FORMS; form++) {
        struct list list;
        make_list(&list, form, NVLX_OP_READ, peer, local, remote);
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++)
            for (int post = 0; post < 2; post++)
                wait_in_stream(&stream, engine, &list, local, copy, mechanism, post);
    }
    close_stream(&stream);
    OK(nvlx_engine_destroy(engine));
    owner_end(&theirs);
}

/* ---- With messages --------------------------------------------------------------------------------------- */

static void await_message(struct nvlx_engine *engine, uint32_t number) {
    struct pollfd ready = {.events = POLLIN};
    struct nvlx_event event = {.size = sizeof event};
    OK(nvlx_event_fd(engine, &ready.fd));
    for (int code; (code = nvlx_next_event(engine, &event)) || event.kind != NVLX_EVENT_MESSAGE;)
        if (code)
            EXPECT(poll(&ready, 1, 30000) == 1);
    EQUAL(sizeof number, event.message_length);
    EXPECT(memcmp(event.message, &number, sizeof number) == 0);
}

/* All rows are there when their message is. */
static void write_and_tell(struct nvlx_engine *engine, const struct list *list, char *local, uint32_t mechanism,
                           uint32_t number) {
    struct nvlx_transfer_options options = options_of(mechanism);
    struct nvlx_request *request;
    fill(engine, local, SIZE, number);
    options.message = &number;
    options.message_length = sizeof number;
    OK(nvlx_transfer(engine, list->ops, list->count, &options, &request));
    await_message(owner, number);
    EQUAL(0, wrong(owner, rest, SIZE, number));
    finish(request);
}

static void messages_come_after_rows(void) {
    begin();
    register_range(owner, rest, SIZE, "inbox", NVLX_ACCESS_WRITE);
    struct nvlx_engine *engine = make_engine(0);
    char *local = allocate(engine, 0, SIZE, 0);
    register_range(engine, local, SIZE, NULL, NVLX_ACCESS_NONE);
    struct nvlx_peer *peer = connect_to(engine, own_path());
    for (uint32_t i = 0; i < 60; i++) {
        struct list list;
        make_list(&list, (int)(i % FORMS), NVLX_OP_WRITE, peer, local, find(peer, "inbox"));
        write_and_tell(engine, &list, local, NVLX_MECHANISM_AUTO + i / FORMS % 3, 100 + i);
    }
    OK(nvlx_engine_destroy(engine));
    end();
}

/* ---- Prepared, of memory that sleeps --------------------------------------------------------------------- */

/* A reader in another process: prepares the list of a form, or posts it, and says what came of it. */
struct order {
    int form; /* -1: post what is prepared */
    uint32_t seed;
    uint64_t generation;
};

static int64_t obey(struct nvlx_engine *engine, struct nvlx_peer *peer, char *local, const struct order *order) {
    static struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    struct list list;
    int code = order->generation ? nvlx_peer_sync(peer, order->generation, PATIENCE) : 0;
    if (order->form >= 0) {
        if (prepared)
            OK(nvlx_prepared_free(prepared));
        make_list(&list, order->form, NVLX_OP_READ, peer, local, find(peer, "weights"));
        code = nvlx_prepare(engine, list.ops, list.count, NULL, &prepared);
        memset(&list, 0xff, sizeof list); /* has been read */
        return code;
    }
    if (code || (code = nvlx_post(prepared, NULL, &request)))
        return code;
    finish(request);
    return (int64_t)wrong(engine, local, SIZE, order->seed);
}

static void reader_role(int socket) {
    struct order order;
    char path[PATH];
    struct nvlx_engine *engine = make_engine(0);
    char *local = allocate(engine, second_gpu(), SIZE, 9);
    register_range(engine, local, SIZE, NULL, NVLX_ACCESS_NONE);
    get(socket, path, sizeof path);
    struct nvlx_peer *peer = connect_to(engine, path);
    while (get_or_end(socket, &order, sizeof order)) {
        const int64_t answer = obey(engine, peer, local, &order);
        put(socket, &answer, sizeof answer);
    }
}

static int64_t tell(struct child *reader, int form, uint32_t seed, uint64_t generation) {
    const struct order order = {form, seed, generation};
    int64_t answer;
    put(reader->socket, &order, sizeof order);
    get(reader->socket, &answer, sizeof answer);
    return answer;
}

static void prepared_rows_wake_again(void) {
    struct child reader;
    char path[PATH] = "";
    begin();
    snprintf(path, sizeof path, "%s", own_path());
    child_start(&reader, "reader");
    put(reader.socket, path, sizeof path);
    for (uint32_t round = 0; round < 8; round++) {
        EQUAL(0, tell(&reader, (int)round % FORMS, 0, 0));
        EQUAL(0, tell(&reader, -1, 1 + round, 0));
        OK(nvlx_suspend(&weights, 1, PATIENCE));
        EQUAL(NVLX_ESUSPENDED, tell(&reader, -1, 0, 0));
        replace_chunks(2 + round);
        EQUAL(NVLX_ESUSPENDED, tell(&reader, -1, 0, 0));
        OK(nvlx_resume(&weights, 1, NULL));
        EQUAL(0, tell(&reader, -1, 2 + round, published()));
    }
    child_end(&reader);
    end();
}

/* ---- Several peers --------------------------------------------------------------------------------------- */

#define PEERS 3

/* Lists of several peers in one: one after the other, or op by op in turn. */
static size_t mix(const struct list lists[PEERS], bool in_turn, struct nvlx_op *ops) {
    size_t count = 0;
    for (size_t i = 0; i < PEERS * lists->count; i++) {
        const size_t list = in_turn ? i % PEERS : i / lists->count, op = in_turn ? i / PEERS : i % lists->count;
        ops[count++] = lists[list].ops[op];
    }
    return count;
}

static void transfer_mixed(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count, uint32_t mechanism,
                           char *const local[PEERS]) {
    const struct nvlx_transfer_options options = options_of(mechanism);
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_request *request;
    for (uint32_t i = 0; i < PEERS; i++)
        fill(engine, local[i], SIZE, 99);
    OK(nvlx_transfer(engine, ops, count, &options, &request));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(PEERS * SIZE, info.bytes);
    EQUAL(count, info.ops);
    finish(request);
    for (uint32_t i = 0; i < PEERS; i++)
        EQUAL(0, wrong(engine, local[i], SIZE, 10 + i));
}

static void rows_of_several_peers(void) {
    static struct list lists[PEERS];
    static struct nvlx_op ops[PEERS * 2 * PAIRS];
    struct owner owners[PEERS];
    struct nvlx_peer *peers[PEERS];
    struct nvlx_request *request;
    uint64_t remote[PEERS];
    char *local[PEERS];
    size_t count = 0;
    struct nvlx_engine *engine = make_engine(0);
    for (uint32_t i = 0; i < PEERS; i++) {
        local[i] = allocate(engine, 0, SIZE, 0);
        register_range(engine, local[i], SIZE, NULL, NVLX_ACCESS_NONE);
        owner_start(&owners[i]);
        remote[i] = owner_alloc(&owners[i], 0, i % 2 ? second_gpu() : 0, SIZE, 10 + i);
        owner_register(&owners[i], 0, 0, 0, SIZE, NVLX_ACCESS_READ, "w");
        char *text = owner_export(&owners[i]);
        peers[i] = open_peer(engine, text);
        free(text);
    }
    for (int way = 0; way < 2 * FORMS; way++) {
        for (uint32_t i = 0; i < PEERS; i++)
            make_list(&lists[i], way / 2, NVLX_OP_READ, peers[i], local[i], remote[i]);
        count = mix(lists, way % 2, ops);
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++)
            transfer_mixed(engine, ops, count, mechanism, local);
    }
    ops[1].remote += SIZE;
    REFUSED(nvlx_transfer(engine, ops, count, NULL, &request), NVLX_ERANGE, "op 1: the peer's range");
    OK(nvlx_engine_destroy(engine));
    for (uint32_t i = 0; i < PEERS; i++)
        owner_end(&owners[i]);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"rows_keep_a_streams_order", rows_keep_a_streams_order},
                                        {"messages_come_after_rows", messages_come_after_rows},
                                        {"prepared_rows_wake_again", prepared_rows_wake_again},
                                        {"rows_of_several_peers", rows_of_several_peers},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {"reader", reader_role}, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
