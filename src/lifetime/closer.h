/* The closer: closes what peers have withdrawn, or left behind, and tells those who ask when it is done.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Closing a mapping of a cudaMalloc allocation waits for running kernels; unmapping virtual memory does not (measured:
 * cudaIpcCloseMemHandle 101 ms beside a kernel of 100 ms, cuMemUnmap 0.1 ms). So there are two threads, one for each
 * kind, that only exist once something of it is to be closed. The service thread never closes anything.
 *
 * A peer is in the list as long as there may be something to do for it: a retired mapping that is pinned or open, or an
 * answer that its owner waits for. The states of a question (AWAIT, protocol.h):
 *
 *     ASKED     requests up to the number `before` may use what the owner withdrew before the generation asked for; the
 *               table that they were checked against is replaced already
 *     (none)    answered: none of them is in flight, and no mapping is open that the table does not have
 *
 * As long as a thread is busy with a peer, the peer stays. `mutex` guards the list and all partings; nothing is called
 * with it held. */
#ifndef NVLXI_LIFETIME_CLOSER_H
#define NVLXI_LIFETIME_CLOSER_H

#include <pthread.h>

#include "remote/mapping.h"
#include "transfer/transfer.h"

struct nvlxi_closer;

struct nvlxi_closer_thread {
    struct nvlxi_closer *closer;
    pthread_t thread;
    bool started;
    bool waits; /* it closes what may wait */
};

struct nvlxi_closer {
    struct nvlxi_transfers *transfers;
    pthread_mutex_t mutex;
    pthread_cond_t news, idle; /* there is something to do, or to stop; a thread is not busy with a peer any more */
    struct nvlx_peer *peers;   /* list */
    struct nvlxi_closer_thread threads[2];
    bool stop;
};

void nvlxi_closer_init(struct nvlxi_closer *closer, struct nvlxi_transfers *transfers);
/* Ends the threads, which may be waiting for running kernels. What is left open, or added later, is closed with the
 * peers. */
void nvlxi_closer_stop(struct nvlxi_closer *closer);
/* Nobody uses it any more. */
void nvlxi_closer_free(struct nvlxi_closer *closer);

/* Something of the peer may be retired. */
void nvlxi_closer_add(struct nvlxi_closer *closer, struct nvlx_peer *peer);

/* The peer asks what is held of generations before the one that is known of it. `answer` is called at once, or by the
 * closer: when nothing is, and once before if that takes a while. A question replaces the one before. */
void nvlxi_closer_ask(struct nvlxi_closer *closer, struct nvlx_peer *peer, uint64_t generation,
                      nvlxi_answer_function answer, void *context);

/* Forgets a peer that is about to be closed; waits until no thread is busy with it. */
void nvlxi_closer_leave(struct nvlxi_closer *closer, struct nvlx_peer *peer);

#endif
