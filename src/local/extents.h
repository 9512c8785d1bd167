/* The allocations under a range of addresses: one, or adjacent ones that join.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_LOCAL_EXTENTS_H
#define NVLXI_LOCAL_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

#include "device/context.h"

struct nvlxi_extents {
    struct nvlxi_allocation *list, one; /* `list` points to `one`, or to memory of its own where there are more */
    size_t count, capacity;
};

/* Asks the device what lies under [address, address + length), length > 0. NVLX_ERANGE: the range leaves what it begins
 * in. NVLX_ENOTSUP: peers shall have this access (NVLX_ACCESS_...), and it cannot be shared. To be freed also when it
 * failed. */
int nvlxi_extents_survey(const struct nvlxi_context *context, uint64_t address, uint64_t length, uint32_t access,
                         struct nvlxi_extents *extents);
void nvlxi_extents_free(struct nvlxi_extents *extents);

#endif
