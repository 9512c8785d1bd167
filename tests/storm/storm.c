/* Processes that share, read, write, withdraw, free, stop and crash at random, while every byte is checked.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * storm --processes N --seconds S --seed K [--backend host|cuda] [--gpus 0,1]
 *
 * The judge (judge.h) starts N processes (worker.h), which share what they know by the board (board.h), and whose bytes
 * tell where they come from (content.h). At the end it looks whether anything is left. The last line counts what was
 * done and what was wrong; exit code 0: nothing was. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "judge.h"
#include "storm/actions/content.h"
#include "worker.h"

#define MS       UINT64_C(1000000)
#define FREED_MS 10000 /* in which GPU memory of ended processes is free again, and others in /dev/shm have ended */

struct options {
    unsigned processes, seconds;
    uint64_t seed;
    bool cuda;
    int gpus[2];
};

/* ---- Options ------------------------------------------------------------------------------------------- */

static const char usage[] =
    "storm --processes N --seconds S --seed K [--backend host|cuda] [--gpus 0,1]\n"
    "Lets N processes share, transfer, withdraw, stop and crash at random for S seconds, and checks every byte.\n"
    "The same seed gives the same choices. Exit code 0: nothing was wrong.\n";

static uint64_t parse_number(const char *text, uint64_t least, uint64_t most) {
    char *end;
    errno = 0;
    const uint64_t value = strtoull(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most) {
        fprintf(stderr, "storm: %s is no number from %" PRIu64 " to %" PRIu64 "\n%s", text, least, most, usage);
        exit(2);
    }
    return value;
}

static void parse_gpus(const char *text, int gpus[2]) {
    char rest;
    if (sscanf(text, "%d,%d%c", &gpus[0], &gpus[1], &rest) != 2 || gpus[0] < 0 || gpus[1] < 0) {
        fprintf(stderr, "storm: --gpus wants two numbers, such as 0,1\n%s", usage);
        exit(2);
    }
}

static bool parse_backend(const char *text) {
    if (strcmp(text, "host") != 0 && strcmp(text, "cuda") != 0) {
        fprintf(stderr, "storm: --backend is host or cuda\n%s", usage);
        exit(2);
    }
    return strcmp(text, "cuda") == 0;
}

static struct options parse(int argc, char **argv) {
    static const struct option known[] = {{"processes", required_argument, NULL, 'p'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"seed", required_argument, NULL, 'k'},
                                          {"backend", required_argument, NULL, 'b'},
                                          {"gpus", required_argument, NULL, 'g'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options options = {.processes = 8, .seconds = 10, .seed = 1, .gpus = {0, 1}};
    for (int option; (option = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        switch (option) {
        case 'p':
            options.processes = (unsigned)parse_number(optarg, 1, PROCESSES_MAX);
            break;
        case 's':
            options.seconds = (unsigned)parse_number(optarg, 1, 86400);
            break;
        case 'k':
            options.seed = parse_number(optarg, 0, UINT64_MAX);
            break;
        case 'b':
            options.cuda = parse_backend(optarg);
            break;
        case 'g':
            parse_gpus(optarg, options.gpus);
            break;
        default:
            fputs(usage, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    return options;
}

/* ---- What is left -------------------------------------------------------------------------------------- */

struct left {
    size_t files, shared_memory, sockets;
    uint64_t gpu_mib[2];
};

static size_t count_in(const char *path) {
    DIR *folder = opendir(path);
    size_t count = 0;
    for (const struct dirent *entry; folder && (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return count;
}

/* By the driver's own tool: this process itself must not use the GPUs. */
static uint64_t gpu_mib(int gpu) {
    char command[128], text[64] = "";
    snprintf(command, sizeof command, "nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i %d", gpu);
    FILE *tool = popen(command, "re"); /* NOLINT(cert-env33-c): a test */
    if (!tool || !fgets(text, sizeof text, tool))
        FAIL("nvidia-smi does not tell how much memory of GPU %d is used", gpu);
    pclose(tool);
    return strtoull(text, NULL, 10);
}

static struct left look_around(const struct board *board) {
    struct left left = {
        .files = count_in("/proc/self/fd"), .shared_memory = count_in("/dev/shm"), .sockets = count_in(board->folder)};
    for (int i = 0; i < 2 && board->cuda; i++)
        left.gpu_mib[i] = gpu_mib(board->gpus[i]);
    return left;
}

/* Of a GPU's memory, less may be used: others end, too. */
static bool is_as_before(const struct left *now, const struct left *before) {
    return now->gpu_mib[0] <= before->gpu_mib[0] && now->gpu_mib[1] <= before->gpu_mib[1] &&
           now->shared_memory == before->shared_memory;
}

/* Returns how many things are. `at_end`: what there was when it looked last. */
static uint64_t find_leftovers(struct board *board, const struct left *before, struct left *at_end) {
    const uint64_t already = atomic_load(&board->wrong);
    struct left now = look_around(board);
    for (uint64_t since = now_ns(); !is_as_before(&now, before) && now_ns() - since < FREED_MS * MS;) {
        usleep(100000);
        now = look_around(board);
    }
    *at_end = now;
    if (now.files != before->files)
        board_wrong(board, "the judge has %zu files open, %zu before", now.files, before->files);
    if (now.shared_memory != before->shared_memory)
        board_wrong(board, "/dev/shm has %zu files, %zu before", now.shared_memory, before->shared_memory);
    if (now.sockets)
        board_wrong(board, "%zu files are left in %s", now.sockets, board->folder);
    for (int i = 0; i < 2; i++)
        if (now.gpu_mib[i] > before->gpu_mib[i])
            board_wrong(board, "of GPU %d %" PRIu64 " MiB are used, %" PRIu64 " before", board->gpus[i], now.gpu_mib[i],
                        before->gpu_mib[i]);
    if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD)
        board_wrong(board, "there are processes left");
    return atomic_load(&board->wrong) - already;
}

/* ---- All of it ----------------------------------------------------------------------------------------- */

static struct board *make_board(const struct options *options, int *file) {
    struct board *board = board_make(file);
    board->seed = options->seed;
    board->processes = options->processes;
    board->cuda = options->cuda;
    memcpy(board->gpus, options->gpus, sizeof board->gpus);
    snprintf(board->folder, sizeof board->folder, "/tmp/nvlxfer-storm.XXXXXX");
    if (!mkdtemp(board->folder))
        FAIL("cannot make a folder in /tmp: %s", strerror(errno));
    return board;
}

static uint64_t sum_of(const struct board *board, enum counter counter) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < board->processes; i++)
        sum += atomic_load(&board->places[i].counts[counter]);
    return sum;
}

static uint64_t slowest_of(const struct board *board) {
    uint64_t slowest = 0;
    for (unsigned i = 0; i < board->processes; i++)
        if (atomic_load(&board->places[i].slowest) > slowest)
            slowest = atomic_load(&board->places[i].slowest);
    return slowest;
}

static uint64_t steps_of(const struct board *board) {
    uint64_t steps = 0;
    for (unsigned i = 0; i < board->processes; i++)
        steps += atomic_load(&board->places[i].steps);
    return steps;
}

/* One line. */
static void print_counts(const struct judge *judge, uint64_t left, const struct left *before, const struct left *now) {
    static const char *const names[] = {
#define COUNTER_TEXT(name, text) text,
        COUNTERS(COUNTER_TEXT)
#undef COUNTER_TEXT
    };
    const struct board *board = judge->board;
    printf("storm: seed %" PRIu64 ": %" PRIu64 " kills, %" PRIu64 " stops, %" PRIu64 " lives, %" PRIu64
           " steps, %" PRIu64 " verified transfers",
           board->seed, judge->kills + judge->crashes, judge->stops, judge->lives, steps_of(board),
           sum_of(board, COUNT_reads) + sum_of(board, COUNT_writes));
    for (int i = 0; i < COUNTERS_END; i++)
        printf(", %" PRIu64 " %s", sum_of(board, (enum counter)i), names[i]);
    printf("; the slowest unregister took %" PRIu64 " ms", slowest_of(board) / MS);
    for (int i = 0; i < 2 && board->cuda; i++)
        printf("; of GPU %d %" PRIu64 " MiB were used before, %" PRIu64 " MiB at the end", board->gpus[i],
               before->gpu_mib[i], now->gpu_mib[i]);
    printf("; %" PRIu64 " wrong, %" PRIu64 " hangs, %" PRIu64 " left\n", (uint64_t)atomic_load(&board->wrong),
           judge->hangs, left);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{"process", worker_role}, {NULL, NULL}};
    struct judge judge = {.kills = 0};
    begin_process(argc, argv, roles, 0);
    const struct options options = parse(argc, argv);
    judge.board = make_board(&options, &judge.file);
    judge.random = hash_of(options.seed, UINT64_MAX);
    judge.kill_pause = (options.cuda ? 1200 : sanitized() ? 500 : 190) * MS;
    judge.stop_pause = (options.cuda ? 3000 : 300) * MS;
    judge.hang = (uint64_t)HANG_NS + 30 * (uint64_t)SECOND_NS;
    const struct left before = look_around(judge.board);
    struct left at_end;
    judge_begin(&judge);
    judge_run(&judge, now_ns() + options.seconds * 1000 * MS);
    judge_end(&judge);
    const uint64_t left = find_leftovers(judge.board, &before, &at_end);
    rmdir(judge.board->folder);
    print_counts(&judge, left, &before, &at_end);
    return atomic_load(&judge.board->wrong) ? 1 : 0;
}
