/* Allocations that fail on demand, and a count of those that live. SPDX-License-Identifier: Apache-2.0
 *
 * For programs linked with --wrap of malloc, calloc, realloc, strdup and free, and with faulty_memory.cc. Only what is
 * allocated while armed is counted, fails and is kept account of. */
#ifndef FAULTY_MEMORY_H
#define FAULTY_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

void memory_arm(bool on);
void memory_fail_at(long allocation); /* counts from 1 again; 0: none */
long memory_allocations(void);
size_t memory_live(void);

#endif
