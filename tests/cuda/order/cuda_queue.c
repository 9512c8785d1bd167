/* What waits for a stream of the program's holds up no call, no transfer without a stream and none behind another
 * stream; and what may wait for running kernels does not, where the header does not say so.
 * SPDX-License-Identifier: Apache-2.0 */
#include <cuda.h>
#include <cudaTypedefs.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda/support/cuda_support.h"

#define MANY     4000
#define BYTES    (64 * MIB)
#define CALL_MS  10.0 /* no call takes longer */
#define EXTRA_MS 1.0  /* nor does a transfer that waits for nothing, than it takes alone */
#define LONG_NS  UINT64_C(1500000000)
#define LISTED   200000 /* ops whose list takes some MiB */

struct setup {
    struct cuda_owner owner;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    char *local;
    uint64_t remote;
    uint64_t *flag; /* of pinned memory, for which streams wait */
    PFN_cuStreamWaitValue64_v11070 wait_value;
};

static struct nvlx_request *requests[MANY];

static void set_up(struct setup *setup, int owner_gpu) {
    struct nvlx_region *region;
    cuda_owner_start(&setup->owner, owner_gpu, 1, BYTES, NULL);
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    setup->engine = engine_on_pair(0, 0);
    setup->peer = cuda_owner_open(&setup->owner, setup->engine);
    CUDA(cudaMalloc((void **)&setup->local, BYTES));
    CUDA(cudaHostAlloc((void **)&setup->flag, sizeof *setup->flag, cudaHostAllocMapped));
    OK(nvlx_register(setup->engine, setup->local, BYTES, NULL, &region));
    setup->remote = cuda_owner_address(setup->peer, 0);
    OK(nvlx_peer_map(setup->peer, 0, setup->remote, BYTES));
    driver_function("cuStreamWaitValue64", 11070, (void **)&setup->wait_value);
}

static void tear_down(struct setup *setup) {
    OK(nvlx_peer_close(setup->peer));
    OK(nvlx_engine_destroy(setup->engine));
    CUDA(cudaFreeHost(setup->flag));
    CUDA(cudaFree(setup->local));
    cuda_owner_end(&setup->owner);
}

static void stand_still(struct setup *setup, cudaStream_t stream) {
    *(volatile uint64_t *)setup->flag = 0;
    EXPECT(setup->wait_value(stream, (CUdeviceptr)(uintptr_t)setup->flag, 1, CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS);
}

static void go_on(struct setup *setup) {
    __atomic_store_n(setup->flag, 1, __ATOMIC_RELEASE);
}

static struct nvlx_op op(const struct setup *setup, size_t n, size_t length) {
    const size_t slots = BYTES / (128 * 1024);
    return (struct nvlx_op){.opcode = NVLX_OP_READ,
                            .peer = setup->peer,
                            .local = setup->local + n % slots * 128 * 1024,
                            .remote = setup->remote + (slots - 1 - n % slots) * 128 * 1024,
                            .length = length};
}

/* ---- Behind a stream that stands still ------------------------------------------------------------------ */

struct kind {
    const char *name;
    uint32_t mechanism;
    size_t ops, length;
};

static const struct kind kinds[] = {{"one copy of 64 KiB", NVLX_MECHANISM_AUTO, 1, 65536},
                                    {"6 copies by engines", NVLX_MECHANISM_COPY_ENGINE, 6, 4096},
                                    {"64 copies by engines", NVLX_MECHANISM_COPY_ENGINE, 64, 4096},
                                    {"16 fragments by a kernel", NVLX_MECHANISM_KERNEL, 16, 65536}};

/* Starts transfers until one is refused; tells how long the longest call took. */
static size_t start_many(const struct setup *setup, const struct kind *kind, void *stream, size_t most, double *worst) {
    struct nvlx_op ops[64];
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    options.mechanism = kind->mechanism;
    *worst = 0;
    size_t count = 0;
    for (; count < most; count++) {
        for (size_t i = 0; i < kind->ops; i++)
            ops[i] = op(setup, count * kind->ops + i, kind->length);
        double before = now_ms();
        int code = nvlx_transfer(setup->engine, ops, kind->ops, &options, &requests[count]);
        *worst = now_ms() - before > *worst ? now_ms() - before : *worst;
        if (code) {
            EXPECT(code == NVLX_EBUSY);
            break;
        }
    }
    return count;
}

static void finish_all(size_t count) {
    for (size_t i = 0; i < count; i++)
        finish(requests[i]);
}

/* The longest of many free transfers, one after the other. */
static double longest_free(const struct setup *setup, int rounds) {
    double worst = 0;
    for (int i = 0; i < rounds; i++) {
        double before = now_ms();
        finish(start_op(setup->engine, NVLX_OP_READ, setup->peer, setup->local, setup->remote, 4096, NULL));
        worst = now_ms() - before > worst ? now_ms() - before : worst;
    }
    return worst;
}

static void try_kind(struct setup *setup, const struct kind *kind, cudaStream_t still, cudaStream_t other) {
    double worst, refused, moving;
    const double alone = longest_free(setup, 5000);
    stand_still(setup, still);
    size_t count = start_many(setup, kind, still, MANY, &worst);
    EXPECT(count > 0 && count < MANY);
    EXPECT(start_many(setup, kind, still, 1, &refused) == 0);
    /* many more than a queue takes, should those that stand still keep the places of others; one at a time: CUDA itself
     * has too few channels for many at once (src/pool.h) */
    double beside = longest_free(setup, 5000);
    double before = now_ms();
    for (int i = 0; i < 200; i++) { /* the program's own work in another stream */
        CUDA(cudaMemcpyAsync(setup->local + BYTES - MIB, setup->local + BYTES - 2 * MIB, 4096, cudaMemcpyDeviceToDevice,
                             other));
        CUDA(cudaStreamSynchronize(other));
    }
    moving = (now_ms() - before) / 200;
    printf("%s: %zu behind a stream that stands still, longest call %.3f ms, refused in %.3f ms; a free transfer at "
           "most %.3f ms, alone %.3f ms; a copy in another stream %.3f ms\n",
           kind->name, count, worst, refused, beside, alone, moving);
    EXPECT(worst < CALL_MS && refused < CALL_MS);
    EXPECT(beside < alone + EXTRA_MS);
    EXPECT(nvlx_test(requests[0]) == NVLX_EAGAIN);
    go_on(setup);
    finish_all(count);
    CUDA(cudaStreamSynchronize(still));
    finish(start_op(setup->engine, NVLX_OP_READ, setup->peer, setup->local, setup->remote, 4096, still));
}

static void try_many_streams(struct setup *setup) {
    enum { STREAMS = 6 }; /* CUDA itself stands still when as many wait as there are connections, 8 */
    cudaStream_t streams[STREAMS];
    const double alone = longest_free(setup, 2000);
    for (int i = 0; i < STREAMS; i++) {
        CUDA(cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking));
        stand_still(setup, streams[i]);
    }
    for (int i = 0; i < STREAMS; i++)
        requests[i] = start_op(setup->engine, NVLX_OP_READ, setup->peer, setup->local, setup->remote, 4096, streams[i]);
    double beside = longest_free(setup, 2000);
    printf("%d streams stand still: a free transfer at most %.3f ms, alone %.3f ms\n", STREAMS, beside, alone);
    EXPECT(beside < alone + EXTRA_MS);
    go_on(setup);
    finish_all(STREAMS);
    for (int i = 0; i < STREAMS; i++)
        CUDA(cudaStreamDestroy(streams[i]));
}

static void try_free(struct setup *setup) {
    double worst;
    for (size_t i = 0; i < 2; i++) {
        size_t count = start_many(setup, &kinds[i], NULL, MANY, &worst);
        printf("%s, without a stream: %zu started, longest call %.3f ms\n", kinds[i].name, count, worst);
        EXPECT(worst < CALL_MS);
        finish_all(count);
    }
}

/* ---- Beside a kernel that runs -------------------------------------------------------------------------- */

#define QUICK(call)                                                                                                    \
    do {                                                                                                               \
        double before_ = now_ms();                                                                                     \
        OK(call);                                                                                                      \
        printf("beside a kernel: %.60s took %.3f ms\n", #call, now_ms() - before_);                                    \
        EXPECT(now_ms() - before_ < 300);                                                                              \
    } while (0)

static void try_beside_a_kernel(struct setup *setup, cudaStream_t stream) {
    struct nvlx_op *ops = calloc(LISTED, sizeof *ops);
    struct nvlx_engine *fresh;
    struct nvlx_region *region;
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    EXPECT(ops != NULL);
    for (size_t i = 0; i < LISTED; i++)
        ops[i] = (struct nvlx_op){.opcode = NVLX_OP_READ,
                                  .peer = setup->peer,
                                  .local = setup->local + i * 300,
                                  .remote = setup->remote + (LISTED - 1 - i) * 256,
                                  .length = 256};
    fresh = engine_on(NULL, 0); /* the GPU has a context */
    CUDA(cudaDeviceSynchronize());
    CUDA(kernel_produce((uint32_t *)(setup->local + BYTES - MIB), 1024, LONG_NS, 1, stream));
    QUICK(nvlx_register(fresh, setup->local, BYTES, NULL, &region));
    QUICK(nvlx_transfer(setup->engine, ops, LISTED, NULL, &request));
    QUICK(nvlx_wait(request, SECOND_NS));
    QUICK(nvlx_request_free(request));
    QUICK(nvlx_prepare(setup->engine, ops, LISTED, NULL, &prepared));
    QUICK(nvlx_post(prepared, NULL, &request));
    QUICK(nvlx_request_free(request));
    QUICK(nvlx_prepared_free(prepared));
    EXPECT(cudaStreamQuery(stream) == cudaErrorNotReady);
    cudaGetLastError();
    CUDA(cudaStreamSynchronize(stream));
    OK(nvlx_engine_destroy(fresh));
    free(ops);
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE, {NULL, NULL}};
    struct setup setup;
    cudaStream_t still, other;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    int owner_gpu = gpus_needed(1) > 1 ? 1 : 0;
    set_up(&setup, owner_gpu);
    CUDA(cudaStreamCreateWithFlags(&still, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        try_kind(&setup, &kinds[i], still, other);
    try_many_streams(&setup);
    try_free(&setup);
    try_beside_a_kernel(&setup, other);
    CUDA(cudaStreamDestroy(still));
    CUDA(cudaStreamDestroy(other));
    tear_down(&setup);
    return 0;
}
