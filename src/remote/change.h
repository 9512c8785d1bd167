/* Changes of a peer's table in place: what is removed and added, and nothing else, is looked at.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Only changes of the plain kind are made so: whatever is unusual, wrong, or has no room left takes the long way
 * (descriptor/merge.h), which tells what is wrong. Plain is:
 * - the changes begin at the generation that is known, and the memory is not of this very process;
 * - what leaves its place and what comes to one shares no byte with another region that stays or comes. A region leaves
 *   when it is removed, falls asleep, or lies in other segments than before; it comes when it is added, wakes, or does;
 * - what comes lies in one run that is there, or in segments that are all new and make up one run;
 * - a run that stays does not change: neither which of its segments are joined, nor whether it may be written. */
#ifndef NVLXI_REMOTE_CHANGE_H
#define NVLXI_REMOTE_CHANGE_H

#include "remote/peer.h"

/* True when it is done. False: nothing was changed. By who has the peer's `changing`. */
bool nvlxi_change_in_place(struct nvlx_peer *peer, const struct nvlxi_descriptor *changes);

#endif
