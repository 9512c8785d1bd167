/* What has changed of what peers are told, by generation, as far back as there is room for it.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * An entry says that a region is told to peers from a generation on, or not any more. A region's id is the generation
 * that it came with, which no other has. Invariants:
 * - every such change after generation `since` has its entry, in the order of generations;
 * - the entry by which a region came points to it, as long as it is told.
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
    uint64_t region;                 /* its id */
    const struct nvlx_region *added; /* NULL: it is not told (any more) */
};

struct nvlxi_journal {
    struct nvlxi_change *change; /* ring of NVLXI_JOURNAL_MAX; NULL until it begins */
    size_t count;                /* that were ever made */
    uint64_t since;
    uint64_t altered_from, altered_to; /* who knows a generation from the one on and before the other needs all */
};

/* From this generation on. False without memory: then it reaches back to nothing. */
bool nvlxi_journal_begin(struct nvlxi_journal *journal, uint64_t generation);
/* The same once more: nothing before reaches further, and no entry points to a region that came before. */
void nvlxi_journal_restart(struct nvlxi_journal *journal, uint64_t generation);
void nvlxi_journal_free(struct nvlxi_journal *journal);

void nvlxi_journal_add(struct nvlxi_journal *journal, uint64_t id, const struct nvlx_region *region);
/* In this generation or a later one than any before. */
void nvlxi_journal_remove(struct nvlxi_journal *journal, uint64_t generation, uint64_t id);

/* A region that is told is another from this generation on, except for where it lies: no entry says how. Who knows it
 * needs a whole descriptor. */
void nvlxi_journal_alter(struct nvlxi_journal *journal, uint64_t generation, uint64_t id);

/* The number of changes after a generation, the last ones of `count`; SIZE_MAX if it does not reach back so far. */
size_t nvlxi_journal_after(const struct nvlxi_journal *journal, uint64_t generation);
/* The one that was made as number `number`, one of the last NVLXI_JOURNAL_MAX. */
const struct nvlxi_change *nvlxi_journal_change(const struct nvlxi_journal *journal, size_t number);

#endif
