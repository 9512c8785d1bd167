/* Why an address is not reached, or not served at, in plain words. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/reach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether this process's effective user may, as the kernel asks it for sockets. */
static bool may(const char *path, int mode) {
    return faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0;
}

/* The first folder on the way to the socket file that is missing (ENOENT), or may not be searched (EACCES); the folder
 * of the file itself if there is none. Returns its errno, or 0. */
static int look_at_folders(const char *address, char *folder) {
    for (const char *slash = strchr(address, '/'); slash; slash = strchr(slash + 1, '/')) {
        const size_t length = slash == address ? 1 : (size_t)(slash - address);
        memcpy(folder, address, length);
        folder[length] = '\0';
        if (!may(folder, X_OK))
            return errno;
    }
    return 0;
}

static void tell_folder(struct nvlxi_reach *reach, int reason, const char *folder) {
    if (reason == ENOENT)
        snprintf(reach->text, sizeof reach->text, ": the folder \"%s\" is missing", folder);
    else if (reason == EACCES)
        snprintf(reach->text, sizeof reach->text, ": user %u may not search the folder \"%s\"", (unsigned)geteuid(),
                 folder);
}

/* Of its own: users have other numbers outside. */
static bool in_user_namespace(void) {
    char map[64] = "";
    unsigned long inside = 1, outside = 1, count = 0;
    FILE *file = fopen("/proc/self/uid_map", "re");
    const bool is_read = file && fgets(map, sizeof map, file);
    if (file)
        fclose(file);
    return is_read && sscanf(map, "%lu %lu %lu", &inside, &outside, &count) == 3 &&
           (inside || outside || count != UINT32_MAX);
}

static void tell_file(struct nvlxi_reach *reach, const char *address) {
    struct stat status;
    if (stat(address, &status) || may(address, W_OK))
        return;
    snprintf(reach->text, sizeof reach->text,
             ": user %u may not write to the socket file (mode %04o, of user %u): serve_options.users or groups where "
             "it serves name who may, serve_options.mode is the file's%s",
             (unsigned)geteuid(), (unsigned)status.st_mode & 0777, (unsigned)status.st_uid,
             in_user_namespace() ? "; this process is in a user namespace, so the server may know the user by another "
                                   "number"
                                 : "");
}

struct nvlxi_reach nvlxi_reach_connect(const char *address, int reason) {
    struct nvlxi_reach reach = {.text = ""};
    char folder[NVLXI_ADDRESS_MAX + 1] = "";
    const bool abstract = address[0] == '@';
    const int found = abstract ? 0 : look_at_folders(address, folder);
    if (reason == ECONNRESET)
        snprintf(reach.text, sizeof reach.text, ": who serves there hangs up: it is about to end, or is no engine");
    else if (abstract && reason == ECONNREFUSED)
        snprintf(reach.text, sizeof reach.text, ": nobody serves at \"%s\" in this network namespace", address);
    else if (reason == ECONNREFUSED)
        snprintf(reach.text, sizeof reach.text, ": nobody listens there: who served has ended, and left the file");
    else if (reason == EAGAIN)
        snprintf(reach.text, sizeof reach.text, ": who serves there lets nobody in: it is busy, or stopped");
    else if ((reason == ENOENT || reason == EACCES) && found == reason)
        tell_folder(&reach, reason, folder);
    else if (reason == ENOENT && !found)
        snprintf(
            reach.text, sizeof reach.text,
            ": the folder \"%s\" has no such file: nobody serves there, or the server sees another folder at that path",
            folder);
    else if (reason == EACCES && !found)
        tell_file(&reach, address);
    return reach;
}

/* Only its owner, and the folder's, remove a file from such a folder. */
static void tell_sticky(struct nvlxi_reach *reach, const char *address) {
    struct stat status;
    if (!lstat(address, &status) && status.st_uid != geteuid())
        snprintf(reach->text, sizeof reach->text,
                 ": the file is of user %u, and in a sticky folder (mode 1777, as /tmp) only that user may remove it, "
                 "or the folder's",
                 (unsigned)status.st_uid);
}

struct nvlxi_reach nvlxi_reach_serve(const char *address, int reason) {
    struct nvlxi_reach reach = {.text = ""};
    char folder[NVLXI_ADDRESS_MAX + 1] = "";
    if (address[0] == '@' || (reason != ENOENT && reason != EACCES && reason != EPERM))
        return reach;
    if (reason == EPERM) {
        tell_sticky(&reach, address);
        return reach;
    }
    const int found = look_at_folders(address, folder);
    if (found == reason)
        tell_folder(&reach, reason, folder);
    else if (reason == EACCES && !found && !may(folder, W_OK))
        snprintf(reach.text, sizeof reach.text, ": user %u may not write in the folder \"%s\"", (unsigned)geteuid(),
                 folder);
    return reach;
}
