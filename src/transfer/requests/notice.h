/* Notices: how the library learns that a transfer is complete when nobody asks. Only transfers that want to tell
 * somebody (struct nvlxi_asked) have one; the others cost nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Behind its last copy, each lane of the request calls back (ops->lane_call). When all have, the thread "nvlx-notice",
 * which the first notice starts, looks at the request, and whoever sees it complete, this thread or a caller who asks,
 * finishes it. The states of a notice:
 *
 *     IDLE     kept for the next
 *     TAKEN    by a request that is being submitted; in no list
 *     DUE      some lanes have not called, or one could not: in the list `due`. `request` is NULL once somebody else
 *              has finished it
 *     ARRIVED  all lanes have called, the request is not finished: in the list `arrived`, for the thread
 *
 * A driver whose device has failed calls nobody, nor does one whose thread for calls is held up. So the thread also
 * looks at all that is DUE ten times a second. That is also why a notice may stay DUE for ever: it then outlives its
 * engine, as the driver might still use it.
 *
 * `mutex` guards all of it. Its holder may only try a request's `polling`. As long as a notice has a request, that one
 * is not DONE, so it stays. */
#ifndef NVLXI_TRANSFER_REQUESTS_NOTICE_H
#define NVLXI_TRANSFER_REQUESTS_NOTICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct nvlx_request;
struct nvlxi_notices;

struct nvlxi_notice {
    struct nvlxi_notices *home;
    struct nvlx_request *request;
    enum nvlxi_notice_state { NVLXI_NOTICE_TAKEN, NVLXI_NOTICE_DUE, NVLXI_NOTICE_ARRIVED, NVLXI_NOTICE_IDLE } state;
    uint32_t left; /* lanes that have not called */
    struct nvlxi_notice *prev, *next;
};

struct nvlxi_notices { /* in memory of its own: a driver may call back late */
    pthread_mutex_t mutex;
    pthread_cond_t news;
    struct nvlxi_notice *idle, *due, *arrived; /* lists */
    pthread_t thread;
    bool stop;
    bool asleep;                /* the thread: nothing has been due for a while, so it does not look */
    struct nvlxi_notices *next; /* of those that are kept, after their engines */
};

/* Starts the thread. NVLX_ENOMEM. */
int nvlxi_notices_make(struct nvlxi_notices **notices);
/* Ends the thread. No request is in flight; lanes may still be about to call. NULL: nothing. */
void nvlxi_notices_free(struct nvlxi_notices *notices);

int nvlxi_notice_take(struct nvlxi_notices *notices, struct nvlx_request *request, struct nvlxi_notice **notice);
/* So many lanes are about to call nvlxi_notice_arrive, each once. By the submitter. */
void nvlxi_notice_expect(struct nvlxi_notice *notice, uint32_t lanes);
/* An nvlxi_call's function, with the notice; by whoever could not get a lane to call it, too. */
void nvlxi_notice_arrive(void *argument);
/* The request is complete, or is not issued: nobody looks at it any more. */
void nvlxi_notice_end(struct nvlxi_notice *notice);

#endif
