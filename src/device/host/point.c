/* Points in the order of the host backend's lanes: see point.h. SPDX-License-Identifier: Apache-2.0 */
#include "device/host/point.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct nvlxi_host_point {
    atomic_uint holders;
    atomic_bool done; /* set once, by a worker, with the mutex held */
    pthread_mutex_t mutex;
    pthread_cond_t arrived;
};

struct nvlxi_host_point *nvlxi_host_point_make(void) {
    struct nvlxi_host_point *point = malloc(sizeof *point);
    if (!point)
        return NULL;
    atomic_init(&point->holders, 1);
    atomic_init(&point->done, false);
    pthread_mutex_init(&point->mutex, NULL);
    pthread_cond_init(&point->arrived, NULL);
    return point;
}

struct nvlxi_host_point *nvlxi_host_point_hold(struct nvlxi_host_point *point) {
    if (point)
        atomic_fetch_add_explicit(&point->holders, 1, memory_order_relaxed);
    return point;
}

void nvlxi_host_point_drop(struct nvlxi_host_point *point) {
    if (!point || atomic_fetch_sub_explicit(&point->holders, 1, memory_order_acq_rel) != 1)
        return;
    pthread_cond_destroy(&point->arrived);
    pthread_mutex_destroy(&point->mutex);
    free(point);
}

bool nvlxi_host_point_is_done(struct nvlxi_host_point *point) {
    return !point || atomic_load_explicit(&point->done, memory_order_acquire);
}

void nvlxi_host_point_mark(struct nvlxi_host_point *point) {
    pthread_mutex_lock(&point->mutex);
    atomic_store_explicit(&point->done, true, memory_order_release);
    pthread_cond_broadcast(&point->arrived);
    pthread_mutex_unlock(&point->mutex);
}

void nvlxi_host_point_await(struct nvlxi_host_point *point) {
    pthread_mutex_lock(&point->mutex);
    while (!nvlxi_host_point_is_done(point))
        pthread_cond_wait(&point->arrived, &point->mutex);
    pthread_mutex_unlock(&point->mutex);
}
