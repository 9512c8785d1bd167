/* Registrations beside transfers, memory that is freed under its regions, and how much can be told to peers. On the
 * host backend, with faults on demand. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faulty_device.h"
#include "local/registration.h"
#include "support.h"

#define SIZE (128 * KIB)

/* ---- Memory that is freed under its regions ------------------------------------------------------------ */

static struct nvlx_engine *engine;
static char *mine; /* SIZE bytes, registered */
static struct nvlx_peer *self;
static uint64_t there; /* where the peer has them */

static void begin(void) {
    char *text;
    size_t length;
    engine = make_faulty_engine(0);
    mine = allocate(engine, 0, SIZE, 1);
    register_range(engine, mine, SIZE, "mine", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_export(engine, &text, &length));
    self = open_peer(engine, text);
    nvlx_text_free(text);
    there = find(self, "mine");
}

static bool is_exported(const char *name) {
    char quoted[80], *text;
    size_t length;
    OK(nvlx_export(engine, &text, &length));
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    bool found = strstr(text, quoted) != NULL;
    nvlx_text_free(text);
    return found;
}

static char *allocate_kind(uint32_t kind, size_t length) {
    struct nvlx_alloc_options options;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = kind;
    options.chunk_length = kind == NVLX_ALLOC_VMM ? 2 * MIB : 0;
    OK(nvlx_alloc(engine, 0, length, &options, &address));
    return address;
}

static void refuse_local(const char *address) {
    struct nvlx_request *none;
    struct nvlx_op op = make_op(NVLX_OP_READ, self, (void *)(uintptr_t)address, there, 10);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: local");
    struct nvlx_prepared *prepared;
    REFUSED(nvlx_prepare(engine, &op, 1, NULL, &prepared), NVLX_ERANGE, "or was freed");
}

/* No own op reaches it, no descriptor names it, and its regions can be unregistered: of every kind, over chunks too, of
 * which the first and the last are not whole. */
static void regions_end_with_their_memory(void) {
    static const uint32_t kinds[] = {0, NVLX_ALLOC_VMM, NVLX_ALLOC_POOL};
    begin();
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const size_t length = 5 * MIB;
        char *freed = allocate_kind(kinds[i], length), *other = allocate_kind(kinds[i], length);
        struct nvlx_region *regions[4] = {register_range(engine, freed, length, "whole", NVLX_ACCESS_READ),
                                          register_range(engine, freed + MIB, 10, "part", NVLX_ACCESS_READ_WRITE),
                                          register_range(engine, freed + length - 1, 1, NULL, NVLX_ACCESS_NONE),
                                          register_range(engine, other, length, "other", NVLX_ACCESS_READ)};
        move(engine, NVLX_OP_READ, self, freed + 100, there, 1000);
        uint64_t segments = engine_info(engine).segments;
        OK(nvlx_free(engine, freed));
        EQUAL(segments, engine_info(engine).segments);
        refuse_local(freed);
        refuse_local(freed + MIB);
        refuse_local(freed + length - 10);
        move(engine, NVLX_OP_READ, self, other + 100, there, 1000);
        EXPECT(!is_exported("whole") && !is_exported("part") && is_exported("other") && is_exported("mine"));
        REFUSED(nvlx_free(engine, freed), NVLX_EINVAL, "freed before");
        for (size_t j = 0; j < COUNT(regions); j++)
            OK(nvlx_unregister(regions[j], 0));
        EQUAL(1, engine_info(engine).segments);
        OK(nvlx_free(engine, other));
    }
    OK(nvlx_engine_destroy(engine));
}

/* While it is in use it stays, with its regions. */
static void memory_in_use_stays(void) {
    struct nvlx_prepared *prepared;
    begin();
    char *used = allocate(engine, 0, SIZE, 2);
    struct nvlx_region *region = register_range(engine, used, SIZE, "used", NVLX_ACCESS_READ);
    struct nvlx_op op = make_op(NVLX_OP_READ, self, used + 10, there, 1000);
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = start(engine, &op, 1);
    REFUSED(nvlx_free(engine, used), NVLX_EBUSY, "in flight");
    REFUSED(nvlx_free(engine, mine), NVLX_EBUSY, "in flight");
    atomic_store(&faults.hold, false);
    finish(request);
    OK(nvlx_prepare(engine, &op, 1, NULL, &prepared));
    REFUSED(nvlx_free(engine, used), NVLX_EBUSY, "prepared list");
    REFUSED(nvlx_free(engine, mine), NVLX_EBUSY, "prepared list");
    EXPECT(is_exported("used") && is_exported("mine"));
    move(engine, NVLX_OP_READ, self, used, there, SIZE);
    EQUAL(0, wrong(engine, used, SIZE, 1));
    OK(nvlx_prepared_free(prepared));
    OK(nvlx_free(engine, used));
    refuse_local(used);
    OK(nvlx_unregister(region, 0));
    OK(nvlx_engine_destroy(engine));
}

/* What is allocated at the same address then is as good as any, also while the old regions are still there. */
static void freed_and_allocated_again(void) {
    begin();
    for (uint32_t round = 0; round < 20; round++) {
        char *memory = allocate(engine, 0, SIZE, 3);
        struct nvlx_region *old = register_range(engine, memory, SIZE, "old", NVLX_ACCESS_READ);
        OK(nvlx_free(engine, memory));
        EXPECT(allocate(engine, 0, SIZE, 4) == (void *)memory);
        refuse_local(memory);
        struct nvlx_region *young = register_range(engine, memory, SIZE / 2, "young", NVLX_ACCESS_READ);
        refuse_local(memory + SIZE / 2 - 5);
        move(engine, NVLX_OP_READ, self, memory, there, SIZE / 2);
        EQUAL(0, wrong(engine, memory, SIZE / 2, 1));
        EXPECT(is_exported("young") && !is_exported("old"));
        OK(nvlx_unregister(round % 2 ? old : young, 0));
        OK(nvlx_free(engine, memory));
        OK(nvlx_unregister(round % 2 ? young : old, 0));
    }
    OK(nvlx_engine_destroy(engine));
}

/* Who follows learns of it without anything else being registered. */
static void followers_are_told(void) {
    struct owner owner;
    struct nvlx_peer *peer;
    uint64_t address, length;
    char path[60];
    snprintf(path, sizeof path, "@nvlx-freed-%d", (int)getpid());
    begin();
    owner_start(&owner);
    uint64_t remote = owner_alloc(&owner, 0, 0, SIZE, 5);
    owner_register(&owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "w");
    OK(owner_serve(&owner, path, 0));
    OK(nvlx_connect(engine, path, PATIENCE, &peer));
    move(engine, NVLX_OP_READ, peer, mine, find(peer, "w"), SIZE);
    EQUAL(0, wrong(engine, mine, SIZE, 5));
    OK(owner_free(&owner, 0));
    for (double since = now_ms(); nvlx_peer_find(peer, "w", &address, &length) == 0;) {
        EXPECT(now_ms() - since < 10000);
        usleep(1000);
    }
    struct nvlx_request *none;
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, remote, 10);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: the peer's range");
    OK(owner_unregister(&owner, 0));
    OK(nvlx_engine_destroy(engine));
    owner_end(&owner);
}

/* ---- How much can be told ------------------------------------------------------------------------------ */

static struct nvlxi_registration registration;
static struct nvlxi_tables tables;
static struct nvlxi_context context = {.ops = &nvlxi_device_host, .tables = &tables};

static void begin_registration(void) {
    nvlxi_tables_init(&tables);
    OK(nvlxi_device_host.open(NULL, 0, &context.device));
    OK(nvlxi_registration_init(&registration, &context));
    EQUAL(NVLXI_REGIONS_MAX, registration.limits.regions);
    EQUAL(NVLXI_SEGMENTS_MAX, registration.limits.segments);
    EQUAL(NVLXI_TEXT_MAX, registration.limits.text);
}

static char *allocate_segment(void) {
    const struct nvlxi_alloc alloc = {.length = SIZE, .kind = NVLXI_KIND_CUDA_MALLOC};
    void *memory;
    OK(nvlxi_device_host.alloc(context.device, &alloc, &memory));
    return memory;
}

static int add(const char *address, size_t length, uint32_t access, const char *name, struct nvlx_region **region) {
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.access = access;
    options.name = name;
    return nvlxi_registration_add(&registration, (uint64_t)(uintptr_t)address, length, &options, region);
}

static uint32_t no_user(void *context, uint64_t address, uint64_t length) {
    (void)context, (void)address, (void)length;
    return NVLXI_NOBODY;
}

static void drop(struct nvlx_region *region) {
    OK(nvlxi_registration_withdraw(&registration, region, no_user, NULL));
    nvlxi_registration_free_region(&registration, region);
}

/* The text of all that is told; to be freed. */
static char *text_of_all(size_t *length) {
    struct nvlxi_descriptor descriptor = {.backend = "host"};
    char *text;
    memset(descriptor.address, 'a', sizeof descriptor.address - 1);
    descriptor.address[0] = '@';
    memset(descriptor.identity.boot_id, 'b', sizeof descriptor.identity.boot_id - 1);
    memset(descriptor.identity.engine, 'c', sizeof descriptor.identity.engine - 1);
    OK(nvlxi_registration_records(&registration, &descriptor));
    OK(nvlxi_descriptor_encode(&descriptor, &text, length));
    nvlxi_registration_records_free(&descriptor);
    return text;
}

static void end_registration(void) {
    nvlxi_registration_free(&registration);
    nvlxi_device_host.close(context.device);
    nvlxi_tables_destroy(&tables);
}

static void regions_that_can_be_told(void) {
    struct nvlx_region *regions[10], *more;
    begin_registration();
    char *memory = allocate_segment();
    registration.limits.regions = 10;
    for (size_t i = 0; i < COUNT(regions); i++)
        OK(add(memory + 512 * i, i % 2 ? 512 : 0, NVLX_ACCESS_READ, NULL, &regions[i]));
    for (size_t i = 0; i < 20; i++) /* private ones do not count */
        OK(add(memory + 100 * i, 300, NVLX_ACCESS_NONE, NULL, &more));
    uint64_t generation = registration.generation;
    REFUSED(add(memory, 10, NVLX_ACCESS_WRITE, "one", &more), NVLX_EBUSY, "11 regions (at most 10) in 1 segments");
    REFUSED(add(NULL, 0, NVLX_ACCESS_READ, "one", &more), NVLX_EBUSY, "11 regions");
    EQUAL(generation, registration.generation);
    EQUAL(30, registration.region_count);
    drop(regions[5]);
    OK(add(memory, 10, NVLX_ACCESS_WRITE, "one", &regions[5]));
    REFUSED(add(memory, 10, NVLX_ACCESS_WRITE, "two", &more), NVLX_EBUSY, "11 regions");
    OK(nvlxi_registration_forget(&registration, (uint64_t)(uintptr_t)memory, SIZE, no_user, NULL,
                                 &(uint32_t){0})); /* what is not told any more does not count */
    EQUAL(5, registration.told.regions);           /* those of no bytes */
    EQUAL(0, registration.told.segments);
    memory = allocate_segment();
    for (size_t i = 0; i < 5; i++)
        OK(add(memory, 10, NVLX_ACCESS_WRITE, NULL, &more));
    REFUSED(add(memory, 10, NVLX_ACCESS_WRITE, NULL, &more), NVLX_EBUSY, "11 regions");
    end_registration();
}

static void segments_that_can_be_told(void) {
    struct nvlx_region *regions[4], *more;
    begin_registration();
    registration.limits.segments = COUNT(regions);
    for (size_t i = 0; i < COUNT(regions); i++)
        OK(add(allocate_segment(), 10, NVLX_ACCESS_READ, NULL, &regions[i]));
    char *memory = allocate_segment();
    OK(add(memory, 100, NVLX_ACCESS_NONE, NULL, &more));
    REFUSED(add(memory, 100, NVLX_ACCESS_READ, NULL, &more), NVLX_EBUSY, "in 5 segments (at most 4)");
    drop(regions[2]);
    OK(add(memory, 100, NVLX_ACCESS_READ, NULL, &regions[2]));
    OK(add(memory, 100, NVLX_ACCESS_READ, NULL, &more));
    drop(regions[2]);
    REFUSED(add(allocate_segment(), 1, NVLX_ACCESS_READ, NULL, &regions[2]), NVLX_EBUSY, "in 5 segments");
    drop(more);
    OK(add(allocate_segment(), 1, NVLX_ACCESS_READ, NULL, &regions[2]));
    end_registration();
}

/* What is counted is never less than the text has, and not much more; the names are all that is told of some regions.
 */
static void text_that_can_be_told(void) {
    enum { REGIONS = 500 };
    struct nvlx_region *regions[REGIONS], *none;
    char name[256];
    size_t length;
    begin_registration();
    const size_t nothing = registration.told.text;
    for (size_t i = 0; i < REGIONS; i++) {
        memset(name, i % 3 ? '"' : 'n', sizeof name);
        snprintf(name + i % 250, sizeof name - i % 250, "%zu", i);
        OK(add(i % 7 ? allocate_segment() + i : NULL, i % 7 ? SIZE - i : 0, 1 + (uint32_t)i % 3, i % 2 ? name : NULL,
               &regions[i]));
    }
    free(text_of_all(&length));
    EXPECT(length <= registration.told.text && registration.told.text < nothing + 2 * length);
    registration.limits.text = registration.told.text + 400;
    memset(name, '\\', 255);
    name[255] = '\0';
    REFUSED(add(NULL, 0, NVLX_ACCESS_READ, name, &none), NVLX_EBUSY, "bytes (at most");
    drop(regions[1]);
    drop(regions[3]);
    OK(add(NULL, 0, NVLX_ACCESS_READ, name, &regions[1]));
    for (size_t i = 0; i < REGIONS; i++)
        if (i != 3)
            drop(regions[i]);
    EQUAL(nothing, registration.told.text);
    end_registration();
}

/* Where all numbers have all their digits. */
static void the_longest_text(void) {
    struct nvlxi_segment_record segment = {.kind = NVLXI_KIND_CUDA_MALLOC,
                                           .serial = UINT64_MAX,
                                           .base = UINT64_C(1) << 60,
                                           .size = UINT64_MAX - (UINT64_C(1) << 60),
                                           .handle.length = NVLXI_HANDLE_BYTES};
    struct nvlxi_region_record region = {.name = "",
                                         .access = NVLX_ACCESS_READ_WRITE,
                                         .address = UINT64_C(1) << 61,
                                         .length = UINT64_C(1) << 60,
                                         .segment_count = 1};
    struct nvlxi_descriptor descriptor = {
        .backend = "host", .segments = &segment, .segment_count = 1, .regions = &region, .region_count = 1};
    char *text, name[256];
    size_t length;
    memset(name, '"', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memset(descriptor.address, '"', sizeof descriptor.address - 1);
    descriptor.address[0] = '@';
    memset(descriptor.identity.boot_id, '"', sizeof descriptor.identity.boot_id - 1);
    memset(descriptor.identity.engine, 'c', sizeof descriptor.identity.engine - 1);
    descriptor.identity.pid = descriptor.identity.pid_namespace = UINT64_MAX;
    descriptor.identity.start_time = descriptor.identity.generation = UINT64_MAX;
    region.since = region.digest = UINT64_MAX;
    for (int round = 0; round < 4; round++) {
        const bool named = round % 2;
        region.name = named ? name : "";
        region.has_digest = round / 2;
        OK(nvlxi_descriptor_encode(&descriptor, &text, &length));
        free(text);
        EXPECT(length <= NVLXI_PROCESS_ROOM + nvlxi_descriptor_segment_room(&segment.handle) +
                             nvlxi_descriptor_region_room(named ? name : NULL, region.has_digest));
    }
}

/* ---- Registrations beside transfers -------------------------------------------------------------------- */

#define REGIONS     20000
#define STEP        1024
#define REGISTERERS 4
#define TIME_MS     1500.0

static atomic_bool stop;
static atomic_ulong registered;
static char *crowd; /* REGIONS regions and as many gaps */

/* Over regions that are there, between them, and over the bytes that are being moved. */
static void *register_often(void *argument) {
    uint64_t state = 1 + (uint64_t)(uintptr_t)argument;
    struct nvlx_region *held[16] = {0};
    while (!atomic_load(&stop)) {
        struct nvlx_region **region = &held[next_random(&state) % COUNT(held)];
        if (*region)
            OK(nvlx_unregister(*region, -1));
        const size_t length = 1 + next_random(&state) % (3 * STEP);
        const size_t offset = next_random(&state) % (next_random(&state) % 2 ? 2 * STEP : (REGIONS - 4) * STEP);
        *region = register_range(engine, crowd + offset, length, NULL, next_random(&state) % 4);
        atomic_fetch_add(&registered, 1);
    }
    for (size_t i = 0; i < COUNT(held); i++)
        OK(nvlx_unregister(held[i], -1));
    return NULL;
}

/* Memory that is registered and freed beside them. */
static void *free_often(void *unused) {
    while (!atomic_load(&stop)) {
        char *memory = allocate(engine, 1, SIZE, 6);
        struct nvlx_region *region = register_range(engine, memory, SIZE, NULL, NVLX_ACCESS_READ);
        move(engine, NVLX_OP_READ, self, memory, there, 100);
        OK(nvlx_free(engine, memory));
        OK(nvlx_unregister(region, 0));
    }
    return unused;
}

static void expect_moved(uint64_t *state, double *worst) {
    enum { OPS = 40 };
    struct nvlx_op ops[OPS];
    for (size_t i = 0; i < OPS; i++) {
        const size_t region = next_random(state) % (REGIONS - 1);
        ops[i] = make_op(NVLX_OP_READ, self, crowd + 2 * (region / 2) * STEP + next_random(state) % 100,
                         there + next_random(state) % (SIZE - 400), 1 + next_random(state) % 400);
    }
    const size_t count = 1 + next_random(state) % OPS;
    double since = now_ms();
    struct nvlx_request *request = start(engine, ops, count);
    since = now_ms() - since;
    *worst = since > *worst ? since : *worst;
    finish(request);
    const struct nvlx_op *last = &ops[count - 1];
    for (size_t i = 0; i < last->length; i++)
        EQUAL(seed_byte(1, last->remote - there + i), ((uint8_t *)last->local)[i]);
}

/* What is registered all the time can be used all the time, whatever is registered and unregistered over it. */
static void beside_transfers(void) {
    pthread_t threads[REGISTERERS + 1];
    uint64_t state = 99, lists = 0;
    double worst = 0;
    begin();
    crowd = allocate(engine, 0, REGIONS * STEP, 8);
    for (size_t i = 0; i < REGIONS / 2; i++)
        register_range(engine, crowd + 2 * i * STEP, STEP, NULL, i % 3 ? NVLX_ACCESS_NONE : NVLX_ACCESS_READ);
    const uint64_t regions = engine_info(engine).regions;
    for (size_t i = 0; i < REGISTERERS; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, register_often, (void *)(uintptr_t)i));
    EQUAL(0, pthread_create(&threads[REGISTERERS], NULL, free_often, NULL));
    for (double until = now_ms() + TIME_MS; now_ms() < until; lists++)
        expect_moved(&state, &worst);
    atomic_store(&stop, true);
    for (size_t i = 0; i <= REGISTERERS; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    printf("           %llu lists, the slowest submitted in %.1f ms, beside %lu registrations\n",
           (unsigned long long)lists, worst, atomic_load(&registered));
    EXPECT(lists > 20 && atomic_load(&registered) > 20);
    EXPECT(sanitized() || worst < 1000);
    EQUAL(regions, engine_info(engine).regions);
    EQUAL(2, engine_info(engine).segments);
    expect_moved(&state, &worst);
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"regions_end_with_their_memory", regions_end_with_their_memory},
                                        {"memory_in_use_stays", memory_in_use_stays},
                                        {"freed_and_allocated_again", freed_and_allocated_again},
                                        {"followers_are_told", followers_are_told},
                                        {"regions_that_can_be_told", regions_that_can_be_told},
                                        {"segments_that_can_be_told", segments_that_can_be_told},
                                        {"text_that_can_be_told", text_that_can_be_told},
                                        {"the_longest_text", the_longest_text},
                                        {"beside_transfers", beside_transfers},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
