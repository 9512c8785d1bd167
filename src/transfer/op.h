/* Single ops of the caller's list: what is wrong with one, in words. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_OP_H
#define NVLXI_TRANSFER_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvlxfer.h"
#include "transfer/rows/rows.h"

#define NVLXI_COUNT_BYTES 8u /* of the count that a signal changes */

/* A signal to a count of this process's own. */
static inline bool nvlxi_op_is_own_signal(const struct nvlx_op *op) {
    return op->opcode == NVLX_OP_SIGNAL && !op->peer && op->local;
}

static inline const struct nvlx_rows *nvlxi_op_rows(const struct nvlx_op *op) {
    return (const struct nvlx_rows *)(uintptr_t)op->arg;
}

/* Of an op that copies, checked or not: whether it names rows. */
static inline bool nvlxi_op_names_rows(const struct nvlx_op *op) {
    return op->opcode < NVLX_OP_SIGNAL && op->flags == NVLX_OP_ROWS && op->arg;
}

/* Of a checked op: whether it moves any bytes. */
static inline bool nvlxi_op_moves(const struct nvlx_op *op) {
    return op->length && (!(op->flags & NVLX_OP_ROWS) || nvlxi_op_rows(op)->count);
}

/* Its sides, if it does. */
struct nvlxi_side nvlxi_op_local(const struct nvlx_op *op);
struct nvlxi_side nvlxi_op_remote(const struct nvlx_op *op);

/* A row of an op with rows, or `length` bytes from its start on, as an op: its arg is the number of the row. Only for
 * the functions below, which name the row. */
struct nvlx_op nvlxi_op_row(const struct nvlx_op *op, uint64_t row, uint64_t length);

/* NVLX_EINVAL: its opcode, flags or arg, or its rows. */
int nvlxi_op_check(const struct nvlx_op *op, size_t index);

/* NVLX_EINVAL: its peer is none of the engine's. */
int nvlxi_op_fail_foreign(const struct nvlx_op *op, size_t index);

/* Of ops whose peer is this very process, from `index` on up to `end`: NVLX_EINVAL if the sides of one overlap and are
 * not the same. */
int nvlxi_ops_check_overlap(const struct nvlx_op *ops, size_t index, size_t end);

/* The same of one op with rows, which moves some. */
int nvlxi_op_check_rows_overlap(const struct nvlx_op *op, size_t index);

/* NVLX_ERANGE: the local byte `where` is not registered. */
int nvlxi_op_fail_local(const struct nvlx_op *op, size_t index, uint64_t where);

/* NVLX_ESUSPENDED: the byte `where` sleeps, of local memory or the peer's. */
int nvlxi_op_fail_asleep(const struct nvlx_op *op, size_t index, bool local, uint64_t where);

/* NVLX_ERANGE, or NVLX_EACCES if it is `registered`: the same of the peer's. */
int nvlxi_op_fail_remote(const struct nvlx_op *op, size_t index, uint64_t where, bool registered);

/* Of a list whose addresses are those of a generation `wanted`: NVLX_ESTALE: the peer's byte `where` was born later;
 * only an older generation is known. NVLX_EINVAL: the op is of a second peer. */
int nvlxi_op_fail_younger(const struct nvlx_op *op, size_t index, uint64_t where, uint64_t wanted, uint64_t born);
int nvlxi_op_fail_unknown(size_t index, uint64_t wanted, uint64_t known);
int nvlxi_op_fail_second_peer(size_t index, uint64_t wanted);

#endif
