/* The contract of copies of rows, by engines and by kernels: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract.h"

#include <stdlib.h>
#include <string.h>

enum { SEED = 31, BLANK = 200, BYTES = 4 * MIB, ROWS_MAX = 200 };

/* What `to`, filled with BLANK, holds after rows of `from`, filled with SEED, have come. */
struct desk {
    struct nvlxi_lane *lane;
    struct nvlxi_rows *rows; /* [ROWS_MAX] in memory from list_alloc */
    uint64_t from, to;
    uint8_t *expected;
};

static struct desk desk_make(void) {
    struct desk desk = {.from = allocate(0, BYTES), .to = allocate(0, BYTES), .expected = malloc(BYTES)};
    void *memory;
    assert_non_null(desk.expected);
    OK(me.ops->lane_create(me.device, 0, 0, &desk.lane));
    OK(me.ops->list_alloc(me.device, ROWS_MAX * sizeof *desk.rows, &memory));
    desk.rows = memory;
    fill(desk.from, BYTES, SEED);
    return desk;
}

static void desk_free(const struct desk *desk) {
    me.ops->list_free(me.device, desk->rows);
    me.ops->lane_destroy(desk->lane);
    free(desk->expected);
    release(desk->from);
    release(desk->to);
}

static void begin(const struct desk *desk) {
    fill(desk->to, BYTES, BLANK);
    for (uint64_t i = 0; i < BYTES; i++)
        desk->expected[i] = seed_byte(BLANK, i);
}

static void expect(const struct desk *desk, const struct nvlxi_rows *rows) {
    for (uint64_t row = 0; row < rows->count; row++)
        for (uint64_t i = 0; i < rows->length; i++)
            desk->expected[rows->destination - desk->to + row * rows->destination_pitch + i] =
                seed_byte(SEED, rows->source - desk->from + row * rows->source_pitch + i);
}

static void finish(const struct desk *desk) {
    uint8_t *got = malloc(BYTES);
    assert_non_null(got);
    while (me.ops->lane_query(desk->lane) == NVLX_EAGAIN)
        continue;
    OK(me.ops->lane_query(desk->lane));
    OK(me.ops->memcpy(me.device, got, (void *)(uintptr_t)desk->to, BYTES));
    assert_true(memcmp(got, desk->expected, BYTES) == 0);
    free(got);
}

/* The n-th: of every alignment, long and short, few and many; one behind the other from `*at` on. */
static struct nvlxi_rows rows_of(const struct desk *desk, uint64_t n, bool overlapping, uint64_t *at) {
    static const uint64_t lengths[] = {1, 2, 3, 16, 32, 60, 64, 100, 128, 512, 1000, 2048, 5000, 40000};
    static const uint64_t counts[] = {1, 2, 5, 33, 70};
    const uint64_t unit = n % 3 ? 16 : 1, length = lengths[n % NVLXI_COUNT(lengths)];
    const uint64_t count = length > 3000 ? 3 : counts[n % NVLXI_COUNT(counts)];
    const uint64_t pitch = nvlxi_ceil_div(length, unit) * unit;
    struct nvlxi_rows rows = {.destination = desk->to + nvlxi_ceil_div(*at, unit) * unit + n % 2 * unit,
                              .source = desk->from + n * 7919 % (BYTES / 2) / unit * unit,
                              .length = length,
                              .count = count,
                              .destination_pitch = pitch + n % 4 * unit,
                              .source_pitch = overlapping ? n % 2 * length / 2 : pitch + n % 5 * unit};
    *at = rows.destination - desk->to + nvlxi_rows_span(&rows, rows.destination_pitch);
    assert_true(*at <= BYTES);
    return rows;
}

static uint32_t lay(const struct desk *desk, bool overlapping) {
    uint64_t at = 0;
    begin(desk);
    for (uint32_t n = 0; n < ROWS_MAX; n++) {
        desk->rows[n] = rows_of(desk, n, overlapping && n % 2, &at);
        expect(desk, &desk->rows[n]);
    }
    return ROWS_MAX;
}

static void engines_copy_rows(void **state) {
    (void)state;
    struct desk desk = desk_make();
    const uint32_t count = lay(&desk, false);
    struct nvlxi_rows *list = malloc(count * sizeof *list);
    assert_non_null(list);
    memcpy(list, desk.rows, count * sizeof *list);
    OK(me.ops->copy_rows(desk.lane, list, 1, 0, 0));
    OK(me.ops->copy_rows(desk.lane, list + 1, count - 1, 0, 0));
    memset(list, 0, count * sizeof *list); /* has been read */
    finish(&desk);
    free(list);
    desk_free(&desk);
}

static void kernels_copy_rows(void **state) {
    (void)state;
    static const uint64_t averages[] = {0, 2500, 9000, 70000, UINT64_MAX};
    struct nvlxi_gpu_limits limits;
    struct desk desk = desk_make();
    OK(me.ops->limits(me.device, 0, &limits));
    for (size_t i = 0; i < 2 * NVLXI_COUNT(averages); i++) {
        const uint32_t count = lay(&desk, true);
        const struct nvlxi_fragment *list = (const void *)desk.rows;
        const struct nvlxi_part parts[] = {{list, 7}, {list, 0}, {list + 2 * 7, count - 7}};
        const struct nvlxi_kernel kernel = {.parts = parts,
                                            .part_count = NVLXI_COUNT(parts),
                                            .rows = true,
                                            .sms = i % 2 ? limits.sms : 1,
                                            .average = averages[i / 2]};
        OK(me.ops->copy_kernel(desk.lane, &kernel));
        finish(&desk);
    }
    desk_free(&desk);
}

static void rows_of_a_wrong_form_are_refused(void **state) {
    (void)state;
    struct desk desk = desk_make();
    const struct nvlxi_rows good = {desk.to, desk.from, 512, 20, 1024, 2048};
    struct nvlxi_rows wrong_forms[3];
    for (size_t i = 0; i < NVLXI_COUNT(wrong_forms); i++)
        wrong_forms[i] = good;
    wrong_forms[0].destination_pitch = 511;
    wrong_forms[1].source_pitch = 511;
    wrong_forms[2].source_pitch = 0;
    begin(&desk);
    for (size_t i = 0; i < NVLXI_COUNT(wrong_forms); i++)
        GIVES(NVLX_EDEVICE, me.ops->copy_rows(desk.lane, &wrong_forms[i], 1, 0, 0));
    finish(&desk);
    OK(me.ops->copy_rows(desk.lane, &good, 1, 0, 0));
    expect(&desk, &good);
    finish(&desk);
    desk_free(&desk);
}

/* The last row may end where the allocation does, whatever the pitch. */
static void rows_end_with_their_allocation(void **state) {
    (void)state;
    struct desk desk = desk_make();
    struct nvlxi_rows rows = {desk.to, desk.from, 512, 4096, 1000, 1000};
    const uint64_t start = BYTES - nvlxi_rows_span(&rows, 1000);
    rows.destination += start;
    rows.source += start;
    begin(&desk);
    OK(me.ops->copy_rows(desk.lane, &rows, 1, 0, 0));
    expect(&desk, &rows);
    finish(&desk);
    rows.source++;
    GIVES(NVLX_EDEVICE, me.ops->copy_rows(desk.lane, &rows, 1, 0, 0));
    rows.source--;
    rows.destination++;
    GIVES(NVLX_EDEVICE, me.ops->copy_rows(desk.lane, &rows, 1, 0, 0));
    finish(&desk);
    desk_free(&desk);
}

const struct contract_case rows_cases[] = {
    {"engines copy rows", engines_copy_rows},
    {"kernels copy rows", kernels_copy_rows},
    {"rows of a wrong form are refused", rows_of_a_wrong_form_are_refused},
    {"rows end with their allocation", rows_end_with_their_allocation},
};
const size_t rows_case_count = NVLXI_COUNT(rows_cases);
