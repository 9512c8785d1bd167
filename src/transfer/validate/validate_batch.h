/* Ops that lie in the same two pieces, one after the other, or of several peers in rounds, those of each peer in the
 * same two: checked without looking anything up. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_VALIDATE_VALIDATE_BATCH_H
#define NVLXI_TRANSFER_VALIDATE_VALIDATE_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "transfer/validate/validated.h"

#define NVLXI_AHEAD 128 /* ops: how far ahead of its use one is asked for; processors do not look beyond a page */

struct nvlxi_batch { /* what all of them have in common */
    uint32_t opcode;
    const struct nvlx_peer *peer;
    uint64_t local_start, local_size;   /* the local piece */
    uint64_t remote_start, remote_size; /* the peer's */
    uint64_t offset;                    /* to be added to an address of the peer */
};

/* Returns how many leading ops match a round of batches: ops[i] the batch i % round, 0 < round <= NVLXI_ROUND_MAX. It
 * may stop a few ops too early. Those ops are relocated: remote[i] belongs to ops[i], and the rest of it is undefined.
 * Their lengths - 1 are or-ed into *longest. */
size_t nvlxi_validate_batch(const struct nvlxi_batch *batches, size_t round, const struct nvlx_op *ops, size_t count,
                            uint64_t *remote, uint64_t *longest);

/* The same on any CPU. It stops at the first op that does not match, no earlier. */
size_t nvlxi_validate_batch_plain(const struct nvlxi_batch *batches, size_t round, const struct nvlx_op *ops,
                                  size_t count, uint64_t *remote, uint64_t *longest);

#endif
