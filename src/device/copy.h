/* The kernel of copy.cu, as the C files of the cuda backend see them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_COPY_H
#define NVLXI_DEVICE_COPY_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "../device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Loads the kernel into the current context, so that no launch does it behind running work. */
cudaError_t nvlxi_cuda_load_kernel(void);

/* Copies the kernel's list of fragments, of any address and length. It asks for no more SMs than the GPU has, and to
 * overlap only where the GPU can: compute capability 9.0 and later. */
cudaError_t nvlxi_cuda_launch(const struct nvlxi_kernel *kernel, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
