/* Validates ops that lie in the same two pieces, several at a time. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/validate_batch.h"

#include <stdbool.h>

#include "base/interval_map.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

size_t nvlxi_validate_batch_plain(const struct nvlxi_batch *batch, const struct nvlx_op *ops, size_t count,
                                  uint64_t *remote, uint64_t *longest) {
    const struct nvlxi_batch it = *batch; /* what is written to `remote` cannot change it */
    size_t index;
    for (index = 0; index < count; index++) {
        const struct nvlx_op *op = &ops[index];
        const uint64_t last = op->length - 1; /* of an op of 0 bytes, in no piece */
        __builtin_prefetch(op + NVLXI_AHEAD);
        if (op->opcode != it.opcode || op->flags || op->peer != it.peer || op->arg ||
            !nvlxi_holds(it.local_start, it.local_size, (uint64_t)(uintptr_t)op->local, last) ||
            !nvlxi_holds(it.remote_start, it.remote_size, op->remote, last))
            break;
        remote[index] = op->remote + it.offset;
        *longest |= last;
    }
    return index;
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
 * limits. So all are or-ed, and of a block of ops only the outcome is looked at. */
#define BLOCK 32 /* ops; even */

_Static_assert(sizeof(struct nvlx_op) == 6 * sizeof(uint64_t) && offsetof(struct nvlx_op, peer) == 8 &&
                   offsetof(struct nvlx_op, local) == 16 && offsetof(struct nvlx_op, remote) == 24 &&
                   offsetof(struct nvlx_op, length) == 32 && offsetof(struct nvlx_op, arg) == 40,
               "an op is these six words");

struct words {
    __m256i word[3];
};

struct common { /* of all ops */
    struct words added;
    __m256i last;    /* offset there is */
    uint64_t offset; /* as in struct nvlxi_batch */
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

/* Checks and relocates a block of ops; false if any of them is not so. */
__attribute__((target("avx2"))) static inline bool validate_block(const struct common *common, const struct nvlx_op *op,
                                                                  uint64_t *remote, uint64_t *longest) {
    const __m256i none = _mm256_setzero_si256();
    struct words all = {{none, none, none}};
    __m256i distances = none;
    for (size_t i = 0; i < BLOCK; i += 2, op += 2) {
        const __m256i *words = (const void *)op;
        __builtin_prefetch(op + NVLXI_AHEAD);
        __builtin_prefetch(op + NVLXI_AHEAD + 1);
        remote[i] = op[0].remote + common->offset;
        remote[i + 1] = op[1].remote + common->offset;
        const __m256i first = _mm256_add_epi64(_mm256_loadu_si256(&words[0]), common->added.word[0]),
                      middle = _mm256_add_epi64(_mm256_loadu_si256(&words[1]), common->added.word[1]),
                      second = _mm256_add_epi64(_mm256_loadu_si256(&words[2]), common->added.word[2]);
        const __m256i offsets = _mm256_blend_epi32(second, first, 0xf0);
        const __m256i lasts =
            _mm256_permute4x64_epi64(_mm256_blend_epi32(middle, second, 0x30), _MM_SHUFFLE(0, 0, 2, 2));
        const __m256i ends = _mm256_add_epi64(offsets, lasts);
        distances = _mm256_or_si256(distances, _mm256_or_si256(ends, _mm256_sub_epi64(common->last, ends)));
        all.word[0] = _mm256_or_si256(all.word[0], first);
        all.word[1] = _mm256_or_si256(all.word[1], middle);
        all.word[2] = _mm256_or_si256(all.word[2], second);
    }
    if (is_wrong(&all, distances))
        return false;
    *longest |= (uint64_t)(_mm256_extract_epi64(all.word[1], 0) | _mm256_extract_epi64(all.word[2], 2));
    return true;
}

__attribute__((target("avx2"))) static size_t validate_blocks(const struct nvlxi_batch *batch,
                                                              const struct nvlx_op *ops, size_t count, uint64_t *remote,
                                                              uint64_t *longest) {
    const uint64_t head = -(uint64_t)batch->opcode, peer = -(uint64_t)(uintptr_t)batch->peer;
    const uint64_t local_start = -batch->local_start, remote_start = -batch->remote_start;
    const uint64_t local_last = batch->local_size - 1, remote_last = batch->remote_size - 1;
    const struct common common = {
        .added = {{four(head, peer, local_start, remote_start), four(UINT64_MAX, 0, head, peer),
                   four(local_start, remote_start, UINT64_MAX, 0)}},
        .last = four(local_last, remote_last, local_last, remote_last),
        .offset = batch->offset};
    uint64_t lasts = 0;
    size_t index = 0;
    while (count - index >= BLOCK && validate_block(&common, &ops[index], &remote[index], &lasts))
        index += BLOCK;
    *longest |= lasts;
    return index;
}

#endif

size_t nvlxi_validate_batch(const struct nvlxi_batch *batch, const struct nvlx_op *ops, size_t count, uint64_t *remote,
                            uint64_t *longest) {
    size_t done = 0;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && count >= BLOCK) {
        done = validate_blocks(batch, ops, count, remote, longest);
        if (count - done >= BLOCK)
            return done;
    }
#endif
    return done + nvlxi_validate_batch_plain(batch, ops + done, count - done, remote + done, longest);
}
