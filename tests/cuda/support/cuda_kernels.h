/* The kernels of the tests, for C. All run in the current context; each launch returns what CUDA says of it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef CUDA_KERNELS_H
#define CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Loads all of them, so that no launch does it behind running work or within a graph capture. */
cudaError_t kernels_load(void);

/* Runs for `spin_ns`, and only then writes the seed's words. */
cudaError_t kernel_produce(uint32_t *words, size_t count, uint64_t spin_ns, uint32_t seed, cudaStream_t stream);

/* Spins, then copies words. */
cudaError_t kernel_write(uint32_t *words, const uint32_t *from, size_t count, uint64_t spin_ns, cudaStream_t stream);

/* Adds to `wrong` how many of the words are not the seed's. */
cudaError_t kernel_count(const uint32_t *words, size_t count, uint32_t seed, unsigned long long *wrong,
                         cudaStream_t stream);

/* For graphs, whose launches are always the same: the seed is what is at `round`, a count in device memory, plus 1.
 * Then the count grows by 1. They run as one block. */
cudaError_t kernel_produce_next(uint32_t *words, size_t count, uint64_t *round, cudaStream_t stream);
cudaError_t kernel_count_next(const uint32_t *words, size_t count, uint64_t *round, unsigned long long *wrong,
                              cudaStream_t stream);

/* Some tens of milliseconds on all SMs, bound by arithmetic or by memory. `scratch` is KERNEL_SCRATCH bytes. */
#define KERNEL_SCRATCH ((size_t)512 << 20)
typedef cudaError_t kernel_that_computes(void *scratch, cudaStream_t stream);
kernel_that_computes kernel_multiply, kernel_stream_memory;

/* One thread sets a count of 64 bits, or spins until it is reached. */
cudaError_t kernel_set(void *count, uint64_t value, cudaStream_t stream);
cudaError_t kernel_await(void *count, uint64_t value, cudaStream_t stream);

/* Runs for `spin_ns`, then breaks its context for good. */
cudaError_t kernel_trap(uint64_t spin_ns, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
