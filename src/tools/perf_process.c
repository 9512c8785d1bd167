/* nvlx_perf: the two processes of a run. They share memory: the measuring process leaves a command there, and the owner
 * of the other memory its answer. A timed round needs no wake-up, which may take longer than a small transfer:
 *
 *     measuring process                    owner
 *     command ROUND                ->      answers, then looks at `go`
 *     go = the round's number      ->      does its part
 *     looks at `done`              <-      done = the round's number
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "perf.h"

struct owner {
    struct perf_end end;
    struct perf_list lists[2];      /* that are moved in this row; it has a part in the last one */
    struct nvlx_prepared *prepared; /* of that; NULL: none */
    uint32_t round;
};

/* What is in both processes. A command is written before the first semaphore is posted, its answer before the other. */
static struct shared {
    sem_t commanded, answered;
    void (*command)(struct owner *owner); /* at the same place in both: the owner is a fork */
    struct perf_options options;
    struct perf_lent lent;
    struct perf_list_spec lists[2];
    size_t list_count;
    enum perf_way part; /* the owner's, in the rounds to come */
    struct nvlx_transfer_options how;
    uint64_t seeds[2]; /* that filled the measuring process's memory and the owner's */
    struct perf_wrong wrong;
    _Alignas(64) atomic_uint go;   /* written by the measuring process */
    _Alignas(64) atomic_uint done; /* written by the owner */
    size_t length;
    char text[16 << 20]; /* a descriptor */
} * shared;

static pid_t owner_process;
static uint32_t last_round;

static void await_round(atomic_uint *word, uint32_t round) {
    for (uint64_t turns = 1; atomic_load_explicit(word, memory_order_acquire) != round; turns++)
        if (turns % 4096 == 0)
            sched_yield();
}

static void await(sem_t *semaphore) {
    while (sem_wait(semaphore)) /* interrupted */
        ;
}

static void begin_command(void (*command)(struct owner *owner)) {
    shared->command = command;
    sem_post(&shared->commanded);
}

static void do_command(void (*command)(struct owner *owner)) {
    begin_command(command);
    await(&shared->answered);
}

/* ---- The owner -------------------------------------------------------------------------------------------- */

static void export_descriptor(const struct perf_end *end) {
    char *text;
    perf_check(nvlx_export(end->engine, &text, &shared->length), "nvlx_export");
    if (shared->length > sizeof shared->text)
        perf_die("--regions: their descriptor is too long, %zu bytes", shared->length);
    memcpy(shared->text, text, shared->length);
    nvlx_text_free(text);
}

static void set_up(struct owner *owner) {
    const struct perf_options *options = &shared->options;
    struct perf_end *end = &owner->end;
    perf_end_open(end, options->backend, options->gpu[0]);
    perf_end_allocate(end, options);
    end->backend->lend(end, &shared->lent);
    export_descriptor(end);
}

static void meet(struct owner *owner) {
    perf_end_meet(&owner->end, shared->text, shared->length, NULL);
}

static void drop_lists(struct owner *owner) {
    perf_check(nvlx_prepared_free(owner->prepared), "nvlx_prepared_free");
    owner->prepared = NULL;
    perf_list_free(&owner->lists[0]);
    perf_list_free(&owner->lists[1]);
}

static void take_lists(struct owner *owner) {
    drop_lists(owner);
    for (size_t i = 0; i < shared->list_count; i++)
        perf_list_make(&owner->lists[i], &shared->lists[i]);
    perf_end_set_list(&owner->end, &owner->lists[shared->list_count - 1]);
    if (shared->part == PERF_PREPARED)
        owner->prepared = perf_end_prepare(&owner->end, &shared->how);
}

static void await_go(struct owner *owner) {
    owner->round++;
}

static void take_part(struct owner *owner) {
    struct perf_sample ignored;
    struct nvlx_request_info info;
    await_round(&shared->go, owner->round);
    if (shared->part == PERF_STAGED)
        owner->end.backend->stage(&owner->end);
    else
        perf_end_move(&owner->end, owner->prepared, shared->part, &shared->how, &ignored, &info);
    atomic_store_explicit(&shared->done, owner->round, memory_order_release);
}

static void fill(struct owner *owner) {
    owner->end.backend->fill(&owner->end, shared->seeds[1]);
}

/* Compares an end's memory with what the lists must have made of it. */
static struct perf_wrong check_end(const struct perf_end *end, const struct perf_list lists[2], bool owner) {
    struct perf_content content = {.seed = shared->seeds[owner], .arrived_seed = shared->seeds[!owner]};
    content.arrivals = perf_alloc(lists[0].count + lists[1].count, sizeof *content.arrivals);
    for (const struct perf_list *list = lists; list < lists + 2; list++) {
        const bool to_owner = (list->spec.opcode == NVLX_OP_WRITE) != list->spec.swap;
        for (size_t i = 0; to_owner == owner && i < list->count; i++) {
            const struct perf_fragment *it = &list->fragments[i];
            content.arrivals[content.count++] =
                (struct perf_arrival){owner ? it->remote : it->local, owner ? it->local : it->remote, it->length};
        }
    }
    struct perf_wrong wrong;
    end->backend->check(end, &content, &wrong);
    free(content.arrivals);
    return wrong;
}

static void check(struct owner *owner) {
    shared->wrong = check_end(&owner->end, owner->lists, true);
}

static void leave(struct owner *owner) {
    drop_lists(owner);
    perf_end_leave(&owner->end);
}

static void end_owner(struct owner *owner) {
    perf_end_close(&owner->end);
    exit(0);
}

static _Noreturn void run_owner(pid_t parent) {
    struct owner owner = {0};
    perf_role = "nvlx_perf (owner)";
    signal(SIGCHLD, SIG_DFL);
    /* The parent may have ended before the signal was asked for. A terminal's Ctrl-C is for the parent alone. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent || signal(SIGINT, SIG_IGN) == SIG_ERR)
        _exit(2);
    for (;;) {
        await(&shared->commanded);
        shared->command(&owner);
        const bool round = shared->command == await_go;
        sem_post(&shared->answered);
        if (round)
            take_part(&owner);
    }
}

static void owner_has_ended(int signal) {
    static const char text[] = "nvlx_perf: the owner process has ended\n";
    (void)signal;
    _exit(write(STDERR_FILENO, text, sizeof text - 1) < 0 ? 3 : 2);
}

/* To be called before anything is asked of the driver, which does not survive a fork. */
static void start_owner(void) {
    const struct sigaction action = {.sa_handler = owner_has_ended, .sa_flags = SA_NOCLDSTOP};
    const pid_t self = getpid();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || sem_init(&shared->commanded, 1, 0) || sem_init(&shared->answered, 1, 0) ||
        sigaction(SIGCHLD, &action, NULL))
        perf_die("memory for two processes: %s", strerror(errno));
    fflush(NULL);
    const pid_t child = fork();
    if (child < 0)
        perf_die("fork: %s", strerror(errno));
    if (!child)
        run_owner(self);
    owner_process = child;
}

/* ---- The measuring process -------------------------------------------------------------------------------- */

/* By default the second GPU measures and the first one is the owner's. */
static void choose_gpus(struct perf_options *options) {
    int count;
    perf_check(nvlx_gpu_count(options->backend, &count), "no GPU can be used");
    if (options->gpu[0] < 0) {
        options->gpu[0] = 0;
        options->gpu[1] = count > 1 ? 1 : 0;
    }
    for (int i = 0; i < 2; i++)
        if (options->gpu[i] >= count)
            perf_die("--gpus: there is no GPU %d: %d can be used, counted from 0", options->gpu[i], count);
}

void perf_session_open(struct perf_session *session, struct perf_options *options) {
    struct perf_end *end = &session->end;
    *session = (struct perf_session){.options = options};
    start_owner();
    choose_gpus(options);
    perf_end_open(end, options->backend, options->gpu[1]);
    session->host = end->backend->host;
    session->same_gpu = options->gpu[0] == options->gpu[1];
    perf_options_complete(options, session->host);
    perf_end_allocate(end, options);
    shared->options = *options;
    shared->options.backend = session->host ? NVLX_BACKEND_HOST : NVLX_BACKEND_CUDA;
    do_command(set_up);
    perf_end_meet(end, shared->text, shared->length, &shared->lent);
    session->machine[0] = shared->lent.machine;
    export_descriptor(end);
    do_command(meet);
    end->backend->lend(end, &shared->lent);
    session->machine[1] = shared->lent.machine;
}

/* Each leaves the other's memory before that is freed. */
void perf_session_close(struct perf_session *session) {
    int status;
    perf_end_leave(&session->end);
    do_command(leave);
    perf_end_close(&session->end);
    signal(SIGCHLD, SIG_DFL);
    begin_command(end_owner);
    if (waitpid(owner_process, &status, 0) != owner_process || status)
        perf_die("the owner process ended badly: status 0x%x", (unsigned)status);
    munmap(shared, sizeof *shared);
}

void perf_session_lists(const struct perf_list lists[2], enum perf_way part, const struct nvlx_transfer_options *how) {
    shared->list_count = lists[1].count ? 2 : 1;
    for (size_t i = 0; i < shared->list_count; i++)
        shared->lists[i] = lists[i].spec;
    shared->part = part;
    if (how)
        shared->how = *how;
    do_command(take_lists);
}

void perf_round_begin(void) {
    last_round++;
    do_command(await_go);
}

void perf_round_go(void) {
    atomic_store_explicit(&shared->go, last_round, memory_order_release);
}

void perf_round_wait(void) {
    await_round(&shared->done, last_round);
}

void perf_session_fill(const struct perf_session *session) {
    shared->seeds[0] += 2;
    shared->seeds[1] = shared->seeds[0] + 1;
    begin_command(fill);
    session->end.backend->fill(&session->end, shared->seeds[0]);
    await(&shared->answered);
}

uint64_t perf_session_check(const struct perf_session *session, const struct perf_list lists[2]) {
    begin_command(check);
    const struct perf_wrong own = check_end(&session->end, lists, false);
    await(&shared->answered);
    const struct perf_wrong wrong[2] = {own, shared->wrong};
    perf_progress_end();
    for (int i = 0; i < 2; i++)
        if (wrong[i].count)
            fprintf(stderr, "WRONG: %" PRIu64 " bytes of the %s memory, the first at offset 0x%" PRIx64 "\n",
                    wrong[i].count, i ? "owner's" : "measuring process's", wrong[i].first);
    return wrong[0].count + wrong[1].count;
}

/* One byte is changed, by the library. */
void perf_session_prove(const struct perf_session *session) {
    static const struct perf_list nothing[2];
    const struct perf_end *end = &session->end;
    const uint64_t at = end->size / 2 + 3;
    perf_session_fill(session);
    const unsigned char byte = perf_byte(shared->seeds[0], at) ^ 0x10;
    perf_check(nvlx_memcpy(end->engine, end->memory + at, &byte, 1), "nvlx_memcpy");
    const struct perf_wrong wrong = check_end(end, nothing, false);
    if (wrong.count != 1 || wrong.first != at)
        perf_die("the check of bytes does not find the one that is wrong: no use to go on");
}
