/* The set of borders that a list meets. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/borders.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define SLOTS_EACH 4u /* at least: so few borders share a slot */

void nvlxi_borders_free(struct nvlxi_borders *borders) {
    free(borders->address);
    free(borders->slot);
    *borders = (struct nvlxi_borders){0};
}

/* The capacity is a power of two: then SLOTS_EACH times as many slots have room for a set of that size. */
int nvlxi_borders_grow(struct nvlxi_borders *borders) {
    const size_t capacity = borders->capacity ? 2 * borders->capacity : 16;
    uint64_t *slot = malloc(SLOTS_EACH * capacity * sizeof *slot);
    uint64_t *address = slot ? realloc(borders->address, capacity * sizeof *address) : NULL;
    if (!address) {
        free(slot);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to check a list that touches %zu allocations", borders->count + 1);
    }
    free(borders->slot);
    borders->slot = slot;
    borders->address = address;
    borders->capacity = capacity;
    return 0;
}

static void make_set(struct nvlxi_borders *borders) {
    uint32_t bits = 2;
    while (UINT64_C(1) << bits < SLOTS_EACH * borders->count)
        bits++;
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    borders->shift = 64 - bits;
    memset(borders->slot, 0, (mask + 1) * sizeof *borders->slot);
    for (size_t i = 0; i < borders->count; i++) {
        uint64_t at = nvlxi_borders_slot(borders->address[i], borders->shift);
        while (borders->slot[at] && borders->slot[at] != borders->address[i])
            at = (at + 1) & mask;
        borders->slot[at] = borders->address[i];
    }
}

struct nvlxi_border_set nvlxi_borders_set(struct nvlxi_borders *borders) {
    static const uint64_t none[2];
    if (!borders || !borders->count)
        return (struct nvlxi_border_set){none, 63};
    if (!borders->shift)
        make_set(borders);
    return (struct nvlxi_border_set){borders->slot, borders->shift};
}
