/* Two processes of the doctor's own: one serves, the other connects and may read.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_DOCTOR_PAIR_H
#define TOOLS_DOCTOR_PAIR_H

#include <stdbool.h>
#include <stdint.h>

struct pair {
    const char *address;
    bool host;      /* the host backend, whatever there is; else the one that a program gets */
    bool share;     /* the one that serves has memory, the other reads and compares it */
    uint32_t flags; /* of that memory: NVLX_ALLOC_... or 0 */
};

struct pair_result {
    int code; /* 0, or of the call that failed */
    char text[600];
    char backend[16];
};

/* Forks both, and waits for them. No thread of this process may exist, nor may it have used CUDA. */
void pair_run(const struct pair *pair, struct pair_result *result);

#endif
