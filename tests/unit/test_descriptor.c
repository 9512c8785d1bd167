/* Descriptors: what goes in comes out, and each way in which a text can be malformed is refused by its name.
 * SPDX-License-Identifier: Apache-2.0 */
#include "descriptor_expect.h"

static char *replace(const char *from, const char *to) {
    return replace_in(VALID, from, to);
}

/* ---- Round trips ------------------------------------------------------------------------------------------------ */

static char longest_name[NVLXI_NAME_MAX + 1];

static struct nvlxi_segment_record extreme_segments[] = {
    {.kind = NVLXI_KIND_CUDA_MALLOC,
     .kind_name = "cuda_malloc",
     .serial = UINT64_MAX,
     .base = 1ull << 63,
     .size = 1ull << 62,
     .device = {0xff, [15] = 1},
     .handle = {.length = 64, .bytes = {1, 2, 0xfe, [63] = 0xff}}},
    {.kind = NVLXI_KIND_CUDA_MALLOC, .kind_name = "cuda_malloc", .size = 1, .handle = {.length = 1}},
    {.kind = NVLXI_KIND_CUDA_MALLOC,
     .kind_name = "cuda_malloc",
     .base = UINT64_MAX - 1,
     .size = 1,
     .handle = {.length = 1}},
    {.kind = NVLXI_KIND_VMM, .kind_name = "vmm", .base = 1, .size = 1, .file = true, .joins = true},
    {.kind = NVLXI_KIND_VMM, .kind_name = "vmm", .base = 2, .size = (1ull << 63) - 2, .file = true, .joins = true},
    {.kind = NVLXI_KIND_FABRIC,
     .kind_name = "fabric",
     .base = 3ull << 62,
     .size = 1,
     .joins = true,
     .handle = {.length = 64}},
    {.kind = NVLXI_KIND_FABRIC,
     .kind_name = "fabric",
     .base = (3ull << 62) + 1,
     .size = 1,
     .joins = true,
     .handle = {.length = 1}},
    {.kind = NVLXI_KIND_POOL,
     .kind_name = "pool",
     .base = (3ull << 62) + 2,
     .size = 1,
     .file = true,
     .handle = {.length = 64}},
    {.kind = NVLXI_KIND_UNKNOWN, .kind_name = "newer", .base = UINT64_MAX - 2, .size = 1}};

static struct nvlxi_region_record extreme_regions[] = {
    {.name = "\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80 \\ \" / ',[]{}",
     .segment = 0,
     .access = NVLX_ACCESS_NONE,
     .address = 1ull << 63,
     .length = 1ull << 62,
     .segment_count = 1},
    {.name = longest_name, .access = NVLX_ACCESS_READ, .address = (3ull << 62) - 1, .length = 1, .segment_count = 1},
    {.segment = 1, .access = NVLX_ACCESS_WRITE, .address = 0, .length = 1},
    {.segment = 2, .access = NVLX_ACCESS_READ_WRITE, .address = UINT64_MAX - 1, .length = 1},
    {.segment = 3, .address = 1, .length = (1ull << 63) - 1, .segment_count = 2},
    {.segment = 3, .address = 1, .length = 1},
    {.segment = 5, .address = 3ull << 62, .length = 2, .segment_count = 2},
    {.segment = 7, .address = (3ull << 62) + 2, .length = 1},
    {.segment = 8, .address = UINT64_MAX - 2, .length = 1},
    {.name = "zero", .segment = NVLXI_NO_SEGMENT, .access = NVLX_ACCESS_READ}};

static void test_extreme_values(void **state) {
    (void)state;
    memset(longest_name, 'n', NVLXI_NAME_MAX);
    for (size_t i = 0; i < NVLXI_COUNT(extreme_regions); i++) {
        extreme_regions[i].name = extreme_regions[i].name ? extreme_regions[i].name : "";
        extreme_regions[i].segment_count += extreme_regions[i].length && !extreme_regions[i].segment_count ? 1 : 0;
        extreme_regions[i].since = i == 0 ? UINT64_MAX : i;
        extreme_regions[i].has_digest = i % 3 != 1;
        extreme_regions[i].digest = i % 3 == 0 ? UINT64_MAX - i : 0;
    }
    struct nvlxi_descriptor descriptor = {.backend = "fifteen_letters",
                                          .identity = {.pid = UINT64_MAX, .generation = 1ull << 53},
                                          .segments = extreme_segments,
                                          .segment_count = NVLXI_COUNT(extreme_segments),
                                          .regions = extreme_regions,
                                          .region_count = NVLXI_COUNT(extreme_regions)};
    strcpy(descriptor.identity.boot_id, "\"~\\\"  printable, of 39 characters .....");
    strcpy(descriptor.identity.engine, "ffffffffffffffffffffffffffffffff");
    expect_round_trip(&descriptor);
    memset(descriptor.address, '"', NVLXI_ADDRESS_MAX);
    descriptor.address[0] = '@';
    expect_round_trip(&descriptor);
    descriptor.segment_count = descriptor.region_count = 0;
    descriptor.segments = NULL;
    descriptor.regions = NULL;
    expect_round_trip(&descriptor);
}

static void test_unencodable(void **state) {
    (void)state;
    static const struct {
        struct nvlxi_region_record region;
        uint32_t handle_length;
        const char *words;
    } cases[] = {{{"\xff", 0, 1, 0x1000, 1, 1, 0, 0, false, false}, 1, "name of regions[0]"},
                 {{"tab\t", 0, 1, 0x1000, 1, 1, 0, 0, false, false}, 1, "name of regions[0]"},
                 {{"a", 0, 4, 0x1000, 1, 1, 0, 0, false, false}, 1, "access 4"},
                 {{"a", 0, 1, 0xfff, 1, 1, 0, 0, false, false}, 1, "regions[0] at 0xfff"},
                 {{"a", 0, 1, 0x1100, 1, 1, 0, 0, false, false}, 1, "regions[0] at 0x1100"},
                 {{"a", 0, 1, 0x1000, 0x101, 1, 0, 0, false, false}, 1, "0x101 bytes"},
                 {{"a", 0, 1, 0x1000, UINT64_MAX, 1, 0, 0, false, false}, 1, "0xffffffffffffffff bytes"},
                 {{"a", 0, 1, 0x1000, 0, 1, 0, 0, false, false}, 1, "regions[0]"},
                 {{"a", 1, 1, 0x1000, 1, 1, 0, 0, false, false}, 1, "regions[0]"},
                 {{"a", 0, 1, 0x1000, 1, 0, 0, 0, false, false}, 1, "regions[0]"},
                 {{"a", 0, 1, 0x1000, 1, 2, 0, 0, false, false}, 1, "regions[0]"},
                 {{"a", 0, 1, 0x1000, 1, UINT32_MAX, 0, 0, false, false}, 1, "regions[0]"},
                 {{"a", NVLXI_NO_SEGMENT, 1, 0, 1, 1, 0, 0, false, false}, 1, "regions[0]"},
                 {{"a", NVLXI_NO_SEGMENT, 1, 0, 0, 1, 0, 0, false, false}, 1, "regions[0]"},
                 {{"a", 0, 1, 0x1000, 1, 1, 0, 0, false, false}, 65, "segments[0] has a handle of 65"},
                 {{"a", 0, 1, 0x1000, 1, 1, 0, 0, false, false}, 0, "segments[0] of kind 1 has a handle of 0 bytes"}};
    for (size_t i = 0; i < NVLXI_COUNT(cases); i++) {
        struct nvlxi_region_record region = cases[i].region;
        struct nvlxi_segment_record segment = {.kind = 1, .base = 0x1000, .size = 0x100};
        segment.handle.length = cases[i].handle_length;
        struct nvlxi_descriptor descriptor = {
            .segments = &segment, .segment_count = 1, .regions = &region, .region_count = 1};
        expect_unencodable(&descriptor, cases[i].words);
    }
    struct nvlxi_descriptor many = {.region_count = NVLXI_REGIONS_MAX + 1};
    expect_unencodable(&many, "1048577 regions");
    struct nvlxi_descriptor unprintable = {.address = "/run/\n"};
    expect_unencodable(&unprintable, "the address to be served at");
    struct nvlxi_descriptor relative = {.address = "relative"};
    expect_unencodable(&relative, "the address to be served at");
}

/* ---- What other versions may say -------------------------------------------------------------------------------- */

static void test_ignored(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"[1,0]", "[1,7]"},
        {"[1,0]", "[1,4294967295,\"x\",null]"},
        {"{\"format\"", "{\"new\":{\"a\":[1,2.5e3,null,true,\"\\ud83d\\ude00\"]},\"format\""},
        {"\"pid\"", "\"host\":[],\"pid\""},
        {"\"kind\"", "\"chunks\":[[[[]]]],\"kind\""},
        {" rw\"]", " rw\",{\"sum\":1},[]]"},
        {" rw\"]", " rw 0x0 0x7 -  sum=1\"]"},
        {" rw\"]", " rw \"]"},
        {HANDLE "\"", HANDLE "\",\"file\":false"},
        {"\"0 0x0", "\"\\u0030 0x0"},
        {"{\"format\"", " \r\n\t{ \"format\""},
        {"0x0 w\"]]}", "0x0 w\"]]}\n"},
        {"\"zero\"", "\"\\u007aer\\u006F\""}};
    for (size_t i = 0; i < NVLXI_COUNT(changes); i++)
        expect_same(VALID, changes[i][0], changes[i][1]);
}

static void test_unknown_kind(void **state) {
    (void)state;
    static const char *const handles[] = {"\"deadbeefdeadbeef\"", "{\"fd\":3}",         "null",
                                          "\"no hex\"",           "null,\"file\":true", "null,\"file\":\"x\""};
    for (size_t i = 0; i < NVLXI_COUNT(handles); i++) {
        char *to;
        assert_true(asprintf(&to,
                             "\"kind\":\"vmm_chunks_of_2_mib_each\",\"device\":\"" DEVICE "\",\"serial\":\"0x1\","
                             "\"base\":\"0x7f0000000000\",\"size\":\"0x1000\",\"handle\":%s}",
                             handles[i]) > 0);
        char *text =
            replace("\"kind\":\"cuda_malloc\",\"device\":\"" DEVICE
                    "\",\"serial\":\"0x1\",\"base\":\"0x7f0000000000\",\"size\":\"0x1000\",\"handle\":\"" HANDLE "\"}",
                    to);
        struct nvlxi_descriptor *descriptor = decode_valid(text);
        assert_int_equal(descriptor->segment_count, 2);
        assert_int_equal(descriptor->segments[0].kind, NVLXI_KIND_UNKNOWN);
        assert_string_equal(descriptor->segments[0].kind_name, "vmm_chunks_of_2_mib_eac");
        assert_int_equal(descriptor->segments[0].handle.length, 0);
        assert_false(descriptor->segments[0].file || descriptor->segments[0].joins);
        assert_int_equal(descriptor->segments[1].kind, NVLXI_KIND_CUDA_MALLOC);
        assert_int_equal(descriptor->region_count, 4);
        nvlxi_descriptor_free(descriptor);
        free(text);
        free(to);
    }
}

/* ---- Malformed texts -------------------------------------------------------------------------------------------- */

#define EXPECT_REFUSED(changes, code) expect_refused_in(VALID, changes, NVLXI_COUNT(changes), code)

static void test_version(void **state) {
    (void)state;
    static const struct change others[] = {
        {"[1,0]", "[2,0]", "descriptor version 2.0, this library reads 1.x"},
        {"[1,0]", "[0,9]", "descriptor version 0.9"},
        {"\"version\":[1,0],\"backend\":\"cuda\",", "\"version\":[4294967295,3],", "descriptor version 4294967295.3"}};
    EXPECT_REFUSED(others, NVLX_EVERSION);
    static const struct change bad[] = {{"\"nvlxfer\"", "\"nvlx\"", "format is \"nvlx\""},
                                        {"\"nvlxfer\"", "1", "format is a number"},
                                        {"\"format\":\"nvlxfer\",", "", "format is missing"},
                                        {"\"version\":[1,0],", "", "version is missing"},
                                        {"[1,0]", "\"1.0\"", "version is \"1.0\""},
                                        {"[1,0]", "{}", "version is an object"},
                                        {"[1,0]", "[1]", "version"},
                                        {"[1,0]", "[1.0,0]", "version"},
                                        {"[1,0]", "[1,-1]", "version"},
                                        {"[1,0]", "[1,4294967296]", "version"},
                                        {"[1,0]", "[1,99999999999999999999]", "version"},
                                        {"[1,0]", "[1,\"0\"]", "version"},
                                        {"[1,0]", "[true,0]", "version"}};
    EXPECT_REFUSED(bad, NVLX_EFORMAT);
}

static void test_bad_head(void **state) {
    (void)state;
    static const struct change changes[] = {
        {"\"cuda\"", "\"\"", "backend is \"\""},
        {"\"cuda\"", "\"sixteen_letters_\"", "backend is \"sixteen"},
        {"\"cuda\"", "\"Cuda\"", "backend"},
        {"\"cuda\"", "\"cu da\"", "backend"},
        {"\"cuda\"", "\"cuda\\u0000\"", "backend is \"cuda?\""},
        {"\"cuda\"", "[]", "backend is an array"},
        {"\"backend\":\"cuda\",", "", "backend is missing"},
        {"\"process\":" PROCESS, "\"process\":[]", "process is an array"},
        {"\"process\":" PROCESS ",", "", "process is missing"},
        {"0c2f5a9e-1111-4222-8333-444455556666", "", "process.boot_id is \"\""},
        {"0c2f5a9e-1111-4222-8333-444455556666", "0123456789012345678901234567890123456789", "process.boot_id"},
        {"0c2f5a9e", "\\t", "process.boot_id is \"?-1111"},
        {"0c2f5a9e", "\xc3\xbc", "process.boot_id"},
        {"0c2f5a9e", "a\\u0000", "process.boot_id"},
        {"\"0x7b\"", "123", "process.pid is a number"},
        {"\"0x7b\"", "\"7b\"", "process.pid is \"7b\""},
        {"\"pid_namespace\":", "\"p\":", "process.pid_namespace is missing"},
        {"\"0x1234\"", "null", "process.start_time is null"},
        {"\"0x5\"", "false", "process.generation is a truth value"},
        {"\"0x5\"", "\"0x5\",\"address\":\"\"", "process.address is \"\""},
        {"\"0x5\"", "\"0x5\",\"address\":null", "process.address is null"},
        {"\"0x5\"", "\"0x5\",\"address\":1", "process.address is a number"},
        {"\"0x5\"", "\"0x5\",\"address\":\"/\xc3\x28\"", "process.address is \"/?(\""},
        {"\"0x5\"", "\"0x5\",\"address\":\"/\\u0000\"", "process.address is \"/?\""},
        {"\"0x5\"", "\"0x5\",\"address\":\"/" X16("123456") "12345678901\"", "process.address is \"/1234561"},
        {"\"0x5\"", "\"0x5\",\"address\":\"/\"", "process.address is \"/\": expected an absolute path or \"@name\""},
        {"\"0x5\"", "\"0x5\",\"address\":\"@\"", "process.address is \"@\""},
        {"\"0x5\"", "\"0x5\",\"address\":\"relative\"", "process.address is \"relative\""},
        {"\"0x5\"", "\"0x5\",\"address\":\"x\xc3\xa9\"", "process.address is \"x"},
        {"ccddeeff\"", "ccddee\"", "process.engine"},
        {"ccddeeff\"", "ccddeeff00\"", "process.engine"},
        {"ccddeeff\"", "ccddeeFF\"", "process.engine"},
        {"ccddeeff\"", "ccddeef\"", "process.engine"}};
    EXPECT_REFUSED(changes, NVLX_EFORMAT);
}

/* Every place of a 64-bit number, with everything that is none. */
static void test_bad_numbers(void **state) {
    (void)state;
    static const char *const numbers[] = {
        "\"\"",           "\"0x\"",  "\"0\"",    "\"1\"",    "\"0X1\"",  "\"0x01\"", "\"0x00\"",
        "\"0xA\"",        "\"0xg\"", "\"-0x1\"", "\" 0x1\"", "\"0x1 \"", "\"0x+1\"", "\"0x10000000000000000\"",
        "\"0x1\\u0000\"", "1",       "1.5",      "[]",       "{}",       "true"};
    static const struct change places[] = {{"\"0x7b\"", NULL, "process.pid is "},
                                           {"\"0x1\"", NULL, "segments[0].serial is "},
                                           {"\"0x7f0000001000\"", NULL, "segments[1].base is "},
                                           {"\"0x2000\"", NULL, "segments[1].size is "}};
    for (size_t i = 0; i < NVLXI_COUNT(places); i++)
        for (size_t j = 0; j < NVLXI_COUNT(numbers); j++) {
            struct change change = {places[i].from, numbers[j], places[i].words};
            expect_refused_in(VALID, &change, 1, NVLX_EFORMAT);
        }
}

/* Every word of a region, with everything that is none there. */
static void test_bad_words(void **state) {
    (void)state;
    static const char *const numbers[] = {
        " ",           " 0x",         " 0",    " 1",    " 0X1",  " 0x01", " 0x00",
        " 0xA",        " 0xg",        " -0x1", "  0x1", " 0x+1", " \\t",  " 0x10000000000000000",
        " 0x1\\u0000", " 0x1\\u00a0", " null", " -"};
    static const char *const indices[] = {
        "\" 0x",   "\"0x0 0x",      "\"00 0x",         "\"01 0x",         "\"+0 0x",
        "\"-1 0x", "\"-- 0x",       "\"0.0 0x",        "\"null 0x",       "\"2 0x",
        "\" 0 0x", "\"0\\u0000 0x", "\"4294967295 0x", "\"4294967296 0x", "\"18446744073709551616 0x"};
    static const char *const accesses[] = {" \"", "  rw\"", " wr\"", " rwx\"", " RW\"", " rw\\u0000\"", " 3\""};
    struct change change = {" 0x1ff0", NULL, "regions[1].offset is \""};
    for (size_t i = 0; i < NVLXI_COUNT(numbers); i++) {
        change.to = numbers[i];
        expect_refused_in(VALID, &change, 1, NVLX_EFORMAT);
    }
    change = (struct change){" 0x200", NULL, "regions[0].length is \""};
    for (size_t i = 0; i < NVLXI_COUNT(numbers); i++) {
        change.to = numbers[i];
        expect_refused_in(VALID, &change, 1, NVLX_EFORMAT);
    }
    change = (struct change){"\"0 0x", NULL, "regions[0].segment is \""};
    for (size_t i = 0; i < NVLXI_COUNT(indices); i++) {
        change.to = indices[i];
        expect_refused_in(VALID, &change, 1, NVLX_EFORMAT);
    }
    change = (struct change){" rw\"", NULL, "regions[0].since is \""};
    for (size_t i = 1; i < NVLXI_COUNT(numbers); i++) {
        char since[40];
        snprintf(since, sizeof since, " rw%s\"", numbers[i]);
        change.to = since;
        if (numbers[i][1] != ' ') /* a word of no letters is none */
            expect_refused_in(VALID, &change, 1, NVLX_EFORMAT);
    }
    change = (struct change){" rw\"", NULL, "regions[0].digest is \""};
    for (size_t i = 1; i < NVLXI_COUNT(numbers); i++) {
        char digest[64];
        snprintf(digest, sizeof digest, " rw 0x1 other:x digest:%s\"", numbers[i] + 1);
        change.to = digest;
        expect_refused_in(VALID, &change, 1, NVLX_EFORMAT);
    }
    change = (struct change){" rw\"", NULL, "regions[0].access is \""};
    for (size_t i = 0; i < NVLXI_COUNT(accesses); i++) {
        change.to = accesses[i];
        expect_refused_in(VALID, &change, 1, NVLX_EFORMAT);
    }
}

static void test_bad_segments(void **state) {
    (void)state;
    static const struct change changes[] = {
        {SEGMENTS, "{}", "segments is an object"},
        {"\"segments\":" SEGMENTS ",", "", "segments is missing"},
        {SEGMENTS, "[7]", "segments[0] is a number"},
        {SEGMENTS, "[[]]", "segments[0] is an array"},
        {SEGMENTS, "[null]", "segments[0] is null"},
        {SEGMENTS, "[{}]", "segments[0].kind is missing"},
        {"cuda_malloc", "", "segments[0].kind is \"\""},
        {"cuda_malloc", "Cuda", "segments[0].kind is \"Cuda\""},
        {"\"cuda_malloc\"", "1", "segments[0].kind is a number"},
        {DEVICE, "00", "segments[0].device is \"00\""},
        {DEVICE, DEVICE "00", "segments[0].device"},
        {"0c0d0e0f", "0c0d0e0F", "segments[0].device"},
        {"\"0x1000\"", "\"0x0\"", "segments[0]: base 0x7f0000000000 + size 0x0"},
        {"\"0x2000\"", "\"0xffff80fffffff000\"", "segments[1]: base 0x7f0000001000 + size 0xffff80fffffff000"},
        {"\"0x2000\"", "\"0xffffffffffffffff\"", "segments[1]"},
        {"\"0x1000\"", "\"0x1001\"", "segments[1] at 0x7f0000001000 overlaps segments[0]"},
        {"\"0x7f0000001000\"", "\"0x7f0000000000\"", "segments[1] at 0x7f0000000000 overlaps segments[0]"},
        {"\"0x7f0000001000\"", "\"0x7effffffe001\"", "segments[0] at 0x7f0000000000 overlaps segments[1]"},
        {"\"handle\":\"" HANDLE "\"", "\"h\":0", "segments[0].handle is missing"},
        {"\"" HANDLE "\"", "\"\"", "segments[0].handle of 0 characters"},
        {HANDLE, HANDLE "0", "segments[0].handle of 17"},
        {HANDLE, "DEADBEEF", "segments[0].handle of 8"},
        {HANDLE, "deadbeef g", "segments[0].handle of 10"},
        {HANDLE, X16("deadbeef") "00", "segments[0].handle of 130"},
        {"\"" HANDLE "\"", "[]", "segments[0].handle is an array"},
        {HANDLE "\"", HANDLE "\",\"file\":true", "segments[0].file is true: expected none for a segment of kind"},
        {HANDLE "\"", HANDLE "\",\"file\":1", "segments[0].file is a number: expected a truth value"},
        {HANDLE "\"", HANDLE "\",\"file\":null", "segments[0].file is null"},
        {HANDLE "\"", HANDLE "\",\"file\":\"true\"", "segments[0].file is \"true\""},
        {"\"" HANDLE "\"", HANDLE, "Line 1, Column"},
        {"\"" HANDLE "\"", "0" HANDLE, "Line 1, Column"},
        {"\"" HANDLE "\"", "-" HANDLE, "Line 1, Column"},
        {"\"" HANDLE "\"", "{\"" HANDLE "\":1,\"" HANDLE "\":1}", "Line 1, Column"}};
    EXPECT_REFUSED(changes, NVLX_EFORMAT);
}

static void test_bad_regions(void **state) {
    (void)state;
    static const struct change changes[] = {
        {REGIONS, "null", "regions is null"},
        {",\"regions\":" REGIONS, "", "regions is missing"},
        {REGIONS, "[{}]", "regions[0] is an object"},
        {REGIONS, "[[]]", "regions[0] is an array"},
        {"[\"a\",\"0 0x0 0x200 rw\"]", "[\"0 0x0 0x200 rw\"]", "regions[0] is an array: expected an array of name"},
        {"\"0 0x0 0x200 rw\"", "0", "regions[0].range is a number: expected a string of segment, offset"},
        {"\"0 0x0 0x200 rw\"", "null", "regions[0].range is null"},
        {"\"0 0x0 0x200 rw\"", "[0,\"0x0\",\"0x200\",\"rw\"]", "regions[0].range is an array"},
        {"\"0 0x0 0x200 rw\"", "\"\"", "regions[0].segment is \"\": expected \"-\" or an index below 2"},
        {"\"0 0x0 0x200 rw\"", "\"0\"", "regions[0].offset is missing: expected \"0x\" and 1 to 16"},
        {"\"0 0x0 0x200 rw\"", "\"0 0x0\"", "regions[0].length is missing"},
        {"\"0 0x0 0x200 rw\"", "\"0 0x0 0x200\"", "regions[0].access is missing: expected \"-\", \"r\", \"w\""},
        {"\"0 0x0 0x200 rw\"", "\"0 0x0 rw\"", "regions[0].length is \"rw\""},
        {"\"0 0x0 0x200 rw\"", "\"0 0x0  0x200 rw\"", "regions[0].length is \"\""},
        {"\"0 0x0 0x200 rw\"", "\"0\xc2\xa0 0x0 0x200 rw\"", "regions[0].segment is \"0??\""},
        {"\"0 0x0 0x200 rw\"", "\"2 0x0 0x200 rw\"", "regions[0].segment is \"2\": expected \"-\" or an index below 2"},
        {"\"0 0x0", "\"- 0x0", "regions[0]: offset 0x0 + length 0x200 without a segment"},
        {"\"- 0x0", "\"1 0x0", "regions[3]: 0 bytes in segment 1"},
        {"\"- 0x0", "\"- 0x1", "regions[3]: offset 0x1 + length 0x0 without"},
        {"0x1ff0", "0x1ff1", "regions[1]: offset 0x1ff1 + length 0x10 leave segment 1 of 0x2000 bytes"},
        {"0x1ff0", "0x2000", "regions[1]: offset 0x2000 + length 0x10 leave segment 1"},
        {"0x1ff0", "0xfffffffffffffff8", "regions[1]: offset 0xfffffffffffffff8"},
        {"0x0 0x200", "0x0 0x1001", "regions[0]: offset 0x0 + length 0x1001 leave segment 0 of 0x1000"},
        {"\"a\"", "\"b\"", "regions[1].name is \"b\", which is taken by regions[0]"},
        {"\"b\"", "\"zero\"", "regions[3].name is \"zero\", which is taken by regions[1]"}};
    EXPECT_REFUSED(changes, NVLX_EFORMAT);
}

static void test_bad_names(void **state) {
    (void)state;
    static const struct change changes[] = {
        {"\"a\"", "\"\"", "regions[0].name is \"\""},
        {"\"a\"", "1", "regions[0].name is a number"},
        {"\"a\"", "\"a\\u0000b\"", "regions[0].name is \"a?b\""},
        {"\"a\"", "\"a\\nb\"", "regions[0].name is \"a?b\""},
        {"\"a\"", "\"a\\u001f\"", "regions[0].name"},
        {"\"a\"", "\"a\\u007f\"", "regions[0].name"},
        {"\"a\"", "\"a\\u0085\"", "regions[0].name"},
        {"\"a\"", "\"a\xff\"", "regions[0].name is \"a?\""},
        {"\"a\"", "\"\xc3\"", "regions[0].name"},
        {"\"a\"", "\"\xc0\xaf\"", "regions[0].name"},
        {"\"a\"", "\"\xed\xa0\x80\"", "regions[0].name"},
        {"\"a\"", "\"\\ud800\"", "Line 1, Column"},
        {"\"a\"", "\"\\udc00\"", "regions[0].name"},
        {"\"a\"", "\"" X16(X16("n")) "\"", "regions[0].name is \"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...\""}};
    EXPECT_REFUSED(changes, NVLX_EFORMAT);
}

static void test_bad_json(void **state) {
    (void)state;
    static const struct change changes[] = {{VALID, "", "descriptor: "},
                                            {VALID, "[]", "the text is an array"},
                                            {VALID, "null", "descriptor: "},
                                            {VALID, "7", "descriptor: "},
                                            {VALID, "nvlxfer", "Line 1, Column 1"},
                                            {"{\"format\"", "\xef\xbb\xbf{\"format\"", "Line 1, Column 1"},
                                            {"{\"format\"", "{/**/\"format\"", "a comment at byte 1"},
                                            {"{\"format\"", "{//\n\"format\"", "a comment at byte 1"},
                                            {"{\"format\"", "{'format'", "Line 1, Column 2"},
                                            {"{\"format\"", "{format", "Line 1, Column 2"},
                                            {"{\"format\"", "{\"format\":1,\"format\"", "Duplicate key"},
                                            {"\"pid\"", "\"pid\":\"0x1\",\"pid\"", "Duplicate key"},
                                            {"[1,0]", "[1,0,]", "Line 1, Column 36"},
                                            {"[1,0]", "[1,,0]", "Line 1, Column"},
                                            {"[1,0]", "[1,NaN]", "Line 1, Column"},
                                            {"[1,0]", "[1,0],\"x\":Infinity", "Line 1, Column"},
                                            {"w\"]]}", "w\"]],}", "Line 1, Column"},
                                            {"w\"]]}", "w\"]]}{}", "Extra non-whitespace"},
                                            {"w\"]]}", "w\"]]}x", "Extra non-whitespace"},
                                            {"\"cuda\"", "\"cu\nda\"", "control character 0x0a at byte 49"},
                                            {"{\"format\"", "\f{\"format\"", "control character 0x0c at byte 0"}};
    EXPECT_REFUSED(changes, NVLX_EFORMAT);
    struct nvlxi_descriptor *descriptor;
    expect("final NUL", decode(VALID, sizeof VALID, &descriptor), NVLX_EFORMAT, "the length is without a final NUL");
    expect("empty", decode("", 0, &descriptor), NVLX_EFORMAT, "the text is empty");
    expect("an address", decode("@weights", 8, &descriptor), NVLX_EFORMAT, "an address is for nvlx_connect");
    expect("too long", nvlxi_descriptor_decode(VALID, NVLXI_TEXT_MAX + 1ull, &descriptor), NVLX_EFORMAT,
           "268435457 bytes");
}

/* ---- Changes ---------------------------------------------------------------------------------------------------- */

#define CHANGES "\"from\":\"0x3\",\"removed\":\"0x1 0xffffffffffffffff\""

static void test_changes(void **state) {
    (void)state;
    char *text = replace("\"segments\"", CHANGES ",\"segments\"");
    struct nvlxi_descriptor *decoded = decode_valid(text);
    assert_int_equal(decoded->from, 3);
    assert_int_equal(decoded->removed_count, 2);
    assert_int_equal(decoded->removed[0], 1);
    assert_int_equal(decoded->removed[1], UINT64_MAX);
    expect_round_trip(decoded);
    nvlxi_descriptor_free(decoded);
    static const struct change changes[] = {
        {"\"0x3\"", "\"0x0\"", "from is 0x0"},
        {"\"0x3\"", "\"0x5\"", "from is 0x5"},
        {"\"0x3\"", "\"0x6\"", "from is 0x6"},
        {"\"0x3\"", "3", "from is a number"},
        {"\"0x1 0x", "\"0x1  0x", "removed is \"\""},
        {"\"0x1 0x", "\" 0x1 0x", "removed is \"\""},
        {"\"0x1 0x", "\"0x01 0x", "removed is \"0x01\""},
        {"ffff\"", "ffff \"", "removed is \"\""},
        {"\"0x1 0xffffffffffffffff\"", "\"\"", "removed is \"\""},
        {"\"0x1 0xffffffffffffffff\"", "[\"0x1\"]", "removed is an array"},
    };
    for (size_t i = 0; i < NVLXI_COUNT(changes); i++)
        expect_refused_in(text, &changes[i], 1, NVLX_EFORMAT);
    free(text);
    const struct nvlxi_descriptor late = {.backend = "host", .identity = {.generation = 3}, .from = 3};
    size_t length;
    expect("late", nvlxi_descriptor_encode(&late, &text, &length), NVLX_EINVAL, "from generation 3 to 3");
}

static const struct CMUnitTest cases[] = {
    cmocka_unit_test(test_extreme_values), cmocka_unit_test(test_unencodable), cmocka_unit_test(test_ignored),
    cmocka_unit_test(test_unknown_kind),   cmocka_unit_test(test_version),     cmocka_unit_test(test_bad_head),
    cmocka_unit_test(test_bad_numbers),    cmocka_unit_test(test_bad_words),   cmocka_unit_test(test_bad_segments),
    cmocka_unit_test(test_bad_regions),    cmocka_unit_test(test_bad_names),   cmocka_unit_test(test_bad_json),
    cmocka_unit_test(test_changes)};
const struct program program = {.name = "descriptor", .cases = cases, .count = COUNT(cases), .begin = watch_handles};
