/* nvlx_perf: what transfers and kernels that compute cost each other. SPDX-License-Identifier: Apache-2.0 */
#include "perf_measure.h"
#include "perf_modes.h"

#define ROUNDS           5
#define DEFAULT_FRAGMENT UINT64_C(65536)

static const char *const load_names[] = {[PERF_ARITHMETIC] = "arithmetic", [PERF_MEMORY] = "memory"};

static double load_alone(struct perf_session *session) {
    const struct perf_raw_backend *backend = session->end.backend;
    double times[ROUNDS];
    for (int i = -1; i < ROUNDS; i++) {
        perf_watch();
        backend->load_start(session->end.raw);
        const double time = backend->load_ns(session->end.raw);
        if (i >= 0)
            times[i] = time;
    }
    return perf_percentile(times, ROUNDS, 0.5);
}

static double rate_alone(struct perf_session *session, struct nvlx_prepared *prepared) {
    double walls[ROUNDS];
    for (int i = -1; i < ROUNDS; i++) {
        struct perf_sample sample;
        perf_side_move(&session->end.side, prepared, NULL, &sample, NULL);
        if (i >= 0)
            walls[i] = sample.wall;
    }
    return perf_gbps(session->end.side.bytes, perf_percentile(walls, ROUNDS, 0.5));
}

/* Transfers one after the other for as long as the load runs; the last one may outlast it. */
static void beside(struct perf_session *session, struct nvlx_prepared *prepared, struct perf_compute *compute) {
    struct perf_end *end = &session->end;
    double loads[ROUNDS], rates[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t bytes = 0;
        perf_channel_look(&session->channel);
        end->backend->load_start(end->raw);
        const uint64_t begin = perf_now();
        do {
            struct perf_sample sample;
            perf_side_move(&end->side, prepared, NULL, &sample, NULL);
            bytes += end->side.bytes;
        } while (end->backend->load_runs(end->raw));
        rates[i] = perf_gbps(bytes, (double)(perf_now() - begin));
        loads[i] = end->backend->load_ns(end->raw);
    }
    compute->load_beside = perf_percentile(loads, ROUNDS, 0.5);
    compute->rate_beside = perf_percentile(rates, ROUNDS, 0.5);
}

static void measure(struct perf_session *session, struct perf_results *results, struct perf_compute compute) {
    struct nvlx_transfer_options options = perf_side_options(session->options, compute.budget);
    options.mechanism = compute.mechanism;
    struct nvlx_prepared *prepared = perf_side_prepare(&session->end.side, &options);
    perf_progress("%s-bound kernel beside transfers by %s", compute.load, perf_mechanism_name(compute.mechanism));
    compute.rate_alone = rate_alone(session, prepared);
    beside(session, prepared, &compute);
    perf_side_unprepare(prepared);
    results->computes[results->compute_count++] = compute;
}

static void measure_load(struct perf_session *session, struct perf_results *results, uint32_t opcode,
                         enum perf_load load) {
    const struct perf_options *options = session->options;
    struct perf_end *end = &session->end;
    const uint64_t fragment = options->fragment_count ? options->fragments[0] : DEFAULT_FRAGMENT;
    const struct perf_list_spec spec = perf_measure_spec(session, opcode, fragment);
    struct perf_compute compute = {.load = load_names[load], .opcode = opcode, .fragment = fragment};
    struct perf_list list;
    perf_list_make(&list, &spec);
    perf_side_set_list(&end->side, &list);
    compute.count = list.count;
    end->backend->load_prepare(end->raw, load);
    compute.load_alone = load_alone(session);
    compute.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    measure(session, results, compute);
    compute.mechanism = NVLX_MECHANISM_KERNEL;
    for (size_t i = 0; i < options->budget_count; i++) {
        compute.budget = options->budgets[i];
        measure(session, results, compute);
    }
    perf_list_free(&list);
}

void perf_measure_compute(struct perf_session *session, struct perf_results *results) {
    const size_t ways = 1 + session->options->budget_count;
    results->computes = perf_alloc((size_t)2 * PERF_LOADS * ways, sizeof *results->computes);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++)
        for (int load = 0; session->options->op[opcode] && load < PERF_LOADS; load++)
            measure_load(session, results, opcode, load);
}
