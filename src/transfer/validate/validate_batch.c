/* Validates ops that lie in the same two pieces, several at a time. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/validate/validate_batch.h"

#include <stdbool.h>

#include "base/intervals/interval_map.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

static size_t validate_plain(const struct nvlxi_batch *batches, size_t round, size_t first, const struct nvlx_op *ops,
                             size_t count, uint64_t *remote, uint64_t *longest) {
    size_t index, at = first % round;
    uint64_t lasts = 0; /* what is written to `remote` cannot change it */
    for (index = first; index < count; index++, at = at + 1 == round ? 0 : at + 1) {
        const struct nvlxi_batch *it = &batches[at];
        const struct nvlx_op *op = &ops[index];
        const uint64_t last = op->length - 1; /* of an op of 0 bytes, in no piece */
        __builtin_prefetch(op + NVLXI_AHEAD);
        if (op->opcode != it->opcode || op->flags || op->peer != it->peer || op->arg ||
            !nvlxi_holds(it->local_start, it->local_size, (uint64_t)(uintptr_t)op->local, last) ||
            !nvlxi_holds(it->remote_start, it->remote_size, op->remote, last))
            break;
        remote[index] = op->remote + it->offset;
        lasts |= last;
    }
    *longest |= lasts;
    return index;
}

size_t nvlxi_validate_batch_plain(const struct nvlxi_batch *batches, size_t round, const struct nvlx_op *ops,
                                  size_t count, uint64_t *remote, uint64_t *longest) {
    return validate_plain(batches, round, 0, ops, count, remote, longest);
}

#ifdef __x86_64__

/* Two ops are twelve words, three registers of four. To each word is added what makes it 0 if it is right, or an offset
 * in its piece, or a length - 1:
 *
 *   0: head 0, peer 0, local 0, remote 0     1: last 0, arg 0, head 1, peer 1     2: local 1, remote 1, last 1, arg 1
 *
 * The offsets are brought together, and `last` of their ops is added, which gives the offsets of the last bytes:
 *
 *   local 1, remote 1, local 0, remote 0   +   last 1, last 1, last 0, last 0
 *
 * Ops are right if head, peer and arg are 0 then, and nothing is negative, nor the distance from the last bytes to the
 * limits. So all are or-ed, and of a block of ops only the outcome is looked at. In rounds of an odd number of ops,
 * each second one begins in the middle of two. */
#define BLOCK 32 /* ops, of one batch; of several about so many, whole rounds; even */

_Static_assert(sizeof(struct nvlx_op) == 6 * sizeof(uint64_t) && offsetof(struct nvlx_op, peer) == 8 &&
                   offsetof(struct nvlx_op, local) == 16 && offsetof(struct nvlx_op, remote) == 24 &&
                   offsetof(struct nvlx_op, length) == 32 && offsetof(struct nvlx_op, arg) == 40,
               "an op is these six words");

struct words {
    __m256i word[3];
};

struct common { /* of two ops */
    struct words added;
    __m256i last;       /* offset there is */
    uint64_t offset[2]; /* as in struct nvlxi_batch */
};

__attribute__((target("avx2"))) static __m256i four(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    return _mm256_setr_epi64x((long long)a, (long long)b, (long long)c, (long long)d);
}

/* Whether some or-ed words, or distances, say that an op is not right. */
__attribute__((target("avx2"))) static inline bool is_wrong(const struct words *all, __m256i distances) {
    const __m256i fields =
        _mm256_or_si256(_mm256_and_si256(all->word[0], four(UINT64_MAX, UINT64_MAX, 0, 0)),
                        _mm256_or_si256(_mm256_and_si256(all->word[1], four(0, UINT64_MAX, UINT64_MAX, UINT64_MAX)),
                                        _mm256_and_si256(all->word[2], four(0, 0, 0, UINT64_MAX))));
    const __m256i signs =
        _mm256_or_si256(_mm256_or_si256(distances, all->word[0]), _mm256_or_si256(all->word[1], all->word[2]));
    return !_mm256_testz_si256(fields, fields) || _mm256_movemask_pd(_mm256_castsi256_pd(signs));
}

/* Checks and relocates a block of so many ops, of `kinds` in turn, which are two ops each. False if any is not right.
 */
__attribute__((target("avx2"), always_inline)) static inline bool validate_block(const struct common *common,
                                                                                 size_t kinds, size_t block,
                                                                                 const struct nvlx_op *op,
                                                                                 uint64_t *remote, uint64_t *longest) {
    const struct nvlx_op *const end = op + block;
    const struct common *it = common;
    const __m256i none = _mm256_setzero_si256();
    struct words all = {{none, none, none}};
    __m256i distances = none;
    for (; op < end; op += 2, remote += 2, it = it + 1 == common + kinds ? common : it + 1) {
        const __m256i *words = (const void *)op;
        __builtin_prefetch(op + NVLXI_AHEAD);
        __builtin_prefetch(op + NVLXI_AHEAD + 1);
        remote[0] = op[0].remote + it->offset[0];
        remote[1] = op[1].remote + it->offset[1];
        const __m256i first = _mm256_add_epi64(_mm256_loadu_si256(&words[0]), it->added.word[0]),
                      middle = _mm256_add_epi64(_mm256_loadu_si256(&words[1]), it->added.word[1]),
                      second = _mm256_add_epi64(_mm256_loadu_si256(&words[2]), it->added.word[2]);
        const __m256i offsets = _mm256_blend_epi32(second, first, 0xf0);
        const __m256i lasts =
            _mm256_permute4x64_epi64(_mm256_blend_epi32(middle, second, 0x30), _MM_SHUFFLE(0, 0, 2, 2));
        const __m256i ends = _mm256_add_epi64(offsets, lasts);
        distances = _mm256_or_si256(distances, _mm256_or_si256(ends, _mm256_sub_epi64(it->last, ends)));
        all.word[0] = _mm256_or_si256(all.word[0], first);
        all.word[1] = _mm256_or_si256(all.word[1], middle);
        all.word[2] = _mm256_or_si256(all.word[2], second);
    }
    if (is_wrong(&all, distances))
        return false;
    *longest |= (uint64_t)(_mm256_extract_epi64(all.word[1], 0) | _mm256_extract_epi64(all.word[2], 2));
    return true;
}

__attribute__((target("avx2"))) static struct common common_of(const struct nvlxi_batch *a,
                                                               const struct nvlxi_batch *b) {
    const uint64_t peer_a = -(uint64_t)(uintptr_t)a->peer, peer_b = -(uint64_t)(uintptr_t)b->peer;
    return (struct common){.added = {{four(-(uint64_t)a->opcode, peer_a, -a->local_start, -a->remote_start),
                                      four(UINT64_MAX, 0, -(uint64_t)b->opcode, peer_b),
                                      four(-b->local_start, -b->remote_start, UINT64_MAX, 0)}},
                           .last = four(b->local_size - 1, b->remote_size - 1, a->local_size - 1, a->remote_size - 1),
                           .offset = {a->offset, b->offset}};
}

__attribute__((target("avx2"))) static size_t validate_alike(const struct nvlxi_batch *batch, const struct nvlx_op *ops,
                                                             size_t count, uint64_t *remote, uint64_t *longest) {
    const struct common common = common_of(batch, batch);
    uint64_t lasts = 0;
    size_t index = 0;
    while (count - index >= BLOCK && validate_block(&common, 1, BLOCK, &ops[index], &remote[index], &lasts))
        index += BLOCK;
    *longest |= lasts;
    return index;
}

__attribute__((target("avx2"))) static size_t validate_rounds(const struct nvlxi_batch *batches, size_t round,
                                                              const struct nvlx_op *ops, size_t count, uint64_t *remote,
                                                              uint64_t *longest) {
    const size_t kinds = round % 2 ? round : round / 2;
    const size_t block = nvlxi_max(BLOCK / 2 / kinds, 1) * kinds * 2;
    struct common common[NVLXI_ROUND_MAX];
    uint64_t lasts = 0;
    size_t index = 0;
    for (size_t i = 0; i < kinds; i++)
        common[i] = common_of(&batches[2 * i % round], &batches[(2 * i + 1) % round]);
    while (count - index >= block && validate_block(common, kinds, block, &ops[index], &remote[index], &lasts))
        index += block;
    *longest |= lasts;
    return index;
}

#endif

size_t nvlxi_validate_batch(const struct nvlxi_batch *batches, size_t round, const struct nvlx_op *ops, size_t count,
                            uint64_t *remote, uint64_t *longest) {
    size_t done = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && count >= BLOCK) {
        done = round == 1 ? validate_alike(batches, ops, count, remote, longest)
                          : validate_rounds(batches, round, ops, count, remote, longest);
        if (count - done >= BLOCK)
            return done;
    }
#endif
    return validate_plain(batches, round, done, ops, count, remote, longest);
}
