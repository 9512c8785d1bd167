/* What checking, relocating and planning costs a fragment, in instructions: what a clock cannot tell on a busy machine.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The program runs itself under callgrind, which counts the instructions of nvlxi_shape_find, nvlxi_validate and
 * nvlxi_plan_all, with lists of different length; the difference is what a fragment costs. The lists go over 160
 * regions on each side, on the host backend, and every op is checked. They are random, or each op continues the one
 * before it on both sides; of one peer, or of several in turn. The lines "N instructions per joined op" and "N
 * instructions per fragment" tell; more than the limit fails. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/identity.h"
#include "callgrind.h"
#include "transfer/plan/plan.h"
#include "transfer/validate/validate.h"

#define REGIONS     160
#define REGIONS_MAX (3 * REGIONS)
#define SIZE        (4u << 20)
#define ALIGNMENT   (2u << 20)
#define FRAGMENT    4096u
#define SHORT       8192
#define LONG        40960
#define PEERS_MAX   8

struct list {
    const char *name;
    enum { JOINED, IN_TURN, AT_RANDOM } order; /* each op goes on; or they lie at random, of peers in turn, or of any */
    size_t peers;
    int regions, remote; /* of which its ops are, on each side of each peer */
    double limit;        /* 0: only to be timed, if asked for */
};
static const struct list lists[] = {
    {"joined op", JOINED, 1, REGIONS, REGIONS, 60},
    {"fragment", IN_TURN, 1, REGIONS, REGIONS, 60},
    {"fragment of 3 peers in turn", IN_TURN, 3, REGIONS, REGIONS, 1.3 * 60},
    {"fragment of 8 peers in turn", IN_TURN, 8, REGIONS, REGIONS, 1.3 * 60},
    {"fragment of 3 peers at random", AT_RANDOM, 3, REGIONS, REGIONS, 110},
    {"fragment in one region", IN_TURN, 1, 1, 1, 30},
    {"fragment of 3 peers in turn, in one region each", IN_TURN, 3, 1, 1, 1.3 * 30},
    {"fragment of one peer with 480 regions", IN_TURN, 1, REGIONS, REGIONS_MAX, 0},
    {"fragment of 3 peers in turn, with 53 regions each", IN_TURN, 3, REGIONS, REGIONS / 3, 0}};

static void check(int code, const char *what) {
    if (code) {
        fprintf(stderr, "bench_plan: %s: %s\n", what, nvlx_last_error());
        exit(1);
    }
}

struct bench {
    struct nvlxi_context context;
    struct nvlxi_tables tables;
    struct nvlxi_metrics metrics;
    struct nvlxi_registration registration;
    struct nvlxi_remote remote;
    struct nvlx_peer *peers[PEERS_MAX];
    void *memory[REGIONS_MAX];
};

static void open_device(struct bench *bench) {
    check(nvlxi_device_host.open(NULL, 0, &bench->context.device), "open");
    check(nvlxi_identity_make(&bench->context.identity), "identity");
    nvlxi_tables_init(&bench->tables);
    bench->context.ops = &nvlxi_device_host;
    bench->context.tables = &bench->tables;
    bench->context.metrics = &bench->metrics;
    check(nvlxi_registration_init(&bench->registration, &bench->context), "registration");
    check(nvlxi_remote_init(&bench->remote, &bench->context), "remote");
}

/* Aligned as cudaMalloc aligns what is large. */
static void *allocate(const struct bench *bench) {
    const struct nvlxi_alloc alloc = {.length = SIZE + ALIGNMENT, .kind = NVLXI_KIND_CUDA_MALLOC};
    void *memory;
    check(nvlxi_device_host.alloc(bench->context.device, &alloc, &memory), "alloc");
    return (char *)memory + -(uintptr_t)memory % ALIGNMENT;
}

/* Memory of another process is not asked whether it is still there. */
static void become_another_process(struct nvlx_peer *peer) {
    struct nvlxi_mapping *mapping, *next;
    peer->same_process = false;
    HASH_ITER(hh, peer->mappings, mapping, next)
    mapping->own_count = 0;
}

/* The same regions serve as the local side and, by a descriptor of this process, as the peer's, which is then called
 * another process: what is measured is how its ops are checked. */
static void open_peers(struct bench *bench, const struct list *list) {
    struct nvlx_region_options options;
    struct nvlx_region *region;
    struct nvlxi_descriptor descriptor = {.backend = "host", .identity = bench->context.identity};
    const int regions = list->remote > REGIONS ? list->remote : REGIONS;
    char *text;
    size_t length;
    nvlx_region_options_init(&options);
    for (int i = 0; i < regions; i++) {
        bench->memory[i] = allocate(bench);
        check(nvlxi_registration_add(&bench->registration, (uint64_t)(uintptr_t)bench->memory[i], SIZE, &options,
                                     &region),
              "add");
    }
    check(nvlxi_registration_records(&bench->registration, &descriptor), "records");
    check(nvlxi_descriptor_encode(&descriptor, &text, &length), "encode");
    for (size_t p = 0; p < list->peers; p++) {
        check(nvlxi_peer_open(&bench->remote, text, length, &bench->peers[p]), "peer_open");
        for (int i = 0; i < regions; i++)
            check(nvlxi_mapping_open_range(bench->peers[p], 0, (uint64_t)(uintptr_t)bench->memory[i], SIZE), "map");
        become_another_process(bench->peers[p]);
    }
    nvlxi_registration_records_free(&descriptor);
    free(text);
}

/* The place of op `i` on one side. */
static char *place_of(const struct bench *bench, size_t i, const struct list *list, int regions, unsigned *seed) {
    const size_t each = SIZE / FRAGMENT;
    if (list->order == JOINED)
        return (char *)bench->memory[i / each % REGIONS] + i % each * FRAGMENT;
    char *memory = bench->memory[rand_r(seed) % regions];
    return memory + rand_r(seed) % each * FRAGMENT;
}

static struct nvlx_op *make_ops(const struct bench *bench, size_t count, const struct list *list) {
    struct nvlx_op *ops = calloc(count, sizeof *ops);
    unsigned seed = 1;
    if (!ops)
        exit(1);
    for (size_t i = 0; i < count; i++) {
        const size_t peer = list->order == AT_RANDOM ? (size_t)rand_r(&seed) : i;
        ops[i] = (struct nvlx_op){.opcode = NVLX_OP_READ,
                                  .peer = bench->peers[peer % list->peers],
                                  .local = place_of(bench, i, list, list->regions, &seed),
                                  .remote = (uint64_t)(uintptr_t)place_of(bench, i, list, list->remote, &seed),
                                  .length = FRAGMENT};
    }
    return ops;
}

static struct nvlxi_chunk *idle; /* list: kept, as the library does */

static int take_chunk(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    (void)context;
    (void)kernel;
    (void)count;
    struct nvlxi_chunk *made = idle ? idle : calloc(1, sizeof *made);
    if (idle) {
        idle = made->next;
        *chunk = made;
        return 0;
    }
    if (!made || !(made->fragment = calloc(LONG, sizeof *made->fragment)))
        exit(1);
    made->capacity = LONG;
    *chunk = made;
    return 0;
}

static void give_chunk(void *context, struct nvlxi_chunk *chunk) {
    (void)context;
    chunk->next = idle;
    idle = chunk;
}

/* Checks and plans one list, and tells how long that took. */
static int run_list(size_t count, const struct list *list) {
    static struct bench bench;
    struct nvlxi_plan plan;
    struct nvlxi_needs needs = {0};
    struct nvlxi_validation *scratch = calloc(1, sizeof *scratch);
    uint64_t best = UINT64_MAX, checked = UINT64_MAX;
    open_device(&bench);
    open_peers(&bench, list);
    struct nvlx_op *ops = make_ops(&bench, count, list);
    nvlxi_plan_init(&plan, take_chunk, give_chunk, NULL);
    for (int round = 0; round < (getenv("BENCH_PLAN_ONCE") ? 1 : 50); round++) {
        nvlxi_plan_reset(&plan, NVLX_MECHANISM_AUTO);
        uint64_t since = nvlxi_now_ns();
        if (nvlxi_shape_find(&scratch->shape, ops, count, NVLX_MECHANISM_AUTO, false))
            exit(1);
        check(nvlxi_validate(scratch, &bench.registration, ops, count, NVLX_MECHANISM_AUTO, &needs), "check_ops");
        checked = nvlxi_min(checked, nvlxi_now_ns() - since);
        check(nvlxi_plan_all(&plan, &scratch->validated), "plan_all");
        best = nvlxi_min(best, nvlxi_now_ns() - since);
    }
    if (plan.bytes != count * FRAGMENT) {
        fprintf(stderr, "bench_plan: the plan has %" PRIu64 " bytes\n", plan.bytes);
        return 1;
    }
    printf("%zu fragments: %.1f ns each, %.1f of them for the check\n", count, (double)best / (double)count,
           (double)checked / (double)count);
    return 0;
}

/* The instructions of both for one list of this length. */
static double count_instructions(size_t count, const struct list *list) {
    char arguments[64];
    snprintf(arguments, sizeof arguments, "%zu %zu", count, (size_t)(list - lists));
    return callgrind_count("nvlxi_shape_find nvlxi_validate nvlxi_plan_all", arguments);
}

/* What an op costs; prints it. */
static int measure(const struct list *list) {
    const double shorter = count_instructions(SHORT, list), longer = count_instructions(LONG, list);
    if (shorter <= 0 || longer <= shorter) {
        fprintf(stderr, "bench_plan: callgrind gave no counts\n");
        return 1;
    }
    const double each = (longer - shorter) / (LONG - SHORT);
    printf("%.1f instructions per %s\n", each, list->name);
    return each <= list->limit ? 0 : 1;
}

/* Without arguments, all; else a length, and which list. */
int main(int argc, char **argv) {
    int code = 0;
    if (argc > 1)
        return run_list((size_t)strtoull(argv[1], NULL, 10),
                        &lists[argc > 2 ? strtoull(argv[2], NULL, 10) % (sizeof lists / sizeof *lists) : 1]);
    if (!callgrind_is_here())
        return 77;
    setenv("BENCH_PLAN_ONCE", "1", 1);
    fflush(stdout);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        code |= lists[i].limit ? measure(&lists[i]) : 0;
    return code;
}
