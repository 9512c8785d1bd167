/* How a function fails: it says what happened once, here, and returns the code; callers pass the code on.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_ERROR_H
#define NVLXI_BASE_ERROR_H

#include "nvlxfer.h"

enum { NVLXI_ERROR_TEXT = 512 };

/* Keeps the text as this thread's last error and logs it. Returns `code`. Codes that are part of normal polling
 * (EAGAIN, ETIMEDOUT, EBUSY) are logged at DEBUG, EBACKEND at INFO, all others at WARNING; EFORK is not logged. */
int nvlxi_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__ /* which else thinks that it might return 0 */
#define nvlxi_fail(code, ...) ((void)nvlxi_fail((code), __VA_ARGS__), (code))
#endif

/* This thread's last error becomes `text`; nothing is logged: for an error that was decided, and logged, before. */
int nvlxi_fail_again(int code, const char *text);

/* What the operating system says in errno: out of memory, address space, file descriptors or threads is NVLX_ENOMEM,
 * anything else `otherwise`. */
int nvlxi_system_code(int reason, int otherwise);

/* Something that may fail without the caller's call failing: what it says of that is kept here, neither logged nor this
 * thread's last error, until it is known what becomes of it. On the stack; they nest. Each exported function that can
 * go on after a failure inside is one. While one is open, nvlx_last_error is what it keeps. */
struct nvlxi_attempt {
    struct nvlxi_attempt *outer;
    int unlogged; /* the code that `text` is to be logged as; 0: it is not */
    char text[NVLXI_ERROR_TEXT];
};

void nvlxi_attempt_begin(struct nvlxi_attempt *attempt);

/* Ends it. `code` is its outcome: 0 forgets all failures inside, else the last one counts, and is logged. Returns it.
 */
int nvlxi_attempt_end(struct nvlxi_attempt *attempt, int code);

/* Ends it; a failure inside is nobody's, and only logged, at `level`: "<what>: <text>". */
void nvlxi_attempt_note(struct nvlxi_attempt *attempt, int level, const char *what);

#endif
