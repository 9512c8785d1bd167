/* Waits: streams of this process that wait for a peer's signal, and how each of them ends.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A stream that waits for a count goes on when the count is reached, and at nothing else: no driver ends such a wait
 * when the process that was to signal has died (measured). So this module knows every wait, and ends those that nobody
 * ends: it changes the count itself. The states of a wait:
 *
 *     ENTERED   in the list, before anything is queued: whoever withdraws the count, or loses the peer, from now on
 *               finds it
 *     QUEUED    the wait is in the stream, with an event behind it
 *     ENDED     `failure` is set, by whoever withdraws the count or closes the peer, or by the thread when it finds the
 *               peer gone: to be ended. If the count is reached, nothing is done: the signal has come
 *     MARKED    the caller's mark is set. Then the count is set to what is waited for, and again whenever it is found
 *               below that: what the dead have left in a GPU's queue may still arrive
 *     (gone)    QUEUED, and the event is complete: the stream has gone on. It has failed if it was MARKED
 *
 *     ENTERED -> QUEUED    by who waits, or -> (gone), with `dropped`: the stream has refused it
 *     QUEUED -> (gone)     the event is complete
 *     ENTERED, QUEUED -> ENDED -> MARKED; both go on to (gone) by way of QUEUED
 *
 * What a wait waits for is a count of this process's own, or one of the peer's, which several processes may wait for:
 * NVLX_OP_WAIT_READY. That one is never changed here. Its wait has a gate (gates.h), and goes on when the count is
 * reached, or the gate is opened. Where this text says that the count is set to what is waited for, such a wait's gate
 * is opened instead. It is ENDED, too, when the peer does not tell its count any more: then the peer has withdrawn it,
 * and waits until this process lets go of it. It pins the count's mapping as long as it is in the list.
 *
 * Invariants:
 * - No wait is left behind: it is in the list from before it is queued until its stream has gone on. As long as it is
 *   in the list, its count stays registered, or awaited by who withdraws it; its peer stays open.
 * - A mark is set before the count, in one lane: what is queued behind a wait that was ended sees the mark. All marks
 *   of a turn come before all counts, since a count that ends one wait may end another one for the same count. For the
 *   same reason all waits for a peer that is gone are ENDED before the first of them is MARKED.
 * - A wait that was MARKED is (gone) only when nothing is on its way to its count or mark: they may then be used again.
 * - A process that is stopped is slow, not gone. What is gone, life.h and the connection tell.
 *
 * The thread "nvlx-waits", which the first wait starts, does all that takes a driver, and takes waits out of the list.
 * It looks every few milliseconds while there are waits. The lanes and gates that end them are made before the first
 * wait of their kind on their GPU is queued: nothing is loaded while a stream waits, and what is allocated waits for no
 * stream. `mutex` guards the list and what failed;
 * with it held, the driver is only asked what is complete. */
#ifndef NVLXI_LIFETIME_WAITS_H
#define NVLXI_LIFETIME_WAITS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lifetime/gates.h"
#include "remote/mapping.h"
#include "transfer/transfer.h"

#define NVLXI_REASON_BYTES 256

struct nvlxi_wait {
    uint64_t number; /* rises in the order of the calls */
    struct nvlx_peer *peer;
    uint64_t address, value;
    uint64_t mark;                 /* address of the caller's; 0: none */
    struct nvlxi_mapping *mapping; /* of the peer's count, at `address` here; NULL: it is an own one. With */
    uint64_t remote, generation;   /* where the peer has it, and since when at the latest, */
    uint64_t changes;              /* how often the peer's table had changed when it was looked at last, */
    uint64_t gate;                 /* and the address of the gate */
    struct nvlxi_stream stream;
    struct nvlxi_pooled_lane *lane; /* the stream; NULL: it has gone on */
    struct nvlxi_pooled_event *event;
    bool queued, dropped, marked;
    bool unwanted;   /* its list was refused: nobody asks what has become of it */
    bool lost;       /* its count cannot be written any more; of the thread */
    bool unrecorded; /* the event: it has gone on when its stream is empty */
    int failure;     /* why it is to be ended; 0: it is not */
    char reason[NVLXI_REASON_BYTES];
    struct nvlxi_wait *prev, *next;
};

/* What is known of waits that have failed: one behind the other, for the same reason. */
struct nvlxi_failed_waits {
    uint64_t first, count;
    int code;
    char reason[NVLXI_REASON_BYTES];
    struct nvlxi_failed_waits *next;
};

/* Under the mutex. Without memory it is only logged: who asks is told that it has gone on. */
void nvlxi_failed_note(struct nvlxi_failed_waits **list, uint64_t number, int code, const char *reason);
const struct nvlxi_failed_waits *nvlxi_failed_find(const struct nvlxi_failed_waits *list, uint64_t number);
void nvlxi_failed_free(struct nvlxi_failed_waits *list);

#define NVLXI_WAIT_GPUS 64
#define NVLXI_WAITS_MAX 384 /* on one GPU: of NVLXI_ORDERED_DEPTH, so that signals which others wait for find room */

struct nvlxi_read;
struct nvlxi_graph_wait;

struct nvlxi_waits {
    struct nvlxi_transfers *transfers;
    pthread_mutex_t mutex;
    pthread_cond_t news, gone; /* there is something to look at, or to stop; a wait has left the list */
    struct nvlxi_wait *list;
    struct nvlxi_failed_waits *failed;          /* list: the newest first; until the engine ends */
    struct nvlxi_read *reads;                   /* list: of reads.h */
    struct nvlxi_graph_wait *of_graphs;         /* list: of graph_waits.h, */
    struct nvlxi_holds holds;                   /* and which of them graphs have let go of */
    struct nvlxi_lane *enders[NVLXI_WAIT_GPUS]; /* of each GPU that a stream has waited on */
    uint32_t placed[NVLXI_WAIT_GPUS];           /* waits in queues of each GPU */
    struct nvlxi_gates gates[NVLXI_WAIT_GPUS];
    uint64_t number; /* of the newest */
    pthread_t thread;
    bool started, stop;
    void (*tell)(void *context, struct nvlx_peer *peer, uint64_t number); /* a wait has failed; without the mutex */
    void *context;
};

void nvlxi_waits_init(struct nvlxi_waits *waits, struct nvlxi_transfers *transfers,
                      void (*tell)(void *context, struct nvlx_peer *peer, uint64_t number), void *context);
/* Ends all waits, and the thread; returns when all streams have gone on. */
void nvlxi_waits_finish(struct nvlxi_waits *waits);
void nvlxi_waits_free(struct nvlxi_waits *waits);

struct nvlxi_awaited {
    void *stream;           /* the caller's */
    struct nvlx_peer *peer; /* that is to signal */
    uint64_t address, value;
    uint64_t mark;                 /* 0: none */
    uint64_t reached;              /* of a graph's wait: as in struct nvlxi_paced; else 0 */
    struct nvlxi_mapping *mapping; /* of the peer's count, at `address` here, pinned; NULL: it is an own one */
    uint64_t remote, generation;   /* of that one: where the peer has it, and a generation that has it */
};

/* Lets a stream wait, or a graph that it captures (graph_waits.h). NVLX_EINVAL, NVLX_ERANGE, NVLX_ESUSPENDED: the count
 * or the mark; NVLX_ESTALE: the peer is gone; NVLX_ENOTSUP: nobody would tell when it is; NVLX_EBUSY. */
int nvlxi_waits_add(struct nvlxi_waits *waits, const struct nvlxi_awaited *awaited, uint64_t *number);
/* 0: it has gone on, since the count was reached, or it is a graph's; NVLX_EAGAIN (not logged): not yet; else why it
 * has failed. */
int nvlxi_waits_status(struct nvlxi_waits *waits, uint64_t number);

/* Under the mutex. NULL: it is not in the list any more. */
struct nvlxi_wait *nvlxi_waits_find(const struct nvlxi_waits *waits, uint64_t number);

/* Of a wait behind which its stream has come: 0, or why it has failed. */
int nvlxi_waits_outcome(struct nvlxi_waits *waits, uint64_t number);

/* Ends the wait of a list that is refused after it was queued: the stream goes on. */
void nvlxi_waits_drop(struct nvlxi_waits *waits, uint64_t number);

/* Ends those that wait for a count, or have a mark, among these bytes, which are withdrawn. */
void nvlxi_waits_end(struct nvlxi_waits *waits, uint64_t address, uint64_t length, int code);
/* Whether there are any, or reads of counts there (reads.h). */
bool nvlxi_waits_use(struct nvlxi_waits *waits, uint64_t address, uint64_t length);
/* Starts the thread, if it does not run. */
int nvlxi_waits_start(struct nvlxi_waits *waits);

/* Ends those for a peer that is about to be closed; returns when their streams have gone on. */
void nvlxi_waits_leave(struct nvlxi_waits *waits, const struct nvlx_peer *peer);

#endif
