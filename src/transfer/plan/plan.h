/* A transfer's fragments, on their way from the validated ops to the lanes. Pure: no device calls, no locks.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A group is what has the same local GPU, remote GPU and direction, of host memory apart. Fragments are added in the
 * order of the ops. The last one of a group stays open: one that continues it on both sides makes it longer, unless
 * there is a border (borders.h) between them on either side. When the next one does not, it is placed in one of the
 * group's lists, by the rules in plan.c: copy engines carry what is large (they beat the kernel, and take no SMs) or
 * few, the kernel carries the rest, cut into pieces that a warp copies in little time.
 *
 * Rows and grids of them (records.h) have lists of their own, in the same chunks, each in the room of some fragments.
 * What is rows is in rows/plan.c.
 *
 * Lists are made of chunks, whose memory comes from the caller: a list of any length needs no large block. The first
 * few fragments of a plan lie in the plan itself, since most plans have no more. */
#ifndef NVLXI_TRANSFER_PLAN_H
#define NVLXI_TRANSFER_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"
#include "transfer/validate/validated.h"

struct nvlxi_chunk {
    struct nvlxi_chunk *next;
    uint32_t capacity, count; /* fragments; the count of the last one is set at the end of a portion */
    bool kernel;              /* lies in memory that kernels can read */
    struct nvlxi_fragment *fragment;
};

#define NVLXI_GROW 1 /* more list memory is needed, and allowed: grow, and try again */
#define NVLXI_FULL 4 /* none is allowed: not logged, see list_memory.h */

/* Gives a chunk for a list that has `count` fragments by now, for a kernel to read or for the host. NVLX_ENOMEM, or one
 * of the two above. */
typedef int (*nvlxi_take_chunk)(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk);
typedef void (*nvlxi_give_chunk)(void *context, struct nvlxi_chunk *chunk);

enum nvlxi_way { NVLXI_BY_KERNEL, NVLXI_BY_ENGINES, NVLXI_ROWS_BY_KERNEL, NVLXI_ROWS_BY_ENGINES, NVLXI_WAYS };

struct nvlxi_list {
    struct nvlxi_fragment *next, *limit; /* where the next fragment goes, and where the chunk ends */
    struct nvlxi_chunk *first, *last;
    uint64_t count; /* of fragments, or rooms for them; set by nvlxi_plan_seal, before that without the last chunk's */
    uint64_t bytes; /* of the kernel's fragments set by nvlxi_plan_seal */
};

#define NVLXI_PLAN_FEW 2 /* rectangles of a group that may be sooner there by engines than by a kernel */

struct nvlxi_group {
    int gpu;                               /* local GPU: the lanes' */
    int remote_gpu;                        /* ordinal under which copies name the other side */
    uint16_t device;                       /* index of the GPU on the other side */
    uint16_t opcode;                       /* NVLX_OP_... */
    uint8_t hosts;                         /* NVLXI_..._HOST */
    uint32_t sms;                          /* with which kernels fill the link */
    bool kernels;                          /* they may carry it */
    const struct nvlxi_block_work *blocks; /* its kernel copies these by id (blocks/issue.h); NULL: fragments */
    uint64_t turn;                         /* groups are in this order, once their plan has begun */
    struct nvlxi_peer_cell *cell;          /* where it is counted, in plans for several peers (base/metrics.h) */
    uint64_t bytes;                        /* of all its fragments, not of its rows */
    struct nvlxi_fragment open;            /* length 0: none */
    struct nvlxi_list lists[NVLXI_WAYS];
    struct nvlxi_grid few[NVLXI_PLAN_FEW]; /* rectangles, and grids, that are not placed yet */
    uint32_t few_count;
    struct nvlxi_group *following;
};

#define NVLXI_PLAN_INLINE 4 /* fragments that lie in the plan itself */

struct nvlxi_plan {
    struct nvlxi_group *groups; /* list */
    uint32_t group_count;
    uint32_t mechanism;             /* NVLX_MECHANISM_... */
    uint64_t bytes;                 /* of all ops; set by nvlxi_plan_seal, as are the two below */
    uint64_t fragments[NVLXI_WAYS]; /* or rows */
    uint64_t way_bytes[NVLXI_WAYS];
    bool sealed;
    struct nvlxi_borders *borders; /* of the list that is being planned; NULL: there are none */
    bool in_portions;              /* the first one had no work for the engines, so the others are given none */
    struct nvlxi_chunk *spare;     /* list: for the kernel, taken before they are needed */
    struct nvlxi_list_signal *signals, one_signal; /* of the list, in order: `one_signal`, or memory of their own */
    size_t signal_count;
    nvlxi_take_chunk take_chunk;
    nvlxi_give_chunk give_chunk;
    void *context;
    struct nvlxi_group first_group;
    struct nvlxi_chunk inline_chunk;
    struct nvlxi_fragment inline_fragments[NVLXI_PLAN_INLINE];
};

/* Puts a chunk behind those of a list. */
void nvlxi_list_append(struct nvlxi_list *list, struct nvlxi_chunk *chunk);

/* `context` is for the two functions. */
void nvlxi_plan_init(struct nvlxi_plan *plan, nvlxi_take_chunk take_chunk, nvlxi_give_chunk give_chunk, void *context);

/* Empties the plan, gives its chunks back, and sets the mechanism for what is added next. */
void nvlxi_plan_reset(struct nvlxi_plan *plan, uint32_t mechanism);

/* Of a sealed plan: how many fragments, or rows, a group has that go this way. */
uint64_t nvlxi_group_copies(const struct nvlxi_group *group, enum nvlxi_way way);

/* The group of a pair, made if there is none; NULL without memory. */
struct nvlxi_group *nvlxi_plan_group(struct nvlxi_plan *plan, const struct nvlxi_pair *pair);

/* Adds a fragment. Fails only as take_chunk does; the plan is then of no more use. */
int nvlxi_plan_add(struct nvlxi_plan *plan, struct nvlxi_group *group, uint64_t destination, uint64_t source,
                   uint64_t length);

/* Adds rows, none of which is cut by a border, nor what lies between them. The same of a grid, which fits engines if it
 * has several times. Fails as nvlxi_plan_add. */
int nvlxi_plan_add_rows(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_rows *rows);
int nvlxi_plan_add_grid(struct nvlxi_plan *plan, struct nvlxi_group *group, const struct nvlxi_grid *grid);

/* Whether rows are better carried by engines, where kernels could carry them too: among others, or if nothing else is
 * to be copied. */
bool nvlxi_plan_suits_engines(const struct nvlxi_grid *grid);
bool nvlxi_plan_suits_engines_alone(const struct nvlxi_grid *grid);

/* So many copies by engines rows take, at least, if kernels shall not carry them. */
uint64_t nvlxi_plan_copies(const struct nvlxi_rows *rows);

/* Places what is open and counts, after the last fragment. Fails only as take_chunk does. */
int nvlxi_plan_seal(struct nvlxi_plan *plan);

/* ---- Between plan.c and rows/plan.c ---------------------------------------------------------------------- */

/* Appends a chunk to a list, for its next fragment. As take_chunk. */
int nvlxi_plan_add_chunk(struct nvlxi_plan *plan, struct nvlxi_list *list, bool kernel);
/* Places the rectangles of a group that have waited for others. As take_chunk. */
int nvlxi_plan_place_few(struct nvlxi_plan *plan, struct nvlxi_group *group);
/* The length of the pieces into which what the kernel carries is cut. */
uint64_t nvlxi_plan_piece(uint64_t length);

/* ---- Validated ops, in plan_ops.c ------------------------------------------------------------------------ */

/* Of a sealed plan: what engines carry, fragments and rows. */
static inline uint64_t nvlxi_plan_engine_copies(const struct nvlxi_plan *plan) {
    return plan->fragments[NVLXI_BY_ENGINES] + plan->fragments[NVLXI_ROWS_BY_ENGINES];
}

/* Plans what is validated, up to the end, and seals. NVLX_ENOMEM, or as take_chunk fails. */
int nvlxi_plan_all(struct nvlxi_plan *plan, struct nvlxi_validated *validated);

/* The same in portions, so that the first can be copied while the next are planned. Begin plans the first, and has
 * taken all memory that the others need: it fails as nvlxi_plan_all does, next does not fail. There is more than one
 * portion only where kernels carry all of a long list; all others are sealed at once. After the last one the plan is
 * sealed. */
int nvlxi_plan_begin(struct nvlxi_plan *plan, struct nvlxi_validated *validated);
void nvlxi_plan_next(struct nvlxi_plan *plan, struct nvlxi_validated *validated);

/* ---- Between plan.c and plan_ops.c ----------------------------------------------------------------------- */

#define NVLXI_PIECE_BYTES (64u << 10) /* what the kernel's warps copy at a time, */
#define NVLXI_ENGINE_MIN  (1u << 20)  /* and from which length on it is for the engines: see plan.c */

enum nvlxi_way nvlxi_plan_choose(const struct nvlxi_plan *plan, const struct nvlxi_group *group,
                                 const struct nvlxi_fragment *fragment);
/* What began in the plan's own chunk, where anything may lie, leaves it for the lists when there is more. */
int nvlxi_plan_leave_inline(struct nvlxi_plan *plan, struct nvlxi_group *group);
bool nvlxi_plan_is_inline(const struct nvlxi_plan *plan, const struct nvlxi_group *group);
/* Gives the chunks back that were taken before they were needed. */
void nvlxi_plan_give_spare(struct nvlxi_plan *plan);

static inline uint64_t nvlxi_list_count_last(const struct nvlxi_list *list) {
    return list->last ? (uint64_t)(list->next - list->last->fragment) : 0;
}

/* Whether one copy may go on into the bytes at these addresses, which follow on it. */
static inline bool nvlxi_plan_goes_on(const struct nvlxi_border_set *borders, uint64_t one_side, uint64_t other_side) {
    return !nvlxi_borders_has(borders, one_side) && !nvlxi_borders_has(borders, other_side);
}

#endif
