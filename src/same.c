/* SPDX-License-Identifier: Apache-2.0 */
#include "same.h"

#include <stdbool.h>
#include <string.h>

#include "ranges.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

size_t nvlxi_same_check_plain(const struct nvlxi_same *same, const struct nvlx_op *ops, size_t count, uint64_t *remote,
                              uint64_t *longest) {
    const struct nvlxi_same it = *same; /* what is written to `remote` cannot change it */
    size_t index;
    for (index = 0; index < count; index++) {
        const struct nvlx_op *op = &ops[index];
        const uint64_t last = op->length - 1; /* of an op of 0 bytes, in no piece */
        __builtin_prefetch(op + NVLXI_AHEAD);
        if (op->opcode != it.opcode || op->flags || op->peer != it.peer || op->arg ||
            !nvlxi_holds(it.near_start, it.near_size, (uint64_t)(uintptr_t)op->local, last) ||
            !nvlxi_holds(it.far_start, it.far_size, op->remote, last))
            break;
        remote[index] = op->remote + it.offset;
        *longest |= last;
    }
    return index;
}

#ifdef __x86_64__

/* Two ops are twelve words, three registers of four. From each word is subtracted what it should be, or what makes it
 * an offset or a length - 1:
 *
 *   0: head 0, peer 0, near 0, far 0     1: last 0, arg 0, head 1, peer 1     2: near 1, far 1, last 1, arg 1
 *
 * Then `last` is added to the offsets of its op, which gives those of the last bytes. Ops are right if head, peer and
 * arg are then 0, and nothing is negative, nor the distance from the last bytes to the limits. So all are or-ed, and of
 * a block of ops only the outcome is looked at. What is added to other words does no harm: it is arg, which is wrong by
 * itself if it is not 0. */
#define BLOCK 32 /* ops; even */

struct words {
    __m256i word[3];
};

_Static_assert(sizeof(struct nvlx_op) == 6 * sizeof(uint64_t) && offsetof(struct nvlx_op, peer) == 8 &&
                   offsetof(struct nvlx_op, local) == 16 && offsetof(struct nvlx_op, remote) == 24 &&
                   offsetof(struct nvlx_op, length) == 32 && offsetof(struct nvlx_op, arg) == 40,
               "an op is these six words");

__attribute__((target("avx2"))) static struct words two_ops(uint64_t head, uint64_t peer, uint64_t near, uint64_t far,
                                                            uint64_t length, uint64_t arg) {
    const long long h = (long long)head, p = (long long)peer, n = (long long)near, f = (long long)far,
                    l = (long long)length, a = (long long)arg;
    return (struct words){
        {_mm256_setr_epi64x(h, p, n, f), _mm256_setr_epi64x(l, a, h, p), _mm256_setr_epi64x(n, f, l, a)}};
}

/* Negative where a word is, or is above its limit. */
__attribute__((target("avx2"))) static inline __m256i outside(__m256i word, __m256i limit) {
    return _mm256_or_si256(word, _mm256_sub_epi64(limit, word));
}

/* Whether some or-ed words, or the ends, say that an op is not right. */
__attribute__((target("avx2"))) static inline bool is_wrong(const struct words *all, __m256i ends) {
    const struct words fields = two_ops(UINT64_MAX, UINT64_MAX, 0, 0, 0, UINT64_MAX);
    const __m256i first = all->word[0], middle = all->word[1], second = all->word[2];
    const __m256i set = _mm256_or_si256(
        _mm256_and_si256(first, fields.word[0]),
        _mm256_or_si256(_mm256_and_si256(middle, fields.word[1]), _mm256_and_si256(second, fields.word[2])));
    ends = _mm256_or_si256(_mm256_or_si256(ends, first), _mm256_or_si256(middle, second));
    return !_mm256_testz_si256(set, set) || _mm256_movemask_pd(_mm256_castsi256_pd(ends));
}

/* Checks and relocates a block of ops; false if any of them is not so. */
__attribute__((target("avx2"))) static inline bool check_block(const struct words *base, const struct words *limit,
                                                               uint64_t offset, const struct nvlx_op *op,
                                                               uint64_t *remote, uint64_t *longest) {
    struct words all = {{_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()}};
    __m256i ends = _mm256_setzero_si256();
    for (size_t i = 0; i < BLOCK; i += 2, op += 2) {
        const __m256i *words = (const void *)op;
        __builtin_prefetch(op + NVLXI_AHEAD);
        __builtin_prefetch(op + NVLXI_AHEAD + 1);
        remote[i] = op[0].remote + offset;
        remote[i + 1] = op[1].remote + offset;
        const __m256i first = _mm256_sub_epi64(_mm256_loadu_si256(&words[0]), base->word[0]),
                      middle = _mm256_sub_epi64(_mm256_loadu_si256(&words[1]), base->word[1]),
                      second = _mm256_sub_epi64(_mm256_loadu_si256(&words[2]), base->word[2]);
        const __m256i first_end = _mm256_add_epi64(first, _mm256_permute4x64_epi64(middle, _MM_SHUFFLE(0, 0, 1, 1))),
                      second_end = _mm256_add_epi64(second, _mm256_permute4x64_epi64(second, _MM_SHUFFLE(3, 3, 2, 2)));
        all.word[0] = _mm256_or_si256(all.word[0], first);
        all.word[1] = _mm256_or_si256(all.word[1], middle);
        all.word[2] = _mm256_or_si256(all.word[2], second);
        ends = _mm256_or_si256(ends, outside(first_end, limit->word[0]));
        ends = _mm256_or_si256(ends, outside(second_end, limit->word[2]));
    }
    if (is_wrong(&all, ends))
        return false;
    *longest |= (uint64_t)(_mm256_extract_epi64(all.word[1], 0) | _mm256_extract_epi64(all.word[2], 2));
    return true;
}

__attribute__((target("avx2"))) static size_t check_blocks(const struct nvlxi_same *same, const struct nvlx_op *ops,
                                                           size_t count, uint64_t *remote, uint64_t *longest) {
    const struct words base = two_ops(same->opcode, (uintptr_t)same->peer, same->near_start, same->far_start, 1, 0);
    const struct words limit = two_ops(0, 0, same->near_size - 1, same->far_size - 1, INT64_MAX, 0);
    const uint64_t offset = same->offset;
    uint64_t lasts = 0;
    size_t index = 0;
    while (count - index >= BLOCK && check_block(&base, &limit, offset, &ops[index], &remote[index], &lasts))
        index += BLOCK;
    *longest |= lasts;
    return index;
}

#endif

size_t nvlxi_same_check(const struct nvlxi_same *same, const struct nvlx_op *ops, size_t count, uint64_t *remote,
                        uint64_t *longest) {
    size_t done = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && count >= BLOCK) {
        done = check_blocks(same, ops, count, remote, longest);
        if (count - done >= BLOCK)
            return done;
    }
#endif
    return done + nvlxi_same_check_plain(same, ops + done, count - done, remote + done, longest);
}
