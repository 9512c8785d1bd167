/* Sends messages in their order, and knows what has become of them: see outbox.h. SPDX-License-Identifier: Apache-2.0
 */
#include "rendezvous/messages/outbox.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"

void nvlxi_outbox_init(struct nvlxi_outbox *outbox, struct nvlxi_channel *channel, const char *engine) {
    outbox->channel = channel;
    outbox->engine = engine;
    pthread_mutex_init(&outbox->mutex, NULL);
    nvlxi_cond_init(&outbox->news);
}

void nvlxi_outbox_free(struct nvlxi_outbox *outbox) {
    pthread_cond_destroy(&outbox->news);
    pthread_mutex_destroy(&outbox->mutex);
}

static uint64_t cost_of(const struct nvlxi_letter *letter) {
    return (uint64_t)letter->length + NVLXI_MESSAGE_COST;
}

/* ---- Sending, under the mutex ---------------------------------------------------------------------------- */

/* False: not now. */
static bool send_chunk(struct nvlxi_outbox *outbox, const struct nvlxi_protocol_message *part, const void *bytes) {
    uint8_t message[NVLXI_PROTOCOL_MESSAGE_MAX];
    const size_t length = nvlxi_protocol_put_message(message, part, bytes);
    const bool sent = nvlxi_channel_send(outbox->channel, message, length);
    if (!sent && !atomic_exchange(&outbox->blocked, true))
        outbox->wake(outbox->context);
    return sent;
}

static bool introduce(struct nvlxi_outbox *outbox) {
    const struct nvlxi_protocol_message part = {.number = 0, .length = NVLXI_PROTOCOL_ENGINE};
    outbox->introduced = outbox->introduced || send_chunk(outbox, &part, outbox->engine);
    return outbox->introduced;
}

static bool has_window(const struct nvlxi_outbox *outbox) {
    return outbox->sent_bytes + cost_of(outbox->unsent) - outbox->taken.read <= NVLXI_MESSAGE_WINDOW;
}

/* Sends one to its end, as far as it goes; false: it stops. */
static bool send_letter(struct nvlxi_outbox *outbox) {
    struct nvlxi_letter *letter = outbox->unsent;
    do {
        const struct nvlxi_protocol_message part = {
            .number = outbox->sent + 1, .length = letter->length, .offset = outbox->offset};
        if (!send_chunk(outbox, &part, letter->bytes))
            return false;
        outbox->offset += (uint32_t)nvlxi_min(letter->length - outbox->offset, NVLXI_PROTOCOL_CHUNK);
    } while (outbox->offset < letter->length);
    outbox->offset = 0;
    outbox->sent++;
    outbox->sent_bytes += cost_of(letter);
    outbox->unsent = letter->next;
    return true;
}

static void pump(struct nvlxi_outbox *outbox) {
    bool goes_on = !outbox->ended && !atomic_load(&outbox->blocked);
    while (goes_on && outbox->unsent && !outbox->unsent->waiting && has_window(outbox))
        goes_on = introduce(outbox) && send_letter(outbox);
}

/* ---- Letters --------------------------------------------------------------------------------------------- */

/* Under the mutex. */
static void append(struct nvlxi_outbox *outbox, struct nvlxi_letter *letter) {
    DL_APPEND(outbox->letters, letter);
    letter->listed = true;
    outbox->bytes += cost_of(letter);
    if (!outbox->unsent)
        outbox->unsent = letter;
}

/* Under the mutex. */
static void take_out(struct nvlxi_outbox *outbox, struct nvlxi_letter *letter) {
    if (outbox->unsent == letter)
        outbox->unsent = letter->next;
    DL_DELETE(outbox->letters, letter); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    letter->listed = false;
    outbox->bytes -= cost_of(letter);
    pthread_cond_broadcast(&outbox->news);
}

/* Under the mutex. */
static int check(const struct nvlxi_outbox *outbox, size_t length) {
    if (outbox->ended)
        return nvlxi_fail(NVLX_ESTALE, "the message cannot be sent: %s", outbox->reason);
    if (outbox->bytes + length + NVLXI_MESSAGE_COST > NVLXI_OUTBOX_MAX)
        return nvlxi_fail(NVLX_EBUSY,
                          "messages to the peer at \"%s\" take %zu bytes that it has not taken: at most %u, with a "
                          "message of %zu",
                          outbox->channel->connection->address, outbox->bytes, NVLXI_OUTBOX_MAX, length);
    return 0;
}

static int put_in(struct nvlxi_outbox *outbox, const void *bytes, size_t length, bool waiting,
                  struct nvlxi_letter **letter) {
    if (outbox->channel->connection->minor < 3)
        return nvlxi_fail(NVLX_ENOTSUP, "the library of the peer at \"%s\" is too old for messages",
                          outbox->channel->connection->address);
    struct nvlxi_letter *made = malloc(sizeof *made + length);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a message of %zu bytes", length);
    *made = (struct nvlxi_letter){.outbox = outbox, .waiting = waiting, .length = (uint32_t)length};
    if (length)
        memcpy(made->bytes, bytes, length);
    pthread_mutex_lock(&outbox->mutex);
    int code = check(outbox, length);
    if (!code) {
        append(outbox, made);
        pump(outbox);
    }
    pthread_mutex_unlock(&outbox->mutex);
    if (code)
        free(made);
    else
        *letter = made;
    return code;
}

int nvlxi_outbox_send(struct nvlxi_outbox *outbox, const void *bytes, size_t length) {
    struct nvlxi_letter *letter;
    return put_in(outbox, bytes, length, false, &letter);
}

int nvlxi_outbox_reserve(struct nvlxi_outbox *outbox, const void *bytes, size_t length, struct nvlxi_letter **letter) {
    return put_in(outbox, bytes, length, true, letter);
}

static int fail_lost(const char *reason) {
    return nvlxi_fail(NVLX_ESTALE, "the bytes are in place, but it is not known whether the message has come: %s",
                      reason);
}

int nvlxi_letter_deliver(struct nvlxi_letter *letter, struct nvlx_request *request) {
    struct nvlxi_outbox *outbox = letter->outbox;
    int code = 0;
    pthread_mutex_lock(&outbox->mutex);
    if (letter->listed) {
        letter->request = request;
        letter->waiting = false;
        pump(outbox);
    } else {
        code = fail_lost(outbox->reason);
        free(letter);
    }
    pthread_mutex_unlock(&outbox->mutex);
    return code;
}

void nvlxi_letter_cancel(struct nvlxi_letter *letter) {
    struct nvlxi_outbox *outbox = letter->outbox;
    pthread_mutex_lock(&outbox->mutex);
    if (letter->listed)
        take_out(outbox, letter);
    free(letter);
    pump(outbox);
    pthread_mutex_unlock(&outbox->mutex);
}

/* ---- What becomes of them -------------------------------------------------------------------------------- */

void nvlxi_outbox_go_on(struct nvlxi_outbox *outbox) {
    pthread_mutex_lock(&outbox->mutex);
    if (!outbox->ended && nvlxi_channel_send(outbox->channel, NULL, 0)) {
        atomic_store(&outbox->blocked, false);
        pump(outbox);
    }
    pthread_mutex_unlock(&outbox->mutex);
}

/* Under the mutex. */
static int check_taken(const struct nvlxi_outbox *outbox, const struct nvlxi_protocol_taken *taken) {
    if (taken->messages >= outbox->taken.messages && taken->messages <= outbox->sent &&
        taken->read >= outbox->taken.read && taken->read <= outbox->sent_bytes)
        return 0;
    return nvlxi_fail(NVLX_EFORMAT,
                      "the server at \"%s\" has taken %" PRIu64 " messages and read %" PRIu64 " bytes, of %" PRIu64
                      " and %" PRIu64 " that were sent",
                      outbox->channel->connection->address, taken->messages, taken->read, outbox->sent,
                      outbox->sent_bytes);
}

/* Frees letters that are in no list any more, and concludes their requests. Without the mutex. */
static void conclude(struct nvlxi_letter *letters, int code) {
    struct nvlxi_letter *letter, *next;
    DL_FOREACH_SAFE(letters, letter, next) {
        if (letter->request)
            nvlxi_request_conclude(letter->request, code);
        free(letter);
    }
}

int nvlxi_outbox_taken(struct nvlxi_outbox *outbox, const struct nvlxi_inbox *in) {
    struct nvlxi_protocol_taken taken;
    struct nvlxi_letter *done = NULL;
    nvlxi_protocol_get_taken(in->body, &taken);
    pthread_mutex_lock(&outbox->mutex);
    int code = outbox->ended ? 0 : check_taken(outbox, &taken);
    for (; !code && outbox->letters && outbox->taken.messages < taken.messages; outbox->taken.messages++) {
        struct nvlxi_letter *letter = outbox->letters;
        take_out(outbox, letter);
        DL_APPEND(done, letter);
    }
    if (!code && !outbox->ended) {
        outbox->taken = taken;
        pump(outbox);
    }
    pthread_mutex_unlock(&outbox->mutex);
    conclude(done, 0);
    return code;
}

bool nvlxi_outbox_drain(struct nvlxi_outbox *outbox, uint64_t deadline) {
    bool in_time = true;
    pthread_mutex_lock(&outbox->mutex);
    const bool told = outbox->ended;
    while (outbox->letters && !outbox->ended && in_time)
        in_time = nvlxi_cond_wait(&outbox->news, &outbox->mutex, deadline);
    const bool all = told || (!outbox->letters && !outbox->lost);
    pthread_mutex_unlock(&outbox->mutex);
    return all;
}

/* Takes all out, those whose requests wait for what becomes of them, and those of nvlx_send, to be freed. Under the
 * mutex. */
static struct nvlxi_letter *give_up(struct nvlxi_outbox *outbox) {
    struct nvlxi_letter *letter, *next, *lost = NULL;
    DL_FOREACH_SAFE(outbox->letters, letter, next) {
        take_out(outbox, letter);
        if (letter->waiting)
            continue;
        outbox->lost += letter->request == NULL;
        DL_APPEND(lost, letter);
    }
    return lost;
}

/* Tells of letters that were given up; the last error is as it was. */
static void tell_lost(const struct nvlxi_outbox *outbox, struct nvlxi_letter *letters) {
    const struct nvlxi_letter *letter;
    bool requests = false;
    DL_FOREACH(letters, letter) {
        requests = requests || letter->request;
    }
    if (outbox->lost)
        nvlxi_log(NVLX_LOG_WARNING, "the last %" PRIu64 " messages to the peer at \"%s\" may be lost: %s", outbox->lost,
                  outbox->channel->connection->address, outbox->reason);
    conclude(letters, requests ? fail_lost(outbox->reason) : 0);
    nvlxi_fail_again(NVLX_ESTALE, outbox->reason);
}

uint64_t nvlxi_outbox_end(struct nvlxi_outbox *outbox) {
    struct nvlxi_letter *lost = NULL;
    pthread_mutex_lock(&outbox->mutex);
    if (!outbox->ended) {
        snprintf(outbox->reason, sizeof outbox->reason, "%s", nvlx_last_error());
        outbox->ended = true;
        lost = give_up(outbox);
    }
    const uint64_t count = outbox->lost;
    pthread_mutex_unlock(&outbox->mutex);
    if (lost)
        tell_lost(outbox, lost);
    return count;
}
