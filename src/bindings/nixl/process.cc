/* Asks the kernel for processes. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/process.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace nvlx::nixl {

/* A file of the process is readable from its end on. Where the kernel has none, a zombie counts as alive. */
bool is_gone(int64_t pid) {
    if (pid <= 0)
        return false;
    if (kill(static_cast<pid_t>(pid), 0) && errno == ESRCH)
        return true;
#ifdef SYS_pidfd_open
    pollfd process = {static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)), POLLIN, 0};
    if (process.fd < 0)
        return errno == ESRCH;
    const bool ended = poll(&process, 1, 0) == 1;
    close(process.fd);
    return ended;
#else
    return false;
#endif
}

} // namespace nvlx::nixl
