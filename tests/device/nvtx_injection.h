/* What the profiler that is none has seen. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVTX_INJECTION_H
#define NVTX_INJECTION_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define INJECTED_MAX 256

struct injected_range {
    char name[24];
    uint64_t size;
    int ended; /* how often */
    pthread_t pushed;
};

/* Of the domain "nvlxfer", in the order of their begins; as many as there is room for. Returns how many there are. */
size_t injected_ranges(struct injected_range *seen, size_t room);

#endif
