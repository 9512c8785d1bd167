/* Digests that owners tell, and transfers that are verified by them. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "host_stream.h"
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
    register_range(engine, NULL, 0, "empty", NVLX_ACCESS_READ);
    REFUSED(nvlx_register(engine, NULL, 0, NULL, &none), NVLX_EBUSY, "at most");
    OK(nvlx_unregister(shared, 0));
    shared = register_range(engine, mine, SIZE, "shared", NVLX_ACCESS_READ);
    engine->registration.limits.text = engine->registration.told.text + 25;
    REFUSED(nvlx_region_set_digest(shared, &value), NVLX_EBUSY, "with one more digest");
    EQUAL(before.text, engine->registration.told.text);
    peers_end();
}

/* ---- Verified transfers -------------------------------------------------------------------------------- */

#define LEAF (16 * KIB)

static uint32_t mechanism; /* of what is verified */

static int begin_verified(const struct nvlx_op *ops, size_t count, struct nvlx_request **request) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    options.mechanism = mechanism;
    return nvlx_transfer(engine, ops, count, &options, request);
}

/* How it ends: either call frees nothing that is not there. */
static int verify(const struct nvlx_op *ops, size_t count) {
    struct nvlx_request *request;
    struct nvlx_request_info info = {.size = sizeof info};
    int code = begin_verified(ops, count, &request);
    if (code)
        return code;
    code = nvlx_wait(request, PATIENCE);
    OK(nvlx_request_get_info(request, &info));
    EXPECT(info.status == code && (info.error[0] != 0) == (code != 0));
    EXPECT(nvlx_request_free(request) == code);
    return code;
}

static void refuse(const struct nvlx_op *ops, size_t count, int code, const char *words) {
    struct nvlx_request *request;
    REFUSED(begin_verified(ops, count, &request), code, words);
}

static struct nvlx_op read_op(struct nvlx_peer *peer, size_t local, uint64_t remote, size_t length) {
    return make_op(NVLX_OP_READ, peer, mine + local, remote, length);
}

/* Slot 0 is filled with a seed. A quarter of it each are "a" to "d", of which "d" has no digest. */
static struct nvlx_peer *start_four(struct owner *owner, uint32_t seed, uint64_t *base) {
    static const char *const names[] = {"a", "b", "c", "d"};
    owner_start(owner);
    *base = owner_alloc(owner, 0, 0, SIZE, seed);
    for (uint32_t i = 0; i < 4; i++) {
        owner_register(owner, i, 0, i * SIZE / 4, SIZE / 4, NVLX_ACCESS_READ_WRITE, names[i]);
        if (i < 3)
            owner_set_digest(owner, i);
    }
    return open_owner(owner);
}

static void right_bytes_pass(void) {
    struct owner owner;
    uint64_t base;
    peers_begin();
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    const struct nvlx_op one = read_op(peer, 100, base, SIZE / 4), three = read_op(peer, 7, base, 3 * SIZE / 4),
                         all[] = {read_op(peer, SIZE / 4, base + SIZE / 4, SIZE / 4), read_op(peer, 0, base, 0),
                                  read_op(peer, 0, base, SIZE / 4), read_op(peer, SIZE / 2 + 5000, base, SIZE / 4)};
    for (int twice = 0; twice < 2; twice++) {
        OK(verify(&one, 1));
        EQUAL(0, wrong(engine, mine + 100, SIZE / 4, 3));
        OK(verify(&three, 1));
        EQUAL(0, wrong(engine, mine + 7, 3 * SIZE / 4, 3));
        OK(verify(all, COUNT(all)));
        EQUAL(0, wrong(engine, mine + SIZE / 2 + 5000, SIZE / 4, 3));
    }
    OK(verify(all + 1, 1));
    OK(verify(NULL, 0));
    peers_end();
    owner_end(&owner);
}

static void a_wrong_byte_is_named(void) {
    struct owner owner;
    uint64_t base;
    char words[160];
    peers_begin();
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    const struct nvlx_op ops[] = {read_op(peer, 0, base, SIZE / 4), read_op(peer, SIZE / 4, base + SIZE / 4, SIZE / 4),
                                  read_op(peer, SIZE / 2, base + SIZE / 2, SIZE / 4)};
    OK(verify(ops, COUNT(ops)));
    owner_fill(&owner, 0, SIZE / 2 - 16, 16, 99); /* the last ones of "b" */
    for (int twice = 0; twice < 2; twice++) {
        REFUSED(verify(ops, COUNT(ops)), NVLX_EDIGEST, "op 1: what has arrived of the peer's region \"b\"");
        uint64_t found;
        OK(nvlx_digest(engine, mine + SIZE / 4, SIZE / 4, &found));
        snprintf(words, sizeof words, "0x%" PRIx64 " + %zu has digest 0x%016" PRIx64 ", not 0x%016" PRIx64,
                 base + SIZE / 4, SIZE / 4, found, region_by_name(peer, "b").digest);
        REFUSED(verify(ops, COUNT(ops)), NVLX_EDIGEST, words);
        const struct nvlx_op two = read_op(peer, 0, base, SIZE / 2);
        REFUSED(verify(&two, 1), NVLX_EDIGEST, "op 0: what has arrived of the peer's region \"b\"");
        OK(verify(&ops[2], 1));
        OK(verify(&ops[0], 1));
    }
    owner_set_digest(&owner, 1);
    update(peer, &owner);
    OK(verify(ops, COUNT(ops)));
    owner_fill(&owner, 0, 0, SIZE, 3); /* right again, except for the digest */
    REFUSED(verify(ops, COUNT(ops)), NVLX_EDIGEST, "op 1:");
    peers_end();
    owner_end(&owner);
}

static void what_cannot_be_verified_is_refused(void) {
    struct owner owner;
    uint64_t base;
    struct nvlx_op ops[4];
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    peers_begin();
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    const size_t quarter = SIZE / 4;
    ops[0] = read_op(peer, 0, base, quarter);
    ops[1] = read_op(peer, quarter, base + 3 * quarter, quarter);
    refuse(ops, 2, NVLX_EINVAL, "op 1 cannot be verified"); /* it has no digest */
    ops[1] = read_op(peer, quarter, base + quarter, quarter - 1);
    refuse(ops, 2, NVLX_EINVAL, "op 1 cannot be verified");
    ops[1] = read_op(peer, quarter, base + quarter + 1, quarter - 1);
    refuse(ops, 2, NVLX_EINVAL, "op 1 cannot be verified");
    ops[1] = read_op(peer, quarter, base + 2 * quarter, 2 * quarter);
    refuse(ops, 2, NVLX_EINVAL, "op 1 cannot be verified");
    ops[1] = make_op(NVLX_OP_WRITE, peer, mine, base + quarter, quarter);
    refuse(ops, 2, NVLX_EINVAL, "op 1 writes");
    ops[1] = (struct nvlx_op){.opcode = NVLX_OP_SIGNAL, .peer = peer, .remote = base, .arg = 1};
    refuse(ops, 2, NVLX_EINVAL, "op 1 signals: a verified list");
    ops[1] = read_op(peer, quarter, base + quarter, LEAF); /* with a gap behind it */
    ops[2] = read_op(peer, 2 * quarter, base + quarter + LEAF + 1, quarter - LEAF - 1);
    refuse(ops, 3, NVLX_EINVAL, "op 1 cannot be verified");
    ops[2] = read_op(peer, 2 * quarter, base + quarter + LEAF - 1, quarter - LEAF + 1); /* they overlap */
    refuse(ops, 3, NVLX_EINVAL, "op 1 cannot be verified");
    ops[2] = read_op(peer, 2 * quarter, base + quarter + LEAF, quarter - LEAF);
    OK(verify(ops, 3));
    ops[1] = read_op(peer, quarter, base + quarter, LEAF - 1); /* a leaf in two places */
    ops[2] = read_op(peer, 2 * quarter, base + quarter + LEAF - 1, quarter - LEAF + 1);
    refuse(ops, 3, NVLX_EINVAL, "op 2: byte 16383 of the peer's region \"b\"");
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    REFUSED(nvlx_prepare(engine, ops, 1, &options, &prepared), NVLX_ENOTSUP, "NVLX_VERIFY");
    OK(nvlx_prepare(engine, ops, 1, NULL, &prepared));
    REFUSED(nvlx_post(prepared, &options, &request), NVLX_ENOTSUP, "NVLX_VERIFY is for nvlx_transfer");
    OK(nvlx_prepared_free(prepared));
    EQUAL(0, engine_info(engine).requests);
    peers_end();
    owner_end(&owner);
}

/* Regions over each other: the longest that is read counts. */
static void the_longest_counts(void) {
    struct owner owner;
    uint64_t base;
    peers_begin();
    start_four(&owner, 3, &base);
    owner_register(&owner, 5, 0, 0, SIZE, NVLX_ACCESS_READ, "whole");
    owner_register(&owner, 6, 0, 0, 1000, NVLX_ACCESS_READ, "head");
    owner_set_digest(&owner, 5);
    owner_set_digest(&owner, 6);
    struct nvlx_peer *peer = open_owner(&owner);
    owner_fill(&owner, 0, 0, 16, 99);
    const struct nvlx_op whole = read_op(peer, 0, base, SIZE), a = read_op(peer, 0, base, SIZE / 4),
                         head = read_op(peer, 0, base, 1000), more = read_op(peer, 0, base, 1001);
    REFUSED(verify(&whole, 1), NVLX_EDIGEST, "\"whole\"");
    REFUSED(verify(&a, 1), NVLX_EDIGEST, "\"a\"");
    REFUSED(verify(&head, 1), NVLX_EDIGEST, "\"head\"");
    refuse(&more, 1, NVLX_EINVAL, "op 0 cannot be verified");
    peers_end();
    owner_end(&owner);
}

/* ---- Random lists --------------------------------------------------------------------------------------- */

#define REGIONS 12u

struct shape { /* of the owner's regions, one behind the other in slot 0 */
    size_t offset[REGIONS], length[REGIONS];
};

static void shuffle(struct nvlx_op *ops, size_t count, uint64_t *state) {
    for (size_t i = count; i > 1; i--) {
        const size_t k = next_random(state) % i;
        const struct nvlx_op op = ops[i - 1];
        ops[i - 1] = ops[k];
        ops[k] = op;
    }
}

/* A region in ops of any lengths, or in leaves that change their places. Returns how many ops there are. */
static size_t cut_region(struct nvlx_peer *peer, char *local, uint64_t remote, size_t length, struct nvlx_op *ops,
                         uint64_t *state) {
    const size_t leaves = length / LEAF;
    const bool swapped = leaves >= 2 && next_random(state) % 2;
    size_t count = 0;
    for (size_t at = 0, each; at < length; at += each) {
        each = swapped ? LEAF : 1 + next_random(state) % (length / 2 + 1);
        each = each < length - at ? each : length - at;
        const size_t place = swapped && at / LEAF < leaves ? (leaves - 1 - at / LEAF) * LEAF : at;
        ops[count++] = make_op(NVLX_OP_READ, peer, local + place, remote + at, each);
    }
    return count;
}

static void random_lists(void) {
    enum { OPS = 512, ROUNDS = 150 };
    struct owner owner;
    struct shape shape;
    struct nvlx_op ops[OPS];
    uint64_t state = 11;
    size_t offset = 0, found = 0, lists = 0;
    char name[32];
    peers_begin();
    char *far = allocate(engine, second_gpu(), SIZE, 98);
    register_range(engine, far, SIZE, NULL, NVLX_ACCESS_NONE);
    owner_start(&owner);
    const uint64_t base = owner_alloc(&owner, 0, 0, SIZE, 3);
    for (uint32_t i = 0; i < REGIONS; i++) {
        shape.offset[i] = offset;
        shape.length[i] = i % 3 ? 1 + next_random(&state) % 5000 : LEAF + next_random(&state) % (3 * LEAF);
        offset += shape.length[i] + (next_random(&state) % 2 ? next_random(&state) % 100 : 0);
        snprintf(name, sizeof name, "region %u", i);
        owner_register(&owner, i, 0, shape.offset[i], shape.length[i], NVLX_ACCESS_READ, name);
        owner_set_digest(&owner, i);
    }
    EXPECT(offset <= SIZE);
    struct nvlx_peer *peer = open_owner(&owner);
    for (int round = 0; round < ROUNDS; round++) {
        const uint32_t bad = next_random(&state) % (2 * REGIONS); /* in half of the rounds none is */
        size_t count = 0;
        bool has_bad = false;
        for (uint32_t i = 0; i < REGIONS; i++) {
            if (next_random(&state) % 3 == 0)
                continue;
            has_bad = has_bad || i == bad;
            char *local = (next_random(&state) % 2 ? mine : far) + shape.offset[i];
            count += cut_region(peer, local, base + shape.offset[i], shape.length[i], ops + count, &state);
        }
        shuffle(ops, count, &state);
        const size_t at = bad < REGIONS ? shape.offset[bad] + next_random(&state) % shape.length[bad] : 0;
        uint8_t byte;
        owner_read(&owner, 0, at, &byte, 1);
        uint32_t seed = 1000;
        while (seed_byte(seed, 0) == byte)
            seed++;
        if (bad < REGIONS)
            owner_fill(&owner, 0, at, 1, seed);
        snprintf(name, sizeof name, "\"region %u\"", bad);
        mechanism = (uint32_t)round % 4;
        engine->transfers.slab = round % 3 ? LEAF * (1 + (uint64_t)round % 5) : NVLXI_SLAB_BYTES;
        if (has_bad)
            REFUSED(verify(ops, count), NVLX_EDIGEST, name);
        else
            OK(verify(ops, count));
        found += has_bad;
        lists++;
        owner_fill(&owner, 0, 0, SIZE, 3);
    }
    printf("           %zu lists, %zu with a wrong byte\n", lists, found);
    EXPECT(found > 20 && found < lists);
    peers_end();
    owner_end(&owner);
}

/* ---- Requests that are verified ------------------------------------------------------------------------- */

/* Nobody waits for it, except who waits for the transfer; and what it reads stays. */
static void verifying_holds_nobody_up(void) {
    struct owner owner;
    uint64_t base;
    struct nvlx_request *request;
    peers_begin();
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    char *local = allocate(engine, 0, SIZE / 4, 98);
    struct nvlx_region *region = register_range(engine, local, SIZE / 4, NULL, NVLX_ACCESS_NONE);
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, local, base, SIZE / 4);
    atomic_store(&faults.busy, true);
    OK(begin_verified(&op, 1, &request));
    REFUSED(nvlx_wait(request, 20000000), NVLX_ETIMEDOUT, "still in flight");
    EQUAL(0, wrong(engine, local, SIZE / 4, 3)); /* the bytes are there */
    EXPECT(nvlx_test(request) == NVLX_EAGAIN);
    move(engine, NVLX_OP_READ, peer, mine, base, SIZE / 4);
    REFUSED(nvlx_unregister(region, 1000000), NVLX_ETIMEDOUT, "an own transfer in flight");
    REFUSED(nvlx_free(engine, local), NVLX_EBUSY, "a transfer in flight");
    atomic_store(&faults.busy, false);
    OK(nvlx_unregister(region, PATIENCE)); /* it is driven by whoever waits */
    OK(nvlx_test(request));
    OK(nvlx_request_free(request));
    OK(nvlx_free(engine, local));
    peers_end();
    owner_end(&owner);
}

/* The first bytes are digested while the last are on their way, region by region and within one. */
static void the_first_are_digested_meanwhile(void) {
    struct owner owner;
    uint64_t base;
    struct nvlx_request *request;
    peers_begin();
    engine->transfers.slab = 2 * LEAF;
    mechanism = NVLX_MECHANISM_COPY_ENGINE;
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    const struct nvlx_op op = read_op(peer, 0, base, 3 * SIZE / 4); /* of 12 leaves */
    for (int bad = 0; bad < 3; bad++) {
        atomic_store(&faults.digested, 0);
        atomic_store(&faults.hold_last, true);
        OK(begin_verified(&op, 1, &request));
        for (const double since = now_ms(); atomic_load(&faults.digested) < (bad == 1 ? 4 : 12);) {
            EXPECT(nvlx_test(request) == NVLX_EAGAIN);
            EXPECT(now_ms() - since < 10000);
        }
        for (int i = 0; i < 100; i++)
            EXPECT(nvlx_test(request) == NVLX_EAGAIN);
        if (bad == 2) /* a copy fails when some are digested */
            atomic_store(&faults.queries, true);
        atomic_store(&faults.hold_last, false);
        if (bad == 0)
            finish(request);
        else
            EXPECT(nvlx_wait(request, PATIENCE) == (bad == 1 ? NVLX_EDIGEST : NVLX_EDEVICE));
        if (bad)
            EXPECT(nvlx_request_free(request) == (bad == 1 ? NVLX_EDIGEST : NVLX_EDEVICE));
        atomic_store(&faults.queries, false);
        owner_fill(&owner, 0, 0, SIZE, bad == 0 ? 4 : 3); /* all of it is wrong in the second round */
    }
    OK(verify(&op, 1));
    peers_end();
    owner_end(&owner);
}

/* Many fragments over several lanes, each with marks of its own; and kernels, which leave none. */
static void slabs_of_many_fragments(void) {
    enum { PIECES = 3 * SIZE / 4 / LEAF };
    struct owner owner;
    uint64_t base;
    struct nvlx_op ops[PIECES];
    peers_begin();
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    for (uint64_t slab = LEAF; slab <= 8 * LEAF; slab *= 2) {
        engine->transfers.slab = slab;
        for (size_t i = 0; i < PIECES; i++) /* in another order here than there: nothing is joined */
            ops[i] = read_op(peer, (i * 5 + 1) % PIECES * LEAF, base + i * LEAF, LEAF);
        for (mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
            OK(verify(ops, PIECES));
            owner_fill(&owner, 0, SIZE / 2, 16, 98);
            REFUSED(verify(ops, PIECES), NVLX_EDIGEST, "\"c\"");
            owner_fill(&owner, 0, 0, SIZE, 3);
        }
    }
    mechanism = NVLX_MECHANISM_DEFAULT;
    peers_end();
    owner_end(&owner);
}

/* What waits for a stream is not digested before it has come. */
static void behind_streams(void) {
    struct owner owner;
    struct stream stream;
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    uint64_t base;
    peers_begin();
    open_stream(&stream);
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    const struct nvlx_op op = read_op(peer, 0, base, 3 * SIZE / 4);
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    options.stream = stream.lane;
    for (options.mechanism = NVLX_MECHANISM_AUTO; options.mechanism <= NVLX_MECHANISM_KERNEL; options.mechanism++) {
        fill(engine, mine, SIZE, 9);
        stream_stands_still(&stream);
        OK(nvlx_transfer(engine, &op, 1, &options, &request));
        REFUSED(nvlx_wait(request, 20000000), NVLX_ETIMEDOUT, "in flight");
        stream_goes_on(&stream);
        finish(request);
        stream_end(&stream);
        EQUAL(0, wrong(engine, mine, 3 * SIZE / 4, 3));
    }
    close_stream(&stream);
    peers_end();
    owner_end(&owner);
}

static void so_many_at_a_time(void) {
    struct owner owner;
    uint64_t base;
    struct nvlx_request *requests[NVLXI_VERIFIED_MAX], *more;
    peers_begin();
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    char *room = allocate(engine, 0, (COUNT(requests) + 1) * SIZE / 4, 9);
    register_range(engine, room, (COUNT(requests) + 1) * SIZE / 4, NULL, NVLX_ACCESS_NONE);
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, room, base, SIZE / 4);
    for (int twice = 0; twice < 2; twice++) {
        atomic_store(&faults.busy, true);
        for (size_t i = 0; i < COUNT(requests); i++) {
            op.local = room + i * SIZE / 4;
            OK(begin_verified(&op, 1, &requests[i]));
        }
        op.local = room + COUNT(requests) * SIZE / 4;
        REFUSED(begin_verified(&op, 1, &more), NVLX_EBUSY, "32 verified transfers");
        move(engine, NVLX_OP_READ, peer, mine + SIZE / 2, base, 100);
        atomic_store(&faults.busy, false);
        finish(requests[0]);
        OK(verify(&op, 1)); /* in its place, while the rest go on */
        for (size_t i = 1; i < COUNT(requests); i++)
            finish(requests[i]);
    }
    EQUAL(NVLXI_VERIFIED_MAX, atomic_load(&faults.list_allocs)); /* desks are used again */
    peers_end();
    owner_end(&owner);
}

/* What fails while it copies is not verified, and what fails while it digests has not arrived for sure. */
static void failures_are_told(void) {
    struct owner owner;
    uint64_t base;
    peers_begin();
    struct nvlx_peer *peer = start_four(&owner, 3, &base);
    const struct nvlx_op op = read_op(peer, 0, base, 3 * SIZE / 4);
    OK(verify(&op, 1));
    atomic_store(&faults.copies, true);
    REFUSED(verify(&op, 1), NVLX_EDEVICE, "broke on purpose");
    atomic_store(&faults.copies, false);
    atomic_store(&faults.digests, true);
    REFUSED(verify(&op, 1), NVLX_EDEVICE, "the digest broke on purpose");
    atomic_store(&faults.digests, false);
    OK(verify(&op, 1));
    EQUAL(0, engine_info(engine).requests);
    peers_end();
    owner_end(&owner);
}

/* An engine that is a peer of its own process. */
static void beside_oneself(void) {
    char *text, *other;
    size_t length;
    struct nvlx_op op;
    peers_begin();
    other = allocate(engine, second_gpu(), SIZE, 4);
    OK(nvlx_region_set_digest(register_range(engine, other, SIZE, "own", NVLX_ACCESS_READ), NULL));
    OK(nvlx_export(engine, &text, &length));
    struct nvlx_peer *peer = open_peer(engine, text);
    nvlx_text_free(text);
    op = read_op(peer, 0, find(peer, "own"), SIZE);
    OK(verify(&op, 1));
    fill(engine, other, 16, 5);
    REFUSED(verify(&op, 1), NVLX_EDIGEST, "\"own\"");
    peers_end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"peers_are_told", peers_are_told},
        {"followers_know_all", followers_know_all},
        {"digests_come_and_go_with_their_regions", digests_come_and_go_with_their_regions},
        {"right_bytes_pass", right_bytes_pass},
        {"a_wrong_byte_is_named", a_wrong_byte_is_named},
        {"what_cannot_be_verified_is_refused", what_cannot_be_verified_is_refused},
        {"the_longest_counts", the_longest_counts},
        {"random_lists", random_lists},
        {"verifying_holds_nobody_up", verifying_holds_nobody_up},
        {"the_first_are_digested_meanwhile", the_first_are_digested_meanwhile},
        {"slabs_of_many_fragments", slabs_of_many_fragments},
        {"behind_streams", behind_streams},
        {"so_many_at_a_time", so_many_at_a_time},
        {"failures_are_told", failures_are_told},
        {"beside_oneself", beside_oneself},
        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
