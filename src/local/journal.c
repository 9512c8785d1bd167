/* A ring of what has changed. SPDX-License-Identifier: Apache-2.0 */
#include "local/journal.h"

#include <stdlib.h>

#include "base/base.h"

bool nvlxi_journal_begin(struct nvlxi_journal *journal, uint64_t generation) {
    journal->change = calloc(NVLXI_JOURNAL_MAX, sizeof *journal->change);
    journal->since = generation;
    return journal->change != NULL;
}

void nvlxi_journal_restart(struct nvlxi_journal *journal, uint64_t generation) {
    journal->count = 0;
    journal->since = generation;
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

void nvlxi_journal_add(struct nvlxi_journal *journal, uint64_t id, const struct nvlx_region *region) {
    const struct nvlxi_change change = {.generation = id, .region = id, .added = region};
    if (journal->change)
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

void nvlxi_journal_remove(struct nvlxi_journal *journal, uint64_t generation, uint64_t id) {
    const struct nvlxi_change change = {.generation = generation, .region = id};
    if (!journal->change)
        return;
    const size_t first = first_after(journal, id - 1);
    if (first < journal->count && at(journal, first)->region == id)
        at(journal, first)->added = NULL;
    append(journal, &change);
}

void nvlxi_journal_alter(struct nvlxi_journal *journal, uint64_t generation, uint64_t id) {
    journal->altered_from = journal->altered_to ? nvlxi_min(journal->altered_from, id) : id;
    journal->altered_to = generation;
}

size_t nvlxi_journal_after(const struct nvlxi_journal *journal, uint64_t generation) {
    if (!journal->change || generation < journal->since)
        return SIZE_MAX;
    if (generation >= journal->altered_from && generation < journal->altered_to)
        return SIZE_MAX;
    return journal->count - first_after(journal, generation);
}
