/* Digests the pieces of a relay that are in place, in a thread of its own: "nvlx-relay-sum".
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/prctl.h>

#include "base/thread.h"
#include "relay/relay.h"

struct task {
    uint64_t generation;
    size_t piece;
};

/* Waits for a piece that is in place. False: the relay ends. */
static bool take(struct nvlx_relay *relay, struct task *task) {
    struct nvlxi_relay_check *check = &relay->check;
    pthread_mutex_lock(&relay->mutex);
    while (!relay->stopping && (check->taken == check->arrived || relay->failure))
        nvlxi_cond_wait(&relay->news, &relay->mutex, UINT64_MAX);
    const bool goes_on = !relay->stopping;
    if (goes_on) {
        task->generation = check->generation;
        task->piece = check->order[check->taken];
    }
    pthread_mutex_unlock(&relay->mutex);
    return goes_on;
}

/* Notes that a piece was taken. Whether it was the last of its generation; what belongs to an older one is dropped. */
static bool keep(struct nvlx_relay *relay, const struct task *task) {
    struct nvlxi_relay_check *check = &relay->check;
    pthread_mutex_lock(&relay->mutex);
    const bool last = check->generation == task->generation && ++check->taken == relay->content.piece_count;
    pthread_mutex_unlock(&relay->mutex);
    return last;
}

/* Digests the units of which this piece was the last. Only this thread knows `left`. */
static int digest(struct nvlx_relay *relay, size_t piece) {
    const struct nvlxi_relay_content *content = &relay->content;
    int code = 0;
    for (size_t i = content->first[piece]; !code && i < content->first[piece + 1]; i++) {
        const size_t number = content->spans[i].unit;
        const struct nvlxi_relay_unit *unit = &content->units[number];
        relay->check.left[number] -= content->spans[i].length;
        if (!relay->check.left[number])
            code = nvlx_digest(relay->engine, (char *)content->parts[unit->part].address + unit->offset, unit->length,
                               &relay->check.digests[number]);
    }
    return code;
}

/* Nothing of the generation is digested yet. */
static void begin(struct nvlx_relay *relay, uint64_t generation) {
    for (size_t i = 0; i < relay->content.unit_count; i++)
        relay->check.left[i] = relay->content.units[i].length;
    relay->check.begun = generation;
}

static void finish(struct nvlx_relay *relay, uint64_t generation) {
    if (relay->source)
        nvlxi_relay_source_checked(relay, generation);
    else
        nvlxi_relay_reader_checked(relay, generation);
}

static void *run(void *argument) {
    struct nvlx_relay *relay = argument;
    struct task task;
    prctl(PR_SET_NAME, "nvlx-relay-sum");
    while (take(relay, &task)) {
        if (task.generation != relay->check.begun)
            begin(relay, task.generation);
        const int code = digest(relay, task.piece);
        if (code)
            nvlxi_relay_fail(relay, code, nvlx_last_error());
        else if (keep(relay, &task))
            finish(relay, task.generation);
    }
    return NULL;
}

int nvlxi_relay_check_make(struct nvlx_relay *relay) {
    struct nvlxi_relay_check *check = &relay->check;
    check->order = calloc(relay->content.piece_count, sizeof *check->order);
    check->digests = calloc(relay->content.unit_count + 1, sizeof *check->digests);
    check->left = calloc(relay->content.unit_count + 1, sizeof *check->left);
    if (!check->order || !check->digests || !check->left)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for digests of %zu pieces", relay->content.piece_count);
    if (nvlxi_thread_start(&check->thread, run, relay))
        return nvlxi_fail(NVLX_ENOMEM, "no thread for the digests of a relay");
    check->started = true;
    return 0;
}

void nvlxi_relay_check_begin(struct nvlx_relay *relay, uint64_t generation) {
    relay->check.generation = generation;
    relay->check.arrived = relay->check.taken = 0;
}

void nvlxi_relay_check_piece(struct nvlx_relay *relay, size_t piece) {
    relay->check.order[relay->check.arrived++] = piece;
}

void nvlxi_relay_check_end(struct nvlx_relay *relay) {
    if (relay->check.started)
        pthread_join(relay->check.thread, NULL);
    free(relay->check.order);
    free(relay->check.digests);
    free(relay->check.left);
}
