/* What graphs hold: see device.h's stream_keep. The introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A user object is held by the graph that a stream captures, by every graph and executable that is made from that one,
 * and by each of their runs. The last of them calls its destructor, in a thread of CUDA's, which must call no CUDA
 * (NVIDIA: CUDA Programming Guide, CUDA User Objects). */
#include <stdatomic.h>
#include <stdlib.h>

#include "base/error.h"
#include "device/cuda/cuda.h"

struct keep {
    void (*function)(void *argument);
    void *argument;
    atomic_bool dropped; /* the graph did not take it: nothing is called */
};

static void CUDA_CB end_keep(void *argument) {
    struct keep *keep = argument;
    if (!atomic_load(&keep->dropped))
        keep->function(keep->argument);
    free(keep);
}

/* Hands the object over to the graph. */
static int give(const struct nvlxi_stream *stream, CUuserObject object, struct keep *keep) {
    CUstreamCaptureStatus status;
    CUgraph graph = NULL;
    CUresult error = nvlxi_cuda_driver.cuStreamGetCaptureInfo(stream->handle, &status, NULL, &graph, NULL, NULL);
    if (!error && status == CU_STREAM_CAPTURE_STATUS_ACTIVE)
        error = nvlxi_cuda_driver.cuGraphRetainUserObject(graph, object, 1, CU_GRAPH_USER_OBJECT_MOVE);
    else if (!error)
        error = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (!error)
        return 0;
    atomic_store(&keep->dropped, true);
    nvlxi_cuda_driver.cuUserObjectRelease(object, 1);
    return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "the graph that the stream captures takes no user object");
}

int nvlxi_cuda_stream_keep(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                           void (*function)(void *argument), void *argument) {
    struct nvlxi_cuda_entry entry;
    CUuserObject object;
    struct keep *keep = malloc(sizeof *keep);
    if (!keep)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for what a graph holds");
    *keep = (struct keep){.function = function, .argument = argument};
    int code = nvlxi_cuda_enter(device, stream->gpu, &entry);
    if (code) {
        free(keep);
        return code;
    }
    CUresult error =
        nvlxi_cuda_driver.cuUserObjectCreate(&object, keep, end_keep, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC);
    if (error) {
        free(keep);
        code = nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuUserObjectCreate");
    } else {
        code = give(stream, object, keep);
    }
    nvlxi_cuda_leave(&entry);
    return code;
}
