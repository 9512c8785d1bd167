/* Reads of counts by CPUs, and what is asked of counts and peers before streams wait. SPDX-License-Identifier:
 * Apache-2.0
 *
 * A read is BEGUN while its count is registered, with the tables held, and ENDED when the driver has read. Between, no
 * lock is held, and who withdraws the count finds the read by nvlxi_waits_use: the memory may be freed only behind it.
 * Once the count is withdrawn, none begins. */
#ifndef NVLXI_LIFETIME_READS_H
#define NVLXI_LIFETIME_READS_H

#include "lifetime/waits.h"

struct nvlxi_read {
    uint64_t address;
    struct nvlxi_read *next;
};

/* NVLX_EINVAL, NVLX_ERANGE, NVLX_ESUSPENDED: there is no count of this process's at the address. *gpu, unless that is
 * NULL: where it is. With the tables held for reading. */
int nvlxi_waits_check_count(const struct nvlxi_transfers *transfers, uint64_t address, int *gpu);

/* The same, for streams of one GPU, where it must be. */
int nvlxi_waits_check_count_on(const struct nvlxi_transfers *transfers, uint64_t address, int gpu);

/* Reads a count of this process's. NVLX_EINVAL, NVLX_ERANGE, NVLX_ESUSPENDED: there is none at the address. */
int nvlxi_read_count(struct nvlxi_waits *waits, uint64_t address, uint64_t *value);

#endif
