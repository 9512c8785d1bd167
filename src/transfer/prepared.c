/* Lists that are checked once and posted many times.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A prepared list holds what it needs, as a request in flight does, from nvlxi_prepare to nvlxi_prepared_free: its
 * local bytes cannot be unregistered, and mappings that its peers withdraw are retired, which a post reports, but not
 * closed. Its plan never changes; any number of posts may read it. It is freed when none of them is in flight. */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/thread.h"
#include "transfer/transfer.h"

/* Appends chunks with room for `count` fragments: one, if there is one so long. */
static int take_room(struct nvlxi_list_memory *memory, uint64_t count, struct nvlxi_list *list) {
    uint64_t room = 0;
    while (room < count) {
        struct nvlxi_chunk *chunk;
        int code = nvlxi_list_memory_borrow_exact(memory, count - room, &chunk);
        if (code)
            return code;
        room += chunk->capacity;
        nvlxi_list_append(list, chunk);
    }
    return 0;
}

/* Copies the fragments of one list of chunks into another, which has room. */
static void copy_chunks(const struct nvlxi_chunk *from, struct nvlxi_chunk *to) {
    for (; from; from = from->next) {
        for (uint32_t done = 0; done < from->count;) {
            if (to->count == to->capacity)
                to = to->next;
            /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): there is room */
            const uint32_t count = (uint32_t)nvlxi_min(from->count - done, to->capacity - to->count);
            memcpy(to->fragment + to->count, from->fragment + done, count * sizeof *to->fragment);
            to->count += count;
            done += count;
        }
    }
}

/* Moves a list for the kernel into memory that it can read: into one chunk if possible, so that it takes one launch. */
static int join_chunks(struct nvlx_prepared *prepared, struct nvlxi_list *list) {
    struct nvlxi_list joined = {0};
    int code = take_room(&prepared->transfers->pool.lists, list->count, &joined);
    if (!code)
        copy_chunks(list->first, joined.first);
    struct nvlxi_chunk *chunk = code ? joined.first : list->first, *next;
    for (; chunk; chunk = next) {
        next = chunk->next;
        prepared->plan.give_chunk(prepared, chunk);
    }
    if (code)
        return code;
    list->first = joined.first;
    list->last = joined.last;
    return 0;
}

static int join_all(struct nvlx_prepared *prepared) {
    int code = 0;
    for (struct nvlxi_group *group = prepared->plan.groups; group && !code; group = group->following)
        if (group->lists[NVLXI_BY_KERNEL].count)
            code = join_chunks(prepared, &group->lists[NVLXI_BY_KERNEL]);
    return code == NVLXI_FULL ? nvlxi_list_memory_refuse(&prepared->transfers->pool.lists, &prepared->plan) : code;
}

/* The plan's give_chunk: those for kernels were taken by join_chunks. */
static void give_chunk(void *context, struct nvlxi_chunk *chunk) {
    struct nvlx_prepared *prepared = context;
    struct nvlxi_list_memory *memory = &prepared->transfers->pool.lists;
    if (chunk->kernel)
        nvlxi_list_memory_return_exact(memory, chunk);
    else
        nvlxi_list_memory_return(memory, chunk);
}

/* The plan's take_chunk: all in memory of the host, since what kernels shall read is joined later. */
static int take_chunk(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    struct nvlx_prepared *prepared = context;
    return nvlxi_list_memory_borrow_for_host(&prepared->transfers->pool.lists, kernel, count, chunk);
}

/* A prepared list does not keep what a peer withdraws: it only must not find it freed. */
static void keep(const struct nvlxi_needs *needs) {
    for (size_t i = 0; i < needs->mapping_count; i++)
        nvlxi_mapping_keep(needs->mappings[i]);
    for (size_t i = 0; i < needs->peer_count; i++)
        atomic_fetch_add(&needs->peers[i]->pins, 1);
}

static void drop(const struct nvlxi_needs *needs) {
    for (size_t i = 0; i < needs->mapping_count; i++)
        nvlxi_mapping_drop(needs->mappings[i]);
    for (size_t i = 0; i < needs->peer_count; i++)
        atomic_fetch_sub(&needs->peers[i]->pins, 1);
}

/* With the tables held for reading. */
static int note_known(struct nvlx_prepared *prepared) {
    const struct nvlxi_needs *needs = &prepared->needs;
    free(prepared->known);
    prepared->known = calloc(nvlxi_max(needs->peer_count, 1), sizeof *prepared->known);
    if (!prepared->known)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a prepared list of %zu peers", needs->peer_count);
    for (size_t i = 0; i < needs->peer_count; i++) {
        prepared->known[i].generation = needs->peers[i]->table->descriptor->identity.generation;
        atomic_init(&prepared->known[i].changes, atomic_load(&needs->peers[i]->changes));
    }
    return 0;
}

static int enter(void *holder) {
    struct nvlx_prepared *prepared = holder;
    struct nvlxi_transfers *t = prepared->transfers;
    int code = note_known(prepared);
    if (code)
        return code;
    pthread_mutex_lock(&t->mutex);
    DL_APPEND(t->prepared, prepared);
    keep(&prepared->needs);
    pthread_mutex_unlock(&t->mutex);
    return 0;
}

static void leave(struct nvlx_prepared *prepared) {
    struct nvlxi_transfers *t = prepared->transfers;
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->prepared, prepared);
    pthread_mutex_unlock(&t->mutex);
    drop(&prepared->needs);
}

static void destroy(struct nvlx_prepared *prepared) {
    nvlxi_plan_reset(&prepared->plan, NVLX_MECHANISM_AUTO);
    nvlxi_needs_free(&prepared->needs);
    free(prepared->known);
    free(prepared);
}

/* Checks and plans the list; on success the prepared list holds what it needs. */
static int admit(struct nvlx_prepared *prepared, const struct nvlx_op *ops, size_t count, uint32_t flags) {
    struct nvlxi_admission admission = {.ops = ops,
                                        .count = count,
                                        .flags = flags,
                                        .plan = &prepared->plan,
                                        .needs = &prepared->needs,
                                        .enter = enter,
                                        .holder = prepared};
    int code = nvlxi_transfers_take(prepared->transfers, NULL, &admission.validation);
    if (code)
        return code;
    code = nvlxi_transfer_admit(prepared->transfers, &admission);
    nvlxi_transfers_return_validation(prepared->transfers, admission.validation);
    return code;
}

int nvlxi_prepare(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared) {
    struct nvlx_prepared *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a prepared list");
    made->engine = transfers->engine;
    made->transfers = transfers;
    made->max_sms = options->max_sms ? options->max_sms : transfers->max_sms;
    made->priority = options->priority;
    made->needs.keeps_remote_uses = true;
    made->needs.generation = options->generation;
    nvlxi_plan_init(&made->plan, take_chunk, give_chunk, made);
    nvlxi_plan_reset(&made->plan, options->mechanism ? options->mechanism : transfers->mechanism);
    int code = admit(made, ops, count, options->flags);
    if (code)
        goto destroy_made;
    if ((code = join_all(made)))
        goto leave_list;
    nvlxi_needs_drop_ops(transfers, &made->needs);
    nvlxi_submit_describe(&transfers->pool, &made->plan, count, made->max_sms, &made->info);
    *prepared = made;
    return 0;
leave_list:
    leave(made);
destroy_made:
    destroy(made);
    return code;
}

void nvlxi_prepared_free(struct nvlx_prepared *prepared) {
    for (uint64_t since = nvlxi_now_ns(); atomic_load(&prepared->posts); nvlxi_pause(since))
        nvlxi_transfers_progress(prepared->transfers);
    leave(prepared);
    destroy(prepared);
}

bool nvlxi_prepared_names(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer) {
    const struct nvlx_prepared *prepared;
    bool named = false;
    pthread_mutex_lock(&transfers->mutex);
    DL_FOREACH(transfers->prepared, prepared) {
        for (size_t i = 0; i < prepared->needs.peer_count; i++)
            named = named || prepared->needs.peers[i] == peer;
    }
    pthread_mutex_unlock(&transfers->mutex);
    return named;
}
