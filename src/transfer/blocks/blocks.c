/* Blocks by id: created, and transferred. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/blocks/blocks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "transfer/blocks/engines.h"

/* ---- Creation ------------------------------------------------------------------------------------------ */

/* A refusal names an op, which the caller does not know: it becomes a region and a block. */
static int tell_block(int code, const struct nvlxi_block_tables *tables) {
    char words[NVLXI_ERROR_TEXT];
    uint64_t local, remote;
    size_t op;
    int length = 0;
    snprintf(words, sizeof words, "%s", nvlx_last_error());
    if (sscanf(words, "op %zu%n", &op, &length) != 1 || !length)
        return code;
    const struct nvlxi_block_entry *entry = nvlxi_block_tables_of_op(tables, op, &local, &remote);
    return nvlxi_fail(code, "region %zu, local block %" PRIu64 " and remote block %" PRIu64 " or later%s",
                      entry->number, local, remote, words + length);
}

int nvlxi_blocks_create(struct nvlxi_transfers *transfers, struct nvlx_peer *peer,
                        const struct nvlx_block_region *local, const struct nvlx_block_region *remote, size_t count,
                        const struct nvlx_blocks_options *options, struct nvlx_prepared **blocks) {
    struct nvlxi_block_tables *tables;
    struct nvlx_transfer_options listed;
    struct nvlx_op *ops;
    size_t op_count;
    int code = nvlxi_block_tables_make(local, remote, count, &tables);
    if (code)
        return code;
    tables->same_process = peer->same_process;
    tables->access = options->access;
    nvlx_transfer_options_init(&listed);
    listed.flags = options->flags;
    listed.generation = options->generation;
    code = nvlxi_block_tables_ops(tables, peer, options->access, &ops, &op_count);
    if (code)
        goto free_tables;
    code = nvlxi_prepare_tables(transfers, tables, ops, op_count, &listed, blocks);
    if (!code)
        return 0;
    if (op_count)
        code = tell_block(code, tables);
    free(ops);
free_tables:
    nvlxi_block_tables_free(tables);
    return code;
}

/* ---- Ids ------------------------------------------------------------------------------------------------ */

static bool on_gpu(const struct nvlx_block_ids *ids) {
    return ids->flags & NVLX_IDS_ON_GPU;
}

/* Block tables of engines are often filled up with -1. */
static const char *as_signed(uint64_t id, uint32_t width) {
    return id == (width == 4 ? UINT32_MAX : UINT64_MAX) ? " (-1)" : "";
}

static int fail_id(const struct nvlx_block_ids *ids, size_t index, const char *side, uint64_t id, uint64_t blocks) {
    return nvlxi_fail(NVLX_ERANGE,
                      "%s id %zu of group %" PRIu32 " is %" PRIu64 "%s, and there are %" PRIu64
                      " blocks; block_ids.width is %" PRIu32,
                      side, index, ids->group, id, as_signed(id, ids->width), blocks, ids->width);
}

static int check_ids(const struct nvlx_block_ids *ids, const struct nvlxi_block_group *group) {
    for (size_t i = 0; i < ids->count; i++) {
        const uint64_t local = nvlxi_block_id(ids->local, ids, i), remote = nvlxi_block_id(ids->remote, ids, i);
        if (nvlxi_unlikely(local >= group->local_blocks))
            return fail_id(ids, i, "local", local, group->local_blocks);
        if (nvlxi_unlikely(remote >= group->remote_blocks))
            return fail_id(ids, i, "remote", remote, group->remote_blocks);
    }
    return 0;
}

/* ---- By kernels ----------------------------------------------------------------------------------------- */

static int take_chunk(struct nvlxi_transfers *t, uint64_t fragments, struct nvlxi_chunk **chunk) {
    for (bool polled = false;;) {
        int code = nvlxi_list_memory_borrow(&t->pool.lists, true, fragments, chunk);
        if (code == NVLXI_GROW) {
            code = nvlxi_list_memory_grow(&t->pool.lists, NVLXI_BLOCK_BYTES);
        } else if (code == NVLXI_FULL && !polled) {
            nvlxi_transfers_progress(t);
            polled = true;
            code = 0;
        } else {
            return code == NVLXI_FULL ? nvlxi_fail(NVLX_EBUSY, "no list memory is left for ids: wait for transfers in "
                                                               "flight, or raise config.list_memory")
                                      : code;
        }
        if (code)
            return code;
    }
}

/* Puts pairs of ids, from `first` on, where kernels read them; returns whether all are good. Each is read once, and
 * looked at without a branch: blocks are fewer than 2^32, and what is no id of one leaves a bit above. */
static inline __attribute__((always_inline)) bool put_pairs(const struct nvlxi_block_call *call, size_t first,
                                                            struct nvlxi_chunk *chunk, bool wide) {
    const uint32_t *local = call->ids->local, *remote = call->ids->remote;
    const uint64_t *wide_local = call->ids->local, *wide_remote = call->ids->remote;
    const uint64_t local_last = call->group->local_blocks - 1, remote_last = call->group->remote_blocks - 1;
    const size_t end = first + chunk->count;
    struct nvlxi_block_pair *pair = (void *)chunk->fragment;
    uint64_t bits = 0;
    for (size_t i = first; i < end; i++) {
        const uint64_t here = wide ? wide_local[i] : local[i], there = wide ? wide_remote[i] : remote[i];
        bits |= (local_last - here) | (remote_last - there) | (wide ? here | there : 0);
        *pair++ = (struct nvlxi_block_pair){(uint32_t)here, (uint32_t)there};
    }
    return bits <= UINT32_MAX;
}

/* Some is wrong, or was: the caller's other threads may write there, which they must not. */
static int tell_wrong(const struct nvlxi_block_call *call) {
    int code = check_ids(call->ids, call->group);
    return code ? code
                : nvlxi_fail(NVLX_ERANGE, "an id of group %" PRIu32 " was out of range, and was changed meanwhile",
                             call->ids->group);
}

static int put_ids(struct nvlxi_transfers *t, const struct nvlxi_block_call *call, struct nvlxi_list *list) {
    const struct nvlx_block_ids *ids = call->ids;
    bool good = true;
    for (size_t first = 0; first < ids->count && good;) {
        struct nvlxi_chunk *chunk;
        int code = take_chunk(t, nvlxi_ceil_div(ids->count - first, NVLXI_PAIRS_PER_FRAGMENT), &chunk);
        if (code)
            return code;
        chunk->count = (uint32_t)nvlxi_min(ids->count - first, chunk->capacity * NVLXI_PAIRS_PER_FRAGMENT);
        nvlxi_list_append(list, chunk);
        good =
            ids->width == sizeof(uint32_t) ? put_pairs(call, first, chunk, false) : put_pairs(call, first, chunk, true);
        first += chunk->count;
    }
    return good ? 0 : tell_wrong(call);
}

/* Ids that lie on the GPU: the kernel checks them, and tells a fault in a chunk of its own. */
static int put_gpu_ids(struct nvlx_request *request, const struct nvlxi_block_call *call, struct nvlxi_group *group) {
    const struct nvlx_block_ids *ids = call->ids;
    const struct nvlxi_context *context = request->transfers->context;
    const uint64_t local = (uint64_t)(uintptr_t)ids->local, remote = (uint64_t)(uintptr_t)ids->remote;
    struct nvlxi_chunk *chunk;
    int code = context->ops->ids_check(context->device, group->gpu, local, ids->count * ids->width);
    if (!code)
        code = context->ops->ids_check(context->device, group->gpu, remote, ids->count * ids->width);
    if (!code)
        code = take_chunk(request->transfers, 0, &chunk);
    if (code)
        return code;
    chunk->count = 0;
    nvlxi_list_append(&group->lists[NVLXI_BY_KERNEL], chunk);
    struct nvlxi_block_fault *fault = (void *)chunk->fragment;
    *fault = (struct nvlxi_block_fault){0};
    request->blocks.id_count = ids->count;
    request->blocks.ids = (struct nvlxi_block_ids){.local = local,
                                                   .remote = remote,
                                                   .width = ids->width,
                                                   .local_blocks = call->group->local_blocks,
                                                   .remote_blocks = call->group->remote_blocks,
                                                   .fault = fault};
    return 0;
}

int nvlxi_blocks_fail(const struct nvlxi_block_ids *ids, const struct nvlxi_block_fault *fault) {
    const bool remote = fault->where & NVLXI_FAULT_REMOTE;
    return nvlxi_fail(NVLX_ERANGE,
                      "%s id %" PRIu64 ", which was on the GPU, is %" PRIu64 "%s, and there are %" PRIu64
                      " blocks: pairs with such ids were not copied",
                      remote ? "remote" : "local", (fault->where & ~NVLXI_FAULT_REMOTE) - 1, fault->id,
                      as_signed(fault->id, ids->width), remote ? ids->remote_blocks : ids->local_blocks);
}

int nvlxi_blocks_judge(const struct nvlx_request *request) {
    const struct nvlxi_block_ids *ids = &request->blocks.ids;
    return request->blocks.id_count && ids->fault->where ? nvlxi_blocks_fail(ids, ids->fault) : 0;
}

/* `id` is written with `where`, or before it. One that comes when the first is taken is lost. */
bool nvlxi_blocks_take_fault(const struct nvlx_request *request, struct nvlxi_block_fault *fault) {
    struct nvlxi_block_fault *met = request->blocks.ids.fault;
    do {
        fault->where = __atomic_load_n(&met->where, __ATOMIC_ACQUIRE);
        fault->id = __atomic_load_n(&met->id, __ATOMIC_ACQUIRE);
    } while (fault->where != __atomic_load_n(&met->where, __ATOMIC_ACQUIRE));
    if (fault->where)
        __atomic_store_n(&met->where, 0, __ATOMIC_RELAXED);
    return fault->where;
}

static int fail_on_gpu(const struct nvlxi_block_call *call) {
    if (call->mechanism == NVLX_MECHANISM_COPY_ENGINE)
        return nvlxi_fail(NVLX_ENOTSUP, "ids on the GPU are read by kernels alone: NVLX_MECHANISM_COPY_ENGINE copies "
                                        "by ids in host memory");
    return nvlxi_fail(NVLX_ENOTSUP, "ids on the GPU: no kernel can copy these regions, since they are on several GPUs, "
                                    "or one lies in several allocations, or the peer is in this process, or the GPU "
                                    "has no kernels; ids in host memory do");
}

/* The pair of GPUs that all of them go between, if a kernel can copy them. */
static const struct nvlxi_pair *find_pair(const struct nvlxi_block_places *places,
                                          const struct nvlxi_block_call *call) {
    const struct nvlxi_block_place *first = &places->place[call->first];
    const uint32_t way = call->ids->opcode - NVLX_OP_READ;
    const bool can = places->regions && call->mechanism != NVLX_MECHANISM_COPY_ENGINE;
    return can && first->alike[way] >= call->count ? &places->pairs[first->pair[way]] : NULL;
}

static void count_bytes(struct nvlx_request *request, const struct nvlxi_block_call *call, struct nvlxi_group *group) {
    struct nvlxi_plan *plan = &request->plan;
    const struct nvlxi_block_entry *first = &request->prepared->tables->entry[call->first],
                                   *last = first + call->count - 1;
    const uint64_t copies = call->ids->count * call->count, bytes = last->before + last->length - first->before;
    request->blocks.average = bytes / call->count;
    group->bytes = bytes * call->ids->count;
    group->lists[NVLXI_BY_KERNEL].count = copies;
    group->lists[NVLXI_BY_KERNEL].bytes = group->bytes;
    plan->bytes = plan->way_bytes[NVLXI_BY_KERNEL] = group->bytes;
    plan->fragments[NVLXI_BY_KERNEL] = copies;
}

int nvlxi_blocks_plan(struct nvlx_request *request, struct nvlxi_block_call *call) {
    struct nvlxi_block_places *places = &request->form->places;
    struct nvlxi_plan *plan = &request->plan;
    int code;
    call->generation = request->form->known[0].generation;
    const struct nvlxi_pair *pair = find_pair(places, call);
    if (!pair && on_gpu(call->ids))
        return fail_on_gpu(call);
    if (!pair && (code = check_ids(call->ids, call->group)))
        return code;
    if (!pair && call->mechanism != NVLX_MECHANISM_KERNEL && nvlxi_blocks_suit_engines(places, call))
        return nvlxi_blocks_plan_engines(plan, request->prepared->tables, places, call);
    if (!pair)
        return NVLXI_PLAIN;
    nvlxi_plan_reset(plan, NVLX_MECHANISM_KERNEL);
    plan->sealed = true;
    if (!call->ids->count)
        return 0;
    struct nvlxi_group *group = nvlxi_plan_group(plan, pair);
    if (!group)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a group of copies");
    group->blocks = &request->blocks;
    request->blocks.regions = places->regions + call->first;
    request->blocks.region_count = (uint32_t)call->count;
    code = on_gpu(call->ids) ? put_gpu_ids(request, call, group)
                             : put_ids(request->transfers, call, &group->lists[NVLXI_BY_KERNEL]);
    count_bytes(request, call, group);
    return code;
}

/* ---- As a plain list ------------------------------------------------------------------------------------ */

/* Region after region, so that blocks which follow each other on both sides are joined. */
static void fill_ops(const struct nvlx_prepared *blocks, const struct nvlxi_block_call *call, struct nvlx_op *op) {
    const struct nvlx_block_ids *ids = call->ids;
    for (size_t i = call->first; i < call->first + call->count; i++) {
        const struct nvlxi_block_entry *entry = &blocks->tables->entry[i];
        for (size_t j = 0; j < ids->count; j++) {
            const uint64_t local = entry->local + nvlxi_block_id(ids->local, ids, j) * entry->local_stride;
            *op++ =
                (struct nvlx_op){.opcode = ids->opcode,
                                 .peer = blocks->peer,
                                 .local = (void *)(uintptr_t)local,
                                 .remote = entry->remote + nvlxi_block_id(ids->remote, ids, j) * entry->remote_stride,
                                 .length = entry->length};
        }
    }
}

/* What was withdrawn since the tables were found good, a moment ago, is outdated, not wrong. */
static int judge(int code) {
    char words[NVLXI_ERROR_TEXT];
    if (code != NVLX_ERANGE && code != NVLX_EACCES)
        return code;
    snprintf(words, sizeof words, "%s", nvlx_last_error());
    return nvlxi_fail(NVLX_ESTALE, "memory of the blocks was withdrawn: %s", words);
}

static int transfer_plainly(struct nvlx_prepared *blocks, const struct nvlxi_block_call *call,
                            const struct nvlx_transfer_options *options, const struct nvlxi_asked *asked,
                            struct nvlx_request **request) {
    struct nvlx_transfer_options plain = *options;
    const size_t count = call->ids->count * call->count;
    struct nvlx_op *ops = calloc(nvlxi_max(count, 1), sizeof *ops);
    if (!ops)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %zu blocks in %zu regions", call->ids->count,
                          call->count);
    fill_ops(blocks, call, ops);
    plain.generation = call->generation;
    int code = nvlxi_transfer_submit(blocks->transfers, ops, count, &plain, asked, request);
    free(ops);
    return judge(code);
}

/* ---- Both ------------------------------------------------------------------------------------------------ */

static int find_regions(const struct nvlx_prepared *blocks, struct nvlxi_block_call *call) {
    const struct nvlx_block_ids *ids = call->ids;
    const struct nvlxi_block_group *group = nvlxi_block_tables_group(blocks->tables, ids->group);
    if (!group)
        return nvlxi_fail(NVLX_EINVAL, "no region of the tables is of group %" PRIu32, ids->group);
    if (ids->first_region >= group->count || ids->regions > group->count - ids->first_region)
        return nvlxi_fail(NVLX_EINVAL, "regions %" PRIu32 " + %" PRIu32 " of group %" PRIu32 ", which has %zu",
                          ids->first_region, ids->regions, ids->group, group->count);
    call->group = group;
    call->first = group->first + ids->first_region;
    call->count = ids->regions ? ids->regions : group->count - ids->first_region;
    return 0;
}

int nvlxi_blocks_transfer(struct nvlx_prepared *blocks, const struct nvlx_block_ids *ids,
                          const struct nvlx_transfer_options *options, const struct nvlxi_asked *asked,
                          struct nvlx_request **request) {
    const struct nvlxi_transfers *t = blocks->transfers;
    struct nvlxi_block_call call = {.ids = ids,
                                    .mechanism = options->mechanism ? options->mechanism : t->mechanism,
                                    .max_sms = options->max_sms ? options->max_sms : t->max_sms,
                                    .priority = options->priority};
    const struct nvlxi_posting posting = {.stream = options->stream, .blocks = &call};
    int code = find_regions(blocks, &call);
    if (!code && !(blocks->tables->access & ids->opcode))
        code = nvlxi_fail(NVLX_EACCES, "the tables were made for %s alone: nvlx_blocks_options.access",
                          ids->opcode == NVLX_OP_READ ? "writing" : "reading");
    if (code)
        return code;
    code = nvlxi_post(blocks, &posting, asked, request);
    return code == NVLXI_PLAIN ? transfer_plainly(blocks, &call, options, asked, request) : code;
}
