/* The source of a relay: knows its readers, tells each whom to read from. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "relay/relay.h"
#include "relay/tree.h"

#define EVENTS_A_TURN 64

struct member { /* a reader */
    struct nvlx_peer *peer;
    uint64_t number; /* of no other one; 0 is the source */
    char engine[40], address[NVLXI_RELAY_ADDRESS];
    uint8_t gpu[NVLXI_UUID_BYTES];
    bool asks; /* for a generation newer than `after` */
    uint64_t after;
    uint64_t has;      /* the generation that it is at, or has; 0: none */
    bool done, out;    /* it has it; it has left, or failed */
    bool told;         /* whom to read it from: */
    uint64_t parent;   /* a number */
    uint64_t checked;  /* it was told that there are digests of this generation */
    bool shunned;      /* nobody reads from it: another one could not, */
    bool quiet;        /* or it is at the generation, and says nothing for a while, */
    bool silent;       /* or for longer than the patience */
    uint64_t heard_ns; /* when it said something last, */
    uint64_t begun_ns; /* and when it was let in */
};

struct nvlxi_relay_source {
    struct member *members[NVLXI_RELAY_MEMBERS_MAX]; /* in the order of the tree */
    size_t count;
    uint64_t numbers; /* given to members */
    uint8_t gpu[NVLXI_UUID_BYTES];
    uint64_t generation, begun_ns, elapsed_ns;
    uint32_t done, lost; /* readers of the generation */
    uint32_t gone;       /* readers that have died, left or failed, at any time; */
    uint32_t missing;    /* and of them those that were gone when the generation began */
    bool changed;        /* parents are to be found again */
    uint64_t looked_ns;  /* when it looked last for who says nothing, */
    uint64_t pause_ns;   /* and how long it meant to sleep then */
};

static bool is_at(const struct nvlxi_relay_source *source, const struct member *member) {
    return !member->out && member->has == source->generation && !member->done;
}

static struct member *find_engine(const struct nvlxi_relay_source *source, const char *engine) {
    for (size_t i = 0; i < source->count; i++)
        if (!strcmp(source->members[i]->engine, engine))
            return source->members[i];
    return NULL;
}

static struct member *find_peer(const struct nvlxi_relay_source *source, const struct nvlx_peer *peer) {
    for (size_t i = 0; i < source->count; i++)
        if (source->members[i]->peer == peer)
            return source->members[i];
    return NULL;
}

static struct member *find_address(const struct nvlxi_relay_source *source, const char *address) {
    for (size_t i = 0; i < source->count; i++)
        if (!strcmp(source->members[i]->address, address))
            return source->members[i];
    return NULL;
}

/* ---- Who reads from whom --------------------------------------------------------------------------------- */

static bool has_it(const struct nvlxi_relay_source *source, const struct member *member) {
    return member->has == source->generation && member->done;
}

/* It is not in the tree any more. Who never asked for anything, as its nvlx_relay_join has failed, was no reader. */
static void take_out(struct nvlxi_relay_source *source, struct member *member) {
    const bool was_reader = !member->out && (member->has || member->asks);
    source->lost += was_reader && !has_it(source, member);
    source->gone += was_reader;
    member->out = true;
    source->changed = true;
}

/* Under the mutex. */
static void count_readers(struct nvlx_relay *relay) {
    const struct nvlxi_relay_source *source = relay->source;
    relay->reading = relay->silent = relay->idle = relay->joined = relay->having = 0;
    for (size_t i = 0; i < source->count; i++) {
        const struct member *member = source->members[i];
        relay->reading += is_at(source, member);
        relay->silent += is_at(source, member) && member->silent;
        relay->joined += !member->out;
        relay->having += !member->out && has_it(source, member);
        relay->idle += !member->out && member->has != source->generation && !(relay->held && member->asks);
    }
}

/* Those who ask for a newer generation than they have get this one, unless its bytes may change. Under the mutex, so
 * that who holds the generation has seen all that are at it. */
static void let_in(struct nvlx_relay *relay) {
    struct nvlxi_relay_source *source = relay->source;
    for (size_t i = 0; i < source->count; i++) {
        struct member *member = source->members[i];
        const bool is_late = member->has && member->has < source->generation && !member->done;
        if (member->out || !(is_late || (member->asks && source->generation > member->after)))
            continue;
        member->asks = member->done = member->told = member->shunned = false;
        member->has = source->generation;
        member->begun_ns = nvlxi_now_ns();
    }
    count_readers(relay);
}

/* Silent ones go to the end: they keep nobody from their places when they are back. */
static void order_members(struct nvlxi_relay_source *source) {
    struct member *ordered[NVLXI_RELAY_MEMBERS_MAX];
    size_t count = 0;
    for (int silent = 0; silent < 2; silent++)
        for (size_t i = 0; i < source->count; i++)
            if (source->members[i]->silent == (silent == 1))
                ordered[count++] = source->members[i];
    memcpy(source->members, ordered, count * sizeof(struct member *));
}

static void tell_parent(struct nvlxi_relay_source *source, struct member *member, const struct member *parent) {
    struct nvlxi_relay_word word = {.kind = NVLXI_RELAY_PARENT, .generation = source->generation};
    const uint64_t number = parent ? parent->number : 0;
    if (member->told && member->parent == number)
        return;
    snprintf(word.address, sizeof word.address, "%s", parent ? parent->address : "");
    member->told = nvlxi_relay_say(member->peer, word) == 0;
    member->parent = number;
    source->changed |= !member->told; /* once more */
}

/* Digests can be read: of what those who are at it, or wait for their digests, have. */
static void tell_checked(struct nvlxi_relay_source *source) {
    const struct nvlxi_relay_word word = {.kind = NVLXI_RELAY_CHECKED, .generation = source->generation};
    for (size_t i = 0; i < source->count; i++) {
        struct member *member = source->members[i];
        if (is_at(source, member) && member->checked != source->generation && nvlxi_relay_say(member->peer, word) == 0)
            member->checked = source->generation;
    }
}

static void plan(struct nvlx_relay *relay) {
    struct nvlxi_relay_source *source = relay->source;
    struct nvlxi_relay_place places[NVLXI_RELAY_MEMBERS_MAX];
    source->changed = false;
    pthread_mutex_lock(&relay->mutex);
    if (!relay->held && relay->wanted == source->generation)
        let_in(relay);
    pthread_mutex_unlock(&relay->mutex);
    order_members(source);
    for (size_t i = 0; i < source->count; i++) {
        const struct member *member = source->members[i];
        places[i] = (struct nvlxi_relay_place){.gpu = member->gpu,
                                               .reads = !member->out && member->has == source->generation,
                                               .shunned = member->shunned || member->quiet || member->silent};
    }
    nvlxi_relay_tree(places, source->count, source->gpu);
    for (size_t i = 0; i < source->count; i++)
        if (is_at(source, source->members[i]))
            tell_parent(source, source->members[i], places[i].parent < 0 ? NULL : source->members[places[i].parent]);
}

/* ---- What readers say ------------------------------------------------------------------------------------ */

static int welcome(struct nvlx_relay *relay, struct nvlx_peer *peer) {
    return nvlxi_relay_say(peer, (struct nvlxi_relay_word){.kind = NVLXI_RELAY_WELCOME,
                                                           .piece_bytes = relay->options.piece_bytes,
                                                           .parts = relay->content.part_count,
                                                           .bytes = relay->content.bytes,
                                                           .patience_ns = (uint64_t)relay->options.patience_ns});
}

/* Connects to a reader that has come. */
static void admit(struct nvlx_relay *relay, const struct nvlx_event *event, const struct nvlxi_relay_word *word) {
    struct nvlxi_relay_source *source = relay->source;
    struct nvlx_peer *peer;
    if (nvlx_connect(relay->engine, word->address, 0, &peer))
        return; /* it is gone, or does not answer: it says so again */
    if (source->count == NVLXI_RELAY_MEMBERS_MAX) {
        nvlxi_relay_say(peer, (struct nvlxi_relay_word){.kind = NVLXI_RELAY_REFUSED});
        nvlx_peer_close(peer);
        return;
    }
    struct member *member = calloc(1, sizeof *member);
    if (!member) {
        nvlx_peer_close(peer);
        return;
    }
    member->peer = peer;
    member->number = ++source->numbers;
    memcpy(member->gpu, word->gpu, sizeof member->gpu);
    memcpy(member->engine, event->engine, sizeof member->engine);
    memcpy(member->address, word->address, sizeof member->address);
    member->heard_ns = nvlxi_now_ns();
    source->members[source->count++] = member;
    pthread_mutex_lock(&relay->mutex);
    count_readers(relay); /* before its nvlx_relay_join returns */
    pthread_mutex_unlock(&relay->mutex);
    if (welcome(relay, peer)) { /* it is gone: nobody has known it */
        source->count--;
        nvlx_peer_close(peer);
        free(member);
        return;
    }
    nvlxi_log(NVLX_LOG_INFO, "the relay at %s has a reader at %s", relay->address, member->address);
}

static void note_done(struct nvlxi_relay_source *source, struct member *member, const struct nvlxi_relay_word *word) {
    const bool is_old = word->generation && word->generation < source->generation && member->has >= word->generation;
    if (is_old && !word->number && !member->out && !member->done) {
        member->has = word->generation; /* it was let in to the next one before this was heard, and has not asked */
        member->done = source->changed = true;
        return;
    }
    if (!is_at(source, member) || word->generation != source->generation)
        return;
    if (word->number) {
        take_out(source, member);
        return;
    }
    member->done = true;
    source->done++;
    source->elapsed_ns = nvlxi_now_ns() - source->begun_ns;
}

/* Its parent is to be another one. */
static void note_lost(struct nvlxi_relay_source *source, struct member *member, const struct nvlxi_relay_word *word) {
    struct member *lost = find_address(source, word->address);
    if (lost)
        lost->shunned = true;
    member->told = false;
    source->changed = true;
}

static void hear(struct nvlxi_relay_source *source, struct member *member, const struct nvlxi_relay_word *word) {
    member->heard_ns = nvlxi_now_ns();
    if (word->kind == NVLXI_RELAY_BEGIN) {
        member->asks = true;
        member->after = word->generation;
        source->changed = true;
    } else if (word->kind == NVLXI_RELAY_LOST) {
        note_lost(source, member, word);
    } else if (word->kind == NVLXI_RELAY_DONE) {
        note_done(source, member, word);
    } else if (word->kind == NVLXI_RELAY_LEAVE) {
        take_out(source, member);
    }
}

/* Its answer has this version, which is all that the other one needs to know. */
static void refuse(struct nvlx_relay *relay, const struct nvlxi_relay_word *word) {
    struct nvlx_peer *peer;
    if (nvlx_connect(relay->engine, word->address, 0, &peer))
        return;
    nvlxi_relay_say(peer, (struct nvlxi_relay_word){.kind = NVLXI_RELAY_REFUSED});
    nvlx_peer_close(peer);
}

static void hear_message(struct nvlx_relay *relay, const struct nvlx_event *event) {
    struct nvlxi_relay_word word;
    struct member *member = find_engine(relay->source, event->engine);
    int code = nvlxi_relay_hear(event, &word);
    if (code == NVLX_EVERSION && !member && word.kind == NVLXI_RELAY_HELLO)
        refuse(relay, &word);
    if (code)
        return;
    if (member)
        hear(relay->source, member, &word);
    else if (word.kind == NVLXI_RELAY_HELLO)
        admit(relay, event, &word);
}

/* A reader that was killed leaves its socket file behind, whose name is no other's. */
static void remove_socket(const struct nvlx_relay *relay, const struct member *member) {
    const size_t length = strlen(relay->address);
    const char *rest = member->address + length;
    if (*relay->address == '/' && !strncmp(member->address, relay->address, length) && *rest == '.' &&
        !strchr(rest, '/'))
        unlink(member->address);
}

static void forget(struct nvlx_relay *relay, struct member *member) {
    struct nvlxi_relay_source *source = relay->source;
    size_t i = 0;
    take_out(source, member);
    remove_socket(relay, member);
    while (source->members[i] != member)
        i++;
    memmove(&source->members[i], &source->members[i + 1], (--source->count - i) * sizeof(struct member *));
    nvlx_peer_close(member->peer);
    free(member);
}

/* Some of them: the rest keeps its thread awake, but does not keep it from all else. */
static void read_events(struct nvlx_relay *relay) {
    struct nvlx_event event = {.size = sizeof event};
    for (int left = EVENTS_A_TURN; left && nvlx_next_event(relay->engine, &event) == 0; left--) {
        struct member *member = find_peer(relay->source, event.peer);
        if (event.kind == NVLX_EVENT_MESSAGE)
            hear_message(relay, &event);
        else if (event.kind == NVLX_EVENT_PEER_LOST && member)
            forget(relay, member);
    }
}

#define LATE_NS UINT64_C(2000000) /* that a thread may come too late on any machine */

/* For how long this thread itself was away, or busy, if that counts: what was said meanwhile it has not heard. */
static uint64_t time_away(struct nvlxi_relay_source *source, uint64_t now, uint64_t patience) {
    const uint64_t since = source->looked_ns ? now - source->looked_ns : 0, pause = source->pause_ns;
    source->looked_ns = now;
    return since > pause + nvlxi_max(patience / NVLXI_RELAY_QUIET_PART, LATE_NS) ? since - pause : 0;
}

/* Who says nothing is not read from. */
static void look_for_silence(struct nvlx_relay *relay) {
    struct nvlxi_relay_source *source = relay->source;
    const uint64_t now = nvlxi_now_ns(), patience = (uint64_t)relay->options.patience_ns,
                   away = time_away(source, now, patience);
    for (size_t i = 0; i < source->count; i++) {
        struct member *member = source->members[i];
        member->heard_ns = nvlxi_min(member->heard_ns + away, now);
        const uint64_t since = now - member->heard_ns;
        const bool silent = since > patience;
        const bool quiet =
            is_at(source, member) && nvlxi_min(since, now - member->begun_ns) > patience / NVLXI_RELAY_QUIET_PART;
        source->changed |= silent != member->silent || quiet != member->quiet;
        member->silent = silent;
        member->quiet = quiet;
    }
}

static bool is_busy(const struct nvlxi_relay_source *source) {
    for (size_t i = 0; i < source->count; i++)
        if (is_at(source, source->members[i]))
            return true;
    return false;
}

/* ---- The thread ------------------------------------------------------------------------------------------ */

/* The next generation is offered: its bytes are in place. */
static void take_generation(struct nvlx_relay *relay, uint64_t wanted) {
    struct nvlxi_relay_source *source = relay->source;
    int code = nvlxi_relay_source_forget(relay, source->generation);
    if (code)
        nvlxi_relay_fail(relay, code, nvlx_last_error());
    source->generation = wanted;
    source->done = source->lost = 0;
    source->missing = source->gone;
    source->begun_ns = nvlxi_now_ns();
    source->elapsed_ns = 0;
    source->changed = true;
    pthread_mutex_lock(&relay->mutex);
    nvlxi_relay_check_begin(relay, wanted);
    for (size_t i = 0; i < relay->content.piece_count; i++)
        nvlxi_relay_check_piece(relay, i);
    pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
}

/* For those who wait and ask. True: the digests are made. */
static bool publish_counts(struct nvlx_relay *relay) {
    const struct nvlxi_relay_source *source = relay->source;
    pthread_mutex_lock(&relay->mutex);
    const struct nvlx_relay_info before = relay->info;
    const uint32_t silent = relay->silent, missing = relay->missing, idle = relay->idle;
    count_readers(relay);
    relay->missing = source->missing;
    relay->info.generation = source->generation;
    relay->info.elapsed_ns = relay->reading ? 0 : source->elapsed_ns;
    relay->info.readers = relay->reading + source->done;
    relay->info.done = source->done;
    relay->info.lost = source->lost;
    const bool checked = relay->done == source->generation;
    if (memcmp(&before, &relay->info, sizeof before) || silent != relay->silent || missing != relay->missing ||
        idle != relay->idle)
        pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
    return checked;
}

static uint64_t wanted_generation(struct nvlx_relay *relay) {
    pthread_mutex_lock(&relay->mutex);
    const uint64_t wanted = relay->wanted;
    pthread_mutex_unlock(&relay->mutex);
    return wanted;
}

void *nvlxi_relay_source_run(void *argument) {
    struct nvlx_relay *relay = argument;
    struct nvlxi_relay_source *source = relay->source;
    prctl(PR_SET_NAME, "nvlx-relay");
    while (!nvlxi_relay_stops(relay)) {
        const uint64_t wanted = wanted_generation(relay);
        if (wanted != source->generation)
            take_generation(relay, wanted);
        read_events(relay);
        look_for_silence(relay);
        if (source->changed)
            plan(relay);
        if (publish_counts(relay))
            tell_checked(source);
        const uint64_t part = is_busy(source) ? NVLXI_RELAY_ALIVE_PART : NVLXI_RELAY_IDLE_PART;
        source->pause_ns = (uint64_t)relay->options.patience_ns / part;
        nvlxi_relay_sleep(relay, nvlxi_now_ns() + source->pause_ns);
    }
    return NULL;
}

int nvlxi_relay_source_forget(struct nvlx_relay *relay, uint64_t generation) {
    const uint64_t none = 0;
    int code = 0;
    pthread_mutex_lock(&relay->telling);
    if (relay->told && relay->told <= generation)
        code = nvlx_memcpy(relay->engine, relay->state.memory + relay->state.digests, &none, sizeof none);
    if (!code && relay->told <= generation)
        relay->told = 0;
    pthread_mutex_unlock(&relay->telling);
    return code;
}

static int tell(struct nvlx_relay *relay, uint64_t generation) {
    char *table = relay->state.memory + relay->state.digests;
    pthread_mutex_lock(&relay->telling);
    int code = nvlx_memcpy(relay->engine, table + sizeof(uint64_t), relay->check.digests,
                           relay->content.unit_count * sizeof(uint64_t));
    if (!code)
        code = nvlx_memcpy(relay->engine, table, &generation, sizeof generation);
    if (!code)
        relay->told = generation;
    pthread_mutex_unlock(&relay->telling);
    return code;
}

void nvlxi_relay_source_checked(struct nvlx_relay *relay, uint64_t generation) {
    const int code = tell(relay, generation);
    if (code) {
        nvlxi_relay_fail(relay, code, nvlx_last_error());
        return;
    }
    pthread_mutex_lock(&relay->mutex);
    relay->done = generation;
    pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
    nvlxi_relay_wake(relay);
}

int nvlxi_relay_source_make(struct nvlx_relay *relay) {
    const struct nvlxi_context *context = &relay->engine->context;
    relay->source = calloc(1, sizeof *relay->source);
    if (!relay->source)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a relay");
    relay->info.source = 1;
    relay->info.arrived = relay->info.bytes;
    return context->ops->uuid(context->device, relay->gpu, relay->source->gpu);
}

void nvlxi_relay_source_free(struct nvlx_relay *relay) {
    for (size_t i = 0; relay->source && i < relay->source->count; i++)
        free(relay->source->members[i]); /* the engine closes their peers */
    free(relay->source);
}
