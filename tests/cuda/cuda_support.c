/* What the tests on real GPUs share: see cuda_support.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "cuda_support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_FD       3
#define SOCKET_S       30 /* that a message may take */
#define CHILD_END_MS   20000
#define ENVIRONMENT    1024 /* variables that a child gets at most */
#define VISIBLE        "CUDA_VISIBLE_DEVICES="
#define DESCRIPTOR_MAX ((size_t)64 << 20)

/* ---- Checks -------------------------------------------------------------------------------------------- */

static const char *process = "test"; /* or the child's role */

void fail_at(const char *file, int line, const char *format, ...) {
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "FAIL (%s) %s:%d: ", process, file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _exit(1);
}

void ok_at(const char *file, int line, int code, const char *call) {
    if (code)
        fail_at(file, line, "%s: %s: %s", call, nvlx_strerror(code), nvlx_last_error());
}

void cuda_at(const char *file, int line, cudaError_t error, const char *call) {
    if (error)
        fail_at(file, line, "%s: %s (%s)", call, cudaGetErrorString(error), cudaGetErrorName(error));
}

void refused_at(const char *file, int line, int code, const char *call, int expected, const char *words) {
    if (code != expected)
        fail_at(file, line, "%s: %d (%s) instead of %d (%s)%s%s", call, code, nvlx_strerror(code), expected,
                nvlx_strerror(expected), code ? ": " : "", code ? nvlx_last_error() : "");
    if (!strstr(nvlx_last_error(), words))
        fail_at(file, line, "%s: the message does not say \"%s\": %s", call, words, nvlx_last_error());
}

/* ---- The process --------------------------------------------------------------------------------------- */

static void time_is_over(int signal) {
    static const char words[] = "FAIL: the watchdog's time is over\n";
    (void)signal;
    ssize_t written = write(STDERR_FILENO, words, sizeof words - 1);
    (void)written;
    _exit(1);
}

void test_main(int argc, char **argv, const struct role *roles, unsigned seconds) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGALRM, time_is_over);
    alarm(seconds);
    if (argc != 4 || strcmp(argv[1], "--role"))
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (; roles->name; roles++) {
        if (strcmp(roles->name, argv[2]))
            continue;
        process = roles->name;
        roles->run(CHILD_FD, (int)strtol(argv[3], NULL, 10));
        exit(0);
    }
    FAIL("there is no role %s", argv[2]);
}

int gpus_needed(int needed) {
    int count;
    if (nvlx_gpu_count(NVLX_BACKEND_CUDA, &count)) {
        printf("SKIP: %s\n", nvlx_last_error());
        exit(77);
    }
    if (count < needed) {
        printf("SKIP: it needs %d GPUs, here is %d\n", needed, count);
        exit(77);
    }
    return count;
}

double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

void driver_function(const char *name, unsigned version, void **function) {
    enum cudaDriverEntryPointQueryResult found;
    CUDA(cudaGetDriverEntryPointByVersion(name, function, version, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess)
        FAIL("the driver has no %s of version %u", name, version);
}

/* ---- Children ------------------------------------------------------------------------------------------ */

/* The environment with another CUDA_VISIBLE_DEVICES. */
static void make_environment(char **made, char *visible) {
    size_t count = 0;
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, VISIBLE, strlen(VISIBLE)) && count < ENVIRONMENT - 2)
            made[count++] = *variable;
    made[count++] = visible;
    made[count] = NULL;
}

static void set_patience(int socket) {
    const struct timeval patience = {.tv_sec = SOCKET_S};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

void child_start(struct child *child, const char *role, int argument, const char *visible) {
    char number[16], variable[256], *changed[ENVIRONMENT];
    char *const arguments[] = {"cuda_test", "--role", (char *)role, number, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];
    snprintf(number, sizeof number, "%d", argument);
    snprintf(variable, sizeof variable, VISIBLE "%s", visible ? visible : "");
    if (visible)
        make_environment(changed, variable);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        FAIL("socketpair: %s", strerror(errno));
    set_patience(ends[0]);
    set_patience(ends[1]);
    /* dup2 onto itself would leave it close-on-exec. */
    int inherited = fcntl(ends[1], F_DUPFD_CLOEXEC, CHILD_FD + 1);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, inherited, CHILD_FD);
    int error = posix_spawn(&child->pid, "/proc/self/exe", &actions, NULL, arguments, visible ? changed : environ);
    posix_spawn_file_actions_destroy(&actions);
    close(inherited);
    close(ends[1]);
    if (error)
        FAIL("cannot start a %s: %s", role, strerror(error));
    child->socket = ends[0];
}

void child_end(struct child *child) {
    int status;
    close(child->socket);
    for (double since = now_ms(); waitpid(child->pid, &status, WNOHANG) == 0; usleep(1000)) {
        if (now_ms() - since > CHILD_END_MS) {
            kill(child->pid, SIGKILL);
            FAIL("a child did not end within %d ms", CHILD_END_MS);
        }
    }
    child->pid = 0;
    if (WIFSIGNALED(status))
        FAIL("a child died of signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status))
        FAIL("a child failed with %d", WEXITSTATUS(status));
}

void child_kill(struct child *child) {
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    close(child->socket);
    child->pid = 0;
}

void put(int socket, const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        ssize_t sent = send(socket, at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            FAIL("sending to another process: %s", strerror(errno));
        at += sent;
        length -= (size_t)sent;
    }
}

bool get_or_end(int socket, void *bytes, size_t length) {
    char *at = bytes;
    for (size_t missing = length; missing;) {
        ssize_t got = recv(socket, at, missing, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != ECONNRESET)
            FAIL("no message of another process: %s", strerror(errno));
        if (got <= 0)
            return false;
        at += got;
        missing -= (size_t)got;
    }
    return true;
}

void get(int socket, void *bytes, size_t length) {
    if (!get_or_end(socket, bytes, length))
        FAIL("another process is gone");
}

void put_text(int socket, const char *text, size_t length) {
    put(socket, &length, sizeof length);
    put(socket, text, length);
}

char *get_text(int socket, size_t *length) {
    get(socket, length, sizeof *length);
    EXPECT(*length < DESCRIPTOR_MAX);
    char *text = malloc(*length + 1);
    EXPECT(text != NULL);
    get(socket, text, *length);
    text[*length] = '\0';
    return text;
}

/* ---- The library --------------------------------------------------------------------------------------- */

struct nvlx_engine *engine_on(const int *gpus, size_t count) {
    struct nvlx_config config;
    struct nvlx_engine *engine;
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_CUDA;
    config.gpus = gpus;
    config.gpu_count = count;
    OK(nvlx_engine_create(&config, &engine));
    return engine;
}

struct nvlx_engine *engine_on_pair(int gpu, int other) {
    const int gpus[] = {gpu, other};
    return engine_on(gpus, gpu == other ? 1 : 2);
}

struct nvlx_request *start(struct nvlx_engine *engine, uint32_t opcode, struct nvlx_peer *peer, void *local,
                           uint64_t remote, size_t length, void *stream) {
    const struct nvlx_op op = {.opcode = opcode, .peer = peer, .local = local, .remote = remote, .length = length};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    return request;
}

void finish(struct nvlx_request *request) {
    OK(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_free(request));
}

/* ---- An owner ------------------------------------------------------------------------------------------ */

struct owner_setup {
    uint32_t segments;
    size_t bytes;
};

struct owner_order {
    uint32_t segment, seed;
    size_t bytes; /* to check; 0: send a handle instead */
};

static void owner_count(const struct owner_order *order, const uint32_t *words, unsigned long long *wrong, int socket) {
    unsigned long long counted = 0;
    CUDA(cudaMemset(wrong, 0, sizeof *wrong));
    CUDA(kernel_count(words, order->bytes / sizeof *words, order->seed, wrong, cudaStreamLegacy));
    CUDA(cudaMemcpy(&counted, wrong, sizeof counted, cudaMemcpyDeviceToHost));
    put(socket, &counted, sizeof counted);
}

static void owner_serve(int socket, uint32_t *const *words) {
    struct owner_order order;
    unsigned long long *wrong;
    CUDA(cudaMalloc((void **)&wrong, sizeof *wrong));
    while (get_or_end(socket, &order, sizeof order)) {
        if (order.bytes) {
            owner_count(&order, words[order.segment], wrong, socket);
        } else {
            cudaIpcMemHandle_t handle;
            CUDA(cudaIpcGetMemHandle(&handle, words[order.segment]));
            put(socket, &handle, sizeof handle);
        }
    }
    CUDA(cudaFree(wrong));
}

void owner_role(int socket, int gpu) {
    struct owner_setup setup;
    struct nvlx_region_options options;
    struct nvlx_region *region;
    char name[16], *text;
    size_t length;
    get(socket, &setup, sizeof setup);
    uint32_t **words = calloc(setup.segments, sizeof *words);
    EXPECT(words != NULL);
    CUDA(cudaSetDevice(gpu));
    CUDA(kernels_load());
    struct nvlx_engine *engine = engine_on(&gpu, 1);
    nvlx_region_options_init(&options);
    options.name = name;
    for (uint32_t i = 0; i < setup.segments; i++) {
        snprintf(name, sizeof name, "%u", i);
        CUDA(cudaMalloc((void **)&words[i], setup.bytes));
        CUDA(kernel_produce(words[i], setup.bytes / sizeof *words[i], 0, i + 1, cudaStreamLegacy));
        OK(nvlx_register(engine, words[i], setup.bytes, &options, &region));
    }
    CUDA(cudaDeviceSynchronize());
    OK(nvlx_export(engine, &text, &length));
    put_text(socket, text, length);
    nvlx_text_free(text);
    owner_serve(socket, words);
    OK(nvlx_engine_destroy(engine));
    free(words);
}

void owner_start(struct owner *owner, int gpu, uint32_t segments, size_t bytes, const char *visible) {
    const struct owner_setup setup = {.segments = segments, .bytes = bytes};
    owner->segments = segments;
    owner->bytes = bytes;
    child_start(&owner->child, "owner", gpu, visible);
    put(owner->child.socket, &setup, sizeof setup);
    owner->text = get_text(owner->child.socket, &owner->length);
}

struct nvlx_peer *owner_open(const struct owner *owner, struct nvlx_engine *engine) {
    struct nvlx_peer *peer;
    OK(nvlx_peer_open(engine, owner->text, owner->length, &peer));
    return peer;
}

uint64_t owner_address(struct nvlx_peer *peer, uint32_t segment) {
    uint64_t address, length;
    char name[16];
    snprintf(name, sizeof name, "%u", segment);
    OK(nvlx_peer_find(peer, name, &address, &length));
    return address;
}

uint64_t owner_wrong(const struct owner *owner, uint32_t segment, size_t bytes, uint32_t seed) {
    const struct owner_order order = {.segment = segment, .seed = seed, .bytes = bytes};
    unsigned long long wrong;
    put(owner->child.socket, &order, sizeof order);
    get(owner->child.socket, &wrong, sizeof wrong);
    return wrong;
}

cudaIpcMemHandle_t owner_handle(const struct owner *owner) {
    const struct owner_order order = {.segment = owner->segments - 1};
    cudaIpcMemHandle_t handle;
    put(owner->child.socket, &order, sizeof order);
    get(owner->child.socket, &handle, sizeof handle);
    return handle;
}

void owner_end(struct owner *owner) {
    child_end(&owner->child);
    free(owner->text);
}

void owner_kill(struct owner *owner) {
    child_kill(&owner->child);
    free(owner->text);
}
