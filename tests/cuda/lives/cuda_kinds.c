/* Kinds of GPU memory in one process: chunks as PyTorch's expandable segments map them, pools, what nvlx_alloc makes of
 * each kind, and what is refused with which remedy.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/support/cuda_chunks.h"
#include "cuda/support/cuda_support.h"

#define CHUNK       (20 * MIB)
#define CHUNKS      4
#define RESERVATION (1024 * MIB)
#define WORD        sizeof(uint32_t)

static struct nvlx_region *register_at(struct nvlx_engine *engine, uint64_t address, size_t length, const char *name) {
    struct nvlx_region_options options;
    struct nvlx_region *region;
    nvlx_region_options_init(&options);
    options.name = name;
    OK(nvlx_register(engine, (const void *)(uintptr_t)address, length, &options, &region));
    return region;
}

static void unregister(struct nvlx_region *region) {
    OK(nvlx_unregister(region, GPU_PATIENCE));
}

static void refuse(struct nvlx_engine *engine, uint64_t address, const char *kind, const char *remedy) {
    struct nvlx_region *region;
    REFUSED(nvlx_register(engine, (const void *)(uintptr_t)address, 4096, NULL, &region), NVLX_ENOTSUP, kind);
    if (!strstr(nvlx_last_error(), remedy))
        FAIL("the message does not say \"%s\": %s", remedy, nvlx_last_error());
    printf("refused: %s\n", nvlx_last_error());
}

/* ---- Chunks ---------------------------------------------------------------------------------------------- */

/* A reservation. Chunks at its start have memory. */
struct expandable {
    CUdeviceptr base;
    CUmemGenericAllocationHandle handle[CHUNKS];
    int chunks;
};

static void map_chunk(const struct expandable *expandable, int chunk) {
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    const CUdeviceptr at = expandable->base + (size_t)chunk * CHUNK;
    DRIVER(driver.map(at, CHUNK, 0, expandable->handle[chunk], 0));
    DRIVER(driver.set_access(at, CHUNK, &access, 1));
}

static void unmap_chunk(const struct expandable *expandable, int chunk) {
    DRIVER(driver.unmap(expandable->base + (size_t)chunk * CHUNK, CHUNK));
}

static void expand(struct expandable *expandable, int chunks, CUmemAllocationHandleType type) {
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .requestedHandleTypes = type,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    expandable->chunks = chunks;
    DRIVER(driver.reserve(&expandable->base, RESERVATION, 0, 0, 0));
    for (int i = 0; i < chunks; i++) {
        DRIVER(driver.create(&expandable->handle[i], CHUNK, &properties, 0));
        map_chunk(expandable, i);
    }
}

static void shrink(const struct expandable *expandable) {
    for (int i = 0; i < expandable->chunks; i++) {
        unmap_chunk(expandable, i);
        DRIVER(driver.release(expandable->handle[i]));
    }
    DRIVER(driver.address_free(expandable->base, RESERVATION));
}

/* One region lies in as many segments as it has chunks; a segment goes with the last region in it. */
static void try_borders(struct nvlx_engine *engine, uint64_t base) {
    struct nvlx_region *inside = register_at(engine, base + 512, CHUNK - 512, NULL);
    EXPECT(engine_info(engine).segments == 1);
    struct nvlx_region *across = register_at(engine, base + 8 * MIB, 2 * CHUNK + 512, NULL);
    EXPECT(engine_info(engine).segments == 3);
    struct nvlx_region *all = register_at(engine, base, CHUNKS * CHUNK, NULL);
    EXPECT(engine_info(engine).segments == CHUNKS);
    EXPECT(engine_info(engine).regions == 3);
    unregister(all);
    EXPECT(engine_info(engine).segments == 3);
    unregister(inside);
    EXPECT(engine_info(engine).segments == 3);
    unregister(across);
    EXPECT(engine_info(engine).segments == 0);
    printf("registered inside a chunk of %zu bytes, across two borders, and all %d\n", CHUNK, CHUNKS);
}

static void try_hole(struct nvlx_engine *engine, uint64_t base) {
    struct nvlx_region *region;
    refuse(engine, base + CHUNKS * CHUNK, "nothing is mapped", "use cudaMalloc or nvlx_alloc");
    refuse(engine, base + RESERVATION / 2 + 512, "nothing is mapped", "use cudaMalloc or nvlx_alloc");
    int code = nvlx_register(engine, (const void *)(uintptr_t)(base + 512), CHUNKS * CHUNK, NULL, &region);
    EXPECT(code == NVLX_ERANGE || code == NVLX_ENOTSUP);
    printf("refused: %s\n", nvlx_last_error());
    EXPECT(engine_info(engine).segments == 0);
}

/* The process reads its own region, which begins in one chunk and ends in the next but one, at an odd place. */
static void try_bytes(struct nvlx_engine *engine, uint64_t base) {
    const uint64_t from = base + 8 * MIB + 512;
    const size_t length = 2 * CHUNK, words = length / WORD;
    unsigned long long *wrong, counted;
    struct nvlx_peer *self;
    uint64_t address, size;
    uint32_t *into;
    size_t text_length;
    char *text;
    CUDA(cudaMalloc((void **)&into, length));
    CUDA(cudaMalloc((void **)&wrong, sizeof *wrong));
    CUDA(cudaMemset(wrong, 0, sizeof *wrong));
    CUDA(cudaMemset(into, 0xee, length));
    CUDA(kernel_produce((uint32_t *)(uintptr_t)from, words, 0, 7, cudaStreamLegacy));
    CUDA(cudaDeviceSynchronize());
    struct nvlx_region *source = register_at(engine, from, length, "across");
    struct nvlx_region *destination = register_at(engine, (uintptr_t)into, length, NULL);
    OK(nvlx_export(engine, &text, &text_length));
    OK(nvlx_peer_open(engine, text, text_length, &self));
    nvlx_text_free(text);
    OK(nvlx_peer_find(self, "across", &address, &size));
    EXPECT(address == from && size == length);
    finish(start_op(engine, NVLX_OP_READ, self, into, address, length, NULL));
    CUDA(kernel_count(into, words, 7, wrong, cudaStreamLegacy));
    CUDA(cudaMemcpy(&counted, wrong, sizeof counted, cudaMemcpyDeviceToHost));
    if (counted)
        FAIL("%llu of %zu words are wrong", counted, words);
    OK(nvlx_peer_close(self));
    unregister(source);
    unregister(destination);
    CUDA(cudaFree(into));
    CUDA(cudaFree(wrong));
    printf("%zu bytes that lie in three chunks were copied\n", length);
}

/* The same chunk at the same address, but mapped again: another segment, as another's memory might be there as well. */
static void try_mapped_again(struct nvlx_engine *engine, const struct expandable *expandable) {
    struct nvlx_region *old = register_at(engine, expandable->base, CHUNK, "old");
    unmap_chunk(expandable, 0);
    map_chunk(expandable, 0);
    struct nvlx_region *new = register_at(engine, expandable->base, CHUNK, "new");
    EXPECT(engine_info(engine).segments == 2);
    unregister(old);
    EXPECT(engine_info(engine).segments == 1);
    unregister(new);
    printf("a chunk that was unmapped and mapped again is another segment\n");
}

static void try_chunks(struct nvlx_engine *engine) {
    struct expandable expandable;
    expand(&expandable, CHUNKS, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    try_hole(engine, expandable.base);
    try_mapped_again(engine, &expandable);
    try_borders(engine, expandable.base);
    try_bytes(engine, expandable.base);
    shrink(&expandable);
    refuse(engine, expandable.base, "nothing is mapped", "use cudaMalloc or nvlx_alloc");
}

static void try_chunks_without_type(struct nvlx_engine *engine) {
    struct expandable expandable;
    expand(&expandable, 1, CU_MEM_HANDLE_TYPE_NONE);
    refuse(engine, expandable.base + 512, "without a handle type", "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR");
    refuse(engine, expandable.base, "virtual-memory-managed", "expandable_segments, cudaMalloc or nvlx_alloc");
    shrink(&expandable);
}

/* ---- Pools ----------------------------------------------------------------------------------------------- */

static char *alloc_in(cudaMemPool_t pool, size_t length, cudaStream_t stream) {
    void *made;
    CUDA(pool ? cudaMallocFromPoolAsync(&made, length, pool, stream) : cudaMallocAsync(&made, length, stream));
    CUDA(cudaStreamSynchronize(stream));
    return made;
}

static void free_in_order(void *address, cudaStream_t stream) {
    CUDA(cudaFreeAsync(address, stream));
    CUDA(cudaStreamSynchronize(stream));
}

static void try_default_pool(struct nvlx_engine *engine, cudaStream_t stream) {
    char *memory = alloc_in(NULL, MIB, stream);
    refuse(engine, (uintptr_t)memory, "cudaMallocAsync", "handleTypes cudaMemHandleTypePosixFileDescriptor");
    refuse(engine, (uintptr_t)memory, "cannot be shared", "instead of backend:cudaMallocAsync");
    free_in_order(memory, stream);
}

/* Each allocation is a segment. Freed and allocated again, it is another one. */
static void try_shareable_pool(struct nvlx_engine *engine, cudaStream_t stream) {
    const struct cudaMemPoolProps properties = {.allocType = cudaMemAllocationTypePinned,
                                                .handleTypes = cudaMemHandleTypePosixFileDescriptor,
                                                .location = {.type = cudaMemLocationTypeDevice}};
    struct nvlx_region *refused;
    cudaMemPool_t pool;
    CUDA(cudaMemPoolCreate(&pool, &properties));
    char *one = alloc_in(pool, 2 * MIB, stream), *two = alloc_in(pool, 2 * MIB, stream);
    struct nvlx_region *in_one = register_at(engine, (uintptr_t)one + 512, MIB, NULL);
    struct nvlx_region *in_two = register_at(engine, (uintptr_t)two, 2 * MIB, NULL);
    EXPECT(engine_info(engine).segments == 2);
    REFUSED(nvlx_register(engine, one, 64 * MIB, NULL, &refused), NVLX_ERANGE, "beyond");
    unregister(in_one);
    free_in_order(two, stream);
    char *again = alloc_in(pool, 2 * MIB, stream);
    if (again != two)
        FAIL("the pool gave %p after %p was freed: the case could not be made", (void *)again, (void *)two);
    in_one = register_at(engine, (uintptr_t)again, MIB, NULL);
    EXPECT(engine_info(engine).segments == 2);
    unregister(in_one);
    unregister(in_two);
    EXPECT(engine_info(engine).segments == 0);
    free_in_order(one, stream);
    free_in_order(again, stream);
    CUDA(cudaMemPoolDestroy(pool));
    printf("memory of a pool that can be shared was registered\n");
}

static void try_pools(struct nvlx_engine *engine) {
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    try_default_pool(engine, stream);
    try_shareable_pool(engine, stream);
    CUDA(cudaStreamDestroy(stream));
}

/* ---- Memory that no GPU has for itself --------------------------------------------------------------------- */

static void try_other_memory(struct nvlx_engine *engine) {
    void *memory;
    CUDA(cudaMallocManaged(&memory, MIB, cudaMemAttachGlobal));
    refuse(engine, (uintptr_t)memory, "managed memory", "use cudaMalloc or nvlx_alloc");
    CUDA(cudaFree(memory));
    CUDA(cudaMallocHost(&memory, MIB));
    refuse(engine, (uintptr_t)memory, "pinned host memory", "NVLX_ACCESS_NONE");
    CUDA(cudaFreeHost(memory));
}

/* ---- What nvlx_alloc makes ------------------------------------------------------------------------------- */

static void *alloc_kind(struct nvlx_engine *engine, uint32_t flags, size_t length, size_t chunk) {
    struct nvlx_alloc_options options;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    options.chunk_length = chunk;
    OK(nvlx_alloc(engine, 0, length, &options, &address));
    return address;
}

/* `segments`: that the memory consists of. */
static void try_alloc(struct nvlx_engine *engine, uint32_t flags, size_t length, size_t chunk, uint64_t segments) {
    uint8_t first = 1, last = 2, got_first = 0, got_last = 0;
    char *memory = alloc_kind(engine, flags, length, chunk);
    struct nvlx_region *region = register_at(engine, (uintptr_t)memory, length, NULL);
    EXPECT(engine_info(engine).segments == segments);
    OK(nvlx_memcpy(engine, memory, &first, 1));
    OK(nvlx_memcpy(engine, memory + length - 1, &last, 1));
    OK(nvlx_memcpy(engine, &got_first, memory, 1));
    OK(nvlx_memcpy(engine, &got_last, memory + length - 1, 1));
    EXPECT(got_first == first && got_last == last);
    unregister(region);
    OK(nvlx_free(engine, memory));
    REFUSED(nvlx_free(engine, memory), NVLX_EINVAL, "freed before");
    printf("nvlx_alloc with flags %u: %zu bytes in %d segments\n", flags, length, (int)segments);
}

/* Freed memory goes back to the GPU, chunk by chunk. */
static void try_alloc_again(struct nvlx_engine *engine, uint32_t flags, size_t chunk) {
    size_t before, after, total;
    OK(nvlx_free(engine, alloc_kind(engine, flags, 512 * MIB, chunk)));
    CUDA(cudaMemGetInfo(&before, &total));
    for (int i = 0; i < 4; i++)
        OK(nvlx_free(engine, alloc_kind(engine, flags, 512 * MIB, chunk)));
    CUDA(cudaMemGetInfo(&after, &total));
    if (after + 256 * MIB < before)
        FAIL("%zu bytes were free before, %zu are after", before, after);
}

static void try_allocs(void) {
    const int zero = 0;
    struct nvlx_engine *engine = engine_on(&zero, 1);
    try_alloc(engine, NVLX_ALLOC_VMM, 3 * MIB + 5, 0, 1);
    try_alloc(engine, NVLX_ALLOC_VMM, 5 * MIB + 5, 2 * MIB, 3);
    try_alloc(engine, NVLX_ALLOC_VMM, 5 * MIB, 1, 3);
    try_alloc(engine, NVLX_ALLOC_POOL, 3 * MIB + 5, 0, 1);
    try_alloc_again(engine, NVLX_ALLOC_VMM, 64 * MIB);
    try_alloc_again(engine, NVLX_ALLOC_POOL, 0);
    alloc_kind(engine, NVLX_ALLOC_VMM, MIB, 0);
    alloc_kind(engine, NVLX_ALLOC_POOL, MIB, 0);
    OK(nvlx_engine_destroy(engine)); /* frees what is left */
}

int main(int argc, char **argv) {
    const struct role roles[] = {{NULL, NULL}};
    const int zero = 0;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    gpus_needed(1);
    CUDA(cudaSetDevice(0));
    CUDA(kernels_load());
    load_driver();
    struct nvlx_engine *engine = engine_on(&zero, 1);
    try_other_memory(engine);
    try_chunks_without_type(engine);
    try_pools(engine);
    EXPECT(engine_info(engine).segments == 0);
    EXPECT(engine_info(engine).regions == 0);
    try_chunks(engine);
    OK(nvlx_engine_destroy(engine));
    try_allocs();
    return 0;
}
