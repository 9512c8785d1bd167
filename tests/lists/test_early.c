/* Long reads begin while what they read is still being mapped, by parts of their request, and nobody can tell but by
 * the time. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "faulty_memory.h"
#include "host_stream.h"
#include "rendezvous_support.h"

#define CHUNK   (2 * MIB)
#define CHUNKS  12
#define BYTES   (CHUNK * CHUNKS)
#define STEP    (2 * CHUNK)
#define RUNS    2     /* at most */
#define OPS_MAX 65536 /* of a list that may have parts */
#define SEED    5

static const char *name_of(int run) {
    return run ? "1" : "0";
}

/* ---- The owner: a child ----------------------------------------------------------------------------------- */

struct start {
    char address[64];
    int file_us; /* that a file takes */
    int runs;    /* of as many bytes; each is mapped by itself */
};

#define CHANGE   "c" /* the first run gets other bytes, as it should: while nobody can read it */
#define WITHDRAW "w" /* the first run is withdrawn while a list reads it */

static void change(struct nvlx_engine *engine, struct nvlx_region **first, void *bytes, size_t length) {
    OK(nvlx_unregister(*first, PATIENCE));
    fill(engine, bytes, length, SEED + 1);
    *first = register_range(engine, bytes, length, "0", NVLX_ACCESS_READ_WRITE);
}

static void withdraw_what_is_read(struct nvlx_region *first) {
    REFUSED(nvlx_unregister(first, SECOND_NS / 5), NVLX_ETIMEDOUT, "still holds 1 transfers and 1 mappings");
}

static void owner_of_chunks_role(int socket) {
    struct nvlx_alloc_options options;
    struct nvlx_region *first = NULL;
    struct start how;
    void *chunks = NULL, *made;
    char order;
    get(socket, &how, sizeof how);
    struct nvlx_engine *engine = make_faulty_engine(0);
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    options.chunk_length = CHUNK;
    const size_t length = BYTES / (size_t)how.runs;
    for (int i = 0; i < how.runs; i++) {
        OK(nvlx_alloc(engine, 0, length, &options, &made));
        fill(engine, made, length, SEED);
        struct nvlx_region *region = register_range(engine, made, length, name_of(i), NVLX_ACCESS_READ_WRITE);
        first = i ? first : region;
        chunks = i ? chunks : made;
    }
    atomic_store(&faults.file_delay_us, how.file_us);
    OK(nvlx_serve(engine, how.address, NULL));
    put(socket, "s", 1);
    while (get_or_end(socket, &order, 1)) {
        if (order == *WITHDRAW)
            withdraw_what_is_read(first);
        else
            change(engine, &first, chunks, length);
        put(socket, "s", 1);
    }
    OK(nvlx_engine_destroy(engine));
}

/* ---- The reader: this process ------------------------------------------------------------------------------ */

static struct child owner;
static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static char *local;
static struct nvlx_region *region;
static int runs;
static struct nvlx_op ops[OPS_MAX + 1];
static size_t count;
static struct nvlx_transfer_options options;

/* Ops that are all bytes, long and short, so that some cross from one chunk to the next. */
static void make_list(void) {
    static const size_t lengths[] = {3 * MIB / 2, 1000, 3 * MIB + 7, 300 * KIB, MIB, MIB - 1};
    const size_t each = BYTES / (size_t)runs;
    count = 0;
    for (int run = 0; run < runs; run++) {
        const uint64_t remote = find(peer, name_of(run));
        char *to = local + (size_t)run * each;
        for (size_t at = 0; at < each; count++) {
            const size_t wanted = lengths[count % COUNT(lengths)], length = wanted < each - at ? wanted : each - at;
            ops[count] = make_op(NVLX_OP_READ, peer, to + at, remote + at, length);
            at += length;
        }
    }
    EXPECT(count <= OPS_MAX);
}

static void begin_runs(int file_us, uint32_t max_requests, int run_count) {
    struct start how = {.file_us = file_us, .runs = run_count};
    runs = run_count;
    snprintf(how.address, sizeof how.address, "%s", own_name());
    child_start(&owner, "owner_of_chunks");
    put(owner.socket, &how, sizeof how);
    await_child(&owner);
    engine = make_faulty_engine(max_requests);
    engine->transfers.early_bytes = STEP;
    local = allocate(engine, 0, BYTES, 0);
    region = register_range(engine, local, BYTES, NULL, NVLX_ACCESS_NONE);
    peer = connect_to(engine, own_name());
    nvlx_transfer_options_init(&options);
    make_list();
}

static void begin_with(int file_us, uint32_t max_requests) {
    begin_runs(file_us, max_requests, 1);
}

static void begin(void) {
    begin_with(0, 0);
}

static void end(void) {
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
    child_end(&owner);
}

static struct nvlx_request *transfer(void) {
    struct nvlx_request *request;
    OK(nvlx_transfer(engine, ops, count, &options, &request));
    return request;
}

static size_t early_copies(void) {
    return atomic_load(&faults.issued_in_map);
}

static void *await_issue(void *unused) {
    for (const double since = now_ms(); !atomic_load(&faults.issued); usleep(500))
        EXPECT(now_ms() - since < 30000);
    return unused;
}

/* ---- All goes well ------------------------------------------------------------------------------------------ */

static void expect_counts(uint64_t transfers) {
    const struct nvlx_counts all = engine_counts(engine);
    struct nvlx_counts of_peer = {.size = sizeof of_peer};
    OK(nvlx_stats(engine, peer, &of_peer));
    EQUAL(transfers, of_peer.transfers);
    EQUAL(transfers * BYTES, of_peer.engine_read_bytes + of_peer.kernel_read_bytes);
    EQUAL(0, all.in_flight);
}

static void long_reads_begin_while_others_are_mapped(void) {
    begin();
    struct nvlx_request *request = transfer();
    struct nvlx_request_info info = {.size = sizeof info};
    EXPECT(early_copies() >= 2);
    nvlx_request_get_info(request, &info);
    EQUAL(count, info.ops);
    EQUAL(BYTES, info.bytes);
    EQUAL(BYTES, info.engine_bytes + info.kernel_bytes);
    finish(request);
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    expect_counts(1);
    fill(engine, local, BYTES, SEED + 1);
    finish(transfer());
    EQUAL(1, atomic_load(&faults.maps));
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    expect_counts(2);
    end();
}

static void *release_soon(void *unused) {
    usleep(50000);
    atomic_store(&faults.hold, false);
    return unused;
}

/* A part is not one. */
static void one_request_is_one(void) {
    struct nvlx_request *second;
    pthread_t thread;
    begin_with(0, 2);
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = transfer();
    EXPECT(early_copies() > 0);
    EQUAL(1, engine_counts(engine).in_flight);
    OK(nvlx_transfer(engine, ops, 1, &options, &second));
    REFUSED(nvlx_transfer(engine, ops, 1, &options, &second), NVLX_EBUSY, "2 requests are in flight");
    EQUAL(0, pthread_create(&thread, NULL, release_soon, NULL));
    finish(second);
    finish(request);
    EQUAL(0, pthread_join(thread, NULL));
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    end();
}

/* Nor one of the reader's, as its peer counts. */
static void a_peer_is_told_of_one(void) {
    char done;
    begin();
    atomic_store(&faults.hold, true);
    struct nvlx_request *request = transfer();
    EXPECT(early_copies() > 0);
    put(owner.socket, WITHDRAW, 1);
    get(owner.socket, &done, 1);
    atomic_store(&faults.hold, false);
    finish(request);
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    end();
}

static void a_request_may_be_left_to_the_engine(void) {
    begin();
    transfer();
    EXPECT(early_copies() > 0);
    end();
}

static void a_caller_may_only_test(void) {
    begin();
    struct nvlx_request *request = transfer();
    int code;
    for (const double since = now_ms(); (code = nvlx_test(request)) == NVLX_EAGAIN;)
        EXPECT(now_ms() - since < 30000);
    EQUAL(0, code);
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    OK(nvlx_request_free(request));
    end();
}

/* All that copies is where the caller's priority says. */
static void parts_have_the_priority_of_their_list(void) {
    const struct nvlxi_pooled_lane *lane;
    size_t lanes = 0;
    begin();
    options.priority = -1;
    finish(transfer());
    EXPECT(early_copies() > 0);
    for (lane = engine->transfers.pool.lanes[NVLXI_FREE]; lane; lane = lane->next, lanes++)
        EQUAL((uint64_t)-1, (uint64_t)lane->key.priority);
    EXPECT(lanes > 0);
    end();
}

/* Each GPU has a mapping of its own: a part reads by one. */
static void parts_may_be_of_several_gpus(void) {
    begin();
    char *other = allocate(engine, second_gpu(), BYTES, 0);
    register_range(engine, other, BYTES, NULL, NVLX_ACCESS_NONE);
    const uint64_t remote = ops[0].remote;
    for (size_t i = 0; i < count; i++)
        if (ops[i].length > 2 * MIB)
            ops[i].local = other + (ops[i].remote - remote);
    finish(transfer());
    EQUAL(2, atomic_load(&faults.maps));
    EXPECT(early_copies() > 0);
    for (size_t i = 0; i < count; i++)
        OK(nvlx_memcpy(engine, local + (ops[i].remote - remote), ops[i].local, ops[i].length));
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    expect_counts(1);
    end();
}

/* So that it has as many ops as a list with parts may have, and so many more. They move nothing. */
static void make_list_longer(size_t more) {
    const struct nvlx_op nothing = make_op(NVLX_OP_READ, peer, local, ops[0].remote, 0);
    while (count < OPS_MAX + more)
        ops[count++] = nothing;
}

static void long_lists_may_have_parts(void) {
    begin();
    make_list_longer(0);
    finish(transfer());
    EXPECT(early_copies() > 0);
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    end();
}

/* ---- What is told ------------------------------------------------------------------------------------------- */

static struct told {
    pthread_mutex_t mutex;
    unsigned transfers, parts, failures;
    uint64_t ops, bytes; /* of transfers */
} told = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void read_line(void *context, int level, const char *line) {
    uint64_t number, ops_told, by_engines, by_kernels;
    (void)level;
    (void)context;
    pthread_mutex_lock(&told.mutex);
    const char *sizes = strstr(line, " copies by engines (");
    if (sizes && strncmp(line, "early part ", 11) == 0)
        told.parts++;
    if (sizes && sscanf(line, "transfer %" SCNu64 " of %" SCNu64 " ops", &number, &ops_told) == 2 &&
        sscanf(sizes, " copies by engines (%" SCNu64 " bytes), %*u pieces by kernels (%" SCNu64, &by_engines,
               &by_kernels) == 2) {
        told.transfers++;
        told.ops += ops_told;
        told.bytes += by_engines + by_kernels;
    }
    if (sscanf(line, "transfer of %" SCNu64 " ops, %" SCNu64 " bytes failed", &ops_told, &by_engines) == 2) {
        told.failures++;
        EQUAL(count, ops_told);
        EQUAL(BYTES, by_engines);
    }
    pthread_mutex_unlock(&told.mutex);
}

/* A list has a line, with all its bytes. Its parts are told from it. */
static void the_log_tells_the_size_of_the_list(void) {
    begin();
    OK(nvlx_set_log(NVLX_LOG_DEBUG, read_line, NULL));
    finish(transfer());
    EXPECT(early_copies() > 0);
    EQUAL(1, told.transfers);
    EQUAL(count, told.ops);
    EQUAL(BYTES, told.bytes);
    EXPECT(told.parts > 0);
    EQUAL(0, told.failures);
    atomic_store(&faults.queries, true);
    GIVES(NVLX_EDEVICE, nvlx_request_free(transfer()));
    EQUAL(1, told.failures);
    atomic_store(&faults.queries, false);
    end();
}

/* ---- What waits for all ------------------------------------------------------------------------------------- */

static void expect_none_early(void) {
    finish(transfer());
    EQUAL(0, early_copies());
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    end();
}

static void what_orders_or_writes_is_not_early(void) {
    struct nvlx_request *request;
    begin();
    options.mechanism = NVLX_MECHANISM_KERNEL;
    expect_none_early();

    begin();
    options.flags = NVLX_DONE_EVENT;
    expect_none_early();

    begin();
    options.message = "read";
    options.message_length = 4;
    expect_none_early();

    begin();
    struct nvlx_peer_info known = {.size = sizeof known};
    OK(nvlx_peer_get_info(peer, &known));
    options.generation = known.generation;
    expect_none_early();

    begin();
    uint64_t *own = allocate(engine, 0, 8, 0);
    register_range(engine, own, 8, NULL, NVLX_ACCESS_NONE);
    ops[count++] = (struct nvlx_op){.opcode = NVLX_OP_SIGNAL, .local = own, .arg = 7};
    expect_none_early();

    begin();
    options.flags = NVLX_NO_MAP;
    GIVES(NVLX_EAGAIN, nvlx_transfer(engine, ops, count, &options, &request));
    end();

    begin();
    fill(engine, local, BYTES, SEED);
    for (size_t i = 0; i < count; i++)
        ops[i].opcode = NVLX_OP_WRITE;
    expect_none_early();

    begin();
    make_list_longer(1);
    expect_none_early();
}

/* Its turn may not have come. */
static void what_has_a_stream_is_not_early(void) {
    struct stream stream;
    begin();
    open_stream(&stream);
    stream_stands_still(&stream);
    options.stream = stream.lane;
    struct nvlx_request *request = transfer();
    EQUAL(0, early_copies());
    GIVES(NVLX_EAGAIN, nvlx_test(request));
    stream_goes_on(&stream);
    finish(request);
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    close_stream(&stream);
    end();
}

/* ---- What goes wrong ---------------------------------------------------------------------------------------- */

static void *kill_when_issued(void *unused) {
    await_issue(NULL);
    child_kill(&owner);
    return unused;
}

/* Nothing uses its memory when the call returns. */
static void an_owner_may_die_meanwhile(void) {
    struct nvlx_request *request;
    pthread_t thread;
    begin_with(20000, 0);
    EQUAL(0, pthread_create(&thread, NULL, kill_when_issued, NULL));
    const int code = nvlx_transfer(engine, ops, count, &options, &request);
    EQUAL(0, pthread_join(thread, NULL));
    EXPECT(code == NVLX_ESTALE || code == NVLX_EDEVICE);
    EXPECT(early_copies() > 0);
    EQUAL(0, engine_counts(engine).in_flight);
    EQUAL(0, engine_info(engine).mappings);
    OK(nvlx_unregister(region, 0));
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
}

/* It is told why, by the words of what went wrong last. */
static void parts_have_no_words(void) {
    struct nvlx_request *request;
    pthread_t thread;
    begin_with(20000, 0);
    atomic_store(&faults.copies, true);
    EQUAL(0, pthread_create(&thread, NULL, kill_when_issued, NULL));
    const int code = nvlx_transfer(engine, ops, count, &options, &request);
    EXPECT(code && !strstr(nvlx_last_error(), "on purpose"));
    EQUAL(0, pthread_join(thread, NULL));
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
}

static void *change_when_mapped(void *unused) {
    char done;
    for (const double since = now_ms(); atomic_load(&faults.maps) < RUNS; usleep(200))
        EXPECT(now_ms() - since < 30000);
    put(owner.socket, CHANGE, 1);
    get(owner.socket, &done, 1);
    return unused;
}

/* A run whose parts are done may change while another is mapped. What comes is all old or all new. */
static void what_changes_meanwhile_is_read_again(void) {
    struct nvlx_request *request;
    pthread_t thread;
    begin_runs(0, 0, RUNS);
    atomic_store(&faults.mapped_delay_us, 2000000);
    EQUAL(0, pthread_create(&thread, NULL, change_when_mapped, NULL));
    OK(nvlx_transfer(engine, ops, count, &options, &request));
    EQUAL(0, pthread_join(thread, NULL));
    struct nvlx_request_info info = {.size = sizeof info};
    nvlx_request_get_info(request, &info);
    EQUAL(BYTES, info.bytes);
    finish(request);
    EQUAL(0, wrong(engine, local, BYTES / RUNS, SEED + 1));
    EQUAL(0, wrong(engine, local + BYTES / RUNS, BYTES / RUNS, SEED));
    expect_counts(1);
    end();
}

static void *mend_when_issued(void *unused) {
    await_issue(NULL);
    atomic_store(&faults.copies, false);
    return unused;
}

/* The rest has come: it fails all the same, and tells why. */
static void a_part_that_fails_fails_the_request(void) {
    pthread_t thread;
    begin_with(5000, 0);
    atomic_store(&faults.copies, true);
    EQUAL(0, pthread_create(&thread, NULL, mend_when_issued, NULL));
    struct nvlx_request *request = transfer();
    EQUAL(0, pthread_join(thread, NULL));
    REFUSED(nvlx_wait(request, PATIENCE), NVLX_EDEVICE, "broke on purpose");
    GIVES(NVLX_EDEVICE, nvlx_request_free(request));
    finish(transfer());
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    expect_counts(1);
    end();
}

static void *unregister_when_issued(void *code) {
    await_issue(NULL);
    *(int *)code = nvlx_unregister(region, SECOND_NS / 20);
    atomic_store(&faults.hold, false);
    return NULL;
}

/* Whoever unregisters memory in the middle waits for them. The list as a whole is refused then. */
static void parts_keep_what_they_write(void) {
    struct nvlx_request *request;
    pthread_t thread;
    int code = 0;
    begin_with(5000, 0);
    atomic_store(&faults.hold, true);
    EQUAL(0, pthread_create(&thread, NULL, unregister_when_issued, &code));
    REFUSED(nvlx_transfer(engine, ops, count, &options, &request), NVLX_ERANGE, "not registered");
    expect_counts(0);
    EQUAL(0, pthread_join(thread, NULL));
    EQUAL((uint64_t)NVLX_ETIMEDOUT, (uint64_t)code);
    OK(nvlx_unregister(region, 0));
    end();
}

/* ---- Without memory ----------------------------------------------------------------------------------------- */

/* Starts the list while one allocation fails, which may end the connection. Whether all bytes are right if it is
 * accepted; if not, nothing is wrong with the list. */
static bool try_without(long allocation) {
    struct nvlx_request *request;
    memory_fail_at(allocation);
    memory_arm(true);
    const int code = nvlx_transfer(engine, ops, count, &options, &request);
    memory_arm(false);
    if (code)
        return code != NVLX_EINVAL && code != NVLX_ERANGE;
    const int outcome = nvlx_request_free(request); /* copies may have found none */
    return outcome ? outcome == NVLX_ENOMEM : wrong(engine, local, BYTES, SEED) == 0;
}

/* Each of those that the call makes, or others meanwhile; with a sanitizer some of them. */
static void any_allocation_may_fail(void) {
    const long step = sanitized() ? 7 : 1;
    long allocation = 1 - step;
    begin();
    do {
        allocation += step;
        EXPECT(try_without(allocation));
        EQUAL(0, engine_counts(engine).in_flight);
        OK(nvlx_peer_close(peer));
        fill(engine, local, BYTES, SEED + 1);
        peer = connect_to(engine, own_name());
        make_list();
    } while (memory_allocations() >= allocation);
    EXPECT(allocation > 20);
    finish(transfer());
    EQUAL(0, wrong(engine, local, BYTES, SEED));
    end();
}

static void what_is_not_taken_is_not_told(void) {
    struct nvlx_request *request;
    struct nvlxi_validation *validation, *same;
    begin();
    struct nvlxi_transfers *t = &engine->transfers;
    OK(nvlxi_transfers_take(t, NULL, &validation));
    nvlxi_transfers_return_validation(t, validation);
    memory_fail_at(1);
    memory_arm(true);
    const int code = nvlxi_transfers_take(t, &request, &validation);
    memory_arm(false);
    EQUAL((uint64_t)NVLX_ENOMEM, (uint64_t)code);
    EXPECT(!validation);
    OK(nvlxi_transfers_take(t, NULL, &same));
    nvlxi_transfers_return_validation(t, same);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"long_reads_begin_while_others_are_mapped", long_reads_begin_while_others_are_mapped},
        {"one_request_is_one", one_request_is_one},
        {"a_peer_is_told_of_one", a_peer_is_told_of_one},
        {"a_request_may_be_left_to_the_engine", a_request_may_be_left_to_the_engine},
        {"a_caller_may_only_test", a_caller_may_only_test},
        {"parts_have_the_priority_of_their_list", parts_have_the_priority_of_their_list},
        {"parts_may_be_of_several_gpus", parts_may_be_of_several_gpus},
        {"long_lists_may_have_parts", long_lists_may_have_parts},
        {"the_log_tells_the_size_of_the_list", the_log_tells_the_size_of_the_list},
        {"what_orders_or_writes_is_not_early", what_orders_or_writes_is_not_early},
        {"what_has_a_stream_is_not_early", what_has_a_stream_is_not_early},
        {"an_owner_may_die_meanwhile", an_owner_may_die_meanwhile},
        {"parts_have_no_words", parts_have_no_words},
        {"what_changes_meanwhile_is_read_again", what_changes_meanwhile_is_read_again},
        {"a_part_that_fails_fails_the_request", a_part_that_fails_fails_the_request},
        {"parts_keep_what_they_write", parts_keep_what_they_write},
        {"any_allocation_may_fail", any_allocation_may_fail},
        {"what_is_not_taken_is_not_told", what_is_not_taken_is_not_told},
        {0}};
    static const struct role roles[] = {{"owner_of_chunks", owner_of_chunks_role}, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
