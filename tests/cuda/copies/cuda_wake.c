/* Links that sleep (src/transfer/wake.h): what a pause costs a list of 24,576 ops of 4 KiB in one call, which wakes the
 * link before it is checked, and a prepared one, which does not, but may be woken by a call; and that a link is given
 * up at once while the kernel that wakes it stands behind others. Prints medians; every byte is checked. Whether NVLink
 * sleeps after the pause is the machine's affair: `nvidia-smi nvlink -gLowPwrInfo` tells its threshold. Usage:
 * cuda_wake [MS]: the pause, 60 by default. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

#define OPS      24576u
#define FRAGMENT ((size_t)4 * KIB)
#define SEGMENT  ((size_t)2 * OPS * FRAGMENT)
#define ROUNDS   15
#define KERNELS  40    /* that keep all SMs busy for a second or so */
#define CLOSE_MS 300.0 /* in which a peer is closed meanwhile */

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static struct nvlx_op ops[OPS];
static char *here, *content;
static double pause_ms = 60;

/* ---- The owner: a chunk on GPU 0. Unlike memory of cudaMalloc, it is unmapped while kernels run ------------ */

static void fill_chunk(void *chunk) {
    CUDA(kernel_produce(chunk, SEGMENT / sizeof(uint32_t), 0, 1, NULL));
    CUDA(cudaDeviceSynchronize());
}

static void owner_of_a_chunk(int socket) {
    const int gpu = 0;
    char address[64];
    void *chunk;
    struct nvlx_alloc_options options;
    CUDA(cudaSetDevice(gpu));
    CUDA(kernels_load());
    get(socket, address, sizeof address);
    struct nvlx_engine *owner = engine_on(&gpu, 1);
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    OK(nvlx_alloc(owner, gpu, SEGMENT, &options, &chunk));
    fill_chunk(chunk);
    register_range(owner, chunk, SEGMENT, "chunk", NVLX_ACCESS_READ);
    OK(nvlx_serve(owner, address, NULL));
    put(socket, address, 1);
    get_or_end(socket, address, 1);
    OK(nvlx_engine_destroy(owner));
}

static char address[64];

static void start_owner(struct child *owner) {
    char ready;
    snprintf(address, sizeof address, "@cuda-wake-%d", (int)getpid());
    cuda_child_start(owner, "owner", NULL);
    put(owner->socket, address, sizeof address);
    get(owner->socket, &ready, 1);
}

static void open_peer_anew(void) {
    OK(nvlx_connect(engine, address, GPU_PATIENCE, &peer));
    OK(nvlx_peer_map(peer, 1, find(peer, "chunk"), SEGMENT));
}

/* ---- The lists ------------------------------------------------------------------------------------------- */

/* Every second fragment, at random. */
static void make_list(void) {
    const uint64_t there = find(peer, "chunk");
    for (uint64_t i = 0; i < OPS; i++)
        ops[i] = (struct nvlx_op){.opcode = NVLX_OP_READ,
                                  .peer = peer,
                                  .local = here + 2 * i * FRAGMENT,
                                  .remote = there + i * 7919 % OPS * 2 * FRAGMENT,
                                  .length = FRAGMENT};
}

static void await_ms(double ms) {
    const double until = now_ms() + ms;
    while (now_ms() < until)
        ;
}

/* The median of the rounds, in microseconds. With `wake_ms`, the peer is woken so long before. */
static double measure_woken(struct nvlx_prepared *prepared, double ms, double wake_ms) {
    double took[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        struct nvlx_request *request;
        await_ms(ms);
        if (wake_ms > 0)
            OK(nvlx_peer_wake(peer));
        await_ms(wake_ms);
        const double since = now_ms();
        if (prepared)
            OK(nvlx_post(prepared, NULL, &request));
        else
            OK(nvlx_transfer(engine, ops, OPS, NULL, &request));
        OK(nvlx_wait(request, GPU_PATIENCE));
        took[round] = (now_ms() - since) * 1e3;
        OK(nvlx_request_free(request));
    }
    sort_values(took, ROUNDS);
    return took[ROUNDS / 2];
}

static double measure(struct nvlx_prepared *prepared, double ms) {
    return measure_woken(prepared, ms, 0);
}

/* What the owner's chunk has. */
static char *make_content(void) {
    char *content = malloc(SEGMENT), *made = zeroed(SEGMENT);
    fill_chunk(made);
    CUDA(cudaMemcpy(content, made, SEGMENT, cudaMemcpyDeviceToHost));
    CUDA(cudaFree(made));
    return content;
}

static void check_words(void) {
    char *bytes = malloc(SEGMENT);
    uint64_t wrong = 0;
    CUDA(cudaMemcpy(bytes, here, SEGMENT, cudaMemcpyDeviceToHost));
    for (uint64_t i = 0; i < OPS; i++)
        wrong += memcmp(bytes + 2 * i * FRAGMENT, content + i * 7919 % OPS * 2 * FRAGMENT, FRAGMENT) != 0;
    free(bytes);
    EQUAL(0, wrong);
}

static void a_pause(void) {
    struct nvlx_prepared *prepared;
    OK(nvlx_prepare(engine, ops, OPS, NULL, &prepared));
    measure(NULL, 0);
    check_words();
    const double call = measure(NULL, 0), post = measure(prepared, 0);
    const double late_call = measure(NULL, pause_ms), late_post = measure(prepared, pause_ms);
    printf("one after the other: one call %.0f us, prepared %.0f\n", call, post);
    printf("after a pause of %.0f ms: one call %.0f us (%+.0f), prepared %.0f (%+.0f)\n", pause_ms, late_call,
           late_call - call, late_post, late_post - post);
    const double woken = measure_woken(prepared, pause_ms, 0.3);
    printf("after a pause, and nvlx_peer_wake 0.3 ms before: prepared %.0f us (%+.0f)\n", woken, woken - post);
    OK(nvlx_prepared_free(prepared));
    CUDA(cudaMemset(here, 0, SEGMENT));
    await_ms(pause_ms);
    measure(NULL, pause_ms);
    check_words();
}

/* The list is refused, but its link was woken before. */
static void closed_behind_kernels(void) {
    void *scratch = zeroed(KERNEL_SCRATCH);
    struct nvlx_request *request;
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(kernel_multiply(scratch, stream));
    CUDA(cudaStreamSynchronize(stream));
    await_ms(pause_ms);
    for (int i = 0; i < KERNELS; i++)
        CUDA(kernel_multiply(scratch, stream));
    ops[OPS - 1].remote = 1;
    const double since = now_ms();
    EXPECT(nvlx_transfer(engine, ops, OPS, NULL, &request) == NVLX_ERANGE);
    OK(nvlx_peer_close(peer));
    const double took = now_ms() - since;
    printf("closed behind kernels: %.2f ms\n", took);
    EXPECT(cudaStreamQuery(stream) == cudaErrorNotReady);
    EXPECT(took < CLOSE_MS);
    open_peer_anew(); /* with a new link; the old one goes when its kernel is over */
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaFree(scratch));
    make_list();
    CUDA(cudaMemset(here, 0, SEGMENT));
    measure(NULL, 0);
    check_words();
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{"owner", owner_of_a_chunk}, {0}};
    struct child owner;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    pause_ms = argc > 1 ? strtod(argv[1], NULL) : pause_ms;
    gpus_needed(2);
    CUDA(cudaSetDevice(1));
    CUDA(kernels_load());
    start_owner(&owner);
    engine = engine_on_pair(1, 0);
    here = zeroed(SEGMENT);
    struct nvlx_region *region = register_range(engine, here, SEGMENT, NULL, 0);
    open_peer_anew();
    content = make_content();
    make_list();
    a_pause();
    closed_behind_kernels();
    OK(nvlx_peer_close(peer));
    OK(nvlx_unregister(region, -1));
    OK(nvlx_engine_destroy(engine));
    CUDA(cudaFree(here));
    free(content);
    child_end(&owner);
    return 0;
}
