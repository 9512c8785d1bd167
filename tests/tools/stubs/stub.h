/* Numbers of the environment, which tell stub_driver.c and stub_nvml.c what to say, so that both tell of one machine.
 * It has two GPUs; CUDA_VISIBLE_DEVICES hides some from the driver:
 *
 *     STUB_RESULT    of cuInit (0)            STUB_VERSION   of CUDA (13000)
 *     STUB_ACCESS    peer access (1)          STUB_P2P       what NVML says of it (0: fine)
 *     STUB_MODE      compute mode (0)         STUB_FABRIC    fabric handles (0)
 *     STUB_MIG       MIG mode (0)             STUB_LINKS     of each GPU (4)
 *     STUB_TRAFFIC   on a link (1 MiB a look)
 *     STUB_DOWN      links that are down (0)  STUB_CRASH     1: cuInit and asking for counters crash (0)
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_STUB_H
#define TOOLS_STUB_H

#include <stdlib.h>

#define STUB_GPUS 2u

static inline int stub_number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

/* The machine's GPU that the driver calls `ordinal`; -1 if there is none. */
static inline int stub_visible(int ordinal) {
    const int gpus = (int)STUB_GPUS;
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list)
        return ordinal < gpus ? ordinal : -1;
    for (;; list++) {
        char *end;
        long gpu = strtol(list, &end, 10);
        if (end == list || gpu < 0 || gpu >= gpus)
            return -1;
        if (ordinal-- == 0)
            return (int)gpu;
        list = end;
        if (*list != ',')
            return -1;
    }
}

#endif
