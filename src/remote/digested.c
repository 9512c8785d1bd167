/* An index of a peer's regions that have a digest. SPDX-License-Identifier: Apache-2.0 */
#include "remote/digested.h"

#include <stdlib.h>

#include "base/error.h"

static int compare(const void *a, const void *b) {
    const struct nvlxi_digested *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return (x->length > y->length) - (x->length < y->length);
}

static bool is_in_index(const struct nvlxi_region_record *region) {
    return region->has_digest && region->length && region->access != NVLXI_GONE && !region->suspended;
}

static int fill(struct nvlxi_digested_index *index, const struct nvlxi_descriptor *d) {
    size_t count = 0;
    for (size_t i = 0; i < d->region_count; i++)
        count += is_in_index(&d->regions[i]);
    index->list = malloc((count + 1) * sizeof *index->list);
    if (!index->list)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %zu digests", count);
    for (size_t i = 0; i < d->region_count; i++) {
        const struct nvlxi_region_record *region = &d->regions[i];
        if (is_in_index(region))
            index->list[index->count++] = (struct nvlxi_digested){region->address, region->length, region->digest, i};
    }
    qsort(index->list, index->count, sizeof *index->list, compare);
    return 0;
}

int nvlxi_digested_make(struct nvlxi_digested_index *index, const struct nvlx_peer *peer) {
    const uint64_t version = peer->table->ranges.version, changes = atomic_load(&peer->changes);
    if (index->version == version && index->changes == changes)
        return 0;
    nvlxi_digested_free(index);
    int code = fill(index, peer->table->descriptor);
    if (code)
        return code;
    index->version = version;
    index->changes = changes;
    return 0;
}

void nvlxi_digested_free(struct nvlxi_digested_index *index) {
    free(index->list);
    *index = (struct nvlxi_digested_index){0};
}

const struct nvlxi_digested *nvlxi_digested_find(const struct nvlxi_digested_index *index, uint64_t address,
                                                 uint64_t most) {
    const struct nvlxi_digested wanted = {.address = address, .length = most};
    size_t from = 0, to = index->count; /* those before `from` are not beyond what is wanted, those from `to` on are */
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        if (compare(&index->list[middle], &wanted) <= 0)
            from = middle + 1;
        else
            to = middle;
    }
    return from && index->list[from - 1].address == address ? &index->list[from - 1] : NULL;
}
