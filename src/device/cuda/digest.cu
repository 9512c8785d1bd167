// The kernel that digests leaves of memory: four threads a leaf, one for each lane of XXH64.
//
// SPDX-License-Identifier: Apache-2.0
//
// The threads of a leaf read a sector of 32 bytes together. A leaf is one chain of multiplications from its first word
// to its last, but the loads do not wait for it: each thread has many of them on their way.
#include "device/cuda/digest.h"

#include "device/xxh64.h"

namespace {

constexpr uint32_t full = 0xffffffff;
constexpr uint32_t batch = 16; // loads of a thread that are on their way together

// The word at an address, in elements that its alignment allows. No byte beside it is read.
template <typename Element> __device__ __forceinline__ uint64_t load_word(uint64_t address) {
    const Element *from = reinterpret_cast<const Element *>(address);
    uint64_t word = 0;
#pragma unroll
    for (uint32_t i = 0; i < sizeof(uint64_t) / sizeof(Element); i++)
        word |= uint64_t(__ldg(from + i)) << 8 * sizeof(Element) * i;
    return word;
}

template <typename Element> __device__ __forceinline__ void load_batch(uint64_t (&words)[batch], uint64_t address) {
#pragma unroll
    for (uint32_t i = 0; i < batch; i++)
        words[i] = load_word<Element>(address + i * NVLXI_XXH64_STRIPE);
}

// A lane after its words of so many stripes, of which the first is at `address`. A batch is loaded before the one
// before it is used: the compiler cannot put it off.
template <typename Element>
__device__ __forceinline__ uint64_t run_lane(uint64_t lane, uint64_t address, uint32_t stripes) {
    constexpr uint32_t step = NVLXI_XXH64_STRIPE;
    uint64_t words[batch], next[batch];
    if (stripes >= batch)
        load_batch<Element>(words, address);
#pragma unroll 1
    for (; stripes >= batch; stripes -= batch) {
        address += batch * step;
        if (stripes >= 2 * batch)
            load_batch<Element>(next, address);
#pragma unroll
        for (uint32_t i = 0; i < batch; i++) {
            lane = nvlxi_xxh64_round(lane, words[i]);
            words[i] = next[i];
        }
    }
#pragma unroll 1
    for (; stripes; stripes--, address += step)
        lane = nvlxi_xxh64_round(lane, load_word<Element>(address));
    return lane;
}

__device__ __forceinline__ uint64_t run_lane_by_alignment(uint64_t lane, uint64_t address, uint32_t stripes) {
    if (address % 8 == 0)
        return run_lane<uint64_t>(lane, address, stripes);
    if (address % 4 == 0)
        return run_lane<uint32_t>(lane, address, stripes);
    if (address % 2 == 0)
        return run_lane<uint16_t>(lane, address, stripes);
    return run_lane<uint8_t>(lane, address, stripes);
}

// Where a leaf is; of no length behind the last. Those of a warp read the list, which lies in pinned host memory, as
// one line.
__device__ __forceinline__ nvlxi_digest_span find_leaf(const nvlxi_leaf_list &leaves, uint64_t number) {
    if (number >= leaves.count)
        return {0, 0};
    if (leaves.list) {
        const ulonglong2 leaf = __ldg(reinterpret_cast<const ulonglong2 *>(leaves.list + number));
        return {leaf.x, leaf.y};
    }
    const uint64_t offset = number * NVLXI_LEAF_BYTES, behind = leaves.span.length - offset;
    return {leaves.span.address + offset, behind < NVLXI_LEAF_BYTES ? behind : NVLXI_LEAF_BYTES};
}

// All threads of a warp stay to the end, with leaves or without: they pass their lanes to each other.
__global__ void __launch_bounds__(NVLXI_DIGEST_BLOCK_THREADS) digest_leaves(const nvlxi_leaf_list leaves) {
    const uint64_t thread = uint64_t(blockIdx.x) * NVLXI_DIGEST_BLOCK_THREADS + threadIdx.x;
    const nvlxi_digest_span leaf = find_leaf(leaves, thread / NVLXI_LEAF_THREADS);
    const uint64_t first = leaf.address;
    const uint32_t length = uint32_t(leaf.length);
    const uint32_t number = thread % NVLXI_LEAF_THREADS, stripes = length / NVLXI_XXH64_STRIPE;
    const uint64_t lane = run_lane_by_alignment(nvlxi_xxh64_begin(number), first + number * sizeof(uint64_t), stripes);
    const uint64_t a = __shfl_sync(full, lane, 0, NVLXI_LEAF_THREADS);
    const uint64_t b = __shfl_sync(full, lane, 1, NVLXI_LEAF_THREADS);
    const uint64_t c = __shfl_sync(full, lane, 2, NVLXI_LEAF_THREADS);
    const uint64_t d = __shfl_sync(full, lane, 3, NVLXI_LEAF_THREADS);
    if (number == 0 && length) {
        const uint8_t *rest = reinterpret_cast<const uint8_t *>(first + stripes * NVLXI_XXH64_STRIPE);
        leaves.digests[thread / NVLXI_LEAF_THREADS] = nvlxi_xxh64_end(nvlxi_xxh64_join(a, b, c, d), rest, length);
    }
}

} // namespace

// What follows is the host's. The compiler that CI has of the oldest CUDA, NVRTC, is not given it.
#include "device/cuda/load.h"

cudaError_t nvlxi_cuda_load_digest(CUfunc_st **kernel) {
    return nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(digest_leaves), kernel);
}
