/* The doctor: limits of this process, and shared memory. SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "doctor/doctor.h"

#define FILES_NEEDED  64   /* a driver that runs and some peers */
#define FILES_ADVISED 1024 /* what Linux gives by default */
#define LOCKED        ((size_t)64 << 10)
#define SHARED        ((size_t)1 << 20)

static int count_files(void) {
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count > 3 ? count - 3 : 0; /* without ".", ".." and the folder itself */
}

static void check_files(const struct doctor *doctor, struct finding *finding) {
    struct rlimit limit;
    (void)doctor;
    if (getrlimit(RLIMIT_NOFILE, &limit)) {
        found(finding, VERDICT_SKIPPED, "the kernel does not tell");
        return;
    }
    const unsigned long soft = limit.rlim_cur, hard = limit.rlim_max;
    if (soft >= FILES_ADVISED) {
        found(finding, VERDICT_OK, "%lu files may be open, %d are", soft, count_files());
        return;
    }
    found(finding, soft < FILES_NEEDED ? VERDICT_FAULT : VERDICT_RISK,
          "only %lu files may be open (at most %lu if the limit is raised), and %d are: a connection takes one, memory "
          "of "
          "many chunks one each for a moment",
          soft, hard, count_files());
    do_this(finding, "raise RLIMIT_NOFILE: ulimit -n 65536, LimitNOFILE= of systemd, --ulimit nofile=65536 of docker");
}

static void check_locked(const struct doctor *doctor, struct finding *finding) {
    struct rlimit limit;
    (void)doctor;
    void *memory = mmap(NULL, LOCKED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const int failed = memory == MAP_FAILED || mlock(memory, LOCKED) ? errno : 0;
    if (!failed) {
        found(finding, VERDICT_OK, "%zu KiB were locked", LOCKED >> 10);
        return;
    }
    const bool told = !getrlimit(RLIMIT_MEMLOCK, &limit);
    found(finding, VERDICT_RISK, "%zu KiB of memory cannot be locked: %s. RLIMIT_MEMLOCK is %lu bytes", LOCKED >> 10,
          strerror(failed), told ? (unsigned long)limit.rlim_cur : 0);
    do_this(finding,
            "raise RLIMIT_MEMLOCK: ulimit -l unlimited, LimitMEMLOCK=infinity of systemd, --ulimit memlock=-1 of "
            "docker. UCX and other network libraries in the same process need it as well");
}

static rlim_t most_addresses(void) {
    struct rlimit limit;
    return getrlimit(RLIMIT_AS, &limit) ? RLIM_INFINITY : limit.rlim_cur;
}

bool addresses_are_limited(void) {
    return most_addresses() != RLIM_INFINITY;
}

static void check_addresses(const struct doctor *doctor, struct finding *finding) {
    if (!addresses_are_limited()) {
        found(finding, VERDICT_OK, "the address space has no limit");
        return;
    }
    found(finding, doctor->host ? VERDICT_RISK : VERDICT_FAULT,
          "the address space is limited to %lu MiB: CUDA reserves more addresses than all GPUs have memory",
          (unsigned long)(most_addresses() >> 20));
    do_this(finding, "take the limit away: ulimit -v unlimited. To limit memory, use a cgroup");
}

static void check_shared(const struct doctor *doctor, struct finding *finding) {
    static const char zeros[4096];
    char path[64];
    const char *step = "open";
    (void)doctor;
    snprintf(path, sizeof path, "/dev/shm/nvlx-doctor-%ld", (long)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), reason = file < 0 ? errno : 0;
    for (size_t at = 0; !reason && at < SHARED; at += sizeof zeros) {
        step = "write";
        errno = ENOSPC; /* of a short write */
        if (write(file, zeros, sizeof zeros) != (ssize_t)sizeof zeros)
            reason = errno;
    }
    if (file >= 0) {
        unlink(path);
        close(file);
    }
    if (!reason) {
        found(finding, VERDICT_OK, "a file of %zu MiB was written there", SHARED >> 20);
        return;
    }
    found(finding, VERDICT_FAULT, "%s %s: %s", step, path, strerror(reason));
    if (reason == ENOSPC)
        do_this(finding, "make room there, or give more: --shm-size=8g of docker, an emptyDir with medium: Memory at "
                         "/dev/shm in Kubernetes. CUDA and NCCL keep files there");
    else
        do_this(finding,
                "mount it, for all: mount -t tmpfs -o mode=1777 tmpfs /dev/shm. CUDA and NCCL keep files there");
}

const struct check checks_of_limits[] = {
    {"open_files", "how many files may be open (RLIMIT_NOFILE)", check_files, false},
    {"locked_memory", "to lock 64 KiB of memory (RLIMIT_MEMLOCK)", check_locked, false},
    {"address_space", "whether addresses are limited (RLIMIT_AS)", check_addresses, false},
    {"shared_memory", "to write 1 MiB into /dev/shm", check_shared, false},
    {NULL, NULL, NULL, false}};
