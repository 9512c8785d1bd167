// How the host loads a kernel: for the .cu files alone. SPDX-License-Identifier: Apache-2.0
#ifndef NVLXI_DEVICE_CUDA_LOAD_H
#define NVLXI_DEVICE_CUDA_LOAD_H

#include <cuda_runtime_api.h>

// Into the current context. Asking for its attributes loads it.
static inline cudaError_t nvlxi_cuda_load_kernel(const void *kernel, cudaFunction_t *loaded) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
    return error ? error : cudaGetFuncBySymbol(loaded, kernel);
}

#endif
