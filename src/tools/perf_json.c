/* nvlx_perf: all results as JSON. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "perf_report.h"

static void write_string(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', file);
        if ((unsigned char)*text < ' ')
            fprintf(file, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, file);
    }
    fputc('"', file);
}

/* A member that is a string, with what stands before it. */
static void write_member(FILE *file, const char *before, const char *name, const char *text) {
    fprintf(file, "%s\"%s\": ", before, name);
    write_string(file, text);
}

static const char *truth(bool value) {
    return value ? "true" : "false";
}

static void write_gpu(FILE *file, const char *name, int gpu, const char *text) {
    fprintf(file, ",\n  \"%s\": {\"gpu\": %d", name, gpu);
    write_member(file, ", ", "name", text);
    fputc('}', file);
}

static void write_head(FILE *file, const struct perf_session *session) {
    const struct perf_options *options = session->options;
    write_member(file, "{\n  ", "library", nvlx_version());
    write_member(file, ",\n  ", "backend", nvlx_backend_name(session->end.side.engine));
    write_member(file, ",\n  ", "platform", session->platform);
    write_gpu(file, "owner", options->gpu[0], session->gpu[0]);
    write_gpu(file, "measuring", options->gpu[1], session->gpu[1]);
    fprintf(file, ",\n  \"same_gpu\": %s,\n  \"arena_bytes\": %" PRIu64 ",\n  \"regions\": %" PRIu64,
            truth(session->same_gpu), options->arena, options->regions);
    write_member(file, ",\n  ", "pattern", perf_pattern_names[options->pattern]);
    write_member(file, ",\n  ", "mechanism", perf_mechanism_name(options->mechanism));
}

/* ---- Rates ------------------------------------------------------------------------------------------------ */

static void write_carried(FILE *file, const struct nvlx_request_info *info) {
    fprintf(file,
            ", \"sms\": %" PRIu32 ", \"engine_bytes\": %" PRIu64 ", \"engine_fragments\": %" PRIu64
            ", \"kernel_bytes\": %" PRIu64 ", \"kernel_fragments\": %" PRIu64,
            info->sms, info->engine_bytes, info->engine_fragments, info->kernel_bytes, info->kernel_fragments);
}

static void write_share(FILE *file, const struct perf_results *results, const struct perf_row *row,
                        const struct perf_cell *cell, const char *name, uint32_t budget) {
    const struct perf_column *best = perf_best_raw(results, row, budget);
    if (best)
        fprintf(file, ", \"%s\": %.4f", name,
                perf_rate(row, cell) / perf_rate(row, &row->cells[best - results->columns]));
}

static void write_cell(FILE *file, const struct perf_results *results, const struct perf_row *row, size_t i) {
    const struct perf_column *column = &results->columns[i];
    const struct perf_cell *cell = &row->cells[i];
    write_member(file, i ? ",\n      {" : "\n      {", "way", column->name);
    fprintf(file, ", \"raw\": %s, \"max_sms\": %" PRIu32, truth(column->kind == PERF_RAW), column->budget);
    if (cell->why_not) {
        write_member(file, ", ", "not_measured", cell->why_not);
        fputc('}', file);
        return;
    }
    fprintf(file,
            ", \"rounds\": %zu, \"gbps\": %.4f, \"median_ns\": %.0f, \"fastest_ns\": %.0f, \"slowest_ns\": %.0f, "
            "\"submit_ns\": %.0f, \"submit_ns_a_fragment\": %.2f",
            cell->rounds, perf_rate(row, cell), cell->wall, cell->fastest, cell->slowest, cell->submit,
            perf_submit_each(row, cell));
    if (*cell->kernel)
        write_member(file, ", ", "kernel", cell->kernel);
    if (column->kind != PERF_RAW) {
        write_carried(file, &cell->info);
        write_share(file, results, row, cell, "of_best_raw", 0);
        write_share(file, results, row, cell, "of_best_raw_in_budget", column->budget);
    }
    fprintf(file, ", \"verified\": %s, \"wrong_bytes\": %" PRIu64 "}", truth(cell->verified), cell->wrong);
}

static void write_row(FILE *file, const struct perf_results *results, const struct perf_row *row) {
    const struct perf_column *best = perf_best_raw(results, row, 0);
    write_member(file, row == results->rows ? "\n    {" : ",\n    {", "op", perf_op_name(row->opcode));
    fprintf(file, ", \"both_directions\": %s, \"fragment\": %" PRIu64 ", \"count\": %" PRIu64 ", \"bytes\": %" PRIu64,
            truth(row->both), row->fragment, row->count, row->bytes);
    if (best)
        write_member(file, ", ", "best_raw", best->name);
    fputs(", \"ways\": [", file);
    for (size_t i = 0; i < results->column_count; i++)
        write_cell(file, results, row, i);
    fputs("]}", file);
}

static void write_rates(FILE *file, const struct perf_results *results) {
    if (results->link_bytes)
        fprintf(file, ",\n  \"link\": {\"bytes\": %" PRIu64 ", \"read_gbps\": %.4f, \"write_gbps\": %.4f}",
                results->link_bytes, results->link[NVLX_OP_READ], results->link[NVLX_OP_WRITE]);
    fputs(",\n  \"rates\": [", file);
    for (size_t i = 0; i < results->row_count; i++)
        write_row(file, results, &results->rows[i]);
    fputc(']', file);
}

/* ---- The others ------------------------------------------------------------------------------------------- */

static void write_latencies(FILE *file, const struct perf_results *results) {
    static const char *const ways[PERF_LATENCY_WAYS] = {"call", "prepared", "raw"};
    fputs(",\n  \"latency\": [", file);
    for (size_t i = 0; i < results->latency_count; i++) {
        const struct perf_latency *latency = &results->latencies[i];
        write_member(file, i ? ",\n    {" : "\n    {", "op", perf_op_name(latency->opcode));
        fprintf(file, ", \"bytes\": %" PRIu64, latency->length);
        for (int way = 0; way < PERF_LATENCY_WAYS; way++) {
            const struct perf_times *times = &latency->times[way];
            fprintf(file,
                    ", \"%s\": {\"rounds\": %zu, \"median_ns\": %.0f, \"p90_ns\": %.0f, \"p99_ns\": %.0f, "
                    "\"submit_ns\": %.0f}",
                    ways[way], times->rounds, times->median, times->p90, times->p99, times->submit);
        }
        fputc('}', file);
    }
    fputc(']', file);
}

static void write_computes(FILE *file, const struct perf_results *results) {
    fputs(",\n  \"compute\": [", file);
    for (size_t i = 0; i < results->compute_count; i++) {
        const struct perf_compute *compute = &results->computes[i];
        write_member(file, i ? ",\n    {" : "\n    {", "op", perf_op_name(compute->opcode));
        write_member(file, ", ", "bound_by", compute->load);
        write_member(file, ", ", "mechanism", perf_mechanism_name(compute->mechanism));
        fprintf(file,
                ", \"max_sms\": %" PRIu32 ", \"fragment\": %" PRIu64 ", \"count\": %" PRIu64
                ", \"alone_ns\": %.0f, \"beside_ns\": %.0f, \"slowdown\": %.4f, \"gbps_alone\": %.4f, "
                "\"gbps_beside\": %.4f}",
                compute->budget, compute->fragment, compute->count, compute->load_alone, compute->load_beside,
                compute->load_beside / compute->load_alone, compute->rate_alone, compute->rate_beside);
    }
    fputc(']', file);
}

static void write_random(FILE *file, const struct perf_results *results) {
    fprintf(file,
            ",\n  \"random\": {\"lists\": %" PRIu64 ", \"fragments\": %" PRIu64 ", \"bytes\": %" PRIu64
            ", \"wrong_lists\": %" PRIu64 "}",
            results->random_lists, results->random_fragments, results->random_bytes, results->random_wrong);
}

void perf_write_json(const struct perf_session *session, const struct perf_results *results) {
    const char *path = session->options->json;
    FILE *file = fopen(path, "w");
    if (!file)
        perf_die("--json: %s: %s", path, strerror(errno));
    write_head(file, session);
    if (results->row_count)
        write_rates(file, results);
    if (results->latency_count)
        write_latencies(file, results);
    if (results->compute_count)
        write_computes(file, results);
    if (results->random_lists)
        write_random(file, results);
    fprintf(file, ",\n  \"wrong_bytes\": %" PRIu64 "\n}\n", results->wrong);
    const bool failed = ferror(file) != 0;
    if (fclose(file) || failed)
        perf_die("--json: %s: it could not be written whole", path);
}
