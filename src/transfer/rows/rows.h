/* One side of rows: which bytes are theirs. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_ROWS_ROWS_H
#define NVLXI_TRANSFER_ROWS_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "base/records.h"

/* What is not aligned like this the kernels copy byte by byte. More bytes than so many of that are for copy engines. */
#define NVLXI_ALIGNMENT     4u
#define NVLXI_UNALIGNED_MAX (64u << 10)

static inline bool nvlxi_rows_are_aligned(const struct nvlxi_rows *rows) {
    return !(((rows->destination ^ rows->source) | rows->destination_pitch | rows->source_pitch) % NVLXI_ALIGNMENT);
}

struct nvlxi_side {
    uint64_t address; /* of the first row */
    uint64_t pitch;   /* from one row to the next */
    uint64_t length;  /* of a row, > 0 */
    uint64_t count;   /* of rows, > 0 */
};

static inline struct nvlxi_side nvlxi_destination_of(const struct nvlxi_rows *rows) {
    return (struct nvlxi_side){rows->destination, rows->destination_pitch, rows->length, rows->count};
}

static inline struct nvlxi_side nvlxi_source_of(const struct nvlxi_rows *rows) {
    return (struct nvlxi_side){rows->source, rows->source_pitch, rows->length, rows->count};
}

static inline uint64_t nvlxi_side_at(const struct nvlxi_side *side, uint64_t row) {
    return side->address + row * side->pitch;
}

/* Bytes from the first one of the first row to the last one of the last row. */
static inline uint64_t nvlxi_side_span(const struct nvlxi_side *side) {
    return (side->count - 1) * side->pitch + side->length;
}

/* Whether no bytes lie between the rows. */
static inline bool nvlxi_side_is_solid(const struct nvlxi_side *side) {
    return side->count == 1 || side->pitch <= side->length;
}

/* How many rows, from `row` on, end at or before an address. */
uint64_t nvlxi_side_rows_until(const struct nvlxi_side *side, uint64_t row, uint64_t end);

/* Whether some row has a byte of [address, address + length), length > 0, which does not wrap around. */
bool nvlxi_side_touches(const struct nvlxi_side *side, uint64_t address, uint64_t length);

/* Whether some byte is both sides'. Where their pitches differ, it may look at as many rows as the side with fewer has.
 */
bool nvlxi_sides_overlap(const struct nvlxi_side *one, const struct nvlxi_side *other);

#endif
