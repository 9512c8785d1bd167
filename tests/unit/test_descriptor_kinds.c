/* Descriptors of every kind of memory: what a segment must have and must not, regions that go on into the next chunk,
 * and the address that files come from. SPDX-License-Identifier: Apache-2.0 */
#include "descriptor_expect.h"

static void test_kinds(void **state) {
    (void)state;
    static const uint32_t kinds[] = {NVLXI_KIND_VMM,  NVLXI_KIND_VMM,    NVLXI_KIND_VMM,   NVLXI_KIND_VMM,
                                     NVLXI_KIND_POOL, NVLXI_KIND_FABRIC, NVLXI_KIND_FABRIC};
    static const struct nvlxi_region_record regions[] = {
        {"one", 0, NVLX_ACCESS_READ, 0x10ff0, 0x10, 1, 0, 0, false, false},
        {"two", 1, NVLX_ACCESS_READ_WRITE, 0x11fff, 2, 2, 0, 0, false, false},
        {"three", 0, NVLX_ACCESS_READ, 0x10fff, 0x1002, 3, 0, 0, false, false},
        {"all", 0, NVLX_ACCESS_READ, 0x10000, 0x3000, 3, 0, 0, false, false},
        {"pool", 4, NVLX_ACCESS_WRITE, 0x15000, 0x1000, 1, 0, 0, false, false},
        {"fabric", 5, NVLX_ACCESS_READ, 0x16000, 0x1001, 2, 0, 0, false, false}};
    struct nvlxi_descriptor *descriptor = decode_valid(KINDS);
    assert_int_equal(descriptor->segment_count, NVLXI_COUNT(kinds));
    for (size_t i = 0; i < NVLXI_COUNT(kinds); i++) {
        const struct nvlxi_segment_record *segment = &descriptor->segments[i];
        assert_int_equal(segment->kind, kinds[i]);
        assert_int_equal(segment->file, i <= 4);
        assert_int_equal(segment->joins, i != 4);
        assert_int_equal(segment->handle.length, i < 4 ? 0 : 8);
    }
    struct nvlxi_descriptor expected = *descriptor;
    expected.regions = (struct nvlxi_region_record *)regions;
    expected.region_count = NVLXI_COUNT(regions);
    assert_null(compare_descriptors(&expected, descriptor));
    nvlxi_descriptor_free(descriptor);
    expect_same(KINDS, FILE_FIELD, FILE_FIELD ",\"more\":1");
}

/* Chunks of host memory are told as those of GPUs are, and regions go on in them as there. */
static void test_host_chunks(void **state) {
    (void)state;
    char *text = strdup(KINDS), *next;
    while (strstr(text, "\"vmm\"")) {
        next = replace_in(text, "\"vmm\"", "\"host\"");
        free(text);
        text = next;
    }
    struct nvlxi_descriptor *descriptor = decode_valid(text);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(descriptor->segments[i].kind, NVLXI_KIND_HOST);
        assert_true(descriptor->segments[i].file && descriptor->segments[i].joins);
    }
    expect_round_trip(descriptor);
    nvlxi_descriptor_free(descriptor);
    free(text);
}

static void test_address(void **state) {
    (void)state;
    static const char *const addresses[] = {"@a", "/run/a \"b\".sock", "/run/\xc3\xbc", "/" X16("123456") "1234567890"};
    static const char *const texts[] = {"@a", "/run/a \\\"b\\\".sock", "/run/\xc3\xbc", "/" X16("123456") "1234567890"};
    struct nvlxi_descriptor *descriptor = decode_valid(VALID);
    assert_string_equal(descriptor->address, "");
    nvlxi_descriptor_free(descriptor);
    for (size_t i = 0; i < NVLXI_COUNT(addresses); i++) {
        char *field, *text;
        assert_true(asprintf(&field, "\"0x5\",\"address\":\"%s\"", texts[i]) > 0);
        text = replace_in(VALID, "\"0x5\"", field);
        descriptor = decode_valid(text);
        assert_string_equal(descriptor->address, addresses[i]);
        expect_round_trip(descriptor);
        nvlxi_descriptor_free(descriptor);
        free(text);
        free(field);
    }
}

static void test_unencodable_kinds(void **state) {
    (void)state;
    static const struct nvlxi_segment_record segments[] = {
        {.kind = NVLXI_KIND_CUDA_MALLOC, .file = true, .handle = {.length = 64}},
        {.kind = NVLXI_KIND_CUDA_MALLOC, .joins = true, .handle = {.length = 64}},
        {.kind = NVLXI_KIND_VMM, .joins = true},
        {.kind = NVLXI_KIND_HOST, .joins = true},
        {.kind = NVLXI_KIND_HOST, .file = true},
        {.kind = NVLXI_KIND_VMM, .file = true},
        {.kind = NVLXI_KIND_POOL, .file = true},
        {.kind = NVLXI_KIND_POOL, .handle = {.length = 64}},
        {.kind = NVLXI_KIND_POOL, .file = true, .joins = true, .handle = {.length = 64}},
        {.kind = NVLXI_KIND_FABRIC, .joins = true},
        {.kind = NVLXI_KIND_FABRIC, .handle = {.length = 64}},
        {.kind = NVLXI_KIND_FABRIC, .file = true, .joins = true, .handle = {.length = 64}},
        {.kind = NVLXI_KIND_UNKNOWN, .kind_name = "newer", .file = true},
        {.kind = NVLXI_KIND_UNKNOWN, .kind_name = "newer", .joins = true}};
    for (size_t i = 0; i < NVLXI_COUNT(segments); i++) {
        struct nvlxi_segment_record segment = segments[i];
        struct nvlxi_descriptor descriptor = {.segments = &segment, .segment_count = 1};
        expect_unencodable(&descriptor, "its kind takes others");
    }
}

/* Two chunks and a region over both, each time with one thing wrong. */
static void test_unencodable_runs(void **state) {
    (void)state;
    static const struct nvlxi_segment_record chunk = {
        .kind = NVLXI_KIND_VMM, .base = 0x1000, .size = 0x100, .file = true, .joins = true};
    static const struct nvlxi_region_record regions[] = {
        {.name = "shorter", .address = 0x1000, .length = 0x100, .segment_count = 2},
        {.name = "shorter yet", .address = 0x10ff, .length = 1, .segment_count = 2},
        {.name = "longer", .address = 0x1000, .length = 0x201, .segment_count = 2},
        {.name = "fewer", .address = 0x1000, .length = 0x101, .segment_count = 1},
        {.name = "more", .address = 0x1000, .length = 0x200, .segment_count = 3},
        {.name = "later", .address = 0x1100, .length = 0x100, .segment_count = 2},
        {.name = "earlier", .address = 0xfff, .length = 0x102, .segment_count = 2}};
    struct nvlxi_segment_record segments[] = {chunk, chunk};
    struct nvlxi_region_record region = {.name = "", .address = 0x10ff, .length = 2, .segment_count = 2};
    struct nvlxi_descriptor descriptor = {
        .segments = segments, .segment_count = 2, .regions = &region, .region_count = 1};
    segments[1].base = 0x1101;
    expect_unencodable(&descriptor, "is not in its segments");
    segments[1].base = 0x1100;
    segments[1].device[15] = 1;
    expect_unencodable(&descriptor, "is not in its segments");
    segments[1].device[15] = 0;
    segments[1].kind = NVLXI_KIND_FABRIC;
    segments[1].file = false;
    segments[1].handle.length = 64;
    expect_unencodable(&descriptor, "is not in its segments");
    segments[1] = chunk;
    segments[1].base = 0x1100;
    for (size_t i = 0; i < NVLXI_COUNT(regions); i++) {
        region = regions[i];
        expect_unencodable(&descriptor, "is not in its segments");
    }
}

/* Each kind, with what it must not have or without what it must. */
static void test_bad_kinds(void **state) {
    (void)state;
    static const struct change changes[] = {
        {FILE_FIELD, "", "segments[0].file is not true: expected true for a segment of kind \"vmm\""},
        {FILE_FIELD, ",\"file\":false", "segments[0].file is not true"},
        {FILE_FIELD, ",\"file\":0", "segments[0].file is a number"},
        {FILE_FIELD, FILE_FIELD ",\"handle\":null", "segments[0].handle is null"},
        {FILE_FIELD, FILE_FIELD ",\"handle\":\"\"", "segments[0].handle of 0 characters"},
        {"true" HANDLE_FIELD, "true", "segments[4].handle is missing"},
        {FILE_FIELD HANDLE_FIELD, HANDLE_FIELD, "segments[4].file is not true"},
        {"\"0x1000\"" HANDLE_FIELD, "\"0x1000\"", "segments[5].handle is missing"},
        {"\"0x1000\"" HANDLE_FIELD, "\"0x1000\"" HANDLE_FIELD FILE_FIELD, "segments[5].file is true: expected none"}};
    expect_refused_in(KINDS, changes, NVLXI_COUNT(changes), NVLX_EFORMAT);
}

/* Regions that go on where they must not. */
static void test_bad_runs(void **state) {
    (void)state;
    static const struct change changes[] = {
        {"0 0x0 0x3000", "0 0x0 0x3001",
         "regions[3]: offset 0x0 + length 0x3001 leave segment 0 of 0x1000 bytes, or the 0x3000 with those"},
        {"0 0x0 0x3000", "0 0x0 0xffffffffffffffff", "regions[3]: offset 0x0 + length 0xffffffffffffffff leave"},
        {"0 0x0 0x3000", "0 0x1000 0x1", "regions[3]: offset 0x1000 + length 0x1 leave segment 0"},
        {"0 0x0 0x3000", "2 0x0 0x1001", "regions[3]: offset 0x0 + length 0x1001 leave segment 2"},
        {"4 0x0 0x1000", "4 0x0 0x1001", "regions[4]: offset 0x0 + length 0x1001 leave segment 4"},
        {"5 0x0 0x1001", "3 0x0 0x1001", "regions[5]: offset 0x0 + length 0x1001 leave segment 3"},
        {"5 0x0 0x1001", "6 0x0 0x1001", "regions[5]: offset 0x0 + length 0x1001 leave segment 6"},
        {"\"0x11000\"", "\"0x11001\"", "segments[2] at 0x12000 overlaps segments[1]"},
        {"\"0x12000\"", "\"0x12001\"", "regions[1]: offset 0xfff + length 0x2 leave segment 1"},
        {"\"0x12000\"", "\"0x13000\"", "regions[1]: offset 0xfff + length 0x2 leave segment 1"},
        {CHUNK("vmm", "0x2", "0x11000", FILE_FIELD), CHUNK("fabric", "0x2", "0x11000", HANDLE_FIELD),
         "regions[1]: offset 0xfff + length 0x2 leave segment 1"},
        {CHUNK("vmm", "0x2", "0x11000", FILE_FIELD), CHUNK("host", "0x2", "0x11000", FILE_FIELD),
         "regions[1]: offset 0xfff + length 0x2 leave segment 1"},
        {CHUNK("vmm", "0x2", "0x11000", FILE_FIELD), CHUNK("newer", "0x2", "0x11000", FILE_FIELD),
         "regions[1]: offset 0xfff + length 0x2 leave segment 1"},
        {CHUNK("vmm", "0x1", "0x10000", FILE_FIELD) "," CHUNK("vmm", "0x2", "0x11000", FILE_FIELD),
         CHUNK("vmm", "0x2", "0x11000", FILE_FIELD) "," CHUNK("vmm", "0x1", "0x10000", FILE_FIELD),
         "regions[1]: offset 0xfff + length 0x2 leave segment 1"},
        {DEVICE "\",\"serial\":\"0x3\"", "f" DEVICE_END "\",\"serial\":\"0x3\"",
         "regions[1]: offset 0xfff + length 0x2 leave segment 1"}};
    expect_refused_in(KINDS, changes, NVLXI_COUNT(changes), NVLX_EFORMAT);
}

#define SLEEPERS ",\"suspended\":[[\"dream\",\"0x11000 0x2000 r 0x3\"],[null,\"0x0 0x0 -\"]]}"
#define DREAMING                                                                                                       \
    "{\"format\":\"nvlxfer\",\"version\":[1,1],\"backend\":\"cuda\",\"process\":" PROCESS                              \
    ",\"segments\":" KINDS_SEGMENTS ",\"regions\":" KINDS_REGIONS SLEEPERS

/* Regions that sleep: with an address, and no segment. */
static void test_sleepers(void **state) {
    (void)state;
    static const struct change changes[] = {
        {SLEEPERS, ",\"suspended\":{}}", "suspended is an object: expected an array"},
        {SLEEPERS, ",\"suspended\":null}", "suspended is null"},
        {"[\"dream\",", "{}, [\"dream\",", "suspended[0] is an object"},
        {"\"dream\"", "\"one\"", "name is \"one\", which is taken by regions[0]"},
        {"\"dream\"", "7", "suspended[0].name is a number"},
        {"\"0x11000 0x2000 r 0x3\"", "1", "suspended[0].range is a number: expected a string of address"},
        {"0x11000 0x2000 r 0x3", "0 0x2000 r 0x3", "suspended[0].address is \"0\""},
        {"0x11000 0x2000 r 0x3", "0x11000 2 r 0x3", "suspended[0].length is \"2\""},
        {"0x11000 0x2000 r 0x3", "0x11000 0x2000 x 0x3", "suspended[0].access is \"x\""},
        {"0x11000 0x2000 r 0x3", "0x11000 0x2000 r 3", "suspended[0].since is \"3\""},
        {"0x11000 0x2000 r 0x3", "0x11000 0xffffffffffffffff r", "suspended[0]: 0x11000 + 0xffffffffffffffff wraps"}};
    struct nvlxi_descriptor *descriptor = decode_valid(DREAMING);
    assert_int_equal(descriptor->suspended_count, 2);
    const struct nvlxi_region_record *dream = nvlxi_name_index_find(&descriptor->by_name, descriptor->regions, "dream");
    assert_non_null(dream);
    assert_true(dream->suspended);
    assert_int_equal(dream->address, 0x11000);
    assert_int_equal(dream->length, 0x2000);
    assert_int_equal(dream->access, NVLX_ACCESS_READ);
    assert_int_equal(dream->since, 3);
    expect_round_trip(descriptor);
    descriptor->regions[descriptor->region_count - 1].address = 1;
    descriptor->regions[descriptor->region_count - 1].length = UINT64_MAX;
    expect_unencodable(descriptor, "is not in its segments");
    nvlxi_descriptor_free(descriptor);
    expect_same(DREAMING, "0x2000 r 0x3", "0x2000 r 0x3 more");
    expect_refused_in(DREAMING, changes, NVLXI_COUNT(changes), NVLX_EFORMAT);
}

static const struct CMUnitTest cases[] = {
    cmocka_unit_test(test_kinds),     cmocka_unit_test(test_host_chunks),       cmocka_unit_test(test_sleepers),
    cmocka_unit_test(test_address),   cmocka_unit_test(test_unencodable_kinds), cmocka_unit_test(test_unencodable_runs),
    cmocka_unit_test(test_bad_kinds), cmocka_unit_test(test_bad_runs)};
const struct program program = {
    .name = "descriptor_kinds", .cases = cases, .count = COUNT(cases), .begin = watch_handles};
