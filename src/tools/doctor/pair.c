/* Two processes that meet, for the doctor. SPDX-License-Identifier: Apache-2.0 */
#include "doctor/pair.h"

#include <errno.h>
#include <nvlxfer.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH     65536
#define NAME       "doctor"
#define PATIENCE   INT64_C(20000000000) /* nanoseconds */
#define WRONG_DATA 1                    /* beside the codes of errors */

static unsigned char pattern(size_t i) {
    return (unsigned char)(i * 31 + i / 256);
}

static int say(struct pair_result *result, int code, const char *what) {
    result->code = code;
    snprintf(result->text, sizeof result->text, "%s: %s", what,
             *nvlx_last_error() ? nvlx_last_error() : nvlx_strerror(code));
    return code;
}

/* On the second GPU, if `second` and there is one. */
static int make_engine(const struct pair *pair, bool second, struct nvlx_engine **engine, int *gpu,
                       struct pair_result *result) {
    struct nvlx_config config;
    int gpus, code;
    nvlx_config_init(&config);
    config.backend = pair->host ? NVLX_BACKEND_HOST : NVLX_BACKEND_AUTO;
    if ((code = nvlx_gpu_count(config.backend, &gpus)))
        return say(result, code, "nvlx_gpu_count");
    *gpu = second && gpus > 1 ? 1 : 0;
    config.gpus = gpu;
    config.gpu_count = 1;
    if ((code = nvlx_engine_create(&config, engine)))
        return say(result, code, "nvlx_engine_create");
    snprintf(result->backend, sizeof result->backend, "%s", nvlx_backend_name(*engine));
    return 0;
}

static int allocate(struct nvlx_engine *engine, int gpu, uint32_t flags, void **memory, struct pair_result *result) {
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    int code = nvlx_alloc(engine, gpu, LENGTH, &options, memory);
    return code ? say(result, code, "nvlx_alloc") : 0;
}

static int offer(struct nvlx_engine *engine, int gpu, uint32_t flags, struct pair_result *result) {
    unsigned char bytes[LENGTH];
    struct nvlx_region_options options;
    struct nvlx_region *region;
    void *memory;
    int code = allocate(engine, gpu, flags, &memory, result);
    if (code)
        return code;
    for (size_t i = 0; i < LENGTH; i++)
        bytes[i] = pattern(i);
    nvlx_region_options_init(&options);
    options.name = NAME;
    options.access = NVLX_ACCESS_READ;
    if ((code = nvlx_memcpy(engine, memory, bytes, LENGTH)))
        return say(result, code, "nvlx_memcpy");
    code = nvlx_register(engine, memory, LENGTH, &options, &region);
    return code ? say(result, code, "nvlx_register") : 0;
}

static void serve(const struct pair *pair, int to, int until) {
    struct pair_result result = {0};
    struct nvlx_engine *engine = NULL;
    char end;
    int gpu, code = make_engine(pair, false, &engine, &gpu, &result);
    if (!code && pair->share)
        code = offer(engine, gpu, pair->flags, &result);
    if (!code && (code = nvlx_serve(engine, pair->address, NULL)))
        say(&result, code, "nvlx_serve");
    const bool told = write(to, &result, sizeof result) == (ssize_t)sizeof result;
    if (!code && told && read(until, &end, 1) < 0) /* it ends when the other one is done */
        _exit(1);
    _exit(engine && nvlx_engine_destroy(engine) ? 1 : 0);
}

static int compare(struct nvlx_engine *engine, const void *memory, struct pair_result *result) {
    unsigned char bytes[LENGTH];
    int code = nvlx_memcpy(engine, bytes, memory, LENGTH);
    if (code)
        return say(result, code, "nvlx_memcpy");
    for (size_t i = 0; i < LENGTH; i++) {
        if (bytes[i] == pattern(i))
            continue;
        result->code = WRONG_DATA;
        snprintf(result->text, sizeof result->text, "wrong bytes arrived, from byte %zu of %d on", i, LENGTH);
        return WRONG_DATA;
    }
    return 0;
}

static int fetch(struct nvlx_engine *engine, int gpu, struct nvlx_peer *peer, struct pair_result *result) {
    struct nvlx_op op = {.opcode = NVLX_OP_READ, .peer = peer};
    struct nvlx_request *request;
    struct nvlx_region *region;
    int code = allocate(engine, gpu, 0, &op.local, result);
    if (code)
        return code;
    if ((code = nvlx_register(engine, op.local, LENGTH, NULL, &region)))
        return say(result, code, "nvlx_register");
    if ((code = nvlx_peer_find(peer, NAME, &op.remote, &op.length)))
        return say(result, code, "nvlx_peer_find");
    if ((code = nvlx_transfer(engine, &op, 1, NULL, &request)))
        return say(result, code, "nvlx_transfer");
    if ((code = nvlx_wait(request, PATIENCE)))
        return say(result, code, "nvlx_wait");
    nvlx_request_free(request);
    return compare(engine, op.local, result);
}

static void visit(const struct pair *pair, int to) {
    struct pair_result result = {0};
    struct nvlx_engine *engine = NULL;
    struct nvlx_peer *peer;
    int gpu, code = make_engine(pair, true, &engine, &gpu, &result);
    if (!code && (code = nvlx_connect(engine, pair->address, PATIENCE, &peer)))
        say(&result, code, "nvlx_connect");
    if (!code && pair->share)
        fetch(engine, gpu, peer, &result);
    const ssize_t written = write(to, &result, sizeof result);
    const int failed = engine ? nvlx_engine_destroy(engine) : 0;
    _exit(failed || written != (ssize_t)sizeof result ? 1 : 0);
}

static void take(int from, struct pair_result *result, const char *who) {
    const ssize_t length = read(from, result, sizeof *result);
    if (length == (ssize_t)sizeof *result)
        return;
    *result = (struct pair_result){.code = NVLX_EDEVICE};
    snprintf(result->text, sizeof result->text, "the process that %s ended without an answer", who);
}

/* Forks one of the two, which answers by a pipe of its own: if it ends without an answer, the pipe ends. */
static pid_t start(const struct pair *pair, bool serving, const int until[2], struct pair_result *result) {
    int answer[2];
    if (pipe(answer)) {
        snprintf(result->text, sizeof result->text, "no pipe: %s", strerror(errno));
        return -1;
    }
    const pid_t child = fork();
    if (child == 0) {
        close(answer[0]);
        close(until[1]);
        if (serving)
            serve(pair, answer[1], until[0]);
        visit(pair, answer[1]);
    }
    close(answer[1]);
    if (child > 0)
        take(answer[0], result, serving ? "serves" : "connects");
    else
        snprintf(result->text, sizeof result->text, "no process: %s", strerror(errno));
    close(answer[0]);
    return child;
}

void pair_run(const struct pair *pair, struct pair_result *result) {
    int until[2];
    *result = (struct pair_result){.code = NVLX_ENOMEM};
    if (pipe(until)) {
        snprintf(result->text, sizeof result->text, "no pipe: %s", strerror(errno));
        return;
    }
    const pid_t owner = start(pair, true, until, result);
    if (owner > 0 && !result->code) {
        result->code = NVLX_ENOMEM;
        const pid_t visitor = start(pair, false, until, result);
        if (visitor > 0)
            waitpid(visitor, NULL, 0);
    }
    close(until[1]);
    if (owner > 0)
        waitpid(owner, NULL, 0);
    close(until[0]);
}
