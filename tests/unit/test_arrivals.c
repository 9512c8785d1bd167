/* What has arrived, against a map of single bytes. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/base.h"
#include "cmocka_main.h"
#include "local/arrivals.h"

enum { BYTES = 400, MARKS = 8, ROUNDS = 3000 };

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

struct model {
    bool comes[BYTES][MARKS]; /* a byte comes with a mark */
    bool seen[MARKS];
    unsigned asked[MARKS];
};

static bool seen(void *context, size_t mark) {
    struct model *model = context;
    model->asked[mark]++;
    return model->seen[mark];
}

static void add(struct nvlxi_arrivals *arrivals, struct model *model, uint64_t start, uint64_t end, size_t mark) {
    assert_int_equal(0, nvlxi_arrivals_add(arrivals, start, end, mark));
    for (uint64_t byte = start; byte < end; byte++)
        model->comes[byte][mark] = true;
}

/* No mark is asked that has nothing to do with it. */
static void expect(struct nvlxi_arrivals *arrivals, struct model *model, uint64_t start, uint64_t end) {
    bool right = true, concerned[MARKS] = {false};
    for (uint64_t byte = start; byte < end; byte++)
        for (size_t mark = 0; mark < MARKS; mark++) {
            concerned[mark] = concerned[mark] || model->comes[byte][mark];
            right = right && (!model->comes[byte][mark] || model->seen[mark]);
        }
    memset(model->asked, 0, sizeof model->asked);
    assert_int_equal(right, nvlxi_arrivals_seen(arrivals, start, end, seen, model));
    for (size_t mark = 0; mark < MARKS; mark++)
        assert_true(!model->asked[mark] || concerned[mark]);
}

static void test_random(void **state) {
    (void)state;
    uint64_t random = 3;
    for (int round = 0; round < ROUNDS; round++) {
        struct nvlxi_arrivals arrivals = {0};
        static struct model model;
        const uint32_t count = next_random(&random) % 30, longest = 1 + next_random(&random) % 60;
        memset(&model, 0, sizeof model);
        for (uint32_t i = 0, at = 0; i < count; i++) {
            const uint32_t length = 1 + next_random(&random) % longest;
            const bool follows = round % 3 == 0 || next_random(&random) % 2; /* else they may lie over each other */
            at = follows && at + length <= BYTES ? at : next_random(&random) % (BYTES - length);
            add(&arrivals, &model, at, at + length, round % 2 ? i % MARKS : i * MARKS / count);
            at += length;
            if (i % 10 == 9)
                expect(&arrivals, &model, 0, BYTES);
        }
        for (int i = 0; i < 20; i++) {
            const uint32_t start = next_random(&random) % BYTES;
            model.seen[next_random(&random) % MARKS] = true;
            expect(&arrivals, &model, start, start + 1 + next_random(&random) % (BYTES - start));
        }
        nvlxi_arrivals_free(&arrivals);
    }
}

/* What follows with the same mark takes no more room. */
static void test_joined(void **state) {
    (void)state;
    struct nvlxi_arrivals arrivals = {0};
    struct model model = {.seen = {true, false}};
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(0, nvlxi_arrivals_add(&arrivals, i, i + 1, 0));
    assert_int_equal(1, arrivals.count);
    assert_int_equal(0, nvlxi_arrivals_add(&arrivals, 100, 101, 1));
    assert_int_equal(2, arrivals.count);
    assert_true(nvlxi_arrivals_seen(&arrivals, 0, 100, seen, &model));
    assert_false(nvlxi_arrivals_seen(&arrivals, 99, 101, seen, &model));
    assert_true(nvlxi_arrivals_seen(&arrivals, 101, 110, seen, &model));
    nvlxi_arrivals_free(&arrivals);
}

static const struct CMUnitTest cases[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_joined)};
const struct program program = {.name = "arrivals", .cases = cases, .count = COUNT(cases)};
