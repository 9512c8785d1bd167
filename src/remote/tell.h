/* What the log tells of peers and their mappings. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_REMOTE_TELL_H
#define NVLXI_REMOTE_TELL_H

#include "remote/mapping.h"

/* A mapping is open, which took so long; `first`: its first segment. Of a peer's first one also by which path its
 * memory is reached, what can carry copies, and why, at INFO. Without a lock. */
void nvlxi_tell_mapped(struct nvlx_peer *peer, const struct nvlxi_mapping *mapping,
                       const struct nvlxi_segment_record *first, uint64_t ns);
void nvlxi_tell_closed(const struct nvlx_peer *peer, const struct nvlxi_mapping *mapping, int code);

#endif
