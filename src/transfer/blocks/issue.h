/* Blocks by id on a lane: the kernels that a request of them takes.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_BLOCKS_ISSUE_H
#define NVLXI_TRANSFER_BLOCKS_ISSUE_H

#include "device/blocks.h"
#include "transfer/submit.h"

/* What a group copies instead of fragments. The chunks of its kernel's list hold pairs of ids. */
struct nvlxi_block_work {
    const struct nvlxi_block_region *regions;
    uint32_t region_count;
    uint64_t average;           /* length of the copies */
    struct nvlxi_block_ids ids; /* on the GPU: so many, */
    uint64_t id_count;          /* and the only chunk has the fault. 0: chunks of pairs */
};

#define NVLXI_IDS_PER_KERNEL (1u << 20)

#define NVLXI_PAIRS_PER_FRAGMENT (sizeof(struct nvlxi_fragment) / sizeof(struct nvlxi_block_pair))

/* Kernels that it takes. */
uint64_t nvlxi_block_work_kernels(const struct nvlxi_group *group);

/* Issues them. `sms`: 0: as the group says. */
int nvlxi_block_work_submit(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group, struct nvlxi_leg *leg,
                            uint32_t sms);

#endif
