/* Requests for files over a follower's connection. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/files/channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"

#define ASK_MAX      8u  /* files asked for at a time */
#define STOCK_MAX    24u /* files asked for and not taken: some in the stock, some on their way, some being exported */
#define SEND_REST_NS UINT64_C(1000000) /* where the socket is full of questions */

struct nvlxi_request_for_files {
    struct nvlxi_source source;
    struct nvlxi_channel *channel;
    uint32_t number;
    uint64_t generation;
    int64_t patience_ns;
    int code;             /* 0 while OPEN */
    char reason[256];     /* the server's; "": this process has no room for what it gives */
    int stock[STOCK_MAX]; /* a ring: received and not taken */
    size_t asked, received, taken;
    struct nvlxi_request_for_files *prev, *next;
    size_t count;
    struct nvlxi_protocol_file wanted[];
};

void nvlxi_channel_init(struct nvlxi_channel *channel, struct nvlxi_connection *connection, struct nvlx_peer *peer) {
    channel->connection = connection;
    channel->peer = peer;
    pthread_mutex_init(&channel->mutex, NULL);
    nvlxi_cond_init(&channel->news);
}

void nvlxi_channel_free(struct nvlxi_channel *channel) {
    pthread_cond_destroy(&channel->news);
    pthread_mutex_destroy(&channel->mutex);
}

/* ---- Mapping threads ----------------------------------------------------------------------------------- */

bool nvlxi_channel_await_news(struct nvlxi_channel *channel, uint64_t at, uint64_t deadline) {
    if (nvlxi_now_ns() >= deadline)
        return false;
    nvlxi_cond_wait(&channel->news, &channel->mutex, nvlxi_min(at, deadline));
    return true;
}

static bool is_full(int reason) {
    return reason == EAGAIN || reason == EINTR || reason == ENOBUFS || reason == ENOMEM;
}

/* Sends what was begun, to its end. NVLX_EAGAIN (not logged): not now. Under the mutex. */
static int send_rest(struct nvlxi_channel *channel) {
    while (channel->rest_length && !channel->ended) {
        ssize_t count =
            send(channel->connection->socket, channel->rest, channel->rest_length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0)
            return is_full(errno) ? NVLX_EAGAIN : 0;
        channel->rest_length -= (size_t)count;
        memmove(channel->rest, channel->rest + count, channel->rest_length);
    }
    return 0;
}

/* Sends a message, if it can go at once. NVLX_EAGAIN (not logged): not now. That the other end has gone is found out by
 * the service thread. Under the mutex. */
static int send_message(struct nvlxi_channel *channel, const uint8_t *bytes, size_t length) {
    int code = send_rest(channel);
    if (code || channel->ended || !length)
        return code;
    ssize_t count = send(channel->connection->socket, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0)
        return is_full(errno) ? NVLX_EAGAIN : 0;
    channel->rest_length = length - (size_t)count;
    memcpy(channel->rest, bytes + count, channel->rest_length);
    return 0;
}

/* Asks for some more. Under the mutex. */
static int ask(struct nvlxi_request_for_files *request) {
    uint8_t message[NVLXI_PROTOCOL_ASK_MAX];
    const size_t count = nvlxi_min(request->count - request->asked, ASK_MAX);
    size_t length = nvlxi_protocol_put_ask(message, request->number, &request->wanted[request->asked], count);
    int code = send_message(request->channel, message, length);
    if (!code)
        request->asked += count;
    return code;
}

/* Asks for as many as there is room for: before what was asked for has come, so that the server goes on without a
 * pause. Under the mutex. */
static int ask_ahead(struct nvlxi_request_for_files *request) {
    int code = 0;
    while (!code && !request->code && request->asked < request->count &&
           request->asked - request->taken + ASK_MAX <= STOCK_MAX)
        code = ask(request);
    return code;
}

/* Waits until there is a file in the stock; then 0. Else why there will be none, not logged. Under the mutex. */
static int await_stock(struct nvlxi_request_for_files *request) {
    struct nvlxi_channel *channel = request->channel;
    uint64_t deadline = nvlxi_deadline(request->patience_ns);
    while (request->received == request->taken) {
        if (channel->ended)
            return NVLX_ESTALE;
        if (request->code)
            return request->code;
        uint64_t at = ask_ahead(request) ? nvlxi_now_ns() + SEND_REST_NS : UINT64_MAX;
        if (!nvlxi_channel_await_news(channel, at, deadline))
            return NVLX_ETIMEDOUT;
    }
    return 0;
}

/* Tells why there is no file. */
static int fail_take(const struct nvlxi_request_for_files *request, int code) {
    const struct nvlxi_channel *channel = request->channel;
    int gone = nvlxi_peer_check(channel->peer);
    if (gone)
        return gone;
    if (code == NVLX_ESTALE && nvlxi_peer_generation(channel->peer) != request->generation)
        return NVLX_EAGAIN;
    if (request->code && !request->reason[0])
        return nvlxi_fail(code, "no room for file descriptors from \"%s\": too many open files in this process",
                          channel->connection->address);
    if (request->code)
        return nvlxi_fail(code, "the server at \"%s\" refuses: %s", channel->connection->address, request->reason);
    return nvlxi_fail(code, "the server at \"%s\" does not give out the file descriptors",
                      channel->connection->address);
}

static int take(struct nvlxi_files *files, int *fd) {
    struct nvlxi_source *source = nvlxi_container_of(files, struct nvlxi_source, files);
    struct nvlxi_request_for_files *request = nvlxi_container_of(source, struct nvlxi_request_for_files, source);
    if (request->taken == request->count)
        return nvlxi_fail(NVLX_EINVAL, "all %zu files of the mapping have been taken", request->count);
    pthread_mutex_lock(&request->channel->mutex);
    int code = await_stock(request);
    if (!code) {
        *fd = request->stock[request->taken++ % STOCK_MAX];
        ask_ahead(request); /* if it cannot be sent now, then when it is needed */
    }
    pthread_mutex_unlock(&request->channel->mutex);
    return code ? fail_take(request, code) : 0;
}

/* Under the mutex. */
static void close_stock(struct nvlxi_request_for_files *request) {
    for (; request->taken < request->received; request->taken++)
        close(request->stock[request->taken % STOCK_MAX]);
}

/* That nothing is asked for any more is told if it can be; the server finds out by itself, but later. */
static void close_request(struct nvlxi_source *source) {
    struct nvlxi_request_for_files *request = nvlxi_container_of(source, struct nvlxi_request_for_files, source);
    struct nvlxi_channel *channel = request->channel;
    uint8_t done[NVLXI_PROTOCOL_SHORT_MAX];
    pthread_mutex_lock(&channel->mutex);
    DL_DELETE(channel->requests, request);
    close_stock(request);
    if (!channel->requests)
        send_message(channel, done, nvlxi_protocol_put_done(done));
    pthread_mutex_unlock(&channel->mutex);
    free(request);
}

int nvlxi_channel_open(struct nvlxi_channel *channel, const struct nvlxi_segment_record *segments, size_t count,
                       uint64_t generation, int64_t patience_ns, struct nvlxi_source **source) {
    struct nvlxi_request_for_files *made = calloc(1, sizeof *made + count * sizeof made->wanted[0]);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to fetch the files of %zu segments", count);
    made->source = (struct nvlxi_source){.files = {.take = take}, .close = close_request};
    made->channel = channel;
    made->generation = generation;
    made->patience_ns = patience_ns;
    for (size_t i = 0; i < count; i++)
        if (segments[i].file)
            made->wanted[made->count++] = (struct nvlxi_protocol_file){segments[i].base, segments[i].serial};
    pthread_mutex_lock(&channel->mutex);
    made->number = ++channel->last;
    DL_APPEND(channel->requests, made);
    if (made->count)
        ask(made); /* at once: from then on the peer does not change under the mapping */
    pthread_mutex_unlock(&channel->mutex);
    *source = &made->source;
    return 0;
}

/* ---- The service thread -------------------------------------------------------------------------------- */

/* Under the mutex. */
static struct nvlxi_request_for_files *find_request(const struct nvlxi_channel *channel, uint32_t number) {
    struct nvlxi_request_for_files *request;
    DL_FOREACH(channel->requests, request) {
        if (request->number == number && !request->code)
            return request;
    }
    return NULL;
}

/* Under the mutex. */
static void end_request(struct nvlxi_channel *channel, struct nvlxi_request_for_files *request, int code,
                        const char *reason) {
    request->code = code;
    snprintf(request->reason, sizeof request->reason, "%s", reason);
    pthread_cond_broadcast(&channel->news);
}

/* Moves files to the stock, or closes them where nobody waits for them any more. Under the mutex. */
static int stock_up(struct nvlxi_channel *channel, uint32_t number, size_t announced,
                    struct nvlxi_connection_files *files) {
    struct nvlxi_request_for_files *request = find_request(channel, number);
    if (files->lost) {
        if (request)
            end_request(channel, request, NVLX_ENOMEM, "");
        return 0;
    }
    if (announced != files->count || (request && announced > request->asked - request->received))
        return nvlxi_fail(NVLX_EFORMAT, "the server at \"%s\" announced %zu file descriptors and sent %zu, of %zu",
                          channel->connection->address, announced, files->count,
                          request ? request->asked - request->received : 0);
    for (size_t i = 0; request && i < announced; i++)
        request->stock[request->received++ % STOCK_MAX] = files->fds[i];
    if (request)
        files->count = 0;
    pthread_cond_broadcast(&channel->news);
    return 0;
}

int nvlxi_channel_given(struct nvlxi_channel *channel, const struct nvlxi_inbox *in,
                        struct nvlxi_connection_files *files) {
    uint32_t number;
    size_t announced;
    int code = nvlxi_protocol_get_given(in->body, &number, &announced);
    if (code)
        return code;
    pthread_mutex_lock(&channel->mutex);
    code = stock_up(channel, number, announced, files);
    pthread_mutex_unlock(&channel->mutex);
    return code;
}

int nvlxi_channel_denied(struct nvlxi_channel *channel, const struct nvlxi_inbox *in) {
    struct nvlxi_protocol_refusal refusal;
    uint32_t number;
    int code = nvlxi_protocol_get_denied(in->body, in->header.length, &number, &refusal);
    if (code)
        return code;
    pthread_mutex_lock(&channel->mutex);
    struct nvlxi_request_for_files *request = find_request(channel, number);
    if (request)
        end_request(channel, request, refusal.code, refusal.text);
    pthread_mutex_unlock(&channel->mutex);
    return 0;
}

bool nvlxi_channel_tell_holds(struct nvlxi_channel *channel, const struct nvlxi_protocol_holds *holds) {
    uint8_t message[NVLXI_PROTOCOL_SHORT_MAX];
    const size_t length = nvlxi_protocol_put_holds(message, holds, channel->connection->minor >= 6);
    pthread_mutex_lock(&channel->mutex);
    int code = send_message(channel, message, length);
    pthread_mutex_unlock(&channel->mutex);
    return code != NVLX_EAGAIN;
}

bool nvlxi_channel_send(struct nvlxi_channel *channel, const uint8_t *bytes, size_t length) {
    pthread_mutex_lock(&channel->mutex);
    int code = send_message(channel, bytes, length);
    const bool whole = !channel->rest_length;
    pthread_mutex_unlock(&channel->mutex);
    return code != NVLX_EAGAIN && (length || whole);
}

void nvlxi_channel_end(struct nvlxi_channel *channel) {
    pthread_mutex_lock(&channel->mutex);
    channel->ended = true;
    pthread_cond_broadcast(&channel->news);
    pthread_mutex_unlock(&channel->mutex);
}
