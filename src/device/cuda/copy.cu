// The kernels that copy lists of fragments, or of rows: a warp a fragment, or a slice of one.
//
// SPDX-License-Identifier: Apache-2.0
//
// It reads the list, which usually lies in pinned host memory, a tile at a time and one tile ahead: a read over PCIe
// takes longer than the copy of a small fragment. Each tile is one contiguous read of a warp, a fragment a lane; the
// lanes then pass the fragments to each other by shuffles.
#include "device/cuda/copy_warp.h"

namespace {

// Fragment `number`, or none behind the last. `part` is where the lane is: it asks for ever higher numbers.
__device__ __forceinline__ Tile fetch(const nvlxi_cuda_lists &lists, uint32_t number, uint32_t &part) {
    if (number >= lists.count)
        return {0, 0, 0};
    while (number >= lists.end[part])
        part++;
    const nvlxi_fragment *fragment = lists.part[part] + (number - (part ? lists.end[part - 1] : 0));
    return {fragment->destination, fragment->source, fragment->length};
}

__global__ void __launch_bounds__(block_threads_max) copy_by_warps(const nvlxi_cuda_lists lists, uint32_t per) {
    const uint32_t block_warps = blockDim.x / warp_threads, lane = threadIdx.x % warp_threads;
    const uint32_t step = gridDim.x * block_warps * per, none = lists.count;
    uint32_t first = (blockIdx.x * block_warps + threadIdx.x / warp_threads) * per, part = 0;
    Tile next = fetch(lists, lane < per ? first + lane : none, part);
    for (; first < lists.count; first += step) {
        const Tile tile = next;
        next = fetch(lists, lane < per ? first + step + lane : none, part);
        if (first + step >= lists.count)
            let_next_begin();
        for (uint32_t i = 0; i < per && first + i < lists.count; i++)
            copy_fragment(pick(tile, i));
    }
    end_after_previous();
}

// For a list that is short, or of long fragments: each is cut into slices, which go to as many warps.
__global__ void __launch_bounds__(block_threads_max) copy_in_slices(const nvlxi_cuda_lists lists, uint32_t slices) {
    const uint32_t block_warps = blockDim.x / warp_threads, all = lists.count * slices;
    const uint32_t step = gridDim.x * block_warps;
    uint32_t part = 0;
    for (uint32_t i = blockIdx.x * block_warps + threadIdx.x / warp_threads; i < all; i += step) {
        if (i + step >= all)
            let_next_begin();
        copy_slice(fetch(lists, i / slices, part), slices, i % slices);
    }
    end_after_previous();
}

// ---- Rows ----------------------------------------------------------------------------------------------

constexpr uint32_t rows_words = sizeof(nvlxi_rows) / sizeof(uint64_t);
constexpr uint32_t short_row = 2048; // bytes: a longer one keeps a warp busy alone
constexpr uint32_t odd_row = 64;     // likewise, of rows that are not aligned alike

// Elements are numbered through all rows, and each lane has every 32nd of them, four in flight.
template <typename Element> __device__ __forceinline__ void copy_short_rows(const nvlxi_rows &rows) {
    const uint32_t lane = threadIdx.x % warp_threads, each = uint32_t(rows.length / sizeof(Element));
    const uint32_t down = warp_threads / each, across = warp_threads % each;
    uint32_t column = lane % each;
    uint64_t row = lane / each;
    int64_t left = int64_t(rows.count * each) - lane;
#pragma unroll 1
    for (; left > 0; left -= 4 * warp_threads) {
        Element value[4] = {};
        Element *to[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint64_t from = rows.source + row * rows.source_pitch;
            to[i] = reinterpret_cast<Element *>(rows.destination + row * rows.destination_pitch) + column;
            if (left > i * int64_t(warp_threads))
                value[i] = reinterpret_cast<const Element *>(from)[column];
            column += across;
            row += down + (column >= each ? 1 : 0);
            column -= column >= each ? each : 0;
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (left > i * int64_t(warp_threads))
                *to[i] = value[i];
    }
}

__device__ __forceinline__ void copy_row_by_row(const nvlxi_rows &rows) {
#pragma unroll 1
    for (uint64_t row = 0; row < rows.count; row++)
        copy_fragment(
            {rows.destination + row * rows.destination_pitch, rows.source + row * rows.source_pitch, rows.length});
}

__device__ __forceinline__ void copy_rows_of(const nvlxi_rows &rows) {
    const uint64_t all = rows.destination | rows.source | rows.length | rows.destination_pitch | rows.source_pitch;
    if (rows.length > short_row || (all % 4 && rows.length >= odd_row))
        copy_row_by_row(rows);
    else if (all % 16 == 0)
        copy_short_rows<uint4>(rows);
    else if (all % 8 == 0)
        copy_short_rows<uint2>(rows);
    else if (all % 4 == 0)
        copy_short_rows<uint32_t>(rows);
    else if (all % 2 == 0)
        copy_short_rows<uint16_t>(rows);
    else
        copy_short_rows<uint8_t>(rows);
}

// Slice `number` of rows: some of them, or where there are fewer rows than slices, some bytes of one. May be none.
__device__ __forceinline__ nvlxi_rows slice_of(nvlxi_rows rows, uint32_t slices, uint32_t number) {
    uint64_t first, begin = 0;
    if (rows.count >= slices) {
        const uint64_t some = (rows.count + slices - 1) / slices;
        first = number * some;
        rows.count = first < rows.count ? (rows.count - first < some ? rows.count - first : some) : 0;
    } else {
        const uint32_t across = slices / uint32_t(rows.count);
        const uint64_t least = (rows.length + across - 1) / across;
        const uint64_t slice = (least + slice_unit - 1) / slice_unit * slice_unit;
        first = number / across;
        begin = number % across * slice;
        rows.count = first < rows.count && begin < rows.length ? 1 : 0;
        rows.length = rows.count ? (rows.length - begin < slice ? rows.length - begin : slice) : 1;
    }
    rows.destination += first * rows.destination_pitch + begin;
    rows.source += first * rows.source_pitch + begin;
    return rows;
}

// A word of the rows of number `number` for each of the first lanes: one read for all.
__device__ __forceinline__ uint64_t fetch_word(const nvlxi_cuda_lists &lists, uint32_t number, uint32_t &part) {
    const uint32_t lane = threadIdx.x % warp_threads;
    if (number >= lists.count)
        return 0;
    while (number >= lists.end[part])
        part++;
    const uint64_t *list = reinterpret_cast<const uint64_t *>(lists.part[part]);
    return lane < rows_words ? list[uint64_t(number - (part ? lists.end[part - 1] : 0)) * rows_words + lane] : 0;
}

__device__ __forceinline__ nvlxi_rows assemble(uint64_t word) {
    return {__shfl_sync(full, word, 0), __shfl_sync(full, word, 1), __shfl_sync(full, word, 2),
            __shfl_sync(full, word, 3), __shfl_sync(full, word, 4), __shfl_sync(full, word, 5)};
}

// Rows, or slices of them, go to as many warps. The next are on their way while some are copied.
__global__ void __launch_bounds__(block_threads_max) copy_by_rows(const nvlxi_cuda_lists lists, uint32_t slices) {
    const uint32_t block_warps = blockDim.x / warp_threads, all = lists.count * slices;
    const uint32_t step = gridDim.x * block_warps;
    uint32_t part = 0, i = blockIdx.x * block_warps + threadIdx.x / warp_threads;
    uint64_t next = fetch_word(lists, i / slices, part);
    for (; i < all; i += step) {
        const nvlxi_rows rows = assemble(next);
        next = fetch_word(lists, (i + step) / slices, part);
        if (i + step >= all)
            let_next_begin();
        const nvlxi_rows slice = slice_of(rows, slices, i % slices);
        if (slice.count)
            copy_rows_of(slice);
    }
    end_after_previous();
}

} // namespace

// What follows is the host's. The compiler that CI has of the oldest CUDA, NVRTC, is not given it.
namespace {

// Asking for its attributes loads it. They tell for which architecture it was compiled, which may be an older one than
// the GPU's: the functions above are empty then.
cudaError_t load(const void *kernel, cudaFunction_t *loaded, bool *overlap) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
    if (!error)
        *overlap = attributes.ptxVersion >= 90;
    return error ? error : cudaGetFuncBySymbol(loaded, kernel);
}

} // namespace

cudaError_t nvlxi_cuda_load_kernels(nvlxi_cuda_kernels *kernels) {
    const void *by_warps = reinterpret_cast<const void *>(copy_by_warps);
    const void *in_slices = reinterpret_cast<const void *>(copy_in_slices);
    const void *rows = reinterpret_cast<const void *>(copy_by_rows);
    cudaError_t error = load(by_warps, &kernels->by_warps, &kernels->overlap);
    if (!error)
        error = load(in_slices, &kernels->in_slices, &kernels->overlap);
    return error ? error : load(rows, &kernels->rows, &kernels->overlap);
}
