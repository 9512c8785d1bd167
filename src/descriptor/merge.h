/* What is known and what has changed -> what is known then. Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DESCRIPTOR_MERGE_H
#define NVLXI_DESCRIPTOR_MERGE_H

#include "descriptor/descriptor.h"

/* Whether two records are of the same segment. */
bool nvlxi_segment_same(const struct nvlxi_segment_record *a, const struct nvlxi_segment_record *b);

/* Whether a region of the changes, that was told of before, is the one that is known by its id: only what may become
 * another differs. */
bool nvlxi_region_same(const struct nvlxi_region_record *known, const struct nvlxi_region_record *altered);

/* Applies changes that begin at the generation that is known, or before, and end after it: both were decoded, and are
 * of one engine. A region of the changes that is known by its id takes the place of that. What comes back is as sound
 * as what decode makes, in order of address, without what is NVLXI_GONE and without segments that no region lies in.
 * NVLX_EFORMAT: what is removed or is another now was not there, or what is added is in the way of what stays.
 * NVLX_ENOMEM. */
int nvlxi_descriptor_merge(const struct nvlxi_descriptor *known, const struct nvlxi_descriptor *changes,
                           struct nvlxi_descriptor **made);

#endif
