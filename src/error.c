/* SPDX-License-Identifier: Apache-2.0 */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "log.h"

static _Thread_local char last_error[512];

const char *nvlx_strerror(int code) {
    switch (code) {
    case NVLX_OK:
        return "success";
#define ERROR_TEXT(name, value, text)                                                                                  \
    case NVLX_##name:                                                                                                  \
        return text;
        NVLX_ERRORS(ERROR_TEXT)
#undef ERROR_TEXT
    default:
        return "unknown error code";
    }
}

const char *nvlx_last_error(void) {
    return last_error;
}

/* What is part of normal polling, of looking for a name and of looking for a backend must not fill a log. */
static int level_of(int code) {
    switch (code) {
    case NVLX_EAGAIN:
    case NVLX_ETIMEDOUT:
    case NVLX_EBUSY:
    case NVLX_ENOENT:
        return NVLX_LOG_DEBUG;
    case NVLX_EBACKEND:
        return NVLX_LOG_INFO;
    default:
        return NVLX_LOG_WARNING;
    }
}

/* A forked child may have a lock of the log as somebody else held it at the fork: there, nothing is logged. */
static void log_failure(int code) {
    if (code != NVLX_EFORK)
        nvlxi_log(level_of(code), "%s", last_error);
}

int(nvlxi_fail)(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    log_failure(code);
    return code;
}

int nvlxi_fail_again(int code, const char *text) {
    snprintf(last_error, sizeof last_error, "%s", text);
    return code;
}

int nvlxi_system_code(int reason, int otherwise) {
    switch (reason) {
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EAGAIN:
        return NVLX_ENOMEM;
    default:
        return otherwise;
    }
}
