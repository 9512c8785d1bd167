/* Reads that begin while what they read is still being mapped.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The first list that reads what a peer has maps it, chunk after chunk: a chunk of 20 MiB takes 150 to 200 us, and its
 * bytes 53 us (H200). They need not wait for the other chunks. So while a run is PENDING (remote/mapping.h), long ops
 * whose bytes are mapped by then are copied: by *parts* of the list's request, each a request of its own, validated,
 * pinned and in flight as any other. What a part has is an op of 0 bytes in the list, which then takes its usual way.
 *
 *     begun    the thread that opens the mapping submits a part; its request is in `parts` of the list's
 *     joined   the list is IN FLIGHT, too: it is DONE when its copies are and all of its parts, and fails as they do
 *     undone   the peer has changed something since: what a part has read may have changed, too. Its parts are
 *              waited for, and the list as a whole is copied
 *     dropped  the mapping has failed, or the list was refused: its parts are waited for, then the call returns
 *
 * Only reads: a call that fails has then written no memory but this process's own. Of each peer at least one op stays
 * in the list, which therefore pins the peer. Parts take no place of config.max_requests. All belongs to the thread
 * that submits. */
#ifndef NVLXI_TRANSFER_REQUESTS_EARLY_H
#define NVLXI_TRANSFER_REQUESTS_EARLY_H

#include "transfer/transfer.h"

struct nvlxi_early {
    struct nvlx_request *whole;
    const struct nvlx_op *given; /* the list's ops */
    size_t count;
    int32_t priority;
    bool over;            /* no part is begun any more */
    struct nvlx_op *ops;  /* the same, with 0 bytes where a part has them; NULL: nothing was looked at yet */
    struct nvlx_op *some; /* room for those of a part, */
    size_t *which;        /* and which they are; behind it: */
    size_t *left;         /* ops that may be of a part */
    size_t left_count;
    struct nvlxi_validation *validation; /* of parts that read `mapping`; NULL: there was none yet */
    const struct nvlxi_mapping *mapping; /* of which bytes were told last, */
    uint64_t seen;                       /* and how many had been when a part was begun */
    struct nvlxi_opening_watch watch;    /* who opens mappings for the list tells this */
};

/* For a list of `whole`, which may have parts if `can`. */
void nvlxi_early_begin(struct nvlxi_early *early, struct nvlx_request *whole, const struct nvlx_op *ops, size_t count,
                       int32_t priority, bool can);
/* Whether a part is of a peer that has changed something since. With the tables held for reading. */
bool nvlxi_early_outdated(const struct nvlxi_early *early);
/* The list has no parts any more, and all its ops. */
void nvlxi_early_undo(struct nvlxi_early *early);
/* The list as it is now. */
const struct nvlx_op *nvlxi_early_ops(const struct nvlxi_early *early);
/* Nobody reads nvlxi_early_ops any more. Parts stay. */
void nvlxi_early_end(struct nvlxi_early *early);

/* Whether all parts of a request are DONE; the first failure is its own. Under its `polling`. */
bool nvlxi_parts_done(struct nvlx_request *whole);
/* Adds what they carry to what the request tells of itself. */
void nvlxi_parts_describe(struct nvlx_request *whole);
/* Counts what they have moved, of one that has not failed. Under the transfers' mutex. */
void nvlxi_parts_tally(const struct nvlx_request *whole);
/* Looks at each once. */
void nvlxi_parts_poll(const struct nvlx_request *whole);
/* Until each is DONE. How they end is not told. */
void nvlxi_parts_await(const struct nvlx_request *whole);
/* The same, and frees them. */
void nvlxi_parts_drop(struct nvlx_request *whole);

#endif
