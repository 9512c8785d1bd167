/* The lock of an engine's lookup tables (registration.h, peer.h): transfers read while they check their ops.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It is fair to both sides. Of writers one at a time asks for the lock: the others wait for `writers`. While that one
 * waits, no more readers are let in, so it waits for those that are inside. When it leaves, no other writer is waiting,
 * so the readers that came meanwhile get in. Writers hold it for microseconds, and nobody calls a driver under it, so
 * a reader tries for a while before it sleeps. */
#ifndef NVLXI_BASE_TABLES_H
#define NVLXI_BASE_TABLES_H

#include <pthread.h>

#define NVLXI_TABLES_TRIES 200

struct nvlxi_tables {
    pthread_mutex_t writers;
    pthread_rwlock_t lock; /* prefers writers */
};

static inline void nvlxi_tables_init(struct nvlxi_tables *tables) {
    pthread_rwlockattr_t attributes;
    pthread_mutex_init(&tables->writers, NULL);
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&tables->lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

static inline void nvlxi_tables_destroy(struct nvlxi_tables *tables) {
    pthread_rwlock_destroy(&tables->lock);
    pthread_mutex_destroy(&tables->writers);
}

static inline void nvlxi_tables_read(struct nvlxi_tables *tables) {
    for (int tries = 0; tries < NVLXI_TABLES_TRIES; tries++) {
        if (pthread_rwlock_tryrdlock(&tables->lock) == 0)
            return;
#ifdef __x86_64__
        __builtin_ia32_pause();
#endif
    }
    pthread_rwlock_rdlock(&tables->lock);
}

static inline void nvlxi_tables_read_end(struct nvlxi_tables *tables) {
    pthread_rwlock_unlock(&tables->lock);
}

static inline void nvlxi_tables_write(struct nvlxi_tables *tables) {
    pthread_mutex_lock(&tables->writers);
    pthread_rwlock_wrlock(&tables->lock);
}

static inline void nvlxi_tables_write_end(struct nvlxi_tables *tables) {
    pthread_rwlock_unlock(&tables->lock);
    pthread_mutex_unlock(&tables->writers);
}

#endif
