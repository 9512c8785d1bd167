/* Ids in the order of their starts, in leaves: searched, inserted, removed. SPDX-License-Identifier: Apache-2.0 */
#include "base/intervals/interval_order.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "nvlxfer.h"

#define LINE 8u /* starts in a cache line */

/* More leaves than this never hold so many entries: see the invariant in the header. */
static uint32_t leaves_for(uint32_t entries) {
    return entries / (NVLXI_LEAF / 4) + 2;
}

int nvlxi_order_copy(const struct nvlxi_order *from, uint32_t capacity, struct nvlxi_order *copy) {
    const uint32_t leaves = leaves_for(capacity);
    struct nvlxi_order made = {.first = malloc(leaves * sizeof *made.first),
                               .place = malloc(leaves * sizeof *made.place),
                               .leaf = malloc(leaves * sizeof *made.leaf),
                               .leaves = from->leaves,
                               .at = from->at,
                               .here = from->here};
    if (!made.first || !made.place || !made.leaf) {
        nvlxi_order_free(&made);
        return NVLX_ENOMEM;
    }
    for (uint32_t i = 0; i < leaves; i++) {
        made.place[i] = i;
        if (i >= from->leaves)
            continue;
        made.first[i] = from->first[i];
        made.leaf[i] = from->leaf[from->place[i]];
    }
    *copy = made;
    return 0;
}

void nvlxi_order_free(struct nvlxi_order *order) {
    free(order->first);
    free(order->place);
    free(order->leaf);
    *order = (struct nvlxi_order){0};
}

/* How many of the starts, which ascend, are not above the address. */
static uint32_t count_until(const uint64_t *start, uint32_t count, uint64_t address) {
    const uint64_t *first = start;
    while (count > 1) { /* without a branch that depends on what is there */
        const uint32_t half = count / 2;
        first += first[half - 1] <= address ? half : 0;
        count -= half;
    }
    return (uint32_t)(first - start) + (count && *first <= address);
}

uint32_t nvlxi_order_floor(const struct nvlxi_order *order, uint64_t address) {
    const uint32_t until = count_until(order->first, order->leaves, address);
    if (!until)
        return 0;
    const struct nvlxi_leaf *leaf = &order->leaf[order->place[until - 1]];
    return leaf->id[count_until(leaf->start, leaf->count, address) - 1];
}

static bool is_leaf(const struct nvlxi_order *order, uint32_t at, uint64_t address) {
    return at < order->leaves && order->first[at] <= address &&
           (at + 1 == order->leaves || address < order->first[at + 1]);
}

static bool is_here(const struct nvlxi_leaf *leaf, uint32_t here, uint64_t address) {
    return here <= leaf->count && (here == 0 || leaf->start[here - 1] <= address) &&
           (here == leaf->count || address < leaf->start[here]);
}

/* Makes `at` and `here` the place behind all entries that are not above the address. There is a leaf. */
static struct nvlxi_leaf *seek(struct nvlxi_order *order, uint64_t address) {
    struct nvlxi_leaf *leaf;
    if (is_leaf(order, order->at, address)) {
        leaf = &order->leaf[order->place[order->at]];
        if (is_here(leaf, order->here, address))
            return leaf;
        if (is_here(leaf, order->here + 1, address)) {
            order->here++;
            return leaf;
        }
    } else {
        const uint32_t until = count_until(order->first, order->leaves, address);
        order->at = until ? until - 1 : 0;
        leaf = &order->leaf[order->place[order->at]];
        for (uint32_t i = 0; i < NVLXI_LEAF; i += LINE)
            __builtin_prefetch(&leaf->start[i]); /* at once, rather than one after another by halving */
    }
    order->here = count_until(leaf->start, leaf->count, address);
    return leaf;
}

uint32_t nvlxi_order_seek(struct nvlxi_order *order, uint64_t address, uint32_t near[2]) {
    near[0] = near[1] = 0;
    if (!order->leaves)
        return 0;
    const struct nvlxi_leaf *leaf = seek(order, address);
    if (order->here > 1)
        near[0] = leaf->id[order->here - 2];
    if (order->here < leaf->count)
        near[1] = leaf->id[order->here];
    return order->here ? leaf->id[order->here - 1] : 0;
}

/* Puts an unused leaf, empty, at this place of the list. */
static struct nvlxi_leaf *add_leaf(struct nvlxi_order *order, uint32_t at) {
    const uint32_t unused = order->place[order->leaves], behind = order->leaves - at;
    memmove(&order->place[at + 1], &order->place[at], behind * sizeof *order->place);
    memmove(&order->first[at + 1], &order->first[at], behind * sizeof *order->first);
    order->place[at] = unused;
    order->leaves++;
    order->leaf[unused].count = 0;
    return &order->leaf[unused];
}

static void remove_leaf(struct nvlxi_order *order, uint32_t at) {
    const uint32_t unused = order->place[at], behind = --order->leaves - at;
    memmove(&order->place[at], &order->place[at + 1], behind * sizeof *order->place);
    memmove(&order->first[at], &order->first[at + 1], behind * sizeof *order->first);
    order->place[order->leaves] = unused;
}

/* Moves entries, from `from` on, to the end of a leaf. */
static void move_entries(struct nvlxi_leaf *target, struct nvlxi_leaf *source, uint32_t from) {
    const uint32_t count = source->count - from;
    memcpy(&target->start[target->count], &source->start[from], count * sizeof *source->start);
    memcpy(&target->id[target->count], &source->id[from], count * sizeof *source->id);
    target->count += count;
    source->count = from;
}

/* Makes room for an entry in a full leaf; behind the last entry of all it takes a new one, so that leaves are full
 * where starts ascend. */
static void split_leaf(struct nvlxi_order *order, uint32_t at, uint64_t start) {
    struct nvlxi_leaf *upper = add_leaf(order, at + 1), *lower = &order->leaf[order->place[at]];
    if (at + 2 == order->leaves && start > lower->start[NVLXI_LEAF - 1]) {
        order->first[at + 1] = start;
        return;
    }
    move_entries(upper, lower, NVLXI_LEAF / 2);
    order->first[at + 1] = upper->start[0];
}

void nvlxi_order_insert(struct nvlxi_order *order, uint64_t start, uint32_t id) {
    if (!order->leaves)
        add_leaf(order, 0);
    struct nvlxi_leaf *leaf = seek(order, start);
    if (leaf->count == NVLXI_LEAF) {
        split_leaf(order, order->at, start);
        leaf = seek(order, start);
    }
    const uint32_t here = order->here, behind = leaf->count - here;
    memmove(&leaf->start[here + 1], &leaf->start[here], behind * sizeof *leaf->start);
    memmove(&leaf->id[here + 1], &leaf->id[here], behind * sizeof *leaf->id);
    leaf->start[here] = start;
    leaf->id[here] = id;
    leaf->count++;
    order->first[order->at] = leaf->start[0];
    order->here = here + 1;
}

/* Makes one leaf of this one and the next, if they have so few entries. */
static void join_leaf(struct nvlxi_order *order, uint32_t at) {
    if (at + 1 >= order->leaves)
        return;
    struct nvlxi_leaf *lower = &order->leaf[order->place[at]], *upper = &order->leaf[order->place[at + 1]];
    if (lower->count + upper->count > NVLXI_LEAF / 2)
        return;
    move_entries(lower, upper, 0);
    remove_leaf(order, at + 1);
}

void nvlxi_order_remove(struct nvlxi_order *order, uint64_t start) {
    struct nvlxi_leaf *leaf = seek(order, start);
    const uint32_t at = order->at, here = --order->here, behind = --leaf->count - here;
    memmove(&leaf->start[here], &leaf->start[here + 1], behind * sizeof *leaf->start);
    memmove(&leaf->id[here], &leaf->id[here + 1], behind * sizeof *leaf->id);
    if (leaf->count)
        order->first[at] = leaf->start[0];
    else
        remove_leaf(order, at);
    if (leaf->count >= NVLXI_LEAF / 2)
        return; /* a neighbour has an entry at least */
    join_leaf(order, at);
    if (at)
        join_leaf(order, at - 1);
}
