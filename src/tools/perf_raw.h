/* nvlx_perf: the raw baselines: what a program would do without libnvlxfer, by the means of the backend alone.
 *
 * One table of functions a backend: perf_raw_cuda, and perf_raw_host, which has memcpy within one process and nothing
 * else. Nothing here returns an error: what fails ends the process, with its cause.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_RAW_H
#define PERF_RAW_H

#include "perf_list.h"

struct perf_raw; /* of one process: streams, and the memory of both sides as this process sees it */

struct perf_handle { /* of an allocation, for another process */
    unsigned char bytes[64];
};

struct perf_raw_setup {
    int gpu;
    char *memory, *staging;                               /* own; staging may be NULL */
    const struct perf_handle *peer_memory, *peer_staging; /* the other process's; NULL: none, in the owner */
    uint64_t size, staging_size;
};

struct perf_sample { /* of one transfer, in nanoseconds */
    double wall;     /* from just before the first call until completion was seen */
    double submit;   /* of it, until the last call that submits had returned */
};

/* How a kernel is run. */
struct perf_choice {
    int kernel, blocks;
};

enum perf_load { PERF_ARITHMETIC, PERF_MEMORY, PERF_LOADS };

struct perf_raw_backend {
    const char *baseline_names[PERF_BASELINES]; /* for people; NULL: the backend has no such baseline */
    /* The GPU's name; and of what the platform consists, such as the driver's version. */
    void (*describe_gpu)(int gpu, char *text, size_t size);
    void (*describe_platform)(char *text, size_t size);

    void (*share)(int gpu, const void *memory, struct perf_handle *handle);
    struct perf_raw *(*open)(const struct perf_raw_setup *setup);
    void (*close)(struct perf_raw *raw);

    /* Makes a list the one that follows; copied. In the owner only for `stage`. */
    void (*set_list)(struct perf_raw *raw, const struct perf_list *list);
    /* Whether a baseline can do the list; if not, why not. */
    const char *(*cannot)(struct perf_raw *raw, enum perf_baseline baseline);
    /* The fastest kernel for the list, with at most `sms` blocks (0: as many as it likes); and a text for it. */
    struct perf_choice (*choose)(struct perf_raw *raw, uint32_t sms);
    void (*describe_choice)(const struct perf_choice *choice, char *text, size_t size);
    /* Any baseline but PERF_STAGED, which takes both processes: each calls `stage` in its turn. */
    void (*run)(struct perf_raw *raw, enum perf_baseline baseline, const struct perf_choice *choice,
                struct perf_sample *sample);
    void (*stage)(struct perf_raw *raw);

    /* Fills own memory, and compares it with pieces that cover it. NULL: the library's nvlx_memcpy and the CPU do it;
     * the baselines then move memory of their own, which is not checked. */
    void (*fill)(struct perf_raw *raw, uint64_t seed);
    void (*check)(struct perf_raw *raw, const struct perf_piece *pieces, size_t count, struct perf_wrong *wrong);

    /* Work that computes, at the same time as transfers; some tens of milliseconds of it. NULL: not on this backend. */
    void (*load_prepare)(struct perf_raw *raw, enum perf_load load);
    void (*load_start)(struct perf_raw *raw);
    bool (*load_runs)(struct perf_raw *raw);
    double (*load_ns)(struct perf_raw *raw); /* that the last start took; waits */
};

extern const struct perf_raw_backend perf_raw_host;
#ifdef NVLXI_WITH_CUDA
extern const struct perf_raw_backend perf_raw_cuda;
#endif

#endif
