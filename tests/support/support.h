/* What the tests of the whole library share: checks, a runner, child processes, and an owner: a child with memory that
 * a test reads and writes. Uses the public header alone.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A program is a list of tests. Each test is a process of its own, this same program started anew (a process that has
 * used CUDA must not go on after fork), so that one that crashes hides no other, and each can count what it holds. A
 * child has a role, and is started in the same way; it dies with its parent. Whatever waits has a timeout. A failed
 * check prints where and why, and ends the process with 1, whatever thread it is made in. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "nvlxfer.h"

#define KIB       ((size_t)1 << 10)
#define MIB       ((size_t)1 << 20)
#define SECOND_NS INT64_C(1000000000)
#define PATIENCE  (60 * SECOND_NS) /* in which any wait of a test must end */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- Checks -------------------------------------------------------------------------------------------- */

#define FAIL(...)             fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define EXPECT(condition)     expect_at(__FILE__, __LINE__, (condition) ? 1 : 0, #condition)
#define EQUAL(wanted, number) equal_at(__FILE__, __LINE__, (uint64_t)(wanted), (uint64_t)(number), #number)
#define OK(call)              ok_at(__FILE__, __LINE__, (call), #call)
/* That the call fails with this code, and that nvlx_last_error has these words. */
#define REFUSED(call, code, words) refused_at(__FILE__, __LINE__, (call), #call, code, words)

void fail_at(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void expect_at(const char *file, int line, int holds, const char *condition);
void equal_at(const char *file, int line, uint64_t wanted, uint64_t number, const char *what);
void ok_at(const char *file, int line, int code, const char *call);
void refused_at(const char *file, int line, int code, const char *call, int expected, const char *words);

/* ---- The runner ---------------------------------------------------------------------------------------- */

struct test {
    const char *name;
    void (*run)(void);
};

struct role {
    const char *name;
    void (*run)(int socket); /* ends the child's work by returning: it then exits with 0 */
};

/* Both lists end with a NULL name. Without arguments runs all tests, else those named. The exit code of main. */
int run_tests(int argc, char **argv, const struct test *tests, const struct role *roles, unsigned seconds_each);

double now_ms(void);
uint32_t next_random(uint64_t *state); /* any state but 0 will do */

/* ---- What a process holds ------------------------------------------------------------------------------ */

struct holdings {
    size_t fds, threads, maps;
};
struct holdings holdings(void);
/* Under a sanitizer, maps are its own affair. */
void expect_holdings(const struct holdings *before, const char *when);
bool sanitized(void);

/* ThreadSanitizer does not let the forked child of a process with threads have threads of its own. */
bool children_have_threads(void);

/* ---- Children ------------------------------------------------------------------------------------------ */

struct child {
    pid_t pid;
    int socket;
};

void child_start(struct child *child, const char *role);
void child_end(struct child *child);  /* closes the socket, on which a child ends; fails if it does not end well */
void child_kill(struct child *child); /* SIGKILL, and waits until it is gone */

/* Whole messages; they fail if the other end is gone or takes too long. */
void put(int socket, const void *bytes, size_t length);
void get(int socket, void *bytes, size_t length);
bool get_or_end(int socket, void *bytes, size_t length); /* false: the other end has closed */
void put_text(int socket, const char *text, size_t length);
char *get_text(int socket, size_t *length); /* to be freed */

/* ---- The library --------------------------------------------------------------------------------------- */

struct nvlx_engine *make_engine(uint32_t max_requests); /* on GPUs 0 and 1, or twice the same */
void fill_config(struct nvlx_config *config);           /* the same GPUs */
int second_gpu(void);                                   /* 1, or 0 if there is no other */

uint8_t seed_byte(uint32_t seed, uint64_t i);
/* Memory of this process. `wrong` counts the bytes that are not the seed's. */
void fill(struct nvlx_engine *engine, void *address, size_t length, uint32_t seed);
uint64_t wrong(struct nvlx_engine *engine, const void *address, size_t length, uint32_t seed);
void *allocate(struct nvlx_engine *engine, int gpu, size_t length, uint32_t seed);
struct nvlx_region *register_range(struct nvlx_engine *engine, const void *address, size_t length, const char *name,
                                   uint32_t access);
struct nvlx_engine_info engine_info(struct nvlx_engine *engine);
struct nvlx_peer *open_peer(struct nvlx_engine *engine, const char *text); /* a string */
uint64_t find(struct nvlx_peer *peer, const char *name);

struct nvlx_op make_op(uint32_t opcode, struct nvlx_peer *peer, void *local, uint64_t remote, size_t length);
struct nvlx_request *start(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count);
void finish(struct nvlx_request *request); /* waits for it, fails if it failed, frees it */
void move(struct nvlx_engine *engine, uint32_t opcode, struct nvlx_peer *peer, void *local, uint64_t remote,
          size_t length);

/* The text with the string value behind the first "key" replaced; to be freed. */
char *with_field(const char *text, const char *key, const char *value);

/* ---- An owner: a child with memory --------------------------------------------------------------------- */

/* Its role is for every test's list of roles. */
#define OWNER_ROLE                                                                                                     \
    { "owner", owner_role }
void owner_role(int socket);

#define OWNER_SLOTS 64 /* allocations and regions, by number */

struct owner {
    struct child child;
};

void owner_start(struct owner *owner);
void owner_end(struct owner *owner);
void owner_kill(struct owner *owner);
/* The whole slot is filled with the seed. Returns the address in the owner. */
uint64_t owner_alloc(struct owner *owner, uint32_t slot, int gpu, size_t length, uint32_t seed);
int owner_free(struct owner *owner, uint32_t slot);
/* [offset, offset + length) of slot `slot` becomes region `region`. */
void owner_register(struct owner *owner, uint32_t region, uint32_t slot, size_t offset, size_t length, uint32_t access,
                    const char *name);
int owner_unregister(struct owner *owner, uint32_t region);
char *owner_export(struct owner *owner); /* to be freed */
int owner_serve(struct owner *owner, const char *address, uint32_t max_connections);
/* The owner's own view of its memory. Byte `offset + i` is compared with seed_byte(seed, i). */
uint64_t owner_wrong(struct owner *owner, uint32_t slot, size_t offset, size_t length, uint32_t seed);
void owner_fill(struct owner *owner, uint32_t slot, size_t offset, size_t length, uint32_t seed);
void owner_read(struct owner *owner, uint32_t slot, size_t offset, void *bytes, size_t length);

#endif
