/* The contract of digests: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract_files.h"

#include <stdlib.h>
#include <string.h>

#include "device/xxh64.h"

enum { SEED = 5, LEAVES_MAX = 1024, CANARY = 0xca };

struct desk {
    struct nvlxi_lane *lane;
    uint64_t *digests; /* LEAVES_MAX */
};

static struct desk desk_make(int gpu) {
    struct desk desk;
    void *memory;
    OK(me.ops->lane_create(me.device, gpu, 0, &desk.lane));
    OK(me.ops->list_alloc(me.device, LEAVES_MAX * sizeof *desk.digests, &memory));
    desk.digests = memory;
    return desk;
}

static void desk_free(const struct desk *desk) {
    me.ops->list_free(me.device, desk->digests);
    me.ops->lane_destroy(desk->lane);
}

static void wait_for_lane(const struct desk *desk) {
    int code;
    while ((code = me.ops->lane_query(desk->lane)) == NVLX_EAGAIN)
        continue;
    OK(code);
}

/* That [address, address + length) is digested as the seed's bytes from `from` on are, and nothing else is written. */
static void expect_digests(const struct desk *desk, uint64_t address, uint64_t length, uint8_t seed, uint64_t from) {
    const struct nvlxi_leaves leaves = {.address = address, .length = length, .digests = desk->digests};
    const uint64_t count = nvlxi_leaf_count(length);
    uint8_t leaf[NVLXI_LEAF_BYTES], canary[LEAVES_MAX * sizeof(uint64_t)];
    memset(canary, CANARY, sizeof canary);
    memset(desk->digests, CANARY, LEAVES_MAX * sizeof *desk->digests);
    OK(me.ops->digest(desk->lane, &leaves));
    wait_for_lane(desk);
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t bytes = nvlxi_min(sizeof leaf, length - i * sizeof leaf);
        for (uint64_t k = 0; k < bytes; k++)
            leaf[k] = seed_byte(seed, from + i * sizeof leaf + k);
        if (desk->digests[i] != nvlxi_xxh64(leaf, bytes))
            FAIL("leaf %llu of %llu bytes at 0x%llx", (unsigned long long)i, (unsigned long long)length,
                 (unsigned long long)address);
    }
    assert_memory_equal(desk->digests + count, canary, (LEAVES_MAX - count) * sizeof *desk->digests);
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

/* On CUDA it would cost the context. */
static void what_the_gpu_does_not_have_is_refused(void **state) {
    (void)state;
    if (me.ops != &nvlxi_device_host) {
        print_message("SKIP: such a kernel costs the GPU's context\n");
        skip();
    }
    need_two_gpus();
    struct desk desk = desk_make(0);
    const uint64_t size = 2 * MIB, other = allocate(1, size), freed = allocate(0, size);
    release(freed);
    const struct nvlxi_leaves leaves[] = {
        {other, 1, desk.digests}, {freed, 1, desk.digests}, {(uint64_t)(uintptr_t)&desk, 1, desk.digests}};
    for (size_t i = 0; i < NVLXI_COUNT(leaves); i++)
        GIVES(NVLX_EDEVICE, me.ops->digest(desk.lane, &leaves[i]));
    const struct nvlxi_allocation last = resolve(allocate(0, size));
    const struct nvlxi_leaves beyond = {last.base + last.size - 100, 101, desk.digests};
    struct nvlxi_allocation next = {.gpu = -1};
    if (me.ops->resolve(me.device, last.base + last.size, &next) || next.gpu != 0)
        GIVES(NVLX_EDEVICE, me.ops->digest(desk.lane, &beyond));
    release(last.base);
    release(other);
    desk_free(&desk);
}

const struct contract_case digest_cases[] = {
    {"digests of any length and alignment", digests_of_any_length_and_alignment},
    {"digests take their turn in the lane", digests_take_their_turn_in_the_lane},
    {"digests cross borders", digests_cross_borders},
    {"digests of mappings", digests_of_mappings},
    {"what the GPU does not have is refused", what_the_gpu_does_not_have_is_refused},
};
const size_t digest_case_count = NVLXI_COUNT(digest_cases);
