/* A transfer in the order of the caller's stream: never before the producer has ended, never after the consumer began.
 * SPDX-License-Identifier: Apache-2.0
 *
 * WRITE: a kernel spins, then writes the round's words to the source, and is still running when the transfer is
 * submitted; the peer counts words that are not the round's. READ: a kernel spins, then spoils the destination; after
 * the transfer a kernel in the same stream counts what is not the peer's, and the CPU waits for nothing in between.
 * The same rounds without the option must go wrong, or the test would prove nothing. */
#include <stdio.h>

#include "cuda/support/cuda_support.h"

#define BYTES   (256 * (size_t)1024)
#define WORDS   (BYTES / sizeof(uint32_t))
#define SLOTS   4      /* segments of the peer that reads take turns with */
#define SINK    SLOTS  /* the one that is written to */
#define SPIN_NS 300000 /* long against a submission */
#define BATCH   50     /* reads between two waits of the CPU */
#define SPOILED 1000   /* seeds from here on are not the peer's */

struct setup {
    struct cuda_owner owner;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    uint32_t *local;
    unsigned long long *wrong; /* counted by kernels */
    uint64_t slot[SLOTS + 1];
    uint32_t seed;
};

static void set_up(struct setup *setup, int owner_gpu) {
    struct nvlx_region *region;
    cuda_owner_start(&setup->owner, owner_gpu, SLOTS + 1, 2 * MIB, NULL);
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    setup->engine = engine_on_pair(0, 0);
    setup->peer = cuda_owner_open(&setup->owner, setup->engine);
    setup->seed = SPOILED;
    CUDA(cudaMalloc((void **)&setup->local, BYTES));
    CUDA(cudaMalloc((void **)&setup->wrong, sizeof *setup->wrong));
    OK(nvlx_register(setup->engine, setup->local, BYTES, NULL, &region));
    for (uint32_t i = 0; i <= SLOTS; i++) {
        setup->slot[i] = cuda_owner_address(setup->peer, i);
        OK(nvlx_peer_map(setup->peer, 0, setup->slot[i], BYTES)); /* or the first transfer's mapping would wait */
    }
}

static void tear_down(struct setup *setup) {
    OK(nvlx_peer_close(setup->peer));
    OK(nvlx_engine_destroy(setup->engine));
    CUDA(cudaFree(setup->wrong));
    CUDA(cudaFree(setup->local));
    cuda_owner_end(&setup->owner);
}

/* Rounds in which the producer was still running when nvlx_transfer had returned are counted in `running`. */
static uint64_t write_rounds(struct setup *s, cudaStream_t stream, int rounds, bool ordered, int *running) {
    uint64_t stale = 0;
    cudaEvent_t produced;
    CUDA(cudaEventCreateWithFlags(&produced, cudaEventDisableTiming));
    *running = 0;
    for (int round = 0; round < rounds; round++) {
        uint32_t seed = ++s->seed;
        CUDA(kernel_produce(s->local, WORDS, SPIN_NS, seed, stream));
        CUDA(cudaEventRecord(produced, stream));
        struct nvlx_request *request =
            start_op(s->engine, NVLX_OP_WRITE, s->peer, s->local, s->slot[SINK], BYTES, ordered ? stream : NULL);
        *running += cudaEventQuery(produced) == cudaErrorNotReady;
        finish(request);
        stale += sizeof(uint32_t) * cuda_owner_wrong(&s->owner, SINK, BYTES, seed);
        CUDA(cudaStreamSynchronize(stream));
    }
    CUDA(cudaEventDestroy(produced));
    cudaGetLastError(); /* not ready is remembered as an error */
    return stale;
}

static void read_round(struct setup *s, cudaStream_t stream, uint32_t slot, bool ordered,
                       struct nvlx_request **request) {
    CUDA(kernel_produce(s->local, WORDS, SPIN_NS, ++s->seed, stream));
    *request = start_op(s->engine, NVLX_OP_READ, s->peer, s->local, s->slot[slot], BYTES, ordered ? stream : NULL);
    CUDA(kernel_count(s->local, WORDS, slot + 1, s->wrong, stream));
}

static uint64_t read_rounds(struct setup *s, cudaStream_t stream, int rounds, bool ordered) {
    struct nvlx_request *request[BATCH];
    unsigned long long wrong;
    CUDA(cudaMemset(s->wrong, 0, sizeof *s->wrong));
    CUDA(cudaDeviceSynchronize());
    for (int round = 0; round < rounds; round += BATCH) {
        for (int i = 0; i < BATCH; i++)
            read_round(s, stream, (uint32_t)(round + i) % SLOTS, ordered, &request[i]);
        CUDA(cudaStreamSynchronize(stream));
        for (int i = 0; i < BATCH; i++)
            finish(request[i]);
    }
    CUDA(cudaMemcpy(&wrong, s->wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    return sizeof(uint32_t) * wrong;
}

static void try_stream(struct setup *setup, const char *name, cudaStream_t stream, int rounds) {
    int running, unordered_running;
    uint64_t with = write_rounds(setup, stream, rounds, true, &running);
    uint64_t without = write_rounds(setup, stream, rounds, false, &unordered_running);
    printf("%s, %d writes: %llu stale bytes with the option, %llu without; the producer was still running when the "
           "call returned in %d and %d rounds\n",
           name, rounds, (unsigned long long)with, (unsigned long long)without, running, unordered_running);
    EXPECT(with == 0);
    EXPECT(without > 0);
    EXPECT(running > rounds / 2);
    with = read_rounds(setup, stream, rounds, true);
    without = read_rounds(setup, stream, rounds, false);
    printf("%s, %d reads: %llu stale bytes with the option, %llu without\n", name, rounds, (unsigned long long)with,
           (unsigned long long)without);
    EXPECT(with == 0);
    EXPECT(without > 0);
}

/* While `capturing` captures, `given` is refused in the options; the capture goes on, and its graph runs. */
static void refuse(struct setup *s, cudaStream_t capturing, void *given, enum cudaStreamCaptureMode mode, int code,
                   const char *words) {
    const struct nvlx_op op = {
        .opcode = NVLX_OP_WRITE, .peer = s->peer, .local = s->local, .remote = s->slot[SINK], .length = BYTES};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    enum cudaStreamCaptureStatus status;
    unsigned long long wrong;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    nvlx_transfer_options_init(&options);
    options.stream = given;
    CUDA(cudaMemset(s->wrong, 0, sizeof *s->wrong));
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaStreamBeginCapture(capturing, mode));
    CUDA(kernel_produce(s->local, WORDS, 0, ++s->seed, capturing));
    REFUSED(nvlx_transfer(s->engine, &op, 1, &options, &request), code, words);
    CUDA(cudaStreamIsCapturing(capturing, &status));
    EXPECT(status == cudaStreamCaptureStatusActive);
    CUDA(kernel_count(s->local, WORDS, s->seed, s->wrong, capturing));
    CUDA(cudaStreamEndCapture(capturing, &graph));
    CUDA(cudaGraphInstantiate(&executable, graph, 0));
    CUDA(cudaGraphLaunch(executable, capturing));
    CUDA(cudaStreamSynchronize(capturing));
    CUDA(cudaMemcpy(&wrong, s->wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    EXPECT(wrong == 0);
    CUDA(cudaGraphExecDestroy(executable));
    CUDA(cudaGraphDestroy(graph));
}

static void try_captures(struct setup *setup, cudaStream_t plain, cudaStream_t blocking) {
    const enum cudaStreamCaptureMode modes[] = {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                                                cudaStreamCaptureModeRelaxed};
    for (int i = 0; i < 3; i++) {
        refuse(setup, plain, plain, modes[i], NVLX_EINVAL, "captures a graph");
        refuse(setup, blocking, blocking, modes[i], NVLX_EINVAL, "captures a graph");
        refuse(setup, cudaStreamPerThread, NVLX_STREAM_PER_THREAD, modes[i], NVLX_EINVAL, "captures a graph");
        /* The legacy stream would wait for the blocking one, which cannot be while that is capturing. */
        refuse(setup, blocking, NVLX_STREAM_LEGACY, modes[i], NVLX_ENOTSUP, "the stream in the options");
    }
    printf("12 transfers with a request into capturing streams were refused, and each capture ended well\n");
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE, {NULL, NULL}};
    struct setup setup;
    cudaStream_t plain, blocking;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    int owner_gpu = gpus_needed(1) > 1 ? 1 : 0;
    set_up(&setup, owner_gpu);
    printf("streams on GPU 0, peer's memory on %s\n", owner_gpu ? "GPU 1" : "the same GPU: there is one");
    CUDA(cudaStreamCreateWithFlags(&plain, cudaStreamNonBlocking));
    CUDA(cudaStreamCreate(&blocking));
    try_stream(&setup, "non-blocking stream", plain, 1000);
    try_stream(&setup, "blocking stream", blocking, 200);
    try_stream(&setup, "legacy default stream", NVLX_STREAM_LEGACY, 200);
    try_stream(&setup, "per-thread default stream", NVLX_STREAM_PER_THREAD, 200);
    try_captures(&setup, plain, blocking);
    CUDA(cudaStreamDestroy(plain));
    CUDA(cudaStreamDestroy(blocking));
    tear_down(&setup);
    return 0;
}
