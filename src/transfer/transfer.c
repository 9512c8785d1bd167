/* The way of a list: validate, map what is missing, plan, enter, submit. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/transfer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "transfer/blocks/blocks.h"
#include "transfer/graphs.h"
#include "transfer/requests/early.h"
#include "transfer/signals.h"
#include "transfer/wake.h"

#define TOO_LONG   2 /* what issue_plan returns for such a list, see there */
#define BY_KERNELS 3 /* likewise: plan it for kernels alone */

/* ---- VALIDATED -> IN FLIGHT -------------------------------------------------------------------------- */

const struct nvlxi_needs *nvlxi_request_needs(const struct nvlx_request *request) {
    return request->form ? &request->form->needs : &request->needs;
}

/* Pins what the request needs and enters it in the list. With the tables held for reading, if it needs anything. */
static int enter(void *holder) {
    struct nvlx_request *request = holder;
    struct nvlxi_transfers *t = request->transfers;
    if (nvlxi_unlikely(request->captured != NULL))
        return nvlxi_graphs_enter(request);
    pthread_mutex_lock(&t->mutex);
    bool room = t->in_flight_count < t->max_requests;
    if (room) {
        t->in_flight_count += !request->is_part;
        DL_APPEND(t->in_flight, request);
        request->number = ++t->number;
        if (request->prepared) {
            request->form = request->prepared->form;
            atomic_fetch_add(&request->form->users, 1);
        }
        nvlxi_needs_pin(nvlxi_request_needs(request));
        if (request->plan.sealed)
            request->needs.ops = NULL;
    }
    pthread_mutex_unlock(&t->mutex);
    return room ? 0
                : nvlxi_fail(NVLX_EBUSY, "%" PRIu32 " requests are in flight, as many as config.max_requests allows",
                             t->max_requests);
}

/* Takes back `enter` for a request of which nothing was issued. */
static void leave(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    if (nvlxi_unlikely(request->captured != NULL)) {
        nvlxi_graphs_leave(request);
        return;
    }
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->in_flight, request); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    t->in_flight_count -= !request->is_part;
    pthread_mutex_unlock(&t->mutex);
    nvlxi_needs_unpin(nvlxi_request_needs(request));
}

/* If a peer has changed something meanwhile, the next validation finds it. */
static int map_missing(const struct nvlxi_admission *a, struct nvlxi_patience *patience) {
    const struct nvlxi_validation *validation = a->validation;
    if (a->flags & NVLX_NO_MAP)
        return nvlxi_fail(
            NVLX_EAGAIN, "peers' segments must be mapped first (%zu), and NVLX_NO_MAP is set: nvlx_peer_map maps ahead",
            validation->missing_count);
    return nvlxi_mappings_open(validation->missing, validation->missing_count, patience,
                               a->early ? &a->early->watch : NULL);
}

/* NVLXI_OUTDATED, not logged: the list's parts are. */
static int validate_and_enter(struct nvlxi_transfers *t, const struct nvlxi_admission *a) {
    struct nvlxi_validated *validated = &a->validation->validated;
    const struct nvlx_op *ops = a->early ? nvlxi_early_ops(a->early) : a->ops;
    nvlxi_tables_read(t->context->tables);
    const bool traced = nvlxi_trace_begin(NVLXI_TRACE_VALIDATE, a->count);
    int code = a->early && nvlxi_early_outdated(a->early) ? NVLXI_OUTDATED : 0;
    if (!code)
        code = nvlxi_validate(a->validation, t->registration, ops, a->count, a->plan->mechanism, a->needs);
    nvlxi_trace_end(traced);
    if (!code && a->verification && validated->wait_count)
        code = nvlxi_fail(NVLX_EINVAL, "op 0: a list that is verified is of reads alone, and waits for no count");
    if (!code && a->verification)
        code = nvlxi_verification_plan(a->verification, &a->validation->digested, &t->registration->ranges, a->ops,
                                       a->count);
    if (!code && !a->unplanned)
        code = a->portions ? nvlxi_plan_begin(a->plan, validated) : nvlxi_plan_all(a->plan, validated);
    if (!code)
        code = a->enter(a->holder);
    const bool worn = nvlxi_intervals_misses(&t->registration->ranges);
    nvlxi_tables_read_end(t->context->tables);
    if (worn)
        nvlxi_registration_renew(t->registration);
    return code;
}

/* What takes a driver is done here, between two attempts, with the tables free. NVLXI_FULL is not logged. */
static int admit(struct nvlxi_transfers *transfers, const struct nvlxi_admission *admission, bool polled) {
    size_t bytes = NVLXI_BLOCK_BYTES;
    struct nvlxi_patience patience = {0};
    for (;;) {
        int code = validate_and_enter(transfers, admission);
        if (code == NVLX_EAGAIN) {
            code = map_missing(admission, &patience);
        } else if (code == NVLXI_OUTDATED) {
            nvlxi_early_undo(admission->early);
            code = 0;
        } else if (code == NVLXI_GROW) {
            code = nvlxi_list_memory_grow(&transfers->pool.lists, bytes);
            bytes *= 2;
        } else if ((code == NVLX_EBUSY || code == NVLXI_FULL) && !polled) {
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

static int refuse(void *plan) {
    return nvlxi_list_memory_refuse(((struct nvlxi_plan *)plan)->context, plan);
}

/* A list for which there is no room is planned again in memory of the host: so that it is known how much it needs. */
static int tell_full(struct nvlxi_transfers *transfers, const struct nvlxi_admission *admission) {
    struct nvlxi_plan *plan = admission->plan;
    const nvlxi_take_chunk take_chunk = plan->take_chunk;
    struct nvlxi_admission whole = *admission;
    whole.portions = false;
    whole.enter = refuse;
    whole.holder = plan;
    nvlxi_plan_reset(plan, plan->mechanism);
    plan->take_chunk = nvlxi_list_memory_borrow_for_host;
    int code = admit(transfers, &whole, true);
    plan->take_chunk = take_chunk;
    return code;
}

int nvlxi_transfer_admit(struct nvlxi_transfers *transfers, const struct nvlxi_admission *admission) {
    int code = admit(transfers, admission, false);
    return code == NVLXI_FULL ? tell_full(transfers, admission) : code;
}

struct submission { /* of a request that is in flight */
    struct nvlxi_terms terms;
    struct nvlxi_validated *validated; /* what the request's own plan may lack yet */
    void *stream;                      /* the caller's, or NULL */
    struct nvlxi_stream found;         /* what it is */
};

/* Finds the caller's stream, if there is one: whether it captures tells what becomes of the list. */
static int find_stream(struct nvlx_request *made, struct submission *how, const struct nvlxi_asked *asked,
                       uint32_t flags) {
    const struct nvlxi_context *context = made->transfers->context;
    int code = how->stream ? context->ops->stream_find(context->device, how->stream, &how->found) : 0;
    if (!code)
        code = nvlxi_graphs_check(&how->found, asked, flags);
    return code || !how->found.capturing ? code : nvlxi_graphs_want(made);
}

/* Issues what is planned, and plans and issues the portions that are left. A failure fails the request: the rest is
 * planned all the same, for those who ask what the request was. */
static void submit_all(struct nvlx_request *request, const struct submission *how, const struct nvlxi_stream *stream) {
    struct nvlxi_lane_pool *pool = &request->transfers->pool;
    int failure = nvlxi_submit_copies(pool, &how->terms, &request->legs);
    while (!how->terms.plan->sealed) {
        nvlxi_plan_next(&request->plan, how->validated);
        failure = failure ? failure : nvlxi_submit_more(pool, &how->terms, &request->legs);
    }
    if (!failure && nvlxi_unlikely(how->terms.plan->signal_count))
        failure = nvlxi_signals_submit(pool, how->terms.plan, &request->legs);
    if (failure)
        nvlxi_request_fail(request, failure);
    const struct nvlxi_call call = {nvlxi_notice_arrive, request->notice};
    if (request->notice)
        nvlxi_notice_expect(request->notice, request->legs.count);
    if ((failure = nvlxi_submit_end(pool, &request->legs, stream, request->notice ? &call : NULL)))
        nvlxi_request_fail(request, failure);
}

/* Looks what is done by now before it gives up. */
static int borrow(struct nvlx_request *request, const struct nvlxi_terms *terms) {
    struct nvlxi_transfers *t = request->transfers;
    int code = nvlxi_submit_borrow(&t->pool, terms, &request->legs);
    if (code != NVLX_EBUSY)
        return code;
    nvlxi_transfers_progress(t);
    code = nvlxi_submit_borrow(&t->pool, terms, &request->legs);
    return code == NVLX_EBUSY ? nvlxi_lanes_fail_busy(&t->pool, request->legs.busy_gpu, terms->stream != NULL) : code;
}

/* A list that is too long to wait for a stream need not wait if the stream has come so far. */
static int drop_done_stream(struct nvlxi_lane_pool *pool, struct nvlxi_terms *terms) {
    int code = nvlxi_lanes_stream_done(pool, terms->stream);
    if (code == NVLX_EAGAIN)
        return TOO_LONG;
    terms->stream = NULL;
    return code;
}

/* Behind a stream that has nothing to do, nothing waits: several lanes are faster. Else kernels wait better than copies
 * of the engines do, which may hold up others (lanes.h), if the list can still be planned for them: BY_KERNELS. */
static int choose_order(struct nvlxi_lane_pool *pool, struct submission *how) {
    struct nvlxi_terms *terms = &how->terms;
    const bool by_engines = nvlxi_plan_engine_copies(terms->plan) > 0, wide = nvlxi_submit_is_wide(terms->plan);
    const bool waits = how->validated && how->validated->wait_count;
    if (nvlxi_submit_is_long(terms))
        return waits ? TOO_LONG : drop_done_stream(pool, terms);
    if (!by_engines && !wide)
        return 0;
    if (!waits && nvlxi_lanes_stream_idle(pool, terms->stream)) {
        terms->stream = wide ? NULL : terms->stream;
        return 0;
    }
    return by_engines && how->validated && nvlxi_kernels_suit(terms->plan) ? BY_KERNELS : 0;
}

static int tell_too_long(const struct nvlxi_plan *plan) {
    return nvlxi_fail(NVLX_EBUSY,
                      "a list of %" PRIu64 " copies for the copy engines is too long to wait for a stream (%d copies "
                      "and kernels may, on each GPU): split it, or start it when the stream has come so far",
                      nvlxi_plan_engine_copies(plan), NVLXI_ORDERED_DEPTH);
}

/* Fails only before the first copy; what goes wrong later fails the request. TOO_LONG, to wait for the stream, and
 * BY_KERNELS are not logged. */
static int issue_plan(struct nvlx_request *request, struct submission *how) {
    struct nvlxi_lane_pool *pool = &request->transfers->pool;
    struct nvlxi_stream *stream = how->stream ? &how->found : NULL;
    int code = 0;
    how->terms.stream = stream;
    if (nvlxi_unlikely(request->captured != NULL))
        return nvlxi_graphs_issue(request, &how->terms);
    if (stream)
        code = choose_order(pool, how);
    if (code || (code = borrow(request, &how->terms)))
        return code;
    if (how->validated && nvlxi_unlikely(how->validated->wait_count))
        code = nvlxi_list_await(request, how->validated, how->stream);
    if (!code && how->terms.stream)
        code = nvlxi_submit_follow(pool, &request->legs, stream);
    if (code) {
        nvlxi_list_await_no_more(request);
        nvlxi_submit_return(pool, &request->legs);
        return code;
    }
    submit_all(request, how, stream);
    return 0;
}

void nvlxi_needs_drop_ops(struct nvlxi_transfers *transfers, struct nvlxi_needs *needs) {
    if (!needs->ops)
        return;
    pthread_mutex_lock(&transfers->mutex);
    needs->ops = NULL;
    pthread_mutex_unlock(&transfers->mutex);
}

/* The end of a submission whose copies were issued, or failed the request. */
static void note_issued(struct nvlx_request *request) {
    if (request->captured)
        return;
    request->info.submit_ns = nvlxi_now_ns() - request->started_ns;
    nvlxi_wake_note_use(request->transfers, request->started_ns);
    request->range = nvlxi_trace_start(NVLXI_TRACE_TRANSFER, request->info.bytes);
    if (nvlxi_unlikely(nvlxi_log_is_on(NVLX_LOG_DEBUG)))
        nvlxi_request_tell(request);
    if (!request->legs.count && !request->verification && !request->parts)
        nvlxi_request_finish(request);
}

static int make_notices(struct nvlxi_transfers *t, struct nvlxi_notices **notices) {
    int code = 0;
    pthread_mutex_lock(&t->mutex);
    if (!t->notices)
        code = nvlxi_notices_make(&t->notices);
    *notices = t->notices;
    pthread_mutex_unlock(&t->mutex);
    return code;
}

/* Before a request is submitted. */
static int take_asked(struct nvlx_request *request, const struct nvlxi_asked *asked) {
    struct nvlxi_notices *notices;
    if (!asked->event && !asked->letter)
        return 0;
    int code = make_notices(request->transfers, &notices);
    if (!code)
        code = nvlxi_notice_take(notices, request, &request->notice);
    if (!code)
        request->asked = *asked;
    return code;
}

/* Ends a submission: the caller gets the request, or a graph has it, or the spares get it back. */
static int hand_over(struct nvlx_request *made, int code, struct nvlx_request **request) {
    const bool captured = nvlxi_graphs_have(made);
    if (code && !captured)
        nvlxi_request_drop_verification(made);
    pthread_mutex_unlock(&made->polling);
    if (captured) {
        *request = NULL;
    } else if (code) {
        nvlxi_graphs_want_not(made);
        if (made->notice)
            nvlxi_notice_end(made->notice);
        made->notice = NULL;
        nvlxi_plan_reset(&made->plan, NVLX_MECHANISM_AUTO);
        nvlxi_request_recycle(made);
    } else {
        *request = made;
    }
    return code;
}

/* What verifies is there before the first copy. */
static int begin_and_issue(struct nvlx_request *made, struct submission *how) {
    struct nvlxi_transfers *t = made->transfers;
    int code = nvlxi_verification_begin(made->verification, t->desks, &t->pool);
    if (code)
        return code;
    made->verification->marked = !how->stream;
    how->terms.marks = how->stream ? NULL : &made->verification->marks;
    if ((code = issue_plan(made, how)))
        nvlxi_verification_end(made->verification);
    return code;
}

static int submit_by(struct nvlx_request *made, const struct nvlxi_admission *admission, struct submission *how,
                     uint32_t mechanism) {
    nvlxi_plan_reset(&made->plan, mechanism);
    int code = nvlxi_transfer_admit(made->transfers, admission);
    if (code)
        return code;
    if ((code = made->verification ? begin_and_issue(made, how) : issue_plan(made, how)) && !nvlxi_graphs_have(made))
        leave(made);
    return code;
}

static int submit_list(struct nvlx_request *made, const struct nvlxi_admission *admission, struct submission *how,
                       uint32_t mechanism) {
    int code = submit_by(made, admission, how, mechanism);
    if (code == BY_KERNELS || (code == TOO_LONG && nvlxi_kernels_can(&made->plan)))
        code = submit_by(made, admission, how, NVLX_MECHANISM_KERNEL);
    return code;
}

/* A list in which many ops lie as rows do is submitted as these rows, unless that is refused. */
static int submit_shape(struct nvlx_request *made, const struct nvlxi_admission *admission, struct submission *how,
                        uint32_t mechanism) {
    struct nvlxi_shape *shape = &admission->validation->shape;
    struct nvlxi_admission shaped = *admission;
    if (made->verification || !nvlxi_shape_find(shape, admission->ops, admission->count, mechanism, false))
        return submit_list(made, admission, how, mechanism);
    shaped.ops = shape->ops;
    shaped.count = shape->count;
    shaped.early = NULL;
    int code = submit_list(made, &shaped, how, mechanism);
    return nvlxi_shape_misfits(code) && !nvlxi_graphs_have(made) ? submit_list(made, admission, how, mechanism) : code;
}

/* Whether parts of a list may be copied before all that it needs is mapped. */
static bool may_begin_early(const struct nvlx_request *made, const struct nvlx_transfer_options *options) {
    const uint32_t mechanism = options->mechanism ? options->mechanism : made->transfers->mechanism;
    return !made->is_part && !made->notice && !made->verification && !options->stream && !options->generation &&
           mechanism != NVLX_MECHANISM_KERNEL;
}

static int submit(struct nvlx_request *made, struct nvlxi_validation *validation, const struct nvlx_op *ops,
                  size_t count, const struct nvlx_transfer_options *options, const struct nvlxi_asked *asked) {
    struct nvlxi_transfers *t = made->transfers;
    struct submission how = {.terms = {.plan = &made->plan,
                                       .max_sms = options->max_sms ? options->max_sms : t->max_sms,
                                       .priority = options->priority,
                                       .calls = made->notice != NULL},
                             .validated = &validation->validated,
                             .stream = options->stream};
    struct nvlxi_early early;
    int code = find_stream(made, &how, asked, options->flags);
    if (code)
        return code;
    if (!made->captured)
        nvlxi_wake_for(t, ops, count, made->started_ns);
    nvlxi_early_begin(&early, made, ops, count, options->priority, may_begin_early(made, options));
    const struct nvlxi_admission admission = {.ops = ops,
                                              .count = count,
                                              .early = &early,
                                              .flags = options->flags,
                                              .portions = !made->captured,
                                              .plan = &made->plan,
                                              .needs = &made->needs,
                                              .validation = validation,
                                              .verification = made->verification,
                                              .enter = enter,
                                              .holder = made};
    made->needs.generation = options->generation;
    if (options->stream && count && ops[0].opcode >= NVLX_OP_SIGNAL)
        validation->signal_gpu = how.found.gpu;
    const uint32_t mechanism = options->mechanism ? options->mechanism : t->mechanism;
    code = submit_shape(made, &admission, &how, mechanism);
    if (code == NVLX_EBUSY && made->parts) { /* it may be they who have filled the queues */
        nvlxi_parts_await(made);
        code = submit_list(made, &admission, &how, mechanism);
    }
    if (!code)
        nvlxi_needs_drop_ops(t, &made->needs);
    nvlxi_early_end(&early);
    if (code) {
        nvlxi_parts_drop(made);
        return code == TOO_LONG ? tell_too_long(&made->plan) : code;
    }
    nvlxi_submit_describe(&t->pool, &made->plan, count, how.terms.max_sms, &made->info);
    nvlxi_parts_describe(made);
    note_issued(made);
    return 0;
}

int nvlxi_transfer_submit(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count,
                          const struct nvlx_transfer_options *options, const struct nvlxi_asked *asked,
                          struct nvlx_request **request) {
    uint64_t started_ns = nvlxi_now_ns();
    struct nvlx_request *made;
    struct nvlxi_validation *validation;
    int code = nvlxi_transfers_take(transfers, &made, &validation);
    if (code)
        return code;
    const bool traced = nvlxi_trace_begin(NVLXI_TRACE_SUBMIT, count);
    pthread_mutex_lock(&made->polling);
    made->started_ns = started_ns;
    if (options->flags & NVLX_VERIFY)
        code = nvlxi_request_make_verification(made);
    if (!code)
        code = take_asked(made, asked);
    if (!code)
        code = submit(made, validation, ops, count, options, asked);
    nvlxi_transfers_return_validation(transfers, validation);
    nvlxi_trace_end(traced);
    return hand_over(made, code, request);
}

int nvlxi_transfer_submit_part(struct nvlxi_early *early, size_t count, struct nvlx_peer *peer,
                               struct nvlxi_mapping *opening, struct nvlx_request **part) {
    const struct nvlxi_asked nothing = {.wanted = NVLXI_WANTS_REQUEST};
    struct nvlx_transfer_options options;
    struct nvlx_request *made;
    int code = nvlxi_transfers_take(early->whole->transfers, &made, early->validation ? NULL : &early->validation);
    if (code)
        return code;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_NO_MAP;
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    options.priority = early->priority;
    early->validation->opening_peer = peer;
    early->validation->opening = opening;
    pthread_mutex_lock(&made->polling);
    made->started_ns = nvlxi_now_ns();
    made->is_part = true;
    code = submit(made, early->validation, early->some, count, &options, &nothing);
    return hand_over(made, code, part);
}

/* Blocks by id are planned when they are posted. */
static int plan_blocks(struct nvlx_request *made, struct nvlxi_block_call *call, struct nvlxi_terms *terms) {
    int code = nvlxi_blocks_plan(made, call);
    terms->plan = &made->plan;
    terms->max_sms = call->max_sms;
    terms->priority = call->priority;
    if (!code)
        nvlxi_submit_describe(&made->transfers->pool, &made->plan, call->ids->count * call->count, call->max_sms,
                              &made->info);
    return code;
}

/* Of a request that is IN FLIGHT, so that what the peer withdraws from now on stays until it is DONE. */
static int start_post(struct nvlx_request *made, const struct nvlxi_posting *posting,
                      const struct nvlxi_stream *stream) {
    const struct nvlx_prepared *prepared = made->prepared;
    const struct nvlxi_form *form = made->form;
    struct submission how = {.terms = {.plan = &form->plan,
                                       .max_sms = prepared->max_sms,
                                       .priority = prepared->priority,
                                       .calls = made->notice != NULL},
                             .stream = posting->stream,
                             .found = *stream};
    int code = nvlxi_form_check(form);
    made->info = form->info; /* NOLINT(clang-analyzer-core.NullDereference): entering has set it */
    if (!code && posting->blocks)
        code = plan_blocks(made, posting->blocks, &how.terms);
    if (!code)
        code = issue_plan(made, &how);
    return code == TOO_LONG ? tell_too_long(how.terms.plan) : code;
}

/* Looks what is done by now before it gives up. */
static int enter_post(struct nvlx_request *made) {
    int code = enter(made);
    if (code) {
        nvlxi_transfers_progress(made->transfers);
        code = enter(made);
    }
    return code;
}

/* One try. NVLXI_OUTDATED: `*outdated` is the form, to be dropped. What a graph has, it keeps. */
static int try_post(struct nvlx_request *made, const struct nvlxi_posting *posting, const struct nvlxi_stream *stream,
                    struct nvlxi_form **outdated) {
    int code = enter_post(made);
    if (code || !(code = start_post(made, posting, stream)) || nvlxi_graphs_have(made))
        return code;
    leave(made);
    *outdated = made->form;
    made->form = NULL;
    if (code != NVLXI_OUTDATED)
        nvlxi_form_drop(*outdated);
    return code;
}

static int post(struct nvlx_request *made, const struct nvlxi_posting *posting, const struct nvlxi_asked *asked) {
    struct submission how = {.stream = posting->stream};
    struct nvlxi_patience patience = {0};
    struct nvlxi_form *outdated = NULL;
    int code = find_stream(made, &how, asked, 0);
    if (code)
        return code;
    while ((code = try_post(made, posting, &how.found, &outdated)) == NVLXI_OUTDATED) {
        code = nvlxi_prepared_renew(made->prepared, outdated);
        nvlxi_form_drop(outdated);
        if (code || (code = nvlxi_mapping_try_again(&patience)))
            break;
    }
    return code;
}

int nvlxi_post(struct nvlx_prepared *prepared, const struct nvlxi_posting *posting, const struct nvlxi_asked *asked,
               struct nvlx_request **request) {
    struct nvlxi_transfers *t = prepared->transfers;
    uint64_t started_ns = nvlxi_now_ns();
    struct nvlx_request *made;
    int code = nvlxi_transfers_take(t, &made, NULL);
    if (code)
        return code;
    const bool traced = nvlxi_trace_begin(NVLXI_TRACE_SUBMIT, prepared->count);
    pthread_mutex_lock(&made->polling);
    made->started_ns = started_ns;
    made->prepared = prepared;
    atomic_fetch_add(&prepared->posts, 1);
    code = take_asked(made, asked);
    if (!code)
        code = post(made, posting, asked);
    if (code || made->captured)
        atomic_fetch_sub(&prepared->posts, 1);
    if (!code)
        note_issued(made);
    nvlxi_trace_end(traced);
    return hand_over(made, code, request);
}
