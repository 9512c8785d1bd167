/* How tests of descriptors take a text apart and say what must become of it. SPDX-License-Identifier: Apache-2.0 */
#ifndef DESCRIPTOR_EXPECT_H
#define DESCRIPTOR_EXPECT_H

#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>

#include "checks/descriptor_check.h"
#include "cmocka_main.h"
#include "descriptor_text.h"

/* Handles are capabilities: no message may have a piece of one. */
static inline void watch_log(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    if (strcasestr(message, "deadbee"))
        FAIL("a handle's bytes are in the log: %s", message);
}

static inline void expect(const char *what, int code, int wanted, const char *words) {
    if (code != wanted || (wanted && !strstr(nvlx_last_error(), words)))
        FAIL("%s: %d instead of %d with '%s'; the last error is '%s'", what, code, wanted, words, nvlx_last_error());
}

/* Decodes from memory of exactly that length, so that reading further is noticed. */
static inline int decode(const char *text, size_t length, struct nvlxi_descriptor **descriptor) {
    char *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, text, length);
    int code = nvlxi_descriptor_decode(copy, length, descriptor);
    free(copy);
    return code;
}

static inline struct nvlxi_descriptor *decode_valid(const char *text) {
    struct nvlxi_descriptor *descriptor = NULL;
    expect(text, decode(text, strlen(text), &descriptor), 0, "");
    const char *wrong = check_sound(descriptor);
    if (wrong)
        FAIL("%s: %s", text, wrong);
    return descriptor;
}

/* The text with the first `from` in it replaced by `to`; free it. */
static inline char *replace_in(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    if (!at)
        FAIL("the valid text has no %s", from);
    char *made;
    assert_true(asprintf(&made, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) >= 0);
    return made;
}

static inline void expect_round_trip(const struct nvlxi_descriptor *descriptor) {
    char *text;
    size_t length;
    struct nvlxi_descriptor *decoded = NULL;
    expect("encode", nvlxi_descriptor_encode(descriptor, &text, &length), 0, "");
    assert_int_equal(strlen(text), length);
    assert_null(strpbrk(text, "\r\n"));
    expect(text, decode(text, length, &decoded), 0, "");
    const char *wrong = compare_descriptors(descriptor, decoded);
    if (wrong)
        FAIL("%s: %s", wrong, text);
    nvlxi_descriptor_free(decoded);
    free(text);
}

static inline void expect_unencodable(const struct nvlxi_descriptor *descriptor, const char *words) {
    char *text = NULL;
    size_t length;
    expect(words, nvlxi_descriptor_encode(descriptor, &text, &length), NVLX_EINVAL, words);
    assert_null(text);
}

/* A text means the same after a change. */
static inline void expect_same(const char *original, const char *from, const char *to) {
    char *text = replace_in(original, from, to);
    struct nvlxi_descriptor *expected = decode_valid(original), *found = decode_valid(text);
    const char *wrong = compare_descriptors(expected, found);
    if (wrong)
        FAIL("%s: %s", wrong, text);
    nvlxi_descriptor_free(expected);
    nvlxi_descriptor_free(found);
    free(text);
}

struct change {
    const char *from, *to; /* in the valid text */
    const char *words;     /* in the message */
};

static inline void expect_refused_in(const char *valid, const struct change *changes, size_t count, int code) {
    for (size_t i = 0; i < count; i++) {
        char *text = replace_in(valid, changes[i].from, changes[i].to);
        struct nvlxi_descriptor *descriptor = NULL;
        expect(text, decode(text, strlen(text), &descriptor), code, changes[i].words);
        assert_null(descriptor);
        assert_null(strcasestr(nvlx_last_error(), "deadbee"));
        free(text);
    }
}

/* For the setup of a group of tests. */
static inline int watch_handles(void **state) {
    (void)state;
    return nvlx_set_log(NVLX_LOG_DEBUG, watch_log, NULL);
}

#endif
