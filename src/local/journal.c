/* A ring of what has changed. SPDX-License-Identifier: Apache-2.0 */
#include "local/journal.h"

#include <stdlib.h>

#include "base/base.h"
#include "local/registration.h"

bool nvlxi_journal_begin(struct nvlxi_journal *journal, uint64_t generation) {
    journal->change = calloc(NVLXI_JOURNAL_MAX, sizeof *journal->change);
    journal->since = generation;
    return journal->change != NULL;
}

void nvlxi_journal_free(struct nvlxi_journal *journal) {
    free(journal->change);
}

static struct nvlxi_change *at(const struct nvlxi_journal *journal, size_t number) {
    return &journal->change[number % NVLXI_JOURNAL_MAX];
}

const struct nvlxi_change *nvlxi_journal_change(const struct nvlxi_journal *journal, size_t number) {
    return at(journal, number);
}

static void append(struct nvlxi_journal *journal, const struct nvlxi_change *change) {
    struct nvlxi_change *place = at(journal, journal->count++);
    if (journal->count > NVLXI_JOURNAL_MAX)
        journal->since = place->generation;
    *place = *change;
}

/* What was told of a region is told by a later entry, which is about to come. */
static void supersede(const struct nvlxi_journal *journal, struct nvlx_region *region) {
    if (region->entry && journal->count - (region->entry - 1) <= NVLXI_JOURNAL_MAX) {
        struct nvlxi_change *change = at(journal, region->entry - 1);
        change->id = 0;
        change->told = NULL;
    }
    region->entry = 0;
}

void nvlxi_journal_tell(struct nvlxi_journal *journal, uint64_t generation, struct nvlx_region *region) {
    const struct nvlxi_change change = {.generation = generation, .id = region->since, .told = region};
    if (!journal->change)
        return;
    supersede(journal, region);
    append(journal, &change);
    region->entry = journal->count;
}

void nvlxi_journal_remove(struct nvlxi_journal *journal, uint64_t generation, struct nvlx_region *region) {
    const struct nvlxi_change change = {.generation = generation, .id = region->since};
    if (!journal->change)
        return;
    supersede(journal, region);
    append(journal, &change);
}

/* The first change after a generation, by halving. */
static size_t first_after(const struct nvlxi_journal *journal, uint64_t generation) {
    size_t first = journal->count - nvlxi_min(journal->count, NVLXI_JOURNAL_MAX), end = journal->count;
    while (first < end) {
        const size_t middle = first + (end - first) / 2;
        if (at(journal, middle)->generation <= generation)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

size_t nvlxi_journal_after(const struct nvlxi_journal *journal, uint64_t generation) {
    if (!journal->change || generation < journal->since)
        return SIZE_MAX;
    return journal->count - first_after(journal, generation);
}
