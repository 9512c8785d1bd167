/* Puts regions to sleep, and waits until nobody uses their bytes: see suspension.h. SPDX-License-Identifier: Apache-2.0
 */
#include "lifetime/suspension.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/thread.h"

int nvlxi_own_wait(struct nvlxi_transfers *transfers, struct nvlxi_digester *digester, uint64_t address,
                   uint64_t length, const char *what, uint64_t deadline) {
    for (uint64_t since = nvlxi_now_ns();; nvlxi_pause(since)) {
        nvlxi_transfers_progress(transfers); /* one may be done, and nobody have asked */
        const bool by_transfer = nvlxi_transfers_users(transfers, address, length) & NVLXI_A_TRANSFER;
        if (!by_transfer && !nvlxi_digester_uses(digester, address, length))
            return 0;
        if (nvlxi_now_ns() >= deadline)
            return nvlxi_fail(NVLX_ETIMEDOUT, "%s is withdrawn, but an own %s in flight uses it", what,
                              by_transfer ? "transfer" : "digest");
    }
}

static void upset_lists(void *context, uint64_t address, uint64_t length) {
    nvlxi_transfers_upset(context, address, length);
}

/* What peers must let go of: all that they may know of these regions. `without` 0: nothing. */
static struct nvlxi_withdrawn content_of(struct nvlx_region *const *regions, size_t count, const char *what) {
    struct nvlxi_withdrawn content = {.what = what, .since = UINT64_MAX};
    for (size_t i = 0; i < count; i++) {
        if (!regions[i]->access || !regions[i]->length || regions[i]->asleep)
            continue;
        content.since = nvlxi_min(content.since, regions[i]->since);
        content.without = nvlxi_max(content.without, regions[i]->suspended);
    }
    return content;
}

int nvlxi_suspend(const struct nvlxi_suspension *s, struct nvlx_region *const *regions, size_t count,
                  uint64_t deadline) {
    char what[96] = "nothing";
    int code = nvlxi_registration_suspend(s->registration, regions, count, upset_lists, s->transfers);
    if (!code && count)
        snprintf(what, sizeof what, "the memory of %zu regions, the first at 0x%" PRIx64 ",", count,
                 regions[0]->address);
    for (size_t i = 0; i < count && !code; i++)
        if (regions[i]->length)
            code = nvlxi_own_wait(s->transfers, s->digester, regions[i]->address, regions[i]->length, what, deadline);
    if (code)
        return code;
    const struct nvlxi_withdrawn content = content_of(regions, count, what);
    if (!content.without)
        return 0;
    if (atomic_load(&s->registration->held))
        return nvlxi_fail(NVLX_ETIMEDOUT, "%s is withdrawn, but peers are not told before nvlx_publish", what);
    if ((code = nvlxi_revocations_wait(s->revocations, &content, deadline)))
        return code;
    nvlxi_registration_note_asleep(s->registration, regions, count, content.without);
    return 0;
}
