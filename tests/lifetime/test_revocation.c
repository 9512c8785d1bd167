/* What an owner withdraws, and what it leaves behind when it dies: peers let go of it, and the owner knows when.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "rendezvous_support.h"
#include "support.h"

#define SIZE     (4 * MIB)
#define PATH     108 /* bytes of an address */
#define SHORT_NS (20 * INT64_C(1000000))
#define LONG_MS  400

/* ---- The reader: another process, which does what it is told ------------------------------------------- */

enum order { CONNECT, MAP, HOLD, LET_GO, PREPARE, POST, MAPPINGS, FOLLOWS, CLOSE_SLOWLY, DESTROY_SLOWLY };

struct reader {
    struct child child;
};

struct estate { /* of the reader */
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    char *local;
    uint64_t there;
    char address[PATH];
};

static struct nvlx_op op_of(const struct estate *e) {
    return make_op(NVLX_OP_READ, e->peer, e->local, e->there, SIZE);
}

/* After LONG_MS. */
static void *let_go_late(void *unused) {
    usleep(LONG_MS * 1000);
    atomic_store(&faults.hold, false);
    return unused;
}

/* What is in flight ends after LONG_MS. */
static int destroy_slowly(struct estate *e) {
    pthread_t thread;
    EQUAL(0, pthread_create(&thread, NULL, let_go_late, NULL));
    int code = nvlx_engine_destroy(e->engine);
    pthread_join(thread, NULL);
    return code;
}

static int64_t obey(struct estate *e, enum order order) {
    struct nvlx_op op = op_of(e);
    int code;
    switch (order) {
    case CONNECT:
        e->peer = connect_to(e->engine, e->address);
        e->there = find(e->peer, "block");
        return 0;
    case MAP:
        return nvlx_peer_map(e->peer, second_gpu(), e->there, SIZE);
    case HOLD:
        atomic_store(&faults.hold, true);
        return nvlx_transfer(e->engine, &op, 1, NULL, &e->request);
    case LET_GO:
        atomic_store(&faults.hold, false);
        return 0;
    case PREPARE:
        return nvlx_prepare(e->engine, &op, 1, NULL, &e->prepared);
    case POST:
        code = nvlx_post(e->prepared, NULL, &e->request);
        if (!code)
            finish(e->request);
        return code;
    case MAPPINGS:
        return (int64_t)engine_info(e->engine).mappings;
    case FOLLOWS:
        return nvlx_peer_test(e->peer);
    case CLOSE_SLOWLY:
        atomic_store(&faults.unmap_delay_us, LONG_MS * 1000);
        return nvlx_peer_close(e->peer);
    case DESTROY_SLOWLY:
        return destroy_slowly(e);
    }
    return -1;
}

static void reader_role(int socket) {
    struct estate e = {0};
    struct nvlx_config config;
    enum order order;
    fill_config(&config);
    OK(nvlxi_engine_create(&config, &faulty_device, &e.engine));
    e.local = allocate(e.engine, second_gpu(), SIZE, 9);
    register_range(e.engine, e.local, SIZE, NULL, NVLX_ACCESS_NONE);
    get(socket, e.address, sizeof e.address);
    while (get_or_end(socket, &order, sizeof order)) {
        int64_t answer = obey(&e, order);
        put(socket, &answer, sizeof answer);
    }
}

static int64_t tell(struct reader *reader, enum order order) {
    int64_t answer;
    put(reader->child.socket, &order, sizeof order);
    get(reader->child.socket, &answer, sizeof answer);
    return answer;
}

static void put_path(int socket, const char *path) {
    char bytes[PATH] = "";
    snprintf(bytes, sizeof bytes, "%s", path);
    put(socket, bytes, sizeof bytes);
}

/* Connected, and the block is mapped. */
static void start_reader_of(struct reader *reader, const char *path) {
    child_start(&reader->child, "reader");
    put_path(reader->child.socket, path);
    EQUAL(0, tell(reader, CONNECT));
    EQUAL(0, tell(reader, MAP));
    EQUAL(1, tell(reader, MAPPINGS));
}

static void start_reader(struct reader *reader) {
    start_reader_of(reader, own_path());
}

static void await_mappings(struct reader *reader, int64_t wanted) {
    for (double since = now_ms(); tell(reader, MAPPINGS) != wanted; usleep(500))
        EXPECT(now_ms() - since < 10000);
}

/* ---- The owner ----------------------------------------------------------------------------------------- */

static struct nvlx_engine *owner;
static char *memory;
static struct nvlx_region *block;

static void begin(void) {
    owner = make_engine(0);
    memory = allocate(owner, 0, SIZE, 1);
    block = register_range(owner, memory, SIZE, "block", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_serve(owner, own_path(), NULL));
}

static void end(void) {
    OK(nvlx_engine_destroy(owner));
}

/* ---- Revocation ---------------------------------------------------------------------------------------- */

/* Nobody uses it: 0 means that the reader has it mapped no more. */
static void idle_readers_let_go(void) {
    struct reader readers[3];
    begin();
    for (size_t i = 0; i < COUNT(readers); i++)
        start_reader(&readers[i]);
    OK(nvlx_unregister(block, PATIENCE));
    for (size_t i = 0; i < COUNT(readers); i++) {
        EQUAL(0, tell(&readers[i], MAPPINGS));
        EQUAL(0, tell(&readers[i], FOLLOWS));
        child_end(&readers[i].child);
    }
    end();
}

/* A transfer in flight keeps the owner waiting, and it knows for whom; when that ends, it goes on. */
static void transfers_in_flight_are_awaited(void) {
    struct reader reader;
    char words[64];
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, HOLD));
    double since = now_ms();
    do /* it says so after a moment */
        REFUSED(nvlx_unregister(block, SHORT_NS), NVLX_ETIMEDOUT, "is withdrawn, but process");
    while (!strstr(nvlx_last_error(), "1 transfers and 1 mappings") && now_ms() - since < 10000);
    EXPECT(now_ms() - since < 10000);
    snprintf(words, sizeof words, "process %d", (int)reader.child.pid);
    REFUSED(nvlx_unregister(block, 0), NVLX_ETIMEDOUT, words);
    EQUAL(1, tell(&reader, MAPPINGS));
    EQUAL(0, engine_info(owner).regions); /* it stays withdrawn */
    EQUAL(0, tell(&reader, LET_GO));
    OK(nvlx_unregister(block, PATIENCE));
    EQUAL(0, tell(&reader, MAPPINGS));
    child_end(&reader.child);
    end();
}

static void *unregister_in_time(void *argument) {
    *(double *)argument = now_ms();
    OK(nvlx_unregister(block, PATIENCE));
    *(double *)argument = now_ms() - *(double *)argument;
    return NULL;
}

/* A reader that dies holds nothing any more. One that is stopped is slow, not dead. */
static void the_dead_hold_nothing(void) {
    struct reader reader;
    pthread_t thread;
    double waited;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, HOLD));
    child_stop(&reader.child);
    REFUSED(nvlx_unregister(block, SHORT_NS), NVLX_ETIMEDOUT, "process");
    EQUAL(0, pthread_create(&thread, NULL, unregister_in_time, &waited));
    usleep(100000);
    child_kill(&reader.child);
    EQUAL(0, pthread_join(thread, NULL));
    EXPECT(waited >= 20 && waited < 10000);
    end();
}

/* A prepared list does not keep what is withdrawn: its next post is refused. */
static void prepared_lists_let_go(void) {
    struct reader reader;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, PREPARE));
    EQUAL(0, tell(&reader, POST));
    OK(nvlx_unregister(block, PATIENCE));
    EQUAL(0, tell(&reader, MAPPINGS));
    EQUAL((uint64_t)(int64_t)NVLX_ESTALE, (uint64_t)tell(&reader, POST));
    child_end(&reader.child);
    end();
}

/* The same where the segment stays mapped, since another region lies in it, and where a stranger's region has taken the
 * place of the one that the list names. */
static void lists_of_an_older_generation_are_refused(void) {
    struct reader reader;
    struct nvlx_region *other;
    begin();
    other = register_range(owner, memory, 100, "other", NVLX_ACCESS_READ);
    start_reader(&reader);
    EQUAL(0, tell(&reader, PREPARE));
    EQUAL(0, tell(&reader, POST));
    struct nvlx_region *more = register_range(owner, memory, SIZE, "more", NVLX_ACCESS_READ); /* takes nothing away */
    OK(nvlx_unregister(more, PATIENCE));
    EQUAL(0, tell(&reader, POST));
    OK(nvlx_unregister(block, PATIENCE));
    EQUAL(1, tell(&reader, MAPPINGS));
    EQUAL((uint64_t)(int64_t)NVLX_ESTALE, (uint64_t)tell(&reader, POST));
    register_range(owner, memory, SIZE, "stranger", NVLX_ACCESS_READ_WRITE);
    EQUAL((uint64_t)(int64_t)NVLX_ESTALE,
          (uint64_t)tell(&reader, POST)); /* whether it has heard of the stranger or not */
    usleep(50000);
    EQUAL((uint64_t)(int64_t)NVLX_ESTALE, (uint64_t)tell(&reader, POST));
    child_end(&reader.child);
    OK(nvlx_unregister(other, PATIENCE));
    end();
}

/* What no peer can know is not waited for: private regions, those without bytes, those that nobody was told. */
static void nobody_waits_for_nothing(void) {
    struct reader reader;
    begin();
    struct nvlx_region *private = register_range(owner, memory, SIZE, NULL, NVLX_ACCESS_NONE);
    struct nvlx_region *named = register_range(owner, NULL, 0, "named", NVLX_ACCESS_READ);
    start_reader(&reader);
    child_stop(&reader.child);
    OK(nvlx_unregister(private, 0));
    OK(nvlx_unregister(named, 0));
    EQUAL(0, kill(reader.child.pid, SIGCONT));
    child_end(&reader.child);
    OK(nvlx_unregister(block, PATIENCE));
    end();
}

/* What is still withdrawn when the engine goes, goes with it. */
static void engines_end_with_what_is_withdrawn(void) {
    struct reader reader;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, HOLD));
    REFUSED(nvlx_unregister(block, 0), NVLX_ETIMEDOUT, "withdrawn");
    end();
    EQUAL(0, tell(&reader, LET_GO));
    await_mappings(&reader, 0);
    child_end(&reader.child);
}

/* ---- Many changes as one ------------------------------------------------------------------------------- */

#define NAMES 32

/* Weights are replaced under the same names, again and again: who syncs with the word reads all of the new ones. */
static void changes_are_seen_all_at_once(void) {
    struct nvlx_region *regions[NAMES] = {NULL}, *old[NAMES];
    struct nvlx_engine *client = make_engine(0);
    char name[16];
    uint64_t generation, found, length;
    begin();
    struct nvlx_peer *peer = connect_to(client, own_path());
    for (size_t version = 0; version < 100; version++) {
        memcpy(old, regions, sizeof old);
        OK(nvlx_hold(owner));
        REFUSED(nvlx_hold(owner), NVLX_EBUSY, "held back");
        for (size_t i = 0; i < NAMES; i++) {
            if (version)
                REFUSED(nvlx_unregister(old[i], -1), NVLX_ETIMEDOUT, "nvlx_publish");
            snprintf(name, sizeof name, "w%zu", i);
            regions[i] = register_range(owner, memory + 512 * i + version % 2 * SIZE / 2, 512, name, NVLX_ACCESS_READ);
        }
        OK(nvlx_publish(owner, &generation));
        OK(nvlx_peer_sync(peer, generation, PATIENCE));
        for (size_t i = 0; i < NAMES; i++) {
            snprintf(name, sizeof name, "w%zu", i);
            OK(nvlx_peer_find(peer, name, &found, &length));
            EQUAL((uintptr_t)(memory + 512 * i + version % 2 * SIZE / 2), found);
            if (version)
                OK(nvlx_unregister(old[i], PATIENCE));
        }
    }
    REFUSED(nvlx_peer_sync(peer, generation + 1000, SHORT_NS), NVLX_ETIMEDOUT, "not yet");
    OK(nvlx_publish(owner, NULL));
    end();
    REFUSED(nvlx_peer_sync(peer, generation + 1000, PATIENCE), NVLX_ESTALE, "gone");
    OK(nvlx_engine_destroy(client));
}

struct watch {
    struct nvlx_peer *peer;
    atomic_bool stop;
    long mixed;
};

static void *watch_names(void *argument) {
    struct watch *watch = argument;
    uint64_t address, length;
    while (!atomic_load(&watch->stop)) {
        int first = nvlx_peer_find(watch->peer, "a0", &address, &length);
        int last = nvlx_peer_find(watch->peer, "a63", &address, &length);
        watch->mixed += first == 0 && last != 0; /* the last is there as soon as the first is */
    }
    return NULL;
}

/* Nobody sees half of it, who follows or who connects meanwhile. */
static void nobody_sees_half(void) {
    struct nvlx_engine *client = make_engine(0), *late = make_engine(0);
    struct nvlx_region *region;
    struct nvlx_peer *peer, *other;
    uint64_t address, length;
    char name[16], *text;
    pthread_t thread;
    size_t bytes;
    begin();
    peer = connect_to(client, own_path());
    struct watch watch = {.peer = peer};
    EQUAL(0, pthread_create(&thread, NULL, watch_names, &watch));
    OK(nvlx_hold(owner));
    for (size_t i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "a%zu", i);
        region = register_range(owner, memory + i, 1, name, NVLX_ACCESS_READ);
        usleep(500);
    }
    REFUSED(nvlx_peer_find(peer, "a0", &address, &length), NVLX_ENOENT, "a0");
    REFUSED(nvlx_export(owner, &text, &bytes), NVLX_EBUSY, "held back");
    OK(nvlx_connect(late, own_path(), PATIENCE, &other)); /* to the state before */
    REFUSED(nvlx_peer_find(other, "a0", &address, &length), NVLX_ENOENT, "a0");
    OK(nvlx_peer_test(peer));
    OK(nvlx_publish(owner, NULL));
    await_name(peer, "a63");
    await_name(other, "a63");
    atomic_store(&watch.stop, true);
    EQUAL(0, pthread_join(thread, NULL));
    EQUAL(0, watch.mixed);
    OK(nvlx_unregister(region, PATIENCE));
    end();
    OK(nvlx_engine_destroy(client));
    OK(nvlx_engine_destroy(late));
}

/* ---- Death --------------------------------------------------------------------------------------------- */

static void owner_process_role(int socket) {
    char end;
    begin();
    put_path(socket, own_path());
    get_or_end(socket, &end, sizeof end);
}

/* The reader closes what a dead owner had shared, without being asked, as soon as nothing of it is in flight. */
static void mappings_outlive_nobody(void) {
    struct reader reader;
    for (int held = 0; held < 2; held++) {
        struct child dying;
        char path[PATH];
        child_start(&dying, "dying");
        get(dying.socket, path, sizeof path);
        start_reader_of(&reader, path);
        EQUAL(0, tell(&reader, PREPARE));
        if (held)
            EQUAL(0, tell(&reader, HOLD));
        child_kill(&dying);
        for (double since = now_ms(); tell(&reader, FOLLOWS) != NVLX_ESTALE; usleep(500))
            EXPECT(now_ms() - since < 10000);
        if (held) {
            usleep(50000);
            EQUAL(1, tell(&reader, MAPPINGS));
            EQUAL(0, tell(&reader, LET_GO));
        }
        await_mappings(&reader, 0);
        EQUAL((uint64_t)(int64_t)NVLX_ESTALE, (uint64_t)tell(&reader, POST));
        child_end(&reader.child);
        unlink(path);
    }
}

/* Who was not waited for, since it knew nothing yet, must not be told what was withdrawn. */
static void the_withdrawn_is_not_told(void) {
    struct nvlxi_revocations revocations;
    struct nvlxi_follower follower = {.pid = 1};
    const struct nvlxi_withdrawn withdrawn = {.what = "it", .since = 1, .without = 2};
    nvlxi_revocations_init(&revocations);
    OK(nvlxi_revocations_wait(&revocations, &withdrawn, 0));
    EXPECT(!nvlxi_follower_tell(&revocations, &follower, 1));
    EXPECT(nvlxi_follower_tell(&revocations, &follower, 2));
    nvlxi_follower_gone(&revocations, &follower);
    nvlxi_revocations_free(&revocations);
}

/* Who leaves is waited for until it has left: nothing of it is in flight, and it maps nothing, before its connection
 * ends. For anything of it takes LONG_MS from the order on. */
static void who_leaves_is_awaited(void) {
    static const enum order orders[] = {CLOSE_SLOWLY, DESTROY_SLOWLY};
    for (size_t i = 0; i < COUNT(orders); i++) {
        struct reader reader;
        int64_t answer;
        begin();
        start_reader(&reader);
        if (orders[i] == DESTROY_SLOWLY)
            EQUAL(0, tell(&reader, HOLD));
        const double since = now_ms();
        put(reader.child.socket, &orders[i], sizeof orders[i]);
        usleep(LONG_MS * 1000 / 4);
        OK(nvlx_unregister(block, PATIENCE));
        EXPECT(now_ms() - since >= LONG_MS);
        get(reader.child.socket, &answer, sizeof answer);
        EQUAL(0, answer);
        child_end(&reader.child);
        end();
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"idle_readers_let_go", idle_readers_let_go},
        {"transfers_in_flight_are_awaited", transfers_in_flight_are_awaited},
        {"the_dead_hold_nothing", the_dead_hold_nothing},
        {"prepared_lists_let_go", prepared_lists_let_go},
        {"lists_of_an_older_generation_are_refused", lists_of_an_older_generation_are_refused},
        {"nobody_waits_for_nothing", nobody_waits_for_nothing},
        {"engines_end_with_what_is_withdrawn", engines_end_with_what_is_withdrawn},
        {"changes_are_seen_all_at_once", changes_are_seen_all_at_once},
        {"nobody_sees_half", nobody_sees_half},
        {"mappings_outlive_nobody", mappings_outlive_nobody},
        {"the_withdrawn_is_not_told", the_withdrawn_is_not_told},
        {"who_leaves_is_awaited", who_leaves_is_awaited},
        {NULL, NULL}};
    static const struct role roles[] = {
        OWNER_ROLE, {"reader", reader_role}, {"dying", owner_process_role}, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
