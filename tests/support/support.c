/* What the tests of the whole library share: checks, the runner, children. See support.h.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEST_ARGUMENT "--test"
#define ROLE_ARGUMENT "--role"
#define CHILD_FD      3

/* ---- Checks -------------------------------------------------------------------------------------------- */

void fail_at(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    flockfile(stderr);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(arguments);
    fflush(NULL);
    _exit(1); /* no leak check on top: the cause is above */
}

void expect_at(const char *file, int line, int holds, const char *condition) {
    if (!holds)
        fail_at(file, line, "not so: %s (last error: %s)", condition, nvlx_last_error());
}

void equal_at(const char *file, int line, uint64_t wanted, uint64_t number, const char *what) {
    if (wanted != number)
        fail_at(file, line, "%s is %" PRIu64 " (0x%" PRIx64 "), not %" PRIu64 " (0x%" PRIx64 ")", what, number, number,
                wanted, wanted);
}

void ok_at(const char *file, int line, int code, const char *call) {
    if (code)
        fail_at(file, line, "%s: %d %s: %s", call, code, nvlx_strerror(code), nvlx_last_error());
}

void refused_at(const char *file, int line, int code, const char *call, int expected, const char *words) {
    if (code != expected)
        fail_at(file, line, "%s gives %d, not %d (%s): %s", call, code, expected, nvlx_strerror(expected),
                nvlx_last_error());
    if (!strstr(nvlx_last_error(), words))
        fail_at(file, line, "%s: \"%s\" is not in its message: %s", call, words, nvlx_last_error());
}

/* ---- The runner ---------------------------------------------------------------------------------------- */

/* Starts this program anew with two arguments, and `fd`, if there is one, as CHILD_FD. */
static pid_t spawn(const char *kind, const char *name, int fd) {
    const pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        FAIL("fork: %s", strerror(errno));
    if (pid)
        return pid;
    /* only what may be called in the child of a program with threads */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || (fd >= 0 && dup2(fd, CHILD_FD) < 0))
        _exit(126);
    char *const arguments[] = {program_invocation_name, (char *)(uintptr_t)kind, (char *)(uintptr_t)name, NULL};
    execv("/proc/self/exe", arguments);
    _exit(127);
}

static void describe(int status, char *text, size_t size) {
    if (WIFSIGNALED(status))
        snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exit code %d", WEXITSTATUS(status));
}

static bool run_one(const struct test *test) {
    char text[80];
    int status;
    double begin = now_ms();
    pid_t pid = spawn(TEST_ARGUMENT, test->name, -1);
    if (waitpid(pid, &status, 0) != pid)
        FAIL("waitpid: %s", strerror(errno));
    describe(status, text, sizeof text);
    printf("%-10s %7.0f ms  %s%s%s\n", status ? "FAILED" : "ok", now_ms() - begin, test->name, status ? ": " : "",
           status ? text : "");
    fflush(stdout);
    return status == 0;
}

static bool is_wanted(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name))
            return true;
    return argc < 2;
}

static void *nothing(void *argument) {
    return argument;
}

/* A sanitizer's own thread comes with the program's first one: let both be before something is counted. */
static void start_sanitizer(void) {
    pthread_t thread;
    if (sanitized() && !pthread_create(&thread, NULL, nothing, NULL))
        pthread_join(thread, NULL);
}

int run_tests(int argc, char **argv, const struct test *tests, const struct role *roles, unsigned seconds_each) {
    signal(SIGPIPE, SIG_IGN);
    setenv("NVLX_LOG_LEVEL", "0", 0); /* refusals are what tests are made of */
    if (argc == 3 && !strcmp(argv[1], TEST_ARGUMENT)) {
        alarm(sanitized() ? 5 * seconds_each : seconds_each);
        start_sanitizer();
        for (; tests->name; tests++) {
            if (!strcmp(tests->name, argv[2])) {
                tests->run();
                return 0;
            }
        }
    }
    if (argc == 3 && !strcmp(argv[1], ROLE_ARGUMENT)) {
        alarm(sanitized() ? 5 * seconds_each : seconds_each);
        for (; roles->name; roles++) {
            if (!strcmp(roles->name, argv[2])) {
                roles->run(CHILD_FD);
                return 0;
            }
        }
        return 125;
    }
    int ran = 0, failed = 0;
    for (; tests->name; tests++) {
        if (!is_wanted(argc, argv, tests->name))
            continue;
        ran++;
        failed += !run_one(tests);
    }
    printf("%d of %d tests failed\n", failed, ran);
    return failed || !ran ? 1 : 0;
}

double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

uint32_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)((*state * UINT64_C(0x2545f4914f6cdd1d)) >> 32);
}

/* ---- What a process holds ------------------------------------------------------------------------------ */

#if !defined(__has_feature)
#define __has_feature(name) 0
#endif

bool sanitized(void) {
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
    return true;
#else
    return !children_have_threads();
#endif
}

bool children_have_threads(void) {
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
    return false;
#else
    return true;
#endif
}

static size_t count_entries(const char *folder) {
    size_t count = 0;
    DIR *opened = opendir(folder);
    if (!opened)
        FAIL("%s: %s", folder, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(opened));)
        count += entry->d_name[0] != '.';
    closedir(opened);
    return count - !strcmp(folder, "/proc/self/fd"); /* the folder's own */
}

/* Heaps come and go with threads, and neighbouring ones join: only what is mapped from memory of a GPU counts, and the
 * pages of their own that engines take. */
static size_t count_maps(void) {
    char line[512];
    size_t count = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    if (!file)
        FAIL("/proc/self/maps: %s", strerror(errno));
    while (fgets(line, sizeof line, file))
        count += strstr(line, "nvlxfer-host-gpu") != NULL;
    fclose(file);
    return count;
}

struct holdings holdings(void) {
    struct holdings held = {count_entries("/proc/self/fd"), count_entries("/proc/self/task"), count_maps()};
    return held;
}

void expect_holdings(const struct holdings *before, const char *when) {
    struct holdings now = holdings();
    for (int i = 0; i < 100 && now.threads > before->threads;
         i++) { /* a joined thread may still be seen for a moment */
        usleep(10000);
        now = holdings();
    }
    if (now.fds != before->fds || now.threads != before->threads || now.maps != before->maps)
        FAIL("%s: %zu descriptors, %zu threads, %zu mappings; before: %zu, %zu, %zu", when, now.fds, now.threads,
             now.maps, before->fds, before->threads, before->maps);
}

/* ---- Children ------------------------------------------------------------------------------------------ */

void child_start(struct child *child, const char *role) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        FAIL("socketpair: %s", strerror(errno));
    if (ends[1] == CHILD_FD) { /* dup2 would leave it to be closed by exec */
        int other = fcntl(ends[1], F_DUPFD_CLOEXEC, CHILD_FD + 1);
        close(ends[1]);
        ends[1] = other;
    }
    child->pid = spawn(ROLE_ARGUMENT, role, ends[1]);
    close(ends[1]);
    child->socket = ends[0];
}

void child_end(struct child *child) {
    char text[80];
    int status;
    close(child->socket);
    if (waitpid(child->pid, &status, 0) != child->pid)
        FAIL("waitpid: %s", strerror(errno));
    describe(status, text, sizeof text);
    if (status)
        FAIL("a child ended badly: %s", text);
}

void child_kill(struct child *child) {
    int status;
    if (kill(child->pid, SIGKILL) || waitpid(child->pid, &status, 0) != child->pid)
        FAIL("cannot kill the child: %s", strerror(errno));
    close(child->socket);
}

void put(int socket, const void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t count = send(socket, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
        if (count <= 0)
            FAIL("cannot send to the other process: %s", strerror(errno));
        done += (size_t)count;
    }
}

bool get_or_end(int socket, void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        struct pollfd ready = {.fd = socket, .events = POLLIN};
        if (poll(&ready, 1, (int)(PATIENCE / 1000000)) <= 0)
            FAIL("the other process does not answer");
        ssize_t count = recv(socket, (char *)bytes + done, length - done, 0);
        if (count <= 0 && !done)
            return false;
        if (count <= 0)
            FAIL("the other process ended in the middle of a message");
        done += (size_t)count;
    }
    return true;
}

void get(int socket, void *bytes, size_t length) {
    if (!get_or_end(socket, bytes, length))
        FAIL("the other process has ended");
}

void put_text(int socket, const char *text, size_t length) {
    put(socket, &length, sizeof length);
    put(socket, text, length);
}

char *get_text(int socket, size_t *length) {
    get(socket, length, sizeof *length);
    char *text = malloc(*length + 1);
    if (!text)
        FAIL("no memory for a text of %zu bytes", *length);
    get(socket, text, *length);
    text[*length] = '\0';
    return text;
}
