/* Which regions of a peer have a digest: found by where they begin.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * An index is made from a peer's table when somebody needs it, and kept on a shelf by who needs it: it is good as long
 * as that table is the same. Few verify, and nobody else pays for it. It has copies of all that it tells, which stay as
 * long as somebody holds it, whatever becomes of the table. */
#ifndef NVLXI_REMOTE_DIGESTED_H
#define NVLXI_REMOTE_DIGESTED_H

#include "remote/peer.h"

struct nvlxi_digested {
    uint64_t address, length, digest;
    const char *name;
};

struct nvlxi_digested_index {
    atomic_uint holders;
    const struct nvlx_peer *peer; /* only to be compared: it may be gone */
    uint64_t version, changes;    /* of its table */
    struct nvlxi_digested *list;  /* in order */
    size_t count;
    size_t near; /* who has the shelf found something there last: the next is likely to follow */
    char *names;
    struct nvlxi_digested_index *next; /* on the shelf */
};

#define NVLXI_SHELF_MAX 32 /* indexes: those used last */

struct nvlxi_digested_shelf { /* starts zeroed; for one thread at a time */
    struct nvlxi_digested_index *latest;
};

/* The index of a peer, which the shelf holds until it needs the place. With the tables held for reading. NVLX_ENOMEM.
 */
int nvlxi_digested_get(struct nvlxi_digested_shelf *shelf, const struct nvlx_peer *peer,
                       struct nvlxi_digested_index **index);
void nvlxi_digested_shelf_free(struct nvlxi_digested_shelf *shelf);

/* By any thread. */
void nvlxi_digested_hold(struct nvlxi_digested_index *index);
void nvlxi_digested_drop(struct nvlxi_digested_index *index);

/* The longest region with a digest that begins at `address` and has at most so many bytes; NULL if there is none. By
 * who has the shelf. */
const struct nvlxi_digested *nvlxi_digested_find(struct nvlxi_digested_index *index, uint64_t address, uint64_t most);

#endif
