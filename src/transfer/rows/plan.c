/* Chooses who carries rows, and puts them into lists as both take them. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/plan.h"
#include "transfer/rows/rows.h"

/* The rules, measured on two H100 with NV18 between them. A copy by an engine takes 3.5 us more than its bytes, whoever
 * else copies: 1 MiB has 170 GB/s, 4 MiB 282, 16 MiB 350. The kernel for fragments has, of a list that it must be told,
 * 131 at most for 1 KiB, 289 for 4 KiB, 348 for 16 KiB. What is not aligned to 4 bytes the kernel copies byte by byte.
 * Short rows cost the engines as much as such of 128 bytes: 64 bytes have 188 GB/s, 32 have 94, where the kernel for
 * rows has 326 and 235 (two H200). */
#define ROW_MIN 128u /* a shorter row is the kernel's */

/* So many bytes of rows of this length are for the engines. */
static uint64_t engine_bytes(uint64_t length) {
    if (length < 4096)
        return 2u << 20;
    return length < 16384 ? 8u << 20 : 16u << 20;
}

static bool is_fragment(const struct nvlxi_rows *rows) {
    return rows->count == 1 || (rows->destination_pitch == rows->length && rows->source_pitch == rows->length);
}

static bool fits_engines(const struct nvlxi_rows *rows) {
    return nvlxi_min(rows->destination_pitch, rows->source_pitch) >= rows->length &&
           nvlxi_max(rows->destination_pitch, rows->source_pitch) <= NVLXI_PITCH_MAX;
}

bool nvlxi_plan_suits_engines(const struct nvlxi_rows *rows) {
    const uint64_t bytes = rows->count * rows->length;
    if (!fits_engines(rows))
        return false;
    if (!nvlxi_rows_are_aligned(rows))
        return bytes >= NVLXI_UNALIGNED_MAX;
    return rows->length >= ROW_MIN && bytes >= engine_bytes(rows->length);
}

static bool is_for_engines(const struct nvlxi_plan *plan, const struct nvlxi_group *group,
                           const struct nvlxi_rows *rows) {
    return !group->kernels || (plan->mechanism != NVLX_MECHANISM_KERNEL && nvlxi_plan_suits_engines(rows));
}

static int put(struct nvlxi_plan *plan, struct nvlxi_group *group, enum nvlxi_way way, const struct nvlxi_rows *rows) {
    struct nvlxi_list *list = &group->lists[way];
    int code = list->limit - list->next < 2 ? nvlxi_plan_add_chunk(plan, list, way == NVLXI_ROWS_BY_KERNEL) : 0;
    if (code)
        return code;
    *(struct nvlxi_rows *)list->next = *rows;
    list->next += 2;
    list->bytes += rows->count * rows->length;
    return 0;
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
    return fits_engines(rows) ? calls : rows->count;
}

static int put_for_engines(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows) {
    const bool strips = go_in_strips(rows);
    if (!strips && !fits_engines(rows))
        return add_each_row(plan, group, rows);
    return put_parts(plan, group, NVLXI_ROWS_BY_ENGINES, rows, NVLXI_ROWS_MAX,
                     strips ? rows->source_pitch : rows->length);
}

int nvlxi_plan_add_rows(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows) {
    if (is_fragment(rows))
        return nvlxi_plan_add(plan, group, rows->destination, rows->source, rows->count * rows->length);
    return is_for_engines(plan, group, rows) ? put_for_engines(plan, group, rows) : put_for_kernel(plan, group, rows);
}
