/* Which bytes come with which mark: what has arrived is asked for range by range, while the rest is on its way.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Written down while copies are issued, in any order; put in order when somebody asks for the first time. Pure. */
#ifndef NVLXI_LOCAL_ARRIVALS_H
#define NVLXI_LOCAL_ARRIVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nvlxi_arrivals { /* starts zeroed */
    struct nvlxi_arriving {
        uint64_t start, end;
        uint64_t reach; /* the highest end up to here, once they are in order */
        size_t mark;
    } * list;
    size_t count, capacity;
    bool ordered;
};

/* [start, end) comes with a mark, by its number. NVLX_ENOMEM. */
int nvlxi_arrivals_add(struct nvlxi_arrivals *arrivals, uint64_t start, uint64_t end, size_t mark);
/* Whether `seen` says so of each mark that some of [start, end) comes with. */
bool nvlxi_arrivals_seen(struct nvlxi_arrivals *arrivals, uint64_t start, uint64_t end,
                         bool (*seen)(void *context, size_t mark), void *context);
/* Forgets all, and keeps the memory. */
void nvlxi_arrivals_clear(struct nvlxi_arrivals *arrivals);
void nvlxi_arrivals_free(struct nvlxi_arrivals *arrivals);

#endif
