/* Graphs: what calls have put into CUDA graphs that streams capture.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A call with a stream that captures copies nothing. What it would queue becomes a part of the graph, which is done
 * each time that the graph runs. Nobody calls the library for that. So what the part uses must be there as long as the
 * graph is, with all that was made from it: mappings, lists in pinned memory, own bytes. The part is a request that no
 * caller has, in a state of its own:
 *
 *     VALIDATED  as in transfer.h, or posted
 *     CAPTURED   in the list of those captured, from the step that would make it IN FLIGHT; it pins its peers and
 *                mappings, and its local bytes cannot be unregistered. Then the graph holds it (hold.h), then its
 *                copies are queued: into the stream itself, since other lanes do not capture
 *     (idle)     the hold has ended: all is given back, by whoever looks next (nvlxi_graphs_reap)
 *
 *     VALIDATED -> CAPTURED    as VALIDATED -> IN FLIGHT: with the tables held for reading, or as a post
 *     CAPTURED -> VALIDATED    it is refused, before the graph holds it
 *     CAPTURED -> (idle)       the graph is gone. Also where queueing has failed half-way, and so the call: the graph
 *                              may have some of it
 *
 * Invariants:
 * - Nothing is queued that the graph does not hold, and nothing that a capture does not take: that is refused before.
 * - A part is not IN FLIGHT: it has no completion, and is none of config.max_requests.
 * - An owner that withdraws memory waits for the parts that use it, and for no others, as graphs live long: a part
 *   counts as a transfer of the peer if the peer does not tell all its bytes any more (nvlxi_graphs_holding).
 * - As long as there is a part, its engine and its peers stay.
 *
 * A part with ids on the GPU leaves out those that are out of range, and no call is there to fail. So whoever looks
 * (nvlxi_graphs_look) sees it in the part's list memory. Each time is counted, and for each part the first is logged.
 */
#ifndef NVLXI_TRANSFER_GRAPHS_H
#define NVLXI_TRANSFER_GRAPHS_H

#include "transfer/hold.h"
#include "transfer/transfer.h"

struct nvlxi_captured { /* of a request: set before it enters */
    struct nvlxi_hold hold;
    struct nvlx_request *request;
    bool held;       /* by the graph: from then on the request is the graph's, whatever the call returns */
    uint64_t *known; /* [peers]: generations that have what its own list names; NULL: its form knows */
    bool told;       /* that it has met an id out of range; under the transfers' mutex, as the next two */
    struct nvlxi_captured *prev, *next; /* of those that are watched: that have ids on the GPU, and may run */
};

/* Whether the call, with its stream, is one or the other: NVLX_EINVAL, NVLX_ENOTSUP. */
int nvlxi_graphs_check(const struct nvlxi_stream *stream, const struct nvlxi_asked *asked, uint32_t flags);

/* Makes the request one that is to be CAPTURED, or not to be. */
int nvlxi_graphs_want(struct nvlx_request *request);
void nvlxi_graphs_want_not(struct nvlx_request *request);

/* VALIDATED -> CAPTURED, and back. */
int nvlxi_graphs_enter(struct nvlx_request *request);
void nvlxi_graphs_leave(struct nvlx_request *request);
/* Hands it over to the graph, and queues all of its plan, which is sealed. */
int nvlxi_graphs_issue(struct nvlx_request *request, const struct nvlxi_terms *terms);
/* Whether the graph has it. */
static inline bool nvlxi_graphs_have(const struct nvlx_request *request) {
    return request->captured && request->captured->held;
}

/* Signals and waits of a graph are kernels, which come when copies are captured already. NVLX_ENOTSUP: the GPU has none
 * loaded. */
int nvlxi_graphs_check_kernels(const struct nvlxi_context *context, int gpu);

/* Gives back what graphs held that are gone. */
void nvlxi_graphs_reap(struct nvlxi_transfers *transfers);
/* The same; and at most each tenth of a second tells of ids out of range that parts have met. */
void nvlxi_graphs_look(struct nvlxi_transfers *transfers);

/* How many parts use bytes that the peer does not tell any more. */
uint32_t nvlxi_graphs_holding(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer);
/* How many there are: that name a peer, or, if it is NULL, at all. */
uint32_t nvlxi_graphs_count(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer);

#endif
