/* The host backend: software GPUs in shared memory between real processes, so that all above device.h can run and be
 * tested on a machine without a GPU. It refuses at least what CUDA refuses.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A "GPU" is only a number: its memory is device/host/memory.c's and that of one file a kind, its engines are the
 * worker threads of device/host/lane.c. There are NVLX_HOST_GPUS of them, and every process sees the same ones. Its
 * context in a process is the count of devices that have retained it: nothing needs it, but CUDA refuses without. */
#include "device/host/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "device/host/count.h"

#define DEFAULT_GPUS 2

static int host_count(int *gpus) {
    const char *text = getenv("NVLX_HOST_GPUS");
    if (!text) {
        *gpus = DEFAULT_GPUS;
        return 0;
    }
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value < 1 || value > NVLXI_HOST_GPUS_MAX)
        return nvlxi_fail(NVLX_EBACKEND, "NVLX_HOST_GPUS is '%s'; it must be a number from 1 to %d", text,
                          NVLXI_HOST_GPUS_MAX);
    *gpus = (int)value;
    return 0;
}

/* ---- Contexts ---------------------------------------------------------------------------------------- */

static atomic_uint contexts[NVLXI_HOST_GPUS_MAX]; /* of this process: how often each was retained */

static bool is_retained(struct nvlxi_device *device, int gpu) {
    return atomic_load(&device->contexts) >> gpu & 1;
}

static void retain(struct nvlxi_device *device, int gpu) {
    const uint64_t bit = UINT64_C(1) << gpu;
    if (!(atomic_fetch_or(&device->contexts, bit) & bit))
        atomic_fetch_add(&contexts[gpu], 1);
}

static int check_ordinal(const struct nvlxi_device *device, int gpu) {
    if (gpu < 0 || gpu >= device->gpus)
        return nvlxi_fail(NVLX_EINVAL, "GPU %d was asked for, but there are %d GPUs", gpu, device->gpus);
    return 0;
}

int nvlxi_host_name_gpu(struct nvlxi_device *device, int gpu) {
    int code = check_ordinal(device, gpu);
    if (code || is_retained(device, gpu))
        return code;
    if (device->only_listed)
        return nvlxi_fail(NVLX_EINVAL, "GPU %d is not in config.gpus", gpu);
    retain(device, gpu);
    return 0;
}

int nvlxi_host_check_gpu(struct nvlxi_device *device, int gpu) {
    int code = check_ordinal(device, gpu);
    if (!code && !device->only_listed && !atomic_load(&contexts[gpu]))
        return nvlxi_fail(NVLX_EINVAL, "GPU %d has no active context: name it in config.gpus, or use it before", gpu);
    return code ? code : nvlxi_host_name_gpu(device, gpu);
}

static bool may_enter(struct nvlxi_device *device, int gpu) {
    return is_retained(device, gpu) || (!device->only_listed && atomic_load(&contexts[gpu]));
}

int nvlxi_host_home(struct nvlxi_device *device, int gpu) {
    if (gpu >= 0 && gpu < device->gpus && may_enter(device, gpu))
        return gpu;
    for (int other = 0; other < device->gpus; other++)
        if (may_enter(device, other))
            return other;
    return gpu;
}

/* ---- Devices ----------------------------------------------------------------------------------------- */

static int host_open(const int *gpus, size_t gpu_count, struct nvlxi_device **device) {
    int count, code = host_count(&count);
    if (code)
        return code;
    for (size_t i = 0; gpus && i < gpu_count; i++)
        if (gpus[i] < 0 || gpus[i] >= count)
            return nvlxi_fail(NVLX_EINVAL, "config.gpus[%zu] is %d, but there are %d GPUs", i, gpus[i], count);
    struct nvlxi_device *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a device");
    made->gpus = count;
    made->only_listed = gpus != NULL;
    for (size_t i = 0; gpus && i < gpu_count; i++)
        retain(made, gpus[i]);
    *device = made;
    return 0;
}

static void host_close(struct nvlxi_device *device) {
    for (int gpu = 0; gpu < device->gpus; gpu++)
        if (is_retained(device, gpu))
            atomic_fetch_sub(&contexts[gpu], 1);
    free(device);
}

static int host_uuid(struct nvlxi_device *device, int gpu, uint8_t uuid[NVLXI_UUID_BYTES]) {
    static const char family[NVLXI_UUID_BYTES] = "nvlxfer-hostgpu";
    int code = check_ordinal(device, gpu);
    if (code)
        return code;
    memcpy(uuid, family, NVLXI_UUID_BYTES);
    uuid[NVLXI_UUID_BYTES - 1] = (uint8_t)gpu;
    return 0;
}

struct nvlxi_link {
    int gpu, other;
};

/* Opening is as cheap without. What is made here shows who forgets it. */
static struct nvlxi_link *host_link(struct nvlxi_device *device, int gpu, const uint8_t uuid[NVLXI_UUID_BYTES]) {
    uint8_t own[NVLXI_UUID_BYTES];
    int other = -1;
    for (int i = 0; other < 0 && i < device->gpus; i++)
        if (!host_uuid(device, i, own) && !memcmp(own, uuid, sizeof own))
            other = i;
    struct nvlxi_link *made = other < 0 || other == gpu ? NULL : malloc(sizeof *made);
    if (made)
        *made = (struct nvlxi_link){gpu, other};
    return made;
}

static void host_unlink(struct nvlxi_device *device, struct nvlxi_link *link) {
    (void)device;
    free(link);
}

/* Nothing sleeps. */
static void host_wake(struct nvlxi_device *device, struct nvlxi_link *link) {
    (void)device;
    (void)link;
}

static int host_memcpy(struct nvlxi_device *device, void *destination, const void *source, size_t length) {
    (void)device;
    const struct nvlxi_fragment fragment = {(uintptr_t)destination, (uintptr_t)source, length};
    int code = length ? nvlxi_host_check_copies(NVLXI_ANY_GPU, &fragment, 1, NVLX_ERANGE) : 0;
    if (code)
        return code;
    memcpy(destination, source, length);
    return 0;
}

/* As an H100 has them. */
static int host_limits(struct nvlxi_device *device, int gpu, struct nvlxi_gpu_limits *limits) {
    int code = nvlxi_host_check_gpu(device, gpu);
    if (!code)
        *limits = (struct nvlxi_gpu_limits){.sms = 132, .priority_least = 0, .priority_most = -5};
    return code;
}

static void host_load(struct nvlxi_device *device, int gpu) {
    (void)device; /* its kernels are functions of the library */
    (void)gpu;
}

static int host_list_alloc(struct nvlxi_device *device, size_t size, void **memory) {
    (void)device;
    *memory = malloc(size);
    return *memory ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %zu bytes", size);
}

static void host_list_free(struct nvlxi_device *device, void *memory) {
    (void)device;
    free(memory);
}

/* No two of their locks are held together elsewhere. Contexts are the parent's alone. */
void nvlxi_device_host_fork(enum nvlxi_fork_phase phase) {
    for (int gpu = 0; phase == NVLXI_IN_CHILD && gpu < NVLXI_HOST_GPUS_MAX; gpu++)
        atomic_store(&contexts[gpu], 0);
    nvlxi_host_pools_fork(phase);
    nvlxi_host_memory_fork(phase);
    nvlxi_host_lanes_fork(phase);
}

const struct nvlxi_device_ops nvlxi_device_host = {
    .name = "host",
    .count = host_count,
    .open = host_open,
    .close = host_close,
    .uuid = host_uuid,
    .alloc = nvlxi_host_alloc,
    .free = nvlxi_host_free,
    .memcpy = host_memcpy,
    .resolve = nvlxi_host_resolve,
    .alive = nvlxi_host_alive,
    .let_use = nvlxi_host_let_use,
    .export_handle = nvlxi_host_export,
    .export_file = nvlxi_host_export_file,
    .map = nvlxi_host_map,
    .unmap = nvlxi_host_unmap,
    .link = host_link,
    .unlink = host_unlink,
    .wake = host_wake,
    .load = host_load,
    .limits = host_limits,
    .list_alloc = host_list_alloc,
    .list_free = host_list_free,
    .lane_create = nvlxi_host_lane_create,
    .lane_destroy = nvlxi_host_lane_destroy,
    .lane_query = nvlxi_host_lane_query,
    .lane_call = nvlxi_host_lane_call,
    .copy = nvlxi_host_copy,
    .copy_list = nvlxi_host_copy_list,
    .copy_rows = nvlxi_host_copy_rows,
    .copy_grid = nvlxi_host_copy_grid,
    .copy_kernel = nvlxi_host_copy_kernel,
    .copy_blocks = nvlxi_host_copy_blocks,
    .ids_check = nvlxi_host_ids_check,
    .digest = nvlxi_host_digest,
    .signal = nvlxi_host_signal,
    .await = nvlxi_host_await,
    .await_gated = nvlxi_host_await_gated,
    .await_paced = nvlxi_host_await_paced,
    .signal_read = nvlxi_host_signal_read,
    .event_create = nvlxi_host_event_create,
    .event_destroy = nvlxi_host_event_destroy,
    .event_record = nvlxi_host_event_record,
    .event_query = nvlxi_host_event_query,
    .lane_wait = nvlxi_host_lane_wait,
    .stream_find = nvlxi_host_stream_find,
    .stream_record = nvlxi_host_stream_record,
    .stream_wait = nvlxi_host_stream_wait,
    .stream_lane = nvlxi_host_stream_lane,
    .stream_lane_end = nvlxi_host_stream_lane_end,
    .stream_keep = nvlxi_host_stream_keep,
};
