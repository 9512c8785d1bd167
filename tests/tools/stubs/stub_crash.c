/* Stands before the library's nvlx_connect: who connects crashes, as by a driver's fault.
 * SPDX-License-Identifier: Apache-2.0 */
#include <nvlxfer.h>
#include <stdlib.h>

int nvlx_connect(struct nvlx_engine *engine, const char *address, int64_t timeout_ns, struct nvlx_peer **peer) {
    (void)engine, (void)address, (void)timeout_ns, (void)peer;
    abort();
}
