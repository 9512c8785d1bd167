/* One thread captures graphs while others use the library: every capture must end well, and its graph must run.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The workers call only the library, since their own calls of CUDA could break a capture in global mode. That
 * such a call does break one is tried first, or the test would prove nothing. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

#define BYTES    MIB
#define WORDS    (BYTES / sizeof(uint32_t))
#define WORKERS  2
#define MODE_MS  3000.0 /* for which each capture mode is tried */
#define STEP_US  1000   /* that a capture is held open between two nodes */
#define SEGMENTS 2      /* of the owner: workers read the first, and each writes its part of the second */

struct worker {
    pthread_t thread;
    struct nvlx_engine *engine;
    const struct cuda_owner *owner;
    struct nvlx_peer *peer; /* shared by all workers */
    int gpu;
    uint32_t *local;     /* BYTES of device memory */
    size_t part;         /* offset in the owner's second segment */
    cudaStream_t stream; /* that captures nothing */
    atomic_ulong rounds;
};

struct capturer {
    cudaStream_t stream;
    uint32_t *from, *to;
    unsigned long long *wrong;
    uint32_t seed;
};

static atomic_bool stop;

/* ---- The workers ----------------------------------------------------------------------------------------- */

static void poll_until_done(struct nvlx_request *request) {
    double since = now_ms();
    int code;
    while ((code = nvlx_test(request)) == NVLX_EAGAIN)
        EXPECT((now_ms() - since) * 1e6 < (double)GPU_PATIENCE);
    OK(code);
    OK(nvlx_request_free(request));
}

static void move_both_ways(struct worker *w) {
    struct nvlx_request_info info = {.size = sizeof info};
    uint64_t value, source = cuda_owner_address(w->peer, 0), sink = cuda_owner_address(w->peer, 1) + w->part;
    poll_until_done(start_op(w->engine, NVLX_OP_READ, w->peer, w->local, source, BYTES, NULL));
    struct nvlx_request *request = start_op(w->engine, NVLX_OP_WRITE, w->peer, w->local, sink, BYTES, w->stream);
    OK(nvlx_wait(request, GPU_PATIENCE));
    OK(nvlx_request_get_info(request, &info));
    EXPECT(info.bytes == BYTES);
    OK(nvlx_digest(w->engine, w->local, BYTES, &value));
    OK(nvlx_request_free(request));
}

/* Descriptor out, another view of the same owner in: opened, mapped, used, closed. */
static void open_and_close(struct worker *w) {
    char *text;
    size_t length;
    OK(nvlx_export(w->engine, &text, &length));
    nvlx_text_free(text);
    struct nvlx_peer *peer = cuda_owner_open(w->owner, w->engine);
    OK(nvlx_peer_map(peer, w->gpu, cuda_owner_address(peer, 0), BYTES));
    poll_until_done(start_op(w->engine, NVLX_OP_READ, peer, w->local, cuda_owner_address(peer, 0), BYTES, NULL));
    OK(nvlx_peer_update(peer, w->owner->text, w->owner->length));
    OK(nvlx_peer_close(peer));
}

static void allocate_and_free(struct worker *w) {
    struct nvlx_region *region;
    uint32_t word;
    void *memory;
    OK(nvlx_alloc(w->engine, w->gpu, 2 * MIB, NULL, &memory));
    OK(nvlx_register(w->engine, memory, 2 * MIB, NULL, &region));
    OK(nvlx_memcpy(w->engine, &word, w->local, sizeof word));
    OK(nvlx_memcpy(w->engine, memory, w->local, BYTES));
    OK(nvlx_unregister(region, GPU_PATIENCE));
    OK(nvlx_free(w->engine, memory));
}

static void *work(void *context) {
    struct worker *w = context;
    struct nvlx_region *region;
    while (!atomic_load(&stop)) {
        OK(nvlx_register(w->engine, w->local, BYTES, NULL, &region));
        move_both_ways(w);
        open_and_close(w);
        allocate_and_free(w);
        OK(nvlx_unregister(region, GPU_PATIENCE));
        atomic_fetch_add(&w->rounds, 1);
    }
    return NULL;
}

/* ---- The capturing thread -------------------------------------------------------------------------------- */

static void capture_once(struct capturer *c, enum cudaStreamCaptureMode mode, const char *name) {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    uint32_t seed = ++c->seed;
    CUDA(cudaStreamBeginCapture(c->stream, mode));
    CUDA(kernel_produce(c->from, WORDS, 10000, seed, c->stream));
    usleep(STEP_US);
    CUDA(cudaMemcpyAsync(c->to, c->from, BYTES, cudaMemcpyDeviceToDevice, c->stream));
    usleep(STEP_US);
    CUDA(kernel_count(c->to, WORDS, seed, c->wrong, c->stream));
    usleep(STEP_US);
    cudaError_t error = cudaStreamEndCapture(c->stream, &graph);
    if (error)
        FAIL("capture %u, in %s mode, was broken: %s", seed, name, cudaGetErrorString(error));
    CUDA(cudaGraphInstantiate(&executable, graph, 0));
    CUDA(cudaGraphLaunch(executable, c->stream));
    CUDA(cudaStreamSynchronize(c->stream));
    CUDA(cudaGraphExecDestroy(executable));
    CUDA(cudaGraphDestroy(graph));
}

static unsigned long rounds_of(struct worker *workers) {
    unsigned long rounds = 0;
    for (int i = 0; i < WORKERS; i++)
        rounds += atomic_load(&workers[i].rounds);
    return rounds;
}

static void capture_in_mode(struct capturer *c, struct worker *workers, enum cudaStreamCaptureMode mode,
                            const char *name) {
    unsigned long before = rounds_of(workers), captures = 0;
    for (double since = now_ms(); now_ms() - since < MODE_MS; captures++)
        capture_once(c, mode, name);
    unsigned long rounds = rounds_of(workers) - before;
    printf("%s mode: %lu captures ended well beside %lu rounds of library calls\n", name, captures, rounds);
    EXPECT(captures > 0);
    EXPECT(rounds > 0);
}

static void set_up_capturer(struct capturer *c) {
    CUDA(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    CUDA(cudaMalloc((void **)&c->from, BYTES));
    CUDA(cudaMalloc((void **)&c->to, BYTES));
    CUDA(cudaMalloc((void **)&c->wrong, sizeof *c->wrong));
    CUDA(cudaMemset(c->wrong, 0, sizeof *c->wrong));
    CUDA(cudaDeviceSynchronize());
}

static void tear_down_capturer(struct capturer *c) {
    unsigned long long wrong;
    CUDA(cudaMemcpy(&wrong, c->wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    EXPECT(wrong == 0);
    CUDA(cudaFree(c->wrong));
    CUDA(cudaFree(c->to));
    CUDA(cudaFree(c->from));
    CUDA(cudaStreamDestroy(c->stream));
}

/* ---- What breaks a capture ------------------------------------------------------------------------------- */

struct careless {
    pthread_barrier_t barrier;
    cudaEvent_t event;
};

static void *query_carelessly(void *context) {
    struct careless *careless = context;
    CUDA(cudaSetDevice(0));
    pthread_barrier_wait(&careless->barrier); /* the capture begins */
    pthread_barrier_wait(&careless->barrier);
    cudaEventQuery(careless->event);
    cudaGetLastError();
    pthread_barrier_wait(&careless->barrier); /* and ends */
    return NULL;
}

static void prove_that_captures_break(struct capturer *c) {
    struct careless careless;
    pthread_t thread;
    cudaGraph_t graph = NULL;
    CUDA(cudaEventCreateWithFlags(&careless.event, cudaEventDisableTiming));
    CUDA(cudaEventRecord(careless.event, c->stream));
    CUDA(cudaStreamSynchronize(c->stream));
    pthread_barrier_init(&careless.barrier, NULL, 2);
    EXPECT(pthread_create(&thread, NULL, query_carelessly, &careless) == 0);
    pthread_barrier_wait(&careless.barrier);
    CUDA(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeGlobal));
    pthread_barrier_wait(&careless.barrier);
    pthread_barrier_wait(&careless.barrier);
    cudaError_t error = cudaStreamEndCapture(c->stream, &graph);
    cudaGetLastError();
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&careless.barrier);
    CUDA(cudaEventDestroy(careless.event));
    if (!error)
        FAIL("an event query of another thread did not break a capture: this test cannot fail on this driver");
    printf("an event query of another thread, without the library, broke a capture: %s\n", cudaGetErrorString(error));
}

/* ---- Both ------------------------------------------------------------------------------------------------ */

static void start_workers(struct worker *workers, const struct cuda_owner *owner, struct nvlx_engine *engine,
                          struct nvlx_peer *peer) {
    for (int i = 0; i < WORKERS; i++) {
        struct worker *w = &workers[i];
        *w = (struct worker){.engine = engine, .owner = owner, .peer = peer, .part = (size_t)i * BYTES};
        CUDA(cudaMalloc((void **)&w->local, BYTES));
        CUDA(cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking));
    }
    for (int i = 0; i < WORKERS; i++)
        EXPECT(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
}

static void stop_workers(struct worker *workers) {
    atomic_store(&stop, true);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < WORKERS; i++) {
        CUDA(cudaStreamDestroy(workers[i].stream));
        CUDA(cudaFree(workers[i].local));
    }
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE, {NULL, NULL}};
    struct capturer capturer = {0};
    struct worker workers[WORKERS];
    struct cuda_owner owner;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    int owner_gpu = gpus_needed(1) > 1 ? 1 : 0;
    cuda_owner_start(&owner, owner_gpu, SEGMENTS, WORKERS * BYTES, NULL);
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    struct nvlx_engine *engine = engine_on_pair(0, 0);
    struct nvlx_peer *peer = cuda_owner_open(&owner, engine);
    set_up_capturer(&capturer);
    prove_that_captures_break(&capturer);
    start_workers(workers, &owner, engine, peer);
    capture_in_mode(&capturer, workers, cudaStreamCaptureModeGlobal, "global");
    capture_in_mode(&capturer, workers, cudaStreamCaptureModeThreadLocal, "thread-local");
    capture_in_mode(&capturer, workers, cudaStreamCaptureModeRelaxed, "relaxed");
    stop_workers(workers);
    tear_down_capturer(&capturer);
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
    EXPECT(cuda_owner_wrong(&owner, 1, BYTES, 1) == 0);
    cuda_owner_end(&owner);
    return 0;
}
