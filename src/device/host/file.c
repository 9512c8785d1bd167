/* Makes and recognises the sealed files that are the host backend's memory. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "device/host/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mute.h"
#include "device/host/memory.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

int nvlxi_host_file_make(uint64_t length) {
    struct nvlxi_mute mute;
    if (length > INT64_MAX) {
        errno = EFBIG;
        return -1;
    }
    int fd = memfd_create("nvlxfer-host-gpu", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    nvlxi_mute_begin(&mute, SIGXFSZ);
    int failed = ftruncate(fd, (off_t)length);
    nvlxi_mute_end(&mute);
    if (failed || fcntl(fd, F_ADD_SEALS, SEALS)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int nvlxi_host_file_failure(int gpu, uint64_t length, int reason) {
    return nvlxi_fail(nvlxi_system_code(reason, NVLX_EDEVICE), "GPU %d has no %" PRIu64 " bytes: %s%s", gpu, length,
                      strerror(reason), reason == EFBIG ? " (RLIMIT_FSIZE)" : "");
}

bool nvlxi_host_file_is(int fd, uint64_t length) {
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & SEALS) == SEALS && !fstat(fd, &status) && (uint64_t)status.st_size == length;
}

int nvlxi_host_file_take(struct nvlxi_files *files, const struct nvlxi_segment_record *segment, uint64_t length,
                         int *fd) {
    int taken;
    int code = files->take(files, &taken);
    if (code)
        return code;
    if (!nvlxi_host_file_is(taken, length)) {
        close(taken);
        return nvlxi_fail(NVLX_EDEVICE,
                          "the file descriptor that came for segment 0x%" PRIx64 " is not one of the host backend with "
                          "%" PRIu64 " bytes",
                          segment->base, length);
    }
    *fd = taken;
    return 0;
}

int nvlxi_host_file_map(int fd, uint64_t offset, uint64_t size, uint64_t *base) {
    const uint64_t lead = offset % nvlxi_host_page();
    void *address = mmap(NULL, lead + size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(offset - lead));
    if (address == MAP_FAILED)
        return -1;
    *base = (uintptr_t)address + lead;
    return 0; /* cppcheck-suppress memleak; whoever unmaps it goes by the number */
}

void nvlxi_host_file_unmap(uint64_t base, uint64_t size) {
    const uint64_t lead = base % nvlxi_host_page();
    munmap(nvlxi_host_pointer(base - lead), lead + size);
}
