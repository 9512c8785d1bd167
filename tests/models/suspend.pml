/* Suspend and resume: an owner takes the bytes of a region away and brings others to the same place, while a follower
 * maps, transfers and posts a prepared list, and the owner transfers itself. SPDX-License-Identifier: Apache-2.0
 *
 * nvlx_suspend is a revocation that keeps the name: how it asks followers is in revocation.pml, and here one message with
 * its answer. Generation 1 tells the region with its bytes, 2 that it sleeps, 3 that it is back: with other memory, at the
 * same address, for which the driver may even give the same serial. Each is told by CHANGES in the table that there is,
 * where the region keeps its id, or by a whole TEXT, which makes another table. Where nvlx_suspend did not wait until
 * the follower knew, one change tells all: then the memory is as it was. What the code does under one lock is one step.
 *
 * Shown: no copy, of the follower or of the owner, runs on bytes that are away, or on those of before when others are
 * there; what lists keep of the table is not used when it is of before; nobody waits for ever; a list that was prepared
 * before works again after nvlx_resume. */

mtype = { TEXT, CHANGES, AWAIT };
mtype = { ABSENT, PENDING, READY, RETIRED, CLOSING };

/* ---- The owner */
byte generation = 1;
bool sleeping;      /* its region, in its own lookup table */
byte memory = 1;    /* which physical memory is there; 0: none */
byte own_flying;
bool upset;         /* nvlxi_transfers_upset: posts of own prepared lists look again */
bool over;          /* nvlx_resume has returned */

/* ---- The connection: the server tells each generation that is wanted, and asks behind it */
chan down = [3] of { mtype, byte };
chan up = [1] of { byte };

/* ---- The follower. One mapping at a time: its key, base and serial, is the same before and after. */
byte known = 1;
byte version = 1;   /* of the ranges of its table */
#define SLEEPS (known == 2)
mtype state = ABSENT;
byte mapped;        /* which physical memory was opened; 0: none */
byte pins, number, flying, flying_post;
byte question, before;
bool worked;        /* a post after nvlx_resume */

#ifdef NEIGHBOUR
#define RETIRES false
#define RIGHT   (mapped && memory == uses)
#else
#define RETIRES (SLEEPS && state == READY)
#define RIGHT   (mapped && mapped == memory)
#endif
#ifdef BROKEN_LATE
#define LEFT (state == RETIRED || state == CLOSING)
#else
#define LEFT (state == RETIRED || state == CLOSING || (SLEEPS && state == PENDING))
#endif
#ifdef BROKEN_FLYING
#define HELD LEFT
#else
#define HELD ((flying && flying <= before) || (flying_post && flying_post <= before) || LEFT)
#endif

/* nvlxi_news_since, or the whole */
inline tell(g) {
    if
    :: down!TEXT(g)
    :: down!CHANGES(g)
    fi
}

proctype Owner() {
    byte answer;
    /* nvlxi_registration_suspend, with the tables locked for writing */
    atomic { sleeping = true; upset = true; generation = 2 }
#ifndef BROKEN_OWN
    own_flying == 0; /* nvlxi_own_wait */
#endif
    if
    :: tell(2)
    :: goto resume /* NVLX_ETIMEDOUT: the follower is not told before it is resumed */
    fi;
    down!AWAIT(2);
#ifndef BROKEN_WAIT
    up?answer; /* nvlxi_revocations_wait */
    assert(answer == 2);
#endif
    /* nvlx_suspend gives 0: the memory goes, and comes back as another */
    memory = 0;
    memory = 2;
resume: /* nvlxi_registration_resume */
    atomic { sleeping = false; generation = 3 }
    tell(3);
    over = true
}

/* The owner's own transfer, and post: it is in the list of those in flight before it looks */
proctype Own() {
    byte uses;
    bool good;
    if
    :: atomic { !sleeping -> uses = memory; own_flying++ } /* validate_and_enter, with the tables held for reading */
        assert(memory == uses);
        own_flying--
    :: atomic { sleeping && !over -> skip }                /* NVLX_ESUSPENDED */
    fi;
    uses = 1;
#ifdef BROKEN_POST
    good = !upset; own_flying++;
#else
    own_flying++; good = !upset;
#endif
    if
    :: good -> assert(memory == uses)
    :: else /* NVLX_ESUSPENDED, or planned again */
    fi;
    own_flying--
}

proctype Service() {
    byte g;
    bool held;
end:
    do
    :: atomic { down?TEXT(g) -> known = g; version++; /* swap_table: of generation 2 no run has the bytes */
            if :: RETIRES -> state = RETIRED :: else fi }
    :: atomic { down?CHANGES(g) -> /* commit: the region leaves its place in generation 2, and comes back in 3 */
#ifndef BROKEN_VERSION
            if :: known == 2 && g == 3 -> version++ :: else fi;
#endif
            known = g;
            if :: RETIRES -> state = RETIRED :: else fi }
    :: atomic { down?AWAIT(g) -> before = number }
        held = HELD;
        if :: held -> question = g :: else -> up!g fi
    od
}

proctype Closer() {
    byte g;
end:
    do
    :: atomic { state == RETIRED && !pins -> state = CLOSING }
        atomic { mapped = 0; state = ABSENT }
    :: atomic { question && !HELD -> g = question; question = 0 } up!g
    od
}

/* nvlx_transfer, some times. No copy of the follower sees other memory than is there. */
proctype Submitter() {
    byte tries = 0, uses, cached, cached_version; /* struct nvlxi_range_cache, of the route */
    do
    :: tries < 4 ->
        tries++;
        atomic {
            if
            :: SLEEPS -> goto next /* NVLX_ESUSPENDED */
            :: !SLEEPS && state == READY -> number++; flying = number; pins++; uses = memory;
                if :: cached_version == version :: else -> cached = mapped; cached_version = version fi;
                goto fly
            :: !SLEEPS && state != READY -> skip
            fi
        }
        atomic { if :: state == ABSENT && !SLEEPS -> state = PENDING :: else -> goto next fi }
        atomic { if :: memory == 0 -> state = ABSENT; goto next :: else -> mapped = memory fi }
        atomic { if :: SLEEPS -> state = RETIRED :: else -> state = READY fi }
        goto next;
    fly:
        assert(RIGHT && cached == mapped);
        flying = 0;
        pins--;
    next:
        skip
    :: tries == 4 -> break
    od
}

/* A list that was prepared before: nvlx_post, once meanwhile and once after nvlx_resume. In the list of those in flight
 * first; then it looks at the table and the mapping, and plans again if they are others. */
proctype Poster() {
    byte posts = 0, uses;
    bool good;
    do
    :: posts == 0 || (posts == 1 && over && known == 3) ->
        posts++;
    again:
#ifdef BROKEN_CHECK
        atomic { good = !SLEEPS && state == READY; uses = memory }
        atomic { number++; flying_post = number; pins++ }
#else
        atomic { number++; flying_post = number; pins++ }
        atomic { good = !SLEEPS; uses = memory }
        good = good && state == READY;
#endif
        if
        :: good -> assert(RIGHT); worked = worked || posts == 2
        :: else
        fi;
        flying_post = 0;
        pins--;
        if
        :: good || SLEEPS || posts == 1
        :: !good && !SLEEPS && posts == 2 -> /* planned again: mapped, by map_missing, or by another thread */
            if
            :: atomic { state == ABSENT -> state = PENDING }
                atomic { mapped = memory; state = READY }
            :: atomic { state == READY -> skip }
            fi;
            goto again
        fi
    :: posts == 2 -> break
    od
}

proctype Last() {
end:
    timeout -> assert(over && worked && !own_flying && !flying && !pins)
}

init {
    atomic { run Owner(); run Own(); run Service(); run Closer(); run Submitter(); run Poster(); run Last() }
}
