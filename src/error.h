/* How a function fails: it says what happened once, here, and returns the code; callers pass the code on.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_ERROR_H
#define NVLXI_ERROR_H

#include "nvlxfer.h"

/* Keeps the text as this thread's last error and logs it. Returns `code`. Codes that are part of normal polling
 * (EAGAIN, ETIMEDOUT, EBUSY) are logged at DEBUG, EBACKEND at INFO, all others at WARNING. */
int nvlxi_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* This thread's last error becomes `text`; nothing is logged: for an error that was decided, and logged, before. */
int nvlxi_fail_again(int code, const char *text);

#endif
