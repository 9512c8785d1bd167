/* What the modules of one engine share. It is filled before they are made, and does not change.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_CONTEXT_H
#define NVLXI_DEVICE_CONTEXT_H

#include "base/metrics.h"
#include "base/tables.h"
#include "device/device.h"

struct nvlxi_context {
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    struct nvlxi_identity identity; /* ours; its generation is the registration's to tell */
    struct nvlxi_tables *tables;
    struct nvlxi_metrics *metrics;
};

#endif
