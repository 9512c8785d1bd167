/* A second process that works a backend on command: see device_peer.h.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "device_peer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

#define COMPLETE_NS INT64_C(30000000000)
#define GPUS_MAX    64

static const char *const kind_names[] = {"unknown", "cuda_malloc", "vmm", "pool", "fabric", "host"};

const struct nvlxi_device_ops *party_ops(const char *name) {
    if (!strcmp(name, nvlxi_device_host.name))
        return &nvlxi_device_host;
#ifdef NVLXI_WITH_CUDA
    if (!strcmp(name, nvlxi_device_cuda.name))
        return &nvlxi_device_cuda;
#endif
    return NULL;
}

int party_open(const struct nvlxi_device_ops *ops, struct party *party) {
    int gpus[GPUS_MAX];
    *party = (struct party){.ops = ops};
    int code = ops->count(&party->gpus);
    if (code)
        return code;
    for (int i = 0; i < party->gpus && i < GPUS_MAX; i++)
        gpus[i] = i;
    return ops->open(gpus, (size_t)party->gpus, &party->device);
}

uint8_t seed_byte(uint8_t seed, uint64_t i) {
    return (uint8_t)(seed + i * 7 + (i >> 8) * 31 + (i >> 16));
}

int await(const struct nvlxi_device_ops *ops, struct nvlxi_event *event) {
    uint64_t deadline = nvlxi_deadline(COMPLETE_NS);
    int code;
    while ((code = ops->event_query(event)) == NVLX_EAGAIN) {
        if (nvlxi_now_ns() > deadline)
            return NVLX_ETIMEDOUT;
        usleep(50);
    }
    return code;
}

/* ---- Errands ----------------------------------------------------------------------------------------- */

static void *pointer(uint64_t address) {
    return (void *)(uintptr_t)address;
}

int alloc_plain(const struct party *party, int gpu, size_t length, void **address) {
    const struct nvlxi_alloc alloc = {.gpu = gpu, .length = length, .kind = NVLXI_KIND_CUDA_MALLOC};
    return party->ops->alloc(party->device, &alloc, address);
}

int map_plain(const struct party *party, int gpu, const struct nvlxi_segment_record *record, uint64_t *address) {
    const struct nvlxi_identity owner = {.pid = 0}; /* another one's */
    const struct nvlxi_map map = {.gpu = gpu, .owner = &owner, .segments = record, .count = 1};
    return party->ops->map(party->device, &map, address);
}

static int alloc(const struct party *party, struct message *message) {
    const struct nvlxi_alloc wanted = {.gpu = message->gpu,
                                       .length = message->length,
                                       .kind = message->kind ? message->kind : NVLXI_KIND_CUDA_MALLOC,
                                       .chunk = message->chunk};
    void *address;
    int code = party->ops->alloc(party->device, &wanted, &address);
    if (!code)
        message->address = (uintptr_t)address;
    return code;
}

static int export(struct party *party, struct message *message) {
    struct nvlxi_allocation found;
    struct nvlxi_segment_record *record = &message->record;
    memset(record, 0, sizeof *record);
    int code = party->ops->resolve(party->device, message->address, &found);
    if (code)
        return code;
    record->kind = found.kind;
    record->serial = found.serial;
    record->base = found.base;
    record->size = found.size;
    record->file = found.file;
    record->joins = found.joins;
    snprintf(record->kind_name, sizeof record->kind_name, "%s", kind_names[found.kind]);
    code = party->ops->uuid(party->device, found.gpu, record->device);
    return code ? code : party->ops->export_handle(party->device, &found, &record->handle);
}

static int export_file(struct party *party, struct message *message) {
    struct nvlxi_allocation found;
    int code = party->ops->resolve(party->device, message->address, &found);
    return code ? code : party->ops->export_file(party->device, &found, &message->fd);
}

static int fill_or_check(struct party *party, struct message *message) {
    uint8_t *bytes = malloc(message->length);
    if (!bytes)
        return NVLX_ENOMEM;
    int code = 0;
    if (message->errand == ERRAND_FILL) {
        for (uint64_t i = 0; i < message->length; i++)
            bytes[i] = seed_byte(message->seed, i);
        code = party->ops->memcpy(party->device, pointer(message->address), bytes, message->length);
    } else {
        message->wrong = 0;
        code = party->ops->memcpy(party->device, bytes, pointer(message->address), message->length);
        for (uint64_t i = 0; !code && i < message->length; i++)
            message->wrong += bytes[i] != seed_byte(message->seed, i);
    }
    free(bytes);
    return code;
}

static int queue(const struct nvlxi_device_ops *ops, struct nvlxi_lane *lane, const struct message *message) {
    const struct nvlxi_copy one = {.destination = message->address,
                                   .source = message->source,
                                   .length = message->length,
                                   .destination_gpu = message->gpu,
                                   .source_gpu = message->gpu};
    const struct nvlxi_signal signal = {message->address, message->value, message->add};
    return message->errand == ERRAND_COPY ? ops->copy(lane, &one) : ops->signal(lane, &signal);
}

static int queue_and_await(struct party *party, const struct message *message) {
    const struct nvlxi_device_ops *ops = party->ops;
    struct nvlxi_lane *lane;
    struct nvlxi_event *event;
    int code = ops->lane_create(party->device, message->gpu, 0, &lane);
    if (code)
        return code;
    code = ops->event_create(party->device, message->gpu, &event);
    if (code)
        goto destroy_lane;
    code = queue(ops, lane, message);
    if (!code)
        code = ops->event_record(lane, event);
    if (!code)
        code = await(ops, event);
    ops->event_destroy(event);
destroy_lane:
    ops->lane_destroy(lane);
    return code;
}

static int replace(int fd) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) || dup2(ends[0], fd) < 0)
        return NVLX_EINVAL;
    return 0;
}

int work(struct party *party, struct message *message) {
    const struct nvlxi_device_ops *ops = party->ops;
    switch (message->errand) {
    case ERRAND_ALLOC:
        message->code = alloc(party, message);
        break;
    case ERRAND_FREE:
        message->code = ops->free(party->device, pointer(message->address));
        break;
    case ERRAND_EXPORT:
        message->code = export(party, message);
        break;
    case ERRAND_FILE:
        message->code = export_file(party, message);
        break;
    case ERRAND_MAP:
        message->code = map_plain(party, message->gpu, &message->record, &message->address);
        break;
    case ERRAND_UNMAP:
        message->code = ops->unmap(party->device, message->gpu, message->address);
        break;
    case ERRAND_FILL:
    case ERRAND_CHECK:
        message->code = fill_or_check(party, message);
        break;
    case ERRAND_COPY:
    case ERRAND_SIGNAL:
        message->code = queue_and_await(party, message);
        break;
    case ERRAND_REPLACE:
        message->code = replace(message->fd);
        break;
    }
    return message->code;
}

/* ---- The peer's side --------------------------------------------------------------------------------- */

void peer_role(int socket) {
    struct party party;
    struct message message;
    size_t length;
    int none;
    char *backend = get_text(socket, &length);
    const struct nvlxi_device_ops *ops = party_ops(backend);
    if (!ops || party_open(ops, &party))
        FAIL("the %s backend does not open", backend);
    free(backend);
    while (get_file_or_end(socket, &message, sizeof message, &none)) {
        int file = work(&party, &message) || message.errand != ERRAND_FILE ? -1 : message.fd;
        put_file(socket, &message, sizeof message, file);
        if (file >= 0)
            close(file);
    }
    ops->close(party.device);
}

/* ---- The test's side --------------------------------------------------------------------------------- */

struct party me;
struct child peer;

int peer_work(struct message *message) {
    int file;
    if (!peer.pid) {
        child_start(&peer, "peer");
        put_text(peer.socket, me.ops->name, strlen(me.ops->name));
    }
    put(peer.socket, message, sizeof *message);
    if (!get_file_or_end(peer.socket, message, sizeof *message, &file))
        FAIL("the peer is gone");
    if (file >= 0)
        message->fd = file;
    return message->code;
}

struct message there(struct message message) {
    OK(peer_work(&message));
    return message;
}

void peer_kill(void) {
    if (peer.pid)
        child_kill(&peer);
}
