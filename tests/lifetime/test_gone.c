/* Peers that are gone, and peers of the own process whose memory or engine is: nothing is sent to them, nothing read
 * from them, and they are not taken for something else. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faulty_device.h"
#include "rendezvous_support.h"

#define SIZE (256 * KIB)

static struct nvlx_engine *engine;
static char *mine; /* SIZE bytes on GPU 0, registered, private */

static void begin(void) {
    engine = make_faulty_engine(0);
    mine = allocate(engine, 0, SIZE, 99);
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
}

static void refuse(uint32_t opcode, struct nvlx_peer *peer, uint64_t remote, const char *words) {
    const struct nvlx_op op = make_op(opcode, peer, mine, remote, 1000);
    struct nvlx_request *request = NULL;
    struct nvlx_prepared *prepared = NULL;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_ESTALE, words);
    REFUSED(nvlx_prepare(engine, &op, 1, NULL, &prepared), NVLX_ESTALE, words);
    EXPECT(!request && !prepared);
}

/* Whatever is asked of it, the peer is gone. */
static void expect_gone(struct nvlx_peer *peer, uint64_t remote, struct nvlx_prepared *prepared, const char *words) {
    struct nvlx_request *request = NULL;
    refuse(NVLX_OP_READ, peer, remote, words);
    refuse(NVLX_OP_WRITE, peer, remote, words);
    REFUSED(nvlx_peer_map(peer, 0, remote, 1000), NVLX_ESTALE, words);
    if (prepared)
        REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESTALE, words);
    EXPECT(!request);
    EQUAL(0, engine_info(engine).requests);
}

static struct nvlx_prepared *prepare(uint32_t opcode, struct nvlx_peer *peer, uint64_t remote) {
    const struct nvlx_op op = make_op(opcode, peer, mine, remote, 1000);
    struct nvlx_prepared *made;
    OK(nvlx_prepare(engine, &op, 1, NULL, &made));
    return made;
}

/* ---- Other processes ------------------------------------------------------------------------------------ */

static struct nvlx_blocks *blocks_of(struct nvlx_peer *peer, uint64_t remote) {
    const struct nvlx_block_region here = {
        .base = (uint64_t)(uintptr_t)mine, .stride = SIZE / 4, .length = SIZE / 4, .blocks = 4};
    struct nvlx_block_region there = here;
    struct nvlx_blocks *blocks;
    there.base = remote;
    OK(nvlx_blocks_create(engine, peer, &here, &there, 1, NULL, &blocks));
    return blocks;
}

static void expect_no_blocks(struct nvlx_blocks *blocks) {
    const uint32_t id = 1;
    struct nvlx_block_ids ids;
    struct nvlx_request *none = NULL;
    nvlx_block_ids_init(&ids);
    ids.local = ids.remote = &id;
    ids.count = 1;
    REFUSED(nvlx_blocks_transfer(blocks, &ids, NULL, &none), NVLX_ESTALE, "the peer is gone");
    EXPECT(!none);
    OK(nvlx_blocks_free(blocks));
}

/* Mapped, prepared, and then killed. */
static void nothing_is_issued_to_the_dead(void) {
    struct owner owner;
    begin();
    owner_start(&owner);
    owner_alloc(&owner, 0, 0, SIZE, 3);
    owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "w");
    OK(owner_serve(&owner, own_path(), 0));
    struct nvlx_peer *peer = connect_to(engine, own_path());
    uint64_t w = find(peer, "w");
    move(engine, NVLX_OP_READ, peer, mine, w, SIZE);
    struct nvlx_prepared *prepared = prepare(NVLX_OP_WRITE, peer, w);
    struct nvlx_blocks *blocks = blocks_of(peer, w);
    owner_kill(&owner);
    await_end(peer);
    expect_no_blocks(blocks);
    expect_gone(peer, w, prepared, "the peer is gone");
    unlink(own_path());
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_peer_close(peer));
    end();
}

/* One that lives is not refused for one that is dead, and the message names the op; empty ops need nobody. */
static void the_living_are_told_from_the_dead(void) {
    struct nvlx_request *request;
    begin();
    struct nvlx_engine *other = make_engine(0), *gone = make_engine(0);
    char *theirs = allocate(other, 0, SIZE, 1), *lost = allocate(gone, 0, SIZE, 2);
    register_range(other, theirs, SIZE, "w", NVLX_ACCESS_READ_WRITE);
    register_range(gone, lost, SIZE, "w", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_serve(other, own_path(), NULL));
    OK(nvlx_serve(gone, own_name(), NULL));
    struct nvlx_peer *alive = connect_to(engine, own_path()), *dead = connect_to(engine, own_name());
    struct nvlx_op ops[3] = {make_op(NVLX_OP_READ, alive, mine, (uintptr_t)theirs, 100),
                             make_op(NVLX_OP_READ, dead, mine + 100, (uintptr_t)lost, 0),
                             make_op(NVLX_OP_WRITE, dead, mine + 200, (uintptr_t)lost, 100)};
    finish(start(engine, ops, 3));
    OK(nvlx_engine_destroy(gone));
    await_end(dead);
    REFUSED(nvlx_transfer(engine, ops, 3, NULL, &request), NVLX_ESTALE, "op 2: the peer is gone");
    finish(start(engine, ops, 2));
    end();
    OK(nvlx_engine_destroy(other));
}

/* ---- What the log says ---------------------------------------------------------------------------------- */

static atomic_int logged[NVLX_LOG_DEBUG + 1];

static void count_levels(void *context, int level, const char *message) {
    (void)context;
    atomic_fetch_add(&logged[level], strstr(message, "the peer is gone") != NULL);
}

/* Of a peer that has died, a warning; of one that has ended as it should, none. */
static void an_end_is_told_from_a_death(void) {
    for (int dies = 0; dies < 2; dies++) {
        struct owner owner;
        begin();
        owner_start(&owner);
        owner_alloc(&owner, 0, 0, SIZE, 3);
        owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "w");
        OK(owner_serve(&owner, own_path(), 0));
        struct nvlx_peer *peer = connect_to(engine, own_path());
        memset(logged, 0, sizeof logged);
        OK(nvlx_set_log(NVLX_LOG_INFO, count_levels, NULL));
        dies ? owner_kill(&owner) : owner_end(&owner);
        await_end(peer);
        EQUAL(dies, atomic_load(&logged[NVLX_LOG_WARNING]));
        EQUAL(!dies, atomic_load(&logged[NVLX_LOG_INFO]));
        OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
        REFUSED(nvlx_peer_test(peer), NVLX_ESTALE, dies ? "closed the connection" : "its engine was destroyed");
        unlink(own_path());
        end();
    }
}

/* ---- The own process ------------------------------------------------------------------------------------ */

static const uint32_t kinds[] = {0, NVLX_ALLOC_VMM, NVLX_ALLOC_POOL};

static char *allocate_kind(struct nvlx_engine *from, uint32_t kind) {
    struct nvlx_alloc_options options;
    void *made;
    nvlx_alloc_options_init(&options);
    options.flags = kind;
    OK(nvlx_alloc(from, 0, SIZE, &options, &made));
    return made;
}

static char *export(struct nvlx_engine *from) {
    char *text;
    size_t length;
    OK(nvlx_export(from, &text, &length));
    return text;
}

/* A peer of this process: made from its text, or by connecting. */
static struct nvlx_peer *meet(struct nvlx_engine *other, bool connecting) {
    if (connecting)
        return connect_to(engine, own_path());
    char *text = export(other);
    struct nvlx_peer *peer = open_peer(engine, text);
    nvlx_text_free(text);
    return peer;
}

struct own { /* memory of another engine of this process */
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct nvlx_region *region;
    char *memory;
    struct nvlx_prepared *prepared;
};

static struct own begin_own(uint32_t kind, bool connecting, bool mapped) {
    struct own own = {.engine = make_engine(0)};
    own.memory = allocate_kind(own.engine, kind);
    own.region = register_range(own.engine, own.memory, SIZE, "w", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_serve(own.engine, own_path(), NULL));
    own.peer = meet(own.engine, connecting);
    if (mapped) {
        move(engine, NVLX_OP_READ, own.peer, mine, (uintptr_t)own.memory, SIZE);
        own.prepared = prepare(NVLX_OP_WRITE, own.peer, (uintptr_t)own.memory);
    }
    return own;
}

static void end_own(struct own *own) {
    OK(nvlx_prepared_free(own->prepared));
    OK(nvlx_peer_close(own->peer));
    if (own->engine)
        OK(nvlx_engine_destroy(own->engine));
}

/* A peer that follows is told that the memory was withdrawn. */
static void expect_withdrawn(struct nvlx_peer *peer, uint64_t remote, struct nvlx_prepared *prepared) {
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, remote, 1000);
    struct nvlx_request *request = NULL;
    uint64_t address, length;
    while (nvlx_peer_find(peer, "w", &address, &length) == 0)
        usleep(1000);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_ERANGE, "not in its registered regions");
    if (prepared)
        REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESTALE, "");
    EXPECT(!request);
}

static void free_memory(uint32_t kind, bool connecting, bool mapped) {
    struct own own = begin_own(kind, connecting, mapped);
    OK(nvlx_free(own.engine, own.memory));
    if (connecting)
        expect_withdrawn(own.peer, (uintptr_t)own.memory, own.prepared);
    else
        expect_gone(own.peer, (uintptr_t)own.memory, own.prepared, "");
    end_own(&own);
}

/* Its address is taken by memory of whatever kind; it must get the same one, or there is nothing to see. */
static void replace_memory(uint32_t kind, uint32_t by, bool mapped) {
    struct own own = begin_own(kind, false, mapped);
    OK(nvlx_free(own.engine, own.memory));
    char *again = allocate_kind(own.engine, by);
    expect_gone(own.peer, (uintptr_t)own.memory, own.prepared, "of this process was freed");
    OK(nvlx_free(own.engine, again));
    end_own(&own);
}

static void freed_memory_is_gone(void) {
    begin();
    for (size_t i = 0; i < COUNT(kinds); i++) {
        for (int way = 0; way < 4; way++)
            free_memory(kinds[i], way & 1, way & 2);
        for (size_t k = 0; k < COUNT(kinds); k++)
            replace_memory(kinds[i], kinds[k], k % 2);
    }
    end();
}

static void end_engine(bool connecting, bool mapped) {
    struct own own = begin_own(0, connecting, mapped);
    char *text = export(own.engine);
    OK(nvlx_engine_destroy(own.engine));
    own.engine = NULL;
    if (connecting)
        await_end(own.peer);
    expect_gone(own.peer, (uintptr_t)own.memory, own.prepared, "the peer is gone");
    REFUSED(nvlx_peer_test(own.peer), NVLX_ESTALE, "the peer is gone");
    REFUSED(nvlx_peer_update(own.peer, text, strlen(text)), NVLX_ESTALE, "the peer is gone");
    struct nvlx_peer *late = open_peer(engine, text); /* as of any process that has ended */
    expect_gone(late, (uintptr_t)own.memory, NULL, "the peer is gone");
    OK(nvlx_peer_close(late));
    nvlx_text_free(text);
    end_own(&own);
}

static void ended_engines_are_gone(void) {
    begin();
    for (int way = 0; way < 4; way++)
        end_engine(way & 1, way & 2);
    end();
}

/* The memory outlives the engine that has shared it. */
static void foreign_memory_of_ended_engines_is_gone(void) {
    begin();
    struct nvlx_engine *other = make_engine(0);
    char *memory = allocate(engine, 0, SIZE, 1);
    register_range(other, memory, SIZE, "w", NVLX_ACCESS_READ_WRITE);
    struct nvlx_peer *peer = meet(other, false);
    OK(nvlx_peer_test(peer));
    move(engine, NVLX_OP_READ, peer, mine, (uintptr_t)memory, SIZE);
    struct nvlx_prepared *prepared = prepare(NVLX_OP_READ, peer, (uintptr_t)memory);
    OK(nvlx_engine_destroy(other));
    expect_gone(peer, (uintptr_t)memory, prepared, "the peer is gone");
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_peer_close(peer));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"nothing_is_issued_to_the_dead", nothing_is_issued_to_the_dead},
        {"the_living_are_told_from_the_dead", the_living_are_told_from_the_dead},
        {"an_end_is_told_from_a_death", an_end_is_told_from_a_death},
        {"freed_memory_is_gone", freed_memory_is_gone},
        {"ended_engines_are_gone", ended_engines_are_gone},
        {"foreign_memory_of_ended_engines_is_gone", foreign_memory_of_ended_engines_is_gone},
        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
