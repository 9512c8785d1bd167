/* The log: what is told of peers, mappings and plans, where it goes, and how much of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "bench.h"

#define SIZE (256 * KIB)

/* ---- What is told -------------------------------------------------------------------------------------- */

enum { LINES_MAX = 4096 };
static char *lines[LINES_MAX];
static int levels[LINES_MAX];
static size_t count;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void collect(void *context, int level, const char *message) {
    (void)context;
    pthread_mutex_lock(&mutex);
    if (count < LINES_MAX) {
        levels[count] = level;
        lines[count++] = strdup(message);
    }
    pthread_mutex_unlock(&mutex);
}

static size_t told(int level, const char *words) {
    size_t found = 0;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < count; i++)
        found += levels[i] == level && strstr(lines[i], words);
    pthread_mutex_unlock(&mutex);
    return found;
}

static struct bench bench;
static struct nvlx_region *mine[2];

static void begin(int level) {
    OK(nvlx_set_log(level, collect, NULL));
    bench_begin(&bench, make_engine(0), SIZE);
    bench_register(&bench, SIZE, mine);
}

static void end(void) {
    bench_end(&bench);
    OK(nvlx_set_log(NVLX_LOG_ERROR, NULL, NULL));
}

static void a_line_a_peer(void) {
    char words[80];
    begin(NVLX_LOG_INFO);
    for (int i = 0; i < 2; i++)
        move(bench.engine, NVLX_OP_READ, bench.peer, bench.local[i], bench.remote[i], 10);
    snprintf(words, sizeof words, "(process %d)", (int)bench.owner.child.pid);
    EQUAL(1, told(NVLX_LOG_INFO, words));
    EQUAL(1, told(NVLX_LOG_INFO, "as a mapping: cudaMalloc memory, by its IPC handle; copy engines carry"));
    EQUAL(0, told(NVLX_LOG_DEBUG, ""));
    end();
}

/* A peer of this process, and on another GPU of it: no kernels. */
static void own_memory_is_told_so(void) {
    char *text;
    size_t length;
    begin(NVLX_LOG_INFO);
    register_range(bench.engine, bench.local[1], SIZE, "own", NVLX_ACCESS_READ);
    OK(nvlx_export(bench.engine, &text, &length));
    struct nvlx_peer *own = open_peer(bench.engine, text);
    nvlx_text_free(text);
    move(bench.engine, NVLX_OP_READ, own, bench.local[0], find(own, "own"), 10);
    EQUAL(1, told(NVLX_LOG_INFO, "GPU 0 reaches its memory on GPU 1 as it is, since it is of this process"));
    EQUAL(1, told(NVLX_LOG_INFO, "copy engines alone carry copies, since kernels do not reach another GPU"));
    end();
}

static void each_mapping_and_plan_at_debug(void) {
    begin(NVLX_LOG_DEBUG);
    for (int i = 0; i < 3; i++)
        move(bench.engine, NVLX_OP_READ, bench.peer, bench.local[0], bench.remote[0], 10);
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 1, 0, 0, 77);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &op, 1);
    finish(bench_post(prepared));
    OK(nvlx_prepared_free(prepared));
    EQUAL(2, told(NVLX_LOG_DEBUG, "mapped 0x"));
    EQUAL(4, told(NVLX_LOG_DEBUG, "of 1 ops with "));
    EQUAL(3, told(NVLX_LOG_DEBUG, "1 copies by engines (10 bytes)"));
    EQUAL(1, told(NVLX_LOG_DEBUG, "1 copies by engines (77 bytes)"));
    EQUAL(0, told(NVLX_LOG_DEBUG, "closed 0x"));
    OK(nvlx_peer_close(bench.peer));
    EQUAL(2, told(NVLX_LOG_DEBUG, "closed 0x"));
    end();
}

/* ---- Where it goes ------------------------------------------------------------------------------------- */

static int before;

/* What goes to stderr from now on is kept. */
static FILE *keep_stderr(void) {
    FILE *kept = tmpfile();
    if (!kept)
        FAIL("no file for stderr");
    fflush(stderr);
    before = dup(STDERR_FILENO);
    EXPECT(before >= 0 && dup2(fileno(kept), STDERR_FILENO) >= 0);
    return kept;
}

/* Whole; to be freed. */
static char *take_stderr(FILE *kept) {
    char *text = calloc(1, MIB);
    fflush(stderr);
    if (!text || dup2(before, STDERR_FILENO) < 0)
        FAIL("stderr cannot be read");
    rewind(kept);
    EXPECT(fread(text, 1, MIB - 1, kept) < MIB - 1);
    fclose(kept);
    close(before);
    return text;
}

static size_t occurrences(const char *text, const char *words) {
    size_t found = 0;
    for (text = strstr(text, words); text; text = strstr(text + 1, words))
        found++;
    return found;
}

static void stderr_without_glog(void) {
    char begins[64];
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    FILE *kept = keep_stderr();
    nvlxi_log(NVLX_LOG_WARNING, "something is odd");
    nvlxi_log(NVLX_LOG_INFO, "nobody asks for this");
    char *text = take_stderr(kept);
    snprintf(begins, sizeof begins, "W nvlxfer, process %d, 2", (int)getpid());
    EXPECT(strncmp(text, begins, strlen(begins)) == 0);
    EXPECT(strstr(text, "Z: something is odd\n") && text[strlen(text) - 1] == '\n');
    EQUAL(1, occurrences(text, "\n"));
    EQUAL(0, occurrences(text, "InitGoogleLogging"));
    free(text);
}

/* The library's clock: what is set here, unless that is 0. */
static time_t now_is;
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
    if (clock != CLOCK_REALTIME || !now_is)
        return __real_clock_gettime(clock, now);
    *now = (struct timespec){now_is, 123456789};
    return 0;
}

/* Around the ends of months, years and leap years: as the C library writes them. */
static void stderr_tells_the_date(void) {
    static const time_t times[] = {1,          951782399,  951782400,  951868800,  1072915199, 1072915200, 1709164799,
                                   1709164800, 1709251200, 1735689599, 1735689600, 1767225599, 4107542399, 4107542400};
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    for (size_t i = 0; i < COUNT(times); i++) {
        struct tm parts;
        char date[64];
        strftime(date, sizeof date, ", %Y-%m-%dT%H:%M:%S.123456Z: odd", gmtime_r(&times[i], &parts));
        FILE *kept = keep_stderr();
        now_is = times[i];
        nvlxi_log(NVLX_LOG_WARNING, "odd");
        now_is = 0;
        char *text = take_stderr(kept);
        if (!strstr(text, date))
            FAIL("'%s' is not in: %s", date, text);
        free(text);
    }
}

void init_glog(const char *name) __asm__("_ZN6google17InitGoogleLoggingEPKc");

static void glog_if_it_is_initialised(void) {
    init_glog("test_log");
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    FILE *kept = keep_stderr();
    nvlxi_log(NVLX_LOG_WARNING, "something is odd");
    char *text = take_stderr(kept);
    EQUAL(1, occurrences(text, " nvlxfer:0] something is odd\n"));
    EQUAL(0, occurrences(text, "W nvlxfer, process"));
    free(text);
}

/* ---- How much ------------------------------------------------------------------------------------------ */

enum { FLOOD = 3000 };

/* Each line is written, or counted as left out. */
static void floods_are_cut_and_counted(void) {
    const struct timespec over = {.tv_sec = 1, .tv_nsec = 50000000};
    OK(nvlx_set_log(NVLX_LOG_INFO, NULL, NULL));
    FILE *kept = keep_stderr();
    const double since = now_ms();
    for (int i = 0; i < FLOOD; i++)
        nvlxi_log(NVLX_LOG_WARNING, "flood %d", i);
    const bool at_once = now_ms() - since < 900;
    nvlxi_log(NVLX_LOG_INFO, "other levels go on");
    nanosleep(&over, NULL);
    nvlxi_log(NVLX_LOG_WARNING, "flood is over");
    char *text = take_stderr(kept);
    const char *note = strstr(text, " warnings were left out\n");
    EXPECT(note != NULL);
    while (note[-1] != ' ')
        note--;
    const unsigned long left_out = strtoul(note, NULL, 10);
    EXPECT(occurrences(text, ": flood ") + left_out == FLOOD + 1 || !at_once);
    EXPECT(occurrences(text, ": flood ") == 201 || !at_once);
    EXPECT(strstr(text, "200 warnings within a second: more of them are left out"));
    EQUAL(1, occurrences(text, "other levels go on\n"));
    EQUAL(1, occurrences(text, "flood is over\n"));
    free(text);
}

static void a_function_gets_all(void) {
    OK(nvlx_set_log(NVLX_LOG_INFO, collect, NULL));
    for (int i = 0; i < FLOOD; i++)
        nvlxi_log(NVLX_LOG_INFO, "line %d", i);
    EQUAL(FLOOD, told(NVLX_LOG_INFO, "line "));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"a_line_a_peer", a_line_a_peer},
                                        {"own_memory_is_told_so", own_memory_is_told_so},
                                        {"each_mapping_and_plan_at_debug", each_mapping_and_plan_at_debug},
                                        {"stderr_without_glog", stderr_without_glog},
                                        {"stderr_tells_the_date", stderr_tells_the_date},
                                        {"glog_if_it_is_initialised", glog_if_it_is_initialised},
                                        {"floods_are_cut_and_counted", floods_are_cut_and_counted},
                                        {"a_function_gets_all", a_function_gets_all},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
