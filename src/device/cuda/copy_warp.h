// What the kernels that copy have in common: a warp copies a fragment.
//
// SPDX-License-Identifier: Apache-2.0
#ifndef NVLXI_DEVICE_CUDA_COPY_WARP_H
#define NVLXI_DEVICE_CUDA_COPY_WARP_H

#include "device/cuda/copy.h"

namespace {

constexpr uint32_t full = 0xffffffff;
constexpr uint32_t warp_threads = NVLXI_WARP_THREADS;
constexpr uint32_t block_threads_max = NVLXI_BLOCK_WARPS_MAX * warp_threads;
constexpr uint32_t slice_unit = 512; // bytes: what a warp loads at once

// A tile of the list, a fragment a lane.
struct Tile {
    uint64_t destination, source, length;
};

__device__ __forceinline__ Tile pick(const Tile &tile, uint32_t lane) {
    return {__shfl_sync(full, tile.destination, lane), __shfl_sync(full, tile.source, lane),
            __shfl_sync(full, tile.length, lane)};
}

// Copies n elements with up to four loads of each lane in flight.
template <typename Element>
__device__ __forceinline__ void copy_elements(uint64_t destination, uint64_t source, uint64_t n) {
    const uint32_t lane = threadIdx.x % warp_threads;
    Element *to = reinterpret_cast<Element *>(destination) + lane;
    const Element *from = reinterpret_cast<const Element *>(source) + lane;
    int64_t left = int64_t(n) - lane;
#pragma unroll 1
    for (; left > 3 * warp_threads; left -= 4 * warp_threads) {
        const Element a = from[0], b = from[warp_threads], c = from[2 * warp_threads], d = from[3 * warp_threads];
        to[0] = a;
        to[warp_threads] = b;
        to[2 * warp_threads] = c;
        to[3 * warp_threads] = d;
        from += 4 * warp_threads;
        to += 4 * warp_threads;
    }
    // At most three are left: all are loaded before one is stored, as above. They are set, because what is set only
    // under a condition takes registers for as long as the kernel runs.
    Element a = {}, b = {}, c = {};
    if (left > 0)
        a = from[0];
    if (left > warp_threads)
        b = from[warp_threads];
    if (left > 2 * warp_threads)
        c = from[2 * warp_threads];
    if (left > 0)
        to[0] = a;
    if (left > warp_threads)
        to[warp_threads] = b;
    if (left > 2 * warp_threads)
        to[2 * warp_threads] = c;
}

// Bytes up to the first boundary, elements as long as they fit, bytes again. Both sides reach the boundary together.
// Half of the lanes have a byte each of the head, which is shorter, half of the tail: these bytes are on their way
// while the elements are copied.
template <typename Element> __device__ __forceinline__ void copy_aligned(const Tile &fragment) {
    constexpr uint32_t half = warp_threads / 2;
    static_assert(sizeof(Element) <= half, "a head or tail has no more bytes than half of the lanes");
    const uint32_t lane = threadIdx.x % warp_threads;
    const uint64_t to_boundary = -fragment.destination % sizeof(Element);
    const uint64_t head = to_boundary < fragment.length ? to_boundary : fragment.length;
    const uint64_t n = (fragment.length - head) / sizeof(Element);
    const uint64_t mine = lane < half ? lane : head + n * sizeof(Element) + lane - half;
    const bool has_byte = mine < (lane < half ? head : fragment.length);
    uint8_t byte = 0;
    if (has_byte)
        byte = reinterpret_cast<const uint8_t *>(fragment.source)[mine];
    copy_elements<Element>(fragment.destination + head, fragment.source + head, n);
    if (has_byte)
        reinterpret_cast<uint8_t *>(fragment.destination)[mine] = byte;
}

// By the widest element that both sides can be aligned to.
__device__ __forceinline__ void copy_fragment(const Tile &fragment) {
    const uint64_t apart = fragment.destination ^ fragment.source;
    if (apart % 16 == 0)
        copy_aligned<uint4>(fragment);
    else if (apart % 8 == 0)
        copy_aligned<uint2>(fragment);
    else if (apart % 4 == 0)
        copy_aligned<uint32_t>(fragment);
    else
        copy_elements<uint8_t>(fragment.destination, fragment.source, fragment.length);
}

// Slice `number` of a fragment that is cut into so many. The last ones may be empty.
__device__ __forceinline__ void copy_slice(const Tile &fragment, uint32_t slices, uint32_t number) {
    const uint64_t least = (fragment.length + slices - 1) / slices;
    const uint64_t slice = (least + slice_unit - 1) / slice_unit * slice_unit, begin = number * slice;
    if (begin < fragment.length) {
        const uint64_t left = fragment.length - begin;
        copy_fragment({fragment.destination + begin, fragment.source + begin, left < slice ? left : slice});
    }
}

// Kernels of one list may overlap: each lets the next begin when a warp of each block begins its last piece of work, so
// that the link does not run dry in between, and ends after the one before it, which an event behind it then stands for
// too. Both do nothing where the kernel was not launched so.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void end_after_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

} // namespace

#endif
