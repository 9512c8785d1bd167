/* A paged KV cache goes from four prefill processes to two decode processes, by block ids.
 *
 * The model is split by heads: each prefill process has a quarter of the heads of every block, each decode process half
 * of them. So each block of a decode process is put together from two others', and block ids differ on both sides, as
 * two schedulers have given them out. A cache has K and V of each layer apart: [layer][K,
 * V][block][head][token][value].
 *
 *     prefill 0, 1  ->  decode 0        each decode process reads from two others, and tells them by a message when a
 *     prefill 2, 3  ->  decode 1        request's blocks may be used again. It compares every value of its cache.
 *
 * It uses only the public header. Exit: 0 all values are right, 1 some are not, or it could not run.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <nvlxfer.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PREFILLS = 4, DECODES = 2, EACH = PREFILLS / DECODES };                  /* processes */
enum { LAYERS = 4, REGIONS = 2 * LAYERS, HEADS = 8, TOKENS = 16, VALUES = 32 }; /* the model, and tokens of a block */
enum { REQUESTS = 12, BLOCKS = 64, MOST = 5 }; /* blocks of a cache, and of a request at most */
enum { HEAD = TOKENS * VALUES };               /* values of a head, in a block */

static const uint32_t unused = 0xeeeeeeee; /* what no request has written */

static struct request { /* as the router knows it */
    uint32_t tokens, blocks;
    uint32_t prefill[MOST], decode[MOST]; /* ids: the same for all processes of a side */
} requests[REQUESTS];

static void check(int code, const char *what) {
    if (code) {
        fprintf(stderr, "kv_blocks: %s: %s: %s\n", what, nvlx_strerror(code), nvlx_last_error());
        exit(1);
    }
}

static uint32_t next_random(void) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* All ids in an order of their own. */
static void shuffle(uint32_t ids[BLOCKS]) {
    for (uint32_t i = 0; i < BLOCKS; i++)
        ids[i] = i;
    for (uint32_t i = BLOCKS; i-- > 1;) {
        const uint32_t other = next_random() % (i + 1), id = ids[i];
        ids[i] = ids[other];
        ids[other] = id;
    }
}

static void make_requests(void) {
    uint32_t prefill[BLOCKS], decode[BLOCKS], given = 0;
    shuffle(prefill);
    shuffle(decode);
    for (struct request *r = requests; r < requests + REQUESTS; r++) {
        r->tokens = 1 + next_random() % (MOST * TOKENS);
        r->blocks = (r->tokens + TOKENS - 1) / TOKENS;
        memcpy(r->prefill, prefill + given, r->blocks * sizeof *prefill);
        memcpy(r->decode, decode + given, r->blocks * sizeof *decode);
        given += r->blocks;
    }
}

/* ---- A cache ------------------------------------------------------------------------------------------ */

struct cache {
    struct nvlx_engine *engine;
    char *memory;
    uint32_t *values; /* all of it, in host memory */
    uint32_t first_head, heads;
};

static size_t block_values(const struct cache *cache) {
    return (size_t)cache->heads * HEAD;
}

static size_t cache_bytes(const struct cache *cache) {
    return REGIONS * BLOCKS * block_values(cache) * sizeof *cache->values;
}

/* What the model computes: each value of each request is another. */
static uint32_t value_of(size_t request, size_t region, size_t token, size_t head, size_t value) {
    return (uint32_t)((((request * REGIONS + region) * MOST * TOKENS + token) * HEADS + head) * VALUES + value);
}

/* Writes a request's tokens where they belong in a cache. */
static void compute(struct cache *cache, size_t number, const uint32_t *ids) {
    for (size_t region = 0; region < REGIONS; region++)
        for (size_t token = 0; token < requests[number].tokens; token++)
            for (size_t head = 0; head < cache->heads; head++) {
                const size_t block = region * BLOCKS + ids[token / TOKENS];
                uint32_t *to = cache->values + block * block_values(cache) + head * HEAD + token % TOKENS * VALUES;
                for (size_t i = 0; i < VALUES; i++)
                    to[i] = value_of(number, region, token, cache->first_head + head, i);
            }
}

/* An empty cache of process `rank` of so many, on a GPU of its own if there are enough. */
static void make_cache(struct cache *cache, int gpu, uint32_t rank, uint32_t ranks, const char *name) {
    struct nvlx_region *region; /* freed with the engine */
    struct nvlx_region_options options;
    struct nvlx_config config;
    int gpus;
    check(nvlx_gpu_count(NVLX_BACKEND_AUTO, &gpus), "nvlx_gpu_count");
    gpu %= gpus;
    nvlx_config_init(&config);
    config.gpus = &gpu;
    config.gpu_count = 1;
    check(nvlx_engine_create(&config, &cache->engine), "nvlx_engine_create");
    cache->heads = HEADS / ranks;
    cache->first_head = rank * cache->heads;
    if (!(cache->values = malloc(cache_bytes(cache))))
        exit(1);
    for (size_t i = 0; i < cache_bytes(cache) / sizeof unused; i++)
        cache->values[i] = unused;
    check(nvlx_alloc(cache->engine, gpu, cache_bytes(cache), NULL, (void **)&cache->memory), "nvlx_alloc");
    nvlx_region_options_init(&options);
    options.name = name;
    options.access = name ? NVLX_ACCESS_READ : NVLX_ACCESS_NONE;
    check(nvlx_register(cache->engine, cache->memory, cache_bytes(cache), &options, &region), "nvlx_register");
}

/* ---- Prefill ------------------------------------------------------------------------------------------ */

/* Gives the blocks of each request back that a message names; returns how many are left. */
static size_t give_back(struct nvlx_engine *engine, bool held[REQUESTS], size_t left) {
    struct nvlx_event event = {.size = sizeof event};
    uint32_t number;
    while (!nvlx_next_event(engine, &event)) {
        if (event.kind != NVLX_EVENT_MESSAGE)
            continue;
        memcpy(&number, event.message, sizeof number);
        left -= held[number];
        held[number] = false;
    }
    return left;
}

/* `readers` hangs up when all decode processes have ended. */
static int prefill(uint32_t rank, const char *address, int readers) {
    struct pollfd from[2] = {{.events = POLLIN}, {.fd = readers}};
    struct cache cache;
    bool held[REQUESTS];
    size_t left = REQUESTS;
    make_cache(&cache, (int)rank, rank, PREFILLS, "kv");
    for (size_t i = 0; i < REQUESTS; i++)
        compute(&cache, i, requests[i].prefill);
    check(nvlx_memcpy(cache.engine, cache.memory, cache.values, cache_bytes(&cache)), "nvlx_memcpy");
    check(nvlx_serve(cache.engine, address, NULL), "nvlx_serve");
    check(nvlx_event_fd(cache.engine, &from[0].fd), "nvlx_event_fd");
    memset(held, true, sizeof held);
    while (!from[1].revents) {
        poll(from, 2, -1);
        left = give_back(cache.engine, held, left);
    }
    check(nvlx_engine_destroy(cache.engine), "nvlx_engine_destroy");
    free(cache.values);
    return left ? 1 : 0;
}

/* ---- Decode ------------------------------------------------------------------------------------------- */

/* Tables of K and V of each layer: all of a block there is one of EACH parts of a block here. */
static struct nvlx_blocks *make_tables(const struct cache *cache, struct nvlx_peer *peer, uint32_t part) {
    struct nvlx_block_region here[REGIONS], there[REGIONS];
    struct nvlx_blocks *blocks;
    const uint64_t block = block_values(cache) * sizeof *cache->values, slice = block / EACH;
    uint64_t remote, length;
    check(nvlx_peer_find(peer, "kv", &remote, &length), "nvlx_peer_find");
    for (size_t i = 0; i < REGIONS; i++) {
        here[i] = (struct nvlx_block_region){.base = (uint64_t)(uintptr_t)cache->memory + i * BLOCKS * block,
                                             .stride = block,
                                             .offset = part * slice,
                                             .length = slice,
                                             .blocks = BLOCKS};
        there[i] = (struct nvlx_block_region){
            .base = remote + i * BLOCKS * slice, .stride = slice, .length = slice, .blocks = BLOCKS};
    }
    check(nvlx_blocks_create(cache->engine, peer, here, there, REGIONS, NULL, &blocks), "nvlx_blocks_create");
    return blocks;
}

static struct nvlx_request *read_request(struct nvlx_blocks *blocks, uint32_t number) {
    struct nvlx_transfer_options options;
    struct nvlx_block_ids ids;
    struct nvlx_request *request;
    nvlx_block_ids_init(&ids);
    ids.local = requests[number].decode;
    ids.remote = requests[number].prefill;
    ids.count = requests[number].blocks;
    nvlx_transfer_options_init(&options);
    options.message = &number; /* to the other process, when all has been read */
    options.message_length = sizeof number;
    check(nvlx_blocks_transfer(blocks, &ids, &options, &request), "nvlx_blocks_transfer");
    return request;
}

/* Compares every value that a token has, and every block that no request has. */
static int compare(struct cache *cache, uint32_t rank) {
    size_t right = 0, all = 0;
    uint32_t *seen = malloc(cache_bytes(cache));
    if (!seen)
        return 1;
    check(nvlx_memcpy(cache->engine, seen, cache->memory, cache_bytes(cache)), "nvlx_memcpy");
    for (size_t i = 0; i < REQUESTS; i++)
        compute(cache, i, requests[i].decode);
    for (size_t i = 0; i < cache_bytes(cache) / sizeof *seen; i++, all++)
        right += seen[i] == cache->values[i];
    free(seen);
    printf("decode %" PRIu32 ": %d requests, %zu of %zu values are right\n", rank, REQUESTS, right, all);
    return right == all ? 0 : 1;
}

static int decode(uint32_t rank, char addresses[PREFILLS][40]) {
    struct cache cache;
    struct nvlx_peer *peer[EACH];
    struct nvlx_blocks *blocks[EACH];
    struct nvlx_request *reads[EACH][REQUESTS];
    make_cache(&cache, (int)(PREFILLS + rank), rank, DECODES, NULL);
    check(nvlx_memcpy(cache.engine, cache.memory, cache.values, cache_bytes(&cache)), "nvlx_memcpy");
    for (uint32_t i = 0; i < EACH; i++) {
        check(nvlx_connect(cache.engine, addresses[rank * EACH + i], 60000000000, &peer[i]), "nvlx_connect");
        blocks[i] = make_tables(&cache, peer[i], i);
    }
    for (uint32_t number = 0; number < REQUESTS; number++)
        for (uint32_t i = 0; i < EACH; i++)
            reads[i][number] = read_request(blocks[i], number);
    for (uint32_t number = 0; number < REQUESTS; number++)
        for (uint32_t i = 0; i < EACH; i++) {
            check(nvlx_wait(reads[i][number], 60000000000), "nvlx_wait");
            check(nvlx_request_free(reads[i][number]), "nvlx_request_free");
        }
    const int verdict = compare(&cache, rank);
    for (uint32_t i = 0; i < EACH; i++) {
        check(nvlx_blocks_free(blocks[i]), "nvlx_blocks_free");
        check(nvlx_peer_close(peer[i]), "nvlx_peer_close");
    }
    check(nvlx_engine_destroy(cache.engine), "nvlx_engine_destroy");
    free(cache.values);
    return verdict;
}

static int run(uint32_t process, char addresses[PREFILLS][40], const int readers[2]) {
    close(readers[process < PREFILLS ? 1 : 0]);
    return process < PREFILLS ? prefill(process, addresses[process], readers[0])
                              : decode(process - PREFILLS, addresses);
}

int main(void) {
    char addresses[PREFILLS][40];
    int readers[2], status, verdict = 0;
    make_requests();
    for (uint32_t i = 0; i < PREFILLS; i++)
        snprintf(addresses[i], sizeof addresses[i], "@kv-blocks-%d-%" PRIu32, (int)getpid(), i);
    if (pipe(readers))
        return 1;
    for (uint32_t i = 0; i < PREFILLS + DECODES && !verdict; i++) { /* this process does not use CUDA */
        const pid_t child = fork();
        if (child == 0)
            exit(run(i, addresses, readers));
        verdict = child < 0;
    }
    close(readers[0]);
    close(readers[1]);
    while (wait(&status) > 0)
        verdict |= status != 0;
    return verdict;
}
