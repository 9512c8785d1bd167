/* A C program outside of this project: reads its own memory through the library, as a peer of itself.
 * SPDX-License-Identifier: Apache-2.0 */
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int code, const char *what) {
    if (code) {
        fprintf(stderr, "%s: %s: %s\n", what, nvlx_strerror(code), nvlx_last_error());
        exit(1);
    }
}

int main(void) {
    char expected[64], sent[4096], received[4096];
    struct nvlx_config config;
    struct nvlx_engine *engine;
    struct nvlx_region *source_region, *target_region;
    struct nvlx_region_options options;
    struct nvlx_peer *peer;
    struct nvlx_request *request;
    struct nvlx_op op = {.opcode = NVLX_OP_READ};
    void *source, *target;
    uint64_t length;
    char *text;
    size_t text_length;

    snprintf(expected, sizeof expected, "%d.%d.%d", NVLX_VERSION_MAJOR, NVLX_VERSION_MINOR, NVLX_VERSION_PATCH);
    if (strcmp(expected, nvlx_version()) != 0) {
        fprintf(stderr, "header %s, library %s\n", expected, nvlx_version());
        return 1;
    }
    memset(sent, 0x5a, sizeof sent);
    memset(received, 0, sizeof received);

    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_HOST;
    check(nvlx_engine_create(&config, &engine), "create");
    check(nvlx_alloc(engine, 0, sizeof sent, NULL, &source), "alloc");
    check(nvlx_alloc(engine, 0, sizeof sent, NULL, &target), "alloc");
    check(nvlx_memcpy(engine, source, sent, sizeof sent), "fill");
    nvlx_region_options_init(&options);
    options.name = "source";
    check(nvlx_register(engine, source, sizeof sent, &options, &source_region), "register");
    check(nvlx_register(engine, target, sizeof sent, NULL, &target_region), "register");
    check(nvlx_export(engine, &text, &text_length), "export");
    check(nvlx_peer_open(engine, text, text_length, &peer), "open");
    nvlx_text_free(text);
    check(nvlx_peer_find(peer, "source", &op.remote, &length), "find");
    op.peer = peer;
    op.local = target;
    op.length = length;
    check(nvlx_transfer(engine, &op, 1, NULL, &request), "transfer");
    check(nvlx_wait(request, -1), "wait");
    check(nvlx_request_free(request), "request_free");
    check(nvlx_memcpy(engine, received, target, sizeof received), "look");
    check(nvlx_engine_destroy(engine), "destroy");
    if (memcmp(sent, received, sizeof sent) != 0) {
        fprintf(stderr, "the bytes differ\n");
        return 1;
    }
    printf("consumer.c: libnvlxfer %s, %zu bytes correct\n", nvlx_version(), sizeof received);
    return 0;
}
