/* What is counted of a transfer when it has ended. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_PLAN_TALLY_H
#define NVLXI_TRANSFER_PLAN_TALLY_H

#include "base/metrics.h"
#include "transfer/needs.h"

struct nvlxi_ended { /* a transfer that did not fail */
    enum nvlxi_call_kind call;
    const struct nvlxi_plan *plan; /* as long as it is whole, and its peers are pinned */
    const struct nvlxi_needs *needs;
    const struct nvlx_request_info *info;
    bool has_parts; /* which the info tells of, too, and keep what they have moved (transfer/requests/early.h) */
    uint64_t elapsed_ns;
};

/* Under the transfers' mutex. */
void nvlxi_tally(struct nvlxi_metrics *metrics, const struct nvlxi_ended *ended);

struct nvlxi_moved {
    uint64_t bytes[NVLXI_CARRIERS][NVLXI_DIRECTIONS], fragments[NVLXI_CARRIERS][NVLXI_DIRECTIONS];
};

/* What is to be counted of a transfer with a message, or of a part of one (transfer/requests/early.h), which has one
 * peer, too: it may fail yet when its plan and its pins are gone. The peer is not closed before it has ended. */
struct nvlxi_tally_kept {
    bool waits; /* there is something to be counted */
    enum nvlxi_call_kind call;
    struct nvlxi_peer_cell *cell; /* NULL: it moves nothing */
    struct nvlxi_moved moved;
};
void nvlxi_tally_later(const struct nvlxi_ended *ended, struct nvlxi_tally_kept *kept);
/* Under the transfers' mutex. */
void nvlxi_tally_kept(struct nvlxi_metrics *metrics, const struct nvlxi_tally_kept *kept,
                      const struct nvlx_request_info *info, uint64_t elapsed_ns);
/* Likewise, of a part of a transfer that has not failed: only what it has moved. */
void nvlxi_tally_part(const struct nvlxi_tally_kept *kept);

#endif
