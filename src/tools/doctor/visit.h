/* A visit to a served engine, as a stranger makes it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_DOCTOR_VISIT_H
#define TOOLS_DOCTOR_VISIT_H

#include <nvlxfer.h>

struct visit {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    struct nvlx_peer_info info;
    int code; /* of the call that failed last, */
    char text[600];
};

/* Connects: a server that is there has a second to answer. Returns the code. visit_end in any case. */
int visit_begin(struct visit *visit, const char *address);
/* Reads up to 64 KiB of a region into memory of its own. Returns the code. */
int visit_read(struct visit *visit, const struct nvlx_region_info *region);
void visit_end(struct visit *visit);

#endif
