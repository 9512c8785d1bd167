/* Tables of blocks by id. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/blocks/tables.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/error.h"

/* ---- The caller's tables ------------------------------------------------------------------------------- */

static int check_region(const struct nvlx_block_region *region, size_t number, const char *side) {
    uint64_t end, span;
    if (region->flags)
        return nvlxi_fail(NVLX_EINVAL, "%s region %zu: flags must be 0", side, number);
    if (!region->blocks || region->blocks > UINT32_MAX || !region->length)
        return nvlxi_fail(NVLX_EINVAL,
                          "%s region %zu has %" PRIu64 " blocks of %" PRIu64
                          " bytes: a region has 1 to 2^32 - 1 blocks, and moves at least a byte of each",
                          side, number, region->blocks, region->length);
    if (!nvlxi_add(region->offset, region->length, &end) || end > region->stride)
        return nvlxi_fail(NVLX_EINVAL,
                          "%s region %zu: %" PRIu64 " bytes from offset %" PRIu64
                          " on leave the block, which is %" PRIu64 " bytes before the next one",
                          side, number, region->length, region->offset, region->stride);
    if (__builtin_mul_overflow(region->stride, region->blocks, &span) || !nvlxi_add(region->base, span, &end))
        return nvlxi_fail(NVLX_EINVAL, "%s region %zu: %" PRIu64 " blocks from 0x%" PRIx64 " on wrap around", side,
                          number, region->blocks, region->base);
    return 0;
}

static int check_regions(const struct nvlx_block_region *local, const struct nvlx_block_region *remote, size_t number) {
    int code = check_region(local, number, "local");
    if (!code)
        code = check_region(remote, number, "remote");
    if (code)
        return code;
    if (local->length != remote->length)
        return nvlxi_fail(NVLX_EINVAL,
                          "region %zu: the local side has %" PRIu64 " bytes of a block, the remote side %" PRIu64,
                          number, local->length, remote->length);
    if (local->group != remote->group)
        return nvlxi_fail(NVLX_EINVAL,
                          "region %zu: the local side is of group %" PRIu32 ", the remote side of group %" PRIu32,
                          number, local->group, remote->group);
    return 0;
}

static struct nvlxi_block_entry entry_of(const struct nvlx_block_region *local, const struct nvlx_block_region *remote,
                                         size_t number) {
    return (struct nvlxi_block_entry){.local = local->base + local->offset,
                                      .remote = remote->base + remote->offset,
                                      .local_stride = local->stride,
                                      .remote_stride = remote->stride,
                                      .length = local->length,
                                      .local_blocks = local->blocks,
                                      .remote_blocks = remote->blocks,
                                      .group = local->group,
                                      .number = number};
}

static int by_group(const void *a, const void *b) {
    const struct nvlxi_block_entry *one = a, *other = b;
    if (one->group != other->group)
        return one->group < other->group ? -1 : 1;
    return one->number < other->number ? -1 : one->number > other->number;
}

/* Ids are of a group: so all its regions have as many blocks. */
static int add_to_group(struct nvlxi_block_tables *tables, size_t index) {
    const struct nvlxi_block_entry *entry = &tables->entry[index];
    struct nvlxi_block_group *last = tables->group_count ? &tables->group[tables->group_count - 1] : NULL;
    if (!last || last->id != entry->group) {
        tables->group[tables->group_count++] =
            (struct nvlxi_block_group){entry->group, index, 1, entry->local_blocks, entry->remote_blocks};
        return 0;
    }
    if (last->local_blocks != entry->local_blocks || last->remote_blocks != entry->remote_blocks)
        return nvlxi_fail(NVLX_EINVAL,
                          "region %zu has %" PRIu64 " blocks here and %" PRIu64
                          " there, region %zu of the same group %" PRIu64 " and %" PRIu64
                          ": all regions of a group have as many",
                          entry->number, entry->local_blocks, entry->remote_blocks, tables->entry[last->first].number,
                          last->local_blocks, last->remote_blocks);
    last->count++;
    return 0;
}

static int fill(struct nvlxi_block_tables *tables, const struct nvlx_block_region *local,
                const struct nvlx_block_region *remote) {
    int code = 0;
    for (size_t i = 0; i < tables->count && !code; i++) {
        code = check_regions(&local[i], &remote[i], i);
        tables->entry[i] = entry_of(&local[i], &remote[i], i);
    }
    if (code)
        return code;
    qsort(tables->entry, tables->count, sizeof *tables->entry, by_group);
    for (size_t i = 0; i < tables->count && !code; i++) {
        tables->entry[i].before = i ? tables->entry[i - 1].before + tables->entry[i - 1].length : 0;
        code = add_to_group(tables, i);
    }
    return code;
}

int nvlxi_block_tables_make(const struct nvlx_block_region *local, const struct nvlx_block_region *remote, size_t count,
                            struct nvlxi_block_tables **tables) {
    struct nvlxi_block_tables *made = calloc(1, sizeof *made);
    if (made) {
        atomic_init(&made->users, 1);
        made->count = count;
        made->entry = calloc(nvlxi_max(count, 1), sizeof *made->entry);
        made->group = calloc(nvlxi_max(count, 1), sizeof *made->group);
    }
    if (!made || !made->entry || !made->group) {
        nvlxi_block_tables_free(made);
        return nvlxi_fail(NVLX_ENOMEM, "no memory for tables of %zu regions", count);
    }
    int code = fill(made, local, remote);
    if (code)
        nvlxi_block_tables_free(made);
    else
        *tables = made;
    return code;
}

struct nvlxi_block_tables *nvlxi_block_tables_share(struct nvlxi_block_tables *tables) {
    if (tables)
        atomic_fetch_add(&tables->users, 1);
    return tables;
}

void nvlxi_block_tables_free(struct nvlxi_block_tables *tables) {
    if (!tables || atomic_fetch_sub(&tables->users, 1) > 1)
        return;
    free(tables->entry);
    free(tables->group);
    free(tables);
}

const struct nvlxi_block_group *nvlxi_block_tables_group(const struct nvlxi_block_tables *tables, uint32_t id) {
    for (size_t i = 0; i < tables->group_count; i++)
        if (tables->group[i].id == id)
            return &tables->group[i];
    return NULL;
}

/* ---- As ops --------------------------------------------------------------------------------------------- */

/* Blocks without gaps are one op, as far as both sides go on. The shorter side is gone through again. */
static uint64_t blocks_of_op(const struct nvlxi_block_entry *entry, uint64_t done) {
    const uint64_t local = entry->local_blocks - done % entry->local_blocks,
                   remote = entry->remote_blocks - done % entry->remote_blocks;
    const bool dense = entry->local_stride == entry->length && entry->remote_stride == entry->length;
    return dense ? nvlxi_min(local, remote) : 1;
}

static uint64_t blocks_of_entry(const struct nvlxi_block_entry *entry) {
    return nvlxi_max(entry->local_blocks, entry->remote_blocks);
}

size_t nvlxi_block_entry_ops(const struct nvlxi_block_entry *entry) {
    size_t ops = 0;
    uint64_t done = 0;
    do { /* no entry is without a block */
        done += blocks_of_op(entry, done);
        ops++;
    } while (done < blocks_of_entry(entry));
    return ops;
}

static struct nvlx_op *put_ops(const struct nvlxi_block_entry *entry, struct nvlx_peer *peer, uint32_t opcode,
                               struct nvlx_op *to) {
    for (uint64_t done = 0; done < blocks_of_entry(entry); done += blocks_of_op(entry, done)) {
        const uint64_t local = entry->local + done % entry->local_blocks * entry->local_stride;
        *to++ = (struct nvlx_op){.opcode = opcode,
                                 .peer = peer,
                                 .local = (void *)(uintptr_t)local,
                                 .remote = entry->remote + done % entry->remote_blocks * entry->remote_stride,
                                 .length = blocks_of_op(entry, done) * entry->length};
    }
    return to;
}

int nvlxi_block_tables_ops(const struct nvlxi_block_tables *tables, struct nvlx_peer *peer, uint32_t access,
                           struct nvlx_op **ops, size_t *count) {
    size_t needed = 0;
    for (size_t i = 0; i < tables->count; i++)
        needed += nvlxi_block_entry_ops(&tables->entry[i]);
    *count = access == NVLX_ACCESS_READ_WRITE ? 2 * needed : needed;
    struct nvlx_op *made = calloc(nvlxi_max(*count, 1), sizeof *made), *to = made;
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to check %zu blocks", needed);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++)
        for (size_t i = 0; i < tables->count && (access & opcode); i++)
            to = put_ops(&tables->entry[i], peer, opcode, to);
    *ops = made;
    return 0;
}

const struct nvlxi_block_entry *nvlxi_block_tables_of_op(const struct nvlxi_block_tables *tables, size_t op,
                                                         uint64_t *local, uint64_t *remote) {
    for (size_t i = 0;; i = (i + 1) % tables->count) {
        const struct nvlxi_block_entry *entry = &tables->entry[i];
        const size_t ops = nvlxi_block_entry_ops(entry);
        uint64_t done = 0;
        if (op >= ops) {
            op -= ops;
            continue;
        }
        for (; op; op--)
            done += blocks_of_op(entry, done);
        *local = done % entry->local_blocks;
        *remote = done % entry->remote_blocks;
        return entry;
    }
}

/* ---- What they touch -------------------------------------------------------------------------------------- */

static bool side_touches(uint64_t start, uint64_t stride, uint64_t blocks, uint64_t size, uint64_t address,
                         uint64_t length) {
    const uint64_t last = start + (blocks - 1) * stride;
    if (address + length <= start || address >= last + size)
        return false;
    if (address <= start)
        return true;
    const uint64_t into = (address - start) % stride;
    return into < size || length > stride - into;
}

bool nvlxi_block_tables_touch(const struct nvlxi_block_tables *tables, uint64_t address, uint64_t length) {
    for (size_t i = 0; i < tables->count && length; i++) {
        const struct nvlxi_block_entry *e = &tables->entry[i];
        if (side_touches(e->local, e->local_stride, e->local_blocks, e->length, address, length))
            return true;
        if (tables->same_process &&
            side_touches(e->remote, e->remote_stride, e->remote_blocks, e->length, address, length))
            return true;
    }
    return false;
}
