/* Lines on stderr, and codes of the library as NIXL's. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/say.h"

#include <cstdarg>
#include <cstdio>

#include "nvlxfer.h"

namespace nvlx::nixl {

/* In one piece, so that lines of several threads do not mix. */
static void write_line(const char *format, va_list arguments) {
    char line[1024] = "nvlxfer-nixl: ";
    const size_t begin = sizeof "nvlxfer-nixl: " - 1;
    vsnprintf(line + begin, sizeof line - begin, format, arguments);
    fprintf(stderr, "%s\n", line);
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}

abi::Status refuse(abi::Status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
    return status;
}

abi::Status status_of(int code) {
    using enum abi::Status;
    switch (code) {
    case NVLX_OK:
        return success;
    case NVLX_EAGAIN:
        return in_progress;
    case NVLX_EINVAL:
        return invalid;
    case NVLX_ERANGE:
    case NVLX_ENOENT:
    case NVLX_ESTALE:
        return not_found;
    case NVLX_EACCES:
    case NVLX_ESUSPENDED:
        return not_allowed;
    case NVLX_EFORMAT:
    case NVLX_EVERSION:
        return mismatch;
    case NVLX_ENOTSUP:
        return not_supported;
    default:
        return backend;
    }
}

} // namespace nvlx::nixl
