/* Which regions of a peer have a digest: found by where they begin.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * An index is made from a peer's table when somebody needs it, and kept by who needs it: it is good as long as that
 * table is the same. Few verify, and nobody else pays for it. */
#ifndef NVLXI_REMOTE_DIGESTED_H
#define NVLXI_REMOTE_DIGESTED_H

#include "remote/peer.h"

struct nvlxi_digested {
    uint64_t address, length, digest;
    size_t number; /* of the region, in the table */
};

struct nvlxi_digested_index {  /* starts zeroed */
    uint64_t version, changes; /* of the table */
    struct nvlxi_digested *list;
    size_t count;
};

/* Makes it the peer's, unless it is already. With the tables held for reading, as for the next. NVLX_ENOMEM. */
int nvlxi_digested_make(struct nvlxi_digested_index *index, const struct nvlx_peer *peer);
void nvlxi_digested_free(struct nvlxi_digested_index *index);

/* The longest region with a digest that begins at `address` and has at most so many bytes; NULL if there is none. */
const struct nvlxi_digested *nvlxi_digested_find(const struct nvlxi_digested_index *index, uint64_t address,
                                                 uint64_t most);

#endif
