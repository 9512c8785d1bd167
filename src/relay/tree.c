/* Who reads from whom in a relay: see tree.h. SPDX-License-Identifier: Apache-2.0 */
#include "relay/tree.h"

#include <string.h>

static bool are_same(const uint8_t *a, const uint8_t *b) {
    return memcmp(a, b, NVLXI_UUID_BYTES) == 0;
}

/* The first before `end` on this GPU that others may read from, or `end`. */
static size_t first_on(const struct nvlxi_relay_place *places, size_t end, const uint8_t *gpu) {
    for (size_t i = 0; i < end; i++)
        if (places[i].reads && !places[i].shunned && are_same(places[i].gpu, gpu))
            return i;
    return end;
}

void nvlxi_relay_tree(struct nvlxi_relay_place *places, size_t count, const uint8_t *source_gpu) {
    int tail = NVLXI_RELAY_SOURCE;
    for (size_t i = 0; i < count; i++) {
        struct nvlxi_relay_place *place = &places[i];
        if (!place->reads)
            continue;
        if (are_same(place->gpu, source_gpu)) {
            place->parent = NVLXI_RELAY_SOURCE;
            continue;
        }
        const size_t near = first_on(places, i, place->gpu);
        place->parent = near < i ? (int)near : tail;
        if (near == i && !place->shunned)
            tail = (int)i;
    }
}
