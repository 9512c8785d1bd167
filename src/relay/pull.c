/* A reader of a relay brings pieces from its parent: see reader.h. SPDX-License-Identifier: Apache-2.0 */
#include "relay/reader.h"

#include <string.h>

static bool is_source(const struct nvlxi_relay_reader *reader, const struct nvlxi_relay_link *link) {
    return link == &reader->source;
}

/* ---- What has come --------------------------------------------------------------------------------------- */

static void place(struct nvlx_relay *relay, size_t piece) {
    struct nvlxi_relay_reader *reader = relay->reader;
    const struct nvlxi_relay_content *content = &relay->content;
    uint64_t bytes = 0;
    reader->pieces[piece] = NVLXI_RELAY_PLACED;
    for (size_t i = content->first[piece]; i < content->first[piece + 1]; i++)
        bytes += content->spans[i].length;
    pthread_mutex_lock(&relay->mutex);
    relay->info.arrived += bytes;
    relay->placed_ns = nvlxi_now_ns();
    nvlxi_relay_check_piece(relay, piece);
    pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
}

/* From another parent it may still come. */
static void miss(struct nvlx_relay *relay, const struct nvlxi_relay_flight *flight, int code) {
    struct nvlxi_relay_reader *reader = relay->reader;
    if (is_source(reader, flight->link))
        nvlxi_relay_fail_source(relay, code);
    else
        nvlxi_relay_lose(relay, flight->link);
}

static void land(struct nvlx_relay *relay, struct nvlxi_relay_flight *flight) {
    struct nvlxi_relay_reader *reader = relay->reader;
    int code = nvlx_test(flight->request);
    if (code == NVLX_EAGAIN)
        return;
    code = nvlx_request_free(flight->request);
    flight->request = NULL;
    reader->moved_ns = nvlxi_now_ns();
    if (!code) {
        place(relay, flight->piece);
        return;
    }
    reader->pieces[flight->piece] = NVLXI_RELAY_MISSING;
    reader->first = nvlxi_min(reader->first, flight->piece);
    miss(relay, flight, code);
}

/* ---- What can be read ------------------------------------------------------------------------------------ */

static bool is_ready(const struct nvlxi_relay_reader *reader, size_t piece) {
    if (is_source(reader, reader->parent))
        return true;
    return piece >= reader->seen && piece - reader->seen < NVLXI_RELAY_FLAGS &&
           reader->flags[piece - reader->seen] == reader->generation;
}

/* The next piece to be read: one that is missing, and in place there. */
static bool find_piece(const struct nvlx_relay *relay, size_t *piece) {
    const struct nvlxi_relay_reader *reader = relay->reader;
    const size_t end = nvlxi_min(relay->content.piece_count, reader->first + NVLXI_RELAY_FLAGS);
    for (*piece = reader->first; *piece < end; ++*piece)
        if (reader->pieces[*piece] == NVLXI_RELAY_MISSING && is_ready(reader, *piece))
            return true;
    return false;
}

static void skip_what_is_there(struct nvlx_relay *relay) {
    struct nvlxi_relay_reader *reader = relay->reader;
    while (reader->first < relay->content.piece_count && reader->pieces[reader->first] != NVLXI_RELAY_MISSING)
        reader->first++;
}

/* False: there is no room for it now, or the parent was lost. */
static bool start(struct nvlx_relay *relay, struct nvlxi_relay_flight *flight, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options) {
    struct nvlxi_relay_reader *reader = relay->reader;
    struct nvlxi_attempt attempt;
    flight->link = reader->parent;
    nvlxi_attempt_begin(&attempt);
    const int code = nvlx_transfer(relay->engine, ops, count, options, &flight->request);
    if (code && code != NVLX_EBUSY)
        miss(relay, flight, code);
    nvlxi_attempt_end(&attempt, 0);
    if (code)
        flight->request = NULL;
    else
        reader->moved_ns = nvlxi_now_ns();
    return code == 0;
}

/* The bytes, and the signal that they are in place. */
static bool read_piece(struct nvlx_relay *relay, struct nvlxi_relay_flight *flight, size_t piece) {
    struct nvlxi_relay_reader *reader = relay->reader;
    const struct nvlxi_relay_content *content = &relay->content;
    size_t count = 0;
    for (size_t i = content->first[piece]; i < content->first[piece + 1]; i++) {
        const struct nvlxi_relay_span *span = &content->spans[i];
        reader->ops[count++] = (struct nvlx_op){.opcode = NVLX_OP_READ,
                                                .peer = reader->parent->peer,
                                                .local = (char *)content->parts[span->part].address + span->offset,
                                                .remote = reader->parent->parts[span->part] + span->offset,
                                                .length = span->length};
    }
    reader->ops[count++] = (struct nvlx_op){
        .opcode = NVLX_OP_SIGNAL, .local = relay->state.memory + piece * sizeof(uint64_t), .arg = reader->generation};
    flight->piece = piece;
    if (!start(relay, flight, reader->ops, count, NULL))
        return false;
    reader->pieces[piece] = NVLXI_RELAY_FLYING;
    skip_what_is_there(relay);
    return true;
}

/* ---- The parent's flags ---------------------------------------------------------------------------------- */

static size_t flag_count(const struct nvlx_relay *relay, size_t first) {
    return nvlxi_min(relay->content.piece_count - first, NVLXI_RELAY_FLAGS);
}

static const struct nvlxi_relay_seen *seen_of(const struct nvlx_relay *relay, const struct nvlxi_relay_link *link) {
    return link->here ? &relay->seen_here : &relay->seen;
}

/* By a kernel, before others, where one can: a copy engine would look behind the pieces that are queued, after 110 to
 * 230 us instead of 20 (four H200). Within a process only engines reach another GPU. */
static struct nvlx_transfer_options how_to_look(const struct nvlx_relay *relay) {
    const struct nvlxi_context *context = &relay->engine->context;
    struct nvlx_transfer_options options;
    struct nvlxi_gpu_limits limits;
    nvlx_transfer_options_init(&options);
    if (relay->engine->transfers.mechanism == NVLX_MECHANISM_AUTO && !relay->reader->parent->here &&
        !context->ops->limits(context->device, relay->gpu, &limits) && limits.sms) {
        options.mechanism = NVLX_MECHANISM_KERNEL;
        options.max_sms = 1;
        options.priority = INT32_MIN;
    }
    return options;
}

static void look(struct nvlx_relay *relay) {
    struct nvlxi_relay_reader *reader = relay->reader;
    const struct nvlx_transfer_options options = how_to_look(relay);
    const uint64_t moved_ns = reader->moved_ns;
    const struct nvlx_op op = {.opcode = NVLX_OP_READ,
                               .peer = reader->parent->peer,
                               .local = seen_of(relay, reader->parent)->memory,
                               .remote = reader->parent->state + reader->first * sizeof(uint64_t),
                               .length = flag_count(relay, reader->first) * sizeof(uint64_t)};
    reader->look.piece = reader->first;
    if (start(relay, &reader->look, &op, 1, &options))
        reader->moved_ns = moved_ns; /* a look changes nothing */
}

static void see(struct nvlx_relay *relay) {
    struct nvlxi_relay_reader *reader = relay->reader;
    struct nvlxi_relay_flight *flight = &reader->look;
    int code = nvlx_test(flight->request);
    if (code == NVLX_EAGAIN)
        return;
    code = nvlx_request_free(flight->request);
    flight->request = NULL;
    if (code) {
        miss(relay, flight, code);
        return;
    }
    if (flight->link != reader->parent)
        return;
    reader->seen = flight->piece;
    memset(reader->flags, 0, sizeof reader->flags);
    code = nvlxi_relay_seen_read(relay, seen_of(relay, flight->link), 0, reader->flags,
                                 flag_count(relay, flight->piece) * sizeof(uint64_t));
    if (code)
        nvlxi_relay_fail(relay, code, nvlx_last_error());
}

/* ---- All of it ------------------------------------------------------------------------------------------- */

bool nvlxi_relay_pulls(const struct nvlx_relay *relay) {
    const struct nvlxi_relay_reader *reader = relay->reader;
    bool flies = reader->look.request != NULL;
    for (size_t i = 0; i < NVLXI_RELAY_FLIGHTS; i++)
        flies |= reader->flights[i].request != NULL;
    return flies || (reader->parent && reader->first < relay->content.piece_count);
}

void nvlxi_relay_pull(struct nvlx_relay *relay) {
    struct nvlxi_relay_reader *reader = relay->reader;
    size_t piece;
    for (size_t i = 0; i < NVLXI_RELAY_FLIGHTS; i++)
        if (reader->flights[i].request)
            land(relay, &reader->flights[i]);
    if (reader->look.request)
        see(relay);
    for (size_t i = 0; i < NVLXI_RELAY_FLIGHTS && reader->parent; i++) {
        if (reader->flights[i].request)
            continue;
        if (find_piece(relay, &piece)) {
            if (!read_piece(relay, &reader->flights[i], piece))
                return;
        } else if (reader->first < relay->content.piece_count && !is_source(reader, reader->parent) &&
                   !reader->look.request) {
            look(relay);
        }
    }
}

void nvlxi_relay_pull_end(struct nvlx_relay *relay) {
    struct nvlxi_relay_reader *reader = relay->reader;
    for (size_t i = 0; i < NVLXI_RELAY_FLIGHTS; i++)
        nvlx_request_free(reader->flights[i].request);
    nvlx_request_free(reader->look.request);
    memset(reader->flights, 0, sizeof reader->flights);
    reader->look.request = NULL;
}

void nvlxi_relay_pull_begin(struct nvlx_relay *relay) {
    struct nvlxi_relay_reader *reader = relay->reader;
    nvlxi_relay_pull_end(relay);
    memset(reader->pieces, NVLXI_RELAY_MISSING, relay->content.piece_count);
    memset(reader->flags, 0, sizeof reader->flags);
    reader->first = reader->seen = 0;
}
