/* One op of a process of a storm: chosen, and judged by its bytes. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "storm/worker.h"

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* ---- Choosing ------------------------------------------------------------------------------------------ */

/* Bytes [from, to) of the peer, at most as many as an op may have. Every fourth one does not begin and end with a word.
 */
static void set_range(struct worker *w, struct move *move, uint64_t from, uint64_t to) {
    const uint64_t words = (to - from) / WORD;
    const uint64_t length = 1 + draw(w, least(words, w->sizes.op / WORD)), first = draw(w, words - length + 1);
    move->address = from + first * WORD;
    move->length = length * WORD;
    if (!move->write && length > 2 && chance(w, 25)) {
        const uint64_t lead = draw(w, WORD);
        move->address += lead;
        move->length -= lead + draw(w, WORD);
    }
}

/* Some of the bytes, in rows; here closer together, or as they are there. */
static void draw_rows(struct worker *w, struct move *move) {
    const uint64_t words = move->length / WORD, row = 1 + draw(w, least(words / 2, 64)), pitch = row + draw(w, 9);
    if (move->address % WORD || move->length % WORD || words < 3 || !chance(w, 20))
        return;
    const uint64_t count = (words - row) / pitch + 1;
    move->row = row * WORD;
    move->rows = (struct nvlx_rows){count, (row + draw(w, pitch - row + 1)) * WORD, pitch * WORD};
    move->length = ((count - 1) * pitch + row) * WORD;
    board_count(w->place, COUNT_rows, 1);
}

size_t local_length(const struct move *move) {
    return move->rows.count ? (move->rows.count - 1) * move->rows.local_pitch + move->row : move->length;
}

/* Around the border with the next region of the group, if it begins where this one ends. */
static bool span_next(struct worker *w, struct move *move, uint64_t end) {
    uint64_t address, length;
    if ((move->name + 1) % REGIONS_PER_GROUP == 0 ||
        find_name(w, move->link, move->name + 1, &address, &length, &move->known[1]) || address != end)
        return false;
    const uint64_t half = least(move->length, w->sizes.op / 2);
    set_range(w, move, end - half, end + least(length, w->sizes.op / 2));
    move->spans = move->address < end && move->address + move->length > end;
    if (move->address >= end) {
        move->name++;
        move->known[0] = move->known[1];
    }
    board_count(w->place, COUNT_borders, move->spans);
    return true;
}

/* Notes what is going to be written, for the owner. */
static void note_write(struct worker *w, struct move *move) {
    struct note *note = &w->board->places[move->process].inboxes[move->name - REGIONS].notes[w->number];
    atomic_store(&note->stamp, move->stamp);
    atomic_store(&note->offset, move->offset);
    atomic_store(&note->length, move->length);
    atomic_store(&note->row, move->rows.count ? move->row : move->length);
    atomic_store(&note->pitch, move->rows.count ? move->rows.remote_pitch : move->length);
}

/* Where another region may lie by now. */
static bool take_kept(struct worker *w, struct move *move, const struct link *link) {
    const struct move *kept = &w->kept[link->process];
    if (!kept->length || kept->incarnation != link->incarnation || !chance(w, 15))
        return false;
    *move = *kept;
    return true;
}

bool choose_move(struct worker *w, struct move *move, bool write) {
    struct link *link = draw_link(w);
    uint64_t address, length;
    if (!link)
        return false;
    if (!write && take_kept(w, move, link))
        return true;
    *move = (struct move){.write = write, .link = link, .process = link->process, .incarnation = link->incarnation};
    if (nvlx_peer_generation(link->peer, &move->asked))
        return false;
    move->name = (unsigned)(write ? REGIONS + draw(w, INBOXES) : draw(w, REGIONS));
    if (find_name(w, link, move->name, &address, &length, &move->known[0]) || (write && !move->known[0]))
        return false;
    move->length = length;
    if (write || !chance(w, 30) || !span_next(w, move, address + length))
        set_range(w, move, address, address + length);
    draw_rows(w, move);
    move->offset = move->address - address;
    if (!write && chance(w, 10))
        w->kept[link->process] = *move;
    return true;
}

/* Only what is registered as it was when its address was looked up. */
bool claim_inbox(struct worker *w, struct move *move) {
    struct inbox *inbox = &w->board->places[move->process].inboxes[move->name - REGIONS];
    uint_fast64_t state = atomic_load(&inbox->state);
    const uint64_t claim = inbox_state((uint32_t)(state >> 32), w->incarnation, w->number, INBOX_CLAIMED);
    if (inbox_phase(state) != INBOX_OPEN ||
        atomic_load(&w->board->places[move->process].current[move->name]) != move->known[0])
        return false;
    move->stamp = new_stamp(w);
    note_write(w, move);
    if (!atomic_compare_exchange_strong(&inbox->state, &state, claim))
        return false;
    move->claim = claim;
    return true;
}

/* The owner may have ended meanwhile. */
void settle_inbox(struct worker *w, struct move *move, bool written) {
    if (!move->claim)
        return;
    struct inbox *inbox = &w->board->places[move->process].inboxes[move->name - REGIONS];
    uint_fast64_t state = move->claim;
    const uint64_t settled =
        inbox_state((uint32_t)(state >> 32), w->incarnation, w->number, written ? INBOX_WRITTEN : INBOX_UNTOUCHED);
    atomic_compare_exchange_strong(&inbox->state, &state, settled);
    move->claim = 0;
}

struct nvlx_op op_of(const struct move *move) {
    return (struct nvlx_op){.opcode = move->write ? NVLX_OP_WRITE : NVLX_OP_READ,
                            .peer = move->link->peer,
                            .local = move->local,
                            .remote = move->address,
                            .flags = move->rows.count ? NVLX_OP_ROWS : 0,
                            .length = move->rows.count ? move->row : move->length,
                            .arg = move->rows.count ? (uint64_t)(uintptr_t)&move->rows : 0};
}

static void fill_rows(const struct worker *w, const struct move *move) {
    memcpy(w->bytes, w->poison, local_length(move));
    for (uint64_t i = 0; i < move->rows.count; i++)
        fill_words(w->bytes + i * move->rows.local_pitch, move->row, move->stamp,
                   (move->offset + i * move->rows.remote_pitch) / WORD);
}

void fill_local(struct worker *w, struct move *move) {
    const uint8_t *source = w->poison;
    if (move->write) {
        if (move->rows.count)
            fill_rows(w, move);
        else
            fill_words(w->bytes, move->length, move->stamp, move->offset / WORD);
        source = w->bytes;
    }
    const int code = nvlx_memcpy(w->engine, move->local, source, local_length(move));
    if (code)
        wrong_code(w, "nvlx_memcpy", code);
}

/* ---- Judging ------------------------------------------------------------------------------------------- */

static bool is_gone(struct worker *w, uint64_t known) {
    return !known || !board_follow(w->board, known);
}

/* Whether it sleeps, or has slept since. */
static bool has_slept(struct worker *w, uint64_t known) {
    const struct record *record = known ? board_record(w->board, known) : NULL;
    return !record || atomic_load(&record->suspended);
}

/* Whether it may have come after this generation; 0: nobody asks. */
static bool is_younger(struct worker *w, uint64_t known, uint64_t generation) {
    const struct record *record = known ? board_record(w->board, known) : NULL;
    const uint64_t told = record ? atomic_load(&record->generation) : 0;
    return generation && (!told || told > generation);
}

bool may_fail(struct worker *w, const struct move *move, uint64_t generation, int code) {
    const bool doomed = board_doomed(w->board, move->process, move->incarnation);
    bool gone = false, slept = false, younger = false;
    for (int i = 0; i < (move->spans ? 2 : 1); i++) {
        gone = gone || is_gone(w, move->known[i]);
        slept = slept || has_slept(w, move->known[i]);
        younger = younger || is_younger(w, move->known[i], generation);
    }
    switch (code) {
    case NVLX_ERANGE:
    case NVLX_EACCES:
        return gone;
    case NVLX_ESUSPENDED: /* or what lies there by now does */
        return slept || gone;
    case NVLX_ESTALE:
        return gone || doomed || younger;
    case NVLX_EDEVICE: /* the driver may hear of it first */
        return w->board->cuda && (gone || doomed);
    default:
        return false;
    }
}

struct reading { /* of the bytes of one op */
    struct worker *w;
    const struct list *list;
    const struct move *move;
};

static void tell_wrong(const struct reading *r, uint64_t address, uint64_t word, const char *why) {
    const struct move *m = r->move;
    const struct nvlx_transfer_options *options = &r->list->options;
    const uint64_t now = now_ns(), at = r->list->submitted_at;
    char found[DESCRIPTION_MAX], history[HISTORY_MAX], known[2][HISTORY_MAX] = {"nothing", "nothing"};
    for (int i = 0; i < 2; i++)
        if (m->known[i])
            describe_history(r->w->board, m->known[i], at, known[i]);
    board_wrong(r->w->board,
                "process %u.%" PRIu32 ", step %" PRIu64 ", op %td of %zu, reads %s region %u of process %u.%" PRIu32
                " (doomed %" PRIu64 "): 0x%" PRIx64 " + %" PRIu64 " in %" PRIu64
                " rows by %s (mechanism %u, flags %u, generation %" PRIu64
                "%s), submitted %.3f ms ago; the peer's generation was %" PRIu64 " before it looked, %" PRIu64
                " before the call.\n    At 0x%" PRIx64 " is 0x%016" PRIx64 ", %s: %s.\n    That is %s.\n    Known: %s\n"
                "    and %s",
                r->w->number, r->w->incarnation, r->w->step, m - r->list->moves, r->list->count,
                m->spans ? "over the end of" : "from", m->name, m->process, m->incarnation,
                (uint64_t)atomic_load(&r->w->board->places[m->process].doomed), m->address, m->length, m->rows.count,
                r->list->prepared ? "nvlx_post" : "nvlx_transfer", options->mechanism, options->flags,
                options->generation, r->list->receipt ? ", a message" : "", ((double)now - (double)at) / 1e6, m->asked,
                m->seen, address, word, describe_word(word, found), why,
                describe_history(r->w->board, read_word(word).stamp, at, history), known[0], known[1]);
}

/* Whether there was another content before that which it knew. */
static bool is_older(const struct reading *r, struct word word, uint64_t address) {
    for (int i = 0; i < (r->move->spans ? 2 : 1); i++) {
        const uint64_t stamp = r->move->known[i];
        const struct record *known = stamp ? board_record(r->w->board, stamp) : NULL;
        if (known && stamp_number(word.stamp) < stamp_number(stamp) &&
            address - atomic_load(&known->address) < atomic_load(&known->length))
            return true;
    }
    return false;
}

/* Why this content may not be read there and then; NULL: it may. */
static const char *judge(const struct reading *r, struct word word, uint64_t address, const struct record *record) {
    const struct move *move = r->move;
    const uint64_t released = record ? atomic_load(&record->released) : 0;
    if (stamp_process(word.stamp) != move->process || stamp_incarnation(word.stamp) != (move->incarnation & 0xffff))
        return "no content of the peer's";
    if (!stamp_number(word.stamp))
        return "memory that nobody may read";
    if (!record)
        return "content that the peer has never registered, or long ago";
    if (atomic_load(&record->address) + word.index * WORD != address)
        return "content of another place";
    if (released && released < r->list->submitted_at)
        return "nvlx_unregister had given 0 for it before the call";
    if (r->list->prepared && atomic_load(&record->registered) > r->list->prepared_at)
        return "younger than the prepared list";
    if (r->list->options.generation && r->list->options.generation <= atomic_load(&record->born))
        return "younger than the generation of the call";
    if (atomic_load(&record->freed) && atomic_load(&record->freed) <= move->seen)
        return "freed memory, and it knew";
    return is_older(r, word, address) ? "older than what was known" : NULL;
}

/* Words from `address` on, which is a multiple of WORD in the content. Returns whether all are right. */
static bool check_words(const struct reading *r, const uint8_t *bytes, size_t count, uint64_t address) {
    for (size_t i = 0; i < count;) {
        uint64_t word;
        memcpy(&word, bytes + i * WORD, WORD);
        const struct word begin = read_word(word);
        const struct record *record = board_record(r->w->board, begin.stamp);
        const char *why = judge(r, begin, address + i * WORD, record);
        if (why || !record) {
            tell_wrong(r, address + i * WORD, word, why ? why : "?");
            return false;
        }
        if (i && begin.index) {
            tell_wrong(r, address + i * WORD, word, "torn: it begins in the middle of this content");
            return false;
        }
        const uint64_t rest = atomic_load(&record->length) / WORD - begin.index;
        const size_t run = (size_t)least(count - i, rest),
                     other = find_other(bytes + i * WORD, run, begin.stamp, begin.index);
        if (other < run) {
            memcpy(&word, bytes + (i + other) * WORD, WORD);
            tell_wrong(r, address + (i + other) * WORD, word, "torn: the content before goes on here");
            return false;
        }
        i += run;
    }
    return true;
}

/* The bytes before the first whole word, and behind the last one, belong to words whose neighbours were found right. */
static bool check_edges(const struct reading *r, const uint8_t *bytes, size_t lead, size_t words) {
    const struct move *move = r->move;
    uint64_t word, whole;
    memcpy(&word, bytes + lead, WORD);
    const struct word first = read_word(word);
    if (lead && first.index) {
        whole = make_word(first.stamp, first.index - 1);
        if (memcmp((const uint8_t *)&whole + WORD - lead, bytes, lead) != 0) {
            tell_wrong(r, move->address, word, "the bytes before it are wrong");
            return false;
        }
    }
    const size_t end = lead + words * WORD, trail = move->length - end;
    memcpy(&word, bytes + end - WORD, WORD);
    const struct word last = read_word(word);
    const struct record *record = board_record(r->w->board, last.stamp);
    whole = make_word(last.stamp, last.index + 1);
    if (trail && record && (last.index + 1) * WORD < atomic_load(&record->length) &&
        memcmp(&whole, bytes + end, trail) != 0) {
        tell_wrong(r, move->address + end, word, "the bytes behind it are wrong");
        return false;
    }
    return true;
}

/* Whether the first word of a row, at `address`, goes on where the word before it, the last one of a row, has ended. */
static bool goes_on(const struct worker *w, uint64_t before, uint64_t word, uint64_t address) {
    const struct word last = read_word(before), first = read_word(word);
    const struct record *old = board_record(w->board, last.stamp), *new = board_record(w->board, first.stamp);
    if (!old || !new || last.stamp == first.stamp)
        return true;
    const uint64_t end = atomic_load(&old->address) + atomic_load(&old->length);
    return address >= end && atomic_load(&new->address) >= end;
}

/* Each row, and what lies between them here. */
static bool check_rows(const struct reading *r, const uint8_t *bytes) {
    const struct nvlx_rows *rows = &r->move->rows;
    const size_t row = r->move->row;
    uint64_t word, last = 0;
    for (uint64_t i = 0; i < rows->count; i++) {
        const size_t at = i * rows->local_pitch, end = at + row;
        const uint64_t address = r->move->address + i * rows->remote_pitch;
        if (!check_words(r, bytes + at, row / WORD, address))
            return false;
        memcpy(&word, bytes + at, WORD);
        if (i && !goes_on(r->w, last, word, address)) {
            tell_wrong(r, address, word, "torn: the row before it has another content");
            return false;
        }
        memcpy(&last, bytes + end - WORD, WORD);
        if (i + 1 < rows->count && memcmp(bytes + end, r->w->poison + end, rows->local_pitch - row) != 0) {
            tell_wrong(r, address, word, "behind this row something was written");
            return false;
        }
    }
    return true;
}

static bool check_bytes(const struct reading *r, const uint8_t *bytes) {
    const struct move *move = r->move;
    const size_t lead = (WORD - (size_t)(move->address % WORD)) % WORD, words = (move->length - lead) / WORD;
    if (move->rows.count)
        return check_rows(r, bytes);
    return check_words(r, bytes + lead, words, move->address + lead) && check_edges(r, bytes, lead, words);
}

static void check_read(struct worker *w, const struct list *list, const struct move *move) {
    const struct reading reading = {w, list, move};
    const int code = nvlx_memcpy(w->engine, w->bytes, move->local, local_length(move));
    if (code) {
        wrong_code(w, "nvlx_memcpy", code);
        return;
    }
    if (check_bytes(&reading, w->bytes)) {
        board_count(w->place, COUNT_reads, 1);
        board_count(w->place, COUNT_bytes, move->rows.count ? move->rows.count * move->row : move->length);
    }
}

void check_move(struct worker *w, const struct list *list, struct move *move) {
    if (board_buried_since(w->board, move->process, move->incarnation, list->submitted_at - (uint64_t)KNOWN_DEAD_NS))
        board_wrong(w->board,
                    "process %u.%" PRIu32 ": process %u.%" PRIu32 " was long gone, and an op for it was accepted",
                    w->number, w->incarnation, move->process, move->incarnation);
    if (move->write)
        settle_inbox(w, move, true);
    else
        check_read(w, list, move);
}
