/* nvlx_info: the driver and the GPUs. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "info/info.h"

static void tell_cuda_version(struct report *report, int version) {
    if (version)
        report_text(report, "cuda", "%d.%d", version / 1000, version % 1000 / 10);
    else
        report_nothing(report, "cuda");
}

void info_driver(struct report *report, const struct driver *driver, const struct nvml *nvml) {
    report_open(report, "driver");
    if (nvml->library && nvml->driver[0])
        report_text(report, "version", "%s", nvml->driver);
    else
        report_nothing(report, "version");
    tell_cuda_version(report, driver->version);
    if (driver->loaded)
        report_text(report, "library", "%s", driver->path);
    else
        report_nothing(report, "library");
    if (!driver->loaded)
        report_text(report, "why_not", "%s", driver->why);
    else if (driver->result)
        report_text(report, "why_not", "%s", driver->result_name);
    if (!nvml->library)
        report_text(report, "nvml", "not here: %s", nvml->why);
    report_close(report);
}

static void tell_links(struct report *report, const struct nvml_gpu *gpu) {
    report_open_list(report, "nvlink");
    for (int i = 0; i < gpu->end_count; i++) {
        report_open(report, NULL);
        report_text(report, "to", "%s", gpu->ends[i].name);
        report_number(report, "links", (uint64_t)gpu->ends[i].links);
        if (gpu->link_version)
            report_number(report, "version", (uint64_t)gpu->link_version);
        report_close(report);
    }
    report_close(report);
    report_number(report, "nvlink_down", (uint64_t)gpu->links_down);
}

static void tell_access(struct report *report, const struct driver *driver, int gpu) {
    report_open_list(report, "peer_access");
    for (int i = 0; i < driver->count; i++) {
        if (i == gpu || driver->peer_access[gpu][i] < 0)
            continue;
        report_open(report, NULL);
        report_number(report, "to", (uint64_t)i);
        report_truth(report, "allowed", driver->peer_access[gpu][i] > 0);
        report_close(report);
    }
    report_close(report);
}

static void tell_gpu(struct report *report, const struct driver *driver, int ordinal, const struct nvml *nvml) {
    const struct driver_gpu *gpu = &driver->gpus[ordinal];
    const struct nvml_gpu *managed = nvml_find(nvml, gpu->uuid);
    report_number(report, "ordinal", (uint64_t)ordinal);
    report_text(report, "name", "%s", gpu->name);
    report_text(report, "uuid", "%s", gpu->uuid);
    report_text(report, "pci", "%s", gpu->pci);
    report_bytes(report, "memory", gpu->memory);
    if (managed)
        report_bytes(report, "memory_used", managed->used);
    report_text(report, "compute_capability", "%d.%d", gpu->major, gpu->minor);
    report_number(report, "sms", gpu->sms < 0 ? 0 : (uint64_t)gpu->sms);
    if (managed && managed->mig >= 0)
        report_truth(report, "mig", managed->mig);
    if (managed)
        tell_links(report, managed);
    tell_access(report, driver, ordinal);
}

/* Those that CUDA shows. NVML sees others too: they are told apart, since no program can use them here. */
void info_gpus(struct report *report, const struct driver *driver, const struct nvml *nvml) {
    report_open_list(report, "gpus");
    for (int i = 0; i < driver->count; i++) {
        report_open(report, NULL);
        tell_gpu(report, driver, i, nvml);
        report_close(report);
    }
    report_close(report);
    report_open_list(report, "hidden_gpus");
    for (int i = 0; i < nvml->count; i++) {
        bool shown = false;
        for (int j = 0; j < driver->count; j++)
            shown = shown || nvml_find(nvml, driver->gpus[j].uuid) == &nvml->gpus[i];
        if (shown)
            continue;
        report_open(report, NULL);
        report_text(report, "name", "%s", nvml->gpus[i].name);
        report_text(report, "uuid", "%s", nvml->gpus[i].uuid);
        report_close(report);
    }
    report_close(report);
}
