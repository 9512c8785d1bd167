/* Relays between processes: a source and readers on four GPUs, of which some die or stand still. On the host backend.
 * SPDX-License-Identifier: Apache-2.0 */
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "relay/relay.h"
#include "relay_member.h"
#include "rendezvous_support.h"

#define READERS 3
#define SEED    7

static struct member source, readers[READERS];
static char address[64];
static struct nvlx_relay_options options;

/* The source on GPU 0, readers on the others. */
static void begin(enum shape shape) {
    snprintf(address, sizeof address, "%s", own_name());
    nvlx_relay_options_init(&options);
    options.piece_bytes = MEMBER_PIECE;
    options.readers = READERS;
    options.patience_ns = 8 * SECOND_NS; /* so that nobody is taken for stopped who is slow */
    member_start(&source, 0, shape);
    for (int i = 0; i < READERS; i++)
        member_start(&readers[i], i + 1, shape);
}

static void end(void) {
    for (int i = 0; i < READERS; i++)
        if (readers[i].child.pid)
            member_end(&readers[i]);
    if (source.child.pid)
        member_end(&source);
}

static void kill_member(struct member *member) {
    child_kill(&member->child);
    member->child.pid = 0;
}

static void expect(struct outcome outcome, int code, const char *words) {
    if (outcome.code != code || !strstr(outcome.error, words))
        FAIL("it gives %d (%s), not %d (%s) with \"%s\"", outcome.code, outcome.error, code, nvlx_strerror(code),
             words);
}

static void offer(void) {
    expect(member_offer(&source, address, SEED, &options), 0, "");
}

static void join(int i) {
    expect(member_join(&readers[i], address, PATIENCE), 0, "");
}

static void join_all(void) {
    for (int i = 0; i < READERS; i++)
        join(i);
}

static void expect_done(struct member *member, uint32_t seed) {
    expect(member_wait(member, PATIENCE), 0, "");
    EQUAL(0, member_wrong(member, seed));
    const struct nvlx_relay_info info = member_info(member);
    EQUAL(info.bytes, info.arrived);
    EXPECT(info.elapsed_ns > 0);
}

static void free_all(void) {
    for (int i = 0; i < READERS; i++)
        if (readers[i].child.pid)
            expect(member_free(&readers[i], PATIENCE), 0, "");
    if (source.child.pid)
        expect(member_free(&source, PATIENCE), 0, "");
}

/* Until a reader has so much, in hundredths. */
static void await_arrived(struct member *member, uint64_t percent) {
    for (double since = now_ms();; usleep(200)) {
        const struct nvlx_relay_info info = member_info(member);
        if (info.arrived * 100 >= info.bytes * percent)
            return;
        EXPECT(now_ms() - since < 30000);
    }
}

/* Whom it reads from. */
static const char *parent_of(struct member *member) {
    static char parent[112];
    const struct nvlx_relay_info info = member_info(member);
    memcpy(parent, info.parent, sizeof parent);
    return parent;
}

/* ---- All goes well --------------------------------------------------------------------------------------- */

static void readers_get_all_bytes(enum shape shape) {
    begin(shape);
    offer();
    join_all();
    for (int i = 0; i < READERS; i++)
        expect_done(&readers[i], SEED);
    expect(member_wait(&source, PATIENCE), 0, "");
    const struct nvlx_relay_info info = member_info(&source);
    EQUAL(1, info.source);
    EQUAL(READERS, info.readers);
    EQUAL(READERS, info.done);
    EQUAL(0, info.lost);
    EXPECT(info.elapsed_ns > 0);
    free_all();
    end();
}

static void one_part_arrives(void) {
    readers_get_all_bytes(ONE);
}

/* A kernel looks at a parent's flags: copy engines are busy. */
static void looks_take_no_copy_engine(void) {
    begin(ONE);
    offer();
    for (int i = 0; i < 2; i++) {
        join(i);
        expect_done(&readers[i], SEED);
    }
    EQUAL(0, member_kernels(&readers[0]));
    EXPECT(member_kernels(&readers[1]) > 0);
    free_all();
    end();
}

/* One slow reader, which has so much, in hundredths. */
static void begin_in_the_middle(uint64_t percent) {
    begin(ONE);
    offer();
    member_slow(&readers[0], true);
    join(0);
    await_arrived(&readers[0], percent);
}

/* Its copies are slow, so that it queues as many as it may. */
static void a_reader_of_the_source_uses_one_lane(void) {
    begin_in_the_middle(20);
    EQUAL(1, member_lanes(&readers[0]));
    member_slow(&readers[0], false);
    expect_done(&readers[0], SEED);
    expect(member_free(&readers[0], PATIENCE), 0, "");
    end();
}

static void many_parts_arrive(void) {
    readers_get_all_bytes(MANY);
}

/* Each GPU's first reader reads from the GPU before, a second one on a GPU from the first. */
static void readers_form_a_chain(void) {
    struct member second;
    char first_parent[112];
    begin(ONE);
    offer();
    for (int i = 0; i < READERS; i++) {
        join(i);
        expect_done(&readers[i], SEED);
    }
    EXPECT(*parent_of(&readers[0]) == '\0');
    memcpy(first_parent, parent_of(&readers[1]), sizeof first_parent);
    EXPECT(strncmp(first_parent, address, strlen(address)) == 0 && first_parent[strlen(address)] == '.');
    EXPECT(strcmp(parent_of(&readers[2]), first_parent) != 0 && *parent_of(&readers[2]));
    member_start(&second, 1, ONE);
    expect(member_join(&second, address, PATIENCE), 0, "");
    expect_done(&second, SEED);
    EXPECT(strcmp(parent_of(&second), first_parent) == 0);
    expect(member_free(&second, PATIENCE), 0, "");
    member_end(&second);
    free_all();
    end();
}

static void a_reader_joins_late(void) {
    begin(ONE);
    offer();
    join(0);
    expect_done(&readers[0], SEED);
    member_slow(&readers[1], true);
    join(1);
    await_arrived(&readers[1], 30);
    join(2);
    EXPECT(member_info(&readers[1]).arrived < member_info(&readers[1]).bytes);
    member_slow(&readers[1], false);
    expect_done(&readers[2], SEED);
    expect_done(&readers[1], SEED);
    free_all();
    end();
}

static void a_reader_waits_for_its_source(void) {
    begin(ONE);
    expect(member_join(&readers[0], address, SECOND_NS / 5), NVLX_ETIMEDOUT, "");
    member_join_begin(&readers[0], address, PATIENCE);
    usleep(200000);
    offer();
    expect(member_wait_end(&readers[0]), 0, "");
    expect_done(&readers[0], SEED);
    free_all();
    end();
}

static void generations_follow_each_other(void) {
    begin(MANY);
    offer();
    join_all();
    for (uint32_t generation = 1; generation < 6; generation++) {
        for (int i = 0; i < READERS; i++)
            expect_done(&readers[i], SEED + generation - 1);
        expect(member_wait(&source, PATIENCE), 0, "");
        EQUAL(generation, member_info(&readers[0]).generation);
        expect(member_hold(&source), 0, "");
        member_fill(&source, SEED + generation);
        if (generation % 2) /* in either order */
            expect(member_next(&source), 0, "");
        for (int i = 0; i < READERS; i++)
            expect(member_next(&readers[i]), 0, "");
        if (generation % 2 == 0)
            expect(member_next(&source), 0, "");
    }
    free_all();
    end();
}

static void next_waits_for_readers(void) {
    begin_in_the_middle(10);
    EQUAL(NVLX_EBUSY, member_next(&readers[0]).code);
    expect(member_next(&source), NVLX_EBUSY, "1 are at it");
    expect(member_hold(&source), NVLX_EBUSY, "1 are at it");
    expect(member_wait(&source, 0), NVLX_ETIMEDOUT, "3 are waited for");
    member_slow(&readers[0], false);
    expect_done(&readers[0], SEED);
    expect(member_hold(&readers[0]), NVLX_EINVAL, "for the source");
    free_all();
    end();
}

/* Who joins while the bytes change waits for the next generation. */
static void nobody_begins_while_bytes_change(void) {
    begin(ONE);
    options.readers = 1;
    offer();
    join(0);
    expect(member_wait(&source, PATIENCE), 0, "");
    expect(member_hold(&source), 0, "");
    member_fill(&source, SEED + 1);
    join(1);
    expect(member_wait(&readers[1], SECOND_NS / 5), NVLX_ETIMEDOUT, "in to no generation yet");
    expect(member_next(&source), 0, "");
    expect_done(&readers[1], SEED + 1);
    EQUAL(2, member_info(&readers[1]).generation);
    expect_done(&readers[0], SEED);
    free_all();
    end();
}

/* ---- What is refused ------------------------------------------------------------------------------------- */

static void wrong_content_is_refused(void) {
    static const struct {
        enum shape shape;
        int code;
        const char *words;
    } cases[READERS] = {{SHORT, NVLX_EINVAL, "the part \"w0\" has"},
                        {OTHER, NVLX_ENOENT, "no part \"other0\""},
                        {MORE, NVLX_ENOENT, "no part \"w1\""}};
    snprintf(address, sizeof address, "%s", own_name());
    nvlx_relay_options_init(&options);
    member_start(&source, 0, ONE);
    offer();
    for (int i = 0; i < READERS; i++) {
        member_start(&readers[i], i, cases[i].shape);
        expect(member_join(&readers[i], address, PATIENCE), cases[i].code, cases[i].words);
    }
    expect(member_free(&source, PATIENCE), 0, "");
    end();
}

static void fewer_parts_are_refused(void) {
    snprintf(address, sizeof address, "%s", own_name());
    nvlx_relay_options_init(&options);
    options.readers = 1;
    member_start(&source, 0, MORE);
    member_start(&readers[0], 1, ONE);
    offer();
    expect(member_join(&readers[0], address, PATIENCE), NVLX_EINVAL, "the source has 2 parts");
    usleep(100000); /* its connection has ended */
    expect(member_wait(&source, 0), NVLX_ETIMEDOUT, "0 readers have generation 1, 1 are waited for");
    EQUAL(0, member_info(&source).lost);
    expect(member_free(&source, PATIENCE), 0, "");
    end();
}

static void what_is_no_relay_is_refused(void) {
    struct owner owner;
    begin(ONE);
    owner_start(&owner);
    owner_alloc(&owner, 0, 0, member_bytes(), 1);
    owner_register(&owner, 0, 0, 0, member_bytes(), NVLX_ACCESS_READ, "w0");
    OK(owner_serve(&owner, address, 0));
    expect(member_join(&readers[0], address, PATIENCE), NVLX_ENOENT, "no relay is served at \"@");
    owner_end(&owner);
    end();
}

static void wrong_bytes_are_found(void) {
    begin(ONE);
    options.readers = 1;
    offer();
    join(0);
    expect_done(&readers[0], SEED);
    member_damage(&readers[0]); /* it must not do that */
    join(1);
    expect(member_wait(&readers[1], PATIENCE), NVLX_EDIGEST, "the part \"w0\", bytes 0 to");
    expect(member_next(&readers[1]), NVLX_EDIGEST, "w0");
    for (double since = now_ms(); member_info(&source).lost != 1; usleep(1000))
        EXPECT(now_ms() - since < 10000);
    free_all();
    end();
}

/* ---- Death ----------------------------------------------------------------------------------------------- */

/* All join, and the first of the chain has some of the bytes, by far not all, for a while. */
static void join_until_the_middle(void) {
    member_slow(&readers[0], true);
    offer();
    join_all();
    await_arrived(&readers[0], 10);
}

static void a_dead_reader_is_bridged(void) {
    begin(ONE);
    join_until_the_middle();
    kill_member(&readers[0]);
    expect_done(&readers[1], SEED);
    expect_done(&readers[2], SEED);
    expect(member_wait(&source, PATIENCE), 0, "");
    EQUAL(READERS - 1, member_info(&source).done);
    EQUAL(1, member_info(&source).lost);
    EXPECT(member_info(&readers[1]).parents > 1);
    free_all();
    end();
}

/* The first two readers have the first generation, and the source knows that. It waits for so many. */
static void begin_with_two(uint32_t number) {
    begin(ONE);
    options.readers = number;
    offer();
    for (int i = 0; i < 2; i++) {
        join(i);
        expect_done(&readers[i], SEED);
    }
    expect(member_wait(&source, PATIENCE), 0, "");
}

static void offer_the_next(void) {
    expect(member_hold(&source), 0, "");
    member_fill(&source, SEED + 1);
    expect(member_next(&source), 0, "");
}

static void take_the_next(int i) {
    expect(member_next(&readers[i]), 0, "");
    expect_done(&readers[i], SEED + 1);
}

/* A generation later nobody waits for it, until another one comes in its place. */
static void the_dead_are_not_waited_for_again(void) {
    begin(ONE);
    options.readers = READERS;
    offer();
    join_all();
    for (int i = 0; i < READERS; i++)
        expect_done(&readers[i], SEED);
    expect(member_wait(&source, PATIENCE), 0, "");
    kill_member(&readers[1]);
    offer_the_next();
    take_the_next(0);
    expect(member_wait(&source, SECOND_NS / 5), NVLX_ETIMEDOUT, "1 were lost or left before");
    take_the_next(2);
    expect(member_wait(&source, PATIENCE), 0, "");
    EQUAL(2, member_info(&source).done);
    free_all();
    end();
}

/* Also for those that have a generation, and whose programs have not asked for the next one. */
static void without_a_number_all_are_waited_for(void) {
    begin_with_two(0);
    offer_the_next();
    expect(member_wait(&source, SECOND_NS / 5), NVLX_ETIMEDOUT, "2 have joined and not begun it");
    expect(member_next(&readers[0]), 0, "");
    expect(member_next(&readers[0]), NVLX_EBUSY, "");
    expect_done(&readers[0], SEED + 1);
    expect(member_wait(&source, SECOND_NS / 5), NVLX_ETIMEDOUT, "1 have joined and not begun it");
    kill_member(&readers[1]);
    expect(member_wait(&source, PATIENCE), 0, "");
    expect(member_next(&readers[0]), 0, "");
    expect(member_wait(&readers[0], SECOND_NS / 5), NVLX_ETIMEDOUT, "the source has offered no newer one");
    free_all();
    end();
}

/* Each kind of end of a reader that has the generation before, and whose program has not asked for this one. */
static void who_is_lost_before_it_asks_counts(void) {
    for (int kills = 0; kills < 2; kills++) {
        begin_with_two(2);
        offer_the_next();
        take_the_next(0);
        if (kills)
            kill_member(&readers[1]);
        else
            expect(member_free(&readers[1], PATIENCE), 0, "");
        expect(member_wait(&source, PATIENCE), 0, "");
        EQUAL(1, member_info(&source).lost);
        if (!kills)
            kill_member(&readers[1]);
        free_all();
        end();
    }
}

/* Two have joined beside the two that are waited for, and have left: those that stay are waited for all the same. */
static void guests_that_left_do_not_count(void) {
    struct member guests[2];
    begin(ONE);
    options.readers = 2;
    offer();
    for (int i = 0; i < 2; i++) {
        join(i);
        expect_done(&readers[i], SEED);
        member_start(&guests[i], i, ONE);
        expect(member_join(&guests[i], address, PATIENCE), 0, "");
        expect_done(&guests[i], SEED);
    }
    for (int i = 0; i < 2; i++) {
        expect(member_free(&guests[i], PATIENCE), 0, "");
        member_end(&guests[i]);
    }
    expect(member_wait(&source, PATIENCE), 0, "");
    offer_the_next();
    expect(member_wait(&source, SECOND_NS / 5), NVLX_ETIMEDOUT, "2 have joined and not begun it");
    for (int i = 0; i < 2; i++)
        expect(member_next(&readers[i]), 0, "");
    expect(member_wait(&source, PATIENCE), 0, "");
    EQUAL(2, member_info(&source).done);
    free_all();
    end();
}

/* One that has left with the generation does not stand for two, whatever was lost before. */
static void who_leaves_counts_once(void) {
    begin_with_two(2);
    kill_member(&readers[1]);
    join(2); /* in its place */
    expect_done(&readers[2], SEED);
    offer_the_next();
    take_the_next(2);
    expect(member_wait(&source, SECOND_NS / 5), NVLX_ETIMEDOUT, "1 have joined and not begun it");
    kill_member(&readers[2]);
    for (double since = now_ms(); !strstr(member_wait(&source, 0).error, "1 have joined and not begun it");)
        EXPECT(now_ms() - since < 10000);
    expect(member_wait(&source, SECOND_NS / 2), NVLX_ETIMEDOUT, "1 have joined and not begun it");
    take_the_next(0);
    expect(member_wait(&source, PATIENCE), 0, "");
    free_all();
    end();
}

static void a_dead_source_fails_all(void) {
    begin(ONE);
    join_until_the_middle();
    kill_member(&source);
    for (int i = 0; i < READERS; i++)
        expect(member_wait(&readers[i], PATIENCE), NVLX_ESTALE, "");
    free_all();
    end();
}

static void who_is_done_survives_the_source(void) {
    begin(ONE);
    offer();
    join(0);
    expect_done(&readers[0], SEED);
    kill_member(&source);
    usleep(300000);
    expect_done(&readers[0], SEED);
    member_next(&readers[0]);
    expect(member_wait(&readers[0], PATIENCE), NVLX_ESTALE, "the source of the relay is gone");
    free_all();
    end();
}

static void a_stopped_reader_is_bridged(void) {
    begin(ONE);
    options.patience_ns = SECOND_NS / 5;
    join_until_the_middle();
    child_stop(&readers[0].child);
    expect_done(&readers[1], SEED);
    expect_done(&readers[2], SEED);
    usleep(400000);
    expect(member_wait(&source, 0), NVLX_ETIMEDOUT, "1 are at it, 1 of them say nothing");
    EXPECT(kill(readers[0].child.pid, SIGCONT) == 0);
    member_slow(&readers[0], false);
    expect_done(&readers[0], SEED);
    expect(member_wait(&source, PATIENCE), 0, "");
    EQUAL(3, member_info(&source).done);
    free_all();
    end();
}

/* Long before it is given up, others stop to read from it. */
static void a_quiet_reader_is_bridged(void) {
    begin(ONE);
    options.patience_ns = 32 * SECOND_NS;
    join_until_the_middle();
    child_stop(&readers[0].child);
    const double stopped = now_ms();
    expect_done(&readers[1], SEED);
    expect_done(&readers[2], SEED);
    EXPECT(now_ms() - stopped < 16000);
    expect(member_wait(&source, 0), NVLX_ETIMEDOUT, "1 are at it, 3 are waited for");
    EQUAL(NVLX_EBUSY, member_hold(&source).code);
    EXPECT(kill(readers[0].child.pid, SIGCONT) == 0);
    member_slow(&readers[0], false);
    expect_done(&readers[0], SEED);
    free_all();
    end();
}

/* It has all, and nobody waits for it; but who would read from it cannot open its memory. */
static void who_does_not_answer_is_not_read_from(void) {
    begin(ONE);
    options.patience_ns = 32 * SECOND_NS;
    offer();
    join(0);
    expect_done(&readers[0], SEED);
    child_stop(&readers[0].child);
    const double begun = now_ms();
    join(1);
    expect_done(&readers[1], SEED);
    EXPECT(now_ms() - begun < 16000);
    EXPECT(*parent_of(&readers[1]) == '\0');
    EXPECT(kill(readers[0].child.pid, SIGCONT) == 0);
    free_all();
    end();
}

/* When the source has begun to change the bytes: the reader goes on with the next generation. */
static void a_stopped_reader_comes_back_while_they_change(void) {
    begin(ONE);
    options.patience_ns = SECOND_NS / 5;
    options.readers = 1;
    member_slow(&readers[0], true);
    offer();
    join(0);
    await_arrived(&readers[0], 10);
    child_stop(&readers[0].child);
    for (double since = now_ms(); member_hold(&source).code; usleep(10000))
        EXPECT(now_ms() - since < 10000);
    EXPECT(kill(readers[0].child.pid, SIGCONT) == 0);
    for (double since = now_ms(); strstr(member_wait(&source, 0).error, "say nothing"); usleep(1000))
        EXPECT(now_ms() - since < 10000);
    member_fill(&source, SEED + 1);
    expect(member_next(&source), 0, "");
    member_slow(&readers[0], false);
    expect(member_wait(&source, PATIENCE), 0, "");
    expect_done(&readers[0], SEED + 1);
    EQUAL(2, member_info(&readers[0]).generation);
    free_all();
    end();
}

/* It has not heard meanwhile what its readers said: they are not taken for stopped. */
static void a_source_that_was_stopped_knows_its_readers(void) {
    begin(ONE);
    options.patience_ns = SECOND_NS / 5;
    options.readers = 1;
    member_slow(&readers[0], true);
    offer();
    join(0);
    await_arrived(&readers[0], 5);
    for (int i = 0; i < 5; i++) {
        child_stop(&source.child);
        usleep(300000);
        EXPECT(kill(source.child.pid, SIGCONT) == 0);
        for (double since = now_ms(); now_ms() - since < 50; usleep(1000))
            expect(member_hold(&source), NVLX_EBUSY, "1 are at it, 1 are waited for");
    }
    member_slow(&readers[0], false);
    expect_done(&readers[0], SEED);
    free_all();
    end();
}

/* The source goes on to the next generation, and so does the reader when it wakes up. */
static void a_stopped_reader_misses_a_generation(void) {
    begin(ONE);
    options.patience_ns = SECOND_NS / 5;
    options.readers = 1;
    offer();
    member_slow(&readers[0], true);
    join(0);
    await_arrived(&readers[0], 10);
    child_stop(&readers[0].child);
    for (double since = now_ms(); member_hold(&source).code; usleep(10000))
        EXPECT(now_ms() - since < 10000);
    member_fill(&source, SEED + 1);
    expect(member_next(&source), 0, "");
    EXPECT(kill(readers[0].child.pid, SIGCONT) == 0);
    member_slow(&readers[0], false);
    expect(member_wait(&source, PATIENCE), 0, "");
    expect_done(&readers[0], SEED + 1);
    EQUAL(2, member_info(&readers[0]).generation);
    free_all();
    end();
}

static void a_reader_leaves_in_the_middle(void) {
    begin(ONE);
    join_until_the_middle();
    expect(member_free(&readers[0], PATIENCE), 0, "");
    member_end(&readers[0]);
    readers[0].child.pid = 0;
    expect_done(&readers[1], SEED);
    expect_done(&readers[2], SEED);
    free_all();
    end();
}

static void a_source_that_ends_fails_who_is_not_done(void) {
    begin(ONE);
    join_until_the_middle();
    expect(member_free(&source, PATIENCE), 0, "");
    for (int i = 0; i < READERS; i++)
        expect(member_wait(&readers[i], PATIENCE), NVLX_ESTALE, "the source of the relay is gone");
    for (int i = 0; i < READERS; i++)
        expect(member_free(&readers[i], PATIENCE), 0, "");
    for (int i = 0; i < READERS; i++)
        member_end(&readers[i]);
    member_end(&source);
}

/* ---- What is left ---------------------------------------------------------------------------------------- */

/* How many files have a name that begins as the address does. */
static size_t count_sockets(void) {
    glob_t found;
    char pattern[80];
    snprintf(pattern, sizeof pattern, "%s*", address);
    const size_t count = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return count;
}

static void no_socket_file_stays(void) {
    begin(ONE);
    snprintf(address, sizeof address, "%s", own_path());
    offer();
    join_all();
    for (int i = 0; i < READERS; i++)
        expect_done(&readers[i], SEED);
    EQUAL(1 + READERS, count_sockets());
    kill_member(&readers[1]);
    for (double since = now_ms(); count_sockets() != READERS; usleep(1000))
        EXPECT(now_ms() - since < 10000);
    free_all();
    EQUAL(0, count_sockets());
    end();
}

/* Readers of one process, each on a GPU of its own, form a chain as those of several do. */
static void readers_of_one_process_form_a_chain(void) {
    struct nvlx_relay *relays[READERS];
    struct nvlx_engine *engine;
    char *memory[READERS];
    OK(nvlx_engine_create(NULL, &engine));
    begin(ONE);
    options.patience_ns = 60 * SECOND_NS;
    offer();
    for (int i = 0; i < READERS; i++) {
        memory[i] = allocate(engine, i + 1, member_bytes(), 0);
        const struct nvlx_relay_part part = {"w0", memory[i], member_bytes()};
        OK(nvlx_relay_join(engine, address, &part, 1, NULL, PATIENCE, &relays[i]));
        /* the next one finds it in its place */
        for (double since = now_ms(); member_info(&source).readers <= (uint32_t)i; usleep(1000))
            EXPECT(now_ms() - since < 10000);
    }
    for (int i = 0; i < READERS; i++) {
        struct nvlx_relay_info info = {.size = sizeof info};
        OK(nvlx_relay_wait(relays[i], PATIENCE));
        OK(nvlx_relay_get_info(relays[i], &info));
        EQUAL(1, info.parents);
        EXPECT((*info.parent == '\0') == (i == 0));
        EQUAL(0, wrong(engine, memory[i], member_bytes(), SEED));
    }
    for (int i = READERS; i-- > 0;)
        OK(nvlx_relay_free(relays[i], PATIENCE));
    OK(nvlx_engine_destroy(engine));
    free_all();
    end();
}

/* A source and a reader of one process, made and freed again and again. */
static void nothing_stays(void) {
    struct holdings before;
    struct nvlx_engine *engine = make_engine(0);
    char *from = allocate(engine, 0, MIB, SEED), *to = allocate(engine, 1, MIB, 0);
    const struct nvlx_relay_part there = {"w", from, MIB}, here = {"w", to, MIB};
    for (int round = 0; round < 20; round++) {
        struct nvlx_relay *offered, *joined, *refused;
        OK(nvlx_relay_offer(engine, own_name(), &there, 1, NULL, &offered));
        REFUSED(nvlx_relay_offer(engine, own_name(), &there, 1, NULL, &refused), NVLX_EEXIST, "");
        OK(nvlx_relay_join(engine, own_name(), &here, 1, NULL, PATIENCE, &joined));
        OK(nvlx_relay_wait(joined, PATIENCE));
        OK(nvlx_relay_free(joined, PATIENCE));
        OK(nvlx_relay_free(offered, PATIENCE));
        if (round == 2)
            before = holdings();
    }
    expect_holdings(&before, "after 20 relays");
    EQUAL(0, wrong(engine, to, MIB, SEED));
    OK(nvlx_engine_destroy(engine));
}

static void arguments_are_checked(void) {
    struct nvlx_engine *engine = make_engine(0);
    char *memory = allocate(engine, 0, MIB, 1);
    struct nvlx_relay_part parts[2] = {{"w", memory, MIB}, {"w", memory, 1}};
    struct nvlx_relay_options wrong_options;
    struct nvlx_relay_info info = {.size = sizeof info};
    struct nvlx_relay *relay = NULL;
    nvlx_relay_options_init(&wrong_options);
    REFUSED(nvlx_relay_offer(NULL, "@x", parts, 1, NULL, &relay), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_relay_offer(engine, NULL, parts, 1, NULL, &relay), NVLX_EINVAL, "address is NULL");
    REFUSED(nvlx_relay_offer(engine, "@x", NULL, 1, NULL, &relay), NVLX_EINVAL, "parts is NULL");
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 0, NULL, &relay), NVLX_EINVAL, "not one byte");
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 2, NULL, &relay), NVLX_EINVAL, "two parts have the name \"w\"");
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 1, NULL, NULL), NVLX_EINVAL, "relay is NULL");
    wrong_options.reserved = 1;
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 1, &wrong_options, &relay), NVLX_EINVAL, "reserved is 1");
    wrong_options.reserved = 0;
    wrong_options.piece_bytes = 65535;
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 1, &wrong_options, &relay), NVLX_EINVAL, "piece_bytes is 65535");
    wrong_options.piece_bytes = 0;
    wrong_options.patience_ns = 9999999;
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 1, &wrong_options, &relay), NVLX_EINVAL, "patience_ns is 9999999");
    wrong_options.patience_ns = -1;
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 1, &wrong_options, &relay), NVLX_EINVAL, "patience_ns is -1");
    parts[1] = (struct nvlx_relay_part){NULL, memory, 1};
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 2, NULL, &relay), NVLX_EINVAL, "parts[1].name is NULL");
    parts[1] = (struct nvlx_relay_part){"v", NULL, 1};
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 2, NULL, &relay), NVLX_EINVAL, "parts[1] (\"v\") has 1 bytes");
    parts[1] = (struct nvlx_relay_part){"v", memory, UINT64_MAX};
    REFUSED(nvlx_relay_offer(engine, "@x", parts, 2, NULL, &relay), NVLX_EINVAL, "more than 2^64 bytes");
    parts[1] = (struct nvlx_relay_part){"nvlx-relay", memory, 1};
    REFUSED(nvlx_relay_offer(engine, own_name(), parts, 2, NULL, &relay), NVLX_EINVAL, "\"nvlx-relay\", which");
    parts[1] = (struct nvlx_relay_part){"v", memory + MIB - 1, 1};
    REFUSED(nvlx_relay_join(engine, own_name(), parts, 2, NULL, 0, &relay), NVLX_EINVAL, "\"w\" and \"v\" share bytes");
    parts[1] = (struct nvlx_relay_part){"v", memory, 0};
    REFUSED(nvlx_relay_join(engine, own_name(), parts, 2, NULL, 0, &relay), NVLX_ETIMEDOUT, "");
    parts[1] = (struct nvlx_relay_part){"v", &relay, sizeof relay};
    REFUSED(nvlx_relay_offer(engine, own_name(), parts, 2, NULL, &relay), NVLX_ENOTSUP, "the part \"v\": ");
    REFUSED(nvlx_relay_offer(engine, own_name(), parts + 1, 1, NULL, &relay), NVLX_ENOTSUP, "the part \"v\": ");
    REFUSED(nvlx_relay_wait(NULL, 0), NVLX_EINVAL, "relay is NULL");
    REFUSED(nvlx_relay_get_info(NULL, &info), NVLX_EINVAL, "relay is NULL");
    EXPECT(relay == NULL);
    OK(nvlx_relay_free(NULL, 0));
    OK(nvlx_engine_destroy(engine));
}

/* ---- In one process ---------------------------------------------------------------------------------------- */

static struct nvlx_engine *own_engine;
static struct nvlx_relay *offered, *joined;

/* A source, on GPU 0, and a reader, on 1, of a few pieces. */
static void begin_here(const struct nvlx_relay_options *with) {
    own_engine = make_engine(0);
    const struct nvlx_relay_part there = {"w", allocate(own_engine, 0, MIB, SEED), MIB},
                                 here = {"w", allocate(own_engine, 1, MIB, 0), MIB};
    OK(nvlx_relay_offer(own_engine, own_name(), &there, 1, with, &offered));
    OK(nvlx_relay_join(own_engine, own_name(), &here, 1, NULL, PATIENCE, &joined));
}

static void end_here(void) {
    OK(nvlx_relay_free(joined, PATIENCE));
    OK(nvlx_relay_free(offered, PATIENCE));
    OK(nvlx_engine_destroy(own_engine));
}

static struct nvlx_relay_info offered_info(void) {
    struct nvlx_relay_info info = {.size = sizeof info};
    OK(nvlx_relay_get_info(offered, &info));
    return info;
}

static void who_has_joined_is_waited_for(void) {
    for (int i = 0; i < 30; i++) {
        begin_here(NULL);
        OK(nvlx_relay_wait(offered, PATIENCE));
        EQUAL(1, offered_info().done);
        OK(nvlx_relay_wait(joined, PATIENCE));
        end_here();
    }
}

/* A reader that has all, and ends at once, was not lost. */
static void who_has_all_may_go(void) {
    for (int i = 0; i < 30; i++) {
        begin_here(NULL);
        OK(nvlx_relay_wait(joined, PATIENCE));
        OK(nvlx_relay_free(joined, PATIENCE));
        joined = NULL;
        OK(nvlx_relay_wait(offered, PATIENCE));
        EQUAL(1, offered_info().done);
        EQUAL(0, offered_info().lost);
        end_here();
    }
}

static atomic_bool holds;

static void *hold_always(void *unused) {
    while (atomic_load(&holds))
        nvlx_relay_hold(offered); /* NVLX_EBUSY now and then */
    return unused;
}

/* Threads that hold at any time take back no digests but those of what they hold: source and reader go on. */
static void any_thread_may_hold(void) {
    pthread_t threads[3];
    begin_here(NULL);
    atomic_store(&holds, true);
    for (size_t i = 0; i < COUNT(threads); i++)
        EXPECT(pthread_create(&threads[i], NULL, hold_always, NULL) == 0);
    for (double since = now_ms(); now_ms() - since < 2000;) {
        nvlx_relay_next(offered); /* NVLX_EBUSY: the reader is at it */
        if (nvlx_relay_wait(joined, 0) == 0)
            OK(nvlx_relay_next(joined));
    }
    atomic_store(&holds, false);
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    for (double since = now_ms(); nvlx_relay_next(offered); usleep(1000))
        EXPECT(now_ms() - since < 10000);
    for (struct nvlx_relay_info info = {.size = sizeof info}; info.generation != offered_info().generation;) {
        OK(nvlx_relay_wait(joined, PATIENCE));
        OK(nvlx_relay_get_info(joined, &info));
        OK(nvlx_relay_next(joined));
    }
    EXPECT(offered_info().generation > 20);
    end_here();
}

/* A reader is no source. */
static void at_a_reader_no_relay_is_served(void) {
    struct nvlx_relay *other;
    char at[112];
    begin_here(NULL);
    snprintf(at, sizeof at, "%s", joined->address);
    const struct nvlx_relay_part part = {"w", allocate(own_engine, 1, MIB, 0), MIB};
    REFUSED(nvlx_relay_join(own_engine, at, &part, 1, NULL, PATIENCE, &other), NVLX_ENOENT,
            "no relay is served at \"@");
    end_here();
}

/* It is the parent's. */
static void a_forked_child_has_no_relay(void) {
    struct nvlx_engine *engine = make_engine(0);
    const struct nvlx_relay_part part = {"w", allocate(engine, 0, MIB, 1), MIB};
    struct nvlx_relay *relay;
    OK(nvlx_relay_offer(engine, own_name(), &part, 1, NULL, &relay));
    const pid_t pid = fork_child(30);
    if (!pid) {
        GIVES(NVLX_EFORK, nvlx_relay_wait(relay, 0));
        GIVES(NVLX_EFORK, nvlx_relay_next(relay));
        GIVES(NVLX_EFORK, nvlx_relay_free(relay, 0));
        _exit(0);
    }
    fork_end(pid);
    OK(nvlx_relay_wait(relay, PATIENCE));
    OK(nvlx_relay_free(relay, PATIENCE));
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct role roles[] = {MEMBER_ROLE, OWNER_ROLE, {NULL, NULL}};
    static const struct test tests[] = {
        {"one_part_arrives", one_part_arrives},
        {"looks_take_no_copy_engine", looks_take_no_copy_engine},
        {"a_reader_of_the_source_uses_one_lane", a_reader_of_the_source_uses_one_lane},
        {"many_parts_arrive", many_parts_arrive},
        {"readers_form_a_chain", readers_form_a_chain},
        {"a_reader_joins_late", a_reader_joins_late},
        {"a_reader_waits_for_its_source", a_reader_waits_for_its_source},
        {"generations_follow_each_other", generations_follow_each_other},
        {"next_waits_for_readers", next_waits_for_readers},
        {"nobody_begins_while_bytes_change", nobody_begins_while_bytes_change},
        {"wrong_content_is_refused", wrong_content_is_refused},
        {"fewer_parts_are_refused", fewer_parts_are_refused},
        {"what_is_no_relay_is_refused", what_is_no_relay_is_refused},
        {"wrong_bytes_are_found", wrong_bytes_are_found},
        {"a_dead_reader_is_bridged", a_dead_reader_is_bridged},
        {"the_dead_are_not_waited_for_again", the_dead_are_not_waited_for_again},
        {"without_a_number_all_are_waited_for", without_a_number_all_are_waited_for},
        {"who_is_lost_before_it_asks_counts", who_is_lost_before_it_asks_counts},
        {"guests_that_left_do_not_count", guests_that_left_do_not_count},
        {"who_leaves_counts_once", who_leaves_counts_once},
        {"a_dead_source_fails_all", a_dead_source_fails_all},
        {"who_is_done_survives_the_source", who_is_done_survives_the_source},
        {"a_stopped_reader_is_bridged", a_stopped_reader_is_bridged},
        {"who_does_not_answer_is_not_read_from", who_does_not_answer_is_not_read_from},
        {"a_quiet_reader_is_bridged", a_quiet_reader_is_bridged},
        {"a_stopped_reader_comes_back_while_they_change", a_stopped_reader_comes_back_while_they_change},
        {"a_source_that_was_stopped_knows_its_readers", a_source_that_was_stopped_knows_its_readers},
        {"a_stopped_reader_misses_a_generation", a_stopped_reader_misses_a_generation},
        {"a_reader_leaves_in_the_middle", a_reader_leaves_in_the_middle},
        {"a_source_that_ends_fails_who_is_not_done", a_source_that_ends_fails_who_is_not_done},
        {"no_socket_file_stays", no_socket_file_stays},
        {"readers_of_one_process_form_a_chain", readers_of_one_process_form_a_chain},
        {"nothing_stays", nothing_stays},
        {"who_has_joined_is_waited_for", who_has_joined_is_waited_for},
        {"who_has_all_may_go", who_has_all_may_go},
        {"any_thread_may_hold", any_thread_may_hold},
        {"at_a_reader_no_relay_is_served", at_a_reader_no_relay_is_served},
        {"arguments_are_checked", arguments_are_checked},
        {"a_forked_child_has_no_relay", a_forked_child_has_no_relay},
        {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
