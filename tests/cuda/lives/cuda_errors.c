/* A kernel breaks the process's context for good: requests say so in the driver's words, nothing hangs, the engine can
 * be destroyed, and other processes go on.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cuda/support/cuda_support.h"

#define BYTES   MIB
#define SOURCE  0 /* the owner's segments */
#define SINK    1
#define OPS     8
#define SPIN_NS 50000000 /* until the kernel traps: time to submit everything before */

/* Waits for the request, which must fail if it came after the trap, and fail rightly in any case. */
static int how_it_ended(struct nvlx_request *request, bool must_fail, char *error, size_t size) {
    struct nvlx_request_info info = {.size = sizeof info};
    int code = nvlx_wait(request, GPU_PATIENCE);
    if (code != NVLX_EDEVICE && (must_fail || code != 0))
        FAIL("a request ended with %d (%s) after its context was broken", code, nvlx_strerror(code));
    EXPECT(nvlx_test(request) == code);
    OK(nvlx_request_get_info(request, &info));
    EXPECT(info.status == code);
    EXPECT((info.error[0] != '\0') == (code != 0));
    if (code)
        snprintf(error, size, "%s", info.error);
    EXPECT(nvlx_request_free(request) == code);
    return code;
}

/* What is asked for after the error: each call returns, and none says that bytes were moved. */
static void ask_on(struct nvlx_engine *engine, struct nvlx_peer *peer, void *local) {
    const struct nvlx_op op = {.opcode = NVLX_OP_READ,
                               .peer = peer,
                               .local = local,
                               .remote = cuda_owner_address(peer, SOURCE),
                               .length = BYTES};
    struct nvlx_request *request;
    struct nvlx_region *region;
    char error[256], *text;
    size_t length;
    int code = nvlx_transfer(engine, &op, 1, NULL, &request);
    if (!code)
        how_it_ended(request, true, error, sizeof error);
    else
        EXPECT(code == NVLX_EDEVICE);
    printf("a later transfer: %s\n", code ? nvlx_last_error() : error);
    code = nvlx_register(engine, local, BYTES / 2, NULL, &region);
    printf("a later registration: %s\n", code ? nvlx_last_error() : "accepted");
    code = nvlx_export(engine, &text, &length);
    if (!code)
        nvlx_text_free(text);
    printf("a later descriptor: %s\n", code ? nvlx_last_error() : "written");
}

static void close_all(struct nvlx_engine *engine, struct nvlx_peer *peer, struct nvlx_region *region) {
    double began = now_ms();
    OK(nvlx_unregister(region, GPU_PATIENCE));
    int code = nvlx_peer_close(peer);
    printf("nvlx_peer_close: %s\n", code ? nvlx_last_error() : "no error");
    code = nvlx_engine_destroy(engine);
    printf("nvlx_engine_destroy: %s; closing all took %.1f ms\n", code ? nvlx_last_error() : "no error",
           now_ms() - began);
}

static void victim_role(int socket) {
    const int gpu = 0;
    struct cuda_owner owner = {.segments = 2, .bytes = 2 * BYTES};
    struct nvlx_request *ordered[OPS], *unordered[OPS];
    struct nvlx_region *region;
    cudaStream_t stream;
    char *local, error[256] = "";
    int failed = 0;
    owner.text = get_text(socket, &owner.length);
    CUDA(cudaSetDevice(gpu));
    CUDA(kernels_load());
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMalloc((void **)&local, 2 * BYTES));
    struct nvlx_engine *engine = engine_on(&gpu, 1);
    struct nvlx_peer *peer = cuda_owner_open(&owner, engine);
    OK(nvlx_register(engine, local, 2 * BYTES, NULL, &region));
    OK(nvlx_peer_map(peer, gpu, cuda_owner_address(peer, SOURCE), BYTES));
    OK(nvlx_peer_map(peer, gpu, cuda_owner_address(peer, SINK), BYTES));
    CUDA(kernel_trap(SPIN_NS, stream));
    for (int i = 0; i < OPS; i++) {
        ordered[i] = start_op(engine, NVLX_OP_READ, peer, local, cuda_owner_address(peer, SOURCE), BYTES, stream);
        unordered[i] =
            start_op(engine, NVLX_OP_WRITE, peer, local + BYTES, cuda_owner_address(peer, SINK), BYTES, NULL);
    }
    EXPECT(nvlx_test(ordered[0]) == NVLX_EAGAIN);
    for (int i = 0; i < OPS; i++) {
        how_it_ended(ordered[i], true, error, sizeof error);
        failed += how_it_ended(unordered[i], false, error, sizeof error) != 0;
    }
    cudaError_t sticky = cudaStreamSynchronize(stream);
    printf("after \"%s\": %d transfers behind it failed, and %d of %d beside it: %s\n", cudaGetErrorString(sticky), OPS,
           failed, OPS, error);
    EXPECT(sticky != cudaSuccess);
    EXPECT(strstr(error, cudaGetErrorString(sticky)) != NULL);
    ask_on(engine, peer, local);
    close_all(engine, peer, region);
}

/* The owner, and a new process's worth of the library on the same GPU, are well. */
static void others_go_on(const struct cuda_owner *owner) {
    const int zero = 0;
    struct nvlx_region *region;
    void *memory;
    EXPECT(cuda_owner_wrong(owner, SOURCE, 2 * BYTES, SOURCE + 1) == 0);
    struct nvlx_engine *engine = engine_on(&zero, 1);
    struct nvlx_peer *peer = cuda_owner_open(owner, engine);
    OK(nvlx_alloc(engine, 0, 2 * BYTES, NULL, &memory));
    OK(nvlx_register(engine, memory, 2 * BYTES, NULL, &region));
    finish(start_op(engine, NVLX_OP_READ, peer, memory, cuda_owner_address(peer, SOURCE), 2 * BYTES, NULL));
    finish(start_op(engine, NVLX_OP_WRITE, peer, memory, cuda_owner_address(peer, SINK), 2 * BYTES, NULL));
    EXPECT(cuda_owner_wrong(owner, SINK, 2 * BYTES, SOURCE + 1) == 0);
    OK(nvlx_engine_destroy(engine));
    printf("the peer of the broken process, and another process, transfer as before\n");
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE, {"victim", victim_role}, {NULL, NULL}};
    struct cuda_owner owner;
    struct child victim;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    int owner_gpu = gpus_needed(1) > 1 ? 1 : 0;
    cuda_owner_start(&owner, owner_gpu, 2, 2 * BYTES, NULL);
    child_start(&victim, "victim");
    put_text(victim.socket, owner.text, owner.length);
    child_end(&victim);
    others_go_on(&owner);
    cuda_owner_end(&owner);
    return 0;
}
