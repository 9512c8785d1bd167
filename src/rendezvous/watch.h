/* What the service thread waits for: sockets, by epoll, which knows no limit of files and no array of all of them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_RENDEZVOUS_WATCH_H
#define NVLXI_RENDEZVOUS_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/file_table.h"

struct nvlxi_watch { /* of one socket, as part of what it belongs to; starts zeroed */
    int fd;
    bool watched;
    uint32_t wanted; /* EPOLL...; EPOLLHUP and EPOLLERR come unasked */
    uint32_t ready;  /* what was found by the last wait */
};

struct nvlxi_watcher { /* starts zeroed */
    int epoll;
    struct nvlxi_file_table table;
};

int nvlxi_watcher_open(struct nvlxi_watcher *watcher);
void nvlxi_watcher_close(struct nvlxi_watcher *watcher);

/* Makes room for the files that a new connection brings, without waiting for it. `socket`: its own, or -1: none came
 * yet. By the service thread. */
void nvlxi_watcher_make_room(struct nvlxi_watcher *watcher, int socket);

/* From now on waits for these events of `fd`; again, to wait for others. From any thread. NVLX_ENOMEM. */
int nvlxi_watch(struct nvlxi_watcher *watcher, struct nvlxi_watch *watch, int fd, uint32_t events);
/* Before the socket is closed: a forked child may have it as well. The waiting thread may still look at `watch` until
 * its wait has returned. */
void nvlxi_unwatch(struct nvlxi_watcher *watcher, struct nvlxi_watch *watch);

/* Waits until something is ready, or the deadline is over, and notes what is ready; there may be more. */
void nvlxi_watcher_wait(struct nvlxi_watcher *watcher, uint64_t deadline);
/* What was found ready, once. */
uint32_t nvlxi_watch_take(struct nvlxi_watch *watch);

#endif
