/* Rows in plans: who carries them, in which parts, and that no byte is lost; and which bytes are theirs, by brute
 * force. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "plan_support.h"
#include "transfer/rows/rows.h"

/* ---- Which bytes are theirs ------------------------------------------------------------------------------ */

#define LINE 96 /* bytes, which the sides of this part lie in */

static uint64_t state = 1;

static uint64_t below(uint64_t limit) {
    return next_random(&state) % limit;
}

static struct nvlxi_side random_side(bool bytes[LINE]) {
    struct nvlxi_side side;
    do {
        side = (struct nvlxi_side){below(LINE), below(20), 1 + below(12), 1 + below(8)};
    } while (side.address + nvlxi_side_span(&side) > LINE);
    memset(bytes, 0, LINE * sizeof *bytes);
    for (uint64_t row = 0; row < side.count; row++)
        for (uint64_t i = 0; i < side.length; i++)
            bytes[side.address + row * side.pitch + i] = true;
    return side;
}

static void sides_know_their_bytes(void) {
    bool mine[LINE], others[LINE];
    for (int round = 0; round < 200000; round++) {
        const struct nvlxi_side side = random_side(mine);
        const uint64_t start = below(LINE), length = 1 + below(LINE - start);
        bool touched = false;
        for (uint64_t i = start; i < start + length; i++)
            touched = touched || mine[i];
        EQUAL(touched, nvlxi_side_touches(&side, start, length));
        struct nvlxi_side other = random_side(others);
        if (other.length != side.length && round % 2)
            continue; /* as in an op, mostly */
        bool overlap = false;
        for (uint64_t i = 0; i < LINE; i++)
            overlap = overlap || (mine[i] && others[i]);
        if (overlap != nvlxi_sides_overlap(&side, &other))
            FAIL("%u %u %u %u and %u %u %u %u overlap: %d", (unsigned)side.address, (unsigned)side.pitch,
                 (unsigned)side.length, (unsigned)side.count, (unsigned)other.address, (unsigned)other.pitch,
                 (unsigned)other.length, (unsigned)other.count, overlap);
    }
}

/* Rows of long sides, one by one. */
static bool some_row_touches(const struct nvlxi_side *side, const struct nvlxi_side *other) {
    for (uint64_t row = 0; row < side->count; row++)
        if (nvlxi_side_touches(other, nvlxi_side_at(side, row), side->length))
            return true;
    return false;
}

static struct nvlxi_side long_side(uint64_t scale) {
    const uint64_t pitch = 2 + below(100), length = 1 + below(nvlxi_min(pitch - 1, 8));
    return (struct nvlxi_side){(1000 + below(20000)) * scale + below(2), pitch * scale, length * (1 + below(scale)),
                               2 + below(500)};
}

static void long_sides_overlap_as_their_rows_do(void) {
    int overlaps = 0;
    for (int round = 0; round < 20000; round++) {
        const uint64_t scale = round % 3 ? 1 : UINT64_C(1) << below(40);
        const struct nvlxi_side side = long_side(scale), other = long_side(round % 2 ? scale : 1);
        const bool overlap = some_row_touches(&side, &other);
        EQUAL(overlap, nvlxi_sides_overlap(&side, &other));
        EQUAL(overlap, nvlxi_sides_overlap(&other, &side));
        overlaps += overlap;
    }
    EXPECT(overlaps > 2000 && overlaps < 18000);
}

/* Also where numbers end: all of this takes no time. */
static void sides_may_have_any_number_of_rows(void) {
    const uint64_t many = UINT64_C(1) << 60, half = UINT64_C(1) << 63;
    struct nvlxi_side even = {0, 8, 1, many}, other = {1, 12, 1, many};
    for (int round = 0; round < 100000; round++) {
        other.address = 1 + below(4096);
        EQUAL(other.address % 4 == 0, nvlxi_sides_overlap(&even, &other));
        EQUAL(other.address % 4 == 0, nvlxi_sides_overlap(&other, &even));
    }
    even = (struct nvlxi_side){0, half, 5, 2};
    other = (struct nvlxi_side){5, half - 1, 4, 2};
    EXPECT(nvlxi_sides_overlap(&even, &other) && nvlxi_sides_overlap(&other, &even));
    other.address = 6;
    EXPECT(!nvlxi_sides_overlap(&even, &other) && !nvlxi_sides_overlap(&other, &even));
    even = (struct nvlxi_side){100, half + 105, 1, 2};
    other = (struct nvlxi_side){0, half + 200, 10, 2};
    EXPECT(nvlxi_sides_overlap(&even, &other) && nvlxi_sides_overlap(&other, &even));
    even = (struct nvlxi_side){0, 3, 2, UINT64_MAX / 3};
    other = (struct nvlxi_side){2, 3 * (many + 1), 1, 5};
    EXPECT(!nvlxi_sides_overlap(&even, &other));
    other.pitch++;
    EXPECT(nvlxi_sides_overlap(&even, &other));
}

static void rows_end_where_they_end(void) {
    bool bytes[LINE];
    for (int round = 0; round < 100000; round++) {
        const struct nvlxi_side side = random_side(bytes);
        const uint64_t end = below(LINE + 1), row = below(side.count);
        uint64_t count = 0;
        while (row + count < side.count && nvlxi_side_at(&side, row + count) + side.length <= end)
            count++;
        EQUAL(count, nvlxi_side_rows_until(&side, row, end));
    }
}

/* ---- Who carries them ------------------------------------------------------------------------------------ */

static const struct nvlxi_rows simple = {LOCAL, REMOTE, 1024, 4096, 2048, 4096};

/* Plans rows, alone. */
static void plan_rows(uint32_t mechanism, bool kernels, struct nvlxi_rows rows) {
    begin(mechanism);
    OK(nvlxi_plan_add_rows(&plan, group_for(NVLX_OP_READ, kernels), &rows));
    OK(nvlxi_plan_seal(&plan));
    EQUAL(rows.count * rows.length, plan.bytes);
}

/* So many times the same rectangle. */
static void expect_times(uint32_t times, struct nvlxi_rows rows, enum nvlxi_way way) {
    begin(NVLX_MECHANISM_AUTO);
    for (uint32_t i = 0; i < times; i++)
        OK(nvlxi_plan_add_rows(&plan, group_for(NVLX_OP_READ, true), &rows));
    OK(nvlxi_plan_seal(&plan));
    EQUAL(times * rows.count * rows.length, plan.bytes);
    EQUAL(plan.bytes, plan.way_bytes[way]);
    end();
}

static void expect_way(uint32_t mechanism, struct nvlxi_rows rows, enum nvlxi_way way) {
    if (mechanism == NVLX_MECHANISM_AUTO) {
        expect_times(3, rows, way);
        return;
    }
    plan_rows(mechanism, true, rows);
    EQUAL(rows.count * rows.length, plan.way_bytes[way]);
    end();
}

static struct nvlxi_rows of(uint64_t length, uint64_t count) {
    return (struct nvlxi_rows){LOCAL, REMOTE, length, count, 2 * length, 2 * length};
}

static void many_bytes_are_for_engines(void) {
    expect_way(NVLX_MECHANISM_AUTO, of(1024, 2048), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(1024, 2047), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_AUTO, of(4096, 2048), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(4096, 2047), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_AUTO, of(16384, 1024), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(16384, 1023), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_AUTO, of(128, 16384), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(124, 1 << 20), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_KERNEL, of(4096, 100000), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_COPY_ENGINE, of(1, 2), NVLXI_ROWS_BY_ENGINES);
    struct nvlxi_rows odd = of(1000, 66);
    odd.source_pitch = 2001;
    expect_way(NVLX_MECHANISM_AUTO, odd, NVLXI_ROWS_BY_ENGINES);
    odd.count = 65;
    expect_way(NVLX_MECHANISM_AUTO, odd, NVLXI_ROWS_BY_KERNEL);
    struct nvlxi_rows repeated = of(4096, 100000);
    repeated.source_pitch = 0;
    expect_way(NVLX_MECHANISM_AUTO, repeated, NVLXI_ROWS_BY_KERNEL);
}

/* Whatever they hold, unless short rows make engines slower than a launch. */
static void so_are_few_rectangles(void) {
    for (uint32_t times = 1; times <= 4; times++) {
        expect_times(times, of(1024, 16), times <= 2 ? NVLXI_ROWS_BY_ENGINES : NVLXI_ROWS_BY_KERNEL);
        expect_times(times, of(1024, 1024), times <= 2 ? NVLXI_ROWS_BY_ENGINES : NVLXI_ROWS_BY_KERNEL);
    }
    expect_times(1, of(64, 8192), NVLXI_ROWS_BY_ENGINES);
    expect_times(2, of(64, 8192), NVLXI_ROWS_BY_ENGINES);
    expect_times(1, of(64, 32768), NVLXI_ROWS_BY_ENGINES);
    expect_times(2, of(64, 32768), NVLXI_ROWS_BY_KERNEL);
    expect_times(1, of(64, 65536), NVLXI_ROWS_BY_KERNEL);
    expect_times(1, of(16, 65536), NVLXI_ROWS_BY_KERNEL);
    struct nvlxi_rows odd = of(1000, 20);
    odd.source++;
    expect_times(1, odd, NVLXI_ROWS_BY_ENGINES);
    struct nvlxi_rows repeated = of(4096, 10);
    repeated.source_pitch = 0;
    expect_times(1, repeated, NVLXI_ROWS_BY_KERNEL);
    /* Those that engines carry anyway, and fragments, make them no more. */
    begin(NVLX_MECHANISM_AUTO);
    struct nvlxi_group *group = group_for(NVLX_OP_READ, true);
    const struct nvlxi_rows few = of(1024, 16), many = of(1024, 4096);
    add_fillers(group, 100);
    for (int i = 0; i < 5; i++)
        OK(nvlxi_plan_add_rows(&plan, group, &many));
    OK(nvlxi_plan_add_rows(&plan, group, &few));
    OK(nvlxi_plan_add_rows(&plan, group, &few));
    OK(nvlxi_plan_seal(&plan));
    EQUAL(7, plan.fragments[NVLXI_ROWS_BY_ENGINES]);
    EQUAL(0, plan.fragments[NVLXI_ROWS_BY_KERNEL]);
    end();
}

static void rows_back_to_back_are_a_fragment(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        plan_rows(mechanisms[i], true, (struct nvlxi_rows){LOCAL, REMOTE, 16, 1024, 16, 16});
        EQUAL(1, all_fragments());
        end();
        plan_rows(mechanisms[i], true, (struct nvlxi_rows){LOCAL, REMOTE, 16, 1, 1, 0});
        EQUAL(1, all_fragments());
        end();
    }
}

/* ---- In which parts -------------------------------------------------------------------------------------- */

/* Counts how often each byte of the destination is written, and checks where it comes from. */
static void mark(const struct nvlxi_rows *whole, const struct nvlxi_rows *part, uint8_t *marks) {
    for (uint64_t row = 0; row < part->count; row++) {
        for (uint64_t i = 0; i < part->length; i++) {
            const uint64_t to = part->destination + row * part->destination_pitch + i - whole->destination;
            const uint64_t from = part->source + row * part->source_pitch + i - whole->source;
            const uint64_t row_of = to / whole->destination_pitch, column = to % whole->destination_pitch;
            EXPECT(row_of < whole->count && column < whole->length);
            EQUAL(row_of * whole->source_pitch + column, from);
            marks[row_of * whole->length + column]++;
        }
    }
}

/* Of the n-th thing in a chunk of a list. */
static struct nvlxi_grid grid_in(const struct nvlxi_chunk *chunk, int way, uint32_t n) {
    const struct nvlxi_fragment *it = &chunk->fragment[n];
    if (way == NVLXI_ROWS_BY_ENGINES)
        return *(const struct nvlxi_grid *)it;
    return (struct nvlxi_grid){.rows = way == NVLXI_ROWS_BY_KERNEL
                                           ? *(const struct nvlxi_rows *)it
                                           : (struct nvlxi_rows){it->destination, it->source, it->length, 1, 0, 0},
                               .times = 1};
}

static void mark_grid(const struct nvlxi_rows *whole, struct nvlxi_grid grid, uint8_t *marks) {
    for (uint64_t i = 0; i < grid.times; i++) {
        mark(whole, &grid.rows, marks);
        grid.rows.destination += grid.destination_step;
        grid.rows.source += grid.source_step;
    }
}

static void check_parts(const struct nvlxi_rows *whole) {
    static const uint32_t room[NVLXI_WAYS] = {1, 1, NVLXI_ROWS_ROOM, NVLXI_GRID_ROOM};
    uint8_t *marks = calloc(whole->count, whole->length);
    EXPECT(marks != NULL);
    for (const struct nvlxi_group *group = plan.groups; group; group = group->following)
        for (int way = 0; way < NVLXI_WAYS; way++)
            for (const struct nvlxi_chunk *chunk = group->lists[way].first; chunk; chunk = chunk->next)
                for (uint32_t i = 0; i < chunk->count; i += room[way])
                    mark_grid(whole, grid_in(chunk, way, i), marks);
    for (uint64_t i = 0; i < whole->count * whole->length; i++)
        EQUAL(1, marks[i]);
    free(marks);
}

static void expect_parts(uint32_t mechanism, struct nvlxi_rows rows, enum nvlxi_way way, uint64_t parts) {
    plan_rows(mechanism, true, rows);
    EQUAL(parts, plan.fragments[way]);
    check_parts(&rows);
    end();
}

static void parts_have_all_bytes(void) {
    expect_parts(NVLX_MECHANISM_KERNEL, of(1024, 256), NVLXI_ROWS_BY_KERNEL, 4);
    expect_parts(NVLX_MECHANISM_KERNEL, of(1000, 200), NVLXI_ROWS_BY_KERNEL, 4); /* 65 of them are a piece */
    expect_parts(NVLX_MECHANISM_KERNEL, of(100 * KIB, 3), NVLXI_ROWS_BY_KERNEL, 6);
    expect_parts(NVLX_MECHANISM_KERNEL, of(MIB, 5), NVLXI_ROWS_BY_KERNEL, 5 * 8); /* of 128 KiB */
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, of(3, (1 << 20) + 1), NVLXI_ROWS_BY_ENGINES, 2);
}

/* Rows, of which every `each` ones are one time. */
static struct nvlxi_grid grid_of(struct nvlxi_rows rows, uint64_t each) {
    struct nvlxi_grid grid = {rows, rows.count / each, each * rows.destination_pitch, each * rows.source_pitch};
    grid.rows.count = each;
    return grid;
}

static void expect_grid(uint32_t mechanism, struct nvlxi_rows rows, const struct nvlxi_grid *grid, enum nvlxi_way way,
                        uint64_t parts) {
    begin(mechanism);
    OK(nvlxi_plan_add_grid(&plan, group_for(NVLX_OP_READ, true), grid));
    OK(nvlxi_plan_seal(&plan));
    EQUAL(rows.count * rows.length, plan.bytes);
    EQUAL(parts, plan.fragments[way]);
    check_parts(&rows);
    end();
}

/* The same bytes, whichever way round they come. */
static void expect_grids(uint32_t mechanism, struct nvlxi_rows rows, uint64_t each, uint64_t parts) {
    const struct nvlxi_grid grid = grid_of(rows, each), turned = nvlxi_grid_turned(&grid);
    expect_grid(mechanism, rows, &grid, NVLXI_ROWS_BY_ENGINES, parts);
    expect_grid(mechanism, rows, &turned, NVLXI_ROWS_BY_ENGINES, parts);
}

static void grids_are_one_copy(void) {
    expect_grids(NVLX_MECHANISM_AUTO, of(4096, 2048), 8, 1);
    expect_grids(NVLX_MECHANISM_AUTO, of(1000, 64), 8, 1);
    expect_grids(NVLX_MECHANISM_COPY_ENGINE, of(3, 64), 8, 1);
    expect_grids(NVLX_MECHANISM_COPY_ENGINE, of(3, 4 * 4097), 4, 2); /* 4096 times, and one */
    struct nvlxi_rows rows = of(256, 16384);                         /* too many times for so few bytes */
    const struct nvlxi_grid often = grid_of(rows, 2);
    expect_grid(NVLX_MECHANISM_AUTO, rows, &often, NVLXI_ROWS_BY_KERNEL, 8192);
    rows = of(1024, 256);
    const struct nvlxi_grid grid = grid_of(rows, 64);
    expect_grid(NVLX_MECHANISM_KERNEL, rows, &grid, NVLXI_ROWS_BY_KERNEL, 4);
}

static void only_even_grids_fit(void) {
    const struct nvlxi_grid good = {{LOCAL, REMOTE, 512, 8, 512, 1024}, 4, 4096, 1 << 20};
    struct nvlxi_grid grids[6];
    for (size_t i = 0; i < COUNT(grids); i++)
        grids[i] = good;
    EXPECT(nvlxi_grid_fits_engines(&good));
    grids[0].destination_step++;
    grids[1].source_step += 512;
    grids[2].source_step = 0;
    grids[3].destination_step = 256;
    grids[4].source_step = 1024 * (NVLXI_DISTANCE_MAX + 1);
    grids[5].rows.destination_pitch = 511;
    for (size_t i = 0; i < COUNT(grids); i++) {
        const struct nvlxi_grid turned = nvlxi_grid_turned(&grids[i]);
        if (nvlxi_grid_fits_engines(&grids[i]) || nvlxi_grid_fits_engines(&turned))
            FAIL("grid %zu fits", i);
    }
}

static void what_engines_do_not_take_is_cut(void) {
    struct nvlxi_rows rows = {LOCAL, REMOTE, 1000, 300, 1000, 300};
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_ROWS_BY_ENGINES, 4); /* strips of 300 bytes */
    EQUAL(4, nvlxi_plan_copies(&rows));
    rows.source_pitch = 1;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_BY_ENGINES, 300); /* each row: strips would be 1000 */
    EQUAL(300, nvlxi_plan_copies(&rows));
    rows.source_pitch = 0;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_BY_ENGINES, 300);
    rows.count = 5;
    rows.source_pitch = UINT64_C(1) << 31;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_BY_ENGINES, 5);
    EQUAL(5, nvlxi_plan_copies(&rows));
    rows.source_pitch--;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_ROWS_BY_ENGINES, 1);
    EQUAL(1, nvlxi_plan_copies(&rows));
}

/* Whatever else is in the plan. */
static void rows_and_fragments_do_not_meet(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    for (size_t i = 0; i < 3 * COUNT(mechanisms); i++) {
        const size_t fillers = (const size_t[]){0, 3, 600}[i % 3];
        begin(mechanisms[i / 3]);
        struct nvlxi_group *group = group_for(NVLX_OP_READ, true);
        add_fillers(group, fillers);
        for (int times = 0; times < 100; times++)
            OK(nvlxi_plan_add_rows(&plan, group, &simple));
        add_fillers(group, fillers);
        OK(nvlxi_plan_seal(&plan));
        EQUAL(100 * simple.count * simple.length + 2 * fillers * 50, plan.bytes);
        EQUAL(2 * fillers, all_fragments());
        end();
    }
}

static void failures_are_passed_on(void) {
    for (long fail_at = 1; fail_at <= 3; fail_at++) {
        begin(NVLX_MECHANISM_KERNEL);
        chunks.fail_at = fail_at;
        int code = 0;
        for (int times = 0; times < 100 && !code; times++)
            code = nvlxi_plan_add_rows(&plan, group_for(NVLX_OP_READ, true), &simple);
        EQUAL(NVLX_EBUSY, code);
        end();
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"sides_know_their_bytes", sides_know_their_bytes},
                                        {"long_sides_overlap_as_their_rows_do", long_sides_overlap_as_their_rows_do},
                                        {"sides_may_have_any_number_of_rows", sides_may_have_any_number_of_rows},
                                        {"rows_end_where_they_end", rows_end_where_they_end},
                                        {"many_bytes_are_for_engines", many_bytes_are_for_engines},
                                        {"so_are_few_rectangles", so_are_few_rectangles},
                                        {"rows_back_to_back_are_a_fragment", rows_back_to_back_are_a_fragment},
                                        {"parts_have_all_bytes", parts_have_all_bytes},
                                        {"grids_are_one_copy", grids_are_one_copy},
                                        {"only_even_grids_fit", only_even_grids_fit},
                                        {"what_engines_do_not_take_is_cut", what_engines_do_not_take_is_cut},
                                        {"rows_and_fragments_do_not_meet", rows_and_fragments_do_not_meet},
                                        {"failures_are_passed_on", failures_are_passed_on},
                                        {0}};
    return run_tests(argc, argv, tests, NULL, 30);
}
