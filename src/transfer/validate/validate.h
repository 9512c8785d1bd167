/* The caller's ops -> a validated list: each op is checked to the byte against the registered regions of both sides,
 * and relocated.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Runs with the engine's `tables` held for reading, plans and issues nothing, and so can refuse a list as a whole. Most
 * ops take a short path (validate.c) that compares and adds, no more: both their sides lie in pieces that were touched
 * in this list. What is new (a piece, a peer, a GPU) or wrong goes the long way once (validate_op.c). What that finds
 * out about a piece is kept as long as the table is the same: in later lists the first op in it needs only a mark. */
#ifndef NVLXI_TRANSFER_VALIDATE_VALIDATE_H
#define NVLXI_TRANSFER_VALIDATE_VALIDATE_H

#include "local/registration.h"
#include "remote/digested.h"
#include "transfer/needs.h"
#include "transfer/rows/shape.h"
#include "transfer/validate/validated.h"

/* What is known of a piece of a table: all that the short path looks at. */
struct nvlxi_range_cache {
    uint64_t start;  /* of the piece */
    uint64_t size;   /* of it, if an op of this list lies in it; else 0 */
    uint64_t offset; /* of a peer's: to be added to an address */
    uint64_t known;  /* birth number of the piece that this entry describes. If it matches the table's, the entry is
                        valid; a peer's piece is then mapped and grants the direction */
};

struct nvlxi_range_caches {
    struct nvlxi_range_cache *piece; /* by id: [room of the table]; 0 is never touched */
    size_t capacity;
};

struct nvlxi_route { /* from local memory of one place to a peer's memory of one place */
    struct nvlx_peer *peer;
    uint16_t local, remote; /* places */
    int gpu;                /* that copies: see gpu_between */
    const struct nvlxi_peer_table *table;
    const struct nvlxi_view *view;
    uint64_t version;                   /* of the table's ranges */
    uint32_t pair[2];                   /* for reads, for writes; NVLXI_NO_PAIR: not known yet */
    struct nvlxi_range_caches cache[2]; /* of that memory only */
    uint32_t *mark;                     /* [runs]: number of the list that last pinned it, or listed it as missing */
    size_t mark_capacity;
};

/* Scratch memory; one for each thread that is submitting, kept by the engine. */
struct nvlxi_validation {
    const struct nvlxi_registration *registration;
    const struct nvlxi_intervals *local;
    struct nvlxi_needs *needs;
    uint32_t mechanism;                     /* that is asked for */
    uint64_t youngest;                      /* no op may lie in a piece that was born after this */
    uint32_t pair;                          /* of the stretch that the last op is in, or NVLXI_NO_PAIR */
    uint32_t round;                         /* of that stretch, if it is NVLXI_IN_ROUNDS: ops */
    uint32_t number;                        /* of the list, to tell it from others */
    struct nvlxi_range_caches *local_cache; /* [places]: of the local table, the pieces of that place only */
    size_t local_cache_capacity;
    struct nvlxi_range_cache **touched; /* those with a size */
    size_t touched_count, touched_capacity;
    struct nvlxi_route **routes; /* those of this list, then idle ones */
    size_t route_count, route_total, route_capacity;
    struct nvlxi_missing *missing;
    size_t missing_count, missing_capacity;
    struct nvlxi_validated validated; /* the outcome */
    struct nvlxi_shape shape;         /* what is validated in the place of the caller's list, if that has rows */
    size_t remote_capacity, pair_capacity, stretch_capacity, cut_capacity, signal_capacity, wait_capacity;
    struct nvlx_peer *opening_peer; /* NULL: none. Of it, this mapping may be read that is PENDING: the ops name only */
    struct nvlxi_mapping *opening;  /* what is mapped of it. The validation is of no use for another list */
    int signal_gpu; /* of the caller's stream, if the list begins with a signal or a wait for one; else < 0 */
    struct nvlxi_digested_shelf digested; /* of peers that were verified */
    struct nvlxi_validation *next;
};

/* Fills the needs and `v->validated`. The ops must not change until they are planned. NVLX_EAGAIN (not logged):
 * `v->missing` lists what must be mapped before the list is validated again. */
int nvlxi_validate(struct nvlxi_validation *v, const struct nvlxi_registration *registration, const struct nvlx_op *ops,
                   size_t count, uint32_t mechanism, struct nvlxi_needs *needs);

void nvlxi_validation_free(struct nvlxi_validation *v);

/* ---- Between validate.c and validate_op.c --------------------------------------------------------------- */

/* Validates one op, whatever it is; *route becomes the route of its end. */
int nvlxi_validate_op(struct nvlxi_validation *v, size_t index, struct nvlxi_route **route);

/* One op with NVLX_OP_ROWS, which is checked as nvlxi_op_check does, and of a peer of the engine: as the above. In
 * rows/validate.c. */
int nvlxi_validate_rows(struct nvlxi_validation *v, size_t index, struct nvlxi_route **route);

/* Turns cuts that are equal rows at equal distances into one, where no border lies between. In rows/join.c. */
void nvlxi_validate_join(struct nvlxi_validation *v);

/* Both sides of an op, or of its part between two borders. */
struct nvlxi_op_part {
    uint64_t local, remote;
    uint64_t local_length, remote_length;
    uint32_t local_range, remote_range; /* the pieces that they begin in */
    size_t index;                       /* of the op */
};

/* Whether the op's peer is there; whether a side is registered, and grants the direction. Of rows, for each: see
 * nvlxi_op_row. */
int nvlxi_validate_alive(const struct nvlx_op *op, size_t index);
int nvlxi_validate_local(const struct nvlxi_validation *v, const struct nvlx_op *op, size_t index);
int nvlxi_validate_remote(const struct nvlxi_validation *v, const struct nvlx_op *op, size_t index);

/* Finds a part's route and mapping offset, or NVLXI_UNMAPPED. Notes what it uses. */
int nvlxi_validate_part(struct nvlxi_validation *v, const struct nvlx_op *op, const struct nvlxi_op_part *part,
                        struct nvlxi_route **route, uint64_t *offset);
/* Validates the parts of op `index`, or of a row of it, and notes all of them as cuts if it is `cut`. */
int nvlxi_validate_parts(struct nvlxi_validation *v, const struct nvlx_op *op, size_t index, bool cut,
                         struct nvlxi_route **route);

/* Notes rows that are validated, or a part of an op that is cut. Lets the op be a stretch; of one that moves nothing
 * too. */
int nvlxi_note_cut(struct nvlxi_validation *v, size_t index, const struct nvlxi_rows *rows, uint32_t pair);
int nvlxi_note_nothing(struct nvlxi_validation *v, size_t index);

/* A signal, which is checked as nvlxi_op_check does, to a peer of the engine. In signals.c. */
int nvlxi_validate_signal(struct nvlxi_validation *v, size_t index);

/* Likewise NVLX_OP_WAIT_READY. */
int nvlxi_validate_wait(struct nvlxi_validation *v, size_t index);

/* Notes that the list reads or writes bytes of a peer, which are validated, from a GPU; where this process sees the
 * peer's run, or NVLXI_UNMAPPED; *mapping, unless that is NULL: by which, if it does. */
int nvlxi_validate_used(struct nvlxi_validation *v, const struct nvlx_op *op, int gpu, uint64_t *offset,
                        struct nvlxi_mapping **mapping);
/* Notes that it uses bytes of this process, which are registered. */
int nvlxi_validate_own(struct nvlxi_validation *v, uint64_t start, uint64_t end);
int nvlxi_note_signal(struct nvlxi_validation *v, size_t index, const struct nvlxi_list_signal *signal);
int nvlxi_note_wait(struct nvlxi_validation *v, size_t index, const struct nvlxi_list_wait *wait);

/* Lets op `index` begin a stretch, if the one before it is not of this pair. */
int nvlxi_stretch_begin(struct nvlxi_validation *v, size_t index, uint32_t pair);

/* For the first op of a list that lies in this piece. Notes the local memory as used, or the peer's run as needed. */
int nvlxi_validate_touch_local(struct nvlxi_validation *v, struct nvlxi_range_cache *cache,
                               const struct nvlxi_range *piece);
int nvlxi_validate_touch_remote(struct nvlxi_validation *v, struct nvlxi_route *route, struct nvlxi_range_cache *cache,
                                const struct nvlxi_range *piece);

/* Notes where all mappings that the list needs begin: copies may not cross that. */
int nvlxi_validate_note_mappings(struct nvlxi_validation *v);

void nvlxi_route_free(struct nvlxi_route *route);

#endif
