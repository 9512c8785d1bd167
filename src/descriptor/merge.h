/* What is known and what has changed -> what is known then. Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DESCRIPTOR_MERGE_H
#define NVLXI_DESCRIPTOR_MERGE_H

#include "descriptor/descriptor.h"

/* Whether two records are of the same segment. */
bool nvlxi_segment_same(const struct nvlxi_segment_record *a, const struct nvlxi_segment_record *b);

/* Applies changes that begin at the generation that is known, or before, and end after it: both were decoded, and are
 * of one engine. What comes back is as sound as what decode makes, in order of address, without what is NVLXI_GONE and
 * without segments that no region lies in. NVLX_EFORMAT: what is removed was not there, what is added was, or is in the
 * way of what stays. NVLX_ENOMEM. */
int nvlxi_descriptor_merge(const struct nvlxi_descriptor *known, const struct nvlxi_descriptor *changes,
                           struct nvlxi_descriptor **made);

#endif
