/* Which bytes are those of rows. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/rows/rows.h"

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

bool nvlxi_sides_overlap(const struct nvlxi_side *one, const struct nvlxi_side *other) {
    const struct nvlxi_side *few = one->count < other->count ? one : other, *many = few == one ? other : one;
    const uint64_t start = nvlxi_max(few->address, many->address);
    const uint64_t end = nvlxi_min(few->address + nvlxi_side_span(few), many->address + nvlxi_side_span(many));
    if (start >= end)
        return false;
    if (nvlxi_side_is_solid(few))
        return nvlxi_side_touches(many, few->address, nvlxi_side_span(few));
    if (nvlxi_side_is_solid(many))
        return nvlxi_side_touches(few, many->address, nvlxi_side_span(many));
    const uint64_t first = row_behind(few, start), same = few->pitch == many->pitch;
    for (uint64_t row = first; row < few->count && nvlxi_side_at(few, row) < end; row++) {
        if (nvlxi_side_touches(many, nvlxi_side_at(few, row), few->length))
            return true;
        if (same && row > first + 1)
            return false; /* all rows lie alike to those of the other side */
    }
    return false;
}
