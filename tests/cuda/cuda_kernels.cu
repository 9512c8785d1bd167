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

__global__ void count_wrong(const uint32_t *words, size_t count, uint32_t seed, unsigned long long *wrong) {
    unsigned long long mine = 0;
    for (size_t i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        mine += words[i] != word(seed, i);
    if (mine)
        atomicAdd(wrong, mine);
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
        error = cudaFuncGetAttributes(&attributes, count_wrong);
    return error ? error : cudaFuncGetAttributes(&attributes, trap);
}

cudaError_t kernel_produce(uint32_t *words, size_t count, uint64_t spin_ns, uint32_t seed, cudaStream_t stream) {
    produce<<<blocks(count), THREADS, 0, stream>>>(words, count, spin_ns, seed);
    return cudaGetLastError();
}

cudaError_t kernel_count(const uint32_t *words, size_t count, uint32_t seed, unsigned long long *wrong,
                         cudaStream_t stream) {
    count_wrong<<<blocks(count), THREADS, 0, stream>>>(words, count, seed, wrong);
    return cudaGetLastError();
}

cudaError_t kernel_trap(uint64_t spin_ns, cudaStream_t stream) {
    trap<<<1, 1, 0, stream>>>(spin_ns);
    return cudaGetLastError();
}
