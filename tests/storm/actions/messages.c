/* Messages between processes of a storm. SPDX-License-Identifier: Apache-2.0
 *
 * A letter tells its sender, its link and its number on that link: so the receiver sees whether one is lost, comes
 * twice or in another order. One that a transfer has carried tells what was written: so the receiver sees whether the
 * bytes are there. Who knows that its messages are taken says so on the board, by a receipt: the receiver's
 * incarnation, the link, and the number of the last one. From then on the receiver must find them all in its queue. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "storm/worker.h"

#define ALLOWED   (4 * MIB) /* bytes under way to one peer: see Limits of the header */
#define EACH      64        /* more that each message counts with */
#define PART_BITS 24

struct letter { /* WORDs follow, of the stamp of `sender` and `number` */
    uint64_t length;
    uint32_t sender, incarnation, to, to_incarnation;
    uint32_t link, number;
    int32_t pid;
    uint32_t carried; /* by a transfer that writes */
    struct written written;
};

static uint64_t make_receipt(uint32_t incarnation, uint32_t link, uint32_t number) {
    return (uint64_t)(incarnation & 0xffff) << 2 * PART_BITS | (uint64_t)link << PART_BITS | number;
}

static uint32_t part_of(uint64_t receipt, unsigned part) {
    return (uint32_t)(receipt >> part * PART_BITS & ((1u << PART_BITS) - 1));
}

uint64_t receipt_of(const struct link *link) {
    return make_receipt(link->incarnation, link->id, link->sent);
}

/* Those of a link come in order, and a later link's are not before those of an earlier one: the highest counts. */
void note_taken(struct worker *w, unsigned process, uint64_t receipt) {
    if (part_of(receipt, 0) && receipt > atomic_load(&w->place->taken[process])) {
        atomic_store(&w->place->taken[process], receipt);
        board_count(w->place, COUNT_receipts, 1);
    }
}

/* ---- Sending ------------------------------------------------------------------------------------------- */

bool is_full(const struct link *link) {
    return link->sent_bytes + LETTER_MOST + EACH > ALLOWED;
}

void note_sent(struct link *link, size_t length, bool alone) {
    link->sent++;
    link->sent_alone += alone;
    link->sent_bytes += length + EACH;
}

static uint64_t letter_stamp(const struct letter *letter) {
    return make_stamp(letter->sender, letter->incarnation, letter->number);
}

/* Short ones are most. Returns its length. */
static size_t write_to(struct worker *w, const struct link *link, const struct move *move) {
    const uint64_t kind = draw(w, 100);
    const size_t words = kind < 60 ? 0 : kind < 97 ? draw(w, 256) : (LETTER_MOST - sizeof(struct letter)) / WORD;
    struct letter letter = {.length = sizeof letter + words * WORD,
                            .sender = w->number,
                            .incarnation = w->incarnation,
                            .to = link->process,
                            .to_incarnation = link->incarnation,
                            .link = link->id,
                            .number = link->sent + 1,
                            .pid = getpid()};
    if (move) {
        letter.carried = 1;
        letter.written = (struct written){.inbox = move->name - REGIONS,
                                          .content = move->known[0],
                                          .stamp = move->stamp,
                                          .offset = move->offset,
                                          .length = move->length,
                                          .row = move->rows.count ? move->row : move->length,
                                          .pitch = move->rows.count ? move->rows.remote_pitch : move->length};
    }
    memcpy(w->letter, &letter, sizeof letter);
    fill_words(w->letter + sizeof letter, words * WORD, letter_stamp(&letter), 0);
    return letter.length;
}

size_t write_letter(struct worker *w, struct list *list) {
    const struct move *write = NULL;
    for (size_t i = 0; i < list->count; i++) {
        if (list->moves[i].link != list->moves[0].link)
            return 0;
        if (list->moves[i].write)
            write = &list->moves[i];
    }
    const size_t length = write_to(w, list->moves[0].link, write);
    list->receipt = make_receipt(list->moves[0].incarnation, list->moves[0].link->id, list->moves[0].link->sent + 1);
    return length;
}

void act_send(struct worker *w) {
    struct link *link = draw_link(w);
    if (!link)
        return;
    for (uint64_t i = 1 + draw(w, 4); i; i--) {
        const size_t length = write_to(w, link, NULL);
        const int code = nvlx_send(link->peer, w->letter, length);
        if (code == 0) {
            note_sent(link, length, true);
            continue;
        }
        if (!(code == NVLX_ESTALE && board_doomed(w->board, link->process, link->incarnation)) &&
            !(code == NVLX_EBUSY && is_full(link)))
            wrong_code(w, "nvlx_send", code);
        return;
    }
}

/* ---- Receiving ----------------------------------------------------------------------------------------- */

static struct inbound *inbound_of(struct worker *w, unsigned sender, uint32_t link) {
    for (unsigned i = 0; i < INBOUND; i++)
        if (w->inbound[sender][i].link == link)
            return &w->inbound[sender][i];
    return NULL;
}

/* In place of the oldest one. */
static struct inbound *enter_inbound(struct worker *w, unsigned sender, uint32_t link) {
    struct inbound *oldest = &w->inbound[sender][0];
    for (unsigned i = 1; i < INBOUND; i++)
        if (w->inbound[sender][i].link < oldest->link)
            oldest = &w->inbound[sender][i];
    *oldest = (struct inbound){.link = link};
    return oldest;
}

static void wrong_letter(struct worker *w, const struct letter *letter, const char *why) {
    board_wrong(w->board,
                "process %u.%" PRIu32 ", step %" PRIu64 ": message %" PRIu32 " of link %" PRIu32
                " of process %u.%" PRIu32 " to process %u.%" PRIu32 ", %" PRIu64 " bytes: %s",
                w->number, w->incarnation, w->step, letter->number, letter->link, letter->sender, letter->incarnation,
                letter->to, letter->to_incarnation, letter->length, why);
}

static bool is_whole(const struct worker *w, const struct nvlx_event *event, struct letter *letter) {
    if (event->message_length < sizeof *letter)
        return false;
    memcpy(letter, event->message, sizeof *letter);
    const size_t words = (event->message_length - sizeof *letter) / WORD;
    return letter->length == event->message_length && letter->sender < w->board->processes &&
           find_other((const uint8_t *)event->message + sizeof *letter, words, letter_stamp(letter), 0) == words;
}

static bool comes_from(const struct worker *w, const struct nvlx_event *event, const struct letter *letter) {
    const struct link *link = &w->links[letter->sender];
    return event->pid == letter->pid &&
           (!event->peer || (event->peer == link->peer && link->incarnation == letter->incarnation));
}

static void receive(struct worker *w, const struct nvlx_event *event) {
    struct letter letter = {0};
    if (!is_whole(w, event, &letter)) {
        wrong_letter(w, &letter, "these are other bytes than were sent");
        return;
    }
    struct inbound *inbound = inbound_of(w, letter.sender, letter.link);
    if (!inbound)
        inbound = enter_inbound(w, letter.sender, letter.link);
    if (letter.to != w->number || letter.to_incarnation != w->incarnation)
        wrong_letter(w, &letter, "it is not for this one");
    if (!comes_from(w, event, &letter))
        wrong_letter(w, &letter, "the event names another sender");
    if (letter.number != inbound->last + 1)
        wrong_letter(w, &letter,
                     letter.number > inbound->last ? "one before it is missing" : "it comes again, or late");
    if (letter.carried)
        check_arrived(w, letter.sender, letter.incarnation, &letter.written);
    inbound->last = letter.number;
    board_count(w->place, COUNT_messages, 1);
}

static void lose(struct worker *w, const struct nvlx_event *event) {
    for (unsigned i = 0; i < w->board->processes; i++) {
        const struct link *link = &w->links[i];
        if (link->peer && link->peer == event->peer) {
            if (!board_doomed(w->board, i, link->incarnation) || event->unconfirmed > link->sent_alone)
                board_wrong(w->board,
                            "process %u.%" PRIu32 ": process %u.%" PRIu32 " is lost, with %" PRIu64 " of %" PRIu64
                            " messages: %s",
                            w->number, w->incarnation, i, link->incarnation, event->unconfirmed, link->sent_alone,
                            event->reason);
            return;
        }
    }
    board_wrong(w->board, "process %u.%" PRIu32 ": an event says that a peer is lost which it has not", w->number,
                w->incarnation);
}

/* Whether what its sender knows to be taken has come. Once: later links take the place of this one. */
static void check_receipt(struct worker *w, unsigned sender, uint64_t receipt) {
    const struct inbound *inbound = inbound_of(w, sender, part_of(receipt, 1));
    if (receipt >> 2 * PART_BITS != (w->incarnation & 0xffff) || receipt == w->checked[sender])
        return;
    w->checked[sender] = receipt;
    if (inbound && inbound->last >= part_of(receipt, 0))
        return;
    board_wrong(w->board,
                "process %u.%" PRIu32 ", step %" PRIu64 ": process %u knows that message %" PRIu32
                " of its link %" PRIu32 " was taken, but the last one that came is %" PRId64,
                w->number, w->incarnation, w->step, sender, part_of(receipt, 0), part_of(receipt, 1),
                inbound ? (int64_t)inbound->last : -1);
}

void drain_events(struct worker *w) {
    struct nvlx_event event = {.size = sizeof event};
    uint64_t receipts[PROCESSES_MAX] = {0};
    int code;
    for (unsigned i = 0; i < w->board->processes; i++)
        receipts[i] = atomic_load(&w->board->places[i].taken[w->number]);
    while ((code = nvlx_next_event(w->engine, &event)) == 0) {
        if (event.kind == NVLX_EVENT_MESSAGE)
            receive(w, &event);
        else if (event.kind == NVLX_EVENT_PEER_LOST)
            lose(w, &event);
        else if (event.kind == NVLX_EVENT_REQUEST_DONE)
            note_done(w, &event);
        else if (event.kind != NVLX_EVENT_PEER_CHANGED)
            wrong_code(w, "nvlx_next_event: its kind", (int)event.kind);
    }
    if (code != NVLX_EAGAIN)
        wrong_code(w, "nvlx_next_event", code);
    for (unsigned i = 0; i < w->board->processes; i++)
        check_receipt(w, i, receipts[i]);
}

void act_events(struct worker *w) {
    drain_events(w);
}
