/* Signals of a list: counts of peers that are changed when all that the list copies is in place.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A list can also begin with waits: NVLX_OP_WAIT_READY. Such an op is validated like a signal, except that the peer
 * grants reading (nvlxi_validated.waits), and is queued into the caller's stream before anything else of the list. What
 * ends it, lifetime/waits.h tells. The request then fails, since its bytes came too early.
 *
 * A count is 64 bits of registered memory. Who has it registered may let its streams and CPUs wait for it
 * (lifetime/waits.h); peers change it, by signals. On its way a signal is, in turn:
 *
 *     an op      of the caller's list: NVLX_OP_SIGNAL
 *     validated  the peer is alive, and grants writing its bytes; relocated (nvlxi_validated.signals)
 *     planned    in nvlxi_plan.signals, in the order of the list
 *     queued     behind all copies of the list: each leg has ended in an event, for which the carrier has waited
 *     (never)    a copy of the list could not be issued: no signal of it is
 *
 * The carrier of the signals of a GPU is the list's first leg on it: behind a single copy nothing but the signal is
 * queued. Where no leg is on that GPU, one is borrowed for them. The legs' events come after the signals. So a list
 * that is complete has signalled; its mappings are pinned until then. */
#ifndef NVLXI_TRANSFER_SIGNALS_H
#define NVLXI_TRANSFER_SIGNALS_H

#include "transfer/transfer.h"

/* How many of a plan's signals go out from this GPU. */
uint32_t nvlxi_signals_on(const struct nvlxi_plan *plan, int gpu);

/* The GPU of the signal of this number, if it is the first from it and no group is on that GPU: it takes a leg of its
 * own. Else -1. */
int nvlxi_signals_lone_gpu(const struct nvlxi_plan *plan, size_t number);

/* Lets the caller's stream wait for all counts that a list waits for, before its copies are queued. After a failure it
 * may wait for some, which is all that is left of the list. */
int nvlxi_list_await(struct nvlx_request *request, const struct nvlxi_validated *list, void *stream);
/* The list is refused all the same: no stream waits for it any more. */
void nvlxi_list_await_no_more(struct nvlx_request *request);
/* Of a request whose copies are complete: 0, or why a wait has failed. */
int nvlxi_list_judge(const struct nvlx_request *request);

/* Queues all signals of a plan, behind all that its legs have. After a failure, some may be queued. */
int nvlxi_signals_submit(const struct nvlxi_lane_pool *pool, const struct nvlxi_plan *plan,
                         const struct nvlxi_legs *legs);

#endif
