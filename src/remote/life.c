/* The lives of this process's engines: a list, for moments under a lock of its own, which is whole in forked children.
 * SPDX-License-Identifier: Apache-2.0 */
#include "remote/life.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"

struct nvlxi_life {
    char engine[NVLXI_ENGINE_ID + 1];
    atomic_bool over;
    atomic_uint users;
    struct nvlxi_life *prev, *next; /* in the list, under the mutex, until it is over */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct nvlxi_life *lives;

static void lock(void) {
    pthread_mutex_lock(&mutex);
}

static void unlock(void) {
    pthread_mutex_unlock(&mutex);
}

/* The parent's engines are not the child's. */
void nvlxi_life_fork(enum nvlxi_fork_phase phase) {
    if (phase == NVLXI_BEFORE_FORK) {
        lock();
        return;
    }
    if (phase == NVLXI_IN_CHILD)
        lives = NULL;
    unlock();
}

int nvlxi_life_begin(const char engine[NVLXI_ENGINE_ID + 1], struct nvlxi_life **life) {
    struct nvlxi_life *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an engine");
    snprintf(made->engine, sizeof made->engine, "%s", engine);
    atomic_init(&made->users, 1);
    lock();
    DL_APPEND(lives, made);
    unlock();
    *life = made;
    return 0;
}

void nvlxi_life_end(struct nvlxi_life *life) {
    atomic_store(&life->over, true);
    lock();
    DL_DELETE(lives, life);
    unlock();
    nvlxi_life_drop(life);
}

struct nvlxi_life *nvlxi_life_find(const char *engine) {
    struct nvlxi_life *life;
    lock();
    DL_FOREACH(lives, life) {
        if (strcmp(life->engine, engine) == 0)
            break;
    }
    if (life)
        atomic_fetch_add(&life->users, 1);
    unlock();
    return life;
}

void nvlxi_life_drop(struct nvlxi_life *life) {
    if (life && atomic_fetch_sub(&life->users, 1) == 1)
        free(life);
}

bool nvlxi_life_is_over(const struct nvlxi_life *life) {
    return atomic_load_explicit(&life->over, memory_order_acquire);
}
