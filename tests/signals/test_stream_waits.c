/* Streams that wait for a peer's signal: each wait ends, with the signal or without, and says how. On the host backend.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faulty_device.h"
#include "host_stream.h"
#include "rendezvous_support.h"

enum { COUNTS = 64, BRIEF_US = 20000, STREAMS = 6 };

static struct nvlx_engine *engine;  /* whose streams wait */
static uint64_t *counts;            /* COUNTS of them on GPU 0, registered */
static struct nvlx_region *region;  /* all of them */
static struct nvlx_engine *other;   /* an engine of this process that signals */
static struct nvlx_peer *signaller; /* it, as a peer of `engine` */
static struct nvlx_peer *waiter;    /* `engine`, as a peer of it */
static struct stream streams[STREAMS];
static uint64_t seen[COUNTS]; /* what copies behind waits have brought */

/* The host backend's memory is the process's own. */
static void set_count(size_t index, uint64_t value) {
    __atomic_store_n(&counts[index], value, __ATOMIC_RELEASE);
}

/* When no stream copies a mark any more. */
static void reset_counts(void) {
    for (size_t i = 0; i < STREAMS; i++)
        stream_end(&streams[i]);
    for (size_t i = 0; i < COUNTS; i++)
        set_count(i, 0);
    memset(seen, 0xee, sizeof seen);
}

static void begin(void) {
    engine = make_faulty_engine(0);
    other = make_engine(0);
    counts = (uint64_t *)(void *)allocate(engine, 0, COUNTS * sizeof *counts, 1);
    region = register_range(engine, counts, COUNTS * sizeof *counts, "counts", NVLX_ACCESS_READ_WRITE);
    signaller = peer_of(engine, other);
    waiter = peer_of(other, engine);
    for (size_t i = 0; i < STREAMS; i++)
        open_stream(&streams[i]);
    reset_counts();
}

static void end_all_except_engine(void) {
    for (size_t i = 0; i < STREAMS; i++)
        close_stream(&streams[i]);
    OK(nvlx_peer_close(waiter));
    OK(nvlx_engine_destroy(other));
}

static void end(void) {
    OK(nvlx_peer_close(signaller));
    OK(nvlx_engine_destroy(engine));
    end_all_except_engine();
}

/* Lets a stream wait for counts[index], and then copy the mark to where this process sees it. */
static uint64_t let_wait(struct stream *stream, struct nvlx_peer *peer, size_t index, uint64_t value) {
    struct nvlx_wait_options options;
    uint64_t wait = 0;
    nvlx_wait_options_init(&options);
    options.mark = &counts[index + COUNTS / 2];
    OK(nvlx_stream_wait(engine, stream->lane, peer, &counts[index], value, &options, &wait));
    EXPECT(wait != 0);
    stream_copy(stream, &seen[index + COUNTS / 2], &counts[index + COUNTS / 2], sizeof *seen);
    return wait;
}

/* Once the stream has come to its end. */
static void expect_mark(struct stream *stream, size_t index, int code) {
    stream_end(stream);
    EQUAL((uint64_t)(int64_t)code, seen[index + COUNTS / 2]);
}

static void send(size_t index, uint64_t value, uint32_t flags) {
    OK(nvlx_stream_signal(other, streams[STREAMS - 1].lane, waiter, (uintptr_t)&counts[index], value, flags));
}

static int await_status(uint64_t wait) {
    const double begun = now_ms();
    int code;
    while ((code = nvlx_stream_wait_status(engine, wait)) == NVLX_EAGAIN) {
        EXPECT(now_ms() - begun < 30000);
        usleep(200);
    }
    return code;
}

static void expect_waiting(uint64_t wait) {
    usleep(BRIEF_US);
    GIVES(NVLX_EAGAIN, nvlx_stream_wait_status(engine, wait));
}

/* ---- With the signal ------------------------------------------------------------------------------------ */

static void a_wait_ends_with_its_signal(void) {
    begin();
    for (uint64_t value = 1; value <= 30; value++) {
        const uint64_t wait = let_wait(&streams[0], signaller, 3, value);
        if (value < 4)
            expect_waiting(wait);
        send(3, value % 2 ? value : 1, value % 2 ? 0 : NVLX_OP_ADD);
        OK(await_status(wait));
        stream_end(&streams[0]);
        expect_mark(&streams[0], 3, 0);
    }
    end();
}

static void cpus_wait_and_read(void) {
    uint64_t value = 77;
    begin();
    OK(nvlx_signal_read(engine, &counts[1], &value));
    EQUAL(0, value);
    REFUSED(nvlx_signal_wait(engine, signaller, &counts[1], 1, 0), NVLX_ETIMEDOUT, "is 0, not yet 1");
    send(1, INT64_MAX, 0);
    OK(nvlx_signal_wait(engine, NULL, &counts[1], INT64_MAX, PATIENCE));
    OK(nvlx_signal_read(engine, &counts[1], &value));
    EQUAL(INT64_MAX, value);
    send(1, UINT64_C(1) << 63, NVLX_OP_ADD);
    OK(nvlx_signal_wait(engine, signaller, &counts[1], UINT64_MAX, PATIENCE));
    send(1, 2, NVLX_OP_ADD);
    OK(nvlx_signal_wait(engine, signaller, &counts[1], 1, PATIENCE)); /* it has wrapped around */
    OK(nvlx_signal_wait(engine, signaller, &counts[1], UINT64_MAX, PATIENCE));
    REFUSED(nvlx_signal_read(engine, (char *)counts + 4, &value), NVLX_EINVAL, "no multiple of 8");
    REFUSED(nvlx_signal_read(engine, counts + COUNTS, &value), NVLX_ERANGE, "not registered");
    end();
}

/* Nobody asks for them, and there are more than requests may be in flight. */
static void signals_nobody_asks_for(void) {
    enum { SIGNALS = 10000 };
    begin();
    for (int i = 0; i < SIGNALS; i++) {
        int code;
        while ((code = nvlx_stream_signal(other, streams[0].lane, waiter, (uintptr_t)counts, 1, NVLX_OP_ADD)) ==
               NVLX_EBUSY)
            usleep(100);
        OK(code);
    }
    OK(nvlx_signal_wait(engine, signaller, counts, SIGNALS, PATIENCE));
    EXPECT(engine_info(other).requests <= 1024);
    end();
}

/* ---- Without it ------------------------------------------------------------------------------------------ */

static struct owner producer;
static struct nvlx_peer *producer_peer;

static void start_producer(void) {
    owner_start(&producer);
    OK(owner_serve(&producer, own_path(), 0));
    producer_peer = connect_to(engine, own_path());
}

static void kill_producer(void) {
    owner_kill(&producer);
    unlink(own_path());
}

static void expect_failed(uint64_t wait, int code, const char *words) {
    GIVES(code, await_status(wait));
    REFUSED(nvlx_stream_wait_status(engine, wait), code, words);
}

/* Every kind of wait at once: one that stands still, one that its stream has not come to, several for one count, one
 * whose signal has come, and one for a peer that lives. */
static void die_once(bool last) {
    uint64_t waits[10];
    reset_counts();
    stream_stands_still(&streams[1]);
    waits[0] = let_wait(&streams[0], producer_peer, 0, 1);
    waits[1] = let_wait(&streams[1], producer_peer, 1, 1);
    waits[2] = let_wait(&streams[2], producer_peer, 2, 5);
    OK(nvlx_stream_wait(engine, streams[2].lane, producer_peer, &counts[2], 9, NULL, &waits[3]));
    OK(nvlx_stream_wait(engine, streams[0].lane, producer_peer, &counts[2], 7, NULL, &waits[4]));
    send(4, 3, 0);
    OK(nvlx_signal_wait(engine, NULL, &counts[4], 3, PATIENCE));
    stream_stands_still(&streams[3]);
    waits[5] = let_wait(&streams[3], producer_peer, 4, 3);
    waits[6] = let_wait(&streams[4], signaller, 6, 1);
    kill_producer();
    const double killed = now_ms();
    expect_failed(waits[0], NVLX_ESTALE, "gone");
    EXPECT(now_ms() - killed < 5000);
    stream_end(&streams[2]);
    GIVES(NVLX_ESTALE, await_status(waits[2]));
    GIVES(NVLX_ESTALE, await_status(waits[3]));
    GIVES(NVLX_ESTALE, await_status(waits[4]));
    GIVES(NVLX_EAGAIN, nvlx_stream_wait_status(engine, waits[1]));
    if (last) { /* what the dead have left in a queue arrives late */
        set_count(1, 0);
        usleep(BRIEF_US);
    }
    stream_goes_on(&streams[1]);
    stream_goes_on(&streams[3]);
    stream_end(&streams[1]);
    stream_end(&streams[3]);
    GIVES(NVLX_ESTALE, await_status(waits[1]));
    OK(await_status(waits[5]));
    for (size_t i = 0; i < 3; i++)
        expect_mark(&streams[i], i, NVLX_ESTALE);
    expect_mark(&streams[3], 4, 0);
    GIVES(NVLX_EAGAIN, nvlx_stream_wait_status(engine, waits[6]));
    send(6, 1, 0);
    OK(await_status(waits[6]));
    REFUSED(nvlx_stream_wait(engine, streams[0].lane, producer_peer, counts, 1, NULL, NULL), NVLX_ESTALE, "gone");
    OK(nvlx_peer_close(producer_peer));
    GIVES(NVLX_ESTALE, nvlx_stream_wait_status(engine, waits[0]));
}

static void no_wait_for_the_dead(void) {
    enum { DEATHS = 25 };
    begin();
    for (int i = 0; i < DEATHS; i++) {
        start_producer();
        die_once(i % 2);
    }
    end();
}

/* Hundreds of waits for one producer: all end soon, and each has failed. */
static void many_waits_end_at_once(void) {
    enum { WAITS = 384, DEATHS = 12 };
    static uint64_t waits[WAITS];
    begin();
    for (int death = 0; death < DEATHS; death++) {
        reset_counts();
        start_producer();
        for (size_t i = 0; i < WAITS; i++)
            OK(nvlx_stream_wait(engine, streams[i % STREAMS].lane, producer_peer, &counts[i % 32], 1 + i / 32, NULL,
                                &waits[i]));
        kill_producer();
        const double killed = now_ms();
        for (size_t i = 0; i < WAITS; i++)
            GIVES(NVLX_ESTALE, await_status(waits[i]));
        EXPECT(now_ms() - killed < 10000);
        for (size_t i = 0; i < STREAMS; i++)
            stream_end(&streams[i]);
        OK(nvlx_peer_close(producer_peer));
    }
    end();
}

static void who_is_stopped_is_slow(void) {
    begin();
    start_producer();
    const uint64_t wait = let_wait(&streams[0], producer_peer, 0, 1);
    child_stop(&producer.child);
    usleep(500000);
    GIVES(NVLX_EAGAIN, nvlx_stream_wait_status(engine, wait));
    EXPECT(kill(producer.child.pid, SIGCONT) == 0);
    send(0, 1, 0); /* whoever it comes from */
    OK(await_status(wait));
    kill_producer();
    await_end(producer_peer);
    OK(await_status(wait));
    end();
}

static void an_engine_of_this_process_is_destroyed(void) {
    begin();
    struct nvlx_engine *third = make_engine(0);
    struct nvlx_peer *peer = peer_of(engine, third);
    const uint64_t wait = let_wait(&streams[0], peer, 0, 1);
    expect_waiting(wait);
    OK(nvlx_engine_destroy(third));
    expect_failed(wait, NVLX_ESTALE, "was destroyed");
    REFUSED(nvlx_signal_wait(engine, peer, &counts[5], 1, -1), NVLX_ESTALE, "was destroyed");
    end();
}

static void the_count_is_unregistered(void) {
    begin();
    stream_stands_still(&streams[1]);
    const uint64_t standing = let_wait(&streams[0], signaller, 0, 1), behind = let_wait(&streams[1], signaller, 1, 1);
    REFUSED(nvlx_free(engine, counts), NVLX_EBUSY, "a stream that waits");
    REFUSED(nvlx_unregister(region, 100000000), NVLX_ETIMEDOUT, "an own stream's wait uses it");
    expect_failed(standing, NVLX_ESTALE, "unregistered");
    GIVES(NVLX_EAGAIN, nvlx_stream_wait_status(engine, behind));
    REFUSED(nvlx_stream_wait(engine, streams[0].lane, signaller, counts, 1, NULL, NULL), NVLX_ERANGE, "not registered");
    stream_goes_on(&streams[1]);
    OK(nvlx_unregister(region, PATIENCE));
    GIVES(NVLX_ESTALE, await_status(behind));
    expect_mark(&streams[1], 1, NVLX_ESTALE);
    end();
}

static void the_count_is_suspended(void) {
    begin();
    const uint64_t wait = let_wait(&streams[0], signaller, 0, 1);
    OK(nvlx_suspend(&region, 1, PATIENCE));
    expect_failed(wait, NVLX_ESUSPENDED, "suspended");
    expect_mark(&streams[0], 0, NVLX_ESUSPENDED);
    REFUSED(nvlx_stream_wait(engine, streams[0].lane, signaller, counts, 2, NULL, NULL), NVLX_ESUSPENDED, "suspended");
    OK(nvlx_resume(&region, 1, NULL));
    const uint64_t again = let_wait(&streams[0], signaller, 0, 2);
    expect_waiting(again);
    send(0, 2, 0);
    OK(await_status(again));
    end();
}

static uint64_t *counts_of_kind(uint32_t flags, struct nvlx_region **in) {
    struct nvlx_alloc_options options;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    OK(nvlx_alloc(engine, 0, MIB, &options, &address));
    *in = register_range(engine, address, MIB, NULL, NVLX_ACCESS_READ_WRITE);
    return address;
}

static void streams_wait_for_chunks_and_for_no_pool(void) {
    struct nvlx_region *regions[2];
    uint64_t wait;
    begin();
    uint64_t *chunk = counts_of_kind(NVLX_ALLOC_VMM, &regions[0]);
    struct nvlx_peer *knows_it = peer_of(other, engine);
    OK(nvlx_stream_wait(engine, streams[0].lane, signaller, chunk, 1, NULL, &wait));
    expect_waiting(wait);
    OK(nvlx_stream_signal(other, streams[1].lane, knows_it, (uintptr_t)chunk, 1, NVLX_OP_ADD));
    OK(await_status(wait));
    OK(nvlx_peer_close(knows_it));
    OK(nvlx_stream_wait(engine, streams[0].lane, signaller, chunk, 2, NULL, &wait));
    OK(nvlx_suspend(regions, 1, PATIENCE));
    expect_failed(wait, NVLX_ESUSPENDED, "suspended");
    stream_end(&streams[0]);
    uint64_t *pool = counts_of_kind(NVLX_ALLOC_POOL, &regions[1]);
    REFUSED(nvlx_stream_wait(engine, streams[0].lane, signaller, pool, 1, NULL, NULL), NVLX_ENOTSUP, "of a pool");
    stream_end(&streams[0]);
    for (size_t i = 0; i < 2; i++)
        OK(nvlx_unregister(regions[i], PATIENCE));
    OK(nvlx_free(engine, chunk));
    OK(nvlx_free(engine, pool));
    end();
}

static void the_peer_is_closed(void) {
    begin();
    const uint64_t wait = let_wait(&streams[0], signaller, 0, 1);
    OK(nvlx_peer_close(signaller));
    stream_end(&streams[0]);
    expect_failed(wait, NVLX_ESTALE, "closed");
    signaller = NULL;
    end();
}

static void the_engine_is_destroyed(void) {
    begin();
    for (size_t i = 0; i < STREAMS; i++)
        let_wait(&streams[i], signaller, i, 1);
    OK(nvlx_peer_close(waiter));
    OK(nvlx_engine_destroy(engine));
    for (size_t i = 0; i < STREAMS; i++)
        expect_mark(&streams[i], i, NVLX_ESTALE);
    waiter = NULL;
    end_all_except_engine();
}

/* ---- Limits, events, arguments --------------------------------------------------------------------------- */

static void too_many_waits_are_refused(void) {
    enum { TRIES = 5000 };
    size_t accepted = 0;
    double longest = 0;
    begin();
    for (size_t i = 0; i < TRIES; i++) {
        const double begun = now_ms();
        const int code = nvlx_stream_wait(engine, streams[i % 2].lane, signaller, counts, 1, NULL, NULL);
        const double took = now_ms() - begun;
        longest = took > longest ? took : longest;
        EXPECT(code == 0 || code == NVLX_EBUSY);
        accepted += code == 0;
    }
    EQUAL(384, accepted);
    EXPECT(longest < 2000); /* it never waits for the signal; the margin is that of a machine full of work */
    REFUSED(nvlx_stream_wait(engine, streams[0].lane, signaller, counts, 1, NULL, NULL), NVLX_EBUSY, "may wait");
    send(0, 1, 0); /* there is room for signals, always */
    stream_end(&streams[0]);
    stream_end(&streams[1]);
    OK(await_status(let_wait(&streams[0], signaller, 0, 1)));
    end();
}

static void failures_are_events(void) {
    struct nvlx_event event = {.size = sizeof event};
    begin();
    start_producer();
    uint64_t wait = 0;
    OK(nvlx_stream_wait(engine, streams[0].lane, producer_peer, counts, 1, NULL, &wait));
    OK(nvlx_stream_wait(engine, streams[0].lane, producer_peer, counts, 2, NULL, &wait));
    kill_producer();
    GIVES(NVLX_ESTALE, await_status(wait));
    OK(nvlx_unregister(region, PATIENCE)); /* what waits for the count has been told by then */
    bool told = false;
    while (nvlx_next_event(engine, &event) == 0) {
        if (event.kind != NVLX_EVENT_WAIT_FAILED)
            continue;
        EXPECT(event.peer == producer_peer);
        EQUAL(wait, event.wait);
        GIVES(NVLX_ESTALE, event.status);
        EXPECT(strstr(event.reason, "gone") != NULL);
        EXPECT(!told);
        told = true;
    }
    EXPECT(told);
    end();
}

/* A peer that is not closed is signalled by as before. */
static void who_cannot_be_closed_ends_no_wait(void) {
    struct nvlx_prepared *prepared;
    begin();
    char *theirs = allocate(other, 0, KIB, 1), *mine = allocate(engine, 0, KIB, 1);
    register_range(other, theirs, KIB, NULL, NVLX_ACCESS_READ);
    register_range(engine, mine, KIB, NULL, NVLX_ACCESS_NONE);
    struct nvlx_peer *peer = peer_of(engine, other);
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, (uintptr_t)theirs, KIB);
    OK(nvlx_prepare(engine, &op, 1, NULL, &prepared));
    const uint64_t wait = let_wait(&streams[0], peer, 5, 1);
    REFUSED(nvlx_peer_close(peer), NVLX_EBUSY, "a prepared list");
    expect_waiting(wait);
    send(5, 1, 0);
    OK(await_status(wait));
    expect_mark(&streams[0], 5, 0);
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_peer_close(peer));
    end();
}

static void wrong_arguments(void) {
    struct nvlx_wait_options options;
    uint64_t wait;
    begin();
    void *stream = streams[0].lane;
    struct nvlx_peer *stranger = waiter;
    nvlx_wait_options_init(&options);
    GIVES(NVLX_EINVAL, nvlx_stream_wait(NULL, stream, signaller, counts, 1, NULL, NULL));
    REFUSED(nvlx_stream_wait(engine, NULL, signaller, counts, 1, NULL, NULL), NVLX_EINVAL, "stream is NULL");
    REFUSED(nvlx_stream_wait(engine, stream, NULL, counts, 1, NULL, NULL), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_stream_wait(engine, stream, signaller, NULL, 1, NULL, NULL), NVLX_EINVAL, "address is NULL");
    REFUSED(nvlx_stream_wait(engine, stream, stranger, counts, 1, NULL, NULL), NVLX_EINVAL, "not one of this engine");
    REFUSED(nvlx_stream_wait(engine, stream, signaller, (char *)counts + 4, 1, NULL, NULL), NVLX_EINVAL, "multiple");
    REFUSED(nvlx_stream_wait(engine, &wait, signaller, counts, 1, NULL, NULL), NVLX_ENOTSUP, "stream");
    options.mark = (char *)counts + 2;
    REFUSED(nvlx_stream_wait(engine, stream, signaller, counts, 1, &options, NULL), NVLX_EINVAL, "multiple");
    options.mark = &wait;
    REFUSED(nvlx_stream_wait(engine, stream, signaller, counts, 1, &options, NULL), NVLX_ERANGE, "not registered");
    REFUSED(nvlx_stream_wait_status(engine, 0), NVLX_EINVAL, "no wait of number 0");
    REFUSED(nvlx_stream_wait_status(engine, 1000), NVLX_EINVAL, "no wait of number 1000");
    REFUSED(nvlx_stream_signal(other, stream, waiter, (uintptr_t)counts + 4, 1, 0), NVLX_EINVAL, "multiple");
    REFUSED(nvlx_stream_signal(other, stream, waiter, (uintptr_t)counts, 1, 1), NVLX_EINVAL, "flags");
    REFUSED(nvlx_stream_signal(other, NULL, waiter, (uintptr_t)counts, 1, 0), NVLX_EINVAL, "stream is NULL");
    end();
}

/* A peer of another process that was made from a text tells nobody when it is gone. */
static void a_peer_from_a_text_is_not_waited_for(void) {
    struct owner owner;
    begin();
    owner_start(&owner);
    char *text = owner_export(&owner);
    struct nvlx_peer *peer = open_peer(engine, text);
    REFUSED(nvlx_stream_wait(engine, streams[0].lane, peer, counts, 1, NULL, NULL), NVLX_ENOTSUP, "nvlx_connect");
    free(text);
    owner_end(&owner);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_wait_ends_with_its_signal", a_wait_ends_with_its_signal},
        {"cpus_wait_and_read", cpus_wait_and_read},
        {"signals_nobody_asks_for", signals_nobody_asks_for},
        {"no_wait_for_the_dead", no_wait_for_the_dead},
        {"many_waits_end_at_once", many_waits_end_at_once},
        {"who_is_stopped_is_slow", who_is_stopped_is_slow},
        {"an_engine_of_this_process_is_destroyed", an_engine_of_this_process_is_destroyed},
        {"the_count_is_unregistered", the_count_is_unregistered},
        {"the_count_is_suspended", the_count_is_suspended},
        {"streams_wait_for_chunks_and_for_no_pool", streams_wait_for_chunks_and_for_no_pool},
        {"the_peer_is_closed", the_peer_is_closed},
        {"the_engine_is_destroyed", the_engine_is_destroyed},
        {"too_many_waits_are_refused", too_many_waits_are_refused},
        {"failures_are_events", failures_are_events},
        {"who_cannot_be_closed_ends_no_wait", who_cannot_be_closed_ends_no_wait},
        {"wrong_arguments", wrong_arguments},
        {"a_peer_from_a_text_is_not_waited_for", a_peer_from_a_text_is_not_waited_for},
        {0},
    };
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 90);
}
