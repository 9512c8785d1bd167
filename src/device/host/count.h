/* Counts of signals, in the host backend's memory, which processes share. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_HOST_COUNT_H
#define NVLXI_DEVICE_HOST_COUNT_H

#include <stdint.h>

#include "device/device.h"

void nvlxi_host_count_change(const struct nvlxi_signal *signal);
/* Sleeps until the count or the gate is reached. */
void nvlxi_host_count_await(const struct nvlxi_gated *gated);
void nvlxi_host_count_pace(const struct nvlxi_paced *paced);
/* The slot of nvlxi_device_ops. */
int nvlxi_host_signal_read(struct nvlxi_device *device, uint64_t address, uint64_t *value);

#endif
