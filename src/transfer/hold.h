/* Holds: what a graph has of ours, until it is gone.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *     BEGUN    the graph that a stream captures has it, and each graph and executable that is made from that one, and
 *              each of their runs
 *     ENDED    they are all gone: in the list `ended`, by whatever thread has seen that. It takes no lock, and calls no
 *              driver: it may be inside one
 *     (none)   taken from that list, by who gives back what was held */
#ifndef NVLXI_TRANSFER_HOLD_H
#define NVLXI_TRANSFER_HOLD_H

#include <stdatomic.h>

#include "device/context.h"

struct nvlxi_hold {
    struct nvlxi_holds *of;
    struct nvlxi_hold *next; /* in the list of those that have ended */
};

struct nvlxi_holds {
    _Atomic(struct nvlxi_hold *) ended;
};

/* What is queued in the stream from now on may use what is held. */
int nvlxi_hold_begin(const struct nvlxi_context *context, const struct nvlxi_stream *stream, struct nvlxi_holds *holds,
                     struct nvlxi_hold *hold);
/* All that have ended and were not taken yet, as a list by `next`. */
struct nvlxi_hold *nvlxi_holds_take_ended(struct nvlxi_holds *holds);

#endif
