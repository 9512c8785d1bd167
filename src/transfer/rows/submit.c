/* Issues copies of rows. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/rows/submit.h"

static const struct nvlxi_grid *grids_in(const struct nvlxi_chunk *chunk) {
    return (const void *)chunk->fragment;
}

static int copy_grid(const struct nvlxi_lane_pool *pool, struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int to,
                     int from) {
    return grid->times == 1 ? pool->context->ops->copy_rows(lane, &grid->rows, 1, to, from)
                            : pool->context->ops->copy_grid(lane, grid, to, from);
}

int nvlxi_rows_submit_engines(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group,
                              const struct nvlxi_leg *legs, uint64_t lanes, uint64_t *lane) {
    const struct nvlxi_ends ends = nvlxi_submit_ends(group);
    int code = 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_ROWS_BY_ENGINES].first; chunk; chunk = chunk->next) {
        for (uint32_t i = 0; i < chunk->count / NVLXI_GRID_ROOM && !code; i++, *lane = (*lane + 1) % lanes)
            code = copy_grid(pool, legs[*lane].lane->lane, &grids_in(chunk)[i], ends.to, ends.from);
    }
    return code;
}

uint64_t nvlxi_rows_kernels(const struct nvlxi_group *group) {
    uint64_t chunks = 0;
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_ROWS_BY_KERNEL].first; chunk; chunk = chunk->next)
        chunks++;
    return nvlxi_ceil_div(chunks, NVLXI_PARTS_MAX);
}

int nvlxi_rows_submit_kernels(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group,
                              struct nvlxi_leg *leg, uint32_t sms) {
    const struct nvlxi_list *list = &group->lists[NVLXI_ROWS_BY_KERNEL];
    struct nvlxi_part parts[NVLXI_PARTS_MAX];
    struct nvlxi_kernel kernel = {.parts = parts,
                                  .rows = true,
                                  .sms = sms ? sms : group->sms,
                                  .average = list->count ? list->bytes / (list->count / NVLXI_ROWS_ROOM) : 0};
    struct nvlxi_place place = {list->first, 0};
    for (int code = 0; !code; leg->issued++) {
        kernel.part_count = 0;
        while (kernel.part_count < NVLXI_PARTS_MAX &&
               nvlxi_kernels_take_part(&place, UINT64_MAX, &parts[kernel.part_count]))
            parts[kernel.part_count++].count /= NVLXI_ROWS_ROOM;
        if (!kernel.part_count)
            return 0;
        kernel.overlaps = leg->issued > 0 && !sms;
        if ((code = pool->context->ops->copy_kernel(leg->lane->lane, &kernel)))
            return code;
    }
    return 0;
}

bool nvlxi_rows_suit_kernels(const struct nvlxi_group *group) {
    for (const struct nvlxi_chunk *chunk = group->lists[NVLXI_ROWS_BY_ENGINES].first; chunk; chunk = chunk->next) {
        for (uint32_t i = 0; i < chunk->count / NVLXI_GRID_ROOM; i++) {
            const struct nvlxi_grid *grid = &grids_in(chunk)[i];
            if (!nvlxi_grid_is_aligned(grid) && nvlxi_grid_bytes(grid) > NVLXI_UNALIGNED_MAX)
                return false;
        }
    }
    return true;
}
