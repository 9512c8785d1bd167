/* A validated list: what validation leaves to planning, in plain arrays. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_VALIDATE_VALIDATED_H
#define NVLXI_TRANSFER_VALIDATE_VALIDATED_H

#include "base/records.h"
#include "nvlxfer.h"
#include "transfer/borders.h"

#define NVLXI_NO_PAIR   UINT32_MAX
#define NVLXI_IN_TURNS  (UINT32_MAX - 1)
#define NVLXI_IN_ROUNDS (UINT32_MAX - 2)

enum nvlxi_hosts { NVLXI_LOCAL_HOST = 1, NVLXI_REMOTE_HOST = 2 }; /* sides that are host memory */

#define NVLXI_ROUND_MAX  16 /* ops of a round */
#define NVLXI_LIST_WAITS 8  /* of a list */

struct nvlxi_group;
struct nvlxi_peer_cell;

struct nvlxi_validated {
    const struct nvlx_op *ops;
    size_t count;
    uint64_t *remote;                 /* [count]: where this process sees each op's remote side; 0 for ops of 0 bytes */
    uint8_t *pair_of;                 /* [count]: of ops in stretches NVLXI_IN_TURNS, and of the first round of those
                                         NVLXI_IN_ROUNDS, the index of the pair */
    struct nvlxi_pair {               /* of GPUs, or host memory that they copy, and a direction */
        int gpu;                      /* the local one, which copies */
        int remote_gpu;               /* ordinal under which copies name the other side */
        uint16_t device;              /* index of the GPU on the other side */
        uint16_t opcode;              /* NVLX_OP_... */
        uint8_t hosts;                /* NVLXI_..._HOST, or-ed together */
        bool kernels;                 /* they can carry it */
        uint64_t turn;                /* pairs are served in this order: nvlxi_remote_turn */
        struct nvlxi_peer_cell *cell; /* of the peer; that for others, if it is of several */
        struct nvlxi_group *group;    /* the plan's own */
    } * pairs;
    size_t pair_count;
    struct nvlxi_stretch {
        size_t at;  /* the plan's own: the next op, at first where the stretch before ends */
        size_t end; /* of the stretch */
        uint32_t
            pair; /* index; NVLXI_NO_PAIR: one op that is cut, rows or a signal, after ops of 0 bytes; NVLXI_IN_TURNS:
                     each op has its own; NVLXI_IN_ROUNDS: likewise, and they come again in the same order */
        uint32_t round; /* of NVLXI_IN_ROUNDS: after so many ops */
    } * stretches;
    size_t stretch_count;
    struct nvlxi_cut { /* what lies between two borders of an op that crosses some, or is rows */
        size_t op;
        uint32_t pair;
        struct nvlxi_grid grid; /* one time of one row: a fragment. Of several ops with rows: op is the first */
    } * cuts;                   /* of all those ops, in order */
    size_t cut_count;
    struct nvlxi_list_signal { /* a count to be changed when all else is in place */
        struct nvlxi_signal signal;
        int gpu; /* of this process, that does it */
    } * signals;
    size_t signal_count;
    struct nvlxi_list_wait { /* a count of a peer's that is reached before anything is copied */
        struct nvlx_peer *peer;
        struct nvlxi_mapping *mapping; /* that it lies in */
        uint64_t remote, address;      /* where the peer and this process see it */
        uint64_t value;
        uint64_t generation; /* of the peer, as is known */
    } * waits;
    size_t wait_count;
    struct nvlxi_borders borders;
    uint64_t longest; /* all (length - 1) or-ed together: an upper bound of the longest, less than twice too large. An
                         op of 0 bytes makes it UINT64_MAX: such a list is planned as a whole */
    size_t planned;   /* the plan's own: ops that have been planned, */
    size_t stretch;   /* the first stretch that is left, */
    size_t at;        /* in what is planned now, the next op, */
    size_t cut;       /* and the next cut */
};

#endif
