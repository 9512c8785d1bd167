/* The kernel of digest.cu, as the C files of the cuda backend see it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_CUDA_DIGEST_H
#define NVLXI_DEVICE_CUDA_DIGEST_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "device/leaf_list.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Its only argument is a struct nvlxi_leaf_list. Each leaf takes so many threads of a block. */
#define NVLXI_LEAF_THREADS         4u
#define NVLXI_DIGEST_BLOCK_THREADS 128u

/* Loads it into the current context, as a CUfunction. */
cudaError_t nvlxi_cuda_load_digest(struct CUfunc_st **kernel);

#ifdef __cplusplus
}
#endif

#endif
