/* Lists that wait until a peer's bytes are ready: each ends, with the count or without, and says how. On the host
 * backend, with real processes. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faulty_device.h"
#include "host_stream.h"
#include "rendezvous_support.h"

enum { BYTES = 4096, BRIEF_US = 20000, STREAMS = 4 };

/* ---- A producer: a process with a region, and a count of how often it was ready ------------------------------- */

struct order {
    char what;     /* 'r': ready. 'u', 's': unregister, suspend the count; 'w': resume it. 'd': destroy the engine */
    uint32_t seed; /* of the bytes that are ready */
};

static void produce(struct stream *stream, uint8_t *bytes, struct nvlx_region *region, uint32_t seed) {
    static uint8_t next[BYTES];
    stream_end(stream);
    for (size_t i = 0; i < BYTES; i++)
        next[i] = seed_byte(seed, i);
    stream_is_slow(stream);
    stream_copy(stream, bytes, next, BYTES);
    OK(nvlx_region_ready(region, stream->lane));
}

static void obey(struct nvlx_engine **engine, struct stream *stream, uint8_t *bytes, struct nvlx_region *region,
                 struct nvlx_region *count, const struct order *order) {
    switch (order->what) {
    case 'r':
        produce(stream, bytes, region, order->seed);
        break;
    case 'u':
        OK(nvlx_unregister(count, PATIENCE));
        break;
    case 's':
        OK(nvlx_suspend(&count, 1, PATIENCE));
        break;
    case 'w':
        OK(nvlx_resume(&count, 1, NULL));
        break;
    case 'd':
        OK(nvlx_engine_destroy(*engine));
        *engine = NULL;
        break;
    default:
        FAIL("an order %c", order->what);
    }
}

static void producer_role(int socket) {
    char address[64];
    struct order order;
    struct nvlx_region_options options;
    struct nvlx_region *region, *count;
    struct stream stream;
    struct nvlx_engine *engine = make_engine(0);
    uint8_t *bytes = allocate(engine, 0, BYTES, 1);
    uint64_t *ready = allocate(engine, 0, BYTES, 1), none = 0;
    OK(nvlx_memcpy(engine, ready, &none, sizeof none));
    count = register_range(engine, ready, sizeof *ready, "w.ready", NVLX_ACCESS_READ);
    nvlx_region_options_init(&options);
    options.name = "w";
    options.access = NVLX_ACCESS_READ;
    options.ready = ready;
    OK(nvlx_register(engine, bytes, BYTES, &options, &region));
    open_stream(&stream);
    get(socket, address, sizeof address);
    OK(nvlx_serve(engine, address, NULL));
    put(socket, "", 1);
    while (get_or_end(socket, &order, sizeof order)) {
        obey(&engine, &stream, bytes, region, count, &order);
        put(socket, "", 1);
    }
    OK(nvlx_engine_destroy(engine));
    close_stream(&stream);
}

static struct child producer;

static void tell(char what, uint32_t seed) {
    const struct order order = {what, seed};
    put(producer.socket, &order, sizeof order);
}

static void order(char what, uint32_t seed) {
    tell(what, seed);
    await_child(&producer);
}

/* ---- A consumer: this process ------------------------------------------------------------------------------- */

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static uint64_t theirs, ready; /* the bytes and the count, in the producer */
static uint8_t *mine;          /* STREAMS times BYTES */
static struct stream streams[STREAMS];

static void connect_producer(void) {
    child_start(&producer, "producer");
    say(&producer, own_path());
    await_child(&producer);
    peer = connect_to(engine, own_path());
    theirs = find(peer, "w");
    ready = find(peer, "w.ready");
}

static void begin(void) {
    engine = make_faulty_engine(0);
    mine = allocate(engine, 0, STREAMS * BYTES, 0);
    register_range(engine, mine, STREAMS * BYTES, NULL, NVLX_ACCESS_NONE);
    for (size_t i = 0; i < STREAMS; i++)
        open_stream(&streams[i]);
    connect_producer();
}

static void end(void) {
    for (size_t i = 0; i < STREAMS; i++)
        close_stream(&streams[i]);
    OK(nvlx_engine_destroy(engine));
}

static struct nvlx_op wait_op(uint64_t count, uint64_t value) {
    return (struct nvlx_op){.opcode = NVLX_OP_WAIT_READY, .peer = peer, .remote = count, .arg = value};
}

static int try_read(size_t number, uint64_t value, struct nvlx_request **request) {
    struct nvlx_transfer_options options;
    const struct nvlx_op ops[] = {wait_op(ready, value),
                                  make_op(NVLX_OP_READ, peer, mine + number * BYTES, theirs, BYTES)};
    nvlx_transfer_options_init(&options);
    options.stream = streams[number].lane;
    return nvlx_transfer(engine, ops, COUNT(ops), &options, request);
}

/* Into the own bytes of this number, by the stream of this number, when the bytes were ready so often. */
static struct nvlx_request *read_when_ready(size_t number, uint64_t value) {
    struct nvlx_request *request;
    OK(try_read(number, value, &request));
    return request;
}

static void expect_waiting(struct nvlx_request *request) {
    usleep(BRIEF_US);
    GIVES(NVLX_EAGAIN, nvlx_test(request));
}

static void expect_bytes(size_t number, uint32_t seed) {
    EQUAL(0, wrong(engine, mine + number * BYTES, BYTES, seed));
}

static void expect_failed(struct nvlx_request *request, int code, const char *words) {
    REFUSED(nvlx_wait(request, PATIENCE), code, words);
    GIVES(code, nvlx_request_free(request));
}

/* ---- Tests ------------------------------------------------------------------------------------------------------ */

static void a_list_begins_when_the_bytes_are_ready(void) {
    begin();
    for (uint32_t round = 1; round <= 8; round++) {
        struct nvlx_request *early = read_when_ready(0, round);
        if (round < 4)
            expect_waiting(early);
        order('r', round);
        finish(early);
        expect_bytes(0, round);
        struct nvlx_request *late = read_when_ready(1, round);
        finish(late);
        expect_bytes(1, round);
    }
    child_end(&producer);
    end();
}

/* Several lists and streams for one count: it is only read. */
static void many_wait_for_one_count(void) {
    struct nvlx_request *requests[STREAMS];
    uint64_t count = 7;
    begin();
    for (size_t i = 0; i < STREAMS; i++)
        requests[i] = read_when_ready(i, 1 + i % 2);
    expect_waiting(requests[0]);
    order('r', 5);
    finish(requests[0]);
    finish(requests[2]);
    expect_waiting(requests[1]);
    GIVES(NVLX_EAGAIN, nvlx_test(requests[3]));
    order('r', 6);
    finish(requests[1]);
    finish(requests[3]);
    expect_bytes(2, 5);
    expect_bytes(3, 6);
    move(engine, NVLX_OP_READ, peer, mine, ready, sizeof count);
    OK(nvlx_memcpy(engine, &count, mine, sizeof count));
    EQUAL(2, count);
    child_end(&producer);
    end();
}

/* One that stands, one whose stream has not come to it, and one that is ready. */
static void no_list_waits_for_the_dead(void) {
    enum { DEATHS = 5 };
    begin();
    for (int i = 0; i < DEATHS; i++) {
        order('r', 3);
        stream_stands_still(&streams[1]);
        struct nvlx_request *standing = read_when_ready(0, 2), *behind = read_when_ready(1, 2);
        finish(read_when_ready(2, 1));
        expect_bytes(2, 3);
        child_kill(&producer);
        unlink(own_path());
        const double killed = now_ms();
        expect_failed(standing, NVLX_ESTALE, "gone");
        EXPECT(now_ms() - killed < 10000);
        GIVES(NVLX_EAGAIN, nvlx_test(behind));
        stream_goes_on(&streams[1]);
        expect_failed(behind, NVLX_ESTALE, "gone");
        stream_end(&streams[0]);
        struct nvlx_request *none;
        REFUSED(try_read(0, 2, &none), NVLX_ESTALE, "gone");
        OK(nvlx_peer_close(peer));
        expect_mappings(engine, 0);
        const struct nvlx_counts counts = engine_counts(engine);
        EXPECT(counts.failed == 2 * (uint64_t)i + 2 && counts.transfers == (uint64_t)i + 1 && counts.in_flight == 0);
        connect_producer();
    }
    child_end(&producer);
    end();
}

static void who_is_stopped_is_slow(void) {
    begin();
    struct nvlx_request *request = read_when_ready(0, 1);
    child_stop(&producer);
    usleep(300000);
    GIVES(NVLX_EAGAIN, nvlx_test(request));
    EXPECT(kill(producer.pid, SIGCONT) == 0);
    order('r', 9);
    finish(request);
    expect_bytes(0, 9);
    child_end(&producer);
    end();
}

static void the_count_is_withdrawn(void) {
    begin();
    struct nvlx_request *request = read_when_ready(0, 1);
    expect_waiting(request);
    tell('u', 0);
    expect_failed(request, NVLX_ESTALE, "withdrawn");
    await_child(&producer); /* it was not held up */
    child_end(&producer);
    end();
}

static void the_count_is_suspended(void) {
    struct nvlx_request *none;
    begin();
    struct nvlx_request *request = read_when_ready(0, 1);
    expect_waiting(request);
    tell('s', 0);
    expect_failed(request, NVLX_ESUSPENDED, "suspended");
    await_child(&producer);
    REFUSED(try_read(0, 1, &none), NVLX_ESUSPENDED, "suspended");
    order('w', 0);
    int code;
    while ((code = try_read(0, 1, &request)) == NVLX_ESUSPENDED)
        usleep(1000);
    OK(code);
    order('r', 8);
    finish(request);
    expect_bytes(0, 8);
    child_end(&producer);
    end();
}

static void the_producers_engine_is_destroyed(void) {
    begin();
    struct nvlx_request *request = read_when_ready(0, 1);
    expect_waiting(request);
    tell('d', 0);
    expect_failed(request, NVLX_ESTALE, "");
    await_child(&producer);
    child_end(&producer);
    end();
}

static void the_peer_is_closed(void) {
    begin();
    struct nvlx_request *request = read_when_ready(0, 1);
    expect_waiting(request);
    OK(nvlx_peer_close(peer));
    expect_failed(request, NVLX_ESTALE, "closed here");
    expect_mappings(engine, 0);
    child_end(&producer);
    end();
}

static void the_engine_is_destroyed(void) {
    begin();
    read_when_ready(0, 1);
    read_when_ready(1, 1);
    expect_waiting(read_when_ready(0, 2));
    OK(nvlx_engine_destroy(engine));
    for (size_t i = 0; i < STREAMS; i++)
        stream_end(&streams[i]);
    child_end(&producer);
    for (size_t i = 0; i < STREAMS; i++)
        close_stream(&streams[i]);
}

static void too_many_are_refused(void) {
    enum { MOST = 32 };
    struct nvlx_request *requests[MOST], *more;
    begin();
    for (size_t i = 0; i < MOST; i++)
        requests[i] = read_when_ready(i % STREAMS, 1);
    const double asked = now_ms();
    REFUSED(try_read(0, 1, &more), NVLX_EBUSY, "as many as may");
    EXPECT(now_ms() - asked < 5000);
    order('r', 2);
    for (size_t i = 0; i < MOST; i++)
        finish(requests[i]);
    int code;
    while ((code = try_read(0, 1, &more)) == NVLX_EBUSY)
        usleep(1000);
    OK(code);
    finish(more);
    child_end(&producer);
    end();
}

static void refuse(const struct nvlx_op *ops, size_t count, bool streamed, int code, const char *words) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.stream = streamed ? streams[0].lane : NULL;
    REFUSED(nvlx_transfer(engine, ops, count, &options, &request), code, words);
}

/* A list of two waits, for which one place is left: its first wait does not hold the stream. */
static void what_is_refused_leaves_no_wait(void) {
    enum { MOST = 31 };
    struct nvlx_request *requests[MOST], *request;
    struct nvlx_transfer_options options;
    begin();
    const struct nvlx_op ops[] = {wait_op(ready, 1), wait_op(ready, 1),
                                  make_op(NVLX_OP_READ, peer, mine, theirs, BYTES)};
    for (size_t i = 0; i < MOST; i++)
        requests[i] = read_when_ready(1, 1);
    refuse(ops, COUNT(ops), true, NVLX_EBUSY, "as many as may");
    nvlx_transfer_options_init(&options);
    options.stream = streams[0].lane;
    OK(nvlx_transfer(engine, &ops[2], 1, &options, &request));
    finish(request);
    order('r', 2);
    for (size_t i = 0; i < MOST; i++)
        finish(requests[i]);
    child_end(&producer);
    end();
}

/* Nobody tells when a peer from a text withdraws its count; a digest says nothing of when. */
static void wrong_company(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    begin();
    struct nvlx_op ops[] = {wait_op(ready, 1), make_op(NVLX_OP_READ, peer, mine, theirs, BYTES)};
    nvlx_transfer_options_init(&options);
    options.stream = streams[0].lane;
    options.flags = NVLX_VERIFY;
    REFUSED(nvlx_transfer(engine, ops, 2, &options, &request), NVLX_EINVAL, "waits for no count");
    struct nvlx_engine *other = make_engine(0);
    struct nvlx_region *region;
    char *counts = allocate(other, 0, MIB, 0);
    OK(nvlx_register(other, counts, MIB, NULL, &region));
    struct nvlx_peer *told = peer_of(engine, other);
    ops[0].peer = told;
    ops[0].remote = (uintptr_t)counts;
    refuse(ops, 2, true, NVLX_ENOTSUP, "made from a text");
    OK(nvlx_peer_close(told));
    OK(nvlx_engine_destroy(other));
    child_end(&producer);
    end();
}

/* A list with the own count behind its copies: what this process's streams may wait for. */
static void a_list_signals_at_home(void) {
    uint64_t count = 0;
    begin();
    order('r', 4);
    uint64_t *home = allocate(engine, 0, BYTES, 1);
    OK(nvlx_memcpy(engine, home, &count, sizeof count));
    struct nvlx_op ops[] = {make_op(NVLX_OP_READ, peer, mine, theirs, BYTES),
                            {.opcode = NVLX_OP_SIGNAL, .flags = NVLX_OP_ADD, .local = home, .arg = 3}};
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    REFUSED(nvlx_transfer(engine, ops, COUNT(ops), NULL, &request), NVLX_ERANGE, "not registered");
    struct nvlx_region *region = register_range(engine, home, sizeof *home, NULL, NVLX_ACCESS_NONE);
    finish(start(engine, ops, COUNT(ops)));
    finish(start(engine, ops + 1, 1));
    OK(nvlx_signal_read(engine, home, &count));
    EQUAL(6, count);
    REFUSED(nvlx_prepare(engine, ops, COUNT(ops), NULL, &prepared), NVLX_EINVAL, "prepared");
    faults.hold = true;
    request = start(engine, ops + 1, 1);
    REFUSED(nvlx_unregister(region, 0), NVLX_ETIMEDOUT, "transfer");
    faults.hold = false;
    finish(request);
    child_end(&producer);
    end();
}

static void wrong_lists(void) {
    struct nvlx_prepared *prepared;
    begin();
    const struct nvlx_op read = make_op(NVLX_OP_READ, peer, mine, theirs, BYTES);
    const struct nvlx_rows none = {.count = 0, .local_pitch = 8, .remote_pitch = 8};
    struct nvlx_op ops[10] = {wait_op(ready, 1), read};
    refuse(ops, 2, false, NVLX_EINVAL, "has a stream");
    refuse(ops, 1, true, NVLX_EINVAL, "at least one byte");
    ops[1].flags = NVLX_OP_ROWS;
    ops[1].arg = (uintptr_t)&none;
    refuse(ops, 2, true, NVLX_EINVAL, "at least one byte");
    ops[1] = read;
    REFUSED(nvlx_prepare(engine, ops, 2, NULL, &prepared), NVLX_EINVAL, "prepared");
    ops[0].flags = NVLX_OP_ROWS; /* whose arg is a count, and no address of rows */
    REFUSED(nvlx_prepare(engine, ops, 2, NULL, &prepared), NVLX_EINVAL, "flags 0x1");
    refuse(ops, 2, true, NVLX_EINVAL, "flags 0x1");
    ops[0].flags = 0;
    ops[0].remote += 4;
    refuse(ops, 2, true, NVLX_EINVAL, "multiple of 8");
    ops[0] = wait_op(ready + 8, 1);
    refuse(ops, 2, true, NVLX_ERANGE, "not in its registered regions");
    ops[0] = wait_op(ready, 1);
    ops[0].length = 8;
    refuse(ops, 2, true, NVLX_EINVAL, "has none");
    ops[0] = read;
    ops[1] = wait_op(ready, 1);
    refuse(ops, 2, true, NVLX_EINVAL, "waits come first");
    for (size_t i = 0; i < 9; i++)
        ops[i] = wait_op(ready, 1);
    ops[9] = read;
    refuse(ops, 10, true, NVLX_EINVAL, "8 counts at most");
    ops[1] = read;
    ops[2] = (struct nvlx_op){.opcode = NVLX_OP_SIGNAL, .peer = peer, .remote = ready, .arg = 1};
    refuse(ops, 3, true, NVLX_EINVAL, "does not signal");
    child_end(&producer);
    end();
}

static void wrong_regions(void) {
    struct nvlx_region_options options;
    struct nvlx_region *region, *plain;
    begin();
    plain = register_range(engine, mine, 8, NULL, NVLX_ACCESS_READ);
    nvlx_region_options_init(&options);
    options.ready = mine + 4;
    REFUSED(nvlx_register(engine, mine, 8, &options, &region), NVLX_EINVAL, "multiple of 8");
    options.ready = &options;
    OK(nvlx_register(engine, mine, 8, &options, &region));
    REFUSED(nvlx_region_ready(region, streams[0].lane), NVLX_ERANGE, "not registered");
    REFUSED(nvlx_region_ready(plain, streams[0].lane), NVLX_EINVAL, "without region_options.ready");
    REFUSED(nvlx_region_ready(region, NULL), NVLX_EINVAL, "stream is NULL");
    REFUSED(nvlx_region_ready(NULL, streams[0].lane), NVLX_EINVAL, "region is NULL");
    REFUSED(nvlx_region_ready(region, &options), NVLX_ENOTSUP, "stream");
    child_end(&producer);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_list_begins_when_the_bytes_are_ready", a_list_begins_when_the_bytes_are_ready},
        {"many_wait_for_one_count", many_wait_for_one_count},
        {"no_list_waits_for_the_dead", no_list_waits_for_the_dead},
        {"who_is_stopped_is_slow", who_is_stopped_is_slow},
        {"the_count_is_withdrawn", the_count_is_withdrawn},
        {"the_count_is_suspended", the_count_is_suspended},
        {"the_producers_engine_is_destroyed", the_producers_engine_is_destroyed},
        {"the_peer_is_closed", the_peer_is_closed},
        {"the_engine_is_destroyed", the_engine_is_destroyed},
        {"too_many_are_refused", too_many_are_refused},
        {"what_is_refused_leaves_no_wait", what_is_refused_leaves_no_wait},
        {"wrong_company", wrong_company},
        {"a_list_signals_at_home", a_list_signals_at_home},
        {"wrong_lists", wrong_lists},
        {"wrong_regions", wrong_regions},
        {0},
    };
    static const struct role roles[] = {{"producer", producer_role}, {0}};
    return run_tests(argc, argv, tests, roles, 90);
}
