/* Revocation: how an owner knows that every peer has let go of what it withdrew.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is withdrawn has a generation: that of the descriptor without it. The states of a region in its owner:
 *
 *     REGISTERED   peers may use it
 *     WITHDRAWN    by nvlx_unregister: own lists and new descriptors do not have it any more. Peers that know an older
 *                  generation may still use it
 *     FREE         no own transfer uses its bytes, and every follower has RELEASED the generation, or is gone, or
 *                  never knew the region. It is freed
 *
 * A follower is a peer that is connected, as the owner's server sees it:
 *
 *     NEW          knows nothing yet
 *     TOLD         a descriptor is on its way to it: of generation `told`
 *     RELEASED     says that nothing of it is in flight that began before generation `released`, and that it has closed
 *                  all mappings which that generation does not have
 *     CUT OFF      the owner has ended its half of the connection, since the follower did not read, or said what is not
 *                  proper. It is neither told nor asked anything any more; what it was told before may still be mapped
 *     (gone)       its half of the connection has ended: by its death, or by its close, before which it has closed all
 *                  mappings. Nothing of it counts any more
 *
 * A follower that ends the connection by itself, since it has no memory for a table or cannot read what it is told,
 * does so like one that is CUT OFF, and like one whose owner has died: the peer is lost, so that nothing new is mapped;
 * what is mapped is closed when nothing in flight uses it; then its half ends (rendezvous/client.h). So the end of a
 * connection, which the kernel tells also of a process that is killed, is an answer like any other.
 *
 * A follower knew bytes if it was told a generation that has them: one from which they came on, and before which they
 * went. What came and went between two that it was told one after the other, it never knew: that is a GAP. As many are
 * remembered as there is room for, since the generation that it has RELEASED; of others it counts as one who knew.
 *
 * Invariants: nobody is told a generation older than what is wanted, who knows an older one or none: whoever has waited
 * for it would not know of that follower; released <= told; a NEW follower that is told generation g has released g.
 * `wanted` never falls; what is wanted is asked for (AWAIT, protocol.h) of every follower that was told as much, one
 * question at a time.
 *
 * `mutex` guards all. The service thread changes followers, threads in nvlx_unregister wait for them. */
#ifndef NVLXI_LIFETIME_REVOCATION_H
#define NVLXI_LIFETIME_REVOCATION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/metrics.h"
#include "remote/peer.h"

#define NVLXI_GAPS 32

struct nvlxi_gap { /* generations: told, and the one that was told next */
    uint64_t told, next;
};

struct nvlxi_follower { /* part of a server's connection; starts zeroed */
    pid_t pid;
    uint64_t told, released;
    struct nvlxi_gap gaps[NVLXI_GAPS]; /* in order; the oldest is forgotten first */
    size_t gap_count;
    uint64_t told_ns;       /* when it was told `told` */
    struct nvlxi_held held; /* what it said that it still holds; nothing: nothing said */
    bool asked;             /* and has not answered */
    bool cut_off;
    struct nvlxi_follower *prev, *next;
};

struct nvlxi_revocations {
    pthread_mutex_t mutex;
    pthread_cond_t news;
    struct nvlxi_follower *followers; /* list: those that know something */
    uint64_t wanted;
    struct nvlxi_histogram released; /* how long followers took to let go of what somebody waited for */
    nvlxi_counter late;              /* how often they did not in time */
    void (*ask)(void *context);      /* wakes up who asks followers; NULL: nobody serves, so there is no follower */
    void *context;
};

void nvlxi_revocations_init(struct nvlxi_revocations *revocations);
void nvlxi_revocations_free(struct nvlxi_revocations *revocations);
/* Set before the first follower comes. Called without the mutex. */
void nvlxi_revocations_listen(struct nvlxi_revocations *revocations, void (*ask)(void *context), void *context);

struct nvlxi_withdrawn {
    const char *what; /* for messages */
    uint64_t since;   /* the generation that it came with; UINT64_MAX: it was never told */
    uint64_t without; /* and the one that does not have it any more */
};

/* Waits until every follower that knew it has released it. NVLX_ETIMEDOUT names the process that has not, and what it
 * holds. */
int nvlxi_revocations_wait(struct nvlxi_revocations *revocations, const struct nvlxi_withdrawn *withdrawn,
                           uint64_t deadline);

/* The newest generation that somebody waits for, or has: no older one may be told any more. */
uint64_t nvlxi_revocations_wanted(struct nvlxi_revocations *revocations);

/* ---- By the service thread ----------------------------------------------------------------------------- */

/* A descriptor of this generation is about to be sent to it. False: it must not be, since somebody waits for a newer
 * one by now, or has. */
bool nvlxi_follower_tell(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower, uint64_t generation);
/* Whether it is to be asked now for what it was told; marks it as asked. */
bool nvlxi_follower_ask(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower);
/* It says what it holds of generations before the one it was asked for: nothing, or so much. NVLX_EFORMAT: it was not
 * asked, or is not told so much. */
int nvlxi_follower_answers(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower, uint64_t generation,
                           const struct nvlxi_held *held);
/* Its process is not known to have let go of anything. */
void nvlxi_follower_cut_off(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower);
void nvlxi_follower_gone(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower);

#endif
