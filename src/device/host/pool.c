/* The host backend's pools: one for each GPU, a large sealed file of which allocations are parts.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A pool's file has the memory first; behind it, for each place where an allocation can begin, what is allocated there:
 * so the process that opens a handle can see whether it is still good. Both are holes until they are used. A pool is
 * made with its first allocation, and ends with its last. `mutex` guards the pools of this process. */
#define _GNU_SOURCE
#include "device/host/host.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"
#include "device/host/file.h"
#include "device/host/memory.h"

#define STEP        UINT64_C(512)
#define MEMORY_SIZE (UINT64_C(1) << 30)
#define FILE_SIZE   (MEMORY_SIZE + MEMORY_SIZE / STEP * sizeof(struct entry))

/* What is allocated at a place; all 0: nothing. */
struct entry {
    uint64_t tag, serial, size;
};

struct allocation {
    struct nvlxi_host_block block;
    struct pool *pool;
    uint64_t offset;
    TAILQ_ENTRY(allocation) neighbours;
};

TAILQ_HEAD(allocations, allocation);

struct pool {
    int gpu, fd;
    uint64_t base;
    struct allocations allocations; /* by offset */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct pool *pools[NVLXI_HOST_GPUS_MAX];

static uint64_t entry_offset(uint64_t offset) {
    return MEMORY_SIZE + offset / STEP * sizeof(struct entry);
}

/* The entry of an allocation, in the pool's own view of its file: to write by a call could raise SIGXFSZ. */
static struct entry *own_entry(const struct allocation *allocation) {
    return nvlxi_host_pointer(allocation->pool->base + entry_offset(allocation->offset));
}

/* A child has pools of its own: in the parent's, both would allocate the same bytes. */
void nvlxi_host_pools_fork(enum nvlxi_fork_phase phase) {
    if (phase == NVLXI_BEFORE_FORK) {
        pthread_mutex_lock(&mutex);
        return;
    }
    if (phase == NVLXI_IN_CHILD)
        memset(pools, 0, sizeof pools);
    pthread_mutex_unlock(&mutex);
}

/* ---- Own memory; with the mutex held ------------------------------------------------------------------ */

/* errno tells why there is none. */
static struct pool *pool_make(int gpu) {
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->gpu = gpu;
    pool->fd = nvlxi_host_file_make(FILE_SIZE);
    if (pool->fd < 0)
        goto free_pool;
    void *address = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, pool->fd, 0);
    if (address == MAP_FAILED)
        goto close_file;
    pool->base = (uintptr_t)address;
    TAILQ_INIT(&pool->allocations);
    return pool;

close_file:
    close(pool->fd);
free_pool:
    free(pool);
    return NULL;
}

static void pool_end_if_empty(struct pool *pool) {
    if (!TAILQ_EMPTY(&pool->allocations))
        return;
    pools[pool->gpu] = NULL;
    munmap(nvlxi_host_pointer(pool->base), FILE_SIZE);
    close(pool->fd);
    free(pool);
}

/* Puts an allocation into the first gap that it fits into. */
static int enter(struct pool *pool, struct allocation *allocation) {
    struct allocation *next;
    uint64_t gap = 0;
    TAILQ_FOREACH(next, &pool->allocations, neighbours) {
        if (next->offset - gap >= allocation->block.size)
            break;
        gap = next->offset + (next->block.size + STEP - 1) / STEP * STEP;
    }
    if (!next && MEMORY_SIZE - gap < allocation->block.size) {
        errno = ENOSPC;
        return -1;
    }
    if (next)
        TAILQ_INSERT_BEFORE(next, allocation, neighbours);
    else
        TAILQ_INSERT_TAIL(&pool->allocations, allocation, neighbours);
    allocation->pool = pool;
    allocation->offset = gap;
    return 0;
}

/* Gives an allocation its place, its handle and its entry in the file. errno tells why not. */
static int place(struct pool *pool, struct allocation *allocation) {
    struct nvlxi_host_block *block = &allocation->block;
    struct entry entry = {.serial = block->serial, .size = block->size};
    if (getrandom(&entry.tag, sizeof entry.tag, 0) != sizeof entry.tag || enter(pool, allocation))
        return -1;
    *own_entry(allocation) = entry;
    const struct nvlxi_host_pool_handle handle = {.magic = NVLXI_HOST_POOL_MAGIC,
                                                  .offset = allocation->offset,
                                                  .size = block->size,
                                                  .serial = block->serial,
                                                  .tag = entry.tag};
    block->base = pool->base + allocation->offset;
    block->fd = pool->fd;
    block->handle.length = sizeof handle;
    memcpy(block->handle.bytes, &handle, sizeof handle);
    return 0;
}

static int make(const struct nvlxi_alloc *alloc, struct nvlxi_host_block **made) {
    struct allocation *allocation = calloc(1, sizeof *allocation);
    if (!allocation)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of GPU %d", alloc->gpu);
    allocation->block.size = alloc->length;
    allocation->block.serial = nvlxi_host_new_serial();
    pthread_mutex_lock(&mutex);
    struct pool *pool = pools[alloc->gpu];
    if (!pool)
        pool = pools[alloc->gpu] = pool_make(alloc->gpu);
    bool placed = pool && !place(pool, allocation);
    int error = errno;
    if (pool && !placed)
        pool_end_if_empty(pool);
    pthread_mutex_unlock(&mutex);
    if (!placed) {
        free(allocation);
        return nvlxi_fail(nvlxi_system_code(error, NVLX_EDEVICE), "the pool of GPU %d has no %zu bytes: %s", alloc->gpu,
                          alloc->length, strerror(error));
    }
    *made = &allocation->block;
    return 0;
}

static void destroy(struct nvlxi_host_block *block) {
    struct allocation *allocation = nvlxi_container_of(block, struct allocation, block);
    struct pool *pool = allocation->pool;
    pthread_mutex_lock(&mutex);
    *own_entry(allocation) = (struct entry){0};
    TAILQ_REMOVE(&pool->allocations, allocation, neighbours);
    pool_end_if_empty(pool);
    pthread_mutex_unlock(&mutex);
    free(allocation);
}

/* ---- Mappings ---------------------------------------------------------------------------------------- */

static int check(const struct nvlxi_map *map, struct nvlxi_handle *key) {
    (void)key; /* stays empty: openings are not counted */
    const struct nvlxi_segment_record *segment = map->segments;
    struct nvlxi_host_pool_handle handle;
    if (!segment->file || segment->handle.length != sizeof handle)
        return nvlxi_fail(NVLX_EDEVICE, "a handle of %" PRIu32 " bytes is not one of the host backend's pools",
                          segment->handle.length);
    memcpy(&handle, segment->handle.bytes, sizeof handle);
    if (handle.magic != NVLXI_HOST_POOL_MAGIC || handle.offset % STEP || handle.offset >= MEMORY_SIZE ||
        handle.size == 0 || handle.size > MEMORY_SIZE - handle.offset)
        return nvlxi_fail(NVLX_EDEVICE, "these bytes are no handle of the host backend's pools");
    if (handle.size != segment->size || handle.serial != segment->serial)
        return nvlxi_fail(NVLX_EDEVICE,
                          "segment %" PRIu64 " of %" PRIu64 " bytes has the handle of segment %" PRIu64 " of %" PRIu64
                          " bytes",
                          segment->serial, segment->size, handle.serial, handle.size);
    return 0;
}

/* Whether the pool's allocation is still the one that the handle was made for. */
static int check_entry(int fd, const struct nvlxi_host_pool_handle *handle) {
    struct entry entry;
    if (pread(fd, &entry, sizeof entry, (off_t)entry_offset(handle->offset)) != sizeof entry)
        return nvlxi_fail(NVLX_EDEVICE, "cannot read a pool's file: %s", strerror(errno));
    if (entry.tag != handle->tag || !entry.serial)
        return nvlxi_fail(NVLX_ESTALE, "segment %" PRIu64 " of a pool was freed", handle->serial);
    if (entry.serial != handle->serial || entry.size != handle->size)
        return nvlxi_fail(NVLX_EDEVICE,
                          "segment %" PRIu64 " of a pool is said to have %" PRIu64 " bytes, but is segment %" PRIu64
                          " of %" PRIu64 " bytes",
                          handle->serial, handle->size, entry.serial, entry.size);
    return 0;
}

static int open_mapping(const struct nvlxi_map *map, struct nvlxi_host_block *block) {
    struct nvlxi_host_pool_handle handle;
    int fd, code = nvlxi_host_file_take(map->files, map->segments, FILE_SIZE, &fd);
    if (code)
        return code;
    memcpy(&handle, map->segments->handle.bytes, sizeof handle);
    block->size = handle.size;
    code = check_entry(fd, &handle);
    if (!code && nvlxi_host_file_map(fd, handle.offset, handle.size, &block->base))
        code = nvlxi_fail(nvlxi_system_code(errno, NVLX_EDEVICE), "cannot map %" PRIu64 " bytes of a pool: %s",
                          handle.size, strerror(errno));
    close(fd);
    return code;
}

const struct nvlxi_host_kind nvlxi_host_pool = {
    .kind = NVLXI_KIND_POOL,
    .file = true,
    .make = make,
    .destroy = destroy,
    .check = check,
    .open = open_mapping,
};
