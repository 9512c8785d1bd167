/* nvlx_perf: the two processes of a run, seen from the measuring one. SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_SESSION_H
#define PERF_SESSION_H

#include "perf_channel.h"
#include "perf_end.h"
#include "perf_options.h"

struct perf_setup_answer {
    struct perf_handle memory, staging;
    char gpu[64];
};

/* What the owner takes part in: gathering or scattering for the staged baseline, or a transfer of its own. */
enum perf_part { PERF_PART_STAGE, PERF_PART_CALL, PERF_PART_POST };

struct perf_owner_list {
    struct perf_list_spec spec;
    uint32_t part; /* the one that the next rounds ask for; a prepared list is prepared now */
    uint32_t mechanism, max_sms;
    int32_t priority;
};

struct perf_session {
    struct perf_options *options;
    struct perf_channel channel;
    struct perf_end end;
    bool host, same_gpu;
    char gpu[2][64]; /* names: the owner's, the measuring process's */
    char platform[128];
    uint64_t seed; /* the last one that filled memory */
};

/* Starts both processes, completes the options, and has each side open the other's memory. */
void perf_session_open(struct perf_session *session, struct perf_options *options);
void perf_session_close(struct perf_session *session);

/* Fills all memory, with new seeds, which perf_session_check wants back. */
void perf_session_fill(struct perf_session *session, uint64_t seeds[2]);
/* Compares all memory with what the lists must have made of it. Tells what is wrong, and returns how many bytes are. */
uint64_t perf_session_check(struct perf_session *session, const struct perf_list *lists, size_t count,
                            const uint64_t seeds[2]);
/* Dies if the check does not find the one byte that is wrong. */
void perf_session_prove(struct perf_session *session);

#endif
