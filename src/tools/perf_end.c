/* nvlx_perf: what each process has: the library's side, by the public header alone; and the host backend's raw side.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "perf.h"

#define WAIT_NS INT64_C(120000000000)

/* ---- The raw side of the host backend: memcpy within one process, on the same list of offsets ----------------- */

static void host_lend(const struct perf_end *end, struct perf_lent *lent) {
    *lent = (struct perf_lent){0};
    snprintf(lent->machine.gpu, sizeof lent->machine.gpu, "software GPU %d", end->gpu);
}

static void host_run(const struct perf_end *end, enum perf_way way, const struct perf_choice *choice,
                     struct perf_sample *sample) {
    static char *memory; /* for both sides: the other process's is out of reach without the library */
    const bool put = end->list->spec.opcode == NVLX_OP_WRITE;
    (void)way, (void)choice;
    if (!memory)
        memory = perf_alloc(2, end->size);
    const uint64_t begin = clock_now_ns();
    for (size_t i = 0; i < end->list->count; i++) {
        const struct perf_fragment *fragment = &end->list->fragments[i];
        char *local = memory + fragment->local, *remote = memory + end->size + fragment->remote;
        memcpy(put ? remote : local, put ? local : remote, fragment->length);
    }
    sample->wall = sample->submit = (double)(clock_now_ns() - begin);
}

/* What memory filled with `seed` has at [from, from + length). */
static void fill_bytes(char *bytes, uint64_t seed, uint64_t from, uint64_t length) {
    for (uint64_t done = 0, part; done < length; done += part) {
        const uint64_t into = (from + done) % 8, word = perf_word(seed, (from + done) / 8);
        part = length - done < 8 - into ? length - done : 8 - into;
        memcpy(bytes + done, (const char *)&word + into, part);
    }
}

static void host_fill(const struct perf_end *end, uint64_t seed) {
    char *bytes = perf_alloc(end->size, 1);
    fill_bytes(bytes, seed, 0, end->size);
    perf_check(nvlx_memcpy(end->engine, end->memory, bytes, end->size), "nvlx_memcpy");
    free(bytes);
}

static void host_check(const struct perf_end *end, const struct perf_content *content, struct perf_wrong *wrong) {
    *wrong = (struct perf_wrong){0};
    char *found = perf_alloc(end->size, 1), *expected = perf_alloc(end->size, 1);
    perf_check(nvlx_memcpy(end->engine, found, end->memory, end->size), "nvlx_memcpy");
    fill_bytes(expected, content->seed, 0, end->size);
    for (const struct perf_arrival *arrival = content->arrivals; arrival < content->arrivals + content->count;
         arrival++)
        fill_bytes(expected + arrival->at, content->arrived_seed, arrival->from, arrival->length);
    const bool same = memcmp(found, expected, end->size) == 0;
    for (uint64_t i = 0; !same && i < end->size; i++)
        if (found[i] != expected[i] && !wrong->count++)
            wrong->first = i;
    free(found);
    free(expected);
}

static const struct perf_raw_backend raw_host = {.host = true,
                                                 .ways = 1u << PERF_LOOP,
                                                 .loop_name = "memcpy",
                                                 .lend = host_lend,
                                                 .run = host_run,
                                                 .fill = host_fill,
                                                 .check = host_check};

/* ---- An end ----------------------------------------------------------------------------------------------- */

static const struct perf_raw_backend *raw_backend(const char *name) {
#ifdef NVLXI_WITH_CUDA
    if (!strcmp(name, "cuda"))
        return &perf_raw_cuda;
#endif
    if (strcmp(name, "host"))
        perf_die("the library has the backend %s, for which this program was not built", name);
    return &raw_host;
}

void perf_end_open(struct perf_end *end, uint32_t backend, int gpu) {
    struct nvlx_config config;
    *end = (struct perf_end){.gpu = gpu};
    nvlx_config_init(&config);
    config.backend = backend;
    config.gpus = &end->gpu;
    config.gpu_count = 1;
    perf_check(nvlx_engine_create(&config, &end->engine), "nvlx_engine_create");
    end->backend = raw_backend(nvlx_backend_name(end->engine));
}

void perf_end_allocate(struct perf_end *end, const struct perf_options *options) {
    const struct perf_layout layout = perf_layout_of(options->arena, options->regions);
    end->size = options->arena;
    end->staging_size =
        options->baselines & end->backend->ways & 1u << PERF_STAGED && !options->latency ? options->bytes : 0;
    perf_check(nvlx_alloc(end->engine, end->gpu, end->size, NULL, (void **)&end->memory), "nvlx_alloc");
    if (end->staging_size)
        perf_check(nvlx_alloc(end->engine, end->gpu, end->staging_size, NULL, (void **)&end->staging), "nvlx_alloc");
    for (uint64_t i = 0; i < layout.count; i++) {
        struct nvlx_region *region; /* freed with the engine */
        struct nvlx_region_options options;
        char name[24];
        snprintf(name, sizeof name, "%" PRIu64, i);
        nvlx_region_options_init(&options);
        options.name = name;
        perf_check(nvlx_register(end->engine, end->memory + i * layout.step, layout.size, &options, &region),
                   "nvlx_register");
    }
}

void perf_end_meet(struct perf_end *end, const char *text, size_t length, const struct perf_lent *peer) {
    uint64_t ignored;
    perf_check(nvlx_peer_open(end->engine, text, length, &end->peer), "nvlx_peer_open");
    perf_check(nvlx_peer_find(end->peer, "0", &end->remote, &ignored), "nvlx_peer_find");
    if (end->backend->borrow)
        end->backend->borrow(end, peer);
}

static void free_blocks(struct perf_end *end) {
    perf_check(nvlx_blocks_free(end->blocks), "nvlx_blocks_free");
    end->blocks = NULL;
}

void perf_end_leave(struct perf_end *end) {
    free_blocks(end);
    if (end->backend->give_back)
        end->backend->give_back();
    perf_check(nvlx_peer_close(end->peer), "nvlx_peer_close");
}

void perf_end_close(struct perf_end *end) {
    free(end->ops);
    perf_check(nvlx_engine_destroy(end->engine), "nvlx_engine_destroy");
}

/* The ops of the list, as a program writes them right before a call. */
static void write_ops(const struct perf_end *end) {
    const bool swap = end->list->spec.swap;
    for (size_t i = 0; i < end->list->count; i++) {
        const struct perf_fragment *fragment = &end->list->fragments[i];
        end->ops[i] = (struct nvlx_op){.opcode = end->list->spec.opcode,
                                       .peer = end->peer,
                                       .local = end->memory + (swap ? fragment->remote : fragment->local),
                                       .remote = end->remote + (swap ? fragment->local : fragment->remote),
                                       .length = fragment->length};
    }
}

/* Tables of the list's layers, which are alike on both sides. */
static void make_blocks(struct perf_end *end) {
    const struct perf_list *list = end->list;
    const struct perf_list_spec *spec = &list->spec;
    struct nvlx_block_region *here = perf_alloc(spec->layers, sizeof *here),
                             *there = perf_alloc(spec->layers, sizeof *there);
    struct nvlx_blocks_options options;
    nvlx_blocks_options_init(&options);
    options.access = spec->opcode;
    for (uint64_t i = 0; i < spec->layers; i++) {
        const uint64_t begin = list->first + i * list->blocks * spec->fragment;
        here[i] = (struct nvlx_block_region){.base = (uint64_t)(uintptr_t)end->memory + begin,
                                             .stride = spec->fragment,
                                             .length = spec->fragment,
                                             .blocks = list->blocks};
        there[i] = here[i];
        there[i].base = end->remote + begin;
    }
    perf_check(nvlx_blocks_create(end->engine, end->peer, here, there, spec->layers, &options, &end->blocks),
               "nvlx_blocks_create");
    free(here);
    free(there);
}

void perf_end_set_list(struct perf_end *end, const struct perf_list *list) {
    free(end->ops);
    free_blocks(end);
    end->list = list;
    end->ops = perf_alloc(list->count, sizeof *end->ops);
    write_ops(end);
    if (list->ids[0])
        make_blocks(end);
    if (end->backend->set_list)
        end->backend->set_list(end);
}

struct nvlx_prepared *perf_end_prepare(struct perf_end *end, const struct nvlx_transfer_options *options) {
    struct nvlx_prepared *prepared;
    perf_check(nvlx_prepare(end->engine, end->ops, end->list->count, options, &prepared), "nvlx_prepare");
    return prepared;
}

/* The list, which is rows, as one op. */
static struct nvlx_op rows_op(const struct perf_end *end, struct nvlx_rows *rows) {
    const uint64_t pitch = end->list->spec.pitch;
    struct nvlx_op op = end->ops[0];
    *rows = (struct nvlx_rows){end->list->count, pitch, pitch};
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)rows;
    return op;
}

static struct nvlx_block_ids block_ids(const struct perf_list *list) {
    struct nvlx_block_ids ids;
    nvlx_block_ids_init(&ids);
    ids.opcode = list->spec.opcode;
    ids.local = list->ids[list->spec.swap];
    ids.remote = list->ids[!list->spec.swap];
    ids.count = list->id_count;
    return ids;
}

void perf_end_move(const struct perf_end *end, struct nvlx_prepared *prepared, enum perf_way way,
                   const struct nvlx_transfer_options *options, struct perf_sample *sample,
                   struct nvlx_request_info *info) {
    struct nvlx_request *request;
    struct nvlx_rows all;
    const struct nvlx_op one = rows_op(end, &all);
    const struct nvlx_block_ids ids = block_ids(end->list);
    const bool rows = way == PERF_ROWS;
    int code;
    if (!prepared && way != PERF_BLOCKS)
        write_ops(end);
    const uint64_t begin = clock_now_ns();
    if (way == PERF_BLOCKS)
        code = nvlx_blocks_transfer(end->blocks, &ids, options, &request);
    else if (prepared)
        code = nvlx_post(prepared, NULL, &request);
    else
        code = nvlx_transfer(end->engine, rows ? &one : end->ops, rows ? 1 : end->list->count, options, &request);
    const uint64_t submitted = clock_now_ns();
    perf_check(code, way == PERF_BLOCKS ? "nvlx_blocks_transfer" : prepared ? "nvlx_post" : "nvlx_transfer");
    perf_check(nvlx_wait(request, WAIT_NS), "nvlx_wait");
    const uint64_t done = clock_now_ns();
    *sample = (struct perf_sample){.wall = (double)(done - begin), .submit = (double)(submitted - begin)};
    info->size = sizeof *info;
    perf_check(nvlx_request_get_info(request, info), "nvlx_request_get_info");
    perf_check(nvlx_request_free(request), "nvlx_request_free");
}
