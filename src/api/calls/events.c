/* The exported functions of events and messages. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "api/abi.h"
#include "api/engine.h"
#include "api/messages.h"
#include "base/error.h"

int nvlx_event_fd(struct nvlx_engine *engine, int *fd) {
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(fd, "fd")))
        return code;
    return nvlxi_events_fd(&engine->events, fd);
}

static void tell_how(struct nvlx_engine *engine, struct nvlx_event *event) {
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    event->status = nvlxi_waits_status(&engine->waits, event->wait);
    snprintf(event->reason, sizeof event->reason, "%s", nvlx_last_error());
    nvlxi_attempt_end(&attempt, 0);
}

static int next_event(struct nvlx_engine *engine, struct nvlx_event *event) {
    struct nvlx_event made = {0};
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(event, "event")))
        return code;
    /* before an event is read, which else were lost */
    const struct nvlx_event empty = {0};
    const struct nvlxi_array reason = {offsetof(struct nvlx_event, reason), offsetof(struct nvlx_event, wait)};
    if ((code = nvlxi_struct_give(event, &empty, sizeof empty, reason, "nvlx_event")) ||
        (code = nvlxi_events_next(&engine->events, &made)))
        return code;
    if (made.kind == NVLX_EVENT_WAIT_FAILED)
        tell_how(engine, &made);
    if (made.kind == NVLX_EVENT_MESSAGE)
        made.peer = nvlxi_clients_find(&engine->rendezvous.clients, made.engine);
    return nvlxi_struct_give(event, &made, sizeof made, reason, "nvlx_event");
}

int nvlx_next_event(struct nvlx_engine *engine, struct nvlx_event *event) {
    return next_event(engine, event);
}

/* ---- Messages ------------------------------------------------------------------------------------------ */

static int check_message(const void *message, size_t length) {
    if (length > NVLXI_MESSAGE_MAX)
        return nvlxi_fail(NVLX_EINVAL, "a message of %zu bytes: at most %u", length, NVLXI_MESSAGE_MAX);
    return length ? nvlxi_pointer_check(message, "message") : 0;
}

int nvlx_send(struct nvlx_peer *peer, const void *message, size_t length) {
    struct nvlxi_outbox *outbox;
    int code = nvlxi_pointer_check(peer, "peer");
    if (code || (code = nvlxi_engine_check(peer->engine)) || (code = check_message(message, length)) ||
        (code = nvlxi_rendezvous_outbox(peer, &outbox)))
        return code;
    return nvlxi_outbox_send(outbox, message, length);
}

/* ---- What transfers ask for ---------------------------------------------------------------------------- */

int nvlxi_message_peer(const struct nvlx_op *ops, size_t count, struct nvlx_peer **peer) {
    for (size_t i = 0; i < count; i++)
        if (!ops[i].peer || ops[i].peer != ops[0].peer)
            return nvlxi_fail(NVLX_EINVAL, "ops[%zu] is for another peer than ops[0]: a message goes to one", i);
    if (!count)
        return nvlxi_fail(NVLX_EINVAL, "a message goes to the peer of the ops, and there is none");
    *peer = ops[0].peer;
    return 0;
}

int nvlxi_request_check(struct nvlx_request **request, const struct nvlx_transfer_options *options) {
    return options->stream ? 0 : nvlxi_pointer_check(request, "request");
}

int nvlxi_asked_make(const struct nvlx_transfer_options *options, struct nvlx_peer *peer, struct nvlx_request **request,
                     struct nvlxi_asked *asked) {
    struct nvlxi_outbox *outbox;
    *asked = (struct nvlxi_asked){.event = (options->flags & NVLX_DONE_EVENT) != 0,
                                  .user = options->user,
                                  .wanted = request ? NVLXI_WANTS_REQUEST : NVLXI_WANTS_NO_REQUEST};
    if (!options->message)
        return 0;
    int code = check_message(options->message, options->message_length);
    if (!code)
        code = nvlxi_rendezvous_outbox(peer, &outbox);
    return code ? code : nvlxi_outbox_reserve(outbox, options->message, options->message_length, &asked->letter);
}

void nvlxi_asked_undo(const struct nvlxi_asked *asked) {
    if (asked->letter)
        nvlxi_letter_cancel(asked->letter);
}
