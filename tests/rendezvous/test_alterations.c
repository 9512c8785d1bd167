/* Regions that become others: they sleep, wake and have digests. It costs each follower as much as the change, whatever
 * else there is. SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_alterations [REGIONS FOLLOWERS]: with these, tells what changes cost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/host/host.h"
#include "subscriber.h"
#include "support.h"

#define CHUNK     (2 * MIB)
#define SIZE      (64 * KIB)
#define STEP      512 /* bytes from one region to the next, of many */
#define FOLLOWERS 16
#define PATH      108 /* bytes of an address */
#define SLEEPERS  3

static const char *const names[SLEEPERS] = {"a", "b", "c"};

/* ---- The follower: another process ------------------------------------------------------------------------ */

struct order {
    uint64_t generation; /* to be known first */
    uint32_t seed;       /* 0, or that of the first sleeper, which is to be read with the others */
    uint32_t turned;     /* with which one to begin: those that are mapped first get other places */
};

struct answer {
    double known;    /* when it was, in now_ms */
    size_t resident; /* bytes, more than before it followed */
};

static size_t resident_bytes(void) {
    size_t total = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    EXPECT(file && fscanf(file, "%zu %zu", &total, &pages) == 2);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* One list: its first op finds the way to the peer, the others go by what is known of their regions. */
static void read_all(struct nvlx_engine *engine, struct nvlx_peer *peer, char *local, const struct order *order) {
    struct nvlx_op ops[1 + SLEEPERS];
    ops[0] = make_op(NVLX_OP_READ, peer, local, find(peer, "rest"), SIZE);
    for (size_t i = 0; i < SLEEPERS; i++) {
        const size_t which = (i + order->turned) % SLEEPERS;
        ops[1 + i] = make_op(NVLX_OP_READ, peer, local + (1 + which) * SIZE, find(peer, names[which]), SIZE);
    }
    finish(start(engine, ops, 1 + SLEEPERS));
    EQUAL(0, wrong(engine, local, SIZE, 77));
    for (uint32_t i = 0; i < SLEEPERS; i++)
        EQUAL(0, wrong(engine, local + (1 + i) * SIZE, SIZE, order->seed + i));
}

static void follower_role(int socket) {
    char address[PATH];
    struct nvlx_engine *engine = make_engine(0);
    char *local = allocate(engine, second_gpu(), (1 + SLEEPERS) * SIZE, 1);
    struct order order;
    register_range(engine, local, (1 + SLEEPERS) * SIZE, NULL, NVLX_ACCESS_NONE);
    get(socket, address, sizeof address);
    const size_t alone = resident_bytes();
    struct nvlx_peer *peer = connect_to(engine, address);
    put(socket, "c", 1);
    while (get_or_end(socket, &order, sizeof order)) {
        OK(nvlx_peer_sync(peer, order.generation, PATIENCE));
        const struct answer answer = {.known = now_ms(), .resident = resident_bytes() - alone};
        if (order.seed)
            read_all(engine, peer, local, &order);
        put(socket, &answer, sizeof answer);
    }
    OK(nvlx_engine_destroy(engine));
}

/* ---- The owner ------------------------------------------------------------------------------------------- */

static struct nvlx_engine *owner;
static char address[PATH];
static char *many; /* memory of many regions */
static struct child followers[FOLLOWERS];
static size_t follower_count;

static void begin(size_t regions) {
    char name[48];
    owner = make_engine(0);
    many = allocate(owner, 0, (regions + 1) * STEP, 5);
    for (size_t i = 0; i < regions; i++) {
        snprintf(name, sizeof name, "layer.%zu.weight", i);
        register_range(owner, many + i * STEP, STEP / 2, name, NVLX_ACCESS_READ);
    }
    snprintf(address, sizeof address, "%s", own_path());
    OK(nvlx_serve(owner, address, NULL));
}

static void end(void) {
    while (follower_count)
        child_end(&followers[--follower_count]);
    OK(nvlx_engine_destroy(owner));
}

static void start_followers(size_t count) {
    for (; follower_count < count; follower_count++) {
        child_start(&followers[follower_count], "follower");
        put(followers[follower_count].socket, address, sizeof address);
        await_child(&followers[follower_count]);
    }
}

static uint64_t published(void) {
    uint64_t generation;
    OK(nvlx_publish(owner, &generation));
    return generation;
}

static char *chunk(uint32_t seed) {
    struct nvlx_alloc_options options;
    void *made;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = CHUNK;
    OK(nvlx_alloc(owner, 0, CHUNK, &options, &made));
    fill(owner, made, SIZE, seed);
    return made;
}

static struct answer tell(size_t i, const struct order *order) {
    struct answer answer;
    put(followers[i].socket, order, sizeof *order);
    get(followers[i].socket, &answer, sizeof answer);
    return answer;
}

/* ---- What lists find --------------------------------------------------------------------------------------- */

/* Memory sleeps, and comes back as other memory at the same addresses. What a follower knew of it is not used again. */
static void lists_find_what_woke(void) {
    struct nvlx_region *regions[SLEEPERS];
    char *blocks[SLEEPERS];
    begin(10);
    for (uint32_t i = 0; i < SLEEPERS; i++) {
        blocks[i] = chunk(1 + i);
        regions[i] = register_range(owner, blocks[i], SIZE, names[i], NVLX_ACCESS_READ);
    }
    register_range(owner, allocate(owner, 0, SIZE, 77), SIZE, "rest", NVLX_ACCESS_READ);
    start_followers(1);
    for (uint32_t seed = 1; seed < 40; seed++) {
        struct order order = {.generation = published(), .seed = seed, .turned = seed % SLEEPERS};
        tell(0, &order);
        tell(0, &order);
        OK(nvlx_suspend(regions, SLEEPERS, -1));
        for (uint32_t i = 0; i < SLEEPERS; i++) {
            OK(nvlxi_host_wake(nvlxi_host_put_to_sleep(blocks[i])));
            fill(owner, blocks[i], SIZE, seed + 1 + i);
        }
        OK(nvlx_resume(regions, SLEEPERS, NULL));
    }
    end();
}

/* ---- What goes over the wire ------------------------------------------------------------------------------- */

static uint8_t body[1 << 20];

static void expect_next(int socket, bool whole) {
    uint16_t type;
    const uint32_t length = receive_message(socket, body, sizeof body, &type);
    EQUAL(whole ? NVLXI_PROTOCOL_TEXT : NVLXI_PROTOCOL_CHANGES, type);
    EXPECT(whole ? length > 100000 : length < 1024);
}

static void expect_asked(int socket) {
    uint16_t type;
    receive_message(socket, body, sizeof body, &type);
    EQUAL(NVLXI_PROTOCOL_AWAIT, type);
}

/* Who understands no alteration is told everything, but only for that. */
static void messages_are_as_long_as_changes(void) {
    begin(4000);
    struct nvlx_region *region = register_range(owner, chunk(1), SIZE, "new", NVLX_ACCESS_READ);
    const int newer = subscribe(address, 4, body, sizeof body), older = subscribe(address, 3, body, sizeof body);
    expect_next(newer, true);
    expect_next(older, true);
    for (int i = 0; i < 5; i++) {
        OK(nvlx_region_set_digest(region, NULL));
        expect_next(newer, false);
        expect_next(older, true);
        GIVES(NVLX_ETIMEDOUT, nvlx_suspend(&region, 1, 0)); /* they do not answer */
        expect_next(newer, false);
        expect_next(older, true);
        if (i == 0) {
            expect_asked(newer);
            expect_asked(older);
        }
        register_range(owner, many, STEP, NULL, NVLX_ACCESS_READ); /* while one sleeps */
        expect_next(newer, false);
        expect_next(older, false);
        OK(nvlx_resume(&region, 1, NULL));
        expect_next(newer, false);
        expect_next(older, true);
    }
    close(newer);
    close(older);
    end();
}

/* ---- What it costs ------------------------------------------------------------------------------------------ */

enum change { REGISTER, UNREGISTER, SUSPEND, RESUME, DIGEST, KINDS };
static const char *const words[] = {"register", "unregister", "suspend", "resume", "digest"};

static void make_change(enum change change, struct nvlx_region **region) {
    static char *memory;
    memory = memory ? memory : chunk(1);
    if (change == REGISTER)
        *region = register_range(owner, memory, SIZE, "new", NVLX_ACCESS_READ);
    else if (change == UNREGISTER)
        OK(nvlx_unregister(*region, -1));
    else if (change == SUSPEND)
        OK(nvlx_suspend(region, 1, -1));
    else if (change == RESUME)
        OK(nvlx_resume(region, 1, NULL));
    else
        OK(nvlx_region_set_digest(*region, NULL));
}

/* Until all followers know it; `*resident`: what the first then takes. */
static double time_change(enum change change, struct nvlx_region **region, size_t *resident) {
    double last = 0;
    const double begun = now_ms();
    make_change(change, region);
    const struct order order = {.generation = published()};
    for (size_t i = 0; i < follower_count; i++)
        put(followers[i].socket, &order, sizeof order);
    for (size_t i = 0; i < follower_count; i++) {
        struct answer answer;
        get(followers[i].socket, &answer, sizeof answer);
        last = answer.known > last ? answer.known : last;
        *resident = i ? *resident : answer.resident;
    }
    return last - begun;
}

static int compare(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The median of each kind. Memory of the first follower: from before any change to the end. */
static size_t time_changes(size_t rounds, double median[KINDS]) {
    double *spent[KINDS];
    size_t before = 0, resident = 0;
    struct nvlx_region *region = NULL;
    for (size_t kind = 0; kind < KINDS; kind++)
        spent[kind] = calloc(rounds, sizeof(double));
    for (size_t i = 0; i < rounds; i++) {
        static const enum change order[] = {REGISTER, SUSPEND, RESUME, DIGEST, UNREGISTER};
        for (size_t k = 0; k < KINDS; k++) {
            spent[order[k]][i] = time_change(order[k], &region, &resident);
            before = before ? before : resident;
            usleep(3000); /* else the server rests between two looks */
        }
    }
    for (size_t kind = 0; kind < KINDS; kind++) {
        qsort(spent[kind], rounds, sizeof(double), compare);
        median[kind] = spent[kind][rounds / 2];
        fprintf(stderr, "%-10s known by %zu followers after %.2f ms (median), %.2f ms (at most)\n", words[kind],
                follower_count, median[kind], spent[kind][rounds - 1]);
        free(spent[kind]);
    }
    fprintf(stderr, "what a follower knows takes %.1f MiB, %.1f MiB more than before %zu changes\n",
            (double)resident / MIB, ((double)resident - (double)before) / MIB, rounds * KINDS);
    return resident > before ? resident - before : 0;
}

static void cost_goes_by_the_change(void) {
    double median[KINDS];
    begin(20000);
    start_followers(2);
    const size_t more = time_changes(sanitized() ? 20 : 100, median);
    for (size_t kind = 0; kind < KINDS; kind++)
        EXPECT(median[kind] < 6 * median[REGISTER]);
    EXPECT(sanitized() || more < 4 * MIB);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"lists_find_what_woke", lists_find_what_woke},
                                        {"messages_are_as_long_as_changes", messages_are_as_long_as_changes},
                                        {"cost_goes_by_the_change", cost_goes_by_the_change},
                                        {0}};
    static const struct role roles[] = {{"follower", follower_role}, {0}};
    double median[KINDS];
    if (argc != 3 || strspn(argv[1], "0123456789") != strlen(argv[1]))
        return run_tests(argc, argv, tests, roles, 60);
    begin_process(argc, argv, roles, 600);
    begin(strtoul(argv[1], NULL, 10));
    start_followers(strtoul(argv[2], NULL, 10) < FOLLOWERS ? strtoul(argv[2], NULL, 10) : FOLLOWERS);
    time_changes(200, median);
    end();
    return 0;
}
