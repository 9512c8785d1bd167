/* What a transfer moves and what it refuses: every byte of four buffers is compared with a model.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define SIZE (256 * KIB)

/* Where the owner's regions lie in its slot 0, and ours in both buffers. */
enum {
    A = 4096,
    A_LENGTH = 65536,
    B = A + A_LENGTH, /* touches A */
    B_LENGTH = 1001,
    READ_ONLY = 100000,
    WRITE_ONLY = 120000,
    RIGHTS_LENGTH = 10000,
    MINE = 1024,
    MINE_LENGTH = 200000
};

static struct bench bench;
static uint64_t far_base, near_base; /* the owner's slots 1 and 0 */

static void begin(uint32_t max_requests) {
    bench_begin(&bench, make_engine(max_requests), SIZE);
    owner_register(&bench.owner, 0, 0, A, A_LENGTH, NVLX_ACCESS_READ_WRITE, "a");
    owner_register(&bench.owner, 1, 0, B, B_LENGTH, NVLX_ACCESS_READ_WRITE, "b");
    owner_register(&bench.owner, 2, 0, READ_ONLY, RIGHTS_LENGTH, NVLX_ACCESS_READ, "read only");
    owner_register(&bench.owner, 3, 0, WRITE_ONLY, RIGHTS_LENGTH, NVLX_ACCESS_WRITE, "write only");
    owner_register(&bench.owner, 4, 1, 0, SIZE, NVLX_ACCESS_READ_WRITE, "far");
    bench_open_peer(&bench);
    for (int i = 0; i < 2; i++)
        register_range(bench.engine, bench.local[i] + MINE, MINE_LENGTH, NULL, NVLX_ACCESS_NONE);
    near_base = bench.remote[0];
    far_base = bench.remote[1];
    EQUAL(near_base + A, find(bench.peer, "a"));
    EQUAL(far_base, find(bench.peer, "far"));
}

static struct nvlx_op op(uint32_t opcode, int buffer, size_t local, uint64_t remote, size_t length) {
    return make_op(opcode, bench.peer, bench.local[buffer] + local, remote, length);
}

static void move_one(uint32_t opcode, int buffer, size_t local, uint64_t remote, size_t length, const char *when) {
    struct nvlx_op one = op(opcode, buffer, local, remote, length);
    bench_move(&bench, &one, 1, NULL, when);
}

/* Refused, with words in the message, and not a byte changed anywhere. */
static void refuse(const struct nvlx_op *ops, size_t count, int code, const char *words) {
    struct nvlx_request *request = (struct nvlx_request *)&bench;
    REFUSED(nvlx_transfer(bench.engine, ops, count, NULL, &request), code, words);
    EXPECT(request == (struct nvlx_request *)&bench);
    EQUAL(0, engine_info(bench.engine).requests);
    bench_compare(&bench, words);
}

static void refuse_one(uint32_t opcode, int buffer, size_t local, uint64_t remote, size_t length, int code,
                       const char *words) {
    struct nvlx_op one = op(opcode, buffer, local, remote, length);
    refuse(&one, 1, code, words);
}

static void reads_and_writes(void) {
    begin(0);
    move_one(NVLX_OP_READ, 0, MINE + 3, near_base + A, A_LENGTH, "read a whole region");
    move_one(NVLX_OP_WRITE, 1, MINE + 7, near_base + A + 100, 5000, "write, odd addresses");
    move_one(NVLX_OP_READ, 1, MINE, far_base + SIZE - 1, 1, "read the last byte");
    move_one(NVLX_OP_WRITE, 0, MINE + MINE_LENGTH - 1, far_base, 1, "write one byte from the last one");
    move_one(NVLX_OP_READ, 0, MINE, near_base + A, A_LENGTH + B_LENGTH, "over the union of adjacent regions");
    move_one(NVLX_OP_WRITE, 0, MINE, near_base + B - 1, 2, "over the border of adjacent regions");
    for (size_t length = 1; length < 40; length++)
        move_one(length % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, 0, MINE + 5 * length, near_base + A + 7 * length, length,
                 "short and odd");
    bench_end(&bench);
}

static void mixed_list(void) {
    struct nvlx_op ops[40];
    struct owner other;
    begin(0);
    owner_start(&other);
    uint64_t base = owner_alloc(&other, 0, 0, SIZE, 3);
    owner_register(&other, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "other");
    char *text = owner_export(&other);
    struct nvlx_peer *second = open_peer(bench.engine, text);
    for (size_t i = 0; i < 40; i++) {
        uint32_t opcode = i & 1 ? NVLX_OP_READ : NVLX_OP_WRITE;
        uint64_t remote = (i & 4 ? far_base : near_base + A) + 1500 * i;
        ops[i] = op(opcode, i & 2 ? 1 : 0, MINE + 1600 * i + i % 7, remote, 1000 + i);
    }
    bench_move(&bench, ops, 40, NULL, "both directions, both GPUs, one peer");
    for (size_t i = 0; i < 40; i++) {
        ops[i].opcode = NVLX_OP_READ;
        ops[i].peer = i & 1 ? second : bench.peer;
        ops[i].remote = (i & 1 ? base : near_base + A) + 1500 * i;
    }
    finish(start(bench.engine, ops, 40));
    for (size_t i = 0; i < 40; i++) {
        uint8_t bytes[1100];
        OK(nvlx_memcpy(bench.engine, bytes, ops[i].local, ops[i].length));
        for (size_t j = 0; j < ops[i].length && i & 1; j++)
            EQUAL(seed_byte(3, 1500 * i + j), bytes[j]);
        for (size_t j = 0; j < ops[i].length && !(i & 1); j++)
            EQUAL(bench.model_remote[0][A + 1500 * i + j], bytes[j]);
    }
    free(text);
    OK(nvlx_peer_close(second));
    owner_end(&other);
    bench_end(&bench);
}

static void nothing_to_move(void) {
    struct nvlx_request_info info = {.size = sizeof info};
    begin(0);
    struct nvlx_request *request = start(bench.engine, NULL, 0);
    OK(nvlx_test(request));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(0, info.bytes);
    EQUAL(0, info.ops);
    finish(request);
    struct nvlx_op ops[3] = {make_op(NVLX_OP_READ, bench.peer, NULL, 0, 0),
                             make_op(NVLX_OP_WRITE, bench.peer, (void *)UINTPTR_MAX, UINT64_MAX, 0),
                             op(NVLX_OP_READ, 0, MINE, near_base + A, 10)};
    bench_move(&bench, ops, 2, NULL, "only ops of no bytes");
    bench_move(&bench, ops, 3, NULL, "ops of no bytes before one that has some");
    struct nvlx_op last[3] = {ops[2], ops[0], ops[2]};
    last[2].local = bench.local[0] + MINE + 100;
    bench_move(&bench, last, 3, NULL, "ops of no bytes between");
    bench_end(&bench);
}

static void bounds(void) {
    begin(0);
    refuse_one(NVLX_OP_READ, 0, MINE - 1, near_base + A, 10, NVLX_ERANGE, "op 0: local");
    refuse_one(NVLX_OP_READ, 0, MINE + MINE_LENGTH - 9, near_base + A, 10, NVLX_ERANGE, "op 0: local");
    refuse_one(NVLX_OP_WRITE, 1, MINE + MINE_LENGTH, near_base + A, 1, NVLX_ERANGE, "op 0: local");
    refuse_one(NVLX_OP_READ, 0, MINE, near_base + A - 1, 10, NVLX_ERANGE, "op 0: the peer's range");
    refuse_one(NVLX_OP_WRITE, 0, MINE, near_base + A - 1, 10, NVLX_ERANGE, "op 0: the peer's range");
    refuse_one(NVLX_OP_READ, 0, MINE, near_base + B + B_LENGTH - 9, 10, NVLX_ERANGE, "op 0: the peer's range");
    refuse_one(NVLX_OP_READ, 0, MINE, near_base + B + B_LENGTH - 9, 10, NVLX_ERANGE,
               "missing, the 9 before it are there)");
    refuse_one(NVLX_OP_READ, 0, MINE, near_base + B + B_LENGTH, 1, NVLX_ERANGE, "op 0: the peer's range");
    refuse_one(NVLX_OP_READ, 0, MINE, far_base + SIZE - 9, 10, NVLX_ERANGE, "op 0: the peer's range");
    refuse_one(NVLX_OP_READ, 0, MINE, near_base + A, SIZE_MAX, NVLX_ERANGE, "op 0");
    refuse_one(NVLX_OP_READ, 0, MINE, UINT64_MAX - 4, 5, NVLX_ERANGE, "op 0");
    refuse_one(NVLX_OP_READ, 0, MINE, UINT64_MAX, 1, NVLX_ERANGE, "op 0");
    refuse_one(NVLX_OP_READ, 0, MINE, 0, 1, NVLX_ERANGE, "op 0");
    refuse_one(NVLX_OP_READ, 0, MINE, near_base + A - (UINT64_C(1) << 40), 5, NVLX_ERANGE, "op 0");
    /* the same on the path of ops that need nothing new */
    struct nvlx_op ops[3] = {
        op(NVLX_OP_READ, 0, MINE, near_base + A, 10), op(NVLX_OP_READ, 0, MINE + 20, near_base + A, 10), {0}};
    ops[2] = op(NVLX_OP_READ, 0, MINE + 40, near_base + A - 1, 10);
    refuse(ops, 3, NVLX_ERANGE, "op 2: the peer's range");
    ops[2] = op(NVLX_OP_READ, 0, MINE + 40, near_base + B + B_LENGTH - 9, 10);
    refuse(ops, 3, NVLX_ERANGE, "op 2: the peer's range");
    ops[2] = op(NVLX_OP_READ, 0, MINE - 1, near_base + A, 10);
    refuse(ops, 3, NVLX_ERANGE, "op 2: local");
    ops[2] = op(NVLX_OP_READ, 0, MINE + MINE_LENGTH - 9, near_base + A, 10);
    refuse(ops, 3, NVLX_ERANGE, "op 2: local");
    bench_end(&bench);
}

static void rights(void) {
    begin(0);
    move_one(NVLX_OP_READ, 0, MINE, near_base + READ_ONLY, RIGHTS_LENGTH, "read what may be read");
    move_one(NVLX_OP_WRITE, 0, MINE, near_base + WRITE_ONLY, RIGHTS_LENGTH, "write what may be written");
    refuse_one(NVLX_OP_WRITE, 0, MINE, near_base + READ_ONLY, 10, NVLX_EACCES, "op 0: the peer's region");
    refuse_one(NVLX_OP_READ, 0, MINE, near_base + WRITE_ONLY + 9, 10, NVLX_EACCES, "does not grant reading");
    struct nvlx_op ops[4] = {op(NVLX_OP_READ, 0, MINE, near_base + READ_ONLY, 10),
                             op(NVLX_OP_WRITE, 0, MINE + 10, near_base + WRITE_ONLY, 10),
                             op(NVLX_OP_READ, 0, MINE + 20, near_base + READ_ONLY + 50, 10),
                             op(NVLX_OP_WRITE, 0, MINE + 30, near_base + READ_ONLY + 20, 10)};
    refuse(ops, 4, NVLX_EACCES, "op 3: the peer's region");
    ops[3] = op(NVLX_OP_READ, 0, MINE + 30, near_base + WRITE_ONLY + 20, 10);
    refuse(ops, 4, NVLX_EACCES, "op 3: the peer's region");
    bench_move(&bench, ops, 3, NULL, "the good ones of the list");
    bench_end(&bench);
}

static void bad_fields(void) {
    struct nvlx_request *request;
    begin(0);
    struct nvlx_op good = op(NVLX_OP_READ, 0, MINE, near_base + A, 10), ops[3];
    for (int i = 0; i < 3; i++)
        ops[i] = good;
    ops[1].opcode = 0;
    refuse(ops, 3, NVLX_EINVAL, "op 1: opcode 0");
    ops[1].opcode = 5;
    refuse(ops, 3, NVLX_EINVAL, "op 1: opcode 5");
    ops[1] = good, ops[1].flags = 1;
    refuse(ops, 3, NVLX_EINVAL, "op 1: flags");
    ops[1] = good, ops[1].arg = 1;
    refuse(ops, 3, NVLX_EINVAL, "op 1: flags");
    ops[1] = good, ops[1].peer = NULL;
    refuse(ops, 3, NVLX_EINVAL, "op 1: peer is NULL");
    REFUSED(nvlx_transfer(bench.engine, NULL, 1, NULL, &request), NVLX_EINVAL, "ops is NULL");
    REFUSED(nvlx_transfer(bench.engine, ops, 0, NULL, NULL), NVLX_EINVAL, "request is NULL");
    REFUSED(nvlx_transfer(NULL, ops, 0, NULL, &request), NVLX_EINVAL, "engine is NULL");
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.flags = 1u << 31;
    REFUSED(nvlx_transfer(bench.engine, &good, 1, &options, &request), NVLX_EINVAL, "flags 0x80000000");
    nvlx_transfer_options_init(&options);
    options.mechanism = 77;
    REFUSED(nvlx_transfer(bench.engine, &good, 1, &options, &request), NVLX_EINVAL, "mechanism 77");
    struct nvlx_engine *other = make_engine(0);
    char *text = owner_export(&bench.owner);
    ops[1] = good, ops[1].peer = open_peer(other, text);
    refuse(ops, 3, NVLX_EINVAL, "op 1: the peer");
    free(text);
    OK(nvlx_engine_destroy(other));
    bench_end(&bench);
}

/* One bad op in the middle of a long list: nothing is moved, and the message names it. */
static void all_or_none(void) {
    enum { OPS = 10001, BAD = 5000 };
    struct nvlx_op *ops = calloc(OPS, sizeof *ops);
    EXPECT(ops != NULL);
    begin(0);
    for (size_t i = 0; i < OPS; i++)
        ops[i] = op(NVLX_OP_READ, i % 2 ? 1 : 0, MINE + 10 * i, near_base + A + 3 * i, 7);
    ops[BAD].remote = near_base + B + B_LENGTH - 3;
    refuse(ops, OPS, NVLX_ERANGE, "op 5000: the peer's range");
    ops[BAD] = ops[0], ops[BAD].opcode = NVLX_OP_WRITE, ops[BAD].remote = near_base + READ_ONLY;
    refuse(ops, OPS, NVLX_EACCES, "op 5000: the peer's region");
    ops[BAD] = ops[0], ops[BAD].local = bench.local[0] + MINE - 1;
    refuse(ops, OPS, NVLX_ERANGE, "op 5000: local");
    ops[BAD] = op(NVLX_OP_READ, BAD % 2, MINE + 10 * BAD, near_base + A + 3 * BAD, 7);
    bench_move(&bench, ops, OPS, NULL, "the same list made good");
    free(ops);
    bench_end(&bench);
}

static void ops_are_consumed(void) {
    enum { OPS = 9000 };
    struct nvlx_op *ops = calloc(OPS, sizeof *ops);
    EXPECT(ops != NULL);
    begin(0);
    for (size_t i = 0; i < OPS; i++)
        ops[i] = op(NVLX_OP_READ, 0, MINE + 20 * i, near_base + A + 7 * i, 11);
    struct nvlx_request *request = start(bench.engine, ops, OPS);
    bench_apply(&bench, ops, OPS);
    memset(ops, 0xff, OPS * sizeof *ops);
    finish(request);
    bench_compare(&bench, "ops overwritten right after the call");
    free(ops);
    bench_end(&bench);
}

/* Of a peer's segment on the second GPU, by either of our GPUs, each way by each mechanism. */
static void mechanisms(void) {
    static const uint32_t all[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    struct nvlx_op ops[30];
    begin(0);
    for (size_t mechanism = 0; mechanism < COUNT(all); mechanism++) {
        for (size_t i = 0; i < COUNT(ops); i++)
            ops[i] = op(i % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, i % 3 == 0, MINE + 5000 * i + mechanism,
                        far_base + 6000 * i + 2 * i, 4000 + i * mechanism);
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = all[mechanism];
        struct nvlx_request *request;
        struct nvlx_request_info info = {.size = sizeof info};
        OK(nvlx_transfer(bench.engine, ops, COUNT(ops), &options, &request));
        OK(nvlx_wait(request, PATIENCE));
        OK(nvlx_request_get_info(request, &info));
        EQUAL(info.bytes, info.engine_bytes + info.kernel_bytes);
        if (all[mechanism] == NVLX_MECHANISM_COPY_ENGINE)
            EQUAL(0, info.kernel_bytes);
        if (all[mechanism] == NVLX_MECHANISM_KERNEL)
            EQUAL(0, info.engine_bytes);
        OK(nvlx_request_free(request));
        bench_apply(&bench, ops, COUNT(ops));
        bench_compare(&bench, "a mechanism");
    }
    bench_end(&bench);
}

/* Within one process only copy engines reach another GPU: who insists on a kernel is told so. */
static void kernels_stay_on_their_gpu(void) {
    if (!second_gpu())
        return; /* there is no other GPU */
    struct nvlx_engine *engine = make_engine(0);
    char *memory[2], *text;
    size_t length;
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    for (int gpu = 0; gpu < 2; gpu++) {
        memory[gpu] = allocate(engine, gpu, 1000, 1);
        register_range(engine, memory[gpu], 1000, NULL, NVLX_ACCESS_READ_WRITE);
    }
    OK(nvlx_export(engine, &text, &length));
    struct nvlx_peer *self = open_peer(engine, text);
    nvlx_text_free(text);
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_KERNEL;
    struct nvlx_op far = make_op(NVLX_OP_READ, self, memory[0], (uintptr_t)memory[1], 1000);
    REFUSED(nvlx_transfer(engine, &far, 1, &options, &request), NVLX_ENOTSUP,
            "op 0: within one process only copy engines reach another GPU, and GPU 0 and GPU 1 are this process's");
    finish(start(engine, &far, 1));
    struct nvlx_op near = make_op(NVLX_OP_READ, self, memory[0], (uintptr_t)memory[0] + 500, 500);
    OK(nvlx_transfer(engine, &near, 1, &options, &request));
    finish(request);
    OK(nvlx_engine_destroy(engine));
}

/* Registrations that change between transfers: the tables must follow. */
static void registrations_change(void) {
    begin(0);
    char *mine = bench.local[0] + MINE + MINE_LENGTH;
    refuse_one(NVLX_OP_READ, 0, MINE + MINE_LENGTH, near_base + A, 10, NVLX_ERANGE, "op 0: local");
    struct nvlx_region *region = register_range(bench.engine, mine, 10, NULL, NVLX_ACCESS_NONE);
    move_one(NVLX_OP_READ, 0, MINE + MINE_LENGTH, near_base + A, 10, "a region just registered");
    move_one(NVLX_OP_READ, 0, MINE + MINE_LENGTH - 20, near_base + A + 100, 30, "over its border with a neighbour");
    struct nvlx_region *again = register_range(bench.engine, mine, 5, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_unregister(region, 0));
    move_one(NVLX_OP_READ, 0, MINE + MINE_LENGTH, near_base + A + 50, 5, "what the second registration still covers");
    refuse_one(NVLX_OP_READ, 0, MINE + MINE_LENGTH, near_base + A, 6, NVLX_ERANGE, "op 0: local");
    OK(nvlx_unregister(again, 0));
    refuse_one(NVLX_OP_READ, 0, MINE + MINE_LENGTH, near_base + A, 1, NVLX_ERANGE, "op 0: local");
    bench_end(&bench);
}

/* The first op of a list is looked at closely, the others by what earlier lists found out: that must not outlive what
 * it was found out about. */
static void move_second(struct nvlx_op second, const char *when) {
    struct nvlx_op ops[] = {op(NVLX_OP_READ, 0, MINE, near_base + A, 50), second, second};
    ops[2].local = (char *)second.local + second.length;
    bench_move(&bench, ops, COUNT(ops), NULL, when);
    bench_move(&bench, ops, COUNT(ops), NULL, when);
}

static void refuse_second(struct nvlx_op second, int code, const char *words) {
    struct nvlx_op ops[] = {op(NVLX_OP_READ, 0, MINE, near_base + A, 50), second};
    refuse(ops, COUNT(ops), code, words);
}

static void nothing_outlives_a_local_region(void) {
    struct nvlx_op second = op(NVLX_OP_WRITE, 0, MINE + MINE_LENGTH + 100, near_base + A + 60, 10);
    for (int round = 0; round < 3; round++) {
        char *mine = bench.local[0] + MINE + MINE_LENGTH + 100;
        refuse_second(second, NVLX_ERANGE, "op 1: local");
        struct nvlx_region *region = register_range(bench.engine, mine, 20, NULL, NVLX_ACCESS_NONE);
        move_second(second, "in a new region");
        second.local = mine - 1;
        refuse_second(second, NVLX_ERANGE, "op 1: local");
        second.local = mine;
        OK(nvlx_unregister(region, 0));
    }
}

static void nothing_outlives_a_peers_region(void) {
    struct nvlx_op in_b = op(NVLX_OP_READ, 0, MINE + 1000, near_base + B + 500, 500),
                   read = op(NVLX_OP_READ, 0, MINE + 1000, near_base + READ_ONLY, 100),
                   write = op(NVLX_OP_WRITE, 0, MINE + 1000, near_base + READ_ONLY, 100);
    for (int round = 0; round < 3; round++) {
        move_second(in_b, "in a region that goes");
        move_second(read, "where reading is granted");
        refuse_second(write, NVLX_EACCES, "op 1: the peer's region");
        OK(owner_unregister(&bench.owner, 1));
        OK(owner_unregister(&bench.owner, 2));
        owner_register(&bench.owner, 1, 0, B, 600, NVLX_ACCESS_READ_WRITE, "b");
        owner_register(&bench.owner, 2, 0, READ_ONLY, RIGHTS_LENGTH, NVLX_ACCESS_WRITE, "read only");
        bench_open_peer(&bench);
        refuse_second(in_b, NVLX_ERANGE, "op 1: the peer's range");
        refuse_second(read, NVLX_EACCES, "op 1: the peer's region");
        move_second(write, "where writing is granted now");
        OK(owner_unregister(&bench.owner, 1));
        OK(owner_unregister(&bench.owner, 2));
        owner_register(&bench.owner, 1, 0, B, B_LENGTH, NVLX_ACCESS_READ_WRITE, "b");
        owner_register(&bench.owner, 2, 0, READ_ONLY, RIGHTS_LENGTH, NVLX_ACCESS_READ, "read only");
        bench_open_peer(&bench);
    }
}

/* From both GPUs to memory of both, in an order that is another each time, while neither table changes. */
static void routes_take_turns(void) {
    enum { WAYS = 8 };
    struct nvlx_op ops[3 * WAYS];
    for (size_t round = 0; round < 2 * WAYS; round++) {
        for (size_t i = 0; i < COUNT(ops); i++) {
            size_t way = i / 3 * (round / WAYS ? 3 : 1) + round;
            ops[i] = op(way & 1 ? NVLX_OP_READ : NVLX_OP_WRITE, (way >> 1 & 1) != 0, MINE + 1000 * i + round,
                        (way >> 2 & 1 ? far_base : near_base) + A + 2000 * i, 100 + i);
        }
        bench_move(&bench, ops, COUNT(ops), NULL, "routes in another order");
    }
}

static void nothing_known_outlives_its_table(void) {
    begin(0);
    nothing_outlives_a_local_region();
    nothing_outlives_a_peers_region();
    routes_take_turns();
    nothing_outlives_a_local_region();
    bench_end(&bench);
}

/* As `refuse`, by transfers of every mechanism and by prepared lists. */
static void refuse_overlap(const struct nvlx_op *ops, size_t count, const char *words) {
    struct nvlx_prepared *prepared;
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    for (options.mechanism = 0; options.mechanism <= NVLX_MECHANISM_KERNEL; options.mechanism++) {
        struct nvlx_request *request;
        REFUSED(nvlx_transfer(bench.engine, ops, count, &options, &request), NVLX_EINVAL, words);
        REFUSED(nvlx_prepare(bench.engine, ops, count, &options, &prepared), NVLX_EINVAL, words);
    }
    bench_compare(&bench, words);
}

/* Where the peer is this very process, an op can be onto itself: in part it must not be, whatever would copy it. */
static void ops_onto_themselves(void) {
    enum { LENGTH = 20000, OPS = 300 };
    struct nvlx_op ops[OPS];
    char *text;
    size_t length;
    begin(0);
    char *memory = bench.local[1] + MINE;
    const uint64_t there = (uint64_t)(uintptr_t)memory;
    register_range(bench.engine, memory, MINE_LENGTH, "mine", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_export(bench.engine, &text, &length));
    struct nvlx_peer *own = open_peer(bench.engine, text);
    for (size_t i = 0; i < OPS; i++)
        ops[i] = make_op(i / 100 % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, own, memory + 10 * i, there + LENGTH + 10 * i, 10);
    const size_t places[] = {0, 1, 77, 150, OPS - 1};
    for (size_t i = 0; i < COUNT(places); i++) {
        char words[64];
        struct nvlx_op *one = &ops[places[i]], good = *one;
        snprintf(words, sizeof words, "op %zu: its source and its destination overlap", places[i]);
        *one = make_op(good.opcode, own, memory + 4096, there, 4097);
        refuse_overlap(ops, OPS, words);
        *one = make_op(good.opcode, own, memory, there + 1, LENGTH);
        refuse_overlap(ops, OPS, words);
        refuse_overlap(ops, places[i] + 1, words);
        *one = good;
    }
    ops[0] = make_op(NVLX_OP_READ, own, memory, there, LENGTH); /* onto itself as a whole */
    finish(start(bench.engine, ops, 1));
    bench_compare(&bench, "copied onto itself");
    finish(start(bench.engine, ops + 1, OPS - 1));
    ops[0] = make_op(NVLX_OP_WRITE, own, memory + 4096, there, 4096); /* touching */
    finish(start(bench.engine, ops, 1));
    OK(nvlx_peer_close(own));
    nvlx_text_free(text);
    bench_end(&bench);
}

static void request_info_counts(void) {
    begin(0);
    struct nvlx_op ops[3] = {op(NVLX_OP_READ, 0, MINE, near_base + A, 100),
                             op(NVLX_OP_READ, 0, MINE + 100, near_base + A + 100, 100),
                             op(NVLX_OP_READ, 0, MINE + 300, near_base + A + 400, 100)};
    struct nvlx_request *request = start(bench.engine, ops, 3);
    struct nvlx_request_info info = {.size = sizeof info};
    OK(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(sizeof info, info.size);
    EQUAL(0, info.status);
    EQUAL(3, info.ops);
    EQUAL(300, info.bytes);
    EQUAL(2, info.engine_fragments + info.kernel_fragments);
    EXPECT(info.submit_ns > 0 && info.elapsed_ns > 0 && !info.error[0]);
    struct { /* an older caller's, and what follows it */
        struct nvlx_request_info info;
        char guard;
    } old = {.info = {.size = offsetof(struct nvlx_request_info, bytes)}, .guard = 77};
    old.info.bytes = 77;
    OK(nvlx_request_get_info(request, &old.info));
    EXPECT(old.info.ops == 3 && old.info.bytes == 77 && old.guard == 77);
    REFUSED(nvlx_request_get_info(request, NULL), NVLX_EINVAL, "nvlx_request_info is NULL");
    old.info.size = 0;
    REFUSED(nvlx_request_get_info(request, &old.info), NVLX_EINVAL, "size 0");
    OK(nvlx_request_free(request));
    OK(nvlx_request_free(NULL));
    bench_end(&bench);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"reads_and_writes", reads_and_writes},
                                        {"mixed_list", mixed_list},
                                        {"nothing_to_move", nothing_to_move},
                                        {"bounds", bounds},
                                        {"rights", rights},
                                        {"bad_fields", bad_fields},
                                        {"all_or_none", all_or_none},
                                        {"ops_are_consumed", ops_are_consumed},
                                        {"mechanisms", mechanisms},
                                        {"kernels_stay_on_their_gpu", kernels_stay_on_their_gpu},
                                        {"registrations_change", registrations_change},
                                        {"nothing_known_outlives_its_table", nothing_known_outlives_its_table},
                                        {"ops_onto_themselves", ops_onto_themselves},
                                        {"request_info_counts", request_info_counts},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
