/* What a copy may cross, and what not: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract_files.h"

#include "device/host/host.h"

#include <string.h>

enum { TRIES = 16, SEED = 21, BLANK = 200 };

struct pair { /* bytes side by side: [lower, upper) and [upper, upper + length) */
    uint64_t lower, upper, length;
};

/* Two of these places that lie side by side; false if there are none. */
static bool find_pair(const uint64_t *places, size_t count, uint64_t length, struct pair *pair) {
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            if (places[i] + length == places[k]) {
                *pair = (struct pair){places[i], places[k], length};
                return true;
            }
        }
    }
    return false;
}

static struct nvlxi_lane *make_lane(void) {
    struct nvlxi_lane *lane;
    OK(me.ops->lane_create(me.device, 0, 0, &lane));
    return lane;
}

static int copy(struct nvlxi_lane *lane, uint64_t destination, uint64_t source, uint64_t length) {
    const struct nvlxi_copy one = {.destination = destination, .source = source, .length = length};
    return me.ops->copy(lane, &one);
}

static int copy_two(struct nvlxi_lane *lane, struct nvlxi_fragment first, struct nvlxi_fragment second) {
    const struct nvlxi_fragment list[] = {first, second};
    return me.ops->copy_list(lane, list, 2, 0, 0);
}

/* What crosses the border in the middle of the pair is refused, alone and in a list, as source and as destination;
 * nothing of it is copied, and the lane goes on. `other` is twice as long. */
static void expect_border(const struct pair *pair, uint64_t other) {
    const uint64_t length = pair->length, half = length / 2;
    struct nvlxi_lane *lane = make_lane();
    fill(pair->lower, length, SEED);
    fill(pair->upper, length, SEED);
    fill(other, 2 * length, BLANK);
    GIVES(NVLX_EDEVICE, copy(lane, other, pair->lower, 2 * length));
    GIVES(NVLX_EDEVICE, copy(lane, other, pair->upper - 1, 2));
    GIVES(NVLX_EDEVICE, copy(lane, pair->lower, other, 2 * length));
    GIVES(NVLX_EDEVICE, copy(lane, pair->upper - half, other, length));
    GIVES(NVLX_EDEVICE, copy_two(lane, (struct nvlxi_fragment){other, pair->lower + half, length},
                                 (struct nvlxi_fragment){other + length, pair->lower + half, length}));
    GIVES(NVLX_EDEVICE, copy_two(lane, (struct nvlxi_fragment){pair->lower + half, other, length},
                                 (struct nvlxi_fragment){pair->lower + half, other + length, length}));
    GIVES(NVLX_ERANGE, me.ops->memcpy(me.device, (void *)(uintptr_t)other, (void *)(uintptr_t)(pair->upper - 1), 2));
    while (me.ops->lane_query(lane) == NVLX_EAGAIN)
        continue;
    assert_int_equal(wrong(other, 2 * length, BLANK), 0);
    assert_int_equal(wrong(pair->lower, length, SEED), 0);
    assert_int_equal(wrong(pair->upper, length, SEED), 0);
    OK(copy(lane, other, pair->lower, length));
    OK(copy_two(lane, (struct nvlxi_fragment){other + length, pair->upper, half},
                (struct nvlxi_fragment){other + length + half, pair->upper + half, length - half}));
    while (me.ops->lane_query(lane) == NVLX_EAGAIN)
        continue;
    assert_int_equal(wrong(other, length, SEED), 0);
    assert_int_equal(wrong(other + length, length, SEED), 0);
    me.ops->lane_destroy(lane);
}

/* Whether the device copies over this border: all of it, then. What CUDA says of reservations differs from one to the
 * next; the host backend refuses. */
static bool is_crossed(const struct pair *pair, uint64_t other) {
    struct nvlxi_lane *lane = make_lane();
    fill(pair->lower, pair->length, SEED);
    fill(pair->upper, pair->length, SEED);
    const bool crossed = copy(lane, other, pair->lower, 2 * pair->length) == 0;
    while (me.ops->lane_query(lane) == NVLX_EAGAIN)
        continue;
    me.ops->lane_destroy(lane);
    if (crossed) {
        assert_int_equal(wrong(other, pair->length, SEED), 0);
        assert_int_equal(wrong(other + pair->length, pair->length, SEED), 0);
    }
    return crossed;
}

/* Tells whether two allocations of this length lay side by side. */
static bool check_allocations(uint32_t kind, uint64_t length) {
    uint64_t places[TRIES], other = allocate(0, 2 * length);
    struct pair pair;
    for (size_t i = 0; i < TRIES; i++)
        places[i] = allocate_kind(kind, 0, length, 0);
    const bool found = find_pair(places, TRIES, length, &pair);
    const bool lenient = kind == NVLXI_KIND_VMM && me.ops != &nvlxi_device_host;
    if (found && lenient && is_crossed(&pair, other))
        print_message("this device copies over the border of two reservations\n");
    else if (found)
        expect_border(&pair, other);
    for (size_t i = 0; i < TRIES; i++)
        release(places[i]);
    release(other);
    return found;
}

static void copies_end_with_their_allocation(void **state) {
    (void)state;
    static const uint64_t lengths[] = {512, 3 * 512, 512 * KIB, 2 * MIB};
    size_t found = 0;
    for (size_t i = 0; i < NVLXI_COUNT(lengths); i++)
        found += check_allocations(NVLXI_KIND_CUDA_MALLOC, lengths[i]);
    assert_int_not_equal(found, 0);
}

/* Chunks of one reservation may be crossed: see "copies cross own chunks". */
static void copies_end_with_their_reservation(void **state) {
    (void)state;
    if (!check_allocations(NVLXI_KIND_VMM, CHUNK))
        print_message("no two reservations lie side by side here\n");
}

/* Nor do they cross what is not there of a reservation: only the host backend takes chunks out on demand. */
static void copies_end_at_holes(void **state) {
    (void)state;
    if (me.ops != &nvlxi_device_host) {
        print_message("holes are for the host backend\n");
        return;
    }
    const uint64_t four = allocate_kind(NVLXI_KIND_VMM, 0, 4 * CHUNK, CHUNK), hole = four + 2 * CHUNK,
                   other = allocate(0, 4 * CHUNK);
    const struct nvlxi_fragment wide = {other, four, 4 * CHUNK}, over = {hole - 8, other, CHUNK + 16};
    struct nvlxi_lane *lane = make_lane();
    fill(four, 4 * CHUNK, SEED);
    OK(copy(lane, other, four, 4 * CHUNK));
    while (me.ops->lane_query(lane) == NVLX_EAGAIN)
        continue;
    assert_false(nvlxi_host_take_out((void *)(uintptr_t)four));
    assert_true(nvlxi_host_take_out((void *)(uintptr_t)hole));
    GIVES(NVLX_EDEVICE, copy(lane, other, four, 4 * CHUNK));
    GIVES(NVLX_EDEVICE, copy(lane, four, other, 4 * CHUNK));
    GIVES(NVLX_EDEVICE, copy(lane, other, hole - 1, 2));
    GIVES(NVLX_EDEVICE, copy(lane, other, hole + CHUNK - 1, 2));
    GIVES(NVLX_EDEVICE, copy_two(lane, (struct nvlxi_fragment){other, four, CHUNK}, wide));
    GIVES(NVLX_EDEVICE, copy_two(lane, (struct nvlxi_fragment){other, four, CHUNK}, over));
    GIVES(NVLX_ERANGE, me.ops->memcpy(me.device, (void *)(uintptr_t)other, (void *)(uintptr_t)(hole - 1), 2));
    OK(copy(lane, other, four, 2 * CHUNK));
    OK(copy(lane, other + 3 * CHUNK, hole + CHUNK, CHUNK));
    OK(copy(lane, other, four + CHUNK - 1, 2));
    while (me.ops->lane_query(lane) == NVLX_EAGAIN)
        continue;
    me.ops->lane_destroy(lane);
    release(four);
    release(other);
}

static void chunks_tell_their_reservation(void **state) {
    (void)state;
    uint64_t one = allocate_kind(NVLXI_KIND_VMM, 0, 2 * CHUNK, CHUNK),
             other = allocate_kind(NVLXI_KIND_VMM, 0, CHUNK, 0);
    const struct nvlxi_allocation first = resolve(one), second = resolve(one + CHUNK + 1), third = resolve(other);
    assert_int_not_equal(first.serial, second.serial);
    assert_int_equal(first.reservation, one);
    assert_int_equal(second.reservation, one);
    assert_int_equal(third.reservation, other);
    release(one);
    release(other);
}

/* Mappings of a peer's segments, where two of them lie side by side. */
static void copies_end_with_their_mapping(void **state) {
    (void)state;
    enum { LENGTH = 2 * MIB };
    uint64_t places[TRIES], other = allocate(0, 2 * LENGTH);
    struct pair pair;
    for (size_t i = 0; i < TRIES; i++) {
        const struct nvlxi_segment_record record = peer_segment(LENGTH, SEED);
        places[i] = map(0, &record);
    }
    const bool found = find_pair(places, TRIES, LENGTH, &pair);
    if (found)
        expect_border(&pair, other);
    for (size_t i = 0; i < TRIES; i++)
        unmap(0, places[i]);
    release(other);
    if (!found)
        print_message("no two mappings lie side by side here\n");
}

const struct contract_case border_cases[] = {
    {"copies end with their allocation", copies_end_with_their_allocation},
    {"copies end with their reservation", copies_end_with_their_reservation},
    {"copies end at holes", copies_end_at_holes},
    {"chunks tell their reservation", chunks_tell_their_reservation},
    {"copies end with their mapping", copies_end_with_their_mapping},
};
const size_t border_case_count = NVLXI_COUNT(border_cases);
