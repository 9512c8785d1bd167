/* Signals between processes on GPUs: how long from one stream to the other, what a signal adds to a copy, that no byte
 * is stale behind a wait, nor read before it is ready, and that no stream or list waits for the dead. Usage:
 * cuda_signals [latency | cost | rounds [N] | ready [N] | killed [N]]: all of them, in short, without an argument.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

enum {
    BATCH = 64,
    BATCHES = 40,
    COPIES = 2000,
    WORDS = 16384,
    ROUNDS = 5000,
    STEP = 10000,
    KILLS = 10,
    NAME = 64,
    READY_BATCH = 16
};

#define BYTES        (WORDS * sizeof(uint32_t)) /* 64 KiB */
#define MODE_SECONDS 40u                        /* of each mode; of each kill */
#define LATE_MS      50.0                       /* in which a stream goes on when its producer was killed */
#define COST_US      30.0                       /* that a signal adds to a copy, at most */

/* Both processes have the same. The first one, which the test is, leads. */
struct side {
    bool leads;
    int socket;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    uint64_t *counts;             /* 0: for the leader's waits or the follower's; 1: a mark; 2: of `produced` */
    struct nvlx_region *produced; /* `source` */
    uint32_t *source, *target;    /* BYTES each */
    uint64_t their_counts, their_data, their_source; /* as the peer calls them */
    void *raw;                                       /* its counts, mapped by hand */
    unsigned long long *wrong;
    cudaStream_t stream;
};

static void name_of(char name[NAME], bool leader, int pid) {
    snprintf(name, NAME, "@nvlx-cuda-signals-%d-%s", pid, leader ? "leader" : "follower");
}

/* The source, whose readiness is a count. */
static struct nvlx_region *share_source(const struct side *side) {
    struct nvlx_region_options options;
    struct nvlx_region *region;
    nvlx_region_options_init(&options);
    options.name = "source";
    options.ready = &side->counts[2];
    OK(nvlx_register(side->engine, side->source, BYTES, &options, &region));
    return region;
}

static void map_by_hand(struct side *side) {
    cudaIpcMemHandle_t mine, theirs;
    CUDA(cudaIpcGetMemHandle(&mine, side->counts));
    put(side->socket, &mine, sizeof mine);
    get(side->socket, &theirs, sizeof theirs);
    CUDA(cudaIpcOpenMemHandle(&side->raw, theirs, cudaIpcMemLazyEnablePeerAccess));
}

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
    side->wrong = zeroed(sizeof *side->wrong);
    CUDA(cudaStreamCreateWithFlags(&side->stream, cudaStreamNonBlocking));
    register_range(side->engine, side->counts, KIB, "counts", NVLX_ACCESS_READ_WRITE);
    side->produced = share_source(side);
    register_range(side->engine, side->target, BYTES, "data", NVLX_ACCESS_READ_WRITE);
    name_of(mine, leads, pid);
    name_of(theirs, !leads, pid);
    OK(nvlx_serve(side->engine, mine, NULL));
    OK(nvlx_connect(side->engine, theirs, PATIENCE, &side->peer));
    OK(nvlx_peer_find(side->peer, "counts", &side->their_counts, &length));
    OK(nvlx_peer_find(side->peer, "data", &side->their_data, &length));
    OK(nvlx_peer_find(side->peer, "source", &side->their_source, &length));
    map_by_hand(side);
    meet(side->socket);
}

static void side_end(struct side *side) {
    meet(side->socket);
    CUDA(cudaStreamSynchronize(side->stream));
    CUDA(cudaIpcCloseMemHandle(side->raw));
    OK(nvlx_peer_close(side->peer));
    meet(side->socket);
    OK(nvlx_engine_destroy(side->engine));
}

static void reset(struct side *side) {
    CUDA(cudaStreamSynchronize(side->stream));
    meet(side->socket);
    CUDA(cudaMemset(side->counts, 0, KIB));
    CUDA(cudaMemset(side->wrong, 0, sizeof *side->wrong));
    CUDA(cudaDeviceSynchronize());
    meet(side->socket);
}

/* ---- Ways to signal and to wait --------------------------------------------------------------------------- */

typedef int stream_value(cudaStream_t stream, uint64_t address, uint64_t value, unsigned flags);
static stream_value *write_value, *wait_value;

static void library_signal(const struct side *side, uint64_t value) {
    OK(nvlx_stream_signal(side->engine, side->stream, side->peer, side->their_counts, value, 0));
}

static void library_wait(const struct side *side, uint64_t value) {
    OK(nvlx_stream_wait(side->engine, side->stream, side->peer, side->counts, value, NULL, NULL));
}

static void raw_signal(const struct side *side, uint64_t value) {
    EXPECT(write_value(side->stream, (uintptr_t)side->raw, value, 0) == 0);
}

static void raw_wait(const struct side *side, uint64_t value) {
    EXPECT(wait_value(side->stream, (uintptr_t)side->counts, value, 0) == 0);
}

static void kernel_signal(const struct side *side, uint64_t value) {
    CUDA(kernel_set(side->raw, value, side->stream));
}

static void kernel_wait(const struct side *side, uint64_t value) {
    CUDA(kernel_await(side->counts, value, side->stream));
}

static const struct way {
    const char *name;
    void (*signal)(const struct side *side, uint64_t value), (*wait)(const struct side *side, uint64_t value);
} ways[] = {{"this library", library_signal, library_wait},
            {"raw stream values", raw_signal, raw_wait},
            {"set by value, awaited by a kernel that spins", raw_signal, kernel_wait},
            {"set and awaited by kernels that spin", kernel_signal, kernel_wait}};

/* ---- Latency: half of a round trip ------------------------------------------------------------------------- */

static void report(const char *what, double *us, size_t count, double *median) {
    sort_values(us, count);
    printf("  %s: median %.2f us, p99 %.2f, worst %.2f\n", what, us[count / 2], us[count * 99 / 100], us[count - 1]);
    *median = us[count / 2];
}

/* A round of each side: a kernel, a signal, a wait. The leader notes when its kernels have ended. */
static void queue_batch(const struct side *side, const struct way *way, uint64_t *value, cudaEvent_t *events) {
    for (int i = 0; i < BATCH; i++) {
        ++*value;
        if (!side->leads)
            way->wait(side, *value);
        CUDA(kernel_produce(side->source, 1, 0, 1, side->stream));
        if (side->leads)
            CUDA(cudaEventRecord(events[i], side->stream));
        way->signal(side, *value);
        if (side->leads)
            way->wait(side, *value);
    }
    CUDA(cudaStreamSynchronize(side->stream));
}

static void measure_way(struct side *side, const struct way *way, double *median) {
    static double halves[BATCHES * BATCH];
    cudaEvent_t events[BATCH];
    uint64_t value = 0;
    size_t count = 0;
    reset(side);
    for (int i = 0; i < BATCH; i++)
        CUDA(cudaEventCreate(&events[i]));
    for (int batch = 0; batch < BATCHES; batch++) {
        meet(side->socket);
        queue_batch(side, way, &value, events);
        for (int i = BATCH / 4; side->leads && i < BATCH; i++) { /* by then both sides have queued all */
            float ms;
            CUDA(cudaEventElapsedTime(&ms, events[i - 1], events[i]));
            halves[count++] = ms * 500;
        }
    }
    for (int i = 0; i < BATCH; i++)
        CUDA(cudaEventDestroy(events[i]));
    if (side->leads)
        report(way->name, halves, count, median);
}

static void latency(struct side *side, uint64_t count) {
    (void)count;
    double medians[COUNT(ways)] = {0};
    if (side->leads)
        printf("from the end of a kernel in one stream to the end of a kernel behind the wait in the other:\n");
    for (size_t i = 0; i < COUNT(ways); i++)
        measure_way(side, &ways[i], &medians[i]);
    if (side->leads && medians[0] > 2 * medians[1] + 10)
        FAIL("the library takes %.1f us, raw stream values %.1f", medians[0], medians[1]);
}

/* ---- What a signal adds to a copy of 64 KiB ------------------------------------------------------------------ */

static double transfer_us(const struct side *side, const struct nvlx_op *ops, size_t count) {
    struct nvlx_request *request;
    const double begun = now_ms();
    OK(nvlx_transfer(side->engine, ops, count, NULL, &request));
    OK(nvlx_wait(request, GPU_PATIENCE));
    const double took = (now_ms() - begun) * 1000;
    OK(nvlx_request_free(request));
    return took;
}

/* The same by CUDA's calls alone, to where nobody else writes. */
static double raw_us(const struct side *side, cudaEvent_t event, bool signals) {
    const double begun = now_ms();
    CUDA(cudaMemcpyAsync((char *)side->raw + MIB, side->source, BYTES, cudaMemcpyDefault, side->stream));
    if (signals)
        raw_signal(side, 1);
    CUDA(cudaEventRecord(event, side->stream));
    while (cudaEventQuery(event) == cudaErrorNotReady)
        ;
    return (now_ms() - begun) * 1000;
}

static double post_us(struct nvlx_prepared *prepared) {
    struct nvlx_request *request;
    const double begun = now_ms();
    OK(nvlx_post(prepared, NULL, &request));
    OK(nvlx_wait(request, GPU_PATIENCE));
    const double took = (now_ms() - begun) * 1000;
    OK(nvlx_request_free(request));
    return took;
}

enum cost { PLAIN, SET, ADD, PREPARED_PLAIN, PREPARED_SET, RAW_PLAIN, RAW_SET, COSTS };

static void measure_costs(struct side *side, double us[COSTS][COPIES]) {
    struct nvlx_prepared *plain, *signals;
    cudaEvent_t event;
    const struct nvlx_op set[] = {
        {.opcode = NVLX_OP_WRITE,
         .peer = side->peer,
         .local = side->source,
         .remote = side->their_data,
         .length = BYTES},
        {.opcode = NVLX_OP_SIGNAL, .peer = side->peer, .remote = side->their_counts, .arg = 1}};
    struct nvlx_op add[] = {set[0], set[1]};
    add[1].flags = NVLX_OP_ADD;
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    OK(nvlx_prepare(side->engine, set, 1, NULL, &plain));
    OK(nvlx_prepare(side->engine, set, 2, NULL, &signals));
    for (int i = 0; i < COPIES; i++) {
        us[PLAIN][i] = transfer_us(side, set, 1);
        us[SET][i] = transfer_us(side, set, 2);
        us[ADD][i] = transfer_us(side, add, 2);
        us[PREPARED_PLAIN][i] = post_us(plain);
        us[PREPARED_SET][i] = post_us(signals);
        us[RAW_PLAIN][i] = raw_us(side, event, false);
        us[RAW_SET][i] = raw_us(side, event, true);
    }
    OK(nvlx_prepared_free(signals));
    OK(nvlx_prepared_free(plain));
    CUDA(cudaEventDestroy(event));
}

static void cost(struct side *side, uint64_t count) {
    (void)count;
    static double us[COSTS][COPIES];
    static const char *const names[COSTS] = {"without a signal",
                                             "with one that sets",
                                             "with one that adds",
                                             "prepared, without",
                                             "prepared, with one that sets",
                                             "raw, without",
                                             "raw, with cuStreamWriteValue64"};
    double medians[COSTS];
    reset(side);
    if (side->leads)
        measure_costs(side, us);
    meet(side->socket);
    if (!side->leads)
        return;
    printf("64 KiB to the other GPU, from the call until nvlx_wait returns:\n");
    for (int i = 0; i < COSTS; i++)
        report(names[i], us[i], COPIES, &medians[i]);
    const double set = medians[SET] - medians[PLAIN], add = medians[ADD] - medians[PLAIN];
    printf("  a signal adds %.2f us, prepared %.2f, raw %.2f; one that adds to the count %.2f us\n", set,
           medians[PREPARED_SET] - medians[PREPARED_PLAIN], medians[RAW_SET] - medians[RAW_PLAIN], add);
    if (set > COST_US || add > COST_US)
        FAIL("a signal adds more than %.0f us to a copy", COST_US);
}

/* ---- Rounds: fill, copy, signal, check on the other side ------------------------------------------------------ */

static void produce_round(const struct side *side, uint64_t round, uint64_t *random, struct nvlx_request **request) {
    const struct nvlx_op ops[] = {
        {.opcode = NVLX_OP_WRITE,
         .peer = side->peer,
         .local = side->source,
         .remote = side->their_data,
         .length = BYTES},
        {.opcode = NVLX_OP_SIGNAL, .peer = side->peer, .remote = side->their_counts, .arg = round}};
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.stream = side->stream;
    CUDA(kernel_produce(side->source, WORDS, next_random(random) % 8000, (uint32_t)round, side->stream));
    OK(nvlx_transfer(side->engine, ops, 2, &options, request));
    library_wait(side, round); /* until it was checked */
}

static void check_round(const struct side *side, uint64_t round, bool waits, uint64_t *random) {
    if (waits)
        library_wait(side, round);
    if (next_random(random) % 4 == 0)
        CUDA(kernel_produce(side->source, 1, next_random(random) % 8000, 1, side->stream));
    CUDA(kernel_count(side->target, WORDS, (uint32_t)round, side->wrong, side->stream));
    library_signal(side, round);
}

/* Words that were not this round's. */
static uint64_t run_rounds(struct side *side, uint64_t rounds, bool waits) {
    struct nvlx_request *requests[BATCH];
    uint64_t random = side->leads ? 7 : 8;
    unsigned long long wrong;
    reset(side);
    for (uint64_t first = 1; first <= rounds; first += BATCH) {
        for (uint64_t i = 0; i < BATCH; i++) {
            if (side->leads)
                produce_round(side, first + i, &random, &requests[i]);
            else
                check_round(side, first + i, waits, &random);
        }
        CUDA(cudaStreamSynchronize(side->stream));
        for (uint64_t i = 0; side->leads && i < BATCH; i++)
            OK(nvlx_request_free(requests[i]));
        if (side->leads && first / STEP != (first + BATCH) / STEP)
            printf("  %llu rounds\n", (unsigned long long)(first + BATCH - 1));
    }
    CUDA(cudaMemcpy(&wrong, side->wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    return wrong;
}

/* Whole batches. */
static uint64_t rounded(uint64_t count, uint64_t batch) {
    return (count + batch - 1) / batch * batch;
}

static void rounds(struct side *side, uint64_t count) {
    count = rounded(count, BATCH);
    watchdog(MODE_SECONDS + (unsigned)(count / 1000));
    const double begun = now_ms();
    const uint64_t stale = run_rounds(side, count, true);
    const double took = now_ms() - begun;
    const uint64_t found = run_rounds(side, 10 * BATCH, false);
    if (side->leads)
        return;
    printf("%llu rounds in %.1f s: %llu words stale; without the wait %llu in %d rounds\n", (unsigned long long)count,
           took / 1000, (unsigned long long)stale, (unsigned long long)found, 10 * BATCH);
    EQUAL(0, stale);
    EXPECT(found > 0);
}

/* ---- The same by readiness: the follower reads what the leader says is ready ---------------------------------- */

static void produce_ready(const struct side *side, uint64_t round, uint64_t *random) {
    CUDA(kernel_produce(side->source, WORDS, next_random(random) % 8000, (uint32_t)round, side->stream));
    OK(nvlx_region_ready(side->produced, side->stream));
    library_wait(side, round); /* until it was read */
}

static void read_ready(const struct side *side, uint64_t round, struct nvlx_request **request) {
    const struct nvlx_op ops[] = {{.opcode = NVLX_OP_WAIT_READY,
                                   .peer = side->peer,
                                   .remote = side->their_counts + 2 * sizeof *side->counts,
                                   .arg = round},
                                  {.opcode = NVLX_OP_READ,
                                   .peer = side->peer,
                                   .local = side->target,
                                   .remote = side->their_source,
                                   .length = BYTES}};
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.stream = side->stream;
    OK(nvlx_transfer(side->engine, ops, COUNT(ops), &options, request));
    CUDA(kernel_count(side->target, WORDS, (uint32_t)round, side->wrong, side->stream));
    library_signal(side, round);
}

static void ready(struct side *side, uint64_t count) {
    struct nvlx_request *requests[READY_BATCH];
    uint64_t random = 9;
    unsigned long long wrong;
    count = rounded(count, READY_BATCH);
    watchdog(MODE_SECONDS + (unsigned)(count / 1000));
    reset(side);
    const double begun = now_ms();
    for (uint64_t first = 1; first <= count; first += READY_BATCH) {
        for (uint64_t i = 0; i < READY_BATCH; i++) {
            if (side->leads)
                produce_ready(side, first + i, &random);
            else
                read_ready(side, first + i, &requests[i]);
        }
        CUDA(cudaStreamSynchronize(side->stream));
        for (uint64_t i = 0; !side->leads && i < READY_BATCH; i++)
            OK(nvlx_request_free(requests[i]));
    }
    CUDA(cudaMemcpy(&wrong, side->wrong, sizeof wrong, cudaMemcpyDeviceToHost));
    if (side->leads)
        return;
    printf("%llu rounds of reads when ready in %.1f s: %llu words stale\n", (unsigned long long)count,
           (now_ms() - begun) / 1000, wrong);
    EQUAL(0, wrong);
}

/* ---- Both sides ------------------------------------------------------------------------------------------------- */

static const struct mode {
    const char *name;
    void (*run)(struct side *side, uint64_t count);
} modes[] = {{"latency", latency}, {"cost", cost}, {"rounds", rounds}, {"ready", ready}};

/* `what` has a bit for each mode. */
static void run_modes(bool leads, int gpu, int socket, int pid, int what, int count) {
    struct side side;
    driver_function("cuStreamWriteValue64", 11070, (void **)&write_value);
    driver_function("cuStreamWaitValue64", 11070, (void **)&wait_value);
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

static void run_pair(int what, int count) {
    struct child child;
    cuda_child_start(&child, "follower", NULL);
    put_int(child.socket, 1);
    put_int(child.socket, (int)getpid());
    put_int(child.socket, what);
    put_int(child.socket, count);
    run_modes(true, 0, child.socket, (int)getpid(), what, count);
    child_end(&child);
}

/* ---- No wait for the dead -------------------------------------------------------------------------------------- */

/* Serves its memory, where it makes nothing ready, and waits to be killed. */
static void producer_role(int socket) {
    char name[NAME];
    struct nvlx_engine *engine = engine_on(NULL, 0);
    register_range(engine, zeroed(BYTES), BYTES, "data", NVLX_ACCESS_READ_WRITE);
    register_range(engine, zeroed(KIB), KIB, "ready", NVLX_ACCESS_READ_WRITE);
    name_of(name, false, (int)getpid());
    OK(nvlx_serve(engine, name, NULL));
    put_int(socket, (int)getpid());
    get_int(socket);
}

/* What waits: a stream, and lists of one op and of many in other streams. */
enum { LISTS = 2, PIECES = 64 };

struct waiter {
    struct nvlx_engine *engine;
    uint64_t *counts, *seen; /* the latter is pinned memory of the host */
    char *target;
    cudaStream_t stream, list_streams[LISTS];
    struct nvlx_request *requests[LISTS];
};

static void waiter_make(struct waiter *w) {
    const int gpu = 0;
    CUDA(cudaSetDevice(gpu));
    w->engine = engine_on(&gpu, 1);
    w->counts = zeroed(KIB);
    w->target = zeroed(LISTS * BYTES);
    CUDA(cudaHostAlloc((void **)&w->seen, KIB, 0));
    CUDA(cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking));
    for (size_t i = 0; i < LISTS; i++)
        CUDA(cudaStreamCreateWithFlags(&w->list_streams[i], cudaStreamNonBlocking));
    register_range(w->engine, w->counts, KIB, "counts", NVLX_ACCESS_READ_WRITE);
    register_range(w->engine, w->target, LISTS * BYTES, "target", NVLX_ACCESS_READ_WRITE);
}

static void lists_wait(struct waiter *w, struct nvlx_peer *peer) {
    struct nvlx_op ops[1 + PIECES];
    uint64_t data, ready, length;
    OK(nvlx_peer_find(peer, "data", &data, &length));
    OK(nvlx_peer_find(peer, "ready", &ready, &length));
    for (size_t i = 0; i < LISTS; i++) {
        const size_t pieces = i ? PIECES : 1, each = BYTES / pieces;
        ops[0] = (struct nvlx_op){.opcode = NVLX_OP_WAIT_READY, .peer = peer, .remote = ready, .arg = 1};
        for (size_t piece = 0; piece < pieces; piece++)
            ops[1 + piece] = (struct nvlx_op){.opcode = NVLX_OP_READ,
                                              .peer = peer,
                                              .local = w->target + i * BYTES + piece * each,
                                              .remote = data + (pieces - 1 - piece) * each,
                                              .length = each};
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.stream = w->list_streams[i];
        OK(nvlx_transfer(w->engine, ops, 1 + pieces, &options, &w->requests[i]));
    }
}

static void lists_have_failed(struct waiter *w) {
    for (size_t i = 0; i < LISTS; i++) {
        REFUSED(nvlx_wait(w->requests[i], PATIENCE), NVLX_ESTALE, "gone");
        GIVES(NVLX_ESTALE, nvlx_request_free(w->requests[i]));
    }
}

static double kill_one(struct waiter *w, struct child *child, struct nvlx_peer *peer) {
    struct nvlx_wait_options options;
    uint64_t wait;
    CUDA(cudaMemset(w->counts, 0, KIB));
    CUDA(cudaDeviceSynchronize());
    nvlx_wait_options_init(&options);
    options.mark = w->counts + 1;
    OK(nvlx_stream_wait(w->engine, w->stream, peer, w->counts, 1, &options, &wait));
    CUDA(cudaMemcpyAsync(w->seen, w->counts, 2 * sizeof *w->seen, cudaMemcpyDeviceToHost, w->stream));
    lists_wait(w, peer);
    usleep(2000);
    EXPECT(cudaStreamQuery(w->stream) == cudaErrorNotReady);
    for (size_t i = 0; i < LISTS; i++)
        GIVES(NVLX_EAGAIN, nvlx_test(w->requests[i]));
    const double begun = now_ms();
    EXPECT(kill(child->pid, SIGKILL) == 0);
    CUDA(cudaStreamSynchronize(w->stream));
    for (size_t i = 0; i < LISTS; i++)
        CUDA(cudaStreamSynchronize(w->list_streams[i]));
    lists_have_failed(w);
    const double took = now_ms() - begun;
    child_kill(child); /* its end takes the driver longer than that */
    EQUAL(1, w->seen[0]);
    EQUAL((uint64_t)(int64_t)NVLX_ESTALE, w->seen[1]);
    while (nvlx_stream_wait_status(w->engine, wait) == NVLX_EAGAIN)
        usleep(100);
    REFUSED(nvlx_stream_wait_status(w->engine, wait), NVLX_ESTALE, "gone");
    OK(nvlx_peer_close(peer));
    return took;
}

static void killed(int kills) {
    struct waiter w = {0};
    double worst = 0, sum = 0;
    waiter_make(&w);
    for (int i = 0; i < kills; i++) {
        char name[NAME];
        struct child child;
        struct nvlx_peer *peer;
        watchdog(MODE_SECONDS);
        cuda_child_start(&child, "producer", NULL);
        name_of(name, false, get_int(child.socket));
        OK(nvlx_connect(w.engine, name, PATIENCE, &peer));
        const double took = kill_one(&w, &child, peer);
        worst = took > worst ? took : worst;
        sum += took;
        if (i % 10 == 9)
            printf("  killed %d times: %.2f ms at most\n", i + 1, worst);
    }
    printf(
        "a producer killed %d times, from the kill until the streams have gone on: %.2f ms on average, %.2f at most\n",
        kills, sum / kills, worst);
    if (worst > LATE_MS)
        FAIL("a stream went on, or a list failed, %.1f ms after its producer was killed", worst);
    OK(nvlx_engine_destroy(w.engine));
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{"follower", follower_role}, {"producer", producer_role}, {NULL, NULL}};
    int what = 0, all = (1 << COUNT(modes)) - 1;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    gpus_needed(2);
    const char *name = argc > 1 ? argv[1] : "";
    const int count = argc > 2 ? atoi(argv[2]) : 0;
    for (size_t i = 0; i < COUNT(modes); i++)
        what |= !strcmp(name, modes[i].name) << i;
    const bool kills = !*name || !strcmp(name, "killed");
    if (!what && !kills)
        FAIL("there is no mode %s", name);
    if (what || !*name)
        run_pair(what ? what : all, count ? count : ROUNDS);
    if (kills)
        killed(count ? count : KILLS);
    return 0;
}
