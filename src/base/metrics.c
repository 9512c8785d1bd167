/* Cells of peers, and sums. SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics.h"

#include <stdio.h>
#include <string.h>

uint64_t nvlxi_histogram_total(const struct nvlxi_histogram *histogram) {
    uint64_t total = 0;
    for (unsigned i = 0; i <= NVLXI_METRIC_BUCKETS; i++)
        total += nvlxi_counted(&histogram->bucket[i]);
    return total;
}

/* The cell that the engine has, else a free one, else NULL. */
static struct nvlxi_peer_cell *find_cell(struct nvlxi_metrics *metrics, const char *engine) {
    struct nvlxi_peer_cell *idle = NULL;
    for (unsigned i = NVLXI_METRIC_PEERS; i-- > 0;) {
        struct nvlxi_peer_cell *cell = &metrics->cells[i];
        if (cell->peers && strcmp(cell->engine, engine) == 0)
            return cell;
        idle = cell->peers ? idle : cell;
    }
    return idle;
}

struct nvlxi_peer_cell *nvlxi_metrics_join(struct nvlxi_metrics *metrics, const char *engine, uint64_t pid,
                                           const char *address) {
    struct nvlxi_peer_cell *cell = find_cell(metrics, engine);
    if (!cell)
        return &metrics->others;
    if (!cell->peers++) {
        snprintf(cell->engine, sizeof cell->engine, "%s", engine);
        cell->address[0] = '\0';
        cell->pid = pid;
    }
    if (*address)
        snprintf(cell->address, sizeof cell->address, "%s", address);
    return cell;
}

/* Moves a count of a cell that nobody writes any more. */
static void move(nvlxi_counter *to, nvlxi_counter *from) {
    nvlxi_count(to, atomic_exchange_explicit(from, 0, memory_order_relaxed));
}

void nvlxi_metrics_leave(struct nvlxi_metrics *metrics, struct nvlxi_peer_cell *cell) {
    struct nvlxi_peer_cell *closed = &metrics->closed;
    if (cell == &metrics->others || --cell->peers)
        return;
    for (unsigned i = 0; i < NVLXI_CARRIERS; i++)
        for (unsigned k = 0; k < NVLXI_DIRECTIONS; k++) {
            move(&closed->carried[i][k].bytes, &cell->carried[i][k].bytes);
            move(&closed->carried[i][k].fragments, &cell->carried[i][k].fragments);
        }
    move(&closed->transfers, &cell->transfers);
    move(&closed->submit_ns, &cell->submit_ns);
    move(&closed->transfer_ns, &cell->transfer_ns);
    for (unsigned i = 0; i < NVLXI_METRIC_KINDS; i++) {
        move(&closed->opened[i], &cell->opened[i]);
        move(&closed->closed[i], &cell->closed[i]);
    }
    move(&closed->map_failures, &cell->map_failures);
    move(&closed->revoked, &cell->revoked);
}
