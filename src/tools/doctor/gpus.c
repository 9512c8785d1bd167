/* The doctor: the library's build, the driver, and which GPUs it shows. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/driver.h"
#include "common/nvml.h"
#include "doctor/doctor.h"

#define OLDEST_CUDA 12080 /* that the library supports */

static const char no_gpu_needed[] = "Without a GPU, for tests: NVLX_BACKEND=host";

/* 13000 for 13.0; 0: built without. */
static int built_with(void) {
    const char *word = strstr(nvlx_build_info(), " cuda=");
    int major = 0, minor = 0;
    if (!word || sscanf(word, " cuda=%d.%d", &major, &minor) < 1)
        return 0;
    return 1000 * major + 10 * minor;
}

static void check_build(const struct doctor *doctor, struct finding *finding) {
    (void)doctor;
    const int version = built_with();
    if (version || strstr(nvlx_build_info(), " cuda=unknown")) {
        found(finding, VERDICT_OK, "built with CUDA %d.%d", version / 1000, version % 1000 / 10);
        return;
    }
    found(finding, VERDICT_FAULT, "this library was built without the cuda backend");
    do_this(finding, "build it with -DNVLX_CUDA=ON, where CUDA 12.8 or newer is found. %s", no_gpu_needed);
}

static void check_driver(const struct doctor *doctor, struct finding *finding) {
    const struct driver *driver = &doctor->facts->driver;
    if (!doctor->facts->whole) {
        found(finding, VERDICT_FAULT, "a process that asked the driver: %s", doctor->facts->died);
        do_this(finding, "look at nvidia-smi, and at the kernel's log (dmesg) for messages of the driver (NVRM, Xid)");
    } else if (!driver->loaded && strstr(driver->why, "No such file")) {
        found(finding, VERDICT_FAULT, "there is no NVIDIA driver: %s", driver->why);
        do_this(finding,
                "install NVIDIA's driver, until nvidia-smi works. In a container, start it with --gpus all (NVIDIA "
                "Container Toolkit; NVIDIA_DRIVER_CAPABILITIES must have compute and utility). %s",
                no_gpu_needed);
    } else if (!driver->loaded) {
        found(finding, VERDICT_FAULT, "the driver's library does not load: %s", driver->why);
        do_this(finding,
                "install the driver again, or take the folder of this file off LD_LIBRARY_PATH, which is \"%s\"",
                getenv("LD_LIBRARY_PATH") ? getenv("LD_LIBRARY_PATH") : "");
    } else if (driver->result == DRIVER_STUB || strstr(driver->path, "/stubs/")) {
        found(finding, VERDICT_FAULT, "%s is a stub of the CUDA toolkit, to link with: it is no driver", driver->path);
        do_this(finding, "take the folder of stubs off LD_LIBRARY_PATH, which is \"%s\"",
                getenv("LD_LIBRARY_PATH") ? getenv("LD_LIBRARY_PATH") : "");
    } else {
        found(finding, VERDICT_OK, "%s, for CUDA %d.%d", driver->path, driver->version / 1000,
              driver->version % 1000 / 10);
    }
}

static void check_version(const struct doctor *doctor, struct finding *finding) {
    const struct driver *driver = &doctor->facts->driver;
    const int built = built_with() / 1000 * 1000, wanted = built > OLDEST_CUDA ? built : OLDEST_CUDA;
    const int has = driver->version;
    if (!driver->loaded || driver->result == DRIVER_STUB || !has) {
        found(finding, VERDICT_SKIPPED, "no driver tells its version");
        return;
    }
    if (has >= wanted) {
        found(finding, VERDICT_OK, "the driver is for CUDA %d.%d", has / 1000, has % 1000 / 10);
        return;
    }
    found(finding, VERDICT_FAULT, "the driver is too old: it is for CUDA %d.%d, and this library needs %d.%d",
          has / 1000, has % 1000 / 10, wanted / 1000, wanted % 1000 / 10);
    do_this(finding,
            "install a newer driver: 570 or newer for CUDA 12.8, 580 or newer for CUDA 13. Or build the library "
            "with an older CUDA, from 12.8 on");
}

/* ---- GPUs that do not come up --------------------------------------------------------------------------- */

/* Device files that this process cannot open; "" if all can be. */
static void list_closed_files(char *text, size_t size) {
    static const char *const files[] = {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"};
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof files / sizeof files[0] && at < size; i++)
        if (access(files[i], R_OK | W_OK))
            at += (size_t)snprintf(text + at, size - at, "; %s: %s", files[i], strerror(errno));
}

static const char *remedy_of(int result) {
    switch (result) {
    case DRIVER_NOT_READY:
        return "start the fabric manager, which sets up NVLink switches: systemctl start nvidia-fabricmanager, of the "
               "same version as the driver; then look at nvidia-smi -q for \"Fabric\"";
    case DRIVER_MISMATCH:
        return "the library and the kernel module of the driver are of two versions: restart the machine, or load the "
               "module again; in a container take cuda-compat off LD_LIBRARY_PATH";
    case DRIVER_COMPAT:
        return "these GPUs do not take the libraries of cuda-compat: take them off LD_LIBRARY_PATH, and install a "
               "newer "
               "driver";
    case DRIVER_UNAVAILABLE:
        return "another process has the GPU alone: nvidia-smi -c DEFAULT";
    case DRIVER_NO_DEVICE:
    case DRIVER_OPERATING_SYSTEM:
        return "in a container, start it with --gpus all; else load the module (nvidia-modprobe -u -c 0), and let this "
               "user read and write /dev/nvidia*";
    default:
        return "look at nvidia-smi, and at the kernel's log (dmesg) for messages of the driver (NVRM, Xid)";
    }
}

static void check_gpus(const struct doctor *doctor, struct finding *finding) {
    const struct driver *driver = &doctor->facts->driver;
    char closed[300];
    if (!driver->loaded || driver->result == DRIVER_STUB)
        found(finding, VERDICT_SKIPPED, "there is no driver");
    else if (!driver->result && driver->count > 0)
        found(finding, VERDICT_OK, "%d GPUs, the first is %s", driver->count, driver->gpus[0].name);
    else if (driver->result == DRIVER_NO_DEVICE && getenv("CUDA_VISIBLE_DEVICES"))
        found(finding, VERDICT_SKIPPED, "CUDA_VISIBLE_DEVICES is set: see hidden_gpus");
    else if (driver->result == DRIVER_OUT_OF_MEMORY && addresses_are_limited() && looks_at(doctor, "address_space"))
        found(finding, VERDICT_SKIPPED, "the driver has no room for its addresses: see address_space");
    if (finding->came[0])
        return;
    list_closed_files(closed, sizeof closed);
    found(finding, VERDICT_FAULT, "the driver shows no GPU: %s%s",
          driver->result ? driver->result_name : "it counts none", closed);
    do_this(finding, "%s", remedy_of(driver->result));
}

/* CUDA shows the GPUs of the list up to the first entry that is none. */
static void check_hidden(const struct doctor *doctor, struct finding *finding) {
    const struct driver *driver = &doctor->facts->driver;
    const struct nvml *nvml = &doctor->facts->nvml;
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    int entries = list && *list ? 1 : 0;
    if (!list) {
        found(finding, VERDICT_OK, "CUDA_VISIBLE_DEVICES is not set: CUDA shows all GPUs");
        return;
    }
    for (const char *c = list; *c; c++)
        entries += *c == ',';
    if (!driver->loaded || (driver->result && driver->result != DRIVER_NO_DEVICE)) {
        found(finding, VERDICT_SKIPPED, "there is no driver that works");
    } else if (driver->count == 0) {
        found(finding, VERDICT_FAULT, "CUDA_VISIBLE_DEVICES=\"%s\" hides all GPUs", list);
        do_this(finding, "name GPUs that are there, by number or UUID (nvidia-smi -L), or take the variable away");
    } else if (driver->count < entries) {
        found(finding, VERDICT_FAULT,
              "CUDA_VISIBLE_DEVICES=\"%s\" has %d entries, and CUDA shows %d GPUs: entry %d names none, and hides all "
              "behind it",
              list, entries, driver->count, driver->count + 1);
        do_this(finding, "correct that entry: nvidia-smi -L lists numbers and UUIDs");
    } else {
        found(
            finding, VERDICT_OK,
            "CUDA_VISIBLE_DEVICES=\"%s\": CUDA shows %d GPUs, NVML %d. Memory of hidden ones can be read all the same",
            list, driver->count, nvml->count);
    }
}

static void blame_mode(const struct driver_gpu *gpu, int ordinal, struct finding *finding) {
    const bool exclusive = gpu->compute_mode == DRIVER_MODE_EXCLUSIVE;
    char remedy[128];
    snprintf(remedy, sizeof remedy, "nvidia-smi -i %s -c DEFAULT", *gpu->uuid ? gpu->uuid : gpu->pci);
    fault_also(finding, remedy, "GPU %d is in %s mode: %s", ordinal, exclusive ? "exclusive process" : "prohibited",
               exclusive ? "one process at a time may use it" : "no process may use it");
}

static void check_mode(const struct doctor *doctor, struct finding *finding) {
    const struct driver *driver = &doctor->facts->driver;
    for (int i = 0; i < driver->count; i++) {
        const int mode = driver->gpus[i].compute_mode;
        if (mode == DRIVER_MODE_EXCLUSIVE || mode == DRIVER_MODE_PROHIBITED)
            blame_mode(&driver->gpus[i], i, finding);
    }
    if (finding->verdict == VERDICT_FAULT)
        return;
    found(finding, driver->count ? VERDICT_OK : VERDICT_SKIPPED,
          driver->count ? "all may be shared" : "no GPU is shown");
}

const struct check checks_of_gpus[] = {{"build", "whether the library has the cuda backend", check_build, true},
                                       {"driver", "to open libcuda.so.1", check_driver, true},
                                       {"driver_version", "which CUDA the driver is for", check_version, true},
                                       {"gpus", "to start the driver, and to count GPUs", check_gpus, true},
                                       {"hidden_gpus", "which GPUs CUDA_VISIBLE_DEVICES leaves", check_hidden, true},
                                       {"compute_mode", "whether several processes may use each GPU", check_mode, true},
                                       {NULL, NULL, NULL, false}};
