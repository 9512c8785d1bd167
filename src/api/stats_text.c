/* An engine's metrics as text: src/doc/metrics.md has the table. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "api/stats.h"
#include "base/base.h"
#include "base/exposition.h"

static const char *const kind_names[NVLXI_METRIC_KINDS] = {
    [NVLXI_KIND_CUDA_MALLOC] = "cudaMalloc", [NVLXI_KIND_VMM] = "chunks", [NVLXI_KIND_POOL] = "pool",
    [NVLXI_KIND_FABRIC] = "fabric",          [NVLXI_KIND_HOST] = "host",
};
static const char *const carrier_names[NVLXI_CARRIERS] = {"engine", "kernel"};
static const char *const direction_names[NVLXI_DIRECTIONS] = {"read", "write"};

struct cells { /* those that have a name now */
    const struct nvlxi_peer_cell *cell[NVLXI_METRIC_PEERS + 2];
    const char *peer[NVLXI_METRIC_PEERS + 2];
    size_t count, named; /* all; those of one peer each, which come first */
};

static void list_cells(const struct nvlxi_metrics *metrics, struct cells *cells) {
    cells->count = 0;
    for (size_t i = 0; i < NVLXI_METRIC_PEERS; i++)
        if (metrics->cells[i].peers) {
            cells->cell[cells->count] = &metrics->cells[i];
            cells->peer[cells->count++] = metrics->cells[i].engine;
        }
    cells->named = cells->count;
    cells->cell[cells->count] = &metrics->others;
    cells->peer[cells->count++] = "other";
    cells->cell[cells->count] = &metrics->closed;
    cells->peer[cells->count++] = "closed";
}

/* ---- By peer ------------------------------------------------------------------------------------------- */

static void expose_info(struct nvlxi_exposition *e, const struct cells *cells) {
    nvlxi_expose_family(e, "peer_info", "gauge", "Peers with counts of their own: their process and address.");
    for (size_t i = 0; i < cells->named; i++) {
        const struct nvlxi_peer_cell *cell = cells->cell[i];
        char pid[24];
        snprintf(pid, sizeof pid, "%" PRIu64, cell->pid);
        const struct nvlxi_label labels[] = {
            {"peer", cell->engine}, {"address", cell->address}, {"pid", pid}, {NULL, NULL}};
        nvlxi_expose(e, "peer_info", labels, 1);
    }
}

/* Bytes, or fragments. */
static void expose_carried(struct nvlxi_exposition *e, const struct cells *cells, const char *name, const char *help,
                           bool bytes) {
    nvlxi_expose_family(e, name, "counter", help);
    for (size_t i = 0; i < cells->count; i++)
        for (unsigned by = 0; by < NVLXI_CARRIERS; by++)
            for (unsigned way = 0; way < NVLXI_DIRECTIONS; way++) {
                const struct nvlxi_carried *carried = &cells->cell[i]->carried[by][way];
                const struct nvlxi_label labels[] = {{"peer", cells->peer[i]},
                                                     {"mechanism", carrier_names[by]},
                                                     {"direction", direction_names[way]},
                                                     {NULL, NULL}};
                nvlxi_expose(e, name, labels, nvlxi_counted(bytes ? &carried->bytes : &carried->fragments));
            }
}

/* Of one counter, at `offset` in a cell. */
static void expose_cells(struct nvlxi_exposition *e, const struct cells *cells, const char *name, const char *help,
                         size_t offset, bool seconds) {
    nvlxi_expose_family(e, name, "counter", help);
    for (size_t i = 0; i < cells->count; i++) {
        const struct nvlxi_label labels[] = {{"peer", cells->peer[i]}, {NULL, NULL}};
        const nvlxi_counter *counter = (const void *)((const char *)cells->cell[i] + offset);
        if (seconds)
            nvlxi_expose_seconds(e, name, labels, nvlxi_counted(counter));
        else
            nvlxi_expose(e, name, labels, nvlxi_counted(counter));
    }
}

static void expose_kinds(struct nvlxi_exposition *e, const struct cells *cells, const char *name, const char *help,
                         size_t offset) {
    nvlxi_expose_family(e, name, "counter", help);
    for (size_t i = 0; i < cells->count; i++)
        for (unsigned kind = NVLXI_KIND_CUDA_MALLOC; kind < NVLXI_METRIC_KINDS; kind++) {
            const struct nvlxi_label labels[] = {{"peer", cells->peer[i]}, {"kind", kind_names[kind]}, {NULL, NULL}};
            const nvlxi_counter *counters = (const void *)((const char *)cells->cell[i] + offset);
            nvlxi_expose(e, name, labels, nvlxi_counted(&counters[kind]));
        }
}

static void expose_peers(struct nvlxi_exposition *e, const struct cells *cells) {
    expose_info(e, cells);
    expose_carried(e, cells, "transferred_bytes_total", "Bytes of transfers that ended well.", true);
    expose_carried(e, cells, "transferred_fragments_total", "Copies after planning, of the same transfers.", false);
    expose_cells(e, cells, "transfers_total", "Transfers that ended well, counted for each peer that they name.",
                 offsetof(struct nvlxi_peer_cell, transfers), false);
    expose_cells(e, cells, "submitting_seconds_total", "Time in the calls that submitted them.",
                 offsetof(struct nvlxi_peer_cell, submit_ns), true);
    expose_cells(e, cells, "transferring_seconds_total", "Time from these calls until the end was seen.",
                 offsetof(struct nvlxi_peer_cell, transfer_ns), true);
    expose_kinds(e, cells, "mappings_opened_total", "Mappings of peers' memory that were opened.",
                 offsetof(struct nvlxi_peer_cell, opened));
    expose_kinds(e, cells, "mappings_closed_total", "Mappings of peers' memory that were closed.",
                 offsetof(struct nvlxi_peer_cell, closed));
    expose_cells(e, cells, "mappings_revoked_total", "Mappings whose memory the peer withdrew.",
                 offsetof(struct nvlxi_peer_cell, revoked), false);
    expose_cells(e, cells, "mappings_failed_total", "Mappings that could not be opened.",
                 offsetof(struct nvlxi_peer_cell, map_failures), false);
}

/* ---- Of the engine ------------------------------------------------------------------------------------- */

static void expose_codes(struct nvlxi_exposition *e, const char *name, const char *help,
                         const nvlxi_counter *counters) {
    nvlxi_expose_family(e, name, "counter", help);
#define EXPOSE_CODE(error, value, text)                                                                                \
    nvlxi_expose(e, name, (const struct nvlxi_label[]){{"code", #error}, {NULL, NULL}},                                \
                 nvlxi_counted(&counters[-(value)]));
    NVLX_ERRORS(EXPOSE_CODE)
#undef EXPOSE_CODE
}

static void expose_times(struct nvlxi_exposition *e, const struct nvlx_engine *engine) {
    static const char *const calls[NVLXI_CALL_KINDS] = {"transfer", "post", "blocks"};
    static const char *const by[NVLXI_CARRIED_BYS] = {"none", "engine", "kernel", "both"};
    const struct nvlxi_metrics *metrics = &engine->metrics;
    nvlxi_expose_family(e, "submit_seconds", "histogram",
                        "Time in a call that submitted a transfer, which ended well.");
    for (unsigned i = 0; i < NVLXI_CALL_KINDS; i++)
        nvlxi_expose_histogram(e, "submit_seconds", &(struct nvlxi_label){"call", calls[i]}, &metrics->submit[i]);
    nvlxi_expose_family(e, "transfer_seconds", "histogram",
                        "Time from the call until the end of a transfer was seen, which ended well.");
    for (unsigned i = 0; i < NVLXI_CARRIED_BYS; i++)
        nvlxi_expose_histogram(e, "transfer_seconds", &(struct nvlxi_label){"mechanism", by[i]}, &metrics->transfer[i]);
    nvlxi_expose_family(e, "map_seconds", "histogram", "Time to open a mapping, asking for its files included.");
    nvlxi_expose_histogram(e, "map_seconds", NULL, &metrics->map);
    nvlxi_expose_family(e, "revocation_seconds", "histogram",
                        "Time until followers had let go of memory that was withdrawn, where some had to.");
    nvlxi_expose_histogram(e, "revocation_seconds", NULL, &engine->revocations.released);
}

static void expose_one(struct nvlxi_exposition *e, const char *name, const char *type, const char *help,
                       uint64_t value) {
    nvlxi_expose_family(e, name, type, help);
    nvlxi_expose(e, name, NULL, value);
}

static void expose_gauges(struct nvlxi_exposition *e, const struct nvlxi_gauges *gauges) {
    expose_one(e, "requests_in_flight", "gauge", "Transfers whose bytes are not in place yet.", gauges->requests);
    expose_one(e, "requests_limit", "gauge", "How many may be.", gauges->max_requests);
    expose_one(e, "lane_queue_depth", "gauge", "Copies and kernels in the queues of lanes.", gauges->queued);
    expose_one(e, "list_memory_bytes", "gauge", "Pinned memory that lists take.", gauges->list_memory);
    expose_one(e, "list_memory_limit_bytes", "gauge", "How much they may take.", gauges->list_memory_limit);
    expose_one(e, "peers", "gauge", "Peers that are open.", gauges->peers);
    expose_one(e, "mappings", "gauge", "Mappings of peers' memory that are open.", gauges->mappings);
    expose_one(e, "regions", "gauge", "Regions that are registered.", gauges->regions);
    expose_one(e, "segments", "gauge", "Segments under them.", gauges->segments);
}

static void expose_engine(struct nvlxi_exposition *e, const struct nvlx_engine *engine) {
    const struct nvlxi_metrics *metrics = &engine->metrics;
    const struct nvlxi_label info[] = {{"engine", engine->context.identity.engine},
                                       {"backend", engine->context.ops->name},
                                       {"version", nvlx_version()},
                                       {NULL, NULL}};
    nvlxi_expose_family(e, "engine_info", "gauge", "This engine: its id, backend and library.");
    nvlxi_expose(e, "engine_info", info, 1);
    expose_times(e, engine);
    expose_codes(e, "transfers_failed_total", "Transfers that failed after they were submitted.", metrics->failed);
    expose_codes(e, "calls_refused_total", "Calls that refused to start or to prepare a transfer.", metrics->refused);
    expose_codes(e, "map_errors_total", "Mappings that could not be opened, by cause.", metrics->map_failed);
    expose_one(e, "revocations_late_total", "counter", "Waits that ended before all followers had let go.",
               nvlxi_counted(&engine->revocations.late));
    expose_one(e, "peers_lost_total", "counter", "Peers whose connection ended by itself.",
               nvlxi_counted(&metrics->peers_lost));
    expose_one(e, "graph_faults_total", "counter", "Looks in which a part of a graph had left out ids out of range.",
               nvlxi_counted(&metrics->graph_faults));
}

size_t nvlxi_stats_text(void *context, char *text, size_t room) {
    struct nvlx_engine *engine = context;
    struct nvlxi_exposition e = {.room = room};
    struct nvlxi_gauges gauges;
    struct cells cells;
    e.text = text;
    nvlxi_transfers_progress(&engine->transfers);
    nvlxi_gauges_read(engine, &gauges);
    expose_engine(&e, engine);
    expose_gauges(&e, &gauges);
    pthread_mutex_lock(&engine->mutex);
    list_cells(&engine->metrics, &cells);
    expose_peers(&e, &cells);
    pthread_mutex_unlock(&engine->mutex);
    return e.length;
}
