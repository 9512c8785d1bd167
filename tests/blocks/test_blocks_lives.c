/* Blocks by id whose memory goes: what they hold, what they do not keep, and what a transfer then says.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "faulty_device.h"
#include "host_stream.h"

#define SIZE (256 * KIB)

enum { LAYERS = 4, BLOCKS = 16, EACH = 4096, MOVED = 1000, GAP = 100 };

static struct bench bench;
static struct nvlx_region *whole[2];

static void begin(void) {
    bench_begin(&bench, make_faulty_engine(0), SIZE);
    bench_register(&bench, SIZE, whole);
}

static void end(void) {
    bench_end(&bench);
}

/* MOVED bytes from GAP on of each block, here and there. */
static struct nvlx_blocks *create_of(uint64_t local, uint64_t remote) {
    struct nvlx_block_region here[LAYERS], there[LAYERS];
    for (uint32_t i = 0; i < LAYERS; i++) {
        here[i] = (struct nvlx_block_region){
            .base = local + i * BLOCKS * EACH, .stride = EACH, .offset = GAP, .length = MOVED, .blocks = BLOCKS};
        there[i] = here[i];
        there[i].base = remote + i * BLOCKS * EACH;
    }
    return bench_tables(&bench, here, there, LAYERS, NVLX_ACCESS_READ_WRITE);
}

static struct nvlx_blocks *create(void) {
    return create_of((uint64_t)(uintptr_t)bench.local[0], bench.remote[0]);
}

static const uint32_t mine[] = {3, 0, 15, 7}, theirs[] = {1, 1, 0, 14};

static int transfer(struct nvlx_blocks *blocks, const struct nvlx_transfer_options *options,
                    struct nvlx_request **request) {
    struct nvlx_block_ids ids;
    nvlx_block_ids_init(&ids);
    ids.local = mine;
    ids.remote = theirs;
    ids.count = COUNT(mine);
    return nvlx_blocks_transfer(blocks, &ids, options, request);
}

static struct nvlx_request *started(struct nvlx_blocks *blocks) {
    struct nvlx_request *request;
    OK(transfer(blocks, NULL, &request));
    return request;
}

static void apply(void) {
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (size_t i = 0; i < COUNT(mine); i++)
            memcpy(bench.model_local[0] + (layer * BLOCKS + mine[i]) * EACH + GAP,
                   bench.model_remote[0] + (layer * BLOCKS + theirs[i]) * EACH + GAP, MOVED);
}

static void refuse(struct nvlx_blocks *blocks, int code, const char *words) {
    struct nvlx_request *none = NULL;
    for (uint32_t mechanism = 0; mechanism < 4; mechanism++) {
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        REFUSED(transfer(blocks, &options, &none), code, words);
        EXPECT(!none);
    }
}

/* ---- Own memory ------------------------------------------------------------------------------------------ */

static struct nvlx_region *inside(size_t offset, size_t length) {
    return register_range(bench.engine, bench.local[0] + offset, length, NULL, NVLX_ACCESS_NONE);
}

static void own_regions_are_held(void) {
    begin();
    struct nvlx_region *before = inside(5 * EACH + GAP + MOVED - 1, 1), *between = inside(GAP + MOVED, EACH - MOVED);
    struct nvlx_blocks *blocks = create(), *again = create();
    struct nvlx_region *later = inside(2 * EACH + GAP + MOVED - 1, EACH); /* its first byte is the last of a block */
    struct nvlx_region *gap = inside(2 * EACH + GAP + MOVED, EACH - MOVED);
    struct nvlx_region *behind = inside(LAYERS * BLOCKS * EACH - EACH + GAP + MOVED, EACH - MOVED - GAP);
    for (int round = 0; round < 2; round++) { /* before any transfer, and after one */
        REFUSED(nvlx_unregister(whole[0], -1), NVLX_EBUSY, "a prepared list");
        REFUSED(nvlx_unregister(before, -1), NVLX_EBUSY, "a prepared list");
        REFUSED(nvlx_unregister(later, -1), NVLX_EBUSY, "a prepared list");
        REFUSED(nvlx_free(bench.engine, bench.local[0]), NVLX_EBUSY, "a prepared list");
        REFUSED(nvlx_peer_close(bench.peer), NVLX_EBUSY, "prepared");
        finish(started(blocks));
    }
    OK(nvlx_unregister(between, 0));
    OK(nvlx_unregister(gap, 0));
    OK(nvlx_unregister(behind, 0));
    OK(nvlx_unregister(whole[1], 0));
    OK(nvlx_blocks_free(blocks));
    REFUSED(nvlx_unregister(later, 0), NVLX_EBUSY, "a prepared list"); /* the other one */
    OK(nvlx_blocks_free(again));
    OK(nvlx_unregister(before, 0));
    OK(nvlx_unregister(later, 0));
    OK(nvlx_unregister(whole[0], 0));
    apply();
    bench_compare(&bench, "held");
    OK(nvlx_peer_close(bench.peer));
    EQUAL(0, engine_info(bench.engine).mappings);
    EQUAL(0, engine_info(bench.engine).regions);
    end();
}

static void own_memory_that_sleeps(void) {
    begin();
    struct nvlx_blocks *blocks = create();
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = started(blocks);
    REFUSED(nvlx_suspend(&whole[0], 1, 0), NVLX_ETIMEDOUT, "transfer"); /* waits for what is in flight */
    refuse(blocks, NVLX_ESUSPENDED, "suspended");
    atomic_store(&faults.hold, false);
    finish(request);
    OK(nvlx_suspend(&whole[0], 1, PATIENCE));
    refuse(blocks, NVLX_ESUSPENDED, "suspended");
    OK(nvlx_resume(&whole[0], 1, NULL));
    finish(started(blocks));
    apply();
    bench_compare(&bench, "after a sleep");
    OK(nvlx_blocks_free(blocks));
    end();
}

/* ---- A peer's memory ------------------------------------------------------------------------------------- */

static void withdrawn_memory(void) {
    begin();
    struct nvlx_blocks *blocks = create();
    atomic_store(&faults.hold, true);
    struct nvlx_request *in_flight = started(blocks);
    OK(owner_unregister(&bench.owner, 0));
    bench_open_peer(&bench);
    refuse(blocks, NVLX_ESTALE, "withdrawn");
    EQUAL(0, atomic_load(&faults.unmaps));
    atomic_store(&faults.hold, false);
    finish(in_flight);
    expect_mappings(bench.engine, 0); /* what tables name does not keep what the peer has withdrawn */
    apply();
    bench_compare(&bench, "withdrawn while in flight");
    owner_register(&bench.owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "near"); /* the same bytes, but later */
    bench_open_peer(&bench);
    refuse(blocks, NVLX_ESTALE, "withdrawn");
    OK(nvlx_blocks_free(blocks));
    blocks = create();
    finish(started(blocks));
    bench_compare(&bench, "created again");
    OK(nvlx_blocks_free(blocks));
    end();
}

static void memory_between_blocks_may_go(void) {
    begin();
    OK(owner_unregister(&bench.owner, 0));
    owner_register(&bench.owner, 0, 0, 0, GAP + MOVED + 7, NVLX_ACCESS_READ_WRITE, "first");
    owner_register(&bench.owner, 2, 0, GAP + MOVED + 7, 500, NVLX_ACCESS_READ_WRITE, "gap");
    owner_register(&bench.owner, 3, 0, EACH, SIZE - EACH, NVLX_ACCESS_READ_WRITE, "others");
    bench_open_peer(&bench);
    struct nvlx_blocks *blocks = create();
    finish(started(blocks));
    OK(owner_unregister(&bench.owner, 2));
    bench_open_peer(&bench);
    finish(started(blocks));
    OK(owner_unregister(&bench.owner, 0));
    bench_open_peer(&bench);
    refuse(blocks, NVLX_ESTALE, "withdrawn");
    apply();
    bench_compare(&bench, "between");
    OK(nvlx_blocks_free(blocks));
    end();
}

static void generations(void) {
    struct nvlx_block_region here = {.stride = 64, .length = 64, .blocks = 4}, there = here;
    struct nvlx_blocks_options options;
    struct nvlx_blocks *none = NULL;
    begin();
    nvlx_blocks_options_init(&options);
    OK(nvlx_peer_generation(bench.peer, &options.generation));
    OK(owner_unregister(&bench.owner, 0));
    owner_register(&bench.owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "near");
    bench_open_peer(&bench);
    here.base = (uint64_t)(uintptr_t)bench.local[0];
    there.base = bench.remote[0];
    REFUSED(nvlx_blocks_create(bench.engine, bench.peer, &here, &there, 1, &options, &none), NVLX_ESTALE,
            "region 0, local block 0 and remote block 0 or later: the peer's range");
    EXPECT(!none);
    end();
}

/* ---- Ends -------------------------------------------------------------------------------------------------- */

static void freeing_waits_for_transfers(void) {
    pthread_t thread;
    struct nvlx_request *requests[3];
    struct nvlx_transfer_options in_order;
    struct stream stream; /* orders what they write */
    begin();
    open_stream(&stream);
    nvlx_transfer_options_init(&in_order);
    in_order.stream = stream.lane;
    struct nvlx_blocks *blocks = create();
    atomic_store(&faults.hold, true);
    for (size_t i = 0; i < COUNT(requests); i++)
        OK(transfer(blocks, &in_order, &requests[i]));
    EQUAL(0, pthread_create(&thread, NULL, release_later, NULL));
    double since = now_ms();
    OK(nvlx_blocks_free(blocks));
    EXPECT(now_ms() - since >= 45);
    EQUAL(0, pthread_join(thread, NULL));
    for (size_t i = 0; i < COUNT(requests); i++) { /* still the caller's */
        OK(nvlx_test(requests[i]));
        OK(nvlx_request_free(requests[i]));
    }
    apply();
    bench_compare(&bench, "freed with transfers in flight");
    close_stream(&stream);
    blocks = create(); /* left to the engine, with a transfer in flight */
    atomic_store(&faults.hold, true);
    started(blocks);
    EQUAL(0, pthread_create(&thread, NULL, release_later, NULL));
    since = now_ms();
    end();
    EXPECT(now_ms() - since >= 45);
    EQUAL(0, pthread_join(thread, NULL));
}

/* Tables and transfers of them give all list memory back, also those that fail. */
static void nothing_is_lost(void) {
    begin();
    finish(started(create())); /* what is kept for the next */
    const long allocs = atomic_load(&faults.list_allocs);
    for (int i = 0; i < 3000; i++) {
        struct nvlx_blocks *blocks = create();
        finish(started(blocks));
        atomic_store(&faults.copies, i % 2 == 0);
        struct nvlx_request *request = started(blocks);
        GIVES(i % 2 ? 0 : NVLX_EDEVICE, nvlx_wait(request, PATIENCE));
        atomic_store(&faults.copies, false);
        nvlx_request_free(request);
        OK(nvlx_blocks_free(blocks));
    }
    EQUAL(allocs, atomic_load(&faults.list_allocs));
    end();
}

/* ---- Order, threads --------------------------------------------------------------------------------------- */

static void streams_keep_the_order(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct stream stream;
    uint8_t consumed[MOVED];
    begin();
    open_stream(&stream);
    struct nvlx_blocks *blocks = create();
    nvlx_transfer_options_init(&options);
    options.stream = stream.lane;
    for (uint8_t round = 1; round <= 8; round++) {
        char *to = bench.local[0] + mine[0] * EACH + GAP;
        memset(consumed, 0, sizeof consumed);
        stream_stands_still(&stream);
        OK(transfer(blocks, &options, &request));
        stream_copy(&stream, consumed, to, MOVED); /* queued at once: no CPU waits */
        GIVES(NVLX_EAGAIN, nvlx_test(request));
        bench_fill_remote(&bench, 0, round); /* ordered before the transfer */
        stream_goes_on(&stream);
        stream_end(&stream);
        EQUAL(0, memcmp(consumed, bench.model_remote[0] + theirs[0] * EACH + GAP, MOVED));
        finish(request);
        apply();
        bench_compare(&bench, "in a stream");
    }
    OK(nvlx_blocks_free(blocks));
    close_stream(&stream);
    end();
}

struct part { /* of the pairs: each thread has one of its own */
    struct nvlx_blocks *blocks;
    size_t pair;
    pthread_t thread;
};

static void *transfer_often(void *argument) {
    const struct part *part = argument;
    struct nvlx_block_ids ids;
    nvlx_block_ids_init(&ids);
    ids.local = &mine[part->pair];
    ids.remote = &theirs[part->pair];
    ids.count = 1;
    for (int i = 0; i < 200; i++) {
        struct nvlx_request *request;
        OK(nvlx_blocks_transfer(part->blocks, &ids, NULL, &request));
        finish(request);
    }
    return NULL;
}

static void many_threads(void) {
    struct part parts[COUNT(mine)];
    begin();
    struct nvlx_blocks *blocks = create();
    for (size_t i = 0; i < COUNT(parts); i++) {
        parts[i] = (struct part){.blocks = blocks, .pair = i};
        EQUAL(0, pthread_create(&parts[i].thread, NULL, transfer_often, &parts[i]));
    }
    for (size_t i = 0; i < COUNT(parts); i++)
        EQUAL(0, pthread_join(parts[i].thread, NULL));
    apply();
    bench_compare(&bench, "many threads");
    OK(nvlx_blocks_free(blocks));
    end();
}

/* The peer is this process: plain copies, by the same words. */
static void within_a_process(void) {
    begin();
    char *other = allocate(bench.engine, 0, SIZE, 77);
    register_range(bench.engine, other, SIZE, "own", NVLX_ACCESS_READ_WRITE);
    struct nvlx_peer *owner = bench.peer;
    bench.peer = peer_of(bench.engine, bench.engine);
    struct nvlx_blocks *blocks = create_of((uint64_t)(uintptr_t)bench.local[0], (uint64_t)(uintptr_t)other);
    finish(started(blocks));
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (size_t i = 0; i < COUNT(mine); i++)
            for (uint32_t k = 0; k < MOVED; k++)
                bench.model_local[0][(layer * BLOCKS + mine[i]) * EACH + GAP + k] =
                    seed_byte(77, (layer * BLOCKS + theirs[i]) * EACH + GAP + k);
    bench_compare(&bench, "within a process");
    OK(nvlx_blocks_free(blocks));
    OK(nvlx_peer_close(bench.peer));
    bench.peer = owner;
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"own_regions_are_held", own_regions_are_held},
                                        {"own_memory_that_sleeps", own_memory_that_sleeps},
                                        {"withdrawn_memory", withdrawn_memory},
                                        {"memory_between_blocks_may_go", memory_between_blocks_may_go},
                                        {"generations", generations},
                                        {"freeing_waits_for_transfers", freeing_waits_for_transfers},
                                        {"nothing_is_lost", nothing_is_lost},
                                        {"streams_keep_the_order", streams_keep_the_order},
                                        {"many_threads", many_threads},
                                        {"within_a_process", within_a_process},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
