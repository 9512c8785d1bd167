/* The contract of kernels that copy blocks by id: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device_contract.h"

#include <stdlib.h>
#include <string.h>

enum { SEED = 21, BLANK = 210, BYTES = 4 * MIB, REGIONS = NVLXI_BLOCK_REGIONS_MAX, PAIRS = 600, LISTS = 1 << 16 };

/* Regions of the near side are at its begin, those of the far one follow each other in it. */
struct desk {
    struct nvlxi_lane *lane;
    struct nvlxi_event *event;
    struct nvlxi_block_region *regions;
    struct nvlxi_block_pair *pairs;
    void *lists;
    uint64_t near, far;
    uint8_t *model;
};

static struct desk desk_make(void) {
    struct desk desk = {.near = allocate(0, BYTES), .far = allocate(0, BYTES), .model = malloc(BYTES)};
    assert_non_null(desk.model);
    OK(me.ops->lane_create(me.device, 0, 0, &desk.lane));
    OK(me.ops->event_create(me.device, 0, &desk.event));
    OK(me.ops->list_alloc(me.device, LISTS, &desk.lists));
    desk.regions = desk.lists;
    desk.pairs = (void *)((char *)desk.lists + REGIONS * sizeof *desk.regions);
    assert_true(REGIONS * sizeof *desk.regions + PAIRS * sizeof *desk.pairs <= LISTS);
    return desk;
}

static void desk_free(const struct desk *desk) {
    me.ops->list_free(me.device, desk->lists);
    me.ops->event_destroy(desk->event);
    me.ops->lane_destroy(desk->lane);
    free(desk->model);
    release(desk->near);
    release(desk->far);
}

/* Copies so many blocks of so many regions, in one direction, and compares all bytes that might be written. */
static void check(struct desk *desk, uint32_t regions, uint32_t pairs, uint64_t length, uint64_t average, bool read) {
    const uint64_t stride = length + 16 + length % 7, room = stride * pairs, used = regions * room + 64;
    const uint64_t to = read ? desk->near : desk->far;
    uint8_t *got = malloc(used);
    assert_non_null(got);
    assert_true(used <= BYTES);
    fill(read ? desk->far : desk->near, used, SEED);
    fill(to, used, BLANK);
    for (uint64_t i = 0; i < used; i++)
        desk->model[i] = seed_byte(BLANK, i);
    for (uint32_t i = 0; i < regions; i++)
        desk->regions[i] = (struct nvlxi_block_region){.local = desk->near + i * stride + i % 3,
                                                       .remote = desk->far + i * room + 3 * (i % 2),
                                                       .local_stride = stride * regions,
                                                       .remote_stride = stride,
                                                       .length = length - i % 2 * (length > 1)};
    for (uint32_t j = 0; j < pairs; j++)
        desk->pairs[j] = (struct nvlxi_block_pair){(j * 13 + 1) % pairs, pairs - 1 - j};
    for (uint32_t j = 0; j < pairs; j++)
        for (uint32_t i = 0; i < regions; i++) {
            const uint64_t near = i * stride + i % 3 + desk->pairs[j].local * stride * regions;
            const uint64_t far = i * room + 3 * (i % 2) + desk->pairs[j].remote * stride;
            for (uint64_t k = 0; k < desk->regions[i].length; k++)
                desk->model[(read ? near : far) + k] = seed_byte(SEED, (read ? far : near) + k);
        }
    OK(me.ops->copy_blocks(desk->lane, &(struct nvlxi_block_kernel){.regions = desk->regions,
                                                                    .pairs = desk->pairs,
                                                                    .region_count = regions,
                                                                    .pair_count = pairs,
                                                                    .read = read,
                                                                    .sms = regions % 2 ? 1 : 32,
                                                                    .average = average}));
    OK(me.ops->event_record(desk->lane, desk->event));
    wait_for(desk->event);
    OK(me.ops->memcpy(me.device, got, (void *)(uintptr_t)to, used));
    assert_true(memcmp(got, desk->model, used) == 0);
    free(got);
}

static void blocks_are_copied_by_their_ids(void **state) {
    (void)state;
    static const uint64_t averages[] = {0, 9000, UINT64_MAX};
    struct desk desk = desk_make();
    for (size_t i = 0; i < NVLXI_COUNT(averages); i++)
        for (int read = 0; read < 2; read++) {
            check(&desk, 1, 1, 1, averages[i], read);
            check(&desk, 3, PAIRS, 1000, averages[i], read);
            check(&desk, 61, 11, 3001, averages[i], read);
            check(&desk, REGIONS, 3, 1024, averages[i], read);
            check(&desk, 2, 3, 300000, averages[i], read);
        }
    desk_free(&desk);
}

const struct contract_case block_cases[] = {{"blocks are copied by their ids", blocks_are_copied_by_their_ids}};
const size_t block_case_count = NVLXI_COUNT(block_cases);
