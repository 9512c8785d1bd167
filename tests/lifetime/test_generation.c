/* A region's generation travels with its address: an op on what came later is refused, also where a stranger's region
 * lies there by now. And what is told of a peer's regions. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer_support.h"
#include "rendezvous_support.h"

static struct nvlx_region_info region_by_name(struct nvlx_peer *peer, const char *name) {
    struct nvlx_region_info info = {.size = sizeof info};
    OK(nvlx_peer_region_by_name(peer, name, &info));
    return info;
}

/* ---- What is told -------------------------------------------------------------------------------------- */

static void regions_are_told(void) {
    struct owner owner;
    struct nvlx_region_info info = {.size = sizeof info}, named;
    uint64_t generation, seen = 0;
    size_t count = 0, place = 0;
    peers_begin();
    owner_start(&owner);
    const uint64_t base = owner_alloc(&owner, 0, 0, SIZE, 5);
    owner_register(&owner, 0, 0, 64, 100, NVLX_ACCESS_READ, "first");
    owner_register(&owner, 1, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "second");
    owner_register(&owner, 2, 0, 0, SIZE, NVLX_ACCESS_WRITE, NULL);
    owner_register(&owner, 3, 0, 0, 0, NVLX_ACCESS_READ, "nothing");
    owner_register(&owner, 4, 0, 0, 10, NVLX_ACCESS_NONE, "private");
    struct nvlx_peer *peer = open_owner(&owner);
    OK(nvlx_peer_generation(peer, &generation));
    for (; nvlx_peer_region(peer, &place, &info) == 0; count++) {
        EQUAL(sizeof info, info.size);
        EQUAL(generation, info.peer_generation);
        EXPECT(info.generation > 0 && info.generation <= generation);
        seen |= UINT64_C(1) << info.generation;
        if (info.name[0]) {
            named = region_by_name(peer, info.name);
            EXPECT(!memcmp(&info, &named, sizeof info));
        } else {
            EQUAL(NVLX_ACCESS_WRITE, info.access);
        }
    }
    EQUAL(4, count);
    EQUAL(4, __builtin_popcountll(seen)); /* each came with another generation */
    info = region_by_name(peer, "first");
    EQUAL(base + 64, info.address);
    EQUAL(100, info.length);
    EQUAL(NVLX_ACCESS_READ, info.access);
    EQUAL(NVLX_KIND_CUDA_MALLOC, info.kind);
    EXPECT(strncmp(info.gpu, "GPU-", 4) == 0 && strlen(info.gpu) == 40);
    info = region_by_name(peer, "nothing");
    EXPECT(info.length == 0 && info.kind == NVLX_KIND_UNKNOWN && !info.gpu[0]);
    info = region_by_name(peer, "first");
    EXPECT(region_by_name(peer, "second").generation > info.generation);
    REFUSED(nvlx_peer_region(peer, &place, &info), NVLX_ENOENT, "the peer has no region from place 4 on");
    EQUAL(4, place);
    REFUSED(nvlx_peer_region_by_name(peer, "private", &info), NVLX_ENOENT, "\"private\"");
    peers_end();
    owner_end(&owner);
}

static void peers_are_told(void) {
    struct owner owner;
    struct nvlx_peer_info info = {.size = sizeof info};
    uint64_t generation;
    peers_begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    OK(nvlx_peer_generation(peer, &generation));
    OK(nvlx_peer_get_info(peer, &info));
    EQUAL(generation, info.generation);
    EQUAL(1, info.segments);
    EXPECT(info.regions >= 1);
    EQUAL(owner.child.pid, info.pid);
    EXPECT(info.pid_namespace && !info.same_process && !info.followed && !info.address[0]);
    EQUAL(32, strlen(info.engine));
    EXPECT(!strcmp(info.backend, nvlx_backend_name(engine)));
    REFUSED(nvlx_peer_get_info(NULL, &info), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_peer_get_info(peer, NULL), NVLX_EINVAL, "struct nvlx_peer_info is NULL");
    info.size = offsetof(struct nvlx_peer_info, backend);
    REFUSED(nvlx_peer_get_info(peer, &info), NVLX_EINVAL, "ends inside an array");
    peers_end();
    owner_end(&owner);
}

static void arguments_are_checked(void) {
    struct owner owner;
    struct nvlx_region_info info = {.size = 20};
    uint64_t generation;
    size_t place = 0;
    peers_begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    REFUSED(nvlx_peer_region(peer, NULL, &info), NVLX_EINVAL, "place is NULL");
    REFUSED(nvlx_peer_region(peer, &place, &info), NVLX_EINVAL, "struct nvlx_region_info has size 20");
    REFUSED(nvlx_peer_region(peer, &place, NULL), NVLX_EINVAL, "struct nvlx_region_info is NULL");
    REFUSED(nvlx_peer_region(NULL, &place, &info), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_peer_region_by_name(peer, NULL, &info), NVLX_EINVAL, "name is NULL");
    REFUSED(nvlx_peer_generation(NULL, &generation), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_peer_generation(peer, NULL), NVLX_EINVAL, "generation is NULL");
    info.size = offsetof(struct nvlx_region_info, peer_generation); /* of an older caller */
    OK(nvlx_peer_region(peer, &place, &info));
    EQUAL(SIZE, info.length);
    EQUAL(0, info.peer_generation);
    info = (struct nvlx_region_info){.size = offsetof(struct nvlx_region_info, suspended), .suspended = 7};
    place = 0;
    OK(nvlx_peer_region(peer, &place, &info)); /* of one that is younger */
    EXPECT(info.name[0] && info.suspended == 7);
    info.size -= sizeof(size_t);
    place = 0;
    REFUSED(nvlx_peer_region(peer, &place, &info), NVLX_EINVAL, "ends inside an array");
    info.size = offsetof(struct nvlx_region_info, gpu) + 8;
    REFUSED(nvlx_peer_region(peer, &place, &info), NVLX_EINVAL, "ends inside an array");
    peers_end();
    owner_end(&owner);
}

/* ---- Ops ------------------------------------------------------------------------------------------------ */

static int start_at(const struct nvlx_op *ops, size_t count, uint64_t generation) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.generation = generation;
    int code = nvlx_transfer(engine, ops, count, &options, &request);
    if (!code)
        finish(request);
    return code;
}

static int prepare_at(const struct nvlx_op *ops, size_t count, uint64_t generation) {
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared;
    nvlx_transfer_options_init(&options);
    options.generation = generation;
    int code = nvlx_prepare(engine, ops, count, &options, &prepared);
    if (!code)
        OK(nvlx_prepared_free(prepared));
    return code;
}

/* A region is withdrawn, and another one registered in its place. */
static void replace(struct owner *owner, struct nvlx_peer *peer) {
    OK(owner_unregister(owner, 0));
    owner_register(owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "stranger");
    update(peer, owner);
}

static void what_came_later_is_refused(void) {
    struct owner owner;
    char words[64];
    peers_begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    const struct nvlx_region_info old = region_by_name(peer, "w");
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, old.address + 100, 1000);
    OK(start_at(&op, 1, old.peer_generation));
    OK(start_at(&op, 1, old.generation));
    OK(prepare_at(&op, 1, old.generation));
    REFUSED(start_at(&op, 1, old.generation - 1 ? old.generation - 1 : UINT64_MAX), NVLX_ESTALE, "op 0");
    replace(&owner, peer);
    const struct nvlx_region_info young = region_by_name(peer, "stranger");
    EQUAL(old.address, young.address);
    OK(start_at(&op, 1, 0)); /* who tells no generation is not protected */
    for (int twice = 0; twice < 2; twice++) {
        snprintf(words, sizeof words, "came with generation %" PRIu64, young.generation);
        REFUSED(start_at(&op, 1, old.peer_generation), NVLX_ESTALE, words);
        snprintf(words, sizeof words, "op 0: the peer's range 0x%" PRIx64 " + 1000", op.remote);
        REFUSED(start_at(&op, 1, old.peer_generation), NVLX_ESTALE, words);
        REFUSED(prepare_at(&op, 1, old.peer_generation), NVLX_ESTALE, "op 0");
        op.opcode = NVLX_OP_WRITE;
        REFUSED(start_at(&op, 1, old.peer_generation), NVLX_ESTALE, "op 0");
        op.opcode = NVLX_OP_READ;
        OK(start_at(&op, 1, young.peer_generation)); /* warms what a validation remembers of the piece */
    }
    OK(start_at(&op, 1, young.generation));
    OK(prepare_at(&op, 1, young.generation));
    REFUSED(start_at(&op, 1, young.peer_generation + 1), NVLX_ESTALE, "nvlx_peer_sync");
    peers_end();
    owner_end(&owner);
}

/* Among many regions, one of which was replaced: the op is named, whichever way it is checked. */
static void the_op_is_named(void) {
    enum { REGIONS = 40, EACH = 4 };
    struct owner owner;
    struct nvlx_op ops[REGIONS * EACH];
    peers_begin();
    owner_start(&owner);
    const uint64_t base = owner_alloc(&owner, 0, 0, SIZE, 1);
    for (uint32_t i = 0; i < REGIONS; i++)
        owner_register(&owner, i, 0, 1024 * i, 1000, NVLX_ACCESS_READ, NULL);
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t before, after;
    OK(nvlx_peer_generation(peer, &before));
    for (size_t i = 0; i < COUNT(ops); i++)
        ops[i] = make_op(NVLX_OP_READ, peer, mine + 100 * i, base + 1024 * (i / EACH) + 100 * (i % EACH), 100);
    OK(start_at(ops, COUNT(ops), before));
    OK(owner_unregister(&owner, 29));
    owner_register(&owner, 29, 0, 1024 * 29, 1000, NVLX_ACCESS_READ, NULL);
    update(peer, &owner);
    OK(nvlx_peer_generation(peer, &after));
    for (int twice = 0; twice < 2; twice++) {
        REFUSED(start_at(ops, COUNT(ops), before), NVLX_ESTALE, "op 116:");
        OK(start_at(ops, 29 * EACH, before));
        OK(start_at(ops + 30 * EACH, 10 * EACH, before));
        OK(start_at(ops, COUNT(ops), after));
        OK(start_at(ops, COUNT(ops), 0));
    }
    /* Also where the op begins in what is old. */
    owner_register(&owner, 41, 0, 1000, 24, NVLX_ACCESS_READ, NULL);
    update(peer, &owner);
    struct nvlx_op across = make_op(NVLX_OP_READ, peer, mine, base, 1024);
    REFUSED(start_at(&across, 1, after), NVLX_ESTALE, "op 0:");
    OK(start_at(&across, 1, 0));
    peers_end();
    owner_end(&owner);
}

/* What lies in a region that is old enough stays what it is, whatever is registered over it. */
static void older_regions_protect_their_bytes(void) {
    struct owner owner;
    uint64_t before;
    peers_begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    OK(nvlx_peer_generation(peer, &before));
    owner_register(&owner, 1, 0, 50, 500, NVLX_ACCESS_READ, "over");
    update(peer, &owner);
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, find(peer, "w"), SIZE);
    OK(start_at(&op, 1, before));
    OK(owner_unregister(&owner, 0));
    update(peer, &owner);
    op = make_op(NVLX_OP_READ, peer, mine, find(peer, "over"), 500);
    REFUSED(start_at(&op, 1, before), NVLX_ESTALE, "op 0:");
    peers_end();
    owner_end(&owner);
}

/* The generations of two peers have nothing to do with each other. */
static void one_peer_at_a_time(void) {
    struct owner owners[2];
    struct nvlx_peer *peers[2];
    struct nvlx_op ops[3];
    peers_begin();
    for (size_t i = 0; i < COUNT(owners); i++) {
        start_owner(&owners[i], 1);
        peers[i] = open_owner(&owners[i]);
    }
    for (size_t i = 0; i < COUNT(ops); i++)
        ops[i] = make_op(NVLX_OP_READ, peers[i / 2], mine + 100 * i, find(peers[i / 2], "w"), 100);
    const struct nvlx_region_info info = region_by_name(peers[0], "w");
    REFUSED(start_at(ops, COUNT(ops), info.peer_generation), NVLX_EINVAL, "op 2:");
    OK(start_at(ops, 2, info.peer_generation));
    OK(start_at(ops, COUNT(ops), 0));
    peers_end();
    for (size_t i = 0; i < COUNT(owners); i++)
        owner_end(&owners[i]);
}

static void posts_take_none(void) {
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    peers_begin();
    nvlx_transfer_options_init(&options);
    options.generation = 1;
    OK(nvlx_prepare(engine, NULL, 0, NULL, &prepared));
    REFUSED(nvlx_post(prepared, &options, &request), NVLX_EINVAL, "generation");
    OK(nvlx_prepared_free(prepared));
    peers_end();
}

/* ---- Addresses that are used again ---------------------------------------------------------------------- */

struct reader {
    struct nvlx_peer *peer;
    atomic_bool stop;
    size_t right, refused, stale;
};

/* Until the peer has replaced what it had at a generation, as far as it does. */
static void await_stranger(const struct reader *reader, uint64_t generation) {
    uint64_t known = generation;
    for (const double since = now_ms(); known < generation + 2 && now_ms() - since < 20;)
        OK(nvlx_peer_generation(reader->peer, &known));
}

/* Learns of a region, whose name tells what is in it, and reads it for as long as that is allowed. */
static void read_one(struct reader *reader, bool late) {
    struct nvlx_region_info info = {.size = sizeof info};
    uint8_t bytes[512];
    size_t place = 0;
    int code = nvlx_peer_region(reader->peer, &place, &info);
    if (!code && !info.name[0]) /* the one that keeps the segment mapped */
        code = nvlx_peer_region(reader->peer, &place, &info);
    if (!code && late)
        await_stranger(reader, info.peer_generation);
    while (code == 0 && !atomic_load(&reader->stop)) {
        struct nvlx_op op = make_op(NVLX_OP_READ, reader->peer, mine, info.address, sizeof bytes);
        code = start_at(&op, 1, info.peer_generation);
        if (code)
            break;
        OK(nvlx_memcpy(engine, bytes, mine, sizeof bytes));
        const uint32_t seed = (uint32_t)strtoul(info.name, NULL, 10);
        bool same = true;
        for (size_t i = 0; i < sizeof bytes; i++)
            same = same && bytes[i] == seed_byte(seed, i);
        reader->right += same;
        reader->stale += !same;
    }
    EXPECT(code == 0 || code == NVLX_ENOENT || code == NVLX_ERANGE || code == NVLX_ESTALE);
    reader->refused += code == NVLX_ERANGE || code == NVLX_ESTALE;
}

static void *read_on(void *argument) {
    struct reader *reader = argument;
    for (bool late = false; !atomic_load(&reader->stop); late = !late)
        read_one(reader, late);
    return NULL;
}

/* The owner hands the same address to one region after the other, each with other bytes. */
static void addresses_are_used_again(void) {
    const uint32_t rounds = sanitized() ? 200 : 1000;
    struct owner owner;
    struct reader reader = {.peer = NULL};
    pthread_t thread;
    char name[16];
    peers_begin();
    owner_start(&owner);
    owner_alloc(&owner, 0, 0, SIZE, 1);
    owner_register(&owner, 1, 0, SIZE - 1, 1, NVLX_ACCESS_WRITE, NULL); /* keeps the segment mapped */
    owner_register(&owner, 0, 0, 0, 512, NVLX_ACCESS_READ, "1");
    OK(owner_serve(&owner, own_path(), 0));
    reader.peer = connect_to(engine, own_path());
    EQUAL(0, pthread_create(&thread, NULL, read_on, &reader));
    for (uint32_t round = 2; round <= rounds; round++) {
        OK(owner_unregister(&owner, 0));
        owner_fill(&owner, 0, 0, 512, round);
        snprintf(name, sizeof name, "%" PRIu32, round);
        owner_register(&owner, 0, 0, 0, 512, NVLX_ACCESS_READ, name);
        if (round % 2 == 0) /* else it may be replaced before the reader knows it */
            await_name(reader.peer, name);
    }
    atomic_store(&reader.stop, true);
    EQUAL(0, pthread_join(thread, NULL));
    printf("           %zu reads were right, %zu refused, %zu stale\n", reader.right, reader.refused, reader.stale);
    EQUAL(0, reader.stale);
    EXPECT(reader.right >= 50 && reader.refused >= 50);
    peers_end();
    owner_end(&owner);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"regions_are_told", regions_are_told},
                                        {"peers_are_told", peers_are_told},
                                        {"arguments_are_checked", arguments_are_checked},
                                        {"what_came_later_is_refused", what_came_later_is_refused},
                                        {"the_op_is_named", the_op_is_named},
                                        {"older_regions_protect_their_bytes", older_regions_protect_their_bytes},
                                        {"one_peer_at_a_time", one_peer_at_a_time},
                                        {"posts_take_none", posts_take_none},
                                        {"addresses_are_used_again", addresses_are_used_again},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
