/* Gives file descriptors out, a few at a time. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/files/fd_give.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"
#include "base/fork_files.h"
#include "rendezvous/connection.h"

#define SHARE_MAX   16                   /* files under way to one connection */
#define FILES_MAX   NVLXI_ROOM_MAX       /* in one turn: exporting one takes 0.1 to 0.7 ms */
#define LOOK_NS     UINT64_C(10000000)   /* to look again whether all was received, if no event tells */
#define REST_NS     UINT64_C(3000000)    /* after ETOOMANYREFS or EMFILE */
#define PATIENCE_NS UINT64_C(8000000000) /* with them; who asks waits for 10 s */
#define EMPTY       256                  /* any message takes more of a socket's memory */

int nvlxi_giving_begin(struct nvlxi_giving *giving, bool named, const uint8_t *body, size_t length) {
    giving->given = giving->count = 0;
    giving->named = named;
    giving->since = nvlxi_now_ns();
    giving->due = 0;
    giving->denied = 0;
    return named ? nvlxi_protocol_get_ask(body, length, &giving->request, giving->files, &giving->count)
                 : nvlxi_protocol_get_fetch(body, length, giving->files, &giving->count);
}

bool nvlxi_giving_is_open(const struct nvlxi_giving *giving) {
    return giving->given < giving->count;
}

size_t nvlxi_giving_share(size_t connections) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return 1;
    return nvlxi_max(nvlxi_min(limit.rlim_cur / 2 / connections, SHARE_MAX), 1);
}

/* Whether the other end has received all that was sent. Where the kernel does not tell, it is assumed. */
static bool all_received(int socket) {
    int unread;
    return ioctl(socket, SIOCOUTQ, &unread) || unread < EMPTY;
}

static int export_file(struct nvlxi_registration *registration, const struct nvlxi_protocol_file *file, int *fd) {
    struct nvlxi_allocation allocation;
    int code = nvlxi_registration_begin_file(registration, file->base, file->serial, &allocation);
    if (code)
        return code;
    code = allocation.file
               ? registration->context->ops->export_file(registration->context->device, &allocation, fd)
               : nvlxi_fail(NVLX_EINVAL, "segment 0x%" PRIx64 " is not shared by a file descriptor", file->base);
    nvlxi_registration_end_file(registration);
    return code;
}

/* That a client asks for what was withdrawn a moment before is nobody's mistake: only the client is told. */
static int try_to_export(struct nvlxi_registration *registration, const struct nvlxi_protocol_file *file, int *fd) {
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    int code = export_file(registration, file, fd);
    if (code != NVLX_ESTALE)
        return nvlxi_attempt_end(&attempt, code);
    nvlxi_attempt_note(&attempt, NVLX_LOG_DEBUG, "a client asks for what was withdrawn");
    return nvlxi_fail_again(code, attempt.text);
}

/* The message is short, so it goes whole or not at all. Returns 0 or an errno. */
static int send_files(const struct nvlxi_giving *giving, int socket, const int *fds, size_t count) {
    union {
        char bytes[CMSG_SPACE(FILES_MAX * sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    size_t length = giving->named ? nvlxi_protocol_put_given(bytes, giving->request, count)
                                  : nvlxi_protocol_put_files(bytes, count);
    struct iovec what = {.iov_base = bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &what,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header =
        (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    ssize_t sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == (ssize_t)length)
        return 0;
    return sent < 0 ? errno : EMSGSIZE;
}

/* What is to be made of a message that was not sent. */
static int judge(struct nvlxi_giving *giving, int reason, size_t count) {
    uint64_t now = nvlxi_now_ns();
    if (reason == EAGAIN || reason == EINTR || reason == ENOBUFS) {
        giving->full = true;
        giving->due = now + LOOK_NS;
        return 0;
    }
    if ((reason == ETOOMANYREFS || reason == EMFILE) && now - giving->since < PATIENCE_NS) {
        giving->due = now + REST_NS;
        return 0;
    }
    if (nvlxi_socket_code(reason) == NVLX_ESTALE)
        return NVLX_ESTALE;
    giving->denied = nvlxi_fail(NVLX_ENOMEM, "cannot send %zu file descriptors: %s", count, strerror(reason));
    return 0;
}

static void look(struct nvlxi_giving *giving, int socket) {
    if (giving->under_way && all_received(socket))
        giving->under_way = 0;
}

/* How many files may be sent now. Half of the share, so that some are exported while others are received. */
static size_t room_for(struct nvlxi_giving *giving, int socket, size_t share) {
    look(giving, socket);
    giving->full = giving->under_way >= share;
    return giving->full ? 0 : nvlxi_min(share - giving->under_way, nvlxi_min((share + 1) / 2, FILES_MAX));
}

int nvlxi_giving_go_on(struct nvlxi_giving *giving, int socket, struct nvlxi_registration *registration, size_t share) {
    int fds[FILES_MAX], code = 0;
    uint64_t now = nvlxi_now_ns();
    if (!giving->full && now < giving->due)
        return 0;
    size_t wanted = nvlxi_min(giving->count - giving->given, room_for(giving, socket, share)), count = 0;
    if (!wanted) {
        giving->due = now + LOOK_NS;
        return 0;
    }
    size_t most = nvlxi_fork_files_room(socket, wanted);
    while (count < most && !(code = try_to_export(registration, &giving->files[giving->given + count], &fds[count])))
        count++;
    giving->denied = code;
    look(giving, socket); /* by now what went before may be there */
    int reason = code ? 0 : most ? send_files(giving, socket, fds, count) : EMFILE;
    for (size_t i = 0; i < count; i++)
        close(fds[i]); /* NOLINT(clang-analyzer-core.CallAndMessage): try_to_export has set it */
    if (code || reason) {
        code = code ? 0 : judge(giving, reason, wanted);
    } else {
        giving->given += count;
        giving->under_way += count;
        giving->since = nvlxi_now_ns();
    }
    if (giving->denied)
        giving->given = giving->count = 0;
    return code;
}

uint32_t nvlxi_giving_events(const struct nvlxi_giving *giving, uint64_t *deadline) {
    if (!giving->full && nvlxi_now_ns() >= giving->due)
        return EPOLLOUT;
    *deadline = nvlxi_min(*deadline, giving->due);
    return giving->full ? EPOLLOUT | EPOLLET : 0; /* each time that something is received */
}
