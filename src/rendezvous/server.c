/* Serves the descriptor and files to all connections, and waits for none. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rendezvous/server.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/base.h"
#include "base/error.h"
#include "base/fork_files.h"
#include "base/log.h"
#include "rendezvous/connection.h"
#include "rendezvous/files/fd_give.h"
#include "rendezvous/messages/mailbox.h"
#include "rendezvous/news.h"
#include "rendezvous/report.h"

#define ACCEPT_REST_NS UINT64_C(100000000)  /* after accept found no room for a file descriptor */
#define WHOLE_PATIENCE UINT64_C(3000000000) /* without a whole text; then followers hear that they cannot be told */
#define ACCEPTS_A_TURN 16
#define INPUTS_A_TURN  32
#define LOOK_REST      10                   /* times what a look for memory that was freed took, until the next */
#define MAPPING_NS     UINT64_C(1000000000) /* a follower that maps gets no text, unless it does not go on */

enum state { STRANGER, SUBSCRIBER, FETCHER, CUT_OFF };

struct connection {
    int socket;
    enum state state;
    struct nvlxi_watch watch;
    uint64_t since; /* when it made progress last */
    struct nvlxi_inbox in;
    uint8_t head[NVLXI_PROTOCOL_SHORT_MAX]; /* what is being sent: a short message, or the header of a text, ... */
    size_t head_length, sent;               /* sent: of both */
    struct nvlxi_text *text;                /* ... then the text, or NULL */
    uint64_t subscribed;                    /* when its HELLO came */
    bool told, knows;                       /* a text was begun: of this generation; one was sent */
    uint64_t generation;
    bool behind; /* what has changed since is not known any more: it takes a whole text */
    struct nvlxi_giving giving;
    unsigned minor; /* version of the protocol that it speaks */
    struct nvlxi_follower follower;
    struct nvlxi_mailbox mailbox;
    uint64_t mapping; /* a subscriber maps something, until then */
    int denied;       /* what it asked for, with this code; 0: nothing, or it was told */
    uint64_t denied_at;
    char denied_why[NVLXI_PROTOCOL_REASON_MAX + 1];
    bool asks_counts;
    uint32_t question; /* number of that STATS */
    struct connection *prev, *next;
};

struct nvlxi_server {
    struct nvlxi_listener listener;
    struct nvlxi_watch listener_watch;
    struct nvlxi_watcher *watcher;
    struct nvlxi_publisher *publisher;
    struct nvlxi_revocations *revocations;
    struct nvlxi_events *events;
    const struct nvlxi_server_times *times;
    struct nvlxi_reporter reporter;
    size_t max_connections, count;
    struct connection *connections; /* list */
    struct nvlxi_news news;
    uint64_t look_due;   /* no look for memory that was freed before */
    uint64_t accept_due; /* nobody is let in before */
    bool accept_fails;   /* which was logged */
};

/* ---- Sending ------------------------------------------------------------------------------------------- */

static bool is_sending(const struct connection *c) {
    return c->sent < c->head_length + (c->text ? c->text->length : 0);
}

static void begin_sending(struct connection *c, size_t head_length) {
    c->head_length = head_length;
    c->sent = 0;
    c->since = nvlxi_now_ns();
}

/* Returns 0, NVLX_EAGAIN (not logged) or NVLX_ESTALE (not logged: it has gone). */
static int send_more(struct connection *c) {
    while (is_sending(c)) {
        bool in_head = c->sent < c->head_length;
        const void *bytes =
            in_head ? (const void *)(c->head + c->sent) : (const void *)(c->text->bytes + (c->sent - c->head_length));
        size_t length = in_head ? c->head_length - c->sent : c->text->length - (c->sent - c->head_length);
        ssize_t count = send(c->socket, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? NVLX_EAGAIN : NVLX_ESTALE;
        c->sent += (size_t)count;
        c->since = nvlxi_now_ns();
    }
    c->knows = c->knows || c->text;
    nvlxi_text_drop(c->text);
    c->text = NULL;
    return 0;
}

/* Who speaks an older version cannot say what it holds. */
static bool is_follower(const struct connection *c) {
    return c->state == SUBSCRIBER && c->minor >= 2;
}

/* The generation may have become unwanted in this moment: then nothing is sent. */
static void begin_text(const struct nvlxi_server *server, struct connection *c, struct nvlxi_text *text) {
    if (is_follower(c) && !nvlxi_follower_tell(server->revocations, &c->follower, text->generation))
        return;
    text->users++;
    c->text = text;
    c->told = true;
    c->generation = text->generation;
    c->behind = false;
    begin_sending(c, text->from ? nvlxi_protocol_put_changes(c->head, text->length)
                                : nvlxi_protocol_put_text(c->head, text->length));
}

static bool takes_changes(const struct connection *c) {
    return c->state == SUBSCRIBER && c->told && c->minor >= 3 && !c->behind;
}

/* Whether what a subscriber was told is not all there is. */
static bool is_late(const struct nvlxi_server *server, const struct connection *c) {
    const struct nvlxi_text *whole = server->news.whole;
    if (takes_changes(c))
        return c->generation < server->news.newest;
    return whole && (!c->told || c->generation < whole->generation);
}

/* The first one must have all that was registered before the client came. */
static bool is_new_enough(const struct nvlxi_server *server, const struct connection *c) {
    return c->told || server->news.whole->begun > c->subscribed || nvlxi_news_whole_is_newest(&server->news);
}

/* What a subscriber is to be told now, or NULL. What a client maps must not change meanwhile: it would have to begin
 * again, maybe for ever. */
static struct nvlxi_text *find_text(struct nvlxi_server *server, struct connection *c) {
    struct nvlxi_text *text = NULL;
    if (c->state != SUBSCRIBER || !is_late(server, c) || (c->told && nvlxi_now_ns() < c->mapping))
        return NULL;
    if (takes_changes(c))
        text = nvlxi_news_since(&server->news, c->generation, c->minor >= 4, &c->behind);
    if (!takes_changes(c) && is_late(server, c) && is_new_enough(server, c))
        text = server->news.whole;
    return text && text->generation >= nvlxi_revocations_wanted(server->revocations) ? text : NULL;
}

/* Whether a subscriber is to be told that it cannot be told how things are: at once if it knows nothing yet, or if that
 * will not change by itself; else when it has lasted. A picture that is not true any more is worse than none. */
static bool is_hopeless(const struct nvlxi_server *server, const struct connection *c) {
    const struct nvlxi_news *news = &server->news;
    if (c->state != SUBSCRIBER || takes_changes(c) || !news->failure || (!c->told && c->subscribed > news->failed))
        return false;
    return !c->told || news->failure == NVLX_EINVAL || news->failed - news->failing >= WHOLE_PATIENCE;
}

bool nvlxi_server_changed(struct nvlxi_server *server) {
    return nvlxi_news_changed(&server->news);
}

/* What kinds of texts subscribers need. */
static struct nvlxi_readers count_readers(const struct nvlxi_server *server) {
    struct nvlxi_readers readers = {0};
    const struct connection *c;
    DL_FOREACH(server->connections, c) {
        readers.changes += takes_changes(c);
        readers.whole += c->state == SUBSCRIBER && !takes_changes(c);
    }
    return readers;
}

/* ---- Files --------------------------------------------------------------------------------------------- */

/* A fetcher is told at once that it does not get the rest, a subscriber when it is time. */
static void deny(struct connection *c, int code) {
    if (c->state == FETCHER) {
        begin_sending(c, nvlxi_protocol_put_refusal(c->head, code, nvlx_last_error()));
        return;
    }
    c->mapping = 0;
    c->denied = code;
    c->denied_at = nvlxi_now_ns();
    snprintf(c->denied_why, sizeof c->denied_why, "%s", nvlx_last_error());
}

/* A subscriber that is denied what was withdrawn is first told that it was withdrawn. */
static bool may_tell_denial(const struct nvlxi_server *server, const struct connection *c) {
    if (!c->denied || is_sending(c))
        return false;
    if (c->denied != NVLX_ESTALE || (server->news.failure && !takes_changes(c)))
        return true;
    if (is_late(server, c))
        return false;
    return takes_changes(c) ? nvlxi_news_has_all_before(&server->news, c->denied_at)
                            : server->news.whole && (server->news.whole->begun > c->denied_at ||
                                                     nvlxi_news_whole_is_newest(&server->news));
}

static void go_on_mapping(struct connection *c) {
    if (c->state == SUBSCRIBER)
        c->mapping = nvlxi_now_ns() + MAPPING_NS;
}

static int give_files(struct nvlxi_server *server, struct connection *c) {
    size_t before = c->giving.given;
    int code = nvlxi_giving_go_on(&c->giving, c->socket, server->publisher->registration,
                                  nvlxi_giving_share(server->max_connections));
    if (c->giving.denied) {
        deny(c, c->giving.denied);
        if (c->giving.denied == NVLX_ESTALE) /* who withdrew it may not have come to say so yet */
            nvlxi_news_changed(&server->news);
    } else if (!code && c->giving.given > before) {
        c->since = nvlxi_now_ns();
        go_on_mapping(c);
    }
    return code;
}

/* ---- Receiving ----------------------------------------------------------------------------------------- */

/* Who comes is told of no memory that was freed. A look is a call of the driver for each segment: not too often. */
static void look_for_freed(struct nvlxi_server *server) {
    const uint64_t begin = nvlxi_now_ns();
    struct nvlxi_attempt looking;
    if (begin < server->look_due)
        return;
    nvlxi_attempt_begin(&looking);
    nvlxi_registration_check(server->publisher->registration);
    nvlxi_attempt_note(&looking, NVLX_LOG_DEBUG, "cannot tell which memory was freed");
    server->look_due = begin + LOOK_REST * (nvlxi_now_ns() - begin);
}

static int welcome(struct nvlxi_server *server, struct connection *c) {
    enum nvlxi_protocol_role role;
    int code = nvlxi_protocol_get_hello(c->in.body, &role, &c->minor);
    if (code)
        return code;
    c->state = role == NVLXI_PROTOCOL_SUBSCRIBER ? SUBSCRIBER : FETCHER;
    c->subscribed = c->since;
    look_for_freed(server);
    begin_sending(c, nvlxi_protocol_put_welcome(c->head, server->publisher->registration->context->identity.engine));
    return 0;
}

static int take_holds(struct nvlxi_server *server, struct connection *c) {
    struct nvlxi_protocol_holds holds;
    int code = nvlxi_protocol_get_holds(c->in.body, c->in.header.length, &holds);
    if (code)
        return code;
    const struct nvlxi_held held = {holds.transfers, holds.mappings, holds.graphs};
    return nvlxi_follower_answers(server->revocations, &c->follower, holds.generation, &held);
}

/* A whole message has come. It is no progress of who does not take what is being sent. */
static int obey(struct nvlxi_server *server, struct connection *c) {
    c->since = is_sending(c) ? c->since : nvlxi_now_ns();
    if (c->state == STRANGER && c->in.header.type == NVLXI_PROTOCOL_HELLO)
        return welcome(server, c);
    if (c->state == FETCHER && c->in.header.type == NVLXI_PROTOCOL_FETCH)
        return nvlxi_giving_begin(&c->giving, false, c->in.body, c->in.header.length);
    if (c->state == SUBSCRIBER && c->in.header.type == NVLXI_PROTOCOL_ASK) {
        go_on_mapping(c);
        return nvlxi_giving_begin(&c->giving, true, c->in.body, c->in.header.length);
    }
    if (c->state == SUBSCRIBER && c->in.header.type == NVLXI_PROTOCOL_DONE) {
        c->mapping = 0;
        return 0;
    }
    if (is_follower(c) && c->in.header.type == NVLXI_PROTOCOL_HOLDS)
        return take_holds(server, c);
    if (c->state == SUBSCRIBER && c->minor >= 3 && c->in.header.type == NVLXI_PROTOCOL_MESSAGE)
        return nvlxi_mailbox_receive(server->events, &c->mailbox, c->follower.pid, c->in.body, c->in.header.length);
    if (c->state == SUBSCRIBER && c->knows && c->minor >= 5 && c->in.header.type == NVLXI_PROTOCOL_STATS) {
        c->asks_counts = true;
        return nvlxi_protocol_get_stats(c->in.body, &c->question);
    }
    return nvlxi_fail(NVLX_EFORMAT, "a message of type %u out of turn", (unsigned)c->in.header.type);
}

static bool is_giving(const struct connection *c) {
    return nvlxi_giving_is_open(&c->giving);
}

/* Who asks for files is not listened to while it is being served. */
static bool listens(const struct connection *c) {
    return !is_giving(c) && !c->denied && (c->state != FETCHER || !is_sending(c));
}

/* What is there by now, up to a share of the turn. */
static int take_input(struct nvlxi_server *server, struct connection *c) {
    int code = 0;
    for (int i = 0; i < INPUTS_A_TURN && listens(c) && !code; i++) {
        const size_t before = c->in.have;
        code = nvlxi_inbox_fill(&c->in, c->socket, NULL);
        if (code == NVLX_EAGAIN && c->in.have == before)
            return 0;
        if (code == NVLX_EAGAIN) {
            code = 0;
        } else if (!code) {
            code = obey(server, c);
            nvlxi_inbox_clear(&c->in);
        }
    }
    return code;
}

/* What a connection that has ended has sent before: its messages are not lost. */
static void take_rest(struct nvlxi_server *server, struct connection *c) {
    uint64_t most = 2 * NVLXI_MESSAGE_WINDOW / NVLXI_MESSAGE_COST; /* headers and bodies */
    for (int code = 0; (!code || code == NVLX_EAGAIN) && most > 0; most--) {
        code = nvlxi_inbox_fill(&c->in, c->socket, NULL);
        if (code == 0 && c->in.header.type == NVLXI_PROTOCOL_MESSAGE)
            code = obey(server, c);
        if (code != NVLX_EAGAIN)
            nvlxi_inbox_clear(&c->in);
    }
}

/* ---- Messages ------------------------------------------------------------------------------------------ */

static int tell_taken(struct nvlxi_server *server, struct connection *c) {
    struct nvlxi_protocol_taken taken;
    if (!nvlxi_mailbox_tell(server->events, &c->mailbox, &taken))
        return 0;
    begin_sending(c, nvlxi_protocol_put_taken(c->head, &taken));
    return send_more(c);
}

static int tell_counts(const struct nvlxi_server *server, struct connection *c) {
    c->asks_counts = false;
    begin_sending(c, nvlxi_report_make(&server->reporter, c->question, c->head, &c->text));
    return send_more(c);
}

/* ---- Connections --------------------------------------------------------------------------------------- */

static void remove_connection(struct nvlxi_server *server, struct connection *c) {
    DL_DELETE(server->connections, c); /* NOLINT(clang-analyzer-core.NullDereference): the list has it */
    server->count--;
    if (is_follower(c) && c->knows)
        nvlxi_log(NVLX_LOG_INFO, "process %d does not follow the server at \"%s\" any more", (int)c->follower.pid,
                  server->listener.address);
    nvlxi_follower_gone(server->revocations, &c->follower);
    nvlxi_inbox_clear(&c->in);
    nvlxi_text_drop(c->text);
    nvlxi_mailbox_close(server->events, &c->mailbox);
    nvlxi_unwatch(server->watcher, &c->watch);
    shutdown(c->socket, SHUT_RDWR); /* a child that is about to exec may have it as well */
    nvlxi_fork_files_close(c->socket);
    free(c);
}

/* Says why, if it can be said without waiting and not in the middle of something else. */
static void send_reason(int socket, int code) {
    uint8_t message[NVLXI_PROTOCOL_SHORT_MAX];
    size_t length = nvlxi_protocol_put_refusal(message, code, nvlx_last_error());
    if (send(socket, message, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        nvlxi_log(NVLX_LOG_DEBUG, "a client did not take the reason why it is refused: %s", strerror(errno));
}

/* A follower may map what it was told of: it is waited for until its own half of the connection ends. The other one's
 * end tells it to let go. */
static void cut_off(struct nvlxi_server *server, struct connection *c) {
    nvlxi_follower_cut_off(server->revocations, &c->follower);
    shutdown(c->socket, SHUT_WR);
    nvlxi_inbox_clear(&c->in);
    nvlxi_text_drop(c->text);
    nvlxi_mailbox_close(server->events, &c->mailbox);
    c->text = NULL;
    c->head_length = c->sent = 0;
    c->giving = (struct nvlxi_giving){0};
    c->denied = 0;
    c->mapping = 0;
    c->state = CUT_OFF;
}

static void drop(struct nvlxi_server *server, struct connection *c, int code) {
    if (code != NVLX_ESTALE && !is_sending(c))
        send_reason(c->socket, code);
    if (code != NVLX_ESTALE && is_follower(c) && c->knows)
        cut_off(server, c);
    else
        remove_connection(server, c);
}

/* What comes from one that is cut off is read, so that its end is seen. NVLX_ESTALE, not logged: this is it. */
static int drop_input(const struct connection *c, uint32_t events) {
    char ignored[4096];
    ssize_t count = 1;
    for (int i = 0; i < INPUTS_A_TURN && events && count > 0; i++)
        count = recv(c->socket, ignored, sizeof ignored, MSG_DONTWAIT);
    return count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR)) ? 0 : NVLX_ESTALE;
}

static uint64_t patience_with(const struct nvlxi_server *server, const struct connection *c) {
    return atomic_load(c->state == STRANGER ? &server->times->hello_ns : &server->times->stall_ns);
}

/* When it will be dropped unless it makes progress. */
static uint64_t deadline_of(const struct nvlxi_server *server, const struct connection *c) {
    bool is_due = c->state != SUBSCRIBER || is_sending(c) || is_giving(c);
    return is_due && c->state != CUT_OFF ? c->since + patience_with(server, c) : UINT64_MAX;
}

static int serve(struct nvlxi_server *server, struct connection *c, uint32_t events) {
    struct nvlxi_text *text;
    int code = 0;
    if (c->state == CUT_OFF)
        return drop_input(c, events);
    if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN))
        return NVLX_ESTALE;
    if (events & EPOLLIN)
        code = take_input(server, c);
    if (!code && is_sending(c))
        code = send_more(c);
    if (!code && !is_sending(c))
        code = tell_taken(server, c);
    if (!code && c->asks_counts && !is_sending(c))
        code = tell_counts(server, c);
    if (!code && is_giving(c) && !is_sending(c))
        code = give_files(server, c);
    if (!code && !is_sending(c) && (text = find_text(server, c))) {
        begin_text(server, c, text);
        code = send_more(c);
    }
    if (!code && !is_sending(c) && is_follower(c) && nvlxi_follower_ask(server->revocations, &c->follower)) {
        begin_sending(c, nvlxi_protocol_put_await(c->head, c->generation));
        code = send_more(c);
    }
    if (!code && may_tell_denial(server, c)) {
        begin_sending(c, nvlxi_protocol_put_denied(c->head, c->giving.request, c->denied, c->denied_why));
        c->denied = 0;
        code = send_more(c);
    }
    if (!code && is_hopeless(server, c))
        return nvlxi_fail_again(server->news.failure, server->news.reason);
    if ((!code || code == NVLX_EAGAIN) && nvlxi_now_ns() >= deadline_of(server, c))
        return nvlxi_fail(NVLX_ETIMEDOUT, "a client of \"%s\" made no progress for %" PRIu64 " s",
                          server->listener.address, patience_with(server, c) / 1000000000);
    return code == NVLX_EAGAIN ? 0 : code;
}

static int admit(struct nvlxi_server *server, int socket) {
    pid_t pid = 0;
    int code = nvlxi_listener_admits(&server->listener, socket, &pid);
    if (code)
        return code;
    if (server->count >= server->max_connections)
        return nvlxi_fail(NVLX_EBUSY, "%zu connections are open already: as many as max_connections allows",
                          server->count);
    struct connection *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a connection");
    if ((code = nvlxi_watch(server->watcher, &made->watch, socket, EPOLLIN))) {
        free(made);
        return code;
    }
    made->socket = socket;
    made->follower.pid = pid;
    made->since = nvlxi_now_ns();
    DL_APPEND(server->connections, made);
    server->count++;
    nvlxi_watcher_make_room(server->watcher, socket); /* it may ask for files */
    return 0;
}

/* Who waits keeps waiting; asking again at once would only turn in circles. Said once until somebody is let in. */
static void rest_from_accepting(struct nvlxi_server *server, int reason) {
    if (reason == EAGAIN)
        return;
    if (!server->accept_fails)
        nvlxi_log(NVLX_LOG_WARNING, "nobody can be let in at \"%s\" now: %s", server->listener.address,
                  strerror(reason));
    server->accept_fails = true;
    server->accept_due = nvlxi_now_ns() + ACCEPT_REST_NS;
}

/* As nvlxi_fork_files_accept, but keeps one file descriptor free, to give files out: else who was let in would wait for
 * those of others who wait as well. */
static int accept_one(const struct nvlxi_server *server) {
    struct pollfd listener = {.fd = server->listener.socket, .events = POLLIN};
    if (nvlxi_fork_files_room(listener.fd, 2) == 2)
        return nvlxi_fork_files_accept(listener.fd);
    errno = poll(&listener, 1, 0) > 0 ? EMFILE : EAGAIN;
    return -1;
}

static void accept_some(struct nvlxi_server *server) {
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int socket = accept_one(server);
        if (socket < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (socket < 0) {
            rest_from_accepting(server, errno);
            return;
        }
        server->accept_fails = false;
        int code = admit(server, socket);
        if (code) {
            send_reason(socket, code);
            nvlxi_fork_files_close(socket);
        }
    }
}

/* ---- The server ---------------------------------------------------------------------------------------- */

int nvlxi_server_open(struct nvlxi_publisher *publisher, struct nvlxi_revocations *revocations,
                      struct nvlxi_events *events, struct nvlxi_watcher *watcher,
                      const struct nvlxi_server_times *times, const struct nvlxi_reporter *reporter,
                      const char *address, const struct nvlx_serve_options *options, struct nvlxi_server **server) {
    struct nvlxi_server *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a server");
    int code = nvlxi_listener_open(&made->listener, address, options);
    if (code) {
        free(made);
        return code;
    }
    if ((code = nvlxi_watch(watcher, &made->listener_watch, made->listener.socket, 0))) {
        nvlxi_listener_close(&made->listener);
        free(made);
        return code;
    }
    made->watcher = watcher;
    made->publisher = publisher;
    made->revocations = revocations;
    made->events = events;
    made->times = times;
    made->reporter = *reporter;
    made->reporter.allowed = options->stats;
    made->max_connections = options->max_connections;
    nvlxi_news_init(&made->news, publisher, revocations);
    *server = made;
    return 0;
}

/* An end is told from a death. Not to who would take it for an answer. */
static void say_goodbye(const struct connection *c) {
    uint8_t message[NVLXI_PROTOCOL_SHORT_MAX];
    const size_t length = nvlxi_protocol_put_refusal(message, NVLX_ESTALE, "its engine was destroyed");
    if (c->state == SUBSCRIBER && c->knows && !is_sending(c) &&
        send(c->socket, message, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        nvlxi_log(NVLX_LOG_DEBUG, "a client did not take that its server ends: %s", strerror(errno));
}

void nvlxi_server_close(struct nvlxi_server *server) {
    struct connection *c, *next;
    nvlxi_unwatch(server->watcher, &server->listener_watch);
    nvlxi_listener_close(&server->listener);
    DL_FOREACH_SAFE(server->connections, c, next) {
        say_goodbye(c);
        remove_connection(server, c);
    }
    nvlxi_news_free(&server->news);
    free(server);
}

void nvlxi_server_prepare(struct nvlxi_server *server, uint64_t *deadline) {
    struct connection *c;
    const struct nvlxi_readers readers = count_readers(server);
    bool rests = nvlxi_now_ns() < server->accept_due;
    nvlxi_watch(server->watcher, &server->listener_watch, server->listener.socket, rests ? 0 : EPOLLIN);
    if (rests)
        *deadline = nvlxi_min(*deadline, server->accept_due);
    *deadline = nvlxi_min(*deadline, nvlxi_news_due(&server->news, &readers));
    DL_FOREACH(server->connections, c) {
        uint32_t events = (listens(c) ? EPOLLIN : 0u) | (is_sending(c) ? EPOLLOUT : 0u);
        if (is_giving(c) && !is_sending(c))
            events = nvlxi_giving_events(&c->giving, deadline);
        if (nvlxi_now_ns() < c->mapping && is_late(server, c))
            *deadline = nvlxi_min(*deadline, c->mapping);
        nvlxi_watch(server->watcher, &c->watch, c->socket, events);
        *deadline = nvlxi_min(*deadline, deadline_of(server, c));
    }
}

void nvlxi_server_turn(struct nvlxi_server *server) {
    struct connection *c, *next;
    const struct nvlxi_readers readers = count_readers(server);
    nvlxi_news_refresh(&server->news, &readers);
    DL_FOREACH_SAFE(server->connections, c, next) {
        int code = serve(server, c, nvlxi_watch_take(&c->watch));
        if (code == NVLX_ESTALE && c->mailbox.sender)
            take_rest(server, c);
        if (code)
            drop(server, c, code);
    }
    if (nvlxi_watch_take(&server->listener_watch) & EPOLLIN)
        accept_some(server);
}
