/* File descriptors that a forked child does not keep. SPDX-License-Identifier: Apache-2.0
 *
 * `mutex` is held while one is made and noted, and while one is forgotten and closed, so that a fork sees neither one
 * that is open and not noted nor one that is noted and somebody else's. No call under it blocks. */
#define _GNU_SOURCE
#include "base/fork_files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILES_MAX (1 << 20) /* what Linux lets a process have, unless fs.nr_open was raised */
#define WORD_BITS 64

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t noted[FILES_MAX / WORD_BITS]; /* a bit for each number; its pages are there when they are used */
static int end;                               /* no number from here on was ever noted */

/* Under the mutex. A number beyond the table's is left to the child. */
static int note(int fd) {
    if (fd < 0 || fd >= FILES_MAX)
        return fd;
    noted[fd / WORD_BITS] |= UINT64_C(1) << fd % WORD_BITS;
    end = fd < end ? end : fd + 1;
    return fd;
}

int nvlxi_fork_files_socket(void) {
    pthread_mutex_lock(&mutex);
    int fd = note(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    pthread_mutex_unlock(&mutex);
    return fd;
}

int nvlxi_fork_files_accept(int listener) {
    pthread_mutex_lock(&mutex);
    /* cppcheck-suppress nullPointer; who connects is not asked for */
    int fd = note(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
    pthread_mutex_unlock(&mutex);
    return fd;
}

int nvlxi_fork_files_eventfd(void) {
    pthread_mutex_lock(&mutex);
    int fd = note(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    pthread_mutex_unlock(&mutex);
    return fd;
}

int nvlxi_fork_files_epoll(void) {
    pthread_mutex_lock(&mutex);
    int fd = note(epoll_create1(EPOLL_CLOEXEC));
    pthread_mutex_unlock(&mutex);
    return fd;
}

size_t nvlxi_fork_files_room(int fd, size_t most) {
    int made[NVLXI_ROOM_MAX];
    size_t count = 0;
    pthread_mutex_lock(&mutex); /* a forked child shall have none of them */
    while (count < most && (made[count] = fcntl(fd, F_DUPFD_CLOEXEC, 0)) >= 0)
        count++;
    for (size_t i = 0; i < count; i++)
        close(made[i]);
    pthread_mutex_unlock(&mutex);
    return count;
}

void nvlxi_fork_files_close(int fd) {
    pthread_mutex_lock(&mutex);
    if (fd < FILES_MAX)
        noted[fd / WORD_BITS] &= ~(UINT64_C(1) << fd % WORD_BITS);
    close(fd);
    pthread_mutex_unlock(&mutex);
}

static void close_all(void) {
    int reason = errno;
    for (int word = 0; word * WORD_BITS < end; word++) {
        for (; noted[word]; noted[word] &= noted[word] - 1)
            close(word * WORD_BITS + __builtin_ctzll(noted[word]));
    }
    end = 0;
    errno = reason;
}

void nvlxi_fork_files_fork(enum nvlxi_fork_phase phase) {
    if (phase == NVLXI_BEFORE_FORK) {
        pthread_mutex_lock(&mutex);
        return;
    }
    if (phase == NVLXI_IN_CHILD)
        close_all();
    pthread_mutex_unlock(&mutex);
}
