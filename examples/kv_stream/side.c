/* What both processes have. SPDX-License-Identifier: Apache-2.0 */
#include "side.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void kv_check(int code, const char *what) {
    if (code) {
        fprintf(stderr, "kv_stream: %s: %s: %s\n", what, nvlx_strerror(code), nvlx_last_error());
        exit(1);
    }
}

size_t kv_block_bytes(void) {
    return (size_t)kv_arguments.kib * 1024;
}

size_t kv_layer_bytes(const struct kv_side *side) {
    return side->pool * kv_block_bytes();
}

static void choose_device(struct kv_side *side, int role) {
    struct nvlx_config config;
    const int code = nvlx_gpu_count(NVLX_BACKEND_AUTO, &side->gpus);
    if (code == NVLX_EBACKEND) {
        printf("SKIP: %s\n", nvlx_last_error());
        exit(77);
    }
    kv_check(code, "nvlx_gpu_count");
    side->gpu = role % side->gpus;
    nvlx_config_init(&config);
    config.gpus = &side->gpu;
    config.gpu_count = 1;
    kv_check(nvlx_engine_create(&config, &side->engine), "nvlx_engine_create");
    side->device = &kv_host;
    if (!strcmp(nvlx_backend_name(side->engine), "cuda")) {
#ifdef KV_STREAM_CUDA
        side->device = &kv_cuda;
#else
        printf("SKIP: kv_stream was built without CUDA, the library was not\n");
        exit(77);
#endif
    }
    if (kv_arguments.graphs && !kv_has_streams(side)) {
        printf("SKIP: graphs take a GPU, and this is the host backend\n");
        exit(77);
    }
    side->device->open(side->gpu);
}

bool kv_has_streams(const struct kv_side *side) {
    return side->device != &kv_host;
}

/* A GPU gets a cache as a real model has it, unless told otherwise: 64 layers, 128 blocks of 256 KiB. */
static void set_defaults(const struct kv_side *side) {
    const bool gpu = kv_has_streams(side);
    kv_arguments.layers = kv_arguments.layers ? kv_arguments.layers : gpu ? 64 : 8;
    kv_arguments.blocks = kv_arguments.blocks ? kv_arguments.blocks : gpu ? 128 : 20;
    kv_arguments.kib = kv_arguments.kib ? kv_arguments.kib : gpu ? 256 : 8;
    kv_arguments.rounds = kv_arguments.rounds ? kv_arguments.rounds : gpu ? 20 : 3;
}

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* The request's ids: runs of `kv_arguments.run` that follow each other, in any order, as a scheduler gives them out. */
void kv_list_ids(struct kv_side *side, uint64_t role) {
    uint64_t seed = role + 1;
    const uint32_t run = (uint32_t)kv_arguments.run, runs = side->pool / run;
    uint32_t *order = malloc(runs * sizeof *order);
    side->listed = malloc((size_t)kv_arguments.blocks * sizeof *side->listed);
    if (!order || !side->listed)
        exit(1);
    for (uint32_t i = 0; i < runs; i++)
        order[i] = i;
    for (uint32_t i = runs; i-- > 1;) {
        const uint32_t other = next_random(&seed) % (i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (uint32_t i = 0; i < (uint32_t)kv_arguments.blocks; i++)
        side->listed[i] = order[i / run] * run + i % run;
    free(order);
}

static void share(struct kv_side *side, int which, const void *address, size_t length, const char *name) {
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = name;
    options.access = NVLX_ACCESS_WRITE;
    kv_check(nvlx_register(side->engine, address, length, &options, &side->regions[which]), "nvlx_register");
}

static void make_memory(struct kv_side *side, int role) {
    const uint32_t runs = ((uint32_t)kv_arguments.blocks + (uint32_t)kv_arguments.run - 1) / (uint32_t)kv_arguments.run;
    const size_t ids = (size_t)kv_arguments.blocks * sizeof *side->ids, counts = KV_COUNTS * sizeof *side->counts;
    side->pool = (runs + runs / 4 + 1) * (uint32_t)kv_arguments.run;
    kv_list_ids(side, (uint64_t)role);
    const size_t cache = (size_t)kv_arguments.layers * kv_layer_bytes(side);
    static const uint64_t zeros[KV_COUNTS];
    kv_check(nvlx_alloc(side->engine, side->gpu, cache, NULL, (void **)&side->cache), "nvlx_alloc");
    kv_check(nvlx_alloc(side->engine, side->gpu, counts + ids, NULL, (void **)&side->counts), "nvlx_alloc");
    side->ids = (uint32_t *)(void *)(side->counts + KV_COUNTS);
    kv_check(nvlx_memcpy(side->engine, side->counts, zeros, counts), "nvlx_memcpy");
    kv_check(nvlx_memcpy(side->engine, side->ids, side->listed, ids), "nvlx_memcpy");
    share(side, 0, side->cache, cache, "cache");
    share(side, 1, side->counts, counts, "counts");
}

void kv_begin(struct kv_side *side, int role, char addresses[2][40]) {
    uint64_t length;
    choose_device(side, role);
    set_defaults(side);
    make_memory(side, role);
    kv_check(nvlx_serve(side->engine, addresses[role], NULL), "nvlx_serve");
    kv_check(nvlx_connect(side->engine, addresses[!role], KV_PATIENCE, &side->peer), "nvlx_connect");
    kv_check(nvlx_peer_find(side->peer, "cache", &side->their_cache, &length), "nvlx_peer_find");
    kv_check(nvlx_peer_find(side->peer, "counts", &side->their_counts, &length), "nvlx_peer_find");
    kv_check(nvlx_peer_map(side->peer, side->gpu, side->their_counts, length), "nvlx_peer_map");
}

void kv_end(struct kv_side *side) {
    kv_check(nvlx_peer_close(side->peer), "nvlx_peer_close");
    for (int i = 0; i < 2; i++) /* waits for the other process, which may still have it open */
        kv_check(nvlx_unregister(side->regions[i], KV_PATIENCE), "nvlx_unregister");
    kv_check(nvlx_engine_destroy(side->engine), "nvlx_engine_destroy");
    free(side->listed);
}

void kv_set_their_count(const struct kv_side *side, int count, uint64_t value) {
    const struct nvlx_op signal = {.opcode = NVLX_OP_SIGNAL,
                                   .peer = side->peer,
                                   .remote = side->their_counts + (uint64_t)count * sizeof *side->counts,
                                   .arg = value};
    struct nvlx_request *request;
    kv_check(nvlx_transfer(side->engine, &signal, 1, NULL, &request), "nvlx_transfer");
    kv_check(nvlx_wait(request, KV_PATIENCE), "nvlx_wait");
    kv_check(nvlx_request_free(request), "nvlx_request_free");
}

void kv_await_count(const struct kv_side *side, int count, uint64_t value) {
    kv_check(nvlx_signal_wait(side->engine, side->peer, &side->counts[count], value, KV_PATIENCE), "nvlx_signal_wait");
}
