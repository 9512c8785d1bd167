/* The lists of ops of a process of a storm: in one call, or prepared and posted. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#include "storm/worker.h"
#include "support.h"

struct list *draw_list(struct worker *w, enum list_state state) {
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
        char history[HISTORY_MAX];
        fprintf(stderr,
                "    op %zu: %s name %u of process %u.%" PRIu32 ", 0x%" PRIx64 " + %" PRIu64 "%s; generations %" PRIu64
                ", %" PRIu64 ", %" PRIu64 "; known: %s\n",
                i, move->write ? "writes" : "reads", move->name, move->process, move->incarnation, move->address,
                move->length, move->spans ? " into the next one" : "", list->options.generation, move->asked,
                move->seen,
                move->known[0] ? describe_history(w->board, move->known[0], list->submitted_at, history) : "nothing");
    }
}

/* Its message was one too many. */
static bool is_too_much(const struct list *list, int code) {
    return code == NVLX_EBUSY && list->receipt && is_full(list->moves[0].link);
}

void check_refusal(struct worker *w, struct list *list, const char *call, int code) {
    bool right = is_too_much(list, code);
    for (size_t i = 0; i < list->count; i++)
        right = right || may_fail(w, &list->moves[i], list->options.generation, code);
    if (right) {
        board_count(w->place, COUNT_refusals, 1);
    } else {
        wrong_code(w, call, code);
        print_moves(w, list);
    }
    settle_all(w, list, false);
    list->receipt = 0;
}

/* ---- Completing ---------------------------------------------------------------------------------------- */

/* A message whose connection has ended is the only thing that may fail: the bytes are in place all the same. */
static void check_status(struct worker *w, const struct list *list, int code) {
    const struct move *move = &list->moves[0];
    if (list->event && list->done && list->status != code)
        wrong_code(w, "nvlx_wait, after another status of the event,", code);
    if (list->options.flags & NVLX_VERIFY)
        check_verified(w, list, code);
    else if (code &&
             !(code == NVLX_ESTALE && list->receipt && board_doomed(w->board, move->process, move->incarnation)))
        wrong_code(w, "nvlx_wait", code);
    if (!code && list->receipt)
        note_taken(w, move->process, list->receipt);
}

/* Whoever waits for others reads its events, for which others may wait. */
static int wait_for(struct worker *w, struct list *list, int64_t timeout) {
    int code;
    while ((code = nvlx_wait(list->request, timeout == FOR_EVER ? 20000000 : timeout)) == NVLX_ETIMEDOUT &&
           timeout == FOR_EVER)
        drain_events(w);
    return code;
}

/* ---- Events of completion ------------------------------------------------------------------------------ */

void draw_event(struct worker *w, struct list *list, struct nvlx_transfer_options *options) {
    list->event = chance(w, 25) ? ++w->events : 0;
    list->done = false;
    if (!list->event)
        return;
    options->flags |= NVLX_DONE_EVENT;
    options->user = (void *)(uintptr_t)list->event;
}

static struct list *list_of_event(struct worker *w, uint64_t event) {
    for (unsigned i = 0; i < LISTS; i++)
        if (w->lists[i].state == LIST_IN_FLIGHT && w->lists[i].event == event)
            return &w->lists[i];
    return NULL;
}

/* Of a request that is in flight, or was; once, and not too early. */
void note_done(struct worker *w, const struct nvlx_event *event) {
    struct list *list = list_of_event(w, (uintptr_t)event->user);
    if (!list || list->done || list->request != event->request) {
        board_wrong(w->board, "process %u.%" PRIu32 ", step %" PRIu64 ": an event says that request %" PRIu64 " is %s",
                    w->number, w->incarnation, w->step, (uint64_t)(uintptr_t)event->user,
                    list && list->done ? "done, for the second time" : "done, which is not in flight");
        return;
    }
    list->done = true;
    list->status = event->status;
    const int code = nvlx_test(list->request);
    if (code != event->status)
        wrong_code(w, "nvlx_test, when an event has another status,", code);
    board_count(w->place, COUNT_done_events, 1);
}

/* The event comes though nobody asks for the request. */
static void await_event(struct worker *w, const struct list *list) {
    struct pollfd events = {.events = POLLIN};
    const uint64_t since = now_ns();
    const int code = nvlx_event_fd(w->engine, &events.fd);
    if (code)
        wrong_code(w, "nvlx_event_fd", code);
    while (!list->done && now_ns() - since < (uint64_t)HANG_NS / 2) {
        poll(&events, 1, 1000);
        drain_events(w);
    }
    if (!list->done)
        board_wrong(w->board,
                    "process %u.%" PRIu32 ", step %" PRIu64 ": no event says that a request is done; it is %d",
                    w->number, w->incarnation, w->step, nvlx_test(list->request));
}

/* Returns whether it is complete. */
static bool complete(struct worker *w, struct list *list, int64_t timeout) {
    if (list->event && timeout == FOR_EVER)
        await_event(w, list);
    int code = wait_for(w, list, timeout);
    if (code == NVLX_ETIMEDOUT)
        return false;
    check_status(w, list, code);
    for (size_t i = 0; i < list->count; i++)
        check_move(w, list, &list->moves[i]);
    if (nvlx_request_free(list->request) != code)
        wrong_code(w, "nvlx_request_free, after another code of nvlx_wait,", code);
    list->request = NULL;
    list->receipt = 0;
    list->event = 0;
    list->state = list->prepared ? LIST_PREPARED : LIST_EMPTY;
    return true;
}

void in_flight(struct worker *w, struct list *list) {
    list->state = LIST_IN_FLIGHT;
    if (chance(w, 30))
        complete(w, list, FOR_EVER);
}

static bool names_self(const struct worker *w, const struct list *list) {
    for (size_t i = 0; i < list->count; i++)
        if (list->moves[i].process == w->number)
            return true;
    return false;
}

void complete_own(struct worker *w) {
    for (unsigned i = 0; i < LISTS; i++)
        if (w->lists[i].state == LIST_IN_FLIGHT && names_self(w, &w->lists[i]))
            complete(w, &w->lists[i], FOR_EVER);
}

void act_complete(struct worker *w) {
    struct list *list = draw_list(w, LIST_IN_FLIGHT);
    const int64_t timeout = draw_timeout(w);
    if (list)
        complete(w, list, timeout);
}

/* ---- One call ------------------------------------------------------------------------------------------ */

void begin_call(struct list *list) {
    for (size_t i = 0; i < list->count; i++)
        if (nvlx_peer_generation(list->moves[i].link->peer, &list->moves[i].seen))
            list->moves[i].seen = 0;
    list->receipt = 0;
    list->submitted_at = now_ns();
}

/* Of what it looked up, if that was of one peer. */
static uint64_t oldest_generation(const struct list *list) {
    uint64_t oldest = UINT64_MAX;
    for (size_t i = 0; i < list->count; i++) {
        if (list->moves[i].link != list->moves[0].link)
            return 0;
        if (list->moves[i].asked < oldest)
            oldest = list->moves[i].asked;
    }
    return oldest;
}

/* Kernels do not copy within one process. */
static void draw_options(struct worker *w, struct list *list) {
    static const uint32_t mechanisms[] = {NVLX_MECHANISM_DEFAULT, NVLX_MECHANISM_AUTO, NVLX_MECHANISM_COPY_ENGINE,
                                          NVLX_MECHANISM_KERNEL};
    struct nvlx_transfer_options *options = &list->options;
    nvlx_transfer_options_init(options);
    options->mechanism = mechanisms[draw(w, COUNT(mechanisms))];
    if (names_self(w, list))
        options->mechanism = NVLX_MECHANISM_DEFAULT;
    if (chance(w, 50))
        options->generation = oldest_generation(list);
}

static void draw_message(struct worker *w, struct list *list, struct nvlx_transfer_options *options) {
    options->message_length = chance(w, 25) ? write_letter(w, list) : 0;
    options->message = options->message_length ? w->letter : NULL;
}

static void note_started(struct worker *w, struct list *list, const struct nvlx_transfer_options *options) {
    if (options->message)
        note_sent(list->moves[0].link, options->message_length, false);
    board_count(w->place, COUNT_generations, list->options.generation != 0);
    in_flight(w, list);
}

void act_transfer(struct worker *w) {
    struct list *list = draw_list(w, LIST_EMPTY);
    struct nvlx_op ops[MOVES];
    if (!list || !choose_moves(w, list, ops) || !begin_moves(w, list))
        return;
    draw_options(w, list);
    begin_call(list);
    list->options.flags = chance(w, 10) ? NVLX_NO_MAP : 0;
    draw_message(w, list, &list->options);
    draw_event(w, list, &list->options);
    const int code = nvlx_transfer(w->engine, ops, list->count, &list->options, &list->request);
    if (code == 0)
        note_started(w, list, &list->options);
    else if (code == NVLX_EAGAIN && list->options.flags & NVLX_NO_MAP)
        settle_all(w, list, false);
    else
        check_refusal(w, list, "nvlx_transfer", code);
}

/* ---- Prepared lists ------------------------------------------------------------------------------------ */

/* Not of this process's own memory, which could then not be unregistered. */
void act_prepare(struct worker *w) {
    struct list *list = draw_list(w, LIST_EMPTY);
    struct nvlx_op ops[MOVES];
    if (!list || !choose_moves(w, list, ops) || names_self(w, list))
        return;
    draw_options(w, list);
    const int code = nvlx_prepare(w->engine, ops, list->count, &list->options, &list->prepared);
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

static void note_post(struct worker *w, struct list *list) {
    board_count(w->place, COUNT_posts, 1);
    for (size_t i = 0; i < list->count; i++) {
        const uint64_t known = list->moves[i].known[0];
        const struct record *record = known ? board_record(w->board, known) : NULL;
        if (record && atomic_load(&record->next)) {
            board_count(w->place, COUNT_awakened, 1);
            return;
        }
    }
}

/* One that is outdated is not kept for long, one that sleeps is. */
void act_post(struct worker *w) {
    struct list *list = draw_list(w, LIST_PREPARED);
    struct nvlx_transfer_options options;
    if (!list || !begin_moves(w, list))
        return;
    nvlx_transfer_options_init(&options);
    begin_call(list);
    draw_message(w, list, &options);
    draw_event(w, list, &options);
    const int code = nvlx_post(list->prepared, &options, &list->request);
    if (code == 0) {
        note_post(w, list);
        note_started(w, list, &options);
        return;
    }
    check_refusal(w, list, "nvlx_post", code);
    if (chance(w, code == NVLX_ESUSPENDED ? 10 : 70))
        unprepare(w, list);
}

/* The memory of a list of its own sleeps for a moment: it cannot be posted meanwhile, and can be afterwards. */
void act_nap(struct worker *w) {
    struct list *list = draw_list(w, LIST_PREPARED);
    bool right = false;
    int code;
    if (!list)
        return;
    if ((code = nvlx_suspend(&list->region, 1, FOR_EVER)))
        wrong_code(w, "nvlx_suspend", code);
    if ((code = nvlx_post(list->prepared, NULL, &list->request)) == 0) {
        nvlx_wait(list->request, FOR_EVER);
        nvlx_request_free(list->request);
    }
    for (size_t i = 0; i < list->count; i++)
        right = right || code == NVLX_ESUSPENDED || may_fail(w, &list->moves[i], list->options.generation, code);
    if (!right)
        wrong_code(w, "nvlx_post, while the list's own memory sleeps,", code);
    if ((code = nvlx_resume(&list->region, 1, NULL)))
        wrong_code(w, "nvlx_resume", code);
    list->request = NULL;
    board_count(w->place, COUNT_naps, 1);
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
