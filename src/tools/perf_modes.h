/* nvlx_perf: what is measured instead of the table of rates. SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_MODES_H
#define PERF_MODES_H

#include "perf_results.h"
#include "perf_session.h"

/* Single transfers, from the call until completion is seen. */
void perf_measure_latency(struct perf_session *session, struct perf_results *results);

/* Kernels that compute and transfers, alone and beside each other, on the measuring process's GPU. */
void perf_measure_compute(struct perf_session *session, struct perf_results *results);

/* Random lists, all bytes checked after each. */
void perf_check_random(struct perf_session *session, struct perf_results *results);

#endif
