/* Allocations that fail on demand: see faulty_memory.h. SPDX-License-Identifier: Apache-2.0 */
#include "faulty_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIVE_MAX 100000

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *memory);

static atomic_bool armed;
static atomic_long failing, allocations;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *live[LIVE_MAX];
static size_t live_count;

void memory_arm(bool on) {
    atomic_store(&armed, on);
}

void memory_fail_at(long allocation) {
    atomic_store(&failing, allocation);
    atomic_store(&allocations, 0);
}

long memory_allocations(void) {
    return atomic_load(&allocations);
}

size_t memory_live(void) {
    pthread_mutex_lock(&mutex);
    size_t count = live_count;
    pthread_mutex_unlock(&mutex);
    return count;
}

static bool is_to_fail(void) {
    return atomic_load(&armed) && atomic_fetch_add(&allocations, 1) + 1 == atomic_load(&failing);
}

static void *note(void *memory) {
    if (!memory || !atomic_load(&armed))
        return memory;
    pthread_mutex_lock(&mutex);
    if (live_count == LIVE_MAX) {
        fprintf(stderr, "more than %d allocations live\n", LIVE_MAX);
        abort();
    }
    live[live_count++] = memory;
    pthread_mutex_unlock(&mutex);
    return memory;
}

/* The young are freed first. */
static void forget(const void *memory) {
    pthread_mutex_lock(&mutex);
    for (size_t i = live_count; memory && i-- > 0;) {
        if (live[i] == memory) {
            live[i] = live[--live_count];
            break;
        }
    }
    pthread_mutex_unlock(&mutex);
}

void *__wrap_malloc(size_t size) {
    return is_to_fail() ? NULL : note(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size) {
    return is_to_fail() ? NULL : note(__real_calloc(count, size));
}

void *__wrap_realloc(void *memory, size_t size) {
    if (is_to_fail())
        return NULL;
    forget(memory);
    return note(__real_realloc(memory, size));
}

char *__wrap_strdup(const char *text) {
    return is_to_fail() ? NULL : note(__real_strdup(text));
}

void __wrap_free(void *memory) {
    forget(memory);
    __real_free(memory);
}
