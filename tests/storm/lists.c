/* The lists of ops of a process of a storm: in one call, or prepared and posted. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "support.h"
#include "worker.h"

static struct list *draw_list(struct worker *w, enum list_state state) {
    const unsigned first = (unsigned)draw(w, LISTS);
    for (unsigned i = 0; i < LISTS; i++) {
        struct list *list = &w->lists[(first + i) % LISTS];
        if (list->state == state)
            return list;
    }
    return NULL;
}

/* ---- Making -------------------------------------------------------------------------------------------- */

static bool writes_there(const struct list *list, const struct move *move) {
    for (size_t i = 0; i < list->count; i++)
        if (list->moves[i].write && list->moves[i].process == move->process && list->moves[i].name == move->name)
            return true;
    return false;
}

/* Returns whether there is anything in it. */
static bool choose_moves(struct worker *w, struct list *list, struct nvlx_op ops[MOVES]) {
    const size_t wanted = chance(w, 60) ? 1 : 2 + draw(w, MOVES - 1);
    list->count = 0;
    for (size_t i = 0; i < wanted; i++) {
        struct move *move = &list->moves[list->count];
        const bool write = chance(w, 30);
        if (!choose_move(w, move, write) || (write && writes_there(list, move)))
            continue;
        move->local = list->scratch + list->count * scratch_stride(w) + 64 * draw(w, 4) + move->address % WORD;
        ops[list->count++] = op_of(move);
    }
    return list->count > 0;
}

static void settle_all(struct worker *w, struct list *list, bool written) {
    for (size_t i = 0; i < list->count; i++)
        settle_inbox(w, &list->moves[i], written);
}

/* Claims what is written, and fills the local sides. Returns whether all can be done. */
static bool begin_moves(struct worker *w, struct list *list) {
    for (size_t i = 0; i < list->count; i++) {
        if (list->moves[i].write && !claim_inbox(w, &list->moves[i])) {
            settle_all(w, list, false);
            return false;
        }
    }
    for (size_t i = 0; i < list->count; i++)
        fill_local(w, &list->moves[i]);
    return true;
}

/* What was asked for, for who looks into a refusal. */
static void print_moves(struct worker *w, const struct list *list) {
    for (size_t i = 0; i < list->count; i++) {
        const struct move *move = &list->moves[i];
        const struct record *record = move->known[0] ? board_record(w->board, move->known[0]) : NULL;
        fprintf(stderr,
                "    op %zu: %s name %u of process %u.%" PRIu32 ", 0x%" PRIx64 " + %" PRIu64
                "%s; known: content %" PRIu32 " of 0x%" PRIx64 " + %" PRIu64 ", generation %" PRIu64 "\n",
                i, move->write ? "writes" : "reads", move->name, move->process, move->incarnation, move->address,
                move->length, move->spans ? " into the next one" : "", stamp_number(move->known[0]),
                record ? (uint64_t)atomic_load(&record->address) : 0,
                record ? (uint64_t)atomic_load(&record->length) : 0,
                record ? (uint64_t)atomic_load(&record->generation) : 0);
    }
}

/* A call was refused: nothing was done. */
static void check_refusal(struct worker *w, struct list *list, const char *call, int code) {
    bool right = false;
    for (size_t i = 0; i < list->count; i++)
        right = right || may_fail(w, &list->moves[i], code) ||
                (list->prepared && code == NVLX_ESTALE && may_be_outdated(w, &list->moves[i]));
    if (right) {
        board_count(w->place, COUNT_refusals, 1);
    } else {
        wrong_code(w, call, code);
        print_moves(w, list);
    }
    settle_all(w, list, false);
}

/* ---- Completing ---------------------------------------------------------------------------------------- */

/* Returns whether it is complete. */
static bool complete(struct worker *w, struct list *list, int64_t timeout) {
    int code = nvlx_wait(list->request, timeout);
    if (code == NVLX_ETIMEDOUT && timeout != FOR_EVER)
        return false;
    if (code)
        wrong_code(w, "nvlx_wait", code);
    for (size_t i = 0; i < list->count; i++)
        check_move(w, list, &list->moves[i]);
    if ((code = nvlx_request_free(list->request)))
        wrong_code(w, "nvlx_request_free", code);
    list->request = NULL;
    list->state = list->prepared ? LIST_PREPARED : LIST_EMPTY;
    return true;
}

static void in_flight(struct worker *w, struct list *list) {
    list->state = LIST_IN_FLIGHT;
    if (chance(w, 30))
        complete(w, list, FOR_EVER);
}

void act_complete(struct worker *w) {
    struct list *list = draw_list(w, LIST_IN_FLIGHT);
    const int64_t timeout = draw_timeout(w);
    if (list)
        complete(w, list, timeout);
}

/* ---- One call ------------------------------------------------------------------------------------------ */

/* Kernels do not copy within one process. */
static void draw_options(struct worker *w, const struct list *list, struct nvlx_transfer_options *options) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_DEFAULT, NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE,
                                          NVLX_MECHANISM_KERNEL};
    nvlx_transfer_options_init(options);
    options->mechanism = mechanisms[draw(w, COUNT(mechanisms))];
    for (size_t i = 0; i < list->count; i++)
        if (list->moves[i].process == w->number)
            options->mechanism = NVLX_MECHANISM_DEFAULT;
}

void act_transfer(struct worker *w) {
    struct list *list = draw_list(w, LIST_EMPTY);
    struct nvlx_transfer_options options;
    struct nvlx_op ops[MOVES];
    if (!list || !choose_moves(w, list, ops) || !begin_moves(w, list))
        return;
    draw_options(w, list, &options);
    options.flags = chance(w, 10) ? NVLX_NO_MAP : 0;
    list->submitted_at = now_ns();
    const int code = nvlx_transfer(w->engine, ops, list->count, &options, &list->request);
    if (code == 0)
        in_flight(w, list);
    else if (code == NVLX_EAGAIN && options.flags == NVLX_NO_MAP)
        settle_all(w, list, false);
    else
        check_refusal(w, list, "nvlx_transfer", code);
}

/* ---- Prepared lists ------------------------------------------------------------------------------------ */

/* Not of this process's own memory, which could then not be unregistered. */
static bool names_self(const struct worker *w, const struct list *list) {
    for (size_t i = 0; i < list->count; i++)
        if (list->moves[i].process == w->number)
            return true;
    return false;
}

void act_prepare(struct worker *w) {
    struct list *list = draw_list(w, LIST_EMPTY);
    struct nvlx_transfer_options options;
    struct nvlx_op ops[MOVES];
    if (!list || !choose_moves(w, list, ops) || names_self(w, list))
        return;
    draw_options(w, list, &options);
    const int code = nvlx_prepare(w->engine, ops, list->count, &options, &list->prepared);
    if (code) {
        list->prepared = NULL;
        check_refusal(w, list, "nvlx_prepare", code);
        return;
    }
    list->prepared_at = now_ns();
    list->state = LIST_PREPARED;
}

static void unprepare(struct worker *w, struct list *list) {
    const int code = nvlx_prepared_free(list->prepared);
    if (code)
        wrong_code(w, "nvlx_prepared_free", code);
    list->prepared = NULL;
    list->state = LIST_EMPTY;
}

/* One that is outdated is not kept for long. */
void act_post(struct worker *w) {
    struct list *list = draw_list(w, LIST_PREPARED);
    if (!list || !begin_moves(w, list))
        return;
    list->submitted_at = now_ns();
    const int code = nvlx_post(list->prepared, NULL, &list->request);
    if (code == 0) {
        board_count(w->place, COUNT_posts, 1);
        in_flight(w, list);
        return;
    }
    check_refusal(w, list, "nvlx_post", code);
    if (chance(w, 70))
        unprepare(w, list);
}

void act_unprepare(struct worker *w) {
    struct list *list = draw_list(w, LIST_PREPARED);
    if (list)
        unprepare(w, list);
}

/* ---- Begin and end ------------------------------------------------------------------------------------- */

static bool names_link(const struct list *list, const struct link *link) {
    for (size_t i = 0; i < list->count; i++)
        if (list->moves[i].link == link)
            return true;
    return false;
}

void release_link(struct worker *w, const struct link *link) {
    for (unsigned i = 0; i < LISTS; i++) {
        struct list *list = &w->lists[i];
        if (!list->prepared || !names_link(list, link))
            continue;
        if (list->state == LIST_IN_FLIGHT)
            complete(w, list, FOR_EVER);
        unprepare(w, list);
    }
}

void begin_lists(struct worker *w) {
    const size_t length = MOVES * scratch_stride(w);
    for (unsigned i = 0; i < LISTS; i++) {
        void *scratch;
        OK(nvlx_alloc(w->engine, w->board->gpus[draw(w, 2)], length, NULL, &scratch));
        w->lists[i] = (struct list){.state = LIST_EMPTY, .scratch = scratch};
        w->lists[i].region = register_range(w->engine, scratch, length, NULL, NVLX_ACCESS_NONE);
    }
}

void end_lists(struct worker *w) {
    for (unsigned i = 0; i < LISTS; i++) {
        struct list *list = &w->lists[i];
        int code;
        if (list->state == LIST_IN_FLIGHT)
            complete(w, list, FOR_EVER);
        if (list->state == LIST_PREPARED)
            unprepare(w, list);
        if ((code = nvlx_unregister(list->region, FOR_EVER)))
            wrong_code(w, "nvlx_unregister", code);
        if ((code = nvlx_free(w->engine, list->scratch)))
            wrong_code(w, "nvlx_free", code);
    }
}
