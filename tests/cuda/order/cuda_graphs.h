/* What the files of cuda_graphs share. SPDX-License-Identifier: Apache-2.0 */
#ifndef CUDA_GRAPHS_H
#define CUDA_GRAPHS_H

#include <stdio.h>

#include "cuda/support/cuda_support.h"

#define NAME         64
#define MODE_SECONDS 60u /* of each mode; of each kill */

enum { SIGNALLED, MARK, REACHED, PRODUCED, CHECKED, COUNTS }; /* what each count is for */

/* Both processes have the same. The first one, which the test is, leads. */
struct side {
    bool leads;
    int socket;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    uint64_t *counts;
    uint32_t *source, *target; /* BYTES each */
    uint32_t *ids;             /* 2 * IDS */
    struct nvlx_region *region_of_source, *region_of_target;
    uint64_t their_counts, their_source, their_target; /* as the peer calls them */
    unsigned long long *wrong;
    cudaStream_t stream;
    struct nvlx_transfer_options in_stream;
};

static inline void name_of(char name[NAME], bool leader, int pid) {
    snprintf(name, NAME, "@nvlx-cuda-graphs-%d-%s", pid, leader ? "leader" : "follower");
}

/* ---- Graphs ------------------------------------------------------------------------------------------------ */

struct graph {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
};

static inline void capture(const struct side *side) {
    CUDA(cudaStreamBeginCapture(side->stream, cudaStreamCaptureModeThreadLocal));
}

static inline bool is_capturing(const struct side *side) {
    enum cudaStreamCaptureStatus status;
    CUDA(cudaStreamIsCapturing(side->stream, &status));
    return status == cudaStreamCaptureStatusActive;
}

static inline struct graph captured(const struct side *side) {
    struct graph made;
    EXPECT(is_capturing(side));
    CUDA(cudaStreamEndCapture(side->stream, &made.graph));
    CUDA(cudaGraphInstantiate(&made.exec, made.graph, 0));
    return made;
}

static inline void replay(const struct side *side, const struct graph *graph) {
    CUDA(cudaGraphLaunch(graph->exec, side->stream));
    CUDA(cudaStreamSynchronize(side->stream));
}

static inline void destroy(const struct graph *graph) {
    CUDA(cudaGraphExecDestroy(graph->exec));
    CUDA(cudaGraphDestroy(graph->graph));
}

/* ---- In cuda_graphs_killed.c --------------------------------------------------------------------------------- */

enum { KILLS = 10 };

/* The other process is on this GPU. */
void killed(int gpu, int kills);
void producer_role(int socket);

#endif
