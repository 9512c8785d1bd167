/* Plans which regions a list reads as a whole, and compares their digests. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/verify.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/error.h"

struct nvlxi_verification *nvlxi_verification_new(void) {
    struct nvlxi_verification *made = calloc(1, sizeof *made);
    if (!made)
        nvlxi_fail(NVLX_ENOMEM, "no memory to verify a transfer");
    return made;
}

/* Forgets what was planned. */
static void forget(struct nvlxi_verification *verification) {
    while (verification->index_count)
        nvlxi_digested_drop(verification->indexes[--verification->index_count]);
    verification->check_count = verification->span_count = verification->checked = 0;
}

void nvlxi_verification_clear(struct nvlxi_verification *verification) {
    nvlxi_verification_end(verification);
    forget(verification);
}

void nvlxi_verification_free(struct nvlxi_verification *verification) {
    nvlxi_verification_clear(verification);
    nvlxi_marks_free(&verification->marks);
    free(verification->indexes);
    free(verification->checks);
    free(verification->spans);
    free(verification->parts);
    free(verification);
}

/* ---- Checks and spans --------------------------------------------------------------------------------- */

/* Makes room for one more element. */
static int grow(void *array, size_t *capacity, size_t count, size_t size) {
    void **memory = array;
    if (count < *capacity)
        return 0;
    const size_t wanted = *capacity ? 2 * *capacity : 8;
    void *grown = realloc(*memory, wanted * size);
    if (!grown)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to verify %zu regions", count);
    *memory = grown;
    *capacity = wanted;
    return 0;
}

static int add_check(struct nvlxi_verification *v, const struct nvlxi_digested *region, size_t op) {
    int code = grow(&v->checks, &v->check_capacity, v->check_count, sizeof *v->checks);
    if (!code)
        v->checks[v->check_count++] = (struct nvlxi_check){region, op};
    return code;
}

/* Some bytes of a region, from its byte `offset` on, which op `op` puts into memory of one GPU. */
struct landing {
    uint64_t offset, address, length;
    int gpu;
    size_t op;
};

/* A leaf is in one place. */
static int fail_cut(const struct nvlxi_check *check, const struct landing *landing, const struct nvlxi_span *before) {
    const bool goes_on = before->address + before->length == landing->address;
    return nvlxi_fail(goes_on ? NVLX_ENOTSUP : NVLX_EINVAL,
                      "op %zu: byte %" PRIu64 " of the peer's region \"%s\" at 0x%" PRIx64
                      " goes %s than the byte before it: that can be verified at multiples of %u bytes only",
                      landing->op, landing->offset, check->region->name, check->region->address,
                      goes_on ? "to another GPU" : "elsewhere in local memory", NVLXI_LEAF_BYTES);
}

static int add_span(struct nvlxi_verification *v, const struct landing *landing) {
    if (landing->offset) {
        struct nvlxi_span *before = &v->spans[v->span_count - 1];
        if (before->gpu == landing->gpu && before->address + before->length == landing->address) {
            before->length += landing->length;
            return 0;
        }
        if (landing->offset % NVLXI_LEAF_BYTES)
            return fail_cut(&v->checks[v->check_count - 1], landing, before);
    }
    int code = grow(&v->spans, &v->span_capacity, v->span_count, sizeof *v->spans);
    if (!code)
        v->spans[v->span_count++] =
            (struct nvlxi_span){.address = landing->address, .length = landing->length, .gpu = landing->gpu};
    return code;
}

/* Adds what an op brings of the newest check's region, cut where the memory is another GPU's. */
static int add_bytes(struct nvlxi_verification *v, const struct nvlxi_intervals *local, struct landing landing) {
    const uint64_t end = landing.address + landing.length;
    int code = 0;
    for (uint32_t id = nvlxi_intervals_find(local, landing.address); landing.address < end && !code;
         id = nvlxi_intervals_next(local, id)) {
        landing.length = nvlxi_min(local->piece[id].end, end) - landing.address;
        landing.gpu = nvlxi_place_device(local->piece[id].place);
        code = add_span(v, &landing);
        landing.address += landing.length;
        landing.offset += landing.length;
    }
    return code;
}

/* ---- What ops read together --------------------------------------------------------------------------- */

struct planner {
    struct nvlxi_verification *v;
    struct nvlxi_digested_shelf *shelf;
    const struct nvlx_peer *peer; /* of the ops that are looked at */
    struct nvlxi_digested_index *index;
    const struct nvlxi_intervals *local;
    const struct nvlx_op *ops;
};

/* The verification holds each index once. */
static int hold(struct nvlxi_verification *v, struct nvlxi_digested_index *index) {
    for (size_t i = 0; i < v->index_count; i++)
        if (v->indexes[i] == index)
            return 0;
    int code = grow(&v->indexes, &v->index_capacity, v->index_count, sizeof *v->indexes);
    if (code)
        return code;
    nvlxi_digested_hold(index);
    v->indexes[v->index_count++] = index;
    return 0;
}

static int turn_to(struct planner *p, const struct nvlx_peer *peer) {
    if (p->peer == peer)
        return 0;
    int code = nvlxi_digested_get(p->shelf, peer, &p->index);
    if (!code)
        code = hold(p->v, p->index);
    p->peer = code ? NULL : peer;
    return code;
}

static uint64_t end_of(const struct nvlx_op *op) {
    return op->remote + op->length;
}

/* How far, from `at` on, regions with digests follow each other, all of them before `end`. */
static uint64_t follow(const struct planner *p, uint64_t at, uint64_t end) {
    const struct nvlxi_digested *region;
    while (at < end && (region = nvlxi_digested_find(p->index, at, end - at)))
        at += region->length;
    return at;
}

/* An op that reads no region as a whole, or one of a series. */
struct nvlxi_verified_part {
    const struct nvlx_peer *peer;
    uint64_t remote;
    size_t op;
};

/* Ops that read what they read one behind the other. */
struct series {
    const struct nvlxi_verified_part *part;
    size_t count;
};

static const struct nvlx_op *op_of(const struct planner *p, const struct series *series, size_t i) {
    /* A series reads all of its regions, which the analyzer does not know. */
    return &p->ops[series->part[i].op]; /* NOLINT(clang-analyzer-core.uninitialized.ArraySubscript) */
}

static uint64_t end_of_series(const struct planner *p, const struct series *series) {
    return end_of(op_of(p, series, series->count - 1));
}

/* Adds a region that the ops from *first on read; *first becomes the one that reads its end, or what is behind it. */
static int check_region(const struct planner *p, const struct nvlxi_digested *region, const struct series *series,
                        size_t *first) {
    const uint64_t end = region->address + region->length;
    int code = add_check(p->v, region, series->part[*first].op);
    for (uint64_t at = region->address; at < end && !code;) {
        const struct nvlx_op *op = op_of(p, series, *first);
        const uint64_t until = nvlxi_min(end_of(op), end);
        const struct landing landing = {.offset = at - region->address,
                                        .address = (uint64_t)(uintptr_t)op->local + (at - op->remote),
                                        .length = until - at,
                                        .op = series->part[*first].op};
        code = add_bytes(p->v, p->local, landing);
        at = until;
        *first += end_of(op) == until;
    }
    if (!code)
        p->v->spans[p->v->span_count - 1].last = true;
    return code;
}

/* The regions of a series, which are known to be whole. */
static int check_series(const struct planner *p, const struct series *series) {
    const uint64_t end = end_of_series(p, series);
    uint64_t at = series->part[0].remote;
    int code = 0;
    for (size_t first = 0; first < series->count && !code;) {
        const struct nvlxi_digested *region = nvlxi_digested_find(p->index, at, end - at);
        at += region->length;
        code = check_region(p, region, series, &first);
    }
    return code;
}

static int fail_part(const struct planner *p, const struct series *series, uint64_t where) {
    size_t i = 0;
    while (end_of(op_of(p, series, i)) <= where)
        i++;
    return nvlxi_fail(NVLX_EINVAL,
                      "op %zu cannot be verified: of what begins at 0x%" PRIx64
                      " the peer tells no digest, or the list does not read all of it",
                      series->part[i].op, where);
}

/* ---- A list ------------------------------------------------------------------------------------------- */

/* Plans the ops that read whole regions on their own; all others are left as parts. */
static int check_whole(struct planner *p, size_t count, struct nvlxi_verified_part *parts, size_t *part_count) {
    int code = 0;
    for (size_t i = 0; i < count && !code; i++) {
        const struct nvlx_op *op = &p->ops[i];
        const struct nvlxi_verified_part part = {op->peer, op->remote, i};
        if (op->opcode == NVLX_OP_SIGNAL)
            return nvlxi_fail(NVLX_EINVAL,
                              "op %zu signals: a verified list takes no signals, which would come before its bytes are "
                              "known to be right",
                              i);
        if (!op->length)
            continue;
        if (op->flags & NVLX_OP_ROWS)
            return nvlxi_fail(NVLX_EINVAL, "op %zu has rows: only ops without NVLX_OP_ROWS can be verified", i);
        if (op->opcode != NVLX_OP_READ)
            return nvlxi_fail(NVLX_EINVAL, "op %zu writes: only what reads bring can be verified", i);
        if ((code = turn_to(p, op->peer)))
            return code;
        if (follow(p, op->remote, end_of(op)) == end_of(op))
            code = check_series(p, &(struct series){&part, 1});
        else
            parts[(*part_count)++] = part;
    }
    return code;
}

static uint64_t place_of(const struct nvlxi_verified_part *part, bool by_peer) {
    return by_peer ? (uintptr_t)part->peer : part->remote;
}

/* Puts parts in the order of one byte of their places; those that are alike there stay in order. */
static void sort_by_byte(const struct nvlxi_verified_part *from, struct nvlxi_verified_part *to, size_t count,
                         bool by_peer, unsigned shift) {
    size_t next[257] = {0};
    for (size_t i = 0; i < count; i++)
        next[(place_of(&from[i], by_peer) >> shift & 0xff) + 1]++;
    for (size_t i = 1; i < NVLXI_COUNT(next); i++)
        next[i] += next[i - 1];
    for (size_t i = 0; i < count; i++)
        to[next[place_of(&from[i], by_peer) >> shift & 0xff]++] = from[i];
}

/* Which bits are not the same in all. */
static uint64_t different_bits(const struct nvlxi_verified_part *parts, size_t count, bool by_peer) {
    uint64_t bits = 0;
    for (size_t i = 1; i < count; i++)
        bits |= place_of(&parts[i], by_peer) ^ place_of(&parts[0], by_peer);
    return bits;
}

static bool are_in_order(const struct nvlxi_verified_part *parts, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (parts[i].peer != parts[i - 1].peer ? (uintptr_t)parts[i].peer < (uintptr_t)parts[i - 1].peer
                                               : parts[i].remote < parts[i - 1].remote)
            return false;
    return true;
}

/* By peer, then by address. *parts becomes `spare`, or stays. */
static void sort_parts(struct nvlxi_verified_part **parts, struct nvlxi_verified_part *spare, size_t count) {
    if (are_in_order(*parts, count))
        return;
    for (int by_peer = 0; by_peer <= 1; by_peer++) {
        const uint64_t bits = different_bits(*parts, count, by_peer);
        for (unsigned shift = 0; shift < 64; shift += 8) {
            struct nvlxi_verified_part *sorted = spare;
            if (!(bits >> shift & 0xff))
                continue;
            sort_by_byte(*parts, sorted, count, by_peer, shift);
            spare = *parts;
            *parts = sorted;
        }
    }
}

/* The series that begins with a part. */
static struct series series_from(const struct nvlx_op *ops, const struct nvlxi_verified_part *parts, size_t count) {
    struct series series = {parts, 1};
    while (series.count < count) {
        const struct nvlxi_verified_part *before = &parts[series.count - 1], *next = &parts[series.count];
        if (next->peer != before->peer || next->remote != end_of(&ops[before->op]))
            break;
        series.count++;
    }
    return series;
}

static int check_parts(struct planner *p, const struct nvlxi_verified_part *parts, size_t count) {
    int code = 0;
    for (struct series series; count && !code; parts += series.count, count -= series.count) {
        series = series_from(p->ops, parts, count);
        if ((code = turn_to(p, parts->peer)))
            break;
        const uint64_t end = end_of_series(p, &series), where = follow(p, parts->remote, end);
        code = where < end ? fail_part(p, &series, where) : check_series(p, &series);
    }
    return code;
}

/* Room for the parts of so many ops, twice. */
static int reserve_parts(struct nvlxi_verification *v, size_t count) {
    if (v->part_capacity >= 2 * count)
        return 0;
    free(v->parts);
    v->part_capacity = 0;
    v->parts = malloc(2 * count * sizeof *v->parts);
    if (!v->parts)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to verify %zu ops", count);
    v->part_capacity = 2 * count;
    return 0;
}

int nvlxi_verification_plan(struct nvlxi_verification *verification, struct nvlxi_digested_shelf *shelf,
                            const struct nvlxi_intervals *local, const struct nvlx_op *ops, size_t count) {
    struct planner planner = {.v = verification, .shelf = shelf, .local = local, .ops = ops};
    size_t part_count = 0;
    forget(verification);
    int code = reserve_parts(verification, count);
    if (code)
        return code;
    struct nvlxi_verified_part *parts = verification->parts;
    if ((code = check_whole(&planner, count, parts, &part_count)))
        return code;
    sort_parts(&parts, verification->parts + count, part_count);
    return check_parts(&planner, parts, part_count);
}

/* ---- The work ----------------------------------------------------------------------------------------- */

static int compare_digest(void *context, uint64_t value) {
    struct nvlxi_verification *verification = context;
    const struct nvlxi_check *check = &verification->checks[verification->checked++];
    const struct nvlxi_digested *region = check->region;
    if (value == region->digest)
        return 0;
    return nvlxi_fail(NVLX_EDIGEST,
                      "op %zu: what has arrived of the peer's region \"%s\" at 0x%" PRIx64 " + %" PRIu64
                      " has digest 0x%016" PRIx64 ", not 0x%016" PRIx64,
                      check->op, region->name, region->address, region->length, value, region->digest);
}

static int check_kernels(const struct nvlxi_verification *v, const struct nvlxi_context *context) {
    struct nvlxi_gpu_limits limits;
    int code = 0;
    for (size_t i = 0; i < v->span_count && !code; i++) {
        if (i && v->spans[i].gpu == v->spans[i - 1].gpu)
            continue;
        code = context->ops->limits(context->device, v->spans[i].gpu, &limits);
        if (!code && !limits.sms)
            code = nvlxi_fail(NVLX_ENOTSUP, "GPU %d has no kernels to verify a transfer with: they could not be loaded",
                              v->spans[i].gpu);
    }
    return code;
}

static bool has_arrived(void *context, uint64_t address, uint64_t length) {
    struct nvlxi_verification *verification = context;
    return verification->complete ||
           (verification->marked &&
            nvlxi_marks_arrived(verification->pool, &verification->marks, address, address + length));
}

int nvlxi_verification_begin(struct nvlxi_verification *verification, struct nvlxi_desks *desks,
                             const struct nvlxi_lane_pool *pool) {
    int code = check_kernels(verification, desks->context);
    if (code)
        return code;
    verification->digesting = (struct nvlxi_digesting){.spans = verification->spans,
                                                       .count = verification->span_count,
                                                       .take = compare_digest,
                                                       .arrived = has_arrived,
                                                       .context = verification,
                                                       .part = verification->marks.slab};
    verification->pool = pool;
    verification->complete = false;
    code = nvlxi_digesting_begin(&verification->digesting, desks);
    verification->begun = code == 0;
    return code;
}

void nvlxi_verification_end(struct nvlxi_verification *verification) {
    if (verification->begun)
        nvlxi_digesting_end(&verification->digesting);
    verification->begun = false;
}

int nvlxi_verification_step(struct nvlxi_verification *verification, bool complete) {
    verification->complete = complete;
    return nvlxi_digesting_step(&verification->digesting);
}

void nvlxi_verification_stop(struct nvlxi_verification *verification, int reason) {
    nvlxi_digesting_stop(&verification->digesting, reason);
}
