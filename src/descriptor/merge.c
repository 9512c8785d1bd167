/* Makes one descriptor of another and its changes. SPDX-License-Identifier: Apache-2.0 */
#include "descriptor/merge.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/error.h"

struct source { /* a segment of one of both */
    const struct nvlxi_segment_record *record;
    uint32_t *index; /* where it is in what is made */
};

struct listed { /* a region of the changes */
    uint64_t id;
    const struct nvlxi_region_record *record;
};

struct merge {
    const struct nvlxi_descriptor *known, *changes;
    struct nvlxi_descriptor *made;
    uint64_t *removed;     /* in order */
    struct listed *listed; /* in order */
    uint32_t *uses;        /* [known segments]: regions that stay in it as they are */
    uint32_t *index;       /* [known segments, then those of the changes] */
    struct source *sources;
    size_t source_count;
    char *name; /* where the next one goes */
};

bool nvlxi_segment_same(const struct nvlxi_segment_record *a, const struct nvlxi_segment_record *b) {
    return a->base == b->base && a->size == b->size && a->serial == b->serial && a->kind == b->kind &&
           !memcmp(a->device, b->device, sizeof a->device);
}

bool nvlxi_region_same(const struct nvlxi_region_record *known, const struct nvlxi_region_record *altered) {
    return known->access == altered->access && known->length == altered->length && !strcmp(known->name, altered->name);
}

/* Also for the ids of what is listed. */
static int compare_numbers(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static bool has(const uint64_t *sorted, size_t count, uint64_t number) {
    return bsearch(&number, sorted, count, sizeof *sorted, compare_numbers) != NULL;
}

static bool is_removed(const struct merge *m, const struct nvlxi_region_record *region) {
    return region->access == NVLXI_GONE || (region->since && has(m->removed, m->changes->removed_count, region->since));
}

/* What the changes tell of a region that is known; NULL: nothing. */
static const struct nvlxi_region_record *find_listed(const struct merge *m, const struct nvlxi_region_record *known) {
    const struct listed *found =
        bsearch(&known->since, m->listed, m->changes->region_count, sizeof *m->listed, compare_numbers);
    return found ? found->record : NULL;
}

/* Whether a region is in what is made just as it is known. */
static bool stays(const struct merge *m, const struct nvlxi_region_record *known) {
    return !is_removed(m, known) && !find_listed(m, known);
}

/* ---- What is said ---------------------------------------------------------------------------------------- */

/* Whether each number, of every so many bytes, is there once. */
static bool ascends(void *numbers, size_t count, size_t size) {
    const char *at = numbers;
    qsort(numbers, count, size, compare_numbers);
    for (size_t i = 1; i < count; i++, at += size)
        if (!compare_numbers(at, at + size))
            return false;
    return true;
}

/* Each is named once, and is of its time. */
static int check_ids(struct merge *m) {
    const struct nvlxi_descriptor *c = m->changes;
    if (c->removed_count)
        memcpy(m->removed, c->removed, c->removed_count * sizeof *m->removed);
    for (size_t i = 0; i < c->region_count; i++)
        m->listed[i] = (struct listed){c->regions[i].since, &c->regions[i]};
    if (!ascends(m->removed, c->removed_count, sizeof *m->removed) ||
        !ascends(m->listed, c->region_count, sizeof *m->listed))
        return nvlxi_fail(NVLX_EFORMAT, "changes: a region is removed or told twice");
    for (size_t i = 0; i < c->region_count; i++)
        if (!m->listed[i].id || m->listed[i].id > c->identity.generation ||
            has(m->removed, c->removed_count, m->listed[i].id))
            return nvlxi_fail(NVLX_EFORMAT,
                              "changes from generation %" PRIu64 " to %" PRIu64 ": a region of generation %" PRIu64
                              " is told",
                              c->from, c->identity.generation, m->listed[i].id);
    return 0;
}

/* What was told before must be known, and only differ in what may become another. */
static int check_altered(const struct merge *m) {
    size_t expected = 0, found = 0;
    while (expected < m->changes->region_count && m->listed[expected].id <= m->changes->from)
        expected++;
    for (size_t i = 0; i < m->known->region_count && m->changes->region_count; i++) {
        const struct nvlxi_region_record *known = &m->known->regions[i];
        const struct nvlxi_region_record *listed = known->access == NVLXI_GONE ? NULL : find_listed(m, known);
        if (listed && !nvlxi_region_same(known, listed))
            return nvlxi_fail(NVLX_EFORMAT,
                              "changes: the region of generation %" PRIu64 " has another name, length or access",
                              listed->since);
        found += listed && listed->since <= m->changes->from;
    }
    return found == expected
               ? 0
               : nvlxi_fail(NVLX_EFORMAT, "changes: of %zu regions that are altered, %zu are there", expected, found);
}

/* What was known when the changes began must be there, if nothing has changed since. */
static int check_removed(const struct merge *m, size_t found) {
    size_t expected = 0;
    while (expected < m->changes->removed_count && m->removed[expected] <= m->changes->from)
        expected++;
    if (found == expected || (found < expected && m->known->identity.generation > m->changes->from))
        return 0;
    return nvlxi_fail(NVLX_EFORMAT, "changes: of %zu regions that are removed, %zu are there", expected, found);
}

/* ---- Segments -------------------------------------------------------------------------------------------- */

/* Counts where regions begin and end, then sums up: a text may have a million regions over as many segments. */
static int count_uses(const struct merge *m) {
    size_t found = 0;
    for (size_t i = 0; i < m->known->region_count; i++) {
        const struct nvlxi_region_record *region = &m->known->regions[i];
        found += region->access != NVLXI_GONE && is_removed(m, region) && region->since <= m->changes->from;
        if (!region->segment_count || !stays(m, region))
            continue;
        m->uses[region->segment]++;
        m->uses[region->segment + region->segment_count]--;
    }
    for (size_t i = 1; i < m->known->segment_count; i++)
        m->uses[i] += m->uses[i - 1];
    return check_removed(m, found);
}

static int compare_sources(const void *a, const void *b) {
    const struct source *x = a, *y = b;
    if (x->record->base != y->record->base)
        return x->record->base > y->record->base ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

static int overlaps(const struct nvlxi_segment_record *segment) {
    return nvlxi_fail(NVLX_EFORMAT, "changes: segment 0x%" PRIx64 " of 0x%" PRIx64 " bytes overlaps one that stays",
                      segment->base, segment->size);
}

/* In order of address, each once: as the changes tell it. */
static int merge_segments(struct merge *m) {
    struct nvlxi_descriptor *made = m->made;
    for (size_t i = 0; i < m->known->segment_count; i++)
        if (m->uses[i])
            m->sources[m->source_count++] = (struct source){&m->known->segments[i], &m->index[i]};
    for (size_t i = 0; i < m->changes->segment_count; i++)
        m->sources[m->source_count++] =
            (struct source){&m->changes->segments[i], &m->index[m->known->segment_count + i]};
    qsort(m->sources, m->source_count, sizeof *m->sources, compare_sources);
    for (size_t i = 0; i < m->source_count; i++) {
        const struct nvlxi_segment_record *record = m->sources[i].record;
        struct nvlxi_segment_record *last = made->segments + made->segment_count - 1;
        const bool again = made->segment_count && nvlxi_segment_same(last, record);
        if (made->segment_count && !again && record->base - last->base < last->size)
            return overlaps(record);
        made->segment_count += !again;
        made->segments[made->segment_count - 1] = *record;
        *m->sources[i].index = (uint32_t)(made->segment_count - 1);
    }
    return made->segment_count <= NVLXI_SEGMENTS_MAX ? 0
                                                     : nvlxi_fail(NVLX_EFORMAT, "changes: %zu segments, of at most %u",
                                                                  made->segment_count, NVLXI_SEGMENTS_MAX);
}

/* ---- Regions --------------------------------------------------------------------------------------------- */

/* `index`: of the segments of the descriptor that it is from. */
static void add_region(struct merge *m, const struct nvlxi_region_record *region, const uint32_t *index) {
    struct nvlxi_region_record *made = &m->made->regions[m->made->region_count++];
    *made = *region;
    made->name = "";
    if (region->segment != NVLXI_NO_SEGMENT)
        made->segment = index[region->segment];
    if (region->name[0]) {
        made->name = m->name;
        m->name = stpcpy(m->name, region->name) + 1;
    }
}

/* Of those that sleep, or of all others. */
static void add_regions(struct merge *m, bool suspended) {
    const struct nvlxi_descriptor *known = m->known, *changes = m->changes;
    for (size_t i = 0; i < known->region_count; i++)
        if (known->regions[i].suspended == suspended && stays(m, &known->regions[i]))
            add_region(m, &known->regions[i], m->index);
    for (size_t i = 0; i < changes->region_count; i++)
        if (changes->regions[i].suspended == suspended)
            add_region(m, &changes->regions[i], m->index + known->segment_count);
}

/* Those that sleep come last. */
static int merge_regions(struct merge *m) {
    size_t region, twin;
    add_regions(m, false);
    const size_t awake = m->made->region_count;
    add_regions(m, true);
    m->made->suspended_count = m->made->region_count - awake;
    if (m->made->region_count > NVLXI_REGIONS_MAX)
        return nvlxi_fail(NVLX_EFORMAT, "changes: %zu regions, of at most %u", m->made->region_count,
                          NVLXI_REGIONS_MAX);
    int code = nvlxi_name_index_build(m->made->regions, m->made->region_count, &m->made->by_name, &region, &twin);
    return code == NVLX_EINVAL ? nvlxi_fail(NVLX_EFORMAT, "changes: a region is added by a name that is taken") : code;
}

/* ---- Both ------------------------------------------------------------------------------------------------ */

static size_t names_size(const struct nvlxi_descriptor *d) {
    size_t size = 0;
    for (size_t i = 0; i < d->region_count; i++)
        size += d->regions[i].access == NVLXI_GONE || !d->regions[i].name[0] ? 0 : strlen(d->regions[i].name) + 1;
    return size;
}

static int allocate(struct merge *m) {
    const struct nvlxi_descriptor *known = m->known, *changes = m->changes;
    const size_t segments = known->segment_count + changes->segment_count;
    m->removed = malloc((changes->removed_count + 1) * sizeof *m->removed);
    m->listed = malloc((changes->region_count + 1) * sizeof *m->listed);
    m->uses = calloc(known->segment_count + 1, sizeof *m->uses);
    m->index = calloc(segments + 1, sizeof *m->index);
    m->sources = malloc((segments + 1) * sizeof *m->sources);
    if (!m->removed || !m->listed || !m->uses || !m->index || !m->sources || !(m->made = calloc(1, sizeof *m->made)))
        return NVLX_ENOMEM;
    *m->made = *changes;
    m->made->from = 0;
    m->made->removed_count = m->made->segment_count = m->made->region_count = m->made->suspended_count = 0;
    m->made->removed = NULL;
    m->made->by_name = (struct nvlxi_name_index){0};
    m->made->segments = malloc((segments + 1) * sizeof *m->made->segments);
    m->made->regions = malloc((known->region_count + changes->region_count + 1) * sizeof *m->made->regions);
    m->name = m->made->names = malloc(names_size(known) + names_size(changes) + 1);
    return m->made->segments && m->made->regions && m->made->names ? 0 : NVLX_ENOMEM;
}

int nvlxi_descriptor_merge(const struct nvlxi_descriptor *known, const struct nvlxi_descriptor *changes,
                           struct nvlxi_descriptor **made) {
    struct merge m = {.known = known, .changes = changes};
    int code = allocate(&m);
    if (!code && !(code = check_ids(&m)) && !(code = check_altered(&m)) && !(code = count_uses(&m)) &&
        !(code = merge_segments(&m)))
        code = merge_regions(&m);
    if (code == NVLX_ENOMEM)
        nvlxi_fail(code, "no memory for the changes of %zu regions", known->region_count);
    if (code)
        nvlxi_descriptor_free(m.made);
    else
        *made = m.made;
    free(m.removed);
    free(m.listed);
    free(m.uses);
    free(m.index);
    free(m.sources);
    return code;
}
