/* Parts of CUDA graphs: what replays move, that two processes' graphs keep step by signals and waits alone, what graphs
 * hold, what is refused with the capture left valid, and that no replay waits for the dead. Usage:
 * cuda_graphs [moves | blocks | bad_ids | rounds [N] | held | killed [N]]: all of them, in short, without an argument.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/order/cuda_graphs.h"

enum { PIECES = 1024, REPLAYS = 20, ROUNDS = 2000, UNAWAITED = 200, AHEAD = 64, IDS = 32 };

#define BYTES  (16 * MIB)
#define WORDS  (BYTES / sizeof(uint32_t))
#define LAYER  (64 * KIB) /* that a round sends */
#define BLOCK  (16 * KIB)
#define BLOCKS (BYTES / 2 / BLOCK)

static void side_make(struct side *side, bool leads, int gpu, int socket, int pid) {
    char mine[NAME], theirs[NAME];
    uint64_t length;
    *side = (struct side){.leads = leads, .socket = socket};
    CUDA(cudaSetDevice(gpu));
    CUDA(kernels_load());
    side->engine = engine_on(&gpu, 1);
    side->counts = zeroed(4 * MIB); /* an allocation that no other shares */
    side->source = zeroed(BYTES);
    side->target = zeroed(BYTES);
    side->ids = zeroed(2 * IDS * sizeof *side->ids);
    side->wrong = zeroed(sizeof *side->wrong);
    CUDA(cudaStreamCreateWithFlags(&side->stream, cudaStreamNonBlocking));
    nvlx_transfer_options_init(&side->in_stream);
    side->in_stream.stream = side->stream;
    register_range(side->engine, side->counts, KIB, "counts", NVLX_ACCESS_READ_WRITE);
    side->region_of_source = register_range(side->engine, side->source, BYTES, "source", NVLX_ACCESS_READ_WRITE);
    side->region_of_target = register_range(side->engine, side->target, BYTES, "target", NVLX_ACCESS_READ_WRITE);
    name_of(mine, leads, pid);
    name_of(theirs, !leads, pid);
    OK(nvlx_serve(side->engine, mine, NULL));
    OK(nvlx_connect(side->engine, theirs, PATIENCE, &side->peer));
    OK(nvlx_peer_find(side->peer, "counts", &side->their_counts, &length));
    OK(nvlx_peer_find(side->peer, "source", &side->their_source, &length));
    OK(nvlx_peer_find(side->peer, "target", &side->their_target, &length));
    meet(side->socket);
}

static void side_end(struct side *side) {
    meet(side->socket);
    CUDA(cudaStreamSynchronize(side->stream));
    OK(nvlx_peer_close(side->peer));
    meet(side->socket);
    OK(nvlx_engine_destroy(side->engine));
}

/* ---- Content: the leader asks the follower for it, by its seed ----------------------------------------------- */

/* As the kernels have it. */
static uint32_t word(uint32_t seed, size_t i) {
    return seed * 2654435761u + (uint32_t)i * 40503u;
}

static void follow(const struct side *side) {
    for (int seed = get_int(side->socket); seed; seed = get_int(side->socket)) {
        CUDA(kernel_produce(side->source, WORDS, 0, (uint32_t)seed, side->stream));
        CUDA(cudaStreamSynchronize(side->stream));
        put_int(side->socket, seed);
    }
}

static void renew_source(const struct side *side, int seed) {
    put_int(side->socket, seed);
    get_int(side->socket);
}

struct model {
    char *source, *target, *seen;
};

static struct model model_make(const struct side *side) {
    const struct model model = {malloc(BYTES), calloc(1, BYTES), malloc(BYTES)};
    EXPECT(model.source && model.target && model.seen);
    CUDA(cudaMemset(side->target, 0, BYTES));
    CUDA(cudaDeviceSynchronize());
    return model;
}

static void model_renew(const struct side *side, const struct model *model, int seed) {
    renew_source(side, seed);
    for (size_t i = 0; i < WORDS; i++)
        ((uint32_t *)(void *)model->source)[i] = word((uint32_t)seed, i);
}

static void model_compare(const struct side *side, const struct model *model, const char *what) {
    CUDA(cudaMemcpy(model->seen, side->target, BYTES, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < BYTES; i++)
        if (model->seen[i] != model->target[i])
            FAIL("%s: byte %zu is 0x%02x, not 0x%02x", what, i, model->seen[i] & 0xff, model->target[i] & 0xff);
}

static void model_free(const struct model *model) {
    free(model->source);
    free(model->target);
    free(model->seen);
}

/* ---- Moves: pieces for kernels, one for engines, rows ---------------------------------------------------------- */

static const struct nvlx_rows rows = {.count = 2048, .local_pitch = 2048, .remote_pitch = 1536};

static size_t make_list(const struct side *side, struct nvlx_op *ops) {
    size_t count = 0;
    struct nvlx_op op = {.opcode = NVLX_OP_READ, .peer = side->peer};
    for (size_t i = 0; i < PIECES; i++, count++) {
        op.local = (char *)side->target + i * KIB + i % 3;
        op.remote = side->their_source + i * KIB + 256 + i % 5;
        op.length = 512 + i % 7;
        ops[count] = op;
    }
    op.local = (char *)side->target + 2 * MIB;
    op.remote = side->their_source + 3 * MIB;
    op.length = 3 * MIB;
    ops[count++] = op;
    op.local = (char *)side->target + 8 * MIB;
    op.remote = side->their_source + 8 * MIB;
    op.length = KIB;
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)&rows;
    ops[count++] = op;
    return count;
}

static void model_apply(const struct side *side, const struct model *model, const struct nvlx_op *op) {
    const size_t to = (size_t)((char *)op->local - (char *)side->target), from = op->remote - side->their_source;
    const bool many = op->flags & NVLX_OP_ROWS;
    for (size_t i = 0; i < (many ? rows.count : 1); i++)
        memcpy(model->target + to + i * rows.local_pitch, model->source + from + i * rows.remote_pitch, op->length);
}

static void move_by(struct side *side, const struct model *model, uint32_t mechanism, const char *name) {
    static struct nvlx_op ops[PIECES + 2];
    const size_t count = make_list(side, ops);
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    OK(nvlx_prepare(side->engine, ops, count, &options, &prepared));
    capture(side);
    OK(nvlx_post(prepared, &side->in_stream, NULL));
    struct graph graph = captured(side);
    model_compare(side, model, "after the capture");
    OK(nvlx_prepared_free(prepared));
    for (int i = 1; i <= REPLAYS; i++) {
        model_renew(side, model, (int)mechanism * 1000 + i);
        replay(side, &graph);
        for (size_t j = 0; j < count; j++)
            model_apply(side, model, &ops[j]);
        model_compare(side, model, name);
    }
    destroy(&graph);
    printf("moves by %s: %d replays right\n", name, REPLAYS);
}

static void moves(struct side *side, uint64_t unused) {
    (void)unused;
    if (!side->leads) {
        follow(side);
        return;
    }
    const struct model model = model_make(side);
    move_by(side, &model, NVLX_MECHANISM_AUTO, "auto");
    move_by(side, &model, NVLX_MECHANISM_COPY_ENGINE, "copy engines");
    move_by(side, &model, NVLX_MECHANISM_KERNEL, "kernels");
    model_free(&model);
    put_int(side->socket, 0);
}

/* ---- Blocks: by ids on the GPU, which change, and by ids of the host, which were copied -------------------------- */

static void choose_ids(uint32_t *ids, uint64_t *random) {
    const uint32_t first = next_random(random) % BLOCKS;
    for (uint32_t i = 0; i < IDS; i++) {
        ids[i] = (first + 5 * i) % BLOCKS; /* no two are the same */
        ids[IDS + i] = next_random(random) % BLOCKS;
    }
}

static void model_blocks(const struct model *model, const uint32_t *ids) {
    for (size_t i = 0; i < IDS; i++)
        memcpy(model->target + ids[i] * 2 * BLOCK, model->source + ids[IDS + i] * BLOCK, BLOCK);
}

/* Each block of the other process's source in every second one of the target here. */
static struct nvlx_blocks *make_blocks(const struct side *side) {
    const struct nvlx_block_region local = {.base = (uint64_t)(uintptr_t)side->target,
                                            .stride = 2 * BLOCK,
                                            .length = BLOCK,
                                            .blocks = BLOCKS},
                                   remote = {
                                       .base = side->their_source, .stride = BLOCK, .length = BLOCK, .blocks = BLOCKS};
    struct nvlx_blocks *blocks;
    OK(nvlx_blocks_create(side->engine, side->peer, &local, &remote, 1, NULL, &blocks));
    return blocks;
}

/* The ids are these, one side's behind the other's. */
static struct nvlx_block_ids ids_at(const uint32_t *where, uint32_t flags) {
    return (struct nvlx_block_ids){.size = sizeof(struct nvlx_block_ids),
                                   .opcode = NVLX_OP_READ,
                                   .local = where,
                                   .remote = where + IDS,
                                   .count = IDS,
                                   .width = sizeof *where,
                                   .flags = flags};
}

static void blocks_by(struct side *side, const struct model *model, bool on_gpu, uint32_t mechanism, const char *name) {
    uint32_t ids[2 * IDS];
    uint64_t random = 5;
    struct nvlx_transfer_options options = side->in_stream;
    const struct nvlx_block_ids named = ids_at(on_gpu ? side->ids : ids, on_gpu ? NVLX_IDS_ON_GPU : 0);
    choose_ids(ids, &random);
    options.mechanism = mechanism;
    struct nvlx_blocks *blocks = make_blocks(side);
    capture(side);
    OK(nvlx_blocks_transfer(blocks, &named, &options, NULL));
    struct graph graph = captured(side);
    OK(nvlx_blocks_free(blocks));
    for (int i = 1; i <= REPLAYS; i++) {
        if (on_gpu) {
            choose_ids(ids, &random);
            CUDA(cudaMemcpy(side->ids, ids, sizeof ids, cudaMemcpyHostToDevice));
        }
        model_renew(side, model, 7000 + (int)mechanism * 100 + i);
        replay(side, &graph);
        model_blocks(model, ids);
        model_compare(side, model, name);
    }
    destroy(&graph);
    printf("blocks, %s: %d replays right\n", name, REPLAYS);
}

static void blocks(struct side *side, uint64_t unused) {
    (void)unused;
    if (!side->leads) {
        follow(side);
        return;
    }
    const struct model model = model_make(side);
    blocks_by(side, &model, true, NVLX_MECHANISM_AUTO, "ids on the GPU");
    blocks_by(side, &model, false, NVLX_MECHANISM_KERNEL, "ids of the host, by kernels");
    blocks_by(side, &model, false, NVLX_MECHANISM_COPY_ENGINE, "ids of the host, by copy engines");
    model_free(&model);
    put_int(side->socket, 0);
}

/* ---- Bad ids: replays leave out their pairs, and somebody hears of it -------------------------------------------- */

static uint64_t graph_faults(const struct side *side) {
    struct nvlx_counts counts = {.size = sizeof counts};
    OK(nvlx_stats(side->engine, NULL, &counts));
    return counts.graph_faults;
}

/* Whoever asks looks, but not each time. */
static void await_faults(const struct side *side, uint64_t wanted) {
    for (const double since = now_ms(); graph_faults(side) < wanted; usleep(1000))
        EXPECT(now_ms() - since < 2000);
    EQUAL(wanted, graph_faults(side));
}

/* One pair of the replay is out of range, or none: the others are copied. */
static void replay_with(struct side *side, const struct model *model, const struct graph *graph, int bad) {
    static uint64_t random = 11;
    uint32_t ids[2 * IDS], good[2 * IDS];
    choose_ids(ids, &random);
    memcpy(good, ids, sizeof ids);
    if (bad >= 0) {
        ids[bad] = BLOCKS;
        const int left_out = bad % IDS, other = (left_out + 1) % IDS; /* once more instead */
        good[left_out] = good[other];
        good[left_out + IDS] = good[other + IDS];
    }
    CUDA(cudaMemcpy(side->ids, ids, sizeof ids, cudaMemcpyHostToDevice));
    replay(side, graph);
    model_blocks(model, good);
    model_compare(side, model, "a replay with an id out of range");
}

static void count_bad_ids(struct side *side, const struct model *model) {
    const struct nvlx_block_ids named = ids_at(side->ids, NVLX_IDS_ON_GPU);
    struct nvlx_blocks *blocks = make_blocks(side);
    capture(side);
    OK(nvlx_blocks_transfer(blocks, &named, &side->in_stream, NULL));
    struct graph graph = captured(side);
    OK(nvlx_blocks_free(blocks));
    uint64_t faults = graph_faults(side);
    model_renew(side, model, 77);
    for (int i = 1; i <= REPLAYS; i++) {
        replay_with(side, model, &graph, i % IDS); /* here */
        await_faults(side, ++faults);
        replay_with(side, model, &graph, IDS + i % IDS); /* there */
        await_faults(side, ++faults);
        replay_with(side, model, &graph, -1);
    }
    usleep(200000);
    EQUAL(faults, graph_faults(side));
    destroy(&graph);
    printf("ids out of range: %d replays without them right, each told of once\n", 2 * REPLAYS);
}

static void bad_ids(struct side *side, uint64_t unused) {
    (void)unused;
    if (!side->leads) {
        follow(side);
        return;
    }
    const struct model model = model_make(side);
    count_bad_ids(side, &model);
    model_free(&model);
    put_int(side->socket, 0);
}

/* ---- Rounds: one graph on either side, and no CPU between them -------------------------------------------------- */

static void reset(const struct side *side) {
    CUDA(cudaStreamSynchronize(side->stream));
    meet(side->socket);
    CUDA(cudaMemset(side->counts, 0, KIB));
    CUDA(cudaMemset(side->wrong, 0, sizeof *side->wrong));
    CUDA(cudaDeviceSynchronize());
    meet(side->socket);
}

/* For one more signal of the peer, each time that it runs. */
static void wait_for_next(const struct side *side) {
    struct nvlx_wait_options options;
    nvlx_wait_options_init(&options);
    options.mark = &side->counts[MARK];
    options.reached = &side->counts[REACHED];
    OK(nvlx_stream_wait(side->engine, side->stream, side->peer, &side->counts[SIGNALLED], 1, &options, NULL));
}

/* Fill, send with a signal, wait until it was checked. */
static struct graph capture_producer(const struct side *side) {
    const struct nvlx_op ops[] = {{.opcode = NVLX_OP_WRITE,
                                   .peer = side->peer,
                                   .local = side->source,
                                   .remote = side->their_target,
                                   .length = LAYER},
                                  {.opcode = NVLX_OP_SIGNAL,
                                   .flags = NVLX_OP_ADD,
                                   .peer = side->peer,
                                   .remote = side->their_counts + SIGNALLED * sizeof *side->counts,
                                   .arg = 1}};
    struct nvlx_prepared *prepared;
    OK(nvlx_prepare(side->engine, ops, COUNT(ops), NULL, &prepared));
    capture(side);
    CUDA(kernel_produce_next(side->source, LAYER / sizeof(uint32_t), &side->counts[PRODUCED], side->stream));
    OK(nvlx_post(prepared, &side->in_stream, NULL));
    wait_for_next(side);
    struct graph graph = captured(side);
    OK(nvlx_prepared_free(prepared));
    return graph;
}

/* Wait, check, say so. */
static struct graph capture_checker(const struct side *side, bool waits) {
    capture(side);
    if (waits)
        wait_for_next(side);
    CUDA(kernel_count_next(side->target, LAYER / sizeof(uint32_t), &side->counts[CHECKED], side->wrong, side->stream));
    OK(nvlx_stream_signal(side->engine, side->stream, side->peer, side->their_counts + SIGNALLED * sizeof *side->counts,
                          1, NVLX_OP_ADD));
    return captured(side);
}

/* Words that were not this round's. */
static unsigned long long run_rounds(const struct side *side, uint64_t count, bool waits, double *us) {
    unsigned long long wrong;
    uint64_t counts[COUNTS];
    reset(side);
    struct graph graph = side->leads ? capture_producer(side) : capture_checker(side, waits);
    for (uint64_t i = 0; i < count; i++) {
        if (i % AHEAD == 0)
            meet(side->socket);
        const double begun = now_ms();
        CUDA(cudaGraphLaunch(graph.exec, side->stream));
        us[i] = (now_ms() - begun) * 1000;
        if (i % AHEAD == AHEAD - 1)
            CUDA(cudaStreamSynchronize(side->stream));
    }
    CUDA(cudaStreamSynchronize(side->stream));
    CUDA(cudaMemcpy(&wrong, side->wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(counts, side->counts, sizeof counts, cudaMemcpyDeviceToHost));
    EQUAL(0, counts[MARK]);
    EQUAL(count, counts[side->leads ? PRODUCED : CHECKED]);
    meet(side->socket);
    destroy(&graph);
    return wrong;
}

static void rounds(struct side *side, uint64_t count) {
    double *us = malloc((count + UNAWAITED) * sizeof *us);
    EXPECT(us != NULL);
    watchdog(MODE_SECONDS + (unsigned)(count / 1000));
    const double begun = now_ms();
    const unsigned long long stale = run_rounds(side, count, true, us);
    const double took = now_ms() - begun;
    sort_values(us, count);
    printf("%s: %llu replays in %.2f s, CPU of a replay: median %.2f us, p99 %.2f, worst %.2f\n",
           side->leads ? "producer" : "checker", (unsigned long long)count, took / 1000, us[count / 2],
           us[count * 99 / 100], us[count - 1]);
    const unsigned long long found = run_rounds(side, UNAWAITED, false, us);
    free(us);
    if (side->leads)
        return;
    printf("%llu words stale; without the wait %llu in %d replays\n", stale, found, UNAWAITED);
    EQUAL(0, stale);
    EXPECT(found > 0);
}

/* ---- Held, and refused ------------------------------------------------------------------------------------------- */

static void refuse_all(const struct side *side, struct nvlx_prepared *prepared) {
    struct nvlx_transfer_options options = side->in_stream;
    struct nvlx_request *request;
    struct nvlx_op bad = {.opcode = NVLX_OP_READ, .peer = side->peer, .remote = side->their_source, .length = KIB};
    bad.local = side->wrong;
    REFUSED(nvlx_post(prepared, &side->in_stream, &request), NVLX_EINVAL, "`request` must be NULL");
    options.flags = NVLX_DONE_EVENT;
    REFUSED(nvlx_post(prepared, &options, NULL), NVLX_ENOTSUP, "NVLX_DONE_EVENT");
    options = side->in_stream;
    options.message = "m";
    options.message_length = 1;
    REFUSED(nvlx_post(prepared, &options, NULL), NVLX_ENOTSUP, "no message");
    REFUSED(nvlx_transfer(side->engine, &bad, 1, &side->in_stream, NULL), NVLX_ERANGE, "not registered");
    REFUSED(nvlx_stream_wait(side->engine, side->stream, side->peer, side->wrong, 1, NULL, NULL), NVLX_ERANGE,
            "not registered");
    EXPECT(is_capturing(side));
}

static void hold(struct side *side) {
    const struct nvlx_op op = {.opcode = NVLX_OP_READ,
                               .peer = side->peer,
                               .local = side->target,
                               .remote = side->their_source,
                               .length = BYTES};
    const struct model model = model_make(side);
    struct nvlx_prepared *prepared;
    OK(nvlx_prepare(side->engine, &op, 1, NULL, &prepared));
    capture(side);
    refuse_all(side, prepared);
    OK(nvlx_post(prepared, &side->in_stream, NULL));
    struct graph graph = captured(side);
    CUDA(cudaGraphDestroy(graph.graph)); /* what was made of it holds as much */
    OK(nvlx_prepared_free(prepared));
    model_renew(side, &model, 9);
    put_int(side->socket, 0);
    REFUSED(nvlx_unregister(side->region_of_target, SECOND_NS / 10), NVLX_ETIMEDOUT, "an own graph uses it");
    REFUSED(nvlx_peer_close(side->peer), NVLX_EBUSY, "graphs have 1 transfers");
    REFUSED(nvlx_engine_destroy(side->engine), NVLX_EBUSY, "graphs have 1 transfers");
    meet(side->socket); /* the follower withdraws what is read: see held */
    get_int(side->socket);
    replay(side, &graph);
    memcpy(model.target, model.source, BYTES);
    model_compare(side, &model, "a replay after both sides have withdrawn");
    CUDA(cudaGraphExecDestroy(graph.exec));
    const double begun = now_ms();
    OK(nvlx_unregister(side->region_of_target, PATIENCE));
    printf("unregistered %.2f ms after the graph was destroyed\n", now_ms() - begun);
    model_free(&model);
}

static void held(struct side *side, uint64_t unused) {
    (void)unused;
    if (side->leads) {
        hold(side);
        meet(side->socket);
        return;
    }
    follow(side);
    meet(side->socket);
    REFUSED(nvlx_unregister(side->region_of_source, SECOND_NS / 2), NVLX_ETIMEDOUT, "graphs among them");
    printf("the owner is told: %s\n", nvlx_last_error());
    put_int(side->socket, 1);
    OK(nvlx_unregister(side->region_of_source, PATIENCE));
    meet(side->socket);
}

/* ---- Both sides ----------------------------------------------------------------------------------------------------
 */

static const struct mode {
    const char *name;
    void (*run)(struct side *side, uint64_t count);
} modes[] = {{"moves", moves},
             {"blocks", blocks},
             {"bad_ids", bad_ids},
             {"rounds", rounds},
             {"held", held}}; /* the last one withdraws */

/* `what` has a bit for each mode. */
static void run_modes(bool leads, int gpu, int socket, int pid, int what, int count) {
    struct side side;
    watchdog(MODE_SECONDS);
    side_make(&side, leads, gpu, socket, pid);
    for (size_t i = 0; i < COUNT(modes); i++) {
        watchdog(MODE_SECONDS);
        if (what >> i & 1)
            modes[i].run(&side, (uint64_t)count);
    }
    watchdog(MODE_SECONDS);
    side_end(&side);
}

static void follower_role(int socket) {
    const int gpu = get_int(socket), pid = get_int(socket);
    const int what = get_int(socket), count = get_int(socket);
    run_modes(false, gpu, socket, pid, what, count);
}

static void run_pair(int gpu, int what, int count) {
    struct child child;
    cuda_child_start(&child, "follower", NULL);
    put_int(child.socket, gpu);
    put_int(child.socket, (int)getpid());
    put_int(child.socket, what);
    put_int(child.socket, count);
    run_modes(true, 0, child.socket, (int)getpid(), what, count);
    child_end(&child);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{"follower", follower_role}, {"producer", producer_role}, {NULL, NULL}};
    int what = 0, all = (1 << COUNT(modes)) - 1;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    const int gpu = gpus_needed(1) > 1 ? 1 : 0; /* of the other process */
    const char *name = argc > 1 ? argv[1] : "";
    const int count = argc > 2 ? atoi(argv[2]) : 0;
    for (size_t i = 0; i < COUNT(modes); i++)
        what |= !strcmp(name, modes[i].name) << i;
    const bool kills = !*name || !strcmp(name, "killed");
    if (!what && !kills)
        FAIL("there is no mode %s", name);
    if (what || !*name)
        run_pair(gpu, what ? what : all, count ? count : ROUNDS);
    if (kills)
        killed(gpu, count ? count : KILLS);
    return 0;
}
