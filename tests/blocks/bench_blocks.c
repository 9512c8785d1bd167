/* What the library itself costs a transfer of blocks by id, in instructions: without what the backend does for it.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The program runs itself under callgrind, which counts nvlx_blocks_transfer except for the functions of the host
 * backend that it calls. Random blocks are read by ids of 4 and of 8 bytes: as many as an engine pulls for 10,000
 * tokens, and more. The line "N instructions a call, M an id" tells; more than the limits fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "callgrind.h"
#include "remote/mapping.h"
#include "remote/peer.h"
#include "support.h"

#define REGIONS 4
#define FEW     625
#define MANY    2000
#define BLOCKS  2048
#define BYTES   4u
#define SIZE    ((size_t)REGIONS * BLOCKS * BYTES)
#define CALLS   8

/* Of a call with few ids; of each id, by two calls. */
#define CALL_LIMIT 16000
#define ID_LIMIT   18

static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static char *memory[2]; /* the local side, and the peer's */
static uint64_t wide[2][BLOCKS];
static uint32_t narrow[2][BLOCKS];

/* This process, by its own descriptor, which is then called another one: valgrind starts no others. */
static void open_own_peer(void) {
    struct nvlxi_mapping *mapping, *next;
    char *text;
    size_t length;
    OK(nvlx_export(engine, &text, &length));
    peer = open_peer(engine, text);
    OK(nvlx_peer_map(peer, 0, (uint64_t)(uintptr_t)memory[1], SIZE));
    peer->same_process = false;
    HASH_ITER(hh, peer->mappings, mapping, next)
    mapping->own_count = 0;
    nvlx_text_free(text);
}

static struct nvlx_blocks *make_tables(void) {
    static struct nvlx_block_region local[REGIONS], remote[REGIONS];
    struct nvlx_blocks_options options;
    struct nvlx_blocks *blocks;
    for (size_t i = 0; i < REGIONS; i++) {
        local[i] = (struct nvlx_block_region){.base = (uint64_t)(uintptr_t)memory[0] + i * BLOCKS * BYTES,
                                              .stride = BYTES,
                                              .length = BYTES,
                                              .blocks = BLOCKS};
        remote[i] = local[i];
        remote[i].base = (uint64_t)(uintptr_t)memory[1] + i * BLOCKS * BYTES;
    }
    nvlx_blocks_options_init(&options);
    options.access = NVLX_ACCESS_READ;
    OK(nvlx_blocks_create(engine, peer, local, remote, REGIONS, &options, &blocks));
    return blocks;
}

static void choose_ids(void) {
    uint64_t state = 1;
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < BLOCKS; i++) {
            const uint32_t other = next_random(&state) % (i + 1);
            narrow[side][i] = narrow[side][other];
            narrow[side][other] = i;
        }
        for (uint32_t i = 0; i < BLOCKS; i++)
            wide[side][i] = narrow[side][i];
    }
}

static double transfer(struct nvlx_blocks *blocks, size_t count, uint32_t width) {
    struct nvlx_block_ids ids;
    struct nvlx_request *request;
    nvlx_block_ids_init(&ids);
    ids.opcode = NVLX_OP_READ;
    ids.width = width;
    ids.count = count;
    ids.local = width == sizeof **narrow ? (const void *)narrow[0] : wide[0];
    ids.remote = width == sizeof **narrow ? (const void *)narrow[1] : wide[1];
    const double since = now_ms();
    OK(nvlx_blocks_transfer(blocks, &ids, NULL, &request));
    const double took = now_ms() - since;
    finish(request);
    return took;
}

static int run(size_t count, uint32_t width, int calls) {
    double best = 1e9;
    engine = make_engine(0);
    for (int i = 0; i < 2; i++) {
        memory[i] = allocate(engine, 0, SIZE, 1);
        register_range(engine, memory[i], SIZE, NULL, NVLX_ACCESS_READ_WRITE);
    }
    open_own_peer();
    struct nvlx_blocks *blocks = make_tables();
    choose_ids();
    for (int i = 0; i < calls; i++) {
        const double took = transfer(blocks, count, width);
        best = took < best ? took : best;
    }
    printf("%zu ids: %.1f us a call, with what the backend does\n", count, 1e3 * best);
    OK(nvlx_blocks_free(blocks));
    OK(nvlx_engine_destroy(engine));
    return 0;
}

/* The instructions of a call. The first makes what the others find: it counts as one of many. */
static double count_call(size_t count, uint32_t width) {
    char arguments[64];
    snprintf(arguments, sizeof arguments, "%zu %u %d", count, width, CALLS);
    return callgrind_count("nvlx_blocks_transfer nvlxi_host_copy_blocks nvlxi_host_event_record", arguments) / CALLS;
}

static int measure(uint32_t width) {
    const double few = count_call(FEW, width), many = count_call(MANY, width);
    if (few <= 0 || many <= few) {
        fprintf(stderr, "bench_blocks: callgrind gave no counts\n");
        return 1;
    }
    const double each = (many - few) / (MANY - FEW);
    printf("ids of %u bytes: %.0f instructions a call with %d ids, %.1f an id\n", width, few, FEW, each);
    return few <= CALL_LIMIT && each <= ID_LIMIT ? 0 : 1;
}

/* Without arguments, all; else how many ids, of how many bytes, in how many calls. */
int main(int argc, char **argv) {
    setenv("NVLX_BACKEND", "host", 1);
    begin_process(argc, argv, NULL, 230);
    if (argc > 3)
        return run((size_t)strtoull(argv[1], NULL, 10), (uint32_t)strtoul(argv[2], NULL, 10), atoi(argv[3]));
    if (!callgrind_is_here())
        return 77;
    fflush(stdout);
    return measure(sizeof **narrow) | measure(sizeof **wide);
}
