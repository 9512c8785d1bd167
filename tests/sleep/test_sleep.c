/* Memory that sleeps: its bytes go, its names stay, and a reader in another process goes on with the rest.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "device/host/host.h"
#include "faulty_device.h"
#include "rendezvous_support.h"
#include "sleep_support.h"
#include "support.h"

#define PATH     108 /* bytes of an address */
#define SHORT_NS (20 * INT64_C(1000000))
#define CYCLES   500

enum { BLOCKS = 64, DIFFERENT = -1000 };

/* ---- The reader: another process, which does what it is told ------------------------------------------- */

enum order { PREPARE, POST, READ, READ_REST, FIND, MAP, HOLD, LET_GO, MAPPINGS, FOLLOWS, FDS, MAPS };

struct command {
    enum order order;
    uint32_t seed;
    uint64_t generation;
};

struct estate { /* of the reader */
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    struct nvlx_blocks *blocks; /* the same bytes */
    char *local;
    uint64_t weights, rest;
};

/* What a list of this code moved: 0 or the code; what is wrong with the bytes is told as 1. */
static int64_t seen(struct estate *e, int code, uint32_t seed) {
    if (code)
        return code;
    finish(e->request);
    return wrong(e->engine, e->local, SIZE, seed) ? 1 : 0;
}

/* The weights once more as blocks by id. */
static int create_blocks(struct estate *e) {
    const struct nvlx_block_region here = {.base = (uint64_t)(uintptr_t)e->local,
                                           .stride = SIZE / BLOCKS,
                                           .length = SIZE / BLOCKS,
                                           .blocks = BLOCKS},
                                   there = {.base = e->weights,
                                            .stride = SIZE / BLOCKS,
                                            .length = SIZE / BLOCKS,
                                            .blocks = BLOCKS};
    return nvlx_blocks_create(e->engine, e->peer, &here, &there, 1, NULL, &e->blocks);
}

static int64_t move_blocks(struct estate *e, uint32_t seed) {
    struct nvlx_block_ids ids;
    uint64_t each[BLOCKS];
    for (uint64_t i = 0; i < BLOCKS; i++)
        each[i] = BLOCKS - 1 - i;
    nvlx_block_ids_init(&ids);
    ids.local = ids.remote = each;
    ids.count = BLOCKS;
    ids.width = 8;
    fill(e->engine, e->local, SIZE, 9);
    return seen(e, nvlx_blocks_transfer(e->blocks, &ids, NULL, &e->request), seed);
}

static int64_t both(int64_t list, int64_t blocks) {
    return list == blocks ? list : DIFFERENT;
}

static int64_t obey(struct estate *e, const struct command *command) {
    const struct nvlx_op weights = make_op(NVLX_OP_READ, e->peer, e->local, e->weights, SIZE),
                         rest = make_op(NVLX_OP_READ, e->peer, e->local, e->rest, SIZE);
    uint64_t address, length;
    int code;
    switch (command->order) {
    case PREPARE:
        return both(nvlx_prepare(e->engine, &weights, 1, NULL, &e->prepared), create_blocks(e));
    case POST:
        return both(seen(e, nvlx_post(e->prepared, NULL, &e->request), command->seed), move_blocks(e, command->seed));
    case READ:
        return seen(e, nvlx_transfer(e->engine, &weights, 1, NULL, &e->request), command->seed);
    case READ_REST:
        return seen(e, nvlx_transfer(e->engine, &rest, 1, NULL, &e->request), command->seed);
    case FIND:
        code = nvlx_peer_find(e->peer, "weights", &address, &length);
        return code ? code : (int64_t)address;
    case MAP:
        return nvlx_peer_map(e->peer, second_gpu(), e->weights, SIZE);
    case HOLD:
        atomic_store(&faults.hold, true);
        return nvlx_transfer(e->engine, &weights, 1, NULL, &e->request);
    case LET_GO:
        atomic_store(&faults.hold, false);
        finish(e->request);
        return 0;
    case MAPPINGS:
        return (int64_t)engine_info(e->engine).mappings;
    case FOLLOWS:
        return nvlx_peer_test(e->peer);
    case FDS:
        return (int64_t)holdings().fds;
    case MAPS:
        return (int64_t)holdings().maps;
    }
    return -1;
}

static void reader_role(int socket) {
    struct estate e = {0};
    struct nvlx_config config;
    struct command command;
    char path[PATH];
    fill_config(&config);
    OK(nvlxi_engine_create(&config, &faulty_device, &e.engine));
    e.local = allocate(e.engine, second_gpu(), SIZE, 9);
    register_range(e.engine, e.local, SIZE, NULL, NVLX_ACCESS_NONE);
    get(socket, path, sizeof path);
    e.peer = connect_to(e.engine, path);
    e.weights = find(e.peer, "weights");
    e.rest = find(e.peer, "rest");
    while (get_or_end(socket, &command, sizeof command)) {
        if (command.generation)
            OK(nvlx_peer_sync(e.peer, command.generation, PATIENCE));
        int64_t answer = obey(&e, &command);
        put(socket, &answer, sizeof answer);
    }
}

static uint64_t tell_of(struct child *reader, enum order order, uint32_t seed, uint64_t generation) {
    const struct command command = {.order = order, .seed = seed, .generation = generation};
    int64_t answer;
    put(reader->socket, &command, sizeof command);
    get(reader->socket, &answer, sizeof answer);
    return (uint64_t)answer;
}

static uint64_t tell(struct child *reader, enum order order) {
    return tell_of(reader, order, 0, 0);
}

static void start_reader_of(struct child *reader, const char *path) {
    char bytes[PATH] = "";
    snprintf(bytes, sizeof bytes, "%s", path);
    child_start(reader, "reader");
    put(reader->socket, bytes, sizeof bytes);
}

static void start_reader(struct child *reader) {
    start_reader_of(reader, own_path());
}

/* ---- Cycles -------------------------------------------------------------------------------------------- */

static void cycle(struct child *reader, uint32_t seed) {
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    EQUAL(CODE(NVLX_ESUSPENDED), tell(reader, POST));
    struct nvlxi_host_block *asleep = drop_chunks();
    EQUAL(CODE(NVLX_ESUSPENDED), tell(reader, READ));
    if (seed % 5 == 0)
        EQUAL(0, tell_of(reader, READ_REST, 77, 0));
    OK(nvlxi_host_wake(asleep));
    fill(owner, memory, SIZE, seed);
    OK(nvlx_resume(&weights, 1, NULL));
    EQUAL(0, tell_of(reader, POST, seed, published()));
}

/* Sleep and wake, again and again: the prepared list works each time, and nothing grows. */
static void nothing_grows(void) {
    struct child reader;
    struct holdings before;
    uint64_t fds, maps;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, PREPARE));
    EQUAL(0, tell_of(&reader, POST, 1, 0));
    for (uint32_t i = 0; i < 5; i++)
        cycle(&reader, 2 + i);
    before = holdings();
    fds = tell(&reader, FDS);
    maps = tell(&reader, MAPS);
    const uint32_t cycles = CYCLES;
    for (uint32_t i = 0; i < cycles; i++)
        cycle(&reader, 1000 + i);
    expect_holdings(&before, "after the cycles");
    EQUAL(fds, tell(&reader, FDS));
    EQUAL(maps, tell(&reader, MAPS));
    EQUAL(2, tell(&reader, MAPPINGS));
    EQUAL(0, tell_of(&reader, READ, 1000 + cycles - 1, 0));
    EQUAL(2, engine_info(owner).regions);
    child_end(&reader);
    end();
}

/* ---- What is told meanwhile ---------------------------------------------------------------------------- */

static void names_stay(void) {
    struct nvlx_engine *late;
    struct child reader;
    uint64_t address, length;
    char *text;
    size_t bytes;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, MAP));
    EQUAL(3, engine_info(owner).segments);
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    EQUAL(0, tell(&reader, MAPPINGS));
    EQUAL(1, engine_info(owner).segments);
    EQUAL((uintptr_t)memory, tell(&reader, FIND));
    EQUAL(CODE(NVLX_ESUSPENDED), tell(&reader, MAP));
    EQUAL(CODE(NVLX_ESUSPENDED), tell(&reader, PREPARE));
    late = make_engine(0); /* who comes now */
    struct nvlx_peer *peer = connect_to(late, own_path());
    OK(nvlx_peer_find(peer, "weights", &address, &length));
    EQUAL((uintptr_t)memory, address);
    EQUAL(SIZE, length);
    char *local = allocate(late, 0, SIZE, 0);
    register_range(late, local, SIZE, NULL, NVLX_ACCESS_NONE);
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, local, address, SIZE);
    struct nvlx_request *request;
    REFUSED(nvlx_transfer(late, &op, 1, NULL, &request), NVLX_ESUSPENDED, "op 0");
    op.opcode = NVLX_OP_WRITE;
    REFUSED(nvlx_transfer(late, &op, 1, NULL, &request), NVLX_EACCES, "writing");
    op = make_op(NVLX_OP_READ, peer, local, address + SIZE, 1);
    REFUSED(nvlx_transfer(late, &op, 1, NULL, &request), NVLX_ERANGE, "not in its registered");
    OK(nvlx_export(owner, &text, &bytes)); /* and who reads the text */
    struct nvlx_peer *reading = open_peer(late, text);
    op = make_op(NVLX_OP_READ, reading, local, address, SIZE);
    REFUSED(nvlx_transfer(late, &op, 1, NULL, &request), NVLX_ESUSPENDED, "op 0");
    nvlx_text_free(text);
    replace_chunks(5);
    OK(nvlx_resume(&weights, 1, NULL));
    EQUAL(0, tell_of(&reader, READ, 5, published()));
    OK(nvlx_engine_destroy(late));
    child_end(&reader);
    end();
}

/* Memory may come back anywhere, of any kind. A list of addresses is stale then. */
static void memory_may_move(void) {
    struct child reader;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, PREPARE));
    EQUAL(0, tell_of(&reader, POST, 1, 0));
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    free_chunks(memory);
    void *moved = allocate(owner, second_gpu(), SIZE + 4096, 8);
    OK(nvlx_resume(&weights, 1, &moved));
    uint64_t generation = published();
    if (moved != memory)
        EQUAL(CODE(NVLX_ESTALE), tell_of(&reader, POST, 8, generation));
    EQUAL((uintptr_t)moved, tell_of(&reader, FIND, 0, generation));
    child_end(&reader);
    start_reader(&reader);
    EQUAL(0, tell_of(&reader, READ, 8, 0));
    child_end(&reader);
    OK(nvlx_unregister(weights, PATIENCE));
    end();
}

/* A stranger's region in the place of one that sleeps, or of one that slept, is not what a list was made for. */
static void strangers_are_not_it(void) {
    struct child reader;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, PREPARE));
    EQUAL(0, tell_of(&reader, POST, 1, 0));
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    replace_chunks(2);
    struct nvlx_region *stranger = register_range(owner, memory, SIZE, "stranger", NVLX_ACCESS_READ);
    EQUAL(CODE(NVLX_ESUSPENDED), tell_of(&reader, POST, 2, published()));
    EQUAL(0, tell_of(&reader, READ, 2, 0)); /* these bytes are the stranger's */
    OK(nvlx_unregister(weights, 0));
    EQUAL(CODE(NVLX_ESTALE), tell_of(&reader, POST, 2, published()));
    OK(nvlx_unregister(stranger, PATIENCE));
    child_end(&reader);
    end();
}

/* Chunks that peers may write are mapped in another way than those that they may only read. */
static void lists_follow_their_mappings(void) {
    struct child reader;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, PREPARE));
    EQUAL(0, tell_of(&reader, POST, 1, 0));
    struct nvlx_region *writable = register_range(owner, memory, 100, NULL, NVLX_ACCESS_WRITE);
    fill(owner, memory, SIZE, 2);
    EQUAL(0, tell_of(&reader, POST, 2, published()));
    OK(nvlx_unregister(writable, PATIENCE));
    EQUAL(0, tell_of(&reader, POST, 2, published()));
    EQUAL(1, tell(&reader, MAPPINGS));
    child_end(&reader);
    end();
}

/* ---- Waiting ------------------------------------------------------------------------------------------- */

static void transfers_are_awaited(void) {
    struct child reader;
    char words[64];
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, HOLD));
    REFUSED(nvlx_suspend(&weights, 1, 0), NVLX_ETIMEDOUT, "process");
    snprintf(words, sizeof words, "process %d", (int)reader.pid);
    REFUSED(nvlx_suspend(&weights, 1, SHORT_NS), NVLX_ETIMEDOUT, words);
    EQUAL(CODE(NVLX_ESUSPENDED), tell_of(&reader, READ, 1, published()));
    EQUAL(0, tell(&reader, LET_GO));
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    EQUAL(0, tell(&reader, MAPPINGS));
    OK(nvlx_suspend(&weights, 1, 0)); /* it sleeps */
    OK(nvlx_unregister(weights, 0));
    child_end(&reader);
    end();
}

/* Who gives up may resume: the bytes are the same. */
static void who_gives_up_resumes(void) {
    struct child reader;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, PREPARE));
    EQUAL(0, tell(&reader, HOLD));
    REFUSED(nvlx_suspend(&weights, 1, 0), NVLX_ETIMEDOUT, "");
    OK(nvlx_resume(&weights, 1, NULL));
    EQUAL(0, tell_of(&reader, LET_GO, 0, published()));
    EQUAL(0, tell_of(&reader, POST, 1, 0));
    EQUAL(0, tell_of(&reader, READ, 1, 0));
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    EQUAL(CODE(NVLX_ESUSPENDED), tell(&reader, POST));
    child_end(&reader);
    end();
}

static void *suspend_in_time(void *argument) {
    *(double *)argument = now_ms();
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    *(double *)argument = now_ms() - *(double *)argument;
    return NULL;
}

/* A reader that dies holds nothing any more. */
static void the_dead_hold_nothing(void) {
    struct child reader;
    pthread_t thread;
    double waited;
    begin();
    start_reader(&reader);
    EQUAL(0, tell(&reader, HOLD));
    child_stop(&reader);
    EQUAL(0, pthread_create(&thread, NULL, suspend_in_time, &waited));
    usleep(100000);
    child_kill(&reader);
    EQUAL(0, pthread_join(thread, NULL));
    EXPECT(waited >= 20 && waited < 10000);
    replace_chunks(3);
    OK(nvlx_resume(&weights, 1, NULL));
    end();
}

/* A follower that hears of a region only when that is asleep holds nothing of it: nobody waits for it. Whether it hears
 * of it before is a matter of microseconds, so it is tried until it has not. */
static void late_followers_hold_nothing(void) {
    struct child reader;
    bool unknown = false;
    begin();
    start_reader(&reader);
    EQUAL(1, tell(&reader, READ));
    child_stop(&reader);
    for (int i = 0; i < 1000 && !unknown; i++) {
        struct nvlx_region *late = register_range(owner, rest, 4096, NULL, NVLX_ACCESS_READ);
        unknown = nvlx_suspend(&late, 1, 0) == 0;
        usleep(20000); /* it is told by now, and does not answer */
        if (unknown) {
            OK(nvlx_suspend(&late, 1, 0));
            OK(nvlx_unregister(late, 0));
        }
    }
    EXPECT(unknown);
    EQUAL(0, kill(reader.pid, SIGCONT));
    child_end(&reader);
    end();
}

static void sleeper_role(int socket) {
    char path[PATH] = "", go;
    begin();
    snprintf(path, sizeof path, "%s", own_path());
    put(socket, path, sizeof path);
    get(socket, &go, 1);
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    put(socket, &go, 1);
    get_or_end(socket, &go, 1);
}

/* An owner that dies asleep is gone as any other. */
static void owners_die_asleep(void) {
    struct child sleeper, reader;
    char path[PATH], go = 1;
    child_start(&sleeper, "sleeper");
    get(sleeper.socket, path, sizeof path);
    start_reader_of(&reader, path);
    EQUAL(0, tell(&reader, PREPARE));
    put(sleeper.socket, &go, 1);
    get(sleeper.socket, &go, 1);
    EQUAL(CODE(NVLX_ESUSPENDED), tell(&reader, POST));
    EQUAL(0, tell(&reader, FOLLOWS));
    child_kill(&sleeper);
    for (double since = now_ms(); tell(&reader, FOLLOWS) != CODE(NVLX_ESTALE); usleep(500))
        EXPECT(now_ms() - since < 10000);
    EQUAL(CODE(NVLX_ESTALE), tell(&reader, POST));
    EQUAL(CODE(NVLX_ESTALE), tell(&reader, READ));
    child_end(&reader);
    unlink(path);
}

static void while_changes_are_held(void) {
    struct child reader;
    begin();
    start_reader(&reader);
    OK(nvlx_hold(owner));
    REFUSED(nvlx_suspend(&weights, 1, PATIENCE), NVLX_ETIMEDOUT, "nvlx_publish");
    OK(nvlx_publish(owner, NULL));
    OK(nvlx_suspend(&weights, 1, PATIENCE));
    EQUAL(CODE(NVLX_ESUSPENDED), tell(&reader, READ));
    child_end(&reader);
    end();
}

/* ---- All or nothing ------------------------------------------------------------------------------------ */

static void all_or_nothing(void) {
    struct nvlx_engine *other = make_engine(0);
    struct child reader;
    begin();
    char *theirs = allocate(other, 0, 4096, 1), *gone = chunks(3);
    struct nvlx_region *half = register_range(owner, memory, SIZE / 2, NULL, NVLX_ACCESS_READ),
                       *freed = register_range(owner, gone, SIZE, NULL, NVLX_ACCESS_READ),
                       *foreign = register_range(other, theirs, 4096, NULL, NVLX_ACCESS_READ),
                       *empty = register_range(owner, NULL, 0, "empty", NVLX_ACCESS_READ),
                       *private = register_range(owner, rest, 100, NULL, NVLX_ACCESS_NONE);
    free_chunks(gone);
    start_reader(&reader);
    REFUSED(nvlx_suspend((struct nvlx_region *[]){weights, NULL}, 2, PATIENCE), NVLX_EINVAL, "regions[1] is NULL");
    REFUSED(nvlx_suspend((struct nvlx_region *[]){weights, foreign}, 2, PATIENCE), NVLX_EINVAL, "another engine");
    REFUSED(nvlx_suspend((struct nvlx_region *[]){weights, freed}, 2, PATIENCE), NVLX_ESTALE, "freed");
    REFUSED(nvlx_suspend(NULL, 1, PATIENCE), NVLX_EINVAL, "regions");
    OK(nvlx_suspend(NULL, 0, PATIENCE));
    OK(nvlx_resume(NULL, 0, NULL));
    EQUAL(0, tell_of(&reader, READ, 1, published()));
    REFUSED(nvlx_resume(&weights, 1, NULL), NVLX_EINVAL, "is not suspended");

    struct nvlx_region *all[] = {weights, half, empty, private};
    OK(nvlx_suspend(all, 4, PATIENCE));
    OK(nvlx_suspend((struct nvlx_region *[]){weights, weights}, 2, PATIENCE));
    EQUAL(CODE(NVLX_ESUSPENDED), tell(&reader, READ));
    struct nvlxi_host_block *asleep = drop_chunks();
    REFUSED(nvlx_resume(all, 4, NULL), NVLX_ENOTSUP, "");
    void *stack = &asleep, *short_one = rest + SIZE - 10;
    REFUSED(nvlx_resume(&private, 1, &stack), NVLX_ENOTSUP, "");
    REFUSED(nvlx_resume(&private, 1, &short_one), NVLX_ERANGE, "beyond");
    OK(nvlxi_host_wake(asleep));
    fill(owner, memory, SIZE, 2);
    REFUSED(nvlx_resume((struct nvlx_region *[]){weights, half, weights}, 3, NULL), NVLX_EBUSY, "twice");
    REFUSED(nvlx_resume((struct nvlx_region *[]){weights, freed}, 2, NULL), NVLX_EINVAL, "is not suspended");
    EQUAL(CODE(NVLX_ESUSPENDED), tell_of(&reader, READ, 2, published()));
    OK(nvlx_resume(all, 4, NULL));
    EQUAL(0, tell_of(&reader, READ, 2, published()));
    OK(nvlx_unregister(half, PATIENCE));
    EQUAL(0, tell_of(&reader, READ, 2, published()));
    child_end(&reader);
    OK(nvlx_engine_destroy(other));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"nothing_grows", nothing_grows},
                                        {"names_stay", names_stay},
                                        {"memory_may_move", memory_may_move},
                                        {"strangers_are_not_it", strangers_are_not_it},
                                        {"lists_follow_their_mappings", lists_follow_their_mappings},
                                        {"transfers_are_awaited", transfers_are_awaited},
                                        {"who_gives_up_resumes", who_gives_up_resumes},
                                        {"the_dead_hold_nothing", the_dead_hold_nothing},
                                        {"late_followers_hold_nothing", late_followers_hold_nothing},
                                        {"owners_die_asleep", owners_die_asleep},
                                        {"while_changes_are_held", while_changes_are_held},
                                        {"all_or_nothing", all_or_nothing},
                                        {NULL, NULL}};
    static const struct role roles[] = {{"reader", reader_role}, {"sleeper", sleeper_role}, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 120);
}
