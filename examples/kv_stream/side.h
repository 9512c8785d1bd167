/* What both processes of kv_stream.c have: arguments, a paged cache, counts, and the other process.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef KV_STREAM_SIDE_H
#define KV_STREAM_SIDE_H

#include <nvlxfer.h>
#include <stdbool.h>
#include <stddef.h>

#include "device.h"

enum { KV_LAYERS_MAX = 256 /* as KV_SEED has it */, KV_ROUNDS_MAX = 10000, KV_BLOCKS_MAX = 65536 };

#define KV_PATIENCE INT64_C(60000000000) /* in which the other process does what it has to */

struct kv_arguments {
    int layers, blocks, kib, run, rounds, sms;
    double compute_us, hidden; /* hidden: percent, below which it fails; 0: whatever it is */
    uint32_t mechanism;
    bool no_wait, graphs;
};
extern struct kv_arguments kv_arguments;
void kv_read_arguments(int argc, char **argv);

/* A call of the library that fails says why, and ends the process. */
void kv_check(int code, const char *what);

/* Counts of a process, in its GPU's memory. The other process sets the first ones. The last three are this one's own:
 * the passes that have begun, how many words were wrong, and what waits of graphs have reached. */
enum { KV_MAY_GO, KV_CHECKED, KV_ARRIVED, KV_PASS, KV_WRONG, KV_REACHED, KV_COUNTS = 512 };

struct kv_side {
    const struct kv_device *device;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct nvlx_region *regions[2];
    char *cache;          /* [layer][block] */
    uint64_t *counts;     /* KV_COUNTS of them, then ids */
    uint32_t *ids;        /* in memory of the device */
    uint32_t *listed;     /* the same, here */
    uint64_t their_cache; /* as the peer calls it, */
    uint64_t their_counts;
    uint32_t pool; /* blocks of a layer: more than the request has */
    int gpu, gpus;
};

size_t kv_block_bytes(void);
size_t kv_layer_bytes(const struct kv_side *side);
bool kv_has_streams(const struct kv_side *side);

/* The request's ids of a role, as the router tells them. */
void kv_list_ids(struct kv_side *side, uint64_t role);

/* Role 0 is prefill, 1 decode: each serves at the address of its role. Everything that takes memory, or loads a kernel,
 * comes before the first wait. */
void kv_begin(struct kv_side *side, int role, char addresses[2][40]);
void kv_end(struct kv_side *side);

/* Sets a count of the peer's, from this CPU. */
void kv_set_their_count(const struct kv_side *side, int count, uint64_t value);
/* This CPU waits until a count has reached a value. */
void kv_await_count(const struct kv_side *side, int count, uint64_t value);

#endif
