/* Copies of rows on lanes: what submit.c does with fragments.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_TRANSFER_ROWS_SUBMIT_H
#define NVLXI_TRANSFER_ROWS_SUBMIT_H

#include "transfer/rows/rows.h"
#include "transfer/submit.h"

/* How many of so many copies the fullest lane gets. */
static inline uint64_t nvlxi_rows_share(uint64_t copies, uint64_t lanes) {
    return nvlxi_ceil_div(copies, lanes);
}

/* Issues the copies that engines carry: each lane the next one in turn, from `*lane` on, which moves on. */
int nvlxi_rows_submit_engines(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group,
                              const struct nvlxi_leg *legs, uint64_t lanes, uint64_t *lane);

/* How many kernels carry the others. */
uint64_t nvlxi_rows_kernels(const struct nvlxi_group *group);

/* Issues the kernels' list on a leg, behind that of fragments. `sms` 0: as the group says. */
int nvlxi_rows_submit_kernels(const struct nvlxi_lane_pool *pool, const struct nvlxi_group *group,
                              struct nvlxi_leg *leg, uint32_t sms);

/* Whether kernels could carry what is the engines', and not byte by byte. */
bool nvlxi_rows_suit_kernels(const struct nvlxi_group *group);

#endif
