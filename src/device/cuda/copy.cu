// The kernels that copy lists of fragments, or of rows: a warp a fragment, or a slice of one.
//
// SPDX-License-Identifier: Apache-2.0
//
// It reads the list, which usually lies in pinned host memory, a tile at a time and one tile ahead: a read over PCIe
// takes longer than the copy of a small fragment. Each tile is one contiguous read of a warp, a fragment a lane; the
// lanes then pass the fragments to each other by shuffles.
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

// Fragment `number`, or none behind the last. `part` is where the lane is: it asks for ever higher numbers.
__device__ __forceinline__ Tile fetch(const nvlxi_cuda_lists &lists, uint32_t number, uint32_t &part) {
    if (number >= lists.count)
        return {0, 0, 0};
    while (number >= lists.end[part])
        part++;
    const nvlxi_fragment *fragment = lists.part[part] + (number - (part ? lists.end[part - 1] : 0));
    return {fragment->destination, fragment->source, fragment->length};
}

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
        const Tile fragment = fetch(lists, i / slices, part);
        const uint64_t least = (fragment.length + slices - 1) / slices;
        const uint64_t slice = (least + slice_unit - 1) / slice_unit * slice_unit, begin = i % slices * slice;
        if (begin < fragment.length) {
            const uint64_t left = fragment.length - begin;
            copy_fragment({fragment.destination + begin, fragment.source + begin, left < slice ? left : slice});
        }
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
