/* Asks NVIDIA's driver, which is opened at run time. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "common/driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "common/symbol.h"

/* Attributes of a device, by the numbers that the CUDA Driver API gives them. */
enum { SM_COUNT = 16, COMPUTE_MODE = 20, MAJOR = 75, MINOR = 76, FABRIC = 128 };

struct functions {
    int (*init)(unsigned flags);
    int (*version)(int *version);
    int (*error_name)(int error, const char **name);
    int (*count)(int *count);
    int (*get)(int *device, int ordinal);
    int (*name)(char *name, int size, int device);
    int (*uuid)(unsigned char uuid[16], int device);
    int (*pci)(char *text, int size, int device);
    int (*memory)(size_t *bytes, int device);
    int (*attribute)(int *value, int attribute, int device);
    int (*can_access)(int *can, int device, int peer);
};

static void find_functions(void *library, struct functions *f) {
    symbol_find(library, &f->init, "cuInit");
    symbol_find(library, &f->version, "cuDriverGetVersion");
    symbol_find(library, &f->error_name, "cuGetErrorName");
    symbol_find(library, &f->count, "cuDeviceGetCount");
    symbol_find(library, &f->get, "cuDeviceGet");
    symbol_find(library, &f->name, "cuDeviceGetName");
    symbol_find(library, &f->uuid, "cuDeviceGetUuid_v2");
    symbol_find(library, &f->pci, "cuDeviceGetPCIBusId");
    symbol_find(library, &f->memory, "cuDeviceTotalMem_v2");
    symbol_find(library, &f->attribute, "cuDeviceGetAttribute");
    symbol_find(library, &f->can_access, "cuDeviceCanAccessPeer");
}

static int attribute(const struct functions *f, int which, int device) {
    int value = -1;
    return f->attribute && !f->attribute(&value, which, device) ? value : -1;
}

static void write_uuid(const struct functions *f, int device, char *text, size_t size) {
    unsigned char uuid[16];
    text[0] = '\0';
    if (!f->uuid || f->uuid(uuid, device))
        return;
    size_t at = (size_t)snprintf(text, size, "GPU");
    for (int i = 0; i < 16; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%02x", i && (i < 4 || i > 10 || i % 2) ? "" : "-", uuid[i]);
}

static void look_at_gpu(const struct functions *f, int device, struct driver_gpu *gpu) {
    size_t memory = 0;
    if (!f->name || f->name(gpu->name, sizeof gpu->name, device))
        snprintf(gpu->name, sizeof gpu->name, "unknown");
    if (!f->pci || f->pci(gpu->pci, sizeof gpu->pci, device))
        gpu->pci[0] = '\0';
    write_uuid(f, device, gpu->uuid, sizeof gpu->uuid);
    gpu->memory = f->memory && !f->memory(&memory, device) ? memory : 0;
    gpu->major = attribute(f, MAJOR, device);
    gpu->minor = attribute(f, MINOR, device);
    gpu->sms = attribute(f, SM_COUNT, device);
    gpu->compute_mode = attribute(f, COMPUTE_MODE, device);
    gpu->fabric = attribute(f, FABRIC, device);
}

static void look_at_gpus(const struct functions *f, struct driver *driver) {
    int device[DRIVER_GPUS_MAX] = {0}, can;
    for (int i = 0; i < driver->count; i++) {
        if (!f->get || f->get(&device[i], i))
            device[i] = i;
        look_at_gpu(f, device[i], &driver->gpus[i]);
    }
    for (int i = 0; i < driver->count; i++)
        for (int j = 0; j < driver->count; j++)
            driver->peer_access[i][j] =
                (signed char)(f->can_access && !f->can_access(&can, device[i], device[j]) ? can : -1);
}

/* Which file it is: a stub or a copy for older drivers is told by its path. */
static void note_path(const struct functions *f, struct driver *driver) {
    Dl_info info;
    void *function;
    memcpy(&function, &f->init, sizeof function);
    if (function && dladdr(function, &info) && info.dli_fname)
        snprintf(driver->path, sizeof driver->path, "%s", info.dli_fname);
}

static void note_result(const struct functions *f, struct driver *driver, int result) {
    const char *name = NULL;
    driver->result = result;
    if (!f->error_name || f->error_name(result, &name) || !name)
        name = "";
    if (result)
        snprintf(driver->result_name, sizeof driver->result_name, "error %d%s%s", result, *name ? ", " : "", name);
}

void driver_look(struct driver *driver) {
    struct functions f = {0};
    memset(driver, 0, sizeof *driver);
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL); /* it stays loaded: it has threads */
    if (!library) {
        const char *why = dlerror();
        snprintf(driver->why, sizeof driver->why, "%s", why ? why : "libcuda.so.1 does not load");
        return;
    }
    driver->loaded = true;
    find_functions(library, &f);
    note_path(&f, driver);
    if (f.version && f.version(&driver->version))
        driver->version = 0;
    note_result(&f, driver, f.init ? f.init(0) : -1);
    if (driver->result)
        return;
    note_result(&f, driver, f.count ? f.count(&driver->count) : -1);
    if (driver->result || driver->count < 0)
        driver->count = 0;
    if (driver->count > DRIVER_GPUS_MAX)
        driver->count = DRIVER_GPUS_MAX;
    look_at_gpus(&f, driver);
}
