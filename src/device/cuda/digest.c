/* Launches of the kernel that digests memory. The introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda/digest.h"

#include "base/error.h"
#include "device/cuda/cuda.h"

#define BLOCK_LEAVES (NVLXI_DIGEST_BLOCK_THREADS / NVLXI_LEAF_THREADS)

_Static_assert(sizeof(struct nvlxi_digest_span) == 16, "the kernel loads it at once");

static CUresult launch(CUfunction function, const struct nvlxi_leaves *leaves, cudaStream_t stream) {
    struct nvlxi_leaf_list argument = nvlxi_leaf_list_make(leaves);
    void *arguments[] = {&argument};
    const uint64_t blocks = (argument.count + BLOCK_LEAVES - 1) / BLOCK_LEAVES;
    const CUlaunchConfig config = {.gridDimX = (unsigned)blocks,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = NVLXI_DIGEST_BLOCK_THREADS,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = stream};
    return nvlxi_cuda_driver.cuLaunchKernelEx(&config, function, arguments, NULL);
}

int nvlxi_cuda_digest(struct nvlxi_lane *lane, const struct nvlxi_leaves *leaves) {
    const struct nvlxi_cuda_gpu *gpu = &lane->device->gpus[lane->gpu];
    struct nvlxi_cuda_entry entry;
    if (!atomic_load(&gpu->sms))
        return nvlxi_fail(NVLX_ENOTSUP, "GPU %d has no kernel to digest memory with, or it is being loaded", lane->gpu);
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    CUresult error = launch(gpu->digest, leaves, lane->stream);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "launching the kernel that digests memory") : 0;
}
