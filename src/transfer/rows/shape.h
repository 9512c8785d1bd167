/* Finds rows in lists of plain ops: series of them (series.h), and grids of series, such as blocks and layers. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is found is a shorter list of ops with NVLX_OP_ROWS among those that are left, which moves the same bytes. It is
 * checked as any list is. If it is refused, the caller's own list tells why, and which op, or is not refused: within a
 * process, rows may meet where single ops do not. */
#ifndef NVLXI_TRANSFER_ROWS_SHAPE_H
#define NVLXI_TRANSFER_ROWS_SHAPE_H

#include <stdbool.h>
#include <stddef.h>

#include "nvlxfer.h"

struct nvlxi_shape { /* arrays keep their memory for the next list */
    struct nvlx_op *ops;
    size_t count;
    struct nvlx_rows *rows; /* of ops that were found */
    size_t rows_count;
    size_t capacity, rows_capacity;
};

/* Looks whether a list has so many rows that it is worth to be another one: only now and then, if it is not thorough.
 * False: it has not, or there is no memory. `mechanism` is the one that is asked for. */
bool nvlxi_shape_find(struct nvlxi_shape *shape, const struct nvlx_op *ops, size_t count, uint32_t mechanism,
                      bool thorough);

void nvlxi_shape_free(struct nvlxi_shape *shape);

/* Whether a list of which the shape was refused so is to be tried as it is. */
static inline bool nvlxi_shape_misfits(int code) {
    return code == NVLX_EINVAL || code == NVLX_ERANGE || code == NVLX_EACCES || code == NVLX_ENOTSUP ||
           code == NVLX_ESTALE || code == NVLX_ESUSPENDED;
}

#endif
