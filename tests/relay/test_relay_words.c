/* What the source of a relay and its readers make of each other's words, also of such as no reader or source of this
 * version says: the test speaks itself, as the other side. On the host backend. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/engine.h"
#include "relay/relay.h"
#include "relay/tree.h"
#include "rendezvous_support.h"

#define MS     1000000ull
#define LENGTH (3 * NVLXI_RELAY_PIECE_MIN) /* of the one part, on GPU 0 of the source, and 1 of a reader */
#define SEED   5

/* One who says words: an engine that serves, and is connected to the other side. */
struct speaker {
    struct nvlx_engine *engine;
    struct nvlx_peer *to;
    char address[NVLXI_RELAY_ADDRESS];
};

static struct nvlx_engine *engine; /* of the program that has the relay */
static struct nvlx_relay *relay;
static char address[64];
static void *memory;

static struct nvlx_relay_part part(void) {
    return (struct nvlx_relay_part){.name = "w", .address = memory, .length = LENGTH};
}

/* ---- Speakers ---------------------------------------------------------------------------------------------- */

static void speaker_open(struct speaker *speaker, const char *served) {
    struct nvlx_config config;
    nvlx_config_init(&config);
    OK(nvlx_engine_create(&config, &speaker->engine));
    snprintf(speaker->address, sizeof speaker->address, "%s", served);
    OK(nvlx_serve(speaker->engine, speaker->address, NULL));
}

static void speaker_close(struct speaker *speaker) {
    OK(nvlx_engine_destroy(speaker->engine));
}

static struct nvlxi_relay_word make_word(uint16_t kind, uint64_t generation) {
    return (struct nvlxi_relay_word){
        .magic = NVLXI_RELAY_MAGIC, .version = NVLXI_RELAY_VERSION, .kind = kind, .generation = generation};
}

static struct nvlxi_relay_word hello(const struct speaker *speaker, int gpu) {
    struct nvlxi_relay_word word = make_word(NVLXI_RELAY_HELLO, 0);
    const struct nvlxi_context *context = &speaker->engine->context;
    memcpy(word.address, speaker->address, sizeof word.address);
    OK(context->ops->uuid(context->device, gpu, word.gpu));
    return word;
}

static void say_bytes(const struct speaker *speaker, const void *bytes, size_t length) {
    OK(nvlx_send(speaker->to, bytes, length));
}

static void say_word(const struct speaker *speaker, const struct nvlxi_relay_word *word) {
    say_bytes(speaker, word, sizeof *word);
}

static void say_kind(const struct speaker *speaker, uint16_t kind, uint64_t generation) {
    const struct nvlxi_relay_word word = make_word(kind, generation);
    say_word(speaker, &word);
}

/* The next word within so many milliseconds, unless it tells that digests can be read, or that the reader is alive: its
 * kind, 0 if none comes. */
static uint16_t hear_within(const struct speaker *speaker, double ms, struct nvlxi_relay_word *word) {
    struct nvlx_event event = {.size = sizeof event};
    for (double since = now_ms(); now_ms() - since < ms; usleep(1000))
        while (nvlx_next_event(speaker->engine, &event) == 0)
            if (event.kind == NVLX_EVENT_MESSAGE) {
                OK(nvlxi_relay_hear(&event, word));
                if (word->kind != NVLXI_RELAY_CHECKED && word->kind != NVLXI_RELAY_ALIVE)
                    return word->kind;
            }
    return 0;
}

static struct nvlxi_relay_word expect_word(const struct speaker *speaker, uint16_t kind) {
    struct nvlxi_relay_word word;
    EQUAL(kind, hear_within(speaker, 10000, &word));
    return word;
}

static void expect_silence(const struct speaker *speaker) {
    struct nvlxi_relay_word word;
    EQUAL(0, hear_within(speaker, 200, &word));
}

/* ---- A source, and who speaks as its readers --------------------------------------------------------------- */

static void begin_source_with(uint64_t piece_bytes, int64_t patience_ns) {
    struct nvlx_relay_options options;
    struct nvlx_serve_options serve;
    nvlx_serve_options_init(&serve);
    serve.max_connections = 2 * NVLXI_RELAY_MEMBERS_MAX;
    engine = make_engine(0);
    memory = allocate(engine, 0, LENGTH, SEED);
    snprintf(address, sizeof address, "%s", own_name());
    nvlx_relay_options_init(&options);
    options.piece_bytes = piece_bytes;
    options.patience_ns = patience_ns;
    options.serve = &serve;
    const struct nvlx_relay_part offered = part();
    OK(nvlx_relay_offer(engine, address, &offered, 1, &options, &relay));
}

static void begin_source(int64_t patience_ns) {
    begin_source_with(NVLXI_RELAY_PIECE_MIN, patience_ns);
}

static void end(void) {
    OK(nvlx_relay_free(relay, PATIENCE));
    OK(nvlx_engine_destroy(engine));
}

static void reader_open(struct speaker *speaker, int number) {
    char served[NVLXI_RELAY_ADDRESS];
    snprintf(served, sizeof served, "%s.%d", address, number);
    speaker_open(speaker, served);
    speaker->to = connect_to(speaker->engine, address);
}

/* Is let in: the word that names its parent. */
static struct nvlxi_relay_word reader_enters(const struct speaker *speaker, int gpu) {
    const struct nvlxi_relay_word word = hello(speaker, gpu);
    say_word(speaker, &word);
    expect_word(speaker, NVLXI_RELAY_WELCOME);
    say_kind(speaker, NVLXI_RELAY_BEGIN, 0);
    return expect_word(speaker, NVLXI_RELAY_PARENT);
}

/* On two more GPUs, the second one a reader of the first. Returns when the first was let in. */
static double begin_with_two(struct speaker readers[2], int64_t patience_ns) {
    begin_source(patience_ns);
    for (int i = 0; i < 2; i++)
        reader_open(&readers[i], i + 1);
    reader_enters(&readers[0], 1);
    const double entered = now_ms();
    EXPECT(!strcmp(reader_enters(&readers[1], 2).address, readers[0].address));
    return entered;
}

static void end_with_two(struct speaker readers[2]) {
    for (int i = 0; i < 2; i++)
        speaker_close(&readers[i]);
    end();
}

static struct nvlx_relay_info relay_info(void) {
    struct nvlx_relay_info info = {.size = sizeof info};
    OK(nvlx_relay_get_info(relay, &info));
    return info;
}

/* Until the source counts so many readers, and so many that were lost. */
static void await_counts(uint32_t readers, uint32_t lost) {
    for (double since = now_ms();; usleep(1000)) {
        const struct nvlx_relay_info info = relay_info();
        if (info.readers == readers && info.lost == lost)
            return;
        if (now_ms() - since > 10000)
            FAIL("%u readers, %u lost; not %u and %u", info.readers, info.lost, readers, lost);
    }
}

static void what_is_no_word_is_not_heard(void) {
    struct speaker reader;
    begin_source(0);
    reader_open(&reader, 1);
    const struct nvlxi_relay_word right = hello(&reader, 1);
    struct nvlxi_relay_word word = right;
    word.magic ^= 1;
    say_word(&reader, &word);
    say_bytes(&reader, &right, sizeof right - 1);
    say_bytes(&reader, "", 0);
    say_kind(&reader, 99, 0);
    for (int kind = NVLXI_RELAY_BEGIN; kind <= NVLXI_RELAY_CHECKED; kind++)
        say_kind(&reader, (uint16_t)kind, UINT64_MAX); /* before its HELLO */
    word = right;
    memset(word.address, 'a', sizeof word.address); /* without an end */
    say_word(&reader, &word);
    expect_silence(&reader);
    await_counts(0, 0);
    EXPECT(*reader_enters(&reader, 1).address == '\0');
    await_counts(1, 0);
    speaker_close(&reader);
    end();
}

/* It hears which version the source speaks. */
static void another_version_is_refused(void) {
    struct speaker reader;
    begin_source(0);
    reader_open(&reader, 1);
    struct nvlxi_relay_word word = hello(&reader, 1);
    word.version++;
    say_word(&reader, &word);
    EQUAL(NVLXI_RELAY_VERSION, expect_word(&reader, NVLXI_RELAY_REFUSED).version);
    await_counts(0, 0);
    speaker_close(&reader);
    end();
}

/* Who joins cuts the parts as the source does. */
static void the_source_tells_the_length_of_pieces(void) {
    const uint64_t given[] = {0, NVLXI_RELAY_PIECE_MIN}, told[] = {MIB, NVLXI_RELAY_PIECE_MIN};
    for (size_t i = 0; i < COUNT(given); i++) {
        struct speaker reader;
        begin_source_with(given[i], 0);
        reader_open(&reader, 1);
        const struct nvlxi_relay_word word = hello(&reader, 1);
        say_word(&reader, &word);
        EQUAL(told[i], expect_word(&reader, NVLXI_RELAY_WELCOME).piece_bytes);
        speaker_close(&reader);
        end();
    }
}

/* Words of a member, about what never was: it stays one, and no other one is concerned. */
static void nonsense_of_a_member_changes_nothing(void) {
    struct speaker readers[2];
    begin_with_two(readers, PATIENCE);
    say_kind(&readers[1], NVLXI_RELAY_DONE, 0);
    say_kind(&readers[1], NVLXI_RELAY_DONE, 2);
    say_kind(&readers[1], NVLXI_RELAY_DONE, UINT64_MAX);
    say_kind(&readers[1], NVLXI_RELAY_WELCOME, 1);
    say_kind(&readers[1], NVLXI_RELAY_PARENT, 1);
    say_kind(&readers[1], 99, 1);
    struct nvlxi_relay_word word = hello(&readers[1], 0);
    say_word(&readers[1], &word); /* once more, of another GPU */
    expect_silence(&readers[0]);
    expect_silence(&readers[1]);
    await_counts(2, 0);
    EQUAL(0, relay_info().done);
    word = make_word(NVLXI_RELAY_LOST, 1); /* whom nobody knows: it gets its parent again */
    snprintf(word.address, sizeof word.address, "%s", "@nobody");
    say_word(&readers[1], &word);
    EXPECT(!strcmp(expect_word(&readers[1], NVLXI_RELAY_PARENT).address, readers[0].address));
    end_with_two(readers);
}

static void who_leaves_is_lost(void) {
    struct speaker readers[2];
    begin_with_two(readers, PATIENCE);
    say_kind(&readers[0], NVLXI_RELAY_LEAVE, 1);
    EXPECT(*expect_word(&readers[1], NVLXI_RELAY_PARENT).address == '\0');
    await_counts(1, 1);
    say_kind(&readers[0], NVLXI_RELAY_BEGIN, 0);
    say_kind(&readers[0], NVLXI_RELAY_DONE, 1);
    expect_silence(&readers[0]); /* it has left */
    await_counts(1, 1);
    EQUAL(0, relay_info().done);
    say_kind(&readers[1], NVLXI_RELAY_DONE, 1);
    await_counts(1, 1);
    EXPECT(nvlx_relay_wait(relay, PATIENCE) == 0);
    EQUAL(1, relay_info().done);
    end_with_two(readers);
}

/* The next word while it says that it is alive. */
static uint16_t hear_alive(struct speaker *speaker, double ms, struct nvlxi_relay_word *word) {
    uint16_t kind = 0;
    for (double since = now_ms(); !kind && now_ms() - since < ms;) {
        say_kind(speaker, NVLXI_RELAY_ALIVE, 1);
        kind = hear_within(speaker, 20, word);
    }
    return kind;
}

/* It is not read from; and once it was taken for stopped, nobody reads from it when it is back: its place was taken. */
static void who_is_silent_goes_to_the_end(void) {
    const double patience_ms = 4000;
    struct speaker readers[2];
    struct nvlxi_relay_word word;
    const double entered = begin_with_two(readers, (int64_t)patience_ms * 1000000);
    EQUAL(NVLXI_RELAY_PARENT, hear_alive(&readers[1], patience_ms, &word));
    EXPECT(*word.address == '\0' && now_ms() - entered > patience_ms / NVLXI_RELAY_QUIET_PART);
    for (double since = now_ms(); nvlx_relay_wait(relay, 0), !strstr(nvlx_last_error(), "1 of them say nothing");) {
        EQUAL(0, hear_alive(&readers[1], 100, &word));
        EXPECT(now_ms() - since < 30000);
    }
    say_kind(&readers[0], NVLXI_RELAY_ALIVE, 1);
    EQUAL(NVLXI_RELAY_PARENT, hear_alive(&readers[0], 5000, &word));
    EXPECT(!strcmp(word.address, readers[1].address));
    end_with_two(readers);
}

static void one_more_than_there_can_be_is_refused(void) {
    static struct speaker readers[NVLXI_RELAY_MEMBERS_MAX + 1];
    struct rlimit files;
    EXPECT(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    if (files.rlim_max < 2048)
        FAIL("the hard limit of open files is %llu: it takes 2,048", (unsigned long long)files.rlim_max);
    EXPECT(setrlimit(RLIMIT_NOFILE, &files) == 0);
    begin_source(PATIENCE);
    for (int i = 0; i <= NVLXI_RELAY_MEMBERS_MAX; i++) {
        reader_open(&readers[i], i + 1);
        const struct nvlxi_relay_word word = hello(&readers[i], 0);
        say_word(&readers[i], &word);
        expect_word(&readers[i], i < NVLXI_RELAY_MEMBERS_MAX ? NVLXI_RELAY_WELCOME : NVLXI_RELAY_REFUSED);
    }
    speaker_close(&readers[0]); /* makes room */
    double since = now_ms();
    struct nvlxi_relay_word word = hello(&readers[NVLXI_RELAY_MEMBERS_MAX], 0), answer;
    do {
        EXPECT(now_ms() - since < 10000);
        say_word(&readers[NVLXI_RELAY_MEMBERS_MAX], &word);
    } while (hear_within(&readers[NVLXI_RELAY_MEMBERS_MAX], 1000, &answer) != NVLXI_RELAY_WELCOME);
    for (int i = 1; i <= NVLXI_RELAY_MEMBERS_MAX; i++)
        speaker_close(&readers[i]);
    end();
}

/* ---- A reader, and who speaks as its source ---------------------------------------------------------------- */

static struct speaker source;
static uint64_t *flags_and_digests; /* of the source: three pieces, the generation, one unit */

static void *join(void *outcome) {
    const struct nvlx_relay_part wanted = part();
    *(int *)outcome = nvlx_relay_join(engine, address, &wanted, 1, NULL, PATIENCE, &relay);
    if (*(int *)outcome)
        fprintf(stderr, "join: %s\n", nvlx_last_error());
    return NULL;
}

/* A reader says HELLO to the speaker, which answers by this word; what nvlx_relay_join then gives. */
static int join_and_answer(struct nvlxi_relay_word answer) {
    struct nvlx_region *regions[2];
    pthread_t thread;
    int outcome;
    engine = make_engine(0);
    memory = allocate(engine, 1, LENGTH, 0);
    snprintf(address, sizeof address, "%s", own_name());
    speaker_open(&source, address);
    void *offered = allocate(source.engine, 0, LENGTH, SEED);
    const size_t length = (LENGTH / NVLXI_RELAY_PIECE_MIN + 2) * sizeof(uint64_t);
    flags_and_digests = allocate(source.engine, 0, length, 0);
    uint64_t none[8] = {0};
    OK(nvlx_memcpy(source.engine, flags_and_digests, none, length));
    regions[0] = register_range(source.engine, offered, LENGTH, "w", NVLX_ACCESS_READ);
    regions[1] = register_range(source.engine, flags_and_digests, length, NVLXI_RELAY_STATE, NVLX_ACCESS_READ);
    (void)regions;
    EXPECT(pthread_create(&thread, NULL, join, &outcome) == 0);
    const struct nvlxi_relay_word word = expect_word(&source, NVLXI_RELAY_HELLO);
    source.to = connect_to(source.engine, word.address);
    say_word(&source, &answer);
    pthread_join(thread, NULL);
    return outcome;
}

static struct nvlxi_relay_word welcome(void) {
    struct nvlxi_relay_word word = make_word(NVLXI_RELAY_WELCOME, 0);
    word.piece_bytes = NVLXI_RELAY_PIECE_MIN;
    word.parts = 1;
    word.bytes = LENGTH;
    word.patience_ns = 400 * MS;
    return word;
}

static void expect_join(struct nvlxi_relay_word answer, int code) {
    EQUAL(code, join_and_answer(answer));
    speaker_close(&source);
    OK(nvlx_engine_destroy(engine));
}

static void strange_answers_are_told(void) {
    struct nvlxi_relay_word word = welcome();
    word.version++;
    expect_join(word, NVLX_EVERSION);
    word = welcome();
    word.magic = 0;
    expect_join(word, NVLX_EFORMAT);
    word = welcome();
    word.piece_bytes = NVLXI_RELAY_PIECE_MIN - 1;
    expect_join(word, NVLX_EFORMAT);
    word = welcome();
    word.bytes++;
    expect_join(word, NVLX_EINVAL);
    expect_join(make_word(NVLXI_RELAY_PARENT, 1), NVLX_EFORMAT);
    expect_join(make_word(NVLXI_RELAY_REFUSED, 0), NVLX_EBUSY);
}

static void tell_digest(uint64_t generation) {
    uint64_t words[2] = {generation, 0};
    OK(nvlx_digest(relay->engine, memory, LENGTH, &words[1]));
    OK(nvlx_memcpy(source.engine, flags_and_digests + LENGTH / NVLXI_RELAY_PIECE_MIN, words, sizeof words));
    say_kind(&source, NVLXI_RELAY_CHECKED, generation);
}

static void await_arrived(uint64_t generation) {
    for (double since = now_ms(); relay_info().generation != generation || relay_info().arrived != LENGTH; usleep(1000))
        EXPECT(now_ms() - since < 10000);
}

/* A source that has let it in to the next generation hears late that it has the one before, and the program has not
 * asked for another one: its bytes stay. */
static void a_program_keeps_its_generation(void) {
    OK(join_and_answer(welcome()));
    EQUAL(0, expect_word(&source, NVLXI_RELAY_BEGIN).generation);
    say_kind(&source, NVLXI_RELAY_PARENT, 1);
    await_arrived(1);
    tell_digest(1);
    OK(nvlx_relay_wait(relay, PATIENCE));
    EQUAL(1, expect_word(&source, NVLXI_RELAY_DONE).generation);
    memset(memory, 0, 1); /* only to be seen */
    say_kind(&source, NVLXI_RELAY_PARENT, 2);
    EQUAL(1, expect_word(&source, NVLXI_RELAY_DONE).generation); /* once more */
    usleep(100000);
    EQUAL(1, relay_info().generation);
    EQUAL(0, *(char *)memory);
    OK(nvlx_relay_wait(relay, 0));
    OK(nvlx_relay_next(relay));
    EQUAL(1, expect_word(&source, NVLXI_RELAY_BEGIN).generation);
    say_kind(&source, NVLXI_RELAY_PARENT, 2);
    await_arrived(2);
    EQUAL(0, wrong(engine, memory, LENGTH, SEED));
    tell_digest(2);
    OK(nvlx_relay_wait(relay, PATIENCE));
    EQUAL(2, relay_info().generation);
    EQUAL(2, expect_word(&source, NVLXI_RELAY_DONE).generation);
    say_kind(&source, NVLXI_RELAY_PARENT, 1); /* an old one */
    expect_silence(&source);
    OK(nvlx_relay_wait(relay, 0));
    OK(nvlx_relay_free(relay, PATIENCE));
    speaker_close(&source);
    OK(nvlx_engine_destroy(engine));
}

/* Words of others than its source are not for it, nor are those of readers. */
static void a_reader_hears_its_source_alone(void) {
    struct speaker stranger;
    OK(join_and_answer(welcome()));
    expect_word(&source, NVLXI_RELAY_BEGIN);
    speaker_open(&stranger, own_path());
    stranger.to = connect_to(stranger.engine, relay->address);
    say_kind(&stranger, NVLXI_RELAY_PARENT, 1);
    say_kind(&stranger, NVLXI_RELAY_CHECKED, 1);
    say_kind(&source, NVLXI_RELAY_DONE, 1);
    say_kind(&source, NVLXI_RELAY_LEAVE, 1);
    say_bytes(&source, "no word", 8);
    usleep(100000);
    EQUAL(0, relay_info().generation);
    EQUAL(0, relay_info().arrived);
    say_kind(&source, NVLXI_RELAY_PARENT, 1);
    await_arrived(1);
    speaker_close(&stranger);
    OK(nvlx_relay_free(relay, PATIENCE));
    speaker_close(&source);
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct role roles[] = {{NULL, NULL}};
    static const struct test tests[] = {
        {"the_source_tells_the_length_of_pieces", the_source_tells_the_length_of_pieces},
        {"what_is_no_word_is_not_heard", what_is_no_word_is_not_heard},
        {"another_version_is_refused", another_version_is_refused},
        {"nonsense_of_a_member_changes_nothing", nonsense_of_a_member_changes_nothing},
        {"who_leaves_is_lost", who_leaves_is_lost},
        {"who_is_silent_goes_to_the_end", who_is_silent_goes_to_the_end},
        {"one_more_than_there_can_be_is_refused", one_more_than_there_can_be_is_refused},
        {"strange_answers_are_told", strange_answers_are_told},
        {"a_program_keeps_its_generation", a_program_keeps_its_generation},
        {"a_reader_hears_its_source_alone", a_reader_hears_its_source_alone},
        {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
