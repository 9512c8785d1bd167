/* The contract of copy kernels: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract.h"

#include <string.h>

/* What a kernel is told of its fragments: nothing, about what is so, and what is far from it. */
static const uint64_t averages[] = {0, 2500, 9000, 70000, UINT64_MAX};

enum { FRAGMENTS_MAX = 4096 };

static struct copy_desk make_desk(void) {
    return copy_desk_make(FRAGMENTS_MAX * sizeof(struct nvlxi_fragment));
}

static struct nvlxi_fragment *fragments_in(const struct copy_desk *desk) {
    return desk->list;
}

/* The n-th fragment, of its own length and alignment, which a third of them share with their source. */
static void lay(const struct copy_desk *desk, uint64_t n, uint64_t *at) {
    const uint64_t length = 1 + n * n % 5003, offset = n * 7919 % (COPY_DESK_BYTES / 2);
    *at += n % 19;
    const uint64_t source = n % 3 ? offset : offset - offset % 16 + *at % 16;
    fragments_in(desk)[n] = (struct nvlxi_fragment){desk->to + *at, desk->from + source, length};
    copy_desk_expect(desk, desk->to + *at, desk->from + source, length);
    *at += length;
}

/* The lists of a kernel, one behind the other. Their fragments come from anywhere, and go one behind the other, with
 * gaps. */
static void put_lists(const struct copy_desk *desk, struct nvlxi_part parts[NVLXI_PARTS_MAX]) {
    const uint32_t counts[] = {3, 0, 17, 300, 1};
    uint64_t n = 0, at = 0;
    copy_desk_begin(desk);
    for (size_t i = 0; i < NVLXI_PARTS_MAX; i++) {
        const uint32_t count = counts[i % NVLXI_COUNT(counts)];
        parts[i] = (struct nvlxi_part){fragments_in(desk) + n, count};
        for (uint64_t end = n + count; n < end; n++)
            lay(desk, n, &at);
    }
    assert_true(n <= FRAGMENTS_MAX);
}

static void run_kernel(const struct copy_desk *desk, struct nvlxi_kernel kernel) {
    OK(me.ops->copy_kernel(desk->lane, &kernel));
    OK(me.ops->event_record(desk->lane, desk->event));
}

/* Whether a kernel moves the bytes of all lists, and none around them. */
static void check_kernel(const struct copy_desk *desk, uint32_t sms, uint64_t average) {
    struct nvlxi_part parts[NVLXI_PARTS_MAX];
    put_lists(desk, parts);
    run_kernel(desk,
               (struct nvlxi_kernel){.parts = parts, .part_count = NVLXI_PARTS_MAX, .sms = sms, .average = average});
    memset(parts, 0, sizeof parts); /* has been read */
    copy_desk_finish(desk);
}

static void kernels_copy_all_their_parts(void **state) {
    (void)state;
    struct nvlxi_gpu_limits limits;
    const struct copy_desk desk = make_desk();
    OK(me.ops->limits(me.device, 0, &limits));
    assert_true(limits.sms > 0);
    for (size_t i = 0; i < NVLXI_COUNT(averages); i++) {
        check_kernel(&desk, 1, averages[i]);
        check_kernel(&desk, limits.sms, averages[i]);
    }
    copy_desk_free(&desk);
}

/* A kernel that overlaps the long one before it, and one behind that: their event stands for all three. */
static void kernels_that_overlap_end_in_order(void **state) {
    (void)state;
    enum { LONG = 256 * MIB };
    const struct copy_desk desk = make_desk();
    const uint64_t from = allocate(0, LONG), to = allocate(0, LONG);
    uint8_t got[16], expected[16];
    for (size_t round = 0; round < NVLXI_COUNT(averages); round++) {
        const uint8_t seed = (uint8_t)(11 + round);
        fill(from + LONG - sizeof got, sizeof got, seed);
        fragments_in(&desk)[0] = (struct nvlxi_fragment){to, from, LONG};
        fragments_in(&desk)[1] = (struct nvlxi_fragment){desk.to, desk.from, 1};
        struct nvlxi_part part = {fragments_in(&desk), 1};
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
    copy_desk_free(&desk);
}

static void kernels_may_have_nothing_to_do(void **state) {
    (void)state;
    const struct copy_desk desk = make_desk();
    const struct nvlxi_part parts[] = {{fragments_in(&desk), 0}, {fragments_in(&desk), 0}};
    for (size_t i = 0; i < NVLXI_COUNT(averages); i++) {
        run_kernel(&desk, (struct nvlxi_kernel){
                              .parts = parts, .part_count = NVLXI_COUNT(parts), .sms = 1, .average = averages[i]});
        wait_for(desk.event);
    }
    copy_desk_free(&desk);
}

const struct contract_case kernel_cases[] = {
    {"kernels copy all their parts", kernels_copy_all_their_parts},
    {"kernels that overlap end in order", kernels_that_overlap_end_in_order},
    {"kernels may have nothing to do", kernels_may_have_nothing_to_do},
};
const size_t kernel_case_count = NVLXI_COUNT(kernel_cases);
