/* The first pull of much memory in many chunks, as of a model's weights: from one process into another, on another GPU,
 * with nothing mapped yet. Prints where the time goes, beside that of the driver's calls alone, and holds the first to
 * the second.
 * Usage: cuda_cold [ROUNDS [CHUNKS]], by default 3 rounds, of which one must be good, of 410 chunks of 20 MiB.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cuda/support/cuda_chunks.h"
#include "cuda/support/cuda_support.h"

#define CHUNK     (20 * MIB)
#define RANGES    2000
#define PARTS     5 /* ranges of a chunk, where no range crosses a border */
#define UNIT      512
#define SEED      7
#define MOST      1.4 /* times what the driver's calls take, one process beside the other */
#define MOST_MS   10  /* and more than that */
#define SECONDS   600 /* the watchdog, for more rounds than ctest runs */
#define FILE_TYPE CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR

/* Ranges join all chunks to one run, each chunk is a run of its own, or the memory is of cudaMalloc. */
enum shape { JOINED, APART, LEGACY, SHAPES };
static const char *const shape_names[] = {"chunks, joined", "chunks, each alone", "cudaMalloc"};

struct setup {
    int gpu;
    enum shape shape;
    uint32_t chunks;
    bool raw;
    char address[64];
};

struct given { /* by the owner, to the raw importer; milliseconds */
    double export, send, close, wall;
};

struct pulled { /* milliseconds */
    double connect, find, map, copy, again, register_ms;
    double reserve, take, import, close, place, access;
    unsigned long long wrong;
};

static size_t total(const struct setup *setup) {
    return setup->chunks * CHUNK;
}

/* ---- The ranges: the same in both processes, back to back from 0 to the end ------------------------------- */

struct ranges {
    size_t count;
    size_t *start; /* [count + 1] */
};

/* Of many sizes, each power of two as often as the others: from some bytes to some percent of all. */
static void fill_joined(struct ranges *ranges, size_t units) {
    uint64_t *weight = calloc(ranges->count, sizeof *weight), sum = 0, before = 0, dice = 1;
    EXPECT(weight != NULL);
    for (size_t i = 0; i < ranges->count; i++) {
        const uint64_t least = UINT64_C(1) << next_random(&dice) % 22;
        sum += weight[i] = least + next_random(&dice) % least;
    }
    for (size_t i = 0; i < ranges->count; before += weight[i++]) /* at least one each */
        ranges->start[i] = UNIT * (i + before * (units - ranges->count) / sum);
    free(weight);
}

static struct ranges make_ranges(const struct setup *setup) {
    const bool joined = setup->shape == JOINED;
    struct ranges ranges = {.count = joined ? RANGES : (size_t)setup->chunks * PARTS};
    ranges.start = calloc(ranges.count + 1, sizeof *ranges.start);
    EXPECT(ranges.start != NULL);
    if (joined)
        fill_joined(&ranges, total(setup) / UNIT);
    for (size_t i = 0; i < ranges.count && !joined; i++)
        ranges.start[i] = i / PARTS * CHUNK + i % PARTS * (CHUNK / PARTS / UNIT * UNIT);
    ranges.start[ranges.count] = total(setup);
    return ranges;
}

static void range_name(char name[32], size_t i) {
    snprintf(name, 32, "range %zu", i);
}

/* ---- The owner ------------------------------------------------------------------------------------------- */

struct owner_memory {
    char **parts; /* of cudaMalloc: one for each chunk; else all in one */
    struct nvlx_engine *engine;
};

static char *allocate_of(struct nvlx_engine *engine, const struct setup *setup, size_t length) {
    struct nvlx_alloc_options options;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = setup->shape == LEGACY ? 0 : NVLX_ALLOC_VMM;
    options.chunk_length = setup->shape == LEGACY ? 0 : CHUNK;
    OK(nvlx_alloc(engine, setup->gpu, length, &options, &address));
    return address;
}

static char *place_of(const struct owner_memory *memory, const struct setup *setup, size_t offset) {
    return setup->shape == LEGACY ? memory->parts[offset / CHUNK] + offset % CHUNK : memory->parts[0] + offset;
}

static void owner_make(struct owner_memory *memory, const struct setup *setup) {
    const size_t parts = setup->shape == LEGACY ? setup->chunks : 1, bytes = total(setup) / parts;
    memory->parts = calloc(parts, sizeof *memory->parts);
    EXPECT(memory->parts != NULL);
    for (size_t i = 0; i < parts; i++) {
        memory->parts[i] = allocate_of(memory->engine, setup, bytes);
        CUDA(kernel_produce((uint32_t *)(void *)memory->parts[i], bytes / sizeof(uint32_t), 0, SEED, cudaStreamLegacy));
    }
    CUDA(cudaDeviceSynchronize());
}

static void owner_register_all(const struct owner_memory *memory, const struct setup *setup) {
    struct ranges ranges = make_ranges(setup);
    for (size_t i = 0; i < ranges.count; i++) {
        const size_t start = ranges.start[i], length = ranges.start[i + 1] - start;
        char name[32];
        range_name(name, i);
        register_range(memory->engine, place_of(memory, setup, start), length, name, NVLX_ACCESS_READ);
    }
    free(ranges.start);
}

/* Exports all chunks and sends them one by one, as fast as that goes. */
static void give_all(const struct owner_memory *memory, const struct setup *setup, int socket) {
    struct given given = {0};
    const double began = now_ms();
    for (uint32_t i = 0; i < setup->chunks; i++) {
        CUmemGenericAllocationHandle handle;
        int fd;
        const double start = now_ms();
        DRIVER(driver.retain(&handle, memory->parts[0] + i * CHUNK));
        DRIVER(driver.export_handle(&fd, handle, FILE_TYPE, 0));
        DRIVER(driver.release(handle));
        const double exported = now_ms();
        put_file(socket, &i, sizeof i, fd);
        const double sent = now_ms();
        close(fd);
        given.export += exported - start;
        given.send += sent - exported;
        given.close += now_ms() - sent;
    }
    given.wall = now_ms() - began;
    put(socket, &given, sizeof given);
}

static void owner_role_cold(int socket) {
    struct owner_memory memory = {0};
    struct setup setup;
    double began;
    int order, fd;
    get(socket, &setup, sizeof setup);
    load_driver();
    CUDA(cudaSetDevice(setup.gpu));
    CUDA(kernels_load());
    memory.engine = engine_on(&setup.gpu, 1);
    owner_make(&memory, &setup);
    began = now_ms();
    owner_register_all(&memory, &setup);
    began = now_ms() - began;
    OK(nvlx_serve(memory.engine, setup.address, NULL));
    put(socket, &began, sizeof began);
    while (get_file_or_end(socket, &order, sizeof order, &fd)) {
        give_all(&memory, &setup, fd);
        close(fd);
    }
    OK(nvlx_engine_destroy(memory.engine));
    free(memory.parts);
}

/* ---- The importer ---------------------------------------------------------------------------------------- */

static unsigned long long count_wrong(const struct setup *setup, const char *local) {
    const size_t bytes = setup->shape == LEGACY ? CHUNK : total(setup);
    unsigned long long *wrong, counted;
    CUDA(cudaMalloc((void **)&wrong, sizeof *wrong));
    CUDA(cudaMemset(wrong, 0, sizeof *wrong));
    for (size_t at = 0; at < total(setup); at += bytes)
        CUDA(kernel_count((const uint32_t *)(const void *)(local + at), bytes / sizeof(uint32_t), SEED, wrong,
                          cudaStreamLegacy));
    CUDA(cudaMemcpy(&counted, wrong, sizeof counted, cudaMemcpyDeviceToHost));
    CUDA(cudaFree(wrong));
    return counted;
}

static double pull(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count, double *called) {
    const double began = now_ms();
    struct nvlx_request *request = start(engine, ops, count);
    *called = now_ms() - began;
    finish(request);
    return now_ms() - began - *called;
}

static void fill_ops(const struct ranges *ranges, struct nvlx_peer *peer, char *local, struct nvlx_op *ops) {
    for (size_t i = 0; i < ranges->count; i++) {
        const size_t start = ranges->start[i];
        char name[32];
        range_name(name, i);
        ops[i] = make_op(NVLX_OP_READ, peer, local + start, find(peer, name), ranges->start[i + 1] - start);
    }
}

/* Into memory of the same kind. */
static void pull_by_library(const struct setup *setup, struct pulled *pulled) {
    struct ranges ranges = make_ranges(setup);
    struct nvlx_op *ops = calloc(ranges.count, sizeof *ops);
    struct nvlx_engine *engine = engine_on(&setup->gpu, 1);
    char *local = allocate_of(engine, setup, total(setup));
    struct nvlx_peer *peer;
    double called;
    EXPECT(ops != NULL);
    register_range(engine, local, total(setup), NULL, NVLX_ACCESS_NONE);
    double began = now_ms();
    OK(nvlx_connect(engine, setup->address, PATIENCE, &peer));
    pulled->connect = now_ms() - began;
    began = now_ms();
    fill_ops(&ranges, peer, local, ops);
    pulled->find = now_ms() - began;
    pulled->copy = pull(engine, ops, ranges.count, &pulled->map);
    pulled->wrong = count_wrong(setup, local);
    CUDA(cudaMemset(local, 0, total(setup)));
    CUDA(cudaDeviceSynchronize());
    pulled->again = pull(engine, ops, ranges.count, &called);
    pulled->again += called;
    pulled->wrong += count_wrong(setup, local);
    free(ops);
    free(ranges.start);
    OK(nvlx_engine_destroy(engine));
}

/* What comes is imported, mapped and opened to the GPU chunk by chunk. */
static void map_raw(const struct setup *setup, int socket, CUdeviceptr base, struct pulled *pulled) {
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = setup->gpu},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READ};
    for (uint32_t i = 0; i < setup->chunks; i++) {
        CUmemGenericAllocationHandle handle;
        uint32_t number;
        int fd;
        const double start = now_ms();
        EXPECT(get_file_or_end(socket, &number, sizeof number, &fd));
        const double taken = now_ms();
        DRIVER(driver.import_handle(&handle, (void *)(intptr_t)fd, FILE_TYPE));
        const double imported = now_ms();
        close(fd);
        const double closed = now_ms();
        DRIVER(driver.map(base + i * CHUNK, CHUNK, 0, handle, 0));
        DRIVER(driver.release(handle));
        const double placed = now_ms();
        DRIVER(driver.set_access(base + i * CHUNK, CHUNK, &access, 1));
        pulled->take += taken - start;
        pulled->import += imported - taken;
        pulled->close += closed - imported;
        pulled->place += placed - closed;
        pulled->access += now_ms() - placed;
    }
}

static void pull_raw(const struct setup *setup, int socket, struct pulled *pulled) {
    CUdeviceptr base;
    cudaStream_t stream;
    char *local;
    CUDA(cudaMalloc((void **)&local, total(setup)));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const double began = now_ms();
    DRIVER(driver.reserve(&base, total(setup), 0, 0, 0));
    pulled->reserve = now_ms() - began;
    map_raw(setup, socket, base, pulled);
    pulled->map = now_ms() - began;
    CUDA(cudaMemcpyAsync(local, (const void *)(uintptr_t)base, total(setup), cudaMemcpyDefault, stream));
    CUDA(cudaStreamSynchronize(stream));
    pulled->copy = now_ms() - began - pulled->map;
    pulled->wrong = count_wrong(setup, local);
    CUDA(cudaStreamDestroy(stream));
    DRIVER(driver.unmap(base, total(setup)));
    DRIVER(driver.address_free(base, total(setup)));
    CUDA(cudaFree(local));
}

static void importer_role(int socket) {
    struct pulled pulled = {0};
    struct given given = {0};
    struct setup setup;
    int fd;
    EXPECT(get_file_or_end(socket, &setup, sizeof setup, &fd));
    load_driver();
    CUDA(cudaSetDevice(setup.gpu));
    CUDA(kernels_load());
    put_int(socket, 0);
    get_int(socket);
    if (setup.raw) {
        pull_raw(&setup, fd, &pulled);
        get(fd, &given, sizeof given);
        close(fd);
    } else {
        pull_by_library(&setup, &pulled);
    }
    put(socket, &pulled, sizeof pulled);
    put(socket, &given, sizeof given);
}

/* ---- The test -------------------------------------------------------------------------------------------- */

/* In a process of its own, in which nothing was mapped before. */
static struct pulled measure(const struct child *owner, struct setup setup, struct given *given) {
    struct child importer;
    struct pulled pulled;
    const int order = 0;
    int ends[2];
    setup.gpu = 1;
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    cuda_child_start(&importer, "importer", NULL);
    put_file(importer.socket, &setup, sizeof setup, setup.raw ? ends[0] : -1);
    get_int(importer.socket); /* it is ready */
    if (setup.raw)
        put_file(owner->socket, &order, sizeof order, ends[1]);
    close(ends[0]);
    close(ends[1]);
    put_int(importer.socket, 0);
    get(importer.socket, &pulled, sizeof pulled);
    get(importer.socket, given, sizeof *given);
    child_end(&importer);
    EQUAL(0, pulled.wrong);
    return pulled;
}

static double measure_raw(const struct child *owner, struct setup setup) {
    struct given given;
    setup.raw = true;
    const struct pulled p = measure(owner, setup, &given);
    printf(
        "  driver's calls: map %.1f ms (reserve %.1f, wait %.1f, import %.1f, close %.1f, map %.1f, access %.1f), copy "
        "%.1f ms, in all %.1f ms; the owner's %.1f ms (export %.1f, send %.1f, close %.1f)\n",
        p.map, p.reserve, p.take, p.import, p.close, p.place, p.access, p.copy, p.map + p.copy, given.wall,
        given.export, given.send, given.close);
    return p.map;
}

static double measure_library(const struct child *owner, const struct setup *setup) {
    struct given given;
    const struct pulled p = measure(owner, *setup, &given);
    printf("  library: connect %.1f ms, find %.1f ms, first pull %.1f ms (call %.1f, then %.1f), second %.1f ms\n",
           p.connect, p.find, p.map + p.copy, p.map, p.copy, p.again);
    return p.map;
}

/* Returns whether the library took not much longer than the driver's calls. */
static bool try_shape(enum shape shape, uint32_t chunks) {
    struct setup setup = {.shape = shape, .chunks = chunks};
    struct child owner;
    double registered;
    bool fast = true;
    snprintf(setup.address, sizeof setup.address, "@nvlxfer-cuda-cold-%d-%d", (int)getpid(), (int)shape);
    cuda_child_start(&owner, "owner", NULL);
    put(owner.socket, &setup, sizeof setup);
    get(owner.socket, &registered, sizeof registered);
    printf("%s: %u x %zu MiB; registered in %.1f ms\n", shape_names[shape], chunks, CHUNK / MIB, registered);
    const double library = measure_library(&owner, &setup);
    if (shape != LEGACY)
        fast = library <= MOST * measure_raw(&owner, setup) + MOST_MS;
    child_end(&owner);
    return fast;
}

int main(int argc, char **argv) {
    const struct role roles[] = {{"owner", owner_role_cold}, {"importer", importer_role}, {NULL, NULL}};
    bool fast[SHAPES] = {false};
    begin_process(argc, argv, roles, SECONDS);
    const unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 3;
    const uint32_t chunks = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 410;
    gpus_needed(2);
    for (unsigned long round = 0; round < rounds; round++)
        for (enum shape shape = 0; shape < SHAPES; shape++)
            fast[shape] |= try_shape(shape, chunks);
    for (enum shape shape = 0; shape < SHAPES; shape++)
        if (!fast[shape])
            FAIL("%s: the first pull's call takes more than %.1f times the driver's calls", shape_names[shape], MOST);
    return 0;
}
