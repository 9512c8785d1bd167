/* Blocks by id on a lane. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/blocks/issue.h"

uint64_t nvlxi_block_work_kernels(const struct nvlxi_group *group) {
    uint64_t lists = nvlxi_ceil_div(group->blocks->id_count, NVLXI_IDS_PER_KERNEL);
    const struct nvlxi_chunk *chunk = lists ? NULL : group->lists[NVLXI_BY_KERNEL].first;
    for (; chunk; chunk = chunk->next)
        lists++;
    return lists * nvlxi_ceil_div(group->blocks->region_count, NVLXI_BLOCK_REGIONS_MAX);
}

struct kernels { /* what those of a group have in common */
    const struct nvlxi_lane_pool *pool;
    const struct nvlxi_group *group;
    struct nvlxi_leg *leg;
    uint32_t sms;
};

/* All regions of some pairs, which `kernel` tells. */
static int submit_list(const struct kernels *k, struct nvlxi_block_kernel kernel) {
    const struct nvlxi_block_work *work = k->group->blocks;
    int code = 0;
    kernel.read = k->group->opcode == NVLX_OP_READ;
    kernel.sms = k->sms ? k->sms : k->group->sms;
    kernel.average = work->average;
    for (uint32_t first = 0; first < work->region_count && !code; first += NVLXI_BLOCK_REGIONS_MAX) {
        kernel.regions = work->regions + first;
        kernel.region_count = (uint32_t)nvlxi_min(work->region_count - first, NVLXI_BLOCK_REGIONS_MAX);
        kernel.overlaps = k->leg->issued > 0 && !k->sms;
        code = k->pool->context->ops->copy_blocks(k->leg->lane->lane, &kernel);
        k->leg->issued += code == 0;
    }
    return code;
}

static int submit_ids(const struct kernels *k, uint64_t first) {
    const struct nvlxi_block_work *work = k->group->blocks;
    struct nvlxi_block_kernel kernel = {
        .ids = work->ids, .pair_count = (uint32_t)nvlxi_min(work->id_count - first, NVLXI_IDS_PER_KERNEL)};
    kernel.ids.first = first;
    kernel.ids.local += first * work->ids.width;
    kernel.ids.remote += first * work->ids.width;
    return submit_list(k, kernel);
}

int nvlxi_block_work_submit(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group, struct nvlxi_leg *leg,
                            uint32_t sms) {
    const struct kernels kernels = {pool, group, leg, sms};
    const struct nvlxi_chunk *chunk = group->blocks->id_count ? NULL : group->lists[NVLXI_BY_KERNEL].first;
    int code = 0;
    for (uint64_t first = 0; first < group->blocks->id_count && !code; first += NVLXI_IDS_PER_KERNEL)
        code = submit_ids(&kernels, first);
    for (; chunk && !code; chunk = chunk->next)
        code = submit_list(
            &kernels, (struct nvlxi_block_kernel){.pairs = (const void *)chunk->fragment, .pair_count = chunk->count});
    return code;
}
