/* nvlx_perf: rounds of all ways in turn: rates and latency. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "perf.h"

#define SHORT_NS   3e6
#define LINK_MAX   (UINT64_C(256) << 20)
#define ROUNDS_MAX 2000

/* How often the ways of a row are measured. */
struct effort {
    uint64_t warm_up, rounds;
    uint64_t least, limit_ns; /* so many rounds at least, no more begin after so long */
};
static const struct effort latency_effort = {.warm_up = 40, .rounds = ROUNDS_MAX, .limit_ns = 1500000000};
static const struct effort link_effort = {.warm_up = 1, .rounds = 7, .least = 7};

struct run;
struct way { /* a column, ready to move the row's list */
    const struct perf_column *column;
    struct perf_cell *cell;
    void (*move)(struct run *run, struct way *way, struct perf_sample *sample);
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared;
    double walls[ROUNDS_MAX], submits[ROUNDS_MAX];
    double last; /* nanoseconds that it took last */
};

struct run { /* of one row */
    struct perf_session *session;
    struct perf_row *row;
    struct effort effort;
    struct perf_list lists[2]; /* the second one: the owner's, of both directions */
    struct way ways[PERF_COLUMNS_MAX];
    size_t count;
};

/* ---- Moving ----------------------------------------------------------------------------------------------- */

static void move_ours(struct run *run, struct way *way, struct perf_sample *sample) {
    perf_end_move(&run->session->end, way->prepared, way->column->way, &way->options, sample, &way->cell->info);
}

static void move_raw(struct run *run, struct way *way, struct perf_sample *sample) {
    const struct perf_end *end = &run->session->end;
    end->backend->run(end, way->column->way, &way->cell->kernel, sample);
}

/* The owner gathers before a read, and scatters after a write. */
static void move_staged(struct run *run, struct way *way, struct perf_sample *sample) {
    const struct perf_end *end = &run->session->end;
    const bool read = run->row->opcode == NVLX_OP_READ;
    (void)way;
    perf_round_begin();
    const uint64_t begin = clock_now_ns();
    if (!read)
        end->backend->stage(end);
    perf_round_go();
    perf_round_wait();
    if (read)
        end->backend->stage(end);
    sample->wall = sample->submit = (double)(clock_now_ns() - begin);
}

static void move_both(struct run *run, struct way *way, struct perf_sample *sample) {
    struct perf_sample own;
    perf_round_begin();
    const uint64_t begin = clock_now_ns();
    perf_round_go();
    move_ours(run, way, &own);
    perf_round_wait();
    *sample = (struct perf_sample){.wall = (double)(clock_now_ns() - begin), .submit = own.submit};
}

/* ---- One row ---------------------------------------------------------------------------------------------- */

static struct perf_list_spec spec_of(const struct perf_session *session, uint32_t opcode, uint64_t fragment) {
    const struct perf_options *options = session->options;
    return (struct perf_list_spec){.opcode = opcode,
                                   .pattern = options->pattern,
                                   .fragment = fragment,
                                   .count = options->count,
                                   .pitch = options->pitch,
                                   .layers = options->layers,
                                   .bytes = options->bytes,
                                   .arena = options->arena,
                                   .regions = options->regions,
                                   .seed = fragment * 2 + opcode};
}

static void make_lists(struct run *run, struct perf_list_spec spec) {
    spec.half = run->row->both ? 1 : 0;
    perf_list_make(&run->lists[0], &spec);
    if (run->row->both) {
        spec.half = 2;
        spec.swap = 1;
        spec.seed += UINT64_C(1) << 40;
        perf_list_make(&run->lists[1], &spec);
    }
    perf_session_lists(run->lists, PERF_STAGED, NULL);
    run->row->count = run->lists[0].count + run->lists[1].count;
    run->row->bytes = run->lists[0].bytes + run->lists[1].bytes;
}

/* The raw way can do it, or why not. */
static const char *open_raw_way(struct run *run, struct way *way) {
    const struct perf_end *end = &run->session->end;
    const enum perf_way which = way->column->way;
    way->move = which == PERF_STAGED ? move_staged : move_raw;
    if (run->row->both)
        return "both directions are measured of ours only";
    if ((which == PERF_KERNEL || which == PERF_STAGED) && !run->lists[0].aligned)
        return "its kernels copy multiples of 16 bytes only";
    if (which == PERF_STAGED && run->lists[0].bytes > end->staging_size)
        return "its staging is as large as --bytes";
    if (which == PERF_KERNEL)
        way->cell->kernel = end->backend->choose(end, way->column->budget);
    return NULL;
}

static void open_way(struct run *run, struct way *way) {
    nvlx_transfer_options_init(&way->options);
    way->options.mechanism = run->session->options->mechanism;
    way->options.max_sms = way->column->budget;
    way->options.priority = (int32_t)run->session->options->priority;
    way->move = run->row->both ? move_both : move_ours;
    if (way->column->way == PERF_PREPARED)
        way->prepared = perf_end_prepare(&run->session->end, &way->options);
    if (PERF_IS_RAW(way->column->way))
        way->cell->why_not = open_raw_way(run, way);
}

static void close_way(struct way *way, struct perf_results *results) {
    struct perf_cell *cell = way->cell;
    results->wrong += cell->wrong;
    if (!cell->rounds && !cell->why_not)
        cell->why_not = "interrupted";
    cell->wall = perf_percentile(way->walls, cell->rounds, 0.5);
    cell->fastest = perf_percentile(way->walls, cell->rounds, 0);
    cell->slowest = perf_percentile(way->walls, cell->rounds, 1);
    cell->p90 = perf_percentile(way->walls, cell->rounds, 0.9);
    cell->p99 = perf_percentile(way->walls, cell->rounds, 0.99);
    cell->submit = perf_percentile(way->submits, cell->rounds, 0.5);
    perf_check(nvlx_prepared_free(way->prepared), "nvlx_prepared_free");
}

static void verify(struct run *run, struct way *way) {
    const bool unchecked = PERF_IS_RAW(way->column->way) && run->session->end.backend->host;
    struct perf_sample ignored;
    if (!run->session->options->verify || unchecked)
        return;
    perf_session_fill(run->session);
    way->move(run, way, &ignored);
    way->cell->wrong = perf_session_check(run->session, run->lists);
    way->cell->verified = true;
    if (way->cell->wrong)
        fprintf(stderr, "WRONG: they were moved by: %s\n", way->column->name);
}

static void warm_up(struct run *run, struct way *way) {
    struct perf_sample sample = {0};
    if (run->row->both)
        perf_session_lists(run->lists, way->column->way, &way->options);
    for (uint64_t i = 0; i < run->effort.warm_up; i++)
        way->move(run, way, &sample);
    way->last = sample.wall;
    verify(run, way);
}

/* What is short is done twice, and the second time counts: else its time would depend on how the way before it left the
 * processor's caches. */
static void measure(struct run *run, struct way *way) {
    struct perf_sample sample;
    const size_t round = way->cell->rounds++;
    if (way->last < SHORT_NS)
        way->move(run, way, &sample);
    way->move(run, way, &sample);
    way->last = sample.wall;
    way->walls[round] = sample.wall;
    way->submits[round] = sample.submit;
    perf_progress(false, "%s %s, %s: round %zu", perf_op_names[run->row->opcode],
                  perf_size_text(run->row->fragment).text, way->column->name, round + 1);
}

/* One after the other each, `count` ways from `first` on. */
static void measure_in_turn(struct run *run, size_t first, size_t count) {
    const struct effort *effort = &run->effort;
    for (size_t i = first; i < first + count && !perf_stopped(); i++)
        if (!run->ways[i].cell->why_not)
            warm_up(run, &run->ways[i]);
    const uint64_t end = clock_now_ns() + effort->limit_ns;
    for (uint64_t round = 0; round < effort->rounds && !perf_stopped(); round++) {
        if (round >= effort->least && clock_now_ns() > end)
            break;
        for (size_t i = first; i < first + count; i++)
            if (!run->ways[i].cell->why_not)
                measure(run, &run->ways[i]);
    }
}

/* Measures a list in all columns of a table, which gets a row. */
static struct perf_row *measure_row(struct perf_session *session, struct perf_results *results,
                                    struct perf_table *table, bool both, struct perf_list_spec spec,
                                    struct effort effort) {
    struct perf_end *end = &session->end;
    struct perf_row *row = &table->rows[table->row_count++];
    struct run *run = perf_alloc(1, sizeof *run);
    *row = (struct perf_row){.opcode = spec.opcode, .both = both, .fragment = spec.fragment};
    *run = (struct run){.session = session, .row = row, .effort = effort, .count = table->column_count};
    make_lists(run, spec);
    perf_end_set_list(end, &run->lists[0]);
    for (size_t i = 0; i < run->count; i++) {
        run->ways[i].column = &table->columns[i];
        run->ways[i].cell = &row->cells[i];
        open_way(run, &run->ways[i]);
    }
    const size_t at_once = both ? 1 : run->count; /* in both directions, the owner keeps one list ready */
    for (size_t i = 0; i < run->count; i += at_once)
        measure_in_turn(run, i, at_once);
    for (size_t i = 0; i < run->count; i++)
        close_way(&run->ways[i], results);
    perf_list_free(&run->lists[0]);
    perf_list_free(&run->lists[1]);
    free(run);
    return row;
}

static void add_column(struct perf_table *table, enum perf_way way, uint32_t budget, const char *name) {
    struct perf_column *column = &table->columns[table->column_count++];
    *column = (struct perf_column){.way = way, .budget = budget};
    if (budget)
        snprintf(column->name, sizeof column->name, "%s <=%" PRIu32, name, budget);
    else
        snprintf(column->name, sizeof column->name, "%s", name);
}

/* ---- Rates ------------------------------------------------------------------------------------------------ */

/* The ways that the options ask for, as far as the backend has them. */
static void make_columns(struct perf_table *table, const struct perf_session *session) {
    const struct perf_options *options = session->options;
    const struct perf_raw_backend *backend = session->end.backend;
    for (size_t i = 0; i < options->budget_count; i++) {
        add_column(table, PERF_CALL, options->budgets[i], perf_way_names[PERF_CALL]);
        if (options->prepared)
            add_column(table, PERF_PREPARED, options->budgets[i], perf_way_names[PERF_PREPARED]);
        if (options->pitch)
            add_column(table, PERF_ROWS, options->budgets[i], perf_way_names[PERF_ROWS]);
        if (options->layers)
            add_column(table, PERF_BLOCKS, options->budgets[i], perf_way_names[PERF_BLOCKS]);
    }
    for (int way = PERF_LOOP; way < PERF_WAYS; way++) {
        const char *name = way == PERF_LOOP ? backend->loop_name : perf_way_names[way];
        if (!(options->baselines & backend->ways & 1u << way) || (way == PERF_2D && options->pattern < PERF_IN_ROWS))
            continue;
        add_column(table, way, 0, name);
        for (size_t j = 0; way == PERF_KERNEL && j < options->budget_count; j++)
            if (options->budgets[j])
                add_column(table, way, options->budgets[j], name);
    }
}

/* The rate of one long raw copy, the link's own. */
static void measure_link(struct perf_session *session, struct perf_results *results, uint32_t opcode) {
    struct perf_list_spec spec = spec_of(session, opcode, 0);
    struct perf_row row;
    struct perf_table table = {.rows = &row};
    const uint64_t region = perf_layout_of(spec.arena, spec.regions).size;
    spec.pattern = PERF_CONTIGUOUS;
    spec.count = 1;
    spec.fragment = spec.bytes = region < LINK_MAX ? region : LINK_MAX;
    add_column(&table, PERF_LOOP, 0, "");
    measure_row(session, results, &table, false, spec, link_effort);
    results->link_bytes = row.bytes;
    results->link[opcode] = perf_rate(&row, &row.cells[0]);
}

static void measure_rates_of(struct perf_session *session, struct perf_results *results, uint32_t opcode, bool both) {
    const struct perf_options *options = session->options;
    const struct effort effort = {.warm_up = 1, .rounds = options->rounds, .least = 5, .limit_ns = 1000000000};
    perf_print_rates_head(session, results, opcode, both);
    for (size_t i = 0; i < options->fragment_count && !perf_stopped(); i++) {
        const struct perf_list_spec spec = spec_of(session, opcode, options->fragments[i]);
        const struct perf_row *row = measure_row(session, results, &results->rates, both, spec, effort);
        perf_print_rates(&results->rates, row);
        perf_progress(true, "%s%s of %s measured, %zu of %zu", perf_op_names[opcode], both ? ", both directions," : "",
                      perf_size_text(row->fragment).text, i + 1, options->fragment_count);
    }
}

void perf_measure_rates(struct perf_session *session, struct perf_results *results) {
    const struct perf_options *options = session->options;
    results->rates.rows = perf_alloc(4 * options->fragment_count, sizeof *results->rates.rows);
    make_columns(&results->rates, session);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
        if (!(options->op & opcode) || perf_stopped())
            continue;
        if (options->baselines || options->plot)
            measure_link(session, results, opcode);
        for (int both = 0; both < (options->bidirectional ? 2 : 1) && !perf_stopped(); both++)
            measure_rates_of(session, results, opcode, both);
    }
    if (options->submit)
        perf_print_submit(&results->rates);
}

/* ---- Latency ---------------------------------------------------------------------------------------------- */

static void measure_length(struct perf_session *session, struct perf_results *results, uint32_t opcode,
                           uint64_t length) {
    struct perf_list_spec spec = spec_of(session, opcode, length);
    spec.pattern = PERF_SCATTERED;
    spec.count = 1;
    spec.bytes = length;
    measure_row(session, results, &results->latency, false, spec, latency_effort);
    perf_progress(true, "latency: %s of %s measured", perf_op_names[opcode], perf_size_text(length).text);
}

void perf_measure_latency(struct perf_session *session, struct perf_results *results) {
    const struct perf_options *options = session->options;
    struct perf_table *table = &results->latency;
    table->rows = perf_alloc(2 * options->fragment_count, sizeof *table->rows);
    add_column(table, PERF_CALL, options->budgets[0], "call");
    add_column(table, PERF_PREPARED, options->budgets[0], "prepared");
    add_column(table, PERF_LOOP, 0, "raw");
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++)
        for (size_t i = 0; options->op & opcode && i < options->fragment_count && !perf_stopped(); i++)
            measure_length(session, results, opcode, options->fragments[i]);
    perf_print_latency(session, table);
}
