/* Every allocation fails once while processes meet: what fails says so, works when it is asked once more, and leaves
 * nothing behind; the service thread goes on, or ends the connection. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "faulty_memory.h"
#include "rendezvous_support.h"

#define SIZE     (64 * KIB)
#define RUNS_MAX 2000

static long memory_n;

static int quiet_connect(struct nvlx_engine *engine, struct nvlx_peer **peer) {
    int code = nvlx_connect(engine, own_path(), PATIENCE, peer);
    if (code && code != NVLX_ENOMEM && code != NVLX_ESTALE)
        FAIL("connecting gives %d: %s (allocation %ld)", code, nvlx_last_error(), memory_n);
    return code;
}

static int quiet_serve(struct nvlx_engine *engine) {
    int code = nvlx_serve(engine, own_path(), NULL);
    if (code && code != NVLX_ENOMEM)
        FAIL("serving gives %d: %s (allocation %ld)", code, nvlx_last_error(), memory_n);
    return code;
}

/* The change reaches the peer, or the connection has ended with a reason. */
static void await_change(struct nvlx_peer *peer) {
    uint64_t address, length;
    double begin = now_ms();
    while (nvlx_peer_find(peer, "later", &address, &length) && !nvlx_peer_test(peer)) {
        if (now_ms() - begin > 20000)
            FAIL("neither the change nor an end is seen (allocation %ld)", memory_n);
        usleep(200);
    }
}

static void meet(struct nvlx_engine *server, struct nvlx_engine *client, const void *memory) {
    struct nvlx_peer *peer;
    memory_arm(true);
    bool failed = quiet_serve(server) != 0;
    memory_arm(false);
    if (failed)
        OK(nvlx_serve(server, own_path(), NULL));
    memory_arm(true);
    failed = quiet_connect(client, &peer) != 0;
    memory_arm(false);
    if (failed)
        OK(nvlx_connect(client, own_path(), PATIENCE, &peer));
    find(peer, "before");
    struct nvlx_region *later = register_range(server, memory, 100, "later", NVLX_ACCESS_READ);
    memory_arm(true);
    await_change(peer);
    memory_arm(false);
    OK(nvlx_unregister(later, PATIENCE));
    OK(nvlx_peer_close(peer));
}

/* Says whether the fault was reached. */
static bool live(void) {
    struct holdings before = holdings();
    struct nvlx_engine *server = make_engine(0), *client = make_engine(0);
    char *memory = allocate(server, 0, SIZE, 1);
    register_range(server, memory, SIZE, "before", NVLX_ACCESS_READ);
    memory_fail_at(memory_n);
    meet(server, client, memory);
    bool reached = memory_allocations() >= memory_n;
    OK(nvlx_engine_destroy(client));
    OK(nvlx_engine_destroy(server));
    char when[40];
    snprintf(when, sizeof when, "allocation %ld", memory_n);
    if (memory_n)
        expect_holdings(&before, when);
    if (memory_live())
        FAIL("%s: %zu allocations leaked", when, memory_live());
    return reached;
}

static void no_log(void *context, int level, const char *message) {
    (void)context, (void)level, (void)message;
}

static void every_allocation(void) {
    OK(nvlx_set_log(NVLX_LOG_DEBUG, no_log, NULL));
    live(); /* what libraries allocate once */
    for (memory_n = 1; live() && memory_n < RUNS_MAX; memory_n++)
        ;
    printf("           %ld allocations failed, one at a time\n", memory_n - 1);
    EXPECT(memory_n > 20 && memory_n < RUNS_MAX);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"every_allocation", every_allocation}, {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 60);
}
