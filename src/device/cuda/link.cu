// The kernel that wakes links: see link.c. SPDX-License-Identifier: Apache-2.0
#include "device/cuda/link.h"

namespace {

__global__ void touch(unsigned long long address, unsigned long long step) {
    (void)*reinterpret_cast<const volatile unsigned *>(address + threadIdx.x * step);
}

} // namespace

// What follows is the host's. The compiler that CI has of the oldest CUDA, NVRTC, is not given it.
#include "device/cuda/load.h"

cudaError_t nvlxi_cuda_load_toucher(struct CUfunc_st **kernel) {
    return nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(touch), kernel);
}
