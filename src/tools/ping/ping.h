/* nvlx_ping: visits a served engine as a stranger does, and tells who it is, what it shares, and how fast.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_PING_PING_H
#define TOOLS_PING_PING_H

#include <nvlxfer.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/report.h"

/* Exit codes. */
enum {
    PING_DONE = 0,
    PING_UNREACHED = 1,
    PING_USAGE = 2,
    PING_UNREAD = 3,
    PING_WRONG = 4,
    PING_NO_ENGINE = 5,
    PING_UNWRITTEN = 6
};

struct ping {
    const char *address, *region, *write; /* names of regions; NULL: the largest that may be read; none is written */
    uint64_t bytes;                       /* of a transfer, at most */
    int64_t timeout_ns;                   /* to connect */
    int gpu;                              /* of this process */
    bool json;

    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct nvlx_peer_info info;
    double connect_ms;
    struct nvlx_region_info read, written; /* what is measured; length 0: nothing */
    void *memory;                          /* own memory, registered, of `bytes` at most */
};

/* The counters of the GPU's links, read by a process of its own: the driver's call is known to crash. links.c. */
struct links {
    int to, from; /* pipes; -1: there is no such process, or no more */
    pid_t child;
    int patience_ms; /* for an answer */
};
struct links_count {
    bool told;
    uint64_t received, sent;
};
void links_start(struct links *links, int gpu);                  /* before CUDA is used */
void links_read(struct links *links, struct links_count *count); /* ends it, if it does not answer */
void links_end(struct links *links);

/* Connects and makes memory ready. Returns an exit code; the reason was printed. visit.c. */
int ping_connect(struct ping *ping);
int ping_choose(struct ping *ping);
int ping_fail(const char *what, int code);

/* Writes what is known of the peer and its regions. tell.c. */
void ping_tell_peer(const struct ping *ping, struct report *report);
void ping_tell_regions(const struct ping *ping, struct report *report);

/* Measures and tells: latency, rates, what the links carried; with `write` also writes. An exit code. measure.c. */
int ping_measure(struct ping *ping, struct links *links, struct report *report);

#endif
