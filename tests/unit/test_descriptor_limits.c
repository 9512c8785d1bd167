/* Descriptors that do harm: deep, huge, cut, damaged, or read while memory runs out; and what large ones cost.
 * SPDX-License-Identifier: Apache-2.0 */
#include "descriptor_expect.h"
#include "faulty_memory.h"

#include <time.h>

static void ignore(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    (void)message;
}

/* `head`, then `unit` `count` times, then `tail`. */
static void expect_repeated(const char *head, const char *unit, size_t count, const char *tail, const char *words) {
    size_t size = strlen(unit), length = strlen(head) + size * count + strlen(tail);
    char *text = malloc(length + 1);
    assert_non_null(text);
    char *end = stpcpy(text, head);
    for (size_t i = 0; i < count; i++)
        end = stpcpy(end, unit);
    memcpy(end, tail, strlen(tail) + 1);
    struct nvlxi_descriptor *descriptor = NULL;
    expect(unit, nvlxi_descriptor_decode(text, length, &descriptor), NVLX_EFORMAT, words);
    assert_null(descriptor);
    free(text);
}

static void test_huge(void **state) {
    (void)state;
    static const char head[] = "{\"format\":\"nvlxfer\",\"version\":[1,0],\"backend\":\"cuda\",\"process\":" PROCESS;
    char start[sizeof head + 40];
    expect_repeated("", "[", 100000, "", "more than 32 levels at byte 32");
    expect_repeated("", "{\"a\":", 100000, "", "more than 32 levels");
    expect_repeated("{\"x\":", "[", 31, "", "Line 1, Column");
    expect_repeated("[", ",", 20000000, "", "more than 8388608 values");
    expect_repeated("[", "{}", 8000000, "", "Line 1, Column");
    expect_repeated("{\"format\":\"", ",[", 10000000, "\"}", "format is \",[,[");
    snprintf(start, sizeof start, "%s,\"segments\":[0", head);
    expect_repeated(start, ",0", NVLXI_SEGMENTS_MAX, "]}", "segments: 262145 entries, of at most 262144");
    snprintf(start, sizeof start, "%s,\"segments\":[],\"regions\":[0", head);
    expect_repeated(start, ",0", NVLXI_REGIONS_MAX, "]}", "regions: 1048577 entries, of at most 1048576");
}

static void test_truncated(void **state) {
    (void)state;
    for (size_t length = 0; length < strlen(VALID); length++) {
        struct nvlxi_descriptor *descriptor = NULL;
        expect("prefix", decode(VALID, length, &descriptor), NVLX_EFORMAT, "descriptor: ");
        assert_null(descriptor);
    }
}

static void expect_flips_harmless(const char *valid) {
    static const uint8_t others[] = "\"\\[]{}:,.-/0fgx \xff";
    const size_t length = strlen(valid);
    uint8_t *text = (uint8_t *)strdup(valid);
    assert_non_null(text);
    for (size_t at = 0; at < length; at++)
        for (size_t i = 0; i < 8 + sizeof others; i++) {
            uint8_t byte = text[at];
            text[at] = i < 8 ? (uint8_t)(byte ^ 1u << i) : others[i - 8];
            const char *wrong = check_text((const char *)text, length);
            if (wrong)
                FAIL("%s: %.*s", wrong, (int)length, (const char *)text);
            text[at] = byte;
        }
    free(text);
}

/* Any text one byte away from a valid one is refused, or decodes to something sound. */
static void test_flipped(void **state) {
    (void)state;
    expect_flips_harmless(VALID);
    expect_flips_harmless(KINDS);
}

struct cost {
    double encode_ms, decode_ms;
};

/* What a weight loader's descriptor costs in time; its size is at most most_bytes. */
static struct cost cost_of(size_t region_count, size_t most_bytes) {
    enum { SEGMENTS_HELD = 500, STEP = 512 };
    struct nvlxi_segment_record *segments = calloc(SEGMENTS_HELD, sizeof *segments);
    struct nvlxi_region_record *regions = calloc(region_count, sizeof *regions);
    char(*names)[80] = calloc(region_count, sizeof *names);
    assert_true(segments && regions && names);
    for (uint32_t i = 0; i < SEGMENTS_HELD; i++) {
        segments[i] = (struct nvlxi_segment_record){.kind = NVLXI_KIND_CUDA_MALLOC,
                                                    .kind_name = "cuda_malloc",
                                                    .serial = i + 1,
                                                    .base = 0x7f0000000000 + i * 0x4000000ull,
                                                    .size = 0x4000000,
                                                    .handle = {.length = NVLXI_HANDLE_BYTES}};
        memset(segments[i].handle.bytes, (int)i, NVLXI_HANDLE_BYTES);
    }
    for (size_t i = 0; i < region_count; i++) {
        uint32_t segment = (uint32_t)(i % SEGMENTS_HELD);
        snprintf(names[i], sizeof names[i], "model.layers.%zu.self_attn.%c_proj.weight.%zu", i / 7 % 80, "qkvo"[i % 4],
                 i);
        regions[i] = (struct nvlxi_region_record){.name = names[i],
                                                  .segment = segment,
                                                  .access = NVLX_ACCESS_READ,
                                                  .address = segments[segment].base + i / SEGMENTS_HELD * STEP,
                                                  .length = STEP,
                                                  .segment_count = 1};
    }
    struct nvlxi_descriptor descriptor = {.backend = "cuda",
                                          .segments = segments,
                                          .segment_count = SEGMENTS_HELD,
                                          .regions = regions,
                                          .region_count = region_count};
    strcpy(descriptor.identity.boot_id, "0c2f5a9e-1111-4222-8333-444455556666");
    strcpy(descriptor.identity.engine, "00112233445566778899aabbccddeeff");

    char *text;
    size_t length;
    struct nvlxi_descriptor *decoded = NULL;
    clock_t start = clock(); /* the process's own time: the machine may be busy */
    expect("encode", nvlxi_descriptor_encode(&descriptor, &text, &length), 0, "");
    clock_t middle = clock();
    expect("decode", nvlxi_descriptor_decode(text, length, &decoded), 0, "");
    double encode_ms = (double)(middle - start) * 1e3 / CLOCKS_PER_SEC;
    double decode_ms = (double)(clock() - middle) * 1e3 / CLOCKS_PER_SEC;
    printf("%zu regions in %d segments: %zu bytes, encoded in %.1f ms, decoded in %.1f ms\n", region_count,
           SEGMENTS_HELD, length, encode_ms, decode_ms);
    assert_null(compare_descriptors(&descriptor, decoded));
    for (size_t i = 0; i < region_count; i++)
        assert_ptr_equal(nvlxi_name_index_find(&decoded->by_name, decoded->regions, names[i]), &decoded->regions[i]);
    assert_null(nvlxi_name_index_find(&decoded->by_name, decoded->regions, "model.layers.0.self_attn.q_proj.weight."));
    assert_true(length <= most_bytes);
    nvlxi_descriptor_free(decoded);
    free(text);
    free(names);
    free(regions);
    free(segments);
    return (struct cost){encode_ms, decode_ms};
}

/* The cost grows as the table does, on a machine of any speed. */
static void test_cost(void **state) {
    (void)state;
    enum { FEW = 15000, MANY = 100000, LEEWAY = 3 };
    struct cost few = cost_of(FEW, 1500000), many = cost_of(MANY, 9000000);
    double grown = (double)MANY / FEW * LEEWAY;
    assert_true(many.encode_ms <= few.encode_ms * grown + 20 && many.decode_ms <= few.decode_ms * grown + 20);
}

/* 100,000 regions of one name; the best of three. */
static double ms_to_encode(const char *name) {
    enum { NAMED = 100000 };
    struct nvlxi_region_record *regions = calloc(NAMED, sizeof *regions);
    assert_non_null(regions);
    for (size_t i = 0; i < NAMED; i++)
        regions[i] =
            (struct nvlxi_region_record){.name = (char *)name, .segment = NVLXI_NO_SEGMENT, .access = NVLX_ACCESS_READ};
    const struct nvlxi_descriptor descriptor = {.backend = "cuda", .regions = regions, .region_count = NAMED};
    double least = 1e9;
    for (int again = 0; again < 3; again++) {
        char *text;
        size_t length;
        clock_t start = clock();
        expect("encode", nvlxi_descriptor_encode(&descriptor, &text, &length), 0, "");
        double ms = (double)(clock() - start) * 1e3 / CLOCKS_PER_SEC;
        least = ms < least ? ms : least;
        free(text);
    }
    free(regions);
    return least;
}

/* Twice the text takes twice the time, about. */
static void test_escapes(void **state) {
    (void)state;
    char plain[256] = "", quoted[256] = "";
    memset(plain, 'a', sizeof plain - 1);
    memset(quoted, '"', sizeof quoted - 1);
    double plain_ms = ms_to_encode(plain), quoted_ms = ms_to_encode(quoted);
    printf("names of 255 bytes: encoded in %.1f ms, where all are escaped in %.1f ms\n", plain_ms, quoted_ms);
    assert_true(quoted_ms <= 4 * plain_ms + 100);
}

/* Each of many regions runs the whole of a long run of chunks: placing them takes no walk over it. */
#ifdef __SANITIZE_THREAD__
#define LONG_RUN_MS 15000
#else
#define LONG_RUN_MS 3000
#endif

static void test_long_run(void **state) {
    (void)state;
    enum { COUNT = 50000 };
    char *text = malloc(COUNT * 256u);
    assert_non_null(text);
    char *end =
        text + sprintf(text, "{\"format\":\"nvlxfer\",\"version\":[1,0],\"backend\":\"cuda\",\"process\":" PROCESS
                             ",\"segments\":[");
    for (int i = 0; i < COUNT; i++)
        end += sprintf(end,
                       "%s{\"kind\":\"vmm\",\"device\":\"" DEVICE
                       "\",\"serial\":\"0x1\",\"base\":\"0x%x\",\"size\":\"0x1000\",\"file\":true}",
                       i ? "," : "", i * 0x1000);
    end = stpcpy(end, "],\"regions\":[");
    for (int i = 0; i < COUNT; i++)
        end += sprintf(end, "%s[null,\"0 0x0 0x%x r\"]", i ? "," : "", COUNT * 0x1000);
    end = stpcpy(end, "]}");
    struct nvlxi_descriptor *descriptor = NULL;
    clock_t start = clock();
    expect("decode", nvlxi_descriptor_decode(text, (size_t)(end - text), &descriptor), 0, "");
    double ms = (double)(clock() - start) * 1e3 / CLOCKS_PER_SEC;
    printf("%d regions over %d segments each: decoded in %.1f ms\n", COUNT, COUNT, ms);
    assert_true(ms <= LONG_RUN_MS);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(descriptor->regions[i].segment_count, COUNT);
    nvlxi_descriptor_free(descriptor);
    free(text);
}

/* ---- Memory that runs out --------------------------------------------------------------------------------------- */

/* Makes the n-th allocation of a call fail, for every n until none is left to fail. */
static int decode_failing(long n, struct nvlxi_descriptor **descriptor) {
    memory_fail_at(n);
    memory_arm(true);
    int code = nvlxi_descriptor_decode(VALID, strlen(VALID), descriptor);
    memory_arm(false);
    return code;
}

static bool stream_fails;

FILE *__real_open_memstream(char **text, size_t *size);
FILE *__wrap_open_memstream(char **text, size_t *size);

FILE *__wrap_open_memstream(char **text, size_t *size) {
    return stream_fails ? NULL : __real_open_memstream(text, size);
}

static void test_no_memory(void **state) {
    (void)state;
    struct nvlxi_descriptor *descriptor = NULL;
    char *text = NULL;
    size_t length;
    long n = 1;
    int code;
    for (; (code = decode_failing(n, &descriptor)) != 0; n++) {
        expect("decode", code, NVLX_ENOMEM, "no memory to read");
        assert_null(descriptor);
        assert_int_equal(memory_live(), 0);
    }
    assert_true(n > 50);
    stream_fails = true;
    expect("encode", nvlxi_descriptor_encode(descriptor, &text, &length), NVLX_ENOMEM, "no memory to write");
    stream_fails = false;
    assert_null(text);
    nvlxi_descriptor_free(descriptor);
    assert_int_equal(memory_live(), 0);
}

#define PORTIONS 8192 /* regions: two times as many as are read at once */

/* A text of many regions, each named by its number, the one with number `odd` as it is told. */
static char *portions(size_t odd, const char *how, const char *tail) {
    static const char head[] = "{\"format\":\"nvlxfer\",\"version\":[1,0],\"backend\":\"cuda\",\"process\":" PROCESS
                               ", \"segments\":" SEGMENTS " ,\n\"regions\" : [";
    char *text = malloc(sizeof head + PORTIONS * 64 + strlen(tail) + 1), *at = stpcpy(text, head);
    for (size_t i = 0; i < PORTIONS; i++) {
        at += sprintf(at, i ? "," : "");
        at += i == odd ? sprintf(at, "%s", how) : sprintf(at, "[\"a, ]%zu\\\"\", \"0 0x%zx 0x1 r\"] ", i, i % 4096);
    }
    stpcpy(at, tail);
    return text;
}

static void expect_portions(size_t odd, const char *how, const char *tail, const char *words) {
    char *text = portions(odd, how, tail);
    struct nvlxi_descriptor *descriptor = NULL;
    expect(how, decode(text, strlen(text), &descriptor), NVLX_EFORMAT, words);
    assert_null(descriptor);
    free(text);
}

/* A long list is read in portions: it must be refused where a short one is, wherever the fault lies. */
static void test_portions(void **state) {
    (void)state;
    char *text = portions(4095, "[\"odd\",\"1 0x1 0x2 w 0x5\"]", "],\"x\":{\"regions\":[1,2,]}}");
    struct nvlxi_descriptor *descriptor = NULL;
    expect("x", decode(text, strlen(text), &descriptor), NVLX_EFORMAT, "not strict JSON");
    char *list = strstr(text, "1,2,]");
    list[1] = list[2] = list[3] = ' ';
    expect("all", decode(text, strlen(text), &descriptor), 0, "");
    assert_int_equal(descriptor->region_count, PORTIONS);
    for (size_t i = 0; i < PORTIONS; i++) {
        char name[32];
        snprintf(name, sizeof name, i == 4095 ? "odd" : "a, ]%zu\"", i);
        assert_string_equal(descriptor->regions[i].name, name);
        assert_int_equal(descriptor->regions[i].address, i == 4095 ? 0x7f0000001001 : 0x7f0000000000 + i % 4096);
    }
    nvlxi_descriptor_free(descriptor);
    free(text);
    static const size_t places[] = {0, 1, 4095, 4096, 4097, PORTIONS - 1};
    for (size_t i = 0; i < NVLXI_COUNT(places); i++) {
        char words[64];
        expect_portions(places[i], "", "]}", "not strict JSON");
        expect_portions(places[i], "[null,\"0 0x0 0x1 r\"}", "]}", "not strict JSON");
        expect_portions(places[i], "[null,\"0 0x0 0x1 r\"]]", "]}", "not strict JSON");
        expect_portions(places[i], "[null,\"0 0x0 0x1 r\"],", "]}", "not strict JSON");
        expect_portions(places[i], "[null,'0 0x0 0x1 r']", "]}", "not strict JSON");
        snprintf(words, sizeof words, "regions[%zu].access", places[i]);
        expect_portions(places[i], "[null,\"0 0x0 0x1 x\"]", "]}", words);
    }
    expect_portions(PORTIONS, "", "", "not strict JSON");
    expect_portions(PORTIONS, "", "]", "not strict JSON");
    expect_portions(PORTIONS, "", "}}", "not strict JSON");
    expect_portions(PORTIONS, "", ",]}", "not strict JSON");
    expect_portions(PORTIONS, "", "]}}", "not strict JSON");
    expect_portions(PORTIONS, "", "],}", "not strict JSON");
    expect_portions(PORTIONS, "", "],\"regions\":[]}", "Duplicate key");
    expect_portions(PORTIONS, "", "],\"\\u0072egions\":[]}", "Duplicate key");
}

static int be_quiet(void **state) {
    (void)state;
    return nvlx_set_log(NVLX_LOG_ERROR, ignore, NULL);
}

static const struct CMUnitTest cases[] = {cmocka_unit_test(test_huge),     cmocka_unit_test(test_truncated),
                                          cmocka_unit_test(test_flipped),  cmocka_unit_test(test_cost),
                                          cmocka_unit_test(test_long_run), cmocka_unit_test(test_no_memory),
                                          cmocka_unit_test(test_escapes),  cmocka_unit_test(test_portions)};
const struct program program = {.name = "descriptor_limits", .cases = cases, .count = COUNT(cases), .begin = be_quiet};
