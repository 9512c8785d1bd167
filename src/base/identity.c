/* Who this process is, as other processes of the machine can tell. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "base/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

#define BOOT_ID_FILE   "/proc/sys/kernel/random/boot_id"
#define STAT_FILE      "/proc/self/stat"
#define NAMESPACE_FILE "/proc/self/ns/pid"

/* Reads the start of a /proc file as a string; these files come whole in one read. */
static int read_file(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return nvlxi_fail(nvlxi_system_code(errno, NVLX_ENOTSUP), "cannot tell who this process is: %s: %s", path,
                          strerror(errno));
    ssize_t count;
    do
        count = read(file, text, size - 1);
    while (count < 0 && errno == EINTR);
    int reason = errno;
    close(file);
    if (count < 0)
        return nvlxi_fail(NVLX_ENOTSUP, "cannot tell who this process is: %s: %s", path, strerror(reason));
    text[count] = '\0';
    return 0;
}

static int read_boot_id(char boot_id[static 40]) {
    char text[64];
    int code = read_file(BOOT_ID_FILE, text, sizeof text);
    if (code)
        return code;
    text[strcspn(text, "\n")] = '\0';
    size_t length = strlen(text);
    if (length == 0 || length >= 40)
        return nvlxi_fail(NVLX_ENOTSUP, "cannot tell who this process is: %s has %zu characters, not 1 to 39",
                          BOOT_ID_FILE, length);
    memcpy(boot_id, text, length + 1);
    return 0;
}

/* The second field is the program's name in parentheses, which may itself have parentheses and blanks. */
bool nvlxi_identity_parse_stat(const char *text, char *state, uint64_t *start_time) {
    const char *rest = strrchr(text, ')');
    return rest &&
           sscanf(rest + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64,
                  state, start_time) == 2;
}

static int read_start_time(uint64_t *start_time) {
    char text[1024], state;
    int code = read_file(STAT_FILE, text, sizeof text);
    if (!code && !nvlxi_identity_parse_stat(text, &state, start_time))
        return nvlxi_fail(NVLX_ENOTSUP, "cannot tell who this process is: %s has no start time", STAT_FILE);
    return code;
}

static int make_engine_id(char engine[static 33]) {
    uint8_t bytes[16];
    ssize_t count = getrandom(bytes, sizeof bytes, 0);
    if (count != sizeof bytes)
        return nvlxi_fail(NVLX_ENOTSUP, "cannot make an engine's id: getrandom: %s",
                          count < 0 ? strerror(errno) : "too few bytes");
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(engine + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

int nvlxi_identity_make(struct nvlxi_identity *identity) {
    struct nvlxi_identity made = {.pid = (uint64_t)getpid()};
    struct stat status;
    if (stat(NAMESPACE_FILE, &status))
        return nvlxi_fail(nvlxi_system_code(errno, NVLX_ENOTSUP), "cannot tell who this process is: %s: %s",
                          NAMESPACE_FILE, strerror(errno));
    made.pid_namespace = status.st_ino;
    int code = read_boot_id(made.boot_id);
    if (!code)
        code = read_start_time(&made.start_time);
    if (!code)
        code = make_engine_id(made.engine);
    if (!code)
        *identity = made;
    return code;
}

bool nvlxi_identity_same_process(const struct nvlxi_identity *a, const struct nvlxi_identity *b) {
    return a->pid == b->pid && a->pid_namespace == b->pid_namespace && a->start_time == b->start_time &&
           strcmp(a->boot_id, b->boot_id) == 0;
}
