/* What a lane of the host backend does: jobs, which its worker runs one after the other (lane.c), and which a graph
 * that it captures repeats (graph.h).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_HOST_JOB_H
#define NVLXI_DEVICE_HOST_JOB_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "device/device.h"
#include "device/host/point.h"
#include "device/leaf_list.h"

enum nvlxi_host_job_kind {
    NVLXI_JOB_LIST,
    NVLXI_JOB_GRID,
    NVLXI_JOB_KERNEL,
    NVLXI_JOB_DIGEST,
    NVLXI_JOB_MARK,
    NVLXI_JOB_WAIT,
    NVLXI_JOB_HOLD,
    NVLXI_JOB_CALL,
    NVLXI_JOB_SIGNAL,
    NVLXI_JOB_AWAIT,
    NVLXI_JOB_PACE,
    NVLXI_JOB_BLOCKS
};

struct nvlxi_host_job {
    enum nvlxi_host_job_kind kind;
    struct nvlxi_fragment *list; /* NVLXI_JOB_LIST: its own */
    size_t count;
    struct nvlxi_grid grid;                   /* NVLXI_JOB_GRID */
    struct nvlxi_part parts[NVLXI_PARTS_MAX]; /* NVLXI_JOB_KERNEL: their lists are the caller's until the job is done */
    uint32_t part_count;
    bool of_rows;                     /* NVLXI_JOB_KERNEL: the lists are */
    struct nvlxi_leaf_list leaves;    /* NVLXI_JOB_DIGEST: in the caller's memory until the job is done */
    struct nvlxi_host_point *point;   /* NVLXI_JOB_MARK, NVLXI_JOB_WAIT: held */
    const atomic_bool *until;         /* NVLXI_JOB_HOLD */
    void (*function)(void *argument); /* NVLXI_JOB_CALL */
    void *argument;
    struct nvlxi_signal signal;       /* NVLXI_JOB_SIGNAL */
    struct nvlxi_gated gated;         /* NVLXI_JOB_AWAIT */
    struct nvlxi_paced paced;         /* NVLXI_JOB_PACE */
    struct nvlxi_block_kernel blocks; /* NVLXI_JOB_BLOCKS: its pairs and regions are the caller's until it is done */
    STAILQ_ENTRY(nvlxi_host_job) entry;
};

static inline const struct nvlxi_rows *nvlxi_host_rows_of(const struct nvlxi_part *part) {
    return (const void *)part->list;
}

/* NULL: no memory. */
struct nvlxi_host_job *nvlxi_host_job_make(enum nvlxi_host_job_kind kind);
/* One more that does the same. Of a kind that graphs take. */
struct nvlxi_host_job *nvlxi_host_job_clone(const struct nvlxi_host_job *job);
void nvlxi_host_job_free(struct nvlxi_host_job *job);

void nvlxi_host_job_run(const struct nvlxi_host_job *job);
/* That it takes in a channel. */
size_t nvlxi_host_job_places(const struct nvlxi_host_job *job);

/* The job becomes the lane's, or that of the graph that it captures, or is gone: NVLX_EDEVICE, a graph does not take
 * it. */
int nvlxi_host_lane_queue(struct nvlxi_lane *lane, struct nvlxi_host_job *job);

#endif
