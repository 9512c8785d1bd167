/* A process of a storm: one engine, what it shares, whom it follows, and its lists. SPDX-License-Identifier: Apache-2.0
 *
 * It takes one step after the other. A step is a row of the list of actions (worker.c), chosen by the step's own random
 * numbers, which depend on the seed, the process, its incarnation and the number of the step only: so the same seed
 * gives the same choices, whatever else goes on. To add an action: a function that takes the worker, and a row. */
#ifndef STORM_WORKER_H
#define STORM_WORKER_H

#include "board.h"
#include "nvlxfer.h"
#include "process.h"
#include "storm/actions/content.h"

#define SEGMENTS      (GROUPS + INBOXES + 8)
#define LISTS         4
#define MOVES         8 /* ops of a list */
#define FOR_EVER      (-1)
#define HANG_NS       (60 * SECOND_NS) /* that nothing may take */
#define KNOWN_DEAD_NS (5 * SECOND_NS)  /* after which every peer knows that one is gone */

struct sizes {                        /* of what a process shares, in bytes */
    size_t tensor_unit, tensor_units; /* a tensor is 1 to tensor_units of them */
    size_t inbox;
    size_t op; /* of one op, at most */
    size_t chunk;
};

/* ---- What it shares ------------------------------------------------------------------------------------ */

/* SUSPENDED: it sleeps, and somebody may still use its bytes. ASLEEP: nobody does. */
enum region_state { REGION_NONE, REGION_SHARED, REGION_WITHDRAWN, REGION_RELEASED, REGION_SUSPENDED, REGION_ASLEEP };

struct region {
    enum region_state state;
    struct nvlx_region *handle;
    uint64_t stamp;
    uint64_t asked_at;         /* when it was to be unregistered, or suspended, first */
    uint64_t born, registered; /* as in struct record */
    uint64_t address;          /* where it is registered, or was */
    size_t offset, length;     /* in its segment: where it is to be next */
};

struct segment {   /* the allocation under the regions of one group, or under one inbox */
    uint8_t *base; /* NULL: there is none */
    size_t length;
    size_t start, end; /* what regions are in */
    unsigned group;    /* GROUPS + i: of inbox i */
    bool current;      /* not: its regions are to go, and it is to be freed */
    uint32_t kind;
    bool foreign; /* of another engine, which the one that registers it does not hear of */
    enum told_digest digest;
    int gpu;
    unsigned count;
    struct region regions[REGIONS_PER_GROUP];
    uint8_t *expected; /* of an inbox: its bytes from `start` on, as they must be */
};

/* ---- What others share --------------------------------------------------------------------------------- */

struct link {
    struct nvlx_peer *peer; /* NULL: not connected */
    unsigned process;
    uint32_t incarnation;
    uint32_t id;         /* this process's number of it */
    uint32_t sent;       /* messages, */
    uint64_t sent_bytes; /* and what they count with */
    uint64_t sent_alone; /* those of nvlx_send */
};

struct move { /* one op */
    bool write;
    struct link *link; /* valid until it is submitted, and while the list is prepared */
    unsigned process;
    uint32_t incarnation;
    unsigned name;
    uint64_t address, length; /* in the peer, with what lies between rows */
    struct nvlx_rows rows;    /* count 0: it has none */
    uint64_t row;             /* bytes of one */
    uint8_t *local;
    uint64_t known[2]; /* stamps of what this process knew to be registered there when it looked; 0: it cannot tell */
    bool spans;        /* two regions */
    uint64_t asked, seen; /* generations of the peer: before its address was looked up, and before the call */
    uint64_t claim;       /* the state of the inbox since this write has claimed it; 0: it has not */
    uint64_t stamp;       /* what is written, */
    uint64_t offset;      /* and where in the inbox */
};

enum list_state { LIST_EMPTY, LIST_PREPARED, LIST_IN_FLIGHT };

struct list {
    enum list_state state;
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    uint64_t prepared_at, submitted_at;
    struct nvlx_transfer_options options; /* of nvlx_transfer or nvlx_prepare */
    uint64_t event;                       /* number that the event of its completion carries; 0: there is none */
    bool done;                            /* the event has come, */
    int status;                           /* with this */
    uint64_t receipt;                     /* of its message, once that is taken: see messages.c; 0: it has none */
    size_t count;
    struct move moves[MOVES];
    uint8_t *scratch; /* registered memory: SCRATCH_STRIDE(op) for each of its moves */
    struct nvlx_region *region;
};

struct inbound { /* messages that have come over one link */
    uint32_t link, last;
};
#define INBOUND 16 /* links of one process that are known at a time */

struct worker {
    struct board *board;
    struct place *place;
    struct sizes sizes;
    unsigned number;
    uint32_t incarnation;
    uint64_t step, random;
    struct nvlx_engine *engine, *stranger; /* the second one only allocates */
    uint64_t told;                         /* the newest generation that it has published */
    bool held;                             /* changes are held back */
    struct inbound inbound[PROCESSES_MAX][INBOUND];
    uint64_t events;                 /* that were asked for, so far */
    uint64_t checked[PROCESSES_MAX]; /* receipts of each, that were found right */
    struct segment segments[SEGMENTS];
    struct link links[PROCESSES_MAX];
    struct list lists[LISTS];
    struct move kept[PROCESSES_MAX];  /* a read of each that was looked up long ago */
    uint8_t *bytes, *poison, *letter; /* host memory: the longest segment, one op, one message */
};

/* ---- Chance -------------------------------------------------------------------------------------------- */

uint64_t draw(struct worker *w, uint64_t below);
bool chance(struct worker *w, unsigned percent);
/* One of several: 0, short, long, and seldom for ever. */
int64_t draw_timeout(struct worker *w);

/* ---- Calls --------------------------------------------------------------------------------------------- */

/* Counts as wrong, with the words of the library. */
void wrong_code(struct worker *w, const char *call, int code);
uint64_t new_stamp(struct worker *w);
void region_name(unsigned name, char text[16]);
size_t scratch_stride(const struct worker *w);

/* ---- Actions ------------------------------------------------------------------------------------------- */

/* memory.c */
void act_inspect(struct worker *w);
/* Bytes of its own. */
void fill_own(struct worker *w, const struct segment *segment, size_t offset, size_t length, uint64_t stamp,
              uint64_t index);
void check_own(struct worker *w, const struct segment *segment, size_t offset, size_t length, uint64_t stamp,
               uint64_t index, const char *what);

/* Memory of the host backend that is about to be freed: that no other process maps it. Not that of a pool, which peers
 * keep. */
void check_unmapped(struct worker *w, const struct segment *segment);

/* regions.c */
/* The stamp of memory that nobody may read. */
uint64_t nothing(const struct worker *w);
bool is_inbox(const struct segment *segment);
unsigned name_of(const struct segment *segment, unsigned index);
struct segment *find_current(struct worker *w, unsigned group);
struct segment *draw_current(struct worker *w);
struct record *record_of(struct worker *w, const struct region *region);
/* Notes a content on the board. */
void enter_content(struct worker *w, const struct segment *segment, struct region *region);
/* Since which generation peers can know what was shared. */
void tell(struct worker *w, struct segment *segment);
void publish(struct worker *w);
/* Returns whether there was room. */
bool allocate_segment(struct worker *w, struct segment *segment);
/* After it has looked at it. */
void free_segment(struct worker *w, struct segment *segment);
void give_memory_back(struct worker *w, struct segment *segment);
void note_withdrawn(struct worker *w, struct segment *segment, unsigned index);
void note_released(struct worker *w, struct segment *segment, struct region *region);
/* Another segment of the same size, at once: so most often it lies where the one lay that was freed. */
void take_again(struct worker *w, struct segment *segment, const void *before);
void act_grow(struct worker *w);
void act_renew(struct worker *w);
void act_withdraw(struct worker *w);
void act_withdraw_all(struct worker *w);
void act_settle(struct worker *w);
void act_swap(struct worker *w);
void end_memory(struct worker *w);
/* The engine will free it. */
void forget_memory(struct worker *w);

/* sleep.c */
void act_suspend(struct worker *w);
void act_resume(struct worker *w);

/* freed.c */
void act_free(struct worker *w);

/* messages.c */
void act_send(struct worker *w);
void act_events(struct worker *w);
/* Reads all events, and looks whether all messages are there that their senders know to be taken. */
void drain_events(struct worker *w);
#define LETTER_MOST 65536
/* Writes a message of the list to its only peer into the worker's `letter`. Returns its length; 0: it cannot have one.
 */
size_t write_letter(struct worker *w, struct list *list);
void note_sent(struct link *link, size_t length, bool alone);
/* Its link's messages are taken, up to this one. */
void note_taken(struct worker *w, unsigned process, uint64_t receipt);
uint64_t receipt_of(const struct link *link);
/* As many bytes may be under way as are allowed. */
bool is_full(const struct link *link);

/* verify.c */
void act_verify(struct worker *w);
/* Of a list with NVLX_VERIFY that has ended with this code. */
void check_verified(struct worker *w, const struct list *list, int code);

/* inboxes.c */
/* A message says that this was written into an inbox of this content. */
struct written {
    unsigned inbox;
    uint64_t content, stamp, offset, length;
    uint64_t row, pitch; /* as in struct note */
};
void check_arrived(struct worker *w, unsigned writer, uint32_t incarnation, const struct written *written);
void act_inboxes(struct worker *w);
void begin_inboxes(struct worker *w);
/* Its region is shared; is about to be withdrawn. */
void inbox_open(struct worker *w, struct segment *segment);
void inbox_close(struct worker *w, struct segment *segment);
/* Whether nobody has claimed it any more, once it was closed. */
bool inbox_settled(struct worker *w, const struct segment *segment);

/* observer.c */
/* Before a change, seldom: one that follows this process itself. NULL: nobody does, this time. */
struct nvlx_peer *begin_observing(struct worker *w);
/* It hears of the change, though this process makes no other one. */
void end_observing(struct worker *w, struct nvlx_peer *observer, const char *change);

/* links.c */
void act_connect(struct worker *w);
void act_part(struct worker *w);
void act_test(struct worker *w);
void act_map(struct worker *w);
void act_sync(struct worker *w);
void end_links(struct worker *w);
/* One that is connected; NULL: there is none. */
struct link *draw_link(struct worker *w);
/* Finds a name. 0, or NVLX_ENOENT. `known`: as in struct move. */
int find_name(struct worker *w, struct link *link, unsigned name, uint64_t *address, uint64_t *length, uint64_t *known);

/* lists.c */
struct list *draw_list(struct worker *w, enum list_state state);
/* Notes what must be known from before a call that starts it. */
void begin_call(struct list *list);
void in_flight(struct worker *w, struct list *list);
/* Now and then its completion shall be an event. */
void draw_event(struct worker *w, struct list *list, struct nvlx_transfer_options *options);
void note_done(struct worker *w, const struct nvlx_event *event);
/* A call was refused: nothing was done. */
void check_refusal(struct worker *w, struct list *list, const char *call, int code);
/* All that is in flight with this process itself. */
void complete_own(struct worker *w);
void act_transfer(struct worker *w);
void act_prepare(struct worker *w);
void act_post(struct worker *w);
void act_nap(struct worker *w);
void act_unprepare(struct worker *w);
void act_complete(struct worker *w);
void begin_lists(struct worker *w);
void end_lists(struct worker *w);
/* Frees what names the link, and completes what is in flight with it. */
void release_link(struct worker *w, const struct link *link);

/* moves.c */
bool choose_move(struct worker *w, struct move *move, bool write);
bool claim_inbox(struct worker *w, struct move *move);
void settle_inbox(struct worker *w, struct move *move, bool written);
/* From the first byte of an op to its last, here. */
size_t local_length(const struct move *move);
struct nvlx_op op_of(const struct move *move);
/* Fills the local side: with what is to be written, or with what must not be left. */
void fill_local(struct worker *w, struct move *move);
/* Whether a call that names it may fail with this code, since the peer is gone, or has withdrawn what it names.
 * `generation`: that of the options. */
bool may_fail(struct worker *w, const struct move *move, uint64_t generation, int code);
void check_move(struct worker *w, const struct list *list, struct move *move);

/* worker.c */
struct beginning { /* what the judge says to a process, with the board's file */
    unsigned number;
    uint32_t incarnation;
};
void serve_address(const struct board *board, unsigned process, char text[108]);
void worker_role(int socket);
const char *action_name(int action);

#endif
