/* What fork means for the library. SPDX-License-Identifier: Apache-2.0 */
#include "fork.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"

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
