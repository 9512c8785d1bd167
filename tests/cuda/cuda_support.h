/* What the tests on real GPUs share: checks that end the process, child processes, and a child that owns memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A test is a program. `test_main` comes first in its main. A child is the same program started anew in a role, since a
 * process that has used CUDA must not go on after fork; it dies with its parent. Whatever waits has a timeout, and a
 * watchdog ends each process. */
#ifndef CUDA_SUPPORT_H
#define CUDA_SUPPORT_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cuda_kernels.h"
#include "nvlxfer.h"

#define MIB       ((size_t)1 << 20)
#define SECOND_NS INT64_C(1000000000)
#define PATIENCE  (20 * SECOND_NS) /* in which any wait of a test must end */

/* ---- Checks: a failed one prints where and why, and ends the process with 1 ---------------------------- */

#define FAIL(...)         fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define EXPECT(condition) ((condition) ? (void)0 : fail_at(__FILE__, __LINE__, "not so: %s", #condition))
#define OK(call)          ok_at(__FILE__, __LINE__, (call), #call)
#define CUDA(call)        cuda_at(__FILE__, __LINE__, (call), #call)
/* That the call fails with this code, and that nvlx_last_error has these words. */
#define REFUSED(call, code, words) refused_at(__FILE__, __LINE__, (call), #call, code, words)

void fail_at(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void ok_at(const char *file, int line, int code, const char *call);
void cuda_at(const char *file, int line, cudaError_t error, const char *call);
void refused_at(const char *file, int line, int code, const char *call, int expected, const char *words);

/* ---- The process --------------------------------------------------------------------------------------- */

struct role {
    const char *name;
    void (*run)(int socket, int argument); /* ends the child's work by returning: it then exits with 0 */
};

/* Does not return in a child. `roles` ends with a NULL name. Starts the watchdog. */
void test_main(int argc, char **argv, const struct role *roles, unsigned seconds);

/* How many GPUs CUDA shows; ends the test as skipped if they are fewer. Makes no context. */
int gpus_needed(int needed);

double now_ms(void);

/* A driver function, as cudaGetDriverEntryPointByVersion gives it: driver_function("cuCtxGetCurrent", 4000, (void
 * **)&pointer). */
void driver_function(const char *name, unsigned version, void **function);

/* ---- Children ------------------------------------------------------------------------------------------ */

struct child {
    pid_t pid;
    int socket;
};

/* `visible`: CUDA_VISIBLE_DEVICES of the child; NULL: as here. */
void child_start(struct child *child, const char *role, int argument, const char *visible);
/* Closes the socket, on which a child ends, and waits for it; fails if it does not end well. */
void child_end(struct child *child);
/* SIGKILL, and waits until it is gone. */
void child_kill(struct child *child);

/* Whole messages; they fail if the other end is gone or takes too long. */
void put(int socket, const void *bytes, size_t length);
void get(int socket, void *bytes, size_t length);
bool get_or_end(int socket, void *bytes, size_t length); /* false: the other end has closed */
void put_text(int socket, const char *text, size_t length);
char *get_text(int socket, size_t *length); /* to be freed */

/* ---- The library --------------------------------------------------------------------------------------- */

struct nvlx_engine *engine_on(const int *gpus, size_t count);
/* Both GPUs may be the same. */
struct nvlx_engine *engine_on_pair(int gpu, int other);

/* One op in the order of a stream, or with NULL in none. */
struct nvlx_request *start(struct nvlx_engine *engine, uint32_t opcode, struct nvlx_peer *peer, void *local,
                           uint64_t remote, size_t length, void *stream);
/* Waits for it, fails if it failed, frees it. */
void finish(struct nvlx_request *request);

/* ---- An owner: a child with memory that this process reads and writes ----------------------------------- */

/* Its role is for every test's list of roles. The argument is its GPU. */
#define OWNER_ROLE                                                                                                     \
    { "owner", owner_role }
void owner_role(int socket, int gpu);

struct owner {
    struct child child;
    uint32_t segments;
    size_t bytes; /* of each segment */
    char *text;   /* its descriptor */
    size_t length;
};

/* Starts it with `segments` allocations of `bytes` each, registered whole, named "0", "1" and so on; segment i has the
 * words of seed i + 1. */
void owner_start(struct owner *owner, int gpu, uint32_t segments, size_t bytes, const char *visible);
struct nvlx_peer *owner_open(const struct owner *owner, struct nvlx_engine *engine);
uint64_t owner_address(struct nvlx_peer *peer, uint32_t segment);
/* How many words of the first `bytes` of a segment are not the seed's, as the owner itself sees them. */
uint64_t owner_wrong(const struct owner *owner, uint32_t segment, size_t bytes, uint32_t seed);
/* A CUDA handle of its last segment, as one exports it by hand. */
cudaIpcMemHandle_t owner_handle(const struct owner *owner);
void owner_end(struct owner *owner);
void owner_kill(struct owner *owner);

#endif
