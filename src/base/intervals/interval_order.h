/* Numbers in the order of addresses: which one begins last, at or before an address. Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Entries lie in leaves of at most NVLXI_LEAF. Two leaves side by side have more than half of one between them, so that
 * `capacity` entries always find room. An insert or a removal moves the rest of one leaf, and now and then the list of
 * leaves. Starts are unique; ids are never 0.
 *
 * A change begins where the last one was, and searches only if that is not the place: so it costs little where starts
 * ascend. What a change notes for the next one, no lookup reads. */
#ifndef NVLXI_BASE_INTERVALS_INTERVAL_ORDER_H
#define NVLXI_BASE_INTERVALS_INTERVAL_ORDER_H

#include <stdint.h>

#define NVLXI_LEAF 128u

struct nvlxi_leaf {
    uint32_t count;
    uint32_t id[NVLXI_LEAF];
    uint64_t start[NVLXI_LEAF];
};

struct nvlxi_order {
    uint64_t *first;         /* [leaves]: where each begins */
    uint32_t *place;         /* which leaf that is; behind them those that are not used */
    struct nvlxi_leaf *leaf; /* [capacity of leaves] */
    uint32_t leaves;
    uint32_t at, here; /* which leaf the last change was in, and how many of its entries lie before that */
};

/* A copy with room for `capacity` entries; `from` has no more. NVLX_ENOMEM, not logged. */
int nvlxi_order_copy(const struct nvlxi_order *from, uint32_t capacity, struct nvlxi_order *copy);
void nvlxi_order_free(struct nvlxi_order *order);

/* The id that begins last, at or before the address; 0 if none does. */
uint32_t nvlxi_order_floor(const struct nvlxi_order *order, uint64_t address);

/* The same, where the next change is likely to be. `near`: the ids before and behind that one, or 0 where they lie in
 * another leaf. Lookups may go on meanwhile. */
uint32_t nvlxi_order_seek(struct nvlxi_order *order, uint64_t address, uint32_t near[2]);

void nvlxi_order_insert(struct nvlxi_order *order, uint64_t start, uint32_t id);
/* An entry that is there. */
void nvlxi_order_remove(struct nvlxi_order *order, uint64_t start);

#endif
