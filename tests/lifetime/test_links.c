/* What keeps mapping another GPU's memory cheap is held as long as the peer is there, and no longer.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <unistd.h>

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

int main(int argc, char **argv) {
    static const struct test tests[] = {{"one_for_two_gpus_as_long_as_the_peer", one_for_two_gpus_as_long_as_the_peer},
                                        {"given_back_when_the_peer_is_gone", given_back_when_the_peer_is_gone},
                                        {"given_back_without_a_mapping", given_back_without_a_mapping},
                                        {"given_back_with_the_engine", given_back_with_the_engine},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
