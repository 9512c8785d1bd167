/* Joins a peer's adjacent segments into runs. SPDX-License-Identifier: Apache-2.0 */
#include "remote/run.h"

#include <stdlib.h>

#include "base/base.h"
#include "base/error.h"

#define SPARE 1024 /* runs and segments to come */

/* Every bit of the result depends on every bit of both (splitmix64's last steps). */
static uint64_t mix(uint64_t digest, uint64_t value) {
    uint64_t x = digest ^ (value + 0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

uint64_t nvlxi_run_serial(const struct nvlxi_run *run, const struct nvlxi_segment_record *first) {
    if (run->count == 1 && !run->read_only)
        return first->serial;
    uint64_t digest = mix(run->read_only, run->size);
    for (uint32_t i = 0; i < run->count; i++)
        digest = mix(digest, first[i].serial);
    return digest;
}

/* Of a segment: how many regions join it with the next one, and how many let peers write it. */
struct marks {
    uint32_t joins, writes;
};

/* Counts where regions begin and end, then sums up: a text may have a million regions over as many segments. */
static void look_at_regions(const struct nvlxi_descriptor *d, struct marks *marks) {
    for (size_t i = 0; i < d->region_count; i++) {
        const struct nvlxi_region_record *region = &d->regions[i];
        if (!region->segment_count)
            continue;
        struct marks *first = &marks[region->segment], *last = first + region->segment_count - 1;
        const uint32_t writes = (region->access & NVLX_ACCESS_WRITE) != 0;
        first->joins++;
        last->joins--;
        first->writes += writes;
        last[1].writes -= writes;
    }
    for (size_t i = 1; i < d->segment_count; i++) {
        marks[i].joins += marks[i - 1].joins;
        marks[i].writes += marks[i - 1].writes;
    }
}

/* What joins can be mapped for reading alone. Of other kinds, a mapping for reading is one for writing: it stays when a
 * region comes to grant that. */
static void cut(const struct nvlxi_descriptor *d, const struct marks *marks, bool own, struct nvlxi_runs *runs) {
    for (uint32_t i = 0; i < d->segment_count; i++) {
        const struct nvlxi_segment_record *segment = &d->segments[i];
        if (i == 0 || own || !marks[i - 1].joins)
            runs->run[runs->count++] =
                (struct nvlxi_run){.base = segment->base, .first = i, .read_only = segment->joins};
        struct nvlxi_run *run = &runs->run[runs->count - 1];
        run->count++;
        run->size += segment->size;
        run->read_only = run->read_only && !marks[i].writes;
        runs->of_segment[i] = (uint32_t)(runs->count - 1);
    }
}

static void count_regions(const struct nvlxi_descriptor *d, struct nvlxi_runs *runs) {
    for (size_t i = 0; i < d->region_count; i++) {
        if (!d->regions[i].segment_count)
            continue;
        struct nvlxi_run *run = &runs->run[runs->of_segment[d->regions[i].segment]];
        run->regions++;
        run->writers += (d->regions[i].access & NVLX_ACCESS_WRITE) != 0;
    }
}

int nvlxi_runs_make(const struct nvlxi_descriptor *descriptor, bool own, struct nvlxi_runs *runs) {
    const struct nvlxi_order none = {.leaves = 0};
    const size_t segments = descriptor->segment_count, room = segments + segments / 8 + SPARE;
    struct marks *marks = calloc(segments + 1, sizeof *marks);
    *runs = (struct nvlxi_runs){.run = calloc(room, sizeof *runs->run),
                                .of_segment = calloc(room, sizeof *runs->of_segment),
                                .room = room,
                                .segment_room = room};
    const bool made =
        !nvlxi_order_copy(&none, (uint32_t)room, &runs->by_base) && marks && runs->run && runs->of_segment;
    if (made) {
        look_at_regions(descriptor, marks);
        cut(descriptor, marks, own, runs);
        count_regions(descriptor, runs);
        for (size_t i = 0; i < runs->count; i++) {
            struct nvlxi_run *run = &runs->run[i];
            run->serial = nvlxi_run_serial(run, &descriptor->segments[run->first]);
            nvlxi_order_insert(&runs->by_base, run->base, (uint32_t)i + 1);
        }
    }
    free(marks);
    return made ? 0 : NVLX_ENOMEM;
}

void nvlxi_runs_free(struct nvlxi_runs *runs) {
    free(runs->run);
    free(runs->of_segment);
    nvlxi_order_free(&runs->by_base);
    *runs = (struct nvlxi_runs){0};
}

static uint32_t *list_of(struct nvlxi_runs *runs, uint32_t segments) {
    return &runs->removed[nvlxi_min(segments, NVLXI_RUN_LISTS) - 1];
}

uint32_t nvlxi_runs_reuse(struct nvlxi_runs *runs, uint32_t segments) {
    uint32_t *link = list_of(runs, segments), place;
    while ((place = *link) && runs->run[place - 1].count != segments)
        link = &runs->run[place - 1].next;
    if (place)
        *link = runs->run[place - 1].next;
    return place;
}

void nvlxi_runs_unuse(struct nvlxi_runs *runs, uint32_t place) {
    struct nvlxi_run *run = &runs->run[place - 1];
    uint32_t *list = list_of(runs, run->count);
    run->next = *list;
    *list = place;
}

void nvlxi_runs_add(struct nvlxi_runs *runs, uint32_t place, const struct nvlxi_run *run) {
    runs->count = nvlxi_max(runs->count, (size_t)place + 1);
    runs->run[place] = *run;
    for (uint32_t i = 0; i < run->count; i++)
        runs->of_segment[run->first + i] = place;
    nvlxi_order_insert(&runs->by_base, run->base, place + 1);
}

void nvlxi_runs_remove(struct nvlxi_runs *runs, const struct nvlxi_run *run) {
    nvlxi_order_remove(&runs->by_base, run->base);
    nvlxi_runs_unuse(runs, (uint32_t)(run - runs->run) + 1);
}

const struct nvlxi_run *nvlxi_runs_floor(const struct nvlxi_runs *runs, uint64_t address) {
    const uint32_t id = nvlxi_order_floor(&runs->by_base, address);
    return id ? &runs->run[id - 1] : NULL;
}

const struct nvlxi_run *nvlxi_runs_find(const struct nvlxi_runs *runs, uint64_t base, uint64_t serial) {
    const struct nvlxi_run *found = nvlxi_runs_floor(runs, base);
    return found && found->base == base && found->serial == serial ? found : NULL;
}
