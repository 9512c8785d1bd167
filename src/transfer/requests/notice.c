/* The thread that sees transfers complete: see notice.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "transfer/requests/notice.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "transfer/transfer.h"

#define NAP_NS  20000u     /* before a request that somebody else is looking at is looked at again */
#define LOOK_NS 100000000u /* between two looks at all that is due */
#define END_NS  1000000000 /* for which the end waits for lanes that have not called */

/* Under the mutex. */
static void move(struct nvlxi_notice **from, struct nvlxi_notice **to, struct nvlxi_notice *notice,
                 enum nvlxi_notice_state state) {
    if (from)
        DL_DELETE(*from, notice); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    notice->state = state;
    DL_APPEND(*to, notice);
}

/* ---- The thread ---------------------------------------------------------------------------------------- */

/* Under the mutex, which it lets go of meanwhile. False: it is not complete, and nobody else is looking at it. */
static bool look_at(struct nvlxi_notices *notices, struct nvlx_request *request) {
    if (pthread_mutex_trylock(&request->polling))
        return true;
    pthread_mutex_unlock(&notices->mutex);
    const bool complete = nvlxi_request_poll(request);
    pthread_mutex_unlock(&request->polling);
    pthread_mutex_lock(&notices->mutex);
    return complete;
}

/* Those that are in the list now, which changes meanwhile. What a call has come for, and is not complete all the same,
 * could not be called for: it is looked at now and then. Under the mutex. */
static void look_at_arrived(struct nvlxi_notices *notices) {
    struct nvlxi_notice *notice;
    size_t count;
    DL_COUNT(notices->arrived, notice, count);
    for (; count > 0 && notices->arrived; count--) {
        notice = notices->arrived;
        move(&notices->arrived, &notices->arrived, notice, NVLXI_NOTICE_ARRIVED);
        struct nvlx_request *request = notice->request;
        if (!look_at(notices, request) && notice->state == NVLXI_NOTICE_ARRIVED && notice->request == request)
            move(&notices->arrived, &notices->due, notice, NVLXI_NOTICE_DUE);
    }
}

/* Likewise. */
static void look_at_due(struct nvlxi_notices *notices) {
    struct nvlxi_notice *notice;
    size_t count;
    DL_COUNT(notices->due, notice, count);
    for (; count > 0 && notices->due; count--) {
        notice = notices->due;
        move(&notices->due, &notices->due, notice, NVLXI_NOTICE_DUE);
        if (notice->request)
            look_at(notices, notice->request);
    }
}

/* Under the mutex. */
static void look_now_and_then(struct nvlxi_notices *notices, uint64_t now, uint64_t *next) {
    if (notices->asleep || now < *next)
        return;
    notices->asleep = !notices->due;
    look_at_due(notices);
    *next = now + LOOK_NS;
}

static void *run(void *argument) {
    struct nvlxi_notices *notices = argument;
    uint64_t next = 0;
    prctl(PR_SET_NAME, "nvlx-notice");
    pthread_mutex_lock(&notices->mutex);
    while (!notices->stop) {
        look_at_arrived(notices);
        const uint64_t now = nvlxi_now_ns();
        look_now_and_then(notices, now, &next);
        const uint64_t until = notices->arrived ? now + NAP_NS : notices->asleep ? UINT64_MAX : next;
        if (!notices->stop)
            nvlxi_cond_wait(&notices->news, &notices->mutex, until);
    }
    pthread_mutex_unlock(&notices->mutex);
    return NULL;
}

int nvlxi_notices_make(struct nvlxi_notices **notices) {
    struct nvlxi_notices *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to see transfers complete");
    pthread_mutex_init(&made->mutex, NULL);
    nvlxi_cond_init(&made->news);
    const int failed = nvlxi_thread_start(&made->thread, run, made);
    if (!failed) {
        *notices = made;
        return 0;
    }
    pthread_cond_destroy(&made->news);
    pthread_mutex_destroy(&made->mutex);
    free(made);
    return nvlxi_fail(NVLX_ENOMEM, "cannot start the thread that sees transfers complete: %s", strerror(failed));
}

/* Those that a driver may still call: they stay as long as the process. */
static struct nvlxi_notices *_Atomic kept;

static void keep(struct nvlxi_notices *notices) {
    nvlxi_log(NVLX_LOG_WARNING, "a GPU has not called back after its transfers were complete: a little memory is kept");
    notices->next = atomic_load(&kept);
    while (!atomic_compare_exchange_weak(&kept, &notices->next, notices))
        ;
}

/* Under the mutex. Whether all lanes have called. */
static bool await_lanes(struct nvlxi_notices *notices) {
    const uint64_t deadline = nvlxi_now_ns() + END_NS;
    while (notices->due && nvlxi_now_ns() < deadline)
        nvlxi_cond_wait(&notices->news, &notices->mutex, deadline);
    return !notices->due;
}

void nvlxi_notices_free(struct nvlxi_notices *notices) {
    struct nvlxi_notice *notice, *next;
    if (!notices)
        return;
    pthread_mutex_lock(&notices->mutex);
    notices->stop = true;
    pthread_cond_broadcast(&notices->news);
    pthread_mutex_unlock(&notices->mutex);
    pthread_join(notices->thread, NULL);
    pthread_mutex_lock(&notices->mutex);
    const bool all = await_lanes(notices);
    pthread_mutex_unlock(&notices->mutex);
    if (!all) {
        keep(notices);
        return;
    }
    DL_FOREACH_SAFE(notices->idle, notice, next) {
        free(notice);
    }
    pthread_cond_destroy(&notices->news);
    pthread_mutex_destroy(&notices->mutex);
    free(notices);
}

/* ---- Notices ------------------------------------------------------------------------------------------- */

int nvlxi_notice_take(struct nvlxi_notices *notices, struct nvlx_request *request, struct nvlxi_notice **notice) {
    pthread_mutex_lock(&notices->mutex);
    struct nvlxi_notice *made = notices->idle;
    if (made)
        DL_DELETE(notices->idle, made);
    pthread_mutex_unlock(&notices->mutex);
    if (!made && !(made = malloc(sizeof *made)))
        return nvlxi_fail(NVLX_ENOMEM, "no memory to see a transfer complete");
    *made = (struct nvlxi_notice){.home = notices, .request = request};
    *notice = made;
    return 0;
}

void nvlxi_notice_expect(struct nvlxi_notice *notice, uint32_t lanes) {
    struct nvlxi_notices *notices = notice->home;
    if (!lanes)
        return;
    pthread_mutex_lock(&notices->mutex);
    notice->left = lanes;
    move(NULL, &notices->due, notice, NVLXI_NOTICE_DUE);
    if (notices->asleep)
        pthread_cond_broadcast(&notices->news);
    notices->asleep = false;
    pthread_mutex_unlock(&notices->mutex);
}

void nvlxi_notice_arrive(void *argument) {
    struct nvlxi_notice *notice = argument;
    struct nvlxi_notices *notices = notice->home;
    pthread_mutex_lock(&notices->mutex);
    if (--notice->left == 0) {
        const bool over = !notice->request;
        move(&notices->due, over ? &notices->idle : &notices->arrived, notice,
             over ? NVLXI_NOTICE_IDLE : NVLXI_NOTICE_ARRIVED);
        pthread_cond_broadcast(&notices->news);
    }
    pthread_mutex_unlock(&notices->mutex);
}

void nvlxi_notice_end(struct nvlxi_notice *notice) {
    struct nvlxi_notices *notices = notice->home;
    pthread_mutex_lock(&notices->mutex);
    notice->request = NULL;
    if (notice->state == NVLXI_NOTICE_TAKEN)
        move(NULL, &notices->idle, notice, NVLXI_NOTICE_IDLE);
    else if (!notice->left)
        move(notice->state == NVLXI_NOTICE_DUE ? &notices->due : &notices->arrived, &notices->idle, notice,
             NVLXI_NOTICE_IDLE);
    pthread_mutex_unlock(&notices->mutex);
}
