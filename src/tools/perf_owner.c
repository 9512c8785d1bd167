/* nvlx_perf: the owner of the other memory. SPDX-License-Identifier: Apache-2.0 */
#include "perf_owner.h"

#include <stdlib.h>
#include <string.h>

#include "perf_session.h"

struct owner {
    struct perf_channel channel;
    struct perf_end end;
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared; /* NULL: none */
};

static void answer(struct owner *owner, enum perf_command command) {
    perf_send(&owner->channel, command, NULL, 0, NULL, 0);
}

static const void *payload(const struct perf_message *message, size_t length) {
    if (message->length != length)
        perf_die("a command carries %zu bytes instead of %zu", message->length, length);
    return message->payload;
}

static void set_up(struct owner *owner, const struct perf_message *message) {
    const struct perf_setup *setup = payload(message, sizeof *setup);
    struct perf_setup_answer result = {0};
    struct perf_end *end = &owner->end;
    char *text;
    size_t length;
    perf_end_open(end, setup);
    perf_end_allocate(end, setup);
    end->backend->share(setup->gpu, end->side.memory, &result.memory);
    if (setup->staging)
        end->backend->share(setup->gpu, end->side.staging, &result.staging);
    perf_end_open_raw(end, NULL, NULL);
    end->backend->describe_gpu(setup->gpu, result.gpu, sizeof result.gpu);
    perf_check(nvlx_export(end->side.engine, &text, &length), "nvlx_export");
    perf_send(&owner->channel, PERF_SETUP, &result, sizeof result, text, length);
    nvlx_text_free(text);
}

static void drop_prepared(struct owner *owner) {
    perf_side_unprepare(owner->prepared);
    owner->prepared = NULL;
}

static void take_list(struct owner *owner, const struct perf_message *message) {
    const struct perf_owner_list *wanted = payload(message, sizeof *wanted);
    struct perf_list list;
    drop_prepared(owner);
    perf_list_make(&list, &wanted->spec);
    if (wanted->part == PERF_PART_STAGE) {
        owner->end.backend->set_list(owner->end.raw, &list);
    } else {
        perf_side_set_list(&owner->end.side, &list);
        nvlx_transfer_options_init(&owner->options);
        owner->options.mechanism = wanted->mechanism;
        owner->options.max_sms = wanted->max_sms;
        owner->options.priority = wanted->priority;
        if (wanted->part == PERF_PART_POST)
            owner->prepared = perf_side_prepare(&owner->end.side, &owner->options);
    }
    perf_list_free(&list);
    answer(owner, PERF_LIST);
}

static void take_part(struct owner *owner, const struct perf_message *message) {
    const uint32_t part = *(const uint32_t *)payload(message, sizeof part);
    struct perf_sample ignored;
    answer(owner, PERF_ROUND);
    perf_round_await_go(&owner->channel);
    if (part == PERF_PART_STAGE)
        owner->end.backend->stage(owner->end.raw);
    else
        perf_side_move(&owner->end.side, owner->prepared, &owner->options, &ignored, NULL);
    perf_round_done(&owner->channel);
}

static void check(struct owner *owner, const struct perf_message *message) {
    const struct perf_piece *pieces = (const void *)message->payload;
    struct perf_wrong wrong;
    perf_end_check(&owner->end, pieces, message->length / sizeof *pieces, &wrong);
    perf_send(&owner->channel, PERF_CHECK, &wrong, sizeof wrong, NULL, 0);
}

static void leave(struct owner *owner) {
    drop_prepared(owner);
    perf_end_leave(&owner->end);
    answer(owner, PERF_LEAVE);
}

static void obey(struct owner *owner, const struct perf_message *message) {
    switch (message->command) {
    case PERF_SETUP:
        set_up(owner, message);
        break;
    case PERF_PEER:
        perf_side_meet(&owner->end.side, message->payload, message->length);
        answer(owner, PERF_PEER);
        break;
    case PERF_LIST:
        take_list(owner, message);
        break;
    case PERF_ROUND:
        take_part(owner, message);
        break;
    case PERF_FILL:
        perf_end_fill(&owner->end, *(const uint64_t *)payload(message, sizeof(uint64_t)));
        answer(owner, PERF_FILL);
        break;
    case PERF_CHECK:
        check(owner, message);
        break;
    default:
        leave(owner);
        break;
    }
}

int perf_owner_run(const char *argument) {
    struct owner owner = {0};
    struct perf_message message;
    perf_role = "nvlx_perf (owner)";
    perf_channel_inherit(&owner.channel, argument);
    while (perf_receive(&owner.channel, &message)) {
        perf_watch();
        obey(&owner, &message);
        free(message.payload);
        perf_watch_end();
    }
    if (owner.end.side.engine)
        perf_end_close(&owner.end);
    perf_channel_end(&owner.channel);
    return 0;
}
