/* A peer's table: what is known of its memory, and where it is mapped.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It is made of a whole descriptor, with room for some more regions, segments and runs, and takes changes in place
 * (change.h) as long as no more are there at a time. What is added takes the place of what was removed, or stands
 * behind what was there. What is removed keeps its place until then: a region is NVLXI_GONE, a run is not found any
 * more, and its segments belong to nothing. A region of the descriptor that the table was made of is found by
 * `by_name`, one that came later by `recent`. One that becomes another, since it sleeps, wakes or has another digest,
 * keeps its place.
 *
 * Invariants:
 * - ids (`since` of regions) are unique and no later than the generation, or the table takes no changes in place;
 * - a piece of `ranges` that one region alone lies over is born with its id, so that no two pieces of that place ever
 *   have the same birth, except one whose region slept and woke: then `ranges` has another version. As long as it
 *   lives, its run does not change;
 * - `sleepers` has the places of all regions that sleep, and no other;
 * - a run that has no region is only there where the descriptor has such a segment. */
#ifndef NVLXI_REMOTE_TABLE_H
#define NVLXI_REMOTE_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/intervals/interval_map.h"
#include "descriptor/descriptor.h"
#include "remote/run.h"

#define NVLXI_UNMAPPED UINT64_MAX /* in place of an offset */

struct nvlxi_remote;

struct nvlxi_view {                 /* the runs as one local GPU sees them */
    _Atomic uint64_t *offset;       /* [runs]: mapped address - base, or NVLXI_UNMAPPED */
    struct nvlxi_mapping **mapping; /* [runs]: valid where the offset is */
};

struct nvlxi_peer_table {
    struct nvlxi_descriptor *descriptor;
    struct nvlxi_runs runs;
    struct nvlxi_intervals ranges; /* owner: the run's index */
    struct nvlxi_view *views;      /* [GPUs of this process] */
    bool own;                      /* of this very process */
    bool has_ids;
    struct nvlxi_order by_id;       /* places of regions, from 1 on, by their ids */
    struct nvlxi_name_index recent; /* those that came later and are there */
    const char *names_end;          /* of the names that the descriptor owns: each other one is memory of its own */
    uint32_t *sleepers;             /* in any order */
    uint32_t *sleeper_of;           /* [regions]: its place in that list, if it sleeps */
    size_t sleeper_count;
    size_t region_room;
    /* Places of regions that are gone, from 1 on: lists by `segment`. Those in `by_name`, and all others. */
    uint32_t gone_built, gone;
    size_t gone_count; /* of both */
};

/* Takes the descriptor, also when it fails: NVLX_ENOMEM. */
int nvlxi_peer_table_make(struct nvlxi_remote *remote, struct nvlxi_descriptor *descriptor,
                          struct nvlxi_peer_table **made);
void nvlxi_peer_table_free(const struct nvlxi_remote *remote, struct nvlxi_peer_table *table);

/* A region of the table falls asleep, or wakes: notes it in its record and in the list. */
void nvlxi_peer_table_sleep(struct nvlxi_peer_table *table, size_t place);
void nvlxi_peer_table_wake(struct nvlxi_peer_table *table, size_t place);

/* Whether the name of a region is memory of its own; "" is not. */
bool nvlxi_peer_table_owns(const struct nvlxi_peer_table *table, const char *name);

/* A region that is in no list any more leaves its place. Returns its name, to be freed, or NULL. */
char *nvlxi_peer_table_leave(struct nvlxi_peer_table *table, size_t place);
/* A place for a region, which is to be written. There is room. */
size_t nvlxi_peer_table_take_place(struct nvlxi_peer_table *table);

/* The region of that name, or NULL. */
const struct nvlxi_region_record *nvlxi_peer_table_find(const struct nvlxi_peer_table *table, const char *name);

#endif
