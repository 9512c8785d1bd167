/* Parts of graphs: see graphs.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/graphs.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "transfer/blocks/blocks.h"

int nvlxi_graphs_check(const struct nvlxi_stream *stream, const struct nvlxi_asked *asked, uint32_t flags) {
    if (!stream->capturing)
        return asked->wanted == NVLXI_WANTS_NO_REQUEST ? nvlxi_fail(NVLX_EINVAL, "request is NULL") : 0;
    if (asked->event || asked->letter)
        return nvlxi_fail(NVLX_ENOTSUP, "the stream captures a graph: a part of one sends no message and has no "
                                        "NVLX_DONE_EVENT; a signal, or a node of the program's own, tells that it is "
                                        "done");
    if (flags & NVLX_VERIFY)
        return nvlxi_fail(NVLX_ENOTSUP, "the stream captures a graph: a part of one is not verified");
    if (asked->wanted == NVLXI_WANTS_REQUEST)
        return nvlxi_fail(NVLX_EINVAL, "the stream captures a graph: each run of it copies, and none has a request, so "
                                       "`request` must be NULL");
    return 0;
}

int nvlxi_graphs_want(struct nvlx_request *request) {
    struct nvlxi_captured *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a part of a graph");
    made->request = request;
    request->captured = made;
    request->needs.keeps_remote_uses = true;
    return 0;
}

void nvlxi_graphs_want_not(struct nvlx_request *request) {
    if (request->captured)
        free(request->captured->known);
    free(request->captured);
    request->captured = NULL;
}

/* ---- VALIDATED -> CAPTURED ----------------------------------------------------------------------------- */

/* With the tables held for reading. */
static int note_known(struct nvlx_request *request) {
    const struct nvlxi_needs *needs = &request->needs;
    uint64_t *known = calloc(nvlxi_max(needs->peer_count, 1), sizeof *known);
    if (!known)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a part of a graph, of %zu peers", needs->peer_count);
    for (size_t i = 0; i < needs->peer_count; i++)
        known[i] = needs->peers[i]->table->descriptor->identity.generation;
    free(request->captured->known);
    request->captured->known = known;
    return 0;
}

int nvlxi_graphs_enter(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    int code = request->prepared ? 0 : note_known(request);
    if (code)
        return code;
    pthread_mutex_lock(&t->mutex);
    DL_APPEND(t->captured, request);
    if (request->prepared) {
        request->form = request->prepared->form;
        atomic_fetch_add(&request->form->users, 1);
    }
    nvlxi_needs_pin(nvlxi_request_needs(request));
    request->needs.ops = NULL;
    pthread_mutex_unlock(&t->mutex);
    return 0;
}

void nvlxi_graphs_leave(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->captured, request); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    pthread_mutex_unlock(&t->mutex);
    nvlxi_needs_unpin(nvlxi_request_needs(request));
}

/* ---- Ids out of range ------------------------------------------------------------------------------------ */

#define LOOK_NS    100000000
#define LOOK_PARTS 256 /* with the mutex held: other calls wait for it */
#define FAULTS_MAX 32  /* that are told before others are looked for */

struct met { /* by a part */
    struct nvlxi_block_ids ids;
    struct nvlxi_block_fault fault;
    bool told;
};

static void watch(struct nvlx_request *request) {
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    DL_APPEND(t->watched, request->captured);
    t->watched_count++;
    pthread_mutex_unlock(&t->mutex);
}

static bool take_met(struct nvlxi_captured *captured, struct met *met) {
    if (!nvlxi_blocks_take_fault(captured->request, &met->fault))
        return false;
    met->ids = captured->request->blocks.ids;
    met->told = captured->told;
    captured->told = true;
    return true;
}

/* It runs no more. True: it has met something that was not seen yet. */
static bool watch_no_more(struct nvlx_request *request, struct met *met) {
    struct nvlxi_transfers *t = request->transfers;
    pthread_mutex_lock(&t->mutex);
    const bool found = take_met(request->captured, met);
    DL_DELETE(t->watched, request->captured); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    t->watched_count--;
    pthread_mutex_unlock(&t->mutex);
    return found;
}

/* Looks at parts that were not looked at for the longest time, of *left of them. Returns how many have met something.
 */
static unsigned find_met(struct nvlxi_transfers *t, size_t *left, struct met *met) {
    unsigned found = 0;
    pthread_mutex_lock(&t->mutex);
    *left = nvlxi_min(*left, t->watched_count);
    for (unsigned i = 0; *left && i < LOOK_PARTS && found < FAULTS_MAX; i++) {
        struct nvlxi_captured *captured = t->watched;
        DL_DELETE(t->watched, captured);
        DL_APPEND(t->watched, captured);
        found += take_met(captured, &met[found]);
        (*left)--;
    }
    pthread_mutex_unlock(&t->mutex);
    return found;
}

/* Without a lock, as users may hear of it. */
static void tell(struct nvlxi_transfers *t, const struct met *met, const char *whose) {
    struct nvlxi_attempt attempt;
    nvlxi_count_alone(&t->context->metrics->graph_faults, 1);
    nvlxi_attempt_begin(&attempt);
    nvlxi_blocks_fail(&met->ids, &met->fault);
    nvlxi_attempt_note(&attempt, met->told ? NVLX_LOG_DEBUG : NVLX_LOG_WARNING, whose);
}

void nvlxi_graphs_look(struct nvlxi_transfers *transfers) {
    uint64_t looked = atomic_load(&transfers->looked_ns);
    const uint64_t now = nvlxi_now_ns();
    struct met met[FAULTS_MAX];
    size_t left = SIZE_MAX;
    nvlxi_graphs_reap(transfers);
    if (now - looked < LOOK_NS || !atomic_compare_exchange_strong(&transfers->looked_ns, &looked, now))
        return;
    while (left) {
        const unsigned found = find_met(transfers, &left, met);
        for (unsigned i = 0; i < found; i++)
            tell(transfers, &met[i], "a graph");
    }
}

/* ---- Queued -------------------------------------------------------------------------------------------- */

int nvlxi_graphs_check_kernels(const struct nvlxi_context *context, int gpu) {
    struct nvlxi_gpu_limits limits;
    int code = context->ops->limits(context->device, gpu, &limits);
    return code || limits.sms ? code
                              : nvlxi_fail(NVLX_ENOTSUP,
                                           "the stream captures a graph: a part of one signals and waits by kernels, "
                                           "and there are none for GPU %d, or they are being loaded",
                                           gpu);
}

/* What the capture would not take, or not all of it. */
static int check_plan(const struct nvlxi_context *context, const struct nvlxi_terms *terms) {
    const struct nvlxi_plan *plan = terms->plan;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following) {
        const struct nvlxi_ends ends = nvlxi_submit_ends(group);
        if (group->gpu != terms->stream->gpu)
            return nvlxi_fail(NVLX_ENOTSUP,
                              "the stream captures a graph: a part of one copies on the stream's GPU, which is %d, and "
                              "the list has copies on GPU %d",
                              terms->stream->gpu, group->gpu);
        if (ends.to != ends.from && ends.to >= 0 && ends.from >= 0)
            return nvlxi_fail(NVLX_ENOTSUP,
                              "the stream captures a graph: a part of one does not copy between GPUs %d and %d of one "
                              "process",
                              ends.from, ends.to);
    }
    for (size_t i = 0; i < plan->signal_count; i++)
        if (plan->signals[i].gpu != terms->stream->gpu)
            return nvlxi_fail(NVLX_ENOTSUP,
                              "the stream captures a graph: a part of one signals from the stream's GPU, which is %d, "
                              "and the list from GPU %d",
                              terms->stream->gpu, plan->signals[i].gpu);
    return plan->signal_count ? nvlxi_graphs_check_kernels(context, terms->stream->gpu) : 0;
}

/* A group takes up to two: one for engines, and one for a kernel. */
static int make_legs(const struct nvlxi_plan *plan, struct nvlxi_pooled_lane *lane, struct nvlxi_legs *legs) {
    const size_t count = 2 * (size_t)plan->group_count;
    *legs = (struct nvlxi_legs){.leg = calloc(nvlxi_max(count, 1), sizeof *legs->leg),
                                .place = calloc(nvlxi_max(plan->group_count, 1), sizeof *legs->place)};
    if (!legs->leg || !legs->place) {
        free(legs->leg);
        free(legs->place);
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a part of a graph");
    }
    for (size_t i = 0; i < count; i++)
        legs->leg[i].lane = lane;
    return 0;
}

/* All in one lane, in which signals come last. */
static int queue(struct nvlx_request *request, const struct nvlxi_terms *terms, struct nvlxi_legs *legs,
                 struct nvlxi_lane *lane) {
    struct nvlxi_lane_pool *pool = &request->transfers->pool;
    struct nvlxi_captured *captured = request->captured;
    int code = nvlxi_hold_begin(pool->context, terms->stream, &request->transfers->holds, &captured->hold);
    if (code)
        return code;
    captured->held = true;
    request->prepared = NULL; /* it may be freed before the graph is gone */
    code = nvlxi_submit_copies(pool, terms, legs);
    for (size_t i = 0; i < terms->plan->signal_count && !code; i++)
        code = pool->context->ops->signal(lane, &terms->plan->signals[i].signal);
    return code;
}

int nvlxi_graphs_issue(struct nvlx_request *request, const struct nvlxi_terms *terms) {
    const struct nvlxi_context *context = request->transfers->pool.context;
    struct nvlxi_pooled_lane lane = {.kind = NVLXI_CALLERS, .key = {.gpu = terms->stream->gpu}};
    struct nvlxi_legs legs;
    int code = check_plan(context, terms);
    if (code || (code = make_legs(terms->plan, &lane, &legs)))
        return code;
    code = context->ops->stream_lane(context->device, terms->stream, &lane.lane);
    if (!code) {
        code = queue(request, terms, &legs, lane.lane);
        context->ops->stream_lane_end(lane.lane);
    }
    free(legs.leg);
    free(legs.place);
    if (request->captured->held && request->blocks.id_count)
        watch(request);
    return code;
}

/* ---- CAPTURED -> (idle) -------------------------------------------------------------------------------- */

static void give_back(struct nvlx_request *request) {
    struct met met;
    /* A capture that is broken lets go of the graph: the call that makes this part may still be at it. */
    pthread_mutex_lock(&request->polling);
    pthread_mutex_unlock(&request->polling);
    if (request->blocks.id_count && watch_no_more(request, &met))
        tell(request->transfers, &met, "a graph that is gone");
    nvlxi_graphs_leave(request);
    nvlxi_plan_reset(&request->plan, NVLX_MECHANISM_AUTO);
    if (request->form)
        nvlxi_form_drop(request->form);
    request->form = NULL;
    nvlxi_graphs_want_not(request);
    nvlxi_request_recycle(request);
}

void nvlxi_graphs_reap(struct nvlxi_transfers *transfers) {
    struct nvlxi_hold *hold = nvlxi_holds_take_ended(&transfers->holds), *next;
    for (; hold; hold = next) {
        next = hold->next;
        give_back(nvlxi_container_of(hold, struct nvlxi_captured, hold)->request);
    }
}

/* ---- Who asks ------------------------------------------------------------------------------------------ */

/* Whether it uses bytes that the peer has withdrawn. With the tables held for reading. */
static bool holds(const struct nvlx_request *request, const struct nvlx_peer *peer) {
    const struct nvlxi_needs *needs = nvlxi_request_needs(request);
    size_t number;
    if (!nvlxi_needs_name(needs, peer, &number))
        return false;
    const uint64_t known = request->form ? request->form->known[number].generation : request->captured->known[number];
    for (size_t i = 0; i < needs->remote_use_count; i++) {
        const struct nvlxi_remote_use *use = &needs->remote_uses[i];
        if (use->peer == peer && nvlxi_peer_old_until(peer, use->start, use->end, use->access, known) < use->end)
            return true;
    }
    return false;
}

uint32_t nvlxi_graphs_holding(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer) {
    const struct nvlx_request *request;
    uint32_t count = 0;
    nvlxi_tables_read(transfers->context->tables);
    pthread_mutex_lock(&transfers->mutex);
    DL_FOREACH(transfers->captured, request) {
        count += holds(request, peer);
    }
    pthread_mutex_unlock(&transfers->mutex);
    nvlxi_tables_read_end(transfers->context->tables);
    return count;
}

uint32_t nvlxi_graphs_count(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer) {
    const struct nvlx_request *request;
    uint32_t count = 0;
    size_t number;
    pthread_mutex_lock(&transfers->mutex);
    DL_FOREACH(transfers->captured, request) {
        count += !peer || nvlxi_needs_name(nvlxi_request_needs(request), peer, &number);
    }
    pthread_mutex_unlock(&transfers->mutex);
    return count;
}
