/* Ranges that a profiler sees, through NVTX: what is drawn, with which sizes, and that each range ends.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "device/nvtx_injection.h"

#define SIZE (256 * KIB)

static struct bench bench;
static struct nvlx_region *mine[2];
static struct injected_range seen[INJECTED_MAX];
static size_t count;

/* In the library that NVTX has loaded. */
static void look(void) {
    size_t (*ranges)(struct injected_range *, size_t);
    void *library = dlopen(getenv("NVTX_INJECTION64_PATH"), RTLD_NOW | RTLD_NOLOAD);
    if (!library)
        FAIL("NVTX has not loaded the profiler: %s", dlerror());
    *(void **)&ranges = dlsym(library, "injected_ranges");
    EXPECT(ranges != NULL);
    count = ranges(seen, INJECTED_MAX);
    EXPECT(count <= INJECTED_MAX);
    dlclose(library);
}

static size_t find_range(const char *name, size_t from) {
    while (from < count && strcmp(seen[from].name, name) != 0)
        from++;
    if (from == count)
        FAIL("no range \"%s\"", name);
    return from;
}

static void expect_range(const char *name, size_t from, uint64_t size) {
    const size_t at = find_range(name, from);
    EQUAL(size, seen[at].size);
    EQUAL(1, seen[at].ended);
}

static void each_step_is_a_range(void) {
    bench_begin(&bench, make_engine(0), SIZE);
    bench_register(&bench, SIZE, mine);
    const struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 100),
                                  bench_op(&bench, NVLX_OP_READ, 0, 1000, 1000, 50)};
    look();
    expect_range("register", 0, SIZE);
    size_t before = count;
    finish(start(bench.engine, ops, 2));
    look();
    expect_range("submit", before, 2);
    expect_range("validate", before, 2);
    expect_range("map", before, SIZE);
    expect_range("transfer", before, 150);
    before = count;
    struct nvlx_prepared *prepared = bench_prepare(&bench, ops, 2);
    finish(bench_post(prepared));
    OK(nvlx_prepared_free(prepared));
    look();
    expect_range("validate", before, 2);
    expect_range("submit", before, 2);
    expect_range("transfer", before, 150);
    before = count;
    OK(nvlx_peer_close(bench.peer));
    look();
    expect_range("close", before, SIZE);
    bench_end(&bench);
}

/* Also of calls that fail. */
static void each_range_ends(void) {
    struct nvlx_request *request;
    struct nvlx_region *region;
    bench_begin(&bench, make_engine(0), SIZE);
    bench_register(&bench, SIZE, mine);
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, SIZE + 1);
    EXPECT(nvlx_transfer(bench.engine, &op, 1, NULL, &request) == NVLX_ERANGE);
    EXPECT(nvlx_register(bench.engine, bench.local[0], SIZE * 1000, NULL, &region) == NVLX_ERANGE);
    move(bench.engine, NVLX_OP_WRITE, bench.peer, bench.local[1], bench.remote[1], 10);
    bench_end(&bench);
    look();
    EXPECT(count >= 8);
    for (size_t i = 0; i < count; i++)
        if (seen[i].ended != 1)
            FAIL("range %zu, \"%s\", has ended %d times", i, seen[i].name, seen[i].ended);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"each_step_is_a_range", each_step_is_a_range}, {"each_range_ends", each_range_ends}, {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
