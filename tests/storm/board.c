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

#include "content.h"
#include "process.h"

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

void board_enter(struct board *board, uint64_t stamp, uint64_t address, uint64_t length, bool chunks) {
    struct record *record = slot_of(board, stamp);
    atomic_store(&record->stamp, 0);
    atomic_store(&record->address, address);
    atomic_store(&record->length, length);
    atomic_store(&record->chunks, chunks);
    atomic_store(&record->generation, 0);
    atomic_store(&record->withdrawn, 0);
    atomic_store(&record->released, 0);
    atomic_store(&record->registered, now_ns());
    atomic_store(&record->stamp, stamp);
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
    char text[1024];
    const uint64_t before = atomic_fetch_add(&board->wrong, 1);
    if (before >= WRONG_SHOWN)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "WRONG (seed %" PRIu64 "): %s\n", board->seed, text);
}
