/* The smallest use of libnvlxfer: one process shares a GPU buffer, another reads it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
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

static struct nvlx_engine *start(int gpu) {
    struct nvlx_engine *engine;
    struct nvlx_config config;
    nvlx_config_init(&config);
    config.gpus = &gpu, config.gpu_count = 1;
    check(nvlx_engine_create(&config, &engine), "nvlx_engine_create");
    return engine;
}

int main(void) {
    char text[65536], word[16] = "hello, GPU!";
    int to_target[2], to_seed[2];
    void *buffer;
    struct nvlx_region *region;
    if (pipe(to_target) || pipe(to_seed))
        return 1;
    if (fork()) { /* the seed */
        struct nvlx_engine *engine = start(0);
        struct nvlx_region_options options = {sizeof options, "greeting", NVLX_ACCESS_READ};
        char *descriptor;
        size_t length;
        check(nvlx_alloc(engine, 0, sizeof word, NULL, &buffer), "nvlx_alloc");
        check(nvlx_memcpy(engine, buffer, word, sizeof word), "nvlx_memcpy");
        check(nvlx_register(engine, buffer, sizeof word, &options, &region), "nvlx_register");
        check(nvlx_export(engine, &descriptor, &length), "nvlx_export");
        int lost = write(to_target[1], descriptor, length) != (ssize_t)length || close(to_seed[1]);
        nvlx_text_free(descriptor);
        return lost || read(to_seed[0], text, 1) || wait(NULL) < 0 || nvlx_engine_destroy(engine);
    }
    struct nvlx_engine *engine = start(0); /* the target */
    struct nvlx_peer *peer;
    struct nvlx_request *request;
    struct nvlx_op op = {.opcode = NVLX_OP_READ};
    char seen[16];
    check(nvlx_alloc(engine, 0, sizeof seen, NULL, &op.local), "nvlx_alloc");
    check(nvlx_register(engine, op.local, sizeof seen, NULL, &region), "nvlx_register");
    check(nvlx_peer_open(engine, text, (size_t)read(to_target[0], text, sizeof text), &peer), "nvlx_peer_open");
    check(nvlx_peer_find(peer, "greeting", &op.remote, &op.length), "nvlx_peer_find");
    op.peer = peer;
    check(nvlx_transfer(engine, &op, 1, NULL, &request), "nvlx_transfer");
    check(nvlx_wait(request, -1), "nvlx_wait");
    check(nvlx_memcpy(engine, seen, op.local, sizeof seen), "nvlx_memcpy");
    printf("the other process says: %s\n", seen);
    return nvlx_engine_destroy(engine);
}
