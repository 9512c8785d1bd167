/* Which backend an engine runs on. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_BACKEND_H
#define NVLXI_API_BACKEND_H

#include "device/device.h"

/* NVLX_BACKEND_AUTO is resolved; what is found can run. Where nobody asked for host and it is taken, a warning tells
 * why, once a process. NVLX_EINVAL, NVLX_EBACKEND. */
int nvlxi_backend_find(uint32_t backend, const struct nvlxi_device_ops **ops);

/* Lets a profiler see what is done, if one looks. */
void nvlxi_backend_trace(void);

#endif
