/* Tells the log which way a peer's memory is reached, and what is mapped. SPDX-License-Identifier: Apache-2.0 */
#include "remote/tell.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"

static const char *kind_of(uint32_t kind) {
    switch (kind) {
    case NVLXI_KIND_CUDA_MALLOC:
        return "cudaMalloc memory, by its IPC handle";
    case NVLXI_KIND_VMM:
        return "chunks, by file descriptors";
    case NVLXI_KIND_POOL:
        return "pool memory, by file descriptor";
    case NVLXI_KIND_FABRIC:
        return "chunks, by fabric handles";
    case NVLXI_KIND_HOST:
        return "host memory, by file descriptors";
    default:
        return "memory";
    }
}

/* The ordinal here of the GPU that holds a segment, or -1: this process does not see it. */
static int ordinal_of(const struct nvlxi_remote *remote, const struct nvlxi_segment_record *segment) {
    for (int gpu = 0; gpu < remote->gpus && gpu < NVLXI_DEVICES_MAX; gpu++)
        if (memcmp(remote->uuids[gpu], segment->device, NVLXI_UUID_BYTES) == 0)
            return gpu;
    return -1;
}

/* "its cudaMalloc memory ... on GPU 1" */
static void say_path(const struct nvlx_peer *peer, const struct nvlxi_mapping *mapping,
                     const struct nvlxi_segment_record *first, char *path, size_t room) {
    const int ordinal = ordinal_of(peer->remote, first), gpu = (int)mapping->key.gpu;
    char where[48] = "a GPU that is hidden here";
    if (ordinal >= 0)
        snprintf(where, sizeof where, "%s%d", ordinal == gpu ? "the same GPU " : "GPU ", ordinal);
    if (peer->same_process)
        snprintf(path, room, "GPU %d reaches its memory on %s as it is, since it is of this process", gpu, where);
    else
        snprintf(path, room, "GPU %d reaches its memory on %s as a mapping: %s", gpu, where, kind_of(first->kind));
}

static const char *say_mechanism(const struct nvlxi_context *context, const struct nvlxi_mapping *mapping) {
    struct nvlxi_gpu_limits limits = {0};
    struct nvlxi_attempt asking;
    nvlxi_attempt_begin(&asking);
    context->ops->limits(context->device, (int)mapping->key.gpu, &limits);
    nvlxi_attempt_note(&asking, NVLX_LOG_DEBUG, "cannot tell what kernels may use");
    if (mapping->memory_gpu != (int)mapping->key.gpu)
        return "copy engines alone carry copies, since kernels do not reach another GPU within one process";
    if (!limits.sms)
        return "copy engines alone carry copies, since no copy kernels are loaded for this GPU";
    return "copy engines carry what is large or few, kernels the rest";
}

static void tell_peer(struct nvlx_peer *peer, const struct nvlxi_mapping *mapping,
                      const struct nvlxi_segment_record *first) {
    char path[200];
    if (atomic_exchange(&peer->told, true))
        return;
    say_path(peer, mapping, first, path, sizeof path);
    nvlxi_log(NVLX_LOG_INFO, "peer %s: %s; %s", peer->name, path, say_mechanism(peer->remote->context, mapping));
}

void nvlxi_tell_mapped(struct nvlx_peer *peer, const struct nvlxi_mapping *mapping,
                       const struct nvlxi_segment_record *first, uint64_t ns) {
    if (!nvlxi_log_is_on(NVLX_LOG_INFO))
        return;
    tell_peer(peer, mapping, first);
    nvlxi_log(NVLX_LOG_DEBUG,
              "mapped 0x%" PRIx64 " + %" PRIu64 " of peer %s on GPU %d at 0x%" PRIx64 "%s: %s, %" PRIu64 " us",
              mapping->key.base, mapping->size, peer->name, (int)mapping->key.gpu, mapping->address,
              mapping->read_only ? ", for reading" : "", kind_of(first->kind), ns / 1000);
}

void nvlxi_tell_closed(const struct nvlx_peer *peer, const struct nvlxi_mapping *mapping, int code) {
    if (nvlxi_log_is_on(NVLX_LOG_DEBUG))
        nvlxi_log(NVLX_LOG_DEBUG, "closed 0x%" PRIx64 " + %" PRIu64 " of peer %s on GPU %d%s", mapping->key.base,
                  mapping->size, peer->name, (int)mapping->key.gpu, code ? ", which failed" : "");
}
