/* Finds ops that lie as rows do, several at a time. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/rows/series.h"

#include "base/base.h"
#include "transfer/validate/validate_batch.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

static bool is_alike(const struct nvlx_op *op, const struct nvlx_op *other) {
    return !((op->length ^ other->length) | (op->opcode ^ other->opcode) |
             ((uintptr_t)op->peer ^ (uintptr_t)other->peer) | other->flags | other->arg);
}

/* What the first two ops say. */
static struct nvlxi_series begin(const struct nvlx_op *op, size_t left) {
    struct nvlxi_series series = {.count = 1};
    if (left < 2 || op->flags || op->arg || !op->length)
        return series;
    series.local_pitch = nvlxi_series_local(op + 1) - nvlxi_series_local(op);
    series.remote_pitch = op[1].remote - op->remote;
    if (nvlxi_series_ascends(&series, op->length) && is_alike(op, op + 1))
        series.count = 2;
    return series;
}

/* Adds the ops that go on, up to `end` of them in all. */
static void extend(struct nvlxi_series *series, const struct nvlx_op *op, size_t end) {
    for (; series->count < end; series->count++) {
        const struct nvlx_op *next = op + series->count;
        if (!is_alike(op, next) || nvlxi_series_local(next) != nvlxi_series_local(next - 1) + series->local_pitch ||
            next->remote != (next - 1)->remote + series->remote_pitch)
            break;
    }
}

struct nvlxi_series nvlxi_series_find_plain(const struct nvlx_op *op, size_t left) {
    struct nvlxi_series series = begin(op, left);
    if (series.count > 1)
        extend(&series, op, left);
    return series;
}

#ifdef __x86_64__

/* Two ops are twelve words, three registers of four (as in validate_batch.c):
 *
 *   0: head 0, peer 0, local 0, remote 0     1: length 0, arg 0, head 1, peer 1     2: local 1, remote 1, length 1, arg
 * 1
 *
 * From two ops to the next two, only the addresses change, by two pitches. So it is known what each word must be: where
 * it is not, a bit of the exclusive or is left. Of a block of ops all are or-ed, and only the outcome is looked at. */
#define BLOCK 32 /* ops; even */
#define FEW   8  /* ops: a shorter series is not worth to be prepared for */

struct pattern { /* what the next two ops must be, and the steps to those behind them */
    __m256i word[3];
    __m256i first_step, second_step;
};

__attribute__((target("avx2"))) static __m256i four(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    return _mm256_setr_epi64x((long long)a, (long long)b, (long long)c, (long long)d);
}

/* Of the ops from the `count`-th on. */
__attribute__((target("avx2"))) static struct pattern pattern_of(const struct nvlxi_series *series,
                                                                 const struct nvlx_op *op) {
    const uint64_t peer = (uintptr_t)op->peer, local = nvlxi_series_local(op) + series->count * series->local_pitch,
                   remote = op->remote + series->count * series->remote_pitch;
    return (struct pattern){{four(op->opcode, peer, local, remote), four(op->length, 0, op->opcode, peer),
                             four(local + series->local_pitch, remote + series->remote_pitch, op->length, 0)},
                            four(0, 0, 2 * series->local_pitch, 2 * series->remote_pitch),
                            four(2 * series->local_pitch, 2 * series->remote_pitch, 0, 0)};
}

__attribute__((target("avx2"))) static inline bool matches_block(struct pattern *pattern, const struct nvlx_op *op) {
    __m256i wrong = _mm256_setzero_si256();
    for (size_t i = 0; i < BLOCK; i += 2, op += 2) {
        const __m256i *words = (const void *)op;
        __builtin_prefetch(op + NVLXI_AHEAD);
        __builtin_prefetch(op + NVLXI_AHEAD + 1);
        const __m256i first = _mm256_xor_si256(_mm256_loadu_si256(&words[0]), pattern->word[0]),
                      middle = _mm256_xor_si256(_mm256_loadu_si256(&words[1]), pattern->word[1]),
                      second = _mm256_xor_si256(_mm256_loadu_si256(&words[2]), pattern->word[2]);
        wrong = _mm256_or_si256(wrong, _mm256_or_si256(_mm256_or_si256(first, middle), second));
        pattern->word[0] = _mm256_add_epi64(pattern->word[0], pattern->first_step);
        pattern->word[2] = _mm256_add_epi64(pattern->word[2], pattern->second_step);
    }
    return _mm256_testz_si256(wrong, wrong);
}

__attribute__((target("avx2"))) static void extend_blocks(struct nvlxi_series *series, const struct nvlx_op *op,
                                                          size_t end) {
    struct pattern pattern = pattern_of(series, op);
    while (end - series->count >= BLOCK && matches_block(&pattern, op + series->count))
        series->count += BLOCK;
}

#endif

struct nvlxi_series nvlxi_series_find(const struct nvlx_op *op, size_t left) {
    struct nvlxi_series series = begin(op, left);
    if (series.count == 1)
        return series;
#ifdef __x86_64__
    extend(&series, op, nvlxi_min(left, FEW));
    if (series.count == FEW && left - FEW >= BLOCK && __builtin_cpu_supports("avx2"))
        extend_blocks(&series, op, left);
    else if (series.count < FEW)
        return series;
#endif
    extend(&series, op, left);
    return series;
}
