/* What an engine's sleep mode does: the physical chunks of virtual-memory management are released, and others come to
 * the same addresses, while a reader in another process goes on with the rest. Prints how long each step takes.
 * Usage: cuda_sleep [GIB [CYCLES]], by default 8 GiB, 20 times. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_chunks.h"
#include "cuda_support.h"

#define CHUNK     (128 * MIB)
#define REST      (64 * MIB)
#define REST_SEED 1000
#define SECONDS   600 /* the watchdog, for more cycles than ctest runs */
#define TOLERANCE (64 * MIB)

/* ---- The reader: another process, on the last GPU ------------------------------------------------------- */

enum order { POST, READ_REST };

struct setup {
    int gpu;
    size_t bytes;
    char address[64];
};

struct question {
    enum order order;
    uint32_t seed;
    uint64_t generation;
};

struct answer {
    int code;
    unsigned long long wrong;
    double ms; /* of the call alone, to the end of the transfer */
};

struct reader {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct nvlx_prepared *prepared;
    uint32_t *local;
    unsigned long long *wrong;
    uint64_t rest;
};

static void count_wrong(struct reader *reader, size_t bytes, uint32_t seed, struct answer *answer) {
    CUDA(cudaMemset(reader->wrong, 0, sizeof *reader->wrong));
    CUDA(kernel_count(reader->local, bytes / sizeof *reader->local, seed, reader->wrong, cudaStreamLegacy));
    CUDA(cudaMemcpy(&answer->wrong, reader->wrong, sizeof answer->wrong, cudaMemcpyDeviceToHost));
    CUDA(cudaMemset(reader->local, 0xee, bytes));
    CUDA(cudaDeviceSynchronize());
}

static void obey(struct reader *reader, const struct setup *setup, const struct question *question,
                 struct answer *answer) {
    const bool all = question->order == POST;
    const struct nvlx_op op = make_op(NVLX_OP_READ, reader->peer, reader->local, reader->rest, REST);
    struct nvlx_request *request;
    const double began = now_ms();
    answer->code =
        all ? nvlx_post(reader->prepared, NULL, &request) : nvlx_transfer(reader->engine, &op, 1, NULL, &request);
    if (answer->code)
        return;
    finish(request);
    answer->ms = now_ms() - began;
    count_wrong(reader, all ? setup->bytes : REST, question->seed, answer);
}

static void reader_role(int socket) {
    struct reader reader;
    struct setup setup;
    struct question question;
    struct nvlx_region *region;
    get(socket, &setup, sizeof setup);
    CUDA(cudaSetDevice(setup.gpu));
    CUDA(kernels_load());
    CUDA(cudaMalloc((void **)&reader.local, setup.bytes));
    CUDA(cudaMalloc((void **)&reader.wrong, sizeof *reader.wrong));
    reader.engine = engine_on(&setup.gpu, 1);
    OK(nvlx_register(reader.engine, reader.local, setup.bytes, NULL, &region));
    OK(nvlx_connect(reader.engine, setup.address, PATIENCE, &reader.peer));
    reader.rest = find(reader.peer, "rest");
    const struct nvlx_op op =
        make_op(NVLX_OP_READ, reader.peer, reader.local, find(reader.peer, "weights"), setup.bytes);
    OK(nvlx_prepare(reader.engine, &op, 1, NULL, &reader.prepared));
    while (get_or_end(socket, &question, sizeof question)) {
        struct answer answer = {0};
        if (question.generation)
            OK(nvlx_peer_sync(reader.peer, question.generation, PATIENCE));
        obey(&reader, &setup, &question, &answer);
        put(socket, &answer, sizeof answer);
    }
    OK(nvlx_prepared_free(reader.prepared));
    OK(nvlx_engine_destroy(reader.engine));
    CUDA(cudaFree(reader.wrong));
    CUDA(cudaFree(reader.local));
}

static struct answer ask(const struct child *child, enum order order, uint32_t seed, uint64_t generation) {
    const struct question question = {.order = order, .seed = seed, .generation = generation};
    struct answer answer;
    put(child->socket, &question, sizeof question);
    get(child->socket, &answer, sizeof answer);
    return answer;
}

/* ---- The owner ------------------------------------------------------------------------------------------ */

struct sleeper {
    struct nvlx_engine *engine;
    struct nvlx_region *weights;
    CUdeviceptr base;
    CUmemGenericAllocationHandle *handles;
    size_t chunks;
};

static void fill_chunks(struct sleeper *owner, uint32_t seed) {
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    for (size_t i = 0; i < owner->chunks; i++) {
        DRIVER(driver.create(&owner->handles[i], CHUNK, &properties, 0));
        DRIVER(driver.map(owner->base + i * CHUNK, CHUNK, 0, owner->handles[i], 0));
    }
    DRIVER(driver.set_access(owner->base, owner->chunks * CHUNK, &access, 1));
    CUDA(kernel_produce((uint32_t *)(uintptr_t)owner->base, owner->chunks * CHUNK / sizeof(uint32_t), 0, seed,
                        cudaStreamLegacy));
    CUDA(cudaDeviceSynchronize());
}

static void drop_chunks(const struct sleeper *owner) {
    for (size_t i = 0; i < owner->chunks; i++) {
        DRIVER(driver.unmap(owner->base + i * CHUNK, CHUNK));
        DRIVER(driver.release(owner->handles[i]));
    }
}

static struct nvlx_region *register_named(struct nvlx_engine *engine, const void *address, size_t length,
                                          const char *name) {
    return register_range(engine, address, length, name, NVLX_ACCESS_READ);
}

static void start_owner(struct sleeper *owner, size_t chunks, const char *address) {
    const int gpu = 0;
    uint32_t *rest;
    *owner = (struct sleeper){.chunks = chunks, .handles = calloc(chunks, sizeof *owner->handles)};
    EXPECT(owner->handles != NULL);
    CUDA(cudaSetDevice(gpu));
    CUDA(kernels_load());
    CUDA(cudaMalloc((void **)&rest, REST));
    CUDA(kernel_produce(rest, REST / sizeof *rest, 0, REST_SEED, cudaStreamLegacy));
    owner->engine = engine_on(&gpu, 1);
    DRIVER(driver.reserve(&owner->base, chunks * CHUNK, 0, 0, 0));
    fill_chunks(owner, 1);
    owner->weights = register_named(owner->engine, (const void *)(uintptr_t)owner->base, chunks * CHUNK, "weights");
    register_named(owner->engine, rest, REST, "rest");
    OK(nvlx_serve(owner->engine, address, NULL));
}

static size_t free_memory(void) {
    size_t free_bytes, total;
    CUDA(cudaMemGetInfo(&free_bytes, &total));
    return free_bytes;
}

static void expect_bytes(const struct child *reader, enum order order, uint32_t seed, uint64_t generation, double *ms) {
    const struct answer answer = ask(reader, order, seed, generation);
    OK(answer.code);
    EQUAL(0, answer.wrong);
    *ms = answer.ms;
}

/* One night. The times of its steps are in milliseconds. */
static void cycle(struct sleeper *owner, const struct child *reader, uint32_t seed, bool tell) {
    uint64_t generation;
    double rest_ms, first_ms, next_ms;
    const double began = now_ms();
    OK(nvlx_suspend(&owner->weights, 1, GPU_PATIENCE));
    const double suspended = now_ms();
    EQUAL((uint64_t)NVLX_ESUSPENDED, (uint64_t)ask(reader, POST, 0, 0).code);
    const size_t awake = free_memory();
    const double before = now_ms();
    drop_chunks(owner);
    const double dropped = now_ms();
    EXPECT(free_memory() + TOLERANCE >= awake + owner->chunks * CHUNK); /* the reader holds none of it */
    expect_bytes(reader, READ_REST, REST_SEED, 0, &rest_ms);
    fill_chunks(owner, seed);
    const double filled = now_ms();
    OK(nvlx_resume(&owner->weights, 1, NULL));
    const double resumed = now_ms();
    OK(nvlx_publish(owner->engine, &generation));
    expect_bytes(reader, POST, seed, generation, &first_ms);
    expect_bytes(reader, POST, seed, 0, &next_ms);
    if (tell)
        printf("suspend %.2f ms, cuMemUnmap and cuMemRelease %.2f ms, read of the rest %.2f ms, resume %.2f ms, first "
               "post %.2f ms, next post %.2f ms\n",
               suspended - began, dropped - before, rest_ms, resumed - filled, first_ms, next_ms);
}

int main(int argc, char **argv) {
    const struct role roles[] = {{"reader", reader_role}, {NULL, NULL}};
    struct setup setup = {0};
    struct sleeper owner;
    struct child reader;
    double ms;
    begin_process(argc, argv, roles, SECONDS);
    const size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 8) * 1024 * MIB;
    const unsigned long cycles = argc > 2 ? strtoul(argv[2], NULL, 10) : 20;
    setup.gpu = gpus_needed(1) > 1 ? 1 : 0;
    setup.bytes = bytes;
    snprintf(setup.address, sizeof setup.address, "@nvlxfer-cuda-sleep-%d", (int)getpid());
    load_driver();
    start_owner(&owner, bytes / CHUNK, setup.address);
    printf("%zu MiB in %zu chunks on GPU 0, read by another process on GPU %d\n", bytes / MIB, owner.chunks, setup.gpu);
    cuda_child_start(&reader, "reader", NULL);
    put(reader.socket, &setup, sizeof setup);
    expect_bytes(&reader, POST, 1, 0, &ms);
    for (unsigned long i = 0; i < cycles; i++)
        cycle(&owner, &reader, (uint32_t)i + 2, i < 5 || i + 1 == cycles);
    printf("%lu cycles, 0 wrong words\n", cycles);
    child_end(&reader);
    OK(nvlx_engine_destroy(owner.engine));
    drop_chunks(&owner);
    free(owner.handles);
    return 0;
}
