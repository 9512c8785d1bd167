/* Which local bytes a list touches, asked by who wants to unregister them. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * While a list is validated, only the pieces of the lookup table that it meets are noted: each is cut at every region
 * of that moment, so a region that holds one is touched. A region that was registered later may hold a part of one.
 * Only then the list itself is looked through, or its plan, which has the same bytes. */
#ifndef NVLXI_TRANSFER_USES_H
#define NVLXI_TRANSFER_USES_H

#include "transfer/plan.h"
#include "transfer/validate.h"

/* Whether the list touches any of [address, address + length). `plan` is its plan; it is not read while needs->ops is
 * set. */
bool nvlxi_needs_touch(const struct nvlxi_needs *needs, const struct nvlxi_plan *plan, uint64_t address,
                       uint64_t length);

#endif
