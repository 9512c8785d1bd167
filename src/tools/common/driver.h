/* What NVIDIA's driver says of itself and its GPUs, asked without the library: libcuda.so.1 is opened here, and never
 * linked. So tools can tell what is wrong where the library only says that it cannot run.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COMMON_DRIVER_H
#define TOOLS_COMMON_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#define DRIVER_GPUS_MAX 64

/* Results of the driver that tell a cause (NVIDIA: CUDA Driver API, CUresult). */
enum driver_result {
    DRIVER_OK = 0,
    DRIVER_OUT_OF_MEMORY = 2,
    DRIVER_STUB = 34,
    DRIVER_UNAVAILABLE = 46,
    DRIVER_NO_DEVICE = 100,
    DRIVER_OPERATING_SYSTEM = 304,
    DRIVER_NOT_READY = 802,
    DRIVER_MISMATCH = 803,
    DRIVER_COMPAT = 804
};

enum driver_compute_mode { DRIVER_MODE_DEFAULT = 0, DRIVER_MODE_PROHIBITED = 2, DRIVER_MODE_EXCLUSIVE = 3 };

struct driver_gpu {
    char name[96];
    char uuid[48]; /* as nvidia-smi -L prints it; "" if it was not told */
    char pci[32];
    uint64_t memory;
    int major, minor, sms; /* of each -1: it was not told */
    int compute_mode;      /* enum driver_compute_mode */
    int fabric;            /* chunks can have fabric handles */
};

struct driver {
    bool loaded;   /* libcuda.so.1 */
    char why[400]; /* it did not load, in the loader's words */
    char path[256];
    int version; /* 13000 for CUDA 13.0; 0: not told */
    int result;  /* of cuInit and of counting: enum driver_result or another */
    char result_name[64];
    int count;
    struct driver_gpu gpus[DRIVER_GPUS_MAX];
    signed char peer_access[DRIVER_GPUS_MAX][DRIVER_GPUS_MAX]; /* [from][to]: 1, 0, or -1: not told */
};

/* Loads and starts it: from then on no forked child of this process may use CUDA. No context is made. */
void driver_look(struct driver *driver);

#endif
