/* Counts transfers that have ended: a few additions each, whatever its length. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/plan/tally.h"

static enum nvlxi_direction direction_of(const struct nvlxi_group *group) {
    return group->opcode == NVLX_OP_READ ? NVLXI_READS : NVLXI_WRITES;
}

static void carried(struct nvlxi_peer_cell *cell, enum nvlxi_carrier carrier, enum nvlxi_direction direction,
                    uint64_t bytes, uint64_t fragments) {
    if (!fragments)
        return;
    nvlxi_count(&cell->carried[carrier][direction].bytes, bytes);
    nvlxi_count(&cell->carried[carrier][direction].fragments, fragments);
}

static void add_group(const struct nvlxi_group *group, struct nvlxi_moved *moved) {
    static const enum nvlxi_way ways[NVLXI_CARRIERS][2] = {{NVLXI_BY_ENGINES, NVLXI_ROWS_BY_ENGINES},
                                                           {NVLXI_BY_KERNEL, NVLXI_ROWS_BY_KERNEL}};
    for (unsigned by = 0; by < NVLXI_CARRIERS; by++)
        for (unsigned i = 0; i < 2; i++) {
            moved->bytes[by][direction_of(group)] += group->lists[ways[by][i]].bytes;
            moved->fragments[by][direction_of(group)] += nvlxi_group_copies(group, ways[by][i]);
        }
}

static void count_moved(struct nvlxi_peer_cell *cell, const struct nvlxi_moved *moved) {
    for (unsigned by = 0; by < NVLXI_CARRIERS; by++)
        for (unsigned way = 0; way < NVLXI_DIRECTIONS; way++)
            carried(cell, (enum nvlxi_carrier)by, (enum nvlxi_direction)way, moved->bytes[by][way],
                    moved->fragments[by][way]);
}

/* Several groups are of several peers, GPUs or directions. */
static void count_groups(const struct nvlxi_ended *ended) {
    const struct nvlxi_needs *needs = ended->needs;
    for (const struct nvlxi_group *group = ended->plan->groups; group; group = group->following) {
        struct nvlxi_peer_cell *cell = needs->peer_count == 1 ? needs->peers[0]->cell : group->cell;
        struct nvlxi_moved moved = {0};
        add_group(group, &moved);
        count_moved(cell, &moved);
    }
}

static void count_one_group(const struct nvlxi_ended *ended) {
    const struct nvlxi_group *group = ended->plan->groups;
    const struct nvlx_request_info *info = ended->info;
    struct nvlxi_peer_cell *cell = ended->needs->peers[0]->cell;
    carried(cell, NVLXI_ENGINES, direction_of(group), info->engine_bytes, info->engine_fragments);
    carried(cell, NVLXI_KERNELS, direction_of(group), info->kernel_bytes, info->kernel_fragments);
}

static enum nvlxi_carried_by carried_by(const struct nvlx_request_info *info) {
    return (enum nvlxi_carried_by)((info->engine_fragments ? NVLXI_BY_ENGINES_ALONE : NVLXI_BY_NOTHING) |
                                   (info->kernel_fragments ? NVLXI_BY_KERNELS_ALONE : NVLXI_BY_NOTHING));
}

static void count_times(struct nvlxi_peer_cell *cell, uint64_t submit_ns, uint64_t elapsed_ns) {
    nvlxi_count(&cell->transfers, 1);
    nvlxi_count(&cell->submit_ns, submit_ns);
    nvlxi_count(&cell->transfer_ns, elapsed_ns);
}

static void count_call(struct nvlxi_metrics *metrics, enum nvlxi_call_kind call, const struct nvlx_request_info *info,
                       uint64_t elapsed_ns) {
    nvlxi_histogram_count(&metrics->submit[call], info->submit_ns);
    nvlxi_histogram_count(&metrics->transfer[carried_by(info)], elapsed_ns);
}

static void count_carried(const struct nvlxi_ended *ended) {
    if (ended->plan->group_count == 1 && ended->needs->peer_count == 1 && !ended->has_parts)
        count_one_group(ended);
    else
        count_groups(ended);
}

void nvlxi_tally(struct nvlxi_metrics *metrics, const struct nvlxi_ended *ended) {
    const struct nvlxi_needs *needs = ended->needs;
    count_carried(ended);
    for (size_t i = 0; i < needs->peer_count; i++)
        count_times(needs->peers[i]->cell, ended->info->submit_ns, ended->elapsed_ns);
    count_call(metrics, ended->call, ended->info, ended->elapsed_ns);
}

void nvlxi_tally_later(const struct nvlxi_ended *ended, struct nvlxi_tally_kept *kept) {
    const struct nvlxi_needs *needs = ended->needs;
    *kept = (struct nvlxi_tally_kept){
        .waits = true, .call = ended->call, .cell = needs->peer_count ? needs->peers[0]->cell : NULL};
    for (const struct nvlxi_group *group = ended->plan->groups; group; group = group->following)
        add_group(group, &kept->moved);
}

void nvlxi_tally_part(const struct nvlxi_tally_kept *kept) {
    if (kept->cell)
        count_moved(kept->cell, &kept->moved);
}

void nvlxi_tally_kept(struct nvlxi_metrics *metrics, const struct nvlxi_tally_kept *kept,
                      const struct nvlx_request_info *info, uint64_t elapsed_ns) {
    if (kept->cell) {
        count_moved(kept->cell, &kept->moved);
        count_times(kept->cell, info->submit_ns, elapsed_ns);
    }
    count_call(metrics, kept->call, info, elapsed_ns);
}
