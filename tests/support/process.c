/* Starts the processes of a test, carries messages between them, and makes the checks: see process.h.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nvlxfer.h"

#define TEST_ARGUMENT "--test"
#define ROLE_ARGUMENT "--role"
#define CHILD_FD      3
#define PATIENCE_MS   ((int)(PATIENCE / 1000000))
#define VARIABLES_MAX 1024 /* that a child gets whose environment is changed */
#define TEXT_MAX      ((size_t)1 << 30)

/* ---- Checks -------------------------------------------------------------------------------------------- */

static const char *process = "test"; /* or the name of the test or role */
static void (*give_up_case)(const char *file, int line);
static pid_t case_thread; /* that runs the cases; not one of a forked child */

void on_failure(void (*give_up)(const char *file, int line)) {
    give_up_case = give_up;
    case_thread = gettid();
}

void fail_at(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    flockfile(stderr);
    fprintf(stderr, "%s:%d (%s): ", file, line, process);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(arguments);
    fflush(NULL);
    if (give_up_case && case_thread == gettid())
        give_up_case(file, line);
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

void gives_at(const char *file, int line, int wanted, int code, const char *call) {
    if (code != wanted)
        fail_at(file, line, "%s gives %d (%s), not %d (%s): %s", call, code, nvlx_strerror(code), wanted,
                nvlx_strerror(wanted), nvlx_last_error());
}

void refused_at(const char *file, int line, int code, const char *call, int expected, const char *words) {
    gives_at(file, line, expected, code, call);
    if (!strstr(nvlx_last_error(), words))
        fail_at(file, line, "%s: \"%s\" is not in its message: %s", call, words, nvlx_last_error());
}

double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

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

/* ---- The watchdog -------------------------------------------------------------------------------------- */

/* Says so, and lets the signal end the process. */
static void time_is_over(int signal) {
    static const char words[] = ": the watchdog's time is over\n";
    if (write(STDERR_FILENO, process, strlen(process)) >= 0) {
        ssize_t written = write(STDERR_FILENO, words, sizeof words - 1);
        (void)written;
    }
    raise(signal); /* SA_RESETHAND: as if there were no handler */
}

void watchdog(unsigned seconds) {
    struct sigaction action = {.sa_handler = time_is_over, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGALRM, &action, NULL);
    alarm(sanitized() ? 5 * seconds : seconds);
}

void die_with_parent(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* ---- Starting ------------------------------------------------------------------------------------------ */

/* This process's environment with one variable changed, in `made`. */
static void change_environment(char **made, const char *variable) {
    size_t count = 0, name = (size_t)(strchr(variable, '=') - variable) + 1;
    for (char **other = environ; *other; other++) {
        if (count > VARIABLES_MAX - 3)
            FAIL("there are too many variables in the environment");
        if (strncmp(*other, variable, name) != 0)
            made[count++] = *other;
    }
    made[count++] = (char *)(uintptr_t)variable;
    made[count] = NULL;
}

/* Starts this program again: with its kind, its name and the parent's pid as arguments, and `fd` as CHILD_FD unless it
 * is -1. */
static pid_t spawn(const char *kind, const char *name, int fd, const char *variable) {
    char parent[16], *changed[VARIABLES_MAX];
    char *const arguments[] = {program_invocation_name, (char *)(uintptr_t)kind, (char *)(uintptr_t)name, parent, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    if (variable)
        change_environment(changed, variable);
    posix_spawn_file_actions_init(&actions);
    if (fd >= 0)
        posix_spawn_file_actions_adddup2(&actions, fd, CHILD_FD);
    int error = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, variable ? changed : environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error)
        FAIL("cannot start %s: %s", name, strerror(error));
    return pid;
}

void child_start(struct child *child, const char *role) {
    child_start_with(child, role, NULL);
}

void child_start_with(struct child *child, const char *role, const char *variable) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        FAIL("socketpair: %s", strerror(errno));
    if (ends[1] == CHILD_FD) { /* dup2 would leave it to be closed by exec */
        int other = fcntl(ends[1], F_DUPFD_CLOEXEC, CHILD_FD + 1);
        close(ends[1]);
        ends[1] = other;
    }
    child->pid = spawn(ROLE_ARGUMENT, role, ends[1], variable);
    close(ends[1]);
    child->socket = ends[0];
}

/* Whether this process was started with this argument. If so, it has the name that stands beside it, and dies with the
 * parent that started it. */
static bool is_child(int argc, char **argv, const char *kind) {
    if (argc != 4 || strcmp(argv[1], kind))
        return false;
    process = argv[2];
    die_with_parent();
    if (getppid() != (pid_t)strtol(argv[3], NULL, 10))
        _exit(126); /* the parent ended before */
    return true;
}

void begin_process(int argc, char **argv, const struct role *roles, unsigned seconds) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    watchdog(seconds);
    if (!is_child(argc, argv, ROLE_ARGUMENT))
        return;
    for (; roles && roles->name; roles++) {
        if (!strcmp(roles->name, argv[2])) {
            roles->run(CHILD_FD);
            exit(0);
        }
    }
    FAIL("there is no such role");
}

/* ---- Ending -------------------------------------------------------------------------------------------- */

static void describe(int status, char *text, size_t size) {
    if (WIFSIGNALED(status))
        snprintf(text, size, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exit code %d", WEXITSTATUS(status));
}

void fork_end(pid_t pid) {
    char text[80];
    int status;
    pid_t ended;
    for (double since = now_ms(); (ended = waitpid(pid, &status, WNOHANG)) == 0; usleep(1000)) {
        if (now_ms() - since > (sanitized() ? 5 : 1) * PATIENCE_MS) {
            kill(pid, SIGKILL);
            FAIL("a child did not end within %d ms", PATIENCE_MS);
        }
    }
    if (ended != pid)
        FAIL("waitpid: %s", strerror(errno));
    describe(status, text, sizeof text);
    if (status)
        FAIL("a child ended badly: %s", text);
}

void child_end(struct child *child) {
    close(child->socket);
    fork_end(child->pid);
    child->pid = 0;
}

void child_kill(struct child *child) {
    int status;
    if (kill(child->pid, SIGKILL) || waitpid(child->pid, &status, 0) != child->pid)
        FAIL("cannot kill the child: %s", strerror(errno));
    close(child->socket);
    child->pid = 0;
}

void child_stop(struct child *child) {
    int status;
    if (kill(child->pid, SIGSTOP) || waitpid(child->pid, &status, WUNTRACED) != child->pid || !WIFSTOPPED(status))
        FAIL("cannot stop the child: %s", strerror(errno));
}

pid_t fork_child(unsigned seconds) {
    pid_t pid = fork();
    if (pid < 0)
        FAIL("fork: %s", strerror(errno));
    if (!pid)
        watchdog(seconds);
    return pid;
}

/* ---- A list of tests ----------------------------------------------------------------------------------- */

static bool run_one(const struct test *test) {
    char text[80];
    int status;
    double begin = now_ms();
    pid_t pid = spawn(TEST_ARGUMENT, test->name, -1, NULL);
    if (waitpid(pid, &status, 0) != pid)
        FAIL("waitpid: %s", strerror(errno));
    describe(status, text, sizeof text);
    printf("%-10s %7.0f ms  %s%s%s\n", status ? "FAILED" : "ok", now_ms() - begin, test->name, status ? ": " : "",
           status ? text : "");
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
    int ran = 0, failed = 0;
    setenv("NVLX_LOG_LEVEL", "0", 0); /* refusals are what tests are made of */
    begin_process(argc, argv, roles, seconds_each);
    if (is_child(argc, argv, TEST_ARGUMENT)) {
        start_sanitizer();
        for (; tests->name; tests++) {
            if (!strcmp(tests->name, argv[2])) {
                tests->run();
                return 0;
            }
        }
        FAIL("there is no such test");
    }
    watchdog(0); /* each test has its own */
    for (; tests->name; tests++) {
        if (!is_wanted(argc, argv, tests->name))
            continue;
        ran++;
        failed += !run_one(tests);
    }
    printf("%d of %d tests failed\n", failed, ran);
    return failed || !ran ? 1 : 0;
}

/* ---- Messages ------------------------------------------------------------------------------------------ */

/* A file descriptor beside the bytes. */
union parcel {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static void await_socket(int socket, short events) {
    struct pollfd ready = {.fd = socket, .events = events};
    double end = now_ms() + PATIENCE_MS;
    int count;
    while ((count = poll(&ready, 1, PATIENCE_MS)) < 0 && errno == EINTR && now_ms() < end)
        ;
    if (count <= 0)
        FAIL("the other process does not answer");
}

void put_file(int socket, const void *bytes, size_t length, int fd) {
    union parcel parcel = {
        .header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)}};
    struct msghdr header = {.msg_iovlen = 1};
    if (fd >= 0) {
        header.msg_control = &parcel;
        header.msg_controllen = sizeof parcel;
        memcpy(CMSG_DATA(&parcel.header), &fd, sizeof fd);
    }
    for (size_t done = 0; done < length;) {
        struct iovec rest = {(char *)(uintptr_t)bytes + done, length - done};
        header.msg_iov = &rest;
        await_socket(socket, POLLOUT);
        ssize_t count = sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (count <= 0)
            FAIL("cannot send to the other process: %s", strerror(errno));
        done += (size_t)count;
        header.msg_control = NULL; /* it goes with the first bytes */
        header.msg_controllen = 0;
    }
}

void put(int socket, const void *bytes, size_t length) {
    put_file(socket, bytes, length, -1);
}

/* As much as there is, at most `length`; 0: the other end has closed. A file that comes along is *fd. */
static size_t receive(int socket, void *bytes, size_t length, int *fd) {
    union parcel parcel;
    struct iovec body = {bytes, length};
    struct msghdr header = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = &parcel, .msg_controllen = sizeof parcel};
    ssize_t count;
    do {
        await_socket(socket, POLLIN);
        count = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && errno != ECONNRESET)
        FAIL("no message of the other process: %s", strerror(errno));
    if (count <= 0)
        return 0;
    const struct cmsghdr *came = CMSG_FIRSTHDR(&header);
    if (came && came->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(came), sizeof *fd);
    return (size_t)count;
}

bool get_file_or_end(int socket, void *bytes, size_t length, int *fd) {
    *fd = -1;
    for (size_t done = 0; done < length;) {
        size_t count = receive(socket, (char *)bytes + done, length - done, fd);
        if (!count && !done)
            return false;
        if (!count)
            FAIL("the other process ended in the middle of a message");
        done += count;
    }
    return true;
}

bool get_or_end(int socket, void *bytes, size_t length) {
    int none;
    bool came = get_file_or_end(socket, bytes, length, &none);
    if (none >= 0)
        FAIL("a file came with a message that has none");
    return came;
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
    char *text = *length < TEXT_MAX ? malloc(*length + 1) : NULL;
    if (!text)
        FAIL("no memory for a text of %zu bytes", *length);
    get(socket, text, *length);
    text[*length] = '\0';
    return text;
}
