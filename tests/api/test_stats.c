/* Counts: what is counted, of whom, and as what text. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/exposition.h"
#include "bench.h"
#include "checks/exposition_check.h"

#define SIZE (512 * KIB)

static struct bench bench;
static struct nvlx_region *mine[2];

static void begin(void) {
    bench_begin(&bench, make_engine(0), SIZE);
    bench_register(&bench, SIZE, mine);
}

static struct nvlx_counts counts_of(struct nvlx_peer *peer) {
    struct nvlx_counts counts = {.size = sizeof counts};
    OK(nvlx_stats(bench.engine, peer, &counts));
    return counts;
}

static char *text_of(struct nvlx_engine *engine) {
    size_t room, length;
    OK(nvlx_stats_prometheus(engine, NULL, 0, &room));
    char *text = malloc(room);
    if (!text)
        FAIL("no memory for %zu bytes", room);
    OK(nvlx_stats_prometheus(engine, text, room, &length));
    EXPECT(length < room && strlen(text) == length);
    const char *fault = check_exposition(text);
    if (fault)
        FAIL("the text is not proper: %s", fault);
    return text;
}

/* The value of the sample that begins so. */
static double sample(const char *text, const char *begins) {
    for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, begins, strlen(begins)) == 0)
            return strtod(line + strlen(begins), NULL);
    FAIL("there is no sample %s", begins);
}

static double sum(const char *text, const char *begins) {
    double all = 0;
    for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, begins, strlen(begins)) == 0)
            all += strtod(strchr(line, ' '), NULL);
    return all;
}

static void run(const struct nvlx_op *ops, size_t count, uint32_t mechanism) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    OK(nvlx_transfer(bench.engine, ops, count, &options, &request));
    finish(request);
}

/* ---- Transfers ----------------------------------------------------------------------------------------- */

static void bytes_by_mechanism_and_direction(void) {
    begin();
    const struct nvlx_op read = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 1000),
                         write = bench_op(&bench, NVLX_OP_WRITE, 0, 4096, 4096, 500);
    const struct nvlx_op both[] = {read, write, bench_op(&bench, NVLX_OP_READ, 1, 64, 64, 30)};
    run(&read, 1, NVLX_MECHANISM_COPY_ENGINE);
    run(&write, 1, NVLX_MECHANISM_KERNEL);
    run(both, 3, NVLX_MECHANISM_COPY_ENGINE);
    const struct nvlx_counts counts = counts_of(bench.peer);
    EQUAL(3, counts.transfers);
    EQUAL(2030, counts.engine_read_bytes);
    EQUAL(3, counts.engine_read_fragments);
    EQUAL(500, counts.engine_write_bytes);
    EQUAL(1, counts.engine_write_fragments);
    EQUAL(500, counts.kernel_write_bytes);
    EQUAL(1, counts.kernel_write_fragments);
    EQUAL(0, counts.kernel_read_bytes);
    EXPECT(counts.submit_ns > 0 && counts.transfer_ns >= counts.submit_ns);
    const struct nvlx_counts all = counts_of(NULL);
    EQUAL(3, all.transfers);
    EQUAL(2030, all.engine_read_bytes);
    EQUAL(1, all.peers);
    EQUAL(0, all.in_flight + all.failed + all.refused + all.peers_lost);
    EXPECT(all.submit_ns == counts.submit_ns && all.transfer_ns == counts.transfer_ns);
    bench_end(&bench);
}

static void posts_and_blocks(void) {
    const uint32_t ids[] = {1, 3};
    struct nvlx_block_region here = {.stride = 4096, .length = 4096, .blocks = 8}, there = here;
    struct nvlx_block_ids which;
    struct nvlx_request *request;
    begin();
    here.base = (uint64_t)(uintptr_t)bench.local[0];
    there.base = bench.remote[0];
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 1000);
    struct nvlx_prepared *prepared = bench_prepare(&bench, &op, 1);
    EQUAL(0, counts_of(NULL).transfers);
    for (int i = 0; i < 3; i++)
        finish(bench_post(prepared));
    OK(nvlx_prepared_free(prepared));
    struct nvlx_blocks *blocks = bench_tables(&bench, &here, &there, 1, NVLX_ACCESS_READ);
    nvlx_block_ids_init(&which);
    which.local = which.remote = ids;
    which.count = 2;
    OK(nvlx_blocks_transfer(blocks, &which, NULL, &request));
    finish(request);
    OK(nvlx_blocks_free(blocks));
    const struct nvlx_counts counts = counts_of(bench.peer);
    EQUAL(4, counts.transfers);
    EQUAL(3 * 1000 + 2 * 4096, counts.engine_read_bytes + counts.kernel_read_bytes);
    char *text = text_of(bench.engine);
    EQUAL(3, sample(text, "nvlxfer_submit_seconds_count{call=\"post\"} "));
    EQUAL(1, sample(text, "nvlxfer_submit_seconds_count{call=\"blocks\"} "));
    EQUAL(0, sample(text, "nvlxfer_submit_seconds_count{call=\"transfer\"} "));
    free(text);
    bench_end(&bench);
}

static void refusals_by_code(void) {
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    begin();
    struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, 0, 0, SIZE + 1);
    EXPECT(nvlx_transfer(bench.engine, &op, 1, NULL, &request) == NVLX_ERANGE);
    EXPECT(nvlx_prepare(bench.engine, &op, 1, NULL, &prepared) == NVLX_ERANGE);
    op.opcode = 77;
    EXPECT(nvlx_transfer(bench.engine, &op, 1, NULL, &request) == NVLX_EINVAL);
    EXPECT(nvlx_transfer(NULL, &op, 1, NULL, &request) == NVLX_EINVAL);
    EXPECT(nvlx_post(NULL, NULL, &request) == NVLX_EINVAL);
    EQUAL(3, counts_of(NULL).refused);
    char *text = text_of(bench.engine);
    EQUAL(2, sample(text, "nvlxfer_calls_refused_total{code=\"ERANGE\"} "));
    EQUAL(1, sample(text, "nvlxfer_calls_refused_total{code=\"EINVAL\"} "));
    EQUAL(0, sample(text, "nvlxfer_calls_refused_total{code=\"EBUSY\"} "));
    free(text);
    bench_end(&bench);
}

/* ---- Mappings ------------------------------------------------------------------------------------------ */

static void mappings_come_and_go(void) {
    begin();
    move(bench.engine, NVLX_OP_READ, bench.peer, bench.local[0], bench.remote[0], 10);
    move(bench.engine, NVLX_OP_READ, bench.peer, bench.local[1], bench.remote[1], 10);
    struct nvlx_counts counts = counts_of(bench.peer);
    EQUAL(2, counts.mappings_opened);
    EQUAL(0, counts.mappings_closed + counts.mappings_failed + counts.mappings_revoked);
    EQUAL(0, owner_unregister(&bench.owner, 1));
    bench_open_peer(&bench);
    expect_mappings(bench.engine, 1);
    counts = counts_of(bench.peer);
    EQUAL(1, counts.mappings_revoked);
    EQUAL(1, counts.mappings_closed);
    char *text = text_of(bench.engine);
    EQUAL(2, sample(text, "nvlxfer_map_seconds_count "));
    free(text);
    OK(nvlx_peer_close(bench.peer));
    counts = counts_of(NULL);
    EQUAL(2, counts.mappings_closed);
    EQUAL(1, counts.mappings_revoked);
    bench_end(&bench);
}

/* ---- Peers --------------------------------------------------------------------------------------------- */

/* Another peer, with the same memory: only its engine's id is another. */
static struct nvlx_peer *open_as(const char *text, unsigned number) {
    char id[40];
    snprintf(id, sizeof id, "%032x", number);
    char *other = with_field(text, "engine", id);
    struct nvlx_peer *peer = open_peer(bench.engine, other);
    free(other);
    return peer;
}

/* Each peer's own bytes, also in one list, as long as their GPUs are others. */
static void two_peers_in_one_list(void) {
    begin();
    char *text = owner_export(&bench.owner);
    struct nvlx_peer *second = open_as(text, 1);
    struct nvlx_op ops[] = {bench_op(&bench, NVLX_OP_READ, 0, 0, 0, 100), bench_op(&bench, NVLX_OP_READ, 1, 0, 0, 30)};
    ops[1].peer = second;
    run(ops, 2, NVLX_MECHANISM_COPY_ENGINE);
    EQUAL(100, counts_of(bench.peer).engine_read_bytes);
    EQUAL(30, counts_of(second).engine_read_bytes);
    EQUAL(1, counts_of(second).transfers);
    EQUAL(1, counts_of(NULL).transfers);
    ops[1] = ops[0];
    ops[1].peer = second;
    ops[1].local = (char *)ops[1].local + 1000;
    run(ops, 2, NVLX_MECHANISM_COPY_ENGINE);
    EQUAL(100, counts_of(bench.peer).engine_read_bytes);
    EQUAL(2, counts_of(bench.peer).transfers);
    EQUAL(330, counts_of(NULL).engine_read_bytes);
    char *metrics = text_of(bench.engine);
    EQUAL(200,
          sample(metrics, "nvlxfer_transferred_bytes_total{peer=\"other\",mechanism=\"engine\",direction=\"read\"} "));
    free(metrics);
    free(text);
    bench_end(&bench);
}

/* What is counted of a peer that is closed stays in all sums, and its place is free. */
static size_t samples_of(struct nvlx_engine *engine) {
    char *text = text_of(engine);
    size_t samples = 0;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1)
        samples += *line != '#';
    free(text);
    return samples;
}

/* As src/doc/metrics.md says. */
static void there_are_so_many_lines(void) {
    begin();
    struct nvlx_engine *lone = make_engine(0);
    EQUAL(365, samples_of(lone));
    EQUAL(365 + 24, samples_of(bench.engine));
    OK(nvlx_engine_destroy(lone));
    bench_end(&bench);
}

static void many_peers_have_a_limit(void) {
    enum { PEERS = NVLXI_METRIC_PEERS + 6 };
    struct nvlx_peer *peers[PEERS];
    begin();
    char *text = owner_export(&bench.owner), *metrics = text_of(bench.engine);
    const size_t shortest = strlen(metrics);
    free(metrics);
    for (unsigned i = 0; i < PEERS; i++)
        peers[i] = open_as(text, i + 1);
    struct nvlx_counts counts = {.size = sizeof counts};
    for (unsigned i = 0; i < PEERS; i++) {
        move(bench.engine, NVLX_OP_READ, peers[i], bench.local[0], bench.remote[0], 10);
        const int code = nvlx_stats(bench.engine, peers[i], &counts);
        EQUAL(i < NVLXI_METRIC_PEERS - 1 ? 0 : NVLX_EBUSY, code);
    }
    EQUAL(10 * PEERS, counts_of(NULL).engine_read_bytes);
    metrics = text_of(bench.engine);
    const size_t longest = strlen(metrics);
    EXPECT(longest < shortest + NVLXI_METRIC_PEERS * 3000);
    EQUAL(70,
          sample(metrics, "nvlxfer_transferred_bytes_total{peer=\"other\",mechanism=\"engine\",direction=\"read\"} "));
    EQUAL(10 * PEERS, sum(metrics, "nvlxfer_transferred_bytes_total{"));
    free(metrics);
    for (unsigned i = 0; i < PEERS; i++) {
        OK(nvlx_peer_close(peers[i]));
        EQUAL(10 * PEERS, counts_of(NULL).engine_read_bytes);
    }
    metrics = text_of(bench.engine);
    EXPECT(strlen(metrics) < shortest + 200);
    EQUAL(10 * PEERS, sum(metrics, "nvlxfer_transferred_bytes_total{"));
    EQUAL(10 * (NVLXI_METRIC_PEERS - 1),
          sample(metrics, "nvlxfer_transferred_bytes_total{peer=\"closed\",mechanism=\"engine\",direction=\"read\"} "));
    free(metrics);
    struct nvlx_peer *late = open_as(text, PEERS + 1);
    EQUAL(0, counts_of(late).engine_read_bytes + counts_of(late).mappings_opened);
    free(text);
    bench_end(&bench);
}

static void peers_of_one_engine_count_together(void) {
    begin();
    char *text = owner_export(&bench.owner);
    struct nvlx_peer *again = open_peer(bench.engine, text);
    move(bench.engine, NVLX_OP_READ, again, bench.local[0], bench.remote[0], 10);
    EQUAL(10, counts_of(bench.peer).engine_read_bytes);
    OK(nvlx_peer_close(again));
    EQUAL(10, counts_of(bench.peer).engine_read_bytes);
    free(text);
    bench_end(&bench);
}

/* ---- Text ---------------------------------------------------------------------------------------------- */

static void text_fits_or_is_refused(void) {
    size_t room, length = 77;
    begin();
    char *whole = text_of(bench.engine);
    const size_t exact = strlen(whole) + 1;
    char *text = malloc(exact + 8);
    if (!text)
        FAIL("no memory for %zu bytes", exact + 8);
    memset(text, '#', exact + 8);
    OK(nvlx_stats_prometheus(bench.engine, text, exact, &length));
    EQUAL(exact - 1, length);
    EXPECT(text[exact - 1] == '\0' && text[exact] == '#' && strcmp(text, whole) == 0);
    for (room = 1; room < exact; room += exact / 50) {
        memset(text, '#', exact + 8);
        EXPECT(nvlx_stats_prometheus(bench.engine, text, room, &length) == NVLX_EINVAL);
        EXPECT(text[0] == '\0' && text[room] == '#');
        EQUAL(exact - 1, length);
    }
    text[0] = '#';
    EXPECT(nvlx_stats_prometheus(bench.engine, text, 0, &length) == NVLX_EINVAL && text[0] == '#');
    EXPECT(nvlx_stats_prometheus(bench.engine, NULL, 5, &length) == NVLX_EINVAL);
    EXPECT(nvlx_stats_prometheus(bench.engine, text, exact, NULL) == NVLX_EINVAL);
    EXPECT(nvlx_stats_prometheus(NULL, text, exact, &length) == NVLX_EINVAL);
    EXPECT(nvlx_stats(bench.engine, NULL, NULL) == NVLX_EINVAL);
    free(text);
    free(whole);
    bench_end(&bench);
}

static void label_values_are_escaped(void) {
    char text[512] = "";
    struct nvlxi_exposition e = {.text = text, .room = sizeof text};
    const struct nvlxi_label labels[] = {{"a", "@x\"y\\z\nw\xc3\xa4"}, {"b", ""}, {NULL, NULL}};
    nvlxi_expose_family(&e, "x", "gauge", "Some help.");
    nvlxi_expose(&e, "x", labels, UINT64_MAX);
    text[e.length] = '\0';
    EXPECT(strstr(text, "\nnvlxfer_x{a=\"@x\\\"y\\\\z\\nw\xc3\xa4\",b=\"\"} 18446744073709551615\n"));
    EXPECT(!check_exposition(text));
    EXPECT(check_exposition("nvlxfer_x 1\n"));                                                        /* no family */
    EXPECT(check_exposition("# HELP nvlxfer_x X.\n# TYPE nvlxfer_x gauge\nnvlxfer_x{a=\"\n\"} 1\n")); /* not escaped */
    EXPECT(check_exposition("# HELP nvlxfer_x X.\n# TYPE nvlxfer_x counter\nnvlxfer_x 1\n"));         /* no _total */
    EXPECT(check_exposition("# HELP nvlxfer_x X.\n# TYPE nvlxfer_x gauge\nnvlxfer_x 1\nnvlxfer_x 2\n")); /* twice */
}

#define HISTOGRAM "# HELP nvlxfer_h Help.\n# TYPE nvlxfer_h histogram\n"

static void histograms_are_whole(void) {
    static const char *const good[] = {
        HISTOGRAM
        "nvlxfer_h_bucket{le=\"1\"} 1\nnvlxfer_h_bucket{le=\"+Inf\"} 2\nnvlxfer_h_sum 3\nnvlxfer_h_count 2\n"};
    static const char *const bad[] = {
        HISTOGRAM "nvlxfer_h_bucket{le=\"1\"} 1\nnvlxfer_h_bucket{le=\"+Inf\"} 2\nnvlxfer_h_count 2\n",
        HISTOGRAM "nvlxfer_h_bucket{le=\"1\"} 1\nnvlxfer_h_bucket{le=\"+Inf\"} 2\nnvlxfer_h_sum 3\n",
        HISTOGRAM "nvlxfer_h_bucket{le=\"1\"} 1\nnvlxfer_h_sum 3\nnvlxfer_h_count 1\n",
        HISTOGRAM
        "nvlxfer_h_bucket{le=\"1s\"} 1\nnvlxfer_h_bucket{le=\"+Inf\"} 2\nnvlxfer_h_sum 3\nnvlxfer_h_count 2\n",
        HISTOGRAM "nvlxfer_h_bucket{le=\"2\"} 1\nnvlxfer_h_bucket{le=\"1\"} 1\nnvlxfer_h_bucket{le=\"+Inf\"} 2\n"
                  "nvlxfer_h_sum 3\nnvlxfer_h_count 2\n",
        HISTOGRAM "nvlxfer_h_bucket{le=\"+Inf\"} 2\n# HELP nvlxfer_g Help.\n# TYPE nvlxfer_g gauge\nnvlxfer_g 1\n"};
    for (size_t i = 0; i < COUNT(good); i++)
        if (check_exposition(good[i]))
            FAIL("good[%zu]: %s", i, check_exposition(good[i]));
    for (size_t i = 0; i < COUNT(bad); i++)
        if (!check_exposition(bad[i]))
            FAIL("bad[%zu] is taken", i);
}

static void buckets_are_powers_of_two(void) {
    static char text[4096];
    struct nvlxi_exposition e = {.text = text, .room = sizeof text};
    static struct nvlxi_histogram histogram;
    EQUAL(0, nvlxi_histogram_bucket(0));
    EQUAL(0, nvlxi_histogram_bucket(1024));
    EQUAL(1, nvlxi_histogram_bucket(1025));
    EQUAL(1, nvlxi_histogram_bucket(2048));
    EQUAL(2, nvlxi_histogram_bucket(2049));
    EQUAL(NVLXI_METRIC_BUCKETS - 1, nvlxi_histogram_bucket(UINT64_C(1) << 34));
    EQUAL(NVLXI_METRIC_BUCKETS, nvlxi_histogram_bucket((UINT64_C(1) << 34) + 1));
    EQUAL(NVLXI_METRIC_BUCKETS, nvlxi_histogram_bucket(UINT64_MAX));
    nvlxi_histogram_count(&histogram, 2048);
    nvlxi_histogram_count(&histogram, 2049);
    nvlxi_histogram_count(&histogram, UINT64_C(20000000000));
    nvlxi_expose_family(&e, "x", "histogram", "Some help.");
    nvlxi_expose_histogram(&e, "x", NULL, &histogram);
    text[e.length] = '\0';
    EXPECT(!check_exposition(text));
    EXPECT(strstr(text, "\nnvlxfer_x_bucket{le=\"0.000001024\"} 0\nnvlxfer_x_bucket{le=\"0.000002048\"} 1\n"
                        "nvlxfer_x_bucket{le=\"0.000004096\"} 2\n"));
    EXPECT(strstr(text, "\nnvlxfer_x_bucket{le=\"17.179869184\"} 2\nnvlxfer_x_bucket{le=\"+Inf\"} 3\n"
                        "nvlxfer_x_sum 20.000004097\nnvlxfer_x_count 3\n"));
}

/* ---- Threads ------------------------------------------------------------------------------------------- */

enum { MOVES = 200, MOVERS = 3 };
static atomic_int moving;

static void *move_often(void *argument) {
    const size_t at = *(const size_t *)argument;
    const struct nvlx_op op = bench_op(&bench, NVLX_OP_READ, 0, at, at, 100);
    for (int i = 0; i < MOVES; i++)
        finish(start(bench.engine, &op, 1));
    atomic_fetch_sub(&moving, 1);
    return NULL;
}

/* Nothing is lost when many threads transfer, while others read and peers come and go. */
static void threads_count_exactly(void) {
    static size_t places[MOVERS] = {0, 4096, 8192};
    pthread_t threads[MOVERS];
    uint64_t before = 0;
    begin();
    char *text = owner_export(&bench.owner);
    atomic_store(&moving, MOVERS);
    for (int i = 0; i < MOVERS; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, move_often, &places[i]));
    while (atomic_load(&moving)) {
        struct nvlx_peer *peer = open_as(text, 5);
        free(text_of(bench.engine));
        const uint64_t now = counts_of(NULL).transfers;
        EXPECT(now >= before);
        before = now;
        OK(nvlx_peer_close(peer));
    }
    for (int i = 0; i < MOVERS; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    EQUAL(MOVES * MOVERS, counts_of(NULL).transfers);
    EQUAL(MOVES * MOVERS * 100, counts_of(bench.peer).engine_read_bytes);
    free(text);
    bench_end(&bench);
}

/* Prometheus' own check, where it is there: of Debian's package prometheus. It complains by its exit code. */
static void promtool_agrees(void) {
    if (system("promtool --version >/dev/null 2>&1")) {
        puts("promtool is not here: our own check alone");
        return;
    }
    begin();
    move(bench.engine, NVLX_OP_READ, bench.peer, bench.local[0], bench.remote[0], 10);
    char *text = text_of(bench.engine);
    FILE *promtool = popen("promtool check metrics", "w");
    EXPECT(promtool && fputs(text, promtool) >= 0);
    EQUAL(0, pclose(promtool));
    free(text);
    bench_end(&bench);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"bytes_by_mechanism_and_direction", bytes_by_mechanism_and_direction},
                                        {"posts_and_blocks", posts_and_blocks},
                                        {"refusals_by_code", refusals_by_code},
                                        {"mappings_come_and_go", mappings_come_and_go},
                                        {"two_peers_in_one_list", two_peers_in_one_list},
                                        {"there_are_so_many_lines", there_are_so_many_lines},
                                        {"many_peers_have_a_limit", many_peers_have_a_limit},
                                        {"peers_of_one_engine_count_together", peers_of_one_engine_count_together},
                                        {"text_fits_or_is_refused", text_fits_or_is_refused},
                                        {"label_values_are_escaped", label_values_are_escaped},
                                        {"promtool_agrees", promtool_agrees},
                                        {"buckets_are_powers_of_two", buckets_are_powers_of_two},
                                        {"histograms_are_whole", histograms_are_whole},
                                        {"threads_count_exactly", threads_count_exactly},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
