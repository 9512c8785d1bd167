/* Memory of a process of a storm that others write, one at a time. SPDX-License-Identifier: Apache-2.0
 *
 * The owner has a copy of what must be there. A writer claims the inbox on the board, writes, and says so there; then
 * the owner compares every byte. While it is claimed, its memory is used for nothing else: who has claimed it may have
 * looked up its address long ago. */
#include <inttypes.h>
#include <string.h>

#include "storm/worker.h"

static struct inbox *inbox_of(struct worker *w, const struct segment *segment) {
    return &w->place->inboxes[segment->group - GROUPS];
}

static uint32_t epoch_of(uint64_t state) {
    return (uint32_t)(state >> 32);
}

/* What the engine before has left open is closed, before anybody can know this one. Else a writer that knows an inbox
 * of this engine could claim it before inbox_open has noted what is in it. */
void begin_inboxes(struct worker *w) {
    for (unsigned i = 0; i < INBOXES; i++) {
        struct inbox *inbox = &w->place->inboxes[i];
        atomic_store(&inbox->state, inbox_state(epoch_of(atomic_load(&inbox->state)) + 1, 0, 0, INBOX_CLOSED));
    }
}

void inbox_open(struct worker *w, struct segment *segment) {
    struct inbox *inbox = inbox_of(w, segment);
    const struct region *region = &segment->regions[0];
    if (region->state != REGION_SHARED)
        return;
    fill_words(segment->expected, region->length, region->stamp, 0);
    atomic_store(&inbox->state, inbox_state(epoch_of(atomic_load(&inbox->state)) + 1, 0, 0, INBOX_OPEN));
}

void inbox_close(struct worker *w, struct segment *segment) {
    struct inbox *inbox = inbox_of(w, segment);
    uint_fast64_t state = atomic_load(&inbox->state);
    if (inbox_phase(state) == INBOX_OPEN)
        atomic_compare_exchange_strong(&inbox->state, &state, inbox_state(epoch_of(state), 0, 0, INBOX_CLOSED));
}

static bool is_abandoned(const struct worker *w, uint64_t state) {
    return inbox_phase(state) == INBOX_CLAIMED &&
           atomic_load(&w->board->places[inbox_writer(state)].buried) >= inbox_incarnation(state);
}

bool inbox_settled(struct worker *w, const struct segment *segment) {
    const uint64_t state = atomic_load(&inbox_of(w, segment)->state);
    return inbox_phase(state) != INBOX_CLAIMED || is_abandoned(w, state);
}

/* ---- Looking ------------------------------------------------------------------------------------------- */

static uint64_t word_at(const uint8_t *bytes, size_t index) {
    uint64_t word;
    memcpy(&word, bytes + index * WORD, WORD);
    return word;
}

/* A word in which a writer has died: the processor may have copied some bytes of it, and not yet the others. */
static bool is_part_written(uint64_t word, uint64_t old, uint64_t new) {
    bool right = true;
    for (unsigned i = 0; i < 64; i += 8)
        right = right && (((word ^ old) >> i & 0xff) == 0 || ((word ^ new) >> i & 0xff) == 0);
    return right;
}

/* `words`: what is there, what must be, and what was. */
static void tell_wrong(struct worker *w, const struct segment *segment, uint64_t state, const struct note *note,
                       const char *how, size_t index, const uint64_t words[3]) {
    char found[DESCRIPTION_MAX], wanted[DESCRIPTION_MAX];
    const uint64_t offset = atomic_load(&note->offset);
    board_wrong(w->board,
                "process %u.%" PRIu32 ", step %" PRIu64 ", inbox %u of content %" PRIu32 " (state %016" PRIx64
                "), of which process %u.%" PRIu32 " has written bytes %" PRIu64 " to %" PRIu64
                "%s: at byte %zu is 0x%016" PRIx64 ", %s, not 0x%016" PRIx64 ", %s; before it was 0x%016" PRIx64,
                w->number, w->incarnation, w->step, segment->group - GROUPS, stamp_number(segment->regions[0].stamp),
                state, inbox_writer(state), inbox_incarnation(state), offset, offset + atomic_load(&note->length), how,
                index * WORD, words[0], describe_word(words[0], found), words[1], describe_word(words[1], wanted),
                words[2]);
}

/* What is there becomes what is expected. `may_be`: the bytes written may be there or not, since the writer has died.
 * Counts one wrong word at most. */
static void compare(struct worker *w, struct segment *segment, uint64_t state, const struct note *note, bool may_be) {
    const struct region *region = &segment->regions[0];
    const size_t first = atomic_load(&note->offset) / WORD, end = first + atomic_load(&note->length) / WORD;
    const size_t row = atomic_load(&note->row) / WORD, pitch = atomic_load(&note->pitch) / WORD;
    const uint64_t stamp = atomic_load(&note->stamp);
    const int code = nvlx_memcpy(w->engine, w->bytes, segment->base + region->offset, region->length);
    if (code)
        wrong_code(w, "nvlx_memcpy", code);
    for (size_t i = 0; i < region->length / WORD; i++) {
        const uint64_t old = word_at(segment->expected, i), word = word_at(w->bytes, i);
        const bool in_range = i >= first && i < end && (i - first) % pitch < row;
        const uint64_t want = in_range && inbox_phase(state) != INBOX_UNTOUCHED ? make_word(stamp, i) : old;
        if (word == want || (may_be && in_range && is_part_written(word, old, want)))
            continue;
        tell_wrong(w, segment, state, note, may_be ? ", and died meanwhile" : "", i,
                   (const uint64_t[]){word, want, old});
        break;
    }
    memcpy(segment->expected, w->bytes, region->length);
}

static void look(struct worker *w, struct segment *segment) {
    struct inbox *inbox = inbox_of(w, segment);
    const uint64_t state = atomic_load(&inbox->state);
    const bool dead = is_abandoned(w, state);
    if (inbox_phase(state) != INBOX_WRITTEN && inbox_phase(state) != INBOX_UNTOUCHED && !dead)
        return;
    compare(w, segment, state, &inbox->notes[inbox_writer(state)], dead);
    if (inbox_phase(state) == INBOX_WRITTEN)
        board_count(w->place, COUNT_writes, 1);
    atomic_store(&inbox->state, inbox_state(epoch_of(state), 0, 0, INBOX_OPEN));
}

/* Only while nothing has changed since: whose write the inbox holds. */
static bool holds(const struct worker *w, const struct segment *segment, unsigned writer, uint32_t incarnation,
                  const struct written *written) {
    const struct inbox *inbox = &w->place->inboxes[written->inbox];
    const uint64_t state = atomic_load(&inbox->state);
    return segment && segment->regions[0].state == REGION_SHARED && segment->regions[0].stamp == written->content &&
           (inbox_phase(state) == INBOX_CLAIMED || inbox_phase(state) == INBOX_WRITTEN) &&
           inbox_writer(state) == writer && inbox_incarnation(state) == (incarnation & 0xffff) &&
           atomic_load(&inbox->notes[writer].stamp) == written->stamp;
}

/* The index of the first word that is not what was written; beyond all if there is none. */
static size_t find_other_row(const uint8_t *bytes, const struct written *written) {
    size_t other = SIZE_MAX;
    for (uint64_t at = 0; at < written->length && other == SIZE_MAX; at += written->pitch) {
        const size_t row = written->row / WORD,
                     found = find_other(bytes + at, row, written->stamp, (written->offset + at) / WORD);
        other = found < row ? at / WORD + found : SIZE_MAX;
    }
    return other;
}

void check_arrived(struct worker *w, unsigned writer, uint32_t incarnation, const struct written *written) {
    const struct segment *segment = find_current(w, GROUPS + written->inbox % INBOXES);
    char found[DESCRIPTION_MAX];
    if (written->inbox >= INBOXES || !holds(w, segment, writer, incarnation, written))
        return;
    const int code =
        nvlx_memcpy(w->engine, w->bytes, segment->base + segment->regions[0].offset + written->offset, written->length);
    if (code)
        wrong_code(w, "nvlx_memcpy", code);
    const size_t count = written->length / WORD, other = find_other_row(w->bytes, written);
    board_count(w->place, COUNT_arrivals, 1);
    if (other < count)
        board_wrong(w->board,
                    "process %u.%" PRIu32 ", step %" PRIu64 ": a message says that process %u.%" PRIu32
                    " has written inbox %u, %" PRIu64 " bytes from %" PRIu64 " on, but after %zu is %s",
                    w->number, w->incarnation, w->step, writer, incarnation, written->inbox, written->length,
                    written->offset, other * WORD, describe_word(word_at(w->bytes, other), found));
}

void act_inboxes(struct worker *w) {
    for (unsigned i = 0; i < SEGMENTS; i++) {
        struct segment *segment = &w->segments[i];
        if (segment->base && segment->group >= GROUPS && segment->current && segment->regions[0].state == REGION_SHARED)
            look(w, segment);
    }
}
