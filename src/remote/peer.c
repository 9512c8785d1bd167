/* Peers, from the first descriptor to their end. SPDX-License-Identifier: Apache-2.0 */
#include "remote/peer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/identity.h"
#include "base/thread.h"
#include "base/utf8.h"
#include "descriptor/merge.h"
#include "remote/change.h"
#include "remote/link.h"
#include "remote/mapping.h"

int nvlxi_remote_init(struct nvlxi_remote *r, const struct nvlxi_context *context) {
    r->context = context;
    int code = context->ops->count(&r->gpus);
    for (int gpu = 0; !code && gpu < r->gpus && gpu < NVLXI_DEVICES_MAX; gpu++) {
        code = context->ops->uuid(context->device, gpu, r->uuids[gpu]);
        r->uuid_count++;
    }
    if (code || (code = nvlxi_life_begin(context->identity.engine, &r->life)))
        return code;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->opened, NULL);
    return 0;
}

void nvlxi_remote_free(struct nvlxi_remote *remote) {
    nvlxi_life_end(remote->life);
    pthread_cond_destroy(&remote->opened);
    pthread_mutex_destroy(&remote->mutex);
}

static int check_origin(const struct nvlxi_remote *r, const struct nvlxi_descriptor *d) {
    if (strcmp(d->backend, r->context->ops->name))
        return nvlxi_fail(NVLX_EBACKEND, "the descriptor is of backend \"%s\", this engine runs on \"%s\"", d->backend,
                          r->context->ops->name);
    if (strcmp(d->identity.boot_id, r->context->identity.boot_id))
        return nvlxi_fail(NVLX_ENOTSUP, "the descriptor comes from another machine: its boot id is %s, here it is %s",
                          d->identity.boot_id, r->context->identity.boot_id);
    return 0;
}

/* Of a whole descriptor. */
static int make_table(struct nvlxi_remote *r, const char *text, size_t length, struct nvlxi_peer_table **made) {
    struct nvlxi_descriptor *descriptor;
    int code = nvlxi_descriptor_decode(text, length, &descriptor);
    if (code)
        return code;
    code = check_origin(r, descriptor);
    if (!code && descriptor->from)
        code = nvlxi_fail(NVLX_EFORMAT, "the text has changes from generation %" PRIu64 " on, not all that there is",
                          descriptor->from);
    if (!code)
        return nvlxi_peer_table_make(r, descriptor, made);
    nvlxi_descriptor_free(descriptor);
    return code;
}

/* ---- Peers ------------------------------------------------------------------------------------------- */

static void name_peer(struct nvlx_peer *peer) {
    const struct nvlxi_descriptor *d = peer->table->descriptor;
    const bool serves = d->address[0] != '\0';
    snprintf(peer->name, sizeof peer->name, "%.8s (process %" PRIu64 "%s%s%s)", d->identity.engine, d->identity.pid,
             serves ? ", at \"" : "", d->address, serves ? "\"" : "");
}

/* An engine of this process that is not among the living is gone. */
static void find_life(struct nvlx_peer *peer) {
    const char *engine = peer->table->descriptor->identity.engine;
    if (!peer->same_process || (peer->life = nvlxi_life_find(engine)))
        return;
    snprintf(peer->reason, sizeof peer->reason, "the peer is gone: engine %s, of this process, was destroyed", engine);
    atomic_store(&peer->gone, true);
}

int nvlxi_peer_open(struct nvlxi_remote *remote, const char *text, size_t length, struct nvlx_peer **peer) {
    struct nvlx_peer *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a peer");
    int code = make_table(remote, text, length, &made->table);
    if (code) {
        free(made);
        return code;
    }
    pthread_mutex_init(&made->changing, NULL);
    made->remote = remote;
    made->cell = &remote->context->metrics->others;
    made->same_process = made->table->own;
    name_peer(made);
    find_life(made);
    *peer = made;
    return 0;
}

uint64_t nvlxi_peer_generation(struct nvlx_peer *peer) {
    nvlxi_tables_read(peer->remote->context->tables);
    uint64_t generation = peer->table->descriptor->identity.generation;
    nvlxi_tables_read_end(peer->remote->context->tables);
    return generation;
}

uint64_t nvlxi_peer_old_until(const struct nvlx_peer *peer, uint64_t start, uint64_t end, uint32_t access,
                              uint64_t generation) {
    const struct nvlxi_intervals *ranges = &peer->table->ranges;
    uint64_t at = start;
    for (uint32_t id = nvlxi_intervals_find(ranges, start); id && at < end; id = nvlxi_intervals_next(ranges, id)) {
        const struct nvlxi_range *piece = &ranges->piece[id];
        if (piece->start > at || (piece->access & access) != access ||
            nvlxi_intervals_born(ranges, id) > nvlxi_max(generation, 1))
            break;
        at = piece->end;
    }
    return at;
}

const struct nvlxi_region_record *nvlxi_peer_sleeper(const struct nvlx_peer *peer, uint64_t address) {
    const struct nvlxi_peer_table *table = peer->table;
    for (size_t i = 0; i < table->sleeper_count; i++) {
        const struct nvlxi_region_record *region = &table->descriptor->regions[table->sleepers[i]];
        if (address - region->address < region->length)
            return region;
    }
    return NULL;
}

int nvlxi_peer_still_has(const struct nvlx_peer *peer, uint64_t start, uint64_t end, uint32_t access,
                         uint64_t generation) {
    const uint64_t at = nvlxi_peer_old_until(peer, start, end, access, generation);
    const struct nvlxi_region_record *sleeper = at < end ? nvlxi_peer_sleeper(peer, at) : NULL;
    if (at >= end)
        return 0;
    if (sleeper && (sleeper->access & access) == access && sleeper->since <= nvlxi_max(generation, 1))
        return nvlxi_fail(NVLX_ESUSPENDED, "the peer has suspended its range 0x%" PRIx64 " + %" PRIu64, at, end - at);
    return nvlxi_fail(NVLX_ESTALE,
                      "the peer has withdrawn its range 0x%" PRIx64 " + %" PRIu64 ", or resumed it at another address",
                      at, end - at);
}

static int check_generation(const struct nvlxi_identity *known, const struct nvlxi_identity *offered) {
    if (strcmp(known->engine, offered->engine))
        return nvlxi_fail(NVLX_ESTALE,
                          "the descriptor is of engine %s, the peer is engine %s: another engine's, or it was "
                          "restarted: open it as a new "
                          "peer",
                          offered->engine, known->engine);
    if (offered->generation < known->generation)
        return nvlxi_fail(NVLX_ESTALE, "the descriptor is of generation %" PRIu64 ", %" PRIu64 " is known already",
                          offered->generation, known->generation);
    return 0;
}

/* Moves the mappings over to a new table, under both locks. */
static struct nvlxi_peer_table *swap_table(struct nvlx_peer *peer, struct nvlxi_peer_table *table) {
    struct nvlxi_peer_table *old = peer->table;
    struct nvlxi_mapping *mapping, *next;
    HASH_ITER(hh, peer->mappings, mapping, next) {
        if (mapping->ready && !nvlxi_mapping_publish(table, mapping))
            nvlxi_mapping_revoke(peer, mapping);
    }
    peer->table = table;
    atomic_fetch_add(&peer->changes, 1);
    return old;
}

int nvlxi_peer_update(struct nvlx_peer *peer, const char *text, size_t length) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_peer_table *table;
    int code = nvlxi_peer_check(peer);
    if (code || (code = make_table(r, text, length, &table)))
        return code;
    pthread_mutex_lock(&peer->changing);
    pthread_mutex_lock(&r->mutex);
    code = check_generation(&peer->table->descriptor->identity, &table->descriptor->identity);
    if (!code && table->descriptor->identity.generation != peer->table->descriptor->identity.generation) {
        nvlxi_tables_write(r->context->tables);
        table = swap_table(peer, table);
        nvlxi_tables_write_end(r->context->tables);
    }
    pthread_mutex_unlock(&r->mutex);
    pthread_mutex_unlock(&peer->changing);
    nvlxi_peer_table_free(r, table);
    return code;
}

/* ---- Changes ------------------------------------------------------------------------------------------- */

/* The long way: makes another table of all that is known then. */
static int change_all(struct nvlx_peer *peer, const struct nvlxi_descriptor *changes) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_descriptor *merged;
    struct nvlxi_peer_table *table;
    int code = nvlxi_descriptor_merge(peer->table->descriptor, changes, &merged);
    if (code || (code = nvlxi_peer_table_make(r, merged, &table)))
        return code;
    pthread_mutex_lock(&r->mutex);
    nvlxi_tables_write(r->context->tables);
    table = swap_table(peer, table);
    nvlxi_tables_write_end(r->context->tables);
    pthread_mutex_unlock(&r->mutex);
    nvlxi_peer_table_free(r, table);
    return 0;
}

/* Changes that end where it is known already how things are tell nothing: the user may have been faster, by
 * nvlx_peer_update. */
static int change(struct nvlx_peer *peer, const struct nvlxi_descriptor *changes) {
    const struct nvlxi_identity *known = &peer->table->descriptor->identity;
    if (!changes->from || changes->from > known->generation || strcmp(known->engine, changes->identity.engine))
        return nvlxi_fail(NVLX_EFORMAT,
                          "changes of engine %s from generation %" PRIu64 ": known is generation %" PRIu64
                          " of engine %s",
                          changes->identity.engine, changes->from, known->generation, known->engine);
    if (changes->identity.generation <= known->generation || nvlxi_change_in_place(peer, changes))
        return 0;
    return change_all(peer, changes);
}

int nvlxi_peer_change(struct nvlx_peer *peer, const char *text, size_t length) {
    struct nvlxi_descriptor *changes;
    int code = nvlxi_peer_check(peer);
    if (code || (code = nvlxi_descriptor_decode(text, length, &changes)))
        return code;
    pthread_mutex_lock(&peer->changing);
    if (!(code = check_origin(peer->remote, changes)))
        code = change(peer, changes);
    pthread_mutex_unlock(&peer->changing);
    nvlxi_descriptor_free(changes);
    return code;
}

/* ---- What is known ------------------------------------------------------------------------------------- */

/* As nvidia-smi writes it. */
static void write_uuid(const uint8_t uuid[NVLXI_UUID_BYTES], char *text, size_t size) {
    size_t at = (size_t)snprintf(text, size, "GPU");
    for (size_t i = 0; i < NVLXI_UUID_BYTES; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%02x",
                               i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static void describe_region(const struct nvlxi_descriptor *d, const struct nvlxi_region_record *region,
                            struct nvlx_region_info *info) {
    info->address = region->address;
    info->length = region->length;
    info->generation = region->since;
    info->peer_generation = d->identity.generation;
    info->digest = region->digest;
    info->has_digest = region->has_digest;
    info->access = region->access;
    info->suspended = region->suspended;
    snprintf(info->name, sizeof info->name, "%s", region->name);
    if (region->segment == NVLXI_NO_SEGMENT)
        return;
    info->kind = d->segments[region->segment].kind;
    write_uuid(d->segments[region->segment].device, info->gpu, sizeof info->gpu);
}

static uint64_t count_regions(const struct nvlxi_descriptor *d) {
    uint64_t count = 0;
    for (size_t i = 0; i < d->region_count; i++)
        count += d->regions[i].access != NVLXI_GONE;
    return count;
}

void nvlxi_peer_info(struct nvlx_peer *peer, struct nvlx_peer_info *info) {
    nvlxi_tables_read(peer->remote->context->tables);
    const struct nvlxi_descriptor *d = peer->table->descriptor;
    info->generation = d->identity.generation;
    info->regions = count_regions(d);
    info->segments = d->segment_count;
    info->pid = d->identity.pid;
    info->pid_namespace = d->identity.pid_namespace;
    info->same_process = peer->same_process;
    info->followed = peer->subscription != NULL;
    snprintf(info->engine, sizeof info->engine, "%s", d->identity.engine);
    snprintf(info->backend, sizeof info->backend, "%s", d->backend);
    snprintf(info->address, sizeof info->address, "%s", d->address);
    nvlxi_tables_read_end(peer->remote->context->tables);
}

#define NAMES_TOLD  3
#define NAME_TOLD   40 /* bytes of each */
#define NAMES_TRIED 64 /* regions: who asks again and again until a name is there shall not wait for this */

/* Some names that are there, for who has misspelt one: ", but \"a\", \"b\"". */
static void list_names(const struct nvlxi_descriptor *descriptor, char *text, size_t size) {
    const size_t tried = nvlxi_min(descriptor->region_count, NAMES_TRIED);
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0, told = 0; i < tried && told < NAMES_TOLD && at < size; i++) {
        const char *name = descriptor->regions[i].name;
        if (!*name || descriptor->regions[i].access == NVLXI_GONE)
            continue;
        at += (size_t)snprintf(text + at, size - at, "%s \"%.*s\"", told ? "," : ", but",
                               nvlxi_text_cut(name, NAME_TOLD), name);
        told++;
    }
}

int nvlxi_peer_region_by_name(struct nvlx_peer *peer, const char *name, struct nvlx_region_info *info) {
    char names[NAMES_TOLD * (NAME_TOLD + 8)] = "";
    nvlxi_tables_read(peer->remote->context->tables);
    const struct nvlxi_region_record *region = nvlxi_peer_table_find(peer->table, name);
    if (region)
        describe_region(peer->table->descriptor, region, info);
    else
        list_names(peer->table->descriptor, names, sizeof names);
    nvlxi_tables_read_end(peer->remote->context->tables);
    return region ? 0
                  : nvlxi_fail(NVLX_ENOENT, "the peer has no region named \"%.*s\"%s",
                               nvlxi_text_cut(name, NVLXI_NAME_MAX), name, names);
}

int nvlxi_peer_region(struct nvlx_peer *peer, size_t *place, struct nvlx_region_info *info) {
    nvlxi_tables_read(peer->remote->context->tables);
    const struct nvlxi_descriptor *d = peer->table->descriptor;
    size_t at = *place;
    while (at < d->region_count && d->regions[at].access == NVLXI_GONE)
        at++;
    const bool found = at < d->region_count;
    if (found)
        describe_region(d, &d->regions[at], info);
    nvlxi_tables_read_end(peer->remote->context->tables);
    if (!found)
        return nvlxi_fail(NVLX_ENOENT, "the peer has no region from place %zu on", *place);
    *place = at + 1;
    return 0;
}

int nvlxi_peer_find(struct nvlx_peer *peer, const char *name, uint64_t *address, uint64_t *length) {
    struct nvlx_region_info info;
    int code = nvlxi_peer_region_by_name(peer, name, &info);
    if (code)
        return code;
    *address = info.address;
    *length = info.length;
    return 0;
}

/* Those that are open. Under the mutex. */
static void retire_all(struct nvlx_peer *peer) {
    struct nvlxi_mapping *mapping, *next;
    HASH_ITER(hh, peer->mappings, mapping, next) {
        if (mapping->ready)
            nvlxi_mapping_retire(peer, mapping);
    }
}

int nvlxi_peer_let_go(struct nvlx_peer *peer) {
    int code = 0;
    pthread_mutex_lock(&peer->remote->mutex);
    retire_all(peer);
    pthread_mutex_unlock(&peer->remote->mutex);
    for (uint64_t since = nvlxi_now_ns();; nvlxi_pause(since)) {
        int failed = nvlxi_mappings_close(peer, NVLXI_CLOSE_ALL);
        code = code ? code : failed;
        if (!nvlxi_mappings_left(peer, NVLXI_CLOSE_ALL)) /* the closer may be closing one */
            break;
    }
    nvlxi_peer_unlink(peer);
    return code;
}

int nvlxi_peer_close(struct nvlx_peer *peer) {
    int code = nvlxi_peer_let_go(peer);
    nvlxi_life_drop(peer->life);
    nvlxi_peer_table_free(peer->remote, peer->table);
    pthread_mutex_destroy(&peer->changing);
    free(peer);
    return code;
}

/* ---- A peer's end --------------------------------------------------------------------------------------- */

/* Lists that were checked before the peer was gone have pinned what they need once the tables are free. */
void nvlxi_peer_lose(struct nvlx_peer *peer) {
    struct nvlxi_remote *r = peer->remote;
    snprintf(peer->reason, sizeof peer->reason, "%s", nvlx_last_error());
    pthread_mutex_lock(&r->mutex);
    nvlxi_tables_write(r->context->tables);
    atomic_store(&peer->gone, true);
    nvlxi_count_alone(&r->context->metrics->peers_lost, 1);
    nvlxi_tables_write_end(r->context->tables);
    retire_all(peer);
    pthread_mutex_unlock(&r->mutex);
}

const char *nvlxi_peer_why_gone(const struct nvlx_peer *peer) {
    if (nvlxi_unlikely(atomic_load_explicit(&peer->gone, memory_order_acquire)))
        return peer->reason;
    if (nvlxi_unlikely(peer->life && nvlxi_life_is_over(peer->life)))
        return "the peer is gone: its engine, of this process, was destroyed";
    return NULL;
}

int nvlxi_peer_check(const struct nvlx_peer *peer) {
    const char *why = nvlxi_peer_why_gone(peer);
    return why ? nvlxi_fail(NVLX_ESTALE, "%s", why) : 0;
}

int nvlxi_peer_test(const struct nvlx_peer *peer) {
    const char *why = nvlxi_peer_why_gone(peer);
    return why ? nvlxi_fail_again(NVLX_ESTALE, why) : 0;
}
