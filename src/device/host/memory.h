/* What the parts of the host backend's memory share: device/host/memory.c (what this process knows of its memory) and
 * one file for each kind. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_HOST_MEMORY_H
#define NVLXI_DEVICE_HOST_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "device/device.h"

/* Bytes of device memory that lie together: an allocation, or a mapping of another process's. */
struct nvlxi_host_block {
    const struct nvlxi_host_kind *kind;
    int gpu;
    uint64_t base, size;
    struct nvlxi_handle handle; /* own: what export_handle gives; mapping: opening this again finds it, if not empty */
    /* Own memory. */
    uint64_t serial;                   /* 0: a mapping */
    const struct nvlxi_device *device; /* that allocated it */
    int fd;                            /* what export_file gives out, where the kind has files */
    uint64_t users;                    /* bits: GPUs that may use it, of a kind that has files */
    struct nvlxi_host_block *next;     /* allocated and freed with it */
    bool inner;                        /* another one's next */
    uint64_t reservation, reserved;    /* the address space that it was put into with others; 0: none */
    /* Mappings. */
    uint64_t openings;
    bool read_only;
};

/* What differs from kind to kind of memory. device/host/memory.c checks GPUs and sizes of 0, fills in `kind`, `gpu`,
 * `device` and `openings`, and enters and removes what these functions make and destroy; none is called with its lock
 * held. Blocks of mappings are its own. */
struct nvlxi_host_kind {
    uint32_t kind;    /* enum nvlxi_kind */
    bool file, joins; /* as in struct nvlxi_allocation */
    /* New memory: *block is the first of its blocks. */
    int (*make)(const struct nvlxi_alloc *alloc, struct nvlxi_host_block **block);
    void (*destroy)(struct nvlxi_host_block *block);
    /* What can be told to be wrong without asking the owner. `handle`, empty before, is that of the mapping. */
    int (*check)(const struct nvlxi_map *map, struct nvlxi_handle *handle);
    /* A mapping of checked segments, with files if `file`: fills in `base`, `size` and `read_only` of an empty block.
     */
    int (*open)(const struct nvlxi_map *map, struct nvlxi_host_block *block);
};

/* A block of pinned host memory, which destroy frees. NULL without memory. */
struct nvlxi_host_block *nvlxi_host_pinned_make(int gpu, const void *address, uint64_t size);

/* Takes the chunks out of a reservation, and puts new ones of the same sizes into it: see nvlxi_host_put_to_sleep. */
bool nvlxi_host_vmm_empty(struct nvlxi_host_block *first);
int nvlxi_host_vmm_fill(struct nvlxi_host_block *first);
/* Takes one chunk out. */
bool nvlxi_host_vmm_take_out(struct nvlxi_host_block *chunk);

extern const struct nvlxi_host_kind nvlxi_host_legacy, nvlxi_host_vmm, nvlxi_host_chunks, nvlxi_host_pool,
    nvlxi_host_pinned;

/* More than any allocation has: what a GPU does not have is told from what there is no address space for. */
#define NVLXI_HOST_GPU_BYTES (UINT64_C(1) << 42)

/* Never given before in this process. */
uint64_t nvlxi_host_new_serial(void);

static inline uint64_t nvlxi_host_page(void) {
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

static inline void *nvlxi_host_pointer(uint64_t address) {
    return (void *)(uintptr_t)address;
}

#endif
