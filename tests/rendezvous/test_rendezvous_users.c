/* Who may come in, and where one may serve: users, groups, modes of files and folders.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rendezvous_support.h"

#define NOBODY 65534

static struct nvlx_engine *engine; /* serves at `address` */
static char address[64];

struct visit {
    uint32_t user, group, supplementary; /* who comes */
    char address[64];
};

/* A child that becomes somebody else and connects; sends the code, and what was told. */
static void visitor_role(int socket) {
    struct visit visit;
    struct nvlx_peer *peer;
    get(socket, &visit, sizeof visit);
    const gid_t groups[] = {visit.supplementary};
    if (setgroups(1, groups) || setgid(visit.group) || setuid(visit.user))
        FAIL("cannot become user %u: %s", visit.user, strerror(errno));
    die_with_parent(); /* becoming somebody else has undone it */
    struct nvlx_engine *visitor = make_engine(0);
    char told[512] = {0};
    int code = nvlx_connect(visitor, visit.address, 5 * SECOND_NS, &peer);
    snprintf(told, sizeof told, "%s", code ? nvlx_last_error() : "");
    put(socket, &code, sizeof code);
    put(socket, told, sizeof told);
    OK(nvlx_engine_destroy(visitor));
}

static void visit_and_hear(uint32_t user, uint32_t group, uint32_t supplementary, int expected, const char *words) {
    struct child child;
    char told[512];
    struct visit visit = {.user = user, .group = group, .supplementary = supplementary};
    int code;
    snprintf(visit.address, sizeof visit.address, "%s", address);
    child_start(&child, "visitor");
    put(child.socket, &visit, sizeof visit);
    get(child.socket, &code, sizeof code);
    if (code != expected)
        FAIL("user %u, groups %u and %u: %d, not %d", user, group, supplementary, code, expected);
    get(child.socket, told, sizeof told);
    if (!strstr(told, words))
        FAIL("\"%s\" does not say \"%s\"", told, words);
    child_end(&child);
}

static void visit(uint32_t user, uint32_t group, uint32_t supplementary, int expected) {
    visit_and_hear(user, group, supplementary, expected, "");
}

static bool is_root(const char *test) {
    if (geteuid() == 0)
        return true;
    printf("SKIP: %s: only root can become other users\n", test);
    return false;
}

static void serve_for(const uint32_t *users, const uint32_t *groups, uint32_t mode) {
    struct nvlx_serve_options options;
    nvlx_serve_options_init(&options);
    options.users = users;
    options.user_count = users ? 1 : 0;
    options.groups = groups;
    options.group_count = groups ? 1 : 0;
    options.mode = mode;
    engine = make_engine(0);
    OK(nvlx_serve(engine, address, &options));
}

static void users_are_told_apart(void) {
    const uint32_t user = NOBODY, group = 7000;
    struct stat status;
    if (!is_root("users_are_told_apart"))
        return;
    const char *const addresses[] = {own_path(), own_name()};
    for (size_t i = 0; i < COUNT(addresses); i++) {
        snprintf(address, sizeof address, "%s", addresses[i]);
        serve_for(NULL, NULL, i ? 0 : 0777); /* the file lets them in, the server does not */
        visit(0, 0, 0, 0);
        visit_and_hear(NOBODY, NOBODY, NOBODY, NVLX_EACCES,
                       "user 65534 with group 65534 is not among those that may connect: serve_options.users or groups "
                       "must name it");
        OK(nvlx_engine_destroy(engine));
        serve_for(&user, NULL, 0);
        visit(NOBODY, NOBODY, NOBODY, 0);
        visit(NOBODY - 1, NOBODY, NOBODY, NVLX_EACCES);
        EXPECT(i || (stat(address, &status) == 0 && (status.st_mode & 0777) == 0666));
        OK(nvlx_engine_destroy(engine));
        serve_for(NULL, &group, 0);
        visit(NOBODY, group, NOBODY, 0);
        visit(NOBODY, NOBODY, group, 0);
        visit(NOBODY, NOBODY, group + 1, NVLX_EACCES);
        OK(nvlx_engine_destroy(engine));
    }
    snprintf(address, sizeof address, "%s", own_path());
    serve_for(NULL, NULL, 0); /* not even the file lets them in */
    visit_and_hear(NOBODY, NOBODY, NOBODY, NVLX_EACCES,
                   "user 65534 may not write to the socket file (mode 0600, of user 0): serve_options.users");
    OK(nvlx_engine_destroy(engine));
}

/* The server would let them in, a folder above the file does not. */
static void closed_folders_are_told(void) {
    const uint32_t user = NOBODY;
    char folder[48], words[160];
    if (!is_root("closed_folders_are_told"))
        return;
    snprintf(folder, sizeof folder, "%.38s-closed", own_path());
    snprintf(address, sizeof address, "%s/s", folder);
    snprintf(words, sizeof words, "user 65534 may not search the folder \"%s\"", folder);
    EQUAL(0, mkdir(folder, 0700));
    serve_for(&user, NULL, 0);
    visit_and_hear(NOBODY, NOBODY, NOBODY, NVLX_EACCES, words);
    EQUAL(0, chmod(folder, 0711));
    visit(NOBODY, NOBODY, NOBODY, 0);
    OK(nvlx_engine_destroy(engine));
    EQUAL(0, rmdir(folder));
}

static void become_nobody(void) {
    if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
        FAIL("cannot become nobody: %s", strerror(errno));
    die_with_parent(); /* becoming somebody else has undone it */
}

/* A child that is somebody else and serves in a folder that is root's. */
static void intruder_role(int socket) {
    char folder[64], path[80], words[160];
    get(socket, folder, sizeof folder);
    become_nobody();
    struct nvlx_engine *intruder = make_engine(0);
    snprintf(path, sizeof path, "%s/here", folder);
    REFUSED(nvlx_serve(intruder, path, NULL), NVLX_EACCES, path);
    snprintf(words, sizeof words, "user 65534 may not write in the folder \"%s\"", folder);
    REFUSED(nvlx_serve(intruder, path, NULL), NVLX_EACCES, words);
    snprintf(path, sizeof path, "%s/closed/here", folder);
    snprintf(words, sizeof words, "user 65534 may not search the folder \"%s/closed\"", folder);
    REFUSED(nvlx_serve(intruder, path, NULL), NVLX_EACCES, words);
    OK(nvlx_engine_destroy(intruder));
}

static void folders_are_protected(void) {
    struct child child;
    char folder[64] = {0}, closed[80];
    if (!is_root("folders_are_protected"))
        return;
    snprintf(folder, sizeof folder, "%s-folder", own_path());
    snprintf(closed, sizeof closed, "%s/closed", folder);
    EQUAL(0, mkdir(folder, 0755));
    EQUAL(0, mkdir(closed, 0700));
    child_start(&child, "intruder");
    put(child.socket, folder, sizeof folder);
    child_end(&child);
    EQUAL(0, rmdir(closed));
    EQUAL(0, rmdir(folder));
}

/* A child that is somebody else, in a folder where all may write. */
static void heir_role(int socket) {
    char path[64];
    get(socket, path, sizeof path);
    become_nobody();
    struct nvlx_engine *heir = make_engine(0);
    REFUSED(nvlx_serve(heir, path, NULL), NVLX_EEXIST,
            "user 65534 cannot tell whether somebody serves there, as the socket file is of user 0, mode 0600");
    put(socket, "", 1);
    get(socket, path, sizeof path); /* the file has another mode now */
    REFUSED(nvlx_serve(heir, path, NULL), NVLX_EACCES, "the file is of user 0, and in a sticky folder");
    OK(nvlx_engine_destroy(heir));
}

/* What another user's server has left is not what somebody serves at. */
static void dead_sockets_of_others_are_told(void) {
    struct child child;
    char folder[48], path[64] = {0};
    if (!is_root("dead_sockets_of_others_are_told"))
        return;
    snprintf(folder, sizeof folder, "%.38s-dead", own_path());
    snprintf(path, sizeof path, "%s/s", folder);
    EQUAL(0, mkdir(folder, 0700));
    EQUAL(0, chmod(folder, 01777));
    close(raw_listen(path));
    EQUAL(0, chmod(path, 0600));
    child_start(&child, "heir");
    put(child.socket, path, sizeof path);
    get(child.socket, (char[1]){0}, 1);
    EQUAL(0, chmod(path, 0666));
    put(child.socket, path, sizeof path);
    child_end(&child);
    EQUAL(0, unlink(path));
    EQUAL(0, rmdir(folder));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"users_are_told_apart", users_are_told_apart},
                                        {"closed_folders_are_told", closed_folders_are_told},
                                        {"folders_are_protected", folders_are_protected},
                                        {"dead_sockets_of_others_are_told", dead_sockets_of_others_are_told},
                                        {0}};
    static const struct role roles[] = {
        {"visitor", visitor_role}, {"intruder", intruder_role}, {"heir", heir_role}, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
