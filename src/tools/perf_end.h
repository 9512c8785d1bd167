/* nvlx_perf: one end of the comparison, of which each process has one: the library's side and the raw one, on the same
 * memory.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_END_H
#define PERF_END_H

#include "perf_raw.h"
#include "perf_side.h"

struct perf_setup {
    uint32_t backend; /* as in nvlxfer.h */
    int32_t gpu;
    uint64_t size, regions, staging; /* staging: bytes; 0: none */
};

struct perf_end {
    struct perf_side side;
    const struct perf_raw_backend *backend;
    struct perf_raw *raw;
    uint64_t staging;
};

/* Starts the library; `setup` may still lack all sizes. */
void perf_end_open(struct perf_end *end, const struct perf_setup *setup);
/* Then: the memory of both ways. */
void perf_end_allocate(struct perf_end *end, const struct perf_setup *setup);
/* Then: the raw side. The handles are of the other process's memory; NULL in the owner, which only lends its own. */
void perf_end_open_raw(struct perf_end *end, const struct perf_handle *memory, const struct perf_handle *staging);
/* Closes all that is open of the other process, whose memory may then be freed. */
void perf_end_leave(struct perf_end *end);
void perf_end_close(struct perf_end *end);

void perf_end_fill(struct perf_end *end, uint64_t seed);
void perf_end_check(struct perf_end *end, const struct perf_piece *pieces, size_t count, struct perf_wrong *wrong);

#endif
