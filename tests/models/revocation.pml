/* Revocation: an owner's nvlx_unregister against a follower that is told, asked and answers, while it maps, transfers,
 * posts a prepared list, leaves or dies. SPDX-License-Identifier: Apache-2.0
 *
 * Two rounds: content 0 is registered with generation 1 and withdrawn with 2; content 1, at the same place, with 3 and 4.
 * NEIGHBOUR: another region stays in the segment, so that it stays mapped.
 * What the code does under one lock is one step here. Names of functions stand where they are modelled.
 *
 * Shown: when nvlx_unregister gives 0, no transfer of the follower uses the content, and it is not mapped; no copy touches
 * memory that was freed, or a mapping that was closed; nvlx_unregister ends, also when the follower leaves or dies. */

#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef TRIES
#define TRIES 3 /* of nvlx_transfer, those that map included */
#endif
#ifndef POSTS
#define POSTS 1
#endif
#define CONTENT(generation_since) ((generation_since) == 1 -> 0 : 1)

mtype = { TEXT, AWAIT, HOLDS };
mtype = { ABSENT, PENDING, READY, RETIRED, CLOSING, CLOSED };

/* ---- The owner: local/registration.c, lifetime/revocation.c, rendezvous/server.c */
byte generation = 1, since = 1; /* since: of what is registered; 0: nothing is */
byte wanted;
bool outdated = true;
byte text_generation, text_since;
byte told, released;
bool asked, listed;
bool freed[2];
bool done;

/* ---- The connection */
bool connected = true;
chan down = [2] of { mtype, byte, byte };
chan up = [2] of { byte };

/* ---- The follower: remote/peer.c, remote/mapping.c, transfer/, lifetime/closer.c */
byte known, known_since; /* of its table; 0: nothing */
byte changes;
mtype state[2] = ABSENT;
byte pins[2];
bool open[2];
byte number;                  /* of the newest request */
byte flying[3];               /* number of the request that each thread has in flight; 0: none */
byte question, before;        /* what the closer is to answer: generation; 0: nothing */
bool dead, left;

#define FLYING_BEFORE(n) ((flying[0] && flying[0] <= (n)) || (flying[1] && flying[1] <= (n)) || (flying[2] && flying[2] <= (n)))
#ifdef NEIGHBOUR
#define RETIRES(c, s) false
#else
#define RETIRES(c, s) (state[c] == READY && !(s && CONTENT(s) == c))
#endif
/* nvlxi_mappings_left: retired, being closed, or PENDING and not in the table any more (is_late). */
#ifdef BROKEN_LATE
#define LATE(c) false
#else
#define LATE(c) (state[c] == PENDING && !(known_since && CONTENT(known_since) == c))
#endif
#define LEFT(c) (state[c] == RETIRED || state[c] == CLOSING || LATE(c))
#ifdef BROKEN_TRANSFERS
#define HELD (LEFT(0) || LEFT(1))
#else
#define HELD (FLYING_BEFORE(before) || LEFT(0) || LEFT(1))
#endif
#ifdef BROKEN_PINS
#define PINNED(c) false
#else
#define PINNED(c) (pins[c] != 0)
#endif
/* find_holder */
#define HOLDER (listed && released < without && told >= withdrawn_since)

proctype Owner() {
    byte without, withdrawn_since, round = 0;
    do
    :: round < ROUNDS ->
        /* nvlxi_registration_withdraw */
        d_step { withdrawn_since = since; since = 0; generation++; without = generation }
        outdated = true;
        /* nvlxi_revocations_wait */
        d_step { if :: wanted < without -> wanted = without :: else fi }
        !HOLDER;
        /* nvlx_unregister gives 0 */
        d_step {
#ifndef NEIGHBOUR
            assert(!open[round]);
            assert(!(state[round] == READY));
#endif
            freed[round] = true
        }
        if
        :: round + 1 < ROUNDS -> d_step { generation++; since = generation } outdated = true /* nvlx_register, at the same place */
        :: else
        fi;
        round++
    :: else -> break
    od;
    done = true
}

/* nvlxi_server_turn; only this thread writes to the follower. */
proctype Server() {
    byte g;
end:
    do
    :: atomic { outdated -> outdated = false; text_generation = generation; text_since = since } /* refresh_text */
    :: atomic { connected && text_generation && text_generation != told && text_generation >= wanted } -> /* wants_text */
        /* nvlxi_follower_tell: looks again, under the mutex that nvlxi_revocations_wait has */
        atomic {
            g = text_generation;
            if
#ifndef BROKEN_TELL
            :: g < wanted -> g = 0
#endif
            :: else ->
                if :: !listed -> listed = true; released = g :: else fi;
                told = g
            fi
        }
        if :: g && connected -> if :: down!TEXT(g, text_since) :: !connected fi :: else fi
    :: atomic { connected && listed && !asked && told >= wanted && released < wanted -> asked = true } /* nvlxi_follower_ask */
        if :: down!AWAIT(told, 0) :: !connected fi
    :: atomic { up?g ->                                                                                /* nvlxi_follower_answers */
            assert(g <= told || !listed);
            asked = false;
            if :: released < g -> released = g :: else fi }
    :: atomic { !connected && listed && empty(up) -> /* nvlxi_follower_gone */
#ifndef BROKEN_GONE
            listed = false; told = 0
#else
            break
#endif
        }
    od
}

/* nvlxi_clients_turn */
proctype Service() {
    byte g, s;
    bool held;
    {
        true;
    end:
        do
        :: atomic { down?TEXT(g, s) -> /* swap_table, under the mutex and the tables */
                known = g; known_since = s; changes++;
                if :: RETIRES(0, s) -> state[0] = RETIRED :: else fi;
                if :: RETIRES(1, s) -> state[1] = RETIRED :: else fi }
        :: atomic { down?AWAIT(g, s) -> assert(g <= known); before = number } /* nvlxi_closer_ask */
            held = HELD;
            if
            :: !connected
            :: connected && !held -> up!g
            :: connected && held -> question = g
            fi
        od
    } unless { dead }
}

/* The closer's threads: serve, nvlxi_mappings_close, answer. */
proctype Closer() {
    byte c;
    {
    true;
    end:
        do
        :: atomic { state[0] == RETIRED && !PINNED(0) -> state[0] = CLOSING } c = 0; goto close
        :: atomic { state[1] == RETIRED && !PINNED(1) -> state[1] = CLOSING } c = 1; goto close
        :: atomic { question && !HELD -> c = question; question = 0 }
            if :: connected -> up!c :: else fi
#ifdef BROKEN_FORGET
        :: atomic { question && HELD -> question = 0 } /* says what is held, and does not stay asked */
#endif
        od;
    close:
        atomic { open[c] = false; state[c] = CLOSED };
        goto end
    } unless { dead }
}

inline complete(i, c) {
    /* the copy runs */
    atomic { assert(open[c]); assert(!freed[c]) }
    flying[i] = 0;           /* nvlxi_request_finish: out of the list, */
    pins[c] = pins[c] - 1    /* and then nvlxi_needs_unpin */
}

/* nvlx_transfer: validate_and_enter, map_missing */
proctype Submitter(byte i) {
    byte c, tries = 0;
    {
        true;
    again:
        tries++;
        if
        :: tries > TRIES -> goto stop
        :: else
        fi;
        atomic { /* with the tables held for reading */
            if
            :: left || !known_since -> goto stop
            :: else -> c = CONTENT(known_since)
            fi;
            if
            :: state[c] == READY -> number++; flying[i] = number; pins[c] = pins[c] + 1; goto fly
            :: state[c] == PENDING || state[c] == CLOSED || state[c] == RETIRED || state[c] == CLOSING -> goto stop
            :: else -> skip
            fi
        }
        atomic { /* prepare_opening, create_mapping: PENDING, if the table still has it */
            if
            :: left -> goto stop /* no thread submits any more */
            :: !left && (!(known_since && CONTENT(known_since) == c) || state[c] != ABSENT) -> goto again
            :: else -> state[c] = PENDING
            fi
        }
        atomic { /* ops->map, without a lock: what was freed cannot be opened */
            if
            :: freed[c] -> state[c] = CLOSED; goto again
            :: else -> open[c] = true
            fi
        }
        atomic { /* finish_mapping */
            if
            :: known_since && CONTENT(known_since) == c -> state[c] = READY
            :: else -> state[c] = RETIRED
            fi
        }
        goto again;
    fly:
        complete(i, c);
        goto again;
    stop:
        skip
    } unless { dead }
}

/* nvlx_prepare, then nvlx_post twice: enter, check_post. */
proctype Poster() {
    byte c, checked, posts = 0;
    bool good;
    {
        atomic {
            if
            :: known_since && state[CONTENT(known_since)] == READY && !left -> c = CONTENT(known_since); checked = changes
            :: left || done -> goto stop
            fi
        }
    again:
        posts++;
        if
        :: posts > POSTS -> goto stop
        :: else
        fi;
#ifdef BROKEN_POST
        good = state[c] == READY && (checked == changes || (known_since && CONTENT(known_since) == c));
        if :: left -> goto stop :: else fi;
        atomic { number++; flying[2] = number; pins[c] = pins[c] + 1 }
#else
        atomic { if :: left -> goto stop :: else -> number++; flying[2] = number; pins[c] = pins[c] + 1 fi }
        good = checked == changes || (known_since && CONTENT(known_since) == c); /* check_again */
        good = good && state[c] == READY;                                        /* retired */
#endif
        if
        :: good -> complete(2, c); goto again
        :: else -> flying[2] = 0; pins[c] = pins[c] - 1 /* leave */
        fi;
    stop:
        skip
    } unless { dead }
}

/* nvlx_peer_close, when no other thread submits any more: `left`. Or the process dies. */
proctype End() {
    if
    :: skip
    :: atomic { connected -> dead = true; open[0] = false; open[1] = false; state[0] = CLOSED; state[1] = CLOSED;
            flying[0] = 0; flying[1] = 0; flying[2] = 0; connected = false }
    :: atomic { !flying[0] && !flying[1] && !flying[2] && !pins[0] && !pins[1] && state[0] != PENDING && state[1] != PENDING ->
            left = true }
#ifdef BROKEN_LEAVE
        connected = false; /* nvlxi_rendezvous_leave came before nvlxi_peer_let_go */
#endif
        atomic { if :: state[0] == READY -> state[0] = RETIRED :: else fi; if :: state[1] == READY -> state[1] = RETIRED :: else fi }
        !LEFT(0) && !LEFT(1); /* nvlxi_peer_let_go; the closer closes here */
        connected = false
    fi
}

init {
    atomic {
        run Owner(); run Server(); run Service(); run Closer(); run Submitter(0);
        if :: POSTS > 0 -> run Poster() :: else fi;
        run End()
    }
}
