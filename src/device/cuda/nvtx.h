/* Ranges for NVIDIA's profilers, by NVTX: of its header alone, whatever the backend. SPDX-License-Identifier:
 * Apache-2.0
 */
#ifndef NVLXI_DEVICE_CUDA_NVTX_H
#define NVLXI_DEVICE_CUDA_NVTX_H

/* Sets the tracer (base/trace.h) if a profiler listens. From any thread, any number of times. */
void nvlxi_nvtx_open(void);

#endif
