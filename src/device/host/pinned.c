/* The host backend's pinned host memory: the program's own, and only known here. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "device/host/memory.h"

struct nvlxi_host_block *nvlxi_host_pinned_make(int gpu, const void *address, uint64_t size) {
    struct nvlxi_host_block *block = malloc(sizeof *block);
    if (block)
        *block = (struct nvlxi_host_block){.kind = &nvlxi_host_pinned,
                                           .gpu = gpu,
                                           .base = (uintptr_t)address,
                                           .size = size,
                                           .serial = nvlxi_host_new_serial(),
                                           .fd = -1};
    return block;
}

static void destroy(struct nvlxi_host_block *block) {
    free(block);
}

const struct nvlxi_host_kind nvlxi_host_pinned = {.kind = NVLXI_KIND_PINNED, .destroy = destroy};
