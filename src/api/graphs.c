/* Graphs that have something of an engine: see graphs.h. SPDX-License-Identifier: Apache-2.0 */
#include "api/graphs.h"

#include <inttypes.h>

#include "base/error.h"
#include "base/thread.h"
#include "lifetime/graph_waits.h"
#include "transfer/graphs.h"

#define PATIENCE_NS UINT64_C(1000000000) /* nvlxfer.h tells it */

const char *nvlxi_users_name(uint32_t users) {
    return users & NVLXI_A_PREPARED_LIST ? "a prepared list or a table of blocks"
           : users & NVLXI_A_GRAPH       ? "a graph"
           : users & NVLXI_A_TRANSFER    ? "a transfer in flight"
           : users & NVLXI_A_DIGEST      ? "a digest in flight"
                                         : "a stream that waits";
}

const char *nvlxi_users_advice(uint32_t users) {
    return users & NVLXI_A_PREPARED_LIST ? ": free it first (nvlx_prepared_free, nvlx_blocks_free)"
           : users & NVLXI_A_GRAPH       ? ": destroy it first, with all executable graphs that were made of it"
                                         : "";
}

uint32_t nvlxi_find_users(void *context, uint64_t address, uint64_t length) {
    struct nvlx_engine *engine = context;
    return nvlxi_transfers_users(&engine->transfers, address, length) |
           (nvlxi_digester_uses(&engine->digester, address, length) ? NVLXI_A_DIGEST : 0u) |
           (nvlxi_graph_waits_use(&engine->waits, address, length) ? NVLXI_A_GRAPH : 0u) |
           (nvlxi_waits_use(&engine->waits, address, length) ? NVLXI_A_WAIT : 0u);
}

void nvlxi_graphs_await(struct nvlx_engine *engine, uint64_t address, uint64_t length) {
    for (uint64_t since = nvlxi_now_ns(); nvlxi_now_ns() - since < PATIENCE_NS; nvlxi_pause(since)) {
        nvlxi_transfers_progress(&engine->transfers);
        if (!(nvlxi_find_users(engine, address, length) & NVLXI_A_GRAPH))
            return;
    }
}

int nvlxi_graphs_refuse(struct nvlx_engine *engine, const struct nvlx_peer *peer) {
    for (uint64_t since = nvlxi_now_ns();; nvlxi_pause(since)) {
        nvlxi_graphs_reap(&engine->transfers);
        const uint32_t parts = nvlxi_graphs_count(&engine->transfers, peer),
                       waits = nvlxi_graph_waits_count(&engine->waits, peer);
        if (!parts && !waits)
            return 0;
        if (nvlxi_now_ns() - since >= PATIENCE_NS)
            return nvlxi_fail(NVLX_EBUSY,
                              "graphs have %" PRIu32 " transfers and %" PRIu32
                              " waits %s: destroy them first, with all executable graphs that were made of them",
                              parts, waits, peer ? "that name the peer" : "of this engine");
    }
}
