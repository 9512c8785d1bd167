/* The doctor: the environment, /proc, and namespaces. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor/doctor.h"
#include "doctor/files.h"

#define FIRST_PID_NAMESPACE UINT64_C(0xEFFFFFFC) /* the inode of the machine's own: Linux, include/linux/proc_ns.h */

static bool is_level(const char *text) {
    return !*text || (text[0] >= '0' && text[0] <= '3' && !text[1]);
}

static bool is_backend(const char *text) {
    return !*text || !strcmp(text, "auto") || !strcmp(text, "cuda") || !strcmp(text, "host");
}

bool environment_forbids(bool host, struct finding *finding) {
    const char *backend = getenv("NVLX_BACKEND");
    int count;
    if (!host && backend && !is_backend(backend)) {
        found(finding, VERDICT_SKIPPED, "NVLX_BACKEND is \"%s\": see the check environment", backend);
        return true;
    }
    if (!host && (!backend || strcmp(backend, "host")))
        return false;
    if (!nvlx_gpu_count(NVLX_BACKEND_HOST, &count))
        return false;
    found(finding, VERDICT_SKIPPED, "%s: see the check environment", nvlx_last_error());
    return true;
}

static void check_environment(const struct doctor *doctor, struct finding *finding) {
    const char *level = getenv("NVLX_LOG_LEVEL"), *backend = getenv("NVLX_BACKEND"), *gpus = getenv("NVLX_HOST_GPUS");
    int count;
    (void)doctor;
    if (level && !is_level(level))
        fault_also(finding, "set NVLX_LOG_LEVEL to 0, 1, 2 or 3", "NVLX_LOG_LEVEL is \"%s\"", level);
    if (backend && !is_backend(backend))
        fault_also(finding, "set NVLX_BACKEND to auto, cuda or host", "NVLX_BACKEND is \"%s\"", backend);
    if (gpus && nvlx_gpu_count(NVLX_BACKEND_HOST, &count))
        fault_also(finding, "set NVLX_HOST_GPUS to a number from 1 to 64; without the variable it is 2", "%s",
                   nvlx_last_error());
    if (finding->verdict == VERDICT_OK)
        found(finding, VERDICT_OK, "NVLX_BACKEND, NVLX_HOST_GPUS and NVLX_LOG_LEVEL have values that mean something");
}

static void check_identity(const struct doctor *doctor, struct finding *finding) {
    struct nvlx_config config;
    struct nvlx_engine *engine;
    (void)doctor;
    if (environment_forbids(true, finding))
        return;
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_HOST;
    int code = nvlx_engine_create(&config, &engine);
    if (!code) {
        nvlx_engine_destroy(engine);
        found(finding, VERDICT_OK, "/proc and the kernel tell all that an engine needs");
    } else {
        found(finding, VERDICT_FAULT, "%s", nvlx_last_error());
        do_this(finding, "mount /proc (mount -t proc proc /proc), and let this user read /proc/self and "
                         "/proc/sys/kernel/random/boot_id. Linux must be 4.14 or newer");
    }
}

/* ---- Namespaces ----------------------------------------------------------------------------------------- */

static void check_pids(const struct doctor *doctor, struct finding *finding) {
    struct stat namespace;
    (void)doctor;
    if (stat("/proc/self/ns/pid", &namespace)) {
        found(finding, VERDICT_SKIPPED, "/proc does not tell");
    } else if (namespace.st_ino == FIRST_PID_NAMESPACE) {
        found(finding, VERDICT_OK, "this is the machine's own PID namespace");
    } else {
        found(finding, VERDICT_RISK,
              "this process is in a PID namespace of its own, as in a container: processes of two containers may have "
              "equal PIDs, and CUDA does not open cudaMalloc memory between them");
        do_this(finding, "share by file descriptors: chunks (PyTorch's expandable_segments:True, NVLX_ALLOC_VMM) and "
                         "nvlx_serve. Or let both share one PID namespace (--pid=host or --pid=container:NAME, "
                         "shareProcessNamespace: true), or give them other PIDs than 1");
    }
}

static void check_users(const struct doctor *doctor, struct finding *finding) {
    char line[128];
    unsigned long inside = 1, outside = 1, count = 0;
    (void)doctor;
    if (!file_read("/proc/self/uid_map", line, sizeof line)) {
        found(finding, VERDICT_SKIPPED,
              "/proc does not tell: this process's user namespace has no users, or /proc is "
              "not mounted");
        return;
    }
    if (sscanf(line, "%lu %lu %lu", &inside, &outside, &count) == 3 && !inside && !outside && count == 4294967295UL) {
        found(finding, VERDICT_OK, "this is the machine's own user namespace");
        return;
    }
    found(
        finding, VERDICT_RISK,
        "this process is in a user namespace of its own (user %lu here is %lu outside, %lu users): processes of other "
        "namespaces look like user 65534, and nvlx_serve lets them in only if that one is listed",
        inside, outside, count);
    do_this(finding, "run both sides in one user namespace (--userns=host), or serve with serve_options.users that has "
                     "the other's user as this namespace sees it");
}

const struct check checks_of_machine[] = {
    {"environment", "the values of the variables that the library reads", check_environment, false},
    {"identity", "to make an engine of the host backend, which reads /proc", check_identity, false},
    {"pid_namespace", "whether this is the machine's own PID namespace", check_pids, false},
    {"user_namespace", "whether this is the machine's own user namespace", check_users, false},
    {NULL, NULL, NULL, false}};
