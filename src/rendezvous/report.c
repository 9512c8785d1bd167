/* Asks peers for their counts, and answers who asks. SPDX-License-Identifier: Apache-2.0 */
#include "rendezvous/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"

#define SEND_REST_NS UINT64_C(5000000) /* until it is tried again where the socket is full */

/* ---- The server ---------------------------------------------------------------------------------------- */

/* As long as it may ever be, then as long as it is: it grows with the number of peers, which have a limit. */
static struct nvlxi_text *write_text(const struct nvlxi_reporter *reporter) {
    struct nvlxi_text *text = calloc(1, sizeof *text);
    if (!text || !(text->bytes = malloc(NVLXI_PROTOCOL_REPORT_MAX)))
        goto free_text;
    text->users = 1;
    text->length = reporter->write(reporter->context, text->bytes, NVLXI_PROTOCOL_REPORT_MAX);
    if (text->length > NVLXI_PROTOCOL_REPORT_MAX)
        goto free_text;
    char *fitting = realloc(text->bytes, text->length);
    text->bytes = fitting ? fitting : text->bytes;
    return text;
free_text:
    if (text)
        free(text->bytes);
    free(text);
    return NULL;
}

size_t nvlxi_report_make(const struct nvlxi_reporter *reporter, uint32_t number, uint8_t *head,
                         struct nvlxi_text **text) {
    *text = NULL;
    if (!reporter->allowed)
        return nvlxi_protocol_put_no_report(
            head, number, NVLX_EACCES, "the server does not tell its counts: serve_options.stats is not set there");
    *text = write_text(reporter);
    return *text ? nvlxi_protocol_put_report(head, number, (*text)->length)
                 : nvlxi_protocol_put_no_report(head, number, NVLX_ENOMEM, "no memory for the counts of the server");
}

/* ---- Who asks ------------------------------------------------------------------------------------------ */

/* Waits for one's turn to ask. Under the mutex. */
static bool begin_question(struct nvlxi_channel *channel, uint64_t deadline) {
    struct nvlxi_question *question = &channel->question;
    while (question->open) /* who asks takes the answer, also when the connection has ended */
        if (!nvlxi_channel_await_news(channel, UINT64_MAX, deadline))
            return false;
    *question = (struct nvlxi_question){.open = true, .number = question->number + 1};
    return true;
}

/* Asks until that is sent whole, and waits for the answer, or the deadline. Under the mutex, which is not held while
 * something is sent. */
static void await_answer(struct nvlxi_channel *channel, uint64_t deadline) {
    uint8_t message[NVLXI_PROTOCOL_SHORT_MAX];
    size_t length = nvlxi_protocol_put_stats(message, channel->question.number);
    bool whole = false, in_time = true;
    while (in_time && !channel->question.answered && !channel->ended) {
        if (!whole) {
            pthread_mutex_unlock(&channel->mutex);
            if (length && nvlxi_channel_send(channel, message, length))
                length = 0;
            whole = !length && nvlxi_channel_send(channel, NULL, 0);
            pthread_mutex_lock(&channel->mutex);
        }
        if (!channel->question.answered && !channel->ended)
            in_time = nvlxi_channel_await_news(channel, whole ? UINT64_MAX : nvlxi_now_ns() + SEND_REST_NS, deadline);
    }
}

static int fail_late(const struct nvlxi_channel *channel, int64_t timeout_ns) {
    return nvlxi_fail(NVLX_ETIMEDOUT, "the peer at \"%s\" has not told its counts after %" PRId64 " ns",
                      channel->connection->address, timeout_ns);
}

/* What has become of the question. Its text is the caller's. Under the mutex. */
static int end_question(struct nvlxi_channel *channel, struct nvlxi_question *answer) {
    *answer = channel->question;
    channel->question = (struct nvlxi_question){.number = answer->number};
    pthread_cond_broadcast(&channel->news);
    return answer->answered ? answer->code : NVLX_ETIMEDOUT;
}

int nvlxi_report_ask(struct nvlxi_channel *channel, int64_t timeout_ns, char **text, size_t *length) {
    const uint64_t deadline = nvlxi_deadline(timeout_ns);
    struct nvlxi_question answer = {.open = false};
    int code = NVLX_ETIMEDOUT;
    pthread_mutex_lock(&channel->mutex);
    if (begin_question(channel, deadline)) {
        await_answer(channel, deadline);
        code = end_question(channel, &answer);
    }
    pthread_mutex_unlock(&channel->mutex);
    if (!code) {
        *text = answer.text;
        *length = answer.length;
        return 0;
    }
    if (answer.answered)
        return nvlxi_fail(code, "the peer at \"%s\" does not tell its counts: %s", channel->connection->address,
                          answer.reason);
    const int gone = nvlxi_peer_check(channel->peer);
    return gone ? gone : fail_late(channel, timeout_ns);
}

/* With a NUL behind it, whatever is in it. */
static char *copy_text(const char *text, size_t length) {
    char *copy = malloc(length + 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

int nvlxi_report_come(struct nvlxi_channel *channel, const struct nvlxi_inbox *in) {
    struct nvlxi_question *question = &channel->question;
    struct nvlxi_protocol_report report;
    int code = nvlxi_protocol_get_report(in->body, in->header.length, &report);
    if (code)
        return code;
    pthread_mutex_lock(&channel->mutex);
    const bool awaited = question->open && !question->answered && question->number == report.number;
    if (awaited) {
        question->answered = true;
        question->code = report.refusal.code;
        snprintf(question->reason, sizeof question->reason, "%s", report.refusal.text);
        question->text = report.refusal.code ? NULL : copy_text(report.text, report.length);
        question->length = report.length;
        if (!report.refusal.code && !question->text) {
            question->code = NVLX_ENOMEM;
            snprintf(question->reason, sizeof question->reason, "no memory here for %zu bytes", report.length);
        }
        pthread_cond_broadcast(&channel->news);
    }
    pthread_mutex_unlock(&channel->mutex);
    return 0;
}
