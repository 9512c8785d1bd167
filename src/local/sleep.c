/* Regions that sleep and wake: the states are in lifetime/suspension.h. SPDX-License-Identifier: Apache-2.0
 *
 * Each has an entry in the journal of changes. A region that sleeps, or wakes where it was, is told as another, and
 * keeps its id, by which prepared lists know its age. One that wakes elsewhere goes, and comes with a new id. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "local/registration.h"

bool nvlxi_registration_sleeps(const struct nvlxi_registration *registration, uint64_t address) {
    for (size_t i = 0; i < registration->asleep_count; i++) {
        const struct nvlx_region *region = registration->asleep[i];
        if (address - region->address < region->length)
            return true;
    }
    return false;
}

/* What peers are told of a region that sleeps: itself, and no segment. */
static void tell_asleep(struct nvlxi_registration *r, const struct nvlx_region *region) {
    if (region->access == NVLX_ACCESS_NONE)
        return;
    r->told.regions++;
    r->told.text += nvlxi_descriptor_region_room(region->name ? region->name->text : NULL, region->has_digest);
}

static void untell_asleep(struct nvlxi_registration *r, const struct nvlx_region *region) {
    if (region->access == NVLX_ACCESS_NONE)
        return;
    r->told.regions--;
    r->told.text -= nvlxi_descriptor_region_room(region->name ? region->name->text : NULL, region->has_digest);
}

static void drop_stakes(struct nvlxi_registration *r, struct nvlx_region *region) {
    nvlxi_segments_release(r, region);
    if (region->stakes != &region->one)
        free(region->stakes);
    region->stakes = &region->one;
}

/* Under the mutex. */
static int check_usable(const struct nvlx_region *region) {
    if (region->withdrawn)
        return nvlxi_fail(NVLX_EINVAL, "the region at 0x%" PRIx64 " of %" PRIu64 " bytes is being unregistered",
                          region->address, region->length);
    if (region->resuming)
        return nvlxi_fail(NVLX_EBUSY, "the region at 0x%" PRIx64 " is being resumed, or is twice in the list",
                          region->address);
    return 0;
}

/* ---- REGISTERED -> SUSPENDED --------------------------------------------------------------------------- */

/* Under the mutex. `*awake`: how many do not sleep yet. */
static int check_awake(struct nvlx_region *const *regions, size_t count, size_t *awake) {
    *awake = 0;
    for (size_t i = 0; i < count; i++) {
        int code = check_usable(regions[i]);
        if (!code && regions[i]->stale)
            code = nvlxi_fail(NVLX_ESTALE, "the memory of the region at 0x%" PRIx64 " was freed: unregister it",
                              regions[i]->address);
        if (code)
            return code;
        *awake += !regions[i]->suspended;
    }
    return 0;
}

/* Under the mutex; there is room in the list of those that sleep. */
static void put_to_sleep(struct nvlxi_registration *r, struct nvlx_region *region, nvlxi_upset_function upset,
                         void *context) {
    nvlxi_intervals_approach(&r->ranges, region->address);
    nvlxi_tables_write(r->context->tables);
    if (region->length) {
        nvlxi_region_unmap(r, region);
        upset(context, region->address, region->length);
    }
    r->asleep[r->asleep_count++] = region;
    nvlxi_tables_write_end(r->context->tables);
    region->suspended = true;
    region->unknown = r->generation;
    region->naps++;
    region->asleep = false;
    region->entered = false;
    nvlxi_region_unshare(r, region);
    drop_stakes(r, region);
    region->has_digest = false; /* who knows what it wakes up with */
    tell_asleep(r, region);
    if (region->access != NVLX_ACCESS_NONE)
        nvlxi_journal_tell(&r->journal, r->generation, region);
}

/* Under the mutex. */
static int make_room(struct nvlxi_registration *r, size_t count) {
    struct nvlx_region **longer = malloc((r->asleep_count + count) * sizeof(*longer)), **before = r->asleep;
    if (!longer)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to suspend %zu regions", count);
    if (before)
        memcpy(longer, before, r->asleep_count * sizeof(*longer));
    nvlxi_tables_write(r->context->tables);
    r->asleep = longer;
    nvlxi_tables_write_end(r->context->tables);
    free(before);
    return 0;
}

int nvlxi_registration_suspend(struct nvlxi_registration *registration, struct nvlx_region *const *regions,
                               size_t count, nvlxi_upset_function upset, void *context) {
    size_t awake;
    pthread_mutex_lock(&registration->mutex);
    int code = check_awake(regions, count, &awake);
    if (!code && awake && !(code = make_room(registration, awake))) {
        registration->generation++;
        for (size_t i = 0; i < count; i++)
            if (!regions[i]->suspended)
                put_to_sleep(registration, regions[i], upset, context);
        nvlxi_registration_tidy(registration);
    }
    pthread_mutex_unlock(&registration->mutex);
    if (!code && awake)
        nvlxi_registration_tell(registration);
    return code;
}

void nvlxi_registration_note_asleep(struct nvlxi_registration *registration, struct nvlx_region *const *regions,
                                    size_t count, uint64_t generation) {
    pthread_mutex_lock(&registration->mutex);
    for (size_t i = 0; i < count; i++)
        if (regions[i]->suspended && regions[i]->unknown <= generation)
            regions[i]->asleep = true;
    pthread_mutex_unlock(&registration->mutex);
}

/* Takes those that are being resumed, or withdrawn, out of the list. Under the mutex. */
static void leave_sleepers(struct nvlxi_registration *r) {
    size_t left = 0;
    nvlxi_tables_write(r->context->tables);
    for (size_t i = 0; i < r->asleep_count; i++)
        if (!r->asleep[i]->resuming && !r->asleep[i]->withdrawn)
            r->asleep[left++] = r->asleep[i];
    r->asleep_count = left;
    nvlxi_tables_write_end(r->context->tables);
}

void nvlxi_region_end_sleep(struct nvlxi_registration *registration, struct nvlx_region *region) {
    untell_asleep(registration, region);
    if (region->access != NVLX_ACCESS_NONE)
        nvlxi_journal_remove(&registration->journal, registration->generation, region);
    leave_sleepers(registration);
}

/* ---- SUSPENDED -> RESUMING -> REGISTERED --------------------------------------------------------------- */

struct waking {
    struct nvlx_region *region;
    uint64_t address; /* where it shall be, or, once it is there, where it was */
    struct nvlxi_extents extents;
};

/* Under the mutex. */
static int claim(const struct waking *waking, size_t count) {
    int code = 0;
    size_t claimed;
    for (claimed = 0; claimed < count && !code; claimed += !code) {
        struct nvlx_region *region = waking[claimed].region;
        code = check_usable(region);
        if (!code && !region->suspended)
            code = nvlxi_fail(NVLX_EINVAL, "the region at 0x%" PRIx64 " of %" PRIu64 " bytes is not suspended",
                              region->address, region->length);
        region->resuming = region->resuming || !code;
    }
    while (code && claimed)
        waking[--claimed].region->resuming = false;
    return code;
}

static int survey(struct nvlxi_registration *r, struct waking *waking) {
    const struct nvlxi_context *context = r->context;
    if (!waking->region->length)
        return 0;
    int code = nvlxi_extents_survey(context, waking->address, waking->region->length, waking->region->access,
                                    &waking->extents);
    if (!code)
        context->ops->load(context->device, waking->extents.one.gpu);
    return code;
}

/* Gives a region its segments. Lets go of the mutex meanwhile. */
static int acquire(struct nvlxi_registration *r, const struct waking *waking) {
    struct nvlx_region *region = waking->region;
    if (waking->extents.count > 1 && !(region->stakes = calloc(waking->extents.count, sizeof *region->stakes))) {
        region->stakes = &region->one;
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a region in %zu segments", waking->extents.count);
    }
    return nvlxi_segments_acquire(r, &waking->extents, region);
}

static void move(struct waking *waking) {
    const uint64_t address = waking->region->address;
    waking->region->address = waking->address;
    waking->address = address;
}

/* Enters a region where it shall be; all or nothing. Under the mutex. */
static int enter(struct nvlxi_registration *r, struct waking *waking) {
    struct nvlx_region *region = waking->region;
    if (region->stale)
        return nvlxi_fail(NVLX_ESTALE, "the memory at 0x%" PRIx64 " was freed while it was being resumed",
                          waking->address);
    move(waking);
    untell_asleep(r, region);
    int code = nvlxi_region_check_limits(r, region);
    if (!code)
        code = nvlxi_region_reserve(r, region);
    if (code) {
        tell_asleep(r, region);
        move(waking);
        return code;
    }
    nvlxi_region_share(r, region);
    nvlxi_tables_write(r->context->tables);
    nvlxi_region_map(r, region);
    nvlxi_tables_write_end(r->context->tables);
    return 0;
}

static void leave(struct nvlxi_registration *r, struct waking *waking) {
    nvlxi_tables_write(r->context->tables);
    nvlxi_region_unmap(r, waking->region);
    nvlxi_tables_write_end(r->context->tables);
    nvlxi_region_unshare(r, waking->region);
    tell_asleep(r, waking->region);
    move(waking);
}

/* Of all, or of none. Under the mutex, which it lets go of meanwhile. */
static int wake_all(struct nvlxi_registration *r, struct waking *waking, size_t count) {
    int code = 0;
    size_t entered = 0;
    for (size_t i = 0; i < count && !code; i++)
        code = acquire(r, &waking[i]);
    while (entered < count && !code && !(code = enter(r, &waking[entered])))
        entered++;
    while (code && entered)
        leave(r, &waking[--entered]);
    for (size_t i = 0; i < count && code; i++) {
        drop_stakes(r, waking[i].region);
        waking[i].region->stale = false;
    }
    return code;
}

/* One that has moved gets a new id, which no other has. */
static void tell_awake(struct nvlxi_registration *r, struct nvlx_region *region, bool moved) {
    const bool told = region->access != NVLX_ACCESS_NONE;
    if (moved) {
        r->generation++;
        if (told)
            nvlxi_journal_remove(&r->journal, r->generation, region);
        region->since = r->generation;
    }
    if (told)
        nvlxi_journal_tell(&r->journal, r->generation, region);
}

/* Under the mutex. */
static void finish(struct nvlxi_registration *r, const struct waking *waking, size_t count) {
    leave_sleepers(r);
    r->generation++;
    for (size_t i = 0; i < count; i++) {
        struct nvlx_region *region = waking[i].region;
        region->known = region->asleep ? r->generation : region->known;
        region->unknown = 0;
        region->suspended = false;
        region->asleep = false;
        region->entered = true;
        tell_awake(r, region, region->address != waking[i].address);
    }
}

static int resume(struct nvlxi_registration *r, struct waking *waking, size_t count) {
    pthread_mutex_lock(&r->mutex);
    int code = claim(waking, count);
    pthread_mutex_unlock(&r->mutex);
    if (code)
        return code;
    for (size_t i = 0; i < count && !code; i++)
        code = survey(r, &waking[i]);
    pthread_mutex_lock(&r->mutex);
    if (!code && !(code = wake_all(r, waking, count)))
        finish(r, waking, count);
    for (size_t i = 0; i < count; i++)
        waking[i].region->resuming = false;
    nvlxi_registration_tidy(r);
    pthread_mutex_unlock(&r->mutex);
    nvlxi_registration_tell(r); /* a failed one may have found memory that was freed */
    return code;
}

int nvlxi_registration_resume(struct nvlxi_registration *registration, struct nvlx_region *const *regions, size_t count,
                              void *const *addresses) {
    struct waking *waking = count ? calloc(count, sizeof *waking) : NULL;
    if (!waking)
        return count ? nvlxi_fail(NVLX_ENOMEM, "no memory to resume %zu regions", count) : 0;
    for (size_t i = 0; i < count; i++) {
        const bool moves = addresses && addresses[i] && regions[i]->length;
        waking[i].region = regions[i];
        waking[i].address = moves ? (uint64_t)(uintptr_t)addresses[i] : regions[i]->address;
        waking[i].extents.list = &waking[i].extents.one;
    }
    int code = resume(registration, waking, count);
    for (size_t i = 0; i < count; i++)
        nvlxi_extents_free(&waking[i].extents);
    free(waking);
    return code;
}
