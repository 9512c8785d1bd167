/* Peers as processes: descriptors that change, processes that die or restart, mappings that open once and close.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faulty_device.h"
#include "support.h"

#define SIZE    (256 * KIB)
#define THREADS 16

static struct nvlx_engine *engine;
static char *mine; /* SIZE bytes on GPU 0, registered */

static void begin(void) {
    engine = make_faulty_engine(0);
    mine = allocate(engine, 0, SIZE, 99);
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
}

/* Slot 0, whole, as "w". */
static void start_owner(struct owner *owner, uint32_t seed) {
    owner_start(owner);
    owner_alloc(owner, 0, 0, SIZE, seed);
    owner_register(owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "w");
}

static void expect_read(struct nvlx_peer *peer, uint64_t remote, size_t offset, size_t length, uint32_t seed) {
    uint8_t *bytes = malloc(length);
    EXPECT(bytes != NULL);
    move(engine, NVLX_OP_READ, peer, mine, remote, length);
    OK(nvlx_memcpy(engine, bytes, mine, length));
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != seed_byte(seed, offset + i))
            FAIL("byte %zu of %zu is 0x%02x, not 0x%02x", i, length, bytes[i], seed_byte(seed, offset + i));
    free(bytes);
}

static void refuse_read(struct nvlx_peer *peer, uint64_t remote, size_t length, int code, const char *words) {
    struct nvlx_request *request;
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, remote, length);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), code, words);
}

static void update(struct nvlx_peer *peer, struct owner *owner) {
    char *text = owner_export(owner);
    OK(nvlx_peer_update(peer, text, strlen(text)));
    free(text);
}

static void refuse_update(struct nvlx_peer *peer, const char *text, int code, const char *words) {
    REFUSED(nvlx_peer_update(peer, text, strlen(text)), code, words);
}

static struct nvlx_peer *open_owner(struct owner *owner) {
    char *text = owner_export(owner);
    struct nvlx_peer *peer = open_peer(engine, text);
    free(text);
    return peer;
}

/* ---- Names and generations ------------------------------------------------------------------------------ */

static void regions_are_found_by_name(void) {
    static const size_t sizes[6] = {64, 1024, 16384, 131072, 1, 333};
    struct owner owner;
    size_t offset = 0;
    char name[20];
    uint64_t address, length;
    begin();
    owner_start(&owner);
    uint64_t base = owner_alloc(&owner, 0, 0, SIZE, 5);
    for (uint32_t i = 0; i < 6; offset += 512 + sizes[i] / 512 * 512, i++) {
        snprintf(name, sizeof name, "tensor %u \"\\ \xc3\xa9", i);
        owner_register(&owner, i, 0, offset, sizes[i], NVLX_ACCESS_READ, name);
    }
    owner_register(&owner, 6, 0, 0, 0, NVLX_ACCESS_READ, "nothing");
    struct nvlx_peer *peer = open_owner(&owner);
    offset = 0;
    for (uint32_t i = 0; i < 6; offset += 512 + sizes[i] / 512 * 512, i++) {
        snprintf(name, sizeof name, "tensor %u \"\\ \xc3\xa9", i);
        OK(nvlx_peer_find(peer, name, &address, &length));
        EQUAL(base + offset, address);
        EQUAL(sizes[i], length);
        expect_read(peer, address, offset, sizes[i], 5);
    }
    OK(nvlx_peer_find(peer, "nothing", &address, &length));
    EQUAL(0, length);
    address = 7;
    REFUSED(nvlx_peer_find(peer, "tensor", &address, &length), NVLX_ENOENT, "\"tensor\"");
    REFUSED(nvlx_peer_find(peer, "", &address, &length), NVLX_ENOENT, "");
    EQUAL(7, address);
    REFUSED(nvlx_peer_find(peer, NULL, &address, &length), NVLX_EINVAL, "name is NULL");
    REFUSED(nvlx_peer_find(NULL, "x", &address, &length), NVLX_EINVAL, "peer is NULL");
    EQUAL(1, engine_info(engine).mappings);
    end();
    owner_end(&owner);
}

/* "Lists all regions that grant anything, or have a name". */
static void private_regions_are_not_told(void) {
    struct owner owner;
    begin();
    owner_start(&owner);
    uint64_t base = owner_alloc(&owner, 0, 0, SIZE, 5);
    owner_register(&owner, 0, 0, 100, 200, NVLX_ACCESS_NONE, "private");
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t address, length;
    REFUSED(nvlx_peer_find(peer, "private", &address, &length), NVLX_ENOENT, "private");
    refuse_read(peer, base + 100, 10, NVLX_ERANGE, "not in its registered regions");
    end();
    owner_end(&owner);
}

static void updates_add_and_withdraw(void) {
    struct owner owner;
    uint64_t address, length;
    begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t w = find(peer, "w");
    expect_read(peer, w, 0, SIZE, 1);
    uint64_t second = owner_alloc(&owner, 1, second_gpu(), SIZE, 2);
    owner_register(&owner, 1, 1, 512, 1024, NVLX_ACCESS_READ, "second");
    refuse_read(peer, second + 512, 10, NVLX_ERANGE, "op 0");
    update(peer, &owner);
    EQUAL(1, engine_info(engine).mappings);
    expect_read(peer, find(peer, "second"), 512, 1024, 2);
    expect_read(peer, w + 5, 5, 100, 1);
    EQUAL(2, atomic_load(&faults.maps));
    OK(owner_unregister(&owner, 0));
    update(peer, &owner);
    REFUSED(nvlx_peer_find(peer, "w", &address, &length), NVLX_ENOENT, "\"w\"");
    refuse_read(peer, w, 1, NVLX_ERANGE, "op 0");
    EQUAL(1, engine_info(engine).mappings);
    EQUAL(1, atomic_load(&faults.unmaps));
    expect_read(peer, second + 600, 600, 10, 2);
    owner_register(&owner, 0, 0, 7, 100, NVLX_ACCESS_READ, "w");
    update(peer, &owner);
    EQUAL(w + 7, find(peer, "w"));
    expect_read(peer, w + 7, 7, 100, 1);
    refuse_read(peer, w + 6, 100, NVLX_ERANGE, "op 0");
    end();
    owner_end(&owner);
}

/* A mapping by a legacy handle can be written anyhow: it stays when a region comes to grant that. */
static void writing_is_granted_later(void) {
    struct owner owner;
    begin();
    owner_start(&owner);
    uint64_t base = owner_alloc(&owner, 0, 0, SIZE, 1);
    owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ, "r");
    struct nvlx_peer *peer = open_owner(&owner);
    expect_read(peer, base, 0, SIZE, 1);
    owner_register(&owner, 1, 0, 0, 100, NVLX_ACCESS_WRITE, "w");
    update(peer, &owner);
    move(engine, NVLX_OP_WRITE, peer, mine, base, 100);
    EQUAL(1, atomic_load(&faults.maps));
    EQUAL(0, atomic_load(&faults.unmaps));
    end();
    owner_end(&owner);
}

static void old_or_foreign_texts_are_refused(void) {
    struct owner owner, other;
    begin();
    start_owner(&owner, 1);
    start_owner(&other, 2);
    char *old = owner_export(&owner);
    owner_register(&owner, 1, 0, 0, 100, NVLX_ACCESS_READ, "more");
    char *text = owner_export(&owner), *foreign = owner_export(&other);
    struct nvlx_peer *peer = open_peer(engine, text);
    expect_read(peer, find(peer, "more"), 0, 100, 1);
    refuse_update(peer, old, NVLX_ESTALE, "generation");
    refuse_update(peer, foreign, NVLX_ESTALE, "restarted");
    OK(nvlx_peer_update(peer, text, strlen(text)));
    char *changed = with_field(text, "backend", "cuda");
    refuse_update(peer, changed, NVLX_EBACKEND, "cuda");
    struct nvlx_peer *none = NULL;
    REFUSED(nvlx_peer_open(engine, changed, strlen(changed), &none), NVLX_EBACKEND, "\"cuda\"");
    free(changed);
    changed = with_field(text, "boot_id", "00000000-1111-2222-3333-444444444444");
    REFUSED(nvlx_peer_open(engine, changed, strlen(changed), &none), NVLX_ENOTSUP, "another machine");
    refuse_update(peer, changed, NVLX_ENOTSUP, "another machine");
    free(changed);
    for (size_t length = 0; length < strlen(text); length += 1 + length / 30)
        EXPECT(nvlx_peer_open(engine, text, length, &none) == NVLX_EFORMAT);
    refuse_update(peer, "{}", NVLX_EFORMAT, "");
    EXPECT(!none);
    expect_read(peer, find(peer, "more"), 0, 100, 1);
    expect_read(peer, find(peer, "w"), 0, SIZE, 1);
    free(old), free(text), free(foreign);
    end();
    owner_end(&owner);
    owner_end(&other);
}

/* A text that says of a mapped segment that it is larger now leads nobody beyond the mapping. */
static void sizes_do_not_change(void) {
    struct owner owner;
    begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t w = find(peer, "w");
    expect_read(peer, w, 0, SIZE, 1);
    char *text = owner_export(&owner), *larger = with_field(text, "size", "0x80000");
    char *newer = with_field(larger, "generation", "0xffff");
    OK(nvlx_peer_update(peer, newer, strlen(newer)));
    EQUAL(0, engine_info(engine).mappings);
    refuse_read(peer, w, 10, NVLX_EDEVICE, "");
    free(text), free(larger), free(newer);
    end();
    owner_end(&owner);
}

static void unknown_kinds_are_named(void) {
    struct owner owner;
    begin();
    start_owner(&owner, 1);
    char *text = owner_export(&owner), *changed = with_field(text, "kind", "hologram");
    struct nvlx_peer *peer = open_peer(engine, changed);
    uint64_t w = find(peer, "w");
    refuse_read(peer, w, 10, NVLX_ENOTSUP, "hologram");
    REFUSED(nvlx_peer_map(peer, 0, w, 10), NVLX_ENOTSUP, "hologram");
    EQUAL(0, engine_info(engine).mappings);
    free(text), free(changed);
    end();
    owner_end(&owner);
}

/* ---- Processes that end --------------------------------------------------------------------------------- */

static void killed_peers_stay_readable(void) {
    struct owner owner;
    begin();
    start_owner(&owner, 3);
    owner_alloc(&owner, 1, 0, SIZE, 4);
    owner_register(&owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ, "unmapped");
    struct nvlx_peer *peer = open_owner(&owner);
    expect_read(peer, find(peer, "w"), 0, 100, 3);
    owner_kill(&owner);
    expect_read(peer, find(peer, "w"), 0, SIZE, 3);
    refuse_read(peer, find(peer, "unmapped"), 10, NVLX_ESTALE, "gone");
    REFUSED(nvlx_peer_map(peer, 0, find(peer, "unmapped"), 10), NVLX_ESTALE, "gone");
    expect_read(peer, find(peer, "w") + 1, 1, 10, 3);
    OK(nvlx_peer_close(peer));
    EQUAL(0, engine_info(engine).mappings);
    end();
}

/* Restarted under the same name: its new descriptor makes a new peer, the old one keeps the old bytes. */
static void restarted_peers_are_new_peers(void) {
    struct owner owner;
    begin();
    start_owner(&owner, 5);
    struct nvlx_peer *old = open_owner(&owner);
    expect_read(old, find(old, "w"), 0, SIZE, 5);
    owner_kill(&owner);
    start_owner(&owner, 6);
    char *text = owner_export(&owner);
    refuse_update(old, text, NVLX_ESTALE, "restarted");
    struct nvlx_peer *young = open_peer(engine, text);
    expect_read(young, find(young, "w"), 0, SIZE, 6);
    expect_read(old, find(old, "w"), 0, SIZE, 5);
    OK(nvlx_peer_close(old));
    expect_read(young, find(young, "w"), 0, SIZE, 6);
    /* even at the very addresses of the dead one */
    char base[20];
    snprintf(base, sizeof base, "0x7e0000000000");
    char *moved = with_field(text, "base", base);
    struct nvlx_peer *same = open_peer(engine, moved);
    EQUAL(UINT64_C(0x7e0000000000), find(same, "w"));
    expect_read(same, find(same, "w") + 17, 17, 1000, 6);
    free(text), free(moved);
    end();
    owner_end(&owner);
}

/* ---- Mappings ------------------------------------------------------------------------------------------- */

static void closing_unmaps_everything(void) {
    struct owner owner;
    begin();
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
    end();
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
    begin();
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
    end();
    owner_end(&owner);
}

static void *fail_at_once(void *argument) {
    const struct reader *reader = argument;
    pthread_barrier_wait(reader->begin);
    refuse_read(reader->peer, reader->remote, 1000, NVLX_ESTALE, "freed");
    return NULL;
}

/* Nobody waits as long as all before: who waited for what failed has failed. */
static void mappings_fail_once(void) {
    struct owner owner;
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    begin();
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
    end();
    owner_end(&owner);
}

static void mapping_ahead(void) {
    struct owner owner;
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    begin();
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
    end();
    owner_end(&owner);
}

/* A transfer in flight keeps a withdrawn mapping open until it is complete and the peer is updated or closed. */
static void withdrawn_while_in_flight(void) {
    struct owner owner;
    begin();
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
    EQUAL(1, atomic_load(&faults.unmaps));
    EQUAL(0, engine_info(engine).mappings);
    expect_read(peer, w, 0, 10, 1);
    OK(nvlx_peer_close(peer));
    EQUAL(2, atomic_load(&faults.unmaps));
    end();
    owner_end(&owner);
}

/* A list like an earlier one, whose second op lies where the first does not, holds both sides of it all the same. */
static void held_by_a_list_like_another(void) {
    struct owner owner;
    begin();
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
    REFUSED(nvlx_unregister(region, 0), NVLX_EBUSY, "in flight");
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
    end();
    owner_end(&owner);
}

/* Many peers at once and in turns: more than are remembered from one list to the next. */
static void many_peers_take_turns(void) {
    enum { PEERS = 20, PART = SIZE / PEERS };
    struct owner owner;
    struct nvlx_peer *peers[PEERS];
    struct nvlx_op ops[3 * PEERS];
    begin();
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
    end();
    owner_end(&owner);
}

/* Freed and allocated anew in the owner: what peers have mapped shows the old bytes, until they are updated. */
static void memory_is_replaced(void) {
    struct owner owner;
    begin();
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
    EQUAL(1, engine_info(engine).mappings);
    EQUAL(1, atomic_load(&faults.unmaps));
    refuse_read(late, w, 10, NVLX_ESTALE, "freed");
    update(late, &owner);
    expect_read(late, w, 0, SIZE, 2);
    OK(owner_unregister(&owner, 0));
    end();
    owner_end(&owner);
}

static void own_process_as_peer(void) {
    char *text;
    size_t length;
    begin();
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
    end();
}

static void balanced_rounds_leak_nothing(void) {
    struct owner owner;
    begin();
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
    end();
    owner_end(&owner);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"regions_are_found_by_name", regions_are_found_by_name},
                                        {"private_regions_are_not_told", private_regions_are_not_told},
                                        {"updates_add_and_withdraw", updates_add_and_withdraw},
                                        {"writing_is_granted_later", writing_is_granted_later},
                                        {"old_or_foreign_texts_are_refused", old_or_foreign_texts_are_refused},
                                        {"sizes_do_not_change", sizes_do_not_change},
                                        {"unknown_kinds_are_named", unknown_kinds_are_named},
                                        {"killed_peers_stay_readable", killed_peers_stay_readable},
                                        {"restarted_peers_are_new_peers", restarted_peers_are_new_peers},
                                        {"closing_unmaps_everything", closing_unmaps_everything},
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
