/* What the tests on real GPUs share, beside what all tests do: checks of CUDA's calls, and a child that owns memory of
 * cudaMalloc. SPDX-License-Identifier: Apache-2.0
 *
 * A test is a program. `begin_process` comes first in its main. */
#ifndef CUDA_SUPPORT_H
#define CUDA_SUPPORT_H

#include <cuda_runtime_api.h>

#include "cuda_kernels.h"
#include "support.h"

#define GPU_PATIENCE    (20 * SECOND_NS) /* in which a GPU ends what a test gives it */
#define PROCESS_SECONDS 80 /* the watchdog of each process: longer than PATIENCE, so that FAIL comes first */

/* That a call of CUDA succeeds. */
#define CUDA(call) cuda_at(__FILE__, __LINE__, (call), #call)
void cuda_at(const char *file, int line, cudaError_t error, const char *call);

/* How many GPUs CUDA shows; ends the test as skipped if they are fewer. Makes no context. */
int gpus_needed(int needed);

/* A driver function, as cudaGetDriverEntryPointByVersion gives it: driver_function("cuCtxGetCurrent", 4000, (void
 * **)&pointer). */
void driver_function(const char *name, unsigned version, void **function);

void sort_values(double *values, size_t count);

/* Memory of cudaMalloc, of the current device. */
void *zeroed(size_t bytes);

/* ---- Children ------------------------------------------------------------------------------------------ */

/* `visible`: CUDA_VISIBLE_DEVICES of the child; NULL: as here. */
void cuda_child_start(struct child *child, const char *role, const char *visible);
/* An int as a message, which tells a child its GPU or how many there are. */
void put_int(int socket, int number);
int get_int(int socket);
/* Until the process at the other end does so, too. */
void meet(int socket);

/* ---- The library --------------------------------------------------------------------------------------- */

struct nvlx_engine *engine_on(const int *gpus, size_t count);
/* Both GPUs may be the same. */
struct nvlx_engine *engine_on_pair(int gpu, int other);

/* One op in the order of a stream, or with NULL in none. */
struct nvlx_request *start_op(struct nvlx_engine *engine, uint32_t opcode, struct nvlx_peer *peer, void *local,
                              uint64_t remote, size_t length, void *stream);

/* ---- An owner: a child with memory that this process reads and writes ----------------------------------- */

/* Its role is for every test's list of roles. */
#define CUDA_OWNER_ROLE                                                                                                \
    { "cuda_owner", cuda_owner_role }
void cuda_owner_role(int socket);

struct cuda_owner {
    struct child child;
    uint32_t segments;
    size_t bytes; /* of each segment */
    char *text;   /* its descriptor */
    size_t length;
};

/* Starts it with `segments` allocations of `bytes` each, registered whole, named "0", "1" and so on; segment i has the
 * words of seed i + 1. */
void cuda_owner_start(struct cuda_owner *owner, int gpu, uint32_t segments, size_t bytes, const char *visible);
struct nvlx_peer *cuda_owner_open(const struct cuda_owner *owner, struct nvlx_engine *engine);
uint64_t cuda_owner_address(struct nvlx_peer *peer, uint32_t segment);
/* How many words of the first `bytes` of a segment are not the seed's, as the owner itself sees them. */
uint64_t cuda_owner_wrong(const struct cuda_owner *owner, uint32_t segment, size_t bytes, uint32_t seed);
/* A CUDA handle of its last segment, as one exports it by hand. */
cudaIpcMemHandle_t cuda_owner_handle(const struct cuda_owner *owner);
void cuda_owner_end(struct cuda_owner *owner);
void cuda_owner_kill(struct cuda_owner *owner);

#endif
