/* SPDX-License-Identifier: Apache-2.0 */
#include "local/extents.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/error.h"

void nvlxi_ground_free(struct nvlxi_ground *ground) {
    if (ground->list != &ground->one)
        free(ground->list);
}

static int ground_add(struct nvlxi_ground *ground, const struct nvlxi_allocation *allocation) {
    if (ground->count == ground->capacity) {
        const size_t capacity = nvlxi_max(2 * ground->capacity, 16);
        struct nvlxi_allocation *old = ground->list == &ground->one ? NULL : ground->list;
        struct nvlxi_allocation *list = realloc(old, capacity * sizeof *list);
        if (!list)
            return nvlxi_fail(NVLX_ENOMEM, "no memory for a range over %zu allocations", ground->count + 1);
        if (!old)
            list[0] = ground->one;
        ground->list = list;
        ground->capacity = capacity;
    }
    ground->list[ground->count++] = *allocation;
    return 0;
}

static uint64_t ground_end(const struct nvlxi_ground *ground) {
    const struct nvlxi_allocation *last = &ground->list[ground->count - 1];
    return last->base + last->size;
}

/* The allocation that goes on where the last one ends. NVLX_ERANGE (not logged): there is none that a range may go on
 * into. */
static int next_allocation(const struct nvlxi_device_ops *ops, struct nvlxi_device *device,
                           const struct nvlxi_ground *ground, struct nvlxi_allocation *next) {
    const struct nvlxi_allocation *last = &ground->list[ground->count - 1];
    if (!last->joins)
        return NVLX_ERANGE;
    int code = ops->resolve(device, ground_end(ground), next);
    if (code && code != NVLX_ENOTSUP)
        return code;
    return !code && next->joins && next->kind == last->kind && next->gpu == last->gpu &&
                   next->base == ground_end(ground)
               ? 0
               : NVLX_ERANGE;
}

int nvlxi_ground_survey(const struct nvlxi_device_ops *ops, struct nvlxi_device *device, uint64_t address,
                        uint64_t length, struct nvlxi_ground *ground) {
    struct nvlxi_allocation next;
    uint64_t end;
    *ground = (struct nvlxi_ground){.list = &ground->one, .count = 1, .capacity = 1};
    if (!nvlxi_add(address, length, &end))
        return nvlxi_fail(NVLX_EINVAL, "address 0x%" PRIx64 " + length %" PRIu64 " wraps around", address, length);
    int code = ops->resolve(device, address, &ground->one);
    while (!code && end > ground_end(ground)) {
        code = next_allocation(ops, device, ground, &next);
        if (code == NVLX_ERANGE)
            return nvlxi_fail(code,
                              "the range of %" PRIu64 " bytes at 0x%" PRIx64 " ends at 0x%" PRIx64
                              ", beyond its allocation's end at 0x%" PRIx64 " (0x%" PRIx64 " + %" PRIu64 ")",
                              length, address, end, ground_end(ground), ground->list[0].base,
                              ground_end(ground) - ground->list[0].base);
        if (!code)
            code = ground_add(ground, &next);
    }
    return code;
}
