/* Digests on real GPUs: the value that the host backend gives, beside a kernel that runs; and how fast they are.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: cuda_digest          1 GiB
 *        cuda_digest MIB      so much; the last lines tell the speed, by size and alignment */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checks/digest_values.h"
#include "cuda/support/cuda_support.h"

#define TIMES   15
#define SPIN_NS UINT64_C(700000000)
#define SHIFTS  17

static void *alloc_private(struct nvlx_engine *engine, int gpu, size_t length, uint32_t flags) {
    struct nvlx_alloc_options options;
    struct nvlx_region_options private;
    struct nvlx_region *region;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    options.chunk_length = flags ? 4 * MIB : 0;
    nvlx_region_options_init(&private);
    private.access = NVLX_ACCESS_NONE;
    OK(nvlx_alloc(engine, gpu, length, &options, &address));
    OK(nvlx_register(engine, address, length, &private, &region));
    return address;
}

static uint64_t digest(struct nvlx_engine *engine, const void *address, size_t length) {
    uint64_t value = 0;
    OK(nvlx_digest(engine, address, length, &value));
    return value;
}

static uint8_t *random_bytes(size_t length) {
    uint8_t *bytes = malloc(length);
    uint64_t state = 88172645463325252u;
    EXPECT(bytes != NULL);
    for (size_t i = 0; i < length; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        bytes[i] = (uint8_t)(state >> 32);
    }
    return bytes;
}

/* ---- The value ----------------------------------------------------------------------------------------- */

static void try_known_values(struct nvlx_engine *engine, int gpu) {
    static uint8_t bytes[DIGEST_PATTERN];
    char *memory = alloc_private(engine, gpu, DIGEST_PATTERN + SHIFTS, 0);
    for (size_t i = 0; i < DIGEST_PATTERN; i++)
        bytes[i] = digest_byte(i);
    for (size_t shift = 0; shift < SHIFTS; shift++) {
        OK(nvlx_memcpy(engine, memory + shift, bytes, DIGEST_PATTERN));
        for (size_t i = 0; i < sizeof digest_values / sizeof *digest_values; i++)
            EXPECT(digest(engine, memory + shift, digest_values[i].length) == digest_values[i].value);
    }
    OK(nvlx_free(engine, memory));
    printf("GPU %d: the known values, at %d alignments\n", gpu, SHIFTS);
}

/* The same random bytes by both backends, in memory of each kind, cut anywhere. */
static void try_random(struct nvlx_engine *engine, struct nvlx_engine *host, int gpu) {
    const size_t length = 300 * MIB + 12345;
    uint8_t *bytes = random_bytes(length);
    char *there = alloc_private(host, 0, length, 0);
    OK(nvlx_memcpy(host, there, bytes, length));
    for (uint32_t flags = 0; flags <= NVLX_ALLOC_VMM; flags++) {
        char *here = alloc_private(engine, gpu, length, flags);
        OK(nvlx_memcpy(engine, here, bytes, length));
        for (size_t cut = 0; cut < length; cut = 3 * cut + 1)
            EXPECT(digest(engine, here + cut, length - cut) == digest(host, there + cut, length - cut));
        OK(nvlx_free(engine, here));
    }
    OK(nvlx_free(host, there));
    free(bytes);
    printf("GPU %d: %zu MiB of random bytes, in cudaMalloc memory and in chunks\n", gpu, length / MIB);
}

/* ---- Beside others ------------------------------------------------------------------------------------- */

/* It waits neither for another stream nor for a kernel that leaves SMs free. */
static void try_beside_kernel(struct nvlx_engine *engine, int gpu) {
    const size_t length = 64 * MIB;
    uint32_t *words;
    cudaStream_t stream;
    char *memory = alloc_private(engine, gpu, length, 0);
    const uint64_t value = digest(engine, memory, length);
    CUDA(cudaSetDevice(gpu));
    CUDA(kernels_load());
    CUDA(cudaMalloc((void **)&words, MIB));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(kernel_produce(words, 1, SPIN_NS, 1, stream));
    const double since = now_ms();
    EXPECT(digest(engine, memory, length) == value);
    const double took = now_ms() - since;
    EXPECT(cudaStreamQuery(stream) == cudaErrorNotReady);
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaFree(words));
    OK(nvlx_free(engine, memory));
    printf("GPU %d: 64 MiB beside a kernel of %d ms in %.2f ms\n", gpu, (int)(SPIN_NS / 1000000), took);
}

/* ---- The speed ----------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct nvlx_engine *engine, int gpu, char *memory, size_t length, size_t shift) {
    double ms[TIMES];
    digest(engine, memory + shift, length);
    for (int i = 0; i < TIMES; i++) {
        ms[i] = now_ms();
        digest(engine, memory + shift, length);
        ms[i] = now_ms() - ms[i];
    }
    qsort(ms, TIMES, sizeof *ms, compare);
    printf("digest of %6zu MiB on GPU %d, address %% 16 = %zu: median %8.1f us, %6.0f GB/s; best %6.0f GB/s\n",
           length / MIB, gpu, shift, 1e3 * ms[TIMES / 2], (double)length / ms[TIMES / 2] / 1e6,
           (double)length / ms[0] / 1e6);
}

static void measure_all(struct nvlx_engine *engine, int gpu, size_t most) {
    char *memory = alloc_private(engine, gpu, most + 16, 0);
    for (size_t length = MIB; length < most; length *= 4)
        measure(engine, gpu, memory, length, 0);
    for (size_t shift = 0; shift < 16; shift = shift ? 2 * shift : 1)
        measure(engine, gpu, memory, most, shift);
    OK(nvlx_free(engine, memory));
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{NULL, NULL}};
    struct nvlx_config config;
    struct nvlx_engine *host;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    const size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 1024;
    const int gpus = gpus_needed(1), second = gpus > 1;
    struct nvlx_engine *engine = engine_on_pair(0, second);
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_HOST;
    OK(nvlx_engine_create(&config, &host));
    for (int gpu = 0; gpu <= second; gpu++) {
        try_known_values(engine, gpu);
        try_beside_kernel(engine, gpu);
    }
    try_random(engine, host, second);
    measure_all(engine, 0, (mib ? mib : 1) * MIB);
    OK(nvlx_engine_destroy(engine));
    OK(nvlx_engine_destroy(host));
    return 0;
}
