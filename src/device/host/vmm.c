/* The host backend's chunks, of GPUs and of host memory: a sealed file for each, given out as a file descriptor.
 * SPDX-License-Identifier: Apache-2.0
 *
 * As with CUDA, address space is reserved first; then chunks are put into it, back to back. Each chunk is an allocation
 * of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"
#include "device/host/file.h"
#include "device/host/memory.h"

#define GRANULARITY (UINT64_C(2) << 20)

struct reservation {
    uint64_t base, size;
    size_t count;
    struct nvlxi_host_block chunks[];
};

/* Address space without memory. errno tells why not. */
static int reserve(uint64_t size, uint64_t *base) {
    void *address = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        return -1;
    *base = (uintptr_t)address;
    return 0;
}

static int no_space(int gpu, uint64_t size, int reason) {
    return nvlxi_fail(nvlxi_system_code(reason, NVLX_EDEVICE),
                      "there are no %" PRIu64 " bytes of address space for GPU %d: %s", size, gpu, strerror(reason));
}

/* Puts a whole file into reserved space. errno tells why not. */
static int place(int fd, uint64_t base, uint64_t size, int protection) {
    void *address = mmap(nvlxi_host_pointer(base), size, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    /* cppcheck-suppress memleak ; it is the reservation's */
    return address == MAP_FAILED ? -1 : 0;
}

/* ---- Own memory -------------------------------------------------------------------------------------- */

static void reservation_free(struct reservation *reservation) {
    munmap(nvlxi_host_pointer(reservation->base), reservation->size);
    for (size_t i = 0; i < reservation->count; i++)
        close(reservation->chunks[i].fd);
    free(reservation);
}

/* Makes the next chunk, at `offset`. errno tells why not. */
static int add_chunk(struct reservation *reservation, uint64_t offset, uint64_t size) {
    struct nvlxi_host_block *chunk = &reservation->chunks[reservation->count];
    *chunk = (struct nvlxi_host_block){.base = reservation->base + offset,
                                       .size = size,
                                       .serial = nvlxi_host_new_serial(),
                                       .fd = nvlxi_host_file_make(size),
                                       .inner = offset > 0,
                                       .reservation = reservation->base,
                                       .reserved = reservation->size};
    if (chunk->fd < 0)
        return -1;
    if (offset)
        chunk[-1].next = chunk;
    reservation->count++;
    return place(chunk->fd, chunk->base, size, PROT_READ | PROT_WRITE);
}

static int make(const struct nvlxi_alloc *alloc, struct nvlxi_host_block **made) {
    uint64_t size, chunk, base;
    if (!nvlxi_round_up(alloc->length, GRANULARITY, &size) ||
        !nvlxi_round_up(alloc->chunk ? alloc->chunk : alloc->length, GRANULARITY, &chunk))
        return nvlxi_fail(NVLX_EDEVICE, "GPU %d has no %zu bytes", alloc->gpu, alloc->length);
    if (reserve(size, &base))
        return no_space(alloc->gpu, size, errno);
    size_t count = (size - 1) / chunk + 1;
    struct reservation *reservation = calloc(1, sizeof *reservation + count * sizeof *reservation->chunks);
    if (!reservation) {
        munmap(nvlxi_host_pointer(base), size);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep %zu chunks of GPU %d", count, alloc->gpu);
    }
    reservation->base = base;
    reservation->size = size;
    for (uint64_t offset = 0; offset < size; offset += chunk) {
        if (add_chunk(reservation, offset, nvlxi_min(chunk, size - offset))) {
            int code = nvlxi_host_file_failure(alloc->gpu, alloc->length, errno);
            reservation_free(reservation);
            return code;
        }
    }
    *made = reservation->chunks;
    return 0;
}

static void destroy(struct nvlxi_host_block *first) {
    reservation_free(nvlxi_container_of(first, struct reservation, chunks));
}

bool nvlxi_host_vmm_empty(struct nvlxi_host_block *first) {
    struct reservation *reservation = nvlxi_container_of(first, struct reservation, chunks);
    const void *address = mmap(nvlxi_host_pointer(reservation->base), reservation->size, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    for (size_t i = 0; i < reservation->count; i++) {
        close(reservation->chunks[i].fd);
        reservation->chunks[i].fd = -1;
    }
    return address != MAP_FAILED;
}

bool nvlxi_host_vmm_take_out(struct nvlxi_host_block *chunk) {
    const void *address = mmap(nvlxi_host_pointer(chunk->base), chunk->size, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return address != MAP_FAILED; /* cppcheck-suppress memleak; it is the reservation's */
}

int nvlxi_host_vmm_fill(struct nvlxi_host_block *first) {
    struct reservation *reservation = nvlxi_container_of(first, struct reservation, chunks);
    for (size_t i = 0; i < reservation->count; i++) {
        struct nvlxi_host_block *chunk = &reservation->chunks[i];
        chunk->serial = nvlxi_host_new_serial();
        chunk->fd = nvlxi_host_file_make(chunk->size);
        if (chunk->fd < 0 || place(chunk->fd, chunk->base, chunk->size, PROT_READ | PROT_WRITE))
            return nvlxi_host_file_failure(chunk->gpu, chunk->size, errno);
    }
    return 0;
}

/* ---- Mappings ---------------------------------------------------------------------------------------- */

static int check_segment(const struct nvlxi_segment_record *segment, uint32_t kind) {
    if (segment->kind != kind || !segment->file || segment->handle.length || segment->size == 0 ||
        segment->size % GRANULARITY || segment->size > NVLXI_HOST_GPU_BYTES)
        return nvlxi_fail(NVLX_EDEVICE, "segment 0x%" PRIx64 " of %" PRIu64 " bytes is no chunk of the host backend",
                          segment->base, segment->size);
    return 0;
}

static int check(const struct nvlxi_map *map, struct nvlxi_handle *handle) {
    (void)handle; /* stays empty: openings are not counted */
    uint64_t end = map->segments->base;
    for (size_t i = 0; i < map->count; i++) {
        const struct nvlxi_segment_record *segment = &map->segments[i];
        int code = check_segment(segment, map->segments->kind);
        if (code)
            return code;
        if (segment->base != end || !nvlxi_add(end, segment->size, &end))
            return nvlxi_fail(NVLX_EINVAL, "segment 0x%" PRIx64 " does not follow on the one before it", segment->base);
    }
    return 0;
}

/* Takes the segment's file and puts it into the reservation of `block`. */
static int place_segment(const struct nvlxi_map *map, const struct nvlxi_segment_record *segment,
                         const struct nvlxi_host_block *block) {
    const uint64_t base = block->base + (segment->base - map->segments->base);
    int fd;
    int code = nvlxi_host_file_take(map->files, segment, segment->size, &fd);
    if (code)
        return code;
    if (place(fd, base, segment->size, map->read_only ? PROT_READ : PROT_READ | PROT_WRITE))
        code = nvlxi_fail(nvlxi_system_code(errno, NVLX_EDEVICE),
                          "cannot map segment 0x%" PRIx64 " of %" PRIu64 " bytes: %s", segment->base, segment->size,
                          strerror(errno));
    close(fd);
    return code;
}

static int open_mapping(const struct nvlxi_map *map, struct nvlxi_host_block *block) {
    const struct nvlxi_segment_record *last = &map->segments[map->count - 1];
    int code = 0;
    block->size = last->base + last->size - map->segments->base;
    block->read_only = map->read_only;
    if (reserve(block->size, &block->base))
        return no_space(map->gpu, block->size, errno);
    for (size_t i = 0; i < map->count && !code; i++) {
        const struct nvlxi_segment_record *segment = &map->segments[i];
        code = place_segment(map, segment, block);
        if (!code && map->watch)
            map->watch->grown(map->watch->context, block->base, segment->base - map->segments->base + segment->size);
    }
    if (code && map->watch)
        map->watch->failed(map->watch->context);
    if (code)
        munmap(nvlxi_host_pointer(block->base), block->size);
    return code;
}

#define CHUNKS(its_kind)                                                                                               \
    {                                                                                                                  \
        .kind = (its_kind), .file = true, .joins = true, .make = make, .destroy = destroy, .check = check,             \
        .open = open_mapping                                                                                           \
    }

const struct nvlxi_host_kind nvlxi_host_vmm = CHUNKS(NVLXI_KIND_VMM), nvlxi_host_chunks = CHUNKS(NVLXI_KIND_HOST);
