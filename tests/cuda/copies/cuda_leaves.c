/* The kernel that digests the leaves of many spans: the values that the host has for them, and how fast it is.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: cuda_leaves          each shape once
 *        cuda_leaves TIMES    so often: the lines tell the median, of one launch that is waited for */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/device.h"
#include "device/xxh64.h"
#include "support.h"

#define LEAVES (16384u)                            /* of one launch */
#define SIZE   (LEAVES * (size_t)NVLXI_LEAF_BYTES) /* 256 MiB */

struct bench {
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    struct nvlxi_lane *lane;
    char *memory;   /* SIZE bytes and a few */
    uint8_t *bytes; /* the same, of the host */
    struct nvlxi_digest_span *scratch;
    uint64_t *digests;
};

static void *list_memory(const struct bench *bench, size_t size) {
    void *memory;
    OK(bench->ops->list_alloc(bench->device, size, &memory));
    return memory;
}

static void begin(struct bench *bench, int gpu) {
    const size_t size = SIZE + 64;
    const struct nvlxi_alloc alloc = {.gpu = gpu, .length = size, .kind = NVLXI_KIND_CUDA_MALLOC};
    uint64_t state = 88172645463325252u;
    void *memory;
    bench->ops = &nvlxi_device_cuda;
    OK(bench->ops->open(&gpu, 1, &bench->device));
    OK(bench->ops->lane_create(bench->device, gpu, 0, &bench->lane));
    OK(bench->ops->alloc(bench->device, &alloc, &memory));
    bench->memory = memory;
    bench->bytes = malloc(size);
    EXPECT(bench->bytes != NULL);
    for (size_t i = 0; i < size; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        bench->bytes[i] = (uint8_t)(state >> 32);
    }
    OK(bench->ops->memcpy(bench->device, memory, bench->bytes, size));
    bench->scratch = list_memory(bench, LEAVES * sizeof *bench->scratch);
    bench->digests = list_memory(bench, LEAVES * sizeof *bench->digests);
}

static void end(struct bench *bench) {
    bench->ops->list_free(bench->device, bench->scratch);
    bench->ops->list_free(bench->device, bench->digests);
    OK(bench->ops->free(bench->device, bench->memory));
    bench->ops->lane_destroy(bench->lane);
    bench->ops->close(bench->device);
    free(bench->bytes);
}

struct shape {
    uint32_t count;
    uint64_t length;
    unsigned shift; /* of the first span */
    bool reversed;  /* the last one comes first: nothing follows from the span before */
};

static void make_spans(const struct bench *bench, const struct shape *shape, struct nvlxi_digest_span *spans) {
    const uint64_t apart = SIZE / shape->count;
    for (uint32_t i = 0; i < shape->count; i++) {
        const uint32_t place = shape->reversed ? shape->count - 1 - i : i;
        spans[i] = (struct nvlxi_digest_span){(uint64_t)(uintptr_t)bench->memory + place * apart + shape->shift,
                                              shape->length};
    }
}

static double launch(const struct bench *bench, const struct nvlxi_digest_span *spans, uint32_t count) {
    const struct nvlxi_leaves leaves = {
        .spans = spans, .span_count = count, .digests = bench->digests, .scratch = bench->scratch};
    const double since = now_ms();
    int code;
    OK(bench->ops->digest(bench->lane, &leaves));
    while ((code = bench->ops->lane_query(bench->lane)) == NVLX_EAGAIN)
        continue;
    OK(code);
    return now_ms() - since;
}

static void check(const struct bench *bench, const struct nvlxi_digest_span *spans, uint32_t count) {
    const uint64_t *digest = bench->digests;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *bytes = bench->bytes + (spans[i].address - (uint64_t)(uintptr_t)bench->memory);
        for (uint64_t done = 0; done < spans[i].length; done += NVLXI_LEAF_BYTES) {
            const uint64_t left = spans[i].length - done;
            EXPECT(*digest++ == nvlxi_xxh64(bytes + done, left < NVLXI_LEAF_BYTES ? left : NVLXI_LEAF_BYTES));
        }
    }
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void try(const struct bench *bench, const struct shape *shape, int times) {
    struct nvlxi_digest_span *spans = malloc(shape->count * sizeof *spans);
    double *ms = malloc((size_t)times * sizeof *ms);
    EXPECT(spans != NULL && ms != NULL);
    make_spans(bench, shape, spans);
    memset(bench->digests, 0, LEAVES * sizeof *bench->digests);
    launch(bench, spans, shape->count);
    check(bench, spans, shape->count);
    for (int i = 0; i < times; i++)
        ms[i] = launch(bench, spans, shape->count);
    check(bench, spans, shape->count);
    qsort(ms, (size_t)times, sizeof *ms, compare);
    printf("%5u spans of %9llu bytes, address %% 16 = %2u%s: %8.1f us, %7.1f GB/s\n", shape->count,
           (unsigned long long)shape->length, shape->shift, shape->reversed ? ", reversed" : "          ",
           1e3 * ms[times / 2], (double)shape->count * (double)shape->length / ms[times / 2] / 1e6);
    free(spans);
    free(ms);
}

static int gpus_here(void) {
    int count;
    if (nvlxi_device_cuda.count(&count) == 0 && count)
        return count;
    printf("SKIP: %s\n", nvlx_last_error());
    exit(77);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{NULL, NULL}};
    static const struct shape shapes[] = {
        {1, SIZE, 0, false},        {1, SIZE, 1, false},      {2, SIZE / 2, 0, true},    {4, SIZE / 4, 0, true},
        {64, SIZE / 64, 0, true},   {64, SIZE / 64, 8, true}, {64, SIZE / 64, 1, true},  {64, SIZE / 64 - 5, 0, true},
        {512, SIZE / 512, 0, true}, {16384, 16384, 0, true},  {16384, 16384, 16, false}, {8192, 17000, 8, true},
        {16384, 4096, 0, true},     {16384, 1000, 0, true},   {16384, 1000, 3, true},    {16384, 33, 5, true},
        {16384, 1, 0, true},        {16384, 1, 7, false},     {1, 1, 15, false},
    };
    struct bench bench;
    begin_process(argc, argv, roles, 80);
    const int times = argc > 1 ? atoi(argv[1]) : 1, last = gpus_here() > 1;
    for (int gpu = 0; gpu <= last; gpu++) {
        begin(&bench, gpu);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            try(&bench, &shapes[i], times > 0 ? times : 1);
        end(&bench);
        printf("GPU %d: the values of the host\n", gpu);
    }
    return 0;
}
