/* nvlx_perf: one end of the comparison. SPDX-License-Identifier: Apache-2.0 */
#include "perf_end.h"

#include <stdlib.h>
#include <string.h>

#define WINDOW (UINT64_C(16) << 20)

static const struct perf_raw_backend *raw_backend(const char *name) {
#ifdef NVLXI_WITH_CUDA
    if (!strcmp(name, "cuda"))
        return &perf_raw_cuda;
#endif
    if (strcmp(name, "host"))
        perf_die("the library has the backend %s, for which this program was not built", name);
    return &perf_raw_host;
}

void perf_end_open(struct perf_end *end, const struct perf_setup *setup) {
    *end = (struct perf_end){0};
    perf_watch();
    perf_side_open(&end->side, setup->backend, setup->gpu);
    end->backend = raw_backend(nvlx_backend_name(end->side.engine));
}

void perf_end_allocate(struct perf_end *end, const struct perf_setup *setup) {
    end->staging = setup->staging;
    perf_side_allocate(&end->side, setup->size, setup->regions, setup->staging);
}

void perf_end_open_raw(struct perf_end *end, const struct perf_handle *memory, const struct perf_handle *staging) {
    const struct perf_raw_setup setup = {.gpu = end->side.gpu,
                                         .memory = end->side.memory,
                                         .staging = end->side.staging,
                                         .peer_memory = memory,
                                         .peer_staging = end->staging ? staging : NULL,
                                         .size = end->side.size,
                                         .staging_size = end->staging};
    end->raw = end->backend->open(&setup);
}

void perf_end_leave(struct perf_end *end) {
    perf_watch();
    end->backend->close(end->raw);
    end->raw = NULL;
    perf_side_leave(&end->side);
}

void perf_end_close(struct perf_end *end) {
    perf_watch();
    perf_side_close(&end->side);
}

/* ---- Content ---------------------------------------------------------------------------------------------- */

void perf_end_fill(struct perf_end *end, uint64_t seed) {
    const struct perf_side *side = &end->side;
    perf_watch();
    if (end->backend->fill) {
        end->backend->fill(end->raw, seed);
        return;
    }
    char *window = perf_alloc(WINDOW, 1);
    for (uint64_t at = 0; at < side->size; at += WINDOW) {
        const uint64_t length = side->size - at < WINDOW ? side->size - at : WINDOW;
        perf_fill(window, seed, at, length);
        perf_check(nvlx_memcpy(side->engine, side->memory + at, window, length), "nvlx_memcpy");
    }
    free(window);
}

static void note(struct perf_wrong *wrong, uint64_t offset) {
    if (!wrong->count++)
        wrong->first = offset;
}

/* The part of a piece that lies in the window at `at`. */
static void check_part(const struct perf_piece *piece, const char *window, uint64_t at, uint64_t end, char *expected,
                       struct perf_wrong *wrong) {
    const uint64_t begin = piece->at > at ? piece->at : at;
    const uint64_t stop = piece->at + piece->length < end ? piece->at + piece->length : end;
    const char *found = window + (begin - at);
    perf_fill(expected, piece->seed, piece->from + (begin - piece->at), stop - begin);
    if (!memcmp(expected, found, stop - begin))
        return;
    for (uint64_t i = 0; i < stop - begin; i++)
        if (expected[i] != found[i])
            note(wrong, begin + i);
}

static void check_windows(struct perf_end *end, const struct perf_piece *pieces, size_t count,
                          struct perf_wrong *wrong) {
    const struct perf_side *side = &end->side;
    char *window = perf_alloc(2 * WINDOW, 1);
    for (uint64_t at = 0, i = 0; at < side->size; at += WINDOW) {
        const uint64_t stop = side->size - at < WINDOW ? side->size : at + WINDOW;
        perf_check(nvlx_memcpy(side->engine, window, side->memory + at, stop - at), "nvlx_memcpy");
        while (i < count && pieces[i].at < stop) {
            check_part(&pieces[i], window, at, stop, window + WINDOW, wrong);
            if (pieces[i].at + pieces[i].length > stop)
                break;
            i++;
        }
    }
    free(window);
}

void perf_end_check(struct perf_end *end, const struct perf_piece *pieces, size_t count, struct perf_wrong *wrong) {
    *wrong = (struct perf_wrong){0};
    perf_watch();
    if (end->backend->check)
        end->backend->check(end->raw, pieces, count, wrong);
    else
        check_windows(end, pieces, count, wrong);
}
