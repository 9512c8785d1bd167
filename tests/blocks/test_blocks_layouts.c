/* Blocks by id in the layouts that engines have: tables as nvlxfer.h tells to fill them, against a model that knows
 * only where each byte of a cache is. Every byte is compared. On the host backend. SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "faulty_device.h"

/* Sizes of the axes. The owner has half of the heads, and another number of blocks. */
enum { L = 3, H = 4, N = 4, C = 24, LOCAL_B = 10, REMOTE_B = 14, REGIONS_MAX = 2 * L * H * N };
#define SIZE ((size_t)LOCAL_B * L * H * N * C + 1000)

static struct bench bench;
static struct nvlx_region *whole[2];

static void begin(void) {
    bench_begin(&bench, make_faulty_engine(0), 2 * SIZE);
    bench_register(&bench, 2 * SIZE, whole);
}

static void end(void) {
    bench_end(&bench);
}

/* ---- The model ------------------------------------------------------------------------------------------ */

struct cache {
    const char *order; /* of its axes, the outermost first */
    uint64_t base;
    uint64_t blocks, heads;
};

static uint64_t extent(const struct cache *cache, char axis) {
    return axis == 'L' ? L : axis == 'B' ? cache->blocks : axis == 'H' ? cache->heads : axis == 'N' ? N : C;
}

/* Bytes from one index of an axis to the next: all that is further in. */
static uint64_t pitch(const struct cache *cache, char axis) {
    uint64_t bytes = 1;
    for (const char *inner = strchr(cache->order, axis) + 1; *inner; inner++)
        bytes *= extent(cache, *inner);
    return bytes;
}

static uint64_t place(const struct cache *cache, uint64_t layer, uint64_t block, uint64_t head, uint64_t token) {
    return cache->base + layer * pitch(cache, 'L') + block * pitch(cache, 'B') + head * pitch(cache, 'H') +
           token * pitch(cache, 'N');
}

static struct cache local_cache(const char *order, uint64_t heads) {
    return (struct cache){order, (uint64_t)(uintptr_t)bench.local[0] + 48, LOCAL_B, heads};
}

static struct cache remote_cache(const char *order, uint64_t heads) {
    return (struct cache){order, bench.remote[0] + 16, REMOTE_B, heads};
}

/* ---- As the header says --------------------------------------------------------------------------------- */

static struct nvlx_block_region region(const struct cache *cache, uint64_t base, uint64_t stride, uint64_t offset,
                                       uint64_t length) {
    return (struct nvlx_block_region){
        .base = cache->base + base, .stride = stride, .offset = offset, .length = length, .blocks = cache->blocks};
}

/* A region for each layer and token, where heads are inside tokens. */
static size_t slices_of_tokens(const struct cache *cache, uint64_t first, uint64_t heads, uint64_t layer_step,
                               uint64_t stride, struct nvlx_block_region *to) {
    const uint64_t hc = cache->heads * C;
    for (uint64_t l = 0; l < L; l++)
        for (uint64_t t = 0; t < N; t++)
            *to++ = region(cache, l * layer_step + t * hc, stride, first * C, heads * C);
    return (size_t)L * N;
}

/* Heads [first, first + heads). */
static size_t fill_table(const struct cache *cache, uint64_t first, uint64_t heads, struct nvlx_block_region *to) {
    const uint64_t nc = N * C, hnc = cache->heads * nc, lhnc = L * hnc, bhnc = cache->blocks * hnc,
                   bnc = cache->blocks * nc, lnc = L * nc;
    const bool all = heads == cache->heads;
    if (!strcmp(cache->order, "BHLNC")) {
        to[0] = region(cache, 0, lhnc, first * lnc, heads * lnc);
        return 1;
    }
    if (!strcmp(cache->order, "LHBNC")) {
        for (uint64_t l = 0; l < L; l++)
            for (uint64_t h = first; h < first + heads; h++)
                *to++ = region(cache, (l * cache->heads + h) * bnc, nc, 0, nc);
        return L * heads;
    }
    const bool layers_outside = cache->order[0] == 'L', tokens_outside = strstr(cache->order, "NH") != NULL;
    const uint64_t layer_step = layers_outside ? bhnc : hnc, stride = layers_outside ? hnc : lhnc;
    if (tokens_outside && !all)
        return slices_of_tokens(cache, first, heads, layer_step, stride, to);
    for (uint64_t l = 0; l < L; l++)
        to[l] = region(cache, l * layer_step, stride, first * nc, heads * nc);
    return L;
}

/* A region for each layer and head, of orders with tokens inside heads: the same bytes in all of them. */
static size_t fill_by_heads(const struct cache *cache, struct nvlx_block_region *to) {
    for (uint64_t l = 0; l < L; l++)
        for (uint64_t h = 0; h < cache->heads; h++)
            *to++ = region(cache, l * pitch(cache, 'L') + h * pitch(cache, 'H'), pitch(cache, 'B'), 0, N * C);
    return L * cache->heads;
}

/* ---- Moving --------------------------------------------------------------------------------------------- */

enum { IDS = 6 };
static const uint32_t ids_here[IDS] = {7, 0, 9, 3, 4, 5}, ids_there[IDS] = {13, 2, 0, 8, 9, 10};

static void fill_ids(struct nvlx_block_ids *ids, uint32_t opcode) {
    nvlx_block_ids_init(ids);
    ids->opcode = opcode;
    ids->local = ids_here, ids->remote = ids_there, ids->count = IDS;
}

static struct nvlx_blocks *create(const struct nvlx_block_region *here, const struct nvlx_block_region *there,
                                  size_t count) {
    return bench_tables(&bench, here, there, count, NVLX_ACCESS_READ_WRITE);
}

static void transfer(struct nvlx_blocks *blocks, const struct nvlx_block_ids *ids, uint32_t mechanism) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    OK(nvlx_blocks_transfer(blocks, ids, &options, &request));
    finish(request);
}

static void apply_bytes(uint32_t opcode, uint64_t local, uint64_t remote, uint64_t length) {
    const struct nvlx_op op = make_op(opcode, bench.peer, (void *)(uintptr_t)local, remote, length);
    bench_apply(&bench, &op, 1);
}

/* Heads [here, ...) here, and [there, ...) there, of all layers and tokens of the blocks. */
static void apply(const struct cache *local, uint64_t here, const struct cache *remote, uint64_t there, uint64_t heads,
                  uint32_t opcode) {
    for (size_t i = 0; i < IDS; i++)
        for (uint64_t l = 0; l < L; l++)
            for (uint64_t h = 0; h < heads; h++)
                for (uint64_t t = 0; t < N; t++)
                    apply_bytes(opcode, place(local, l, ids_here[i], here + h, t),
                                place(remote, l, ids_there[i], there + h, t), C);
}

/* Both directions, by kernels and by engines: bytes that were right stay so, hence other ones before each. */
static void move_heads(const struct cache *local, uint64_t here, const struct cache *remote, uint64_t there,
                       uint64_t heads, const struct nvlx_block_region *mine, const struct nvlx_block_region *theirs,
                       size_t count) {
    static uint32_t seed = 100;
    struct nvlx_blocks *blocks = create(mine, theirs, count);
    char when[80];
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++)
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
            struct nvlx_block_ids ids;
            fill_ids(&ids, opcode);
            bench_fill_remote(&bench, 0, seed++);
            transfer(blocks, &ids, mechanism);
            apply(local, here, remote, there, heads, opcode);
            snprintf(when, sizeof when, "%s to %s, opcode %u, mechanism %u", remote->order, local->order, opcode,
                     mechanism);
            bench_compare(&bench, when);
        }
    OK(nvlx_blocks_free(blocks));
}

/* ---- vLLM's six orders ---------------------------------------------------------------------------------- */

static const char *const orders[] = {"LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC"};

static void whole_blocks(void) {
    static const size_t regions[] = {L, L, L * H, L, L, 1};
    struct nvlx_block_region mine[REGIONS_MAX], theirs[REGIONS_MAX];
    begin();
    for (size_t i = 0; i < COUNT(orders); i++) {
        const struct cache local = local_cache(orders[i], H), remote = remote_cache(orders[i], H);
        EQUAL(regions[i], fill_table(&local, 0, H, mine));
        EQUAL(regions[i], fill_table(&remote, 0, H, theirs));
        move_heads(&local, 0, &remote, 0, H, mine, theirs, regions[i]);
    }
    end();
}

/* The peer has half of the heads, all of which are a slice of ours: the second half. */
static void slices_of_heads(void) {
    static const size_t regions[] = {L, L * N, L * H / 2, L, L * N, 1};
    struct nvlx_block_region mine[REGIONS_MAX], theirs[REGIONS_MAX];
    begin();
    for (size_t i = 0; i < COUNT(orders); i++) {
        const bool by_tokens = strstr(orders[i], "NH") != NULL;
        const struct cache local = local_cache(orders[i], H), remote = remote_cache(orders[i], H / 2);
        size_t count = fill_table(&remote, 0, H / 2, theirs);
        if (by_tokens) /* regions are the same on both sides: a token's heads here are so many bytes */
            count = slices_of_tokens(&remote, 0, H / 2, pitch(&remote, 'L'), pitch(&remote, 'B'), theirs);
        EQUAL(regions[i], fill_table(&local, H / 2, H / 2, mine));
        EQUAL(regions[i], count);
        move_heads(&local, H / 2, &remote, 0, H / 2, mine, theirs, count);
    }
    end();
}

static void from_one_order_to_another(void) {
    static const char *const by_heads[] = {"LBHNC", "LHBNC", "BLHNC", "BHLNC"};
    struct nvlx_block_region mine[REGIONS_MAX], theirs[REGIONS_MAX];
    begin();
    for (size_t i = 0; i < COUNT(by_heads); i++)
        for (size_t j = 0; j < COUNT(by_heads); j++) {
            const struct cache local = local_cache(by_heads[i], H), remote = remote_cache(by_heads[j], H);
            const size_t count = fill_by_heads(&local, mine);
            EQUAL(count, fill_by_heads(&remote, theirs));
            move_heads(&local, 0, &remote, 0, H, mine, theirs, count);
        }
    end();
}

/* ---- K and V apart, groups, pages ----------------------------------------------------------------------- */

static void apply_regions(const struct nvlx_block_region *mine, const struct nvlx_block_region *theirs, size_t count,
                          uint32_t group, const struct nvlx_block_ids *ids) {
    const uint32_t *here = ids->local, *there = ids->remote;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < ids->count && mine[i].group == group; j++)
            apply_bytes(ids->opcode, mine[i].base + here[j] * mine[i].stride,
                        theirs[i].base + there[j] * theirs[i].stride, mine[i].length);
}

/* [layer][K, V][block][...] here, [K, V][layer][block][...] there. */
static void keys_and_values_apart(void) {
    enum { BLOCK = H * N * C / 2 };
    struct nvlx_block_region mine[2 * L], theirs[2 * L];
    struct nvlx_block_ids ids;
    begin();
    const struct cache local = local_cache("LBHNC", H), remote = remote_cache("LBHNC", H);
    for (uint64_t l = 0; l < L; l++)
        for (uint64_t kv = 0; kv < 2; kv++) {
            mine[2 * l + kv] = region(&local, (2 * l + kv) * LOCAL_B * BLOCK, BLOCK, 0, BLOCK);
            theirs[2 * l + kv] = region(&remote, (kv * L + l) * REMOTE_B * BLOCK, BLOCK, 0, BLOCK);
        }
    struct nvlx_blocks *blocks = create(mine, theirs, (size_t)2 * L);
    for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
        fill_ids(&ids, NVLX_OP_READ);
        bench_fill_remote(&bench, 0, 40 + mechanism);
        transfer(blocks, &ids, mechanism);
        apply_regions(mine, theirs, (size_t)2 * L, 0, &ids);
        bench_compare(&bench, "K and V");
    }
    OK(nvlx_blocks_free(blocks));
    end();
}

/* Full attention, a sliding window, and states, which have lengths, strides, numbers of blocks, and ids of their own.
 */
static void groups_of_their_own(void) {
    enum { GROUPS = 3, EACH = 2 };
    static const uint64_t lengths[GROUPS] = {300, 120, 777}, blocks_here[GROUPS] = {9, 5, 2},
                          blocks_there[GROUPS] = {6, 8, 3};
    static const uint32_t here[GROUPS][2] = {{8, 0}, {4, 1}, {1, 0}}, there[GROUPS][2] = {{0, 5}, {7, 7}, {2, 0}};
    struct nvlx_block_region mine[GROUPS * EACH], theirs[GROUPS * EACH];
    struct nvlx_block_ids ids;
    uint64_t at = 0;
    begin();
    for (size_t i = 0; i < COUNT(mine); i++) { /* the groups' regions in turn */
        const uint32_t group = i % GROUPS;
        mine[i] = (struct nvlx_block_region){.base = (uint64_t)(uintptr_t)bench.local[0] + at,
                                             .stride = lengths[group] + 8,
                                             .length = lengths[group],
                                             .blocks = blocks_here[group],
                                             .group = group * 1000};
        theirs[i] = mine[i];
        theirs[i].base = bench.remote[0] + at;
        theirs[i].stride = lengths[group];
        theirs[i].blocks = blocks_there[group];
        at += 3000;
    }
    struct nvlx_blocks *blocks = create(mine, theirs, COUNT(mine));
    for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++)
        for (uint32_t group = 0; group < GROUPS; group++) {
            fill_ids(&ids, NVLX_OP_READ);
            ids.group = group * 1000;
            ids.local = here[group], ids.remote = there[group], ids.count = 2;
            bench_fill_remote(&bench, 0, 50 + 10 * mechanism + group);
            transfer(blocks, &ids, mechanism);
            apply_regions(mine, theirs, COUNT(mine), ids.group, &ids);
            bench_compare(&bench, "groups");
        }
    OK(nvlx_blocks_free(blocks));
    end();
}

/* SGLang: a pointer and the bytes of a page for each layer's K and V, each an allocation of its own; int32 page ids. */
static void pages_with_a_pointer_a_layer(void) {
    enum { PAGES = 8, PAGE = 640, POINTERS = 2 * L };
    struct nvlx_block_region mine[POINTERS], theirs[POINTERS];
    static const int32_t here[4] = {5, 0, 7, 6}, there[4] = {1, 7, 3, 4};
    uint8_t expected[PAGES * PAGE], got[PAGES * PAGE];
    struct nvlx_block_ids ids;
    begin();
    for (uint32_t i = 0; i < POINTERS; i++) {
        char *pointer = allocate(bench.engine, 0, PAGES * PAGE, 60);
        register_range(bench.engine, pointer, PAGES * PAGE, NULL, NVLX_ACCESS_NONE);
        mine[i] = (struct nvlx_block_region){
            .base = (uint64_t)(uintptr_t)pointer, .stride = PAGE, .length = PAGE, .blocks = PAGES};
        theirs[i] = mine[i];
        theirs[i].base = owner_alloc(&bench.owner, 10 + i, 0, PAGES * PAGE, 70 + i);
        owner_register(&bench.owner, 10 + i, 10 + i, 0, PAGES * PAGE, NVLX_ACCESS_READ, NULL);
    }
    bench_open_peer(&bench);
    struct nvlx_blocks *blocks;
    OK(nvlx_blocks_create(bench.engine, bench.peer, mine, theirs, POINTERS, NULL, &blocks));
    for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_COPY_ENGINE; mechanism++) {
        for (uint32_t i = 0; i < POINTERS; i++)
            OK(nvlx_memcpy(bench.engine, (void *)(uintptr_t)mine[i].base, memset(got, 0x5a, sizeof got), sizeof got));
        fill_ids(&ids, NVLX_OP_READ);
        ids.local = here, ids.remote = there, ids.count = 4;
        transfer(blocks, &ids, mechanism);
        for (uint32_t i = 0; i < POINTERS; i++) {
            memset(expected, 0x5a, sizeof expected);
            for (size_t j = 0; j < 4; j++)
                for (size_t k = 0; k < PAGE; k++)
                    expected[here[j] * PAGE + k] = seed_byte(70 + i, there[j] * PAGE + k);
            OK(nvlx_memcpy(bench.engine, got, (void *)(uintptr_t)mine[i].base, sizeof got));
            EXPECT(!memcmp(got, expected, sizeof got));
        }
    }
    OK(nvlx_blocks_free(blocks));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"whole_blocks", whole_blocks},
                                        {"slices_of_heads", slices_of_heads},
                                        {"from_one_order_to_another", from_one_order_to_another},
                                        {"keys_and_values_apart", keys_and_values_apart},
                                        {"groups_of_their_own", groups_of_their_own},
                                        {"pages_with_a_pointer_a_layer", pages_with_a_pointer_a_layer},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
