/* The borders that a list of ops meets: addresses of this process that no copy may cross. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A border is where an allocation or a mapping begins, whatever lies before it: copy engines refuse what crosses it,
 * though both sides may lie back to back. They are noted while a list is checked, once for each allocation that it
 * meets, and asked for where two ops could be joined: a list that joins nothing pays for the notes alone. */
#ifndef NVLXI_TRANSFER_BORDERS_H
#define NVLXI_TRANSFER_BORDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

struct nvlxi_borders {
    uint64_t *address; /* as noted; some are there more than once */
    size_t count, capacity;
    uint64_t *slot; /* room for the set of them */
    uint32_t shift; /* of the set; 0: it is not made */
};

/* A hash set, to be asked. */
struct nvlxi_border_set {
    const uint64_t *slot; /* 0: empty; some always are */
    uint32_t shift;       /* of a hash to a slot */
};

/* Forgets all; memory is kept. */
static inline void nvlxi_borders_begin(struct nvlxi_borders *borders) {
    borders->count = 0;
    borders->shift = 0;
}

void nvlxi_borders_free(struct nvlxi_borders *borders);

/* The rare part of nvlxi_borders_note. */
int nvlxi_borders_grow(struct nvlxi_borders *borders);

/* NVLX_ENOMEM. `address` is not 0. */
static inline int nvlxi_borders_note(struct nvlxi_borders *borders, uint64_t address) {
    int code = nvlxi_unlikely(borders->count == borders->capacity) ? nvlxi_borders_grow(borders) : 0;
    if (code)
        return code;
    borders->address[borders->count++] = address;
    borders->shift = 0;
    return 0;
}

/* The set of all, made if there were new ones since: good until the next is noted. Takes no memory. NULL: of none. */
struct nvlxi_border_set nvlxi_borders_set(struct nvlxi_borders *borders);

static inline uint64_t nvlxi_borders_slot(uint64_t address, uint32_t shift) {
    return (address * UINT64_C(0x9e3779b97f4a7c15)) >> shift;
}

/* Whether there is a border before the byte at `address`. */
static inline bool nvlxi_borders_has(const struct nvlxi_border_set *set, uint64_t address) {
    const uint64_t mask = UINT64_MAX >> set->shift;
    uint64_t at = nvlxi_borders_slot(address, set->shift);
    while (nvlxi_unlikely(set->slot[at] != 0)) {
        if (set->slot[at] == address)
            return true;
        at = (at + 1) & mask;
    }
    return false;
}

#endif
