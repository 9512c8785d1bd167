/* libnvlxfer: moves GPU memory between the processes of one node.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * This header is the manual. It has three parts: an introduction, simple use, advanced use.
 *
 * Introduction
 *
 * A process shares GPU memory by handing out a handle. CUDA's handle names a whole allocation, but the
 * tensors of an inference engine are carved out of allocations, at any offset. This library takes any
 * device pointer, finds the allocation under it (the segment), exports each segment once, and tells
 * peers where in it each registered range (the region) lies. A peer opens each segment once and adds the
 * offset back, so that every tensor arrives byte for byte.
 *
 *     process A (seed)                                process B (target)
 *     nvlx_engine_create                              nvlx_engine_create
 *     nvlx_register(tensor, "w0")                     nvlx_register(its own buffer)
 *     nvlx_export -> text      -- any channel -->     nvlx_peer_open(text)
 *                                                     nvlx_peer_find("w0") -> address, length
 *                                                     nvlx_transfer(read from address) -> request
 *                                                     nvlx_wait(request)
 *
 * The two lines in the middle are what nvlx_serve (A) and nvlx_connect (B) do over a Unix socket: B then learns of
 * later changes, and memory that is shared by file descriptor can be opened.
 *
 * Conventions of every function, said once
 *
 * - Returns 0 or a negative NVLX_E... code. Outputs come last and are written only on success.
 *   nvlx_last_error() then tells this thread's failure in full: the values, the cause, the driver's words. It is
 *   logged too: as a warning, but NVLX_EBACKEND at INFO, and NVLX_EAGAIN, NVLX_ETIMEDOUT, NVLX_EBUSY and NVLX_ENOENT,
 *   which a program asks for in order to know, at DEBUG.
 * - May be called from any thread, with any CUDA device current or none, also while another thread
 *   captures a CUDA graph. The current device and context of the caller are never changed.
 * - Every function may return NVLX_EINVAL (an argument is wrong), NVLX_ENOMEM (no host memory, address space, file
 *   descriptor or thread for it), NVLX_EDEVICE (the driver refused; its words are in nvlx_last_error), NVLX_ENOTSUP (an
 *   options struct longer than this library's sets a field that it does not know) and NVLX_EFORK (in a forked child,
 *   with an object of its parent's). Only the errors beyond these are listed at each function.
 * - Calls that may block say so. The others never wait for a GPU or for another process.
 * - An object passed to a function must be alive: nothing may use an object while another thread frees it.
 * - A child of fork may make an engine of its own: on the host backend, or on cuda if CUDA was not used before the
 *   fork. Each object of the parent gives NVLX_EFORK there. The child keeps no socket of the parent open. What would go
 *   to glog goes straight to stderr there. A child that _Fork or clone has made may only exec.
 * - The library never exits or aborts, prints nothing to stdout, installs no signal handler. The first nvlx_serve or
 *   nvlx_connect starts one thread an engine, "nvlx-service", with all signals blocked; the host backend starts one
 *   worker a lane. There are no other threads. Nothing survives nvlx_engine_destroy.
 * - Structs that callers fill begin with their size: set every field by the struct's init function first. It is
 *   compiled into the caller, so that a library with longer structs serves programs built with shorter ones. From other
 *   languages: zero the struct, set `size`, and region_options.access. A size that ends inside a field gives
 * NVLX_EINVAL. A NULL pointer to options means the defaults.
 * - Bounds and access rights protect from mistakes, not from malice: who holds a descriptor can open the whole
 *   segments that it names. Treat it as a secret.
 *
 * Limits of what an engine tells its peers
 *
 * - 2^20 regions in 2^18 segments, in a descriptor of 256 MiB of text. nvlx_register refuses what would pass them.
 * - A region counts with up to 60 bytes of text and its name, in which each " and \ takes two. A segment counts with up
 *   to 310. Private regions (NVLX_ACCESS_NONE), and those whose memory was freed, are not told and do not count.
 * - A region's name has at most 255 bytes, and an address to serve at 107.
 *
 * Everything here is there since version 0.1.0 unless it says otherwise.
 */
#ifndef NVLXFER_H
#define NVLXFER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#pragma GCC visibility push(default) /* the library itself is built with all else hidden */
#endif

#define NVLX_VERSION_MAJOR 0
#define NVLX_VERSION_MINOR 1
#define NVLX_VERSION_PATCH 0

/* "0.1.0": the version of the library that is running, which a program can compare with the macros above. */
const char *nvlx_version(void);

/* ---- Errors ------------------------------------------------------------------------------------------ */

#define NVLX_ERRORS(X)                                                                                                 \
    X(EINVAL, -1, "invalid argument")                                                                                  \
    X(ENOMEM, -2, "out of host memory")                                                                                \
    X(EDEVICE, -3, "the device driver reported an error")                                                              \
    X(EFORK, -4, "the engine belongs to the parent of this forked process")                                            \
    X(EAGAIN, -5, "not yet: try again")                                                                                \
    X(ETIMEDOUT, -6, "the time is over")                                                                               \
    X(EBUSY, -7, "in use, or as many as are allowed")                                                                  \
    X(ENOTSUP, -8, "not supported")                                                                                    \
    X(ERANGE, -9, "the address range is not registered, or not all of it")                                             \
    X(EACCES, -10, "this access is not granted")                                                                       \
    X(ENOENT, -11, "no such name")                                                                                     \
    X(EEXIST, -12, "the name is taken")                                                                                \
    X(EFORMAT, -13, "malformed")                                                                                       \
    X(EVERSION, -14, "of a version that this library does not know")                                                   \
    X(EBACKEND, -15, "the backend cannot run here, or the peer uses another one")                                      \
    X(ESTALE, -16, "outdated: the peer has withdrawn or replaced it, or is gone")

enum {
#define NVLX_ERROR_VALUE(name, value, text) NVLX_##name = (value),
    NVLX_ERRORS(NVLX_ERROR_VALUE)
#undef NVLX_ERROR_VALUE
        NVLX_OK = 0
};

/* A short text for a code, never NULL; valid for ever. */
const char *nvlx_strerror(int code);

/* The last failure of a call made by this thread, in full; "" if there was none. A call that succeeds leaves it as it
 * is. Valid until this thread's next failing call. A request that fails later keeps its own text: see
 * nvlx_request_get_info. */
const char *nvlx_last_error(void);

enum { NVLX_LOG_ERROR = 0, NVLX_LOG_WARNING = 1, NVLX_LOG_INFO = 2, NVLX_LOG_DEBUG = 3 };

typedef void (*nvlx_log_function)(void *context, int level, const char *message);

/* Where the process's log messages go: to `function` (called from any thread, maybe with a lock of the library held:
 * it must not call the library, nor wait for a thread that does), or with NULL to glog, which is the default. Messages
 * above `level` are dropped; the default level is NVLX_LOG_WARNING, or what the environment variable NVLX_LOG_LEVEL
 * says (0 to 3; anything else is told by a warning, once). glog is never initialised by this library: where they end up
 * is the program's choice. Handles are never logged. Waits until the function before this one has returned in every
 * thread: it is not called any more. NVLX_EBUSY: a log function itself called this. */
int nvlx_set_log(int level, nvlx_log_function function, void *context);

/* ---- Simple use -------------------------------------------------------------------------------------- */

struct nvlx_engine;  /* this process's instance of the library: backend, registrations, peers, transfers */
struct nvlx_region;  /* one registration of a byte range of local device memory */
struct nvlx_peer;    /* another process, as known from its descriptor */
struct nvlx_request; /* the completion of one transfer */

enum {
    NVLX_BACKEND_AUTO = 0, /* what the environment variable NVLX_BACKEND names, else cuda where a driver and a GPU
                              answer, else host: then a warning tells why it is not cuda, once a process */
    NVLX_BACKEND_CUDA = 1, /* NVIDIA GPUs */
    NVLX_BACKEND_HOST = 2  /* software GPUs in shared memory, NVLX_HOST_GPUS of them (default 2): for tests without a
                              GPU. Its cudaMalloc memory is shared only with processes of the same user, group and PID
                              namespace; to others a transfer gives NVLX_ENOTSUP. The other kinds have no such limit */
};

enum {
    NVLX_MECHANISM_DEFAULT = 0,     /* in options: what the engine's config says; in the config: auto */
    NVLX_MECHANISM_AUTO = 1,        /* by size, alignment and number: the fastest */
    NVLX_MECHANISM_COPY_ENGINE = 2, /* copy engines only: takes no SMs */
    NVLX_MECHANISM_KERNEL = 3       /* a copy kernel only. NVLX_ENOTSUP between two GPUs of one process, where only copy
                                       engines reach the other one, and on a GPU where no kernel could be loaded */
};

struct nvlx_config {
    size_t size;
    uint32_t backend;      /* NVLX_BACKEND_... */
    uint32_t max_requests; /* requests in flight at most; more are refused with NVLX_EBUSY. 0: 4096. Queues of the GPU
                              may be full before: see nvlx_transfer */
    const int *gpus;       /* GPUs (CUDA ordinals of this process) on which a context may be made; copied. NULL: only
                              those whose primary context is already active, now or later. The copy kernels of those
                              that are active later are loaded later: see nvlx_register */
    size_t gpu_count;      /* entries of `gpus`: one at least, if it is not NULL */
    uint32_t mechanism;    /* NVLX_MECHANISM_...: the default of transfers */
    uint32_t max_sms;      /* SMs of a GPU that a transfer's kernels may take together: the default of transfers. 0: 32
                              for reads, 64 for writes, from or to each GPU of the others, with which they fill NVLink
                              (two H100); 16 cost up to 9 % of that. Where it is 0, the kernels of a long list (three
                              to ten) overlap, and may take several times as many */
    size_t list_memory;    /* bytes of pinned host memory for lists of fragments, at most. A list needs 24 for each
                              piece that kernels carry (info.kernel_fragments), and up to 12 KiB and 0.1 % more; while
                              there is enough, it takes up to 768 KiB more for each GPU, peer's GPU and direction, and
                              for a moment twice as much. Transfers that find no room are refused with NVLX_EBUSY, and
                              the message tells how much the whole list needs. 0: 256 MiB. Taken as needed, 4 MiB at a
                              time, and kept for the next until nvlx_engine_destroy */
};

static inline void nvlx_config_init(struct nvlx_config *config) {
    memset(config, 0, sizeof *config);
    config->size = sizeof *config;
}

/* Makes an engine. May block while the driver starts (up to seconds) if `gpus` names GPUs without a context. Loads the
 * copy kernels for the GPUs named, or with NULL for those whose context is active. That waits for all that runs on
 * them. The caller destroys it. NVLX_EBACKEND: the backend asked for cannot run; the message has the cause.
 * NVLX_ENOTSUP: the kernel cannot tell forked children apart (Linux 4.14), or /proc does not tell who this process is.
 */
int nvlx_engine_create(const struct nvlx_config *config, struct nvlx_engine **engine);

/* Waits for every transfer in flight, then frees the engine with all its regions, peers, requests and memory from
 * nvlx_alloc. Blocks, also for running kernels. No other thread may be inside a call on this engine. Another engine of
 * this process that has it for a peer uses its memory itself: close that peer first, it is gone afterwards
 * (NVLX_ESTALE). The engine is gone whatever is returned, except for NVLX_EFORK. NULL is allowed. */
int nvlx_engine_destroy(struct nvlx_engine *engine);

/* "cuda" or "host": which backend the engine runs on. Never NULL; valid as long as the engine. */
const char *nvlx_backend_name(const struct nvlx_engine *engine);

/* The number of GPUs that a backend sees in this process; makes no context. NVLX_EBACKEND: it cannot run. */
int nvlx_gpu_count(uint32_t backend, int *count);

enum {
    NVLX_ALLOC_VMM = 1, /* virtual-memory-managed (cuMemCreate), shared by file descriptor: works across users,
                           containers and PID namespaces, and read-only where a region grants no more. Peers need the
                           rendezvous (nvlx_serve) */
    NVLX_ALLOC_POOL = 2 /* of a stream-ordered pool that can be shared (cudaMallocAsync), by file descriptor as well.
                           What a peer has mapped of it stays allocated until that process ends (CUDA 13.0) */
};

struct nvlx_alloc_options {
    size_t size;
    uint32_t flags;      /* NVLX_ALLOC_..., one at most; 0: cudaMalloc */
    size_t chunk_length; /* with NVLX_ALLOC_VMM: bytes of one chunk, rounded up to the GPU's granularity (2 MiB); 0: all
                            in one chunk */
};

static inline void nvlx_alloc_options_init(struct nvlx_alloc_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Allocates `length` > 0 bytes of memory on a GPU that can be registered and shared (cudaMalloc on cuda, unless the
 * options ask for another kind), for programs that have no allocator of their own. It is not registered yet. May block
 * (cudaMalloc), and for running kernels where nvlx_register would. Free it by nvlx_free. NVLX_ENOTSUP: the GPU has no
 * memory of this kind. NVLX_EDEVICE: among others, the GPU has not so much memory free; the message says "out of
 * memory". On the host backend that may also be NVLX_ENOMEM. */
int nvlx_alloc(struct nvlx_engine *engine, int gpu, size_t length, const struct nvlx_alloc_options *options,
               void **address);

/* Frees memory from nvlx_alloc of this engine; NULL is allowed. Unregister its regions first or after: before the
 * memory goes, all of them are withdrawn. Peers that follow this engine are told at once; own ops on it get
 * NVLX_ERANGE. Peers should have closed it. Waits for running kernels if it is cudaMalloc memory (cudaFree); of the
 * other kinds, none may use it any more. NVLX_EBUSY: an own transfer in flight, or a prepared list, uses it; those of
 * another engine in this process are not seen. */
int nvlx_free(struct nvlx_engine *engine, void *address);

/* Copies `length` bytes between local memory, each side host memory or device memory of this process, and waits for it.
 * A side in device memory lies in one allocation, or in chunks that lie back to back in one reservation. A convenience
 * to fill and to check buffers; blocks. NVLX_EINVAL: the sides overlap and are not the same. NVLX_ERANGE: a side leaves
 * its allocation. */
int nvlx_memcpy(struct nvlx_engine *engine, void *destination, const void *source, size_t length);

enum {
    NVLX_ACCESS_NONE = 0,  /* private: only this process's transfers use the region */
    NVLX_ACCESS_READ = 1,  /* peers may read */
    NVLX_ACCESS_WRITE = 2, /* peers may write */
    NVLX_ACCESS_READ_WRITE = 3
};

struct nvlx_region_options {
    size_t size;
    const char *name; /* by which peers find it: UTF-8, 1 to 255 bytes, unique in the engine; copied. NULL: none */
    uint32_t access;  /* NVLX_ACCESS_...; the default is NVLX_ACCESS_READ_WRITE */
};

static inline void nvlx_region_options_init(struct nvlx_region_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->access = NVLX_ACCESS_READ_WRITE;
}

/* Registers [address, address + length), any range of one allocation of shareable device memory, or of adjacent chunks
 * of virtual-memory management; `length` 0 gives a region that only has a name. A range may be registered many times:
 * each registration is its own region. Local sides of transfers must be registered too. The memory stays the caller's.
 * Costs about a microsecond, more for the first region of a segment; transfers do not wait for it. The first region on
 * a GPU whose context was made after the engine loads the copy kernels there. That waits for all that runs on the GPU.
 * To avoid it, name the GPU in config.gpus, or make its context before the engine. NVLX_ENOTSUP: memory that cannot be
 * shared (host, managed, a pool or chunk without a shareable handle type); the message says what was found and what to
 * use. NVLX_ERANGE: the range leaves its allocation. NVLX_EEXIST: the name is taken. NVLX_EBUSY: with it, more would be
 * told to peers than a descriptor holds (see Limits). */
int nvlx_register(struct nvlx_engine *engine, const void *address, size_t length,
                  const struct nvlx_region_options *options, struct nvlx_region **region);

/* Drops this one registration, no other, and frees the region; works also after the memory was freed. Waits at most
 * `timeout_ns` (< 0: for ever, 0: not at all) for own transfers in flight that touch any of its bytes, and no others.
 * NVLX_EBUSY: they are still in flight, or, at once, a prepared list touches some; the region stays. Peers keep what
 * they have mapped: agree with them first, and send them a new descriptor (nvlx_peer_update). */
int nvlx_unregister(struct nvlx_region *region, int64_t timeout_ns);

/* Writes this engine's descriptor: JSON, UTF-8, without line breaks, `length` bytes plus a final NUL. It lists all
 * regions that grant peers something; private ones are not told. Segments whose memory was freed in the meantime are
 * left out with a warning. Free the text by nvlx_text_free. */
int nvlx_export(struct nvlx_engine *engine, char **text, size_t *length);
void nvlx_text_free(char *text);

/* Makes a peer from the text of its descriptor (not necessarily NUL-terminated), which may come by any channel and is
 * not trusted. Opens nothing yet. A process may be a peer of itself. NVLX_EFORMAT, NVLX_EVERSION, NVLX_EBACKEND,
 * NVLX_ENOTSUP (of another machine, or from before a restart of this one): the message tells where and why. */
int nvlx_peer_open(struct nvlx_engine *engine, const char *text, size_t length, struct nvlx_peer **peer);

/* The address range of the peer's region of this name. The address is the peer's own and only means something in ops
 * for this peer. NVLX_ENOENT: there is none. */
int nvlx_peer_find(struct nvlx_peer *peer, const char *name, uint64_t *address, uint64_t *length);

/* Forgets a peer and closes its mappings. Waits for transfers in flight with this peer (no other thread may be
 * submitting one); on cuda closing waits for running kernels, unrelated ones too. NULL is allowed. The peer's process
 * may long be gone: until this call its memory stays allocated. NVLX_EBUSY: a prepared list names the peer. */
int nvlx_peer_close(struct nvlx_peer *peer);

enum {
    NVLX_OP_READ = 1, /* from the peer's `remote` to `local` */
    NVLX_OP_WRITE = 2 /* from `local` to the peer's `remote` */
};

struct nvlx_op {
    uint32_t opcode; /* NVLX_OP_... */
    uint32_t flags;  /* must be 0 */
    struct nvlx_peer *peer;
    void *local;     /* registered in this engine */
    uint64_t remote; /* an address of the peer: what nvlx_peer_find gave, plus an offset */
    uint64_t length; /* bytes; an op of 0 bytes is accepted and moves nothing, whatever its addresses */
    uint64_t arg;    /* must be 0 */
};

enum {
    NVLX_NO_MAP = 1 /* fail with NVLX_EAGAIN rather than open a mapping within the call */
};

/* CUDA's two default streams, for nvlx_transfer_options.stream (the values of cudaStreamLegacy and
 * cudaStreamPerThread). */
#define NVLX_STREAM_LEGACY     ((void *)0x1)
#define NVLX_STREAM_PER_THREAD ((void *)0x2)

struct nvlx_transfer_options {
    size_t size;
    uint32_t flags; /* NVLX_NO_MAP */
    void *stream; /* a CUDA stream (cudaStream_t) of the caller, in whose order the transfer takes its place: it starts
                     after the work that is in the stream, and later work in the stream starts after it. No CPU waits.
                     What waits are kernels, if the mechanism is auto and they can: they hold up no other transfer.
                     Copies by engines that wait may hold up other such copies between GPUs where many are under way
                     at a time, as those of CUDA's own calls do. NULL: no order, and the sources' content must be
                     complete before the call */
    uint32_t mechanism; /* NVLX_MECHANISM_... */
    uint32_t max_sms;   /* SMs of each local GPU that the copy kernels of the list may take, all together; 0:
                           config.max_sms. Kernels of several peers or directions share them, and take turns if they are
                           too few */
    int32_t priority;   /* of the streams that carry it, as cudaStreamCreateWithPriority has it: lower is more urgent;
                           what the device does not have is taken as the nearest that it has. What goes into `stream`
                           has that one's */
};

static inline void nvlx_transfer_options_init(struct nvlx_transfer_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Starts a list of copies; they may mix peers, GPUs, reads and writes. All ops are checked, and all segments mapped,
 * before the first copy starts: all are accepted, or none is and the message names the op. After 0 the request tells
 * what becomes of them. Ops are unordered among each other: what two of them write, or one writes and another reads,
 * ends with undefined content. An op may lie in adjacent regions, whatever allocations they are in. `ops` may be reused
 * at once. The first use of a peer's segment maps it (milliseconds; where it takes file descriptors, the peer's process
 * is asked for them, and given 10 s for each answer), unless NVLX_NO_MAP is set. The caller frees the request.
 * NVLX_EINVAL: an op has wrong fields, or, if its peer is this process itself, its source and destination overlap and
 * are not the same. NVLX_ERANGE, NVLX_EACCES: an op leaves the registered regions, here or there, or they do not grant
 * its direction. NVLX_ENOTSUP: the peer's segment is of a kind that cannot be opened, or takes a file descriptor and
 * its process does not serve; or NVLX_MECHANISM_KERNEL, where no kernel can copy; or `stream` is capturing a graph, or
 * not of a GPU of this engine (the host backend takes none). NVLX_EAGAIN: NVLX_NO_MAP and not mapped. NVLX_EBUSY:
 * config.max_requests are in flight, config.list_memory is taken, or a peer from nvlx_peer_open has as many connections
 * as it allows; or the call would have to wait for a full queue of the GPU, see below. NVLX_ESTALE: the peer withdrew
 * the segment, or is known to be gone (nvlx_peer_test): nothing is read from it or sent to it any more; or memory of
 * this process itself was freed. NVLX_ETIMEDOUT: it does not give out the file descriptors, or changes its segments
 * faster than they can be mapped.
 *
 * What is not complete takes places in queues of the GPU: one for each copy by an engine, a few for all that kernels
 * carry. On each GPU of a process, 512 of them may wait for streams, of 64 streams of other GPUs at a time. A list
 * with more copies is carried by kernels if its mechanism is auto and they can, else refused, unless the stream has
 * nothing to do. Without a stream, 2,000 may be under way for each direction to each GPU; a list with more engine
 * copies is accepted where nothing else is under way, and the call then takes as long as most of them. What the program
 * itself puts into its streams takes places too: a stream that this has filled makes the call wait, as any call of
 * CUDA's. */
int nvlx_transfer(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_request **request);

/* 0: complete, every byte is in place and visible to every later CUDA call of either process. NVLX_EAGAIN: not yet.
 * Else how it failed, with the cause in nvlx_last_error. Repeatable; any number of threads may ask at the same time. */
int nvlx_test(struct nvlx_request *request);

/* As nvlx_test, but waits up to `timeout_ns` (< 0: for ever). NVLX_ETIMEDOUT: still in flight; wait again. */
int nvlx_wait(struct nvlx_request *request, int64_t timeout_ns);

/* Frees a request. One in flight is not cancelled: the call waits for it. NULL is allowed. Returns how the transfer
 * ended. */
int nvlx_request_free(struct nvlx_request *request);

struct nvlx_serve_options {
    size_t size;
    const uint32_t *users; /* user ids that may connect, beside this process's own effective user; copied */
    size_t user_count;
    const uint32_t *groups; /* group ids, one of which a process must have, supplementary or not; copied */
    size_t group_count;
    uint32_t mode; /* of the socket file. 0: 0600, or 0666 where users or groups are named. Whoever passes it must
                      also be one of the above, by the kernel's word on who connects */
    uint32_t max_connections; /* more are refused with NVLX_EBUSY. 0: 64. At most 65536. A peer that follows this engine
                                 takes one. One from nvlx_peer_open takes one for moments, while it maps memory that
                                 takes file descriptors */
};

static inline void nvlx_serve_options_init(struct nvlx_serve_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Serves this engine's descriptor, its changes, and the file descriptors of its shared memory at an address of this
 * node: an absolute path, where a socket file is made, or "@name" in the abstract namespace (which ends at the network
 * namespace, and has no file mode); at most 107 bytes of UTF-8. Descriptors written from now on, by nvlx_export too,
 * name the address, so that peers made by nvlx_peer_open can fetch file descriptors as well. Once an engine; it ends
 * with the engine, and the socket file is removed. A socket file that a killed process left is replaced. Changes reach
 * peers within milliseconds, later where the descriptor is long: after a change, it is written again at most once in
 * ten times the time that this takes. Who is mapping hears of them when it is done. File descriptors that are given out
 * and not received yet count against the user's RLIMIT_NOFILE: this engine has at most half of that under way, and
 * waits where others have used it up. The thread that serves also closes what peers of this engine have withdrawn,
 * which on cuda waits for running kernels: meanwhile nobody is served, and whoever fetches file descriptors waits, 10
 * seconds at most. May block for up to a second if others are about to serve in the same folder, or at the same
 * "@name". NVLX_EEXIST: another engine serves there, the path is no socket, or this engine serves already.
 * NVLX_EACCES: the folder does not let it. NVLX_ENOENT: it is not there, or its path is a loop of links. NVLX_ENOMEM:
 * its disk is full, or too many files are open. NVLX_EBUSY: others keep the folder locked. */
int nvlx_serve(struct nvlx_engine *engine, const char *address, const struct nvlx_serve_options *options);

/* Makes a peer of the engine that serves at `address`, ready for use; what it registers and unregisters from now on is
 * known here without asking. A name may therefore vanish between two calls: then NVLX_ENOENT, NVLX_ERANGE or
 * NVLX_ESTALE, as after nvlx_peer_update. Blocks up to `timeout_ns` (< 0: for ever, 0: asks once), also while nobody
 * serves there yet, or a server ends before its descriptor is whole: processes may start in any order. A server that is
 * there is waited for beyond that: 1 s for its answer, then 10 s for each next byte of its descriptor. So short
 * timeouts in a loop work too. The caller closes the peer (nvlx_peer_close). NVLX_ETIMEDOUT: nobody serves, or does not
 * answer. NVLX_EACCES: this user may not connect. NVLX_EBUSY: the server has as many connections as it allows.
 * NVLX_EVERSION: it speaks another major version of the protocol. NVLX_ENOENT: the path leads through what is no
 * folder. NVLX_EINVAL, at once: what is there is a file or a folder, no socket. Else as nvlx_peer_open, or why the
 * server cannot write its descriptor. */
int nvlx_connect(struct nvlx_engine *engine, const char *address, int64_t timeout_ns, struct nvlx_peer **peer);

/* Whether the peer is alive, as far as known; does not block. NVLX_ESTALE: the connection that nvlx_connect made has
 * ended, and the message says why: its process is gone, its engine was destroyed, or it dropped this one, which did not
 * read for 30 s. Or what changed there cannot be told here: it is more than a descriptor holds, or there is no memory
 * for it, which is tried for 3 s. From then on nvlx_transfer, nvlx_prepare, nvlx_post, nvlx_peer_map and
 * nvlx_peer_update give NVLX_ESTALE for this peer, and issue nothing. What is in flight ends as it does. The peer's
 * memory stays mapped until nvlx_peer_close. A process restarted at the address is a new peer: connect again. Of a peer
 * from nvlx_peer_open nothing is known: 0; except of an engine of this process itself, once it was destroyed. */
int nvlx_peer_test(struct nvlx_peer *peer);

/* ---- Advanced use ------------------------------------------------------------------------------------ */

/* Replaces what is known of a peer by a newer descriptor of the same engine, atomically. Segments that it still lists
 * stay mapped, except chunks (NVLX_ALLOC_VMM) where it changes which of them regions join, or whether any region
 * grants writing: these are mapped again, and count as withdrawn for prepared lists; those withdrawn are refused from
 * now on and closed, or, if transfers in flight use them, at the next update or at nvlx_peer_close. The same generation
 * again changes nothing. A peer of nvlx_connect needs none of this, and takes it: the newest of what comes either way
 * counts. May wait for running kernels if something is closed. NVLX_ESTALE: the text is older than what
 * is known, or of another engine (the process has restarted: open it as a new peer), or the peer is gone. Errors as
 * nvlx_peer_open; the peer then stays as it was.
 */
int nvlx_peer_update(struct nvlx_peer *peer, const char *text, size_t length);

/* Maps the peer's segments under [address, address + length) on a local GPU ahead of the first transfer. Milliseconds,
 * or as long as the peer takes to give out file descriptors. May wait for running kernels where nvlx_register would.
 * Errors as nvlx_transfer. */
int nvlx_peer_map(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length);

struct nvlx_prepared; /* a list that was checked and relocated once, to be posted many times */

/* Checks, maps and relocates a list once, as nvlx_transfer does, for lists that are copied again and again, such as the
 * layout of a KV cache. Starts nothing. What the list names stays pinned until the object is freed: its regions cannot
 * be unregistered (NVLX_EBUSY), its peers' mappings stay, and its list takes some of config.list_memory.
 * options->stream must be NULL. Errors as nvlx_transfer. Free it by nvlx_prepared_free. */
int nvlx_prepare(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                 const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared);

/* Starts all copies of a prepared list; costs a launch or a few, whatever the number of ops. `options` may name a
 * stream; its flags, mechanism, max_sms and priority must be 0: they were chosen by nvlx_prepare. May be posted again
 * before the last post is complete. NVLX_ESTALE: a peer has withdrawn a segment of the list since (prepare it
 * again), or is known to be gone; nothing is issued. NVLX_EBUSY, NVLX_ENOTSUP: as nvlx_transfer. */
int nvlx_post(struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
              struct nvlx_request **request);

/* Waits for its posts in flight, and frees it. Their requests stay the caller's. NULL is allowed. */
int nvlx_prepared_free(struct nvlx_prepared *prepared);

struct nvlx_request_info {
    size_t size;
    int32_t status;                          /* as nvlx_test would return */
    uint32_t sms;                            /* that its kernels take at most, all together, on one GPU; where max_sms
                                                is 0, without what overlaps. 0: no kernel carries any of it */
    uint64_t ops;                            /* entries of the caller's list */
    uint64_t bytes;                          /* that the list moves */
    uint64_t submit_ns;                      /* time spent in nvlx_transfer or nvlx_post */
    uint64_t elapsed_ns;                     /* from the call until completion was first seen; 0 while in flight */
    uint64_t engine_bytes, engine_fragments; /* what copy engines carry, after planning: adjacent ops are joined */
    uint64_t kernel_bytes, kernel_fragments; /* what kernels carry, longer ones cut into pieces */
    char error[256];                         /* how it failed, in the driver's words; "" if it did not */
};

/* Tells about a request, in flight or complete. `info->size` must be set to sizeof *info; the struct is filled. */
int nvlx_request_get_info(struct nvlx_request *request, struct nvlx_request_info *info);

struct nvlx_engine_info {
    size_t size;
    uint64_t segments;         /* held now */
    uint64_t regions;          /* registered now */
    uint64_t handles_exported; /* since the engine was made: one a segment */
    uint64_t mappings;         /* of peers' segments, open now */
    uint64_t requests;         /* in flight, as far as anybody has asked: those not seen complete count */
};

/* Counts of what the engine holds. `info->size` must be set to sizeof *info; the struct is filled. */
int nvlx_engine_get_info(struct nvlx_engine *engine, struct nvlx_engine_info *info);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
