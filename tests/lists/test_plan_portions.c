/* The planner, of lists that come in portions: that all ops are in them, in order, in memory that was taken before, and
 * which lists do not. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "plan_support.h"

#define LONG 20000
#define CUT  (LONG / 8) /* where the first portion ends, of short ops */

/* Every op of the list once, in order, whole, in pieces or joined; `fragments` of them. */
static void expect_all(uint64_t fragments) {
    const struct nvlxi_group *group = plan.groups;
    const bool read = group->opcode == NVLX_OP_READ;
    size_t index = 0;
    uint64_t at = 0; /* in the op */
    EXPECT(plan.sealed && plan.group_count == 1);
    EQUAL(fragments, plan.fragments[NVLXI_BY_KERNEL]);
    EQUAL(plan.bytes, plan.way_bytes[NVLXI_BY_KERNEL]);
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_KERNEL].first; chunk; chunk = chunk->next) {
        for (uint32_t i = 0; i < chunk->count; i++) {
            const struct nvlxi_fragment *fragment = &chunk->fragment[i];
            EXPECT(fragment->length > 0 && fragment->length <= PIECE_MAX);
            for (uint64_t done = 0, part; done < fragment->length; done += part) {
                const struct nvlx_op *op = &checked.ops[index];
                const uint64_t local = (uint64_t)(uintptr_t)op->local + at, remote = checked.remote[index] + at;
                EQUAL(read ? local : remote, fragment->destination + done);
                EQUAL(read ? remote : local, fragment->source + done);
                part = nvlxi_min(op->length - at, fragment->length - done);
                at += part;
                if (at == op->length) {
                    at = 0;
                    index++;
                }
            }
        }
    }
    EQUAL(checked.count, index);
}

/* Portions of ever more ops, for which no more memory is taken. */
static void plan_in_portions(uint64_t fragments) {
    size_t portions = 1;
    uint64_t listed = 0;
    OK(nvlxi_plan_begin(&plan, &checked));
    EXPECT(!plan.sealed && checked.planned <= checked.count / 8);
    chunks.fail_at = chunks.taken + 1;
    for (; !plan.sealed; portions++) {
        const size_t before = checked.planned;
        const uint64_t listed_before = listed;
        listed = 0;
        for (const struct nvlxi_chunk *chunk = plan.groups->lists[NVLXI_BY_KERNEL].first; chunk; chunk = chunk->next)
            listed += chunk->count;
        EXPECT(checked.planned < checked.count && listed > listed_before);
        nvlxi_plan_next(&plan, &checked);
        EXPECT(checked.planned >= nvlxi_min(2 * before, checked.count));
        EXPECT(before < 8192 || checked.planned <= 2 * before);
    }
    EXPECT(portions >= 2 && portions < 10 && !plan.spare);
    expect_all(fragments);
}

static void make_long(uint16_t opcode, uint64_t length) {
    struct nvlxi_group *group = group_for(opcode, true);
    for (size_t i = 0; i < LONG; i++)
        add_checked(group, &(struct nvlxi_fragment){LOCAL + 16 * PIECE * i, REMOTE + 17 * PIECE * i, length});
}

/* Each of these ops goes on where the one before it ends. */
static void make_row(size_t first, size_t count) {
    struct nvlx_op *ops = (struct nvlx_op *)checked.ops;
    for (size_t i = first; i < first + count; i++) {
        ops[i].local = (char *)ops[i - 1].local + ops[i - 1].length;
        checked.remote[i] = checked.remote[i - 1] + ops[i - 1].length;
    }
}

static void long_lists_come_in_portions(void) {
    static const uint32_t capacities[] = {700, LONG - 1, LONG, 5 * LONG};
    static const uint64_t lengths[] = {1, 9000, PIECE, 3 * PIECE + 1, ENGINE_MIN - 9};
    for (size_t i = 0; i < 4 * COUNT(capacities) * COUNT(lengths); i++) {
        const uint64_t length = lengths[i / 4 % COUNT(lengths)];
        begin_checked(LONG);
        begin(i & 1 ? NVLX_MECHANISM_AUTO : NVLX_MECHANISM_KERNEL);
        chunks.capacity = capacities[i / 4 / COUNT(lengths)];
        make_long(i & 2 ? NVLX_OP_READ : NVLX_OP_WRITE, length);
        plan_in_portions(LONG * ((length + PIECE - 1) / PIECE));
        end();
        end_checked();
    }
    chunks.capacity = 7;
}

/* What is said of a list in portions is forgotten with it. */
static void portions_are_forgotten(void) {
    begin_checked(LONG);
    begin(NVLX_MECHANISM_AUTO);
    make_long(NVLX_OP_READ, 100);
    plan_in_portions(LONG);
    nvlxi_plan_reset(&plan, NVLX_MECHANISM_AUTO);
    chunks.fail_at = 0;
    add_fillers(group_for(NVLX_OP_READ, true), 10);
    add(group_for(NVLX_OP_READ, true), LOCAL, REMOTE, ENGINE_MIN);
    OK(nvlxi_plan_seal(&plan));
    EQUAL(1, plan.fragments[NVLXI_BY_ENGINES]);
    end();
    end_checked();
}

/* No portion of a very long one is much longer than others: the last is copied when all is planned. */
static void portions_of_very_long_lists(void) {
    static const size_t counts[] = {300000, 1200000};
    for (size_t i = 0; i < COUNT(counts); i++) {
        const size_t count = counts[i], step = nvlxi_max(32768, count / 24);
        int portions = 1;
        begin_checked(count);
        begin(NVLX_MECHANISM_AUTO);
        chunks.capacity = 20000;
        for (size_t op = 0; op < count; op++)
            add_checked(group_for(NVLX_OP_READ, true),
                        &(struct nvlxi_fragment){LOCAL + 200 * op, REMOTE + 300 * op, 100});
        OK(nvlxi_plan_begin(&plan, &checked));
        for (; !plan.sealed; portions++) {
            const size_t before = checked.planned;
            nvlxi_plan_next(&plan, &checked);
            EXPECT(checked.planned <= before + nvlxi_max(step, 3 * 8192));
            EXPECT(checked.planned >= nvlxi_min(count, before + nvlxi_min(before, step)));
        }
        EXPECT(portions <= 32);
        EQUAL(count, all_fragments());
        end();
        end_checked();
    }
    chunks.capacity = 7;
}

/* So do shorter ones that have many bytes. */
static void large_lists_come_in_portions(void) {
    begin_checked(LONG);
    begin(NVLX_MECHANISM_AUTO);
    make_long(NVLX_OP_READ, 2 * PIECE);
    checked.count = checked.stretches[0].end = 1100;
    plan_in_portions(2 * checked.count);
    end();
    end_checked();
}

/* Adjacent ops in later portions are joined, and then cut as all that is long. */
static void portions_join_what_is_adjacent(void) {
    begin_checked(LONG);
    begin(NVLX_MECHANISM_AUTO);
    make_long(NVLX_OP_READ, PIECE / 2);
    make_row(LONG - 1000, 1000);
    const uint64_t row = 1001 * PIECE / 2, piece = row / 32 / PIECE * PIECE;
    plan_in_portions(LONG - 1001 + (row + piece - 1) / piece);
    end();
    end_checked();
}

/* Whatever does not go to kernels alone is planned as a whole. */
static void other_lists_do_not(void) {
    enum {
        FEW_OPS,
        AN_EMPTY_OP,
        A_LONG_OP,
        AN_UNUSUAL_OP,
        A_LONG_ROW,
        A_ROW_AT_THE_CUT,
        ENGINES,
        A_SHORT_ROW,
        BY_KERNEL,
        CASES
    };
    for (int which = 0; which < CASES; which++) {
        begin_checked(LONG + 1);
        begin(which == ENGINES     ? NVLX_MECHANISM_COPY_ENGINE
              : which == BY_KERNEL ? NVLX_MECHANISM_KERNEL
                                   : NVLX_MECHANISM_AUTO);
        make_long(NVLX_OP_READ, which < A_SHORT_ROW ? 1000 : 2);
        if (which == FEW_OPS)
            checked.count = checked.stretches[0].end = 8000;
        size_t joined = which >= A_SHORT_ROW ? LONG - 1 : which == A_LONG_ROW ? 1100 : 0; /* 1.1 MB: for the engines */
        make_row(1, joined);
        if (which == A_ROW_AT_THE_CUT) { /* open when the first portion ends, and for the engines, for its alignment */
            checked.remote[CUT - 70]++;
            joined = 70;
            make_row(CUT - 69, joined);
        }
        uint64_t length = which == AN_EMPTY_OP     ? 0
                          : which == A_LONG_OP     ? ENGINE_MIN
                          : which == AN_UNUSUAL_OP ? 3 * PIECE
                                                   : 10;
        if (which == AN_EMPTY_OP || which == A_LONG_OP || which == AN_UNUSUAL_OP)
            add_checked(group_for(NVLX_OP_READ, true), &(struct nvlxi_fragment){LOCAL, REMOTE + 1, length});
        OK(nvlxi_plan_begin(&plan, &checked));
        EXPECT(plan.sealed);
        EQUAL(checked.count - joined - (which == AN_EMPTY_OP), all_fragments());
        end();
        end_checked();
    }
}

/* ---- Several groups ------------------------------------------------------------------------------------- */

#define GROUPS 3
enum shape { AFTER_EACH_OTHER, IN_TURNS, IN_ROUNDS, IN_RUNS, FEW_OF_ONE, SHAPES };

static size_t group_of(enum shape shape, size_t index) {
    switch (shape) {
    case AFTER_EACH_OTHER:
        return index * GROUPS / LONG;
    case IN_TURNS:
    case IN_ROUNDS:
        return index % GROUPS;
    case IN_RUNS:
        return index / 10 % GROUPS;
    default:
        return index == LONG - 1 ? 2 : index < 3;
    }
}

/* Reads from several GPUs, apart from each other. */
static void make_groups(enum shape shape, struct nvlxi_group *groups[GROUPS]) {
    for (size_t i = 0; i < GROUPS; i++)
        groups[i] = plan_group(0, 0, (uint16_t)i, NVLX_OP_READ, true);
    checked.pair_of = calloc(LONG, 1);
    EXPECT(groups[0] && groups[1] && groups[2] && checked.pair_of);
    for (size_t i = 0; i < LONG; i++) {
        const size_t which = group_of(shape, i);
        add_checked(groups[which], &(struct nvlxi_fragment){LOCAL + 200 * i, REMOTE + 300 * i, 100});
        for (size_t j = 0; j < checked.pair_count; j++)
            if (checked.pairs[j].group == groups[which])
                checked.pair_of[i] = (uint8_t)j;
    }
    if (shape != IN_TURNS && shape != IN_ROUNDS)
        return;
    checked.stretch_count = 1;
    checked.stretches[0] =
        (struct nvlxi_stretch){0, LONG, shape == IN_TURNS ? NVLXI_IN_TURNS : NVLXI_IN_ROUNDS, GROUPS};
}

/* The ops of a group that are in its list by now: in order, each once. */
static size_t count_listed(enum shape shape, const struct nvlxi_group *group, size_t which) {
    size_t index = 0, count = 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_BY_KERNEL].first; chunk; chunk = chunk->next)
        for (uint32_t i = 0; i < chunk->count; i++, index++, count++) {
            while (group_of(shape, index) != which)
                index++;
            EQUAL(LOCAL + 200 * index, chunk->fragment[i].destination);
            EQUAL(REMOTE + 300 * index, chunk->fragment[i].source);
            EQUAL(100, chunk->fragment[i].length);
        }
    return count;
}

/* All groups have some of the first portion, and what comes is in memory that was taken before. */
static void several_groups_come_in_portions(void) {
    static const uint32_t capacities[] = {700, LONG};
    for (int i = 0; i < SHAPES * (int)COUNT(capacities); i++) {
        const enum shape shape = (enum shape)(i % SHAPES);
        struct nvlxi_group *groups[GROUPS];
        size_t listed[GROUPS] = {0}, all = 0;
        begin_checked(LONG);
        begin(i & 1 ? NVLX_MECHANISM_AUTO : NVLX_MECHANISM_KERNEL);
        chunks.capacity = capacities[i / SHAPES];
        make_groups(shape, groups);
        OK(nvlxi_plan_begin(&plan, &checked));
        EXPECT(!plan.sealed && checked.planned <= CUT + GROUPS);
        for (size_t which = 0; which < GROUPS && shape != FEW_OF_ONE; which++)
            EXPECT((listed[which] = count_listed(shape, groups[which], which)) >= CUT / GROUPS - 10);
        chunks.fail_at = chunks.taken + 1;
        while (!plan.sealed)
            nvlxi_plan_next(&plan, &checked);
        for (size_t which = 0; which < GROUPS; which++) {
            const size_t more = count_listed(shape, groups[which], which);
            EXPECT(more > listed[which]);
            all += more;
        }
        EQUAL(LONG, all);
        EXPECT(!plan.spare);
        free(checked.pair_of);
        end();
        end_checked();
    }
    chunks.capacity = 7;
}

/* Where there is no memory for the portions that are left, in case nothing in them can be joined, the list is planned
 * as a whole. */
static void memory_that_fails_before_a_portion(void) {
    long call = 0, whole = 0;
    begin_checked(LONG);
    do {
        checked.count = checked.stretch_count = checked.planned = checked.stretch = 0;
        begin(NVLX_MECHANISM_AUTO);
        chunks.capacity = 700;
        make_long(NVLX_OP_READ, 100);
        chunks.fail_at = ++call;
        int code = nvlxi_plan_begin(&plan, &checked);
        EXPECT(code == 0 || code == NVLX_EBUSY);
        if (plan.sealed) {
            expect_all(LONG);
            whole++;
        }
        end();
    } while (chunks.taken >= call);
    EXPECT(call > 20 && whole > 10 && whole < call - 3);
    end_checked();
}

static void memory_for_what_is_joined(void) {
    begin_checked(LONG);
    begin(NVLX_MECHANISM_AUTO);
    make_long(NVLX_OP_READ, 100);
    make_row(LONG / 2, LONG / 2);
    chunks.capacity = 1000;
    chunks.most = 12;
    OK(nvlxi_plan_begin(&plan, &checked));
    EQUAL(LONG / 2 - 1 + 16, plan.fragments[NVLXI_BY_KERNEL]); /* 1,000,100 bytes in pieces */
    EQUAL(100 * LONG, plan.bytes);
    chunks.capacity = 7;
    end();
    end_checked();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"long_lists_come_in_portions", long_lists_come_in_portions},
                                        {"portions_are_forgotten", portions_are_forgotten},
                                        {"portions_of_very_long_lists", portions_of_very_long_lists},
                                        {"large_lists_come_in_portions", large_lists_come_in_portions},
                                        {"portions_join_what_is_adjacent", portions_join_what_is_adjacent},
                                        {"other_lists_do_not", other_lists_do_not},
                                        {"several_groups_come_in_portions", several_groups_come_in_portions},
                                        {"memory_that_fails_before_a_portion", memory_that_fails_before_a_portion},
                                        {"memory_for_what_is_joined", memory_for_what_is_joined},
                                        {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 20);
}
