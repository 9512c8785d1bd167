/* Layer by layer: prefill's KV cache goes out while prefill still computes, and no CPU stands between the two GPUs.
 *
 *     prefill (GPU 0)   computing:   layer 0 | layer 1 | layer 2 | ...
 *                       sending:             | blocks of layer 0, signal 1 | blocks of layer 1, signal 2 | ...
 *     decode  (GPU 1)   decoding:                           wait for 1, check layer 0 | wait for 2, check layer 1 | ...
 *
 * Both caches are paged: a request's blocks have other ids here than there. A layer's blocks are written by one call,
 * behind the kernel that has computed them (nvlx_blocks_transfer with a stream), and then a signal
 * (nvlx_stream_signal). Decode puts a wait (nvlx_stream_wait) and a kernel that checks every word into its stream, for
 * all layers, before prefill has begun. Prefill measures how much of the transfer is hidden behind its kernels.
 *
 * With --graphs both sides put a pass into a CUDA graph, once: then each pass is a launch, and no call of the library.
 * On the host backend there are no streams: CPUs compute, wait for the signals (nvlx_signal_wait), and check.
 * It uses only the public header. Exit: 0 all words are right, 1 some are not, too little was hidden (--hidden), or
 * it could not run, 77 there is no GPU though NVLX_BACKEND asks for one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <nvlxfer.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kv_stream/side.h"

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* ---- Calls that enqueue: how long does the longest take? ---------------------------------------------- */

static struct {
    double worst_us, first_us; /* the latter: in the first round, in which the library makes its own streams */
    const char *which;
    uint64_t calls, refused;
} enqueued;

/* False: there is no room, as work waits. Nothing was enqueued, so try again. */
static bool is_enqueued(const char *which, double since, int code) {
    const double took = now_us() - since;
    if (took > enqueued.worst_us) {
        enqueued.worst_us = took;
        enqueued.which = which;
    }
    enqueued.calls++;
    if (code == NVLX_EBUSY) {
        enqueued.refused++;
        usleep(20);
        return false;
    }
    kv_check(code, which);
    return true;
}

#define ENQUEUE(call)                                                                                                  \
    do {                                                                                                               \
        double since;                                                                                                  \
        do                                                                                                             \
            since = now_us();                                                                                          \
        while (!is_enqueued(#call, since, call));                                                                      \
    } while (0)

static void end_first_round(void) {
    enqueued.first_us = enqueued.worst_us;
    enqueued.worst_us = 0;
}

static void tell_enqueued(const char *role) {
    if (enqueued.calls == 0)
        return;
    printf("%s: %" PRIu64 " calls that enqueue; the longest took %.0f us (%.*s), in the first round %.0f us; %" PRIu64
           " found no room at first\n",
           role, enqueued.calls, enqueued.worst_us, (int)strcspn(enqueued.which, "("), enqueued.which,
           enqueued.first_us, enqueued.refused);
}

/* ---- Graphs: what goes into the streams once, to be launched many times -------------------------------- */

static struct {
    double sum_us, worst_us; /* of this CPU, in launches */
    uint64_t count;
} launches;

static void launch(const struct kv_side *side, void *graph, void *stream) {
    const double since = now_us();
    side->device->launch(graph, stream);
    const double took = now_us() - since;
    launches.worst_us = took > launches.worst_us ? took : launches.worst_us;
    launches.sum_us += took;
    launches.count++;
}

static void tell_launches(const char *role) {
    if (launches.count)
        printf("%s: %" PRIu64 " launches of graphs, %.2f us of CPU each, at most %.0f us\n", role, launches.count,
               launches.sum_us / (double)launches.count, launches.worst_us);
}

/* ---- Signals ------------------------------------------------------------------------------------------ */

/* A count of the peer's becomes `value`, behind what is in the stream. In a graph, which has the same nodes each time
 * that it is launched, it grows by 1: so each signal comes to the same value. */
static void signal_behind(const struct kv_side *side, void *stream, int count, uint64_t value) {
    const uint64_t address = side->their_counts + (uint64_t)count * sizeof *side->counts;
    if (!stream)
        kv_set_their_count(side, count, value);
    else
        ENQUEUE(nvlx_stream_signal(side->engine, stream, side->peer, address, kv_arguments.graphs ? 1 : value,
                                   kv_arguments.graphs ? NVLX_OP_ADD : 0));
}

static struct kv_layer layer_of(const struct kv_side *side, int layer) {
    return (struct kv_layer){.base = (uint32_t *)(void *)(side->cache + (size_t)layer * kv_layer_bytes(side)),
                             .ids = side->ids,
                             .pass = &side->counts[KV_PASS],
                             .blocks = (uint32_t)kv_arguments.blocks,
                             .words = (uint32_t)(kv_block_bytes() / sizeof(uint32_t)),
                             .number = (uint32_t)layer};
}

/* The count that tells how many layers have arrived, in all passes, when this one has. */
static uint64_t arrived(uint64_t pass, int layer) {
    return (pass - 1) * (uint64_t)kv_arguments.layers + (uint64_t)layer + 1;
}

/* ---- Prefill ------------------------------------------------------------------------------------------ */

struct prefill {
    struct kv_side side;
    struct nvlx_blocks *tables;
    struct nvlx_request *requests[KV_LAYERS_MAX];
    const uint32_t *theirs;    /* decode's ids of the same blocks */
    void *computing, *sending; /* streams */
    void *graphs[3];           /* with --graphs: one of each kind of pass */
    uint32_t work;
};

/* A region for each layer; block ids mean the same in all of them. */
static void make_tables(struct prefill *prefill) {
    const struct kv_side *side = &prefill->side;
    struct nvlx_block_region here[KV_LAYERS_MAX], there[KV_LAYERS_MAX];
    struct nvlx_blocks_options options;
    for (int i = 0; i < kv_arguments.layers; i++) {
        const uint64_t offset = (uint64_t)i * kv_layer_bytes(side);
        here[i] = (struct nvlx_block_region){.base = (uint64_t)(uintptr_t)side->cache + offset,
                                             .stride = kv_block_bytes(),
                                             .length = kv_block_bytes(),
                                             .blocks = side->pool};
        there[i] = here[i];
        there[i].base = side->their_cache + offset;
    }
    nvlx_blocks_options_init(&options);
    options.access = NVLX_ACCESS_WRITE;
    kv_check(nvlx_blocks_create(side->engine, side->peer, here, there, (size_t)kv_arguments.layers, &options,
                                &prefill->tables),
             "nvlx_blocks_create");
}

static void send_layer(struct prefill *prefill, int layer, uint64_t pass) {
    struct nvlx_transfer_options options;
    struct nvlx_block_ids ids;
    nvlx_block_ids_init(&ids);
    ids.opcode = NVLX_OP_WRITE;
    ids.local = prefill->side.listed;
    ids.remote = prefill->theirs;
    ids.count = (size_t)kv_arguments.blocks;
    ids.first_region = (uint32_t)layer;
    ids.regions = 1;
    nvlx_transfer_options_init(&options);
    options.stream = prefill->sending;
    options.mechanism = kv_arguments.mechanism;
    options.max_sms = (uint32_t)kv_arguments.sms;
    /* What a graph copies each time has no request. */
    ENQUEUE(
        nvlx_blocks_transfer(prefill->tables, &ids, &options, kv_arguments.graphs ? NULL : &prefill->requests[layer]));
    if (!prefill->sending) /* no stream orders the signal */
        kv_check(nvlx_wait(prefill->requests[layer], KV_PATIENCE), "nvlx_wait");
    signal_behind(&prefill->side, prefill->sending, KV_ARRIVED, arrived(pass, layer));
}

enum kind { COMPUTE, TRANSFER, BOTH, KINDS }; /* of passes */

/* All layers into the streams. */
static void enqueue_pass(struct prefill *prefill, uint64_t pass, enum kind kind) {
    const struct kv_device *device = prefill->side.device;
    const bool computes = kind != TRANSFER, sends = kind != COMPUTE;
    if (computes)
        device->begin_pass(&prefill->side.counts[KV_PASS], prefill->computing);
    for (int i = 0; i < kv_arguments.layers; i++) {
        const struct kv_layer layer = layer_of(&prefill->side, i);
        if (computes)
            device->compute(&layer, prefill->work, prefill->computing);
        if (computes && sends)
            device->order(prefill->sending, prefill->computing);
        if (sends)
            send_layer(prefill, i, pass);
    }
}

/* A graph for each kind of pass. */
static void make_graphs(struct prefill *prefill) {
    const struct kv_device *device = prefill->side.device;
    for (int kind = 0; kind < KINDS; kind++) {
        device->capture(prefill->computing);
        device->order(prefill->sending, prefill->computing);
        enqueue_pass(prefill, 0, (enum kind)kind);
        device->order(prefill->computing, prefill->sending);
        prefill->graphs[kind] = device->captured(prefill->computing);
    }
}

/* Returns how long a pass took, from its begin until all is in place and signalled. */
static double run_pass(struct prefill *prefill, uint64_t pass, enum kind kind) {
    const struct kv_device *device = prefill->side.device;
    const double since = now_us();
    if (kv_arguments.graphs)
        launch(&prefill->side, prefill->graphs[kind], prefill->computing);
    else
        enqueue_pass(prefill, pass, kind);
    device->synchronize(prefill->computing);
    device->synchronize(prefill->sending);
    const double took = now_us() - since;
    for (int i = 0; kind != COMPUTE && !kv_arguments.graphs && i < kv_arguments.layers; i++)
        kv_check(nvlx_request_free(prefill->requests[i]), "nvlx_request_free");
    return took;
}

static int compare(const void *one, const void *other) {
    const double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

struct times { /* in us, of each round */
    double compute[KV_ROUNDS_MAX], transfer[KV_ROUNDS_MAX], both[KV_ROUNDS_MAX], checked[KV_ROUNDS_MAX];
};

/* False: less of the transfer was hidden than was asked for. */
static bool report(const struct prefill *prefill, struct times *times, int rounds) {
    const double compute = median(times->compute, rounds), transfer = median(times->transfer, rounds),
                 both = median(times->both, rounds), checked = median(times->checked, rounds);
    const double bytes = (double)kv_arguments.layers * kv_arguments.blocks * (double)kv_block_bytes();
    const double hidden = 100 * (1 - (both - compute) / transfer);
    printf("%d layers of %d blocks of %d KiB, medians of %d rounds:\n", kv_arguments.layers, kv_arguments.blocks,
           kv_arguments.kib, rounds);
    printf("  prefill alone   %10.1f us, %.1f a layer\n", compute, compute / kv_arguments.layers);
    printf("  transfer alone  %10.1f us, %.1f a layer, %.1f GB/s\n", transfer, transfer / kv_arguments.layers,
           bytes / transfer / 1e3);
    printf("  layer by layer  %10.1f us, and %.1f us more until decode has said that it has checked the last layer\n",
           both, checked - both);
    if (!kv_has_streams(&prefill->side) || prefill->side.gpus < 2) {
        printf("  what is hidden cannot be told: both processes use the same processors\n");
        if (kv_arguments.hidden > 0) {
            printf("SKIP: --hidden takes two GPUs\n");
            exit(77);
        }
        return true;
    }
    printf("  %.1f %% of the transfer is hidden%s\n", hidden,
           compute < transfer ? ". Prefill is shorter than the transfer: see --compute" : "");
    if (hidden < kv_arguments.hidden)
        printf("  it should be %.1f %%\n", kv_arguments.hidden);
    return hidden >= kv_arguments.hidden;
}

/* Each round computes alone, sends alone, and then does both, layer by layer. The first one is not measured. */
static bool measure(struct prefill *prefill) {
    static struct times times;
    for (int round = -1; round < kv_arguments.rounds; round++) {
        const uint64_t pass = 2 * (uint64_t)(round + 1) + 1;
        const int place = round < 0 ? 0 : round;
        kv_await_count(&prefill->side, KV_MAY_GO, pass);
        times.compute[place] = run_pass(prefill, pass, COMPUTE);
        times.transfer[place] = run_pass(prefill, pass, TRANSFER);
        kv_await_count(&prefill->side, KV_CHECKED, pass);
        kv_await_count(&prefill->side, KV_MAY_GO, pass + 1);
        const double since = now_us();
        times.both[place] = run_pass(prefill, pass + 1, BOTH);
        kv_await_count(&prefill->side, KV_CHECKED, pass + 1);
        times.checked[place] = now_us() - since;
        if (round < 0)
            end_first_round();
    }
    return report(prefill, &times, kv_arguments.rounds);
}

static int prefill_role(char addresses[2][40]) {
    struct prefill prefill = {0};
    struct kv_side theirs = {0};
    kv_begin(&prefill.side, 0, addresses);
    make_tables(&prefill);
    prefill.computing = prefill.side.device->stream(false);
    prefill.sending = prefill.side.device->stream(true); /* its kernels, if it has any, need not wait for SMs */
    prefill.work = prefill.side.device->work(kv_arguments.compute_us);
    theirs.pool = prefill.side.pool;
    kv_list_ids(&theirs, 1); /* as the router tells them */
    prefill.theirs = theirs.listed;
    if (kv_arguments.graphs)
        make_graphs(&prefill);
    const bool good = measure(&prefill);
    tell_enqueued("prefill");
    tell_launches("prefill");
    for (int kind = 0; kv_arguments.graphs && kind < KINDS; kind++)
        prefill.side.device->forget(prefill.graphs[kind]);
    free(theirs.listed);
    kv_check(nvlx_blocks_free(prefill.tables), "nvlx_blocks_free");
    kv_end(&prefill.side);
    return good ? 0 : 1;
}

/* ---- Decode ------------------------------------------------------------------------------------------- */

static void await_layer(const struct kv_side *side, void *stream, int layer, uint64_t pass) {
    const uint64_t value = arrived(pass, layer);
    struct nvlx_wait_options options;
    nvlx_wait_options_init(&options);
    if (kv_arguments.graphs) /* for one more than the wait before it */
        options.reached = &side->counts[KV_REACHED];
    if (!stream)
        kv_await_count(side, KV_ARRIVED, value);
    else
        ENQUEUE(nvlx_stream_wait(side->engine, stream, side->peer, &side->counts[KV_ARRIVED],
                                 kv_arguments.graphs ? 1 : value, &options, NULL));
}

static void enqueue_checks(const struct kv_side *side, void *stream, uint64_t pass) {
    side->device->begin_pass(&side->counts[KV_PASS], stream);
    for (int i = 0; i < kv_arguments.layers; i++) {
        const struct kv_layer layer = layer_of(side, i);
        if (!kv_arguments.no_wait)
            await_layer(side, stream, i, pass);
        side->device->check(&layer, (unsigned long long *)&side->counts[KV_WRONG], stream);
    }
    signal_behind(side, stream, KV_CHECKED, pass);
}

/* Prefill may go when all of a pass is in the stream; a CPU that waits itself says so before. */
static void check_pass(const struct kv_side *side, void *stream, uint64_t pass, void *graph) {
    const bool stays = !stream && !kv_arguments.no_wait;
    if (stays)
        kv_set_their_count(side, KV_MAY_GO, pass);
    if (graph)
        launch(side, graph, stream);
    else
        enqueue_checks(side, stream, pass);
    if (kv_arguments.no_wait) /* the checks come before everything */
        side->device->synchronize(stream);
    if (!stays)
        kv_set_their_count(side, KV_MAY_GO, pass);
    if (kv_arguments.no_wait)
        kv_await_count(side, KV_ARRIVED, arrived(pass, kv_arguments.layers - 1));
    side->device->synchronize(stream);
}

static void *make_graph(const struct kv_side *side, void *stream) {
    side->device->capture(stream);
    enqueue_checks(side, stream, 0);
    return side->device->captured(stream);
}

static int decode_role(char addresses[2][40]) {
    struct kv_side side = {0};
    uint64_t wrong;
    kv_begin(&side, 1, addresses);
    void *decoding = side.device->stream(false);
    void *graph = kv_arguments.graphs ? make_graph(&side, decoding) : NULL;
    const uint64_t passes = 2 * ((uint64_t)kv_arguments.rounds + 1);
    for (uint64_t pass = 1; pass <= passes; pass++) {
        check_pass(&side, decoding, pass, graph);
        if (pass == 2)
            end_first_round();
    }
    kv_check(nvlx_memcpy(side.engine, &wrong, &side.counts[KV_WRONG], sizeof wrong), "nvlx_memcpy");
    printf("decode: %" PRIu64 " layers in %" PRIu64 " passes, %" PRIu64 " words are wrong\n",
           passes * (uint64_t)kv_arguments.layers, passes, wrong);
    tell_enqueued("decode");
    tell_launches("decode");
    if (graph)
        side.device->forget(graph);
    kv_end(&side);
    return wrong ? 1 : 0;
}

/* ---- Starting them ---------------------------------------------------------------------------------- */

int main(int argc, char **argv) {
    static int (*const roles[2])(char addresses[2][40]) = {prefill_role, decode_role};
    char addresses[2][40];
    int status, verdict = 0;
    kv_read_arguments(argc, argv);
    for (int i = 0; i < 2; i++)
        snprintf(addresses[i], sizeof addresses[i], "@kv-stream-%d-%d", (int)getpid(), i);
    fflush(stdout);
    for (int i = 0; i < 2; i++) { /* this process does not use CUDA */
        const pid_t child = fork();
        if (child == 0)
            exit(roles[i](addresses));
        verdict |= child < 0;
    }
    while (wait(&status) > 0) {
        const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        verdict = code && (!verdict || verdict == 77) ? code : verdict;
    }
    return verdict;
}
