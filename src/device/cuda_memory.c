/* The cuda backend's memory: what lies under a pointer, handles, mappings. The introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "cuda.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* ---- Memory ------------------------------------------------------------------------------------------ */

struct attributes {
    unsigned type; /* CUmemorytype; 0: not known to CUDA */
    int gpu;
    uint64_t managed, legacy, serial; /* wide enough for what the driver writes */
    void *pool;
};

static int get_attributes(uint64_t address, struct attributes *attributes) {
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                   CU_POINTER_ATTRIBUTE_IS_MANAGED,  CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
                                   CU_POINTER_ATTRIBUTE_BUFFER_ID,   CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE};
    void *values[] = {&attributes->type,   &attributes->gpu,    &attributes->managed,
                      &attributes->legacy, &attributes->serial, &attributes->pool};
    memset(attributes, 0, sizeof *attributes);
    CUresult error = nvlxi_cuda_driver.cuPointerGetAttributes(sizeof names / sizeof *names, names, values, address);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuPointerGetAttributes") : 0;
}

int nvlxi_cuda_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address) {
    struct nvlxi_cuda_entry entry;
    void *made;
    if (alloc->kind != NVLXI_KIND_CUDA_MALLOC)
        return nvlxi_fail(NVLX_ENOTSUP, "the cuda backend does not allocate memory of kind %" PRIu32, alloc->kind);
    int code = nvlxi_cuda_enter(device, alloc->gpu, &entry);
    if (code)
        return code;
    cudaError_t error = cudaMalloc(&made, alloc->length);
    nvlxi_cuda_leave(&entry);
    if (error)
        return nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaMalloc");
    *address = made;
    return 0;
}

int nvlxi_cuda_free(struct nvlxi_device *device, void *address) {
    struct attributes attributes;
    struct nvlxi_cuda_entry entry;
    int code = get_attributes((uint64_t)(uintptr_t)address, &attributes);
    if (code)
        return code;
    if (attributes.type != CU_MEMORYTYPE_DEVICE)
        return nvlxi_fail(NVLX_EINVAL, "%p is not memory of a GPU", address);
    if ((code = nvlxi_cuda_enter(device, attributes.gpu, &entry)))
        return code;
    cudaError_t error = cudaFree(address);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, error == cudaErrorInvalidValue ? NVLX_EINVAL : NVLX_EDEVICE,
                                              "cudaFree")
                 : 0;
}

/* The GPU of a pointer, or of the other one where this is host memory; the first GPU that can be used otherwise. */
static int memcpy_gpu(struct nvlxi_device *device, const void *destination, const void *source, int *gpu) {
    struct attributes to, from;
    int code = get_attributes((uint64_t)(uintptr_t)destination, &to);
    if (!code)
        code = get_attributes((uint64_t)(uintptr_t)source, &from);
    *gpu = nvlxi_cuda_any_gpu(device);
    if (!code && from.type == CU_MEMORYTYPE_DEVICE)
        *gpu = from.gpu;
    if (!code && to.type == CU_MEMORYTYPE_DEVICE)
        *gpu = to.gpu;
    return code;
}

/* By a stream of its own: the default streams are the caller's, and a synchronous copy within devices does not wait. */
int nvlxi_cuda_memcpy(struct nvlxi_device *device, void *destination, const void *source, size_t length) {
    struct nvlxi_cuda_entry entry;
    cudaStream_t stream;
    int gpu, code = memcpy_gpu(device, destination, source, &gpu);
    if (code || (code = nvlxi_cuda_enter(device, gpu, &entry)))
        return code;
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (!error) {
        error = cudaMemcpyAsync(destination, source, length, cudaMemcpyDefault, stream);
        if (!error)
            error = cudaStreamSynchronize(stream);
        cudaStreamDestroy(stream);
    }
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "copying with cudaMemcpyAsync") : 0;
}

/* What CUDA calls memory that cannot be shared by a legacy handle, and the remedy; NULL if it can. */
static const char *unshareable(const struct attributes *attributes) {
    if (attributes->managed)
        return "managed memory, which CUDA cannot share: use cudaMalloc or nvlx_alloc";
    if (attributes->type == CU_MEMORYTYPE_HOST)
        return "pinned host memory: only GPU memory can be shared; use cudaMalloc or nvlx_alloc";
    if (attributes->type != CU_MEMORYTYPE_DEVICE)
        return "memory that CUDA does not know, such as the host's: use cudaMalloc or nvlx_alloc";
    if (attributes->pool)
        return "of a stream-ordered pool (cudaMallocAsync), which this version cannot share: use cudaMalloc or "
               "nvlx_alloc";
    if (!attributes->legacy)
        return "virtual-memory-managed (cuMemCreate, expandable segments), which this version cannot share: use "
               "cudaMalloc or nvlx_alloc";
    return NULL;
}

int nvlxi_cuda_resolve(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation) {
    struct attributes attributes;
    struct nvlxi_cuda_entry entry;
    CUdeviceptr base;
    size_t size;
    int code = get_attributes(address, &attributes);
    if (code)
        return code;
    const char *why = unshareable(&attributes);
    if (why)
        return nvlxi_fail(NVLX_ENOTSUP, "0x%" PRIx64 " is %s", address, why);
    if ((code = nvlxi_cuda_enter(device, attributes.gpu, &entry)))
        return code;
    CUresult error = nvlxi_cuda_driver.cuMemGetAddressRange(&base, &size, address);
    nvlxi_cuda_leave(&entry);
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemGetAddressRange");
    *allocation = (struct nvlxi_allocation){
        .kind = NVLXI_KIND_CUDA_MALLOC, .gpu = attributes.gpu, .base = base, .size = size, .serial = attributes.serial};
    return 0;
}

int nvlxi_cuda_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation) {
    struct attributes attributes;
    (void)device;
    int code = get_attributes(allocation->base, &attributes);
    if (code)
        return code;
    return attributes.type == CU_MEMORYTYPE_DEVICE && attributes.serial == allocation->serial ? 0 : NVLX_ESTALE;
}

int nvlxi_cuda_export_handle(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                             struct nvlxi_handle *handle) {
    struct nvlxi_cuda_entry entry;
    cudaIpcMemHandle_t made;
    int code = nvlxi_cuda_enter(device, allocation->gpu, &entry);
    if (code)
        return code;
    cudaError_t error = cudaIpcGetMemHandle(&made, (void *)(uintptr_t)allocation->base);
    nvlxi_cuda_leave(&entry);
    if (error == cudaErrorInvalidValue)
        return nvlxi_cuda_runtime_failure(
            error, NVLX_ENOTSUP,
            "cudaIpcGetMemHandle, of memory that another process shared with this one or that CUDA cannot share");
    if (error)
        return nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaIpcGetMemHandle");
    handle->length = sizeof made;
    memcpy(handle->bytes, &made, sizeof made);
    return 0;
}

int nvlxi_cuda_export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd) {
    (void)device, (void)fd;
    return nvlxi_fail(NVLX_ENOTSUP, "the allocation at 0x%" PRIx64 " is not shared by a file descriptor",
                      allocation->base);
}

/* ---- Lists of fragments ------------------------------------------------------------------------------ */

/* Pinned, and at the same address for the host and all GPUs. */
int nvlxi_cuda_list_alloc(struct nvlxi_device *device, size_t size, void **memory) {
    struct nvlxi_cuda_entry entry;
    int gpu = nvlxi_cuda_any_gpu(device), code = nvlxi_cuda_enter(device, gpu, &entry);
    if (code)
        return code;
    cudaError_t error = cudaHostAlloc(memory, size, cudaHostAllocPortable | cudaHostAllocMapped);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_ENOMEM, "cudaHostAlloc") : 0;
}

void nvlxi_cuda_list_free(struct nvlxi_device *device, void *memory) {
    struct nvlxi_cuda_entry entry;
    if (nvlxi_cuda_enter(device, nvlxi_cuda_any_gpu(device), &entry))
        return;
    cudaFreeHost(memory);
    nvlxi_cuda_leave(&entry);
}

/* ---- Mappings ---------------------------------------------------------------------------------------- */

int nvlxi_cuda_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address) {
    const struct nvlxi_segment_record *segment = map->segments;
    struct nvlxi_cuda_entry entry;
    cudaIpcMemHandle_t handle;
    void *mapped;
    CUdeviceptr base;
    size_t size = 0;
    if (segment->handle.length != sizeof handle)
        return nvlxi_fail(NVLX_EDEVICE,
                          "the handle of segment 0x%" PRIx64 " has %" PRIu32 " bytes, a CUDA handle has %zu",
                          segment->base, segment->handle.length, sizeof handle);
    int code = nvlxi_cuda_enter(device, map->gpu, &entry);
    if (code)
        return code;
    memcpy(&handle, segment->handle.bytes, sizeof handle);
    cudaError_t error = cudaIpcOpenMemHandle(&mapped, handle, cudaIpcMemLazyEnablePeerAccess);
    if (!error && (nvlxi_cuda_driver.cuMemGetAddressRange(&base, &size, (CUdeviceptr)mapped) || size < segment->size)) {
        cudaIpcCloseMemHandle(mapped);
        nvlxi_cuda_leave(&entry);
        return nvlxi_fail(NVLX_EDEVICE,
                          "segment 0x%" PRIx64 " is said to have %" PRIu64 " bytes, but its handle opens %zu",
                          segment->base, segment->size, size);
    }
    nvlxi_cuda_leave(&entry);
    if (error)
        return nvlxi_cuda_runtime_failure(error, error == cudaErrorInvalidResourceHandle ? NVLX_ESTALE : NVLX_EDEVICE,
                                          "cudaIpcOpenMemHandle");
    *address = (uint64_t)(uintptr_t)mapped;
    return 0;
}

int nvlxi_cuda_unmap(struct nvlxi_device *device, int gpu, uint64_t address) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(device, gpu, &entry);
    if (code)
        return code;
    cudaError_t error = cudaIpcCloseMemHandle((void *)(uintptr_t)address);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, error == cudaErrorInvalidValue ? NVLX_EINVAL : NVLX_EDEVICE,
                                              "cudaIpcCloseMemHandle")
                 : 0;
}
