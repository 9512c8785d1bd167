/* Blocks by id by copy engines: how few copies they are, and that none crosses a border. Every byte is compared. On the
 * host backend, with faults on demand. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "faulty_device.h"

enum { LAYERS = 8, BLOCKS = 32, EACH = 1000, WIDE = 3 * EACH };
#define SIZE MIB

static struct bench bench;

static void begin(void) {
    bench_begin(&bench, make_faulty_engine(0), SIZE);
}

static void end(void) {
    bench_end(&bench);
}

/* ---- Tables --------------------------------------------------------------------------------------------- */

/* One side: where layer i begins is first + i * step, block j of it stride * j further. */
struct side {
    size_t first, step, stride, offset;
};

struct layout {
    struct side here, there;
    size_t length;
};

static struct nvlx_block_region region_of(const struct layout *layout, const struct side *side, uint64_t base,
                                          size_t layer) {
    return (struct nvlx_block_region){.base = base + side->first + layer * side->step,
                                      .stride = side->stride,
                                      .offset = side->offset,
                                      .length = layout->length,
                                      .blocks = BLOCKS};
}

static void make_tables(const struct layout *layout, struct nvlx_block_region *here, struct nvlx_block_region *there) {
    for (size_t i = 0; i < LAYERS; i++) {
        here[i] = region_of(layout, &layout->here, (uint64_t)(uintptr_t)bench.local[0], i);
        there[i] = region_of(layout, &layout->there, bench.remote[0], i);
    }
}

static struct nvlx_blocks *create(const struct nvlx_block_region *here, const struct nvlx_block_region *there,
                                  size_t count) {
    return bench_tables(&bench, here, there, count, NVLX_ACCESS_READ_WRITE);
}

static void apply(const struct nvlx_block_region *here, const struct nvlx_block_region *there, size_t count,
                  const struct nvlx_block_ids *ids) {
    const uint32_t *mine = ids->local, *theirs = ids->remote;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < ids->count; j++) {
            const struct nvlx_op op = make_op(
                ids->opcode, bench.peer, (void *)(uintptr_t)(here[i].base + mine[j] * here[i].stride + here[i].offset),
                there[i].base + theirs[j] * there[i].stride + there[i].offset, here[i].length);
            bench_apply(&bench, &op, 1);
        }
}

/* Moves blocks; how many copies engines made is to be expected. */
static void move_blocks(struct nvlx_blocks *blocks, const struct nvlx_block_ids *ids, uint64_t rows,
                        uint64_t fragments) {
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    atomic_store(&faults.rows, 0);
    atomic_store(&faults.kernels, 0);
    OK(nvlx_blocks_transfer(blocks, ids, &options, &request));
    OK(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_get_info(request, &info));
    OK(nvlx_request_free(request));
    EQUAL(0, atomic_load(&faults.kernels));
    EQUAL(rows, atomic_load(&faults.rows));
    EQUAL(rows + fragments, info.engine_fragments);
    EQUAL(0, info.kernel_fragments);
}

/* ---- How many copies ------------------------------------------------------------------------------------ */

enum order { SCATTERED, IN_ORDER, IN_TWO_RUNS };

static void fill_ids(struct nvlx_block_ids *ids, uint32_t list[2][BLOCKS], enum order order, uint32_t count,
                     uint32_t opcode) {
    nvlx_block_ids_init(ids);
    ids->opcode = opcode;
    ids->count = count;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t late = order == IN_TWO_RUNS && i >= count / 2 ? 3 : 0;
        list[0][i] = order == SCATTERED ? (1 + i * 5) % BLOCKS : i + late;
        list[1][i] = order == SCATTERED ? (i * 7 + 3) % BLOCKS : i + 2 + late;
    }
    ids->local = list[0], ids->remote = list[1];
}

static void copies_are_few(void) {
    static const struct {
        struct layout layout;
        enum order order;
        uint32_t count;
        uint64_t rows, fragments;
    } cases[] = {
        /* region after region: a copy a block, all regions as rows */
        {{{0, BLOCKS * EACH, EACH, 0}, {0, BLOCKS * EACH, EACH, 0}, EACH}, SCATTERED, 20, 20, 0},
        /* a slice of each block */
        {{{7, BLOCKS * EACH, EACH, 10}, {3, BLOCKS * WIDE, WIDE, 1500}, 500}, SCATTERED, 20, 20, 0},
        /* ids in order: blocks without gaps are one piece of each region */
        {{{0, BLOCKS * EACH, EACH, 0}, {0, BLOCKS * EACH, EACH, 0}, EACH}, IN_ORDER, 20, 0, LAYERS},
        {{{0, BLOCKS * EACH, EACH, 0}, {0, BLOCKS * EACH, EACH, 0}, EACH}, IN_TWO_RUNS, 20, 0, 2 * LAYERS},
        /* and others rows of each region */
        {{{0, BLOCKS * EACH, EACH, 10}, {0, BLOCKS * EACH, EACH, 0}, 500}, IN_ORDER, 20, LAYERS, 0},
        /* fewer ids in order than regions: a copy a block */
        {{{0, BLOCKS * EACH, EACH, 0}, {0, BLOCKS * EACH, EACH, 0}, EACH}, IN_ORDER, 5, 5, 0},
        /* regions side by side in each block, on both sides: a block is one piece, blocks in order too */
        {{{0, EACH, LAYERS * EACH, 0}, {0, EACH, LAYERS * EACH, 0}, EACH}, SCATTERED, 20, 0, 20},
        {{{0, EACH, LAYERS * EACH, 0}, {0, EACH, LAYERS * EACH, 0}, EACH}, IN_ORDER, 20, 0, 1},
        /* on one side */
        {{{0, EACH, LAYERS * EACH, 0}, {0, BLOCKS * EACH, EACH, 0}, EACH}, SCATTERED, 20, 20, 0},
    };
    struct nvlx_block_region here[LAYERS], there[LAYERS];
    struct nvlx_region *whole[2];
    struct nvlx_block_ids ids;
    uint32_t list[2][BLOCKS];
    char when[64];
    begin();
    bench_register(&bench, SIZE, whole);
    for (size_t i = 0; i < COUNT(cases); i++)
        for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
            make_tables(&cases[i].layout, here, there);
            struct nvlx_blocks *blocks = create(here, there, LAYERS);
            fill_ids(&ids, list, cases[i].order, cases[i].count, opcode);
            move_blocks(blocks, &ids, cases[i].rows, cases[i].fragments);
            apply(here, there, LAYERS, &ids);
            snprintf(when, sizeof when, "case %zu, opcode %u", i, opcode);
            bench_compare(&bench, when);
            OK(nvlx_blocks_free(blocks));
        }
    end();
}

/* Regions that lie at other distances, are longer, or go down, are series of their own. */
static void series_end(void) {
    const struct layout layout = {{0, BLOCKS * EACH, EACH, 0}, {0, BLOCKS * EACH, EACH, 0}, 800};
    struct nvlx_block_region here[LAYERS], there[LAYERS];
    struct nvlx_region *whole[2];
    struct nvlx_block_ids ids;
    uint32_t list[2][BLOCKS];
    begin();
    bench_register(&bench, SIZE, whole);
    make_tables(&layout, here, there);
    here[3].base += 40;
    here[6].length = there[6].length = 700;
    const uint64_t base = here[0].base; /* the last one is below the others */
    here[0].base = here[7].base;
    here[7].base = base;
    struct nvlx_blocks *blocks = create(here, there, LAYERS);
    fill_ids(&ids, list, SCATTERED, 10, NVLX_OP_READ);
    move_blocks(blocks, &ids, 20, 40); /* 0; 1 2; 3 4; 5; 6; 7 */
    apply(here, there, LAYERS, &ids);
    bench_compare(&bench, "series");
    ids.first_region = 2, ids.regions = 3;
    move_blocks(blocks, &ids, 10, 10); /* 2 3; 4 */
    OK(nvlx_blocks_free(blocks));
    end();
}

/* ---- Borders -------------------------------------------------------------------------------------------- */

/* Each layer is registered by itself, with a gap behind it: within an allocation, that is no border. */
static void gaps_are_no_borders(void) {
    const struct layout layout = {{0, (BLOCKS + 1) * EACH, EACH, 0}, {0, (BLOCKS + 2) * EACH, EACH, 0}, EACH};
    struct nvlx_block_region here[LAYERS], there[LAYERS];
    struct nvlx_block_ids ids;
    uint32_t list[2][BLOCKS];
    begin();
    for (uint32_t i = 0; i < LAYERS; i++) {
        register_range(bench.engine, bench.local[0] + i * layout.here.step, BLOCKS * EACH, NULL, NVLX_ACCESS_NONE);
        owner_register(&bench.owner, 10 + i, 0, i * layout.there.step, BLOCKS * EACH, NVLX_ACCESS_READ_WRITE, NULL);
    }
    bench_open_peer(&bench);
    make_tables(&layout, here, there);
    struct nvlx_blocks *blocks = create(here, there, LAYERS);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
        fill_ids(&ids, list, SCATTERED, 12, opcode);
        move_blocks(blocks, &ids, 12, 0);
        apply(here, there, LAYERS, &ids);
        bench_compare(&bench, "gaps");
    }
    OK(nvlx_blocks_free(blocks));
    end();
}

static int by_address(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

enum { PART = 64 * 1024, PARTS = 24, SIDE_BY_SIDE = 3, PAGES = PART / 1024 };

/* Allocations side by side, each registered by itself. */
static uint64_t allocate_neighbours(void) {
    uint64_t all[PARTS];
    for (size_t i = 0; i < PARTS; i++) {
        all[i] = (uint64_t)(uintptr_t)allocate(bench.engine, 0, PART, 99);
        register_range(bench.engine, (void *)(uintptr_t)all[i], PART, NULL, NVLX_ACCESS_NONE);
    }
    qsort(all, PARTS, sizeof *all, by_address);
    for (size_t i = 0; i + SIDE_BY_SIDE <= PARTS; i++)
        if (all[i + SIDE_BY_SIDE - 1] - all[i] == (SIDE_BY_SIDE - 1) * PART)
            return all[i];
    FAIL("no %d of %d allocations are side by side", SIDE_BY_SIDE, PARTS);
}

/* Layers that are allocations of their own, side by side: no copy goes from one into the other. */
static void allocations_are_borders(void) {
    struct nvlx_block_region here[SIDE_BY_SIDE], there[SIDE_BY_SIDE];
    struct nvlx_region *whole[2];
    struct nvlx_block_ids ids;
    uint32_t mine[PAGES], theirs[PAGES];
    begin();
    bench_register(&bench, SIZE, whole);
    const uint64_t first = allocate_neighbours();
    for (uint64_t i = 0; i < SIDE_BY_SIDE; i++) {
        here[i] = (struct nvlx_block_region){.base = first + i * PART, .stride = 1024, .length = 1024, .blocks = PAGES};
        there[i] = here[i];
        there[i].base = bench.remote[0] + i * PART;
    }
    struct nvlx_blocks *blocks = create(here, there, SIDE_BY_SIDE);
    nvlx_block_ids_init(&ids);
    ids.local = mine, ids.remote = theirs, ids.count = PAGES;
    for (uint32_t i = 0; i < PAGES; i++)
        mine[i] = i * 5 % PAGES, theirs[i] = i * 7 % PAGES;
    move_blocks(blocks, &ids, 0, SIDE_BY_SIDE * PAGES);
    for (uint32_t i = 0; i < PAGES; i++)
        mine[i] = theirs[i] = i;
    move_blocks(blocks, &ids, 0, SIDE_BY_SIDE);
    for (uint32_t i = 0; i < SIDE_BY_SIDE; i++) {
        static uint8_t got[PART];
        OK(nvlx_memcpy(bench.engine, got, (void *)(uintptr_t)(first + i * PART), PART));
        EXPECT(!memcmp(got, bench.model_remote[0] + i * PART, PART));
    }
    OK(nvlx_blocks_free(blocks));
    end();
}

/* ---- Many ----------------------------------------------------------------------------------------------- */

static void more_than_a_queue_holds(void) {
    enum { MANY = 3000 };
    static uint32_t list[MANY];
    struct nvlx_block_region here[LAYERS], there[LAYERS];
    const struct layout layout = {{0, BLOCKS * EACH, EACH, 0}, {0, BLOCKS * EACH, EACH, 0}, EACH};
    struct nvlx_region *whole[2];
    struct nvlx_block_ids ids;
    begin();
    bench_register(&bench, SIZE, whole);
    make_tables(&layout, here, there);
    struct nvlx_blocks *blocks = create(here, there, LAYERS);
    for (uint32_t i = 0; i < MANY; i++)
        list[i] = i * 5 % BLOCKS;
    nvlx_block_ids_init(&ids);
    ids.local = ids.remote = list, ids.count = MANY;
    move_blocks(blocks, &ids, MANY, 0);
    ids.count = BLOCKS;
    apply(here, there, LAYERS, &ids);
    bench_compare(&bench, "many");
    OK(nvlx_blocks_free(blocks));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"copies_are_few", copies_are_few},
                                        {"series_end", series_end},
                                        {"gaps_are_no_borders", gaps_are_no_borders},
                                        {"allocations_are_borders", allocations_are_borders},
                                        {"more_than_a_queue_holds", more_than_a_queue_holds},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
