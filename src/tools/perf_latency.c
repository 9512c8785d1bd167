/* nvlx_perf: single transfers, from the call until completion is seen. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "perf_measure.h"
#include "perf_modes.h"

#define WARM_UP   20
#define ROUNDS    2000
#define LENGTH_NS UINT64_C(1500000000) /* after which no more rounds of a length begin */

static const uint64_t default_lengths[] = {8, 64, 512, 4096, 16384, 65536};

static void move(struct perf_session *session, struct nvlx_prepared *prepared, int way, struct perf_sample *sample) {
    static const struct perf_choice none = {0, 0};
    const struct nvlx_transfer_options options = perf_side_options(session->options, session->options->budgets[0]);
    struct perf_end *end = &session->end;
    if (way == 2)
        end->backend->run(end->raw, PERF_LOOP, &none, sample);
    else
        perf_side_move(&end->side, way == 1 ? prepared : NULL, &options, sample, NULL);
}

static void summarize(struct perf_times *times, double *walls, double *submits) {
    times->median = perf_percentile(walls, times->rounds, 0.5);
    times->p90 = perf_percentile(walls, times->rounds, 0.9);
    times->p99 = perf_percentile(walls, times->rounds, 0.99);
    times->submit = perf_percentile(submits, times->rounds, 0.5);
}

/* The ways in turn. */
static void measure(struct perf_session *session, struct nvlx_prepared *prepared, struct perf_latency *latency) {
    double *walls = perf_alloc((size_t)PERF_LATENCY_WAYS * ROUNDS, sizeof *walls);
    double *submits = perf_alloc((size_t)PERF_LATENCY_WAYS * ROUNDS, sizeof *submits);
    const uint64_t begin = perf_now();
    for (size_t round = 0; round < WARM_UP + ROUNDS && perf_now() - begin < LENGTH_NS; round++) {
        perf_watch();
        for (size_t way = 0; way < PERF_LATENCY_WAYS; way++) {
            struct perf_sample sample;
            move(session, prepared, (int)way, &sample); /* twice, as in perf_measure.c */
            move(session, prepared, (int)way, &sample);
            if (round < WARM_UP)
                continue;
            walls[way * ROUNDS + latency->times[way].rounds] = sample.wall;
            submits[way * ROUNDS + latency->times[way].rounds++] = sample.submit;
        }
    }
    for (size_t way = 0; way < PERF_LATENCY_WAYS; way++)
        summarize(&latency->times[way], walls + way * ROUNDS, submits + way * ROUNDS);
    free(walls);
    free(submits);
}

static void measure_length(struct perf_session *session, struct perf_latency *latency) {
    struct perf_list_spec spec = perf_measure_spec(session, latency->opcode, latency->length);
    struct perf_end *end = &session->end;
    const struct nvlx_transfer_options options = perf_side_options(session->options, session->options->budgets[0]);
    struct perf_list list;
    spec.pattern = PERF_SCATTERED;
    spec.count = 1;
    spec.bytes = latency->length;
    perf_list_make(&list, &spec);
    perf_side_set_list(&end->side, &list);
    end->backend->set_list(end->raw, &list);
    struct nvlx_prepared *prepared = perf_side_prepare(&end->side, &options);
    perf_progress("latency of %s", perf_size_text(latency->length).text);
    perf_channel_look(&session->channel);
    measure(session, prepared, latency);
    perf_side_unprepare(prepared);
    perf_list_free(&list);
}

void perf_measure_latency(struct perf_session *session, struct perf_results *results) {
    const struct perf_options *options = session->options;
    const uint64_t *lengths = options->fragment_count ? options->fragments : default_lengths;
    const size_t count = options->fragment_count ? options->fragment_count : PERF_ENTRIES(default_lengths);
    results->latencies = perf_alloc(2 * count, sizeof *results->latencies);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++)
        for (size_t i = 0; options->op[opcode] && i < count; i++) {
            struct perf_latency *latency = &results->latencies[results->latency_count++];
            *latency = (struct perf_latency){.opcode = opcode, .length = lengths[i]};
            measure_length(session, latency);
        }
}
