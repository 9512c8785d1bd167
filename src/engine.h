/* For tests: an engine on a given backend, such as one that fails on purpose.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_ENGINE_H
#define NVLXI_ENGINE_H

#include "device.h"

int nvlxi_engine_create(const struct nvlx_config *config, const struct nvlxi_device_ops *ops,
                        struct nvlx_engine **engine);

#endif
