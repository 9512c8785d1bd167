/* Weights from one process to many: a source and readers, each of which passes on what it has (nvlx_relay_offer).
 *
 * The source is on GPU 0, reader i on GPU (i + 1) mod the number of GPUs. There may be more processes than GPUs. Each
 * round is a generation of new bytes, of which all readers check 16 MiB. Then the same readers read from the source
 * alone, all at a time, for comparison. With --kill the last round loses a reader half-way.
 *
 *     relay [--readers 3] [--mib 8192] [--piece-mib N] [--rounds 5] [--kill READER] [--backend cuda|host]
 *
 * Each of the processes takes so many MiB, on the host backend of the machine's memory: there 64 are the default. It
 * prints a line a round, and the medians. It uses only the public header. Exit: 0 all bytes are right, 1 some are not,
 * a call failed, or a process has ended.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <getopt.h>
#include <nvlxfer.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB         ((size_t)1 << 20)
#define READERS_MAX 16
#define ROUNDS_MAX  100
#define CHECKED     16 /* blocks of 1 MiB that change with each round, and are looked at */
#define PATIENCE_NS INT64_C(60000000000)

static struct {
    int readers, rounds, kill;
    size_t bytes, piece; /* bytes 0: as the backend is */
    uint32_t backend;
    char address[64];
} arguments = {.readers = 3, .rounds = 5, .kill = -1, .backend = NVLX_BACKEND_AUTO};

static const char *name = "relay"; /* of the process */

static void check(int code, const char *what) {
    if (code) {
        fprintf(stderr, "%s: %s: %s: %s\n", name, what, nvlx_strerror(code), nvlx_last_error());
        exit(1);
    }
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* ---- A child: the source, or a reader -------------------------------------------------------------------- */

enum order { READY, AWAIT, CHANGE, PLAIN, LOOK, END };

struct answer {
    double begin_ms, end_ms; /* of what was to be done */
    struct nvlx_relay_info info;
    size_t bytes;
};

struct member {
    struct nvlx_engine *engine;
    struct nvlx_relay *relay;
    struct nvlx_relay_part part;
    char *block; /* 1 MiB of this process, to fill and to check */
    bool is_source;
    uint64_t round;
};

static void make_member(struct member *member, int number) {
    struct nvlx_config config;
    int gpus, gpu;
    void *memory;
    check(nvlx_gpu_count(arguments.backend, &gpus), "nvlx_gpu_count");
    gpu = number % gpus;
    nvlx_config_init(&config);
    config.backend = arguments.backend;
    config.gpus = &gpu;
    config.gpu_count = 1;
    check(nvlx_engine_create(&config, &member->engine), "nvlx_engine_create");
    if (!arguments.bytes)
        arguments.bytes = strcmp(nvlx_backend_name(member->engine), "host") ? 8192 * MIB : 64 * MIB;
    check(nvlx_alloc(member->engine, gpu, arguments.bytes, NULL, &memory), "nvlx_alloc");
    member->part = (struct nvlx_relay_part){.name = "weights", .address = memory, .length = arguments.bytes};
    member->block = malloc(MIB);
    member->is_source = number == 0;
    if (!member->block)
        exit(1);
}

static char *block_at(const struct member *member, size_t i) {
    return (char *)member->part.address + (arguments.bytes / MIB - 1) * i / (CHECKED - 1) * MIB;
}

static void make_block(const struct member *member, size_t i) {
    for (size_t k = 0; k < MIB; k += sizeof(uint64_t)) {
        const uint64_t word = (member->round * CHECKED + i) * 0x9e3779b97f4a7c15u + k;
        memcpy(member->block + k, &word, sizeof word);
    }
}

/* The source's new bytes; what is between the blocks stays. */
static void change(const struct member *member) {
    for (size_t i = 0; i < CHECKED; i++) {
        make_block(member, i);
        check(nvlx_memcpy(member->engine, block_at(member, i), member->block, MIB), "nvlx_memcpy");
    }
}

static void look(const struct member *member) {
    char *seen = malloc(MIB);
    if (!seen)
        exit(1);
    for (size_t i = 0; i < CHECKED; i++) {
        make_block(member, i);
        check(nvlx_memcpy(member->engine, seen, block_at(member, i), MIB), "nvlx_memcpy");
        if (memcmp(seen, member->block, MIB)) {
            fprintf(stderr, "%s: wrong bytes in block %zu of round %llu\n", name, i, (unsigned long long)member->round);
            exit(1);
        }
    }
    free(seen);
}

static void begin_relay(struct member *member) {
    struct nvlx_relay_options options;
    nvlx_relay_options_init(&options);
    options.piece_bytes = arguments.piece;
    options.readers = (uint32_t)arguments.readers;
    if (member->is_source)
        check(nvlx_relay_offer(member->engine, arguments.address, &member->part, 1, &options, &member->relay),
              "nvlx_relay_offer");
    else
        check(
            nvlx_relay_join(member->engine, arguments.address, &member->part, 1, &options, PATIENCE_NS, &member->relay),
            "nvlx_relay_join");
}

/* A reader that takes all from the source, without a relay. */
static void read_plainly(struct member *member, struct answer *answer) {
    static struct nvlx_region *region;
    static struct nvlx_op op = {.opcode = NVLX_OP_READ};
    struct nvlx_region_options options;
    struct nvlx_request *request;
    if (!region) {
        nvlx_region_options_init(&options);
        options.access = NVLX_ACCESS_NONE;
        check(nvlx_register(member->engine, member->part.address, arguments.bytes, &options, &region), "nvlx_register");
        check(nvlx_connect(member->engine, arguments.address, PATIENCE_NS, &op.peer), "nvlx_connect");
        check(nvlx_peer_find(op.peer, "weights", &op.remote, &op.length), "nvlx_peer_find");
        op.local = member->part.address;
    }
    answer->begin_ms = now_ms();
    check(nvlx_transfer(member->engine, &op, 1, NULL, &request), "nvlx_transfer");
    check(nvlx_wait(request, -1), "nvlx_wait");
    answer->end_ms = now_ms();
    check(nvlx_request_free(request), "nvlx_request_free");
}

static void obey(struct member *member, enum order order, struct answer *answer) {
    if (order == READY && member->round++) {
        if (member->is_source) {
            check(nvlx_relay_wait(member->relay, PATIENCE_NS), "nvlx_relay_wait");
            check(nvlx_relay_hold(member->relay), "nvlx_relay_hold");
        } else {
            check(nvlx_relay_next(member->relay), "nvlx_relay_next");
        }
    }
    if (order == READY && member->is_source)
        change(member);
    if (order == CHANGE) {
        answer->begin_ms = now_ms();
        if (member->relay)
            check(nvlx_relay_next(member->relay), "nvlx_relay_next");
        else
            begin_relay(member);
    }
    if (order == AWAIT) {
        if (!member->relay)
            begin_relay(member);
        check(nvlx_relay_wait(member->relay, PATIENCE_NS), "nvlx_relay_wait");
        answer->end_ms = now_ms();
        answer->info.size = sizeof answer->info;
        check(nvlx_relay_get_info(member->relay, &answer->info), "nvlx_relay_get_info");
    }
    if (order == PLAIN)
        read_plainly(member, answer);
    if (order == LOOK)
        look(member);
}

static void run_child(int number, int socket) {
    static char own_name[24];
    struct member member = {0};
    enum order order;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(own_name, sizeof own_name, number ? "reader %d" : "source", number);
    name = own_name;
    make_member(&member, number);
    while (recv(socket, &order, sizeof order, 0) == sizeof order && order != END) {
        struct answer answer = {.bytes = arguments.bytes};
        obey(&member, order, &answer);
        if (send(socket, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer)
            exit(1);
    }
    check(nvlx_relay_free(member.relay, PATIENCE_NS), "nvlx_relay_free");
    check(nvlx_engine_destroy(member.engine), "nvlx_engine_destroy");
    exit(0);
}

/* ---- The parent, which uses no GPU ----------------------------------------------------------------------- */

static struct child {
    pid_t pid;
    int socket;
} children[READERS_MAX + 1]; /* the first is the source */

static void start_children(void) {
    for (int i = 0; i <= arguments.readers; i++) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
            exit(1);
        children[i] = (struct child){.pid = fork(), .socket = ends[0]};
        if (!children[i].pid)
            run_child(i, ends[1]);
        close(ends[1]);
    }
}

/* Ends the program, as a process has ended: it has said why, or was killed. */
static void fail_ended(int child) {
    int status = 0;
    waitpid(children[child].pid, &status, 0);
    if (WIFSIGNALED(status))
        fprintf(stderr, "relay: process %d was ended by signal %d (%s)\n", child, WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    exit(1);
}

static void give(int child, enum order order) {
    if (send(children[child].socket, &order, sizeof order, MSG_NOSIGNAL) != sizeof order)
        fail_ended(child);
}

static struct answer take(int child) {
    struct answer answer;
    if (recv(children[child].socket, &answer, sizeof answer, 0) != sizeof answer)
        fail_ended(child);
    arguments.bytes = answer.bytes;
    return answer;
}

static void all(enum order order, int from) {
    for (int i = from; i <= arguments.readers; i++)
        if (children[i].pid)
            give(i, order);
    for (int i = from; i <= arguments.readers; i++)
        if (children[i].pid)
            take(i);
}

static double rate(double ms) {
    return (double)arguments.bytes / ms / 1e6;
}

/* The milliseconds until the last reader had all, and knew that it is right. */
static double relay_round(int round, int killed, double kill_after_ms) {
    double begin, last = 0;
    all(READY, 0);
    for (int i = 1; i <= arguments.readers; i++)
        give(i, AWAIT);
    if (round)
        usleep(20000); /* they wait */
    give(0, CHANGE);
    begin = take(0).begin_ms;
    if (killed) {
        while (now_ms() - begin < kill_after_ms) {
        }
        kill(children[killed].pid, SIGKILL);
        waitpid(children[killed].pid, NULL, 0);
        children[killed].pid = 0;
    }
    printf("%s %d:", killed ? "relay, one killed" : "relay", round);
    for (int i = 1; i <= arguments.readers; i++) {
        if (!children[i].pid)
            continue;
        const struct answer answer = take(i);
        const double ms = answer.end_ms - begin;
        const char *parent = strrchr(answer.info.parent, '.');
        printf("  reader %d %.2f ms (%.1f GB/s, parents %d, now %.5s)", i, ms, rate(ms), (int)answer.info.parents,
               parent ? parent + 1 : "source");
        last = ms > last ? ms : last;
    }
    printf("  last %.1f GB/s\n", rate(last));
    fflush(stdout);
    all(LOOK, 1);
    return last;
}

static double plain_round(int round) {
    double begin = 1e300, last = 0;
    for (int i = 1; i <= arguments.readers; i++)
        give(i, PLAIN);
    printf("plain %d:", round);
    for (int i = 1; i <= arguments.readers; i++) {
        const struct answer answer = take(i);
        begin = answer.begin_ms < begin ? answer.begin_ms : begin;
        last = answer.end_ms > last ? answer.end_ms : last;
        printf("  reader %d %.1f GB/s", i, rate(answer.end_ms - answer.begin_ms));
    }
    printf("  last %.1f GB/s\n", rate(last - begin));
    fflush(stdout);
    return last - begin;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *ms, int count) {
    qsort(ms, (size_t)count, sizeof *ms, compare);
    return (ms[(count - 1) / 2] + ms[count / 2]) / 2;
}

static void read_arguments(int argc, char **argv) {
    static const struct option options[] = {{"readers", required_argument, NULL, 'r'},
                                            {"mib", required_argument, NULL, 'm'},
                                            {"piece-mib", required_argument, NULL, 'p'},
                                            {"rounds", required_argument, NULL, 'n'},
                                            {"kill", required_argument, NULL, 'k'},
                                            {"backend", required_argument, NULL, 'b'},
                                            {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        char *end = NULL;
        const long number = option == 'b' || !optarg ? 0 : strtol(optarg, &end, 10);
        if (end && (end == optarg || *end || number < 1 || number > 1 << 20)) {
            fprintf(stderr, "relay: %s is no number from 1 to %d\n", optarg, 1 << 20);
            exit(1);
        }
        switch (option) {
        case 'r':
            arguments.readers = (int)number;
            break;
        case 'm':
            arguments.bytes = (size_t)number * MIB;
            break;
        case 'p':
            arguments.piece = (size_t)number * MIB;
            break;
        case 'n':
            arguments.rounds = (int)number;
            break;
        case 'k':
            arguments.kill = (int)number;
            break;
        case 'b':
            arguments.backend = !strcmp(optarg, "host") ? NVLX_BACKEND_HOST : NVLX_BACKEND_CUDA;
            if (arguments.backend == NVLX_BACKEND_CUDA && strcmp(optarg, "cuda") != 0) {
                fprintf(stderr, "relay: %s is no backend: cuda or host\n", optarg);
                exit(1);
            }
            break;
        default:
            exit(1);
        }
    }
    if (arguments.readers < 1 || arguments.readers > READERS_MAX || arguments.rounds < 1 ||
        arguments.rounds > ROUNDS_MAX || (arguments.bytes && arguments.bytes < CHECKED * MIB) ||
        arguments.kill > arguments.readers) {
        fprintf(stderr, "relay: 1 to %d readers, 1 to %d rounds, at least %d MiB, and --kill one of the readers\n",
                READERS_MAX, ROUNDS_MAX, CHECKED);
        exit(1);
    }
}

int main(int argc, char **argv) {
    double relay[ROUNDS_MAX] = {0}, plain[ROUNDS_MAX] = {0};
    int failed = 0;
    read_arguments(argc, argv);
    snprintf(arguments.address, sizeof arguments.address, "@relay-%d", (int)getpid());
    start_children();
    relay_round(0, 0, 0); /* opens all that is mapped */
    for (int i = 0; i < arguments.rounds; i++)
        relay[i] = relay_round(i + 1, 0, 0);
    plain_round(0);
    for (int i = 0; i < arguments.rounds; i++)
        plain[i] = plain_round(i + 1);
    const double usual = median(relay, arguments.rounds), simple = median(plain, arguments.rounds);
    printf("median at the last reader: relay %.1f GB/s, %d plain readers %.1f GB/s, %.2f times as fast\n", rate(usual),
           arguments.readers, rate(simple), simple / usual);
    if (arguments.kill > 0) {
        const double ms = relay_round(arguments.rounds + 1, arguments.kill, usual / 2);
        printf("reader %d killed half-way: the others %.1f ms later than the median\n", arguments.kill, ms - usual);
    }
    for (int i = arguments.readers; i >= 0; i--)
        if (children[i].pid)
            give(i, END);
    for (int i = arguments.readers; i >= 0; i--) {
        int status = 0;
        failed |= children[i].pid && (waitpid(children[i].pid, &status, 0) < 0 || status);
    }
    return failed ? 1 : 0;
}
