/* Rows that are found in lists of plain ops: all of them, and no byte is lost. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "support.h"
#include "transfer/rows/series.h"
#include "transfer/rows/shape.h"

#define LIST   4096
#define LOCAL  UINT64_C(0x100000000000)
#define REMOTE UINT64_C(0x200000000000)

static struct nvlx_op list[LIST];
static uint64_t state = 1;

static uint64_t below(uint64_t limit) {
    return limit ? next_random(&state) % limit : 0;
}

static struct nvlx_op plain(uint64_t local, uint64_t remote, uint64_t length) {
    return (struct nvlx_op){.opcode = NVLX_OP_READ,
                            .peer = (struct nvlx_peer *)list,
                            .local = (void *)(uintptr_t)local,
                            .remote = remote,
                            .length = length};
}

static void fill_list(uint64_t length, uint64_t local_pitch, uint64_t remote_pitch) {
    for (uint64_t i = 0; i < LIST; i++)
        list[i] = plain(LOCAL + i * local_pitch, REMOTE + i * remote_pitch, length);
}

/* That a shape moves the ops' bytes, in their order, by so many ops. */
static void expect_shape(const struct nvlxi_shape *shape, size_t ops) {
    size_t at = 0;
    EQUAL(ops, shape->count);
    for (size_t i = 0; i < shape->count; i++) {
        const struct nvlx_op *op = &shape->ops[i];
        const struct nvlx_rows *rows = (const struct nvlx_rows *)(uintptr_t)op->arg, one = {1, 0, 0};
        rows = op->flags ? rows : &one;
        for (uint64_t row = 0; row < rows->count; row++, at++) {
            EXPECT(at < LIST && op->opcode == list[at].opcode && op->peer == list[at].peer);
            EQUAL(list[at].length, op->length);
            EXPECT((char *)list[at].local == (char *)op->local + row * rows->local_pitch);
            EQUAL(list[at].remote, op->remote + row * rows->remote_pitch);
        }
    }
    EQUAL(LIST, at);
}

static void ops_at_equal_distances_are_rows(void) {
    struct nvlxi_shape shape = {0};
    for (int thorough = 0; thorough < 2; thorough++) {
        fill_list(800, 1024, 2048);
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_AUTO, thorough));
        expect_shape(&shape, 1);
        list[2050].length--; /* both parts are less than 2 MiB */
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
            EXPECT(nvlxi_shape_find(&shape, list, LIST, mechanism, thorough));
            expect_shape(&shape, 3);
        }
        list[2050].length++;
        list[3000].remote++;
        list[2000].opcode = NVLX_OP_WRITE;
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, thorough));
        expect_shape(&shape, 5);
    }
    nvlxi_shape_free(&shape);
}

static void other_ops_are_not(void) {
    static const uint64_t pitches[][2] = {{512, 512}, {511, 1024}, {1024, 511}, {0, 512}, {-(uint64_t)1024, 1024}};
    struct nvlxi_shape shape = {0};
    for (size_t i = 0; i < COUNT(pitches); i++) {
        fill_list(512, pitches[i][0], pitches[i][1]);
        EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, true));
        EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, false));
    }
    fill_list(0, 1024, 1024);
    EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, true));
    EXPECT(!nvlxi_shape_find(&shape, list, 0, NVLX_MECHANISM_COPY_ENGINE, true));
    nvlxi_shape_free(&shape);
}

/* Series of any length, whatever lies between them. */
static void series_are_found_at_random(void) {
    struct nvlxi_shape shape = {0};
    for (int round = 0; round < 300; round++) {
        size_t ops = 0;
        for (size_t i = 0; i < LIST;) {
            const uint64_t local = LOCAL + (below(1 << 20) << 20), remote = REMOTE + (below(1 << 20) << 20);
            const size_t series = nvlxi_min(1 + below(30), LIST - i);
            for (size_t row = 0; row < series; row++)
                list[i + row] = plain(local + row * 700, remote + row * 600, 512);
            ops += series < 8 ? series : 1;
            i += series;
        }
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, true));
        expect_shape(&shape, ops);
    }
    nvlxi_shape_free(&shape);
}

/* Blocks and layers, whichever come first, at any distances. */
static void fill_grid(size_t series, const uint64_t local[2], const uint64_t remote[2], uint64_t length) {
    for (uint64_t i = 0; i < LIST; i++)
        list[i] = plain(LOCAL + i / series * local[1] + i % series * local[0],
                        REMOTE + i / series * remote[1] + i % series * remote[0], length);
}

static int by_local(const void *left, const void *right) {
    const struct nvlx_op *one = left, *other = right;
    return (one->local > other->local) - (one->local < other->local);
}

/* The rows of a shape as ops, longer ones in pieces of `length`, in the order of their addresses. */
static size_t flatten(const struct nvlxi_shape *shape, uint64_t length, struct nvlx_op *flat) {
    size_t count = 0;
    for (size_t i = 0; i < shape->count; i++) {
        const struct nvlx_op *op = &shape->ops[i];
        const struct nvlx_rows one = {1, 0, 0}, *rows = op->flags ? (const void *)(uintptr_t)op->arg : &one;
        for (uint64_t row = 0; row < rows->count; row++)
            for (uint64_t at = 0; at < op->length && count < LIST; at += length)
                flat[count++] = plain((uintptr_t)op->local + row * rows->local_pitch + at,
                                      op->remote + row * rows->remote_pitch + at, length);
    }
    qsort(flat, count, sizeof *flat, by_local);
    return count;
}

static void expect_grid(const struct nvlxi_shape *shape, uint64_t length, size_t ops) {
    static struct nvlx_op flat[LIST], sorted[LIST];
    EQUAL(ops, shape->count);
    EQUAL(LIST, flatten(shape, length, flat));
    memcpy(sorted, list, sizeof sorted);
    qsort(sorted, LIST, sizeof *sorted, by_local);
    EXPECT(memcmp(flat, sorted, sizeof flat) == 0);
}

static void grids_take_the_fewest_copies(void) {
    static const uint64_t apart[] = {1 << 20, 1 << 10}, far[] = {1 << 10, 1 << 20}, joined[] = {1 << 20, 512},
                          uneven[] = {1 << 20, 1000};
    struct nvlxi_shape shape = {0};
    for (int thorough = 0; thorough < 2; thorough++) {
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
            fill_grid(8, apart, apart, 512);
            EXPECT(nvlxi_shape_find(&shape, list, LIST, mechanism, thorough));
            expect_grid(&shape, 512, 8);
            fill_grid(2, far, apart, 512);
            EXPECT(nvlxi_shape_find(&shape, list, LIST, mechanism, thorough));
            expect_grid(&shape, 512, 2);
            fill_grid(512, apart, apart, 512);
            EXPECT(nvlxi_shape_find(&shape, list, LIST, mechanism, thorough));
            expect_grid(&shape, 512, 8);
            fill_grid(1024, joined, joined, 512);
            EXPECT(nvlxi_shape_find(&shape, list, LIST, mechanism, thorough));
            expect_grid(&shape, 512, 1);
        }
        fill_grid(64, apart, uneven, 256); /* not long enough for kernels, either way round */
        EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_AUTO, thorough));
    }
    nvlxi_shape_free(&shape);
}

/* Grids of any size, one after the other, of which some op or some series is not where it should be. */
static void grids_keep_their_bytes(void) {
    struct nvlxi_shape shape = {0};
    size_t found = 0;
    for (int round = 0; round < 300; round++) {
        for (size_t i = 0; i < LIST;) {
            const size_t series = 1 + below(40), grid = nvlxi_min(series * (1 + below(40)), LIST - i);
            const uint64_t inner = 64 + below(3) * 8, outer = below(2) ? 64 + below(2) * 4096 : 4096 * (1 + below(9));
            const uint64_t start = (uint64_t)i << 30;
            for (size_t op = 0; op < grid; op++)
                list[i + op] = plain(LOCAL + start + op / series * outer + op % series * (inner << 20),
                                     REMOTE + start + op / series * outer + op % series * (inner << 19), 64);
            list[i + below(grid)].remote += below(2) * 64;
            const size_t odd = below(2) ? below(grid) / series * series : grid, here = below(2);
            for (size_t op = odd; op < nvlxi_min(odd + series, grid); op++) {
                list[i + op].local = (char *)list[i + op].local + here * 128;
                list[i + op].remote += 128 - here * 128;
            }
            i += grid;
        }
        if (nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, true)) {
            expect_grid(&shape, 64, shape.count);
            found++;
        }
    }
    EXPECT(found > 200);
    nvlxi_shape_free(&shape);
}

/* Long series, with one op somewhere that differs by some field. */
static void series_end_where_they_end(void) {
    for (int round = 0; round < 3000; round++) {
        const size_t first = below(40), count = 2 + below(300), odd = 1 + below(count);
        fill_list(64, 128, 192);
        struct nvlx_op *op = &list[first + odd];
        switch (below(7)) {
        case 0:
            op->opcode ^= 3;
            break;
        case 1:
            op->flags = 1;
            break;
        case 2:
            op->peer = NULL;
            break;
        case 3:
            op->local = (char *)op->local + 1;
            break;
        case 4:
            op->remote ^= UINT64_C(1) << 63;
            break;
        case 5:
            op->length--;
            break;
        default:
            op->arg = 1;
            break;
        }
        const struct nvlxi_series plain_one = nvlxi_series_find_plain(&list[first], count),
                                  series = nvlxi_series_find(&list[first], count);
        EQUAL(plain_one.count, series.count);
        if (odd > 1) { /* else the second op says what the pitches are */
            EQUAL(nvlxi_min(odd, count), series.count);
            EXPECT(series.local_pitch == 128 && series.remote_pitch == 192);
        }
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"ops_at_equal_distances_are_rows", ops_at_equal_distances_are_rows},
                                        {"other_ops_are_not", other_ops_are_not},
                                        {"series_are_found_at_random", series_are_found_at_random},
                                        {"grids_take_the_fewest_copies", grids_take_the_fewest_copies},
                                        {"grids_keep_their_bytes", grids_keep_their_bytes},
                                        {"series_end_where_they_end", series_end_where_they_end},
                                        {0}};
    return run_tests(argc, argv, tests, NULL, 30);
}
