/* Verified transfers of many regions, small or spread. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer_support.h"

#include "api/engine.h"

#define LEAF         (16 * KIB)
#define REGIONS_MANY 2560u

static int begin_verified(const struct nvlx_op *ops, size_t count, uint32_t mechanism, struct nvlx_request **request) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    options.mechanism = mechanism;
    return nvlx_transfer(engine, ops, count, &options, request);
}

static int verify(const struct nvlx_op *ops, size_t count, uint32_t mechanism) {
    struct nvlx_request *request;
    OK(begin_verified(ops, count, mechanism, &request));
    int code = nvlx_wait(request, PATIENCE);
    EXPECT(nvlx_request_free(request) == code);
    return code;
}

/* An engine that is a peer of its own process: regions with digests, one behind the other, and a place for each. */
struct many {
    struct nvlx_peer *peer;
    char *source, *local;
    size_t size; /* of either */
    size_t offset[REGIONS_MANY], length[REGIONS_MANY];
    struct nvlx_op ops[REGIONS_MANY];
    uint32_t count;
};

/* Many of one byte, some across leaves; odd addresses and lengths. */
static size_t any_length(uint32_t i, uint64_t *state) {
    if (i % 40 == 7)
        return LEAF + next_random(state) % (2 * LEAF);
    return i % 4 == 0 ? 1 : 1 + next_random(state) % (i % 4 == 1 ? 100 : 4000);
}

static void many_begin(struct many *many, uint32_t count, size_t fixed) {
    uint64_t state = 5;
    char name[16], *text;
    size_t length;
    *many = (struct many){.count = count};
    peers_begin();
    for (uint32_t i = 0; i < count; i++) {
        many->offset[i] = many->size;
        many->length[i] = fixed ? fixed : any_length(i, &state);
        many->size += many->length[i];
    }
    many->source = allocate(engine, 0, many->size, 3);
    many->local = allocate(engine, 0, many->size, 99);
    register_range(engine, many->local, many->size, NULL, NVLX_ACCESS_NONE);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%" PRIu32, i);
        OK(nvlx_region_set_digest(
            register_range(engine, many->source + many->offset[i], many->length[i], name, NVLX_ACCESS_READ), NULL));
    }
    OK(nvlx_export(engine, &text, &length));
    many->peer = open_peer(engine, text);
    nvlx_text_free(text);
}

/* Region i goes to the (i * step)-th place; each is as long as it must be. */
static void place(struct many *many, uint32_t step) {
    static size_t at[REGIONS_MANY];
    const uint64_t base = find(many->peer, "0");
    size_t next = 0;
    for (uint32_t turn = 0; turn < many->count; turn++)
        for (uint32_t i = step == 1 ? turn : 0; i < many->count; i++)
            if ((uint64_t)i * step % many->count == turn) {
                at[i] = next;
                next += many->length[i];
                break;
            }
    for (uint32_t i = 0; i < many->count; i++)
        many->ops[i] = make_op(NVLX_OP_READ, many->peer, many->local + at[i], base + many->offset[i], many->length[i]);
}

static void turn_over(const struct many *many, size_t offset) {
    uint8_t byte;
    OK(nvlx_memcpy(engine, &byte, many->source + offset, 1));
    byte = (uint8_t)~byte;
    OK(nvlx_memcpy(engine, many->source + offset, &byte, 1));
}

static void expect_named(const struct many *many, uint32_t bad, size_t byte, uint32_t mechanism) {
    char words[80];
    snprintf(words, sizeof words, "op %" PRIu32 ": what has arrived of the peer's region \"%" PRIu32 "\"", bad, bad);
    turn_over(many, many->offset[bad] + byte);
    REFUSED(verify(many->ops, many->count, mechanism), NVLX_EDIGEST, words);
    turn_over(many, many->offset[bad] + byte);
}

static void a_wrong_byte_in_any_is_named(void) {
    static const uint32_t steps[] = {1, 7, 1281};
    static struct many many;
    uint64_t state = 17;
    many_begin(&many, REGIONS_MANY, 0);
    for (size_t i = 0; i < COUNT(steps); i++) {
        place(&many, steps[i]);
        for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
            OK(verify(many.ops, many.count, mechanism));
            expect_named(&many, 0, 0, mechanism);
            expect_named(&many, many.count - 1, many.length[many.count - 1] - 1, mechanism);
            for (int times = 0; times < 15; times++) {
                const uint32_t bad = next_random(&state) % many.count;
                expect_named(&many, bad, next_random(&state) % many.length[bad], mechanism);
            }
            engine->transfers.slab = LEAF * (1 + next_random(&state) % 50);
        }
        engine->transfers.slab = NVLXI_SLAB_BYTES;
    }
    peers_end();
}

/* Ops of two peers in turn, which are the same process: each has its own regions. */
static void peers_in_turn(void) {
    static struct many many;
    char *text;
    size_t length;
    many_begin(&many, REGIONS_MANY, 0);
    OK(nvlx_export(engine, &text, &length));
    struct nvlx_peer *other = open_peer(engine, text);
    nvlx_text_free(text);
    place(&many, 7);
    for (uint32_t i = 1; i < many.count; i += 2)
        many.ops[i].peer = other;
    OK(verify(many.ops, many.count, NVLX_MECHANISM_AUTO));
    expect_named(&many, 1000, 0, NVLX_MECHANISM_AUTO);
    expect_named(&many, 1001, 0, NVLX_MECHANISM_AUTO);
    peers_end();
}

/* The peer's table may change meanwhile, and others may be verified: the region has the name that it had. */
static void the_name_stays(void) {
    enum { REGIONS = 12 };
    static struct many many;
    struct nvlx_request *request;
    char *text;
    size_t length;
    many_begin(&many, REGIONS, LEAF);
    place(&many, 1);
    turn_over(&many, many.offset[8]);
    atomic_store(&faults.hold, true);
    OK(begin_verified(many.ops, 9, NVLX_MECHANISM_COPY_ENGINE, &request));
    OK(nvlx_region_set_digest(register_range(engine, many.source, LEAF, "other", NVLX_ACCESS_READ), NULL));
    OK(nvlx_export(engine, &text, &length));
    OK(nvlx_peer_update(many.peer, text, length));
    nvlx_text_free(text);
    atomic_store(&faults.hold, false);
    OK(verify(many.ops + 9, 3, NVLX_MECHANISM_COPY_ENGINE));
    REFUSED(nvlx_wait(request, PATIENCE), NVLX_EDIGEST, "op 8: what has arrived of the peer's region \"8\"");
    EXPECT(nvlx_request_free(request) == NVLX_EDIGEST);
    peers_end();
}

/* Parts of regions, in any order. */
static void parts_in_any_order(void) {
    enum { REGIONS = 600, PARTS = 4 };
    static struct many many;
    static struct nvlx_op parts[REGIONS * PARTS];
    uint64_t state = 3;
    char words[80];
    many_begin(&many, REGIONS, LEAF + 1001);
    place(&many, 7);
    for (size_t i = 0; i < COUNT(parts); i++) {
        const struct nvlx_op *whole = &many.ops[i / PARTS];
        const size_t each = whole->length / PARTS, offset = i % PARTS * each;
        parts[i] = make_op(NVLX_OP_READ, many.peer, (char *)whole->local + offset, whole->remote + offset,
                           i % PARTS == PARTS - 1 ? whole->length - offset : each);
    }
    for (size_t i = COUNT(parts); i > 1; i--) {
        const size_t k = next_random(&state) % i;
        const struct nvlx_op op = parts[i - 1];
        parts[i - 1] = parts[k];
        parts[k] = op;
    }
    OK(verify(parts, COUNT(parts), NVLX_MECHANISM_AUTO));
    for (uint32_t bad = 0; bad < REGIONS; bad += 57) {
        snprintf(words, sizeof words, "what has arrived of the peer's region \"%" PRIu32 "\"", bad);
        const size_t at = many.offset[bad] + next_random(&state) % many.length[bad];
        turn_over(&many, at);
        REFUSED(verify(parts, COUNT(parts), NVLX_MECHANISM_AUTO), NVLX_EDIGEST, words);
        turn_over(&many, at);
    }
    peers_end();
}

/* What has arrived is digested by one launch, of however many regions: there are no more than kernels that copy. */
static void many_take_few_launches(void) {
    static struct many many;
    many_begin(&many, REGIONS_MANY, 0);
    place(&many, 7);
    const long digests = atomic_load(&faults.digests_queued), kernels = atomic_load(&faults.kernels);
    OK(verify(many.ops, many.count, NVLX_MECHANISM_KERNEL));
    const long copied_by = atomic_load(&faults.kernels) - kernels;
    EXPECT(copied_by > 0 && copied_by < 10);
    EXPECT(atomic_load(&faults.digests_queued) - digests <= copied_by);
    peers_end();
}

/* What is still on its way is in other places, if between them. */
static void digest_meanwhile(const struct many *many, uint32_t mechanism, long late) {
    struct nvlx_request *request;
    const long before = atomic_load(&faults.digested), early = (long)many->count - late;
    atomic_store(&faults.hold_last, true);
    OK(begin_verified(many->ops, many->count, mechanism, &request));
    for (const double since = now_ms(); atomic_load(&faults.digested) - before < early;) {
        EXPECT(nvlx_test(request) == NVLX_EAGAIN);
        EXPECT(now_ms() - since < 10000);
    }
    for (int i = 0; i < 100; i++)
        EXPECT(nvlx_test(request) == NVLX_EAGAIN);
    EQUAL(early, atomic_load(&faults.digested) - before);
    atomic_store(&faults.hold_last, false);
    finish(request);
    EQUAL(many->count, atomic_load(&faults.digested) - before);
}

/* The last two come with the end of their lane, which is what is held up; behind kernels a mark comes in any case. */
static void spread_ones_are_digested_meanwhile(void) {
    static struct many many;
    many_begin(&many, 12, LEAF);
    place(&many, 5);
    engine->transfers.slab = 5 * LEAF;
    digest_meanwhile(&many, NVLX_MECHANISM_COPY_ENGINE, 2);
    const long kernels = atomic_load(&faults.kernels);
    digest_meanwhile(&many, NVLX_MECHANISM_KERNEL, 0);
    EQUAL(3, atomic_load(&faults.kernels) - kernels);
    peers_end();
}

/* Those that have ended and that nobody asks for make room: whoever is refused drives them on. */
static void the_forgotten_make_room(void) {
    static struct many many;
    struct nvlx_request *requests[NVLXI_VERIFIED_MAX], *more;
    many_begin(&many, COUNT(requests) + 1, LEAF);
    place(&many, 1);
    for (size_t i = 0; i < COUNT(requests); i++) /* each to another place: they run at the same time */
        OK(begin_verified(many.ops + i, 1, NVLX_MECHANISM_AUTO, &requests[i]));
    for (double since = now_ms(); begin_verified(many.ops + COUNT(requests), 1, NVLX_MECHANISM_AUTO, &more);
         usleep(200)) {
        EXPECT(strstr(nvlx_last_error(), "try again"));
        EXPECT(now_ms() - since < 10000);
    }
    finish(more);
    for (size_t i = 0; i < COUNT(requests); i++)
        finish(requests[i]);
    peers_end();
}

static atomic_int logged[NVLX_LOG_DEBUG + 1];

static void count_levels(void *context, int level, const char *message) {
    (void)context;
    atomic_fetch_add(&logged[level], strstr(message, "what has arrived") != NULL);
}

/* Nothing is broken here: the caller is told, and decides. */
static void wrong_bytes_are_a_warning(void) {
    static struct many many;
    many_begin(&many, 4, LEAF);
    place(&many, 1);
    turn_over(&many, many.offset[1]);
    OK(nvlx_set_log(NVLX_LOG_WARNING, count_levels, NULL));
    REFUSED(verify(many.ops, 4, NVLX_MECHANISM_AUTO), NVLX_EDIGEST, "op 1");
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    EQUAL(0, atomic_load(&logged[NVLX_LOG_ERROR]));
    EQUAL(1, atomic_load(&logged[NVLX_LOG_WARNING]));
    peers_end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"a_wrong_byte_in_any_is_named", a_wrong_byte_in_any_is_named},
                                        {"peers_in_turn", peers_in_turn},
                                        {"the_name_stays", the_name_stays},
                                        {"parts_in_any_order", parts_in_any_order},
                                        {"many_take_few_launches", many_take_few_launches},
                                        {"spread_ones_are_digested_meanwhile", spread_ones_are_digested_meanwhile},
                                        {"the_forgotten_make_room", the_forgotten_make_room},
                                        {"wrong_bytes_are_a_warning", wrong_bytes_are_a_warning},
                                        {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 60);
}
