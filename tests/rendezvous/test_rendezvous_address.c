/* Where engines serve: which addresses they take, whose socket files they replace and remove.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rendezvous_support.h"

static struct nvlx_engine *engine;
static char address[64];

/* ---- Binding, as it may go wrong ------------------------------------------------------------------------ */

static int bind_errno;           /* bind fails like that; 0: it does not */
static const char *bind_replace; /* what was bound is replaced by a link to this file; NULL: it is not */

int __real_bind(int socket, const struct sockaddr *at, socklen_t length); /* NOLINT: ld's names */
int __wrap_bind(int socket, const struct sockaddr *at, socklen_t length); /* NOLINT */

int __wrap_bind(int socket, const struct sockaddr *at, socklen_t length) { /* NOLINT */
    if (bind_errno) {
        errno = bind_errno;
        return -1;
    }
    int failed = __real_bind(socket, at, length);
    if (!failed && bind_replace)
        EXPECT(unlink(address) == 0 && symlink(bind_replace, address) == 0);
    return failed;
}

static void begin(void) {
    engine = make_engine(0);
    snprintf(address, sizeof address, "%s", own_path());
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
}

static void addresses_are_checked(void) {
    struct nvlx_peer *peer;
    char path[200] = "/tmp/", file[80];
    begin();
    memset(path + 5, 'x', 103);
    REFUSED(nvlx_serve(engine, path, NULL), NVLX_EINVAL, "108 bytes");
    REFUSED(nvlx_connect(engine, path, 0, &peer), NVLX_EINVAL, "108 bytes");
    REFUSED(nvlx_serve(engine, "relative", NULL), NVLX_EINVAL, "absolute");
    REFUSED(nvlx_serve(engine, "", NULL), NVLX_EINVAL, "absolute");
    REFUSED(nvlx_serve(engine, "@", NULL), NVLX_EINVAL, "absolute");
    REFUSED(nvlx_serve(engine, "/tmp/a\nb", NULL), NVLX_EINVAL, "control");
    REFUSED(nvlx_serve(engine, NULL, NULL), NVLX_EINVAL, "address");
    REFUSED(nvlx_connect(engine, address, 0, NULL), NVLX_EINVAL, "peer");
    REFUSED(nvlx_serve(engine, "/tmp", NULL), NVLX_EEXIST, "no socket");
    REFUSED(nvlx_serve(engine, "/tmp/no such folder/a/x", NULL), NVLX_ENOENT,
            "the folder \"/tmp/no such folder\" is missing");
    snprintf(file, sizeof file, "%s-file", address);
    fclose(fopen(file, "we"));
    REFUSED(nvlx_serve(engine, file, NULL), NVLX_EEXIST, "no socket");
    REFUSED(nvlx_connect(engine, file, -1, &peer), NVLX_EINVAL, "it is a file, no socket");
    unlink(file);
    REFUSED(nvlx_connect(engine, "/tmp", -1, &peer), NVLX_EINVAL, "it is a folder, no socket");
    REFUSED(nvlx_connect(engine, "/dev/null", -1, &peer), NVLX_EINVAL, "it is a device, no socket");
    EQUAL(0, symlink("/tmp", file));
    REFUSED(nvlx_connect(engine, file, -1, &peer), NVLX_EINVAL, "it is a folder, no socket");
    unlink(file);
    REFUSED(nvlx_connect(engine, file, 0, &peer), NVLX_ETIMEDOUT, strerror(ENOENT));
    path[107] = '\0';
    unlink(path);
    OK(nvlx_serve(engine, path, NULL));
    struct nvlx_engine *other = make_engine(0);
    REFUSED(nvlx_serve(other, path, NULL), NVLX_EEXIST, "another engine of this process");
    REFUSED(nvlx_serve(engine, address, NULL), NVLX_EEXIST, "serves already");
    peer = connect_to(other, path);
    OK(nvlx_engine_destroy(other));
    end();
    EXPECT(access(path, F_OK));
}

/* What is likely wrong where nobody serves. */
static void absence_is_told(void) {
    struct nvlx_peer *peer;
    char words[128], path[96];
    begin();
    snprintf(words, sizeof words, "nobody serves at \"%s\" in this network namespace", own_name());
    REFUSED(nvlx_connect(engine, own_name(), 0, &peer), NVLX_ETIMEDOUT, words);
    REFUSED(nvlx_connect(engine, address, 0, &peer), NVLX_ETIMEDOUT, "the folder \"/tmp\" has no such file");
    REFUSED(nvlx_connect(engine, "/nvlxfer-none", 0, &peer), NVLX_ETIMEDOUT, "the folder \"/\" has no such file");
    snprintf(path, sizeof path, "%s-none/deep/s", address);
    snprintf(words, sizeof words, "the folder \"%s-none\" is missing", address);
    REFUSED(nvlx_connect(engine, path, 0, &peer), NVLX_ETIMEDOUT, words);
    close(raw_listen(address));
    REFUSED(nvlx_connect(engine, address, 0, &peer), NVLX_ETIMEDOUT, "who served has ended");
    unlink(address);
    end();
}

static void *hang_up(void *listener) {
    close(accept(*(int *)listener, NULL, NULL));
    return NULL;
}

static void who_hangs_up_is_told(void) {
    struct nvlx_peer *peer;
    pthread_t thread;
    begin();
    int listener = raw_listen(address);
    EQUAL(0, pthread_create(&thread, NULL, hang_up, &listener));
    REFUSED(nvlx_connect(engine, address, 0, &peer), NVLX_ETIMEDOUT, "who serves there hangs up");
    pthread_join(thread, NULL);
    close(listener);
    unlink(address);
    end();
}

/* An address in UTF-8 is told to peers, as any other. */
static void addresses_are_utf8(void) {
    char name[80];
    begin();
    snprintf(name, sizeof name, "%s-\xc3\xbc", address);
    OK(nvlx_serve(engine, name, NULL));
    OK(nvlx_peer_close(connect_to(engine, name)));
    end();
    EXPECT(access(name, F_OK));
}

static void options_are_checked(void) {
    struct nvlx_serve_options options;
    struct stat status;
    begin();
    nvlx_serve_options_init(&options);
    options.user_count = 1;
    REFUSED(nvlx_serve(engine, address, &options), NVLX_EINVAL, "users");
    const uint32_t one = 1;
    options.users = &one;
    for (int bit = 62; bit < 64; bit++) {
        options.user_count = (size_t)1 << bit;
        REFUSED(nvlx_serve(engine, address, &options), NVLX_ENOMEM, "ids");
    }
    nvlx_serve_options_init(&options);
    options.group_count = 1;
    REFUSED(nvlx_serve(engine, address, &options), NVLX_EINVAL, "groups");
    nvlx_serve_options_init(&options);
    options.mode = 01777;
    REFUSED(nvlx_serve(engine, address, &options), NVLX_EINVAL, "mode");
    nvlx_serve_options_init(&options);
    options.max_connections = 1000000;
    REFUSED(nvlx_serve(engine, address, &options), NVLX_EINVAL, "max_connections");
    EXPECT(access(address, F_OK));
    nvlx_serve_options_init(&options);
    options.mode = 0640;
    OK(nvlx_serve(engine, address, &options));
    EQUAL(0, stat(address, &status));
    EQUAL(0640, status.st_mode & 0777);
    end();
}

static void fail_to_bind(int reason, int code) {
    bind_errno = reason;
    REFUSED(nvlx_serve(engine, address, NULL), code, strerror(reason));
    bind_errno = 0;
}

static void folders_that_do_not_work_are_told(void) {
    char loop[80], inside[96];
    begin();
    fail_to_bind(ENOSPC, NVLX_ENOMEM);
    fail_to_bind(EDQUOT, NVLX_ENOMEM);
    fail_to_bind(EMFILE, NVLX_ENOMEM);
    fail_to_bind(EROFS, NVLX_EACCES);
    fail_to_bind(EACCES, NVLX_EACCES);
    fail_to_bind(ENOTDIR, NVLX_ENOENT);
    snprintf(loop, sizeof loop, "%s-loop", address);
    snprintf(inside, sizeof inside, "%s/s", loop);
    unlink(loop);
    EQUAL(0, symlink(loop, loop));
    REFUSED(nvlx_serve(engine, inside, NULL), NVLX_ENOENT, strerror(ELOOP));
    unlink(loop);
    EXPECT(access(address, F_OK));
    OK(nvlx_serve(engine, address, NULL));
    end();
}

/* Somebody who may write in the folder puts a link in the place of what was just bound. */
static void modes_follow_no_links(void) {
    struct nvlx_serve_options options;
    struct stat status;
    char victim[80];
    begin();
    nvlx_serve_options_init(&options);
    options.mode = 0666;
    snprintf(victim, sizeof victim, "%s-victim", address);
    fclose(fopen(victim, "we"));
    EQUAL(0, chmod(victim, 0600));
    bind_replace = victim;
    REFUSED(nvlx_serve(engine, address, &options), NVLX_EEXIST, "taken its place");
    bind_replace = NULL;
    EQUAL(0, stat(victim, &status));
    EQUAL(0600, status.st_mode & 0777);
    EQUAL(0, lstat(address, &status));
    EXPECT(S_ISLNK(status.st_mode));
    unlink(address), unlink(victim);
    mode_t before = umask(077); /* is not heeded */
    OK(nvlx_serve(engine, address, &options));
    umask(before);
    EQUAL(0, stat(address, &status));
    EQUAL(0666, status.st_mode & 0777);
    end();
}

/* A file that another process has put in the place of ours is not removed. */
static void foreign_files_stay(void) {
    begin();
    struct nvlx_engine *other = make_engine(0);
    OK(nvlx_serve(engine, address, NULL));
    EQUAL(0, unlink(address));
    OK(nvlx_serve(other, address, NULL));
    OK(nvlx_engine_destroy(engine));
    EXPECT(access(address, F_OK) == 0);
    engine = make_engine(0);
    connect_to(engine, address);
    OK(nvlx_engine_destroy(other));
    EXPECT(access(address, F_OK));
    end();
}

/* A child that serves, or tries to, when it is told to. */
static void contender_role(int socket) {
    char at[64];
    struct nvlx_engine *contender = make_engine(0);
    put(socket, "r", 1);
    get(socket, at, sizeof at);
    int code = nvlx_serve(contender, at, NULL);
    put(socket, &code, sizeof code);
    get_or_end(socket, at, 1);
    OK(nvlx_engine_destroy(contender));
}

static void who_serves_is_told(void) {
    struct child contender;
    int code;
    begin();
    const char *const addresses[] = {address, own_name()};
    for (size_t i = 0; i < COUNT(addresses); i++) {
        char at[64] = {0};
        snprintf(at, sizeof at, "%s", addresses[i]);
        child_start(&contender, "contender");
        await_child(&contender);
        say(&contender, at);
        get(contender.socket, &code, sizeof code);
        EQUAL(0, code);
        REFUSED(nvlx_serve(engine, at, NULL), NVLX_EEXIST, "another process serves there");
        child_end(&contender);
        struct nvlx_engine *other = make_engine(0);
        OK(nvlx_serve(other, at, NULL));
        REFUSED(nvlx_serve(engine, at, NULL), NVLX_EEXIST, "another engine of this process serves there");
        OK(nvlx_engine_destroy(other));
    }
    end();
}

/* Of many that find the socket of a dead server, one takes it over. */
static void one_takes_over(void) {
    struct child contenders[8];
    begin();
    for (int round = 0; round < 10; round++) {
        int winners = 0, code;
        close(raw_listen(address));
        for (size_t i = 0; i < COUNT(contenders); i++)
            child_start(&contenders[i], "contender");
        for (size_t i = 0; i < COUNT(contenders); i++)
            await_child(&contenders[i]);
        for (size_t i = 0; i < COUNT(contenders); i++)
            say(&contenders[i], address);
        for (size_t i = 0; i < COUNT(contenders); i++) {
            get(contenders[i].socket, &code, sizeof code);
            EXPECT(!code || code == NVLX_EEXIST);
            winners += !code;
        }
        EQUAL(1, winners);
        OK(nvlx_peer_close(connect_to(engine, address)));
        for (size_t i = 0; i < COUNT(contenders); i++)
            child_end(&contenders[i]);
        EXPECT(access(address, F_OK));
    }
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"addresses_are_checked", addresses_are_checked},
                                        {"absence_is_told", absence_is_told},
                                        {"who_hangs_up_is_told", who_hangs_up_is_told},
                                        {"addresses_are_utf8", addresses_are_utf8},
                                        {"options_are_checked", options_are_checked},
                                        {"folders_that_do_not_work_are_told", folders_that_do_not_work_are_told},
                                        {"modes_follow_no_links", modes_follow_no_links},
                                        {"foreign_files_stay", foreign_files_stay},
                                        {"who_serves_is_told", who_serves_is_told},
                                        {"one_takes_over", one_takes_over},
                                        {0}};
    static const struct role roles[] = {{"contender", contender_role}, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
