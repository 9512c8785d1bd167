/* Digests of registered memory. SPDX-License-Identifier: Apache-2.0 */
#include "local/digest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"

struct nvlxi_digest_work {
    struct nvlxi_digester *digester;
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    uint64_t address, end;
    struct nvlxi_allocation *extents; /* what lies there, in order of address */
    size_t count;
    struct nvlxi_span *spans;
    size_t span_count;
    uint64_t value;
    struct nvlxi_digest_work *prev, *next;
};

void nvlxi_digester_init(struct nvlxi_digester *digester, struct nvlxi_registration *registration) {
    *digester = (struct nvlxi_digester){.registration = registration};
    nvlxi_desks_init(&digester->desks, registration->context);
}

void nvlxi_digester_free(struct nvlxi_digester *digester) {
    nvlxi_desks_free(&digester->desks);
}

/* ---- Who is at work ----------------------------------------------------------------------------------- */

static void enter(struct nvlxi_digest_work *work) {
    pthread_mutex_lock(&work->digester->desks.mutex);
    DL_APPEND(work->digester->works, work);
    pthread_mutex_unlock(&work->digester->desks.mutex);
}

static void leave(struct nvlxi_digest_work *work) {
    pthread_mutex_lock(&work->digester->desks.mutex);
    DL_DELETE(work->digester->works, work); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    pthread_mutex_unlock(&work->digester->desks.mutex);
}

bool nvlxi_digester_uses(struct nvlxi_digester *digester, uint64_t address, uint64_t length) {
    const struct nvlxi_digest_work *work;
    pthread_mutex_lock(&digester->desks.mutex);
    DL_FOREACH(digester->works, work) {
        if (address < work->end && work->address < address + length)
            break;
    }
    pthread_mutex_unlock(&digester->desks.mutex);
    return work != NULL;
}

/* ---- What lies there ----------------------------------------------------------------------------------- */

static int check_registered(const struct nvlxi_registration *r, uint64_t address, uint64_t length) {
    uint64_t where;
    bool registered;
    if (nvlxi_intervals_cover(&r->ranges, nvlxi_intervals_find(&r->ranges, address), address, length, NVLX_ACCESS_NONE,
                              &where, &registered))
        return 0;
    if (nvlxi_registration_sleeps(r, where))
        return nvlxi_fail(NVLX_ESUSPENDED, "of the %" PRIu64 " bytes at 0x%" PRIx64 ", what is at 0x%" PRIx64 " sleeps",
                          length, address, where);
    return nvlxi_fail(NVLX_ERANGE,
                      "of the %" PRIu64 " bytes at 0x%" PRIx64 ", what is at 0x%" PRIx64 " is not registered", length,
                      address, where);
}

/* The allocations under the range; to be freed. Under the mutex. */
static int list_extents(const struct nvlxi_registration *r, struct nvlxi_digest_work *work) {
    const uint32_t first = nvlxi_intervals_search(&r->extents, work->address);
    size_t count = 0;
    for (uint32_t i = first; i && r->extents.piece[i].start < work->end; i = nvlxi_intervals_next(&r->extents, i))
        count++;
    work->extents = malloc(nvlxi_max(count, 1) * sizeof *work->extents);
    if (!work->extents)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %zu allocations", count);
    for (uint32_t i = first; work->count < count; i = nvlxi_intervals_next(&r->extents, i))
        work->extents[work->count++] = r->by_number[i]->allocation;
    return 0;
}

static int check_alive(const struct nvlxi_digest_work *work) {
    int code = 0;
    for (size_t i = 0; i < work->count && !code; i++) {
        code = work->ops->alive(work->device, &work->extents[i]);
        if (code == NVLX_ESTALE)
            nvlxi_fail(code, "the memory at 0x%" PRIx64 " was freed, though regions in it are registered",
                       work->extents[i].base);
    }
    return code;
}

/* Once it is in the list of works, who withdraws the memory waits for it. */
static int find_extents(struct nvlxi_digest_work *work, uint64_t length) {
    struct nvlxi_registration *r = work->digester->registration;
    pthread_mutex_lock(&r->mutex);
    int code = check_registered(r, work->address, length);
    if (!code) {
        work->end = work->address + length;
        code = list_extents(r, work);
    }
    if (!code)
        enter(work);
    pthread_mutex_unlock(&r->mutex);
    return code;
}

static uint64_t end_of(const struct nvlxi_allocation *allocation) {
    return allocation->base + allocation->size;
}

/* The allocation that holds an address of the range, by its number: `from` or a later one. */
static size_t holder_of(const struct nvlxi_digest_work *work, size_t from, uint64_t address) {
    while (end_of(&work->extents[from]) <= address)
        from++;
    return from;
}

/* How far the range goes on in memory of the same GPU. */
static uint64_t same_gpu_until(const struct nvlxi_digest_work *work, size_t from) {
    const int gpu = work->extents[from].gpu;
    while (from + 1 < work->count && work->extents[from + 1].gpu == gpu)
        from++;
    return nvlxi_min(end_of(&work->extents[from]), work->end);
}

/* ---- Spans -------------------------------------------------------------------------------------------- */

/* One leaf, which lies in memory of two GPUs or more. A copy ends with its allocation. */
static int fetch_leaf(void *context, const struct nvlxi_span *leaf, uint64_t *digest) {
    const struct nvlxi_digest_work *work = context;
    uint8_t bytes[NVLXI_LEAF_BYTES];
    size_t at = 0;
    for (uint64_t done = 0, part; done < leaf->length; done += part) {
        const uint64_t from = leaf->address + done;
        at = holder_of(work, at, from);
        part = nvlxi_min(end_of(&work->extents[at]) - from, leaf->length - done);
        int code = work->ops->memcpy(work->device, bytes + done, (const void *)(uintptr_t)from, part);
        if (code)
            return code;
    }
    *digest = nvlxi_xxh64(bytes, leaf->length);
    return 0;
}

static uint64_t end_of_span(const struct nvlxi_digest_work *work) {
    const struct nvlxi_span *span = &work->spans[work->span_count - 1];
    return span->address + span->length;
}

/* The leaves of each GPU, and between them those that lie in memory of several. Each ends beyond another border. */
static int make_spans(struct nvlxi_digest_work *work) {
    work->spans = malloc((2 * work->count + 2) * sizeof *work->spans);
    if (!work->spans)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to digest %zu allocations", work->count);
    size_t at = 0;
    for (uint64_t done = work->address; done < work->end; done = end_of_span(work)) {
        at = holder_of(work, at, done);
        const uint64_t until = same_gpu_until(work, at), bytes = until - done;
        const uint64_t cut = until == work->end ? 0 : bytes % NVLXI_LEAF_BYTES; /* of a leaf that goes on elsewhere */
        const bool whole = bytes > cut;
        work->spans[work->span_count++] =
            (struct nvlxi_span){.address = done,
                                .length = whole ? bytes - cut : nvlxi_min(NVLXI_LEAF_BYTES, work->end - done),
                                .gpu = whole ? work->extents[at].gpu : NVLXI_BY_HOST};
    }
    work->spans[work->span_count - 1].last = true;
    return 0;
}

static int take_value(void *context, uint64_t value) {
    ((struct nvlxi_digest_work *)context)->value = value;
    return 0;
}

static int digest_all(struct nvlxi_digester *digester, struct nvlxi_digest_work *work) {
    struct nvlxi_digesting digesting = {
        .spans = work->spans, .count = work->span_count, .take = take_value, .fetch = fetch_leaf, .context = work};
    int code = nvlxi_digesting_begin(&digesting, &digester->desks);
    if (code)
        return code;
    for (uint64_t since = nvlxi_now_ns(), ended = 0; (code = nvlxi_digesting_step(&digesting)) == NVLX_EAGAIN;) {
        if (ended != digesting.ended_rounds) /* the next one comes soon, too */
            since = nvlxi_now_ns();
        ended = digesting.ended_rounds;
        nvlxi_pause(since);
    }
    nvlxi_digesting_end(&digesting);
    return code;
}

int nvlxi_digest(struct nvlxi_digester *digester, uint64_t address, uint64_t length, uint64_t *value) {
    struct nvlxi_registration *r = digester->registration;
    struct nvlxi_digest_work work = {
        .digester = digester, .ops = r->context->ops, .device = r->context->device, .address = address, .end = address};
    struct nvlxi_xxh64 nothing;
    int code = 0;
    nvlxi_xxh64_init(&nothing);
    work.value = nvlxi_xxh64_value(&nothing);
    if (length && !(code = find_extents(&work, length))) {
        if (!(code = check_alive(&work)) && !(code = make_spans(&work)))
            code = digest_all(digester, &work);
        leave(&work);
    }
    if (!code)
        *value = work.value;
    free(work.spans);
    free(work.extents);
    return code;
}
