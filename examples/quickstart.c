/* The smallest use: one process shares a GPU buffer, another reads it. SPDX-License-Identifier: Apache-2.0 */
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int code, const char *what) {
    if (code) {
        fprintf(stderr, "%s: %s: %s\n", what, nvlx_strerror(code), nvlx_last_error());
        exit(1);
    }
}

int main(void) {
    char address[40], word[16] = "hello, GPU!", seen[16];
    int gpu = 0, status = 1;
    void *buffer;
    struct nvlx_engine *engine;
    struct nvlx_region *region;
    struct nvlx_config config;
    struct nvlx_region_options options;
    snprintf(address, sizeof address, "@quickstart-%d", (int)getpid());
    pid_t target = fork(); /* before CUDA is used */
    nvlx_config_init(&config), nvlx_region_options_init(&options);
    config.gpus = &gpu, config.gpu_count = 1;
    check(nvlx_engine_create(&config, &engine), "nvlx_engine_create");
    check(nvlx_alloc(engine, gpu, sizeof word, NULL, &buffer), "nvlx_alloc");
    if (target) { /* the seed */
        options.name = "greeting", options.access = NVLX_ACCESS_READ;
        check(nvlx_memcpy(engine, buffer, word, sizeof word), "nvlx_memcpy");
        check(nvlx_register(engine, buffer, sizeof word, &options, &region), "nvlx_register");
        check(nvlx_serve(engine, address, NULL), "nvlx_serve");
        wait(&status); /* until the target has read */
        return status || nvlx_engine_destroy(engine);
    }
    struct nvlx_request *request; /* the target */
    struct nvlx_op op = {.opcode = NVLX_OP_READ, .local = buffer};
    options.access = NVLX_ACCESS_NONE; /* peers need not reach what it reads into */
    check(nvlx_register(engine, buffer, sizeof word, &options, &region), "nvlx_register");
    check(nvlx_connect(engine, address, 30000000000, &op.peer), "nvlx_connect"); /* within 30 s */
    check(nvlx_peer_find(op.peer, "greeting", &op.remote, &op.length), "nvlx_peer_find");
    check(nvlx_transfer(engine, &op, 1, NULL, &request), "nvlx_transfer");
    check(nvlx_wait(request, -1), "nvlx_wait");
    check(nvlx_memcpy(engine, seen, buffer, sizeof seen), "nvlx_memcpy");
    printf("the other process says: %s\n", seen);
    return nvlx_engine_destroy(engine);
}
