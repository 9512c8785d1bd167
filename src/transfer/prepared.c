/* Lists that are checked once and posted many times.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A prepared list holds what it needs, as a request in flight does, from nvlxi_prepare to nvlxi_prepared_free: its
 * local bytes cannot be unregistered, and mappings that its peers withdraw are retired, which a post reports, but not
 * closed. What it was planned as is a form, which never changes; any number of posts may read it. Where memory slept
 * meanwhile, or is mapped elsewhere, the next post makes a new form from the ops, in the place of the old one. A form
 * goes with its last user. That may be a graph, which outlives the list. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/thread.h"
#include "transfer/graphs.h"
#include "transfer/op.h"
#include "transfer/transfer.h"

/* Appends chunks with room for `count` fragments: one, if there is one so long. What takes `unit` of them lies in one.
 */
static int take_room(struct nvlxi_list_memory *memory, uint64_t count, uint32_t unit, struct nvlxi_list *list) {
    uint64_t room = 0;
    while (room < count) {
        struct nvlxi_chunk *chunk;
        int code = nvlxi_list_memory_borrow_exact(memory, count - room, &chunk);
        if (code)
            return code;
        chunk->capacity -= chunk->capacity % unit;
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
static int join_chunks(struct nvlxi_form *form, struct nvlxi_list *list, uint32_t unit) {
    struct nvlxi_list joined = {0};
    int code = take_room(&form->transfers->pool.lists, list->count, unit, &joined);
    if (!code)
        copy_chunks(list->first, joined.first);
    struct nvlxi_chunk *chunk = code ? joined.first : list->first, *next;
    for (; chunk; chunk = next) {
        next = chunk->next;
        form->plan.give_chunk(form, chunk);
    }
    if (code)
        return code;
    list->first = joined.first;
    list->last = joined.last;
    return 0;
}

static int join_all(struct nvlxi_form *form) {
    int code = 0;
    for (struct nvlxi_group *group = form->plan.groups; group && !code; group = group->following) {
        if (group->lists[NVLXI_BY_KERNEL].count)
            code = join_chunks(form, &group->lists[NVLXI_BY_KERNEL], 1);
        if (!code && group->lists[NVLXI_ROWS_BY_KERNEL].count)
            code = join_chunks(form, &group->lists[NVLXI_ROWS_BY_KERNEL], 2);
    }
    return code == NVLXI_FULL ? nvlxi_list_memory_refuse(&form->transfers->pool.lists, &form->plan) : code;
}

/* The plan's give_chunk: those for kernels were taken by join_chunks. */
static void give_chunk(void *context, struct nvlxi_chunk *chunk) {
    const struct nvlxi_form *form = context;
    struct nvlxi_list_memory *memory = &form->transfers->pool.lists;
    if (chunk->kernel)
        nvlxi_list_memory_return_exact(memory, chunk);
    else
        nvlxi_list_memory_return(memory, chunk);
}

/* The plan's take_chunk: all in memory of the host, since what kernels shall read is joined later. */
static int take_chunk(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    const struct nvlxi_form *form = context;
    return nvlxi_list_memory_borrow_for_host(&form->transfers->pool.lists, kernel, count, chunk);
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

/* The generation that a list was prepared for stays, whatever it became since. With the tables held for reading. */
static int note_known(struct nvlxi_form *form) {
    const struct nvlxi_needs *needs = &form->needs;
    free(form->known);
    form->known = calloc(nvlxi_max(needs->peer_count, 1), sizeof *form->known);
    if (!form->known)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a prepared list of %zu peers", needs->peer_count);
    for (size_t i = 0; i < needs->peer_count; i++) {
        form->known[i].generation = needs->peers[i]->table->descriptor->identity.generation;
        for (size_t j = 0; form->older && j < form->older->needs.peer_count; j++)
            if (form->older->needs.peers[j] == needs->peers[i])
                form->known[i].generation = form->older->known[j].generation;
        atomic_init(&form->known[i].changes, atomic_load(&needs->peers[i]->changes));
    }
    return 0;
}

/* Whether what the list names is as old as it was when it was prepared. With the tables held for reading. */
static int check_age(const struct nvlxi_form *form) {
    const struct nvlxi_needs *needs = &form->needs;
    int code = 0;
    for (size_t i = 0; i < needs->remote_use_count && !code; i++) {
        const struct nvlxi_remote_use *use = &needs->remote_uses[i];
        for (size_t j = 0; j < needs->peer_count && !code; j++)
            if (needs->peers[j] == use->peer)
                code = nvlxi_peer_still_has(use->peer, use->start, use->end, use->access, form->known[j].generation);
    }
    return code;
}

static int learn_places(struct nvlxi_form *form) {
    const struct nvlxi_block_ground ground = {&form->transfers->registration->ranges,
                                              &form->needs.peers[0]->table->ranges};
    return nvlxi_block_places_learn(form->prepared->tables, form->validated, &ground, &form->places);
}

static int enter(void *holder) {
    struct nvlxi_form *form = holder;
    struct nvlxi_transfers *t = form->transfers;
    int code = note_known(form);
    if (!code && form->older)
        code = check_age(form);
    if (!code && form->prepared->tables)
        code = learn_places(form);
    if (code)
        return code;
    pthread_mutex_lock(&t->mutex);
    DL_APPEND(t->forms, form);
    keep(&form->needs);
    pthread_mutex_unlock(&t->mutex);
    return 0;
}

static void leave(struct nvlxi_form *form) {
    struct nvlxi_transfers *t = form->transfers;
    pthread_mutex_lock(&t->mutex);
    DL_DELETE(t->forms, form); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    pthread_mutex_unlock(&t->mutex);
}

static void destroy(struct nvlxi_form *form) {
    nvlxi_plan_reset(&form->plan, NVLX_MECHANISM_AUTO);
    nvlxi_block_tables_free(form->needs.tables);
    nvlxi_needs_free(&form->needs);
    nvlxi_block_places_free(&form->transfers->pool.lists, &form->places);
    free(form->known);
    free(form);
}

void nvlxi_form_drop(struct nvlxi_form *form) {
    if (atomic_fetch_sub(&form->users, 1) > 1)
        return;
    drop(&form->needs);
    destroy(form);
}

/* Checks and plans the list; on success the form holds what it needs. */
static int admit(const struct nvlx_prepared *prepared, struct nvlxi_form *form) {
    struct nvlxi_admission admission = {.ops = prepared->ops,
                                        .count = prepared->count,
                                        .flags = prepared->flags,
                                        .unplanned = prepared->tables != NULL,
                                        .plan = &form->plan,
                                        .needs = &form->needs,
                                        .enter = enter,
                                        .holder = form};
    struct nvlxi_admission shaped;
    int code = nvlxi_transfers_take(prepared->transfers, NULL, &admission.validation);
    if (code)
        return code;
    form->validated = &admission.validation->validated;
    shaped = admission;
    if (prepared->shape.count) {
        shaped.ops = prepared->shape.ops;
        shaped.count = prepared->shape.count;
    }
    code = nvlxi_transfer_admit(prepared->transfers, &shaped);
    if (prepared->shape.count && nvlxi_shape_misfits(code)) {
        nvlxi_plan_reset(&form->plan, prepared->mechanism);
        code = nvlxi_transfer_admit(prepared->transfers, &admission);
    }
    form->validated = NULL;
    nvlxi_transfers_return_validation(prepared->transfers, admission.validation);
    return code;
}

/* A form that is in the list of all, and not the prepared list's yet. */
static int make_form(struct nvlx_prepared *prepared, const struct nvlxi_form *older, struct nvlxi_form **form) {
    struct nvlxi_form *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a prepared list");
    nvlxi_graphs_reap(prepared->transfers); /* list memory of graphs that are gone */
    made->transfers = prepared->transfers;
    made->prepared = prepared;
    made->older = older;
    made->needs.keeps_remote_uses = made->needs.prepared = true;
    made->needs.generation = prepared->generation;
    made->needs.tables = nvlxi_block_tables_share(prepared->tables);
    atomic_init(&made->users, 1);
    nvlxi_plan_init(&made->plan, take_chunk, give_chunk, made);
    nvlxi_plan_reset(&made->plan, prepared->mechanism);
    int code = admit(prepared, made);
    if (code) {
        destroy(made);
        return code;
    }
    code = prepared->tables ? nvlxi_block_places_settle(prepared->tables, &made->transfers->pool.lists, &made->places)
                            : join_all(made);
    if (code) {
        leave(made);
        nvlxi_form_drop(made);
        return code;
    }
    made->older = NULL;
    nvlxi_needs_drop_ops(prepared->transfers, &made->needs);
    nvlxi_submit_describe(&prepared->transfers->pool, &made->plan, prepared->count, prepared->max_sms, &made->info);
    *form = made;
    return 0;
}

/* The ops and their rows, copied into one block: the caller's may go. */
static struct nvlx_op *copy_ops(const struct nvlx_op *ops, size_t count) {
    size_t rectangles = 0;
    for (size_t i = 0; i < count; i++)
        rectangles += nvlxi_op_names_rows(&ops[i]);
    struct nvlx_op *copy = malloc(nvlxi_max(count, 1) * sizeof *ops + rectangles * sizeof(struct nvlx_rows));
    struct nvlx_rows *rows = copy ? (void *)(copy + count) : NULL;
    if (!copy)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        copy[i] = ops[i];
        if (nvlxi_op_names_rows(&ops[i])) {
            *rows = *nvlxi_op_rows(&ops[i]);
            copy[i].arg = (uint64_t)(uintptr_t)rows++;
        }
    }
    return copy;
}

static void free_list(struct nvlx_prepared *prepared) {
    nvlxi_shape_free(&prepared->shape);
    free(prepared->ops);
    free(prepared);
}

int nvlxi_prepare(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared) {
    struct nvlx_op *own = count > SIZE_MAX / 2 / sizeof *ops ? NULL : copy_ops(ops, count);
    if (!own)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a prepared list of %zu ops", count);
    int code = nvlxi_prepare_tables(transfers, NULL, own, count, options, prepared);
    if (code)
        free(own);
    return code;
}

int nvlxi_prepare_tables(struct nvlxi_transfers *transfers, struct nvlxi_block_tables *tables, struct nvlx_op *ops,
                         size_t count, const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared) {
    struct nvlx_prepared *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a prepared list of %zu ops", count);
    made->ops = ops;
    made->tables = tables;
    made->engine = transfers->engine;
    made->transfers = transfers;
    made->count = count;
    made->flags = options->flags;
    made->mechanism = options->mechanism ? options->mechanism : transfers->mechanism;
    made->max_sms = options->max_sms ? options->max_sms : transfers->max_sms;
    made->priority = options->priority;
    made->generation = options->generation;
    if (tables || !nvlxi_shape_find(&made->shape, made->ops, count, made->mechanism, true))
        nvlxi_shape_free(&made->shape);
    int code = make_form(made, NULL, &made->form);
    if (code) {
        nvlxi_shape_free(&made->shape);
        free(made);
        return code;
    }
    made->peer_count = made->form->needs.peer_count;
    made->peer = made->peer_count ? made->form->needs.peers[0] : NULL;
    *prepared = made;
    return 0;
}

/* ---- Posts ---------------------------------------------------------------------------------------------- */

/* The peer's table was replaced since the list was found good: what the list names must be in the new one, and no
 * younger than the list. */
static int check_again(const struct nvlxi_form *form, size_t index) {
    const struct nvlxi_needs *needs = &form->needs;
    const struct nvlxi_context *context = form->transfers->context;
    struct nvlx_peer *peer = needs->peers[index];
    const uint64_t changes = atomic_load(&peer->changes);
    int code = 0;
    nvlxi_tables_read(context->tables);
    for (size_t i = 0; i < needs->remote_use_count && !code; i++) {
        const struct nvlxi_remote_use *use = &needs->remote_uses[i];
        if (use->peer == peer)
            code = nvlxi_peer_still_has(peer, use->start, use->end, use->access, form->known[index].generation);
    }
    nvlxi_tables_read_end(context->tables);
    if (!code)
        atomic_store(&form->known[index].changes, changes);
    return code;
}

int nvlxi_form_check(const struct nvlxi_form *form) {
    const struct nvlxi_needs *needs = &form->needs;
    int code = 0;
    for (size_t i = 0; i < needs->peer_count && !code; i++) {
        code = nvlxi_peer_check(needs->peers[i]);
        if (!code && atomic_load(&needs->peers[i]->changes) != atomic_load(&form->known[i].changes))
            code = check_again(form, i);
    }
    if (!code && atomic_load(&form->upset))
        return NVLXI_OUTDATED;
    for (size_t i = 0; i < needs->mapping_count && !code; i++) {
        if (atomic_load(&needs->mappings[i]->retired))
            code = NVLXI_OUTDATED;
        else if (needs->mappings[i]->own)
            code = nvlxi_mapping_check(form->transfers->context, needs->mappings[i]);
    }
    return code;
}

/* What is not registered any more, here or there, is as good as withdrawn: the list was good. */
static int judge(int code) {
    char words[256];
    if (code != NVLX_ERANGE && code != NVLX_EACCES)
        return code;
    snprintf(words, sizeof words, "%s", nvlx_last_error());
    return nvlxi_fail(NVLX_ESTALE, "memory of the prepared list was withdrawn, or resumed at another address: %s",
                      words);
}

/* Gives the plan of an outdated form back, if nobody has it in flight: nobody will post it any more, nor look at it. */
static bool hollow_out(const struct nvlx_prepared *prepared, struct nvlxi_form *outdated) {
    struct nvlxi_transfers *t = prepared->transfers;
    pthread_mutex_lock(&t->mutex);
    const bool idle = prepared->form == outdated && atomic_load(&outdated->users) == 2;
    if (idle)
        atomic_store(&outdated->upset, true);
    pthread_mutex_unlock(&t->mutex);
    if (idle)
        nvlxi_plan_reset(&outdated->plan, prepared->mechanism);
    return idle;
}

int nvlxi_prepared_renew(struct nvlx_prepared *prepared, struct nvlxi_form *older) {
    struct nvlxi_transfers *t = prepared->transfers;
    struct nvlxi_form *form, *before;
    int code = make_form(prepared, older, &form);
    if (code == NVLX_EBUSY && hollow_out(prepared, older))
        code = make_form(prepared, older, &form);
    if (code)
        return judge(code);
    pthread_mutex_lock(&t->mutex);
    before = prepared->form;
    prepared->form = form;
    pthread_mutex_unlock(&t->mutex);
    leave(before);
    nvlxi_form_drop(before);
    return 0;
}

void nvlxi_prepared_free(struct nvlx_prepared *prepared) {
    for (uint64_t since = nvlxi_now_ns(); atomic_load(&prepared->posts); nvlxi_pause(since))
        nvlxi_transfers_progress(prepared->transfers);
    leave(prepared->form);
    nvlxi_form_drop(prepared->form);
    nvlxi_block_tables_free(prepared->tables);
    free_list(prepared);
}

bool nvlxi_prepared_names(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer) {
    const struct nvlxi_form *form;
    bool named = false;
    pthread_mutex_lock(&transfers->mutex);
    DL_FOREACH(transfers->forms, form) {
        for (size_t i = 0; i < form->needs.peer_count; i++)
            named = named || form->needs.peers[i] == peer;
    }
    pthread_mutex_unlock(&transfers->mutex);
    return named;
}
