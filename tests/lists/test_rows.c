/* Ops with rows, and flat lists that are rows: what they are told, what they move, and what they use.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define BYTES (128 * KIB)

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static struct owner owner;
static char *memory;
static uint64_t remote;

/* BYTES here, registered from the second byte on in two regions, and BYTES there. */
static void begin_simply(void) {
    engine = make_engine(0);
    memory = allocate(engine, 0, BYTES, 1);
    register_range(engine, memory + 1, KIB, NULL, NVLX_ACCESS_NONE);
    register_range(engine, memory + 1 + KIB, BYTES - KIB - 1, NULL, NVLX_ACCESS_NONE);
    owner_start(&owner);
    remote = owner_alloc(&owner, 0, 0, BYTES, 2);
    owner_register(&owner, 0, 0, 0, BYTES, NVLX_ACCESS_READ_WRITE, "w");
    char *text = owner_export(&owner);
    peer = open_peer(engine, text);
    free(text);
}

static void end_simply(void) {
    OK(nvlx_engine_destroy(engine));
    owner_end(&owner);
}

static struct nvlx_op rows_op(uint32_t opcode, uint64_t length, const struct nvlx_rows *rows) {
    struct nvlx_op op = make_op(opcode, peer, memory + 1, remote, length);
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)rows;
    return op;
}

static void refuse(uint32_t opcode, uint64_t length, struct nvlx_rows rows, uint32_t mechanism, int code,
                   const char *words) {
    const struct nvlx_op op = rows_op(opcode, length, &rows);
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    REFUSED(nvlx_transfer(engine, &op, 1, &options, &request), code, words);
    REFUSED(nvlx_prepare(engine, &op, 1, &options, &prepared), code, words);
}

static void refused_rows_are_named(void) {
    const uint64_t big = UINT64_C(1) << 40;
    begin_simply();
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){2, 511, 512}, 0, NVLX_EINVAL,
           "op 0: rows of 512 bytes that are written to local memory overlap: the pitch is 511");
    refuse(NVLX_OP_WRITE, 512, (struct nvlx_rows){3, 511, 0}, 0, NVLX_EINVAL,
           "op 0: rows of 512 bytes that are written to the peer's memory overlap: the pitch is 0");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){big, big, big}, 0, NVLX_EINVAL,
           "with pitch 1099511627776, ends beyond");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){2, UINT64_MAX, 512}, 0, NVLX_EINVAL, "the last of 2 rows of 512");
    refuse(NVLX_OP_READ, UINT64_MAX, (struct nvlx_rows){1, 0, 0}, 0, NVLX_EINVAL, "ends beyond 2^64");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){300, 512, 512}, 0, NVLX_ERANGE, "op 0, row 255: local range");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){300, 512, 1024}, 0, NVLX_ERANGE, "op 0, row 255: local range");
    refuse(NVLX_OP_WRITE, 512, (struct nvlx_rows){300, 256, 512}, 0, NVLX_ERANGE, "op 0, row 256: the peer's range");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){129, 600, 1024}, 0, NVLX_ERANGE, "op 0, row 128: the peer's range");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){129, 1024, 600}, 0, NVLX_ERANGE, "op 0, row 128: local range");
    refuse(NVLX_OP_READ, 1, (struct nvlx_rows){70000, 1, 0}, NVLX_MECHANISM_COPY_ENGINE, NVLX_ENOTSUP,
           "take 70000 copies by engines");
    end_simply();
}

static void wrong_fields_are_named(void) {
    struct nvlx_request *request;
    struct nvlx_rows rows = {2, 1024, 1024};
    begin_simply();
    struct nvlx_op op = rows_op(NVLX_OP_READ, 512, &rows);
    op.flags = 3;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "op 0: flags 0x3 are not of a read");
    op.flags = 0;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "must be 0 without NVLX_OP_ROWS");
    op.flags = NVLX_OP_ROWS;
    op.arg = 0;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "arg, the address of its nvlx_rows, is 0");
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    op.arg = (uint64_t)(uintptr_t)&rows;
    REFUSED(nvlx_transfer(engine, &op, 1, &options, &request), NVLX_EINVAL, "op 0 has rows");
    end_simply();
}

static void no_rows_move_nothing(void) {
    struct nvlx_rows none = {0, UINT64_MAX, 1}, one = {1, UINT64_MAX, 0};
    begin_simply();
    struct nvlx_op list[5] = {rows_op(NVLX_OP_READ, 512, &none), rows_op(NVLX_OP_READ, 0, &one),
                              make_op(NVLX_OP_READ, peer, memory + 1, remote, 0), rows_op(NVLX_OP_READ, 512, &none),
                              rows_op(NVLX_OP_READ, 512, &one)};
    list[0].local = list[1].local = NULL;
    list[3].remote = 1;
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_request *request = start(engine, list, 4);
    OK(nvlx_request_get_info(request, &info));
    EQUAL(0, info.bytes);
    finish(request);
    finish(start(engine, list, 5));
    uint8_t got[514];
    OK(nvlx_memcpy(engine, got, memory, sizeof got));
    EXPECT(got[0] == seed_byte(1, 0) && got[513] == seed_byte(1, 513));
    for (uint64_t i = 0; i < 512; i++)
        EQUAL(seed_byte(2, i), got[i + 1]);
    end_simply();
}

/* Of many rectangles none is in the way of the other, whoever carries them. */
static void many_rectangles_are_copied(void) {
    enum { MANY = 60 };
    struct nvlx_op list[MANY];
    struct nvlx_rows rows[MANY];
    begin_simply();
    for (uint32_t mechanism = 0; mechanism < 4; mechanism++) {
        fill(engine, memory, BYTES, 1);
        for (size_t i = 0; i < MANY; i++) {
            rows[i] = (struct nvlx_rows){2, 64, 128};
            list[i] = rows_op(NVLX_OP_READ, 50, &rows[i]);
            list[i].local = memory + 16 + i * 128;
            list[i].remote = remote + i * 200;
        }
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        struct nvlx_request *request;
        OK(nvlx_transfer(engine, list, MANY, &options, &request));
        finish(request);
        uint8_t got[16 + MANY * 128];
        OK(nvlx_memcpy(engine, got, memory, sizeof got));
        for (size_t i = 16; i < sizeof got; i++) {
            const size_t at = (i - 16) % 64;
            EQUAL(at < 50 ? seed_byte(2, (i - 16) / 128 * 200 + (i - 16) / 64 % 2 * 128 + at) : seed_byte(1, i),
                  got[i]);
        }
    }
    end_simply();
}

/* A list uses the bytes of its rows, not those between them. */
static void only_rows_are_used(void) {
    struct nvlx_rows rows = {20, 4096, 512};
    struct nvlx_prepared *prepared;
    begin_simply();
    struct nvlx_op op = rows_op(NVLX_OP_READ, 512, &rows);
    struct nvlx_region *between = register_range(engine, memory + 1 + 512 + 4096, 4096 - 512, NULL, NVLX_ACCESS_NONE),
                       *over = register_range(engine, memory + 1 + 512 + 4096, 4096 - 511, NULL, NVLX_ACCESS_NONE);
    for (uint32_t mechanism = 1; mechanism < 4; mechanism++) {
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        OK(nvlx_prepare(engine, &op, 1, &options, &prepared));
        GIVES(NVLX_EBUSY, nvlx_unregister(over, 0));
        OK(nvlx_unregister(between, 0));
        between = register_range(engine, memory + 1 + 512 + 4096, 4096 - 512, NULL, NVLX_ACCESS_NONE);
        OK(nvlx_prepared_free(prepared));
    }
    OK(nvlx_unregister(over, 0));
    end_simply();
}

/* Within one process the sides must not meet. */
static void rows_within_a_process(void) {
    struct nvlx_rows rows = {100, 1024, 1024};
    struct nvlx_request *request;
    engine = make_engine(0);
    memory = allocate(engine, 0, BYTES, 1);
    register_range(engine, memory, BYTES, NULL, NVLX_ACCESS_READ_WRITE);
    peer = peer_of(engine, engine);
    remote = (uint64_t)(uintptr_t)memory + 512;
    struct nvlx_op op = rows_op(NVLX_OP_READ, 512, &rows);
    op.local = memory;
    finish(start(engine, &op, 1)); /* the right half of each row to its left half */
    uint8_t got[100 * 1024];
    OK(nvlx_memcpy(engine, got, memory, sizeof got));
    for (uint64_t i = 0; i < sizeof got; i++)
        EQUAL(seed_byte(1, i % 1024 < 512 ? i + 512 : i), got[i]);
    op.length = 513;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "100 rows of 513 bytes at");
    op.remote = (uint64_t)(uintptr_t)memory;
    finish(start(engine, &op, 1)); /* stays where it is */
    OK(nvlx_engine_destroy(engine));
}

/* Ops that lie as rows do are one copy, unless one of them is refused; the message is the op's. */
static void flat_lists_are_rows(void) {
    enum { MANY = 4096, WIDTH = 512 };
    static struct nvlx_op list[MANY];
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    begin_simply();
    const size_t size = 2 * MANY * WIDTH;
    char *large = allocate(engine, 0, size, 1);
    register_range(engine, large, size, NULL, NVLX_ACCESS_NONE);
    owner_alloc(&owner, 1, 0, size + BYTES, 3); /* what is behind is not registered, whatever adjoins */
    owner_register(&owner, 1, 1, 0, size, NVLX_ACCESS_READ, "large");
    char *text = owner_export(&owner);
    OK(nvlx_peer_update(peer, text, strlen(text)));
    free(text);
    const uint64_t there = find(peer, "large");
    for (size_t i = 0; i < MANY; i++)
        list[i] = make_op(NVLX_OP_READ, peer, large + i * 2 * WIDTH, there + i * 2 * WIDTH, WIDTH);
    for (int way = 0; way < 2; way++) {
        fill(engine, large, size, 1);
        if (way == 0)
            OK(nvlx_transfer(engine, list, MANY, NULL, &request));
        else
            OK(nvlx_prepare(engine, list, MANY, NULL, &prepared));
        if (way == 1)
            OK(nvlx_post(prepared, NULL, &request));
        OK(nvlx_request_get_info(request, &info));
        EQUAL(MANY, info.ops);
        EQUAL(1, info.engine_fragments);
        EQUAL(0, info.sms);
        finish(request);
        EQUAL(0, wrong(engine, large, WIDTH, 3));
    }
    uint8_t *got = malloc(size);
    EXPECT(got != NULL);
    OK(nvlx_memcpy(engine, got, large, size));
    for (size_t i = 0; i < size; i++)
        EQUAL(seed_byte(i % (2 * WIDTH) < WIDTH ? 3 : 1, i), got[i]);
    free(got);
    for (size_t i = 0; i < MANY; i++)
        list[i].remote += size - (MANY / 2 + 1) * 2 * WIDTH;
    REFUSED(nvlx_transfer(engine, list, MANY, NULL, &request), NVLX_ERANGE, "op 2049: the peer's range");
    end_simply();
}

#define LAYERS     30
#define BLOCKS     50 /* that are copied, */
#define BLOCKS_ALL 100
#define ROW        256

/* Layers of blocks: as rows, block by block, or layer by layer. Blocks lie back to back here, and apart there. */
static size_t make_grid(int form, char *local, uint64_t there, struct nvlx_rows *rows, struct nvlx_op *list) {
    size_t count = 0;
    *rows = (struct nvlx_rows){BLOCKS, ROW, 2 * ROW};
    for (uint64_t i = 0; i < (form == 0 ? LAYERS : LAYERS * BLOCKS); i++) {
        const uint64_t layer = form == 0   ? i
                               : form == 1 ? i % LAYERS
                                           : i / BLOCKS,
                       block = form == 0   ? 0
                               : form == 1 ? i / LAYERS
                                           : i % BLOCKS,
                       at = (layer * BLOCKS_ALL + block) * ROW;
        list[count++] = make_op(NVLX_OP_READ, peer, local + at, there + 2 * at, ROW);
        if (form == 0) {
            list[i].flags = NVLX_OP_ROWS;
            list[i].arg = (uint64_t)(uintptr_t)rows;
        }
    }
    return count;
}

static void expect_grid(const char *local, size_t size) {
    uint8_t *got = malloc(size);
    EXPECT(got != NULL);
    OK(nvlx_memcpy(engine, got, local, size));
    for (size_t i = 0; i < size; i++)
        EQUAL(i / ROW % BLOCKS_ALL < BLOCKS ? seed_byte(3, i / ROW * 2 * ROW + i % ROW) : seed_byte(1, i), got[i]);
    free(got);
}

static void grids_are_one_copy(void) {
    static struct nvlx_op list[LAYERS * BLOCKS];
    const size_t size = LAYERS * BLOCKS_ALL * ROW;
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct nvlx_rows rows;
    begin_simply();
    char *large = allocate(engine, 0, size, 1);
    register_range(engine, large, size, NULL, NVLX_ACCESS_NONE);
    owner_alloc(&owner, 1, 0, 2 * size, 3);
    owner_register(&owner, 1, 1, 0, 2 * size, NVLX_ACCESS_READ, "large");
    char *text = owner_export(&owner);
    OK(nvlx_peer_update(peer, text, strlen(text)));
    free(text);
    nvlx_transfer_options_init(&options);
    for (uint32_t i = 0; i < 9; i++) {
        const size_t count = make_grid((int)i / 3, large, find(peer, "large"), &rows, list);
        options.mechanism = NVLX_MECHANISM_AUTO + i % 3;
        fill(engine, large, size, 1);
        OK(nvlx_transfer(engine, list, count, &options, &request));
        OK(nvlx_request_get_info(request, &info));
        EQUAL(options.mechanism == NVLX_MECHANISM_KERNEL ? 0 : 1, info.engine_fragments);
        EQUAL(LAYERS * BLOCKS * ROW, info.bytes);
        EQUAL(count, info.ops);
        finish(request);
        expect_grid(large, size);
    }
    end_simply();
}

static void expect_row(const char *local, uint32_t seed, uint64_t from) {
    uint8_t got[256];
    OK(nvlx_memcpy(engine, got, local, sizeof got));
    for (uint64_t at = 0; at < sizeof got; at++)
        EQUAL(seed_byte(seed, from + at), got[at]);
}

static int by_address(const void *left, const void *right) {
    const char *one = *(char *const *)left, *other = *(char *const *)right;
    return (one > other) - (one < other);
}

/* Allocations of 64 KiB that are registered, by address. */
static void make_many(char **here, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        here[i] = allocate(engine, 0, 64 * KIB, 1);
        register_range(engine, here[i], 64 * KIB, NULL, NVLX_ACCESS_NONE);
    }
    qsort(here, count, sizeof here[0], by_address);
}

/* The same rows in many allocations side by side are no grid. */
static void borders_end_grids(void) {
    enum { MANY = 8 };
    struct nvlx_op list[MANY];
    char *here[MANY];
    struct nvlx_rows rows = {16, 512, 512};
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    begin_simply();
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    make_many(here, MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        list[i] = rows_op(NVLX_OP_READ, 256, &rows);
        list[i].local = here[i];
        list[i].remote = remote + i * 16 * 512;
    }
    OK(nvlx_transfer(engine, list, MANY, &options, &request));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(MANY, info.engine_fragments);
    finish(request);
    for (uint64_t i = 0; i < MANY; i++)
        expect_row(here[i] + 15 * 512, 2, (i * 16 + 15) * 512);
    end_simply();
}

/* Two allocations, one right behind the other: where that begins. */
static char *find_border(char *const *here, uint32_t count, size_t size) {
    for (uint32_t i = 1; i < count; i++)
        if (here[i - 1] + size == here[i])
            return here[i];
    FAIL("none of %u allocations is right behind another one", count);
}

/* Rows whose second half lies behind a border, where they would be next in a grid: it ends before them. */
static void cut_rows_end_grids(void) {
    enum { MANY = 8, FEW = 4, PITCH = 512 };
    struct nvlx_op list[2];
    char *here[MANY];
    struct nvlx_rows few = {FEW, PITCH, PITCH}, cut = {2 * FEW, PITCH, PITCH};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    begin_simply();
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    make_many(here, MANY);
    char *first = find_border(here, MANY, 64 * KIB) - 2 * FEW * PITCH;
    list[0] = rows_op(NVLX_OP_READ, 256, &few);
    list[1] = rows_op(NVLX_OP_READ, 256, &cut);
    list[0].local = first;
    list[0].remote = remote;
    list[1].local = first + FEW * PITCH;
    list[1].remote = remote + FEW * PITCH;
    OK(nvlx_transfer(engine, list, 2, &options, &request));
    finish(request);
    for (uint64_t i = 0; i < 3 * FEW; i++)
        expect_row(first + i * PITCH, 2, i * PITCH);
    end_simply();
}

/* Equal rows of two peers, which lie as those of one would: each has its own mapping. */
static void peers_end_grids(void) {
    enum { ROWS = 16, PITCH = 512 };
    struct nvlx_op list[2];
    struct nvlx_rows rows = {ROWS, PITCH, PITCH};
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    begin_simply();
    char *text = owner_export(&owner), *large = allocate(engine, 0, 2 * ROWS * PITCH, 1);
    struct nvlx_peer *again = open_peer(engine, text);
    free(text);
    register_range(engine, large, 2 * ROWS * PITCH, NULL, NVLX_ACCESS_NONE);
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    for (uint32_t way = 0; way < 2; way++) {
        for (uint32_t i = 0; i < 2; i++) {
            list[i] = rows_op(NVLX_OP_READ, 256, &rows);
            list[i].peer = i == way ? peer : again;
            list[i].local = large + i * ROWS * PITCH;
            list[i].remote = remote + i * ROWS * PITCH;
        }
        fill(engine, large, 2 * ROWS * PITCH, 1);
        OK(nvlx_transfer(engine, list, 2, &options, &request));
        OK(nvlx_request_get_info(request, &info));
        EQUAL(2, info.engine_fragments);
        finish(request);
        for (uint64_t i = 0; i < 2 * ROWS; i++)
            expect_row(large + i * PITCH, 2, i * PITCH);
    }
    OK(nvlx_peer_close(again));
    end_simply();
}

/* CUDA 13.0 says that it has copied more than 2^32 rows, and has not: no copy gets more than 2^20. */
static void no_copy_gets_too_many_rows(void) {
    const struct nvlx_rows rows = {(1 << 20) + 5, 2, 3};
    const size_t size = 3 * rows.count;
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    begin_simply();
    char *large = allocate(engine, 0, size, 1);
    register_range(engine, large, size, NULL, NVLX_ACCESS_NONE);
    owner_alloc(&owner, 1, 0, size, 3);
    owner_register(&owner, 1, 1, 0, size, NVLX_ACCESS_READ, "large");
    char *text = owner_export(&owner);
    OK(nvlx_peer_update(peer, text, strlen(text)));
    free(text);
    struct nvlx_op op = rows_op(NVLX_OP_READ, 1, &rows);
    op.local = large;
    op.remote = find(peer, "large");
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(2, info.engine_fragments);
    finish(request);
    uint8_t *got = malloc(size);
    EXPECT(got != NULL);
    OK(nvlx_memcpy(engine, got, large, size));
    for (uint64_t i = 0; i < 2 * rows.count; i++)
        EQUAL(i % 2 ? seed_byte(1, i) : seed_byte(3, i / 2 * 3), got[i]);
    free(got);
    end_simply();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"refused_rows_are_named", refused_rows_are_named},
                                        {"wrong_fields_are_named", wrong_fields_are_named},
                                        {"no_rows_move_nothing", no_rows_move_nothing},
                                        {"many_rectangles_are_copied", many_rectangles_are_copied},
                                        {"only_rows_are_used", only_rows_are_used},
                                        {"rows_within_a_process", rows_within_a_process},
                                        {"flat_lists_are_rows", flat_lists_are_rows},
                                        {"no_copy_gets_too_many_rows", no_copy_gets_too_many_rows},
                                        {"grids_are_one_copy", grids_are_one_copy},
                                        {"borders_end_grids", borders_end_grids},
                                        {"cut_rows_end_grids", cut_rows_end_grids},
                                        {"peers_end_grids", peers_end_grids},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
