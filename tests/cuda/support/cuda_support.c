/* What the tests on real GPUs share: see cuda_support.h. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_support.h"

#include <stdio.h>
#include <stdlib.h>

void cuda_at(const char *file, int line, cudaError_t error, const char *call) {
    if (error)
        fail_at(file, line, "%s: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
}

int gpus_needed(int needed) {
    int count;
    if (nvlx_gpu_count(NVLX_BACKEND_CUDA, &count)) {
        printf("SKIP: %s\n", nvlx_last_error());
        exit(77);
    }
    if (count < needed) {
        printf("SKIP: it needs %d GPUs, here is %d\n", needed, count);
        exit(77);
    }
    return count;
}

void driver_function(const char *name, unsigned version, void **function) {
    enum cudaDriverEntryPointQueryResult found;
    CUDA(cudaGetDriverEntryPointByVersion(name, function, version, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess)
        FAIL("the driver has no %s of version %u", name, version);
}

static int by_value(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

void sort_values(double *values, size_t count) {
    qsort(values, count, sizeof *values, by_value);
}

void *zeroed(size_t bytes) {
    void *made;
    CUDA(cudaMalloc(&made, bytes));
    CUDA(cudaMemset(made, 0, bytes));
    CUDA(cudaDeviceSynchronize());
    return made;
}

/* ---- Children ------------------------------------------------------------------------------------------ */

void cuda_child_start(struct child *child, const char *role, const char *visible) {
    char variable[256];
    snprintf(variable, sizeof variable, "CUDA_VISIBLE_DEVICES=%s", visible ? visible : "");
    child_start_with(child, role, visible ? variable : NULL);
}

void put_int(int socket, int number) {
    put(socket, &number, sizeof number);
}

int get_int(int socket) {
    int number;
    get(socket, &number, sizeof number);
    return number;
}

void meet(int socket) {
    put_int(socket, 1);
    get_int(socket);
}

/* ---- The library --------------------------------------------------------------------------------------- */

struct nvlx_engine *engine_on(const int *gpus, size_t count) {
    struct nvlx_config config;
    struct nvlx_engine *engine;
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_CUDA;
    config.gpus = gpus;
    config.gpu_count = count;
    OK(nvlx_engine_create(&config, &engine));
    return engine;
}

struct nvlx_engine *engine_on_pair(int gpu, int other) {
    const int gpus[] = {gpu, other};
    return engine_on(gpus, gpu == other ? 1 : 2);
}

struct nvlx_request *start_op(struct nvlx_engine *engine, uint32_t opcode, struct nvlx_peer *peer, void *local,
                              uint64_t remote, size_t length, void *stream) {
    const struct nvlx_op op = {.opcode = opcode, .peer = peer, .local = local, .remote = remote, .length = length};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    return request;
}

/* ---- An owner ------------------------------------------------------------------------------------------ */

struct owner_setup {
    int gpu;
    uint32_t segments;
    size_t bytes;
};

struct owner_order {
    uint32_t segment, seed;
    size_t bytes; /* to check; 0: send a handle instead */
};

static void owner_count(const struct owner_order *order, const uint32_t *words, unsigned long long *wrong, int socket) {
    unsigned long long counted = 0;
    CUDA(cudaMemset(wrong, 0, sizeof *wrong));
    CUDA(kernel_count(words, order->bytes / sizeof *words, order->seed, wrong, cudaStreamLegacy));
    CUDA(cudaMemcpy(&counted, wrong, sizeof counted, cudaMemcpyDeviceToHost));
    put(socket, &counted, sizeof counted);
}

static void owner_work(int socket, uint32_t *const *words) {
    struct owner_order order;
    unsigned long long *wrong;
    CUDA(cudaMalloc((void **)&wrong, sizeof *wrong));
    while (get_or_end(socket, &order, sizeof order)) {
        if (order.bytes) {
            owner_count(&order, words[order.segment], wrong, socket);
        } else {
            cudaIpcMemHandle_t handle;
            CUDA(cudaIpcGetMemHandle(&handle, words[order.segment]));
            put(socket, &handle, sizeof handle);
        }
    }
    CUDA(cudaFree(wrong));
}

void cuda_owner_role(int socket) {
    struct owner_setup setup;
    struct nvlx_region_options options;
    struct nvlx_region *region;
    char name[16], *text;
    size_t length;
    get(socket, &setup, sizeof setup);
    uint32_t **words = calloc(setup.segments, sizeof *words);
    EXPECT(words != NULL);
    CUDA(cudaSetDevice(setup.gpu));
    CUDA(kernels_load());
    struct nvlx_engine *engine = engine_on(&setup.gpu, 1);
    nvlx_region_options_init(&options);
    options.name = name;
    for (uint32_t i = 0; i < setup.segments; i++) {
        snprintf(name, sizeof name, "%u", i);
        CUDA(cudaMalloc((void **)&words[i], setup.bytes));
        CUDA(kernel_produce(words[i], setup.bytes / sizeof *words[i], 0, i + 1, cudaStreamLegacy));
        OK(nvlx_register(engine, words[i], setup.bytes, &options, &region));
    }
    CUDA(cudaDeviceSynchronize());
    OK(nvlx_export(engine, &text, &length));
    put_text(socket, text, length);
    nvlx_text_free(text);
    owner_work(socket, words);
    OK(nvlx_engine_destroy(engine));
    free(words);
}

void cuda_owner_start(struct cuda_owner *owner, int gpu, uint32_t segments, size_t bytes, const char *visible) {
    const struct owner_setup setup = {.gpu = gpu, .segments = segments, .bytes = bytes};
    owner->segments = segments;
    owner->bytes = bytes;
    cuda_child_start(&owner->child, "cuda_owner", visible);
    put(owner->child.socket, &setup, sizeof setup);
    owner->text = get_text(owner->child.socket, &owner->length);
}

struct nvlx_peer *cuda_owner_open(const struct cuda_owner *owner, struct nvlx_engine *engine) {
    struct nvlx_peer *peer;
    OK(nvlx_peer_open(engine, owner->text, owner->length, &peer));
    return peer;
}

uint64_t cuda_owner_address(struct nvlx_peer *peer, uint32_t segment) {
    uint64_t address, length;
    char name[16];
    snprintf(name, sizeof name, "%u", segment);
    OK(nvlx_peer_find(peer, name, &address, &length));
    return address;
}

uint64_t cuda_owner_wrong(const struct cuda_owner *owner, uint32_t segment, size_t bytes, uint32_t seed) {
    const struct owner_order order = {.segment = segment, .seed = seed, .bytes = bytes};
    unsigned long long wrong;
    put(owner->child.socket, &order, sizeof order);
    get(owner->child.socket, &wrong, sizeof wrong);
    return wrong;
}

cudaIpcMemHandle_t cuda_owner_handle(const struct cuda_owner *owner) {
    const struct owner_order order = {.segment = owner->segments - 1};
    cudaIpcMemHandle_t handle;
    put(owner->child.socket, &order, sizeof order);
    get(owner->child.socket, &handle, sizeof handle);
    return handle;
}

void cuda_owner_end(struct cuda_owner *owner) {
    child_end(&owner->child);
    free(owner->text);
}

void cuda_owner_kill(struct cuda_owner *owner) {
    child_kill(&owner->child);
    free(owner->text);
}
