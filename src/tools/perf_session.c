/* nvlx_perf: the two processes of a run. SPDX-License-Identifier: Apache-2.0 */
#include "perf_session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* By default the second GPU measures and the first one is the owner's. */
static void choose_gpus(struct perf_options *options) {
    int count;
    perf_check(nvlx_gpu_count(options->backend, &count), "no GPU can be used");
    if (options->gpu[0] < 0) {
        options->gpu[0] = 0;
        options->gpu[1] = count > 1 ? 1 : 0;
    }
    for (int i = 0; i < 2; i++)
        if (options->gpu[i] >= count)
            perf_die("--gpus: there is no GPU %d: %d can be used, counted from 0", options->gpu[i], count);
}

/* A list has at least one fragment, which for a mixed one may have twice the size. */
static uint64_t staging_size(const struct perf_session *session) {
    const struct perf_options *options = session->options;
    const bool wanted = options->baselines & 1u << PERF_STAGED && perf_options_rates(options) &&
                        session->end.backend->baseline_names[PERF_STAGED];
    uint64_t size = options->bytes;
    for (size_t i = 0; i < options->fragment_count; i++)
        if (2 * options->fragments[i] > size && options->fragments[i] <= options->arena)
            size = 2 * options->fragments[i];
    return wanted ? size : 0;
}

static void set_up_owner(struct perf_session *session, struct perf_setup setup, struct perf_setup_answer *answer) {
    struct perf_channel *channel = &session->channel;
    struct perf_message message;
    setup.gpu = session->options->gpu[0];
    perf_send(channel, PERF_SETUP, &setup, sizeof setup, NULL, 0);
    if (!perf_receive(channel, &message) || message.length < sizeof *answer)
        perf_die("the owner process ended before it was ready");
    memcpy(answer, message.payload, sizeof *answer);
    perf_side_meet(&session->end.side, message.payload + sizeof *answer, message.length - sizeof *answer);
    free(message.payload);
}

static void send_descriptor(struct perf_session *session) {
    char *text;
    size_t length;
    perf_check(nvlx_export(session->end.side.engine, &text, &length), "nvlx_export");
    perf_command(&session->channel, PERF_PEER, text, length);
    nvlx_text_free(text);
}

void perf_session_open(struct perf_session *session, struct perf_options *options) {
    struct perf_end *end = &session->end;
    struct perf_setup_answer answer;
    *session = (struct perf_session){.options = options, .seed = 1};
    perf_channel_start(&session->channel);
    choose_gpus(options);
    struct perf_setup setup = {.backend = options->backend, .gpu = options->gpu[1]};
    perf_end_open(end, &setup);
    session->host = end->backend == &perf_raw_host;
    perf_options_complete(options, session->host);
    setup.backend = session->host ? NVLX_BACKEND_HOST : NVLX_BACKEND_CUDA;
    setup.size = options->arena;
    setup.regions = options->regions;
    setup.staging = staging_size(session);
    perf_end_allocate(end, &setup);
    set_up_owner(session, setup, &answer);
    perf_end_open_raw(end, &answer.memory, &answer.staging);
    send_descriptor(session);
    session->same_gpu = options->gpu[0] == options->gpu[1];
    snprintf(session->gpu[0], sizeof session->gpu[0], "%.*s", (int)sizeof answer.gpu - 1, answer.gpu);
    end->backend->describe_gpu(options->gpu[1], session->gpu[1], sizeof session->gpu[1]);
    end->backend->describe_platform(session->platform, sizeof session->platform);
}

/* Each leaves the other's memory before that is freed. */
void perf_session_close(struct perf_session *session) {
    perf_end_leave(&session->end);
    perf_command(&session->channel, PERF_LEAVE, NULL, 0);
    perf_end_close(&session->end);
    perf_channel_end(&session->channel);
    perf_watch_end();
}

/* ---- Content ---------------------------------------------------------------------------------------------- */

void perf_session_fill(struct perf_session *session, uint64_t seeds[2]) {
    seeds[0] = ++session->seed;
    seeds[1] = ++session->seed;
    perf_send(&session->channel, PERF_FILL, &seeds[1], sizeof seeds[1], NULL, 0);
    perf_end_fill(&session->end, seeds[0]);
    perf_answer(&session->channel, NULL, 0);
}

static uint64_t tell(const struct perf_wrong *wrong, const char *whose) {
    perf_progress_end();
    fprintf(stderr, "WRONG: %" PRIu64 " bytes of the %s memory, the first at offset 0x%" PRIx64 "\n", wrong->count,
            whose, wrong->first);
    return wrong->count;
}

static void check_both(struct perf_session *session, const struct perf_content content[2], struct perf_wrong wrong[2]) {
    perf_send(&session->channel, PERF_CHECK, content[1].pieces, content[1].count * sizeof *content[1].pieces, NULL, 0);
    perf_end_check(&session->end, content[0].pieces, content[0].count, &wrong[0]);
    perf_answer(&session->channel, &wrong[1], sizeof wrong[1]);
}

uint64_t perf_session_check(struct perf_session *session, const struct perf_list *lists, size_t count,
                            const uint64_t seeds[2]) {
    struct perf_content content[2];
    struct perf_wrong wrong[2];
    uint64_t total = 0;
    for (int i = 0; i < 2; i++)
        perf_content_make(&content[i], lists, count, i == 1, session->end.side.size, seeds);
    check_both(session, content, wrong);
    for (int i = 0; i < 2; i++) {
        perf_content_free(&content[i]);
        if (wrong[i].count)
            total += tell(&wrong[i], i ? "owner's" : "measuring process's");
    }
    return total;
}

/* One byte of this process's memory is changed, by the library; the owner's is expected to have other seeds. */
void perf_session_prove(struct perf_session *session) {
    const struct perf_side *side = &session->end.side;
    const uint64_t at = side->size / 2 + 3;
    struct perf_content content[2];
    struct perf_wrong wrong[2];
    uint64_t seeds[2];
    unsigned char byte;
    perf_session_fill(session, seeds);
    perf_fill(&byte, seeds[0], at, 1);
    byte ^= 0x10;
    perf_check(nvlx_memcpy(side->engine, side->memory + at, &byte, 1), "nvlx_memcpy");
    for (int i = 0; i < 2; i++)
        perf_content_make(&content[i], NULL, 0, i == 1, side->size, seeds);
    content[1].pieces[0].seed++;
    check_both(session, content, wrong);
    if (wrong[0].count != 1 || wrong[0].first != at || wrong[1].count < content[1].pieces[0].length / 2 ||
        wrong[1].first > 64)
        perf_die("the check of bytes does not find those that are wrong: no use to go on");
    for (int i = 0; i < 2; i++)
        perf_content_free(&content[i]);
}
