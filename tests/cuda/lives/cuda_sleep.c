/* What an engine's sleep mode does: the physical chunks of virtual-memory management are released, and others come to
 * the same addresses, while a reader in another process goes on with the rest. Prints how long each step takes, and
 * fails if either process holds more at the end than after the first tenth. Usage: cuda_sleep [GIB [CYCLES]], by
 * default 8 GiB, 20 times. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/support/cuda_chunks.h"
#include "cuda/support/cuda_support.h"

#define CHUNK     (128 * MIB)
#define REST      (64 * MIB)
#define REST_SEED 1000
#define SECONDS   600 /* the watchdog, for more cycles than ctest runs */
#define TOLERANCE (64 * MIB)
#define GROWTH    4096 /* KiB of memory of a process that count as none */

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
    unsigned long resident;
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

/* KiB of memory that this process has now. */
static unsigned long resident_kib(void) {
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    EXPECT(file != NULL);
    EQUAL(2, (uint64_t)fscanf(file, "%lu %lu", &pages, &resident));
    fclose(file);
    return resident * (unsigned long)sysconf(_SC_PAGESIZE) / 1024;
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
    answer->resident = resident_kib();
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

static struct answer expect_bytes(const struct child *reader, enum order order, uint32_t seed, uint64_t generation) {
    const struct answer answer = ask(reader, order, seed, generation);
    OK(answer.code);
    EQUAL(0, answer.wrong);
    return answer;
}

/* What a night took, by its steps. */
enum { SUSPEND, DROP, REST_READ, RESUME, FIRST, NEXT, STEPS };

struct night {
    double ms[STEPS];
    unsigned long owner, reader; /* KiB that the processes have afterwards */
    size_t free;                 /* on the owner's GPU */
};

static void cycle(struct sleeper *owner, const struct child *reader, uint32_t seed, struct night *night) {
    uint64_t generation;
    const double began = now_ms();
    OK(nvlx_suspend(&owner->weights, 1, GPU_PATIENCE));
    night->ms[SUSPEND] = now_ms() - began;
    EQUAL((uint64_t)NVLX_ESUSPENDED, (uint64_t)ask(reader, POST, 0, 0).code);
    const size_t awake = free_memory();
    const double before = now_ms();
    drop_chunks(owner);
    night->ms[DROP] = now_ms() - before;
    EXPECT(free_memory() + TOLERANCE >= awake + owner->chunks * CHUNK); /* the reader holds none of it */
    night->ms[REST_READ] = expect_bytes(reader, READ_REST, REST_SEED, 0).ms;
    fill_chunks(owner, seed);
    const double filled = now_ms();
    OK(nvlx_resume(&owner->weights, 1, NULL));
    night->ms[RESUME] = now_ms() - filled;
    OK(nvlx_publish(owner->engine, &generation));
    night->ms[FIRST] = expect_bytes(reader, POST, seed, generation).ms;
    const struct answer next = expect_bytes(reader, POST, seed, 0);
    night->ms[NEXT] = next.ms;
    night->owner = resident_kib();
    night->reader = next.resident;
    night->free = free_memory();
}

static int by_time(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void tell_times(const struct night *nights, size_t count) {
    static const char *const names[STEPS] = {[SUSPEND] = "suspend",
                                             [DROP] = "cuMemUnmap and cuMemRelease",
                                             [REST_READ] = "read of the rest",
                                             [RESUME] = "resume",
                                             [FIRST] = "first post",
                                             [NEXT] = "next post"};
    double *ms = calloc(count, sizeof *ms);
    EXPECT(ms != NULL);
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < count; i++)
            ms[i] = nights[i].ms[step];
        qsort(ms, count, sizeof *ms, by_time);
        printf("%s: median %.2f ms, of ten nine below %.2f, slowest %.2f\n", names[step], ms[count / 2],
               ms[count * 9 / 10], ms[count - 1]);
    }
    free(ms);
}

static void expect_no_growth(const struct night *early, const struct night *late) {
    printf("memory of the owner %lu -> %lu KiB, of the reader %lu -> %lu KiB; free on the owner's GPU %zu -> %zu MiB\n",
           early->owner, late->owner, early->reader, late->reader, early->free / MIB, late->free / MIB);
    EXPECT(late->owner <= early->owner + GROWTH);
    EXPECT(late->reader <= early->reader + GROWTH);
    EXPECT(late->free + TOLERANCE >= early->free);
}

static void sleep_and_wake(struct sleeper *owner, const struct child *reader, size_t cycles, double seconds) {
    struct night *nights = calloc(cycles, sizeof *nights);
    const double began = now_ms();
    EXPECT(nights != NULL);
    size_t done = 0;
    do
        cycle(owner, reader, (uint32_t)done + 2, &nights[done]);
    while (++done < cycles && now_ms() - began < seconds * 1000);
    tell_times(nights, done);
    expect_no_growth(&nights[done / 10], &nights[done - 1]);
    printf("%zu cycles, 0 wrong words\n", done);
    free(nights);
}

int main(int argc, char **argv) {
    const struct role roles[] = {{"reader", reader_role}, {NULL, NULL}};
    struct setup setup = {0};
    struct sleeper owner;
    struct child reader;
    begin_process(argc, argv, roles, SECONDS);
    const size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 8) * 1024 * MIB;
    const size_t cycles = argc > 2 ? strtoul(argv[2], NULL, 10) : 20;
    EXPECT(cycles > 0);
    setup.gpu = gpus_needed(1) > 1 ? 1 : 0;
    setup.bytes = bytes;
    snprintf(setup.address, sizeof setup.address, "@nvlxfer-cuda-sleep-%d", (int)getpid());
    load_driver();
    start_owner(&owner, bytes / CHUNK, setup.address);
    printf("%zu MiB in %zu chunks on GPU 0, read by another process on GPU %d\n", bytes / MIB, owner.chunks, setup.gpu);
    cuda_child_start(&reader, "reader", NULL);
    put(reader.socket, &setup, sizeof setup);
    expect_bytes(&reader, POST, 1, 0);
    sleep_and_wake(&owner, &reader, cycles, argc > 3 ? strtod(argv[3], NULL) : SECONDS);
    child_end(&reader);
    OK(nvlx_engine_destroy(owner.engine));
    drop_chunks(&owner);
    free(owner.handles);
    return 0;
}
