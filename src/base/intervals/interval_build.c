/* Lookup tables that are built at once. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/error.h"
#include "base/intervals/interval_map.h"

#define SPARE 256 /* ids for changes to come: memory that is not touched until then */

static int compare_ends(const void *a, const void *b) {
    const struct nvlxi_range *const *x = a, *const *y = b;
    return ((*x)->end > (*y)->end) - ((*x)->end < (*y)->end);
}

/* Those over the current address, or ended: a heap, with the least `since` on top. */
struct heap {
    const struct nvlxi_range **range;
    size_t count;
};

static void heap_push(struct heap *heap, const struct nvlxi_range *range) {
    size_t at = heap->count++;
    for (; at && heap->range[(at - 1) / 2]->since > range->since; at = (at - 1) / 2)
        heap->range[at] = heap->range[(at - 1) / 2];
    heap->range[at] = range;
}

static void heap_pop(struct heap *heap) {
    const struct nvlxi_range *last = heap->range[--heap->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count && heap->range[child + 1]->since < heap->range[child]->since)
            child++;
        if (heap->range[child]->since >= last->since)
            break;
        heap->range[at] = heap->range[child];
    }
    heap->range[at] = last;
}

/* The least `since` of what goes on beyond an address. */
static uint64_t heap_least(struct heap *heap, uint64_t address) {
    while (heap->count && heap->range[0]->end <= address)
        heap_pop(heap);
    return heap->count ? heap->range[0]->since : 0;
}

struct sweep {
    struct nvlxi_layers open; /* ranges over the current address, of which `starts` begin there */
    struct nvlxi_range current;
    struct heap heap;
    struct nvlxi_store *store; /* of the pieces */
    uint32_t pieces;
};

static void sweep_count(struct sweep *sweep, const struct nvlxi_range *range, uint32_t step) {
    sweep->open.ranges += step;
    if (range->access & NVLX_ACCESS_READ)
        sweep->open.readable += step;
    if (range->access & NVLX_ACCESS_WRITE)
        sweep->open.writable += step;
}

/* Ends the current piece at `address` and begins the next one there. */
static void sweep_cut(struct sweep *sweep, uint64_t address) {
    struct nvlxi_layers *open = &sweep->open;
    sweep->current.end = address;
    sweep->current.access =
        (uint8_t)((open->readable ? NVLX_ACCESS_READ : 0) | (open->writable ? NVLX_ACCESS_WRITE : 0));
    if (sweep->current.start == address)
        return;
    /* Neighbours stay apart even where they grant the same: what is in flight is known by piece. */
    if (open->ranges) {
        sweep->current.since = heap_least(&sweep->heap, sweep->current.start);
        sweep->store->layers[++sweep->pieces] = *open;
        sweep->store->piece[sweep->pieces] = sweep->current;
    }
    sweep->current.start = address;
    open->starts = 0;
    open->border = false;
}

static void sweep_start(struct sweep *sweep, const struct nvlxi_range *range) {
    sweep_cut(sweep, range->start);
    sweep->current.owner = range->owner;
    sweep->current.place = range->place;
    sweep->open.starts++;
    sweep->open.border = !range->joined;
    sweep_count(sweep, range, 1);
    heap_push(&sweep->heap, range);
}

/* The last piece ends where it does. */
static void sweep_end(struct sweep *sweep, const struct nvlxi_range *range) {
    sweep_cut(sweep, range->end);
    sweep->store->layers[sweep->pieces].ends++;
    sweep_count(sweep, range, UINT32_MAX);
}

/* Cuts ranges at every start and end. `ends` are the same ranges, sorted by end. */
static uint32_t cut(const struct nvlxi_range *sorted, const struct nvlxi_range *const *ends, size_t count,
                    struct heap heap, struct nvlxi_store *store) {
    struct sweep sweep = {.heap = heap, .store = store};
    size_t start = 0;
    for (size_t end = 0; end < count; end++) {
        for (; start < count && sorted[start].start < ends[end]->end; start++)
            sweep_start(&sweep, &sorted[start]);
        sweep_end(&sweep, ends[end]);
    }
    return sweep.pieces;
}

/* Returns the number of pieces that are made (room for 2 * count), or UINT32_MAX without memory. */
static uint32_t make_pieces(const struct nvlxi_range *sorted, size_t count, struct nvlxi_store *store) {
    const struct nvlxi_range **ends = malloc((2 * count + 1) * sizeof *ends);
    if (!ends)
        return UINT32_MAX;
    for (size_t i = 0; i < count; i++)
        ends[i] = &sorted[i];
    qsort(ends, count, sizeof *ends, compare_ends);
    uint32_t pieces = cut(sorted, ends, count, (struct heap){.range = ends + count}, store);
    free(ends);
    return pieces;
}

/* A piece for each range. */
static uint32_t take_pieces(const struct nvlxi_range *sorted, size_t count, struct nvlxi_store *store) {
    for (size_t i = 0; i < count; i++) {
        store->piece[i + 1] = sorted[i];
        store->layers[i + 1] = (struct nvlxi_layers){.ranges = 1,
                                                     .readable = (sorted[i].access & NVLX_ACCESS_READ) != 0,
                                                     .writable = (sorted[i].access & NVLX_ACCESS_WRITE) != 0,
                                                     .starts = 1,
                                                     .ends = 1,
                                                     .border = !sorted[i].joined};
    }
    return (uint32_t)count;
}

static bool overlap_anywhere(const struct nvlxi_range *sorted, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (sorted[i].start < sorted[i - 1].end)
            return true;
    return false;
}

/* Links and orders the pieces, which are in order of address from 1 on. */
static void order_pieces(struct nvlxi_intervals *ranges) {
    struct nvlxi_store *store = &ranges->store;
    store->layers[0] = (struct nvlxi_layers){.below = ranges->count, .above = ranges->count ? 1 : 0};
    for (uint32_t id = 1; id <= ranges->count; id++) {
        struct nvlxi_range *piece = &store->piece[id];
        const struct nvlxi_range *below = &store->piece[id - 1];
        struct nvlxi_layers *layers = &store->layers[id];
        layers->below = id - 1;
        layers->above = id == ranges->count ? 0 : id + 1;
        layers->born = nvlxi_max(piece->since, 1);
        piece->last = piece->end - piece->start - 1;
        piece->joined = id > 1 && below->end == piece->start && below->owner == piece->owner;
        nvlxi_order_insert(&store->order, piece->start, id);
    }
}

static int build_pieces(const struct nvlxi_range *sorted, size_t count, struct nvlxi_intervals *ranges) {
    bool overlap = overlap_anywhere(sorted, count);
    if (nvlxi_store_init((uint32_t)((overlap ? 2 * count : count) + count / 8 + SPARE), &ranges->store))
        return NVLX_ENOMEM;
    ranges->piece = ranges->store.piece;
    ranges->count = overlap ? make_pieces(sorted, count, &ranges->store) : take_pieces(sorted, count, &ranges->store);
    if (ranges->count == UINT32_MAX) {
        nvlxi_store_free(&ranges->store);
        return NVLX_ENOMEM;
    }
    ranges->room = ranges->count + 1;
    order_pieces(ranges);
    return 0;
}

int nvlxi_intervals_build(const struct nvlxi_range *sorted, size_t count, struct nvlxi_intervals *ranges) {
    struct nvlxi_intervals built = {.version = nvlxi_intervals_new_version()};
    struct nvlxi_slots *slots;
    if (count > UINT32_MAX / 4 / NVLXI_PIECE)
        return nvlxi_fail(NVLX_ENOMEM, "%zu registered ranges are more than a lookup table holds", count);
    if (build_pieces(sorted, count, &built))
        goto no_memory;
    slots = nvlxi_slots_make(built.piece, built.store.layers, built.count, built.room);
    if (!slots)
        goto free_store;
    nvlxi_intervals_swap_slots(&built, slots);
    *ranges = built;
    return 0;
free_store:
    nvlxi_store_free(&built.store);
no_memory:
    return nvlxi_fail(NVLX_ENOMEM, "no memory for a lookup table of %zu ranges", count);
}
