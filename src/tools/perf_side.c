/* nvlx_perf: libnvlxfer's side of the comparison. SPDX-License-Identifier: Apache-2.0 */
#include "perf_side.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_NS INT64_C(120000000000)

void perf_side_open(struct perf_side *side, uint32_t backend, int gpu) {
    struct nvlx_config config;
    *side = (struct perf_side){.gpu = gpu};
    nvlx_config_init(&config);
    config.backend = backend;
    config.gpus = &side->gpu;
    config.gpu_count = 1;
    perf_check(nvlx_engine_create(&config, &side->engine), "nvlx_engine_create");
}

void perf_side_allocate(struct perf_side *side, uint64_t size, uint64_t regions, uint64_t staging) {
    const struct perf_layout layout = perf_layout_of(size, regions);
    side->size = size;
    perf_check(nvlx_alloc(side->engine, side->gpu, size, NULL, (void **)&side->memory), "nvlx_alloc");
    if (staging)
        perf_check(nvlx_alloc(side->engine, side->gpu, staging, NULL, (void **)&side->staging), "nvlx_alloc");
    for (uint64_t i = 0; i < layout.count; i++) {
        struct nvlx_region *region; /* freed with the engine */
        struct nvlx_region_options options;
        char name[24];
        snprintf(name, sizeof name, "%" PRIu64, i);
        nvlx_region_options_init(&options);
        options.name = name;
        perf_check(nvlx_register(side->engine, side->memory + i * layout.step, layout.size, &options, &region),
                   "nvlx_register");
    }
}

void perf_side_meet(struct perf_side *side, const char *text, size_t length) {
    uint64_t ignored;
    perf_check(nvlx_peer_open(side->engine, text, length, &side->peer), "nvlx_peer_open");
    perf_check(nvlx_peer_find(side->peer, "0", &side->remote, &ignored), "nvlx_peer_find");
}

void perf_side_leave(struct perf_side *side) {
    perf_check(nvlx_peer_close(side->peer), "nvlx_peer_close");
    side->peer = NULL;
}

void perf_side_close(struct perf_side *side) {
    free(side->ops);
    free(side->fragments);
    side->ops = NULL;
    side->fragments = NULL;
    perf_check(nvlx_engine_destroy(side->engine), "nvlx_engine_destroy");
}

/* The ops of the list, as a program writes them right before a call. */
static void write_ops(struct perf_side *side) {
    const bool swap = side->spec.swap;
    for (size_t i = 0; i < side->count; i++) {
        const struct perf_fragment *fragment = &side->fragments[i];
        side->ops[i] = (struct nvlx_op){.opcode = side->spec.opcode,
                                        .peer = side->peer,
                                        .local = side->memory + (swap ? fragment->remote : fragment->local),
                                        .remote = side->remote + (swap ? fragment->local : fragment->remote),
                                        .length = fragment->length};
    }
}

void perf_side_set_list(struct perf_side *side, const struct perf_list *list) {
    free(side->ops);
    free(side->fragments);
    side->spec = list->spec;
    side->count = list->count;
    side->bytes = list->bytes;
    side->fragments = perf_alloc(list->count, sizeof *side->fragments);
    memcpy(side->fragments, list->fragments, list->count * sizeof *side->fragments);
    side->ops = perf_alloc(list->count, sizeof *side->ops);
    write_ops(side);
}

struct nvlx_transfer_options perf_side_options(const struct perf_options *options, uint32_t budget) {
    struct nvlx_transfer_options result;
    nvlx_transfer_options_init(&result);
    result.mechanism = options->mechanism;
    result.max_sms = budget;
    result.priority = options->priority;
    return result;
}

struct nvlx_prepared *perf_side_prepare(struct perf_side *side, const struct nvlx_transfer_options *options) {
    struct nvlx_prepared *prepared;
    perf_check(nvlx_prepare(side->engine, side->ops, side->count, options, &prepared), "nvlx_prepare");
    return prepared;
}

void perf_side_unprepare(struct nvlx_prepared *prepared) {
    perf_check(nvlx_prepared_free(prepared), "nvlx_prepared_free");
}

void perf_side_move(struct perf_side *side, struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
                    struct perf_sample *sample, struct nvlx_request_info *info) {
    struct nvlx_request *request;
    perf_watch();
    if (!prepared)
        write_ops(side);
    const uint64_t begin = perf_now();
    const int code = prepared ? nvlx_post(prepared, NULL, &request)
                              : nvlx_transfer(side->engine, side->ops, side->count, options, &request);
    const uint64_t submitted = perf_now();
    perf_check(code, prepared ? "nvlx_post" : "nvlx_transfer");
    perf_check(nvlx_wait(request, WAIT_NS), "nvlx_wait");
    const uint64_t end = perf_now();
    *sample = (struct perf_sample){.wall = (double)(end - begin), .submit = (double)(submitted - begin)};
    if (info) {
        info->size = sizeof *info;
        perf_check(nvlx_request_get_info(request, info), "nvlx_request_get_info");
    }
    perf_check(nvlx_request_free(request), "nvlx_request_free");
}
