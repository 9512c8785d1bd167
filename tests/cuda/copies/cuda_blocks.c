/* Blocks by id between two GPUs: every byte, and what they cost beside a list of the same copies.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: cuda_blocks          every byte of the shapes below, both directions, all mechanisms
 *        cuda_blocks bench    and GB/s, and the CPU's time in the call */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/support/cuda_support.h"

enum { BLOCKS = 800, PICKED = 625, REGIONS_MAX = 80, TIMES = 15 };
#define SEGMENT ((size_t)BLOCKS * 64 * 32 * KIB)

struct shape {
    const char *name;
    uint32_t regions;
    uint64_t stride, length, here, there; /* of a block; offsets in it */
    bool side_by_side;                    /* the regions of a block, on the peer's side; else region after region */
};

static const struct shape shapes[] = {{"64 x 32 KiB", 64, 32 * KIB, 32 * KIB, 0, 0, false},
                                      {"64 x 8 KiB", 64, 8 * KIB, 8 * KIB, 0, 0, false},
                                      {"64 x 4 KiB", 64, 4 * KIB, 4 * KIB, 0, 0, false},
                                      {"64 x half of 32 KiB", 64, 32 * KIB, 16 * KIB, 0, 16 * KIB, false},
                                      {"64 x 8 KiB, blocks outermost there", 64, 8 * KIB, 8 * KIB, 0, 0, true},
                                      {"80 x 1000 bytes of 1 KiB, odd", 80, KIB, 1000, 3, 7, false},
                                      {"1 x 72 KiB", 1, 72 * KIB, 72 * KIB, 0, 0, false}};

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static struct cuda_owner owner;
static char *local, *imported;
static uint64_t remote;
static uint32_t ids[2][PICKED];
static uint8_t *before, *model; /* of the side that is read, and of the one that is written */

static void begin(void) {
    struct nvlx_region *region;
    const int other = gpus_needed(2) > 1 ? 1 : 0;
    cuda_owner_start(&owner, other, 1, SEGMENT, NULL);
    engine = engine_on_pair(0, 0);
    CUDA(cudaSetDevice(0));
    CUDA(cudaMalloc((void **)&local, SEGMENT));
    OK(nvlx_register(engine, local, SEGMENT, NULL, &region));
    peer = cuda_owner_open(&owner, engine);
    remote = cuda_owner_address(peer, 0);
    cudaIpcMemHandle_t handle = cuda_owner_handle(&owner);
    CUDA(cudaIpcOpenMemHandle((void **)&imported, handle, cudaIpcMemLazyEnablePeerAccess));
    EXPECT((before = malloc(SEGMENT)) && (model = malloc(SEGMENT)));
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
    CUDA(cudaIpcCloseMemHandle(imported));
    CUDA(cudaFree(local));
    cuda_owner_end(&owner);
    free(before);
    free(model);
}

/* ---- Tables and ids -------------------------------------------------------------------------------------- */

static void shuffle(uint32_t *chosen, uint64_t *state) {
    uint32_t all[BLOCKS];
    for (uint32_t i = 0; i < BLOCKS; i++)
        all[i] = i;
    for (uint32_t i = 0; i < PICKED; i++) {
        const uint32_t other = i + next_random(state) % (BLOCKS - i);
        chosen[i] = all[other];
        all[other] = all[i];
    }
}

static struct nvlx_block_region region_of(const struct shape *shape, uint64_t base, uint64_t offset, uint32_t number,
                                          bool side_by_side) {
    return (struct nvlx_block_region){.base = base + number * (side_by_side ? shape->stride : shape->stride * BLOCKS),
                                      .stride = side_by_side ? shape->stride * shape->regions : shape->stride,
                                      .offset = offset,
                                      .length = shape->length,
                                      .blocks = BLOCKS};
}

static void make_tables(const struct shape *shape, struct nvlx_block_region *here, struct nvlx_block_region *there) {
    for (uint32_t i = 0; i < shape->regions; i++) {
        here[i] = region_of(shape, (uint64_t)(uintptr_t)local, shape->here, i, false);
        there[i] = region_of(shape, remote, shape->there, i, shape->side_by_side);
    }
}

static struct nvlx_blocks *make_blocks(const struct shape *shape) {
    struct nvlx_block_region here[REGIONS_MAX], there[REGIONS_MAX];
    struct nvlx_blocks_options options;
    struct nvlx_blocks *blocks;
    nvlx_blocks_options_init(&options);
    options.access = NVLX_ACCESS_READ_WRITE;
    make_tables(shape, here, there);
    OK(nvlx_blocks_create(engine, peer, here, there, shape->regions, &options, &blocks));
    return blocks;
}

static uint64_t at(const struct nvlx_block_region *region, uint32_t id) {
    return region->base + id * region->stride + region->offset;
}

static struct nvlx_op *make_list(const struct shape *shape, uint32_t opcode) {
    struct nvlx_block_region here[REGIONS_MAX], there[REGIONS_MAX];
    struct nvlx_op *ops = malloc(PICKED * shape->regions * sizeof *ops), *op = ops;
    EXPECT(ops != NULL);
    make_tables(shape, here, there);
    for (uint32_t j = 0; j < PICKED; j++)
        for (uint32_t i = 0; i < shape->regions; i++)
            *op++ = make_op(opcode, peer, (void *)(uintptr_t)at(&here[i], ids[0][j]), at(&there[i], ids[1][j]),
                            shape->length);
    return ops;
}

static struct nvlx_request *start_blocks(struct nvlx_blocks *blocks, uint32_t opcode, uint32_t mechanism) {
    struct nvlx_transfer_options options;
    struct nvlx_block_ids list;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    nvlx_block_ids_init(&list);
    list.opcode = opcode;
    list.local = ids[0];
    list.remote = ids[1];
    list.count = PICKED;
    OK(nvlx_blocks_transfer(blocks, &list, &options, &request));
    return request;
}

/* ---- The bytes ------------------------------------------------------------------------------------------- */

static void apply(const struct shape *shape, uint32_t opcode, uint32_t count) {
    struct nvlx_block_region here[REGIONS_MAX], there[REGIONS_MAX];
    make_tables(shape, here, there);
    for (uint32_t i = 0; i < shape->regions; i++)
        for (uint32_t j = 0; j < count; j++) {
            const uint64_t mine = at(&here[i], ids[0][j]) - (uint64_t)(uintptr_t)local;
            const uint64_t theirs = at(&there[i], ids[1][j]) - remote;
            if (opcode == NVLX_OP_READ)
                memcpy(model + mine, before + theirs, shape->length);
            else
                memcpy(model + theirs, before + mine, shape->length);
        }
}

/* All bytes of the side that is written, those between and behind the blocks too. */
static void check(const struct shape *shape, uint32_t opcode, uint32_t mechanism, uint64_t *state) {
    const size_t used = shape->stride * BLOCKS * shape->regions;
    char *to = opcode == NVLX_OP_READ ? local : imported, *from = opcode == NVLX_OP_READ ? imported : local;
    shuffle(ids[0], state);
    shuffle(ids[1], state);
    struct nvlx_blocks *blocks = make_blocks(shape);
    CUDA(cudaMemset(to, (int)(mechanism + 0x50), used));
    CUDA(cudaDeviceSynchronize());
    memset(model, (int)(mechanism + 0x50), used);
    CUDA(cudaMemcpy(before, from, used, cudaMemcpyDeviceToHost));
    apply(shape, opcode, PICKED);
    finish(start_blocks(blocks, opcode, mechanism));
    CUDA(cudaMemcpy(before, to, used, cudaMemcpyDeviceToHost));
    if (memcmp(before, model, used))
        FAIL("%s by mechanism %" PRIu32 ", opcode %" PRIu32 ": bytes are wrong", shape->name, mechanism, opcode);
    OK(nvlx_blocks_free(blocks));
}

static void fill_random(char *to, size_t size, uint64_t *state) {
    for (size_t i = 0; i < size / 4; i++)
        ((uint32_t *)before)[i] = next_random(state);
    CUDA(cudaMemcpy(to, before, size, cudaMemcpyHostToDevice));
    CUDA(cudaDeviceSynchronize());
}

static void check_all(void) {
    uint64_t state = 7;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        const bool large = i == 0 || i == 3; /* the others take less time: by all mechanisms */
        for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
            fill_random(opcode == NVLX_OP_READ ? imported : local, shapes[i].stride * BLOCKS * shapes[i].regions,
                        &state);
            for (uint32_t mechanism = large ? 1 : 0; mechanism <= (large ? 1 : 3); mechanism++)
                check(&shapes[i], opcode, mechanism, &state);
        }
        printf("%s: all bytes right\n", shapes[i].name);
        fflush(stdout);
    }
}

/* ---- Ids on the GPU ---------------------------------------------------------------------------------------- */

/* A kernel in the stream writes the ids, 20 ms after the call; before that they are out of range. */
static void check_ids_from_stream(const struct shape *shape, bool broken, uint64_t *state) {
    const size_t used = shape->stride * BLOCKS * shape->regions;
    struct nvlx_transfer_options options;
    struct nvlx_block_ids list;
    struct nvlx_request *request;
    uint32_t *ready, *late;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMalloc((void **)&ready, sizeof ids));
    CUDA(cudaMalloc((void **)&late, sizeof ids));
    shuffle(ids[0], state);
    shuffle(ids[1], state);
    const uint32_t last = ids[1][PICKED - 1];
    ids[1][PICKED - 1] = broken ? BLOCKS : last;
    CUDA(cudaMemcpy(ready, ids, sizeof ids, cudaMemcpyHostToDevice));
    CUDA(cudaMemset(late, 0xff, sizeof ids));
    CUDA(cudaMemset(local, 0x77, used));
    CUDA(cudaMemcpy(before, imported, used, cudaMemcpyDeviceToHost));
    CUDA(cudaDeviceSynchronize());
    memset(model, 0x77, used);
    struct nvlx_blocks *blocks = make_blocks(shape);
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    nvlx_block_ids_init(&list);
    list.flags = NVLX_IDS_ON_GPU;
    list.local = late;
    list.remote = late + PICKED;
    list.count = PICKED;
    CUDA(kernel_write(late, ready, sizeof ids / sizeof *late, 20000000, stream));
    const double since = now_ms();
    OK(nvlx_blocks_transfer(blocks, &list, &options, &request));
    const double took = now_ms() - since;
    GIVES(NVLX_EAGAIN, nvlx_test(request));
    EXPECT(took < 10);
    if (broken) {
        REFUSED(nvlx_wait(request, GPU_PATIENCE), NVLX_ERANGE, "remote id 624, which was on the GPU, is 800");
        GIVES(NVLX_ERANGE, nvlx_request_free(request));
    } else {
        finish(request);
    }
    apply(shape, NVLX_OP_READ, broken ? PICKED - 1 : PICKED);
    CUDA(cudaMemcpy(before, local, used, cudaMemcpyDeviceToHost));
    if (memcmp(before, model, used))
        FAIL("%s, ids from a stream: bytes are wrong", shape->name);
    OK(nvlx_blocks_free(blocks));
    CUDA(cudaFree(ready));
    CUDA(cudaFree(late));
    CUDA(cudaStreamDestroy(stream));
    printf("%s: ids from a stream%s are right; the call took %.1f us\n", shape->name,
           broken ? ", one out of range," : "", 1e3 * took);
}

/* ---- Rates ------------------------------------------------------------------------------------------------- */

static double median(double *values) {
    sort_values(values, TIMES);
    return values[TIMES / 2];
}

enum { BY_ID, LIST, PREPARED, ENGINES, LIST_ENGINES, WAYS };

static struct nvlx_request *start_way(int way, struct nvlx_blocks *blocks, const struct nvlx_op *ops, size_t count,
                                      struct nvlx_prepared *prepared) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = way == LIST_ENGINES ? NVLX_MECHANISM_COPY_ENGINE : NVLX_MECHANISM_AUTO;
    if (way == BY_ID || way == ENGINES)
        return start_blocks(blocks, ops->opcode, way == BY_ID ? NVLX_MECHANISM_AUTO : NVLX_MECHANISM_COPY_ENGINE);
    if (way == PREPARED)
        OK(nvlx_post(prepared, NULL, &request));
    else
        OK(nvlx_transfer(engine, ops, count, &options, &request));
    return request;
}

static double cpu_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* Blocks that are the same, or in a row, would be measured in caches, or joined. */
static void expect_scattered(void) {
    for (int side = 0; side < 2; side++) {
        bool seen[BLOCKS] = {false};
        uint32_t in_row = 0;
        for (uint32_t i = 0; i < PICKED; i++) {
            EXPECT(ids[side][i] < BLOCKS && !seen[ids[side][i]]);
            seen[ids[side][i]] = true;
            in_row += i > 0 && ids[side][i] == ids[side][i - 1] + 1;
        }
        EXPECT(in_row < PICKED / 50);
    }
}

/* In order: runs of blocks that follow each other, as a fresh cache has them. */
static void pick_in_order(void) {
    for (uint32_t i = 0; i < PICKED; i++)
        ids[0][i] = ids[1][i] = i + i / 125 * 8;
}

static void pick_at_random(void) {
    uint64_t picked = 3;
    shuffle(ids[0], &picked);
    shuffle(ids[1], &picked);
    expect_scattered();
}

struct work {
    int way;
    struct nvlx_blocks *blocks;
    struct nvlx_op *ops;
    size_t count;
    struct nvlx_prepared *prepared;
};

/* What the call costs: what the calling thread's clock says, behind another way, and again behind the same; and how
 * long the latter took. */
struct samples {
    double ms[WAYS][TIMES], cold[WAYS][TIMES], cpu[WAYS][TIMES], call[WAYS][TIMES];
    struct nvlx_request_info info[WAYS];
};

static void sample(struct samples *s, const struct work *work, int where, bool again) {
    const int way = work->way;
    struct nvlx_request_info *info = &s->info[way];
    info->size = sizeof *info;
    const double since = now_ms(), before_us = cpu_us();
    struct nvlx_request *request = start_way(way, work->blocks, work->ops, work->count, work->prepared);
    (again ? s->cpu : s->cold)[way][where] = cpu_us() - before_us;
    OK(nvlx_wait(request, GPU_PATIENCE));
    s->ms[way][where] = now_ms() - since;
    OK(nvlx_request_get_info(request, info));
    s->call[way][where] = (double)info->submit_ns / 1e3;
    OK(nvlx_request_free(request));
}

static void report(const struct shape *shape, const char *what, struct samples *s, double bytes) {
    static const char *const names[] = {"by id", "list", "prepared", "by id, engines", "list, engines"};
    printf("%s, %s:\n", what, shape->name);
    for (int way = 0; way < WAYS; way++)
        printf("    %-15s %4.0f GB/s; the call: %7.1f us of CPU (%7.1f behind others), takes %7.1f us; %" PRIu64
               " fragments by kernels, %" PRIu64 " by engines\n",
               names[way], bytes / median(s->ms[way]) / 1e6, median(s->cpu[way]), median(s->cold[way]),
               median(s->call[way]), s->info[way].kernel_fragments, s->info[way].engine_fragments);
    fflush(stdout);
}

static void measure(const struct shape *shape, uint32_t opcode, const char *what) {
    static struct samples samples;
    struct work work = {.blocks = make_blocks(shape), .ops = make_list(shape, opcode)};
    work.count = PICKED * (size_t)shape->regions;
    OK(nvlx_prepare(engine, work.ops, work.count, NULL, &work.prepared));
    for (int i = -2; i < TIMES; i++)
        for (work.way = 0; work.way < WAYS; work.way++)
            for (int again = 0; again < 2; again++)
                sample(&samples, &work, i < 0 ? 0 : i, again);
    report(shape, what, &samples, (double)work.count * (double)shape->length);
    OK(nvlx_prepared_free(work.prepared));
    OK(nvlx_blocks_free(work.blocks));
    free(work.ops);
}

static void measure_all(void) {
    pick_at_random();
    for (size_t i = 0; i < COUNT(shapes); i++)
        measure(&shapes[i], NVLX_OP_READ, "get, random blocks");
    for (size_t i = 0; i < COUNT(shapes); i++)
        measure(&shapes[i], NVLX_OP_WRITE, "put, random blocks");
    pick_in_order();
    for (size_t i = 0; i < 4; i++)
        measure(&shapes[i], NVLX_OP_READ, "get, runs of 125 blocks");
}

int main(int argc, char **argv) {
    static const struct role roles[] = {CUDA_OWNER_ROLE, {0}};
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    begin();
    if (argc > 1)
        measure_all();
    check_all();
    CUDA(kernels_load());
    for (uint64_t state = 5, i = 0; i < 4; i++)
        check_ids_from_stream(&shapes[i < 2 ? 2 : 5], i % 2, &state);
    end();
    return 0;
}
