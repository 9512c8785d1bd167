/* The kernels of copy.cu, as the C files of the cuda backend see them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_CUDA_COPY_H
#define NVLXI_DEVICE_CUDA_COPY_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NVLXI_WARP_THREADS    32u
#define NVLXI_BLOCK_WARPS_MAX 32u

/* The parts of a launch as one list, whose fragments are numbered through. A number and a grid's stride make no more
 * than 32 bits together. The first argument of all kernels. */
struct nvlxi_cuda_lists {
    const struct nvlxi_fragment *part[NVLXI_PARTS_MAX];
    uint32_t end[NVLXI_PARTS_MAX]; /* number of the first fragment behind each part */
    uint32_t count;                /* of all */
};

/* The kernels in one context, as CUfunction. The second argument of all is a uint32_t. */
struct nvlxi_cuda_kernels {
    struct CUfunc_st *by_warps;  /* a warp a fragment; how many a warp takes at a time, 32 at most */
    struct CUfunc_st *in_slices; /* a warp a slice of a fragment; into how many each is cut */
    struct CUfunc_st *rows;      /* the same of rows: the lists are of struct nvlxi_rows */
    struct CUfunc_st *blocks_by_warps, *blocks_in_slices; /* the same of blocks; the first argument is another */
    bool overlap;                                         /* they can: compiled for compute capability 9.0 or later */
};

/* What the kernels of blocks.cu copy: their first argument. Copies are numbered block by block, all regions of one
 * after the other. */
struct nvlxi_cuda_blocks {
    const struct nvlxi_block_region *regions;
    const struct nvlxi_block_pair *pairs;
    uint32_t region_count;
    uint32_t count; /* of all copies */
    bool read;
    struct nvlxi_block_ids ids; /* where there are no pairs */
};

/* Loads the kernels into the current context, so that no launch does it behind running work. */
cudaError_t nvlxi_cuda_load_kernels(struct nvlxi_cuda_kernels *kernels);
cudaError_t nvlxi_cuda_load_blocks(struct nvlxi_cuda_kernels *kernels);

#ifdef __cplusplus
}
#endif

#endif
