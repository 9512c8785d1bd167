/* Revocation: an owner's nvlx_unregister against a follower that is told, asked and answers, while it maps, transfers,
 * posts a prepared list, is cut off, loses the connection, leaves or dies. SPDX-License-Identifier: Apache-2.0
 *
 * Two rounds: content 0 is registered with generation 1 and withdrawn with 2; content 1, at the same place, with 3 and 4.
 * The journal has room for one change: who missed more gets a whole TEXT, others CHANGES. OLDER: who cannot read these.
 * NEIGHBOUR: another region stays in the segment, so that it stays mapped.
 * ENDS: the owner may cut the follower off, or the follower end the connection; then it may connect once more, which is
 * modelled from when its first peer has let go on: what both hold does not meet.
 * What came and went between two generations that the follower is told is not waited for.
 * What the code does under one lock is one step here. Names of functions stand where they are modelled.
 *
 * Shown: when nvlx_unregister gives 0, no transfer of the follower uses the content, and it is not mapped; no copy touches
 * memory that was freed, or a mapping that was closed; nvlx_unregister ends, also when the follower is cut off, leaves or
 * dies; what changes make of a table is what the owner has told. */

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

mtype = { TEXT, CHANGES, AWAIT, CUT };
mtype = { ABSENT, PENDING, READY, RETIRED, CLOSING, CLOSED };

/* ---- The owner: local/registration.c, lifetime/revocation.c, rendezvous/server.c */
byte generation = 1, since = 1; /* since: of what is registered; 0: nothing is */
byte wanted;
byte removed, added = 1; /* the journal: what the newest generation removed and added */
bool outdated = true;
byte text_generation, text_since;
byte told, released;
byte gap_told, gap_next; /* struct nvlxi_gap, the last one; 0, 0: none */
bool asked, listed;
bool cut;
bool freed[2];
bool done;

/* ---- The connection */
bool connected = true;
chan down = [2] of { mtype, byte, byte, byte, byte }; /* TEXT: generation, since; CHANGES: generation, from, removed, added */
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
bool gone;                    /* nvlxi_peer_lose */
bool again_connected;

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
#ifdef BROKEN_GAP
#define NEVER_KNEW (gap_told <= withdrawn_since && without <= gap_next)
#else
#define NEVER_KNEW (gap_told < withdrawn_since && without <= gap_next)
#endif
#define HOLDER (listed && released < without && told >= withdrawn_since && !NEVER_KNEW)
/* takes_changes, nvlxi_journal_after */
#ifdef OLDER
#define TAKES_CHANGES false
#elif defined(BROKEN_JOURNAL)
#define TAKES_CHANGES (told != 0)
#else
#define TAKES_CHANGES (told && told + 1 >= generation)
#endif

proctype Owner() {
    byte without, withdrawn_since, round = 0;
    do
    :: round < ROUNDS ->
        /* nvlxi_registration_withdraw */
        d_step { withdrawn_since = since; removed = since; added = 0; since = 0; generation++; without = generation }
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
        :: round + 1 < ROUNDS -> d_step { generation++; since = generation; removed = 0; added = since } outdated = true /* nvlx_register, at the same place */
        :: else
        fi;
        round++
    :: else -> break
    od;
    done = true
}

/* nvlxi_server_turn; only this thread writes to the follower. */
proctype Server() {
    byte g, from, gone_id, new_id;
    mtype kind;
end:
    do
    :: atomic { outdated -> outdated = false; text_generation = generation; text_since = since } /* refresh_text */
    :: atomic { connected && !cut && text_generation > told && text_generation >= wanted && !TAKES_CHANGES ->
            kind = TEXT; g = text_generation; from = text_since; gone_id = 0; new_id = 0 }
        goto tell
    :: atomic { connected && !cut && generation > told && generation >= wanted && TAKES_CHANGES -> /* nvlxi_news_since */
            kind = CHANGES; g = generation; from = told; gone_id = removed; new_id = added }
    tell:
        /* nvlxi_follower_tell: looks again, under the mutex that nvlxi_revocations_wait has */
        atomic {
            if
#ifndef BROKEN_TELL
            :: g < wanted -> g = 0
#endif
            :: else ->
                if
                :: !listed -> listed = true; released = g
                :: listed && g > told -> gap_told = told; gap_next = g /* note_gap */
                :: else
                fi;
                told = g
            fi
        }
        if :: g && connected -> if :: down!kind(g, from, gone_id, new_id) :: !connected fi :: else fi
    :: atomic { connected && !cut && listed && !asked && told >= wanted && released < wanted -> asked = true } /* nvlxi_follower_ask */
        if :: down!AWAIT(told, 0, 0, 0) :: !connected fi
#ifdef ENDS
    :: atomic { connected && !cut && told && !again_connected -> cut = true } /* cut_off */
#ifdef BROKEN_CUT
        atomic { listed = false; told = 0 }
#endif
        if :: down!CUT(0, 0, 0, 0) :: !connected fi
#endif
    :: atomic { up?g ->                                                                                /* nvlxi_follower_answers */
            assert(g <= told || !listed);
            asked = false;
            if :: released < g -> released = g :: else fi }
    :: atomic { !connected && (listed || cut) && empty(up) -> /* nvlxi_follower_gone */
#ifndef BROKEN_GONE
            listed = false; told = 0; released = 0; gap_told = 0; gap_next = 0; asked = false; cut = false
#else
            break
#endif
        }
    od
}

/* swap_table, or commit of remote/change.c, under the mutex and the tables */
inline set_table(g, s) {
    known = g; known_since = s; changes++;
    if :: RETIRES(0, s) -> state[0] = RETIRED :: else fi;
    if :: RETIRES(1, s) -> state[1] = RETIRED :: else fi
}

/* nvlxi_clients_turn */
proctype Service() {
    byte g, s, went, came;
    bool held;
    {
        true;
    end:
        do
        :: atomic { down?TEXT(g, s, went, came) -> set_table(g, s) }
        :: atomic { down?CHANGES(g, s, went, came) -> /* nvlxi_change_in_place, nvlxi_descriptor_merge */
                assert(s == known && (!went || went == known_since));
                s = (went -> 0 : known_since);
                s = (came -> came : s);
                set_table(g, s) }
#ifdef ENDS
        :: atomic { down?CUT(g, s, went, came) } goto lose /* it has closed */
        :: atomic { known && connected && !again_connected } goto lose /* what it says cannot be read */
#endif
        :: atomic { down?AWAIT(g, s, went, came) -> assert(g <= known); before = number } /* nvlxi_closer_ask */
            held = HELD;
            if
            :: !connected
            :: connected && !held -> up!g
            :: connected && held -> question = g
            fi
        od;
    lose: /* end */
        atomic { gone = true; question = 0;
            if :: state[0] == READY -> state[0] = RETIRED :: else fi;
            if :: state[1] == READY -> state[1] = RETIRED :: else fi;
            before = number }
#ifndef BROKEN_END
        !HELD && state[0] != PENDING && state[1] != PENDING; /* note_let_go */
#endif
        connected = false;
        !listed && !cut;
        /* it connects again: another peer, which knows nothing, and has mapped nothing */
        atomic {
            if
            :: left || dead -> goto end
            :: else
            fi;
            do :: down?_,_,_,_,_ :: empty(down) -> break od;
            again_connected = true; known = 0; known_since = 0; gone = false; connected = true;
            if :: state[0] == CLOSED -> state[0] = ABSENT :: else fi;
            if :: state[1] == CLOSED -> state[1] = ABSENT :: else fi }
        goto end
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
            :: left -> goto stop
            :: !left && (gone || !known_since) -> goto again
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
            :: !left && (gone || !(known_since && CONTENT(known_since) == c) || state[c] != ABSENT) -> goto again
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
            :: !gone && known_since && CONTENT(known_since) == c -> state[c] = READY
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
