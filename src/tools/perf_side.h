/* nvlx_perf: libnvlxfer's side of the comparison, by the public header alone: what a process that uses it does. Both
 * processes have one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_SIDE_H
#define PERF_SIDE_H

#include <nvlxfer.h>

#include "perf_list.h"
#include "perf_raw.h"

struct perf_side {
    struct nvlx_engine *engine;
    int gpu;
    char *memory, *staging; /* staging: NULL, or for the staged baseline */
    uint64_t size;
    struct nvlx_peer *peer;
    uint64_t remote; /* the peer's address of its memory */

    struct perf_list_spec spec; /* the list of now */
    struct perf_fragment *fragments;
    struct nvlx_op *ops;
    size_t count;
    uint64_t bytes;
};

void perf_side_open(struct perf_side *side, uint32_t backend, int gpu);
void perf_side_allocate(struct perf_side *side, uint64_t size, uint64_t regions, uint64_t staging);
/* Opens the other process's descriptor. */
void perf_side_meet(struct perf_side *side, const char *text, size_t length);
/* Closes what is open of the other process; what was prepared must be freed. */
void perf_side_leave(struct perf_side *side);
void perf_side_close(struct perf_side *side);

/* Turns a list into ops; drops the one before. The list is copied. */
void perf_side_set_list(struct perf_side *side, const struct perf_list *list);

/* Options of a transfer, as the user asks for them, with this budget of SMs. */
struct nvlx_transfer_options perf_side_options(const struct perf_options *options, uint32_t budget);

/* The caller frees it, by perf_side_unprepare. */
struct nvlx_prepared *perf_side_prepare(struct perf_side *side, const struct nvlx_transfer_options *options);
void perf_side_unprepare(struct nvlx_prepared *prepared);

/* One transfer of the list and its end: a post of `prepared`, or if that is NULL, one call, whose ops are written anew
 * right before it, outside of the time taken. `info` may be NULL. */
void perf_side_move(struct perf_side *side, struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
                    struct perf_sample *sample, struct nvlx_request_info *info);

#endif
