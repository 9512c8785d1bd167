/* Host memory as one side of copies on real GPUs: a peer's chunk, which this GPU reads and writes; and chunks and
 * pinned memory of this process, from and to a peer's GPU. Each byte is compared. The rates stand beside raw
 * cudaMemcpyAsync between this GPU and pinned memory, in both directions. SPDX-License-Identifier: Apache-2.0
 *
 * Usage: cuda_hosts [MIB]      by default 256 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

enum { TIMES = 9, NAME = 64 };

#define LEAST 0.9 /* of the raw rate */

static uint32_t word(uint32_t seed, size_t i) {
    return (uint32_t)i * 2654435761u + seed * 40503u;
}

static void fill_words(uint32_t *words, size_t bytes, uint32_t seed) {
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        words[i] = word(seed, i);
}

static uint64_t count_wrong(const uint32_t *words, size_t bytes, uint32_t seed) {
    uint64_t wrong = 0;
    for (size_t i = 0; i < bytes / sizeof *words; i++)
        wrong += words[i] != word(seed, i);
    return wrong;
}

static void *host_chunk(struct nvlx_engine *engine, int gpu, size_t bytes, const char *name, uint32_t access) {
    struct nvlx_alloc_options options;
    void *made;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_HOST;
    OK(nvlx_alloc(engine, gpu, bytes, &options, &made));
    register_range(engine, made, bytes, name, access);
    return made;
}

/* ---- The owner: a chunk of host memory, and memory of its GPU ---------------------------------------------------- */

struct setup {
    int gpu;
    size_t bytes;
    char address[NAME];
};

enum place { ON_HOST, ON_GPU };

struct order {
    enum place place;
    uint32_t seed;
};

static void lender_role(int socket) {
    struct setup setup;
    struct order order;
    get(socket, &setup, sizeof setup);
    CUDA(cudaSetDevice(setup.gpu));
    struct nvlx_engine *engine = engine_on(&setup.gpu, 1);
    uint32_t *host = host_chunk(engine, setup.gpu, setup.bytes, "host", NVLX_ACCESS_READ_WRITE);
    uint32_t *gpu = zeroed(setup.bytes), *seen = malloc(setup.bytes);
    EXPECT(seen != NULL);
    register_range(engine, gpu, setup.bytes, "gpu", NVLX_ACCESS_READ_WRITE);
    fill_words(host, setup.bytes, 1);
    fill_words(seen, setup.bytes, 2);
    CUDA(cudaMemcpy(gpu, seen, setup.bytes, cudaMemcpyHostToDevice));
    OK(nvlx_serve(engine, setup.address, NULL));
    put_int(socket, 0);
    while (get_or_end(socket, &order, sizeof order)) {
        if (order.place == ON_GPU)
            CUDA(cudaMemcpy(seen, gpu, setup.bytes, cudaMemcpyDeviceToHost));
        const uint64_t wrong = count_wrong(order.place == ON_GPU ? seen : host, setup.bytes, order.seed);
        put(socket, &wrong, sizeof wrong);
    }
    OK(nvlx_engine_destroy(engine));
    free(seen);
}

/* ---- Who copies ------------------------------------------------------------------------------------------ */

struct copier {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct child owner;
    size_t bytes;
    uint32_t *target, *pinned, *chunk; /* of the GPU, and of the host */
    uint64_t their_host, their_gpu;
    double raw_to_host, raw_to_gpu; /* GB/s */
};

static double rate_of(size_t bytes, double *ms) {
    sort_values(ms, TIMES);
    return (double)bytes / ms[TIMES / 2] / 1e6;
}

static double raw(const struct copier *c, void *to, const void *from) {
    double ms[TIMES];
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int i = 0; i < TIMES; i++) {
        const double begun = now_ms();
        CUDA(cudaMemcpyAsync(to, from, c->bytes, cudaMemcpyDefault, stream));
        CUDA(cudaStreamSynchronize(stream));
        ms[i] = now_ms() - begun;
    }
    CUDA(cudaStreamDestroy(stream));
    return rate_of(c->bytes, ms);
}

static void move_all(const struct copier *c, uint32_t opcode, void *local, uint64_t remote, double than,
                     const char *what) {
    double ms[TIMES];
    for (int i = 0; i < TIMES; i++) {
        const double begun = now_ms();
        struct nvlx_request *request = start_op(c->engine, opcode, c->peer, local, remote, c->bytes, NULL);
        OK(nvlx_wait(request, GPU_PATIENCE));
        ms[i] = now_ms() - begun;
        OK(nvlx_request_free(request));
    }
    const double rate = rate_of(c->bytes, ms);
    printf("%-52s %6.1f GB/s, %.2f of raw\n", what, rate, rate / than);
    if (rate < LEAST * than)
        FAIL("%s: %.1f GB/s, raw %.1f", what, rate, than);
}

static void owner_has(const struct copier *c, enum place place, uint32_t seed) {
    const struct order order = {.place = place, .seed = seed};
    uint64_t wrong;
    put(c->owner.socket, &order, sizeof order);
    get(c->owner.socket, &wrong, sizeof wrong);
    EQUAL(0, wrong);
}

static void target_is(const struct copier *c, uint32_t seed) {
    CUDA(cudaMemcpy(c->pinned, c->target, c->bytes, cudaMemcpyDeviceToHost));
    EQUAL(0, count_wrong(c->pinned, c->bytes, seed));
}

static void set_target(const struct copier *c, uint32_t seed) {
    fill_words(c->pinned, c->bytes, seed);
    CUDA(cudaMemcpy(c->target, c->pinned, c->bytes, cudaMemcpyHostToDevice));
}

static void begin(struct copier *c, int gpu, int owners) {
    struct setup setup = {.gpu = owners, .bytes = c->bytes};
    uint64_t length;
    snprintf(setup.address, sizeof setup.address, "@nvlx-cuda-hosts-%d", (int)getpid());
    cuda_child_start(&c->owner, "lender", NULL);
    put(c->owner.socket, &setup, sizeof setup);
    CUDA(cudaSetDevice(gpu));
    c->engine = engine_on(&gpu, 1);
    c->target = zeroed(c->bytes);
    CUDA(cudaHostAlloc((void **)&c->pinned, c->bytes, 0));
    c->chunk = host_chunk(c->engine, gpu, c->bytes, NULL, NVLX_ACCESS_NONE);
    register_range(c->engine, c->target, c->bytes, NULL, NVLX_ACCESS_NONE);
    register_range(c->engine, c->pinned, c->bytes, NULL, NVLX_ACCESS_NONE);
    memset(c->pinned, 0, c->bytes);
    c->raw_to_host = raw(c, c->pinned, c->target);
    c->raw_to_gpu = raw(c, c->target, c->pinned);
    printf("raw, GPU to pinned memory %.1f GB/s, back %.1f\n", c->raw_to_host, c->raw_to_gpu);
    get_int(c->owner.socket);
    OK(nvlx_connect(c->engine, setup.address, PATIENCE, &c->peer));
    OK(nvlx_peer_find(c->peer, "host", &c->their_host, &length));
    OK(nvlx_peer_find(c->peer, "gpu", &c->their_gpu, &length));
}

static void peers_chunk(const struct copier *c) {
    move_all(c, NVLX_OP_READ, c->target, c->their_host, c->raw_to_gpu, "this GPU reads a peer's host chunk");
    target_is(c, 1);
    set_target(c, 3);
    move_all(c, NVLX_OP_WRITE, c->target, c->their_host, c->raw_to_host, "this GPU writes a peer's host chunk");
    owner_has(c, ON_HOST, 3);
}

static void local_side(const struct copier *c, uint32_t *memory, uint32_t seed, const char *reads, const char *writes) {
    memset(memory, 0, c->bytes);
    move_all(c, NVLX_OP_READ, memory, c->their_gpu, c->raw_to_host, reads);
    EQUAL(0, count_wrong(memory, c->bytes, seed));
    fill_words(memory, c->bytes, seed + 1);
    move_all(c, NVLX_OP_WRITE, memory, c->their_gpu, c->raw_to_gpu, writes);
    owner_has(c, ON_GPU, seed + 1);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{"lender", lender_role}, {NULL, NULL}};
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    const int gpu = gpus_needed(1) > 1 ? 1 : 0;
    struct copier c = {.bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 256) * MIB};
    begin(&c, gpu, 0);
    peers_chunk(&c);
    local_side(&c, c.pinned, 2, "a peer's GPU memory into pinned memory here",
               "pinned memory here into a peer's GPU memory");
    local_side(&c, c.chunk, 3, "a peer's GPU memory into a host chunk here",
               "a host chunk here into a peer's GPU memory");
    OK(nvlx_peer_close(c.peer));
    OK(nvlx_engine_destroy(c.engine));
    child_end(&c.owner);
    return 0;
}
