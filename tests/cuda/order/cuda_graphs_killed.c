/* No replay waits for the dead. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "cuda/order/cuda_graphs.h"

#define LATE_MS 50.0 /* in which a stream goes on when its peer was killed */

/* Serves its memory, and waits to be killed. */
void producer_role(int socket) {
    char name[NAME];
    const int gpu = get_int(socket);
    CUDA(cudaSetDevice(gpu));
    struct nvlx_engine *engine = engine_on(&gpu, 1);
    register_range(engine, zeroed(MIB), MIB, "data", NVLX_ACCESS_READ_WRITE);
    name_of(name, false, (int)getpid());
    OK(nvlx_serve(engine, name, NULL));
    put_int(socket, (int)getpid());
    get_int(socket);
}

/* A wait, then a copy of the dead's bytes. */
static struct graph capture_waiter(struct side *w, struct nvlx_prepared *prepared, uint64_t *wait) {
    struct nvlx_wait_options options;
    nvlx_wait_options_init(&options);
    options.mark = &w->counts[MARK];
    options.reached = &w->counts[REACHED];
    capture(w);
    OK(nvlx_stream_wait(w->engine, w->stream, w->peer, &w->counts[SIGNALLED], 1, &options, wait));
    OK(nvlx_post(prepared, &w->in_stream, NULL));
    return captured(w);
}

static void expect_mark(const struct side *w, int64_t code) {
    uint64_t counts[COUNTS];
    CUDA(cudaMemcpy(counts, w->counts, sizeof counts, cudaMemcpyDeviceToHost));
    EQUAL((uint64_t)code, counts[MARK]);
    EQUAL(0, counts[SIGNALLED]);
    CUDA(cudaMemset(w->counts, 0, KIB));
    CUDA(cudaDeviceSynchronize());
}

static void expect_event(struct side *w, uint64_t wait) {
    struct nvlx_event event = {.size = sizeof event};
    int code;
    while ((code = nvlx_next_event(w->engine, &event)) == 0 && event.kind != NVLX_EVENT_WAIT_FAILED)
        ;
    while (code == NVLX_EAGAIN) {
        usleep(200);
        code = nvlx_next_event(w->engine, &event);
        if (!code && event.kind != NVLX_EVENT_WAIT_FAILED)
            code = NVLX_EAGAIN;
    }
    OK(code);
    EQUAL(wait, event.wait);
    REFUSED(nvlx_stream_wait_status(w->engine, wait), NVLX_ESTALE, "gone");
}

static double kill_one(struct side *w, struct child *child) {
    struct nvlx_prepared *prepared;
    struct nvlx_op op = {.opcode = NVLX_OP_READ, .peer = w->peer, .local = w->target, .length = MIB};
    uint64_t wait, length;
    OK(nvlx_peer_find(w->peer, "data", &op.remote, &length));
    OK(nvlx_prepare(w->engine, &op, 1, NULL, &prepared));
    struct graph graph = capture_waiter(w, prepared, &wait);
    CUDA(cudaGraphLaunch(graph.exec, w->stream));
    usleep(2000);
    EXPECT(cudaStreamQuery(w->stream) == cudaErrorNotReady);
    OK(nvlx_stream_wait_status(w->engine, wait));
    const double begun = now_ms();
    EXPECT(kill(child->pid, SIGKILL) == 0);
    CUDA(cudaStreamSynchronize(w->stream));
    const double took = now_ms() - begun;
    child_kill(child); /* its end takes the driver longer than that */
    expect_mark(w, NVLX_ESTALE);
    for (int i = 0; i < 3; i++) {
        replay(w, &graph);
        expect_mark(w, NVLX_ESTALE);
    }
    expect_event(w, wait);
    capture(w);
    GIVES(NVLX_ESTALE, nvlx_post(prepared, &w->in_stream, NULL));
    GIVES(NVLX_ESTALE, nvlx_stream_wait(w->engine, w->stream, w->peer, w->counts, 1, NULL, NULL));
    EXPECT(is_capturing(w));
    CUDA(cudaStreamEndCapture(w->stream, &(cudaGraph_t){0}));
    OK(nvlx_prepared_free(prepared));
    destroy(&graph);
    OK(nvlx_peer_close(w->peer));
    return took;
}

void killed(int gpu, int kills) {
    const int own = 0;
    struct side w = {.engine = engine_on(&own, 1)};
    double worst = 0, sum = 0;
    CUDA(cudaSetDevice(own));
    w.counts = zeroed(KIB);
    w.target = zeroed(MIB);
    CUDA(cudaStreamCreateWithFlags(&w.stream, cudaStreamNonBlocking));
    nvlx_transfer_options_init(&w.in_stream);
    w.in_stream.stream = w.stream;
    register_range(w.engine, w.counts, KIB, "counts", NVLX_ACCESS_READ_WRITE);
    register_range(w.engine, w.target, MIB, "target", NVLX_ACCESS_READ_WRITE);
    for (int i = 0; i < kills; i++) {
        char name[NAME];
        struct child child;
        watchdog(MODE_SECONDS);
        cuda_child_start(&child, "producer", NULL);
        put_int(child.socket, gpu);
        name_of(name, false, get_int(child.socket));
        OK(nvlx_connect(w.engine, name, PATIENCE, &w.peer));
        const double took = kill_one(&w, &child);
        worst = took > worst ? took : worst;
        sum += took;
        if (i % 10 == 9)
            printf("  killed %d times: %.2f ms at most\n", i + 1, worst);
    }
    printf(
        "a peer killed %d times, from the kill until the waiting replay has ended: %.2f ms on average, %.2f at most\n",
        kills, sum / kills, worst);
    if (worst > LATE_MS)
        FAIL("a replay went on %.1f ms after its peer was killed", worst);
    OK(nvlx_engine_destroy(w.engine));
}
