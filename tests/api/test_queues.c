/* What waits for a caller's stream holds up nothing else: no call, no transfer without a stream, none behind another
 * one. On the host backend, whose queues are as long as CUDA's. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "faulty_device.h"
#include "host_stream.h"
#include "transfer/lanes.h"

#define SIZE    (1 * MIB)
#define MANY    4000
#define SOON_MS 1000 /* in which a call returns that waits for nothing, on a machine with much else to do */

static struct bench bench;
static struct nvlx_request *requests[MANY];

static void begin(void) {
    struct nvlx_region *whole[2];
    bench_begin(&bench, make_faulty_engine(2 * MANY), SIZE);
    bench_register(&bench, SIZE, whole);
}

/* The n-th of many, which do not touch each other. */
static struct nvlx_op small(size_t n) {
    return bench_op(&bench, NVLX_OP_READ, 0, 128 * (n % 8000), 128 * (8000 - n % 8000), 100);
}

static struct nvlx_transfer_options behind(const struct stream *stream) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.stream = stream ? stream->lane : NULL;
    return options;
}

/* Starts transfers of `each` ops until one is refused, or there are `most`. No call takes long. */
static size_t start_many(const struct nvlx_transfer_options *options, size_t each, size_t most) {
    struct nvlx_op ops[64];
    size_t count = 0;
    for (int code = 0; count < most; count++) {
        for (size_t i = 0; i < each; i++)
            ops[i] = small(each * count + i);
        double before = now_ms();
        code = nvlx_transfer(bench.engine, ops, each, options, &requests[count]);
        EXPECT(now_ms() - before < SOON_MS);
        if (code) {
            EQUAL(NVLX_EBUSY, code);
            break;
        }
        bench_apply(&bench, ops, each);
    }
    return count;
}

static void finish_all(size_t count) {
    for (size_t i = 0; i < count; i++)
        finish(requests[i]);
}

static void transfer_and_wait(const struct nvlx_transfer_options *options, size_t n) {
    struct nvlx_op one = small(n);
    struct nvlx_request *request;
    OK(nvlx_transfer(bench.engine, &one, 1, options, &request));
    finish(request);
    bench_apply(&bench, &one, 1);
}

/* ---- A stream that stands still ------------------------------------------------------------------------- */

static void try_behind(struct stream *stream, uint32_t mechanism, size_t each) {
    struct nvlx_transfer_options options = behind(stream);
    options.mechanism = mechanism;
    stream_stands_still(stream);
    size_t count = start_many(&options, each, MANY);
    EXPECT(strstr(nvlx_last_error(), "512 copies and kernels"));
    EQUAL(NVLXI_ORDERED_DEPTH / (mechanism == NVLX_MECHANISM_KERNEL ? 1 : each), count);
    for (size_t i = 0; i < MANY; i++) { /* those that are refused take no room either */
        struct nvlx_op ops[16];
        struct nvlx_request *none;
        for (size_t j = 0; j < each; j++)
            ops[j] = small(j);
        EQUAL(NVLX_EBUSY, nvlx_transfer(bench.engine, ops, each, &options, &none));
    }
    for (size_t i = 0; i < 100; i++)
        transfer_and_wait(NULL, 7000 + i);
    for (size_t i = 0; i < count; i++)
        EQUAL(NVLX_EAGAIN, nvlx_test(requests[i]));
    stream_goes_on(stream);
    finish_all(count);
    stream_end(stream);
    bench_compare(&bench, "behind a stream that stood still");
    transfer_and_wait(&options, 7500);
}

static void calls_do_not_wait_for_a_stream(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    try_behind(&stream, NVLX_MECHANISM_COPY_ENGINE, 1);
    try_behind(&stream, NVLX_MECHANISM_COPY_ENGINE, 6);
    try_behind(&stream, NVLX_MECHANISM_KERNEL, 16);
    close_stream(&stream);
    bench_end(&bench);
}

/* The same of posts: what they put into the queues is known. */
static void posts_do_not_wait_for_a_stream(void) {
    struct stream stream;
    struct nvlx_prepared *prepared;
    struct nvlx_op ops[40];
    begin();
    open_stream(&stream);
    for (size_t i = 0; i < COUNT(ops); i++)
        ops[i] = small(i);
    struct nvlx_transfer_options options = behind(&stream);
    OK(nvlx_prepare(bench.engine, ops, COUNT(ops), NULL, &prepared));
    stream_stands_still(&stream);
    size_t count = 0;
    while (count < MANY && !nvlx_post(prepared, &options, &requests[count]))
        count++;
    EQUAL(NVLXI_ORDERED_DEPTH, count);
    transfer_and_wait(NULL, 7000);
    stream_goes_on(&stream);
    finish_all(count);
    bench_apply(&bench, ops, COUNT(ops));
    bench_compare(&bench, "posted behind a stream that stood still");
    OK(nvlx_prepared_free(prepared));
    close_stream(&stream);
    bench_end(&bench);
}

/* However many wait, a transfer without a stream does not wait for them; nor does one behind another stream. */
static void others_go_their_way(void) {
    static const size_t counts[] = {1, 7, 8, 9, 64, 500};
    struct stream still, moving;
    begin();
    open_stream(&still);
    open_stream(&moving);
    struct nvlx_transfer_options options = behind(&still), others = behind(&moving);
    for (size_t i = 0; i < COUNT(counts); i++) {
        stream_stands_still(&still);
        EQUAL(counts[i], start_many(&options, 1, counts[i]));
        for (size_t n = 0; n < 20; n++) {
            transfer_and_wait(NULL, 7000 + n);
            transfer_and_wait(&others, 7100 + n);
        }
        stream_end(&moving);
        EQUAL(NVLX_EAGAIN, nvlx_test(requests[counts[i] - 1]));
        stream_goes_on(&still);
        finish_all(counts[i]);
    }
    bench_compare(&bench, "beside a stream that stood still");
    close_stream(&still);
    close_stream(&moving);
    bench_end(&bench);
}

enum { LIGHT = 40, HEAVY = 200, LENGTH = 4000, HEAVY_LENGTH = SIZE / 4 };

/* Reads into the lower half and writes from the upper one, of both GPUs; those of one direction take a while. */
static void fill_legs(struct nvlx_op *ops, bool slow_reads) {
    for (size_t i = 0; i < LIGHT; i++)
        ops[i] = bench_op(&bench, i % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, i / 2 % 2 == 1,
                          (i % 2 ? 0 : SIZE / 2) + 5000 * i, (i % 2 ? 0 : SIZE / 2) + 5000 * (LIGHT - 1 - i), LENGTH);
    for (size_t i = LIGHT; i < LIGHT + HEAVY; i++)
        ops[i] = bench_op(&bench, slow_reads ? NVLX_OP_READ : NVLX_OP_WRITE, 0, slow_reads ? SIZE / 4 : SIZE / 4 * 3,
                          slow_reads ? SIZE / 4 : SIZE / 4 * 3, HEAVY_LENGTH);
}

/* Legs in both directions and on two GPUs end as one in the stream. */
static void the_stream_goes_on_behind_all_legs(void) {
    struct stream stream;
    struct nvlx_op ops[LIGHT + HEAVY];
    struct nvlx_request *request;
    begin();
    open_stream(&stream);
    uint8_t *copied = calloc(1, SIZE);
    if (!copied)
        FAIL("no memory");
    struct nvlx_transfer_options options = behind(&stream);
    for (int round = 0; round < 8; round++) {
        const bool heavy = round < 4; /* in one lane: they write the same bytes */
        const size_t count = heavy ? LIGHT + (sanitized() ? HEAVY / 10 : HEAVY) : LIGHT;
        options.mechanism = heavy ? NVLX_MECHANISM_KERNEL : NVLX_MECHANISM_COPY_ENGINE;
        fill_legs(ops, round % 2 == 0);
        OK(nvlx_transfer(bench.engine, ops, count, &options, &request));
        stream_copy(&stream, copied, bench.local[0], SIZE); /* queued at once */
        stream_end(&stream);
        OK(nvlx_test(request));
        OK(nvlx_request_free(request));
        bench_apply(&bench, ops, count);
        EXPECT(!memcmp(copied, bench.model_local[0], SIZE));
        fill(bench.engine, bench.local[0], SIZE / 2, (uint32_t)round);
        for (size_t i = 0; i < SIZE / 2; i++)
            bench.model_local[0][i] = seed_byte((uint32_t)round, i);
    }
    bench_compare(&bench, "in the stream's order");
    free(copied);
    close_stream(&stream);
    bench_end(&bench);
}

/* ---- Limits --------------------------------------------------------------------------------------------- */

/* What waits for a stream waits in it, not in a lane beside it: a process has a few channels on a GPU, and each stream
 * or lane that waits blocks one. */
static void streams_take_no_lanes(void) {
    enum { STREAMS = 65 };
    static struct stream streams[STREAMS];
    begin();
    for (size_t i = 0; i < STREAMS; i++) {
        open_stream(&streams[i]);
        stream_stands_still(&streams[i]);
        struct nvlx_transfer_options options = behind(&streams[i]);
        struct nvlx_op one = small(i);
        OK(nvlx_transfer(bench.engine, &one, 1, &options, &requests[i]));
        bench_apply(&bench, &one, 1);
    }
    EQUAL(0, atomic_load(&faults.lane_creates));
    for (size_t i = STREAMS; i-- > 0;) {
        EQUAL(NVLX_EAGAIN, nvlx_test(requests[i]));
        stream_goes_on(&streams[i]);
        finish(requests[i]);
    }
    bench_compare(&bench, "behind many streams");
    for (size_t i = 0; i < STREAMS; i++)
        close_stream(&streams[i]);
    bench_end(&bench);
}

static int try_list(const struct nvlx_op *ops, size_t count, const struct nvlx_transfer_options *options,
                    struct nvlx_request **request) {
    double before = now_ms();
    int code = nvlx_transfer(bench.engine, ops, count, options, request);
    EXPECT(now_ms() - before < SOON_MS);
    return code;
}

/* Of the first local buffer, what is in flight uses the first `length` bytes, and no others. */
static void expect_kept(size_t length) {
    char *end = bench.local[0] + length;
    struct nvlx_region *used = register_range(bench.engine, end - 1, 2, NULL, NVLX_ACCESS_NONE),
                       *unused = register_range(bench.engine, end, 100, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_unregister(unused, 0));
    REFUSED(nvlx_unregister(used, 0), NVLX_ETIMEDOUT, "in flight");
}

/* A list that is too long to wait does not; what kernels can carry, they carry. */
static void long_lists(void) {
    enum { LONG = NVLXI_ORDERED_DEPTH + 1, BADLY_ALIGNED = 66000 };
    struct stream stream;
    struct nvlx_op ops[LONG];
    struct nvlx_request *request;
    struct nvlx_request_info info = {.size = sizeof info};
    begin();
    open_stream(&stream);
    for (size_t i = 0; i < LONG; i++)
        ops[i] = small(i);
    struct nvlx_transfer_options options = behind(&stream);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    stream_stands_still(&stream);
    for (int i = 0; i < 100; i++)
        REFUSED(try_list(ops, LONG, &options, &request), NVLX_EBUSY, "513 copies");
    OK(try_list(ops, LONG - 1 - 64, &options, &request));
    stream_goes_on(&stream);
    finish(request);
    stream_end(&stream);
    for (int tries = 0; try_list(ops, LONG, &options, &request); tries++) { /* it has come so far, or is about to */
        EXPECT(tries < 10000);
        usleep(1000);
    }
    finish(request);
    bench_apply(&bench, ops, LONG);
    bench_compare(&bench, "a long list behind a stream that has nothing to do");
    for (size_t i = 0; i < LONG; i++) /* long and badly aligned: for the engines; into each other, in two places */
        ops[i] = bench_op(&bench, NVLX_OP_WRITE, 0, 0, i % 2 ? 400001 : 600001, BADLY_ALIGNED);
    stream_stands_still(&stream);
    options.mechanism = NVLX_MECHANISM_AUTO;
    OK(try_list(ops, LONG, &options, &request));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(NVLX_EAGAIN, info.status);
    EQUAL(0, info.engine_fragments);
    EXPECT(info.kernel_fragments >= LONG);
    expect_kept(BADLY_ALIGNED);
    stream_goes_on(&stream);
    finish(request);
    bench_apply(&bench, ops, LONG);
    bench_compare(&bench, "a long list by kernels");
    close_stream(&stream);
    bench_end(&bench);
}

/* Without a stream: so many as lanes hold, and then a refusal; what is longer than a lane has an empty one. */
/* Behind a busy stream kernels carry what they carry well: not what is long and aligned unlike the other side. */
static void kernels_wait_rather_than_engines(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    for (int unlike = 0; unlike < 2; unlike++) {
        const struct nvlx_op one = bench_op(&bench, NVLX_OP_READ, 0, 0, unlike, 66000);
        struct nvlx_transfer_options options = behind(&stream);
        struct nvlx_request_info info = {.size = sizeof info};
        stream_stands_still(&stream);
        OK(nvlx_transfer(bench.engine, &one, 1, &options, &requests[0]));
        OK(nvlx_request_get_info(requests[0], &info));
        EQUAL(unlike, info.engine_fragments);
        EQUAL(unlike == 0, info.kernel_fragments > 0);
        stream_goes_on(&stream);
        finish(requests[0]);
        bench_apply(&bench, &one, 1);
    }
    bench_compare(&bench, "behind a busy stream");
    close_stream(&stream);
    bench_end(&bench);
}

/* Beside what waits for a stream fewer lanes are in use: CUDA has few channels (lanes.h). */
static void few_lanes_are_used_beside_a_stream(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    stream_stands_still(&stream);
    struct nvlx_transfer_options options = behind(&stream);
    struct nvlx_op one = small(0);
    OK(nvlx_transfer(bench.engine, &one, 1, &options, &requests[MANY - 1]));
    bench_apply(&bench, &one, 1);
    EQUAL(100, start_many(NULL, 1, 100));
    EQUAL(NVLXI_LANES_BESIDE, atomic_load(&faults.lane_creates));
    finish_all(100);
    stream_goes_on(&stream);
    finish(requests[MANY - 1]);
    close_stream(&stream);
    bench_end(&bench);
}

static void free_lanes_are_bounded(void) {
    enum { LONG = 5000 };
    begin();
    atomic_store(&faults.hold, true);
    EQUAL(NVLXI_LANES_MAX * NVLXI_LANE_DEPTH, start_many(NULL, 1, MANY));
    EXPECT(strstr(nvlx_last_error(), "in flight on GPU 0 as its queues take"));
    EQUAL(NVLXI_LANES_MAX, atomic_load(&faults.lane_creates));
    atomic_store(&faults.hold, false);
    finish_all(NVLXI_LANES_MAX * NVLXI_LANE_DEPTH);
    bench_compare(&bench, "as many as the lanes hold");
    struct nvlx_op *ops = calloc(LONG, sizeof *ops);
    struct nvlx_transfer_options options = behind(NULL);
    struct nvlx_request *request;
    EXPECT(ops != NULL);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    for (size_t i = 0; i < LONG; i++)
        ops[i] = small(i);
    for (int round = 0; round < 3; round++) {
        OK(nvlx_transfer(bench.engine, ops, LONG, &options, &request));
        finish(request);
    }
    bench_apply(&bench, ops, LONG);
    bench_compare(&bench, "more than lanes hold");
    free(ops);
    bench_end(&bench);
}

/* The host backend's priorities are those of an H100: six. */
static void priorities_are_few(void) {
    begin();
    struct nvlx_transfer_options options = behind(NULL);
    for (int32_t i = -1500; i < 1500; i++) {
        options.priority = i;
        transfer_and_wait(&options, 0);
    }
    options.priority = INT32_MIN;
    transfer_and_wait(&options, 1);
    options.priority = INT32_MAX;
    transfer_and_wait(&options, 2);
    EQUAL(6, atomic_load(&faults.lane_creates));
    bench_compare(&bench, "with priorities");
    bench_end(&bench);
}

/* ---- SMs ------------------------------------------------------------------------------------------------ */

/* Lists for kernels between GPU 0 and two others, in both directions. */
static void fill_groups(struct nvlx_op ops[4]) {
    for (size_t i = 0; i < 4; i++)
        ops[i] = make_op(i % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, bench.peer, bench.local[0] + 10000 * i,
                         bench.remote[i / 2] + 50000 * i, 9000);
}

static void expect_shares(uint32_t max_sms, const uint32_t shares[4], size_t lanes, uint32_t told) {
    struct nvlx_op ops[4];
    struct nvlx_request *request;
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options = behind(NULL);
    size_t different = 0;
    fill_groups(ops);
    options.mechanism = NVLX_MECHANISM_KERNEL;
    options.max_sms = max_sms;
    atomic_store(&faults.launched, 0);
    OK(nvlx_transfer(bench.engine, ops, 4, &options, &request));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(told, info.sms);
    finish(request);
    bench_apply(&bench, ops, 4);
    EQUAL(4, atomic_load(&faults.launched));
    for (size_t i = 0; i < 4; i++) {
        bool seen = false;
        for (size_t j = 0; j < i; j++)
            seen = seen || faults.launches[j].lane == faults.launches[i].lane;
        different += !seen;
        EQUAL(shares[i], faults.launches[i].sms);
    }
    EQUAL(lanes, different);
}

/* The kernels of one GPU share the transfer's SMs; where there are too few, they run one after the other. */
static void kernels_share_the_sms(void) {
    begin();
    if (second_gpu() == 0)
        FAIL("two GPUs are needed");
    expect_shares(8, (const uint32_t[]){2, 2, 2, 2}, 4, 8);
    expect_shares(6, (const uint32_t[]){2, 2, 1, 1}, 4, 6);
    expect_shares(4, (const uint32_t[]){1, 1, 1, 1}, 4, 4);
    expect_shares(3, (const uint32_t[]){1, 1, 1, 1}, 3, 3);
    expect_shares(1, (const uint32_t[]){1, 1, 1, 1}, 1, 1);
    expect_shares(1000, (const uint32_t[]){33, 33, 33, 33}, 4, 132);
    expect_shares(0, (const uint32_t[]){32, 64, 32, 64}, 4, 132); /* 192, if there were so many */
    bench_compare(&bench, "with few SMs");
    bench_end(&bench);
}

/* An engine of the child's own copies behind a stream of its own. */
static void work_in_child(void) {
    struct stream stream;
    struct nvlx_request *request;
    char *text, *memory;
    size_t length;
    struct nvlx_engine *engine = make_faulty_engine(0);
    memory = allocate(engine, 0, 2 * KIB, 3);
    register_range(engine, memory, 2 * KIB, NULL, NVLX_ACCESS_READ_WRITE);
    OK(nvlx_export(engine, &text, &length));
    struct nvlx_peer *self = open_peer(engine, text);
    nvlx_text_free(text);
    open_stream(&stream);
    struct nvlx_transfer_options options = behind(&stream);
    struct nvlx_op op = make_op(NVLX_OP_WRITE, self, memory, (uint64_t)(uintptr_t)memory + KIB, KIB);
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    finish(request);
    close_stream(&stream);
    OK(nvlx_engine_destroy(engine));
    _exit(0);
}

/* What fills the parent's queues is not in those of a forked child. */
static void children_have_queues(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    struct nvlx_transfer_options options = behind(&stream);
    stream_stands_still(&stream);
    EQUAL(NVLXI_ORDERED_DEPTH, start_many(&options, 1, MANY));
    pid_t child = fork_child(25);
    if (!child && !children_have_threads())
        _exit(0);
    if (!child)
        work_in_child();
    fork_end(child);
    stream_goes_on(&stream);
    finish_all(NVLXI_ORDERED_DEPTH);
    close_stream(&stream);
    bench_end(&bench);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"calls_do_not_wait_for_a_stream", calls_do_not_wait_for_a_stream},
                                        {"posts_do_not_wait_for_a_stream", posts_do_not_wait_for_a_stream},
                                        {"others_go_their_way", others_go_their_way},
                                        {"the_stream_goes_on_behind_all_legs", the_stream_goes_on_behind_all_legs},
                                        {"streams_take_no_lanes", streams_take_no_lanes},
                                        {"long_lists", long_lists},
                                        {"kernels_wait_rather_than_engines", kernels_wait_rather_than_engines},
                                        {"few_lanes_are_used_beside_a_stream", few_lanes_are_used_beside_a_stream},
                                        {"free_lanes_are_bounded", free_lanes_are_bounded},
                                        {"priorities_are_few", priorities_are_few},
                                        {"kernels_share_the_sms", kernels_share_the_sms},
                                        {"children_have_queues", children_have_queues},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
