/* The cuda backend's links between GPUs. The introduction is in cuda.c.
 *
 * Opening the first memory of another GPU costs 2 to 10 ms, and so does the next once the last was closed: CUDA keeps
 * what joins two GPUs only as long as one maps memory of the other. Any memory will do (measured on two H200 and two
 * H100, driver 580), so a link is the smallest chunk there is on the other GPU, mapped on ours. It takes no context
 * there. All who hold the way between two GPUs share one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "device/cuda/cuda.h"

struct nvlxi_link {
    int gpu, other;
    unsigned holders;
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

static void unmap_chunk(struct nvlxi_device *device, struct nvlxi_link *link) {
    struct nvlxi_attempt attempt;
    struct nvlxi_cuda_entry entry;
    nvlxi_attempt_begin(&attempt);
    if (!nvlxi_cuda_enter(device, link->gpu, &entry)) {
        nvlxi_cuda_vmm_drop(link->chunk);
        nvlxi_cuda_leave(&entry);
    }
    nvlxi_attempt_note(&attempt, NVLX_LOG_WARNING, "what kept the way to another GPU open could not be unmapped");
}

void nvlxi_cuda_unlink(struct nvlxi_device *device, struct nvlxi_link *link) {
    pthread_mutex_lock(&device->links_mutex);
    if (!--link->holders) {
        LL_DELETE(device->links, link);
        unmap_chunk(device, link);
        free(link);
    }
    pthread_mutex_unlock(&device->links_mutex);
}
