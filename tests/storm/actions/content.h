/* What the bytes of a storm are: every word of 8 bytes tells who wrote it, when, and where it belongs.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A word is a bijection of (stamp, index): so what is found can be read back. A stamp is a process, its incarnation and
 * the number of the content among all that this incarnation has written; the index is that of the word in it. Number 0
 * is no content: memory that nobody may read is filled with it, and so are buffers before a read. */
#ifndef STORM_CONTENT_H
#define STORM_CONTENT_H

#include <stddef.h>
#include <stdint.h>

#define WORD         8u
#define INDEX_BITS   23
#define NUMBER_BITS  20
#define CONTENT_MAX  ((size_t)WORD << INDEX_BITS)
#define NUMBERS_MASK ((UINT64_C(1) << NUMBER_BITS) - 1)

static inline uint64_t make_stamp(unsigned process, uint32_t incarnation, uint32_t number) {
    return (uint64_t)process << 36 | (uint64_t)(incarnation & 0xffff) << NUMBER_BITS | (number & NUMBERS_MASK);
}

static inline unsigned stamp_process(uint64_t stamp) {
    return (unsigned)(stamp >> 36);
}

static inline uint32_t stamp_incarnation(uint64_t stamp) {
    return (uint32_t)(stamp >> NUMBER_BITS & 0xffff);
}

static inline uint32_t stamp_number(uint64_t stamp) {
    return (uint32_t)(stamp & NUMBERS_MASK);
}

struct word {
    uint64_t stamp, index;
};

uint64_t make_word(uint64_t stamp, uint64_t index);
struct word read_word(uint64_t word);

/* The words from `index` on; length is a multiple of WORD. */
void fill_words(void *bytes, size_t length, uint64_t stamp, uint64_t index);
/* The index of the first of `count` words that are not these; `count` if there is none. */
size_t find_other(const void *bytes, size_t count, uint64_t stamp, uint64_t index);

/* "process 3.17 content 5 word 9", in a buffer of the caller's. */
#define DESCRIPTION_MAX 96
const char *describe_word(uint64_t word, char text[DESCRIPTION_MAX]);

/* The n-th number of a sequence: any n, in any order. */
uint64_t hash_of(uint64_t a, uint64_t b);

#endif
