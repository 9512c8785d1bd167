/* Requests in flight: whether they are done, and what callers ask of them. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/trace.h"
#include "transfer/blocks/blocks.h"
#include "transfer/graphs.h"
#include "transfer/plan/tally.h"
#include "transfer/requests/early.h"
#include "transfer/signals.h"
#include "transfer/transfer.h"

#define FOUND_MAX 32 /* requests whose `polling` is held at the same time */
#define POLLS     8  /* for a look at the clock, which costs up to a third of one */

void nvlxi_request_fail(struct nvlx_request *request, int code) {
    if (request->outcome)
        return;
    request->outcome = code;
    snprintf(request->error, sizeof request->error, "%s", nvlx_last_error());
}

/* ---- Verification ------------------------------------------------------------------------------------- */

static bool count_verified(struct nvlxi_transfers *t) {
    if (atomic_fetch_add(&t->verified, 1) < NVLXI_VERIFIED_MAX)
        return true;
    atomic_fetch_sub(&t->verified, 1);
    return false;
}

static struct nvlxi_verification *take_verification(struct nvlxi_transfers *t) {
    pthread_mutex_lock(&t->mutex);
    struct nvlxi_verification *idle = t->verifications;
    if (idle)
        LL_DELETE(t->verifications, idle);
    pthread_mutex_unlock(&t->mutex);
    return idle ? idle : nvlxi_verification_new();
}

int nvlxi_request_make_verification(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    if (!count_verified(t)) {
        nvlxi_transfers_progress(t);
        if (!count_verified(t))
            return nvlxi_fail(NVLX_EBUSY,
                              "%d verified transfers are in flight, as many as may be: test or wait for one, or try "
                              "again, since they only go on while somebody asks",
                              NVLXI_VERIFIED_MAX);
    }
    request->verification = take_verification(t);
    if (!request->verification) {
        atomic_fetch_sub(&t->verified, 1);
        return NVLX_ENOMEM;
    }
    request->verification->marks.slab = t->slab;
    return 0;
}

void nvlxi_request_drop_verification(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    struct nvlxi_verification *dropped = request->verification;
    if (nvlxi_likely(!dropped))
        return;
    nvlxi_marks_return(&t->pool, &dropped->marks);
    nvlxi_verification_clear(dropped);
    request->verification = NULL;
    pthread_mutex_lock(&t->mutex);
    LL_PREPEND(t->verifications, dropped);
    pthread_mutex_unlock(&t->mutex);
    atomic_fetch_sub(&t->verified, 1);
}

/* ---- IN FLIGHT -> DONE ------------------------------------------------------------------------------- */

static void tally_kept(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    nvlxi_tally_kept(t->context->metrics, &request->kept, &request->info, request->elapsed_ns);
    pthread_mutex_unlock(&t->mutex);
}

/* Under `polling`. */
static void become_done(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    const bool event = request->asked.event;
    if (request->kept.waits && !request->outcome && !request->is_part)
        tally_kept(request);
    if (request->outcome && !request->is_part) {
        nvlxi_count_code(t->context->metrics->failed, request->outcome);
        nvlxi_log(request->outcome == NVLX_EDEVICE ? NVLX_LOG_ERROR : NVLX_LOG_WARNING,
                  "transfer of %" PRIu64 " ops, %" PRIu64 " bytes failed: %s", request->info.ops, request->info.bytes,
                  request->error);
    }
    atomic_store_explicit(&request->status, request->outcome, memory_order_release);
    if (event)
        t->teller.done(t->teller.context, request);
}

/* Hands the message of a transfer over; true if what becomes of it is told later. While the peer is pinned. */
static bool deliver(struct nvlx_request *request) {
    const struct nvlxi_teller *teller = &request->transfers->teller;
    struct nvlxi_letter *letter = request->asked.letter;
    if (!letter)
        return false;
    request->asked.letter = NULL;
    if (request->outcome) {
        teller->cancel(letter);
        return false;
    }
    int code = teller->deliver(letter, request);
    if (code)
        nvlxi_request_fail(request, code);
    return code == 0;
}

/* What GPUs alone know: whether ids were good, and whether a list has begun when it should. */
static void judge(struct nvlx_request *request) {
    const int ids = nvlxi_blocks_judge(request);
    if (ids)
        nvlxi_request_fail(request, ids);
    const int early = request->wait_count ? nvlxi_list_judge(request) : 0;
    if (early)
        nvlxi_request_fail(request, early);
}

/* Under the mutex, while the plan is whole. One with a message is counted when that was taken, a part with its list. */
static void tally(struct nvlx_request *request) {
    const bool blocks = request->form && request->form->needs.tables;
    const struct nvlxi_ended ended = {.call = blocks          ? NVLXI_CALL_BLOCKS
                                              : request->form ? NVLXI_CALL_POST
                                                              : NVLXI_CALL_TRANSFER,
                                      .plan = request->form && !blocks ? &request->form->plan : &request->plan,
                                      .needs = nvlxi_request_needs(request),
                                      .info = &request->info,
                                      .has_parts = request->parts != NULL,
                                      .elapsed_ns = request->elapsed_ns};
    request->kept.waits = false;
    if (request->outcome)
        return;
    if (request->is_part || request->asked.letter) {
        nvlxi_tally_later(&ended, &request->kept);
    } else {
        nvlxi_tally(request->transfers->context->metrics, &ended);
        nvlxi_parts_tally(request);
    }
}

/* Under `polling`, of a request that is IN FLIGHT. */
void nvlxi_request_finish(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    request->elapsed_ns = nvlxi_now_ns() - request->started_ns;
    nvlxi_trace_stop(request->range);
    nvlxi_submit_return(&t->pool, &request->legs);
    if (request->notice)
        nvlxi_notice_end(request->notice);
    request->notice = NULL;
    judge(request);
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->in_flight, request);
    DL_APPEND(t->done, request);
    t->in_flight_count -= !request->is_part;
    tally(request);
    pthread_mutex_unlock(&t->mutex);
    nvlxi_request_drop_verification(request);
    nvlxi_parts_drop(request);
    nvlxi_plan_reset(&request->plan, NVLX_MECHANISM_AUTO); /* nobody looks for uses in it any more */
    request->copied = true;
    const bool later = deliver(request);
    nvlxi_needs_unpin(nvlxi_request_needs(request));
    if (request->prepared) {
        nvlxi_form_drop(request->form);
        request->form = NULL;
        atomic_fetch_sub(&request->prepared->posts, 1);
    }
    if (!later)
        become_done(request);
}

void nvlxi_request_conclude(struct nvlx_request *request, int code) {
    pthread_mutex_lock(&request->polling);
    if (code)
        nvlxi_request_fail(request, code);
    become_done(request);
    pthread_mutex_unlock(&request->polling);
}

/* Under `polling`; true when all legs are complete, or the device has failed, and all parts are. */
static bool poll_legs(struct nvlx_request *request) {
    for (;;) {
        int code = nvlxi_submit_poll(&request->transfers->pool, &request->legs);
        if (code == 0 || code == NVLX_EAGAIN)
            return code == 0 && nvlxi_parts_done(request);
        nvlxi_request_fail(request, code);
    }
}

/* True when what is to be verified of a transfer is, or was given up. A step may say why it failed long before a later
 * one gives the code: the words are kept, and logged when the request is DONE. */
static bool poll_verification(struct nvlx_request *request, bool complete) {
    struct nvlxi_attempt attempt;
    if (request->outcome)
        nvlxi_verification_stop(request->verification, request->outcome);
    nvlxi_attempt_begin(&attempt);
    int code = nvlxi_verification_step(request->verification, complete);
    if (!request->outcome && !request->error[0])
        snprintf(request->error, sizeof request->error, "%s", nvlx_last_error());
    if (!request->outcome && code != NVLX_EAGAIN)
        request->outcome = code;
    if (!request->outcome && code != NVLX_EAGAIN)
        request->error[0] = '\0';
    nvlxi_attempt_end(&attempt, 0);
    return code != NVLX_EAGAIN;
}

/* True when all legs are complete, and what is to be verified was. */
static bool poll_all(struct nvlx_request *request) {
    const bool complete = poll_legs(request);
    return nvlxi_likely(!request->verification) ? complete : poll_verification(request, complete) && complete;
}

bool nvlxi_request_poll(struct nvlx_request *request) {
    if (nvlxi_unlikely(request->parts != NULL))
        nvlxi_parts_poll(request);
    if (!request->copied && poll_all(request))
        nvlxi_request_finish(request);
    return request->copied || request->verification;
}

void nvlxi_request_look(struct nvlx_request *request) {
    if (pthread_mutex_trylock(&request->polling))
        return;
    nvlxi_request_poll(request);
    pthread_mutex_unlock(&request->polling);
}

/* Those that are complete, or are verified, as a list by `next_complete`, each with its `polling` held: at most
 * FOUND_MAX of the former. Verifying takes launches, which may wait for who closes a mapping: not under the mutex. */
static struct nvlx_request *find_complete(struct nvlxi_transfers *t, unsigned *found) {
    struct nvlx_request *request, *complete = NULL;
    *found = 0;
    pthread_mutex_lock(&t->mutex);
    DL_FOREACH(t->in_flight, request) {
        if (*found == FOUND_MAX)
            break;
        if (pthread_mutex_trylock(&request->polling))
            continue;
        if (request->verification || poll_legs(request)) {
            *found += !request->verification;
            request->next_complete = complete;
            complete = request;
        } else {
            pthread_mutex_unlock(&request->polling);
        }
    }
    pthread_mutex_unlock(&t->mutex);
    return complete;
}

/* Lets go of `polling`. One that is DONE and that nobody has goes back to the spares: nobody else finds it. */
static void end_look(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    const bool spare = request->copied && request->detached;
    pthread_mutex_unlock(&request->polling);
    if (!spare)
        return;
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->done, request);
    pthread_mutex_unlock(&t->mutex);
    nvlxi_request_recycle(request);
}

void nvlxi_transfers_progress(struct nvlxi_transfers *transfers) {
    unsigned found;
    nvlxi_graphs_look(transfers);
    do {
        struct nvlx_request *request = find_complete(transfers, &found), *next;
        for (; request; request = next) {
            next = request->next_complete;
            if (!request->verification || poll_all(request))
                nvlxi_request_finish(request);
            end_look(request);
        }
    } while (found == FOUND_MAX);
}

int nvlxi_request_detach(struct nvlx_request *request) {
    char error[sizeof request->error];
    pthread_mutex_lock(&request->polling);
    const int code = request->outcome;
    snprintf(error, sizeof error, "%s", request->error);
    request->detached = true;
    end_look(request);
    return code ? nvlxi_fail_again(code, error) : 0;
}

void nvlxi_transfers_finish(struct nvlxi_transfers *transfers) {
    for (uint64_t since = nvlxi_now_ns();; nvlxi_pause(since)) {
        nvlxi_transfers_progress(transfers);
        pthread_mutex_lock(&transfers->mutex);
        const uint32_t left = transfers->in_flight_count;
        pthread_mutex_unlock(&transfers->mutex);
        if (!left)
            return;
    }
}

uint64_t nvlxi_transfers_number(struct nvlxi_transfers *transfers) {
    pthread_mutex_lock(&transfers->mutex);
    const uint64_t number = transfers->number;
    pthread_mutex_unlock(&transfers->mutex);
    return number;
}

uint32_t nvlxi_transfers_naming(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer, uint64_t number) {
    const struct nvlx_request *request;
    uint32_t whole = 0, parts = 0;
    size_t ignored;
    pthread_mutex_lock(&transfers->mutex);
    DL_FOREACH(transfers->in_flight, request) {
        if (request->number <= number && nvlxi_needs_name(nvlxi_request_needs(request), peer, &ignored))
            ++*(request->is_part ? &parts : &whole);
    }
    pthread_mutex_unlock(&transfers->mutex);
    return whole || !parts ? whole : 1;
}

static bool touches(const struct nvlx_request *request, uint64_t address, uint64_t length) {
    const struct nvlxi_plan *plan = request->form ? &request->form->plan : &request->plan;
    return nvlxi_needs_overlap(nvlxi_request_needs(request), plan, address, length);
}

uint32_t nvlxi_transfers_users(struct nvlxi_transfers *t, uint64_t address, uint64_t length) {
    const struct nvlx_request *request;
    const struct nvlxi_form *form;
    uint32_t users = NVLXI_NOBODY;
    pthread_mutex_lock(&t->mutex);
    DL_FOREACH(t->in_flight, request) {
        if (touches(request, address, length))
            users |= NVLXI_A_TRANSFER;
    }
    DL_FOREACH(t->forms, form) {
        if (!atomic_load(&form->upset) && nvlxi_needs_overlap(&form->needs, &form->plan, address, length))
            users |= NVLXI_A_PREPARED_LIST;
    }
    DL_FOREACH(t->captured, request) {
        if (touches(request, address, length))
            users |= NVLXI_A_GRAPH;
    }
    pthread_mutex_unlock(&t->mutex);
    return users;
}

void nvlxi_transfers_upset(struct nvlxi_transfers *transfers, uint64_t address, uint64_t length) {
    struct nvlxi_form *form;
    pthread_mutex_lock(&transfers->mutex);
    DL_FOREACH(transfers->forms, form) {
        if (!atomic_load(&form->upset) && nvlxi_needs_near(&form->needs, address, length))
            atomic_store(&form->upset, true);
    }
    pthread_mutex_unlock(&transfers->mutex);
}

void nvlxi_request_tell(const struct nvlx_request *request) {
    const struct nvlx_request_info *info = &request->info;
    const struct nvlxi_needs *needs = nvlxi_request_needs(request);
    nvlxi_log(NVLX_LOG_DEBUG,
              "%s %" PRIu64 " of %" PRIu64 " ops with %s%s: %" PRIu64 " copies by engines (%" PRIu64 " bytes), %" PRIu64
              " pieces by kernels (%" PRIu64 " bytes, %" PRIu32 " SMs), submitted in %" PRIu64 " ns",
              request->is_part ? "early part" : "transfer", request->number, info->ops,
              needs->peer_count ? needs->peers[0]->name : "nobody", needs->peer_count > 1 ? " and others" : "",
              info->engine_fragments, info->engine_bytes, info->kernel_fragments, info->kernel_bytes, info->sms,
              info->submit_ns);
}

/* ---- What the caller asks ---------------------------------------------------------------------------- */

int nvlxi_request_test(struct nvlx_request *request) {
    int status = atomic_load_explicit(&request->status, memory_order_acquire);
    if (status == NVLX_EAGAIN) {
        nvlxi_request_look(request);
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
        if (now - since >= NVLXI_SPIN_NS)
            between = 1;
        nvlxi_pause(since);
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
    if (request->asked.event)
        t->teller.forget(t->teller.context, request);
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->done, request);
    pthread_mutex_unlock(&t->mutex);
    nvlxi_request_recycle(request);
    return status;
}
