/* Changes a peer's table in place. SPDX-License-Identifier: Apache-2.0 */
#include "remote/change.h"

#include <stdlib.h>
#include <string.h>

#include "descriptor/merge.h"
#include "remote/mapping.h"

struct step { /* what a region that goes or comes does to its run */
    uint32_t run;
    int regions, writers;
    bool unjoins; /* it may have been what joined segments of the run */
};

#define ADDED UINT32_MAX

struct place { /* of a region that the changes tell */
    uint64_t start, end;
    uint32_t at;           /* that of the region which becomes this one, or ADDED */
    uint32_t segment, run; /* in the table as it will be */
    uint16_t where;        /* its memory is */
    bool leaves, comes;
};

struct new_run {
    struct nvlxi_run run; /* as it will be in the table, */
    uint32_t place;       /* and where */
    bool reuses;          /* the place of one that was removed */
    uint32_t from;        /* its first segment, among those of the changes */
};

struct plan {
    struct nvlx_peer *peer;
    struct nvlxi_peer_table *table;
    const struct nvlxi_descriptor *changes;
    uint64_t *removed;    /* ids, in order */
    uint64_t *told;       /* likewise */
    uint64_t *left;       /* likewise: what is removed, and what leaves */
    uint32_t *gone;       /* places of the regions that are removed */
    struct step *steps;   /* in order of runs, one for each, once they are summed up */
    struct place *places; /* [regions of the changes] */
    struct place *order;  /* the same in order of address: scratch */
    struct new_run *runs;
    uint32_t *run_of; /* [segments of the changes]: new run, from 1 on; 0: none yet */
    char **names;     /* [regions of the changes]: of those that are added and have one */
    char **old_names; /* [gone]: to be freed, or NULL */
    size_t gone_count, left_count, step_count, added_count, range_count;
    size_t run_count, fresh_count, segment_count; /* runs that are added; those that need room, and their segments */
    bool woken;                                   /* a region comes to where it was before, or may have been */
};

/* ---- What goes ------------------------------------------------------------------------------------------- */

static int compare_numbers(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static bool has(const uint64_t *sorted, size_t count, uint64_t number) {
    return bsearch(&number, sorted, count, sizeof *sorted, compare_numbers) != NULL;
}

static bool is_removed(const struct plan *p, uint64_t id) {
    return has(p->removed, p->changes->removed_count, id);
}

/* Puts numbers in order; whether each is there once. */
static bool ascends(uint64_t *numbers, size_t count) {
    qsort(numbers, count, sizeof *numbers, compare_numbers);
    for (size_t i = 1; i < count; i++)
        if (numbers[i] == numbers[i - 1])
            return false;
    return true;
}

/* NULL: there is none. */
static struct nvlxi_region_record *find_by_id(const struct nvlxi_peer_table *table, uint64_t id) {
    const uint32_t place = nvlxi_order_floor(&table->by_id, id);
    struct nvlxi_region_record *region = place ? &table->descriptor->regions[place - 1] : NULL;
    return region && region->since == id ? region : NULL;
}

static void add_step(struct plan *p, uint32_t run, const struct nvlxi_region_record *region, int by) {
    p->steps[p->step_count++] = (struct step){.run = run,
                                              .regions = by,
                                              .writers = region->access & NVLX_ACCESS_WRITE ? by : 0,
                                              .unjoins = by < 0 && region->segment_count > 1};
}

/* Whether a region shares no byte with another: then one piece is all of it. */
static bool is_alone(const struct nvlxi_peer_table *table, const struct nvlxi_region_record *region) {
    const uint32_t id = nvlxi_intervals_search(&table->ranges, region->address);
    const struct nvlxi_range *piece = &table->ranges.piece[id];
    return id && piece->start == region->address && piece->end == region->address + region->length &&
           nvlxi_intervals_lone(&table->ranges, id);
}

static bool has_bytes(const struct nvlxi_region_record *region) {
    return region->length && !region->suspended;
}

/* A region's bytes leave the table. */
static bool leave(struct plan *p, const struct nvlxi_region_record *region) {
    if (!is_alone(p->table, region))
        return false;
    p->left[p->left_count++] = region->since;
    add_step(p, p->table->runs.of_segment[region->segment], region, -1);
    return true;
}

static bool plan_removals(struct plan *p) {
    const struct nvlxi_descriptor *c = p->changes;
    if (c->removed_count)
        memcpy(p->removed, c->removed, c->removed_count * sizeof *p->removed);
    if (!ascends(p->removed, c->removed_count))
        return false;
    for (size_t i = 0; i < c->removed_count; i++) {
        const struct nvlxi_region_record *region = find_by_id(p->table, p->removed[i]);
        if (!region && p->removed[i] > c->from) /* it came and went */
            continue;
        if (!region || (has_bytes(region) && !leave(p, region)))
            return false;
        p->gone[p->gone_count++] = (uint32_t)(region - p->table->descriptor->regions);
    }
    return true;
}

/* ---- What comes ------------------------------------------------------------------------------------------ */

/* The place of a segment that the table has just as the changes tell it; false: it has not. */
static bool find_segment(const struct nvlxi_peer_table *table, const struct nvlxi_segment_record *segment,
                         uint32_t *place) {
    const struct nvlxi_run *run = nvlxi_runs_floor(&table->runs, segment->base);
    const struct nvlxi_segment_record *segments = table->descriptor->segments;
    if (!run)
        return false;
    uint32_t first = run->first, end = run->first + run->count;
    while (end - first > 1) { /* in order of address */
        const uint32_t middle = first + (end - first) / 2;
        if (segments[middle].base <= segment->base)
            first = middle;
        else
            end = middle;
    }
    *place = first;
    return nvlxi_segment_same(&segments[first], segment);
}

/* Whether a region of the changes lies in these segments of the table, which are of one run. */
static bool lies_in(const struct plan *p, const struct nvlxi_region_record *region, uint32_t first) {
    const struct nvlxi_run *run = &p->table->runs.run[p->table->runs.of_segment[first]];
    if (region->segment_count > run->first + run->count - first)
        return false;
    for (uint32_t i = 0; i < region->segment_count; i++)
        if (!nvlxi_segment_same(&p->table->descriptor->segments[first + i], &p->changes->segments[region->segment + i]))
            return false;
    return true;
}

/* A region in a run that is there. */
static bool place_in_old(struct plan *p, const struct nvlxi_region_record *region, uint32_t first,
                         struct place *place) {
    const uint32_t run = p->table->runs.of_segment[first];
    if (!lies_in(p, region, first))
        return false;
    place->segment = first;
    place->run = run;
    add_step(p, run, region, 1);
    return true;
}

static void find_run_place(struct plan *p, struct new_run *new_run) {
    struct nvlxi_runs *runs = &p->table->runs;
    const uint32_t place = nvlxi_runs_reuse(runs, new_run->run.count);
    new_run->reuses = place != 0;
    if (place) {
        new_run->place = place - 1;
        new_run->run.first = runs->run[place - 1].first;
        return;
    }
    new_run->place = (uint32_t)(runs->count + p->fresh_count++);
    new_run->run.first = (uint32_t)(p->table->descriptor->segment_count + p->segment_count);
    p->segment_count += new_run->run.count;
}

/* A run of all the segments of a region, none of which belongs to one yet. */
static bool begin_run(struct plan *p, const struct nvlxi_region_record *region) {
    const struct nvlxi_segment_record *segments = &p->changes->segments[region->segment];
    struct new_run *new_run = &p->runs[p->run_count++];
    *new_run = (struct new_run){.from = region->segment};
    struct nvlxi_run *run = &new_run->run;
    run->base = segments->base;
    run->count = region->segment_count;
    find_run_place(p, new_run);
    for (uint32_t i = 0; i < run->count; i++) {
        uint32_t known;
        if (p->run_of[region->segment + i] || find_segment(p->table, &segments[i], &known))
            return false;
        p->run_of[region->segment + i] = (uint32_t)p->run_count;
        run->size += segments[i].size;
    }
    return true;
}

/* A region in segments that are new. */
static bool place_in_new(struct plan *p, const struct nvlxi_region_record *region, struct place *place) {
    if (!p->run_of[region->segment] && !begin_run(p, region))
        return false;
    const uint32_t number = p->run_of[region->segment];
    struct new_run *new_run = &p->runs[number - 1];
    const uint32_t behind = region->segment - new_run->from;
    if (region->segment_count > new_run->run.count - behind)
        return false;
    new_run->run.regions++;
    new_run->run.writers += (region->access & NVLX_ACCESS_WRITE) != 0;
    place->segment = new_run->run.first + behind;
    place->run = new_run->place;
    return true;
}

/* A region's bytes come to the table. */
static bool come(struct plan *p, const struct nvlxi_region_record *region, struct place *place) {
    uint32_t segment;
    const struct nvlxi_segment_record *first = &p->changes->segments[region->segment];
    place->comes = true;
    place->where = nvlxi_remote_place(p->peer->remote, first);
    p->range_count++;
    p->woken = p->woken || place->at != ADDED;
    return find_segment(p->table, first, &segment) ? place_in_old(p, region, segment, place)
                                                   : place_in_new(p, region, place);
}

/* A region that is known becomes another. */
static bool plan_alteration(struct plan *p, const struct nvlxi_region_record *known,
                            const struct nvlxi_region_record *region, struct place *place) {
    if (!nvlxi_region_same(known, region))
        return false;
    place->at = (uint32_t)(known - p->table->descriptor->regions);
    if (has_bytes(known) && has_bytes(region) && known->address == region->address &&
        known->segment_count == region->segment_count && lies_in(p, region, known->segment)) {
        place->segment = known->segment;
        return true;
    }
    place->leaves = has_bytes(known);
    return (!place->leaves || leave(p, known)) && (!has_bytes(region) || come(p, region, place));
}

static bool plan_addition(struct plan *p, const struct nvlxi_region_record *region, struct place *place) {
    const struct nvlxi_region_record *other = region->name[0] ? nvlxi_peer_table_find(p->table, region->name) : NULL;
    p->added_count++;
    return region->since > p->changes->from && (!other || is_removed(p, other->since)) &&
           (!has_bytes(region) || come(p, region, place));
}

static bool plan_regions(struct plan *p) {
    const struct nvlxi_descriptor *c = p->changes;
    for (size_t i = 0; i < c->region_count; i++)
        p->told[i] = c->regions[i].since;
    if (!ascends(p->told, c->region_count) || (c->region_count && !p->told[0]))
        return false;
    for (size_t i = 0; i < c->region_count; i++) {
        const struct nvlxi_region_record *region = &c->regions[i], *known = find_by_id(p->table, region->since);
        struct place *place = &p->places[i];
        *place = (struct place){.start = region->address, .end = region->address + region->length, .at = ADDED};
        place->segment = NVLXI_NO_SEGMENT;
        if (region->since > c->identity.generation || is_removed(p, region->since) ||
            !(known ? plan_alteration(p, known, region, place) : plan_addition(p, region, place)))
            return false;
    }
    return true;
}

/* ---- What must not be in the way ------------------------------------------------------------------------- */

static int compare_steps(const void *a, const void *b) {
    const struct step *x = a, *y = b;
    return (x->run > y->run) - (x->run < y->run);
}

/* One step for each run. */
static void sum_up(struct plan *p) {
    size_t count = 0;
    qsort(p->steps, p->step_count, sizeof *p->steps, compare_steps);
    for (size_t i = 0; i < p->step_count; i++) {
        const struct step *step = &p->steps[i];
        if (!count || p->steps[count - 1].run != step->run) {
            p->steps[count++] = *step;
            continue;
        }
        struct step *sum = &p->steps[count - 1];
        sum->regions += step->regions;
        sum->writers += step->writers;
        sum->unjoins = sum->unjoins || step->unjoins;
    }
    p->step_count = count;
}

static bool ends(const struct plan *p, const struct step *step) {
    return (int64_t)p->table->runs.run[step->run].regions + step->regions == 0;
}

static bool run_ends(const struct plan *p, uint32_t run) {
    const struct step key = {.run = run};
    const struct step *step = bsearch(&key, p->steps, p->step_count, sizeof key, compare_steps);
    return step && ends(p, step);
}

/* Whether each run that stays stays as it is. */
static bool runs_stay(const struct plan *p) {
    for (size_t i = 0; i < p->step_count; i++) {
        const struct step *step = &p->steps[i];
        const struct nvlxi_run *run = &p->table->runs.run[step->run];
        const bool joins = p->table->descriptor->segments[run->first].joins;
        const bool written = (int64_t)run->writers + step->writers > 0;
        if (!ends(p, step) && (step->unjoins || run->read_only != (joins && !written)))
            return false;
    }
    return true;
}

/* Whether new segments lie where only runs are that end. */
static bool runs_have_place(const struct plan *p) {
    for (size_t i = 0; i < p->run_count; i++) {
        const struct nvlxi_run *run = &p->runs[i].run, *other;
        uint64_t at = run->base + run->size - 1;
        while ((other = nvlxi_runs_floor(&p->table->runs, at)) && other->base + (other->size - 1) >= run->base) {
            if (!run_ends(p, (uint32_t)(other - p->table->runs.run)))
                return false;
            if (!other->base)
                break;
            at = other->base - 1;
        }
    }
    return true;
}

static int compare_places(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Whether regions that come lie where only regions are that leave. */
static bool regions_have_place(const struct plan *p) {
    const struct nvlxi_intervals *ranges = &p->table->ranges;
    size_t count = 0;
    for (size_t i = 0; i < p->changes->region_count; i++) {
        const struct place *place = &p->places[i];
        if (!place->comes)
            continue;
        p->order[count++] = *place;
        for (uint32_t id = nvlxi_intervals_search(ranges, place->start); id && ranges->piece[id].start < place->end;
             id = nvlxi_intervals_next(ranges, id))
            if (!has(p->left, p->left_count, nvlxi_intervals_born(ranges, id)) || !nvlxi_intervals_lone(ranges, id))
                return false;
    }
    qsort(p->order, count, sizeof *p->order, compare_places);
    for (size_t i = 1; i < count; i++)
        if (p->order[i].start < p->order[i - 1].end)
            return false;
    return true;
}

static bool has_room(const struct plan *p) {
    const struct nvlxi_peer_table *table = p->table;
    return table->descriptor->region_count + p->added_count <= table->region_room + table->gone_count + p->gone_count &&
           table->runs.count + p->fresh_count <= table->runs.room &&
           table->descriptor->segment_count + p->segment_count <= table->runs.segment_room &&
           1 + (uint64_t)table->ranges.count + 4 * (uint64_t)p->range_count <= table->ranges.store.capacity;
}

/* ---- Doing it ---------------------------------------------------------------------------------------------- */

static struct nvlxi_range range_of(const struct nvlxi_region_record *region) {
    return (struct nvlxi_range){
        .start = region->address, .end = region->address + region->length, .access = (uint8_t)region->access};
}

static void remove_regions(const struct plan *p) {
    struct nvlxi_peer_table *table = p->table;
    struct nvlxi_region_record *regions = table->descriptor->regions;
    for (size_t i = 0; i < p->gone_count; i++) {
        struct nvlxi_region_record *region = &regions[p->gone[i]];
        const struct nvlxi_range range = range_of(region);
        if (has_bytes(region))
            nvlxi_intervals_remove(&table->ranges, &range);
        if (region->suspended)
            nvlxi_peer_table_wake(table, p->gone[i]);
        nvlxi_order_remove(&table->by_id, region->since);
        p->old_names[i] = nvlxi_peer_table_leave(table, p->gone[i]);
    }
}

static void take_out_ranges(const struct plan *p) {
    for (size_t i = 0; i < p->changes->region_count; i++) {
        if (!p->places[i].leaves)
            continue;
        const struct nvlxi_range range = range_of(&p->table->descriptor->regions[p->places[i].at]);
        nvlxi_intervals_remove(&p->table->ranges, &range);
    }
}

/* What is being opened finds out when it is open. */
static void retire_run(const struct plan *p, uint32_t place) {
    const struct nvlxi_run *run = &p->table->runs.run[place];
    for (int gpu = 0; gpu < p->peer->remote->gpus; gpu++) {
        const struct nvlxi_mapping_key key = {run->base, run->serial, (uint64_t)gpu};
        const struct nvlxi_view *view = &p->table->views[gpu];
        struct nvlxi_mapping *mapping;
        HASH_FIND(hh, p->peer->mappings, &key, sizeof key, mapping);
        if (mapping && mapping->ready)
            nvlxi_mapping_revoke(p->peer, mapping);
        atomic_store_explicit(&view->offset[place], NVLXI_UNMAPPED, memory_order_release);
        view->mapping[place] = NULL;
    }
    nvlxi_runs_remove(&p->table->runs, run);
}

static void change_runs(const struct plan *p) {
    for (size_t i = 0; i < p->step_count; i++) {
        const struct step *step = &p->steps[i];
        struct nvlxi_run *run = &p->table->runs.run[step->run];
        const bool over = ends(p, step);
        run->regions += (uint32_t)step->regions;
        run->writers += (uint32_t)step->writers;
        if (over)
            retire_run(p, step->run);
    }
}

static void add_runs(const struct plan *p) {
    struct nvlxi_descriptor *d = p->table->descriptor;
    for (size_t i = 0; i < p->run_count; i++) {
        struct nvlxi_run *run = &p->runs[i].run;
        const struct nvlxi_segment_record *segments = &p->changes->segments[p->runs[i].from];
        run->read_only = segments->joins && !run->writers;
        run->serial = nvlxi_run_serial(run, segments);
        memcpy(&d->segments[run->first], segments, run->count * sizeof *segments);
        nvlxi_runs_add(&p->table->runs, p->runs[i].place, run);
    }
    d->segment_count += p->segment_count;
}

/* There is room: this allocates nothing. */
static void add_range(struct nvlxi_peer_table *table, const struct nvlxi_region_record *region,
                      const struct place *place) {
    struct nvlxi_range range = range_of(region);
    range.owner = place->run;
    range.place = place->where;
    nvlxi_intervals_reserve(&table->ranges, range.start, range.end, 1);
    const uint32_t id = nvlxi_intervals_insert(&table->ranges, &range, range.start == table->runs.run[place->run].base);
    nvlxi_intervals_set_born(&table->ranges, id, region->since);
}

/* A region which is as if it were awake. The name becomes the table's. */
static size_t add_region(struct nvlxi_peer_table *table, const struct nvlxi_region_record *added, const char *name) {
    struct nvlxi_descriptor *d = table->descriptor;
    const size_t at = nvlxi_peer_table_take_place(table);
    struct nvlxi_region_record *region = &d->regions[at];
    *region = (struct nvlxi_region_record){.name = name ? name : "", .since = added->since};
    nvlxi_order_insert(&table->by_id, region->since, (uint32_t)at + 1);
    if (region->name[0])
        nvlxi_name_index_insert(&table->recent, d->regions, at);
    return at;
}

/* Makes the region at a place of the table the one that the changes tell. */
static void set_region(struct nvlxi_peer_table *table, size_t at, const struct nvlxi_region_record *told,
                       const struct place *place) {
    struct nvlxi_region_record *region = &table->descriptor->regions[at];
    if (region->suspended && !told->suspended)
        nvlxi_peer_table_wake(table, at);
    const bool slept = region->suspended;
    const char *name = region->name;
    *region = *told;
    region->name = name;
    region->segment = place->segment;
    if (told->suspended && !slept)
        nvlxi_peer_table_sleep(table, at);
    if (place->comes)
        add_range(table, region, place);
}

static void set_regions(const struct plan *p) {
    for (size_t i = 0; i < p->changes->region_count; i++) {
        const struct nvlxi_region_record *told = &p->changes->regions[i];
        const struct place *place = &p->places[i];
        set_region(p->table, place->at == ADDED ? add_region(p->table, told, p->names[i]) : place->at, told, place);
    }
    if (p->woken) /* what is known of pieces by their birth may be of before */
        p->table->ranges.version = nvlxi_intervals_new_version();
}

static void commit(const struct plan *p) {
    struct nvlxi_remote *r = p->peer->remote;
    pthread_mutex_lock(&r->mutex);
    nvlxi_tables_write(r->context->tables);
    remove_regions(p);
    take_out_ranges(p);
    change_runs(p);
    add_runs(p);
    set_regions(p);
    p->table->descriptor->identity.generation = p->changes->identity.generation;
    atomic_fetch_add(&p->peer->changes, 1);
    nvlxi_tables_write_end(r->context->tables);
    pthread_mutex_unlock(&r->mutex);
}

/* ---- The plan ---------------------------------------------------------------------------------------------- */

static bool allocate(struct plan *p) {
    const struct nvlxi_descriptor *c = p->changes;
    const size_t steps = c->removed_count + c->region_count;
    p->removed = malloc((c->removed_count + 1) * sizeof *p->removed);
    p->told = malloc((c->region_count + 1) * sizeof *p->told);
    p->left = malloc((steps + 1) * sizeof *p->left);
    p->gone = malloc((c->removed_count + 1) * sizeof *p->gone);
    p->steps = malloc((steps + c->region_count + 1) * sizeof *p->steps);
    p->places = malloc((c->region_count + 1) * sizeof *p->places);
    p->order = malloc((c->region_count + 1) * sizeof *p->order);
    p->runs = malloc((c->region_count + 1) * sizeof *p->runs);
    p->run_of = calloc(c->segment_count + 1, sizeof *p->run_of);
    p->names = calloc(c->region_count + 1, sizeof *p->names);
    p->old_names = calloc(c->removed_count + 1, sizeof *p->old_names);
    return p->removed && p->told && p->left && p->gone && p->steps && p->places && p->order && p->runs && p->run_of &&
           p->names && p->old_names;
}

/* Those of regions that are added. */
static bool copy_names(struct plan *p) {
    for (size_t i = 0; i < p->changes->region_count; i++)
        if (p->places[i].at == ADDED && p->changes->regions[i].name[0] &&
            !(p->names[i] = strdup(p->changes->regions[i].name)))
            return false;
    return true;
}

/* The table stays as it is. */
static void give_up(struct plan *p) {
    for (size_t i = 0; i < p->run_count; i++)
        if (p->runs[i].reuses)
            nvlxi_runs_unuse(&p->table->runs, p->runs[i].place + 1);
    for (size_t i = 0; p->names && i < p->changes->region_count; i++)
        free(p->names[i]);
}

static void free_plan(const struct plan *p) {
    for (size_t i = 0; p->old_names && i < p->gone_count; i++)
        free(p->old_names[i]);
    free(p->removed);
    free(p->told);
    free(p->left);
    free(p->gone);
    free(p->steps);
    free(p->places);
    free(p->order);
    free(p->runs);
    free(p->run_of);
    free(p->names);
    free(p->old_names);
}

/* Other slots, where changes have worn these out. */
static void renew_slots(const struct nvlx_peer *peer) {
    struct nvlxi_intervals *ranges = &peer->table->ranges;
    struct nvlxi_slots *slots;
    if (!nvlxi_intervals_worn(ranges) || !(slots = nvlxi_intervals_new_slots(ranges)))
        return;
    nvlxi_tables_write(peer->remote->context->tables);
    slots = nvlxi_intervals_swap_slots(ranges, slots);
    nvlxi_tables_write_end(peer->remote->context->tables);
    free(slots);
}

static bool make_plan(struct plan *p) {
    if (!allocate(p) || !plan_removals(p) || !plan_regions(p))
        return false;
    sum_up(p);
    qsort(p->left, p->left_count, sizeof *p->left, compare_numbers);
    return has_room(p) && runs_stay(p) && runs_have_place(p) && regions_have_place(p) && copy_names(p);
}

bool nvlxi_change_in_place(struct nvlx_peer *peer, const struct nvlxi_descriptor *changes) {
    struct nvlxi_peer_table *table = peer->table;
    struct plan plan = {.peer = peer, .table = table, .changes = changes};
    if (table->own || !table->has_ids || changes->from != table->descriptor->identity.generation)
        return false;
    const bool made = make_plan(&plan);
    if (made)
        commit(&plan);
    else
        give_up(&plan);
    free_plan(&plan);
    if (made)
        renew_slots(peer);
    return made;
}
