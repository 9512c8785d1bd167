/* nvlx_perf: what was measured, as tables that a person reads. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "perf.h"

/* ---- What results tell ------------------------------------------------------------------------------------ */

double perf_rate(const struct perf_row *row, const struct perf_cell *cell) {
    return cell->wall > 0 ? (double)row->bytes / cell->wall / (row->both ? 2 : 1) : 0;
}

double perf_submit_each(const struct perf_row *row, const struct perf_cell *cell) {
    return cell->submit / (double)row->count * (row->both ? 2 : 1);
}

static bool counts(const struct perf_column *column, uint32_t budget) {
    if (!PERF_IS_RAW(column->way) || column->way == PERF_STAGED)
        return false;
    return column->way != PERF_KERNEL || !budget || (column->budget && column->budget <= budget);
}

const struct perf_column *perf_best_raw(const struct perf_table *table, const struct perf_row *row, uint32_t budget) {
    const struct perf_column *best = NULL;
    double rate = 0;
    for (size_t i = 0; i < table->column_count; i++) {
        const double other = perf_rate(row, &row->cells[i]);
        if (counts(&table->columns[i], budget) && other > rate) {
            best = &table->columns[i];
            rate = other;
        }
    }
    return best;
}

/* ---- What was measured ------------------------------------------------------------------------------------ */

void perf_print_head(const struct perf_session *session) {
    const struct perf_options *options = session->options;
    const struct perf_machine *machine = &session->machine[1];
    perf_progress_end();
    printf("libnvlxfer %s, backend %s", nvlx_version(), nvlx_backend_name(session->end.engine));
    if (!session->host)
        printf(", CUDA %s, driver %s for CUDA %s", machine->cuda, *machine->driver ? machine->driver : "unknown",
               machine->driver_cuda);
    putchar('\n');
    printf("The owner's GPU: %d, %s. The measuring process's: %d, %s.\n", options->gpu[0], session->machine[0].gpu,
           options->gpu[1], session->machine[1].gpu);
    if (session->host)
        printf("The host backend: software GPUs in shared memory. This shows that it works, not how fast NVLink is.\n");
    if (session->same_gpu)
        printf("Both processes are on the same GPU: nothing crosses a link, these are rates within its memory.\n");
    printf("%s on each side, registered as %" PRIu64 " region%s.\n", perf_size_text(options->arena).text,
           options->regions, options->regions == 1 ? "" : "s");
    fflush(stdout);
}

/* ---- Rates ------------------------------------------------------------------------------------------------ */

enum { OURS_WIDTH = 15, RAW_WIDTH = 11, LATENCY_WIDTH = 26 };

static int width_of(const struct perf_column *column) {
    return PERF_IS_RAW(column->way) ? RAW_WIDTH : OURS_WIDTH;
}

static void print_column_names(const struct perf_table *table) {
    printf("%9s %8s", "fragment", "count");
    for (size_t i = 0; i < table->column_count; i++)
        printf(" %*s", width_of(&table->columns[i]), table->columns[i].name);
    puts("  best raw");
}

void perf_print_rates_head(const struct perf_session *session, const struct perf_results *results, uint32_t opcode,
                           bool both) {
    perf_progress_end();
    printf("\n%s, %s%s: GB/s (10^9 bytes) from the call to completion, medians of up to %" PRIu64 " rounds.\n",
           opcode == NVLX_OP_READ ? "Read (get)" : "Write (put)", perf_pattern_names[session->options->pattern],
           both ? ", both directions at once, each way" : "", session->options->rounds);
    if (results->link[opcode])
        printf("One raw copy of %s reaches %.1f GB/s.\n", perf_size_text(results->link_bytes).text,
               results->link[opcode]);
    if (!both && results->link[opcode])
        puts("Ours also in percent of the best raw way that takes no more SMs; staged is none of them.");
    print_column_names(&results->rates);
    fflush(stdout);
}

enum what { RATE, SUBMIT, LATENCY }; /* a table tells of each cell */

static struct perf_text cell_text(const struct perf_table *table, const struct perf_row *row, size_t i,
                                  enum what what) {
    const struct perf_column *column = &table->columns[i], *best = perf_best_raw(table, row, column->budget);
    const struct perf_cell *cell = &row->cells[i];
    const double rate = perf_rate(row, cell);
    struct perf_text it;
    if (what == SUBMIT)
        snprintf(it.text, sizeof it.text, "%.1f %.0f", cell->submit / 1e3, perf_submit_each(row, cell));
    else if (what == LATENCY)
        snprintf(it.text, sizeof it.text, "%.2f (%6.2f, %6.2f)", cell->wall / 1e3, cell->p90 / 1e3, cell->p99 / 1e3);
    else if (best && !PERF_IS_RAW(column->way))
        snprintf(it.text, sizeof it.text, "%.1f %4.0f%%", rate,
                 100 * rate / perf_rate(row, &row->cells[best - table->columns]));
    else
        snprintf(it.text, sizeof it.text, "%.1f", rate);
    return it;
}

static void print_cells(const struct perf_table *table, const struct perf_row *row, enum what what) {
    for (size_t i = 0; i < table->column_count; i++)
        printf(" %*s", what == LATENCY ? LATENCY_WIDTH : width_of(&table->columns[i]),
               row->cells[i].why_not ? "-" : cell_text(table, row, i, what).text);
}

static void print_verified(const struct perf_table *table, const struct perf_row *row) {
    size_t verified = 0, wrong = 0;
    for (size_t i = 0; i < table->column_count; i++) {
        verified += row->cells[i].verified;
        wrong += row->cells[i].wrong != 0;
    }
    if (verified)
        printf(", %zu of %zu verified%s", verified - wrong, verified, wrong ? ": WRONG BYTES" : "");
}

static void print_marks(const struct perf_table *table, const struct perf_row *row) {
    const struct perf_column *best = perf_best_raw(table, row, 0);
    const char *why_not = NULL;
    for (size_t i = 0; i < table->column_count; i++)
        why_not = row->cells[i].why_not ? row->cells[i].why_not : why_not;
    printf("  %s", best ? best->name : "-");
    if (best && *row->cells[best - table->columns].kernel.name)
        printf(" (%s)", row->cells[best - table->columns].kernel.name);
    print_verified(table, row);
    if (why_not && !row->both)
        printf(", - since %s", why_not);
    putchar('\n');
}

void perf_print_rates(const struct perf_table *table, const struct perf_row *row) {
    perf_progress_end();
    printf("%9s %8" PRIu64, perf_size_text(row->fragment).text, row->count);
    print_cells(table, row, RATE);
    print_marks(table, row);
    fflush(stdout);
}

void perf_print_submit(const struct perf_table *table) {
    perf_progress_end();
    printf("\nSubmitting: microseconds in the call or calls, and nanoseconds a fragment\n%-6s", "");
    print_column_names(table);
    for (size_t i = 0; i < table->row_count; i++) {
        const struct perf_row *row = &table->rows[i];
        printf("%-6s%9s %8" PRIu64, perf_op_names[row->opcode], perf_size_text(row->fragment).text, row->count);
        print_cells(table, row, SUBMIT);
        puts(row->both ? "  both directions" : "");
    }
}

/* ---- Latency ---------------------------------------------------------------------------------------------- */

void perf_print_latency(const struct perf_session *session, const struct perf_table *table) {
    perf_progress_end();
    printf("\nOne transfer, from the call until completion is seen: microseconds, median and (90 %%, 99 %%)\n"
           "%-6s %9s %26s %26s %26s\n",
           "", "bytes", "one call", "a post of a prepared one", session->host ? "memcpy" : "raw copy + synchronize");
    for (size_t i = 0; i < table->row_count; i++) {
        const struct perf_row *row = &table->rows[i];
        printf("%-6s %9" PRIu64, perf_op_names[row->opcode], row->fragment);
        print_cells(table, row, LATENCY);
        print_verified(table, row);
        putchar('\n');
    }
}
