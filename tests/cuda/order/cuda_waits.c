/* Behind streams that wait, no call that enqueues blocks its CPU: it takes less than 1 ms, or is refused. Then the
 * signal comes, and every wait ends well. Usage: cuda_waits [N]: how many calls of each kind behind a wait, by default
 * 5,000. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

enum { CALLS = 5000, STREAMS = 4, BYTES = 4096, WAITS = 512, COUNT_WAITED = 0, COUNT_SIGNALLED = 1 };

#define CALL_MS 1.0 /* no call takes longer */

struct fixture {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer; /* this process itself: the counts are on the streams' GPU either way */
    uint64_t *counts;
    char *from, *to;
    cudaStream_t streams[STREAMS];
    uint64_t waits[WAITS];
    size_t accepted_waits;
    struct nvlx_request *requests[CALLS + STREAMS];
    size_t accepted_requests;
};

static void *registered(struct nvlx_engine *engine, size_t bytes) {
    void *made = zeroed(bytes);
    register_range(engine, made, bytes, NULL, NVLX_ACCESS_READ_WRITE);
    return made;
}

static void set_up(struct fixture *f) {
    const int gpu = 0;
    char name[64];
    CUDA(cudaSetDevice(gpu));
    f->engine = engine_on(&gpu, 1);
    f->counts = registered(f->engine, BYTES);
    f->from = registered(f->engine, BYTES);
    f->to = registered(f->engine, BYTES);
    for (int i = 0; i < STREAMS; i++)
        CUDA(cudaStreamCreateWithFlags(&f->streams[i], cudaStreamNonBlocking));
    snprintf(name, sizeof name, "@nvlx-cuda-waits-%d", (int)getpid());
    OK(nvlx_serve(f->engine, name, NULL));
    OK(nvlx_connect(f->engine, name, PATIENCE, &f->peer));
}

/* ---- Calls that enqueue: 0 or NVLX_EBUSY ------------------------------------------------------------------------ */

static int wait_again(struct fixture *f, cudaStream_t stream) {
    uint64_t wait;
    const int code = nvlx_stream_wait(f->engine, stream, f->peer, &f->counts[COUNT_WAITED], 1, NULL, &wait);
    if (code == 0) {
        EXPECT(f->accepted_waits < WAITS);
        f->waits[f->accepted_waits++] = wait;
    }
    return code;
}

static int signal_behind(struct fixture *f, cudaStream_t stream) {
    return nvlx_stream_signal(f->engine, stream, f->peer, (uintptr_t)&f->counts[COUNT_SIGNALLED], 1, NVLX_OP_ADD);
}

static int copy_behind(struct fixture *f, cudaStream_t stream) {
    const struct nvlx_op op = {
        .opcode = NVLX_OP_WRITE, .peer = f->peer, .local = f->from, .remote = (uintptr_t)f->to, .length = BYTES};
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    const int code = nvlx_transfer(f->engine, &op, 1, &options, &f->requests[f->accepted_requests]);
    f->accepted_requests += code == 0;
    return code;
}

static const struct kind {
    const char *name;
    int (*call)(struct fixture *f, cudaStream_t stream);
} kinds[] = {{"nvlx_stream_wait", wait_again}, {"nvlx_stream_signal", signal_behind}, {"nvlx_transfer", copy_behind}};

struct tried {
    uint64_t accepted;
    double worst_ms, sum_ms;
    int calls, worst_call;
};

static void try_one(struct fixture *f, const struct kind *kind, cudaStream_t stream, struct tried *tried) {
    const double begun = now_ms();
    const int code = kind->call(f, stream);
    const double took = now_ms() - begun;
    if (took > tried->worst_ms) {
        tried->worst_ms = took;
        tried->worst_call = tried->calls;
    }
    if (took > CALL_MS)
        printf("  call %d of %s gave %d after %.2f ms\n", tried->calls, kind->name, code, took);
    tried->calls++;
    tried->sum_ms += took;
    tried->accepted += code == 0;
    if (code)
        EXPECT(code == NVLX_EBUSY);
}

static void report(const struct kind *kind, const struct tried *tried, int calls) {
    printf("%s, %d times behind a wait: %llu accepted, the others refused; %.2f us a call, at most %.0f us, call %d\n",
           kind->name, calls, (unsigned long long)tried->accepted, tried->sum_ms / calls * 1000, tried->worst_ms * 1000,
           tried->worst_call);
    EXPECT(tried->accepted > 0);
    if (tried->worst_ms > CALL_MS)
        FAIL("a call of %s took %.2f ms behind a wait", kind->name, tried->worst_ms);
}

static void let_go(struct fixture *f) {
    const struct nvlx_op signal = {
        .opcode = NVLX_OP_SIGNAL, .peer = f->peer, .remote = (uintptr_t)&f->counts[COUNT_WAITED], .arg = 1};
    struct nvlx_request *request;
    for (int i = 0; i < STREAMS; i++)
        EXPECT(cudaStreamQuery(f->streams[i]) == cudaErrorNotReady);
    OK(nvlx_transfer(f->engine, &signal, 1, NULL, &request));
    OK(nvlx_wait(request, GPU_PATIENCE));
    OK(nvlx_request_free(request));
    for (int i = 0; i < STREAMS; i++)
        CUDA(cudaStreamSynchronize(f->streams[i]));
    for (size_t i = 0; i < f->accepted_waits; i++)
        OK(nvlx_stream_wait_status(f->engine, f->waits[i]));
    for (size_t i = 0; i < f->accepted_requests; i++)
        OK(nvlx_request_free(f->requests[i]));
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{NULL, NULL}};
    static struct fixture fixture;
    struct tried tried[COUNT(kinds)] = {{0}};
    uint64_t signalled;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    gpus_needed(1);
    const int calls = argc > 1 ? atoi(argv[1]) : CALLS;
    EXPECT(calls >= STREAMS && calls <= CALLS);
    set_up(&fixture);
    for (int i = 0; i < STREAMS; i++) { /* so that the library has what it makes once */
        OK(nvlx_stream_wait(fixture.engine, fixture.streams[i], fixture.peer, fixture.counts, 0, NULL, NULL));
        OK(signal_behind(&fixture, fixture.streams[i]));
        OK(copy_behind(&fixture, fixture.streams[i]));
        CUDA(cudaStreamSynchronize(fixture.streams[i]));
    }
    for (int i = 0; i < STREAMS; i++) /* so that all that comes now waits */
        OK(wait_again(&fixture, fixture.streams[i]));
    for (int i = 0; i < calls; i++)
        for (size_t k = 0; k < COUNT(kinds); k++)
            try_one(&fixture, &kinds[k], fixture.streams[i % STREAMS], &tried[k]);
    for (size_t k = 0; k < COUNT(kinds); k++)
        report(&kinds[k], &tried[k], calls);
    EXPECT(tried[0].accepted < (uint64_t)calls || calls < CALLS);
    let_go(&fixture);
    OK(nvlx_signal_read(fixture.engine, &fixture.counts[COUNT_SIGNALLED], &signalled));
    EQUAL(tried[1].accepted + STREAMS, signalled);
    OK(nvlx_peer_close(fixture.peer));
    OK(nvlx_engine_destroy(fixture.engine));
    return 0;
}
