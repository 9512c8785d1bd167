/* An index of a peer's regions that have a digest. SPDX-License-Identifier: Apache-2.0 */
#include "remote/digested.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"

static int compare(const void *a, const void *b) {
    const struct nvlxi_digested *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return (x->length > y->length) - (x->length < y->length);
}

/* ---- Indexes ------------------------------------------------------------------------------------------ */

static bool is_in_index(const struct nvlxi_region_record *region) {
    return region->has_digest && region->length && region->access != NVLXI_GONE && !region->suspended;
}

static int make_room(struct nvlxi_digested_index *index, const struct nvlxi_descriptor *d) {
    size_t count = 0, bytes = 0;
    for (size_t i = 0; i < d->region_count; i++) {
        count += is_in_index(&d->regions[i]);
        bytes += is_in_index(&d->regions[i]) ? strlen(d->regions[i].name) + 1 : 0;
    }
    index->list = malloc((count + 1) * sizeof *index->list);
    index->names = malloc(bytes + 1);
    return index->list && index->names ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %zu digests", count);
}

static void fill(struct nvlxi_digested_index *index, const struct nvlxi_descriptor *d) {
    char *name = index->names;
    for (size_t i = 0; i < d->region_count; i++) {
        const struct nvlxi_region_record *region = &d->regions[i];
        if (!is_in_index(region))
            continue;
        index->list[index->count++] = (struct nvlxi_digested){region->address, region->length, region->digest, name};
        name = stpcpy(name, region->name) + 1;
    }
    qsort(index->list, index->count, sizeof *index->list, compare);
}

void nvlxi_digested_hold(struct nvlxi_digested_index *index) {
    atomic_fetch_add(&index->holders, 1);
}

void nvlxi_digested_drop(struct nvlxi_digested_index *index) {
    if (atomic_fetch_sub(&index->holders, 1) != 1)
        return;
    free(index->list);
    free(index->names);
    free(index);
}

static int make(const struct nvlx_peer *peer, uint64_t changes, struct nvlxi_digested_index **index) {
    struct nvlxi_digested_index *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of digests");
    *made = (struct nvlxi_digested_index){
        .holders = 1, .peer = peer, .version = peer->table->ranges.version, .changes = changes};
    int code = make_room(made, peer->table->descriptor);
    if (code) {
        nvlxi_digested_drop(made);
        return code;
    }
    fill(made, peer->table->descriptor);
    *index = made;
    return 0;
}

/* ---- Shelves ------------------------------------------------------------------------------------------ */

static void take_off(struct nvlxi_digested_shelf *shelf, struct nvlxi_digested_index *index) {
    LL_DELETE(shelf->latest, index);
    nvlxi_digested_drop(index);
}

/* The one that was not used for the longest time goes, if the shelf is full. */
static void make_place(struct nvlxi_digested_shelf *shelf) {
    struct nvlxi_digested_index *last = shelf->latest;
    int count = last != NULL;
    for (; last && last->next; last = last->next)
        count++;
    if (count >= NVLXI_SHELF_MAX)
        take_off(shelf, last);
}

int nvlxi_digested_get(struct nvlxi_digested_shelf *shelf, const struct nvlx_peer *peer,
                       struct nvlxi_digested_index **index) {
    const uint64_t changes = atomic_load(&peer->changes);
    struct nvlxi_digested_index *found;
    int code = 0;
    LL_SEARCH_SCALAR(shelf->latest, found, peer, peer);
    if (found && found->version == peer->table->ranges.version && found->changes == changes) {
        LL_DELETE(shelf->latest, found);
    } else {
        if (found)
            take_off(shelf, found);
        else
            make_place(shelf);
        code = make(peer, changes, &found);
    }
    if (code)
        return code;
    LL_PREPEND(shelf->latest, found);
    *index = found;
    return 0;
}

void nvlxi_digested_shelf_free(struct nvlxi_digested_shelf *shelf) {
    while (shelf->latest)
        take_off(shelf, shelf->latest);
}

/* ---- Finding ------------------------------------------------------------------------------------------ */

static bool is_beyond(const struct nvlxi_digested *region, uint64_t address, uint64_t most) {
    return region->address > address || (region->address == address && region->length > most);
}

/* Whether those before a place are not beyond what is wanted, and those from it on are. */
static bool is_place(const struct nvlxi_digested_index *index, size_t place, uint64_t address, uint64_t most) {
    return place <= index->count && (!place || !is_beyond(&index->list[place - 1], address, most)) &&
           (place == index->count || is_beyond(&index->list[place], address, most));
}

static size_t search(const struct nvlxi_digested_index *index, uint64_t address, uint64_t most) {
    size_t from = 0, to = index->count;
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        if (is_beyond(&index->list[middle], address, most))
            to = middle;
        else
            from = middle + 1;
    }
    return from;
}

const struct nvlxi_digested *nvlxi_digested_find(struct nvlxi_digested_index *index, uint64_t address, uint64_t most) {
    if (is_place(index, index->near + 1, address, most))
        index->near++;
    else if (!is_place(index, index->near, address, most))
        index->near = search(index, address, most);
    return index->near && index->list[index->near - 1].address == address ? &index->list[index->near - 1] : NULL;
}
