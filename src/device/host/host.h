/* What the parts of the host backend share: host.c (GPUs), device/host/memory.c and one file a kind (memory and
 * handles), device/host/lane.c (lanes and events), device/host/count.h (signals). Only they, and tests of them, include
 * it. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_HOST_HOST_H
#define NVLXI_DEVICE_HOST_HOST_H

#include <assert.h>
#include <stdatomic.h>

#include "base/base.h"
#include "device/device.h"

#define NVLXI_HOST_GPUS_MAX   64
#define NVLXI_HOST_MAGIC      UINT64_C(0x31657478786c766e)
#define NVLXI_HOST_POOL_MAGIC UINT64_C(0x6c6f6f70786c766e)

struct nvlxi_device {
    int gpus;                   /* at the time of opening */
    bool only_listed;           /* no other GPU is worked on than those of `contexts` */
    _Atomic(uint64_t) contexts; /* bit i: it has retained the context of GPU i */
};

/* The bytes of a legacy handle. It leads to the exporter's memfd through /proc; pid and start time together name a
 * process, device and inode together a file, so that a number that was used again is noticed. The allocation is the
 * file from `offset` on. */
struct nvlxi_host_handle {
    uint64_t magic;
    int32_t pid;
    int32_t fd; /* in that process */
    uint64_t start_time;
    uint64_t device, inode;
    uint64_t serial, size;
    uint64_t offset;
};
static_assert(sizeof(struct nvlxi_host_handle) == NVLXI_HANDLE_BYTES, "no padding, and it fits");

/* The bytes of a handle of a pool's allocation. The tag is random: only who was given the handle knows it, and no later
 * allocation at the same place has it. */
struct nvlxi_host_pool_handle {
    uint64_t magic;
    uint64_t offset, size; /* in the pool's memory */
    uint64_t serial, tag;
    uint64_t unused[3];
};
static_assert(sizeof(struct nvlxi_host_pool_handle) == NVLXI_HANDLE_BYTES, "as long as CUDA's");

/* NVLX_EINVAL: there is no such GPU, or it may not be worked on. check_gpu: a context of this process must be there.
 * The other makes one: the caller names the GPU. Either is retained then. */
int nvlxi_host_check_gpu(struct nvlxi_device *device, int gpu);
int nvlxi_host_name_gpu(struct nvlxi_device *device, int gpu);
/* Which GPU copies host memory that was pinned for this one: itself, unless the device does not use it. */
int nvlxi_host_home(struct nvlxi_device *device, int gpu);

#define NVLXI_ANY_GPU (-1)

/* NVLX_EDEVICE if one of the copies goes to a mapping that may only be read, or uses memory that this GPU may not;
 * `crossing` if one crosses a border on either side. */
int nvlxi_host_check_copies(int gpu, const struct nvlxi_fragment *list, size_t count, int crossing);

/* The same of rows, with all that lies between them. NVLX_EDEVICE. */
int nvlxi_host_check_rows(int gpu, const struct nvlxi_grid *grid);
/* NVLX_EDEVICE if copy engines do not take such rows: see copy_rows in device.h. */
int nvlxi_host_check_form(const struct nvlxi_grid *grid);

/* Whether all of a range is memory on this GPU: own memory, or what was mapped on it. */
bool nvlxi_host_holds(int gpu, uint64_t address, uint64_t length);
/* NVLX_EDEVICE if a span is not all that, or host memory that is this GPU's own. */
int nvlxi_host_check_digest(int gpu, const struct nvlxi_digest_span *spans, size_t count);

enum nvlxi_host_count_use { NVLXI_HOST_READ, NVLXI_HOST_AWAIT, NVLXI_HOST_CHANGE };

/* NVLX_EDEVICE if there is no count for a lane of this GPU: the address is no multiple of 8, or not in memory of it, or
 * in a mapping that may only be read. NVLX_ENOTSUP: to be awaited, in memory that is not of cudaMalloc. */
int nvlxi_host_check_count(int gpu, uint64_t address, enum nvlxi_host_count_use use);

struct nvlxi_host_block;
/* What programs do with CUDA's driver themselves, and tests here: memory of NVLXI_KIND_VMM gives its chunks back, and
 * keeps its addresses (cuMemUnmap, cuMemRelease); then new ones are put there (cuMemCreate, cuMemMap). NULL: there is
 * no such memory. What sleeps is not freed by the device's end: wake it before. */
struct nvlxi_host_block *nvlxi_host_put_to_sleep(void *address);
int nvlxi_host_wake(struct nvlxi_host_block *sleeping);
/* The same of one chunk for ever: a hole. False: no chunk begins there, or it is the first one, by which all are freed.
 */
bool nvlxi_host_take_out(void *address);
/* What programs do by cudaHostRegister and cudaHostUnregister, and tests here: host memory becomes known, pinned, with
 * a GPU of its own, until it is unpinned. NVLX_EINVAL: some of it is known already. */
int nvlxi_host_pin(int gpu, void *address, uint64_t size);
/* False: what begins there is not pinned. */
bool nvlxi_host_unpin(void *address);

/* The slots of nvlxi_device_ops, as device.h describes them. */
int nvlxi_host_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address);
int nvlxi_host_free(struct nvlxi_device *device, void *address);
int nvlxi_host_resolve(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation);
int nvlxi_host_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation);
int nvlxi_host_let_use(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int gpu);
int nvlxi_host_export(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                      struct nvlxi_handle *handle);
int nvlxi_host_export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd);
int nvlxi_host_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address);
int nvlxi_host_unmap(struct nvlxi_device *device, int gpu, uint64_t address);

int nvlxi_host_lane_create(struct nvlxi_device *device, int gpu, int priority, struct nvlxi_lane **lane);
void nvlxi_host_lane_destroy(struct nvlxi_lane *lane);
int nvlxi_host_lane_query(struct nvlxi_lane *lane);
int nvlxi_host_lane_call(struct nvlxi_lane *lane, void (*function)(void *argument), void *argument);
int nvlxi_host_copy(struct nvlxi_lane *lane, const struct nvlxi_copy *copy);
int nvlxi_host_copy_list(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count, int destination_gpu,
                         int source_gpu);
int nvlxi_host_copy_grid(struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int destination_gpu, int source_gpu);
int nvlxi_host_copy_rows(struct nvlxi_lane *lane, const struct nvlxi_rows *list, size_t count, int destination_gpu,
                         int source_gpu);
int nvlxi_host_copy_kernel(struct nvlxi_lane *lane, const struct nvlxi_kernel *kernel);
int nvlxi_host_copy_blocks(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel);
int nvlxi_host_digest(struct nvlxi_lane *lane, const struct nvlxi_leaves *leaves);
int nvlxi_host_signal(struct nvlxi_lane *lane, const struct nvlxi_signal *signal);
int nvlxi_host_await(struct nvlxi_lane *lane, uint64_t address, uint64_t value);
int nvlxi_host_await_gated(struct nvlxi_lane *lane, const struct nvlxi_gated *gated);
int nvlxi_host_await_paced(struct nvlxi_lane *lane, const struct nvlxi_paced *paced);
int nvlxi_host_event_create(struct nvlxi_device *device, int gpu, struct nvlxi_event **event);
void nvlxi_host_event_destroy(struct nvlxi_event *event);
int nvlxi_host_event_record(struct nvlxi_lane *lane, struct nvlxi_event *event);
int nvlxi_host_event_query(struct nvlxi_event *event);
int nvlxi_host_lane_wait(struct nvlxi_lane *lane, struct nvlxi_event *event);
int nvlxi_host_stream_find(struct nvlxi_device *device, void *handle, struct nvlxi_stream *stream);
int nvlxi_host_stream_record(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event);
int nvlxi_host_stream_wait(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event);
int nvlxi_host_stream_lane(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_lane **lane);
void nvlxi_host_stream_lane_end(struct nvlxi_lane *lane);
int nvlxi_host_stream_keep(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                           void (*function)(void *argument), void *argument);

int nvlxi_host_ids_check(struct nvlxi_device *device, int gpu, uint64_t address, uint64_t length);

/* Queues a kernel of blocks that was checked, and what its job does. */
int nvlxi_host_queue_blocks(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel);
void nvlxi_host_blocks_run(const struct nvlxi_block_kernel *kernel);

/* The GPU that a lane is on. */
int nvlxi_host_lane_gpu(const struct nvlxi_lane *lane);

/* For tests: queues a wait for a value, as cuStreamWaitValue64 does. What is queued later waits until it is set. */
int nvlxi_host_lane_hold(struct nvlxi_lane *lane, const atomic_bool *until);

/* What each file has for the whole process: see fork.c. */
void nvlxi_host_pools_fork(enum nvlxi_fork_phase phase);
void nvlxi_host_memory_fork(enum nvlxi_fork_phase phase);
void nvlxi_host_lanes_fork(enum nvlxi_fork_phase phase);

#endif
