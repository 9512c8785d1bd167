/* What may wait for kernels, or takes milliseconds in a driver, happens in calls that say so, and with no lock that
 * others need. On the host backend, whose calls of that kind are counted. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "bench.h"
#include "faulty_device.h"
#include "host_stream.h"

#define SIZE     (4 * MIB)
#define OPS      20000
#define DELAY_MS 1500

static struct bench bench;
static struct nvlx_op *ops;

static void begin(size_t list_memory) {
    struct nvlx_engine *engine;
    struct nvlx_config config;
    fill_config(&config);
    config.list_memory = list_memory;
    OK(nvlxi_engine_create(&config, &faulty_device, &engine));
    bench_begin(&bench, engine, SIZE);
    owner_register(&bench.owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "near");
    owner_register(&bench.owner, 1, 1, 0, SIZE, NVLX_ACCESS_READ_WRITE, "far");
    bench_open_peer(&bench);
    register_range(bench.engine, bench.local[0], SIZE, NULL, NVLX_ACCESS_NONE);
    ops = calloc(OPS, sizeof *ops);
    EXPECT(ops != NULL);
    for (size_t i = 0; i < OPS; i++)
        ops[i] = make_op(NVLX_OP_READ, bench.peer, bench.local[0] + 40 * i, bench.remote[0] + 13 * (OPS - 1 - i), 13);
}

static void end(void) {
    free(ops);
    bench_end(&bench);
}

static int try_prepare(size_t first, size_t count, struct nvlx_prepared **prepared) {
    return nvlx_prepare(bench.engine, ops + first, count, NULL, prepared);
}

/* ---- Pinned memory -------------------------------------------------------------------------------------- */

/* Lists of all lengths come and go in little memory: none of it is given to the driver, all of it is used again. */
static void pinned_memory_is_kept(void) {
    enum { LISTS = 200, FEW = 100, ALL = LISTS * FEW };
    struct nvlx_prepared *lists[LISTS], *all;
    struct nvlx_request *request;
    begin((size_t)ALL * 24 + LISTS * 256);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < LISTS; i++)
            OK(try_prepare(FEW * i, FEW, &lists[i]));
        for (size_t i = 0; i < LISTS; i++)
            OK(nvlx_prepared_free(lists[(i * 77 + 5) % LISTS]));
        OK(try_prepare(0, ALL, &all));
        atomic_store(&faults.kernels, 0);
        OK(nvlx_post(all, NULL, &request));
        finish(request);
        EQUAL(1, atomic_load(&faults.kernels)); /* in one piece again */
        OK(nvlx_prepared_free(all));
        OK(nvlx_transfer(bench.engine, ops, ALL - 1000, NULL, &request));
        finish(request);
    }
    bench_apply(&bench, ops, ALL);
    bench_compare(&bench, "with little memory");
    EQUAL(0, atomic_load(&faults.list_frees));
    end();
    EQUAL(atomic_load(&faults.list_allocs), atomic_load(&faults.list_frees));
}

/* A list is whole even if its memory consists of several pieces. */
static void lists_lie_in_pieces(void) {
    enum { LISTS = 40, PIECE = 500 };
    struct nvlx_prepared *lists[LISTS], *all;
    struct nvlx_request *request;
    begin((size_t)LISTS * PIECE * 24);
    size_t count = 0;
    while (count < LISTS && try_prepare(PIECE * count, PIECE, &lists[count]) == 0)
        count++;
    EXPECT(count >= LISTS - 2);
    for (size_t i = 0; i < count; i += 2)
        OK(nvlx_prepared_free(lists[i]));
    atomic_store(&faults.kernels, 0);
    OK(try_prepare(0, PIECE * (count / 2) - PIECE, &all));
    OK(nvlx_post(all, NULL, &request));
    finish(request);
    EXPECT(atomic_load(&faults.kernels) > 1);
    bench_apply(&bench, ops, PIECE * (count / 2) - PIECE);
    bench_compare(&bench, "in pieces");
    OK(nvlx_prepared_free(all));
    for (size_t i = 1; i < count; i += 2)
        OK(nvlx_prepared_free(lists[i]));
    end();
}

static void *transfer_all(void *unused) {
    struct nvlx_request *request;
    (void)unused;
    OK(nvlx_transfer(bench.engine, ops, OPS, NULL, &request));
    finish(request);
    return NULL;
}

/* While a transfer takes memory from the driver, others register: the tables are not locked meanwhile. */
static void taking_memory_holds_up_nobody(void) {
    pthread_t thread;
    begin(0);
    atomic_store(&faults.list_delay_us, DELAY_MS * 1000);
    long before = atomic_load(&faults.list_allocs);
    EQUAL(0, pthread_create(&thread, NULL, transfer_all, NULL));
    while (atomic_load(&faults.list_allocs) == before)
        usleep(1000);
    double since = now_ms();
    struct nvlx_region *region = register_range(bench.engine, bench.local[1], 1000, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_unregister(region, 0));
    move(bench.engine, NVLX_OP_READ, bench.peer, bench.local[0] + SIZE - 100, bench.remote[0], 100);
    EXPECT(now_ms() - since < DELAY_MS / 2.0);
    EQUAL(0, pthread_join(thread, NULL));
    end();
}

/* ---- Kernels -------------------------------------------------------------------------------------------- */

static void kernels_are_not_loaded_by_transfers(void) {
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    struct nvlx_transfer_options options;
    struct stream stream;
    begin(0);
    open_stream(&stream);
    nvlx_transfer_options_init(&options);
    EXPECT(atomic_load(&faults.loads) > 0); /* nvlx_register */
    long before = atomic_load(&faults.loads);
    OK(nvlx_transfer(bench.engine, ops, OPS, &options, &request));
    finish(request);
    OK(try_prepare(0, OPS, &prepared));
    options.stream = stream.lane;
    OK(nvlx_transfer(bench.engine, ops, OPS, &options, &request));
    finish(request);
    OK(nvlx_post(prepared, &options, &request));
    finish(request);
    OK(nvlx_prepared_free(prepared));
    EQUAL(before, atomic_load(&faults.loads));
    OK(nvlx_peer_map(bench.peer, 0, bench.remote[0], 100));
    EQUAL(before + 1, atomic_load(&faults.loads));
    close_stream(&stream);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"pinned_memory_is_kept", pinned_memory_is_kept},
                                        {"lists_lie_in_pieces", lists_lie_in_pieces},
                                        {"taking_memory_holds_up_nobody", taking_memory_holds_up_nobody},
                                        {"kernels_are_not_loaded_by_transfers", kernels_are_not_loaded_by_transfers},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
