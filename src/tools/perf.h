/* nvlx_perf: what all its parts use: ending on errors, time, statistics, sizes, progress.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_H
#define PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PERF_ENTRIES(array) (sizeof(array) / sizeof *(array))

/* Who speaks in messages: the measuring process, or the owner of the other memory. */
extern const char *perf_role;

/* Prints why, and ends the process with exit code 2. */
void perf_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Dies, with the library's own words, unless `code` is 0. */
void perf_check(int code, const char *what);
/* Ends the process, by SIGALRM, if it is not called again, or perf_watch_end, within some minutes: what waits for a
 * device or another process may wait for ever. */
void perf_watch(void);
void perf_watch_end(void);
/* Zeroed memory, or dies. */
void *perf_alloc(size_t count, size_t size);

uint64_t perf_now(void);                  /* nanoseconds of the monotonic clock */
uint64_t perf_random(uint64_t *state);    /* the next of a sequence that a seed in `state` begins */
double perf_unit_random(uint64_t *state); /* from 0 to below 1 */

/* The value that `fraction` of them do not exceed: 0.5 is the median. Sorts them. */
double perf_percentile(double *values, size_t count, double fraction);
double perf_gbps(uint64_t bytes, double ns); /* decimal: 10^9 bytes a second */

struct perf_text {
    char text[32];
};
struct perf_text perf_size_text(uint64_t bytes); /* "16K"; exact, so some are plain numbers */

/* A line on stderr, once the process has been silent for 2 seconds; on a terminal it overwrites the one before. */
void perf_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Before anything else is printed. */
void perf_progress_end(void);

#endif
