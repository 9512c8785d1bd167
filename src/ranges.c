/* SPDX-License-Identifier: Apache-2.0 */
#include "ranges.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "error.h"

#define SLOTS_MIN 64u
#define SLOTS_MAX (1u << 22)
#define PIECE     ((uint32_t)sizeof(struct nvlxi_range))
#define SPREAD    64u /* slots a piece, so that few of them stand for a boundary */

/* Appends a piece, unless it is empty. Neighbours stay apart even where they grant the same: what is in flight is known
 * by piece. */
static void append(struct nvlxi_range *piece, uint32_t *count, struct nvlxi_range next) {
    if (next.start < next.end)
        piece[(*count)++] = next;
}

static int compare_ends(const void *a, const void *b) {
    const struct nvlxi_range *const *x = a, *const *y = b;
    return ((*x)->end > (*y)->end) - ((*x)->end < (*y)->end);
}

struct sweep {
    uint32_t open, readable, writable; /* ranges over the current address, and those that grant each access */
    struct nvlxi_range current;
};

static void sweep_count(struct sweep *sweep, const struct nvlxi_range *range, uint32_t step) {
    sweep->open += step;
    if (range->access & NVLX_ACCESS_READ)
        sweep->readable += step;
    if (range->access & NVLX_ACCESS_WRITE)
        sweep->writable += step;
}

/* Ends the current piece at `address` and begins the next one there. */
static void sweep_cut(struct sweep *sweep, uint64_t address, struct nvlxi_range *piece, uint32_t *count) {
    sweep->current.end = address;
    sweep->current.access =
        (uint16_t)((sweep->readable ? NVLX_ACCESS_READ : 0) | (sweep->writable ? NVLX_ACCESS_WRITE : 0));
    if (sweep->open)
        append(piece, count, sweep->current);
    sweep->current.start = address;
}

/* Cuts ranges at every start and end. `ends` are the same ranges, sorted by end. */
static uint32_t cut(const struct nvlxi_range *sorted, const struct nvlxi_range *const *ends, size_t count,
                    struct nvlxi_range *piece) {
    struct sweep sweep = {0};
    uint32_t pieces = 0;
    size_t start = 0;
    for (size_t end = 0; end < count; end++) {
        for (; start < count && sorted[start].start < ends[end]->end; start++) {
            sweep_cut(&sweep, sorted[start].start, piece, &pieces);
            sweep.current.owner = sorted[start].owner;
            sweep.current.device = sorted[start].device;
            sweep_count(&sweep, &sorted[start], 1);
        }
        sweep_cut(&sweep, ends[end]->end, piece, &pieces);
        sweep_count(&sweep, ends[end], UINT32_MAX);
    }
    return pieces;
}

/* Returns the number of pieces written to `piece` (room for 2 * count), or UINT32_MAX without memory. */
static uint32_t make_pieces(const struct nvlxi_range *sorted, size_t count, struct nvlxi_range *piece) {
    const struct nvlxi_range **ends = malloc((count ? count : 1) * sizeof *ends);
    if (!ends)
        return UINT32_MAX;
    for (size_t i = 0; i < count; i++)
        ends[i] = &sorted[i];
    qsort(ends, count, sizeof *ends, compare_ends);
    uint32_t pieces = cut(sorted, ends, count, piece);
    free(ends);
    return pieces;
}

static bool overlap_anywhere(const struct nvlxi_range *sorted, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (sorted[i].start < sorted[i - 1].end)
            return true;
    return false;
}

static int build_pieces(const struct nvlxi_range *sorted, size_t count, struct nvlxi_ranges *ranges) {
    bool overlap = overlap_anywhere(sorted, count);
    ranges->piece = malloc(((overlap ? 2 * count : count) + 1) * sizeof *ranges->piece);
    if (!ranges->piece)
        return NVLX_ENOMEM;
    ranges->count = (uint32_t)count;
    if (overlap)
        ranges->count = make_pieces(sorted, count, ranges->piece);
    else
        for (size_t i = 0; i < count; i++)
            ranges->piece[i] = sorted[i];
    if (ranges->count == UINT32_MAX) {
        free(ranges->piece);
        return NVLX_ENOMEM;
    }
    for (uint32_t i = 0; i < ranges->count; i++)
        ranges->piece[i].last = ranges->piece[i].end - ranges->piece[i].start - 1;
    ranges->piece[ranges->count] = (struct nvlxi_range){.start = UINT64_MAX, .end = UINT64_MAX};
    return 0;
}

/* The slots that all pieces take if a slot is 2^shift bytes wide. */
static uint64_t slots_taken(const struct nvlxi_ranges *ranges, uint32_t shift) {
    uint64_t taken = 0;
    for (uint32_t i = 0; i < ranges->count; i++)
        taken += (ranges->piece[i].last >> shift) + 1;
    return taken;
}

static void fill_slots(struct nvlxi_ranges *ranges) {
    for (uint64_t i = 0; i <= ranges->mask; i++)
        ranges->slot[i] = ranges->count * PIECE;
    for (uint32_t i = 0; i < ranges->count; i++) {
        const struct nvlxi_range *piece = &ranges->piece[i];
        const uint64_t first = piece->start >> ranges->shift, last = (piece->start + piece->last) >> ranges->shift;
        for (uint64_t wide = first; wide <= last; wide++)
            ranges->slot[wide & ranges->mask] = i * PIECE;
    }
}

static uint64_t power_of_two(uint64_t least) {
    uint64_t power = SLOTS_MIN;
    while (power < least)
        power *= 2;
    return power;
}

/* How wide slots may be without any of them holding bytes of two pieces: that is known by the highest bit in which the
 * last byte of one and the first of the next differ. */
static uint32_t widest_shift(const struct nvlxi_ranges *ranges) {
    uint32_t shift = 63;
    for (uint32_t i = 1; i < ranges->count; i++) {
        const uint64_t differ = ranges->piece[i].start ^ (ranges->piece[i - 1].end - 1);
        shift = (uint32_t)nvlxi_min(shift, 63 - (uint64_t)__builtin_clzll(differ));
    }
    return shift;
}

/* Few wide slots if the pieces are aligned to them, and lie close to each other. Else many, so that few of them stand
 * for a boundary, or for pieces of several clusters. */
static void choose_slots(struct nvlxi_ranges *ranges) {
    const uint64_t wanted = nvlxi_min((uint64_t)SPREAD * ranges->count, SLOTS_MAX);
    const uint64_t most = power_of_two(nvlxi_max(wanted, ranges->count)); /* each piece takes one at least */
    const uint64_t first = ranges->count ? ranges->piece[0].start : 0;
    const uint64_t last = ranges->count ? ranges->piece[ranges->count - 1].end - 1 : 0;
    ranges->shift = widest_shift(ranges);
    ranges->mask = power_of_two(nvlxi_min((last >> ranges->shift) - (first >> ranges->shift) + 1, 2 * most)) - 1;
    if (ranges->mask < most)
        return;
    ranges->mask = most - 1;
    ranges->shift = 0;
    while (slots_taken(ranges, ranges->shift) > most)
        ranges->shift++;
    /* Better a few slots a piece less than pieces that share slots, as long as the gaps between them are not too wide
     * for that. */
    for (int tries = 0; tries < 3 && (last - first) >> ranges->shift >= most; tries++)
        ranges->shift++;
}

static int build_slots(struct nvlxi_ranges *ranges) {
    choose_slots(ranges);
    ranges->slot = malloc((ranges->mask + 1) * sizeof *ranges->slot);
    if (!ranges->slot)
        return NVLX_ENOMEM;
    fill_slots(ranges);
    return 0;
}

int nvlxi_ranges_build(const struct nvlxi_range *sorted, size_t count, struct nvlxi_ranges *ranges) {
    struct nvlxi_ranges built = {0};
    if (count > UINT32_MAX / 4 / PIECE)
        return nvlxi_fail(NVLX_ENOMEM, "%zu registered ranges are more than a lookup table holds", count);
    if (build_pieces(sorted, count, &built))
        goto no_memory;
    if (build_slots(&built))
        goto free_pieces;
    static atomic_uint_fast64_t versions;
    built.version = atomic_fetch_add(&versions, 1) + 1;
    *ranges = built;
    return 0;
free_pieces:
    free(built.piece);
no_memory:
    return nvlxi_fail(NVLX_ENOMEM, "no memory for a lookup table of %zu ranges", count);
}

void nvlxi_ranges_free(struct nvlxi_ranges *ranges) {
    free(ranges->piece);
    free(ranges->slot);
    *ranges = (struct nvlxi_ranges){0};
}

uint32_t nvlxi_ranges_search(const struct nvlxi_ranges *ranges, uint64_t address) {
    uint32_t first = 0, last = ranges->count;
    while (first < last) {
        uint32_t middle = first + (last - first) / 2;
        if (ranges->piece[middle].end > address)
            last = middle;
        else
            first = middle + 1;
    }
    return first;
}

uint64_t nvlxi_ranges_reach(const struct nvlxi_ranges *ranges, uint32_t piece, uint64_t end) {
    while (ranges->piece[piece].end < end && !nvlxi_ranges_border(ranges, &ranges->piece[piece + 1]))
        piece++;
    return nvlxi_min(ranges->piece[piece].end, end);
}

bool nvlxi_ranges_cover(const struct nvlxi_ranges *ranges, uint32_t piece, uint64_t address, uint64_t length,
                        uint32_t access, uint64_t *where, bool *registered) {
    uint64_t end;
    const bool fits = nvlxi_add(address, length, &end);
    *where = address;
    *registered = false;
    if (!fits)
        end = UINT64_MAX; /* to tell where what is registered ends */
    for (; *where < end; piece++) {
        const struct nvlxi_range *range = &ranges->piece[piece];
        if (piece >= ranges->count || range->start > *where)
            return false;
        if ((range->access & access) != access) {
            *registered = true;
            return false;
        }
        *where = range->end;
    }
    return fits;
}
