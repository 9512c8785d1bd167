/* Messages between processes: after their bytes, in order, once; none is lost without a word.
 * SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "faulty_device.h"
#include "rendezvous_support.h"
#include "support.h"

#define SIZE    (64 * KIB)
#define LONGEST (64 * KIB)
#define PIECE   128
#define COST    64u
#define PATH    108

/* ---- The receiver: another process, which reads what it is told to ------------------------------------- */

/* READ: so many messages, numbered from `first` on. CHECK: also that the block is full of the number. */
enum order { READ, CHECK, COUNT_ALL, REGISTER, UNREGISTER, CONNECT_BACK, WHO, DESTROY };

struct task {
    enum order order;
    uint32_t first, count;
    char address[PATH];
};

struct estate {
    struct nvlx_engine *engine;
    uint32_t *memory, *seen;
    struct nvlx_region *more;
    struct nvlx_peer *back;
};

/* False: nothing has come for so long. */
static bool next_message(struct nvlx_engine *engine, struct nvlx_event *event, int timeout_ms) {
    struct pollfd ready = {.events = POLLIN};
    OK(nvlx_event_fd(engine, &ready.fd));
    for (;;) {
        event->size = sizeof *event;
        int code = nvlx_next_event(engine, event);
        if (!code && event->kind == NVLX_EVENT_MESSAGE)
            return true;
        if (code) {
            GIVES(NVLX_EAGAIN, code);
            if (poll(&ready, 1, timeout_ms) <= 0)
                return false;
        }
    }
}

static void expect_message(const struct nvlx_event *event, uint32_t number) {
    const unsigned char *bytes = event->message;
    uint32_t told;
    EXPECT(event->message_length >= sizeof told);
    memcpy(&told, bytes, sizeof told);
    EQUAL(number, told);
    for (size_t i = sizeof told; i < event->message_length; i++)
        if (bytes[i] != seed_byte(number, i))
            FAIL("byte %zu of message %u is wrong", i, number);
}

static void expect_block(struct estate *e, uint32_t number) {
    OK(nvlx_memcpy(e->engine, e->seen, e->memory, SIZE));
    for (size_t i = 0; i < SIZE / sizeof *e->seen; i++)
        if (e->seen[i] != number)
            FAIL("word %zu is %u when message %u has come", i, e->seen[i], number);
}

static int64_t read_messages(struct estate *e, const struct task *task) {
    struct nvlx_event event;
    for (uint32_t i = 0; i < task->count; i++) {
        if (!next_message(e->engine, &event, 30000))
            FAIL("message %u has not come", task->first + i);
        expect_message(&event, task->first + i);
        if (task->order == CHECK)
            expect_block(e, task->first + i);
    }
    return task->count;
}

static int64_t count_messages(struct estate *e, const struct task *task) {
    struct nvlx_event event;
    uint32_t count = 0;
    for (; next_message(e->engine, &event, 300); count++)
        expect_message(&event, task->first + count);
    return count;
}

/* What it knows of the sender of the next message: its process, and whether `back` is that. */
static int64_t who_sends(struct estate *e) {
    struct nvlx_event event;
    if (!next_message(e->engine, &event, 30000))
        FAIL("no message has come");
    EQUAL(32, strlen(event.engine));
    EXPECT(event.peer == NULL || event.peer == e->back);
    return event.peer ? -event.pid : event.pid;
}

static int64_t obey(struct estate *e, const struct task *task) {
    switch (task->order) {
    case READ:
    case CHECK:
        return read_messages(e, task);
    case COUNT_ALL:
        return count_messages(e, task);
    case REGISTER:
        e->more = register_range(e->engine, e->memory, SIZE, "more", NVLX_ACCESS_READ);
        return 0;
    case UNREGISTER:
        return nvlx_unregister(e->more, 10 * SECOND_NS);
    case CONNECT_BACK:
        e->back = connect_to(e->engine, task->address);
        return 0;
    case WHO:
        return who_sends(e);
    case DESTROY:
        return nvlx_engine_destroy(e->engine);
    }
    return -1;
}

static void receiver_role(int socket) {
    struct estate e = {0};
    struct task task;
    char address[PATH];
    get(socket, address, sizeof address);
    e.engine = make_engine(0);
    e.memory = allocate(e.engine, second_gpu(), SIZE, 1);
    e.seen = malloc(SIZE);
    register_range(e.engine, e.memory, SIZE, "block", NVLX_ACCESS_READ_WRITE);
    OK(nvlx_serve(e.engine, address, NULL));
    while (get_or_end(socket, &task, sizeof task)) {
        int64_t answer = obey(&e, &task);
        put(socket, &answer, sizeof answer);
    }
    free(e.seen);
}

/* ---- The sender: this process --------------------------------------------------------------------------- */

static struct child receiver;
static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static uint32_t *mine, *numbers;
static uint64_t there;
static bool whole;

static void start_task(enum order order, uint32_t first, uint32_t count) {
    struct task task = {.order = order, .first = first, .count = count};
    snprintf(task.address, sizeof task.address, "%s-back", own_name());
    put(receiver.socket, &task, sizeof task);
}

static int64_t await_task(void) {
    int64_t answer;
    get(receiver.socket, &answer, sizeof answer);
    return answer;
}

static int64_t tell(enum order order, uint32_t first, uint32_t count) {
    start_task(order, first, count);
    return await_task();
}

static void begin_on(struct nvlx_engine *made) {
    char address[PATH] = "";
    snprintf(address, sizeof address, "%s", own_name());
    child_start(&receiver, "receiver");
    put(receiver.socket, address, sizeof address);
    engine = made;
    mine = allocate(engine, 0, SIZE, 2);
    numbers = malloc(SIZE);
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
    peer = connect_to(engine, address);
    there = find(peer, "block");
}

static void begin(void) {
    begin_on(make_engine(0));
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
    child_end(&receiver);
    free(numbers);
}

static const void *text_of(uint32_t number, size_t length) {
    static unsigned char bytes[LONGEST];
    for (size_t i = sizeof number; i < length; i++)
        bytes[i] = seed_byte(number, i);
    memcpy(bytes, &number, sizeof number);
    return bytes;
}

static int send_number(uint32_t number, size_t length) {
    return nvlx_send(peer, text_of(number, length), length);
}

/* The whole block, or each time another piece of it. */
static int write_with_message(uint32_t number, size_t length, uint32_t flags, struct nvlx_request **request) {
    static size_t written;
    const size_t at = whole ? 0 : written++ % (SIZE / PIECE) * PIECE;
    struct nvlx_op op = make_op(NVLX_OP_WRITE, peer, (char *)mine + at, there + at, whole ? SIZE : PIECE);
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.flags = flags;
    options.message = text_of(number, length);
    options.message_length = length;
    return nvlx_transfer(engine, &op, 1, &options, request);
}

static void fill_block(uint32_t number) {
    for (size_t i = 0; i < SIZE / sizeof *numbers; i++)
        numbers[i] = number;
    OK(nvlx_memcpy(engine, mine, numbers, SIZE));
}

/* ---- What is promised ------------------------------------------------------------------------------------ */

static void every_length_arrives(void) {
    static const size_t lengths[] = {4, 5, 100, 16383, 16384, 16385, 32768, 65535, LONGEST};
    struct nvlx_event event;
    begin();
    for (uint32_t i = 0; i < COUNT(lengths); i++)
        OK(send_number(i, lengths[i]));
    EQUAL(COUNT(lengths), tell(READ, 0, COUNT(lengths)));
    REFUSED(nvlx_send(peer, numbers, LONGEST + 1), NVLX_EINVAL, "65537 bytes: at most 65536");
    REFUSED(nvlx_send(peer, NULL, 1), NVLX_EINVAL, "message is NULL");
    /* an engine that sends to itself: of no bytes at all */
    struct nvlx_engine *own = make_engine(0);
    char name[PATH];
    snprintf(name, sizeof name, "%s-own", own_name());
    OK(nvlx_serve(own, name, NULL));
    struct nvlx_peer *itself = connect_to(own, name);
    OK(nvlx_send(itself, NULL, 0));
    EXPECT(next_message(own, &event, 30000));
    EQUAL(0, event.message_length);
    EXPECT(event.peer == itself && event.pid == getpid() && event.message != NULL);
    OK(nvlx_engine_destroy(own));
    end();
}

static void the_sender_is_known(void) {
    char name[PATH];
    begin();
    OK(send_number(1, 4));
    EQUAL(getpid(), tell(WHO, 0, 0));
    snprintf(name, sizeof name, "%s-back", own_name());
    OK(nvlx_serve(engine, name, NULL));
    EQUAL(0, tell(CONNECT_BACK, 0, 0));
    OK(send_number(2, 4));
    EXPECT(tell(WHO, 0, 0) == -(int64_t)getpid());
    end();
}

/* At the moment of each event all bytes are in place, and none of the next transfer's, which starts after it was looked
 * at. Nobody asks about the requests. */
static void messages_come_after_their_bytes(void) {
    const uint32_t rounds = sanitized() ? 1000 : 10000;
    struct nvlx_request *request = NULL;
    begin();
    whole = true;
    for (uint32_t i = 0; i < rounds; i++) {
        fill_block(i);
        OK(write_with_message(i, i % 100 ? 4 : LONGEST, 0, &request));
        EQUAL(1, tell(CHECK, i, 1));
        OK(nvlx_request_free(request));
    }
    end();
}

/* Short and long ones, of calls and of transfers; some of the requests are freed at once, which waits for them. */
static void expect_in_turn(uint32_t rounds) {
    struct nvlx_request *request;
    start_task(READ, 0, rounds);
    for (uint32_t i = 0; i < rounds; i++) {
        const size_t length = 4 + i * 37 % 3000;
        int code;
        do
            code = i % 3 ? send_number(i, length) : write_with_message(i, length, 0, &request);
        while (code == NVLX_EBUSY);
        OK(code);
        if (i % 12 == 0)
            finish(request);
    }
    EQUAL(rounds, await_task());
}

static void order_is_that_of_the_calls(void) {
    begin();
    expect_in_turn(sanitized() ? 1000 : 6000);
    end();
}

/* A transfer that does not end holds up the messages behind it, and nobody else. */
static void a_message_waits_for_the_transfers_before_it(void) {
    struct nvlx_request *first, *second, *other;
    begin_on(make_faulty_engine(0));
    fill_block(7);
    atomic_store(&faults.hold, true);
    OK(write_with_message(0, 4, 0, &first));
    OK(send_number(1, 4));
    OK(write_with_message(2, 4, 0, &second));
    OK(send_number(3, 4));
    EQUAL(0, tell(COUNT_ALL, 0, 0));
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, there, SIZE);
    OK(nvlx_transfer(engine, &op, 1, NULL, &other));
    atomic_store(&faults.hold, false);
    EQUAL(4, tell(READ, 0, 4));
    finish(second);
    finish(first);
    finish(other);
    end();
}

/* Its message is not sent, the others are. */
static void a_failed_transfer_sends_nothing(void) {
    struct nvlx_request *failed, *good;
    begin_on(make_faulty_engine(0));
    fill_block(3);
    OK(send_number(0, 4));
    atomic_store(&faults.hold, true);
    OK(write_with_message(77, 4, 0, &failed));
    OK(send_number(1, 4));
    atomic_store(&faults.queries, true);
    atomic_store(&faults.hold, false);
    REFUSED(nvlx_wait(failed, PATIENCE), NVLX_EDEVICE, "off the bus");
    atomic_store(&faults.queries, false);
    GIVES(NVLX_EDEVICE, nvlx_request_free(failed));
    OK(write_with_message(2, 4, 0, &good));
    EQUAL(3, tell(READ, 0, 3));
    finish(good);
    /* nor does one that is refused */
    struct nvlx_op op = make_op(NVLX_OP_WRITE, peer, mine, there, SIZE + 1);
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.message = "lost";
    options.message_length = 4;
    REFUSED(nvlx_transfer(engine, &op, 1, &options, &good), NVLX_ERANGE, "");
    REFUSED(nvlx_transfer(engine, &op, 0, &options, &good), NVLX_EINVAL, "there is none");
    OK(send_number(3, 4));
    EQUAL(1, tell(COUNT_ALL, 3, 0));
    end();
}

static void posts_have_messages(void) {
    const uint32_t rounds = 100;
    struct nvlx_prepared *prepared;
    begin();
    struct nvlx_op op = make_op(NVLX_OP_WRITE, peer, mine, there, SIZE);
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    OK(nvlx_prepare(engine, &op, 1, NULL, &prepared));
    for (uint32_t i = 0; i < rounds; i++) {
        struct nvlx_request *request;
        fill_block(i);
        options.message = &i;
        options.message_length = sizeof i;
        OK(nvlx_post(prepared, &options, &request));
        EQUAL(1, tell(CHECK, i, 1));
        finish(request);
    }
    REFUSED(nvlx_prepare(engine, &op, 1, &options, &prepared), NVLX_EINVAL, "options of nvlx_post");
    OK(nvlx_prepared_free(prepared));
    end();
}

/* ---- Who does not read ------------------------------------------------------------------------------------ */

/* NVLX_EBUSY at last; nothing is lost, and all else goes on: the service, and revocation. */
static void a_receiver_that_does_not_read(void) {
    const size_t length = 5000;
    uint32_t sent = 0, most = (5u << 20) / (length + COST) + 2;
    struct nvlx_request *request;
    int code;
    begin();
    fill_block(1);
    while (!(code = send_number(sent, length))) {
        sent++;
        usleep(sent % 16 ? 0 : 1000); /* what is taken makes room */
        EXPECT(sent <= most);
    }
    REFUSED(code, NVLX_EBUSY, "that it has not taken");
    EXPECT((uint64_t)sent * (length + COST) > (4u << 20));
    REFUSED(write_with_message(sent, length, 0, &request), NVLX_EBUSY, "that it has not taken");
    EQUAL(0, tell(REGISTER, 0, 0));
    await_name(peer, "more");
    EQUAL(0, tell(UNREGISTER, 0, 0));
    move(engine, NVLX_OP_READ, peer, mine, there, SIZE);
    EQUAL(sent, tell(READ, 0, sent));
    OK(send_number(sent, 4));
    EQUAL(1, tell(COUNT_ALL, sent, 0));
    end();
}

/* ---- Ends ------------------------------------------------------------------------------------------------- */

static void await_lost(struct nvlx_event *event) {
    double since = now_ms();
    do {
        event->size = sizeof *event;
        EXPECT(now_ms() - since < 20000);
    } while (nvlx_next_event(engine, event) || event->kind != NVLX_EVENT_PEER_LOST);
}

/* The sender learns of each message that may be lost: by its request, or by the count of the event. */
static void a_receiver_that_is_killed(void) {
    struct nvlx_request *request, *later;
    struct nvlx_event event;
    begin_on(make_faulty_engine(0));
    fill_block(1);
    OK(send_number(0, 4));
    EQUAL(1, tell(READ, 0, 1));
    EXPECT(nvlxi_outbox_drain(&peer->subscription->outbox, nvlxi_deadline(PATIENCE)));
    child_stop(&receiver);
    for (uint32_t i = 1; i <= 10; i++)
        OK(send_number(i, 4));
    OK(write_with_message(11, 4, 0, &request));
    usleep(20000);
    GIVES(NVLX_EAGAIN, nvlx_test(request)); /* its bytes are in place, and nobody has taken the message */
    EQUAL(0, engine_info(engine).requests);
    atomic_store(&faults.hold, true);
    OK(write_with_message(12, 4, 0, &later));
    child_kill(&receiver);
    await_lost(&event);
    EXPECT(event.peer == peer && event.unconfirmed == 10 && event.status == NVLX_ESTALE &&
           strstr(event.reason, "gone"));
    REFUSED(nvlx_test(request), NVLX_ESTALE, "the bytes are in place");
    GIVES(NVLX_EAGAIN, nvlx_test(later));
    atomic_store(&faults.hold, false);
    REFUSED(nvlx_wait(later, PATIENCE), NVLX_ESTALE, "message");
    EXPECT(engine_counts(engine).failed == 2 && engine_counts(engine).transfers == 0);
    REFUSED(send_number(13, 4), NVLX_ESTALE, "gone");
    REFUSED(write_with_message(13, 4, 0, &later), NVLX_ESTALE, "gone");
    GIVES(NVLX_ESTALE, nvlx_request_free(request));
    OK(nvlx_engine_destroy(engine)); /* with a request that was not freed */
    free(numbers);
}

static void sender_role(int socket) {
    char address[PATH];
    get(socket, address, sizeof address);
    engine = make_engine(0);
    peer = connect_to(engine, address);
    for (uint32_t i = 0;; i++) {
        int code;
        while ((code = send_number(i, 4 + i % 2000)) == NVLX_EBUSY)
            usleep(100);
        OK(code);
        if (i == 100)
            put(socket, "", 1);
    }
}

/* The receiver has the first so many, whole. */
static void a_sender_that_is_killed(void) {
    struct child sender;
    struct nvlx_event event;
    char address[PATH] = "";
    struct nvlx_engine *own = make_engine(0);
    snprintf(address, sizeof address, "%s", own_name());
    OK(nvlx_serve(own, address, NULL));
    for (int round = 0; round < 5; round++) {
        uint32_t count = 0;
        child_start(&sender, "sender");
        put(sender.socket, address, sizeof address);
        await_child(&sender);
        for (; count < 50; count++) {
            EXPECT(next_message(own, &event, 30000));
            expect_message(&event, count);
        }
        child_kill(&sender);
        for (; next_message(own, &event, 200); count++)
            expect_message(&event, count);
        EXPECT(count > 100);
    }
    OK(nvlx_engine_destroy(own));
}

/* What was sent before a peer is closed, or an engine destroyed, is delivered. */
static void closing_delivers(void) {
    const uint32_t count = 200;
    struct nvlx_request *request;
    begin();
    fill_block(1);
    for (uint32_t i = 0; i < count; i++)
        OK(send_number(i, 4000));
    OK(nvlx_peer_close(peer));
    EQUAL(count, tell(COUNT_ALL, 0, 0));
    peer = connect_to(engine, own_name());
    for (uint32_t i = 0; i < count; i++)
        OK(i % 10 ? send_number(i, 4000) : write_with_message(i, 4000, NVLX_DONE_EVENT, &request));
    OK(nvlx_engine_destroy(engine));
    EQUAL(count, tell(COUNT_ALL, 0, 0));
    child_end(&receiver);
    free(numbers);
}

/* One that is stopped does not keep others from closing: they learn that messages may be lost. */
static void closing_does_not_wait_for_ever(void) {
    struct nvlx_request *request;
    begin();
    fill_block(1);
    child_stop(&receiver);
    OK(send_number(0, 4));
    OK(write_with_message(1, 4, 0, &request));
    REFUSED(nvlx_peer_close(peer), NVLX_ETIMEDOUT, "has not taken");
    REFUSED(nvlx_test(request), NVLX_ESTALE, "message");
    GIVES(NVLX_ESTALE, nvlx_request_free(request));
    kill(receiver.pid, SIGCONT);
    EQUAL(2, tell(COUNT_ALL, 0, 0)); /* they had left */
    peer = connect_to(engine, own_name());
    child_stop(&receiver);
    OK(write_with_message(2, 4, 0, &request));
    REFUSED(nvlx_engine_destroy(engine), NVLX_ETIMEDOUT, "has not taken");
    kill(receiver.pid, SIGCONT);
    child_end(&receiver);
    free(numbers);
}

/* A receiver may go while messages come: nothing hangs, nothing is left. */
static void an_engine_ends_while_messages_come(void) {
    for (int round = 0; round < 10; round++) {
        uint32_t i = 0;
        int code = 0;
        begin();
        start_task(DESTROY, 0, 0);
        while (!code || code == NVLX_EBUSY)
            code = send_number(i++, 1000);
        GIVES(NVLX_ESTALE, code);
        EQUAL(0, await_task());
        await_end(peer);
        OK(nvlx_engine_destroy(engine));
        child_kill(&receiver);
        free(numbers);
    }
}

static void who_cannot_have_messages(void) {
    struct nvlx_request *request;
    begin();
    struct nvlx_peer *by_text = peer_of(engine, engine);
    REFUSED(nvlx_send(by_text, "", 0), NVLX_ENOTSUP, "made from a text");
    OK(nvlx_peer_close(by_text));
    peer->subscription->connection.minor = 2; /* as if its library were older */
    REFUSED(send_number(0, 4), NVLX_ENOTSUP, "too old");
    REFUSED(write_with_message(0, 4, 0, &request), NVLX_ENOTSUP, "too old");
    end();
}

static void what_was_taken_is_checked(void) {
    static const struct nvlxi_protocol_taken wrongs[] = {{0, 0}, {3, 0}, {1, 1000}, {UINT64_MAX, UINT64_MAX}};
    begin();
    OK(send_number(0, 4));
    OK(send_number(1, 4));
    EQUAL(2, tell(READ, 0, 2));
    struct nvlxi_outbox *outbox = &peer->subscription->outbox;
    EXPECT(nvlxi_outbox_drain(outbox, nvlxi_deadline(PATIENCE)));
    for (size_t i = 0; i < COUNT(wrongs); i++) {
        struct nvlxi_protocol_taken taken = wrongs[i];
        const struct nvlxi_inbox in = {.body = (uint8_t *)&taken};
        REFUSED(nvlxi_outbox_taken(outbox, &in), NVLX_EFORMAT, "of 2 and");
    }
    end();
}

static const struct test tests[] = {
    {"every length arrives", every_length_arrives},
    {"the sender is known", the_sender_is_known},
    {"messages come after their bytes", messages_come_after_their_bytes},
    {"order is that of the calls", order_is_that_of_the_calls},
    {"a message waits for the transfers before it", a_message_waits_for_the_transfers_before_it},
    {"a failed transfer sends nothing", a_failed_transfer_sends_nothing},
    {"posts have messages", posts_have_messages},
    {"a receiver that does not read", a_receiver_that_does_not_read},
    {"a receiver that is killed", a_receiver_that_is_killed},
    {"a sender that is killed", a_sender_that_is_killed},
    {"closing delivers", closing_delivers},
    {"closing does not wait for ever", closing_does_not_wait_for_ever},
    {"an engine ends while messages come", an_engine_ends_while_messages_come},
    {"who cannot have messages", who_cannot_have_messages},
    {"what was taken is checked", what_was_taken_is_checked},
    {NULL, NULL},
};
static const struct role roles[] = {{"receiver", receiver_role}, {"sender", sender_role}, {NULL, NULL}};

int main(int argc, char **argv) {
    return run_tests(argc, argv, tests, roles, sanitized() ? 300 : 100);
}
