/* A peer that is killed: what is mapped stays readable, what is in flight ends, nothing new opens, nothing hangs, and
 * closing the peer gives its memory back.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

#define BYTES     ((size_t)1024 * MIB) /* of each segment: long to copy, and seen in the GPU's free memory */
#define WORDS     (BYTES / sizeof(uint32_t))
#define SOURCE    0 /* the owner's segments */
#define SINK      1
#define UNTOUCHED 2 /* never mapped while the owner lives */
#define SEGMENTS  3
#define IN_FLIGHT 96         /* half reads, half writes */
#define TOLERANCE (64 * MIB) /* of free memory: the driver's own */
#define RETURN_MS 5000.0     /* in which the memory must come back */

struct setup {
    int owner_gpu;
    struct nvlx_engine *engine;
    uint32_t *read_to, *write_from;
    unsigned long long *wrong;
};

static void set_up(struct setup *s) {
    struct nvlx_region *region;
    CUDA(cudaSetDevice(s->owner_gpu));
    CUDA(cudaFree(NULL)); /* a context, to ask for its free memory later */
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    s->engine = engine_on_pair(0, s->owner_gpu);
    CUDA(cudaMalloc((void **)&s->read_to, BYTES));
    CUDA(cudaMalloc((void **)&s->write_from, BYTES));
    CUDA(cudaMalloc((void **)&s->wrong, sizeof *s->wrong));
    CUDA(cudaMemset(s->write_from, 7, BYTES));
    CUDA(cudaDeviceSynchronize());
    OK(nvlx_register(s->engine, s->read_to, BYTES, NULL, &region));
    OK(nvlx_register(s->engine, s->write_from, BYTES, NULL, &region));
}

static void tear_down(struct setup *s) {
    OK(nvlx_engine_destroy(s->engine));
    CUDA(cudaFree(s->wrong));
    CUDA(cudaFree(s->write_from));
    CUDA(cudaFree(s->read_to));
}

static size_t free_memory(const struct setup *s) {
    size_t free_bytes, total;
    CUDA(cudaSetDevice(s->owner_gpu));
    CUDA(cudaMemGetInfo(&free_bytes, &total));
    CUDA(cudaSetDevice(0));
    return free_bytes;
}

static void spoil(const struct setup *s) {
    CUDA(cudaMemset(s->read_to, 0xee, BYTES));
    CUDA(cudaDeviceSynchronize());
}

static void expect_read(const struct setup *s) {
    unsigned long long wrong;
    CUDA(cudaMemset(s->wrong, 0, sizeof *s->wrong));
    CUDA(kernel_count(s->read_to, WORDS, SOURCE + 1, s->wrong, cudaStreamLegacy));
    CUDA(cudaMemcpy(&wrong, s->wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    if (wrong)
        FAIL("%llu of %zu words read from the dead peer are wrong", wrong, WORDS);
}

/* Waits for a request that may fail, but only with the driver's words; true if it did not. */
static bool ended_well(struct nvlx_request *request) {
    struct nvlx_request_info info = {.size = sizeof info};
    int code = nvlx_wait(request, GPU_PATIENCE);
    OK(nvlx_request_get_info(request, &info));
    EXPECT(info.status == code);
    if (code) {
        printf("a request failed with %s: %s\n", nvlx_strerror(code), info.error);
        EXPECT(code == NVLX_EDEVICE);
        EXPECT(info.error[0] != '\0');
    }
    EXPECT(nvlx_request_free(request) == code);
    return code == 0;
}

static void nothing_new_opens(const struct setup *s, struct nvlx_peer *peer) {
    uint64_t remote = cuda_owner_address(peer, UNTOUCHED);
    const struct nvlx_op op = {
        .opcode = NVLX_OP_READ, .peer = peer, .local = s->read_to, .remote = remote, .length = BYTES};
    struct nvlx_request *request;
    REFUSED(nvlx_peer_map(peer, 0, remote, BYTES), NVLX_ESTALE, "");
    REFUSED(nvlx_transfer(s->engine, &op, 1, NULL, &request), NVLX_ESTALE, "");
    printf("a new mapping is refused: %s\n", nvlx_last_error());
}

/* Closes the last mappings: the memory of the dead process comes back. */
static void close_and_regain(const struct setup *s, struct nvlx_peer *peer, size_t before) {
    size_t pinned = free_memory(s), after;
    double began = now_ms();
    OK(nvlx_peer_close(peer));
    double closed = now_ms();
    while ((after = free_memory(s)) + TOLERANCE < before && now_ms() - closed < RETURN_MS)
        usleep(10000);
    printf("free memory on GPU %d: %zu MiB before the peer came, %zu after its death, %zu after nvlx_peer_close "
           "(%.1f ms)\n",
           s->owner_gpu, before / MIB, pinned / MIB, after / MIB, closed - began);
    EXPECT(after + TOLERANCE >= before);
}

static struct nvlx_peer *start_and_map(const struct setup *s, struct cuda_owner *owner) {
    cuda_owner_start(owner, s->owner_gpu, SEGMENTS, BYTES, NULL);
    struct nvlx_peer *peer = cuda_owner_open(owner, s->engine);
    OK(nvlx_peer_map(peer, 0, cuda_owner_address(peer, SOURCE), BYTES));
    OK(nvlx_peer_map(peer, 0, cuda_owner_address(peer, SINK), BYTES));
    return peer;
}

static void killed_while_mapped(const struct setup *s) {
    struct cuda_owner owner;
    size_t before = free_memory(s);
    struct nvlx_peer *peer = start_and_map(s, &owner), *again;
    char *text = strdup(owner.text);
    EXPECT(text != NULL);
    finish(start_op(s->engine, NVLX_OP_READ, peer, s->read_to, cuda_owner_address(peer, SOURCE), BYTES, NULL));
    cuda_owner_kill(&owner);
    spoil(s);
    if (ended_well(
            start_op(s->engine, NVLX_OP_READ, peer, s->read_to, cuda_owner_address(peer, SOURCE), BYTES, NULL))) {
        expect_read(s);
        printf("killed while mapped: its memory is still read, and right\n");
    }
    nothing_new_opens(s, peer);
    close_and_regain(s, peer, before);
    OK(nvlx_peer_open(s->engine, text, strlen(text), &again));
    REFUSED(nvlx_peer_map(again, 0, cuda_owner_address(again, SOURCE), BYTES), NVLX_ESTALE, "");
    OK(nvlx_peer_close(again));
    free(text);
}

static void killed_in_flight(const struct setup *s) {
    struct nvlx_request *request[IN_FLIGHT];
    struct cuda_owner owner;
    int well = 0;
    size_t before = free_memory(s);
    struct nvlx_peer *peer = start_and_map(s, &owner);
    spoil(s);
    for (int i = 0; i < IN_FLIGHT; i++) {
        bool read = i % 2 == 0;
        request[i] = start_op(s->engine, read ? NVLX_OP_READ : NVLX_OP_WRITE, peer, read ? s->read_to : s->write_from,
                              cuda_owner_address(peer, read ? SOURCE : SINK), BYTES, NULL);
    }
    int last = nvlx_test(request[IN_FLIGHT - 1]);
    double began = now_ms();
    cuda_owner_kill(&owner);
    double killed = now_ms();
    EXPECT(last == NVLX_EAGAIN); /* or nothing was in flight when it was killed */
    for (int i = 0; i < IN_FLIGHT; i++)
        well += ended_well(request[i]);
    printf("killed in flight: gone within %.1f ms; %d of %d requests of %zu MiB then ended well, the last after %.1f "
           "ms more\n",
           killed - began, well, IN_FLIGHT, BYTES / MIB, now_ms() - killed);
    if (well == IN_FLIGHT)
        expect_read(s);
    nothing_new_opens(s, peer);
    close_and_regain(s, peer, before);
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE, {NULL, NULL}};
    struct setup setup;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    setup.owner_gpu = gpus_needed(1) > 1 ? 1 : 0;
    printf("reading GPU 0, peer's memory on GPU %d\n", setup.owner_gpu);
    set_up(&setup);
    killed_while_mapped(&setup);
    killed_in_flight(&setup);
    tear_down(&setup);
    return 0;
}
