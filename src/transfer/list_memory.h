/* Memory for lists of fragments: chunks, of memory that kernels can read or of the host's.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What kernels read is pinned, and giving pinned memory back makes the driver wait for running kernels: so it is taken
 * in blocks, kept to the end, and shared out here. An extent is a part of a block, taken as a chunk or free; free
 * neighbours become one. Chunks that transfers gave back stay as they are for the next, as long as there is enough.
 * They come in sizes that grow with their list, so that many short lists and a few long ones both fit. */
#ifndef NVLXI_TRANSFER_LIST_MEMORY_H
#define NVLXI_TRANSFER_LIST_MEMORY_H

#include <pthread.h>

#include "device/context.h"
#include "transfer/plan/plan.h"

#define NVLXI_CHUNK_SIZES 3
#define NVLXI_BLOCK_BYTES ((size_t)4 << 20)

struct nvlxi_list_extent;

struct nvlxi_list_memory {
    const struct nvlxi_context *context;
    size_t limit; /* of the bytes of all blocks */
    pthread_mutex_t mutex;
    struct nvlxi_chunk *idle[2][NVLXI_CHUNK_SIZES]; /* for the host, for kernels */
    struct nvlxi_list_extent *free;
    size_t block_bytes, taken_bytes; /* taken: by chunks for kernels, idle ones too */
};

void nvlxi_list_memory_init(struct nvlxi_list_memory *memory, const struct nvlxi_context *context, size_t limit);
/* All chunks have been given back. */
void nvlxi_list_memory_free(struct nvlxi_list_memory *memory);

/* A plan's take_chunk and give_chunk: chunks of fixed sizes, kept for the next list. The context is the
 * nvlxi_list_memory. No driver is called: where that would help, borrowing returns NVLXI_GROW. Where the limit would be
 * passed, a shorter chunk is given. NVLXI_FULL: all is taken. */
int nvlxi_list_memory_borrow(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk);
/* A take_chunk as well: memory of the host, whoever shall read it. */
int nvlxi_list_memory_borrow_for_host(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk);
void nvlxi_list_memory_return(void *context, struct nvlxi_chunk *chunk);

/* Takes so many bytes more from the driver, in blocks; fewer where the limit is near. */
int nvlxi_list_memory_grow(struct nvlxi_list_memory *memory, size_t bytes);

/* A chunk for kernels with room for exactly `count` fragments, or for fewer, if there is none so long. It is not kept
 * for another list, and goes back by the second function. Grows by itself. NVLXI_FULL: all is taken. */
int nvlxi_list_memory_borrow_exact(struct nvlxi_list_memory *memory, uint64_t count, struct nvlxi_chunk **chunk);
void nvlxi_list_memory_return_exact(struct nvlxi_list_memory *memory, struct nvlxi_chunk *chunk);

/* For a sealed plan that found no room. Fails with NVLX_EBUSY. The message says how much list memory the plan needs;
 * with that much it fits. Its chunks may be of any kind. */
int nvlxi_list_memory_refuse(struct nvlxi_list_memory *memory, const struct nvlxi_plan *plan);

#endif
