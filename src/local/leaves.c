/* Digests memory in rounds, without waiting. SPDX-License-Identifier: Apache-2.0 */
#include "local/leaves.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"

#define ROUND_LEAVES 16384u /* 256 MiB: as much as keeps a GPU busy */

struct nvlxi_desk {
    int gpu;
    struct nvlxi_lane *lane;
    struct nvlxi_paper { /* in memory from list_alloc */
        struct nvlxi_digest_span scratch[ROUND_LEAVES];
        uint64_t digests[ROUND_LEAVES];
    } * paper;
    uint32_t part_count; /* of the round that was queued */
    struct nvlxi_desk *next;
    struct nvlxi_digest_span parts[ROUND_LEAVES]; /* each of a span: no round has more than leaves */
};

/* ---- Desks -------------------------------------------------------------------------------------------- */

static void desk_free(const struct nvlxi_context *context, struct nvlxi_desk *desk) {
    context->ops->list_free(context->device, desk->paper);
    context->ops->lane_destroy(desk->lane);
    free(desk);
}

static int desk_make(const struct nvlxi_context *context, int gpu, struct nvlxi_desk **desk) {
    void *paper;
    struct nvlxi_desk *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to digest with");
    made->gpu = gpu;
    made->part_count = 0;
    int code = context->ops->lane_create(context->device, gpu, 0, &made->lane);
    if (code)
        goto free_desk;
    if ((code = context->ops->list_alloc(context->device, sizeof *made->paper, &paper)))
        goto destroy_lane;
    made->paper = paper;
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

/* ---- Rounds ------------------------------------------------------------------------------------------- */

/* The part that is queued next, in a round with room for so many leaves. */
static struct nvlxi_digest_span next_part(const struct nvlxi_digesting *work, uint64_t room) {
    const struct nvlxi_span *span = &work->spans[work->queued.span];
    const uint64_t most = room * NVLXI_LEAF_BYTES, left = span->length - work->queued.done;
    return (struct nvlxi_digest_span){.address = span->address + work->queued.done,
                                      .length = nvlxi_min(left, work->part ? nvlxi_min(work->part, most) : most)};
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

/* Takes parts for a round from what is next, on the GPU of the desk. */
static void choose_parts(struct nvlxi_digesting *work, struct nvlxi_desk *desk) {
    for (uint64_t room = ROUND_LEAVES; room && work->queued.span < work->count;) {
        const struct nvlxi_digest_span part = next_part(work, room);
        if (work->spans[work->queued.span].gpu != desk->gpu ||
            (work->arrived && !work->arrived(work->context, part.address, part.length)))
            return;
        desk->parts[desk->part_count++] = part;
        room -= nvlxi_leaf_count(part.length);
        advance(work, &work->queued, part.length);
    }
}

/* The oldest round is done, or failed. */
static void end_round(struct nvlxi_digesting *work, int code) {
    struct nvlxi_desk *desk = work->rounds;
    const uint64_t *digests = desk->paper->digests;
    LL_DELETE(work->rounds, desk);
    LL_PREPEND(work->idle, desk);
    work->ended_rounds++;
    fail(work, code);
    for (uint32_t i = 0; i < desk->part_count && !work->failure; i++) {
        const uint64_t bytes = desk->parts[i].length, count = nvlxi_leaf_count(bytes);
        add(work, digests, count, advance(work, &work->ended, bytes));
        digests += count;
    }
    desk->part_count = 0;
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
    choose_parts(work, desk);
    if (!desk->part_count)
        return false;
    const struct nvlxi_leaves leaves = {.spans = desk->parts,
                                        .span_count = desk->part_count,
                                        .digests = desk->paper->digests,
                                        .scratch = desk->paper->scratch};
    fail(work, work->desks->context->ops->digest(desk->lane, &leaves));
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
    uint64_t leaves = 0;
    int code = 0;
    for (size_t i = 0; i < work->count; i++)
        leaves += work->spans[i].gpu == gpu ? nvlxi_leaf_count(work->spans[i].length) : 0;
    for (int left = leaves > ROUND_LEAVES ? 2 : 1; left && !code; left--) {
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
