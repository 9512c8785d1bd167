/* The identity of a process, and the names of regions: what descriptors carry. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/base.h"
#include "base/identity.h"
#include "base/utf8.h"
#include "cmocka_main.h"

static void expect_names(const char *what, const char *const *names, bool valid) {
    for (size_t i = 0; names[i]; i++)
        if (nvlxi_utf8_is_name(names[i]) != valid)
            FAIL("%s: [%zu] should be %s", what, i, valid ? "valid" : "refused");
}

#define EXPECT_NAMES(what, valid, ...) expect_names(what, (const char *const[]){__VA_ARGS__, NULL}, valid)

static void test_names(void **state) {
    (void)state;
    EXPECT_NAMES("one byte", true, "a", " ~", "a\"\\/");
    EXPECT_NAMES("longer", true, "\xc2\xa0", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                 "\xef\xbf\xbf");
    EXPECT_NAMES("four bytes", true, "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "x\xf0\x9f\x98\x80y");
    EXPECT_NAMES("none, controls", false, "", "\x01", "\x1f", "\t", "\x7f", "\xc2\x80", "\xc2\x9f");
    EXPECT_NAMES("no first byte", false, "\x80", "\xbf", "a\x80", "\xfe", "\xff", "\xf8\x88\x80\x80\x80");
    EXPECT_NAMES("cut short", false, "\xc2", "\xe2\x82", "\xf0\x9f\x98", "\xc2z", "\xe2\x82z", "\xc3\xc3");
    EXPECT_NAMES("longer than needed", false, "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf");
    EXPECT_NAMES("surrogates, too high", false, "\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xf7\xbf\xbf\xbf");
    assert_false(nvlxi_utf8_bytes_are_name("a\0b", 3));
    assert_true(nvlxi_utf8_bytes_are_name("\xc3\xbc\xff", 2));
    char name[NVLXI_NAME_MAX + 2];
    memset(name, 'n', sizeof name);
    name[NVLXI_NAME_MAX + 1] = '\0';
    assert_false(nvlxi_utf8_is_name(name));
    name[NVLXI_NAME_MAX] = '\0';
    assert_true(nvlxi_utf8_is_name(name));
}

static struct nvlxi_identity identity_of_child(void) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork_child(20);
    if (child == 0) {
        struct nvlxi_identity mine;
        bool done = !nvlxi_identity_make(&mine) && write(ends[1], &mine, sizeof mine) == sizeof mine;
        _exit(done ? 0 : 1);
    }
    struct nvlxi_identity identity;
    assert_int_equal(read(ends[0], &identity, sizeof identity), sizeof identity);
    fork_end(child);
    assert_int_equal(identity.pid, child);
    close(ends[0]);
    close(ends[1]);
    return identity;
}

static void test_identity(void **state) {
    (void)state;
    struct nvlxi_identity first, second;
    assert_int_equal(nvlxi_identity_make(&first), 0);
    assert_int_equal(prctl(PR_SET_NAME, "a) R 1 (b"), 0); /* is in the file that the start time is read from */
    assert_int_equal(nvlxi_identity_make(&second), 0);
    assert_true(nvlxi_identity_same_process(&first, &second));
    assert_string_not_equal(first.engine, second.engine);
    assert_int_equal(strspn(first.engine, "0123456789abcdef"), 32);
    assert_int_equal(strlen(first.boot_id), 36);
    assert_int_equal(first.pid, getpid());
    assert_int_equal(first.generation, 0);
    assert_true(first.start_time > 0 && first.pid_namespace > 0);

    second = identity_of_child();
    assert_false(nvlxi_identity_same_process(&first, &second));
    assert_true(second.start_time >= first.start_time);
    second = first;
    second.boot_id[0] = '?';
    assert_false(nvlxi_identity_same_process(&first, &second));
    second = first;
    second.start_time++;
    assert_false(nvlxi_identity_same_process(&first, &second));
    second = first;
    second.pid_namespace++;
    assert_false(nvlxi_identity_same_process(&first, &second));
}

static const struct CMUnitTest cases[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_identity)};
const struct program program = {.name = "identity", .cases = cases, .count = COUNT(cases)};
