/* Writes down the leaves of spans. SPDX-License-Identifier: Apache-2.0 */
#include "device/leaf_list.h"

/* Returns where the leaves of the next span go. */
static struct nvlxi_digest_span *add_leaves(const struct nvlxi_digest_span *span, struct nvlxi_digest_span *next) {
    struct nvlxi_digest_span rest = *span;
    for (; rest.length > NVLXI_LEAF_BYTES; rest.address += NVLXI_LEAF_BYTES, rest.length -= NVLXI_LEAF_BYTES)
        *next++ = (struct nvlxi_digest_span){rest.address, NVLXI_LEAF_BYTES};
    *next++ = rest;
    return next;
}

struct nvlxi_leaf_list nvlxi_leaf_list_make(const struct nvlxi_leaves *leaves) {
    struct nvlxi_leaf_list made = {.digests = leaves->digests};
    struct nvlxi_digest_span *next = leaves->scratch;
    if (leaves->span_count == 1) {
        made.span = *leaves->spans;
        made.count = nvlxi_leaf_count(made.span.length);
        return made;
    }
    for (uint32_t i = 0; i < leaves->span_count; i++)
        next = add_leaves(&leaves->spans[i], next);
    made.list = leaves->scratch;
    made.count = (uint64_t)(next - leaves->scratch);
    return made;
}
