/* What a kernel works through that digests leaves: for both backends.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The leaves of one span follow from it. Those of several are written down one by one: then any thread finds its own at
 * once, and all threads have the same to do, wherever one span ends. */
#ifndef NVLXI_DEVICE_LEAF_LIST_H
#define NVLXI_DEVICE_LEAF_LIST_H

#include "device/device.h"

struct nvlxi_leaf_list {
    struct nvlxi_digest_span span;        /* whose leaves they are, */
    const struct nvlxi_digest_span *list; /* or each leaf as a span of its own; NULL: there is one span */
    uint64_t count;                       /* of leaves */
    uint64_t *digests;
};

/* The list lies in the scratch memory. */
struct nvlxi_leaf_list nvlxi_leaf_list_make(const struct nvlxi_leaves *leaves);

#endif
