/* XXH64, a published hash of 64 bits (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md), with seed 0.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It takes four lanes of words: word i goes to lane i % 4. What is left behind the last four words is added at the end.
 * The pieces in the first part are for kernels too. Words are little-endian, as all machines with CUDA are. */
#ifndef NVLXI_DEVICE_XXH64_H
#define NVLXI_DEVICE_XXH64_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define NVLXI_ANYWHERE static inline __host__ __device__
#else
#define NVLXI_ANYWHERE static inline
#endif

#define NVLXI_XXH64_1 0x9E3779B185EBCA87u
#define NVLXI_XXH64_2 0xC2B2AE3D27D4EB4Fu
#define NVLXI_XXH64_3 0x165667B19E3779F9u
#define NVLXI_XXH64_4 0x85EBCA77C2B2AE63u
#define NVLXI_XXH64_5 0x27D4EB2F165667C5u

#define NVLXI_XXH64_STRIPE 32u /* bytes: a word for each lane */

NVLXI_ANYWHERE uint64_t nvlxi_xxh64_turn(uint64_t word, int bits) {
    return word << bits | word >> (64 - bits);
}

/* What a lane holds before its first word. */
NVLXI_ANYWHERE uint64_t nvlxi_xxh64_begin(uint32_t lane) {
    return lane == 0 ? NVLXI_XXH64_1 + NVLXI_XXH64_2 : lane == 1 ? NVLXI_XXH64_2 : lane == 2 ? 0 : 0 - NVLXI_XXH64_1;
}

NVLXI_ANYWHERE uint64_t nvlxi_xxh64_round(uint64_t lane, uint64_t word) {
    return nvlxi_xxh64_turn(lane + word * NVLXI_XXH64_2, 31) * NVLXI_XXH64_1;
}

NVLXI_ANYWHERE uint64_t nvlxi_xxh64_merge(uint64_t hash, uint64_t lane) {
    return (hash ^ nvlxi_xxh64_round(0, lane)) * NVLXI_XXH64_1 + NVLXI_XXH64_4;
}

/* The lanes become one hash. */
NVLXI_ANYWHERE uint64_t nvlxi_xxh64_join(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    uint64_t hash = nvlxi_xxh64_turn(a, 1) + nvlxi_xxh64_turn(b, 7) + nvlxi_xxh64_turn(c, 12) + nvlxi_xxh64_turn(d, 18);
    hash = nvlxi_xxh64_merge(hash, a);
    hash = nvlxi_xxh64_merge(hash, b);
    hash = nvlxi_xxh64_merge(hash, c);
    return nvlxi_xxh64_merge(hash, d);
}

/* `count` bytes, at most 8, as a number. Byte by byte: they may be anywhere, and there are few. */
NVLXI_ANYWHERE uint64_t nvlxi_xxh64_number(const uint8_t *bytes, uint32_t count) {
    uint64_t number = 0;
    for (uint32_t i = 0; i < count; i++)
        number |= (uint64_t)bytes[i] << (8 * i);
    return number;
}

/* The hash of `length` bytes. `hash` is that of the lanes, of no meaning if they had no word, and `rest` what they have
 * not had: the last length % 32 bytes. */
NVLXI_ANYWHERE uint64_t nvlxi_xxh64_end(uint64_t hash, const uint8_t *rest, uint64_t length) {
    uint32_t left = (uint32_t)(length % NVLXI_XXH64_STRIPE);
    hash = (length < NVLXI_XXH64_STRIPE ? NVLXI_XXH64_5 : hash) + length;
    for (; left >= 8; left -= 8, rest += 8)
        hash = nvlxi_xxh64_turn(hash ^ nvlxi_xxh64_round(0, nvlxi_xxh64_number(rest, 8)), 27) * NVLXI_XXH64_1 +
               NVLXI_XXH64_4;
    for (; left >= 4; left -= 4, rest += 4)
        hash = nvlxi_xxh64_turn(hash ^ nvlxi_xxh64_number(rest, 4) * NVLXI_XXH64_1, 23) * NVLXI_XXH64_2 + NVLXI_XXH64_3;
    for (; left; left--, rest++)
        hash = nvlxi_xxh64_turn(hash ^ *rest * NVLXI_XXH64_5, 11) * NVLXI_XXH64_1;
    hash = (hash ^ hash >> 33) * NVLXI_XXH64_2;
    hash = (hash ^ hash >> 29) * NVLXI_XXH64_3;
    return hash ^ hash >> 32;
}

/* ---- The host's ---------------------------------------------------------------------------------------- */

#ifdef __cplusplus
extern "C" {
#endif

uint64_t nvlxi_xxh64(const void *bytes, size_t length);

/* Of words that come some at a time. */
struct nvlxi_xxh64 {
    uint64_t lane[4];
    uint64_t stripe[4]; /* the last words, as many as count % 4 */
    uint64_t count;     /* words so far */
};

void nvlxi_xxh64_init(struct nvlxi_xxh64 *state);
void nvlxi_xxh64_add(struct nvlxi_xxh64 *state, const uint64_t *words, size_t count);
uint64_t nvlxi_xxh64_value(const struct nvlxi_xxh64 *state); /* of all so far: more may follow */

#ifdef __cplusplus
}
#endif

#endif
