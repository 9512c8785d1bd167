/* The cuda backend's pinned host memory, which the program made (cudaHostAlloc, cudaHostRegister): only looked at. The
 * introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "base/error.h"
#include "device/cuda/cuda.h"

/* All GPUs of the process can use it (NVIDIA: CUDA Driver API, Unified Addressing). It is copied by the one that it was
 * allocated or registered for, unless this engine does not use that. */
static int home_of(struct nvlxi_device *device, const struct nvlxi_cuda_attributes *attributes) {
    return nvlxi_cuda_may_enter(device, attributes->gpu) ? attributes->gpu : nvlxi_cuda_any_gpu(device);
}

/* Where GPUs see it, and its range, as attributes; 0 where the driver does not tell. */
struct view {
    uint64_t seen_at, start, size;
};

static int look(uint64_t address, struct view *view) {
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_DEVICE_POINTER, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
                                   CU_POINTER_ATTRIBUTE_RANGE_SIZE};
    void *values[] = {&view->seen_at, &view->start, &view->size};
    *view = (struct view){0};
    CUresult error = nvlxi_cuda_driver.cuPointerGetAttributes(sizeof names / sizeof *names, names, values, address);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuPointerGetAttributes") : 0;
}

/* Where the allocation begins and ends: as of GPU memory, or where the driver does not say that of host memory, by its
 * attributes. */
static int find_range(uint64_t address, const struct view *view, struct nvlxi_allocation *allocation) {
    CUdeviceptr base = 0;
    size_t size = 0;
    if (nvlxi_cuda_driver.cuMemGetAddressRange(&base, &size, address)) {
        base = view->start;
        size = view->size;
    }
    if (address - base >= size)
        return nvlxi_fail(NVLX_ENOTSUP, "CUDA does not tell where the pinned host memory at 0x%" PRIx64 " begins",
                          address);
    allocation->base = base;
    allocation->size = size;
    return 0;
}

/* With the context of its GPU. */
static int describe(uint64_t address, struct nvlxi_allocation *allocation) {
    struct view view;
    int code = look(address, &view);
    if (!code && view.seen_at != address)
        code = nvlxi_fail(NVLX_ENOTSUP,
                          "GPUs see the pinned host memory at 0x%" PRIx64 " elsewhere, or not at all: use "
                          "cudaHostRegister or cudaHostAlloc with the flag for mapped memory",
                          address);
    return code ? code : find_range(address, &view, allocation);
}

int nvlxi_cuda_pinned_resolve(struct nvlxi_device *device, uint64_t address,
                              const struct nvlxi_cuda_attributes *attributes, struct nvlxi_allocation *allocation) {
    struct nvlxi_allocation found = {
        .kind = NVLXI_KIND_PINNED, .gpu = home_of(device, attributes), .serial = attributes->serial};
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(device, found.gpu, &entry);
    if (code)
        return code;
    code = describe(address, &found);
    nvlxi_cuda_leave(&entry);
    if (!code)
        *allocation = found;
    return code;
}
