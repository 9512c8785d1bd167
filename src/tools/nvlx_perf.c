/* nvlx_perf: how fast lists of fragments move between two processes, beside what CUDA offers raw.
 *
 *     nvlx_perf.c         this file: what is run, one thing after the other
 *     perf_options        what the user asks for
 *     perf_session        the two processes; perf_owner is the other one, perf_channel is between them
 *     perf_end            what each process has: the library's side (perf_side) and the raw one (perf_raw_*)
 *     perf_list           lists of fragments, and what memory must hold after they were moved
 *     perf_measure        rates; perf_latency, perf_compute and perf_random: what there is instead
 *     perf_table, perf_json, perf_plot    tell the results
 *
 * Our side uses only the public header.
 * SPDX-License-Identifier: Apache-2.0 */
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf_measure.h"
#include "perf_modes.h"
#include "perf_owner.h"
#include "perf_report.h"

/* Errors come back from calls, and are told where they end the program. */
static void tell(void *context, int level, const char *message) {
    (void)context;
    if (level == NVLX_LOG_WARNING)
        fprintf(stderr, "%s: warning: %s\n", perf_role, message);
}

static void measure_rates_of(struct perf_session *session, struct perf_results *results, uint32_t opcode, bool both) {
    const struct perf_options *options = session->options;
    perf_print_rates_head(session, results, opcode, both);
    for (size_t i = 0; i < options->fragment_count; i++) {
        struct perf_row *row = &results->rows[results->row_count];
        *row = (struct perf_row){.opcode = opcode, .both = both, .fragment = options->fragments[i]};
        perf_measure_row(session, results, row);
        results->row_count++;
        perf_print_rates(results, row);
    }
}

static void measure_rates(struct perf_session *session, struct perf_results *results) {
    const struct perf_options *options = session->options;
    results->rows = perf_alloc(4 * options->fragment_count, sizeof *results->rows);
    perf_columns_make(results, session);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
        if (!options->op[opcode])
            continue;
        if (options->baselines || options->plot)
            perf_measure_link(session, results, opcode);
        measure_rates_of(session, results, opcode, false);
        if (options->bidirectional)
            measure_rates_of(session, results, opcode, true);
    }
    if (options->submit)
        perf_print_submit(results);
}

static void measure(struct perf_session *session, struct perf_results *results) {
    const struct perf_options *options = session->options;
    if (options->verify || options->random)
        perf_session_prove(session);
    if (perf_options_rates(options))
        measure_rates(session, results);
    if (options->latency) {
        perf_measure_latency(session, results);
        perf_print_latency(session, results);
    }
    if (options->compute) {
        perf_measure_compute(session, results);
        perf_print_compute(results);
    }
    if (options->random) {
        perf_check_random(session, results);
        perf_print_random(results);
    }
}

int main(int argc, char **argv) {
    struct perf_options options;
    struct perf_session session;
    struct perf_results results = {0};
    perf_check(nvlx_set_log(NVLX_LOG_WARNING, tell, NULL), "nvlx_set_log");
    if (argc == 3 && !strcmp(argv[1], "--owner"))
        return perf_owner_run(argv[2]);
    perf_options_read(&options, argc, argv);
    perf_session_open(&session, &options);
    perf_print_head(&session);
    measure(&session, &results);
    if (options.json)
        perf_write_json(&session, &results);
    if (options.plot)
        perf_write_plot(&session, &results);
    const uint64_t wrong = results.wrong;
    perf_results_free(&results);
    perf_session_close(&session);
    return wrong ? 1 : 0;
}
