/* The doctor: loads NIXL's plugin. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "doctor/plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/symbol.h"
#include "doctor/doctor.h"

/* Which libnvlxfer.so.0 the plugin takes: the loader looks for the name in the plugin and all that it needs. */
static void note_library(void *plugin, struct plugin_trial *trial) {
    const char *(*version)(void);
    void *address;
    Dl_info info;
    symbol_find(plugin, &version, "nvlx_version");
    memcpy(&address, &version, sizeof address);
    if (!address || !dladdr(address, &info) || !info.dli_fname)
        return;
    if (!realpath(info.dli_fname, trial->library))
        snprintf(trial->library, sizeof trial->library, "%s", info.dli_fname);
    snprintf(trial->library_version, sizeof trial->library_version, "%s", version());
}

/* What was written to a file, without the end of its last line. */
static void read_back(int file, char *text, size_t size) {
    const ssize_t got = pread(file, text, size - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    for (size_t length = strlen(text); length && text[length - 1] == '\n'; length--)
        text[length - 1] = '\0';
}

/* The guard says on stderr why it refuses. What else this process says there from now on is not seen. */
static void ask_guard(void *(*init)(void), struct plugin_trial *trial) {
    const int file = memfd_create("stderr", MFD_CLOEXEC);
    const bool kept = file >= 0 && dup2(file, STDERR_FILENO) >= 0;
    trial->admitted = init() != NULL;
    trial->asked = true;
    if (kept)
        read_back(file, trial->said, sizeof trial->said);
    if (file >= 0)
        close(file);
}

void plugin_load(const char *nixl, const char *plugin, struct plugin_trial *trial) {
    void *(*init)(void) = NULL;
    Lmid_t apart = LM_ID_NEWLM;
    memset(trial, 0, sizeof *trial);
    void *before = nixl ? dlmopen(LM_ID_NEWLM, nixl, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (nixl && !before)
        snprintf(trial->nixl_why, sizeof trial->nixl_why, "%s", dlerror());
    if (before)
        dlinfo(before, RTLD_DI_LMID, &apart);
    trial->begun = true;
    void *loaded = dlmopen(apart, plugin, RTLD_NOW | RTLD_LOCAL);
    if (!loaded) {
        snprintf(trial->why, sizeof trial->why, "%s", dlerror());
        return;
    }
    symbol_find(loaded, &init, "nixl_plugin_init");
    note_library(loaded, trial);
    trial->loads = init != NULL;
    if (!init)
        snprintf(trial->why, sizeof trial->why, "%s has no nixl_plugin_init", plugin);
    else if (before)
        ask_guard(init, trial);
}

struct job {
    const char *nixl, *plugin;
    struct plugin_trial *trial;
};

static void load_there(void *context) {
    const struct job *job = context;
    plugin_load(job->nixl, job->plugin, job->trial);
}

int plugin_try(const char *nixl, const char *plugin, struct plugin_trial *trial) {
    char died[128];
    struct plugin_trial *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    struct job job = {nixl, plugin, shared};
    const int code = child_run(load_there, &job, died, sizeof died);
    *trial = *shared;
    munmap(shared, sizeof *shared);
    if (code > 0) {
        trial->loads = trial->asked = false;
        snprintf(trial->begun ? trial->why : trial->nixl_why, sizeof trial->why, "the process that loads it: %s", died);
    }
    return code < 0 ? -1 : 0;
}
