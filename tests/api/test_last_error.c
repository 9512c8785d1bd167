/* What a call says when it fails, and only then; where that is logged. On the host backend, with faults on demand.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "bench.h"
#include "faulty_device.h"

#define SIZE (4 * MIB)

static struct bench bench;
static struct nvlx_region *whole;

/* ---- Failures inside of calls that succeed --------------------------------------------------------------- */

static atomic_int warnings, errors;

static void count_messages(void *context, int level, const char *message) {
    (void)context, (void)message;
    atomic_fetch_add(&warnings, level == NVLX_LOG_WARNING);
    atomic_fetch_add(&errors, level == NVLX_LOG_ERROR);
}

/* An error that must stay this thread's last one. */
static void mark(void) {
    uint64_t ignored;
    REFUSED(nvlx_peer_find(bench.peer, "the mark", &ignored, &ignored), NVLX_ENOENT, "the mark");
    atomic_store(&warnings, 0);
    atomic_store(&errors, 0);
}

#define UNMARKED(call, warned, failed) (OK(call), expect_mark(__LINE__, warned, failed))

static void expect_mark(int line, int warned, int failed) {
    if (!strstr(nvlx_last_error(), "the mark"))
        FAIL("line %d: the call succeeded, and the last error is: %s", line, nvlx_last_error());
    if (atomic_load(&warnings) != warned || atomic_load(&errors) != failed)
        FAIL("line %d: %d warnings and %d errors were logged, not %d and %d", line, atomic_load(&warnings),
             atomic_load(&errors), warned, failed);
}

static void begin(uint32_t max_requests, size_t list_memory) {
    struct nvlx_engine *engine;
    struct nvlx_config config;
    fill_config(&config);
    config.max_requests = max_requests;
    config.list_memory = list_memory;
    OK(nvlxi_engine_create(&config, &faulty_device, &engine));
    bench_begin(&bench, engine, SIZE);
    owner_register(&bench.owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "near");
    bench_open_peer(&bench);
    whole = register_range(bench.engine, bench.local[0], SIZE, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_set_log(NVLX_LOG_DEBUG, count_messages, NULL));
}

static struct nvlx_op op(size_t local, size_t remote, size_t length) {
    return make_op(NVLX_OP_READ, bench.peer, bench.local[0] + local, bench.remote[0] + remote, length);
}

/* A transfer is accepted, and fails later, or while it is issued. */
static void requests_that_fail(void) {
    struct nvlx_request *request;
    struct nvlx_request_info info = {.size = sizeof info};
    begin(0, 0);
    struct nvlx_op one = op(0, 0, 1000);
    finish(start(bench.engine, &one, 1)); /* the segment is mapped */
    atomic_store(&faults.copies, true);
    mark();
    UNMARKED(nvlx_transfer(bench.engine, &one, 1, NULL, &request), 0, 0);
    while (nvlx_test(request) == NVLX_EAGAIN)
        usleep(100);
    mark();
    UNMARKED(nvlx_request_get_info(request, &info), 0, 0);
    EQUAL(NVLX_EDEVICE, info.status);
    REFUSED(nvlx_request_free(request), NVLX_EDEVICE, "on purpose");
    atomic_store(&faults.copies, false);
    bench_end(&bench);
}

/* Other calls see the requests end, and tell only the log how. */
static void requests_of_others_that_fail(void) {
    struct nvlx_request *request;
    void *memory;
    begin(0, 0);
    struct nvlx_op one = op(0, 0, 1000);
    finish(start(bench.engine, &one, 1));
    OK(nvlx_alloc(bench.engine, 0, 4096, NULL, &memory));
    atomic_store(&faults.queries, true);
    request = start(bench.engine, &one, 1);
    mark();
    UNMARKED(nvlx_unregister(whole, -1), 0, 1); /* waits for the request */
    whole = register_range(bench.engine, bench.local[0], SIZE, NULL, NVLX_ACCESS_NONE);
    REFUSED(nvlx_wait(request, PATIENCE), NVLX_EDEVICE, "on purpose");
    start(bench.engine, &one, 1);
    usleep(100000);
    mark();
    OK(nvlx_free(bench.engine, memory));
    expect_mark(__LINE__, 0, atomic_load(&errors)); /* 1, unless this machine is slow */
    start(bench.engine, &one, 1);
    mark();
    UNMARKED(nvlx_engine_destroy(bench.engine), 0, 1);
    atomic_store(&faults.queries, false);
    bench.engine = make_faulty_engine(0); /* for bench_end */
    owner_end(&bench.owner);
    OK(nvlx_engine_destroy(bench.engine));
}

/* There seems to be no room, until one looks. */
static void room_is_found(void) {
    struct nvlx_prepared *prepared;
    struct nvlx_request *first, *second, *third;
    begin(1, 0);
    struct nvlx_op one = op(0, 0, 1000);
    finish(start(bench.engine, &one, 1));
    OK(nvlx_prepare(bench.engine, &one, 1, NULL, &prepared));
    first = start(bench.engine, &one, 1);
    usleep(200000); /* complete, and nobody has asked */
    mark();
    UNMARKED(nvlx_transfer(bench.engine, &one, 1, NULL, &second), 0, 0);
    usleep(200000);
    UNMARKED(nvlx_post(prepared, NULL, &third), 0, 0);
    finish(first);
    finish(second);
    finish(third);
    OK(nvlx_prepared_free(prepared));
    bench_end(&bench);
}

/* A long list has no room in portions, since they cannot tell that the most of it joins; planned as a whole it has. */
static void lists_are_planned_again(void) {
    enum { APART = 4000, ALL = 32000 };
    struct nvlx_request *request;
    struct nvlx_transfer_options options;
    struct nvlx_op *ops = calloc(ALL, sizeof *ops);
    EXPECT(ops != NULL);
    begin(0, 24 * 9000);
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_KERNEL;
    for (size_t i = 0; i < ALL; i++)
        ops[i] =
            i < APART ? op(40 * i, 13 * (ALL - 1 - i), 13) : op(40 * APART + 13 * (i - APART), 13 * (i - APART), 13);
    finish(start(bench.engine, ops, 1));
    mark();
    UNMARKED(nvlx_transfer(bench.engine, ops, ALL, &options, &request), 0, 0);
    finish(request);
    free(ops);
    bench_end(&bench);
}

/* That the driver could not close what an update withdrew is logged by the thread that closes it, no more. */
static void closing_fails(void) {
    begin(0, 0);
    struct nvlx_op one = op(0, 0, 1000);
    finish(start(bench.engine, &one, 1));
    EQUAL(0, owner_unregister(&bench.owner, 0));
    char *text = owner_export(&bench.owner);
    mark();
    atomic_store(&faults.fail_at, atomic_load(&faults.calls) + 1);
    OK(nvlx_peer_update(bench.peer, text, strlen(text)));
    expect_mappings(bench.engine, 0);
    EQUAL(1, atomic_load(&faults.unmaps));
    for (double since = now_ms(); !atomic_load(&warnings) && now_ms() - since < 10000; usleep(200)) {
    }
    expect_mark(__LINE__, 1, 0);
    free(text);
    bench_end(&bench);
}

/* ---- nvlx_set_log ---------------------------------------------------------------------------------------- */

static atomic_int entered, left, called_later;
static atomic_bool let_go;

static void slow(void *context, int level, const char *message) {
    (void)context, (void)level, (void)message;
    atomic_fetch_add(&entered, 1);
    while (!atomic_load(&let_go))
        usleep(1000);
    usleep(50000);
    atomic_fetch_add(&left, 1);
}

static void quick(void *context, int level, const char *message) {
    (void)context, (void)level, (void)message;
    atomic_fetch_add(&called_later, 1);
}

static void *fail_once(void *unused) {
    REFUSED(nvlx_test(NULL), NVLX_EINVAL, "request");
    return unused;
}

static void *let_go_later(void *unused) {
    usleep(100000);
    atomic_store(&let_go, true);
    return unused;
}

/* Once it returns, the old function does not run and will not, in any thread. */
static void the_old_function_has_ended(void) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS + 1];
    OK(nvlx_set_log(NVLX_LOG_WARNING, slow, NULL));
    for (int i = 0; i < THREADS; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, fail_once, NULL));
    while (atomic_load(&entered) < THREADS)
        usleep(1000);
    EQUAL(0, pthread_create(&threads[THREADS], NULL, let_go_later, NULL));
    OK(nvlx_set_log(NVLX_LOG_WARNING, quick, NULL));
    EQUAL(THREADS, atomic_load(&left));
    fail_once(NULL);
    EQUAL(1, atomic_load(&called_later));
    EQUAL(THREADS, atomic_load(&entered));
    for (int i = 0; i <= THREADS; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
}

static atomic_int inner_code;

static void sets_the_log(void *context, int level, const char *message) {
    (void)context, (void)level, (void)message;
    atomic_store(&inner_code, nvlx_set_log(NVLX_LOG_WARNING, quick, NULL));
    EXPECT(strstr(nvlx_last_error(), "cannot replace"));
}

/* It must not, says the header; it is told so, rather than hang. The error of the call that logged stays as it is, and
 * so does the last one, if that call succeeds. */
static void the_function_sets_the_log(void) {
    OK(nvlx_set_log(NVLX_LOG_WARNING, sets_the_log, NULL));
    REFUSED(nvlx_test(NULL), NVLX_EINVAL, "request");
    EQUAL(NVLX_EBUSY, atomic_load(&inner_code));
    OK(nvlx_set_log(NVLX_LOG_DEBUG, sets_the_log, NULL));
    atomic_store(&inner_code, 0);
    OK(nvlx_engine_destroy(make_engine(0)));
    EQUAL(NVLX_EBUSY, atomic_load(&inner_code));
    EXPECT(strstr(nvlx_last_error(), "request"));
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
}

/* A function that waits, such as for Python's lock, which the forking thread may hold, keeps no fork. */
static void a_waiting_function_keeps_no_fork(void) {
    pthread_t thread;
    OK(nvlx_set_log(NVLX_LOG_WARNING, slow, NULL));
    EQUAL(0, pthread_create(&thread, NULL, fail_once, NULL));
    while (!atomic_load(&entered))
        usleep(1000);
    pid_t child = fork_child(20);
    if (!child) {
        OK(nvlx_set_log(NVLX_LOG_WARNING, quick, NULL));
        fail_once(NULL);
        _exit(atomic_load(&called_later) == 1 ? 0 : 1);
    }
    fork_end(child);
    EQUAL(0, atomic_load(&left));
    atomic_store(&let_go, true);
    EQUAL(0, pthread_join(thread, NULL));
}

static void forks(void *context, int level, const char *message) {
    (void)level, (void)message;
    pid_t child = fork_child(20);
    if (!child)
        return; /* the child goes on in the library, out of the function */
    fork_end(child);
    *(bool *)context = true;
}

static void the_function_forks(void) {
    bool forked = false;
    const pid_t parent = getpid();
    OK(nvlx_set_log(NVLX_LOG_WARNING, forks, &forked));
    fail_once(NULL);
    if (getpid() != parent)
        _exit(nvlx_set_log(NVLX_LOG_WARNING, quick, NULL) ? 1 : 0);
    EXPECT(forked);
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
}

static void levels_are_checked(void) {
    fail_once(NULL);
    REFUSED(nvlx_set_log(99, NULL, NULL), NVLX_EINVAL, "level 99");
    REFUSED(nvlx_set_log(-1, quick, NULL), NVLX_EINVAL, "level -1");
    OK(nvlx_set_log(NVLX_LOG_ERROR, quick, NULL));
    fail_once(NULL);
    EQUAL(0, atomic_load(&called_later));
}

/* Of "x", `plain` times, and then characters of two bytes. */
static const char *long_text(char first, size_t plain) {
    static char text[400];
    memset(text, 'x', plain);
    text[0] = first;
    for (size_t at = plain; at + 2 < sizeof text; at += 2) {
        text[at] = '\xc3';
        text[at + 1] = '\xa9';
    }
    return text;
}

static void texts_are_cut_between_characters(void) {
    uint64_t ignored;
    int count;
    void *none = NULL;
    struct nvlx_region *region;
    struct nvlx_region_options options;
    begin(0, 0);
    nvlx_region_options_init(&options);
    for (size_t plain = 38; plain <= 39; plain++) {
        const char *words = plain == 38 ? "x\xc3\xa9" : "x";
        char quoted[8], dotted[8];
        snprintf(quoted, sizeof quoted, "%s\"", words);
        snprintf(dotted, sizeof dotted, "%s...", words);
        options.name = long_text('x', plain);
        REFUSED(nvlx_register(bench.engine, none, 0, &options, &region), NVLX_EINVAL, quoted);
        REFUSED(nvlx_serve(bench.engine, long_text('/', plain), NULL), NVLX_EINVAL, dotted);
        REFUSED(nvlx_peer_find(bench.peer, long_text('x', plain + 215), &ignored, &ignored), NVLX_ENOENT, quoted);
        setenv("NVLX_BACKEND", long_text('x', plain), 1);
        REFUSED(nvlx_gpu_count(NVLX_BACKEND_AUTO, &count), NVLX_EBACKEND, quoted);
    }
    setenv("NVLX_BACKEND", "host", 1);
    bench_end(&bench);
}

/* ---- What is logged of others' words ------------------------------------------------------------------------ */

static char logged[1024];

static void keep_message(void *context, int level, const char *message) {
    (void)context, (void)level;
    snprintf(logged, sizeof logged, "%s", message);
}

/* A name that was refused, with lines of its own: neither the error nor the log has more than one. */
static void a_name_makes_no_line(void) {
    struct nvlx_engine *engine = make_engine(0);
    struct nvlx_region_options options;
    struct nvlx_region *region;
    void *memory = allocate(engine, 0, 64, 0);
    nvlx_region_options_init(&options);
    options.name = "w\nE nvlxfer: no such line\x7f";
    OK(nvlx_set_log(NVLX_LOG_DEBUG, keep_message, NULL));
    REFUSED(nvlx_register(engine, memory, 64, &options, &region), NVLX_EINVAL, "w?E nvlxfer: no such line?");
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    EXPECT(strstr(logged, "w?E nvlxfer") && !strchr(logged, '\n'));
    OK(nvlx_engine_destroy(engine));
}

static void codes_are_named(void) {
    struct nvlx_engine *engine = make_engine(0);
    uint64_t ignored;
    OK(nvlx_set_log(NVLX_LOG_DEBUG, keep_message, NULL));
    GIVES(NVLX_EINVAL, nvlx_digest(NULL, NULL, 0, &ignored));
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    EXPECT(!strncmp(logged, "NVLX_EINVAL: ", 13) && !strcmp(logged + 13, nvlx_last_error()));
    EXPECT(!strncmp(nvlx_strerror(NVLX_ESUSPENDED), "NVLX_ESUSPENDED: ", 17));
    EXPECT(!strcmp(nvlx_strerror(0), "success") && !strcmp(nvlx_strerror(1), "unknown error code"));
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"requests_that_fail", requests_that_fail},
                                        {"requests_of_others_that_fail", requests_of_others_that_fail},
                                        {"room_is_found", room_is_found},
                                        {"lists_are_planned_again", lists_are_planned_again},
                                        {"closing_fails", closing_fails},
                                        {"the_old_function_has_ended", the_old_function_has_ended},
                                        {"the_function_sets_the_log", the_function_sets_the_log},
                                        {"a_waiting_function_keeps_no_fork", a_waiting_function_keeps_no_fork},
                                        {"the_function_forks", the_function_forks},
                                        {"levels_are_checked", levels_are_checked},
                                        {"texts_are_cut_between_characters", texts_are_cut_between_characters},
                                        {"a_name_makes_no_line", a_name_makes_no_line},
                                        {"codes_are_named", codes_are_named},
                                        {NULL, NULL}};
    static const struct role roles[] = {OWNER_ROLE, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
