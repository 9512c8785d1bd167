/* The threads that close mappings: see closer.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "lifetime/closer.h"

#include <string.h>
#include <sys/prctl.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "remote/link.h"
#include "transfer/graphs.h"

#define NAP_NS   100000u   /* between two looks at what is in flight, at first; */
#define NAP_PART 2048u     /* then longer by such a part of the time that has passed, */
#define NAP_LAST 20000000u /* up to this: what graphs hold they may hold for hours */
#define SAY_NS   1000000u  /* who asks is told after this that something is held */

void nvlxi_closer_init(struct nvlxi_closer *closer, struct nvlxi_transfers *transfers) {
    closer->transfers = transfers;
    for (int i = 0; i < 2; i++)
        closer->threads[i] = (struct nvlxi_closer_thread){.closer = closer, .waits = i == 1};
    pthread_mutex_init(&closer->mutex, NULL);
    nvlxi_cond_init(&closer->news);
    pthread_cond_init(&closer->idle, NULL);
}

void nvlxi_closer_stop(struct nvlxi_closer *closer) {
    pthread_mutex_lock(&closer->mutex);
    closer->stop = true;
    pthread_cond_broadcast(&closer->news);
    pthread_mutex_unlock(&closer->mutex);
    for (int i = 0; i < 2; i++)
        if (closer->threads[i].started)
            pthread_join(closer->threads[i].thread, NULL);
}

void nvlxi_closer_free(struct nvlxi_closer *closer) {
    pthread_cond_destroy(&closer->idle);
    pthread_cond_destroy(&closer->news);
    pthread_mutex_destroy(&closer->mutex);
}

/* ---- One peer ------------------------------------------------------------------------------------------- */

static struct nvlxi_held held_of(struct nvlxi_closer *closer, struct nvlx_peer *peer, uint64_t before) {
    const uint32_t graphs = nvlxi_graphs_holding(closer->transfers, peer);
    return (struct nvlxi_held){.transfers = nvlxi_transfers_naming(closer->transfers, peer, before) + graphs,
                               .mappings = nvlxi_mappings_left(peer, NVLXI_CLOSE_ALL),
                               .graphs = graphs};
}

/* Answers the peer's question, if it has one and the answer is due. Returns whether it stays asked. By the thread that
 * is busy with the peer, so that whoever answers stays. */
static bool answer(struct nvlxi_closer *closer, struct nvlx_peer *peer) {
    pthread_mutex_lock(&closer->mutex);
    const struct nvlxi_parting asked = peer->parting;
    pthread_mutex_unlock(&closer->mutex);
    if (!asked.asked)
        return false;
    const struct nvlxi_held held = held_of(closer, peer, asked.before);
    const bool done = nvlxi_held_is_nothing(&held);
    if (!done && (asked.told || nvlxi_now_ns() - asked.since < SAY_NS))
        return true;
    if (!asked.answer(asked.context, asked.generation, &held))
        return true;
    pthread_mutex_lock(&closer->mutex);
    if (peer->parting.since == asked.since) { /* it has not asked again meanwhile */
        peer->parting.asked = !done;
        peer->parting.told = true;
    }
    const bool stays = peer->parting.asked;
    pthread_mutex_unlock(&closer->mutex);
    return stays;
}

/* Returns whether there is more to do. */
static bool serve(struct nvlxi_closer *closer, struct nvlx_peer *peer, bool waits) {
    const enum nvlxi_closing kind = waits ? NVLXI_CLOSE_WAITING : NVLXI_CLOSE_AT_ONCE;
    struct nvlxi_attempt closing;
    nvlxi_transfers_progress(closer->transfers);
    nvlxi_attempt_begin(&closing);
    nvlxi_mappings_close(peer, kind);
    nvlxi_attempt_note(&closing, NVLX_LOG_WARNING, "what a peer has withdrawn could not be closed");
    const bool more = nvlxi_mappings_left(peer, kind) > 0;
    return (!waits && answer(closer, peer)) || more;
}

/* ---- The threads ---------------------------------------------------------------------------------------- */

/* Under the mutex. */
static void forget(struct nvlxi_closer *closer, struct nvlx_peer *peer) {
    DL_DELETE2(closer->peers, peer, parting.prev, /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
               parting.next);
    peer->parting.listed = false;
}

/* A turn over all peers. Under the mutex, which it lets go of meanwhile. */
static void turn(struct nvlxi_closer_thread *thread) {
    struct nvlxi_closer *closer = thread->closer;
    struct nvlx_peer *peer, *next;
    for (peer = closer->peers; peer && !closer->stop; peer = next) {
        struct nvlxi_parting *parting = &peer->parting;
        if (parting->pending[thread->waits]) {
            parting->pending[thread->waits] = false; /* what is added from now on sets it again */
            parting->busy[thread->waits] = true;
            pthread_mutex_unlock(&closer->mutex);
            const bool again = serve(closer, peer, thread->waits);
            pthread_mutex_lock(&closer->mutex);
            parting->busy[thread->waits] = false;
            parting->pending[thread->waits] = parting->pending[thread->waits] || again;
            pthread_cond_broadcast(&closer->idle);
        }
        next = parting->next;
        if (!parting->pending[0] && !parting->pending[1] && !parting->busy[!thread->waits])
            forget(closer, peer);
    }
}

/* Under the mutex. */
static bool has_work(const struct nvlxi_closer_thread *thread) {
    const struct nvlx_peer *peer;
    DL_FOREACH2(thread->closer->peers, peer, parting.next) {
        if (peer->parting.pending[thread->waits])
            return true;
    }
    return false;
}

static uint64_t longer(uint64_t nap_ns) {
    return nvlxi_min(nap_ns + nap_ns / NAP_PART, NAP_LAST);
}

static void *run(void *argument) {
    struct nvlxi_closer_thread *thread = argument;
    struct nvlxi_closer *closer = thread->closer;
    uint64_t nap_ns = NAP_NS;
    prctl(PR_SET_NAME, thread->waits ? "nvlx-close-wait" : "nvlx-close");
    pthread_mutex_lock(&closer->mutex);
    while (!closer->stop) {
        turn(thread);
        if (closer->stop)
            break;
        if (has_work(thread)) {
            const bool news = nvlxi_cond_wait(&closer->news, &closer->mutex, nvlxi_now_ns() + nap_ns);
            nap_ns = news ? NAP_NS : longer(nap_ns);
        } else {
            pthread_cond_wait(&closer->news, &closer->mutex);
            nap_ns = NAP_NS;
        }
    }
    pthread_mutex_unlock(&closer->mutex);
    return NULL;
}

/* Under the mutex. */
static void start(struct nvlxi_closer_thread *thread) {
    if (thread->started || thread->closer->stop)
        return;
    const int failed = nvlxi_thread_start(&thread->thread, run, thread);
    thread->started = !failed;
    if (failed)
        nvlxi_log(NVLX_LOG_ERROR, "cannot start a thread that closes what peers have withdrawn: %s", strerror(failed));
}

/* Under the mutex. */
static void enlist(struct nvlxi_closer *closer, struct nvlx_peer *peer, bool waits) {
    struct nvlxi_parting *parting = &peer->parting;
    if (!parting->listed)
        DL_APPEND2(closer->peers, peer, parting.prev, parting.next);
    parting->listed = true;
    parting->pending[0] = true;
    start(&closer->threads[0]);
    if (waits) {
        parting->pending[1] = true;
        start(&closer->threads[1]);
    }
    pthread_cond_broadcast(&closer->news);
}

void nvlxi_closer_add(struct nvlxi_closer *closer, struct nvlx_peer *peer) {
    const bool waits = nvlxi_mappings_left(peer, NVLXI_CLOSE_WAITING) > 0;
    if (!waits && !nvlxi_mappings_left(peer, NVLXI_CLOSE_AT_ONCE) && !nvlxi_peer_is_left(peer))
        return;
    pthread_mutex_lock(&closer->mutex);
    enlist(closer, peer, waits);
    pthread_mutex_unlock(&closer->mutex);
}

void nvlxi_closer_ask(struct nvlxi_closer *closer, struct nvlx_peer *peer, uint64_t generation,
                      nvlxi_answer_function answer_function, void *context) {
    const uint64_t before = nvlxi_transfers_number(closer->transfers);
    nvlxi_transfers_progress(closer->transfers);
    const struct nvlxi_held held = held_of(closer, peer, before);
    if (nvlxi_held_is_nothing(&held) && answer_function(context, generation, &held))
        return;
    const bool waits = nvlxi_mappings_left(peer, NVLXI_CLOSE_WAITING) > 0;
    pthread_mutex_lock(&closer->mutex);
    struct nvlxi_parting *parting = &peer->parting;
    parting->asked = true;
    parting->told = false;
    parting->generation = generation;
    parting->before = before;
    parting->since = nvlxi_now_ns();
    parting->answer = answer_function;
    parting->context = context;
    enlist(closer, peer, waits);
    pthread_mutex_unlock(&closer->mutex);
}

void nvlxi_closer_leave(struct nvlxi_closer *closer, struct nvlx_peer *peer) {
    pthread_mutex_lock(&closer->mutex);
    while (peer->parting.busy[0] || peer->parting.busy[1])
        pthread_cond_wait(&closer->idle, &closer->mutex);
    if (peer->parting.listed)
        forget(closer, peer);
    pthread_mutex_unlock(&closer->mutex);
}
