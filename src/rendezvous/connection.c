/* Sockets: addresses, messages that come piece by piece, a client's calls. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/connection.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"
#include "base/fork_files.h"
#include "base/utf8.h"
#include "rendezvous/reach.h"

#define ANSWER_NS 1000000000 /* for a server that is there to answer a greeting */
#define PAUSE_MAX 50000000u  /* ns between two tries to connect: doubled each time, up to this */

static_assert(NVLXI_ADDRESS_MAX == sizeof(((struct sockaddr_un *)0)->sun_path) - 1, "an address fits");

/* ---- Addresses ----------------------------------------------------------------------------------------- */

int nvlxi_address_check(const char *address) {
    size_t count = strlen(address);
    if (count > NVLXI_ADDRESS_MAX)
        return nvlxi_fail(NVLX_EINVAL, "the address \"%.*s...\" has %zu bytes: at most %d", nvlxi_text_cut(address, 40),
                          address, count, NVLXI_ADDRESS_MAX);
    if (!nvlxi_address_bytes_valid(address, count))
        return nvlxi_fail(
            NVLX_EINVAL,
            "the address \"%s\" is neither an absolute path nor \"@\" and a name, without control characters", address);
    return 0;
}

void nvlxi_address_parse(const char *address, struct sockaddr_un *parsed, socklen_t *length) {
    size_t count = strlen(address);
    *parsed = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(parsed->sun_path, address, count);
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + count + 1);
    if (address[0] == '@') {
        parsed->sun_path[0] = '\0';
        *length -= 1; /* an abstract name is all the bytes that there are */
    }
}

int nvlxi_socket_code(int reason) {
    switch (reason) {
    case EACCES:
    case EPERM:
    case EROFS:
        return NVLX_EACCES;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
        return NVLX_ENOENT;
    case EADDRINUSE:
        return NVLX_EEXIST;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return NVLX_ESTALE;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case ETOOMANYREFS:
    case ENOSPC:
    case EDQUOT:
        return NVLX_ENOMEM;
    default:
        return NVLX_ENOTSUP;
    }
}

/* ---- Messages that arrive piece by piece --------------------------------------------------------------- */

void nvlxi_connection_files_close(struct nvlxi_connection_files *files) {
    while (files->count)
        close(files->fds[--files->count]);
    files->lost = false;
}

static void keep_files(const struct msghdr *message, struct nvlxi_connection_files *files) {
    /* the macro is not made for const */
    struct msghdr *headers = (struct msghdr *)(uintptr_t)message;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(headers); c; c = CMSG_NXTHDR(headers, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
            if (files->count < NVLXI_COUNT(files->fds))
                files->fds[files->count++] = fd;
            else
                close(fd);
        }
    }
    files->lost = files->lost || (message->msg_flags & MSG_CTRUNC);
}

/* Without room for them the kernel closes the file descriptors that come along. */
static ssize_t receive(int socket, void *bytes, size_t length, struct nvlxi_connection_files *files) {
    union {
        char bytes[CMSG_SPACE(NVLXI_PROTOCOL_FILES_MAX * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec where = {.iov_base = bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &where, .msg_iovlen = 1};
    ssize_t count;
    if (files) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
    }
    do
        count = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (count < 0 && errno == EINTR);
    if (count >= 0 && files)
        keep_files(&message, files);
    return count;
}

static int begin_body(struct nvlxi_inbox *inbox) {
    int code = nvlxi_protocol_get_header(inbox->head, inbox->from_server, &inbox->header);
    if (code)
        return code;
    inbox->body = malloc(inbox->header.length);
    return inbox->body ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory for a message of %u bytes", inbox->header.length);
}

int nvlxi_inbox_fill(struct nvlxi_inbox *inbox, int socket, struct nvlxi_connection_files *files) {
    size_t in_head = nvlxi_min(inbox->have, NVLXI_PROTOCOL_HEADER), in_body = inbox->have - in_head;
    ssize_t count = inbox->body ? receive(socket, inbox->body + in_body, inbox->header.length - in_body, files)
                                : receive(socket, inbox->head + in_head, NVLXI_PROTOCOL_HEADER - in_head, files);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return NVLX_EAGAIN;
    if (count < 0 && errno != ECONNRESET)
        return nvlxi_fail(nvlxi_socket_code(errno), "cannot receive: %s", strerror(errno));
    if (count <= 0)
        return NVLX_ESTALE;
    inbox->have += (size_t)count;
    if (inbox->have == NVLXI_PROTOCOL_HEADER) {
        int code = begin_body(inbox);
        return code ? code : NVLX_EAGAIN;
    }
    return inbox->body && inbox->have == NVLXI_PROTOCOL_HEADER + inbox->header.length ? 0 : NVLX_EAGAIN;
}

void nvlxi_inbox_clear(struct nvlxi_inbox *inbox) {
    free(inbox->body);
    *inbox = (struct nvlxi_inbox){.from_server = inbox->from_server};
}

/* ---- The blocking side of a client --------------------------------------------------------------------- */

/* False when the deadline is over. */
static bool wait_for(int socket, short events, uint64_t deadline) {
    struct pollfd ready = {.fd = socket, .events = events};
    for (;;) {
        int left_ms = nvlxi_poll_ms(deadline);
        if (!left_ms)
            return false;
        int count = poll(&ready, 1, left_ms);
        if (count > 0 || (count < 0 && errno != EINTR))
            return true; /* the call to follow tells what is wrong */
    }
}

int nvlxi_connection_send(struct nvlxi_connection *connection, const uint8_t *bytes, size_t length, uint64_t deadline) {
    while (length) {
        ssize_t count = send(connection->socket, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0) {
            bytes += count;
            length -= (size_t)count;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return 0; /* it may have said why: to be received */
        } else if (errno != EINTR && errno != EAGAIN) {
            return nvlxi_fail(nvlxi_socket_code(errno), "cannot send to \"%s\": %s", connection->address,
                              strerror(errno));
        } else if (!wait_for(connection->socket, POLLOUT, deadline)) {
            return nvlxi_fail(NVLX_ETIMEDOUT, "the server at \"%s\" does not read", connection->address);
        }
    }
    return 0;
}

int nvlxi_connection_refused(const struct nvlxi_connection *connection) {
    struct nvlxi_protocol_refusal refusal;
    int code = nvlxi_protocol_get_refusal(connection->in.body, connection->in.header.length, &refusal);
    if (code)
        return code;
    return nvlxi_fail(refusal.code, "the server at \"%s\" refuses: %s", connection->address, refusal.text);
}

static int fill_inbox(struct nvlxi_connection *connection, struct nvlxi_connection_files *files, uint64_t deadline,
                      int64_t patience_ns, const char *or_else) {
    int code;
    nvlxi_inbox_clear(&connection->in);
    while ((code = nvlxi_inbox_fill(&connection->in, connection->socket, files)) == NVLX_EAGAIN)
        if (!wait_for(connection->socket, POLLIN, nvlxi_max(deadline, nvlxi_deadline(patience_ns))))
            return nvlxi_fail(NVLX_ETIMEDOUT, "the server at \"%s\" does not answer: is it stopped%s?",
                              connection->address, or_else);
    return code;
}

int nvlxi_connection_receive(struct nvlxi_connection *connection, enum nvlxi_protocol_type type,
                             struct nvlxi_connection_files *files, uint64_t deadline, int64_t patience_ns,
                             bool *closed) {
    const bool text = type == NVLXI_PROTOCOL_TEXT;
    int code = fill_inbox(connection, files, deadline, patience_ns,
                          text ? ", or is it between nvlx_hold and nvlx_publish" : "");
    if (code == NVLX_ESTALE && closed)
        *closed = true;
    else if (code == NVLX_ESTALE)
        nvlxi_fail(code, "the server at \"%s\" closed the connection", connection->address);
    if (code)
        return code;
    if (connection->in.header.type == NVLXI_PROTOCOL_REFUSAL)
        return nvlxi_connection_refused(connection);
    if (connection->in.header.type != type)
        return nvlxi_fail(NVLX_EFORMAT, "the server at \"%s\" sent a message of type %u, not %d", connection->address,
                          (unsigned)connection->in.header.type, (int)type);
    return 0;
}

/* Returns 0 or an errno. */
static int connect_once(struct nvlxi_connection *connection, const struct sockaddr_un *address, socklen_t length) {
    connection->socket = nvlxi_fork_files_socket();
    if (connection->socket < 0)
        return errno;
    if (connect(connection->socket, (const struct sockaddr *)address, length) == 0)
        return 0;
    int reason = errno;
    nvlxi_connection_close(connection);
    return reason;
}

static int greet(struct nvlxi_connection *connection, enum nvlxi_protocol_role role, uint64_t deadline, bool *closed) {
    uint8_t hello[NVLXI_PROTOCOL_SHORT_MAX];
    uint64_t end = nvlxi_max(deadline, nvlxi_deadline(ANSWER_NS));
    int code = nvlxi_connection_send(connection, hello, nvlxi_protocol_put_hello(hello, role), end);
    if (!code)
        code = nvlxi_connection_receive(connection, NVLXI_PROTOCOL_WELCOME, NULL, end, 0, closed);
    return code ? code : nvlxi_protocol_get_welcome(connection->in.body, connection->engine, &connection->minor);
}

/* Returns 0, an error, or 1 with an errno if it may be tried again. A server that closes without a word is about to
 * end: as if it were gone. */
static int try_to_open(struct nvlxi_connection *connection, enum nvlxi_protocol_role role, uint64_t deadline,
                       int *reason) {
    struct sockaddr_un parsed;
    socklen_t length;
    bool closed = false;
    nvlxi_address_parse(connection->address, &parsed, &length);
    *reason = connect_once(connection, &parsed, length);
    if (*reason == ENOENT || *reason == ECONNREFUSED || *reason == EAGAIN)
        return 1;
    if (*reason)
        return nvlxi_fail(nvlxi_socket_code(*reason), "cannot connect to \"%s\": %s%s", connection->address,
                          strerror(*reason), nvlxi_reach_connect(connection->address, *reason).text);
    int code = greet(connection, role, deadline, &closed);
    if (code)
        nvlxi_connection_close(connection);
    *reason = ECONNRESET;
    return closed ? 1 : code;
}

bool nvlxi_connection_pause(uint64_t *pause, uint64_t deadline) {
    uint64_t now = nvlxi_now_ns();
    if (now >= deadline)
        return false;
    const struct timespec run = {.tv_nsec = (long)nvlxi_min(*pause, deadline - now)};
    nanosleep(&run, NULL);
    *pause = nvlxi_min(2 * *pause, PAUSE_MAX);
    return true;
}

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode) ? "a folder" : S_ISREG(mode) ? "a file" : S_ISFIFO(mode) ? "a pipe" : "a device";
}

/* At what is no socket nobody will serve: no waiting helps. */
static int check_kind(const char *address) {
    struct stat status;
    if (address[0] != '/' || stat(address, &status) || S_ISSOCK(status.st_mode))
        return 0;
    return nvlxi_fail(NVLX_EINVAL, "cannot connect to \"%s\": it is %s, no socket", address, kind_of(status.st_mode));
}

int nvlxi_connection_open(struct nvlxi_connection *connection, const char *address, enum nvlxi_protocol_role role,
                          bool wait, uint64_t deadline) {
    uint64_t pause = NVLXI_PAUSE_NS;
    int code, reason;
    *connection = (struct nvlxi_connection){.socket = -1, .in = {.from_server = true}};
    if ((code = nvlxi_address_check(address)))
        return code;
    snprintf(connection->address, sizeof connection->address, "%s", address);
    while ((code = try_to_open(connection, role, deadline, &reason)) == 1) {
        if (reason != EAGAIN && !wait)
            return nvlxi_fail(NVLX_ESTALE,
                              "nobody serves at \"%s\" any more: the peer is gone, or is not reached from here%s",
                              address, nvlxi_reach_connect(address, reason).text);
        if (reason == ECONNREFUSED && (code = check_kind(address)))
            return code;
        if (!nvlxi_connection_pause(&pause, deadline))
            return nvlxi_fail(NVLX_ETIMEDOUT, "cannot connect to \"%s\" in time: %s%s", address, strerror(reason),
                              nvlxi_reach_connect(address, reason).text);
    }
    return code;
}

/* Closing alone would not reach the other end while the service thread polls, or a child that is about to exec has it
 * too. */
void nvlxi_connection_close(struct nvlxi_connection *connection) {
    nvlxi_inbox_clear(&connection->in);
    if (connection->socket >= 0) {
        shutdown(connection->socket, SHUT_RDWR);
        nvlxi_fork_files_close(connection->socket);
    }
    connection->socket = -1;
}
