/* The doctor: frameworks and libraries beside this one. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor/doctor.h"
#include "doctor/plugin.h"

/* ---- Allocators ----------------------------------------------------------------------------------------- */

/* PyTorch reads its newer variable first. */
static const char *torch_setting(const char **name) {
    const char *newer = getenv("PYTORCH_ALLOC_CONF"), *older = getenv("PYTORCH_CUDA_ALLOC_CONF");
    *name = newer ? "PYTORCH_ALLOC_CONF" : "PYTORCH_CUDA_ALLOC_CONF";
    return newer ? newer : older;
}

/* A variable that asks JAX for CUDA's default pool by that value is a fault. */
static void look_at_jax(const char *name, const char *value, const char *pool, struct finding *finding) {
    char remedy[256];
    if (!value || strcmp(value, pool))
        return;
    snprintf(remedy, sizeof remedy, "take %s away: JAX's default allocator can be shared, by file descriptors", name);
    fault_also(finding, remedy, "%s is \"%s\": memory of CUDA's default pool cannot be shared", name, value);
}

static void check_allocator(const struct doctor *doctor, struct finding *finding) {
    const char *name, *setting = torch_setting(&name);
    (void)doctor;
    if (setting && strcasestr(setting, "backend:cudaMallocAsync"))
        fault_also(finding,
                   "take backend:cudaMallocAsync away: PyTorch's own allocator can be shared, with "
                   "expandable_segments:True too. Or let the program set a pool with POSIX file descriptors "
                   "(cudaDeviceSetMemPool)",
                   "%s is \"%s\": memory of CUDA's default pool cannot be shared", name, setting);
    look_at_jax("XLA_PYTHON_CLIENT_ALLOCATOR", getenv("XLA_PYTHON_CLIENT_ALLOCATOR"), "cuda_async", finding);
    look_at_jax("TF_GPU_ALLOCATOR", getenv("TF_GPU_ALLOCATOR"), "cuda_malloc_async", finding);
    if (finding->verdict == VERDICT_FAULT)
        return;
    if (setting && strcasestr(setting, "expandable_segments:True"))
        found(finding, VERDICT_OK, "%s is \"%s\": memory goes by file descriptors, so its owner calls nvlx_serve", name,
              setting);
    else
        found(finding, VERDICT_OK, "nothing in the environment asks for memory that cannot be shared");
}

/* ---- glog ----------------------------------------------------------------------------------------------- */

struct definitions {
    char files[8][256];
    int count;
};

/* Notes which file defines glog's functions for this library, if it is another one than those before. */
static int note_glog(struct dl_phdr_info *library, size_t size, void *context) {
    struct definitions *found = context;
    Dl_info info;
    (void)size;
    void *handle = *library->dlpi_name ? dlopen(library->dlpi_name, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    void *function = handle ? dlsym(handle, "_ZN6google17InitGoogleLoggingEPKc") : NULL;
    const bool known = function && dladdr(function, &info) && info.dli_fname;
    if (handle)
        dlclose(handle);
    for (int i = 0; known && i < found->count; i++)
        if (!strcmp(found->files[i], info.dli_fname))
            return 0;
    if (known && found->count < 8)
        snprintf(found->files[found->count++], sizeof found->files[0], "%s", info.dli_fname);
    return 0;
}

static void check_glog(const struct doctor *doctor, struct finding *finding) {
    struct definitions definitions = {.count = 0};
    (void)doctor;
    dl_iterate_phdr(note_glog, &definitions);
    if (definitions.count < 2) {
        found(finding, VERDICT_OK, "%s", definitions.count ? definitions.files[0] : "none is loaded as a library");
        return;
    }
    found(finding, VERDICT_FAULT, "two libraries define glog's functions, and get mixed: %s and %s",
          definitions.files[0], definitions.files[1]);
    do_this(finding,
            "load one: take the other off LD_PRELOAD or LD_LIBRARY_PATH, or build this library with glog inside "
            "(the wheel has it inside)");
}

/* ---- NIXL ----------------------------------------------------------------------------------------------- */

static void check_plugin(const struct doctor *doctor, struct finding *finding) {
    const char *folder = getenv("NIXL_PLUGIN_DIR");
    struct plugin_trial trial;
    char path[4096];
    (void)doctor;
    if (!folder) {
        found(finding, VERDICT_SKIPPED, "NIXL_PLUGIN_DIR is not set");
        return;
    }
    snprintf(path, sizeof path, "%s/" PLUGIN_FILE, folder);
    if (access(path, R_OK)) {
        found(finding, VERDICT_FAULT, "there is no %s: NIXL does not find the plugin NVLX", path);
        do_this(finding, "copy libplugin_NVLX.so there, or let NIXL_PLUGIN_DIR name the folder that has it");
        return;
    }
    plugin_load(NULL, path, &trial);
    if (trial.loads) {
        found(finding, VERDICT_OK, "%s loads", path);
        return;
    }
    found(finding, VERDICT_FAULT, "the plugin does not load: %s", trial.why);
    do_this(finding, "what it needs must be found by the loader: libnvlxfer.so.0 beside it, on LD_LIBRARY_PATH, or by "
                     "ldconfig");
}

const struct check checks_of_neighbours[] = {
    {"allocator", "which allocators the environment asks PyTorch and JAX for", check_allocator, false},
    {"glog", "how many copies of glog are loaded here", check_glog, false},
    {"nixl_plugin", "to load NIXL's plugin, if NIXL_PLUGIN_DIR is set", check_plugin, false},
    {NULL, NULL, NULL, false}};
