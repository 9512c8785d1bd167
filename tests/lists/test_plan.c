/* The planner alone: what it joins, how it places, where chunks lie, and that no byte is lost, whatever the list.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "plan_support.h"

/* ---- Joining ------------------------------------------------------------------------------------------- */

static void expect_fragments(uint64_t fragments, uint64_t bytes) {
    OK(nvlxi_plan_seal(&plan));
    EQUAL(fragments, all_fragments());
    EQUAL(bytes, plan.bytes);
    EQUAL(bytes, plan.way_bytes[NVLXI_BY_KERNEL] + plan.way_bytes[NVLXI_BY_ENGINES]);
    end();
}

/* `count` fragments of 100 bytes, one every so many bytes on either side. */
static void add_row(size_t count, int64_t destination_step, int64_t source_step) {
    struct nvlxi_group *group = group_for(NVLX_OP_READ, true);
    for (size_t i = 0; i < count; i++)
        add(group, LOCAL + i * (uint64_t)destination_step, REMOTE + i * (uint64_t)source_step, 100);
}

static void adjacent_on_both_sides_are_joined(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        begin(mechanisms[i]);
        add_row(600, 100, 100);
        expect_fragments(1, 60000);
        begin(mechanisms[i]);
        add_row(10, 100, 100);
        struct nvlxi_group *group = group_for(NVLX_OP_READ, true);
        add(group, LOCAL + 5000, REMOTE + 5000, 0); /* of no bytes: adds nothing */
        add(group, LOCAL + 6000, REMOTE + 6000, 1);
        add(group, LOCAL + 6001, REMOTE + 6001, 5000);
        expect_fragments(2, 6001);
    }
}

static void adjacent_on_one_side_are_not(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    static const int64_t steps[][2] = {{100, 101}, {101, 100}, {100, 99}, {99, 100}, {-100, -100}, {100, 0}, {0, 100}};
    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        for (size_t j = 0; j < COUNT(steps); j++) {
            begin(mechanisms[i]);
            add_row(60, steps[j][0], steps[j][1]);
            expect_fragments(60, 6000);
        }
    }
}

static void joined_in_the_order_of_the_ops(void) {
    begin(NVLX_MECHANISM_AUTO);
    struct nvlxi_group *group = group_for(NVLX_OP_READ, true);
    for (size_t i = 0; i < 20; i++)
        add(group, LOCAL + 10 * (i ^ 1), REMOTE + 10 * (i ^ 1), 10); /* 1 0 3 2: 0 goes on to 3, no other joins */
    expect_fragments(20, 200);
    begin(NVLX_MECHANISM_AUTO);
    group = group_for(NVLX_OP_READ, true);
    for (size_t i = 0; i < 30; i++)
        add(group, LOCAL + 10 * i + i / 3, REMOTE + 10 * i, 10); /* threes that are adjacent */
    expect_fragments(10, 300);
}

/* Of many borders, one on either side of a row is in its way. */
static void none_is_joined_over_a_border(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    struct nvlxi_borders borders = {0};
    for (size_t i = 0; i < 3 * COUNT(mechanisms); i++) {
        begin(mechanisms[i / 3]);
        nvlxi_borders_begin(&borders);
        for (uint64_t other = 0; other < 1000; other++) {
            OK(nvlxi_borders_note(&borders, LOCAL + 100 * other + 1));
            OK(nvlxi_borders_note(&borders, REMOTE + 100 * (600 + other)));
        }
        if (i % 3 != 1)
            OK(nvlxi_borders_note(&borders, LOCAL + 100 * 7));
        if (i % 3 != 0)
            OK(nvlxi_borders_note(&borders, REMOTE + 100 * 599));
        plan.borders = &borders;
        add_row(600, 100, 100);
        expect_fragments(i % 3 == 2 ? 3 : 2, 60000);
    }
    nvlxi_borders_free(&borders);
}

/* ---- Groups -------------------------------------------------------------------------------------------- */

static void groups_by_pair_and_direction(void) {
    struct nvlxi_group *groups[5];
    begin(NVLX_MECHANISM_AUTO);
    groups[0] = plan_group(0, 0, 0, NVLX_OP_READ, true);
    groups[1] = plan_group(0, 0, 0, NVLX_OP_WRITE, true);
    groups[2] = plan_group(1, 0, 0, NVLX_OP_READ, true);
    groups[3] = plan_group(0, 1, 0, NVLX_OP_READ, true);
    groups[4] = plan_group(0, 0, 1, NVLX_OP_READ, true);
    for (size_t i = 0; i < COUNT(groups); i++) {
        for (size_t j = 0; j < i; j++)
            EXPECT(groups[i] != groups[j]);
    }
    EXPECT(plan_group(0, 0, 1, NVLX_OP_READ, true) == groups[4]);
    EXPECT(plan_group(0, 0, 0, NVLX_OP_READ, true) == groups[0]);
    EQUAL(COUNT(groups), plan.group_count);
    /* in turns, each the continuation of its group's last one: joined group by group */
    for (size_t round = 0; round < 30; round++)
        for (size_t i = 0; i < COUNT(groups); i++)
            add(groups[i], LOCAL + 100 * round, REMOTE + 100 * round, 100);
    for (size_t i = 0; i < COUNT(groups); i++)
        EQUAL(3000, groups[i]->bytes);
    for (size_t i = 0; i < COUNT(groups); i++)
        EQUAL(groups[i]->opcode == NVLX_OP_READ ? 32 : 64, groups[i]->sms);
    expect_fragments(COUNT(groups), 3000 * COUNT(groups));
    EQUAL(0, plan.group_count);
}

/* ---- Choosing ------------------------------------------------------------------------------------------ */

struct choice {
    uint32_t mechanism;
    bool kernels;
    uint64_t length, shift; /* how far apart the alignments of source and destination are */
    uint64_t fragments[NVLXI_WAYS];
};

static const struct choice choices[] = {
    {NVLX_MECHANISM_AUTO, true, 1, 0, {1, 0}},
    {NVLX_MECHANISM_AUTO, true, PIECE, 0, {1, 0}},
    {NVLX_MECHANISM_AUTO, true, PIECE, 1, {1, 0}},
    {NVLX_MECHANISM_AUTO, true, PIECE + 1, 0, {2, 0}},
    {NVLX_MECHANISM_AUTO, true, PIECE + 1, 4, {2, 0}},
    {NVLX_MECHANISM_AUTO, true, PIECE + 1, 1, {0, 1}},
    {NVLX_MECHANISM_AUTO, true, PIECE + 1, 2, {0, 1}},
    {NVLX_MECHANISM_AUTO, true, ENGINE_MIN - 1, 0, {16, 0}},
    {NVLX_MECHANISM_AUTO, true, ENGINE_MIN, 0, {0, 1}},
    {NVLX_MECHANISM_AUTO, true, UINT64_C(1) << 34, 0, {0, 1}},
    {NVLX_MECHANISM_AUTO, false, 1, 0, {0, 1}},
    {NVLX_MECHANISM_AUTO, false, PIECE + 1, 0, {0, 1}},
    {NVLX_MECHANISM_COPY_ENGINE, true, 1, 0, {0, 1}},
    {NVLX_MECHANISM_COPY_ENGINE, true, PIECE + 1, 0, {0, 1}},
    {NVLX_MECHANISM_KERNEL, true, 1, 0, {1, 0}},
    {NVLX_MECHANISM_KERNEL, true, PIECE + 1, 1, {2, 0}},
    {NVLX_MECHANISM_KERNEL, true, 2 * MIB, 0, {32, 0}},
    {NVLX_MECHANISM_KERNEL, true, 2 * MIB + 1, 0, {33, 0}},
    {NVLX_MECHANISM_KERNEL, true, 5 * MIB, 3, {40, 0}}, /* pieces of 128 KiB */
    {NVLX_MECHANISM_KERNEL, true, 64 * MIB, 0, {32, 0}},
    {NVLX_MECHANISM_KERNEL, true, UINT64_C(1) << 30, 0, {512, 0}}, /* of 2 MiB */
};

/* Before, between and behind as many others as bring it to every place in a chunk: its way is always the same. */
static void ways_by_size_and_alignment(void) {
    for (size_t i = 0; i < COUNT(choices); i++) {
        const struct choice *choice = &choices[i];
        bool engines = choice->mechanism == NVLX_MECHANISM_COPY_ENGINE || !choice->kernels;
        for (size_t before = 0; before < 20; before++) {
            begin(choice->mechanism);
            struct nvlxi_group *group = group_for(NVLX_OP_WRITE, choice->kernels);
            add_fillers(group, before);
            add(group, REMOTE + choice->shift, LOCAL, choice->length);
            add_fillers(group, 20 - before);
            OK(nvlxi_plan_seal(&plan));
            for (int way = 0; way < NVLXI_WAYS; way++) {
                uint64_t fillers = way == (engines ? NVLXI_BY_ENGINES : NVLXI_BY_KERNEL) ? 20 : 0;
                if (plan.fragments[way] != choice->fragments[way] + fillers)
                    FAIL("choice %zu, %zu before it: %zu fragments go way %d, not %zu", i, before,
                         (size_t)(plan.fragments[way] - fillers), way, (size_t)choice->fragments[way]);
                EQUAL(50 * fillers + (choice->fragments[way] ? choice->length : 0), plan.way_bytes[way]);
            }
            end();
        }
    }
}

static void long_ones_are_cut_for_the_kernel(void) {
    static const uint64_t lengths[][2] = {{3 * PIECE, PIECE}, {5 * MIB + 1, 2 * PIECE}, {300 * MIB + 3, PIECE_MAX}};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        const uint64_t length = lengths[i][0], piece = lengths[i][1];
        begin(NVLX_MECHANISM_KERNEL);
        chunks.capacity = 200;
        struct nvlxi_group *group = group_for(NVLX_OP_READ, true);
        add(group, LOCAL, REMOTE + 12, length);
        OK(nvlxi_plan_seal(&plan));
        const struct nvlxi_list *list = &group->lists[NVLXI_BY_KERNEL];
        EQUAL((length + piece - 1) / piece, list->count);
        EXPECT(list->first && list->first == list->last && list->first->count == list->count);
        for (uint64_t at = 0, j = 0; j < list->count; j++, at += piece) {
            EQUAL(LOCAL + at, list->first->fragment[j].destination);
            EQUAL(REMOTE + 12 + at, list->first->fragment[j].source);
            EQUAL(nvlxi_min(piece, length - at), list->first->fragment[j].length);
        }
        end();
    }
    chunks.capacity = 7;
}

/* The first few need no memory, and no kernel; the next one brings them all into the lists. */
static void few_lie_in_the_plan_itself(void) {
    for (size_t count = 1; count <= NVLXI_PLAN_INLINE + 2; count++) {
        bool few = count <= NVLXI_PLAN_INLINE;
        begin(NVLX_MECHANISM_AUTO);
        add_fillers(group_for(NVLX_OP_READ, true), count);
        OK(nvlxi_plan_seal(&plan));
        EQUAL(few ? 0 : 1, chunks.taken);
        EQUAL(few ? count : 0, plan.fragments[NVLXI_BY_ENGINES]);
        EQUAL(few ? 0 : count, plan.fragments[NVLXI_BY_KERNEL]);
        EQUAL(50 * count, plan.way_bytes[few ? NVLXI_BY_ENGINES : NVLXI_BY_KERNEL]);
        end();
        begin(NVLX_MECHANISM_COPY_ENGINE);
        add_fillers(group_for(NVLX_OP_READ, true), count);
        OK(nvlxi_plan_seal(&plan));
        EQUAL(few ? 0 : 1, chunks.taken);
        EQUAL(count, plan.fragments[NVLXI_BY_ENGINES]);
        end();
        begin(NVLX_MECHANISM_KERNEL); /* which cannot read the plan */
        add_fillers(group_for(NVLX_OP_READ, true), count);
        OK(nvlxi_plan_seal(&plan));
        EQUAL(1, chunks.taken);
        EQUAL(count, plan.fragments[NVLXI_BY_KERNEL]);
        end();
    }
    begin(NVLX_MECHANISM_AUTO); /* only the first group's */
    add_fillers(group_for(NVLX_OP_READ, true), 2);
    add_fillers(group_for(NVLX_OP_WRITE, true), 2);
    OK(nvlxi_plan_seal(&plan));
    EQUAL(2, plan.fragments[NVLXI_BY_ENGINES]);
    EQUAL(2, plan.fragments[NVLXI_BY_KERNEL]);
    EQUAL(1, chunks.live);
    end();
}

/* ---- Random lists, against a model --------------------------------------------------------------------- */

#define GROUPS     4
#define INPUTS_MAX 400

/* Where the number of times that bytes are copied changes. A list of bytes (group, destination -> source), as often as
 * they occur, is these marks, sorted and added up where they are the same. */
struct mark {
    uint64_t group, distance, destination;
    int64_t change;
};

struct marks {
    struct mark *mark;
    size_t count, capacity;
};

static void put_mark(struct marks *marks, struct mark mark) {
    if (marks->count == marks->capacity) {
        marks->capacity = 2 * marks->capacity + 64;
        marks->mark = realloc(marks->mark, marks->capacity * sizeof *marks->mark);
        EXPECT(marks->mark != NULL);
    }
    marks->mark[marks->count++] = mark;
}

static void mark_bytes(struct marks *marks, uint64_t group, const struct nvlxi_fragment *fragment) {
    struct mark mark = {group, fragment->source - fragment->destination, fragment->destination, 1};
    if (!fragment->length)
        return;
    put_mark(marks, mark);
    mark.destination += fragment->length;
    mark.change = -1;
    put_mark(marks, mark);
}

static int compare_marks(const void *a, const void *b) {
    return memcmp(a, b, offsetof(struct mark, change)); /* any order will do, if it is the same for both */
}

static void add_up(struct marks *marks) {
    size_t kept = 0;
    if (marks->count)
        qsort(marks->mark, marks->count, sizeof *marks->mark, compare_marks);
    for (size_t i = 0; i < marks->count;) {
        struct mark sum = marks->mark[i++];
        for (; i < marks->count && !compare_marks(&sum, &marks->mark[i]); i++)
            sum.change += marks->mark[i].change;
        if (sum.change)
            marks->mark[kept++] = sum;
    }
    marks->count = kept;
}

/* Checks a list of the plan for itself, and marks its bytes. */
static void mark_list(struct marks *marks, const struct nvlxi_group *group, int way) {
    const struct nvlxi_list *list = &group->lists[way];
    uint64_t count = 0, bytes = 0;
    for (const struct nvlxi_chunk *chunk = list->first; chunk; chunk = chunk->next) {
        EXPECT((chunk->count > 0 || chunk == &plan.inline_chunk) && chunk->count <= chunk->capacity);
        EXPECT(chunk->next || chunk == list->last);
        EQUAL(way != NVLXI_BY_ENGINES, chunk->kernel);
        count += chunk->count;
        for (uint32_t i = 0; i < chunk->count; i++) {
            EXPECT(chunk->fragment[i].length > 0);
            EXPECT(way != NVLXI_BY_KERNEL || chunk->fragment[i].length <= PIECE_MAX);
            bytes += chunk->fragment[i].length;
            mark_bytes(marks, (uint64_t)group->gpu, &chunk->fragment[i]);
        }
    }
    EQUAL(count, list->count);
    EQUAL(bytes, list->bytes);
}

static uint64_t state;

static size_t below(size_t limit) {
    return next_random(&state) % limit;
}

static uint64_t random_length(void) {
    static const uint64_t special[] = {0,
                                       1,
                                       PIECE - 1,
                                       PIECE,
                                       PIECE + 1,
                                       5 * PIECE,
                                       ENGINE_MIN,
                                       ENGINE_MIN - 1,
                                       ENGINE_MIN + 1,
                                       PIECE_MAX,
                                       PIECE_MAX + 1,
                                       9 * MIB + 3};
    return below(4) ? 1 + below(300) : special[below(COUNT(special))];
}

/* Where the last one ended, on both sides or on one, or anywhere, among places that are few enough to overlap. */
static struct nvlxi_fragment random_fragment(const struct nvlxi_fragment *last) {
    struct nvlxi_fragment made = {LOCAL + 128 * below(1000), REMOTE + 128 * below(1000), random_length()};
    size_t kind = below(8);
    if (kind < 4)
        made.destination = last->destination + last->length;
    if (kind < 3 || kind == 5)
        made.source = last->source + last->length;
    return made;
}

static void plan_random_list(uint32_t mechanism, struct marks *wanted, size_t *longest) {
    struct nvlxi_fragment last[GROUPS] = {{LOCAL, REMOTE, 0}};
    size_t count = below(4) ? below(12) : below(INPUTS_MAX);
    uint64_t most = below(2) ? PIECE : UINT64_MAX; /* with PIECE, ops take the short way */
    begin_checked(count);
    for (size_t i = 0; i < count; i++) {
        size_t which = below(3) ? 0 : below(GROUPS);
        bool kernels = which != 3 || mechanism == NVLX_MECHANISM_KERNEL; /* which it would refuse before */
        struct nvlxi_group *group = plan_group((int)which, 0, 0, 1 + which % 2, kernels);
        EXPECT(group != NULL);
        do
            last[which] = random_fragment(&last[which]);
        while (last[which].length - 1 >= most);
        mark_bytes(wanted, (uint64_t)group->gpu, &last[which]);
        add_checked(group, &last[which]);
    }
    OK(nvlxi_plan_all(&plan, &checked));
    end_checked();
    EXPECT(mechanism != NVLX_MECHANISM_COPY_ENGINE || plan.fragments[NVLXI_BY_ENGINES] == all_fragments());
    EXPECT(mechanism != NVLX_MECHANISM_KERNEL || plan.fragments[NVLXI_BY_ENGINES] == 0);
    if (all_fragments() > *longest)
        *longest = all_fragments();
}

static void no_byte_is_lost_or_moved(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    size_t longest = 0;
    struct marks wanted = {0}, planned = {0};
    state = 20;
    for (int round = 0; round < 3000; round++) {
        uint32_t mechanism = mechanisms[round % 3];
        uint64_t bytes = 0;
        wanted.count = planned.count = 0;
        begin(mechanism);
        chunks.capacity = 1 + (uint32_t)below(50);
        plan_random_list(mechanism, &wanted, &longest);
        for (const struct nvlxi_group *group = plan.groups; group; group = group->following) {
            for (int way = 0; way < NVLXI_WAYS; way++)
                mark_list(&planned, group, way);
            bytes += group->bytes;
        }
        EQUAL(plan.bytes, bytes);
        add_up(&wanted);
        add_up(&planned);
        EQUAL(wanted.count, planned.count);
        if (wanted.mark && planned.mark && memcmp(wanted.mark, planned.mark, wanted.count * sizeof *wanted.mark))
            FAIL("round %d: the plan copies other bytes than the list", round);
        end();
    }
    EXPECT(longest > 200);
    free(wanted.mark);
    free(planned.mark);
}

/* ---- The short ways, against the long one -------------------------------------------------------------- */

#define SAME_OPS 600

/* All fragments of the plan, group by group in the order of their GPUs, list by list. */
static size_t list_fragments(struct nvlxi_fragment *fragments, uint64_t bytes[NVLXI_WAYS]) {
    size_t count = 0;
    EXPECT(plan.sealed);
    for (uint32_t seen = 0, device = 0; seen < plan.group_count; device++) {
        for (const struct nvlxi_group *group = plan.groups; group; group = group->following) {
            if (group->device != device)
                continue;
            seen++;
            for (int way = 0; way < NVLXI_WAYS; way++)
                for (const struct nvlxi_chunk *chunk = group->lists[way].first; chunk; chunk = chunk->next)
                    for (uint32_t i = 0; i < chunk->count; i++)
                        fragments[count++] = chunk->fragment[i];
        }
    }
    memcpy(bytes, plan.way_bytes, sizeof plan.way_bytes);
    return count;
}

#define IN_TURN_MAX 5

/* Mostly of one kind: short, of several pieces or any, with others in between; some go on where the last one of the
 * same group ended. The groups take turns. */
static void make_similar(struct nvlxi_group *const *groups, size_t group_count, size_t count) {
    static const uint64_t bases[] = {1, PIECE + 1, ENGINE_MIN - 3 * KIB};
    uint64_t base = bases[below(COUNT(bases))];
    struct nvlxi_fragment last[IN_TURN_MAX] = {{0}};
    for (size_t i = 0; i < count; i++) {
        struct nvlxi_fragment made = {LOCAL + 16 * MIB * i, REMOTE + 16 * MIB * i, base + below(3 * KIB)};
        const struct nvlxi_fragment *before = &last[i % group_count];
        size_t kind = below(30);
        if (kind == 0)
            made.length = random_length();
        if (kind == 1)
            made.source += below(8);
        if (kind == 2 || kind == 3)
            made.destination = before->destination + before->length;
        if (kind == 2)
            made.source = before->source + before->length;
        add_checked(groups[i % group_count], &made);
        last[i % group_count] = made;
    }
}

/* The groups of the first ops, in the order of their GPUs. */
static void make_groups(struct nvlxi_group **groups, size_t count, uint16_t opcode) {
    for (size_t i = 0; i < count; i++)
        if (!(groups[i] = plan_group(0, 0, (uint16_t)i, opcode, true)))
            FAIL("no memory for a group");
}

/* Lets the ops behind the first few be one stretch, in turns or in rounds. */
static void let_take_turns(uint32_t pair, size_t round) {
    const size_t head = below(checked.count);
    checked.pair_of = calloc(checked.count + 1, 1);
    EXPECT(checked.pair_of != NULL);
    for (size_t i = 0; i < checked.count; i++)
        checked.pair_of[i] = (uint8_t)(i % round);
    checked.stretch_count = head + 1;
    checked.stretches[head] = (struct nvlxi_stretch){head, checked.count, pair, (uint32_t)round};
}

static void add_all(struct nvlxi_group *const *groups, size_t group_count, uint16_t opcode) {
    for (size_t i = 0; i < checked.count; i++) {
        uint64_t local = (uint64_t)(uintptr_t)checked.ops[i].local, remote = checked.remote[i];
        add(groups[i % group_count], opcode == NVLX_OP_READ ? local : remote, opcode == NVLX_OP_READ ? remote : local,
            checked.ops[i].length);
    }
}

static void short_ways_do_as_the_long_one(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    static struct nvlxi_fragment fragments[2][20 * SAME_OPS];
    struct nvlxi_group *groups[IN_TURN_MAX];
    state = 30;
    for (int round = 0; round < 3000; round++) {
        uint64_t bytes[2][NVLXI_WAYS];
        const uint16_t opcode = 1 + round % 2;
        const size_t count = round % 4 < 2 ? 1 : 2 + below(IN_TURN_MAX - 1);
        begin_checked(SAME_OPS);
        begin(mechanisms[round % 3]);
        chunks.capacity = 1 + (uint32_t)below(200);
        make_groups(groups, count, opcode);
        make_similar(groups, count, below(SAME_OPS));
        if (count > 1 && checked.count >= count)
            let_take_turns(round & 4 ? NVLXI_IN_TURNS : NVLXI_IN_ROUNDS, count);
        OK(checked.count ? nvlxi_plan_all(&plan, &checked) : nvlxi_plan_seal(&plan));
        size_t listed = list_fragments(fragments[0], bytes[0]);
        end();
        begin(mechanisms[round % 3]);
        make_groups(groups, count, opcode);
        add_all(groups, count, opcode);
        OK(nvlxi_plan_seal(&plan));
        EQUAL(listed, list_fragments(fragments[1], bytes[1]));
        EXPECT(!memcmp(fragments[0], fragments[1], listed * sizeof **fragments));
        EXPECT(!memcmp(bytes[0], bytes[1], sizeof *bytes));
        end();
        free(checked.pair_of);
        end_checked();
    }
    chunks.capacity = 7;
}

/* ---- Memory that fails --------------------------------------------------------------------------------- */

/* Fills both lists of two groups, over several chunks each. */
static int plan_until_it_fails(void) {
    struct nvlxi_group *groups[2] = {group_for(NVLX_OP_READ, true), group_for(NVLX_OP_WRITE, true)};
    static const uint64_t lengths[3] = {100, PIECE + 4, 2 * ENGINE_MIN};
    for (size_t i = 0; i < 120; i++) {
        int code = nvlxi_plan_add(&plan, groups[i % 2], LOCAL + 8 * MIB * i, REMOTE + 8 * MIB * i, lengths[i % 3]);
        if (code)
            return code;
    }
    return nvlxi_plan_seal(&plan);
}

static void memory_that_fails(void) {
    long calls, call = 0;
    int code;
    begin(NVLX_MECHANISM_AUTO);
    OK(plan_until_it_fails());
    calls = chunks.taken;
    EXPECT(calls >= 12);
    EQUAL(160, all_fragments()); /* a third is two pieces each */
    do {                         /* the same plan again and again */
        nvlxi_plan_reset(&plan, NVLX_MECHANISM_AUTO);
        EQUAL(0, chunks.live);
        EQUAL(0, plan.group_count);
        chunks.taken = 0;
        chunks.fail_at = ++call;
        code = plan_until_it_fails();
        EQUAL(call <= calls ? NVLX_EBUSY : 0, code);
    } while (code);
    EQUAL(calls + 1, call);
    EQUAL(160, all_fragments());
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"adjacent_on_both_sides_are_joined", adjacent_on_both_sides_are_joined},
                                        {"adjacent_on_one_side_are_not", adjacent_on_one_side_are_not},
                                        {"none_is_joined_over_a_border", none_is_joined_over_a_border},
                                        {"joined_in_the_order_of_the_ops", joined_in_the_order_of_the_ops},
                                        {"groups_by_pair_and_direction", groups_by_pair_and_direction},
                                        {"ways_by_size_and_alignment", ways_by_size_and_alignment},
                                        {"long_ones_are_cut_for_the_kernel", long_ones_are_cut_for_the_kernel},
                                        {"few_lie_in_the_plan_itself", few_lie_in_the_plan_itself},
                                        {"no_byte_is_lost_or_moved", no_byte_is_lost_or_moved},
                                        {"short_ways_do_as_the_long_one", short_ways_do_as_the_long_one},
                                        {"memory_that_fails", memory_that_fails},
                                        {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 20);
}
