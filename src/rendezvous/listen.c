/* Makes a listening socket and its file, and admits who may come in. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fork_files.h"
#include "rendezvous/connection.h"
#include "rendezvous/reach.h"

#define LOCK_TRIES    100
#define LOCK_PAUSE_US 10000

/* ---- The socket file ----------------------------------------------------------------------------------- */

/* -1, without an error, where there is no folder, or it cannot be read: bind says what it thinks of that. */
static int lock_folder(const char *address, int *lock) {
    char folder[NVLXI_ADDRESS_MAX + 1] = {0};
    *lock = -1;
    if (address[0] == '@')
        return 0;
    size_t length = (size_t)(strrchr(address, '/') - address);
    memcpy(folder, address, length ? length : 1);
    *lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; *lock >= 0 && i < LOCK_TRIES; i++) {
        if (flock(*lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
            return 0;
        usleep(LOCK_PAUSE_US);
    }
    if (*lock < 0)
        return 0;
    close(*lock);
    return nvlxi_fail(NVLX_EBUSY, "cannot serve at \"%s\": another process keeps the folder %s locked", address,
                      folder);
}

static void unlock_folder(int lock) {
    if (lock < 0)
        return;
    flock(lock, LOCK_UN); /* a child that was forked meanwhile has it too */
    close(lock);
}

enum listening { NOBODY, THIS_PROCESS, ANOTHER, UNKNOWN }; /* the last: this user may not ask */

/* Who listens at an address. */
static enum listening who_listens(const struct sockaddr_un *address, socklen_t length) {
    struct ucred server = {0};
    socklen_t size = sizeof server;
    const int probe = nvlxi_fork_files_socket();
    if (probe < 0)
        return ANOTHER;
    const bool connected = connect(probe, (const struct sockaddr *)address, length) == 0;
    const int reason = connected ? 0 : errno;
    const bool own = connected && !getsockopt(probe, SOL_SOCKET, SO_PEERCRED, &server, &size) && server.pid == getpid();
    nvlxi_fork_files_close(probe);
    return reason == ECONNREFUSED ? NOBODY : reason == EACCES ? UNKNOWN : own ? THIS_PROCESS : ANOTHER;
}

/* An abstract name at which nobody listens is about to be free, or to be listened at: a child has its socket that was
 * forked a moment ago. */
static int bind_patiently(int socket, const struct sockaddr_un *address, socklen_t length) {
    for (int i = 0;; i++) {
        if (bind(socket, (const struct sockaddr *)address, length) == 0)
            return 0;
        if (errno != EADDRINUSE || address->sun_path[0] || i == LOCK_TRIES)
            return -1;
        if (who_listens(address, length) != NOBODY) {
            errno = EADDRINUSE;
            return -1;
        }
        usleep(LOCK_PAUSE_US);
    }
}

static int fail_to_serve(const char *address, int reason) {
    return nvlxi_fail(nvlxi_socket_code(reason), "cannot serve at \"%s\": %s%s", address, strerror(reason),
                      nvlxi_reach_serve(address, reason).text);
}

static int bind_socket(struct nvlxi_listener *listener, const struct sockaddr_un *address, socklen_t length) {
    struct stat status = {0};
    if (bind_patiently(listener->socket, address, length) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return fail_to_serve(listener->address, errno);
    if (address->sun_path[0] && lstat(address->sun_path, &status) == 0 && !S_ISSOCK(status.st_mode))
        return nvlxi_fail(NVLX_EEXIST, "cannot serve at \"%s\": it is there already, and no socket", listener->address);
    const enum listening who = who_listens(address, length);
    if (who == UNKNOWN && address->sun_path[0])
        return nvlxi_fail(NVLX_EEXIST,
                          "cannot serve at \"%s\": user %u cannot tell whether somebody serves there, as the socket "
                          "file is of user %u, mode %04o: if nobody does, let that user remove it",
                          listener->address, (unsigned)geteuid(), (unsigned)status.st_uid,
                          (unsigned)status.st_mode & 0777);
    if (who != NOBODY || !address->sun_path[0])
        return nvlxi_fail(NVLX_EEXIST, "cannot serve at \"%s\": another %s serves there", listener->address,
                          who == THIS_PROCESS ? "engine of this process" : "process");
    if (unlink(address->sun_path) == 0 && bind(listener->socket, (const struct sockaddr *)address, length) == 0)
        return 0;
    const int reason = errno;
    return nvlxi_fail(nvlxi_socket_code(reason), "cannot take over the dead socket \"%s\": %s%s", listener->address,
                      strerror(reason), nvlxi_reach_serve(listener->address, reason).text);
}

/* Whether the file at the address is still the one that was bound. */
static bool is_ours(const struct nvlxi_listener *listener, const struct stat *status) {
    return S_ISSOCK(status->st_mode) && status->st_dev == listener->device && status->st_ino == listener->inode;
}

static int note_file(struct nvlxi_listener *listener) {
    struct stat status;
    if (lstat(listener->address, &status))
        return nvlxi_fail(nvlxi_socket_code(errno), "\"%s\" is gone again: %s", listener->address, strerror(errno));
    listener->device = status.st_dev;
    listener->inode = status.st_ino;
    return 0;
}

static void remove_file(const struct nvlxi_listener *listener) {
    struct stat status;
    if (listener->address[0] == '/' && lstat(listener->address, &status) == 0 && is_ours(listener, &status))
        unlink(listener->address);
}

/* No link is followed: others may be able to put one in the place of the file. So the file itself is opened, and gets
 * its mode by the name that /proc has for what is open. */
static int set_mode(const struct nvlxi_listener *listener, mode_t mode) {
    char open_file[64];
    struct stat status;
    int code = 0, file = open(listener->address, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        return nvlxi_fail(nvlxi_socket_code(errno), "cannot set the mode of \"%s\": %s", listener->address,
                          strerror(errno));
    snprintf(open_file, sizeof open_file, "/proc/self/fd/%d", file);
    if (fstat(file, &status) || !is_ours(listener, &status) || status.st_uid != geteuid())
        code = nvlxi_fail(NVLX_EEXIST, "cannot serve at \"%s\": something else has taken its place", listener->address);
    else if (chmod(open_file, mode))
        code = nvlxi_fail(nvlxi_socket_code(errno), "cannot set the mode of \"%s\": %s", listener->address,
                          strerror(errno));
    close(file);
    return code;
}

/* Gives the file its mode before anybody can connect. */
static int start_listening(struct nvlxi_listener *listener, mode_t mode) {
    int code = 0;
    if (listener->address[0] == '/' && !(code = note_file(listener)))
        code = set_mode(listener, mode);
    if (code || listen(listener->socket, SOMAXCONN) == 0)
        return code;
    return nvlxi_fail(nvlxi_socket_code(errno), "cannot listen at \"%s\": %s", listener->address, strerror(errno));
}

static int copy_ids(const uint32_t *from, size_t count, uint32_t **to) {
    *to = count < SIZE_MAX / sizeof **to ? malloc((count + 1) * sizeof **to) : NULL;
    if (!*to)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu ids", count);
    if (count)
        memcpy(*to, from, count * sizeof **to);
    return 0;
}

static void free_listener(struct nvlxi_listener *listener) {
    free(listener->users);
    free(listener->groups);
    if (listener->socket >= 0)
        nvlxi_fork_files_close(listener->socket);
}

int nvlxi_listener_open(struct nvlxi_listener *listener, const char *address,
                        const struct nvlx_serve_options *options) {
    struct sockaddr_un parsed;
    socklen_t length;
    int lock, code;
    *listener =
        (struct nvlxi_listener){.socket = -1, .user_count = options->user_count, .group_count = options->group_count};
    snprintf(listener->address, sizeof listener->address, "%s", address);
    nvlxi_address_parse(address, &parsed, &length);
    if ((code = copy_ids(options->users, options->user_count, &listener->users)) ||
        (code = copy_ids(options->groups, options->group_count, &listener->groups)))
        goto free_all;
    listener->socket = nvlxi_fork_files_socket();
    if (listener->socket < 0) {
        code = nvlxi_fail(nvlxi_socket_code(errno), "no socket to serve at \"%s\": %s", address, strerror(errno));
        goto free_all;
    }
    if ((code = lock_folder(address, &lock)))
        goto free_all;
    code = bind_socket(listener, &parsed, length);
    if (!code && (code = start_listening(listener, options->mode)))
        remove_file(listener);
    unlock_folder(lock);
    if (!code)
        return 0;
free_all:
    free_listener(listener);
    return code;
}

/* A child that is about to exec may have the socket as well: it stops listening there too. */
void nvlxi_listener_close(struct nvlxi_listener *listener) {
    remove_file(listener);
    shutdown(listener->socket, SHUT_RDWR);
    free_listener(listener);
}

/* ---- Who may come in ----------------------------------------------------------------------------------- */

static bool has(const uint32_t *ids, size_t count, uint32_t id) {
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static bool has_supplementary_group(const struct nvlxi_listener *listener, int connection) {
    gid_t few[64], *groups = few;
    socklen_t length = sizeof few;
    int failed = getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, groups, &length);
    if (failed && errno == ERANGE && (groups = malloc(length))) /* it told how many bytes it takes */
        failed = getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, groups, &length);
    bool found = false;
    for (size_t i = 0; !failed && !found && i < length / sizeof *groups; i++)
        found = has(listener->groups, listener->group_count, groups[i]);
    if (groups != few)
        free(groups);
    return found;
}

int nvlxi_listener_admits(const struct nvlxi_listener *listener, int connection, pid_t *pid) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length))
        return nvlxi_fail(NVLX_EACCES, "cannot tell who connects to \"%s\": %s", listener->address, strerror(errno));
    *pid = peer.pid;
    if (peer.uid == geteuid() || has(listener->users, listener->user_count, peer.uid))
        return 0;
    if (listener->group_count &&
        (has(listener->groups, listener->group_count, peer.gid) || has_supplementary_group(listener, connection)))
        return 0;
    return nvlxi_fail(NVLX_EACCES,
                      "user %u with group %u is not among those that may connect: serve_options.users or groups must "
                      "name it",
                      (unsigned)peer.uid, (unsigned)peer.gid);
}
