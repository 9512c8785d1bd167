/* Graphs that have something of an engine: who asks before it goes, and who uses its memory.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_GRAPHS_H
#define NVLXI_API_GRAPHS_H

#include "api/engine.h"

/* NVLX_EBUSY: graphs have parts or waits, for a peer or, if it is NULL, at all. CUDA tells a moment late that a graph
 * is gone: so this waits for it, a second at most. */
int nvlxi_graphs_refuse(struct nvlx_engine *engine, const struct nvlx_peer *peer);

/* An nvlxi_users_function; the context is the engine. */
uint32_t nvlxi_find_users(void *context, uint64_t address, uint64_t length);
/* What they are called, and what to do about them. */
const char *nvlxi_users_name(uint32_t users);
const char *nvlxi_users_advice(uint32_t users);

/* Waits likewise until no graph uses any of these bytes of this process. */
void nvlxi_graphs_await(struct nvlx_engine *engine, uint64_t address, uint64_t length);

#endif
