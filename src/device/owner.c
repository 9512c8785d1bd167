/* Refuses to open legacy handles whose owner could be taken for this process. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "device/owner.h"

#include <inttypes.h>
#include <unistd.h>

#include "base/error.h"
#include "base/identity.h"

int nvlxi_check_owner(const struct nvlxi_map *map) {
    struct nvlxi_identity mine;
    if (map->owner->pid != (uint64_t)getpid())
        return 0;
    int code = nvlxi_identity_make(&mine);
    if (code || nvlxi_identity_same_process(map->owner, &mine))
        return code;
    return nvlxi_fail(NVLX_ENOTSUP,
                      "segment 0x%" PRIx64 " cannot be opened by its legacy handle: its owner and this process both "
                      "have pid %" PRIu64 ", in PID namespaces of their own; " NVLXI_NAMESPACE_REMEDY,
                      map->segments->base, map->owner->pid);
}
