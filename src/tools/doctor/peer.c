/* The doctor: a served engine that the user names. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <nvlxfer.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/kind.h"
#include "doctor/doctor.h"
#include "doctor/visit.h"

#define UNMAPPED_USER 65534u /* as which a user namespace sees those that it has no number for */

/* ---- Why nobody answers --------------------------------------------------------------------------------- */

/* Whether a socket with the abstract name is in this network namespace. */
static bool is_listed(const char *name) {
    char line[512];
    bool found = false;
    FILE *list = fopen("/proc/net/unix", "re");
    while (list && !found && fgets(line, sizeof line, list)) {
        const char *path = strchr(line, '@');
        line[strcspn(line, "\n")] = '\0';
        found = path && !strcmp(path, name);
    }
    if (list)
        fclose(list);
    return found;
}

/* The process behind the socket, 0 if nobody listens there or it is of another PID namespace; `reason` is connect's. */
static pid_t who_listens(const char *address, int *reason) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct ucred owner = {0};
    socklen_t size = sizeof owner;
    const size_t length = strlen(address);
    int file = length < sizeof to.sun_path ? socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
    *reason = file < 0 ? EINVAL : 0;
    if (file < 0)
        return 0;
    memcpy(to.sun_path, address, length);
    if (address[0] == '@')
        to.sun_path[0] = '\0';
    const socklen_t whole = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (address[0] == '@' ? 0 : 1));
    if (connect(file, (const struct sockaddr *)&to, whole))
        *reason = errno;
    else if (getsockopt(file, SOL_SOCKET, SO_PEERCRED, &owner, &size))
        owner.pid = 0;
    close(file);
    return owner.pid;
}

static char state_of(pid_t pid) {
    char path[64], text[512], state = '?';
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "re");
    const char *rest = file && fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
    if (rest)
        sscanf(rest + 1, " %c", &state);
    if (file)
        fclose(file);
    return state;
}

static void explain_silence(const char *address, struct finding *finding) {
    int reason;
    const pid_t pid = who_listens(address, &reason);
    if (!reason && state_of(pid) == 'T') {
        found(finding, VERDICT_FAULT, "process %ld, which serves at %s, is stopped", (long)pid, address);
        do_this(finding, "let it go on (kill -CONT %ld), or leave the debugger", (long)pid);
    } else if (!reason || reason == EAGAIN) {
        found(finding, VERDICT_FAULT, "process %ld listens at %s, and does not answer", (long)pid, address);
        do_this(finding, "look at that process: its service thread is \"nvlx-service\" (gdb -p, py-spy)");
    } else if (address[0] == '@' && !is_listed(address)) {
        found(finding, VERDICT_FAULT, "nobody serves at %s in this network namespace", address);
        do_this(finding,
                "start the engine that serves. If it runs in another container, give both one network namespace "
                "(hostNetwork: true, --network=host), or serve at a path in a folder that both have");
    } else if (reason == ENOENT) {
        found(finding, VERDICT_FAULT, "there is no socket file %s", address);
        do_this(finding,
                "start the engine that serves. If it runs in another container, mount the folder of the socket "
                "into both");
    } else if (reason == ECONNREFUSED) {
        found(finding, VERDICT_FAULT, "nobody listens behind %s: a process that ended has left it", address);
        do_this(finding, "start the engine that serves again: it replaces the file");
    } else {
        found(finding, VERDICT_FAULT, "%s: %s", address, strerror(reason));
        do_this(finding, "start the engine that serves");
    }
}

/* ---- What refuses ---------------------------------------------------------------------------------------- */

static void explain_denial(const char *address, const char *text, struct finding *finding) {
    const char *refused = strstr(text, "refuses: user ");
    unsigned user = (unsigned)geteuid();
    int reason;
    who_listens(address, &reason);
    found(finding, VERDICT_FAULT, "%s", text);
    if (refused) /* as the server sees it, from whose user namespace it may be another one */
        sscanf(refused, "refuses: user %u", &user);
    if (reason == EACCES || reason == EPERM)
        do_this(finding,
                "let user %u write to the socket file, and search all folders above it: serve_options.users, "
                "groups and mode of the engine that serves",
                (unsigned)geteuid());
    else if (user == UNMAPPED_USER && user != geteuid())
        do_this(finding, "run both in one user namespace: user %u stands for all whom the server's does not know",
                user);
    else
        do_this(finding,
                "name user %u in serve_options.users, or one of its groups in serve_options.groups, where the "
                "engine serves. Or run both as one user, in one user namespace",
                user);
}

static const char *remedy_of(int code) {
    switch (code) {
    case NVLX_EBUSY:
        return "raise serve_options.max_connections of the engine that serves, or end some that are connected to it";
    case NVLX_EVERSION:
        return "use libnvlxfer of the same major version on both sides: nvlx_info --version";
    case NVLX_EBACKEND:
        return "one side uses software GPUs (the host backend): see the checks driver and gpus, and set NVLX_BACKEND "
               "on "
               "both sides";
    case NVLX_ENOTSUP:
        return "both processes must run on one machine, since it was started last";
    case NVLX_EINVAL:
    case NVLX_ENOENT:
        return "give the address at which the engine serves: the absolute path of its socket, or \"@name\"";
    default:
        return "look at the log of the process that serves (NVLX_LOG_LEVEL=3)";
    }
}

static void explain(const struct doctor *doctor, const struct visit *visit, struct finding *finding) {
    if (visit->code == NVLX_ETIMEDOUT) {
        explain_silence(doctor->peer, finding);
    } else if (visit->code == NVLX_EACCES) {
        explain_denial(doctor->peer, visit->text, finding);
    } else {
        found(finding, VERDICT_FAULT, "%s", visit->text);
        do_this(finding, "%s", remedy_of(visit->code));
    }
}

static void check_peer(const struct doctor *doctor, struct finding *finding) {
    struct visit visit;
    if (!doctor->peer) {
        found(finding, VERDICT_SKIPPED, "no --peer was given");
        return;
    }
    if (environment_forbids(false, finding))
        return;
    if (visit_begin(&visit, doctor->peer))
        explain(doctor, &visit, finding);
    else
        found(finding, VERDICT_OK,
              "engine %s of process %" PRIu64 " serves there, backend %s, generation %" PRIu64 ", %" PRIu64 " regions",
              visit.info.engine, visit.info.pid, visit.info.backend, visit.info.generation, visit.info.regions);
    visit_end(&visit);
}

/* ---- Its memory ------------------------------------------------------------------------------------------ */

static void explain_memory(const struct visit *visit, uint32_t kind, struct finding *finding) {
    struct stat namespace;
    const bool same = !stat("/proc/self/ns/pid", &namespace) && namespace.st_ino == visit->info.pid_namespace;
    found(finding, VERDICT_FAULT, "memory of kind %s cannot be read: %s", kind_text(kind), visit->text);
    if (kind == NVLX_KIND_CUDA_MALLOC && !same)
        do_this(finding,
                "the peer (PID %" PRIu64 " there) is in another PID namespace: let it use chunks (PyTorch's "
                "expandable_segments:True, NVLX_ALLOC_VMM), which go by file descriptors, or share one PID "
                "namespace (--pid=host, shareProcessNamespace: true)",
                visit->info.pid);
    else if (visit->code == NVLX_ENOTSUP)
        do_this(finding, "let the peer use another kind of memory: chunks (PyTorch's expandable_segments:True, "
                         "NVLX_ALLOC_VMM), with nvlx_serve");
    else
        do_this(finding, "see the checks peer_access, mig and iommu here, and dmesg");
}

/* The first readable region of each kind. */
static void check_memory(const struct doctor *doctor, struct finding *finding) {
    struct visit visit;
    uint32_t kinds = 0;
    if (doctor->peer && environment_forbids(false, finding))
        return;
    if (!doctor->peer || visit_begin(&visit, doctor->peer)) {
        found(finding, VERDICT_SKIPPED, doctor->peer ? "the peer cannot be reached" : "no --peer was given");
        return;
    }
    struct nvlx_region_info region = {.size = sizeof region};
    char read_kinds[64] = "";
    for (size_t place = 0; finding->verdict != VERDICT_FAULT && !nvlx_peer_region(visit.peer, &place, &region);) {
        const size_t at = strlen(read_kinds);
        if (!(region.access & NVLX_ACCESS_READ) || !region.length || region.suspended || kinds >> region.kind & 1)
            continue;
        kinds |= 1u << region.kind;
        if (visit_read(&visit, &region))
            explain_memory(&visit, region.kind, finding);
        else
            snprintf(read_kinds + at, sizeof read_kinds - at, " %s", kind_text(region.kind));
    }
    if (!kinds)
        found(finding, VERDICT_SKIPPED, "the peer has no region that may be read");
    else if (finding->verdict != VERDICT_FAULT)
        found(finding, VERDICT_OK, "memory was read, of kind%s", read_kinds);
    visit_end(&visit);
}

const struct check checks_of_peer[] = {
    {"peer", "to connect to the engine that --peer names", check_peer, false},
    {"peer_memory", "to read a region of each kind of memory of that engine", check_memory, false},
    {NULL, NULL, NULL, false}};
