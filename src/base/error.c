/* How functions fail: texts of codes, a thread's last error, what is logged. SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"
#include "base/utf8.h"

static _Thread_local char last_error[NVLXI_ERROR_TEXT];
static _Thread_local struct nvlxi_attempt *current; /* the innermost one that is open, or NULL */

/* Where the text of a failure goes now. */
static char *current_text(void) {
    return current ? current->text : last_error;
}

const char *nvlx_strerror(int code) {
    switch (code) {
    case NVLX_OK:
        return "success";
#define ERROR_TEXT(name, value, text)                                                                                  \
    case NVLX_##name:                                                                                                  \
        return "NVLX_" #name ": " text;
        NVLX_ERRORS(ERROR_TEXT)
#undef ERROR_TEXT
    default:
        return "unknown error code";
    }
}

const char *nvlx_last_error(void) {
    return current_text();
}

/* What is part of normal polling, of looking for a name and of looking for a backend must not fill a log. */
static int level_of(int code) {
    switch (code) {
    case NVLX_EAGAIN:
    case NVLX_ETIMEDOUT:
    case NVLX_EBUSY:
    case NVLX_ENOENT:
    case NVLX_ESUSPENDED:
        return NVLX_LOG_DEBUG;
    case NVLX_EBACKEND:
        return NVLX_LOG_INFO;
    default:
        return NVLX_LOG_WARNING;
    }
}

/* With the code's name. A child that uses what is its parent's is told so by the call: it may do so for each object
 * that it frees. */
static void log_failure(int code) {
    const char *text = nvlx_strerror(code);
    if (code != NVLX_EFORK)
        nvlxi_log(level_of(code), "%.*s: %s", (int)strcspn(text, ":"), text, last_error);
}

int(nvlxi_fail)(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(current_text(), NVLXI_ERROR_TEXT, format, arguments);
    va_end(arguments);
    nvlxi_text_to_line(current_text());
    if (current)
        current->unlogged = code;
    else
        log_failure(code);
    return code;
}

int nvlxi_fail_again(int code, const char *text) {
    if (current)
        current->unlogged = 0;
    snprintf(current_text(), NVLXI_ERROR_TEXT, "%s", text);
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

/* ---- Attempts ---------------------------------------------------------------------------------------- */

void nvlxi_attempt_begin(struct nvlxi_attempt *attempt) {
    attempt->outer = current;
    attempt->unlogged = 0;
    attempt->text[0] = '\0';
    current = attempt;
}

int nvlxi_attempt_end(struct nvlxi_attempt *attempt, int code) {
    current = attempt->outer;
    if (nvlxi_likely(!code) || !attempt->text[0])
        return code;
    memcpy(current_text(), attempt->text, sizeof attempt->text);
    if (current)
        current->unlogged = attempt->unlogged;
    else if (attempt->unlogged)
        log_failure(attempt->unlogged);
    return code;
}

void nvlxi_attempt_note(struct nvlxi_attempt *attempt, int level, const char *what) {
    current = attempt->outer;
    if (attempt->text[0])
        nvlxi_log(level, "%s: %s", what, attempt->text);
}

/* ---- The log ----------------------------------------------------------------------------------------- */

int nvlx_set_log(int level, nvlx_log_function function, void *context) {
    if (level < NVLX_LOG_ERROR || level > NVLX_LOG_DEBUG)
        return nvlxi_fail(NVLX_EINVAL, "level %d is not one of NVLX_LOG_...", level);
    if (!nvlxi_log_set(level, function, context))
        return nvlxi_fail(NVLX_EBUSY, "a log function cannot replace the log function");
    return 0;
}
