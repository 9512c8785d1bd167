/* Which bytes are those of rows. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/rows/rows.h"

bool nvlxi_rows_fit_engines(const struct nvlxi_rows *rows) {
    return nvlxi_min(rows->destination_pitch, rows->source_pitch) >= rows->length &&
           nvlxi_max(rows->destination_pitch, rows->source_pitch) <= NVLXI_PITCH_MAX;
}

static bool is_even(const struct nvlxi_grid *grid) {
    return nvlxi_rows_fit_engines(&grid->rows) &&
           nvlxi_grid_is_even(grid->rows.count, grid->rows.destination_pitch, grid->destination_step) &&
           nvlxi_grid_is_even(grid->rows.count, grid->rows.source_pitch, grid->source_step);
}

bool nvlxi_grid_fits_engines(const struct nvlxi_grid *grid) {
    const struct nvlxi_grid turned = nvlxi_grid_turned(grid);
    return is_even(grid) || is_even(&turned);
}

struct nvlxi_grid nvlxi_grid_for_engines(const struct nvlxi_grid *grid) {
    return is_even(grid) ? *grid : nvlxi_grid_turned(grid);
}

uint64_t nvlxi_side_rows_until(const struct nvlxi_side *side, uint64_t row, uint64_t end) {
    const uint64_t at = nvlxi_side_at(side, row), left = side->count - row;
    if (end < at || end - at < side->length)
        return 0;
    return side->pitch ? nvlxi_min((end - at - side->length) / side->pitch + 1, left) : left;
}

/* The first row that ends behind `address`. There is one. */
static uint64_t row_behind(const struct nvlxi_side *side, uint64_t address) {
    const uint64_t end = side->address + side->length;
    return address < end || !side->pitch ? 0 : (address - end) / side->pitch + 1;
}

bool nvlxi_side_touches(const struct nvlxi_side *side, uint64_t address, uint64_t length) {
    const uint64_t end = side->address + nvlxi_side_span(side);
    if (address >= end || address + length <= side->address)
        return false;
    return nvlxi_side_at(side, row_behind(side, address)) < address + length;
}

__extension__ typedef unsigned __int128 wide;

/* The sum of (start + i * step) / pitch for all i below `count`, modulo 2^64: as Euclid's algorithm, in no more rounds
 * than numbers have bits. */
static uint64_t sum_quotients(uint64_t count, uint64_t pitch, uint64_t step, wide start) {
    uint64_t sum = 0;
    for (;;) {
        const uint64_t pairs = count % 2 ? (count - 1) / 2 * count : count / 2 * (count - 1), rest = step % pitch;
        sum += pairs * (step / pitch) + count * (uint64_t)(start / pitch);
        const wide end = (wide)rest * count + start % pitch;
        if (end < pitch)
            return sum;
        count = (uint64_t)(end / pitch);
        start = end % pitch;
        step = pitch;
        pitch = rest;
    }
}

/* Whether one of `count` rows, from `row` on, meets one of the other side. All lie between its first byte and its last.
 *
 * From the start of the other side's row before it, a row's last byte has an offset. They meet if that is less than
 * what both lengths make, less one: how often it is so, two sums of quotients tell. */
static bool rows_meet(const struct nvlxi_side *side, uint64_t row, uint64_t count, const struct nvlxi_side *other) {
    const uint64_t near = side->length + other->length - 1;
    if (near >= other->pitch)
        return true;
    const uint64_t first = (nvlxi_side_at(side, row) + side->length - 1 - other->address) % other->pitch;
    return count + sum_quotients(count, other->pitch, side->pitch, first) !=
           sum_quotients(count, other->pitch, side->pitch, (wide)first + other->pitch - near);
}

bool nvlxi_sides_overlap(const struct nvlxi_side *one, const struct nvlxi_side *other) {
    const uint64_t start = nvlxi_max(one->address, other->address);
    const uint64_t end = nvlxi_min(one->address + nvlxi_side_span(one), other->address + nvlxi_side_span(other));
    if (start >= end)
        return false;
    if (nvlxi_side_is_solid(one))
        return nvlxi_side_touches(other, one->address, nvlxi_side_span(one));
    if (nvlxi_side_is_solid(other))
        return nvlxi_side_touches(one, other->address, nvlxi_side_span(other));
    const uint64_t first = row_behind(one, start);
    if (nvlxi_side_at(one, first) >= end)
        return false;
    const uint64_t last = nvlxi_min((end - 1 - one->address) / one->pitch, one->count - 1);
    return rows_meet(one, first, last - first + 1, other);
}
