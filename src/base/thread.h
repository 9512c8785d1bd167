/* The library's own threads, and how a thread waits: for a condition until a moment, or by asking again and again for
 * what is done soon, or late. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_THREAD_H
#define NVLXI_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Starts a thread that gets no signals that are sent: they are for the program's own threads. Those of its own crash it
 * does get. Returns an errno value. */
int nvlxi_thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument);

/* A condition that nvlxi_cond_wait can wait for: its time is that of nvlxi_now_ns. */
void nvlxi_cond_init(pthread_cond_t *condition);

/* Under the mutex. Waits for a signal until the moment `deadline`; UINT64_MAX: without end. False: it is over. */
bool nvlxi_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, uint64_t deadline);

/* Between two questions of a waiter, who has asked since then: they come at once for so long, later let others run. */
#define NVLXI_SPIN_NS 200000u
void nvlxi_pause(uint64_t since_ns);

#endif
