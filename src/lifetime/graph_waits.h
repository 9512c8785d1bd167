/* Waits of graphs: a stream that captured one waits for a peer's signal each time that the graph runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Nobody calls the library when a graph runs. So its wait is known here from the capture until the graph is gone, and
 * is ended for good: this run of the graph, if it waits, and all later ones. Each wait has a gate, a word in pinned
 * memory, which a kernel of one thread reads while it waits for the count. The CPU alone opens it: no driver is needed,
 * and the count stays as it is. The states of a wait:
 *
 *     ENTERED   in the list, before anything is queued: it pins the peer, and its count, its mark and what it has
 *               reached cannot be unregistered. Then the graph holds it (transfer/hold.h), then its kernel is queued
 *     FAILED    the gate has the code: the peer is gone, or memory of the wait was withdrawn. Runs that come to the
 *               wait and find the count not reached write the mark and go on
 *     (gone)    the hold has ended. Everything is given back by whoever looks next
 *
 *     ENTERED -> FAILED    by the thread that looks after waits (waits.h), or by who withdraws the memory
 *     both -> (gone)       when the graph is gone, and all that was made from it
 *
 * A wait that has FAILED is told once: by the log, an event, and its number. `mutex` of waits.h guards the list. */
#ifndef NVLXI_LIFETIME_GRAPH_WAITS_H
#define NVLXI_LIFETIME_GRAPH_WAITS_H

#include "lifetime/waits.h"

struct nvlxi_graph_wait {
    struct nvlxi_hold hold;
    uint64_t number; /* of those of waits.h */
    struct nvlx_peer *peer;
    struct nvlxi_paced paced;
    struct nvlxi_chunk *chunk; /* has the gate */
    int failure;               /* 0: it is as it was */
    bool told;
    struct nvlxi_graph_wait *prev, *next;
};

/* Queues it into a stream that captures. As nvlxi_waits_add. */
int nvlxi_graph_waits_add(struct nvlxi_waits *waits, const struct nvlxi_awaited *awaited,
                          const struct nvlxi_stream *stream, uint64_t *number);

/* Fails those with memory among these bytes, which are withdrawn. Under the mutex. */
void nvlxi_graph_waits_end(struct nvlxi_waits *waits, uint64_t address, uint64_t length, int code, const char *reason);
/* By the thread: fails those whose peers are gone, and tells all that have failed. */
void nvlxi_graph_waits_look(struct nvlxi_waits *waits);

/* Whether there are any with memory among these bytes. */
bool nvlxi_graph_waits_use(struct nvlxi_waits *waits, uint64_t address, uint64_t length);
/* How many there are: for a peer, or, if it is NULL, at all. */
uint32_t nvlxi_graph_waits_count(struct nvlxi_waits *waits, const struct nvlx_peer *peer);

#endif
