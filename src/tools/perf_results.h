/* nvlx_perf: what was measured: the table, the JSON file and the plot are all made from it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_RESULTS_H
#define PERF_RESULTS_H

#include <nvlxfer.h>

#include "perf_options.h"

#define PERF_COLUMNS_MAX (3 * PERF_BUDGETS_MAX + PERF_BASELINES + 1)

/* A way to move a list. */
enum perf_kind { PERF_ONE_CALL, PERF_POSTED, PERF_RAW };
struct perf_column {
    enum perf_kind kind;
    enum perf_baseline baseline; /* of PERF_RAW */
    uint32_t budget;             /* of SMs; 0: the default, and for a raw kernel as many as it likes */
    char name[32];
};

struct perf_cell {
    const char *why_not; /* NULL: it was measured */
    size_t rounds;
    double wall, fastest, slowest, submit; /* nanoseconds; wall and submit are medians */
    char kernel[48];                       /* which raw kernel, "" if none */
    struct nvlx_request_info info;         /* of ours: what carried it */
    bool verified;
    uint64_t wrong; /* bytes */
};

struct perf_row {
    uint32_t opcode;
    bool both; /* directions at once; `bytes` are those of both */
    uint64_t fragment, count, bytes;
    struct perf_cell cells[PERF_COLUMNS_MAX];
};

/* Times of one single transfer, in nanoseconds. */
struct perf_times {
    size_t rounds;
    double median, p90, p99, submit;
};
enum { PERF_LATENCY_WAYS = 3 }; /* one call, a post, raw */
struct perf_latency {
    uint32_t opcode;
    uint64_t length;
    struct perf_times times[PERF_LATENCY_WAYS];
};

struct perf_compute {
    const char *load;
    uint32_t opcode, mechanism, budget;
    uint64_t fragment, count;
    double load_alone, load_beside; /* nanoseconds */
    double rate_alone, rate_beside; /* GB/s of the transfers */
};

struct perf_results {
    struct perf_column columns[PERF_COLUMNS_MAX];
    size_t column_count;
    struct perf_row *rows;
    size_t row_count;
    uint64_t link_bytes; /* of the one copy that tells the link's own rate */
    double link[3];      /* GB/s, by opcode; 0: not measured */
    struct perf_latency *latencies;
    size_t latency_count;
    struct perf_compute *computes;
    size_t compute_count;
    uint64_t random_lists, random_fragments, random_bytes, random_wrong;
    uint64_t wrong; /* bytes, of all */
};

/* GB/s of a measured cell, 0 of another. Of both directions: each way. */
double perf_rate(const struct perf_row *row, const struct perf_cell *cell);
/* Nanoseconds a fragment in the calls that submit: of both directions, in those of this process. */
double perf_submit_each(const struct perf_row *row, const struct perf_cell *cell);
/* The fastest of the raw columns but the staged one; of kernels only those within the budget, if that is not 0. NULL:
 * none was measured. */
const struct perf_column *perf_best_raw(const struct perf_results *results, const struct perf_row *row,
                                        uint32_t budget);
void perf_results_free(struct perf_results *results);

const char *perf_op_name(uint32_t opcode);
const char *perf_mechanism_name(uint32_t mechanism);

#endif
