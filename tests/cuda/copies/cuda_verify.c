/* Verified pulls between two GPUs: a wrong byte is found, and what verifying costs.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: cuda_verify          2 GiB
 *        cuda_verify GiB      so much; the last lines tell the time of a pull with and without, by size of the regions
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/support/cuda_support.h"

#define GIB   ((size_t)1 << 30)
#define TIMES 11

/* How many regions the memory is cut into; all of these at the same time. */
static const uint32_t cuts[] = {1, 10, 160, 2560, 20480};
#define MOST 20480 /* of 10 GiB: by kernels, where they are spread */

static size_t region_length(size_t total, uint32_t count) {
    return total / count / 512 * 512; /* what is left over belongs to none */
}

static void region_name(char name[32], uint32_t count, uint32_t index) {
    snprintf(name, 32, "%" PRIu32 "/%" PRIu32, index, count);
}

/* ---- The owner ------------------------------------------------------------------------------------------ */

struct order { /* a byte that is to be turned over */
    uint64_t offset;
};

static void fill_randomly(struct nvlx_engine *engine, char *memory, size_t total) {
    const size_t length = 16 * MIB;
    uint64_t *words = malloc(length), state = 88172645463325252u;
    EXPECT(words != NULL);
    for (size_t done = 0; done < total; done += length) {
        for (size_t i = 0; i < length / sizeof *words; i += done ? 509 : 1) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            words[i] = state;
        }
        OK(nvlx_memcpy(engine, memory + done, words, total - done < length ? total - done : length));
    }
    free(words);
}

static void share(struct nvlx_engine *engine, char *memory, size_t total, uint32_t count) {
    const size_t length = region_length(total, count);
    struct nvlx_region_options options;
    struct nvlx_region *region;
    char name[32];
    nvlx_region_options_init(&options);
    options.access = NVLX_ACCESS_READ;
    options.name = name;
    for (uint32_t i = 0; i < count; i++) {
        region_name(name, count, i);
        OK(nvlx_register(engine, memory + i * length, length, &options, &region));
        OK(nvlx_region_set_digest(region, NULL));
    }
}

static void owner_process(int socket) {
    const int gpu = get_int(socket);
    const size_t total = (size_t)get_int(socket) * GIB;
    struct nvlx_engine *engine = engine_on(&gpu, 1);
    struct order order;
    char byte, *text;
    void *memory;
    size_t length;
    OK(nvlx_alloc(engine, gpu, total, NULL, &memory));
    fill_randomly(engine, memory, total);
    for (size_t i = 0; i < COUNT(cuts); i++)
        share(engine, memory, total, cuts[i]);
    OK(nvlx_export(engine, &text, &length));
    put_text(socket, text, length);
    nvlx_text_free(text);
    while (get_or_end(socket, &order, sizeof order)) {
        OK(nvlx_memcpy(engine, &byte, (char *)memory + order.offset, 1));
        byte = (char)~byte;
        OK(nvlx_memcpy(engine, (char *)memory + order.offset, &byte, 1));
        put(socket, &byte, 1);
    }
    OK(nvlx_engine_destroy(engine));
}

static void turn_over(struct child *owner, uint64_t offset) {
    const struct order order = {offset};
    char byte;
    put(owner->socket, &order, sizeof order);
    get(owner->socket, &byte, 1);
}

/* ---- The reader ----------------------------------------------------------------------------------------- */

struct pull {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    char *memory;
    size_t total;
    struct nvlx_op ops[MOST];
    uint32_t count;
};

/* `spread`: the regions lie elsewhere here than there, so that nothing is joined. */
static void cut(struct pull *pull, uint32_t count, bool spread) {
    const size_t length = region_length(pull->total, count);
    char name[32];
    for (uint32_t i = 0; i < count; i++) {
        const size_t place = spread ? (size_t)((uint64_t)i * 7 % count) : i;
        region_name(name, count, i);
        pull->ops[i] = make_op(NVLX_OP_READ, pull->peer, pull->memory + place * length, find(pull->peer, name), length);
    }
    pull->count = count;
}

struct times {
    double submit_us, ms; /* until the call returned, and until the end was seen */
};

/* Returns how it ended. */
static int run(const struct pull *pull, bool verify, struct times *times) {
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.flags = verify ? NVLX_VERIFY : 0;
    times->ms = now_ms();
    OK(nvlx_transfer(pull->engine, pull->ops, pull->count, &options, &request));
    int code = nvlx_wait(request, GPU_PATIENCE);
    times->ms = now_ms() - times->ms;
    OK(nvlx_request_get_info(request, &info));
    times->submit_us = (double)info.submit_ns / 1e3;
    EXPECT(nvlx_request_free(request) == code);
    return code;
}

/* One byte, turned over by the owner, makes its region the one that is named. */
static void expect_named(struct pull *pull, struct child *owner, uint32_t bad, uint64_t byte) {
    const uint64_t base = find(pull->peer, "0/1"), offset = pull->ops[bad].remote - base + byte;
    char words[128], name[32];
    struct times times;
    region_name(name, pull->count, bad);
    snprintf(words, sizeof words, "op %" PRIu32 ": what has arrived of the peer's region \"%s\"", bad, name);
    turn_over(owner, offset);
    OK(run(pull, false, &times));
    REFUSED(run(pull, true, &times), NVLX_EDIGEST, words);
    turn_over(owner, offset);
}

static void expect_found(struct pull *pull, struct child *owner) {
    const uint32_t last = pull->count - 1;
    const uint64_t length = pull->ops[0].length;
    struct times times;
    OK(run(pull, true, &times));
    expect_named(pull, owner, 0, 0);
    expect_named(pull, owner, last / 2, length - 1);
    expect_named(pull, owner, last / 3 * 2, length / 2 + 1);
    expect_named(pull, owner, last, length - 1);
    OK(run(pull, true, &times));
}

static int compare(const void *a, const void *b) {
    const struct times *x = a, *y = b;
    return (x->ms > y->ms) - (x->ms < y->ms);
}

/* In turn, so that both see the same machine. */
static void measure(const struct pull *pull, bool spread) {
    struct times plain[TIMES], verified[TIMES];
    for (int i = 0; i < TIMES; i++) {
        OK(run(pull, false, &plain[i]));
        OK(run(pull, true, &verified[i]));
    }
    qsort(plain, TIMES, sizeof *plain, compare);
    qsort(verified, TIMES, sizeof *verified, compare);
    const double bytes = (double)pull->count * (double)pull->ops[0].length;
    const struct times a = plain[TIMES / 2], b = verified[TIMES / 2];
    printf("%5" PRIu32 " regions of %8.1f MiB, %s: %8.3f ms (%5.1f GB/s), verified %8.3f ms: %+5.1f %%; submit %6.1f "
           "and %6.1f us\n",
           pull->count, (double)pull->ops[0].length / (double)MIB, spread ? "spread  " : "in order", a.ms,
           bytes / a.ms / 1e6, b.ms, 100 * (b.ms / a.ms - 1), a.submit_us, b.submit_us);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{"verify_owner", owner_process}, {NULL, NULL}};
    static struct pull pull;
    struct child owner;
    struct nvlx_region *region;
    void *memory;
    size_t length;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    const int gib = argc > 1 ? atoi(argv[1]) : 2, second = gpus_needed(1) > 1;
    pull.total = (size_t)(gib > 0 ? gib : 1) * GIB;
    cuda_child_start(&owner, "verify_owner", NULL);
    put_int(owner.socket, second);
    put_int(owner.socket, (int)(pull.total / GIB));
    pull.engine = engine_on_pair(0, 0);
    OK(nvlx_alloc(pull.engine, 0, pull.total, NULL, &memory));
    OK(nvlx_register(pull.engine, memory, pull.total, NULL, &region));
    pull.memory = memory;
    char *text = get_text(owner.socket, &length);
    OK(nvlx_peer_open(pull.engine, text, length, &pull.peer));
    free(text);
    for (size_t i = 0; i < COUNT(cuts); i++) {
        for (int spread = 0; spread < (cuts[i] > 1 ? 2 : 1); spread++) {
            cut(&pull, cuts[i], spread);
            expect_found(&pull, &owner);
            measure(&pull, spread);
        }
    }
    OK(nvlx_engine_destroy(pull.engine));
    child_end(&owner);
    return 0;
}
