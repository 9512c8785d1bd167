/* The cuda backend's stream-ordered pools: those that alloc takes from, and those that other processes share. The
 * introduction is in cuda.c.
 *
 * What another process shares is known to the process, not to a device: the driver gives one and the same CUmemoryPool
 * for each import of a pool. And it gives one and the same address for each import of an allocation, but the first free
 * of that unmaps it for all (NVIDIA's bug 5570902). So each is imported once, and counted, in tables of the process.
 *
 * A GPU's context is current in every function here that calls the driver, except close; device/cuda/memory.c enters
 * it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda/cuda.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

_Static_assert(sizeof(CUmemPoolPtrExportData) == NVLXI_HANDLE_BYTES, "a pool's export data fills a handle");

#define FILE_TYPE CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR

/* ---- Pools of our own -------------------------------------------------------------------------------- */

/* The GPU's pool, made at the first call. No lock is held meanwhile: of two threads, the slower one drops its own. */
static int own_pool(struct nvlxi_device *device, int gpu, CUmemoryPool *pool) {
    const CUmemPoolProps properties = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                       .handleTypes = FILE_TYPE,
                                       .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu}};
    CUmemoryPool made;
    pthread_mutex_lock(&device->mutex);
    *pool = device->gpus[gpu].pool;
    pthread_mutex_unlock(&device->mutex);
    if (*pool)
        return 0;
    CUresult error = nvlxi_cuda_driver.cuMemPoolCreate(&made, &properties);
    if (error)
        return nvlxi_cuda_driver_failure(error, error == CUDA_ERROR_OUT_OF_MEMORY ? NVLX_EDEVICE : NVLX_ENOTSUP,
                                         "cuMemPoolCreate, of a pool that can be shared");
    pthread_mutex_lock(&device->mutex);
    if (!device->gpus[gpu].pool)
        device->gpus[gpu].pool = made;
    *pool = device->gpus[gpu].pool;
    pthread_mutex_unlock(&device->mutex);
    if (*pool != made)
        nvlxi_cuda_driver.cuMemPoolDestroy(made);
    return 0;
}

void nvlxi_cuda_pools_close(struct nvlxi_device *device) {
    struct nvlxi_cuda_entry entry;
    for (int gpu = 0; gpu < device->gpu_count; gpu++) {
        if (!device->gpus[gpu].pool || nvlxi_cuda_enter(device, gpu, &entry))
            continue;
        nvlxi_cuda_driver.cuMemPoolDestroy(device->gpus[gpu].pool);
        nvlxi_cuda_leave(&entry);
    }
}

/* Allocates in the order of a stream of its own, and waits: the memory can be used by any stream then. */
static int alloc_from(CUmemoryPool pool, size_t length, CUdeviceptr *address) {
    cudaStream_t stream;
    cudaError_t failed = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (failed)
        return nvlxi_cuda_runtime_failure(failed, NVLX_EDEVICE, "cudaStreamCreateWithFlags");
    CUresult error = nvlxi_cuda_driver.cuMemAllocFromPoolAsync(address, length, pool, stream);
    if (!error)
        failed = cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemAllocFromPoolAsync");
    return failed ? nvlxi_cuda_runtime_failure(failed, NVLX_EDEVICE, "allocating from a pool") : 0;
}

int nvlxi_cuda_pool_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address) {
    CUmemoryPool pool;
    CUdeviceptr made;
    int code = own_pool(device, alloc->gpu, &pool);
    if (code)
        return code;
    struct nvlxi_cuda_record *record = calloc(1, sizeof *record);
    if (!record)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to note an allocation of %zu bytes", alloc->length);
    record->kind = NVLXI_KIND_POOL;
    record->gpu = alloc->gpu;
    if ((code = alloc_from(pool, alloc->length, &made)))
        goto free_record;
    record->address = made;
    if ((code = nvlxi_cuda_record_add(device, record)))
        goto free_memory;
    *address = (void *)(uintptr_t)made;
    return 0;
free_memory:
    nvlxi_cuda_driver.cuMemFree(made);
free_record:
    free(record);
    return code;
}

int nvlxi_cuda_pool_free(struct nvlxi_cuda_record *record) {
    CUresult error = nvlxi_cuda_driver.cuMemFree(record->address);
    free(record);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemFree of memory of a pool") : 0;
}

/* ---- Pools of other processes ------------------------------------------------------------------------ */

/* What was measured (driver 580, CUDA 13.0): importing a pool again gives the same CUmemoryPool; it is not destroyed
 * while an allocation of it is imported; destroying it more often than it was imported succeeds too, so that it is not
 * known whether imports are counted. Whatever is freed and destroyed here, and by the owner, the memory that the pool
 * had stays taken until the importing process ends. */
struct shared_pool {
    CUmemoryPool pool; /* the key */
    size_t users;      /* imported allocations, and those that are being imported */
    size_t imports;    /* of the pool: it is destroyed as often */
    UT_hash_handle hh;
};

/* Held while a pool is imported or destroyed, so that none is destroyed which another thread has just been given.
 * Neither waits for a GPU. (Importing takes 137 us, measured with driver 580 and CUDA 13.0.) */
static pthread_mutex_t pools_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct shared_pool *pools;

static bool is_shared_pool(CUmemoryPool pool) {
    struct shared_pool *found;
    pthread_mutex_lock(&pools_mutex);
    HASH_FIND(hh, pools, &pool, sizeof pool, found);
    pthread_mutex_unlock(&pools_mutex);
    return found != NULL;
}

/* Under the mutex: counts one user more. False without memory. */
static bool count_pool(CUmemoryPool pool) {
    struct shared_pool *shared;
    bool hash_full = false;
    HASH_FIND(hh, pools, &pool, sizeof pool, shared);
    if (!shared && (shared = calloc(1, sizeof *shared))) {
        shared->pool = pool;
        HASH_ADD(hh, pools, pool, sizeof pool, shared);
    }
    if (!shared || hash_full) {
        free(shared);
        return false;
    }
    shared->users++;
    shared->imports++;
    return true;
}

static int acquire_pool(const struct nvlxi_map *map, CUmemoryPool *pool) {
    bool counted = false;
    int fd, code = nvlxi_cuda_take_file(map, map->segments, &fd);
    if (code)
        return code;
    pthread_mutex_lock(&pools_mutex);
    CUresult error = nvlxi_cuda_driver.cuMemPoolImportFromShareableHandle(pool, (void *)(intptr_t)fd, FILE_TYPE, 0);
    if (!error && !(counted = count_pool(*pool)))
        nvlxi_cuda_driver.cuMemPoolDestroy(*pool);
    pthread_mutex_unlock(&pools_mutex);
    close(fd);
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE,
                                         "cuMemPoolImportFromShareableHandle of a peer's file descriptor");
    return counted ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory to note a peer's pool");
}

static void release_pool(CUmemoryPool pool) {
    struct shared_pool *shared;
    pthread_mutex_lock(&pools_mutex);
    HASH_FIND(hh, pools, &pool, sizeof pool, shared);
    if (shared && --shared->users == 0) {
        HASH_DEL(pools, shared);
        for (; shared->imports; shared->imports--)
            nvlxi_cuda_driver.cuMemPoolDestroy(pool);
        free(shared);
    }
    pthread_mutex_unlock(&pools_mutex);
}

int nvlxi_cuda_pool_grant(CUmemoryPool pool, int gpu) {
    CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu},
                              .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    CUresult error = nvlxi_cuda_driver.cuMemPoolGetAccess(&flags, pool, &access.location);
    if (!error && flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
        return 0;
    error = nvlxi_cuda_driver.cuMemPoolSetAccess(pool, &access, 1);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemPoolSetAccess") : 0;
}

/* ---- Allocations of other processes ------------------------------------------------------------------ */

/* Without padding. */
struct import_key {
    uint64_t pid, pid_namespace, start_time; /* of the owner */
    uint64_t serial, base;
    CUmemPoolPtrExportData data;
};

struct import {
    struct import_key key;
    uint64_t address, size;
    CUmemoryPool pool; /* one user of it is this import */
    size_t openings;
    bool busy; /* being imported or freed, without the lock */
    UT_hash_handle by_key, by_address;
};

static pthread_mutex_t imports_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t imports_changed = PTHREAD_COND_INITIALIZER;
static struct import *imports;            /* by key */
static struct import *imports_by_address; /* those that are not busy */

/* A child that was forked after these were used has no CUDA: only the locks must be whole. */
void nvlxi_cuda_pools_fork(enum nvlxi_fork_phase phase) {
    if (phase == NVLXI_BEFORE_FORK) {
        pthread_mutex_lock(&imports_mutex);
        pthread_mutex_lock(&pools_mutex);
        return;
    }
    pthread_mutex_unlock(&pools_mutex);
    pthread_mutex_unlock(&imports_mutex);
}

/* Under the mutex. NULL without memory. */
static struct import *add_busy(const struct import_key *key, CUmemoryPool pool) {
    struct import *import = calloc(1, sizeof *import);
    bool hash_full = false;
    if (!import)
        return NULL;
    import->key = *key;
    import->pool = pool;
    import->busy = true;
    HASH_ADD(by_key, imports, key, sizeof import->key, import);
    if (hash_full) {
        free(import);
        return NULL;
    }
    return import;
}

/* The import of this key, opened once more; or a new one, which is still busy. NULL without memory. */
static struct import *open_import(const struct import_key *key, CUmemoryPool pool) {
    struct import *import;
    pthread_mutex_lock(&imports_mutex);
    for (;;) {
        HASH_FIND(by_key, imports, key, sizeof *key, import);
        if (!import || !import->busy)
            break;
        pthread_cond_wait(&imports_changed, &imports_mutex);
    }
    if (import)
        import->openings++;
    else
        import = add_busy(key, pool);
    pthread_mutex_unlock(&imports_mutex);
    return import;
}

/* Forgets a busy one. */
static void discard_import(struct import *import) {
    pthread_mutex_lock(&imports_mutex);
    HASH_DELETE(by_key, imports, import);
    pthread_cond_broadcast(&imports_changed);
    pthread_mutex_unlock(&imports_mutex);
    release_pool(import->pool);
    free(import);
}

/* Closes one opening of one that is not busy; under the mutex. True if it was the last: it is busy then. */
static bool close_import(struct import *import) {
    if (--import->openings)
        return false;
    import->busy = true;
    HASH_DELETE(by_address, imports_by_address, import);
    return true;
}

static int free_import(struct import *import) {
    CUresult error = nvlxi_cuda_driver.cuMemFree(import->address);
    discard_import(import);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemFree of a peer's memory of a pool") : 0;
}

/* A busy one gets its address; it stays busy. */
static int import_pointer(struct import *import) {
    CUdeviceptr address, base;
    size_t size;
    CUresult error = nvlxi_cuda_driver.cuMemPoolImportPointer(&address, import->pool, &import->key.data);
    if (error)
        return nvlxi_cuda_driver_failure(error, error == CUDA_ERROR_INVALID_HANDLE ? NVLX_ESTALE : NVLX_EDEVICE,
                                         "cuMemPoolImportPointer");
    error = nvlxi_cuda_driver.cuMemGetAddressRange(&base, &size, address);
    if (error) {
        nvlxi_cuda_driver.cuMemFree(address);
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemGetAddressRange of a peer's memory of a pool");
    }
    import->address = address;
    import->size = size - (address - base);
    return 0;
}

/* Ends being busy: others may open it. */
static int publish_import(struct import *import) {
    bool hash_full = false;
    pthread_mutex_lock(&imports_mutex);
    HASH_ADD(by_address, imports_by_address, address, sizeof import->address, import);
    if (!hash_full) {
        import->openings = 1;
        import->busy = false;
        pthread_cond_broadcast(&imports_changed);
    }
    pthread_mutex_unlock(&imports_mutex);
    return hash_full ? nvlxi_fail(NVLX_ENOMEM, "no memory to note a peer's memory at 0x%" PRIx64, import->address) : 0;
}

static int make_import(struct import *import, int gpu) {
    int code = nvlxi_cuda_pool_grant(import->pool, gpu);
    if (!code)
        code = import_pointer(import);
    if (code) {
        discard_import(import);
        return code;
    }
    if ((code = publish_import(import)))
        free_import(import);
    return code;
}

/* ---- The slots --------------------------------------------------------------------------------------- */

int nvlxi_cuda_pool_describe(CUmemoryPool pool, struct nvlxi_allocation *allocation) {
    uint64_t types;
    int code = nvlxi_cuda_handle_types(allocation->base, &types);
    if (code)
        return code;
    if (is_shared_pool(pool))
        return nvlxi_fail(NVLX_ENOTSUP,
                          "0x%" PRIx64 " is memory that another process shared with this one: only its owner can share "
                          "it",
                          allocation->base);
    if (!(types & FILE_TYPE))
        return nvlxi_fail(NVLX_ENOTSUP,
                          "0x%" PRIx64 " is of a stream-ordered pool (cudaMallocAsync) whose memory cannot be shared: "
                          "use a pool made with handleTypes cudaMemHandleTypePosixFileDescriptor, cudaMalloc or "
                          "nvlx_alloc, or in PyTorch the default allocator or expandable_segments instead of "
                          "backend:cudaMallocAsync",
                          allocation->base);
    allocation->kind = NVLXI_KIND_POOL;
    allocation->file = true;
    return 0;
}

static int export_pool(CUmemoryPool pool, int *fd) {
    CUresult error = nvlxi_cuda_driver.cuMemPoolExportToShareableHandle(fd, pool, FILE_TYPE, 0);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemPoolExportToShareableHandle") : 0;
}

static int pool_of(const struct nvlxi_allocation *allocation, CUmemoryPool *pool) {
    struct nvlxi_cuda_attributes attributes;
    int code = nvlxi_cuda_attributes(allocation->base, &attributes);
    if (code)
        return code;
    *pool = attributes.pool;
    if (attributes.pool && attributes.serial == allocation->serial)
        return 0;
    return nvlxi_fail(NVLX_ESTALE, "the allocation at 0x%" PRIx64 " was freed", allocation->base);
}

/* A pool's allocations can be exported once the pool itself was (before, CUDA_ERROR_INVALID_VALUE: measured with driver
 * 580 and CUDA 13.0). That descriptor is closed again, and each export_file makes a new one: a descriptor that is kept
 * would have to be found by CUmemoryPool, which may be another pool's after its owner destroyed it. */
int nvlxi_cuda_pool_export_handle(const struct nvlxi_allocation *allocation, struct nvlxi_handle *handle) {
    CUmemPoolPtrExportData data = {{0}}; /* the driver does not fill all of it */
    CUmemoryPool pool;
    int fd, code = pool_of(allocation, &pool);
    if (code)
        return code;
    CUresult error = nvlxi_cuda_driver.cuMemPoolExportPointer(&data, allocation->base);
    if (error == CUDA_ERROR_INVALID_VALUE) {
        if ((code = export_pool(pool, &fd)))
            return code;
        error = nvlxi_cuda_driver.cuMemPoolExportPointer(&data, allocation->base);
        close(fd);
    }
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuMemPoolExportPointer");
    nvlxi_cuda_fill_handle(handle, &data, sizeof data);
    return 0;
}

int nvlxi_cuda_pool_export_file(const struct nvlxi_allocation *allocation, int *fd) {
    CUmemoryPool pool;
    int code = pool_of(allocation, &pool);
    return code ? code : export_pool(pool, fd);
}

static int make_key(const struct nvlxi_map *map, struct import_key *key) {
    const struct nvlxi_segment_record *segment = map->segments;
    *key = (struct import_key){.pid = map->owner->pid,
                               .pid_namespace = map->owner->pid_namespace,
                               .start_time = map->owner->start_time,
                               .serial = segment->serial,
                               .base = segment->base};
    return nvlxi_cuda_read_handle(segment, &key->data, sizeof key->data);
}

/* Always for reading and writing: access is a property of the whole pool here. */
int nvlxi_cuda_pool_map(const struct nvlxi_map *map, uint64_t *address) {
    const struct nvlxi_segment_record *segment = map->segments;
    struct import_key key;
    CUmemoryPool pool;
    bool found;
    int code = make_key(map, &key);
    if (code || (code = acquire_pool(map, &pool)))
        return code;
    struct import *import = open_import(&key, pool);
    const bool is_new = import && import->busy;
    if (!is_new)
        release_pool(pool);
    if (!import)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to note segment 0x%" PRIx64, segment->base);
    code = is_new ? make_import(import, map->gpu) : 0;
    if (code)
        return code;
    if (!is_new)
        code = nvlxi_cuda_pool_grant(import->pool, map->gpu);
    if (!code && import->size < segment->size)
        code = nvlxi_fail(NVLX_EDEVICE,
                          "segment 0x%" PRIx64 " is said to have %" PRIu64 " bytes, but its handle opens %" PRIu64,
                          segment->base, segment->size, import->size);
    if (code) {
        nvlxi_cuda_pool_unmap(import->address, &found);
        return code;
    }
    *address = import->address;
    return 0;
}

int nvlxi_cuda_pool_unmap(uint64_t address, bool *found) {
    struct import *import;
    pthread_mutex_lock(&imports_mutex);
    HASH_FIND(by_address, imports_by_address, &address, sizeof address, import);
    *found = import != NULL;
    const bool last = import && close_import(import);
    pthread_mutex_unlock(&imports_mutex);
    return last ? free_import(import) : 0;
}
