/* The cuda backend's memory: what lies under a pointer, handles, mappings; that of cudaMalloc in full, of other kinds
 * with device/cuda/vmm.c and device/cuda/pool.c. The introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda/cuda.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/identity.h"
#include "device/owner.h"

/* ---- Memory ------------------------------------------------------------------------------------------ */

int nvlxi_cuda_attributes(uint64_t address, struct nvlxi_cuda_attributes *attributes) {
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                   CU_POINTER_ATTRIBUTE_IS_MANAGED,  CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
                                   CU_POINTER_ATTRIBUTE_BUFFER_ID,   CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE};
    void *values[] = {&attributes->type,   &attributes->gpu,    &attributes->managed,
                      &attributes->legacy, &attributes->serial, (void *)&attributes->pool};
    memset(attributes, 0, sizeof *attributes);
    CUresult error = nvlxi_cuda_driver.cuPointerGetAttributes(sizeof names / sizeof *names, names, values, address);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuPointerGetAttributes") : 0;
}

int nvlxi_cuda_handle_types(uint64_t address, uint64_t *types) {
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES};
    void *values[] = {types};
    *types = 0;
    CUresult error = nvlxi_cuda_driver.cuPointerGetAttributes(1, names, values, address);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuPointerGetAttributes") : 0;
}

/* The allocation under an address: of chunks one mapped chunk. Of one of host memory, cuMemGetAddressRange gives the
 * size, and 0 as its base (measured, driver 580.159.04): of such the mapping's base is asked. */
static CUresult find_range(uint64_t address, CUdeviceptr *base, size_t *size) {
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR, CU_POINTER_ATTRIBUTE_MAPPING_SIZE};
    void *values[] = {base, size};
    CUresult error = nvlxi_cuda_driver.cuMemGetAddressRange(base, size, address);
    if (error || *base)
        return error;
    return nvlxi_cuda_driver.cuPointerGetAttributes(sizeof names / sizeof *names, names, values, address);
}

static int legacy_alloc(size_t length, void **address) {
    cudaError_t error = cudaMalloc(address, length);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaMalloc") : 0;
}

int nvlxi_cuda_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address) {
    struct nvlxi_cuda_entry entry;
    void *made;
    if (alloc->length == 0)
        return nvlxi_fail(NVLX_EINVAL, "an allocation of 0 bytes on GPU %d", alloc->gpu);
    nvlxi_cuda_allow(device, alloc->gpu);
    int code = nvlxi_cuda_enter(device, alloc->gpu, &entry);
    if (code)
        return code;
    nvlxi_cuda_load(device, alloc->gpu); /* this call may wait */
    if (alloc->kind == NVLXI_KIND_CUDA_MALLOC)
        code = legacy_alloc(alloc->length, &made);
    else if (alloc->kind == NVLXI_KIND_VMM || alloc->kind == NVLXI_KIND_HOST)
        code = nvlxi_cuda_vmm_alloc(device, alloc, &made);
    else if (alloc->kind == NVLXI_KIND_POOL)
        code = nvlxi_cuda_pool_alloc(device, alloc, &made);
    else
        code = nvlxi_fail(NVLX_ENOTSUP, "the cuda backend does not allocate memory of kind %" PRIu32, alloc->kind);
    nvlxi_cuda_leave(&entry);
    if (!code)
        *address = made;
    return code;
}

static int free_recorded(struct nvlxi_device *device, struct nvlxi_cuda_record *record) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(device, record->gpu, &entry);
    if (code) {
        free(record);
        return code;
    }
    code = record->kind == NVLXI_KIND_POOL ? nvlxi_cuda_pool_free(record) : nvlxi_cuda_vmm_drop(record);
    nvlxi_cuda_leave(&entry);
    return code;
}

int nvlxi_cuda_free(struct nvlxi_device *device, void *address) {
    struct nvlxi_cuda_record *record = nvlxi_cuda_record_take(device, (uint64_t)(uintptr_t)address, false, -1);
    struct nvlxi_cuda_attributes attributes;
    struct nvlxi_cuda_entry entry;
    if (record)
        return free_recorded(device, record);
    int code = nvlxi_cuda_attributes((uint64_t)(uintptr_t)address, &attributes);
    if (code)
        return code;
    if (attributes.type != CU_MEMORYTYPE_DEVICE)
        return nvlxi_fail(NVLX_EINVAL, "%p is not memory of a GPU", address);
    if (attributes.pool || attributes.managed)
        return nvlxi_fail(NVLX_EINVAL, "%p was not allocated by this engine, or is freed", address);
    if ((code = nvlxi_cuda_enter(device, attributes.gpu, &entry)))
        return code;
    cudaError_t error = cudaFree(address);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, error == cudaErrorInvalidValue ? NVLX_EINVAL : NVLX_EDEVICE,
                                              "cudaFree")
                 : 0;
}

/* Memory of virtual-memory management tells who may use it. What does not is used by its GPU. */
static bool may_use(int gpu, const void *address) {
    const CUmemLocation location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu};
    unsigned long long flags;
    return nvlxi_cuda_driver.cuMemGetAccess(&flags, &location, (CUdeviceptr)(uintptr_t)address) || flags;
}

/* A GPU that may use the memory at an address: the one that holds it, unless this is a mapping that was opened on
 * another. -1: it is host memory. */
static int user_of(struct nvlxi_device *device, const void *address, int *gpu) {
    struct nvlxi_cuda_attributes attributes;
    int code = nvlxi_cuda_attributes((uint64_t)(uintptr_t)address, &attributes);
    *gpu = !code && attributes.type == CU_MEMORYTYPE_DEVICE ? attributes.gpu : -1;
    if (*gpu < 0 || attributes.legacy || attributes.pool || may_use(*gpu, address))
        return code;
    for (int other = 0; other < device->gpu_count; other++)
        if (may_use(other, address))
            *gpu = other;
    return code;
}

/* The GPU that can use the destination, or the source where that is host memory; any other otherwise. -1: none has a
 * context here. */
static int memcpy_gpu(struct nvlxi_device *device, const void *destination, const void *source, int *gpu) {
    int code = user_of(device, destination, gpu);
    if (!code && *gpu < 0)
        code = user_of(device, source, gpu);
    if (!code && *gpu < 0)
        *gpu = nvlxi_cuda_any_gpu(device);
    return code;
}

/* Of what the driver calls the range of an address: of a chunk, its reservation. 0: it does not tell. */
static uint64_t range_start(CUdeviceptr address) {
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_RANGE_START_ADDR};
    uint64_t start = 0;
    void *values[] = {&start};
    return nvlxi_cuda_driver.cuPointerGetAttributes(1, names, values, address) ? 0 : start;
}

/* Whether bytes of a GPU leave the allocation in which they begin, or the chunks of its reservation. */
static bool leaves(const void *address, size_t length) {
    const CUdeviceptr first = (CUdeviceptr)(uintptr_t)address;
    CUdeviceptr base;
    size_t size;
    if (find_range(first, &base, &size))
        return false; /* no memory of CUDA's */
    while (base + size - first < length) {
        const CUdeviceptr next = base + size;
        if (find_range(next, &base, &size) || range_start(next) != range_start(first))
            return true;
    }
    return false;
}

static int memcpy_failure(cudaError_t error, const void *destination, const void *source, size_t length) {
    const bool to = error == cudaErrorInvalidValue && leaves(destination, length);
    if (to || (error == cudaErrorInvalidValue && leaves(source, length)))
        return nvlxi_fail(NVLX_ERANGE, "%zu bytes at %p leave their allocation", length, to ? destination : source);
    return nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "copying with cudaMemcpyAsync");
}

/* By a stream of its own: the default streams are the caller's, and a synchronous copy within devices does not wait. */
int nvlxi_cuda_memcpy(struct nvlxi_device *device, void *destination, const void *source, size_t length) {
    struct nvlxi_cuda_entry entry;
    cudaStream_t stream;
    int gpu, code = memcpy_gpu(device, destination, source, &gpu);
    if (!code && gpu < 0)
        memcpy(destination, source, length);
    if (code || gpu < 0 || (code = nvlxi_cuda_enter(device, gpu, &entry)))
        return code;
    cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (!error) {
        error = cudaMemcpyAsync(destination, source, length, cudaMemcpyDefault, stream);
        if (!error)
            error = cudaStreamSynchronize(stream);
        cudaStreamDestroy(stream);
    }
    code = error ? memcpy_failure(error, destination, source, length) : 0;
    nvlxi_cuda_leave(&entry);
    return code;
}

/* What CUDA calls memory that its copies cannot use without waiting, or cannot share, and the remedy; NULL: it is good.
 */
static const char *unshareable(const struct nvlxi_cuda_attributes *attributes) {
    if (attributes->managed)
        return "managed memory, which CUDA cannot share: use cudaMalloc or nvlx_alloc";
    if (attributes->type != CU_MEMORYTYPE_DEVICE && attributes->type != CU_MEMORYTYPE_HOST)
        return "memory that CUDA does not know, such as plain host memory, or an address at which nothing is mapped: "
               "make it pinned host memory by cudaHostRegister, or use cudaMalloc or nvlx_alloc";
    return NULL;
}

/* Finds the allocation under the address; the GPU's context is current. Memory of cudaMalloc, the usual case, takes no
 * question more. */
static int describe(uint64_t address, const struct nvlxi_cuda_attributes *attributes,
                    struct nvlxi_allocation *allocation) {
    CUdeviceptr base;
    size_t size;
    CUresult error = find_range(address, &base, &size);
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemGetAddressRange");
    *allocation = (struct nvlxi_allocation){.kind = attributes->type == CU_MEMORYTYPE_HOST ? NVLXI_KIND_HOST
                                                                                           : NVLXI_KIND_CUDA_MALLOC,
                                            .gpu = attributes->gpu,
                                            .base = base,
                                            .size = size,
                                            .serial = attributes->serial};
    if (attributes->pool)
        return nvlxi_cuda_pool_describe(attributes->pool, allocation);
    return attributes->legacy ? 0 : nvlxi_cuda_vmm_describe(allocation);
}

/* The GPU that a chunk of host memory was allocated for, or another one that may use it; -1: none of this engine's. */
static int user_of_chunk(struct nvlxi_device *device, uint64_t address) {
    int gpu = nvlxi_cuda_record_gpu(device, address);
    for (int other = 0; gpu < 0 && other < device->gpu_count; other++)
        if (nvlxi_cuda_may_enter(device, other) && may_use(other, (const void *)(uintptr_t)address))
            gpu = other;
    return gpu;
}

int nvlxi_cuda_resolve(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation) {
    struct nvlxi_cuda_attributes attributes;
    struct nvlxi_allocation found;
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_attributes(address, &attributes);
    if (code)
        return code;
    const char *why = unshareable(&attributes);
    if (why)
        return nvlxi_fail(NVLX_ENOTSUP, "0x%" PRIx64 " is %s", address, why);
    if (attributes.type == CU_MEMORYTYPE_HOST && !nvlxi_cuda_vmm_is_chunk(address))
        return nvlxi_cuda_pinned_resolve(device, address, &attributes, allocation);
    if (attributes.type == CU_MEMORYTYPE_HOST && (attributes.gpu = user_of_chunk(device, address)) < 0)
        return nvlxi_fail(
            NVLX_ENOTSUP,
            "no GPU of this engine may use the chunk of host memory at 0x%" PRIx64 ": cuMemSetAccess lets it", address);
    if ((code = nvlxi_cuda_enter(device, attributes.gpu, &entry)))
        return code;
    code = describe(address, &attributes, &found);
    nvlxi_cuda_leave(&entry);
    if (!code)
        *allocation = found;
    return code;
}

int nvlxi_cuda_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation) {
    struct nvlxi_cuda_attributes attributes;
    (void)device;
    int code = nvlxi_cuda_attributes(allocation->base, &attributes);
    if (code)
        return code;
    return attributes.type && attributes.serial == allocation->serial ? 0 : NVLX_ESTALE;
}

/* Whoever made the chunk may have decided already. */
static int let_use_chunk(const struct nvlxi_allocation *chunk, int gpu) {
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    if (may_use(gpu, (const void *)(uintptr_t)chunk->base))
        return 0;
    CUresult error = nvlxi_cuda_driver.cuMemSetAccess(chunk->base, chunk->size, &access, 1);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemSetAccess") : 0;
}

/* Memory of cudaMalloc is open to the copy engines of all GPUs, pinned memory to all that a GPU does. */
int nvlxi_cuda_let_use(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int gpu) {
    struct nvlxi_cuda_attributes attributes;
    struct nvlxi_cuda_entry entry;
    nvlxi_cuda_allow(device, gpu);
    if (allocation->kind == NVLXI_KIND_CUDA_MALLOC || allocation->kind == NVLXI_KIND_PINNED)
        return 0;
    int code = nvlxi_cuda_attributes(allocation->base, &attributes);
    if (code || (code = nvlxi_cuda_enter(device, gpu, &entry)))
        return code;
    code = attributes.pool ? nvlxi_cuda_pool_grant(attributes.pool, gpu) : let_use_chunk(allocation, gpu);
    nvlxi_cuda_leave(&entry);
    return code;
}

/* ---- Export ------------------------------------------------------------------------------------------ */

void nvlxi_cuda_fill_handle(struct nvlxi_handle *handle, const void *bytes, size_t length) {
    *handle = (struct nvlxi_handle){.length = (uint32_t)length};
    memcpy(handle->bytes, bytes, length);
}

static int legacy_export(const struct nvlxi_allocation *allocation, struct nvlxi_handle *handle) {
    cudaIpcMemHandle_t made;
    cudaError_t error = cudaIpcGetMemHandle(&made, (void *)(uintptr_t)allocation->base);
    if (error == cudaErrorInvalidValue)
        return nvlxi_cuda_runtime_failure(
            error, NVLX_ENOTSUP,
            "cudaIpcGetMemHandle, of memory that another process shared with this one or that CUDA cannot share");
    if (error)
        return nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaIpcGetMemHandle");
    nvlxi_cuda_fill_handle(handle, &made, sizeof made);
    return 0;
}

int nvlxi_cuda_export_handle(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                             struct nvlxi_handle *handle) {
    struct nvlxi_handle made = {.length = 0};
    struct nvlxi_cuda_entry entry;
    if (allocation->kind == NVLXI_KIND_PINNED)
        return nvlxi_fail(NVLX_ENOTSUP, "pinned host memory at 0x%" PRIx64 " cannot be shared", allocation->base);
    int code = nvlxi_cuda_enter(device, allocation->gpu, &entry);
    if (code)
        return code;
    if (allocation->kind == NVLXI_KIND_CUDA_MALLOC)
        code = legacy_export(allocation, &made);
    else if (allocation->kind == NVLXI_KIND_POOL)
        code = nvlxi_cuda_pool_export_handle(allocation, &made);
    else if (allocation->kind == NVLXI_KIND_FABRIC)
        code = nvlxi_cuda_vmm_export_fabric(allocation, &made);
    nvlxi_cuda_leave(&entry);
    if (!code)
        *handle = made;
    return code;
}

static int check_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation) {
    int code = nvlxi_cuda_alive(device, allocation);
    return code == NVLX_ESTALE ? nvlxi_fail(NVLX_ESTALE, "the allocation at 0x%" PRIx64 " was freed", allocation->base)
                               : code;
}

/* Freed after the first look, its address may have been taken by newer memory, whose file it then is: hence the second
 * look. */
int nvlxi_cuda_export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd) {
    struct nvlxi_cuda_entry entry;
    int made;
    if (!allocation->file)
        return nvlxi_fail(NVLX_ENOTSUP, "the allocation at 0x%" PRIx64 " is not shared by a file descriptor",
                          allocation->base);
    int code = check_alive(device, allocation);
    if (code || (code = nvlxi_cuda_enter(device, allocation->gpu, &entry)))
        return code;
    code = allocation->kind == NVLXI_KIND_POOL ? nvlxi_cuda_pool_export_file(allocation, &made)
                                               : nvlxi_cuda_vmm_export_file(allocation, &made);
    nvlxi_cuda_leave(&entry);
    if (code)
        return code;
    if ((code = check_alive(device, allocation))) {
        close(made);
        return code;
    }
    fcntl(made, F_SETFD, FD_CLOEXEC);
    *fd = made;
    return 0;
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

int nvlxi_cuda_read_handle(const struct nvlxi_segment_record *segment, void *bytes, size_t length) {
    if (segment->handle.length != length)
        return nvlxi_fail(NVLX_EDEVICE,
                          "the handle of segment 0x%" PRIx64 " has %" PRIu32 " bytes, a CUDA handle has %zu",
                          segment->base, segment->handle.length, length);
    memcpy(bytes, segment->handle.bytes, length);
    return 0;
}

int nvlxi_cuda_take_file(const struct nvlxi_map *map, const struct nvlxi_segment_record *segment, int *fd) {
    if (!map->files || !segment->file)
        return nvlxi_fail(NVLX_EDEVICE, "segment 0x%" PRIx64 " needs a file descriptor, and comes without",
                          segment->base);
    return map->files->take(map->files, fd);
}

/* Threads that open the same handle at the same moment: all but one may be told that it is already mapped. They then
 * find it open. (Measured with driver 580 and CUDA 13.0: once in some hundred rounds of four threads.) */
static cudaError_t open_legacy(const cudaIpcMemHandle_t *handle, void **mapped) {
    const struct timespec nap = {.tv_nsec = 100000};
    cudaError_t error = cudaErrorAlreadyMapped;
    for (int tries = 0; tries < 1000 && error == cudaErrorAlreadyMapped; tries++) {
        if (tries) {
            cudaGetLastError();
            nanosleep(&nap, NULL);
        }
        error = cudaIpcOpenMemHandle(mapped, *handle, cudaIpcMemLazyEnablePeerAccess);
    }
    return error;
}

static int legacy_map(const struct nvlxi_segment_record *segment, const cudaIpcMemHandle_t *handle, void **mapped) {
    CUdeviceptr base;
    size_t size = 0;
    cudaError_t error = open_legacy(handle, mapped);
    if (error)
        return nvlxi_cuda_runtime_failure(error, error == cudaErrorInvalidResourceHandle ? NVLX_ESTALE : NVLX_EDEVICE,
                                          "cudaIpcOpenMemHandle");
    if (!nvlxi_cuda_driver.cuMemGetAddressRange(&base, &size, (CUdeviceptr)*mapped) && size >= segment->size)
        return 0;
    cudaIpcCloseMemHandle(*mapped);
    return nvlxi_fail(NVLX_EDEVICE, "segment 0x%" PRIx64 " is said to have %" PRIu64 " bytes, but its handle opens %zu",
                      segment->base, segment->size, size);
}

static int map_legacy(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address) {
    struct nvlxi_cuda_entry entry;
    cudaIpcMemHandle_t handle;
    void *mapped;
    int code = nvlxi_check_owner(map);
    if (code || (code = nvlxi_cuda_read_handle(map->segments, &handle, sizeof handle)) ||
        (code = nvlxi_cuda_enter(device, map->gpu, &entry)))
        return code;
    code = legacy_map(map->segments, &handle, &mapped);
    nvlxi_cuda_leave(&entry);
    if (!code)
        *address = (uint64_t)(uintptr_t)mapped;
    return code;
}

/* Unlike legacy handles, CUDA may open these in the process that made them: refused here, so that all kinds are alike.
 */
static int check_foreign(const struct nvlxi_device *device, const struct nvlxi_map *map) {
    if (!nvlxi_identity_same_process(map->owner, &device->identity))
        return 0;
    return nvlxi_fail(NVLX_EDEVICE, "segment 0x%" PRIx64 " is of this very process", map->segments->base);
}

int nvlxi_cuda_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address) {
    const uint32_t kind = map->segments->kind;
    struct nvlxi_cuda_entry entry;
    nvlxi_cuda_allow(device, map->gpu);
    if (kind == NVLXI_KIND_CUDA_MALLOC)
        return map_legacy(device, map, address);
    if (kind != NVLXI_KIND_VMM && kind != NVLXI_KIND_FABRIC && kind != NVLXI_KIND_POOL && kind != NVLXI_KIND_HOST)
        return nvlxi_fail(NVLX_ENOTSUP, "a segment of kind '%s' cannot be opened", map->segments->kind_name);
    int code = check_foreign(device, map);
    if (code || (code = nvlxi_cuda_enter(device, map->gpu, &entry)))
        return code;
    code = kind == NVLXI_KIND_POOL ? nvlxi_cuda_pool_map(map, address) : nvlxi_cuda_vmm_map(device, map, address);
    nvlxi_cuda_leave(&entry);
    return code;
}

static int unmap_legacy(uint64_t address) {
    cudaError_t error = cudaIpcCloseMemHandle((void *)(uintptr_t)address);
    return error ? nvlxi_cuda_runtime_failure(error, error == cudaErrorInvalidValue ? NVLX_EINVAL : NVLX_EDEVICE,
                                              "cudaIpcCloseMemHandle")
                 : 0;
}

int nvlxi_cuda_unmap(struct nvlxi_device *device, int gpu, uint64_t address) {
    struct nvlxi_cuda_entry entry;
    bool found = false;
    int code = nvlxi_cuda_enter(device, gpu, &entry);
    if (code)
        return code;
    struct nvlxi_cuda_record *record = nvlxi_cuda_record_take(device, address, true, gpu);
    if (record)
        code = nvlxi_cuda_vmm_drop(record);
    else
        code = nvlxi_cuda_pool_unmap(address, &found);
    if (!record && !found)
        code = unmap_legacy(address);
    nvlxi_cuda_leave(&entry);
    return code;
}
