/* A validated list: what validation leaves to planning, in plain arrays. Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_VALIDATED_H
#define NVLXI_TRANSFER_VALIDATED_H

#include "base/records.h"
#include "nvlxfer.h"
#include "transfer/borders.h"

#define NVLXI_NO_PAIR UINT32_MAX

struct nvlxi_group;

struct nvlxi_validated {
    const struct nvlx_op *ops;
    size_t count;
    uint64_t *remote;              /* [count]: where this process sees each op's remote side; 0 for ops of 0 bytes */
    struct nvlxi_pair {            /* of GPUs, and a direction */
        int gpu;                   /* the local one */
        int remote_gpu;            /* ordinal under which copies name the other side */
        uint16_t device;           /* index of the GPU on the other side */
        uint16_t opcode;           /* NVLX_OP_... */
        bool kernels;              /* they can carry it */
        struct nvlxi_group *group; /* the plan's own */
    } * pairs;
    size_t pair_count;
    struct nvlxi_stretch {
        size_t end;    /* of the stretch: it begins where the one before ends */
        uint32_t pair; /* index; NVLXI_NO_PAIR: one op that is cut or is rows, after ops of 0 bytes */
    } * stretches;
    size_t stretch_count;
    struct nvlxi_cut { /* what lies between two borders of an op that crosses some, or is rows */
        size_t op;
        uint32_t pair;
        struct nvlxi_rows rows; /* of one: a fragment */
    } * cuts;                   /* of all those ops, in order */
    size_t cut_count;
    struct nvlxi_borders borders;
    uint64_t longest; /* all (length - 1) or-ed together: an upper bound of the longest, less than twice too large. An
                         op of 0 bytes makes it UINT64_MAX: such a list is planned as a whole */
    size_t planned;   /* the plan's own: ops that have been planned, */
    size_t stretch;   /* and the stretch of the next one, */
    size_t cut;       /* and the next cut */
};

#endif
