/* Waits until followers have let go of what was withdrawn: see revocation.h. SPDX-License-Identifier: Apache-2.0 */
#include "lifetime/revocation.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"

void nvlxi_revocations_init(struct nvlxi_revocations *revocations) {
    *revocations = (struct nvlxi_revocations){.followers = NULL};
    pthread_mutex_init(&revocations->mutex, NULL);
    nvlxi_cond_init(&revocations->news);
}

void nvlxi_revocations_free(struct nvlxi_revocations *revocations) {
    pthread_cond_destroy(&revocations->news);
    pthread_mutex_destroy(&revocations->mutex);
}

void nvlxi_revocations_listen(struct nvlxi_revocations *revocations, void (*ask)(void *context), void *context) {
    pthread_mutex_lock(&revocations->mutex);
    revocations->ask = ask;
    revocations->context = context;
    pthread_mutex_unlock(&revocations->mutex);
}

/* ---- Who waits ----------------------------------------------------------------------------------------- */

/* Whether it was told a generation that has it. */
static bool knew(const struct nvlxi_follower *follower, const struct nvlxi_withdrawn *withdrawn) {
    if (follower->told < withdrawn->since)
        return false;
    for (size_t i = 0; i < follower->gap_count; i++)
        if (follower->gaps[i].told < withdrawn->since && withdrawn->without <= follower->gaps[i].next)
            return false;
    return true;
}

/* Under the mutex. */
static const struct nvlxi_follower *find_holder(const struct nvlxi_revocations *revocations,
                                                const struct nvlxi_withdrawn *withdrawn) {
    const struct nvlxi_follower *follower;
    DL_FOREACH(revocations->followers, follower) {
        if (follower->released < withdrawn->without && knew(follower, withdrawn))
            return follower;
    }
    return NULL;
}

/* Under the mutex. */
static int tell_holder(const struct nvlxi_follower *holder, const struct nvlxi_withdrawn *withdrawn) {
    const double ms = (double)(nvlxi_now_ns() - holder->told_ns) / 1e6;
    char holds[96] = "has not said yet that it let go of it";
    if (holder->cut_off)
        return nvlxi_fail(NVLX_ETIMEDOUT,
                          "%s is withdrawn, but process %d, whose connection was ended, has not closed what it maps",
                          withdrawn->what, (int)holder->pid);
    if (holder->told < withdrawn->without)
        return nvlxi_fail(NVLX_ETIMEDOUT,
                          "%s is withdrawn, but process %d does not know yet: it has read nothing for %.0f ms",
                          withdrawn->what, (int)holder->pid, ms);
    if (!nvlxi_held_is_nothing(&holder->held))
        snprintf(holds, sizeof holds, "still holds %" PRIu32 " transfers and %" PRIu32 " mappings%s",
                 holder->held.transfers, holder->held.mappings, holder->held.graphs ? ", graphs among them" : "");
    return nvlxi_fail(NVLX_ETIMEDOUT, "%s is withdrawn, but process %d %s: it was told %.0f ms ago", withdrawn->what,
                      (int)holder->pid, holds, ms);
}

/* Under the mutex. */
static void count_wait(struct nvlxi_revocations *revocations, int code, uint64_t since) {
    if (code)
        nvlxi_count(&revocations->late, 1);
    else
        nvlxi_histogram_count(&revocations->released, nvlxi_now_ns() - since);
}

int nvlxi_revocations_wait(struct nvlxi_revocations *revocations, const struct nvlxi_withdrawn *withdrawn,
                           uint64_t deadline) {
    const uint64_t since = nvlxi_now_ns();
    int code = 0;
    pthread_mutex_lock(&revocations->mutex);
    revocations->wanted = nvlxi_max(revocations->wanted, withdrawn->without);
    const bool held = find_holder(revocations, withdrawn) != NULL;
    if (revocations->ask && held) {
        pthread_mutex_unlock(&revocations->mutex);
        revocations->ask(revocations->context);
        pthread_mutex_lock(&revocations->mutex);
    }
    while (!code && find_holder(revocations, withdrawn)) {
        const bool in_time = nvlxi_cond_wait(&revocations->news, &revocations->mutex, deadline);
        const struct nvlxi_follower *holder = find_holder(revocations, withdrawn);
        if (!in_time && holder)
            code = tell_holder(holder, withdrawn);
    }
    if (held)
        count_wait(revocations, code, since);
    pthread_mutex_unlock(&revocations->mutex);
    return code;
}

uint64_t nvlxi_revocations_wanted(struct nvlxi_revocations *revocations) {
    pthread_mutex_lock(&revocations->mutex);
    const uint64_t wanted = revocations->wanted;
    pthread_mutex_unlock(&revocations->mutex);
    return wanted;
}

/* ---- The service thread -------------------------------------------------------------------------------- */

/* Under the mutex. Only what lies between the two can have come and gone. */
static void note_gap(struct nvlxi_follower *follower, uint64_t next) {
    if (next - follower->told < 2)
        return;
    if (follower->gap_count == NVLXI_GAPS)
        memmove(follower->gaps, follower->gaps + 1, --follower->gap_count * sizeof *follower->gaps);
    follower->gaps[follower->gap_count++] = (struct nvlxi_gap){follower->told, next};
}

/* Under the mutex. */
static void release(struct nvlxi_follower *follower, uint64_t generation) {
    size_t over = 0;
    follower->released = nvlxi_max(follower->released, generation);
    while (over < follower->gap_count && follower->gaps[over].next <= follower->released)
        over++;
    follower->gap_count -= over;
    memmove(follower->gaps, follower->gaps + over, follower->gap_count * sizeof *follower->gaps);
}

bool nvlxi_follower_tell(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower, uint64_t generation) {
    pthread_mutex_lock(&revocations->mutex);
    const bool tell = generation >= revocations->wanted;
    if (tell && !follower->told) {
        follower->told = follower->released = generation;
        DL_APPEND(revocations->followers, follower);
    }
    if (tell) {
        note_gap(follower, generation);
        follower->told = generation;
        follower->told_ns = nvlxi_now_ns();
    }
    pthread_mutex_unlock(&revocations->mutex);
    return tell;
}

bool nvlxi_follower_ask(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower) {
    pthread_mutex_lock(&revocations->mutex);
    const bool ask =
        !follower->asked && follower->told >= revocations->wanted && follower->released < revocations->wanted;
    follower->asked = follower->asked || ask;
    pthread_mutex_unlock(&revocations->mutex);
    return ask;
}

int nvlxi_follower_answers(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower, uint64_t generation,
                           const struct nvlxi_held *held) {
    int code = 0;
    pthread_mutex_lock(&revocations->mutex);
    if (!follower->asked || generation > follower->told) {
        code = NVLX_EFORMAT;
    } else {
        follower->held = *held;
        if (nvlxi_held_is_nothing(held)) {
            follower->asked = false;
            release(follower, generation);
        }
        pthread_cond_broadcast(&revocations->news);
    }
    pthread_mutex_unlock(&revocations->mutex);
    return code ? nvlxi_fail(code, "a peer lets go of generation %" PRIu64 ", which it was not asked for", generation)
                : 0;
}

void nvlxi_follower_cut_off(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower) {
    pthread_mutex_lock(&revocations->mutex);
    follower->cut_off = true;
    pthread_mutex_unlock(&revocations->mutex);
}

void nvlxi_follower_gone(struct nvlxi_revocations *revocations, struct nvlxi_follower *follower) {
    pthread_mutex_lock(&revocations->mutex);
    if (follower->told)
        DL_DELETE(revocations->followers, follower); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    follower->told = 0;
    pthread_cond_broadcast(&revocations->news);
    pthread_mutex_unlock(&revocations->mutex);
}
