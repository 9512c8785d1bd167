/* Joins rows that come again at equal distances: layers of blocks. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/op.h"
#include "transfer/rows/rows.h"
#include "transfer/validate/validate.h"

/* Whether a cut is all of an op with rows. */
static bool is_whole(const struct nvlxi_validation *v, const struct nvlxi_cut *cut) {
    const struct nvlx_op *op = &v->validated.ops[cut->op];
    return (op->flags & NVLX_OP_ROWS) && cut->grid.rows.count > 1 && cut->grid.rows.count == nvlxi_op_rows(op)->count;
}

static bool have_one_form(const struct nvlxi_cut *one, const struct nvlxi_cut *other) {
    const struct nvlxi_rows *a = &one->grid.rows, *b = &other->grid.rows;
    return one->pair == other->pair && a->length == b->length && a->count == b->count &&
           a->destination_pitch == b->destination_pitch && a->source_pitch == b->source_pitch;
}

/* Whether one copy may reach from the first byte of one op to that of the other: both lie in one allocation or mapping,
 * or no border lies between. */
static bool reaches(const struct nvlxi_intervals *ranges, uint64_t from, uint64_t to) {
    const uint32_t first = nvlxi_intervals_find(ranges, from), last = nvlxi_intervals_find(ranges, to);
    return ranges->piece[first].owner == ranges->piece[last].owner || nvlxi_intervals_reach(ranges, first, to + 1) > to;
}

/* Whether an op with equal rows comes next in a grid. The first two tell how far it is from one to the next. */
static bool goes_on(const struct nvlxi_validation *v, const struct nvlxi_cut *first, const struct nvlxi_cut *next) {
    const struct nvlx_op *op = &v->validated.ops[first->op], *other = &v->validated.ops[next->op];
    const uint64_t destination = next->grid.rows.destination - first->grid.rows.destination,
                   source = next->grid.rows.source - first->grid.rows.source;
    struct nvlxi_grid grid = first->grid;
    if (first->op == next->op || op->peer != other->peer || !have_one_form(first, next) || !is_whole(v, next))
        return false;
    if (grid.times == 1) {
        grid.destination_step = destination;
        grid.source_step = source;
    }
    return destination == grid.times * grid.destination_step && source == grid.times * grid.source_step &&
           nvlxi_grid_fits_engines(&grid) &&
           reaches(v->local, (uint64_t)(uintptr_t)op->local, (uint64_t)(uintptr_t)other->local) &&
           reaches(&op->peer->table->ranges, op->remote, other->remote);
}

void nvlxi_validate_join(struct nvlxi_validation *v) {
    struct nvlxi_validated *validated = &v->validated;
    struct nvlxi_cut *last = validated->cuts;
    bool whole = is_whole(v, last);
    for (struct nvlxi_cut *cut = last + 1; cut < validated->cuts + validated->cut_count; cut++) {
        if (whole && goes_on(v, last, cut)) {
            if (last->grid.times++ == 1) {
                last->grid.destination_step = cut->grid.rows.destination - last->grid.rows.destination;
                last->grid.source_step = cut->grid.rows.source - last->grid.rows.source;
            }
        } else {
            *++last = *cut;
            whole = is_whole(v, last);
        }
    }
    validated->cut_count = (size_t)(last + 1 - validated->cuts);
}
