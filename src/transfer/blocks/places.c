/* Where the entries of tables of blocks are in this process. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/blocks/places.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static void learn_op(struct nvlxi_block_place *place, const struct nvlxi_validated *validated, size_t op,
                     uint32_t pair) {
    const uint64_t distance = validated->remote[op] - validated->ops[op].remote;
    const uint32_t way = validated->ops[op].opcode - NVLX_OP_READ;
    if (pair == NVLXI_NO_PAIR || (place->known && place->distance != distance) ||
        (place->pair[way] != NVLXI_NO_PAIR && place->pair[way] != pair)) {
        place->straight = false;
        return;
    }
    place->known = true;
    place->distance = distance;
    place->pair[way] = pair;
}

static uint32_t pair_in(const struct nvlxi_validated *validated, size_t stretch, size_t op) {
    const struct nvlxi_stretch *in = &validated->stretches[stretch];
    const size_t begin = stretch ? in[-1].end : 0;
    switch (in->pair) {
    case NVLXI_IN_TURNS:
        return validated->pair_of[op];
    case NVLXI_IN_ROUNDS:
        return validated->pair_of[begin + (op - begin) % in->round];
    default:
        return in->pair;
    }
}

static void learn(const struct nvlxi_block_tables *tables, const struct nvlxi_validated *validated,
                  struct nvlxi_block_places *places) {
    size_t op = 0, stretch = 0;
    while (op < validated->count)
        for (size_t i = 0; i < tables->count; i++)
            for (size_t left = nvlxi_block_entry_ops(&tables->entry[i]); left; left--, op++) {
                while (validated->stretches[stretch].end <= op)
                    stretch++;
                learn_op(&places->place[i], validated, op, pair_in(validated, stretch, op));
            }
}

/* ---- Borders --------------------------------------------------------------------------------------------- */

/* Whether no border lies between two addresses, both of a block, the second behind the first: what is registered goes
 * on from one to the other, or both are in one allocation or mapping. */
static bool are_joined(const struct nvlxi_intervals *ranges, uint64_t from, uint64_t to) {
    const uint32_t first = nvlxi_intervals_find(ranges, from), last = nvlxi_intervals_find(ranges, to);
    return ranges->piece[first].owner == ranges->piece[last].owner ||
           nvlxi_intervals_reach(ranges, first, to + 1) == to + 1;
}

static bool is_whole(const struct nvlxi_block_entry *entry, const struct nvlxi_block_ground *ground) {
    return are_joined(ground->local, entry->local, entry->local + (entry->local_blocks - 1) * entry->local_stride) &&
           are_joined(ground->remote, entry->remote, entry->remote + (entry->remote_blocks - 1) * entry->remote_stride);
}

static bool is_linked(const struct nvlxi_block_entry *before, const struct nvlxi_block_entry *entry,
                      const struct nvlxi_block_ground *ground) {
    return before->length == entry->length && before->local_stride == entry->local_stride &&
           before->remote_stride == entry->remote_stride && entry->local > before->local &&
           entry->remote > before->remote && are_joined(ground->local, before->local, entry->local) &&
           are_joined(ground->remote, before->remote, entry->remote);
}

static void learn_borders(const struct nvlxi_block_tables *tables, const struct nvlxi_block_ground *ground,
                          struct nvlxi_block_places *places) {
    for (size_t i = 0; i < tables->count; i++) {
        struct nvlxi_block_place *place = &places->place[i];
        place->whole = place->straight && is_whole(&tables->entry[i], ground);
        place->linked =
            i && place->whole && place[-1].whole && !memcmp(place->pair, place[-1].pair, sizeof place->pair) &&
            place->distance == place[-1].distance && is_linked(&tables->entry[i - 1], &tables->entry[i], ground);
    }
}

static void count_alike(struct nvlxi_block_places *places) {
    for (size_t i = places->count; i--;)
        for (int way = 0; way < 2; way++) {
            struct nvlxi_block_place *place = &places->place[i];
            const uint32_t pair = place->pair[way];
            const bool can = place->straight && pair != NVLXI_NO_PAIR && places->pairs[pair].kernels;
            const bool goes_on = can && i + 1 < places->count && place[1].pair[way] == pair;
            place->alike[way] = can ? 1 + (goes_on ? place[1].alike[way] : 0) : 0;
        }
}

static int copy_borders(const struct nvlxi_borders *from, struct nvlxi_borders *to) {
    int code = 0;
    nvlxi_borders_begin(to);
    for (size_t i = 0; i < from->count && !code; i++)
        code = nvlxi_borders_note(to, from->address[i]);
    if (!code)
        nvlxi_borders_set(to); /* made now: later it is only read, by many */
    return code;
}

int nvlxi_block_places_learn(const struct nvlxi_block_tables *tables, const struct nvlxi_validated *validated,
                             const struct nvlxi_block_ground *ground, struct nvlxi_block_places *places) {
    places->count = tables->count;
    free(places->place);
    free(places->pairs);
    places->place = calloc(nvlxi_max(tables->count, 1), sizeof *places->place);
    places->pairs = calloc(nvlxi_max(validated->pair_count, 1), sizeof *places->pairs);
    if (!places->place || !places->pairs)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for tables of %zu regions", tables->count);
    if (validated->pair_count)
        memcpy(places->pairs, validated->pairs, validated->pair_count * sizeof *places->pairs);
    for (size_t i = 0; i < tables->count; i++)
        places->place[i] =
            (struct nvlxi_block_place){.pair = {NVLXI_NO_PAIR, NVLXI_NO_PAIR}, .straight = !tables->same_process};
    learn(tables, validated, places);
    learn_borders(tables, ground, places);
    count_alike(places);
    return copy_borders(&validated->borders, &places->borders);
}

static struct nvlxi_block_region region_of(const struct nvlxi_block_entry *entry,
                                           const struct nvlxi_block_place *place) {
    return (struct nvlxi_block_region){.local = entry->local,
                                       .remote = entry->remote + place->distance,
                                       .local_stride = entry->local_stride,
                                       .remote_stride = entry->remote_stride,
                                       .length = entry->length};
}

int nvlxi_block_places_settle(const struct nvlxi_block_tables *tables, struct nvlxi_list_memory *memory,
                              struct nvlxi_block_places *places) {
    const uint64_t bytes = tables->count * sizeof(struct nvlxi_block_region),
                   fragments = nvlxi_ceil_div(bytes, sizeof(struct nvlxi_fragment));
    if (!tables->count || tables->same_process)
        return 0;
    int code = nvlxi_list_memory_borrow_exact(memory, fragments, &places->chunk);
    if (code == NVLXI_FULL || (!code && places->chunk->capacity < fragments))
        return nvlxi_fail(NVLX_EBUSY,
                          "tables of %zu regions take %" PRIu64
                          " bytes of list memory, in one piece: raise config.list_memory, or make several",
                          tables->count, bytes);
    if (code)
        return code;
    struct nvlxi_block_region *regions = (void *)places->chunk->fragment;
    for (size_t i = 0; i < tables->count; i++)
        regions[i] = region_of(&tables->entry[i], &places->place[i]);
    places->regions = regions;
    return 0;
}

void nvlxi_block_places_free(struct nvlxi_list_memory *memory, struct nvlxi_block_places *places) {
    if (places->chunk)
        nvlxi_list_memory_return_exact(memory, places->chunk);
    free(places->place);
    free(places->pairs);
    nvlxi_borders_free(&places->borders);
    *places = (struct nvlxi_block_places){0};
}
