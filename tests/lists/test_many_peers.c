/* Lists that name several peers, one on each GPU of the host backend: in which order these are served, and that every
 * byte comes from the right one. SPDX-License-Identifier: Apache-2.0
 *
 * NVLX_RANDOM_LISTS=N test_many_peers lists_of_many_peers    as many lists as one has the patience for */
#include <stdio.h>
#include <stdlib.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "support.h"

#define GPUS 4
#define SIZE (4 * MIB)
#define SEED 20 /* of GPU 0's owner; then one more each */

static struct nvlx_engine *engine;
static struct child owners[GPUS];
static struct nvlx_peer *peers[GPUS];
static uint64_t theirs[GPUS]; /* where each owner has SIZE bytes */
static char *mine[GPUS];      /* on each GPU, room for what all owners have */

/* An owner has memory on one GPU, whose number it is told. */
static void one_owner(int socket) {
    struct nvlx_config config;
    int gpu;
    char *text;
    size_t length;
    get(socket, &gpu, sizeof gpu);
    fill_config(&config);
    config.gpus = &gpu;
    config.gpu_count = 1;
    OK(nvlx_engine_create(&config, &engine));
    register_range(engine, allocate(engine, gpu, SIZE, SEED + (uint32_t)gpu), SIZE, "w", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_export(engine, &text, &length));
    put_text(socket, text, length);
    nvlx_text_free(text);
    while (get_or_end(socket, &gpu, sizeof gpu)) {
    }
    OK(nvlx_engine_destroy(engine));
}

static void begin_owner(int gpu) {
    size_t length;
    child_start(&owners[gpu], "owner");
    put(owners[gpu].socket, &gpu, sizeof gpu);
    char *text = get_text(owners[gpu].socket, &length);
    peers[gpu] = open_peer(engine, text);
    theirs[gpu] = find(peers[gpu], "w");
    free(text);
}

/* On every second GPU as regions of different size, so that ops change between them. */
static void register_mine(int gpu) {
    const size_t all = GPUS * SIZE, shortest = all / 64;
    size_t at = 0;
    for (size_t length = shortest; gpu % 2 && at + length < all; at += length, length += shortest)
        register_range(engine, mine[gpu] + at, length, NULL, NVLX_ACCESS_NONE);
    register_range(engine, mine[gpu] + at, all - at, NULL, NVLX_ACCESS_NONE);
}

static void begin_all(void) {
    static const int gpus[GPUS] = {0, 1, 2, 3};
    struct nvlx_config config;
    fill_config(&config);
    config.gpus = gpus;
    config.gpu_count = GPUS;
    OK(nvlxi_engine_create(&config, &faulty_device, &engine));
    for (int i = 0; i < GPUS; i++) {
        mine[i] = allocate(engine, i, GPUS * SIZE, 99);
        register_mine(i);
        begin_owner(i);
    }
}

static void end_all(void) {
    OK(nvlx_engine_destroy(engine));
    for (int i = 0; i < GPUS; i++)
        child_end(&owners[i]);
}

/* What `gpu` reads from an owner goes to a place of its own. */
static struct nvlx_op read_op(int gpu, int owner, size_t offset, size_t length) {
    return make_op(NVLX_OP_READ, peers[owner], mine[gpu] + (size_t)owner * SIZE + offset, theirs[owner] + offset,
                   length);
}

/* ---- Order ---------------------------------------------------------------------------------------------- */

/* Whose memory that is, so many bytes behind its begin: mapped memory of the host's can be read. */
static int owner_at(uint64_t source, size_t offset) {
    for (int i = 0; i < GPUS; i++)
        if (*(const uint8_t *)(uintptr_t)source == seed_byte(SEED + (uint32_t)i, offset))
            return i;
    return -1;
}

/* GPU `gpu` reads from all owners, named from 0 up or from the last one down: from the next GPU on, and itself last. A
 * kernel that reads from several has no more SMs than one that reads from one; what stays on the GPU has its own. */
static void expect_turns(int gpu, size_t length, bool down, uint32_t mechanism) {
    const size_t kernels = mechanism == NVLX_MECHANISM_KERNEL ? 2 : 0;
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct nvlx_op ops[GPUS];
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    for (int i = 0; i < GPUS; i++)
        ops[i] = read_op(gpu, down ? GPUS - 1 - i : i, 0, length);
    atomic_store(&faults.issued, 0);
    atomic_store(&faults.launched, 0);
    OK(nvlx_transfer(engine, ops, GPUS, &options, &request));
    OK(nvlx_request_get_info(request, &info));
    finish(request);
    EQUAL(GPUS, atomic_load(&faults.issued));
    EQUAL(kernels, atomic_load(&faults.launched));
    EQUAL(32 * kernels, info.sms);
    for (size_t i = 0; i < kernels; i++)
        EQUAL(32, faults.launches[i].sms);
    for (int i = 0; i < GPUS; i++)
        EQUAL((gpu + 1 + i) % GPUS, owner_at(faults.issues[i].source, 0));
    for (int i = 0; i < GPUS; i++)
        EQUAL(0, wrong(engine, mine[gpu] + (size_t)i * SIZE, length, SEED + (uint32_t)i));
}

static void each_begins_with_the_next(void) {
    begin_all();
    for (int gpu = 0; gpu < GPUS; gpu++)
        for (int i = 0; i < 4; i++)
            expect_turns(gpu, i & 1 ? 2 * MIB : 1000, i & 2, i & 1 ? NVLX_MECHANISM_AUTO : NVLX_MECHANISM_KERNEL);
    end_all();
}

/* Copies by engines of all peers use one lane, so that each GPU reads from one at a time. What stays on the GPU has
 * another. */
static void engines_serve_peer_after_peer(void) {
    enum { EACH = 24, ALL = GPUS * EACH }; /* enough copies for several lanes */
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct nvlx_op list[ALL];
    const struct issue *issue = faults.issues; /* one call for each peer, then those on the GPU itself */
    begin_all();
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    for (int i = 0; i < ALL; i++) /* no rows: the lengths differ */
        list[i] = read_op(1, i % GPUS, (size_t)(i / GPUS) * 4096, 1000 + (size_t)i);
    atomic_store(&faults.issued, 0);
    OK(nvlx_transfer(engine, list, ALL, &options, &request));
    finish(request);
    EXPECT(atomic_load(&faults.issued) >= GPUS);
    for (int i = 0; i < GPUS - 1; i++) {
        EQUAL((2 + i) % GPUS, owner_at(issue[i].source, 0));
        EXPECT(issue[i].lane == issue[0].lane);
    }
    for (size_t i = GPUS - 1; i < atomic_load(&faults.issued); i++)
        EXPECT(issue[i].lane != issue[0].lane);
    end_all();
}

/* ---- Lists that change between peers ----------------------------------------------------------------------- */

#define SLOT   ((size_t)512)
#define HALF   (SIZE / 2)        /* of an owner's memory: is read. The other half is written */
#define AREA   (GPUS * SIZE / 2) /* of ours: is read into. The other half is written from, and has seed 99 */
#define OPS    12000
#define WRITES (HALF / SLOT) /* to one owner */

enum order { IN_TURN, NEARLY_IN_TURN, AT_RANDOM, IN_RUNS, ONE_AFTER_THE_OTHER, ORDERS };

struct expected { /* of an op */
    uint32_t seed;
    size_t at, length; /* in what has the seed */
    int written;       /* to this owner; or -1: read */
    size_t to;
};

static struct nvlx_op ops[OPS];
static struct expected expected[OPS];
static uint64_t state = 1;

static int pick_owner(enum order order, size_t index, size_t count, int before) {
    switch (order) {
    case IN_TURN:
        return (int)(index % GPUS);
    case NEARLY_IN_TURN:
        return (int)((next_random(&state) % 300 ? index : next_random(&state)) % GPUS);
    case AT_RANDOM:
        return (int)(next_random(&state) % GPUS);
    case IN_RUNS:
        return next_random(&state) % 40 ? before : (int)(next_random(&state) % GPUS);
    default:
        return (int)(index * GPUS / count);
    }
}

/* Of random lengths at random places; a few continue the one before on both sides. `writes`: of 8 ops, so many. */
static void make_list(int gpu, enum order order, size_t count, uint32_t writes) {
    size_t written[GPUS] = {0};
    int owner = 0;
    for (size_t i = 0; i < count; i++) {
        owner = pick_owner(order, i, count, owner);
        const size_t length = 1 + next_random(&state) % SLOT, room = next_random(&state) % (HALF / SLOT) * SLOT;
        const bool write = next_random(&state) % 8 < writes && written[owner] < WRITES;
        const size_t to = write ? HALF + written[owner]++ * SLOT : i * SLOT;
        expected[i] = (struct expected){write ? 99 : SEED + (uint32_t)owner, room, length, write ? owner : -1, to};
        if (write)
            ops[i] = make_op(NVLX_OP_WRITE, peers[owner], mine[gpu] + AREA + room, theirs[owner] + to, length);
        else
            ops[i] = make_op(NVLX_OP_READ, peers[owner], mine[gpu] + to, theirs[owner] + room, length);
        if (write)
            expected[i].at += AREA;
    }
}

/* Compares every byte that the ops brought, here and there. */
static void compare(int gpu, size_t count) {
    uint8_t *here = malloc(AREA), *there[GPUS];
    EXPECT(here != NULL);
    OK(nvlx_memcpy(engine, here, mine[gpu], AREA));
    for (int i = 0; i < GPUS; i++) {
        EXPECT((there[i] = malloc(SIZE)) != NULL);
        move(engine, NVLX_OP_READ, peers[i], mine[gpu], theirs[i], SIZE);
        OK(nvlx_memcpy(engine, there[i], mine[gpu], SIZE));
    }
    for (size_t i = 0; i < count; i++) {
        const struct expected *e = &expected[i];
        const uint8_t *bytes = (e->written < 0 ? here : there[e->written]) + e->to;
        for (size_t at = 0; at < e->length; at++)
            if (bytes[at] != seed_byte(e->seed, e->at + at))
                FAIL("op %zu of %zu: byte %zu of %zu is wrong", i, count, at, e->length);
    }
    free(here);
    for (int i = 0; i < GPUS; i++)
        free(there[i]);
}

/* All ways by which lists are checked and planned: short and long, read and written, one call and prepared. */
static void lists_of_many_peers(void) {
    static const size_t counts[] = {5, 70, 500, 3000, OPS};
    const char *lists = getenv("NVLX_RANDOM_LISTS");
    const long rounds = lists ? atol(lists) : 2L * ORDERS * (long)COUNT(counts);
    begin_all();
    for (long round = 0; round < rounds; round++) {
        const size_t count = counts[round / ORDERS % (long)COUNT(counts)];
        const int gpu = (int)(next_random(&state) % GPUS);
        make_list(gpu, (enum order)(round % ORDERS), count, round % 3 ? 0 : 2);
        if (round % 5 == 4) {
            struct nvlx_prepared *prepared;
            struct nvlx_request *request;
            OK(nvlx_prepare(engine, ops, count, NULL, &prepared));
            OK(nvlx_post(prepared, NULL, &request));
            finish(request);
            OK(nvlx_prepared_free(prepared));
        } else {
            finish(start(engine, ops, count));
        }
        compare(gpu, count);
    }
    end_all();
}

/* The op that is wrong is named, wherever it is among others, and nothing is copied. */
static void errors_name_the_op(void) {
    struct nvlx_request *request;
    char words[32];
    begin_all();
    for (int round = 0; round < 60; round++) {
        const int gpu = (int)(next_random(&state) % GPUS);
        const size_t count = round % 2 ? 300 : 2000, bad = next_random(&state) % count;
        make_list(gpu, (enum order)(round % ORDERS), count, 0);
        switch (round / ORDERS % 3) {
        case 0:
            ops[bad].remote = theirs[0] + SIZE - ops[bad].length + 1;
            ops[bad].peer = peers[0];
            break;
        case 1:
            ops[bad].local = words;
            break;
        default:
            ops[bad].opcode = 77;
        }
        snprintf(words, sizeof words, "op %zu:", bad);
        REFUSED(nvlx_transfer(engine, ops, count, NULL, &request), round / ORDERS % 3 == 2 ? NVLX_EINVAL : NVLX_ERANGE,
                words);
    }
    for (int gpu = 0; gpu < GPUS; gpu++)
        EQUAL(0, wrong(engine, mine[gpu], GPUS * SIZE, 99));
    end_all();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"each_begins_with_the_next", each_begins_with_the_next},
                                        {"engines_serve_peer_after_peer", engines_serve_peer_after_peer},
                                        {"lists_of_many_peers", lists_of_many_peers},
                                        {"errors_name_the_op", errors_name_the_op},
                                        {0}};
    static const struct role roles[] = {{"owner", one_owner}, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
