/* Blocks by id, as the kernels take them: tables of regions, and pairs of ids. An address is computed where the bytes
 * are copied.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_BLOCKS_H
#define NVLXI_DEVICE_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#define NVLXI_BLOCK_REGIONS_MAX 512u /* that one kernel takes */

/* A region on both sides: addresses in this process, mapped ones included. */
struct nvlxi_block_region {
    uint64_t local, remote; /* where the bytes of block 0 are */
    uint64_t local_stride, remote_stride;
    uint64_t length; /* of them in each block, > 0 */
};

struct nvlxi_block_pair {
    uint32_t local, remote; /* ids */
};

/* Ids that lie on the lane's GPU, and are checked there. */
struct nvlxi_block_ids {
    uint64_t local, remote;               /* addresses of the arrays */
    uint32_t width;                       /* bytes of an id: 4 or 8 */
    uint64_t local_blocks, remote_blocks; /* ids are less than these */
    uint64_t first;                       /* number of the first, for the fault */
    struct nvlxi_block_fault {
        uint64_t
            where; /* 0: none. Else 1 + the number of a pair with an id that is out of range; + NVLXI_FAULT_REMOTE */
        uint64_t id;
    } * fault; /* in memory from list_alloc; written for one such pair, none of which is copied: both words at once, or
                  `where` as the last, by __ATOMIC_RELEASE. A CPU may read it meanwhile, and set `where` to 0 */
};

#define NVLXI_FAULT_REMOTE (UINT64_C(1) << 63)

struct nvlxi_block_kernel {
    const struct nvlxi_block_region *regions; /* in memory from list_alloc */
    const struct nvlxi_block_pair *pairs;     /* likewise; every block of every region is there. NULL: `ids` */
    struct nvlxi_block_ids ids;
    uint32_t region_count; /* 1 to NVLXI_BLOCK_REGIONS_MAX */
    uint32_t pair_count;   /* > 0; with the regions less than 2^31 copies */
    bool read;             /* from remote to local; else the other way */
    uint32_t sms;          /* these three as in struct nvlxi_kernel */
    uint64_t average;
    bool overlaps;
};

#endif
