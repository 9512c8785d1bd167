/* Ops in the same two pieces, or in rounds of several peers', against a check that is written as plainly as can be:
 * right ones, and such with one or two words that are not. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "transfer/validate/validate_batch.h"

#define OPS    200
#define ROUNDS 100000
#define FEW    32 /* by so many ops a check may stop early */

static struct nvlxi_batch batches[NVLXI_ROUND_MAX]; /* the first `round` */
static size_t round_length = 1;
static struct nvlx_op ops[OPS];
static unsigned seed = 1;

static uint64_t any(uint64_t below) {
    return (((uint64_t)rand_r(&seed) << 31) ^ (uint64_t)rand_r(&seed)) % below;
}

/* A round of batches that differ in everything, or in little. */
static void begin_round(size_t length) {
    round_length = length;
    for (size_t i = 0; i < length; i++)
        batches[i] = (struct nvlxi_batch){.opcode = i % 3 ? NVLX_OP_READ : NVLX_OP_WRITE,
                                          .peer = (const void *)(0x7f1200345678 + i / 2 * 64),
                                          .local_start = 0x7f0000000200 + i % 5 * 0x100000000,
                                          .local_size = 0x40000e00 + i,
                                          .remote_start = 0x7e0000001000 + i % 4 * 0x1000,
                                          .remote_size = 0x100001 + i,
                                          .offset = 0x5000000000 * i};
}

/* The batch of op `number` of a list that begins with the first one. */
static const struct nvlxi_batch *batch_of(size_t number) {
    if (round_length == 0)
        FAIL("a round of no batches");
    return &batches[number % round_length];
}

static void make_right(size_t index, size_t first) {
    const struct nvlxi_batch *same = batch_of(index - first);
    const uint64_t length = 1 + any(any(8) ? 5000 : same->remote_size);
    ops[index] = (struct nvlx_op){.opcode = same->opcode,
                                  .peer = (struct nvlx_peer *)(uintptr_t)same->peer,
                                  .local = (void *)(uintptr_t)(same->local_start + any(same->local_size - length + 1)),
                                  .remote = same->remote_start + any(same->remote_size - length + 1),
                                  .length = length};
}

static bool lies_in(uint64_t start, uint64_t size, uint64_t address, uint64_t length) {
    return address >= start && address - start <= size && length <= size - (address - start);
}

static bool is_right(const struct nvlx_op *op, const struct nvlxi_batch *same) {
    return op->opcode == same->opcode && op->flags == 0 && op->peer == same->peer && op->arg == 0 && op->length > 0 &&
           lies_in(same->local_start, same->local_size, (uint64_t)(uintptr_t)op->local, op->length) &&
           lies_in(same->remote_start, same->remote_size, op->remote, op->length);
}

/* Changes a word of an op: to a value at an edge, by a bit, or by little. */
static void spoil(struct nvlx_op *op, const struct nvlxi_batch *same) {
    const uint64_t edges[] = {0,
                              1,
                              UINT64_MAX,
                              UINT64_MAX - 1,
                              (uint64_t)1 << 63,
                              ((uint64_t)1 << 63) - 1,
                              same->local_start - 1,
                              same->local_start + same->local_size,
                              same->local_start + same->local_size - op->length + 1,
                              same->remote_start - 1,
                              same->remote_start + same->remote_size,
                              same->remote_start + same->remote_size - op->length + 1,
                              same->remote_size + 1};
    uint64_t words[6];
    memcpy(words, op, sizeof words);
    uint64_t *word = &words[any(6)];
    const uint64_t kind = any(3);
    *word = kind == 0 ? edges[any(COUNT(edges))] : kind == 1 ? *word ^ (uint64_t)1 << any(64) : *word + any(5) - 2;
    memcpy(op, words, sizeof words);
}

typedef size_t (*check_function)(const struct nvlxi_batch *batches, size_t round, const struct nvlx_op *ops,
                                 size_t count, uint64_t *remote, uint64_t *longest);

/* `late`: by how many ops the check may stop before the first wrong one. */
static void expect_check(check_function function, size_t first, size_t count, size_t late) {
    uint64_t remote[OPS], longest = 1 << 10, expected = 1 << 10;
    size_t right = 0;
    while (right < count && is_right(&ops[first + right], batch_of(right)))
        right++;
    const size_t got = function(batches, round_length, &ops[first], count, remote, &longest);
    EXPECT(got <= right && right - got <= late);
    for (size_t i = 0; i < got; i++) {
        EQUAL(ops[first + i].remote + batch_of(i)->offset, remote[i]);
        expected |= ops[first + i].length - 1;
    }
    EQUAL(expected, longest);
}

static void wrong_ops_are_found(void) {
    for (int round = 0; round < ROUNDS; round++) {
        const size_t first = any(OPS), count = any(OPS - first + 1);
        if (round % 50 == 0) /* half of all are of one batch */
            begin_round(round % 100 ? 1 : 1 + any(NVLXI_ROUND_MAX));
        for (size_t i = first; i < OPS && (round % 50 == 0 || round_length > 1); i++)
            make_right(i, first);
        const size_t index = any(OPS);
        const struct nvlx_op kept = ops[index];
        for (uint64_t times = any(3); times; times--)
            spoil(&ops[index], batch_of(index + OPS * round_length - first));
        expect_check(nvlxi_validate_batch_plain, first, count, 0);
        expect_check(nvlxi_validate_batch, first, count, FEW - 1);
        ops[index] = kept;
        if (round_length == 1)
            make_right(any(OPS), 0);
    }
}

/* An op whose offsets and length are right each, as signed numbers, and too much together. */
static void sums_that_wrap_are_found(void) {
    for (size_t round = 1; round <= NVLXI_ROUND_MAX; round++) {
        begin_round(round);
        for (size_t i = 0; i < OPS; i++)
            make_right(i, 0);
        for (size_t index = 40; index < 40 + round; index++)
            for (uint64_t less = 0; less < 3; less++) {
                const struct nvlx_op kept = ops[index];
                ops[index].local = (void *)(uintptr_t)(batch_of(index)->local_start + INT64_MAX - less);
                ops[index].remote = batch_of(index)->remote_start + INT64_MAX;
                ops[index].length = (uint64_t)1 << 63;
                expect_check(nvlxi_validate_batch_plain, 0, OPS, 0);
                expect_check(nvlxi_validate_batch, 0, OPS, FEW - 1);
                ops[index] = kept;
            }
    }
}

/* What is right to the end is checked to the end, whatever its number. */
static void right_ops_are_all_checked(void) {
    for (size_t round = 1; round <= NVLXI_ROUND_MAX; round++) {
        begin_round(round);
        for (size_t first = 0; first < 3; first++) {
            for (size_t i = first; i < OPS; i++)
                make_right(i, first);
            for (size_t count = 0; count + first <= OPS; count++)
                expect_check(nvlxi_validate_batch, first, count, 0);
        }
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"wrong_ops_are_found", wrong_ops_are_found},
                                        {"sums_that_wrap_are_found", sums_that_wrap_are_found},
                                        {"right_ops_are_all_checked", right_ops_are_all_checked},
                                        {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 60);
}
