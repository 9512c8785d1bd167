/* Hints: which piece is likely to hold an address. Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Some bits of an address choose a slot, which names a piece: there are many more slots than pieces. A hint that is
 * outdated does no harm, since whoever follows one looks whether the piece holds the address. Who had to search for a
 * piece instead writes it into the slot: slots are read and written by any number of threads at the same time.
 * Clusters of addresses that are far apart share the slots. */
#ifndef NVLXI_BASE_INTERVALS_INTERVAL_SLOTS_H
#define NVLXI_BASE_INTERVALS_INTERVAL_SLOTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

struct nvlxi_range {
    uint64_t start, end; /* [start, end), start < end */
    uint32_t owner;      /* the segment; the user's word for it */
    uint8_t access;      /* NVLX_ACCESS_... */
    bool joined;         /* of a piece: the piece below ends where it starts, and one copy may cross that. Of a range
                            that a table is built of: what comes to adjoin below may be joined */
    uint16_t place;      /* where its memory is (records.h) */
    union {
        uint64_t last;  /* of a piece: end - start - 1 */
        uint64_t since; /* of a range that a table is built of: a number of the user's; see nvlxi_intervals_build */
    };
};

#define NVLXI_PIECE ((uint32_t)sizeof(struct nvlxi_range)) /* what slots are scaled by, which saves a shift */

struct nvlxi_layers {                    /* of a piece: what changes and searches need to know */
    uint32_t below, above;               /* its neighbours in the order of addresses, or 0 */
    uint32_t ranges, readable, writable; /* over it */
    uint32_t starts, ends;               /* those that start and end where it does */
    bool border;                         /* no copy may come from below to where those start */
    uint64_t born;                       /* when it got this id, or see nvlxi_intervals_build */
};

struct nvlxi_slots {
    uint32_t shift;          /* a slot stands for addresses that agree in (address >> shift) & mask */
    uint64_t mask;           /* slots - 1 */
    uint64_t taken;          /* slots that all pieces took when these were made */
    uint32_t pieces;         /* that there were then */
    uint32_t worth;          /* so many searches, or changes, and others are worth their making */
    atomic_long patience;    /* searches that are left until then */
    _Atomic uint32_t slot[]; /* id of a piece, or 0, times NVLXI_PIECE */
};

/* Slots for `count` pieces, from layers[0].above on. Ids are below `room`; those of no piece start at
 * UINT64_MAX. NULL without memory. */
struct nvlxi_slots *nvlxi_slots_make(const struct nvlxi_range *piece, const struct nvlxi_layers *layers, uint32_t count,
                                     uint32_t room);

/* How many slots a piece takes. */
static inline uint64_t nvlxi_slots_taken(const struct nvlxi_range *piece, uint32_t shift) {
    return (piece->last >> shift) + 1;
}

#endif
