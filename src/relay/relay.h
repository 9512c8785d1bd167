/* A relay: the same bytes from one source to many readers, each of which passes them on.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A relay is built on the public interface. It has an engine of its own, so that its peers, messages and events are not
 * mixed with those of the program. The memory stays the program's: the relay's engine registers it once more.
 *
 * The source serves the parts. It knows all readers, decides who reads from whom (tree.h), tells them (words.h), and
 * digests each unit of the content.
 *
 * A reader serves its own parts, and flags: one 64-bit word a piece, in memory of its GPU. It reads a piece from its
 * parent when the parent's flag of the piece is the generation. The list that reads the piece sets the reader's own
 * flag: a signal, which comes when the bytes are in place (pull.c). No CPU is between a piece and its flag. Whoever
 * reads from this reader looks at the flags.
 *
 * So who reads knows everything by itself, and who is read from does nothing. It may be stopped, or dead: what it has
 * can be read as long as it is mapped. A reader that is lost or silent is bridged: the source gives those that read
 * from it another parent, and they go on with the pieces that they lack.
 *
 * Threads: "nvlx-relay" does all that is said above. "nvlx-relay-sum" digests pieces that are in place (check.c).
 *
 * `mutex` guards what both threads and callers use; no call of the library is made with it. `telling` is never held
 * with it. All else belongs to the thread "nvlx-relay" (struct nvlxi_relay_source, struct nvlxi_relay_reader), or does
 * not change. */
#ifndef NVLXI_RELAY_RELAY_H
#define NVLXI_RELAY_RELAY_H

#include <pthread.h>
#include <stdbool.h>

#include "api/engine.h"
#include "relay/content.h"
#include "relay/words.h"

#define NVLXI_RELAY_FLAGS 64 /* that are read at a time */

struct nvlxi_relay_source;
struct nvlxi_relay_reader;

/* Words of 64 bits in memory of a GPU, which others read: flags of pieces, then digests of the source. First of these
 * is the generation that they are of, then one for each unit. */
struct nvlxi_relay_state {
    char *memory;
    size_t digests, length; /* offsets in bytes */
};

/* Where a reader reads such words to: flags of its parent, and digests. From another process it is host memory, where
 * there is such, so that its CPU looks at them without asking a GPU. From a parent in this process it is memory of the
 * GPU: there the parent's GPU may be the one that copies, which may not use the host memory of another. */
struct nvlxi_relay_seen {
    char *memory;
    size_t digests;
    bool on_host;
};

struct nvlxi_relay_check { /* see check.c */
    pthread_t thread;
    bool started;
    uint64_t *digests, *left; /* of each unit: its digest, bytes that are missing. Its thread's */
    uint64_t begun;           /* likewise: the generation that they are of */
    /* under the relay's mutex: */
    uint64_t generation;
    size_t *order;         /* pieces that are in place, as they came */
    size_t arrived, taken; /* of them */
};

struct nvlx_relay {
    struct nvlx_engine *engine; /* its own */
    struct nvlxi_relay_content content;
    struct nvlx_relay_options options;
    char address[NVLXI_RELAY_ADDRESS]; /* at which its engine serves */
    int gpu;                           /* of the first part with bytes */
    struct nvlxi_relay_state state;
    struct nvlxi_relay_seen seen, seen_here; /* of parents in other processes, and in this one */
    struct nvlx_region **regions;            /* of the parts; then those of state and of what is seen */
    size_t region_count;
    pthread_t thread;
    bool started, withdrawn; /* by nvlx_relay_free */
    int event_fd, wake_fd;
    struct nvlxi_relay_source *source; /* one of them is NULL */
    struct nvlxi_relay_reader *reader;

    pthread_mutex_t mutex;
    pthread_cond_t news;
    bool stopping;
    uint64_t wanted;          /* source: the generation that is offered. Reader: it takes one that is at least so new */
    uint64_t done;            /* reader: the generation that it has, and that is right. Source: that it has digested */
    bool held;                /* source: no reader begins with the generation */
    uint32_t joined, having;  /* source: readers that have joined and are there; of them have the generation */
    uint32_t reading, silent; /* source: readers that are not done; of them say nothing */
    uint32_t idle;            /* source: of them have not begun it, though they may */
    uint32_t missing;         /* source: readers that were lost, or have left, before the generation */
    pthread_mutex_t telling;  /* source: of the digests in `state`; calls of the library are made with it */
    uint64_t told;            /* under it: the generation that they are of; 0: they were taken back */
    uint64_t checked;         /* reader: the source has digests of this generation */
    struct nvlxi_relay_check check;
    struct nvlx_relay_info info;  /* what is known now */
    uint64_t begun_ns, placed_ns; /* reader: when the generation was begun, and when the last piece was in place */
    int failure;
    char reason[256];
};

/* ---- For both, by any thread --------------------------------------------------------------------------- */

/* Its thread has something to do. */
void nvlxi_relay_wake(struct nvlx_relay *relay);
/* Waits for events of the engine, and for that; at most until the moment `deadline`. */
void nvlxi_relay_sleep(struct nvlx_relay *relay, uint64_t deadline);
bool nvlxi_relay_stops(struct nvlx_relay *relay);
/* Keeps the first failure, for nvlx_relay_wait. Not under the mutex. */
void nvlxi_relay_fail(struct nvlx_relay *relay, int code, const char *reason);

/* Begins to serve, as the relay's engine: parts are registered first. Errors as nvlx_register and nvlx_serve. */
int nvlxi_relay_serve(struct nvlx_relay *relay, const char *address);
/* When the content is cut: makes the state and its region; for a reader with room behind it. */
int nvlxi_relay_state_make(struct nvlx_relay *relay);
/* Then, for a reader: makes what it sees into, of which what is seen in this process lies in that room. */
int nvlxi_relay_seen_make(struct nvlx_relay *relay);
/* Copies what was read to this process: `length` bytes from `offset` on. */
int nvlxi_relay_seen_read(struct nvlx_relay *relay, const struct nvlxi_relay_seen *seen, size_t offset, void *bytes,
                          size_t length);

/* ---- check.c ------------------------------------------------------------------------------------------- */

int nvlxi_relay_check_make(struct nvlx_relay *relay);
/* A new generation: nothing is in place. Under the mutex. */
void nvlxi_relay_check_begin(struct nvlx_relay *relay, uint64_t generation);
/* A piece is in place. Under the mutex; whoever calls tells `news`. */
void nvlxi_relay_check_piece(struct nvlx_relay *relay, size_t piece);
/* It has digested what it is at, and ends. `stopping` is set. */
void nvlxi_relay_check_end(struct nvlx_relay *relay);

/* ---- source.c, reader.c: what the two do --------------------------------------------------------------- */

int nvlxi_relay_source_make(struct nvlx_relay *relay);
void *nvlxi_relay_source_run(void *argument);
void nvlxi_relay_source_free(struct nvlx_relay *relay);
/* Takes back the digests that were told of this generation, or of an older one: who has not read them yet waits for the
 * next ones. */
int nvlxi_relay_source_forget(struct nvlx_relay *relay, uint64_t generation);
/* All digests are made: tells them. By the thread of checks. */
void nvlxi_relay_source_checked(struct nvlx_relay *relay, uint64_t generation);

/* Connects, and has been welcomed by the source. */
int nvlxi_relay_reader_make(struct nvlx_relay *relay, const char *address, int64_t timeout_ns);
void *nvlxi_relay_reader_run(void *argument);
void nvlxi_relay_reader_free(struct nvlx_relay *relay);
/* All digests are made: compares them with those of the source. By the thread of checks. */
void nvlxi_relay_reader_checked(struct nvlx_relay *relay, uint64_t generation);

#endif
