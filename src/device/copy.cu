// The kernel that copies lists of fragments: a warp a fragment, or a block a fragment.
//
// SPDX-License-Identifier: Apache-2.0
//
// It reads the list, which usually lies in pinned host memory, a tile at a time and one tile ahead: a read over PCIe
// takes longer than the copy of a small fragment. Each tile is one contiguous read of a warp, a fragment a lane; the
// lanes then pass the fragments to each other by shuffles.
#include "copy.h"

#include "nvlxfer.h"

namespace {

constexpr uint32_t full = 0xffffffff;
constexpr uint32_t warp_threads = 32;
constexpr uint32_t block_warps = 32;

// A tile of the list, a fragment a lane.
struct Tile {
    uint64_t destination, source, length;
};

__device__ __forceinline__ Tile load(const nvlxi_fragment *list, uint32_t count, uint64_t first, uint32_t per) {
    const uint32_t lane = threadIdx.x % warp_threads;
    Tile tile = {0, 0, 0};
    if (lane < per && first + lane < count) {
        const nvlxi_fragment *fragment = list + first + lane;
        tile = {fragment->destination, fragment->source, fragment->length};
    }
    return tile;
}

__device__ __forceinline__ Tile pick(const Tile &tile, uint32_t lane) {
    return {__shfl_sync(full, tile.destination, lane), __shfl_sync(full, tile.source, lane),
            __shfl_sync(full, tile.length, lane)};
}

// Copies n elements with four loads of each lane in flight.
template <typename Element>
__device__ __forceinline__ void copy_elements(uint64_t destination, uint64_t source, uint64_t n) {
    Element *to = reinterpret_cast<Element *>(destination);
    const Element *from = reinterpret_cast<const Element *>(source);
    uint64_t i = threadIdx.x % warp_threads;
    for (; i + 3 * warp_threads < n; i += 4 * warp_threads) {
        const Element a = from[i], b = from[i + warp_threads], c = from[i + 2 * warp_threads],
                      d = from[i + 3 * warp_threads];
        to[i] = a;
        to[i + warp_threads] = b;
        to[i + 2 * warp_threads] = c;
        to[i + 3 * warp_threads] = d;
    }
    for (; i < n; i += warp_threads)
        to[i] = from[i];
}

// Bytes up to the first boundary, elements as long as they fit, bytes again. Both sides reach the boundary together.
template <typename Element> __device__ __forceinline__ void copy_aligned(const Tile &fragment) {
    const uint64_t to_boundary = -fragment.destination % sizeof(Element);
    const uint64_t head = to_boundary < fragment.length ? to_boundary : fragment.length;
    const uint64_t n = (fragment.length - head) / sizeof(Element), done = head + n * sizeof(Element);
    if (head)
        copy_elements<uint8_t>(fragment.destination, fragment.source, head);
    copy_elements<Element>(fragment.destination + head, fragment.source + head, n);
    if (done < fragment.length)
        copy_elements<uint8_t>(fragment.destination + done, fragment.source + done, fragment.length - done);
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
        copy_aligned<uint8_t>(fragment);
}

__global__ void __launch_bounds__(block_warps *warp_threads)
    copy_by_warps(const nvlxi_fragment *__restrict__ list, uint32_t count, uint32_t per) {
    const uint64_t warp = blockIdx.x * block_warps + threadIdx.x / warp_threads;
    const uint64_t step = uint64_t(gridDim.x) * block_warps * per;
    Tile next = load(list, count, warp * per, per);
    for (uint64_t first = warp * per; first < count; first += step) {
        const Tile tile = next;
        next = load(list, count, first + step, per);
        for (uint32_t i = 0; i < per && first + i < count; i++)
            copy_fragment(pick(tile, i));
    }
}

// A block's fragments, cut into pieces, which its warps take in turn: each walks through all fragments and copies every
// 32nd piece. Its lanes hold the next fragments' descriptors, one each.
__global__ void __launch_bounds__(block_warps *warp_threads)
    copy_by_blocks(const nvlxi_fragment *__restrict__ list, uint32_t count, uint64_t piece) {
    const uint64_t step = uint64_t(gridDim.x) * warp_threads;
    uint64_t ahead = threadIdx.x / warp_threads; // pieces until the warp's next one
    for (uint64_t first = blockIdx.x; first < count; first += step) {
        const uint64_t mine = first + uint64_t(threadIdx.x % warp_threads) * gridDim.x;
        const Tile tile =
            mine < count ? Tile{list[mine].destination, list[mine].source, list[mine].length} : Tile{0, 0, 0};
        for (uint32_t i = 0; i < warp_threads && first + uint64_t(i) * gridDim.x < count; i++) {
            const Tile fragment = pick(tile, i);
            const uint64_t pieces = (fragment.length + piece - 1) / piece;
            for (; ahead < pieces; ahead += block_warps) {
                const uint64_t begin = ahead * piece, left = fragment.length - begin;
                copy_fragment({fragment.destination + begin, fragment.source + begin, left < piece ? left : piece});
            }
            ahead -= pieces;
        }
    }
}

uint32_t ceil_div(uint64_t a, uint64_t b) {
    return static_cast<uint32_t>((a + b - 1) / b);
}

uint32_t clamp(uint32_t value, uint32_t low, uint32_t high) {
    return value < low ? low : value > high ? high : value;
}

// How many blocks, one an SM, to start for a budget of SMs. Reads gain little beyond 64. Writes are as fast with 8
// blocks as with 24, but slower with the numbers in between, and a little faster with 64 (two H200: 4 KiB to 1 MiB
// fragments, 8 to 132 blocks).
uint32_t blocks_for(uint32_t opcode, uint32_t sms) {
    if (sms >= 64)
        return 64;
    if (opcode == NVLX_OP_READ || sms < 8)
        return sms ? sms : 1;
    return sms >= 24 ? 24 : 8;
}

} // namespace

cudaError_t nvlxi_cuda_load_kernel() {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, copy_by_warps);
    return error ? error : cudaFuncGetAttributes(&attributes, copy_by_blocks);
}

cudaError_t nvlxi_cuda_launch(const nvlxi_kernel *kernel, cudaStream_t stream) {
    const uint32_t blocks = blocks_for(kernel->opcode, kernel->sms), threads = block_warps * warp_threads;
    if (kernel->by_blocks) {
        // Short pieces where there are few, so that all warps get some.
        const uint64_t piece = kernel->count < blocks * 8 ? 16384 : 65536;
        copy_by_blocks<<<clamp(kernel->count, 1, blocks), threads, 0, stream>>>(kernel->list, kernel->count, piece);
    } else {
        // Several fragments a warp, for one read of the list.
        const uint32_t per = clamp(ceil_div(kernel->count, blocks * block_warps), 1, warp_threads);
        const uint32_t needed = ceil_div(ceil_div(kernel->count, per), block_warps);
        copy_by_warps<<<clamp(needed, 1, blocks), threads, 0, stream>>>(kernel->list, kernel->count, per);
    }
    return cudaGetLastError();
}
