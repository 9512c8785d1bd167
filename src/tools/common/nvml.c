/* Asks NVML, which is opened at run time. SPDX-License-Identifier: Apache-2.0 */
#include "common/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "common/symbol.h"

/* What NVIDIA's documentation of the NVML API says of the calls used here: results, structs, numbers. */
struct pci {
    char legacy[16];
    unsigned domain, bus, device, ids, subsystem;
    char text[32];
};
struct memory {
    unsigned long long total, free, used;
};
struct field {
    unsigned id, scope;
    long long time, latency;
    unsigned type;
    int result;
    unsigned long long value;
};
enum { REMOTE_GPU = 0, REMOTE_SWITCH = 2, P2P_READ = 0, SENT_KIB = 138, RECEIVED_KIB = 139 };

/* nvmlDevice_t is a pointer to something that is not told. */
static struct {
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver)(char *text, unsigned size);
    int (*count)(unsigned *count);
    int (*get)(unsigned index, void **gpu);
    int (*by_uuid)(const char *uuid, void **gpu);
    int (*name)(void *gpu, char *text, unsigned size);
    int (*uuid)(void *gpu, char *text, unsigned size);
    int (*pci)(void *gpu, struct pci *pci);
    int (*memory)(void *gpu, struct memory *memory);
    int (*mig)(void *gpu, unsigned *now, unsigned *pending);
    int (*link_state)(void *gpu, unsigned link, unsigned *up);
    int (*link_version)(void *gpu, unsigned link, unsigned *version);
    int (*remote_type)(void *gpu, unsigned link, unsigned *type);
    int (*remote_pci)(void *gpu, unsigned link, struct pci *pci);
    int (*p2p)(void *gpu, void *other, int what, int *status);
    int (*fields)(void *gpu, int count, struct field *fields);
    const char *(*error_text)(int error);
} calls;

static void find_functions(void *library) {
    symbol_find(library, &calls.init, "nvmlInit_v2");
    symbol_find(library, &calls.shutdown, "nvmlShutdown");
    symbol_find(library, &calls.driver, "nvmlSystemGetDriverVersion");
    symbol_find(library, &calls.count, "nvmlDeviceGetCount_v2");
    symbol_find(library, &calls.get, "nvmlDeviceGetHandleByIndex_v2");
    symbol_find(library, &calls.by_uuid, "nvmlDeviceGetHandleByUUID");
    symbol_find(library, &calls.name, "nvmlDeviceGetName");
    symbol_find(library, &calls.uuid, "nvmlDeviceGetUUID");
    symbol_find(library, &calls.pci, "nvmlDeviceGetPciInfo_v3");
    symbol_find(library, &calls.memory, "nvmlDeviceGetMemoryInfo");
    symbol_find(library, &calls.mig, "nvmlDeviceGetMigMode");
    symbol_find(library, &calls.link_state, "nvmlDeviceGetNvLinkState");
    symbol_find(library, &calls.link_version, "nvmlDeviceGetNvLinkVersion");
    symbol_find(library, &calls.remote_type, "nvmlDeviceGetNvLinkRemoteDeviceType");
    symbol_find(library, &calls.remote_pci, "nvmlDeviceGetNvLinkRemotePciInfo_v2");
    symbol_find(library, &calls.p2p, "nvmlDeviceGetP2PStatus");
    symbol_find(library, &calls.fields, "nvmlDeviceGetFieldValues");
    symbol_find(library, &calls.error_text, "nvmlErrorString");
}

/* ---- Links ---------------------------------------------------------------------------------------------- */

static void name_end(const struct nvml *nvml, void *gpu, unsigned link, char *text, size_t size) {
    unsigned type = 255;
    struct pci far = {{0}, 0, 0, 0, 0, 0, {0}};
    if (calls.remote_type && calls.remote_type(gpu, link, &type))
        type = 255;
    snprintf(text, size, "%s", type == REMOTE_SWITCH ? "NVSwitch" : "something unknown");
    if (type != REMOTE_GPU || !calls.remote_pci || calls.remote_pci(gpu, link, &far))
        return;
    snprintf(text, size, "%.*s", (int)sizeof far.text, far.text);
    for (int i = 0; i < nvml->count; i++)
        if (!strncmp(nvml->gpus[i].pci, far.text, sizeof far.text))
            snprintf(text, size, "%.*s", (int)size - 1, nvml->gpus[i].uuid);
}

static void count_end(struct nvml_gpu *found, const char *name) {
    int i = 0;
    while (i < found->end_count && strcmp(found->ends[i].name, name))
        i++;
    if (i == NVML_ENDS_MAX)
        return;
    if (i == found->end_count) {
        snprintf(found->ends[i].name, sizeof found->ends[i].name, "%s", name);
        found->ends[i].links = 0;
        found->end_count++;
    }
    found->ends[i].links++;
}

static void look_at_links(struct nvml *nvml, void *gpu, struct nvml_gpu *found) {
    char name[sizeof found->ends[0].name];
    unsigned up, version;
    for (unsigned link = 0; calls.link_state && link < NVML_LINKS_MAX; link++) {
        if (calls.link_state(gpu, link, &up))
            continue;
        found->links += up ? 1 : 0;
        found->links_down += up ? 0 : 1;
        if (!up)
            continue;
        if (calls.link_version && !calls.link_version(gpu, link, &version))
            found->link_version = (int)version;
        name_end(nvml, gpu, link, name, sizeof name);
        count_end(found, name);
    }
}

/* ---- GPUs ----------------------------------------------------------------------------------------------- */

static void look_at_gpu(void *gpu, struct nvml_gpu *found) {
    unsigned now, pending;
    struct memory memory;
    struct pci pci;
    if (!calls.name || calls.name(gpu, found->name, sizeof found->name))
        snprintf(found->name, sizeof found->name, "unknown");
    if (!calls.uuid || calls.uuid(gpu, found->uuid, sizeof found->uuid))
        found->uuid[0] = '\0';
    if (calls.pci && !calls.pci(gpu, &pci))
        snprintf(found->pci, sizeof found->pci, "%.*s", (int)sizeof found->pci - 1, pci.text);
    if (calls.memory && !calls.memory(gpu, &memory))
        found->used = memory.used;
    found->mig = calls.mig && !calls.mig(gpu, &now, &pending) ? (now ? 1 : 0) : -1;
}

static void look_at_gpus(struct nvml *nvml) {
    void *gpus[NVML_GPUS_MAX] = {NULL};
    int status;
    for (int i = 0; i < nvml->count; i++)
        if (calls.get && !calls.get((unsigned)i, &gpus[i]))
            look_at_gpu(gpus[i], &nvml->gpus[i]);
    for (int i = 0; i < nvml->count; i++) {
        if (gpus[i])
            look_at_links(nvml, gpus[i], &nvml->gpus[i]);
        for (int j = 0; j < nvml->count; j++) {
            const bool told =
                calls.p2p && i != j && gpus[i] && gpus[j] && !calls.p2p(gpus[i], gpus[j], P2P_READ, &status);
            nvml->p2p[i][j] = (signed char)(told ? status : -1);
        }
    }
}

void nvml_look(struct nvml *nvml) {
    unsigned count = 0;
    memset(nvml, 0, sizeof *nvml);
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        snprintf(nvml->why, sizeof nvml->why, "%s", why ? why : "libnvidia-ml.so.1 does not load");
        return;
    }
    find_functions(library);
    const int error = calls.init ? calls.init() : -1;
    if (error) {
        snprintf(nvml->why, sizeof nvml->why, "nvmlInit: error %d%s%s", error, calls.error_text ? ", " : "",
                 calls.error_text ? calls.error_text(error) : "");
        dlclose(library);
        return;
    }
    nvml->library = library;
    if (calls.driver && calls.driver(nvml->driver, sizeof nvml->driver))
        nvml->driver[0] = '\0';
    if (calls.count && calls.count(&count))
        count = 0;
    nvml->count = count < NVML_GPUS_MAX ? (int)count : NVML_GPUS_MAX;
    look_at_gpus(nvml);
}

void nvml_close(struct nvml *nvml) {
    if (!nvml->library)
        return;
    if (calls.shutdown)
        calls.shutdown();
    dlclose(nvml->library);
    nvml->library = NULL;
}

const struct nvml_gpu *nvml_find(const struct nvml *nvml, const char *uuid) {
    for (int i = 0; i < nvml->count; i++)
        if (*uuid && !strcmp(nvml->gpus[i].uuid, uuid))
            return &nvml->gpus[i];
    return NULL;
}

const char *nvml_p2p_text(int status) {
    static const char *const texts[] = {"yes",
                                        "no: the chipset does not support it",
                                        "no: the GPU does not support it",
                                        "no: they are behind different PCI host bridges",
                                        "no: a setting of the driver disables it",
                                        "no: it is not supported"};
    return status >= 0 && status < (int)(sizeof texts / sizeof texts[0]) ? texts[status] : "not told";
}

/* ---- What went over the links ------------------------------------------------------------------------------ */

/* By one call a link: the sum over all, which the scope 2^32 - 1 asks for, is not there in every driver. */
static bool sum_links(void *gpu, unsigned id, uint64_t *sum) {
    bool told = false;
    *sum = 0;
    for (unsigned link = 0; link < NVML_LINKS_MAX; link++) {
        struct field field = {.id = id, .scope = link};
        if (calls.fields(gpu, 1, &field) || field.result)
            continue;
        *sum += field.value * 1024;
        told = true;
    }
    return told;
}

bool nvml_traffic(const struct nvml *nvml, const char *uuid, uint64_t *received, uint64_t *sent) {
    void *gpu;
    if (!nvml->library || !calls.fields || !calls.by_uuid || calls.by_uuid(uuid, &gpu))
        return false;
    return sum_links(gpu, RECEIVED_KIB, received) && sum_links(gpu, SENT_KIB, sent);
}
