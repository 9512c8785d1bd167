/* The kernels of signal.cu, as the C files of the cuda backend see them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_CUDA_SIGNAL_H
#define NVLXI_DEVICE_CUDA_SIGNAL_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What `await_paced` gets: struct nvlxi_paced, as addresses that its GPU uses. */
struct nvlxi_cuda_paced {
    const unsigned long long *count;
    unsigned long long value;
    unsigned long long *reached;
    const unsigned long long *gate;
    unsigned long long *mark;
};

/* Of one thread. The arguments are the address of a count, and a value; of `await` two of each: it ends when either
 * count is reached. */
struct nvlxi_cuda_counters {
    struct CUfunc_st *set, *add, *await, *await_paced;
};

/* Loads them into the current context. */
cudaError_t nvlxi_cuda_load_counters(struct nvlxi_cuda_counters *counters);

#ifdef __cplusplus
}
#endif

#endif
