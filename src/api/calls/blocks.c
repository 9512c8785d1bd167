/* The exported functions of blocks by id. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/blocks/blocks.h"

#include <inttypes.h>

#include "api/abi.h"
#include "api/engine.h"
#include "api/messages.h"

/* Handles of blocks are those of the prepared lists that they are. */
static struct nvlx_prepared *prepared_of(struct nvlx_blocks *blocks) {
    return (struct nvlx_prepared *)blocks;
}

static int create(struct nvlx_engine *engine, struct nvlx_peer *peer, const struct nvlx_block_region *local,
                  const struct nvlx_block_region *remote, size_t count, const struct nvlx_blocks_options *options,
                  struct nvlx_blocks **blocks) {
    struct nvlx_blocks_options known;
    struct nvlx_prepared *made;
    nvlx_blocks_options_init(&known);
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(peer, "peer")) || (code = nvlxi_pointer_check(blocks, "blocks")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_blocks_options")))
        return code;
    if ((code = nvlxi_pointer_check(local, "local")) || (code = nvlxi_pointer_check(remote, "remote")))
        return code;
    if (peer->engine != engine)
        return nvlxi_fail(NVLX_EINVAL, "the peer is not of this engine");
    if (!count || count > NVLXI_BLOCK_TABLE_MAX)
        return nvlxi_fail(NVLX_EINVAL, "%zu regions: tables of blocks have 1 to %d", count, NVLXI_BLOCK_TABLE_MAX);
    if (known.flags & ~(uint32_t)NVLX_NO_MAP)
        return nvlxi_fail(NVLX_EINVAL, "flags 0x%" PRIx32 " are none of nvlx_blocks_create", known.flags);
    if (!known.access || known.access > NVLX_ACCESS_READ_WRITE)
        return nvlxi_fail(NVLX_EINVAL, "access %" PRIu32 " is neither reading nor writing", known.access);
    code = nvlxi_blocks_create(&engine->transfers, peer, local, remote, count, &known, &made);
    if (!code)
        *blocks = (struct nvlx_blocks *)made;
    return code;
}

int nvlx_blocks_create(struct nvlx_engine *engine, struct nvlx_peer *peer, const struct nvlx_block_region *local,
                       const struct nvlx_block_region *remote, size_t count, const struct nvlx_blocks_options *options,
                       struct nvlx_blocks **blocks) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call,
                             nvlxi_engine_note(engine, create(engine, peer, local, remote, count, options, blocks)));
}

static int check_blocks(const struct nvlx_prepared *blocks) {
    int code = nvlxi_pointer_check(blocks, "blocks");
    return code ? code : nvlxi_engine_check(blocks->engine);
}

static int take_ids(const struct nvlx_block_ids *given, struct nvlx_block_ids *known) {
    nvlx_block_ids_init(known);
    int code = nvlxi_pointer_check(given, "ids");
    if (code || (code = nvlxi_struct_take(known, sizeof *known, given, "nvlx_block_ids")))
        return code;
    if (known->opcode != NVLX_OP_READ && known->opcode != NVLX_OP_WRITE)
        return nvlxi_fail(NVLX_EINVAL, "opcode %" PRIu32 " is neither NVLX_OP_READ nor NVLX_OP_WRITE", known->opcode);
    if (known->width != sizeof(uint32_t) && known->width != sizeof(uint64_t))
        return nvlxi_fail(NVLX_EINVAL, "ids of %" PRIu32 " bytes: they have 4 or 8", known->width);
    if (known->flags & ~(uint32_t)NVLX_IDS_ON_GPU)
        return nvlxi_fail(NVLX_EINVAL, "flags 0x%" PRIx32 " of ids are not known", known->flags);
    if (((uint64_t)(uintptr_t)known->local | (uint64_t)(uintptr_t)known->remote) % known->width)
        return nvlxi_fail(NVLX_EINVAL, "ids at %p and %p are not aligned to their %" PRIu32 " bytes", known->local,
                          known->remote, known->width);
    if (known->count > UINT32_MAX)
        return nvlxi_fail(NVLX_EINVAL, "%zu ids in one call: split them", known->count);
    if (!known->count)
        return 0;
    code = nvlxi_pointer_check(known->local, "ids.local");
    return code ? code : nvlxi_pointer_check(known->remote, "ids.remote");
}

static int take_options(const struct nvlx_transfer_options *options, struct nvlx_transfer_options *known) {
    nvlx_transfer_options_init(known);
    int code = nvlxi_struct_take(known, sizeof *known, options, "nvlx_transfer_options");
    if (code)
        return code;
    if (known->flags & NVLX_VERIFY)
        return nvlxi_fail(NVLX_ENOTSUP, "NVLX_VERIFY: peers tell digests of whole regions, not of blocks: "
                                        "nvlx_transfer of whole regions is verified");
    if (known->flags & ~(uint32_t)NVLX_DONE_EVENT || known->generation)
        return nvlxi_fail(NVLX_EINVAL,
                          "flags 0x%" PRIx32 " and generation %" PRIu64
                          ": of flags only NVLX_DONE_EVENT is for transfers of blocks; the generation is an "
                          "option of nvlx_blocks_create",
                          known->flags, known->generation);
    if (known->message_length && !known->message)
        return nvlxi_fail(NVLX_EINVAL, "message is NULL and message_length is %zu", known->message_length);
    return nvlxi_mechanism_check(known->mechanism);
}

static int transfer(struct nvlx_prepared *blocks, const struct nvlx_block_ids *ids,
                    const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    struct nvlx_transfer_options known;
    struct nvlx_block_ids known_ids;
    struct nvlx_request *made;
    struct nvlxi_asked asked;
    int code = check_blocks(blocks);
    if (code || (code = take_ids(ids, &known_ids)) || (code = take_options(options, &known)) ||
        (code = nvlxi_request_check(request, &known)))
        return code;
    if ((code = nvlxi_asked_make(&known, blocks->peer, request, &asked)))
        return code;
    if ((code = nvlxi_blocks_transfer(blocks, &known_ids, &known, &asked, &made)))
        nvlxi_asked_undo(&asked);
    else if (request)
        *request = made;
    return code;
}

int nvlx_blocks_transfer(struct nvlx_blocks *blocks, const struct nvlx_block_ids *ids,
                         const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    struct nvlx_prepared *prepared = prepared_of(blocks);
    struct nvlx_engine *engine = prepared ? prepared->engine : NULL;
    return nvlxi_attempt_end(&call, nvlxi_engine_note(engine, transfer(prepared, ids, options, request)));
}

static int free_blocks(struct nvlx_prepared *blocks) {
    if (!blocks)
        return 0;
    int code = check_blocks(blocks);
    if (!code)
        nvlxi_prepared_free(blocks);
    return code;
}

int nvlx_blocks_free(struct nvlx_blocks *blocks) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, free_blocks(prepared_of(blocks)));
}
