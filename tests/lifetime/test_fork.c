/* Forks: a child can use the library with objects of its own, whatever the parent's threads were doing, and keeps
 * nothing open by which others take its parent for alive. SPDX-License-Identifier: Apache-2.0
 *
 * test_fork NUMBER    all tests, with so many children of a busy process */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rendezvous_support.h"

#define CHILDREN      200
#define CHILDREN_WORD "NVLX_TEST_CHILDREN"
#define CHILD_SECONDS 30
#define SIZE          (64 * KIB)

/* AddressSanitizer's own locks of its allocator are not whole in a child whose parent's threads were allocating. */
static bool threads_rest_at_forks(void) {
    return sanitized() && children_have_threads();
}

static void ignore(void *context, int level, const char *message) {
    (void)context, (void)level, (void)message;
}

static struct nvlx_engine *host_engine(void) {
    struct nvlx_engine *made;
    struct nvlx_config config;
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_HOST;
    OK(nvlx_engine_create(&config, &made));
    return made;
}

static void *allocate_kind(struct nvlx_engine *engine, uint32_t kind) {
    struct nvlx_alloc_options options;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = kind;
    OK(nvlx_alloc(engine, 0, SIZE, &options, &address));
    return address;
}

/* Copies between two allocations of an engine of the caller's own, and compares. */
static void copy_within(struct nvlx_engine *engine, uint32_t kind) {
    char *from = allocate_kind(engine, kind), *to = allocate_kind(engine, kind);
    struct nvlx_region *regions[] = {register_range(engine, from, SIZE, NULL, NVLX_ACCESS_READ_WRITE),
                                     register_range(engine, to, SIZE, NULL, NVLX_ACCESS_READ_WRITE)};
    struct nvlx_peer *peer = peer_of(engine, engine);
    fill(engine, from, SIZE, 7);
    fill(engine, to, SIZE, 8);
    move(engine, NVLX_OP_WRITE, peer, from, (uint64_t)(uintptr_t)to, SIZE);
    EQUAL(0, wrong(engine, to, SIZE, 7));
    OK(nvlx_peer_close(peer));
    OK(nvlx_unregister(regions[0], -1));
    OK(nvlx_unregister(regions[1], -1));
    OK(nvlx_free(engine, from));
    OK(nvlx_free(engine, to));
}

/* Two engines of this process meet. */
static void meet(const char *name) {
    struct nvlx_engine *server = host_engine(), *client = host_engine();
    struct nvlx_peer *peer;
    OK(nvlx_serve(server, name, NULL));
    OK(nvlx_connect(client, name, PATIENCE, &peer));
    OK(nvlx_peer_test(peer));
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(client));
    OK(nvlx_engine_destroy(server));
}

/* ---- A busy process ------------------------------------------------------------------------------------ */

#define WORKERS 8

static atomic_bool stop, forking;
static atomic_int resting;
static struct nvlx_engine *shared;
static struct nvlx_region *shared_region;
static char *shared_memory;

/* Whether to work on; rests while a fork goes on, if need be. */
static bool go_on(void) {
    if (atomic_load(&forking)) {
        atomic_fetch_add(&resting, 1);
        while (atomic_load(&forking))
            usleep(100);
        atomic_fetch_sub(&resting, 1);
    }
    return !atomic_load(&stop);
}

static void *allocate_all(void *unused) {
    while (go_on())
        for (uint32_t kind = 0; kind <= NVLX_ALLOC_POOL; kind++)
            OK(nvlx_free(shared, allocate_kind(shared, kind)));
    return unused;
}

static void *register_all(void *unused) {
    while (go_on())
        OK(nvlx_unregister(register_range(shared, shared_memory, SIZE, NULL, NVLX_ACCESS_READ), -1));
    return unused;
}

static void *transfer_all(void *unused) {
    struct nvlx_peer *peer = peer_of(shared, shared);
    while (go_on())
        move(shared, NVLX_OP_WRITE, peer, shared_memory, (uint64_t)(uintptr_t)shared_memory + SIZE / 2, SIZE / 2);
    OK(nvlx_peer_close(peer));
    return unused;
}

static void *log_elsewhere(void *unused) {
    while (go_on()) {
        OK(nvlx_set_log(NVLX_LOG_WARNING, ignore, NULL));
        OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL)); /* to glog */
    }
    return unused;
}

static void *fail_all(void *unused) {
    while (go_on())
        REFUSED(nvlx_test(NULL), NVLX_EINVAL, "request");
    return unused;
}

static void *meet_all(void *name) {
    while (go_on())
        meet(name);
    return NULL;
}

static void *make_all(void *unused) {
    while (go_on())
        OK(nvlx_engine_destroy(host_engine()));
    return unused;
}

static void *export_all(void *unused) {
    while (go_on())
        OK(nvlx_peer_close(peer_of(shared, shared)));
    return unused;
}

/* Those of the library: the test's own are open before it begins. */
static size_t count_sockets(void) {
    struct stat status;
    size_t count = 0;
    DIR *opened = opendir("/proc/self/fd");
    EXPECT(opened != NULL);
    for (const struct dirent *entry; (entry = readdir(opened));)
        count += fstatat(dirfd(opened), entry->d_name, &status, 0) == 0 && S_ISSOCK(status.st_mode);
    closedir(opened);
    return count;
}

static void work_in_child(size_t sockets) {
    struct nvlx_engine_info info = {.size = sizeof info};
    char name[64];
    EQUAL(sockets, count_sockets());
    REFUSED(nvlx_engine_get_info(shared, &info), NVLX_EFORK, "forked child");
    REFUSED(nvlx_unregister(shared_region, 0), NVLX_EFORK, "forked child");
    REFUSED(nvlx_test(NULL), NVLX_EINVAL, "request"); /* logged to where the parent's was: a function, or glog */
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    REFUSED(nvlx_test(NULL), NVLX_EINVAL, "request");
    OK(nvlx_set_log(NVLX_LOG_WARNING, ignore, NULL));
    REFUSED(nvlx_test(NULL), NVLX_EINVAL, "request");
    struct nvlx_engine *own = host_engine();
    REFUSED(nvlx_register(own, shared_memory, SIZE, NULL, &shared_region), NVLX_ENOTSUP, "host backend");
    for (uint32_t kind = 0; kind <= NVLX_ALLOC_POOL; kind++)
        OK(nvlx_free(own, allocate_kind(own, kind)));
    for (uint32_t kind = 0; kind <= NVLX_ALLOC_POOL && children_have_threads(); kind++)
        copy_within(own, kind);
    snprintf(name, sizeof name, "@nvlx-test-fork-%d", (int)getpid());
    if (children_have_threads())
        meet(name);
    OK(nvlx_engine_destroy(own));
    _exit(0);
}

/* False if it hung. Its own alarm may not have been set: handlers of a fork come first. */
static bool await_pid(pid_t pid) {
    const double allowed = (sanitized() ? 5 : 1) * CHILD_SECONDS * 1000.;
    int status;
    pid_t ended;
    for (double since = now_ms(); (ended = waitpid(pid, &status, WNOHANG)) == 0; usleep(500))
        if (now_ms() - since > allowed) {
            kill(pid, SIGKILL);
            EXPECT(waitpid(pid, &status, 0) == pid);
            return false;
        }
    EXPECT(ended == pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        return false;
    if (status)
        FAIL("a child ended with status 0x%x", (unsigned)status);
    return true;
}

/* What glog and the library write to stderr, line after line, is not shown; what the test says is. */
static void hide_log(void) {
    FILE *filter = popen("grep -vE ' nvlxfer:0[]] |^[EWID] nvlxfer, '", "we");
    EXPECT(filter && dup2(fileno(filter), STDERR_FILENO) == STDERR_FILENO);
}

static pid_t fork_busy(void) {
    atomic_store(&forking, threads_rest_at_forks());
    while (atomic_load(&forking) && atomic_load(&resting) < WORKERS)
        usleep(100);
    usleep(atomic_load(&forking) ? 1000 : 0); /* the library's own threads rest too */
    pid_t child = fork_child(CHILD_SECONDS);
    if (child)
        atomic_store(&forking, false);
    while (child && atomic_load(&resting))
        usleep(100);
    return child;
}

static void children_of_a_busy_process(void) {
    static char name[64];
    void *(*const work[WORKERS])(void *) = {allocate_all, register_all, transfer_all, log_elsewhere,
                                            fail_all,     meet_all,     make_all,     export_all};
    pthread_t threads[COUNT(work)];
    const char *wanted = getenv(CHILDREN_WORD);
    int children = wanted ? atoi(wanted) : sanitized() ? CHILDREN / 4 : CHILDREN;
    int hung = 0;
    size_t sockets = count_sockets();
    hide_log();
    watchdog(0);
    snprintf(name, sizeof name, "%s", own_name());
    shared = host_engine();
    shared_memory = allocate_kind(shared, 0);
    shared_region = register_range(shared, shared_memory, SIZE, NULL, NVLX_ACCESS_READ_WRITE);
    for (size_t i = 0; i < COUNT(work); i++)
        EQUAL(0, pthread_create(&threads[i], NULL, work[i], name));
    for (int i = 0; i < children && hung < 3; i++) {
        pid_t child = fork_busy();
        if (!child)
            work_in_child(sockets);
        hung += !await_pid(child);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < COUNT(work); i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    OK(nvlx_engine_destroy(shared));
    printf("%d children, %d hung\n", children, hung);
    EQUAL(0, hung);
}

/* ---- What a child that only lives keeps ------------------------------------------------------------------ */

/* Forks a child that sleeps until the test's end, and tells its pid. */
static void leave_child(int socket) {
    char ignored;
    pid_t child = fork_child(2 * CHILD_SECONDS);
    while (!child)
        pause();
    put(socket, &child, sizeof child);
    get_or_end(socket, &ignored, 1);
}

static void server_role(int socket) {
    char at[64];
    get(socket, at, sizeof at);
    struct nvlx_engine *own = make_engine(0);
    OK(nvlx_serve(own, at, NULL));
    put(socket, "r", 1);
    get(socket, at, 1); /* somebody is connected */
    leave_child(socket);
}

static void client_role(int socket) {
    char at[64];
    get(socket, at, sizeof at);
    connect_to(make_engine(0), at);
    leave_child(socket);
}

static void begin_role(struct child *child, const char *role, const char *address) {
    char at[64] = {0};
    snprintf(at, sizeof at, "%s", address);
    child_start(child, role);
    put(child->socket, at, sizeof at);
}

/* The process is killed; the child that it forked goes on until the end of the test. */
static pid_t kill_but_child(struct child *child) {
    pid_t left;
    get(child->socket, &left, sizeof left);
    child_kill(child);
    EQUAL(0, kill(left, 0));
    return left;
}

static void peers_notice_that_a_server_is_gone(void) {
    struct child server;
    char at[64], ready;
    for (int path = 0; path < 2; path++) {
        snprintf(at, sizeof at, "%s", path ? own_path() : own_name());
        struct nvlx_engine *engine = make_engine(0);
        begin_role(&server, "server", at);
        get(server.socket, &ready, 1);
        struct nvlx_peer *peer = connect_to(engine, at);
        OK(nvlx_peer_test(peer));
        put(server.socket, "c", 1);
        pid_t left = kill_but_child(&server);
        double since = now_ms();
        await_end(peer);
        OK(nvlx_serve(engine, at, NULL)); /* at once */
        EXPECT(now_ms() - since < 5000);
        OK(nvlx_engine_destroy(engine));
        kill(left, SIGKILL);
    }
}

static void a_server_notices_that_a_client_is_gone(void) {
    struct child client;
    struct nvlx_serve_options options;
    struct nvlx_peer *peer;
    char at[64];
    snprintf(at, sizeof at, "%s", own_name());
    struct nvlx_engine *server = make_engine(0), *engine = make_engine(0);
    nvlx_serve_options_init(&options);
    options.max_connections = 1;
    OK(nvlx_serve(server, at, &options));
    begin_role(&client, "client", at);
    pid_t left = kill_but_child(&client);
    double since = now_ms();
    while (nvlx_connect(engine, at, PATIENCE, &peer))
        EXPECT(now_ms() - since < 5000);
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
    OK(nvlx_engine_destroy(server));
    kill(left, SIGKILL);
}

/* Both sides of a fork allocate in what was one pool. */
static void pools_are_not_shared(void) {
    int told[2], status;
    char byte;
    struct nvlx_engine *engine = host_engine();
    allocate_kind(engine, NVLX_ALLOC_POOL);
    EQUAL(0, pipe(told));
    pid_t child = fork_child(CHILD_SECONDS);
    if (!child) {
        struct nvlx_engine *own = host_engine();
        void *theirs = allocate_kind(own, NVLX_ALLOC_POOL);
        fill(own, theirs, SIZE, 2);
        EXPECT(write(told[1], "r", 1) == 1);
        while (getppid() != 1 && wrong(own, theirs, SIZE, 2) == 0 && kill(getppid(), 0) == 0)
            usleep(1000);
        _exit(1);
    }
    EXPECT(read(told[0], &byte, 1) == 1);
    void *ours = allocate_kind(engine, NVLX_ALLOC_POOL);
    fill(engine, ours, SIZE, 1);
    usleep(100000);
    EQUAL(0, wrong(engine, ours, SIZE, 1));
    EQUAL(0, waitpid(child, &status, WNOHANG)); /* it still sees its own bytes */
    kill(child, SIGKILL);
    EXPECT(waitpid(child, &status, 0) == child);
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"children_of_a_busy_process", children_of_a_busy_process},
        {"peers_notice_that_a_server_is_gone", peers_notice_that_a_server_is_gone},
        {"a_server_notices_that_a_client_is_gone", a_server_notices_that_a_client_is_gone},
        {"pools_are_not_shared", pools_are_not_shared},
        {NULL, NULL}};
    static const struct role roles[] = {{"server", server_role}, {"client", client_role}, {NULL, NULL}};
    if (argc == 2 && atoi(argv[1]) > 0) {
        setenv(CHILDREN_WORD, argv[1], 1);
        argc = 1;
    }
    return run_tests(argc, argv, tests, roles, 100);
}
