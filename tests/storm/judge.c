/* Keeps the processes of a storm going, until they are to end: see judge.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "judge.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm/actions/content.h"
#include "worker.h"

#define MS           UINT64_C(1000000)
#define LOOK_US      1000
#define STOP_MS_MOST 300

static uint64_t draw_below(struct judge *judge, uint64_t below) {
    judge->random = hash_of(judge->random, below);
    return below ? (judge->random >> 11) % below : 0;
}

/* As long as the average, more or less. */
static uint64_t draw_pause(struct judge *judge, uint64_t average) {
    return 1 + draw_below(judge, 2 * average);
}

/* ---- Lives --------------------------------------------------------------------------------------------- */

static uint32_t last_of_life(const struct patient *patient) {
    return (patient->life << LIFE_SHIFT) | ((1u << LIFE_SHIFT) - 1);
}

static void start(struct judge *judge, unsigned number) {
    struct patient *patient = &judge->patients[number];
    const struct beginning beginning = {number, ++patient->life << LIFE_SHIFT};
    child_start(&patient->child, "process");
    put_file(patient->child.socket, &beginning, sizeof beginning, judge->file);
    patient->moved_at = now_ns();
    patient->wake_at = 0;
    judge->lives++;
}

static void bury(struct judge *judge, unsigned number) {
    struct patient *patient = &judge->patients[number];
    struct place *place = &judge->board->places[number];
    atomic_store(&place->buried_at, now_ns());
    atomic_store(&place->buried, last_of_life(patient));
    atomic_store(&place->stop_ms, 0);
    atomic_store(&place->action, -1);
    close(patient->child.socket);
    patient->child.pid = 0;
}

static void end_by_force(struct judge *judge, unsigned number) {
    struct patient *patient = &judge->patients[number];
    int status;
    atomic_store(&judge->board->places[number].doomed, last_of_life(patient));
    kill(patient->child.pid, SIGKILL);
    while (waitpid(patient->child.pid, &status, 0) < 0 && errno == EINTR)
        ;
    bury(judge, number);
}

/* It has ended by itself: by its own SIGKILL, or well, when all are to. */
static void note_end(struct judge *judge, unsigned number, int status) {
    const struct patient *patient = &judge->patients[number];
    const bool doomed = atomic_load(&judge->board->places[number].doomed) == last_of_life(patient);
    if (doomed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        judge->crashes++;
    } else if (!atomic_load(&judge->board->end) || status) {
        board_wrong(judge->board, "process %u, life %" PRIu32 ", ended by itself: %s %d", number, patient->life,
                    WIFSIGNALED(status) ? "signal" : "exit code",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    bury(judge, number);
}

/* ---- Looking ------------------------------------------------------------------------------------------- */

static void wake(struct judge *judge, unsigned number) {
    struct patient *patient = &judge->patients[number];
    atomic_store(&judge->board->places[number].stop_ms, 0);
    kill(patient->child.pid, SIGCONT);
    patient->wake_at = 0;
    patient->moved_at = now_ns();
}

/* What each thread of it is waiting for, as far as the kernel tells. */
static void print_threads(pid_t pid) {
    static const char *const files[] = {"comm", "wchan", "syscall"};
    char path[320], text[128];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        fprintf(stderr, "    thread %s:", entry->d_name);
        for (size_t i = 0; i < COUNT(files); i++) {
            snprintf(path, sizeof path, "/proc/%d/task/%s/%s", (int)pid, entry->d_name, files[i]);
            const int fd = open(path, O_RDONLY | O_CLOEXEC);
            const ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
            if (fd >= 0)
                close(fd);
            text[length > 0 ? length : 0] = '\0';
            fprintf(stderr, " %.*s", (int)strcspn(text, "\n"), text);
        }
        fputc('\n', stderr);
    }
    if (folder)
        closedir(folder);
}

/* Whether it hangs. */
static bool hangs(struct judge *judge, unsigned number) {
    struct patient *patient = &judge->patients[number];
    const struct place *place = &judge->board->places[number];
    const uint64_t steps = atomic_load(&place->steps), now = now_ns();
    if (steps != patient->steps || patient->wake_at) {
        patient->steps = steps;
        patient->moved_at = now;
    }
    if (now < patient->moved_at + judge->hang)
        return false;
    board_wrong(judge->board, "process %u, life %" PRIu32 ", hangs: no step for %" PRIu64 " s, in \"%s\"", number,
                patient->life, judge->hang / 1000 / MS, action_name(atomic_load(&place->action)));
    print_threads(patient->child.pid);
    return true;
}

/* Whether it lives. */
static bool look(struct judge *judge, unsigned number) {
    struct patient *patient = &judge->patients[number];
    int status = 0;
    if (!patient->child.pid)
        return false;
    const pid_t changed = waitpid(patient->child.pid, &status, WNOHANG | WUNTRACED);
    if (changed > 0 && !WIFSTOPPED(status)) {
        note_end(judge, number, status);
        return false;
    }
    if (changed > 0 && !patient->wake_at) { /* it has stopped by itself */
        patient->wake_at = now_ns() + MS * (uint64_t)(1 + atomic_load(&judge->board->places[number].stop_ms));
        judge->stops++;
    }
    if (patient->wake_at && now_ns() >= patient->wake_at)
        wake(judge, number);
    if (!hangs(judge, number))
        return true;
    judge->hangs++;
    end_by_force(judge, number);
    return false;
}

static void stop(struct judge *judge, unsigned number) {
    struct patient *patient = &judge->patients[number];
    const uint64_t ms = 1 + draw_below(judge, STOP_MS_MOST);
    if (patient->wake_at)
        return;
    patient->wake_at = now_ns() + ms * MS;
    kill(patient->child.pid, SIGSTOP);
    judge->stops++;
}

/* The first few live longer than the others. */
static unsigned draw_victim(struct judge *judge) {
    const unsigned number = (unsigned)draw_below(judge, judge->board->processes);
    return number < 2 && draw_below(judge, 8) ? (unsigned)draw_below(judge, judge->board->processes) : number;
}

/* ---- All of it ----------------------------------------------------------------------------------------- */

void judge_begin(struct judge *judge) {
    for (unsigned i = 0; i < judge->board->processes; i++) {
        atomic_store(&judge->board->places[i].action, -1);
        start(judge, i);
    }
}

void judge_run(struct judge *judge, uint64_t end) {
    uint64_t kill_at = now_ns() + judge->kill_pause, stop_at = now_ns() + judge->stop_pause;
    while (now_ns() < end) {
        const uint64_t now = now_ns();
        for (unsigned i = 0; i < judge->board->processes; i++)
            if (!look(judge, i))
                start(judge, i);
        if (now >= kill_at) {
            const unsigned victim = draw_victim(judge);
            end_by_force(judge, victim);
            judge->kills++;
            start(judge, victim);
            kill_at = now + draw_pause(judge, judge->kill_pause);
        }
        if (now >= stop_at) {
            stop(judge, draw_victim(judge));
            stop_at = now + draw_pause(judge, judge->stop_pause);
        }
        usleep(LOOK_US);
    }
}

void judge_end(struct judge *judge) {
    bool left = true;
    atomic_store(&judge->board->end, true);
    while (left) {
        left = false;
        for (unsigned i = 0; i < judge->board->processes; i++) {
            const uint64_t crashes = judge->crashes;
            left |= look(judge, i);
            if (judge->crashes > crashes) { /* its next life takes the socket away that this one has left */
                start(judge, i);
                left = true;
            }
        }
        usleep(LOOK_US);
    }
}
