/* What is registered: sub-allocated tensors, segments that are exported once, names, memory that is freed or allocated
 * again, registrations that fail. On the host backend, with faults on demand. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "faulty_device.h"

#define SIZE     (128 * KIB)
#define SHORT_NS INT64_C(20000000)
#define THREADS  16

static struct nvlx_engine *engine;
static char *memory; /* SIZE bytes on GPU 0 */

static void begin(void) {
    engine = make_faulty_engine(0);
    memory = allocate(engine, 0, SIZE, 1);
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
}

static struct nvlx_region *add(size_t offset, size_t length, const char *name) {
    return register_range(engine, memory + offset, length, name, NVLX_ACCESS_READ_WRITE);
}

/* Refused, with words in the message, and nothing written. */
static void refuse(const void *address, size_t length, const char *name, int code, const char *words) {
    struct nvlx_region *none = (struct nvlx_region *)&engine;
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = name;
    REFUSED(nvlx_register(engine, address, length, &options, &none), code, words);
    EXPECT(none == (struct nvlx_region *)&engine);
}

static void expect_counts(uint64_t segments, uint64_t regions, uint64_t handles) {
    EQUAL(segments, engine_info(engine).segments);
    EQUAL(regions, engine_info(engine).regions);
    EQUAL(handles, engine_info(engine).handles_exported);
    EQUAL(handles, atomic_load(&faults.exports));
}

static char *export(void) {
    char *text;
    size_t length;
    OK(nvlx_export(engine, &text, &length));
    EQUAL(strlen(text), length);
    return text;
}

static bool is_exported(const char *name) {
    char quoted[80], *text = export();
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    bool found = strstr(text, quoted) != NULL;
    nvlx_text_free(text);
    return found;
}

static struct nvlx_peer *open_self(void) {
    char *text = export();
    struct nvlx_peer *peer = open_peer(engine, text);
    nvlx_text_free(text);
    return peer;
}

static size_t occurrences(const char *text, const char *word) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, word)); at++)
        count++;
    return count;
}

/* ---- Tensors of other processes ------------------------------------------------------------------------ */

#define TENSORS 24

static struct tensor { size_t offset, length; } tensors[TENSORS];

/* At steps of 512 bytes in one segment, as an allocator hands them out: of any length, with gaps and without. */
static void lay_out(void) {
    static const size_t lengths[6] = {512, 1, 333, 1024, 4096, 700};
    size_t offset = 512;
    for (size_t i = 0; i < TENSORS; i++) {
        tensors[i] = (struct tensor){offset, lengths[i % 6]};
        offset += (lengths[i % 6] + 511) / 512 * 512 + (i % 4 == 0 ? 1536 : 0);
    }
    EXPECT(offset < SIZE);
}

/* The bench's buffers, with all tensors registered, here and in slot 0 of the owner. */
static void begin_tensors(struct bench *bench, struct nvlx_region *regions[TENSORS]) {
    char name[20];
    lay_out();
    bench_begin(bench, make_faulty_engine(0), SIZE);
    engine = bench->engine;
    for (uint32_t i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof name, "tensor %u", i);
        owner_register(&bench->owner, i, 0, tensors[i].offset, tensors[i].length, NVLX_ACCESS_READ_WRITE, name);
        regions[i] =
            register_range(engine, bench->local[0] + tensors[i].offset, tensors[i].length, name, NVLX_ACCESS_NONE);
    }
    bench_open_peer(bench);
}

static struct nvlx_op tensor_op(const struct bench *bench, uint32_t opcode, size_t local, size_t remote) {
    size_t length = tensors[local].length < tensors[remote].length ? tensors[local].length : tensors[remote].length;
    return make_op(opcode, bench->peer, bench->local[0] + tensors[local].offset,
                   bench->remote[0] + tensors[remote].offset, length);
}

static void tensors_arrive_byte_for_byte(void) {
    struct bench bench;
    struct nvlx_region *regions[TENSORS];
    struct nvlx_op ops[TENSORS];
    char name[20];
    begin_tensors(&bench, regions);
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(name, sizeof name, "tensor %zu", i);
        EQUAL(bench.remote[0] + tensors[i].offset, find(bench.peer, name));
        struct nvlx_op one = tensor_op(&bench, NVLX_OP_READ, i, i);
        bench_move(&bench, &one, 1, NULL, name);
    }
    for (size_t i = 0; i < TENSORS; i++)
        ops[i] = tensor_op(&bench, NVLX_OP_WRITE, i, (i + 5) % TENSORS);
    bench_move(&bench, ops, TENSORS, NULL, "all written, to other places");
    for (size_t i = 0; i < TENSORS; i++)
        ops[i] = tensor_op(&bench, NVLX_OP_READ, i, (i + 11) % TENSORS);
    bench_move(&bench, ops, TENSORS, NULL, "all read, from other places");
    expect_counts(1, TENSORS, 1);
    EQUAL(1, engine_info(engine).mappings);
    char *text = owner_export(&bench.owner);
    EQUAL(1, occurrences(text, "\"handle\""));
    free(text);
    bench_end(&bench);
}

static void neighbours_stay(void) {
    struct bench bench;
    struct nvlx_region *regions[TENSORS];
    struct nvlx_request *none;
    begin_tensors(&bench, regions);
    for (uint32_t gone = 0; gone < TENSORS; gone++) {
        OK(owner_unregister(&bench.owner, gone));
        OK(nvlx_unregister(regions[gone], 0));
        bench_open_peer(&bench);
        struct nvlx_op there = tensor_op(&bench, NVLX_OP_READ, TENSORS - 1, gone);
        REFUSED(nvlx_transfer(engine, &there, 1, NULL, &none), NVLX_ERANGE, "op 0");
        struct nvlx_op here = tensor_op(&bench, NVLX_OP_READ, gone, TENSORS - 1);
        REFUSED(nvlx_transfer(engine, &here, 1, NULL, &none), NVLX_ERANGE, "op 0: local");
        EQUAL(TENSORS - 1 - gone, engine_info(engine).regions);
        for (size_t i = gone + 1; i < TENSORS; i++) {
            struct nvlx_op one = tensor_op(&bench, i % 2 ? NVLX_OP_READ : NVLX_OP_WRITE, i, i);
            finish(start(engine, &one, 1));
            bench_apply(&bench, &one, 1);
        }
        bench_compare(&bench, "after one of the tensors was unregistered");
    }
    expect_counts(0, 0, 1);
    expect_mappings(engine, 0);
    bench_end(&bench);
}

/* Between engines of one process, on the same GPU and on another, also where both sides are the same engine. */
static void tensors_of_the_own_process(void) {
    struct nvlx_engine *other;
    begin();
    other = make_engine(0);
    lay_out();
    char *text, *theirs = allocate(other, second_gpu(), SIZE, 2), *mine = allocate(engine, 0, SIZE, 3);
    size_t length;
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
    for (size_t i = 0; i < TENSORS; i++) {
        add(tensors[i].offset, tensors[i].length, NULL);
        register_range(other, theirs + tensors[i].offset, tensors[i].length, NULL, NVLX_ACCESS_READ);
    }
    OK(nvlx_export(other, &text, &length));
    struct nvlx_peer *self = open_self(), *peer = open_peer(engine, text);
    nvlx_text_free(text);
    for (size_t i = 0; i < TENSORS; i++) {
        size_t offset = tensors[i].offset;
        struct nvlx_op ops[3] = {
            make_op(NVLX_OP_READ, self, mine, (uint64_t)(uintptr_t)memory + offset, tensors[i].length),
            make_op(NVLX_OP_READ, self, NULL, 0, 0),
            make_op(NVLX_OP_READ, peer, mine + SIZE / 2, (uint64_t)(uintptr_t)theirs + offset, tensors[i].length)};
        finish(start(engine, ops, 3));
        for (size_t j = 0; j < tensors[i].length; j++) {
            EQUAL(seed_byte(1, offset + j), (uint8_t)mine[j]);
            EQUAL(seed_byte(2, offset + j), (uint8_t)mine[SIZE / 2 + j]);
        }
    }
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(other));
    end();
}

/* ---- Segments ------------------------------------------------------------------------------------------ */

static void segments_are_exported_once(void) {
    enum { SEGMENTS = 3, REGIONS = 50 };
    struct nvlx_region *regions[SEGMENTS][REGIONS];
    begin();
    for (size_t i = 0; i < SEGMENTS; i++) {
        char *base = allocate(engine, i % 2 ? second_gpu() : 0, SIZE, 1);
        for (size_t j = 0; j < REGIONS; j++)
            regions[i][j] = register_range(engine, base + 512 * j, 512, NULL, NVLX_ACCESS_READ);
    }
    expect_counts(SEGMENTS, SEGMENTS * REGIONS, SEGMENTS);
    char *text = export();
    EQUAL(SEGMENTS, occurrences(text, "\"handle\""));
    nvlx_text_free(text);
    for (size_t j = 0; j < REGIONS; j++) {
        for (size_t i = 0; i < SEGMENTS; i++) {
            EQUAL(SEGMENTS, engine_info(engine).segments + (j == REGIONS - 1 ? i : 0));
            OK(nvlx_unregister(regions[i][j], 0));
        }
    }
    expect_counts(0, 0, SEGMENTS);
    add(0, 1, NULL);
    add(SIZE - 1, 1, NULL);
    expect_counts(1, 2, SEGMENTS + 1);
    end();
}

static void registered_twice(void) {
    begin();
    char *mine = allocate(engine, 0, SIZE, 2);
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
    struct nvlx_region *first = add(100, 1000, "first"), *second = add(100, 1000, "second");
    EXPECT(first != second);
    struct nvlx_peer *peer = open_self();
    uint64_t address = find(peer, "second");
    EQUAL(address, find(peer, "first"));
    OK(nvlx_unregister(first, 0));
    char *text = export();
    OK(nvlx_peer_update(peer, text, strlen(text)));
    nvlx_text_free(text);
    move(engine, NVLX_OP_READ, peer, mine, find(peer, "second"), 1000);
    for (size_t i = 0; i < 1000; i++)
        EQUAL(seed_byte(1, 100 + i), (uint8_t)mine[i]);
    OK(nvlx_unregister(second, 0));
    EXPECT(!is_exported("first") && !is_exported("second"));
    expect_counts(1, 1, 2);
    end();
}

static void *register_at_once(void *argument) {
    size_t i = (size_t)(uintptr_t)argument;
    add(512 * i, 512, NULL);
    return NULL;
}

/* Exporting takes a while: the others must wait for it, and use the one handle. */
static void threads_export_once(void) {
    begin();
    atomic_store(&faults.export_delay_us, 20000);
    for (uint64_t round = 1; round <= 5; round++) {
        pthread_t threads[THREADS];
        for (size_t i = 0; i < THREADS; i++)
            EQUAL(0, pthread_create(&threads[i], NULL, register_at_once, (void *)(uintptr_t)i));
        for (size_t i = 0; i < THREADS; i++)
            EQUAL(0, pthread_join(threads[i], NULL));
        expect_counts(round, round * THREADS, round);
        char *text = export();
        EQUAL(round, occurrences(text, "\"handle\""));
        EQUAL(round * THREADS, occurrences(text, "\"]"));
        nvlx_text_free(text);
        memory = allocate(engine, 0, SIZE, 1);
    }
    end();
}

static void many_tensors(void) {
    enum { SEGMENTS = 500, EACH = 200, ALL = SEGMENTS * EACH };
    struct nvlx_region **regions = calloc(ALL, sizeof(*regions));
    char *bases[SEGMENTS], name[40];
    EXPECT(regions != NULL);
    begin();
    for (size_t i = 0; i < SEGMENTS; i++)
        OK(nvlx_alloc(engine, i % 2 ? second_gpu() : 0, EACH * 512, NULL, (void **)&bases[i]));
    double since = now_ms();
    for (size_t i = 0; i < ALL; i++) {
        snprintf(name, sizeof name, "layers.%zu.weight", i);
        regions[i] = register_range(engine, bases[i % SEGMENTS] + i / SEGMENTS * 512, 500, name, NVLX_ACCESS_READ);
    }
    double registered = now_ms();
    char *text = export();
    double exported = now_ms();
    expect_counts(SEGMENTS, ALL, SEGMENTS);
    EQUAL(SEGMENTS, occurrences(text, "\"handle\""));
    struct nvlx_peer *peer = open_peer(engine, text);
    double opened = now_ms();
    for (size_t i = 0; i < ALL; i += 7919) {
        snprintf(name, sizeof name, "layers.%zu.weight", i);
        EQUAL((uintptr_t)bases[i % SEGMENTS] + i / SEGMENTS * 512, find(peer, name));
    }
    printf("           %d tensors: registered in %.0f ms, exported in %.0f ms (%zu bytes), opened in %.0f ms\n", ALL,
           registered - since, exported - registered, strlen(text), opened - exported);
    EXPECT(strlen(text) < ALL * 150);
    nvlx_text_free(text);
    OK(nvlx_peer_close(peer));
    for (size_t i = 0; i < ALL; i++)
        OK(nvlx_unregister(regions[i * 7919 % ALL], 0));
    expect_counts(0, 0, SEGMENTS);
    free(regions);
    end();
}

/* ---- Memory that is freed ------------------------------------------------------------------------------ */

static void unregistering_after_free(void) {
    struct nvlx_region *regions[3];
    struct nvlx_request *none;
    begin();
    struct holdings before = holdings();
    char *freed = allocate(engine, 0, SIZE, 2);
    for (size_t i = 0; i < 3; i++)
        regions[i] = register_range(engine, freed + 1000 * i, 500, i ? NULL : "freed", NVLX_ACCESS_READ_WRITE);
    add(0, 1000, "stays");
    struct nvlx_peer *peer = open_self();
    uint64_t stays = find(peer, "stays");
    OK(nvlx_unregister(regions[1], 0));
    OK(nvlx_free(engine, freed));
    EXPECT(!is_exported("freed") && is_exported("stays"));
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, freed, stays, 10);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: local");
    refuse(freed, 10, NULL, NVLX_ENOTSUP, "");
    expect_counts(2, 3, 2);
    OK(nvlx_unregister(regions[0], 0));
    OK(nvlx_unregister(regions[2], PATIENCE));
    expect_counts(1, 1, 2);
    EXPECT(is_exported("stays"));
    expect_holdings(&before, "freed, then unregistered");
    end();
}

/* At the same address: another segment. The old region covers all of it, the new one half; only the new one counts,
 * from the first transfer on, be it before any export. */
static void memory_allocated_again(void) {
    struct nvlx_request *none;
    begin();
    char *source = allocate(engine, 0, SIZE, 2);
    register_range(engine, source, SIZE, "source", NVLX_ACCESS_READ);
    struct nvlx_region *old = add(0, SIZE, "old");
    struct nvlx_peer *self = open_self();
    uint64_t there = find(self, "source");
    OK(nvlx_free(engine, memory));
    EXPECT(allocate(engine, 0, SIZE, 3) == (void *)memory);
    struct nvlx_region *young = add(0, SIZE / 2, "young");
    expect_counts(3, 3, 3);
    struct nvlx_op op = make_op(NVLX_OP_READ, self, memory + SIZE / 2 - 1, there, 2);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: local");
    op.length = 1;
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = start(engine, &op, 1);
    REFUSED(nvlx_unregister(young, 0), NVLX_ETIMEDOUT, "in flight");
    OK(nvlx_unregister(old, 0));
    atomic_store(&faults.hold, false);
    finish(request);
    EQUAL(seed_byte(2, 0), (uint8_t)memory[SIZE / 2 - 1]);
    EQUAL(0, wrong(engine, memory, SIZE / 2 - 1, 3));
    EXPECT(!is_exported("young") && !is_exported("old")); /* withdrawn, both */
    OK(nvlx_unregister(young, 0));
    expect_counts(1, 1, 3);
    end();
}

static uint64_t exported_serial(void) {
    static const char key[] = "\"serial\":\"";
    char *text = export();
    const char *at = strstr(text, key);
    EXPECT(at != NULL);
    uint64_t serial = strtoull(at + sizeof key - 1, NULL, 16);
    nvlx_text_free(text);
    return serial;
}

static void serials_and_names_of_old_memory(void) {
    begin();
    struct nvlx_region *old = add(0, SIZE, "w");
    uint64_t serial = exported_serial();
    OK(nvlx_free(engine, memory));
    EXPECT(allocate(engine, 0, SIZE, 4) == (void *)memory);
    add(0, SIZE, "young");
    EXPECT(exported_serial() > serial); /* never the same again */
    EXPECT(is_exported("young") && !is_exported("w"));
    refuse(memory, 10, "w", NVLX_EEXIST, "\"w\""); /* the name is the old region's until it is dropped */
    OK(nvlx_unregister(old, 0));
    add(0, 10, "w");
    EXPECT(is_exported("w"));
    end();
}

/* ---- What is refused ----------------------------------------------------------------------------------- */

static void regions_of_no_bytes(void) {
    uint64_t address, length;
    struct nvlx_region *region;
    begin();
    OK(nvlx_register(engine, NULL, 0, NULL, &region));
    register_range(engine, "host memory", 0, "no bytes", NVLX_ACCESS_READ);
    register_range(engine, (void *)UINTPTR_MAX, 0, NULL, NVLX_ACCESS_NONE);
    struct nvlx_region *inside = add(100, 0, "inside");
    refuse(NULL, 0, "no bytes", NVLX_EEXIST, "no bytes");
    expect_counts(0, 4, 0);
    struct nvlx_peer *peer = open_self();
    OK(nvlx_peer_find(peer, "no bytes", &address, &length));
    EQUAL(0, length);
    OK(nvlx_peer_find(peer, "inside", &address, &length));
    EQUAL(0, length);
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, memory + 100, address, 0);
    finish(start(engine, &op, 1));
    op.length = 1;
    struct nvlx_request *none;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: local");
    OK(nvlx_unregister(inside, 0));
    OK(nvlx_unregister(region, 0));
    expect_counts(0, 2, 0);
    EXPECT(!is_exported("inside") && is_exported("no bytes"));
    end();
}

static void names(void) {
    static const char *const bad[] = {
        "",     "\xff",      "a\xc3", "\xc3(",   "\xc1\xa1", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\x80", "new\nline", "\x7f",  "\xc2\x85"};
    char name[257];
    begin();
    for (size_t i = 0; i < COUNT(bad); i++)
        refuse(memory, 10, bad[i], NVLX_EINVAL, "is not UTF-8 of 1 to 255 bytes");
    memset(name, 'n', 256);
    name[256] = '\0';
    refuse(memory, 10, name, NVLX_EINVAL, "of 256 bytes");
    name[255] = '\0';
    struct nvlx_region *longest = add(0, 10, name);
    name[0] = 'N'; /* it was copied */
    struct nvlx_region *another = add(0, 10, name);
    struct nvlx_peer *peer = open_self();
    EQUAL((uintptr_t)memory, find(peer, name));
    name[0] = 'n';
    EQUAL((uintptr_t)memory, find(peer, name));
    refuse(memory + 20, 10, name, NVLX_EEXIST, name);
    OK(nvlx_unregister(longest, 0));
    longest = add(20, 10, name);
    refuse(memory, 10, name, NVLX_EEXIST, name);
    OK(nvlx_unregister(another, 0));
    OK(nvlx_unregister(longest, 0));
    add(0, 10, "\xf0\x9f\x98\x80 \xe2\x82\xac \"\\/");
    add(0, 10, NULL);
    add(0, 10, NULL);
    expect_counts(1, 3, 2);
    end();
}

/* However a registration fails, what others have registered stays as it is: the descriptor is the same to the byte. */
static void failures_roll_back_nothing_of_others(void) {
    char *fresh, name[8];
    begin();
    fresh = allocate(engine, 0, SIZE, 2);
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "%d", i);
        add((size_t)512 * (size_t)i, 512, name);
    }
    char *before = export();
    uint64_t exports = engine_info(engine).handles_exported;
    refuse(memory, SIZE + 1, "8", NVLX_ERANGE, "");
    refuse(memory + 512, 512, "3", NVLX_EEXIST, "\"3\"");
    refuse(fresh, 512, "3", NVLX_EEXIST, "\"3\""); /* in a segment of its own: exported for nothing, and dropped */
    refuse("host", 4, "8", NVLX_ENOTSUP, "");
    refuse(memory, 10, "\xff", NVLX_EINVAL, "");
    for (long call = 1; call <= 3; call++) { /* resolve, uuid, export_handle */
        atomic_store(&faults.fail_at, atomic_load(&faults.calls) + call);
        refuse(fresh, 512, "8", NVLX_EDEVICE, "on purpose");
    }
    atomic_store(&faults.fail_at, atomic_load(&faults.calls) + 1);
    refuse(memory, 512, "8", NVLX_EDEVICE, "on purpose");
    EQUAL(1, engine_info(engine).segments);
    EQUAL(8, engine_info(engine).regions);
    EQUAL(exports + 1, engine_info(engine).handles_exported);
    char *after = export();
    EXPECT(!strcmp(before, after));
    nvlx_text_free(before);
    nvlx_text_free(after);
    register_range(engine, fresh, 512, "8", NVLX_ACCESS_READ);
    EQUAL(2, engine_info(engine).segments);
    EXPECT(is_exported("8") && is_exported("0"));
    end();
}

/* What a driver says of the second chunk is passed on; that a chunk is the last one is a word on the range. */
static void ranges_over_chunks(void) {
    struct nvlx_alloc_options options;
    void *chunks;
    begin();
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = 2 * MIB;
    OK(nvlx_alloc(engine, 0, 6 * MIB, &options, &chunks));
    refuse(chunks, 6 * MIB + 1, NULL, NVLX_ERANGE, "beyond its allocation's end");
    atomic_store(&faults.fail_at, atomic_load(&faults.calls) + 2);
    refuse((char *)chunks + 1, 4 * MIB, NULL, NVLX_EDEVICE, "on purpose");
    EQUAL(0, engine_info(engine).segments);
    register_range(engine, (char *)chunks + 1, 4 * MIB, NULL, NVLX_ACCESS_READ);
    EQUAL(3, engine_info(engine).segments);
    end();
}

/* ---- Access, and what is in flight --------------------------------------------------------------------- */

static void private_regions(void) {
    struct nvlx_request *none;
    begin();
    struct nvlx_region *shared = add(0, 1000, "shared");
    register_range(engine, memory + 1000, 1000, "private", NVLX_ACCESS_NONE);
    char *alone = allocate(engine, 0, SIZE, 2);
    register_range(engine, alone, SIZE, "alone", NVLX_ACCESS_NONE);
    EXPECT(!is_exported("private") && !is_exported("alone") && is_exported("shared"));
    char *text = export();
    EQUAL(1, occurrences(text, "\"handle\"")); /* nor is a segment told that has nothing else */
    nvlx_text_free(text);
    struct nvlx_peer *self = open_self();
    uint64_t there = find(self, "shared");
    struct nvlx_op op = make_op(NVLX_OP_READ, self, alone, there + 999, 2);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: the peer's range");
    op = make_op(NVLX_OP_WRITE, self, alone, there + 1000, 1);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: the peer's range");
    move(engine, NVLX_OP_READ, self, memory + 1000, there, 1000);
    EQUAL(0, wrong(engine, memory + 1000, 1000, 1));
    move(engine, NVLX_OP_WRITE, self, alone, there, 1000);
    EQUAL(0, wrong(engine, memory, 1000, 2));
    refuse(memory, 10, "private", NVLX_EEXIST, "private");
    OK(nvlx_unregister(shared, 0));
    text = export();
    EQUAL(0, occurrences(text, "\"handle\""));
    nvlx_text_free(text);
    end();
}

/* Bytes that a transfer in flight uses keep every region over them, and no other. */
static void busy_regions(void) {
    pthread_t thread;
    begin();
    struct nvlx_region *used = add(0, 1000, NULL), *over = add(400, 1000, NULL), *beside = add(1000, 500, NULL);
    add(4000, 1000, "there");
    struct nvlx_peer *self = open_self();
    struct nvlx_op op = make_op(NVLX_OP_WRITE, self, memory + 500, find(self, "there"), 500);
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = start(engine, &op, 1);
    REFUSED(nvlx_unregister(used, 0), NVLX_ETIMEDOUT, "1000 bytes");
    double since = now_ms();
    REFUSED(nvlx_unregister(used, SHORT_NS), NVLX_ETIMEDOUT, "in flight");
    EXPECT(now_ms() - since >= 19 && now_ms() - since < 5000);
    REFUSED(nvlx_unregister(over, 0), NVLX_ETIMEDOUT, "in flight");
    OK(nvlx_unregister(beside, 0));
    EQUAL(1, engine_info(engine).regions); /* what is withdrawn is not registered any more */
    EQUAL(0, pthread_create(&thread, NULL, release_later, NULL));
    since = now_ms();
    OK(nvlx_unregister(used, -1));
    EXPECT(now_ms() - since >= 45);
    EQUAL(0, pthread_join(thread, NULL));
    finish(request);
    OK(nvlx_unregister(over, 0));
    for (size_t i = 0; i < 500; i++)
        EQUAL(seed_byte(1, 500 + i), (uint8_t)memory[4000 + i]);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"tensors_arrive_byte_for_byte", tensors_arrive_byte_for_byte},
                                        {"neighbours_stay", neighbours_stay},
                                        {"tensors_of_the_own_process", tensors_of_the_own_process},
                                        {"segments_are_exported_once", segments_are_exported_once},
                                        {"registered_twice", registered_twice},
                                        {"threads_export_once", threads_export_once},
                                        {"many_tensors", many_tensors},
                                        {"unregistering_after_free", unregistering_after_free},
                                        {"memory_allocated_again", memory_allocated_again},
                                        {"serials_and_names_of_old_memory", serials_and_names_of_old_memory},
                                        {"regions_of_no_bytes", regions_of_no_bytes},
                                        {"names", names},
                                        {"failures_roll_back_nothing_of_others", failures_roll_back_nothing_of_others},
                                        {"ranges_over_chunks", ranges_over_chunks},
                                        {"private_regions", private_regions},
                                        {"busy_regions", busy_regions},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
