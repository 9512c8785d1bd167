/* Rows in plans: who carries them, in which parts, and that no byte is lost; and which bytes are theirs, by brute
 * force. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "plan_support.h"
#include "transfer/rows/rows.h"
#include "transfer/rows/shape.h"

/* ---- Which bytes are theirs ------------------------------------------------------------------------------ */

#define LINE 96 /* bytes, which the sides of this part lie in */

static uint64_t state = 1;

static uint64_t below(uint64_t limit) {
    return next_random(&state) % limit;
}

static struct nvlxi_side random_side(bool bytes[LINE]) {
    struct nvlxi_side side;
    do {
        side = (struct nvlxi_side){below(LINE), below(20), 1 + below(12), 1 + below(8)};
    } while (side.address + nvlxi_side_span(&side) > LINE);
    memset(bytes, 0, LINE * sizeof *bytes);
    for (uint64_t row = 0; row < side.count; row++)
        for (uint64_t i = 0; i < side.length; i++)
            bytes[side.address + row * side.pitch + i] = true;
    return side;
}

static void sides_know_their_bytes(void) {
    bool mine[LINE], others[LINE];
    for (int round = 0; round < 200000; round++) {
        const struct nvlxi_side side = random_side(mine);
        const uint64_t start = below(LINE), length = 1 + below(LINE - start);
        bool touched = false;
        for (uint64_t i = start; i < start + length; i++)
            touched = touched || mine[i];
        EQUAL(touched, nvlxi_side_touches(&side, start, length));
        struct nvlxi_side other = random_side(others);
        if (other.length != side.length && round % 2)
            continue; /* as in an op, mostly */
        bool overlap = false;
        for (uint64_t i = 0; i < LINE; i++)
            overlap = overlap || (mine[i] && others[i]);
        if (overlap != nvlxi_sides_overlap(&side, &other))
            FAIL("%u %u %u %u and %u %u %u %u overlap: %d", (unsigned)side.address, (unsigned)side.pitch,
                 (unsigned)side.length, (unsigned)side.count, (unsigned)other.address, (unsigned)other.pitch,
                 (unsigned)other.length, (unsigned)other.count, overlap);
    }
}

static void rows_end_where_they_end(void) {
    bool bytes[LINE];
    for (int round = 0; round < 100000; round++) {
        const struct nvlxi_side side = random_side(bytes);
        const uint64_t end = below(LINE + 1), row = below(side.count);
        uint64_t count = 0;
        while (row + count < side.count && nvlxi_side_at(&side, row + count) + side.length <= end)
            count++;
        EQUAL(count, nvlxi_side_rows_until(&side, row, end));
    }
}

/* ---- Who carries them ------------------------------------------------------------------------------------ */

static const struct nvlxi_rows simple = {LOCAL, REMOTE, 1024, 4096, 2048, 4096};

/* Plans rows, alone. */
static void plan_rows(uint32_t mechanism, bool kernels, struct nvlxi_rows rows) {
    begin(mechanism);
    OK(nvlxi_plan_add_rows(&plan, group_for(NVLX_OP_READ, kernels), &rows));
    OK(nvlxi_plan_seal(&plan));
    EQUAL(rows.count * rows.length, plan.bytes);
}

static void expect_way(uint32_t mechanism, struct nvlxi_rows rows, enum nvlxi_way way) {
    plan_rows(mechanism, true, rows);
    EQUAL(rows.count * rows.length, plan.way_bytes[way]);
    end();
}

static struct nvlxi_rows of(uint64_t length, uint64_t count) {
    return (struct nvlxi_rows){LOCAL, REMOTE, length, count, 2 * length, 2 * length};
}

static void many_bytes_are_for_engines(void) {
    expect_way(NVLX_MECHANISM_AUTO, of(1024, 2048), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(1024, 2047), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_AUTO, of(4096, 2048), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(4096, 2047), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_AUTO, of(16384, 1024), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(16384, 1023), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_AUTO, of(128, 16384), NVLXI_ROWS_BY_ENGINES);
    expect_way(NVLX_MECHANISM_AUTO, of(124, 1 << 20), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_KERNEL, of(4096, 100000), NVLXI_ROWS_BY_KERNEL);
    expect_way(NVLX_MECHANISM_COPY_ENGINE, of(1, 2), NVLXI_ROWS_BY_ENGINES);
    struct nvlxi_rows odd = of(1000, 66);
    odd.source_pitch = 2001;
    expect_way(NVLX_MECHANISM_AUTO, odd, NVLXI_ROWS_BY_ENGINES);
    odd.count = 65;
    expect_way(NVLX_MECHANISM_AUTO, odd, NVLXI_ROWS_BY_KERNEL);
    struct nvlxi_rows repeated = of(4096, 100000);
    repeated.source_pitch = 0;
    expect_way(NVLX_MECHANISM_AUTO, repeated, NVLXI_ROWS_BY_KERNEL);
}

static void rows_back_to_back_are_a_fragment(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    for (size_t i = 0; i < COUNT(mechanisms); i++) {
        plan_rows(mechanisms[i], true, (struct nvlxi_rows){LOCAL, REMOTE, 16, 1024, 16, 16});
        EQUAL(1, all_fragments());
        end();
        plan_rows(mechanisms[i], true, (struct nvlxi_rows){LOCAL, REMOTE, 16, 1, 1, 0});
        EQUAL(1, all_fragments());
        end();
    }
}

/* ---- In which parts -------------------------------------------------------------------------------------- */

/* Counts how often each byte of the destination is written, and checks where it comes from. */
static void mark(const struct nvlxi_rows *whole, const struct nvlxi_rows *part, uint8_t *marks) {
    for (uint64_t row = 0; row < part->count; row++) {
        for (uint64_t i = 0; i < part->length; i++) {
            const uint64_t to = part->destination + row * part->destination_pitch + i - whole->destination;
            const uint64_t from = part->source + row * part->source_pitch + i - whole->source;
            const uint64_t row_of = to / whole->destination_pitch, column = to % whole->destination_pitch;
            EXPECT(row_of < whole->count && column < whole->length);
            EQUAL(row_of * whole->source_pitch + column, from);
            marks[row_of * whole->length + column]++;
        }
    }
}

static void check_parts(const struct nvlxi_rows *whole) {
    uint8_t *marks = calloc(whole->count, whole->length);
    EXPECT(marks != NULL);
    for (const struct nvlxi_group *group = plan.groups; group; group = group->following) {
        for (int way = 0; way < NVLXI_WAYS; way++) {
            for (const struct nvlxi_chunk *chunk = group->lists[way].first; chunk; chunk = chunk->next) {
                for (uint32_t i = 0; i < chunk->count; i += way < NVLXI_ROWS_BY_KERNEL ? 1 : 2) {
                    const struct nvlxi_fragment *it = &chunk->fragment[i];
                    const struct nvlxi_rows one = {it->destination, it->source, it->length, 1, 0, 0};
                    mark(whole, way < NVLXI_ROWS_BY_KERNEL ? &one : (const struct nvlxi_rows *)it, marks);
                }
            }
        }
    }
    for (uint64_t i = 0; i < whole->count * whole->length; i++)
        EQUAL(1, marks[i]);
    free(marks);
}

static void expect_parts(uint32_t mechanism, struct nvlxi_rows rows, enum nvlxi_way way, uint64_t parts) {
    plan_rows(mechanism, true, rows);
    EQUAL(parts, plan.fragments[way]);
    check_parts(&rows);
    end();
}

static void parts_have_all_bytes(void) {
    expect_parts(NVLX_MECHANISM_KERNEL, of(1024, 256), NVLXI_ROWS_BY_KERNEL, 4);
    expect_parts(NVLX_MECHANISM_KERNEL, of(1000, 200), NVLXI_ROWS_BY_KERNEL, 4); /* 65 of them are a piece */
    expect_parts(NVLX_MECHANISM_KERNEL, of(100 * KIB, 3), NVLXI_ROWS_BY_KERNEL, 6);
    expect_parts(NVLX_MECHANISM_KERNEL, of(MIB, 5), NVLXI_ROWS_BY_KERNEL, 5 * 8); /* of 128 KiB */
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, of(3, (1 << 20) + 1), NVLXI_ROWS_BY_ENGINES, 2);
}

static void what_engines_do_not_take_is_cut(void) {
    struct nvlxi_rows rows = {LOCAL, REMOTE, 1000, 300, 1000, 300};
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_ROWS_BY_ENGINES, 4); /* strips of 300 bytes */
    EQUAL(4, nvlxi_plan_copies(&rows));
    rows.source_pitch = 1;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_BY_ENGINES, 300); /* each row: strips would be 1000 */
    EQUAL(300, nvlxi_plan_copies(&rows));
    rows.source_pitch = 0;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_BY_ENGINES, 300);
    rows.count = 5;
    rows.source_pitch = UINT64_C(1) << 31;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_BY_ENGINES, 5);
    EQUAL(5, nvlxi_plan_copies(&rows));
    rows.source_pitch--;
    expect_parts(NVLX_MECHANISM_COPY_ENGINE, rows, NVLXI_ROWS_BY_ENGINES, 1);
    EQUAL(1, nvlxi_plan_copies(&rows));
}

/* Whatever else is in the plan. */
static void rows_and_fragments_do_not_meet(void) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE, NVLX_MECHANISM_KERNEL};
    for (size_t i = 0; i < 3 * COUNT(mechanisms); i++) {
        const size_t fillers = (const size_t[]){0, 3, 600}[i % 3];
        begin(mechanisms[i / 3]);
        struct nvlxi_group *group = group_for(NVLX_OP_READ, true);
        add_fillers(group, fillers);
        for (int times = 0; times < 100; times++)
            OK(nvlxi_plan_add_rows(&plan, group, &simple));
        add_fillers(group, fillers);
        OK(nvlxi_plan_seal(&plan));
        EQUAL(100 * simple.count * simple.length + 2 * fillers * 50, plan.bytes);
        EQUAL(2 * fillers, all_fragments());
        end();
    }
}

static void failures_are_passed_on(void) {
    for (long fail_at = 1; fail_at <= 3; fail_at++) {
        begin(NVLX_MECHANISM_KERNEL);
        chunks.fail_at = fail_at;
        int code = 0;
        for (int times = 0; times < 100 && !code; times++)
            code = nvlxi_plan_add_rows(&plan, group_for(NVLX_OP_READ, true), &simple);
        EQUAL(NVLX_EBUSY, code);
        end();
    }
}

/* ---- Rows in lists of ops ---------------------------------------------------------------------------------- */

#define LIST 4096

static struct nvlx_op list[LIST];

static struct nvlx_op plain(uint64_t local, uint64_t remote, uint64_t length) {
    return (struct nvlx_op){.opcode = NVLX_OP_READ,
                            .peer = (struct nvlx_peer *)&plan,
                            .local = (void *)(uintptr_t)local,
                            .remote = remote,
                            .length = length};
}

static void fill_list(uint64_t length, uint64_t local_pitch, uint64_t remote_pitch) {
    for (uint64_t i = 0; i < LIST; i++)
        list[i] = plain(LOCAL + i * local_pitch, REMOTE + i * remote_pitch, length);
}

/* That a shape moves the ops' bytes, in their order, by so many ops. */
static void expect_shape(const struct nvlxi_shape *shape, size_t ops) {
    size_t at = 0;
    EQUAL(ops, shape->count);
    for (size_t i = 0; i < shape->count; i++) {
        const struct nvlx_op *op = &shape->ops[i];
        const struct nvlx_rows *rows = (const struct nvlx_rows *)(uintptr_t)op->arg, one = {1, 0, 0};
        rows = op->flags ? rows : &one;
        for (uint64_t row = 0; row < rows->count; row++, at++) {
            EXPECT(at < LIST && op->opcode == list[at].opcode && op->peer == list[at].peer);
            EQUAL(list[at].length, op->length);
            EXPECT((char *)list[at].local == (char *)op->local + row * rows->local_pitch);
            EQUAL(list[at].remote, op->remote + row * rows->remote_pitch);
        }
    }
    EQUAL(LIST, at);
}

static void ops_at_equal_distances_are_rows(void) {
    struct nvlxi_shape shape = {0};
    for (int thorough = 0; thorough < 2; thorough++) {
        fill_list(800, 1024, 2048);
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_AUTO, thorough));
        expect_shape(&shape, 1);
        list[2050].length--; /* both parts are less than 2 MiB */
        EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_AUTO, thorough));
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, thorough));
        expect_shape(&shape, 3);
        list[2050].length++;
        EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_KERNEL, thorough));
        list[3000].remote++;
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_AUTO, thorough) == thorough);
        list[2000].opcode = NVLX_OP_WRITE;
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, thorough));
        expect_shape(&shape, 5);
    }
    nvlxi_shape_free(&shape);
}

static void other_ops_are_not(void) {
    static const uint64_t pitches[][2] = {{512, 512}, {511, 1024}, {1024, 511}, {0, 512}, {-(uint64_t)1024, 1024}};
    struct nvlxi_shape shape = {0};
    for (size_t i = 0; i < COUNT(pitches); i++) {
        fill_list(512, pitches[i][0], pitches[i][1]);
        EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, true));
        EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, false));
    }
    fill_list(0, 1024, 1024);
    EXPECT(!nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, true));
    EXPECT(!nvlxi_shape_find(&shape, list, 0, NVLX_MECHANISM_COPY_ENGINE, true));
    nvlxi_shape_free(&shape);
}

/* Runs of any length, whatever lies between them. */
static void runs_are_found_at_random(void) {
    struct nvlxi_shape shape = {0};
    for (int round = 0; round < 300; round++) {
        size_t ops = 0;
        for (size_t i = 0; i < LIST;) {
            const uint64_t local = LOCAL + (below(1 << 20) << 20), remote = REMOTE + (below(1 << 20) << 20);
            const size_t run = nvlxi_min(1 + below(30), LIST - i);
            for (size_t row = 0; row < run; row++)
                list[i + row] = plain(local + row * 700, remote + row * 600, 512);
            ops += run < 8 ? run : 1;
            i += run;
        }
        EXPECT(nvlxi_shape_find(&shape, list, LIST, NVLX_MECHANISM_COPY_ENGINE, true));
        expect_shape(&shape, ops);
    }
    nvlxi_shape_free(&shape);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"sides_know_their_bytes", sides_know_their_bytes},
                                        {"rows_end_where_they_end", rows_end_where_they_end},
                                        {"many_bytes_are_for_engines", many_bytes_are_for_engines},
                                        {"rows_back_to_back_are_a_fragment", rows_back_to_back_are_a_fragment},
                                        {"parts_have_all_bytes", parts_have_all_bytes},
                                        {"what_engines_do_not_take_is_cut", what_engines_do_not_take_is_cut},
                                        {"rows_and_fragments_do_not_meet", rows_and_fragments_do_not_meet},
                                        {"failures_are_passed_on", failures_are_passed_on},
                                        {"ops_at_equal_distances_are_rows", ops_at_equal_distances_are_rows},
                                        {"other_ops_are_not", other_ops_are_not},
                                        {"runs_are_found_at_random", runs_are_found_at_random},
                                        {0}};
    return run_tests(argc, argv, tests, NULL, 30);
}
