/* Registers and unregisters regions, and keeps the lookup table of local memory. SPDX-License-Identifier: Apache-2.0 */
#include "local/registration.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/trace.h"
#include "base/utf8.h"

int nvlxi_registration_init(struct nvlxi_registration *r, const struct nvlxi_context *context) {
    int code = nvlxi_intervals_init(&r->ranges);
    if (code)
        return code;
    code = nvlxi_intervals_init(&r->extents);
    if (code) {
        nvlxi_intervals_free(&r->ranges);
        return code;
    }
    r->context = context;
    r->told = (struct nvlxi_told){.text = NVLXI_PROCESS_ROOM};
    r->limits = (struct nvlxi_told){NVLXI_REGIONS_MAX, NVLXI_SEGMENTS_MAX, NVLXI_TEXT_MAX};
    pthread_mutex_init(&r->mutex, NULL);
    nvlxi_cond_init(&r->export_done);
    return 0;
}

/* ---- Who listens for changes --------------------------------------------------------------------------- */

void nvlxi_registration_listen(struct nvlxi_registration *registration, nvlxi_change_function function, void *context) {
    pthread_mutex_lock(&registration->mutex);
    registration->generation++;
    if (!nvlxi_journal_begin(&registration->journal, registration->generation))
        nvlxi_log(NVLX_LOG_WARNING, "no memory for a journal: every change is told by a whole descriptor");
    registration->on_change_context = context;
    atomic_store(&registration->on_change, function);
    pthread_mutex_unlock(&registration->mutex);
}

void nvlxi_registration_tell(struct nvlxi_registration *registration) {
    if (atomic_load(&registration->held))
        return;
    nvlxi_change_function function = atomic_load(&registration->on_change);
    if (function)
        function(registration->on_change_context);
}

uint64_t nvlxi_registration_generation(struct nvlxi_registration *registration) {
    pthread_mutex_lock(&registration->mutex);
    const uint64_t generation = registration->generation;
    pthread_mutex_unlock(&registration->mutex);
    return generation;
}

int nvlxi_registration_hold(struct nvlxi_registration *registration) {
    pthread_mutex_lock(&registration->mutex);
    const bool held = atomic_exchange(&registration->held, true);
    pthread_mutex_unlock(&registration->mutex);
    return held ? nvlxi_fail(NVLX_EBUSY, "changes are held back already: nvlx_publish tells them") : 0;
}

uint64_t nvlxi_registration_publish(struct nvlxi_registration *registration) {
    pthread_mutex_lock(&registration->mutex);
    const bool held = atomic_exchange(&registration->held, false);
    const uint64_t generation = registration->generation;
    pthread_mutex_unlock(&registration->mutex);
    if (held)
        nvlxi_registration_tell(registration);
    return generation;
}

/* ---- The lookup table -------------------------------------------------------------------------------- */

void nvlxi_registration_tidy(struct nvlxi_registration *registration) {
    struct nvlxi_slots *slots;
    nvlxi_intervals_tidy(&registration->ranges);
    if (!nvlxi_intervals_worn(&registration->ranges) || !(slots = nvlxi_intervals_new_slots(&registration->ranges)))
        return;
    nvlxi_tables_write(registration->context->tables);
    slots = nvlxi_intervals_swap_slots(&registration->ranges, slots);
    nvlxi_tables_write_end(registration->context->tables);
    free(slots);
}

void nvlxi_registration_renew(struct nvlxi_registration *registration) {
    if (pthread_mutex_trylock(&registration->mutex))
        return;
    nvlxi_registration_tidy(registration);
    pthread_mutex_unlock(&registration->mutex);
}

/* ---- The list of regions ----------------------------------------------------------------------------- */

static int reserve(struct nvlxi_registration *r) {
    if (r->region_count < r->capacity)
        return 0;
    size_t capacity = r->capacity ? 2 * r->capacity : 64;
    struct nvlx_region **regions = realloc(r->regions, capacity * sizeof(*regions));
    if (!regions)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for the list of %zu regions", capacity);
    r->regions = regions;
    r->capacity = capacity;
    return 0;
}

static void add_to_list(struct nvlxi_registration *r, struct nvlx_region *region) {
    region->position = r->region_count++;
    r->regions[region->position] = region;
}

static void remove_from_list(struct nvlxi_registration *r, const struct nvlx_region *region) {
    struct nvlx_region *last = r->regions[--r->region_count];
    r->regions[region->position] = last;
    last->position = region->position;
}

static int take_name(struct nvlxi_registration *r, struct nvlx_region *region) {
    struct nvlxi_region_name *name = region->name, *other;
    bool hash_full = false;
    if (!name)
        return 0;
    HASH_FIND_STR(r->names, name->text, other);
    if (other)
        return nvlxi_fail(NVLX_EEXIST, "the name \"%s\" is taken by a region at 0x%" PRIx64 " of %" PRIu64 " bytes",
                          name->text, other->region->address, other->region->length);
    HASH_ADD_KEYPTR(hh, r->names, name->text, strlen(name->text), name);
    return hash_full ? nvlxi_fail(NVLX_ENOMEM, "no memory for the name \"%s\"", name->text) : 0;
}

/* Refuses what would make the descriptor one that no peer reads. */
int nvlxi_region_check_limits(const struct nvlxi_registration *registration, const struct nvlx_region *region) {
    const struct nvlxi_told *limits = &registration->limits;
    struct nvlxi_told told = registration->told;
    if (region->access == NVLX_ACCESS_NONE || region->stale)
        return 0;
    nvlxi_region_count(region, &told);
    if (told.regions <= limits->regions && told.segments <= limits->segments && told.text <= limits->text)
        return 0;
    return nvlxi_fail(
        NVLX_EBUSY,
        "peers would be told of %zu regions (at most %zu) in %zu segments (at most %zu), in a text of up to "
        "%zu bytes (at most %zu): unregister some, or make some private (NVLX_ACCESS_NONE)",
        told.regions, limits->regions, told.segments, limits->segments, told.text, limits->text);
}

/* All that may fail. The region has its stakes. */
static int prepare(struct nvlxi_registration *r, struct nvlx_region *region) {
    int code = nvlxi_region_check_limits(r, region);
    if (code || (code = reserve(r)) || (code = nvlxi_region_reserve(r, region)))
        return code;
    return take_name(r, region);
}

/* Enters a region whose allocations are known; all or nothing. Peers are told also of what it was found to replace. */
static int enter(struct nvlxi_registration *r, const struct nvlxi_extents *extents, struct nvlx_region *region) {
    pthread_mutex_lock(&r->mutex);
    const uint64_t before = r->generation;
    nvlxi_intervals_approach(&r->ranges, region->address);
    int code = nvlxi_segments_acquire(r, extents, region);
    if (code)
        goto unlock;
    if ((code = prepare(r, region)))
        goto release;
    add_to_list(r, region);
    region->entered = true;
    region->since = ++r->generation;
    region->known = region->stale ? UINT64_MAX : region->since;
    if (!region->stale)
        nvlxi_region_tell(r, region);
    if (!region->stale && region->length) {
        nvlxi_tables_write(r->context->tables);
        nvlxi_region_map(r, region);
        nvlxi_tables_write_end(r->context->tables);
    }
    nvlxi_registration_tidy(r);
    goto unlock;
release:
    nvlxi_segments_release(r, region);
unlock:;
    const bool changed = r->generation != before;
    pthread_mutex_unlock(&r->mutex);
    if (changed)
        nvlxi_registration_tell(r);
    return code;
}

/* ---- Digests ----------------------------------------------------------------------------------------- */

/* What it takes in the text that peers are told. */
static size_t digest_room(const struct nvlx_region *region) {
    return region->has_digest ? 0
                              : nvlxi_descriptor_region_room(NULL, true) - nvlxi_descriptor_region_room(NULL, false);
}

/* Under the mutex. */
static int check_digest(const struct nvlxi_registration *r, const struct nvlx_region *region) {
    if (region->suspended)
        return nvlxi_fail(NVLX_ESUSPENDED, "the region at 0x%" PRIx64 " sleeps, and its bytes may become others",
                          region->address);
    if (region->withdrawn || region->stale)
        return nvlxi_fail(NVLX_ESTALE, "the region at 0x%" PRIx64 " %s", region->address,
                          region->withdrawn ? "is withdrawn" : "lies in memory that was freed");
    const size_t more = digest_room(region);
    if (!more || r->told.text + more <= r->limits.text)
        return 0;
    return nvlxi_fail(NVLX_EBUSY,
                      "with one more digest, peers would be told a text of up to %zu bytes (at most %zu): unregister "
                      "some regions",
                      r->told.text + more, r->limits.text);
}

int nvlxi_registration_find_awake(struct nvlxi_registration *r, const struct nvlx_region *region, uint64_t *address,
                                  uint32_t *naps) {
    pthread_mutex_lock(&r->mutex);
    const int code = check_digest(r, region);
    *address = region->address;
    *naps = region->naps;
    pthread_mutex_unlock(&r->mutex);
    return code;
}

/* Under the mutex. */
static int check_nap(const struct nvlx_region *region, uint32_t naps) {
    return region->naps == naps ? 0
                                : nvlxi_fail(NVLX_ESUSPENDED, "the region at 0x%" PRIx64 " slept while it was digested",
                                             region->address);
}

int nvlxi_registration_set_digest(struct nvlxi_registration *r, struct nvlx_region *region, uint32_t naps,
                                  const uint64_t *digest) {
    bool news = false;
    pthread_mutex_lock(&r->mutex);
    int code = check_digest(r, region);
    if (!code)
        code = check_nap(region, naps);
    if (!code && digest && (!region->has_digest || region->digest != *digest)) {
        r->told.text += digest_room(region);
        region->has_digest = news = true;
        region->digest = *digest;
        nvlxi_journal_tell(&r->journal, ++r->generation, region);
    }
    pthread_mutex_unlock(&r->mutex);
    if (news)
        nvlxi_registration_tell(r);
    return code;
}

/* ---- Register, unregister ---------------------------------------------------------------------------- */

static int check_name(const char *name) {
    if (!name || nvlxi_utf8_is_name(name))
        return 0;
    return nvlxi_fail(NVLX_EINVAL,
                      "the name \"%.*s\" of %zu bytes is not UTF-8 of 1 to %d bytes without control characters",
                      nvlxi_text_cut(name, 40), name, strlen(name), NVLXI_NAME_MAX);
}

static void free_region(struct nvlx_region *region) {
    if (region->stakes != &region->one)
        free(region->stakes);
    free(region->name);
    free(region);
}

static struct nvlxi_region_name *make_name(const char *text, const struct nvlx_region *region) {
    const size_t size = strlen(text) + 1;
    struct nvlxi_region_name *name = calloc(1, sizeof *name + size);
    if (!name)
        return NULL;
    name->region = region;
    memcpy(name->text, text, size);
    return name;
}

/* With room for `segments`. */
static int make_region(uint64_t address, uint64_t length, const struct nvlx_region_options *options, size_t segments,
                       struct nvlx_region **made) {
    struct nvlx_region *region = malloc(sizeof *region);
    if (!region)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a region");
    *region = (struct nvlx_region){
        .address = length ? address : 0, .length = length, .access = (uint8_t)options->access, .ready = options->ready};
    region->stakes = segments > 1 ? calloc(segments, sizeof *region->stakes) : &region->one;
    if (!region->stakes || (options->name && !(region->name = make_name(options->name, region)))) {
        free_region(region);
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a region in %zu segments", segments);
    }
    *made = region;
    return 0;
}

int nvlxi_registration_add(struct nvlxi_registration *registration, uint64_t address, uint64_t length,
                           const struct nvlx_region_options *options, struct nvlx_region **region) {
    struct nvlxi_extents extents = {.list = &extents.one};
    struct nvlx_region *made = NULL;
    const bool traced = nvlxi_trace_begin(NVLXI_TRACE_REGISTER, length);
    int code = check_name(options->name);
    if (!code && options->access > NVLX_ACCESS_READ_WRITE)
        code = nvlxi_fail(NVLX_EINVAL, "access %" PRIu32 " is not one of NVLX_ACCESS_...", options->access);
    if (!code && (uintptr_t)options->ready % sizeof(uint64_t))
        code = nvlxi_fail(NVLX_EINVAL, "region_options.ready is %p: it is no multiple of 8", options->ready);
    if (!code && length)
        code = nvlxi_extents_survey(registration->context, address, length, options->access, &extents);
    if (!code && length)
        registration->context->ops->load(registration->context->device, extents.one.gpu);
    if (code || (code = make_region(address, length, options, extents.count, &made)))
        goto free_extents;
    made->engine = registration->engine;
    code = enter(registration, &extents, made);
    if (code)
        free_region(made);
    else
        *region = made;
free_extents:
    nvlxi_extents_free(&extents);
    nvlxi_trace_end(traced);
    return code;
}

/* Under the mutex. */
static void withdraw(struct nvlxi_registration *r, struct nvlx_region *region) {
    r->generation++;
    region->withdrawn = true;
    region->unknown = region->unknown ? region->unknown : r->generation;
    if (region->suspended)
        nvlxi_region_end_sleep(r, region);
    else if (!region->stale)
        nvlxi_region_untell(r, region);
    remove_from_list(r, region);
    DL_PREPEND2(r->withdrawn, region, previous_withdrawn, next_withdrawn);
    if (region->name)
        HASH_DEL(r->names, region->name);
    nvlxi_segments_release(r, region);
    nvlxi_registration_tidy(r);
}

int nvlxi_registration_withdraw(struct nvlxi_registration *r, struct nvlx_region *region,
                                nvlxi_users_function find_users, void *context) {
    uint32_t users = NVLXI_NOBODY;
    pthread_mutex_lock(&r->mutex);
    const bool first = !region->withdrawn;
    if (first && region->length && !region->stale) {
        nvlxi_intervals_approach(&r->ranges, region->address);
        nvlxi_tables_write(r->context->tables);
        users = find_users(context, region->address, region->length);
        if (!(users & NVLXI_A_PREPARED_LIST) && !region->suspended)
            nvlxi_region_unmap(r, region);
        nvlxi_tables_write_end(r->context->tables);
    }
    if (first && !(users & NVLXI_A_PREPARED_LIST))
        withdraw(r, region);
    pthread_mutex_unlock(&r->mutex);
    if (users & NVLXI_A_PREPARED_LIST)
        return NVLX_EBUSY;
    if (first)
        nvlxi_registration_tell(r);
    return 0;
}

void nvlxi_registration_free_region(struct nvlxi_registration *registration, struct nvlx_region *region) {
    pthread_mutex_lock(&registration->mutex);
    DL_DELETE2(registration->withdrawn, region, previous_withdrawn, next_withdrawn);
    pthread_mutex_unlock(&registration->mutex);
    free_region(region);
}

int nvlxi_registration_forget(struct nvlxi_registration *r, uint64_t address, uint64_t length,
                              nvlxi_users_function find_users, void *context, uint32_t *users) {
    size_t segments = 0;
    pthread_mutex_lock(&r->mutex);
    nvlxi_tables_write(r->context->tables);
    *users = find_users(context, address, length);
    if (!*users)
        segments = nvlxi_segments_retire(r, address, length);
    nvlxi_tables_write_end(r->context->tables);
    nvlxi_registration_tidy(r);
    pthread_mutex_unlock(&r->mutex);
    if (*users)
        return NVLX_EBUSY;
    if (segments) {
        nvlxi_log(NVLX_LOG_INFO, "%zu segments at 0x%" PRIx64 " are no longer used: their memory is being freed",
                  segments, address);
        nvlxi_registration_tell(r);
    }
    return 0;
}

void nvlxi_registration_free(struct nvlxi_registration *r) {
    HASH_CLEAR(hh, r->names);
    for (size_t i = 0; i < r->region_count; i++) {
        nvlxi_segments_release(r, r->regions[i]);
        free_region(r->regions[i]);
    }
    for (struct nvlx_region *region = r->withdrawn, *next; region; region = next) {
        next = region->next_withdrawn;
        free_region(region);
    }
    free(r->regions);
    free(r->asleep);
    free(r->by_number);
    nvlxi_intervals_free(&r->ranges);
    nvlxi_intervals_free(&r->extents);
    nvlxi_journal_free(&r->journal);
    pthread_cond_destroy(&r->export_done);
    pthread_mutex_destroy(&r->mutex);
}
