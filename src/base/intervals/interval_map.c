/* The lookup table of ranges: inserts, removes and finds their pieces. SPDX-License-Identifier: Apache-2.0 */
#include "base/intervals/interval_map.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define IDS_MIN 128u
#define MANY    (1u << 20) /* ids */
#define SMALL   4096u      /* pieces: of fewer, slots are made soon, since it costs little */

/* ---- Memory ------------------------------------------------------------------------------------------ */

static int copy_store(const struct nvlxi_store *from, uint32_t room, uint32_t capacity, struct nvlxi_store *copy) {
    struct nvlxi_store made = {.capacity = capacity};
    int code = nvlxi_order_copy(&from->order, capacity, &made.order);
    made.piece = malloc(capacity * sizeof *made.piece);
    made.layers = malloc(capacity * sizeof *made.layers);
    if (code || !made.piece || !made.layers) {
        nvlxi_store_free(&made);
        return NVLX_ENOMEM;
    }
    memcpy(made.piece, from->piece, room * sizeof *made.piece);
    memcpy(made.layers, from->layers, room * sizeof *made.layers);
    *copy = made;
    return 0;
}

void nvlxi_store_free(struct nvlxi_store *store) {
    nvlxi_order_free(&store->order);
    free(store->piece);
    free(store->layers);
    *store = (struct nvlxi_store){0};
}

int nvlxi_store_init(uint32_t capacity, struct nvlxi_store *store) {
    struct nvlxi_range none = {.start = UINT64_MAX, .end = UINT64_MAX};
    struct nvlxi_layers ends = {0};
    const struct nvlxi_store empty = {.piece = &none, .layers = &ends};
    return copy_store(&empty, 1, capacity, store);
}

uint64_t nvlxi_intervals_new_version(void) {
    static atomic_uint_fast64_t versions;
    return atomic_fetch_add(&versions, 1) + 1;
}

int nvlxi_intervals_init(struct nvlxi_intervals *ranges) {
    struct nvlxi_intervals made = {.room = 1};
    struct nvlxi_slots *slots;
    if (nvlxi_store_init(IDS_MIN, &made.store))
        goto no_memory;
    slots = nvlxi_slots_make(made.store.piece, made.store.layers, 0, 1);
    if (!slots)
        goto free_store;
    made.piece = made.store.piece;
    made.version = nvlxi_intervals_new_version();
    nvlxi_intervals_swap_slots(&made, slots);
    *ranges = made;
    return 0;
free_store:
    nvlxi_store_free(&made.store);
no_memory:
    return nvlxi_fail(NVLX_ENOMEM, "no memory for a lookup table");
}

void nvlxi_intervals_free(struct nvlxi_intervals *ranges) {
    nvlxi_store_free(&ranges->store);
    nvlxi_store_free(&ranges->spare);
    free(ranges->slots);
    *ranges = (struct nvlxi_intervals){0};
}

void nvlxi_intervals_tidy(struct nvlxi_intervals *ranges) {
    if (nvlxi_unlikely(ranges->spare.piece != NULL))
        nvlxi_store_free(&ranges->spare);
}

static bool holds(const struct nvlxi_range *piece, uint64_t address) {
    return address - piece->start <= piece->last;
}

/* The first piece that ends after an address; `floor` is the last that begins at or before it. */
static uint32_t first_behind(const struct nvlxi_intervals *ranges, uint32_t floor, uint64_t address) {
    __builtin_prefetch(&ranges->store.layers[floor]);
    return floor && holds(&ranges->piece[floor], address) ? floor : nvlxi_intervals_next(ranges, floor);
}

/* The last piece that begins at or before an address that is about to be changed. Fetches its neighbours too, which a
 * change looks at, and which are anywhere in memory. */
static uint32_t seek(struct nvlxi_intervals *ranges, uint64_t address) {
    uint32_t near[2];
    const uint32_t id = nvlxi_order_seek(&ranges->store.order, address, near);
    for (int i = 0; i < 2; i++) {
        __builtin_prefetch(&ranges->piece[near[i]]);
        __builtin_prefetch(&ranges->store.layers[near[i]]);
    }
    __builtin_prefetch(&ranges->piece[id]);
    __builtin_prefetch(&ranges->store.layers[id]);
    return id;
}

void nvlxi_intervals_approach(struct nvlxi_intervals *ranges, uint64_t address) {
    seek(ranges, address);
}

/* The pieces that inserts make at most: one in each gap, and two where the ends of one cut others. `found` is the first
 * that they may meet. */
static uint64_t count_new(const struct nvlxi_intervals *ranges, uint32_t found, uint64_t start, uint64_t end,
                          uint32_t inserts) {
    uint64_t count = 3 * (uint64_t)inserts;
    uint64_t at = start;
    for (uint32_t id = found; ranges->piece[id].start < end; id = nvlxi_intervals_next(ranges, id)) {
        count += ranges->piece[id].start > at;
        at = ranges->piece[id].end;
    }
    return count;
}

/* By four, since what is copied has to be paged in again, and what is not used yet has not; by two where that is much
 * address space. */
static uint64_t larger(uint32_t capacity) {
    return (capacity < MANY ? 4 : 2) * (uint64_t)capacity;
}

int nvlxi_intervals_reserve(struct nvlxi_intervals *ranges, uint64_t start, uint64_t end, uint32_t count) {
    nvlxi_intervals_tidy(ranges);
    ranges->found = first_behind(ranges, seek(ranges, start), start);
    const uint64_t needed = 1 + (uint64_t)ranges->count + count_new(ranges, ranges->found, start, end, count);
    if (needed <= ranges->store.capacity)
        return 0;
    const uint64_t capacity = nvlxi_max(needed, larger(ranges->store.capacity));
    if (capacity > UINT32_MAX / NVLXI_PIECE ||
        copy_store(&ranges->store, ranges->room, (uint32_t)capacity, &ranges->spare))
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a lookup table of %" PRIu64 " ranges", capacity);
    return 0;
}

/* ---- Slots ------------------------------------------------------------------------------------------- */

bool nvlxi_intervals_worn(const struct nvlxi_intervals *ranges) {
    const struct nvlxi_slots *slots = ranges->slots;
    const uint32_t more = slots->pieces < SMALL ? slots->pieces / 8 : slots->pieces;
    return ranges->count > slots->pieces + more || ranges->taken > 2 * (slots->mask + 1) ||
           ranges->changes > slots->worth || nvlxi_intervals_misses(ranges);
}

struct nvlxi_slots *nvlxi_intervals_new_slots(const struct nvlxi_intervals *ranges) {
    return nvlxi_slots_make(ranges->piece, ranges->store.layers, ranges->count, ranges->room);
}

struct nvlxi_slots *nvlxi_intervals_swap_slots(struct nvlxi_intervals *ranges, struct nvlxi_slots *slots) {
    struct nvlxi_slots *old = ranges->slots;
    ranges->slots = slots;
    ranges->slot = slots->slot;
    ranges->shift = slots->shift;
    ranges->mask = slots->mask;
    ranges->taken = slots->taken;
    ranges->changes = 0;
    return old;
}

/* ---- Pieces ------------------------------------------------------------------------------------------ */

static void set_bounds(struct nvlxi_intervals *ranges, uint32_t id, uint64_t start, uint64_t end) {
    struct nvlxi_range *piece = &ranges->piece[id];
    piece->start = start;
    piece->end = end;
    piece->last = end - start - 1;
}

static void set_end(struct nvlxi_intervals *ranges, uint32_t id, uint64_t end) {
    ranges->taken -= nvlxi_slots_taken(&ranges->piece[id], ranges->shift);
    set_bounds(ranges, id, ranges->piece[id].start, end);
    ranges->taken += nvlxi_slots_taken(&ranges->piece[id], ranges->shift);
}

static uint32_t take_id(struct nvlxi_intervals *ranges) {
    const uint32_t id = ranges->unused;
    if (!id)
        return ranges->room++;
    ranges->unused = ranges->store.layers[id].above;
    return id;
}

/* A piece like another one, in another place: behind `below`. */
static uint32_t add_piece(struct nvlxi_intervals *ranges, const struct nvlxi_range *like, uint64_t start, uint64_t end,
                          uint32_t below) {
    struct nvlxi_layers *layers = ranges->store.layers;
    const uint32_t id = take_id(ranges), above = layers[below].above;
    ranges->piece[id] = *like;
    set_bounds(ranges, id, start, end);
    ranges->taken += nvlxi_slots_taken(&ranges->piece[id], ranges->shift);
    layers[id] = (struct nvlxi_layers){.below = below, .above = above, .born = ++ranges->births};
    layers[below].above = layers[above].below = id;
    nvlxi_order_insert(&ranges->store.order, start, id);
    ranges->count++;
    return id;
}

static void remove_piece(struct nvlxi_intervals *ranges, uint32_t id) {
    struct nvlxi_layers *layers = ranges->store.layers;
    const uint32_t below = layers[id].below, above = layers[id].above;
    nvlxi_order_remove(&ranges->store.order, ranges->piece[id].start);
    ranges->taken -= nvlxi_slots_taken(&ranges->piece[id], ranges->shift);
    layers[below].above = above;
    layers[above].below = below;
    layers[id].above = ranges->unused;
    ranges->unused = id;
    ranges->piece[id] = ranges->piece[0];
    ranges->count--;
}

/* Cuts a piece in two; returns the upper one. */
static uint32_t split(struct nvlxi_intervals *ranges, uint32_t id, uint64_t at) {
    const uint64_t end = ranges->piece[id].end;
    const uint32_t upper = add_piece(ranges, &ranges->piece[id], at, end, id);
    struct nvlxi_layers *lower_layers = &ranges->store.layers[id], *upper_layers = &ranges->store.layers[upper];
    set_end(ranges, id, at);
    upper_layers->ranges = lower_layers->ranges;
    upper_layers->readable = lower_layers->readable;
    upper_layers->writable = lower_layers->writable;
    upper_layers->ends = lower_layers->ends;
    lower_layers->ends = 0;
    return upper;
}

/* Makes one of a piece and the one below, if no range starts or ends between them any more. */
static void join(struct nvlxi_intervals *ranges, uint32_t id) {
    struct nvlxi_layers *layers = ranges->store.layers;
    const uint32_t below = layers[id].below;
    if (!id || !below || ranges->piece[below].end != ranges->piece[id].start || layers[id].starts || layers[below].ends)
        return;
    const uint64_t end = ranges->piece[id].end;
    layers[below].ends = layers[id].ends;
    remove_piece(ranges, id);
    set_end(ranges, below, end);
}

/* Tells whether the piece below adjoins without a border. No range goes over one. */
static void set_joined(const struct nvlxi_intervals *ranges, uint32_t id) {
    const struct nvlxi_layers *layers = ranges->store.layers;
    const uint32_t below = layers[id].below;
    ranges->piece[id].joined = below && ranges->piece[below].end == ranges->piece[id].start &&
                               ranges->piece[below].place == ranges->piece[id].place &&
                               (!layers[id].border || layers[below].ranges > layers[below].ends);
}

/* The same for this piece, and for those above it up to the one that starts at `end`. */
static void set_joined_from(const struct nvlxi_intervals *ranges, uint32_t id, uint64_t end) {
    for (; id && ranges->piece[id].start <= end; id = nvlxi_intervals_next(ranges, id))
        set_joined(ranges, id);
}

static void count_layer(const struct nvlxi_intervals *ranges, uint32_t id, uint32_t access, uint32_t by) {
    struct nvlxi_layers *layers = &ranges->store.layers[id];
    layers->ranges += by;
    if (access & NVLX_ACCESS_READ)
        layers->readable += by;
    if (access & NVLX_ACCESS_WRITE)
        layers->writable += by;
    ranges->piece[id].access =
        (uint8_t)((layers->readable ? NVLX_ACCESS_READ : 0) | (layers->writable ? NVLX_ACCESS_WRITE : 0));
}

/* ---- Changes ----------------------------------------------------------------------------------------- */

/* Puts the larger store in place that was made for this insert. */
static void take_spare(struct nvlxi_intervals *ranges) {
    const struct nvlxi_store old = ranges->store;
    if (ranges->spare.capacity <= old.capacity)
        return;
    ranges->store = ranges->spare;
    ranges->spare = old;
    ranges->piece = ranges->store.piece;
}

/* The piece that starts at `at`, which is not beyond the range: cut from the one found, or made in the gap before it.
 * It does not reach beyond the range. */
static uint32_t piece_from(struct nvlxi_intervals *ranges, uint32_t found, uint64_t at,
                           const struct nvlxi_range *range) {
    const struct nvlxi_range *piece = &ranges->piece[found];
    if (!found || piece->start > at)
        return add_piece(ranges, range, at, nvlxi_min(piece->start, range->end), ranges->store.layers[found].below);
    const uint32_t id = piece->start < at ? split(ranges, found, at) : found;
    if (ranges->piece[id].end > range->end)
        split(ranges, id, range->end);
    return id;
}

uint32_t nvlxi_intervals_insert(struct nvlxi_intervals *ranges, const struct nvlxi_range *range, bool border) {
    uint32_t first = 0, last = 0, next = ranges->found;
    take_spare(ranges);
    ranges->changes++;
    for (uint64_t at = range->start; at < range->end; at = ranges->piece[last].end) {
        last = piece_from(ranges, next, at, range);
        first = first ? first : last;
        count_layer(ranges, last, range->access, 1);
        next = nvlxi_intervals_next(ranges, last);
    }
    struct nvlxi_layers *layers = ranges->store.layers;
    layers[first].starts++;
    layers[last].ends++;
    layers[first].border = border;
    ranges->piece[first].owner = range->owner;
    set_joined_from(ranges, first, range->end);
    ranges->found = nvlxi_intervals_next(ranges, last);
    return first;
}

void nvlxi_intervals_remove(struct nvlxi_intervals *ranges, const struct nvlxi_range *range) {
    struct nvlxi_layers *layers = ranges->store.layers;
    const uint32_t first = seek(ranges, range->start), below = layers[first].below;
    uint32_t last = first, next;
    ranges->changes++;
    layers[first].starts--;
    for (uint32_t id = first; ranges->piece[id].start < range->end; id = nvlxi_intervals_next(ranges, id)) {
        count_layer(ranges, id, range->access, UINT32_MAX);
        last = id;
    }
    layers[last].ends--;
    next = nvlxi_intervals_next(ranges, last);
    for (uint32_t id = first, above; id != next; id = above) {
        above = nvlxi_intervals_next(ranges, id);
        if (!layers[id].ranges)
            remove_piece(ranges, id);
    }
    if (ranges->piece[first].start == range->start)
        join(ranges, first);
    if (ranges->piece[next].start == range->end)
        join(ranges, next);
    set_joined_from(ranges, nvlxi_intervals_next(ranges, below), range->end);
}

/* ---- Lookups ----------------------------------------------------------------------------------------- */

uint32_t nvlxi_intervals_search(const struct nvlxi_intervals *ranges, uint64_t address) {
    return first_behind(ranges, nvlxi_order_floor(&ranges->store.order, address), address);
}

/* Whether a piece has bytes that go to the same slot as an address. */
static bool shares_slot(const struct nvlxi_intervals *ranges, const struct nvlxi_range *piece, uint64_t address) {
    const uint64_t wide = address >> ranges->shift;
    return piece->start >> ranges->shift <= wide && wide <= (piece->start + piece->last) >> ranges->shift;
}

uint32_t nvlxi_intervals_find_further(const struct nvlxi_intervals *ranges, uint64_t address, uint32_t hint) {
    const struct nvlxi_layers *near = &ranges->store.layers[hint];
    const bool boundary = shares_slot(ranges, &ranges->piece[hint], address);
    if (boundary && holds(&ranges->piece[near->below], address))
        return near->below;
    if (boundary && holds(&ranges->piece[near->above], address))
        return near->above;
    const uint32_t id = nvlxi_intervals_search(ranges, address);
    if (holds(&ranges->piece[id], address))
        atomic_store_explicit(&ranges->slot[(address >> ranges->shift) & ranges->mask], id * NVLXI_PIECE,
                              memory_order_relaxed);
    atomic_fetch_sub_explicit(&ranges->slots->patience, 1, memory_order_relaxed);
    return id;
}

uint64_t nvlxi_intervals_reach(const struct nvlxi_intervals *ranges, uint32_t piece, uint64_t end) {
    uint32_t id = piece, above;
    while (ranges->piece[id].end < end && (above = nvlxi_intervals_next(ranges, id)) && ranges->piece[above].joined)
        id = above;
    return nvlxi_min(ranges->piece[id].end, end);
}

bool nvlxi_intervals_cover(const struct nvlxi_intervals *ranges, uint32_t piece, uint64_t address, uint64_t length,
                           uint32_t access, uint64_t *where, bool *registered) {
    uint64_t end;
    const bool fits = nvlxi_add(address, length, &end);
    *where = address;
    *registered = false;
    if (!fits)
        end = UINT64_MAX; /* to tell where what is registered ends */
    for (uint32_t id = piece; *where < end; id = nvlxi_intervals_next(ranges, id)) {
        const struct nvlxi_range *range = &ranges->piece[id];
        if (!id || range->start > *where)
            return false;
        if ((range->access & access) != access) {
            *registered = true;
            return false;
        }
        *where = range->end;
    }
    return fits;
}
