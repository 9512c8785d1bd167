/* What a refusal tells of config.list_memory. On the host backend. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

#define SIZE   (4 * MIB)
#define LITTLE 90000 /* bytes: less than any of the lists needs that are refused for good */

static struct bench bench;

static void begin(size_t list_memory) {
    struct nvlx_engine *engine;
    struct nvlx_region *whole[2];
    struct nvlx_config config;
    fill_config(&config);
    config.list_memory = list_memory;
    OK(nvlx_engine_create(&config, &engine));
    bench_begin(&bench, engine, SIZE);
    bench_register(&bench, SIZE, whole);
}

static void end(void) {
    bench_end(&bench);
}

static int try_transfer(const struct nvlx_op *ops, size_t count, struct nvlx_request **request) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_KERNEL;
    return nvlx_transfer(bench.engine, ops, count, &options, request);
}

static void expect_transfer(const struct nvlx_op *ops, size_t count) {
    struct nvlx_request *request;
    OK(try_transfer(ops, count, &request));
    OK(nvlx_wait(request, -1));
    OK(nvlx_request_free(request));
}

/* The number of bytes that a refusal names. */
static size_t told_bytes(size_t pieces) {
    size_t told_pieces, bytes;
    EQUAL(2, (size_t)sscanf(nvlx_last_error(), "the list's %zu pieces for kernels take up to %zu bytes of list memory",
                            &told_pieces, &bytes));
    EQUAL(pieces, told_pieces);
    return bytes;
}

static void begin_with_list(size_t memory, struct nvlx_op *ops, size_t count, bool both_ways) {
    begin(memory);
    for (size_t i = 0; i < count; i++)
        ops[i] = bench_op(&bench, both_ways && i % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, both_ways && i % 2, i % 3 * 20,
                          13 * (i % 5), 13);
}

/* With as much list memory as the refusal says, the same list is accepted; with less it is not, where it goes one way.
 */
static void the_whole_list_is_told(size_t count, bool both_ways, bool prepared) {
    struct nvlx_prepared *list;
    struct nvlx_request *request;
    struct nvlx_op *ops = calloc(count, sizeof *ops);
    EXPECT(ops != NULL);
    begin_with_list(LITTLE, ops, count, both_ways);
    size_t needed = 0;
    for (int round = 0; round < 2; round++) {
        REFUSED(prepared ? nvlx_prepare(bench.engine, ops, count, NULL, &list) : try_transfer(ops, count, &request),
                NVLX_EBUSY, "allows 90000: raise it to that");
        EXPECT(!needed || needed == told_bytes(count));
        needed = told_bytes(count);
    }
    EXPECT(needed >= count * 24 && needed <= count * 24 + count / 40 + 12288 + (both_ways ? 2 * 786432 : 0));
    end();
    begin_with_list(needed, ops, count, both_ways);
    if (prepared)
        OK(nvlx_prepared_free(bench_prepare(&bench, ops, count)));
    else
        expect_transfer(ops, count);
    end();
    if (!both_ways && !prepared) {
        begin_with_list(needed - 1, ops, count, false);
        REFUSED(try_transfer(ops, count, &request), NVLX_EBUSY, "raise it to that");
        end();
    }
    free(ops);
}

static void a_refusal_tells_the_whole_need(void) {
    static const size_t counts[] = {4100, 400000};
    for (size_t i = 0; i < COUNT(counts); i++)
        for (int way = 0; way < 2; way++)
            for (int prepared = 0; prepared < 2; prepared++)
                the_whole_list_is_told(counts[i], way == 1, prepared == 1);
}

/* Where only others are in the way, their part is told, and no more. */
static void a_refusal_tells_what_others_have(void) {
    enum { COUNT_OF_OPS = 9000 };
    struct nvlx_request *none;
    struct nvlx_op *ops = calloc(COUNT_OF_OPS, sizeof *ops);
    EXPECT(ops != NULL);
    begin_with_list((size_t)COUNT_OF_OPS * 24 + 12288, ops, COUNT_OF_OPS, false);
    expect_transfer(ops, COUNT_OF_OPS); /* what it leaves idle is nobody's */
    struct nvlx_prepared *another, *prepared = bench_prepare(&bench, ops, 2048);
    REFUSED(try_transfer(ops, COUNT_OF_OPS, &none), NVLX_EBUSY, "of which other lists have 49152: wait for them");
    REFUSED(nvlx_prepare(bench.engine, ops, COUNT_OF_OPS, NULL, &another), NVLX_EBUSY,
            "of which other lists have 49152: wait for them");
    OK(nvlx_prepared_free(prepared));
    expect_transfer(ops, COUNT_OF_OPS);
    free(ops);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"a_refusal_tells_the_whole_need", a_refusal_tells_the_whole_need},
                                        {"a_refusal_tells_what_others_have", a_refusal_tells_what_others_have},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 100);
}
