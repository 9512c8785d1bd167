/* nvlx_perf: the words that fill memory before it moves: the same for the CPU and for kernels.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_WORD_H
#define PERF_WORD_H

#include <stdint.h>

#ifdef __CUDACC__
#define PERF_EVERYWHERE __host__ __device__
#else
#define PERF_EVERYWHERE
#endif

/* The eight bytes at offset 8 * index. Neighbouring words, and the same word under another seed, differ in about every
 * byte. */
PERF_EVERYWHERE static inline uint64_t perf_word(uint64_t seed, uint64_t index) {
    uint64_t x = (index + seed * UINT64_C(0xd1342543de82ef95)) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 32;
    x *= UINT64_C(0xda942042e4dd58b5);
    return x ^ (x >> 29);
}

#endif
