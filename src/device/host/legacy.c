/* The host backend's cudaMalloc memory: /proc carries its handles. SPDX-License-Identifier: Apache-2.0
 *
 * An allocation is a sealed file that stays open until it is freed, so that a peer can open it through
 * /proc/<pid>/fd/<fd>. That needs one PID namespace, and the right to look into the owner, as the same user and group
 * have it: where CUDA opens a handle all the same, this backend cannot.
 *
 * Allocations may lie back to back, as with CUDA: the system puts each file's pages right below the last one's, and
 * every other allocation begins as late in its first page as lets it end with its last. */
#define _GNU_SOURCE
#include "device/host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/identity.h"
#include "device/host/file.h"
#include "device/host/memory.h"
#include "device/owner.h"

#define STEP UINT64_C(512) /* to which allocations are aligned, as CUDA's are */

/* A process may not look into the owner: of a failure to open something in /proc/<pid>. */
static bool is_forbidden(int reason) {
    return reason == EACCES || reason == EPERM;
}

static int fail_forbidden(int32_t pid, int reason) {
    return nvlxi_fail(NVLX_ENOTSUP,
                      "the memory of process %d cannot be opened by its legacy handle: on the host backend only a "
                      "process of the same user and group may (%s); " NVLXI_LEGACY_REMEDY,
                      (int)pid, strerror(reason));
}

/* When a process was started, in clock ticks after boot; 0 if there is none, or only a corpse that nobody has waited
 * for. Fails where that cannot be told. */
static int find_start_time(int32_t pid, uint64_t *start) {
    char path[64], text[1024], state;
    snprintf(path, sizeof path, "/proc/%" PRId32 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && is_forbidden(errno)) /* /proc may be mounted so */
        return fail_forbidden(pid, errno);
    if (fd < 0 && nvlxi_system_code(errno, 0))
        return nvlxi_fail(NVLX_ENOMEM, "cannot tell whether process %d lives: %s", (int)pid, strerror(errno));
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    if (!nvlxi_identity_parse_stat(text, &state, start) || state == 'Z' || state == 'X')
        *start = 0;
    return 0;
}

/* ---- Own memory -------------------------------------------------------------------------------------- */

/* How far from the start of its file the next allocation of this size begins: less than a page. */
static uint64_t next_offset(uint64_t size) {
    static atomic_uint allocations;
    const uint64_t page = nvlxi_host_page(), over = size % page;
    return over && atomic_fetch_add(&allocations, 1) % 2 ? (page - over) / STEP * STEP : 0;
}

static int make_handle(struct nvlxi_host_block *block, uint64_t offset, const struct stat *status) {
    struct nvlxi_host_handle handle = {.magic = NVLXI_HOST_MAGIC,
                                       .pid = getpid(),
                                       .fd = block->fd,
                                       .device = status->st_dev,
                                       .inode = status->st_ino,
                                       .serial = block->serial,
                                       .size = block->size,
                                       .offset = offset};
    int code = find_start_time(handle.pid, &handle.start_time);
    if (code)
        return code;
    if (!handle.start_time)
        return nvlxi_fail(NVLX_EDEVICE, "/proc does not tell when this process was started");
    block->handle.length = sizeof handle;
    memcpy(block->handle.bytes, &handle, sizeof handle);
    return 0;
}

static int make(const struct nvlxi_alloc *alloc, struct nvlxi_host_block **made) {
    struct stat status;
    int code;
    struct nvlxi_host_block *block = calloc(1, sizeof *block);
    if (!block)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of GPU %d", alloc->gpu);
    const uint64_t offset = next_offset(alloc->length);
    *block = (struct nvlxi_host_block){
        .size = alloc->length, .serial = nvlxi_host_new_serial(), .fd = nvlxi_host_file_make(offset + alloc->length)};
    if (block->fd < 0 || fstat(block->fd, &status) ||
        nvlxi_host_file_map(block->fd, offset, block->size, &block->base)) {
        code = nvlxi_host_file_failure(alloc->gpu, alloc->length, errno);
        goto close_file;
    }
    code = make_handle(block, offset, &status);
    if (code)
        goto unmap_block;
    *made = block;
    return 0;

unmap_block:
    nvlxi_host_file_unmap(block->base, block->size);
close_file:
    if (block->fd >= 0)
        close(block->fd);
    free(block);
    return code;
}

static void destroy(struct nvlxi_host_block *block) {
    nvlxi_host_file_unmap(block->base, block->size);
    close(block->fd);
    free(block);
}

/* ---- Mappings ---------------------------------------------------------------------------------------- */

/* The owner's pid and /proc must mean the same here. */
static int check_namespace(const struct nvlxi_map *map) {
    struct stat mine;
    if (!map->owner->pid_namespace || stat("/proc/self/ns/pid", &mine) || mine.st_ino == map->owner->pid_namespace)
        return 0;
    return nvlxi_fail(NVLX_ENOTSUP,
                      "segment 0x%" PRIx64 " cannot be opened by its legacy handle: its owner, process %" PRIu64
                      ", is in another PID namespace, where the host backend cannot reach it; " NVLXI_NAMESPACE_REMEDY,
                      map->segments->base, map->owner->pid);
}

static int check(const struct nvlxi_map *map, struct nvlxi_handle *key) {
    const struct nvlxi_segment_record *segment = map->segments;
    struct nvlxi_host_handle handle;
    int code = nvlxi_check_owner(map);
    if (code || (code = check_namespace(map)))
        return code;
    if (segment->handle.length != sizeof handle)
        return nvlxi_fail(NVLX_EDEVICE, "a handle of %" PRIu32 " bytes is not one of the host backend",
                          segment->handle.length);
    memcpy(&handle, segment->handle.bytes, sizeof handle);
    if (handle.magic != NVLXI_HOST_MAGIC || handle.pid <= 0 || handle.fd < 0 || handle.size > INT64_MAX ||
        handle.offset >= nvlxi_host_page())
        return nvlxi_fail(NVLX_EDEVICE, "these bytes are no handle of the host backend");
    if (handle.size == 0 || handle.size != segment->size || handle.serial != segment->serial)
        return nvlxi_fail(NVLX_EDEVICE,
                          "segment %" PRIu64 " of %" PRIu64 " bytes has the handle of segment %" PRIu64 " of %" PRIu64
                          " bytes",
                          segment->serial, segment->size, handle.serial, handle.size);
    uint64_t mine = 0;
    if (handle.pid == getpid() && (code = find_start_time(handle.pid, &mine)))
        return code;
    if (handle.start_time == mine)
        return nvlxi_fail(NVLX_EDEVICE, "a process cannot open a handle of its own (process %d)", (int)handle.pid);
    key->length = sizeof handle;
    memcpy(key->bytes, &handle, sizeof handle);
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
        return nvlxi_fail(nvlxi_system_code(errno, NVLX_EDEVICE), "cannot open the memory of process %d: %s",
                          (int)handle->pid, strerror(errno));
    if (!nvlxi_host_file_is(opened, handle->offset + handle->size)) {
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
    uint64_t start;
    int code = find_start_time(handle->pid, &start);
    if (code)
        return code;
    if (start != handle->start_time)
        return nvlxi_fail(NVLX_ESTALE,
                          "process %d, which exported segment %" PRIu64 ", is gone: its successor is a new peer",
                          (int)handle->pid, handle->serial);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)handle->pid, (int)handle->fd);
    int found = open(path, O_PATH | O_CLOEXEC);
    if (found < 0 && errno == ENOENT)
        return nvlxi_fail(NVLX_ESTALE, "process %d has freed segment %" PRIu64, (int)handle->pid, handle->serial);
    if (found < 0 && is_forbidden(errno))
        return fail_forbidden(handle->pid, errno);
    if (found < 0)
        return nvlxi_fail(nvlxi_system_code(errno, NVLX_EDEVICE), "cannot reach the memory of process %d: %s",
                          (int)handle->pid, strerror(errno));
    int opened = open_found(found, handle);
    close(found);
    return opened;
}

static int open_mapping(const struct nvlxi_map *map, struct nvlxi_host_block *block) {
    struct nvlxi_host_handle handle;
    int code = 0;
    memcpy(&handle, map->segments->handle.bytes, sizeof handle);
    int file = open_file(&handle);
    if (file < 0)
        return file;
    block->size = handle.size;
    if (nvlxi_host_file_map(file, handle.offset, block->size, &block->base))
        code = nvlxi_fail(nvlxi_system_code(errno, NVLX_EDEVICE), "cannot map %" PRIu64 " bytes of process %d: %s",
                          handle.size, (int)handle.pid, strerror(errno));
    close(file);
    return code;
}

const struct nvlxi_host_kind nvlxi_host_legacy = {
    .kind = NVLXI_KIND_CUDA_MALLOC,
    .make = make,
    .destroy = destroy,
    .check = check,
    .open = open_mapping,
};
