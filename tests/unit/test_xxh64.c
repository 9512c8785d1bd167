/* XXH64, against values that the xxHash library (0.8.1) has given. SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"
#include "cmocka_main.h"
#include "device/xxh64.h"

/* Of the first bytes of `byte`. */
static const struct {
    size_t length;
    uint64_t value;
} known[] = {
    {0, 0xef46db3751d8e999},     {1, 0xe934a84adb052768},   {3, 0xa83378d1eb86ec62},    {4, 0x9882e57ed36c4cfc},
    {7, 0xf0aef407b44730f8},     {8, 0xa5bc8d8944331fe7},   {15, 0x1c29c603ae56ca1f},   {31, 0x1add2d10328c4897},
    {32, 0x333288d992cf3b16},    {33, 0x379b60150f2cfc7f},  {39, 0x2a8d83d61a8e7672},   {63, 0x230f593878fe3703},
    {64, 0x60a3644ca073e2cb},    {100, 0xacd07a6400e07def}, {1024, 0x5c473d091b0d2140}, {16383, 0xd7fcc57049f32389},
    {16384, 0x3b832f2dc89320ae},
};

static uint8_t byte(size_t i) {
    return (uint8_t)(i * 131 + (i >> 8) * 17 + (i >> 16) * 29);
}

static void test_known_values(void **state) {
    (void)state;
    static uint8_t bytes[16384 + 16];
    for (size_t shift = 0; shift < 16; shift++) {
        for (size_t i = 0; i + shift < sizeof bytes; i++)
            bytes[shift + i] = byte(i);
        for (size_t i = 0; i < NVLXI_COUNT(known); i++)
            if (nvlxi_xxh64(bytes + shift, known[i].length) != known[i].value)
                FAIL("of %zu bytes at %zu", known[i].length, shift);
    }
}

/* In parts of any length, and more after each question. */
static void test_words(void **state) {
    (void)state;
    uint64_t words[100];
    for (size_t i = 0; i < sizeof words; i++)
        ((uint8_t *)words)[i] = byte(i);
    for (size_t part = 1; part <= NVLXI_COUNT(words); part++) {
        struct nvlxi_xxh64 sum;
        nvlxi_xxh64_init(&sum);
        assert_true(nvlxi_xxh64_value(&sum) == known[0].value);
        for (size_t done = 0, count; done < NVLXI_COUNT(words); done += count) {
            count = nvlxi_min(part, NVLXI_COUNT(words) - done);
            nvlxi_xxh64_add(&sum, words + done, count);
            assert_true(nvlxi_xxh64_value(&sum) == nvlxi_xxh64(words, (done + count) * sizeof *words));
        }
    }
}

static const struct CMUnitTest cases[] = {cmocka_unit_test(test_known_values), cmocka_unit_test(test_words)};
const struct program program = {.name = "xxh64", .cases = cases, .count = COUNT(cases)};
