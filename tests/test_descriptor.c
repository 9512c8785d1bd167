/* Descriptors: what goes in comes out, and each way in which a text can be malformed is refused by its name.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "descriptor_check.h"
#include "descriptor_text.h"

/* Handles are capabilities: no message may have a piece of one. */
static void watch_log(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    if (strcasestr(message, "deadbee"))
        fail_msg("a handle's bytes are in the log: %s", message);
}

static void expect(const char *what, int code, int wanted, const char *words) {
    if (code != wanted || (wanted && !strstr(nvlx_last_error(), words)))
        fail_msg("%s: %d instead of %d with '%s'; the last error is '%s'", what, code, wanted, words,
                 nvlx_last_error());
}

/* Decodes from memory of the very length, so that reading further is noticed. */
static int decode(const char *text, size_t length, struct nvlxi_descriptor **descriptor) {
    char *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, text, length);
    int code = nvlxi_descriptor_decode(copy, length, descriptor);
    free(copy);
    return code;
}

static struct nvlxi_descriptor *decode_valid(const char *text) {
    struct nvlxi_descriptor *descriptor = NULL;
    expect(text, decode(text, strlen(text), &descriptor), 0, "");
    const char *wrong = check_sound(descriptor);
    if (wrong)
        fail_msg("%s: %s", text, wrong);
    return descriptor;
}

/* The valid text with the first `from` in it replaced by `to`; free it. */
static char *replace(const char *from, const char *to) {
    const char *at = strstr(VALID, from);
    if (!at)
        fail_msg("the valid text has no %s", from);
    char *text;
    assert_true(asprintf(&text, "%.*s%s%s", (int)(at - VALID), VALID, to, at + strlen(from)) >= 0);
    return text;
}

/* ---- Round trips ------------------------------------------------------------------------------------------------ */

static void expect_round_trip(const struct nvlxi_descriptor *descriptor) {
    char *text;
    size_t length;
    struct nvlxi_descriptor *decoded = NULL;
    expect("encode", nvlxi_descriptor_encode(descriptor, &text, &length), 0, "");
    assert_int_equal(strlen(text), length);
    assert_null(strpbrk(text, "\r\n"));
    expect(text, decode(text, length, &decoded), 0, "");
    const char *wrong = compare_descriptors(descriptor, decoded);
    if (wrong)
        fail_msg("%s: %s", wrong, text);
    nvlxi_descriptor_free(decoded);
    free(text);
}

static void test_extreme_values(void **state) {
    (void)state;
    char longest[NVLXI_NAME_MAX + 1];
    memset(longest, 'n', NVLXI_NAME_MAX);
    longest[NVLXI_NAME_MAX] = '\0';
    struct nvlxi_segment_record segments[] = {
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
         .handle = {.length = 1}}};
    struct nvlxi_region_record regions[] = {
        {.name = "\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80 \\ \" / ',[]{}",
         .segment = 0,
         .access = NVLX_ACCESS_NONE,
         .address = 1ull << 63,
         .length = 1ull << 62},
        {.name = longest, .segment = 0, .access = NVLX_ACCESS_READ, .address = (3ull << 62) - 1, .length = 1},
        {.name = "", .segment = 1, .access = NVLX_ACCESS_WRITE, .address = 0, .length = 1},
        {.name = "", .segment = 2, .access = NVLX_ACCESS_READ_WRITE, .address = UINT64_MAX - 1, .length = 1},
        {.name = "zero", .segment = NVLXI_NO_SEGMENT, .access = NVLX_ACCESS_READ}};
    struct nvlxi_descriptor descriptor = {.backend = "fifteen_letters",
                                          .identity = {.pid = UINT64_MAX, .generation = 1ull << 53},
                                          .segments = segments,
                                          .segment_count = NVLXI_COUNT(segments),
                                          .regions = regions,
                                          .region_count = NVLXI_COUNT(regions)};
    strcpy(descriptor.identity.boot_id, "\"~\\\"  printable, of 39 characters .....");
    strcpy(descriptor.identity.engine, "ffffffffffffffffffffffffffffffff");
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
    } cases[] = {{{"\xff", 0, 1, 0x1000, 1, 1}, 1, "name of regions[0]"},
                 {{"tab\t", 0, 1, 0x1000, 1, 1}, 1, "name of regions[0]"},
                 {{"a", 0, 4, 0x1000, 1, 1}, 1, "access 4"},
                 {{"a", 0, 1, 0xfff, 1, 1}, 1, "regions[0] at 0xfff"},
                 {{"a", 0, 1, 0x1000, 0x101, 1}, 1, "0x101 bytes"},
                 {{"a", 0, 1, 0x1000, 0, 1}, 1, "regions[0]"},
                 {{"a", 1, 1, 0x1000, 1, 1}, 1, "regions[0]"},
                 {{"a", NVLXI_NO_SEGMENT, 1, 0, 1, 1}, 1, "regions[0]"},
                 {{"a", 0, 1, 0x1000, 1, 1}, 65, "segments[0] has a handle of 65"}};
    for (size_t i = 0; i < NVLXI_COUNT(cases); i++) {
        struct nvlxi_region_record region = cases[i].region;
        struct nvlxi_segment_record segment = {.kind = 1, .base = 0x1000, .size = 0x100};
        segment.handle.length = cases[i].handle_length;
        struct nvlxi_descriptor descriptor = {
            .segments = &segment, .segment_count = 1, .regions = &region, .region_count = 1};
        char *text = NULL;
        size_t length;
        expect(cases[i].words, nvlxi_descriptor_encode(&descriptor, &text, &length), NVLX_EINVAL, cases[i].words);
        assert_null(text);
    }
    struct nvlxi_descriptor many = {.region_count = NVLXI_REGIONS_MAX + 1};
    expect("too many regions", nvlxi_descriptor_encode(&many, NULL, NULL), NVLX_EINVAL, "1048577 regions");
}

/* ---- What other versions may say -------------------------------------------------------------------------------- */

static void expect_same_as_valid(const char *text) {
    struct nvlxi_descriptor *expected = decode_valid(VALID), *found = decode_valid(text);
    const char *wrong = compare_descriptors(expected, found);
    if (wrong)
        fail_msg("%s: %s", wrong, text);
    nvlxi_descriptor_free(expected);
    nvlxi_descriptor_free(found);
}

static void test_ignored(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"[1,0]", "[1,7]"},
        {"[1,0]", "[1,4294967295,\"x\",null]"},
        {"{\"format\"", "{\"new\":{\"a\":[1,2.5e3,null,true,\"\\ud83d\\ude00\"]},\"format\""},
        {"\"pid\"", "\"host\":[],\"pid\""},
        {"\"kind\"", "\"chunks\":[[[[]]]],\"kind\""},
        {"\"rw\"]", "\"rw\",{\"sum\":1},[]]"},
        {"{\"format\"", " \r\n\t{ \"format\""},
        {"\"zero\",null,\"0x0\",\"0x0\",\"w\"]]}", "\"zero\",null,\"0x0\",\"0x0\",\"w\"]]}\n"},
        {"\"zero\"", "\"\\u007aer\\u006F\""}};
    for (size_t i = 0; i < NVLXI_COUNT(changes); i++) {
        char *text = replace(changes[i][0], changes[i][1]);
        expect_same_as_valid(text);
        free(text);
    }
}

static void test_unknown_kind(void **state) {
    (void)state;
    static const char *const handles[] = {"\"" HANDLE "\"", "{\"fd\":3}", "null", "\"no hex\""};
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
        assert_int_equal(descriptor->segments[1].kind, NVLXI_KIND_CUDA_MALLOC);
        assert_int_equal(descriptor->region_count, 4);
        nvlxi_descriptor_free(descriptor);
        free(text);
        free(to);
    }
}

/* ---- Malformed texts -------------------------------------------------------------------------------------------- */

struct change {
    const char *from, *to; /* in the valid text */
    const char *words;     /* in the message */
};

static void expect_refused(const struct change *changes, size_t count, int code) {
    for (size_t i = 0; i < count; i++) {
        char *text = replace(changes[i].from, changes[i].to);
        struct nvlxi_descriptor *descriptor = NULL;
        expect(text, decode(text, strlen(text), &descriptor), code, changes[i].words);
        assert_null(descriptor);
        assert_null(strcasestr(nvlx_last_error(), "deadbee"));
        free(text);
    }
}

#define EXPECT_REFUSED(changes, code) expect_refused(changes, NVLXI_COUNT(changes), code)

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
                                           {"\"0x2000\"", NULL, "segments[1].size is "},
                                           {"\"0x1ff0\"", NULL, "regions[1].offset is "},
                                           {"\"0x200\"", NULL, "regions[0].length is "}};
    for (size_t i = 0; i < NVLXI_COUNT(places); i++)
        for (size_t j = 0; j < NVLXI_COUNT(numbers); j++) {
            struct change change = {places[i].from, numbers[j], places[i].words};
            expect_refused(&change, 1, NVLX_EFORMAT);
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
        {"\"0x200\",\"rw\"]", "\"0x200\"]", "regions[0] is an array"},
        {"\"a\",0", "\"a\",2", "regions[0].segment is 2: expected null or an index below 2"},
        {"\"a\",0", "\"a\",-1", "regions[0].segment is -1"},
        {"\"a\",0", "\"a\",0.0", "regions[0].segment is 0"},
        {"\"a\",0", "\"a\",4294967295", "regions[0].segment is 4294967295"},
        {"\"a\",0", "\"a\",4294967296", "regions[0].segment is 4294967296"},
        {"\"a\",0", "\"a\",\"0\"", "regions[0].segment is a string"},
        {"\"a\",0", "\"a\",null", "regions[0]: offset 0x0 + length 0x200 without a segment"},
        {"\"zero\",null", "\"zero\",1", "regions[3]: 0 bytes in segment 1"},
        {"\"zero\",null,\"0x0\"", "\"zero\",null,\"0x1\"", "regions[3]: offset 0x1 + length 0x0 without"},
        {"\"0x1ff0\"", "\"0x1ff1\"", "regions[1]: offset 0x1ff1 + length 0x10 leave segment 1 of 0x2000 bytes"},
        {"\"0x1ff0\"", "\"0xfffffffffffffff8\"", "regions[1]: offset 0xfffffffffffffff8"},
        {"\"0x0\",\"0x200\"", "\"0x0\",\"0x1001\"", "regions[0]: offset 0x0 + length 0x1001 leave segment 0 of 0x1000"},
        {"\"rw\"", "\"\"", "regions[0].access is \"\""},
        {"\"rw\"", "\"wr\"", "regions[0].access is \"wr\""},
        {"\"rw\"", "\"rw\\u0000\"", "regions[0].access"},
        {"\"rw\"", "3", "regions[0].access is a number"},
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
                                            {"\"w\"]]}", "\"w\"]],}", "Line 1, Column"},
                                            {"\"w\"]]}", "\"w\"]]}{}", "Extra non-whitespace"},
                                            {"\"w\"]]}", "\"w\"]]}x", "Extra non-whitespace"},
                                            {"\"cuda\"", "\"cu\nda\"", "control character 0x0a at byte 49"},
                                            {"{\"format\"", "\f{\"format\"", "control character 0x0c at byte 0"}};
    EXPECT_REFUSED(changes, NVLX_EFORMAT);
    struct nvlxi_descriptor *descriptor;
    expect("final NUL", decode(VALID, sizeof VALID, &descriptor), NVLX_EFORMAT, "control character 0x00 at byte");
    expect("too long", nvlxi_descriptor_decode(VALID, NVLXI_TEXT_MAX + 1ull, &descriptor), NVLX_EFORMAT,
           "268435457 bytes");
}

static int watch(void **state) {
    (void)state;
    return nvlx_set_log(NVLX_LOG_DEBUG, watch_log, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extreme_values), cmocka_unit_test(test_unencodable),  cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_unknown_kind),   cmocka_unit_test(test_version),      cmocka_unit_test(test_bad_head),
        cmocka_unit_test(test_bad_numbers),    cmocka_unit_test(test_bad_segments), cmocka_unit_test(test_bad_regions),
        cmocka_unit_test(test_bad_names),      cmocka_unit_test(test_bad_json)};
    return cmocka_run_group_tests_name("descriptor", tests, watch, NULL);
}
