/* Blocks by id: a prepared list of tables, and transfers that give ids alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What keeps memory, finds it withdrawn or asleep, and maps it again is a prepared list (prepared.c) of all bytes that
 * the tables name. Its form is not planned: it tells where the tables' entries are (places.h). A transfer is a post of
 * it, whose own plan has one group, of pairs of ids, or rows for engines (engines.h). What neither can copy so is a
 * plain list of ops. */
#ifndef NVLXI_TRANSFER_BLOCKS_BLOCKS_H
#define NVLXI_TRANSFER_BLOCKS_BLOCKS_H

#include "transfer/transfer.h"

/* A transfer's part that is not in its options: ids of a group, and some of its regions. */
struct nvlxi_block_call {
    const struct nvlx_block_ids *ids;
    const struct nvlxi_block_group *group;
    size_t first, count; /* entries of the tables */
    uint32_t mechanism, max_sms;
    int32_t priority;
    uint64_t generation; /* that the tables are from: set by nvlxi_blocks_plan */
};

static inline uint64_t nvlxi_block_id(const void *side, const struct nvlx_block_ids *ids, size_t index) {
    return ids->width == sizeof(uint32_t) ? ((const uint32_t *)side)[index] : ((const uint64_t *)side)[index];
}

/* Makes tables and a prepared list of them. `access`: NVLX_ACCESS_..., what transfers shall do. */
int nvlxi_blocks_create(struct nvlxi_transfers *transfers, struct nvlx_peer *peer,
                        const struct nvlx_block_region *local, const struct nvlx_block_region *remote, size_t count,
                        const struct nvlx_blocks_options *options, struct nvlx_prepared **blocks);

/* `ids` is checked except for what the tables say of it; `options` too. */
int nvlxi_blocks_transfer(struct nvlx_prepared *blocks, const struct nvlx_block_ids *ids,
                          const struct nvlx_transfer_options *options, const struct nvlxi_asked *asked,
                          struct nvlx_request **request);

#define NVLXI_PLAIN 6 /* beside the codes of errors: these cannot be copied by id. Not logged */
/* Of a request whose copies are complete: whether ids on the GPU were good. */
int nvlxi_blocks_judge(const struct nvlx_request *request);
/* With ids on the GPU, of copies that may run, as a graph's may: false, or what has gone wrong since this was asked. */
bool nvlxi_blocks_take_fault(const struct nvlx_request *request, struct nvlxi_block_fault *fault);
/* NVLX_ERANGE, with words. */
int nvlxi_blocks_fail(const struct nvlxi_block_ids *ids, const struct nvlxi_block_fault *fault);
/* Plans a request that has entered with the form of its tables. */
int nvlxi_blocks_plan(struct nvlx_request *request, struct nvlxi_block_call *call);

#endif
