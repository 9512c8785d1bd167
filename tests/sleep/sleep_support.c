/* An owner whose memory sleeps: what the tests of it share. SPDX-License-Identifier: Apache-2.0 */
#include "sleep_support.h"

#include "rendezvous_support.h"

struct nvlx_engine *owner;
char *memory, *rest;
struct nvlx_region *weights;

char *chunks(uint32_t seed) {
    struct nvlx_alloc_options options;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = CHUNK;
    OK(nvlx_alloc(owner, 0, 2 * CHUNK, &options, &address));
    fill(owner, (char *)address + INNER, SIZE, seed);
    return (char *)address + INNER;
}

void free_chunks(char *inner) {
    OK(nvlx_free(owner, inner - INNER));
}

struct nvlxi_host_block *drop_chunks(void) {
    struct nvlxi_host_block *asleep = nvlxi_host_put_to_sleep(memory - INNER);
    EXPECT(asleep != NULL);
    return asleep;
}

void begin(void) {
    owner = make_engine(0);
    memory = chunks(1);
    rest = allocate(owner, 0, SIZE, 77);
    weights = register_range(owner, memory, SIZE, "weights", NVLX_ACCESS_READ);
    register_range(owner, rest, SIZE, "rest", NVLX_ACCESS_READ);
    OK(nvlx_serve(owner, own_path(), NULL));
}

void end(void) {
    OK(nvlx_engine_destroy(owner));
}

uint64_t published(void) {
    uint64_t generation;
    OK(nvlx_publish(owner, &generation));
    return generation;
}

void replace_chunks(uint32_t seed) {
    OK(nvlxi_host_wake(drop_chunks()));
    fill(owner, memory, SIZE, seed);
}
