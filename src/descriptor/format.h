/* What the writer and the reader of descriptors must agree on. The format is described in decode.cc.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DESCRIPTOR_FORMAT_H
#define NVLXI_DESCRIPTOR_FORMAT_H

#include <string.h>

#include "base/records.h"

#define NVLXI_FORMAT_NAME  "nvlxfer"
#define NVLXI_FORMAT_MAJOR 1u
#define NVLXI_FORMAT_MINOR 1u

#define NVLXI_FORMAT_DIGEST     "digest:" /* before the digest of a region's bytes */
#define NVLXI_FORMAT_NO_SEGMENT "-"       /* in place of the index of a region's segment */

struct nvlxi_format_kind {
    uint32_t kind; /* enum nvlxi_kind */
    const char *name;
    bool file, handle, joins; /* file, joins: as in each segment's record; handle: there must be one */
};
#define NVLXI_FORMAT_KINDS(X)                                                                                          \
    X(NVLXI_KIND_CUDA_MALLOC, "cuda_malloc", false, true, false)                                                       \
    X(NVLXI_KIND_VMM, "vmm", true, false, true)                                                                        \
    X(NVLXI_KIND_POOL, "pool", true, true, false)                                                                      \
    X(NVLXI_KIND_FABRIC, "fabric", false, true, true)                                                                  \
    X(NVLXI_KIND_HOST, "host", true, false, true)

struct nvlxi_format_access {
    uint32_t access; /* NVLX_ACCESS_... */
    const char *name;
};
#define NVLXI_FORMAT_ACCESSES(X)                                                                                       \
    X(NVLX_ACCESS_NONE, "-")                                                                                           \
    X(NVLX_ACCESS_READ, "r")                                                                                           \
    X(NVLX_ACCESS_WRITE, "w")                                                                                          \
    X(NVLX_ACCESS_READ_WRITE, "rw")

/* Whether a region may go on from a segment into the next one of the list. */
static inline bool nvlxi_format_adjoin(const struct nvlxi_segment_record *segment,
                                       const struct nvlxi_segment_record *next) {
    return segment->joins && next->joins && segment->kind == next->kind &&
           segment->base + segment->size == next->base &&
           !memcmp(segment->device, next->device, sizeof segment->device);
}

#endif
