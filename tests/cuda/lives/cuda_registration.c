/* Registration on real memory: its speed and the descriptor's size, memory that is freed and allocated again, and
 * memory that is refused (kinds of GPU memory are in cuda_kinds.c).
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/support/cuda_support.h"

#define SEGMENTS      500
#define SEGMENT_BYTES (2 * MIB)
#define REGIONS       100000
#define FEW           15000
#define TRIES         3 /* of each timing: the best counts, as the machine may do other things */

/* ---- Many regions ---------------------------------------------------------------------------------------- */

struct many {
    struct nvlx_engine *engine;
    char *segment[SEGMENTS];
    struct nvlx_region *region[REGIONS];
};

/* Region i of `count`, which share the segments as an allocator would place tensors; the first of each segment first.
 */
static void register_one(struct many *many, int i, int count, bool named) {
    struct nvlx_region_options options;
    char name[64];
    size_t step = SEGMENT_BYTES / (size_t)(count / SEGMENTS) / 512 * 512;
    char *address = many->segment[i % SEGMENTS] + (size_t)(i / SEGMENTS) * step;
    nvlx_region_options_init(&options);
    if (named) {
        snprintf(name, sizeof name, "model.layers.%d.weight", i);
        options.name = name;
    }
    OK(nvlx_register(many->engine, address, step - (size_t)(i % 64), &options, &many->region[i]));
}

static void unregister_all(struct many *many, int count) {
    for (int i = 0; i < count; i++)
        OK(nvlx_unregister(many->region[i], GPU_PATIENCE));
}

static double time_registration(struct many *many, bool named) {
    uint64_t before = engine_info(many->engine).handles_exported;
    double began = now_ms();
    for (int i = 0; i < SEGMENTS; i++)
        register_one(many, i, REGIONS, named);
    double first = now_ms();
    for (int i = SEGMENTS; i < REGIONS; i++)
        register_one(many, i, REGIONS, named);
    double ended = now_ms();
    struct nvlx_engine_info info = engine_info(many->engine);
    EXPECT(info.segments == SEGMENTS);
    EXPECT(info.regions == REGIONS);
    EXPECT(info.handles_exported - before == SEGMENTS);
    unregister_all(many, REGIONS);
    double gone = now_ms();
    EXPECT(engine_info(many->engine).segments == 0);
    printf("registering %d %s regions: %.1f ms, of which the first in each of %d segments %.1f ms; %d handles "
           "exported; unregistering %.1f ms\n",
           REGIONS, named ? "named" : "nameless", ended - began, SEGMENTS, first - began, SEGMENTS, gone - ended);
    return ended - began;
}

static void try_registration(struct many *many) {
    double best = 1e9;
    for (int i = 0; i < TRIES; i++) {
        double ms = time_registration(many, false);
        best = ms < best ? ms : best;
    }
    time_registration(many, true);
    printf("best: %.1f ms\n", best);
    EXPECT(best <= 200); /* seen, on machines of several speeds: 60 to 130 */
}

/* The importer: opens each text it gets, and answers with the milliseconds that took. */
static void importer_role(int socket) {
    const int zero = 0;
    struct nvlx_engine *engine = engine_on(&zero, 1);
    int count;
    while (get_or_end(socket, &count, sizeof count)) {
        size_t length;
        uint64_t address, size;
        char name[64], *text = get_text(socket, &length);
        struct nvlx_peer *peer;
        double began = now_ms();
        OK(nvlx_peer_open(engine, text, length, &peer));
        double ms = now_ms() - began;
        snprintf(name, sizeof name, "model.layers.%d.weight", count - 1);
        OK(nvlx_peer_find(peer, name, &address, &size));
        OK(nvlx_peer_close(peer));
        put(socket, &ms, sizeof ms);
        free(text);
    }
    OK(nvlx_engine_destroy(engine));
}

static void try_descriptor(struct many *many, const struct child *importer, int count, size_t most_bytes,
                           double most_ms) {
    double best = 1e9, ms;
    size_t length;
    char *text;
    for (int i = 0; i < count; i++)
        register_one(many, i, count, true);
    double began = now_ms();
    OK(nvlx_export(many->engine, &text, &length));
    double exported = now_ms() - began;
    for (int i = 0; i < TRIES; i++) {
        put(importer->socket, &count, sizeof count);
        put_text(importer->socket, text, length);
        get(importer->socket, &ms, sizeof ms);
        best = ms < best ? ms : best;
    }
    nvlx_text_free(text);
    unregister_all(many, count);
    printf("descriptor of %d named regions in %d segments: %zu bytes, exported in %.1f ms, opened in %.1f ms\n", count,
           SEGMENTS, length, exported, best);
    EXPECT(length <= most_bytes);
    EXPECT(best <= most_ms);
}

static void try_many(void) {
    const int zero = 0;
    struct child importer;
    struct many *many = calloc(1, sizeof *many);
    EXPECT(many != NULL);
    many->engine = engine_on(&zero, 1);
    for (int i = 0; i < SEGMENTS; i++)
        CUDA(cudaMalloc((void **)&many->segment[i], SEGMENT_BYTES));
    try_registration(many);
    child_start(&importer, "importer");
    try_descriptor(many, &importer, FEW, 2000000, 50);
    try_descriptor(many, &importer, REGIONS, 12000000, 300);
    child_end(&importer);
    OK(nvlx_engine_destroy(many->engine));
    for (int i = 0; i < SEGMENTS; i++)
        CUDA(cudaFree(many->segment[i]));
    free(many);
}

/* ---- Memory that is freed -------------------------------------------------------------------------------- */

#define BLOCK (32 * MIB) /* large enough for a place of its own */
#define WORDS (BLOCK / sizeof(uint32_t))

enum reader_order { READER_OPEN, READER_UPDATE, READER_MISSES };

struct reader_message {
    enum reader_order order;
    uint32_t seed; /* expected content */
    char name[8];
};

static void reader_read(struct nvlx_engine *engine, struct nvlx_peer *peer, const struct reader_message *message,
                        uint32_t *words, unsigned long long *wrong) {
    unsigned long long counted;
    uint64_t address, length;
    OK(nvlx_peer_find(peer, message->name, &address, &length));
    EXPECT(length == BLOCK);
    CUDA(cudaMemset(words, 0xee, BLOCK));
    CUDA(cudaMemset(wrong, 0, sizeof *wrong));
    CUDA(cudaDeviceSynchronize());
    finish(start_op(engine, NVLX_OP_READ, peer, words, address, BLOCK, NULL));
    CUDA(kernel_count(words, WORDS, message->seed, wrong, cudaStreamLegacy));
    CUDA(cudaMemcpy(&counted, wrong, sizeof counted, cudaMemcpyDeviceToHost));
    if (counted)
        FAIL("%llu of %zu words of \"%s\" are not those of seed %u", counted, WORDS, message->name, message->seed);
}

/* Another process that reads what the descriptors say. */
static void reader_role(int socket) {
    const int gpu = get_int(socket);
    struct reader_message message;
    struct nvlx_engine *engine = engine_on(&gpu, 1);
    struct nvlx_peer *peer = NULL;
    struct nvlx_region *region;
    unsigned long long *wrong;
    uint64_t address, length;
    uint32_t *words;
    CUDA(cudaSetDevice(gpu));
    CUDA(cudaMalloc((void **)&words, BLOCK));
    CUDA(cudaMalloc((void **)&wrong, sizeof *wrong));
    OK(nvlx_register(engine, words, BLOCK, NULL, &region));
    while (get_or_end(socket, &message, sizeof message)) {
        size_t size;
        if (message.order == READER_MISSES) {
            REFUSED(nvlx_peer_find(peer, message.name, &address, &length), NVLX_ENOENT, message.name);
        } else {
            char *text = get_text(socket, &size);
            OK(message.order == READER_OPEN ? nvlx_peer_open(engine, text, size, &peer)
                                            : nvlx_peer_update(peer, text, size));
            reader_read(engine, peer, &message, words, wrong);
            free(text);
        }
        put(socket, &message, sizeof message);
    }
    OK(nvlx_engine_destroy(engine));
}

static void order(const struct child *reader, struct nvlx_engine *engine, enum reader_order what, const char *name,
                  uint32_t seed) {
    struct reader_message message = {.order = what, .seed = seed};
    snprintf(message.name, sizeof message.name, "%s", name);
    put(reader->socket, &message, sizeof message);
    if (what != READER_MISSES) {
        char *text;
        size_t length;
        OK(nvlx_export(engine, &text, &length));
        put_text(reader->socket, text, length);
        nvlx_text_free(text);
    }
    get(reader->socket, &message, sizeof message);
}

static struct nvlx_region *register_named(struct nvlx_engine *engine, void *address, size_t length, const char *name) {
    struct nvlx_region_options options;
    struct nvlx_region *region;
    nvlx_region_options_init(&options);
    options.name = name;
    OK(nvlx_register(engine, address, length, &options, &region));
    return region;
}

static uint32_t *filled(uint32_t seed) {
    uint32_t *words;
    CUDA(cudaMalloc((void **)&words, BLOCK));
    CUDA(kernel_produce(words, WORDS, 0, seed, cudaStreamLegacy));
    CUDA(cudaDeviceSynchronize());
    return words;
}

/* Freed and allocated again at the same address: another segment, though every address and size is the old one's. */
static void try_reallocation(struct nvlx_engine *engine, const struct child *reader) {
    uint64_t exported = engine_info(engine).handles_exported;
    uint32_t *words = filled(1);
    struct nvlx_region *old = register_named(engine, words, BLOCK, "old");
    order(reader, engine, READER_OPEN, "old", 1);
    CUDA(cudaFree(words));
    uint32_t *again = filled(2);
    if (again != words)
        FAIL("cudaMalloc gave %p after %p was freed: the case could not be made", (void *)again, (void *)words);
    struct nvlx_region *new = register_named(engine, again, BLOCK, "new");
    EXPECT(engine_info(engine).handles_exported == exported + 2);
    EXPECT(engine_info(engine).segments == 2);
    order(reader, engine, READER_UPDATE, "new", 2);
    order(reader, engine, READER_MISSES, "old", 0);
    OK(nvlx_unregister(old, GPU_PATIENCE));
    EXPECT(engine_info(engine).segments == 1);
    order(reader, engine, READER_UPDATE, "new", 2);
    OK(nvlx_unregister(new, GPU_PATIENCE));
    EXPECT(engine_info(engine).segments == 0);
    CUDA(cudaFree(again));
    printf("freed and allocated again at the same address: a new handle, the new bytes, the old segment left out\n");
}

/* Freed and not allocated again: export leaves it out, its neighbours stay, and unregistering works. */
static void try_freed(struct nvlx_engine *engine, const struct child *reader) {
    uint32_t *kept = filled(3), *gone = filled(4);
    struct nvlx_region *kept_region = register_named(engine, kept, BLOCK, "kept");
    struct nvlx_region *gone_region = register_named(engine, gone, BLOCK, "gone");
    CUDA(cudaFree(gone));
    struct nvlx_region *part = register_named(engine, kept, BLOCK / 2, "part");
    order(reader, engine, READER_UPDATE, "kept", 3);
    order(reader, engine, READER_MISSES, "gone", 0);
    OK(nvlx_unregister(gone_region, GPU_PATIENCE));
    OK(nvlx_unregister(part, GPU_PATIENCE));
    order(reader, engine, READER_UPDATE, "kept", 3);
    OK(nvlx_unregister(kept_region, GPU_PATIENCE));
    CUDA(cudaFree(kept));
    printf("freed while registered: left out of the descriptor, unregistered afterwards, its neighbour unharmed\n");
}

/* ---- Memory that cannot be shared ------------------------------------------------------------------------ */

static void refuse(struct nvlx_engine *engine, const void *address, const char *kind, const char *remedy) {
    struct nvlx_region *region;
    REFUSED(nvlx_register(engine, address, 4096, NULL, &region), NVLX_ENOTSUP, kind);
    EXPECT(strstr(nvlx_last_error(), remedy) != NULL);
    printf("refused: %s\n", nvlx_last_error());
}

static void try_host_memory(struct nvlx_engine *engine) {
    void *plain = malloc(4096), *pinned;
    EXPECT(plain != NULL);
    refuse(engine, plain, "host", "use cudaMalloc or nvlx_alloc");
    free(plain);
    CUDA(cudaMallocHost(&pinned, 4096));
    refuse(engine, pinned, "pinned host memory", "NVLX_ACCESS_NONE");
    CUDA(cudaFreeHost(pinned));
}

/* Memory of another process, which cannot be passed on: by a handle that this process has opened itself. */
static void try_peers_memory(struct nvlx_engine *engine) {
    struct cuda_owner owner;
    char *mapped;
    cuda_owner_start(&owner, 0, 1, 2 * MIB, NULL);
    CUDA(cudaIpcOpenMemHandle((void **)&mapped, cuda_owner_handle(&owner), cudaIpcMemLazyEnablePeerAccess));
    refuse(engine, mapped + 4096, "another process", "");
    CUDA(cudaIpcCloseMemHandle(mapped));
    cuda_owner_end(&owner);
}

static void try_range(struct nvlx_engine *engine) {
    struct nvlx_region *region;
    char *memory, length[32];
    CUDA(cudaMalloc((void **)&memory, 2 * MIB));
    snprintf(length, sizeof length, "%zu bytes", 2 * MIB - 511);
    REFUSED(nvlx_register(engine, memory + 512, 2 * MIB - 511, NULL, &region), NVLX_ERANGE, length);
    printf("refused: %s\n", nvlx_last_error());
    CUDA(cudaFree(memory));
}

static void try_kinds(struct nvlx_engine *engine) {
    try_host_memory(engine);
    try_peers_memory(engine);
    try_range(engine);
    EXPECT(engine_info(engine).segments == 0);
    EXPECT(engine_info(engine).regions == 0);
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE, {"importer", importer_role}, {"reader", reader_role}, {NULL, NULL}};
    const int zero = 0;
    struct child reader;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    gpus_needed(1);
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    try_many();
    struct nvlx_engine *engine = engine_on(&zero, 1);
    child_start(&reader, "reader");
    put_int(reader.socket, gpus_needed(1) - 1);
    try_reallocation(engine, &reader);
    try_freed(engine, &reader);
    child_end(&reader);
    try_kinds(engine);
    OK(nvlx_engine_destroy(engine));
    return 0;
}
