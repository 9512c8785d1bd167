/* Rows between two GPUs: all bytes are right, whoever carries them, and what that costs beside CUDA's own 2D copy.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: cuda_rows            every row's bytes, of some shapes
 *        cuda_rows bench      rates too, of more shapes: GB/s of the rows, seen complete; medians
 *        cuda_rows blocks     rates of blocks of layers, as flat lists
 *
 * A shape is rows of WIDTH bytes every PITCH bytes on both sides, as many as fit into 256 MiB, or 8192 of them. A block
 * has a row in each of 64 layers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/support/cuda_support.h"

#define SEGMENT   (2048 * MIB)
#define BYTES_MAX (256 * MIB)
#define TIMES     9
#define FEW       8                   /* rectangles */
#define FLAT_MAX  ((uint64_t)1 << 20) /* ops of a list that is measured */

struct shape {
    uint64_t width, pitch, most; /* most: rows */
};

static const struct shape tested[] = {{1, 2, 5000},       {16, 48, 100000},    {100, 1000, 3000},
                                      {1024, 2048, 8192}, {4096, 8192, 65536}, {100000, 100003, 300}};
static const struct shape measured[] = {
    {16, 32, UINT64_MAX},   {32, 64, UINT64_MAX},     {64, 128, UINT64_MAX},    {128, 256, UINT64_MAX},
    {256, 512, UINT64_MAX}, {1024, 2048, UINT64_MAX}, {4096, 8192, UINT64_MAX}, {32768, 65536, UINT64_MAX},
    {1024, 2048, 8192},     {4096, 8192, 8192},       {64, 65536, 8192},        {256, 65536, 8192},
    {256, 512, 4096},       {256, 512, 8192},         {1024, 2048, 512},        {1024, 2048, 1024},
    {1024, 2048, 2048},     {4096, 8192, 256},        {4096, 8192, 1024},       {4096, 8192, 2048},
    {32768, 65536, 64},     {32768, 65536, 256},      {1000, 3000, 65536},      {100, 1000, 65536}};

static const struct shape small[] = {{64, 128, 512},   {64, 128, 8192},   {64, 128, 32768}, {1000, 3000, 64},
                                     {1000, 2001, 16}, {1024, 2048, 256}, {4096, 8192, 64}, {32768, 65536, 16}};

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static struct cuda_owner owner;
static char *local, *imported;
static uint64_t remote;
static cudaStream_t stream;

static void begin(void) {
    const int other = gpus_needed(2) > 1;
    cuda_owner_start(&owner, other, 1, SEGMENT, NULL);
    engine = engine_on_pair(0, 0);
    peer = cuda_owner_open(&owner, engine);
    remote = cuda_owner_address(peer, 0);
    CUDA(cudaSetDevice(0));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    void *memory;
    CUDA(cudaMalloc(&memory, SEGMENT));
    local = memory;
    CUDA(cudaIpcOpenMemHandle(&memory, cuda_owner_handle(&owner), cudaIpcMemLazyEnablePeerAccess));
    imported = memory;
    register_range(engine, local, SEGMENT, NULL, NVLX_ACCESS_NONE);
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
    CUDA(cudaIpcCloseMemHandle(imported));
    CUDA(cudaFree(local));
    CUDA(cudaStreamDestroy(stream));
    cuda_owner_end(&owner);
}

static uint64_t count_of(const struct shape *shape) {
    uint64_t count = (SEGMENT - shape->width) / shape->pitch + 1;
    count = count < BYTES_MAX / shape->width ? count : BYTES_MAX / shape->width;
    return count < shape->most ? count : shape->most;
}

/* ---- The bytes ------------------------------------------------------------------------------------------- */

static uint8_t *rows_at(const char *address, const struct shape *shape, uint64_t count) {
    uint8_t *bytes = malloc(count * shape->width);
    EXPECT(bytes != NULL);
    CUDA(cudaMemcpy2D(bytes, shape->width, address, shape->pitch, shape->width, count, cudaMemcpyDeviceToHost));
    return bytes;
}

/* What lies between the rows keeps its bytes, too. */
static void expect_rows(const struct shape *shape, uint64_t count, const char *when) {
    const uint64_t gap = shape->pitch - shape->width;
    const struct shape between = {gap, shape->pitch, UINT64_MAX};
    uint8_t *got = rows_at(local, shape, count), *wanted = rows_at(imported, shape, count);
    uint8_t *gaps = rows_at(local + shape->width, &between, count - 1);
    if (memcmp(got, wanted, count * shape->width))
        FAIL("rows of %" PRIu64 " bytes are wrong: %s", shape->width, when);
    for (uint64_t i = 0; i < (count - 1) * gap; i++)
        if (gaps[i] != 0xa5)
            FAIL("a byte between rows of %" PRIu64 " bytes has changed: %s", shape->width, when);
    free(got);
    free(wanted);
    free(gaps);
}

/* ---- Ways ------------------------------------------------------------------------------------------------ */

static struct nvlx_op *make_list(uint32_t opcode, const struct shape *shape, uint64_t count) {
    struct nvlx_op *ops = malloc(count * sizeof *ops);
    EXPECT(ops != NULL);
    for (uint64_t i = 0; i < count; i++)
        ops[i] = make_op(opcode, peer, local + i * shape->pitch, remote + i * shape->pitch, shape->width);
    return ops;
}

static double transfer_ms(const struct nvlx_op *ops, size_t count, uint32_t mechanism, struct nvlx_request_info *info) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    const double since = now_ms();
    OK(nvlx_transfer(engine, ops, count, &options, &request));
    OK(nvlx_wait(request, GPU_PATIENCE));
    const double took = now_ms() - since;
    *info = (struct nvlx_request_info){.size = sizeof *info};
    OK(nvlx_request_get_info(request, info));
    OK(nvlx_request_free(request));
    return took;
}

static double post_ms(struct nvlx_prepared *prepared) {
    struct nvlx_request *request;
    const double since = now_ms();
    OK(nvlx_post(prepared, NULL, &request));
    OK(nvlx_wait(request, GPU_PATIENCE));
    const double took = now_ms() - since;
    OK(nvlx_request_free(request));
    return took;
}

static double raw_ms(uint32_t opcode, const struct shape *shape, uint64_t count) {
    char *to = opcode == NVLX_OP_READ ? local : imported;
    const char *from = opcode == NVLX_OP_READ ? imported : local;
    const double since = now_ms();
    CUDA(cudaMemcpy2DAsync(to, shape->pitch, from, shape->pitch, shape->width, count, cudaMemcpyDefault, stream));
    CUDA(cudaStreamSynchronize(stream));
    return now_ms() - since;
}

static struct nvlx_op rows_op(uint32_t opcode, const struct shape *shape, const struct nvlx_rows *rows) {
    struct nvlx_op op = make_op(opcode, peer, local, remote, shape->width);
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)rows;
    return op;
}

/* ---- Tests ----------------------------------------------------------------------------------------------- */

static void check_shape(const struct shape *shape) {
    static const char *const names[] = {"default", "auto", "copy_engine", "kernel"};
    const uint64_t count = count_of(shape);
    const struct nvlx_rows rows = {count, shape->pitch, shape->pitch};
    const struct nvlx_op op = rows_op(NVLX_OP_READ, shape, &rows);
    struct nvlx_op *flat = make_list(NVLX_OP_READ, shape, count);
    struct nvlx_request_info info;
    for (uint32_t mechanism = 0; mechanism < COUNT(names); mechanism++) {
        CUDA(cudaMemset(local, 0xa5, SEGMENT));
        CUDA(cudaDeviceSynchronize());
        transfer_ms(&op, 1, mechanism, &info);
        EXPECT(mechanism != NVLX_MECHANISM_COPY_ENGINE || info.sms == 0);
        EXPECT(mechanism != NVLX_MECHANISM_KERNEL || info.engine_bytes == 0);
        expect_rows(shape, count, names[mechanism]);
    }
    struct nvlx_prepared *prepared;
    CUDA(cudaMemset(local, 0xa5, SEGMENT));
    CUDA(cudaDeviceSynchronize());
    OK(nvlx_prepare(engine, flat, count, NULL, &prepared));
    post_ms(prepared);
    expect_rows(shape, count, "a flat list");
    OK(nvlx_prepared_free(prepared));
    free(flat);
}

/* ---- Rates ----------------------------------------------------------------------------------------------- */

enum { RAW, AUTO, ENGINES, KERNEL, FLAT, PREPARED, WAYS };

/* Of all ways in turn; the first round does not count. */
static void measure(uint32_t opcode, const struct shape *shape) {
    const uint64_t count = count_of(shape);
    const struct nvlx_rows rows = {count, shape->pitch, shape->pitch};
    const struct nvlx_op op = rows_op(opcode, shape, &rows);
    struct nvlx_op *flat = count <= FLAT_MAX ? make_list(opcode, shape, count) : NULL;
    struct nvlx_prepared *prepared = NULL;
    struct nvlx_request_info by_auto, info;
    double times[WAYS][TIMES] = {{0}};
    if (flat)
        OK(nvlx_prepare(engine, flat, count, NULL, &prepared));
    for (int i = -1; i < TIMES; i++) {
        const int at = i < 0 ? 0 : i;
        times[RAW][at] = raw_ms(opcode, shape, count);
        times[ENGINES][at] = transfer_ms(&op, 1, NVLX_MECHANISM_COPY_ENGINE, &info);
        times[KERNEL][at] = transfer_ms(&op, 1, NVLX_MECHANISM_KERNEL, &info);
        times[FLAT][at] = flat ? transfer_ms(flat, count, NVLX_MECHANISM_AUTO, &info) : 0;
        times[PREPARED][at] = flat ? post_ms(prepared) : 0;
        times[AUTO][at] = transfer_ms(&op, 1, NVLX_MECHANISM_AUTO, &by_auto);
    }
    printf("%s %6" PRIu64 " %6" PRIu64 " %8" PRIu64 " ", opcode == NVLX_OP_READ ? "get" : "put", shape->width,
           shape->pitch, count);
    for (int way = 0; way < WAYS; way++) {
        sort_values(times[way], TIMES);
        const double ms = times[way][TIMES / 2];
        printf(" %7.1f", ms > 0 ? (double)(count * shape->width) / ms / 1e6 : 0);
    }
    printf("   auto: %u SMs, submit %.1f us\n", by_auto.sms, (double)by_auto.submit_ns / 1e3);
    if (prepared)
        OK(nvlx_prepared_free(prepared));
    free(flat);
}

/* A few small rectangles in one list: from how many on is a kernel sooner there than the engines? */
static void measure_few(uint32_t opcode, size_t few, const struct shape *shape) {
    const struct nvlx_rows rows = {shape->most, shape->pitch, shape->pitch};
    struct nvlx_op list[FEW];
    double times[3][TIMES];
    struct nvlx_request_info info;
    EXPECT(few <= FEW && FEW * shape->most * shape->pitch <= SEGMENT);
    for (size_t i = 0; i < few; i++) {
        list[i] = rows_op(opcode, shape, &rows);
        list[i].local = local + i * shape->most * shape->pitch;
        list[i].remote = remote + i * shape->most * shape->pitch;
    }
    for (int i = -1; i < TIMES; i++)
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++)
            times[mechanism - 1][i < 0 ? 0 : i] = transfer_ms(list, few, mechanism, &info);
    printf("%s %6" PRIu64 " %6" PRIu64 " %8" PRIu64 " x %zu: ", opcode == NVLX_OP_READ ? "get" : "put", shape->width,
           shape->pitch, shape->most, few);
    for (size_t way = 0; way < COUNT(times); way++) {
        sort_values(times[way], TIMES);
        printf(" %7.1f", times[way][TIMES / 2] * 1e3);
    }
    printf("\n");
}

/* ---- Blocks of layers ------------------------------------------------------------------------------------ */

#define LAYERS     64
#define BLOCKS     625  /* that are copied, at most: 10,000 tokens, 16 a block, */
#define BLOCKS_ALL 1000 /* of so many */

struct table {
    uint64_t width, blocks; /* width: bytes of a row that are copied, */
    uint64_t pitch;         /* of so many */
    bool random;
};

static const struct table tables[] = {
    {4096, 625, 4096, true},  {8192, 625, 8192, true},  {32768, 625, 32768, true},  {4096, 625, 4096, false},
    {8192, 625, 8192, false}, {4096, 625, 8192, false}, {16384, 625, 32768, false}, {4096, 64, 8192, false},
    {1024, 64, 2048, false},  {4096, 8, 8192, false},   {4096, 2, 8192, false},
};

/* Numbers of blocks, each once: the first ones, or any. */
static void choose_blocks(uint64_t blocks[BLOCKS_ALL], bool random, uint64_t seed) {
    for (uint64_t i = 0; i < BLOCKS_ALL; i++)
        blocks[i] = i;
    for (uint64_t i = 0; i < BLOCKS && random; i++) {
        const uint64_t other = i + next_random(&seed) % (BLOCKS_ALL - i), kept = blocks[i];
        blocks[i] = blocks[other];
        blocks[other] = kept;
    }
}

static struct nvlx_op *make_blocks(uint32_t opcode, const struct table *table) {
    static uint64_t here[BLOCKS_ALL], there[BLOCKS_ALL];
    struct nvlx_op *ops = malloc(table->blocks * LAYERS * sizeof *ops);
    EXPECT(ops != NULL && LAYERS * BLOCKS_ALL * table->pitch <= SEGMENT);
    choose_blocks(here, table->random, 1);
    choose_blocks(there, table->random, 2);
    for (uint64_t block = 0; block < table->blocks; block++)
        for (uint64_t layer = 0; layer < LAYERS; layer++)
            ops[block * LAYERS + layer] =
                make_op(opcode, peer, local + (layer * BLOCKS_ALL + here[block]) * table->pitch,
                        remote + (layer * BLOCKS_ALL + there[block]) * table->pitch, table->width);
    return ops;
}

/* That the last list has read what it should: each row in the peer's memory as it is here. */
static void expect_blocks(const struct nvlx_op *ops, const struct table *table) {
    const size_t size = LAYERS * BLOCKS_ALL * table->pitch;
    char *got = malloc(size), *wanted = malloc(size);
    EXPECT(got && wanted);
    CUDA(cudaMemcpy(got, local, size, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(wanted, imported, size, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < table->blocks * LAYERS; i++)
        if (memcmp(got + ((char *)ops[i].local - local), wanted + (ops[i].remote - remote), ops->length))
            FAIL("row %zu of the blocks is wrong", i);
    free(got);
    free(wanted);
}

/* In one call, and prepared. */
static void measure_blocks_by(uint32_t mechanism, const struct nvlx_op *ops, const struct table *table) {
    const size_t count = table->blocks * LAYERS;
    const bool read = ops->opcode == NVLX_OP_READ;
    double times[2][TIMES];
    struct nvlx_request_info info;
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    OK(nvlx_prepare(engine, ops, count, &options, &prepared));
    if (read)
        CUDA(cudaMemset(local, 0xa5, SEGMENT));
    CUDA(cudaDeviceSynchronize());
    for (int time = -1; time < TIMES; time++) {
        times[0][time < 0 ? 0 : time] = transfer_ms(ops, count, mechanism, &info);
        if (time < 0 && read && table->pitch <= 8192)
            expect_blocks(ops, table);
        times[1][time < 0 ? 0 : time] = post_ms(prepared);
    }
    for (int way = 0; way < 2; way++) {
        sort_values(times[way], TIMES);
        printf(" %7.1f", (double)(count * table->width) / times[way][TIMES / 2] / 1e6);
    }
    printf(" (%2u SMs, %3" PRIu64 " engine copies)", info.sms, info.engine_fragments);
    OK(nvlx_prepared_free(prepared));
}

static void measure_blocks(uint32_t opcode, const struct table *table) {
    struct nvlx_op *ops = make_blocks(opcode, table);
    printf("%s %6" PRIu64 " of %6" PRIu64 " %3" PRIu64 " %s blocks:", opcode == NVLX_OP_READ ? "get" : "put",
           table->width, table->pitch, table->blocks, table->random ? "random     " : "consecutive");
    measure_blocks_by(NVLX_MECHANISM_AUTO, ops, table);
    measure_blocks_by(NVLX_MECHANISM_COPY_ENGINE, ops, table);
    printf("\n");
    free(ops);
}

static void measure_all_blocks(void) {
    printf(
        "    bytes a row                        by auto: call, prepared        by engines: call, prepared      GB/s\n");
    for (size_t i = 0; i < 2 * COUNT(tables); i++)
        measure_blocks(i % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, &tables[i / 2]);
}

static void measure_rates(void) {
    printf("     width  pitch     rows      raw    auto engines  kernel    flat prepared   GB/s\n");
    for (size_t i = 0; i < 2 * COUNT(measured); i++)
        measure(i % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, &measured[i / 2]);
    printf("     width  pitch     rows   few     auto engines  kernel    us\n");
    for (size_t i = 0; i < 2 * COUNT(small); i++)
        for (size_t few = 1; few <= FEW; few += few < 4 ? 1 : 4)
            measure_few(i % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, few, &small[i / 2]);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {CUDA_OWNER_ROLE, {0}};
    begin_process(argc, argv, roles, argc > 1 ? 300 : PROCESS_SECONDS);
    begin();
    for (size_t i = 0; i < COUNT(tested); i++)
        check_shape(&tested[i]);
    printf("%zu shapes of rows have the right bytes\n", COUNT(tested));
    if (argc > 1 && strcmp(argv[1], "bench") == 0)
        measure_rates();
    if (argc > 1 && strcmp(argv[1], "blocks") == 0)
        measure_all_blocks();
    end();
    return 0;
}
