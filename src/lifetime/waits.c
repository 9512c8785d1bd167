/* The waits of streams, and the thread that ends those that nobody ends: see waits.h. SPDX-License-Identifier:
 * Apache-2.0 */
#define _GNU_SOURCE
#include "lifetime/waits.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "lifetime/graph_waits.h"
#include "lifetime/reads.h"
#include "transfer/graphs.h"
#include "transfer/op.h"

#define LOOK_NS 5000000u /* between two looks at all waits */
#define END_NS  500000u  /* while some are to be ended */

void nvlxi_waits_init(struct nvlxi_waits *waits, struct nvlxi_transfers *transfers,
                      void (*tell)(void *context, struct nvlx_peer *peer, uint64_t number), void *context) {
    *waits = (struct nvlxi_waits){.transfers = transfers, .tell = tell, .context = context};
    pthread_mutex_init(&waits->mutex, NULL);
    nvlxi_cond_init(&waits->news);
    nvlxi_cond_init(&waits->gone);
}

static const struct nvlxi_device_ops *ops_of(const struct nvlxi_waits *waits) {
    return waits->transfers->context->ops;
}

/* ---- One wait ------------------------------------------------------------------------------------------- */

/* Gives back what a wait took whose stream has gone on. Under the mutex. */
static void give_back(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    waits->placed[wait->stream.gpu]--;
    if (!wait->marked) { /* else something may be on its way to the gate */
        nvlxi_gate_drop(&waits->gates[wait->stream.gpu], wait->gate);
        wait->gate = 0;
    }
    nvlxi_lanes_return(&waits->transfers->pool, wait->lane, 1, wait->event);
    wait->lane = NULL;
    wait->event = NULL;
}

/* Whoever comes first decides why. Under the mutex. */
static void set_failure(struct nvlxi_wait *wait, int code, const char *reason) {
    if (wait->failure)
        return;
    wait->failure = code;
    snprintf(wait->reason, sizeof wait->reason, "%s", reason);
}

/* Whether its stream has gone on; then its place in the queue is free. A device that has failed waits for nothing.
 * Under the mutex. */
static bool has_gone_on(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    if (!wait->lane)
        return true;
    if (!wait->queued)
        return false;
    const int code =
        wait->unrecorded ? ops_of(waits)->lane_query(wait->lane->lane) : ops_of(waits)->event_query(wait->event->event);
    if (code == NVLX_EAGAIN)
        return false;
    if (code) {
        set_failure(wait, code, nvlx_last_error());
        wait->marked = true;
    }
    give_back(waits, wait);
    return true;
}

/* What cannot be read any more is not reached. */
static bool is_reached(const struct nvlxi_waits *waits, const struct nvlxi_wait *wait) {
    uint64_t count;
    return ops_of(waits)->signal_read(waits->transfers->context->device, wait->address, &count) == 0 &&
           nvlxi_signal_reached(count, wait->value);
}

/* The same of its gate, where it has one. */
static bool is_let_go(const struct nvlxi_waits *waits, const struct nvlxi_wait *wait) {
    uint64_t pass;
    if (!wait->gate)
        return is_reached(waits, wait);
    return ops_of(waits)->signal_read(waits->transfers->context->device, wait->gate, &pass) == 0 &&
           nvlxi_signal_reached(pass, wait->number);
}

/* By the thread. */
static void set_count(const struct nvlxi_waits *waits, struct nvlxi_wait *wait, uint64_t address, uint64_t value) {
    const struct nvlxi_signal signal = {.address = address, .value = value};
    const bool lost = ops_of(waits)->signal(waits->enders[wait->stream.gpu], &signal) != 0;
    if (lost && !wait->lost)
        nvlxi_log(NVLX_LOG_ERROR, "a stream waits for a count at 0x%" PRIx64 " that cannot be written any more: %s",
                  wait->address, nvlx_last_error());
    wait->lost = lost;
}

/* ---- What has become of them ------------------------------------------------------------------------------- */

struct nvlxi_wait *nvlxi_waits_find(const struct nvlxi_waits *waits, uint64_t number) {
    struct nvlxi_wait *wait;
    DL_SEARCH_SCALAR(waits->list, wait, number, number);
    return wait;
}

int nvlxi_waits_status(struct nvlxi_waits *waits, uint64_t number) {
    char reason[NVLXI_REASON_BYTES] = "";
    int code = 0;
    pthread_mutex_lock(&waits->mutex);
    struct nvlxi_wait *wait = nvlxi_waits_find(waits, number);
    const struct nvlxi_failed_waits *failed = nvlxi_failed_find(waits->failed, number);
    const bool known = number && number <= waits->number;
    if (failed) {
        code = failed->code;
        snprintf(reason, sizeof reason, "%s", failed->reason);
    } else if (wait && (!has_gone_on(waits, wait) || wait->marked)) {
        code = NVLX_EAGAIN;
    }
    pthread_mutex_unlock(&waits->mutex);
    if (!known)
        return nvlxi_fail(NVLX_EINVAL, "there was no wait of number %" PRIu64, number);
    return code && code != NVLX_EAGAIN ? nvlxi_fail_again(code, reason) : code;
}

void nvlxi_waits_drop(struct nvlxi_waits *waits, uint64_t number) {
    pthread_mutex_lock(&waits->mutex);
    struct nvlxi_wait *wait = nvlxi_waits_find(waits, number);
    if (wait) {
        set_failure(wait, NVLX_EBUSY, "the list that waits was refused");
        wait->unwanted = true;
    }
    pthread_cond_broadcast(&waits->news);
    pthread_mutex_unlock(&waits->mutex);
}

/* ---- The thread's turn: only it takes waits out of the list ------------------------------------------------ */

/* NULL: the first. */
static struct nvlxi_wait *next_of(struct nvlxi_waits *waits, const struct nvlxi_wait *wait) {
    pthread_mutex_lock(&waits->mutex);
    struct nvlxi_wait *next = wait ? wait->next : waits->list;
    pthread_mutex_unlock(&waits->mutex);
    return next;
}

/* The stream has gone on, or has refused it. */
static void take_out(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    const bool failed = wait->marked && !wait->dropped && !wait->unwanted;
    if (failed) {
        nvlxi_log(NVLX_LOG_WARNING, "a stream goes on without the signal that it waited for: %s", wait->reason);
        pthread_mutex_lock(&waits->mutex);
        nvlxi_failed_note(&waits->failed, wait->number, wait->failure, wait->reason);
        pthread_mutex_unlock(&waits->mutex);
        if (!wait->mapping) /* else its request tells */
            waits->tell(waits->context, wait->peer, wait->number);
    }
    pthread_mutex_lock(&waits->mutex);
    DL_DELETE(waits->list, wait); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    nvlxi_gate_drop(&waits->gates[wait->stream.gpu], wait->gate);
    if (wait->mapping)
        atomic_fetch_sub(&wait->mapping->pins, 1);
    pthread_cond_broadcast(&waits->gone);
    pthread_mutex_unlock(&waits->mutex);
    free(wait);
}

/* Whether all that the library has written to counts on a GPU is there. */
static bool has_written(const struct nvlxi_waits *waits, int gpu) {
    return ops_of(waits)->lane_query(waits->enders[gpu]) != NVLX_EAGAIN;
}

/* What is behind a wait in the same stream is not over before it. One that was ended is over when nothing is on its way
 * to its count or its mark any more: whoever hears of it may use them again, or free them. */
static void take_out_all(struct nvlxi_waits *waits) {
    struct nvlxi_wait *wait = next_of(waits, NULL), *next;
    uint64_t standing = UINT64_MAX; /* a stream */
    for (; wait; wait = next) {
        next = next_of(waits, wait);
        pthread_mutex_lock(&waits->mutex);
        const bool gone_on = wait->dropped || (wait->stream.id != standing && has_gone_on(waits, wait));
        pthread_mutex_unlock(&waits->mutex);
        if (!gone_on)
            standing = wait->stream.id;
        else if (!wait->marked || has_written(waits, wait->stream.gpu))
            take_out(waits, wait);
    }
}

/* 0, or why the peer does not tell its count any more, which is asked when its table has changed. The wait is in the
 * list, so that the peer stays. */
static int find_withdrawn(const struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    struct nvlxi_tables *tables = waits->transfers->context->tables;
    if (!wait->mapping || wait->changes == atomic_load(&wait->peer->changes))
        return 0;
    wait->changes = atomic_load(&wait->peer->changes);
    nvlxi_tables_read(tables);
    int code = nvlxi_peer_still_has(wait->peer, wait->remote, wait->remote + NVLXI_COUNT_BYTES, NVLX_ACCESS_READ,
                                    wait->generation);
    nvlxi_tables_read_end(tables);
    return code;
}

/* Returns whether a peer was found gone that was not before. */
static bool end_lost(struct nvlxi_waits *waits) {
    bool found = false;
    for (struct nvlxi_wait *wait = next_of(waits, NULL); wait; wait = next_of(waits, wait)) {
        const char *why = nvlxi_peer_why_gone(wait->peer);
        const int code = why ? NVLX_ESTALE : find_withdrawn(waits, wait);
        pthread_mutex_lock(&waits->mutex);
        found = found || (code && !wait->failure);
        if (code)
            set_failure(wait, code, why ? why : nvlx_last_error());
        pthread_mutex_unlock(&waits->mutex);
    }
    return found;
}

/* Under the mutex. */
static bool is_to_be_marked(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    return wait->failure && !wait->marked && !wait->dropped && !has_gone_on(waits, wait);
}

static bool mark_all(struct nvlxi_waits *waits) {
    bool ending = false;
    for (struct nvlxi_wait *wait = next_of(waits, NULL); wait; wait = next_of(waits, wait)) {
        pthread_mutex_lock(&waits->mutex);
        const bool due = is_to_be_marked(waits, wait);
        ending = ending || wait->failure;
        pthread_mutex_unlock(&waits->mutex);
        if (!due || is_reached(waits, wait))
            continue;
        pthread_mutex_lock(&waits->mutex);
        const bool waiting = wait->lane != NULL; /* else it has gone on meanwhile, or was refused */
        wait->marked = waiting;
        pthread_mutex_unlock(&waits->mutex);
        if (waiting && wait->mark)
            set_count(waits, wait, wait->mark, (uint64_t)(int64_t)wait->failure);
    }
    return ending;
}

static uint64_t find_written(struct nvlxi_waits *waits) {
    uint64_t written = 0;
    pthread_mutex_lock(&waits->mutex);
    for (int gpu = 0; gpu < NVLXI_WAIT_GPUS; gpu++)
        if (waits->enders[gpu] && has_written(waits, gpu))
            written |= UINT64_C(1) << gpu;
    pthread_mutex_unlock(&waits->mutex);
    return written;
}

/* Only this thread marks. On GPUs where what was written before is there: `written` has a bit for each. */
static void end_marked(struct nvlxi_waits *waits, uint64_t written) {
    for (struct nvlxi_wait *wait = next_of(waits, NULL); wait; wait = next_of(waits, wait)) {
        pthread_mutex_lock(&waits->mutex);
        const bool due = wait->marked && !wait->dropped;
        pthread_mutex_unlock(&waits->mutex);
        if (due && written >> wait->stream.gpu & 1 && !is_let_go(waits, wait))
            set_count(waits, wait, wait->gate ? wait->gate : wait->address, wait->gate ? wait->number : wait->value);
    }
}

/* Returns whether some are to be ended. */
static bool turn(struct nvlxi_waits *waits) {
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    nvlxi_graph_waits_look(waits);
    nvlxi_graphs_look(waits->transfers);
    take_out_all(waits);
    while (end_lost(waits)) /* a peer is gone for all its waits, before one is ended: that may end others */
        ;
    const uint64_t written = next_of(waits, NULL) ? find_written(waits) : 0; /* graphs alone wait by gates */
    const bool ending = mark_all(waits);
    if (ending)
        end_marked(waits, written);
    nvlxi_attempt_note(&attempt, NVLX_LOG_DEBUG, "ending a stream's wait");
    return ending;
}

static void *run(void *argument) {
    struct nvlxi_waits *waits = argument;
    uint64_t nap = LOOK_NS;
    prctl(PR_SET_NAME, "nvlx-waits");
    pthread_mutex_lock(&waits->mutex);
    while (!waits->stop || waits->list) {
        if (!waits->list && !waits->of_graphs) {
            pthread_cond_wait(&waits->news, &waits->mutex);
            continue;
        }
        pthread_mutex_unlock(&waits->mutex);
        const bool ending = turn(waits);
        pthread_mutex_lock(&waits->mutex);
        nap = !ending || nap * 2 > LOOK_NS ? LOOK_NS : nap * 2;
        if ((waits->list || waits->of_graphs) && nvlxi_cond_wait(&waits->news, &waits->mutex, nvlxi_now_ns() + nap))
            nap = END_NS;
    }
    pthread_mutex_unlock(&waits->mutex);
    return NULL;
}

/* ---- A new wait --------------------------------------------------------------------------------------------- */

static int enter(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    struct nvlxi_tables *tables = waits->transfers->context->tables;
    nvlxi_tables_read(tables);
    int code = nvlxi_peer_check(wait->peer); /* it is lost with the tables locked: the thread then finds this wait */
    if (!code && !wait->mapping)
        code = nvlxi_waits_check_count_on(waits->transfers, wait->address, wait->stream.gpu);
    if (!code && wait->mark)
        code = nvlxi_waits_check_count_on(waits->transfers, wait->mark, wait->stream.gpu);
    if (!code) {
        pthread_mutex_lock(&waits->mutex);
        wait->number = ++waits->number;
        if (wait->mapping)
            atomic_fetch_add(&wait->mapping->pins, 1);
        DL_APPEND(waits->list, wait);
        pthread_cond_broadcast(&waits->news);
        pthread_mutex_unlock(&waits->mutex);
    }
    nvlxi_tables_read_end(tables);
    return code;
}

int nvlxi_waits_start(struct nvlxi_waits *waits) {
    pthread_mutex_lock(&waits->mutex);
    const int failed = waits->started ? 0 : nvlxi_thread_start(&waits->thread, run, waits);
    waits->started = !failed;
    pthread_mutex_unlock(&waits->mutex);
    return failed ? nvlxi_fail(NVLX_ENOMEM, "cannot start the thread that ends waits: %s", strerror(failed)) : 0;
}

/* What ends waits on a GPU is there before the first one is queued. */
static int make_ready(struct nvlxi_waits *waits, int gpu) {
    const struct nvlxi_context *context = waits->transfers->context;
    struct nvlxi_lane *made = NULL;
    if (gpu >= NVLXI_WAIT_GPUS)
        return nvlxi_fail(NVLX_ENOTSUP, "streams of GPU %d cannot wait: of GPU %d at most", gpu, NVLXI_WAIT_GPUS - 1);
    int code = nvlxi_waits_start(waits);
    if (code)
        return code;
    pthread_mutex_lock(&waits->mutex);
    const bool missing = !waits->enders[gpu];
    pthread_mutex_unlock(&waits->mutex);
    code = missing ? context->ops->lane_create(context->device, gpu, 0, &made) : 0;
    pthread_mutex_lock(&waits->mutex);
    if (made && !waits->enders[gpu]) {
        waits->enders[gpu] = made;
        made = NULL;
    }
    pthread_mutex_unlock(&waits->mutex);
    if (made)
        context->ops->lane_destroy(made);
    return code;
}

/* Those whose streams have gone on give their places back at once. */
static void reap(struct nvlxi_waits *waits) {
    struct nvlxi_wait *wait;
    pthread_mutex_lock(&waits->mutex);
    DL_FOREACH(waits->list, wait) {
        has_gone_on(waits, wait);
    }
    pthread_mutex_unlock(&waits->mutex);
    nvlxi_transfers_progress(waits->transfers);
}

/* NVLX_EBUSY is not logged. */
static int try_borrow(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    const struct nvlxi_lane_key key = {.gpu = wait->stream.gpu, .ordered = true, .stream = wait->stream};
    uint32_t *placed = &waits->placed[key.gpu];
    pthread_mutex_lock(&waits->mutex);
    const bool room = *placed < NVLXI_WAITS_MAX;
    *placed += room;
    pthread_mutex_unlock(&waits->mutex);
    int code =
        room ? nvlxi_lanes_borrow(&waits->transfers->pool, &key, 1, wait, &wait->lane, &wait->event) : NVLX_EBUSY;
    if (!code || !room)
        return code;
    pthread_mutex_lock(&waits->mutex);
    --*placed;
    pthread_mutex_unlock(&waits->mutex);
    return code;
}

/* Looks what is over by now before it gives up. */
static int borrow(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    int code = try_borrow(waits, wait);
    if (code != NVLX_EBUSY)
        return code;
    reap(waits);
    code = try_borrow(waits, wait);
    return code == NVLX_EBUSY ? nvlxi_fail(code,
                                           "what waits for streams on GPU %d is as much as may wait: %d waits for "
                                           "signals, or %d together with copies, kernels and signals",
                                           wait->stream.gpu, NVLXI_WAITS_MAX, NVLXI_ORDERED_DEPTH)
                              : code;
}

/* The stream may have it from here on: also if no event could be put behind it. */
static int put_into_stream(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    const struct nvlxi_device_ops *ops = ops_of(waits);
    const struct nvlxi_gated gated = {wait->address, wait->value, wait->gate, wait->number};
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): it was borrowed */
    struct nvlxi_lane *lane = wait->lane->lane;
    int code = wait->gate ? ops->await_gated(lane, &gated) : ops->await(lane, wait->address, wait->value);
    const bool unrecorded = !code && ops->event_record(lane, wait->event->event);
    pthread_mutex_lock(&waits->mutex);
    wait->unrecorded = unrecorded;
    wait->queued = !code;
    wait->dropped = code != 0;
    if (code)
        give_back(waits, wait);
    pthread_mutex_unlock(&waits->mutex);
    return code;
}

/* One that is not in the list. */
static void discard(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    pthread_mutex_lock(&waits->mutex);
    if (wait->gate) /* else the GPU may be one that has no gates */
        nvlxi_gate_drop(&waits->gates[wait->stream.gpu], wait->gate);
    pthread_mutex_unlock(&waits->mutex);
    free(wait);
}

/* Looks what is over by now before it gives up. */
static int take_gate(struct nvlxi_waits *waits, struct nvlxi_wait *wait) {
    const struct nvlxi_context *context = waits->transfers->context;
    const int gpu = wait->stream.gpu;
    int code = nvlxi_gate_take(&waits->gates[gpu], &waits->mutex, context, gpu, &wait->gate);
    if (code != NVLX_EBUSY)
        return code;
    reap(waits);
    code = nvlxi_gate_take(&waits->gates[gpu], &waits->mutex, context, gpu, &wait->gate);
    return code == NVLX_EBUSY
               ? nvlxi_fail(code, "streams of GPU %d wait for %d counts of peers, as many as may", gpu, NVLXI_GATES)
               : code;
}

static int make(struct nvlxi_waits *waits, const struct nvlxi_awaited *awaited, const struct nvlxi_stream *stream,
                struct nvlxi_wait **wait) {
    struct nvlxi_wait *made = malloc(sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a stream's wait");
    *made = (struct nvlxi_wait){.peer = awaited->peer,
                                .address = awaited->address,
                                .value = awaited->value,
                                .mark = awaited->mark,
                                .mapping = awaited->mapping,
                                .remote = awaited->remote,
                                .generation = awaited->generation,
                                .changes = UINT64_MAX,
                                .stream = *stream};
    int code = make_ready(waits, made->stream.gpu);
    if (!code && made->mapping)
        code = take_gate(waits, made);
    if (!code)
        code = borrow(waits, made);
    if (code)
        discard(waits, made);
    else
        *wait = made;
    return code;
}

/* A peer to wait for: it is there, and somebody would tell that it is gone. */
static int check_peer(const struct nvlx_peer *peer) {
    int code = nvlxi_peer_check(peer);
    if (!code && !peer->subscription && !peer->life)
        code = nvlxi_fail(NVLX_ENOTSUP, "a stream cannot wait for a peer that was made from a text: nobody tells when "
                                        "it is gone; use nvlx_connect");
    return code;
}

int nvlxi_waits_add(struct nvlxi_waits *waits, const struct nvlxi_awaited *awaited, uint64_t *number) {
    const struct nvlxi_context *context = waits->transfers->context;
    struct nvlxi_wait *wait = NULL;
    struct nvlxi_stream stream;
    int code = check_peer(awaited->peer);
    if (code || (code = context->ops->stream_find(context->device, awaited->stream, &stream)))
        return code;
    if (stream.capturing)
        return nvlxi_graph_waits_add(waits, awaited, &stream, number);
    if (awaited->reached)
        return nvlxi_fail(NVLX_ENOTSUP, "wait_options.reached is for streams that capture a graph");
    if ((code = make(waits, awaited, &stream, &wait)))
        return code;
    if ((code = enter(waits, wait))) {
        pthread_mutex_lock(&waits->mutex);
        give_back(waits, wait);
        pthread_mutex_unlock(&waits->mutex);
        discard(waits, wait);
        return code;
    }
    const uint64_t entered = wait->number; /* once it is queued, it may go at any time */
    code = put_into_stream(waits, wait);
    if (!code && number)
        *number = entered;
    return code;
}

/* ---- Ending -------------------------------------------------------------------------------------------------- */

static bool lies_in(uint64_t count, uint64_t address, uint64_t length) {
    return count < address + length && address < count + NVLXI_COUNT_BYTES;
}

static bool uses(const struct nvlxi_wait *wait, uint64_t address, uint64_t length) {
    return lies_in(wait->address, address, length) || (wait->mark && lies_in(wait->mark, address, length));
}

void nvlxi_waits_end(struct nvlxi_waits *waits, uint64_t address, uint64_t length, int code) {
    const char *reason =
        code == NVLX_ESUSPENDED ? "the memory of the count was suspended" : "the count's region was unregistered";
    struct nvlxi_wait *wait;
    pthread_mutex_lock(&waits->mutex);
    nvlxi_graph_waits_end(waits, address, length, code, reason);
    DL_FOREACH(waits->list, wait) {
        if (uses(wait, address, length))
            set_failure(wait, code, reason);
    }
    pthread_cond_broadcast(&waits->news);
    pthread_mutex_unlock(&waits->mutex);
}

bool nvlxi_waits_use(struct nvlxi_waits *waits, uint64_t address, uint64_t length) {
    const struct nvlxi_wait *wait;
    const struct nvlxi_read *read;
    bool used = false;
    pthread_mutex_lock(&waits->mutex);
    DL_FOREACH(waits->list, wait) {
        used = used || uses(wait, address, length);
    }
    LL_FOREACH(waits->reads, read) {
        used = used || lies_in(read->address, address, length);
    }
    pthread_mutex_unlock(&waits->mutex);
    return used;
}

/* Under the mutex. NULL: of all peers. Whether there are any. */
static bool end_all(struct nvlxi_waits *waits, const struct nvlx_peer *peer, const char *reason) {
    struct nvlxi_wait *wait;
    bool left = false;
    DL_FOREACH(waits->list, wait) {
        if (peer && wait->peer != peer)
            continue;
        set_failure(wait, NVLX_ESTALE, reason);
        left = true;
    }
    pthread_cond_broadcast(&waits->news);
    return left;
}

void nvlxi_waits_leave(struct nvlxi_waits *waits, const struct nvlx_peer *peer) {
    pthread_mutex_lock(&waits->mutex);
    while (end_all(waits, peer, "the peer was closed here"))
        pthread_cond_wait(&waits->gone, &waits->mutex);
    pthread_mutex_unlock(&waits->mutex);
}

void nvlxi_waits_finish(struct nvlxi_waits *waits) {
    pthread_mutex_lock(&waits->mutex);
    waits->stop = true;
    end_all(waits, NULL, "the engine is being destroyed");
    pthread_mutex_unlock(&waits->mutex);
    if (waits->started) /* nobody calls any more */
        pthread_join(waits->thread, NULL);
    for (int gpu = 0; gpu < NVLXI_WAIT_GPUS; gpu++) {
        if (waits->enders[gpu])
            ops_of(waits)->lane_destroy(waits->enders[gpu]);
        nvlxi_gates_free(&waits->gates[gpu], waits->transfers->context);
    }
}

void nvlxi_waits_free(struct nvlxi_waits *waits) {
    nvlxi_failed_free(waits->failed);
    pthread_cond_destroy(&waits->gone);
    pthread_cond_destroy(&waits->news);
    pthread_mutex_destroy(&waits->mutex);
}
