/* Digests of registered memory. SPDX-License-Identifier: Apache-2.0 */
#include "local/digest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"
#include "device/xxh64.h"

#define ROUND_LEAVES 16384u /* 256 MiB: as much as keeps a GPU busy */
#define ROUND_BYTES  ((uint64_t)ROUND_LEAVES * NVLXI_LEAF_BYTES)

/* Where one round is worked on. Kept for the next, until the engine's end. */
struct nvlxi_desk {
    int gpu;
    struct nvlxi_lane *lane;
    void *digests;  /* of ROUND_LEAVES */
    uint64_t bytes; /* of the round that was queued; 0: none */
    struct nvlxi_desk *next;
};

struct work {
    struct nvlxi_digester *digester;
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    uint64_t address, end;
    struct nvlxi_allocation *extents; /* what lies there, in order of address */
    size_t count;
    uint64_t done; /* up to this address, the digests of leaves are in `state` */
    struct nvlxi_xxh64 state;
};

/* ---- Desks -------------------------------------------------------------------------------------------- */

static void desk_free(const struct nvlxi_registration *r, struct nvlxi_desk *desk) {
    r->context->ops->list_free(r->context->device, desk->digests);
    r->context->ops->lane_destroy(desk->lane);
    free(desk);
}

static int desk_make(const struct nvlxi_registration *r, int gpu, struct nvlxi_desk **desk) {
    struct nvlxi_desk *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to digest with");
    made->gpu = gpu;
    int code = r->context->ops->lane_create(r->context->device, gpu, 0, &made->lane);
    if (code)
        goto free_desk;
    if ((code = r->context->ops->list_alloc(r->context->device, ROUND_LEAVES * sizeof(uint64_t), &made->digests)))
        goto destroy_lane;
    *desk = made;
    return 0;
destroy_lane:
    r->context->ops->lane_destroy(made->lane);
free_desk:
    free(made);
    return code;
}

static int desk_take(struct nvlxi_digester *digester, int gpu, struct nvlxi_desk **desk) {
    struct nvlxi_desk *found;
    pthread_mutex_lock(&digester->mutex);
    LL_SEARCH_SCALAR(digester->desks, found, gpu, gpu);
    if (found)
        LL_DELETE(digester->desks, found);
    pthread_mutex_unlock(&digester->mutex);
    *desk = found;
    return found ? 0 : desk_make(digester->registration, gpu, desk);
}

static int desk_wait(const struct work *work, const struct nvlxi_desk *desk) {
    const uint64_t since = nvlxi_now_ns();
    int code;
    while ((code = work->ops->lane_query(desk->lane)) == NVLX_EAGAIN)
        nvlxi_pause(since);
    return code;
}

/* The digests of a round that failed elsewhere are written all the same. */
static void desk_leave(const struct work *work, struct nvlxi_desk *desk) {
    if (desk->bytes)
        desk_wait(work, desk);
    desk->bytes = 0;
    pthread_mutex_lock(&work->digester->mutex);
    LL_PREPEND(work->digester->desks, desk);
    pthread_mutex_unlock(&work->digester->mutex);
}

void nvlxi_digester_init(struct nvlxi_digester *digester, struct nvlxi_registration *registration) {
    *digester = (struct nvlxi_digester){.registration = registration};
    pthread_mutex_init(&digester->mutex, NULL);
}

void nvlxi_digester_free(struct nvlxi_digester *digester) {
    struct nvlxi_desk *desk, *next;
    LL_FOREACH_SAFE(digester->desks, desk, next)
    desk_free(digester->registration, desk);
    pthread_mutex_destroy(&digester->mutex);
}

/* ---- What lies there ----------------------------------------------------------------------------------- */

static int check_registered(const struct nvlxi_registration *r, uint64_t address, uint64_t length) {
    uint64_t where;
    bool registered;
    if (nvlxi_intervals_cover(&r->ranges, nvlxi_intervals_find(&r->ranges, address), address, length, NVLX_ACCESS_NONE,
                              &where, &registered))
        return 0;
    return nvlxi_fail(NVLX_ERANGE,
                      "of the %" PRIu64 " bytes at 0x%" PRIx64 ", what is at 0x%" PRIx64 " is not registered", length,
                      address, where);
}

/* The allocations under the range; to be freed. Under the mutex. */
static int list_extents(const struct nvlxi_registration *r, struct work *work) {
    const uint32_t first = nvlxi_intervals_search(&r->extents, work->address);
    size_t count = 0;
    for (uint32_t i = first; i && r->extents.piece[i].start < work->end; i = nvlxi_intervals_next(&r->extents, i))
        count++;
    work->extents = malloc(nvlxi_max(count, 1) * sizeof *work->extents);
    if (!work->extents)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %zu allocations", count);
    for (uint32_t i = first; work->count < count; i = nvlxi_intervals_next(&r->extents, i))
        work->extents[work->count++] = r->by_number[i]->allocation;
    return 0;
}

static int check_alive(const struct work *work) {
    int code = 0;
    for (size_t i = 0; i < work->count && !code; i++) {
        code = work->ops->alive(work->device, &work->extents[i]);
        if (code == NVLX_ESTALE)
            nvlxi_fail(code, "the memory at 0x%" PRIx64 " was freed, though regions in it are registered",
                       work->extents[i].base);
    }
    return code;
}

static int find_extents(struct work *work, uint64_t length) {
    struct nvlxi_registration *r = work->digester->registration;
    pthread_mutex_lock(&r->mutex);
    int code = check_registered(r, work->address, length);
    if (!code) {
        work->end = work->address + length;
        code = list_extents(r, work);
    }
    pthread_mutex_unlock(&r->mutex);
    return code ? code : check_alive(work);
}

static uint64_t end_of(const struct nvlxi_allocation *allocation) {
    return allocation->base + allocation->size;
}

/* The allocation that holds an address of the range, by its number: `from` or a later one. */
static size_t holder_of(const struct work *work, size_t from, uint64_t address) {
    while (end_of(&work->extents[from]) <= address)
        from++;
    return from;
}

/* How far the range goes on in memory of the same GPU. */
static uint64_t same_gpu_until(const struct work *work, size_t from) {
    const int gpu = work->extents[from].gpu;
    while (from + 1 < work->count && work->extents[from + 1].gpu == gpu)
        from++;
    return nvlxi_min(end_of(&work->extents[from]), work->end);
}

/* ---- Leaves ------------------------------------------------------------------------------------------- */

static int queue_round(const struct work *work, struct nvlxi_desk *desk, uint64_t from, uint64_t bytes) {
    const struct nvlxi_leaves leaves = {.address = from, .length = bytes, .digests = desk->digests};
    int code = work->ops->digest(desk->lane, &leaves);
    if (!code)
        desk->bytes = bytes;
    return code;
}

static int end_round(struct work *work, struct nvlxi_desk *desk) {
    const uint64_t bytes = desk->bytes;
    int code = desk_wait(work, desk);
    desk->bytes = 0;
    if (code)
        return code;
    nvlxi_xxh64_add(&work->state, desk->digests, nvlxi_leaf_count(bytes));
    work->done += bytes;
    return 0;
}

/* What is not done up to `end`, by two desks in turn. */
static int digest_on_gpu(struct work *work, int gpu, uint64_t end) {
    struct nvlxi_desk *desks[2] = {NULL, NULL};
    uint64_t queued = work->done;
    int code = 0;
    for (size_t turn = 0; work->done < end && !code; turn = 1 - turn) {
        struct nvlxi_desk **desk = &desks[turn];
        const uint64_t bytes = nvlxi_min(end - queued, ROUND_BYTES);
        if (*desk && (*desk)->bytes)
            code = end_round(work, *desk);
        if (!code && bytes && !*desk)
            code = desk_take(work->digester, gpu, desk);
        if (!code && bytes && !(code = queue_round(work, *desk, queued, bytes)))
            queued += bytes;
    }
    for (size_t i = 0; i < NVLXI_COUNT(desks); i++)
        if (desks[i])
            desk_leave(work, desks[i]);
    return code;
}

/* One leaf. A copy ends with its allocation. */
static int digest_on_host(struct work *work, size_t at) {
    uint8_t leaf[NVLXI_LEAF_BYTES];
    const uint64_t end = nvlxi_min(work->done + sizeof leaf, work->end), bytes = end - work->done;
    for (uint64_t from = work->done, to; from < end; from = to) {
        at = holder_of(work, at, from);
        to = nvlxi_min(end_of(&work->extents[at]), end);
        int code =
            work->ops->memcpy(work->device, leaf + (from - work->done), (const void *)(uintptr_t)from, to - from);
        if (code)
            return code;
    }
    const uint64_t digest = nvlxi_xxh64(leaf, bytes);
    nvlxi_xxh64_add(&work->state, &digest, 1);
    work->done = end;
    return 0;
}

static int digest_all(struct work *work) {
    int code = 0;
    for (size_t at = 0; work->done < work->end && !code;) {
        at = holder_of(work, at, work->done);
        const uint64_t until = same_gpu_until(work, at), bytes = until - work->done;
        const uint64_t cut = until == work->end ? 0 : bytes % NVLXI_LEAF_BYTES; /* of a leaf that goes on elsewhere */
        code = bytes > cut ? digest_on_gpu(work, work->extents[at].gpu, until - cut) : digest_on_host(work, at);
    }
    return code;
}

int nvlxi_digest(struct nvlxi_digester *digester, uint64_t address, uint64_t length, uint64_t *value) {
    const struct nvlxi_registration *r = digester->registration;
    struct work work = {.digester = digester,
                        .ops = r->context->ops,
                        .device = r->context->device,
                        .address = address,
                        .done = address};
    nvlxi_xxh64_init(&work.state);
    int code = length ? find_extents(&work, length) : 0;
    if (!code && length)
        code = digest_all(&work);
    if (!code)
        *value = nvlxi_xxh64_value(&work.state);
    free(work.extents);
    return code;
}
