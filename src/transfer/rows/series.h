/* A series: ops that lie as rows do, equal lengths at equal distances on both sides. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_ROWS_SERIES_H
#define NVLXI_TRANSFER_ROWS_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvlxfer.h"

struct nvlxi_series {
    uint64_t local_pitch, remote_pitch; /* of one op: not set */
    size_t count;                       /* of ops: 1 if they are no rows */
};

static inline uint64_t nvlxi_series_local(const struct nvlx_op *op) {
    return (uint64_t)(uintptr_t)op->local;
}

/* Whether rows of so many bytes ascend, apart from each other, and are not just one piece. */
static inline bool nvlxi_series_ascends(const struct nvlxi_series *series, uint64_t length) {
    return series->local_pitch - length <= INT64_MAX - length && series->remote_pitch - length <= INT64_MAX - length &&
           (series->local_pitch ^ length) | (series->remote_pitch ^ length);
}

/* How many of `left` ops, from the first on, are such rows. */
struct nvlxi_series nvlxi_series_find(const struct nvlx_op *op, size_t left);

/* The same on any CPU. */
struct nvlxi_series nvlxi_series_find_plain(const struct nvlx_op *op, size_t left);

#endif
