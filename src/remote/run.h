/* What a peer's segments are mapped as: a span is a run of adjacent segments that regions join, or a lone segment. Own
 * memory, which is not mapped, may have borders between its segments, so that each is a span.
 * Pure: no locks, no device calls.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_SPAN_H
#define NVLXI_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "descriptor/descriptor.h"

struct nvlxi_span {
    uint64_t base, size;
    uint64_t serial;       /* tells it from others at this base: the segment's own if it is alone and may be written */
    uint32_t first, count; /* segments of the descriptor */
    bool read_only;        /* no region in it grants writing, and mappings of its kind enforce that */
};

struct nvlxi_spans {
    struct nvlxi_span *span;
    uint32_t *of_segment; /* [segments]: the span that it belongs to */
    const struct nvlxi_span **by_base;
    size_t count;
};

/* `own`: of this very process. NVLX_ENOMEM, not logged; *spans can be freed then too. */
int nvlxi_spans_make(const struct nvlxi_descriptor *descriptor, bool own, struct nvlxi_spans *spans);
void nvlxi_spans_free(struct nvlxi_spans *spans);

/* NULL if there is none. */
const struct nvlxi_span *nvlxi_spans_find(const struct nvlxi_spans *spans, uint64_t base, uint64_t serial);

#endif
