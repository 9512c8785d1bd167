/* Keeps the board of a storm: see board.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "board.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "storm/actions/content.h"

#define WRONG_SHOWN 40

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct board *board_open(int fd) {
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (board == MAP_FAILED)
        FAIL("cannot map the board: %s", strerror(errno));
    return board;
}

struct board *board_make(int *fd) {
    *fd = memfd_create("storm-board", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, sizeof(struct board)))
        FAIL("cannot make the board: %s", strerror(errno));
    return board_open(*fd);
}

/* ---- Records ------------------------------------------------------------------------------------------- */

static struct record *slot_of(struct board *board, uint64_t stamp) {
    return &board->places[stamp_process(stamp)].records[stamp_number(stamp) % RECORDS];
}

struct record *board_record(struct board *board, uint64_t stamp) {
    if (!stamp_number(stamp) || stamp_process(stamp) >= board->processes)
        return NULL;
    struct record *record = slot_of(board, stamp);
    return atomic_load(&record->stamp) == stamp ? record : NULL;
}

void board_enter(struct board *board, uint64_t stamp, const struct entry *entry) {
    struct record *record = slot_of(board, stamp);
    atomic_store(&record->stamp, 0);
    atomic_store(&record->address, entry->address);
    atomic_store(&record->length, entry->length);
    atomic_store(&record->born, entry->born);
    atomic_store(&record->generation, 0);
    atomic_store(&record->digest, entry->digest);
    atomic_store(&record->registered, entry->registered);
    atomic_store(&record->withdrawn, 0);
    atomic_store(&record->released, 0);
    atomic_store(&record->suspended, 0);
    atomic_store(&record->gone, 0);
    atomic_store(&record->next, 0);
    atomic_store(&record->freed, 0);
    atomic_store(&record->stamp, stamp);
}

struct record *board_follow(struct board *board, uint64_t stamp) {
    struct record *record = board_record(board, stamp);
    while (record && !atomic_load(&record->gone) && atomic_load(&record->next))
        record = board_record(board, atomic_load(&record->next));
    return record && !atomic_load(&record->gone) ? record : NULL;
}

/* "-": not yet. */
static const char *age(uint64_t then, uint64_t now, char text[32]) {
    if (then)
        snprintf(text, 32, "%+.3f", ((double)now - (double)then) / 1e6);
    return then ? text : "-";
}

const char *describe_history(struct board *board, uint64_t stamp, uint64_t now, char text[HISTORY_MAX]) {
    const struct record *r = board_record(board, stamp);
    char times[5][32];
    if (!r) {
        snprintf(text, HISTORY_MAX, "content %" PRIu32 " (nothing is known of it)", stamp_number(stamp));
        return text;
    }
    snprintf(text, HISTORY_MAX,
             "content %" PRIu32 " (0x%" PRIx64 " + %" PRIu64 ", generation above %" PRIu64 ", told by %" PRIu64
             ", freed %" PRIu64 ", digest %d; ms ago: registered %s, withdrawn %s, suspended %s, gone %s, released %s)",
             stamp_number(stamp), (uint64_t)atomic_load(&r->address), (uint64_t)atomic_load(&r->length),
             (uint64_t)atomic_load(&r->born), (uint64_t)atomic_load(&r->generation), (uint64_t)atomic_load(&r->freed),
             (int)atomic_load(&r->digest), age(atomic_load(&r->registered), now, times[0]),
             age(atomic_load(&r->withdrawn), now, times[1]), age(atomic_load(&r->suspended), now, times[2]),
             age(atomic_load(&r->gone), now, times[3]), age(atomic_load(&r->released), now, times[4]));
    return text;
}

bool board_doomed(const struct board *board, unsigned process, uint32_t incarnation) {
    return atomic_load(&board->places[process].doomed) >= incarnation;
}

bool board_buried_since(const struct board *board, unsigned process, uint32_t incarnation, uint64_t before) {
    const struct place *place = &board->places[process];
    return atomic_load(&place->buried) >= incarnation && atomic_load(&place->buried_at) < before;
}

void board_count(struct place *place, enum counter counter, uint64_t more) {
    atomic_fetch_add(&place->counts[counter], more);
}

/* ---- What is wrong ------------------------------------------------------------------------------------- */

void board_wrong(struct board *board, const char *format, ...) {
    char text[2048];
    const uint64_t before = atomic_fetch_add(&board->wrong, 1);
    if (before >= WRONG_SHOWN)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "WRONG (seed %" PRIu64 "): %s\n", board->seed, text);
}
