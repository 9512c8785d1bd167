/* What NVIDIA's management library (NVML) says of the machine's GPUs: libnvidia-ml.so.1 is opened where it is there,
 * and never linked. It sees GPUs that CUDA_VISIBLE_DEVICES hides.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COMMON_NVML_H
#define TOOLS_COMMON_NVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVML_GPUS_MAX  64
#define NVML_LINKS_MAX 36 /* of one GPU that are asked for */
#define NVML_ENDS_MAX  8  /* different ones */

struct nvml_end {
    char name[48]; /* "GPU-..." of another GPU, else "NVSwitch" or what it is */
    int links;
};

struct nvml_gpu {
    char name[96], uuid[96], pci[32];
    uint64_t used; /* bytes of its memory */
    int mig;       /* 1 enabled, 0 not, -1 not told */
    int links, links_down, link_version;
    struct nvml_end ends[NVML_ENDS_MAX]; /* of links that are up */
    int end_count;
};

struct nvml {
    void *library;   /* NULL: it is not here, or does not work: */
    char why[256];   /* then in whose words */
    char driver[80]; /* version of the driver, such as 580.159.04 */
    int count;
    struct nvml_gpu gpus[NVML_GPUS_MAX];
    signed char p2p[NVML_GPUS_MAX][NVML_GPUS_MAX]; /* reads between two GPUs: enum nvml_p2p, or -1: not told */
};

/* NVIDIA: NVML API, nvmlGpuP2PStatus_t. */
enum nvml_p2p {
    NVML_P2P_OK,
    NVML_P2P_CHIPSET,
    NVML_P2P_GPU,
    NVML_P2P_TOPOLOGY,
    NVML_P2P_DISABLED,
    NVML_P2P_UNSUPPORTED
};

void nvml_look(struct nvml *nvml);
void nvml_close(struct nvml *nvml);
const struct nvml_gpu *nvml_find(const struct nvml *nvml, const char *uuid); /* or NULL */
const char *nvml_p2p_text(int status);

/* Bytes that the GPU has received and sent over all its links since it was started. False: they are not told. This call
 * of the driver is known to crash: ask in a process that may. */
bool nvml_traffic(const struct nvml *nvml, const char *uuid, uint64_t *received, uint64_t *sent);

#endif
