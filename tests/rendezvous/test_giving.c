/* File descriptors are given a few at a time: half of what may be under way, so that some are exported while others are
 * received. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fork_files.h"
#include "base/identity.h"
#include "rendezvous/files/fd_give.h"
#include "support.h"

#define CHUNKS 40
#define CHUNK  ((size_t)2 << 20)

static struct nvlxi_context context;
static struct nvlxi_tables tables;
static struct nvlxi_registration registration;
static struct nvlxi_descriptor descriptor = {.backend = "host"};
static struct nvlxi_giving giving;
static int ends[2];

static void begin(void) {
    const struct nvlxi_alloc alloc = {.length = CHUNKS * CHUNK, .kind = NVLXI_KIND_VMM, .chunk = CHUNK};
    struct nvlx_region_options options;
    struct nvlx_region *region;
    void *memory;
    OK(nvlxi_device_host.open(NULL, 0, &context.device));
    OK(nvlxi_identity_make(&context.identity));
    nvlxi_tables_init(&tables);
    context.ops = &nvlxi_device_host;
    context.tables = &tables;
    OK(nvlxi_registration_init(&registration, &context));
    OK(nvlxi_device_host.alloc(context.device, &alloc, &memory));
    nvlx_region_options_init(&options);
    OK(nvlxi_registration_add(&registration, (uint64_t)(uintptr_t)memory, alloc.length, &options, &region));
    OK(nvlxi_registration_records(&registration, &descriptor));
    EQUAL(CHUNKS, descriptor.segment_count);
    for (size_t i = 0; i < CHUNKS; i++)
        giving.files[i] = (struct nvlxi_protocol_file){descriptor.segments[i].base, descriptor.segments[i].serial};
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
}

/* Takes one message, and closes what comes with it; returns how many those are. */
static size_t take_files(void) {
    union {
        char bytes[CMSG_SPACE(NVLXI_ROOM_MAX * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    struct iovec what = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {
        .msg_iov = &what, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    EXPECT(recvmsg(ends[1], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    EXPECT(header != NULL);
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
        close(fd);
    }
    return count;
}

/* One turn, whatever time it is: how many files it has given. */
static size_t give(size_t share) {
    const size_t before = giving.given;
    giving.due = 0;
    OK(nvlxi_giving_go_on(&giving, ends[0], &registration, share));
    EQUAL(0, giving.denied);
    return giving.given - before;
}

static void ask(size_t count) {
    giving.given = giving.under_way = 0;
    giving.count = count;
    giving.full = false;
}

/* Half in each message, until as many are under way as may be; then none before all are received. */
static void halves_of_a_share(void) {
    begin();
    for (size_t share = 1; share <= 16; share++) {
        const size_t half = (share + 1) / 2;
        ask(CHUNKS);
        EQUAL(half, give(share));
        EQUAL(share - half, give(share));
        EQUAL(0, give(share));
        EXPECT(giving.full);
        EQUAL(half, take_files());
        if (share > half)
            EQUAL(share - half, take_files());
        EQUAL(half, give(share));
        EQUAL(half, take_files());
    }
}

/* What goes before may be received meanwhile: then the share is whole again. */
static void the_last_are_fewer(void) {
    begin();
    ask(11);
    for (size_t given = 0; given < 8; given += 4) {
        EQUAL(4, give(8));
        EQUAL(4, take_files());
    }
    EQUAL(3, give(8));
    EQUAL(3, take_files());
    EXPECT(!nvlxi_giving_is_open(&giving));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"halves_of_a_share", halves_of_a_share}, {"the_last_are_fewer", the_last_are_fewer}, {0}};
    return run_tests(argc, argv, tests, NULL, 60);
}
