/* Waiting for sockets by epoll. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/watch.h"

#include <errno.h>
#include <string.h>

#include "base/base.h"
#include "base/error.h"
#include "base/fork_files.h"

#define EVENTS_A_WAIT 64

int nvlxi_watcher_open(struct nvlxi_watcher *watcher) {
    watcher->epoll = nvlxi_fork_files_epoll();
    return watcher->epoll < 0 ? nvlxi_fail(NVLX_ENOMEM, "no epoll for the service thread: %s", strerror(errno)) : 0;
}

void nvlxi_watcher_close(struct nvlxi_watcher *watcher) {
    nvlxi_file_table_end(&watcher->table);
    nvlxi_fork_files_close(watcher->epoll);
}

void nvlxi_watcher_make_room(struct nvlxi_watcher *watcher, int socket) {
    nvlxi_file_table_widen(&watcher->table, watcher->epoll, socket < watcher->epoll ? watcher->epoll : socket);
}

int nvlxi_watch(struct nvlxi_watcher *watcher, struct nvlxi_watch *watch, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (watch->watched && watch->wanted == events)
        return 0;
    if (epoll_ctl(watcher->epoll, watch->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event))
        return nvlxi_fail(NVLX_ENOMEM, "a socket cannot be waited for: %s", strerror(errno));
    watch->fd = fd;
    watch->watched = true;
    watch->wanted = events;
    return 0;
}

void nvlxi_unwatch(struct nvlxi_watcher *watcher, struct nvlxi_watch *watch) {
    struct epoll_event ignored = {.events = 0};
    if (watch->watched)
        epoll_ctl(watcher->epoll, EPOLL_CTL_DEL, watch->fd, &ignored);
    watch->watched = false;
}

void nvlxi_watcher_wait(struct nvlxi_watcher *watcher, uint64_t deadline) {
    struct epoll_event events[EVENTS_A_WAIT];
    int count = epoll_wait(watcher->epoll, events, EVENTS_A_WAIT, nvlxi_poll_ms(deadline));
    for (int i = 0; i < count; i++) {
        struct nvlxi_watch *watch = events[i].data.ptr;
        watch->ready = events[i].events;
    }
}

uint32_t nvlxi_watch_take(struct nvlxi_watch *watch) {
    uint32_t ready = watch->ready;
    watch->ready = 0;
    return ready;
}
