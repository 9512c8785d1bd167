/* Forked children of a process that has used CUDA: the cuda backend says so at once, whoever had used it, and the host
 * backend works. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

static int create(uint32_t backend, struct nvlx_engine **engine) {
    struct nvlx_config config;
    nvlx_config_init(&config);
    config.backend = backend;
    return nvlx_engine_create(&config, engine);
}

static void use_library(const char *words) {
    struct nvlx_engine *engine;
    void *memory;
    double since = now_ms();
    REFUSED(create(NVLX_BACKEND_CUDA, &engine), NVLX_EBACKEND, words);
    printf("refused after %.1f ms: %s\n", now_ms() - since, nvlx_last_error());
    fflush(stdout);
    OK(create(NVLX_BACKEND_HOST, &engine));
    OK(nvlx_alloc(engine, 0, MIB, NULL, &memory));
    OK(nvlx_engine_destroy(engine));
    _exit(0);
}

static void fork_and_use(const char *words) {
    pid_t child = fork_child(20);
    if (!child)
        use_library(words);
    fork_end(child);
}

/* CUDA is used by this process, and not by the library. */
static void without_library_role(int socket) {
    (void)socket;
    CUDA(cudaFree(NULL));
    fork_and_use("forked");
}

int main(int argc, char **argv) {
    const struct role roles[] = {{"without_library", without_library_role}, {NULL, NULL}};
    struct child child;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    gpus_needed(1); /* asks the driver */
    fork_and_use("forked child");
    const int zero = 0;
    struct nvlx_engine *engine = engine_on(&zero, 1);
    fork_and_use("forked child");
    OK(nvlx_engine_destroy(engine));
    child_start(&child, "without_library");
    child_end(&child);
    return 0;
}
