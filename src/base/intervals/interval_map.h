/* A lookup table of address ranges: which ones hold an address. Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Ranges may overlap. They are cut at every start and end into pieces that do not; a piece grants what any of its
 * ranges grants. A table is built at once, or begins empty; then ranges are inserted and removed. Each piece counts the
 * ranges over it, and a change costs what the pieces under its own range cost.
 *
 * A piece has an id as long as it lives, from 1 on; 0 is none. A lookup goes by some bits of the address to a slot,
 * which names a piece that is likely to hold it (interval_slots.h). Where it does not, all are searched by halving
 * (interval_order.h). Pieces are linked in the order of addresses.
 *
 * Lookups may run at the same time as each other, and as whatever says so; nothing else may. */
#ifndef NVLXI_BASE_INTERVALS_INTERVAL_MAP_H
#define NVLXI_BASE_INTERVALS_INTERVAL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "base/intervals/interval_order.h"
#include "base/intervals/interval_slots.h"

struct nvlxi_store { /* arrays by id */
    struct nvlxi_range *piece;
    struct nvlxi_layers *layers;
    struct nvlxi_order order;
    uint32_t capacity; /* ids, 0 among them */
};

struct nvlxi_intervals {
    uint64_t version; /* no other table of this process has it; never 0 */
    uint32_t shift;   /* as in *slots */
    uint32_t room;    /* ids that were ever given are below */
    uint64_t mask;
    _Atomic uint32_t *slot;
    struct nvlxi_range *piece; /* as in the store: [room]; 0 holds nothing */
    uint32_t count;            /* pieces */
    uint32_t found;            /* the first piece that the next insert may meet, by its reserve */
    uint32_t unused;           /* ids that pieces had: list by `above` */
    uint64_t taken;            /* slots that all pieces take */
    uint64_t births;
    uint64_t changes; /* since the slots were made */
    struct nvlxi_slots *slots;
    struct nvlxi_store store;
    struct nvlxi_store spare; /* larger, for the next insert; or the one that it has replaced */
};

/* Builds a table of `count` ranges, sorted by start. Between pieces that adjoin and have different owners is a border;
 * all owners of overlapping ranges are equal. A range that is not `joined` starts at a border to whatever will adjoin.
 * The ids are in the order of addresses. A piece is born with the least `since` of the ranges over it, or 1 if that is
 * less. There is room for some inserts. NVLX_ENOMEM leaves *ranges as it was. */
int nvlxi_intervals_build(const struct nvlxi_range *sorted, size_t count, struct nvlxi_intervals *ranges);

/* Makes an empty table, for ranges to be inserted. NVLX_ENOMEM. */
int nvlxi_intervals_init(struct nvlxi_intervals *ranges);
void nvlxi_intervals_free(struct nvlxi_intervals *ranges);

/* Looks where the next change will be, and fetches what it will look at: worth it where something else, or a lock,
 * comes between. Lookups may go on meanwhile. */
void nvlxi_intervals_approach(struct nvlxi_intervals *ranges, uint64_t address);

/* Makes room for inserts of `count` ranges, one behind the other, of together [start, end): they must be the next
 * changes. Lookups may go on meanwhile. NVLX_ENOMEM leaves the table as it was. */
int nvlxi_intervals_reserve(struct nvlxi_intervals *ranges, uint64_t start, uint64_t end, uint32_t count);

/* A number for `version`: no table of this process has it. */
uint64_t nvlxi_intervals_new_version(void);

/* Inserts a range, in which there is no border. `border`: there is one where it starts, to whatever adjoins below; all
 * ranges that start there say the same. The owner of the range becomes that of the new pieces, and of the one that
 * starts where the range does. Returns the id of that. */
uint32_t nvlxi_intervals_insert(struct nvlxi_intervals *ranges, const struct nvlxi_range *range, bool border);

/* Removes a range that was inserted, by its start, end and access. */
void nvlxi_intervals_remove(struct nvlxi_intervals *ranges, const struct nvlxi_range *range);

/* Frees what the last insert has replaced. Lookups may go on meanwhile. */
void nvlxi_intervals_tidy(struct nvlxi_intervals *ranges);

/* Whether other slots would serve better than those that the table has, and are worth their making. Lookups may go on
 * meanwhile. */
bool nvlxi_intervals_worn(const struct nvlxi_intervals *ranges);
/* The same, by what lookups found alone. */
static inline bool nvlxi_intervals_misses(const struct nvlxi_intervals *ranges) {
    return nvlxi_unlikely(atomic_load_explicit(&ranges->slots->patience, memory_order_relaxed) < 0);
}
/* Makes them; NULL without memory. Lookups may go on meanwhile. */
struct nvlxi_slots *nvlxi_intervals_new_slots(const struct nvlxi_intervals *ranges);
/* Puts them in place; returns the old ones, to be freed by free(3). */
struct nvlxi_slots *nvlxi_intervals_swap_slots(struct nvlxi_intervals *ranges, struct nvlxi_slots *slots);

/* The first piece that ends after `address`, or 0, by halving. */
uint32_t nvlxi_intervals_search(const struct nvlxi_intervals *ranges, uint64_t address);

/* The same where the slot's hint does not hold the address: tries its neighbours if the slot is theirs too, else
 * searches, and corrects the slot. */
uint32_t nvlxi_intervals_find_further(const struct nvlxi_intervals *ranges, uint64_t address, uint32_t hint);

/* The piece that is likely to hold an address, or 0. */
static inline uint32_t nvlxi_intervals_hint(const struct nvlxi_intervals *ranges, uint64_t address) {
    const _Atomic uint32_t *slot = &ranges->slot[(address >> ranges->shift) & ranges->mask];
    return atomic_load_explicit(slot, memory_order_relaxed) / NVLXI_PIECE;
}

/* The first piece that ends after `address`, or 0: the one that holds it, if any does. */
static inline uint32_t nvlxi_intervals_find(const struct nvlxi_intervals *ranges, uint64_t address) {
    const uint32_t likely = nvlxi_intervals_hint(ranges, address);
    const struct nvlxi_range *piece = &ranges->piece[likely];
    return address - piece->start <= piece->last ? likely : nvlxi_intervals_find_further(ranges, address, likely);
}

/* The piece above another one, in the order of addresses, or 0. Of 0: the first. */
static inline uint32_t nvlxi_intervals_next(const struct nvlxi_intervals *ranges, uint32_t id) {
    return ranges->store.layers[id].above;
}

/* Of a table that began empty: a number that this piece has as long as it lives, and no other of this table ever. Of
 * one that was built: see nvlxi_intervals_build, and set by who inserts. Never 0. */
static inline uint64_t nvlxi_intervals_born(const struct nvlxi_intervals *ranges, uint32_t id) {
    return ranges->store.layers[id].born;
}

/* Of a piece that was just inserted in a gap of a table that was built. */
static inline void nvlxi_intervals_set_born(struct nvlxi_intervals *ranges, uint32_t id, uint64_t since) {
    ranges->store.layers[id].born = nvlxi_max(since, 1);
}

/* Whether one range and no other lies over a piece, from its start to its end. */
static inline bool nvlxi_intervals_lone(const struct nvlxi_intervals *ranges, uint32_t id) {
    const struct nvlxi_layers *layers = &ranges->store.layers[id];
    return layers->ranges == 1 && layers->starts == 1 && layers->ends == 1;
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

/* Whether no copy may go on from the piece below, which adjoins, into this one. */
static inline bool nvlxi_intervals_border(const struct nvlxi_intervals *ranges, uint32_t id) {
    const uint32_t below = ranges->store.layers[id].below;
    return !ranges->piece[id].joined && ranges->piece[below].end == ranges->piece[id].start;
}

/* How far [address, end), of which `piece` holds the first byte and adjacent ones the rest, goes without a border. */
uint64_t nvlxi_intervals_reach(const struct nvlxi_intervals *ranges, uint32_t piece, uint64_t end);

/* Whether [address, address + length), length > 0, lies in adjacent pieces, whatever the borders, from `piece` on, that
 * all grant `access` (every bit). If not, *where is the first byte that is missing or not granted, and *registered
 * tells whether it is the latter. */
bool nvlxi_intervals_cover(const struct nvlxi_intervals *ranges, uint32_t piece, uint64_t address, uint64_t length,
                           uint32_t access, uint64_t *where, bool *registered);

/* ---- Between interval_map.c and interval_build.c ------------------------------------------------------ */

/* A store of no pieces. NVLX_ENOMEM, not logged. */
int nvlxi_store_init(uint32_t capacity, struct nvlxi_store *store);
void nvlxi_store_free(struct nvlxi_store *store);

#endif
