/* Single ops of the caller's list: what is wrong with one, in words. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_OP_H
#define NVLXI_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvlxfer.h"

/* NVLX_EINVAL: its opcode, flags or arg. */
int nvlxi_op_check(const struct nvlx_op *op, size_t index);

/* NVLX_EINVAL: its peer is none of the engine's. */
int nvlxi_op_foreign(const struct nvlx_op *op, size_t index);

/* NVLX_ERANGE: the local byte `where` is not registered. */
int nvlxi_op_local_failure(const struct nvlx_op *op, size_t index, uint64_t where);

/* NVLX_ERANGE, or NVLX_EACCES if it is `registered`: the same of the peer's. */
int nvlxi_op_remote_failure(const struct nvlx_op *op, size_t index, uint64_t where, bool registered);

#endif
