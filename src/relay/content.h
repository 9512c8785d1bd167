/* What a relay brings to its readers: parts by name, cut into pieces. Pure: no memory of a GPU is touched here.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Parts are kept in the order of their names, so that source and readers cut them alike, whatever order their callers
 * gave. A *span* is what of a part lies in one piece. Parts are cut at multiples of the piece's length from their own
 * begin: spans are aligned as their parts are. A *unit* is what of a part is digested at once: many spans, since each
 * digest is a kernel, which may have to wait for its turn on the GPU. */
#ifndef NVLXI_RELAY_CONTENT_H
#define NVLXI_RELAY_CONTENT_H

#include <stddef.h>
#include <stdint.h>

#include "nvlxfer.h"

/* The names of the regions with flags and digests: of the source, which is what nvlx_relay_join looks for, and of
 * readers. */
#define NVLXI_RELAY_STATE        "nvlx-relay"
#define NVLXI_RELAY_READER_STATE "nvlx-relay-reader"

struct nvlxi_relay_span {
    uint32_t part;
    uint64_t offset, length; /* in the part; length > 0 */
    size_t unit;
};

struct nvlxi_relay_unit {
    uint32_t part;
    uint64_t offset, length; /* in the part; length > 0 */
};

struct nvlxi_relay_content {
    struct nvlx_relay_part *parts; /* names are copies of ours */
    size_t part_count;
    uint64_t bytes;
    struct nvlxi_relay_span *spans;
    size_t span_count;
    struct nvlxi_relay_unit *units;
    size_t unit_count;
    size_t *first; /* span of each piece; one more entry ends the last */
    size_t piece_count;
};

/* Copies and sorts. NVLX_EINVAL: a part has no name or address, two have one name or one that of the state, or there is
 * not one byte. To be freed only after 0. */
int nvlxi_relay_content_make(struct nvlxi_relay_content *content, const struct nvlx_relay_part *parts, size_t count);
/* NVLX_EINVAL: two parts share bytes, so that nothing can come into them. */
int nvlxi_relay_content_check_apart(const struct nvlxi_relay_content *content);
/* How long pieces should be. Each costs some microseconds in which nothing moves. The last reader of a chain has all
 * bytes later by a piece for each reader before it. So the best length grows as the root of the bytes. */
uint64_t nvlxi_relay_content_piece(const struct nvlxi_relay_content *content);
/* Once: into pieces of at most so many bytes, > 0. */
int nvlxi_relay_content_cut(struct nvlxi_relay_content *content, uint64_t piece_bytes);
void nvlxi_relay_content_free(struct nvlxi_relay_content *content);

#endif
