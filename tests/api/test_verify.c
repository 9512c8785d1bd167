/* Digests that owners tell, and transfers that are verified by them. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "peer_support.h"
#include "rendezvous_support.h"

static struct nvlx_region_info region_by_name(struct nvlx_peer *peer, const char *name) {
    struct nvlx_region_info info = {.size = sizeof info};
    OK(nvlx_peer_region_by_name(peer, name, &info));
    return info;
}

/* What the bytes of a seed have as their digest. */
static uint64_t digest_of(uint32_t seed, size_t length) {
    uint64_t value;
    char *memory = allocate(engine, 0, length, seed);
    struct nvlx_region *region = register_range(engine, memory, length, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_digest(engine, memory, length, &value));
    OK(nvlx_unregister(region, 0));
    OK(nvlx_free(engine, memory));
    return value;
}

/* ---- Digests that owners tell -------------------------------------------------------------------------- */

static void peers_are_told(void) {
    struct owner owner;
    peers_begin();
    start_owner(&owner, 1);
    OK(owner_serve(&owner, own_path(), 0));
    struct nvlx_peer *peer = connect_to(engine, own_path());
    const struct nvlx_region_info before = region_by_name(peer, "w");
    EQUAL(0, before.has_digest);
    EQUAL(0, before.digest);
    EQUAL(digest_of(1, SIZE), owner_set_digest(&owner, 0));
    OK(nvlx_peer_sync(peer, before.peer_generation + 1, PATIENCE));
    struct nvlx_region_info info = region_by_name(peer, "w");
    EQUAL(1, info.has_digest);
    EQUAL(digest_of(1, SIZE), info.digest);
    EQUAL(before.generation, info.generation);              /* its addresses are good as before */
    EQUAL(digest_of(1, SIZE), owner_set_digest(&owner, 0)); /* that is no news */
    owner_fill(&owner, 0, 0, SIZE, 2);
    EQUAL(digest_of(2, SIZE), owner_set_digest(&owner, 0));
    OK(nvlx_peer_sync(peer, info.peer_generation + 1, PATIENCE));
    info = region_by_name(peer, "w");
    EQUAL(before.peer_generation + 2, info.peer_generation);
    EQUAL(digest_of(2, SIZE), info.digest);
    struct nvlx_peer *by_text = open_owner(&owner);
    EQUAL(digest_of(2, SIZE), region_by_name(by_text, "w").digest);
    peers_end();
    owner_end(&owner);
}

/* Digests beside regions that come and go: a follower knows all, whatever way it was told. */
static void followers_know_all(void) {
    struct owner owner;
    char name[16];
    uint64_t generation = 0;
    peers_begin();
    start_owner(&owner, 1);
    OK(owner_serve(&owner, own_path(), 0));
    struct nvlx_peer *peer = connect_to(engine, own_path());
    for (uint32_t round = 0; round < 200; round++) {
        const uint32_t region = 1 + round % 8;
        if (round >= 8)
            OK(owner_unregister(&owner, region));
        snprintf(name, sizeof name, "r%u", region);
        owner_register(&owner, region, 0, 1000 * region, 1000, NVLX_ACCESS_READ, name);
        owner_fill(&owner, 0, 1000 * region, 1000, round);
        if (round % 3)
            owner_set_digest(&owner, region);
        if (round % 5 == 0) {
            owner_fill(&owner, 0, 0, 1000, round);
            owner_set_digest(&owner, 0);
        }
        struct nvlx_peer *other = open_owner(&owner);
        OK(nvlx_peer_generation(other, &generation));
        OK(nvlx_peer_sync(peer, generation, PATIENCE));
        struct nvlx_region_info known = {.size = sizeof known}, told;
        size_t place = 0, count = 0;
        for (; nvlx_peer_region(other, &place, &known) == 0; count++) {
            told = region_by_name(peer, known.name);
            EXPECT(!memcmp(&known, &told, sizeof known));
        }
        for (place = 0; nvlx_peer_region(peer, &place, &known) == 0; count--)
            EXPECT(known.name[0] != 0);
        EQUAL(0, count);
        OK(nvlx_peer_close(other));
    }
    peers_end();
    owner_end(&owner);
}

static void digests_come_and_go_with_their_regions(void) {
    uint64_t value = 7, known;
    struct nvlx_region *none;
    peers_begin();
    struct nvlx_region *private = register_range(engine, mine, 100, "private", NVLX_ACCESS_NONE),
                       *shared = register_range(engine, mine, SIZE, "shared", NVLX_ACCESS_READ),
                       *empty = register_range(engine, NULL, 0, "empty", NVLX_ACCESS_READ);
    const struct nvlxi_told before = engine->registration.told;
    REFUSED(nvlx_region_set_digest(NULL, &value), NVLX_EINVAL, "region is NULL");
    REFUSED(nvlx_region_set_digest(private, &value), NVLX_EINVAL, "private");
    EQUAL(7, value);
    OK(nvlx_region_set_digest(shared, NULL));
    OK(nvlx_region_set_digest(shared, &value));
    OK(nvlx_digest(engine, mine, SIZE, &known));
    EQUAL(known, value);
    EQUAL(before.text + 26, engine->registration.told.text);
    OK(nvlx_region_set_digest(empty, &value));
    OK(nvlx_digest(engine, NULL, 0, &known));
    EQUAL(known, value);
    engine->registration.limits.text = engine->registration.told.text;
    OK(nvlx_region_set_digest(shared, &value));
    OK(nvlx_unregister(empty, 0));
    EQUAL(before.regions - 1, engine->registration.told.regions);
    empty = register_range(engine, NULL, 0, "empty", NVLX_ACCESS_READ);
    REFUSED(nvlx_register(engine, NULL, 0, NULL, &none), NVLX_EBUSY, "at most");
    OK(nvlx_unregister(shared, 0));
    shared = register_range(engine, mine, SIZE, "shared", NVLX_ACCESS_READ);
    engine->registration.limits.text = engine->registration.told.text + 25;
    REFUSED(nvlx_region_set_digest(shared, &value), NVLX_EBUSY, "with one more digest");
    EQUAL(before.text, engine->registration.told.text);
    peers_end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"peers_are_told", peers_are_told},
        {"followers_know_all", followers_know_all},
        {"digests_come_and_go_with_their_regions", digests_come_and_go_with_their_regions},
        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
