/* nvlx_perf: ending on errors, time, statistics, sizes, progress. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <nvlxfer.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "perf.h"

const char *perf_role = "nvlx_perf";

void perf_die(const char *format, ...) {
    va_list arguments;
    perf_progress_end();
    fflush(stdout);
    fprintf(stderr, "%s: ", perf_role);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

void perf_check(int code, const char *what) {
    if (code)
        perf_die("%s: %s", what, *nvlx_last_error() ? nvlx_last_error() : nvlx_strerror(code));
}

#define WATCH_S 150 /* longer than any wait that tells what it waited for */

static void give_up(int signal) {
    static const char text[] = "nvlx_perf: given up: nothing has come to an end for 150 seconds\n";
    (void)signal;
    if (write(STDERR_FILENO, text, sizeof text - 1)) {
        /* it is gone, or it is not */
    }
    _exit(2);
}

void perf_watch(void) {
    static bool set;
    const struct sigaction action = {.sa_handler = give_up};
    if (!set && sigaction(SIGALRM, &action, NULL))
        perf_die("sigaction: no watch can be kept");
    set = true;
    alarm(WATCH_S);
}

void perf_watch_end(void) {
    alarm(0);
}

void *perf_alloc(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        perf_die("no memory for %zu times %zu bytes", count, size);
    return memory;
}

uint64_t perf_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t perf_random(uint64_t *state) { /* splitmix64 */
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

double perf_unit_random(uint64_t *state) {
    return (double)(perf_random(state) >> 11) / 9007199254740992.0;
}

static int by_value(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

double perf_percentile(double *values, size_t count, double fraction) {
    if (!count)
        return 0;
    qsort(values, count, sizeof *values, by_value);
    size_t at = (size_t)(fraction * (double)count);
    return values[at < count ? at : count - 1];
}

double perf_gbps(uint64_t bytes, double ns) {
    return ns > 0 ? (double)bytes / ns : 0;
}

struct perf_text perf_size_text(uint64_t bytes) {
    struct perf_text result;
    const char *unit = "";
    if (bytes && bytes % (1u << 30) == 0) {
        bytes >>= 30;
        unit = "G";
    } else if (bytes && bytes % (1u << 20) == 0) {
        bytes >>= 20;
        unit = "M";
    } else if (bytes && bytes % (1u << 10) == 0) {
        bytes >>= 10;
        unit = "K";
    }
    snprintf(result.text, sizeof result.text, "%" PRIu64 "%s", bytes, unit);
    return result;
}

#define SILENCE  UINT64_C(2000000000)
#define INTERVAL UINT64_C(10000000000) /* between lines that are not overwritten */

static uint64_t last_progress;
static bool unfinished_line;

void perf_progress(const char *format, ...) {
    const uint64_t now = perf_now();
    const bool terminal = isatty(STDERR_FILENO);
    va_list arguments;
    if (!last_progress)
        last_progress = now;
    if (now - last_progress < (unfinished_line && terminal ? SILENCE / 10 : unfinished_line ? INTERVAL : SILENCE))
        return;
    last_progress = now;
    unfinished_line = true;
    fputs(terminal ? "\r\033[K" : "", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (!terminal)
        fputc('\n', stderr);
    fflush(stderr);
}

void perf_progress_end(void) {
    if (unfinished_line && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    unfinished_line = false;
    last_progress = perf_now();
}
