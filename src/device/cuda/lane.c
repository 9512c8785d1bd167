/* The cuda backend's lanes and events, and the caller's streams. The introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda/cuda.h"

#include <stdlib.h>

#include "base/error.h"

/* ---- Lanes and events -------------------------------------------------------------------------------- */

int nvlxi_cuda_lane_create(struct nvlxi_device *device, int gpu, int priority, struct nvlxi_lane **lane) {
    struct nvlxi_cuda_entry entry;
    struct nvlxi_lane *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a lane");
    *made = (struct nvlxi_lane){.device = device, .gpu = gpu};
    int code = nvlxi_cuda_enter(device, gpu, &entry);
    if (!code) {
        cudaError_t error =
            cudaStreamCreateWithPriority(&made->stream, cudaStreamNonBlocking, priority); /* clamps it */
        code = error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaStreamCreateWithPriority") : 0;
        nvlxi_cuda_leave(&entry);
    }
    if (code)
        free(made);
    else
        *lane = made;
    return code;
}

void nvlxi_cuda_lane_destroy(struct nvlxi_lane *lane) {
    struct nvlxi_cuda_entry entry;
    if (nvlxi_cuda_enter(lane->device, lane->gpu, &entry) == 0) {
        cudaStreamDestroy(lane->stream);
        nvlxi_cuda_leave(&entry);
    }
    free(lane);
}

/* As many as one call takes, without memory of its own. */
#define BATCH 64

static struct cudaMemLocation location_of(int gpu) {
    struct cudaMemLocation location = {.type = cudaMemLocationTypeHost};
    if (gpu != NVLXI_HOST_MEMORY) {
        location.type = cudaMemLocationTypeDevice;
        location.id = gpu;
    }
    return location;
}

static cudaError_t copy_batch(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count,
                              int destination_gpu, int source_gpu) {
    const void *sources[BATCH];
    void *destinations[BATCH];
    size_t lengths[BATCH], first = 0;
    struct cudaMemcpyAttributes attributes = {
        .srcAccessOrder = cudaMemcpySrcAccessOrderStream,
        .srcLocHint = location_of(source_gpu),
        .dstLocHint = location_of(destination_gpu),
    };
    for (size_t i = 0; i < count; i++) {
        sources[i] = (const void *)(uintptr_t)list[i].source;
        destinations[i] = (void *)(uintptr_t)list[i].destination;
        lengths[i] = list[i].length;
    }
#if CUDART_VERSION >= 13000
    return cudaMemcpyBatchAsync(destinations, sources, lengths, count, &attributes, &first, 1, lane->stream);
#else
    size_t failed;
    return cudaMemcpyBatchAsync(destinations, (void **)sources, lengths, count, &attributes, &first, 1, &failed,
                                lane->stream);
#endif
}

/* Of host memory CUDA itself sees where it is: cudaMemcpyPeerAsync and cudaMemcpy3DPeerAsync are for that of GPUs. A
 * capture ends with the former, and a batch is refused there (measured). */
static bool is_with_host(int destination_gpu, int source_gpu) {
    return destination_gpu == NVLXI_HOST_MEMORY || source_gpu == NVLXI_HOST_MEMORY;
}

static cudaError_t copy_one(struct nvlxi_lane *lane, const struct nvlxi_fragment *fragment, int destination_gpu,
                            int source_gpu) {
    void *to = (void *)(uintptr_t)fragment->destination;
    const void *from = (const void *)(uintptr_t)fragment->source;
    return is_with_host(destination_gpu, source_gpu) || lane->capturing
               ? cudaMemcpyAsync(to, from, fragment->length, cudaMemcpyDefault, lane->stream)
               : cudaMemcpyPeerAsync(to, destination_gpu, from, source_gpu, fragment->length, lane->stream);
}

/* One, or in a caller's stream: a batch that waits there blocks several of the GPU's channels (lanes.h), and the
 * default stream takes none. */
static cudaError_t copy_each(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count,
                             int destination_gpu, int source_gpu) {
    cudaError_t error = cudaSuccess;
    for (size_t i = 0; i < count && !error; i++)
        error = copy_one(lane, &list[i], destination_gpu, source_gpu);
    return error;
}

int nvlxi_cuda_copy_list(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count, int destination_gpu,
                         int source_gpu) {
    struct nvlxi_cuda_entry entry;
    cudaError_t error = cudaSuccess;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    if (lane->callers || count == 1)
        error = copy_each(lane, list, count, destination_gpu, source_gpu);
    else
        for (size_t done = 0; done < count && !error; done += BATCH)
            error =
                copy_batch(lane, list + done, count - done < BATCH ? count - done : BATCH, destination_gpu, source_gpu);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "issuing copies") : 0;
}

int nvlxi_cuda_copy(struct nvlxi_lane *lane, const struct nvlxi_copy *copy) {
    const struct nvlxi_fragment fragment = {copy->destination, copy->source, copy->length};
    return nvlxi_cuda_copy_list(lane, &fragment, 1, copy->destination_gpu, copy->source_gpu);
}

static void *pointer_to(uint64_t address) {
    return (void *)(uintptr_t)address;
}

/* One side of a 3D copy: from one time to the next are so many pitches. */
static struct cudaPitchedPtr side_of(uint64_t address, uint64_t length, uint64_t pitch, uint64_t pitches) {
    return (struct cudaPitchedPtr){.ptr = pointer_to(address), .pitch = pitch, .xsize = length, .ysize = pitches};
}

/* Between two GPUs of this process, which have no peer access to each other: as cudaMemcpyPeerAsync for fragments. */
static cudaError_t copy_between(const struct nvlxi_lane *lane, const struct cudaMemcpy3DParms *copy,
                                int destination_gpu, int source_gpu) {
    const struct cudaMemcpy3DPeerParms parameters = {.dstDevice = destination_gpu,
                                                     .dstPtr = copy->dstPtr,
                                                     .srcDevice = source_gpu,
                                                     .srcPtr = copy->srcPtr,
                                                     .extent = copy->extent};
    return cudaMemcpy3DPeerAsync(&parameters, lane->stream);
}

static cudaError_t copy_3d(const struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int destination_gpu,
                           int source_gpu) {
    const struct nvlxi_rows *rows = &grid->rows;
    const bool once = grid->times == 1;
    const struct cudaMemcpy3DParms copy = {
        .dstPtr = side_of(rows->destination, rows->length, rows->destination_pitch,
                          once ? rows->count : grid->destination_step / rows->destination_pitch),
        .srcPtr = side_of(rows->source, rows->length, rows->source_pitch,
                          once ? rows->count : grid->source_step / rows->source_pitch),
        .extent = {.width = rows->length, .height = rows->count, .depth = grid->times},
        .kind = cudaMemcpyDefault,
    };
    return destination_gpu == source_gpu || is_with_host(destination_gpu, source_gpu)
               ? cudaMemcpy3DAsync(&copy, lane->stream)
               : copy_between(lane, &copy, destination_gpu, source_gpu);
}

int nvlxi_cuda_copy_grid(struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int destination_gpu, int source_gpu) {
    struct nvlxi_cuda_entry entry;
    if (!nvlxi_grid_is_even(grid->rows.count, grid->rows.destination_pitch, grid->destination_step) ||
        !nvlxi_grid_is_even(grid->rows.count, grid->rows.source_pitch, grid->source_step))
        return nvlxi_fail(
            NVLX_EDEVICE,
            "a copy of rows several times whose steps are no whole numbers of pitches, or shorter than the rows");
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    cudaError_t error = copy_3d(lane, grid, destination_gpu, source_gpu);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "issuing a copy of rows several times") : 0;
}

static cudaError_t copy_2d(const struct nvlxi_lane *lane, const struct nvlxi_rows *rows, int destination_gpu,
                           int source_gpu) {
    const struct nvlxi_grid once = {.rows = *rows, .times = 1};
    return destination_gpu == source_gpu || is_with_host(destination_gpu, source_gpu)
               ? cudaMemcpy2DAsync(pointer_to(rows->destination), rows->destination_pitch, pointer_to(rows->source),
                                   rows->source_pitch, rows->length, rows->count, cudaMemcpyDefault, lane->stream)
               : copy_3d(lane, &once, destination_gpu, source_gpu);
}

int nvlxi_cuda_copy_rows(struct nvlxi_lane *lane, const struct nvlxi_rows *list, size_t count, int destination_gpu,
                         int source_gpu) {
    struct nvlxi_cuda_entry entry;
    cudaError_t error = cudaSuccess;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    for (const struct nvlxi_rows *rows = list; rows < list + count && !error; rows++)
        error = copy_2d(lane, rows, destination_gpu, source_gpu);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "issuing copies of rows") : 0;
}

int nvlxi_cuda_event_create(struct nvlxi_device *device, int gpu, struct nvlxi_event **event) {
    struct nvlxi_cuda_entry entry;
    struct nvlxi_event *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an event");
    *made = (struct nvlxi_event){.device = device, .gpu = gpu};
    int code = nvlxi_cuda_enter(device, gpu, &entry);
    if (!code) {
        cudaError_t error = cudaEventCreateWithFlags(&made->event, cudaEventDisableTiming);
        code = error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaEventCreateWithFlags") : 0;
        nvlxi_cuda_leave(&entry);
    }
    if (code)
        free(made);
    else
        *event = made;
    return code;
}

void nvlxi_cuda_event_destroy(struct nvlxi_event *event) {
    struct nvlxi_cuda_entry entry;
    if (nvlxi_cuda_enter(event->device, event->gpu, &entry) == 0) {
        cudaEventDestroy(event->event);
        nvlxi_cuda_leave(&entry);
    }
    free(event);
}

int nvlxi_cuda_event_record(struct nvlxi_lane *lane, struct nvlxi_event *event) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    cudaError_t error = cudaEventRecord(event->event, lane->stream);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaEventRecord") : 0;
}

/* What the driver says of an event or a stream that was asked whether it is complete. */
static int query_outcome(CUresult error) {
    if (error == CUDA_ERROR_NOT_READY)
        return NVLX_EAGAIN;
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "a copy, or other work on its GPU, failed") : 0;
}

/* By the driver, which needs no current context for this. */
int nvlxi_cuda_event_query(struct nvlxi_event *event) {
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&mode);
    CUresult error = nvlxi_cuda_driver.cuEventQuery(event->event);
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&mode);
    return query_outcome(error);
}

/* The default streams mean those of the current context. */
static int query_callers(const struct nvlxi_lane *lane) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    CUresult error = nvlxi_cuda_driver.cuStreamQuery(lane->stream);
    nvlxi_cuda_leave(&entry);
    return query_outcome(error);
}

int nvlxi_cuda_lane_query(struct nvlxi_lane *lane) {
    if (lane->callers)
        return query_callers(lane);
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&mode);
    CUresult error = nvlxi_cuda_driver.cuStreamQuery(lane->stream);
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&mode);
    return query_outcome(error);
}

int nvlxi_cuda_lane_call(struct nvlxi_lane *lane, void (*function)(void *argument), void *argument) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    cudaError_t error = cudaLaunchHostFunc(lane->stream, function, argument);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaLaunchHostFunc") : 0;
}

int nvlxi_cuda_lane_wait(struct nvlxi_lane *lane, struct nvlxi_event *event) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    cudaError_t error = cudaStreamWaitEvent(lane->stream, event->event, 0);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_runtime_failure(error, NVLX_EDEVICE, "cudaStreamWaitEvent") : 0;
}

/* ---- The caller's stream ----------------------------------------------------------------------------- */

/* The default streams mean those of the calling thread's current context, so this looks before any other is pushed. */
static int stream_context(void *stream, CUcontext *context, bool *capturing) {
    CUstreamCaptureStatus status;
    CUresult error = nvlxi_cuda_driver.cuStreamIsCapturing(stream, &status);
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_ENOTSUP, "the stream in the options cannot be used now");
    if (status == CU_STREAM_CAPTURE_STATUS_INVALIDATED)
        return nvlxi_fail(NVLX_ENOTSUP, "the stream in the options captures a graph, and that capture has failed");
    *capturing = status == CU_STREAM_CAPTURE_STATUS_ACTIVE;
    error = nvlxi_cuda_driver.cuStreamGetCtx(stream, context);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_ENOTSUP, "the stream in the options has no context") : 0;
}

/* The GPU whose primary context it is, of those that this engine has used. */
static bool find_used(struct nvlxi_device *device, CUcontext context, int *gpu) {
    for (*gpu = 0; *gpu < device->gpu_count; ++*gpu)
        if (atomic_load(&device->gpus[*gpu].context) == context)
            return true;
    return false;
}

/* The same of those that it may use, too: the context is retained then. */
static bool find_usable(struct nvlxi_device *device, CUcontext context, int *gpu) {
    CUcontext popped, primary;
    CUdevice handle;
    if (nvlxi_cuda_driver.cuCtxPushCurrent(context))
        return false;
    CUresult error = nvlxi_cuda_driver.cuCtxGetDevice(&handle);
    nvlxi_cuda_driver.cuCtxPopCurrent(&popped);
    for (*gpu = 0; !error && *gpu < device->gpu_count; ++*gpu) {
        const struct nvlxi_cuda_gpu *one = &device->gpus[*gpu];
        if (one->handle == handle)
            return (one->allowed || !device->only_listed) && nvlxi_cuda_is_active(one) &&
                   nvlxi_cuda_context(device, *gpu, &primary) == 0 && primary == context;
    }
    return false;
}

int nvlxi_cuda_stream_find(struct nvlxi_device *device, void *handle, struct nvlxi_stream *stream) {
    CUcontext context;
    unsigned long long id;
    int code = stream_context(handle, &context, &stream->capturing);
    if (code)
        return code;
    stream->handle = handle;
    if (!find_used(device, context, &stream->gpu) && !find_usable(device, context, &stream->gpu))
        return nvlxi_fail(NVLX_ENOTSUP,
                          "the stream in the options is not of the primary context of a GPU that this engine uses");
    stream->id = 0;
    if (stream->capturing) /* asking for its number ends the capture (measured) */
        return 0;
    CUresult error = nvlxi_cuda_driver.cuStreamGetId(handle, &id);
    stream->id = id;
    return error ? nvlxi_cuda_driver_failure(error, NVLX_ENOTSUP, "the stream in the options has no id") : 0;
}

static struct nvlxi_lane lane_of(struct nvlxi_device *device, const struct nvlxi_stream *stream) {
    return (struct nvlxi_lane){.device = device,
                               .gpu = stream->gpu,
                               .callers = true,
                               .capturing = stream->capturing,
                               .stream = stream->handle};
}

int nvlxi_cuda_stream_record(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                             struct nvlxi_event *event) {
    struct nvlxi_lane lane = lane_of(device, stream);
    return nvlxi_cuda_event_record(&lane, event);
}

int nvlxi_cuda_stream_wait(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event) {
    struct nvlxi_lane lane = lane_of(device, stream);
    return nvlxi_cuda_lane_wait(&lane, event);
}

int nvlxi_cuda_stream_lane(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_lane **lane) {
    struct nvlxi_lane *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a lane");
    *made = lane_of(device, stream);
    *lane = made;
    return 0;
}

void nvlxi_cuda_stream_lane_end(struct nvlxi_lane *lane) {
    free(lane);
}
