/* The processes of a test, the messages between them, and the checks that all of them make.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every process is this same program, started again: a process that has used CUDA must not go on after fork. A child
 * has a role. It dies with its parent, and a watchdog ends it. Whatever waits has a timeout. A failed check prints
 * where and why, and ends the process with 1, in whatever thread it is made. In a cmocka program it fails the case. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define KIB       ((size_t)1 << 10)
#define MIB       ((size_t)1 << 20)
#define SECOND_NS INT64_C(1000000000)
#define PATIENCE  (60 * SECOND_NS) /* in which any wait of a test must end */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- Checks -------------------------------------------------------------------------------------------- */

#define FAIL(...)             fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define EXPECT(condition)     expect_at(__FILE__, __LINE__, (condition) ? 1 : 0, #condition)
#define EQUAL(wanted, number) equal_at(__FILE__, __LINE__, (uint64_t)(wanted), (uint64_t)(number), #number)
/* That the call gives this code. */
#define GIVES(code, call) gives_at(__FILE__, __LINE__, code, (call), #call)
#define OK(call)          GIVES(0, call)
/* That the call fails with this code, and that nvlx_last_error has these words. */
#define REFUSED(call, code, words) refused_at(__FILE__, __LINE__, (call), #call, code, words)

void fail_at(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void expect_at(const char *file, int line, int holds, const char *condition);
void equal_at(const char *file, int line, uint64_t wanted, uint64_t number, const char *what);
void gives_at(const char *file, int line, int wanted, int code, const char *call);
void refused_at(const char *file, int line, int code, const char *call, int expected, const char *words);

/* What a failed check of the main thread calls when it has printed: it does not return. NULL: the process ends. */
void on_failure(void (*give_up)(const char *file, int line));

double now_ms(void);

/* Whether a sanitizer slows this process and holds things of its own. */
bool sanitized(void);
/* ThreadSanitizer does not let the forked child of a process with threads have threads of its own. */
bool children_have_threads(void);

/* ---- The program --------------------------------------------------------------------------------------- */

struct test {
    const char *name;
    void (*run)(void);
};

struct role {
    const char *name;
    void (*run)(int socket); /* ends the child's work by returning: it then exits with 0 */
};

/* A main that is a list of tests, each in a process of its own: one that crashes hides no other, and each can count
 * what it holds. Both lists end with a NULL name. Without arguments it runs all tests, else those named. It gives the
 * exit code of main. */
int run_tests(int argc, char **argv, const struct test *tests, const struct role *roles, unsigned seconds_each);

/* The begin of any other main. It does not return in a child. `roles` ends with a NULL name; it may be NULL. This
 * process and its children have a watchdog of so many seconds. */
void begin_process(int argc, char **argv, const struct role *roles, unsigned seconds);

/* Ends this process, unless it is called again in time. 0: there is none any more. */
void watchdog(unsigned seconds);

/* ---- Children ------------------------------------------------------------------------------------------ */

struct child {
    pid_t pid;
    int socket;
};

void child_start(struct child *child, const char *role);
/* With a variable of its environment that is not as here: "NAME=value". */
void child_start_with(struct child *child, const char *role, const char *variable);
void child_end(struct child *child);  /* closes the socket, on which a child ends; fails if it does not end well */
void child_kill(struct child *child); /* SIGKILL, and waits until it is gone */
void child_stop(struct child *child); /* SIGSTOP, and waits until all its threads stand still */

/* This process is killed when its parent ends. Children are; who becomes another user must say it again. */
void die_with_parent(void);

/* For tests of fork itself: a child that goes on here, with a watchdog. It has pid 0, and ends by _exit. */
pid_t fork_child(unsigned seconds);
void fork_end(pid_t pid); /* waits for it; fails if it does not end well */

/* ---- Messages: whole ones, which fail if the other end is gone or takes too long ----------------------- */

void put(int socket, const void *bytes, size_t length);
void get(int socket, void *bytes, size_t length);
bool get_or_end(int socket, void *bytes, size_t length); /* false: the other end has closed */
void put_text(int socket, const char *text, size_t length);
char *get_text(int socket, size_t *length); /* to be freed */

/* With a file descriptor, or with none: -1. The one that came is the receiver's to close. */
void put_file(int socket, const void *bytes, size_t length, int fd);
bool get_file_or_end(int socket, void *bytes, size_t length, int *fd);

#endif
