/* nvlx_perf: the kernels of the raw baselines, for C. All run in the current context; each launch returns what CUDA
 * says of it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_RAW_CUDA_H
#define PERF_RAW_CUDA_H

#include <cuda_runtime_api.h>

#include "perf_raw.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An entry of a list that kernels copy; all three are multiples of 16. */
struct perf_copy {
    char *to;
    const char *from;
    uint64_t length;
};

struct perf_copies {
    const struct perf_copy *list; /* in the memory of the GPU */
    uint64_t count, longest;
};

/* The kernels are numbered from 0. Those that a GPU cannot run, which is of compute capability `major`, are never to be
 * launched there. */
enum { PERF_CUDA_KERNELS_MAX = 16 };
int perf_cuda_kernels(void);
const char *perf_cuda_kernel_name(int kernel);
bool perf_cuda_kernel_runs(int kernel, int major);

/* Loads all kernels, so that no launch that is timed does it. */
cudaError_t perf_cuda_load(int major);

cudaError_t perf_cuda_copy(int kernel, int blocks, const struct perf_copies *copies, cudaStream_t stream);

cudaError_t perf_cuda_fill(void *memory, uint64_t size, uint64_t seed, cudaStream_t stream);

/* Adds the number of wrong bytes to wrong[0], and lowers wrong[1] to the offset of the first. `pieces` and `wrong` are
 * in the memory of the GPU. */
cudaError_t perf_cuda_check(const void *memory, const struct perf_piece *pieces, uint64_t count,
                            unsigned long long *wrong, cudaStream_t stream);

/* Some tens of milliseconds of many short blocks. `memory`, of `size` bytes, is scratch for both. */
cudaError_t perf_cuda_compute(enum perf_load load, void *memory, uint64_t size, int sms, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
