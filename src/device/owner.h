/* Whose legacy handles a backend does not open. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_OWNER_H
#define NVLXI_DEVICE_OWNER_H

#include "device/device.h"

/* How processes share that cannot do so by legacy handles; the second, where that is since their PID namespaces differ.
 * They end a message. */
#define NVLXI_LEGACY_REMEDY                                                                                            \
    "share VMM memory instead (nvlx_alloc with NVLX_ALLOC_VMM, or expandable segments) and call nvlx_serve"
#define NVLXI_NAMESPACE_REMEDY NVLXI_LEGACY_REMEDY ", or run both processes in one PID namespace"

/* A legacy handle names its process by a number. NVLX_ENOTSUP if the owner's number is this process's own, though it is
 * another process: whoever opens the handle takes it for one of this process. */
int nvlxi_check_owner(const struct nvlxi_map *map);

#endif
