/* Chooses who carries rows, and puts them into lists as both take them. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/plan/plan.h"
#include "transfer/rows/rows.h"

/* The rules, measured on two H100 and two H200 with NV18 between them.
 *
 * A copy by an engine takes 3.5 us more than its bytes, whoever else copies: 1 MiB has 170 GB/s, 4 MiB 282, 16 MiB 350.
 * The kernel for fragments has, of a list that it must be told, 131 at most for 1 KiB, 289 for 4 KiB, 348 for 16 KiB.
 * What is not aligned to 4 bytes the kernel copies byte by byte. Short rows cost the engines as much as such of 128
 * bytes: 64 bytes have 188 GB/s, 32 have 94, where the kernel for rows has 326 and 235. So engines carry what has so
 * many bytes, of rows that are not short.
 *
 * From one time of a grid to the next takes an engine 10 ns (two H200): 512 times 8 rows of 4 KiB have 295 GB/s in one
 * copy, 13 in 512.
 *
 * A launch of the kernel takes 6.5 us more than one such copy: 256 rows of 1 KiB are there after 16.8 us by the kernel,
 * by engines after 10.7; two times so many after 17.3 and 15.1, three times after 18.1 and 18.3. So engines carry the
 * rectangles of a group, too, if these are so few that they do it sooner. */
#define ROW_MIN       128u   /* bytes; a shorter row is the kernel's */
#define COPY_NS       3500u  /* one copy, without its bytes */
#define TIME_NS       10u    /* each time of a grid, likewise */
#define TIMES_PART    8u     /* of the time that its bytes take, all times may take one */
#define LAUNCH_NS     10000u /* one kernel, likewise */
#define ENGINE_PER_NS 385u   /* bytes */
#define KERNEL_PER_NS 360u

/* So many bytes of rows of this length are for the engines. */
static uint64_t engine_bytes(uint64_t length) {
    if (length < 4096)
        return 2u << 20;
    return length < 16384 ? 8u << 20 : 16u << 20;
}

static bool is_fragment(const struct nvlxi_rows *rows) {
    return rows->count == 1 || (rows->destination_pitch == rows->length && rows->source_pitch == rows->length);
}

static bool fits_engines(const struct nvlxi_grid *grid) {
    return grid->times == 1 ? nvlxi_rows_fit_engines(&grid->rows) : nvlxi_grid_fits_engines(grid);
}

/* Without its bytes. */
static uint64_t times_ns(const struct nvlxi_grid *grid) {
    return grid->times == 1 ? 0 : nvlxi_grid_for_engines(grid).times * TIME_NS;
}

bool nvlxi_plan_suits_engines(const struct nvlxi_grid *grid) {
    const uint64_t bytes = nvlxi_grid_bytes(grid);
    if (!fits_engines(grid))
        return false;
    if (!nvlxi_grid_is_aligned(grid))
        return bytes >= NVLXI_UNALIGNED_MAX;
    return grid->rows.length >= ROW_MIN && bytes >= engine_bytes(grid->rows.length) &&
           times_ns(grid) * TIMES_PART <= bytes / ENGINE_PER_NS;
}

/* Whether engines have copied these before a kernel has. */
static bool are_sooner_by_engines(const struct nvlxi_grid *grids, uint32_t count) {
    uint64_t engines = 0, kernel = LAUNCH_NS;
    for (uint32_t i = 0; i < count; i++) {
        const struct nvlxi_grid *grid = &grids[i];
        if (!nvlxi_grid_is_aligned(grid))
            return true;
        engines += COPY_NS + times_ns(grid) +
                   grid->times * grid->rows.count * nvlxi_max(grid->rows.length, ROW_MIN) / ENGINE_PER_NS;
        kernel += nvlxi_grid_bytes(grid) / KERNEL_PER_NS;
    }
    return engines <= kernel;
}

bool nvlxi_plan_suits_engines_alone(const struct nvlxi_grid *grid) {
    return fits_engines(grid) && are_sooner_by_engines(grid, 1);
}

static bool is_for_engines(const struct nvlxi_plan *plan, const struct nvlxi_group *group,
                           const struct nvlxi_grid *grid) {
    return !group->kernels || (plan->mechanism != NVLX_MECHANISM_KERNEL && nvlxi_plan_suits_engines(grid));
}

/* Takes room in a list, and counts bytes there. */
static int take_room(struct nvlxi_plan *plan, struct nvlxi_list *list, uint64_t room, uint64_t bytes, bool kernel,
                     void **taken) {
    int code = (uint64_t)(list->limit - list->next) < room ? nvlxi_plan_add_chunk(plan, list, kernel) : 0;
    if (code)
        return code;
    *taken = list->next;
    list->next += room;
    list->bytes += bytes;
    return 0;
}

static int put_grid(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_grid *grid) {
    void *room;
    int code =
        take_room(plan, &group->lists[NVLXI_ROWS_BY_ENGINES], NVLXI_GRID_ROOM, nvlxi_grid_bytes(grid), false, &room);
    if (!code)
        *(struct nvlxi_grid *)room = *grid;
    return code;
}

static int put(struct nvlxi_plan *plan, struct nvlxi_group *group, enum nvlxi_way way, const struct nvlxi_rows *rows) {
    const struct nvlxi_grid once = {.rows = *rows, .times = 1};
    void *room;
    if (way == NVLXI_ROWS_BY_ENGINES)
        return put_grid(plan, group, &once);
    int code = take_room(plan, &group->lists[way], NVLXI_ROWS_ROOM, rows->count * rows->length, true, &room);
    if (!code)
        *(struct nvlxi_rows *)room = *rows;
    return code;
}

/* ---- Parts ------------------------------------------------------------------------------------------------ */

/* Rows from the `row`-th on, and of each `length` bytes from `column` on. */
static struct nvlxi_rows part_of(const struct nvlxi_rows *rows, uint64_t row, uint64_t count, uint64_t column,
                                 uint64_t length) {
    struct nvlxi_rows part = *rows;
    part.destination += row * rows->destination_pitch + column;
    part.source += row * rows->source_pitch + column;
    part.count = nvlxi_min(count, rows->count - row);
    part.length = nvlxi_min(length, rows->length - column);
    return part;
}

/* Puts them into a list in parts of so many rows and bytes of a row at most. */
static int put_parts(struct nvlxi_plan *plan, struct nvlxi_group *group, enum nvlxi_way way,
                     const struct nvlxi_rows *rows, uint64_t count, uint64_t length) {
    int code = 0;
    for (uint64_t row = 0; row < rows->count && !code; row += count) {
        for (uint64_t column = 0; column < rows->length && !code; column += length) {
            const struct nvlxi_rows part = part_of(rows, row, count, column, length);
            code = put(plan, group, way, &part);
        }
    }
    return code;
}

/* Pieces of as many bytes as those of fragments. */
static int put_for_kernel(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows) {
    const uint64_t piece = nvlxi_plan_piece(rows->count * rows->length), length = nvlxi_min(rows->length, piece);
    return put_parts(plan, group, NVLXI_ROWS_BY_KERNEL, rows, piece / length, length);
}

static int add_each_row(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows) {
    int code = 0;
    for (uint64_t row = 0; row < rows->count && !code; row++)
        code = nvlxi_plan_add(plan, group, rows->destination + row * rows->destination_pitch,
                              rows->source + row * rows->source_pitch, rows->length);
    return code;
}

/* Of rows that overlap, strips of a pitch's width do not. */
static bool go_in_strips(const struct nvlxi_rows *rows) {
    return rows->source_pitch && rows->source_pitch < rows->length &&
           nvlxi_ceil_div(rows->length, rows->source_pitch) < rows->count &&
           nvlxi_max(rows->destination_pitch, rows->source_pitch) <= NVLXI_PITCH_MAX;
}

uint64_t nvlxi_plan_copies(const struct nvlxi_rows *rows) {
    const uint64_t calls = nvlxi_ceil_div(rows->count, NVLXI_ROWS_MAX);
    if (is_fragment(rows))
        return 1;
    if (go_in_strips(rows))
        return calls * nvlxi_ceil_div(rows->length, rows->source_pitch);
    return nvlxi_rows_fit_engines(rows) ? calls : rows->count;
}

static int put_for_engines(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows) {
    const bool strips = go_in_strips(rows);
    if (!strips && !nvlxi_rows_fit_engines(rows))
        return add_each_row(plan, group, rows);
    return put_parts(plan, group, NVLXI_ROWS_BY_ENGINES, rows, NVLXI_ROWS_MAX,
                     strips ? rows->source_pitch : rows->length);
}

/* ---- Grids ------------------------------------------------------------------------------------------------ */

typedef int (*put_function)(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows);

static int put_each_time(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_grid *grid,
                         put_function put_rows) {
    struct nvlxi_rows rows = grid->rows;
    int code = 0;
    for (uint64_t i = 0; i < grid->times && !code; i++) {
        code = put_rows(plan, group, &rows);
        rows.destination += grid->destination_step;
        rows.source += grid->source_step;
    }
    return code;
}

/* In copies of not too many times. */
static int put_grid_for_engines(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_grid *grid) {
    const struct nvlxi_grid even = nvlxi_grid_for_engines(grid);
    int code = 0;
    if (grid->times == 1 || even.rows.count > NVLXI_ROWS_MAX)
        return put_each_time(plan, group, grid, put_for_engines);
    for (uint64_t time = 0; time < even.times && !code; time += NVLXI_TIMES_MAX) {
        struct nvlxi_grid part = even;
        part.rows.destination += time * even.destination_step;
        part.rows.source += time * even.source_step;
        part.times = nvlxi_min(even.times - time, NVLXI_TIMES_MAX);
        code = put_grid(plan, group, &part);
    }
    return code;
}

/* ---- Few of them ------------------------------------------------------------------------------------------ */

static int put_few_for_kernel(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    int code = 0;
    for (uint32_t i = 0; i < group->few_count && !code; i++)
        code = put_each_time(plan, group, &group->few[i], put_for_kernel);
    group->few_count = 0;
    return code;
}

/* Keeps what the kernel would carry among others, while there is little. */
static int put_for_kernel_later(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_grid *grid) {
    const bool alone = !group->lists[NVLXI_ROWS_BY_KERNEL].first;
    if (alone && plan->mechanism == NVLX_MECHANISM_AUTO && fits_engines(grid) && group->few_count < NVLXI_PLAN_FEW) {
        group->few[group->few_count++] = *grid;
        return 0;
    }
    int code = put_few_for_kernel(plan, group);
    return code ? code : put_each_time(plan, group, grid, put_for_kernel);
}

int nvlxi_plan_place_few(struct nvlxi_plan *plan, struct nvlxi_group *group) {
    int code = 0;
    if (!are_sooner_by_engines(group->few, group->few_count))
        return put_few_for_kernel(plan, group);
    for (uint32_t i = 0; i < group->few_count && !code; i++)
        code = put_grid_for_engines(plan, group, &group->few[i]);
    group->few_count = 0;
    return code;
}

int nvlxi_plan_add_grid(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_grid *grid) {
    const struct nvlxi_rows *rows = &grid->rows;
    if (grid->times == 1 && is_fragment(rows))
        return nvlxi_plan_add(plan, group, rows->destination, rows->source, rows->count * rows->length);
    return is_for_engines(plan, group, grid) ? put_grid_for_engines(plan, group, grid)
                                             : put_for_kernel_later(plan, group, grid);
}

int nvlxi_plan_add_rows(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows) {
    const struct nvlxi_grid once = {.rows = *rows, .times = 1};
    return nvlxi_plan_add_grid(plan, group, &once);
}
