/* Memory that sleeps, as its owner sees it: lists, digests, failures. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "rendezvous_support.h"
#include "sleep_support.h"

/* The owner's own ops, lists and digests on what sleeps. */
static void own_lists_sleep_too(void) {
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    uint64_t value;
    char *text;
    size_t bytes;
    begin();
    struct nvlx_engine *other = make_engine(0);
    char *theirs = allocate(other, 0, SIZE, 50);
    register_range(other, theirs, SIZE, "theirs", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_export(other, &text, &bytes));
    struct nvlx_peer *peer = open_peer(owner, text);
    nvlx_text_free(text);
    const struct nvlx_op op = make_op(NVLX_OP_WRITE, peer, memory, (uintptr_t)theirs, SIZE);
    OK(nvlx_prepare(owner, &op, 1, NULL, &prepared));
    OK(nvlx_post(prepared, NULL, &request));
    finish(request);
    EQUAL(0, wrong(other, theirs, SIZE, 1));
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    REFUSED(nvlx_transfer(owner, &op, 1, NULL, &request), NVLX_ESUSPENDED, "local");
    REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESUSPENDED, "local");
    REFUSED(nvlx_digest(owner, memory, SIZE, &value), NVLX_ESUSPENDED, "sleeps");
    replace_chunks(6);
    REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESUSPENDED, "local");
    OK(nvlx_resume(&weights, 1, NULL));
    for (int i = 0; i < 2; i++) {
        fill(other, theirs, SIZE, 0);
        OK(nvlx_post(prepared, NULL, &request));
        finish(request);
        EQUAL(0, wrong(other, theirs, SIZE, 6));
        REFUSED(nvlx_unregister(weights, 0), NVLX_EBUSY, "prepared list");
    }
    OK(nvlx_suspend(&weights, 1, PATIENCE)); /* elsewhere the list is of no use */
    void *elsewhere = chunks(7);
    free_chunks(memory);
    OK(nvlx_resume(&weights, 1, &elsewhere));
    REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESTALE, "another address");
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    OK(nvlx_unregister(weights, 0));
    REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESTALE, "not registered");
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(other));
    end();
}

static atomic_bool told_enough;

static void *tell_digests(void *region) {
    while (!atomic_load(&told_enough)) {
        const int code = nvlx_region_set_digest(region, NULL);
        EXPECT(!code || code == NVLX_ESUSPENDED);
    }
    return NULL;
}

/* A digest of the bytes before a sleep is never that of those after it. So few bytes that it is soon made, and so many
 * threads that some are held up when they have it. */
static void digests_do_not_outlive_a_sleep(void) {
    enum { FEW = 64 };
    pthread_t threads[8];
    uint64_t value, generation;
    size_t told = 0;
    begin();
    struct nvlx_engine *other = make_engine(0);
    struct nvlx_region *few = register_range(owner, rest, FEW, "few", NVLX_ACCESS_READ);
    struct nvlx_peer *peer = connect_to(other, own_path());
    for (size_t i = 0; i < COUNT(threads); i++)
        EQUAL(0, pthread_create(&threads[i], NULL, tell_digests, few));
    for (uint32_t round = 0; round < 300; round++) {
        struct nvlx_region_info info = {.size = sizeof info};
        OK(nvlx_suspend(&few, 1, PATIENCE));
        fill(owner, rest, FEW, round);
        OK(nvlx_resume(&few, 1, NULL));
        OK(nvlx_publish(owner, &generation));
        OK(nvlx_peer_sync(peer, generation, PATIENCE));
        OK(nvlx_peer_region_by_name(peer, "few", &info));
        OK(nvlx_digest(owner, rest, FEW, &value));
        if (info.has_digest && ++told)
            EQUAL(value, info.digest);
    }
    atomic_store(&told_enough, true);
    for (size_t i = 0; i < COUNT(threads); i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    EXPECT(told > 0);
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(other));
    end();
}

/* A list that takes all of config.list_memory needs no more of it after a sleep. */
static void lists_need_no_more_memory(void) {
    enum { OPS = 9000 };
    static struct nvlx_op ops[OPS];
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    struct nvlx_config config;
    struct nvlx_region *region;
    char *text;
    size_t bytes;
    fill_config(&config);
    config.list_memory = (size_t)OPS * 24 + 12288;
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_KERNEL;
    OK(nvlx_engine_create(&config, &owner));
    memory = chunks(1);
    char *copy = allocate(owner, 0, SIZE, 0);
    region = register_range(owner, memory, SIZE, NULL, NVLX_ACCESS_NONE);
    register_range(owner, copy, SIZE, "copy", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_export(owner, &text, &bytes));
    struct nvlx_peer *self = open_peer(owner, text);
    nvlx_text_free(text);
    for (size_t i = 0; i < OPS; i++)
        ops[i] = make_op(NVLX_OP_WRITE, self, memory + 13 * (i ^ 1), (uintptr_t)copy + 13 * (i ^ 1), 13);
    OK(nvlx_prepare(owner, ops, OPS, &options, &prepared));
    for (uint32_t i = 0; i < 3; i++) {
        OK(nvlx_post(prepared, NULL, &request));
        finish(request);
        EQUAL(0, wrong(owner, copy, 13 * (size_t)OPS, i + 1));
        OK(nvlx_suspend(&region, 1, PATIENCE));
        replace_chunks(i + 2);
        REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESUSPENDED, "local");
        OK(nvlx_resume(&region, 1, NULL));
    }
    OK(nvlx_prepared_free(prepared));
    end();
}

/* ---- Digests ------------------------------------------------------------------------------------------- */

static struct nvlx_region_info known(struct nvlx_peer *peer) {
    struct nvlx_region_info info = {.size = sizeof info};
    OK(nvlx_peer_sync(peer, published(), PATIENCE));
    OK(nvlx_peer_region_by_name(peer, "weights", &info));
    return info;
}

/* Other bytes may be there when it wakes. */
static void digests_are_forgotten(void) {
    struct nvlx_region_info info;
    uint64_t value;
    begin();
    struct nvlx_engine *late = make_engine(0);
    struct nvlx_peer *peer = connect_to(late, own_path());
    struct nvlx_region *empty = register_range(owner, NULL, 0, "empty", NVLX_ACCESS_READ);
    struct nvlx_region *both[] = {weights, empty};
    const size_t told = owner->registration.told.text;
    OK(nvlx_region_set_digest(weights, &value));
    OK(nvlx_region_set_digest(empty, NULL));
    info = known(peer);
    EXPECT(info.has_digest && info.digest == value);
    const uint64_t generation = info.generation;
    OK(nvlx_suspend(both, 2, PATIENCE));
    REFUSED(nvlx_region_set_digest(weights, &value), NVLX_ESUSPENDED, "sleeps");
    REFUSED(nvlx_region_set_digest(empty, &value), NVLX_ESUSPENDED, "sleeps");
    info = known(peer);
    EXPECT(!info.has_digest && info.generation == generation && info.suspended == 1);
    replace_chunks(2);
    OK(nvlx_resume(both, 2, NULL));
    info = known(peer);
    EXPECT(!info.has_digest && info.generation == generation && info.suspended == 0);
    EQUAL(told, owner->registration.told.text);
    OK(nvlx_region_set_digest(weights, &value));
    info = known(peer);
    EXPECT(info.has_digest && info.digest == value);
    OK(nvlx_engine_destroy(late));
    end();
}

static void *digest_once(void *argument) {
    OK(nvlx_digest(owner, memory, SIZE, argument));
    return NULL;
}

static void digests_are_awaited(void) {
    struct nvlx_config config;
    pthread_t thread;
    uint64_t value, same;
    fill_config(&config);
    OK(nvlxi_engine_create(&config, &faulty_device, &owner));
    memory = chunks(1);
    weights = register_range(owner, memory, SIZE, "weights", NVLX_ACCESS_READ);
    OK(nvlx_digest(owner, memory, SIZE, &same));
    atomic_store(&faults.busy, true);
    EQUAL(0, pthread_create(&thread, NULL, digest_once, &value));
    for (const double since = now_ms(); !nvlxi_digester_uses(&owner->digester, (uintptr_t)memory, SIZE);)
        EXPECT(now_ms() - since < 10000);
    REFUSED(nvlx_suspend(&weights, 1, 0), NVLX_ETIMEDOUT, "an own digest in flight uses it");
    atomic_store(&faults.busy, false);
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    EQUAL(0, pthread_join(thread, NULL));
    EQUAL(same, value);
    end();
}

/* ---- Generations --------------------------------------------------------------------------------------- */

/* What sleeps where it is stays as old as it was; what comes in its place is younger. */
static void generations_hold(void) {
    struct nvlx_transfer_options options, told;
    struct nvlx_event event = {.size = sizeof event};
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    begin();
    struct nvlx_engine *late = make_engine(0);
    struct nvlx_peer *peer = connect_to(late, own_path());
    char *local = allocate(late, 0, SIZE, 0);
    register_range(late, local, SIZE, NULL, NVLX_ACCESS_NONE);
    const struct nvlx_region_info info = known(peer);
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, local, info.address, SIZE);
    nvlx_transfer_options_init(&options);
    options.generation = info.peer_generation;
    OK(nvlx_prepare(late, &op, 1, &options, &prepared));
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    REFUSED(nvlx_transfer(late, &op, 1, &options, &request), NVLX_ESUSPENDED, "op 0");
    nvlx_transfer_options_init(&told);
    told.message = "awake";
    told.message_length = 5;
    REFUSED(nvlx_post(prepared, &told, &request), NVLX_ESUSPENDED, "suspended");
    replace_chunks(6);
    OK(nvlx_resume(&weights, 1, NULL));
    OK(nvlx_peer_sync(peer, published(), PATIENCE));
    for (int posts = 0; posts < 2; posts++) {
        OK(posts ? nvlx_post(prepared, &told, &request) : nvlx_transfer(late, &op, 1, &options, &request));
        finish(request);
        EQUAL(0, wrong(late, local, SIZE, 6));
        fill(late, local, SIZE, 0);
    }
    OK(nvlx_next_event(owner, &event));
    EXPECT(event.kind == NVLX_EVENT_MESSAGE && event.message_length == 5);
    void *elsewhere = chunks(7);
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    OK(nvlx_resume(&weights, 1, &elsewhere));
    register_range(owner, memory, SIZE, "stranger", NVLX_ACCESS_READ);
    OK(nvlx_peer_sync(peer, published(), PATIENCE));
    REFUSED(nvlx_transfer(late, &op, 1, &options, &request), NVLX_ESTALE, "was learned at generation");
    REFUSED(nvlx_post(prepared, NULL, &request), NVLX_ESTALE, "withdrawn");
    OK(nvlx_engine_destroy(late));
    end();
}

/* ---- Failures ------------------------------------------------------------------------------------------ */

/* Each call of the device that resuming makes may fail: all regions then sleep on. */
static void failures_leave_all_asleep(void) {
    struct nvlx_config config;
    struct nvlx_region *regions[2];
    int code = -1;
    fill_config(&config);
    OK(nvlxi_engine_create(&config, &faulty_device, &owner));
    memory = chunks(1);
    rest = allocate(owner, 0, SIZE, 2);
    regions[0] = register_range(owner, memory, SIZE, "weights", NVLX_ACCESS_READ);
    regions[1] = register_range(owner, rest, SIZE, "rest", NVLX_ACCESS_READ);
    OK(nvlx_suspend(regions, 2, PATIENCE));
    for (long nth = 1; code; nth++) {
        EXPECT(nth < 100);
        EQUAL(0, engine_info(owner).segments);
        atomic_store(&faults.fail_at, atomic_load(&faults.calls) + nth);
        code = nvlx_resume(regions, 2, NULL);
        atomic_store(&faults.fail_at, 0);
        if (code)
            EQUAL(CODE(NVLX_EDEVICE), CODE(code));
    }
    EQUAL(3, engine_info(owner).segments);
    OK(nvlx_suspend(regions, 2, PATIENCE));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"own_lists_sleep_too", own_lists_sleep_too},
                                        {"lists_need_no_more_memory", lists_need_no_more_memory},
                                        {"digests_are_forgotten", digests_are_forgotten},
                                        {"digests_are_awaited", digests_are_awaited},
                                        {"digests_do_not_outlive_a_sleep", digests_do_not_outlive_a_sleep},
                                        {"generations_hold", generations_hold},
                                        {"failures_leave_all_asleep", failures_leave_all_asleep},
                                        {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 120);
}
