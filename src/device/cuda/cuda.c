/* The cuda backend. How sharing works on NVIDIA GPUs, in the order in which a reader needs it:
 *
 * - cudaMalloc memory is shared by a legacy IPC handle. The handle names the whole allocation, whichever pointer into
 * it was asked; who opens it gets the allocation's base. cuMemGetAddressRange tells base and size of the allocation
 * under any pointer.
 * - The importer opens the handle on a GPU of its own: the mapping then counts as memory of that GPU, whatever the
 * exporter calls its GPU, and also where CUDA_VISIBLE_DEVICES hides the exporter's GPU from the importer. There is no
 * local ordinal of the exporter's GPU.
 * - A buffer id is unique in a process for ever, so it tells a re-allocated block from the old one at the same address.
 * - The exporter's free is not seen by importers: their mapping goes on showing the old bytes.
 * - Memory of cuMemCreate (VMM) comes in chunks, which its owner maps at addresses of its choice; PyTorch's expandable
 * segments are such. A chunk made for it is shared by a file descriptor, which reaches other users and containers over
 * a socket; the importer maps chunks back to back, as the owner has them, so that one copy may cross them, and
 * read-only if it likes. cuMemGetAddressRange gives the chunk. A chunk that is mapped anew has a new buffer id.
 * - An importer's chunk cannot be passed on: its handle types are 0, as are those of a chunk made without any.
 * - A stream-ordered pool (cudaMallocAsync) made for it is shared by a file descriptor, once, and then each allocation
 * by 64 bytes. The pool that cudaMallocAsync takes by default was not made for it.
 * - A fabric handle is 64 bytes for a chunk, and needs no descriptor. Whether there are any (they take an IMEX channel)
 * is only told by asking for one.
 * - The first launch of a kernel loads it, which waits until all that runs in the context is over. So kernels are
 * loaded ahead, by calls that say that they may wait; until then copy engines do without.
 * - A stream takes about 1,000 operations that are not done; the next one waits on the CPU.
 * - An event query while another thread captures a graph in global mode would break that capture; in relaxed mode it
 * does not. So every entry exchanges this thread's capture mode, as it pushes the context that it needs, unless that is
 * the current one, and takes both back on the way out. (Measured with driver 580 and CUDA 13.0.)
 *
 * Driver functions come through cudaGetDriverEntryPointByVersion, so that the library loads on machines without a
 * driver. Threads: a device's `mutex` guards `context`, `pool` and `records`; all else is set in open, or by who sets
 * `loading`.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda/cuda.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/identity.h"
#include "base/log.h"
#include "device/cuda/digest.h"
#include "device/cuda/link.h"

_Static_assert(sizeof(cudaIpcMemHandle_t) == NVLXI_HANDLE_BYTES, "a legacy IPC handle fills a handle");

/* ---- The driver -------------------------------------------------------------------------------------- */

struct nvlxi_cuda_driver nvlxi_cuda_driver;

static int load_function(const char *name, unsigned version, void **function) {
    enum cudaDriverEntryPointQueryResult found;
    cudaError_t error = cudaGetDriverEntryPointByVersion(name, function, version, cudaEnableDefault, &found);
    if (error == cudaSuccess && found == cudaDriverEntryPointSuccess)
        return 0;
    if (error)
        cudaGetLastError();
    return nvlxi_fail(NVLX_EBACKEND, "the CUDA driver does not have %s of version %u: %s", name, version,
                      error ? cudaGetErrorString(error) : "not found");
}

static int load_driver_once(void) {
    int code = 0;
#define LOAD(name, version, type)                                                                                      \
    if (!code)                                                                                                         \
        code = load_function(#name, version, (void **)&nvlxi_cuda_driver.name);
    DRIVER_FUNCTIONS(LOAD)
#undef LOAD
    return code;
}

static pthread_mutex_t driver_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool driver_loaded;

static int load_driver(void) {
    pthread_mutex_lock(&driver_mutex);
    int code = driver_loaded ? 0 : load_driver_once();
    driver_loaded = code == 0;
    pthread_mutex_unlock(&driver_mutex);
    return code;
}

static atomic_bool cuda_used; /* it was asked for GPUs, here or in this process's parent */
static atomic_bool cuda_lost; /* it was, in the parent */

void nvlxi_device_cuda_fork(enum nvlxi_fork_phase phase) {
    nvlxi_cuda_pools_fork(phase);
    nvlxi_cuda_vmm_fork(phase);
    if (phase == NVLXI_BEFORE_FORK) {
        pthread_mutex_lock(&driver_mutex);
        return;
    }
    if (phase == NVLXI_IN_CHILD)
        atomic_store(&cuda_lost, atomic_load(&cuda_used));
    pthread_mutex_unlock(&driver_mutex);
}

/* The runtime's error becomes ours, in its own words; it is taken off the thread, where the caller's next check would
 * find it. */
int(nvlxi_cuda_runtime_failure)(cudaError_t error, int code, const char *what) {
    cudaGetLastError();
    return nvlxi_fail(code, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

int(nvlxi_cuda_driver_failure)(CUresult error, int code, const char *what) {
    const char *text = "unknown error", *name = "?";
    nvlxi_cuda_driver.cuGetErrorString(error, &text);
    nvlxi_cuda_driver.cuGetErrorName(error, &name);
    return nvlxi_fail(code, "%s: %s (%s)", what, text, name);
}

/* ---- Contexts ---------------------------------------------------------------------------------------- */

bool nvlxi_cuda_is_active(const struct nvlxi_cuda_gpu *gpu) {
    unsigned flags;
    int active = 0;
    nvlxi_cuda_driver.cuDevicePrimaryCtxGetState(gpu->handle, &flags, &active);
    return active;
}

/* Where they are not told, all streams get the usual one. */
static void read_priorities(CUcontext context, int *least, int *most) {
    CUcontext popped;
    *least = *most = 0;
    if (nvlxi_cuda_driver.cuCtxPushCurrent(context))
        return;
    if (nvlxi_cuda_driver.cuCtxGetStreamPriorityRange(least, most))
        *least = *most = 0;
    nvlxi_cuda_driver.cuCtxPopCurrent(&popped);
}

bool nvlxi_cuda_may_enter(const struct nvlxi_device *device, int gpu) {
    if (gpu < 0 || gpu >= device->gpu_count)
        return false;
    const struct nvlxi_cuda_gpu *one = &device->gpus[gpu];
    return atomic_load(&one->allowed) || (!device->only_listed && nvlxi_cuda_is_active(one));
}

static int may_retain(const struct nvlxi_device *device, int ordinal) {
    const struct nvlxi_cuda_gpu *gpu = &device->gpus[ordinal];
    if (atomic_load(&gpu->allowed))
        return 0;
    if (device->only_listed)
        return nvlxi_fail(NVLX_EINVAL, "GPU %d is not in config.gpus", ordinal);
    if (nvlxi_cuda_is_active(gpu))
        return 0;
    return nvlxi_fail(NVLX_EINVAL, "GPU %d has no active context: name it in config.gpus, or use it before", ordinal);
}

/* To make a context takes long, so no lock is held meanwhile: of two threads, the slower one gives back what it got. */
static int retain(struct nvlxi_device *device, int ordinal) {
    struct nvlxi_cuda_gpu *gpu = &device->gpus[ordinal];
    CUcontext context;
    int least, most, code = may_retain(device, ordinal);
    if (code)
        return code;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&mode);
    CUresult error = nvlxi_cuda_driver.cuDevicePrimaryCtxRetain(&context, gpu->handle);
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&mode);
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuDevicePrimaryCtxRetain");
    read_priorities(context, &least, &most);
    pthread_mutex_lock(&device->mutex);
    const bool first = !atomic_load(&gpu->context);
    if (first) {
        gpu->priority_least = least;
        gpu->priority_most = most;
        atomic_store(&gpu->context, context);
    }
    pthread_mutex_unlock(&device->mutex);
    if (!first)
        nvlxi_cuda_driver.cuDevicePrimaryCtxRelease(gpu->handle);
    return 0;
}

static int check_gpu(const struct nvlxi_device *device, int gpu) {
    if (gpu >= 0 && gpu < device->gpu_count)
        return 0;
    return nvlxi_fail(NVLX_EINVAL, "GPU %d is not one of the %d GPUs here", gpu, device->gpu_count);
}

int nvlxi_cuda_context(struct nvlxi_device *device, int gpu, CUcontext *context) {
    int code = check_gpu(device, gpu);
    if (code)
        return code;
    _Atomic(CUcontext) *retained = &device->gpus[gpu].context;
    if (!atomic_load(retained))
        code = retain(device, gpu);
    *context = atomic_load(retained);
    return code;
}

void nvlxi_cuda_allow(struct nvlxi_device *device, int gpu) {
    if (gpu >= 0 && gpu < device->gpu_count && !device->only_listed)
        atomic_store(&device->gpus[gpu].allowed, true);
}

int nvlxi_cuda_enter(struct nvlxi_device *device, int gpu, struct nvlxi_cuda_entry *entry) {
    CUcontext context, current = NULL;
    int code = nvlxi_cuda_context(device, gpu, &context);
    if (code)
        return code;
    nvlxi_cuda_driver.cuCtxGetCurrent(&current);
    entry->pushed = current != context;
    CUresult error = entry->pushed ? nvlxi_cuda_driver.cuCtxPushCurrent(context) : CUDA_SUCCESS;
    if (error)
        return nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "cuCtxPushCurrent");
    entry->mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&entry->mode);
    return 0;
}

void nvlxi_cuda_leave(struct nvlxi_cuda_entry *entry) {
    CUcontext popped;
    nvlxi_cuda_driver.cuThreadExchangeStreamCaptureMode(&entry->mode);
    if (entry->pushed)
        nvlxi_cuda_driver.cuCtxPopCurrent(&popped);
}

/* A GPU for whose architecture there is no kernel goes without: its transfers take the copy engines. */
static void load_kernels(struct nvlxi_cuda_gpu *gpu, int ordinal) {
    int sms = 0;
    cudaError_t error = nvlxi_cuda_load_kernels(&gpu->kernels);
    if (!error)
        error = nvlxi_cuda_load_blocks(&gpu->kernels);
    if (!error)
        error = nvlxi_cuda_load_digest(&gpu->digest);
    if (!error)
        error = nvlxi_cuda_load_counters(&gpu->counters);
    if (!error)
        error = nvlxi_cuda_load_toucher(&gpu->toucher);
    if (!error)
        error = cudaStreamCreateWithFlags(&gpu->waker, cudaStreamNonBlocking);
    if (!error)
        error = cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, ordinal);
    if (!error) {
        atomic_store(&gpu->sms, (uint32_t)sms);
        return;
    }
    cudaGetLastError();
    nvlxi_log(NVLX_LOG_WARNING, "the kernels do not load: transfers of GPU %d take the copy engines: %s (%s)", ordinal,
              cudaGetErrorString(error), cudaGetErrorName(error));
}

/* The first who comes loads them, whom the others do not wait for: they may be meant to end what it waits for. */
void nvlxi_cuda_load(struct nvlxi_device *device, int gpu) {
    struct nvlxi_cuda_entry entry;
    if (atomic_load(&device->gpus[gpu].loading) || nvlxi_cuda_enter(device, gpu, &entry))
        return;
    if (!atomic_exchange(&device->gpus[gpu].loading, true))
        load_kernels(&device->gpus[gpu], gpu);
    nvlxi_cuda_leave(&entry);
}

int nvlxi_cuda_any_gpu(struct nvlxi_device *device) {
    for (int gpu = 0; gpu < device->gpu_count; gpu++)
        if (atomic_load(&device->gpus[gpu].context))
            return gpu;
    for (int gpu = 0; gpu < device->gpu_count; gpu++)
        if (nvlxi_cuda_is_active(&device->gpus[gpu]))
            return gpu;
    return -1;
}

/* ---- Device ------------------------------------------------------------------------------------------ */

/* The runtime would say of a machine without any driver that its version is insufficient. */
static int find_driver(void) {
    /* cppcheck-suppress leakNoVarFunctionCall ; it stays loaded: the runtime takes it next */
    if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))
        return 0;
    const char *reason = dlerror();
    bool missing = reason && strstr(reason, "No such file");
    return nvlxi_fail(NVLX_EBACKEND, "the cuda backend cannot run: %s (%s)",
                      missing ? "no NVIDIA driver found" : "the NVIDIA driver's library does not load",
                      reason ? reason : "libcuda.so.1");
}

static int count_failure(cudaError_t error) {
    int version = 0;
    if (error == cudaErrorInitializationError)
        return nvlxi_cuda_runtime_failure(error, NVLX_EBACKEND,
                                          "the cuda backend cannot run, as in a child forked after CUDA was used");
    if (error != cudaErrorInsufficientDriver || cudaDriverGetVersion(&version) || !version)
        return nvlxi_cuda_runtime_failure(error, NVLX_EBACKEND, "the cuda backend cannot run");
    cudaGetLastError();
    return nvlxi_fail(NVLX_EBACKEND,
                      "the cuda backend cannot run: the NVIDIA driver is for CUDA %d.%d, older than %d.%d, with which "
                      "this library was built",
                      version / 1000, version % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

static int cuda_count(int *gpus) {
    if (atomic_load(&cuda_lost))
        return nvlxi_fail(NVLX_EBACKEND,
                          "the cuda backend cannot run: this is a forked child, and CUDA was used before "
                          "the fork; start such a process anew (exec, spawn)");
    if (!atomic_load(&cuda_used)) {
        int code = find_driver();
        if (code)
            return code;
        atomic_store(&cuda_used, true);
    }
    cudaError_t error = cudaGetDeviceCount(gpus);
    if (error) {
        atomic_store(&cuda_used, false);
        return count_failure(error);
    }
    if (*gpus == 0)
        return nvlxi_fail(NVLX_EBACKEND, "the cuda backend cannot run: no GPU is visible");
    return load_driver();
}

static int open_named(struct nvlxi_device *device, const int *gpus, size_t gpu_count) {
    for (size_t i = 0; i < gpu_count; i++) {
        CUcontext context;
        if (gpus[i] >= 0 && gpus[i] < device->gpu_count)
            atomic_store(&device->gpus[gpus[i]].allowed, true);
        int code = nvlxi_cuda_context(device, gpus[i], &context);
        if (code)
            return code;
        nvlxi_cuda_load(device, gpus[i]);
    }
    return 0;
}

static void load_active(struct nvlxi_device *device) {
    for (int ordinal = 0; ordinal < device->gpu_count; ordinal++)
        if (nvlxi_cuda_is_active(&device->gpus[ordinal]))
            nvlxi_cuda_load(device, ordinal);
}

static int open_gpus(struct nvlxi_device *device, const int *gpus, size_t gpu_count) {
    for (int ordinal = 0; ordinal < device->gpu_count; ordinal++) {
        struct nvlxi_cuda_gpu *gpu = &device->gpus[ordinal];
        CUresult error = nvlxi_cuda_driver.cuDeviceGet(&gpu->handle, ordinal);
        if (!error)
            error = nvlxi_cuda_driver.cuDeviceGetUuid(&gpu->uuid, gpu->handle);
        if (error)
            return nvlxi_cuda_driver_failure(error, NVLX_EBACKEND, "cuDeviceGetUuid");
    }
    if (gpus)
        return open_named(device, gpus, gpu_count);
    load_active(device);
    return 0;
}

static void cuda_close(struct nvlxi_device *device) {
    nvlxi_cuda_links_close(device);
    nvlxi_cuda_pools_close(device);
    for (int ordinal = 0; ordinal < device->gpu_count; ordinal++)
        if (device->gpus[ordinal].context)
            nvlxi_cuda_driver.cuDevicePrimaryCtxRelease(device->gpus[ordinal].handle);
    pthread_mutex_destroy(&device->links_mutex);
    pthread_mutex_destroy(&device->mutex);
    free(device);
}

static int cuda_open(const int *gpus, size_t gpu_count, struct nvlxi_device **device) {
    int count, code = cuda_count(&count);
    if (code)
        return code;
    struct nvlxi_device *made = calloc(1, sizeof *made + (size_t)count * sizeof made->gpus[0]);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %d GPUs", count);
    made->gpu_count = count;
    made->only_listed = gpus != NULL;
    pthread_mutex_init(&made->mutex, NULL);
    pthread_mutex_init(&made->links_mutex, NULL);
    code = nvlxi_identity_make(&made->identity);
    if (!code)
        code = open_gpus(made, gpus, gpu_count);
    if (code) {
        cuda_close(made);
        return code;
    }
    *device = made;
    return 0;
}

static int cuda_uuid(struct nvlxi_device *device, int gpu, uint8_t uuid[NVLXI_UUID_BYTES]) {
    int code = check_gpu(device, gpu);
    if (!code)
        memcpy(uuid, device->gpus[gpu].uuid.bytes, NVLXI_UUID_BYTES);
    return code;
}

static int cuda_limits(struct nvlxi_device *device, int gpu, struct nvlxi_gpu_limits *limits) {
    int code = check_gpu(device, gpu);
    if (code)
        return code;
    const struct nvlxi_cuda_gpu *found = &device->gpus[gpu];
    *limits = (struct nvlxi_gpu_limits){atomic_load(&found->sms), found->priority_least, found->priority_most};
    return 0;
}

const struct nvlxi_device_ops nvlxi_device_cuda = {
    .name = "cuda",
    .count = cuda_count,
    .open = cuda_open,
    .close = cuda_close,
    .uuid = cuda_uuid,
    .alloc = nvlxi_cuda_alloc,
    .free = nvlxi_cuda_free,
    .memcpy = nvlxi_cuda_memcpy,
    .resolve = nvlxi_cuda_resolve,
    .alive = nvlxi_cuda_alive,
    .let_use = nvlxi_cuda_let_use,
    .export_handle = nvlxi_cuda_export_handle,
    .export_file = nvlxi_cuda_export_file,
    .map = nvlxi_cuda_map,
    .unmap = nvlxi_cuda_unmap,
    .link = nvlxi_cuda_link,
    .unlink = nvlxi_cuda_unlink,
    .wake = nvlxi_cuda_wake,
    .load = nvlxi_cuda_load,
    .limits = cuda_limits,
    .list_alloc = nvlxi_cuda_list_alloc,
    .list_free = nvlxi_cuda_list_free,
    .lane_create = nvlxi_cuda_lane_create,
    .lane_destroy = nvlxi_cuda_lane_destroy,
    .lane_query = nvlxi_cuda_lane_query,
    .lane_call = nvlxi_cuda_lane_call,
    .copy = nvlxi_cuda_copy,
    .copy_list = nvlxi_cuda_copy_list,
    .copy_rows = nvlxi_cuda_copy_rows,
    .copy_grid = nvlxi_cuda_copy_grid,
    .copy_kernel = nvlxi_cuda_copy_kernel,
    .copy_blocks = nvlxi_cuda_copy_blocks,
    .ids_check = nvlxi_cuda_ids_check,
    .digest = nvlxi_cuda_digest,
    .signal = nvlxi_cuda_signal,
    .await = nvlxi_cuda_await,
    .await_gated = nvlxi_cuda_await_gated,
    .await_paced = nvlxi_cuda_await_paced,
    .signal_read = nvlxi_cuda_signal_read,
    .event_create = nvlxi_cuda_event_create,
    .event_destroy = nvlxi_cuda_event_destroy,
    .event_record = nvlxi_cuda_event_record,
    .event_query = nvlxi_cuda_event_query,
    .lane_wait = nvlxi_cuda_lane_wait,
    .stream_find = nvlxi_cuda_stream_find,
    .stream_record = nvlxi_cuda_stream_record,
    .stream_wait = nvlxi_cuda_stream_wait,
    .stream_lane = nvlxi_cuda_stream_lane,
    .stream_lane_end = nvlxi_cuda_stream_lane_end,
    .stream_keep = nvlxi_cuda_stream_keep,
};
