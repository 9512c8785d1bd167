/* Parts of graphs: what a replay moves, what graphs hold, and what is refused with the capture left as it was. On the
 * host backend, whose graphs repeat what a lane was given. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "device/host/graph.h"
#include "faulty_device.h"
#include "host_stream.h"
#include "rendezvous_support.h"

enum { SIZE = 4 * 1024 * 1024, REPLAYS = 5, SMALL = 256, BLOCKS = 32 };

static struct bench bench;
static struct nvlx_region *mine[2];
static struct stream stream;
static struct nvlx_transfer_options in_stream; /* of a call into the stream */

static void begin(void) {
    bench_begin(&bench, make_faulty_engine(0), SIZE);
    bench_register(&bench, SIZE, mine);
    open_stream(&stream);
    nvlx_transfer_options_init(&in_stream);
    in_stream.stream = stream.lane;
}

static void end(void) {
    close_stream(&stream);
    bench_end(&bench);
}

static void capture(void) {
    OK(nvlxi_host_capture_begin(stream.lane));
}

static struct nvlxi_host_graph *captured(void) {
    struct nvlxi_host_graph *graph;
    OK(nvlxi_host_capture_end(stream.lane, &graph));
    return graph;
}

static void replay(struct nvlxi_host_graph *graph) {
    OK(nvlxi_host_graph_launch(graph, stream.lane));
    stream_end(&stream);
}

/* ---- What a replay moves ---------------------------------------------------------------------------------- */

/* Small pieces, which kernels carry, one for copy engines, rows, and both directions. */
static size_t make_list(struct nvlx_op *ops, struct nvlx_rows *rows) {
    size_t count = 0;
    for (size_t i = 0; i < SMALL; i++)
        ops[count++] = bench_op(&bench, i % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, 0, i * 1024, i * 1024 + 7, 700);
    ops[count++] = bench_op(&bench, NVLX_OP_READ, 0, SIZE / 2, SIZE / 4, SIZE / 4);
    *rows = (struct nvlx_rows){.count = 100, .local_pitch = 1000, .remote_pitch = 900};
    struct nvlx_op slice = bench_op(&bench, NVLX_OP_READ, 0, SIZE * 3 / 4, SIZE / 2 + 3, 800);
    slice.flags |= NVLX_OP_ROWS;
    slice.arg = (uint64_t)(uintptr_t)rows;
    ops[count++] = slice;
    return count;
}

/* The model knows no rows. */
static void apply_list(const struct nvlx_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct nvlx_op row = ops[i];
        const struct nvlx_rows *rows = (const void *)(uintptr_t)ops[i].arg;
        row.flags &= ~(uint32_t)NVLX_OP_ROWS;
        for (uint64_t j = 0; j < (rows ? rows->count : 1); j++) {
            bench_apply(&bench, &row, 1);
            row.local = (char *)row.local + (rows ? rows->local_pitch : 0);
            row.remote += rows ? rows->remote_pitch : 0;
        }
    }
}

static void replay_and_compare(struct nvlxi_host_graph *graph, const struct nvlx_op *ops, size_t count) {
    for (uint32_t i = 0; i < REPLAYS; i++) {
        bench_fill_remote(&bench, 0, 100 + i);
        replay(graph);
        apply_list(ops, count);
        bench_compare(&bench, "after a replay");
    }
}

static void a_prepared_list_is_replayed(void) {
    static struct nvlx_op ops[SMALL + 2];
    struct nvlx_rows rows;
    begin();
    const size_t count = make_list(ops, &rows);
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, count);
    capture();
    OK(nvlx_post(prepared, &in_stream, NULL));
    struct nvlxi_host_graph *graph = captured();
    bench_compare(&bench, "after the capture");
    replay_and_compare(graph, ops, count);
    EQUAL(0, engine_info(bench.engine).requests);
    OK(nvlx_prepared_free(prepared)); /* the graph has it all the same */
    replay_and_compare(graph, ops, count);
    nvlxi_host_graph_free(graph);
    end();
}

static void a_list_that_was_not_prepared_is_replayed(void) {
    static struct nvlx_op ops[SMALL + 2];
    struct nvlx_rows rows;
    begin();
    const size_t count = make_list(ops, &rows);
    capture();
    OK(nvlx_transfer(bench.engine, ops, count, &in_stream, NULL));
    struct nvlxi_host_graph *graph = captured();
    replay_and_compare(graph, ops, count);
    nvlxi_host_graph_free(graph);
    end();
}

/* More than requests may be in flight. */
static void many_posts_are_in_one_graph(void) {
    enum { POSTS = 5000 };
    begin();
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 64);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &op, 1);
    capture();
    for (int i = 0; i < POSTS; i++)
        OK(nvlx_post(prepared, &in_stream, NULL));
    struct nvlxi_host_graph *graph = captured();
    OK(nvlx_prepared_free(prepared));
    replay(graph);
    bench_apply(&bench, &op, 1);
    bench_compare(&bench, "after a replay");
    nvlxi_host_graph_free(graph);
    end();
}

/* ---- Blocks ------------------------------------------------------------------------------------------------ */

#define EACH 4096u

static struct nvlx_blocks *make_blocks(void) {
    const struct nvlx_block_region local = {.base = (uint64_t)(uintptr_t)bench.local[0],
                                            .stride = 2 * EACH,
                                            .length = EACH,
                                            .blocks = BLOCKS},
                                   remote = {.base = bench.remote[0], .stride = EACH, .length = EACH, .blocks = BLOCKS};
    return bench_tables(&bench, &local, &remote, 1, NVLX_ACCESS_READ);
}

static void apply_blocks(const uint32_t *local, const uint32_t *remote, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct nvlx_op op =
            bench_op(&bench, NVLX_OP_READ, 0, (size_t)local[i] * 2 * EACH, (size_t)remote[i] * EACH, EACH);
        bench_apply(&bench, &op, 1);
    }
}

enum { IDS = 8 };
static uint32_t *ids; /* on the GPU: local ones, then remote ones */

/* So many parts, of block 0. */
static void capture_ids(unsigned parts) {
    struct nvlx_blocks *blocks = make_blocks();
    ids = allocate(bench.engine, 0, 2 * IDS * sizeof *ids, 1);
    memset(ids, 0, 2 * IDS * sizeof *ids);
    const struct nvlx_block_ids named = {.size = sizeof named,
                                         .opcode = NVLX_OP_READ,
                                         .local = ids,
                                         .remote = ids + IDS,
                                         .count = IDS,
                                         .width = sizeof *ids,
                                         .flags = NVLX_IDS_ON_GPU};
    for (unsigned i = 0; i < parts; i++)
        OK(nvlx_blocks_transfer(blocks, &named, &in_stream, NULL));
    OK(nvlx_blocks_free(blocks));
}

static void ids_on_the_gpu_change_between_replays(void) {
    begin();
    capture();
    capture_ids(1);
    struct nvlxi_host_graph *graph = captured();
    REFUSED(nvlx_unregister(mine[0], 1000000), NVLX_ETIMEDOUT, "an own graph uses it");
    for (uint32_t i = 0; i < REPLAYS; i++) {
        bench_fill_remote(&bench, 0, 200 + i);
        for (uint32_t j = 0; j < IDS; j++) {
            ids[j] = (i + j * 3) % BLOCKS;
            ids[IDS + j] = (i * 7 + j) % BLOCKS;
        }
        replay(graph);
        apply_blocks(ids, ids + IDS, IDS);
        bench_compare(&bench, "after a replay with other ids");
    }
    ids[2] = BLOCKS; /* this pair is not copied */
    bench_fill_remote(&bench, 0, 300);
    replay(graph);
    apply_blocks(ids, ids + IDS, 2);
    apply_blocks(ids + 3, ids + IDS + 3, IDS - 3);
    bench_compare(&bench, "after a replay with an id that is out of range");
    nvlxi_host_graph_free(graph);
    end();
}

/* Warnings that begin with "a graph". */
static char logged[2048];
static atomic_int warnings;

static void collect(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    if (strncmp(message, "a graph", strlen("a graph")) != 0)
        return;
    snprintf(logged, sizeof logged, "%s", message);
    warnings++;
}

/* A graph of so many parts; from now on warnings are collected. */
static struct nvlxi_host_graph *begin_with_ids(unsigned parts) {
    begin();
    capture();
    capture_ids(parts);
    warnings = 0;
    OK(nvlx_set_log(NVLX_LOG_WARNING, collect, NULL));
    return captured();
}

static uint64_t count_faults(void) {
    struct nvlx_counts counts = {.size = sizeof counts};
    usleep(110000); /* else nobody looks */
    OK(nvlx_stats(bench.engine, NULL, &counts));
    return counts.graph_faults;
}

/* Each time that it is seen counts. The first is logged, of each part. */
static void ids_out_of_range_are_told(void) {
    struct nvlxi_host_graph *graph = begin_with_ids(1);
    replay(graph);
    EQUAL(0, count_faults());
    ids[2] = BLOCKS;
    replay(graph);
    EQUAL(1, count_faults());
    EQUAL(1, count_faults());
    EQUAL(1, warnings);
    EXPECT(strstr(logged, "a graph: ") && strstr(logged, "local id 2, which was on the GPU, is 32, and there are 32"));
    ids[2] = 0, ids[IDS + 5] = BLOCKS + 7;
    replay(graph);
    EQUAL(2, count_faults());
    replay(graph);
    nvlxi_host_graph_free(graph);
    OK(nvlx_free(bench.engine, ids)); /* whoever looks next sees that it is gone */
    EQUAL(3, count_faults());
    EQUAL(1, warnings);
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    end();
}

/* More than are told, and looked at, at a time. */
static void each_part_is_looked_at(void) {
    enum { PARTS = 600 };
    struct nvlxi_host_graph *graph = begin_with_ids(PARTS);
    ids[IDS] = BLOCKS;
    replay(graph);
    EQUAL(PARTS, count_faults());
    replay(graph);
    EQUAL(2 * PARTS, count_faults());
    EQUAL(PARTS, warnings);
    nvlxi_host_graph_free(graph);
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    end();
}

static void ids_out_of_range_are_told_when_the_graph_is_gone(void) {
    struct nvlxi_host_graph *graph = begin_with_ids(1);
    ids[IDS + 5] = BLOCKS + 7;
    replay(graph);
    nvlxi_host_graph_free(graph);
    OK(nvlx_free(bench.engine, ids));
    EQUAL(1, warnings);
    EXPECT(strstr(logged, "a graph that is gone: ") && strstr(logged, "remote id 5, which was on the GPU, is 39"));
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    EQUAL(1, count_faults());
    end();
}

/* Kernels read copies of them, engines none. */
static void ids_of_the_host_are_those_of_the_capture(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_KERNEL, NVLX_MECHANISM_COPY_ENGINE};
    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        uint32_t local[] = {1, 5, 9}, remote[] = {30, 0, 7};
        const uint32_t then[2][3] = {{1, 5, 9}, {30, 0, 7}};
        const struct nvlx_block_ids named = {.size = sizeof named,
                                             .opcode = NVLX_OP_READ,
                                             .local = local,
                                             .remote = remote,
                                             .count = COUNT(local),
                                             .width = sizeof *local};
        begin();
        struct nvlx_blocks *blocks = make_blocks();
        in_stream.mechanism = mechanisms[i];
        capture();
        OK(nvlx_blocks_transfer(blocks, &named, &in_stream, NULL));
        struct nvlxi_host_graph *graph = captured();
        memset(local, 0, sizeof local);
        memset(remote, 0, sizeof remote);
        OK(nvlx_blocks_free(blocks));
        for (uint32_t j = 0; j < REPLAYS; j++) {
            bench_fill_remote(&bench, 0, 400 + j);
            replay(graph);
            apply_blocks(then[0], then[1], COUNT(local));
            bench_compare(&bench, "after a replay");
        }
        nvlxi_host_graph_free(graph);
        end();
    }
}

/* ---- Refused ----------------------------------------------------------------------------------------------- */

static void what_is_refused_leaves_the_capture_valid(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    begin();
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 5, 3000),
                         far = bench_op(&bench, NVLX_OP_READ, 1, 0, 0, 3000);
    struct nvlx_op bad = op;
    bad.local = &stream;
    struct nvlx_op ready[] = {{.opcode = NVLX_OP_WAIT_READY, .peer = bench.peer, .remote = bench.remote[0]}, op};
    struct nvlx_prepared *prepared = bench_prepare(&bench, &op, 1), *other = bench_prepare(&bench, &far, 1);
    REFUSED(nvlx_post(prepared, &in_stream, NULL), NVLX_EINVAL, "request is NULL"); /* it does not capture yet */
    GIVES(NVLX_EINVAL, nvlx_post(prepared, NULL, NULL));
    capture();
    REFUSED(nvlx_post(prepared, &in_stream, &request), NVLX_EINVAL, "`request` must be NULL");
    options = in_stream;
    options.flags = NVLX_DONE_EVENT;
    REFUSED(nvlx_post(prepared, &options, NULL), NVLX_ENOTSUP, "NVLX_DONE_EVENT");
    options = in_stream;
    options.flags = NVLX_VERIFY;
    REFUSED(nvlx_transfer(bench.engine, &op, 1, &options, NULL), NVLX_ENOTSUP, "not verified");
    REFUSED(nvlx_post(other, &in_stream, NULL), NVLX_ENOTSUP, "the stream's GPU, which is 0");
    REFUSED(nvlx_transfer(bench.engine, &bad, 1, &in_stream, NULL), NVLX_ERANGE, "not registered");
    REFUSED(nvlx_transfer(bench.engine, ready, 2, &in_stream, NULL), NVLX_ENOTSUP, "does not wait for counts");
    for (int i = 0; i < 3; i++) { /* there is no lane, the graph does not hold it, or has it and not its copy */
        atomic_store(&faults.fail_at, atomic_load(&faults.calls) + 2 + i);
        EXPECT(nvlx_post(prepared, &in_stream, NULL) != 0);
        EXPECT(atomic_load(&faults.calls) >= atomic_load(&faults.fail_at));
        atomic_store(&faults.fail_at, 0);
    }
    OK(nvlx_post(prepared, &in_stream, NULL));
    struct nvlxi_host_graph *graph = captured();
    replay(graph);
    bench_apply(&bench, &op, 1);
    bench_compare(&bench, "after a replay");
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_prepared_free(other));
    nvlxi_host_graph_free(graph);
    end();
}

/* Copies and signals of another GPU: with an engine of this process as the peer. */
static void other_gpus_are_refused(void) {
    struct nvlx_region *regions[2];
    void *memory[2];
    begin();
    struct nvlx_engine *engine = make_engine(0);
    for (int gpu = 0; gpu < 2; gpu++) {
        OK(nvlx_alloc(engine, gpu, EACH, NULL, &memory[gpu]));
        regions[gpu] = register_range(engine, memory[gpu], EACH, NULL, NVLX_ACCESS_READ_WRITE);
    }
    struct nvlx_peer *peer = peer_of(bench.engine, engine);
    const struct nvlx_op across = make_op(NVLX_OP_READ, peer, bench.local[0], (uintptr_t)memory[1], 100);
    const struct nvlx_op ops[] = {make_op(NVLX_OP_READ, peer, bench.local[0], (uintptr_t)memory[0], 100),
                                  {.opcode = NVLX_OP_SIGNAL, .peer = peer, .remote = (uintptr_t)memory[1], .arg = 1}};
    capture();
    REFUSED(nvlx_transfer(bench.engine, &across, 1, &in_stream, NULL), NVLX_ENOTSUP, "does not copy between");
    REFUSED(nvlx_transfer(bench.engine, ops, 2, &in_stream, NULL), NVLX_ENOTSUP, "signals from the stream's GPU");
    OK(nvlx_transfer(bench.engine, ops, 1, &in_stream, NULL));
    nvlxi_host_graph_free(captured());
    OK(nvlx_peer_close(peer));
    for (int gpu = 0; gpu < 2; gpu++)
        OK(nvlx_unregister(regions[gpu], PATIENCE));
    OK(nvlx_engine_destroy(engine));
    end();
}

/* ---- What graphs hold -------------------------------------------------------------------------------------- */

static struct nvlxi_host_graph *capture_read(void) {
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 3000);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &op, 1);
    capture();
    OK(nvlx_post(prepared, &in_stream, NULL));
    OK(nvlx_prepared_free(prepared));
    return captured();
}

static void replay_read(struct nvlxi_host_graph *graph) {
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 3000);
    bench_fill_remote(&bench, 0, 400);
    replay(graph);
    bench_apply(&bench, &op, 1);
    bench_compare(&bench, "after a replay of one read");
}

static void own_memory_is_held(void) {
    begin();
    struct nvlxi_host_graph *graph = capture_read();
    REFUSED(nvlx_unregister(mine[0], 1000000), NVLX_ETIMEDOUT, "an own graph uses it");
    OK(nvlx_unregister(mine[1], PATIENCE));
    REFUSED(nvlx_free(bench.engine, bench.local[0]), NVLX_EBUSY, "a graph uses the memory");
    REFUSED(nvlx_peer_close(bench.peer), NVLX_EBUSY, "1 transfers and 0 waits that name the peer");
    REFUSED(nvlx_engine_destroy(bench.engine), NVLX_EBUSY, "1 transfers and 0 waits of this engine");
    replay_read(graph);
    nvlxi_host_graph_free(graph);
    OK(nvlx_unregister(mine[0], PATIENCE));
    OK(nvlx_peer_close(bench.peer));
    end();
}

/* Those that run when it is freed hold it, too. */
static void a_run_holds_what_the_graph_held(void) {
    begin();
    struct nvlxi_host_graph *graph = capture_read();
    stream_stands_still(&stream);
    OK(nvlxi_host_graph_launch(graph, stream.lane));
    nvlxi_host_graph_free(graph);
    REFUSED(nvlx_unregister(mine[0], 1000000), NVLX_ETIMEDOUT, "an own graph uses it");
    stream_goes_on(&stream);
    OK(nvlx_unregister(mine[0], PATIENCE));
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 3000);
    bench_apply(&bench, &op, 1);
    bench_compare(&bench, "after the run");
    end();
}

static void own_memory_sleeps(void) {
    begin();
    struct nvlxi_host_graph *graph = capture_read();
    REFUSED(nvlx_suspend(mine, 1, 1000000), NVLX_ETIMEDOUT, "an own graph uses it");
    nvlxi_host_graph_free(graph);
    OK(nvlx_suspend(mine, 1, PATIENCE));
    OK(nvlx_resume(mine, 1, NULL));
    graph = capture_read();
    replay_read(graph);
    nvlxi_host_graph_free(graph);
    end();
}

/* ---- An owner that withdraws ------------------------------------------------------------------------------- */

struct order {
    uint32_t region;
    int64_t timeout_ns; /* < 0: the end */
};

struct answer {
    int code;
    char words[512];
};

/* Regions "0" and "1" of one segment. */
static void withdrawer(int socket) {
    struct nvlx_engine *engine = make_engine(0);
    struct nvlx_region *regions[2];
    struct order order;
    char address[64];
    char *memory = allocate(engine, 0, 2 * EACH, 1);
    fill(engine, memory + EACH, EACH, 77);
    for (int i = 0; i < 2; i++)
        regions[i] = register_range(engine, memory + i * EACH, EACH, i ? "1" : "0", NVLX_ACCESS_READ);
    snprintf(address, sizeof address, "@nvlx-graphs-%d", (int)getpid());
    OK(nvlx_serve(engine, address, NULL));
    put(socket, address, sizeof address);
    for (get(socket, &order, sizeof order); order.timeout_ns >= 0; get(socket, &order, sizeof order)) {
        struct answer answer = {.code = nvlx_unregister(regions[order.region], order.timeout_ns)};
        snprintf(answer.words, sizeof answer.words, "%s", answer.code ? nvlx_last_error() : "");
        put(socket, &answer, sizeof answer);
    }
    OK(nvlx_engine_destroy(engine));
}

static struct answer withdraw(const struct child *child, uint32_t region, int64_t timeout_ns) {
    const struct order order = {region, timeout_ns};
    struct answer answer;
    put(child->socket, &order, sizeof order);
    get(child->socket, &answer, sizeof answer);
    return answer;
}

/* A graph on region "1" keeps its owner waiting, and not one that withdraws region "0". */
static void an_owner_waits_for_graphs_that_use_its_bytes(void) {
    const struct order over = {0, -1};
    struct child child;
    char address[64];
    begin();
    child_start(&child, "withdrawer");
    get(child.socket, address, sizeof address);
    struct nvlx_peer *peer = connect_to(bench.engine, address);
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, bench.local[0], find(peer, "1"), EACH);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &op, 1);
    capture();
    OK(nvlx_post(prepared, &in_stream, NULL));
    struct nvlxi_host_graph *graph = captured();
    EQUAL(0, withdraw(&child, 0, PATIENCE).code);
    struct answer answer = withdraw(&child, 1, 300000000);
    EXPECT(answer.code == NVLX_ETIMEDOUT);
    EXPECT(strstr(answer.words, "still holds 1 transfers and 1 mappings") != NULL);
    EXPECT(strstr(answer.words, "graphs among them") != NULL);
    GIVES(NVLX_ESTALE, nvlx_post(prepared, &in_stream, (struct nvlx_request *[1]){0}));
    capture();
    GIVES(NVLX_ESTALE, nvlx_post(prepared, &in_stream, NULL));
    struct nvlxi_host_graph *none = captured();
    replay(graph); /* the bytes are there */
    EQUAL(0, wrong(bench.engine, bench.local[0], EACH, 77));
    nvlxi_host_graph_free(none);
    nvlxi_host_graph_free(graph);
    EQUAL(0, withdraw(&child, 1, PATIENCE).code);
    put(child.socket, &over, sizeof over);
    child_end(&child);
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_peer_close(peer));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"a_prepared_list_is_replayed", a_prepared_list_is_replayed},
        {"a_list_that_was_not_prepared_is_replayed", a_list_that_was_not_prepared_is_replayed},
        {"many_posts_are_in_one_graph", many_posts_are_in_one_graph},
        {"ids_on_the_gpu_change_between_replays", ids_on_the_gpu_change_between_replays},
        {"ids_out_of_range_are_told", ids_out_of_range_are_told},
        {"each_part_is_looked_at", each_part_is_looked_at},
        {"ids_out_of_range_are_told_when_the_graph_is_gone", ids_out_of_range_are_told_when_the_graph_is_gone},
        {"ids_of_the_host_are_those_of_the_capture", ids_of_the_host_are_those_of_the_capture},
        {"what_is_refused_leaves_the_capture_valid", what_is_refused_leaves_the_capture_valid},
        {"other_gpus_are_refused", other_gpus_are_refused},
        {"own_memory_is_held", own_memory_is_held},
        {"a_run_holds_what_the_graph_held", a_run_holds_what_the_graph_held},
        {"own_memory_sleeps", own_memory_sleeps},
        {"an_owner_waits_for_graphs_that_use_its_bytes", an_owner_waits_for_graphs_that_use_its_bytes},
        {0},
    };
    static const struct role roles[] = {OWNER_ROLE, {"withdrawer", withdrawer}, {0}};
    return run_tests(argc, argv, tests, roles, 90);
}
