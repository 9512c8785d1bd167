/* Asks the device which allocations lie under a range of addresses. SPDX-License-Identifier: Apache-2.0 */
#include "local/extents.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/error.h"

void nvlxi_extents_free(struct nvlxi_extents *extents) {
    if (extents->list != &extents->one)
        free(extents->list);
}

static int extents_add(struct nvlxi_extents *extents, const struct nvlxi_allocation *allocation) {
    if (extents->count == extents->capacity) {
        const size_t capacity = nvlxi_max(2 * extents->capacity, 16);
        struct nvlxi_allocation *old = extents->list == &extents->one ? NULL : extents->list;
        struct nvlxi_allocation *list = realloc(old, capacity * sizeof *list);
        if (!list)
            return nvlxi_fail(NVLX_ENOMEM, "no memory for a range over %zu allocations", extents->count + 1);
        if (!old)
            list[0] = extents->one;
        extents->list = list;
        extents->capacity = capacity;
    }
    extents->list[extents->count++] = *allocation;
    return 0;
}

static uint64_t extents_end(const struct nvlxi_extents *extents) {
    const struct nvlxi_allocation *last = &extents->list[extents->count - 1];
    return last->base + last->size;
}

/* The allocation that goes on where the last one ends. NVLX_ERANGE (not logged): there is none that a range may go on
 * into. */
static int next_allocation(const struct nvlxi_context *context, const struct nvlxi_extents *extents,
                           struct nvlxi_allocation *next) {
    const struct nvlxi_allocation *last = &extents->list[extents->count - 1];
    if (!last->joins)
        return NVLX_ERANGE;
    int code = context->ops->resolve(context->device, extents_end(extents), next);
    if (code && code != NVLX_ENOTSUP)
        return code;
    return !code && next->joins && next->kind == last->kind && next->gpu == last->gpu &&
                   next->base == extents_end(extents)
               ? 0
               : NVLX_ERANGE;
}

/* Pinned memory joins nothing: so the first allocation tells for all. */
static int check_shareable(const struct nvlxi_extents *extents, uint64_t address, uint32_t access) {
    if (access == NVLX_ACCESS_NONE || extents->one.kind != NVLXI_KIND_PINNED)
        return 0;
    return nvlxi_fail(NVLX_ENOTSUP,
                      "0x%" PRIx64 " is pinned host memory, which CUDA cannot share: register it with "
                      "NVLX_ACCESS_NONE, for transfers of this process, or share memory of nvlx_alloc",
                      address);
}

int nvlxi_extents_survey(const struct nvlxi_context *context, uint64_t address, uint64_t length, uint32_t access,
                         struct nvlxi_extents *extents) {
    struct nvlxi_allocation next;
    uint64_t end;
    *extents = (struct nvlxi_extents){.list = &extents->one, .count = 1, .capacity = 1};
    if (!nvlxi_add(address, length, &end))
        return nvlxi_fail(NVLX_EINVAL, "address 0x%" PRIx64 " + length %" PRIu64 " wraps around", address, length);
    int code = context->ops->resolve(context->device, address, &extents->one);
    if (!code)
        code = check_shareable(extents, address, access);
    while (!code && end > extents_end(extents)) {
        code = next_allocation(context, extents, &next);
        if (code == NVLX_ERANGE)
            return nvlxi_fail(code,
                              "the range of %" PRIu64 " bytes at 0x%" PRIx64 " ends at 0x%" PRIx64
                              ", beyond its allocation's end at 0x%" PRIx64 " (0x%" PRIx64 " + %" PRIu64 ")",
                              length, address, end, extents_end(extents), extents->list[0].base,
                              extents_end(extents) - extents->list[0].base);
        if (!code)
            code = extents_add(extents, &next);
    }
    return code;
}
