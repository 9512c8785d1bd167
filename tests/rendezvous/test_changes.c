/* Changes against the whole: a peer's table that takes what changed must be as one that is made of all there is.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_changes [ROUNDS SEED]
 *
 * An owner registers, withdraws and frees at random, memory of all kinds; regions sleep, wake and get digests. A
 * follower, to which it seems to be another process, is told what changed since it was told last. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "descriptor/merge.h"
#include "support.h"

#define BLOCKS  12
#define REGIONS 160
#define CHUNK   (2 * MIB)

static uint64_t state = 11;
static int rounds = 1500;
static struct nvlx_engine *owner, *reader;

static struct {
    char *address;
    size_t length;
} blocks[BLOCKS];
static struct nvlx_region *regions[REGIONS];
static char names[REGIONS][32]; /* "": none, or not taken */
static bool sleepy;             /* regions sleep and wake, too */
static size_t in_place, all;    /* how often each way was taken */
static bool older;              /* changes are for who does not understand those that alter regions, */
static size_t wholes;           /* and is told all there is, so often */

static size_t below(size_t limit) {
    return limit ? next_random(&state) % limit : 0;
}

/* ---- The owner ------------------------------------------------------------------------------------------- */

static void allocate_block(size_t i) {
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = below(3) ? below(2) ? NVLX_ALLOC_VMM : NVLX_ALLOC_POOL : 0;
    options.chunk_length = options.flags == NVLX_ALLOC_VMM ? CHUNK : 0;
    blocks[i].length = options.flags == NVLX_ALLOC_VMM ? CHUNK * (1 + below(4)) : 4096 * (1 + below(64));
    OK(nvlx_alloc(owner, 0, blocks[i].length, &options, (void **)&blocks[i].address));
}

static void withdraw(size_t i) {
    if (!regions[i])
        return;
    OK(nvlx_unregister(regions[i], -1));
    regions[i] = NULL;
}

/* Regions that lie in it are stale then, until they are withdrawn. */
static void free_block(size_t i) {
    OK(nvlx_free(owner, blocks[i].address));
    blocks[i].address = NULL;
}

static void add_region(size_t i) {
    const size_t block = below(BLOCKS), unit = below(2) ? 512 : 64 * KIB;
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.access = below(8) ? (uint32_t)below(4) : NVLX_ACCESS_READ_WRITE;
    snprintf(names[i], sizeof names[i], "%s%zu", below(2) ? "layer." : "", below(400));
    options.name = below(4) ? names[i] : NULL;
    if (!blocks[block].address)
        allocate_block(block);
    const size_t start = below(blocks[block].length / unit + 1) * unit / (1 + below(3));
    const size_t room = blocks[block].length - nvlxi_min(start, blocks[block].length);
    const size_t length = below(10) ? below(5) ? nvlxi_min(1 + below(3 * unit), room) : room : 0;
    int code = nvlx_register(owner, blocks[block].address + start, length, &options, &regions[i]);
    EXPECT(code == 0 || code == NVLX_EEXIST);
    if (code)
        regions[i] = NULL;
}

static void put_to_sleep(void) {
    struct nvlx_region *list[REGIONS];
    size_t count = 0;
    for (size_t i = 0; i < REGIONS; i++)
        if (regions[i] && !regions[i]->stale && !below(4))
            list[count++] = regions[i];
    OK(nvlx_suspend(list, count, -1));
}

static bool is_there(uint64_t address, uint64_t length) {
    for (size_t i = 0; i < BLOCKS; i++)
        if (blocks[i].address && address - (uintptr_t)blocks[i].address <= blocks[i].length &&
            length <= blocks[i].length - (address - (uintptr_t)blocks[i].address))
            return true;
    return false;
}

/* Where they were, or elsewhere. */
static void wake(void) {
    struct nvlx_region *list[REGIONS];
    void *addresses[REGIONS];
    const bool everybody = below(2);
    size_t count = 0;
    for (size_t i = 0; i < REGIONS; i++) {
        if (!regions[i] || !regions[i]->suspended || (!everybody && below(2)))
            continue;
        void *moved = blocks[below(BLOCKS)].address;
        const bool stays = is_there(regions[i]->address, regions[i]->length),
                   moves = is_there((uintptr_t)moved, regions[i]->length);
        list[count] = regions[i];
        addresses[count] = moves && (!stays || !below(3)) ? moved : NULL;
        count += stays || moves || !regions[i]->length;
    }
    OK(nvlx_resume(list, count, addresses));
}

/* Of whatever bytes: nobody reads them. */
static void set_digest(size_t i) {
    const uint64_t digest = below(3);
    if (regions[i] && regions[i]->access && !regions[i]->stale && !regions[i]->suspended)
        OK(nvlxi_registration_set_digest(&owner->registration, regions[i], regions[i]->naps, &digest));
}

static void change_something(void) {
    const size_t i = below(REGIONS), block = below(BLOCKS);
    if (sleepy && !below(50))
        below(2) ? put_to_sleep() : wake();
    else if (sleepy && !below(4))
        set_digest(i);
    else if (!below(12) && blocks[block].address)
        free_block(block);
    else if (regions[i] && below(2))
        withdraw(i);
    else if (!regions[i])
        add_region(i);
}

/* ---- The follower ---------------------------------------------------------------------------------------- */

/* As if it came from another process, so that its memory must be mapped. */
static char *foreign(char *text) {
    char *other = with_field(text, "start_time", "0x1");
    free(text);
    return other;
}

static char *whole(void) {
    char *text;
    size_t length;
    uint64_t generation;
    OK(nvlxi_publisher_text(&owner->rendezvous.publisher, &text, &length, &generation));
    return foreign(text);
}

static struct nvlx_peer *open_whole(void) {
    struct nvlx_peer *peer;
    char *text = whole();
    OK(nvlx_peer_open(reader, text, strlen(text), &peer));
    free(text);
    return peer;
}

static void expect_same_run(const struct nvlxi_peer_table *a, uint32_t one, const struct nvlxi_peer_table *b,
                            uint32_t other) {
    const struct nvlxi_run *x = &a->runs.run[one], *y = &b->runs.run[other];
    EXPECT(x->base == y->base && x->size == y->size && x->serial == y->serial && x->count == y->count);
    EXPECT(x->read_only == y->read_only && x->regions == y->regions && x->writers == y->writers);
    EXPECT(nvlxi_runs_find(&a->runs, x->base, x->serial) == x);
    for (uint32_t i = 0; i < x->count; i++) {
        EXPECT(nvlxi_segment_same(&a->descriptor->segments[x->first + i], &b->descriptor->segments[y->first + i]));
        EQUAL(one, a->runs.of_segment[x->first + i]);
    }
}

static void expect_same_pieces(const struct nvlxi_peer_table *a, const struct nvlxi_peer_table *b) {
    uint32_t x = nvlxi_intervals_next(&a->ranges, 0), y = nvlxi_intervals_next(&b->ranges, 0);
    EQUAL(b->ranges.count, a->ranges.count);
    for (; x && y; x = nvlxi_intervals_next(&a->ranges, x), y = nvlxi_intervals_next(&b->ranges, y)) {
        const struct nvlxi_range *one = &a->ranges.piece[x], *other = &b->ranges.piece[y];
        EXPECT(one->start == other->start && one->end == other->end && one->last == other->last);
        EXPECT(one->access == other->access && one->place == other->place && one->joined == other->joined);
        EQUAL(nvlxi_intervals_border(&b->ranges, y), nvlxi_intervals_border(&a->ranges, x));
        EQUAL(nvlxi_intervals_born(&b->ranges, y), nvlxi_intervals_born(&a->ranges, x));
        EQUAL(nvlxi_intervals_lone(&b->ranges, y), nvlxi_intervals_lone(&a->ranges, x));
        EQUAL(x, nvlxi_intervals_find(&a->ranges, one->start + below(one->last + 1)));
        expect_same_run(a, one->owner, b, other->owner);
    }
    EXPECT(!x && !y);
}

static void expect_same_region(const struct nvlxi_region_record *x, const struct nvlxi_region_record *y) {
    EXPECT(x->address == y->address && x->length == y->length && x->access == y->access && x->since == y->since);
    EXPECT(x->suspended == y->suspended && x->has_digest == y->has_digest && x->digest == y->digest);
    EXPECT(x->segment_count == y->segment_count && !strcmp(x->name, y->name));
    EXPECT((x->segment == NVLXI_NO_SEGMENT) == (y->segment == NVLXI_NO_SEGMENT));
}

static const struct nvlxi_region_record *by_id(const struct nvlxi_peer_table *table, uint64_t id) {
    const uint32_t place = nvlxi_order_floor(&table->by_id, id);
    return place ? &table->descriptor->regions[place - 1] : NULL;
}

static void expect_same_names(const struct nvlxi_peer_table *a, const struct nvlxi_peer_table *b) {
    char name[32];
    for (size_t i = 0; i < 800; i++) {
        snprintf(name, sizeof name, "%s%zu", i < 400 ? "layer." : "", i % 400);
        const struct nvlxi_region_record *x = nvlxi_peer_table_find(a, name), *y = nvlxi_peer_table_find(b, name);
        EXPECT(!x == !y);
        EXPECT(!x || !strcmp(x->name, name));
        if (x && y)
            expect_same_region(x, y);
    }
}

/* Each region of a fresh table is in the other; those that sleep are listed, each once. */
static void expect_same_regions(const struct nvlxi_peer_table *a, const struct nvlxi_peer_table *b) {
    size_t count = 0;
    for (size_t i = 0; i < b->descriptor->region_count; i++) {
        const struct nvlxi_region_record *x = by_id(a, b->descriptor->regions[i].since);
        EXPECT(x && x->access != NVLXI_GONE);
        if (x)
            expect_same_region(x, &b->descriptor->regions[i]);
    }
    for (size_t i = 0; i < a->descriptor->region_count; i++)
        count += a->descriptor->regions[i].access != NVLXI_GONE;
    EQUAL(b->descriptor->region_count, count);
    EQUAL(b->descriptor->suspended_count, a->sleeper_count);
    for (size_t i = 0; i < a->sleeper_count; i++) {
        const struct nvlxi_region_record *region = &a->descriptor->regions[a->sleepers[i]];
        EXPECT(region->suspended && a->sleeper_of[a->sleepers[i]] == i && region->access != NVLXI_GONE);
    }
}

static void expect_whole(const struct nvlx_peer *peer) {
    struct nvlx_peer *fresh = open_whole();
    const struct nvlxi_peer_table *a = peer->table, *b = fresh->table;
    EQUAL(b->descriptor->identity.generation, a->descriptor->identity.generation);
    EXPECT(a->has_ids && b->has_ids);
    expect_same_regions(a, b);
    expect_same_pieces(a, b);
    expect_same_names(a, b);
    OK(nvlx_peer_close(fresh));
}

/* All, for an older one, if a region that was told before is another. */
static char *changes_since(uint64_t since) {
    char *text;
    size_t length;
    uint64_t generation;
    bool alters = !older;
    int code = nvlxi_publisher_changes(&owner->rendezvous.publisher, since, &alters, &text, &length, &generation);
    EXPECT(!alters || (!older && sleepy));
    if (code && older) {
        EQUAL(NVLX_EAGAIN, code);
        return whole();
    }
    OK(code);
    return text ? foreign(text) : NULL;
}

static bool is_whole(const char *text) {
    return !strstr(text, "\"from\":");
}

static void take(struct nvlx_peer *peer, const char *text) {
    OK(is_whole(text) ? nvlx_peer_update(peer, text, strlen(text)) : nvlxi_peer_change(peer, text, strlen(text)));
}

static void tell(struct nvlx_peer *peer, const char *text) {
    const struct nvlxi_peer_table *before = peer->table;
    take(peer, text);
    in_place += peer->table == before;
    all++;
    wholes += is_whole(text);
}

static void begin(void) {
    owner = make_engine(0);
    reader = make_engine(0);
    nvlxi_registration_listen(&owner->registration, NULL, NULL); /* its journal begins */
    for (size_t i = 0; i < BLOCKS; i++)
        allocate_block(i);
    memset(regions, 0, sizeof(regions));
}

static void end(void) {
    OK(nvlx_engine_destroy(reader));
    for (size_t i = 0; i < REGIONS; i++)
        withdraw(i);
    for (size_t i = 0; i < BLOCKS; i++)
        if (blocks[i].address)
            free_block(i);
    OK(nvlx_engine_destroy(owner));
}

/* ---- Tests ------------------------------------------------------------------------------------------------- */

/* One follower is told after every few changes, and one that was told by somebody else in between. */
static void as_the_whole(void) {
    begin();
    struct nvlx_peer *peer = open_whole(), *late = open_whole();
    in_place = all = wholes = 0;
    for (int round = 0; round < rounds; round++) {
        const size_t count = below(4) ? 1 + below(3) : below(200);
        const uint64_t since = nvlxi_peer_generation(peer);
        for (size_t i = 0; i < count; i++)
            change_something();
        char *text = changes_since(since);
        if (!text)
            continue;
        tell(peer, text);
        take(peer, text); /* tells nothing new */
        free(text);
        expect_whole(peer);
        if (below(20))
            continue;
        const uint64_t told = nvlxi_peer_generation(late);
        if (below(2) && (text = changes_since(told))) {
            take(late, text);
            free(text);
        }
        change_something();
        if ((text = changes_since(told))) {
            take(late, text);
            free(text);
        }
        expect_whole(late);
    }
    fprintf(stderr, "%zu of %zu in place, %zu told whole\n", in_place, all, wholes);
    EXPECT(in_place > all / (sleepy ? 16 : 4) && in_place + wholes < all);
    EXPECT(older ? wholes > all / 50 : wholes == 0);
    OK(nvlx_peer_close(peer));
    OK(nvlx_peer_close(late));
    end();
}

static void as_the_whole_with_sleepers(void) {
    sleepy = true;
    as_the_whole();
    sleepy = false;
}

static void as_the_whole_for_an_older_one(void) {
    older = true;
    as_the_whole_with_sleepers();
    older = false;
}

/* ---- Room ------------------------------------------------------------------------------------------------ */

static void tell_changes(struct nvlx_peer *peer) {
    char *text = changes_since(nvlxi_peer_generation(peer));
    if (text)
        tell(peer, text);
    free(text);
}

static struct nvlx_region *add_told(struct nvlx_peer *peer, char *address, size_t length, const char *name) {
    struct nvlx_region *region = register_range(owner, address, length, name, NVLX_ACCESS_READ);
    tell_changes(peer);
    return region;
}

/* An allocation comes, sleeps, wakes and goes, each time of other chunks. Some names are long, so that none is kept. */
static void churn(struct nvlx_peer *peer, int i) {
    const size_t chunks = 1 + (size_t)i % 20;
    struct nvlx_alloc_options options;
    char name[200], *memory;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = CHUNK;
    OK(nvlx_alloc(owner, 0, chunks * CHUNK, &options, (void **)&memory));
    snprintf(name, sizeof name, "%*d", i % 3 ? 150 : 10, i);
    struct nvlx_region *region = add_told(peer, memory, chunks * CHUNK, name);
    if (i % 2) {
        OK(nvlx_suspend(&region, 1, -1));
        tell_changes(peer);
        OK(nvlx_resume(&region, 1, NULL));
        tell_changes(peer);
    }
    OK(nvlx_unregister(region, -1));
    OK(nvlx_free(owner, memory));
}

/* As many come and go as there is room for, and many more: no other table is made, and nothing grows. */
static void room_is_used_again(void) {
    char name[32];
    begin();
    sleepy = true;
    for (size_t i = 0; i < 64; i++) { /* those that the table is made of go, too */
        snprintf(name, sizeof name, "first.%zu", i);
        regions[i] = register_range(owner, blocks[0].address + i * 64, 64, i % 4 ? name : NULL, NVLX_ACCESS_READ);
    }
    struct nvlx_peer *peer = open_whole();
    const struct nvlxi_peer_table *table = peer->table;
    struct mallinfo2 before = {0};
    for (int i = 0; i < 3000; i++) {
        const size_t which = (size_t)i % 64;
        withdraw(which);
        snprintf(name, sizeof name, "later.%d", i);
        regions[which] = add_told(peer, blocks[0].address + which * 64, 64, i % 5 ? name : NULL);
        churn(peer, i);
        if (i % 500 == 100) {
            tell_changes(peer);
            expect_whole(peer);
        }
        if (i == 1000)
            before = mallinfo2();
    }
    const struct mallinfo2 after = mallinfo2();
    EXPECT(peer->table == table);
    EXPECT(after.uordblks + after.hblkhd < before.uordblks + before.hblkhd + 64 * KIB);
    tell_changes(peer);
    expect_whole(peer);
    sleepy = false;
    OK(nvlx_peer_close(peer));
    end();
}

/* More are there at a time than there is room for: now and then another table is made. */
static void room_ends(void) {
    struct nvlx_region *many[3000];
    begin();
    struct nvlx_peer *peer = open_whole();
    const struct nvlxi_peer_table *table = peer->table;
    size_t tables = 0;
    for (size_t i = 0; i < COUNT(many); i++) {
        many[i] = add_told(peer, blocks[0].address + i, 1, NULL);
        tables += peer->table != table;
        table = peer->table;
    }
    expect_whole(peer);
    EXPECT(tables > 0 && tables < 10);
    for (size_t i = 0; i < COUNT(many); i++)
        OK(nvlx_unregister(many[i], -1));
    OK(nvlx_peer_close(peer));
    end();
}

/* Names come and go at the same places. */
static void places_are_used_again(void) {
    begin();
    struct nvlx_peer *peer = open_whole();
    const struct nvlxi_peer_table *table = peer->table;
    size_t tables = 0;
    for (int i = 0; i < 3000; i++) {
        const uint64_t since = nvlxi_peer_generation(peer);
        struct nvlx_region *region =
            register_range(owner, blocks[0].address + i % 8 * 512, 512, i % 3 ? "same" : "other", NVLX_ACCESS_READ);
        char *text = changes_since(since);
        tell(peer, text);
        free(text);
        EXPECT(find(peer, i % 3 ? "same" : "other") == (uintptr_t)blocks[0].address + (uint64_t)(i % 8) * 512);
        OK(nvlx_unregister(region, -1));
        if (i % 2) {
            text = changes_since(nvlxi_peer_generation(peer));
            tell(peer, text);
            free(text);
        }
        tables += peer->table != table;
        table = peer->table;
    }
    expect_whole(peer);
    EQUAL(0, tables);
    OK(nvlx_peer_close(peer));
    end();
}

static void expect_refused(struct nvlx_peer *peer, const char *text, const char *key, const char *value) {
    char *other = with_field(text, key, value);
    const uint64_t generation = nvlxi_peer_generation(peer);
    const struct nvlxi_peer_table *table = peer->table;
    EQUAL(NVLX_EFORMAT, nvlxi_peer_change(peer, other, strlen(other)));
    EXPECT(peer->table == table && nvlxi_peer_generation(peer) == generation);
    free(other);
}

/* What does not fit to what is known changes nothing. */
static void wrong_changes(void) {
    begin();
    OK(nvlx_register(owner, blocks[0].address, 512, NULL, &regions[0]));
    register_range(owner, blocks[1].address, 512, "stays", NVLX_ACCESS_READ);
    register_range(owner, blocks[1].address + 512, 512, "stays.too", NVLX_ACCESS_READ);
    struct nvlx_peer *peer = open_whole();
    const uint64_t since = nvlxi_peer_generation(peer);
    withdraw(0);
    register_range(owner, blocks[2].address, 512, "added", NVLX_ACCESS_READ);
    register_range(owner, blocks[2].address + 512, 512, "also", NVLX_ACCESS_READ);
    char *text = changes_since(since), base[32], end_of[32];
    snprintf(base, sizeof base, "0x%llx", (unsigned long long)(uintptr_t)blocks[1].address);
    snprintf(end_of, sizeof end_of, "0x%llx",
             (unsigned long long)(uintptr_t)blocks[1].address + blocks[1].length - 512);
    const char *const wrong[][2] = {{"from", "0x5"}, /* of which nothing is known */
                                    {"removed", "0x1"},
                                    {"removed", "0x2 0x2"},
                                    {"removed", "0x2 0x1"},
                                    {"removed", "0x2 0x7"}, /* is added */
                                    {"engine", "00000000000000000000000000000000"},
                                    {"base", base},    /* another segment lies there, */
                                    {"base", end_of}}; /* and ends there */
    for (size_t i = 0; i < COUNT(wrong); i++)
        expect_refused(peer, text, wrong[i][0], wrong[i][1]);
    char *taken = strdup(text), *name = strstr(taken, "\"added\"");
    for (size_t i = 0; i < 5; i++)
        name[1 + i] = "stays"[i];
    EQUAL(NVLX_EFORMAT, nvlxi_peer_change(peer, taken, strlen(taken)));
    EQUAL(NVLX_EFORMAT, nvlx_peer_update(peer, text, strlen(text))); /* is not all there is */
    struct nvlx_peer *other;
    EQUAL(NVLX_EFORMAT, nvlx_peer_open(reader, text, strlen(text), &other));
    tell(peer, text);
    expect_whole(peer);
    free(taken);
    free(text);
    OK(nvlx_peer_close(peer));
    end();
}

static char *replaced(const char *text, const char *part, const char *by) {
    const char *at = strstr(text, part);
    char *made;
    EXPECT(at != NULL);
    if (asprintf(&made, "%.*s%s%s", (int)(at - text), text, by, at + strlen(part)) < 0)
        FAIL("no memory for a text");
    return made;
}

/* The same of a region that was told of before, and is another. */
static void wrong_alterations(void) {
    char *text;
    begin();
    sleepy = true;
    for (int asleep = 0; asleep < 2; asleep++) {
        struct nvlx_region *region = register_range(owner, blocks[1].address, 512, "alters", NVLX_ACCESS_READ);
        struct nvlx_peer *peer = open_whole();
        const uint64_t since = nvlxi_peer_generation(peer);
        OK(asleep ? nvlx_suspend(&region, 1, -1) : nvlx_region_set_digest(region, NULL));
        text = changes_since(since);
        static const char *const wrong[][2] = {{"\"alters\"", "\"others\""},
                                               {"0x200 ", "0x201 "},
                                               {" r ", " w "},
                                               {" r 0x", " r 0x1"}, /* another id */
                                               {" r 0x", " r 0x0 "}};
        for (size_t i = 0; i < COUNT(wrong); i++) {
            char *other = replaced(text, wrong[i][0], wrong[i][1]);
            EQUAL(NVLX_EFORMAT, nvlxi_peer_change(peer, other, strlen(other)));
            EQUAL(since, nvlxi_peer_generation(peer));
            free(other);
        }
        const struct nvlxi_peer_table *table = peer->table;
        tell(peer, text);
        EXPECT(peer->table == table);
        expect_whole(peer);
        free(text);
        OK(nvlx_peer_close(peer));
        OK(nvlx_unregister(region, -1));
    }
    sleepy = false;
    end();
}

/* The journal ends somewhere: beyond it, there is nothing but the whole. */
static void journal_ends(void) {
    begin();
    uint64_t since = owner->registration.generation;
    char *text;
    size_t length;
    for (int i = 0; i < (int)NVLXI_JOURNAL_MAX / 2 + 10; i++) {
        if (i == 9)
            since = owner->registration.generation;
        OK(nvlx_unregister(register_range(owner, blocks[0].address, 512, "x", NVLX_ACCESS_READ), -1));
    }
    uint64_t generation;
    bool alters = true;
    EQUAL(NVLX_EAGAIN,
          nvlxi_publisher_changes(&owner->rendezvous.publisher, since, &alters, &text, &length, &generation));
    OK(nvlxi_publisher_changes(&owner->rendezvous.publisher, since + 2, &alters, &text, &length, &generation));
    EQUAL(owner->registration.generation, generation);
    free(text);
    OK(nvlxi_publisher_changes(&owner->rendezvous.publisher, generation, &alters, &text, &length, &generation));
    EXPECT(!text);
    OK(nvlx_hold(owner));
    EQUAL(NVLX_EBUSY,
          nvlxi_publisher_changes(&owner->rendezvous.publisher, since, &alters, &text, &length, &generation));
    OK(nvlx_publish(owner, NULL));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"as_the_whole", as_the_whole},
                                        {"as_the_whole_with_sleepers", as_the_whole_with_sleepers},
                                        {"as_the_whole_for_an_older_one", as_the_whole_for_an_older_one},
                                        {"room_is_used_again", room_is_used_again},
                                        {"room_ends", room_ends},
                                        {"places_are_used_again", places_are_used_again},
                                        {"wrong_changes", wrong_changes},
                                        {"wrong_alterations", wrong_alterations},
                                        {"journal_ends", journal_ends},
                                        {0}};
    static const struct role roles[] = {{0}};
    if (argc == 3) {
        rounds = atoi(argv[1]);
        state = strtoull(argv[2], NULL, 0);
        as_the_whole();
        as_the_whole_with_sleepers();
        as_the_whole_for_an_older_one();
        return 0;
    }
    return run_tests(argc, argv, tests, roles, 60);
}
