/* Plans which regions a list reads as a whole, and compares their digests. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/verify.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct nvlxi_verification *nvlxi_verification_new(void) {
    struct nvlxi_verification *made = calloc(1, sizeof *made);
    if (!made)
        nvlxi_fail(NVLX_ENOMEM, "no memory to verify a transfer");
    return made;
}

/* Forgets what was planned. */
static void clear(struct nvlxi_verification *verification) {
    while (verification->check_count)
        free(verification->checks[--verification->check_count].name);
    verification->span_count = verification->checked = 0;
}

void nvlxi_verification_free(struct nvlxi_verification *verification) {
    if (!verification)
        return;
    nvlxi_verification_end(verification);
    clear(verification);
    free(verification->checks);
    free(verification->spans);
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

static int add_check(struct nvlxi_verification *v, const struct nvlxi_digested *region, const char *name, size_t op) {
    int code = grow(&v->checks, &v->check_capacity, v->check_count, sizeof *v->checks);
    if (code)
        return code;
    char *copy = strdup(name);
    if (!copy)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for the name of a region");
    struct nvlxi_check *check = &v->checks[v->check_count++];
    *check = (struct nvlxi_check){region->address, region->length, region->digest, .op = op};
    check->name = copy;
    return 0;
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
                      landing->op, landing->offset, check->name, check->address,
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
        landing.gpu = local->piece[id].device;
        code = add_span(v, &landing);
        landing.address += landing.length;
        landing.offset += landing.length;
    }
    return code;
}

/* ---- What ops read together --------------------------------------------------------------------------- */

struct planner {
    struct nvlxi_verification *v;
    struct nvlxi_digested_index *index; /* of the peer of the ops that are looked at */
    const struct nvlxi_intervals *local;
    const struct nvlx_op *ops;
};

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

/* Ops that read what they read one behind the other: by number. */
struct series {
    const size_t *op;
    size_t count;
};

/* Adds a region that the ops from *first on read; *first becomes the one that reads its end, or what is behind it. */
static int check_region(const struct planner *p, const struct nvlxi_digested *region, const struct series *series,
                        size_t *first) {
    const struct nvlx_op *op = &p->ops[series->op[*first]];
    const char *name = op->peer->table->descriptor->regions[region->number].name;
    const uint64_t end = region->address + region->length;
    int code = add_check(p->v, region, name, series->op[*first]);
    for (uint64_t at = region->address; at < end && !code;) {
        op = &p->ops[series->op[*first]];
        const uint64_t until = nvlxi_min(end_of(op), end);
        const struct landing landing = {.offset = at - region->address,
                                        .address = (uint64_t)(uintptr_t)op->local + (at - op->remote),
                                        .length = until - at,
                                        .op = series->op[*first]};
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
    uint64_t at = p->ops[series->op[0]].remote;
    int code = 0;
    for (size_t first = 0; first < series->count && !code;) {
        const uint64_t end = end_of(&p->ops[series->op[series->count - 1]]);
        const struct nvlxi_digested *region = nvlxi_digested_find(p->index, at, end - at);
        at += region->length;
        code = check_region(p, region, series, &first);
    }
    return code;
}

static int fail_part(const struct planner *p, const struct series *series, uint64_t where) {
    size_t i = 0;
    while (end_of(&p->ops[series->op[i]]) <= where)
        i++;
    return nvlxi_fail(NVLX_EINVAL,
                      "op %zu cannot be verified: of what begins at 0x%" PRIx64
                      " the peer tells no digest, or the list does not read all of it",
                      series->op[i], where);
}

/* ---- A list ------------------------------------------------------------------------------------------- */

/* Plans the ops that read whole regions on their own; all others are left as parts. */
static int check_whole(const struct planner *p, size_t count, size_t *parts, size_t *part_count) {
    int code = 0;
    for (size_t i = 0; i < count && !code; i++) {
        const struct nvlx_op *op = &p->ops[i];
        if (!op->length)
            continue;
        if (op->opcode != NVLX_OP_READ)
            return nvlxi_fail(NVLX_EINVAL, "op %zu writes: only what reads bring can be verified", i);
        if ((code = nvlxi_digested_make(p->index, op->peer)))
            return code;
        if (follow(p, op->remote, end_of(op)) == end_of(op))
            code = check_series(p, &(struct series){&i, 1});
        else
            parts[(*part_count)++] = i;
    }
    return code;
}

/* The parts are sorted through pointers to their ops, which is as good as their numbers. */
static int compare_places(const void *a, const void *b) {
    const struct nvlx_op *const *x = a, *const *y = b;
    if ((*x)->peer != (*y)->peer)
        return (uintptr_t)(*x)->peer < (uintptr_t)(*y)->peer ? -1 : 1;
    return ((*x)->remote > (*y)->remote) - ((*x)->remote < (*y)->remote);
}

static int sort_parts(const struct nvlx_op *ops, size_t *parts, size_t count) {
    const struct nvlx_op **sorted = malloc((count + 1) * sizeof *sorted);
    if (!sorted)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to verify %zu ops", count);
    for (size_t i = 0; i < count; i++)
        sorted[i] = &ops[parts[i]];
    qsort(sorted, count, sizeof *sorted, compare_places);
    for (size_t i = 0; i < count; i++)
        parts[i] = (size_t)(sorted[i] - ops);
    free(sorted);
    return 0;
}

/* The series that begins with a part. */
static struct series series_from(const struct nvlx_op *ops, const size_t *parts, size_t count) {
    struct series series = {parts, 1};
    while (series.count < count) {
        const struct nvlx_op *before = &ops[parts[series.count - 1]], *next = &ops[parts[series.count]];
        if (next->peer != before->peer || next->remote != end_of(before))
            break;
        series.count++;
    }
    return series;
}

static int check_parts(const struct planner *p, const size_t *parts, size_t count) {
    int code = 0;
    for (struct series series; count && !code; parts += series.count, count -= series.count) {
        series = series_from(p->ops, parts, count);
        const uint64_t start = p->ops[series.op[0]].remote, end = end_of(&p->ops[series.op[series.count - 1]]);
        code = nvlxi_digested_make(p->index, p->ops[series.op[0]].peer);
        const uint64_t where = code ? end : follow(p, start, end);
        if (!code)
            code = where < end ? fail_part(p, &series, where) : check_series(p, &series);
    }
    return code;
}

int nvlxi_verification_plan(struct nvlxi_verification *verification, struct nvlxi_digested_index *index,
                            const struct nvlxi_intervals *local, const struct nvlx_op *ops, size_t count) {
    const struct planner planner = {verification, index, local, ops};
    size_t part_count = 0;
    clear(verification);
    size_t *parts = calloc(count + 1, sizeof *parts);
    if (!parts)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to verify %zu ops", count);
    int code = check_whole(&planner, count, parts, &part_count);
    if (!code)
        code = sort_parts(ops, parts, part_count);
    if (!code)
        code = check_parts(&planner, parts, part_count);
    free(parts);
    return code;
}

/* ---- The work ----------------------------------------------------------------------------------------- */

static int compare_digest(void *context, uint64_t value) {
    struct nvlxi_verification *verification = context;
    const struct nvlxi_check *check = &verification->checks[verification->checked++];
    if (value == check->expected)
        return 0;
    return nvlxi_fail(NVLX_EDIGEST,
                      "op %zu: what has arrived of the peer's region \"%s\" at 0x%" PRIx64 " + %" PRIu64
                      " has digest 0x%016" PRIx64 ", not 0x%016" PRIx64,
                      check->op, check->name, check->address, check->length, value, check->expected);
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
