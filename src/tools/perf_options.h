/* nvlx_perf: what the user asks for. SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_OPTIONS_H
#define PERF_OPTIONS_H

#include "perf.h"

#define PERF_FRAGMENTS_MAX 32
#define PERF_BUDGETS_MAX   6
#define PERF_ROUNDS_MAX    1000
#define PERF_REGIONS_MAX   4096

enum perf_pattern { PERF_SCATTERED, PERF_CONTIGUOUS, PERF_MIXED };
extern const char *const perf_pattern_names[];

/* The raw ways that ours is compared with; bits of perf_options.baselines are 1 << one of these. */
enum perf_baseline { PERF_LOOP, PERF_BATCH, PERF_BATCH4, PERF_STAGED, PERF_KERNEL, PERF_BASELINES };
extern const char *const perf_baseline_names[];

struct perf_options {
    bool op[3]; /* by opcode */
    uint64_t fragments[PERF_FRAGMENTS_MAX];
    size_t fragment_count;        /* 0: the default of what is measured */
    uint64_t count, bytes, arena; /* bytes, arena: 0: the default of the backend */
    uint64_t regions;             /* on each side */
    enum perf_pattern pattern;
    uint32_t backend, mechanism;        /* as in nvlxfer.h */
    uint32_t budgets[PERF_BUDGETS_MAX]; /* of SMs; 0: the library's default */
    size_t budget_count;                /* at least 1 */
    int32_t priority;
    bool prepared, bidirectional, submit, verify;
    bool latency, compute;
    uint64_t random;    /* lists; 0: that test is not run */
    uint32_t baselines; /* bits */
    uint64_t rounds;
    const char *json, *plot; /* NULL: none */
    int gpu[2];              /* the owner's, the measuring process's; -1: choose */
};

/* Exits on --help, and with code 2 on an option that is wrong, naming it. */
void perf_options_read(struct perf_options *options, int argc, char **argv);

/* Whether the table of rates is asked for, and not something instead of it. */
bool perf_options_rates(const struct perf_options *options);

/* Fills in what depends on the backend, and refuses what cannot be. */
void perf_options_complete(struct perf_options *options, bool host);

#endif
