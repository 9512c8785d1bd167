// The kernels that copy blocks by id: a warp a copy, or a slice of one.
//
// SPDX-License-Identifier: Apache-2.0
//
// Only ids come from the host. Each thread block first takes the table of regions into its shared memory; the lanes of
// a warp then compute the addresses of a tile of copies, one tile ahead of copying.
#include "device/cuda/copy_warp.h"

namespace {

__device__ __forceinline__ void take_regions(const nvlxi_cuda_blocks &blocks, nvlxi_block_region *regions) {
    constexpr uint32_t words = sizeof(nvlxi_block_region) / sizeof(uint64_t);
    const uint64_t *from = reinterpret_cast<const uint64_t *>(blocks.regions);
    uint64_t *to = reinterpret_cast<uint64_t *>(regions);
    for (uint32_t i = threadIdx.x; i < blocks.region_count * words; i += blockDim.x)
        to[i] = from[i];
    __syncthreads();
}

__device__ __forceinline__ uint64_t load_id(uint64_t ids, uint32_t width, uint32_t index) {
    return width == sizeof(uint32_t) ? reinterpret_cast<const uint32_t *>(ids)[index]
                                     : reinterpret_cast<const uint64_t *>(ids)[index];
}

// Pair `index` of ids. False: one is out of range, which is told by who is to copy the first region: by one store, so
// that what others tell does not mix with it.
__device__ __forceinline__ bool take_pair(const nvlxi_cuda_blocks &blocks, uint32_t index, bool tells, uint64_t &local,
                                          uint64_t &remote) {
    if (blocks.pairs) {
        const uint64_t pair = reinterpret_cast<const uint64_t *>(blocks.pairs)[index];
        local = uint32_t(pair);
        remote = pair >> 32;
        return true;
    }
    const nvlxi_block_ids &ids = blocks.ids;
    local = load_id(ids.local, ids.width, index);
    remote = load_id(ids.remote, ids.width, index);
    const bool local_good = local < ids.local_blocks, good = local_good && remote < ids.remote_blocks;
    if (!good && tells)
        *reinterpret_cast<ulonglong2 *>(ids.fault) = make_ulonglong2(
            (ids.first + index + 1) | (local_good ? NVLXI_FAULT_REMOTE : 0), local_good ? remote : local);
    return good;
}

// Copy `number`, or none behind the last.
__device__ __forceinline__ Tile locate(const nvlxi_cuda_blocks &blocks, const nvlxi_block_region *regions,
                                       uint32_t number) {
    if (number >= blocks.count)
        return {0, 0, 0};
    const uint32_t block = number / blocks.region_count;
    const uint32_t index = number - block * blocks.region_count;
    uint64_t local_id, remote_id;
    if (!take_pair(blocks, block, index == 0, local_id, remote_id))
        return {0, 0, 0};
    const nvlxi_block_region &region = regions[index];
    const uint64_t local = region.local + local_id * region.local_stride;
    const uint64_t remote = region.remote + remote_id * region.remote_stride;
    return {blocks.read ? local : remote, blocks.read ? remote : local, region.length};
}

__global__ void __launch_bounds__(block_threads_max) blocks_by_warps(const nvlxi_cuda_blocks blocks, uint32_t per) {
    __shared__ nvlxi_block_region regions[NVLXI_BLOCK_REGIONS_MAX];
    const uint32_t block_warps = blockDim.x / warp_threads, lane = threadIdx.x % warp_threads;
    const uint32_t step = gridDim.x * block_warps * per, none = blocks.count;
    uint32_t first = (blockIdx.x * block_warps + threadIdx.x / warp_threads) * per;
    take_regions(blocks, regions);
    Tile next = locate(blocks, regions, lane < per ? first + lane : none);
    for (; first < blocks.count; first += step) {
        const Tile tile = next;
        next = locate(blocks, regions, lane < per ? first + step + lane : none);
        if (first + step >= blocks.count)
            let_next_begin();
        for (uint32_t i = 0; i < per && first + i < blocks.count; i++)
            copy_fragment(pick(tile, i));
    }
    end_after_previous();
}

// For few copies, or long ones: each is cut into slices, which go to as many warps.
__global__ void __launch_bounds__(block_threads_max) blocks_in_slices(const nvlxi_cuda_blocks blocks, uint32_t slices) {
    __shared__ nvlxi_block_region regions[NVLXI_BLOCK_REGIONS_MAX];
    const uint32_t block_warps = blockDim.x / warp_threads, all = blocks.count * slices;
    const uint32_t step = gridDim.x * block_warps;
    take_regions(blocks, regions);
    for (uint32_t i = blockIdx.x * block_warps + threadIdx.x / warp_threads; i < all; i += step) {
        if (i + step >= all)
            let_next_begin();
        copy_slice(locate(blocks, regions, i / slices), slices, i % slices);
    }
    end_after_previous();
}

} // namespace

// What follows is the host's. The compiler that CI has of the oldest CUDA, NVRTC, is not given it.
#include "device/cuda/load.h"

cudaError_t nvlxi_cuda_load_blocks(nvlxi_cuda_kernels *kernels) {
    const cudaError_t error =
        nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(blocks_by_warps), &kernels->blocks_by_warps);
    return error ? error
                 : nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(blocks_in_slices), &kernels->blocks_in_slices);
}
