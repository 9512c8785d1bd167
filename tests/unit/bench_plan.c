/* What checking, relocating and planning costs a fragment, in instructions: what a clock cannot tell on a busy machine.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The program runs itself under callgrind, which counts the instructions of nvlxi_shape_find, nvlxi_validate and
 * nvlxi_plan_all, with lists of different length; the difference is what a fragment costs. The lists go over 160
 * regions on each side, on the host backend, and every op is checked. They are random, or each op continues the one
 * before it on both sides. The lines "N instructions per joined op" and "N instructions per fragment" tell; more than
 * the limit fails. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/identity.h"
#include "transfer/plan.h"
#include "transfer/validate.h"

#define REGIONS      160
#define SIZE         (4u << 20)
#define ALIGNMENT    (2u << 20)
#define FRAGMENT     4096u
#define SHORT        8192
#define LONG         40960
#define LIMIT        60.0
#define LIMIT_JOINED 60.0

static void check(int code, const char *what) {
    if (code) {
        fprintf(stderr, "bench_plan: %s: %s\n", what, nvlx_last_error());
        exit(1);
    }
}

struct bench {
    struct nvlxi_context context;
    struct nvlxi_tables tables;
    struct nvlxi_registration registration;
    struct nvlxi_remote remote;
    struct nvlx_peer *peer;
    void *memory[REGIONS];
};

static void open_device(struct bench *bench) {
    check(nvlxi_device_host.open(NULL, 0, &bench->context.device), "open");
    check(nvlxi_identity_make(&bench->context.identity), "identity");
    nvlxi_tables_init(&bench->tables);
    bench->context.ops = &nvlxi_device_host;
    bench->context.tables = &bench->tables;
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

/* The same regions serve as the local side and, by a descriptor of this process, as the peer's, which is then called
 * another process: what is measured is how its ops are checked. */
static void open_peer(struct bench *bench) {
    struct nvlx_region_options options;
    struct nvlx_region *region;
    struct nvlxi_descriptor descriptor = {.backend = "host", .identity = bench->context.identity};
    char *text;
    size_t length;
    nvlx_region_options_init(&options);
    for (int i = 0; i < REGIONS; i++) {
        bench->memory[i] = allocate(bench);
        check(nvlxi_registration_add(&bench->registration, (uint64_t)(uintptr_t)bench->memory[i], SIZE, &options,
                                     &region),
              "add");
    }
    check(nvlxi_registration_records(&bench->registration, &descriptor), "records");
    check(nvlxi_descriptor_encode(&descriptor, &text, &length), "encode");
    check(nvlxi_peer_open(&bench->remote, text, length, &bench->peer), "peer_open");
    for (int i = 0; i < REGIONS; i++)
        check(nvlxi_mapping_open_range(bench->peer, 0, (uint64_t)(uintptr_t)bench->memory[i], SIZE), "map");
    bench->peer->same_process = false;
    nvlxi_registration_records_free(&descriptor);
    free(text);
}

/* The place of op `i` on one side. */
static char *place_of(const struct bench *bench, size_t i, bool joined, unsigned *seed) {
    const size_t each = SIZE / FRAGMENT;
    if (joined)
        return (char *)bench->memory[i / each % REGIONS] + i % each * FRAGMENT;
    char *memory = bench->memory[rand_r(seed) % REGIONS];
    return memory + rand_r(seed) % each * FRAGMENT;
}

static struct nvlx_op *make_ops(const struct bench *bench, size_t count, bool joined) {
    struct nvlx_op *ops = calloc(count, sizeof *ops);
    unsigned seed = 1;
    if (!ops)
        exit(1);
    for (size_t i = 0; i < count; i++)
        ops[i] = (struct nvlx_op){.opcode = NVLX_OP_READ,
                                  .peer = bench->peer,
                                  .local = place_of(bench, i, joined, &seed),
                                  .remote = (uint64_t)(uintptr_t)place_of(bench, i, joined, &seed),
                                  .length = FRAGMENT};
    return ops;
}

static int take_chunk(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    (void)context;
    (void)kernel;
    (void)count;
    struct nvlxi_chunk *made = calloc(1, sizeof *made);
    if (!made || !(made->fragment = calloc(LONG, sizeof *made->fragment)))
        exit(1);
    made->capacity = LONG;
    *chunk = made;
    return 0;
}

static void give_chunk(void *context, struct nvlxi_chunk *chunk) {
    (void)context;
    free(chunk->fragment);
    free(chunk);
}

/* Checks and plans one list, and tells how long that took. */
static int run_list(size_t count, bool joined) {
    static struct bench bench;
    struct nvlxi_plan plan;
    struct nvlxi_needs needs = {0};
    struct nvlxi_validation *scratch = calloc(1, sizeof *scratch);
    uint64_t best = UINT64_MAX, checked = UINT64_MAX;
    open_device(&bench);
    open_peer(&bench);
    struct nvlx_op *ops = make_ops(&bench, count, joined);
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
static double count_instructions(size_t count, bool joined) {
    char command[512], line[256], self[256];
    double instructions = -1;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        return -1;
    self[length] = '\0';
    snprintf(command, sizeof command,
             "BENCH_PLAN_ONCE=1 valgrind --tool=callgrind --callgrind-out-file=/dev/null "
             "--toggle-collect=nvlxi_shape_find --toggle-collect=nvlxi_validate --toggle-collect=nvlxi_plan_all '%s' "
             "%zu%s 2>&1",
             self, count, joined ? " joined" : "");
    FILE *output = popen(command, "r");
    if (!output)
        return -1;
    while (fgets(line, sizeof line, output)) {
        const char *collected = strstr(line, "Collected : ");
        if (collected)
            instructions = strtod(collected + strlen("Collected : "), NULL);
    }
    return pclose(output) ? -1 : instructions;
}

/* What an op costs; prints it. */
static int measure(bool joined, double limit, const char *what) {
    const double shorter = count_instructions(SHORT, joined), longer = count_instructions(LONG, joined);
    if (shorter <= 0 || longer <= shorter) {
        fprintf(stderr, "bench_plan: callgrind gave no counts\n");
        return 1;
    }
    const double each = (longer - shorter) / (LONG - SHORT);
    printf("%.1f instructions per %s\n", each, what);
    return each <= limit ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc > 1)
        return run_list((size_t)strtoull(argv[1], NULL, 10), argc > 2);
    if (system("valgrind --version >/dev/null 2>&1")) {
        printf("SKIP: there is no valgrind to count instructions with\n");
        return 77;
    }
    fflush(stdout);
    const int code = measure(true, LIMIT_JOINED, "joined op");
    return measure(false, LIMIT, "fragment") || code;
}
