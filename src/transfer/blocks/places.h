/* Where the entries of tables of blocks are in this process, as a form found them: what kernels can go by.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * An entry is straight if one distance leads from the peer's addresses of all its blocks to ours, no block is cut by a
 * border, and another process has it. Other entries are copied op by op. Copy engines do not cross borders, whatever
 * lies between the rows of a copy: so it is noted where there are none, on either side. */
#ifndef NVLXI_TRANSFER_BLOCKS_PLACES_H
#define NVLXI_TRANSFER_BLOCKS_PLACES_H

#include "base/intervals/interval_map.h"
#include "device/blocks.h"
#include "transfer/blocks/tables.h"
#include "transfer/list_memory.h"
#include "transfer/validate/validated.h"

struct nvlxi_block_place {
    uint64_t distance; /* from the peer's address to ours */
    uint32_t pair[2];  /* for reads, for writes; NVLXI_NO_PAIR: none */
    uint32_t alike[2]; /* so many entries, from this one on, can be copied by one kernel */
    bool straight, known;
    bool whole;  /* there is no border between its first block and its last one, */
    bool linked; /* nor from those of the entry before to these; and both are as long, with strides as long */
};

struct nvlxi_block_places {
    struct nvlxi_block_place *place; /* [entries of the tables] */
    struct nvlxi_pair *pairs;        /* copied */
    size_t count;
    struct nvlxi_borders borders;             /* that all of them meet */
    struct nvlxi_chunk *chunk;                /* has */
    const struct nvlxi_block_region *regions; /* [count], for kernels; NULL: no entry is straight */
};

/* What is registered here and there, under the tables. */
struct nvlxi_block_ground {
    const struct nvlxi_intervals *local, *remote;
};

/* Reads what validation has found out about the ops of the tables. */
int nvlxi_block_places_learn(const struct nvlxi_block_tables *tables, const struct nvlxi_validated *validated,
                             const struct nvlxi_block_ground *ground, struct nvlxi_block_places *places);
/* Writes it where kernels can read it. NVLX_EBUSY: there is no room. */
int nvlxi_block_places_settle(const struct nvlxi_block_tables *tables, struct nvlxi_list_memory *memory,
                              struct nvlxi_block_places *places);
void nvlxi_block_places_free(struct nvlxi_list_memory *memory, struct nvlxi_block_places *places);

#endif
