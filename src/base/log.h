/* The one log function. glog is behind it, or the caller's callback (nvlx_set_log).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_LOG_H
#define NVLXI_BASE_LOG_H

#include <stdbool.h>

#include "base/fork_phase.h"
#include "nvlxfer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Logs one line at NVLX_LOG_...; cheap if the level is off. Never fails, from any thread. In a forked child, which glog
 * may not survive, what would go to glog goes straight to stderr, as it does where the program has not initialised
 * glog. There, and in glog, a level has a limit of lines a second: what is left out is counted, and told. What a log
 * function itself causes to be logged is dropped. */
void nvlxi_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether a line of this level is written at all: for who would have work to make one. */
bool nvlxi_log_is_on(int level);

/* As nvlx_set_log, whose arguments are checked; once it returns, the old function is not running and never will be.
 * False: a log function called it. */
bool nvlxi_log_set(int level, nvlx_log_function function, void *context);

void nvlxi_log_fork(enum nvlxi_fork_phase phase);

#ifdef __cplusplus
}
#endif

#endif
