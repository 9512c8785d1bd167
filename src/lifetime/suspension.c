/* Puts regions to sleep, and waits until nobody uses their bytes: see suspension.h. SPDX-License-Identifier: Apache-2.0
 */
#include "lifetime/suspension.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/thread.h"
#include "lifetime/graph_waits.h"

/* Who of this process uses bytes of the range, or NULL. */
static const char *user_of(const struct nvlxi_own *own, uint64_t address, uint64_t length) {
    nvlxi_transfers_progress(own->transfers); /* one may be done, and nobody have asked */
    const uint32_t users = nvlxi_transfers_users(own->transfers, address, length);
    if (users & NVLXI_A_TRANSFER)
        return "transfer in flight";
    if (users & NVLXI_A_GRAPH || nvlxi_graph_waits_use(own->waits, address, length))
        return "graph";
    if (nvlxi_digester_uses(own->digester, address, length))
        return "digest in flight";
    return nvlxi_waits_use(own->waits, address, length) ? "stream's wait" : NULL;
}

int nvlxi_own_wait(const struct nvlxi_own *own, uint64_t address, uint64_t length, int code, const char *what,
                   uint64_t deadline) {
    const char *user;
    nvlxi_waits_end(own->waits, address, length, code);
    for (uint64_t since = nvlxi_now_ns(); (user = user_of(own, address, length)); nvlxi_pause(since))
        if (nvlxi_now_ns() >= deadline)
            return nvlxi_fail(NVLX_ETIMEDOUT, "%s is withdrawn, but an own %s uses it", what, user);
    return 0;
}

int nvlxi_file_wait(struct nvlxi_registration *registration, const char *what, uint64_t deadline) {
    return nvlxi_registration_await_file(registration, deadline)
               ? nvlxi_fail(NVLX_ETIMEDOUT, "%s is withdrawn, but it may be what is being exported to a client", what)
               : 0;
}

static void upset_lists(void *context, uint64_t address, uint64_t length) {
    nvlxi_transfers_upset(context, address, length);
}

/* Whether peers may know bytes that they have not let go of. */
static bool is_followed(const struct nvlx_region *region) {
    return region->access && region->length && !region->asleep;
}

/* Whether a handle of the memory may be being exported. What sleeps has none: that was waited for before. */
static bool is_exported(struct nvlx_region *const *regions, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (regions[i]->access && !regions[i]->asleep)
            return true;
    return false;
}

/* The newest generation that peers must let go of; 0: none. */
static uint64_t newest_of(struct nvlx_region *const *regions, size_t count) {
    uint64_t newest = 0;
    for (size_t i = 0; i < count; i++)
        newest = is_followed(regions[i]) ? nvlxi_max(newest, regions[i]->unknown) : newest;
    return newest;
}

/* Each region by itself: who never knew one may have let go of another. */
static int wait_for_followers(const struct nvlxi_suspension *s, struct nvlx_region *const *regions, size_t count,
                              const char *what, uint64_t deadline) {
    int code = 0;
    for (size_t i = 0; i < count && !code; i++) {
        const struct nvlxi_withdrawn content = {
            .what = what, .since = regions[i]->known, .without = regions[i]->unknown};
        if (is_followed(regions[i]))
            code = nvlxi_revocations_wait(s->revocations, &content, deadline);
    }
    return code;
}

int nvlxi_suspend(const struct nvlxi_suspension *s, struct nvlx_region *const *regions, size_t count,
                  uint64_t deadline) {
    char what[96] = "nothing";
    int code = nvlxi_registration_suspend(s->registration, regions, count, upset_lists, s->own.transfers);
    if (!code && count)
        snprintf(what, sizeof what, "the memory of %zu regions, the first at 0x%" PRIx64 ",", count,
                 regions[0]->address);
    for (size_t i = 0; i < count && !code; i++)
        if (regions[i]->length)
            code = nvlxi_own_wait(&s->own, regions[i]->address, regions[i]->length, NVLX_ESUSPENDED, what, deadline);
    if (!code && is_exported(regions, count))
        code = nvlxi_file_wait(s->registration, what, deadline);
    if (code)
        return code;
    const uint64_t newest = newest_of(regions, count);
    if (!newest)
        return 0;
    if (atomic_load(&s->registration->held))
        return nvlxi_fail(NVLX_ETIMEDOUT, "%s is withdrawn, but peers are not told before nvlx_publish", what);
    if ((code = wait_for_followers(s, regions, count, what, deadline)))
        return code;
    nvlxi_registration_note_asleep(s->registration, regions, count, newest);
    return 0;
}
