/* nvlx_perf --peers: several processes, each on a GPU of its own, that move lists at the same time: all from all, one
 * from all, all from one. SPDX-License-Identifier: Apache-2.0
 *
 * Half of each process's memory is read (or, of writes, written from); the other half has a place for each peer. All
 * begin at a time that is agreed upon: a rate is what was moved until the last one was done. Each cell is moved once
 * more, into memory that is filled anew, and every byte is compared. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "perf.h"

#define TEXT_MAX ((size_t)64 << 10) /* of a descriptor with one region */
#define AHEAD_NS UINT64_C(10000000) /* from when a round is agreed upon to when it begins */
#define WAIT_NS  INT64_C(120000000000)
#define BEHIND   UINT64_C(4096)
#define WINDOW   ((uint64_t)16 << 20) /* that is compared at a time */

enum scene { ALL_FROM_ALL, ONE_FROM_ALL, ALL_FROM_ONE, SCENES };
enum form { ONE_CALL, IN_TURNS, PREPARED, FORMS };
static const char *const scene_names[] = {"All processes, each with all others", "The first process with all others",
                                          "All others with the first process"};

struct member { /* a process */
    uint64_t index;
    struct perf_end end;
    struct nvlx_peer *peers[PERF_PEERS_MAX];
    uint64_t remote[PERF_PEERS_MAX];
    struct nvlx_op *ops;
    size_t count;
    struct nvlx_prepared *prepared;
};

static struct shared {
    struct perf_options options;
    void (*command)(struct member *member); /* at the same place in all: they are forks */
    enum scene scene;
    enum form form;
    uint64_t fragment, each, start, seed; /* each: fragments of one peer's */
    bool host;
    sem_t answered;
    struct seat {
        sem_t commanded;
        uint64_t bytes, done, wrong; /* done: nanoseconds from `start` on */
        size_t length;
        char text[TEXT_MAX];
    } seats[PERF_PEERS_MAX];
} * shared;

static pid_t processes[PERF_PEERS_MAX];

/* ---- A process: its list ---------------------------------------------------------------------------------- */

static bool moves(uint64_t index, uint64_t peer) {
    return index != peer && (shared->scene != ONE_FROM_ALL || index == 0) &&
           (shared->scene != ALL_FROM_ONE || peer == 0);
}

/* The place that a process has in a peer's second half, or in its own for that peer. */
static uint64_t place_of(uint64_t index) {
    const uint64_t half = shared->options.arena / 2;
    return half + index * (half / shared->options.peers / 4096 * 4096);
}

/* Where fragment `i` of a list with a peer is read from: every slot once, in an order that jumps. */
static uint64_t source_of(uint64_t i) {
    static const uint64_t primes[] = {7919, 7927};
    const uint64_t prime = primes[shared->each % primes[0] == 0];
    return i * prime % shared->each * shared->fragment;
}

static void add_op(struct member *m, uint64_t peer, uint64_t i) {
    const bool read = shared->options.op == NVLX_OP_READ;
    const uint64_t from = source_of(i), to = place_of(read ? peer : m->index) + i * shared->fragment;
    m->ops[m->count++] = (struct nvlx_op){.opcode = shared->options.op,
                                          .peer = m->peers[peer],
                                          .local = m->end.memory + (read ? to : from),
                                          .remote = m->remote[peer] + (read ? from : to),
                                          .length = shared->fragment};
}

/* Peer after peer in the order of their numbers, or a fragment of each in turn. */
static void make_list(struct member *m) {
    const uint64_t peers = shared->options.peers, each = shared->each, all = each * peers;
    const bool turns = shared->form == IN_TURNS;
    free(m->ops);
    m->ops = perf_alloc(all, sizeof *m->ops);
    m->count = 0;
    for (uint64_t n = 0; n < all; n++) {
        const uint64_t peer = turns ? n % peers : n / each;
        if (moves(m->index, peer))
            add_op(m, peer, turns ? n / peers : n % each);
    }
    shared->seats[m->index].bytes = m->count * shared->fragment;
}

static struct nvlx_transfer_options how(void) {
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = shared->options.mechanism;
    options.max_sms = (uint32_t)shared->options.budgets[0];
    options.priority = (int32_t)shared->options.priority;
    return options;
}

static void drop_list(struct member *m) {
    perf_check(nvlx_prepared_free(m->prepared), "nvlx_prepared_free");
    m->prepared = NULL;
}

static void take_list(struct member *m) {
    const struct nvlx_transfer_options options = how();
    make_list(m);
    if (shared->form == PREPARED && m->count)
        perf_check(nvlx_prepare(m->end.engine, m->ops, m->count, &options, &m->prepared), "nvlx_prepare");
}

static void move(struct member *m) {
    const struct nvlx_transfer_options options = how();
    struct nvlx_request *request;
    shared->seats[m->index].done = 0;
    if (!m->count)
        return;
    while (clock_now_ns() < shared->start) {
    }
    perf_check(m->prepared ? nvlx_post(m->prepared, NULL, &request)
                           : nvlx_transfer(m->end.engine, m->ops, m->count, &options, &request),
               m->prepared ? "nvlx_post" : "nvlx_transfer");
    perf_check(nvlx_wait(request, WAIT_NS), "nvlx_wait");
    shared->seats[m->index].done = clock_now_ns() - shared->start;
    perf_check(nvlx_request_free(request), "nvlx_request_free");
}

/* ---- A process: its bytes --------------------------------------------------------------------------------- */

static void fill(struct member *m) {
    m->end.backend->fill(&m->end, shared->seed + m->index);
}

static uint64_t count_wrong(const unsigned char *bytes, uint64_t length, uint64_t seed, uint64_t offset) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < length; i += 8) {
        const uint64_t expected = perf_word(seed, (offset + i) / 8);
        if (memcmp(&expected, bytes + i, 8))
            for (uint64_t j = 0; j < 8; j++)
                wrong += bytes[i + j] != perf_byte(seed, offset + i + j);
    }
    return wrong;
}

/* What stands in the place for a peer at [at, at + length), and what should. */
static uint64_t compare_place(const struct member *m, uint64_t peer, uint64_t at, uint64_t length,
                              unsigned char *bytes) {
    const uint64_t fragment = shared->fragment, from = place_of(peer) + at;
    const bool arrived = shared->options.op == NVLX_OP_READ ? moves(m->index, peer) : moves(peer, m->index);
    uint64_t wrong = 0;
    perf_check(nvlx_memcpy(m->end.engine, bytes, m->end.memory + from, length), "nvlx_memcpy");
    for (uint64_t done = 0, part; done < length; done += part) {
        const uint64_t number = (at + done) / fragment, into = (at + done) % fragment, left = fragment - into;
        part = left < length - done ? left : length - done;
        wrong += arrived && number < shared->each
                     ? count_wrong(bytes + done, part, shared->seed + peer, source_of(number) + into)
                     : count_wrong(bytes + done, part, shared->seed + m->index, from + done);
    }
    return wrong;
}

/* All that arrives, and a little of what is behind it, which nobody may have written. */
static void compare(struct member *m) {
    const uint64_t room = place_of(1) - place_of(0), used = shared->each * shared->fragment + BEHIND,
                   most = used < room ? used : room;
    unsigned char *bytes = perf_alloc(WINDOW, 1);
    uint64_t wrong = 0;
    for (uint64_t peer = 0; peer < shared->options.peers; peer++)
        for (uint64_t at = 0; at < most; at += WINDOW)
            wrong += compare_place(m, peer, at, most - at < WINDOW ? most - at : WINDOW, bytes);
    free(bytes);
    shared->seats[m->index].wrong = wrong;
}

/* ---- A process: its life ---------------------------------------------------------------------------------- */

static void set_up(struct member *m) {
    int gpus;
    perf_check(nvlx_gpu_count(shared->options.backend, &gpus), "no GPU can be used");
    perf_end_open(&m->end, shared->options.backend, (int)m->index % gpus);
    if (m->index == 0) {
        shared->host = m->end.backend->host;
        perf_options_complete(&shared->options, shared->host);
    }
}

static void share(struct member *m) {
    struct seat *seat = &shared->seats[m->index];
    char *text;
    perf_end_allocate(&m->end, &shared->options);
    perf_check(nvlx_export(m->end.engine, &text, &seat->length), "nvlx_export");
    if (seat->length > TEXT_MAX)
        perf_die("a descriptor is too long: %zu bytes", seat->length);
    memcpy(seat->text, text, seat->length);
    nvlx_text_free(text);
}

static void meet(struct member *m) {
    uint64_t length;
    for (uint64_t i = 0; i < shared->options.peers; i++) {
        const struct seat *seat = &shared->seats[i];
        if (i == m->index)
            continue;
        perf_check(nvlx_peer_open(m->end.engine, seat->text, seat->length, &m->peers[i]), "nvlx_peer_open");
        perf_check(nvlx_peer_find(m->peers[i], "0", &m->remote[i], &length), "nvlx_peer_find");
    }
    if (m->end.backend->borrow)
        m->end.backend->borrow(&m->end, NULL);
}

static void leave(struct member *m) {
    if (m->end.backend->give_back)
        m->end.backend->give_back();
    for (uint64_t i = 0; i < shared->options.peers; i++)
        if (m->peers[i])
            perf_check(nvlx_peer_close(m->peers[i]), "nvlx_peer_close");
}

static void end(struct member *m) {
    free(m->ops);
    perf_end_close(&m->end);
    exit(0);
}

static _Noreturn void run_member(uint64_t index, pid_t parent) {
    static char role[48];
    struct member member = {.index = index};
    snprintf(role, sizeof role, "nvlx_perf (process %" PRIu64 ")", index);
    perf_role = role;
    signal(SIGCHLD, SIG_DFL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent || signal(SIGINT, SIG_IGN) == SIG_ERR)
        _exit(2);
    for (;;) {
        while (sem_wait(&shared->seats[index].commanded)) {
        }
        shared->command(&member);
        sem_post(&shared->answered);
    }
}

/* ---- The first process ------------------------------------------------------------------------------------ */

static void member_has_ended(int signal) {
    static const char text[] = "nvlx_perf: one of the processes has ended\n";
    (void)signal;
    _exit(write(STDERR_FILENO, text, sizeof text - 1) < 0 ? 3 : 2);
}

static void begin_members(const struct perf_options *options) {
    const struct sigaction action = {.sa_handler = member_has_ended, .sa_flags = SA_NOCLDSTOP};
    const pid_t self = getpid();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || sem_init(&shared->answered, 1, 0) || sigaction(SIGCHLD, &action, NULL))
        perf_die("memory for several processes: %s", strerror(errno));
    shared->options = *options;
    fflush(NULL);
    for (uint64_t i = 0; i < options->peers; i++) {
        if (sem_init(&shared->seats[i].commanded, 1, 0) || (processes[i] = fork()) < 0)
            perf_die("fork: %s", strerror(errno));
        if (!processes[i])
            run_member(i, self);
    }
}

static void begin_command(void (*command)(struct member *member)) {
    shared->command = command;
    for (uint64_t i = 0; i < shared->options.peers; i++)
        sem_post(&shared->seats[i].commanded);
}

static void do_command(void (*command)(struct member *member)) {
    begin_command(command);
    for (uint64_t i = 0; i < shared->options.peers; i++)
        while (sem_wait(&shared->answered)) {
        }
}

/* Each leaves the memory of the others before that is freed. */
static void end_members(void) {
    int status;
    do_command(leave);
    signal(SIGCHLD, SIG_DFL);
    begin_command(end);
    for (uint64_t i = 0; i < shared->options.peers; i++)
        if (waitpid(processes[i], &status, 0) != processes[i] || status)
            perf_die("process %" PRIu64 " ended badly: status 0x%x", i, (unsigned)status);
    munmap(shared, sizeof *shared);
}

struct rates { /* GB/s */
    double all, mean, slowest;
};

static struct rates move_all(void) {
    struct rates rates = {0};
    uint64_t last = 1, bytes = 0, movers = 0;
    shared->start = clock_now_ns() + AHEAD_NS;
    do_command(move);
    for (uint64_t i = 0; i < shared->options.peers; i++) {
        const struct seat *seat = &shared->seats[i];
        if (!seat->bytes)
            continue;
        const double rate = (double)seat->bytes / (double)(seat->done ? seat->done : 1);
        rates.slowest = movers++ && rates.slowest < rate ? rates.slowest : rate;
        rates.mean += rate;
        bytes += seat->bytes;
        last = seat->done > last ? seat->done : last;
    }
    rates.all = (double)bytes / (double)last;
    rates.mean /= (double)(movers ? movers : 1);
    return rates;
}

static uint64_t verify(void) {
    uint64_t wrong = 0;
    shared->seed += PERF_PEERS_MAX;
    do_command(fill);
    move_all();
    do_command(compare);
    for (uint64_t i = 0; i < shared->options.peers; i++) {
        if (shared->seats[i].wrong)
            fprintf(stderr, "WRONG: %" PRIu64 " bytes of process %" PRIu64 "'s memory\n", shared->seats[i].wrong, i);
        wrong += shared->seats[i].wrong;
    }
    return wrong;
}

static uint64_t measure_cell(enum form form) {
    double all[1000], mean[1000], slowest[1000];
    const size_t rounds = shared->options.rounds;
    shared->form = form;
    do_command(take_list);
    move_all();
    for (size_t i = 0; i < rounds; i++) {
        const struct rates rates = move_all();
        all[i] = rates.all, mean[i] = rates.mean, slowest[i] = rates.slowest;
    }
    printf(" | %7.1f %7.1f %7.1f", perf_percentile(all, rounds, 0.5), perf_percentile(mean, rounds, 0.5),
           perf_percentile(slowest, rounds, 0.5));
    fflush(stdout);
    const uint64_t wrong = verify();
    do_command(drop_list);
    return wrong;
}

static uint64_t measure_row(uint64_t fragment) {
    const struct perf_options *options = &shared->options;
    const uint64_t room = place_of(1) - place_of(0), most = options->bytes < room ? options->bytes : room;
    uint64_t wrong = 0;
    if (fragment % 8)
        perf_die("--fragment: %" PRIu64 " is not a multiple of 8, as --peers wants it", fragment);
    if (fragment > most)
        return 0;
    shared->fragment = fragment;
    shared->each = options->count < most / fragment ? options->count : most / fragment;
    printf("%9s %8" PRIu64, perf_size_text(fragment).text, shared->each);
    for (enum form form = 0; form < FORMS && !perf_stopped(); form++)
        wrong += measure_cell(form);
    printf(wrong ? " | WRONG\n" : " | every byte right\n");
    return wrong;
}

int perf_peers(const struct perf_options *options) {
    uint64_t wrong = 0;
    begin_members(options);
    do_command(set_up);
    do_command(share);
    do_command(meet);
    options = &shared->options; /* completed */
    printf("libnvlxfer %s: %" PRIu64 " processes, process i on GPU i, %s. GB/s in all, of a process on average, and of "
           "the slowest.\n",
           nvlx_version(), options->peers, options->op == NVLX_OP_READ ? "reads" : "writes");
    if (shared->host)
        printf("The host backend: software GPUs in shared memory. This shows that it works, not how fast NVLink is.\n");
    for (shared->scene = 0; shared->scene < SCENES && !perf_stopped(); shared->scene++) {
        printf("\n%s\n%9s %8s | %-23s | %-23s | %s\n", scene_names[shared->scene], "fragment", "of each",
               "peer after peer", "a fragment each in turn", "peer after peer, prepared");
        for (size_t i = 0; i < options->fragment_count && !perf_stopped(); i++)
            wrong += measure_row(options->fragments[i]);
    }
    end_members();
    return perf_stopped() ? 130 : wrong ? 1 : 0;
}
