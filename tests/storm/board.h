/* The board of a storm: shared memory of the judge and all processes, which outlives each of them. It says what every
 * process has registered, withdrawn and ended, when, so that each can tell whether what it gets is right.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * An incarnation is one engine: LIFE_SHIFT bits of it count the engines of one life of a process, the rest its lives.
 *
 *     alive      `incarnation`; it may be connected to from `serving` on
 *     doomed     it is about to be destroyed or killed: its peers may find it gone from now on
 *     buried     its process is gone, or its engine was destroyed
 *
 * Who changes something says so before it does, if it can make others' calls fail; after, if it can make them succeed.
 * Times are of CLOCK_MONOTONIC, in ns, which all processes share; 0: not yet. */
#ifndef STORM_BOARD_H
#define STORM_BOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROCESSES_MAX     16
#define GROUPS            8 /* of regions that peers read: those of one segment */
#define REGIONS_PER_GROUP 4
#define REGIONS           (GROUPS * REGIONS_PER_GROUP)
#define INBOXES           4 /* regions that peers write, each in a segment of its own */
#define NAMES             (REGIONS + INBOXES)
#define RECORDS           16384
#define LIFE_SHIFT        4

typedef atomic_uint_fast64_t shared_number;

/* Of the content of a region. A region that sleeps and wakes has another content then, `next`. */
struct record {
    shared_number stamp;
    shared_number address, length;
    shared_number born;       /* the generation that was known before it was registered there: its own is a later one */
    shared_number generation; /* the one by which it was told, or a later one */
    shared_number digest;     /* enum told_digest */
    shared_number registered; /* when its region was registered there first: it may have slept since */
    shared_number withdrawn, released; /* it may be read no more; nobody reads it any more */
    shared_number suspended;           /* the region sleeps, or did, with its name and place */
    shared_number gone;                /* the region has left its name or place */
    shared_number next;                /* stamp of the content that the region woke up with there */
    shared_number freed;               /* the generation since which peers know that its memory was freed */
};

enum told_digest { DIGEST_NONE, DIGEST_RIGHT, DIGEST_WRONG };

struct entry { /* what board_enter notes */
    uint64_t address, length, born, registered;
    enum told_digest digest;
};

/* An inbox is written by one process at a time, which claims it. */
enum inbox_phase { INBOX_CLOSED, INBOX_OPEN, INBOX_CLAIMED, INBOX_WRITTEN, INBOX_UNTOUCHED };

struct note {            /* of a writer, before it claims */
    shared_number stamp; /* what it writes, and where */
    shared_number offset, length;
    shared_number row, pitch; /* of each `pitch` bytes in it, the first ones; both are `length` where it is all */
};

struct inbox {
    shared_number state; /* see inbox_state */
    struct note notes[PROCESSES_MAX];
};

static inline uint64_t inbox_state(uint32_t epoch, uint32_t incarnation, unsigned writer, enum inbox_phase phase) {
    return (uint64_t)epoch << 32 | (uint64_t)(incarnation & 0xffff) << 16 | (uint64_t)writer << 8 | (uint64_t)phase;
}

static inline enum inbox_phase inbox_phase(uint64_t state) {
    return (enum inbox_phase)(state & 0xff);
}

static inline unsigned inbox_writer(uint64_t state) {
    return (unsigned)(state >> 8 & 0xff);
}

static inline uint32_t inbox_incarnation(uint64_t state) {
    return (uint32_t)(state >> 16 & 0xffff);
}

#define COUNTERS(X)                                                                                                    \
    X(engines, "engines")                                                                                              \
    X(connects, "connects")                                                                                            \
    X(reads, "verified reads")                                                                                         \
    X(writes, "verified writes")                                                                                       \
    X(bytes, "bytes read")                                                                                             \
    X(borders, "ops over borders")                                                                                     \
    X(rows, "ops of rows")                                                                                             \
    X(done_events, "done by events")                                                                                   \
    X(posts, "posts")                                                                                                  \
    X(registers, "registered")                                                                                         \
    X(unregisters, "unregistered")                                                                                     \
    X(waits, "unregister waits")                                                                                       \
    X(swaps, "swaps")                                                                                                  \
    X(suspends, "suspended")                                                                                           \
    X(sleepers, "asleep")                                                                                              \
    X(resumes, "resumed")                                                                                              \
    X(renewals, "with other memory")                                                                                   \
    X(moves, "at another place")                                                                                       \
    X(exchanges, "times at each other's place")                                                                        \
    X(observed, "changes observed")                                                                                    \
    X(awakened, "posts after sleep")                                                                                   \
    X(naps, "naps of lists")                                                                                           \
    X(frees, "freed unasked")                                                                                          \
    X(messages, "messages")                                                                                            \
    X(receipts, "taken for sure")                                                                                      \
    X(arrivals, "behind bytes")                                                                                        \
    X(digests, "digests told")                                                                                         \
    X(verified, "reads by digest")                                                                                     \
    X(damaged, "found damaged")                                                                                        \
    X(generations, "calls with a generation")                                                                          \
    X(syncs, "syncs")                                                                                                  \
    X(waited, "waits for a generation")                                                                                \
    X(maps, "looks at others' maps")                                                                                   \
    X(same_places, "same places")                                                                                      \
    X(refusals, "refusals")

enum counter {
#define COUNTER_NAME(name, text) COUNT_##name,
    COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
        COUNTERS_END
};

struct place { /* of one process */
    atomic_int pid;
    shared_number incarnation, serving, doomed;
    shared_number buried, buried_at;
    shared_number numbers;   /* of contents, so far: those of all incarnations */
    shared_number links;     /* that it has made, so far */
    shared_number published; /* 16 bits of the incarnation, and the newest generation that it has published */
    shared_number taken[PROCESSES_MAX]; /* receipts of messages to each process: see messages.c */
    shared_number steps;
    shared_number slowest;        /* unregister that waited, in ns */
    atomic_int action;            /* what it is doing: an index of the list of actions */
    atomic_int stop_ms;           /* > 0: it has stopped, or is about to, and is to be woken up after so long */
    shared_number current[NAMES]; /* stamp of what is registered under this name; 0: nothing */
    struct inbox inboxes[INBOXES];
    shared_number counts[COUNTERS_END];
    struct record records[RECORDS];
};

struct board {
    uint64_t seed;
    unsigned processes;
    int gpus[2];
    bool cuda;
    char folder[64]; /* of sockets */
    atomic_bool end; /* all are to let go of everything, and end well */
    shared_number wrong;
    struct place places[PROCESSES_MAX];
};

/* Both end the process where there is no memory. */
struct board *board_make(int *fd);
struct board *board_open(int fd);

uint64_t now_ns(void);

/* ---- Records ------------------------------------------------------------------------------------------- */

/* NULL: it was never registered, or so long ago that its record was used again. */
struct record *board_record(struct board *board, uint64_t stamp);
void board_enter(struct board *board, uint64_t stamp, const struct entry *entry);
/* All that is known of it, the times in ms before `now`; in a buffer of the caller's. */
#define HISTORY_MAX 320
const char *describe_history(struct board *board, uint64_t stamp, uint64_t now, char text[HISTORY_MAX]);
/* Of the content that its region has by now, if that slept and woke where it was. NULL: the region has left its name or
 * place, or nobody can tell. */
struct record *board_follow(struct board *board, uint64_t stamp);

/* Whether this incarnation of the process has ended, or may be about to. */
bool board_doomed(const struct board *board, unsigned process, uint32_t incarnation);
/* Whether it was over so long before. */
bool board_buried_since(const struct board *board, unsigned process, uint32_t incarnation, uint64_t before);

void board_count(struct place *place, enum counter counter, uint64_t more);

/* ---- What is wrong ------------------------------------------------------------------------------------- */

/* Prints it, with the seed, and counts it. */
void board_wrong(struct board *board, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
