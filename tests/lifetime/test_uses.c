/* Which regions a list keeps: those of whose bytes it touches some, whenever they were registered; no others.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "support.h"
#include "transfer/needs.h"

#define SIZE (512 * KIB)
#define HALF (SIZE / 2)
#define STEP KIB /* from op to op; each is half as long */

static struct nvlx_engine *engine;
static struct owner owner;
static struct nvlx_peer *peer;
static char *memory;
static uint64_t there;

static void begin(bool own) {
    char *text;
    size_t length;
    engine = make_faulty_engine(0);
    memory = allocate(engine, 0, SIZE, 1);
    if (own) {
        char *other = allocate(engine, 0, SIZE, 2);
        register_range(engine, other, SIZE, "there", NVLX_ACCESS_READ_WRITE);
        OK(nvlx_export(engine, &text, &length));
        peer = open_peer(engine, text);
        nvlx_text_free(text);
    } else {
        owner_start(&owner);
        owner_alloc(&owner, 0, 0, SIZE, 2);
        owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "there");
        text = owner_export(&owner);
        peer = open_peer(engine, text);
        free(text);
    }
    there = find(peer, "there");
}

static void end(bool own) {
    OK(nvlx_engine_destroy(engine));
    if (!own)
        owner_end(&owner);
}

static struct nvlx_region *add(const char *from, size_t length) {
    return register_range(engine, from, length, NULL, NVLX_ACCESS_NONE);
}

/* Every second one of STEP / 2 bytes, from the middle of the memory on. */
static size_t make_ops(struct nvlx_op *ops, size_t count, uint32_t opcode) {
    for (size_t i = 0; i < count; i++)
        ops[i] = make_op(opcode, peer, memory + HALF + i * STEP, there + HALF + i * STEP, STEP / 2);
    return count;
}

/* Regions registered by now that hold bytes of the list, or none. A list that is in use keeps only the former. */
static void expect_kept(int code, const char *words) {
    struct nvlx_region *same = add(memory + HALF, STEP / 2), *one_byte = add(memory + HALF + STEP / 2 - 1, STEP),
                       *between = add(memory + HALF + STEP / 2, STEP / 2), *before = add(memory + HALF - 100, 100),
                       *tail = add(memory + SIZE - 100, 100), *nothing = add(memory + HALF, 0);
    OK(nvlx_unregister(between, 0));
    OK(nvlx_unregister(before, 0));
    OK(nvlx_unregister(tail, 0));
    OK(nvlx_unregister(nothing, 0));
    REFUSED(nvlx_unregister(same, 0), code, words);
    REFUSED(nvlx_unregister(one_byte, 0), code, words);
}

static void check_prepared(const struct nvlx_op *ops, size_t count, uint32_t mechanism) {
    struct nvlx_prepared *prepared;
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    struct nvlx_region *whole = add(memory, SIZE);
    OK(nvlx_prepare(engine, ops, count, &options, &prepared));
    expect_kept(NVLX_EBUSY, "a prepared list");
    REFUSED(nvlx_unregister(whole, -1), NVLX_EBUSY, "a prepared list");
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_unregister(whole, 0));
}

static void check_in_flight(const struct nvlx_op *ops, size_t count, uint32_t mechanism) {
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    struct nvlx_region *whole = add(memory, SIZE);
    atomic_store(&faults.hold, true);
    OK(nvlx_transfer(engine, ops, count, &options, &request));
    expect_kept(NVLX_ETIMEDOUT, "in flight");
    REFUSED(nvlx_unregister(whole, 1000), NVLX_ETIMEDOUT, "in flight");
    atomic_store(&faults.hold, false);
    finish(request);
    OK(nvlx_unregister(whole, 0));
}

static void check_all(bool own) {
    static const size_t counts[] = {1, 3, 200};
    struct nvlx_op ops[200];
    for (size_t i = 0; i < COUNT(counts); i++) {
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
            for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
                begin(own);
                const size_t count = make_ops(ops, counts[i], opcode);
                check_prepared(ops, count, mechanism);
                check_in_flight(ops, count, mechanism);
                end(own);
            }
        }
    }
}

static void later_regions_are_free(void) {
    check_all(false);
}

static void later_regions_are_free_beside_oneself(void) {
    check_all(true);
}

/* A region that goes on where another ends, whose piece of the table a list has met, was registered later, and
 * overlaps. */
static void a_region_that_goes_on_is_free(void) {
    struct nvlx_prepared *prepared;
    begin(false);
    struct nvlx_region *first = add(memory, HALF);
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, memory, there, 100);
    OK(nvlx_prepare(engine, &op, 1, NULL, &prepared));
    struct nvlx_region *later = add(memory + 100, SIZE - 100), *last = add(memory + HALF, HALF);
    move(engine, NVLX_OP_READ, peer, memory + 100, there, SIZE - 100);
    OK(nvlx_unregister(later, 0));
    OK(nvlx_unregister(last, 0));
    REFUSED(nvlx_unregister(first, 0), NVLX_EBUSY, "a prepared list");
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_unregister(first, 0));
    end(false);
}

/* The peer's side of a list is own memory: a private region beside what it touches is free, though the peer has never
 * heard of it. */
static void a_private_region_beside_is_free(void) {
    struct nvlx_prepared *prepared;
    struct nvlx_region *shared;
    begin(true);
    char *other = (char *)(uintptr_t)there;
    add(memory, SIZE);
    struct nvlx_region *beside = add(other + 5000, 5000), *over = add(other + 4000, 5000);
    struct nvlx_op op = make_op(NVLX_OP_WRITE, peer, memory, there, 5000);
    OK(nvlx_prepare(engine, &op, 1, NULL, &prepared));
    OK(nvlx_register(engine, other, SIZE, NULL, &shared));
    OK(nvlx_unregister(beside, 0));
    REFUSED(nvlx_unregister(over, 0), NVLX_EBUSY, "a prepared list");
    REFUSED(nvlx_unregister(shared, 0), NVLX_EBUSY, "a prepared list");
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_unregister(over, 0));
    end(true);
}

/* While a list is being planned, its ops tell. */
static void ops_tell_while_there_is_no_plan(void) {
    struct nvlx_op ops[3];
    struct nvlxi_plan plan = {.groups = NULL};
    begin(false);
    for (size_t i = 0; i < COUNT(ops); i++)
        ops[i] = make_op(NVLX_OP_READ, peer, memory + 1000 * i, there, i == 1 ? 0 : 100);
    const uint64_t here = (uint64_t)(uintptr_t)memory;
    struct nvlxi_use use = {here, here + SIZE};
    struct nvlxi_needs needs = {.uses = &use, .use_count = 1, .ops = ops, .op_count = COUNT(ops)};
    EXPECT(nvlxi_needs_overlap(&needs, &plan, here, 1));
    EXPECT(nvlxi_needs_overlap(&needs, &plan, here + 99, 1000));
    EXPECT(!nvlxi_needs_overlap(&needs, &plan, here + 100, 1900));
    EXPECT(nvlxi_needs_overlap(&needs, &plan, here + 100, 1901));
    EXPECT(nvlxi_needs_overlap(&needs, &plan, here - 5, SIZE + 10));
    needs.ops = NULL;
    EXPECT(!nvlxi_needs_overlap(&needs, &plan, here, 1));
    end(false);
}

static atomic_bool stop;

/* Registers and unregisters, as fast as it can, what lies between the ops. */
static void *come_and_go(void *argument) {
    size_t *rounds = argument;
    for (; !atomic_load(&stop); (*rounds)++) {
        struct nvlx_region *between = add(memory + HALF + *rounds % 1000 * 16 + 8, 8);
        OK(nvlx_unregister(between, 0));
    }
    return NULL;
}

/* Also while a list is planned in portions. */
static void later_regions_are_free_beside_a_submitter(void) {
    enum { OPS = 16000, LISTS = 30 };
    struct nvlx_op *ops = calloc(OPS, sizeof *ops);
    pthread_t thread;
    size_t rounds = 0;
    begin(false);
    EXPECT(ops != NULL);
    for (size_t i = 0; i < OPS; i++)
        ops[i] = make_op(NVLX_OP_READ, peer, memory + HALF + 16 * i, there + 16 * i, 8);
    add(memory, SIZE);
    EQUAL(0, pthread_create(&thread, NULL, come_and_go, &rounds));
    for (int i = 0; i < LISTS; i++)
        finish(start(engine, ops, OPS));
    atomic_store(&stop, true);
    EQUAL(0, pthread_join(thread, NULL));
    EXPECT(rounds > 0);
    free(ops);
    end(false);
}

/* ---- Digests -------------------------------------------------------------------------------------------- */

static void *digest_once(void *argument) {
    OK(nvlx_digest(engine, memory + HALF, STEP, argument));
    return NULL;
}

/* A digest in flight keeps the bytes that it reads, as a transfer does. */
static void digests_keep_their_bytes(void) {
    pthread_t thread;
    uint64_t value, same;
    begin(false);
    struct nvlx_region *whole = add(memory, SIZE), *before = add(memory, HALF),
                       *behind = add(memory + HALF + STEP, STEP), *over = add(memory + HALF - 10, 11),
                       *last = add(memory + HALF + STEP - 1, 1);
    OK(nvlx_digest(engine, memory + HALF, STEP, &same));
    atomic_store(&faults.busy, true);
    EQUAL(0, pthread_create(&thread, NULL, digest_once, &value));
    for (const double since = now_ms(); !nvlxi_digester_uses(&engine->digester, (uintptr_t)memory, SIZE);)
        EXPECT(now_ms() - since < 10000);
    OK(nvlx_unregister(before, 0));
    OK(nvlx_unregister(behind, 0));
    REFUSED(nvlx_unregister(over, 0), NVLX_ETIMEDOUT, "an own digest in flight uses it");
    REFUSED(nvlx_unregister(last, 0), NVLX_ETIMEDOUT, "an own digest in flight uses it");
    REFUSED(nvlx_unregister(whole, 1000000), NVLX_ETIMEDOUT, "an own digest in flight uses it");
    REFUSED(nvlx_free(engine, memory), NVLX_EBUSY, "a digest in flight uses the memory");
    atomic_store(&faults.busy, false);
    OK(nvlx_unregister(whole, PATIENCE));
    EQUAL(0, pthread_join(thread, NULL));
    EQUAL(same, value);
    OK(nvlx_unregister(over, 0));
    OK(nvlx_unregister(last, 0));
    OK(nvlx_free(engine, memory));
    end(false);
}

/* ---- Several users ------------------------------------------------------------------------------------- */

/* A region that is withdrawn waits for a transfer, also where a list was prepared meanwhile on the same bytes, which
 * another region has. */
static void a_prepared_list_hides_no_transfer(void) {
    struct nvlx_prepared *prepared;
    begin(false);
    struct nvlx_region *first = add(memory, SIZE);
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, memory, there, SIZE);
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = start(engine, &op, 1);
    REFUSED(nvlx_unregister(first, 0), NVLX_ETIMEDOUT, "an own transfer");
    struct nvlx_region *second = add(memory, SIZE);
    OK(nvlx_prepare(engine, &op, 1, NULL, &prepared));
    REFUSED(nvlx_unregister(first, 0), NVLX_ETIMEDOUT, "an own transfer");
    REFUSED(nvlx_unregister(second, 0), NVLX_EBUSY, "a prepared list");
    atomic_store(&faults.hold, false);
    finish(request);
    OK(nvlx_unregister(first, 0));
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_unregister(second, 0));
    end(false);
}

/* A prepared list keeps the peers that it moves bytes of, and no others that it names. */
static void ops_of_no_bytes_keep_no_peer(void) {
    char *text;
    size_t length;
    struct nvlx_prepared *prepared;
    begin(true);
    add(memory, SIZE);
    OK(nvlx_export(engine, &text, &length));
    struct nvlx_peer *other = open_peer(engine, text);
    nvlx_text_free(text);
    const struct nvlx_op ops[] = {make_op(NVLX_OP_READ, other, memory, there, 0),
                                  make_op(NVLX_OP_READ, peer, memory, there, SIZE)};
    OK(nvlx_prepare(engine, ops, COUNT(ops), NULL, &prepared));
    OK(nvlx_peer_close(other));
    REFUSED(nvlx_peer_close(peer), NVLX_EBUSY, "prepared");
    for (int i = 0; i < 2; i++) {
        struct nvlx_request *request;
        OK(nvlx_post(prepared, NULL, &request));
        finish(request);
        EQUAL(0, wrong(engine, memory, SIZE, 2));
    }
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_peer_close(peer));
    end(true);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"later_regions_are_free", later_regions_are_free},
        {"later_regions_are_free_beside_oneself", later_regions_are_free_beside_oneself},
        {"a_region_that_goes_on_is_free", a_region_that_goes_on_is_free},
        {"a_private_region_beside_is_free", a_private_region_beside_is_free},
        {"later_regions_are_free_beside_a_submitter", later_regions_are_free_beside_a_submitter},
        {"ops_tell_while_there_is_no_plan", ops_tell_while_there_is_no_plan},
        {"digests_keep_their_bytes", digests_keep_their_bytes},
        {"a_prepared_list_hides_no_transfer", a_prepared_list_hides_no_transfer},
        {"ops_of_no_bytes_keep_no_peer", ops_of_no_bytes_keep_no_peer},
        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
