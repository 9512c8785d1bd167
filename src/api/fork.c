/* What fork means for the library. SPDX-License-Identifier: Apache-2.0
 *
 * A child has the parent's memory as it was at the fork, and of its threads only the one that forked. So each lock of
 * the whole process is taken before the fork and let go of on both sides; none is held while something blocks. Locks of
 * an engine are of no use to the child, which is refused before it comes to them. The handlers are there from the
 * moment when the library is loaded; glibc forgets them if it is unloaded. */
#include "api/fork.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"
#include "base/fork_files.h"
#include "base/log.h"
#include "device/device.h"
#include "remote/life.h"
#include "transfer/lanes.h"

/* In the order in which their locks may be held together. */
static void (*const modules[])(enum nvlxi_fork_phase) = {
    nvlxi_lanes_fork,       nvlxi_life_fork, nvlxi_device_host_fork,
#ifdef NVLXI_WITH_CUDA
    nvlxi_device_cuda_fork,
#endif
    nvlxi_fork_files_fork,  nvlxi_log_fork,
};

static void before_fork(void) {
    for (size_t i = 0; i < NVLXI_COUNT(modules); i++)
        modules[i](NVLXI_BEFORE_FORK);
}

static void after_fork(enum nvlxi_fork_phase phase) {
    for (size_t i = NVLXI_COUNT(modules); i > 0; i--)
        modules[i - 1](phase);
}

static void in_parent(void) {
    after_fork(NVLXI_IN_PARENT);
}

static void in_child(void) {
    after_fork(NVLXI_IN_CHILD);
}

__attribute__((constructor)) static void watch_forks(void) {
    if (pthread_atfork(before_fork, in_parent, in_child))
        nvlxi_log(NVLX_LOG_ERROR, "no memory to watch forks: do not use the library in a forked child");
}

/* ---- Pages --------------------------------------------------------------------------------------------- */

int nvlxi_fork_page_make(const volatile char **page) {
    const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    char *made = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an engine");
    if (madvise(made, size, MADV_WIPEONFORK)) {
        munmap(made, size);
        return nvlxi_fail(NVLX_ENOTSUP, "the kernel cannot tell forked children apart (MADV_WIPEONFORK, Linux 4.14)");
    }
    *made = 1;
    *page = made;
    return 0;
}

void nvlxi_fork_page_free(const volatile char *page) {
    munmap((void *)(uintptr_t)page, (size_t)sysconf(_SC_PAGESIZE));
}
