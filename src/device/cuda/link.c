/* The cuda backend's links between GPUs. The introduction is in cuda.c.
 *
 * Opening the first memory of another GPU costs 2 to 10 ms, and so does the next once the last was closed: CUDA keeps
 * what joins two GPUs only as long as one maps memory of the other. Any memory will do (measured on two H200 and two
 * H100, driver 580), so a link is the smallest chunk there is on the other GPU, mapped on ours. It takes no context
 * there. All who hold the way between two GPUs share one.
 *
 * NVLink sleeps when it was not used for a while, and so does each of its lanes. A kernel wakes them that reads words
 * all over the link's chunk: of 2 MiB, 64 words at equal distances wake all, 32 do not, and 4 KiB by a copy engine do
 * not (measured on two H200). Each GPU has a stream for it, and it may stand behind whatever fills the GPU. Until it is
 * over, the chunk stays: a link that is given up meanwhile is *left*, and dropped when a link is made or given up next.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "device/cuda/cuda.h"
#include "device/cuda/link.h"

#define FRESH_NS UINT64_C(1000000) /* a link that was woken is awake so long: several peers may share it */

struct nvlxi_link {
    int gpu, other;
    unsigned holders;
    atomic_uint_fast64_t woken_ns; /* last; 0: never, no kernel reads the chunk */
    struct nvlxi_cuda_record *chunk;
    struct nvlxi_link *next;
};

static int find_gpu(const struct nvlxi_device *device, const uint8_t uuid[NVLXI_UUID_BYTES]) {
    for (int gpu = 0; gpu < device->gpu_count; gpu++)
        if (!memcmp(device->gpus[gpu].uuid.bytes, uuid, NVLXI_UUID_BYTES))
            return gpu;
    return -1;
}

static int map_chunk(struct nvlxi_device *device, struct nvlxi_link *link) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(device, link->gpu, &entry);
    if (code)
        return code;
    code = nvlxi_cuda_vmm_reach(link->gpu, link->other, &link->chunk);
    nvlxi_cuda_leave(&entry);
    return code;
}

/* Whether a kernel may still read the chunk. The GPU's context is current. Who never woke it asks no driver, which may
 * be held by who closes memory of cudaMalloc. */
static bool is_waking(const struct nvlxi_device *device, const struct nvlxi_link *link) {
    const struct nvlxi_cuda_gpu *gpu = &device->gpus[link->gpu];
    return atomic_load(&link->woken_ns) && nvlxi_cuda_driver.cuStreamQuery(gpu->waker) == CUDA_ERROR_NOT_READY;
}

/* Those of which that is over. Under the mutex of links. */
static void drop_left(struct nvlxi_device *device) {
    struct nvlxi_link *link, *next;
    LL_FOREACH_SAFE(device->left_links, link, next) {
        struct nvlxi_attempt attempt;
        struct nvlxi_cuda_entry entry;
        nvlxi_attempt_begin(&attempt);
        bool waking = false;
        if (!nvlxi_cuda_enter(device, link->gpu, &entry)) {
            waking = is_waking(device, link);
            if (!waking)
                nvlxi_cuda_vmm_drop(link->chunk);
            nvlxi_cuda_leave(&entry);
        }
        nvlxi_attempt_note(&attempt, NVLX_LOG_WARNING, "what kept the way to another GPU open could not be unmapped");
        if (waking)
            continue;
        LL_DELETE(device->left_links, link);
        free(link);
    }
}

/* Under the mutex of links. */
static struct nvlxi_link *make_link(struct nvlxi_device *device, int gpu, int other) {
    struct nvlxi_link *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    made->gpu = gpu;
    made->other = other;
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    const int code = map_chunk(device, made);
    nvlxi_attempt_note(&attempt, NVLX_LOG_DEBUG, "what keeps the way to another GPU open could not be made");
    if (code) {
        free(made);
        return NULL;
    }
    LL_PREPEND(device->links, made);
    return made;
}

struct nvlxi_link *nvlxi_cuda_link(struct nvlxi_device *device, int gpu, const uint8_t uuid[NVLXI_UUID_BYTES]) {
    const int other = find_gpu(device, uuid);
    struct nvlxi_link *link;
    if (other < 0 || other == gpu)
        return NULL;
    pthread_mutex_lock(&device->links_mutex);
    drop_left(device);
    LL_FOREACH(device->links, link) {
        if (link->gpu == gpu && link->other == other)
            break;
    }
    if (!link)
        link = make_link(device, gpu, other);
    if (link)
        link->holders++;
    pthread_mutex_unlock(&device->links_mutex);
    return link;
}

void nvlxi_cuda_unlink(struct nvlxi_device *device, struct nvlxi_link *link) {
    pthread_mutex_lock(&device->links_mutex);
    if (!--link->holders) {
        LL_DELETE(device->links, link);
        LL_PREPEND(device->left_links, link);
    }
    drop_left(device);
    pthread_mutex_unlock(&device->links_mutex);
}

/* What stands behind a kernel that fills the GPU must not become so much that a launch waits. */
static bool may_wake(struct nvlxi_cuda_gpu *gpu) {
    if (nvlxi_cuda_driver.cuStreamQuery(gpu->waker) == CUDA_SUCCESS)
        atomic_store(&gpu->waking, 0);
    return atomic_fetch_add(&gpu->waking, 1) < NVLXI_WAKES_MAX;
}

static CUresult launch(struct nvlxi_cuda_gpu *gpu, const struct nvlxi_link *link) {
    const CUlaunchConfig config = {.gridDimX = 1,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = NVLXI_CUDA_TOUCHES,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = gpu->waker};
    unsigned long long address = link->chunk->address, step = link->chunk->mapped / NVLXI_CUDA_TOUCHES;
    void *arguments[] = {&address, &step};
    return nvlxi_cuda_driver.cuLaunchKernelEx(&config, gpu->toucher, arguments, NULL);
}

void nvlxi_cuda_wake(struct nvlxi_device *device, struct nvlxi_link *link) {
    struct nvlxi_cuda_gpu *gpu = &device->gpus[link->gpu];
    struct nvlxi_attempt attempt;
    struct nvlxi_cuda_entry entry;
    const uint64_t now_ns = nvlxi_now_ns();
    if (!atomic_load(&gpu->sms) || now_ns - atomic_load(&link->woken_ns) < FRESH_NS)
        return;
    atomic_store(&link->woken_ns, now_ns);
    nvlxi_attempt_begin(&attempt);
    if (!nvlxi_cuda_enter(device, link->gpu, &entry)) {
        CUresult error = may_wake(gpu) ? launch(gpu, link) : CUDA_SUCCESS;
        if (error)
            nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "launching the kernel that wakes a link");
        nvlxi_cuda_leave(&entry);
    }
    nvlxi_attempt_note(&attempt, NVLX_LOG_DEBUG, "the way to another GPU was not woken");
}

/* Nobody makes or holds links any more. A kernel that has not ended keeps its link for the life of the process: what it
 * reads must stay. */
void nvlxi_cuda_links_close(struct nvlxi_device *device) {
    struct nvlxi_cuda_entry entry;
    pthread_mutex_lock(&device->links_mutex);
    drop_left(device);
    pthread_mutex_unlock(&device->links_mutex);
    for (int gpu = 0; gpu < device->gpu_count; gpu++) {
        if (!device->gpus[gpu].waker || nvlxi_cuda_enter(device, gpu, &entry))
            continue;
        cudaStreamDestroy(device->gpus[gpu].waker);
        nvlxi_cuda_leave(&entry);
    }
}
