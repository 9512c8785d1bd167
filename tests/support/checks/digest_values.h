/* Digests that the xxHash library (0.8.1) has given, as nvlxfer.h defines them. SPDX-License-Identifier: Apache-2.0 */
#ifndef DIGEST_VALUES_H
#define DIGEST_VALUES_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_PATTERN ((size_t)1 << 20) /* bytes */

static inline uint8_t digest_byte(size_t i) {
    return (uint8_t)(i * 131 + (i >> 8) * 17 + (i >> 16) * 29);
}

/* Of the first bytes of the pattern. */
static const struct {
    size_t length;
    uint64_t value;
} digest_values[] = {
    {0, 0xef46db3751d8e999},       {1, 0x36979d78f232250a},       {32, 0x3cad6125fb3b37d9},
    {5000, 0xcc2e4f060e58bb70},    {16383, 0x67256bf682fd892e},   {16384, 0xd79bdcbf657c6aac},
    {16385, 0x593f08419d49ce22},   {49152, 0x2d76a0e613a7f1ba},   {81919, 0x7b9b4085e32038eb},
    {1000000, 0xbe3e3f86209f414b}, {1048576, 0x4372b28ed8567c04},
};

/* Of the pattern 520 times, and its first 12345 bytes: more than the library digests in two rounds. */
#define DIGEST_LONG_TIMES 520
#define DIGEST_LONG_REST  12345
#define DIGEST_LONG_VALUE UINT64_C(0xcfd9573e696dbf1d)

#endif
