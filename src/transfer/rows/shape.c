/* Finds rows in lists of plain ops. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/rows/shape.h"

#include <stdlib.h>

#include "transfer/plan.h"

/* A 2D copy by an engine takes 3.5 us more than its bytes, a copy of a batch 0.4 (measured): so few rows are worth one
 * where engines carry all. Else rows are looked for that engines carry better than kernels do. */
#define ENGINE_ROWS 8u
#define LOOKS       8u   /* at a list, */
#define STEP_MAX    512u /* or more, since they are so many ops from each other at most */
#define SHORTER     4u   /* times, that a list must become, unless it is looked at thoroughly */

void nvlxi_shape_free(struct nvlxi_shape *shape) {
    free(shape->ops);
    free(shape->rows);
    *shape = (struct nvlxi_shape){0};
}

/* ---- Runs ------------------------------------------------------------------------------------------------ */

struct run { /* ops that are rows */
    uint64_t local_pitch, remote_pitch;
    size_t count;
};

static uint64_t local_of(const struct nvlx_op *op) {
    return (uint64_t)(uintptr_t)op->local;
}

static bool is_alike(const struct nvlx_op *op, const struct nvlx_op *other) {
    return !((op->length ^ other->length) | (op->opcode ^ other->opcode) |
             ((uintptr_t)op->peer ^ (uintptr_t)other->peer) | other->flags | other->arg);
}

/* Rows that ascend, apart from each other, and are not just one piece. */
static bool may_be_rows(const struct run *run, uint64_t length) {
    return run->local_pitch - length <= INT64_MAX - length && run->remote_pitch - length <= INT64_MAX - length &&
           (run->local_pitch ^ length) | (run->remote_pitch ^ length);
}

/* How many ops, from the first on, are rows: 1 if they are not. `left` are there. */
static struct run find_run(const struct nvlx_op *op, size_t left) {
    struct run run = {.count = 1};
    if (left < 2 || op->flags || op->arg || !op->length)
        return run;
    run.local_pitch = local_of(op + 1) - local_of(op);
    run.remote_pitch = op[1].remote - op->remote;
    if (!may_be_rows(&run, op->length))
        return run;
    while (run.count < left) {
        const struct nvlx_op *next = op + run.count;
        if (!is_alike(op, next) || local_of(next) != local_of(next - 1) + run.local_pitch ||
            next->remote != (next - 1)->remote + run.remote_pitch)
            break;
        run.count++;
    }
    return run;
}

/* ---- Lists ----------------------------------------------------------------------------------------------- */

static bool reserve(void *array, size_t *capacity, size_t count, size_t size) {
    void **memory = array;
    if (count <= *capacity)
        return true;
    void *grown = realloc(*memory, count * size);
    if (!grown)
        return false;
    *memory = grown;
    *capacity = count;
    return true;
}

static bool is_worth(const struct nvlx_op *op, const struct run *run, uint32_t mechanism) {
    const struct nvlxi_rows rows = {.destination = local_of(op),
                                    .source = op->remote,
                                    .length = op->length,
                                    .count = run->count,
                                    .destination_pitch = run->local_pitch,
                                    .source_pitch = run->remote_pitch}; /* or the other way round */
    if (run->count < ENGINE_ROWS || mechanism == NVLX_MECHANISM_KERNEL)
        return false;
    return mechanism == NVLX_MECHANISM_COPY_ENGINE || nvlxi_plan_suits_engines(&rows);
}

/* Whether enough of the places that are looked at begin rows. */
static bool looks_so(const struct nvlx_op *ops, size_t count) {
    const size_t step = nvlxi_max(nvlxi_min(count / LOOKS, STEP_MAX), 1);
    size_t looks = 0, found = 0;
    for (size_t i = 0; i + 3 <= count; i += step, looks++)
        found += find_run(ops + i, 3).count == 3;
    return found && found * SHORTER >= looks;
}

/* Appends rows. False without room for them. */
static bool add_rows(struct nvlxi_shape *shape, const struct nvlx_op *op, const struct run *run) {
    if (shape->rows_count == shape->rows_capacity)
        return false;
    struct nvlx_rows *rows = &shape->rows[shape->rows_count++];
    *rows = (struct nvlx_rows){run->count, run->local_pitch, run->remote_pitch};
    struct nvlx_op *made = &shape->ops[shape->count++];
    *made = *op;
    made->flags = NVLX_OP_ROWS;
    made->arg = (uint64_t)(uintptr_t)rows;
    return true;
}

/* The op behind rows may be the first of others, and so may the last of too few. */
static bool rewrite(struct nvlxi_shape *shape, const struct nvlx_op *ops, size_t count, uint32_t mechanism,
                    size_t most) {
    for (size_t i = 0, done; i < count; i += done) {
        const struct run run = find_run(ops + i, count - i);
        const bool worth = is_worth(&ops[i], &run, mechanism);
        done = worth || run.count == 1 ? run.count : run.count - 1;
        if (shape->count + (worth ? 1 : done) > most)
            return false;
        if (worth && !add_rows(shape, ops + i, &run))
            return false;
        for (size_t j = 0; j < done && !worth; j++)
            shape->ops[shape->count++] = ops[i + j];
    }
    return shape->rows_count > 0;
}

bool nvlxi_shape_find(struct nvlxi_shape *shape, const struct nvlx_op *ops, size_t count, uint32_t mechanism,
                      bool thorough) {
    const size_t most = thorough ? count : count / SHORTER, rows = count / ENGINE_ROWS;
    shape->count = shape->rows_count = 0;
    if (rows == 0 || (!thorough && nvlxi_likely(!looks_so(ops, count))))
        return false;
    return reserve(&shape->ops, &shape->capacity, most, sizeof *shape->ops) &&
           reserve(&shape->rows, &shape->rows_capacity, rows, sizeof *shape->rows) &&
           rewrite(shape, ops, count, mechanism, most);
}
