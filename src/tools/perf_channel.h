/* nvlx_perf: between the measuring process and the owner of the other memory.
 *
 * A socket carries commands and answers; the owner waits there. Shared memory carries the start and end of a timed
 * round, since waking a process through a socket takes longer than a small transfer:
 *
 *     measuring process                    owner
 *     PERF_ROUND command           ->      answers, then looks at `go`
 *     sees the answer
 *     go = the round's number      ->      does its part
 *     looks at `done`              <-      done = the round's number
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_CHANNEL_H
#define PERF_CHANNEL_H

#include <stdatomic.h>
#include <sys/types.h>

#include "perf.h"

struct perf_shared {
    _Alignas(64) atomic_uint go;   /* written by the measuring process */
    _Alignas(64) atomic_uint done; /* written by the owner */
};

struct perf_channel {
    int socket;
    struct perf_shared *shared;
    pid_t owner;    /* 0 in the owner */
    uint32_t round; /* the number of the last one */
};

/* Each is answered by a message of the same command; what the answer carries is empty if nothing is said of it. */
enum perf_command {
    PERF_SETUP,   /* struct perf_setup; answered by struct perf_setup_answer and the descriptor */
    PERF_PEER,    /* the measuring process's descriptor */
    PERF_LIST,    /* struct perf_owner_list */
    PERF_ROUND,   /* uint32_t, enum perf_part; see above */
    PERF_FILL,    /* uint64_t, the seed that fills the owner's memory */
    PERF_CHECK,   /* struct perf_piece, as many as cover the owner's memory; answered by struct perf_wrong */
    PERF_LEAVE,   /* closes what is open of the measuring process */
    PERF_COMMANDS /* how many */
};

struct perf_message {
    uint32_t command;
    size_t length;
    char *payload; /* of the receiver, who frees it */
};

/* Starts the owner, this same program. To be called before anything is asked of the driver. */
void perf_channel_start(struct perf_channel *channel);
/* In the owner: `argument` is what it was started with. */
void perf_channel_inherit(struct perf_channel *channel, const char *argument);
/* The owner's end follows; waits for it. */
void perf_channel_end(struct perf_channel *channel);

/* Sends in two parts; `second` may be empty. */
void perf_send(struct perf_channel *channel, uint32_t command, const void *first, size_t first_length,
               const void *second, size_t second_length);
/* False: the other process has closed the channel, or ended. */
bool perf_receive(struct perf_channel *channel, struct perf_message *message);
/* The owner's answer to a command that was sent; dies if its payload has another length. */
void perf_answer(struct perf_channel *channel, void *answer, size_t length);
/* Sends a command and waits for its answer, which is empty. */
void perf_command(struct perf_channel *channel, enum perf_command command, const void *payload, size_t length);
/* Dies if the other process has ended. */
void perf_channel_look(const struct perf_channel *channel);

/* The measuring process's side of a round. */
void perf_round_begin(struct perf_channel *channel, uint32_t part);
void perf_round_go(struct perf_channel *channel);
void perf_round_wait(struct perf_channel *channel);
/* The owner's side: after the answer. */
void perf_round_await_go(struct perf_channel *channel);
void perf_round_done(struct perf_channel *channel);

#endif
