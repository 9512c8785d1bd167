/* nvlx_perf: the owner of the other memory, a process that does what the measuring one asks.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_OWNER_H
#define PERF_OWNER_H

/* Ends with the channel. Returns the exit code. */
int perf_owner_run(const char *argument);

#endif
