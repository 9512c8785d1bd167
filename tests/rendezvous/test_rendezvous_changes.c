/* Followers that are told what has changed: their picture is the owner's, whatever they do meanwhile, and it costs as
 * much as the change. SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptor/descriptor.h"
#include "subscriber.h"
#include "support.h"

#define BLOCKS    8
#define NAMES     64
#define FOLLOWERS 3
#define CHUNK     (2 * MIB)
#define PATH      108 /* bytes of an address */

/* ---- The follower: another process ------------------------------------------------------------------------ */

struct known { /* what the owner has by a name */
    uint64_t address, length;
    uint32_t seed, access;
    uint64_t offset; /* in what the seed filled */
    bool asleep;
};

struct picture {
    uint64_t generation; /* that it is of */
    uint32_t batch;      /* 0, or the number of the batch that comes next */
    bool names;          /* what is known is to be compared, and then */
    bool counts_mappings;
    uint32_t mappings; /* that are open */
    struct known known[NAMES];
};

struct estate {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    char *local;
};

/* Reads some of the bytes of a region, and compares them. */
static void read_bytes(const struct estate *e, const struct known *known) {
    uint64_t random = known->address + known->length;
    const uint64_t from = next_random(&random) % known->length, left = known->length - from;
    const size_t length = left < KIB ? (size_t)left : KIB;
    move(e->engine, NVLX_OP_READ, e->peer, e->local, known->address + from, length);
    for (size_t i = 0; i < length; i++)
        EQUAL(seed_byte(known->seed, known->offset + from + i), (uint8_t)e->local[i]);
}

static void refuse_bytes(const struct estate *e, const struct known *known) {
    struct nvlx_request *request;
    const struct nvlx_op op = make_op(NVLX_OP_READ, e->peer, e->local, known->address, 1);
    const bool grants = known->access & NVLX_ACCESS_READ;
    EQUAL(grants ? NVLX_ESUSPENDED : NVLX_EACCES, nvlx_transfer(e->engine, &op, 1, NULL, &request));
}

/* Who asks for a name that is gone is not told of one that is gone, too. */
static void expect_no_advice(const struct picture *picture, const char *advice) {
    char name[32];
    for (size_t i = 0; advice && i < NAMES; i++) {
        snprintf(name, sizeof name, "\"region.%zu\"", i);
        EXPECT(picture->known[i].address || !strstr(advice, name));
    }
}

/* All is as the owner has it. */
static void expect_picture(const struct estate *e, const struct picture *picture) {
    char name[32];
    uint64_t address, length;
    OK(nvlx_peer_sync(e->peer, picture->generation, PATIENCE));
    for (size_t i = 0; picture->names && i < NAMES; i++) {
        const struct known *known = &picture->known[i];
        snprintf(name, sizeof name, "region.%zu", i);
        const int code = nvlx_peer_find(e->peer, name, &address, &length);
        if (code == 0 && known->address)
            EXPECT(address == known->address && length == known->length);
        EQUAL(known->address != 0, code == 0);
        if (code)
            expect_no_advice(picture, strstr(nvlx_last_error(), ", but"));
        if (known->address && !known->asleep && known->access & NVLX_ACCESS_READ)
            read_bytes(e, known);
        else if (known->access)
            refuse_bytes(e, known);
    }
    if (picture->counts_mappings)
        expect_mappings(e->engine, picture->mappings);
}

/* Once one name of a batch is there, the others are, and none of the batch before. */
static void expect_batch(const struct estate *e, uint32_t batch) {
    char name[32];
    uint64_t address, length;
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "batch.%u.%zu", batch, (batch + i) % 4);
        if (i == 0)
            await_name(e->peer, name);
        OK(nvlx_peer_find(e->peer, name, &address, &length));
        snprintf(name, sizeof name, "batch.%u.%zu", batch - 1, i);
        EQUAL(NVLX_ENOENT, nvlx_peer_find(e->peer, name, &address, &length));
    }
}

static void follower_role(int socket) {
    struct estate e = {.engine = make_engine(0)};
    struct picture picture;
    char address[PATH];
    e.local = allocate(e.engine, second_gpu(), KIB, 1);
    register_range(e.engine, e.local, KIB, NULL, NVLX_ACCESS_NONE);
    get(socket, address, sizeof address);
    e.peer = connect_to(e.engine, address);
    put(socket, "c", 1);
    while (get_or_end(socket, &picture, sizeof picture)) {
        if (picture.batch)
            expect_batch(&e, picture.batch);
        if (picture.generation)
            expect_picture(&e, &picture);
        put(socket, "d", 1);
    }
    OK(nvlx_engine_destroy(e.engine));
}

static void start_follower(struct child *child, const char *at) {
    char address[PATH] = "";
    snprintf(address, sizeof address, "%s", at);
    child_start(child, "follower");
    put(child->socket, address, sizeof address);
    await_child(child);
}

/* ---- The owner ------------------------------------------------------------------------------------------- */

static struct nvlx_engine *owner;
static char address[PATH];
static char *blocks[BLOCKS];
static size_t lengths[BLOCKS];
static uint32_t seeds[BLOCKS];
static struct nvlx_region *regions[NAMES];
static struct nvlx_region *waiting[1000]; /* withdrawn while changes were held back */
static size_t waiting_count;
static bool held, sleepy;
static size_t home[NAMES]; /* the block of each */
static struct picture picture;
static uint64_t state = 5;

static size_t below(size_t limit) {
    return next_random(&state) % limit;
}

static void allocate_block(size_t i) {
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = i % 3 == 0 ? NVLX_ALLOC_VMM : 0;
    options.chunk_length = options.flags ? CHUNK : 0;
    lengths[i] = options.flags ? 3 * CHUNK : 64 * KIB;
    seeds[i] = (uint32_t)below(1000000);
    OK(nvlx_alloc(owner, 0, lengths[i], &options, (void **)&blocks[i]));
    fill(owner, blocks[i], lengths[i], seeds[i]);
}

/* While changes are held back, it is asked for again when they are told. */
static void withdraw(size_t i) {
    int code = regions[i] ? nvlx_unregister(regions[i], held ? 0 : -1) : 0;
    EXPECT(code == 0 || (held && code == NVLX_ETIMEDOUT));
    if (code)
        waiting[waiting_count++] = regions[i];
    regions[i] = NULL;
    picture.known[i] = (struct known){0};
}

static void publish(void) {
    OK(nvlx_publish(owner, &picture.generation));
    held = false;
    while (waiting_count)
        OK(nvlx_unregister(waiting[--waiting_count], -1));
    for (size_t i = 0; i < NAMES; i++)
        if (picture.known[i].asleep)
            OK(nvlx_suspend(&regions[i], 1, -1));
}

static void add(size_t i) {
    const size_t block = below(BLOCKS), start = below(16) * lengths[block] / 16;
    const size_t length = below(2) ? 1 + below(lengths[block] - start) : lengths[block] / 16;
    const uint32_t access = below(6) ? NVLX_ACCESS_READ_WRITE : NVLX_ACCESS_READ + (uint32_t)below(2);
    char name[32];
    snprintf(name, sizeof name, "region.%zu", i);
    regions[i] = register_range(owner, blocks[block] + start, length, name, access);
    picture.known[i] = (struct known){(uintptr_t)blocks[block] + start, length, seeds[block], access, start, false};
    home[i] = block;
}

/* An op may lie in any region that grants its direction: so nothing is known of what is not read where others lie. */
static bool is_shared(size_t i) {
    const struct known *one = &picture.known[i];
    for (size_t k = 0; k < NAMES; k++)
        if (k != i && picture.known[k].address <= one->address &&
            one->address < picture.known[k].address + picture.known[k].length)
            return true;
    return false;
}

/* Other memory, maybe at the same address. */
static void replace_block(size_t block) {
    for (size_t i = 0; i < NAMES; i++)
        if (regions[i] && picture.known[i].seed == seeds[block])
            withdraw(i);
    OK(nvlx_free(owner, blocks[block]));
    allocate_block(block);
}

/* All that is awake in a block; once peers have let go of it, other memory may take its place. */
static void put_to_sleep(size_t block) {
    struct nvlx_region *list[NAMES];
    size_t count = 0;
    for (size_t i = 0; i < NAMES; i++)
        if (regions[i] && home[i] == block && !picture.known[i].asleep) {
            picture.known[i].asleep = true;
            list[count++] = regions[i];
        }
    int code = nvlx_suspend(list, count, held ? 0 : -1);
    EXPECT(code == 0 || (held && code == NVLX_ETIMEDOUT));
    if (held || below(2))
        return;
    OK(nvlx_free(owner, blocks[block]));
    allocate_block(block);
}

static void wake(size_t block) {
    struct nvlx_region *list[NAMES];
    void *addresses[NAMES];
    size_t count = 0;
    for (size_t i = 0; i < NAMES; i++)
        if (picture.known[i].asleep && home[i] == block) {
            struct known *known = &picture.known[i];
            addresses[count] = blocks[block] + known->offset;
            known->address = (uintptr_t)addresses[count];
            known->seed = seeds[block];
            known->asleep = false;
            list[count++] = regions[i];
        }
    OK(nvlx_resume(list, count, addresses));
}

static void change_something(void) {
    const size_t i = below(NAMES);
    if (sleepy && !below(15))
        below(2) ? put_to_sleep(below(BLOCKS)) : wake(below(BLOCKS));
    else if (!held && !below(30))
        replace_block(below(BLOCKS));
    else if (regions[i])
        withdraw(i);
    else
        add(i);
}

static void begin(void) {
    owner = make_engine(0);
    snprintf(address, sizeof address, "%s", own_path());
    for (size_t i = 0; i < BLOCKS; i++)
        allocate_block(i);
    OK(nvlx_serve(owner, address, NULL));
}

static void end(void) {
    for (size_t i = 0; i < NAMES; i++)
        withdraw(i);
    OK(nvlx_engine_destroy(owner));
}

static void tell(struct child *child, const struct picture *told) {
    struct picture sent = *told;
    sent.names = true;
    for (size_t i = 0; i < NAMES; i++)
        if (sent.known[i].address && (sent.known[i].asleep || !(sent.known[i].access & NVLX_ACCESS_READ)) &&
            is_shared(i))
            sent.known[i].access = NVLX_ACCESS_NONE; /* another region may grant it */
    put(child->socket, &sent, sizeof sent);
}

static void tell_all(struct child *followers, const struct picture *told) {
    for (size_t i = 0; i < FOLLOWERS; i++)
        tell(&followers[i], told);
    for (size_t i = 0; i < FOLLOWERS; i++)
        await_child(&followers[i]);
}

/* ---- Tests ------------------------------------------------------------------------------------------------- */

/* Registers, withdraws and replaces memory, some of it as one change; then all followers have the owner's picture. */
static void pictures_agree(void) {
    struct child followers[FOLLOWERS];
    begin();
    for (size_t i = 0; i < FOLLOWERS; i++)
        start_follower(&followers[i], address);
    const int rounds = sanitized() ? 60 : 250;
    for (int round = 0; round < rounds; round++) {
        held = below(2);
        if (held)
            OK(nvlx_hold(owner));
        for (size_t count = 1 + below(below(8) ? 4 : 60); count; count--)
            change_something();
        publish();
        if (round % 3 == 0)
            tell_all(followers, &picture);
        else
            usleep((useconds_t)below(3000));
    }
    for (size_t i = 0; i < FOLLOWERS; i++)
        child_end(&followers[i]);
    end();
}

/* Some of the changes are that memory sleeps, wakes, and moves. */
static void pictures_of_sleepers_agree(void) {
    sleepy = true;
    pictures_agree();
    sleepy = false;
}

static void batches_are_seen_whole(void) {
    struct child followers[FOLLOWERS];
    begin();
    for (size_t i = 0; i < FOLLOWERS; i++)
        start_follower(&followers[i], address);
    for (uint32_t number = 1; number <= 100; number++) {
        char name[32];
        const struct picture told = {.batch = number};
        for (size_t i = 0; i < FOLLOWERS; i++)
            put(followers[i].socket, &told, sizeof told);
        held = true;
        OK(nvlx_hold(owner));
        for (size_t i = 0; i < 4; i++) {
            withdraw(i);
            snprintf(name, sizeof name, "batch.%u.%zu", number, i);
            regions[i] = register_range(owner, blocks[i], 4096, name, NVLX_ACCESS_READ);
            usleep(500);
        }
        publish();
        for (size_t i = 0; i < FOLLOWERS; i++)
            await_child(&followers[i]);
    }
    for (size_t i = 0; i < FOLLOWERS; i++)
        child_end(&followers[i]);
    end();
}

/* Many changes that nobody is told of, and that come to nothing. */
static void change_for_nothing(void) {
    for (int i = 0; i < 10000; i++) {
        struct nvlx_region *region = register_range(owner, blocks[1], 512, NULL, NVLX_ACCESS_READ);
        GIVES(NVLX_ETIMEDOUT, nvlx_unregister(region, 0)); /* before the publish; it is withdrawn */
    }
}

/* Who knows less than the owner remembers to have told gets all there is, and then what has changed since. */
static void the_journal_ends(void) {
    struct child follower;
    begin();
    add(1);
    start_follower(&follower, address);
    for (size_t i = 2; i < 10; i++) {
        held = true;
        OK(nvlx_hold(owner));
        if (i % 2)
            change_for_nothing();
        withdraw(i - 1);
        add(i);
        publish();
        tell(&follower, &picture);
        await_child(&follower);
    }
    child_end(&follower);
    end();
}

/* Who is stopped is told when it goes on. */
static void who_is_stopped_is_late(void) {
    struct child follower;
    begin();
    start_follower(&follower, address);
    child_stop(&follower);
    for (int i = 0; i < 20000; i++) {
        struct nvlx_region *region = register_range(owner, blocks[1], 512, NULL, NVLX_ACCESS_READ);
        int code = nvlx_unregister(region, 0);
        EXPECT(code == 0 || code == NVLX_ETIMEDOUT); /* the stopped one may have been told of it */
    }
    add(3);
    EQUAL(0, kill(follower.pid, SIGCONT));
    publish();
    tell(&follower, &picture);
    await_child(&follower);
    child_end(&follower);
    end();
}

/* What no region is left in is closed, and nothing else; also where its memory comes back at once. */
static void mappings_end_with_their_regions(void) {
    struct child follower;
    begin();
    regions[0] = register_range(owner, blocks[1], 512, "region.0", NVLX_ACCESS_READ);
    regions[1] = register_range(owner, blocks[2], 512, "region.1", NVLX_ACCESS_READ);
    regions[2] = register_range(owner, blocks[2] + 512, 512, "region.2", NVLX_ACCESS_READ);
    regions[3] = register_range(owner, blocks[3], lengths[3], "region.3", NVLX_ACCESS_READ);
    for (size_t i = 0; i < 4; i++)
        picture.known[i] = (struct known){(uintptr_t)blocks[i < 2 ? i + 1 : i] + (i == 2) * 512,
                                          i == 3 ? lengths[3] : 512,
                                          seeds[i < 2 ? i + 1 : i],
                                          NVLX_ACCESS_READ,
                                          (i == 2) * 512,
                                          false};
    start_follower(&follower, address);
    static const uint32_t left[] = {3, 2, 2, 1, 0};
    for (size_t i = 0; i < COUNT(left); i++) {
        if (i)
            withdraw(i - 1);
        publish();
        picture.mappings = left[i];
        picture.counts_mappings = true;
        tell(&follower, &picture);
        await_child(&follower);
    }
    picture.counts_mappings = false;
    child_end(&follower);
    end();
}

/* ---- What goes over the wire ------------------------------------------------------------------------------- */

static uint8_t body[1 << 20];

static uint32_t receive(int socket, uint16_t *type) {
    return receive_message(socket, body, sizeof body, type);
}

/* A subscriber that has its first descriptor. */
static int subscribe_and_read(uint16_t minor) {
    uint16_t type;
    int socket = subscribe(address, minor, body, sizeof body);
    EXPECT(receive(socket, &type) > 100000);
    EQUAL(NVLXI_PROTOCOL_TEXT, type);
    return socket;
}

static void register_many(size_t count) {
    char name[40];
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "layer.%zu.weight", i);
        register_range(owner, blocks[0] + i * 256, 256, name, NVLX_ACCESS_READ);
    }
}

/* One change among many regions takes few bytes; who speaks an older version is told everything. */
static void messages_are_as_long_as_changes(void) {
    uint16_t type;
    begin();
    register_many(4000);
    const int older = subscribe_and_read(2), newer = subscribe_and_read(3);
    for (int i = 0; i < 10; i++) {
        struct nvlx_region *region = register_range(owner, blocks[1], 512, "new", NVLX_ACCESS_READ);
        EXPECT(receive(newer, &type) < 1024);
        EQUAL(NVLXI_PROTOCOL_CHANGES, type);
        EXPECT(receive(older, &type) > 100000);
        EQUAL(NVLXI_PROTOCOL_TEXT, type);
        GIVES(NVLX_ETIMEDOUT, nvlx_unregister(region, 0));
        EXPECT(receive(newer, &type) < 1024);
        EQUAL(NVLXI_PROTOCOL_CHANGES, type);
        EXPECT(receive(older, &type) > 100000);
        if (i == 0) /* asked for once: they do not answer */
            for (int k = 0; k < 2; k++) {
                receive(k ? newer : older, &type);
                EQUAL(NVLXI_PROTOCOL_AWAIT, type);
            }
    }
    close(older);
    close(newer);
    end();
}

/* A segment of the descriptor that has just come, which takes a file. */
static struct nvlxi_protocol_file find_file(size_t length) {
    struct nvlxi_descriptor *descriptor;
    struct nvlxi_protocol_file file = {0};
    OK(nvlxi_descriptor_decode((const char *)body, length, &descriptor));
    for (size_t i = 0; i < descriptor->segment_count; i++)
        if (descriptor->segments[i].file)
            file = (struct nvlxi_protocol_file){descriptor->segments[i].base, descriptor->segments[i].serial};
    nvlxi_descriptor_free(descriptor);
    EXPECT(file.base != 0);
    return file;
}

static bool is_silent(int socket, int timeout_ms) {
    struct pollfd ready = {.fd = socket, .events = POLLIN};
    return poll(&ready, 1, timeout_ms) == 0;
}

/* From the first question for files until it says that it is done, a follower's picture does not change. */
static void who_maps_is_not_told(void) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    uint16_t type;
    begin();
    register_range(owner, blocks[0], CHUNK, "chunk", NVLX_ACCESS_READ);
    register_many(4000);
    int socket = raw_connect(address);
    put(socket, bytes, nvlxi_protocol_put_hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER));
    receive(socket, &type);
    const struct nvlxi_protocol_file file = find_file(receive(socket, &type));
    struct nvlxi_protocol_header header;
    int fd = -1;
    put(socket, bytes, nvlxi_protocol_put_ask(bytes, 1, &file, 1));
    EXPECT(get_file_or_end(socket, bytes, nvlxi_protocol_put_given(bytes, 1, 1), &fd) && fd >= 0);
    OK(nvlxi_protocol_get_header(bytes, true, &header));
    EQUAL(NVLXI_PROTOCOL_GIVEN, header.type);
    close(fd);
    for (int i = 0; i < 3; i++)
        register_range(owner, blocks[1] + (size_t)i * 512, 512, NULL, NVLX_ACCESS_READ);
    EXPECT(is_silent(socket, 300));
    put(socket, bytes, nvlxi_protocol_put_done(bytes));
    EXPECT(receive(socket, &type) < 1024);
    EQUAL(NVLXI_PROTOCOL_CHANGES, type);
    EXPECT(is_silent(socket, 100)); /* all of them came as one */
    close(socket);
    end();
}

/* ---- What it costs ------------------------------------------------------------------------------------------ */

static double least(double a, double b) {
    return a < b ? a : b;
}

/* Until a follower has the owner's picture after one change. */
static double time_change(struct child *follower, size_t i) {
    const double begun = now_ms();
    add(i);
    publish();
    struct picture told = {.generation = picture.generation};
    put(follower->socket, &told, sizeof told);
    await_child(follower);
    const double spent = now_ms() - begun;
    return spent;
}

/* A change is known long before all there is could be written and read, once. */
static void cost_goes_by_the_change(void) {
    struct child follower;
    struct nvlx_peer *peer;
    char *text;
    size_t length;
    double whole = 1e9, change = 1e9;
    begin();
    register_many(20000);
    start_follower(&follower, address);
    struct nvlx_engine *client = make_engine(0);
    for (int i = 0; i < 3; i++) {
        const double begun = now_ms();
        OK(nvlx_export(owner, &text, &length));
        OK(nvlx_peer_open(client, text, length, &peer));
        whole = least(whole, now_ms() - begun);
        nvlx_text_free(text);
        OK(nvlx_peer_close(peer));
    }
    for (size_t i = 0; i < 20; i++)
        change = least(change, time_change(&follower, i));
    fprintf(stderr, "20000 regions: all is written and read in %.1f ms, a change is known after %.2f ms\n", whole,
            change);
    EXPECT(change * 5 < whole);
    OK(nvlx_engine_destroy(client));
    child_end(&follower);
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"pictures_agree", pictures_agree},
                                        {"pictures_of_sleepers_agree", pictures_of_sleepers_agree},
                                        {"batches_are_seen_whole", batches_are_seen_whole},
                                        {"the_journal_ends", the_journal_ends},
                                        {"who_is_stopped_is_late", who_is_stopped_is_late},
                                        {"mappings_end_with_their_regions", mappings_end_with_their_regions},
                                        {"messages_are_as_long_as_changes", messages_are_as_long_as_changes},
                                        {"who_maps_is_not_told", who_maps_is_not_told},
                                        {"cost_goes_by_the_change", cost_goes_by_the_change},
                                        {0}};
    static const struct role roles[] = {{"follower", follower_role}, {0}};
    return run_tests(argc, argv, tests, roles, 60);
}
