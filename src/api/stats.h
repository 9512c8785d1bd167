/* What an engine tells of itself in numbers. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_STATS_H
#define NVLXI_API_STATS_H

#include "api/engine.h"

/* What is looked up when somebody asks. */
struct nvlxi_gauges {
    uint64_t segments, regions, mappings, peers, requests, max_requests;
    uint64_t handles_exported; /* since the engine was made */
    uint64_t queued;           /* copies and kernels that lanes have */
    uint64_t list_memory, list_memory_limit;
};

void nvlxi_gauges_read(struct nvlx_engine *engine, struct nvlxi_gauges *gauges);

/* All of it as text, without a final NUL, as far as `room` goes. Returns its whole length. The context is the engine.
 */
size_t nvlxi_stats_text(void *context, char *text, size_t room);

#endif
