/* What an engine counts, for who watches it: numbers alone, no clock and no lock of its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A count is written in one of two ways, always the same: by `nvlxi_count`, by whoever holds a lock that all its
 * writers hold, which costs as much as an ordinary addition; or by `nvlxi_count_alone`, from anywhere, where it is
 * rare. Anybody may read it. So counts that belong together may be read a moment apart.
 *
 * Peers have cells, by engine id. There are NVLXI_METRIC_PEERS of them, whatever the number of peers: those that find
 * none share `others`, and so do several peers whose bytes cannot be told apart. When the last peer of a cell is
 * closed, what it counted goes to `closed`, and the cell is free. So sums over all cells never fall. Who joins, leaves
 * and reads cells holds the engine's mutex. */
#ifndef NVLXI_BASE_METRICS_H
#define NVLXI_BASE_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/records.h"

#define NVLXI_METRIC_PEERS   64
#define NVLXI_METRIC_CODES   32 /* errors, by -code */
#define NVLXI_METRIC_KINDS   (NVLXI_KIND_HOST + 1)
#define NVLXI_METRIC_BUCKETS 25 /* up to 2^10 ns, 2^11 ns ... 2^34 ns (17 s); what takes longer is in one more */

typedef atomic_uint_fast64_t nvlxi_counter;

enum nvlxi_carrier { NVLXI_ENGINES, NVLXI_KERNELS, NVLXI_CARRIERS };
enum nvlxi_direction { NVLXI_READS, NVLXI_WRITES, NVLXI_DIRECTIONS };
enum nvlxi_call_kind { NVLXI_CALL_TRANSFER, NVLXI_CALL_POST, NVLXI_CALL_BLOCKS, NVLXI_CALL_KINDS };
enum nvlxi_carried_by {
    NVLXI_BY_NOTHING,
    NVLXI_BY_ENGINES_ALONE,
    NVLXI_BY_KERNELS_ALONE,
    NVLXI_BY_BOTH,
    NVLXI_CARRIED_BYS
};

struct nvlxi_histogram {
    nvlxi_counter bucket[NVLXI_METRIC_BUCKETS + 1]; /* the last: longer than all */
    nvlxi_counter sum_ns;
};

struct nvlxi_carried {
    nvlxi_counter bytes, fragments;
};

struct nvlxi_peer_cell {
    /* Written under the transfers' mutex. */
    struct nvlxi_carried carried[NVLXI_CARRIERS][NVLXI_DIRECTIONS];
    nvlxi_counter transfers, submit_ns, transfer_ns; /* of transfers that named the peer and did not fail */
    /* Written from anywhere. */
    nvlxi_counter opened[NVLXI_METRIC_KINDS], closed[NVLXI_METRIC_KINDS]; /* mappings */
    nvlxi_counter map_failures, revoked;                                  /* revoked: mappings that the peer withdrew */
    uint32_t peers;                                                       /* that have the cell; 0: it is free */
    uint64_t pid;
    char engine[NVLXI_ENGINE_ID + 1];
    char address[NVLXI_ADDRESS_MAX + 1]; /* where it serves; "": it does not */
};

struct nvlxi_metrics {
    /* Written under the transfers' mutex. */
    struct nvlxi_histogram submit[NVLXI_CALL_KINDS], transfer[NVLXI_CARRIED_BYS];
    /* Written from anywhere. */
    nvlxi_counter failed[NVLXI_METRIC_CODES], refused[NVLXI_METRIC_CODES], map_failed[NVLXI_METRIC_CODES];
    nvlxi_counter peers_lost, graph_faults;
    struct nvlxi_histogram map;
    struct nvlxi_peer_cell others, cells[NVLXI_METRIC_PEERS];
    struct nvlxi_peer_cell closed; /* written under the engine's mutex */
};

static inline uint64_t nvlxi_counted(const nvlxi_counter *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Under the lock that all writers of this counter hold. */
static inline void nvlxi_count(nvlxi_counter *counter, uint64_t more) {
    atomic_store_explicit(counter, nvlxi_counted(counter) + more, memory_order_relaxed);
}

static inline void nvlxi_count_alone(nvlxi_counter *counter, uint64_t more) {
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* An error: one of an array of NVLXI_METRIC_CODES. */
static inline void nvlxi_count_code(nvlxi_counter *counters, int code) {
    const unsigned index = (unsigned)-code;
    nvlxi_count_alone(&counters[index < NVLXI_METRIC_CODES ? index : 0], 1);
}

static inline unsigned nvlxi_histogram_bucket(uint64_t ns) {
    const uint64_t above = ns ? (ns - 1) >> 10 : 0;
    const unsigned bucket = above ? 64u - (unsigned)__builtin_clzll(above) : 0;
    return bucket < NVLXI_METRIC_BUCKETS ? bucket : NVLXI_METRIC_BUCKETS;
}

/* As nvlxi_count, and as nvlxi_count_alone. */
static inline void nvlxi_histogram_count(struct nvlxi_histogram *histogram, uint64_t ns) {
    nvlxi_count(&histogram->bucket[nvlxi_histogram_bucket(ns)], 1);
    nvlxi_count(&histogram->sum_ns, ns);
}

static inline void nvlxi_histogram_count_alone(struct nvlxi_histogram *histogram, uint64_t ns) {
    nvlxi_count_alone(&histogram->bucket[nvlxi_histogram_bucket(ns)], 1);
    nvlxi_count_alone(&histogram->sum_ns, ns);
}

/* How often, whatever it took. */
uint64_t nvlxi_histogram_total(const struct nvlxi_histogram *histogram);

/* The cell of an engine, for one more peer: its own, or `others`. */
struct nvlxi_peer_cell *nvlxi_metrics_join(struct nvlxi_metrics *metrics, const char *engine, uint64_t pid,
                                           const char *address);
/* Of a peer that is closed: nothing counts there for it any more. */
void nvlxi_metrics_leave(struct nvlxi_metrics *metrics, struct nvlxi_peer_cell *cell);

#endif
