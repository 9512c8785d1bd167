/* An engine's transfers as a whole: made and freed, and the request objects and scratch memory that they keep for the
 * next. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "transfer/transfer.h"

#define IDLE_REQUESTS_MAX 256

void nvlxi_transfers_init(struct nvlxi_transfers *transfers, const struct nvlxi_context *context, size_t list_limit) {
    transfers->context = context;
    transfers->slab = NVLXI_SLAB_BYTES;
    transfers->early_bytes = NVLXI_EARLY_BYTES;
    pthread_mutex_init(&transfers->mutex, NULL);
    nvlxi_lanes_init(&transfers->pool, context, list_limit);
}

static struct nvlx_request *new_request(struct nvlxi_transfers *t) {
    struct nvlx_request *request = calloc(1, sizeof *request);
    if (!request) {
        nvlxi_fail(NVLX_ENOMEM, "no memory for a request");
        return NULL;
    }
    request->engine = t->engine;
    request->transfers = t;
    pthread_mutex_init(&request->polling, NULL);
    nvlxi_plan_init(&request->plan, nvlxi_list_memory_borrow, nvlxi_list_memory_return, &t->pool.lists);
    return request;
}

static void renew_request(struct nvlx_request *request) {
    atomic_store_explicit(&request->status, NVLX_EAGAIN, memory_order_relaxed);
    request->outcome = 0;
    request->error[0] = '\0';
    request->needs.use_count = request->needs.mapping_count = request->needs.peer_count = 0;
    request->needs.generation = 0;
    request->needs.keeps_remote_uses = false;
    request->needs.ops = NULL;
    request->prepared = NULL;
    request->copied = request->detached = request->is_part = false;
    request->wait_count = 0;
    request->asked = (struct nvlxi_asked){0};
    request->form = NULL;
    request->blocks = (struct nvlxi_block_work){0};
}

void nvlxi_transfers_return_validation(struct nvlxi_transfers *t, struct nvlxi_validation *validation) {
    pthread_mutex_lock(&t->mutex);
    LL_PREPEND(t->validations, validation);
    pthread_mutex_unlock(&t->mutex);
}

static void destroy_request(struct nvlx_request *request) {
    nvlxi_needs_free(&request->needs);
    pthread_mutex_destroy(&request->polling);
    free(request);
}

void nvlxi_request_recycle(struct nvlx_request *request) {
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

int nvlxi_transfers_take(struct nvlxi_transfers *t, struct nvlx_request **request,
                         struct nvlxi_validation **validation) {
    pthread_mutex_lock(&t->mutex);
    if (request && (*request = t->idle)) {
        LL_DELETE(t->idle, *request);
        t->idle_count--;
    }
    if (validation && (*validation = t->validations))
        LL_DELETE(t->validations, *validation);
    pthread_mutex_unlock(&t->mutex);
    if (request && !*request && !(*request = new_request(t)))
        goto return_validation;
    if (validation && !*validation && !(*validation = calloc(1, sizeof **validation))) {
        nvlxi_fail(NVLX_ENOMEM, "no memory to check a transfer");
        goto recycle_request;
    }
    if (request)
        renew_request(*request);
    if (validation)
        (*validation)->signal_gpu = -1;
    return 0;
recycle_request:
    if (request)
        nvlxi_request_recycle(*request);
    return NVLX_ENOMEM;
return_validation:
    if (validation && *validation)
        nvlxi_transfers_return_validation(t, *validation);
    if (validation)
        *validation = NULL;
    return NVLX_ENOMEM;
}

/* Those of the callers: each frees its parts. */
static struct nvlx_request *first_of_callers(struct nvlx_request *list) {
    while (list && list->is_part)
        list = list->next;
    return list;
}

void nvlxi_transfers_free(struct nvlxi_transfers *transfers) {
    struct nvlx_request *request, *next;
    struct nvlxi_validation *validation, *next_validation;
    struct nvlxi_verification *verification, *next_verification;
    while ((request = first_of_callers(transfers->in_flight)))
        nvlxi_request_free(request);
    while ((request = first_of_callers(transfers->done)))
        nvlxi_request_free(request);
    while (transfers->forms)
        nvlxi_prepared_free(transfers->forms->prepared);
    LL_FOREACH_SAFE(transfers->idle, request, next) {
        destroy_request(request);
    }
    LL_FOREACH_SAFE(transfers->validations, validation, next_validation) {
        nvlxi_validation_free(validation);
    }
    LL_FOREACH_SAFE(transfers->verifications, verification, next_verification) {
        nvlxi_verification_free(verification);
    }
    nvlxi_lanes_free(&transfers->pool);
    nvlxi_notices_free(transfers->notices);
    pthread_mutex_destroy(&transfers->mutex);
}
