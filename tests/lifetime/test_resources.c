/* A process that may not have more: files of some size, address space, file descriptors. It is told so, in the words of
 * host memory where that is what is short, and goes on. On the host backend. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support.h"

#define LARGE (128 * MIB)

static struct nvlx_engine *engine;

static int allocate_some(uint32_t kind, size_t length, void **address) {
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = kind;
    return nvlx_alloc(engine, 0, length, &options, address);
}

static struct rlimit limit(__rlimit_resource_t what, rlim_t most) {
    struct rlimit old, now;
    EQUAL(0, getrlimit(what, &old));
    now = (struct rlimit){most, old.rlim_max};
    EQUAL(0, setrlimit(what, &now));
    return old;
}

static void unlimit(__rlimit_resource_t what, const struct rlimit *old) {
    EQUAL(0, setrlimit(what, old));
}

/* ---- Files: RLIMIT_FSIZE, beyond which a write raises SIGXFSZ -------------------------------------------- */

static void expect_no_signal(void) {
    sigset_t set;
    EQUAL(0, sigpending(&set));
    EQUAL(0, sigismember(&set, SIGXFSZ));
    EQUAL(0, pthread_sigmask(SIG_BLOCK, NULL, &set));
    EQUAL(0, sigismember(&set, SIGXFSZ));
}

static void refuse_large_files(void) {
    void *none;
    for (uint32_t kind = 0; kind <= NVLX_ALLOC_POOL; kind++) {
        REFUSED(allocate_some(kind, 2 * MIB, &none), NVLX_EDEVICE, "File too large");
        expect_no_signal();
    }
}

static void files_of_a_limited_size(void) {
    void *small;
    engine = make_engine(0);
    limit(RLIMIT_FSIZE, MIB);
    refuse_large_files();
    OK(allocate_some(0, MIB, &small));
    signal(SIGXFSZ, SIG_IGN);
    refuse_large_files();
    OK(nvlx_engine_destroy(engine));
}

/* What the program itself has pending stays. */
static void signals_of_the_program_stay(void) {
    sigset_t set;
    void *none;
    engine = make_engine(0);
    limit(RLIMIT_FSIZE, MIB);
    sigemptyset(&set);
    sigaddset(&set, SIGXFSZ);
    EQUAL(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
    EQUAL(0, raise(SIGXFSZ));
    REFUSED(allocate_some(0, 2 * MIB, &none), NVLX_EDEVICE, "File too large");
    EQUAL(0, sigpending(&set));
    EQUAL(1, sigismember(&set, SIGXFSZ));
    EQUAL(0, pthread_sigmask(SIG_BLOCK, NULL, &set));
    EQUAL(1, sigismember(&set, SIGXFSZ));
    OK(nvlx_engine_destroy(engine));
}

/* Reads a line of a thread's file that begins like this; false: there is none. */
static bool read_line(const char *task, const char *name, const char *beginning, char line[128]) {
    char path[300];
    snprintf(path, sizeof path, "/proc/self/task/%s/%s", task, name);
    FILE *file = fopen(path, "re");
    bool found = false;
    while (file && !found && fgets(line, 128, file))
        found = !strncmp(line, beginning, strlen(beginning));
    if (file)
        fclose(file);
    return found;
}

/* The signals that the service thread blocks: bit n - 1 is signal n. All, before it has told its name. */
static uint64_t blocked_by_service(void) {
    char line[128];
    uint64_t blocked = UINT64_MAX;
    DIR *tasks = opendir("/proc/self/task");
    EXPECT(tasks != NULL);
    for (const struct dirent *task; (task = readdir(tasks));)
        if (read_line(task->d_name, "comm", "nvlx-service", line) && read_line(task->d_name, "status", "SigBlk:", line))
            blocked = strtoull(line + strlen("SigBlk:"), NULL, 16);
    closedir(tasks);
    return blocked;
}

/* The library's threads get no signals that are sent to the process. A crash in one is the program's to see. */
static void threads_block_what_is_sent(void) {
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    char address[64];
    uint64_t blocked = UINT64_MAX;
    snprintf(address, sizeof address, "@nvlxfer-resources-%d", (int)getpid());
    engine = make_engine(0);
    OK(nvlx_serve(engine, address, NULL));
    for (int i = 0; i < 5000 && blocked == UINT64_MAX; i++) {
        usleep(1000);
        blocked = blocked_by_service();
    }
    for (size_t i = 0; i < COUNT(crashes); i++)
        EQUAL(0, blocked >> (crashes[i] - 1) & 1);
    EQUAL(1, blocked >> (SIGTERM - 1) & 1);
    EQUAL(1, blocked >> (SIGALRM - 1) & 1);
    OK(nvlx_engine_destroy(engine));
}

/* A pool is there already when the limit is set: what is written into it later is written as memory. */
static void pools_in_a_file_that_may_not_be(void) {
    void *address[2];
    engine = make_engine(0);
    OK(allocate_some(NVLX_ALLOC_POOL, MIB, &address[0]));
    limit(RLIMIT_FSIZE, MIB);
    OK(allocate_some(NVLX_ALLOC_POOL, MIB, &address[1]));
    fill(engine, address[1], MIB, 3);
    EQUAL(0, wrong(engine, address[1], MIB, 3));
    OK(nvlx_free(engine, address[0]));
    OK(nvlx_free(engine, address[1]));
    expect_no_signal();
    OK(nvlx_engine_destroy(engine));
}

/* ---- Address space and file descriptors ------------------------------------------------------------------ */

static struct nvlx_peer *peer;
static uint64_t remote;

/* A peer with a segment that is not mapped yet. */
static void begin_with_peer(struct owner *owner) {
    engine = make_engine(0);
    owner_start(owner);
    remote = owner_alloc(owner, 0, 0, LARGE, 1);
    owner_register(owner, 0, 0, 0, LARGE, NVLX_ACCESS_READ, "large");
    char *text = owner_export(owner);
    peer = open_peer(engine, text);
    free(text);
}

static void end_with_peer(struct owner *owner) {
    OK(nvlx_peer_map(peer, 0, remote, LARGE));
    OK(nvlx_engine_destroy(engine));
    owner_end(owner);
}

static rlim_t address_space(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    EXPECT(file && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void address_space_runs_out(void) {
    struct owner owner;
    void *none;
    if (sanitized())
        return; /* a sanitizer has taken it all */
    begin_with_peer(&owner);
    const struct rlimit old = limit(RLIMIT_AS, address_space() + 32 * MIB);
    for (uint32_t kind = 0; kind <= NVLX_ALLOC_POOL; kind++)
        REFUSED(allocate_some(kind, LARGE, &none), NVLX_ENOMEM, "Cannot allocate memory");
    REFUSED(nvlx_peer_map(peer, 0, remote, LARGE), NVLX_ENOMEM, "Cannot allocate memory");
    unlimit(RLIMIT_AS, &old);
    REFUSED(allocate_some(0, (size_t)1 << 60, &none), NVLX_EDEVICE, "GPU 0"); /* no GPU has so much */
    end_with_peer(&owner);
}

static void file_descriptors_run_out(void) {
    struct owner owner;
    struct nvlx_engine *other;
    struct nvlx_config config;
    void *none;
    begin_with_peer(&owner);
    int lowest = dup(0);
    close(lowest);
    const struct rlimit old = limit(RLIMIT_NOFILE, (rlim_t)lowest);
    fill_config(&config);
    REFUSED(nvlx_engine_create(&config, &other), NVLX_ENOMEM, "Too many open files");
    for (uint32_t kind = 0; kind <= NVLX_ALLOC_POOL; kind++)
        REFUSED(allocate_some(kind, MIB, &none), NVLX_ENOMEM, "Too many open files");
    REFUSED(nvlx_peer_map(peer, 0, remote, LARGE), NVLX_ENOMEM, "Too many open files");
    unlimit(RLIMIT_NOFILE, &old);
    end_with_peer(&owner);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"files_of_a_limited_size", files_of_a_limited_size},
                                        {"signals_of_the_program_stay", signals_of_the_program_stay},
                                        {"threads_block_what_is_sent", threads_block_what_is_sent},
                                        {"pools_in_a_file_that_may_not_be", pools_in_a_file_that_may_not_be},
                                        {"address_space_runs_out", address_space_runs_out},
                                        {"file_descriptors_run_out", file_descriptors_run_out},
                                        {NULL, NULL}};
    static const struct role roles[] = {OWNER_ROLE, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
