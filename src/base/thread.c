/* Threads, and how they wait: see thread.h. SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

#include "base/base.h"

#define YIELD_NS 5000000u /* until then a waiter lets others run; later it sleeps, */
#define SLEEP_NS 50000    /* so long each time */

/* A thread that crashes with its signal blocked is killed without a word: no handler of the program's is asked. */
static void block_what_is_sent(sigset_t *before) {
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigset_t sent;
    sigfillset(&sent);
    for (size_t i = 0; i < NVLXI_COUNT(crashes); i++)
        sigdelset(&sent, crashes[i]);
    pthread_sigmask(SIG_BLOCK, &sent, before);
}

int nvlxi_thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument) {
    sigset_t before;
    block_what_is_sent(&before);
    const int error = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void nvlxi_cond_init(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

bool nvlxi_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, uint64_t deadline) {
    const struct timespec at = {.tv_sec = (time_t)(deadline / 1000000000), .tv_nsec = (long)(deadline % 1000000000)};
    if (deadline == UINT64_MAX)
        return pthread_cond_wait(condition, mutex) == 0;
    return pthread_cond_timedwait(condition, mutex, &at) == 0;
}

void nvlxi_pause(uint64_t since_ns) {
    const struct timespec nap = {.tv_nsec = SLEEP_NS};
    const uint64_t waited = nvlxi_now_ns() - since_ns;
    if (waited < NVLXI_SPIN_NS)
        return;
    if (waited < YIELD_NS)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}
