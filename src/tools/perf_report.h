/* nvlx_perf: the tables that a person reads, the JSON file and the plot. SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_REPORT_H
#define PERF_REPORT_H

#include "perf_results.h"
#include "perf_session.h"

/* Which processes, GPUs and software were measured. */
void perf_print_head(const struct perf_session *session);

/* The table of rates: its head, and a line as soon as its row is measured; then what it costs to submit. */
void perf_print_rates_head(const struct perf_session *session, const struct perf_results *results, uint32_t opcode,
                           bool both);
void perf_print_rates(const struct perf_results *results, const struct perf_row *row);
void perf_print_submit(const struct perf_results *results);

void perf_print_latency(const struct perf_session *session, const struct perf_results *results);
void perf_print_compute(const struct perf_results *results);
void perf_print_random(const struct perf_results *results);

/* Each dies if the file cannot be written. */
void perf_write_json(const struct perf_session *session, const struct perf_results *results);
void perf_write_plot(const struct perf_session *session, const struct perf_results *results);

#endif
