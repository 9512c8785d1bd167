/* The host backend's kernel that copies blocks by id. The introduction is in lane.c. SPDX-License-Identifier:
 * Apache-2.0 */
#include "device/blocks.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "device/host/host.h"
#include "device/host/memory.h"

static struct nvlxi_fragment fragment_of(const struct nvlxi_block_kernel *kernel, uint64_t local_id, uint64_t remote_id,
                                         uint32_t number) {
    const struct nvlxi_block_region *region = &kernel->regions[number];
    const uint64_t local = region->local + local_id * region->local_stride;
    const uint64_t remote = region->remote + remote_id * region->remote_stride;
    return (struct nvlxi_fragment){kernel->read ? local : remote, kernel->read ? remote : local, region->length};
}

static uint64_t id_at(uint64_t ids, uint32_t width, uint32_t index) {
    uint64_t wide = 0;
    memcpy(&wide, (const char *)nvlxi_host_pointer(ids) + (uint64_t)index * width, width); /* little-endian */
    return wide;
}

/* The ids of a pair; false, and a fault, if one is out of range. */
static bool take_pair(const struct nvlxi_block_kernel *kernel, uint32_t pair, uint64_t *local, uint64_t *remote) {
    const struct nvlxi_block_ids *ids = &kernel->ids;
    if (kernel->pairs) {
        *local = kernel->pairs[pair].local;
        *remote = kernel->pairs[pair].remote;
        return true;
    }
    *local = id_at(ids->local, ids->width, pair);
    *remote = id_at(ids->remote, ids->width, pair);
    if (*local < ids->local_blocks && *remote < ids->remote_blocks)
        return true;
    const bool good = *local < ids->local_blocks;
    __atomic_store_n(&ids->fault->id, good ? *remote : *local, __ATOMIC_RELAXED);
    __atomic_store_n(&ids->fault->where, (ids->first + pair + 1) | (good ? NVLXI_FAULT_REMOTE : 0), __ATOMIC_RELEASE);
    return false;
}

void nvlxi_host_blocks_run(const struct nvlxi_block_kernel *kernel) {
    uint64_t local, remote;
    for (uint32_t pair = 0; pair < kernel->pair_count; pair++) {
        if (!take_pair(kernel, pair, &local, &remote))
            continue;
        for (uint32_t i = 0; i < kernel->region_count; i++) {
            const struct nvlxi_fragment fragment = fragment_of(kernel, local, remote, i);
            memmove(nvlxi_host_pointer(fragment.destination), nvlxi_host_pointer(fragment.source), fragment.length);
        }
    }
}

static int check(int gpu, const struct nvlxi_block_kernel *kernel) {
    int code = 0;
    for (uint32_t pair = 0; kernel->pairs && pair < kernel->pair_count; pair++)
        for (uint32_t i = 0; i < kernel->region_count && !code; i++) {
            const struct nvlxi_fragment fragment =
                fragment_of(kernel, kernel->pairs[pair].local, kernel->pairs[pair].remote, i);
            code = nvlxi_host_check_copies(gpu, &fragment, 1, NVLX_EDEVICE);
        }
    return code;
}

int nvlxi_host_copy_blocks(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel) {
    int code = check(nvlxi_host_lane_gpu(lane), kernel);
    return code ? code : nvlxi_host_queue_blocks(lane, kernel);
}

int nvlxi_host_ids_check(struct nvlxi_device *device, int gpu, uint64_t address, uint64_t length) {
    (void)device;
    return nvlxi_host_holds(gpu, address, length)
               ? 0
               : nvlxi_fail(NVLX_EINVAL, "ids at 0x%" PRIx64 ": not all of them are on GPU %d", address, gpu);
}
