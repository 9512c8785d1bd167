/* Waits of graphs: two graphs that keep step by signals, and how a wait is ended for good. On the host backend.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/host/graph.h"
#include "faulty_device.h"
#include "host_stream.h"
#include "rendezvous_support.h"

enum { ROUNDS = 200, WORDS = 512, BRIEF_US = 20000 };

enum { SIGNALLED, MARK, REACHED, OTHER, COUNTS }; /* what each count is for */

/* A process that captures. The tests have two of them in one. */
struct side {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer; /* the other side */
    uint64_t *counts, *data;
    struct nvlx_region *region;
    struct stream stream;
    struct nvlxi_host_graph *graph;
};

static struct side producer, consumer;

static void side_begin(struct side *side) {
    side->engine = make_faulty_engine(0);
    side->counts = allocate(side->engine, 0, COUNTS * sizeof *side->counts, 1);
    side->data = allocate(side->engine, 0, WORDS * sizeof *side->data, 1);
    side->region =
        register_range(side->engine, side->counts, COUNTS * sizeof *side->counts, "counts", NVLX_ACCESS_READ_WRITE);
    register_range(side->engine, side->data, WORDS * sizeof *side->data, "data", NVLX_ACCESS_READ_WRITE);
    memset(side->counts, 0, COUNTS * sizeof *side->counts);
    open_stream(&side->stream);
}

static void begin(void) {
    side_begin(&producer);
    side_begin(&consumer);
    producer.peer = peer_of(producer.engine, consumer.engine);
    consumer.peer = peer_of(consumer.engine, producer.engine);
}

static void end(void) {
    OK(nvlx_peer_close(producer.peer));
    OK(nvlx_peer_close(consumer.peer));
    close_stream(&producer.stream);
    close_stream(&consumer.stream);
    OK(nvlx_engine_destroy(producer.engine));
    OK(nvlx_engine_destroy(consumer.engine));
}

static void capture(struct side *side) {
    OK(nvlxi_host_capture_begin(side->stream.lane));
}

static void captured(struct side *side) {
    OK(nvlxi_host_capture_end(side->stream.lane, &side->graph));
}

static void launch(struct side *side) {
    OK(nvlxi_host_graph_launch(side->graph, side->stream.lane));
}

static void drop(struct side *side) {
    nvlxi_host_graph_free(side->graph);
}

static uint64_t count_of(const struct side *side, size_t index) {
    return __atomic_load_n(&side->counts[index], __ATOMIC_ACQUIRE);
}

static int wait_for(struct side *side, struct nvlx_peer *peer, uint64_t value, bool paced, uint64_t *number) {
    struct nvlx_wait_options options;
    nvlx_wait_options_init(&options);
    options.mark = &side->counts[MARK];
    options.reached = paced ? &side->counts[REACHED] : NULL;
    return nvlx_stream_wait(side->engine, side->stream.lane, peer, &side->counts[SIGNALLED], value, &options, number);
}

static void signal_other(struct side *side, const struct side *other) {
    OK(nvlx_stream_signal(side->engine, side->stream.lane, side->peer, (uintptr_t)&other->counts[SIGNALLED], 1,
                          NVLX_OP_ADD));
}

static void await_waiting(struct side *side) {
    usleep(BRIEF_US);
    EXPECT(nvlxi_device_host.lane_query(side->stream.lane) == NVLX_EAGAIN);
}

/* ---- With signals ------------------------------------------------------------------------------------------- */

/* The producer's graph sends its words and waits until they were read; the consumer's waits for them and says so. */
static void two_graphs_keep_step(void) {
    begin();
    const struct nvlx_op ops[] = {
        make_op(NVLX_OP_WRITE, producer.peer, producer.data, (uintptr_t)consumer.data, WORDS * sizeof(uint64_t)),
        {.opcode = NVLX_OP_SIGNAL,
         .flags = NVLX_OP_ADD,
         .peer = producer.peer,
         .remote = (uintptr_t)&consumer.counts[SIGNALLED],
         .arg = 1}};
    struct nvlx_prepared *prepared;
    struct nvlx_transfer_options options;
    OK(nvlx_prepare(producer.engine, ops, COUNT(ops), NULL, &prepared));
    nvlx_transfer_options_init(&options);
    options.stream = producer.stream.lane;
    capture(&producer);
    OK(nvlx_post(prepared, &options, NULL));
    OK(wait_for(&producer, producer.peer, 1, true, NULL));
    captured(&producer);
    OK(nvlx_prepared_free(prepared));
    capture(&consumer);
    OK(wait_for(&consumer, consumer.peer, 1, true, NULL));
    signal_other(&consumer, &producer);
    captured(&consumer);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        for (size_t i = 0; i < WORDS; i++)
            producer.data[i] = round * 1000 + i;
        launch(&consumer);
        launch(&producer);
        stream_end(&producer.stream);
        stream_end(&consumer.stream);
        for (size_t i = 0; i < WORDS; i++)
            EQUAL(round * 1000 + i, consumer.data[i]);
        EQUAL(round, count_of(&consumer, REACHED));
    }
    EQUAL(0, count_of(&consumer, MARK));
    launch(&consumer); /* nobody has signalled */
    await_waiting(&consumer);
    launch(&producer);
    stream_end(&producer.stream);
    drop(&producer);
    drop(&consumer);
    end();
}

/* The program itself says how far. */
static void a_wait_reads_how_far(void) {
    begin();
    capture(&consumer);
    OK(wait_for(&consumer, consumer.peer, 0, true, NULL));
    captured(&consumer);
    __atomic_store_n(&consumer.counts[REACHED], 2, __ATOMIC_RELEASE);
    launch(&consumer);
    await_waiting(&consumer);
    signal_other(&producer, &consumer);
    await_waiting(&consumer);
    signal_other(&producer, &consumer);
    stream_end(&consumer.stream);
    EQUAL(2, count_of(&consumer, REACHED));
    drop(&consumer);
    end();
}

static void a_wait_for_a_value_waits_once(void) {
    uint64_t number;
    begin();
    capture(&consumer);
    OK(wait_for(&consumer, consumer.peer, 1, false, &number));
    captured(&consumer);
    launch(&consumer);
    await_waiting(&consumer);
    OK(nvlx_stream_wait_status(consumer.engine, number)); /* it has not failed */
    signal_other(&producer, &consumer);
    stream_end(&consumer.stream);
    launch(&consumer);
    stream_end(&consumer.stream);
    EQUAL(0, count_of(&consumer, MARK));
    drop(&consumer);
    end();
}

static void readiness_is_captured(void) {
    struct nvlx_region_options options;
    struct nvlx_region *region;
    begin();
    nvlx_region_options_init(&options);
    options.ready = &producer.counts[OTHER];
    OK(nvlx_register(producer.engine, producer.data, 64, &options, &region));
    capture(&producer);
    OK(nvlx_region_ready(region, producer.stream.lane));
    captured(&producer);
    for (uint64_t i = 1; i <= 3; i++) {
        launch(&producer);
        stream_end(&producer.stream);
        EQUAL(i, count_of(&producer, OTHER));
    }
    REFUSED(nvlx_unregister(producer.region, 1000000), NVLX_ETIMEDOUT, "an own graph uses it");
    drop(&producer);
    end();
}

/* ---- With blocks --------------------------------------------------------------------------------------------- */

static atomic_bool warned;

static void find_warning(void *context, int level, const char *message) {
    (void)context;
    if (level == NVLX_LOG_WARNING &&
        strstr(message, "a graph: local id 0, which was on the GPU, is 512, and there are"))
        warned = true;
}

/* A program that only replays calls nothing. While one of its graphs has a wait, a thread looks what its parts met. */
static void ids_out_of_range_are_told_without_a_call(void) {
    struct owner owner;
    struct nvlx_blocks *blocks;
    struct nvlx_block_ids named;
    struct nvlx_transfer_options options;
    side_begin(&consumer);
    owner_start(&owner);
    owner_alloc(&owner, 0, 0, WORDS * sizeof(uint64_t), 5);
    OK(owner_serve(&owner, own_name(), 0));
    owner_register(&owner, 0, 0, 0, WORDS * sizeof(uint64_t), NVLX_ACCESS_READ, "words");
    consumer.peer = connect_to(consumer.engine, own_name());
    await_name(consumer.peer, "words");
    const uint64_t there = find(consumer.peer, "words");
    const struct nvlx_block_region here_region = {(uintptr_t)consumer.data, 8, 0, 8, WORDS, 0, 0},
                                   there_region = {there, 8, 0, 8, WORDS, 0, 0};
    OK(nvlx_blocks_create(consumer.engine, consumer.peer, &here_region, &there_region, 1, NULL, &blocks));
    uint32_t *ids = allocate(consumer.engine, 0, 2 * sizeof *ids, 1);
    nvlx_block_ids_init(&named);
    named.opcode = NVLX_OP_READ;
    named.flags = NVLX_IDS_ON_GPU;
    named.local = ids, named.remote = ids + 1;
    named.count = 1;
    nvlx_transfer_options_init(&options);
    options.stream = consumer.stream.lane;
    capture(&consumer);
    OK(wait_for(&consumer, consumer.peer, 0, false, NULL));
    OK(nvlx_blocks_transfer(blocks, &named, &options, NULL));
    captured(&consumer);
    ids[0] = WORDS, ids[1] = 0;
    OK(nvlx_set_log(NVLX_LOG_WARNING, find_warning, NULL));
    launch(&consumer);
    for (double since = now_ms(); !warned; usleep(1000))
        EXPECT(now_ms() - since < 10000);
    stream_end(&consumer.stream);
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    drop(&consumer);
    OK(nvlx_blocks_free(blocks));
    OK(nvlx_peer_close(consumer.peer));
    close_stream(&consumer.stream);
    OK(nvlx_engine_destroy(consumer.engine));
    owner_end(&owner);
}

/* ---- Without them -------------------------------------------------------------------------------------------- */

static void expect_failed_runs(struct side *side, int code) {
    stream_end(&side->stream);
    for (int i = 0; i < 3; i++) { /* the one that waited, and two later ones */
        EQUAL((uint64_t)(int64_t)code, count_of(side, MARK));
        EQUAL(0, count_of(side, SIGNALLED));
        EQUAL(0, count_of(side, REACHED));
        __atomic_store_n(&side->counts[MARK], 0, __ATOMIC_RELEASE);
        launch(side);
        stream_end(&side->stream);
    }
}

static void await_event(struct side *side, uint64_t number) {
    struct nvlx_event event = {.size = sizeof event};
    const double begun = now_ms();
    int code = NVLX_EAGAIN;
    while (code == NVLX_EAGAIN || event.kind != NVLX_EVENT_WAIT_FAILED) {
        EXPECT(now_ms() - begun < 30000);
        usleep(200);
        code = nvlx_next_event(side->engine, &event);
    }
    OK(code);
    EQUAL(number, event.wait);
    EXPECT(event.status == NVLX_ESTALE);
}

static void no_replay_waits_for_the_dead(void) {
    struct owner owner;
    uint64_t number;
    begin();
    owner_start(&owner);
    OK(owner_serve(&owner, own_path(), 0));
    struct nvlx_peer *peer = connect_to(consumer.engine, own_path());
    capture(&consumer);
    OK(wait_for(&consumer, peer, 1, true, &number));
    captured(&consumer);
    launch(&consumer);
    await_waiting(&consumer);
    owner_kill(&owner);
    unlink(own_path());
    const double killed = now_ms();
    stream_end(&consumer.stream);
    EXPECT(now_ms() - killed < 5000);
    expect_failed_runs(&consumer, NVLX_ESTALE);
    REFUSED(nvlx_stream_wait_status(consumer.engine, number), NVLX_ESTALE, "gone");
    await_event(&consumer, number);
    capture(&consumer);
    REFUSED(wait_for(&consumer, peer, 1, true, NULL), NVLX_ESTALE, "gone");
    struct nvlxi_host_graph *none;
    OK(nvlxi_host_capture_end(consumer.stream.lane, &none));
    nvlxi_host_graph_free(none);
    REFUSED(nvlx_peer_close(peer), NVLX_EBUSY, "0 transfers and 1 waits that name the peer");
    drop(&consumer);
    OK(nvlx_peer_close(peer));
    end();
}

/* Whoever withdraws the count lets runs go on, and waits until the graph is gone. */
static void the_count_is_withdrawn(void) {
    for (int suspends = 0; suspends < 2; suspends++) {
        begin();
        capture(&consumer);
        OK(wait_for(&consumer, consumer.peer, 1, true, NULL));
        captured(&consumer);
        launch(&consumer);
        await_waiting(&consumer);
        if (suspends)
            REFUSED(nvlx_suspend(&consumer.region, 1, 50000000), NVLX_ETIMEDOUT, "an own graph uses it");
        else
            REFUSED(nvlx_unregister(consumer.region, 50000000), NVLX_ETIMEDOUT, "an own graph uses it");
        expect_failed_runs(&consumer, suspends ? NVLX_ESUSPENDED : NVLX_ESTALE);
        REFUSED(nvlx_free(consumer.engine, consumer.counts), NVLX_EBUSY, "a graph uses the memory");
        drop(&consumer);
        OK(suspends ? nvlx_suspend(&consumer.region, 1, PATIENCE) : nvlx_unregister(consumer.region, PATIENCE));
        end();
    }
}

static void engines_stay_until_graphs_are_gone(void) {
    begin();
    capture(&consumer);
    OK(wait_for(&consumer, consumer.peer, 1, true, NULL));
    captured(&consumer);
    REFUSED(nvlx_engine_destroy(consumer.engine), NVLX_EBUSY, "0 transfers and 1 waits of this engine");
    signal_other(&producer, &consumer);
    launch(&consumer);
    stream_end(&consumer.stream);
    EQUAL(1, count_of(&consumer, REACHED));
    drop(&consumer);
    end();
}

static void what_is_refused_leaves_the_capture_valid(void) {
    struct nvlx_wait_options options;
    uint64_t outside = 0;
    begin();
    void *stream = consumer.stream.lane;
    nvlx_wait_options_init(&options);
    options.reached = &consumer.counts[REACHED];
    REFUSED(nvlx_stream_wait(consumer.engine, stream, consumer.peer, consumer.counts, 1, &options, NULL), NVLX_ENOTSUP,
            "for streams that capture");
    capture(&consumer);
    options.reached = &outside;
    REFUSED(nvlx_stream_wait(consumer.engine, stream, consumer.peer, consumer.counts, 1, &options, NULL), NVLX_ERANGE,
            "not registered");
    options.reached = (char *)&consumer.counts[REACHED] + 4;
    REFUSED(nvlx_stream_wait(consumer.engine, stream, consumer.peer, consumer.counts, 1, &options, NULL), NVLX_EINVAL,
            "multiple of 8");
    /* What is asked before; there is no lane; the graph does not hold it, or its kernel. */
    for (int i = 0; i < 4; i++) {
        atomic_store(&faults.fail_at, atomic_load(&faults.calls) + 2 + i);
        EXPECT(wait_for(&consumer, consumer.peer, 1, true, NULL) != 0);
        EXPECT(atomic_load(&faults.calls) >= atomic_load(&faults.fail_at));
        atomic_store(&faults.fail_at, 0);
    }
    captured(&consumer);
    launch(&consumer);
    stream_end(&consumer.stream);
    REFUSED(nvlx_unregister(consumer.region, 1000000), NVLX_ETIMEDOUT, "an own graph uses it");
    drop(&consumer);
    OK(nvlx_unregister(consumer.region, PATIENCE)); /* nothing has stayed of it */
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"two_graphs_keep_step", two_graphs_keep_step},
        {"a_wait_reads_how_far", a_wait_reads_how_far},
        {"a_wait_for_a_value_waits_once", a_wait_for_a_value_waits_once},
        {"ids_out_of_range_are_told_without_a_call", ids_out_of_range_are_told_without_a_call},
        {"readiness_is_captured", readiness_is_captured},
        {"no_replay_waits_for_the_dead", no_replay_waits_for_the_dead},
        {"the_count_is_withdrawn", the_count_is_withdrawn},
        {"engines_stay_until_graphs_are_gone", engines_stay_until_graphs_are_gone},
        {"what_is_refused_leaves_the_capture_valid", what_is_refused_leaves_the_capture_valid},
        {0},
    };
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 90);
}
