/* The exported functions of relays, and what source and readers share: see relay.h. SPDX-License-Identifier: Apache-2.0
 */
#include "relay/relay.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "api/abi.h"
#include "base/fork_files.h"
#include "base/thread.h"

#define PATIENCE_NS     500000000
#define PATIENCE_MIN_NS 10000000
#define ADDRESS_MAX     (NVLXI_ADDRESS_MAX - 17)

/* ---- For both -------------------------------------------------------------------------------------------- */

void nvlxi_relay_wake(struct nvlx_relay *relay) {
    eventfd_write(relay->wake_fd, 1); /* if it is full, the thread is awake */
}

void nvlxi_relay_sleep(struct nvlx_relay *relay, uint64_t deadline) {
    struct pollfd fds[] = {{.fd = relay->event_fd, .events = POLLIN}, {.fd = relay->wake_fd, .events = POLLIN}};
    eventfd_t ignored;
    poll(fds, 2, nvlxi_poll_ms(deadline));
    if (fds[1].revents)
        eventfd_read(relay->wake_fd, &ignored);
}

bool nvlxi_relay_stops(struct nvlx_relay *relay) {
    pthread_mutex_lock(&relay->mutex);
    const bool stops = relay->stopping;
    pthread_mutex_unlock(&relay->mutex);
    return stops;
}

void nvlxi_relay_fail(struct nvlx_relay *relay, int code, const char *reason) {
    pthread_mutex_lock(&relay->mutex);
    if (!relay->failure) {
        relay->failure = code;
        snprintf(relay->reason, sizeof relay->reason, "%s", reason);
    }
    pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
    nvlxi_relay_wake(relay);
}

/* ---- The memory ------------------------------------------------------------------------------------------ */

static int add_region(struct nvlx_relay *relay, void *address, uint64_t length, const char *name, uint32_t access) {
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = name;
    options.access = access;
    int code = nvlx_register(relay->engine, address, length, &options, &relay->regions[relay->region_count]);
    relay->region_count += code == 0;
    return code;
}

/* Something was wrong with the memory of a part: also says with which. */
static int fail_part(const struct nvlx_relay_part *part, int code) {
    char reason[NVLXI_ERROR_TEXT];
    snprintf(reason, sizeof reason, "%s", nvlx_last_error());
    return nvlxi_fail(code, "the part \"%s\": %s", part->name, reason);
}

static int add_part(struct nvlx_relay *relay, const struct nvlx_relay_part *part) {
    int code = add_region(relay, part->address, part->length, part->name, NVLX_ACCESS_READ);
    return code ? fail_part(part, code) : 0;
}

int nvlxi_relay_serve(struct nvlx_relay *relay, const char *address) {
    const struct nvlxi_relay_content *content = &relay->content;
    int code = 0;
    for (size_t i = 0; !code && i < content->part_count; i++)
        code = add_part(relay, &content->parts[i]);
    if (code)
        return code;
    snprintf(relay->address, sizeof relay->address, "%s", address);
    return nvlx_serve(relay->engine, relay->address, relay->options.serve);
}

struct words {            /* of 64 bits */
    size_t length, spare; /* bytes of the region; and behind it */
    uint32_t kind;        /* NVLX_ALLOC_..., or 0 */
    const char *name;
    uint32_t access;
};

static int make_of_kind(struct nvlx_relay *relay, const struct words *words, char **memory) {
    struct nvlx_alloc_options options;
    void *made;
    nvlx_alloc_options_init(&options);
    options.flags = words->kind;
    int code = nvlx_alloc(relay->engine, relay->gpu, words->length + words->spare, &options, &made);
    if (code)
        return code;
    code = add_region(relay, made, words->length, words->name, words->access);
    if (code)
        nvlx_free(relay->engine, made);
    else
        *memory = made;
    return code;
}

/* Of this kind, or of cudaMalloc where that does not work: *kind is what it has become. */
static int make_words(struct nvlx_relay *relay, struct words *words, char **memory) {
    struct nvlxi_attempt attempt;
    nvlxi_attempt_begin(&attempt);
    const bool made = words->kind && make_of_kind(relay, words, memory) == 0;
    nvlxi_attempt_end(&attempt, 0);
    if (made)
        return 0;
    words->kind = 0;
    return make_of_kind(relay, words, memory);
}

static size_t seen_length(const struct nvlx_relay *relay) {
    return (NVLXI_RELAY_FLAGS + relay->content.unit_count + 1) * sizeof(uint64_t);
}

int nvlxi_relay_state_make(struct nvlx_relay *relay) {
    struct nvlxi_relay_state *state = &relay->state;
    state->digests = relay->content.piece_count * sizeof(uint64_t);
    state->length = state->digests + (relay->content.unit_count + 1) * sizeof(uint64_t);
    struct words words = {.length = state->length,
                          .spare = relay->reader ? seen_length(relay) : 0,
                          .kind = NVLX_ALLOC_VMM,
                          .name = relay->reader ? NVLXI_RELAY_READER_STATE : NVLXI_RELAY_STATE,
                          .access = NVLX_ACCESS_READ};
    void *zeros = calloc(1, state->length);
    if (!zeros)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for the flags of a relay");
    int code = make_words(relay, &words, &state->memory);
    if (!code)
        code = nvlx_memcpy(relay->engine, state->memory, zeros, state->length);
    free(zeros);
    return code;
}

int nvlxi_relay_seen_make(struct nvlx_relay *relay) {
    struct words words = {.length = seen_length(relay), .kind = NVLX_ALLOC_HOST, .access = NVLX_ACCESS_NONE};
    int code = make_words(relay, &words, &relay->seen.memory);
    relay->seen.on_host = words.kind != 0;
    relay->seen_here.memory = relay->state.memory + relay->state.length;
    relay->seen.digests = relay->seen_here.digests = NVLXI_RELAY_FLAGS * sizeof(uint64_t);
    return code ? code : add_region(relay, relay->seen_here.memory, words.length, NULL, NVLX_ACCESS_NONE);
}

int nvlxi_relay_seen_read(struct nvlx_relay *relay, const struct nvlxi_relay_seen *seen, size_t offset, void *bytes,
                          size_t length) {
    if (!seen->on_host)
        return nvlx_memcpy(relay->engine, bytes, seen->memory + offset, length);
    memcpy(bytes, seen->memory + offset, length);
    return 0;
}

/* ---- To make one ----------------------------------------------------------------------------------------- */

/* The GPU that the first part with bytes is on. */
static int find_gpu(const struct nvlx_engine *engine, const struct nvlxi_relay_content *content, int *gpu) {
    const struct nvlxi_context *context = &engine->context;
    struct nvlxi_allocation allocation;
    size_t i = 0;
    while (!content->parts[i].length)
        i++;
    int code = context->ops->resolve(context->device, (uint64_t)(uintptr_t)content->parts[i].address, &allocation);
    if (code)
        return fail_part(&content->parts[i], code);
    *gpu = allocation.gpu;
    return 0;
}

/* Those that the caller's engine works on. */
static size_t find_gpus(const struct nvlx_engine *engine, int *gpus) {
    struct nvlxi_gpu_limits limits;
    size_t count = 0;
    for (int gpu = 0; gpu < engine->remote.gpus; gpu++) {
        struct nvlxi_attempt attempt;
        nvlxi_attempt_begin(&attempt);
        if (engine->context.ops->limits(engine->context.device, gpu, &limits) == 0)
            gpus[count++] = gpu;
        nvlxi_attempt_end(&attempt, 0);
    }
    return count;
}

static int make_engine(struct nvlx_relay *relay, const struct nvlx_engine *engine) {
    struct nvlx_config config;
    int code = find_gpu(engine, &relay->content, &relay->gpu);
    if (code)
        return code;
    int *gpus = calloc((size_t)engine->remote.gpus, sizeof *gpus);
    if (!gpus)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a relay");
    nvlx_config_init(&config);
    config.gpus = gpus;
    config.gpu_count = find_gpus(engine, gpus);
    config.mechanism = engine->transfers.mechanism;
    config.max_sms = engine->transfers.max_sms;
    code = nvlxi_engine_create(&config, engine->context.ops, &relay->engine);
    free(gpus);
    return code ? code : nvlx_event_fd(relay->engine, &relay->event_fd);
}

static int take_options(struct nvlx_relay_options *known, const struct nvlx_relay_options *options) {
    nvlx_relay_options_init(known);
    int code = nvlxi_struct_take(known, sizeof *known, options, "nvlx_relay_options");
    if (code)
        return code;
    if (known->reserved)
        return nvlxi_fail(NVLX_EINVAL, "relay_options.reserved is %u, not 0", (unsigned)known->reserved);
    if (known->patience_ns && known->patience_ns < PATIENCE_MIN_NS)
        return nvlxi_fail(NVLX_EINVAL, "relay_options.patience_ns is %lld: at least %d, or 0 for the default",
                          (long long)known->patience_ns, PATIENCE_MIN_NS);
    if (known->piece_bytes && known->piece_bytes < NVLXI_RELAY_PIECE_MIN)
        return nvlxi_fail(NVLX_EINVAL, "relay_options.piece_bytes is %llu: at least %u, or 0 for the default",
                          (unsigned long long)known->piece_bytes, NVLXI_RELAY_PIECE_MIN);
    known->patience_ns = known->patience_ns ? known->patience_ns : PATIENCE_NS;
    return 0;
}

static int init(struct nvlx_relay *relay, struct nvlx_engine *engine, const struct nvlx_relay_part *parts,
                size_t count) {
    pthread_mutex_init(&relay->mutex, NULL);
    pthread_mutex_init(&relay->telling, NULL);
    nvlxi_cond_init(&relay->news);
    relay->wake_fd = nvlxi_fork_files_eventfd();
    if (relay->wake_fd < 0)
        return nvlxi_fail(nvlxi_system_code(errno, NVLX_ENOMEM), "no descriptor for a relay: %s", strerror(errno));
    int code = nvlxi_relay_content_make(&relay->content, parts, count);
    if (code)
        return code;
    relay->wanted = 1;
    relay->info.bytes = relay->content.bytes;
    relay->regions = calloc(count + 3, sizeof *relay->regions);
    if (!relay->regions)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu parts", count);
    return make_engine(relay, engine);
}

static void stop(struct nvlx_relay *relay) {
    pthread_mutex_lock(&relay->mutex);
    relay->stopping = true;
    pthread_cond_broadcast(&relay->news);
    pthread_mutex_unlock(&relay->mutex);
    nvlxi_relay_wake(relay);
    if (relay->started)
        pthread_join(relay->thread, NULL);
    nvlxi_relay_check_end(relay);
    nvlxi_relay_source_free(relay);
    nvlxi_relay_reader_free(relay);
}

/* What is left when nobody uses its parts any more. */
static void dispose(struct nvlx_relay *relay) {
    if (relay->engine)
        nvlx_engine_destroy(relay->engine);
    if (relay->wake_fd >= 0)
        nvlxi_fork_files_close(relay->wake_fd);
    nvlxi_relay_content_free(&relay->content);
    free(relay->regions);
    pthread_cond_destroy(&relay->news);
    pthread_mutex_destroy(&relay->telling);
    pthread_mutex_destroy(&relay->mutex);
    free(relay);
}

static int start(struct nvlx_relay *relay, void *(*run)(void *argument)) {
    if (nvlxi_thread_start(&relay->thread, run, relay))
        return nvlxi_fail(NVLX_ENOMEM, "no thread for a relay");
    relay->started = true;
    return 0;
}

static int become_source(struct nvlx_relay *relay, const char *address) {
    if (!relay->options.piece_bytes)
        relay->options.piece_bytes = nvlxi_relay_content_piece(&relay->content);
    int code = nvlxi_relay_content_cut(&relay->content, relay->options.piece_bytes);
    if (code || (code = nvlxi_relay_state_make(relay)) || (code = nvlxi_relay_source_make(relay)) ||
        (code = nvlxi_relay_check_make(relay)) || (code = nvlxi_relay_serve(relay, address)))
        return code;
    return start(relay, nvlxi_relay_source_run);
}

static int become_reader(struct nvlx_relay *relay, const char *address, int64_t timeout_ns) {
    char own[NVLXI_RELAY_ADDRESS];
    snprintf(own, sizeof own, "%s.%.16s", address, relay->engine->context.identity.engine);
    int code = nvlxi_relay_content_check_apart(&relay->content);
    if (code || (code = nvlxi_relay_serve(relay, own)) || (code = nvlxi_relay_reader_make(relay, address, timeout_ns)))
        return code;
    return start(relay, nvlxi_relay_reader_run);
}

static int make(struct nvlx_engine *engine, const char *address, const struct nvlx_relay_part *parts, size_t count,
                const struct nvlx_relay_options *options, const int64_t *timeout_ns, struct nvlx_relay **relay) {
    struct nvlx_relay_options known;
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(address, "address")) || (code = nvlxi_pointer_check(relay, "relay")) ||
        (code = take_options(&known, options)))
        return code;
    if (strlen(address) > ADDRESS_MAX)
        return nvlxi_fail(
            NVLX_EINVAL, "the address \"%s\" of a relay has %zu bytes: at most %d, as readers serve at it with 17 more",
            address, strlen(address), ADDRESS_MAX);
    struct nvlx_relay *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a relay");
    made->options = known;
    code = init(made, engine, parts, count);
    if (!code)
        code = timeout_ns ? become_reader(made, address, *timeout_ns) : become_source(made, address);
    made->options.serve = NULL; /* the caller's */
    if (code) {
        stop(made);
        dispose(made);
        return code;
    }
    *relay = made;
    return 0;
}

int nvlx_relay_offer(struct nvlx_engine *engine, const char *address, const struct nvlx_relay_part *parts, size_t count,
                     const struct nvlx_relay_options *options, struct nvlx_relay **relay) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, make(engine, address, parts, count, options, NULL, relay));
}

int nvlx_relay_join(struct nvlx_engine *engine, const char *address, const struct nvlx_relay_part *parts, size_t count,
                    const struct nvlx_relay_options *options, int64_t timeout_ns, struct nvlx_relay **relay) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, make(engine, address, parts, count, options, &timeout_ns, relay));
}

/* ---- Its life -------------------------------------------------------------------------------------------- */

static int check_relay(const struct nvlx_relay *relay) {
    int code = nvlxi_pointer_check(relay, "relay");
    return code ? code : nvlxi_engine_check(relay->engine);
}

/* A reader has its generation; or no reader is at that of the source, except for silent ones. Under the mutex. */
static bool may_go_on(const struct nvlx_relay *relay) {
    return relay->done >= relay->wanted &&
           (relay->reader || (relay->info.generation == relay->wanted && relay->reading == relay->silent));
}

/* Under the mutex. A source waits for so many readers. Those that are there must have the generation. In the place of
 * those that are not there, whoever is gone counts: with the generation or without it. */
static bool is_done(const struct nvlx_relay *relay) {
    if (relay->reader || !may_go_on(relay))
        return may_go_on(relay);
    const uint32_t wanted = relay->options.readers, away = wanted > relay->joined ? wanted - relay->joined : 0,
                   gone = relay->info.done - relay->having + relay->info.lost + relay->missing;
    return !relay->reading && (wanted ? relay->having + nvlxi_min(gone, away) >= wanted : !relay->idle);
}

struct found { /* of a relay, at one moment */
    struct nvlx_relay_info info;
    uint32_t silent, missing, idle;
    bool digests; /* those that it has told */
    bool asks;    /* a reader: for more than it has */
};

/* Under the mutex. */
static struct found look_at(const struct nvlx_relay *relay) {
    return (struct found){.info = relay->info,
                          .silent = relay->silent,
                          .missing = relay->missing,
                          .idle = relay->idle,
                          .digests = relay->done >= relay->wanted,
                          .asks = relay->done == relay->info.generation && relay->wanted > relay->done};
}

static int fail_reader_not_done(const struct found *found, int code) {
    const struct nvlx_relay_info *info = &found->info;
    if (!found->asks)
        return nvlxi_fail(code, "%" PRIu64 " of %" PRIu64 " bytes are in place, of generation %" PRIu64, info->arrived,
                          info->bytes, info->generation);
    if (!info->generation)
        return nvlxi_fail(code, "the source has let the reader in to no generation yet");
    return nvlxi_fail(code,
                      "the reader has generation %" PRIu64
                      ", and nvlx_relay_next was called: the source has offered no "
                      "newer one yet",
                      info->generation);
}

/* Only what there is. */
static void add_number(char *text, size_t size, uint32_t number, const char *words) {
    const size_t length = strlen(text);
    if (number)
        snprintf(text + length, size - length, ", %u %s", number, words);
}

static int fail_not_done(const struct nvlx_relay *relay, const struct found *found, int code) {
    const struct nvlx_relay_info *info = &found->info;
    char text[256] = "";
    if (relay->reader)
        return fail_reader_not_done(found, code);
    add_number(text, sizeof text, info->readers - info->done, "are at it");
    add_number(text, sizeof text, found->silent, "of them say nothing");
    add_number(text, sizeof text, found->idle, "have joined and not begun it");
    add_number(text, sizeof text, info->lost, "are lost");
    add_number(text, sizeof text, found->missing, "were lost or left before");
    add_number(text, sizeof text, relay->options.readers, "are waited for");
    return nvlxi_fail(code, "%u readers have generation %" PRIu64 "%s%s", info->done, info->generation, text,
                      found->digests ? "" : ", and the source's own digest is not made yet");
}

static int relay_wait(struct nvlx_relay *relay, int64_t timeout_ns) {
    const uint64_t deadline = nvlxi_deadline(timeout_ns);
    int code = check_relay(relay);
    if (code)
        return code;
    pthread_mutex_lock(&relay->mutex);
    bool in_time = true;
    while (!relay->failure && !is_done(relay) && in_time)
        in_time = nvlxi_cond_wait(&relay->news, &relay->mutex, deadline);
    const bool done = is_done(relay);
    code = relay->failure;
    const struct found found = look_at(relay);
    pthread_mutex_unlock(&relay->mutex);
    if (code)
        return nvlxi_fail(code, "%s", relay->reason);
    return done ? 0 : fail_not_done(relay, &found, NVLX_ETIMEDOUT);
}

int nvlx_relay_wait(struct nvlx_relay *relay, int64_t timeout_ns) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, relay_wait(relay, timeout_ns));
}

static int relay_next(struct nvlx_relay *relay) {
    int code = check_relay(relay);
    if (code)
        return code;
    pthread_mutex_lock(&relay->mutex);
    code = relay->failure;
    const bool goes_on = !code && (relay->held || may_go_on(relay)); /* who is back since then takes the next one */
    const struct found found = look_at(relay);
    if (goes_on) {
        relay->wanted = relay->done + 1;
        relay->held = false;
    }
    pthread_mutex_unlock(&relay->mutex);
    if (code)
        return nvlxi_fail(code, "%s", relay->reason);
    if (!goes_on)
        return fail_not_done(relay, &found, NVLX_EBUSY);
    nvlxi_relay_wake(relay);
    return 0;
}

int nvlx_relay_next(struct nvlx_relay *relay) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, relay_next(relay));
}

static int relay_hold(struct nvlx_relay *relay) {
    int code = check_relay(relay);
    if (code)
        return code;
    if (relay->reader)
        return nvlxi_fail(NVLX_EINVAL, "a reader of a relay holds nothing: nvlx_relay_hold is for the source");
    pthread_mutex_lock(&relay->mutex);
    code = relay->failure;
    relay->held = relay->held || (!code && may_go_on(relay));
    const bool held = relay->held;
    const uint64_t generation = relay->wanted;
    const struct found found = look_at(relay);
    pthread_mutex_unlock(&relay->mutex);
    if (code)
        return nvlxi_fail(code, "%s", relay->reason);
    return held ? nvlxi_relay_source_forget(relay, generation) : fail_not_done(relay, &found, NVLX_EBUSY);
}

int nvlx_relay_hold(struct nvlx_relay *relay) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, relay_hold(relay));
}

int nvlx_relay_get_info(struct nvlx_relay *relay, struct nvlx_relay_info *info) {
    int code = check_relay(relay);
    if (code)
        return code;
    pthread_mutex_lock(&relay->mutex);
    const struct nvlx_relay_info made = relay->info;
    pthread_mutex_unlock(&relay->mutex);
    const struct nvlxi_array parent = {offsetof(struct nvlx_relay_info, parent), sizeof made};
    return nvlxi_struct_give(info, &made, sizeof made, parent, "nvlx_relay_info");
}

/* All at once, so that those who read hear of it together. */
static int withdraw(struct nvlx_relay *relay) {
    int code = nvlx_hold(relay->engine);
    for (size_t i = 0; !code && i < relay->region_count; i++)
        if (nvlx_unregister(relay->regions[i], 0) == 0)
            relay->regions[i] = NULL;
    return code ? code : nvlx_publish(relay->engine, NULL);
}

static int relay_free(struct nvlx_relay *relay, int64_t timeout_ns) {
    const uint64_t deadline = nvlxi_deadline(timeout_ns);
    if (!relay)
        return 0;
    int code = check_relay(relay);
    if (code)
        return code;
    if (!relay->withdrawn) {
        stop(relay);
        relay->withdrawn = true;
        if ((code = withdraw(relay)))
            return code;
    }
    for (size_t i = 0; i < relay->region_count; i++) {
        const uint64_t now = nvlxi_now_ns();
        const int64_t left = deadline == UINT64_MAX ? -1 : deadline > now ? (int64_t)(deadline - now) : 0;
        if (relay->regions[i] && (code = nvlx_unregister(relay->regions[i], left)))
            return code;
        relay->regions[i] = NULL;
    }
    dispose(relay);
    return 0;
}

int nvlx_relay_free(struct nvlx_relay *relay, int64_t timeout_ns) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, relay_free(relay, timeout_ns));
}
