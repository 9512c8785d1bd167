/* Signals in lists: what they do to a peer's counts, when they come, and what is refused. On the host backend.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "faulty_device.h"
#include "host_stream.h"

#define SIZE   (4 * MIB)
#define COUNTS (64 * KIB) /* where counts begin, in the owner's buffers, which are copied to up to there */

static struct bench bench;

static void begin(void) {
    struct nvlx_region *mine[2];
    bench_begin(&bench, make_faulty_engine(0), SIZE);
    bench_register(&bench, SIZE, mine);
}

static void end(void) {
    bench_end(&bench);
}

static struct nvlx_op signal_op(uint32_t flags, uint64_t address, uint64_t value) {
    return (struct nvlx_op){
        .opcode = NVLX_OP_SIGNAL, .flags = flags, .peer = bench.peer, .remote = address, .arg = value};
}

static uint64_t count_of(uint32_t buffer, size_t offset) {
    uint64_t count;
    owner_read(&bench.owner, buffer, offset, &count, sizeof count);
    return count;
}

static void run(const struct nvlx_op *ops, size_t count, void *stream) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    OK(nvlx_transfer(bench.engine, ops, count, &options, &request));
    finish(request);
}

static void signals_set_and_add(void) {
    begin();
    const uint64_t near = bench.remote[0] + COUNTS, far = bench.remote[1] + COUNTS;
    const uint64_t before = count_of(0, COUNTS + 16);
    const struct nvlx_op ops[] = {signal_op(0, near, 5),
                                  bench_op(&bench, NVLX_OP_WRITE, 0, 0, 0, 1000),
                                  signal_op(NVLX_OP_ADD, near, 7),
                                  signal_op(0, near + 8, UINT64_MAX),
                                  bench_op(&bench, NVLX_OP_READ, 1, 0, 0, 1000),
                                  signal_op(NVLX_OP_ADD, near + 16, UINT64_MAX),
                                  signal_op(0, far, 9)};
    run(ops, COUNT(ops), NULL);
    EQUAL(12, count_of(0, COUNTS));
    EQUAL(UINT64_MAX, count_of(0, COUNTS + 8));
    EQUAL(before - 1, count_of(0, COUNTS + 16));
    EQUAL(9, count_of(1, COUNTS));
    EQUAL(0, owner_wrong(&bench.owner, 0, 0, 1000, 11));
    end();
}

static void signals_go_alone(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    const struct nvlx_op ops[] = {signal_op(0, bench.remote[0] + COUNTS, 1), signal_op(0, bench.remote[1] + COUNTS, 2)};
    run(ops, 2, NULL);
    EQUAL(1, count_of(0, COUNTS));
    EQUAL(2, count_of(1, COUNTS));
    const struct nvlx_op again = signal_op(NVLX_OP_ADD, bench.remote[0] + COUNTS, 4);
    run(&again, 1, stream.lane);
    EQUAL(5, count_of(0, COUNTS));
    close_stream(&stream);
    end();
}

/* In the order of a stream that stands still nothing is signalled; then what is in the stream comes first. */
static void signals_keep_to_the_stream(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct stream stream;
    begin();
    open_stream(&stream);
    const struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_WRITE, 0, 0, 0, 5000),
                                  bench_op(&bench, NVLX_OP_WRITE, 1, 0, 0, 5000),
                                  signal_op(0, bench.remote[0] + COUNTS, 1)};
    run(&ops[2], 1, NULL);
    nvlx_transfer_options_init(&options);
    options.stream = stream.lane;
    for (uint64_t round = 2; round < 20; round++) {
        struct nvlx_op list[] = {ops[0], ops[1], ops[2]};
        list[2].arg = round;
        stream_stands_still(&stream);
        OK(nvlx_transfer(bench.engine, round % 2 ? list : list + 2, round % 2 ? 3 : 1, &options, &request));
        usleep(2000);
        EQUAL(round - 1, count_of(0, COUNTS));
        stream_goes_on(&stream);
        finish(request);
        EQUAL(round, count_of(0, COUNTS));
    }
    close_stream(&stream);
    end();
}

static void prepared_lists_signal_with_each_post(void) {
    begin();
    const struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_WRITE, 0, 0, 0, 5000),
                                  signal_op(0, bench.remote[1] + COUNTS, 100),
                                  signal_op(NVLX_OP_ADD, bench.remote[0] + COUNTS, 1)};
    run(&(struct nvlx_op){.opcode = NVLX_OP_SIGNAL, .peer = bench.peer, .remote = bench.remote[0] + COUNTS}, 1, NULL);
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, COUNT(ops));
    for (uint64_t posts = 1; posts <= 50; posts++) {
        finish(bench_post(prepared));
        EQUAL(posts, count_of(0, COUNTS));
    }
    EQUAL(100, count_of(1, COUNTS));
    OK(nvlx_prepared_free(prepared));
    end();
}

/* ---- After all bytes ------------------------------------------------------------------------------------ */

struct watcher { /* a stream of the receiver's that waits for a count, and copies at once what has come */
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct stream stream;
    char *memory, *seen;
};

static void watcher_begin(struct watcher *watcher) {
    const uint64_t zero = 0;
    watcher->engine = make_engine(0);
    watcher->memory = allocate(watcher->engine, 0, SIZE, 77);
    watcher->seen = malloc(SIZE);
    EXPECT(watcher->seen != NULL);
    register_range(watcher->engine, watcher->memory, SIZE, "w", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_memcpy(watcher->engine, watcher->memory, &zero, sizeof zero));
    watcher->peer = peer_of(bench.engine, watcher->engine);
    open_stream(&watcher->stream);
}

static void watcher_end(struct watcher *watcher) {
    close_stream(&watcher->stream);
    OK(nvlx_peer_close(watcher->peer));
    OK(nvlx_engine_destroy(watcher->engine));
    free(watcher->seen);
}

/* Lists of every shape: for one lane or several, engines, kernels, both GPUs here, with and without a stream. */
static size_t make_list(struct watcher *watcher, uint64_t round, struct nvlx_op *ops) {
    static const size_t counts[] = {1, 3, 40, 200}, lengths[] = {100, 3000, 9000};
    const size_t count = counts[round % COUNT(counts)];
    const size_t length = count == 1 && round % 3 ? 2 * MIB : lengths[round % COUNT(lengths)];
    for (size_t i = 0; i < count; i++) {
        ops[i] = make_op(NVLX_OP_WRITE, watcher->peer, bench.local[(round + i) % 5 == 0] + i * length,
                         (uintptr_t)watcher->memory + 64 + i * length, length);
    }
    ops[count] = (struct nvlx_op){.opcode = NVLX_OP_SIGNAL,
                                  .flags = round % 2 ? NVLX_OP_ADD : 0,
                                  .peer = watcher->peer,
                                  .remote = (uintptr_t)watcher->memory,
                                  .arg = round % 2 ? 1 : round};
    if (round % 7 == 0) { /* it may stand anywhere */
        const struct nvlx_op signal = ops[count];
        ops[count] = ops[0];
        ops[0] = signal;
    }
    return count + 1;
}

static void fill_sources(uint64_t round) {
    for (int i = 0; i < 2; i++)
        fill(bench.engine, bench.local[i], SIZE, (uint32_t)(round * 2 + i));
}

static void check_seen(const struct watcher *watcher, const struct nvlx_op *ops, size_t count, uint64_t round) {
    for (size_t i = 0; i < count; i++) {
        const size_t to = ops[i].remote - (uintptr_t)watcher->memory;
        const int buffer = (char *)ops[i].local >= bench.local[1] && (char *)ops[i].local < bench.local[1] + SIZE;
        const size_t from = (size_t)((char *)ops[i].local - bench.local[buffer]);
        for (size_t k = 0; k < ops[i].length; k += 7)
            EQUAL(seed_byte((uint32_t)(round * 2) + (uint32_t)buffer, from + k), (uint8_t)watcher->seen[to + k]);
    }
}

static void signals_come_after_all_bytes(void) {
    struct watcher watcher;
    struct stream stream;
    struct nvlx_op ops[256];
    begin();
    open_stream(&stream);
    watcher_begin(&watcher);
    for (uint64_t round = 1; round <= (sanitized() ? 12 : 120); round++) {
        struct nvlx_transfer_options options;
        struct nvlx_request *request;
        nvlx_transfer_options_init(&options);
        options.stream = round % 3 == 0 ? stream.lane : NULL;
        options.mechanism = round % 5 == 0 ? NVLX_MECHANISM_COPY_ENGINE : NVLX_MECHANISM_AUTO;
        const size_t count = make_list(&watcher, round, ops);
        fill_sources(round);
        OK(nvlxi_device_host.await(watcher.stream.lane, (uintptr_t)watcher.memory, round));
        stream_copy(&watcher.stream, watcher.seen + 64, watcher.memory + 64, SIZE - 64);
        OK(nvlx_transfer(bench.engine, ops, count, &options, &request));
        stream_end(&watcher.stream);
        check_seen(&watcher, ops, count, round);
        finish(request);
    }
    watcher_end(&watcher);
    close_stream(&stream);
    end();
}

/* ---- What is refused, or fails -------------------------------------------------------------------------- */

static void refuse(const struct nvlx_op *op, int code, const char *words) {
    const struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_WRITE, 0, 0, 0, 1000), *op};
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    REFUSED(nvlx_transfer(bench.engine, ops, 2, NULL, &request), code, words);
    REFUSED(nvlx_prepare(bench.engine, ops, 2, NULL, &prepared), code, words);
    EQUAL(0, engine_info(bench.engine).requests);
}

/* Ops behind a signal are checked as all others are. */
static void a_list_goes_on_behind_a_signal(void) {
    struct nvlx_request *request;
    begin();
    struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_WRITE, 0, 0, 0, 1000), signal_op(0, bench.remote[0] + COUNTS, 0),
                            bench_op(&bench, NVLX_OP_WRITE, 0, 0, 2000, 1000),
                            signal_op(0, bench.remote[0] + COUNTS, 0),
                            bench_op(&bench, NVLX_OP_WRITE, 0, 0, 4000, 1000)};
    for (size_t bad = 2; bad < COUNT(ops); bad += 2) {
        const uint64_t good = ops[bad].remote;
        finish(start(bench.engine, ops, COUNT(ops)));
        ops[bad].remote = bench.remote[0] + (UINT64_C(1) << 40);
        REFUSED(nvlx_transfer(bench.engine, ops, COUNT(ops), NULL, &request), NVLX_ERANGE, "the peer's range");
        ops[bad].remote = good;
    }
    end();
}

static void what_is_no_signal_is_refused(void) {
    begin();
    owner_register(&bench.owner, 2, 0, 0, 0, NVLX_ACCESS_READ_WRITE, "empty");
    owner_alloc(&bench.owner, 3, 0, KIB, 3);
    owner_register(&bench.owner, 3, 3, 0, KIB, NVLX_ACCESS_READ, "locked");
    bench_open_peer(&bench);
    const struct nvlx_op good = signal_op(0, bench.remote[0] + COUNTS, 1);
    struct nvlx_op bad = good;
    bad.remote += 4;
    refuse(&bad, NVLX_EINVAL, "op 1: a count at");
    bad = good;
    bad.length = 8;
    refuse(&bad, NVLX_EINVAL, "op 1: local");
    bad = good;
    bad.local = bench.local[0];
    refuse(&bad, NVLX_EINVAL, "op 1: local");
    bad = good;
    bad.flags = NVLX_OP_ROWS;
    refuse(&bad, NVLX_EINVAL, "op 1: flags 0x1");
    bad.flags = 4;
    refuse(&bad, NVLX_EINVAL, "op 1: flags 0x4");
    bad = good;
    bad.opcode = 5;
    refuse(&bad, NVLX_EINVAL, "op 1: opcode 5");
    bad = good;
    bad.remote = bench.remote[0] + SIZE;
    refuse(&bad, NVLX_ERANGE, "op 1: the peer's range");
    bad.remote = find(bench.peer, "locked");
    refuse(&bad, NVLX_EACCES, "op 1: the peer's region");
    bad = good;
    bad.peer = NULL;
    refuse(&bad, NVLX_EINVAL, "op 1: peer");
    end();
}

static void a_transfer_that_fails_signals_nothing(void) {
    begin();
    const struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_WRITE, 0, 0, 0, 1000),
                                  signal_op(0, bench.remote[0] + COUNTS, 1)};
    const uint64_t before = count_of(0, COUNTS);
    struct nvlx_request *request;
    atomic_store(&faults.copies, 1);
    OK(nvlx_transfer(bench.engine, ops, 2, NULL, &request));
    GIVES(NVLX_EDEVICE, nvlx_wait(request, PATIENCE));
    atomic_store(&faults.copies, 0);
    GIVES(NVLX_EDEVICE, nvlx_request_free(request));
    usleep(2000);
    EQUAL(before, count_of(0, COUNTS));
    run(ops, 2, NULL);
    EQUAL(1, count_of(0, COUNTS));
    end();
}

/* A signal that waits for a stream uses the peer, and own memory where the peer is this process. */
static void a_signal_in_flight_is_a_use(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct stream stream;
    struct nvlx_peer *self;
    begin();
    open_stream(&stream);
    char *counts = allocate(bench.engine, 0, KIB, 1);
    struct nvlx_region *region = register_range(bench.engine, counts, KIB, NULL, NVLX_ACCESS_READ_WRITE);
    self = peer_of(bench.engine, bench.engine);
    nvlx_transfer_options_init(&options);
    options.stream = stream.lane;
    stream_stands_still(&stream);
    const struct nvlx_op op = {.opcode = NVLX_OP_SIGNAL, .peer = self, .remote = (uintptr_t)counts + 8, .arg = 1};
    OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
    REFUSED(nvlx_free(bench.engine, counts), NVLX_EBUSY, "a transfer in flight");
    REFUSED(nvlx_unregister(region, 0), NVLX_ETIMEDOUT, "an own transfer");
    stream_goes_on(&stream);
    OK(nvlx_unregister(region, PATIENCE));
    finish(request);
    OK(nvlx_peer_close(self));
    OK(nvlx_free(bench.engine, counts));
    close_stream(&stream);
    end();
}

/* One that has ended is not in flight, though nobody has looked; one that is refused is counted, too. */
/* Whether the engine's text for Prometheus has these words. */
static bool text_has(const char *words) {
    size_t length;
    OK(nvlx_stats_prometheus(bench.engine, NULL, 0, &length));
    char *text = malloc(length);
    EXPECT(text != NULL);
    OK(nvlx_stats_prometheus(bench.engine, text, length, &length));
    const bool has = strstr(text, words) != NULL;
    free(text);
    return has;
}

static void what_streams_signal_is_counted(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    const uint64_t near = bench.remote[0] + COUNTS;
    stream_stands_still(&stream);
    OK(nvlx_stream_signal(bench.engine, stream.lane, bench.peer, near, 1, 0));
    EXPECT(text_has("\nnvlxfer_requests_in_flight 1\n"));
    EQUAL(1, engine_counts(bench.engine).in_flight);
    stream_goes_on(&stream);
    stream_end(&stream);
    for (double since = now_ms(); !text_has("\nnvlxfer_requests_in_flight 0\n") && now_ms() - since < 5000;)
        usleep(1000);
    struct nvlx_counts counts = engine_counts(bench.engine);
    EXPECT(counts.in_flight == 0 && counts.transfers == 1 && counts.refused == 0);
    GIVES(NVLX_EINVAL, nvlx_stream_signal(bench.engine, stream.lane, bench.peer, near + 1, 1, 0));
    GIVES(NVLX_EINVAL, nvlx_stream_signal(bench.engine, NULL, bench.peer, near, 1, 0));
    char *unready = allocate(bench.engine, 0, KIB, 1);
    struct nvlx_region *region = register_range(bench.engine, unready, KIB, NULL, NVLX_ACCESS_READ);
    GIVES(NVLX_EINVAL, nvlx_region_ready(region, stream.lane));
    counts = engine_counts(bench.engine);
    EXPECT(counts.in_flight == 0 && counts.transfers == 1 && counts.refused == 3);
    OK(nvlx_unregister(region, PATIENCE));
    close_stream(&stream);
    end();
}

static void *read_on(void *counts) {
    uint64_t value;
    int code;
    while (!(code = nvlx_signal_read(bench.engine, counts, &value)))
        ;
    return (void *)(intptr_t)code;
}

/* Once nvlx_unregister has given 0, nobody reads the count any more: it may be freed. */
static void who_reads_a_count_keeps_it(void) {
    begin();
    for (int round = 0; round < 200; round++) {
        struct nvlx_region *region;
        pthread_t reader;
        void *code;
        char *counts = allocate(bench.engine, 0, MIB, 0);
        OK(nvlx_register(bench.engine, counts, MIB, NULL, &region));
        EXPECT(pthread_create(&reader, NULL, read_on, counts) == 0);
        usleep(200);
        OK(nvlx_unregister(region, PATIENCE));
        OK(nvlx_free(bench.engine, counts));
        EXPECT(pthread_join(reader, &code) == 0);
        EQUAL(NVLX_ERANGE, (intptr_t)code);
    }
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"signals_set_and_add", signals_set_and_add},
        {"signals_go_alone", signals_go_alone},
        {"signals_keep_to_the_stream", signals_keep_to_the_stream},
        {"prepared_lists_signal_with_each_post", prepared_lists_signal_with_each_post},
        {"signals_come_after_all_bytes", signals_come_after_all_bytes},
        {"a_list_goes_on_behind_a_signal", a_list_goes_on_behind_a_signal},
        {"what_is_no_signal_is_refused", what_is_no_signal_is_refused},
        {"a_transfer_that_fails_signals_nothing", a_transfer_that_fails_signals_nothing},
        {"a_signal_in_flight_is_a_use", a_signal_in_flight_is_a_use},
        {"what_streams_signal_is_counted", what_streams_signal_is_counted},
        {"who_reads_a_count_keeps_it", who_reads_a_count_keeps_it},
        {0},
    };
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
