/* The host backend's graphs: see graph.h. SPDX-License-Identifier: Apache-2.0 */
#include "device/host/graph.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/error.h"
#include "device/host/host.h"
#include "device/host/job.h"

struct keep {
    void (*function)(void *argument);
    void *argument;
    SLIST_ENTRY(keep) entry;
};

struct nvlxi_host_graph {
    STAILQ_HEAD(, nvlxi_host_job) jobs; /* what is captured; by the thread that captures */
    SLIST_HEAD(, keep) keeps;
    bool broken;
    atomic_uint users; /* who has it, and runs that are queued */
};

static void drop(void *argument) {
    struct nvlxi_host_graph *graph = argument;
    struct keep *keep;
    struct nvlxi_host_job *job;
    if (atomic_fetch_sub(&graph->users, 1) > 1)
        return;
    while ((job = STAILQ_FIRST(&graph->jobs))) {
        STAILQ_REMOVE_HEAD(&graph->jobs, entry);
        nvlxi_host_job_free(job);
    }
    while ((keep = SLIST_FIRST(&graph->keeps))) {
        SLIST_REMOVE_HEAD(&graph->keeps, entry);
        keep->function(keep->argument);
        free(keep);
    }
    free(graph);
}

int nvlxi_host_capture_begin(struct nvlxi_lane *lane) {
    struct nvlxi_host_graph *graph = calloc(1, sizeof *graph);
    if (!graph)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a graph");
    STAILQ_INIT(&graph->jobs);
    SLIST_INIT(&graph->keeps);
    atomic_init(&graph->users, 1);
    nvlxi_host_lane_capture(lane, graph);
    return 0;
}

int nvlxi_host_capture_end(struct nvlxi_lane *lane, struct nvlxi_host_graph **graph) {
    struct nvlxi_host_graph *captured = nvlxi_host_lane_capture(lane, NULL);
    if (captured->broken) {
        drop(captured);
        return nvlxi_fail(NVLX_EDEVICE, "the capture was given what no graph takes");
    }
    *graph = captured;
    return 0;
}

static bool is_taken(enum nvlxi_host_job_kind kind) {
    switch (kind) {
    case NVLXI_JOB_LIST:
    case NVLXI_JOB_GRID:
    case NVLXI_JOB_KERNEL:
    case NVLXI_JOB_SIGNAL:
    case NVLXI_JOB_PACE:
    case NVLXI_JOB_BLOCKS:
        return true;
    default:
        return false;
    }
}

int nvlxi_host_graph_break(struct nvlxi_host_graph *graph) {
    graph->broken = true;
    return nvlxi_fail(NVLX_EDEVICE, "a graph does not take this: its capture has failed");
}

int nvlxi_host_graph_take(struct nvlxi_host_graph *graph, struct nvlxi_host_job *job) {
    if (is_taken(job->kind)) {
        STAILQ_INSERT_TAIL(&graph->jobs, job, entry);
        return 0;
    }
    nvlxi_host_job_free(job);
    return nvlxi_host_graph_break(graph);
}

int nvlxi_host_graph_launch(struct nvlxi_host_graph *graph, struct nvlxi_lane *lane) {
    const struct nvlxi_host_job *job;
    int code = 0;
    atomic_fetch_add(&graph->users, 1);
    STAILQ_FOREACH(job, &graph->jobs, entry) {
        struct nvlxi_host_job *again = code ? NULL : nvlxi_host_job_clone(job);
        if (!again)
            code = nvlxi_fail(NVLX_ENOMEM, "no memory to run a graph");
        else
            code = nvlxi_host_lane_queue(lane, again);
    }
    const int failed = nvlxi_host_lane_call(lane, drop, graph);
    if (failed)
        drop(graph);
    return code ? code : failed;
}

void nvlxi_host_graph_free(struct nvlxi_host_graph *graph) {
    drop(graph);
}

int nvlxi_host_stream_keep(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                           void (*function)(void *argument), void *argument) {
    (void)device;
    struct nvlxi_host_graph *graph = nvlxi_host_lane_graph(stream->handle);
    struct keep *keep = malloc(sizeof *keep);
    if (!keep)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for what a graph holds");
    *keep = (struct keep){.function = function, .argument = argument};
    SLIST_INSERT_HEAD(&graph->keeps, keep, entry);
    return 0;
}
