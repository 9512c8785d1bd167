/* libnvlxfer: moves GPU memory between the processes of one node.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * This header is the manual. It has three parts:
 * - the introduction: what the library does, and what holds for every function,
 * - simple use: all that a first program needs, such as examples/quickstart.c,
 * - advanced use: waiting, limits, backends, kinds of memory, host memory, users, the life of a peer, sleep. Then
 *   messages, events, streams, rows, signals, readiness, graphs, mechanisms, budgets, mapping ahead. Then prepared
 *   lists, blocks, digests, relays, counts, metrics, the log.
 *
 * Introduction
 *
 * A process shares GPU memory by handing out a handle. CUDA's handle names a whole allocation (measured). The tensors
 * of an inference engine lie inside allocations, at any offset. This library takes any device pointer and finds the
 * allocation under it: the segment. It exports each segment once. A registered range is called a region. Peers are told
 * its offset in the segment. A peer opens each segment once and adds the offset, so every tensor arrives byte for byte.
 *
 *     process A (seed)                                process B (target)
 *     nvlx_engine_create                              nvlx_engine_create
 *     nvlx_register(tensor, "w0")                     nvlx_register(its own buffer)
 *     nvlx_export -> text      -- any channel -->     nvlx_peer_open(text)
 *                                                     nvlx_peer_find("w0") -> address, length
 *                                                     nvlx_transfer(read from address) -> request
 *                                                     nvlx_wait(request)
 *
 * The third line can also be nvlx_serve (A) and nvlx_connect (B), over a Unix socket. B then learns of later changes,
 * and can open memory that is shared by file descriptor.
 *
 * Facts about CUDA name NVIDIA's document, or are measured: on H100 or H200, with driver 580 and CUDA 13.0. Everything
 * here is there since version 0.1.0 unless it says otherwise.
 *
 * What holds for every function
 *
 * - Results. A function returns 0 or a negative NVLX_E... code. Outputs come last. They are written only on success,
 *   unless the function's comment says otherwise.
 * - Errors. "Errors:" lists the codes of a function beyond these, which every function may return:
 *     NVLX_EINVAL   an argument is wrong
 *     NVLX_ENOMEM   no host memory, address space, file descriptor or thread is left; never a full GPU of cuda
 *     NVLX_EDEVICE  the driver refused; nvlx_last_error has its words. A full GPU is this one ("out of memory")
 *     NVLX_ENOTSUP  an options struct is longer than this library's, and sets a field that the library does not know
 *     NVLX_EFORK    the object belongs to the parent of this forked process
 * - After a failure. The engine stays usable, and every object is as it was before the call, unless the call's comment
 *   says otherwise. A transfer that failed harms no other one. Only this lasts:
 *     NVLX_EDEVICE  if a kernel of this process broke its CUDA context (an illegal address, a trap). All that needs
 *                   the GPU then fails until the process ends. Objects can still be freed. Other processes go on.
 *     NVLX_ESTALE   if the peer is gone: see nvlx_peer_test. Close it. Its successor is a new peer.
 *     NVLX_EFORK    in this process. Its own engine, if it makes one, is not concerned.
 * - Threads. Any thread may call, with any CUDA device current or none, also while another thread captures a graph. The
 *   caller's current device and context never change.
 * - Objects. An object passed to a function must be alive: no thread may use it while another one frees it, or later.
 *   Some calls notice that, none promises to. NULL in place of an object to free is allowed, except for
 *   nvlx_unregister, which gives NVLX_EINVAL.
 * - Structs. A struct that the caller fills begins with its size. Its init function sets every field: call it first.
 *   NULL in place of options means the defaults.
 * - Versions. The init functions are compiled into the caller. So a library with longer structs serves programs that
 *   were built with shorter ones. From other languages: zero the struct, then set `size`, and where they are
 *   region_options.access, blocks_options.access, block_ids.opcode and block_ids.width. A size that ends inside a field
 *   gives NVLX_EINVAL.
 * - Process. The library never exits or aborts. It prints nothing to stdout and installs no signal handler.
 * - Its threads. The first nvlx_serve or nvlx_connect of an engine starts one thread, "nvlx-service". The first
 *   transfer with a message or NVLX_DONE_EVENT starts "nvlx-notice". The first nvlx_stream_wait, or list that waits,
 *   starts "nvlx-waits". The host backend starts one worker for each lane. What a peer has withdrawn is closed by
 *   "nvlx-close" and "nvlx-close-wait". "nvlx-files" makes the process's table of open files larger, some milliseconds
 *   at a time: meanwhile it may duplicate a file. All block all signals, except those of a crash, and end with
 *   nvlx_engine_destroy. A relay has "nvlx-relay" and "nvlx-relay-sum", and those of its engine, until nvlx_relay_free.
 * - Fork. An object of the parent gives NVLX_EFORK in the child. The child may make an engine of its own. If CUDA was
 *   used before the fork, the cuda backend gives NVLX_EBACKEND in the child: exec or spawn such a process. The child
 *   keeps no socket of the parent open. A child made by _Fork or clone may only exec.
 * - Waiting. Advanced use begins with the list of all calls that can wait for a GPU or another process. The others do
 *   not.
 * - Limits. Most are listed there too, the others at their call. A call that is refused for a limit tells which.
 * - Safety. Bounds and access rights protect from mistakes, not from malice. Who holds a descriptor can open the whole
 *   segments that it names. Treat it as a secret.
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

/* ==== Simple use ====================================================================================== */

/* ---- Version and errors ------------------------------------------------------------------------------ */

#define NVLX_VERSION_MAJOR 0
#define NVLX_VERSION_MINOR 1
#define NVLX_VERSION_PATCH 0

/* "0.1.0": the version of the library that runs. The macros belong to the header that the program was built with. */
const char *nvlx_version(void);

/* How that library was built, and its limits: words "key=value", with a blank between two. It is for people, bug
 * reports and tools such as nvlx_info. Keys may be added. Among them: "cuda" is the version of CUDA that it was built
 * with, or "none"; "protocol" and "descriptor" are the versions of what travels to peers. Never NULL, valid for ever.
 */
const char *nvlx_build_info(void);

#define NVLX_ERRORS(X)                                                                                                 \
    X(EINVAL, -1, "invalid argument")                                                                                  \
    X(ENOMEM, -2, "out of host memory")                                                                                \
    X(EDEVICE, -3, "the device driver reported an error")                                                              \
    X(EFORK, -4, "the engine belongs to the parent of this forked process")                                            \
    X(EAGAIN, -5, "not yet: try again")                                                                                \
    X(ETIMEDOUT, -6, "the time is over")                                                                               \
    X(EBUSY, -7, "in use, or as many as are allowed")                                                                  \
    X(ENOTSUP, -8, "not supported")                                                                                    \
    X(ERANGE, -9, "out of range: not all of it is registered, or there is no such id")                                 \
    X(EACCES, -10, "this access is not granted")                                                                       \
    X(ENOENT, -11, "not found")                                                                                        \
    X(EEXIST, -12, "it is there already")                                                                              \
    X(EFORMAT, -13, "malformed")                                                                                       \
    X(EVERSION, -14, "of a version that this library does not know")                                                   \
    X(EBACKEND, -15, "the backend cannot run here, or the peer uses another one")                                      \
    X(ESTALE, -16, "outdated: withdrawn, replaced or freed, or the peer is gone")                                      \
    X(EDIGEST, -17, "the bytes are not those that the peer's digest tells")                                            \
    X(ESUSPENDED, -18, "the memory sleeps: its owner has suspended it")

enum {
#define NVLX_ERROR_VALUE(name, value, text) NVLX_##name = (value),
    NVLX_ERRORS(NVLX_ERROR_VALUE)
#undef NVLX_ERROR_VALUE
        NVLX_OK = 0
};

/* A short text for a code, which begins with its name: "NVLX_ENOENT: ...". Never NULL, valid for ever. */
const char *nvlx_strerror(int code);

/* The last failure of a call by this thread, in full: the values, the cause, the driver's words. "" if there was none.
 * A call that succeeds leaves it as it is. Valid until this thread's next failing call. */
const char *nvlx_last_error(void);

/* ---- Engine ------------------------------------------------------------------------------------------ */

struct nvlx_engine;  /* this process's instance of the library: backend, registrations, peers, transfers */
struct nvlx_region;  /* one registration of a byte range of local memory */
struct nvlx_peer;    /* another process, as known from its descriptor */
struct nvlx_request; /* the completion of one transfer */

struct nvlx_config {
    size_t size;
    uint32_t backend;      /* NVLX_BACKEND_...: see Backends */
    uint32_t max_requests; /* see Budgets */
    const int *gpus;       /* the only GPUs (CUDA ordinals of this process) that the engine uses; copied. It makes their
                              contexts. NULL: each GPU whose primary context is active when a call first needs it.
                              nvlx_alloc and nvlx_peer_map make the context of the GPU that they name */
    size_t gpu_count;      /* entries of `gpus`: at least one, unless that is NULL */
    uint32_t mechanism;    /* NVLX_MECHANISM_...: see Mechanisms */
    uint32_t max_sms;      /* see Budgets */
    size_t list_memory;    /* see Budgets */
};

static inline void nvlx_config_init(struct nvlx_config *config) {
    memset(config, 0, sizeof *config);
    config->size = sizeof *config;
}

/* Makes an engine. The caller destroys it. A process may have several.
 * Errors: NVLX_EBACKEND (the backend cannot run; the message has the cause),
 *         NVLX_ENOTSUP (Linux is older than 4.14, or /proc does not tell who this process is). */
int nvlx_engine_create(const struct nvlx_config *config, struct nvlx_engine **engine);

/* Waits for every transfer in flight, and up to 1 s for peers to take messages. Then frees the engine with its regions,
 * peers, requests, prepared lists, and memory from nvlx_alloc. No other thread may be inside a call on this engine. The
 * engine is gone whatever is returned, except for NVLX_EFORK and NVLX_EBUSY. If another engine of this process has this
 * engine as a peer, close that peer first: it uses the memory directly, without a mapping. It does not wait for
 * processes that have mapped memory of this engine: nvlx_unregister does, before. Errors: NVLX_ETIMEDOUT (peers have
 * not taken all messages: the last to them may be lost), NVLX_EBUSY (a CUDA graph has a part of this engine: nothing
 * has changed. See Graphs). */
int nvlx_engine_destroy(struct nvlx_engine *engine);

/* ---- Memory ------------------------------------------------------------------------------------------ */

/* Options of an allocation. None is needed: see Kinds of memory. */
struct nvlx_alloc_options {
    size_t size;
    uint32_t flags;      /* one of NVLX_ALLOC_..., or 0: cudaMalloc */
    size_t chunk_length; /* with NVLX_ALLOC_VMM and NVLX_ALLOC_HOST: bytes of one chunk. 0: one chunk for all */
};

static inline void nvlx_alloc_options_init(struct nvlx_alloc_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Allocates `length` > 0 bytes on a GPU, of a kind that can be registered and shared. It is for programs without an
 * allocator of their own. The memory is not registered yet. Free it by nvlx_free. Where this process has no context on
 * the GPU yet, the call makes one. That takes hundreds of MiB of the GPU, until nvlx_engine_destroy.
 * Errors: NVLX_EDEVICE (the GPU is full, among others; the host backend may also say NVLX_ENOMEM),
 *         NVLX_ENOTSUP (the GPU has no memory of this kind),
 *         NVLX_EINVAL (also: config.gpus does not allow the GPU). */
int nvlx_alloc(struct nvlx_engine *engine, int gpu, size_t length, const struct nvlx_alloc_options *options,
               void **address);

/* Frees memory from nvlx_alloc of this engine. It first withdraws all regions in it. They may be unregistered before or
 * after. Peers that follow this engine are told at once. Own ops on it get NVLX_ERANGE from then on. Peers must have
 * closed it before: call nvlx_unregister until it gives 0. Kernels that use it must have ended: the call waits for them
 * only if it is cudaMalloc memory. Errors: NVLX_EBUSY (this engine uses it: in a transfer in flight, an nvlx_digest, a
 * prepared list, blocks, a CUDA graph, a stream's wait, or the read of a count. What others do is not seen). */
int nvlx_free(struct nvlx_engine *engine, void *address);

/* Copies `length` bytes within this process, and waits for it: to fill and to check buffers. Each side is host memory
 * or device memory. A side in device or pinned host memory lies in one allocation, or in chunks back to back in one
 * reservation.
 * Errors: NVLX_EINVAL (the sides overlap and are not the same), NVLX_ERANGE (a side leaves its allocation). */
int nvlx_memcpy(struct nvlx_engine *engine, void *destination, const void *source, size_t length);

/* ---- Regions ----------------------------------------------------------------------------------------- */

enum {
    NVLX_ACCESS_NONE = 0,  /* private: only this process's transfers use the region */
    NVLX_ACCESS_READ = 1,  /* peers may read */
    NVLX_ACCESS_WRITE = 2, /* peers may write */
    NVLX_ACCESS_READ_WRITE = 3
};

struct nvlx_region_options {
    size_t size;
    const char *name; /* by which peers find it; copied. UTF-8 without control characters, unique among the regions of
                         the engine, private ones too. NULL: no name */
    uint32_t access;  /* NVLX_ACCESS_...; the default is NVLX_ACCESS_READ_WRITE */
    void *ready;      /* for nvlx_region_ready: a count of this process. NULL: none. See Readiness */
};

static inline void nvlx_region_options_init(struct nvlx_region_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->access = NVLX_ACCESS_READ_WRITE;
}

/* Registers [address, address + length): any range of one allocation, or of adjacent chunks of virtual-memory
 * management. Pinned host memory can be registered with NVLX_ACCESS_NONE, as the local side: see Host memory. Local
 * sides of transfers must be registered too. A range may be registered many times: each registration is a region of its
 * own. `length` 0 gives a region that only has a name. The memory stays the caller's. This costs about a microsecond,
 * more for the first region of a segment. Transfers do not wait for it.
 * Errors: NVLX_ENOTSUP (memory that cannot be shared: the message says what it is, and what to use),
 *         NVLX_ERANGE (the range leaves its allocation), NVLX_EINVAL (also: it wraps around),
 *         NVLX_EEXIST (the name is taken),
 *         NVLX_EBUSY (peers would be told more than a descriptor holds: see Limits). */
int nvlx_register(struct nvlx_engine *engine, const void *address, size_t length,
                  const struct nvlx_region_options *options, struct nvlx_region **region);

/* Withdraws this one registration at once, no other. It then waits at most `timeout_ns` (< 0: for ever, 0: not at all)
 * until nobody uses it, and frees the region. It works also after the memory was freed.
 * - It waits for own transfers and nvlx_digest in flight that touch bytes of the region.
 * - It waits for the peers that follow this engine (nvlx_connect) and know the region. Each must know that it is gone,
 *   have no transfer in flight that began before, and have closed what no region is left in.
 * - So after 0 the memory may be changed. After the last region of an allocation it may be freed. To free cudaMalloc
 *   memory that another process still has open is undefined (NVIDIA: CUDA Runtime API, cudaIpcOpenMemHandle).
 * - A peer that dies is not waited for any more. One that is stopped is, also when it was cut off (see Limits). A peer
 *   whose connection ends first lets its transfers end, and closes its mappings. Until then it is waited for.
 * - Peers that were made from a text (nvlx_peer_open) cannot say what they hold: agree with them by other means.
 * - A follower's transfers on the region give NVLX_ERANGE, its prepared lists NVLX_ESTALE. If another region takes the
 *   place of this one, its prepared lists still do. Its transfers give NVLX_ESTALE then, if they tell a generation.
 * Errors: NVLX_ETIMEDOUT (somebody still uses it: the message says who, and for how long it has known. The region stays
 *         withdrawn: call again), NVLX_EBUSY (at once: a prepared list or blocks of this engine use it. The region
 *         stays). */
int nvlx_unregister(struct nvlx_region *region, int64_t timeout_ns);

/* ---- Peers ------------------------------------------------------------------------------------------- */

/* Writes this engine's descriptor: JSON, UTF-8, without line breaks, `length` bytes and a final NUL. It lists all
 * regions that grant peers something. It leaves out segments whose memory was freed, with a warning. Exporting orders
 * nothing: what is to be read must be complete before the reader starts. Free the text by nvlx_text_free.
 * Errors: NVLX_EBUSY (changes are held back: see nvlx_hold). */
int nvlx_export(struct nvlx_engine *engine, char **text, size_t *length);
void nvlx_text_free(char *text);

/* Makes a peer from the text of its descriptor, which may come by any channel. The text needs no final NUL. It is
 * checked, not trusted. Nothing is opened yet. A process may be a peer of itself. The caller closes the peer.
 * Errors: NVLX_EFORMAT (malformed: the message tells where), NVLX_EVERSION (of another major version),
 *         NVLX_EBACKEND (of another backend),
 *         NVLX_ENOTSUP (the descriptor is from another machine, or from before this machine was rebooted). */
int nvlx_peer_open(struct nvlx_engine *engine, const char *text, size_t length, struct nvlx_peer **peer);

/* The address range of the peer's region of this name. The address is the peer's own: it only means something in ops
 * for this peer. Of a region that sleeps, it is where the region was: see Sleep. Of a peer that is gone, it is what was
 * known last.
 * Errors: NVLX_ENOENT (there is none). */
int nvlx_peer_find(struct nvlx_peer *peer, const char *name, uint64_t *address, uint64_t *length);

/* How memory is shared: see Kinds of memory. */
enum {
    NVLX_KIND_UNKNOWN = 0,     /* a region of 0 bytes, or one that sleeps; or a kind that this library does not know */
    NVLX_KIND_CUDA_MALLOC = 1, /* by a handle in the descriptor */
    NVLX_KIND_VMM = 2,         /* chunks, by file descriptors */
    NVLX_KIND_POOL = 3,        /* a pool, by its file descriptor */
    NVLX_KIND_FABRIC = 4,      /* chunks, by fabric handles */
    NVLX_KIND_HOST = 5         /* chunks of host memory, by file descriptors */
};

/* What is known of a region of a peer. */
struct nvlx_region_info {
    size_t size;
    uint64_t address, length; /* the peer's own: see nvlx_peer_find */
    uint64_t generation;      /* of the peer, that the region came with. 0: the peer does not tell it */
    uint64_t peer_generation; /* of the peer, that is known: for transfer_options.generation */
    uint64_t digest;          /* of its bytes, if the peer told it: see nvlx_region_set_digest. Else 0 */
    uint32_t has_digest;      /* 1 if the peer told it */
    uint32_t access;          /* NVLX_ACCESS_... */
    char name[256];           /* "" if it has none */
    uint32_t suspended;       /* 1 if it sleeps: ops give NVLX_ESUSPENDED until the peer resumes it. See Sleep */
    uint32_t kind;            /* NVLX_KIND_... of the memory that it begins in */
    char gpu[48]; /* UUID of the peer's GPU with that memory, as nvidia-smi -L prints it: "GPU-..." Else "" */
};

/* Tells about the regions of a peer, one in each call, in any order. `*place` is 0 before the first call, and moves on.
 * NVLX_ENOENT ends the list. All calls together cost as much as there are regions. Where the peer changes meanwhile,
 * some may be missed or told twice. So compare info.peer_generation with nvlx_peer_generation, asked at the end. Where
 * they differ, begin again. `info->size` must be sizeof *info. The struct is filled.
 * Errors: NVLX_ENOENT (there are no more). */
int nvlx_peer_region(struct nvlx_peer *peer, size_t *place, struct nvlx_region_info *info);

/* Tells about the region of this name. `info` is as above.
 * Errors: NVLX_ENOENT (there is none). */
int nvlx_peer_region_by_name(struct nvlx_peer *peer, const char *name, struct nvlx_region_info *info);

/* Who a peer is, and what is known of it. */
struct nvlx_peer_info {
    size_t size;
    uint64_t generation;        /* that is known: see nvlx_peer_generation */
    uint64_t regions, segments; /* that it tells of. Regions that sleep count */
    uint64_t pid;               /* as the peer itself sees it, in its PID namespace: */
    uint64_t pid_namespace;     /* the inode of /proc/PID/ns/pid */
    uint32_t same_process;      /* 1 if it is an engine of this process */
    uint32_t followed;          /* 1 if nvlx_connect made it, 0 if a text did */
    char engine[40];            /* its engine id, 32 digits: another one for each engine */
    char backend[16];           /* as nvlx_backend_name */
    char address[112];          /* at which it serves; "" if it did not when it was told */
};

/* Tells about a peer. `info->size` must be sizeof *info. The struct is filled. */
int nvlx_peer_get_info(struct nvlx_peer *peer, struct nvlx_peer_info *info);

/* The generation of the peer that is known. It grows with every change of what the peer has registered. */
int nvlx_peer_generation(struct nvlx_peer *peer, uint64_t *generation);

/* Forgets a peer and closes its mappings. It waits for transfers in flight with this peer, then up to 1 s for the peer
 * to take the messages to it. No other thread may submit one meanwhile. Events of the peer that were not read are
 * dropped. Until this call, the memory of a dead process stays allocated (measured), if the peer was made from a
 * text. What a peer of nvlx_connect leaves behind is closed as soon as nothing of it is in flight. Memory of a pool
 * stays until this process ends: see Kinds of memory. Requests of transfers with it stay, and tell what they told.
 * Errors: NVLX_EBUSY (a prepared list names the peer in an op that moves bytes, or blocks or a CUDA graph do),
 *         NVLX_ETIMEDOUT (the peer has not taken all messages: the last may be lost. It is closed all the same),
 *         NVLX_EDEVICE (CUDA failed to close a mapping. The peer is closed all the same). */
int nvlx_peer_close(struct nvlx_peer *peer);

/* Options of a server. None is needed: see Users and groups. */
struct nvlx_serve_options {
    size_t size;
    const uint32_t *users;    /* user ids that may connect, beside this process's own effective user; copied */
    size_t user_count;        /* entries of `users` */
    const uint32_t *groups;   /* ids of groups that may connect; copied */
    size_t group_count;       /* entries of `groups` */
    uint32_t mode;            /* of the socket file. 0: 0600, or 0666 where users or groups are named */
    uint32_t max_connections; /* at a time. 0: the default of Limits */
    uint32_t stats;           /* 1: peers of nvlx_connect may read all counts: see nvlx_peer_stats. 0: they may not */
    uint32_t reserved;        /* 0 */
};

static inline void nvlx_serve_options_init(struct nvlx_serve_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Serves this engine's descriptor, its changes, and the file descriptors of its memory, at an address of this node.
 * That is the absolute path of a socket file, or "@name" in the abstract namespace. An abstract name ends at the
 * network namespace, and has no file mode. The address is UTF-8. An engine serves once, until it is destroyed. Then the
 * socket file is removed. A socket file that a killed process left is replaced. Descriptors that are written from now
 * on name the address, those by nvlx_export too. So peers made by nvlx_peer_open can fetch file descriptors as well.
 * Changes reach peers within milliseconds, and take as much time and memory as the changes themselves. A peer gets the
 * whole descriptor when it connects, and if it missed more than 16,384 changes. Writing whole ones takes at most a
 * tenth of the time: a long one comes later. A peer that is mapping hears of changes when it is done.
 * Errors: NVLX_EEXIST (another engine serves there, or this user may not ask whether one does, or the path is no
 *         socket, or this engine serves already),
 *         NVLX_EACCES (the folder does not let it), NVLX_EBUSY (others lock the folder),
 *         NVLX_ENOENT (no such folder, or a file in its place, or links loop),
 *         NVLX_ENOMEM (also: the disk is full, or too many files are open). */
int nvlx_serve(struct nvlx_engine *engine, const char *address, const struct nvlx_serve_options *options);

/* Makes a peer of the engine that serves at `address`. The peer follows that engine: what it registers and unregisters
 * becomes known here without asking. So a name may vanish between two calls. Then the second gives NVLX_ENOENT,
 * NVLX_ERANGE or NVLX_ESTALE. Processes may start in any order: up to `timeout_ns` (< 0: for ever, 0: asks once) the
 * call waits until somebody serves. A server that ends before its descriptor is whole counts as none. Short timeouts in
 * a loop work too. The caller closes the peer.
 * Errors: those of nvlx_peer_open, the server's own if it cannot write its descriptor, or
 *         NVLX_ETIMEDOUT (nobody serves, or does not answer), NVLX_EACCES (this user may not connect),
 *         NVLX_EBUSY (the server has as many connections as it allows),
 *         NVLX_EVERSION (it speaks another major version of the protocol),
 *         NVLX_ENOENT (the path leads through what is no folder),
 *         NVLX_EINVAL (at once: what is there is a file or a folder, no socket). */
int nvlx_connect(struct nvlx_engine *engine, const char *address, int64_t timeout_ns, struct nvlx_peer **peer);

/* ---- Transfers --------------------------------------------------------------------------------------- */

enum {
    NVLX_OP_READ = 1,      /* from the peer's `remote` to `local` */
    NVLX_OP_WRITE = 2,     /* from `local` to the peer's `remote` */
    NVLX_OP_SIGNAL = 3,    /* the peer's count at `remote` becomes `arg`: see Signals */
    NVLX_OP_WAIT_READY = 4 /* the list begins when the peer's count at `remote` has reached `arg`: see Readiness */
};

enum {
    NVLX_OP_ROWS = 1, /* flags of an op, not opcodes, though these have the same values: see Rows, */
    NVLX_OP_ADD = 2   /* and Signals */
};

struct nvlx_op {
    uint32_t opcode; /* NVLX_OP_READ, NVLX_OP_WRITE, NVLX_OP_SIGNAL or NVLX_OP_WAIT_READY */
    uint32_t flags;  /* NVLX_OP_ROWS, NVLX_OP_ADD, or 0 */
    struct nvlx_peer *peer;
    void *local;     /* registered in this engine */
    uint64_t remote; /* an address of the peer: what nvlx_peer_find gave, plus an offset */
    uint64_t length; /* bytes. An op of 0 bytes is accepted and moves nothing, whatever its addresses */
    uint64_t arg;    /* with NVLX_OP_ROWS: the address of a struct nvlx_rows. Of a signal or wait: its value. Else 0 */
};

/* Options of a transfer. None is needed. */
struct nvlx_transfer_options {
    size_t size;
    uint32_t flags;      /* NVLX_NO_MAP: see Mapping ahead. NVLX_VERIFY: see Digests. NVLX_DONE_EVENT: see Events */
    void *stream;        /* a CUDA stream (cudaStream_t): see Streams. NULL: no order. CUDA's stream 0 is NULL too:
                            for that one give NVLX_STREAM_LEGACY */
    uint32_t mechanism;  /* NVLX_MECHANISM_...: see Mechanisms */
    uint32_t max_sms;    /* see Budgets */
    int32_t priority;    /* see Streams */
    uint64_t generation; /* of the peer, when its addresses in the list were learned: see nvlx_transfer. 0: not known */
    const void *message; /* to the peer, when the transfer is complete; copied. NULL: none. See Messages */
    size_t message_length;
    void *user; /* with NVLX_DONE_EVENT: what the event shall carry */
};

static inline void nvlx_transfer_options_init(struct nvlx_transfer_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Starts a list of copies. They may mix peers, GPUs, reads and writes. All ops are checked before the first copy
 * starts, and all segments are mapped, except for reads that begin meanwhile: see below. All are accepted, or none is
 * and the message names the op. After 0 the request tells what becomes of them. `ops` may be reused at once. The caller
 * frees the request.
 * - The sources' content must be complete before the call, unless `stream` orders it.
 * - Ops have no order among each other. What two of them write, or one writes and another reads, has undefined content.
 * - They may name several peers, in turn or one after the other. Each GPU starts with a different peer's GPU (in the
 *   order of UUIDs, from its own on), so that not all of them read from the same one.
 * - An op may lie in adjacent regions, whatever allocations they are in.
 * - The first use of a peer's segment maps it. In lists of at most 65,536 reads and writes, without a stream,
 *   generation, verification, event or message, reads of 1 MiB and more may begin while others' bytes are mapped. If
 *   the call then fails, it returns when they have ended: local bytes of any of the ops may have been written.
 * - A peer may withdraw a region and register another one at the same address. With options.generation, addresses do
 *   not outlive their regions: an op on bytes of a region that came later gives NVLX_ESTALE. The generation is that of
 *   nvlx_peer_generation, asked before nvlx_peer_find, or info.peer_generation. Of several generations give the
 *   oldest. All ops must then be of one peer.
 * Errors: NVLX_EINVAL (an op has wrong fields; or its sides are both in this process, overlap, and are not the same),
 *         NVLX_ERANGE (an op leaves the registered regions, here or there),
 *         NVLX_EACCES (a region of the peer does not grant the direction),
 *         NVLX_ENOTSUP (the segment cannot be opened here: see Kinds of memory; or see Streams, Mechanisms),
 *         NVLX_EAGAIN (NVLX_NO_MAP is set, and a segment is not mapped),
 *         NVLX_EBUSY (see Limits; or the peer's server has as many connections as it allows),
 *         NVLX_ESTALE (the peer withdrew the segment, or is gone; or memory of this process was freed; or bytes came
 *         after options.generation, or that is not known yet),
 *         NVLX_ESUSPENDED (memory sleeps, here or there: see Sleep),
 *         NVLX_ETIMEDOUT (the peer gives no file descriptors, or changes faster than it can be mapped). */
int nvlx_transfer(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_request **request);

/* Tells whether a transfer is complete. 0 means: every byte of every op is in place, and every later CUDA call of
 * either process sees it. With NVLX_VERIFY it also means that the digests are right. The peer is not told, unless the
 * transfer has a message. Then 0 also means that the peer has taken it. A failure has its cause in nvlx_last_error.
 * After a failure, any of the ops may have been done, in part or whole. May be repeated, by any number of threads.
 * Errors: NVLX_EAGAIN (not yet), else how the transfer failed. */
int nvlx_test(struct nvlx_request *request);

/* As nvlx_test, but waits up to `timeout_ns` (< 0: for ever).
 * Errors: NVLX_ETIMEDOUT (still in flight: wait again), else how the transfer failed. */
int nvlx_wait(struct nvlx_request *request, int64_t timeout_ns);

/* Frees a request. One in flight is not cancelled: the call waits for it, and for the peer to take its message. An
 * event of it that was not read is dropped.
 * Errors: how the transfer failed. */
int nvlx_request_free(struct nvlx_request *request);

/* ==== Advanced use ==================================================================================== */

/* ---- Which calls can wait ---------------------------------------------------------------------------- */

/* For running kernels, unrelated ones too, on cuda only:
 * - nvlx_engine_create loads the copy kernels. Loading waits for all that runs on the GPU (NVIDIA: CUDA C++ Programming
 *   Guide, Lazy Loading; measured). It does so for the GPUs of config.gpus, or for those that have a context.
 * - nvlx_relay_offer and nvlx_relay_join make an engine, and nvlx_relay_free destroys it: they wait as these do.
 * - nvlx_register, nvlx_resume, nvlx_alloc and nvlx_peer_map load them for a GPU that got its context after the
 *   engine, once. To avoid that, name the GPU in config.gpus, or make its context before the engine.
 * - nvlx_peer_close and nvlx_engine_destroy close mappings. Closing one of cudaMalloc memory waits (measured:
 *   cudaIpcCloseMemHandle), closing one of chunks does not (measured: cuMemUnmap).
 * - nvlx_free, and nvlx_engine_destroy for what was not freed, wait for cudaMalloc memory (measured: cudaFree).
 * - Threads of the library close what peers have withdrawn or left behind, each kind in one of its own. While one waits
 *   in the driver, copies and launches of other threads on this GPU wait too (measured).
 *
 * For transfers in flight:
 * - nvlx_wait, nvlx_unregister, nvlx_suspend: up to their timeouts. The latter two wait for those of followers, and
 *   for nvlx_digest, too.
 * - nvlx_request_free, nvlx_prepared_free, nvlx_blocks_free, nvlx_peer_close, nvlx_engine_destroy: until those of the
 *   object end.
 * - nvlx_transfer, nvlx_post and nvlx_blocks_transfer, only if the list is too long for the GPU's queues, or the
 *   program itself has filled a stream's: see Limits.
 * - nvlx_peer_wake, and nvlx_transfer where it wakes links, as launches do. They wait where the program has filled a
 *   queue of a GPU that they wake from, or a thread waits in the driver there, as above.
 * - nvlx_memcpy, nvlx_signal_read: until its own copy is done.
 * - nvlx_digest, nvlx_region_set_digest: until their own kernels are done. They begin when SMs are free.
 *
 * For others:
 * - nvlx_peer_sync, nvlx_signal_wait, nvlx_peer_stats, nvlx_relay_wait: up to their timeouts.
 * - nvlx_relay_join: up to its timeout for the source, as nvlx_connect.
 * - nvlx_relay_free: up to its timeout for those who read. Where its thread maps memory of a process that is stopped, a
 *   few seconds until it has ended.
 * - nvlx_unregister, nvlx_suspend (up to their timeouts), nvlx_peer_close and nvlx_engine_destroy: until streams with a
 *   wait that they end have come to it.
 * - nvlx_connect: up to its timeout for a server to appear. A server that is there has 1 s more to answer, then 10 s
 *   for each next byte of its descriptor.
 * - nvlx_transfer, nvlx_prepare, nvlx_blocks_create, nvlx_peer_map, and nvlx_post and nvlx_blocks_transfer after a
 *   sleep, where they map: milliseconds. Where that takes file descriptors, the peer's process has 10 s to answer each
 *   question. NVLX_NO_MAP forbids it. The first mapping between two GPUs takes 1 to 10 ms more (measured). So that
 *   later ones do not, even when all was closed, an engine holds 2 MiB of the other GPU as long as such a peer is open
 *   and alive. CUDA must show that GPU here.
 * - nvlx_transfer, where reads have begun while it maps: until they have ended, if the call fails, the peer changes
 *   something meanwhile, or a queue is full. Calls that need the same mapping wait too, if that fails.
 * - nvlx_peer_close, nvlx_engine_destroy, nvlx_free: up to 1 s for CUDA to tell that graphs are gone: see Graphs.
 * - nvlx_serve: up to 1 s while others begin to serve in the same folder, or at the same "@name".
 * - nvlx_peer_close, nvlx_engine_destroy: up to 1 s for peers to take messages; nvlx_request_free for its own.
 * - nvlx_set_log: until no thread is inside the log function that it replaces.
 * - nvlx_engine_create and nvlx_gpu_count: while the driver starts (up to seconds).
 * - nvlx_engine_create, nvlx_alloc and nvlx_peer_map: while they make a GPU's context, where there is none. */

/* ---- Limits ------------------------------------------------------------------------------------------ */

/* The call that reaches a limit gives NVLX_EBUSY, unless another code is named here.
 * - Requests in flight: config.max_requests, by default 4,096. At most 32 of them may be verified: one counts until it
 *   was seen complete, also when it has long ended. A call that is refused for that drives them on: try again.
 * - Memory for lists: config.list_memory, by default 256 MiB.
 * - Behind streams: 512 copies, kernels, signals and waits may wait on one GPU of a process, for at most 64 streams of
 *   other GPUs. At most 384 of them are waits of an engine. A queue of the GPU takes 1,021 (measured). A list with more
 *   copies goes by kernels, if its mechanism is auto and they can. It is accepted too if the stream has nothing to do.
 * - Without a stream: 2,000 copies by engines may be under way from one GPU to another, in each direction. A longer
 *   list is accepted if nothing else is under way. The call then takes as long as most of its copies.
 * - Streams of the program: its own work takes places in their queues too. Where it has filled one, the call waits, as
 *   CUDA's calls do (measured).
 * - Descriptor: 2^20 regions in 2^18 segments, in 256 MiB of text. nvlx_register refuses what would pass them. A region
 *   counts with its name and up to 60 bytes, and each " and \ of the name twice. Its digest counts with 26 bytes. A
 *   segment counts with up to 310 bytes.
 *   Private regions (NVLX_ACCESS_NONE) do not count, nor do regions whose memory was freed: neither is told.
 * - Names: 1 to 255 bytes. Addresses to serve at: 2 to 107 bytes. Others give NVLX_EINVAL.
 * - Connections to a server: serve_options.max_connections, by default 64. More than 65,536 give NVLX_EINVAL.
 * - File descriptors on their way to peers: half of RLIMIT_NOFILE. The kernel counts those of all processes of the
 *   user. Where others have used it up, the server waits.
 * - Open files: while this process may open only one more, its server lets nobody in.
 * - Patience: a connected peer is cut off if its socket is full, and it reads nothing for 30 s. Until then, one that is
 *   stopped misses nothing, and goes on as if nothing had been. One that is cut off stays a connection, and
 *   nvlx_unregister waits for it, until it has closed its mappings or its process ends. For changes that cannot be
 *   told, memory is tried for 3 s. What changes faster than it can be mapped gives NVLX_ETIMEDOUT after 10 s.
 * - Messages to peers: 64 KiB each. A receiver holds 1 MiB of each connection that was not read. To one peer, 4 MiB may
 *   be under way, the receiver's 1 MiB not counted once they are taken. Each message counts with 64 bytes more.
 * - Relays: by default 64 readers of a source, as of any server, and at most 256. Addresses of at most 90 bytes.
 * - Texts: 511 bytes of nvlx_last_error, 255 of request_info.error. Longer ones are cut. */

/* ---- Backends ---------------------------------------------------------------------------------------- */

enum {
    NVLX_BACKEND_AUTO = 0, /* what the environment variable NVLX_BACKEND names, else cuda where a driver and a GPU
                              answer, else host. A warning then tells, once a process, why it is not cuda */
    NVLX_BACKEND_CUDA = 1, /* NVIDIA GPUs */
    NVLX_BACKEND_HOST = 2  /* software GPUs in shared memory, for tests without a GPU. NVLX_HOST_GPUS tells how many: 1
                              to 64, by default 2 */
};

/* "cuda" or "host": which backend the engine runs on. Never NULL, valid as long as the engine. */
const char *nvlx_backend_name(const struct nvlx_engine *engine);

/* The number of GPUs that a backend sees in this process. It makes no context.
 * Errors: NVLX_EBACKEND (it cannot run). */
int nvlx_gpu_count(uint32_t backend, int *count);

/* ---- Kinds of memory --------------------------------------------------------------------------------- */

/* What can be registered, and which peers can open it. The message of NVLX_ENOTSUP tells which of these it was.
 * - cudaMalloc memory is shared by a handle in the descriptor. Peers may be of any user. On cuda, two processes with
 *   the same PID in two PID namespaces cannot share it (measured). On host, both must be of one user, group and PID
 *   namespace.
 * - Chunks of virtual-memory management (cuMemCreate) made with a POSIX file descriptor as handle type: PyTorch's
 *   expandable segments, NVLX_ALLOC_VMM. They reach other containers, and users that may connect. Peers map them
 *   read-only where no region grants writing. The owner must serve (nvlx_serve), and must do so before it exports.
 * - Memory of a stream-ordered pool made with that handle type: NVLX_ALLOC_POOL. The owner must serve, as for chunks.
 *   What a peer has mapped stays allocated until the peer's process ends (measured).
 * - Chunks made with a fabric handle alone, where it can be exported. This was not tried on a GPU.
 * - Chunks of host memory: NVLX_ALLOC_HOST. They are shared as other chunks are: see Host memory.
 * - Pinned host memory (cudaHostAlloc, cudaHostRegister): only as the local side, see Host memory.
 * - Not at all: plain host memory, managed memory, and pools or chunks without such a handle type. The pool that
 *   cudaMallocAsync takes by default is one of them. So is memory that another process shared with this one. */
enum {
    NVLX_ALLOC_VMM = 1,  /* chunks, rounded up to the GPU's granularity (2 MiB) */
    NVLX_ALLOC_POOL = 2, /* from a stream-ordered pool (cudaMallocAsync) of the engine */
    NVLX_ALLOC_HOST = 4  /* chunks of host memory, at the NUMA node that is near to the GPU: see Host memory */
};

/* ---- Host memory ------------------------------------------------------------------------------------- */

/* Host memory is one side of a transfer, as a GPU's memory is: to offload to, to load from, to pass small things on.
 * The other side is a GPU's: where both are host memory, an op gives NVLX_ENOTSUP. Ops on both kinds of memory may be
 * in one list. Streams, rows, blocks, prepared lists, sleep and digests work with it.
 * - Chunks are shared, and either side: NVLX_ALLOC_HOST, or cuMemCreate at a NUMA node of the host
 *   (CU_MEM_LOCATION_TYPE_HOST_NUMA) with a POSIX file descriptor as handle type. What Kinds of memory says of chunks
 *   holds. CPUs of the process read and write them at their address. GPUs move 54.8 GB/s (measured, two H100).
 * - Chunks of the program's own making are copied by a GPU that it has given access (cuMemSetAccess).
 * - Local chunks, and memory on another GPU of this same process: NVLX_ENOTSUP, as that GPU would copy.
 * - Pinned memory is the local side alone: of cudaHostAlloc, cudaMallocHost or cudaHostRegister. It must stay pinned
 *   until nvlx_unregister, or nvlx_suspend, has given 0.
 * - Plain host memory (malloc, a stack, a file) gives NVLX_ENOTSUP. Most GPUs read it only with the CPU's help, so a
 *   call that submits would wait. cudaHostRegister makes it pinned.
 * - CUDA cannot share pinned memory with other processes. So any access but NVLX_ACCESS_NONE gives NVLX_ENOTSUP.
 * - A GPU copies it: the one at the other end, if that belongs to this process. Else it is the one that the memory was
 *   allocated for, or pinned for, by the device that was current then. If the engine does not use the GPU that pinned
 *   memory is for, it is another one.
 * - Kernels carry what is up to 64 KiB long, as between GPUs. Copy engines carry all that is longer: PCIe is then their
 *   limit (54.8 GB/s measured, two H100), not the CPU. What kernels reach over PCIe was not measured. Rows and blocks
 *   go as between GPUs. NVLX_MECHANISM_COPY_ENGINE takes no SMs for any of it.
 * - Its copies have streams of their own, so that none over NVLink waits for them.
 * - nvlx_digest reads it by kernels of its GPU, over PCIe.
 * - Ids with NVLX_IDS_ON_GPU cannot lie there, nor counts of signals (NVLX_EINVAL).
 * - The host backend knows no pinned memory of programs. */

/* ---- Users and groups -------------------------------------------------------------------------------- */

/* Who may connect to a server, by the kernel's word on who connects:
 * - the effective user of the serving process,
 * - each of serve_options.users,
 * - each process that has one of serve_options.groups, supplementary or not.
 * Who connects must also pass the mode of the socket file. A peer of nvlx_connect takes one of max_connections for its
 * whole life. A peer of nvlx_peer_open takes one for moments, while it maps memory that takes file descriptors. */

/* ---- The life of a peer ------------------------------------------------------------------------------ */

/* Tells whether the peer is alive, as far as known. Of a peer from nvlx_peer_open nothing is known: 0. An engine of
 * this process is the exception: once it was destroyed, it is gone. For a peer that is gone, all calls that need it
 * give NVLX_ESTALE and issue nothing: transfers, posts and blocks, nvlx_prepare, nvlx_peer_map, nvlx_peer_wake,
 * nvlx_peer_update, nvlx_peer_sync, nvlx_peer_stats, nvlx_send, nvlx_stream_wait. What is in flight
 * ends as it does. Then the library closes what it had mapped of the peer, by itself. A process that restarts is a new
 * peer: connect again. Errors: NVLX_ESTALE (the connection that nvlx_connect made has ended; the message says why). The
 * reasons are:
 * - The peer's process is gone, or its engine was destroyed.
 * - The peer dropped this engine, which did not read: see Limits.
 * - Its changes cannot be told: they are more than a descriptor holds, or memory is short: see Limits.
 *
 * An engine that serves has no peer for who follows it, and gets no event when one ends. nvlx_unregister and
 * nvlx_suspend then do not wait for it any more, and the log says so at INFO. An engine that must know, since a
 * follower owes it an answer, connects to it in turn: then PEER_LOST tells. */
int nvlx_peer_test(struct nvlx_peer *peer);

/* Makes many changes one. From nvlx_hold on, what this engine registers and unregisters counts here, but no peer is
 * told. nvlx_publish tells all of it at once. `*generation`, unless it is NULL, is the number of this state. Send it to
 * who shall read: nvlx_peer_sync waits until that state, or a newer one, is known. So weights are replaced safely:
 *
 *     owner:  nvlx_hold; nvlx_unregister(old, 0), which gives NVLX_ETIMEDOUT; nvlx_register(new, same name);
 *             nvlx_publish(&generation)
 *     owner:  sends `generation` to the reader, then nvlx_unregister(old, -1), and may free the old memory
 *     reader: nvlx_peer_sync(peer, generation, timeout); nvlx_peer_find; nvlx_transfer with that options.generation
 *
 * Without options.generation, an address that was found before may lie in another region by now, whose bytes come.
 * Between hold and publish nvlx_export gives NVLX_EBUSY, who connects gets the state before, or waits for the publish,
 * and nvlx_unregister of what peers may know gives NVLX_ETIMEDOUT at once. nvlx_publish without nvlx_hold only tells
 * the generation. It first looks for memory that was freed, as nvlx_check does.
 * Errors of nvlx_hold: NVLX_EBUSY (changes are held back already). */
int nvlx_hold(struct nvlx_engine *engine);
int nvlx_publish(struct nvlx_engine *engine, uint64_t *generation);

/* Looks at all segments now, and withdraws the regions of those whose memory was freed without nvlx_unregister. The
 * log has one warning. The regions stay, for nvlx_unregister. Own ops on them give NVLX_ERANGE. Peers are told, as of
 * every change. Each look is a call of the driver, of about a microsecond.
 * - nvlx_publish, nvlx_export and a server that is asked look in the same way. A server takes a tenth of its time.
 * - nvlx_register looks only at what lies under its own range: newer memory there withdraws the older.
 * - What a peer reads between the free and the next look, nobody can tell. nvlx_unregister, before, is the safe way. */
int nvlx_check(struct nvlx_engine *engine);

/* Waits up to `timeout_ns` (< 0: for ever) until this generation of the peer, or a newer one, is known. Of a peer from
 * a text, nvlx_peer_update makes it known. Errors: NVLX_ETIMEDOUT (not yet known), NVLX_ESTALE (the peer is gone). */
int nvlx_peer_sync(struct nvlx_peer *peer, uint64_t generation, int64_t timeout_ns);

/* Replaces what is known of a peer by a newer descriptor of the same engine, atomically. It is for peers of
 * nvlx_peer_open. A peer of nvlx_connect needs no update: it gets each descriptor by itself. It takes one all the same,
 * and the newest counts. If it knows a newer one already, the call gives NVLX_ESTALE, and all is well.
 * - Segments that the text still lists stay mapped.
 * - Segments that it does not list are refused from now on. They are closed, by a thread of the library, when no
 *   transfer in flight uses them any more.
 * - A prepared list that uses what the text does not list any more gives NVLX_ESTALE.
 * - Chunks are mapped again if the text changes which of them regions join, or whether any region grants writing.
 *   Prepared lists map them again at their next post.
 * - The same generation again changes nothing.
 * Errors: those of nvlx_peer_open, or NVLX_ESTALE (the text is older than what is known, or of another engine, or the
 *         peer is gone). The peer then stays as it was. */
int nvlx_peer_update(struct nvlx_peer *peer, const char *text, size_t length);

/* ---- Sleep ------------------------------------------------------------------------------------------- */

/* Memory that sleeps gives its bytes back, and keeps its names. An engine puts its weights to sleep so:
 *
 *     nvlx_suspend(regions, count, -1)
 *     cuMemUnmap, cuMemRelease: the memory is free     ... later: cuMemCreate, cuMemMap, cuMemSetAccess
 *     nvlx_resume(regions, count, NULL)
 *
 * nvlx_suspend withdraws the bytes of all these regions at once. It then waits at most `timeout_ns` (< 0: for ever, 0:
 * not at all) until nobody uses them, as nvlx_unregister does. After 0 the memory may be unmapped, freed or replaced,
 * if all regions in it sleep. Regions that sleep already are only waited for. NULL with `count` 0 does nothing.
 * - Each region keeps its handle, its name and its place: peers find the name, at the address where it was. Their
 *   nvlx_region_info tells that it sleeps.
 * - Transfers on the bytes give NVLX_ESUSPENDED, here and in peers. So do posts of lists that were prepared before.
 *   Such lists keep nothing until their next post: neither awake, nor registered.
 * - Digests of the regions are forgotten: nvlx_region_set_digest tells them again.
 * - nvlx_unregister works, with nobody left to wait for. nvlx_free works too.
 * - Peers whose library is older see the regions withdrawn, then registered again.
 *
 * nvlx_resume tells peers the regions again, with whatever memory is there by now: of any kind, GPU and number of
 * allocations. addresses[i] is where regions[i] is from now on. NULL in its place, or in place of `addresses`: where it
 * was. The content must be complete, as for nvlx_register.
 * - A list that was prepared before works again, where all its regions are where they were. The first post then checks
 *   and maps it again, as nvlx_prepare does.
 * - Where one was moved, the list gives NVLX_ESTALE: it is made of addresses. Find the name, and prepare again.
 *
 * Each call changes all of its regions, or none. All are of one engine.
 * Errors of nvlx_suspend:
 *         NVLX_ETIMEDOUT (somebody still uses the bytes: the message says who. They stay withdrawn: call again, or
 *         nvlx_resume), NVLX_ESTALE (memory of a region was freed), NVLX_EBUSY (another thread resumes one).
 * Errors of nvlx_resume: those of nvlx_register for the memory, or NVLX_EINVAL (a region does not sleep),
 *         NVLX_ESTALE (memory was freed meanwhile), NVLX_EBUSY (also: a region is in the list twice). */
int nvlx_suspend(struct nvlx_region *const *regions, size_t count, int64_t timeout_ns);
int nvlx_resume(struct nvlx_region *const *regions, size_t count, void *const *addresses);

/* ---- Messages ---------------------------------------------------------------------------------------- */

/* Sends bytes to the engine that serves a peer of nvlx_connect. There they are an event. To answer, that engine
 * connects to this one in turn. `length` is 0 to 65,536 bytes, which are copied. The call waits for nobody: it queues
 * the message. transfer_options.message sends one when the transfer is complete, without anybody asking. All ops of
 * that transfer must be for one peer.
 *
 * What is promised:
 * - Order. Messages to one peer come in the order of the calls, nvlx_transfer and nvlx_post among them. A message waits
 *   for the transfers before it that have messages, not for others.
 * - A transfer's message comes after its bytes: at the moment of the event, all of them are in place.
 * - Each message comes once, or never. If one does not come, none of the later ones does.
 * - A message is taken when the other library has put it into its queue of events. From then on only the end of that
 *   engine loses it: not the end of the connection, nor of the sender.
 * - A transfer with a message is complete when the message is taken. If the connection ends before that, the request
 *   fails with NVLX_ESTALE, and says so. Its bytes are in place. The message may have come.
 * - If a transfer fails, its message is not sent.
 * - Of nvlx_send, 0 means that the message is queued. If the connection ends before messages are taken, the event
 *   PEER_LOST counts them, and the log has a warning. Those are the last ones. Later calls give NVLX_ESTALE.
 * - The other side does not read: then nothing is lost, and all else goes on. At some time calls give NVLX_EBUSY: see
 *   Limits.
 * Errors: NVLX_ENOTSUP (the peer was made from a text, or its library is too old),
 *         NVLX_EBUSY (as much as is allowed is not taken yet), NVLX_ESTALE (the peer is gone). */
int nvlx_send(struct nvlx_peer *peer, const void *message, size_t length);

/* ---- Events ------------------------------------------------------------------------------------------ */

enum {
    NVLX_EVENT_PEER_LOST = 1,    /* the connection that nvlx_connect made has ended: see The life of a peer */
    NVLX_EVENT_PEER_CHANGED = 2, /* a newer generation of a peer of nvlx_connect is known */
    NVLX_EVENT_MESSAGE = 3,      /* a message has come */
    NVLX_EVENT_REQUEST_DONE = 4, /* a transfer with NVLX_DONE_EVENT is complete, or has failed */
    NVLX_EVENT_WAIT_FAILED = 5   /* a stream goes on without a peer's signal: see Signals */
};

enum {
    NVLX_DONE_EVENT = 4 /* flag of nvlx_transfer, nvlx_post and nvlx_blocks_transfer: completion is an event */
};

struct nvlx_event {
    size_t size;
    uint32_t kind;  /* NVLX_EVENT_... */
    int32_t status; /* REQUEST_DONE: as nvlx_test gives it. PEER_LOST: NVLX_ESTALE. WAIT_FAILED:
                       as nvlx_stream_wait_status gives it */
    struct nvlx_peer
        *peer; /* PEER_LOST, PEER_CHANGED, WAIT_FAILED. MESSAGE: a peer of nvlx_connect that is its sender, or NULL */
    uint64_t generation;          /* PEER_CHANGED: the newest that is known */
    uint64_t unconfirmed;         /* PEER_LOST: how many messages of nvlx_send, the last ones, may be lost */
    struct nvlx_request *request; /* REQUEST_DONE: still the caller's to free */
    void *user;                   /* REQUEST_DONE: transfer_options.user */
    const void *message;          /* MESSAGE: its bytes */
    size_t message_length;
    int64_t pid;      /* MESSAGE: the sender's process, as this one's PID namespace sees it */
    char engine[40];  /* MESSAGE: the sender's engine id, 32 digits, by its own word */
    char reason[256]; /* why a peer is lost, or a transfer or a wait has failed */
    uint64_t wait;    /* WAIT_FAILED: the number that nvlx_stream_wait gave. Of several that have failed for one peer
                         and were not read, the newest */
};

/* A file descriptor that is readable exactly as long as there is an event. It is for poll, epoll, libuv and asyncio.
 * It is the same for the engine's whole life, and the engine closes it. Only wait for it: do not read or write it. */
int nvlx_event_fd(struct nvlx_engine *engine, int *fd);

/* Reads the oldest event. It never waits. `event->size` must be sizeof *event. The struct is filled.
 * - The bytes of a message belong to the engine. They stay until the next call of nvlx_next_event on it, or its end.
 *   Threads that share the events of an engine must agree on that.
 * - Changes of one peer that were not read yet are one event.
 * - NVLX_EVENT_PEER_LOST may come a moment after a call gave NVLX_ESTALE for that peer.
 * - An event of a peer that was closed, or of a request that was freed, is dropped. So no event names what is gone.
 *   Another thread must not close or free it while this one works on the event.
 * - For NVLX_DONE_EVENT nobody needs to ask, and no thread spins. The GPU calls this process when the copies are done.
 *   What is behind them in the same stream starts after that call.
 * Errors: NVLX_EAGAIN (there is none; it is not logged, nor nvlx_last_error's). */
int nvlx_next_event(struct nvlx_engine *engine, struct nvlx_event *event);

/* ---- Streams ----------------------------------------------------------------------------------------- */

/* transfer_options.stream is a CUDA stream of the caller. The transfer takes its place in that stream's order. It
 * starts after the work that is in the stream, and later work in the stream starts after it. No CPU waits. NULL: no
 * order.
 * - The stream belongs to a GPU of this engine: else NVLX_ENOTSUP. The host backend takes no stream. One that captures
 *   a graph is another matter: see Graphs.
 * - Behind a busy stream, kernels wait, if the mechanism is auto and they can. They hold up no other transfer.
 * - Copies by engines that wait may hold up others between GPUs, where four streams or more copy at a time. CUDA's own
 *   calls do so too (measured).
 * - transfer_options.priority is that of the streams that carry the transfer. Lower is more urgent. A value that the
 *   GPU does not have is taken as the nearest (NVIDIA: CUDA Runtime API, cudaStreamCreateWithPriority). What goes into
 *   the caller's stream has the priority of that stream.
 *
 * CUDA's two default streams are these values (NVIDIA: CUDA Runtime API, cudaStreamLegacy, cudaStreamPerThread): */
#define NVLX_STREAM_LEGACY     ((void *)0x1)
#define NVLX_STREAM_PER_THREAD ((void *)0x2)

/* ---- Rows -------------------------------------------------------------------------------------------- */

/* An op with NVLX_OP_ROWS copies many rows of equal length, such as a slice of each head or layer. The first row begins
 * at `local` and at `remote`, and op.length is the bytes of one row. op.arg is (uint64_t)(uintptr_t) of this struct,
 * which is read during the call, and may be gone after it: */
struct nvlx_rows {
    uint64_t count;        /* rows. 0 moves nothing, whatever the rest is */
    uint64_t local_pitch;  /* bytes from the start of one row to the start of the next, here */
    uint64_t remote_pitch; /* the same in the peer's memory */
};
/* - Addresses, lengths and pitches are in bytes, and may be odd. Multiples of 16 are faster.
 * - Only the rows must be registered, not what lies between them. That is neither read nor written. Rows may lie in
 *   any number of regions and allocations, and cross them as any op may. They are on one GPU or several.
 * - Checking costs as much as there are borders of regions under the rows, not as there are rows.
 * - Rows that are read may overlap: their pitch may be shorter than a row, or 0. Rows that are written may not. A pitch
 *   does not matter where `count` is 1.
 * - Where both sides are in this process, no byte that is read may be one that is written, unless all rows stay where
 *   they are.
 * - Copy engines carry an op of 2 MiB or more, in rows of 128 bytes or longer. With rows of 4 KiB or longer it is
 *   8 MiB, with rows of 16 KiB or longer 16 MiB. That is nearly as fast as a contiguous copy (measured). If the two
 *   sides are not aligned alike, to 4 bytes, it is 64 KiB, of any rows. Kernels carry the rest, where they can. One or
 *   two ops that would be the rest are for copy engines, too, if these are done sooner.
 * - Ops of equal rows that follow each other in the list at equal distances, such as layers of blocks, are one copy by
 *   an engine (cudaMemcpy3DAsync). The larger distances must be multiples of the smaller ones, on either side.
 *   Rows of one op must end before those of the next begin.
 * - Where copy engines carry all, rows that overlap or lie 2 GiB apart take more copies. More than 65,536 of them for
 *   one op give NVLX_ENOTSUP.
 * - Plain ops are carried as rows too, where they follow each other in the list: of equal length, at equal distances
 *   that ascend on both sides. Equal series of ops at equal distances, such as blocks of layers, are rows as well, in
 *   the direction that takes fewer rectangles. Each must be 256 rows, or so many bytes that copy engines carry them, or
 *   8 rows where these carry all.
 * - nvlx_prepare finds all such ops. nvlx_transfer finds those that make a list a quarter as long, if half of its first
 *   512 ops are such. With NVLX_VERIFY none are carried so.
 * - NVLX_VERIFY takes no rows (NVLX_EINVAL). In request_info, what one engine copy or one warp carries is a fragment.
 * Errors of nvlx_transfer and nvlx_prepare for such ops: NVLX_EINVAL (op.arg is 0; rows that are written overlap; the
 *         last row lies beyond 2^64; the message has the values). Of others, the message names the row. */

/* ---- Signals ----------------------------------------------------------------------------------------- */

/* A signal changes a count in a peer's memory, so that the peer's streams and CPUs see what is in place. A count is 64
 * bits of registered memory, at a multiple of 8. Its owner sets it to 0 before it tells anybody. From then on only
 * signals change it. Like all memory of a GPU, it is read by nvlx_memcpy and kernels.
 *
 * An op with NVLX_OP_SIGNAL is a signal in a list. op.remote is the count, which the peer must let write. op.arg is
 * what the count becomes, or with NVLX_OP_ADD what it grows by. op.local is NULL and op.length 0.
 * - A signal comes when all bytes of all ops in its list are in place, wherever it stands in the list. Who sees the
 *   count then sees the bytes. It also sees what was in options.stream before the list.
 * - Signals to one peer come in the order of the list. Those of two lists have no order, except behind one stream.
 * - A transfer that is complete has signalled. One that fails signals nothing, unless a GPU fails in the middle.
 * - A count that wraps around is as good as any other: it has reached a value if it is less than 2^63 ahead of it.
 * - A signal takes a place in a queue, as a copy does: see Limits.
 * - With NVLX_VERIFY a list has none (NVLX_EINVAL): it would come before the bytes are known to be right.
 * - What takes a stream cannot be tried on the host backend: a program cannot make a stream of it.
 * - A list of signals alone, of an engine without regions, takes the GPU that has the count, else GPU 0.
 * - With op.peer NULL, op.local is a count of this process itself, and op.remote is 0. nvlx_prepare does not take it.
 * Errors of nvlx_transfer and nvlx_prepare for such ops: NVLX_EINVAL (op.remote is no multiple of 8; op.local or
 *         op.length is not 0), NVLX_ENOTSUP (NVLX_OP_ADD, and the GPU has no kernels), and those of a write. */

/* A signal alone, behind what is in a CUDA stream. `flags` is NVLX_OP_ADD or 0. There is no request. The call waits for
 * nobody. Errors: NVLX_EINVAL (also: `stream` is NULL), those of nvlx_transfer for such an op with such a stream. */
int nvlx_stream_signal(struct nvlx_engine *engine, void *stream, struct nvlx_peer *peer, uint64_t address,
                       uint64_t value, uint32_t flags);

/* Options of a stream's wait. None is needed. */
struct nvlx_wait_options {
    size_t size;
    void *mark; /* 8 bytes of registered memory, on the stream's GPU, at a multiple of 8. Where the wait fails, the code
                   is written there, as an int64_t, before the stream goes on. NULL: nowhere */
    void *reached; /* of a stream that captures a graph: memory as for a mark. See Graphs. Else NULL */
};

static inline void nvlx_wait_options_init(struct nvlx_wait_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Lets a CUDA stream wait until a count of this process, at `address`, has reached `value`. `peer` is who shall signal.
 * What is put into the stream from then on begins when it has, and sees what came before the signal. No CPU waits, and
 * no SM is taken. Between two H200 it begins 9 us after the peer's stream has come to the signal (median, 2026-11-28).
 * `*wait`, unless that is NULL, is a number for nvlx_stream_wait_status.
 *
 * No wait is left behind. It fails, and the stream goes on, if one of these comes before the signal:
 * - The peer is gone: NVLX_ESTALE. A process that is stopped is not gone.
 * - nvlx_peer_close, or nvlx_engine_destroy: NVLX_ESTALE.
 * - nvlx_unregister of a region with the count or the mark: NVLX_ESTALE. nvlx_suspend: NVLX_ESUSPENDED.
 * These four calls wait until the streams have gone on, so that other work in front of a wait holds them up. To let a
 * stream go on, the library sets the count to `value`. So give each peer counts of its own, and set them again before
 * the next peer uses them. Work behind a wait that may fail tests the mark. The event is NVLX_EVENT_WAIT_FAILED.
 *
 * - The count lies on the stream's GPU, in memory of cudaMalloc or in chunks. CUDA lets no stream wait for memory of
 *   a pool (measured).
 * - A wait takes a place in a queue, as a copy does: see Limits. One too many gives NVLX_EBUSY, and never waits.
 * - Behind a wait, a program must not call what waits for streams, as long as that is needed to send the signal. Such
 *   are cudaFree, cudaFreeHost, and the first launch of a kernel that is not loaded (measured).
 *   CUDA_MODULE_LOADING=EAGER loads them all.
 * - The first wait starts a thread, "nvlx-waits".
 * Errors: NVLX_EINVAL (also: `stream` is NULL; the address is no multiple of 8, or on another GPU),
 *         NVLX_ERANGE (it is not registered), NVLX_ESUSPENDED (it sleeps), NVLX_ESTALE (the peer is gone),
 *         NVLX_EBUSY (see Limits),
 *         NVLX_ENOTSUP (see Streams; or the peer is another process, made from a text: nobody would tell that it is
 *         gone; or the count is in memory of a pool). */
int nvlx_stream_wait(struct nvlx_engine *engine, void *stream, struct nvlx_peer *peer, const void *address,
                     uint64_t value, const struct nvlx_wait_options *options, uint64_t *wait);

/* Tells how a wait has ended. 0: the stream has gone on, as the count was reached. It can be asked as long as the
 * engine lives. Errors: NVLX_EAGAIN (not yet), else why it has failed. */
int nvlx_stream_wait_status(struct nvlx_engine *engine, uint64_t wait);

/* Reads a count of this process. It waits for no stream.
 * Errors: NVLX_EINVAL (also: the address is no multiple of 8), NVLX_ERANGE (it is not registered),
 *         NVLX_ESUSPENDED (it sleeps). */
int nvlx_signal_read(struct nvlx_engine *engine, const void *address, uint64_t *value);

/* Waits up to `timeout_ns` (< 0: for ever, 0: asks once) until a count of this process has reached `value`. `peer`,
 * unless it is NULL, is who shall signal.
 * Errors: those of nvlx_signal_read, NVLX_ETIMEDOUT (not yet), NVLX_ESTALE (the peer is gone before). */
int nvlx_signal_wait(struct nvlx_engine *engine, struct nvlx_peer *peer, const void *address, uint64_t value,
                     int64_t timeout_ns);

/* ---- Readiness --------------------------------------------------------------------------------------- */

/* Says that the bytes of a region are ready when a CUDA stream of this process has come so far: the count that
 * region_options.ready names grows by 1. The CPU waits for nobody. Whoever sees the count sees what the stream did
 * before. Other processes wait for it on their GPUs, and no message goes between CPUs.
 *
 * The count is as in Signals. It lies in a region that peers may read, and find by its name, such as "w0.ready". Set it
 * to 0 before you tell anybody. The bytes of one region may be ready again and again: the count tells how often. To say
 * so of a range, use a signal to a count of one's own (see Signals).
 *
 * In the consumer, NVLX_OP_WAIT_READY makes a list wait. op.remote is the count, and op.arg what it shall reach.
 * op.local is NULL, op.length 0. options.stream waits, then the list's bytes move. Such ops come first in the list.
 *
 *     ops[0] = wait for "w0.ready" >= n        ops[1] = read "w0"        options.stream = mine
 *
 * No list waits for ever. It fails, and the stream goes on, if one of these comes before the count is reached:
 * - The owner of the count is gone, or has unregistered it, or nvlx_peer_close of it: NVLX_ESTALE.
 * - The owner has suspended it: NVLX_ESUSPENDED.
 * - nvlx_engine_destroy here. The request ends with the engine.
 * The bytes have then moved all the same, too early, so what is in `local` is worth nothing: ask the request before you
 * use them. A process that is stopped is slow, not gone.
 *
 * - While a list waits, its regions are in use. Their owner withdraws the count before them, or with them. Otherwise
 *   nvlx_unregister and nvlx_suspend of the bytes wait until they are ready.
 * - A list waits for up to 8 counts, and streams of one GPU for up to 32 of lists at a time: one too many is refused.
 * - A wait is a kernel of one thread. It reads the count over the link. The limits of streams hold: see Limits.
 * - Where both processes use the same GPU without MPS, they take turns: a wait takes time from who is to end it.
 * - A list that waits has a stream, moves at least one byte, and does not signal. nvlx_prepare and NVLX_VERIFY
 *   do not take it.
 * Errors of nvlx_transfer for such lists, beyond those of a read:
 *         NVLX_EINVAL (what this says of the list does not hold), NVLX_EBUSY (see above),
 *         NVLX_ENOTSUP (the peer was made from a text; or see Streams; or the GPU has no kernels; or the count is on
 *         another GPU of this process itself).
 * Errors: NVLX_EINVAL (also: `stream` is NULL; the region has no count), those of nvlx_stream_signal. */
int nvlx_region_ready(struct nvlx_region *region, void *stream);

/* ---- Graphs ------------------------------------------------------------------------------------------ */

/* A CUDA stream that captures a graph takes calls as parts of it: nvlx_post, nvlx_blocks_transfer, nvlx_transfer,
 * nvlx_stream_signal, nvlx_region_ready, nvlx_stream_wait. Such a call moves nothing. Each run of the graph does, and
 * calls nothing of the library.
 *
 *     cudaStreamBeginCapture(mine)    kernel    nvlx_post(list, options, NULL)    kernel    cudaStreamEndCapture
 *     cudaGraphInstantiate            then, again and again: cudaGraphLaunch
 *
 * - `request` must be NULL (NVLX_EINVAL): what becomes of a run, the program's own events behind it tell. A message,
 *   NVLX_DONE_EVENT, NVLX_VERIFY and NVLX_OP_WAIT_READY give NVLX_ENOTSUP.
 * - All of a list's local memory is on the stream's GPU, and none is copied to another GPU of this process: else
 *   NVLX_ENOTSUP. All goes into the stream itself, one after the other. Signals come from the stream's GPU, and take
 *   its kernels: else NVLX_ENOTSUP.
 * - What is refused leaves the capture as it was. Only where the driver refuses in the middle (NVLX_EDEVICE), the graph
 *   may have some of the list.
 * - A run moves the bytes that are there at that time. A signal with NVLX_OP_ADD adds each time. Any other sets the
 *   same value each time.
 * - Ids with NVLX_IDS_ON_GPU are read by each run: they may change between runs. Their memory must stay as long as the
 *   graph: it is not held. Ids in host memory are those of the capture.
 * - Pairs with an id out of range are not copied. nvlx_counts.graph_faults counts that when it is seen. The first time
 *   for each part, a warning names one such id. nvlx_stats looks, at most each tenth of a second. So do some other
 *   calls, and a thread of the library while a graph has a wait. The rest is told after the graph is gone.
 *
 * A wait of a graph is a kernel of one thread. With wait_options.reached, it waits until the count has come to `value`
 * more than the number there. It then stores there what it has waited for. Set that memory to 0 before the first run:
 * then with `value` 1 each run waits for one more signal that adds 1. With `value` 0, the program says how far, before
 * each run. Without wait_options.reached, it waits for `value` each time.
 * - It fails as other waits do, but once for all: this run and all later ones, where they find the count not reached,
 *   write the mark and go on. The count and `reached` stay as they are. The event comes once.
 * - nvlx_stream_wait_status gives 0 until it has failed.
 * - Outside of a capture, wait_options.reached gives NVLX_ENOTSUP.
 *
 * The graph holds what it uses, and so does every graph and executable that is made of it, until all are destroyed, and
 * none of them runs. CUDA tells that a moment later (measured: 0.2 ms).
 * - Lists and blocks may be freed before. Each part keeps its lists in config.list_memory.
 * - nvlx_unregister and nvlx_suspend of memory that it uses give NVLX_ETIMEDOUT meanwhile, and nvlx_free NVLX_EBUSY.
 *   The message says that a graph uses it.
 * - Peers wait for it likewise, if it uses the bytes that they withdraw. Runs go on to move these bytes until then.
 * - The memory of a peer that is gone stays mapped, and so is not free, as long as a graph uses it. Runs read its old
 *   bytes. New parts give NVLX_ESTALE. Destroy such graphs.
 * - nvlx_peer_close of a peer that it names, and nvlx_engine_destroy, give NVLX_EBUSY, and change nothing. */

/* ---- Mechanisms -------------------------------------------------------------------------------------- */

/* What carries the copies: the GPU's copy engines, or kernels of this library.
 * - Kernels copy between processes, and within one GPU.
 * - Kernels do not copy between two GPUs within one process: only copy engines do. Kernels would need peer access
 *   (NVIDIA: CUDA C++ Programming Guide, Peer-to-Peer Memory Access), which this library does not enable.
 * - Within one process, the first transfer to or from chunks or a pool of another GPU gives its own GPU access to them
 *   (cuMemSetAccess, cuMemPoolSetAccess). It takes no access away.
 * - Kernels are built for certain architectures. On a GPU of another one only copy engines copy.
 * - Beside a kernel that fills the GPU, copy kernels hardly move, unless their priority is more urgent (measured). Copy
 *   engines do. */
enum {
    NVLX_MECHANISM_DEFAULT = 0,     /* in options: what the engine's config says; in the config: auto */
    NVLX_MECHANISM_AUTO = 1,        /* chosen by size, alignment and number: many small ones go by kernels */
    NVLX_MECHANISM_COPY_ENGINE = 2, /* copy engines only: takes no SMs */
    NVLX_MECHANISM_KERNEL = 3       /* copy kernels only; NVLX_ENOTSUP where they cannot copy */
};

/* ---- Budgets ----------------------------------------------------------------------------------------- */

/* 0 means the default of Limits.
 *
 * config.max_requests is how many requests may be in flight.
 *
 * transfer_options.max_sms is how many SMs of each local GPU the kernels of a list may take together. Kernels of
 * several peers or directions share them, and take turns if they are too few. 0: config.max_sms. Where that is 0 too:
 * - Kernels take 32 SMs for reads and 64 for writes, with however many peers. What stays on the GPU takes as many of
 *   its own. That many fill NVLink; writes lack 2 % (measured, two H100). With 16, copies are up to 6 % slower.
 * - The kernels of a long list (three to ten) overlap, and may take several times as many.
 *
 * config.list_memory is how much pinned host memory lists may take, in bytes.
 * - It is taken as needed, 4 MiB at a time, and kept until nvlx_engine_destroy.
 * - A list needs 24 bytes for each piece that kernels carry (request_info.kernel_fragments), and up to 12 KiB and 0.1 %
 *   more.
 * - While there is enough, it takes up to 768 KiB more for each GPU, peer's GPU and direction. For a moment it takes
 *   twice as much.
 * - A list that finds no room is refused with NVLX_EBUSY. The message tells how much the whole list needs. */

/* ---- Mapping ahead ----------------------------------------------------------------------------------- */

enum {
    NVLX_NO_MAP = 1 /* NVLX_EAGAIN rather than open a mapping within the call */
};

/* Maps the peer's segments under [address, address + length) on a local GPU, ahead of the first transfer. It makes that
 * GPU's context as nvlx_alloc does.
 * Errors: those of nvlx_transfer, or NVLX_EINVAL (also: the range wraps around). */
int nvlx_peer_map(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length);

/* Wakes NVLink between this engine's GPUs and the peer's, ahead of a transfer. It has nothing to do with Sleep, which
 * is about memory. NVLink sleeps when nobody has used it for 50 ms, or for what `nvidia-smi nvlink -gLowPwrInfo` says.
 * The next transfer then takes about 0.2 ms longer: so call this 0.2 ms or more before it (measured, two H200:
 * src/doc/performance.md, After a pause).
 * - It launches one small kernel on each of this engine's GPUs for each GPU of the peer, and does not wait for its
 *   end. It does no harm where NVLink is awake.
 * - It does nothing between two GPUs where nothing was mapped yet: see nvlx_peer_map. Nor does it where CUDA does not
 *   show the peer's GPU here.
 * - nvlx_transfer does it for a list of 4,096 ops and more, if this engine has started none for 40 ms. It wakes from
 *   the GPUs with the list's local bytes, for at most 16 pairs of a GPU and a peer. Shorter lists, nvlx_post and
 *   nvlx_blocks_transfer wake nothing.
 * Errors: NVLX_ESTALE (the peer is gone), NVLX_EINVAL. */
int nvlx_peer_wake(struct nvlx_peer *peer);

/* ---- Prepared lists ---------------------------------------------------------------------------------- */

struct nvlx_prepared; /* a list that was checked and relocated once, to be posted many times */

/* Checks, maps and relocates a list once, as nvlx_transfer does, and starts nothing. It is for lists that are copied
 * again and again, such as the layout of a KV cache. Until nvlx_prepared_free, its own regions cannot be unregistered,
 * and it takes some of config.list_memory. It keeps a copy of the list. What its peers withdraw is closed all the same.
 * A stream, a message and NVLX_DONE_EVENT are options of nvlx_post, not of this call. Errors: those of nvlx_transfer.
 */
int nvlx_prepare(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                 const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared);

/* Starts all copies of a prepared list. This costs a launch or a few, whatever the number of ops. `options` may name
 * a stream, NVLX_DONE_EVENT with `user`, and a message. Its other fields must be 0: nvlx_prepare took them. A list
 * may be posted again before its last post is complete. After memory of the list slept, or has to be mapped in
 * another way, the next post first checks and maps the list again, as nvlx_prepare does.
 * Errors: NVLX_ESTALE (bytes of the list were withdrawn, or resumed elsewhere: prepare it again; or a peer is gone),
 *         NVLX_ESUSPENDED (they sleep: post it when they are resumed),
 *         others as nvlx_transfer. */
int nvlx_post(struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
              struct nvlx_request **request);

/* Waits for its posts in flight, and frees it. Their requests stay the caller's. */
int nvlx_prepared_free(struct nvlx_prepared *prepared);

/* ---- Blocks by id ------------------------------------------------------------------------------------ */

/* A paged KV cache is an array of blocks for each layer, or for K and V of each layer. Each such array is a region of a
 * table. Two tables, one for each side, are checked once. Then a transfer names blocks by two arrays of integers. Only
 * these go to the GPU, where a kernel computes the addresses of all layers.
 *
 *     one array a layer            a region a layer: its pointer, stride and length are the bytes of a block (page)
 *     K and V apart                two regions a layer
 *     groups with ids of their own `group`; all regions of a group have the same number of blocks, not others
 *     some heads of each block     `offset` and `length` of them; each side may have them elsewhere in its block
 *
 * Where one array has all, its axes are layers L, blocks B, heads H, tokens of a block N, and bytes C of a head and
 * token. Here HNC is H * N * C bytes, and so on. Layer l, head h, token t:
 *
 *     order    regions               base +              stride   length   n heads from h on
 *     LBHNC    a layer               l * BHNC            HNC      HNC      offset h * NC, length n * NC
 *     LBNHC    a layer               l * BHNC            HNC      HNC      a layer and token: see below
 *     LHBNC    a layer and head      (l * H + h) * BNC   NC       NC       regions of these heads
 *     BLHNC    a layer               l * HNC             LHNC     HNC      offset h * NC, length n * NC
 *     BLNHC    a layer               l * HNC             LHNC     HNC      a layer and token: see below
 *     BHLNC    one                   0                   LHNC     LHNC     offset h * LNC, length n * LNC
 *
 * - With heads inside tokens, some heads are a region a layer and token: base + t * HC, offset h * C, length n * C.
 * - The sides may differ in order, if regions have the same bytes: such as a region a layer and head of all orders with
 *   HNC, HBNC or HLNC.
 *
 * Block `id` of a region is the `length` bytes at base + id * stride + offset. */
struct nvlx_block_region {
    uint64_t base;   /* where block 0 begins: a pointer of this process, or an address of the peer */
    uint64_t stride; /* bytes from one block to the next */
    uint64_t offset; /* bytes from the begin of each block to what is moved */
    uint64_t length; /* bytes of each block that are moved, at least 1. offset + length <= stride */
    uint64_t blocks; /* ids are 0 to blocks - 1. At least 1, less than 2^32 */
    uint32_t group;  /* regions of one group share their ids. Any number */
    uint32_t flags;  /* must be 0 */
};

struct nvlx_blocks; /* two tables of regions, checked and mapped */

struct nvlx_blocks_options {
    size_t size;
    uint32_t flags;      /* NVLX_NO_MAP: see Mapping ahead */
    uint32_t access;     /* NVLX_ACCESS_...: what transfers shall do. The default is NVLX_ACCESS_READ */
    uint64_t generation; /* as transfer_options.generation */
};

static inline void nvlx_blocks_options_init(struct nvlx_blocks_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->access = NVLX_ACCESS_READ;
}

/* Checks, maps and relocates all blocks of two tables once. Region i of one is region i of the other: both have the
 * same `length` and `group`. All regions of a group have the same number of `blocks` on a side; the sides may differ.
 * The bytes of all blocks are registered, here and there. What is between them need not be. The tables are copied.
 * - It is a prepared list in all that concerns memory: what nvlx_prepare says of its own regions, of peers, of sleep
 *   and of errors holds. It takes 40 bytes of config.list_memory a region, in one piece.
 * - Where blocks have gaps, checking takes time and memory for each: about 20 ns and 50 bytes, kept until it is freed.
 * - There may be up to 65,536 regions.
 * Errors: those of nvlx_prepare (the message names the region and the block). */
int nvlx_blocks_create(struct nvlx_engine *engine, struct nvlx_peer *peer, const struct nvlx_block_region *local,
                       const struct nvlx_block_region *remote, size_t count, const struct nvlx_blocks_options *options,
                       struct nvlx_blocks **blocks);

enum {
    NVLX_IDS_ON_GPU = 1 /* in block_ids.flags: `local` and `remote` are device memory */
};

/* Which blocks a transfer moves: block local[i] here and block remote[i] there, in each of the regions. */
struct nvlx_block_ids {
    size_t size;
    uint32_t opcode;       /* NVLX_OP_READ or NVLX_OP_WRITE */
    uint32_t group;        /* whose ids these are */
    const void *local;     /* [count] ids of this side, */
    const void *remote;    /* and of the peer's. Read during the call. Aligned as integers of their width are */
    size_t count;          /* of each. Ids may repeat. 0: nothing is moved */
    uint32_t width;        /* bytes of an id: 4 or 8. The default is 4. With the wrong one, other ids are read: only
                              one that is out of range shows it */
    uint32_t flags;        /* NVLX_IDS_ON_GPU: see below. Else 0 */
    uint32_t first_region; /* of the group's regions, in their order in the tables */
    uint32_t regions;      /* how many from there on; 0: all that follow */
};

static inline void nvlx_block_ids_init(struct nvlx_block_ids *ids) {
    memset(ids, 0, sizeof *ids);
    ids->size = sizeof *ids;
    ids->opcode = NVLX_OP_READ;
    ids->width = 4;
}

/* Starts copies of blocks. What nvlx_transfer says of requests, streams, messages, events, budgets and priorities
 * holds. Several may be in flight. Ids are checked before the first copy starts. Copies have no order.
 * - With NVLX_MECHANISM_AUTO one kernel copies all, whatever the number of regions.
 * - With NVLX_MECHANISM_COPY_ENGINE a block is one copy for all regions, where they are at equal distances and in one
 *   allocation, on both sides. Ids that follow each other on both sides are one copy a region. A copy takes 3.5 us
 *   beside its bytes (measured, two H200).
 * - Copies become a plain list of ops, which costs more CPU, where regions lie on several GPUs, and where the peer is
 *   in this process. So they do where one region lies in several allocations that are mapped apart.
 * - Ids on the GPU may be written by a kernel just before, in options.stream. They are on the GPU of the local blocks,
 *   registered or not. They are read when the copies run: until the request is complete they must not change. The
 *   kernel checks them. If one is out of range, its pair is not copied, others are, and the request fails with
 *   NVLX_ERANGE. What takes a plain list of ops (above) gives NVLX_ENOTSUP at once.
 * - options.generation must be 0, and of options.flags only NVLX_DONE_EVENT may be set. Digests are of whole regions:
 *   so NVLX_VERIFY gives NVLX_ENOTSUP.
 * Errors: NVLX_ERANGE (an id is out of range: the message has its index, the id and the bound. Nothing is moved),
 *         NVLX_EINVAL (also: there is no such group or region), NVLX_EACCES (blocks_options.access lacks the
 *         direction), NVLX_ESTALE, NVLX_ESUSPENDED (as nvlx_post), others as nvlx_transfer. */
int nvlx_blocks_transfer(struct nvlx_blocks *blocks, const struct nvlx_block_ids *ids,
                         const struct nvlx_transfer_options *options, struct nvlx_request **request);

/* Waits for its transfers in flight, and frees it. Their requests stay the caller's. */
int nvlx_blocks_free(struct nvlx_blocks *blocks);

/* ---- Digests ----------------------------------------------------------------------------------------- */

/* Digests `length` bytes of this process's memory, where they are. They may lie in several regions and allocations,
 * also on several GPUs. The value depends on the bytes alone: it is the same on every backend, at every alignment.
 *
 * It is made of XXH64 with seed 0, a published hash of 64 bits (https://xxhash.com). The bytes are cut into leaves of
 * 16,384 bytes. The last leaf may be shorter. Each leaf has an XXH64, which is a little-endian word of 8 bytes. The
 * value is the XXH64 of these words, in their order. That of 0 bytes is 0xef46db3751d8e999, whatever the address. In
 * Python, with the package xxhash:
 *
 *     leaves = [xxhash.xxh64_intdigest(data[i : i + 16384]) for i in range(0, len(data), 16384)]
 *     value = xxhash.xxh64_intdigest(b"".join(leaf.to_bytes(8, "little") for leaf in leaves))
 *
 * - Bytes that were changed, moved, swapped, added or lost by mistake give another value: the chance that they do not
 *   is about 1 in 2^64. It is not cryptographic. Who wants to can make other bytes with the same value.
 * - What writes the bytes must be complete before the call. Until it returns, they must not change. nvlx_unregister
 *   and nvlx_suspend wait for it, and nvlx_free refuses.
 * - It waits for its own kernels, which take any SM that is free, and for no stream of the caller's.
 * - It takes up to two streams of each GPU, with 128 KiB of pinned memory each. More threads at a time take more. The
 *   engine keeps them for the next call.
 * Errors: NVLX_ERANGE (not all of the range is registered; the message tells from where on),
 *         NVLX_ESTALE (memory in the range was freed), NVLX_ESUSPENDED (it sleeps),
 *         NVLX_ENOTSUP (the library has no kernels for the GPU). */
int nvlx_digest(struct nvlx_engine *engine, const void *address, size_t length, uint64_t *value);

/* Digests all bytes of a region, as nvlx_digest does, and tells peers: they find it in nvlx_region_info, and can check
 * by it what they read. `*value`, unless that is NULL, is the digest. It holds until the bytes change. Then call this
 * again: until peers know the new digest, what they read counts as damaged. nvlx_hold, before the change, and
 * nvlx_publish make both one. A digest stays until its region is withdrawn, or sleeps. Addresses of an older generation
 * stay good.
 * Errors: NVLX_EINVAL (also: peers are told nothing of the region), NVLX_ESTALE (it is withdrawn, or its memory was
 *         freed), NVLX_ESUSPENDED (it sleeps, or did meanwhile), NVLX_ENOTSUP (see nvlx_digest),
 *         NVLX_EBUSY (see Limits: Descriptor). */
int nvlx_region_set_digest(struct nvlx_region *region, uint64_t *value);

/* In transfer_options.flags. When its bytes are in place, the transfer digests each region that it has read, where the
 * bytes are now. It compares that with the digest that the peer told before. If one differs, the transfer ends with
 * NVLX_EDIGEST. The message names the first such region, an op, and both digests. The bytes stay as they are.
 * - All ops must be reads, of whole regions of which the peer has told a digest. An op may read several of them, one
 *   behind the other. Several ops may read one together. Then its bytes may go anywhere, in pieces of 16,384 bytes. Its
 *   last piece may be shorter. Pieces that stay together may be cut anywhere.
 * - An op that reads whole regions is checked by itself. Only what others read in parts is put together.
 * - Where regions begin at the same address, the longest that is read counts. Each byte is compared once: regions that
 *   lie inside of another are not looked at.
 * - nvlx_prepare and nvlx_post do not take it. So lists that are verified are given to nvlx_transfer each time.
 * - What cannot be verified is refused, before the first copy. So nothing is taken for verified that was not.
 * - No call waits for it. Whoever asks for the request (nvlx_test, nvlx_wait) drives it on, as the GPU goes on. With a
 *   message or NVLX_DONE_EVENT nobody needs to ask. At most 32 may be under way: see Limits.
 *   Work behind it in transfer_options.stream does not wait for it either: ask the request before you use the bytes.
 * - The first bytes are digested while the last are on their way, where copy engines bring them, and without a stream.
 * - It takes two streams and 256 KiB of pinned memory for each GPU, and for small transfers half of that. The engine
 *   keeps them for others.
 * Errors: those of nvlx_transfer, or NVLX_EINVAL (an op cannot be verified; the message names it),
 *         NVLX_ENOTSUP (see nvlx_digest; or a piece goes to memory of two GPUs; nvlx_prepare and nvlx_post give it
 *         always). */
enum {
    NVLX_VERIFY = 2 /* NVLX_EDIGEST rather than wrong bytes */
};

/* ---- Relays ------------------------------------------------------------------------------------------ */

/* A relay brings the same bytes from one process, the source, to many others, the readers: such as weights after a
 * training step. Each reader passes on what it has. So each link carries the bytes once, in each direction, however
 * many readers there are.
 *
 *     options.readers = 3
 *     source:  nvlx_relay_offer("@weights", parts, 8)     each reader:  nvlx_relay_join("@weights", parts)
 *              nvlx_relay_wait(relay, -1)                               nvlx_relay_wait(relay, -1): bytes are right
 *              nvlx_relay_hold(relay)                                   ... they are used ...
 *              ... new bytes are put in place ...
 *              nvlx_relay_next(relay)                                   nvlx_relay_next(relay): may be overwritten
 *              nvlx_relay_wait(relay, -1)                               nvlx_relay_wait(relay, -1)
 *
 * - Content. It is a list of parts, each with a name. A reader gives the same names and lengths, in any order, with
 *   addresses of its own. Parts may lie on several GPUs.
 * - Who reads from whom. The source tells it to each reader. The first reader on each GPU reads from the GPU before it
 *   in a chain. Others on a GPU read from that first one. A reader may join at any time.
 * - Pieces. A piece is passed on as soon as it is in place: a signal behind its bytes says so on the GPU. It is checked
 *   later: who reads from a reader whose bytes are wrong finds that, too.
 * - Death. Who read from a reader that has died goes on with another parent, at the piece where it was. When the source
 *   is gone, those that are not done get NVLX_ESTALE.
 * - A reader that is stopped is slow, not dead. Who reads from one that says nothing for a sixteenth of
 *   options.patience_ns, or for all of it if that one has all bytes, gets another parent. The stopped one goes on by
 *   itself when its process does. For a stopped source, readers wait.
 * - Checked. The source digests its bytes, as nvlx_digest does, while they are on their way. Each reader digests
 *   what has arrived. nvlx_relay_wait gives 0 only if all digests are equal.
 * - Generations. Each offer, and then each nvlx_relay_next of the source, is a generation of the bytes. The first is 1.
 * - An engine of its own. A relay makes an engine, with the backend, GPUs and budgets of the caller's. It registers the
 *   parts there, for reading. The caller need not register them. Events of the caller's engine are not touched. The
 *   caller's engine may end before the relay, if it did not allocate the parts.
 * - What it takes: two threads ("nvlx-relay", "nvlx-relay-sum"), 2 MiB on the first GPU of the parts, mappings of its
 *   parent's memory, and a connection to each reader at the source.
 * - Copy engines carry the pieces, as of any list. Digests take SMs that are free. Where a reader waits for its
 *   parent, a kernel on one SM looks again and again, if config.mechanism is auto. */
struct nvlx_relay;

struct nvlx_relay_part {
    const char *name; /* as region_options.name, copied. Not "nvlx-relay" or "nvlx-relay-reader" */
    void *address;   /* memory of this process, which can be shared: see Kinds of memory. Parts of a reader lie apart */
    uint64_t length; /* bytes; may be 0 */
};

/* Options of a relay. None is needed. */
struct nvlx_relay_options {
    size_t size;
    uint64_t piece_bytes; /* of the source: what is passed on at a time, at least 65,536. 0: 1 to 128 MiB, the longer
                             the more bytes there are */
    int64_t patience_ns;  /* of the source: see above. At least 10 ms. 0: half a second */
    uint32_t readers;     /* of the source: how many nvlx_relay_wait waits for, of each generation. Who was lost, or has
                             left, is not waited for, unless another one has joined. 0: for all that have joined; before
                             the first has, for nobody */
    uint32_t reserved;    /* 0 */
    const struct nvlx_serve_options
        *serve; /* who may connect: to the source, and to each reader. NULL: as nvlx_serve */
};

static inline void nvlx_relay_options_init(struct nvlx_relay_options *options) {
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Offers the bytes of these parts to readers, at an address as that of nvlx_serve. They must be complete. They must not
 * change until nvlx_relay_hold gives 0, nor may they be freed before nvlx_relay_free. It is also a server like any
 * other: nvlx_connect finds the parts by name. The call waits as nvlx_engine_create does. The caller frees the relay.
 * Errors: NVLX_EINVAL (also: two parts of one name, or no byte at all; the address has more than 90 bytes), those of
 *         nvlx_engine_create, nvlx_register and nvlx_serve. */
int nvlx_relay_offer(struct nvlx_engine *engine, const char *address, const struct nvlx_relay_part *parts, size_t count,
                     const struct nvlx_relay_options *options, struct nvlx_relay **relay);

/* Joins as a reader: from now on the bytes of these parts are overwritten by the newest generation. It waits up to
 * `timeout_ns` (< 0: for ever) for the source, as nvlx_connect does. The reader serves its parts in turn, at
 * the source's address with "." and 16 digits behind it. The caller frees the relay.
 * Errors: those of nvlx_relay_offer, nvlx_connect, or
 *         NVLX_EINVAL (a length differs, two parts overlap, or the source has others: the message says which),
 *         NVLX_ENOENT (the source has no part of a name, or no relay is served there),
 *         NVLX_EBUSY (the source has as many readers as it can have), NVLX_EVERSION (it speaks another version),
 *         NVLX_ESTALE (it has ended meanwhile), NVLX_ETIMEDOUT (nobody serves, or does not answer). */
int nvlx_relay_join(struct nvlx_engine *engine, const char *address, const struct nvlx_relay_part *parts, size_t count,
                    const struct nvlx_relay_options *options, int64_t timeout_ns, struct nvlx_relay **relay);

/* Waits up to `timeout_ns` (< 0: for ever, 0: asks once).
 * - A reader waits until all bytes of a generation are in place, and right. They stay so until its nvlx_relay_next.
 *   Until then it may read them, and must not change them: others read them, too.
 * - The source waits until options.readers readers have the generation, and no reader is still at it. In the place of
 *   those that are not there, each that was lost or has left counts. If options.readers is 0, it waits for all that
 *   have joined, also for those whose nvlx_relay_next has not come yet. It also waits for its own digests.
 * Errors: NVLX_ETIMEDOUT (not yet; the message says what is missing). Of a reader also
 *         NVLX_EDIGEST (bytes are not those of the source: the message names the part),
 *         NVLX_ESTALE (the source is gone), others as nvlx_transfer. The relay then only can be freed. */
int nvlx_relay_wait(struct nvlx_relay *relay, int64_t timeout_ns);

/* Of the source: its bytes are to be changed. From now on no reader begins with this generation: who joins, or comes
 * back, waits for the next one.
 * Errors: NVLX_EBUSY (a reader is at this generation, or the source digests it yet. A reader that has said nothing for
 *         options.patience_ns does not count: it goes on with the next generation), or how the relay failed. */
int nvlx_relay_hold(struct nvlx_relay *relay);

/* Begins the next generation. Of the source: new bytes are in place. nvlx_relay_hold comes before the first of them is
 * changed: without it, who joins meanwhile reads bytes that change, and may get NVLX_EDIGEST. Of a reader: its bytes
 * may be overwritten, when the source has a newer generation. It waits for nobody. A reader that calls it late misses
 * generations, unless the source waits for it.
 * Errors: NVLX_EBUSY (a reader is not done; or as nvlx_relay_hold), or how the relay failed. */
int nvlx_relay_next(struct nvlx_relay *relay);

struct nvlx_relay_info {
    size_t size;
    uint64_t generation; /* source: that is offered. Reader: that it has, or is at. 0: none yet */
    uint64_t bytes;      /* of all parts */
    uint64_t arrived;    /* of them are in place. Source: all */
    uint64_t elapsed_ns; /* of a reader: from when it was told whom to read from until all was in place and right, of
                            this generation. Source: until the last reader has said so. 0: not yet */
    uint64_t parents;    /* of a reader: whom it has read from, one after the other, in this generation. On a busy
                            machine they change often */
    uint32_t source;     /* 1: it is the source */
    uint32_t readers;    /* source: that are at the generation, or have it */
    uint32_t done;       /* source: of them have it */
    uint32_t lost;       /* source: that have died, left or failed since the generation began, without it */
    char parent[112];    /* of a reader: the address of whom it reads from. "": of the source, or of none yet */
};

/* Tells about a relay. `info->size` must be sizeof *info. The struct is filled. */
int nvlx_relay_get_info(struct nvlx_relay *relay, struct nvlx_relay_info *info);

/* Ends this end of a relay. Those that read from it go on with another parent; if it is the source, they fail unless
 * they are done. It waits up to `timeout_ns` (< 0: for ever) until nobody reads its parts, as nvlx_unregister does.
 * After 0 they may be freed. No other thread may use the relay. Errors: NVLX_ETIMEDOUT (somebody still reads: the
 * message says who. Only this call may be repeated). */
int nvlx_relay_free(struct nvlx_relay *relay, int64_t timeout_ns);

/* ---- Counts ------------------------------------------------------------------------------------------ */

struct nvlx_request_info {
    size_t size;
    int32_t status;                          /* as nvlx_test would return */
    uint32_t sms;                            /* that its kernels take together on one GPU, at most. Where max_sms is
                                                0, kernels that overlap may take more. 0: there are no kernels */
    uint64_t ops;                            /* entries of the caller's list */
    uint64_t bytes;                          /* that the list moves */
    uint64_t submit_ns;                      /* time spent in nvlx_transfer or nvlx_post */
    uint64_t elapsed_ns;                     /* from the call until completion was first seen; 0 while in flight */
    uint64_t engine_bytes, engine_fragments; /* what copy engines carry, after planning: adjacent ops are joined */
    uint64_t kernel_bytes, kernel_fragments; /* what kernels carry, longer ones cut into pieces */
    char error[256];                         /* how it failed, in the driver's words; "" if it did not */
};

/* Tells about a request, in flight or complete. `info->size` must be sizeof *info. The struct is filled. */
int nvlx_request_get_info(struct nvlx_request *request, struct nvlx_request_info *info);

struct nvlx_engine_info {
    size_t size;
    uint64_t segments;         /* held now */
    uint64_t regions;          /* registered now */
    uint64_t handles_exported; /* since the engine was made: one a segment */
    uint64_t mappings;         /* of peers' segments, open now */
    uint64_t requests;         /* in flight, as far as anybody has asked: those not seen complete count */
};

/* Counts of what the engine holds. `info->size` must be sizeof *info. The struct is filled. */
int nvlx_engine_get_info(struct nvlx_engine *engine, struct nvlx_engine_info *info);

/* ---- Metrics ----------------------------------------------------------------------------------------- */

/* Counts since the engine was made. They only grow, except for those that say "now". What each transfer adds is a few
 * additions when its end is seen, whatever its length. */
struct nvlx_counts {
    size_t size;
    uint64_t transfers;                             /* that ended well, nvlx_stream_signal's among them */
    uint64_t failed;                                /* transfers that failed after they were submitted; 0 of a peer */
    uint64_t refused;                               /* calls that refused to start or prepare one; 0 of a peer */
    uint64_t in_flight;                             /* transfers now, until their bytes are in place; 0 of a peer */
    uint64_t queued;                                /* copies and kernels in lanes' queues now; 0 of a peer */
    uint64_t submit_ns, transfer_ns;                /* sums of request_info.submit_ns and elapsed_ns */
    uint64_t engine_read_bytes, engine_write_bytes; /* what copy engines carried, */
    uint64_t kernel_read_bytes, kernel_write_bytes; /* and kernels, of transfers that ended well */
    uint64_t engine_read_fragments, engine_write_fragments; /* likewise: copies after planning */
    uint64_t kernel_read_fragments, kernel_write_fragments;
    uint64_t mappings_opened, mappings_closed; /* of peers' memory */
    uint64_t mappings_failed;                  /* that could not be opened */
    uint64_t mappings_revoked;                 /* whose memory the peer withdrew */
    uint64_t revocations, revocation_ns;       /* waits until all followers had let go, where some had to, and
                                                  the time that took; 0 of a peer */
    uint64_t revocations_late;                 /* waits that ended before that; 0 of a peer */
    uint64_t peers;                            /* open now; 0 of a peer */
    uint64_t peers_lost;                       /* whose connection ended by itself; 0 of a peer */
    uint64_t graph_faults;                     /* in how many looks a part of a graph had left out pairs: see Graphs;
                                                  0 of a peer */
};

/* Tells the counts of an engine, or with a peer those that concern this peer. `counts->size` must be sizeof *counts.
 * The struct is filled. Transfers that have ended are seen by this call. The numbers are read while others go on: they
 * may be of slightly different moments.
 * - A transfer that names several peers counts once for each of them, and once for the engine.
 * - 64 peers at a time are counted one by one, the first that come. Those beyond are counted together, as are bytes of
 *   one transfer for several peers that cannot be told apart: peers on one GPU.
 * - Two peers of one engine, such as one of a text and one of a connection, have the same counts.
 * - The engine's own counts keep what was counted for peers that are closed.
 * Errors: NVLX_EBUSY (the peer came when 64 others had counts of their own). */
int nvlx_stats(struct nvlx_engine *engine, struct nvlx_peer *peer, struct nvlx_counts *counts);

/* Writes all counts, and histograms of times, in Prometheus' text format 0.0.4. src/doc/metrics.md lists the metrics.
 * With `text` NULL and `room` 0, *length becomes a room that is enough, unless peers are opened meanwhile. Else the
 * text is written, with a final NUL, and *length is its length without that.
 * - Peers are told apart by a label, as nvlx_stats does: "other" are those counted together, "closed" all that are
 *   closed. So the number of lines has a limit, whatever the number of peers.
 * - The text has the counts of one engine. A process with several gives each a target of its own.
 * Errors: NVLX_EINVAL (also: `room` is too short. The message tells how much it takes. The text is then "", if it has
 *         room for that). */
int nvlx_stats_prometheus(struct nvlx_engine *engine, char *text, size_t room, size_t *length);

/* Asks the engine that serves a peer of nvlx_connect for that text, over the connection. It tells it if
 * serve_options.stats is set there. It waits at most `timeout_ns` (< 0: for ever). No answer comes at once, so 0 gives
 * NVLX_ETIMEDOUT from a server that lives, too. Free the text by nvlx_text_free.
 * Errors: NVLX_EACCES (the peer does not tell it), NVLX_ENOTSUP (the peer was made from a text, or its library is too
 *         old), NVLX_ETIMEDOUT (no answer in time), NVLX_ESTALE (the peer is gone). */
int nvlx_peer_stats(struct nvlx_peer *peer, int64_t timeout_ns, char **text, size_t *length);

/* ---- The log ----------------------------------------------------------------------------------------- */

enum { NVLX_LOG_ERROR = 0, NVLX_LOG_WARNING = 1, NVLX_LOG_INFO = 2, NVLX_LOG_DEBUG = 3 };

typedef void (*nvlx_log_function)(void *context, int level, const char *message);

/* Sends the process's log messages to `function`. With NULL, the default, they go to glog if the program has
 * initialised it, else to stderr. Messages above `level` are dropped. Until this is called, the level is what the
 * environment variable NVLX_LOG_LEVEL says (0 to 3), else NVLX_LOG_WARNING. Another value of the variable is told by a
 * warning, once.
 * - The function is called from any thread, maybe with a lock of the library held. It must not call the library, nor
 *   wait for a thread that does.
 * - After this call the old function is not called any more.
 * - This library never initialises glog: where messages end up is the program's choice. With NVLX_STATIC_DEPS it has
 *   a glog of its own, so it writes to stderr. A forked child writes to stderr what would go to glog.
 * - glog and stderr get 200 lines of each level a second. A line says so. What is left out is counted, and the next
 *   line of this level, a second later or more, tells how many there were. A function gets all of them.
 * - At INFO a line a peer tells how its memory is reached, what carries copies, and why. At DEBUG each mapping and each
 *   plan of a transfer has a line.
 * - Failures of calls are logged as warnings, and so are transfers that fail, wrong digests among them. Those that fail
 *   by NVLX_EDEVICE are errors. That a peer has died is a warning, that its engine has ended is INFO. NVLX_EBACKEND is
 *   INFO too. NVLX_EAGAIN, NVLX_ETIMEDOUT, NVLX_EBUSY, NVLX_ENOENT and NVLX_ESUSPENDED are logged at DEBUG, since
 *   programs ask for them. NVLX_EFORK is not logged. Handles never are.
 * Errors: NVLX_EBUSY (a log function itself called this). */
int nvlx_set_log(int level, nvlx_log_function function, void *context);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
