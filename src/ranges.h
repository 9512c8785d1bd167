/* A lookup table of address ranges: which one holds an address. Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A table is built once from any ranges, which may overlap, and then only read. Building cuts them into pieces that do
 * not overlap, sorted by address; a piece grants what any of its ranges grants. A lookup goes by some bits of the
 * address to a slot, which names a piece that is likely to hold it: there are many more slots than pieces. Where it
 * does not, all pieces are searched by halving. Clusters of addresses that are far apart share the slots without harm.
 * A table must have been built, be it of nothing, before it is read. */
#ifndef NVLXI_RANGES_H
#define NVLXI_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base.h"

struct nvlxi_range {
    uint64_t start, end; /* [start, end), start < end */
    uint32_t owner;      /* what one copy may cross, such as a segment: the same for all ranges that overlap */
    uint16_t access;     /* NVLX_ACCESS_... */
    uint16_t device;     /* index of the GPU that holds it */
    uint64_t last;       /* end - start - 1; set by nvlxi_ranges_build */
};

struct nvlxi_ranges {
    uint64_t version; /* no other table of this process has it; never 0 */
    uint32_t shift;   /* a slot stands for addresses that agree in (address >> shift) & mask */
    uint32_t count;   /* pieces */
    uint64_t mask;    /* slots - 1 */
    uint32_t *slot;   /* index of a piece, or `count`, times the size of one, which saves each lookup a shift */
    struct nvlxi_range *piece; /* [count + 1]: the last ends at UINT64_MAX and holds nothing */
};

/* Builds a table of `count` ranges, sorted by start. All owners of overlapping ranges are equal. NVLX_ENOMEM leaves
 * *ranges as it was. */
int nvlxi_ranges_build(const struct nvlxi_range *sorted, size_t count, struct nvlxi_ranges *ranges);
void nvlxi_ranges_free(struct nvlxi_ranges *ranges);

/* The first piece that ends after `address`, by halving. */
uint32_t nvlxi_ranges_search(const struct nvlxi_ranges *ranges, uint64_t address);

/* The first piece that ends after `address`: the one that holds it, if any does. Where a slot stands for the boundary
 * of two, it names the upper one. */
static inline uint32_t nvlxi_ranges_find(const struct nvlxi_ranges *ranges, uint64_t address) {
    uint32_t likely = ranges->slot[(address >> ranges->shift) & ranges->mask] / sizeof *ranges->piece;
    const struct nvlxi_range *piece = &ranges->piece[likely];
    if (address - piece->start <= piece->last)
        return likely;
    if (likely && address - piece[-1].start <= piece[-1].last)
        return likely - 1;
    return nvlxi_ranges_search(ranges, address);
}

/* Whether [address, address + length), length > 0, lies in one piece: the one found for this address. */
static inline bool nvlxi_range_holds(const struct nvlxi_range *found, uint64_t address, uint64_t length) {
    return address >= found->start && length <= found->end - address;
}

/* The same of [address, address + last] and a range of `size` bytes; a `last` of UINT64_MAX lies in none. */
static inline bool nvlxi_holds(uint64_t start, uint64_t size, uint64_t address, uint64_t last) {
    const uint64_t offset = address - start + last; /* of the last byte: wraps around below the range */
    return nvlxi_likely(offset >= last && offset < size);
}

/* Whether a piece of the table begins where one of another owner ends: no copy may go on from that into this one. */
static inline bool nvlxi_ranges_border(const struct nvlxi_ranges *ranges, const struct nvlxi_range *piece) {
    return piece > ranges->piece && piece[-1].end == piece->start && piece[-1].owner != piece->owner;
}

/* How far [address, end), of which `piece` holds the first byte and adjacent ones the rest, goes without a border. */
uint64_t nvlxi_ranges_reach(const struct nvlxi_ranges *ranges, uint32_t piece, uint64_t end);

/* Whether [address, address + length), length > 0, lies in adjacent pieces, of whatever owners, from `piece` on, that
 * all grant `access` (every bit). If not, *where is the first byte that is missing or not granted, and *registered
 * tells whether it is the latter. */
bool nvlxi_ranges_cover(const struct nvlxi_ranges *ranges, uint32_t piece, uint64_t address, uint64_t length,
                        uint32_t access, uint64_t *where, bool *registered);

#endif
