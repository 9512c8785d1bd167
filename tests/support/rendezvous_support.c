/* What the tests of the rendezvous share. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous_support.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MS 20000.0

const char *own_path(void) {
    static char path[64];
    static pid_t asked;
    snprintf(path, sizeof path, "/tmp/nvlxfer-test-%d", (int)getpid());
    if (asked != getpid())
        unlink(path); /* what an earlier process of this number left behind when it was killed */
    asked = getpid();
    return path;
}

const char *own_name(void) {
    static char name[64];
    snprintf(name, sizeof name, "@nvlxfer-test-%d", (int)getpid());
    return name;
}

struct nvlx_peer *connect_to(struct nvlx_engine *engine, const char *address) {
    struct nvlx_peer *peer;
    OK(nvlx_connect(engine, address, PATIENCE, &peer));
    return peer;
}

static void await_find(struct nvlx_peer *peer, const char *name, int code) {
    uint64_t address, length;
    double begin = now_ms();
    while (nvlx_peer_find(peer, name, &address, &length) != code) {
        if (now_ms() - begin > PATIENCE_MS)
            FAIL("region \"%s\" never gives %d (%s)", name, code, nvlx_strerror(code));
        usleep(1000);
    }
}

void await_name(struct nvlx_peer *peer, const char *name) {
    await_find(peer, name, 0);
}

void await_no_name(struct nvlx_peer *peer, const char *name) {
    await_find(peer, name, NVLX_ENOENT);
}

void await_end(struct nvlx_peer *peer) {
    double begin = now_ms();
    int code;
    while (!(code = nvlx_peer_test(peer))) {
        if (now_ms() - begin > PATIENCE_MS)
            FAIL("the peer's end was not noticed");
        usleep(1000);
    }
    REFUSED(code, NVLX_ESTALE, "gone");
}

static size_t count_in(pid_t pid, const char *folder) {
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, folder);
    DIR *opened = opendir(path);
    if (!opened)
        FAIL("%s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(opened));)
        count += entry->d_name[0] != '.';
    closedir(opened);
    return count;
}

struct possessions possessions_of(pid_t pid) {
    struct possessions found = {count_in(pid, "fd"), count_in(pid, "task")};
    return found;
}

void await_possessions(pid_t pid, struct possessions wanted) {
    double begin = now_ms();
    for (;;) {
        struct possessions found = possessions_of(pid);
        if (found.fds == wanted.fds && found.threads == wanted.threads)
            return;
        if (now_ms() - begin > PATIENCE_MS)
            FAIL("%zu descriptors and %zu threads are open, not %zu and %zu", found.fds, found.threads, wanted.fds,
                 wanted.threads);
        usleep(1000);
    }
}

static socklen_t raw_address(const char *address, struct sockaddr_un *raw) {
    *raw = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t length = strlen(address);
    memcpy(raw->sun_path, address, length);
    if (address[0] == '@')
        raw->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (address[0] != '@'));
}

int raw_connect(const char *address) {
    struct sockaddr_un raw;
    socklen_t length = raw_address(address, &raw);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0 || connect(made, (const struct sockaddr *)&raw, length))
        FAIL("cannot connect to %s: %s", address, strerror(errno));
    return made;
}

int raw_listen(const char *address) {
    struct sockaddr_un raw;
    socklen_t length = raw_address(address, &raw);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0 || bind(made, (const struct sockaddr *)&raw, length) || listen(made, 16))
        FAIL("cannot listen at %s: %s", address, strerror(errno));
    return made;
}

bool closes(int socket, int timeout_ms) {
    double end = now_ms() + timeout_ms;
    char ignored[4096];
    for (;;) {
        struct pollfd ready = {.fd = socket, .events = POLLIN};
        int left = (int)(end - now_ms());
        if (left < 0 || poll(&ready, 1, left) <= 0)
            return false;
        if (recv(socket, ignored, sizeof ignored, 0) <= 0)
            return true;
    }
}

void say(struct child *child, const char *text) {
    char name[64] = {0};
    snprintf(name, sizeof name, "%s", text);
    put(child->socket, name, sizeof name);
}

void await_child(struct child *child) {
    char ignored;
    get(child->socket, &ignored, 1);
}
