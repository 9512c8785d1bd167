/* What keeps mapping another GPU's memory cheap is held as long as the peer is there, and no longer.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "rendezvous_support.h"

#define SIZE (256 * KIB)

static struct nvlx_engine *engine;
static struct owner owner;

static void expect_links(long made, long given_back) {
    EQUAL(made, atomic_load(&faults.links));
    EQUAL(given_back, atomic_load(&faults.unlinks));
}

/* Given back by a thread of the library. */
static void await_links(long given_back) {
    for (int i = 0; i < 5000 && atomic_load(&faults.unlinks) < given_back; i++)
        usleep(1000);
    EQUAL(given_back, atomic_load(&faults.unlinks));
}

/* The owner has "a" and "b" on GPU 0, and "c" on GPU 1. */
static void begin(void) {
    static const char *const names[] = {"a", "b", "c"};
    engine = make_faulty_engine(0);
    owner_start(&owner);
    for (uint32_t i = 0; i < 3; i++) {
        owner_alloc(&owner, i, i == 2, SIZE, i + 1);
        owner_register(&owner, i, i, 0, SIZE, NVLX_ACCESS_READ_WRITE, names[i]);
    }
    OK(owner_serve(&owner, own_path(), 0));
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
    EQUAL(atomic_load(&faults.links), atomic_load(&faults.unlinks));
}

static void map(struct nvlx_peer *peer, int gpu, const char *name) {
    OK(nvlx_peer_map(peer, gpu, find(peer, name), SIZE));
}

/* Memory of this process's own, registered. */
static char *memory_on(int gpu) {
    struct nvlx_region *region;
    void *memory;
    OK(nvlx_alloc(engine, gpu, SIZE, NULL, &memory));
    OK(nvlx_register(engine, memory, SIZE, NULL, &region));
    return memory;
}

static void one_for_two_gpus_as_long_as_the_peer(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    map(peer, 0, "a");
    expect_links(0, 0); /* it is the same GPU */
    map(peer, 1, "a");
    map(peer, 1, "b");
    map(peer, 1, "c");
    expect_links(1, 0);
    map(peer, 0, "c");
    expect_links(2, 0);
    for (uint32_t i = 0; i < 3; i++)
        OK(owner_unregister(&owner, i));
    expect_mappings(engine, 0);
    expect_links(2, 0);
    OK(nvlx_peer_close(peer));
    expect_links(2, 2);
    owner_end(&owner);
    end();
}

static void given_back_when_the_peer_is_gone(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    map(peer, 1, "a");
    owner_kill(&owner);
    await_links(1);
    EQUAL(0, engine_info(engine).mappings);
    OK(nvlx_peer_close(peer));
    unlink(own_path());
    end();
}

/* Nothing was mapped any more. */
static void given_back_without_a_mapping(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    map(peer, 1, "a");
    OK(owner_unregister(&owner, 0));
    expect_mappings(engine, 0);
    expect_links(1, 0);
    owner_kill(&owner);
    await_links(1);
    OK(nvlx_peer_close(peer));
    unlink(own_path());
    end();
}

/* A peer by text alone. */
static void given_back_with_the_engine(void) {
    begin();
    char *text = owner_export(&owner);
    struct nvlx_peer *peer = open_peer(engine, text);
    map(peer, 1, "a");
    expect_links(1, 0);
    free(text);
    end();
    owner_end(&owner);
}

/* ---- Waking them ----------------------------------------------------------------------------------------- */

#define OPS    4096u
#define LENGTH 16u

enum order { IN_TURN, ONE_AFTER_THE_OTHER };

/* As if nothing had been used for 50 ms, or something a moment ago. */
static void set_idle(bool idle) {
    atomic_store(&engine->transfers.used_ns, nvlxi_now_ns() - (idle ? 50000000 : 0));
}

/* So many reads of "a", to be freed. */
static struct nvlx_op *reads_of(struct nvlx_peer *const *peers, size_t peer_count, enum order order, void *to,
                                size_t count) {
    const uint64_t there = find(peers[0], "a");
    struct nvlx_op *ops = calloc(count, sizeof *ops);
    for (size_t i = 0; i < count; i++)
        ops[i] = (struct nvlx_op){.opcode = NVLX_OP_READ,
                                  .peer = peers[order == IN_TURN ? i % peer_count : i * peer_count / count],
                                  .local = (char *)to + i * LENGTH,
                                  .remote = there + (i * 7919 % count) * LENGTH,
                                  .length = LENGTH};
    return ops;
}

static void read_of(struct nvlx_peer *const *peers, size_t peer_count, enum order order, bool idle, void *to,
                    size_t count) {
    struct nvlx_op *ops = reads_of(peers, peer_count, order, to, count);
    struct nvlx_request *request;
    set_idle(idle);
    const uint64_t since = nvlxi_now_ns();
    OK(nvlx_transfer(engine, ops, count, NULL, &request));
    OK(nvlx_wait(request, -1));
    OK(nvlx_request_free(request));
    EXPECT(atomic_load(&engine->transfers.used_ns) >= since);
    free(ops);
}

static void expect_wakes(long expected) {
    EQUAL(expected, atomic_load(&faults.wakes));
}

static void long_lists_wake_links_that_were_idle(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    char *here = memory_on(1);
    map(peer, 1, "a");
    read_of(&peer, 1, IN_TURN, true, here, OPS - 1);
    expect_wakes(0); /* it is too short */
    read_of(&peer, 1, IN_TURN, false, here, OPS);
    expect_wakes(0); /* the link was used just now */
    read_of(&peer, 1, IN_TURN, true, here, OPS);
    expect_wakes(1);
    read_of(&peer, 1, IN_TURN, false, here, OPS);
    expect_wakes(1);
    read_of(&peer, 1, IN_TURN, true, here, 2 * OPS);
    expect_wakes(2);
    OK(nvlx_peer_close(peer));
    expect_links(1, 1);
    owner_end(&owner);
    end();
}

/* Its copies ended long before anybody looked. */
static void what_is_seen_done_late_was_not_used_just_now(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    struct nvlx_request *early, *late;
    struct nvlx_op *ops = reads_of(&peer, 1, IN_TURN, memory_on(1), OPS);
    map(peer, 1, "a");
    OK(nvlx_transfer(engine, ops, 1, NULL, &early));
    usleep(60000);
    OK(nvlx_wait(early, -1));
    OK(nvlx_request_free(early));
    OK(nvlx_transfer(engine, ops, OPS, NULL, &late));
    expect_wakes(1);
    OK(nvlx_request_free(late));
    free(ops);
    OK(nvlx_peer_close(peer));
    owner_end(&owner);
    end();
}

static void without_a_link_nothing_is_woken(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    char *here = memory_on(0);
    read_of(&peer, 1, IN_TURN, true, here, OPS); /* which is not even mapped */
    read_of(&peer, 1, IN_TURN, true, here, OPS); /* it is the same GPU */
    expect_wakes(0);
    OK(nvlx_peer_close(peer));
    owner_end(&owner);
    end();
}

/* By a call, whether they were idle or not. */
static void a_peer_is_woken_as_told(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    OK(nvlx_peer_wake(peer));
    expect_wakes(0); /* nothing is mapped */
    map(peer, 1, "a");
    map(peer, 0, "c");
    OK(nvlx_peer_wake(peer));
    expect_wakes(2);
    OK(nvlx_peer_wake(peer));
    expect_wakes(4);
    owner_kill(&owner);
    await_end(peer);
    REFUSED(nvlx_peer_wake(peer), NVLX_ESTALE, "gone");
    OK(nvlx_peer_close(peer));
    unlink(own_path());
    end();
}

/* And no others. */
static void all_peers_of_a_list_are_woken(void) {
    begin();
    struct nvlx_peer *peers[4];
    char *here = memory_on(1);
    for (int i = 0; i < 4; i++) {
        peers[i] = connect_to(engine, own_path());
        map(peers[i], 1, "a");
    }
    for (size_t i = 0; i < 6; i++) {
        const long before = atomic_load(&faults.wakes);
        const size_t count = 1 + i / 2;
        read_of(peers, count, i % 2 ? IN_TURN : ONE_AFTER_THE_OTHER, true, here, OPS);
        expect_wakes(before + (long)count);
    }
    for (int i = 0; i < 4; i++)
        OK(nvlx_peer_close(peers[i]));
    owner_end(&owner);
    end();
}

/* Another GPU's queue may be full, and a launch would wait there. */
static void only_links_of_the_gpus_of_a_list_are_woken(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    char *here = memory_on(1);
    map(peer, 1, "a");
    map(peer, 0, "c");
    read_of(&peer, 1, IN_TURN, true, here, OPS);
    expect_wakes(1);
    OK(nvlx_peer_close(peer));
    owner_end(&owner);
    end();
}

/* What is no peer of the engine is refused, as ever. */
static void a_bad_list_wakes_nobody(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    struct nvlx_engine *other = make_faulty_engine(0);
    struct nvlx_peer *foreign = connect_to(other, own_path());
    char *here = memory_on(1);
    struct nvlx_request *request;
    struct nvlx_op *ops = calloc(OPS, sizeof *ops);
    map(peer, 1, "a");
    map(foreign, 1, "a");
    const uint64_t there = find(peer, "a");
    for (int bad = 0; bad < 2; bad++) {
        for (size_t i = 0; i < OPS; i++)
            ops[i] = (struct nvlx_op){
                .opcode = NVLX_OP_READ, .peer = bad ? foreign : NULL, .local = here, .remote = there, .length = 1};
        set_idle(true);
        EXPECT(nvlx_transfer(engine, ops, OPS, NULL, &request) == NVLX_EINVAL);
    }
    expect_wakes(0);
    free(ops);
    OK(nvlx_engine_destroy(other));
    owner_end(&owner);
    end();
}

/* It dies while others make lists that wake its link. */
static void *read_again_and_again(void *argument) {
    struct nvlx_peer *peer = argument;
    struct nvlx_op *ops = reads_of(&peer, 1, IN_TURN, memory_on(1), OPS);
    struct nvlx_request *request;
    int code = 0;
    while (!code) {
        atomic_store(&engine->transfers.used_ns, 0);
        code = nvlx_transfer(engine, ops, OPS, NULL, &request);
        if (!code)
            nvlx_request_free(request);
    }
    EQUAL(NVLX_ESTALE, code);
    free(ops);
    return NULL;
}

static void a_peer_may_die_while_it_is_woken(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    pthread_t threads[2];
    map(peer, 1, "a");
    for (int i = 0; i < 2; i++)
        EXPECT(!pthread_create(&threads[i], NULL, read_again_and_again, peer));
    for (int i = 0; i < 10000 && atomic_load(&faults.wakes) < 10; i++)
        usleep(1000);
    EXPECT(atomic_load(&faults.wakes) >= 10);
    owner_kill(&owner);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    await_links(1);
    OK(nvlx_peer_close(peer));
    unlink(own_path());
    end();
}

/* As when the GPU's queue is full of what others have launched. */
#define LAUNCH_MS 1000

static void *wake_the_peer(void *peer) {
    OK(nvlx_peer_wake(peer));
    return NULL;
}

static pthread_t begin_long_wake(struct nvlx_peer *peer) {
    pthread_t thread;
    atomic_store(&faults.wake_delay_us, LAUNCH_MS * 1000);
    EXPECT(!pthread_create(&thread, NULL, wake_the_peer, peer));
    while (!atomic_load(&faults.wakes))
        usleep(1000);
    return thread;
}

/* Owners are answered, and others map. */
static void a_launch_that_waits_holds_up_nobody(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    map(peer, 1, "a");
    const pthread_t thread = begin_long_wake(peer);
    map(peer, 1, "b");
    OK(owner_unregister(&owner, 0));
    EQUAL(0, atomic_load(&faults.woken));
    pthread_join(thread, NULL);
    OK(nvlx_peer_close(peer));
    owner_end(&owner);
    end();
}

static void a_link_stays_while_it_is_woken(void) {
    begin();
    struct nvlx_peer *peer = connect_to(engine, own_path());
    map(peer, 1, "a");
    map(peer, 0, "c");
    const pthread_t thread = begin_long_wake(peer);
    owner_kill(&owner);
    await_end(peer);
    pthread_join(thread, NULL);
    await_links(2);
    EQUAL(0, atomic_load(&faults.unlinked_in_wake));
    OK(nvlx_peer_close(peer));
    unlink(own_path());
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"one_for_two_gpus_as_long_as_the_peer", one_for_two_gpus_as_long_as_the_peer},
        {"given_back_when_the_peer_is_gone", given_back_when_the_peer_is_gone},
        {"given_back_without_a_mapping", given_back_without_a_mapping},
        {"given_back_with_the_engine", given_back_with_the_engine},
        {"long_lists_wake_links_that_were_idle", long_lists_wake_links_that_were_idle},
        {"what_is_seen_done_late_was_not_used_just_now", what_is_seen_done_late_was_not_used_just_now},
        {"without_a_link_nothing_is_woken", without_a_link_nothing_is_woken},
        {"all_peers_of_a_list_are_woken", all_peers_of_a_list_are_woken},
        {"only_links_of_the_gpus_of_a_list_are_woken", only_links_of_the_gpus_of_a_list_are_woken},
        {"a_bad_list_wakes_nobody", a_bad_list_wakes_nobody},
        {"a_peer_is_woken_as_told", a_peer_is_woken_as_told},
        {"a_peer_may_die_while_it_is_woken", a_peer_may_die_while_it_is_woken},
        {"a_launch_that_waits_holds_up_nobody", a_launch_that_waits_holds_up_nobody},
        {"a_link_stays_while_it_is_woken", a_link_stays_while_it_is_woken},
        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
