/* The host backend's memory: sealed memfds stand for device memory, and /proc carries their handles.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What a CUDA driver knows of a process's memory is known here once for the process, whatever the engine: a tree of
 * blocks by address. A block is either
 *
 *     OWN      allocated here; its memfd stays open until it is freed, so that a peer can open it through
 *              /proc/<pid>/fd/<fd>
 *     MAPPED   another process's block, opened on one GPU; also in a tree by GPU and handle, so that opening the
 *              same handle again finds it. `openings` >= 1; the last unmap removes it
 *
 * A mapping keeps its file alive: it shows the same bytes after the exporter freed the block or died, and can be opened
 * again as long as it is open. Blocks never overlap. `mutex` guards both trees; it is not held while a
 * handle is opened, so who opened one looks again before entering it: the first one in is everybody's. The files are
 * sealed against growing and shrinking: what was found to be inside when it was mapped can be touched for ever. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../error.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

enum block_kind { BLOCK_OWN, BLOCK_MAPPED };

struct block {
    uint64_t base, size;
    enum block_kind kind;
    int gpu;
    /* BLOCK_OWN */
    const struct nvlxi_device *device; /* that allocated it */
    uint64_t serial;
    int fd;
    uint64_t file_device, file_inode;
    /* BLOCK_MAPPED */
    struct nvlxi_host_handle handle;
    uint64_t openings;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *blocks;         /* all, by address */
static void *mappings;       /* those mapped, by GPU and handle */
static uint64_t last_serial; /* never used again in this process */

/* Blocks compare equal if they overlap: so a block of one byte finds the one that holds it. */
static int by_address(const void *left, const void *right) {
    const struct block *a = left, *b = right;
    if (a->base < b->base)
        return b->base - a->base < a->size ? 0 : -1;
    return a->base - b->base < b->size ? 0 : 1;
}

static int by_handle(const void *left, const void *right) {
    const struct block *a = left, *b = right;
    if (a->gpu != b->gpu)
        return a->gpu < b->gpu ? -1 : 1;
    return memcmp(&a->handle, &b->handle, sizeof a->handle);
}

static struct block *find_block(uint64_t address) {
    struct block key = {.base = address, .size = 1};
    struct block **found = tfind(&key, &blocks, by_address);
    return found ? *found : NULL;
}

static void *to_pointer(uint64_t address) {
    return (void *)(uintptr_t)address;
}

/* Makes the whole of an open file, `block->size` bytes, visible at block->base. errno tells why not. */
static int map_file(int fd, struct block *block) {
    void *address = mmap(NULL, block->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED)
        return -1;
    block->base = (uintptr_t)address;
    return 0;
}

/* ---- Own memory -------------------------------------------------------------------------------------- */

/* A file of exactly `length` bytes that keeps its size, or -1. */
static int make_file(size_t length) {
    if (length > INT64_MAX) {
        errno = ENOMEM;
        return -1;
    }
    int fd = memfd_create("nvlxfer-host-gpu", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)length) || fcntl(fd, F_ADD_SEALS, SEALS)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int insert_own(struct block *block) {
    pthread_mutex_lock(&mutex);
    block->serial = ++last_serial;
    void *inserted = tsearch(block, &blocks, by_address);
    pthread_mutex_unlock(&mutex);
    if (!inserted)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of GPU %d", block->gpu);
    return 0;
}

int nvlxi_host_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address) {
    const int gpu = alloc->gpu;
    const size_t length = alloc->length;
    int code = nvlxi_host_check_gpu(device, gpu);
    if (code)
        return code;
    if (alloc->kind != NVLXI_KIND_CUDA_MALLOC)
        return nvlxi_fail(NVLX_ENOTSUP, "the host backend has no memory of kind %" PRIu32, alloc->kind);
    if (length == 0)
        return nvlxi_fail(NVLX_EINVAL, "an allocation of 0 bytes on GPU %d", gpu);
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of GPU %d", gpu);
    *block = (struct block){.kind = BLOCK_OWN, .size = length, .gpu = gpu, .device = device, .fd = make_file(length)};
    struct stat status;
    if (block->fd < 0 || fstat(block->fd, &status) || map_file(block->fd, block)) {
        code = nvlxi_fail(NVLX_EDEVICE, "GPU %d has no %zu bytes: %s", gpu, length, strerror(errno));
        goto close_file;
    }
    block->file_device = status.st_dev;
    block->file_inode = status.st_ino;
    uint64_t base = block->base;
    code = insert_own(block);
    if (code)
        goto unmap_file;
    *address = to_pointer(base);
    return 0;

unmap_file:
    munmap(to_pointer(block->base), length);
close_file:
    if (block->fd >= 0)
        close(block->fd);
    free(block);
    return code;
}

int nvlxi_host_free(struct nvlxi_device *device, void *address) {
    pthread_mutex_lock(&mutex);
    struct block *block = find_block((uintptr_t)address);
    if (block && block->kind == BLOCK_OWN && block->base == (uintptr_t)address && block->device == device)
        tdelete(block, &blocks, by_address);
    else
        block = NULL;
    pthread_mutex_unlock(&mutex);
    if (!block)
        return nvlxi_fail(NVLX_EINVAL, "%p was not allocated by this engine, or is freed", address);
    munmap(address, block->size);
    close(block->fd);
    free(block);
    return 0;
}

int nvlxi_host_resolve(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation) {
    (void)device;
    struct nvlxi_allocation found = {.kind = NVLXI_KIND_UNKNOWN};
    pthread_mutex_lock(&mutex);
    const struct block *block = find_block(address);
    bool mapped = block && block->kind == BLOCK_MAPPED;
    if (block && !mapped)
        found = (struct nvlxi_allocation){.kind = NVLXI_KIND_CUDA_MALLOC,
                                          .gpu = block->gpu,
                                          .base = block->base,
                                          .size = block->size,
                                          .serial = block->serial};
    pthread_mutex_unlock(&mutex);
    if (mapped)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "0x%" PRIx64 " lies in a mapping of another process's memory, which only its owner can share",
                          address);
    if (found.kind == NVLXI_KIND_UNKNOWN)
        return nvlxi_fail(NVLX_ENOTSUP, "0x%" PRIx64 " is host memory that no GPU knows: use memory of nvlx_alloc",
                          address);
    *allocation = found;
    return 0;
}

int nvlxi_host_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation) {
    (void)device;
    pthread_mutex_lock(&mutex);
    const struct block *block = find_block(allocation->base);
    bool same = block && block->kind == BLOCK_OWN && block->serial == allocation->serial;
    pthread_mutex_unlock(&mutex);
    return same ? 0 : NVLX_ESTALE;
}

/* ---- Handles ----------------------------------------------------------------------------------------- */

/* When a process was started, in clock ticks after boot; 0 if there is none, or only a corpse that nobody has waited
 * for. The name in the second field may hold anything, spaces and parentheses too. */
static uint64_t start_time(int32_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%" PRId32 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    const char *rest = strrchr(text, ')');
    char state;
    uint64_t start;
    if (!rest ||
        sscanf(rest + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64, &state,
               &start) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : start;
}

int nvlxi_host_export(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                      struct nvlxi_handle *handle) {
    (void)device;
    struct nvlxi_host_handle made = {.magic = NVLXI_HOST_MAGIC, .pid = getpid(), .start_time = start_time(getpid())};
    if (!made.start_time)
        return nvlxi_fail(NVLX_EDEVICE, "/proc does not tell when this process was started");
    pthread_mutex_lock(&mutex);
    const struct block *block = find_block(allocation->base);
    bool same = block && block->kind == BLOCK_OWN && block->serial == allocation->serial;
    if (same) {
        made.fd = block->fd;
        made.device = block->file_device;
        made.inode = block->file_inode;
        made.serial = block->serial;
        made.size = block->size;
    }
    pthread_mutex_unlock(&mutex);
    if (!same)
        return nvlxi_fail(NVLX_ESTALE, "the allocation at 0x%" PRIx64 " was freed", allocation->base);
    *handle = (struct nvlxi_handle){.length = sizeof made};
    memcpy(handle->bytes, &made, sizeof made);
    return 0;
}

/* What can be told to be wrong with a record without asking its exporter. */
static int check_record(const struct nvlxi_segment_record *segment, struct nvlxi_host_handle *handle) {
    if (segment->kind != NVLXI_KIND_CUDA_MALLOC)
        return nvlxi_fail(NVLX_ENOTSUP, "a segment of kind '%s' cannot be opened", segment->kind_name);
    if (segment->handle.length != sizeof *handle)
        return nvlxi_fail(NVLX_EDEVICE, "a handle of %" PRIu32 " bytes is not one of the host backend",
                          segment->handle.length);
    memcpy(handle, segment->handle.bytes, sizeof *handle);
    if (handle->magic != NVLXI_HOST_MAGIC || handle->pid <= 0 || handle->fd < 0)
        return nvlxi_fail(NVLX_EDEVICE, "these bytes are no handle of the host backend");
    if (handle->size == 0 || handle->size != segment->size || handle->serial != segment->serial)
        return nvlxi_fail(NVLX_EDEVICE,
                          "segment %" PRIu64 " of %" PRIu64 " bytes has the handle of segment %" PRIu64 " of %" PRIu64
                          " bytes",
                          segment->serial, segment->size, handle->serial, handle->size);
    if (handle->pid == getpid() && handle->start_time == start_time(getpid()))
        return nvlxi_fail(NVLX_EDEVICE, "a process cannot open a handle of its own (process %d)", (int)handle->pid);
    return 0;
}

static bool is_file_of(const struct stat *status, const struct nvlxi_host_handle *handle) {
    return status->st_dev == handle->device && status->st_ino == handle->inode;
}

/* Opens the file that `found`, an O_PATH descriptor, stands for, if all of the segment is inside and stays there.
 * Returns its descriptor, or an error, which is negative. */
static int open_found(int found, const struct nvlxi_host_handle *handle) {
    char path[64];
    struct stat status;
    if (fstat(found, &status) || !is_file_of(&status, handle))
        return nvlxi_fail(NVLX_ESTALE, "process %d has freed segment %" PRIu64, (int)handle->pid, handle->serial);
    snprintf(path, sizeof path, "/proc/self/fd/%d", found);
    int opened = open(path, O_RDWR | O_CLOEXEC);
    if (opened < 0)
        return nvlxi_fail(NVLX_EDEVICE, "cannot open the memory of process %d: %s", (int)handle->pid, strerror(errno));
    int seals = fcntl(opened, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || (uint64_t)status.st_size != handle->size) {
        close(opened);
        return nvlxi_fail(NVLX_EDEVICE,
                          "segment %" PRIu64 " of process %d is said to have %" PRIu64 " bytes, but has %lld",
                          handle->serial, (int)handle->pid, handle->size, (long long)status.st_size);
    }
    return opened;
}

/* The number in the handle may by now be that of a device or a pipe, hence O_PATH: look before opening.
 * Returns a descriptor, or an error, which is negative. */
static int open_file(const struct nvlxi_host_handle *handle) {
    char path[64];
    if (start_time(handle->pid) != handle->start_time)
        return nvlxi_fail(NVLX_ESTALE, "process %d, which exported segment %" PRIu64 ", is gone", (int)handle->pid,
                          handle->serial);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)handle->pid, (int)handle->fd);
    int found = open(path, O_PATH | O_CLOEXEC);
    if (found < 0 && errno == ENOENT)
        return nvlxi_fail(NVLX_ESTALE, "process %d has freed segment %" PRIu64, (int)handle->pid, handle->serial);
    if (found < 0)
        return nvlxi_fail(NVLX_EDEVICE, "cannot reach the memory of process %d: %s", (int)handle->pid, strerror(errno));
    int opened = open_found(found, handle);
    close(found);
    return opened;
}

/* Makes a mapping that is in no tree yet. */
static int make_mapping(int gpu, const struct nvlxi_host_handle *handle, struct block **mapping) {
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a mapping on GPU %d", gpu);
    *block = (struct block){.kind = BLOCK_MAPPED, .size = handle->size, .gpu = gpu, .handle = *handle, .openings = 1};
    int code = 0;
    int file = open_file(handle);
    if (file < 0) {
        code = file;
        goto free_block;
    }
    if (map_file(file, block))
        code = nvlxi_fail(NVLX_EDEVICE, "cannot map %" PRIu64 " bytes of process %d: %s", handle->size,
                          (int)handle->pid, strerror(errno));
    close(file);
    if (code)
        goto free_block;
    *mapping = block;
    return 0;

free_block:
    free(block);
    return code;
}

static void discard_mapping(struct block *block) {
    munmap(to_pointer(block->base), block->size);
    free(block);
}

/* With the mutex held: counts one more opening, if the handle is open. */
static bool open_again(const struct block *key, uint64_t *address) {
    struct block **found = tfind(key, &mappings, by_handle);
    if (!found)
        return false;
    (*found)->openings++;
    *address = (*found)->base;
    return true;
}

/* With the mutex held. */
static bool insert_mapping(struct block *block) {
    if (!tsearch(block, &blocks, by_address))
        return false;
    if (tsearch(block, &mappings, by_handle))
        return true;
    tdelete(block, &blocks, by_address);
    return false;
}

int nvlxi_host_export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd) {
    (void)device, (void)fd;
    return nvlxi_fail(NVLX_ENOTSUP, "the allocation at 0x%" PRIx64 " is not shared by a file descriptor",
                      allocation->base);
}

int nvlxi_host_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address) {
    const struct nvlxi_segment_record *segment = map->segments;
    const int gpu = map->gpu;
    int code = nvlxi_host_check_gpu(device, gpu);
    if (code)
        return code;
    struct block key = {.gpu = gpu}, *made = NULL;
    code = check_record(segment, &key.handle);
    if (code)
        return code;
    pthread_mutex_lock(&mutex);
    bool again = open_again(&key, address);
    pthread_mutex_unlock(&mutex);
    if (again)
        return 0;
    code = make_mapping(gpu, &key.handle, &made);
    if (code)
        return code;
    uint64_t base = made->base;
    pthread_mutex_lock(&mutex);
    again = open_again(&key, address); /* another thread was faster */
    bool inserted = !again && insert_mapping(made);
    pthread_mutex_unlock(&mutex);
    if (inserted)
        *address = base;
    else
        discard_mapping(made);
    if (!inserted && !again)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a mapping on GPU %d", gpu);
    return 0;
}

int nvlxi_host_unmap(struct nvlxi_device *device, int gpu, uint64_t address) {
    (void)device;
    pthread_mutex_lock(&mutex);
    struct block *block = find_block(address);
    bool known = block && block->kind == BLOCK_MAPPED && block->base == address && block->gpu == gpu;
    bool last = known && --block->openings == 0;
    if (last) {
        tdelete(block, &mappings, by_handle);
        tdelete(block, &blocks, by_address);
    }
    pthread_mutex_unlock(&mutex);
    if (!known)
        return nvlxi_fail(NVLX_EINVAL, "nothing is mapped at 0x%" PRIx64 " on GPU %d", address, gpu);
    if (last)
        discard_mapping(block);
    return 0;
}
