/* What graphs have of ours: see hold.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/hold.h"

/* The exchange is the last that this thread does with it: who takes the list may free the hold. */
static void end(void *argument) {
    struct nvlxi_hold *hold = argument;
    struct nvlxi_holds *holds = hold->of;
    hold->next = atomic_load(&holds->ended);
    while (!atomic_compare_exchange_weak(&holds->ended, &hold->next, hold))
        ;
}

int nvlxi_hold_begin(const struct nvlxi_context *context, const struct nvlxi_stream *stream, struct nvlxi_holds *holds,
                     struct nvlxi_hold *hold) {
    hold->of = holds;
    return context->ops->stream_keep(context->device, stream, end, hold);
}

struct nvlxi_hold *nvlxi_holds_take_ended(struct nvlxi_holds *holds) {
    return atomic_load(&holds->ended) ? atomic_exchange(&holds->ended, NULL) : NULL;
}
