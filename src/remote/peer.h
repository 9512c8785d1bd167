/* Peers, and what is known of them: an address of a peer -> where this process sees the same byte.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is known of a peer is a table (table.h), made from one descriptor, replaced as a whole by the next, and changed
 * by changes: the lookup table of its regions, and for each local GPU the place where each run (run.h) is mapped
 * (mapping.h).
 *
 * `changing`, of each peer, is the turn of who changes its table, and may read all of it without another lock. `mutex`
 * guards the mappings of all peers. `tables`, which is the engine's, is held for reading by who looks up and pins; who
 * changes a table holds all three. Order: changing, mutex, then tables. */
#ifndef NVLXI_REMOTE_PEER_H
#define NVLXI_REMOTE_PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "device/context.h"
#include "remote/event.h"
#include "remote/life.h"
#include "remote/table.h"

#define NVLXI_DEVICES_MAX 256 /* distinct GPUs that peers may name */

struct nvlx_peer;

/* Opens the source of the file descriptors of a peer's segments, for those with `file`, in order. `owner`: of the
 * descriptor that they are from, identity and address. Set by who can reach the peer. Called without a lock; may wait
 * for the peer, with a limit. NVLX_ENOTSUP: it does not serve. take may fail with NVLX_EAGAIN (not logged): the peer
 * has withdrawn something, and a newer descriptor is known. */
struct nvlxi_file_server {
    int (*open)(struct nvlxi_file_server *server, const struct nvlx_peer *peer, const struct nvlxi_descriptor *owner,
                const struct nvlxi_segment_record *segments, size_t count, struct nvlxi_files **files);
    void (*close)(struct nvlxi_file_server *server, struct nvlxi_files *files);
};

struct nvlxi_remote {
    const struct nvlxi_context *context;
    struct nvlxi_file_server *file_server;
    int gpus;
    struct nvlxi_life *life; /* of this engine */
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    atomic_size_t mappings; /* open now, of all peers */
    uint8_t uuids[NVLXI_DEVICES_MAX][NVLXI_UUID_BYTES];
    size_t uuid_count; /* ours come first, by ordinal */
};

struct nvlxi_held { /* of a peer's memory that it has withdrawn */
    uint32_t transfers, mappings;
    uint32_t graphs; /* of the transfers: parts of graphs */
};

static inline bool nvlxi_held_is_nothing(const struct nvlxi_held *held) {
    return !held->transfers && !held->mappings;
}

/* Tells a peer what is still held of generations before the one that it asks for. False: not now, to be tried again. */
typedef bool (*nvlxi_answer_function)(void *context, uint64_t generation, const struct nvlxi_held *held);

/* What lifetime/closer.c notes of a peer, under its own mutex. */
struct nvlxi_parting {
    bool listed;
    bool pending[2], busy[2]; /* for each of its threads: there may be something to do; it is at it */
    bool asked, told;         /* the peer asks what is held of older generations; was told that something is */
    uint64_t generation;      /* that it asks for */
    uint64_t before;          /* requests up to this number may be of an older one */
    uint64_t since;           /* when it asked */
    nvlxi_answer_function answer;
    void *context;
    struct nvlx_peer *prev, *next;
};

struct nvlx_peer {
    struct nvlx_engine *engine;
    struct nvlxi_remote *remote;
    pthread_mutex_t changing;
    struct nvlxi_peer_table *table;
    struct nvlxi_mapping *mappings; /* PENDING and READY: hash set by key */
    struct nvlxi_mapping *retired;  /* list */
    struct nvlxi_peer_link *links;  /* list: see link.h */
    uint32_t closing[2];            /* mappings that are being closed: at once, and those that may wait */
    atomic_uint_fast64_t changes;   /* how often the table changed: before anything that it had is closed */
    bool same_process;
    struct nvlxi_subscription *subscription; /* the rendezvous' own; NULL: the peer was not made by connecting */
    struct nvlxi_channel *channel; /* likewise: over which its files come; NULL: by connections of their own */
    struct nvlxi_life *life;       /* of the engine that it is, if that is of this process; or NULL */
    atomic_bool gone;              /* known to be: set once, after `reason` */
    char reason[256];
    char name[168];               /* for messages: its engine, process and address */
    atomic_bool told;             /* the log was told how its memory is reached */
    atomic_uint pins;             /* requests in flight, and prepared lists */
    struct nvlxi_peer_cell *cell; /* what is counted of it; set before anything is */
    struct nvlxi_parting parting;
    struct nvlxi_event_node changed,
        lost;                            /* of a peer that is followed: in the queue of rendezvous/messages/events.h */
    struct nvlxi_event_node wait_failed; /* a stream's wait for it, likewise */
    struct nvlx_peer *prev, *next;       /* the engine's list */
};

int nvlxi_remote_init(struct nvlxi_remote *remote, const struct nvlxi_context *context);
void nvlxi_remote_free(struct nvlxi_remote *remote);
/* Where a segment is: its GPU is a small number for the UUID. Those of this process have their ordinals. Beyond
 * NVLXI_DEVICES_MAX of them, GPUs share the last: they then share lanes, no more. */
uint16_t nvlxi_remote_place(struct nvlxi_remote *remote, const struct nvlxi_segment_record *segment);
/* When it is the turn of a GPU, by its number, for a GPU of this process: of those that stand around a circle in the
 * order of their UUIDs, each begins with the next one, and ends with itself. So all GPUs begin with different ones. */
uint64_t nvlxi_remote_turn(const struct nvlxi_remote *remote, int gpu, uint16_t device);

int nvlxi_peer_open(struct nvlxi_remote *remote, const char *text, size_t length, struct nvlx_peer **peer);
/* What it withdraws is retired, to be closed by the closer. */
int nvlxi_peer_update(struct nvlx_peer *peer, const char *text, size_t length);
/* The same by changes alone, from a generation that it was told of before. */
int nvlxi_peer_change(struct nvlx_peer *peer, const char *text, size_t length);
int nvlxi_peer_find(struct nvlx_peer *peer, const char *name, uint64_t *address, uint64_t *length);
/* Fill `info`, except for its size. The second moves *place behind the region that it finds. NVLX_ENOENT. */
int nvlxi_peer_region_by_name(struct nvlx_peer *peer, const char *name, struct nvlx_region_info *info);
int nvlxi_peer_region(struct nvlx_peer *peer, size_t *place, struct nvlx_region_info *info);
/* Fills `info`, except for its size. */
void nvlxi_peer_info(struct nvlx_peer *peer, struct nvlx_peer_info *info);
/* Nothing pins the peer or its mappings any more, and nobody maps. Closes them all, and waits for the closer's threads
 * that do; returns the first error. Before its connection ends: then the owner does not wait for this process any more.
 */
int nvlxi_peer_let_go(struct nvlx_peer *peer);
/* The same, and frees the peer anyhow. */
int nvlxi_peer_close(struct nvlx_peer *peer);

/* The peer is gone, for the reason of the last error: its mappings are retired. By whoever watches over it, once. */
void nvlxi_peer_lose(struct nvlx_peer *peer);
/* NULL, or why the peer is known to be gone: no op of it is accepted any more, and nothing mapped. Two loads. */
const char *nvlxi_peer_why_gone(const struct nvlx_peer *peer);
/* The same as a failure: NVLX_ESTALE. nvlxi_peer_test is for who asks again and again: not logged. */
int nvlxi_peer_check(const struct nvlx_peer *peer);
int nvlxi_peer_test(const struct nvlx_peer *peer);

/* How far the pieces from `start` on go that grant an access and are as old as a generation. With the tables held for
 * reading. */
uint64_t nvlxi_peer_old_until(const struct nvlx_peer *peer, uint64_t start, uint64_t end, uint32_t access,
                              uint64_t generation);
/* Whether [start, end) is registered, grants an access, and has been since a generation: NVLX_ESTALE, or
 * NVLX_ESUSPENDED where a region as old sleeps. With the tables held for reading. */
int nvlxi_peer_still_has(const struct nvlx_peer *peer, uint64_t start, uint64_t end, uint32_t access,
                         uint64_t generation);
/* A region of the peer that sleeps and has this byte, or NULL. With the tables held for reading. */
const struct nvlxi_region_record *nvlxi_peer_sleeper(const struct nvlx_peer *peer, uint64_t address);

/* The generation of the newest descriptor that is known. */
uint64_t nvlxi_peer_generation(struct nvlx_peer *peer);

#endif
