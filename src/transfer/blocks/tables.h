/* Tables of blocks by id: the caller's two, checked, as one. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Entries are in order of their groups, and within a group in the caller's order. A table never changes. It is also a
 * list of ops that touch all bytes that a transfer may touch, and no others: so that it is validated as a list is. */
#ifndef NVLXI_TRANSFER_BLOCKS_TABLES_H
#define NVLXI_TRANSFER_BLOCKS_TABLES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvlxfer.h"

#define NVLXI_BLOCK_TABLE_MAX 65536 /* regions; nvlxfer.h tells it */

struct nvlxi_block_entry {  /* a region on both sides */
    uint64_t local, remote; /* where the bytes of block 0 are, by each side's own addresses */
    uint64_t local_stride, remote_stride;
    uint64_t length;
    uint64_t local_blocks, remote_blocks;
    uint64_t before; /* the lengths of all entries before it */
    uint32_t group;
    size_t number; /* in the caller's tables */
};

struct nvlxi_block_group {
    uint32_t id;
    size_t first, count; /* its entries */
    uint64_t local_blocks, remote_blocks;
};

struct nvlxi_block_tables {
    struct nvlxi_block_entry *entry;
    size_t count;
    struct nvlxi_block_group *group;
    size_t group_count;
    uint32_t access;   /* NVLX_ACCESS_...: what transfers do */
    bool same_process; /* the remote side is this process's memory, too */
    atomic_uint users; /* who made it, and forms of the prepared list */
};

/* NVLX_EINVAL: a region is wrong. */
int nvlxi_block_tables_make(const struct nvlx_block_region *local, const struct nvlx_block_region *remote, size_t count,
                            struct nvlxi_block_tables **tables);
/* One more user. NULL is allowed in both. */
struct nvlxi_block_tables *nvlxi_block_tables_share(struct nvlxi_block_tables *tables);
/* One user less: the last frees it. */
void nvlxi_block_tables_free(struct nvlxi_block_tables *tables);

/* NULL: there is no such group. */
const struct nvlxi_block_group *nvlxi_block_tables_group(const struct nvlxi_block_tables *tables, uint32_t id);

/* The ops of an entry: for each direction of `access` (NVLX_ACCESS_...) all entries come once, reads first. */
size_t nvlxi_block_entry_ops(const struct nvlxi_block_entry *entry);
/* Makes all ops, to be freed. */
int nvlxi_block_tables_ops(const struct nvlxi_block_tables *tables, struct nvlx_peer *peer, uint32_t access,
                           struct nvlx_op **ops, size_t *count);
/* The entry that an op is of, and the ids of its first block. */
const struct nvlxi_block_entry *nvlxi_block_tables_of_op(const struct nvlxi_block_tables *tables, size_t op,
                                                         uint64_t *local, uint64_t *remote);

/* Whether any of [address, address + length), of this process, is in a block. */
bool nvlxi_block_tables_touch(const struct nvlxi_block_tables *tables, uint64_t address, uint64_t length);

#endif
