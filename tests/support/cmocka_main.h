/* A program of cmocka cases: it says what it is, and cmocka_main.c has its main. SPDX-License-Identifier: Apache-2.0 */
#ifndef CMOCKA_MAIN_H
#define CMOCKA_MAIN_H

/* cmocka.h has a macro run_tests, and wants what stands here before it. */
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct program {
    const char *name;
    const struct CMUnitTest *cases;
    size_t count;
    CMFixtureFunction begin;           /* before the first case; NULL: nothing is to be done */
    const struct role *roles;          /* of its children; NULL: it has none */
    unsigned child_seconds;            /* the watchdog of each child */
    int (*run)(int argc, char **argv); /* instead of the cases: what gives main's exit code */
};
extern const struct program program;

#endif
