/* File descriptors of segments, from the process that serves them to the one that maps: on a device that gives out a
 * pipe for each, which says whose it is. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/engine.h"
#include "base/base.h"
#include "base/file_table.h"
#include "file_device.h"
#include "remote/peer.h"
#include "rendezvous/files/fd_fetch.h"
#include "rendezvous/protocol.h"
#include "rendezvous_support.h"

#define SEGMENTS 600
#define SIZE     (4 * KIB)

/* ---- A server and its client in one process -------------------------------------------------------------- */

static struct nvlx_engine *server, *client;
static struct nvlx_peer *peer;                                         /* the server, as the client knows it */
static struct nvlx_region *regions[SEGMENTS];                          /* one a segment */
static struct nvlxi_segment_record segments[SEGMENTS];                 /* of the peer's descriptor */
static struct nvlxi_descriptor owner_copy, *const owner = &owner_copy; /* with the address, as a text of it has it */
static struct nvlxi_file_server *files;                                /* the client's */
static struct nvlx_peer *told; /* the server, as the client knows it by its text alone: not followed */
static bool followed;          /* files come over the connection of `peer`, else by connections of their own */
static struct holdings idle;

static void begin(size_t count) {
    server = make_file_engine();
    client = make_file_engine();
    for (size_t i = 0; i < count; i++)
        regions[i] = register_range(server, allocate_file(server, SIZE), SIZE, NULL, NVLX_ACCESS_READ);
    OK(nvlx_serve(server, own_path(), NULL));
    peer = connect_to(client, own_path());
    told = peer_of(client, server);
    *owner = *peer->table->descriptor;
    EQUAL(count, owner->segment_count);
    memcpy(segments, owner->segments, count * sizeof *segments);
    EQUAL(0, strcmp(own_path(), owner->address));
    files = peer->remote->file_server;
    idle = holdings();
}

/* What was asked for before it was closed may still be given for a moment. */
static void await_quiet(void) {
    for (int i = 0, quiet = 0; i < 1000 && quiet < 10; i++) {
        quiet = holdings().fds == idle.fds ? quiet + 1 : 0;
        usleep(10000);
    }
}

static void end(void) {
    await_quiet();
    expect_holdings(&idle, "all is fetched");
    OK(nvlx_engine_destroy(client));
    OK(nvlx_engine_destroy(server));
}

static struct nvlxi_files *open_files(size_t count) {
    struct nvlxi_files *opened;
    OK(files->open(files, followed ? peer : told, owner, segments, count, &opened));
    return opened;
}

static void expect_file(struct nvlxi_files *from, size_t segment) {
    uint64_t base = 0;
    int fd;
    OK(from->take(from, &fd));
    EXPECT(read(fd, &base, sizeof base) == sizeof base);
    EQUAL(segments[segment].base, base);
    EXPECT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

/* ---- The tests ------------------------------------------------------------------------------------------ */

static void files_come_in_order(void) {
    begin(SEGMENTS);
    for (size_t count = 1; count <= SEGMENTS; count = count < 8 ? 2 * count : 2 * count + 17) {
        long before = atomic_load(&file_faults.exports);
        struct nvlxi_files *opened = open_files(count);
        for (size_t i = 0; i < count; i++) {
            expect_file(opened, i);
            if (i % 8 == 0)
                EXPECT(holdings().fds < idle.fds + 60);
        }
        EQUAL(count, atomic_load(&file_faults.exports) - before);
        int fd;
        REFUSED(opened->take(opened, &fd), NVLX_EINVAL, "have been taken");
        files->close(files, opened);
    }
    end();
}

static void only_segments_with_files_are_asked_for(void) {
    begin(10);
    for (size_t i = 0; i < 10; i++)
        segments[i].file = i % 3 == 1;
    struct nvlxi_files *opened = open_files(10);
    expect_file(opened, 1);
    expect_file(opened, 4);
    expect_file(opened, 7);
    files->close(files, opened);
    end();
}

static void closing_early_leaves_nothing(void) {
    begin(SEGMENTS);
    for (size_t taken = 0; taken < SEGMENTS; taken += 31) {
        struct nvlxi_files *opened = open_files(SEGMENTS);
        for (size_t i = 0; i < taken; i++)
            expect_file(opened, i);
        files->close(files, opened);
    }
    end();
}

/* A follower that is denied something knows by then why, if it was withdrawn: its table is newer. */
static void refuse_first(int expected, const char *words) {
    int fd, refused;
    do {
        owner->identity.generation = nvlxi_peer_generation(peer);
        struct nvlxi_files *opened = open_files(1);
        refused = opened->take(opened, &fd);
        files->close(files, opened);
        EXPECT(refused != NVLX_EAGAIN || (followed && owner->identity.generation < nvlxi_peer_generation(peer)));
    } while (refused == NVLX_EAGAIN);
    REFUSED(refused, expected, words);
}

static atomic_int warnings;

static void count_warnings(void *words, int level, const char *message) {
    if (strstr(message, words) && !strstr(message, "refuses")) /* the server's own */
        atomic_fetch_add(&warnings, level <= NVLX_LOG_WARNING);
}

static void only_shared_segments_are_given(void) {
    begin(2);
    OK(nvlx_set_log(NVLX_LOG_WARNING, count_warnings, "no region is shared"));
    char *private = allocate_file(server, SIZE);
    uint64_t base = segments[0].base, serial = segments[0].serial;
    struct nvlxi_allocation allocation;
    OK(nvlxi_device_host.resolve(server->context.device, (uintptr_t) private, &allocation));
    segments[0].base = allocation.base;
    segments[0].serial = allocation.serial;
    refuse_first(NVLX_ESTALE, "no region is shared");
    struct nvlx_region *none = register_range(server, private, SIZE, NULL, NVLX_ACCESS_NONE);
    refuse_first(NVLX_ESTALE, "no region is shared");
    struct nvlx_region *write = register_range(server, private + 7, 1, NULL, NVLX_ACCESS_WRITE);
    struct nvlxi_files *opened = open_files(1);
    expect_file(opened, 0);
    files->close(files, opened);
    OK(nvlx_unregister(write, PATIENCE));
    refuse_first(NVLX_ESTALE, "no region is shared");
    OK(nvlx_unregister(none, PATIENCE));
    segments[0].serial = serial;
    segments[0].base = base + 1;
    refuse_first(NVLX_ESTALE, "no region is shared");
    segments[0].base = base;
    segments[0].serial = serial + 1000;
    refuse_first(NVLX_ESTALE, "no region is shared");
    segments[0].serial = serial;
    opened = open_files(1);
    expect_file(opened, 0);
    files->close(files, opened);
    for (size_t i = 0; i < 2; i++)
        OK(nvlx_unregister(regions[i], PATIENCE));
    refuse_first(NVLX_ESTALE, "no region is shared");
    OK(nvlx_free(server, private));
    EQUAL(0, atomic_load(&warnings)); /* it may happen to anybody */
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    end();
}

/* The rest of the request is not served, the server goes on. */
static void failing_exports_are_told(void) {
    int fd;
    begin(SEGMENTS);
    for (long wrong = 1; wrong < 300; wrong += 37) {
        atomic_store(&file_faults.exports, 0);
        atomic_store(&file_faults.failing, wrong);
        struct nvlxi_files *opened = open_files(SEGMENTS);
        int code = 0;
        for (size_t i = 0; i < SEGMENTS && !(code = opened->take(opened, &fd)); i++)
            close(fd);
        REFUSED(code, NVLX_EDEVICE, "on purpose");
        files->close(files, opened);
        opened = open_files(3);
        expect_file(opened, 0);
        files->close(files, opened);
    }
    atomic_store(&file_faults.failing, 0);
    end();
}

static void owners_must_serve(void) {
    struct nvlxi_files *opened = NULL;
    begin(1);
    owner->address[0] = '\0';
    REFUSED(files->open(files, told, owner, segments, 1, &opened), NVLX_ENOTSUP, "nvlx_serve");
    snprintf(owner->address, sizeof owner->address, "%s-nobody", own_path());
    REFUSED(files->open(files, told, owner, segments, 1, &opened), NVLX_ESTALE,
            "any more: the peer is gone, or is not reached from here: the folder \"/tmp\" has no such file");
    snprintf(owner->address, sizeof owner->address, "%s-nobody", own_name());
    REFUSED(files->open(files, told, owner, segments, 1, &opened), NVLX_ESTALE, "in this network namespace");
    snprintf(owner->address, sizeof owner->address, "%s", own_path());
    owner->identity.engine[0] ^= 1;
    REFUSED(files->open(files, told, owner, segments, 1, &opened), NVLX_ESTALE, "another engine serves at");
    owner->identity.engine[0] ^= 1;
    EXPECT(!opened);
    end();
}

static void set_limit(rlim_t limit) {
    struct rlimit known;
    EQUAL(0, getrlimit(RLIMIT_NOFILE, &known));
    known.rlim_cur = limit;
    EQUAL(0, setrlimit(RLIMIT_NOFILE, &known));
}

/* ---- Servers that are none ------------------------------------------------------------------------------ */

struct fake {
    int listener;
    const char *engine;
    size_t announced, sent; /* file descriptors; none is sent, and no answer, if both are 0 */
};

/* A message with `count` file descriptors. */
static void send_with_pipes(int socket, const uint8_t *bytes, size_t length, size_t count) {
    char control[CMSG_SPACE(64 * sizeof(int))] = {0};
    int ends[2];
    struct iovec what = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &what, .msg_iovlen = 1};
    EXPECT(pipe2(ends, O_CLOEXEC) == 0);
    if (count) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        for (size_t i = 0; i < count; i++)
            memcpy(CMSG_DATA(header) + i * sizeof(int), &ends[0], sizeof(int));
    }
    EXPECT(sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)what.iov_len);
    close(ends[0]), close(ends[1]);
}

static void send_pipes(int socket, size_t announced, size_t count) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    send_with_pipes(socket, bytes, nvlxi_protocol_put_files(bytes, announced), count);
}

static void *serve_badly(void *argument) {
    const struct fake *fake = argument;
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    int socket = accept(fake->listener, NULL, NULL);
    put(socket, bytes, nvlxi_protocol_put_welcome(bytes, fake->engine));
    get(socket, bytes, NVLXI_PROTOCOL_HEADER + 16);
    get(socket, bytes, NVLXI_PROTOCOL_HEADER + 2 * 16);
    if (fake->announced || fake->sent)
        send_pipes(socket, fake->announced, fake->sent);
    EXPECT(closes(socket, 20000));
    close(socket);
    return NULL;
}

static void take_from_fake(size_t announced, size_t sent, int code, const char *words) {
    struct fake fake = {raw_listen(owner->address), owner->identity.engine, announced, sent};
    pthread_t thread;
    int fd;
    EQUAL(0, pthread_create(&thread, NULL, serve_badly, &fake));
    struct nvlxi_files *opened = open_files(2);
    REFUSED(opened->take(opened, &fd), code, words);
    files->close(files, opened);
    EQUAL(0, pthread_join(thread, NULL));
    close(fake.listener);
    unlink(owner->address);
}

static void bad_servers_leave_nothing(void) {
    begin(2);
    snprintf(owner->address, sizeof owner->address, "%s-fake", own_path());
    take_from_fake(1, 0, NVLX_EFORMAT, "announced 1 file descriptors of 2 and sent 0");
    take_from_fake(1, 2, NVLX_EFORMAT, "announced 1 file descriptors of 2 and sent 2");
    take_from_fake(3, 3, NVLX_EFORMAT, "announced 3 file descriptors of 2 and sent 3");
    take_from_fake(0, 60, NVLX_EFORMAT, "0 files");
    struct nvlxi_fetcher *fetcher = nvlxi_container_of(files, struct nvlxi_fetcher, server);
    fetcher->patience_ns = SECOND_NS;
    double start = now_ms();
    take_from_fake(0, 0, NVLX_ETIMEDOUT, "does not answer");
    EXPECT(now_ms() - start >= 999 && now_ms() - start < 10000);
    /* room for some of those that come, but not for all */
    fetcher->patience_ns = 10 * SECOND_NS;
    await_quiet();
    set_limit((rlim_t)idle.fds + 10);
    take_from_fake(2, 60, NVLX_ENOMEM, "too many open files in this process");
    set_limit(1024);
    end();
}

/* ---- Servers that are none, and are followed ------------------------------------------------------------- */

typedef void answer_function(int socket, uint32_t request); /* to a request for two files */

struct followed_fake {
    int listener;
    answer_function *answer;
    char *text;
    size_t length;
};

static void *serve_follower_badly(void *argument) {
    const struct followed_fake *fake = argument;
    uint8_t bytes[NVLXI_PROTOCOL_ASK_MAX];
    uint32_t request;
    int socket = accept(fake->listener, NULL, NULL);
    get(socket, bytes, NVLXI_PROTOCOL_HEADER + 16);
    put(socket, bytes, nvlxi_protocol_put_welcome(bytes, owner->identity.engine));
    put(socket, bytes, nvlxi_protocol_put_text(bytes, fake->length));
    put(socket, fake->text, fake->length);
    get(socket, bytes, NVLXI_PROTOCOL_HEADER + 8 + 2 * 16);
    memcpy(&request, bytes + NVLXI_PROTOCOL_HEADER, sizeof request);
    fake->answer(socket, request);
    EXPECT(closes(socket, 20000));
    close(socket);
    return NULL;
}

static void give_pipes(int socket, uint32_t request, size_t announced, size_t count) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    send_with_pipes(socket, bytes, nvlxi_protocol_put_given(bytes, request, announced), count);
}

static void give_less(int socket, uint32_t request) {
    give_pipes(socket, request, 2, 1);
}

static void give_more(int socket, uint32_t request) {
    give_pipes(socket, request, 3, 3);
}

static void give_none(int socket, uint32_t request) {
    give_pipes(socket, request, 0, 60);
}

static void give_plenty(int socket, uint32_t request) {
    give_pipes(socket, request, 2, 60);
}

static void say_nothing(int socket, uint32_t request) {
    (void)socket, (void)request;
}

static void end_at_once(int socket, uint32_t request) {
    (void)request;
    EQUAL(0, shutdown(socket, SHUT_WR));
}

static void deny_two(int socket, uint32_t request) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    put(socket, bytes, nvlxi_protocol_put_denied(bytes, request + 1, NVLX_EDEVICE, "somebody else"));
    put(socket, bytes, nvlxi_protocol_put_denied(bytes, request, NVLX_EBUSY, "not today"));
    put(socket, bytes, nvlxi_protocol_put_denied(bytes, request, NVLX_EDEVICE, "once more"));
}

static atomic_bool given_up, given;

static void give_late(int socket, uint32_t request) {
    while (!atomic_load(&given_up))
        usleep(1000);
    give_pipes(socket, request, 2, 2);
    atomic_store(&given, true);
}

static void give_to_others_too(int socket, uint32_t request) {
    give_pipes(socket, request + 1, 2, 2);
    give_pipes(socket, request, 1, 1);
    give_pipes(socket, 0, 5, 5);
    give_pipes(socket, request, 1, 1);
}

/* Takes one file, and again, or is refused. */
static void take_from_followed(answer_function *answer, int code, const char *words) {
    atomic_store(&given_up, false);
    struct followed_fake fake = {.listener = raw_listen(owner->address), .answer = answer};
    struct nvlxi_files *opened;
    struct nvlx_peer *fake_peer;
    pthread_t thread;
    int fd;
    OK(nvlx_export(server, &fake.text, &fake.length));
    EQUAL(0, pthread_create(&thread, NULL, serve_follower_badly, &fake));
    fake_peer = connect_to(client, owner->address);
    OK(files->open(files, fake_peer, owner, segments, 2, &opened));
    for (int i = 0; i < 2 && !code; i++) {
        OK(opened->take(opened, &fd));
        close(fd);
    }
    if (code)
        REFUSED(opened->take(opened, &fd), code, words);
    files->close(files, opened);
    atomic_store(&given_up, true);
    if (code == NVLX_ESTALE)
        REFUSED(nvlx_peer_test(fake_peer), code, words);
    else
        OK(nvlx_peer_test(fake_peer));
    while (answer == give_late && !atomic_load(&given))
        usleep(1000);
    usleep(answer == give_late ? 200000 : 0); /* while it comes */
    OK(nvlx_peer_close(fake_peer));
    EQUAL(0, pthread_join(thread, NULL));
    nvlx_text_free(fake.text);
    close(fake.listener);
    unlink(owner->address);
}

static void followed_bad_servers_leave_nothing(void) {
    begin(2);
    struct nvlxi_fetcher *fetcher = nvlxi_container_of(files, struct nvlxi_fetcher, server);
    snprintf(owner->address, sizeof owner->address, "%s-fake", own_path());
    owner->identity.generation = nvlxi_peer_generation(peer);
    take_from_followed(give_less, NVLX_ESTALE, "announced 2 file descriptors and sent 1");
    take_from_followed(give_more, NVLX_ESTALE, "announced 3 file descriptors and sent 3, of 2");
    take_from_followed(give_none, NVLX_ESTALE, "0 files");
    take_from_followed(end_at_once, NVLX_ESTALE, "gone");
    take_from_followed(deny_two, NVLX_EBUSY, "not today");
    take_from_followed(give_to_others_too, 0, "");
    fetcher->patience_ns = SECOND_NS / 5;
    double start = now_ms();
    take_from_followed(say_nothing, NVLX_ETIMEDOUT, "does not give out");
    EXPECT(now_ms() - start >= 199 && now_ms() - start < 10000);
    take_from_followed(give_late, NVLX_ETIMEDOUT, "does not give out");
    fetcher->patience_ns = 10 * SECOND_NS;
    await_quiet();
    set_limit((rlim_t)idle.fds + 12);
    take_from_followed(give_plenty, NVLX_ENOMEM, "no room for file descriptors from ");
    set_limit(1024);
    end();
}

/* ---- Clients that are none ------------------------------------------------------------------------------ */

/* Asks for many files and reads nothing: others are served in between, and are not kept waiting. */
static void greedy_clients_wait_their_turn(void) {
    static struct nvlxi_protocol_file wanted[NVLXI_PROTOCOL_FILES_MAX];
    uint8_t bytes[NVLXI_PROTOCOL_FETCH_MAX];
    int greedy[8];
    begin(NVLXI_PROTOCOL_FILES_MAX);
    for (size_t i = 0; i < NVLXI_PROTOCOL_FILES_MAX; i++)
        wanted[i] = (struct nvlxi_protocol_file){segments[i].base, segments[i].serial};
    atomic_store(&file_faults.export_us, 2000);
    for (size_t i = 0; i < COUNT(greedy); i++) {
        greedy[i] = raw_connect(own_path());
        put(greedy[i], bytes, nvlxi_protocol_put_hello(bytes, NVLXI_PROTOCOL_FETCHER));
        put(greedy[i], bytes, nvlxi_protocol_put_fetch(bytes, wanted, NVLXI_PROTOCOL_FILES_MAX));
        put(greedy[i], bytes, nvlxi_protocol_put_fetch(bytes, wanted, NVLXI_PROTOCOL_FILES_MAX));
    }
    double start = now_ms();
    struct nvlxi_files *opened = open_files(3);
    for (size_t i = 0; i < 3; i++)
        expect_file(opened, i);
    files->close(files, opened);
    /* all that is asked for takes more than 8 s; a few turns of the loop, of 16 files a client, far less */
    EXPECT(now_ms() - start < 5000);
    atomic_store(&file_faults.export_us, 0);
    for (size_t i = 0; i < COUNT(greedy); i++)
        close(greedy[i]);
    end();
}

/* What is not shared by a file descriptor has none to give. */
static void other_kinds_have_no_files(void) {
    struct nvlxi_allocation allocation;
    begin(1);
    char *plain = allocate(server, 0, SIZE, 1);
    register_range(server, plain, SIZE, NULL, NVLX_ACCESS_READ);
    OK(nvlxi_device_host.resolve(server->context.device, (uintptr_t)plain, &allocation));
    segments[0].base = allocation.base;
    segments[0].serial = allocation.serial;
    refuse_first(NVLX_EINVAL, "not shared by a file descriptor");
    OK(nvlx_free(server, plain));
    end();
}

/* A client that no descriptor can be made for is told so, and does not wait for one. */
static void unwritable_descriptors_are_told(void) {
    struct nvlx_peer *other;
    begin(1);
    atomic_store(&file_faults.mute, NVLX_EDEVICE);
    register_range(server, NULL, 0, "change", NVLX_ACCESS_READ);
    REFUSED(nvlx_connect(client, own_path(), PATIENCE, &other), NVLX_EDEVICE, "no word, on purpose");
    OK(nvlx_peer_test(peer));
    atomic_store(&file_faults.mute, 0);
    await_name(peer, "change");
    end();
}

/* A follower that cannot be told what has changed is told that: it does not keep the old picture for ever. The owner
 * does not complain for ever, and serves again when it can. */
static void expect_told(int code, double at_least_ms) {
    double begin = now_ms();
    atomic_store(&file_faults.mute, code);
    atomic_store(&warnings, 0);
    struct nvlx_region *change = register_range(server, NULL, 0, "change", NVLX_ACCESS_READ);
    while (!nvlx_peer_test(peer) && now_ms() - begin < 20000)
        usleep(1000);
    REFUSED(nvlx_peer_test(peer), NVLX_ESTALE, "no word, on purpose");
    EXPECT(now_ms() - begin >= at_least_ms && now_ms() - begin < 15000);
    int before = atomic_load(&warnings);
    EXPECT(before >= 1 && before < 12);
    sleep(2);
    EQUAL(before, atomic_load(&warnings));
    atomic_store(&file_faults.mute, 0);
    OK(nvlx_peer_close(peer));
    peer = connect_to(client, own_path());
    find(peer, "change");
    OK(nvlx_unregister(change, PATIENCE));
    await_no_name(peer, "change");
}

static void followers_are_told_that_they_cannot_be_told(void) {
    begin(1);
    OK(nvlx_set_log(NVLX_LOG_WARNING, count_warnings, "no word, on purpose"));
    expect_told(NVLX_EINVAL, 0);
    expect_told(NVLX_EDEVICE, 1500);
    OK(nvlx_set_log(NVLX_LOG_WARNING, NULL, NULL));
    end();
}

/* The same over the connection by which the peer is followed. */
static void followed_files_come_in_order(void) {
    followed = true;
    files_come_in_order();
}

static void followed_only_segments_with_files_are_asked_for(void) {
    followed = true;
    only_segments_with_files_are_asked_for();
}

static void followed_closing_early_leaves_nothing(void) {
    followed = true;
    closing_early_leaves_nothing();
}

static void followed_only_shared_segments_are_given(void) {
    followed = true;
    only_shared_segments_are_given();
}

static void followed_failing_exports_are_told(void) {
    followed = true;
    failing_exports_are_told();
}

static void followed_other_kinds_have_no_files(void) {
    followed = true;
    other_kinds_have_no_files();
}

/* ---- The table of files ---------------------------------------------------------------------------------- */

/* How many files this process's table has room for. */
static long table_size(void) {
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    long size = 0;
    EXPECT(status != NULL);
    while (!size && fgets(line, sizeof line, status))
        sscanf(line, "FDSize: %ld", &size);
    fclose(status);
    EXPECT(size > 0);
    return size;
}

static void await_larger_table(long size) {
    for (int i = 0; i < 5000 && table_size() <= size; i++)
        usleep(1000);
    EXPECT(table_size() > size);
}

/* Opens files until so many more fit. What they are is left to the end of the process. */
static long fill_table(int left) {
    const long size = table_size();
    int last;
    do
        last = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
    while (last >= 0 && last < size - left - 1);
    EXPECT(last >= 0);
    EQUAL(size, table_size());
    return size;
}

static void visitor_role(int socket) {
    char at[64];
    struct nvlx_engine *visitor = make_engine(0);
    get(socket, at, sizeof at);
    connect_to(visitor, at);
    get_or_end(socket, at, 1);
    OK(nvlx_engine_destroy(visitor));
}

/* To make it larger takes long: it is done before files are asked for. */
static void servers_make_the_table_larger_ahead(void) {
    server = make_file_engine();
    register_range(server, allocate_file(server, SIZE), SIZE, NULL, NVLX_ACCESS_READ);
    const long first = fill_table(20);
    OK(nvlx_serve(server, own_path(), NULL));
    await_larger_table(first);
    for (int i = 0; i < 3; i++) {
        const long size = fill_table(20);
        struct child visitor;
        child_start(&visitor, "visitor");
        put(visitor.socket, own_path(), 64);
        await_larger_table(size);
        child_end(&visitor);
    }
    OK(nvlx_engine_destroy(server));
}

static void clients_make_the_table_larger_ahead(void) {
    struct owner other;
    owner_start(&other);
    OK(owner_serve(&other, own_path(), 0));
    client = make_file_engine();
    for (int i = 0; i < 3; i++) {
        const long size = fill_table(20);
        connect_to(client, own_path());
        await_larger_table(size);
    }
    OK(nvlx_engine_destroy(client));
    owner_end(&other);
}

/* Where few more may be opened, or none, it stays as it is, and what was opened to look is closed. */
static void a_table_at_its_limit_stays(void) {
    struct rlimit limit;
    fill_table(20);
    const int free_one = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
    EXPECT(free_one >= 0);
    close(free_one);
    EQUAL(0, getrlimit(RLIMIT_NOFILE, &limit));
    const struct holdings before = holdings();
    const long size = table_size();
    struct nvlxi_file_table table = {.size = 0};
    for (int left = 0; left < 3; left++) {
        const struct rlimit lower = {(rlim_t)(free_one + left), limit.rlim_max};
        EQUAL(0, setrlimit(RLIMIT_NOFILE, &lower));
        nvlxi_file_table_widen(&table, STDIN_FILENO, free_one - 1);
        nvlxi_file_table_end(&table);
        EQUAL(0, setrlimit(RLIMIT_NOFILE, &limit));
        expect_holdings(&before, "at the limit");
    }
    EQUAL(size, table_size());
    table.size = 0;
    for (int i = 0; i < 3; i++)
        nvlxi_file_table_widen(&table, STDIN_FILENO, free_one - 1);
    nvlxi_file_table_end(&table);
    expect_holdings(&before, "without a limit");
}

/* Meanwhile peers are answered: at once, in one of some tries at least. */
static void nobody_waits_for_the_table(void) {
    double best_ms = 1e9;
    struct owner other;
    owner_start(&other);
    owner_alloc(&other, 0, 0, SIZE, 1);
    OK(owner_serve(&other, own_path(), 0));
    client = make_engine(0);
    for (int i = 0; i < 5; i++) {
        owner_register(&other, 0, 0, 0, SIZE, NVLX_ACCESS_READ, "here");
        fill_table(20);
        struct nvlx_peer *from = connect_to(client, own_path());
        OK(nvlx_peer_map(from, 0, find(from, "here"), SIZE));
        const double since = now_ms();
        OK(owner_unregister(&other, 0));
        const double took = now_ms() - since;
        best_ms = took < best_ms ? took : best_ms;
        OK(nvlx_peer_close(from));
    }
    OK(nvlx_engine_destroy(client));
    owner_end(&other);
    EXPECT(best_ms < 4);
}

/* All that a pull takes fits. */
static void files_fit_in_the_table(void) {
    fill_table(20);
    begin(SEGMENTS);
    const long size = table_size();
    followed = true;
    struct nvlxi_files *opened = open_files(SEGMENTS);
    for (size_t i = 0; i < SEGMENTS; i++)
        expect_file(opened, i);
    files->close(files, opened);
    EQUAL(size, table_size());
    end();
}

/* Whoever counts what a process holds does not count the thread that makes the table larger, nor its file. */
static void what_is_held_is_told_apart(void) {
    for (int i = 0; i < 3; i++) {
        fill_table(20);
        begin(1);
        end();
    }
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"files_come_in_order", files_come_in_order},
        {"followed_files_come_in_order", followed_files_come_in_order},
        {"only_segments_with_files_are_asked_for", only_segments_with_files_are_asked_for},
        {"followed_only_segments_with_files_are_asked_for", followed_only_segments_with_files_are_asked_for},
        {"closing_early_leaves_nothing", closing_early_leaves_nothing},
        {"followed_closing_early_leaves_nothing", followed_closing_early_leaves_nothing},
        {"only_shared_segments_are_given", only_shared_segments_are_given},
        {"followed_only_shared_segments_are_given", followed_only_shared_segments_are_given},
        {"failing_exports_are_told", failing_exports_are_told},
        {"followed_failing_exports_are_told", followed_failing_exports_are_told},
        {"owners_must_serve", owners_must_serve},
        {"other_kinds_have_no_files", other_kinds_have_no_files},
        {"followed_other_kinds_have_no_files", followed_other_kinds_have_no_files},
        {"unwritable_descriptors_are_told", unwritable_descriptors_are_told},
        {"followers_are_told_that_they_cannot_be_told", followers_are_told_that_they_cannot_be_told},
        {"bad_servers_leave_nothing", bad_servers_leave_nothing},
        {"followed_bad_servers_leave_nothing", followed_bad_servers_leave_nothing},
        {"greedy_clients_wait_their_turn", greedy_clients_wait_their_turn},
        {"servers_make_the_table_larger_ahead", servers_make_the_table_larger_ahead},
        {"clients_make_the_table_larger_ahead", clients_make_the_table_larger_ahead},
        {"a_table_at_its_limit_stays", a_table_at_its_limit_stays},
        {"nobody_waits_for_the_table", nobody_waits_for_the_table},
        {"files_fit_in_the_table", files_fit_in_the_table},
        {"what_is_held_is_told_apart", what_is_held_is_told_apart},
        {0}};
    static const struct role roles[] = {OWNER_ROLE, {"visitor", visitor_role}, {0}};
    return run_tests(argc, argv, tests, roles, 30);
}
