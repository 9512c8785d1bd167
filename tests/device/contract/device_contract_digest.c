/* The contract of digests: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/xxh64.h"

enum { SEED = 5, LEAVES_MAX = 1024, CANARY = 0xca };

struct desk {
    struct nvlxi_lane *lane;
    struct {
        struct nvlxi_digest_span scratch[LEAVES_MAX];
        uint64_t digests[LEAVES_MAX];
    } * paper;
};

static struct desk desk_make(int gpu) {
    struct desk desk;
    void *memory;
    OK(me.ops->lane_create(me.device, gpu, 0, &desk.lane));
    OK(me.ops->list_alloc(me.device, sizeof *desk.paper, &memory));
    desk.paper = memory;
    return desk;
}

static void desk_free(const struct desk *desk) {
    me.ops->list_free(me.device, desk->paper);
    me.ops->lane_destroy(desk->lane);
}

static void wait_for_lane(const struct desk *desk) {
    int code;
    while ((code = me.ops->lane_query(desk->lane)) == NVLX_EAGAIN)
        continue;
    OK(code);
}

static struct nvlxi_leaves leaves_of(const struct desk *desk, const struct nvlxi_digest_span *spans, uint32_t count) {
    return (struct nvlxi_leaves){
        .spans = spans, .span_count = count, .digests = desk->paper->digests, .scratch = desk->paper->scratch};
}

/* The digests of a span, which holds the seed's bytes from `from` on. Returns how many there are. */
static uint64_t check_span(const struct nvlxi_digest_span *span, const uint64_t *digests, uint8_t seed, uint64_t from) {
    const uint64_t count = nvlxi_leaf_count(span->length);
    uint8_t leaf[NVLXI_LEAF_BYTES];
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t bytes = nvlxi_min(sizeof leaf, span->length - i * sizeof leaf);
        for (uint64_t k = 0; k < bytes; k++)
            leaf[k] = seed_byte(seed, from + i * sizeof leaf + k);
        if (digests[i] != nvlxi_xxh64(leaf, bytes))
            FAIL("leaf %llu of %llu bytes at 0x%llx", (unsigned long long)i, (unsigned long long)span->length,
                 (unsigned long long)span->address);
    }
    return count;
}

/* That spans are digested, of memory that has the seed's bytes from `base` on, and nothing else is written. */
static void expect_spans(const struct desk *desk, const struct nvlxi_digest_span *spans, uint32_t span_count,
                         uint8_t seed, uint64_t base) {
    struct nvlxi_digest_span *own = malloc(span_count * sizeof *own);
    uint8_t canary[LEAVES_MAX * sizeof(uint64_t)];
    uint64_t done = 0;
    assert_non_null(own);
    memcpy(own, spans, span_count * sizeof *own);
    memset(canary, CANARY, sizeof canary);
    memset(desk->paper, CANARY, sizeof *desk->paper);
    const struct nvlxi_leaves leaves = leaves_of(desk, own, span_count);
    OK(me.ops->digest(desk->lane, &leaves));
    memset(own, 0, span_count * sizeof *own); /* they are read before the call returns */
    wait_for_lane(desk);
    for (uint32_t i = 0; i < span_count; i++)
        done += check_span(&spans[i], desk->paper->digests + done, seed, spans[i].address - base);
    assert_memory_equal(desk->paper->digests + done, canary, (LEAVES_MAX - done) * sizeof(uint64_t));
    free(own);
}

/* The same of one, that has the bytes from `from` on. */
static void expect_digests(const struct desk *desk, uint64_t address, uint64_t length, uint8_t seed, uint64_t from) {
    expect_spans(desk, &(struct nvlxi_digest_span){address, length}, 1, seed, address - from);
}

static void digests_of_any_length_and_alignment(void **state) {
    (void)state;
    static const uint64_t lengths[] = {1, 3, 4, 7, 8, 31, 32, 33, 511, 512, 513, 1024 + 31, 16383, 16384, 16385};
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        const uint64_t size = 140 * NVLXI_LEAF_BYTES, address = allocate(gpu, size);
        struct desk desk = desk_make(gpu);
        fill(address, size, SEED);
        for (uint64_t shift = 0; shift < 17; shift++) {
            for (size_t i = 0; i < NVLXI_COUNT(lengths); i++)
                expect_digests(&desk, address + shift, lengths[i], SEED, shift);
            for (uint64_t leaves = 2; leaves < 140; leaves += 23)
                expect_digests(&desk, address + shift, leaves * NVLXI_LEAF_BYTES + 100 * shift, SEED, shift);
            expect_digests(&desk, address + size - 1 - shift, 1 + shift, SEED, size - 1 - shift);
        }
        desk_free(&desk);
        release(address);
    }
}

static uint64_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Spans of any kind, some of one byte, some across leaves, one beside the other, over each other, and in any order. */
static void digests_of_many_spans(void **state) {
    (void)state;
    const uint64_t size = 40 * NVLXI_LEAF_BYTES;
    static struct nvlxi_digest_span spans[LEAVES_MAX];
    uint64_t random = 9;
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        const uint64_t address = allocate(gpu, size);
        struct desk desk = desk_make(gpu);
        fill(address, size, SEED);
        for (uint32_t round = 0; round < 12; round++) {
            const uint64_t longest = round % 4 == 0 ? 1 : round % 4 == 1 ? 100 : 3 * NVLXI_LEAF_BYTES;
            uint32_t count = 0;
            for (uint64_t leaves = 0; leaves + 4 <= LEAVES_MAX; count++) {
                const uint64_t length = 1 + next_random(&random) % longest;
                uint64_t offset = next_random(&random) % (size - length);
                if (round % 2)
                    offset -= offset % 8;
                if (longest > 100 && count % 3 == 0)
                    offset = 0;
                spans[count] = (struct nvlxi_digest_span){address + offset, length};
                leaves += nvlxi_leaf_count(length);
            }
            expect_spans(&desk, spans, round < 4 ? round + 1 : count, SEED, address);
        }
        desk_free(&desk);
        release(address);
    }
}

static void digests_take_their_turn_in_the_lane(void **state) {
    (void)state;
    const uint64_t length = 2 * MIB, to = allocate(0, length), from = allocate(0, length);
    struct desk desk = desk_make(0);
    for (uint8_t round = 0; round < 10; round++) {
        const struct nvlxi_copy copy = {.destination = to, .source = from, .length = length};
        fill(from, length, round);
        OK(me.ops->copy(desk.lane, &copy));
        expect_digests(&desk, to, length, round, 0);
    }
    desk_free(&desk);
    release(to);
    release(from);
}

/* Two allocations that adjoin: the upper one goes on with the seed's bytes where the lower one ends. */
static void expect_across(const struct desk *desk, uint64_t lower, uint64_t size) {
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    for (uint64_t i = 0; i < size; i++)
        bytes[i] = seed_byte(SEED, size + i);
    fill(lower, size, SEED);
    OK(me.ops->memcpy(me.device, (void *)(uintptr_t)(lower + size), bytes, size));
    expect_digests(desk, lower + 500, 2 * size - 1000, SEED, 500);
    free(bytes);
}

static void digests_cross_borders(void **state) {
    (void)state;
    enum { TRIES = 16 };
    const uint64_t size = 2 * MIB, chunks = allocate_kind(NVLXI_KIND_VMM, 0, 3 * size, size);
    uint64_t places[TRIES];
    size_t found = 0;
    struct desk desk = desk_make(0);
    fill(chunks, 3 * size, SEED);
    expect_digests(&desk, chunks + 100, 3 * size - 200, SEED, 100);
    release(chunks);
    for (size_t i = 0; i < TRIES; i++)
        places[i] = allocate(0, size);
    for (size_t i = 0; i < TRIES * TRIES; i++)
        if (places[i / TRIES] + size == places[i % TRIES]) {
            expect_across(&desk, places[i / TRIES], size);
            found++;
        }
    assert_int_not_equal(found, 0);
    for (size_t i = 0; i < TRIES; i++)
        release(places[i]);
    desk_free(&desk);
}

static void digests_of_mappings(void **state) {
    (void)state;
    const uint64_t length = 2 * MIB + 4097;
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        struct nvlxi_segment_record record = peer_segment(length, SEED);
        const uint64_t address = map(gpu, &record);
        struct desk desk = desk_make(gpu);
        expect_digests(&desk, address, length, SEED, 0);
        expect_digests(&desk, address + 77, length - 77, SEED, 77);
        desk_free(&desk);
        unmap(gpu, address);
    }
}

/* Alone and among others: the error names it, and nothing is digested. */
static void refuse_span(const struct desk *desk, uint64_t good, struct nvlxi_digest_span bad) {
    struct nvlxi_digest_span spans[] = {{good, 100}, {good + 7, 20000}, bad, {good, 1}};
    char words[64];
    uint8_t canary[sizeof *desk->paper];
    memset(canary, CANARY, sizeof canary);
    memset(desk->paper, CANARY, sizeof *desk->paper);
    for (uint32_t before = 0; before <= 2; before += 2) {
        const struct nvlxi_leaves leaves = leaves_of(desk, spans + 2 - before, before ? 4 : 1);
        snprintf(words, sizeof words, "span %u, %llu bytes at 0x%llx", before, (unsigned long long)bad.length,
                 (unsigned long long)bad.address);
        GIVES(NVLX_EDEVICE, me.ops->digest(desk->lane, &leaves));
        assert_non_null(strstr(nvlx_last_error(), words));
    }
    wait_for_lane(desk);
    assert_memory_equal(desk->paper, canary, sizeof canary);
}

/* On CUDA it would cost the context. */
static void what_the_gpu_does_not_have_is_refused(void **state) {
    (void)state;
    if (me.ops != &nvlxi_device_host) {
        print_message("SKIP: such a kernel costs the GPU's context\n");
        skip();
    }
    need_two_gpus();
    struct desk desk = desk_make(0);
    const uint64_t size = 2 * MIB, other = allocate(1, size), good = allocate(0, size), freed = allocate(0, size);
    release(freed);
    const uint64_t bad[] = {other, freed, (uint64_t)(uintptr_t)&desk};
    for (size_t i = 0; i < NVLXI_COUNT(bad); i++)
        refuse_span(&desk, good, (struct nvlxi_digest_span){bad[i], 1});
    refuse_span(&desk, good, (struct nvlxi_digest_span){good, 0});
    refuse_span(&desk, good, (struct nvlxi_digest_span){good, UINT64_MAX});
    const struct nvlxi_allocation last = resolve(allocate(0, size));
    struct nvlxi_allocation next = {.gpu = -1};
    if (me.ops->resolve(me.device, last.base + last.size, &next) || next.gpu != 0)
        refuse_span(&desk, good, (struct nvlxi_digest_span){last.base + last.size - 100, 101});
    release(good);
    release(last.base);
    release(other);
    desk_free(&desk);
}

const struct contract_case digest_cases[] = {
    {"digests of any length and alignment", digests_of_any_length_and_alignment},
    {"digests of many spans", digests_of_many_spans},
    {"digests take their turn in the lane", digests_take_their_turn_in_the_lane},
    {"digests cross borders", digests_cross_borders},
    {"digests of mappings", digests_of_mappings},
    {"what the GPU does not have is refused", what_the_gpu_does_not_have_is_refused},
};
const size_t digest_case_count = NVLXI_COUNT(digest_cases);
