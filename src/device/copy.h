/* The kernel of copy.cu, as the C files of the cuda backend see them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_COPY_H
#define NVLXI_DEVICE_COPY_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "../records.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Loads the kernel into the current context, so that no launch does it behind running work. */
cudaError_t nvlxi_cuda_load_kernel(void);

/* Copies a list of fragments of any address and length, which the kernel reads while it runs, on `sms` SMs at most.
 * Fragments of about the same length, and of 64 KiB at most, are copied best. `bytes`: of all fragments; `opcode`:
 * NVLX_OP_..., which side is far. */
cudaError_t nvlxi_cuda_launch(const struct nvlxi_fragment *list, uint32_t count, uint64_t bytes, uint32_t opcode,
                              uint32_t sms, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
