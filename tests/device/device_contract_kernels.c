/* The contract of copy kernels: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract.h"

#include <stdlib.h>
#include <string.h>

/* What a kernel is told of its fragments: nothing, about what is so, and what is far from it. */
static const uint64_t averages[] = {0, 2500, 9000, 70000, UINT64_MAX};

enum { SEED = 11, BLANK = 200, BYTES = 4 * MIB, FRAGMENTS_MAX = 4096 };

/* The lists of a kernel, one behind the other in `memory`. Their fragments come from anywhere in `from`, and go to
 * `to`, one after the other, with gaps; `expected` is what `to`, filled with BLANK, then holds. */
struct desk {
    struct nvlxi_lane *lane;
    struct nvlxi_event *event;
    struct nvlxi_fragment *memory;
    struct nvlxi_part parts[NVLXI_PARTS_MAX];
    uint64_t from, to;
    uint8_t *expected;
};

static struct desk desk_make(void) {
    struct desk desk = {.from = allocate(0, BYTES), .to = allocate(0, BYTES), .expected = malloc(BYTES)};
    void *memory;
    assert_non_null(desk.expected);
    OK(me.ops->lane_create(me.device, 0, 0, &desk.lane));
    OK(me.ops->event_create(me.device, 0, &desk.event));
    OK(me.ops->list_alloc(me.device, FRAGMENTS_MAX * sizeof *desk.memory, &memory));
    desk.memory = memory;
    fill(desk.from, BYTES, SEED);
    return desk;
}

static void desk_free(const struct desk *desk) {
    me.ops->list_free(me.device, desk->memory);
    me.ops->event_destroy(desk->event);
    me.ops->lane_destroy(desk->lane);
    free(desk->expected);
    release(desk->from);
    release(desk->to);
}

/* The n-th fragment, of its own length and alignment, which a third of them share with their source. */
static void lay(struct desk *desk, uint64_t n, uint64_t *at) {
    const uint64_t length = 1 + n * n % 5003, offset = n * 7919 % (BYTES / 2);
    *at += n % 19;
    const uint64_t source = n % 3 ? offset : offset - offset % 16 + *at % 16;
    desk->memory[n] = (struct nvlxi_fragment){desk->to + *at, desk->from + source, length};
    for (uint64_t i = 0; i < length; i++)
        desk->expected[*at + i] = seed_byte(SEED, source + i);
    *at += length;
}

static void put_lists(struct desk *desk) {
    const uint32_t counts[] = {3, 0, 17, 300, 1};
    uint64_t n = 0, at = 0;
    for (uint64_t i = 0; i < BYTES; i++)
        desk->expected[i] = seed_byte(BLANK, i);
    for (size_t i = 0; i < NVLXI_PARTS_MAX; i++) {
        const uint32_t count = counts[i % NVLXI_COUNT(counts)];
        desk->parts[i] = (struct nvlxi_part){desk->memory + n, count};
        for (uint64_t end = n + count; n < end; n++)
            lay(desk, n, &at);
    }
    assert_true(n <= FRAGMENTS_MAX && at <= BYTES);
}

static void run_kernel(const struct desk *desk, struct nvlxi_kernel kernel) {
    OK(me.ops->copy_kernel(desk->lane, &kernel));
    OK(me.ops->event_record(desk->lane, desk->event));
}

/* Whether a kernel moves the bytes of all lists, and none around them. */
static void check_kernel(const struct desk *desk, uint32_t sms, uint64_t average) {
    struct nvlxi_part parts[NVLXI_PARTS_MAX];
    uint8_t *got = malloc(BYTES);
    assert_non_null(got);
    fill(desk->to, BYTES, BLANK);
    memcpy(parts, desk->parts, sizeof parts);
    run_kernel(desk,
               (struct nvlxi_kernel){.parts = parts, .part_count = NVLXI_PARTS_MAX, .sms = sms, .average = average});
    memset(parts, 0, sizeof parts); /* has been read */
    wait_for(desk->event);
    OK(me.ops->memcpy(me.device, got, (void *)(uintptr_t)desk->to, BYTES));
    assert_true(memcmp(got, desk->expected, BYTES) == 0);
    free(got);
}

static void kernels_copy_all_their_parts(void **state) {
    (void)state;
    struct nvlxi_gpu_limits limits;
    struct desk desk = desk_make();
    OK(me.ops->limits(me.device, 0, &limits));
    assert_true(limits.sms > 0);
    put_lists(&desk);
    for (size_t i = 0; i < NVLXI_COUNT(averages); i++) {
        check_kernel(&desk, 1, averages[i]);
        check_kernel(&desk, limits.sms, averages[i]);
    }
    desk_free(&desk);
}

/* A kernel that overlaps the long one before it, and one behind that: their event stands for all three. */
static void kernels_that_overlap_end_in_order(void **state) {
    (void)state;
    enum { LONG = 256 * MIB };
    struct desk desk = desk_make();
    const uint64_t from = allocate(0, LONG), to = allocate(0, LONG);
    uint8_t got[16], expected[16];
    for (size_t round = 0; round < NVLXI_COUNT(averages); round++) {
        const uint8_t seed = (uint8_t)(SEED + round);
        fill(from + LONG - sizeof got, sizeof got, seed);
        desk.memory[0] = (struct nvlxi_fragment){to, from, LONG};
        desk.memory[1] = (struct nvlxi_fragment){desk.to, desk.from, 1};
        struct nvlxi_part part = {desk.memory, 1};
        struct nvlxi_kernel kernel = {.parts = &part, .part_count = 1, .sms = 1, .average = averages[round]};
        OK(me.ops->copy_kernel(desk.lane, &kernel));
        part.list++;
        kernel.overlaps = true;
        OK(me.ops->copy_kernel(desk.lane, &kernel));
        run_kernel(&desk, kernel);
        wait_for(desk.event);
        OK(me.ops->memcpy(me.device, got, (void *)(uintptr_t)(to + LONG - sizeof got), sizeof got));
        for (size_t i = 0; i < sizeof got; i++)
            expected[i] = seed_byte(seed, i);
        assert_memory_equal(got, expected, sizeof got);
    }
    release(from);
    release(to);
    desk_free(&desk);
}

static void kernels_may_have_nothing_to_do(void **state) {
    (void)state;
    struct desk desk = desk_make();
    const struct nvlxi_part parts[] = {{desk.memory, 0}, {desk.memory, 0}};
    for (size_t i = 0; i < NVLXI_COUNT(averages); i++) {
        run_kernel(&desk, (struct nvlxi_kernel){
                              .parts = parts, .part_count = NVLXI_COUNT(parts), .sms = 1, .average = averages[i]});
        wait_for(desk.event);
    }
    desk_free(&desk);
}

const struct contract_case kernel_cases[] = {
    {"kernels copy all their parts", kernels_copy_all_their_parts},
    {"kernels that overlap end in order", kernels_that_overlap_end_in_order},
    {"kernels may have nothing to do", kernels_may_have_nothing_to_do},
};
const size_t kernel_case_count = NVLXI_COUNT(kernel_cases);
