/* Graphs of the host backend, for tests: a lane records what it is given, to be done again and again.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * As CUDA's, a capture ends badly if it is given what graphs do not take. What a graph keeps (device.h, stream_keep)
 * goes when it was freed and none of its runs is left: the last of them lets it go, in the thread of a lane. */
#ifndef NVLXI_DEVICE_HOST_GRAPH_H
#define NVLXI_DEVICE_HOST_GRAPH_H

#include "device/device.h"

struct nvlxi_host_job;
struct nvlxi_host_graph;

int nvlxi_host_capture_begin(struct nvlxi_lane *lane);
/* NVLX_EDEVICE, and no graph: it was given what it does not take. */
int nvlxi_host_capture_end(struct nvlxi_lane *lane, struct nvlxi_host_graph **graph);
/* Queues all that was captured once more. */
int nvlxi_host_graph_launch(struct nvlxi_host_graph *graph, struct nvlxi_lane *lane);
void nvlxi_host_graph_free(struct nvlxi_host_graph *graph);

/* Between lane.c and graph.c. */
struct nvlxi_host_graph *nvlxi_host_lane_capture(struct nvlxi_lane *lane, struct nvlxi_host_graph *graph);
struct nvlxi_host_graph *nvlxi_host_lane_graph(struct nvlxi_lane *lane); /* NULL: it captures none */
int nvlxi_host_graph_break(struct nvlxi_host_graph *graph);
int nvlxi_host_graph_take(struct nvlxi_host_graph *graph, struct nvlxi_host_job *job);

#endif
