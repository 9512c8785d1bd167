/* Two programs in one, for isolation.sh, which starts them as different users and in different namespaces:
 *
 *     isolation owner ADDRESS KIND [USER]   serves memory of the kind (cuda_malloc, vmm, vmm_chunks, pool) to USER too;
 *                                           prints "ready", waits for a line, says how many of the bytes that the
 *                                           visitor should have written are wrong, and ends
 *     isolation visitor ADDRESS             reads the first half and compares it, writes the second; prints "moved", or
 *                                           why not
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvlxfer.h"

#define HALF    ((size_t)5 << 20) /* so that chunks of 2 MiB have borders in both halves */
#define WAIT_NS INT64_C(20000000000)

static void check(int code, const char *what) {
    if (!code)
        return;
    printf("%s: %s: %s\n", what, nvlx_strerror(code), nvlx_last_error());
    exit(3);
}

static struct nvlx_engine *make_engine(void) {
    static const int gpu = 0;
    struct nvlx_engine *engine;
    struct nvlx_config config;
    nvlx_config_init(&config);
    config.gpus = &gpu;
    config.gpu_count = 1;
    check(nvlx_engine_create(&config, &engine), "nvlx_engine_create");
    return engine;
}

static unsigned char byte_of(int half, size_t i) {
    return (unsigned char)(half * 101 + i * 7 + (i >> 11));
}

static void fill(struct nvlx_engine *engine, char *to, int half) {
    unsigned char *bytes = malloc(HALF);
    if (!bytes)
        exit(4);
    for (size_t i = 0; i < HALF; i++)
        bytes[i] = byte_of(half, i);
    check(nvlx_memcpy(engine, to, bytes, HALF), "nvlx_memcpy");
    free(bytes);
}

static size_t wrong(struct nvlx_engine *engine, const char *from, int half) {
    size_t count = 0;
    unsigned char *bytes = malloc(HALF);
    if (!bytes)
        exit(4);
    check(nvlx_memcpy(engine, bytes, from, HALF), "nvlx_memcpy");
    for (size_t i = 0; i < HALF; i++)
        count += bytes[i] != byte_of(half, i);
    free(bytes);
    return count;
}

static char *allocate(struct nvlx_engine *engine, const char *kind) {
    void *memory;
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    if (!strncmp(kind, "vmm", 3))
        options.flags = NVLX_ALLOC_VMM;
    else if (!strcmp(kind, "pool"))
        options.flags = NVLX_ALLOC_POOL;
    if (!strcmp(kind, "vmm_chunks"))
        options.chunk_length = (size_t)2 << 20;
    check(nvlx_alloc(engine, 0, 2 * HALF, &options, &memory), "nvlx_alloc");
    return memory;
}

static int owner(const char *address, const char *kind, const char *user) {
    struct nvlx_engine *engine = make_engine();
    struct nvlx_region *region;
    struct nvlx_region_options options;
    struct nvlx_serve_options serve;
    const uint32_t users[] = {user ? (uint32_t)strtoul(user, NULL, 10) : 0};
    char line[16], *memory = allocate(engine, kind);
    fill(engine, memory, 1);
    fill(engine, memory + HALF, 1);
    nvlx_region_options_init(&options);
    options.name = "tensor";
    check(nvlx_register(engine, memory, 2 * HALF, &options, &region), "nvlx_register");
    nvlx_serve_options_init(&serve);
    serve.users = users;
    serve.user_count = user ? 1 : 0;
    check(nvlx_serve(engine, address, &serve), "nvlx_serve");
    printf("ready\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 4;
    printf("%zu bytes are wrong\n", wrong(engine, memory + HALF, 2));
    check(nvlx_engine_destroy(engine), "nvlx_engine_destroy");
    return 0;
}

static void move(struct nvlx_engine *engine, struct nvlx_peer *peer, uint32_t opcode, void *local, uint64_t remote) {
    struct nvlx_request *request;
    const struct nvlx_op op = {.opcode = opcode, .peer = peer, .local = local, .remote = remote, .length = HALF};
    check(nvlx_transfer(engine, &op, 1, NULL, &request), "nvlx_transfer");
    check(nvlx_wait(request, WAIT_NS), "nvlx_wait");
    check(nvlx_request_free(request), "nvlx_request_free");
}

static int visitor(const char *address) {
    struct nvlx_engine *engine = make_engine();
    struct nvlx_peer *peer;
    struct nvlx_region *region;
    uint64_t remote, length;
    char *local = allocate(engine, "cuda_malloc");
    check(nvlx_register(engine, local, 2 * HALF, NULL, &region), "nvlx_register");
    check(nvlx_connect(engine, address, WAIT_NS, &peer), "nvlx_connect");
    check(nvlx_peer_find(peer, "tensor", &remote, &length), "nvlx_peer_find");
    move(engine, peer, NVLX_OP_READ, local, remote);
    const size_t bad = wrong(engine, local, 1);
    if (bad) {
        printf("%zu bytes are wrong\n", bad);
        return 1;
    }
    fill(engine, local, 2);
    move(engine, peer, NVLX_OP_WRITE, local, remote + HALF);
    check(nvlx_peer_close(peer), "nvlx_peer_close");
    check(nvlx_engine_destroy(engine), "nvlx_engine_destroy");
    printf("moved\n");
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 4 && !strcmp(argv[1], "owner"))
        return owner(argv[2], argv[3], argc > 4 && argv[4][0] ? argv[4] : NULL);
    if (argc == 3 && !strcmp(argv[1], "visitor"))
        return visitor(argv[2]);
    fprintf(stderr, "usage: isolation owner ADDRESS KIND [USER] | isolation visitor ADDRESS\n");
    return 2;
}
