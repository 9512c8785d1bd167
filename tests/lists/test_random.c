/* Random lists of ops between random regions, against a model: every byte of every buffer, after every list.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Destinations must not overlap within a list, nor what is read; so in each buffer the lower half is only read from,
 * the upper half only written to. Sources overlap as they like.
 *
 * NVLX_RANDOM_LISTS=N test_random long_fragments    as many lists as one has the patience for */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define REGIONS 12
#define OPS_MAX 600

static struct bench bench;
static uint64_t state;

static size_t below(size_t limit) {
    return limit ? next_random(&state) % limit : 0;
}

struct extent {
    int buffer;
    size_t offset, length;
};

/* Registered: here in `mine`, there in `theirs`. Half of them are in the lower halves, half in the upper. */
static struct extent mine[REGIONS], theirs[REGIONS];

static struct extent random_extent(bool upper) {
    size_t half = bench.size / 2, offset = below(half - 1), length = 1 + below(half - offset);
    return (struct extent){(int)below(2), (upper ? half : 0) + offset, length};
}

static void begin(uint64_t seed, size_t size) {
    state = seed;
    bench_begin(&bench, make_engine(0), size);
    for (uint32_t i = 0; i < REGIONS; i++) {
        bool upper = i % 2;
        mine[i] = random_extent(upper);
        theirs[i] = random_extent(upper);
        register_range(bench.engine, bench.local[mine[i].buffer] + mine[i].offset, mine[i].length, NULL,
                       (uint32_t)below(4));
        owner_register(&bench.owner, i, (uint32_t)theirs[i].buffer, theirs[i].offset, theirs[i].length,
                       upper ? NVLX_ACCESS_WRITE : NVLX_ACCESS_READ, NULL);
    }
    bench_open_peer(&bench);
}

/* How far the destinations of a list have got in each buffer: behind it all is free. */
struct cursor {
    size_t next[2];
};

/* A place for up to `length` bytes in the extent, behind the cursor; shortens it. */
static size_t take_place(struct cursor *cursor, const struct extent *extent, size_t *length) {
    size_t at = extent->offset > cursor->next[extent->buffer] ? extent->offset : cursor->next[extent->buffer];
    size_t end = extent->offset + extent->length;
    at += below(4) ? below(64) : 0;
    if (at >= end)
        at = end, *length = 0;
    if (*length > end - at)
        *length = end - at;
    if (*length)
        cursor->next[extent->buffer] = at + *length;
    return at;
}

/* Up to 1 MiB, each power of two as likely as the next. */
static size_t long_length(void) {
    return 1 + below((size_t)1 << below(21));
}

static size_t random_length(void) {
    switch (below(8)) {
    case 0:
        return below(3);
    case 1:
        return below(bench.size / 8);
    case 2:
        return 512;
    default:
        return below(300);
    }
}

static struct nvlx_op random_op(struct cursor *here, struct cursor *there, size_t (*length_of)(void)) {
    bool read = below(2);
    const struct extent *local = &mine[2 * below(REGIONS / 2) + (read ? 1 : 0)];
    const struct extent *remote = &theirs[2 * below(REGIONS / 2) + (read ? 0 : 1)];
    const struct extent *from = read ? remote : local, *to = read ? local : remote;
    size_t length = length_of(), source = below(from->length);
    if (length > from->length - source)
        length = from->length - source;
    size_t target = take_place(read ? here : there, to, &length);
    source += from->offset;
    return make_op(read ? NVLX_OP_READ : NVLX_OP_WRITE, bench.peer,
                   bench.local[local->buffer] + (read ? target : source),
                   bench.remote[remote->buffer] + (read ? source : target), length);
}

static void shuffle(struct nvlx_op *ops, size_t count) {
    for (size_t i = 1; i < count; i++) {
        const size_t other = below(i + 1);
        const struct nvlx_op kept = ops[i];
        ops[i] = ops[other];
        ops[other] = kept;
    }
}

static void post(const struct nvlx_op *ops, size_t count, const struct nvlx_transfer_options *options,
                 const char *when) {
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    OK(nvlx_prepare(bench.engine, ops, count, options, &prepared));
    OK(nvlx_post(prepared, NULL, &request));
    finish(request);
    OK(nvlx_prepared_free(prepared));
    bench_apply(&bench, ops, count);
    bench_compare(&bench, when);
}

static void run_lists(uint64_t seed, size_t size, size_t lists, size_t (*length_of)(void)) {
    static struct nvlx_op ops[OPS_MAX];
    char when[64];
    begin(seed, size);
    for (size_t list = 0; list < lists; list++) {
        struct cursor here = {{0}}, there = {{0}};
        size_t count = below(4) ? below(20) : below(OPS_MAX);
        for (size_t i = 0; i < count; i++)
            ops[i] = random_op(&here, &there, length_of);
        shuffle(ops, count);
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = (uint32_t)below(4);
        options.max_sms = (uint32_t)(below(8) ? below(8) : 64);
        options.priority = (int32_t)below(3) - 1;
        snprintf(when, sizeof when, "seed %llu, list %zu", (unsigned long long)seed, list);
        if (below(2))
            post(ops, count, &options, when);
        else
            bench_move(&bench, ops, count, &options, when);
    }
    bench_end(&bench);
}

static void small_buffers(void) {
    for (uint64_t seed = 1; seed <= (sanitized() ? 5 : 12); seed++)
        run_lists(seed, 20011, 30, random_length);
}

static void large_buffers(void) {
    run_lists(100, 12 * MIB, sanitized() ? 5 : 12, random_length);
    run_lists(101, 512 * KIB, sanitized() ? 20 : 60, random_length);
}

#define LISTS_A_SEED 100 /* then come other regions */

/* 10,000 on GPUs are the library's proof: NVLX_RANDOM_LISTS=10000. */
static size_t long_list_count(void) {
    const char *wanted = getenv("NVLX_RANDOM_LISTS");
    return wanted ? strtoul(wanted, NULL, 10) : sanitized() ? 5 : 20;
}

static void long_fragments(void) {
    const size_t count = long_list_count();
    uint64_t seed = 200;
    for (size_t done = 0; done < count; done += LISTS_A_SEED)
        run_lists(seed++, 6 * MIB + 12345, count - done < LISTS_A_SEED ? count - done : LISTS_A_SEED, long_length);
    printf("%zu lists of long fragments\n", count);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"small_buffers", small_buffers}, {"large_buffers", large_buffers}, {"long_fragments", long_fragments}, {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30 + (unsigned)(long_list_count() / 4));
}
