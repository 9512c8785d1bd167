/* What a list needs while it is in flight: peers, mappings, local bytes.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * While a list is validated, only the pieces of the lookup table that it meets are noted: each is cut at every region
 * of that moment, so a region that holds one is touched. A region that was registered later may hold a part of one. Who
 * wants to unregister it then looks through the list itself, or its plan, which has the same bytes. */
#ifndef NVLXI_TRANSFER_NEEDS_H
#define NVLXI_TRANSFER_NEEDS_H

#include "remote/mapping.h"
#include "transfer/blocks/tables.h"
#include "transfer/plan/plan.h"

struct nvlxi_use { /* local bytes. The list touches at least one byte of each use, and every byte that it
                      touches is in some use */
    uint64_t start, end;
};

struct nvlxi_remote_use { /* bytes of a peer: as above, for a list that will be asked whether they are still there */
    struct nvlx_peer *peer;
    uint64_t start, end;
    uint32_t access; /* NVLX_ACCESS_..., that all of them must grant */
};

/* What a list needs while it is in flight. Arrays keep their memory for the next list. */
struct nvlxi_needs {
    struct nvlxi_use *uses;
    struct nvlxi_mapping **mappings;
    struct nvlx_peer **peers;
    struct nvlxi_remote_use *remote_uses; /* noted only if keeps_remote_uses is set */
    bool keeps_remote_uses, prepared;     /* prepared: the list is, or else a part of a graph */
    uint64_t generation; /* set before the list is validated: of its one peer, that the ops are from. 0: not checked */
    size_t remote_use_count, remote_use_capacity;
    size_t use_count, use_capacity;
    size_t mapping_count, mapping_capacity;
    size_t peer_count, peer_capacity;
    struct nvlxi_block_tables *tables; /* shared: what it touches is what they tell, not a plan; NULL: none */
    const struct nvlx_op *ops; /* the caller's, until the plan is whole and does not change any more; then NULL */
    size_t op_count;
};

void nvlxi_needs_free(struct nvlxi_needs *needs);

void nvlxi_needs_pin(const struct nvlxi_needs *needs);
void nvlxi_needs_unpin(const struct nvlxi_needs *needs);

/* Whether a list names the peer, and where in its peers. */
bool nvlxi_needs_name(const struct nvlxi_needs *needs, const struct nvlx_peer *peer, size_t *number);

/* Whether the list touches any of [address, address + length). `plan` is its plan; it is not read while needs->ops is
 * set. */
bool nvlxi_needs_overlap(const struct nvlxi_needs *needs, const struct nvlxi_plan *plan, uint64_t address,
                         uint64_t length);
/* Whether it may do so: some use has such a byte. */
bool nvlxi_needs_near(const struct nvlxi_needs *needs, uint64_t address, uint64_t length);

#endif
