/* SPDX-License-Identifier: Apache-2.0 */
#include "span.h"

#include <stdlib.h>

#include "error.h"

static int compare_bases(const void *a, const void *b) {
    const struct nvlxi_span *const *x = a, *const *y = b;
    return ((*x)->base > (*y)->base) - ((*x)->base < (*y)->base);
}

/* Every bit of the result depends on every bit of both (splitmix64's last steps). */
static uint64_t mix(uint64_t digest, uint64_t value) {
    uint64_t x = digest ^ (value + 0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static uint64_t serial_of(const struct nvlxi_span *span, const struct nvlxi_segment_record *segments) {
    if (span->count == 1 && !span->read_only)
        return segments[span->first].serial;
    uint64_t digest = mix(span->read_only, span->size);
    for (uint32_t i = 0; i < span->count; i++)
        digest = mix(digest, segments[span->first + i].serial);
    return digest;
}

/* Marks in `joined` the segments that a region joins with the next one, in `written` those that a region lets peers
 * write. */
static void look_at_regions(const struct nvlxi_descriptor *d, bool *joined, bool *written) {
    for (size_t i = 0; i < d->region_count; i++) {
        const struct nvlxi_region_record *region = &d->regions[i];
        for (uint32_t k = 0; k < region->spans; k++) {
            joined[region->segment + k] |= k + 1 < region->spans;
            written[region->segment + k] |= (region->access & NVLX_ACCESS_WRITE) != 0;
        }
    }
}

/* Of other kinds, a mapping for reading is one for writing: it stays when a region comes to grant that. */
static bool can_be_read_only(const struct nvlxi_segment_record *segment) {
    return segment->kind == NVLXI_KIND_VMM || segment->kind == NVLXI_KIND_FABRIC;
}

static void cut(const struct nvlxi_descriptor *d, const bool *joined, const bool *written, struct nvlxi_spans *spans) {
    for (uint32_t i = 0; i < d->segment_count; i++) {
        const struct nvlxi_segment_record *segment = &d->segments[i];
        if (i == 0 || !joined[i - 1])
            spans->span[spans->count++] =
                (struct nvlxi_span){.base = segment->base, .first = i, .read_only = can_be_read_only(segment)};
        struct nvlxi_span *span = &spans->span[spans->count - 1];
        span->count++;
        span->size += segment->size;
        span->read_only = span->read_only && !written[i];
        spans->of_segment[i] = (uint32_t)(spans->count - 1);
    }
}

int nvlxi_spans_make(const struct nvlxi_descriptor *descriptor, struct nvlxi_spans *spans) {
    const size_t segments = descriptor->segment_count;
    bool *joined = calloc(segments + 1, sizeof *joined), *written = calloc(segments + 1, sizeof *written);
    *spans = (struct nvlxi_spans){.span = calloc(segments + 1, sizeof *spans->span),
                                  .of_segment = calloc(segments + 1, sizeof *spans->of_segment),
                                  .by_base = calloc(segments + 1, sizeof(*spans->by_base))};
    const bool made = joined && written && spans->span && spans->of_segment && spans->by_base;
    if (made) {
        look_at_regions(descriptor, joined, written);
        cut(descriptor, joined, written, spans);
        for (size_t i = 0; i < spans->count; i++) {
            spans->span[i].serial = serial_of(&spans->span[i], descriptor->segments);
            spans->by_base[i] = &spans->span[i];
        }
        qsort(spans->by_base, spans->count, sizeof(*spans->by_base), compare_bases);
    }
    free(joined);
    free(written);
    return made ? 0 : NVLX_ENOMEM;
}

void nvlxi_spans_free(struct nvlxi_spans *spans) {
    free(spans->span);
    free(spans->of_segment);
    free(spans->by_base);
    *spans = (struct nvlxi_spans){0};
}

const struct nvlxi_span *nvlxi_spans_find(const struct nvlxi_spans *spans, uint64_t base, uint64_t serial) {
    const struct nvlxi_span wanted = {.base = base}, *key = &wanted, **found;
    found = bsearch(&key, spans->by_base, spans->count, sizeof(*spans->by_base), compare_bases);
    return found && (*found)->serial == serial ? *found : NULL;
}
