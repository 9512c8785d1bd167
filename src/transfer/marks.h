/* Marks on lanes: what of a list has arrived is known while the rest is on its way.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A mark is an event behind some of a lane's copies, about a slab. Which bytes come with it is noted while they are
 * issued. */
#ifndef NVLXI_TRANSFER_MARKS_H
#define NVLXI_TRANSFER_MARKS_H

#include "local/arrivals.h"
#include "transfer/lanes.h"

struct nvlxi_marks {
    uint64_t slab; /* bytes between two marks of a lane; what is longer is copied in slabs */
    struct nvlxi_mark {
        struct nvlxi_pooled_event *event; /* behind it; NULL: it is there when its leg is complete */
        bool done;
    } * mark;
    size_t count, capacity;
    struct nvlxi_arrivals arrivals; /* what comes with each */
};

/* A lane, and what it was given since its last mark. */
struct nvlxi_marked_lane {
    const struct nvlxi_pooled_lane *lane;
    uint64_t bytes;
    size_t mark; /* that comes behind them */
};

/* Opens the lane's next mark, notes fragments that come with it, and puts it behind them. Of one that is never closed,
 * all is there when the leg is complete. */
int nvlxi_marks_open(struct nvlxi_marks *marks, struct nvlxi_marked_lane *to);
int nvlxi_marks_note(struct nvlxi_marks *marks, struct nvlxi_marked_lane *to, const struct nvlxi_fragment *list,
                     uint64_t count);
int nvlxi_marks_close(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks, struct nvlxi_marked_lane *to);

/* Whether all of [start, end) that the list brings is in place. Does not wait. */
bool nvlxi_marks_arrived(const struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks, uint64_t start, uint64_t end);
/* Gives their events back, and keeps the memory. What they are about is complete, or was not issued. */
void nvlxi_marks_return(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks);
/* Their events have been given back. */
void nvlxi_marks_free(struct nvlxi_marks *marks);

#endif
