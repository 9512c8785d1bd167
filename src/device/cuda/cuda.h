/* Inside the cuda backend: what its files share. cuda.c has the device and its contexts, device/cuda/memory.c
 * allocations and mappings of every kind, of which device/cuda/vmm.c does the chunks, device/cuda/pool.c the pools,
 * and device/cuda/pinned.c host memory,
 * device/cuda/lane.c lanes and events, device/cuda/kernel.c the launches of the kernels in copy.cu,
 * device/cuda/digest.c that of the one in digest.cu, device/cuda/signal.c signals, with the kernels of signal.cu,
 * device/cuda/graph.c what graphs hold, device/cuda/link.c the links between GPUs.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_CUDA_CUDA_H
#define NVLXI_DEVICE_CUDA_CUDA_H

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/hash.h"
#include "device/cuda/copy.h"
#include "device/cuda/signal.h"
#include "device/device.h"

struct nvlxi_cuda_gpu {
    CUdevice handle;
    CUuuid uuid;
    atomic_bool loading, told;         /* by the first who needs it: the kernels; that there are none */
    _Atomic(uint32_t) sms;             /* that the kernels can use; 0: there are none, or not yet */
    struct nvlxi_cuda_kernels kernels; /* once sms is set, as the next */
    CUfunction digest;
    struct nvlxi_cuda_counters counters;
    struct CUfunc_st *toucher;         /* the kernel that wakes links (link.c), */
    cudaStream_t waker;                /* its stream, set before `sms`, */
    atomic_uint waking;                /* and how many may be in it */
    int priority_least, priority_most; /* of streams; once the context is set */
    atomic_bool allowed;               /* a context may be made: config.gpus names it, or a call did */
    _Atomic(CUcontext) context; /* its primary context, retained; NULL before it is needed; set under the mutex */
    CUmemoryPool pool;          /* from which alloc takes NVLXI_KIND_POOL; NULL before it is needed */
};

/* Memory whose address alone does not tell how to give it back. */
struct nvlxi_cuda_record {
    uint64_t address; /* the key */
    uint32_t kind;    /* NVLXI_KIND_VMM, of chunks (fabric ones too), _HOST, of those in host memory, or _POOL */
    int gpu;
    bool foreign;      /* a mapping of another process's memory; else from alloc */
    uint64_t reserved; /* bytes of address space */
    uint64_t mapped;   /* of which chunks are mapped, from the start */
    size_t chunks;     /* mapped */
    UT_hash_handle hh;
    uint64_t sizes[]; /* of the chunks */
};

struct nvlxi_device {
    bool only_listed;               /* config.gpus was given: no other GPU is used */
    struct nvlxi_identity identity; /* of this process */
    int gpu_count;
    pthread_mutex_t mutex;
    struct nvlxi_cuda_record *records; /* by address */
    pthread_mutex_t links_mutex;
    struct nvlxi_link *links, *left_links; /* lists; left: see link.c */
    struct nvlxi_cuda_gpu gpus[];
};

struct nvlxi_lane {
    struct nvlxi_device *device;
    int gpu;
    bool callers;   /* the stream is the caller's, */
    bool capturing; /* and captures a graph */
    cudaStream_t stream;
};

struct nvlxi_event {
    struct nvlxi_device *device;
    int gpu;
    cudaEvent_t event;
};

/* ---- The driver: its functions, by name, version and type --------------------------------------------- */

#define DRIVER_FUNCTIONS(X)                                                                                            \
    X(cuGetErrorName, 6000, PFN_cuGetErrorName_v6000)                                                                  \
    X(cuGetErrorString, 6000, PFN_cuGetErrorString_v6000)                                                              \
    X(cuDeviceGet, 2000, PFN_cuDeviceGet_v2000)                                                                        \
    X(cuDeviceGetUuid, 11040, PFN_cuDeviceGetUuid_v11040)                                                              \
    X(cuDevicePrimaryCtxGetState, 7000, PFN_cuDevicePrimaryCtxGetState_v7000)                                          \
    X(cuDevicePrimaryCtxRetain, 7000, PFN_cuDevicePrimaryCtxRetain_v7000)                                              \
    X(cuDevicePrimaryCtxRelease, 11000, PFN_cuDevicePrimaryCtxRelease_v11000)                                          \
    X(cuCtxGetCurrent, 4000, PFN_cuCtxGetCurrent_v4000)                                                                \
    X(cuCtxGetDevice, 2000, PFN_cuCtxGetDevice_v2000)                                                                  \
    X(cuCtxGetStreamPriorityRange, 5050, PFN_cuCtxGetStreamPriorityRange_v5050)                                        \
    X(cuCtxPushCurrent, 4000, PFN_cuCtxPushCurrent_v4000)                                                              \
    X(cuCtxPopCurrent, 4000, PFN_cuCtxPopCurrent_v4000)                                                                \
    X(cuThreadExchangeStreamCaptureMode, 10010, PFN_cuThreadExchangeStreamCaptureMode_v10010)                          \
    X(cuEventQuery, 2000, PFN_cuEventQuery_v2000)                                                                      \
    X(cuStreamQuery, 2000, PFN_cuStreamQuery_v2000)                                                                    \
    X(cuPointerGetAttributes, 7000, PFN_cuPointerGetAttributes_v7000)                                                  \
    X(cuMemGetAddressRange, 3020, PFN_cuMemGetAddressRange_v3020)                                                      \
    X(cuMemFree, 3020, PFN_cuMemFree_v3020)                                                                            \
    X(cuMemGetAllocationGranularity, 10020, PFN_cuMemGetAllocationGranularity_v10020)                                  \
    X(cuMemCreate, 10020, PFN_cuMemCreate_v10020)                                                                      \
    X(cuMemRelease, 10020, PFN_cuMemRelease_v10020)                                                                    \
    X(cuMemRetainAllocationHandle, 11000, PFN_cuMemRetainAllocationHandle_v11000)                                      \
    X(cuMemExportToShareableHandle, 10020, PFN_cuMemExportToShareableHandle_v10020)                                    \
    X(cuMemImportFromShareableHandle, 10020, PFN_cuMemImportFromShareableHandle_v10020)                                \
    X(cuMemAddressReserve, 10020, PFN_cuMemAddressReserve_v10020)                                                      \
    X(cuMemAddressFree, 10020, PFN_cuMemAddressFree_v10020)                                                            \
    X(cuMemMap, 10020, PFN_cuMemMap_v10020)                                                                            \
    X(cuMemUnmap, 10020, PFN_cuMemUnmap_v10020)                                                                        \
    X(cuMemSetAccess, 10020, PFN_cuMemSetAccess_v10020)                                                                \
    X(cuMemGetAccess, 10020, PFN_cuMemGetAccess_v10020)                                                                \
    X(cuMemPoolCreate, 11020, PFN_cuMemPoolCreate_v11020)                                                              \
    X(cuMemPoolDestroy, 11020, PFN_cuMemPoolDestroy_v11020)                                                            \
    X(cuMemAllocFromPoolAsync, 11020, PFN_cuMemAllocFromPoolAsync_v11020)                                              \
    X(cuMemPoolGetAccess, 11020, PFN_cuMemPoolGetAccess_v11020)                                                        \
    X(cuMemPoolSetAccess, 11020, PFN_cuMemPoolSetAccess_v11020)                                                        \
    X(cuMemPoolExportToShareableHandle, 11020, PFN_cuMemPoolExportToShareableHandle_v11020)                            \
    X(cuMemPoolImportFromShareableHandle, 11020, PFN_cuMemPoolImportFromShareableHandle_v11020)                        \
    X(cuMemPoolExportPointer, 11020, PFN_cuMemPoolExportPointer_v11020)                                                \
    X(cuMemPoolImportPointer, 11020, PFN_cuMemPoolImportPointer_v11020)                                                \
    X(cuStreamGetCtx, 9020, PFN_cuStreamGetCtx_v9020)                                                                  \
    X(cuStreamGetId, 12000, PFN_cuStreamGetId_v12000)                                                                  \
    X(cuStreamIsCapturing, 10000, PFN_cuStreamIsCapturing_v10000)                                                      \
    X(cuStreamGetCaptureInfo, 11030, PFN_cuStreamGetCaptureInfo_v11030)                                                \
    X(cuUserObjectCreate, 11030, PFN_cuUserObjectCreate_v11030)                                                        \
    X(cuUserObjectRelease, 11030, PFN_cuUserObjectRelease_v11030)                                                      \
    X(cuGraphRetainUserObject, 11030, PFN_cuGraphRetainUserObject_v11030)                                              \
    X(cuStreamWriteValue64, 11070, PFN_cuStreamWriteValue64_v11070)                                                    \
    X(cuStreamWaitValue64, 11070, PFN_cuStreamWaitValue64_v11070)                                                      \
    X(cuLaunchKernelEx, 11060, PFN_cuLaunchKernelEx_v11060)

struct nvlxi_cuda_driver {
#define DRIVER_FIELD(name, version, type) type name;
    DRIVER_FUNCTIONS(DRIVER_FIELD)
#undef DRIVER_FIELD
};

extern struct nvlxi_cuda_driver nvlxi_cuda_driver; /* complete once count or open has succeeded */

/* The runtime's, or the driver's, error becomes ours, in its own words. */
int nvlxi_cuda_runtime_failure(cudaError_t error, int code, const char *what);
int nvlxi_cuda_driver_failure(CUresult error, int code, const char *what);
#ifdef __clang_analyzer__ /* as nvlxi_fail */
#define nvlxi_cuda_runtime_failure(error, code, what) ((void)nvlxi_cuda_runtime_failure(error, code, what), (code))
#define nvlxi_cuda_driver_failure(error, code, what)  ((void)nvlxi_cuda_driver_failure(error, code, what), (code))
#endif

/* What `enter` changed of the calling thread, to be undone by `leave`. */
struct nvlxi_cuda_entry {
    CUstreamCaptureMode mode;
    bool pushed; /* a context; else the one that was current already is used */
};

/* Makes the GPU's primary context current, and allows this thread all calls while others capture graphs. */
int nvlxi_cuda_enter(struct nvlxi_device *device, int gpu, struct nvlxi_cuda_entry *entry);
void nvlxi_cuda_leave(struct nvlxi_cuda_entry *entry);

/* The GPU's primary context, retained; the caller's current one stays. Waits for no kernel. */
int nvlxi_cuda_context(struct nvlxi_device *device, int gpu, CUcontext *context);

/* The caller names the GPU: `context` and `enter` may make its context, unless config.gpus names others alone. */
void nvlxi_cuda_allow(struct nvlxi_device *device, int gpu);

/* Whether its primary context is. */
bool nvlxi_cuda_is_active(const struct nvlxi_cuda_gpu *gpu);

/* device.h's `load`. */
void nvlxi_cuda_load(struct nvlxi_device *device, int gpu);

/* A GPU whose context is retained, or else active. -1: there is none. */
int nvlxi_cuda_any_gpu(struct nvlxi_device *device);

/* Whether it has a context that this engine may use, or may have one. */
bool nvlxi_cuda_may_enter(const struct nvlxi_device *device, int gpu);

/* ---- Memory: what device/cuda/memory.c, device/cuda/vmm.c and device/cuda/pool.c ask of each other
 * --------------------------- */

struct nvlxi_cuda_attributes {
    unsigned type; /* CUmemorytype; 0: not known to CUDA */
    int gpu;
    uint64_t managed, legacy, serial; /* wide enough for what the driver writes */
    CUmemoryPool pool;
};

int nvlxi_cuda_attributes(uint64_t address, struct nvlxi_cuda_attributes *attributes);
/* CUmemAllocationHandleType bits: how the chunk or pool under `address` can be shared. */
int nvlxi_cuda_handle_types(uint64_t address, uint64_t *types);
void nvlxi_cuda_fill_handle(struct nvlxi_handle *handle, const void *bytes, size_t length);
/* NVLX_EDEVICE if the segment's handle does not have this length. */
int nvlxi_cuda_read_handle(const struct nvlxi_segment_record *segment, void *bytes, size_t length);
/* The next file descriptor, which the caller closes, for a segment. */
int nvlxi_cuda_take_file(const struct nvlxi_map *map, const struct nvlxi_segment_record *segment, int *fd);

int nvlxi_cuda_record_add(struct nvlxi_device *device, struct nvlxi_cuda_record *record);
/* Takes a record out, which becomes the caller's; NULL if there is none. `gpu` < 0: of any. */
struct nvlxi_cuda_record *nvlxi_cuda_record_take(struct nvlxi_device *device, uint64_t address, bool foreign, int gpu);
/* The GPU that memory of alloc was made for; -1: alloc did not make it. */
int nvlxi_cuda_record_gpu(struct nvlxi_device *device, uint64_t address);

/* The allocation of pinned host memory at an address. NVLX_ENOTSUP: GPUs do not see it there. */
int nvlxi_cuda_pinned_resolve(struct nvlxi_device *device, uint64_t address,
                              const struct nvlxi_cuda_attributes *attributes, struct nvlxi_allocation *allocation);

/* In all that follows, the GPU's context is current; device/cuda/memory.c enters it. */

/* Kind and flags of a chunk whose place is known, and whose kind is NVLXI_KIND_HOST if it is of host memory.
 * NVLX_ENOTSUP if it cannot be shared. */
int nvlxi_cuda_vmm_describe(struct nvlxi_allocation *allocation);
int nvlxi_cuda_vmm_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address);
int nvlxi_cuda_vmm_export_fabric(const struct nvlxi_allocation *allocation, struct nvlxi_handle *handle);
int nvlxi_cuda_vmm_export_file(const struct nvlxi_allocation *allocation, int *fd);
void nvlxi_cuda_vmm_fork(enum nvlxi_fork_phase phase);
int nvlxi_cuda_vmm_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address);
/* Whether a chunk is mapped there, of this process or another. */
bool nvlxi_cuda_vmm_is_chunk(uint64_t address);
/* Maps a chunk, as small as can be, of GPU `other` on `gpu`, whose context is current. */
int nvlxi_cuda_vmm_reach(int gpu, int other, struct nvlxi_cuda_record **record);
/* Unmaps the chunks of a record that was taken, and frees it. */
int nvlxi_cuda_vmm_drop(struct nvlxi_cuda_record *record);

/* The same for memory of a pool. */
int nvlxi_cuda_pool_describe(CUmemoryPool pool, struct nvlxi_allocation *allocation);
int nvlxi_cuda_pool_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address);
int nvlxi_cuda_pool_free(struct nvlxi_cuda_record *record);
int nvlxi_cuda_pool_export_handle(const struct nvlxi_allocation *allocation, struct nvlxi_handle *handle);
int nvlxi_cuda_pool_export_file(const struct nvlxi_allocation *allocation, int *fd);
/* A pool, own or imported, can be used by its own GPU alone, until others are allowed to. */
int nvlxi_cuda_pool_grant(CUmemoryPool pool, int gpu);
int nvlxi_cuda_pool_map(const struct nvlxi_map *map, uint64_t *address);
/* Sets *found if `address` is such a mapping, and undoes one opening of it. */
int nvlxi_cuda_pool_unmap(uint64_t address, bool *found);
/* The pools of alloc. No context is current. */
void nvlxi_cuda_pools_close(struct nvlxi_device *device);
void nvlxi_cuda_pools_fork(enum nvlxi_fork_phase phase);

/* ---- The slots of the ops table that are in other files ----------------------------------------------- */

int nvlxi_cuda_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address);
int nvlxi_cuda_free(struct nvlxi_device *device, void *address);
int nvlxi_cuda_memcpy(struct nvlxi_device *device, void *destination, const void *source, size_t length);
int nvlxi_cuda_resolve(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation);
int nvlxi_cuda_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation);
int nvlxi_cuda_let_use(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int gpu);
int nvlxi_cuda_export_handle(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                             struct nvlxi_handle *handle);
int nvlxi_cuda_list_alloc(struct nvlxi_device *device, size_t size, void **memory);
void nvlxi_cuda_list_free(struct nvlxi_device *device, void *memory);
int nvlxi_cuda_export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd);
int nvlxi_cuda_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address);
int nvlxi_cuda_unmap(struct nvlxi_device *device, int gpu, uint64_t address);
struct nvlxi_link *nvlxi_cuda_link(struct nvlxi_device *device, int gpu, const uint8_t uuid[NVLXI_UUID_BYTES]);
void nvlxi_cuda_unlink(struct nvlxi_device *device, struct nvlxi_link *link);
void nvlxi_cuda_wake(struct nvlxi_device *device, struct nvlxi_link *link);
void nvlxi_cuda_links_close(struct nvlxi_device *device);
int nvlxi_cuda_lane_create(struct nvlxi_device *device, int gpu, int priority, struct nvlxi_lane **lane);
void nvlxi_cuda_lane_destroy(struct nvlxi_lane *lane);
int nvlxi_cuda_lane_query(struct nvlxi_lane *lane);
int nvlxi_cuda_lane_call(struct nvlxi_lane *lane, void (*function)(void *argument), void *argument);
int nvlxi_cuda_copy(struct nvlxi_lane *lane, const struct nvlxi_copy *copy);
int nvlxi_cuda_copy_list(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count, int destination_gpu,
                         int source_gpu);
int nvlxi_cuda_copy_grid(struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int destination_gpu, int source_gpu);
int nvlxi_cuda_copy_rows(struct nvlxi_lane *lane, const struct nvlxi_rows *list, size_t count, int destination_gpu,
                         int source_gpu);
int nvlxi_cuda_copy_kernel(struct nvlxi_lane *lane, const struct nvlxi_kernel *kernel);
int nvlxi_cuda_copy_blocks(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel);
int nvlxi_cuda_ids_check(struct nvlxi_device *device, int gpu, uint64_t address, uint64_t length);
int nvlxi_cuda_digest(struct nvlxi_lane *lane, const struct nvlxi_leaves *leaves);
int nvlxi_cuda_signal(struct nvlxi_lane *lane, const struct nvlxi_signal *signal);
int nvlxi_cuda_await(struct nvlxi_lane *lane, uint64_t address, uint64_t value);
int nvlxi_cuda_await_gated(struct nvlxi_lane *lane, const struct nvlxi_gated *gated);
int nvlxi_cuda_await_paced(struct nvlxi_lane *lane, const struct nvlxi_paced *paced);
int nvlxi_cuda_signal_read(struct nvlxi_device *device, uint64_t address, uint64_t *value);
int nvlxi_cuda_event_create(struct nvlxi_device *device, int gpu, struct nvlxi_event **event);
void nvlxi_cuda_event_destroy(struct nvlxi_event *event);
int nvlxi_cuda_event_record(struct nvlxi_lane *lane, struct nvlxi_event *event);
int nvlxi_cuda_event_query(struct nvlxi_event *event);
int nvlxi_cuda_lane_wait(struct nvlxi_lane *lane, struct nvlxi_event *event);
int nvlxi_cuda_stream_find(struct nvlxi_device *device, void *handle, struct nvlxi_stream *stream);
int nvlxi_cuda_stream_record(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event);
int nvlxi_cuda_stream_wait(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event);
int nvlxi_cuda_stream_lane(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_lane **lane);
void nvlxi_cuda_stream_lane_end(struct nvlxi_lane *lane);
int nvlxi_cuda_stream_keep(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                           void (*function)(void *argument), void *argument);

#endif
