/* What transfers and kernels that compute beside them cost each other: a table; and copy engines slow no kernel much.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: cuda_compute            copy engines, and the copy kernel with as many SMs as by default
 *        cuda_compute SMS...     the copy kernel with at most so many SMs */
#include <stdio.h>
#include <stdlib.h>

#include "cuda/support/cuda_support.h"

#define ARENA     (4096 * MIB) /* on each side */
#define FRAGMENT  (64 * KIB)
#define FRAGMENTS 8192u
#define SLOTS     ((uint32_t)(ARENA / FRAGMENT))
#define ROUNDS    5
#define SLOWDOWN  1.25 /* of a kernel beside copy engines, at most */
#define URGENT    (-5)

struct setup {
    struct cuda_owner owner;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    char *local;
    uint64_t remote;
    void *scratch;
    cudaStream_t stream; /* of the kernels that compute */
    cudaEvent_t begin, end;
};

static void set_up(struct setup *setup, int owner_gpu) {
    struct nvlx_region *region;
    cuda_owner_start(&setup->owner, owner_gpu, 1, ARENA, NULL);
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    setup->engine = engine_on_pair(0, 0);
    setup->peer = cuda_owner_open(&setup->owner, setup->engine);
    setup->remote = cuda_owner_address(setup->peer, 0);
    CUDA(cudaMalloc((void **)&setup->local, ARENA));
    CUDA(cudaMalloc(&setup->scratch, KERNEL_SCRATCH));
    CUDA(cudaStreamCreateWithFlags(&setup->stream, cudaStreamNonBlocking));
    CUDA(cudaEventCreate(&setup->begin));
    CUDA(cudaEventCreate(&setup->end));
    OK(nvlx_register(setup->engine, setup->local, ARENA, NULL, &region));
}

static void tear_down(struct setup *setup) {
    OK(nvlx_peer_close(setup->peer));
    OK(nvlx_engine_destroy(setup->engine));
    CUDA(cudaEventDestroy(setup->begin));
    CUDA(cudaEventDestroy(setup->end));
    CUDA(cudaStreamDestroy(setup->stream));
    CUDA(cudaFree(setup->scratch));
    CUDA(cudaFree(setup->local));
    cuda_owner_end(&setup->owner);
}

/* ---- The list: random slots on both sides ---------------------------------------------------------------- */

static void draw(uint32_t *order, uint64_t *random) {
    for (uint32_t i = 0; i < SLOTS; i++)
        order[i] = i;
    for (uint32_t i = 0; i < FRAGMENTS; i++) {
        const uint32_t other = i + next_random(random) % (SLOTS - i), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

static struct nvlx_prepared *prepare(const struct setup *setup, uint32_t opcode,
                                     const struct nvlx_transfer_options *options) {
    static uint32_t local[SLOTS], remote[SLOTS];
    static struct nvlx_op ops[FRAGMENTS];
    struct nvlx_prepared *prepared;
    uint64_t random = opcode;
    draw(local, &random);
    draw(remote, &random);
    for (uint32_t i = 0; i < FRAGMENTS; i++)
        ops[i] = make_op(opcode, setup->peer, setup->local + local[i] * FRAGMENT, setup->remote + remote[i] * FRAGMENT,
                         FRAGMENT);
    OK(nvlx_prepare(setup->engine, ops, FRAGMENTS, options, &prepared));
    return prepared;
}

/* ---- What is measured ------------------------------------------------------------------------------------ */

static double median(double times[ROUNDS]) {
    sort_values(times, ROUNDS);
    return times[ROUNDS / 2];
}

static void load_start(const struct setup *setup, kernel_that_computes *load) {
    CUDA(cudaEventRecord(setup->begin, setup->stream));
    CUDA(load(setup->scratch, setup->stream));
    CUDA(cudaEventRecord(setup->end, setup->stream));
}

static bool load_runs(const struct setup *setup) {
    const cudaError_t error = cudaEventQuery(setup->end);
    EXPECT(error == cudaSuccess || error == cudaErrorNotReady);
    cudaGetLastError();
    return error == cudaErrorNotReady;
}

static double load_ms(const struct setup *setup) {
    float ms;
    CUDA(cudaEventSynchronize(setup->end));
    CUDA(cudaEventElapsedTime(&ms, setup->begin, setup->end));
    return ms;
}

static void post(struct nvlx_prepared *prepared) {
    struct nvlx_request *request;
    OK(nvlx_post(prepared, NULL, &request));
    finish(request);
}

struct result {
    double load, rate; /* milliseconds; GB/s */
};

/* Of each the first one does not count. */
static struct result alone(const struct setup *setup, kernel_that_computes *load, struct nvlx_prepared *prepared) {
    double loads[ROUNDS], posts[ROUNDS];
    for (int i = 0; i <= ROUNDS; i++) {
        load_start(setup, load);
        loads[i % ROUNDS] = load_ms(setup);
    }
    for (int i = 0; i <= ROUNDS; i++) {
        const double begin = now_ms();
        post(prepared);
        posts[i % ROUNDS] = now_ms() - begin;
    }
    return (struct result){median(loads), (double)FRAGMENT * FRAGMENTS / median(posts) / 1e6};
}

/* Transfers one after the other for as long as the kernel runs; the last one may outlast it. */
static struct result beside(const struct setup *setup, kernel_that_computes *load, struct nvlx_prepared *prepared) {
    double loads[ROUNDS], rates[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        double bytes = 0;
        load_start(setup, load);
        const double begin = now_ms();
        do {
            post(prepared);
            bytes += (double)FRAGMENT * FRAGMENTS;
        } while (load_runs(setup));
        rates[i] = bytes / (now_ms() - begin) / 1e6;
        loads[i] = load_ms(setup);
    }
    return (struct result){median(loads), median(rates)};
}

/* ---- The table ------------------------------------------------------------------------------------------- */

static void try_way(const struct setup *setup, uint32_t opcode, bool arithmetic, struct nvlx_transfer_options options) {
    kernel_that_computes *load = arithmetic ? kernel_multiply : kernel_stream_memory;
    const bool engines = options.mechanism == NVLX_MECHANISM_COPY_ENGINE;
    struct nvlx_prepared *prepared = prepare(setup, opcode, &options);
    const struct result single = alone(setup, load, prepared), both = beside(setup, load, prepared);
    OK(nvlx_prepared_free(prepared));
    printf("%-6s %-11s %-12s %5u %9d %10.2f %10.2f %8.1f%% %10.1f %10.1f\n", opcode == NVLX_OP_READ ? "read" : "write",
           arithmetic ? "arithmetic" : "memory", engines ? "copy engines" : "kernel", options.max_sms, options.priority,
           single.load, both.load, 100 * (both.load / single.load - 1), single.rate, both.rate);
    fflush(stdout);
    if (engines && both.load > SLOWDOWN * single.load)
        FAIL("copy engines slow a kernel to %.2f ms, from %.2f", both.load, single.load);
}

static void try_all(const struct setup *setup, const struct nvlx_transfer_options *options) {
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++)
        for (int memory = 0; memory < 2; memory++)
            try_way(setup, opcode, !memory, *options);
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE, {NULL, NULL}};
    struct nvlx_transfer_options options;
    struct setup setup;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    set_up(&setup, gpus_needed(1) > 1 ? 1 : 0);
    printf("%-6s %-11s %-12s %5s %9s %10s %10s %9s %10s %10s\n", "", "bound by", "mechanism", "SMs", "priority",
           "alone, ms", "beside, ms", "slowdown", "GB/s alone", "beside");
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    try_all(&setup, &options);
    options.mechanism = NVLX_MECHANISM_KERNEL;
    for (int i = 1; i < (argc > 1 ? argc : 2); i++) {
        options.max_sms = argc > 1 ? (uint32_t)strtoul(argv[i], NULL, 10) : 0;
        for (int urgent = 0; urgent < 2; urgent++) {
            options.priority = urgent ? URGENT : 0;
            try_all(&setup, &options);
        }
    }
    tear_down(&setup);
    return 0;
}
