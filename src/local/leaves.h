/* Digests of memory, as nvlxfer.h defines them: made by the GPU that has the memory, by and by, without waiting.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The GPU digests leaves, some thousand a round; the host digests their digests while the next round goes on. A round
 * is worked on at a desk: a lane, and memory for the digests of its leaves. */
#ifndef NVLXI_LOCAL_LEAVES_H
#define NVLXI_LOCAL_LEAVES_H

#include <pthread.h>
#include <stdbool.h>

#include "device/context.h"
#include "device/xxh64.h"

#define NVLXI_BY_HOST (-1) /* in place of a GPU */

struct nvlxi_desks {
    const struct nvlxi_context *context;
    pthread_mutex_t mutex;
    struct nvlxi_desk *idle; /* list */
};

void nvlxi_desks_init(struct nvlxi_desks *desks, const struct nvlxi_context *context);
void nvlxi_desks_free(struct nvlxi_desks *desks);

/* Memory of one GPU, or one leaf for the host. Whole leaves, unless it ends a digest. */
struct nvlxi_span {
    uint64_t address, length; /* length > 0 */
    int gpu;                  /* NVLXI_BY_HOST: a leaf whose digest is fetched */
    bool last;                /* of its digest */
};

struct nvlxi_progress {
    size_t span;
    uint64_t done; /* bytes of it */
};

/* One work: any number of digests, one after the other. The memory stays until it is ended. */
struct nvlxi_digesting {
    const struct nvlxi_span *spans;
    size_t count;
    int (*take)(void *context, uint64_t value); /* is given the digests, in order; a failure ends the work */
    int (*fetch)(void *context, const struct nvlxi_span *leaf, uint64_t *digest); /* may wait; NULL: no leaf needs it */
    bool (*arrived)(void *context, uint64_t address, uint64_t length); /* NULL: all is there; else what is not, waits */
    void *context;
    uint64_t part; /* bytes that are asked for at a time, of whole leaves; 0: as many as suit */
    /* the work's own */
    struct nvlxi_desks *desks;
    struct nvlxi_desk *idle, *rounds; /* lists: rounds in the order in which they were queued */
    struct nvlxi_progress queued, ended;
    uint64_t ended_rounds;
    struct nvlxi_xxh64 state;
    int failure;
};

/* Begins a work of which the first part is set. Takes desks, makes them if there are none: waits for no GPU. After a
 * failure there is nothing to end. */
int nvlxi_digesting_begin(struct nvlxi_digesting *work, struct nvlxi_desks *desks);
/* Goes on as far as it can without waiting. NVLX_EAGAIN (not logged): not done yet. Else 0, or the first failure;
 * nothing reads the memory any more. */
int nvlxi_digesting_step(struct nvlxi_digesting *work);
/* Nothing more shall be digested, for that reason. The work goes on until nothing reads the memory. */
void nvlxi_digesting_stop(struct nvlxi_digesting *work, int reason);
/* Gives the desks back. The work is done. */
void nvlxi_digesting_end(struct nvlxi_digesting *work);

#endif
