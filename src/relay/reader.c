/* A reader of a relay: joins, hears from the source whom to read from. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "relay/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <utlist.h>

#include "base/log.h"
#include "base/thread.h"

#define AWAKE_NS UINT64_C(20000000)   /* in which a reader whose parent has nothing new hardly sleeps; */
#define DOZE_NS  UINT64_C(1000000)    /* and for how long then */
#define HELLO_NS UINT64_C(1000000000) /* after which a reader says again that it is there */

/* ---- Links ----------------------------------------------------------------------------------------------- */

/* Finds all parts at the other end, which has them with the same lengths. */
static int find_parts(const struct nvlx_relay *relay, struct nvlxi_relay_link *link) {
    const struct nvlxi_relay_content *content = &relay->content;
    link->parts = calloc(content->part_count, sizeof *link->parts);
    if (!link->parts)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu parts", content->part_count);
    for (size_t i = 0; i < content->part_count; i++) {
        const struct nvlx_relay_part *part = &content->parts[i];
        uint64_t length;
        int code = nvlx_peer_find(link->peer, part->name, &link->parts[i], &length);
        if (code)
            return nvlxi_fail(code, "the source has no part \"%s\"", part->name);
        if (length != part->length)
            return nvlxi_fail(NVLX_EINVAL, "the part \"%s\" has %" PRIu64 " bytes here and %" PRIu64 " at the source",
                              part->name, part->length, length);
    }
    return 0;
}

static int find_state(struct nvlxi_relay_link *link, uint64_t length_wanted) {
    struct nvlx_peer_info info = {.size = sizeof info};
    uint64_t length;
    int code = nvlx_peer_get_info(link->peer, &info);
    if (code)
        return code;
    link->here = info.same_process;
    code = nvlx_peer_find(link->peer, *link->address ? NVLXI_RELAY_READER_STATE : NVLXI_RELAY_STATE, &link->state,
                          &length);
    if (code)
        return nvlxi_fail(code, "no relay is served at \"%s\"", info.address);
    return length >= length_wanted
               ? 0
               : nvlxi_fail(NVLX_EFORMAT, "its flags and digests have %" PRIu64 " bytes, not %" PRIu64, length,
                            length_wanted);
}

static void close_link(struct nvlxi_relay_link *link) {
    nvlx_peer_close(link->peer);
    free(link->parts);
}

static int open_link(struct nvlx_relay *relay, const char *address, struct nvlxi_relay_link **link) {
    struct nvlxi_relay_link *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a reader of a relay");
    snprintf(made->address, sizeof made->address, "%s", address);
    int code = nvlx_connect(relay->engine, address, 0, &made->peer);
    if (!code)
        code = find_state(made, relay->state.length);
    if (!code)
        code = find_parts(relay, made);
    if (code) {
        close_link(made);
        free(made);
        return code;
    }
    LL_PREPEND(relay->reader->links, made);
    *link = made;
    return 0;
}

static struct nvlxi_relay_link *find_link(struct nvlxi_relay_reader *reader, const char *address) {
    struct nvlxi_relay_link *link;
    if (!*address)
        return &reader->source;
    LL_FOREACH(reader->links, link) {
        if (!link->lost && !strcmp(link->address, address))
            return link;
    }
    return NULL;
}

void nvlxi_relay_lose(struct nvlx_relay *relay, struct nvlxi_relay_link *link) {
    struct nvlxi_relay_reader *reader = relay->reader;
    link->lost = true;
    if (link != reader->parent)
        return;
    reader->parent = NULL;
    memcpy(reader->lost, link->address, sizeof reader->lost);
}

void nvlxi_relay_fail_source(struct nvlx_relay *relay, int code) {
    char reason[sizeof relay->reason];
    const bool ended = code == NVLX_ERANGE || code == NVLX_ESTALE;
    snprintf(reason, sizeof reason, "%s%s", ended ? "the source of the relay is gone: " : "", nvlx_last_error());
    nvlxi_relay_fail(relay, ended ? NVLX_ESTALE : code, reason);
}

/* ---- What the source says -------------------------------------------------------------------------------- */

/* Nothing is in flight. Closing may wait for kernels. */
static void close_lost(struct nvlxi_relay_reader *reader) {
    struct nvlxi_relay_link *link, *next;
    LL_FOREACH_SAFE(reader->links, link, next) {
        if (!link->lost)
            continue;
        LL_DELETE(reader->links, link);
        close_link(link);
        free(link);
    }
}

/* False: the program has the bytes, until its nvlx_relay_next. The source has not heard yet that it has. */
static bool begin_generation(struct nvlx_relay *relay, uint64_t generation) {
    pthread_mutex_lock(&relay->mutex);
    const bool begins = relay->done < relay->wanted;
    if (begins) {
        nvlxi_relay_check_begin(relay, generation);
        relay->begun_ns = nvlxi_now_ns();
        relay->info.generation = generation;
        relay->info.arrived = relay->info.elapsed_ns = relay->info.parents = 0;
    }
    pthread_mutex_unlock(&relay->mutex);
    if (!begins)
        return false;
    relay->reader->generation = generation;
    relay->reader->parent = NULL;
    nvlxi_relay_pull_begin(relay);
    close_lost(relay->reader);
    return true;
}

static void take_parent(struct nvlx_relay *relay, const struct nvlxi_relay_word *word) {
    struct nvlxi_relay_reader *reader = relay->reader;
    if (word->generation < reader->generation)
        return;
    if (word->generation > reader->generation && !begin_generation(relay, word->generation)) {
        reader->reported = 0; /* said again */
        return;
    }
    struct nvlxi_relay_link *link = find_link(reader, word->address);
    reader->parent = NULL;
    if (!link && open_link(relay, word->address, &link)) {
        memcpy(reader->lost, word->address, sizeof reader->lost);
        return;
    }
    reader->parent = link;
    reader->lost[0] = '\0';
    reader->moved_ns = nvlxi_now_ns();
    memset(reader->flags, 0, sizeof reader->flags);
    pthread_mutex_lock(&relay->mutex);
    relay->info.parents++;
    memcpy(relay->info.parent, word->address, sizeof relay->info.parent);
    pthread_mutex_unlock(&relay->mutex);
}

static void take_checked(struct nvlx_relay *relay, const struct nvlxi_relay_word *word) {
    pthread_mutex_lock(&relay->mutex);
    relay->checked = word->generation;
    pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
}

static void hear(struct nvlx_relay *relay, const struct nvlx_event *event) {
    struct nvlxi_relay_word word;
    if (event->peer != relay->reader->source.peer || nvlxi_relay_hear(event, &word))
        return;
    if (word.kind == NVLXI_RELAY_PARENT)
        take_parent(relay, &word);
    else if (word.kind == NVLXI_RELAY_CHECKED)
        take_checked(relay, &word);
}

static void lose_peer(struct nvlx_relay *relay, const struct nvlx_event *event) {
    struct nvlxi_relay_reader *reader = relay->reader;
    struct nvlxi_relay_link *link;
    if (event->peer == reader->source.peer)
        reader->source_gone = true;
    LL_FOREACH(reader->links, link) {
        if (link->peer == event->peer)
            nvlxi_relay_lose(relay, link);
    }
}

static void read_events(struct nvlx_relay *relay) {
    struct nvlx_event event = {.size = sizeof event};
    while (nvlx_next_event(relay->engine, &event) == 0) {
        if (event.kind == NVLX_EVENT_PEER_LOST)
            lose_peer(relay, &event);
        else if (event.kind == NVLX_EVENT_MESSAGE)
            hear(relay, &event);
    }
}

/* ---- What it says ---------------------------------------------------------------------------------------- */

struct known { /* of what callers and the other thread say */
    uint64_t wanted, done;
    int failure;
};

static struct known look_at(struct nvlx_relay *relay) {
    pthread_mutex_lock(&relay->mutex);
    const struct known known = {.wanted = relay->wanted, .done = relay->done, .failure = relay->failure};
    pthread_mutex_unlock(&relay->mutex);
    return known;
}

/* False: it is to be said again. */
static bool say(struct nvlx_relay *relay, uint16_t kind, uint64_t generation, uint64_t number) {
    struct nvlxi_relay_reader *reader = relay->reader;
    struct nvlxi_relay_word word = {.kind = kind, .generation = generation, .number = number};
    if (reader->source_gone)
        return false;
    if (kind == NVLXI_RELAY_LOST)
        memcpy(word.address, reader->lost, sizeof word.address);
    reader->alive_ns = nvlxi_now_ns();
    return nvlxi_relay_say(reader->source.peer, word) == 0;
}

static uint64_t alive_period(const struct nvlxi_relay_reader *reader) {
    const bool is_at_it = reader->generation > reader->reported && !reader->source_gone;
    return reader->patience_ns / (is_at_it ? NVLXI_RELAY_ALIVE_PART : NVLXI_RELAY_IDLE_PART);
}

static void tell_source(struct nvlx_relay *relay) {
    struct nvlxi_relay_reader *reader = relay->reader;
    const struct known known = look_at(relay);
    if (*reader->lost && say(relay, NVLXI_RELAY_LOST, reader->generation, 0))
        reader->lost[0] = '\0';
    if (reader->generation > reader->reported && (known.failure || known.done == reader->generation) &&
        say(relay, NVLXI_RELAY_DONE, reader->generation, (uint64_t)(int64_t)known.failure))
        reader->reported = reader->generation;
    /* In this order: a late DONE would take back what BEGIN has asked for. */
    if (reader->asked < known.wanted && reader->reported == reader->generation &&
        say(relay, NVLXI_RELAY_BEGIN, known.wanted - 1, 0))
        reader->asked = known.wanted;
    if (nvlxi_now_ns() - reader->alive_ns > alive_period(reader))
        say(relay, NVLXI_RELAY_ALIVE, reader->generation, 0);
    if (reader->source_gone && known.wanted > known.done && !known.failure)
        nvlxi_relay_fail(relay, NVLX_ESTALE, "the source of the relay is gone");
    if (known.failure)
        reader->parent = NULL;
}

/* ---- The thread ------------------------------------------------------------------------------------------ */

void *nvlxi_relay_reader_run(void *argument) {
    struct nvlx_relay *relay = argument;
    struct nvlxi_relay_reader *reader = relay->reader;
    prctl(PR_SET_NAME, "nvlx-relay");
    while (!nvlxi_relay_stops(relay)) {
        read_events(relay);
        tell_source(relay);
        nvlxi_relay_pull(relay);
        if (nvlxi_relay_pulls(relay) && nvlxi_now_ns() - reader->moved_ns < AWAKE_NS)
            nvlxi_pause(reader->moved_ns);
        else if (nvlxi_relay_pulls(relay))
            nvlxi_relay_sleep(relay, nvlxi_now_ns() + DOZE_NS);
        else
            nvlxi_relay_sleep(relay, nvlxi_now_ns() + alive_period(reader));
    }
    tell_source(relay); /* that it is done, say */
    say(relay, NVLXI_RELAY_LEAVE, reader->generation, 0);
    nvlxi_relay_pull_end(relay);
    return NULL;
}

/* ---- The end: digests ------------------------------------------------------------------------------------ */

/* Reads the source's table once. */
static int read_table(struct nvlx_relay *relay, uint64_t *table, size_t length) {
    const struct nvlxi_relay_link *source = &relay->reader->source;
    const struct nvlxi_relay_seen *seen = source->here ? &relay->seen_here : &relay->seen;
    const struct nvlx_op op = {.opcode = NVLX_OP_READ,
                               .peer = source->peer,
                               .local = seen->memory + seen->digests,
                               .remote = source->state + relay->state.digests,
                               .length = length};
    struct nvlx_request *request;
    int code = nvlx_transfer(relay->engine, &op, 1, NULL, &request);
    if (!code)
        code = nvlx_request_free(request); /* which waits for it */
    return code ? code : nvlxi_relay_seen_read(relay, seen, seen->digests, table, length);
}

/* Until the source has digests of the generation. False: it is given up. */
static bool await_digests(struct nvlx_relay *relay, uint64_t generation) {
    pthread_mutex_lock(&relay->mutex);
    while (!relay->stopping && !relay->failure && relay->check.generation == generation && relay->checked < generation)
        nvlxi_cond_wait(&relay->news, &relay->mutex, UINT64_MAX);
    const bool has = !relay->stopping && !relay->failure && relay->checked == generation;
    pthread_mutex_unlock(&relay->mutex);
    return has;
}

/* NVLX_EAGAIN: they are not, or not any more, of this generation: another one is to be read. */
static int read_digests(struct nvlx_relay *relay, uint64_t generation, uint64_t *table, size_t length) {
    const uint64_t since = nvlxi_now_ns();
    int code;
    while ((code = read_table(relay, table, length)) == NVLX_EBUSY && !nvlxi_relay_stops(relay))
        nvlxi_pause(since);
    return !code && table[0] != generation ? NVLX_EAGAIN : code;
}

static int compare(struct nvlx_relay *relay, const uint64_t *theirs) {
    const struct nvlxi_relay_content *content = &relay->content;
    for (size_t i = 0; i < content->unit_count; i++) {
        const struct nvlxi_relay_unit *unit = &content->units[i];
        if (relay->check.digests[i] != theirs[i])
            return nvlxi_fail(NVLX_EDIGEST,
                              "the part \"%s\", bytes %" PRIu64 " to %" PRIu64 ": digest 0x%016" PRIx64
                              ", at the source 0x%016" PRIx64,
                              content->parts[unit->part].name, unit->offset, unit->offset + unit->length,
                              relay->check.digests[i], theirs[i]);
    }
    return 0;
}

/* Digests differ. If the source meanwhile changes its bytes, that tells nothing: the next generation will. */
static int judge(struct nvlx_relay *relay, uint64_t generation, uint64_t *table) {
    char reason[sizeof relay->reason];
    snprintf(reason, sizeof reason, "%s", nvlx_last_error());
    int code = read_digests(relay, generation, table, sizeof *table);
    if (!code)
        nvlxi_relay_fail(relay, code = NVLX_EDIGEST, reason);
    else if (code != NVLX_EAGAIN)
        nvlxi_relay_fail_source(relay, code);
    return code;
}

static void finish(struct nvlx_relay *relay, uint64_t generation) {
    const uint64_t now = nvlxi_now_ns();
    pthread_mutex_lock(&relay->mutex);
    const uint64_t begun = relay->begun_ns, placed = relay->placed_ns;
    const uint64_t parents = relay->info.parents;
    if (relay->check.generation == generation) {
        relay->done = generation;
        relay->info.elapsed_ns = now - begun;
    }
    pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
    nvlxi_relay_wake(relay);
    nvlxi_log(NVLX_LOG_INFO,
              "the reader at %s has generation %" PRIu64 " of the relay: in place after %" PRIu64
              " us, checked %" PRIu64 " us later, from %" PRIu64 " parents",
              relay->address, generation, (placed - begun) / 1000, (now - placed) / 1000, parents);
}

void nvlxi_relay_reader_checked(struct nvlx_relay *relay, uint64_t generation) {
    const size_t length = (relay->content.unit_count + 1) * sizeof(uint64_t);
    uint64_t *table = malloc(length);
    int code = table ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory for %zu digests", relay->content.unit_count);
    if (!code)
        code = await_digests(relay, generation) ? read_digests(relay, generation, table, length) : NVLX_EAGAIN;
    if (code && code != NVLX_EAGAIN)
        nvlxi_relay_fail_source(relay, code);
    else if (!code && compare(relay, table + 1))
        code = judge(relay, generation, table);
    free(table);
    if (code)
        return;
    finish(relay, generation);
}

/* ---- To join --------------------------------------------------------------------------------------------- */

static int say_hello(struct nvlx_relay *relay) {
    const struct nvlxi_context *context = &relay->engine->context;
    struct nvlxi_relay_word word = {.kind = NVLXI_RELAY_HELLO};
    memcpy(word.address, relay->address, sizeof word.address);
    int code = context->ops->uuid(context->device, relay->gpu, word.gpu);
    return code ? code : nvlxi_relay_say(relay->reader->source.peer, word);
}

/* The next word of the source. */
static int await_word(struct nvlx_relay *relay, uint64_t deadline, struct nvlxi_relay_word *word) {
    struct nvlx_event event = {.size = sizeof event};
    uint64_t again = nvlxi_now_ns() + HELLO_NS;
    for (;;) {
        while (nvlx_next_event(relay->engine, &event) == 0) {
            if (event.kind == NVLX_EVENT_PEER_LOST && event.peer == relay->reader->source.peer)
                return nvlxi_fail(NVLX_ESTALE, "the source of the relay has ended: %s", event.reason);
            if (event.kind == NVLX_EVENT_MESSAGE && event.peer == relay->reader->source.peer)
                return nvlxi_relay_hear(&event, word);
        }
        if (nvlxi_now_ns() >= deadline)
            return nvlxi_fail(NVLX_ETIMEDOUT, "the source of the relay does not answer");
        if (nvlxi_now_ns() >= again) { /* it could not connect to this reader, say */
            say_hello(relay);
            again = nvlxi_now_ns() + HELLO_NS;
        }
        nvlxi_relay_sleep(relay, nvlxi_min(deadline, again));
    }
}

static int take_welcome(struct nvlx_relay *relay, const struct nvlxi_relay_word *word) {
    const struct nvlxi_relay_content *content = &relay->content;
    if (word->kind == NVLXI_RELAY_REFUSED)
        return nvlxi_fail(NVLX_EBUSY, "the source of the relay has as many readers as it can have");
    if (word->kind != NVLXI_RELAY_WELCOME || word->piece_bytes < NVLXI_RELAY_PIECE_MIN)
        return nvlxi_fail(NVLX_EFORMAT, "the source of the relay answers by word %u", word->kind);
    if (word->parts != content->part_count || word->bytes != content->bytes)
        return nvlxi_fail(NVLX_EINVAL,
                          "the source has %" PRIu64 " parts of %" PRIu64 " bytes, here are %zu of %" PRIu64,
                          word->parts, word->bytes, content->part_count, content->bytes);
    relay->reader->patience_ns = word->patience_ns;
    return nvlxi_relay_content_cut(&relay->content, word->piece_bytes);
}

static int make_room(struct nvlx_relay *relay) {
    const struct nvlxi_relay_content *content = &relay->content;
    size_t most = 0;
    for (size_t i = 0; i < content->piece_count; i++)
        most = nvlxi_max(most, content->first[i + 1] - content->first[i]);
    relay->reader->ops = calloc(most + 1, sizeof(struct nvlx_op));
    relay->reader->pieces = calloc(content->piece_count + 1, 1);
    if (!relay->reader->ops || !relay->reader->pieces)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu pieces", content->piece_count);
    return 0;
}

int nvlxi_relay_reader_make(struct nvlx_relay *relay, const char *address, int64_t timeout_ns) {
    const uint64_t deadline = nvlxi_deadline(timeout_ns);
    struct nvlxi_relay_word word;
    relay->reader = calloc(1, sizeof *relay->reader);
    if (!relay->reader)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a reader of a relay");
    relay->engine->transfers.pool.most = NVLXI_RELAY_LANES;
    struct nvlxi_relay_link *source = &relay->reader->source;
    int code = nvlx_connect(relay->engine, address, timeout_ns, &source->peer);
    if (code || (code = find_state(source, 0)) || (code = find_parts(relay, source)) || (code = say_hello(relay)) ||
        (code = await_word(relay, nvlxi_max(deadline, nvlxi_deadline(1000000000)), &word)) ||
        (code = take_welcome(relay, &word)) || (code = nvlxi_relay_state_make(relay)) ||
        (code = nvlxi_relay_seen_make(relay)) || (code = find_state(source, relay->state.length)) ||
        (code = make_room(relay)))
        return code;
    return nvlxi_relay_check_make(relay);
}

void nvlxi_relay_reader_free(struct nvlx_relay *relay) {
    struct nvlxi_relay_link *link, *next;
    if (!relay->reader)
        return;
    LL_FOREACH_SAFE(relay->reader->links, link, next) {
        free(link->parts);
        free(link); /* the engine closes its peer */
    }
    free(relay->reader->source.parts);
    free(relay->reader->ops);
    free(relay->reader->pieces);
    free(relay->reader);
}
