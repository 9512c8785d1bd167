/* Many threads in one engine: what each does is right to the byte, and nothing is left behind. For ThreadSanitizer to
 * watch. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

#define THREADS 16
#define STRIPE  (32 * KIB) /* of each thread, on each side */
#define SIZE    (THREADS * STRIPE)
#define TIME_MS 1500.0

static struct nvlx_engine *engine;
static struct owner owner;
static struct holdings before;
static char *text;         /* the owner's descriptor */
static char *local[2];     /* SIZE bytes on GPU 0 and on the second */
static uint64_t remote[2]; /* the owner's slots 0 and 1, the same; wholly registered */
static struct nvlx_peer *shared;
static double until;

static void begin(void) {
    owner_start(&owner);
    before = holdings();
    engine = make_engine(0);
    for (uint32_t i = 0; i < 2; i++) {
        int gpu = i ? second_gpu() : 0;
        local[i] = allocate(engine, gpu, SIZE, 11 + i);
        remote[i] = owner_alloc(&owner, i, gpu, SIZE, 1 + i);
        owner_register(&owner, i, i, 0, SIZE, NVLX_ACCESS_READ_WRITE, i ? "far" : "near");
    }
    text = owner_export(&owner);
    shared = open_peer(engine, text);
    until = now_ms() + TIME_MS;
}

/* All threads are joined, and have given back what they took. */
static void end(uint64_t regions) {
    EQUAL(regions, engine_info(engine).regions);
    EQUAL(0, engine_info(engine).requests);
    OK(nvlx_peer_close(shared));
    EQUAL(0, engine_info(engine).mappings);
    OK(nvlx_engine_destroy(engine));
    expect_holdings(&before, "the engine is destroyed");
    owner_end(&owner);
    free(text);
}

static bool is_time(void) {
    return now_ms() < until;
}

static void run_threads(pthread_t *threads, size_t count, void *(*run)(void *), void *arguments, size_t size) {
    for (size_t i = 0; i < count; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, run, (char *)arguments + i * size));
}

static void join_threads(const pthread_t *threads, size_t count) {
    for (size_t i = 0; i < count; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
}

static size_t below(uint64_t *state, size_t limit) {
    return next_random(state) % limit;
}

/* ---- Everything at once -------------------------------------------------------------------------------- */

struct worker {
    uint32_t number;
    uint64_t state;
    char *mine;      /* the lower half of the stripe is written from, the upper half read into */
    uint64_t theirs; /* the stripe there */
    uint32_t seed, rounds;
    size_t offset, length; /* of the last round, in the stripe there */
};

static void complete(struct nvlx_request *request, bool by_asking) {
    int code;
    while (by_asking && (code = nvlx_test(request))) {
        EQUAL(NVLX_EAGAIN, code);
        sched_yield();
    }
    finish(request);
}

/* In pieces, from the last to the first, so that none is joined with the one before it. */
static void move_in_pieces(struct worker *worker, uint32_t opcode, struct nvlx_peer *peer, char *here) {
    enum { PIECES = 8 };
    struct nvlx_op ops[PIECES];
    size_t count = 1 + below(&worker->state, PIECES), end = worker->length;
    for (size_t i = 0; i < count; i++) {
        size_t begin = i + 1 == count ? 0 : below(&worker->state, end + 1);
        ops[i] = make_op(opcode, peer, here + begin, worker->theirs + worker->offset + begin, end - begin);
        end = begin;
    }
    complete(start(engine, ops, count), below(&worker->state, 2));
}

static void expect_in_export(const char *name) {
    char *exported, quoted[40];
    size_t length;
    OK(nvlx_export(engine, &exported, &length));
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    EXPECT(strstr(exported, quoted));
    nvlx_text_free(exported);
}

static void do_everything(struct worker *worker) {
    char name[32], *source = worker->mine + below(&worker->state, STRIPE / 4);
    char *target = worker->mine + STRIPE / 2 + below(&worker->state, STRIPE / 4);
    worker->length = 1 + below(&worker->state, STRIPE / 4);
    worker->offset = below(&worker->state, STRIPE - worker->length);
    worker->seed = worker->number + 100 * ++worker->rounds;
    snprintf(name, sizeof name, "thread %u", worker->number);
    fill(engine, source, worker->length, worker->seed);
    struct nvlx_region *from = register_range(engine, source, worker->length, name, NVLX_ACCESS_READ);
    struct nvlx_region *to = register_range(engine, target, worker->length, NULL, NVLX_ACCESS_NONE);
    if (worker->rounds % 4 == 0)
        expect_in_export(name);
    struct nvlx_peer *own = worker->rounds % 2 ? open_peer(engine, text) : NULL;
    move_in_pieces(worker, NVLX_OP_WRITE, own ? own : shared, source);
    move_in_pieces(worker, NVLX_OP_READ, shared, target);
    EQUAL(0, wrong(engine, target, worker->length, worker->seed));
    OK(nvlx_unregister(from, 0));
    OK(nvlx_unregister(to, PATIENCE));
    struct nvlx_request *none;
    struct nvlx_op op = make_op(NVLX_OP_READ, shared, target, worker->theirs, 1);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &none), NVLX_ERANGE, "op 0: local");
    OK(nvlx_peer_close(own));
}

static void *work(void *argument) {
    while (is_time())
        do_everything(argument);
    return NULL;
}

static void everything_at_once(void) {
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    uint64_t rounds = 0;
    begin();
    for (uint32_t i = 0; i < THREADS; i++)
        workers[i] = (struct worker){
            .number = i, .state = 7 + i, .mine = local[i % 2] + i * STRIPE, .theirs = remote[i / 2 % 2] + i * STRIPE};
    run_threads(threads, THREADS, work, workers, sizeof *workers);
    join_threads(threads, THREADS);
    for (uint32_t i = 0; i < THREADS; i++) {
        const struct worker *worker = &workers[i];
        EXPECT(worker->rounds > 0);
        EQUAL(0, owner_wrong(&owner, i / 2 % 2, i * STRIPE + worker->offset, worker->length, worker->seed));
        rounds += worker->rounds;
    }
    printf("           %llu rounds\n", (unsigned long long)rounds);
    EQUAL(0, engine_info(engine).segments);
    end(0);
}

/* ---- Pollers ------------------------------------------------------------------------------------------- */

#define SUBMITTERS 4
#define EACH       8 /* requests of a submitter */
#define LENGTH     1000

/* A request that any number of threads ask about: under the lock, since it must not be freed meanwhile. */
static struct slot {
    pthread_rwlock_t lock;
    struct nvlx_request *request;
    char *target;
    size_t offset; /* in the owner's slot 0 */
} slots[SUBMITTERS * EACH];

static atomic_ulong submitted, seen_complete;

static void init_slots(void) {
    pthread_rwlockattr_t attributes;
    EQUAL(0, pthread_rwlockattr_init(&attributes));
    EQUAL(0, pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
    for (size_t i = 0; i < COUNT(slots); i++) {
        EQUAL(0, pthread_rwlock_init(&slots[i].lock, &attributes));
        slots[i].target = local[0] + i * LENGTH;
    }
    EQUAL(0, pthread_rwlockattr_destroy(&attributes));
}

/* Complete means that every byte is in place, whoever asked first. */
static void expect_bytes(const struct slot *slot) {
    uint8_t bytes[LENGTH];
    OK(nvlx_memcpy(engine, bytes, slot->target, LENGTH));
    for (size_t i = 0; i < LENGTH; i++)
        if (bytes[i] != seed_byte(1, slot->offset + i))
            FAIL("byte %zu of a complete request is 0x%02x, not 0x%02x", i, bytes[i], seed_byte(1, slot->offset + i));
}

static void *submit(void *argument) {
    struct slot *own = argument;
    uint64_t state = (uint64_t)(own - slots) + 1;
    while (is_time()) {
        struct slot *slot = &own[below(&state, EACH)];
        if (slot->request && below(&state, 2))
            OK(nvlx_wait(slot->request, PATIENCE));
        else if (slot->request && nvlx_test(slot->request))
            continue;
        pthread_rwlock_wrlock(&slot->lock);
        if (slot->request) {
            expect_bytes(slot);
            OK(nvlx_request_free(slot->request));
        }
        slot->offset = below(&state, SIZE - LENGTH);
        struct nvlx_op op = make_op(NVLX_OP_READ, shared, slot->target, remote[0] + slot->offset, LENGTH);
        slot->request = start(engine, &op, 1);
        pthread_rwlock_unlock(&slot->lock);
        atomic_fetch_add(&submitted, 1);
    }
    return NULL;
}

static void *poll_all(void *argument) {
    uint64_t state = 100 + *(const uint32_t *)argument;
    while (is_time()) {
        struct slot *slot = &slots[below(&state, COUNT(slots))];
        struct nvlx_request_info info = {.size = sizeof info};
        pthread_rwlock_rdlock(&slot->lock);
        int code = slot->request ? nvlx_test(slot->request) : NVLX_EAGAIN;
        if (code == 0) {
            expect_bytes(slot);
            OK(nvlx_request_get_info(slot->request, &info));
            EXPECT(info.status == 0 && info.bytes == LENGTH && info.elapsed_ns);
            atomic_fetch_add(&seen_complete, 1);
        } else {
            EQUAL(NVLX_EAGAIN, code);
        }
        pthread_rwlock_unlock(&slot->lock);
    }
    return NULL;
}

static void pollers_and_submitters(void) {
    enum { POLLERS = 8 };
    pthread_t submitters[SUBMITTERS], pollers[POLLERS];
    uint32_t numbers[POLLERS];
    begin();
    init_slots();
    register_range(engine, local[0], SIZE, NULL, NVLX_ACCESS_NONE);
    for (uint32_t i = 0; i < POLLERS; i++)
        numbers[i] = i;
    run_threads(submitters, SUBMITTERS, submit, slots, EACH * sizeof *slots);
    run_threads(pollers, POLLERS, poll_all, numbers, sizeof *numbers);
    join_threads(submitters, SUBMITTERS);
    join_threads(pollers, POLLERS);
    for (size_t i = 0; i < COUNT(slots); i++) {
        if (slots[i].request)
            finish(slots[i].request);
        pthread_rwlock_destroy(&slots[i].lock);
    }
    printf("           %lu requests, seen complete %lu times\n", atomic_load(&submitted), atomic_load(&seen_complete));
    EXPECT(atomic_load(&submitted) > COUNT(slots) && atomic_load(&seen_complete) > 0);
    end(1);
}

/* ---- A peer that changes ------------------------------------------------------------------------------- */

struct reader {
    uint32_t number;
    uint64_t state, moved, refused;
};

/* From the region that stays, or from the one that comes and goes. */
static void read_some(struct reader *reader, bool stays) {
    struct nvlx_request *request;
    size_t offset = below(&reader->state, SIZE - LENGTH);
    char *target = local[0] + reader->number * STRIPE;
    struct nvlx_op op = make_op(NVLX_OP_READ, shared, target, remote[!stays] + offset, LENGTH);
    int code = nvlx_transfer(engine, &op, 1, NULL, &request);
    if (code) {
        EXPECT(!stays && (code == NVLX_ERANGE || code == NVLX_ESTALE));
        reader->refused++;
        return;
    }
    complete(request, below(&reader->state, 2));
    uint8_t bytes[LENGTH];
    OK(nvlx_memcpy(engine, bytes, target, LENGTH));
    for (size_t i = 0; i < LENGTH; i++)
        EQUAL(seed_byte(stays ? 1 : 2, offset + i), bytes[i]);
    reader->moved += !stays;
}

static void *read_often(void *argument) {
    struct reader *reader = argument;
    while (is_time()) {
        uint64_t address, length;
        read_some(reader, true);
        read_some(reader, false);
        EQUAL(remote[0], find(shared, "near"));
        int code = nvlx_peer_find(shared, "far", &address, &length);
        EXPECT(code == NVLX_ENOENT || (code == 0 && address == remote[1] && length == SIZE));
    }
    return NULL;
}

static void update_shared(void) {
    char *later = owner_export(&owner);
    OK(nvlx_peer_update(shared, later, strlen(later)));
    free(later);
}

static void expect_mappings_below(uint64_t limit) {
    for (double since = now_ms(); engine_info(engine).mappings >= limit && now_ms() - since < 10000; usleep(200)) {
    }
    EXPECT(engine_info(engine).mappings < limit);
}

static void regions_come_and_go(void) {
    enum { READERS = 8 };
    pthread_t threads[READERS];
    struct reader readers[READERS];
    uint64_t moved = 0, refused = 0, updates = 0;
    begin();
    register_range(engine, local[0], SIZE, NULL, NVLX_ACCESS_NONE);
    for (uint32_t i = 0; i < READERS; i++)
        readers[i] = (struct reader){.number = i, .state = 50 + i};
    run_threads(threads, READERS, read_often, readers, sizeof *readers);
    for (; is_time(); updates += 2) {
        OK(owner_unregister(&owner, 1));
        update_shared();
        usleep(500);
        owner_register(&owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ, "far");
        update_shared();
        usleep(2000);
        expect_mappings_below(4 + READERS); /* retired ones are closed, by a thread */
    }
    join_threads(threads, READERS);
    for (size_t i = 0; i < READERS; i++) {
        moved += readers[i].moved;
        refused += readers[i].refused;
    }
    printf("           %llu updates; read %llu times, refused %llu times\n", (unsigned long long)updates,
           (unsigned long long)moved, (unsigned long long)refused);
    EXPECT(updates > 4 && moved > 0 && refused > 0);
    end(1);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"everything_at_once", everything_at_once},
                                        {"pollers_and_submitters", pollers_and_submitters},
                                        {"regions_come_and_go", regions_come_and_go},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
