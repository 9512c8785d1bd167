/* What the tests of the whole library share: engines, memory, transfers, what a process holds, and an owner: a child
 * with memory that a test reads and writes. Uses the public header alone. SPDX-License-Identifier: Apache-2.0 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "nvlxfer.h"
#include "process.h"

uint32_t next_random(uint64_t *state); /* any state except 0 will do */

/* ---- What a process holds ------------------------------------------------------------------------------ */

struct holdings {
    size_t fds, threads, maps; /* those of GPU memory */
};
/* Waits for what comes and goes by itself, at most 200 ms or so. */
struct holdings holdings(void);
/* The same, or fewer threads. */
void expect_holdings(const struct holdings *before, const char *when);

/* ---- The library --------------------------------------------------------------------------------------- */

struct nvlx_engine *make_engine(uint32_t max_requests); /* on GPUs 0 and 1, or twice the same */
void fill_config(struct nvlx_config *config);           /* the same GPUs */
int second_gpu(void);                                   /* 1, or 0 if there is no other */

uint8_t seed_byte(uint32_t seed, uint64_t i);
/* Memory of this process. `wrong` counts the bytes that are not the seed's. */
void fill(struct nvlx_engine *engine, void *address, size_t length, uint32_t seed);
uint64_t wrong(struct nvlx_engine *engine, const void *address, size_t length, uint32_t seed);
void *allocate(struct nvlx_engine *engine, int gpu, size_t length, uint32_t seed);
void *allocate_with(struct nvlx_engine *engine, uint32_t flags, int gpu, size_t length, uint32_t seed);
struct nvlx_region *register_range(struct nvlx_engine *engine, const void *address, size_t length, const char *name,
                                   uint32_t access);
struct nvlx_engine_info engine_info(struct nvlx_engine *engine);
struct nvlx_counts engine_counts(struct nvlx_engine *engine);
/* Peers' segments are closed by a thread of the library: waits until so many are left open. */
void expect_mappings(struct nvlx_engine *engine, uint64_t count);
struct nvlx_peer *open_peer(struct nvlx_engine *engine, const char *text); /* a string */
/* An engine of this process, as it is now, as a peer of one. */
struct nvlx_peer *peer_of(struct nvlx_engine *in, struct nvlx_engine *of);
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
    uint32_t alloc_flags; /* NVLX_ALLOC_... of what owner_alloc makes from now on; 0 at first */
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
uint64_t owner_set_digest(struct owner *owner, uint32_t region);
char *owner_export(struct owner *owner); /* to be freed */
int owner_serve(struct owner *owner, const char *address, uint32_t max_connections);
/* The owner's own view of its memory. Byte `offset + i` is compared with seed_byte(seed, i). */
uint64_t owner_wrong(struct owner *owner, uint32_t slot, size_t offset, size_t length, uint32_t seed);
void owner_fill(struct owner *owner, uint32_t slot, size_t offset, size_t length, uint32_t seed);
void owner_read(struct owner *owner, uint32_t slot, size_t offset, void *bytes, size_t length);

#endif
