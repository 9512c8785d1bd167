/* Long lists: what carries them, by how many kernels and lanes, and in how little pinned memory. On the host backend,
 * which counts these. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "bench.h"
#include "faulty_device.h"

#define SIZE      (4 * MIB)
#define FRAGMENTS 100000

static struct bench bench;

static void begin_on(struct nvlx_engine *engine) {
    struct nvlx_region *whole[2];
    bench_begin(&bench, engine, SIZE);
    bench_register(&bench, SIZE, whole);
}

static void begin(uint32_t max_requests) {
    begin_on(make_faulty_engine(max_requests));
}

static void begin_with_pinned(size_t bytes) {
    struct nvlx_engine *engine;
    struct nvlx_config config;
    fill_config(&config);
    config.list_memory = bytes;
    OK(nvlxi_engine_create(&config, &faulty_device, &engine));
    begin_on(engine);
}

static void end(void) {
    bench_end(&bench);
}

static void expect_carried(const struct nvlx_op *ops, uint32_t mechanism, uint32_t max_sms) {
    const bool kernel = mechanism != NVLX_MECHANISM_COPY_ENGINE;
    const uint32_t usual_sms = ops[0].opcode == NVLX_OP_READ ? 32 : 64;
    struct nvlx_prepared *prepared;
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    options.max_sms = max_sms;
    OK(nvlx_prepare(bench.engine, ops, FRAGMENTS, &options, &prepared));
    for (int round = 0; round < 2; round++) {
        struct nvlx_request_info info = {.size = sizeof info};
        struct nvlx_request *request = bench_post(prepared);
        OK(nvlx_wait(request, PATIENCE));
        OK(nvlx_request_get_info(request, &info));
        EQUAL(FRAGMENTS, info.ops);
        EQUAL(13 * FRAGMENTS, info.bytes);
        EQUAL(kernel ? FRAGMENTS : 0, info.kernel_fragments);
        EQUAL(kernel ? 13 * FRAGMENTS : 0, info.kernel_bytes);
        EQUAL(kernel ? 0 : FRAGMENTS, info.engine_fragments);
        EQUAL(kernel ? 0 : 13 * FRAGMENTS, info.engine_bytes);
        EQUAL(kernel ? (max_sms ? max_sms : usual_sms) : 0, info.sms);
        EXPECT(info.submit_ns > 0 && info.elapsed_ns >= info.submit_ns);
        OK(nvlx_request_free(request));
    }
    OK(nvlx_prepared_free(prepared));
}

/* Order reversed on one side, so that none continues another. */
static void long_lists(void) {
    struct nvlx_op *ops = calloc(FRAGMENTS, sizeof *ops);
    EXPECT(ops != NULL);
    begin(0);
    for (size_t i = 0; i < FRAGMENTS; i++)
        ops[i] = bench_op(&bench, NVLX_OP_READ, 0, 40 * i, 13 * (FRAGMENTS - 1 - i), 13);
    bench_apply(&bench, ops, FRAGMENTS);
    expect_carried(ops, NVLX_MECHANISM_AUTO, 0);
    bench_compare(&bench, "by what fits best");
    bench_fill_remote(&bench, 0, 30);
    bench_apply(&bench, ops, FRAGMENTS);
    expect_carried(ops, NVLX_MECHANISM_KERNEL, 5);
    bench_compare(&bench, "by the kernel");
    bench_fill_remote(&bench, 0, 31);
    bench_apply(&bench, ops, FRAGMENTS);
    expect_carried(ops, NVLX_MECHANISM_COPY_ENGINE, 5);
    bench_compare(&bench, "by copy engines");
    free(ops);
    end();
}

/* ---- Pinned memory ------------------------------------------------------------------------------------- */

#define PINNED ((size_t)103000 * 24) /* a list of FRAGMENTS fits, and not much more */
#define FEW    10

static int try_transfer(const struct nvlx_op *ops, size_t count, uint32_t mechanism, struct nvlx_request **request) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    return nvlx_transfer(bench.engine, ops, count, &options, request);
}

static void expect_transfer(const struct nvlx_op *ops, size_t count, uint32_t mechanism) {
    struct nvlx_request *request;
    OK(try_transfer(ops, count, mechanism, &request));
    finish(request);
}

/* Kernels that overlap take more SMs together than one may: so they do not where the caller says how many. */
static void few_sms_are_not_overlapped(const struct nvlx_op *ops, size_t count) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.max_sms = 8;
    atomic_store(&faults.kernels, 0);
    atomic_store(&faults.overlapping, 0);
    OK(nvlx_transfer(bench.engine, ops, count, &options, &request));
    finish(request);
    EXPECT(atomic_load(&faults.kernels) > 2);
    EQUAL(0, atomic_load(&faults.overlapping));
}

/* As few kernels as possible. A list of some length takes one. A longer one takes three, and each is on its way while
 * the next is planned. It takes one more where its memory consists of more pieces than a kernel takes. */
static void lists_take_few_kernels(void) {
    enum { PIECE = 256, LONG = 4096 + PIECE, PIECES = 24, ALL = LONG - PIECE + PIECES * PIECE };
    struct nvlx_prepared *pieces[2 * PIECES];
    struct nvlx_op *ops = calloc(ALL, sizeof *ops);
    EXPECT(ops != NULL);
    begin_with_pinned((size_t)(ALL + PIECES * PIECE) * 24);
    for (size_t i = 0; i < ALL; i++)
        ops[i] = bench_op(&bench, NVLX_OP_READ, 0, 40 * i, 13 * (ALL - 1 - i), 13);
    bench_apply(&bench, ops, ALL);
    atomic_store(&faults.kernels, 0);
    expect_transfer(ops, LONG, NVLX_MECHANISM_KERNEL);
    EQUAL(1, atomic_load(&faults.kernels));
    for (size_t i = 0; i < 2 * PIECES; i++)
        pieces[i] = bench_prepare(&bench, ops + i % PIECES * PIECE, PIECE);
    for (size_t i = 0; i < 2 * PIECES; i += 2)
        OK(nvlx_prepared_free(pieces[i])); /* whose memory lies between that of the others */
    atomic_store(&faults.kernels, 0);
    atomic_store(&faults.overlapping, 0);
    expect_transfer(ops, ALL, NVLX_MECHANISM_KERNEL);
    EQUAL(4, atomic_load(&faults.kernels));
    EQUAL(3, atomic_load(&faults.overlapping));
    EQUAL(13, atomic_load(&faults.average));
    bench_compare(&bench, "by four kernels");
    few_sms_are_not_overlapped(ops, ALL);
    for (size_t i = 1; i < 2 * PIECES; i += 2)
        OK(nvlx_prepared_free(pieces[i]));
    atomic_store(&faults.kernels, 0);
    expect_transfer(ops, ALL, NVLX_MECHANISM_KERNEL);
    EQUAL(3, atomic_load(&faults.kernels));
    free(ops);
    end();
}

/* The copy engines get as many lanes as there are 8 copies for, 4 at most. */
static void engines_take_a_lane_for_8_copies(void) {
    static const struct {
        size_t copies;
        long lanes;
    } cases[] = {{2, 1}, {15, 1}, {16, 2}, {24, 3}, {32, 4}, {90, 4}};
    struct nvlx_op ops[90];
    begin(10);
    for (size_t i = 0; i < COUNT(ops); i++)
        ops[i] = bench_op(&bench, NVLX_OP_READ, 0, 40 * i, 13 * (COUNT(ops) - 1 - i), 13);
    for (size_t i = 0; i < COUNT(cases); i++) {
        atomic_store(&faults.lane, NULL);
        atomic_store(&faults.lanes, 0);
        expect_transfer(ops, cases[i].copies, NVLX_MECHANISM_COPY_ENGINE);
        EQUAL(cases[i].lanes, atomic_load(&faults.lanes));
    }
    end();
}

/* Memory that lies idle keeps nobody waiting, of whatever kind and size it is; no more is taken than is allowed. */
static void idle_memory_serves_all(const struct nvlx_op *ops) {
    enum {
        LEAST = 6,
        MOST = PINNED / (256 * 24)
    }; /* chunks: what a long list left behind, and the shortest there are */
    struct nvlx_request *requests[MOST + 1];
    size_t count = 0;
    expect_transfer(ops, FRAGMENTS, NVLX_MECHANISM_KERNEL);
    expect_transfer(ops, FRAGMENTS, NVLX_MECHANISM_COPY_ENGINE);
    atomic_store(&faults.hold, true);
    while (count <= MOST && !try_transfer(ops + count % 1000 * FEW, FEW, NVLX_MECHANISM_KERNEL, &requests[count]))
        count++;
    EXPECT(count >= LEAST && count <= MOST);
    EXPECT(strstr(nvlx_last_error(), "config.list_memory"));
    atomic_store(&faults.hold, false);
    for (size_t i = 0; i < count; i++)
        finish(requests[i]);
}

/* A list whose fragments fit is accepted, by small pieces of memory where large ones do not fit. */
static void little_memory_is_used_up(void) {
    enum { COUNT_OF_OPS = 9000, NEEDED = COUNT_OF_OPS + 2 * 256 };
    struct nvlx_request *none;
    struct nvlx_op *ops = calloc(2 * NEEDED, sizeof *ops);
    EXPECT(ops != NULL);
    begin_with_pinned((size_t)NEEDED * 24);
    for (size_t i = 0; i < 2 * NEEDED; i++)
        ops[i] = bench_op(&bench, NVLX_OP_READ, 0, 40 * i, 13 * (2 * NEEDED - 1 - i), 13);
    expect_transfer(ops, COUNT_OF_OPS, NVLX_MECHANISM_KERNEL);
    REFUSED(try_transfer(ops, 2 * NEEDED, NVLX_MECHANISM_KERNEL, &none), NVLX_EBUSY, "config.list_memory allows");
    expect_transfer(ops, COUNT_OF_OPS, NVLX_MECHANISM_AUTO);
    bench_apply(&bench, ops, COUNT_OF_OPS);
    bench_compare(&bench, "with little memory");
    free(ops);
    end();
}

static void pinned_memory_is_bounded(void) {
    struct nvlx_prepared *no_list = NULL;
    struct nvlx_request *none;
    struct nvlx_op *ops = calloc(FRAGMENTS, sizeof *ops);
    EXPECT(ops != NULL);
    begin_with_pinned(PINNED);
    for (size_t i = 0; i < FRAGMENTS; i++)
        ops[i] = bench_op(&bench, NVLX_OP_READ, 0, 40 * i, 13 * (FRAGMENTS - 1 - i), 13);
    bench_apply(&bench, ops, FRAGMENTS);
    for (int round = 0; round < 3; round++) {
        idle_memory_serves_all(ops);
        struct nvlx_prepared *prepared = bench_prepare(&bench, ops, FRAGMENTS);
        REFUSED(nvlx_prepare(bench.engine, ops, FRAGMENTS, NULL, &no_list), NVLX_EBUSY, "config.list_memory");
        REFUSED(try_transfer(ops, FRAGMENTS, NVLX_MECHANISM_KERNEL, &none), NVLX_EBUSY, "config.list_memory");
        EXPECT(!no_list);
        expect_transfer(ops, FEW, NVLX_MECHANISM_KERNEL);
        expect_transfer(ops, FRAGMENTS, NVLX_MECHANISM_COPY_ENGINE); /* which needs none */
        finish(bench_post(prepared));
        bench_compare(&bench, "where pinned memory is short");
        OK(nvlx_prepared_free(prepared));
    }
    free(ops);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"long_lists", long_lists},
                                        {"lists_take_few_kernels", lists_take_few_kernels},
                                        {"engines_take_a_lane_for_8_copies", engines_take_a_lane_for_8_copies},
                                        {"pinned_memory_is_bounded", pinned_memory_is_bounded},
                                        {"little_memory_is_used_up", little_memory_is_used_up},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
