/* nvlx_perf: ending on errors and on Ctrl-C, time, numbers, progress. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <nvlxfer.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
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

static volatile sig_atomic_t stopped;

static void stop(int signal) {
    stopped = signal;
}

void perf_catch_interrupt(void) {
    const struct sigaction action = {.sa_handler = stop, .sa_flags = (int)(SA_RESTART | SA_RESETHAND)};
    if (sigaction(SIGINT, &action, NULL))
        perf_die("sigaction: Ctrl-C cannot be caught");
}

bool perf_stopped(void) {
    return stopped;
}

void *perf_alloc(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        perf_die("no memory for %zu times %zu bytes", count, size);
    return memory;
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

struct perf_text perf_size_text(uint64_t bytes) {
    static const char *const units[] = {"", "K", "M", "G"};
    struct perf_text result;
    size_t unit = 0;
    for (; bytes && bytes % 1024 == 0 && unit + 1 < PERF_ENTRIES(units); unit++)
        bytes /= 1024;
    snprintf(result.text, sizeof result.text, "%" PRIu64 "%s", bytes, units[unit]);
    return result;
}

/* ---- Progress --------------------------------------------------------------------------------------------- */

#define INTERVAL UINT64_C(200000000) /* between lines that overwrite each other */

static bool unfinished_line;

void perf_progress(bool row_done, const char *format, ...) {
    static uint64_t last;
    static int terminal = -1;
    char text[128];
    va_list arguments;
    if (terminal < 0)
        terminal = isatty(STDERR_FILENO);
    if (terminal ? clock_now_ns() - last < INTERVAL : !row_done)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, terminal ? "\r\033[K%s" : "nvlx_perf: %s\n", text);
    last = clock_now_ns();
    unfinished_line = terminal;
}

void perf_progress_end(void) {
    if (unfinished_line)
        fputs("\r\033[K", stderr);
    unfinished_line = false;
}
