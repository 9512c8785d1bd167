/* Waits: a stream of this process waits for a count that a peer shall signal. The peer may signal and die, in any order,
 * and what it has left in its GPU's queue may still arrive afterwards. Another thread unregisters the count at any time.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One wait, for the value 2; the peer signals 1, then 2. The stream has other work before the wait, and behind it looks
 * at the mark. What the code does under one lock is one step. Names of functions stand where they are modelled.
 *
 * Shown: the stream always goes on; when it does without the signal, the mark is set before; who unregisters the count
 * returns only when the stream has gone on, so that nothing touches the count afterwards; a wait that was signalled, and
 * that nobody ended, has not failed. */

#define AWAITED 2

mtype = { NONE, ENTERED, QUEUED, GONE };

mtype state = NONE;     /* of the wait: lifetime/waits.h */
bool failure, marked;   /* of the wait */
bool registered = true; /* the count: the lookup table */
bool known_dead;        /* nvlxi_peer_why_gone */
byte count;
byte mark;              /* the caller's */
bool signalled;         /* the peer has signalled 2 */
bool in_stream, passed; /* the stream: the wait is in it; it has gone on */
bool refused;           /* nvlx_stream_wait has said no */
bool freed;             /* the memory of the count */
bool dead;
bool written;           /* only with a broken guard: the count, by the library */

/* The peer. Its last signal, of 1 or 2, may stay in a queue of the GPU, and arrive when it is dead. */
proctype Peer() {
    byte left = 0;
    if
    :: atomic { !freed -> count = 1 }
        if
        :: atomic { !freed && registered -> count = 2; signalled = true }
        :: skip
        fi
    :: left = 1
    :: left = 2
    :: skip
    fi
    dead = true;
    if
    :: atomic { left && !freed -> count = left; signalled = signalled || left == AWAITED } /* late */
    :: skip
    fi
}

/* The service thread: nvlxi_peer_lose */
proctype Service() {
    dead -> known_dead = true
}

/* nvlx_stream_wait: enter, with the tables held for reading; then put_into_stream */
proctype Waiter() {
    if
    :: atomic { registered -> state = ENTERED }
    :: atomic { !registered -> refused = true; goto out }
    fi
#ifdef BROKEN_ENTER
    state = NONE; /* it comes to the list only when it is in the stream */
#endif
    in_stream = true;
    atomic { state = QUEUED }
out:
    skip
}

/* The GPU: the stream, which comes to the wait at any time after it was put there */
proctype Stream() {
end:
    in_stream;
    assert(!freed);
    atomic { count >= AWAITED -> passed = true }
    assert(signalled || mark);
}

/* The thread "nvlx-waits": turn */
proctype Thread() {
end:
    do
    :: atomic { state == QUEUED && passed -> state = GONE } /* look, take_out */
    :: atomic { state != NONE && state != GONE && known_dead && !failure && count < AWAITED -> failure = true }
    :: atomic { state != NONE && state != GONE && failure && !marked && count < AWAITED -> /* mark_all */
#ifndef BROKEN_MARK
            mark = 1;
#endif
            marked = true }
#ifdef BROKEN_ONCE
    :: atomic { state != NONE && state != GONE && marked && count < AWAITED && !written -> count = AWAITED; written = true }
#else
    :: atomic { state != NONE && state != GONE && marked && count < AWAITED -> count = AWAITED } /* end_marked */
#endif
    od
}

/* nvlx_unregister: the count is withdrawn with the tables locked for writing; then nvlxi_waits_end, nvlxi_waits_use */
proctype Owner() {
    if
    :: atomic { registered = false }
        atomic { if :: state != NONE && state != GONE -> failure = true :: else fi }
#ifdef BROKEN_USE
        skip;
#else
        state == NONE || state == GONE;
#endif
        atomic { freed = true; assert(!in_stream || passed) }
    :: skip
    fi
}

init {
    atomic { run Peer(); run Service(); run Waiter(); run Stream(); run Thread(); run Owner() }
    /* Everybody who can end has ended: then the stream has gone on, if it waits at all. */
    timeout -> assert(!in_stream || passed); assert(state == NONE || state == GONE)
}
