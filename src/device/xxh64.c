/* XXH64 on the host. SPDX-License-Identifier: Apache-2.0 */
#include "device/xxh64.h"

#include <string.h>

#include "base/base.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are what lies in memory");

static void take_stripe(uint64_t lane[4], const uint64_t stripe[4]) {
    for (int i = 0; i < 4; i++)
        lane[i] = nvlxi_xxh64_round(lane[i], stripe[i]);
}

void nvlxi_xxh64_init(struct nvlxi_xxh64 *state) {
    *state = (struct nvlxi_xxh64){.count = 0};
    for (uint32_t i = 0; i < NVLXI_COUNT(state->lane); i++)
        state->lane[i] = nvlxi_xxh64_begin(i);
}

uint64_t nvlxi_xxh64(const void *bytes, size_t length) {
    const uint8_t *from = bytes;
    struct nvlxi_xxh64 state;
    nvlxi_xxh64_init(&state);
    for (size_t left = length; left >= NVLXI_XXH64_STRIPE; left -= NVLXI_XXH64_STRIPE, from += NVLXI_XXH64_STRIPE) {
        uint64_t stripe[4];
        memcpy(stripe, from, sizeof stripe);
        take_stripe(state.lane, stripe);
    }
    return nvlxi_xxh64_end(nvlxi_xxh64_join(state.lane[0], state.lane[1], state.lane[2], state.lane[3]), from, length);
}

void nvlxi_xxh64_add(struct nvlxi_xxh64 *state, const uint64_t *words, size_t count) {
    for (size_t i = 0; i < count; i++) {
        state->stripe[state->count++ % 4] = words[i];
        if (state->count % 4 == 0)
            take_stripe(state->lane, state->stripe);
    }
}

uint64_t nvlxi_xxh64_value(const struct nvlxi_xxh64 *state) {
    const uint64_t hash = nvlxi_xxh64_join(state->lane[0], state->lane[1], state->lane[2], state->lane[3]);
    return nvlxi_xxh64_end(hash, (const uint8_t *)state->stripe, state->count * sizeof(uint64_t));
}
