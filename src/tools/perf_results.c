/* nvlx_perf: what was measured. SPDX-License-Identifier: Apache-2.0 */
#include "perf_results.h"

#include <stdlib.h>

double perf_rate(const struct perf_row *row, const struct perf_cell *cell) {
    return cell->rounds ? perf_gbps(row->bytes, cell->wall) / (row->both ? 2 : 1) : 0;
}

double perf_submit_each(const struct perf_row *row, const struct perf_cell *cell) {
    return cell->submit / (double)row->count * (row->both ? 2 : 1);
}

static bool counts(const struct perf_column *column, uint32_t budget) {
    if (column->kind != PERF_RAW || column->baseline == PERF_STAGED)
        return false;
    return column->baseline != PERF_KERNEL || !budget || (column->budget && column->budget <= budget);
}

const struct perf_column *perf_best_raw(const struct perf_results *results, const struct perf_row *row,
                                        uint32_t budget) {
    const struct perf_column *best = NULL;
    double rate = 0;
    for (size_t i = 0; i < results->column_count; i++) {
        const double other = perf_rate(row, &row->cells[i]);
        if (counts(&results->columns[i], budget) && other > rate) {
            best = &results->columns[i];
            rate = other;
        }
    }
    return best;
}

void perf_results_free(struct perf_results *results) {
    free(results->rows);
    free(results->latencies);
    free(results->computes);
    *results = (struct perf_results){0};
}

const char *perf_op_name(uint32_t opcode) {
    return opcode == NVLX_OP_WRITE ? "write" : "read";
}

const char *perf_mechanism_name(uint32_t mechanism) {
    static const char *const names[] = {"default", "auto", "copy_engine", "kernel"};
    return mechanism < PERF_ENTRIES(names) ? names[mechanism] : "?";
}
