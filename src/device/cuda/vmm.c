/* The cuda backend's chunks of virtual-memory management: made, shared, and mapped back to back. The introduction is in
 * cuda.c.
 *
 * A GPU's context is current in every function here that calls the driver; device/cuda/memory.c enters it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda/cuda.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"

_Static_assert(sizeof(CUmemFabricHandle) == NVLXI_HANDLE_BYTES, "a fabric handle fills a handle");

#define FILE_TYPE CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR

/* The NUMA node that is near to a GPU. Where the system has none, it is 0 (NVIDIA: CUDA Driver API, cuMemCreate). */
static int node_of(int gpu) {
    int node = 0;
    return cudaDeviceGetAttribute(&node, cudaDevAttrHostNumaId, gpu) || node < 0 ? 0 : node;
}

/* Of the two kinds that are shared by a file, the one of this memory: fabric chunks are a GPU's. */
static uint32_t chunk_kind(uint32_t kind) {
    return kind == NVLXI_KIND_HOST ? NVLXI_KIND_HOST : NVLXI_KIND_VMM;
}

/* Of a GPU, or of host memory that is near to it. */
static CUmemLocation location_at(uint32_t kind, int gpu) {
    return kind == NVLXI_KIND_HOST ? (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_HOST_NUMA, .id = node_of(gpu)}
                                   : (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu};
}

static CUmemAllocationProp properties_at(uint32_t kind, int gpu) {
    return (CUmemAllocationProp){
        .type = CU_MEM_ALLOCATION_TYPE_PINNED, .requestedHandleTypes = FILE_TYPE, .location = location_at(kind, gpu)};
}

/* Held while a handle of memory of this process is exported, and while memory is unmapped. A process whose other
 * threads freed chunks crashed inside cuMemExportToShareableHandle (driver 580.159.04): that both race there is the
 * likely cause, though the handle is retained. */
static pthread_mutex_t handles_mutex = PTHREAD_MUTEX_INITIALIZER;

void nvlxi_cuda_vmm_fork(enum nvlxi_fork_phase phase) {
    phase == NVLXI_BEFORE_FORK ? pthread_mutex_lock(&handles_mutex) : pthread_mutex_unlock(&handles_mutex);
}

/* The sizes and places of chunks are multiples of it. */
static int granularity(uint32_t kind, int gpu, size_t *unit) {
    const CUmemAllocationProp properties = properties_at(kind, gpu);
    CUresult error =
        nvlxi_cuda_driver.cuMemGetAllocationGranularity(unit, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_ENOTSUP, "cuMemGetAllocationGranularity") : 0;
}

/* ---- Records ----------------------------------------------------------------------------------------- */

int nvlxi_cuda_record_add(struct nvlxi_device *device, struct nvlxi_cuda_record *record) {
    bool hash_full = false;
    pthread_mutex_lock(&device->mutex);
    HASH_ADD(hh, device->records, address, sizeof record->address, record);
    pthread_mutex_unlock(&device->mutex);
    return hash_full ? nvlxi_fail(NVLX_ENOMEM, "no memory to note what is at 0x%" PRIx64, record->address) : 0;
}

struct nvlxi_cuda_record *nvlxi_cuda_record_take(struct nvlxi_device *device, uint64_t address, bool foreign, int gpu) {
    struct nvlxi_cuda_record *record;
    pthread_mutex_lock(&device->mutex);
    HASH_FIND(hh, device->records, &address, sizeof address, record);
    if (record && (record->foreign != foreign || (gpu >= 0 && record->gpu != gpu)))
        record = NULL;
    if (record)
        HASH_DEL(device->records, record);
    pthread_mutex_unlock(&device->mutex);
    return record;
}

int nvlxi_cuda_record_gpu(struct nvlxi_device *device, uint64_t address) {
    int gpu = -1;
    pthread_mutex_lock(&device->mutex);
    for (const struct nvlxi_cuda_record *record = device->records; record && gpu < 0; record = record->hh.next)
        if (!record->foreign && address - record->address < record->mapped)
            gpu = record->gpu;
    pthread_mutex_unlock(&device->mutex);
    return gpu;
}

/* ---- Chunks back to back in one reservation ---------------------------------------------------------- */

/* Makes a record of `size` bytes of address space with room for `chunks`. */
static int reserve(uint32_t kind, int gpu, uint64_t size, size_t chunks, size_t alignment,
                   struct nvlxi_cuda_record **reserved) {
    CUdeviceptr base;
    CUresult error = nvlxi_cuda_driver.cuMemAddressReserve(&base, size, alignment, 0, 0);
    if (error)
        return nvlxi_cuda_driver_failure(error, error == CUDA_ERROR_OUT_OF_MEMORY ? NVLX_ENOMEM : NVLX_EDEVICE,
                                         "cuMemAddressReserve, of address space");
    struct nvlxi_cuda_record *record = calloc(1, sizeof *record + chunks * sizeof record->sizes[0]);
    if (!record) {
        nvlxi_cuda_driver.cuMemAddressFree(base, size);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to note %zu chunks", chunks);
    }
    record->address = base;
    record->kind = kind;
    record->gpu = gpu;
    record->reserved = size;
    *reserved = record;
    return 0;
}

/* Maps a chunk behind the others. The handle is given up in any case: what is mapped stays until it is unmapped. */
static CUresult append(struct nvlxi_cuda_record *record, CUmemGenericAllocationHandle handle, uint64_t size) {
    CUresult error = nvlxi_cuda_driver.cuMemMap(record->address + record->mapped, size, 0, handle, 0);
    nvlxi_cuda_driver.cuMemRelease(handle);
    if (error)
        return error;
    record->sizes[record->chunks++] = size;
    record->mapped += size;
    return CUDA_SUCCESS;
}

/* Access to what is mapped from its byte `from` on: for the GPU, and of host memory also for CPUs. */
static int grant(const struct nvlxi_cuda_record *record, uint64_t from, bool read_only) {
    const CUmemAccess_flags flags = read_only ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    CUmemAccessDesc access[2] = {{.location = location_at(NVLXI_KIND_VMM, record->gpu), .flags = flags}};
    size_t count = 1;
    if (record->kind == NVLXI_KIND_HOST)
        access[count++] = (CUmemAccessDesc){.location = location_at(NVLXI_KIND_HOST, record->gpu), .flags = flags};
    CUresult error = nvlxi_cuda_driver.cuMemSetAccess(record->address + from, record->mapped - from, access, count);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemSetAccess") : 0;
}

int nvlxi_cuda_vmm_drop(struct nvlxi_cuda_record *record) {
    CUdeviceptr at = record->address;
    CUresult first = CUDA_SUCCESS;
    for (size_t i = 0; i < record->chunks; at += record->sizes[i++]) {
        pthread_mutex_lock(&handles_mutex);
        CUresult error = nvlxi_cuda_driver.cuMemUnmap(at, record->sizes[i]);
        pthread_mutex_unlock(&handles_mutex);
        first = first ? first : error;
    }
    CUresult error = nvlxi_cuda_driver.cuMemAddressFree(record->address, record->reserved);
    first = first ? first : error;
    free(record);
    return first ? nvlxi_cuda_driver_failure(first, NVLX_EDEVICE, "unmapping memory chunks") : 0;
}

/* ---- Making them ------------------------------------------------------------------------------------- */

/* Chunks on GPU `owner`, or near to it, for the record's. */
static int make_chunks(struct nvlxi_cuda_record *record, int owner, uint64_t chunk) {
    const CUmemAllocationProp properties = properties_at(record->kind, owner);
    while (record->mapped < record->reserved) {
        const uint64_t size = nvlxi_min(chunk, record->reserved - record->mapped);
        CUmemGenericAllocationHandle handle;
        CUresult error = nvlxi_cuda_driver.cuMemCreate(&handle, size, &properties, 0);
        if (error)
            return nvlxi_cuda_driver_failure(
                error,
                error == CUDA_ERROR_NOT_SUPPORTED || error == CUDA_ERROR_NOT_PERMITTED ? NVLX_ENOTSUP : NVLX_EDEVICE,
                "cuMemCreate");
        error = append(record, handle, size);
        if (error)
            return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemMap");
    }
    return grant(record, 0, false);
}

/* More than the current GPU has: it is not address space that would be short. */
static bool exceeds_gpu(uint32_t kind, uint64_t size) {
    size_t available, total;
    return kind == NVLXI_KIND_VMM && cudaMemGetInfo(&available, &total) == cudaSuccess && size > total;
}

int nvlxi_cuda_vmm_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address) {
    struct nvlxi_cuda_record *record;
    uint64_t chunk, size;
    size_t unit;
    int code = granularity(alloc->kind, alloc->gpu, &unit);
    if (code)
        return code;
    if (!nvlxi_round_up(alloc->chunk ? alloc->chunk : alloc->length, unit, &chunk) ||
        !nvlxi_round_up(alloc->length, unit, &size) || exceeds_gpu(alloc->kind, size))
        return nvlxi_fail(NVLX_EDEVICE, "GPU %d does not have %zu bytes", alloc->gpu, alloc->length);
    if ((code = reserve(alloc->kind, alloc->gpu, size, (size_t)((size - 1) / chunk + 1), unit, &record)))
        return code;
    if ((code = make_chunks(record, alloc->gpu, chunk)) || (code = nvlxi_cuda_record_add(device, record))) {
        nvlxi_cuda_vmm_drop(record);
        return code;
    }
    *address = (void *)(uintptr_t)record->address;
    return 0;
}

int nvlxi_cuda_vmm_reach(int gpu, int other, struct nvlxi_cuda_record **record) {
    size_t unit;
    int code = granularity(NVLXI_KIND_VMM, other, &unit);
    if (code || (code = reserve(NVLXI_KIND_VMM, gpu, unit, 1, unit, record)))
        return code;
    if ((code = make_chunks(*record, other, unit)))
        nvlxi_cuda_vmm_drop(*record);
    return code;
}

/* ---- Sharing them ------------------------------------------------------------------------------------ */

static CUresult export_chunk(uint64_t base, CUmemAllocationHandleType type, void *shareable) {
    CUmemGenericAllocationHandle handle;
    pthread_mutex_lock(&handles_mutex);
    CUresult error = nvlxi_cuda_driver.cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)base);
    if (!error) {
        error = nvlxi_cuda_driver.cuMemExportToShareableHandle(shareable, handle, type, 0);
        nvlxi_cuda_driver.cuMemRelease(handle);
    }
    pthread_mutex_unlock(&handles_mutex);
    return error;
}

/* Whether fabric handles can be had is only told by asking for one: without an IMEX channel they cannot, whatever the
 * attributes say. */
static CUresult export_fabric(uint64_t base, CUmemFabricHandle *fabric) {
    return export_chunk(base, CU_MEM_HANDLE_TYPE_FABRIC, fabric);
}

static int refuse_chunk(const struct nvlxi_allocation *allocation) {
    return nvlxi_fail(NVLX_ENOTSUP,
                      "0x%" PRIx64 " lies in virtual-memory-managed memory (cuMemCreate) that was created without a "
                      "handle type by which it can be shared here, or in memory that another process shared with this "
                      "one: create it with requestedHandleTypes CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, or use "
                      "PyTorch's expandable_segments, cudaMalloc or nvlx_alloc",
                      allocation->base);
}

bool nvlxi_cuda_vmm_is_chunk(uint64_t address) {
    CUmemGenericAllocationHandle handle;
    if (nvlxi_cuda_driver.cuMemRetainAllocationHandle(&handle, (void *)(uintptr_t)address))
        return false;
    nvlxi_cuda_driver.cuMemRelease(handle);
    return true;
}

/* Of a chunk, the driver calls the start of its reservation that of its range. */
static int find_reservation(struct nvlxi_allocation *allocation) {
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_RANGE_START_ADDR};
    void *values[] = {&allocation->reservation};
    CUresult error = nvlxi_cuda_driver.cuPointerGetAttributes(1, names, values, allocation->base);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuPointerGetAttributes") : 0;
}

int nvlxi_cuda_vmm_describe(struct nvlxi_allocation *allocation) {
    CUmemFabricHandle fabric;
    uint64_t types;
    int code = nvlxi_cuda_handle_types(allocation->base, &types);
    if (code || (code = find_reservation(allocation)))
        return code;
    allocation->joins = true;
    if (types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
        allocation->kind = chunk_kind(allocation->kind);
        allocation->file = true;
        return 0;
    }
    if (allocation->kind == NVLXI_KIND_HOST || !(types & CU_MEM_HANDLE_TYPE_FABRIC) ||
        export_fabric(allocation->base, &fabric))
        return refuse_chunk(allocation);
    allocation->kind = NVLXI_KIND_FABRIC;
    return 0;
}

int nvlxi_cuda_vmm_export_fabric(const struct nvlxi_allocation *allocation, struct nvlxi_handle *handle) {
    CUmemFabricHandle fabric;
    CUresult error = export_fabric(allocation->base, &fabric);
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "exporting a chunk's fabric handle");
    nvlxi_cuda_fill_handle(handle, &fabric, sizeof fabric);
    return 0;
}

int nvlxi_cuda_vmm_export_file(const struct nvlxi_allocation *allocation, int *fd) {
    CUresult error = export_chunk(allocation->base, FILE_TYPE, fd);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "exporting a chunk as a file descriptor") : 0;
}

/* ---- Mapping another process's ----------------------------------------------------------------------- */

static int import_file(const struct nvlxi_map *map, const struct nvlxi_segment_record *segment,
                       CUmemGenericAllocationHandle *handle) {
    int fd, code = nvlxi_cuda_take_file(map, segment, &fd);
    if (code)
        return code;
    CUresult error = nvlxi_cuda_driver.cuMemImportFromShareableHandle(handle, (void *)(intptr_t)fd, FILE_TYPE);
    close(fd);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE,
                                             "cuMemImportFromShareableHandle of a peer's file descriptor")
                 : 0;
}

static int import_fabric(const struct nvlxi_segment_record *segment, CUmemGenericAllocationHandle *handle) {
    CUmemFabricHandle fabric;
    int code = nvlxi_cuda_read_handle(segment, &fabric, sizeof fabric);
    if (code)
        return code;
    CUresult error = nvlxi_cuda_driver.cuMemImportFromShareableHandle(handle, &fabric, CU_MEM_HANDLE_TYPE_FABRIC);
    return error ? nvlxi_cuda_driver_failure(error, error == CUDA_ERROR_INVALID_HANDLE ? NVLX_ESTALE : NVLX_EDEVICE,
                                             "cuMemImportFromShareableHandle of a peer's fabric handle")
                 : 0;
}

/* Mapping part of a chunk, or more than it, is refused by the driver. */
static int map_segment(struct nvlxi_cuda_record *record, const struct nvlxi_map *map,
                       const struct nvlxi_segment_record *segment) {
    CUmemGenericAllocationHandle handle;
    char what[128];
    int code =
        segment->kind == NVLXI_KIND_FABRIC ? import_fabric(segment, &handle) : import_file(map, segment, &handle);
    if (code)
        return code;
    CUresult error = append(record, handle, segment->size);
    if (!error)
        return 0;
    snprintf(what, sizeof what, "cuMemMap of segment 0x%" PRIx64 ", which is said to be a chunk of %" PRIu64 " bytes",
             segment->base, segment->size);
    return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, what);
}

/* Access is granted chunk by chunk, while the owner exports the next ones: 410 chunks of 20 MiB took 75 to 83 ms in
 * all, and 80 to 86 with one call at the end (two H200). A second thread gains nothing: exports and imports of all
 * processes, grants of access, and the last close of a file share a lock of the driver's. */
static int map_segments(struct nvlxi_cuda_record *record, const struct nvlxi_map *map) {
    int code = 0;
    for (size_t i = 0; i < map->count && !code; i++) {
        const uint64_t from = record->mapped;
        code = map_segment(record, map, &map->segments[i]);
        if (!code)
            code = grant(record, from, map->read_only);
        if (!code && map->watch)
            map->watch->grown(map->watch->context, record->address, record->mapped);
    }
    return code;
}

static int size_of_map(const struct nvlxi_map *map, uint64_t *size) {
    *size = 0;
    for (size_t i = 0; i < map->count; i++)
        if (!map->segments[i].size || !nvlxi_add(*size, map->segments[i].size, size))
            return nvlxi_fail(NVLX_EDEVICE, "segment 0x%" PRIx64 " is said to have %" PRIu64 " bytes",
                              map->segments[i].base, map->segments[i].size);
    return 0;
}

int nvlxi_cuda_vmm_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address) {
    struct nvlxi_cuda_record *record;
    uint64_t size;
    size_t unit;
    const uint32_t kind = chunk_kind(map->segments->kind);
    int code = size_of_map(map, &size);
    if (!code)
        code = granularity(kind, map->gpu, &unit);
    if (!code)
        code = reserve(kind, map->gpu, size, map->count, unit, &record);
    if (code)
        return code;
    record->foreign = true;
    if ((code = map_segments(record, map)) || (code = nvlxi_cuda_record_add(device, record))) {
        if (map->watch)
            map->watch->failed(map->watch->context);
        nvlxi_cuda_vmm_drop(record);
        return code;
    }
    *address = record->address;
    return 0;
}
