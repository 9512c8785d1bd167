/* Verified transfers: when the bytes are in place, the digest of each region that a list has read is compared with the
 * one that its owner tells.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is to be compared is planned with the list itself, from the same state of the peers' tables. The GPUs that have
 * the bytes digest them, the first while the last are on their way; whoever asks for the request drives that, and never
 * waits for it. A verification belongs to
 * one request: PLANNED by its submitter, then BEGUN with desks of its own, before the first copy; under `polling` from
 * then on. It keeps no memory: the request does, until it is DONE. Then it serves another. */
#ifndef NVLXI_TRANSFER_VERIFY_H
#define NVLXI_TRANSFER_VERIFY_H

#include "local/leaves.h"
#include "remote/digested.h"
#include "transfer/submit.h"

struct nvlxi_check {
    const struct nvlxi_digested *region; /* in an index that is held */
    size_t op;                           /* the first that reads it */
};

struct nvlxi_verification {
    struct nvlxi_digested_index **indexes; /* of the peers that are read: held */
    size_t index_count, index_capacity;
    struct nvlxi_check *checks;
    size_t check_count, check_capacity;
    size_t checked;           /* so many are as they should be */
    struct nvlxi_span *spans; /* where their bytes are, in this order */
    size_t span_count, span_capacity;
    struct nvlxi_verified_part *parts; /* scratch memory of planning */
    size_t part_capacity;
    struct nvlxi_digesting digesting;
    const struct nvlxi_lane_pool *pool;
    struct nvlxi_marks marks;
    bool marked;                     /* the transfer leaves marks; else only its end tells that anything is in place */
    bool begun, complete;            /* complete: all bytes are in place */
    struct nvlxi_verification *next; /* of those that are idle */
};

struct nvlxi_verification *nvlxi_verification_new(void); /* NULL: NVLX_ENOMEM */
/* Gives all back that it has, except its memory: for the next one. */
void nvlxi_verification_clear(struct nvlxi_verification *verification);
void nvlxi_verification_free(struct nvlxi_verification *verification);

/* Finds the regions that the ops read as a whole, alone or together: with the tables held for reading. The ops are
 * validated. Replaces what was planned before. NVLX_EINVAL: an op cannot be verified. NVLX_ENOTSUP: a leaf lies in
 * memory of two GPUs. */
int nvlxi_verification_plan(struct nvlxi_verification *verification, struct nvlxi_digested_shelf *shelf,
                            const struct nvlxi_intervals *local, const struct nvlx_op *ops, size_t count);

/* Takes what it works with, without waiting; and gives it back. NVLX_ENOTSUP: a GPU has no kernels. */
int nvlxi_verification_begin(struct nvlxi_verification *verification, struct nvlxi_desks *desks,
                             const struct nvlxi_lane_pool *pool);
void nvlxi_verification_end(struct nvlxi_verification *verification);

/* Goes on as far as it can without waiting. NVLX_EAGAIN (not logged): not done yet. 0: all are as they should be.
 * NVLX_EDIGEST: some are not. Nothing reads them any more then. `complete`: all bytes are in place. */
int nvlxi_verification_step(struct nvlxi_verification *verification, bool complete);
/* The transfer has failed: what is under way is to be ended, by steps. */
void nvlxi_verification_stop(struct nvlxi_verification *verification, int reason);

#endif
