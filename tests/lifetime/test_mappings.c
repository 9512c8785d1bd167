/* Mappings of peers' segments: opened once, held while they are used, closed with the peer or after it withdrew them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer_support.h"

#define THREADS 16

static void closing_unmaps_everything(void) {
    struct owner owner;
    peers_begin();
    start_owner(&owner, 1);
    owner_alloc(&owner, 1, 0, SIZE, 2);
    owner_register(&owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ, "second");
    struct nvlx_peer *peer = open_owner(&owner);
    move(engine, NVLX_OP_READ, peer, mine, find(peer, "w"), 1); /* makes the lanes */
    OK(nvlx_peer_close(peer));
    struct holdings before = holdings();
    peer = open_owner(&owner);
    expect_holdings(&before, "a peer is open, nothing is mapped");
    move(engine, NVLX_OP_READ, peer, mine, find(peer, "w"), 1);
    move(engine, NVLX_OP_READ, peer, mine, find(peer, "second"), 1);
    OK(nvlx_peer_map(peer, second_gpu(), find(peer, "w"), SIZE));
    EQUAL(before.maps + 2 + (second_gpu() != 0), holdings().maps);
    EQUAL(2 + (second_gpu() != 0), engine_info(engine).mappings);
    OK(nvlx_peer_close(peer));
    OK(nvlx_peer_close(NULL));
    EQUAL(0, engine_info(engine).mappings);
    expect_holdings(&before, "the peer is closed");
    peers_end();
    owner_end(&owner);
}

struct reader {
    pthread_barrier_t *begin;
    struct nvlx_peer *peer;
    uint64_t remote;
    char *local;
};

static void *read_at_once(void *argument) {
    const struct reader *reader = argument;
    pthread_barrier_wait(reader->begin);
    move(engine, NVLX_OP_READ, reader->peer, reader->local, reader->remote, 1000);
    return NULL;
}

static void mappings_open_once(void) {
    struct owner owner;
    pthread_barrier_t barrier;
    peers_begin();
    start_owner(&owner, 8);
    EQUAL(0, pthread_barrier_init(&barrier, NULL, THREADS));
    atomic_store(&faults.map_delay_us, 20000);
    for (long round = 1; round <= 5; round++) {
        pthread_t threads[THREADS];
        struct reader readers[THREADS];
        struct nvlx_peer *peer = open_owner(&owner);
        for (size_t i = 0; i < THREADS; i++) {
            readers[i] = (struct reader){&barrier, peer, find(peer, "w") + 1000 * i, mine + 1000 * i};
            EQUAL(0, pthread_create(&threads[i], NULL, read_at_once, &readers[i]));
        }
        for (size_t i = 0; i < THREADS; i++)
            EQUAL(0, pthread_join(threads[i], NULL));
        EQUAL(round, atomic_load(&faults.maps));
        EQUAL(1, engine_info(engine).mappings);
        EQUAL(0, wrong(engine, mine, 1000 * THREADS, 8));
        OK(nvlx_peer_close(peer));
        EQUAL(round, atomic_load(&faults.unmaps));
        fill(engine, mine, SIZE, 99);
    }
    pthread_barrier_destroy(&barrier);
    peers_end();
    owner_end(&owner);
}

static void *fail_at_once(void *argument) {
    const struct reader *reader = argument;
    pthread_barrier_wait(reader->begin);
    refuse_read(reader->peer, reader->remote, 1000, NVLX_ESTALE, "freed");
    return NULL;
}

/* Nobody waits as long as all before it together: who waited for an attempt that failed has failed too. */
static void mappings_fail_once(void) {
    struct owner owner;
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    peers_begin();
    start_owner(&owner, 8);
    struct nvlx_peer *peer = open_owner(&owner);
    struct reader reader = {.begin = &barrier, .peer = peer, .remote = find(peer, "w")};
    EQUAL(0, owner_free(&owner, 0));
    EQUAL(0, pthread_barrier_init(&barrier, NULL, THREADS));
    atomic_store(&faults.map_delay_us, 500000);
    for (size_t i = 0; i < THREADS; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, fail_at_once, &reader));
    for (size_t i = 0; i < THREADS; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    EXPECT(atomic_load(&faults.maps) < THREADS / 2);
    EQUAL(0, engine_info(engine).mappings);
    pthread_barrier_destroy(&barrier);
    peers_end();
    owner_end(&owner);
}

static void mapping_ahead(void) {
    struct owner owner;
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    peers_begin();
    start_owner(&owner, 9);
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t w = find(peer, "w");
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, w + 3, 1000);
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_NO_MAP;
    REFUSED(nvlx_transfer(engine, &op, 1, &options, &request), NVLX_EAGAIN, "NVLX_NO_MAP");
    EQUAL(0, atomic_load(&faults.maps));
    char words[128];
    snprintf(words, sizeof words, "range 0x%" PRIx64 " + 2 is not in its registered regions (byte 0x%" PRIx64,
             w + SIZE - 1, w + SIZE);
    REFUSED(nvlx_peer_map(peer, 0, w + SIZE - 1, 2), NVLX_ERANGE, words);
    snprintf(words, sizeof words, "range 0x%" PRIx64 " + 2 is not in its registered regions (byte 0x%" PRIx64, w - 1,
             w - 1);
    REFUSED(nvlx_peer_map(peer, 0, w - 1, 2), NVLX_ERANGE, words);
    REFUSED(nvlx_peer_map(peer, 77, w, 2), NVLX_EINVAL, "GPU 77");
    REFUSED(nvlx_peer_map(peer, -1, w, 2), NVLX_EINVAL, "GPU -1");
    REFUSED(nvlx_peer_map(peer, 0, UINT64_MAX, 2), NVLX_EINVAL, "wraps");
    OK(nvlx_peer_map(peer, 0, w, SIZE));
    OK(nvlx_peer_map(peer, 0, w + 100, 1));
    EQUAL(1, atomic_load(&faults.maps));
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    finish(request);
    EQUAL(1, engine_info(engine).mappings);
    atomic_store(&faults.fail_at, atomic_load(&faults.calls) + 1);
    if (second_gpu())
        REFUSED(nvlx_peer_map(peer, 1, w, SIZE), NVLX_EDEVICE, "on purpose");
    EQUAL(1, engine_info(engine).mappings);
    OK(nvlx_peer_map(peer, second_gpu(), w, SIZE));
    peers_end();
    owner_end(&owner);
}

/* A transfer in flight keeps a withdrawn mapping open until it is complete and the peer is updated or closed. */
static void withdrawn_while_in_flight(void) {
    struct owner owner;
    peers_begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t w = find(peer, "w");
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, w, SIZE);
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = start(engine, &op, 1);
    OK(owner_unregister(&owner, 0));
    update(peer, &owner);
    EQUAL(1, engine_info(engine).mappings);
    EQUAL(0, atomic_load(&faults.unmaps));
    refuse_read(peer, w, 1, NVLX_ERANGE, "op 0");
    atomic_store(&faults.hold, false);
    finish(request);
    EQUAL(0, wrong(engine, mine, SIZE, 1));
    owner_register(&owner, 0, 0, 0, 10, NVLX_ACCESS_READ, "again");
    update(peer, &owner);
    expect_mappings(engine, 0);
    EQUAL(1, atomic_load(&faults.unmaps));
    expect_read(peer, w, 0, 10, 1);
    OK(nvlx_peer_close(peer));
    EQUAL(2, atomic_load(&faults.unmaps));
    peers_end();
    owner_end(&owner);
}

/* A list is like an earlier one, and its second op lies where the first does not. It holds both sides of that op. */
static void held_by_a_list_like_another(void) {
    struct owner owner;
    peers_begin();
    char *other = allocate(engine, 0, SIZE, 98);
    struct nvlx_region *region = register_range(engine, other, SIZE, NULL, NVLX_ACCESS_NONE);
    start_owner(&owner, 1);
    owner_alloc(&owner, 1, 0, SIZE, 2);
    owner_register(&owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ, "v");
    struct nvlx_peer *peer = open_owner(&owner);
    struct nvlx_op ops[] = {make_op(NVLX_OP_READ, peer, mine, find(peer, "w"), SIZE),
                            make_op(NVLX_OP_READ, peer, other, find(peer, "v"), SIZE)};
    for (int round = 0; round < 2; round++)
        finish(start(engine, ops, COUNT(ops)));
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = start(engine, ops, COUNT(ops));
    REFUSED(nvlx_unregister(region, 0), NVLX_ETIMEDOUT, "in flight");
    OK(owner_unregister(&owner, 1));
    update(peer, &owner);
    EQUAL(2, engine_info(engine).mappings);
    EQUAL(0, atomic_load(&faults.unmaps));
    atomic_store(&faults.hold, false);
    finish(request);
    EQUAL(0, wrong(engine, other, SIZE, 2));
    OK(nvlx_unregister(region, 0));
    OK(nvlx_peer_close(peer));
    EQUAL(2, atomic_load(&faults.unmaps));
    peers_end();
    owner_end(&owner);
}

/* Many peers at once and in turns: more than are remembered from one list to the next. */
static void many_peers_take_turns(void) {
    enum { PEERS = 20, PART = SIZE / PEERS };
    struct owner owner;
    struct nvlx_peer *peers[PEERS];
    struct nvlx_op ops[3 * PEERS];
    peers_begin();
    start_owner(&owner, 1);
    for (size_t i = 0; i < PEERS; i++)
        peers[i] = open_owner(&owner);
    uint64_t w = find(peers[0], "w");
    for (size_t round = 0; round < 6; round++) {
        size_t used = round % 2 ? PEERS : 1 + 3 * round, count = 0;
        for (size_t i = 0; i < used; i++)
            for (size_t part = 0; part < 3; part++, count++)
                ops[count] = make_op(NVLX_OP_READ, peers[(i + round) % PEERS], mine + PART * i + part,
                                     w + PART * i + part, part < 2 ? 1 : PART - 2);
        owner_fill(&owner, 0, 0, SIZE, (uint32_t)round);
        finish(start(engine, ops, count));
        EQUAL(0, wrong(engine, mine, PART * used, (uint32_t)round));
    }
    for (size_t i = 0; i < PEERS; i++)
        OK(nvlx_peer_close(peers[i]));
    peers_end();
    owner_end(&owner);
}

/* Freed and allocated again in the owner: what peers have mapped shows the old bytes, until they are updated. */
static void memory_is_replaced(void) {
    struct owner owner;
    peers_begin();
    start_owner(&owner, 1);
    struct nvlx_peer *mapped = open_owner(&owner), *late = open_owner(&owner);
    uint64_t w = find(mapped, "w");
    expect_read(mapped, w, 0, SIZE, 1);
    OK(owner_free(&owner, 0));
    EQUAL(w, owner_alloc(&owner, 0, 0, SIZE, 2));
    owner_register(&owner, 1, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "new");
    expect_read(mapped, w, 0, SIZE, 1);
    char *text = owner_export(&owner);
    EXPECT(!strstr(text, "\"w\"") && strstr(text, "\"new\""));
    free(text);
    update(mapped, &owner);
    expect_read(mapped, find(mapped, "new"), 0, SIZE, 2);
    expect_mappings(engine, 1);
    EQUAL(1, atomic_load(&faults.unmaps));
    refuse_read(late, w, 10, NVLX_ESTALE, "freed");
    update(late, &owner);
    expect_read(late, w, 0, SIZE, 2);
    OK(owner_unregister(&owner, 0));
    peers_end();
    owner_end(&owner);
}

static void own_process_as_peer(void) {
    char *text;
    size_t length;
    peers_begin();
    struct nvlx_engine *other = make_engine(0);
    char *theirs = allocate(other, second_gpu(), SIZE, 4), *own = allocate(engine, second_gpu(), SIZE, 5);
    register_range(other, theirs + 100, 5000, "theirs", NVLX_ACCESS_READ_WRITE);
    register_range(engine, own + 200, 5000, "own", NVLX_ACCESS_READ_WRITE);
    struct holdings before = holdings();
    OK(nvlx_export(other, &text, &length));
    struct nvlx_peer *peer = open_peer(engine, text), *again = open_peer(engine, text);
    nvlx_text_free(text);
    OK(nvlx_export(engine, &text, &length));
    struct nvlx_peer *self = open_peer(engine, text);
    char *longer = with_field(text, "size", "0x40000000");
    struct nvlx_peer *wrong_self = open_peer(engine, longer);
    refuse_read(wrong_self, find(wrong_self, "own"), 10, NVLX_ESTALE, "");
    free(longer);
    nvlx_text_free(text);
    EQUAL((uintptr_t)theirs + 100, find(peer, "theirs"));
    expect_read(peer, find(peer, "theirs"), 100, 5000, 4);
    expect_read(again, find(again, "theirs") + 1, 101, 4000, 4);
    expect_read(self, find(self, "own"), 200, 5000, 5);
    fill(engine, mine, SIZE, 6);
    move(engine, NVLX_OP_WRITE, peer, mine, find(peer, "theirs"), 5000);
    move(engine, NVLX_OP_WRITE, self, mine, find(self, "own"), 5000);
    EQUAL(0, wrong(other, theirs + 100, 5000, 6));
    EQUAL(0, wrong(engine, own + 200, 5000, 6));
    EQUAL(0, wrong(other, theirs, 100, 4));
    EQUAL(0, wrong(engine, own, 200, 5));
    refuse_read(peer, find(peer, "theirs") - 1, 10, NVLX_ERANGE, "op 0");
    EQUAL(3, engine_info(engine).mappings);
    EQUAL(0, atomic_load(&faults.maps));
    EQUAL(before.maps, holdings().maps);
    OK(nvlx_peer_close(peer));
    expect_read(self, find(self, "own"), 0, 5000, 6);
    OK(nvlx_export(other, &text, &length));
    struct nvlx_peer *late = open_peer(engine, text);
    nvlx_text_free(text);
    uint64_t gone = find(late, "theirs");
    expect_read(again, gone, 0, 5000, 6);
    OK(nvlx_free(other, theirs));
    refuse_read(late, gone, 10, NVLX_ESTALE, "was freed");
    refuse_read(again, gone, 10, NVLX_ESTALE, "was freed");
    allocate(other, second_gpu(), SIZE, 7);
    refuse_read(again, gone, 10, NVLX_ESTALE, "was freed");
    OK(nvlx_engine_destroy(other));
    peers_end();
}

static void balanced_rounds_leak_nothing(void) {
    struct owner owner;
    peers_begin();
    start_owner(&owner, 1);
    owner_alloc(&owner, 1, second_gpu(), SIZE, 2);
    owner_register(&owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ_WRITE, "second");
    char *text = owner_export(&owner);
    struct holdings before = {0};
    for (int round = 0; round < 200; round++) {
        struct nvlx_peer *peer = open_peer(engine, text);
        struct nvlx_op ops[2] = {make_op(NVLX_OP_READ, peer, mine, find(peer, "w"), 100),
                                 make_op(NVLX_OP_WRITE, peer, mine + 200, find(peer, "second"), 100)};
        finish(start(engine, ops, 2));
        OK(nvlx_peer_update(peer, text, strlen(text)));
        OK(nvlx_peer_close(peer));
        if (round == 0)
            before = holdings();
    }
    expect_holdings(&before, "200 rounds");
    EQUAL(400, atomic_load(&faults.maps));
    EQUAL(400, atomic_load(&faults.unmaps));
    free(text);
    peers_end();
    owner_end(&owner);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"closing_unmaps_everything", closing_unmaps_everything},
                                        {"mappings_open_once", mappings_open_once},
                                        {"mappings_fail_once", mappings_fail_once},
                                        {"mapping_ahead", mapping_ahead},
                                        {"withdrawn_while_in_flight", withdrawn_while_in_flight},
                                        {"held_by_a_list_like_another", held_by_a_list_like_another},
                                        {"many_peers_take_turns", many_peers_take_turns},
                                        {"memory_is_replaced", memory_is_replaced},
                                        {"own_process_as_peer", own_process_as_peer},
                                        {"balanced_rounds_leak_nothing", balanced_rounds_leak_nothing},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
