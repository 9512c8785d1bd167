/* A child that is a source or a reader of a relay: see relay_member.h. SPDX-License-Identifier: Apache-2.0 */
#include "relay_member.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/engine.h"
#include "faulty_device.h"

enum order { OFFER, JOIN, WAIT, HOLD, NEXT, FREE, INFO, SLOW, FILL, DAMAGE, WRONG };

struct command {
    enum order order;
    char address[108];
    int64_t timeout_ns;
    uint32_t seed;
    bool slow;
    struct nvlx_relay_options options;
};

#define PARTS_MAX 300

static struct nvlx_engine *engine;
static struct nvlx_relay *relay;
static struct nvlx_relay_part parts[PARTS_MAX];
static char names[PARTS_MAX][32];
static size_t part_count;
static char *memory;
static size_t length;

/* ---- The child ------------------------------------------------------------------------------------------- */

size_t member_bytes(void) {
    return (sanitized() ? 8 : 16) * MIB + 100;
}

static size_t part_length(enum shape shape, size_t i) {
    if (shape == MANY)
        return i % 17 ? i * 181 % 65521 : 0;
    if (i)
        return 1000;
    return member_bytes() - (shape == SHORT);
}

/* One behind the other, the first at an odd address. */
static void make_parts(int gpu, enum shape shape) {
    part_count = shape == MANY ? PARTS_MAX : shape == MORE ? 2 : 1;
    length = 1;
    for (size_t i = 0; i < part_count; i++)
        length += part_length(shape, i);
    memory = allocate(engine, gpu, length, 99);
    char *at = memory + 1;
    for (size_t i = 0; i < part_count; i++) {
        snprintf(names[i], sizeof names[i], "%s%zu", shape == OTHER ? "other" : "w", i);
        parts[i] = (struct nvlx_relay_part){.name = names[i], .address = at, .length = part_length(shape, i)};
        at += parts[i].length;
    }
}

static void damage(void) {
    char byte;
    OK(nvlx_memcpy(engine, &byte, memory + length / 2, 1));
    byte ^= 1;
    OK(nvlx_memcpy(engine, memory + length / 2, &byte, 1));
}

static int obey(const struct command *command, struct outcome *outcome) {
    switch (command->order) {
    case OFFER:
        return nvlx_relay_offer(engine, command->address, parts, part_count, &command->options, &relay);
    case JOIN:
        return nvlx_relay_join(engine, command->address, parts, part_count, NULL, command->timeout_ns, &relay);
    case WAIT:
        return nvlx_relay_wait(relay, command->timeout_ns);
    case HOLD:
        return nvlx_relay_hold(relay);
    case NEXT:
        return nvlx_relay_next(relay);
    case FREE:
        return nvlx_relay_free(relay, command->timeout_ns);
    case INFO:
        outcome->info.size = sizeof outcome->info;
        outcome->lanes = atomic_load(&faults.lane_creates);
        outcome->kernels = atomic_load(&faults.kernels);
        return nvlx_relay_get_info(relay, &outcome->info);
    case SLOW:
        atomic_store(&faults.copy_delay_us, command->slow ? (int)(3000000 * MEMBER_PIECE / member_bytes()) : 0);
        return 0;
    case FILL:
        fill(engine, memory + 1, length - 1, command->seed);
        return 0;
    case DAMAGE:
        damage();
        return 0;
    case WRONG:
        outcome->wrong = wrong(engine, memory + 1, length - 1, command->seed);
        return 0;
    }
    FAIL("order %d", (int)command->order);
}

void member_role(int socket) {
    struct {
        int gpu;
        enum shape shape;
    } made;
    struct nvlx_config config;
    struct command command;
    get(socket, &made, sizeof made);
    nvlx_config_init(&config);
    config.gpus = &made.gpu;
    config.gpu_count = 1;
    OK(nvlxi_engine_create(&config, &faulty_device, &engine));
    make_parts(made.gpu, made.shape);
    while (get_or_end(socket, &command, sizeof command)) {
        struct outcome outcome = {0};
        outcome.code = obey(&command, &outcome);
        if (outcome.code)
            snprintf(outcome.error, sizeof outcome.error, "%s", nvlx_last_error());
        put(socket, &outcome, sizeof outcome);
    }
    OK(nvlx_engine_destroy(engine));
}

/* ---- The test's side ------------------------------------------------------------------------------------- */

void member_start(struct member *member, int gpu, enum shape shape) {
    struct {
        int gpu;
        enum shape shape;
    } made = {gpu, shape};
    child_start(&member->child, "member");
    put(member->child.socket, &made, sizeof made);
}

void member_end(struct member *member) {
    child_end(&member->child);
}

static struct outcome order(struct member *member, const struct command *command) {
    struct outcome outcome;
    put(member->child.socket, command, sizeof *command);
    get(member->child.socket, &outcome, sizeof outcome);
    return outcome;
}

static struct command make(enum order what, const char *address, int64_t timeout_ns) {
    struct command command = {.order = what, .timeout_ns = timeout_ns};
    snprintf(command.address, sizeof command.address, "%s", address);
    return command;
}

struct outcome member_offer(struct member *member, const char *address, uint32_t seed,
                            const struct nvlx_relay_options *options) {
    struct command command = make(OFFER, address, 0);
    member_fill(member, seed);
    command.options = *options;
    return order(member, &command);
}

void member_join_begin(struct member *member, const char *address, int64_t timeout_ns) {
    const struct command command = make(JOIN, address, timeout_ns);
    put(member->child.socket, &command, sizeof command);
}

struct outcome member_join(struct member *member, const char *address, int64_t timeout_ns) {
    member_join_begin(member, address, timeout_ns);
    return member_wait_end(member);
}

void member_wait_begin(struct member *member, int64_t timeout_ns) {
    const struct command command = make(WAIT, "", timeout_ns);
    put(member->child.socket, &command, sizeof command);
}

struct outcome member_wait_end(struct member *member) {
    struct outcome outcome;
    get(member->child.socket, &outcome, sizeof outcome);
    return outcome;
}

struct outcome member_wait(struct member *member, int64_t timeout_ns) {
    member_wait_begin(member, timeout_ns);
    return member_wait_end(member);
}

struct outcome member_hold(struct member *member) {
    const struct command command = make(HOLD, "", 0);
    return order(member, &command);
}

struct outcome member_next(struct member *member) {
    const struct command command = make(NEXT, "", 0);
    return order(member, &command);
}

struct outcome member_free(struct member *member, int64_t timeout_ns) {
    const struct command command = make(FREE, "", timeout_ns);
    return order(member, &command);
}

struct nvlx_relay_info member_info(struct member *member) {
    const struct command command = make(INFO, "", 0);
    return order(member, &command).info;
}

long member_lanes(struct member *member) {
    const struct command command = make(INFO, "", 0);
    return order(member, &command).lanes;
}

long member_kernels(struct member *member) {
    const struct command command = make(INFO, "", 0);
    return order(member, &command).kernels;
}

void member_slow(struct member *member, bool slow) {
    struct command command = make(SLOW, "", 0);
    command.slow = slow;
    order(member, &command);
}

void member_fill(struct member *member, uint32_t seed) {
    struct command command = make(FILL, "", 0);
    command.seed = seed;
    order(member, &command);
}

void member_damage(struct member *member) {
    const struct command command = make(DAMAGE, "", 0);
    order(member, &command);
}

uint64_t member_wrong(struct member *member, uint32_t seed) {
    struct command command = make(WRONG, "", 0);
    command.seed = seed;
    return order(member, &command).wrong;
}
