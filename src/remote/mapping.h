/* Mappings: what peers share, opened once on each GPU that needs it, and closed when nothing uses it any more.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A mapping belongs to the peer, is keyed by run (base and serial) and local GPU, and outlives the peer's table. Its
 * states:
 *
 *     PENDING   one thread opens it, without a lock; others who need it wait for the outcome, and share it. That
 *               thread alone may read what is mapped of it by then (nvlxi_opening_watch)
 *     READY     open; its offset is published in the peer's table, and transfers pin it while they are in flight
 *     RETIRED   the peer withdrew the run, or is gone: not in the table any more; closed as soon as nothing pins it, by
 *               lifetime/closer.h or in close of the peer
 *     CLOSED    what is left of one that prepared lists name: a post sees that it is retired
 *
 * Offsets are published atomically: a reader finds an old one or none. Locks: see peer.h. */
#ifndef NVLXI_REMOTE_MAPPING_H
#define NVLXI_REMOTE_MAPPING_H

#include "base/hash.h"
#include "remote/peer.h"

struct nvlxi_mapping_key {
    uint64_t base, serial; /* of the run, as the peer calls it */
    uint64_t gpu;          /* local GPU that it is opened on */
};

struct nvlxi_mapping {
    struct nvlxi_mapping_key key;
    int memory_gpu;                    /* to be named as holder in copies: key.gpu, but the true one within a process */
    struct nvlxi_opening_try *opening; /* while PENDING */
    uint64_t address;                  /* where it is mapped */
    uint64_t size;                     /* of the run when it was opened, as read_only */
    bool read_only;
    uint32_t kind;                /* enum nvlxi_kind, of its first segment */
    bool ready, foreign;          /* foreign: opened by the device, so to be closed by it */
    struct nvlxi_allocation *own; /* of this very process: what must still be there; else NULL */
    size_t own_count;
    bool waits;        /* closing it may wait for running kernels */
    atomic_uint pins;  /* requests in flight that use it, posts among them */
    atomic_uint users; /* of this structure: the peer until it is closed, and prepared lists */
    atomic_bool retired;
    struct nvlxi_mapping *next; /* in the list of retired ones */
    UT_hash_handle hh;
};

/* Opens, or finds open, the mapping of one run on a GPU, and publishes it. Called without a lock. NVLX_EAGAIN (not
 * logged): the peer's table was replaced meanwhile, and the run is not in it. What is wanted may be in another run now,
 * or withdrawn, which the new table tells. Each such try needs a change of its own. Peers that are followed hold
 * theirs back while they give out files (protocol.h), so that one that is under way ends well;
 * nvlxi_mapping_try_again bounds the rest. */
int nvlxi_mapping_open(struct nvlx_peer *peer, int gpu, uint64_t base, uint64_t serial);
/* The same for all runs under a range of registered addresses; tries again by itself. */
int nvlxi_mapping_open_range(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length);

struct nvlxi_patience { /* with peers that change meanwhile; starts zeroed */
    unsigned tries;
    uint64_t deadline;
};

/* After NVLX_EAGAIN: 0 to try again, or NVLX_ETIMEDOUT. */
int nvlxi_mapping_try_again(struct nvlxi_patience *patience);

struct nvlxi_missing { /* a mapping that must be opened first */
    struct nvlx_peer *peer;
    int gpu;
    uint64_t base, serial;
};

/* Who reads from a mapping that is PENDING, by the thread that opens it. Called without a lock. */
struct nvlxi_opening_watch {
    /* Its first `length` bytes can be read. Who reads them pins it. */
    void (*grown)(void *context, struct nvlx_peer *peer, struct nvlxi_mapping *mapping, uint64_t length);
    /* It will not be opened: nothing pins it any more when this returns. */
    void (*failed)(void *context);
    void *context;
};

/* Opens several. Files of a run are asked for while those before it are opened. What peers have withdrawn meanwhile is
 * left out. `watch`, if it is not NULL, is told of runs of which files are asked for. */
int nvlxi_mappings_open(const struct nvlxi_missing *missing, size_t count, struct nvlxi_patience *patience,
                        const struct nvlxi_opening_watch *watch);

/* In the exporter's own process the pointer itself is the mapping: it must still be to the memory that was exported.
 * NVLX_ESTALE. Nothing to check for other mappings. */
int nvlxi_mapping_check(const struct nvlxi_context *context, const struct nvlxi_mapping *mapping);

/* ---- Between mapping.c and peer.c ----------------------------------------------------------------------- */

/* Enters a READY mapping into a table. False if the table does not have the run, or calls another one by its serial:
 * who wrote the text is not trusted, and nothing beyond what was opened may be reached. Under the mutex. */
bool nvlxi_mapping_publish(const struct nvlxi_peer_table *table, struct nvlxi_mapping *mapping);
/* Takes a mapping out of use; to be closed when nothing pins it. Under the mutex. */
void nvlxi_mapping_retire(struct nvlx_peer *peer, struct nvlxi_mapping *mapping);
/* The same, since the peer has withdrawn it: that is counted. */
void nvlxi_mapping_revoke(struct nvlx_peer *peer, struct nvlxi_mapping *mapping);

/* ---- Closing -------------------------------------------------------------------------------------------- */

enum nvlxi_closing { NVLXI_CLOSE_AT_ONCE = 1, NVLXI_CLOSE_WAITING = 2, NVLXI_CLOSE_ALL = 3 };

/* Closes what is retired and not pinned, of these kinds: nothing can pin it any more. Blocks in the driver, without a
 * lock. Returns the first failure. */
int nvlxi_mappings_close(struct nvlx_peer *peer, enum nvlxi_closing kinds);
/* How many mappings of these kinds are still open, or being opened, that the peer's table does not have. */
uint32_t nvlxi_mappings_left(struct nvlx_peer *peer, enum nvlxi_closing kinds);

/* A prepared list names a mapping: it finds it retired, instead of freed. */
void nvlxi_mapping_keep(struct nvlxi_mapping *mapping);
void nvlxi_mapping_drop(struct nvlxi_mapping *mapping);

#endif
