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

static inline bool nvlxi_grid_is_aligned(const struct nvlxi_grid *grid) {
    return nvlxi_rows_are_aligned(&grid->rows) &&
           (grid->times == 1 || (grid->destination_step | grid->source_step) % NVLXI_ALIGNMENT == 0);
}

/* A grid takes the room of so many fragments in a list, rows of so many. */
#define NVLXI_GRID_ROOM (sizeof(struct nvlxi_grid) / sizeof(struct nvlxi_fragment))
#define NVLXI_ROWS_ROOM (sizeof(struct nvlxi_rows) / sizeof(struct nvlxi_fragment))

_Static_assert(sizeof(struct nvlxi_grid) % sizeof(struct nvlxi_fragment) == 0, "grids lie in the room of fragments");
_Static_assert(sizeof(struct nvlxi_rows) % sizeof(struct nvlxi_fragment) == 0, "and so do rows");

static inline uint64_t nvlxi_grid_bytes(const struct nvlxi_grid *grid) {
    return grid->times * grid->rows.count * grid->rows.length;
}

/* The same the other way round: as many rows as there were times, and as many times as there were rows. */
static inline struct nvlxi_grid nvlxi_grid_turned(const struct nvlxi_grid *grid) {
    struct nvlxi_grid turned = *grid;
    turned.rows.count = grid->times;
    turned.rows.destination_pitch = grid->destination_step;
    turned.rows.source_pitch = grid->source_step;
    turned.times = grid->rows.count;
    turned.destination_step = grid->rows.destination_pitch;
    turned.source_step = grid->rows.source_pitch;
    return turned;
}

/* Whether engines take rows, whatever their number; and whether they take the times as well, this way or the other
 * way round, in one copy if the numbers are not too large. */
bool nvlxi_rows_fit_engines(const struct nvlxi_rows *rows);
bool nvlxi_grid_fits_engines(const struct nvlxi_grid *grid);

/* The way round that they take it. */
struct nvlxi_grid nvlxi_grid_for_engines(const struct nvlxi_grid *grid);

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

/* Whether some byte is both sides'. It costs no more where they have many rows. */
bool nvlxi_sides_overlap(const struct nvlxi_side *one, const struct nvlxi_side *other);

#endif
