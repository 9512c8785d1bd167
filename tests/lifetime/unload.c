/* Loads the library, uses it, and unloads it: forks then go on as if it had never been there.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nvlxfer.h"

static void *library;

/* `function` points to the pointer. */
static void find(const char *name, void *function) {
    void *found = dlsym(library, name);
    if (!found) {
        printf("%s: %s\n", name, dlerror());
        exit(1);
    }
    memcpy(function, &found, sizeof found);
}

static void fork_once(const char *when) {
    int status = 0;
    pid_t child = fork();
    if (!child)
        _exit(0);
    if (waitpid(child, &status, 0) != child || status) {
        printf("a fork %s: status 0x%x\n", when, (unsigned)status);
        exit(1);
    }
}

static void use(void) {
    struct nvlx_engine *engine;
    struct nvlx_config config;
    int (*create)(const struct nvlx_config *, struct nvlx_engine **);
    int (*serve)(struct nvlx_engine *, const char *, const struct nvlx_serve_options *);
    int (*destroy)(struct nvlx_engine *);
    char name[64];
    find("nvlx_engine_create", &create);
    find("nvlx_serve", &serve);
    find("nvlx_engine_destroy", &destroy);
    snprintf(name, sizeof name, "@nvlx-test-unload-%d", (int)getpid());
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_HOST;
    if (create(&config, &engine) || serve(engine, name, NULL)) {
        puts("the library does not work");
        exit(1);
    }
    fork_once("while an engine serves");
    if (destroy(engine))
        exit(1);
}

/* These leave memory behind when they are unloaded, which is not what a sanitizer is to tell here. */
static int keep(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size, (void)context;
    if (strstr(info->dlpi_name, "libgflags") || strstr(info->dlpi_name, "libglog"))
        /* cppcheck-suppress leakReturnValNotUsed ; it is to stay */
        dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    alarm(30);
    for (int i = 0; i < 3; i++) {
        library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            puts(dlerror());
            return 1;
        }
        if (dlsym(RTLD_DEFAULT, "__asan_init"))
            dl_iterate_phdr(keep, NULL);
        use();
        dlclose(library);
        fork_once("after the library was unloaded");
    }
    library = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
    puts(library ? "the library stays loaded" : "the library is gone");
    return 0;
}
