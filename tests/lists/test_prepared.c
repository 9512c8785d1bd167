/* Prepared lists: what a post moves, what a list holds, and what it refuses. On the host backend, with faults on
 * demand. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "bench.h"
#include "faulty_device.h"
#include "host_stream.h"

#define SIZE    (4 * MIB)
#define OPS     40
#define THREADS 8

static struct bench bench;
static struct nvlx_region *whole[2];
static struct stream stream;

static void begin_on(struct nvlx_engine *engine) {
    open_stream(&stream);
    bench_begin(&bench, engine, SIZE);
    bench_register(&bench, SIZE, whole);
}

static void begin(uint32_t max_requests) {
    begin_on(make_faulty_engine(max_requests));
}

static void end(void) {
    bench_end(&bench);
    close_stream(&stream);
}

/* Both directions, both GPUs, all ways of a plan. */
static void fill_ops(struct nvlx_op ops[OPS]) {
    for (size_t i = 0; i < OPS; i++)
        ops[i] = bench_op(&bench, i % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, i / 2 % 2 == 1, 100000 * i + i % 5,
                          100000 * i + 7, i % 8 < 2 ? 90000 : 10 * i);
}

/* One that may be in flight at the same time as others of the list: the stream orders what they write. */
static struct nvlx_request *post_in_order(struct nvlx_prepared *prepared) {
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.stream = stream.lane;
    OK(nvlx_post(prepared, &options, &request));
    return request;
}

/* ---- What a post moves --------------------------------------------------------------------------------- */

static void posts_move_what_is_there_now(void) {
    struct nvlx_op ops[OPS], given[OPS];
    begin(0);
    fill_ops(ops);
    memcpy(given, ops, sizeof ops);
    struct nvlx_prepared *prepared = bench_prepare(&bench, given, OPS);
    memset(given, 0xff, sizeof given); /* consumed before the call returned */
    bench_compare(&bench, "prepared, not posted");
    EQUAL(0, engine_info(bench.engine).requests);
    EQUAL(2, engine_info(bench.engine).mappings);
    for (uint32_t round = 0; round < 5; round++) {
        finish(bench_post(prepared));
        bench_apply(&bench, ops, OPS);
        bench_compare(&bench, "posted");
        bench_fill_remote(&bench, round % 2, 20 + round);
    }
    EQUAL(2, atomic_load(&faults.maps));
    OK(nvlx_prepared_free(prepared));
    end();
}

static void posted_twice_at_once(void) {
    struct nvlx_op ops[OPS];
    begin(0);
    fill_ops(ops);
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, OPS), *other = bench_prepare(&bench, ops + 1, 1);
    atomic_store(&faults.hold, true);
    struct nvlx_request *first = post_in_order(prepared), *second = post_in_order(prepared);
    struct nvlx_request *third = post_in_order(other);
    EQUAL(3, engine_info(bench.engine).requests);
    EQUAL(NVLX_EAGAIN, nvlx_test(first));
    EQUAL(NVLX_EAGAIN, nvlx_test(second));
    atomic_store(&faults.hold, false);
    finish(second);
    finish(third);
    OK(nvlx_prepared_free(other));
    finish(first);
    bench_apply(&bench, ops, OPS);
    bench_compare(&bench, "posted twice at once");
    OK(nvlx_prepared_free(prepared));
    EQUAL(0, engine_info(bench.engine).requests);
    end();
}

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

static void *post_often(void *prepared) {
    for (int i = 0; i < 50; i++) {
        pthread_mutex_lock(&order); /* two posts at the same moment would have none in the stream */
        struct nvlx_request *request = post_in_order(prepared);
        pthread_mutex_unlock(&order);
        finish(request);
    }
    return NULL;
}

static void posted_by_many_threads(void) {
    pthread_t threads[THREADS];
    struct nvlx_op ops[OPS];
    begin(0);
    fill_ops(ops);
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, OPS);
    for (size_t i = 0; i < THREADS; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, post_often, prepared));
    for (size_t i = 0; i < THREADS; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    bench_apply(&bench, ops, OPS);
    bench_compare(&bench, "posted by many");
    OK(nvlx_prepared_free(prepared));
    end();
}

static void nothing_to_post(void) {
    struct nvlx_request_info info = {.size = sizeof info};
    begin(0);
    struct nvlx_op ops[2] = {bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 0),
                             make_op(NVLX_OP_WRITE, bench.peer, NULL, UINT64_MAX, 0)};
    struct nvlx_prepared *lists[2] = {bench_prepare(&bench, NULL, 0), bench_prepare(&bench, ops, 2)};
    for (size_t i = 0; i < 2; i++) {
        struct nvlx_request *request = bench_post(lists[i]);
        OK(nvlx_test(request));
        OK(nvlx_request_get_info(request, &info));
        EQUAL(0, info.bytes);
        EQUAL(2 * i, info.ops);
        OK(nvlx_request_free(request));
        OK(nvlx_prepared_free(lists[i]));
    }
    OK(nvlx_prepared_free(NULL));
    EQUAL(0, atomic_load(&faults.maps));
    bench_compare(&bench, "nothing");
    end();
}

/* ---- What a list holds --------------------------------------------------------------------------------- */

static void what_is_prepared_is_held(void) {
    struct nvlx_request *request;
    begin(0);
    struct nvlx_region *inside = register_range(bench.engine, bench.local[0] + 500, 1000, NULL, NVLX_ACCESS_NONE);
    struct nvlx_region *beside = register_range(bench.engine, bench.local[0] + 5000, 1000, NULL, NVLX_ACCESS_NONE);
    struct nvlx_op one = bench_op(&bench, NVLX_OP_READ, 0, 1000, 0, 100);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &one, 1), *again = bench_prepare(&bench, &one, 1);
    for (int round = 0; round < 2; round++) { /* before any post, and after one */
        REFUSED(nvlx_unregister(whole[0], 0), NVLX_EBUSY, "a prepared list or a table of blocks uses the region at");
        REFUSED(nvlx_unregister(whole[0], 0), NVLX_EBUSY, "bytes: free it first");
        REFUSED(nvlx_unregister(inside, -1), NVLX_EBUSY, "a prepared list"); /* at once: it may never be freed */
        REFUSED(nvlx_free(bench.engine, bench.local[0]), NVLX_EBUSY, "a prepared list");
        REFUSED(nvlx_peer_close(bench.peer), NVLX_EBUSY, "prepared");
        OK(nvlx_post(prepared, NULL, &request));
        finish(request);
    }
    OK(nvlx_unregister(beside, 0));
    OK(nvlx_unregister(whole[1], 0));
    OK(nvlx_prepared_free(prepared));
    REFUSED(nvlx_unregister(inside, 0), NVLX_EBUSY, "a prepared list"); /* the other one */
    REFUSED(nvlx_peer_close(bench.peer), NVLX_EBUSY, "prepared");
    OK(nvlx_prepared_free(again));
    OK(nvlx_unregister(inside, 0));
    OK(nvlx_unregister(whole[0], 0));
    bench_apply(&bench, &one, 1);
    bench_compare(&bench, "held while prepared");
    OK(nvlx_peer_close(bench.peer));
    EQUAL(0, engine_info(bench.engine).mappings);
    EQUAL(0, engine_info(bench.engine).regions);
    end();
}

/* The mapping stays while the list is there: for a post in flight, which ends well; a new one is refused. */
static void withdrawn_segments(void) {
    struct nvlx_request *none = NULL;
    struct nvlx_prepared *no_list = NULL;
    begin(0);
    struct nvlx_op ops[3] = {bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 1000),
                             bench_op(&bench, NVLX_OP_READ, 1, 0, 0, 1000),
                             bench_op(&bench, NVLX_OP_READ, 1, 2000, 0, 1000)};
    struct nvlx_prepared *both = bench_prepare(&bench, ops, 2), *far = bench_prepare(&bench, ops + 2, 1);
    atomic_store(&faults.hold, true);
    struct nvlx_request *in_flight = bench_post(both);
    OK(owner_unregister(&bench.owner, 0));
    bench_open_peer(&bench);
    REFUSED(nvlx_post(both, NULL, &none), NVLX_ESTALE, "withdrawn");
    EXPECT(!none);
    EQUAL(1, engine_info(bench.engine).requests);
    atomic_store(&faults.hold, false);
    EQUAL(0, atomic_load(&faults.unmaps));
    finish(bench_post(far));
    finish(in_flight);
    expect_mappings(bench.engine, 1); /* what a list names does not keep what the peer has withdrawn */
    EQUAL(1, atomic_load(&faults.unmaps));
    bench_apply(&bench, ops, 3);
    bench_compare(&bench, "withdrawn while in flight");
    REFUSED(nvlx_post(both, NULL, &none), NVLX_ESTALE, "withdrawn");
    REFUSED(nvlx_prepare(bench.engine, ops, 2, NULL, &no_list), NVLX_ERANGE, "op 0");
    owner_register(&bench.owner, 0, 0, 0, 1000, NVLX_ACCESS_READ, "near");
    bench_open_peer(&bench);
    REFUSED(nvlx_post(both, NULL, &none), NVLX_ESTALE, "withdrawn");
    OK(nvlx_prepared_free(both));
    owner_register(&bench.owner, 2, 0, 0, 10, NVLX_ACCESS_READ, "more");
    bench_open_peer(&bench);
    EQUAL(1, atomic_load(&faults.unmaps));
    both = bench_prepare(&bench, ops, 2); /* again */
    finish(bench_post(both));
    bench_compare(&bench, "prepared again");
    OK(nvlx_prepared_free(both));
    OK(nvlx_prepared_free(far));
    end();
}

static void freeing_waits_for_posts(void) {
    pthread_t thread;
    struct nvlx_op ops[OPS];
    begin(0);
    fill_ops(ops);
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, OPS);
    atomic_store(&faults.hold, true);
    struct nvlx_request *requests[3];
    for (size_t i = 0; i < COUNT(requests); i++)
        requests[i] = post_in_order(prepared);
    EQUAL(0, pthread_create(&thread, NULL, release_later, NULL));
    double since = now_ms();
    OK(nvlx_prepared_free(prepared));
    EXPECT(now_ms() - since >= 45);
    EQUAL(0, pthread_join(thread, NULL));
    for (size_t i = 0; i < COUNT(requests); i++) { /* still the caller's */
        OK(nvlx_test(requests[i]));
        OK(nvlx_request_free(requests[i]));
    }
    bench_apply(&bench, ops, OPS);
    bench_compare(&bench, "freed with posts in flight");
    prepared = bench_prepare(&bench, ops, OPS); /* left to the engine, with a post in flight */
    atomic_store(&faults.hold, true);
    bench_post(prepared);
    EQUAL(0, pthread_create(&thread, NULL, release_later, NULL));
    since = now_ms();
    end();
    EXPECT(now_ms() - since >= 45);
    EQUAL(0, pthread_join(thread, NULL));
}

/* ---- Order, and what is refused ------------------------------------------------------------------------ */

/* In the stream: something slow, then a producer, then the post, then a consumer. How many bytes were stale there. */
static uint64_t produce_and_post(struct nvlx_prepared *there, struct nvlx_prepared *back, bool in_order, uint8_t byte) {
    enum { LENGTH = 300000 };
    struct nvlx_request *requests[2];
    struct nvlx_transfer_options options;
    uint8_t *produced = malloc(LENGTH), *consumed = calloc(1, LENGTH);
    uint64_t stale = 0;
    EXPECT(produced && consumed);
    memset(produced, byte, LENGTH);
    nvlx_transfer_options_init(&options);
    options.stream = in_order ? stream.lane : NULL;
    stream_is_slow(&stream);
    stream_copy(&stream, bench.local[0], produced, LENGTH);
    OK(nvlx_post(there, &options, &requests[0]));
    if (!in_order)
        OK(nvlx_wait(requests[0], PATIENCE));
    OK(nvlx_post(back, &options, &requests[1]));
    stream_copy(&stream, consumed, bench.local[0] + LENGTH, LENGTH); /* queued at once: no CPU waits */
    stream_end(&stream);
    finish(requests[0]);
    finish(requests[1]);
    for (size_t i = 0; i < LENGTH; i++)
        stale += consumed[i] != byte;
    free(produced);
    free(consumed);
    return stale;
}

static void streams_keep_the_order(void) {
    enum { PARTS = 100 };
    struct nvlx_op there[PARTS], back[PARTS];
    begin(0);
    for (size_t i = 0; i < PARTS; i++) { /* not adjacent: backwards on one side */
        there[i] = bench_op(&bench, NVLX_OP_WRITE, 0, 3000 * i, 3000 * (PARTS - 1 - i), 3000);
        back[i] = bench_op(&bench, NVLX_OP_READ, 0, 300000 + 3000 * i, 3000 * (PARTS - 1 - i), 3000);
    }
    struct nvlx_prepared *lists[2] = {bench_prepare(&bench, there, PARTS), bench_prepare(&bench, back, PARTS)};
    for (uint8_t round = 1; round <= 8; round++)
        EQUAL(0, produce_and_post(lists[0], lists[1], true, round));
    uint64_t stale = 0;
    for (uint8_t round = 11; round <= 13 && !sanitized(); round++)
        stale += produce_and_post(lists[0], lists[1], false, round);
    EXPECT(stale > 0 || sanitized()); /* without the option it races and goes wrong: so the above could fail */
    for (size_t i = 0; i < 2; i++)
        OK(nvlx_prepared_free(lists[i]));
    end();
}

static void refuse_post(struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options, int code,
                        const char *words) {
    struct nvlx_request *none = NULL;
    REFUSED(nvlx_post(prepared, options, &none), code, words);
    EXPECT(!none);
    EQUAL(0, engine_info(bench.engine).requests);
}

static void options_that_are_refused(void) {
    static const struct nvlx_transfer_options fields[] = {
        {.flags = NVLX_NO_MAP}, {.mechanism = NVLX_MECHANISM_AUTO}, {.max_sms = 1}, {.priority = -1}};
    struct nvlx_prepared *none = NULL;
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    begin(0);
    struct nvlx_op one = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 1000);
    nvlx_transfer_options_init(&options);
    options.stream = NVLX_STREAM_LEGACY;
    REFUSED(nvlx_prepare(bench.engine, &one, 1, &options, &none), NVLX_EINVAL, "nvlx_post");
    nvlx_transfer_options_init(&options);
    options.flags = 1u << 31;
    REFUSED(nvlx_prepare(bench.engine, &one, 1, &options, &none), NVLX_EINVAL, "flags 0x80000000");
    options.flags = NVLX_NO_MAP;
    REFUSED(nvlx_prepare(bench.engine, &one, 1, &options, &none), NVLX_EAGAIN, "NVLX_NO_MAP");
    options.flags = 0, options.mechanism = 4;
    REFUSED(nvlx_prepare(bench.engine, &one, 1, &options, &none), NVLX_EINVAL, "mechanism 4");
    REFUSED(nvlx_prepare(bench.engine, NULL, 1, NULL, &none), NVLX_EINVAL, "ops is NULL");
    REFUSED(nvlx_prepare(bench.engine, &one, 1, NULL, NULL), NVLX_EINVAL, "prepared is NULL");
    REFUSED(nvlx_prepare(NULL, &one, 1, NULL, &none), NVLX_EINVAL, "engine is NULL");
    EXPECT(!none);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &one, 1);
    for (size_t i = 0; i < COUNT(fields); i++) {
        options = fields[i];
        options.size = sizeof options;
        refuse_post(prepared, &options, NVLX_EINVAL, "options of nvlx_prepare");
    }
    nvlx_transfer_options_init(&options);
    options.stream = (void *)(uintptr_t)0x1234;
    refuse_post(prepared, &options, NVLX_ENOTSUP, "0x1234");
    REFUSED(nvlx_post(prepared, NULL, NULL), NVLX_EINVAL, "request is NULL");
    REFUSED(nvlx_post(NULL, NULL, &request), NVLX_EINVAL, "prepared is NULL");
    bench_compare(&bench, "refused");
    finish(bench_post(prepared));
    bench_apply(&bench, &one, 1);
    bench_compare(&bench, "posted after all");
    OK(nvlx_prepared_free(prepared)); /* no refused post is waited for */
    end();
}

/* A list that is refused as a whole holds nothing; nor does one that there is no room to post. */
static void lists_that_are_refused(void) {
    struct nvlx_prepared *none = NULL;
    struct nvlx_op ops[OPS];
    begin(2);
    fill_ops(ops);
    ops[30].remote = bench.remote[0] + SIZE - 1;
    ops[30].length = 2;
    REFUSED(nvlx_prepare(bench.engine, ops, OPS, NULL, &none), NVLX_ERANGE, "op 30: the peer's range");
    ops[30].local = bench.local[0] + SIZE;
    REFUSED(nvlx_prepare(bench.engine, ops, OPS, NULL, &none), NVLX_ERANGE, "op 30: local");
    EXPECT(!none);
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, 30);
    atomic_store(&faults.hold, true);
    struct nvlx_request *requests[2] = {post_in_order(prepared), post_in_order(prepared)}, *refused = NULL;
    REFUSED(nvlx_post(prepared, NULL, &refused), NVLX_EBUSY, "2 requests");
    EXPECT(!refused);
    atomic_store(&faults.hold, false);
    for (size_t i = 0; i < 2; i++)
        finish(requests[i]);
    bench_apply(&bench, ops, 30);
    bench_compare(&bench, "the good part of the list");
    OK(nvlx_prepared_free(prepared));
    for (int i = 0; i < 2; i++)
        OK(nvlx_unregister(whole[i], 0));
    OK(nvlx_peer_close(bench.peer));
    end();
}

/* What the device says is told by the request; the list can be posted again. */
static void device_errors(void) {
    begin(0);
    struct nvlx_op one = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 1000);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &one, 1);
    atomic_store(&faults.copies, true);
    struct nvlx_request *request = bench_post(prepared);
    REFUSED(nvlx_wait(request, PATIENCE), NVLX_EDEVICE, "broke on purpose");
    REFUSED(nvlx_request_free(request), NVLX_EDEVICE, "broke on purpose");
    atomic_store(&faults.copies, false);
    bench_compare(&bench, "nothing was moved");
    finish(bench_post(prepared));
    bench_apply(&bench, &one, 1);
    bench_compare(&bench, "posted again");
    OK(nvlx_prepared_free(prepared));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"posts_move_what_is_there_now", posts_move_what_is_there_now},
                                        {"posted_twice_at_once", posted_twice_at_once},
                                        {"posted_by_many_threads", posted_by_many_threads},
                                        {"nothing_to_post", nothing_to_post},
                                        {"what_is_prepared_is_held", what_is_prepared_is_held},
                                        {"withdrawn_segments", withdrawn_segments},
                                        {"freeing_waits_for_posts", freeing_waits_for_posts},
                                        {"streams_keep_the_order", streams_keep_the_order},
                                        {"options_that_are_refused", options_that_are_refused},
                                        {"lists_that_are_refused", lists_that_are_refused},
                                        {"device_errors", device_errors},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
