/* The exported functions of counts. SPDX-License-Identifier: Apache-2.0 */
#include "api/stats.h"

#include <inttypes.h>
#include <utlist.h>

#include "api/abi.h"
#include "base/error.h"

#define SLACK 4096 /* bytes by which the text may have grown when it is asked for again, if no peer came */

int nvlxi_engine_refused(struct nvlx_engine *engine, int code) {
    if (engine && code != NVLX_EFORK)
        nvlxi_count_code(engine->metrics.refused, code);
    return code;
}

static uint64_t count_queued(struct nvlxi_lane_pool *pool) {
    uint64_t queued = 0;
    pthread_mutex_lock(&pool->mutex);
    for (int kind = 0; kind < NVLXI_LANE_KINDS; kind++)
        for (const struct nvlxi_pooled_lane *lane = pool->lanes[kind]; lane; lane = lane->next)
            queued += lane->queued;
    pthread_mutex_unlock(&pool->mutex);
    return queued;
}

/* Those that nvlx_engine_get_info tells. */
static void read_holdings(struct nvlx_engine *engine, struct nvlxi_gauges *gauges) {
    struct nvlxi_registration *registration = &engine->registration;
    struct nvlxi_transfers *transfers = &engine->transfers;
    pthread_mutex_lock(&registration->mutex);
    gauges->segments = HASH_COUNT(registration->segments);
    gauges->regions = registration->region_count;
    gauges->handles_exported = registration->handles_exported;
    pthread_mutex_unlock(&registration->mutex);
    gauges->mappings = atomic_load(&engine->remote.mappings);
    pthread_mutex_lock(&transfers->mutex);
    gauges->requests = transfers->in_flight_count;
    pthread_mutex_unlock(&transfers->mutex);
}

void nvlxi_gauges_read(struct nvlx_engine *engine, struct nvlxi_gauges *gauges) {
    struct nvlxi_transfers *transfers = &engine->transfers;
    struct nvlxi_list_memory *lists = &transfers->pool.lists;
    const struct nvlx_peer *peer;
    read_holdings(engine, gauges);
    gauges->max_requests = transfers->max_requests;
    gauges->queued = count_queued(&transfers->pool);
    pthread_mutex_lock(&lists->mutex);
    gauges->list_memory = lists->block_bytes;
    pthread_mutex_unlock(&lists->mutex);
    gauges->list_memory_limit = lists->limit;
    pthread_mutex_lock(&engine->mutex);
    DL_COUNT(engine->peers, peer, gauges->peers);
    pthread_mutex_unlock(&engine->mutex);
}

/* ---- What an engine holds ----------------------------------------------------------------------------- */

int nvlx_engine_get_info(struct nvlx_engine *engine, struct nvlx_engine_info *info) {
    struct nvlxi_gauges gauges;
    int code = nvlxi_engine_check(engine);
    if (code)
        return code;
    read_holdings(engine, &gauges);
    const struct nvlx_engine_info made = {.segments = gauges.segments,
                                          .regions = gauges.regions,
                                          .handles_exported = gauges.handles_exported,
                                          .mappings = gauges.mappings,
                                          .requests = gauges.requests};
    return nvlxi_struct_give(info, &made, sizeof made, (struct nvlxi_array){0}, "nvlx_engine_info");
}

/* ---- Counts -------------------------------------------------------------------------------------------- */

static void add_cell(struct nvlx_counts *counts, const struct nvlxi_peer_cell *cell) {
    uint64_t *const bytes[NVLXI_CARRIERS][NVLXI_DIRECTIONS] = {
        {&counts->engine_read_bytes, &counts->engine_write_bytes},
        {&counts->kernel_read_bytes, &counts->kernel_write_bytes}};
    uint64_t *const fragments[NVLXI_CARRIERS][NVLXI_DIRECTIONS] = {
        {&counts->engine_read_fragments, &counts->engine_write_fragments},
        {&counts->kernel_read_fragments, &counts->kernel_write_fragments}};
    for (unsigned by = 0; by < NVLXI_CARRIERS; by++)
        for (unsigned way = 0; way < NVLXI_DIRECTIONS; way++) {
            *bytes[by][way] += nvlxi_counted(&cell->carried[by][way].bytes);
            *fragments[by][way] += nvlxi_counted(&cell->carried[by][way].fragments);
        }
    for (unsigned kind = 0; kind < NVLXI_METRIC_KINDS; kind++) {
        counts->mappings_opened += nvlxi_counted(&cell->opened[kind]);
        counts->mappings_closed += nvlxi_counted(&cell->closed[kind]);
    }
    counts->mappings_failed += nvlxi_counted(&cell->map_failures);
    counts->mappings_revoked += nvlxi_counted(&cell->revoked);
}

static uint64_t sum_codes(const nvlxi_counter *counters) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < NVLXI_METRIC_CODES; i++)
        sum += nvlxi_counted(&counters[i]);
    return sum;
}

static void count_peer(const struct nvlxi_peer_cell *cell, struct nvlx_counts *counts) {
    counts->transfers = nvlxi_counted(&cell->transfers);
    counts->submit_ns = nvlxi_counted(&cell->submit_ns);
    counts->transfer_ns = nvlxi_counted(&cell->transfer_ns);
    add_cell(counts, cell);
}

/* A transfer that names several peers counts once. */
static void count_transfers(const struct nvlxi_metrics *metrics, struct nvlx_counts *counts) {
    for (unsigned i = 0; i < NVLXI_CALL_KINDS; i++) {
        counts->transfers += nvlxi_histogram_total(&metrics->submit[i]);
        counts->submit_ns += nvlxi_counted(&metrics->submit[i].sum_ns);
    }
    for (unsigned i = 0; i < NVLXI_CARRIED_BYS; i++)
        counts->transfer_ns += nvlxi_counted(&metrics->transfer[i].sum_ns);
    counts->failed = sum_codes(metrics->failed);
    counts->refused = sum_codes(metrics->refused);
    counts->peers_lost = nvlxi_counted(&metrics->peers_lost);
    counts->graph_faults = nvlxi_counted(&metrics->graph_faults);
}

static void count_engine(struct nvlx_engine *engine, struct nvlx_counts *counts) {
    struct nvlxi_metrics *metrics = &engine->metrics;
    struct nvlxi_gauges gauges;
    nvlxi_gauges_read(engine, &gauges);
    counts->in_flight = gauges.requests;
    counts->queued = gauges.queued;
    counts->peers = gauges.peers;
    count_transfers(metrics, counts);
    counts->revocations = nvlxi_histogram_total(&engine->revocations.released);
    counts->revocation_ns = nvlxi_counted(&engine->revocations.released.sum_ns);
    counts->revocations_late = nvlxi_counted(&engine->revocations.late);
    pthread_mutex_lock(&engine->mutex);
    for (size_t i = 0; i < NVLXI_METRIC_PEERS; i++)
        add_cell(counts, &metrics->cells[i]);
    add_cell(counts, &metrics->others);
    add_cell(counts, &metrics->closed);
    pthread_mutex_unlock(&engine->mutex);
}

static int check_of(const struct nvlx_engine *engine, const struct nvlx_peer *peer) {
    if (peer && peer->engine != engine)
        return nvlxi_fail(NVLX_EINVAL, "the peer is not of this engine");
    if (peer && peer->cell == &engine->metrics.others)
        return nvlxi_fail(NVLX_EBUSY,
                          "%d peers are counted one by one, as many as may be: this one came later, and is counted "
                          "together with others",
                          NVLXI_METRIC_PEERS);
    return 0;
}

static int stats(struct nvlx_engine *engine, const struct nvlx_peer *peer, struct nvlx_counts *counts) {
    struct nvlx_counts made = {0};
    int code = nvlxi_engine_check(engine);
    if (code || (code = check_of(engine, peer)))
        return code;
    nvlxi_transfers_progress(&engine->transfers); /* what has ended is not in flight */
    if (peer)
        count_peer(peer->cell, &made);
    else
        count_engine(engine, &made);
    return nvlxi_struct_give(counts, &made, sizeof made, (struct nvlxi_array){0}, "nvlx_counts");
}

int nvlx_stats(struct nvlx_engine *engine, struct nvlx_peer *peer, struct nvlx_counts *counts) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, stats(engine, peer, counts));
}

/* ---- Text ---------------------------------------------------------------------------------------------- */

static int stats_prometheus(struct nvlx_engine *engine, char *text, size_t room, size_t *length) {
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(length, "length")))
        return code;
    if (!text && room)
        return nvlxi_fail(NVLX_EINVAL, "text is NULL and room is %zu", room);
    const size_t whole = nvlxi_stats_text(engine, text, room);
    if (text && whole >= room) {
        if (room)
            text[0] = '\0';
        return nvlxi_fail(NVLX_EINVAL, "room of %zu bytes: the text and its final NUL take %zu by now", room,
                          whole + 1);
    }
    if (text)
        text[whole] = '\0';
    *length = text ? whole : whole + SLACK;
    return 0;
}

int nvlx_stats_prometheus(struct nvlx_engine *engine, char *text, size_t room, size_t *length) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, stats_prometheus(engine, text, room, length));
}

/* ---- Those of a peer ----------------------------------------------------------------------------------- */

static int peer_stats(struct nvlx_peer *peer, int64_t timeout_ns, char **text, size_t *length) {
    int code = nvlxi_pointer_check(peer, "peer");
    if (code || (code = nvlxi_engine_check(peer->engine)) || (code = nvlxi_pointer_check(text, "text")) ||
        (code = nvlxi_pointer_check(length, "length")))
        return code;
    return nvlxi_rendezvous_report(peer, timeout_ns, text, length);
}

int nvlx_peer_stats(struct nvlx_peer *peer, int64_t timeout_ns, char **text, size_t *length) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, peer_stats(peer, timeout_ns, text, length));
}
