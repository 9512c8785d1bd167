/* What src/device.h promises, asked of every backend that is built in, with the same verdict wanted from each.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: device_contract           every backend; one that cannot run here is skipped, with its reason
 *        device_contract BACKEND   this one; exit code 77, after the reason, if it cannot run here */
#define _GNU_SOURCE
#include "device_contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CASE_SECONDS 120
#define SKIPPED      77

/* Where the verdicts differ, and why. */
static const struct difference {
    const char *backend, *what, *reason;
} differences[] = {
    {"host", "default streams", "they are CUDA's own; the host backend's streams are its lanes"},
    {"host", "other PID namespaces", "it reaches legacy memory through /proc, which shows one namespace only"},
};

static const struct {
    const struct contract_case *cases;
    const size_t *count;
} parts[] = {
    {memory_cases, &memory_case_count}, {kind_cases, &kind_case_count},     {refusal_cases, &refusal_case_count},
    {lane_cases, &lane_case_count},     {kernel_cases, &kernel_case_count}, {block_cases, &block_case_count},
    {border_cases, &border_case_count}, {digest_cases, &digest_case_count}, {rows_cases, &rows_case_count},
    {signal_cases, &signal_case_count}, {host_cases, &host_case_count},
};

/* ---- Helpers ----------------------------------------------------------------------------------------- */

const char *difference(const char *what) {
    for (size_t i = 0; i < NVLXI_COUNT(differences); i++)
        if (!strcmp(differences[i].what, what) && !strcmp(differences[i].backend, me.ops->name))
            return differences[i].reason;
    return NULL;
}

void need_two_gpus(void) {
    if (me.gpus >= 2)
        return;
    print_message("SKIP: this case needs two GPUs, and there is %d\n", me.gpus);
    skip();
}

struct message here(struct message message) {
    OK(work(&me, &message));
    return message;
}

uint64_t allocate(int gpu, uint64_t length) {
    return here((struct message){.errand = ERRAND_ALLOC, .gpu = gpu, .length = length}).address;
}

void release(uint64_t address) {
    here((struct message){.errand = ERRAND_FREE, .address = address});
}

void fill(uint64_t address, uint64_t length, uint8_t seed) {
    here((struct message){.errand = ERRAND_FILL, .address = address, .length = length, .seed = seed});
}

uint64_t wrong(uint64_t address, uint64_t length, uint8_t seed) {
    return here((struct message){.errand = ERRAND_CHECK, .address = address, .length = length, .seed = seed}).wrong;
}

struct nvlxi_allocation resolve(uint64_t address) {
    struct nvlxi_allocation found;
    OK(me.ops->resolve(me.device, address, &found));
    return found;
}

uint64_t map(int gpu, const struct nvlxi_segment_record *record) {
    return here((struct message){.errand = ERRAND_MAP, .gpu = gpu, .record = *record}).address;
}

void unmap(int gpu, uint64_t address) {
    here((struct message){.errand = ERRAND_UNMAP, .gpu = gpu, .address = address});
}

/* A segment of the peer's, on its GPU 0, filled. The record's base is its address there. */
struct nvlxi_segment_record peer_segment(uint64_t length, uint8_t seed) {
    struct message m = there((struct message){.errand = ERRAND_ALLOC, .length = length});
    m.errand = ERRAND_FILL;
    m.seed = seed;
    m = there(m);
    m.errand = ERRAND_EXPORT;
    return there(m).record;
}

void wait_for(struct nvlxi_event *event) {
    OK(await(me.ops, event));
}

/* ---- Desks -------------------------------------------------------------------------------------------- */

enum { SEED = 31, BLANK = 200 };

struct copy_desk copy_desk_make(size_t list_bytes) {
    struct copy_desk desk = {
        .from = allocate(0, COPY_DESK_BYTES), .to = allocate(0, COPY_DESK_BYTES), .expected = malloc(COPY_DESK_BYTES)};
    assert_non_null(desk.expected);
    OK(me.ops->lane_create(me.device, 0, 0, &desk.lane));
    OK(me.ops->event_create(me.device, 0, &desk.event));
    OK(me.ops->list_alloc(me.device, list_bytes, &desk.list));
    fill(desk.from, COPY_DESK_BYTES, SEED);
    return desk;
}

void copy_desk_free(const struct copy_desk *desk) {
    me.ops->list_free(me.device, desk->list);
    me.ops->event_destroy(desk->event);
    me.ops->lane_destroy(desk->lane);
    free(desk->expected);
    release(desk->from);
    release(desk->to);
}

void copy_desk_begin(const struct copy_desk *desk) {
    fill(desk->to, COPY_DESK_BYTES, BLANK);
    for (uint64_t i = 0; i < COPY_DESK_BYTES; i++)
        desk->expected[i] = seed_byte(BLANK, i);
}

void copy_desk_expect(const struct copy_desk *desk, uint64_t to, uint64_t from, uint64_t length) {
    assert_true(to - desk->to + length <= COPY_DESK_BYTES);
    for (uint64_t i = 0; i < length; i++)
        desk->expected[to - desk->to + i] = seed_byte(SEED, from - desk->from + i);
}

void copy_desk_finish(const struct copy_desk *desk) {
    uint8_t *got = malloc(COPY_DESK_BYTES);
    assert_non_null(got);
    OK(me.ops->event_record(desk->lane, desk->event));
    wait_for(desk->event);
    OK(me.ops->memcpy(me.device, got, (void *)(uintptr_t)desk->to, COPY_DESK_BYTES));
    assert_true(memcmp(got, desk->expected, COPY_DESK_BYTES) == 0);
    free(got);
}

/* ---- Running ------------------------------------------------------------------------------------------ */

static int begin_case(void **state) {
    (void)state;
    watchdog(CASE_SECONDS);
    return 0;
}

static int end_case(void **state) {
    (void)state;
    peer_kill();
    watchdog(0);
    return 0;
}

static int name_cases(const char *backend, struct CMUnitTest *tests) {
    size_t named = 0;
    for (size_t i = 0; i < NVLXI_COUNT(parts); i++) {
        for (size_t k = 0; k < *parts[i].count; k++) {
            char *name;
            if (asprintf(&name, "%s: %s", backend, parts[i].cases[k].name) < 0)
                return -1;
            tests[named++] = (struct CMUnitTest){name, parts[i].cases[k].function, begin_case, end_case, NULL};
        }
    }
    return 0;
}

static int run_cases(const char *backend) {
    size_t count = 0;
    int failed = 1;
    for (size_t i = 0; i < NVLXI_COUNT(parts); i++)
        count += *parts[i].count;
    struct CMUnitTest *tests = calloc(count, sizeof *tests);
    if (tests && !name_cases(backend, tests))
        failed = _cmocka_run_group_tests(backend, tests, count, NULL, NULL);
    for (size_t i = 0; tests && i < count; i++)
        free((char *)tests[i].name);
    free(tests);
    return failed;
}

/* How many cases failed, or SKIPPED. */
static int run_backend(const char *name) {
    const struct nvlxi_device_ops *ops = party_ops(name);
    if (!ops) {
        printf("SKIP: the %s backend is not built in\n", name);
        return SKIPPED;
    }
    if (party_open(ops, &me)) {
        printf("SKIP: the %s backend cannot run here: %s\n", name, nvlx_last_error());
        return SKIPPED;
    }
    for (size_t i = 0; i < NVLXI_COUNT(differences); i++)
        if (!strcmp(differences[i].backend, name))
            printf("known difference of %s: %s: %s\n", name, differences[i].what, differences[i].reason);
    int failed = run_cases(name);
    ops->close(me.device);
    return failed;
}

static int run_backends(int argc, char **argv) {
    static const char *const names[] = {"host", "cuda"};
    if (argc > 2 || (argc == 2 && strcmp(argv[1], "host") && strcmp(argv[1], "cuda"))) {
        fprintf(stderr, "usage: %s [host | cuda]\n", argv[0]);
        return 2;
    }
    if (argc == 2) {
        int failed = run_backend(argv[1]);
        return failed == SKIPPED ? SKIPPED : failed != 0;
    }
    bool bad = false;
    for (size_t i = 0; i < NVLXI_COUNT(names); i++) {
        int failed = run_backend(names[i]);
        bad |= failed && failed != SKIPPED;
    }
    return bad;
}

static const struct role roles[] = {PEER_ROLE, {0}};
const struct program program = {.roles = roles, .child_seconds = PEER_SECONDS, .run = run_backends};
