/* A process of a storm: one engine, what it shares, whom it follows, and its lists. SPDX-License-Identifier: Apache-2.0
 *
 * It takes one step after the other. A step is a row of the list of actions (worker.c), chosen by the step's own random
 * numbers, which depend on the seed, the process, its incarnation and the number of the step only: so the same seed
 * gives the same choices, whatever else goes on. To add an action: a function that takes the worker, and a row. */
#ifndef STORM_WORKER_H
#define STORM_WORKER_H

#include "board.h"
#include "content.h"
#include "nvlxfer.h"
#include "process.h"

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

enum region_state { REGION_NONE, REGION_SHARED, REGION_WITHDRAWN, REGION_RELEASED };

struct region {
    enum region_state state;
    struct nvlx_region *handle;
    uint64_t stamp;
    uint64_t asked_at;     /* when it was to be unregistered first */
    size_t offset, length; /* in its segment */
};

struct segment {   /* the allocation under the regions of one group, or under one inbox */
    uint8_t *base; /* NULL: there is none */
    size_t length;
    size_t start, end; /* what regions are in */
    unsigned group;    /* GROUPS + i: of inbox i */
    bool current;      /* not: its regions are to go, and it is to be freed */
    uint32_t kind;
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
};

struct move { /* one op */
    bool write;
    struct link *link; /* valid until it is submitted, and while the list is prepared */
    unsigned process;
    uint32_t incarnation;
    unsigned name;
    uint64_t address, length; /* in the peer */
    uint8_t *local;
    uint64_t known[2]; /* stamps of what this process knew to be registered there when it looked; 0: it cannot tell */
    bool spans;        /* two regions */
    uint64_t claim;    /* the state of the inbox since this write has claimed it; 0: it has not */
    uint64_t stamp;    /* what is written, */
    uint64_t offset;   /* and where in the inbox */
};

enum list_state { LIST_EMPTY, LIST_PREPARED, LIST_IN_FLIGHT };

struct list {
    enum list_state state;
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    uint64_t prepared_at, submitted_at;
    size_t count;
    struct move moves[MOVES];
    uint8_t *scratch; /* registered memory: SCRATCH_STRIDE(op) for each of its moves */
    struct nvlx_region *region;
};

struct worker {
    struct board *board;
    struct place *place;
    struct sizes sizes;
    unsigned number;
    uint32_t incarnation;
    uint64_t step, random;
    struct nvlx_engine *engine;
    struct segment segments[SEGMENTS];
    struct link links[PROCESSES_MAX];
    struct list lists[LISTS];
    uint8_t *bytes, *poison; /* host memory: the longest segment, and one op */
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
void act_grow(struct worker *w);
void act_renew(struct worker *w);
void act_withdraw(struct worker *w);
void act_withdraw_all(struct worker *w);
void act_settle(struct worker *w);
void act_swap(struct worker *w);
void end_memory(struct worker *w);
/* The engine will free it. */
void forget_memory(struct worker *w);

/* inboxes.c */
void act_inboxes(struct worker *w);
void begin_inboxes(struct worker *w);
/* Its region is shared; is about to be withdrawn. */
void inbox_open(struct worker *w, struct segment *segment);
void inbox_close(struct worker *w, struct segment *segment);
/* Whether nobody has claimed it any more, once it was closed. */
bool inbox_settled(struct worker *w, const struct segment *segment);

/* links.c */
void act_connect(struct worker *w);
void act_part(struct worker *w);
void act_test(struct worker *w);
void act_map(struct worker *w);
void end_links(struct worker *w);
/* One that is connected; NULL: there is none. */
struct link *draw_link(struct worker *w);
/* Finds a name. 0, or NVLX_ENOENT. `known`: as in struct move. */
int find_name(struct worker *w, struct link *link, unsigned name, uint64_t *address, uint64_t *length, uint64_t *known);

/* lists.c */
void act_transfer(struct worker *w);
void act_prepare(struct worker *w);
void act_post(struct worker *w);
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
struct nvlx_op op_of(const struct move *move);
/* Fills the local side: with what is to be written, or with what must not be left. */
void fill_local(struct worker *w, struct move *move);
/* Whether a call that names it may fail with this code, since the peer is gone, or has withdrawn what it names. */
bool may_fail(struct worker *w, const struct move *move, int code);
/* Whether a prepared list that names it may be outdated though nothing of it was withdrawn. */
bool may_be_outdated(struct worker *w, const struct move *move);
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
