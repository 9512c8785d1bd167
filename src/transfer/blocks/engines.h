/* Blocks by id as copies of rows: what copy engines carry of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A block's bytes in many layers lie as rows do, if the tables' regions are at equal distances: one copy a block. Where
 * ids follow each other on both sides, a region's blocks lie so, too, or are one piece: one copy a region. */
#ifndef NVLXI_TRANSFER_BLOCKS_ENGINES_H
#define NVLXI_TRANSFER_BLOCKS_ENGINES_H

#include "transfer/blocks/blocks.h"

/* Whether all that a call names is straight, so that the below is right. */
bool nvlxi_blocks_suit_engines(const struct nvlxi_block_places *places, const struct nvlxi_block_call *call);

/* Plans it, and seals. Fails as nvlxi_plan_add does. The ids are good, and lie here. */
int nvlxi_blocks_plan_engines(struct nvlxi_plan *plan, const struct nvlxi_block_tables *tables,
                              struct nvlxi_block_places *places, const struct nvlxi_block_call *call);

#endif
