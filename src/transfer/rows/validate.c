/* Checks an op with rows, and relocates it: cut where a border lies under it. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/validate/validate.h"
#include "base/error.h"
#include "transfer/op.h"
#include "transfer/plan/plan.h"

#include <inttypes.h>

#define COPIES_MAX 65536u /* by engines, of one op whose rows they do not take as they are */

/* An op, and the tables under it. */
struct rectangle {
    const struct nvlx_op *op;
    size_t index;
    struct nvlxi_side local, remote;
    const struct nvlxi_intervals *local_ranges, *remote_ranges;
};

/* The first row from `row` on that is not wholly in the piece that this one begins in, but this one in any case. Where
 * rows overlap, or lie back to back, all of them are one. */
static uint64_t skip(const struct nvlxi_intervals *ranges, const struct nvlxi_side *side, uint64_t row) {
    if (nvlxi_side_is_solid(side))
        return side->count;
    const uint32_t piece = nvlxi_intervals_find(ranges, nvlxi_side_at(side, row));
    return row + nvlxi_max(nvlxi_side_rows_until(side, row, ranges->piece[piece].end), 1);
}

/* Whether so many bytes from a row on are registered. */
static int check_bytes(const struct nvlxi_validation *v, const struct rectangle *it, bool is_local, uint64_t row,
                       uint64_t length) {
    const struct nvlx_op one = nvlxi_op_row(it->op, row, length);
    return is_local ? nvlxi_validate_local(v, &one, it->index) : nvlxi_validate_remote(v, &one, it->index);
}

/* Of a side without gaps, which was refused as one, names the first row that is not registered. */
static int refuse_row(const struct nvlxi_validation *v, const struct rectangle *it, bool is_local, int code) {
    const struct nvlxi_side *side = is_local ? &it->local : &it->remote;
    uint64_t good = 0, bad = side->count; /* so many rows are, and are not */
    while (bad - good > 1) {
        const uint64_t middle = good + (bad - good) / 2;
        if (check_bytes(v, it, is_local, 0, (middle - 1) * side->pitch + side->length))
            bad = middle;
        else
            good = middle;
    }
    const int named = check_bytes(v, it, is_local, bad - 1, side->length);
    return named ? named : code;
}

/* Whether all rows of one side are registered. */
static int check_side(const struct nvlxi_validation *v, const struct rectangle *it, bool is_local) {
    const struct nvlxi_side *side = is_local ? &it->local : &it->remote;
    const bool solid = nvlxi_side_is_solid(side);
    int code = 0;
    for (uint64_t row = 0; row < side->count && !code;) {
        code = check_bytes(v, it, is_local, row, solid ? nvlxi_side_span(side) : side->length);
        row = skip(is_local ? it->local_ranges : it->remote_ranges, side, row);
    }
    return code && solid ? refuse_row(v, it, is_local, code) : code;
}

/* ---- Between borders ------------------------------------------------------------------------------------- */

/* Where the last zone of a side ends that was looked at: adjoining pieces without a border. */
struct zone {
    uint64_t start, end;
};

/* How many rows, from `row` on, lie in the zone that this one begins in. */
static uint64_t rows_in_zone(const struct nvlxi_intervals *ranges, const struct nvlxi_side *side, uint64_t row,
                             struct zone *zone) {
    const uint64_t at = nvlxi_side_at(side, row);
    if (at < zone->start || at >= zone->end) {
        zone->start = at;
        zone->end =
            nvlxi_intervals_reach(ranges, nvlxi_intervals_find(ranges, at), side->address + nvlxi_side_span(side));
    }
    return nvlxi_side_rows_until(side, row, zone->end);
}

/* The bytes of a side that are looked at with row `row`, of rows that begin at `first`. */
static uint64_t length_at(const struct nvlxi_side *side, uint64_t first, uint64_t row, uint64_t count) {
    return row == first && nvlxi_side_is_solid(side) ? (count - 1) * side->pitch + side->length : side->length;
}

/* Notes all pieces that have bytes of some rows in one zone of either side. */
static int use_rows(struct nvlxi_validation *v, const struct rectangle *it, uint64_t first, uint64_t count,
                    struct nvlxi_route **route, uint64_t *offset) {
    int code = 0;
    for (uint64_t row = first; row < first + count && !code;) {
        struct nvlxi_op_part part = {.local = nvlxi_side_at(&it->local, row),
                                     .remote = nvlxi_side_at(&it->remote, row),
                                     .local_length = length_at(&it->local, first, row, count),
                                     .remote_length = length_at(&it->remote, first, row, count),
                                     .index = it->index};
        part.local_range = nvlxi_intervals_find(it->local_ranges, part.local);
        part.remote_range = nvlxi_intervals_find(it->remote_ranges, part.remote);
        code = nvlxi_validate_part(v, it->op, &part, route, offset);
        row = nvlxi_min(skip(it->local_ranges, &it->local, row), skip(it->remote_ranges, &it->remote, row));
    }
    return code;
}

static int check_copies(const struct nvlxi_validation *v, const struct rectangle *it, const struct nvlxi_rows *rows,
                        uint32_t pair) {
    const bool by_kernel = v->validated.pairs[pair].kernels && v->mechanism != NVLX_MECHANISM_COPY_ENGINE;
    const uint64_t copies = nvlxi_plan_copies(rows);
    if (by_kernel || copies <= COPIES_MAX)
        return 0;
    return nvlxi_fail(NVLX_ENOTSUP,
                      "op %zu: %" PRIu64 " rows of %" PRIu64 " bytes, with pitches %" PRIu64 " and %" PRIu64
                      ", take %" PRIu64 " copies by engines, of which one op may take %u: kernels could, but are not "
                      "to be used, or do not reach",
                      it->index, rows->count, rows->length, rows->destination_pitch, rows->source_pitch, copies,
                      COPIES_MAX);
}

/* Rows that lie in one zone of either side. */
static int validate_zone(struct nvlxi_validation *v, const struct rectangle *it, uint64_t first, uint64_t count,
                         struct nvlxi_route **route) {
    const bool read = it->op->opcode == NVLX_OP_READ;
    uint64_t offset = NVLXI_UNMAPPED;
    int code = use_rows(v, it, first, count, route, &offset);
    if (code || offset == NVLXI_UNMAPPED)
        return code;
    const uint64_t local = nvlxi_side_at(&it->local, first), remote = nvlxi_side_at(&it->remote, first) + offset;
    const struct nvlxi_rows rows = {.destination = read ? local : remote,
                                    .source = read ? remote : local,
                                    .length = it->op->length,
                                    .count = count,
                                    .destination_pitch = read ? it->local.pitch : it->remote.pitch,
                                    .source_pitch = read ? it->remote.pitch : it->local.pitch};
    const uint32_t pair = (*route)->pair[it->op->opcode - 1];
    code = check_copies(v, it, &rows, pair);
    return code ? code : nvlxi_note_cut(v, it->index, &rows, pair);
}

/* A row over a border. Only of rows that overlap there can be as many over one as they like. */
static int validate_crossing(struct nvlxi_validation *v, const struct rectangle *it, uint64_t row, uint64_t before,
                             struct nvlxi_route **route) {
    if (before == COPIES_MAX)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "op %zu: of its %" PRIu64 " rows of %" PRIu64
                          " bytes more than %u cross borders of allocations: rows that are read overlap there",
                          it->index, it->local.count, it->op->length, COPIES_MAX);
    const struct nvlx_op one = nvlxi_op_row(it->op, row, it->op->length);
    return nvlxi_validate_parts(v, &one, it->index, true, route);
}

static int validate_zones(struct nvlxi_validation *v, const struct rectangle *it, struct nvlxi_route **route) {
    struct zone local = {0}, remote = {0};
    uint64_t crossing = 0;
    int code = 0;
    for (uint64_t row = 0, done; row < it->local.count && !code; row += done) {
        done = nvlxi_min(rows_in_zone(it->local_ranges, &it->local, row, &local),
                         rows_in_zone(it->remote_ranges, &it->remote, row, &remote));
        if (done) {
            code = validate_zone(v, it, row, done, route);
        } else {
            code = validate_crossing(v, it, row, crossing++, route);
            done = 1;
        }
    }
    return code;
}

int nvlxi_validate_rows(struct nvlxi_validation *v, size_t index, struct nvlxi_route **route) {
    const struct nvlx_op *op = &v->validated.ops[index];
    if (!nvlxi_op_moves(op))
        return nvlxi_note_nothing(v, index);
    const struct rectangle it = {.op = op,
                                 .index = index,
                                 .local = nvlxi_op_local(op),
                                 .remote = nvlxi_op_remote(op),
                                 .local_ranges = v->local,
                                 .remote_ranges = &op->peer->table->ranges};
    int code = nvlxi_validate_alive(op, index);
    if (!code)
        code = check_side(v, &it, true);
    if (!code)
        code = check_side(v, &it, false);
    if (!code && op->peer->same_process)
        code = nvlxi_op_check_rows_overlap(op, index);
    return code ? code : validate_zones(v, &it, route);
}
