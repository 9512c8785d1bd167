/* Runs: which of a peer's segments are mapped together, and what tells one run from another.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>

#include "cmocka_main.h"
#include "nvlxfer.h"
#include "remote/run.h"

#define CHUNK 0x200000u
#define BASE  UINT64_C(0x7f0000000000)

enum { SEGMENTS = 6 };

static struct nvlxi_segment_record segments[SEGMENTS];
static struct nvlxi_region_record regions[4];
static struct nvlxi_descriptor descriptor;

/* Six adjacent chunks, and `count` regions: { first segment, segments, access }. */
static struct nvlxi_runs make(const uint32_t (*of)[3], size_t count) {
    struct nvlxi_runs runs;
    for (uint32_t i = 0; i < SEGMENTS; i++)
        segments[i] =
            (struct nvlxi_segment_record){.base = BASE + i * CHUNK, .size = CHUNK, .serial = 100 + i, .joins = true};
    for (size_t i = 0; i < count; i++)
        regions[i] = (struct nvlxi_region_record){
            .name = "", .segment = of[i][0], .segment_count = of[i][1], .access = of[i][2], .length = of[i][1] * CHUNK};
    descriptor = (struct nvlxi_descriptor){
        .segments = segments, .segment_count = SEGMENTS, .regions = regions, .region_count = count};
    assert_int_equal(nvlxi_runs_make(&descriptor, false, &runs), 0);
    return runs;
}

static void expect_run(const struct nvlxi_runs *runs, size_t index, uint32_t first, uint32_t count, bool read_only) {
    const struct nvlxi_run *run = &runs->run[index];
    assert_true(index < runs->count);
    assert_int_equal(run->first, first);
    assert_int_equal(run->count, count);
    assert_int_equal(run->base, BASE + first * CHUNK);
    assert_int_equal(run->size, (uint64_t)count * CHUNK);
    assert_int_equal(run->read_only, read_only);
    for (uint32_t i = first; i < first + count; i++)
        assert_int_equal(runs->of_segment[i], index);
    assert_ptr_equal(nvlxi_runs_find(runs, run->base, run->serial), run);
    assert_null(nvlxi_runs_find(runs, run->base, run->serial + 1));
    assert_null(nvlxi_runs_find(runs, run->base + 1, run->serial));
}

static void lone_segments(void **state) {
    (void)state;
    const uint32_t of[][3] = {{0, 1, NVLX_ACCESS_READ_WRITE}, {1, 1, NVLX_ACCESS_READ}, {1, 1, NVLX_ACCESS_WRITE}};
    struct nvlxi_runs runs = make(of, 3);
    assert_int_equal(runs.count, SEGMENTS);
    expect_run(&runs, 0, 0, 1, false);
    expect_run(&runs, 1, 1, 1, false);
    expect_run(&runs, 2, 2, 1, true);
    assert_int_equal(runs.run[1].serial, 101);
    nvlxi_runs_free(&runs);
}

/* Memory whose mappings can always be written is the same run, whatever its regions grant. */
static void what_does_not_join_is_written(void **state) {
    (void)state;
    const uint32_t of[][3] = {{0, 1, NVLX_ACCESS_READ}};
    struct nvlxi_runs runs = make(of, 1);
    nvlxi_runs_free(&runs);
    segments[0].joins = false;
    assert_int_equal(nvlxi_runs_make(&descriptor, false, &runs), 0);
    expect_run(&runs, 0, 0, 1, false);
    assert_int_equal(runs.run[0].serial, 100);
    nvlxi_runs_free(&runs);
}

/* Adjacent regions do not join what lies under them; a region over a border does, and so do two that overlap in one. */
static void regions_join(void **state) {
    (void)state;
    const uint32_t of[][3] = {{0, 1, NVLX_ACCESS_READ}, {1, 2, NVLX_ACCESS_READ}, {2, 3, NVLX_ACCESS_WRITE}};
    struct nvlxi_runs runs = make(of, 3);
    assert_int_equal(runs.count, 3);
    expect_run(&runs, 0, 0, 1, true);
    expect_run(&runs, 1, 1, 4, false);
    expect_run(&runs, 2, 5, 1, true);
    nvlxi_runs_free(&runs);
}

static uint64_t serial_of_first(uint32_t count, uint32_t access, uint64_t changed) {
    const uint32_t of[][3] = {{0, count, access}};
    struct nvlxi_runs runs = make(of, 1);
    nvlxi_runs_free(&runs);
    segments[count - 1].serial += changed;
    assert_int_equal(nvlxi_runs_make(&descriptor, false, &runs), 0);
    const uint64_t serial = runs.run[0].serial;
    nvlxi_runs_free(&runs);
    return serial;
}

static void serials_tell_runs_apart(void **state) {
    (void)state;
    const uint64_t three = serial_of_first(3, NVLX_ACCESS_READ_WRITE, 0);
    assert_int_equal(serial_of_first(3, NVLX_ACCESS_WRITE, 0), three);
    assert_int_not_equal(serial_of_first(3, NVLX_ACCESS_READ_WRITE, 1), three);
    assert_int_not_equal(serial_of_first(2, NVLX_ACCESS_READ_WRITE, 0), three);
    assert_int_not_equal(serial_of_first(3, NVLX_ACCESS_READ, 0), three);
    assert_int_not_equal(serial_of_first(1, NVLX_ACCESS_READ, 0), serial_of_first(1, NVLX_ACCESS_WRITE, 0));
}

/* As many as a descriptor may have: one by one, these would be 2^38 steps. */
static void many_regions_over_many_segments(void **state) {
    (void)state;
    struct nvlxi_descriptor large = {.segment_count = NVLXI_SEGMENTS_MAX, .region_count = NVLXI_REGIONS_MAX};
    struct nvlxi_runs runs;
    large.segments = calloc(large.segment_count, sizeof *large.segments);
    large.regions = calloc(large.region_count, sizeof *large.regions);
    assert_true(large.segments && large.regions);
    for (uint32_t i = 0; i < NVLXI_SEGMENTS_MAX; i++)
        large.segments[i] =
            (struct nvlxi_segment_record){.base = BASE + (uint64_t)i * CHUNK, .size = CHUNK, .joins = true};
    for (size_t i = 0; i < large.region_count; i++)
        large.regions[i] = (struct nvlxi_region_record){
            .name = "", .segment_count = NVLXI_SEGMENTS_MAX, .access = NVLX_ACCESS_READ, .length = 1};
    assert_int_equal(nvlxi_runs_make(&large, false, &runs), 0);
    assert_int_equal(runs.count, 1);
    assert_int_equal(runs.run->count, NVLXI_SEGMENTS_MAX);
    assert_true(runs.run->read_only);
    nvlxi_runs_free(&runs);
    free(large.segments);
    free(large.regions);
}

static const struct CMUnitTest cases[] = {
    cmocka_unit_test(lone_segments), cmocka_unit_test(what_does_not_join_is_written), cmocka_unit_test(regions_join),
    cmocka_unit_test(serials_tell_runs_apart), cmocka_unit_test(many_regions_over_many_segments)};
const struct program program = {.name = "run", .cases = cases, .count = COUNT(cases)};
