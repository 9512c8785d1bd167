/* What transfers ask to be told when they are complete: between transfers.c and events.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_MESSAGES_H
#define NVLXI_API_MESSAGES_H

#include "transfer/transfer.h"

/* The one peer that all ops are for. */
int nvlxi_message_peer(const struct nvlx_op *ops, size_t count, struct nvlx_peer **peer);

/* Only a stream may be one that captures a graph, and need no request: that is looked at later. */
int nvlxi_request_check(struct nvlx_request **request, const struct nvlx_transfer_options *options);

/* Queues the message of a transfer that is about to be submitted, if it has one: to `peer`. */
int nvlxi_asked_make(const struct nvlx_transfer_options *options, struct nvlx_peer *peer, struct nvlx_request **request,
                     struct nvlxi_asked *asked);
/* The transfer was not submitted. */
void nvlxi_asked_undo(const struct nvlxi_asked *asked);

#endif
