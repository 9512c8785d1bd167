/* Buffers and a model of their bytes: see bench.h. SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *make_model(size_t size, uint32_t seed) {
    uint8_t *model = malloc(size);
    if (!model)
        FAIL("no memory for a model of %zu bytes", size);
    for (size_t i = 0; i < size; i++)
        model[i] = seed_byte(seed, i);
    return model;
}

void bench_begin(struct bench *bench, struct nvlx_engine *engine, size_t size) {
    bench_begin_with(bench, engine, size, 0);
}

void bench_begin_with(struct bench *bench, struct nvlx_engine *engine, size_t size, uint32_t remote_flags) {
    *bench = (struct bench){.engine = engine, .size = size};
    owner_start(&bench->owner);
    for (uint32_t i = 0; i < 2; i++) {
        int gpu = i ? second_gpu() : 0;
        bench->local[i] = allocate(engine, gpu, size, 11 + i);
        bench->owner.alloc_flags = i ? 0 : remote_flags;
        bench->remote[i] = owner_alloc(&bench->owner, i, gpu, size, 1 + i);
        bench->model_local[i] = make_model(size, 11 + i);
        bench->model_remote[i] = make_model(size, 1 + i);
    }
}

void bench_open_peer(struct bench *bench) {
    char *text = owner_export(&bench->owner);
    if (bench->peer)
        OK(nvlx_peer_update(bench->peer, text, strlen(text)));
    else
        bench->peer = open_peer(bench->engine, text);
    free(text);
}

void bench_register(struct bench *bench, size_t length, struct nvlx_region *mine[2]) {
    owner_register(&bench->owner, 0, 0, 0, bench->size, NVLX_ACCESS_READ_WRITE, "near");
    owner_register(&bench->owner, 1, 1, 0, bench->size, NVLX_ACCESS_READ_WRITE, "far");
    bench_open_peer(bench);
    for (int i = 0; i < 2; i++)
        mine[i] = register_range(bench->engine, bench->local[i], length, NULL, NVLX_ACCESS_NONE);
}

void bench_fill_remote(struct bench *bench, uint32_t buffer, uint32_t seed) {
    owner_fill(&bench->owner, buffer, 0, bench->size, seed);
    for (size_t i = 0; i < bench->size; i++)
        bench->model_remote[buffer][i] = seed_byte(seed, i);
}

struct nvlx_op bench_op(const struct bench *bench, uint32_t opcode, int buffer, size_t local, size_t remote,
                        size_t length) {
    return make_op(opcode, bench->peer, bench->local[buffer] + local, bench->remote[buffer] + remote, length);
}

struct nvlx_prepared *bench_prepare(struct bench *bench, const struct nvlx_op *ops, size_t count) {
    struct nvlx_prepared *prepared;
    OK(nvlx_prepare(bench->engine, ops, count, NULL, &prepared));
    return prepared;
}

struct nvlx_request *bench_post(struct nvlx_prepared *prepared) {
    struct nvlx_request *request;
    OK(nvlx_post(prepared, NULL, &request));
    return request;
}

/* Where an address of one of the two buffers is in the model. */
static uint8_t *in_model(const struct bench *bench, const uint64_t base[2], uint8_t *const model[2], uint64_t address) {
    for (int i = 0; i < 2; i++)
        if (address >= base[i] && address - base[i] < bench->size)
            return model[i] + (address - base[i]);
    FAIL("address 0x%" PRIx64 " is in neither buffer", address);
}

struct nvlx_blocks *bench_tables(struct bench *bench, const struct nvlx_block_region *local,
                                 const struct nvlx_block_region *remote, size_t count, uint32_t access) {
    struct nvlx_blocks_options options;
    struct nvlx_blocks *blocks;
    nvlx_blocks_options_init(&options);
    options.access = access;
    OK(nvlx_blocks_create(bench->engine, bench->peer, local, remote, count, &options, &blocks));
    return blocks;
}

void bench_apply(struct bench *bench, const struct nvlx_op *ops, size_t count) {
    const uint64_t local[2] = {(uint64_t)(uintptr_t)bench->local[0], (uint64_t)(uintptr_t)bench->local[1]};
    for (size_t i = 0; i < count; i++) {
        if (!ops[i].length)
            continue;
        uint8_t *here = in_model(bench, local, bench->model_local, (uint64_t)(uintptr_t)ops[i].local);
        uint8_t *there = in_model(bench, bench->remote, bench->model_remote, ops[i].remote);
        memmove(ops[i].opcode == NVLX_OP_READ ? here : there, ops[i].opcode == NVLX_OP_READ ? there : here,
                ops[i].length);
    }
}

static void compare(const uint8_t *bytes, const uint8_t *model, size_t size, const char *whose, int buffer,
                    const char *when) {
    if (!memcmp(bytes, model, size))
        return;
    size_t at = 0, count = 0;
    while (bytes[at] == model[at])
        at++;
    for (size_t i = at; i < size; i++)
        count += bytes[i] != model[i];
    FAIL("%s: %zu bytes of %s buffer %d are wrong, first the one at %zu: 0x%02x, not 0x%02x", when, count, whose,
         buffer, at, bytes[at], model[at]);
}

void bench_compare(struct bench *bench, const char *when) {
    uint8_t *bytes = malloc(bench->size);
    if (!bytes)
        FAIL("no memory to compare");
    for (int i = 0; i < 2; i++) {
        OK(nvlx_memcpy(bench->engine, bytes, bench->local[i], bench->size));
        compare(bytes, bench->model_local[i], bench->size, "local", i, when);
        owner_read(&bench->owner, (uint32_t)i, 0, bytes, bench->size);
        compare(bytes, bench->model_remote[i], bench->size, "remote", i, when);
    }
    free(bytes);
}

void bench_move(struct bench *bench, const struct nvlx_op *ops, size_t count,
                const struct nvlx_transfer_options *options, const char *when) {
    struct nvlx_request *request;
    OK(nvlx_transfer(bench->engine, ops, count, options, &request));
    finish(request);
    bench_apply(bench, ops, count);
    bench_compare(bench, when);
}

struct nvlx_request_info bench_move_by(struct bench *bench, uint32_t mechanism, const struct nvlx_op *ops,
                                       size_t count) {
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    OK(nvlx_transfer(bench->engine, ops, count, &options, &request));
    OK(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_get_info(request, &info));
    OK(nvlx_request_free(request));
    bench_apply(bench, ops, count);
    bench_compare(bench, "moved");
    return info;
}

struct nvlx_blocks *bench_move_blocks(struct bench *bench, int buffer) {
    static const uint32_t here[] = {3, 0, 9}, there[] = {1, 8, 2};
    const struct nvlx_block_region local = {(uintptr_t)bench->local[0], 100000, 0, 90000, 10, 0, 0},
                                   remote = {bench->remote[buffer], 100000, 500, 90000, 10, 0, 0};
    struct nvlx_blocks *blocks = bench_tables(bench, &local, &remote, 1, NVLX_ACCESS_READ_WRITE);
    for (uint32_t mechanism = NVLX_MECHANISM_AUTO; mechanism <= NVLX_MECHANISM_KERNEL; mechanism++) {
        struct nvlx_block_ids ids;
        struct nvlx_transfer_options options;
        struct nvlx_request *request;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        nvlx_block_ids_init(&ids);
        ids.opcode = mechanism % 2 ? NVLX_OP_READ : NVLX_OP_WRITE;
        ids.local = here;
        ids.remote = there;
        ids.count = COUNT(here);
        OK(nvlx_blocks_transfer(blocks, &ids, &options, &request));
        finish(request);
        for (size_t i = 0; i < COUNT(here); i++) {
            const struct nvlx_op op = make_op(ids.opcode, bench->peer, bench->local[0] + here[i] * 100000UL,
                                              bench->remote[buffer] + there[i] * 100000UL + 500, 90000);
            bench_apply(bench, &op, 1);
        }
        bench_compare(bench, "blocks");
    }
    return blocks;
}

void bench_end(struct bench *bench) {
    OK(nvlx_engine_destroy(bench->engine));
    owner_end(&bench->owner);
    for (int i = 0; i < 2; i++) {
        free(bench->model_local[i]);
        free(bench->model_remote[i]);
    }
}
