/* Makes and reads the words of a storm: see content.h. SPDX-License-Identifier: Apache-2.0 */
#include "content.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FACTOR_1  UINT64_C(0xbf58476d1ce4e5b9)
#define FACTOR_2  UINT64_C(0x94d049bb133111eb)
#define INVERSE_1 UINT64_C(0x96de1b173f119089)
#define INVERSE_2 UINT64_C(0x319642b2d24d8ec3)

/* The finalizer of splitmix64, which is a bijection. */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * FACTOR_1;
    x = (x ^ x >> 27) * FACTOR_2;
    return x ^ x >> 31;
}

static uint64_t unmix(uint64_t x) {
    x = (x ^ x >> 31 ^ x >> 62) * INVERSE_2;
    x = (x ^ x >> 27 ^ x >> 54) * INVERSE_1;
    return x ^ x >> 30 ^ x >> 60;
}

uint64_t make_word(uint64_t stamp, uint64_t index) {
    return mix(stamp << INDEX_BITS | index);
}

struct word read_word(uint64_t word) {
    const uint64_t raw = unmix(word);
    return (struct word){raw >> INDEX_BITS, raw & ((UINT64_C(1) << INDEX_BITS) - 1)};
}

void fill_words(void *bytes, size_t length, uint64_t stamp, uint64_t index) {
    uint8_t *at = bytes;
    for (size_t i = 0; i < length / WORD; i++) {
        const uint64_t word = make_word(stamp, index + i);
        memcpy(at + i * WORD, &word, WORD);
    }
}

size_t find_other(const void *bytes, size_t count, uint64_t stamp, uint64_t index) {
    const uint8_t *at = bytes;
    for (size_t i = 0; i < count; i++) {
        uint64_t word;
        memcpy(&word, at + i * WORD, WORD);
        if (word != make_word(stamp, index + i))
            return i;
    }
    return count;
}

const char *describe_word(uint64_t word, char text[DESCRIPTION_MAX]) {
    const struct word found = read_word(word);
    snprintf(text, DESCRIPTION_MAX, "process %u.%" PRIu32 " content %" PRIu32 " word %" PRIu64,
             stamp_process(found.stamp), stamp_incarnation(found.stamp), stamp_number(found.stamp), found.index);
    return text;
}

uint64_t hash_of(uint64_t a, uint64_t b) {
    return mix(mix(a + UINT64_C(0x9e3779b97f4a7c15)) ^ b);
}
