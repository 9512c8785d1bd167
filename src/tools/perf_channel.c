/* nvlx_perf: between the measuring process and the owner of the other memory. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "perf_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MS  60000 /* an owner that is silent for so long is given up */
#define ROUND_NS   UINT64_C(60000000000)
#define LENGTH_MAX ((uint64_t)1 << 30)

struct header {
    uint64_t command, length;
};

static struct perf_shared *map_shared(int fd) {
    void *memory = mmap(NULL, sizeof(struct perf_shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        perf_die("mapping shared memory: %s", strerror(errno));
    return memory;
}

static _Noreturn void become_owner(int socket, int memory, pid_t parent) {
    char argument[64];
    snprintf(argument, sizeof argument, "%d,%d", socket, memory);
    /* The signal is kept by exec. The parent may have ended before it was asked for. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
        _exit(2);
    if (fcntl(socket, F_SETFD, 0) || fcntl(memory, F_SETFD, 0))
        _exit(2);
    execl("/proc/self/exe", "nvlx_perf", "--owner", argument, (char *)NULL);
    fprintf(stderr, "nvlx_perf: starting the owner process: %s\n", strerror(errno));
    _exit(2);
}

void perf_channel_start(struct perf_channel *channel) {
    int sockets[2], memory = memfd_create("nvlx_perf", MFD_CLOEXEC);
    const pid_t self = getpid();
    if (memory < 0 || ftruncate(memory, sizeof(struct perf_shared)) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
        perf_die("memory or sockets for two processes: %s", strerror(errno));
    *channel = (struct perf_channel){.socket = sockets[0], .shared = map_shared(memory)};
    fflush(NULL);
    channel->owner = fork();
    if (channel->owner < 0)
        perf_die("fork: %s", strerror(errno));
    if (!channel->owner)
        become_owner(sockets[1], memory, self);
    close(sockets[1]);
    close(memory);
}

void perf_channel_inherit(struct perf_channel *channel, const char *argument) {
    int socket, memory;
    if (sscanf(argument, "%d,%d", &socket, &memory) != 2)
        perf_die("--owner is for nvlx_perf itself");
    *channel = (struct perf_channel){.socket = socket, .shared = map_shared(memory)};
    close(memory);
}

void perf_channel_end(struct perf_channel *channel) {
    int status = 0;
    close(channel->socket);
    if (channel->owner && waitpid(channel->owner, &status, 0) == channel->owner && status)
        perf_die("the owner process ended with %s %d", WIFSIGNALED(status) ? "signal" : "code",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    munmap(channel->shared, sizeof *channel->shared);
}

/* ---- Messages --------------------------------------------------------------------------------------------- */

static void send_all(int socket, const void *data, size_t length) {
    for (size_t sent = 0; sent < length;) {
        const ssize_t n = send(socket, (const char *)data + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            perf_die("the other process has ended (%s)", strerror(errno));
        sent += n > 0 ? (size_t)n : 0;
    }
}

/* False: closed before the first byte. */
static bool receive_all(struct perf_channel *channel, void *data, size_t length) {
    for (size_t got = 0; got < length;) {
        struct pollfd ready = {.fd = channel->socket, .events = POLLIN};
        const int polled = poll(&ready, 1, channel->owner ? ANSWER_MS : -1);
        if (!polled)
            perf_die("the owner process has been silent for %d seconds", ANSWER_MS / 1000);
        const ssize_t n = polled < 0 ? -1 : recv(channel->socket, (char *)data + got, length - got, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 && !got)
            return false;
        if (n <= 0)
            perf_die("the other process ended within a message");
        got += (size_t)n;
    }
    return true;
}

void perf_send(struct perf_channel *channel, uint32_t command, const void *first, size_t first_length,
               const void *second, size_t second_length) {
    const struct header header = {command, first_length + second_length};
    send_all(channel->socket, &header, sizeof header);
    send_all(channel->socket, first, first_length);
    send_all(channel->socket, second, second_length);
}

bool perf_receive(struct perf_channel *channel, struct perf_message *message) {
    struct header header;
    if (!receive_all(channel, &header, sizeof header))
        return false;
    if (header.command >= PERF_COMMANDS || header.length > LENGTH_MAX)
        perf_die("the other process sent what is no message");
    *message = (struct perf_message){.command = (uint32_t)header.command, .length = header.length};
    message->payload = perf_alloc(header.length + 1, 1);
    return !header.length || receive_all(channel, message->payload, header.length);
}

void perf_answer(struct perf_channel *channel, void *answer, size_t length) {
    struct perf_message message;
    perf_watch();
    if (!perf_receive(channel, &message))
        perf_die("the owner process has ended");
    if (message.length != length)
        perf_die("the owner process answered %zu bytes instead of %zu", message.length, length);
    if (length)
        memcpy(answer, message.payload, length);
    free(message.payload);
}

void perf_command(struct perf_channel *channel, enum perf_command command, const void *payload, size_t length) {
    perf_send(channel, command, payload, length, NULL, 0);
    perf_answer(channel, NULL, 0);
}

/* ---- Rounds ----------------------------------------------------------------------------------------------- */

static bool has_ended(int socket) {
    struct pollfd ready = {.fd = socket, .events = POLLRDHUP};
    return poll(&ready, 1, 0) > 0 && ready.revents;
}

void perf_channel_look(const struct perf_channel *channel) {
    if (has_ended(channel->socket))
        perf_die("the other process has ended");
}

static void spin_until(struct perf_channel *channel, atomic_uint *word, uint32_t value) {
    const uint64_t begin = perf_now();
    for (uint64_t turns = 1; atomic_load_explicit(word, memory_order_acquire) != value; turns++) {
        if (turns % 4096)
            continue;
        sched_yield();
        perf_channel_look(channel);
        if (perf_now() - begin > ROUND_NS)
            perf_die("the other process has not ended its part of a round");
    }
}

void perf_round_begin(struct perf_channel *channel, uint32_t part) {
    channel->round++;
    perf_command(channel, PERF_ROUND, &part, sizeof part);
}

void perf_round_go(struct perf_channel *channel) {
    atomic_store_explicit(&channel->shared->go, channel->round, memory_order_release);
}

void perf_round_wait(struct perf_channel *channel) {
    spin_until(channel, &channel->shared->done, channel->round);
}

void perf_round_await_go(struct perf_channel *channel) {
    spin_until(channel, &channel->shared->go, ++channel->round);
}

void perf_round_done(struct perf_channel *channel) {
    atomic_store_explicit(&channel->shared->done, channel->round, memory_order_release);
}
