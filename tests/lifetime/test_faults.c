/* The n-th device call fails, or the n-th allocation of ours, for every n, in a life that uses everything once. Each
 * call then gives 0 or a negative code and, asked once more, works; the bytes are right; nothing is left behind.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "faulty_memory.h"
#include "support.h"

#define SIZE      (64 * KIB)
#define FRAGMENTS 600
#define PORTIONS  9000 /* ops: so many are not planned at once */
#define RUNS_MAX  5000
#define CROWD     70 /* regions: so many that lists and tables of them grow */

static struct owner owner;
static char *owner_text; /* its descriptor, and a later one */
static char *owner_later;
static long device_n, memory_n;
static int failures; /* calls that failed */

/* ---- Calls --------------------------------------------------------------------------------------------- */

/* The code of a call that the fault may hit. */
#define HIT(call) (arm(true), hit((call), #call))

static void arm(bool armed) {
    memory_arm(armed);
    atomic_store(&faults.paused, !armed);
}

static int hit(int code, const char *call) {
    arm(false);
    if (code > 0)
        FAIL("%s gives %d (device call %ld, allocation %ld)", call, code, device_n, memory_n);
    if (code < 0 && code != NVLX_EDEVICE && code != NVLX_ENOMEM)
        FAIL("%s gives %d, %s: %s (device call %ld, allocation %ld)", call, code, nvlx_strerror(code),
             nvlx_last_error(), device_n, memory_n);
    if (code < 0 && !nvlx_last_error()[0])
        FAIL("%s fails without a word", call);
    failures += code < 0;
    if (failures > 1)
        FAIL("%s fails though one fault hit already: %s (device call %ld, allocation %ld)", call, nvlx_last_error(),
             device_n, memory_n);
    return code;
}

/* If it fails, it left nothing behind: the same again works. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if (HIT(call))                                                                                                 \
            OK(call);                                                                                                  \
    } while (0)

static int quiet_create(struct nvlx_engine **engine) {
    struct nvlx_config config;
    static const int gpus[2] = {0, 1};
    nvlx_config_init(&config);
    config.gpus = gpus;
    config.gpu_count = 2;
    return nvlxi_engine_create(&config, &faulty_device, engine);
}

/* A transfer that the device failed is done once more. */
static void transfer_by(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                        const struct nvlx_transfer_options *options) {
    struct nvlx_request *request;
    struct nvlx_request_info info = {.size = sizeof info};
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += ops[i].length * (ops[i].flags ? ((const struct nvlx_rows *)(uintptr_t)ops[i].arg)->count : 1);
    TRY(nvlx_transfer(engine, ops, count, options, &request));
    int code = HIT(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(code, info.status);
    EQUAL(count, info.ops);
    EQUAL(bytes, info.bytes);
    EQUAL(bytes, info.engine_bytes + info.kernel_bytes);
    EQUAL(code, nvlx_request_free(request));
    if (code) {
        OK(nvlx_transfer(engine, ops, count, options, &request));
        finish(request);
    }
}

static void transfer(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count, void *stream,
                     uint32_t mechanism) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    options.mechanism = mechanism;
    transfer_by(engine, ops, count, &options);
}

static void post(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count) {
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    TRY(nvlx_prepare(engine, ops, count, NULL, &prepared));
    for (int i = 0; i < 2; i++) {
        TRY(nvlx_post(prepared, NULL, &request));
        int code = HIT(nvlx_wait(request, PATIENCE));
        EQUAL(code, nvlx_request_free(request));
        if (code) {
            OK(nvlx_post(prepared, NULL, &request));
            finish(request);
        }
    }
    OK(nvlx_prepared_free(prepared));
}

/* ---- A life -------------------------------------------------------------------------------------------- */

struct life {
    struct nvlx_engine *engine, *other; /* `other` is a peer in the same process */
    void *mine, *theirs;
    struct nvlx_region *region, *theirs_region, *crowd[CROWD];
    struct nvlx_peer *near, *far; /* `far` is the owner */
    struct nvlxi_device *device;  /* of the caller's streams */
    struct nvlxi_lane *stream;
};

static struct nvlx_region *add(struct nvlx_engine *engine, const void *address, const char *name) {
    struct nvlx_region *region;
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = name;
    TRY(nvlx_register(engine, address, SIZE, &options, &region));
    return region;
}

static void be_born(struct life *life) {
    static uint8_t bytes[SIZE];
    char *text;
    size_t length;
    uint64_t address, size;
    TRY(quiet_create(&life->engine));
    TRY(quiet_create(&life->other));
    TRY(nvlx_alloc(life->engine, 0, SIZE, NULL, &life->mine));
    TRY(nvlx_alloc(life->other, 1, SIZE, NULL, &life->theirs));
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = seed_byte(2, i);
    TRY(nvlx_memcpy(life->other, life->theirs, bytes, SIZE));
    life->region = add(life->engine, life->mine, "mine");
    life->theirs_region = add(life->other, life->theirs, "theirs");
    TRY(nvlx_region_set_digest(life->theirs_region, NULL));
    TRY(nvlx_export(life->other, &text, &length));
    TRY(nvlx_peer_open(life->engine, text, length, &life->near));
    nvlx_text_free(text);
    TRY(nvlx_peer_open(life->engine, owner_text, strlen(owner_text), &life->far));
    OK(nvlx_peer_find(life->far, "w", &address, &size));
    TRY(nvlx_peer_map(life->far, 1, address, size));
}

/* From the owner in so many fragments that the first are copied while the last are planned. */
static void work_in_portions(const struct life *life) {
    static struct nvlx_op ops[PORTIONS];
    uint64_t far = find(life->far, "w");
    for (size_t i = 0; i < PORTIONS; i++)
        ops[i] = make_op(NVLX_OP_READ, life->far, (char *)life->mine + 7 * i, far + 7 * i, 6);
    memset(life->mine, 0, SIZE);
    transfer(life->engine, ops, PORTIONS, life->stream, NVLX_MECHANISM_AUTO);
    for (size_t i = 0; i < 7 * PORTIONS; i++)
        EQUAL(i % 7 < 6 ? seed_byte(1, i) : 0, ((uint8_t *)life->mine)[i]);
}

static void move_blocks(const struct life *life, struct nvlx_blocks *blocks, const struct nvlx_block_ids *ids,
                        uint32_t mechanism) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    memset(life->mine, 0, 8 * 1000);
    TRY(nvlx_blocks_transfer(blocks, ids, &options, &request));
    int code = HIT(nvlx_wait(request, PATIENCE));
    EQUAL(code, nvlx_request_free(request));
    if (code) {
        OK(nvlx_blocks_transfer(blocks, ids, &options, &request));
        finish(request);
    }
    for (size_t i = 0; i < 8000; i++) /* block 3 of 4 came to block 1, in both regions */
        EQUAL(i / 1000 % 4 == 1 ? seed_byte(1, i + 2000) : 0, ((uint8_t *)life->mine)[i]);
}

/* Blocks by ids here, on the GPU, and as a plain list. */
static void work_by_ids(const struct life *life) {
    struct nvlx_block_region here[2], there[2];
    struct nvlx_block_ids ids;
    struct nvlx_blocks *blocks;
    const uint32_t mine = 1, theirs = 3, both[2] = {mine, theirs};
    for (size_t i = 0; i < 2; i++) {
        here[i] = (struct nvlx_block_region){
            .base = (uintptr_t)life->mine + 4000 * i, .stride = 1000, .length = 1000, .blocks = 4};
        there[i] = here[i];
        there[i].base = find(life->far, "w") + 4000 * i;
    }
    TRY(nvlx_blocks_create(life->engine, life->far, here, there, 2, NULL, &blocks));
    nvlx_block_ids_init(&ids);
    ids.local = &mine, ids.remote = &theirs, ids.count = 1;
    move_blocks(life, blocks, &ids, NVLX_MECHANISM_AUTO);
    move_blocks(life, blocks, &ids, NVLX_MECHANISM_COPY_ENGINE);
    char *on_gpu = (char *)life->mine + 8000;
    TRY(nvlx_memcpy(life->engine, on_gpu, both, sizeof both));
    ids.flags = NVLX_IDS_ON_GPU, ids.local = on_gpu, ids.remote = on_gpu + sizeof mine;
    move_blocks(life, blocks, &ids, NVLX_MECHANISM_AUTO);
    OK(nvlx_blocks_free(blocks));
}

/* From the owner in rows, by engines, by kernels, and prepared. */
static void work_in_rows(const struct life *life) {
    struct nvlx_rows rows = {100, 40, 50};
    struct nvlx_op op = make_op(NVLX_OP_READ, life->far, life->mine, find(life->far, "w"), 30);
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)&rows;
    memset(life->mine, 0, SIZE);
    transfer(life->engine, &op, 1, NULL, NVLX_MECHANISM_COPY_ENGINE);
    transfer(life->engine, &op, 1, life->stream, NVLX_MECHANISM_KERNEL);
    post(life->engine, &op, 1);
    for (size_t i = 0; i < 40 * rows.count; i++)
        EQUAL(i % 40 < 30 ? seed_byte(1, i / 40 * 50 + i % 40) : 0, ((uint8_t *)life->mine)[i]);
}

/* From the owner in many fragments, and from the other engine in one. */
static void work(const struct life *life) {
    static struct nvlx_op ops[FRAGMENTS];
    uint64_t far = find(life->far, "w"), near = find(life->near, "theirs");
    work_in_portions(life);
    work_by_ids(life);
    work_in_rows(life);
    for (size_t i = 0; i < FRAGMENTS; i++)
        ops[i] = make_op(NVLX_OP_READ, life->far, (char *)life->mine + 20 * i, far + 20 * i, 19);
    ops[FRAGMENTS - 1] = make_op(NVLX_OP_READ, life->near, (char *)life->mine + 20000, near + 20000, 10000);
    transfer(life->engine, ops, FRAGMENTS, life->stream, NVLX_MECHANISM_AUTO);
    for (size_t i = 0; i < FRAGMENTS - 1; i++)
        for (size_t j = 0; j < 19; j++)
            EQUAL(seed_byte(1, 20 * i + j), ((uint8_t *)life->mine)[20 * i + j]);
    for (size_t i = 20000; i < 30000; i++)
        EQUAL(seed_byte(2, i), ((uint8_t *)life->mine)[i]);
    transfer(life->engine, ops, FRAGMENTS, NULL, NVLX_MECHANISM_COPY_ENGINE);
    for (size_t i = 0; i < FRAGMENTS; i++)
        ops[i].opcode = NVLX_OP_WRITE;
    transfer(life->engine, ops, FRAGMENTS, NULL, NVLX_MECHANISM_AUTO);
    post(life->engine, ops, FRAGMENTS);
    transfer(life->engine, ops, 1, life->stream, NVLX_MECHANISM_KERNEL);
    EQUAL(0, owner_wrong(&owner, 0, 0, SIZE, 1));
    EQUAL(0, wrong(life->other, life->theirs, SIZE, 2));
}

static void digest(const struct life *life) {
    uint64_t first = 0, again = 0;
    TRY(nvlx_digest(life->engine, life->mine, SIZE, &first));
    TRY(nvlx_digest(life->engine, life->mine, SIZE, &again));
    EQUAL(first, again);
}

/* A region that the other engine has a digest of, in two ops. */
static void verify(const struct life *life) {
    const uint64_t near = find(life->near, "theirs");
    struct nvlx_transfer_options options;
    const struct nvlx_op ops[] = {
        make_op(NVLX_OP_READ, life->near, (char *)life->mine + SIZE / 2, near + SIZE / 2, SIZE / 2),
        make_op(NVLX_OP_READ, life->near, life->mine, near, SIZE / 2)};
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    transfer_by(life->engine, ops, COUNT(ops), &options);
    options.stream = life->stream;
    transfer_by(life->engine, ops, COUNT(ops), &options);
    EQUAL(0, wrong(life->engine, life->mine, SIZE, 2));
}

/* Asked until it is over. Where the fault hits the thread's look at the stream, that is how the wait has ended. */
static void await_stream(const struct life *life, uint64_t wait) {
    int code;
    do {
        arm(true);
        code = nvlx_stream_wait_status(life->engine, wait);
        arm(false);
    } while (code == NVLX_EAGAIN);
    EXPECT(code == 0 || code == NVLX_EDEVICE);
}

/* What the owner has there, as a count: lives to come look for it again. */
static uint64_t same_count(size_t offset) {
    uint8_t bytes[sizeof(uint64_t)];
    uint64_t count;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = seed_byte(1, offset + i);
    memcpy(&count, bytes, sizeof count);
    return count;
}

/* In a list, behind a stream, and awaited by one. */
static void signal_and_wait(const struct life *life) {
    const uint64_t near = find(life->near, "theirs");
    struct nvlx_transfer_options options;
    uint64_t wait, count = 0;
    const struct nvlx_op ops[] = {
        make_op(NVLX_OP_WRITE, life->near, life->mine, near, 100),
        {.opcode = NVLX_OP_SIGNAL, .peer = life->near, .remote = near + 200, .arg = 5},
        {.opcode = NVLX_OP_SIGNAL, .peer = life->far, .remote = find(life->far, "w") + 200, .arg = same_count(200)}};
    nvlx_transfer_options_init(&options);
    transfer_by(life->engine, ops, COUNT(ops), &options);
    post(life->engine, ops, COUNT(ops));
    TRY(nvlx_stream_signal(life->engine, life->stream, life->near, near + 208, 7, 0));
    memset(life->mine, 0, sizeof count);
    TRY(nvlx_stream_wait(life->engine, life->stream, life->near, life->mine, 1, NULL, &wait));
    __atomic_store_n((uint64_t *)life->mine, 1, __ATOMIC_RELEASE); /* as a stream of the peer would */
    await_stream(life, wait);
    TRY(nvlx_signal_read(life->engine, life->mine, &count));
    EQUAL(1, count);
    TRY(nvlx_signal_read(life->other, (char *)life->theirs + 200, &count));
    EQUAL(5, count);
    TRY(nvlx_signal_read(life->other, (char *)life->theirs + 208, &count));
    EQUAL(7, count);
}

static void change(struct life *life) {
    char *text;
    size_t length;
    struct nvlx_region *more = add(life->other, life->theirs, "more");
    TRY(nvlx_export(life->other, &text, &length));
    TRY(nvlx_peer_update(life->near, text, length));
    nvlx_text_free(text);
    EXPECT(find(life->near, "more"));
    TRY(nvlx_peer_update(life->far, owner_later, strlen(owner_later))); /* withdraws its segment */
    EQUAL(NVLX_ENOENT, nvlx_peer_find(life->far, "w", &(uint64_t){0}, &(uint64_t){0}));
    TRY(nvlx_unregister(more, 0));
}

/* Regions next to each other, within the others. */
static void crowd(struct life *life) {
    for (size_t i = 0; i < CROWD; i++)
        TRY(nvlx_register(life->engine, (char *)life->mine + 10 * i, 10, NULL, &life->crowd[i]));
    struct nvlx_op op = make_op(NVLX_OP_READ, life->near, life->mine, find(life->near, "theirs"), 10 * CROWD + 10);
    transfer(life->engine, &op, 1, NULL, NVLX_MECHANISM_AUTO);
    for (size_t i = 0; i < CROWD; i++)
        TRY(nvlx_unregister(life->crowd[i], 0));
    transfer(life->engine, &op, 1, NULL, NVLX_MECHANISM_AUTO);
}

static void die(struct life *life) {
    struct nvlx_request *left;
    struct nvlx_op op = make_op(NVLX_OP_READ, life->near, life->mine, find(life->near, "theirs"), SIZE);
    TRY(nvlx_transfer(life->engine, &op, 1, NULL, &left)); /* for destroy to wait for, and to free */
    HIT(nvlx_peer_close(life->near));
    HIT(nvlx_peer_close(life->far));
    TRY(nvlx_unregister(life->region, 0));
    HIT(nvlx_free(life->engine, life->mine));
    HIT(nvlx_engine_destroy(life->engine));
    HIT(nvlx_engine_destroy(life->other));
    nvlxi_device_host.lane_destroy(life->stream);
    nvlxi_device_host.close(life->device);
}

/* Runs the whole once; says whether the fault was reached. */
static bool live(void) {
    const int zero = 0;
    struct life life = {0};
    struct holdings before = holdings();
    size_t allocations = memory_live();
    failures = 0;
    atomic_store(&faults.calls, 0);
    atomic_store(&faults.fail_at, device_n);
    memory_fail_at(memory_n);
    OK(nvlxi_device_host.open(&zero, 1, &life.device));
    OK(nvlxi_device_host.lane_create(life.device, 0, 0, &life.stream));
    be_born(&life);
    work(&life);
    digest(&life);
    verify(&life);
    crowd(&life);
    signal_and_wait(&life);
    change(&life);
    die(&life);
    char when[80];
    snprintf(when, sizeof when, "device call %ld, allocation %ld", device_n, memory_n);
    expect_holdings(&before, when);
    if (memory_live() != allocations)
        FAIL("%s: %zd allocations leaked", when, (ssize_t)(memory_live() - allocations));
    return atomic_load(&faults.calls) < device_n || memory_allocations() < memory_n;
}

static void no_log(void *context, int level, const char *message) {
    (void)context, (void)level, (void)message;
}

static void begin(void) {
    OK(nvlx_set_log(NVLX_LOG_DEBUG, no_log, NULL));
    if (second_gpu() == 0) {
        printf("SKIP: two GPUs are needed\n");
        exit(77);
    }
    owner_start(&owner);
    owner_alloc(&owner, 0, 0, SIZE, 1);
    owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "w");
    owner_register(&owner, 1, 0, 0, 0, NVLX_ACCESS_READ_WRITE, "empty");
    owner_text = owner_export(&owner);
    OK(owner_unregister(&owner, 0));
    owner_later = owner_export(&owner);
    live(); /* what libraries allocate once */
    EQUAL(0, failures);
}

static void end(long runs, const char *what) {
    printf("           %ld %s\n", runs - 1, what);
    EXPECT(runs > 20 && runs < RUNS_MAX);
    free(owner_text);
    free(owner_later);
    owner_end(&owner);
}

static void every_device_call(void) {
    begin();
    for (device_n = 1; !live() && device_n < RUNS_MAX; device_n++)
        EXPECT(failures <= 1);
    end(device_n, "device calls failed, one at a time");
}

static void every_allocation(void) {
    int silent = 0;
    begin();
    for (memory_n = 1; !live() && memory_n < RUNS_MAX; memory_n++)
        silent += failures == 0;
    printf("           %d of them went unnoticed\n", silent);
    end(memory_n, "allocations failed, one at a time");
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"every_device_call", every_device_call}, {"every_allocation", every_allocation}, {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 150);
}
