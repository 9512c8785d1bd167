/* Who reads from whom. Pure: the source of a relay asks it, and tells its readers.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Members stand in the order in which they came. A member reads from one that stands before it, or from the source, so
 * that there is never a circle:
 * - from the first member on its own GPU, or from the source if that has the GPU: those bytes need no link,
 * - else from the last GPU of the chain. The chain is the source, then the first member on each further GPU.
 * So each direction of a link carries the content once, and only from one GPU to the next. Who is shunned has no
 * children: it is silent, or another one cannot read from it. */
#ifndef NVLXI_RELAY_TREE_H
#define NVLXI_RELAY_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/records.h"

#define NVLXI_RELAY_MEMBERS_MAX 256
#define NVLXI_RELAY_SOURCE      (-1) /* in place of a member */

struct nvlxi_relay_place {
    const uint8_t *gpu; /* its UUID */
    bool reads;         /* or has read: in the tree */
    bool shunned;
    int parent; /* out: a place, or NVLXI_RELAY_SOURCE */
};

/* Fills in the parents of those that are in the tree. */
void nvlxi_relay_tree(struct nvlxi_relay_place *places, size_t count, const uint8_t *source_gpu);

#endif
