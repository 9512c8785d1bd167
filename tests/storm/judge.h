/* The judge of a storm: starts its processes, kills, stops and wakes them, and finds those that hang.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef STORM_JUDGE_H
#define STORM_JUDGE_H

#include "board.h"
#include "process.h"

struct patient { /* a process, in its present life */
    struct child child;
    uint32_t life;
    uint64_t steps, moved_at; /* when it made a step last */
    uint64_t wake_at;         /* it is stopped until then; 0: it is not */
};

struct judge {
    struct board *board;
    int file;
    uint64_t random;
    uint64_t kill_pause, stop_pause; /* between two, on average, in ns */
    uint64_t hang;                   /* without a step */
    uint64_t kills, crashes, stops, hangs, lives;
    struct patient patients[PROCESSES_MAX];
};

void judge_begin(struct judge *judge);
/* Until then. */
void judge_run(struct judge *judge, uint64_t end);
/* All let go of everything, and end. */
void judge_end(struct judge *judge);

#endif
