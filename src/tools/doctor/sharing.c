/* The doctor: sockets, and memory that two processes share. SPDX-License-Identifier: Apache-2.0 */
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor/doctor.h"
#include "doctor/pair.h"

/* ---- Sockets -------------------------------------------------------------------------------------------- */

static void advise_on_folder(struct finding *finding, int code) {
    static const char elsewhere[] = "Or serve elsewhere: /run/user/UID, /tmp, or \"@name\", which needs no folder";
    if (code == NVLX_EACCES)
        do_this(finding, "let user %u write into the folder, and search all folders above it. %s", (unsigned)geteuid(),
                elsewhere);
    else if (code == NVLX_ENOENT)
        do_this(finding, "make the folder, or mount it into the container. %s", elsewhere);
    else if (code == NVLX_ENOMEM)
        do_this(finding, "make room on that file system: blocks or inodes (df, df -i). %s", elsewhere);
    else if (code == NVLX_EINVAL)
        do_this(finding, "an address is absolute, and has 107 bytes at most: take a shorter folder");
    else
        do_this(finding, "the file system may take no sockets: take a local one, such as /run or /tmp. %s", elsewhere);
}

/* In a folder that all may write to, and that has no sticky bit, others can put a socket in the place of ours. */
static bool is_open_to_all(const char *folder) {
    struct stat status;
    return !stat(folder, &status) && (status.st_mode & S_IWOTH) && !(status.st_mode & S_ISVTX);
}

static void check_folder(const struct doctor *doctor, struct finding *finding) {
    char address[4096];
    struct pair_result result;
    if (environment_forbids(true, finding))
        return;
    snprintf(address, sizeof address, "%s/nvlx-doctor-%ld", doctor->folder, (long)getpid());
    const struct pair pair = {.address = address, .host = true};
    pair_run(&pair, &result);
    if (result.code) {
        found(finding, VERDICT_FAULT, "%s", result.text);
        advise_on_folder(finding, result.code);
    } else if (is_open_to_all(doctor->folder)) {
        found(finding, VERDICT_RISK, "%s works, but every user can replace files there", doctor->folder);
        do_this(finding, "chmod +t %s, or take a folder of this user's", doctor->folder);
    } else {
        found(finding, VERDICT_OK, "one process served in %s, another connected", doctor->folder);
    }
}

static void check_abstract(const struct doctor *doctor, struct finding *finding) {
    char address[64];
    struct pair_result result;
    (void)doctor;
    if (environment_forbids(true, finding))
        return;
    snprintf(address, sizeof address, "@nvlx-doctor-%ld", (long)getpid());
    const struct pair pair = {.address = address, .host = true};
    pair_run(&pair, &result);
    if (!result.code) {
        found(finding, VERDICT_OK, "one process served, another connected, in the same network namespace");
        return;
    }
    found(finding, VERDICT_FAULT, "%s", result.text);
    do_this(finding, "serve at the path of a socket file instead: see socket_folder");
}

/* ---- Memory --------------------------------------------------------------------------------------------- */

static void advise_on_memory(struct finding *finding, const struct pair_result *result) {
    if (result->code == NVLX_EBACKEND)
        do_this(finding, "see the checks driver and gpus. For tests without a GPU: NVLX_BACKEND=host");
    else if (strstr(result->text, "out of memory"))
        do_this(finding, "free memory of the GPU: this check takes some MiB and a context (nvidia-smi)");
    else if (result->code == NVLX_ENOTSUP)
        do_this(finding, "use another kind of memory: see src/doc/tools.md");
    else
        do_this(finding, "see the checks peer_access, mig and iommu, and dmesg");
}

/* What no GPU can show is told once, by the checks of GPUs. */
static bool has_no_gpu(const struct doctor *doctor) {
    const char *backend = getenv("NVLX_BACKEND");
    return backend && !strcmp(backend, "cuda") && !doctor->facts->driver.count && looks_at(doctor, "gpus");
}

static void try_memory(const struct doctor *doctor, uint32_t flags, struct finding *finding) {
    char address[64];
    struct pair_result result;
    if (environment_forbids(false, finding))
        return;
    if (has_no_gpu(doctor)) {
        found(finding, VERDICT_SKIPPED, "no GPU is shown");
        return;
    }
    snprintf(address, sizeof address, "@nvlx-doctor-%ld", (long)getpid());
    const struct pair pair = {.address = address, .share = true, .flags = flags};
    pair_run(&pair, &result);
    if (!result.code) {
        found(finding, VERDICT_OK, "64 KiB were read, byte for byte, on the %s backend", result.backend);
        return;
    }
    found(finding, VERDICT_FAULT, "%s", result.text);
    advise_on_memory(finding, &result);
}

static void check_malloc(const struct doctor *doctor, struct finding *finding) {
    try_memory(doctor, 0, finding);
}

static void check_chunks(const struct doctor *doctor, struct finding *finding) {
    try_memory(doctor, NVLX_ALLOC_VMM, finding);
}

static void check_pool(const struct doctor *doctor, struct finding *finding) {
    try_memory(doctor, NVLX_ALLOC_POOL, finding);
}

static void check_host(const struct doctor *doctor, struct finding *finding) {
    try_memory(doctor, NVLX_ALLOC_HOST, finding);
}

const struct check checks_of_sharing[] = {
    {"socket_folder", "to serve at a socket file in the folder, and to connect", check_folder, false},
    {"abstract_address", "to serve at \"@name\", and to connect", check_abstract, false},
    {"share_cuda_malloc", "to read cudaMalloc memory of another process", check_malloc, false},
    {"share_vmm", "to read chunks of another process (cuMemCreate)", check_chunks, false},
    {"share_pool", "to read memory of another process's pool (cudaMallocAsync)", check_pool, false},
    {"share_host", "to read host memory of another process, in chunks (cuMemCreate)", check_host, false},
    {NULL, NULL, NULL, false}};
