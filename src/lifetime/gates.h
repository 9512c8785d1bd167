/* Gates: counts of this process's own by which it lets streams go on that wait for counts of others.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A gate is a place in memory of a GPU that is made before the first of its waits, and is there until the engine's last
 * wait is over. A wait has one from before it is queued until its stream has gone on. Its gate is open when the place
 * has the number of the wait or a higher one; as numbers rise, what was left there by older waits does not open it. */
#ifndef NVLXI_LIFETIME_GATES_H
#define NVLXI_LIFETIME_GATES_H

#include <pthread.h>

#include "device/context.h"

#define NVLXI_GATES 32 /* of one GPU: the waits behind them are kernels, of which a GPU runs 128 */

struct nvlxi_gates {
    uint64_t base;  /* address of the first; 0: they are not made */
    uint32_t taken; /* a bit for each */
};

/* `mutex` guards the gates; it is not held while they are made. NVLX_EBUSY, not logged: all are taken. */
int nvlxi_gate_take(struct nvlxi_gates *gates, pthread_mutex_t *mutex, const struct nvlxi_context *context, int gpu,
                    uint64_t *gate);
/* 0 is allowed. Under the mutex. */
void nvlxi_gate_drop(struct nvlxi_gates *gates, uint64_t gate);
/* Nobody waits any more. */
void nvlxi_gates_free(struct nvlxi_gates *gates, const struct nvlxi_context *context);

#endif
