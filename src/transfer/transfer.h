/* Requests: from the caller's list of ops to its completion.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *     VALIDATED  the whole list is good, all it needs is mapped (validate.h), and it is a plan, or the first portion of
 *                one (plan/plan.h); nothing is held yet
 *     IN FLIGHT  in the list of requests in flight; pins its peers and mappings, and its local bytes cannot be
 *                unregistered; its copies are being issued (of a long list, while the rest is still being planned), or
 *                are on lanes, each lane's last one followed by an event
 *     COPIED     all its events were seen complete, what is verified was compared, nothing is held any more, and its
 *                message (nvlxi_asked) is on its way to the peer; not of a request without one
 *     DONE       all its events were seen complete (or the device failed), what is verified was compared, its message
 *                was taken (or cannot be): status is set, nothing is held any more
 * A list whose stream captures a graph is never IN FLIGHT: see graphs.h.
 *
 * The step to IN FLIGHT is made with the engine's `tables` still held for reading since validation, so that whoever
 * then takes them for writing sees every request that passed it. Until it leaves the list in flight, a request's plan
 * does not change, except while needs.ops is set. The submitter holds `polling` until all is issued;
 * then each poller takes it by trylock, so exactly one at a time looks at the events, and one of them makes the step to
 * DONE, or COPIED. Nobody needs to ask about a request that has something to tell when it is DONE: see notice.h.
 * `mutex` guards the lists. Order: tables, then mutex; polling, then mutex; who holds the mutex only tries
 * polling. */
#ifndef NVLXI_TRANSFER_TRANSFER_H
#define NVLXI_TRANSFER_TRANSFER_H

#include <pthread.h>
#include <stdatomic.h>

#include "remote/event.h"
#include "transfer/blocks/issue.h"
#include "transfer/blocks/places.h"
#include "transfer/hold.h"
#include "transfer/plan/tally.h"
#include "transfer/requests/notice.h"
#include "transfer/submit.h"
#include "transfer/validate/validate.h"
#include "transfer/verify.h"

#define NVLXI_VERIFIED_MAX 32                    /* verified transfers in flight: each has lanes of its own */
#define NVLXI_SLAB_BYTES   (UINT64_C(256) << 20) /* of a verified transfer: what is digested while more arrives */
#define NVLXI_EARLY_BYTES  (UINT64_C(256) << 20) /* mapped between two parts of a list (early.h) */

struct nvlxi_early;
struct nvlxi_letter;

struct nvlxi_asked { /* of a transfer: what is to be told when it is complete */
    bool event;      /* REQUEST_DONE, with `user` */
    void *user;
    struct nvlxi_letter
        *letter; /* its message, which waits in the queue of the peer (rendezvous/messages/outbox.h); or NULL */
    enum {
        NVLXI_WANTS_REQUEST,
        NVLXI_WANTS_NO_REQUEST, /* the stream must be one that captures */
        NVLXI_WANTS_EITHER
    } wanted;
};

/* How it is told: set by who can. All are called under the request's `polling`, except for `forget`. */
struct nvlxi_teller {
    /* The bytes are in place. 0: nvlxi_request_conclude comes, by another thread, once it is known what has become of
     * the message; or why it cannot be delivered. The letter is gone. */
    int (*deliver)(struct nvlxi_letter *letter, struct nvlx_request *request);
    void (*cancel)(struct nvlxi_letter *letter); /* the transfer has failed. The letter is gone */
    void (*done)(void *context, struct nvlx_request *request);
    void (*forget)(void *context, struct nvlx_request *request); /* it is about to be freed */
    void *context;
};

/* How lists wait for counts of peers: set by who can. */
struct nvlxi_waiter {
    /* Lets the caller's stream wait; *number is what `outcome` takes. The mapping is pinned. */
    int (*await)(void *context, void *stream, const struct nvlxi_list_wait *wait, uint64_t *number);
    /* Of a wait behind which the stream has come: 0, or why it has failed. */
    int (*outcome)(void *context, uint64_t number);
    /* The list was refused: its stream is to go on. */
    void (*drop)(void *context, uint64_t number);
    void *context;
};

struct nvlxi_transfers {
    struct nvlx_engine *engine;
    struct nvlxi_registration *registration;
    const struct nvlxi_context *context;
    uint32_t max_requests;
    uint32_t mechanism, max_sms; /* of transfers that do not say; max_sms 0: as the plan's groups say */
    pthread_mutex_t mutex;
    struct nvlx_request *in_flight, *done;    /* lists of what the caller has not freed */
    struct nvlx_request *captured;            /* list: parts of graphs (graphs.h), */
    struct nvlxi_holds holds;                 /* and which of them graphs have let go of */
    struct nvlxi_captured *watched;           /* list: parts that may meet ids out of range, */
    size_t watched_count;                     /* how many, */
    atomic_uint_fast64_t looked_ns;           /* and when they were looked at */
    struct nvlx_request *idle;                /* freed, kept for the next */
    struct nvlxi_form *forms;                 /* list: of prepared lists */
    struct nvlxi_validation *validations;     /* idle scratch memory */
    struct nvlxi_verification *verifications; /* idle */
    uint32_t in_flight_count, idle_count;
    uint64_t number; /* of the request that came last */
    struct nvlxi_lane_pool pool;
    struct nvlxi_desks *desks;    /* the engine's */
    atomic_uint verified;         /* in flight */
    uint64_t slab;                /* NVLXI_SLAB_BYTES, or fewer leaves for tests */
    uint64_t early_bytes;         /* NVLXI_EARLY_BYTES, or fewer for tests */
    atomic_uint_fast64_t used_ns; /* when something was submitted (wake.h) */
    struct nvlxi_teller teller;
    struct nvlxi_waiter waiter;
    struct nvlxi_notices *notices; /* NULL until it is needed; under the mutex */
};

struct nvlx_request {
    struct nvlx_engine *engine;
    struct nvlxi_transfers *transfers;
    atomic_int status; /* NVLX_EAGAIN until DONE */
    pthread_mutex_t polling;
    int outcome; /* the first failure so far; under `polling` */
    char error[256];
    struct nvlxi_plan plan; /* of a transfer */
    struct nvlxi_needs needs;
    struct nvlx_prepared *prepared;  /* of a post, with */
    struct nvlxi_form *form;         /* the form that it posts: has plan and needs */
    struct nvlxi_block_work blocks;  /* of a transfer of blocks by id: what its plan names */
    struct nvlxi_captured *captured; /* of a part of a graph (graphs.h); else NULL */
    struct nvlxi_legs legs;
    struct nvlxi_verification *verification; /* NULL: none. Its own until it is DONE */
    struct nvlx_request_info info;           /* what is known when it is issued; the rest when it is asked for */
    uint64_t number; /* in the order in which they came to be in flight; under the transfers' mutex */
    uint64_t started_ns, elapsed_ns;
    uint64_t range;                   /* that a profiler sees; 0: none does */
    uint64_t waits[NVLXI_LIST_WAITS]; /* that its copies are behind, */
    uint32_t wait_count;              /* and how many */
    struct nvlxi_asked asked;
    struct nvlxi_tally_kept kept; /* of one that is COPIED */
    struct nvlxi_notice *notice;  /* while it is IN FLIGHT, if something is to be told */
    bool copied;                  /* COPIED; under `polling` */
    bool detached;                /* nobody has it: who sees it DONE recycles it; under `polling` */
    bool is_part;                 /* of another request (early.h): reads of one peer, */
    uint64_t generation;          /* as that was at this generation */
    struct nvlx_request *parts;   /* list by `next_part`, until it is DONE */
    struct nvlx_request *next_part;
    struct nvlxi_event_node done;       /* its event */
    struct nvlx_request *next_complete; /* of who found it so, under `polling` */
    struct nvlx_request *prev, *next;
};

/* What a prepared list became when it was checked last. It never changes; posts in flight keep it. */
struct nvlxi_form {
    struct nvlxi_transfers *transfers;
    struct nvlx_prepared *prepared;
    struct nvlxi_plan plan; /* the kernels' lists lie in one chunk each */
    struct nvlxi_needs needs;
    struct nvlx_request_info info;
    const struct nvlxi_form *older; /* while it is made: the form that it shall replace, or NULL */
    atomic_uint users;              /* the prepared list, and posts in flight */
    atomic_bool upset;              /* own bytes of it have slept: it keeps none, and is not posted any more */
    struct nvlxi_known {
        uint64_t generation;          /* that the list was validated against, */
        atomic_uint_fast64_t changes; /* and how the peer's table had changed when the list was found good last */
    } * known;                        /* [peers] */
    const struct nvlxi_validated *validated; /* while it is made */
    struct nvlxi_block_places places;        /* of tables of blocks: instead of a plan, which is empty */
    struct nvlxi_form *prev, *next;
};

struct nvlx_prepared {
    struct nvlx_engine *engine;
    struct nvlxi_transfers *transfers;
    struct nvlx_op *ops; /* the caller's, copied */
    size_t count;
    struct nvlxi_shape shape; /* the same as rows; of no ops: there are none */
    size_t peer_count;        /* that they name */
    struct nvlx_peer *peer;   /* the first */
    uint64_t generation;      /* of its one peer, that the ops are from; 0: not checked */
    uint32_t flags, mechanism, max_sms;
    int32_t priority;
    struct nvlxi_block_tables *tables; /* of blocks by id, whose bytes are the list; NULL: it is a list alone */
    struct nvlxi_form *form;           /* the newest; under the transfers' mutex */
    atomic_uint posts;                 /* in flight */
};

void nvlxi_transfers_init(struct nvlxi_transfers *transfers, const struct nvlxi_context *context, size_t list_limit);
/* Waits for all in flight; frees all requests and prepared lists. */
void nvlxi_transfers_free(struct nvlxi_transfers *transfers);

/* `asked` is taken over by the request; after a failure it is the caller's again. *request is NULL where the stream
 * captures. */
int nvlxi_transfer_submit(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count,
                          const struct nvlx_transfer_options *options, const struct nvlxi_asked *asked,
                          struct nvlx_request **request);

/* The first ops of `early->some`: reads of a peer's mapping that is PENDING, and which has all their bytes by now.
 * NVLX_EAGAIN: they need other mappings, too. `early->validation` is for all parts that read this mapping, made for the
 * first: what it knows may never be, so no other list gets it. */
int nvlxi_transfer_submit_part(struct nvlxi_early *early, size_t count, struct nvlx_peer *peer,
                               struct nvlxi_mapping *opening, struct nvlx_request **part);

int nvlxi_prepare(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared);
/* The same of tables of blocks, with the ops that they are, for nvlxi_post with blocks. Both are taken over, except
 * after a failure. */
int nvlxi_prepare_tables(struct nvlxi_transfers *transfers, struct nvlxi_block_tables *tables, struct nvlx_op *ops,
                         size_t count, const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared);

struct nvlxi_block_call;
struct nvlxi_posting {
    void *stream;                    /* the caller's, or NULL */
    struct nvlxi_block_call *blocks; /* of tables of blocks: which (blocks/blocks.h) */
};
/* As nvlxi_transfer_submit. NVLXI_PLAIN: see there. */
int nvlxi_post(struct nvlx_prepared *prepared, const struct nvlxi_posting *posting, const struct nvlxi_asked *asked,
               struct nvlx_request **request);
void nvlxi_prepared_free(struct nvlx_prepared *prepared);
#define NVLXI_OUTDATED 5 /* beside the codes of errors */
/* What a list names must still be there for a post: nothing is sent to who is gone. NVLXI_OUTDATED, not logged: it is
 * there, but elsewhere, or was away meanwhile. */
int nvlxi_form_check(const struct nvlxi_form *form);
/* Checks, maps and plans the list once more, since `older`, which the caller has, does not fit any more. NVLX_ESTALE:
 * what it names is not what it was prepared for; NVLX_ESUSPENDED: yet. */
int nvlxi_prepared_renew(struct nvlx_prepared *prepared, struct nvlxi_form *older);
void nvlxi_form_drop(struct nvlxi_form *form);

/* Whether a prepared list names the peer. */
bool nvlxi_prepared_names(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer);

/* Between transfer.c and prepared.c: a list on its way to VALIDATED and further. */
struct nvlxi_admission {
    const struct nvlx_op *ops;
    size_t count;
    struct nvlxi_early *early; /* what begins while it is mapped, and has the ops; or NULL */
    uint32_t flags;            /* NVLX_NO_MAP */
    bool unplanned;            /* it is checked, and not planned */
    bool portions;             /* the plan may get the first portion only: the others are planned from `validated` */
    struct nvlxi_plan *plan;   /* the holder's, with its mechanism set */
    struct nvlxi_needs *needs; /* the holder's */
    struct nvlxi_validation *validation;
    struct nvlxi_verification *verification; /* to be planned; or NULL */
    int (*enter)(void *holder);              /* makes the holder hold what it needs */
    void *holder;
};

/* Checks a list, maps what it needs, plans it and, with the tables still locked, calls `enter`. */
int nvlxi_transfer_admit(struct nvlxi_transfers *transfers, const struct nvlxi_admission *admission);
/* What a submission works with: a request and a validation, or only what is not NULL; all of it, or NVLX_ENOMEM. */
int nvlxi_transfers_take(struct nvlxi_transfers *transfers, struct nvlx_request **request,
                         struct nvlxi_validation **validation);
void nvlxi_transfers_return_validation(struct nvlxi_transfers *transfers, struct nvlxi_validation *validation);
/* Those of a request, or of the form that it posts. */
const struct nvlxi_needs *nvlxi_request_needs(const struct nvlx_request *request);
/* The plan is whole: from now on it tells what the list uses, and not the caller's ops, which may go. */
void nvlxi_needs_drop_ops(struct nvlxi_transfers *transfers, struct nvlxi_needs *needs);

/* Between transfer.c and request.c. The first failure counts; its words are those of the last error. */
void nvlxi_request_fail(struct nvlx_request *request, int code);
/* What compares the bytes of a request when they are there. NVLX_EBUSY: as many as may be are in flight. */
int nvlxi_request_make_verification(struct nvlx_request *request);
/* Gives it back, if it has one. */
void nvlxi_request_drop_verification(struct nvlx_request *request);
/* IN FLIGHT -> DONE or COPIED, under `polling`. */
void nvlxi_request_finish(struct nvlx_request *request);
/* Does so if it is IN FLIGHT and complete. False: it is not complete, and what it waits for may take long. Under
 * `polling`. */
bool nvlxi_request_poll(struct nvlx_request *request);
/* The same, if nobody else is at it. */
void nvlxi_request_look(struct nvlx_request *request);
/* COPIED -> DONE. `code`: what has become of its message, in the words of the last error. */
void nvlxi_request_conclude(struct nvlx_request *request, int code);
/* Keeps a request that is in no list, with an empty plan, for the next transfer, or frees it. */
void nvlxi_request_recycle(struct nvlx_request *request);

/* Gives up a request that was submitted, with no message or event. Returns how it has failed by now, if it has. */
int nvlxi_request_detach(struct nvlx_request *request);
/* Tells the log what is issued: its plan in a line. */
void nvlxi_request_tell(const struct nvlx_request *request);

int nvlxi_request_test(struct nvlx_request *request);
int nvlxi_request_wait(struct nvlx_request *request, int64_t timeout_ns);
void nvlxi_request_info(struct nvlx_request *request, struct nvlx_request_info *info);
int nvlxi_request_free(struct nvlx_request *request);

/* The number of the request that came to be in flight last. */
uint64_t nvlxi_transfers_number(struct nvlxi_transfers *transfers);
/* How many of the requests in flight up to a number name the peer. Parts of lists are none, yet it is not 0 while one
 * does: its list may not be in flight. */
uint32_t nvlxi_transfers_naming(struct nvlxi_transfers *transfers, const struct nvlx_peer *peer, uint64_t number);

/* Looks whether requests in flight are done: for those who wait for what requests hold. */
void nvlxi_transfers_progress(struct nvlxi_transfers *transfers);

/* Waits until none is in flight; nobody submits any more. */
void nvlxi_transfers_finish(struct nvlxi_transfers *transfers);

/* Which of them use any of these local bytes: as nvlxi_users_function. */
uint32_t nvlxi_transfers_users(struct nvlxi_transfers *transfers, uint64_t address, uint64_t length);
/* Marks the forms that may use any of these local bytes. With the tables locked for writing. */
void nvlxi_transfers_upset(struct nvlxi_transfers *transfers, uint64_t address, uint64_t length);

#endif
