/* The inside of a reader of a relay. All of it is its thread's, once that runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The states of a piece:
 *
 *     MISSING  not in place
 *     FLYING   a list that reads it is in flight; at most NVLXI_RELAY_FLIGHTS are
 *     PLACED   all its bytes are in place, and its flag is set
 *
 * A link is a connection to whom is read from, with the addresses of the parts there. It is kept: the source may send
 * us back to it. */
#ifndef NVLXI_RELAY_READER_H
#define NVLXI_RELAY_READER_H

#include "relay/relay.h"

/* Copies between two GPUs go one by one, in the order in which they were queued, whichever lane they are in (measured:
 * two H200, driver 580, 1 to 4 streams of copies of 64 MiB). So some are queued ahead, in one lane. In two, one copies
 * while the signal and the event behind a copy of the other wait, till that is over: who reads from this reader then
 * hears of each piece later by another (four H200, 8 GiB to three readers: 340 GB/s at the last, 348 with one lane). */
#define NVLXI_RELAY_FLIGHTS 4
#define NVLXI_RELAY_LANES   1

struct nvlxi_relay_link {
    char address[NVLXI_RELAY_ADDRESS]; /* "": the source */
    struct nvlx_peer *peer;
    uint64_t *parts; /* the addresses of all parts */
    uint64_t state;  /* that of flags and digests */
    bool here;       /* it is in this process */
    bool lost;       /* it is not used any more */
    struct nvlxi_relay_link *next;
};

struct nvlxi_relay_flight {
    struct nvlx_request *request; /* NULL: none */
    size_t piece;
    struct nvlxi_relay_link *link;
};

enum nvlxi_relay_piece { NVLXI_RELAY_MISSING, NVLXI_RELAY_FLYING, NVLXI_RELAY_PLACED };

struct nvlxi_relay_reader {
    struct nvlxi_relay_link source, *links; /* links: a list of the others */
    struct nvlxi_relay_link *parent;        /* NULL: the source has not named one */
    uint64_t patience_ns;
    uint64_t generation;            /* that is being read, or is complete */
    uint64_t asked;                 /* the source was asked for a generation at least so new */
    uint64_t reported;              /* the source knows how this generation has ended */
    char lost[NVLXI_RELAY_ADDRESS]; /* whom the source does not know yet to be lost; "": nobody */
    bool source_gone;
    uint64_t alive_ns, moved_ns; /* when it was said, and when something has changed */
    uint8_t *pieces;             /* enum nvlxi_relay_piece of each */
    size_t first;                /* the first that is MISSING */
    struct nvlxi_relay_flight flights[NVLXI_RELAY_FLIGHTS];
    struct nvlxi_relay_flight look;    /* reads the parent's flags, from `piece` on */
    uint64_t flags[NVLXI_RELAY_FLAGS]; /* as seen last, from piece `seen` on */
    size_t seen;
    struct nvlx_op *ops; /* room for those of one piece */
};

/* Nothing is in place, nothing in flight. */
void nvlxi_relay_pull_begin(struct nvlx_relay *relay);
/* One look at what is in flight; then starts what can be started. */
void nvlxi_relay_pull(struct nvlx_relay *relay);
/* Waits for what is in flight. */
void nvlxi_relay_pull_end(struct nvlx_relay *relay);
/* Whether something is in flight, or may be there to be read. */
bool nvlxi_relay_pulls(const struct nvlx_relay *relay);

/* In reader.c: to read from the source has failed, as nvlx_last_error says. What it has withdrawn is an end of it. */
void nvlxi_relay_fail_source(struct nvlx_relay *relay, int code);
/* Nothing more is read from there. */
void nvlxi_relay_lose(struct nvlx_relay *relay, struct nvlxi_relay_link *link);

#endif
