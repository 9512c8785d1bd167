/* Digests memory in rounds, without waiting. SPDX-License-Identifier: Apache-2.0 */
#include "local/leaves.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"

#define ROUND_LEAVES 16384u /* 256 MiB: as much as keeps a GPU busy */
#define ROUND_PARTS  64u    /* spans that it has bytes of: each takes a place in the queue of the lane */
#define ROUND_BYTES  ((uint64_t)ROUND_LEAVES * NVLXI_LEAF_BYTES)

struct nvlxi_desk {
    int gpu;
    struct nvlxi_lane *lane;
    uint64_t *digests; /* of ROUND_LEAVES */
    uint32_t parts;    /* of the round that was queued */
    struct nvlxi_desk *next;
};

/* ---- Desks -------------------------------------------------------------------------------------------- */

static void desk_free(const struct nvlxi_context *context, struct nvlxi_desk *desk) {
    context->ops->list_free(context->device, desk->digests);
    context->ops->lane_destroy(desk->lane);
    free(desk);
}

static int desk_make(const struct nvlxi_context *context, int gpu, struct nvlxi_desk **desk) {
    void *digests;
    struct nvlxi_desk *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to digest with");
    made->gpu = gpu;
    int code = context->ops->lane_create(context->device, gpu, 0, &made->lane);
    if (code)
        goto free_desk;
    if ((code = context->ops->list_alloc(context->device, ROUND_LEAVES * sizeof(uint64_t), &digests)))
        goto destroy_lane;
    made->digests = digests;
    *desk = made;
    return 0;
destroy_lane:
    context->ops->lane_destroy(made->lane);
free_desk:
    free(made);
    return code;
}

static int desk_take(struct nvlxi_desks *desks, int gpu, struct nvlxi_desk **desk) {
    struct nvlxi_desk *found;
    pthread_mutex_lock(&desks->mutex);
    LL_SEARCH_SCALAR(desks->idle, found, gpu, gpu);
    if (found)
        LL_DELETE(desks->idle, found);
    pthread_mutex_unlock(&desks->mutex);
    *desk = found;
    return found ? 0 : desk_make(desks->context, gpu, desk);
}

void nvlxi_desks_init(struct nvlxi_desks *desks, const struct nvlxi_context *context) {
    *desks = (struct nvlxi_desks){.context = context};
    pthread_mutex_init(&desks->mutex, NULL);
}

void nvlxi_desks_free(struct nvlxi_desks *desks) {
    struct nvlxi_desk *desk, *next;
    LL_FOREACH_SAFE(desks->idle, desk, next)
    desk_free(desks->context, desk);
    pthread_mutex_destroy(&desks->mutex);
}

/* ---- Rounds: their parts are the same when they are queued and when they end ---------------------------- */

/* The length of the part that begins at a place, in a round with room for so many leaves. */
static uint64_t part_at(const struct nvlxi_digesting *work, const struct nvlxi_progress *place, uint64_t room) {
    const uint64_t most = room * NVLXI_LEAF_BYTES;
    return nvlxi_min(work->spans[place->span].length - place->done, work->part ? nvlxi_min(work->part, most) : most);
}

/* Moves a place behind a part; true if a digest ends with it. */
static bool advance(const struct nvlxi_digesting *work, struct nvlxi_progress *place, uint64_t bytes) {
    const struct nvlxi_span *span = &work->spans[place->span];
    place->done += bytes;
    if (place->done < span->length)
        return false;
    *place = (struct nvlxi_progress){.span = place->span + 1};
    return span->last;
}

static void fail(struct nvlxi_digesting *work, int code) {
    work->failure = work->failure ? work->failure : code;
}

/* The digests of leaves up to the place of what has ended. */
static void add(struct nvlxi_digesting *work, const uint64_t *digests, size_t count, bool last) {
    nvlxi_xxh64_add(&work->state, digests, count);
    if (!last || work->failure)
        return;
    fail(work, work->take(work->context, nvlxi_xxh64_value(&work->state)));
    nvlxi_xxh64_init(&work->state);
}

/* Queues a round from what is next, on the GPU of the desk. */
static void fill_round(struct nvlxi_digesting *work, struct nvlxi_desk *desk) {
    uint64_t room = ROUND_LEAVES;
    while (room && desk->parts < ROUND_PARTS && work->queued.span < work->count && !work->failure) {
        const struct nvlxi_span *span = &work->spans[work->queued.span];
        const uint64_t bytes = part_at(work, &work->queued, room);
        const struct nvlxi_leaves leaves = {.address = span->address + work->queued.done,
                                            .length = bytes,
                                            .digests = desk->digests + (ROUND_LEAVES - room)};
        if (span->gpu != desk->gpu || (work->arrived && !work->arrived(work->context, leaves.address, bytes)))
            return;
        fail(work, work->desks->context->ops->digest(desk->lane, &leaves));
        if (work->failure)
            return;
        desk->parts++;
        room -= nvlxi_leaf_count(bytes);
        advance(work, &work->queued, bytes);
    }
}

/* The oldest round is done, or failed. */
static void end_round(struct nvlxi_digesting *work, int code) {
    struct nvlxi_desk *desk = work->rounds;
    uint64_t room = ROUND_LEAVES;
    LL_DELETE(work->rounds, desk);
    LL_PREPEND(work->idle, desk);
    work->ended_rounds++;
    fail(work, code);
    for (; desk->parts && !work->failure; desk->parts--) {
        const uint64_t bytes = part_at(work, &work->ended, room), count = nvlxi_leaf_count(bytes);
        add(work, desk->digests + (ROUND_LEAVES - room), count, advance(work, &work->ended, bytes));
        room -= count;
    }
    desk->parts = 0;
}

/* The next leaf is the host's: it is its turn when all before it have ended. */
static bool fetch_leaf(struct nvlxi_digesting *work) {
    const struct nvlxi_span *span = &work->spans[work->queued.span];
    uint64_t digest;
    if (work->rounds)
        return false;
    int code = work->fetch(work->context, span, &digest);
    fail(work, code);
    advance(work, &work->queued, span->length);
    if (!code)
        add(work, &digest, 1, advance(work, &work->ended, span->length));
    return true;
}

/* Queues one more round, or fetches a leaf; false if neither can be done now. */
static bool begin_round(struct nvlxi_digesting *work) {
    struct nvlxi_desk *desk;
    if (work->failure || work->queued.span == work->count)
        return false;
    const int gpu = work->spans[work->queued.span].gpu;
    if (gpu == NVLXI_BY_HOST)
        return fetch_leaf(work);
    LL_SEARCH_SCALAR(work->idle, desk, gpu, gpu);
    if (!desk)
        return false;
    fill_round(work, desk);
    if (!desk->parts)
        return false;
    LL_DELETE(work->idle, desk);
    LL_APPEND(work->rounds, desk);
    return true;
}

/* ---- A work ------------------------------------------------------------------------------------------- */

static bool has_desk(const struct nvlxi_digesting *work, int gpu) {
    const struct nvlxi_desk *desk;
    LL_SEARCH_SCALAR(work->idle, desk, gpu, gpu);
    return desk != NULL;
}

/* Two where there is more than a round on the GPU: one is worked on while the other one ends. */
static int take_desks(struct nvlxi_digesting *work, int gpu) {
    uint64_t bytes = 0, parts = 0;
    for (size_t i = 0; i < work->count; i++) {
        bytes += work->spans[i].gpu == gpu ? work->spans[i].length + NVLXI_LEAF_BYTES : 0;
        parts += work->spans[i].gpu == gpu;
    }
    int code = 0;
    for (int left = bytes > ROUND_BYTES || parts > ROUND_PARTS ? 2 : 1; left && !code; left--) {
        struct nvlxi_desk *desk;
        code = desk_take(work->desks, gpu, &desk);
        if (!code)
            LL_PREPEND(work->idle, desk);
    }
    return code;
}

int nvlxi_digesting_begin(struct nvlxi_digesting *work, struct nvlxi_desks *desks) {
    int code = 0;
    work->desks = desks;
    work->idle = work->rounds = NULL;
    work->queued = work->ended = (struct nvlxi_progress){0};
    work->ended_rounds = 0;
    work->failure = 0;
    nvlxi_xxh64_init(&work->state);
    for (size_t i = 0; i < work->count && !code; i++)
        if (work->spans[i].gpu != NVLXI_BY_HOST && !has_desk(work, work->spans[i].gpu))
            code = take_desks(work, work->spans[i].gpu);
    if (code)
        nvlxi_digesting_end(work);
    return code;
}

int nvlxi_digesting_step(struct nvlxi_digesting *work) {
    for (bool moved = true; moved;) {
        int code = work->rounds ? work->desks->context->ops->lane_query(work->rounds->lane) : NVLX_EAGAIN;
        if (code != NVLX_EAGAIN)
            end_round(work, code);
        moved = begin_round(work) || code != NVLX_EAGAIN;
    }
    if (work->rounds)
        return NVLX_EAGAIN;
    return work->failure || work->ended.span == work->count ? work->failure : NVLX_EAGAIN;
}

void nvlxi_digesting_stop(struct nvlxi_digesting *work, int reason) {
    fail(work, reason);
}

void nvlxi_digesting_end(struct nvlxi_digesting *work) {
    struct nvlxi_desk *desk, *next;
    pthread_mutex_lock(&work->desks->mutex);
    LL_FOREACH_SAFE(work->idle, desk, next)
    LL_PREPEND(work->desks->idle, desk);
    pthread_mutex_unlock(&work->desks->mutex);
    work->idle = NULL;
}
