/* Messages of other programs: what is not proper is refused, what is whole comes. SPDX-License-Identifier: Apache-2.0
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nvlxfer.h"
#include "rendezvous/protocol.h"
#include "rendezvous_support.h"
#include "support.h"

#define LONGEST NVLXI_MESSAGE_MAX

static struct nvlx_engine *engine;

/* False: nothing has come for so long. */
static bool next_message(struct nvlx_event *event, int timeout_ms) {
    struct pollfd ready = {.events = POLLIN};
    OK(nvlx_event_fd(engine, &ready.fd));
    if (poll(&ready, 1, timeout_ms) <= 0)
        return false;
    event->size = sizeof *event;
    OK(nvlx_next_event(engine, event));
    EQUAL(NVLX_EVENT_MESSAGE, event->kind);
    return true;
}

#define ID "0123456789abcdef0123456789abcdef"

static void say_chunk(int socket, uint64_t number, uint32_t length, uint32_t offset, const char *bytes) {
    static uint8_t out[NVLXI_PROTOCOL_MESSAGE_MAX];
    const struct nvlxi_protocol_message part = {number, length, offset};
    send(socket, out, nvlxi_protocol_put_message(out, &part, (const uint8_t *)bytes),
         MSG_NOSIGNAL); /* or it has ended */
}

/* A client that knows what to say; `minor` 2 and less may not send messages. */
static int come(enum nvlxi_protocol_role role, uint16_t minor) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    int socket = raw_connect(own_name());
    size_t length = nvlxi_protocol_put_hello(bytes, role);
    memcpy(bytes + NVLXI_PROTOCOL_HEADER + 10, &minor, sizeof minor);
    put(socket, bytes, length);
    return socket;
}

struct wrong {
    uint64_t number;
    uint32_t length, offset;
    const char *id; /* is said before; NULL: not */
};

static void refuse_chunk(const struct wrong *wrong, enum nvlxi_protocol_role role, uint16_t minor) {
    static const char zeros[LONGEST];
    int socket = come(role, minor);
    if (wrong->id)
        say_chunk(socket, 0, 32, 0, wrong->id);
    say_chunk(socket, wrong->number, wrong->length, wrong->offset, zeros);
    EXPECT(closes(socket, 10000));
    close(socket);
}

static void messages_out_of_turn_are_refused(void) {
    static const struct wrong wrongs[] = {{1, 4, 0, NULL},       {2, 4, 0, ID},
                                          {0, 32, 0, ID},        {1, 4, 0, "not the 32 digits of an engine id"},
                                          {1, 20000, 16384, ID}, {UINT64_MAX, 4, 0, ID}};
    static const struct wrong fine = {1, 4, 0, ID};
    static const char zeros[LONGEST];
    struct nvlx_event event;
    engine = make_engine(0);
    OK(nvlx_serve(engine, own_name(), NULL));
    for (size_t i = 0; i < COUNT(wrongs); i++)
        refuse_chunk(&wrongs[i], NVLXI_PROTOCOL_SUBSCRIBER, 3);
    refuse_chunk(&fine, NVLXI_PROTOCOL_SUBSCRIBER, 2);
    refuse_chunk(&fine, NVLXI_PROTOCOL_FETCHER, 3);
    EXPECT(!next_message(&event, 0));
    /* half a message is none; what is whole comes, though its sender is gone */
    int socket = come(NVLXI_PROTOCOL_SUBSCRIBER, 3);
    say_chunk(socket, 0, 32, 0, ID);
    say_chunk(socket, 1, 4, 0, zeros);
    say_chunk(socket, 2, LONGEST, 0, zeros);
    close(socket);
    EXPECT(next_message(&event, 10000));
    EXPECT(event.message_length == 4 && strcmp(event.engine, ID) == 0 && event.peer == NULL);
    EXPECT(!next_message(&event, 200));
    /* more than may be on its way */
    socket = come(NVLXI_PROTOCOL_SUBSCRIBER, 3);
    say_chunk(socket, 0, 32, 0, ID);
    for (uint64_t number = 1; number <= NVLXI_MESSAGE_WINDOW / LONGEST; number++)
        for (uint32_t offset = 0; offset < LONGEST; offset += NVLXI_PROTOCOL_CHUNK)
            say_chunk(socket, number, LONGEST, offset, zeros);
    EXPECT(closes(socket, 10000));
    close(socket);
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"messages out of turn are refused", messages_out_of_turn_are_refused},
                                        {NULL, NULL}};
    static const struct role roles[] = {{NULL, NULL}};
    return run_tests(argc, argv, tests, roles, sanitized() ? 200 : 60);
}
