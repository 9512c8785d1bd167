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
#define POLLS             8        /* for a look at the clock, which costs up to a third of one */

void nvlxi_transfers_init(struct nvlxi_transfers *transfers, size_t list_limit) {
    pthread_mutex_init(&transfers->mutex, NULL);
    transfers->pool.list_limit = list_limit;
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
    nvlxi_plan_init(&request->plan, nvlxi_pool_borrow_chunk, nvlxi_pool_return_chunk, &t->pool);
    return request;
}

static void renew_request(struct nvlx_request *request) {
    atomic_store_explicit(&request->status, NVLX_EAGAIN, memory_order_relaxed);
    request->outcome = 0;
    request->error[0] = '\0';
    request->needs.use_count = request->needs.mapping_count = request->needs.peer_count = 0;
    request->prepared = NULL;
}

/* Under the mutex. */
static struct nvlx_request *pop_request(struct nvlxi_transfers *t) {
    struct nvlx_request *request = t->idle;
    if (request) {
        LL_DELETE(t->idle, request);
        t->idle_count--;
    }
    return request;
}

/* Under the mutex. */
static struct nvlxi_check *pop_check(struct nvlxi_transfers *t) {
    struct nvlxi_check *check = t->checks;
    if (check)
        LL_DELETE(t->checks, check);
    return check;
}

static struct nvlx_request *take_request(struct nvlxi_transfers *t) {
    pthread_mutex_lock(&t->mutex);
    struct nvlx_request *request = pop_request(t);
    pthread_mutex_unlock(&t->mutex);
    if (request || (request = new_request(t)))
        renew_request(request);
    return request;
}

static struct nvlxi_check *new_check(void) {
    struct nvlxi_check *check = calloc(1, sizeof *check);
    if (!check)
        nvlxi_fail(NVLX_ENOMEM, "no memory to check a transfer");
    return check;
}

struct nvlxi_check *nvlxi_transfers_take_check(struct nvlxi_transfers *t) {
    pthread_mutex_lock(&t->mutex);
    struct nvlxi_check *check = pop_check(t);
    pthread_mutex_unlock(&t->mutex);
    return check ? check : new_check();
}

void nvlxi_transfers_return_check(struct nvlxi_transfers *t, struct nvlxi_check *check) {
    pthread_mutex_lock(&t->mutex);
    LL_PREPEND(t->checks, check);
    pthread_mutex_unlock(&t->mutex);
}

static void destroy_request(struct nvlx_request *request) {
    nvlxi_needs_free(&request->needs);
    pthread_mutex_destroy(&request->polling);
    free(request);
}

/* Keeps a request that is in no list, with an empty plan, for the next transfer, or frees it. */
static void recycle(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    bool keep;
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

void nvlxi_transfers_free(struct nvlxi_transfers *transfers) {
    struct nvlx_request *request, *next;
    struct nvlxi_check *check, *next_check;
    while (transfers->in_flight)
        nvlxi_request_free(transfers->in_flight);
    while (transfers->done)
        nvlxi_request_free(transfers->done);
    while (transfers->prepared)
        nvlxi_prepared_free(transfers->prepared);
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

void nvlxi_needs_pin(struct nvlxi_needs *needs) {
    for (size_t i = 0; i < needs->mapping_count; i++)
        atomic_fetch_add(&needs->mappings[i]->pins, 1);
    for (size_t i = 0; i < needs->peer_count; i++)
        atomic_fetch_add(&needs->peers[i]->pins, 1);
}

void nvlxi_needs_unpin(struct nvlxi_needs *needs) {
    for (size_t i = 0; i < needs->mapping_count; i++)
        atomic_fetch_sub(&needs->mappings[i]->pins, 1);
    for (size_t i = 0; i < needs->peer_count; i++)
        atomic_fetch_sub(&needs->peers[i]->pins, 1);
}

/* Pins what the request needs and enters it in the list. With the tables held for reading, if it needs anything. */
static int enter(void *holder) {
    struct nvlx_request *request = holder;
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    bool room = t->in_flight_count < t->max_requests;
    if (room) {
        t->in_flight_count++;
        DL_APPEND(t->in_flight, request);
        nvlxi_needs_pin(&request->needs);
    }
    pthread_mutex_unlock(&t->mutex);
    return room ? 0
                : nvlxi_fail(NVLX_EBUSY, "%" PRIu32 " requests are in flight, as many as config.max_requests allows",
                             t->max_requests);
}

/* Takes back `enter` for a request of which nothing was issued. */
static void leave(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->in_flight, request);
    t->in_flight_count--;
    pthread_mutex_unlock(&t->mutex);
    nvlxi_needs_unpin(&request->needs);
}

/* What a peer changed meanwhile is left for the next check to tell. */
static int map_missing(const struct nvlxi_check *check, uint32_t flags, struct nvlxi_patience *patience) {
    int code = 0;
    if (flags & NVLX_NO_MAP)
        return nvlxi_fail(
            NVLX_EAGAIN, "peers' segments must be mapped first (%zu), and NVLX_NO_MAP is set: nvlx_peer_map maps ahead",
            check->missing_count);
    for (size_t i = 0; i < check->missing_count && !code; i++) {
        const struct nvlxi_missing *missing = &check->missing[i];
        code = nvlxi_peer_map_span(missing->peer, missing->gpu, missing->base, missing->serial);
        if (code == NVLX_EAGAIN)
            code = nvlxi_peer_map_again(patience);
    }
    return code;
}

/* Takes the tables for reading at a moment when they are up to date. */
static int lock_tables(struct nvlxi_transfers *t) {
    for (;;) {
        int code = nvlxi_registration_refresh(t->registration);
        if (code)
            return code;
        pthread_rwlock_rdlock(t->tables);
        if (!atomic_load(&t->registration->changed))
            return 0;
        pthread_rwlock_unlock(t->tables);
    }
}

static int check_and_enter(struct nvlxi_transfers *t, const struct nvlxi_admission *a) {
    struct nvlxi_checked *checked = &a->check->checked;
    int code = lock_tables(t);
    if (code)
        return code;
    code = nvlxi_check_ops(a->check, t->registration, a->ops, a->count, a->plan, a->needs);
    if (!code)
        code = a->portions ? nvlxi_plan_begin(a->plan, checked) : nvlxi_plan_all(a->plan, checked);
    if (!code)
        code = a->enter(a->holder);
    pthread_rwlock_unlock(t->tables);
    return code;
}

int nvlxi_transfer_admit(struct nvlxi_transfers *transfers, const struct nvlxi_admission *admission) {
    bool polled = false;
    struct nvlxi_patience patience = {0};
    for (;;) {
        int code = check_and_enter(transfers, admission);
        if (code == NVLX_EAGAIN) {
            code = map_missing(admission->check, admission->flags, &patience);
        } else if (code == NVLX_EBUSY && !polled) {
            nvlxi_transfers_progress(transfers);
            polled = true;
            code = 0;
        } else {
            return code;
        }
        if (code)
            return code;
        nvlxi_plan_reset(admission->plan, admission->plan->mechanism);
    }
}

void nvlxi_transfer_describe(const struct nvlxi_plan *plan, size_t ops, uint32_t max_sms,
                             struct nvlx_request_info *info) {
    info->ops = ops;
    info->bytes = plan->bytes;
    info->engine_bytes = plan->way_bytes[NVLXI_BY_ENGINES];
    info->engine_fragments = plan->fragments[NVLXI_BY_ENGINES];
    info->kernel_bytes = plan->way_bytes[NVLXI_BY_KERNEL];
    info->kernel_fragments = plan->fragments[NVLXI_BY_KERNEL];
    info->sms = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following)
        if (group->lists[NVLXI_BY_KERNEL].count)
            info->sms = (uint32_t)nvlxi_max(info->sms, max_sms ? max_sms : group->sms);
}

static void fail_request(struct nvlx_request *request, int code) {
    if (request->outcome)
        return;
    request->outcome = code;
    snprintf(request->error, sizeof request->error, "%s", nvlx_last_error());
}

/* ---- IN FLIGHT -> DONE ------------------------------------------------------------------------------- */

/* Under `polling`, of a request that is IN FLIGHT. */
static void finish(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    request->elapsed_ns = nvlxi_now_ns() - request->started_ns;
    nvlxi_issue_return(&t->pool, &request->legs);
    nvlxi_plan_reset(&request->plan, NVLX_MECHANISM_AUTO);
    nvlxi_needs_unpin(&request->needs);
    if (request->prepared)
        atomic_fetch_sub(&request->prepared->posts, 1);
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->in_flight, request);
    DL_APPEND(t->done, request);
    t->in_flight_count--;
    pthread_mutex_unlock(&t->mutex);
    if (request->outcome)
        nvlxi_log(NVLX_LOG_ERROR, "transfer of %" PRIu64 " ops, %" PRIu64 " bytes failed: %s", request->info.ops,
                  request->info.bytes, request->error);
    atomic_store_explicit(&request->status, request->outcome, memory_order_release);
}

/* Under `polling`; true when all legs are complete, or the device has failed. */
static bool poll_legs(struct nvlx_request *request) {
    for (;;) {
        int code = nvlxi_issue_poll(&request->transfers->pool, &request->legs);
        if (code == 0 || code == NVLX_EAGAIN)
            return code == 0;
        fail_request(request, code);
    }
}

static void poll_request(struct nvlx_request *request) {
    if (pthread_mutex_trylock(&request->polling))
        return;
    if (atomic_load_explicit(&request->status, memory_order_acquire) == NVLX_EAGAIN && poll_legs(request))
        finish(request);
    pthread_mutex_unlock(&request->polling);
}

/* Issues what is planned, and plans and issues the portions that are left. A failure fails the request: the rest is
 * planned all the same, for those who ask what the request was. */
static void issue_all(struct nvlx_request *request, const struct nvlxi_plan *plan, struct nvlxi_checked *checked,
                      uint32_t max_sms, void *stream) {
    struct nvlxi_pool *pool = &request->transfers->pool;
    int failure = nvlxi_issue_copies(pool, plan, &request->legs, max_sms);
    while (!plan->sealed) {
        nvlxi_plan_next(&request->plan, checked);
        failure = failure ? failure : nvlxi_issue_more(pool, plan, &request->legs, max_sms);
    }
    if (failure)
        fail_request(request, failure);
    if ((failure = nvlxi_issue_end(pool, &request->legs, stream)))
        fail_request(request, failure);
}

struct start { /* of a request that is in flight */
    const struct nvlxi_plan *plan;
    struct nvlxi_checked *checked; /* what the request's own plan may lack yet */
    uint32_t max_sms;
    int32_t priority;
    void *stream;
};

/* Fails only before the first copy; what goes wrong later fails the request. */
static int start(struct nvlx_request *request, const struct start *how) {
    struct nvlxi_pool *pool = &request->transfers->pool;
    int code = nvlxi_issue_borrow(pool, how->plan, how->priority, &request->legs);
    if (code)
        return code;
    if (how->stream && (code = nvlxi_issue_follow(pool, &request->legs, how->stream))) {
        nvlxi_issue_return(pool, &request->legs);
        return code;
    }
    issue_all(request, how->plan, how->checked, how->max_sms, how->stream);
    return 0;
}

/* The end of a start that did not fail. */
static void started(struct nvlx_request *request) {
    request->info.submit_ns = nvlxi_now_ns() - request->started_ns;
    if (!request->legs.count)
        finish(request);
}

/* Ends a submission: the caller gets the request, or the spares get it back. */
static int hand_over(struct nvlx_request *made, int code, struct nvlx_request **request) {
    pthread_mutex_unlock(&made->polling);
    if (code) {
        nvlxi_plan_reset(&made->plan, NVLX_MECHANISM_AUTO);
        recycle(made);
    } else {
        *request = made;
    }
    return code;
}

static int submit(struct nvlx_request *made, struct nvlxi_check *check, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options) {
    struct nvlxi_transfers *t = made->transfers;
    const struct nvlxi_admission admission = {.ops = ops,
                                              .count = count,
                                              .flags = options->flags,
                                              .portions = true,
                                              .plan = &made->plan,
                                              .needs = &made->needs,
                                              .check = check,
                                              .enter = enter,
                                              .holder = made};
    const struct start how = {.plan = &made->plan,
                              .checked = &check->checked,
                              .max_sms = options->max_sms ? options->max_sms : t->max_sms,
                              .priority = options->priority,
                              .stream = options->stream};
    nvlxi_plan_reset(&made->plan, options->mechanism ? options->mechanism : t->mechanism);
    int code = nvlxi_transfer_admit(t, &admission);
    if (code)
        return code;
    if ((code = start(made, &how))) {
        leave(made);
        return code;
    }
    nvlxi_transfer_describe(&made->plan, count, how.max_sms, &made->info);
    started(made);
    return 0;
}

/* What a submission works with: both, or none. */
static int take_both(struct nvlxi_transfers *t, struct nvlx_request **request, struct nvlxi_check **check) {
    pthread_mutex_lock(&t->mutex);
    *request = pop_request(t);
    *check = pop_check(t);
    pthread_mutex_unlock(&t->mutex);
    if ((*request || (*request = new_request(t))) && (*check || (*check = new_check()))) {
        renew_request(*request);
        return 0;
    }
    if (*check)
        nvlxi_transfers_return_check(t, *check);
    if (*request)
        recycle(*request);
    return NVLX_ENOMEM;
}

int nvlxi_transfer_submit(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count,
                          const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    uint64_t started_ns = nvlxi_now_ns();
    struct nvlx_request *made;
    struct nvlxi_check *check;
    int code = take_both(transfers, &made, &check);
    if (code)
        return code;
    pthread_mutex_lock(&made->polling);
    made->started_ns = started_ns;
    code = submit(made, check, ops, count, options);
    nvlxi_transfers_return_check(transfers, check);
    return hand_over(made, code, request);
}

/* What a prepared list names must still be there: nothing is sent to who is gone. */
static int check_post(const struct nvlx_prepared *prepared) {
    const struct nvlxi_needs *needs = &prepared->needs;
    int code = 0;
    for (size_t i = 0; i < needs->peer_count && !code; i++)
        code = nvlxi_peer_check(needs->peers[i]);
    for (size_t i = 0; i < needs->mapping_count && !code; i++) {
        if (atomic_load(&needs->mappings[i]->retired))
            code = nvlxi_fail(NVLX_ESTALE, "the peer has withdrawn segment 0x%" PRIx64 " of the prepared list",
                              needs->mappings[i]->key.base);
        else if (needs->mappings[i]->own)
            code = nvlxi_mapping_check(needs->peers[0]->relocation, needs->mappings[i]);
    }
    return code;
}

int nvlxi_post(struct nvlx_prepared *prepared, void *stream, struct nvlx_request **request) {
    struct nvlxi_transfers *t = prepared->transfers;
    uint64_t started_ns = nvlxi_now_ns();
    int code = check_post(prepared);
    if (code)
        return code;
    struct nvlx_request *made = take_request(t);
    if (!made)
        return NVLX_ENOMEM;
    pthread_mutex_lock(&made->polling);
    made->started_ns = started_ns;
    made->info = prepared->info;
    code = enter(made);
    if (code) {
        nvlxi_transfers_progress(t);
        code = enter(made);
    }
    if (!code) {
        made->prepared = prepared;
        atomic_fetch_add(&prepared->posts, 1);
        const struct start how = {
            .plan = &prepared->plan, .max_sms = prepared->max_sms, .priority = prepared->priority, .stream = stream};
        code = start(made, &how);
        if (code) {
            atomic_fetch_sub(&prepared->posts, 1);
            leave(made);
        } else {
            started(made);
        }
    }
    return hand_over(made, code, request);
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

static bool uses(const struct nvlxi_needs *needs, uint64_t address, uint64_t length) {
    for (size_t i = 0; i < needs->use_count; i++)
        if (address < needs->uses[i].end && needs->uses[i].start < address + length)
            return true;
    return false;
}

enum nvlxi_user nvlxi_transfers_user(void *context, uint64_t address, uint64_t length) {
    struct nvlxi_transfers *t = context;
    const struct nvlx_request *request;
    const struct nvlx_prepared *prepared;
    enum nvlxi_user user = NVLXI_NOBODY;
    pthread_mutex_lock(&t->mutex);
    DL_FOREACH(t->in_flight, request) {
        if (uses(&request->needs, address, length))
            user = NVLXI_A_TRANSFER;
    }
    DL_FOREACH(t->prepared, prepared) {
        if (uses(&prepared->needs, address, length))
            user = NVLXI_A_PREPARED_LIST;
    }
    pthread_mutex_unlock(&t->mutex);
    return user;
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
    for (unsigned polls = 0, between = POLLS;; polls++) {
        int status = nvlxi_request_test(request);
        if (status != NVLX_EAGAIN)
            return status;
        if (polls % between)
            continue;
        uint64_t now = nvlxi_now_ns();
        if (now >= deadline)
            return nvlxi_fail(NVLX_ETIMEDOUT, "the transfer is still in flight after %" PRId64 " ns", timeout_ns);
        if (now - since >= SPIN_NS)
            between = 1;
        nvlxi_transfers_pause(since);
    }
}

void nvlxi_request_info(struct nvlx_request *request, struct nvlx_request_info *info) {
    int status = nvlxi_request_test(request);
    *info = request->info;
    info->status = status;
    if (status == NVLX_EAGAIN)
        return;
    info->elapsed_ns = request->elapsed_ns;
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
