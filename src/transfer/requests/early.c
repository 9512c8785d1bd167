/* Reads that begin while what they read is still being mapped: see early.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/requests/early.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"

/* ---- Which ops ------------------------------------------------------------------------------------------- */

#define EARLY_OPS (64u << 10) /* that are looked at: a longer list has short ones */

/* What orders other ops, or is not copied as it stands, stays together. */
static bool is_plain(const struct nvlx_op *ops, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (ops[i].opcode > NVLX_OP_WRITE || ops[i].flags)
            return false;
    return true;
}

static bool is_long_read(const struct nvlx_op *op) {
    return op->opcode == NVLX_OP_READ && op->length >= NVLXI_ENGINE_MIN && !op->peer->same_process;
}

/* False: there is nothing to do early, or no memory for it. */
static bool look_at_list(struct nvlxi_early *early) {
    const size_t count = early->count;
    if (count > EARLY_OPS || !is_plain(early->given, count))
        return false;
    struct nvlx_op *ops = malloc(count * sizeof *ops);
    early->some = malloc(count * sizeof *early->some);
    early->which = calloc(2 * count, sizeof *early->which);
    if (!ops || !early->some || !early->which) {
        free(ops);
        return false;
    }
    memcpy(ops, early->given, count * sizeof *ops);
    early->ops = ops;
    early->left = early->which + count;
    for (size_t i = 0; i < count; i++)
        if (is_long_read(&ops[i]))
            early->left[early->left_count++] = i;
    return early->left_count > 0;
}

struct readable { /* of a mapping */
    const struct nvlx_peer *peer;
    uint64_t base, length; /* as the peer calls it */
    int gpu;               /* that it is mapped on */
};

static bool is_within(const struct nvlx_op *op, const struct readable *readable) {
    const uint64_t from = op->remote - readable->base;
    return op->peer == readable->peer && from <= readable->length && op->length <= readable->length - from;
}

/* Another GPU has a mapping of its own. With the tables held for reading. */
static bool is_copied_by(const struct nvlxi_intervals *own, const struct nvlx_op *op, int gpu) {
    const uint64_t address = (uintptr_t)op->local;
    const uint32_t piece = nvlxi_intervals_find(own, address);
    return piece && own->piece[piece].start <= address && nvlxi_place_device(own->piece[piece].place) == gpu;
}

/* Those that can be read: how many. One of the peer's stays. */
static size_t choose(struct nvlxi_early *early, const struct readable *readable) {
    const struct nvlxi_transfers *t = early->whole->transfers;
    size_t chosen = 0, others = 0;
    nvlxi_tables_read(t->context->tables);
    for (size_t i = 0; i < early->left_count; i++) {
        const struct nvlx_op *op = &early->ops[early->left[i]];
        if (is_within(op, readable) && is_copied_by(&t->registration->ranges, op, readable->gpu))
            early->which[chosen++] = early->left[i];
        else
            others += op->peer == readable->peer;
    }
    nvlxi_tables_read_end(t->context->tables);
    chosen -= chosen && !others;
    for (size_t i = 0; i < chosen; i++)
        early->some[i] = early->ops[early->which[i]];
    return chosen;
}

/* A part has them now. */
static void take_out(struct nvlxi_early *early, size_t chosen) {
    size_t kept = 0;
    for (size_t i = 0; i < chosen; i++)
        early->ops[early->which[i]].length = 0;
    for (size_t i = 0; i < early->left_count; i++)
        if (early->ops[early->left[i]].length)
            early->left[kept++] = early->left[i];
    early->left_count = kept;
}

/* ---- Parts ----------------------------------------------------------------------------------------------- */

static uint64_t generation_of(const struct nvlx_peer *peer) {
    return peer->table->descriptor->identity.generation;
}

static void begin_part(struct nvlxi_early *early, struct nvlx_peer *peer, struct nvlxi_mapping *mapping,
                       size_t chosen) {
    struct nvlx_request *part;
    nvlxi_tables_read(peer->remote->context->tables);
    const uint64_t generation = generation_of(peer);
    nvlxi_tables_read_end(peer->remote->context->tables);
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    const int code = nvlxi_transfer_submit_part(early, chosen, peer, mapping, &part);
    nvlxi_attempt_end(&attempt, 0);
    early->over = code != 0; /* the list as a whole will say what it is */
    if (code)
        return;
    part->generation = generation;
    take_out(early, chosen);
    LL_PREPEND2(early->whole->parts, part, next_part);
}

/* What it knows is where bytes are mapped: of this mapping alone. */
static void forget_mapping(struct nvlxi_early *early) {
    if (early->validation)
        nvlxi_validation_free(early->validation);
    early->validation = NULL;
    early->mapping = NULL;
    early->seen = 0;
}

static void grown(void *context, struct nvlx_peer *peer, struct nvlxi_mapping *mapping, uint64_t length) {
    struct nvlxi_early *early = context;
    const struct readable readable = {peer, mapping->key.base, length, (int)mapping->key.gpu};
    if (early->mapping != mapping || length < early->seen)
        forget_mapping(early);
    early->mapping = mapping;
    if (early->over || length - early->seen < early->whole->transfers->early_bytes)
        return;
    early->seen = length;
    if (!early->ops && !look_at_list(early)) {
        early->over = true;
        return;
    }
    const size_t chosen = choose(early, &readable);
    if (chosen)
        begin_part(early, peer, mapping, chosen);
}

/* What they read is about to go. DONE, they pin nothing. */
static void failed(void *context) {
    struct nvlxi_early *early = context;
    nvlxi_parts_await(early->whole);
    forget_mapping(early);
}

void nvlxi_early_begin(struct nvlxi_early *early, struct nvlx_request *whole, const struct nvlx_op *ops, size_t count,
                       int32_t priority, bool can) {
    *early = (struct nvlxi_early){.whole = whole,
                                  .given = ops,
                                  .count = count,
                                  .priority = priority,
                                  .over = !can,
                                  .watch = {grown, failed, early}};
}

bool nvlxi_early_outdated(const struct nvlxi_early *early) {
    const struct nvlx_request *part;
    LL_FOREACH2(early->whole->parts, part, next_part) {
        if (part->generation != generation_of(part->needs.peers[0]))
            return true;
    }
    return false;
}

void nvlxi_early_undo(struct nvlxi_early *early) {
    nvlxi_parts_drop(early->whole);
    free(early->ops);
    early->ops = NULL;
    early->over = true;
}

const struct nvlx_op *nvlxi_early_ops(const struct nvlxi_early *early) {
    return early->ops ? early->ops : early->given;
}

void nvlxi_early_end(struct nvlxi_early *early) {
    forget_mapping(early);
    free(early->ops);
    free(early->some);
    free(early->which);
}

void nvlxi_parts_describe(struct nvlx_request *whole) {
    struct nvlx_request_info *info = &whole->info;
    const struct nvlx_request *part;
    LL_FOREACH2(whole->parts, part, next_part) {
        info->bytes += part->info.bytes;
        info->engine_bytes += part->info.engine_bytes;
        info->engine_fragments += part->info.engine_fragments;
        info->kernel_bytes += part->info.kernel_bytes;
        info->kernel_fragments += part->info.kernel_fragments;
    }
}

void nvlxi_parts_tally(const struct nvlx_request *whole) {
    const struct nvlx_request *part;
    LL_FOREACH2(whole->parts, part, next_part) {
        nvlxi_tally_part(&part->kept);
    }
}

bool nvlxi_parts_done(struct nvlx_request *whole) {
    const struct nvlx_request *part;
    LL_FOREACH2(whole->parts, part, next_part) {
        const int status = atomic_load_explicit(&part->status, memory_order_acquire);
        if (status == NVLX_EAGAIN)
            return false;
        if (status && !whole->outcome) {
            whole->outcome = status;
            memcpy(whole->error, part->error, sizeof whole->error);
        }
    }
    return true;
}

void nvlxi_parts_poll(const struct nvlx_request *whole) {
    struct nvlx_request *part;
    LL_FOREACH2(whole->parts, part, next_part) {
        nvlxi_request_look(part);
    }
}

void nvlxi_parts_await(const struct nvlx_request *whole) {
    struct nvlx_request *part;
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    LL_FOREACH2(whole->parts, part, next_part) {
        nvlxi_request_wait(part, -1);
    }
    nvlxi_attempt_end(&attempt, 0);
}

void nvlxi_parts_drop(struct nvlx_request *whole) {
    struct nvlx_request *part, *next;
    if (nvlxi_likely(!whole->parts))
        return;
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    LL_FOREACH_SAFE2(whole->parts, part, next, next_part) {
        nvlxi_request_free(part);
    }
    nvlxi_attempt_end(&attempt, 0);
    whole->parts = NULL;
}
