/* The one interface of the device backends: cuda is the product, host lets everything above this line run and be tested
 * on a machine without a GPU. tests/device/contract holds both to what is written here.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every function returns 0 or a negative NVLX_E... code after nvlxi_fail; may be called from any thread, with any
 * current device or none, and leaves the caller's as it was; none is called with a lock held that another call needs to
 * make progress. */
#ifndef NVLXI_DEVICE_DEVICE_H
#define NVLXI_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fork_phase.h"
#include "base/records.h"
#include "device/blocks.h"
#include "nvlxfer.h"

struct nvlxi_device; /* a backend's state for one engine */
struct nvlxi_lane;   /* an ordered queue of copies on one GPU */
struct nvlxi_event;  /* a point in a lane or a caller's stream */
struct nvlxi_link;   /* a way from one GPU to another that is held open */

#define NVLXI_WAKES_MAX 8 /* operations of `wake` that are not done, on one GPU: more are left out */

/* What lies under a pointer. */
struct nvlxi_allocation {
    uint32_t kind; /* enum nvlxi_kind */
    int gpu;       /* ordinal in this process: that it is on. Of host memory, whose lanes copy it */
    uint64_t base, size;
    uint64_t serial;      /* never reused within a process: tells a freed and re-allocated block from the old one */
    bool file;            /* sharing it takes a file descriptor (export_file) */
    bool joins;           /* registered ranges may go on into adjacent allocations of the GPU that join too */
    uint64_t reservation; /* where the address space that it was put into begins, if it joins: allocations in the same
                             one have no border between them (see copy) */
};

struct nvlxi_alloc {
    int gpu;
    size_t length;
    uint32_t kind; /* NVLXI_KIND_CUDA_MALLOC, _VMM, _POOL or _HOST: host memory that is near to the GPU */
    size_t chunk;  /* NVLXI_KIND_VMM, _HOST: bytes of one chunk, rounded up to the granularity, as `length` is; the last
                      takes  what is left. 0: all in one */
};

/* Where the file descriptors of another process's segments come from. */
struct nvlxi_files {
    /* The next one, which the caller closes; or how it failed. Waits for the owner, with a limit of its own. */
    int (*take)(struct nvlxi_files *files, int *fd);
};

/* Who uses chunks while others are still being mapped. Called by the thread that maps. */
struct nvlxi_map_watch {
    /* The first `length` bytes from `address` on can be used. It may call the device, but not map or unmap. */
    void (*grown)(void *context, uint64_t address, uint64_t length);
    /* The rest has failed: all goes away again when this returns. */
    void (*failed)(void *context);
    void *context;
};

/* What is to be mapped: one segment, or adjacent ones that join, back to back. */
struct nvlxi_map {
    int gpu;                                     /* of this process */
    const struct nvlxi_identity *owner;          /* the process that exported them */
    const struct nvlxi_segment_record *segments; /* in order of address */
    size_t count;
    bool read_only; /* peers may only read all of it: enforced by mappings of VMM, FABRIC and HOST, no other */
    struct nvlxi_files *files;           /* one is taken for each segment with `file`, in order; NULL if none has it */
    const struct nvlxi_map_watch *watch; /* of several segments; NULL: nobody watches */
};

#define NVLXI_HOST_MEMORY (-1) /* in place of a GPU: a side of a copy is host memory */

struct nvlxi_copy {
    uint64_t destination, source; /* addresses in this process, mapped ones included */
    uint64_t length;              /* > 0 */
    int destination_gpu;          /* ordinals; a mapping counts as memory of the GPU that it was opened on. One of them
                                     may be NVLXI_HOST_MEMORY, of memory that nvlxi_kind_is_host says is so */
    int source_gpu;
};

/* As many lists as one kernel takes. */
#define NVLXI_PARTS_MAX 16

struct nvlxi_part {
    const struct nvlxi_fragment *list; /* in memory from list_alloc; or rows, each in the room of two fragments */
    uint32_t count;                    /* of fragments, or of rows; may be 0 */
};

struct nvlxi_kernel {
    const struct nvlxi_part *parts;
    uint32_t part_count; /* 1 to NVLXI_PARTS_MAX, of together less than 2^31 fragments or rows */
    bool rows;           /* the lists are of struct nvlxi_rows */
    uint32_t sms;        /* that it may take, at most */
    uint64_t average;    /* bytes of a fragment, or of all rows of one, about: for how many warps each is */
    bool overlaps;       /* may begin, and take as many SMs again, before the kernel before it in the lane ends; ends
                            after it all the same */
};

/* Memory to be digested, leaf by leaf: the last may be shorter. */
struct nvlxi_digest_span {
    uint64_t address, length; /* length > 0 */
};

/* What one kernel digests: leaves of many spans side by side. */
struct nvlxi_leaves {
    const struct nvlxi_digest_span *spans;
    uint32_t span_count;               /* > 0, of together at most 2^26 leaves */
    uint64_t *digests;                 /* in memory from list_alloc: the XXH64 of each leaf, span after span */
    struct nvlxi_digest_span *scratch; /* likewise: one for each leaf, the backend's until the kernel is complete. Not
                                          used for a single span */
};

#define NVLXI_LEAF_BYTES (16u << 10) /* nvlxfer.h tells it */

/* Whether a count has come as far as awaited. Both may have wrapped around: it is so far if it is less than 2^63 ahead.
 */
static inline bool nvlxi_signal_reached(uint64_t count, uint64_t awaited) {
    return count - awaited < UINT64_C(1) << 63;
}

static inline uint64_t nvlxi_leaf_count(uint64_t length) {
    return (length + NVLXI_LEAF_BYTES - 1) / NVLXI_LEAF_BYTES;
}

/* A wait for a count that others own, which a lane may give up. */
struct nvlxi_gated {
    uint64_t address, value; /* the count, and what it shall reach */
    uint64_t gate, pass;     /* a count of one's own, and what lets the lane go on if it is reached */
};

/* A wait of a graph, which is there again each time that the graph runs. */
struct nvlxi_paced {
    uint64_t address, value; /* the count, and what it shall reach; or how much more than what is at `reached` */
    uint64_t reached;        /* address of 64 bits in the lane's GPU's memory, that then become what was awaited; 0:
                                none */
    const uint64_t *gate;    /* in memory from list_alloc. Not 0: the lane goes on without the count, */
    uint64_t mark;           /* and the 64 bits at this address become what the gate has; 0: none do */
};

struct nvlxi_gpu_limits {
    uint32_t sms;                      /* that kernels can use; 0: there are none, or they are not loaded */
    int priority_least, priority_most; /* of lanes: from the least urgent to the most urgent, which is lower */
};

/* A stream of the caller's. */
struct nvlxi_stream {
    void *handle;
    int gpu;
    uint64_t id; /* 0 of one that captures; of no other stream of this process, not even of one made later with the same
                    handle */
    bool capturing; /* a graph: see stream_keep */
};

struct nvlxi_device_ops {
    const char *name; /* "cuda", "host" */

    /* GPUs that this process sees; makes no context. NVLX_EBACKEND with the cause if the backend cannot run. */
    int (*count)(int *gpus);

    /* `gpus`: where contexts may be made; no other GPU is worked on. Copied. NULL: on those that alloc, map and
     * let_use name; else only GPUs where one is active are worked on (NVLX_EINVAL). A context stays until close. */
    int (*open)(const int *gpus, size_t gpu_count, struct nvlxi_device **device);
    /* Everything made on the device has been destroyed before. */
    void (*close)(struct nvlxi_device *device);

    int (*uuid)(struct nvlxi_device *device, int gpu, uint8_t uuid[NVLXI_UUID_BYTES]);

    /* Exportable memory. alloc: NVLX_ENOTSUP if the GPU has none of this kind. Each chunk of VMM or HOST is an
     * allocation of its own, with a serial of its own; they lie back to back. free frees what alloc returned, all of
     * it: NVLX_EINVAL for an address that alloc of this device did not return, inner ones too. */
    int (*alloc)(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address);
    int (*free)(struct nvlxi_device *device, void *address);
    /* Copies between host and device memory of this process, mapped ones included, any direction, and waits.
     * NVLX_EDEVICE if the destination is mapped read-only; NVLX_ERANGE if a side crosses a border (see copy). */
    int (*memcpy)(struct nvlxi_device *device, void *destination, const void *source, size_t length);

    /* The allocation under `address`. Of kind PINNED it is host memory of this process that was pinned (cudaHostAlloc,
     * cudaHostRegister), and cannot be shared; all GPUs may use it. Chunks of host memory are for the GPU that they
     * were allocated for, as other chunks are. NVLX_ENOTSUP if it is neither that nor memory that can be shared, such
     * as plain host memory; the message names the kind found. */
    int (*resolve)(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation);
    /* Whether `allocation` is still what resolve found: 0, or NVLX_ESTALE (not logged) once it was freed. */
    int (*alive)(struct nvlxi_device *device, const struct nvlxi_allocation *allocation);
    /* Lets another GPU of this process copy from and to the allocation. Pools must be told so; chunks may have to. */
    int (*let_use)(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int gpu);
    /* A handle by which another process can open the allocation; of length 0 if the file descriptor is all it takes.
     * The same handle every time. NVLX_ENOTSUP: it cannot be shared. */
    int (*export_handle)(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                         struct nvlxi_handle *handle);
    /* A new file descriptor, close-on-exec, for an allocation with `file`, for another process; the caller closes it.
     * NVLX_ESTALE: the allocation was freed; NVLX_ENOTSUP: it is not shared by a file descriptor. */
    int (*export_file)(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd);

    /* Opens another process's segments on a GPU of this one, back to back: *address is where the first begins. Of the
     * kind CUDA_MALLOC, opening again gives the same address and counts; VMM, FABRIC and HOST are mapped anew,
     * elsewhere; of POOL, it may be either. unmap undoes one opening, in any order: NVLX_EINVAL if nothing was opened
     * there.
     *
     * A CUDA_MALLOC handle of this very process, of a dead process or of freed memory (that this process does not have
     * mapped), a file descriptor of anything else, a size beyond the segment's (of VMM, any other than it), or garbage
     * is refused (NVLX_ESTALE if the exporter or its memory is known to be gone, else NVLX_EDEVICE), and the device
     * stays usable. A file descriptor keeps its chunk: it opens after the exporter has freed it, too. NVLX_ENOTSUP: the
     * kind cannot be opened here, such as a CUDA_MALLOC handle of another process whose pid, in its own namespace, is
     * ours (owner.h); no driver is asked, no file taken.
     *
     * Files are taken one at a time and closed at once, none after a failure; that of take is passed on. Whatever
     * fails, nothing stays mapped, and no file open. Who watches is told after each segment of kinds that join.
     *
     * map takes milliseconds, unmap may wait for running kernels. A mapping shows the old bytes after the exporter has
     * freed them or has died; of POOL, only until the exporter frees. */
    int (*map)(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address);
    int (*unmap)(struct nvlxi_device *device, int gpu, uint64_t address);

    /* Holds the way from `gpu` to the GPU with this UUID, so that map stays cheap while nothing of that GPU is mapped.
     * CUDA makes the way with the first mapping and gives it up with the last, which costs the next one up to 10 ms.
     * NULL: there is none to hold, as to a GPU that this process does not see, to `gpu` itself, or to one without
     * memory for it. Each link is undone by unlink. Neither fails, or waits for kernels. */
    struct nvlxi_link *(*link)(struct nvlxi_device *device, int gpu, const uint8_t uuid[NVLXI_UUID_BYTES]);
    void (*unlink)(struct nvlxi_device *device, struct nvlxi_link *link);
    /* Wakes what a link goes over, if it sleeps: NVLink does when it was not used for a while (transfer/wake.h). Does
     * not wait for that. Waits as any launch does: so without a lock. It takes places in a queue that it may share. */
    void (*wake)(struct nvlxi_device *device, struct nvlxi_link *link);

    /* Loads the kernels for a GPU that has none yet, as `open` does for those named and those with an active
     * context. May wait until all that runs on the GPU is over. A GPU for which there are none goes without. */
    void (*load)(struct nvlxi_device *device, int gpu);
    /* Calls no driver. */
    int (*limits)(struct nvlxi_device *device, int gpu, struct nvlxi_gpu_limits *limits);

    /* Host memory that the kernels of all GPUs can read and write: for lists of fragments, and digests of leaves. */
    int (*list_alloc)(struct nvlxi_device *device, size_t size, void **memory);
    void (*list_free)(struct nvlxi_device *device, void *memory);

    /* A lane holds about 1,000 operations that are not done. Whatever queues one more then waits until there is room:
     * the caller sees to it that this does not happen. So does a stream of the caller's.
     *
     * `priority`: lower is more urgent, 0 is usual; taken as the nearest that the device has. */
    int (*lane_create)(struct nvlxi_device *device, int gpu, int priority, struct nvlxi_lane **lane);
    /* Nothing is queued in the lane any more. */
    void (*lane_destroy)(struct nvlxi_lane *lane);
    /* Queues one copy; never waits for it, and never completes inside the call. NVLX_EDEVICE, and nothing is queued, if
     * the destination is mapped read-only, or if a side crosses a border: the end of an allocation or of a mapping,
     * whatever lies behind it. There is none between chunks in one reservation, nor within what one map opened. */
    int (*copy)(struct nvlxi_lane *lane, const struct nvlxi_copy *copy);
    /* Queues many copies for the copy engines, in any order among each other. The list is read before the call returns.
     * When it fails, as it does where copy would, some may have been queued. */
    int (*copy_list)(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count, int destination_gpu,
                     int source_gpu);
    /* The same of rows: one copy each. NVLX_EDEVICE also for a pitch that is shorter than the row. More than
     * NVLXI_ROWS_MAX rows, a pitch of more than NVLXI_PITCH_MAX, and what crosses a border between rows may be refused:
     * the caller sees to it that there is none. (CUDA 13.0 copies wrong bytes of 2^32 rows, measured.) */
    int (*copy_rows)(struct nvlxi_lane *lane, const struct nvlxi_rows *list, size_t count, int destination_gpu,
                     int source_gpu);
    /* The same of rows that come several times, in one copy. NVLX_EDEVICE also if nvlxi_grid_is_even of either side
     * says no. More than NVLXI_TIMES_MAX may be refused. */
    int (*copy_grid)(struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int destination_gpu, int source_gpu);
    /* Queues the copy kernel. Its lists are read until it is complete, the array of parts before the call returns. A
     * destination that is mapped read-only may cost the GPU's context, and a fragment that crosses a border may be
     * refused or copied: the caller sees to it that there is none. */
    int (*copy_kernel)(struct nvlxi_lane *lane, const struct nvlxi_kernel *kernel);
    /* Queues the kernel that copies blocks by id, by the rules of copy_kernel. The regions and the pairs are read until
     * it is complete, so are ids on the GPU. */
    int (*copy_blocks)(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel);
    /* NVLX_EINVAL: not all of the range is memory of this process on that GPU, which its kernels can read. */
    int (*ids_check)(struct nvlxi_device *device, int gpu, uint64_t address, uint64_t length);
    /* Queues the kernel that digests memory of the lane's GPU, whatever borders it crosses. The spans are read before
     * the call returns. The digests are written until it is complete. NVLX_ENOTSUP: the GPU has no kernels. Memory that
     * is not all there, or of another GPU, may be refused (NVLX_EDEVICE: the message names it), or cost the GPU's
     * context: the caller sees to it that there is none. */
    int (*digest)(struct nvlxi_lane *lane, const struct nvlxi_leaves *leaves);

    /* Queues a signal, and a wait until a count is reached (nvlxi_signal_reached). Whoever sees the count, on any GPU
     * or CPU, sees all that was queued in the lane before the signal; what is queued behind the wait sees it. Each
     * takes a place in the queue. Only a signal ends a wait, of any lane or process: memory that is waited for must
     * stay. The count lies in memory of the lane's GPU, own or mapped there. NVLX_EDEVICE, and nothing is queued, if
     * the address is no multiple of 8, is not known as memory, or is mapped read-only and the count is to be added to;
     * memory of another GPU may be refused. To set one that is mapped read-only may cost the GPU's context (measured:
     * cuStreamWriteValue64 takes it, then the launch fails): the caller sees to it that there is none. NVLX_ENOTSUP: to
     * add takes a kernel, as does any signal in memory of a pool, and the GPU has none; or a wait for a count in memory
     * of a pool (measured: CUDA 13.0 refuses it). */
    int (*signal)(struct nvlxi_lane *lane, const struct nvlxi_signal *signal);
    int (*await)(struct nvlxi_lane *lane, uint64_t address, uint64_t value);
    /* The same, by a kernel of one thread that also ends when the gate is reached. Both counts may be in any memory
     * that the lane's GPU can read, which must stay. NVLX_ENOTSUP: the GPU has no kernels. */
    int (*await_gated)(struct nvlxi_lane *lane, const struct nvlxi_gated *gated);
    /* The same, for graphs: what is awaited is computed when the lane comes to it. The gate is read from time to time,
     * and opens for good. NVLX_EDEVICE also for what is to be written, if it is mapped read-only. */
    int (*await_paced)(struct nvlxi_lane *lane, const struct nvlxi_paced *paced);
    /* Reads a count in memory of this process, as a CPU. Waits for nothing that is queued. */
    int (*signal_read)(struct nvlxi_device *device, uint64_t address, uint64_t *value);

    /* 0: everything queued in the lane by now is done; NVLX_EAGAIN (not logged): not yet; NVLX_EDEVICE: the device
     * failed. Does not block. */
    int (*lane_query)(struct nvlxi_lane *lane);

    /* Calls `function(argument)` once, when all that is queued in the lane by now is done. It is called by a thread of
     * the backend's, and not inside this call. It must be short, wait for nobody, and call no driver: what is queued in
     * the lane later begins after it. It takes a place in the queue. Once the device has failed, it may never be
     * called. After a failure it is not called. */
    int (*lane_call)(struct nvlxi_lane *lane, void (*function)(void *argument), void *argument);

    /* An event belongs to a GPU. It is complete until it is recorded; recording it again replaces the old point. */
    int (*event_create)(struct nvlxi_device *device, int gpu, struct nvlxi_event **event);
    void (*event_destroy)(struct nvlxi_event *event);
    int (*event_record)(struct nvlxi_lane *lane, struct nvlxi_event *event);
    /* 0: everything before the recorded point is done; NVLX_EAGAIN (not logged): not yet; NVLX_EDEVICE: the device
     * failed. Does not block. */
    int (*event_query)(struct nvlxi_event *event);
    /* What is queued later in the lane starts after the event. */
    int (*lane_wait)(struct nvlxi_lane *lane, struct nvlxi_event *event);

    /* The caller's stream. stream_find: NVLX_ENOTSUP if it cannot take part. The other two are called by the thread
     * that has found it, and not for one that captures: that could end the capture. */
    int (*stream_find)(struct nvlxi_device *device, void *handle, struct nvlxi_stream *stream);
    int (*stream_record)(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event);
    int (*stream_wait)(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event);
    /* The stream itself as a lane, for the same thread. stream_lane_end calls no driver, and leaves the stream as it
     * is. */
    int (*stream_lane)(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_lane **lane);
    void (*stream_lane_end)(struct nvlxi_lane *lane);
    /* Of a stream that captures a graph. What is queued in its lane is not done, but becomes a part of the graph, and
     * is done each time that the graph runs, in the order of the capture. Only copies within one GPU, and with host
     * memory, are queued there, kernels that copy, signals, and await_paced: all else could end the capture. What the
     * lane's functions read until a kernel is complete, they read until the graph is gone.
     *
     * stream_keep: `function(argument)` is called once, when the graph is gone, and all that were made from it, and
     * none of them runs. It is called by any thread, also inside other calls of the program. It must be short, take no
     * lock, and call no driver. After a failure it is not called. */
    int (*stream_keep)(struct nvlxi_device *device, const struct nvlxi_stream *stream, void (*function)(void *argument),
                       void *argument);
};

/* Each with what it has for the whole process. */
extern const struct nvlxi_device_ops nvlxi_device_host;
void nvlxi_device_host_fork(enum nvlxi_fork_phase phase);
#ifdef NVLXI_WITH_CUDA
extern const struct nvlxi_device_ops nvlxi_device_cuda;
void nvlxi_device_cuda_fork(enum nvlxi_fork_phase phase);
#endif

#endif
