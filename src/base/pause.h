/* How a thread waits for what is done soon, or late. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_PAUSE_H
#define NVLXI_BASE_PAUSE_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "base/base.h"

#define NVLXI_SPIN_NS  200000u  /* a waiter first asks again at once, */
#define NVLXI_YIELD_NS 5000000u /* then lets others run, */
#define NVLXI_SLEEP_NS 50000    /* then sleeps in between */

/* Between two questions of a waiter, who has asked since then. */
static inline void nvlxi_pause(uint64_t since_ns) {
    const struct timespec nap = {.tv_nsec = NVLXI_SLEEP_NS};
    const uint64_t waited = nvlxi_now_ns() - since_ns;
    if (waited < NVLXI_SPIN_NS)
        return;
    if (waited < NVLXI_YIELD_NS)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

#endif
