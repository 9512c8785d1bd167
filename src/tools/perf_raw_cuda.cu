/* nvlx_perf: the kernels of the raw baselines: see perf_raw_cuda.h. SPDX-License-Identifier: Apache-2.0 */
#include "perf_raw_cuda.h"

#include "perf_word.h"

namespace {

/* ---- Copies ----------------------------------------------------------------------------------------------- */

constexpr uint32_t warp_threads = 32;

/* 16 bytes at a time, up to `deep` loads of each of `threads` threads in flight; also of the rest, which for a short
 * fragment is all. */
template <int deep>
__device__ __forceinline__ void copy_range(char *to, const char *from, uint32_t length, uint32_t thread,
                                           uint32_t threads) {
    uint4 *d = reinterpret_cast<uint4 *>(to);
    const uint4 *s = reinterpret_cast<const uint4 *>(from);
    const uint32_t count = length / sizeof(uint4);
    uint4 held[deep];
    uint32_t i = thread;
    for (; i + (deep - 1) * threads < count; i += deep * threads) {
#pragma unroll
        for (int k = 0; k < deep; k++)
            held[k] = __ldcs(s + i + k * threads);
#pragma unroll
        for (int k = 0; k < deep; k++)
            __stcs(d + i + k * threads, held[k]);
    }
#pragma unroll
    for (int k = 0; k < deep; k++)
        if (i + k * threads < count)
            held[k] = __ldcs(s + i + k * threads);
#pragma unroll
    for (int k = 0; k < deep; k++)
        if (i + k * threads < count)
            __stcs(d + i + k * threads, held[k]);
}

/* The work of all copy kernels: fragment w / per, of it the piece w % per, which may lie behind the end of a short one.
 */
struct Piece {
    char *to;
    const char *from;
    uint32_t length;
};

__device__ __forceinline__ Piece piece_of(const perf_copy *list, uint64_t per, uint64_t piece, uint64_t work) {
    const uint64_t i = per == 1 ? work : work / per, begin = (work - i * per) * piece;
    const perf_copy copy = list[i];
    if (begin >= copy.length)
        return {nullptr, nullptr, 0};
    const uint64_t left = copy.length - begin;
    return {copy.to + begin, copy.from + begin, static_cast<uint32_t>(left < piece ? left : piece)};
}

/* A warp a piece; the next piece is looked up while this one is copied. */
template <int threads, int piece>
__global__ void __launch_bounds__(threads) copy_by_warps(const perf_copy *list, uint64_t count, uint64_t per) {
    const uint64_t all = count * per, step = uint64_t(gridDim.x) * (threads / warp_threads);
    uint64_t work = blockIdx.x * uint64_t(threads / warp_threads) + threadIdx.x / warp_threads;
    Piece next = work < all ? piece_of(list, per, piece, work) : Piece{nullptr, nullptr, 0};
    for (; work < all; work += step) {
        const Piece now = next;
        if (work + step < all)
            next = piece_of(list, per, piece, work + step);
        copy_range<4>(now.to, now.from, now.length, threadIdx.x % warp_threads, warp_threads);
    }
}

/* A block a piece. */
template <int threads, int deep, int piece>
__global__ void __launch_bounds__(threads) copy_by_blocks(const perf_copy *list, uint64_t count, uint64_t per) {
    const uint64_t all = count * per;
    for (uint64_t work = blockIdx.x; work < all; work += gridDim.x) {
        const Piece now = piece_of(list, per, piece, work);
        copy_range<deep>(now.to, now.from, now.length, threadIdx.x, threads);
    }
}

/* ---- Bulk copies: one thread of a block keeps a ring of pieces in shared memory full -------------------------- */

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ __forceinline__ uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(uint64_t *barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t *barrier, uint32_t parity) {
    uint32_t done = 0;
    while (!done)
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(done)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
}

/* The barrier's phase ends when all bytes are there. */
__device__ __forceinline__ void bulk_load(void *slot, const char *from, uint32_t length, uint64_t *barrier) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(length)
                 : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(slot)),
                 "l"(from), "r"(length), "r"(shared_address(barrier))
                 : "memory");
}

__device__ __forceinline__ void bulk_store(char *to, const void *slot, uint32_t length) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(shared_address(slot)),
                 "r"(length)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* Goes through a block's pieces, past those that are empty. */
struct Walk {
    const perf_copy *list;
    uint64_t per, piece, work, all;

    __device__ __forceinline__ bool next(Piece *found) {
        while (work < all) {
            *found = piece_of(list, per, piece, work);
            work += gridDim.x;
            if (found->length)
                return true;
        }
        return false;
    }
};
#endif

/* `slots` pieces in the ring; half of them may be on their way in, and half on their way out. */
template <int piece, int slots>
__global__ void __launch_bounds__(warp_threads) copy_in_bulk(const perf_copy *list, uint64_t count, uint64_t per) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    constexpr int out = slots / 2;
    extern __shared__ __align__(128) char ring[];
    __shared__ __align__(8) uint64_t barriers[slots];
    if (threadIdx.x)
        return;
    for (int i = 0; i < slots; i++)
        barrier_init(&barriers[i]);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    Walk loads = {list, per, piece, blockIdx.x, count * per}, stores = loads;
    Piece loading, storing;
    uint32_t loaded = 0, stored = 0;
    bool more = loads.next(&loading);
    while (stores.next(&storing)) {
        for (; more && loaded < stored + slots - out; loaded++) {
            /* The slot's last piece was stored before the latest `out`: all but those have been read by then. */
            if (loaded >= slots)
                asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(out) : "memory");
            bulk_load(ring + loaded % slots * piece, loading.from, loading.length, &barriers[loaded % slots]);
            more = loads.next(&loading);
        }
        barrier_wait(&barriers[stored % slots], stored / slots % 2);
        bulk_store(storing.to, ring + stored % slots * piece, storing.length);
        stored++;
    }
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
}

typedef void (*CopyKernel)(const perf_copy *list, uint64_t count, uint64_t per);

struct Kernel {
    const char *name;
    CopyKernel function;
    uint64_t piece;
    int threads, shared;
    bool bulk;
};

constexpr int KIB = 1024;

template <int threads, int piece> constexpr Kernel by_warps(const char *name) {
    return {name, copy_by_warps<threads, piece>, piece, threads, 0, false};
}

template <int threads, int deep, int piece> constexpr Kernel by_blocks(const char *name) {
    return {name, copy_by_blocks<threads, deep, piece>, piece, threads, 0, false};
}

template <int piece, int slots> constexpr Kernel in_bulk(const char *name) {
    return {name, copy_in_bulk<piece, slots>, piece, warp_threads, piece * slots, true};
}

const Kernel kernels[] = {
    by_warps<512, 16 * KIB>("warp a fragment"),
    by_warps<1024, 16 * KIB>("warp a fragment, 32 warps"),
    by_blocks<1024, 4, 64 * KIB>("block a fragment"),
    by_blocks<1024, 8, 128 * KIB>("block a fragment, 8 deep"),
    in_bulk<1 * KIB, 128>("bulk 1K"),
    in_bulk<4 * KIB, 48>("bulk 4K"),
    in_bulk<8 * KIB, 24>("bulk 8K"),
    in_bulk<16 * KIB, 12>("bulk 16K"),
};
constexpr int kernel_count = sizeof kernels / sizeof *kernels;
static_assert(kernel_count <= PERF_CUDA_KERNELS_MAX, "no more than there is room for");

/* ---- Content ---------------------------------------------------------------------------------------------- */

constexpr uint32_t plain_threads = 256;

__global__ void __launch_bounds__(plain_threads) fill(uint64_t *words, uint64_t count, uint64_t seed) {
    const uint64_t step = uint64_t(gridDim.x) * plain_threads;
    for (uint64_t i = uint64_t(blockIdx.x) * plain_threads + threadIdx.x; i < count; i += step)
        words[i] = perf_word(seed, i);
}

__device__ __forceinline__ unsigned char byte_at(uint64_t seed, uint64_t offset) {
    return static_cast<unsigned char>(perf_word(seed, offset / 8) >> (offset % 8 * 8));
}

struct Wrong {
    unsigned long long count, first;

    __device__ __forceinline__ void note(uint64_t offset) {
        if (!count++ || offset < first)
            first = offset;
    }
};

__device__ void check_bytes(const unsigned char *memory, const perf_piece &piece, uint64_t begin, uint64_t step,
                            Wrong *wrong) {
    for (uint64_t i = begin; i < piece.length; i += step)
        if (memory[piece.at + i] != byte_at(piece.seed, piece.from + i))
            wrong->note(piece.at + i);
}

__device__ void check_words(const unsigned char *memory, const perf_piece &piece, Wrong *wrong) {
    const uint64_t *words = reinterpret_cast<const uint64_t *>(memory + piece.at);
    for (uint64_t i = threadIdx.x; i < piece.length / 8; i += plain_threads)
        if (words[i] != perf_word(piece.seed, piece.from / 8 + i))
            check_bytes(memory, {piece.at + 8 * i, 8, piece.seed, piece.from + 8 * i}, 0, 1, wrong);
}

/* A block a piece. */
__global__ void __launch_bounds__(plain_threads)
    check(const unsigned char *memory, const perf_piece *pieces, uint64_t count, unsigned long long *result) {
    Wrong wrong = {0, ~0ull};
    for (uint64_t i = blockIdx.x; i < count; i += gridDim.x) {
        const perf_piece piece = pieces[i];
        if ((piece.at | piece.from | piece.length) % 8 == 0)
            check_words(memory, piece, &wrong);
        else
            check_bytes(memory, piece, threadIdx.x, plain_threads, &wrong);
    }
    if (wrong.count) {
        atomicAdd(&result[0], wrong.count);
        atomicMin(&result[1], wrong.first);
    }
}

/* ---- Work that computes ----------------------------------------------------------------------------------- */

constexpr int chains = 8;            /* of multiplications that do not wait for each other */
constexpr int turns = 1500;          /* about 0.1 ms where 8 such blocks are on an SM */
constexpr int waves = 300;           /* of blocks that fill the GPU */
constexpr int blocks_an_sm = 8;      /* of 256 threads: all that an SM holds */
constexpr int copies = 160;          /* of one half of the memory to the other */
constexpr uint32_t share = 64 * KIB; /* of a block that copies */

__global__ void __launch_bounds__(plain_threads) multiply(float *result) {
    float value[chains];
    for (int k = 0; k < chains; k++)
        value[k] = static_cast<float>(threadIdx.x + k);
    for (int i = 0; i < turns; i++)
#pragma unroll
        for (int k = 0; k < chains; k++)
            value[k] = value[k] * 0.999f + 0.5f;
    float sum = 0;
    for (int k = 0; k < chains; k++)
        sum += value[k];
    if (sum < 0) /* it is not, which the compiler does not know */
        *result = sum;
}

__global__ void __launch_bounds__(plain_threads) stream(char *to, const char *from, uint64_t shares) {
    const uint64_t begin = blockIdx.x % shares * uint64_t(share);
    copy_range<4>(to + begin, from + begin, share, threadIdx.x, plain_threads);
}

} // namespace

int perf_cuda_kernels(void) {
    return kernel_count;
}

const char *perf_cuda_kernel_name(int kernel) {
    return kernels[kernel].name;
}

bool perf_cuda_kernel_runs(int kernel, int major) {
    return !kernels[kernel].bulk || major >= 9;
}

cudaError_t perf_cuda_load(int major) {
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, fill);
    for (int i = 0; i < kernel_count && !error; i++) {
        error = cudaFuncGetAttributes(&attributes, kernels[i].function);
        if (!error && perf_cuda_kernel_runs(i, major) && kernels[i].shared)
            error = cudaFuncSetAttribute(kernels[i].function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         kernels[i].shared);
    }
    if (!error)
        error = cudaFuncGetAttributes(&attributes, check);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, multiply);
    return error ? error : cudaFuncGetAttributes(&attributes, stream);
}

cudaError_t perf_cuda_copy(int kernel, int blocks, const perf_copies *copies, cudaStream_t stream) {
    const Kernel &it = kernels[kernel];
    const uint64_t per = (copies->longest + it.piece - 1) / it.piece;
    it.function<<<blocks, it.threads, it.shared, stream>>>(copies->list, copies->count, per);
    return cudaGetLastError();
}

cudaError_t perf_cuda_fill(void *memory, uint64_t size, uint64_t seed, cudaStream_t stream) {
    fill<<<1024, plain_threads, 0, stream>>>(static_cast<uint64_t *>(memory), size / 8, seed);
    return cudaGetLastError();
}

cudaError_t perf_cuda_check(const void *memory, const perf_piece *pieces, uint64_t count, unsigned long long *wrong,
                            cudaStream_t stream) {
    const uint64_t most = 4096;
    const unsigned blocks = static_cast<unsigned>(count < most ? count : most);
    check<<<blocks, plain_threads, 0, stream>>>(static_cast<const unsigned char *>(memory), pieces, count, wrong);
    return cudaGetLastError();
}

cudaError_t perf_cuda_compute(perf_load load, void *memory, uint64_t size, int sms, cudaStream_t on) {
    char *half = static_cast<char *>(memory) + size / 2;
    const uint64_t shares = size / 2 / share;
    if (load == PERF_ARITHMETIC)
        multiply<<<sms * blocks_an_sm * waves, plain_threads, 0, on>>>(static_cast<float *>(memory));
    else
        stream<<<static_cast<unsigned>(shares * copies), plain_threads, 0, on>>>(half, static_cast<char *>(memory),
                                                                                 shares);
    return cudaGetLastError();
}
