/* nvlx_perf: how fast lists move, in each way. SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_MEASURE_H
#define PERF_MEASURE_H

#include "perf_results.h"
#include "perf_session.h"

/* The ways that the options ask for, as far as the backend has them. */
void perf_columns_make(struct perf_results *results, const struct perf_session *session);

/* What a list of this size follows from. */
struct perf_list_spec perf_measure_spec(const struct perf_session *session, uint32_t opcode, uint64_t fragment);

/* Measures the ways in turn, `row` telling the list; fills the rest of it. */
void perf_measure_row(struct perf_session *session, struct perf_results *results, struct perf_row *row);

/* The rate of one long raw copy, the link's own. */
void perf_measure_link(struct perf_session *session, struct perf_results *results, uint32_t opcode);

#endif
