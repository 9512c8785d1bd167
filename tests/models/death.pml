/* Death: a peer's process ends while a reader maps, transfers, posts a prepared list, and closes the peer.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the code does under one lock is one step here. Names of functions stand where they are modelled.
 *
 * Shown: no copy touches a mapping that was closed; once the loss is noted, nothing new is accepted; what was mapped is
 * closed in the end by itself, without anybody asking; neither the service thread nor the closer touches a peer that was
 * freed; nobody waits for ever. */

mtype = { ABSENT, PENDING, READY, RETIRED, CLOSING, CLOSED };

mtype state = ABSENT; /* of the mapping */
bool open;
byte pins;
bool gone;            /* nvlxi_peer_why_gone */
bool lost;            /* nvlxi_peer_lose has returned */
byte flying;
bool dead;            /* the peer's process */

/* lifetime/closer.h: struct nvlxi_parting; rendezvous/client.c: struct nvlxi_subscription */
bool listed, pending, closer_busy;
bool subscribed = true, busy, ended;
bool freed;           /* the peer */
byte users = 2;       /* threads that may still submit */

#ifdef BROKEN_PINS
#define PINNED false
#else
#define PINNED (pins != 0)
#endif
#define LEFT (state == RETIRED || state == CLOSING || (gone && state == PENDING))

/* The service thread: nvlxi_clients_turn, end */
proctype Service() {
end:
    atomic { dead && subscribed && !ended -> busy = true }
    assert(!freed);
#ifdef BROKEN_LOSE
    /* what is there is retired before the peer is gone: a mapping may come in between */
    atomic { if :: state == READY -> state = RETIRED :: else fi }
    gone = true;
#else
    gone = true; /* nvlxi_peer_lose: with the tables locked for writing; then retire_all, still under the mutex */
    atomic { if :: state == READY -> state = RETIRED :: else fi }
#endif
    lost = true;
    assert(!freed);
    atomic { if :: LEFT -> listed = true; pending = true :: else fi } /* nvlxi_closer_add */
    ended = true;
    atomic { assert(!freed); busy = false }
}

/* A thread of the closer: turn, serve */
proctype Closer() {
end:
    do
    :: atomic { listed && pending -> pending = false; closer_busy = true }
        assert(!freed);
        if
        :: atomic { state == RETIRED && !PINNED -> state = CLOSING } /* take_closable */
            atomic { assert(!freed); open = false; state = CLOSED }
        :: else
        fi;
        atomic {
            assert(!freed);
            closer_busy = false;
            if
            :: LEFT -> pending = true
            :: else -> listed = false /* forget */
            fi
        }
        /* it naps while what is left is pinned, or being opened or closed */
        if
        :: !listed
        :: listed && !(state == RETIRED && PINNED) && state != PENDING && state != CLOSING
        fi
    od
}

/* nvlx_transfer: validate_and_enter, map_missing */
proctype Submitter() {
    byte tries = 0;
    bool known_lost;
    do
    :: tries < 3 ->
        tries++;
        known_lost = lost;
        atomic { /* with the tables held for reading */
            if
            :: gone -> break
            :: !gone && state == READY -> assert(!known_lost); pins++; flying++; goto fly
            :: !gone && state != READY -> skip
            fi
        }
        atomic { if :: state == ABSENT -> state = PENDING :: else -> break fi } /* create_mapping */
        if /* open_mapping: nvlxi_peer_check; ops->map may fail, since the process is gone */
        :: atomic { gone || dead -> state = ABSENT } break
        :: atomic { !gone -> open = true }
        fi;
        atomic { /* finish_mapping */
            if
#ifdef BROKEN_FINISH
            :: true -> state = READY
#else
            :: !gone -> state = READY
            :: gone -> state = RETIRED
#endif
            fi
        };
        skip;
        goto next;
    fly:
        assert(open);
        flying--;
        pins--;
    next:
        skip
    :: tries == 3 -> break
    od;
    users--
}

/* nvlx_post: enter, check_post. Its list was prepared while the peer lived, and keeps the mapping's record, not the
 * mapping. */
proctype Poster() {
    bool good, known_lost;
    if
    :: state == READY ->
#ifdef BROKEN_POST
        good = !gone && state == READY;
        atomic { pins++; flying++ }
#else
        known_lost = lost;
        atomic { pins++; flying++ }
        good = !gone;
        good = good && state == READY; /* retired */
#endif
        if
        :: good -> assert(!known_lost); assert(open)
        :: else
        fi;
        flying--;
        pins--
    :: users == 1
    fi;
    users--
}

/* nvlx_peer_close, by the last thread that knows the peer */
proctype User() {
    users == 0;
    if
    :: skip
    :: dead && lost -> goto done /* it never closes the peer: what was mapped must be closed all the same */
    fi;
    pins == 0;
    /* nvlxi_peer_let_go: retire_all; then closes, and waits for the closer */
    atomic { if :: state == READY -> state = RETIRED :: else fi }
    if
    :: atomic { state == RETIRED && !pins -> state = CLOSING } open = false; state = CLOSED
    :: !LEFT
    fi;
    !LEFT;
#ifdef BROKEN_LEAVE
    subscribed = false; /* nvlxi_clients_leave does not wait for the service thread */
#else
    atomic { !busy -> subscribed = false }
#endif
    atomic { !closer_busy -> listed = false; pending = false } /* nvlxi_closer_leave */
    atomic { assert(!open); freed = true }
done:
    skip
}

proctype Death() {
    dead = true
}

/* In the end nothing is mapped. */
proctype Last() {
end:
    timeout -> assert(!open); assert(state == ABSENT || state == CLOSED)
}

init {
    atomic { run Service(); run Closer(); run Submitter(); run Poster(); run User(); run Death(); run Last() }
}
