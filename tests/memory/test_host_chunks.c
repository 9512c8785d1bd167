/* Chunks of host memory, which processes share: copied by GPUs from and to the peer that has them, and from and to
 * one's own. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "rendezvous_support.h"

#define SIZE   (4 * MIB)
#define BORDER (SIZE / 2) /* between two regions of the owner's */

static struct bench bench;

/* The owner's buffer 0 is host memory, in two regions; buffer 1 is a GPU's. Here it is the other way round. */
static void begin(void) {
    bench_begin_with(&bench, make_engine(0), SIZE, NVLX_ALLOC_HOST);
    OK(owner_serve(&bench.owner, own_name(), 0));
    owner_register(&bench.owner, 0, 0, 0, BORDER, NVLX_ACCESS_READ_WRITE, "lower");
    owner_register(&bench.owner, 1, 0, BORDER, BORDER, NVLX_ACCESS_READ_WRITE, "upper");
    owner_register(&bench.owner, 2, 1, 0, SIZE, NVLX_ACCESS_READ_WRITE, "far");
    OK(nvlx_free(bench.engine, bench.local[1]));
    bench.local[1] = allocate_with(bench.engine, NVLX_ALLOC_HOST, second_gpu(), SIZE, 12);
    for (size_t i = 0; i < 2; i++)
        register_range(bench.engine, bench.local[i], SIZE, NULL, NVLX_ACCESS_NONE);
    bench_open_peer(&bench);
}

/* ---- What moves ---------------------------------------------------------------------------------------- */

/* CPUs of the process use it as it is, and see what peers have written. */
static void a_cpu_uses_its_own(void) {
    begin();
    for (size_t i = 0; i < SIZE; i++)
        EQUAL(seed_byte(12, i), (uint8_t)bench.local[1][i]);
    memset(bench.local[1], 77, SIZE);
    memset(bench.model_local[1], 77, SIZE);
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_WRITE, 1, 3, 5, SIZE - 100);
    bench_move_by(&bench, NVLX_MECHANISM_AUTO, &op, 1);
    const struct nvlx_op back = bench_op(&bench, NVLX_OP_READ, 1, 0, 0, 70000);
    bench_move_by(&bench, NVLX_MECHANISM_AUTO, &back, 1);
    EXPECT(!memcmp(bench.local[1], bench.model_local[1], SIZE));
    bench_end(&bench);
}

/* Both directions, over the border, the peer's host memory and one's own; what is longer than 64 KiB goes by engines.
 */
static void lists_move(void) {
    struct nvlx_op ops[40];
    uint64_t longer = 0;
    begin();
    for (size_t i = 0; i < COUNT(ops); i++) {
        const size_t length = i % 7 == 0 ? 67000 : 700 + i;
        longer += i % 7 == 0 ? length : 0;
        ops[i] = bench_op(&bench, i / 2 % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, (int)(i % 2), 100000 * i + i % 5,
                          100000 * i + 7 * i, length);
    }
    ops[20] = bench_op(&bench, NVLX_OP_READ, 0, 2000000, BORDER - 13, 100);
    EQUAL(0, bench_move_by(&bench, NVLX_MECHANISM_COPY_ENGINE, ops, COUNT(ops)).kernel_bytes);
    EQUAL(0, bench_move_by(&bench, NVLX_MECHANISM_KERNEL, ops, COUNT(ops)).engine_bytes);
    EXPECT(bench_move_by(&bench, NVLX_MECHANISM_AUTO, ops, COUNT(ops)).engine_bytes >= longer);
    bench_end(&bench);
}

static void prepared_lists_and_rows_move(void) {
    struct nvlx_rows rows = {.count = 25, .local_pitch = 80000, .remote_pitch = 90000};
    struct nvlx_op ops[25];
    begin();
    for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
        struct nvlx_transfer_options options;
        struct nvlx_prepared *prepared;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        struct nvlx_op op = bench_op(&bench, mechanism % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, 0, 5, 7 * mechanism, 30000);
        for (size_t i = 0; i < COUNT(ops); i++)
            ops[i] = bench_op(&bench, op.opcode, 0, 5 + i * 80000, 7 * mechanism + i * 90000, 30000);
        op.flags = NVLX_OP_ROWS;
        op.arg = (uint64_t)(uintptr_t)&rows;
        OK(nvlx_prepare(bench.engine, &op, 1, &options, &prepared));
        for (int post = 0; post < 2; post++) {
            finish(bench_post(prepared));
            bench_apply(&bench, ops, COUNT(ops));
            bench_compare(&bench, "rows");
        }
        OK(nvlx_prepared_free(prepared));
    }
    bench_end(&bench);
}

static void blocks_move(void) {
    begin();
    OK(nvlx_blocks_free(bench_move_blocks(&bench, 0)));
    bench_end(&bench);
}

/* The peer is an engine of this process: whichever GPU has the other side copies, once it is let. */
static void moves_within_the_process(void) {
    begin();
    struct nvlx_region *own = register_range(bench.engine, bench.local[1], SIZE, "own", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_serve(bench.engine, own_path(), NULL));
    struct nvlx_peer *self = peer_of(bench.engine, bench.engine);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
        const struct nvlx_op op =
            make_op(opcode, self, bench.local[0] + 9 * opcode, (uintptr_t)bench.local[1] + 7, 300000);
        struct nvlx_request *request;
        OK(nvlx_transfer(bench.engine, &op, 1, NULL, &request));
        finish(request);
        uint8_t *here = bench.model_local[0] + 9 * opcode, *there = bench.model_local[1] + 7;
        memcpy(opcode == NVLX_OP_READ ? here : there, opcode == NVLX_OP_READ ? there : here, op.length);
        bench_compare(&bench, "within the process");
    }
    OK(nvlx_peer_close(self));
    OK(nvlx_unregister(own, -1));
    bench_end(&bench);
}

/* A chunk is for one GPU, which has a mapping of it: another one's copy would break its context on CUDA. */
static void a_chunk_is_for_its_gpu(void) {
    struct nvlx_request *request;
    begin();
    register_range(bench.engine, bench.local[0], SIZE, "near", NVLX_ACCESS_READ);
    struct nvlx_peer *self = peer_of(bench.engine, bench.engine);
    const struct nvlx_op op = make_op(NVLX_OP_READ, self, bench.local[1], (uintptr_t)bench.local[0], 100);
    if (second_gpu()) {
        REFUSED(nvlx_transfer(bench.engine, &op, 1, NULL, &request), NVLX_ENOTSUP, "chunk of host memory for GPU 1");
        const struct nvlx_rows rows = {.count = 4, .local_pitch = 200, .remote_pitch = 200};
        struct nvlx_op of_rows = op;
        of_rows.flags = NVLX_OP_ROWS;
        of_rows.arg = (uintptr_t)&rows;
        REFUSED(nvlx_transfer(bench.engine, &of_rows, 1, NULL, &request), NVLX_ENOTSUP, "allocate it for that one");
        bench_compare(&bench, "refused");
    } else {
        OK(nvlx_transfer(bench.engine, &op, 1, NULL, &request));
        finish(request);
    }
    OK(nvlx_peer_close(self));
    bench_end(&bench);
}

static void digests_are_checked(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    uint64_t digest;
    begin();
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    const uint64_t told = owner_set_digest(&bench.owner, 0);
    bench_open_peer(&bench);
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 64, 0, BORDER);
    OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
    finish(request);
    OK(nvlx_digest(bench.engine, bench.local[0] + 64, BORDER, &digest));
    EQUAL(told, digest);
    owner_fill(&bench.owner, 0, 1000, 1, 3);
    OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
    EQUAL(NVLX_EDIGEST, nvlx_wait(request, PATIENCE));
    EQUAL(NVLX_EDIGEST, nvlx_request_free(request));
    bench_end(&bench);
}

/* ---- What is told and refused ---------------------------------------------------------------------------- */

static void peers_are_told_the_kind(void) {
    struct nvlx_region_info info = {.size = sizeof info};
    begin();
    OK(nvlx_peer_region_by_name(bench.peer, "upper", &info));
    EQUAL(NVLX_KIND_HOST, info.kind);
    EXPECT(!strncmp(info.gpu, "GPU-", 4)); /* that is near */
    OK(nvlx_peer_region_by_name(bench.peer, "far", &info));
    EQUAL(NVLX_KIND_CUDA_MALLOC, info.kind);
    bench_end(&bench);
}

/* No GPU has a side; and the list is refused as a whole. */
static void host_to_host_is_refused(void) {
    struct nvlx_request *request;
    char told[96];
    begin();
    const struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 100),
                                  make_op(NVLX_OP_READ, bench.peer, bench.local[1], bench.remote[0] + BORDER + 5, 100)};
    snprintf(told, sizeof told, "op 1: the peer's bytes at 0x%llx are host memory",
             (unsigned long long)bench.remote[0] + BORDER + 5);
    REFUSED(nvlx_transfer(bench.engine, ops, 2, NULL, &request), NVLX_ENOTSUP, told);
    EQUAL(0, engine_info(bench.engine).mappings); /* nothing was opened for it */
    bench_compare(&bench, "refused");
    bench_end(&bench);
}

static void counts_are_refused(void) {
    struct nvlx_request *request;
    uint64_t value;
    begin();
    struct nvlx_op signal = {.opcode = NVLX_OP_SIGNAL, .peer = bench.peer, .remote = bench.remote[0], .arg = 1};
    REFUSED(nvlx_transfer(bench.engine, &signal, 1, NULL, &request), NVLX_EINVAL, "in host memory");
    signal = (struct nvlx_op){.opcode = NVLX_OP_SIGNAL, .local = bench.local[1], .arg = 1};
    REFUSED(nvlx_transfer(bench.engine, &signal, 1, NULL, &request), NVLX_EINVAL, "in host memory");
    REFUSED(nvlx_signal_read(bench.engine, bench.local[1], &value), NVLX_EINVAL, "in host memory");
    bench_end(&bench);
}

static void chunks_join(void) {
    struct nvlx_alloc_options options;
    struct nvlx_region *region;
    void *address;
    begin();
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_HOST;
    options.chunk_length = 2 * MIB;
    OK(nvlx_alloc(bench.engine, 0, 6 * MIB, &options, &address));
    region = register_range(bench.engine, (char *)address + MIB, 4 * MIB, "three", NVLX_ACCESS_READ);
    const uint64_t before = engine_info(bench.engine).segments;
    OK(nvlx_unregister(region, -1));
    EQUAL(3, before - engine_info(bench.engine).segments);
    struct nvlx_engine *other = make_engine(0);
    const bool is_host = !strcmp(nvlx_backend_name(other), "host");
    OK(nvlx_free(bench.engine, address));
    REFUSED(nvlx_register(other, address, 100, NULL, &region), NVLX_ENOTSUP,
            is_host ? "not memory of the host backend" : "memory that CUDA does not know");
    OK(nvlx_engine_destroy(other));
    bench_end(&bench);
}

static void nothing_is_left(void) {
    struct nvlx_engine *engine = make_engine(0);
    OK(nvlx_free(engine, allocate_with(engine, NVLX_ALLOC_HOST, 0, SIZE, 1)));
    const struct holdings before = holdings();
    for (int i = 0; i < 20; i++) {
        char *made = allocate_with(engine, NVLX_ALLOC_HOST, second_gpu(), SIZE, 1);
        struct nvlx_region *region = register_range(engine, made, SIZE, "chunks", NVLX_ACCESS_READ);
        OK(nvlx_unregister(region, -1));
        OK(nvlx_free(engine, made));
    }
    expect_holdings(&before, "chunks that were freed");
    OK(nvlx_engine_destroy(engine));
}

/* Chunks that their owner withdraws are refused; their neighbours stay. */
static void withdrawn_chunks_are_refused(void) {
    begin();
    struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 100);
    bench_move_by(&bench, NVLX_MECHANISM_AUTO, &op, 1);
    OK(owner_unregister(&bench.owner, 0));
    bench_open_peer(&bench);
    struct nvlx_request *request;
    REFUSED(nvlx_transfer(bench.engine, &op, 1, NULL, &request), NVLX_ERANGE, "not in its registered");
    op = bench_op(&bench, NVLX_OP_READ, 0, 0, BORDER, 100); /* its neighbour stays */
    bench_move_by(&bench, NVLX_MECHANISM_AUTO, &op, 1);
    bench_end(&bench);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"a_cpu_uses_its_own", a_cpu_uses_its_own},
                                        {"lists_move", lists_move},
                                        {"prepared_lists_and_rows_move", prepared_lists_and_rows_move},
                                        {"blocks_move", blocks_move},
                                        {"moves_within_the_process", moves_within_the_process},
                                        {"a_chunk_is_for_its_gpu", a_chunk_is_for_its_gpu},
                                        {"digests_are_checked", digests_are_checked},
                                        {"peers_are_told_the_kind", peers_are_told_the_kind},
                                        {"host_to_host_is_refused", host_to_host_is_refused},
                                        {"counts_are_refused", counts_are_refused},
                                        {"chunks_join", chunks_join},
                                        {"nothing_is_left", nothing_is_left},
                                        {"withdrawn_chunks_are_refused", withdrawn_chunks_are_refused},
                                        {NULL, NULL}};
    static const struct role roles[] = {OWNER_ROLE, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
