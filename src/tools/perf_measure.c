/* nvlx_perf: how fast lists move, in each way. SPDX-License-Identifier: Apache-2.0 */
#include "perf_measure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_LEAST 5
#define ROW_NS       UINT64_C(1000000000) /* after which no more rounds begin */
#define SHORT_NS     3e6
#define LINK_MAX     (UINT64_C(256) << 20)
#define LINK_ROUNDS  7

/* ---- Columns ---------------------------------------------------------------------------------------------- */

static struct perf_column *add_column(struct perf_results *results, enum perf_kind kind, uint32_t budget,
                                      const char *name) {
    struct perf_column *column = &results->columns[results->column_count++];
    *column = (struct perf_column){.kind = kind, .budget = budget};
    if (budget)
        snprintf(column->name, sizeof column->name, "%s <=%" PRIu32, name, budget);
    else
        snprintf(column->name, sizeof column->name, "%s", name);
    return column;
}

void perf_columns_make(struct perf_results *results, const struct perf_session *session) {
    const struct perf_options *options = session->options;
    for (size_t i = 0; i < options->budget_count; i++) {
        add_column(results, PERF_ONE_CALL, options->budgets[i], "call");
        if (options->prepared)
            add_column(results, PERF_POSTED, options->budgets[i], "prepared");
    }
    for (int i = 0; i < PERF_BASELINES; i++) {
        const char *name = session->end.backend->baseline_names[i];
        if (!name || !(options->baselines & 1u << i))
            continue;
        add_column(results, PERF_RAW, 0, name)->baseline = i;
        for (size_t j = 0; i == PERF_KERNEL && j < options->budget_count; j++)
            if (options->budgets[j])
                add_column(results, PERF_RAW, options->budgets[j], name)->baseline = i;
    }
}

/* ---- One row ---------------------------------------------------------------------------------------------- */

struct way { /* a column, ready to move the row's list */
    const struct perf_column *column;
    struct perf_cell *cell;
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared;
    struct perf_choice choice;
    double *walls, *submits;
    double last; /* nanoseconds that it took last */
};

struct run {
    struct perf_session *session;
    struct perf_row *row;
    struct perf_list lists[2]; /* the second one: the owner's, of both directions */
    struct way ways[PERF_COLUMNS_MAX];
    size_t count;
};

struct perf_list_spec perf_measure_spec(const struct perf_session *session, uint32_t opcode, uint64_t fragment) {
    const struct perf_options *options = session->options;
    return (struct perf_list_spec){.opcode = opcode,
                                   .pattern = options->pattern,
                                   .fragment = fragment,
                                   .count = options->count,
                                   .bytes = options->bytes,
                                   .arena = options->arena,
                                   .regions = options->regions,
                                   .seed = fragment * 2 + opcode};
}

static void send_list(struct perf_session *session, const struct perf_list_spec *spec, enum perf_part part,
                      const struct nvlx_transfer_options *options) {
    const struct perf_owner_list list = {.spec = *spec,
                                         .part = part,
                                         .mechanism = options ? options->mechanism : 0,
                                         .max_sms = options ? options->max_sms : 0,
                                         .priority = options ? options->priority : 0};
    perf_command(&session->channel, PERF_LIST, &list, sizeof list);
}

static void make_lists(struct run *run) {
    struct perf_list_spec spec = perf_measure_spec(run->session, run->row->opcode, run->row->fragment);
    spec.half = run->row->both ? 1 : 0;
    perf_list_make(&run->lists[0], &spec);
    if (run->row->both) {
        spec.half = 2;
        spec.swap = 1;
        spec.seed += UINT64_C(1) << 40;
        perf_list_make(&run->lists[1], &spec);
    }
    run->row->count = run->lists[0].count + run->lists[1].count;
    run->row->bytes = run->lists[0].bytes + run->lists[1].bytes;
}

/* The raw way can do it, or why not. */
static const char *open_raw_way(struct run *run, struct way *way) {
    struct perf_end *end = &run->session->end;
    if (run->row->both)
        return "both directions are measured of ours only";
    const char *why_not = end->backend->cannot(end->raw, way->column->baseline);
    if (!why_not && way->column->baseline == PERF_KERNEL) {
        way->choice = end->backend->choose(end->raw, way->column->budget);
        end->backend->describe_choice(&way->choice, way->cell->kernel, sizeof way->cell->kernel);
    }
    if (!why_not && way->column->baseline == PERF_STAGED)
        send_list(run->session, &run->lists[0].spec, PERF_PART_STAGE, NULL);
    return why_not;
}

static void open_way(struct run *run, struct way *way, const struct perf_column *column, struct perf_cell *cell) {
    const size_t rounds = run->session->options->rounds;
    *way = (struct way){.column = column, .cell = cell};
    *cell = (struct perf_cell){0};
    way->options = perf_side_options(run->session->options, column->budget);
    way->walls = perf_alloc(rounds, sizeof *way->walls);
    way->submits = perf_alloc(rounds, sizeof *way->submits);
    if (column->kind == PERF_POSTED)
        way->prepared = perf_side_prepare(&run->session->end.side, &way->options);
    if (column->kind == PERF_RAW)
        cell->why_not = open_raw_way(run, way);
}

static void open_run(struct run *run, struct perf_session *session, struct perf_results *results,
                     struct perf_row *row) {
    struct perf_end *end = &session->end;
    *run = (struct run){.session = session, .row = row, .count = results->column_count};
    make_lists(run);
    perf_side_set_list(&end->side, &run->lists[0]);
    if (!row->both)
        end->backend->set_list(end->raw, &run->lists[0]);
    for (size_t i = 0; i < run->count; i++)
        open_way(run, &run->ways[i], &results->columns[i], &row->cells[i]);
}

static void close_run(struct run *run) {
    for (size_t i = 0; i < run->count; i++) {
        perf_side_unprepare(run->ways[i].prepared);
        free(run->ways[i].walls);
        free(run->ways[i].submits);
    }
    perf_list_free(&run->lists[0]);
    perf_list_free(&run->lists[1]);
}

/* ---- Moving ----------------------------------------------------------------------------------------------- */

/* The owner gathers before a read, and scatters after a write. */
static void move_staged(struct run *run, struct perf_sample *sample) {
    struct perf_session *session = run->session;
    const bool read = run->row->opcode == NVLX_OP_READ;
    perf_round_begin(&session->channel, PERF_PART_STAGE);
    const uint64_t begin = perf_now();
    if (!read)
        session->end.backend->stage(session->end.raw);
    perf_round_go(&session->channel);
    perf_round_wait(&session->channel);
    if (read)
        session->end.backend->stage(session->end.raw);
    sample->wall = sample->submit = (double)(perf_now() - begin);
}

static void move_both(struct run *run, struct way *way, struct perf_sample *sample) {
    struct perf_session *session = run->session;
    struct perf_sample own;
    perf_round_begin(&session->channel, way->prepared ? PERF_PART_POST : PERF_PART_CALL);
    const uint64_t begin = perf_now();
    perf_round_go(&session->channel);
    perf_side_move(&session->end.side, way->prepared, &way->options, &own, &way->cell->info);
    perf_round_wait(&session->channel);
    *sample = (struct perf_sample){.wall = (double)(perf_now() - begin), .submit = own.submit};
}

static void move(struct run *run, struct way *way, struct perf_sample *sample) {
    struct perf_end *end = &run->session->end;
    perf_watch();
    perf_channel_look(&run->session->channel);
    if (run->row->both)
        move_both(run, way, sample);
    else if (way->column->kind != PERF_RAW)
        perf_side_move(&end->side, way->prepared, &way->options, sample, &way->cell->info);
    else if (way->column->baseline == PERF_STAGED)
        move_staged(run, sample);
    else
        end->backend->run(end->raw, way->column->baseline, &way->choice, sample);
}

static void verify(struct run *run, struct way *way) {
    const bool raw = way->column->kind == PERF_RAW;
    struct perf_sample ignored;
    uint64_t seeds[2];
    if (!run->session->options->verify || (raw && !run->session->end.backend->check))
        return;
    perf_session_fill(run->session, seeds);
    move(run, way, &ignored);
    way->cell->wrong = perf_session_check(run->session, run->lists, run->row->both ? 2 : 1, seeds);
    way->cell->verified = true;
    if (way->cell->wrong)
        fprintf(stderr, "WRONG: they were moved by: %s\n", way->column->name);
}

static void warm_up(struct run *run, struct way *way) {
    struct perf_sample sample;
    if (run->row->both)
        send_list(run->session, &run->lists[1].spec, way->prepared ? PERF_PART_POST : PERF_PART_CALL, &way->options);
    perf_progress("%s %s: first round, %s", perf_op_name(run->row->opcode), perf_size_text(run->row->fragment).text,
                  way->column->name);
    move(run, way, &sample);
    way->last = sample.wall;
    verify(run, way);
}

/* What is short is done twice, and the second time counts: else its time would depend on how the way before it left the
 * processor's caches. */
static void measure(struct run *run, struct way *way) {
    struct perf_sample sample;
    const size_t round = way->cell->rounds++;
    if (way->last < SHORT_NS)
        move(run, way, &sample);
    move(run, way, &sample);
    way->last = sample.wall;
    way->walls[round] = sample.wall;
    way->submits[round] = sample.submit;
    perf_progress("%s %s: round %zu of %" PRIu64 ", %s", perf_op_name(run->row->opcode),
                  perf_size_text(run->row->fragment).text, round + 1, run->session->options->rounds, way->column->name);
}

/* One after the other each, `count` ways from `first` on. */
static void measure_in_turn(struct run *run, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++)
        if (!run->ways[i].cell->why_not)
            warm_up(run, &run->ways[i]);
    const uint64_t begin = perf_now();
    for (uint64_t round = 0; round < run->session->options->rounds; round++) {
        if (round >= ROUNDS_LEAST && perf_now() - begin > ROW_NS)
            break;
        for (size_t i = first; i < first + count; i++)
            if (!run->ways[i].cell->why_not)
                measure(run, &run->ways[i]);
    }
}

static void summarize(struct way *way) {
    struct perf_cell *cell = way->cell;
    cell->wall = perf_percentile(way->walls, cell->rounds, 0.5);
    cell->fastest = perf_percentile(way->walls, cell->rounds, 0);
    cell->slowest = perf_percentile(way->walls, cell->rounds, 1);
    cell->submit = perf_percentile(way->submits, cell->rounds, 0.5);
}

void perf_measure_row(struct perf_session *session, struct perf_results *results, struct perf_row *row) {
    struct run *run = perf_alloc(1, sizeof *run);
    open_run(run, session, results, row);
    if (row->both) /* the owner keeps one list ready */
        for (size_t i = 0; i < run->count; i++)
            measure_in_turn(run, i, 1);
    else
        measure_in_turn(run, 0, run->count);
    for (size_t i = 0; i < run->count; i++) {
        summarize(&run->ways[i]);
        results->wrong += row->cells[i].wrong;
    }
    close_run(run);
    free(run);
}

void perf_measure_link(struct perf_session *session, struct perf_results *results, uint32_t opcode) {
    struct perf_end *end = &session->end;
    struct perf_list_spec spec = perf_measure_spec(session, opcode, 0);
    struct perf_list list;
    double walls[LINK_ROUNDS];
    const uint64_t region = perf_layout_of(spec.arena, spec.regions).size;
    spec.pattern = PERF_CONTIGUOUS;
    spec.count = 1;
    spec.fragment = spec.bytes = region < LINK_MAX ? region : LINK_MAX;
    perf_list_make(&list, &spec);
    end->backend->set_list(end->raw, &list);
    for (int i = -1; i < LINK_ROUNDS; i++) {
        struct perf_sample sample;
        end->backend->run(end->raw, PERF_LOOP, NULL, &sample);
        if (i >= 0)
            walls[i] = sample.wall;
    }
    results->link_bytes = list.bytes;
    results->link[opcode] = perf_gbps(list.bytes, perf_percentile(walls, LINK_ROUNDS, 0.5));
    perf_list_free(&list);
}
