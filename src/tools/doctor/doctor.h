/* nvlx_info --doctor: checks that each try one thing, and say what came and what to do.
 *
 * Each check runs in a process of its own, with a time limit: one that crashes or hangs is a finding too, and no check
 * has used CUDA before another one forks. A check that takes two processes forks both (pair.h).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_DOCTOR_DOCTOR_H
#define TOOLS_DOCTOR_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/driver.h"
#include "common/nvml.h"

enum verdict {
    VERDICT_OK,
    VERDICT_RISK,   /* works now; a program may meet its limit */
    VERDICT_FAULT,  /* does not work */
    VERDICT_SKIPPED /* there was nothing to try: `came` says why */
};

struct finding {
    enum verdict verdict;
    char came[1024];   /* what was seen */
    char remedy[1024]; /* what to do; "" where nothing is wrong */
};

/* What the driver and NVML say, asked once by a process of its own: a driver may crash, hang, or take seconds to start.
 */
struct facts {
    struct driver driver;
    struct nvml nvml;
    bool whole;     /* that process has asked all. Else the driver counts as not loaded: */
    char died[128]; /* how it ended instead */
};

/* What the user said, and what holds for all checks. */
struct doctor {
    const struct facts *facts;

    const char *peer;   /* address of a served engine, or NULL */
    const char *folder; /* where sockets shall be */
    const char *only;   /* names of checks with commas between, or NULL: all */
    bool json;
    bool host; /* the host backend was asked for: no GPU is needed */
};

/* Whether this check is among those that are made: what one tells, others need not. */
bool looks_at(const struct doctor *doctor, const char *check);

struct check {
    const char *name;
    const char *tried;
    void (*run)(const struct doctor *doctor, struct finding *finding);
    bool cuda; /* nothing to try where the host backend was asked for */
};

/* Each file's checks. The list ends with a NULL name. */
extern const struct check checks_of_gpus[], checks_of_links[], checks_of_machine[], checks_of_limits[],
    checks_of_sharing[], checks_of_neighbours[], checks_of_peer[];

/* Writes the verdict and what came. The remedy of a fault or a risk is given by do_this. */
void found(struct finding *finding, enum verdict verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void do_this(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A fault beside those that were found before: what came and the remedy stand behind theirs. */
void fault_also(struct finding *finding, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Whether the environment lets no engine be made: of the host backend, or of the backend that a program gets. Then
 * there is nothing to try, which it writes. machine.c. */
bool environment_forbids(bool host, struct finding *finding);
bool addresses_are_limited(void); /* limits.c */

/* Asks for the facts, in memory that is shared with all that this process forks; NULL: there is none. facts.c. */
const struct facts *facts_ask(void);
/* Waits for a forked child, which is to write to `from`. Returns whether it did within PATIENCE_MS, and kills its
 * group; else `died` tells how it ended. */
#define PATIENCE_MS 60000 /* a driver that starts takes seconds */
bool child_await(pid_t child, int from, void *bytes, size_t length, char *died, size_t size);
/* Does `work` in a process of its own, which gives what it found in shared memory. 0: it has. 1: it did not within
 * PATIENCE_MS, and `died` tells how it ended. -1: no process can be made. */
int child_run(void (*work)(void *), void *context, char *died, size_t size);

/* Runs the checks and prints the table. Returns the exit code: 0 no fault, 1 faults, 2 there is no check of a name in
 * `only`, 3 the doctor itself cannot work. */
int doctor_run(struct doctor *doctor);
void doctor_list(void); /* prints the names of all checks, and what they try */

#endif
