/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "error.h"
#include "log.h"

#define IDLE_REQUESTS_MAX 256
#define SPIN_NS           200000u  /* a waiter first asks again at once, */
#define YIELD_NS          5000000u /* then lets others run, */
#define SLEEP_NS          50000    /* then sleeps in between */

void nvlxi_transfers_init(struct nvlxi_transfers *transfers) {
    pthread_mutex_init(&transfers->mutex, NULL);
    transfers->pool.ops = transfers->ops;
    transfers->pool.device = transfers->device;
    nvlxi_pool_init(&transfers->pool);
}

/* ---- Request objects and scratch memory -------------------------------------------------------------- */

static struct nvlx_request *new_request(struct nvlxi_transfers *t) {
    struct nvlx_request *request = calloc(1, sizeof *request);
    if (!request) {
        nvlxi_fail(NVLX_ENOMEM, "no memory for a request");
        return NULL;
    }
    request->engine = t->engine;
    request->transfers = t;
    pthread_mutex_init(&request->polling, NULL);
    nvlxi_plan_init(&request->plan, nvlxi_pool_borrow_chunk, &t->pool);
    return request;
}

static struct nvlx_request *take_request(struct nvlxi_transfers *t) {
    pthread_mutex_lock(&t->mutex);
    struct nvlx_request *request = t->idle;
    if (request) {
        LL_DELETE(t->idle, request);
        t->idle_count--;
    }
    pthread_mutex_unlock(&t->mutex);
    if (!request && !(request = new_request(t)))
        return NULL;
    atomic_store_explicit(&request->status, NVLX_EAGAIN, memory_order_relaxed);
    request->outcome = 0;
    request->error[0] = '\0';
    request->leg_count = request->legs_done = 0;
    request->ops = request->fragments = request->bytes = request->elapsed_ns = 0;
    return request;
}

static void destroy_request(struct nvlx_request *request) {
    nvlxi_needs_free(&request->needs);
    pthread_mutex_destroy(&request->polling);
    free(request);
}

/* Keeps a request that is in no list for the next transfer, or frees it. */
static void recycle(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    bool keep;
    nvlxi_plan_reset(&request->plan, nvlxi_pool_return_chunk);
    pthread_mutex_lock(&t->mutex);
    keep = t->idle_count < IDLE_REQUESTS_MAX;
    if (keep) {
        LL_PREPEND(t->idle, request);
        t->idle_count++;
    }
    pthread_mutex_unlock(&t->mutex);
    if (!keep)
        destroy_request(request);
}

static struct nvlxi_check *take_check(struct nvlxi_transfers *t) {
    pthread_mutex_lock(&t->mutex);
    struct nvlxi_check *check = t->checks;
    if (check)
        LL_DELETE(t->checks, check);
    pthread_mutex_unlock(&t->mutex);
    if (!check && !(check = calloc(1, sizeof *check)))
        nvlxi_fail(NVLX_ENOMEM, "no memory to check a transfer");
    return check;
}

static void return_check(struct nvlxi_transfers *t, struct nvlxi_check *check) {
    pthread_mutex_lock(&t->mutex);
    LL_PREPEND(t->checks, check);
    pthread_mutex_unlock(&t->mutex);
}

void nvlxi_transfers_free(struct nvlxi_transfers *transfers) {
    struct nvlx_request *request, *next;
    struct nvlxi_check *check, *next_check;
    while (transfers->in_flight)
        nvlxi_request_free(transfers->in_flight);
    while (transfers->done)
        nvlxi_request_free(transfers->done);
    LL_FOREACH_SAFE(transfers->idle, request, next) {
        destroy_request(request);
    }
    LL_FOREACH_SAFE(transfers->checks, check, next_check) {
        nvlxi_check_free(check);
    }
    nvlxi_pool_free(&transfers->pool);
    pthread_mutex_destroy(&transfers->mutex);
}

/* ---- CHECKED -> IN FLIGHT ---------------------------------------------------------------------------- */

/* Pins what the request needs and enters it in the list. With the tables held for reading. */
static int enter(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    if (t->in_flight_count >= t->max_requests) {
        pthread_mutex_unlock(&t->mutex);
        return NVLX_EBUSY;
    }
    t->in_flight_count++;
    DL_APPEND(t->in_flight, request);
    for (size_t i = 0; i < request->needs.mapping_count; i++)
        atomic_fetch_add(&request->needs.mappings[i]->pins, 1);
    for (size_t i = 0; i < request->needs.peer_count; i++)
        atomic_fetch_add(&request->needs.peers[i]->pins, 1);
    pthread_mutex_unlock(&t->mutex);
    return 0;
}

static void unpin(struct nvlx_request *request) {
    for (size_t i = 0; i < request->needs.mapping_count; i++)
        atomic_fetch_sub(&request->needs.mappings[i]->pins, 1);
    for (size_t i = 0; i < request->needs.peer_count; i++)
        atomic_fetch_sub(&request->needs.peers[i]->pins, 1);
}

/* Takes back `enter` for a request of which nothing was issued. */
static void leave(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->in_flight, request);
    t->in_flight_count--;
    pthread_mutex_unlock(&t->mutex);
    unpin(request);
}

static int map_missing(const struct nvlxi_check *check, uint32_t flags) {
    int code = 0;
    if (flags & NVLX_NO_MAP)
        return nvlxi_fail(NVLX_EAGAIN, "%zu segments of peers must be mapped first, and NVLX_NO_MAP is set",
                          check->missing_count);
    for (size_t i = 0; i < check->missing_count && !code; i++)
        code = nvlxi_peer_map_segment(check->missing[i].peer, check->missing[i].gpu, check->missing[i].base,
                                      check->missing[i].serial);
    return code;
}

/* Checks the list against the tables of this moment and enters the request. NVLX_EAGAIN with something missing: map it,
 * come again. */
static int check_and_enter(struct nvlx_request *request, struct nvlxi_check *check, const struct nvlx_op *ops,
                           size_t count) {
    struct nvlxi_transfers *t = request->transfers;
    int code = 0;
    for (;;) {
        code = nvlxi_registration_refresh(t->registration);
        if (code)
            return code;
        pthread_rwlock_rdlock(t->tables);
        if (!atomic_load(&t->registration->changed))
            break;
        pthread_rwlock_unlock(t->tables);
    }
    code = nvlxi_check_ops(check, t->registration, ops, count, &request->plan, &request->needs);
    if (!code)
        code = enter(request);
    pthread_rwlock_unlock(t->tables);
    return code;
}

static int admit(struct nvlx_request *request, const struct nvlx_op *ops, size_t count, uint32_t flags) {
    struct nvlxi_transfers *t = request->transfers;
    struct nvlxi_check *check = take_check(t);
    bool polled = false;
    int code;
    if (!check)
        return NVLX_ENOMEM;
    for (;;) {
        code = check_and_enter(request, check, ops, count);
        if (code == NVLX_EAGAIN) {
            if ((code = map_missing(check, flags)))
                break;
        } else if (code == NVLX_EBUSY && !polled) {
            nvlxi_transfers_progress(t);
            polled = true;
        } else {
            break;
        }
        nvlxi_plan_reset(&request->plan, nvlxi_pool_return_chunk);
    }
    return_check(t, check);
    if (code == NVLX_EBUSY)
        return nvlxi_fail(code, "%" PRIu32 " requests are in flight, as many as config.max_requests allows",
                          t->max_requests);
    return code;
}

/* ---- Issuing ----------------------------------------------------------------------------------------- */

static void fail_request(struct nvlx_request *request, int code) {
    if (request->outcome)
        return;
    request->outcome = code;
    snprintf(request->error, sizeof request->error, "%s", nvlx_last_error());
}

static void return_legs(struct nvlx_request *request) {
    struct nvlxi_pool *pool = &request->transfers->pool;
    for (uint32_t i = 0; i < request->leg_count; i++) {
        if (request->legs[i].event)
            nvlxi_pool_return_event(pool, request->legs[i].event);
        nvlxi_pool_return_lane(pool, request->legs[i].lane);
    }
    if (request->legs != &request->first_leg)
        free(request->legs);
    request->leg_count = 0;
}

/* One lane and one event for each group, in the groups' order. */
static int borrow_legs(struct nvlx_request *request) {
    struct nvlxi_pool *pool = &request->transfers->pool;
    const struct nvlxi_plan *plan = &request->plan;
    request->legs = &request->first_leg;
    if (plan->group_count > 1 && !(request->legs = calloc(plan->group_count, sizeof *request->legs)))
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a transfer over %" PRIu32 " lanes", plan->group_count);
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following) {
        struct nvlxi_leg *leg = &request->legs[request->leg_count];
        leg->event = NULL;
        int code = nvlxi_pool_borrow_lane(pool, group->gpu, group->device, group->opcode, &leg->lane);
        if (!code) {
            request->leg_count++;
            code = nvlxi_pool_borrow_event(pool, group->gpu, &leg->event);
        }
        if (code) {
            return_legs(request);
            return code;
        }
    }
    return 0;
}

/* Lets all lanes start after what is now in the caller's stream. */
static int follow_stream(struct nvlx_request *request, void *stream) {
    struct nvlxi_transfers *t = request->transfers;
    struct nvlxi_pooled_event *event;
    int gpu, code = t->ops->stream_gpu(t->device, stream, &gpu);
    if (!code)
        code = nvlxi_pool_borrow_event(&t->pool, gpu, &event);
    if (code)
        return code;
    code = t->ops->stream_record(t->device, stream, event->event);
    for (uint32_t i = 0; i < request->leg_count && !code; i++)
        code = t->ops->lane_wait(request->legs[i].lane->lane, event->event);
    nvlxi_pool_return_event(&t->pool, event);
    return code;
}

static int copy_group(const struct nvlxi_transfers *t, const struct nvlxi_group *group, struct nvlxi_lane *lane) {
    bool read = group->opcode == NVLX_OP_READ;
    struct nvlxi_copy copy = {.destination_gpu = read ? group->gpu : group->remote_gpu,
                              .source_gpu = read ? group->remote_gpu : group->gpu};
    for (const struct nvlxi_chunk *chunk = group->first_chunk; chunk; chunk = chunk->next) {
        for (uint32_t i = 0; i < chunk->count; i++) {
            copy.destination = chunk->fragment[i].destination;
            copy.source = chunk->fragment[i].source;
            copy.length = chunk->fragment[i].length;
            int code = t->ops->copy(lane, &copy);
            if (code)
                return code;
        }
    }
    return 0;
}

/* Issues all copies, each lane's followed by its event, and the caller's stream behind them. What fails here fails the
 * request. */
static void issue(struct nvlx_request *request, void *stream) {
    struct nvlxi_transfers *t = request->transfers;
    const struct nvlxi_group *group = request->plan.groups;
    for (uint32_t i = 0; i < request->leg_count; i++, group = group->following) {
        struct nvlxi_leg *leg = &request->legs[i];
        int code = request->outcome ? 0 : copy_group(t, group, leg->lane->lane);
        if (code)
            fail_request(request, code);
        code = t->ops->event_record(leg->lane->lane, leg->event->event);
        if (!code && stream)
            code = t->ops->stream_wait(t->device, stream, leg->event->event);
        if (code)
            fail_request(request, code);
    }
}

/* ---- IN FLIGHT -> DONE ------------------------------------------------------------------------------- */

/* Under `polling`, of a request that is IN FLIGHT. */
static void finish(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    request->elapsed_ns = nvlxi_now_ns() - request->started_ns;
    return_legs(request);
    nvlxi_plan_reset(&request->plan, nvlxi_pool_return_chunk);
    unpin(request);
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->in_flight, request);
    DL_APPEND(t->done, request);
    t->in_flight_count--;
    pthread_mutex_unlock(&t->mutex);
    if (request->outcome)
        nvlxi_log(NVLX_LOG_ERROR, "transfer of %" PRIu64 " ops, %" PRIu64 " bytes failed: %s", request->ops,
                  request->bytes, request->error);
    atomic_store_explicit(&request->status, request->outcome, memory_order_release);
}

/* Looks at the events in turn, under `polling`; true when all are complete, or the device has failed. */
static bool poll_legs(struct nvlx_request *request) {
    const struct nvlxi_transfers *t = request->transfers;
    for (; request->legs_done < request->leg_count; request->legs_done++) {
        int code = t->ops->event_query(request->legs[request->legs_done].event->event);
        if (code == NVLX_EAGAIN)
            return false;
        if (code)
            fail_request(request, code);
    }
    return true;
}

static void poll_request(struct nvlx_request *request) {
    if (pthread_mutex_trylock(&request->polling))
        return;
    if (atomic_load_explicit(&request->status, memory_order_acquire) == NVLX_EAGAIN && poll_legs(request))
        finish(request);
    pthread_mutex_unlock(&request->polling);
}

int nvlxi_transfer_submit(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count,
                          const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    uint64_t started_ns = nvlxi_now_ns();
    struct nvlx_request *made = take_request(transfers);
    if (!made)
        return NVLX_ENOMEM;
    pthread_mutex_lock(&made->polling);
    int code = admit(made, ops, count, options->flags);
    if (code)
        goto recycle_request;
    if ((code = borrow_legs(made)))
        goto leave_list;
    if (options->stream && (code = follow_stream(made, options->stream)))
        goto give_legs_back;
    made->started_ns = started_ns;
    made->ops = count;
    made->bytes = made->plan.bytes;
    made->fragments = made->plan.fragments;
    issue(made, options->stream);
    made->submit_ns = nvlxi_now_ns() - started_ns;
    if (!made->leg_count)
        finish(made);
    pthread_mutex_unlock(&made->polling);
    *request = made;
    return 0;
give_legs_back:
    return_legs(made);
leave_list:
    leave(made);
recycle_request:
    pthread_mutex_unlock(&made->polling);
    recycle(made);
    return code;
}

void nvlxi_transfers_progress(struct nvlxi_transfers *transfers) {
    struct nvlx_request *request;
    for (;;) {
        bool complete = false;
        pthread_mutex_lock(&transfers->mutex);
        DL_FOREACH(transfers->in_flight, request) {
            if (pthread_mutex_trylock(&request->polling))
                continue;
            complete = poll_legs(request);
            if (complete)
                break;
            pthread_mutex_unlock(&request->polling);
        }
        pthread_mutex_unlock(&transfers->mutex);
        if (!complete)
            return;
        finish(request);
        pthread_mutex_unlock(&request->polling);
    }
}

void nvlxi_transfers_pause(uint64_t since_ns) {
    const struct timespec nap = {.tv_nsec = SLEEP_NS};
    uint64_t waited = nvlxi_now_ns() - since_ns;
    if (waited < SPIN_NS)
        return;
    if (waited < YIELD_NS)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

bool nvlxi_transfers_busy(void *context, uint64_t address, uint64_t length) {
    struct nvlxi_transfers *t = context;
    const struct nvlx_request *request;
    bool busy = false;
    pthread_mutex_lock(&t->mutex);
    DL_FOREACH(t->in_flight, request) {
        for (size_t i = 0; i < request->needs.use_count && !busy; i++) {
            const struct nvlxi_use *use = &request->needs.uses[i];
            busy = address < use->end && use->start < address + length;
        }
    }
    pthread_mutex_unlock(&t->mutex);
    return busy;
}

/* ---- What the caller asks ---------------------------------------------------------------------------- */

int nvlxi_request_test(struct nvlx_request *request) {
    int status = atomic_load_explicit(&request->status, memory_order_acquire);
    if (status == NVLX_EAGAIN) {
        poll_request(request);
        status = atomic_load_explicit(&request->status, memory_order_acquire);
    }
    return status && status != NVLX_EAGAIN ? nvlxi_fail_again(status, request->error) : status;
}

int nvlxi_request_wait(struct nvlx_request *request, int64_t timeout_ns) {
    uint64_t since = nvlxi_now_ns(), deadline = nvlxi_deadline(timeout_ns);
    for (;;) {
        int status = nvlxi_request_test(request);
        if (status != NVLX_EAGAIN)
            return status;
        if (nvlxi_now_ns() >= deadline)
            return nvlxi_fail(NVLX_ETIMEDOUT, "the transfer is still in flight after %" PRId64 " ns", timeout_ns);
        nvlxi_transfers_pause(since);
    }
}

void nvlxi_request_info(struct nvlx_request *request, struct nvlx_request_info *info) {
    info->status = nvlxi_request_test(request);
    info->fragments = (uint32_t)request->fragments;
    info->ops = request->ops;
    info->bytes = request->bytes;
    info->submit_ns = request->submit_ns;
    info->elapsed_ns = info->status == NVLX_EAGAIN ? 0 : request->elapsed_ns;
    info->error[0] = '\0';
    if (info->status && info->status != NVLX_EAGAIN)
        snprintf(info->error, sizeof info->error, "%s", request->error);
}

int nvlxi_request_free(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    int status = nvlxi_request_wait(request, -1);
    pthread_mutex_lock(&request->polling); /* a poller that made it DONE may still hold it */
    pthread_mutex_unlock(&request->polling);
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->done, request);
    pthread_mutex_unlock(&t->mutex);
    recycle(request);
    return status;
}
