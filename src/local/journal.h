/* What has changed of what peers are told, by generation, as far back as there is room for it.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A region's id is the generation that it came with, which no other has. The kinds of entries:
 *
 *     TOLD         a region came (its id is the entry's generation), or is another since then (its id is older): it
 *                  sleeps, wakes, or has another digest. The entry points to the region: it is told as it is now
 *     GONE         a region is not told any more
 *     SUPERSEDED   it was TOLD, and the same region has a later entry
 *
 * Invariants:
 * - every such change after generation `since` has its entry, in the order of generations;
 * - a region that is told has one TOLD entry at most, number `entry` - 1 of the journal: it is that of its last change.
 *   So who is told what came after any generation is told each region once, and as it is;
 * - no entry points to a region that is not told.
 *
 * It begins when peers begin to be told. Under the mutex of the registration. */
#ifndef NVLXI_LOCAL_JOURNAL_H
#define NVLXI_LOCAL_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVLXI_JOURNAL_MAX 16384u /* entries: more changes than that are told by a whole descriptor */

struct nvlx_region;

struct nvlxi_change {
    uint64_t generation;
    uint64_t id;                    /* of the region; 0: SUPERSEDED */
    const struct nvlx_region *told; /* NULL: not TOLD */
};

struct nvlxi_journal {
    struct nvlxi_change *change; /* ring of NVLXI_JOURNAL_MAX; NULL until it begins */
    size_t count;                /* that were ever made */
    uint64_t since;
};

/* From this generation on. False without memory: then it reaches back to nothing. */
bool nvlxi_journal_begin(struct nvlxi_journal *journal, uint64_t generation);
void nvlxi_journal_free(struct nvlxi_journal *journal);

/* A region came, or is another, with this generation; none before has a later one. */
void nvlxi_journal_tell(struct nvlxi_journal *journal, uint64_t generation, struct nvlx_region *region);
/* It is not told any more. */
void nvlxi_journal_remove(struct nvlxi_journal *journal, uint64_t generation, struct nvlx_region *region);

/* The number of entries after a generation, the last ones of `count`; SIZE_MAX if it does not reach back so far. */
size_t nvlxi_journal_after(const struct nvlxi_journal *journal, uint64_t generation);
/* The one that was made as number `number`, one of the last NVLXI_JOURNAL_MAX. */
const struct nvlxi_change *nvlxi_journal_change(const struct nvlxi_journal *journal, size_t number);

#endif
