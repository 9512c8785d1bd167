/* Peers as processes: descriptors that change, processes that die or restart. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer_support.h"

static void refuse_update(struct nvlx_peer *peer, const char *text, int code, const char *words) {
    REFUSED(nvlx_peer_update(peer, text, strlen(text)), code, words);
}

/* ---- Names and generations ------------------------------------------------------------------------------ */

static void regions_are_found_by_name(void) {
    static const size_t sizes[6] = {64, 1024, 16384, 131072, 1, 333};
    struct owner owner;
    size_t offset = 0;
    char name[20];
    uint64_t address, length;
    peers_begin();
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
    peers_end();
    owner_end(&owner);
}

/* "Lists all regions that grant anything, or have a name". */
static void private_regions_are_not_told(void) {
    struct owner owner;
    peers_begin();
    owner_start(&owner);
    uint64_t base = owner_alloc(&owner, 0, 0, SIZE, 5);
    owner_register(&owner, 0, 0, 100, 200, NVLX_ACCESS_NONE, "private");
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t address, length;
    REFUSED(nvlx_peer_find(peer, "private", &address, &length), NVLX_ENOENT, "private");
    refuse_read(peer, base + 100, 10, NVLX_ERANGE, "not in its registered regions");
    peers_end();
    owner_end(&owner);
}

static void updates_add_and_withdraw(void) {
    struct owner owner;
    uint64_t address, length;
    peers_begin();
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
    REFUSED(nvlx_peer_find(peer, "w", &address, &length), NVLX_ENOENT, "no region named \"w\", but \"second\"");
    refuse_read(peer, w, 1, NVLX_ERANGE, "op 0");
    expect_mappings(engine, 1);
    EQUAL(1, atomic_load(&faults.unmaps));
    expect_read(peer, second + 600, 600, 10, 2);
    owner_register(&owner, 0, 0, 7, 100, NVLX_ACCESS_READ, "w");
    update(peer, &owner);
    EQUAL(w + 7, find(peer, "w"));
    expect_read(peer, w + 7, 7, 100, 1);
    refuse_read(peer, w + 6, 100, NVLX_ERANGE, "op 0");
    peers_end();
    owner_end(&owner);
}

/* A mapping by a legacy handle can be written in any case: it stays when a region comes to grant that. */
static void writing_is_granted_later(void) {
    struct owner owner;
    peers_begin();
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
    peers_end();
    owner_end(&owner);
}

static void old_or_foreign_texts_are_refused(void) {
    struct owner owner, other;
    peers_begin();
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
    peers_end();
    owner_end(&owner);
    owner_end(&other);
}

/* A text that says of a mapped segment that it is larger now leads nobody beyond the mapping. */
static void sizes_do_not_change(void) {
    struct owner owner;
    peers_begin();
    start_owner(&owner, 1);
    struct nvlx_peer *peer = open_owner(&owner);
    uint64_t w = find(peer, "w");
    expect_read(peer, w, 0, SIZE, 1);
    char *text = owner_export(&owner), *larger = with_field(text, "size", "0x80000");
    char *newer = with_field(larger, "generation", "0xffff");
    OK(nvlx_peer_update(peer, newer, strlen(newer)));
    expect_mappings(engine, 0);
    refuse_read(peer, w, 10, NVLX_EDEVICE, "");
    free(text), free(larger), free(newer);
    peers_end();
    owner_end(&owner);
}

static void unknown_kinds_are_named(void) {
    struct owner owner;
    peers_begin();
    start_owner(&owner, 1);
    char *text = owner_export(&owner), *changed = with_field(text, "kind", "hologram");
    struct nvlx_peer *peer = open_peer(engine, changed);
    uint64_t w = find(peer, "w");
    refuse_read(peer, w, 10, NVLX_ENOTSUP, "hologram");
    REFUSED(nvlx_peer_map(peer, 0, w, 10), NVLX_ENOTSUP, "hologram");
    EQUAL(0, engine_info(engine).mappings);
    free(text), free(changed);
    peers_end();
    owner_end(&owner);
}

/* ---- Processes that end --------------------------------------------------------------------------------- */

static void killed_peers_stay_readable(void) {
    struct owner owner;
    peers_begin();
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
    peers_end();
}

/* Restarted under the same name: its new descriptor makes a new peer, the old one keeps the old bytes. */
/* An engine as its own peer: nothing is mapped, and copies go from one of its GPUs to another, whatever the memory. */
static void own_memory_of_another_gpu(void) {
    static const uint32_t flags[] = {0, NVLX_ALLOC_VMM, NVLX_ALLOC_POOL};
    peers_begin();
    for (size_t i = 0; i < COUNT(flags); i++) {
        struct nvlx_alloc_options options;
        struct nvlx_peer *peer;
        struct nvlx_region *region;
        void *far;
        nvlx_alloc_options_init(&options);
        options.flags = flags[i];
        int code = nvlx_alloc(engine, second_gpu(), SIZE, &options, &far);
        if (code == NVLX_ENOTSUP)
            continue;
        OK(code);
        region = register_range(engine, far, SIZE, NULL, NVLX_ACCESS_READ | NVLX_ACCESS_WRITE);
        peer = peer_of(engine, engine);
        fill(engine, mine, SIZE, 3);
        move(engine, NVLX_OP_WRITE, peer, mine, (uintptr_t)far, SIZE);
        EQUAL(0, wrong(engine, far, SIZE, 3));
        fill(engine, far, SIZE, 4);
        move(engine, NVLX_OP_READ, peer, mine, (uintptr_t)far, SIZE);
        EQUAL(0, wrong(engine, mine, SIZE, 4));
        OK(nvlx_peer_close(peer));
        OK(nvlx_unregister(region, 0));
        OK(nvlx_free(engine, far));
    }
    peers_end();
}

static void restarted_peers_are_new_peers(void) {
    struct owner owner;
    peers_begin();
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
    /* even at the same addresses as the dead one had */
    char base[20];
    snprintf(base, sizeof base, "0x7e0000000000");
    char *moved = with_field(text, "base", base);
    struct nvlx_peer *same = open_peer(engine, moved);
    EQUAL(UINT64_C(0x7e0000000000), find(same, "w"));
    expect_read(same, find(same, "w") + 17, 17, 1000, 6);
    free(text), free(moved);
    peers_end();
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
                                        {"own_memory_of_another_gpu", own_memory_of_another_gpu},
                                        {"restarted_peers_are_new_peers", restarted_peers_are_new_peers},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
