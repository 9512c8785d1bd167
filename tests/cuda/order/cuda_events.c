/* Events and messages on GPUs: the bytes are in place at the moment of the event, no one asks for completion, and a
 * device that fails tells it. Prints how long a message takes. NVLX_MESSAGES: how many are sent, by default 5,000.
 * SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

#define BYTES   ((size_t)64 * KIB)
#define WORDS   (BYTES / sizeof(uint32_t))
#define SPIN_NS (50 * INT64_C(1000000))
#define OPS     64

struct letter {
    double sent_ms;
    uint32_t number;
};

static uint32_t messages(void) {
    const char *wanted = getenv("NVLX_MESSAGES");
    return wanted ? (uint32_t)strtoul(wanted, NULL, 10) : 5000;
}

/* Waits for the descriptor alone. */
static void next_event(struct nvlx_engine *engine, struct nvlx_event *event) {
    struct pollfd ready = {.events = POLLIN};
    int code;
    OK(nvlx_event_fd(engine, &ready.fd));
    event->size = sizeof *event;
    while ((code = nvlx_next_event(engine, event)) == NVLX_EAGAIN)
        EXPECT(poll(&ready, 1, 20000) == 1);
    OK(code);
}

/* ---- The receiver ------------------------------------------------------------------------------------------ */

static void expect_number(const uint32_t *memory, uint32_t *seen, uint32_t number) {
    CUDA(cudaMemcpy(seen, memory, BYTES, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < WORDS; i++)
        if (seen[i] != number)
            FAIL("word %zu is %u at the event of message %u", i, seen[i], number);
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void receiver_role(int socket) {
    const int gpu = get_int(socket);
    const uint32_t count = (uint32_t)get_int(socket);
    char address[64];
    struct nvlx_region *region;
    uint32_t *memory, *seen = malloc(BYTES);
    double *took = malloc(count * sizeof *took);
    get(socket, address, sizeof address);
    CUDA(cudaSetDevice(gpu));
    CUDA(cudaMalloc((void **)&memory, BYTES));
    struct nvlx_engine *engine = engine_on(&gpu, 1);
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = "block";
    OK(nvlx_register(engine, memory, BYTES, &options, &region));
    OK(nvlx_serve(engine, address, NULL));
    for (uint32_t i = 0; i < count; i++) {
        struct nvlx_event event;
        struct letter letter;
        next_event(engine, &event);
        EXPECT(event.kind == NVLX_EVENT_MESSAGE && event.message_length == sizeof letter);
        memcpy(&letter, event.message, sizeof letter);
        took[i] = now_ms() - letter.sent_ms;
        EQUAL(i, letter.number);
        expect_number(memory, seen, i);
        put(socket, &i, sizeof i);
    }
    qsort(took, count, sizeof *took, compare);
    printf("%u messages after 64 KiB: from the call to the other side's event %.1f us (median), 90 %% below %.1f\n",
           (unsigned)count, took[count / 2] * 1e3, took[count * 9 / 10] * 1e3);
    free(took);
    free(seen);
    OK(nvlx_engine_destroy(engine));
    CUDA(cudaFree(memory));
}

/* ---- Messages ---------------------------------------------------------------------------------------------- */

/* Every other one in a stream. */
static void send_one(struct nvlx_engine *engine, struct nvlx_peer *peer, uint32_t *from, uint64_t there,
                     uint32_t number, cudaStream_t stream) {
    struct nvlx_op op = make_op(NVLX_OP_WRITE, peer, from, there, BYTES);
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct letter letter = {.number = number};
    nvlx_transfer_options_init(&options);
    options.message = &letter;
    options.message_length = sizeof letter;
    options.stream = number % 2 ? stream : NULL;
    letter.sent_ms = now_ms();
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    finish(request);
}

static void messages_come_after_their_bytes(int receiver_gpu) {
    const uint32_t count = messages();
    struct child receiver;
    struct nvlx_region *region;
    char address[64] = "";
    uint32_t *from, *numbers = malloc(BYTES);
    cudaStream_t stream;
    snprintf(address, sizeof address, "@nvlxfer-cuda-events-%d", (int)getpid());
    cuda_child_start(&receiver, "receiver", NULL);
    put_int(receiver.socket, receiver_gpu);
    put_int(receiver.socket, (int)count);
    put(receiver.socket, address, sizeof address);
    struct nvlx_engine *engine = engine_on_pair(0, receiver_gpu);
    struct nvlx_peer *peer;
    uint64_t there, length;
    CUDA(cudaMalloc((void **)&from, BYTES));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    OK(nvlx_register(engine, from, BYTES, NULL, &region));
    OK(nvlx_connect(engine, address, PATIENCE, &peer));
    OK(nvlx_peer_find(peer, "block", &there, &length));
    for (uint32_t i = 0, seen; i < count; i++) {
        for (size_t k = 0; k < WORDS; k++)
            numbers[k] = i;
        CUDA(cudaMemcpy(from, numbers, BYTES, cudaMemcpyHostToDevice));
        CUDA(cudaDeviceSynchronize()); /* so short a copy of pageable memory may return before it is done */
        send_one(engine, peer, from, there, i, stream);
        get(receiver.socket, &seen, sizeof seen);
        EQUAL(i, seen);
        watchdog(PROCESS_SECONDS);
    }
    OK(nvlx_engine_destroy(engine));
    child_end(&receiver);
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaFree(from));
    free(numbers);
}

/* ---- Requests ---------------------------------------------------------------------------------------------- */

struct bench {
    struct cuda_owner owner;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    uint32_t *memory;
    uint64_t there;
};

static void set_up(struct bench *b, int owner_gpu) {
    struct nvlx_region *region;
    cuda_owner_start(&b->owner, owner_gpu, 1, OPS * BYTES, NULL);
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    b->engine = engine_on_pair(0, owner_gpu);
    CUDA(cudaMalloc((void **)&b->memory, OPS * BYTES));
    OK(nvlx_register(b->engine, b->memory, OPS * BYTES, NULL, &region));
    b->peer = cuda_owner_open(&b->owner, b->engine);
    b->there = cuda_owner_address(b->peer, 0);
    OK(nvlx_peer_map(b->peer, 0, b->there, OPS * BYTES));
}

static void tear_down(struct bench *b) {
    OK(nvlx_engine_destroy(b->engine));
    cuda_owner_end(&b->owner);
    CUDA(cudaFree(b->memory));
}

/* Many ops go over several lanes. */
static struct nvlx_request *start_noted(struct bench *b, uint32_t opcode, size_t count, uint32_t mechanism,
                                        cudaStream_t stream) {
    struct nvlx_op ops[OPS];
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    for (size_t i = 0; i < count; i++) /* backwards: none joins another */
        ops[i] =
            make_op(opcode, b->peer, b->memory + (count - 1 - i) * WORDS, b->there + (count - 1 - i) * BYTES, BYTES);
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_DONE_EVENT;
    options.user = b;
    options.mechanism = mechanism;
    options.stream = stream;
    OK(nvlx_transfer(b->engine, ops, count, &options, &request));
    return request;
}

static void expect_done(struct bench *b, struct nvlx_request *request) {
    struct nvlx_event event;
    next_event(b->engine, &event);
    EXPECT(event.kind == NVLX_EVENT_REQUEST_DONE && event.request == request && event.user == b && !event.status);
    OK(nvlx_request_free(request));
}

static void requests_tell(struct bench *b) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL, NVLX_MECHANISM_AUTO};
    for (int round = 0; round < 200; round++)
        for (size_t i = 0; i < COUNT(mechanisms); i++)
            expect_done(
                b, start_noted(b, round % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, round % 3 ? OPS : 1, mechanisms[i], NULL));
}

/* Behind a kernel of the program: not before it ends. */
static void streams_are_waited_for(struct bench *b) {
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (uint32_t seed = 11; seed < 14; seed++) {
        double since = now_ms();
        CUDA(kernel_produce(b->memory, WORDS, SPIN_NS, seed, stream));
        struct nvlx_request *request = start_noted(b, NVLX_OP_WRITE, 1, NVLX_MECHANISM_DEFAULT, stream);
        EXPECT(now_ms() - since < (double)SPIN_NS / 1e6);
        expect_done(b, request);
        EXPECT(now_ms() - since > (double)SPIN_NS / 1e6 * 0.9);
        EQUAL(0, cuda_owner_wrong(&b->owner, 0, BYTES, seed));
    }
    CUDA(cudaStreamDestroy(stream));
}

/* ---- A context that is lost: in a process of its own --------------------------------------------------------- */

static void trap_role(int socket) {
    struct bench b;
    struct nvlx_event event;
    cudaStream_t stream;
    set_up(&b, get_int(socket));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(kernel_trap(SPIN_NS, stream));
    struct nvlx_request *request = start_noted(&b, NVLX_OP_READ, 1, NVLX_MECHANISM_DEFAULT, stream);
    double since = now_ms();
    next_event(b.engine, &event);
    EXPECT(event.kind == NVLX_EVENT_REQUEST_DONE && event.request == request && event.status == NVLX_EDEVICE);
    printf("a lost context is told after %.0f ms: %s\n", now_ms() - since, event.reason);
    EXPECT(now_ms() - since < 5000);
    nvlx_engine_destroy(b.engine);
    cuda_owner_end(&b.owner);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {
        CUDA_OWNER_ROLE, {"receiver", receiver_role}, {"trap", trap_role}, {NULL, NULL}};
    struct bench b;
    struct child child;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    const int owner_gpu = gpus_needed(1) > 1 ? 1 : 0;
    messages_come_after_their_bytes(owner_gpu);
    set_up(&b, owner_gpu);
    requests_tell(&b);
    streams_are_waited_for(&b);
    tear_down(&b);
    cuda_child_start(&child, "trap", NULL);
    put_int(child.socket, owner_gpu);
    child_end(&child);
    return 0;
}
