/* Blocks by id as copies of rows. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/blocks/engines.h"

#include "base/error.h"

/* Entries at equal distances, so that any block of theirs is rows, one of each. */
struct series {
    size_t first, count;
    uint64_t local_pitch, remote_pitch;
};

/* Ids that follow each other on both sides. */
struct sequence {
    uint64_t local, remote, count;
};

struct drawing { /* what all copies of a plan have in common */
    struct nvlxi_plan *plan;
    const struct nvlxi_block_tables *tables;
    const struct nvlxi_block_places *places;
    bool read;
};

static struct series find_series(const struct drawing *d, size_t first, size_t end) {
    const struct nvlxi_block_entry *entry = d->tables->entry;
    const struct nvlxi_block_place *place = d->places->place;
    struct series series = {first, 1, 0, 0};
    if (first + 1 == end || !place[first + 1].linked)
        return series;
    series.local_pitch = entry[first + 1].local - entry[first].local;
    series.remote_pitch = entry[first + 1].remote - entry[first].remote;
    if (nvlxi_min(series.local_pitch, series.remote_pitch) < entry[first].length)
        return series;
    for (size_t next = first + 1; next < end && place[next].linked; next++, series.count++)
        if (entry[next].local - entry[next - 1].local != series.local_pitch ||
            entry[next].remote - entry[next - 1].remote != series.remote_pitch)
            break;
    return series;
}

static struct sequence find_sequence(const struct nvlx_block_ids *ids, size_t first) {
    struct sequence found = {nvlxi_block_id(ids->local, ids, first), nvlxi_block_id(ids->remote, ids, first), 1};
    while (first + found.count < ids->count &&
           nvlxi_block_id(ids->local, ids, first + found.count) == found.local + found.count &&
           nvlxi_block_id(ids->remote, ids, first + found.count) == found.remote + found.count)
        found.count++;
    return found;
}

/* So many rows from a block of an entry on. */
static int add_rows(const struct drawing *d, size_t index, const struct sequence *at, uint64_t count,
                    uint64_t local_pitch, uint64_t remote_pitch) {
    const struct nvlxi_block_entry *entry = &d->tables->entry[index];
    const struct nvlxi_block_place *place = &d->places->place[index];
    const struct nvlxi_pair *pair = &d->places->pairs[place->pair[d->read ? 0 : 1]];
    const uint64_t local = entry->local + at->local * entry->local_stride,
                   remote = entry->remote + place->distance + at->remote * entry->remote_stride;
    const struct nvlxi_rows rows = {.destination = d->read ? local : remote,
                                    .source = d->read ? remote : local,
                                    .length = entry->length,
                                    .count = count,
                                    .destination_pitch = d->read ? local_pitch : remote_pitch,
                                    .source_pitch = d->read ? remote_pitch : local_pitch};
    struct nvlxi_group *group = nvlxi_plan_group(d->plan, pair);
    return group ? nvlxi_plan_add_rows(d->plan, group, &rows)
                 : nvlxi_fail(NVLX_ENOMEM, "no memory for a group of copies");
}

/* Each block by itself, its entries as rows. */
static int add_each_block(const struct drawing *d, const struct series *series, struct sequence at) {
    int code = 0;
    for (uint64_t left = at.count; left && !code; left--, at.local++, at.remote++)
        code = add_rows(d, series->first, &at, series->count, series->local_pitch, series->remote_pitch);
    return code;
}

/* Each entry by itself, its blocks as rows. */
static int add_each_entry(const struct drawing *d, const struct series *series, const struct sequence *at) {
    int code = 0;
    for (size_t i = series->first; i < series->first + series->count && !code; i++)
        code = add_rows(d, i, at, at->count, d->tables->entry[i].local_stride, d->tables->entry[i].remote_stride);
    return code;
}

/* In few copies: blocks that are one piece on both sides are joined, whichever way; else there are as many copies as
 * blocks, or as many as entries. */
static int add_blocks(const struct drawing *d, const struct series *series, const struct sequence *at) {
    const struct nvlxi_block_entry *entry = &d->tables->entry[series->first];
    const bool solid = series->local_pitch == entry->length && series->remote_pitch == entry->length;
    if (at->count == 1 || at->count < series->count || solid || !d->places->place[series->first].whole)
        return add_each_block(d, series, *at);
    return add_each_entry(d, series, at);
}

int nvlxi_blocks_plan_engines(struct nvlxi_plan *plan, const struct nvlxi_block_tables *tables,
                              struct nvlxi_block_places *places, const struct nvlxi_block_call *call) {
    const struct drawing drawing = {plan, tables, places, call->ids->opcode == NVLX_OP_READ};
    const size_t end = call->first + call->count;
    struct sequence sequence;
    int code = 0;
    nvlxi_plan_reset(plan, NVLX_MECHANISM_COPY_ENGINE);
    plan->borders = &places->borders;
    for (size_t i = 0; i < call->ids->count && !code; i += sequence.count) {
        struct series series;
        sequence = find_sequence(call->ids, i);
        for (size_t first = call->first; first < end && !code; first += series.count) {
            series = find_series(&drawing, first, end);
            code = add_blocks(&drawing, &series, &sequence);
        }
    }
    return code ? code : nvlxi_plan_seal(plan);
}

bool nvlxi_blocks_suit_engines(const struct nvlxi_block_places *places, const struct nvlxi_block_call *call) {
    const uint32_t way = call->ids->opcode - NVLX_OP_READ;
    for (size_t i = call->first; i < call->first + call->count; i++)
        if (!places->place[i].straight || places->place[i].pair[way] == NVLXI_NO_PAIR)
            return false;
    return true;
}
