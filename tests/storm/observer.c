/* Whether changes are told at once. SPDX-License-Identifier: Apache-2.0
 *
 * A change that nobody is told of is told by the next one, and in a storm that comes soon. So a process looks by
 * itself: its other engine connects, it makes one change, and no other until that engine knows. */
#include <inttypes.h>

#include "worker.h"

#define OBSERVED_PERCENT 8
#define OBSERVED_NS      (15 * SECOND_NS)

struct nvlx_peer *begin_observing(struct worker *w) {
    struct nvlx_peer *observer;
    char address[108];
    if (!chance(w, OBSERVED_PERCENT) || w->held)
        return NULL;
    serve_address(w->board, w->number, address);
    const int code = nvlx_connect(w->stranger, address, OBSERVED_NS, &observer);
    if (code == 0)
        return observer;
    wrong_code(w, "nvlx_connect to itself", code);
    return NULL;
}

void end_observing(struct worker *w, struct nvlx_peer *observer, const char *change) {
    uint64_t generation;
    if (!observer)
        return;
    int code = nvlx_publish(w->engine, &generation); /* what is not held back is told before */
    if (code)
        wrong_code(w, "nvlx_publish", code);
    else if ((code = nvlx_peer_sync(observer, generation, OBSERVED_NS)))
        board_wrong(w->board,
                    "process %u.%" PRIu32 ", step %" PRIu64 ": who follows it does not hear of generation %" PRIu64
                    " after %s: %d",
                    w->number, w->incarnation, w->step, generation, change, code);
    if ((code = nvlx_peer_close(observer)))
        wrong_code(w, "nvlx_peer_close", code);
    board_count(w->place, COUNT_observed, 1);
}
