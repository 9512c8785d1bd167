/* A process that crashes says where: see crash.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "crash.h"

#include <execinfo.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "support.h"

#define FRAMES 64

static struct worker *here;

/* The signal ends the process when this returns: SA_RESETHAND. What is called here is not safe in a signal handler, but
 * there is nothing left to lose. */
static void say_where(int number, siginfo_t *info, void *context) {
    void *frames[FRAMES];
    (void)context;
    dprintf(STDERR_FILENO, "process %u.%" PRIu32 " crashes, step %" PRIu64 " (%s): signal %d at %p, thread %d\n",
            here->number, here->incarnation, here->step, action_name(atomic_load(&here->place->action)), number,
            info->si_addr, (int)gettid());
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
}

void tell_crashes(struct worker *w) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    const struct sigaction action = {.sa_sigaction = say_where, .sa_flags = (int)(SA_RESETHAND | SA_SIGINFO)};
    void *frames[1];
    if (sanitized())
        return; /* it tells more */
    here = w;
    backtrace(frames, 1); /* loads what it needs */
    for (size_t i = 0; i < COUNT(signals); i++)
        sigaction(signals[i], &action, NULL);
}
