/* The contract of copies of rows, by engines and by kernels: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 200 };

static void expect(const struct copy_desk *desk, const struct nvlxi_rows *rows) {
    for (uint64_t row = 0; row < rows->count; row++)
        copy_desk_expect(desk, rows->destination + row * rows->destination_pitch,
                         rows->source + row * rows->source_pitch, rows->length);
}

static struct nvlxi_rows *rows_in(const struct copy_desk *desk) {
    return desk->list;
}

/* The n-th: of every alignment, long and short, few and many; one behind the other from `*at` on. */
static struct nvlxi_rows rows_of(const struct copy_desk *desk, uint64_t n, bool overlapping, uint64_t *at) {
    static const uint64_t lengths[] = {1, 2, 3, 16, 32, 60, 64, 100, 128, 512, 1000, 2048, 5000, 40000};
    static const uint64_t counts[] = {1, 2, 5, 33, 70};
    const uint64_t unit = n % 3 ? 16 : 1, length = lengths[n % NVLXI_COUNT(lengths)];
    const uint64_t count = length > 3000 ? 3 : counts[n % NVLXI_COUNT(counts)];
    const uint64_t pitch = nvlxi_ceil_div(length, unit) * unit;
    struct nvlxi_rows rows = {.destination = desk->to + nvlxi_ceil_div(*at, unit) * unit + n % 2 * unit,
                              .source = desk->from + n * 7919 % (COPY_DESK_BYTES / 2) / unit * unit,
                              .length = length,
                              .count = count,
                              .destination_pitch = pitch + n % 4 * unit,
                              .source_pitch = overlapping ? n % 2 * length / 2 : pitch + n % 5 * unit};
    *at = rows.destination - desk->to + nvlxi_rows_span(&rows, rows.destination_pitch);
    assert_true(*at <= COPY_DESK_BYTES);
    return rows;
}

static uint32_t lay(const struct copy_desk *desk, bool overlapping) {
    uint64_t at = 0;
    copy_desk_begin(desk);
    for (uint32_t n = 0; n < ROWS_MAX; n++) {
        rows_in(desk)[n] = rows_of(desk, n, overlapping && n % 2, &at);
        expect(desk, &rows_in(desk)[n]);
    }
    return ROWS_MAX;
}

static void engines_copy_rows(void **state) {
    (void)state;
    struct copy_desk desk = copy_desk_make(ROWS_MAX * sizeof(struct nvlxi_rows));
    const uint32_t count = lay(&desk, false);
    struct nvlxi_rows *list = malloc(count * sizeof *list);
    assert_non_null(list);
    memcpy(list, rows_in(&desk), count * sizeof *list);
    OK(me.ops->copy_rows(desk.lane, list, 1, 0, 0));
    OK(me.ops->copy_rows(desk.lane, list + 1, count - 1, 0, 0));
    memset(list, 0, count * sizeof *list); /* has been read */
    copy_desk_finish(&desk);
    free(list);
    copy_desk_free(&desk);
}

static void kernels_copy_rows(void **state) {
    (void)state;
    static const uint64_t averages[] = {0, 2500, 9000, 70000, UINT64_MAX};
    struct nvlxi_gpu_limits limits;
    struct copy_desk desk = copy_desk_make(ROWS_MAX * sizeof(struct nvlxi_rows));
    OK(me.ops->limits(me.device, 0, &limits));
    for (size_t i = 0; i < 2 * NVLXI_COUNT(averages); i++) {
        const uint32_t count = lay(&desk, true);
        const struct nvlxi_fragment *list = (const void *)rows_in(&desk);
        const struct nvlxi_part parts[] = {{list, 7}, {list, 0}, {list + 2 * 7, count - 7}};
        const struct nvlxi_kernel kernel = {.parts = parts,
                                            .part_count = NVLXI_COUNT(parts),
                                            .rows = true,
                                            .sms = i % 2 ? limits.sms : 1,
                                            .average = averages[i / 2]};
        OK(me.ops->copy_kernel(desk.lane, &kernel));
        copy_desk_finish(&desk);
    }
    copy_desk_free(&desk);
}

static void rows_of_a_wrong_form_are_refused(void **state) {
    (void)state;
    struct copy_desk desk = copy_desk_make(ROWS_MAX * sizeof(struct nvlxi_rows));
    const struct nvlxi_rows good = {desk.to, desk.from, 512, 20, 1024, 2048};
    struct nvlxi_rows wrong_forms[3];
    for (size_t i = 0; i < NVLXI_COUNT(wrong_forms); i++)
        wrong_forms[i] = good;
    wrong_forms[0].destination_pitch = 511;
    wrong_forms[1].source_pitch = 511;
    wrong_forms[2].source_pitch = 0;
    copy_desk_begin(&desk);
    for (size_t i = 0; i < NVLXI_COUNT(wrong_forms); i++)
        GIVES(NVLX_EDEVICE, me.ops->copy_rows(desk.lane, &wrong_forms[i], 1, 0, 0));
    copy_desk_finish(&desk);
    OK(me.ops->copy_rows(desk.lane, &good, 1, 0, 0));
    expect(&desk, &good);
    copy_desk_finish(&desk);
    copy_desk_free(&desk);
}

/* The last row may end where the allocation does, whatever the pitch. */
static void rows_end_with_their_allocation(void **state) {
    (void)state;
    struct copy_desk desk = copy_desk_make(ROWS_MAX * sizeof(struct nvlxi_rows));
    struct nvlxi_rows rows = {desk.to, desk.from, 512, 4096, 1000, 1000};
    const uint64_t start = COPY_DESK_BYTES - nvlxi_rows_span(&rows, 1000);
    rows.destination += start;
    rows.source += start;
    copy_desk_begin(&desk);
    OK(me.ops->copy_rows(desk.lane, &rows, 1, 0, 0));
    expect(&desk, &rows);
    copy_desk_finish(&desk);
    rows.source++;
    GIVES(NVLX_EDEVICE, me.ops->copy_rows(desk.lane, &rows, 1, 0, 0));
    rows.source--;
    rows.destination++;
    GIVES(NVLX_EDEVICE, me.ops->copy_rows(desk.lane, &rows, 1, 0, 0));
    copy_desk_finish(&desk);
    copy_desk_free(&desk);
}

static void expect_grid(const struct copy_desk *desk, const struct nvlxi_grid *grid) {
    struct nvlxi_rows rows = grid->rows;
    for (uint64_t i = 0; i < grid->times; i++) {
        expect(desk, &rows);
        rows.destination += grid->destination_step;
        rows.source += grid->source_step;
    }
}

/* Each ends where its allocation does, whatever the steps: odd ones, far ones, many times. */
static void engines_copy_grids(void **state) {
    (void)state;
    static const struct nvlxi_grid grids[] = {{{0, 0, 512, 8, 512, 1024}, 100, 8 * 512, 20 * 1024},
                                              {{0, 0, 5, 7, 11, 13}, 33, 11 * 9, 13 * 7},
                                              {{0, 0, 100, 2, 128, 100}, 4096, 2 * 128, 3 * 100},
                                              {{0, 0, 16, 30, 32, 48}, 2, 32 * NVLXI_DISTANCE_MAX, 48 * 30},
                                              {{0, 0, 4096, 64, 8192, 4096}, 5, 8192 * 64, 4096 * 100}};
    struct copy_desk desk = copy_desk_make(ROWS_MAX * sizeof(struct nvlxi_rows));
    for (size_t i = 0; i < NVLXI_COUNT(grids); i++) {
        struct nvlxi_grid grid = grids[i];
        const uint64_t last = grid.times - 1;
        grid.rows.destination = desk.to + COPY_DESK_BYTES - last * grid.destination_step -
                                nvlxi_rows_span(&grid.rows, grid.rows.destination_pitch);
        grid.rows.source =
            desk.from + COPY_DESK_BYTES - last * grid.source_step - nvlxi_rows_span(&grid.rows, grid.rows.source_pitch);
        copy_desk_begin(&desk);
        OK(me.ops->copy_grid(desk.lane, &grid, 0, 0));
        expect_grid(&desk, &grid);
        copy_desk_finish(&desk);
        grid.rows.source++;
        GIVES(NVLX_EDEVICE, me.ops->copy_grid(desk.lane, &grid, 0, 0));
        grid.rows.source--;
        grid.destination_step++;
        GIVES(NVLX_EDEVICE, me.ops->copy_grid(desk.lane, &grid, 0, 0));
        grid.destination_step = (grid.rows.count - 1) * grid.rows.destination_pitch;
        GIVES(NVLX_EDEVICE, me.ops->copy_grid(desk.lane, &grid, 0, 0));
        copy_desk_finish(&desk);
    }
    copy_desk_free(&desk);
}

const struct contract_case rows_cases[] = {
    {"engines copy grids", engines_copy_grids},
    {"engines copy rows", engines_copy_rows},
    {"kernels copy rows", kernels_copy_rows},
    {"rows of a wrong form are refused", rows_of_a_wrong_form_are_refused},
    {"rows end with their allocation", rows_end_with_their_allocation},
};
const size_t rows_case_count = NVLXI_COUNT(rows_cases);
