/* Two buffers here, two in an owner, and a model of the bytes in all four: whatever is transferred is done to the model
 * too, and every byte compared. SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_H
#define BENCH_H

#include "support.h"

struct bench {
    struct nvlx_engine *engine;
    struct owner owner;
    struct nvlx_peer *peer; /* opened by bench_open_peer */
    size_t size;            /* of each buffer */
    char *local[2];         /* on GPU 0, and on the second; filled with seeds 11 and 12 */
    uint64_t remote[2];     /* the owner's slots 0 and 1, on GPU 0 and the second; seeds 1 and 2 */
    uint8_t *model_local[2], *model_remote[2];
};

void bench_begin(struct bench *bench, struct nvlx_engine *engine, size_t size);
/* The owner's first buffer is of this kind, NVLX_ALLOC_... */
void bench_begin_with(struct bench *bench, struct nvlx_engine *engine, size_t size, uint32_t remote_flags);
/* Opens the peer, or brings it up to date, from what the owner has registered. */
void bench_open_peer(struct bench *bench);
/* Registers the owner's buffers, as "near" and "far", and `length` bytes of each one here; opens the peer. */
void bench_register(struct bench *bench, size_t length, struct nvlx_region *mine[2]);
/* Fills a buffer of the owner's, and of the model. */
void bench_fill_remote(struct bench *bench, uint32_t buffer, uint32_t seed);
/* A copy between one of the two buffers here and the owner's on the same GPU, from offsets in bytes. */
struct nvlx_op bench_op(const struct bench *bench, uint32_t opcode, int buffer, size_t local, size_t remote,
                        size_t length);
/* Prepared without options. */
struct nvlx_prepared *bench_prepare(struct bench *bench, const struct nvlx_op *ops, size_t count);
/* Posted without options. */
struct nvlx_request *bench_post(struct nvlx_prepared *prepared);
/* Tables of blocks: addresses here, and of the owner. */
struct nvlx_blocks *bench_tables(struct bench *bench, const struct nvlx_block_region *local,
                                 const struct nvlx_block_region *remote, size_t count, uint32_t access);
/* Does to the model what the ops are to do. */
void bench_apply(struct bench *bench, const struct nvlx_op *ops, size_t count);
/* Compares every byte, here and there. */
void bench_compare(struct bench *bench, const char *when);
/* All of it: transfer, wait, apply, compare. `options` may be NULL. */
void bench_move(struct bench *bench, const struct nvlx_op *ops, size_t count,
                const struct nvlx_transfer_options *options, const char *when);
/* The same without a stream, by one mechanism, and tells of the request. */
struct nvlx_request_info bench_move_by(struct bench *bench, uint32_t mechanism, const struct nvlx_op *ops,
                                       size_t count);
/* Moves blocks of 90,000 bytes between buffer 0 here and one of the owner's, by each mechanism. The caller frees the
 * tables: of 10 blocks, one every 100,000 bytes. */
struct nvlx_blocks *bench_move_blocks(struct bench *bench, int buffer);
/* The engine is destroyed. */
void bench_end(struct bench *bench);

#endif
