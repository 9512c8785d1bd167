/* Counts of peers: told over the connection to who asks, if that is allowed. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/engine.h"
#include "checks/exposition_check.h"
#include "rendezvous/report.h"
#include "rendezvous_support.h"
#include "subscriber.h"

static struct nvlx_engine *server, *engine;
static struct nvlx_peer *peer;

static void begin(uint32_t stats) {
    struct nvlx_serve_options options;
    nvlx_serve_options_init(&options);
    options.stats = stats;
    server = make_engine(0);
    engine = make_engine(0);
    register_range(server, allocate(server, 0, 4096, 1), 4096, "w", NVLX_ACCESS_READ);
    OK(nvlx_serve(server, own_name(), &options));
    peer = connect_to(engine, own_name());
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
    OK(nvlx_engine_destroy(server));
}

static void told_if_allowed(void) {
    char *text, line[200];
    size_t length;
    begin(1);
    for (int i = 0; i < 3; i++) {
        OK(nvlx_peer_stats(peer, PATIENCE, &text, &length));
        EQUAL(strlen(text), length);
        const char *fault = check_exposition(text);
        if (fault)
            FAIL("the text is not proper: %s", fault);
        snprintf(line, sizeof line, "nvlxfer_engine_info{engine=\"%s\",", server->context.identity.engine);
        EXPECT(strstr(text, line));
        EXPECT(strstr(text, "\nnvlxfer_regions 1\n"));
        nvlx_text_free(text);
    }
    end();
}

static void refused_unless_allowed(void) {
    char *text = NULL;
    size_t length;
    begin(0);
    REFUSED(nvlx_peer_stats(peer, PATIENCE, &text, &length), NVLX_EACCES, "serve_options.stats");
    EXPECT(!text);
    register_range(server, allocate(server, 0, 4096, 1), 4096, "later", NVLX_ACCESS_READ);
    await_name(peer, "later");
    end();
}

static void refused_where_it_cannot_be(void) {
    struct nvlx_serve_options options;
    struct nvlx_peer *of_text;
    char *counts;
    size_t length;
    begin(1);
    of_text = peer_of(engine, server);
    REFUSED(nvlx_peer_stats(of_text, -1, &counts, &length), NVLX_ENOTSUP, "made from a text");
    peer->subscription->connection.minor = 4;
    REFUSED(nvlx_peer_stats(peer, -1, &counts, &length), NVLX_ENOTSUP, "too old");
    REFUSED(nvlx_peer_stats(NULL, -1, &counts, &length), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_peer_stats(peer, -1, NULL, &length), NVLX_EINVAL, "text is NULL");
    REFUSED(nvlx_peer_stats(peer, -1, &counts, NULL), NVLX_EINVAL, "length is NULL");
    nvlx_serve_options_init(&options);
    options.stats = 2;
    REFUSED(nvlx_serve(engine, own_path(), &options), NVLX_EINVAL, "stats is 2");
    end();
}

/* ---- Who does not answer ------------------------------------------------------------------------------- */

static void *ask_once(void *argument) {
    char *text;
    size_t length;
    (void)argument;
    REFUSED(nvlx_peer_stats(peer, PATIENCE, &text, &length), NVLX_EACCES, "serve_options.stats");
    return NULL;
}

/* Waits until somebody asks, and hands over a report as if it came, with the number of the question before. */
static void answer_the_one_before(struct nvlxi_channel *channel) {
    uint8_t message[NVLXI_PROTOCOL_SHORT_MAX];
    struct nvlxi_inbox in = {.from_server = true, .body = message + NVLXI_PROTOCOL_HEADER};
    struct nvlxi_question question;
    do {
        usleep(1000);
        pthread_mutex_lock(&channel->mutex);
        question = channel->question;
        pthread_mutex_unlock(&channel->mutex);
    } while (!question.open);
    in.have = nvlxi_protocol_put_no_report(message, question.number - 1, NVLX_ENOMEM, "to the question before");
    OK(nvlxi_protocol_get_header(message, true, &in.header));
    OK(nvlxi_report_come(channel, &in));
}

static void late_answers_are_dropped(void) {
    struct owner owner;
    pthread_t thread;
    char *text;
    size_t length;
    owner_start(&owner);
    OK(owner_serve(&owner, own_name(), 0));
    engine = make_engine(0);
    peer = connect_to(engine, own_name());
    child_stop(&owner.child);
    for (int i = 0; i < 3; i++)
        REFUSED(nvlx_peer_stats(peer, 2000000, &text, &length), NVLX_ETIMEDOUT, "has not told");
    EQUAL(0, pthread_create(&thread, NULL, ask_once, NULL));
    answer_the_one_before(&peer->subscription->channel);
    EXPECT(kill(owner.child.pid, SIGCONT) == 0);
    EQUAL(0, pthread_join(thread, NULL));
    OK(nvlx_engine_destroy(engine));
    owner_end(&owner);
}

static struct owner doomed;

static void *kill_soon(void *argument) {
    (void)argument;
    usleep(20000);
    owner_kill(&doomed);
    return NULL;
}

static void the_end_of_a_peer_is_an_answer(void) {
    pthread_t thread;
    char *text;
    size_t length;
    owner_start(&doomed);
    OK(owner_serve(&doomed, own_name(), 0));
    engine = make_engine(0);
    peer = connect_to(engine, own_name());
    child_stop(&doomed.child);
    EQUAL(0, pthread_create(&thread, NULL, kill_soon, NULL));
    REFUSED(nvlx_peer_stats(peer, -1, &text, &length), NVLX_ESTALE, "gone");
    EQUAL(0, pthread_join(thread, NULL));
    REFUSED(nvlx_peer_stats(peer, -1, &text, &length), NVLX_ESTALE, "gone");
    OK(nvlx_engine_destroy(engine));
}

/* ---- Many ask ------------------------------------------------------------------------------------------ */

static void *ask_often(void *argument) {
    (void)argument;
    for (int i = 0; i < 20; i++) {
        char *text;
        size_t length;
        OK(nvlx_peer_stats(peer, PATIENCE, &text, &length));
        EXPECT(length > 1000 && text[length] == '\0');
        nvlx_text_free(text);
    }
    return NULL;
}

static void threads_take_turns(void) {
    pthread_t threads[3];
    begin(1);
    for (int i = 0; i < 3; i++)
        EQUAL(0, pthread_create(&threads[i], NULL, ask_often, NULL));
    for (int i = 0; i < 3; i++)
        EQUAL(0, pthread_join(threads[i], NULL));
    end();
}

/* ---- By its own hand ------------------------------------------------------------------------------------ */

static uint8_t body[NVLXI_PROTOCOL_REPORT_MAX];

static void ask_by_hand(int socket, uint32_t number) {
    uint8_t message[NVLXI_PROTOCOL_SHORT_MAX];
    put(socket, message, nvlxi_protocol_put_stats(message, number));
}

static void wire(void) {
    struct nvlxi_protocol_report report;
    uint16_t type;
    begin(1);
    int socket = subscribe(own_name(), 5, body, sizeof body);
    receive_message(socket, body, sizeof body, &type);
    EQUAL(NVLXI_PROTOCOL_TEXT, type);
    for (uint32_t i = 0; i < 100; i++)
        ask_by_hand(socket, i);
    do {
        const uint32_t length = receive_message(socket, body, sizeof body, &type);
        EQUAL(NVLXI_PROTOCOL_REPORT, type);
        OK(nvlxi_protocol_get_report(body, length, &report));
        EXPECT(report.refusal.code == 0 && report.length > 1000);
    } while (report.number != 99);
    close(socket);
    socket = subscribe(own_name(), 4, body, sizeof body); /* it does not know what it asks for */
    receive_message(socket, body, sizeof body, &type);
    ask_by_hand(socket, 1);
    EXPECT(closes(socket, 10000));
    close(socket);
    end();
}

/* Questions are no progress: who takes no answer is cut off. */
static void who_asks_and_does_not_read_is_cut_off(void) {
    uint16_t type;
    begin(1);
    atomic_store(&server->rendezvous.times.stall_ns, UINT64_C(200000000));
    int socket = subscribe(own_name(), 5, body, sizeof body);
    receive_message(socket, body, sizeof body, &type);
    for (uint32_t i = 0; i < 600; i++) {
        ask_by_hand(socket, i);
        usleep(1000);
    }
    EXPECT(closes(socket, 1000));
    close(socket);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"told_if_allowed", told_if_allowed},
        {"refused_unless_allowed", refused_unless_allowed},
        {"refused_where_it_cannot_be", refused_where_it_cannot_be},
        {"late_answers_are_dropped", late_answers_are_dropped},
        {"the_end_of_a_peer_is_an_answer", the_end_of_a_peer_is_an_answer},
        {"threads_take_turns", threads_take_turns},
        {"wire", wire},
        {"who_asks_and_does_not_read_is_cut_off", who_asks_and_does_not_read_is_cut_off},
        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
