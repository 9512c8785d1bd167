/* What a list needs while it is in flight: pinned, and asked about. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/needs.h"

#include <stdlib.h>

#include "transfer/op.h"

void nvlxi_needs_free(struct nvlxi_needs *needs) {
    free(needs->uses);
    free(needs->mappings);
    free(needs->peers);
    free(needs->remote_uses);
    *needs = (struct nvlxi_needs){0};
}

void nvlxi_needs_pin(const struct nvlxi_needs *needs) {
    for (size_t i = 0; i < needs->mapping_count; i++)
        atomic_fetch_add(&needs->mappings[i]->pins, 1);
    for (size_t i = 0; i < needs->peer_count; i++)
        atomic_fetch_add(&needs->peers[i]->pins, 1);
}

void nvlxi_needs_unpin(const struct nvlxi_needs *needs) {
    for (size_t i = 0; i < needs->mapping_count; i++)
        atomic_fetch_sub(&needs->mappings[i]->pins, 1);
    for (size_t i = 0; i < needs->peer_count; i++)
        atomic_fetch_sub(&needs->peers[i]->pins, 1);
}

/* ---- Whether local bytes are used -------------------------------------------------------------------- */

static bool overlap(uint64_t address, uint64_t length, uint64_t start, uint64_t end) {
    return address < end && start < address + length;
}

/* Of this process. */
static bool signal_touches(const struct nvlx_op *op, uint64_t address, uint64_t length) {
    const uint64_t count = op->peer ? op->remote : (uint64_t)(uintptr_t)op->local;
    return (!op->peer || op->peer->same_process) && overlap(address, length, count, count + NVLXI_COUNT_BYTES);
}

static bool ops_touch(const struct nvlxi_needs *needs, uint64_t address, uint64_t length) {
    for (size_t i = 0; i < needs->op_count; i++) {
        const struct nvlx_op *op = &needs->ops[i];
        if (op->opcode >= NVLX_OP_SIGNAL && signal_touches(op, address, length))
            return true;
        if (!nvlxi_op_moves(op))
            continue;
        const struct nvlxi_side local = nvlxi_op_local(op), remote = nvlxi_op_remote(op);
        if (nvlxi_side_touches(&local, address, length) ||
            (op->peer->same_process && nvlxi_side_touches(&remote, address, length)))
            return true;
    }
    return false;
}

/* What is mapped of another process is nowhere in this one's own memory: so both sides may be looked at. */
static bool chunk_touches(const struct nvlxi_chunk *chunk, uint64_t address, uint64_t length) {
    for (uint32_t i = 0; i < chunk->count; i++) {
        const struct nvlxi_fragment *fragment = &chunk->fragment[i];
        if (overlap(address, length, fragment->destination, fragment->destination + fragment->length) ||
            overlap(address, length, fragment->source, fragment->source + fragment->length))
            return true;
    }
    return false;
}

static bool rows_touch(const struct nvlxi_chunk *chunk, uint64_t address, uint64_t length) {
    const struct nvlxi_rows *rows = (const void *)chunk->fragment;
    for (uint32_t i = 0; i < chunk->count / 2; i++) {
        const struct nvlxi_side to = nvlxi_destination_of(&rows[i]), from = nvlxi_source_of(&rows[i]);
        if (nvlxi_side_touches(&to, address, length) || nvlxi_side_touches(&from, address, length))
            return true;
    }
    return false;
}

static bool signals_touch(const struct nvlxi_plan *plan, uint64_t address, uint64_t length) {
    for (size_t i = 0; i < plan->signal_count; i++) {
        const uint64_t count = plan->signals[i].signal.address;
        if (overlap(address, length, count, count + NVLXI_COUNT_BYTES))
            return true;
    }
    return false;
}

static bool plan_touches(const struct nvlxi_plan *plan, uint64_t address, uint64_t length) {
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        for (int way = 0; way < NVLXI_WAYS; way++)
            for (const struct nvlxi_chunk *chunk = group->lists[way].first; chunk; chunk = chunk->next)
                if (way < NVLXI_ROWS_BY_KERNEL ? chunk_touches(chunk, address, length)
                                               : rows_touch(chunk, address, length))
                    return true;
    return signals_touch(plan, address, length);
}

bool nvlxi_needs_name(const struct nvlxi_needs *needs, const struct nvlx_peer *peer, size_t *number) {
    for (*number = 0; *number < needs->peer_count; ++*number)
        if (needs->peers[*number] == peer)
            return true;
    return false;
}

bool nvlxi_needs_overlap(const struct nvlxi_needs *needs, const struct nvlxi_plan *plan, uint64_t address,
                         uint64_t length) {
    bool maybe = false;
    for (size_t i = 0; i < needs->use_count; i++) {
        const struct nvlxi_use *use = &needs->uses[i];
        if (!overlap(address, length, use->start, use->end))
            continue;
        if (address <= use->start && use->end - address <= length)
            return true;
        maybe = true;
    }
    if (!maybe)
        return false;
    if (needs->tables)
        return nvlxi_block_tables_touch(needs->tables, address, length);
    return needs->ops ? ops_touch(needs, address, length) : plan_touches(plan, address, length);
}

bool nvlxi_needs_near(const struct nvlxi_needs *needs, uint64_t address, uint64_t length) {
    for (size_t i = 0; i < needs->use_count; i++)
        if (overlap(address, length, needs->uses[i].start, needs->uses[i].end))
            return true;
    return false;
}
