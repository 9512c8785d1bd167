/* nvlx_perf: lists of fragments, and the bytes that fill memory before they move.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_LIST_H
#define PERF_LIST_H

#include "perf_options.h"

/* How both sides' memory is divided: `count` regions, one every `step` bytes, each `size` bytes long. Between regions
 * lies a gap, so that they are not adjacent. */
struct perf_layout {
    uint64_t count, step, size;
};
struct perf_layout perf_layout_of(uint64_t arena, uint64_t regions);

/* A fragment by its offsets in the measuring process's memory and in the owner's. */
struct perf_fragment {
    uint64_t local, remote, length;
};

/* All that a list follows from: both processes make the same one. */
struct perf_list_spec {
    uint32_t opcode, pattern;
    uint64_t fragment, count, bytes; /* bytes: at most */
    uint64_t arena, regions;
    uint32_t half; /* 0: anywhere; 1, 2: only in that half of the memory */
    uint32_t swap; /* the owner's own transfer: its memory is the local side */
    uint64_t seed;
};

struct perf_list {
    struct perf_list_spec spec;
    struct perf_fragment *fragments;
    size_t count;
    uint64_t bytes;
};

/* Dies if not one fragment fits. */
void perf_list_make(struct perf_list *list, const struct perf_list_spec *spec);
void perf_list_free(struct perf_list *list);

/* The bytes that memory filled with `seed` has at [offset, offset + length). */
void perf_fill(void *bytes, uint64_t seed, uint64_t offset, size_t length);

/* What memory must hold: pieces in the order of their places, which cover it. */
struct perf_piece {
    uint64_t at, length; /* holds what memory filled with `seed` has at [from, from + length) */
    uint64_t seed, from;
};
struct perf_content {
    struct perf_piece *pieces;
    size_t count;
};
struct perf_wrong {
    uint64_t count, first; /* wrong bytes; the offset of the first */
};

/* What a process's `size` bytes hold after the lists were moved: [0] of `seeds` filled the measuring process's memory,
 * [1] the owner's. */
void perf_content_make(struct perf_content *content, const struct perf_list *lists, size_t list_count, bool owner,
                       uint64_t size, const uint64_t seeds[2]);
void perf_content_free(struct perf_content *content);

#endif
