/* Pinned host memory as the local side: what moves, what is refused, and what its owner may do to it meanwhile. On the
 * host backend, which is told what is pinned as CUDA is. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "device/host/host.h"
#include "host_stream.h"

#define SIZE   (2 * MIB)
#define BORDER (SIZE / 2) /* between two regions */
#define OPS    30

static struct bench bench;
static struct nvlx_region *halves[2], *on_gpu;

static char *pin(char *address, size_t length) {
    OK(nvlxi_host_pin(0, address, length));
    return address;
}

static char *make_pages(size_t length) {
    char *made = aligned_alloc(4 * KIB, length);
    if (!made)
        FAIL("no memory of %zu bytes", length);
    return made;
}

/* Buffer 0 is pinned host memory, in two regions; buffer 1 is on the second GPU. */
static void begin(void) {
    bench_begin(&bench, make_engine(0), SIZE);
    bench.local[0] = make_pages(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        bench.local[0][i] = (char)seed_byte(11, i);
    pin(bench.local[0], SIZE);
    halves[0] = register_range(bench.engine, bench.local[0], BORDER, NULL, NVLX_ACCESS_NONE);
    halves[1] = register_range(bench.engine, bench.local[0] + BORDER, BORDER, "upper", NVLX_ACCESS_NONE);
    on_gpu = register_range(bench.engine, bench.local[1], SIZE, NULL, NVLX_ACCESS_NONE);
    owner_register(&bench.owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "near");
    owner_register(&bench.owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ_WRITE, "far");
    bench_open_peer(&bench);
}

static void end(void) {
    char *pages = bench.local[0];
    bench_end(&bench);
    nvlxi_host_unpin(pages);
    free(pages);
}

/* ---- What moves ---------------------------------------------------------------------------------------- */

/* Both directions, host memory and a GPU's, short and long, at odd places, over the border. */
static void fill_ops(struct nvlx_op ops[OPS]) {
    for (size_t i = 0; i < OPS; i++)
        ops[i] = bench_op(&bench, i % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, i % 3 == 2, 68000 * i + i % 5, 68000 * i + 7,
                          i % 7 == 0 ? 67000 : 700 + i);
    ops[3] = bench_op(&bench, NVLX_OP_READ, 0, BORDER - 13, 68000 * 3, 100);
}

static void lists_move(void) {
    struct nvlx_op ops[OPS];
    begin();
    fill_ops(ops);
    EQUAL(0, bench_move_by(&bench, NVLX_MECHANISM_COPY_ENGINE, ops, OPS).kernel_bytes);
    EQUAL(0, bench_move_by(&bench, NVLX_MECHANISM_KERNEL, ops, OPS).engine_bytes);
    bench_move_by(&bench, NVLX_MECHANISM_AUTO, ops, OPS);
    end();
}

/* 20 of each, at distances that make no rows of them: what is longer than 64 KiB goes by engines, where a GPU's memory
 * still goes by kernels. */
static void long_ones_go_by_engines(void) {
    struct nvlx_op ops[20];
    begin();
    for (int gpu = 0; gpu < 2; gpu++) {
        for (size_t i = 0; i < COUNT(ops); i++)
            ops[i] = bench_op(&bench, NVLX_OP_READ, gpu, 100000 * i, 100000 * i + 16 * i * i, 80000);
        const struct nvlx_request_info info = bench_move_by(&bench, NVLX_MECHANISM_AUTO, ops, COUNT(ops));
        EQUAL(gpu ? 0 : COUNT(ops) * 80000, info.engine_bytes);
        for (size_t i = 0; i < COUNT(ops); i++)
            ops[i] = bench_op(&bench, NVLX_OP_READ, gpu, 100000 * i, 100000 * i + 16 * i * i, 65536);
        EQUAL(0, bench_move_by(&bench, NVLX_MECHANISM_AUTO, ops, COUNT(ops)).engine_bytes);
    }
    end();
}

static void rows_move(void) {
    struct nvlx_rows rows = {.count = 25, .local_pitch = 80000, .remote_pitch = 4000};
    struct nvlx_op op, flat[25];
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    begin();
    for (size_t m = 0; m < COUNT(mechanisms); m++) {
        struct nvlx_transfer_options options;
        struct nvlx_request *request;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanisms[m];
        op = bench_op(&bench, m % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, 0, 5, 7 * m, 3000);
        op.flags = NVLX_OP_ROWS;
        op.arg = (uint64_t)(uintptr_t)&rows;
        OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
        finish(request);
        for (size_t i = 0; i < rows.count; i++)
            flat[i] = bench_op(&bench, op.opcode, 0, 5 + i * rows.local_pitch, 7 * m + i * rows.remote_pitch, 3000);
        bench_apply(&bench, flat, rows.count);
        bench_compare(&bench, "rows");
    }
    end();
}

static void blocks_move(void) {
    struct nvlx_block_ids ids;
    begin();
    struct nvlx_blocks *blocks = bench_move_blocks(&bench, 1);
    nvlx_block_ids_init(&ids);
    ids.count = 3;
    ids.flags = NVLX_IDS_ON_GPU; /* host memory is no GPU's */
    ids.local = ids.remote = bench.local[0];
    struct nvlx_request *none;
    REFUSED(nvlx_blocks_transfer(blocks, &ids, NULL, &none), NVLX_EINVAL, "on GPU 0");
    OK(nvlx_blocks_free(blocks));
    end();
}

/* Offload within one process: the GPU at the other end copies, so that kernels can, whatever GPU that is. */
static void moves_within_the_process(void) {
    begin();
    register_range(bench.engine, bench.local[1], SIZE, "own", NVLX_ACCESS_READ_WRITE);
    char *text;
    size_t length;
    OK(nvlx_export(bench.engine, &text, &length));
    struct nvlx_peer *self = open_peer(bench.engine, text);
    nvlx_text_free(text);
    for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
        struct nvlx_transfer_options options;
        struct nvlx_request *request;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        const size_t at = 1000 * mechanism;
        const struct nvlx_op op =
            make_op(NVLX_OP_WRITE, self, bench.local[0] + at, (uintptr_t)bench.local[1] + 7, 100000 + at);
        OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
        finish(request);
        memcpy(bench.model_local[1] + 7, bench.model_local[0] + at, op.length);
        bench_compare(&bench, "within the process");
    }
    OK(nvlx_peer_close(self));
    end();
}

/* ---- What is refused ----------------------------------------------------------------------------------- */

static void refuse(const void *address, size_t length, uint32_t access, int code, const char *words) {
    struct nvlx_region_options options;
    struct nvlx_region *region;
    nvlx_region_options_init(&options);
    options.access = access;
    const struct nvlx_engine_info before = engine_info(bench.engine);
    REFUSED(nvlx_register(bench.engine, address, length, &options, &region), code, words);
    EQUAL(before.regions, engine_info(bench.engine).regions);
    EQUAL(before.segments, engine_info(bench.engine).segments);
}

static void others_are_refused(void) {
    begin();
    char *plain = make_pages(SIZE);
    for (uint32_t access = NVLX_ACCESS_READ; access <= NVLX_ACCESS_READ_WRITE; access++)
        refuse(bench.local[0], 100, access, NVLX_ENOTSUP, "NVLX_ACCESS_NONE");
    for (uint32_t access = NVLX_ACCESS_NONE; access <= NVLX_ACCESS_READ_WRITE; access++)
        refuse(plain, 100, access, NVLX_ENOTSUP, "cudaHostRegister");
    refuse(bench.local[0] + SIZE - 1, 2, NVLX_ACCESS_NONE, NVLX_ERANGE, "beyond its allocation's end");
    EQUAL(1, engine_info(bench.engine).handles_exported); /* that of the GPU's memory */
    char *text;
    size_t length;
    OK(nvlx_export(bench.engine, &text, &length));
    EXPECT(strstr(text, "upper") == NULL && strstr(text, "\"segments\":[]"));
    nvlx_text_free(text);
    free(plain);
    end();
}

/* ---- Its life ------------------------------------------------------------------------------------------ */

static void unregister_waits_for_transfers(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct stream stream;
    begin();
    open_stream(&stream);
    stream_stands_still(&stream);
    nvlx_transfer_options_init(&options);
    options.stream = stream.lane;
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 100, 200, 3000);
    OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
    REFUSED(nvlx_unregister(halves[0], 0), NVLX_ETIMEDOUT, "an own transfer in flight");
    OK(nvlx_unregister(halves[1], 0)); /* it has no byte there */
    stream_goes_on(&stream);
    OK(nvlx_unregister(halves[0], PATIENCE));
    OK(nvlx_test(request));
    OK(nvlx_request_free(request));
    bench_apply(&bench, &op, 1);
    bench_compare(&bench, "read meanwhile");
    struct nvlx_request *none;
    REFUSED(nvlx_transfer(bench.engine, &op, 1, NULL, &none), NVLX_ERANGE, "local");
    stream_end(&stream);
    close_stream(&stream);
    end();
}

static void unpinned_without_a_word_is_found(void) {
    begin();
    const struct nvlx_op low = bench_op(&bench, NVLX_OP_READ, 0, 100, 200, 3000),
                         other = bench_op(&bench, NVLX_OP_READ, 1, BORDER, 200, 3000);
    struct nvlx_request *none;
    EXPECT(nvlxi_host_unpin(bench.local[0]));
    OK(nvlx_check(bench.engine));
    REFUSED(nvlx_transfer(bench.engine, &low, 1, NULL, &none), NVLX_ERANGE, "local");
    bench_move(&bench, &other, 1, NULL, "to other memory");
    pin(bench.local[0], SIZE);
    register_range(bench.engine, bench.local[0], BORDER, NULL, NVLX_ACCESS_NONE);
    bench_move(&bench, &low, 1, NULL, "pinned again");
    OK(nvlx_unregister(halves[0], 0));
    bench_move(&bench, &low, 1, NULL, "the old one unregistered");
    end();
}

/* Two allocations back to back: no region goes on from one into the other, but an op does, as two copies. */
static void ops_cross_allocations(void) {
    begin();
    for (int i = 0; i < 2; i++)
        OK(nvlx_unregister(halves[i], 0));
    EXPECT(nvlxi_host_unpin(bench.local[0]));
    for (int i = 0; i < 2; i++)
        halves[i] = register_range(bench.engine, pin(bench.local[0] + (i ? BORDER : 0), BORDER), BORDER, NULL,
                                   NVLX_ACCESS_NONE);
    refuse(bench.local[0] + BORDER - 1, 2, NVLX_ACCESS_NONE, NVLX_ERANGE, "beyond its allocation's end");
    for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
        struct nvlx_transfer_options options;
        struct nvlx_request *request;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, BORDER - 70000, mechanism, 140001);
        OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
        finish(request);
        bench_apply(&bench, &op, 1);
        EXPECT(memcmp(bench.local[0], bench.model_local[0], SIZE) == 0);
    }
    for (int i = 0; i < 2; i++)
        EXPECT(nvlxi_host_unpin(bench.local[0] + (i ? BORDER : 0)));
    pin(bench.local[0], SIZE);
    end();
}

/* Kernels of other processes cannot set them there, nor do streams wait for them there. */
static void counts_cannot_lie_there(void) {
    struct nvlx_region_options options;
    struct nvlx_region *ready;
    struct stream stream;
    uint64_t value;
    begin();
    open_stream(&stream);
    void *pinned = bench.local[0];
    struct nvlx_peer *self = peer_of(bench.engine, bench.engine);
    REFUSED(nvlx_stream_wait(bench.engine, stream.lane, self, pinned, 1, NULL, NULL), NVLX_EINVAL, "host memory");
    REFUSED(nvlx_signal_read(bench.engine, pinned, &value), NVLX_EINVAL, "host memory");
    REFUSED(nvlx_signal_wait(bench.engine, NULL, pinned, 1, 0), NVLX_EINVAL, "host memory");
    const struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_READ, 0, 4096, 0, 8),
                                  {.opcode = NVLX_OP_SIGNAL, .local = pinned, .arg = 1}};
    for (size_t from = 0; from < COUNT(ops); from++) {
        struct nvlx_request *request;
        REFUSED(nvlx_transfer(bench.engine, ops + from, COUNT(ops) - from, NULL, &request), NVLX_EINVAL, "host memory");
    }
    nvlx_region_options_init(&options);
    options.ready = pinned;
    OK(nvlx_register(bench.engine, bench.local[1], 64, &options, &ready));
    REFUSED(nvlx_region_ready(ready, stream.lane), NVLX_EINVAL, "host memory");
    /* No descriptor has it: not even a peer that is this process. */
    GIVES(NVLX_ERANGE, nvlx_stream_signal(bench.engine, stream.lane, self, (uintptr_t)pinned, 1, 0));
    close_stream(&stream);
    end();
}

/* A prepared list sleeps with its memory, which is unpinned, and pinned once more, while it sleeps. */
static void prepared_lists_sleep_and_wake(void) {
    struct nvlx_op ops[OPS];
    struct nvlx_request *none;
    begin();
    fill_ops(ops);
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, OPS);
    for (int round = 0; round < 2; round++) {
        finish(bench_post(prepared));
        bench_apply(&bench, ops, OPS);
        bench_compare(&bench, "posted");
        REFUSED(nvlx_unregister(halves[0], 0), NVLX_EBUSY, "a prepared list");
        OK(nvlx_suspend(halves, 2, 0));
        REFUSED(nvlx_post(prepared, NULL, &none), NVLX_ESUSPENDED, "is suspended");
        EXPECT(nvlxi_host_unpin(bench.local[0]));
        REFUSED(nvlx_resume(halves, 2, NULL), NVLX_ENOTSUP, "cudaHostRegister");
        pin(bench.local[0], SIZE);
        OK(nvlx_resume(halves, 2, NULL));
    }
    finish(bench_post(prepared));
    bench_apply(&bench, ops, OPS);
    bench_compare(&bench, "posted when awake");
    OK(nvlx_prepared_free(prepared));
    end();
}

/* What is shared cannot wake there; what is private can wake anywhere. */
static void wakes_as_other_memory(void) {
    begin();
    struct nvlx_region *shared = register_range(bench.engine, bench.local[1], SIZE, "s", NVLX_ACCESS_READ);
    void *pinned[] = {bench.local[0]}, *gpu[] = {bench.local[1]};
    OK(nvlx_suspend(&shared, 1, 0));
    REFUSED(nvlx_resume(&shared, 1, pinned), NVLX_ENOTSUP, "NVLX_ACCESS_NONE");
    OK(nvlx_resume(&shared, 1, gpu));
    OK(nvlx_suspend(halves, 1, 0));
    OK(nvlx_resume(halves, 1, gpu));
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 1, 5, 6, 700);
    bench_move(&bench, &op, 1, NULL, "to the GPU");
    OK(nvlx_suspend(halves, 1, 0));
    OK(nvlx_resume(halves, 1, pinned));
    const struct nvlx_op back = bench_op(&bench, NVLX_OP_WRITE, 0, 5, 6, 700);
    bench_move(&bench, &back, 1, NULL, "from host memory again");
    end();
}

static void digests_are_of_the_bytes(void) {
    uint64_t of_host, of_gpu, told;
    begin();
    OK(nvlx_memcpy(bench.engine, bench.local[1], bench.local[0], SIZE));
    OK(nvlx_digest(bench.engine, bench.local[0] + 3, SIZE - 3, &of_host));
    OK(nvlx_digest(bench.engine, bench.local[1] + 3, SIZE - 3, &of_gpu));
    EXPECT(of_host == of_gpu);
    told = owner_set_digest(&bench.owner, 0);
    bench_open_peer(&bench);
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, SIZE);
    OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
    finish(request);
    OK(nvlx_digest(bench.engine, bench.local[0], SIZE, &of_host));
    EXPECT(of_host == told);
    owner_fill(&bench.owner, 0, 9, 1, 77);
    OK(nvlx_transfer(bench.engine, &op, 1, &options, &request));
    GIVES(NVLX_EDIGEST, nvlx_wait(request, PATIENCE));
    GIVES(NVLX_EDIGEST, nvlx_request_free(request));
    end();
}

static const struct test tests[] = {
    {"lists_move", lists_move},
    {"long_ones_go_by_engines", long_ones_go_by_engines},
    {"rows_move", rows_move},
    {"blocks_move", blocks_move},
    {"moves_within_the_process", moves_within_the_process},
    {"others_are_refused", others_are_refused},
    {"unregister_waits_for_transfers", unregister_waits_for_transfers},
    {"ops_cross_allocations", ops_cross_allocations},
    {"counts_cannot_lie_there", counts_cannot_lie_there},
    {"unpinned_without_a_word_is_found", unpinned_without_a_word_is_found},
    {"prepared_lists_sleep_and_wake", prepared_lists_sleep_and_wake},
    {"wakes_as_other_memory", wakes_as_other_memory},
    {"digests_are_of_the_bytes", digests_are_of_the_bytes},
    {NULL, NULL},
};
static const struct role roles[] = {OWNER_ROLE, {NULL, NULL}};

int main(int argc, char **argv) {
    return run_tests(argc, argv, tests, roles, 60);
}
