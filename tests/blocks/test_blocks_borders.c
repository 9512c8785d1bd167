/* Blocks by id over borders: of allocations, of what one chunk of ids holds, of what one kernel takes. Every byte is
 * compared. On the host backend, with faults on demand. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "faulty_device.h"

#define SIZE MIB

static struct bench bench;

static void begin(void) {
    struct nvlx_region *whole[2];
    bench_begin(&bench, make_faulty_engine(0), SIZE);
    bench_register(&bench, SIZE, whole);
}

static void end(void) {
    bench_end(&bench);
}

/* ---- Over the borders of allocations ---------------------------------------------------------------------- */

enum { PARTS = 12, PART = 64 * 1024, STEP = 1000 };

static int by_address(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The begin of two allocations that are side by side. */
static uint64_t find_neighbours(uint64_t *parts) {
    qsort(parts, PARTS, sizeof *parts, by_address);
    for (size_t i = 0; i + 1 < PARTS; i++)
        if (parts[i] + PART == parts[i + 1])
            return parts[i];
    FAIL("no two of %d allocations are side by side", PARTS);
}

struct borders {
    uint64_t here, there;  /* two allocations side by side */
    uint64_t parts[PARTS]; /* the owner's, by slot 2 and later */
    uint8_t mine[2 * PART], theirs[2 * PART];
};

static void begin_borders(struct borders *b) {
    uint64_t sorted[PARTS];
    for (uint32_t i = 0; i < PARTS; i++)
        b->parts[i] = sorted[i] = owner_alloc(&bench.owner, 2 + i, 0, PART, 30 + i);
    b->there = find_neighbours(sorted);
    for (uint32_t i = 0; i < PARTS; i++)
        if (b->parts[i] - b->there < 2 * PART) {
            owner_register(&bench.owner, 2 + i, 2 + i, 0, PART, NVLX_ACCESS_READ_WRITE, NULL);
            for (uint64_t k = 0; k < PART; k++)
                b->theirs[b->parts[i] - b->there + k] = seed_byte(30 + i, k);
        }
    bench_open_peer(&bench);
    for (uint32_t i = 0; i < PARTS; i++)
        sorted[i] = (uint64_t)(uintptr_t)allocate(bench.engine, 0, PART, 99);
    b->here = find_neighbours(sorted);
    for (uint64_t i = 0; i < 2; i++)
        register_range(bench.engine, (void *)(uintptr_t)(b->here + i * PART), PART, NULL, NVLX_ACCESS_NONE);
    for (uint64_t k = 0; k < 2 * PART; k++)
        b->mine[k] = seed_byte(99, k % PART);
}

static void compare_borders(struct borders *b, const char *when) {
    static uint8_t got[PART];
    for (uint64_t i = 0; i < 2; i++) {
        OK(nvlx_memcpy(bench.engine, got, (void *)(uintptr_t)(b->here + i * PART), PART));
        if (memcmp(got, b->mine + i * PART, PART))
            FAIL("%s: bytes here are wrong", when);
    }
    for (uint32_t i = 0; i < PARTS; i++) {
        if (b->parts[i] - b->there >= 2 * PART)
            continue;
        owner_read(&bench.owner, 2 + i, 0, got, PART);
        if (memcmp(got, b->theirs + (b->parts[i] - b->there), PART))
            FAIL("%s: bytes there are wrong", when);
    }
}

/* Blocks over both allocations; a border is in a block's bytes, at their begin or end, or between blocks. */
static void move_over_borders(struct borders *b, uint32_t here, uint32_t there, uint32_t length, uint32_t opcode) {
    enum { COUNT_OF = 2 * PART / STEP };
    struct nvlx_block_region local = {
        .base = b->here, .stride = STEP, .offset = here, .length = length, .blocks = COUNT_OF};
    struct nvlx_block_region remote = local;
    struct nvlx_blocks_options options;
    struct nvlx_block_ids ids;
    struct nvlx_blocks *blocks;
    struct nvlx_request *request;
    uint32_t list[2][COUNT_OF];
    remote.base = b->there;
    remote.offset = there;
    nvlx_blocks_options_init(&options);
    options.access = NVLX_ACCESS_READ_WRITE;
    OK(nvlx_blocks_create(bench.engine, bench.peer, &local, &remote, 1, &options, &blocks));
    for (uint32_t i = 0; i < COUNT_OF; i++) {
        list[0][i] = i;
        list[1][i] = COUNT_OF - 1 - i;
        uint8_t *mine = b->mine + i * STEP + here, *theirs = b->theirs + (COUNT_OF - 1 - i) * STEP + there;
        memcpy(opcode == NVLX_OP_READ ? mine : theirs, opcode == NVLX_OP_READ ? theirs : mine, length);
    }
    nvlx_block_ids_init(&ids);
    ids.opcode = opcode;
    ids.local = list[0], ids.remote = list[1], ids.count = COUNT_OF;
    OK(nvlx_blocks_transfer(blocks, &ids, NULL, &request));
    finish(request);
    OK(nvlx_blocks_free(blocks));
}

static void borders_within_regions(void) {
    static const uint32_t cases[][3] = {/* 64 KiB is 536 bytes into a block */
                                        {0, 0, 1000},  {0, 0, 536},   {0, 0, 537},   {536, 536, 464}, {535, 100, 100},
                                        {0, 500, 100}, {500, 0, 100}, {700, 0, 300}, {0, 700, 300},   {600, 600, 400}};
    static struct borders b;
    char when[64];
    begin();
    begin_borders(&b);
    for (size_t i = 0; i < COUNT(cases); i++)
        for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
            move_over_borders(&b, cases[i][0], cases[i][1], cases[i][2], opcode);
            snprintf(when, sizeof when, "case %zu, opcode %u", i, opcode);
            compare_borders(&b, when);
        }
    end();
}

/* ---- Over what a chunk holds and a kernel takes ------------------------------------------------------------ */

static void expect_many(uint32_t regions) {
    for (uint32_t i = 0; i < regions; i++)
        for (uint32_t j = 0; j < 10; j++)
            memcpy(bench.model_local[0] + i * 900 + j * 90, bench.model_remote[0] + i * 900 + (9 - j) * 90 + 50, 40);
}

static void many_ids_and_regions(void) {
    enum { MANY = 110000, WIDE = 1100 }; /* ids: more than the longest chunk has room for */
    static struct nvlx_block_region local[WIDE], remote[WIDE];
    static uint32_t ids_here[MANY], ids_there[MANY];
    struct nvlx_block_ids ids;
    struct nvlx_blocks *blocks;
    struct nvlx_request *request;
    begin();
    for (uint32_t i = 0; i < WIDE; i++) {
        local[i] = (struct nvlx_block_region){
            .base = (uint64_t)(uintptr_t)bench.local[0] + i * 900, .stride = 90, .length = 40, .blocks = 10};
        remote[i] = local[i];
        remote[i].base = bench.remote[0] + i * 900;
        remote[i].offset = 50;
    }
    for (uint32_t i = 0; i < MANY; i++) { /* one copy many times, nine only at the end */
        ids_here[i] = i < 10 ? i : i < MANY - 9 ? 9 : MANY - 1 - i;
        ids_there[i] = 9 - ids_here[i];
    }
    OK(nvlx_blocks_create(bench.engine, bench.peer, local, remote, WIDE, NULL, &blocks));
    nvlx_block_ids_init(&ids);
    ids.local = ids_here, ids.remote = ids_there, ids.count = 10;
    atomic_store(&faults.kernels, 0);
    OK(nvlx_blocks_transfer(blocks, &ids, NULL, &request));
    finish(request);
    EQUAL(3, atomic_load(&faults.kernels));
    expect_many(WIDE);
    bench_compare(&bench, "many regions");
    for (uint32_t i = 0; i < 10; i++)
        ids_there[i] = ids_here[i] = 9; /* so that the first ids do not do it again */
    bench_fill_remote(&bench, 0, 33);
    for (uint32_t i = 0; i < 10; i++)
        ids_there[i] = 0;
    ids.count = MANY, ids.regions = 3;
    OK(nvlx_blocks_transfer(blocks, &ids, NULL, &request));
    finish(request);
    expect_many(3);
    bench_compare(&bench, "many ids");
    OK(nvlx_blocks_free(blocks));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"borders_within_regions", borders_within_regions}, {"many_ids_and_regions", many_ids_and_regions}, {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
