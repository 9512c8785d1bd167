/* The kernels of the tests: see cuda_kernels.h. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_kernels.h"

namespace {

constexpr unsigned THREADS = 256, BLOCKS_MAX = 16; /* few: the rest of the GPU stays free for copies */

/* Word `i` of what a seed stands for: two seeds differ in every word. */
__device__ uint32_t word(uint32_t seed, size_t i) {
    return seed * 2654435761u + static_cast<uint32_t>(i) * 40503u;
}

__device__ uint64_t now_ns() {
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}

__device__ void spin(uint64_t ns) {
    uint64_t start = now_ns();
    while (now_ns() - start < ns) {
    }
}

__global__ void produce(uint32_t *words, size_t count, uint64_t spin_ns, uint32_t seed) {
    spin(spin_ns);
    for (size_t i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        words[i] = word(seed, i);
}

__global__ void write_later(uint32_t *words, const uint32_t *from, size_t count, uint64_t spin_ns) {
    spin(spin_ns);
    for (size_t i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        words[i] = from[i];
}

__global__ void count_wrong(const uint32_t *words, size_t count, uint32_t seed, unsigned long long *wrong) {
    unsigned long long mine = 0;
    for (size_t i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        mine += words[i] != word(seed, i);
    if (mine)
        atomicAdd(wrong, mine);
}

constexpr unsigned LONE = 1024; // threads of a block that runs alone

__global__ void produce_next(uint32_t *words, size_t count, uint64_t *round) {
    const uint32_t seed = static_cast<uint32_t>(*round + 1);
    for (size_t i = threadIdx.x; i < count; i += LONE)
        words[i] = word(seed, i);
    __syncthreads();
    if (threadIdx.x == 0)
        ++*round;
}

__global__ void count_next(const uint32_t *words, size_t count, uint64_t *round, unsigned long long *wrong) {
    const uint32_t seed = static_cast<uint32_t>(*round + 1);
    unsigned long long mine = 0;
    for (size_t i = threadIdx.x; i < count; i += LONE)
        mine += words[i] != word(seed, i);
    if (mine)
        atomicAdd(wrong, mine);
    __syncthreads();
    if (threadIdx.x == 0)
        ++*round;
}

constexpr int CHAINS = 8, TURNS = 1500;   // of multiplications: a block takes about 0.1 ms beside 7 others
constexpr unsigned MULTIPLYING = 8 * 300; // blocks for each SM: 8 are on it at once
constexpr unsigned COPYING = 160;         // times one half of the scratch to the other
constexpr int DEEP = 4, SHARE = 4096;     // loads of a thread in flight; words of 16 bytes that a block copies
constexpr size_t HALF = KERNEL_SCRATCH / 2, SHARES = HALF / sizeof(uint4) / SHARE;

__global__ void multiply(float *result) {
    float value[CHAINS];
    for (int k = 0; k < CHAINS; k++)
        value[k] = static_cast<float>(threadIdx.x + k);
    for (int i = 0; i < TURNS; i++)
#pragma unroll
        for (int k = 0; k < CHAINS; k++)
            value[k] = value[k] * 0.999f + 0.5f;
    float sum = 0;
    for (int k = 0; k < CHAINS; k++)
        sum += value[k];
    if (sum < 0) // it is not, which the compiler does not know
        *result = sum;
}

__global__ void stream_memory(uint4 *to, const uint4 *from) {
    const size_t begin = blockIdx.x % SHARES * SHARE + threadIdx.x;
    uint4 held[DEEP];
    for (unsigned i = 0; i < SHARE; i += DEEP * THREADS) {
#pragma unroll
        for (int k = 0; k < DEEP; k++)
            held[k] = __ldcs(from + begin + i + k * THREADS);
#pragma unroll
        for (int k = 0; k < DEEP; k++)
            __stcs(to + begin + i + k * THREADS, held[k]);
    }
}

__global__ void set_count(volatile unsigned long long *count, unsigned long long value) {
    __threadfence_system();
    *count = value;
}

__global__ void await_count(volatile unsigned long long *count, unsigned long long value) {
    while (*count < value) {
    }
    __threadfence_system();
}

__global__ void trap(uint64_t spin_ns) {
    spin(spin_ns);
    __trap();
}

unsigned blocks(size_t count) {
    size_t needed = (count + THREADS - 1) / THREADS;
    return needed < BLOCKS_MAX ? static_cast<unsigned>(needed) : BLOCKS_MAX;
}

} // namespace

cudaError_t kernels_load(void) {
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, produce);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, write_later);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, count_wrong);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, produce_next);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, count_next);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, multiply);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, stream_memory);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, set_count);
    if (!error)
        error = cudaFuncGetAttributes(&attributes, await_count);
    return error ? error : cudaFuncGetAttributes(&attributes, trap);
}

cudaError_t kernel_set(void *count, uint64_t value, cudaStream_t stream) {
    set_count<<<1, 1, 0, stream>>>(static_cast<unsigned long long *>(count), value);
    return cudaGetLastError();
}

cudaError_t kernel_await(void *count, uint64_t value, cudaStream_t stream) {
    await_count<<<1, 1, 0, stream>>>(static_cast<unsigned long long *>(count), value);
    return cudaGetLastError();
}

cudaError_t kernel_produce(uint32_t *words, size_t count, uint64_t spin_ns, uint32_t seed, cudaStream_t stream) {
    produce<<<blocks(count), THREADS, 0, stream>>>(words, count, spin_ns, seed);
    return cudaGetLastError();
}

cudaError_t kernel_write(uint32_t *words, const uint32_t *from, size_t count, uint64_t spin_ns, cudaStream_t stream) {
    write_later<<<blocks(count), THREADS, 0, stream>>>(words, from, count, spin_ns);
    return cudaGetLastError();
}

cudaError_t kernel_count(const uint32_t *words, size_t count, uint32_t seed, unsigned long long *wrong,
                         cudaStream_t stream) {
    count_wrong<<<blocks(count), THREADS, 0, stream>>>(words, count, seed, wrong);
    return cudaGetLastError();
}

cudaError_t kernel_produce_next(uint32_t *words, size_t count, uint64_t *round, cudaStream_t stream) {
    produce_next<<<1, LONE, 0, stream>>>(words, count, round);
    return cudaGetLastError();
}

cudaError_t kernel_count_next(const uint32_t *words, size_t count, uint64_t *round, unsigned long long *wrong,
                              cudaStream_t stream) {
    count_next<<<1, LONE, 0, stream>>>(words, count, round, wrong);
    return cudaGetLastError();
}

cudaError_t kernel_multiply(void *scratch, cudaStream_t stream) {
    int device = 0, sms = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (!error)
        error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    if (error)
        return error;
    multiply<<<sms * MULTIPLYING, THREADS, 0, stream>>>(static_cast<float *>(scratch));
    return cudaGetLastError();
}

cudaError_t kernel_stream_memory(void *scratch, cudaStream_t stream) {
    uint4 *half = static_cast<uint4 *>(scratch) + HALF / sizeof(uint4);
    stream_memory<<<SHARES * COPYING, THREADS, 0, stream>>>(half, static_cast<const uint4 *>(scratch));
    return cudaGetLastError();
}

cudaError_t kernel_trap(uint64_t spin_ns, cudaStream_t stream) {
    trap<<<1, 1, 0, stream>>>(spin_ns);
    return cudaGetLastError();
}
