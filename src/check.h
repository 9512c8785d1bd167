/* The caller's ops -> a plan: each op is checked to the byte against the registered regions of both sides, and
 * relocated.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Runs with the engine's `tables` held for reading, issues nothing, and so can refuse a list as a whole. Most ops take
 * a short path that compares and adds, no more; what is met for the first time in this list (a peer, a GPU, a region),
 * or is wrong, goes the long way once. "Met in this list" is known by marks, which hold what is unique to the list: its
 * epoch. */
#ifndef NVLXI_CHECK_H
#define NVLXI_CHECK_H

#include "plan.h"
#include "registration.h"
#include "relocation.h"

struct nvlxi_use { /* local bytes that a transfer in flight reads or writes */
    uint64_t start, end;
};

/* What a list needs while it is in flight. Arrays keep their memory for the next list. */
struct nvlxi_needs {
    struct nvlxi_use *uses;
    struct nvlxi_mapping **mappings;
    struct nvlx_peer **peers;
    size_t use_count, use_capacity;
    size_t mapping_count, mapping_capacity;
    size_t peer_count, peer_capacity;
};

void nvlxi_needs_free(struct nvlxi_needs *needs);

struct nvlxi_missing { /* a mapping that must be opened first */
    struct nvlx_peer *peer;
    int gpu;
    uint64_t base, serial;
};

/* A piece of a table as it was found when an op of this list first lay in it: all that the short path looks at. */
struct nvlxi_seen {
    uint64_t start, last; /* of the piece: its first byte, and its length - 1 */
    uint64_t key; /* local: epoch + GPU. Peer's: epoch, and above it the id of the group; it grants the direction, and
                     is mapped */
    uint64_t offset; /* peer's: to be added to an address */
};

struct nvlxi_route { /* from a local GPU to a peer */
    struct nvlx_peer *peer;
    int gpu;
    const struct nvlxi_peer_table *table;
    const struct nvlxi_view *view;
    struct nvlxi_group *group[2]; /* for reads, for writes: the last used */
    struct nvlxi_seen *seen[2];   /* [pieces + 1] for reads, for writes */
    size_t seen_capacity[2];
    uint32_t *mark; /* [spans]: epoch, of those pinned or listed as missing */
    size_t mark_capacity;
};

/* Scratch memory; one for each thread that is submitting, kept by the engine. */
struct nvlxi_check {
    const struct nvlxi_registration *registration;
    const struct nvlxi_ranges *local;
    uint32_t epoch;          /* of the list; grows by EPOCH_STEP, so that epoch + GPU is unique too */
    struct nvlxi_seen *seen; /* [pieces of the local table + 1] */
    size_t seen_capacity;
    struct nvlxi_route **routes;
    size_t route_count, route_capacity;
    struct nvlxi_missing *missing;
    size_t missing_count, missing_capacity;
    struct nvlxi_check *next;
};

/* Fills the (empty) plan and needs. NVLX_EAGAIN (not logged): `check->missing` lists what must be mapped before the
 * list is checked again. */
int nvlxi_check_ops(struct nvlxi_check *check, const struct nvlxi_registration *registration, const struct nvlx_op *ops,
                    size_t count, struct nvlxi_plan *plan, struct nvlxi_needs *needs);

void nvlxi_check_free(struct nvlxi_check *check);

#endif
