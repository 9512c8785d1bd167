/* Finds rows in lists of plain ops. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/rows/shape.h"

#include <stdlib.h>

#include "transfer/plan/plan.h"
#include "transfer/rows/rows.h"
#include "transfer/rows/series.h"

/* A 2D copy by an engine takes 3.5 us more than its bytes, a copy of a batch 0.4 (measured): so few rows are worth one
 * where engines carry all. Else rows are looked for that engines carry better than kernels do (rows/plan.c), or so many
 * that to check and to plan them as one takes less than one by one. */
#define ENGINE_ROWS 8u
#define KERNEL_ROWS 256u
#define LOOKS       8u    /* at a list, */
#define STEP_MAX    1024u /* or more, since they are so many ops from each other at most */
#define SHORTER     4u    /* times, that a list must become, unless it is looked at thoroughly */
#define TRIED       512u  /* ops, of which half must be rows by then, unless likewise */

void nvlxi_shape_free(struct nvlxi_shape *shape) {
    free(shape->ops);
    free(shape->rows);
    *shape = (struct nvlxi_shape){0};
}

/* ---- Grids ----------------------------------------------------------------------------------------------- */

/* Ops in two dimensions, such as blocks and layers: `times` a series, at equal distances. */
struct grid {
    struct nvlxi_series series;
    uint64_t local_pitch, remote_pitch; /* from one series to the next; not set if there is one */
    size_t times;
};

static bool are_equal(const struct nvlxi_series *one, const struct nvlxi_series *other) {
    return one->count == other->count && one->local_pitch == other->local_pitch &&
           one->remote_pitch == other->remote_pitch;
}

static bool is_alike(const struct nvlx_op *op, const struct nvlx_op *other) {
    return op->length == other->length && op->opcode == other->opcode && op->peer == other->peer && !other->flags &&
           !other->arg;
}

/* Whether the next series of the grid, and no longer one, is there. */
static bool goes_on(const struct grid *grid, const struct nvlx_op *op, size_t left) {
    const size_t count = grid->series.count, done = grid->times * count;
    const struct nvlx_op *next = op + done;
    if (left - done < count || !is_alike(op, next) ||
        nvlxi_series_local(next) - nvlxi_series_local(op) != grid->times * grid->local_pitch ||
        next->remote - op->remote != grid->times * grid->remote_pitch)
        return false;
    const struct nvlxi_series series = nvlxi_series_find(next, nvlxi_min(left - done, count + 1));
    return are_equal(&series, &grid->series);
}

static struct grid find_grid(const struct nvlx_op *op, size_t left) {
    struct grid grid = {.series = nvlxi_series_find(op, left), .times = 1};
    const size_t count = grid.series.count;
    if (count == 1 || left < 2 * count)
        return grid;
    grid.local_pitch = nvlxi_series_local(op + count) - nvlxi_series_local(op);
    grid.remote_pitch = op[count].remote - op->remote;
    while (goes_on(&grid, op, left))
        grid.times++;
    return grid;
}

/* The other way round: as many series as one had ops. */
static struct grid turn(const struct grid *grid) {
    return (struct grid){.series = {grid->local_pitch, grid->remote_pitch, grid->times},
                         .local_pitch = grid->series.local_pitch,
                         .remote_pitch = grid->series.remote_pitch,
                         .times = grid->series.count};
}

/* What is looked for. */
struct search {
    uint32_t mechanism;
    size_t most; /* ops that a shape may have */
    bool thorough;
    bool alone; /* nothing else is in the list */
};

/* ---- Forms ----------------------------------------------------------------------------------------------- */

/* What a grid is copied as: `times` rectangles. */
struct form {
    uint64_t length; /* of a row */
    struct nvlxi_series rows;
    uint64_t local_step, remote_step; /* from one rectangle to the next */
    size_t times;
};

static struct form form_of(const struct grid *grid, uint64_t length) {
    return (struct form){length, grid->series, grid->local_pitch, grid->remote_pitch, grid->times};
}

/* Whether the series of a grid lie back to back on both sides, and so are longer rows the other way round. */
static bool is_joined(const struct grid *grid, uint64_t length) {
    uint64_t joined;
    return grid->times > 1 && grid->local_pitch == length && grid->remote_pitch == length &&
           !__builtin_mul_overflow(length, grid->times, &joined) &&
           joined <= nvlxi_min(grid->series.local_pitch, grid->series.remote_pitch);
}

/* What an engine takes as one copy: all rectangles, or one of them. */
static struct nvlxi_grid copy_of(const struct nvlx_op *op, const struct form *form) {
    struct nvlxi_grid grid = {.rows = {.destination = nvlxi_series_local(op),
                                       .source = op->remote,
                                       .length = form->length,
                                       .count = form->rows.count,
                                       .destination_pitch = form->rows.local_pitch,
                                       .source_pitch = form->rows.remote_pitch}, /* or the other way round */
                              .times = form->times,
                              .destination_step = form->local_step,
                              .source_step = form->remote_step};
    if (form->times > 1 && !nvlxi_grid_fits_engines(&grid))
        grid.times = 1;
    return grid;
}

static bool is_worth(const struct nvlx_op *op, const struct form *form, const struct search *search) {
    const struct nvlxi_grid grid = copy_of(op, form);
    if (form->rows.count < ENGINE_ROWS)
        return false;
    if (search->mechanism == NVLX_MECHANISM_COPY_ENGINE || form->rows.count >= KERNEL_ROWS)
        return true;
    if (search->mechanism == NVLX_MECHANISM_KERNEL)
        return false;
    return nvlxi_plan_suits_engines(&grid) ||
           (search->alone && form->times <= NVLXI_PLAN_FEW * grid.times && nvlxi_plan_suits_engines_alone(&grid));
}

/* Finds the form with the fewest rectangles that is worth it. */
static bool find_form(const struct nvlx_op *op, const struct grid *grid, const struct search *search,
                      struct form *form) {
    const struct grid turned = turn(grid);
    const bool can_turn = grid->times > 1 && nvlxi_series_ascends(&turned.series, op->length);
    if (is_joined(grid, op->length)) {
        *form = form_of(grid, op->length * grid->times);
        form->times = 1;
        return is_worth(op, form, search);
    }
    if (can_turn && grid->times > grid->series.count) {
        *form = form_of(&turned, op->length);
        if (is_worth(op, form, search))
            return true;
    }
    *form = form_of(grid, op->length);
    return is_worth(op, form, search);
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

/* Whether five ops begin a series, or a grid of pairs. */
static bool begin_rows(const struct nvlx_op *op) {
    const struct nvlx_op firsts[] = {op[0], op[2], op[4]};
    const size_t count = nvlxi_series_find(op, 3).count;
    return count == 3 || (count == 2 && nvlxi_series_find(firsts, NVLXI_COUNT(firsts)).count == NVLXI_COUNT(firsts));
}

/* Whether enough of the places that are looked at do so. */
static bool looks_so(const struct nvlx_op *ops, size_t count) {
    const size_t step = nvlxi_max(nvlxi_min(count / LOOKS, STEP_MAX), 1);
    size_t looks = 0, found = 0;
    for (size_t i = 0; i + 5 <= count; i += step, looks++)
        found += begin_rows(ops + i);
    return found && found * SHORTER >= looks;
}

/* Appends a rectangle. False without room for it. */
static bool add_rows(struct nvlxi_shape *shape, const struct nvlx_op *op, const struct form *form, size_t number) {
    if (shape->rows_count == shape->rows_capacity)
        return false;
    struct nvlx_rows *rows = &shape->rows[shape->rows_count++];
    *rows = (struct nvlx_rows){form->rows.count, form->rows.local_pitch, form->rows.remote_pitch};
    shape->ops[shape->count++] =
        (struct nvlx_op){.opcode = op->opcode,
                         .flags = NVLX_OP_ROWS,
                         .peer = op->peer,
                         .local = (void *)(uintptr_t)(nvlxi_series_local(op) + number * form->local_step),
                         .remote = op->remote + number * form->remote_step,
                         .length = form->length,
                         .arg = (uint64_t)(uintptr_t)rows};
    return true;
}

/* Appends what a grid is. */
static bool add_form(struct nvlxi_shape *shape, const struct nvlx_op *op, const struct form *form, size_t most) {
    bool added = shape->count + form->times <= most;
    for (size_t i = 0; i < form->times && added; i++)
        added = add_rows(shape, op, form, i);
    return added;
}

/* Appends ops as they are. */
static bool add_ops(struct nvlxi_shape *shape, const struct nvlx_op *ops, size_t count, size_t most) {
    if (shape->count + count > most)
        return false;
    for (size_t i = 0; i < count; i++)
        shape->ops[shape->count++] = ops[i];
    return true;
}

/* Whether it is worth to go on after so many ops. */
static bool is_promising(const struct nvlxi_shape *shape, size_t done, const struct search *search) {
    return search->thorough || done < TRIED || shape->count <= done / 2;
}

/* The op behind rows may be the first of others, and so may the last of too few. */
static bool rewrite(struct nvlxi_shape *shape, const struct nvlx_op *ops, size_t count, struct search *search) {
    bool added = true;
    for (size_t i = 0, done; i < count && added; i += done) {
        const struct grid grid = find_grid(ops + i, count - i);
        struct form form;
        done = grid.series.count * grid.times;
        search->alone = done == count;
        if (find_form(ops + i, &grid, search, &form)) {
            added = add_form(shape, ops + i, &form, search->most);
        } else {
            done -= done > 1;
            added = add_ops(shape, ops + i, done, search->most) && is_promising(shape, i + done, search);
        }
    }
    return added && shape->rows_count > 0;
}

bool nvlxi_shape_find(struct nvlxi_shape *shape, const struct nvlx_op *ops, size_t count, uint32_t mechanism,
                      bool thorough) {
    struct search search = {mechanism, thorough ? count : count / SHORTER, thorough, false};
    const size_t rows = count / ENGINE_ROWS;
    shape->count = shape->rows_count = 0;
    if (rows == 0 || (!thorough && nvlxi_likely(!looks_so(ops, count))))
        return false;
    return reserve(&shape->ops, &shape->capacity, search.most, sizeof *shape->ops) &&
           reserve(&shape->rows, &shape->rows_capacity, rows, sizeof *shape->rows) &&
           rewrite(shape, ops, count, &search);
}
