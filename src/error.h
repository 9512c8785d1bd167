/* How a function fails: it says what happened once, here, and returns the code; callers pass the code on.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_ERROR_H
#define NVLXI_ERROR_H

#include "nvlxfer.h"

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

#endif
