/* Chooses the bits of an address that lead to a slot, and fills the slots. SPDX-License-Identifier: Apache-2.0 */
#include "base/intervals/interval_slots.h"

#include <stdlib.h>

#define SLOTS_MIN 64u
#define SLOTS_MAX (1u << 22)
#define SPREAD    64u /* slots a piece, so that few of them stand for a boundary */
#define PATIENCE  8   /* searches a piece: by then they have cost as much as new slots */
#define PATIENT   1024

struct pieces {
    const struct nvlxi_range *piece;
    const struct nvlxi_layers *layers;
    uint32_t count, room;
};

static uint64_t power_of_two(uint64_t least) {
    uint64_t power = SLOTS_MIN;
    while (power < least)
        power *= 2;
    return power;
}

/* The slots that all pieces take if a slot is 2^shift bytes wide. */
static uint64_t slots_taken(const struct pieces *pieces, uint32_t shift) {
    uint64_t taken = 0;
    for (uint32_t id = 1; id < pieces->room; id++)
        taken += pieces->piece[id].start == UINT64_MAX ? 0 : nvlxi_slots_taken(&pieces->piece[id], shift);
    return taken;
}

/* How wide slots may be without any of them holding bytes of two pieces: that is known by the highest bit in which the
 * last byte of one and the first of the next differ. */
static uint32_t widest_shift(const struct pieces *pieces) {
    uint32_t shift = 63;
    for (uint32_t id = pieces->layers[0].above, above; id && (above = pieces->layers[id].above); id = above) {
        const uint64_t differ = pieces->piece[above].start ^ (pieces->piece[id].end - 1);
        shift = (uint32_t)nvlxi_min(shift, 63 - (uint64_t)__builtin_clzll(differ));
    }
    return shift;
}

/* The least at which the pieces take no more slots than `most`, by halving. */
static uint32_t least_shift(const struct pieces *pieces, uint64_t most) {
    uint32_t least = 0, enough = 63;
    while (least < enough) {
        const uint32_t middle = (least + enough) / 2;
        if (slots_taken(pieces, middle) > most)
            least = middle + 1;
        else
            enough = middle;
    }
    return least;
}

/* Few wide slots if the pieces are aligned to them, and lie close to each other. Else many, so that few of them stand
 * for a boundary, or for pieces of several clusters. */
static void choose(const struct pieces *pieces, uint32_t *shift, uint64_t *slots) {
    const uint64_t wanted = nvlxi_min((uint64_t)SPREAD * pieces->count, SLOTS_MAX);
    const uint64_t most = power_of_two(nvlxi_max(wanted, pieces->count)); /* each piece takes one at least */
    const struct nvlxi_layers *ends = &pieces->layers[0];
    const uint64_t first = pieces->count ? pieces->piece[ends->above].start : 0;
    const uint64_t last = pieces->count ? pieces->piece[ends->below].end - 1 : 0;
    *shift = widest_shift(pieces);
    *slots = power_of_two(nvlxi_min((last >> *shift) - (first >> *shift) + 1, 2 * most));
    if (*slots <= most)
        return;
    *slots = most;
    *shift = least_shift(pieces, most);
    /* Better a few slots a piece less than pieces that share slots, as long as the gaps between them are not too wide
     * for that. */
    for (int tries = 0; tries < 3 && (last - first) >> *shift >= most; tries++)
        (*shift)++;
}

static void fill(const struct pieces *pieces, struct nvlxi_slots *slots) {
    for (uint32_t id = 1; id < pieces->room; id++) {
        const struct nvlxi_range *piece = &pieces->piece[id];
        if (piece->start == UINT64_MAX)
            continue;
        const uint64_t first = piece->start >> slots->shift, last = (piece->start + piece->last) >> slots->shift;
        for (uint64_t wide = first; wide <= last; wide++)
            atomic_init(&slots->slot[wide & slots->mask], id * NVLXI_PIECE);
    }
}

struct nvlxi_slots *nvlxi_slots_make(const struct nvlxi_range *piece, const struct nvlxi_layers *layers, uint32_t count,
                                     uint32_t room) {
    const struct pieces pieces = {piece, layers, count, room};
    uint32_t shift;
    uint64_t slots;
    choose(&pieces, &shift, &slots);
    struct nvlxi_slots *made = calloc(1, sizeof *made + slots * sizeof *made->slot);
    if (!made)
        return NULL;
    made->shift = shift;
    made->mask = slots - 1;
    made->taken = slots_taken(&pieces, shift);
    made->pieces = count;
    made->worth = PATIENCE * count + PATIENT;
    atomic_init(&made->patience, (long)made->worth);
    fill(&pieces, made);
    return made;
}
