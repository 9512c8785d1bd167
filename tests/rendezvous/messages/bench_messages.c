/* How long it takes from the call of nvlx_transfer with a message until the other process has its event: prints the
 * median, and beside it that of a bare socket's message, as this machine is busy or not. It fails only if something is
 * lost, doubled, out of order, or early. NVLX_MESSAGES: how many, by default 2,000. SPDX-License-Identifier: Apache-2.0
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rendezvous_support.h"
#include "support.h"

#define SIZE (64 * KIB)

struct letter {
    double sent_ms;
    uint32_t number;
};

static uint32_t rounds(void) {
    const char *wanted = getenv("NVLX_MESSAGES");
    return wanted ? (uint32_t)strtoul(wanted, NULL, 10) : 2000;
}

static void next(struct nvlx_engine *engine, struct nvlx_event *event) {
    struct pollfd ready = {.events = POLLIN};
    int code;
    OK(nvlx_event_fd(engine, &ready.fd));
    event->size = sizeof *event;
    while ((code = nvlx_next_event(engine, event)) == NVLX_EAGAIN)
        EXPECT(poll(&ready, 1, 60000) == 1);
    OK(code);
}

/* Answers with how long each took. The first byte of what came tells its number. */
static void receiver_role(int socket) {
    struct nvlx_engine *engine = make_engine(0);
    char address[108], seen[8];
    unsigned char *memory = allocate(engine, 0, SIZE, 1);
    const uint32_t count = rounds();
    double *took = malloc(count * sizeof *took);
    get(socket, address, sizeof address);
    register_range(engine, memory, SIZE, "block", NVLX_ACCESS_WRITE);
    OK(nvlx_serve(engine, address, NULL));
    for (uint32_t i = 0; i < count; i++) {
        struct nvlx_event event;
        struct letter letter;
        next(engine, &event);
        EQUAL(NVLX_EVENT_MESSAGE, event.kind);
        EQUAL(sizeof letter, event.message_length);
        memcpy(&letter, event.message, sizeof letter);
        took[i] = now_ms() - letter.sent_ms;
        EQUAL(i, letter.number);
        OK(nvlx_memcpy(engine, seen, memory + SIZE - sizeof seen, sizeof seen));
        EQUAL(i, *(uint32_t *)(void *)seen);
        letter.sent_ms = now_ms();
        put(socket, &letter, sizeof letter);
    }
    put(socket, took, count * sizeof *took);
    free(took);
    OK(nvlx_engine_destroy(engine));
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void send_one(struct nvlx_engine *engine, struct nvlx_peer *peer, char *mine, uint64_t there, uint32_t number) {
    uint32_t end[2] = {number, 0};
    struct nvlx_transfer_options options;
    struct letter letter = {.number = number};
    struct nvlx_request *request;
    struct nvlx_op op = make_op(NVLX_OP_WRITE, peer, mine, there, SIZE);
    OK(nvlx_memcpy(engine, mine + SIZE - sizeof end, end, sizeof end));
    nvlx_transfer_options_init(&options);
    options.message = &letter;
    options.message_length = sizeof letter;
    letter.sent_ms = now_ms();
    OK(nvlx_transfer(engine, &op, 1, &options, &request));
    finish(request);
}

static void print(const char *what, double *took, uint32_t count) {
    qsort(took, count, sizeof *took, compare);
    printf("%s: median %.1f us, 10 %% below %.1f, 90 %% below %.1f\n", what, took[count / 2] * 1e3,
           took[count / 10] * 1e3, took[count * 9 / 10] * 1e3);
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{"receiver", receiver_role}, {NULL, NULL}};
    const uint32_t count = rounds();
    double *took = malloc(count * sizeof *took), *bare = malloc(count * sizeof *bare);
    struct child receiver;
    char address[108] = "";
    begin_process(argc, argv, roles, 110 + count / 500);
    snprintf(address, sizeof address, "%s", own_name());
    child_start(&receiver, "receiver");
    put(receiver.socket, address, sizeof address);
    struct nvlx_engine *engine = make_engine(0);
    char *mine = allocate(engine, 0, SIZE, 2);
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
    struct nvlx_peer *peer = connect_to(engine, address);
    uint64_t there = find(peer, "block");
    for (uint32_t i = 0; i < count; i++) {
        struct letter seen;
        send_one(engine, peer, mine, there, i);
        get(receiver.socket, &seen, sizeof seen);
        bare[i] = now_ms() - seen.sent_ms;
        EQUAL(i, seen.number);
    }
    get(receiver.socket, took, count * sizeof *took);
    print("64 KiB and a message, from the call to the other side's event", took, count);
    print("a bare socket's message, from process to process", bare, count);
    OK(nvlx_engine_destroy(engine));
    child_end(&receiver);
    free(took);
    free(bare);
    return 0;
}
