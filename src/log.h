/* The one log function. glog is behind it, or the caller's callback (nvlx_set_log).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_LOG_H
#define NVLXI_LOG_H

#include <stdbool.h>

#include "nvlxfer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Logs one line at NVLX_LOG_...; cheap if the level is off. Never fails, from any thread. */
void nvlxi_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif

#endif
