/* The kernel of link.cu, as the C files of the cuda backend see it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_CUDA_LINK_H
#define NVLXI_DEVICE_CUDA_LINK_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Its arguments are an address, and bytes: each of its threads reads a word, that far from the one before. */
enum { NVLXI_CUDA_TOUCHES = 256 }; /* threads */

/* Loads it into the current context. */
cudaError_t nvlxi_cuda_load_toucher(struct CUfunc_st **kernel);

#ifdef __cplusplus
}
#endif

#endif
